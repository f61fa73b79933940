//! A simulated device's key, certificate and enrollment, over the real calls.

use muster_attest::testing::SoftwareTpm;
use muster_attest::tpm::{Credential, activation_proof};
use muster_channel_agent::clock::ClockReading;
use muster_channel_agent::device::{DeviceCore, DeviceIdentity};
use muster_channel_agent::enroll::{
    AttestationChallenge, AttestationEvidence, AttestationOffer, ChannelBinding, CheckinPlan,
    EnrollBeginRequest, EnrollBeginResponse, EnrollFinishRequest, EnrollFinishResponse, NO_EXPORTER,
    PcrValue, TpmChallenge, TpmEvidence, TpmOffer, Transcript,
};
use muster_channel_agent::limits::{ENROLL_RESPONSE_BYTES_MAX, NONCE_BYTES};
use muster_channel_agent::{Base64Bytes, path};
use muster_model::{TenantId, Timestamp};
use muster_trust::key::{SigningKey, sha256_of};
use muster_trust::obey::Trust;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde::{Deserialize, Serialize};

use crate::link::{Link, LinkError};
use crate::plan::{AGENT_VERSION, DevicePlan};

/// PKCS#8 of a P-256 private key (RFC 5915, RFC 5958) up to its 32 bytes.
const PKCS8_HEAD: [u8; 35] = [
    0x30, 0x41, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
    0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x27, 0x30, 0x25, 0x02, 0x01, 0x01, 0x04,
    0x20,
];
/// A derived number is no private key once in 2³²; twice in a row does not happen.
const KEY_TRIES_MAX: u8 = 8;
/// A certificate is renewed when this part of its life is over.
const RENEW_AFTER_THIRDS: u32 = 2;

/// What enrollment gave a device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// The tenant that it obeys.
    pub tenant: TenantId,
    /// The enrollment epoch.
    pub epoch: u32,
    /// Leaf first, DER.
    pub certificate_chain: Vec<Base64Bytes>,
    /// The only anchors for the server's certificate, DER.
    pub ca_certificates: Vec<Base64Bytes>,
    /// How often to come.
    pub checkin: CheckinPlan,
}

/// The dates of a certificate.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Validity {
    /// True from two thirds of the certificate's life on.
    pub fn is_due(&self, now: Timestamp) -> bool {
        now >= self
            .not_before
            .plus(self.not_after.since(self.not_before) * RENEW_AFTER_THIRDS / 3)
    }

    /// True once no server accepts it.
    pub fn is_over(&self, now: Timestamp) -> bool {
        now >= self.not_after
    }
}

impl Identity {
    /// The dates of the device certificate; `None` where it cannot be read.
    pub fn validity(&self) -> Option<Validity> {
        let leaf = self.certificate_chain.first()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&leaf.0).ok()?;
        Some(Validity {
            not_before: Timestamp::from_unix_seconds(certificate.validity().not_before.timestamp()),
            not_after: Timestamp::from_unix_seconds(certificate.validity().not_after.timestamp()),
        })
    }
}

/// The device's key, derived from the farm's secret: the same farm against the same install has the same keys, so that a
/// device that enrolls again is the same device in its next epoch, and nobody without the secret can be one of them.
pub fn device_key(secret: &[u8], plan: &DevicePlan) -> Result<SigningKey, LinkError> {
    let (seed, index) = (plan.seed.to_be_bytes(), plan.index.to_be_bytes());
    let mut last = None;
    for attempt in 0..KEY_TRIES_MAX {
        let number = sha256_of(&[
            b"muster-farm-key-v1\0",
            &sha256_of(&[secret]).0,
            &seed,
            &index,
            &[attempt],
        ]);
        match SigningKey::from_pkcs8_der(&[&PKCS8_HEAD[..], &number.0].concat()) {
            Ok(key) => return Ok(key),
            Err(error) => last = Some(error),
        }
    }
    Err(key_error(
        last.map_or_else(String::new, |error| error.to_string()),
    ))
}

fn key_error(error: impl std::fmt::Display) -> LinkError {
    LinkError::Protocol(format!("the device key is not usable: {error}"))
}

