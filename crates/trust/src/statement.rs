//! Signed statements: what the server's action signer tells one device, and what a device's key answers.
//!
//! Each kind has its own payload type, so that a signature for one kind is worthless for another, and each names its
//! tenant, device and enrollment epoch, so that it is worthless anywhere else.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use muster_model::command::{CommandKind, ReceiptOutcome, SCRIPT_SECONDS_MAX};
use muster_model::id::{CommandId, DeviceId, EntryId, PolicyId, TenantId};
use muster_model::report::SettingReport;
use muster_model::text::{Name, VersionLabel};
use muster_model::time::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::dsse::{self, DsseError, Envelope};
use crate::encoding::{JsonError, from_strict_json};
use crate::key::{Digest, PublicKey, SigningKey, sha256};

/// Most bundles that one desired state may name.
pub const MAX_DESIRED_BUNDLES: usize = 256;
/// Most settings in one policy report.
pub const MAX_REPORTED_SETTINGS: usize = 4096;
/// Longest `detail` of a receipt.
pub const MAX_RECEIPT_DETAIL_CHARS: usize = 1024;
/// Longest `code` of a receipt.
pub const MAX_RECEIPT_CODE_CHARS: usize = 64;
/// Longest `output` of a receipt, in bytes of UTF-8.
pub const MAX_RECEIPT_OUTPUT_BYTES: usize = 64 * 1024;
/// Longest script.
pub const MAX_SCRIPT_BYTES: usize = 64 * 1024;

/// A kind of signed statement.
pub trait Statement: Serialize + DeserializeOwned {
    /// The DSSE payload type of this kind and of no other.
    const PAYLOAD_TYPE: &'static str;
    /// Longest payload of this kind.
    const MAX_BYTES: usize;

    /// Checks the bounds that the types do not express.
    fn check(&self) -> Result<(), StatementError>;
}

/// Why a statement was refused or could not be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// The envelope, its type or its signatures are wrong.
    #[error(transparent)]
    Dsse(#[from] DsseError),
    /// The payload is not of this kind.
    #[error("the statement is malformed: {0}")]
    Json(#[from] JsonError),
    /// A bound is broken.
    #[error("the statement is invalid: {0}")]
    Invalid(&'static str),
}

/// A statement whose signatures were verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<S> {
    /// What was signed.
    pub statement: S,
    /// SHA-256 of the payload bytes: what log entries refer to.
    pub payload_sha256: Digest,
}

/// Signs a statement with every key given.
pub fn sign<S: Statement>(statement: &S, keys: &[&SigningKey]) -> Result<Envelope, StatementError> {
    Ok(dsse::sign(S::PAYLOAD_TYPE, &payload(statement)?, keys)?)
}

/// The bytes of a statement that are signed, for signers that live elsewhere.
pub fn payload<S: Statement>(statement: &S) -> Result<Vec<u8>, StatementError> {
    statement.check()?;
    let bytes = serde_json::to_vec(statement).map_err(|error| JsonError::Malformed(error.to_string()))?;
    if bytes.len() > S::MAX_BYTES {
        return Err(JsonError::TooLarge {
            bytes: bytes.len(),
            limit: S::MAX_BYTES,
        }
        .into());
    }
    Ok(bytes)
}

/// Returns the statement if `threshold` distinct keys of `keys` signed it as this kind.
pub fn verify<S: Statement>(
    envelope: &Envelope,
    keys: &[&PublicKey],
    threshold: u32,
) -> Result<Verified<S>, StatementError> {
    let payload = envelope.verify(S::PAYLOAD_TYPE, keys, threshold)?;
    let statement: S = from_strict_json(&payload, S::MAX_BYTES)?;
    statement.check()?;
    Ok(Verified {
        statement,
        payload_sha256: sha256(&payload),
    })
}

/// A one-shot action for one device. Signed by the action role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandStatement {
    /// Whose command.
    pub tenant: TenantId,
    /// The command's id.
    pub command_id: CommandId,
    /// The one device that may execute it.
    pub device_id: DeviceId,
    /// The device's enrollment epoch; a later enrollment ignores it.
    pub epoch: u32,
    /// Rises with every command of the device; a device executes none twice.
    pub sequence: u64,
    /// What to do.
    pub kind: CommandKind,
    /// When it was signed.
    pub issued_at: Timestamp,
    /// After this time it is not executed.
    pub expires_at: Timestamp,
    /// SHA-256 of the batch statement that a destructive command is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Digest>,
}

