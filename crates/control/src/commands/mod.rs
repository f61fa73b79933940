//! One-shot actions: queued per device, delivered at least once, executed once, ended by a receipt the device signed.

mod api;
mod receipts;
mod store;

use std::time::Duration;

use muster_model::{
    CommandId, CommandKind, CommandState, DeviceId, EntryId, TenantId, Timestamp,
    command::{self, CommandEvent},
};
use muster_storage::{Scope, Statement, Tx};
use muster_trust::{
    dsse::Envelope,
    entry::LogEntry,
    key::sha256,
    statement::{self, CommandStatement},
};
use uuid::Uuid;

use crate::{
    App,
    access::{
        Author,
        problem::{ILLEGAL_STATE, NOT_FOUND, Problem, RATE_LIMITED},
    },
    audit::{self, LoggedTx},
    clock,
    devices::Device,
};
pub use api::{CommandView, router};
pub use receipts::{accept_receipt, receipt};

/// Every statement of this slice, for the test that prepares them all on both engines.
pub const STATEMENTS: &[Statement] = store::ALL;
/// Commands of one device that wait or run; more are refused.
pub const OPEN_PER_DEVICE_MAX: i64 = 256;
/// Commands that one check-in delivers.
pub const DUE_PER_CHECKIN_MAX: i64 = 32;
/// Waiting commands that the doctor looks at.
const CHECKED_MAX: i64 = 100_000;
/// Commands that one step of the reconciler ends.
const EXPIRED_PER_STEP: i64 = 500;

/// A command as stored. `arguments` and `receipt` are JSON, `envelope` is the signed statement (DSSE).
#[derive(Debug, Clone)]
pub struct Command {
    pub id: CommandId,
    pub operation: Option<Uuid>,
    pub device: DeviceId,
    pub epoch: u32,
    pub sequence: u64,
    pub kind: String,
    pub arguments: String,
    pub state: CommandState,
    pub envelope: String,
    pub entry: EntryId,
    pub created_by: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub delivered_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    pub attempts: u32,
    pub receipt: Option<String>,
}

/// Queues a command for a device: signed, logged, with the next number of the device's lane.
pub fn create(
    tx: &mut LoggedTx<'_>,
    device: &Device,
    kind: &CommandKind,
    ttl: Duration,
    operation: Option<Uuid>,
) -> Result<Command, Problem> {
    crate::devices::require_active(device)?;
    let (tenant, at) = (tx.tenant(), tx.at());
    if let CommandKind::RunScript { sha256, .. } = kind {
        crate::scripts::require(tx, tenant, sha256)?;
    }
    if store::open(tx, tenant, device.id)? >= OPEN_PER_DEVICE_MAX {
        return Err(RATE_LIMITED
            .detail("256 commands wait for this device. Cancel some, or wait until it has answered.")
            .retry_after(60));
    }
    let id = CommandId::generate(at, clock::random());
    let statement = CommandStatement {
        tenant,
        command_id: id,
        device_id: device.id,
        epoch: device.epoch,
        sequence: store::next_sequence(tx, tenant, device.id, device.epoch)?,
        kind: kind.clone(),
        issued_at: at,
        expires_at: at.plus(ttl),
        batch: None,
    };
    let envelope = statement::sign(&statement, &[&tx.keys().action]).map_err(Problem::internal)?;
    let arguments = serde_json::to_string(kind).map_err(Problem::internal)?;
    let entry = tx.record(
        "command.created",
        ("device", device.id.to_string()),
        serde_json::json!({
            "command_id": id,
            "type": kind.type_name(),
            "epoch": device.epoch,
            "sequence": statement.sequence,
            "statement_sha256": sha256(&envelope.payload).to_string(),
            "expires_at": statement.expires_at,
            "operation_id": operation,
        }),
    )?;
    let command = Command {
        id,
        operation,
        device: device.id,
        epoch: device.epoch,
        sequence: statement.sequence,
        kind: kind.type_name().to_owned(),
        arguments,
        state: CommandState::Queued,
        envelope: serde_json::to_string(&envelope).map_err(Problem::internal)?,
        entry,
        created_by: tx.actor(),
        created_at: at,
        expires_at: statement.expires_at,
        delivered_at: None,
        completed_at: None,
        attempts: 0,
        receipt: None,
    };
    store::insert(tx, tenant, &command)?;
    Ok(command)
}

/// Whether a command of this kind waits for a device as part of an operation.
pub fn waits(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    operation: Uuid,
    kind: &CommandKind,
) -> Result<bool, Problem> {
    Ok(store::waits(tx, tenant, device, operation, kind.type_name())? > 0)
}

/// The command with this id.
pub fn get(tx: &mut Tx, tenant: TenantId, id: CommandId) -> Result<Command, Problem> {
    store::by_id(tx, tenant, id)?.ok_or_else(|| NOT_FOUND.detail("There is no such command."))
}

/// Commands from the newest on, before `before`; of one device where it is named.
pub fn list(
    tx: &mut Tx,
    tenant: TenantId,
    device: Option<DeviceId>,
    before: Option<CommandId>,
    limit: usize,
) -> Result<Vec<Command>, Problem> {
    let before = before.unwrap_or(CommandId::from_uuid(Uuid::max()));
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    Ok(match device {
        Some(device) => store::list_of_device(tx, tenant, device, before, limit)?,
        None => store::list(tx, tenant, before, limit)?,
    })
}

