//! KeyDescription, the extension of the leaf (Android Open Source Project, "Key and ID attestation", ASN.1 schema).
//!
//! Only what decides or is reported is read; the order of the tags does not matter, but none may come twice.

use crate::der::{self, Malformed, Reader, Tag};
use crate::reject::Reject;

pub(super) const ORIGIN_GENERATED: u64 = 0;
pub(super) const BOOT_VERIFIED: u64 = 0;
pub(super) const BOOT_SELF_SIGNED: u64 = 1;
const BOOT_STATE_MAX: u64 = 3;

const TAG_ORIGIN: u32 = 702;
const TAG_ROOT_OF_TRUST: u32 = 704;
const TAG_OS_VERSION: u32 = 705;
const TAG_OS_PATCH_LEVEL: u32 = 706;
const TAG_APPLICATION: u32 = 709;
const TAG_BRAND: u32 = 710;
const TAG_SECOND_IMEI: u32 = 723;
const TAG_VENDOR_PATCH_LEVEL: u32 = 718;
const TAG_BOOT_PATCH_LEVEL: u32 = 719;

/// Most entries of an authorization list that are read.
const ENTRIES_MAX: usize = 128;
/// Longest identifier that is kept, in bytes.
const ID_BYTES_MAX: usize = 128;
/// Most packages or signers that are read of an application.
const APPLICATION_ENTRIES_MAX: usize = 64;

/// Where a key lives in hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// A trusted execution environment of the main processor.
    Tee,
    /// A security chip of its own.
    StrongBox,
}

/// Which system booted, on a locked device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VerifiedBoot {
    /// The maker's.
    Verified,
    /// One that the owner signed.
    SelfSigned,
}

/// Identifiers that the hardware vouches for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttestedIds {
    /// Brand, such as `google`.
    pub brand: Option<String>,
    /// Device, such as `akita`.
    pub device: Option<String>,
    /// Product, such as `akita`.
    pub product: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// IMEI of the first modem.
    pub imei: Option<String>,
    /// MEID.
    pub meid: Option<String>,
    /// Manufacturer, such as `Google`.
    pub manufacturer: Option<String>,
    /// Model, such as `Pixel 8a`.
    pub model: Option<String>,
    /// IMEI of the second modem.
    pub second_imei: Option<String>,
}

pub(super) struct Description<'a> {
    pub attestation_version: u64,
    /// `None` means software.
    pub attestation_level: Option<Level>,
    /// `None` means software.
    pub key_level: Option<Level>,
    pub challenge: &'a [u8],
    pub software: AuthorizationList<'a>,
    pub hardware: AuthorizationList<'a>,
}

#[derive(Default)]
pub(super) struct AuthorizationList<'a> {
    pub origin: Option<u64>,
    pub root_of_trust: Option<RootOfTrust<'a>>,
    pub os_version: Option<u64>,
    pub os_patch_level: Option<u64>,
    pub vendor_patch_level: Option<u64>,
    pub boot_patch_level: Option<u64>,
    pub ids: AttestedIds,
    application: Option<ApplicationId<'a>>,
}

pub(super) struct RootOfTrust<'a> {
    pub boot_key: &'a [u8],
    pub device_locked: bool,
    pub boot_state: u64,
    pub boot_hash: Option<&'a [u8]>,
}

struct ApplicationId<'a> {
    packages: Vec<&'a [u8]>,
    signers: Vec<&'a [u8]>,
}

impl<'a> Description<'a> {
    pub fn parse(extension: &'a [u8]) -> Result<Self, Reject> {
        read(extension).map_err(|Malformed| Reject::AndroidMalformed)
    }
}

impl AuthorizationList<'_> {
    /// Whether this application made the key. Packages that share a user id share the key, so one of them suffices.
    pub fn made_by(&self, package: &str, signer: &[u8; 32]) -> bool {
        self.application.as_ref().is_some_and(|application| {
            application.packages.contains(&package.as_bytes()) && application.signers == [&signer[..]]
        })
    }
}

fn read(extension: &[u8]) -> Result<Description<'_>, Malformed> {
    let mut outer = Reader::new(extension);
    let mut fields = outer.nested(Tag::SEQUENCE)?;
    outer.end()?;
    let attestation_version = der::small(fields.expect(Tag::INTEGER)?)?;
    let attestation_level = read_level(&mut fields)?;
    let _key_mint_version = der::small(fields.expect(Tag::INTEGER)?)?;
    let key_level = read_level(&mut fields)?;
    let challenge = fields.expect(Tag::OCTET_STRING)?;
    let _unique_id = fields.expect(Tag::OCTET_STRING)?;
    let software = read_list(fields.nested(Tag::SEQUENCE)?)?;
    let hardware = read_list(fields.nested(Tag::SEQUENCE)?)?;
    fields.end()?;
    Ok(Description {
        attestation_version,
        attestation_level,
        key_level,
        challenge,
        software,
        hardware,
    })
}

