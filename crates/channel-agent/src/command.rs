//! One-shot actions on their way to a device.

use muster_trust::approval::ApprovalProof;
use muster_trust::dsse::Envelope;
use muster_trust::proof::LoggedProof;
use serde::{Deserialize, Serialize};

/// What an uploaded output is: a gzip file (RFC 1952), by the media type of RFC 6713.
pub const OUTPUT_CONTENT_TYPE: &str = "application/gzip";

/// A command that is due. It is delivered again until its receipt was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueCommand {
    /// A DSSE envelope over a `CommandStatement`, by the action role.
    pub envelope: Envelope,
    /// Ties the `command.created` entry to the checkpoint.
    pub proof: LoggedProof,
    /// Who approved it, and that this device is on the list: of commands that need approvals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalProof>,
    /// Of `run-script`: a DSSE envelope over a `ScriptStatement`, by the policy role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Envelope>,
}
