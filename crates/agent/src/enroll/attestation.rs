//! What the TPM adds to the two enrollment calls.

use std::sync::Arc;

use aws_lc_rs::hmac;
use muster_channel_agent::Base64Bytes;
use muster_channel_agent::enroll::{
    AttestationChallenge, AttestationEvidence, AttestationOffer, PcrValue, TpmChallenge, TpmEvidence,
    TpmOffer, Transcript,
};
use muster_channel_agent::limits::{EVENT_LOG_BYTES_MAX, PCR_COUNT, TPM_STRUCTURE_BYTES_MAX};

use crate::device_key::{DeviceKey, TpmChoice};
use crate::error::AgentError;
use crate::tpm::evidence::{self, Announcement, Challenge, Credential, Evidence, PcrBank};
use crate::tpm::keys::TpmKey;

/// A TPM that can prove itself.
pub(super) struct Attestation {
    announcement: Announcement,
}

impl Attestation {
    /// Asks the TPM that holds the key for what it can show; `None` for a key in the state folder. A TPM that was not named
    /// and cannot show anything still holds the key.
    pub fn prepare(key: &DeviceKey, choice: &TpmChoice) -> Result<Option<Self>, AgentError> {
        let DeviceKey::Tpm(key) = key else {
            return Ok(None);
        };
        match (Announcement::make(key), choice) {
            (Ok(announcement), _) => Ok(Some(Self { announcement })),
            (Err(error), TpmChoice::Named(_)) => Err(error.into()),
            (Err(error), TpmChoice::Automatic | TpmChoice::Never) => {
                tracing::warn!(%error, code = error.code(), "the TPM holds the key and cannot prove it");
                Ok(None)
            }
        }
    }

    /// What the first call offers.
    pub fn offer(&self) -> AttestationOffer {
        let announcement = &self.announcement;
        let certificates = announcement.endorsement_certificates.iter();
        AttestationOffer::Tpm2(TpmOffer {
            ek_certificates: certificates.cloned().map(Base64Bytes).collect(),
            ek_public: announcement.endorsement_key.clone().map(Base64Bytes),
            ak_public: Base64Bytes(announcement.attestation_key.clone()),
            device_public: Base64Bytes(announcement.device_key.clone()),
        })
    }