fn read_level(fields: &mut Reader<'_>) -> Result<Option<Level>, Malformed> {
    match der::small(fields.expect(Tag::ENUMERATED)?)? {
        0 => Ok(None),
        1 => Ok(Some(Level::Tee)),
        2 => Ok(Some(Level::StrongBox)),
        _ => Err(Malformed),
    }
}

fn read_list<'a>(mut entries: Reader<'a>) -> Result<AuthorizationList<'a>, Malformed> {
    let mut list = AuthorizationList::default();
    let mut seen = Vec::new();
    while !entries.is_empty() {
        let entry = entries.element()?;
        let number = entry.tag.explicit_number().ok_or(Malformed)?;
        if seen.contains(&number) || seen.len() == ENTRIES_MAX {
            return Err(Malformed);
        }
        seen.push(number);
        let mut value = Reader::new(entry.value);
        match number {
            TAG_ORIGIN => list.origin = Some(integer(&mut value)?),
            TAG_ROOT_OF_TRUST => list.root_of_trust = Some(read_root_of_trust(&mut value)?),
            TAG_OS_VERSION => list.os_version = Some(integer(&mut value)?),
            TAG_OS_PATCH_LEVEL => list.os_patch_level = Some(integer(&mut value)?),
            TAG_VENDOR_PATCH_LEVEL => list.vendor_patch_level = Some(integer(&mut value)?),
            TAG_BOOT_PATCH_LEVEL => list.boot_patch_level = Some(integer(&mut value)?),
            TAG_APPLICATION => list.application = Some(read_application(value.expect(Tag::OCTET_STRING)?)?),
            TAG_BRAND..=717 | TAG_SECOND_IMEI => {
                *slot(&mut list.ids, number)? = Some(identifier(&mut value)?)
            }
            _ => {
                value.element()?;
            }
        }
        value.end()?;
    }
    Ok(list)
}

fn slot(ids: &mut AttestedIds, number: u32) -> Result<&mut Option<String>, Malformed> {
    match number {
        710 => Ok(&mut ids.brand),
        711 => Ok(&mut ids.device),
        712 => Ok(&mut ids.product),
        713 => Ok(&mut ids.serial),
        714 => Ok(&mut ids.imei),
        715 => Ok(&mut ids.meid),
        716 => Ok(&mut ids.manufacturer),
        717 => Ok(&mut ids.model),
        TAG_SECOND_IMEI => Ok(&mut ids.second_imei),
        _ => Err(Malformed),
    }
}

fn integer(value: &mut Reader<'_>) -> Result<u64, Malformed> {
    der::small(value.expect(Tag::INTEGER)?)
}

fn identifier(value: &mut Reader<'_>) -> Result<String, Malformed> {
    let octets = value.expect(Tag::OCTET_STRING)?;
    let text = std::str::from_utf8(octets).map_err(|_| Malformed)?;
    if text.is_empty() || text.len() > ID_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(Malformed);
    }
    Ok(text.to_owned())
}

fn read_root_of_trust<'a>(value: &mut Reader<'a>) -> Result<RootOfTrust<'a>, Malformed> {
    let mut fields = value.nested(Tag::SEQUENCE)?;
    let boot_key = fields.expect(Tag::OCTET_STRING)?;
    let device_locked = der::boolean(fields.expect(Tag::BOOLEAN)?)?;
    let boot_state = der::small(fields.expect(Tag::ENUMERATED)?)?;
    let boot_hash = fields.optional(Tag::OCTET_STRING)?;
    fields.end()?;
    if boot_state > BOOT_STATE_MAX {
        return Err(Malformed);
    }
    Ok(RootOfTrust {
        boot_key,
        device_locked,
        boot_state,
        boot_hash,
    })
}

/// AttestationApplicationId, which is wrapped in an octet string.
fn read_application(octets: &[u8]) -> Result<ApplicationId<'_>, Malformed> {
    let mut outer = Reader::new(octets);
    let mut fields = outer.nested(Tag::SEQUENCE)?;
    outer.end()?;
    let mut infos = fields.nested(Tag::SET)?;
    let mut digests = fields.nested(Tag::SET)?;
    fields.end()?;
    let mut application = ApplicationId {
        packages: Vec::new(),
        signers: Vec::new(),
    };
    while !infos.is_empty() {
        let mut info = infos.nested(Tag::SEQUENCE)?;
        application.packages.push(info.expect(Tag::OCTET_STRING)?);
        info.expect(Tag::INTEGER)?;
        info.end()?;
        if application.packages.len() > APPLICATION_ENTRIES_MAX {
            return Err(Malformed);
        }
    }
    while !digests.is_empty() {
        application.signers.push(digests.expect(Tag::OCTET_STRING)?);
        if application.signers.len() > APPLICATION_ENTRIES_MAX {
            return Err(Malformed);
        }
    }
    Ok(application)
}
