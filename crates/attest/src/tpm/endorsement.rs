//! Endorsement keys: which TPM it is (TCG EK Credential Profile 2.5).

use muster_model::time::Timestamp;

use crate::anchors::Anchors;
use crate::certificate::{Certificate, attributes};
use crate::chain::{self, CERTIFICATES_MAX, Issuers, LeafAuthority, LeafDates, Order, Rules};
use crate::der::{Malformed, Reader, Tag};
use crate::key::PublicKey;
use crate::reject::Reject;

/// tcg-kp-EKCertificate, 2.23.133.8.1.
const OID_EK_CERTIFICATE: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x01];
/// tcg-at-tpmManufacturer, 2.23.133.2.1; model and version are .2 and .3.
const OID_TPM_ATTRIBUTES: &[u8] = &[0x67, 0x81, 0x05, 0x02];
const KEY_USAGE_KEY_ENCIPHERMENT: u8 = 0x20;
const KEY_USAGE_KEY_AGREEMENT: u8 = 0x08;
/// directoryName in a GeneralName (RFC 5280, section 4.2.1.6).
const DIRECTORY_NAME: u32 = 4;
/// Longest value of a TPM attribute that is kept, in bytes.
const ATTRIBUTE_BYTES_MAX: usize = 256;

const CHAIN: Rules = Rules {
    order: Order::Any,
    certificates_max: CERTIFICATES_MAX,
    leaf_dates: LeafDates::Checked,
    leaf_authority: LeafAuthority::Refused,
    issuers: Issuers::Strict,
};

/// A TPM, known by its endorsement key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endorsement {
    /// SHA-256 of the canonical SubjectPublicKeyInfo: the identity of the TPM, and so of the device.
    pub spki_sha256: [u8; 32],
    /// The maker, such as `id:53544D20`, as the certificate says it.
    pub manufacturer: Option<String>,
    /// The model, as the certificate says it.
    pub model: Option<String>,
    /// The firmware version, as the certificate says it.
    pub version: Option<String>,
    /// The canonical SubjectPublicKeyInfo.
    pub spki_der: Vec<u8>,
    pub(crate) public: PublicKey,
}

/// Verifies an endorsement certificate, leaf first, with the intermediates that the device sent in any order.
///
/// The padding that a TPM's memory holds after a certificate must be gone.
pub fn verify_endorsement(
    certificates: &[&[u8]],
    anchors: &Anchors,
    now: Timestamp,
) -> Result<Endorsement, Reject> {
    let certificates = chain::parse(certificates, CERTIFICATES_MAX)?;
    chain::validate(&certificates, anchors, now, CHAIN)?;
    let leaf = certificates.first().ok_or(Reject::ChainEmpty)?;
    if !leaf.has_purpose(OID_EK_CERTIFICATE)? {
        return Err(Reject::EndorsementUsage);
    }
    let encrypts = KEY_USAGE_KEY_ENCIPHERMENT | KEY_USAGE_KEY_AGREEMENT;
    if leaf.key_usage()?.is_some_and(|usage| usage & encrypts == 0) {
        return Err(Reject::EndorsementKeyUsage);
    }
    let mut endorsement = of_key(leaf.key()?);
    read_attributes(leaf, &mut endorsement).map_err(|Malformed| Reject::EndorsementAttributes)?;
    Ok(endorsement)
}

/// The endorsement of a key that comes without certificate. The caller checks [`Endorsement::spki_sha256`] against the
/// keys that an administrator has imported: nothing else says that a TPM holds it.
pub fn endorsement_of_known_key(spki: &[u8]) -> Result<Endorsement, Reject> {
    PublicKey::from_spki(spki).map(of_key)
}

fn of_key(public: PublicKey) -> Endorsement {
    let spki_der = public.to_spki();
    Endorsement {
        spki_sha256: crate::sha256(&spki_der),
        manufacturer: None,
        model: None,
        version: None,
        spki_der,
        public,
    }
}

/// The TPM attributes of the subject alternative name.
fn read_attributes(leaf: &Certificate<'_>, endorsement: &mut Endorsement) -> Result<(), Malformed> {
    for name in leaf.alternative_names()? {
        if name.tag != Tag::explicit(DIRECTORY_NAME) {
            continue;
        }
        let mut wrapped = Reader::new(name.value);
        let directory_name = wrapped.element()?.raw;
        wrapped.end()?;
        for (oid, value) in attributes(directory_name)? {
            let Some((last, OID_TPM_ATTRIBUTES)) = oid.split_last() else {
                continue;
            };
            let slot = match last {
                1 => &mut endorsement.manufacturer,
                2 => &mut endorsement.model,
                3 => &mut endorsement.version,
                _ => continue,
            };
            let text = std::str::from_utf8(value).map_err(|_| Malformed)?;
            if slot.is_some() || text.len() > ATTRIBUTE_BYTES_MAX || text.chars().any(char::is_control) {
                return Err(Malformed);
            }
            *slot = Some(text.to_owned());
        }
    }
    Ok(())
}