/// A PKCS#10 request over the key; the server ignores everything else in it.
pub fn certificate_request(key: &SigningKey, plan: &DevicePlan) -> Result<Base64Bytes, LinkError> {
    let pkcs8 = key.to_pkcs8_der().map_err(key_error)?;
    let request = || -> Result<Vec<u8>, rcgen::Error> {
        let pair = KeyPair::try_from(pkcs8.as_slice())?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters
            .distinguished_name
            .push(DnType::CommonName, plan.device_uuid.to_string());
        Ok(parameters.serialize_request(&pair)?.der().to_vec())
    };
    request().map(Base64Bytes).map_err(key_error)
}

/// Both calls of enrollment, and every check of the answer that a real device makes. With a TPM the device also proves that
/// the TPM holds its key.
pub async fn enroll(
    link: &Link,
    token: &str,
    key: &SigningKey,
    tpm: Option<&SoftwareTpm>,
    plan: &DevicePlan,
    reading: &ClockReading,
) -> Result<(Identity, DeviceCore), LinkError> {
    let spki = key.public().spki_der();
    let begun = begin(link, token, &spki, tpm, plan).await?;
    let nonce: [u8; NONCE_BYTES] = begun
        .nonce
        .to_array()
        .ok_or_else(|| LinkError::Protocol(format!("the nonce has not {NONCE_BYTES} bytes")))?;
    let exporter = match begun.channel_binding {
        ChannelBinding::TlsExporter => link.exporter(),
        ChannelBinding::None => &NO_EXPORTER,
    };
    let transcript = Transcript::of(token, &nonce, &spki, exporter);
    let proof = key.sign(&transcript.bytes()).map_err(key_error)?;
    let attestation = match (tpm, &begun.attestation) {
        (Some(tpm), Some(AttestationChallenge::Tpm2(challenge))) => {
            Some(AttestationEvidence::Tpm2(evidence(tpm, challenge, &transcript)?))
        }
        (None, None) => None,
        _ => {
            return Err(LinkError::Protocol(
                "the server answered another offer".to_owned(),
            ));
        }
    };
    let finish = EnrollFinishRequest {
        session: begun.session,
        proof: Base64Bytes(proof),
        csr: certificate_request(key, plan)?,
        attestation,
    };
    let answer: EnrollFinishResponse = link
        .exchange(path::ENROLL_FINISH, &finish, ENROLL_RESPONSE_BYTES_MAX)
        .await?;
    accept(answer, key, plan, reading)
}

/// The first call.
pub async fn begin(
    link: &Link,
    token: &str,
    spki: &[u8],
    tpm: Option<&SoftwareTpm>,
    plan: &DevicePlan,
) -> Result<EnrollBeginResponse, LinkError> {
    let hardware = plan
        .claims()
        .ok_or_else(|| LinkError::Protocol("the plan has no valid claims".to_owned()))?;
    let offer = tpm.map(|tpm| {
        AttestationOffer::Tpm2(TpmOffer {
            ek_certificates: tpm
                .ek_certificates()
                .iter()
                .map(|der| Base64Bytes(der.clone()))
                .collect(),
            ek_public: None,
            ak_public: Base64Bytes(tpm.ak_public().to_vec()),
            device_public: Base64Bytes(tpm.device_public().to_vec()),
        })
    });
    let begin = EnrollBeginRequest {
        token: token.to_owned(),
        hardware,
        public_key: Base64Bytes(spki.to_vec()),
        agent_version: Some(AGENT_VERSION.to_owned()),
        attestation: offer,
        channel_binding: ChannelBinding::TlsExporter,
    };
    link.exchange(path::ENROLL_BEGIN, &begin, ENROLL_RESPONSE_BYTES_MAX)
        .await
}

