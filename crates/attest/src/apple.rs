//! Apple Managed Device Attestation: properties of a device in the certificate of a key in its Secure Enclave.
//!
//! The extensions lie below 1.2.840.113635.100.8 and hold their values without inner DER, save two integers. Apple leaves
//! out or empties what it does not vouch for, so every property is optional; freshness alone is not, since without it
//! an attestation of any day and any challenge would pass. Apple devices with an Intel processor attest nothing.

use muster_model::time::Timestamp;

use crate::anchors::Anchors;
use crate::certificate::Certificate;
use crate::chain::{self, CERTIFICATES_MAX, Issuers, LeafAuthority, LeafDates, Order, Rules};
use crate::der::{self, Malformed, Reader, Tag};
use crate::reject::Reject;

/// 1.2.840.113635.100.8; two more octets follow.
const OID_PREFIX: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x63, 0x64, 0x08];
const SERIAL: [u8; 2] = [9, 1];
const UDID: [u8; 2] = [9, 2];
const SOFTWARE_UPDATE_DEVICE_ID: [u8; 2] = [9, 4];
const OS_VERSION: [u8; 2] = [10, 1];
const SEPOS_VERSION: [u8; 2] = [10, 2];
const LLB_VERSION: [u8; 2] = [10, 3];
const FRESHNESS: [u8; 2] = [11, 1];
const SIP: [u8; 2] = [13, 1];
const SECURE_BOOT: [u8; 2] = [13, 2];
const KEXTS: [u8; 2] = [13, 3];
/// Longest property that is read, in bytes.
const PROPERTY_BYTES_MAX: usize = 64;

const CHAIN: Rules = Rules {
    order: Order::Strict,
    certificates_max: CERTIFICATES_MAX,
    leaf_dates: LeafDates::Checked,
    leaf_authority: LeafAuthority::Refused,
    issuers: Issuers::Strict,
};

/// What an attestation says; what is `None`, Apple did not vouch for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Serial number of the device. Absent for a device that its user enrolled.
    pub serial: Option<String>,
    /// The UDID; of a Mac its provisioning UDID, which is not the one that the management protocol names.
    pub udid: Option<String>,
    /// Version of the operating system.
    pub os_version: Option<String>,
    /// Version of the Secure Enclave's system.
    pub sepos_version: Option<String>,
    /// Version of the low-level boot loader.
    pub llb_version: Option<String>,
    /// Which updates fit the device.
    pub software_update_device_id: Option<String>,
    /// System Integrity Protection of a Mac: the number as attested, 0 when it is on.
    pub sip: Option<u64>,
    /// Secure Boot of a Mac, such as `Full Security`.
    pub secure_boot: Option<String>,
    /// Whether a Mac may load kernel extensions: the number as attested, 0 when it may not.
    pub kexts: Option<u64>,
    /// The SubjectPublicKeyInfo of the attested key: the caller compares it with that of the certificate request.
    pub spki_der: Vec<u8>,
}

/// Verifies an attestation, leaf first, for this challenge.
///
/// `freshness` is SHA-256 of the challenge token for a key of ACME; for `DevicePropertiesAttestation` it is the nonce
/// of the query. A cached attestation with an older nonce does not pass: the caller may treat it as stale.
pub fn verify(
    x5c: &[&[u8]],
    freshness: &[u8; 32],
    anchors: &Anchors,
    now: Timestamp,
) -> Result<Facts, Reject> {
    let certificates = chain::parse(x5c, CERTIFICATES_MAX)?;
    chain::validate(&certificates, anchors, now, CHAIN)?;
    let leaf = certificates.first().ok_or(Reject::ChainEmpty)?;
    let attested = property(leaf, FRESHNESS).ok_or(Reject::AppleNoFreshness)?;
    if !crate::equal(attested, freshness) {
        return Err(Reject::AppleFreshness);
    }
    read(leaf)
}

/// Reads the properties of a leaf that has been verified.
pub(crate) fn read(leaf: &Certificate<'_>) -> Result<Facts, Reject> {
    Ok(Facts {
        serial: text(leaf, SERIAL)?,
        udid: text(leaf, UDID)?,
        os_version: text(leaf, OS_VERSION)?,
        sepos_version: text(leaf, SEPOS_VERSION)?,
        llb_version: text(leaf, LLB_VERSION)?,
        software_update_device_id: text(leaf, SOFTWARE_UPDATE_DEVICE_ID)?,
        sip: number(leaf, SIP)?,
        secure_boot: text(leaf, SECURE_BOOT)?,
        kexts: number(leaf, KEXTS)?,
        spki_der: leaf.key()?.to_spki(),
    })
}

fn property<'a>(leaf: &Certificate<'a>, suffix: [u8; 2]) -> Option<&'a [u8]> {
    let oid = [OID_PREFIX, &suffix].concat();
    leaf.extension(&oid)
}

fn text(leaf: &Certificate<'_>, suffix: [u8; 2]) -> Result<Option<String>, Reject> {
    let Some(value) = property(leaf, suffix).filter(|value| !value.trim_ascii().is_empty()) else {
        return Ok(None);
    };
    let printable = value.iter().all(|byte| *byte == b' ' || byte.is_ascii_graphic());
    if !printable || value.len() > PROPERTY_BYTES_MAX {
        return Err(Reject::AppleMalformed);
    }
    Ok(Some(String::from_utf8_lossy(value).into_owned()))
}

fn number(leaf: &Certificate<'_>, suffix: [u8; 2]) -> Result<Option<u64>, Reject> {
    let Some(value) = property(leaf, suffix).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let mut reader = Reader::new(value);
    let number = reader
        .expect(Tag::INTEGER)
        .and_then(der::small)
        .and_then(|number| reader.end().map(|()| number));
    number.map(Some).map_err(|Malformed| Reject::AppleMalformed)
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;

    use super::read;
    use crate::certificate::Certificate;

    #[test]
    fn the_properties_of_a_real_leaf_are_read() {
        let leaf =
            CertificateDer::from_pem_slice(include_bytes!("../tests/data/apple-leaf.pem")).expect("PEM");
        let facts = read(&Certificate::parse(&leaf).expect("a certificate")).expect("properties");
        assert_eq!(facts.serial.as_deref(), Some("TMWFWWWP67"));
        assert_eq!(facts.udid.as_deref(), Some("00006030-000651690A84001C"));
        assert_eq!(facts.os_version.as_deref(), Some("15.5"));
        assert_eq!(facts.sepos_version.as_deref(), Some("15.5"));
        assert_eq!(facts.llb_version.as_deref(), Some("15.5"));
        assert_eq!(facts.software_update_device_id.as_deref(), Some("J514sAP"));
        assert_eq!(facts.secure_boot.as_deref(), Some("Full Security"));
        assert_eq!((facts.sip, facts.kexts), (Some(0), Some(0)));
    }
}