impl Statement for CommandStatement {
    const PAYLOAD_TYPE: &'static str = "application/vnd.muster.command+json";
    const MAX_BYTES: usize = 64 * 1024;

    fn check(&self) -> Result<(), StatementError> {
        self.kind
            .check()
            .map_err(|_| StatementError::Invalid("the command's arguments are out of bounds"))?;
        if !self.kind.is_for_devices() {
            return Err(StatementError::Invalid("the command is nothing for a device"));
        }
        check_lifetime(self.issued_at, self.expires_at)
    }
}

/// What runs a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpreter {
    /// `/bin/sh` (POSIX.1-2017).
    Sh,
    Bash,
    Python3,
}

/// A script that devices may run, by the policy role: the server that queues it did not write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptStatement {
    /// Whose devices may run it.
    pub tenant: TenantId,
    /// What people call it.
    pub name: Name,
    /// What runs it.
    pub interpreter: Interpreter,
    /// The program; at most [`MAX_SCRIPT_BYTES`].
    pub text: String,
    /// How long it may run; the command may allow less.
    pub timeout_seconds: u32,
    /// How much of its output is sent back; at most [`MAX_RECEIPT_OUTPUT_BYTES`].
    pub output_bytes_max: u32,
}

impl Statement for ScriptStatement {
    const PAYLOAD_TYPE: &'static str = "application/vnd.muster.script+json";
    // A text of control characters is six times as long in JSON.
    const MAX_BYTES: usize = 512 * 1024;

    fn check(&self) -> Result<(), StatementError> {
        let invalid = |what| Err(StatementError::Invalid(what));
        if self.text.is_empty() || self.text.len() > MAX_SCRIPT_BYTES {
            return invalid("the script is empty or longer than MAX_SCRIPT_BYTES");
        }
        if !(1..=SCRIPT_SECONDS_MAX).contains(&self.timeout_seconds) {
            return invalid("timeout_seconds is not 1 to SCRIPT_SECONDS_MAX");
        }
        if self.output_bytes_max as usize > MAX_RECEIPT_OUTPUT_BYTES {
            return invalid("output_bytes_max is more than MAX_RECEIPT_OUTPUT_BYTES");
        }
        Ok(())
    }
}

/// One policy version that a device should be at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredBundle {
    /// The policy.
    pub policy_id: PolicyId,
    /// Its version.
    pub version: VersionLabel,
    /// SHA-256 of the bundle's bytes.
    pub sha256: Digest,
    /// The activation counter of the activation that put it there; also when that went back to an older version.
    pub generation: u64,
    /// The log entry of that activation.
    pub activation_entry: EntryId,
}

/// What one device should be at. Signed by the action role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredStateStatement {
    /// Whose device.
    pub tenant: TenantId,
    /// The one device that this is for.
    pub device_id: DeviceId,
    /// The device's enrollment epoch.
    pub epoch: u32,
    /// The highest activation counter of the tenant when this was signed: a device never goes below the last it obeyed.
    pub generation: u64,
    /// The policies in force; each policy at most once.
    pub bundles: Vec<DesiredBundle>,
    /// When it was signed.
    pub issued_at: Timestamp,
    /// After this time it is not taken up.
    pub expires_at: Timestamp,
}

impl Statement for DesiredStateStatement {
    const PAYLOAD_TYPE: &'static str = "application/vnd.muster.desired-state+json";
    const MAX_BYTES: usize = 256 * 1024;

    fn check(&self) -> Result<(), StatementError> {
        let invalid = |what| Err(StatementError::Invalid(what));
        if self.bundles.len() > MAX_DESIRED_BUNDLES {
            return invalid("more bundles than MAX_DESIRED_BUNDLES");
        }
        let mut policies: Vec<PolicyId> = self.bundles.iter().map(|bundle| bundle.policy_id).collect();
        policies.sort();
        if policies.windows(2).any(|pair| pair[0] == pair[1]) {
            return invalid("a policy is named twice");
        }
        if self
            .bundles
            .iter()
            .any(|bundle| bundle.generation > self.generation)
        {
            return invalid("a bundle is of a later generation than the whole");
        }
        check_lifetime(self.issued_at, self.expires_at)
    }
}

