//! The `tpm` statement of ACME `device-attest-01` (draft-ietf-acme-device-attest; W3C Web Authentication, section 8.3):
//! a device key certified by an attestation key, whose own certificate an attestation authority issued after it had
//! activated a credential. That authority is the tenant's, so the anchors are too.

use muster_model::time::Timestamp;

use crate::anchors::Anchors;
use crate::certificate::Certificate;
use crate::chain::{self, CERTIFICATES_MAX, Issuers, LeafAuthority, LeafDates, Order, Rules};
use crate::der::{Malformed, Reader, Tag};
use crate::key::{Hash, Scheme};
use crate::object::TpmStatement;
use crate::reject::Reject;
use crate::tpm::attest::{certified, read_signature};
use crate::tpm::public::{DeviceKey, read_device_key};

/// tcg-kp-AIKCertificate, 2.23.133.8.3.
const OID_AK_CERTIFICATE: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x03];
/// id-on-permanentIdentifier, 1.3.6.1.5.5.7.8.3 (RFC 4043).
const OID_PERMANENT_IDENTIFIER: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x08, 0x03];
/// otherName in a GeneralName.
const OTHER_NAME: u32 = 0;
const VERSION: &str = "2.0";
const PERMANENT_IDENTIFIER_BYTES_MAX: usize = 256;

const CHAIN: Rules = Rules {
    order: Order::Any,
    certificates_max: CERTIFICATES_MAX,
    leaf_dates: LeafDates::Checked,
    leaf_authority: LeafAuthority::Refused,
    issuers: Issuers::Strict,
};

/// What a `tpm` statement proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementFacts {
    /// The certified key: the caller compares it with that of the certificate request.
    pub device: DeviceKey,
    /// SHA-256 of the canonical SubjectPublicKeyInfo of the attestation key.
    pub attestation_key_spki_sha256: [u8; 32],
    /// The permanent identifier that the attestation authority gave the device, if any. Without one the caller must
    /// know the device by the attestation key: an identifier is never assumed.
    pub permanent_identifier: Option<String>,
}

/// Verifies a `tpm` statement; `extra_data` is SHA-256 of the key authorization (RFC 8555, section 8.1).
pub fn verify_statement(
    statement: &TpmStatement,
    extra_data: &[u8; 32],
    anchors: &Anchors,
    now: Timestamp,
) -> Result<StatementFacts, Reject> {
    if statement.ver != VERSION {
        return Err(Reject::StatementVersion);
    }
    let certificates: Vec<&[u8]> = statement.x5c.iter().map(Vec::as_slice).collect();
    let certificates = chain::parse(&certificates, CERTIFICATES_MAX)?;
    chain::validate(&certificates, anchors, now, CHAIN)?;
    let leaf = certificates.first().ok_or(Reject::ChainEmpty)?;
    if !leaf.has_purpose(OID_AK_CERTIFICATE)? {
        return Err(Reject::StatementUsage);
    }
    let key = leaf.key()?;
    let (scheme, signature) = read_signature(&statement.sig)?;
    if Some(scheme) != scheme_of(statement.alg) {
        return Err(Reject::StatementAlgorithm);
    }
    if !key.verifies(scheme, &statement.cert_info, &signature) {
        return Err(Reject::AttestSignature);
    }
    let device = read_device_key(&statement.pub_area)?;
    certified(&statement.cert_info, &device, extra_data)?;
    Ok(StatementFacts {
        device,
        attestation_key_spki_sha256: crate::sha256(&key.to_spki()),
        permanent_identifier: permanent_identifier(leaf).map_err(|Malformed| Reject::CertificateMalformed)?,
    })
}

/// COSE algorithm identifiers (RFC 9053, section 2; RFC 8812, section 2); SHA-1 is not among them.
fn scheme_of(algorithm: i64) -> Option<Scheme> {
    match algorithm {
        -7 => Some(Scheme::Ecdsa(Hash::Sha256)),
        -35 => Some(Scheme::Ecdsa(Hash::Sha384)),
        -36 => Some(Scheme::Ecdsa(Hash::Sha512)),
        -37 => Some(Scheme::Pss(Hash::Sha256)),
        -38 => Some(Scheme::Pss(Hash::Sha384)),
        -39 => Some(Scheme::Pss(Hash::Sha512)),
        -257 => Some(Scheme::Pkcs1(Hash::Sha256)),
        -258 => Some(Scheme::Pkcs1(Hash::Sha384)),
        -259 => Some(Scheme::Pkcs1(Hash::Sha512)),
        _ => None,
    }
}

fn permanent_identifier(leaf: &Certificate<'_>) -> Result<Option<String>, Malformed> {
    let mut identifier = None;
    for name in leaf.alternative_names()? {
        if name.tag != Tag::explicit(OTHER_NAME) {
            continue;
        }
        let mut other = Reader::new(name.value);
        if other.expect(Tag::OBJECT_IDENTIFIER)? != OID_PERMANENT_IDENTIFIER {
            continue;
        }
        let mut value = other.nested(Tag::explicit(0))?;
        other.end()?;
        let mut fields = value.nested(Tag::SEQUENCE)?;
        value.end()?;
        let Some(text) = fields.optional(Tag::UTF8_STRING)? else {
            continue;
        };
        let text = std::str::from_utf8(text).map_err(|_| Malformed)?;
        // Two identifiers would let a client choose which one counts.
        if identifier.is_some() || text.is_empty() || text.len() > PERMANENT_IDENTIFIER_BYTES_MAX {
            return Err(Malformed);
        }
        identifier = Some(text.to_owned());
    }
    Ok(identifier)
}
