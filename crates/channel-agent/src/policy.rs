//! Desired state: which bundles a device should be at, with the proof that each activation is in the tenant's log.

use muster_trust::dsse::Envelope;
use muster_trust::key::Digest;
use muster_trust::proof::LoggedProof;
use serde::{Deserialize, Serialize};

/// The proof that goes with one bundle of the desired state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleProof {
    /// SHA-256 of the bundle's bytes.
    pub sha256: Digest,
    /// Ties the `rollout.activated` entry to the checkpoint.
    pub proof: LoggedProof,
}

/// The state a device should be at. Present in a check-in answer exactly when the device is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// A DSSE envelope over a `DesiredStateStatement`, by the action role.
    pub statement: Envelope,
    /// One proof per bundle that the statement names.
    pub bundles: Vec<BundleProof>,
}
