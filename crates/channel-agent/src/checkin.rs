//! The check-in: a device says what it is at, the answer says what it should be at.

use muster_model::id::CommandId;
use muster_model::time::Timestamp;
use muster_trust::dsse::Envelope;
use muster_trust::key::Digest;
use muster_trust::note::MAX_NOTE_BYTES;
use serde::{Deserialize, Serialize};

use crate::codec::Base64Bytes;
use crate::command::DueCommand;
use crate::enroll::FieldLimit;
use crate::limits::{AGENT_VERSION_CHARS_MAX, RECEIPTS_MAX};
use crate::policy::Desired;

/// Body of `POST /agent/v1/checkin`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckinRequest {
    /// The enrollment epoch; must be the certificate's.
    pub epoch: u32,
    /// Digest of the bundles in force: `state_digest` of the trust crate.
    pub state_digest: Digest,
    /// Size of the last checkpoint the device accepted.
    pub tree_size: u64,
    /// Version of the root document the device is at.
    pub root_version: u64,
    /// Highest command sequence the device has taken.
    pub last_sequence: u64,
    /// Receipts not yet accepted: DSSE envelopes over `ReceiptStatement`, by the device key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub receipts: Vec<Envelope>,
    /// A DSSE envelope over a `PolicyReportStatement`, by the device key, when there is something new to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Envelope>,
    /// SHA-256 of the facts last uploaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts_digest: Option<Digest>,
    /// Version of the agent program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// The head of the log that the device stands at, once a server has said with `want_checkpoint` that it compares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<SeenCheckpoint>,
    /// The device's own clock; recorded, never trusted.
    pub clock: Timestamp,
}

/// The newest checkpoint that a device has verified; its size is the request's `tree_size`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenCheckpoint {
    /// Root of the tree.
    pub root: Digest,
    /// The signed note, where the server asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What the server wants to hear of the device's checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WantCheckpoint {
    /// Its root, with every check-in from now on.
    Root,
    /// The signed note too, with the next check-in: it is not a head that the server knows.
    Note,
}

impl CheckinRequest {
    /// Checks the bounds that the types do not carry.
    pub fn check_limits(&self) -> Result<(), FieldLimit> {
        if self.receipts.len() > RECEIPTS_MAX {
            return Err(FieldLimit {
                field: "receipts",
                limit: RECEIPTS_MAX,
            });
        }
        let note = self.checkpoint.as_ref().and_then(|seen| seen.note.as_ref());
        if note.is_some_and(|note| note.len() > MAX_NOTE_BYTES) {
            return Err(FieldLimit {
                field: "checkpoint.note",
                limit: MAX_NOTE_BYTES,
            });
        }
        match &self.agent_version {
            Some(version)
                if version.chars().count() > AGENT_VERSION_CHARS_MAX
                    || version.chars().any(char::is_control) =>
            {
                Err(FieldLimit {
                    field: "agent_version",
                    limit: AGENT_VERSION_CHARS_MAX,
                })
            }
            _ => Ok(()),
        }
    }
}

/// A newer checkpoint, with the proof that the log only grew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointUpdate {
    /// The C2SP signed note.
    pub note: String,
    /// Consistency proof from the device's `tree_size` to this checkpoint (RFC 6962 section 2.1.2); 32 bytes each.
    #[serde(default)]
    pub consistency: Vec<Base64Bytes>,
}

/// Answer (200) to `POST /agent/v1/checkin`. Members unknown to a device are ignored.
///
/// Every proof in it is to `checkpoint.note` where that is present, otherwise to the device's last accepted checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckinResponse {
    /// The server's clock; information, never trusted for expiry.
    pub server_time: Timestamp,
    /// When to come again without a wake-up.
    pub next_checkin_seconds: u32,
    /// Present exactly when the desired digest differs from the request's `state_digest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<Desired>,
    /// Commands that are due, in sequence order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<DueCommand>,
    /// Present when the log has grown past the request's `tree_size` and something in this answer needs it, or when the
    /// device's checkpoint is old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointUpdate>,
    /// Root documents after the request's `root_version`, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub root_documents: Vec<Envelope>,
    /// Commands whose receipts are stored; the device forgets those receipts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub receipts_accepted: Vec<CommandId>,
    /// The server wants the facts.
    #[serde(default)]
    pub want_inventory: bool,
    /// The server wants the settings put in force again, and a fresh policy report.
    #[serde(default)]
    pub want_report: bool,
    /// The certificate should be renewed now.
    #[serde(default)]
    pub renew: bool,
    /// The server compares the heads that devices stand at. A device that does not know this member goes on as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub want_checkpoint: Option<WantCheckpoint>,
}

impl CheckinResponse {
    /// The answer to a device that is where it should be: nothing but the times.
    pub fn up_to_date(server_time: Timestamp, next_checkin_seconds: u32) -> Self {
        Self {
            server_time,
            next_checkin_seconds,
            desired: None,
            commands: Vec::new(),
            checkpoint: None,
            root_documents: Vec::new(),
            receipts_accepted: Vec::new(),
            want_inventory: false,
            want_report: false,
            renew: false,
            want_checkpoint: None,
        }
    }
}
