//! Android Key Attestation: a key in a TEE or StrongBox, and the state of the system that booted around it.
//!
//! Source: Android Open Source Project, "Key and ID attestation" (schema of KeyDescription, provisioning), and the
//! revocation list that Google publishes. What a chain may do that RFC 5280 forbids is listed at [`verify`].

mod description;
mod revocation;

use muster_model::time::Timestamp;

pub use description::{AttestedIds, Level, VerifiedBoot};
pub use revocation::{LIST_BYTES_MAX, LIST_ENTRIES_MAX, REVOCATION_AGE_MAX, RevocationList};

use crate::anchors::Anchors;
use crate::cbor;
use crate::certificate::{Certificate, OID_ANDROID_KEY_DESCRIPTION, attributes};
use crate::chain::{self, Issuers, LeafAuthority, LeafDates, Order};
use crate::reject::Reject;
use description::{BOOT_SELF_SIGNED, BOOT_VERIFIED, Description, ORIGIN_GENERATED};

/// Most certificates in a chain, the leaf and the root that is sent along included.
pub const CERTIFICATES_MAX: usize = 6;
/// Fewest: leaf, attestation key, root.
const CERTIFICATES_MIN: usize = 3;
/// Provisioning information of a remotely provisioned key, 1.3.6.1.4.1.11129.2.1.30.
const OID_PROVISIONING: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x01, 0x1e];
/// serialNumber in a name (X.520).
const OID_NAME_SERIAL: &[u8] = &[0x55, 0x04, 0x05];
/// Longest provisioning information that is read, in bytes.
const PROVISIONING_BYTES_MAX: usize = 4096;

/// What is asked of a device beyond a genuine, locked one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Where the key must live at least; never in software.
    pub level: Level,
    /// Which system may have booted.
    pub boot: BootRule,
    /// Earliest security patch of the system, as the hardware attests it: a number such as 202609.
    pub os_patch_level_min: Option<u64>,
    /// The application that must have made the key.
    pub application: Option<Application>,
}

/// Which system may have booted. The bootloader is locked in any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootRule {
    /// The maker's.
    Verified,
    /// The maker's, or one that another key verified which is listed here by its hash, as GrapheneOS publishes its own.
    /// Without such a list whoever holds a device could sign a system of its own and lock the bootloader again.
    VerifiedOrSignedBy(Vec<[u8; 32]>),
}

/// An Android application, known by its package and its signer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// The package name.
    pub package: String,
    /// SHA-256 of the signing certificate.
    pub signer_sha256: [u8; 32],
}

impl Rules {
    /// A key in a TEE or StrongBox under the maker's verified system.
    pub fn production() -> Self {
        Self {
            level: Level::Tee,
            boot: BootRule::Verified,
            os_patch_level_min: None,
            application: None,
        }
    }
}

/// What an attestation proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Where the key lives.
    pub level: Level,
    /// The SubjectPublicKeyInfo of the attested key as received: the caller compares it with that of the request.
    pub spki_der: Vec<u8>,
    /// Which system booted.
    pub verified_boot: VerifiedBoot,
    /// Hash of the key that verified the system.
    pub verified_boot_key: Vec<u8>,
    /// Hash of all that was verified, from attestation version 3 on.
    pub verified_boot_hash: Option<Vec<u8>>,
    /// Whether the bootloader is locked.
    pub device_locked: bool,
    /// Version of the system, such as 160000.
    pub os_version: Option<u64>,
    /// Security patch of the system, such as 202609.
    pub os_patch_level: Option<u64>,
    /// Security patch of the vendor partition, such as 20260905.
    pub vendor_patch_level: Option<u64>,
    /// Security patch of the boot partition, such as 20260905.
    pub boot_patch_level: Option<u64>,
    /// Identifiers of the device: only a device that an organization owns attests them.
    pub ids: AttestedIds,
    /// Version of the attestation, such as 300 for KeyMint 3.
    pub attestation_version: u64,
    /// How many certificates the provisioning service issued to the device in the last 30 days; `None` for keys from
    /// the factory.
    pub rkp_certificates_issued: Option<u64>,
}

/// Verifies a chain, leaf first, for this challenge.
///
/// Three things are let through that a TLS library would refuse, all of them common on genuine devices: the dates of the
/// leaf, which the device sets without a clock; of keys from the factory also expired issuers, and an attestation key
/// whose certificate is no authority. A certificate above the leaf that itself describes a key is refused, for that is a
/// device key that signed one more certificate.
pub fn verify(
    x5c: &[&[u8]],
    challenge: &[u8],
    anchors: &Anchors,
    revoked: &RevocationList,
    rules: &Rules,
    now: Timestamp,
) -> Result<Facts, Reject> {
    // First: whether anything can be said at all does not depend on the device.
    revoked.check_age(now)?;
    let certificates = chain::parse(x5c, CERTIFICATES_MAX)?;
    if certificates.len() < CERTIFICATES_MIN {
        return Err(Reject::AndroidTooFew);
    }
    chain::validate(&certificates, anchors, now, chain_rules(&certificates, anchors))?;
    for certificate in &certificates {
        revoked.check(certificate.serial)?;
    }
    let (leaf, issuers) = certificates.split_first().ok_or(Reject::ChainEmpty)?;
    if issuers
        .iter()
        .any(|issuer| issuer.extension(OID_ANDROID_KEY_DESCRIPTION).is_some())
    {
        return Err(Reject::AndroidExtended);
    }
    let extension = leaf
        .extension(OID_ANDROID_KEY_DESCRIPTION)
        .ok_or(Reject::AndroidNoDescription)?;
    let description = Description::parse(extension)?;
    if !crate::equal(description.challenge, challenge) {
        return Err(Reject::AndroidChallenge);
    }
    let level = judge(&description, rules)?;
    facts(description, level, leaf, issuers)
}

