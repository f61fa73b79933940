//! A TPM's part of an enrollment: from what it offers to what it has to answer, and from its answer to evidence.

use muster_channel_agent::enroll::{
    AttestationChallenge, AttestationEvidence, TpmEvidence, TpmOffer, Transcript,
};
use muster_model::Timestamp;

use super::{
    admission::{Evidence, Refusal},
    policy::TpmPolicy,
};
use crate::access::problem::{ATTESTATION_UNAVAILABLE, Problem};

/// What the first call leaves.
pub struct Opened {
    pub challenge: AttestationChallenge,
    pub pending: Pending,
}

/// What the second call needs of the first, as it is stored between them.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Pending {}

pub fn check_roots(_: &TpmPolicy) -> Result<(), Problem> {
    Ok(())
}

pub fn open(_: &TpmPolicy, _: &TpmOffer, _: &[u8], _: Timestamp) -> Result<Opened, Refusal> {
    Err(ATTESTATION_UNAVAILABLE.detail("not yet").into())
}

pub fn close(
    _: &TpmPolicy,
    _: &Pending,
    evidence: &AttestationEvidence,
    _: &Transcript,
) -> Result<Evidence, Refusal> {
    let AttestationEvidence::Tpm2(TpmEvidence { .. }) = evidence;
    Err(ATTESTATION_UNAVAILABLE.detail("not yet").into())
}
