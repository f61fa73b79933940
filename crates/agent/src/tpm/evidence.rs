//! What enrollment proves: that the attestation key is in the TPM whose maker signed the endorsement certificate, that the
//! device key is in the same TPM, and what the machine has started (Library specification, part 1, 24 and 31).

use muster_trust::key::sha256_of;
use x509_parser::public_key::PublicKey as X509PublicKey;

use super::client::{Authorization, OpenTpm};
use super::codec::{PcrBank, PublicPoint, der_value, trim_zeros};
use super::commands::LoadedKey;
use super::error::TpmError;
use super::ids::{Handle, object};
use super::keys::{TpmKey, release};
use super::tcti::Tcti;
use super::templates::{self, EndorsementTemplate};

pub use super::commands::{Attested, PcrValue};

/// Where makers leave their certificates (EK Credential Profile, 2.2.1.4 and 2.2.1.5), best first: a small key is fast in a
/// slow chip.
const CERTIFICATES: [(Handle, EndorsementTemplate); 6] = [
    (Handle(0x01C0_000A), EndorsementTemplate::P256Low),
    (Handle(0x01C0_0014), EndorsementTemplate::P256High),
    (Handle(0x01C0_0016), EndorsementTemplate::P384High),
    (Handle(0x01C0_0002), EndorsementTemplate::Rsa2048Low),
    (Handle(0x01C0_0012), EndorsementTemplate::Rsa2048High),
    (Handle(0x01C0_001C), EndorsementTemplate::Rsa3072High),
];
/// First NV index of the chain above them (2.2.1.5.2).
const CHAIN_FIRST: u32 = 0x01C0_0100;
/// Most NV indices of a chain that are read.
const CHAIN_INDICES_MAX: u32 = 16;
/// Most certificates of a chain that are sent.
const CHAIN_CERTIFICATES_MAX: usize = 3;
/// Longest certificate that is sent, in bytes.
const CERTIFICATE_BYTES_MAX: usize = 8 * 1024;
/// Most persistent keys that are compared with a certificate.
const PERSISTENT_KEYS_MAX: u32 = 32;
/// Registers may change between the quote and their reading: asked this often.
const QUOTES_MAX: u32 = 4;
/// The measured boot log of the machine's own TPM.
const EVENT_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";

/// What the first enrollment call tells about the TPM.
#[derive(Clone, Debug)]
pub struct Announcement {
    /// The endorsement certificate, then those above it, DER.
    pub endorsement_certificates: Vec<Vec<u8>>,
    /// The attestation key, `TPMT_PUBLIC`.
    pub attestation_key: Vec<u8>,
    /// The device key, `TPMT_PUBLIC`.
    pub device_key: Vec<u8>,
    endorsement: Endorsement,
}

/// What the server asks the TPM to prove.
#[derive(Clone, Debug)]
pub struct Challenge<'a> {
    /// `TPMS_ID_OBJECT`: the secret, encrypted for the attestation key.
    pub credential: &'a [u8],
    /// The seed of that encryption, encrypted to the endorsement key.
    pub encrypted_secret: &'a [u8],
    /// What both statements have to carry.
    pub extra_data: &'a [u8],
    /// Which registers to state.
    pub registers: &'a [PcrBank],
}

/// What the second enrollment call proves.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Only the TPM with the endorsement key that holds the attestation key learns it.
    pub activation_secret: Vec<u8>,
    /// `TPM2_Certify` of the device key.
    pub certified: Attested,
    /// `TPM2_Quote`.
    pub quoted: Attested,
    /// What was quoted.
    pub registers: Vec<PcrValue>,
}

/// One certificate and the key that it is about.
#[derive(Clone, Debug)]
struct Endorsement {
    certificate: Vec<u8>,
    template: EndorsementTemplate,
    key: PublicPoint,
}

impl Announcement {
    /// Reads the maker's certificates and makes the attestation key.
    pub fn make(key: &TpmKey) -> Result<Self, TpmError> {
        key.tpm().with(|open| {
            let endorsement = usable_endorsement(open)?;
            let attestation_key = attestation_key(open)?;
            let mut endorsement_certificates = vec![endorsement.certificate.clone()];
            endorsement_certificates.extend(chain(open)?);
            Ok(Self {
                endorsement_certificates,
                attestation_key: attestation_key.public,
                device_key: key.public_area().to_vec(),
                endorsement,
            })
        })
    }