/// Checks the description of a key against the rules.
fn judge(description: &Description<'_>, rules: &Rules) -> Result<Level, Reject> {
    let (Some(attestation), Some(key)) = (description.attestation_level, description.key_level) else {
        return Err(Reject::AndroidSoftware);
    };
    if attestation != key {
        return Err(Reject::AndroidLevelsDiffer);
    }
    if key < rules.level {
        return Err(Reject::AndroidLevelTooLow);
    }
    let hardware = &description.hardware;
    if hardware.origin != Some(ORIGIN_GENERATED) {
        return Err(Reject::AndroidOrigin);
    }
    let root = hardware
        .root_of_trust
        .as_ref()
        .ok_or(Reject::AndroidNoRootOfTrust)?;
    if !root.device_locked {
        return Err(Reject::AndroidUnlocked);
    }
    let booted = match (root.boot_state, &rules.boot) {
        (BOOT_VERIFIED, _) => true,
        (BOOT_SELF_SIGNED, BootRule::VerifiedOrSignedBy(keys)) => keys.iter().any(|key| key == root.boot_key),
        _ => false,
    };
    if !booted {
        return Err(Reject::AndroidBootState);
    }
    if let Some(least) = rules.os_patch_level_min
        && hardware.os_patch_level.is_none_or(|level| level < least)
    {
        return Err(Reject::AndroidPatchLevel);
    }
    if let Some(application) = &rules.application
        && !description
            .software
            .made_by(&application.package, &application.signer_sha256)
    {
        return Err(Reject::AndroidApplication);
    }
    Ok(key)
}

fn facts(
    description: Description<'_>,
    level: Level,
    leaf: &Certificate<'_>,
    issuers: &[Certificate<'_>],
) -> Result<Facts, Reject> {
    let hardware = description.hardware;
    let root = hardware.root_of_trust.ok_or(Reject::AndroidNoRootOfTrust)?;
    Ok(Facts {
        level,
        spki_der: leaf.spki.to_vec(),
        verified_boot: match root.boot_state {
            BOOT_VERIFIED => VerifiedBoot::Verified,
            _ => VerifiedBoot::SelfSigned,
        },
        verified_boot_key: root.boot_key.to_vec(),
        verified_boot_hash: root.boot_hash.map(<[u8]>::to_vec),
        device_locked: root.device_locked,
        os_version: hardware.os_version,
        os_patch_level: hardware.os_patch_level,
        vendor_patch_level: hardware.vendor_patch_level,
        boot_patch_level: hardware.boot_patch_level,
        ids: hardware.ids,
        attestation_version: description.attestation_version,
        rkp_certificates_issued: issuers.iter().find_map(certificates_issued),
    })
}

/// Keys from the factory are known by a serial number in the name that the root itself certified, which is no device's
/// to choose; remotely provisioned keys live for weeks, so for them every date counts.
fn chain_rules(certificates: &[Certificate<'_>], anchors: &Anchors) -> chain::Rules {
    let below_root = match certificates.split_last() {
        Some((last, rest)) if chain::same_anchor(last, anchors).is_some() => rest.last(),
        _ => certificates.last(),
    };
    let factory = below_root.is_some_and(|certificate| {
        attributes(certificate.subject)
            .is_ok_and(|attributes| attributes.iter().any(|(oid, _)| *oid == OID_NAME_SERIAL))
    });
    chain::Rules {
        order: Order::Strict,
        certificates_max: CERTIFICATES_MAX,
        leaf_dates: LeafDates::Free,
        leaf_authority: LeafAuthority::Free,
        issuers: if factory {
            Issuers::AndroidFactory
        } else {
            Issuers::Strict
        },
    }
}

/// The provisioning information of a remotely provisioned key: a CBOR map whose entry 1 is a number. It decides nothing,
/// so what cannot be read is left out.
fn certificates_issued(certificate: &Certificate<'_>) -> Option<u64> {
    let information = certificate.extension(OID_PROVISIONING)?;
    if information.len() > PROVISIONING_BYTES_MAX {
        return None;
    }
    cbor::check(information).ok()?;
    let map: ciborium::Value = ciborium::from_reader(information).ok()?;
    map.as_map()?
        .iter()
        .find(|(key, _)| key.as_integer() == Some(1.into()))
        .and_then(|(_, value)| value.as_integer())
        .and_then(|issued| u64::try_from(issued).ok())
}
