//! What commands printed or collected: short ones in the receipt, long ones uploaded beside it.
//!
//! An upload is a gzip file that nothing here ever unpacks. It is taken for a command that the device has now or had a moment
//! ago, and shown only when the receipt that the device signed names its digest.

mod api;
mod store;

use std::time::Duration;

use axum::body::Bytes;
use muster_model::{CommandId, CommandState, DeviceId, TenantId, Timestamp};
use muster_storage::{Scope, Statement, Tx};
use muster_trust::key::sha256;

use crate::{
    App,
    access::{
        Author,
        problem::{CONFLICT, ILLEGAL_STATE, INVALID, NOT_FOUND, Problem},
    },
    audit,
    commands::{self, Command},
};
pub use api::router;

/// Every statement of this slice, for the test that prepares them all on both engines.
pub const STATEMENTS: &[Statement] = store::ALL;
/// Bytes of uploads that one tenant may have; the oldest make room.
pub const TENANT_BYTES_MAX: i64 = 1024 * 1024 * 1024;
/// Uploads that one tenant may have; the oldest make room.
pub const TENANT_OUTPUTS_MAX: i64 = 10_000;
/// How long an upload is kept.
pub const RETENTION: Duration = Duration::from_secs(30 * 86_400);
/// An upload may arrive this long after the receipt, on another connection.
const LATE_MAX: Duration = Duration::from_secs(3600);
/// Uploads that make room, or that a step of the reconciler removes, at a time.
const REMOVED_PER_STEP: i64 = 100;
const REMOVALS_MAX: usize = 1000;
/// The types of commands that have an output worth an upload.
const TYPES: [&str; 3] = ["collect-logs", "collect-files", "run-script"];
/// How a gzip file begins (RFC 1952, section 2.3.1): its mark, and that it is deflated.
const GZIP: [u8; 3] = [0x1f, 0x8b, 0x08];

/// An output for an administrator.
#[derive(Debug)]
pub enum Output {
    /// Of the receipt itself.
    Text(String),
    /// A gzip file, and the type of the command that it is of.
    Gzip { bytes: Vec<u8>, kind: String },
}

/// Stores what a device uploaded for one of its commands.
pub async fn take(
    app: &App,
    tenant: TenantId,
    (device, epoch): (DeviceId, u32),
    id: CommandId,
    bytes: Bytes,
) -> Result<(), Problem> {
    if !bytes.starts_with(&GZIP) {
        return Err(INVALID.detail("The output is not a gzip file."));
    }
    let digest = sha256(&bytes);
    audit::commit(app, &Author::device(tenant, device), move |tx| {
        let at = tx.at();
        let command = find(tx, tenant, (device, epoch), id)?;
        require_open(&command, at)?;
        if let Some(named) = commands::receipt(tx, tenant, id)?.and_then(|receipt| receipt.output_sha256)
            && named != digest
        {
            return Err(CONFLICT.detail("The receipt of the command names another output."));
        }
        make_room(tx, tenant, bytes.len())?;
        store::put(tx, tenant, (id, device), &digest.to_string(), &bytes, at)?;
        tx.record(
            "command.output_received",
            ("device", device.to_string()),
            serde_json::json!({"command_id": id, "output_sha256": digest.to_string(), "bytes": bytes.len()}),
        )
        .map(drop)
    })
    .await
}

/// The command, if it is this device's; nobody learns of another's.
fn find(
    tx: &mut Tx,
    tenant: TenantId,
    (device, epoch): (DeviceId, u32),
    id: CommandId,
) -> Result<Command, Problem> {
    let command = commands::get(tx, tenant, id)?;
    if command.device != device || command.epoch != epoch || !TYPES.contains(&command.kind.as_str()) {
        return Err(NOT_FOUND.detail("There is no such command."));
    }
    Ok(command)
}

fn require_open(command: &Command, now: Timestamp) -> Result<(), Problem> {
    let is_open = command.state == CommandState::Delivered || command.state == CommandState::Queued;
    let is_late = command
        .completed_at
        .is_some_and(|completed| now.since(completed) <= LATE_MAX && command.state == CommandState::Done);
    if is_open && command.delivered_at.is_some() || is_late {
        Ok(())
    } else {
        Err(ILLEGAL_STATE.detail("The command is neither open nor done just now."))
    }
}

fn make_room(tx: &mut Tx, tenant: TenantId, bytes: usize) -> Result<(), Problem> {
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    for _ in 0..REMOVALS_MAX {
        let (count, held) = store::held(tx, tenant)?;
        if count < TENANT_OUTPUTS_MAX && held + bytes <= TENANT_BYTES_MAX {
            break;
        }
        if store::remove_oldest(tx, tenant, 1)? == 0 {
            break;
        }
    }
    Ok(())
}

/// What a command printed or collected, as the device signed for it.
pub fn get(tx: &mut Tx, tenant: TenantId, id: CommandId) -> Result<Output, Problem> {
    let command = commands::get(tx, tenant, id)?;
    let none =
        || NOT_FOUND.detail("The command has no output: it has not ended, it has none, or its time is over.");
    let receipt = commands::receipt(tx, tenant, id)?.ok_or_else(none)?;
    if let Some(named) = receipt.output_sha256 {
        let (digest, bytes) = store::by_command(tx, tenant, id)?.ok_or_else(none)?;
        if digest != named.to_string() || sha256(&bytes) != named {
            return Err(CONFLICT.detail("What is stored is not the output that the device signed for."));
        }
        let kind = command.kind;
        return Ok(Output::Gzip { bytes, kind });
    }
    receipt.output.map(Output::Text).ok_or_else(none)
}

/// Removes what is older than its time. A reconciler's step.
pub async fn forget_expired(app: &App) -> Result<(), Problem> {
    let before = app.clock.now().minus(RETENTION);
    audit::housekeeping(app, Scope::System, move |tx| {
        store::remove_before(tx, before, REMOVED_PER_STEP)?;
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_has_its_time() {
        let at = Timestamp::from_unix_seconds;
        let command = |state, delivered: Option<i64>, completed: Option<i64>| Command {
            id: CommandId::from_uuid(uuid::Uuid::nil()),
            operation: None,
            device: DeviceId::from_uuid(uuid::Uuid::nil()),
            epoch: 1,
            sequence: 1,
            kind: "collect-logs".to_owned(),
            arguments: String::new(),
            state,
            envelope: String::new(),
            entry: muster_model::EntryId::from_uuid(uuid::Uuid::nil()),
            created_by: String::new(),
            created_at: at(0),
            expires_at: at(1),
            delivered_at: delivered.map(at),
            completed_at: completed.map(at),
            attempts: 1,
            receipt: None,
            position: None,
            retry_at: None,
            released_at: None,
            because: None,
            trace: None,
        };
        let may = |state, delivered, completed| {
            require_open(&command(state, delivered, completed), at(10_000)).is_ok()
        };
        assert!(may(CommandState::Delivered, Some(1), None));
        assert!(may(CommandState::Done, Some(1), Some(9_000)));
        assert!(!may(CommandState::Done, Some(1), Some(1)));
        assert!(!may(CommandState::Queued, None, None));
        assert!(!may(CommandState::Cancelled, Some(1), Some(9_999)));
        assert!(!may(CommandState::Failed, Some(1), Some(9_999)));
    }
}