/// How many commands made since `since` are in each state.
pub fn by_state(tx: &mut Tx, tenant: TenantId, since: Timestamp) -> Result<Vec<(String, i64)>, Problem> {
    Ok(store::by_state(tx, tenant, since)?)
}

/// The commands that wait for a device in this epoch, oldest first.
pub fn due(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    epoch: u32,
    now: Timestamp,
) -> Result<Vec<Command>, Problem> {
    Ok(store::due(tx, tenant, device, epoch, now, DUE_PER_CHECKIN_MAX)?)
}

/// Marks commands as handed out. Those that ended meanwhile are left out of the answer.
pub async fn mark_delivered(app: &App, tenant: TenantId, due: Vec<Command>) -> Result<Vec<Command>, Problem> {
    let now = app.clock.now();
    audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        let mut handed = Vec::with_capacity(due.len());
        for command in &due {
            if store::delivered(tx, tenant, command.id, now)? == 1 {
                handed.push(command.clone());
            }
        }
        Ok(handed)
    })
    .await
}

/// Takes a command back. What a device has already received may still be carried out; its receipt will say so.
pub fn cancel(tx: &mut LoggedTx<'_>, id: CommandId) -> Result<Command, Problem> {
    let tenant = tx.tenant();
    let command = get(tx, tenant, id)?;
    let state = command::next(command.state, CommandEvent::Cancel)
        .map_err(|refused| ILLEGAL_STATE.detail(format!("The command cannot be cancelled: {refused}.")))?;
    if !end(tx, &command, state, "command.cancelled")? {
        return Err(ILLEGAL_STATE.detail("The command cannot be cancelled: it ended just now."));
    }
    Ok(Command {
        state,
        completed_at: Some(tx.at()),
        ..command
    })
}

/// Ends the commands of every tenant whose time is over. A reconciler's step; answers how many it ended. A tenant whose
/// commands cannot be ended holds up no other; the first such problem is the answer.
pub async fn expire_overdue(app: &App) -> Result<usize, Problem> {
    let now = app.clock.now();
    let overdue = app
        .db
        .read(Scope::System, move |tx| {
            Ok::<_, Problem>(store::overdue(tx, now, EXPIRED_PER_STEP)?)
        })
        .await?;
    let (count, mut failed) = (overdue.len(), None);
    for (tenant, command) in overdue {
        let ended = end_logged(app, tenant, command, CommandEvent::Expire, "command.expired").await;
        failed = failed.or(ended.err());
    }
    failed.map_or(Ok(count), Err)
}

/// Ends what still waits for a device's earlier epochs, so that nothing of the old queue reaches the new enrollment.
pub async fn supersede_before(
    app: &App,
    tenant: TenantId,
    device: DeviceId,
    epoch: u32,
) -> Result<usize, Problem> {
    let open = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            Ok::<_, Problem>(store::open_of_device(tx, tenant, device, OPEN_PER_DEVICE_MAX)?)
        })
        .await?;
    let mut ended = 0;
    for command in open.into_iter().filter(|command| command.epoch < epoch) {
        end_logged(
            app,
            tenant,
            command,
            CommandEvent::Supersede,
            "command.superseded",
        )
        .await?;
        ended += 1;
    }
    Ok(ended)
}

/// What to deliver for a command: its envelope, if it is the one that its log entry records for this very command. A row
/// that was inserted or edited by SQL has none.
pub fn as_logged(command: &Command, entry: &LogEntry) -> Option<Envelope> {
    let envelope: Envelope = serde_json::from_str(&command.envelope).ok()?;
    let is_its_entry = entry.detail_text("command_id") == Some(command.id.to_string().as_str());
    let recorded = entry.detail_digest(muster_trust::entry::detail::STATEMENT_SHA256);
    (is_its_entry && recorded == Some(sha256(&envelope.payload))).then_some(envelope)
}

/// What breaks "a command that waits is one that was logged", for the doctor: rows that were inserted or edited by SQL.
pub fn broken(tx: &mut Tx, tenant: TenantId) -> Result<Vec<String>, Problem> {
    let mut broken = Vec::new();
    for command in store::all_open(tx, tenant, CHECKED_MAX)? {
        let entry = audit::entry(tx, tenant, command.entry)?;
        if entry.and_then(|entry| as_logged(&command, &entry)).is_none() {
            broken.push(format!("{} waits and was not logged", command.id));
        }
    }
    Ok(broken)
}

async fn end_logged(
    app: &App,
    tenant: TenantId,
    command: Command,
    event: CommandEvent,
    action: &'static str,
) -> Result<(), Problem> {
    let Ok(state) = command::next(command.state, event) else {
        return Ok(());
    };
    audit::commit(app, &Author::system(tenant), move |tx| {
        end(tx, &command, state, action).map(drop)
    })
    .await
}

/// Ends a command and records it; `false`, and nothing is recorded, when it had ended.
fn end(
    tx: &mut LoggedTx<'_>,
    command: &Command,
    state: CommandState,
    action: &'static str,
) -> Result<bool, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    if store::end(tx, tenant, command.id, state, at)? == 0 {
        return Ok(false);
    }
    tx.record(
        action,
        ("device", command.device.to_string()),
        serde_json::json!({"command_id": command.id, "type": command.kind}),
    )?;
    Ok(true)
}