/// What became of a command. Signed by the device's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptStatement {
    /// Whose device.
    pub tenant: TenantId,
    /// The device that answers.
    pub device_id: DeviceId,
    /// Its enrollment epoch.
    pub epoch: u32,
    /// The command that it answers.
    pub command_id: CommandId,
    /// Done, nothing to do, or failed.
    pub outcome: ReceiptOutcome,
    /// A sentence for people, at most [`MAX_RECEIPT_DETAIL_CHARS`] characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// A stable code for programs, such as a refusal's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// When, by the device's clock.
    pub at: Timestamp,
    /// What the command printed or collected, at most [`MAX_RECEIPT_OUTPUT_BYTES`] bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// SHA-256 of the gzip file with the command's output that the device uploaded beside this receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_sha256: Option<Digest>,
}

impl Statement for ReceiptStatement {
    const PAYLOAD_TYPE: &'static str = "application/vnd.muster.receipt+json";
    const MAX_BYTES: usize = 512 * 1024;

    fn check(&self) -> Result<(), StatementError> {
        let longer = |text: &Option<String>, chars: usize| {
            text.as_ref().is_some_and(|t| t.chars().nth(chars).is_some())
        };
        if longer(&self.detail, MAX_RECEIPT_DETAIL_CHARS) {
            return Err(StatementError::Invalid(
                "detail is longer than MAX_RECEIPT_DETAIL_CHARS",
            ));
        }
        if longer(&self.code, MAX_RECEIPT_CODE_CHARS) {
            return Err(StatementError::Invalid(
                "code is longer than MAX_RECEIPT_CODE_CHARS",
            ));
        }
        if self
            .output
            .as_ref()
            .is_some_and(|output| output.len() > MAX_RECEIPT_OUTPUT_BYTES)
        {
            return Err(StatementError::Invalid(
                "output is longer than MAX_RECEIPT_OUTPUT_BYTES",
            ));
        }
        Ok(())
    }
}

/// What is in force on a device, setting by setting. Signed by the device's key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyReportStatement {
    /// Whose device.
    pub tenant: TenantId,
    /// The device that reports.
    pub device_id: DeviceId,
    /// Its enrollment epoch.
    pub epoch: u32,
    /// The [`state_digest`] of what the device is at.
    pub state_digest: Digest,
    /// The generation of the desired state that the device obeys.
    pub generation: u64,
    /// One report per setting key.
    pub settings: BTreeMap<String, SettingReport>,
    /// When it was read back, by the device's clock.
    pub at: Timestamp,
    /// SHA-256 of the facts that the device knows of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts_digest: Option<Digest>,
}

impl Statement for PolicyReportStatement {
    const PAYLOAD_TYPE: &'static str = "application/vnd.muster.policy-report+json";
    const MAX_BYTES: usize = 1024 * 1024;

    fn check(&self) -> Result<(), StatementError> {
        if self.settings.len() > MAX_REPORTED_SETTINGS {
            return Err(StatementError::Invalid(
                "more settings than MAX_REPORTED_SETTINGS",
            ));
        }
        Ok(())
    }
}

/// The digest of a set of bundles: SHA-256 over lines `<policy id> <generation> <sha256>\n`, sorted by policy id. No bundles:
/// the SHA-256 of nothing.
pub fn state_digest(bundles: &[DesiredBundle]) -> Digest {
    let mut sorted: Vec<&DesiredBundle> = bundles.iter().collect();
    sorted.sort_by_key(|bundle| bundle.policy_id);
    let mut lines = String::new();
    for bundle in sorted {
        writeln!(
            lines,
            "{} {} {}",
            bundle.policy_id, bundle.generation, bundle.sha256
        )
        .expect("writing to a string cannot fail");
    }
    sha256(lines.as_bytes())
}

fn check_lifetime(issued_at: Timestamp, expires_at: Timestamp) -> Result<(), StatementError> {
    if issued_at < expires_at {
        Ok(())
    } else {
        Err(StatementError::Invalid("it expires before it is issued"))
    }
}