    /// Answers the challenge.
    pub fn prove(&self, key: &TpmKey, challenge: &Challenge<'_>) -> Result<Evidence, TpmError> {
        key.tpm().with(|open| {
            let attestation_key = attestation_key(open)?;
            let activation_secret = activate(open, &attestation_key, &self.endorsement, challenge)?;
            let device_key = key.load(open)?;
            let certified = open.certify(device_key.handle, attestation_key.handle, challenge.extra_data)?;
            open.flush(device_key.handle)?;
            let (quoted, registers) = quote(open, &attestation_key, challenge)?;
            Ok(Evidence {
                activation_secret,
                certified,
                quoted,
                registers,
            })
        })
    }
}

/// The measured boot log, where this TPM is the machine's own and its log can be read and is not longer than `bytes_max`.
pub fn event_log(tcti: &Tcti, bytes_max: usize) -> Option<Vec<u8>> {
    match tcti {
        // The log is about the machine, which did not measure itself into a software TPM.
        Tcti::SwtpmTcp { .. } | Tcti::SwtpmUnix(_) => None,
        Tcti::Device(_) => read_event_log(EVENT_LOG.as_ref(), bytes_max),
    }
}

fn read_event_log(path: &std::path::Path, bytes_max: usize) -> Option<Vec<u8>> {
    use std::io::Read as _;
    let mut log = Vec::new();
    let limit = u64::try_from(bytes_max).ok()?.checked_add(1)?;
    std::fs::File::open(path)
        .ok()?
        .take(limit)
        .read_to_end(&mut log)
        .ok()?;
    (!log.is_empty() && log.len() <= bytes_max).then_some(log)
}

/// A primary key of the endorsement hierarchy: the TPM derives the same one each time, so there is nothing to keep.
fn attestation_key(open: &mut OpenTpm<'_>) -> Result<LoadedKey, TpmError> {
    open.create_primary(Handle::ENDORSEMENT, &templates::attestation_key())
}

/// The best certificate whose key this TPM really has.
fn usable_endorsement(open: &mut OpenTpm<'_>) -> Result<Endorsement, TpmError> {
    let mut reason = "its maker left none".to_owned();
    for (index, template) in CERTIFICATES {
        let Some(content) = open.read_nv(index)? else {
            continue;
        };
        let Some(endorsement) = read_certificate(&content, template) else {
            reason = format!("what is in NV index 0x{:08x} is not a certificate", index.0);
            continue;
        };
        match endorsement_key(open, &endorsement)? {
            Some(key) => {
                release(open, &key)?;
                return Ok(endorsement);
            }
            None => {
                reason = format!(
                    "the certificate in NV index 0x{:08x} is over another key",
                    index.0
                )
            }
        }
    }
    Err(TpmError::NoEndorsement(reason))
}

fn read_certificate(content: &[u8], template: EndorsementTemplate) -> Option<Endorsement> {
    let der = der_value(content).filter(|der| der.len() <= CERTIFICATE_BYTES_MAX)?;
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let key = match certificate.public_key().parsed().ok()? {
        X509PublicKey::RSA(key) => PublicPoint::Rsa {
            modulus: trim_zeros(key.modulus).to_vec(),
        },
        X509PublicKey::EC(point) => PublicPoint::Ecc {
            curve: match point.data().len() {
                65 => super::ids::curve::NIST_P256,
                97 => super::ids::curve::NIST_P384,
                _ => return None,
            },
            point: point.data().to_vec(),
        },
        X509PublicKey::DSA(_)
        | X509PublicKey::GostR3410(_)
        | X509PublicKey::GostR3410_2012(_)
        | X509PublicKey::Unknown(_) => return None,
    };
    Some(Endorsement {
        certificate: der.to_vec(),
        template,
        key,
    })
}