    /// What the second call proves. A slow chip takes seconds, so the work has a thread of its own, and the connection stays
    /// alive meanwhile.
    pub async fn answer(
        self,
        key: Arc<DeviceKey>,
        challenge: AttestationChallenge,
        transcript: Transcript,
    ) -> Result<AttestationEvidence, AgentError> {
        let AttestationChallenge::Tpm2(challenge) = challenge;
        let work = move || match &*key {
            DeviceKey::Tpm(key) => prove(&self.announcement, key, &challenge, &transcript),
            DeviceKey::Software(_) => Err(unasked()),
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(evidence) => evidence,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// The server asks for what was not offered.
pub(super) fn unasked() -> AgentError {
    AgentError::AnswerRefused("it asks for an attestation that was not offered".to_owned())
}

fn prove(
    announcement: &Announcement,
    key: &TpmKey,
    challenge: &TpmChallenge,
    transcript: &Transcript,
) -> Result<AttestationEvidence, AgentError> {
    let credential = Credential {
        id_object: &challenge.id_object.0,
        encrypted_secret: &challenge.encrypted_secret.0,
    };
    check_challenge(&credential, &challenge.pcr_selection)?;
    let selection = PcrBank::sha256(&challenge.pcr_selection);
    let proven = announcement.prove(
        key,
        &Challenge {
            credential,
            extra_data: &transcript.qualifying_data(),
            registers: std::slice::from_ref(&selection),
        },
    )?;
    let event_log = evidence::event_log(key.tpm().tcti(), EVENT_LOG_BYTES_MAX);
    Ok(AttestationEvidence::Tpm2(message(proven, transcript, event_log)))
}

fn check_challenge(credential: &Credential<'_>, pcr_selection: &[u8]) -> Result<(), AgentError> {
    let refused = |text: &str| Err(AgentError::AnswerRefused(text.to_owned()));
    let is_short = |bytes: &[u8]| bytes.len() <= TPM_STRUCTURE_BYTES_MAX;
    if !credential.is_whole() || !is_short(credential.id_object) || !is_short(credential.encrypted_secret) {
        return refused("its credential is not one that a TPM can open");
    }
    let is_ascending = pcr_selection.is_sorted_by(|one, next| one < next);
    let is_known = pcr_selection.iter().all(|index| usize::from(*index) < PCR_COUNT);
    if pcr_selection.is_empty() || !is_ascending || !is_known {
        return refused("it asks for registers that a TPM does not have");
    }
    Ok(())
}

fn message(proven: Evidence, transcript: &Transcript, event_log: Option<Vec<u8>>) -> TpmEvidence {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, &proven.activation_secret);
    let activation_proof = hmac::sign(&secret, &transcript.bytes());
    let values = proven.registers.into_iter().map(|value| PcrValue {
        index: value.index,
        sha256: Base64Bytes(value.digest),
    });
    TpmEvidence {
        activation_proof: Base64Bytes(activation_proof.as_ref().to_vec()),
        certify_attest: Base64Bytes(proven.certified.statement),
        certify_signature: Base64Bytes(proven.certified.signature),
        quote_attest: Base64Bytes(proven.quoted.statement),
        quote_signature: Base64Bytes(proven.quoted.signature),
        pcr_values: values.collect(),
        event_log: event_log.map(Base64Bytes),
    }
}

#[cfg(test)]
mod tests {
    use muster_trust::key::sha256_of;

    use super::*;
    use crate::tpm::evidence::tests::make_credential;
    use crate::tpm::swtpm::Maker;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime")
    }

    #[test]
    fn a_tpm_answers_the_servers_challenge() {
        let Some(maker) = Maker::new() else { return };
        let tpm = maker.tpm("device", &[]);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let choice = TpmChoice::parse(&tpm.tcti()).expect("it parses");
        let key = Arc::new(DeviceKey::create(folder.path(), &choice).expect("a key"));
        let attestation = Attestation::prepare(&key, &choice).expect("it prepares");
        let attestation = attestation.expect("a TPM");
        let AttestationOffer::Tpm2(offer) = attestation.offer();
        let secret = [3; 32];
        let (id_object, encrypted_secret) =
            make_credential(&offer.ek_certificates[0].0, &offer.ak_public.0, &secret);
        let challenge = AttestationChallenge::Tpm2(TpmChallenge {
            id_object: Base64Bytes(id_object),
            encrypted_secret: Base64Bytes(encrypted_secret),
            pcr_selection: vec![0, 2, 4, 7],
        });
        let transcript = Transcript::of("token", &[1; 32], &key.public().spki_der(), &[2; 32]);
        let answer = attestation.answer(Arc::clone(&key), challenge, transcript.clone());
        let AttestationEvidence::Tpm2(evidence) = runtime().block_on(answer).expect("it answers");

        let expected = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), &transcript.bytes());
        assert_eq!(evidence.activation_proof.0, expected.as_ref());
        let indexes: Vec<u8> = evidence.pcr_values.iter().map(|value| value.index).collect();
        assert_eq!(indexes, [0, 2, 4, 7]);
        let values: Vec<&[u8]> = evidence
            .pcr_values
            .iter()
            .map(|value| value.sha256.0.as_slice())
            .collect();
        assert!(evidence.quote_attest.0.ends_with(sha256_of(&values).as_bytes()));
        let nonce = transcript.qualifying_data();
        for statement in [&evidence.certify_attest.0, &evidence.quote_attest.0] {
            assert!(statement.windows(32).any(|window| window == nonce));
        }
        assert_eq!(evidence.event_log, None);
    }

    #[test]
    fn a_software_key_offers_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let key = DeviceKey::create(folder.path(), &TpmChoice::Never).expect("a key");
        let prepared = Attestation::prepare(&key, &TpmChoice::Never);
        assert!(prepared.is_ok_and(|attestation| attestation.is_none()));
    }

    #[test]
    fn only_a_challenge_that_a_tpm_can_answer_is_passed_on() {
        let whole = [0, 1, 7];
        let check = |id_object: &[u8], pcrs: &[u8]| {
            let credential = Credential {
                id_object,
                encrypted_secret: &whole,
            };
            check_challenge(&credential, pcrs).is_ok()
        };
        assert!(check(&whole, &[0]) && check(&whole, &[0, 7, 23]));
        for pcrs in [&[][..], &[24], &[7, 7], &[7, 0], &[255]] {
            assert!(!check(&whole, pcrs), "{pcrs:?}");
        }
        let mut long = vec![0; 2 + TPM_STRUCTURE_BYTES_MAX];
        long[..2].copy_from_slice(&(TPM_STRUCTURE_BYTES_MAX as u16).to_be_bytes());
        for id_object in [&[][..], &[0, 2, 7], &long] {
            assert!(!check(id_object, &[0]), "{} bytes", id_object.len());
        }
    }
}
