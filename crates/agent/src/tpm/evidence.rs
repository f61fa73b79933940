//! What enrollment proves: that the attestation key is in the TPM whose maker signed the endorsement certificate, that the
//! device key is in the same TPM, and what the machine has started (Library specification, part 1, 24 and 31).

use muster_channel_agent::limits::{ATTESTATION_CERTIFICATE_BYTES_MAX, EK_CERTIFICATES_MAX};
use muster_trust::key::{PublicKey, sha256_of};
use x509_parser::public_key::PublicKey as X509PublicKey;

use super::client::{Authorization, OpenTpm};
use super::codec::{PublicPoint, der_value, trim_zeros};
use super::commands::LoadedKey;
use super::error::TpmError;
use super::ids::{Handle, object};
use super::keys::{TpmKey, release};
use super::tcti::Tcti;
use super::templates::{self, EndorsementTemplate};

pub use super::codec::PcrBank;
pub use super::commands::{Attested, Credential, PcrValue};

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
/// Most certificates of a chain that are sent: one place is the endorsement certificate's.
const CHAIN_CERTIFICATES_MAX: usize = EK_CERTIFICATES_MAX - 1;
/// Most persistent keys that are compared with a certificate.
const PERSISTENT_KEYS_MAX: u32 = 32;
/// Registers may change between the quote and their reading: asked this often.
const QUOTES_MAX: u32 = 4;
/// The measured boot log of the machine's own TPM.
const EVENT_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";

/// What the first enrollment call tells about the TPM.
#[derive(Clone, Debug)]
pub struct Announcement {
    /// The endorsement certificate, then those above it, DER. Empty where the maker left none.
    pub endorsement_certificates: Vec<Vec<u8>>,
    /// The endorsement key, SPKI DER, where there is no certificate.
    pub endorsement_key: Option<Vec<u8>>,
    /// The attestation key, `TPMT_PUBLIC`.
    pub attestation_key: Vec<u8>,
    /// The device key, `TPMT_PUBLIC`.
    pub device_key: Vec<u8>,
    endorsement: Endorsement,
}

/// What the server asks the TPM to prove.
#[derive(Clone, Debug)]
pub struct Challenge<'a> {
    /// The secret.
    pub credential: Credential<'a>,
    /// What both statements have to carry.
    pub extra_data: &'a [u8],
    /// Which registers to state.
    pub registers: &'a [PcrBank],
}

/// What the second enrollment call proves.
#[derive(Clone)]
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

impl std::fmt::Debug for Evidence {
    /// The secret prints as `***`.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Evidence")
            .field("activation_secret", &"***")
            .field("certified", &self.certified)
            .field("quoted", &self.quoted)
            .field("registers", &self.registers)
            .finish()
    }
}

/// An endorsement key, and the certificate over it.
#[derive(Clone, Debug)]
struct Endorsement {
    certificate: Option<Vec<u8>>,
    template: EndorsementTemplate,
    key: PublicPoint,
}

impl Announcement {
    /// Reads the maker's certificates and makes the attestation key.
    pub fn make(key: &TpmKey) -> Result<Self, TpmError> {
        Self::make_of(key, &CERTIFICATES)
    }

    fn make_of(key: &TpmKey, places: &[(Handle, EndorsementTemplate)]) -> Result<Self, TpmError> {
        key.tpm().with(|open| {
            let endorsement = match certified_endorsement(open, places)? {
                Some(endorsement) => endorsement,
                None => uncertified_endorsement(open)?,
            };
            let (endorsement_certificates, endorsement_key) = match &endorsement.certificate {
                Some(certificate) => ([vec![certificate.clone()], chain(open)?].concat(), None),
                None => (Vec::new(), Some(p256_spki(&endorsement.key)?)),
            };
            Ok(Self {
                endorsement_certificates,
                endorsement_key,
                attestation_key: attestation_key(open)?.public,
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
fn certified_endorsement(
    open: &mut OpenTpm<'_>,
    places: &[(Handle, EndorsementTemplate)],
) -> Result<Option<Endorsement>, TpmError> {
    for (index, template) in places {
        let Some(content) = open.read_nv(*index)? else {
            continue;
        };
        let index = format!("0x{:08x}", index.0);
        let Some(endorsement) = read_certificate(&content, *template) else {
            tracing::warn!(index, "what the TPM holds there is no endorsement certificate");
            continue;
        };
        if let Some(key) = endorsement_key(open, &endorsement)? {
            release(open, &key)?;
            return Ok(Some(endorsement));
        }
        tracing::warn!(
            index,
            "the endorsement certificate is over a key that the TPM does not have"
        );
    }
    Ok(None)
}

/// The key without a certificate that every TPM can derive. Its owner may know it from a list of the maker or the dealer.
fn uncertified_endorsement(open: &mut OpenTpm<'_>) -> Result<Endorsement, TpmError> {
    let template = EndorsementTemplate::P256Low;
    let key = open.create_primary(Handle::ENDORSEMENT, &template.public())?;
    open.flush(key.handle)?;
    Ok(Endorsement {
        certificate: None,
        template,
        key: key.area.key,
    })
}

fn p256_spki(key: &PublicPoint) -> Result<Vec<u8>, TpmError> {
    let point = match key {
        PublicPoint::Ecc { point, .. } => PublicKey::from_p256_point(point).ok(),
        PublicPoint::Rsa { .. } => None,
    };
    let point = point.ok_or(TpmError::UnexpectedKey(
        "the endorsement key is not on the curve P-256",
    ))?;
    Ok(point.spki_der())
}

fn read_certificate(content: &[u8], template: EndorsementTemplate) -> Option<Endorsement> {
    let der = der_value(content).filter(|der| der.len() <= ATTESTATION_CERTIFICATE_BYTES_MAX)?;
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
        certificate: Some(der.to_vec()),
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
        && der.len() <= ATTESTATION_CERTIFICATE_BYTES_MAX
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
    let wanted: Vec<(u16, u8)> = challenge
        .registers
        .iter()
        .flat_map(|bank| bank.indexes().into_iter().map(|index| (bank.hash, index)))
        .collect();
    let mut asked = 0;
    loop {
        let quoted = open.quote(attestation_key.handle, challenge.extra_data, challenge.registers)?;
        let mut registers = open.read_pcrs(challenge.registers)?;
        registers.sort_by_key(|value| wanted.iter().position(|one| *one == (value.hash, value.index)));
        if registers.len() != wanted.len() {
            return Err(TpmError::NoRegisters);
        }
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
#[path = "evidence_tests.rs"]
pub(crate) mod tests;