/// The key that the certificate is about: kept in the TPM, or derived by the profile's template.
fn endorsement_key(open: &mut OpenTpm<'_>, endorsement: &Endorsement) -> Result<Option<LoadedKey>, TpmError> {
    for handle in open.handles(Handle::ENDORSEMENT_KEY_FIRST, PERSISTENT_KEYS_MAX)? {
        if handle.0 > Handle::ENDORSEMENT_KEY_LAST.0 {
            break;
        }
        match open.read_public(handle) {
            Ok(Some(key)) if key.area.key == endorsement.key => return Ok(Some(key)),
            // Another key, or one of a kind that no certificate here is about.
            Ok(_) | Err(TpmError::Malformed { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let key = open.create_primary(Handle::ENDORSEMENT, &endorsement.template.public())?;
    if key.area.key == endorsement.key {
        return Ok(Some(key));
    }
    open.flush(key.handle)?;
    Ok(None)
}

/// The certificates above the endorsement certificate, as far as the maker left them. They stand one after the other, and
/// may run on from one index to the next.
fn chain(open: &mut OpenTpm<'_>) -> Result<Vec<Vec<u8>>, TpmError> {
    let mut content = Vec::new();
    for index in CHAIN_FIRST..CHAIN_FIRST + CHAIN_INDICES_MAX {
        match open.read_nv(Handle(index))? {
            Some(part) => content.extend(part),
            None => break,
        }
    }
    Ok(split_chain(&content))
}

fn split_chain(mut content: &[u8]) -> Vec<Vec<u8>> {
    let mut certificates = Vec::new();
    while let Some(der) = der_value(content)
        && certificates.len() < CHAIN_CERTIFICATES_MAX
        && der.len() <= CERTIFICATE_BYTES_MAX
    {
        certificates.push(der.to_vec());
        content = &content[der.len()..];
    }
    certificates
}

/// Decrypts the server's secret with the endorsement key. Both keys have to be in this TPM.
fn activate(
    open: &mut OpenTpm<'_>,
    attestation_key: &LoadedKey,
    endorsement: &Endorsement,
    challenge: &Challenge<'_>,
) -> Result<Vec<u8>, TpmError> {
    let endorsement_key = endorsement_key(open, endorsement)?.ok_or(TpmError::OtherTpm)?;
    // Keys of the profile's low range are used by policy, those of the high range by their empty password.
    let session = if endorsement_key.area.has(object::USER_WITH_AUTH) {
        None
    } else {
        let session = open.start_policy_session()?;
        open.policy_secret(Handle::ENDORSEMENT, session)?;
        Some(session)
    };
    let authorization = session.map_or(Authorization::Password, Authorization::Policy);
    let secret = open.activate_credential(
        attestation_key.handle,
        (endorsement_key.handle, authorization),
        challenge.credential,
        challenge.encrypted_secret,
    )?;
    if let Some(session) = session {
        open.flush(session)?;
    }
    release(open, &endorsement_key)?;
    Ok(secret)
}

/// A quote, and the values that it is over.
fn quote(
    open: &mut OpenTpm<'_>,
    attestation_key: &LoadedKey,
    challenge: &Challenge<'_>,
) -> Result<(Attested, Vec<PcrValue>), TpmError> {
    let mut asked = 0;
    loop {
        let quoted = open.quote(attestation_key.handle, challenge.extra_data, challenge.registers)?;
        let registers = open.read_pcrs(challenge.registers)?;
        asked += 1;
        if is_over(&quoted, &registers) || asked == QUOTES_MAX {
            return Ok((quoted, registers));
        }
    }
}

/// True if the quote is over these values: it ends with their digest (part 2, 10.12.1, `TPMS_QUOTE_INFO`).
fn is_over(quoted: &Attested, registers: &[PcrValue]) -> bool {
    let digests: Vec<&[u8]> = registers
        .iter()
        .map(|register| register.digest.as_slice())
        .collect();
    quoted.statement.ends_with(sha256_of(&digests).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_split_into_its_certificates() {
        let first = [0x30, 2, 5, 0];
        let second = [0x30, 1, 7];
        let content = [&first[..], &second, &[0xFF; 9]].concat();
        assert_eq!(split_chain(&content), vec![first.to_vec(), second.to_vec()]);
        assert_eq!(split_chain(&first.repeat(9)).len(), CHAIN_CERTIFICATES_MAX);
        assert!(split_chain(&[0xFF; 64]).is_empty());
    }

    #[test]
    fn what_is_not_a_certificate_is_not_used() {
        for content in [&[][..], &[0xFF; 64], &[0x30, 2, 5, 0]] {
            assert!(read_certificate(content, EndorsementTemplate::P256Low).is_none());
        }
    }

    #[test]
    fn a_log_that_is_too_long_is_left_out() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("log");
        std::fs::write(&path, [7; 100]).expect("it writes");
        assert_eq!(read_event_log(&path, 100).map(|log| log.len()), Some(100));
        assert_eq!(read_event_log(&path, 99), None);
        assert_eq!(read_event_log(&folder.path().join("none"), 100), None);
        let swtpm = Tcti::parse("swtpm:port=1").expect("it parses");
        assert_eq!(event_log(&swtpm, usize::MAX - 1), None);
    }
}