/// What the simulated TPM answers.
fn evidence(
    tpm: &SoftwareTpm,
    challenge: &TpmChallenge,
    transcript: &Transcript,
) -> Result<TpmEvidence, LinkError> {
    let credential = Credential {
        id_object: challenge.id_object.0.clone(),
        encrypted_secret: challenge.encrypted_secret.0.clone(),
    };
    let secret = tpm
        .activate(&credential)
        .ok_or_else(|| LinkError::Protocol("the credential is for another TPM".to_owned()))?;
    let qualifying = transcript.qualifying_data();
    let (certify_attest, certify_signature) = tpm.certify(&qualifying);
    let quote = tpm.quote(&qualifying, &challenge.pcr_selection);
    Ok(TpmEvidence {
        activation_proof: Base64Bytes(activation_proof(&secret, &transcript.bytes()).to_vec()),
        certify_attest: Base64Bytes(certify_attest),
        certify_signature: Base64Bytes(certify_signature),
        quote_attest: Base64Bytes(quote.attest),
        quote_signature: Base64Bytes(quote.signature),
        pcr_values: quote
            .values
            .iter()
            .map(|(index, value)| PcrValue {
                index: *index,
                sha256: Base64Bytes(value.to_vec()),
            })
            .collect(),
        event_log: None,
    })
}

fn accept(
    answer: EnrollFinishResponse,
    key: &SigningKey,
    plan: &DevicePlan,
    reading: &ClockReading,
) -> Result<(Identity, DeviceCore), LinkError> {
    let refused = |refusal: muster_trust::obey::Refusal| LinkError::Protocol(refusal.to_string());
    require_own_key(&answer.certificate_chain, key)?;
    let (first, later) = answer
        .root_documents
        .split_first()
        .ok_or_else(|| LinkError::Protocol("the answer holds no root document".to_owned()))?;
    let mut trust = Trust::pin(first, answer.tenant).map_err(refused)?;
    for document in later {
        trust.advance_root(document).map_err(refused)?;
    }
    trust
        .advance_checkpoint(&answer.checkpoint, &[])
        .map_err(refused)?;
    let device = DeviceIdentity {
        tenant: answer.tenant,
        device_id: answer.device_id,
        epoch: answer.epoch,
        platform: plan.model.platform,
        ownership: answer.ownership,
    };
    let identity = Identity {
        tenant: answer.tenant,
        epoch: answer.epoch,
        certificate_chain: answer.certificate_chain,
        ca_certificates: answer.ca_certificates,
        checkin: answer.checkin,
    };
    let validity = identity
        .validity()
        .ok_or_else(|| LinkError::Protocol("the certificate cannot be read".to_owned()))?;
    let core = DeviceCore::new(device, AGENT_VERSION, trust, validity.not_before, reading);
    Ok((identity, core))
}

/// Refuses a certificate that is not over the device's own key.
pub fn require_own_key(chain: &[Base64Bytes], key: &SigningKey) -> Result<(), LinkError> {
    let spki = key.public().spki_der();
    let is_own = chain.first().is_some_and(|leaf| {
        x509_parser::parse_x509_certificate(&leaf.0).is_ok_and(|(_, leaf)| leaf.public_key().raw == spki)
    });
    if is_own {
        Ok(())
    } else {
        Err(LinkError::Protocol(
            "the certificate is not over the device's key".to_owned(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_from_secret_seed_and_index_alone() {
        let key = |secret: &[u8], seed, index| {
            device_key(secret, &DevicePlan::new(seed, index))
                .expect("a key")
                .public()
                .spki_der()
        };
        assert_eq!(key(b"s", 1, 2), key(b"s", 1, 2));
        assert_ne!(key(b"s", 1, 2), key(b"t", 1, 2));
        assert_ne!(key(b"s", 1, 2), key(b"s", 2, 2));
        assert_ne!(key(b"s", 1, 2), key(b"s", 1, 3));
    }

    #[test]
    fn a_derived_key_signs_survives_storage_and_asks_for_certificates() {
        let plan = DevicePlan::new(1, 1);
        let key = device_key(b"s", &plan).expect("a key");
        let signature = key.sign(b"message").expect("signed");
        assert!(key.public().verify(b"message", &signature).is_ok());
        let stored = key.to_pkcs8_der().expect("PKCS#8");
        assert_eq!(
            SigningKey::from_pkcs8_der(&stored)
                .expect("it reads back")
                .public(),
            key.public()
        );
        let request = certificate_request(&key, &plan).expect("a request");
        use x509_parser::prelude::FromDer as _;
        let (_, request) = x509_parser::certification_request::X509CertificationRequest::from_der(&request.0)
            .expect("PKCS#10");
        assert_eq!(
            request.certification_request_info.subject_pki.raw,
            key.public().spki_der()
        );
    }
}
