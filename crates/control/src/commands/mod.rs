//! One-shot actions: queued per device, delivered at least once, executed once, ended by a receipt the device signed.

mod api;
mod metrics;
mod operation;
mod receipts;
mod rules;
mod store;
mod traces;

use std::{sync::Arc, time::Duration};

use muster_model::{
    CommandId, CommandKind, CommandState, DeviceId, EntryId, TenantId, Timestamp, TraceContext,
    command::{self, CommandEvent},
};
use muster_storage::{Scope, Statement, Tx};
use muster_trust::{
    approval::Approved,
    dsse::Envelope,
    entry::LogEntry,
    key::{Digest, sha256},
    statement::{self, CommandStatement},
};
use uuid::Uuid;

#[cfg(debug_assertions)]
use crate::fault::{self, When};
use crate::{
    App,
    access::{
        Author,
        problem::{ILLEGAL_STATE, INVALID, NOT_FOUND, Problem, RATE_LIMITED},
        visits,
    },
    audit::{self, LoggedTx},
    clock,
    devices::Device,
    secrets::TenantKeys,
};
pub use api::{BulkTarget, CommandView, Wanted, alarmed, ask_device, ask_devices, require_scopes, router};
pub use metrics::CommandMetrics;
pub use operation::{
    Asked, Evidence, Halt, Lists, OPERATION_STATEMENTS, Operation, OperationState, OperationView,
    Order as OperationOrder, Progress, TARGETS_MAX, Target, approve, approved_lately, ask as ask_operation,
    cancel as cancel_operation, expire_overdue as expire_operations, get as operation, halt, halt_of,
    if_edited, let_go, lift_halt, list as operations, needs_people, note_retirement, progress, reject,
    release_due, statement_of, targets_of, waiting_for, waiting_of_device,
};
pub use receipts::{accept_receipt, receipt};
pub use traces::{DEVICE_SPANS_MAX, deliver, take_spans};

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
/// How soon a device asks again whose commands are halted; when the halt is lifted it is called before.
const HALTED_AGAIN: Duration = Duration::from_secs(60);
/// How long a command and its receipt are kept after it ended: 90 days.
const KEPT: Duration = Duration::from_secs(90 * 86_400);
/// Ended commands that one step of the reconciler removes.
const FORGOTTEN_PER_STEP: i64 = 5000;
/// How long the pace of accounts is kept, in hours: 31 days.
const PACE_HOURS_KEPT: i64 = 31 * 24;

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
    /// The place in the list of its operation, from 0.
    pub position: Option<u64>,
    /// When it is delivered again to a device that has taken it.
    pub retry_at: Option<Timestamp>,
    /// When approvals released it; only of what needed them.
    pub released_at: Option<Timestamp>,
    /// Why it ended without a receipt.
    pub because: Option<String>,
    /// The span that it was queued in; what follows is told of under it.
    pub trace: Option<TraceContext>,
}

/// What an operation hands over to make one of its commands.
pub(crate) struct Release<'a> {
    /// The id of the command, where it is known before.
    pub id: Option<CommandId>,
    pub operation: Uuid,
    pub position: u64,
    /// Who asked.
    pub created_by: &'a str,
    /// Who approved it: proof that enough people did.
    pub approved: Option<&'a Approved>,
}

/// Queues a command for a device: signed, logged, with the next number of the device's lane. What needs approvals is refused
/// here: it is asked as an operation.
pub fn create(
    tx: &mut LoggedTx<'_>,
    device: &Device,
    kind: &CommandKind,
    ttl: Duration,
    operation: Option<Uuid>,
) -> Result<Command, Problem> {
    let by = tx.actor();
    let release = operation.map(|operation| Release {
        id: None,
        operation,
        position: 0,
        created_by: &by,
        approved: None,
    });
    queue(tx, device, kind, ttl, release.as_ref())
}

/// The one place that makes a command. What needs approvals is made only with proof of them in hand.
pub(crate) fn queue(
    tx: &mut LoggedTx<'_>,
    device: &Device,
    kind: &CommandKind,
    ttl: Duration,
    release: Option<&Release<'_>>,
) -> Result<Command, Problem> {
    visits::refuse_command(tx.author(), kind)?;
    crate::devices::require_active(device)?;
    kind.check_for(device.ownership)
        .map_err(|why| INVALID.detail(format!("{}: {why}.", device.name)))?;
    let (tenant, at) = (tx.tenant(), tx.at());
    if let CommandKind::RunScript { sha256, .. } = kind {
        crate::scripts::require(tx, tenant, sha256)?;
    }
    let approved = release.and_then(|release| release.approved);
    let is_approved = approved.is_some_and(|approved| {
        approved.statement.kind == *kind
            && release.is_some_and(|release| release.operation == approved.statement.operation)
    });
    if tx.keys().root.needs_approval(kind) && !is_approved {
        return Err(ILLEGAL_STATE.detail("This needs approvals. Ask for it as an operation."));
    }
    let open = store::open_of_device(tx, tenant, device.id, OPEN_PER_DEVICE_MAX)?;
    if i64::try_from(open.len()).is_ok_and(|open| open >= OPEN_PER_DEVICE_MAX) {
        return Err(RATE_LIMITED
            .detail("256 commands wait for this device. Cancel some, or wait until it has answered.")
            .retry_after(60));
    }
    supersede_by(tx, open, device, kind)?;
    let id = release
        .and_then(|release| release.id)
        .unwrap_or_else(|| CommandId::generate(at, clock::random()));
    let expires_at = match approved {
        Some(approved) => at.plus(ttl).min(approved.statement.expires_at),
        None => at.plus(ttl),
    };
    let issue = Issue {
        id,
        device: device.id,
        epoch: device.epoch,
        kind,
        expires_at,
        operation: release.map(|release| release.operation),
        batch: approved.map(|approved| approved.sha256),
    };
    let issued = issue.sign(tx)?;
    let arguments = serde_json::to_string(kind).map_err(Problem::internal)?;
    let position = release.map(|release| release.position);
    let command = Command {
        id,
        operation: release.map(|release| release.operation),
        device: device.id,
        epoch: device.epoch,
        sequence: issued.sequence,
        kind: kind.type_name().to_owned(),
        arguments,
        state: CommandState::Queued,
        envelope: issued.envelope,
        entry: issued.entry,
        created_by: release.map_or_else(|| tx.actor(), |release| release.created_by.to_owned()),
        created_at: at,
        expires_at,
        delivered_at: None,
        completed_at: None,
        attempts: 0,
        receipt: None,
        position,
        retry_at: None,
        released_at: approved.map(|_| at),
        because: None,
        trace: traces::queued(tx, kind, (id, device.id), issued.entry, position),
    };
    store::insert(tx, tenant, &command)?;
    Ok(command)
}

/// What the action signer says to a device.
struct Issue<'a> {
    id: CommandId,
    device: DeviceId,
    epoch: u32,
    kind: &'a CommandKind,
    expires_at: Timestamp,
    operation: Option<Uuid>,
    /// Of what was approved.
    batch: Option<Digest>,
}

/// A signed and logged statement.
struct Issued {
    sequence: u64,
    envelope: String,
    entry: EntryId,
}

impl Issue<'_> {
    /// Signs and logs it under the next number of the device's lane.
    fn sign(&self, tx: &mut LoggedTx<'_>) -> Result<Issued, Problem> {
        let (tenant, at) = (tx.tenant(), tx.at());
        let statement = CommandStatement {
            tenant,
            command_id: self.id,
            device_id: self.device,
            epoch: self.epoch,
            sequence: store::next_sequence(tx, tenant, self.device, self.epoch)?,
            kind: self.kind.clone(),
            issued_at: at,
            expires_at: self.expires_at,
            batch: self.batch,
        };
        let envelope = statement::sign(&statement, &[&tx.keys().action]).map_err(Problem::internal)?;
        let entry = tx.record(
            "command.created",
            ("device", self.device.to_string()),
            serde_json::json!({
                "command_id": self.id,
                "type": self.kind.type_name(),
                "epoch": self.epoch,
                "sequence": statement.sequence,
                "statement_sha256": sha256(&envelope.payload).to_string(),
                "expires_at": self.expires_at,
                "operation_id": self.operation,
                "batch_sha256": self.batch.map(|batch| batch.to_string()),
            }),
        )?;
        Ok(Issued {
            sequence: statement.sequence,
            envelope: serde_json::to_string(&envelope).map_err(Problem::internal)?,
            entry,
        })
    }
}

/// The highest number of a lane that a device can say it took.
const SEQUENCE_MAX: u64 = u64::MAX >> 2;

/// Gives commands new numbers that were withheld while the device took later ones: a device takes no number below the last.
/// Nothing else about them changes; what people approved must still be approved. What a command is, its first statement says,
/// which the log records: a row that was inserted or edited by SQL is left alone, and holds up no other.
pub async fn issue_again(
    app: &App,
    tenant: TenantId,
    last_taken: u64,
    overtaken: Vec<Command>,
) -> Result<(), Problem> {
    if last_taken >= SEQUENCE_MAX {
        return Err(INVALID.detail("last_sequence is a number that no lane reaches."));
    }
    let edited = audit::commit(app, &Author::system(tenant), move |tx| {
        let mut edited = Vec::new();
        for command in &overtaken {
            let (statement, batch) = match first_statement(tx, command)? {
                First::Was(statement, batch) => (statement, batch),
                First::NotApproved => continue,
                First::NotLogged => {
                    edited.push(command.id);
                    continue;
                }
            };
            // The database was restored from a backup, where the lane is behind the device.
            store::raise_lane(tx, tenant, command.device, command.epoch, last_taken)?;
            tx.excuse(1);
            let issue = Issue {
                id: command.id,
                device: command.device,
                epoch: statement.epoch,
                kind: &statement.kind,
                expires_at: statement.expires_at,
                operation: command.operation,
                batch,
            };
            let issued = issue.sign(tx)?;
            store::issued_again(
                tx,
                tenant,
                command.id,
                issued.sequence,
                &issued.envelope,
                issued.entry,
            )?;
        }
        Ok(edited)
    })
    .await?;
    for command in edited {
        let object = ("command", command.to_string());
        audit::row_edited(app, tenant, object, "the log records no such command").await?;
    }
    Ok(())
}

/// What the log says of a command that is to be issued again.
enum First {
    /// Its statement, and the batch that people approved where it needs one.
    Was(Box<CommandStatement>, Option<Digest>),
    /// Its approvals do not suffice any more.
    NotApproved,
    /// The log does not record this very command.
    NotLogged,
}

/// What a command was when it was made.
fn first_statement(tx: &mut LoggedTx<'_>, command: &Command) -> Result<First, Problem> {
    let (keys, device) = (Arc::clone(tx.keys()), command.device);
    let entry = audit::sealed_entry(tx, &keys, command.entry)?;
    let made = entry.filter(|entry| entry.action == muster_trust::entry::action::COMMAND_CREATED);
    let Some(envelope) = made.and_then(|entry| as_logged(command, &entry)) else {
        return Ok(First::NotLogged);
    };
    let statement: Option<CommandStatement> = serde_json::from_slice(&envelope.payload).ok();
    let is_its_own = |statement: &CommandStatement| {
        statement.command_id == command.id
            && statement.device_id == device
            && statement.epoch == command.epoch
    };
    let Some(statement) = statement.filter(is_its_own) else {
        return Ok(First::NotLogged);
    };
    let needs_people = keys.root.needs_approval(&statement.kind) || statement.batch.is_some();
    let batch = match operation::approved_batch(tx, command) {
        _ if !needs_people => None,
        Ok(batch) if Some(batch) == statement.batch => Some(batch),
        Ok(_) | Err(_) => return Ok(First::NotApproved),
    };
    Ok(First::Was(Box::new(statement), batch))
}

/// Ends what waits for the device and has no point any more, because this is the later word on the same thing. What was
/// handed out may be under way, and is left.
fn supersede_by(
    tx: &mut LoggedTx<'_>,
    open: Vec<Command>,
    device: &Device,
    kind: &CommandKind,
) -> Result<(), Problem> {
    for earlier in open {
        let waits = earlier.state == CommandState::Queued && earlier.epoch == device.epoch;
        let is_pointless =
            CommandKind::parse(earlier.arguments.as_bytes()).is_ok_and(|earlier| kind.supersedes(&earlier));
        if waits && is_pointless {
            let because = format!("a later {} says otherwise", kind.type_name());
            end(
                tx,
                &earlier,
                CommandState::Superseded,
                "command.superseded",
                &because,
            )?;
        }
    }
    Ok(())
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

/// The command with this id: made, or what stands for it while its operation waits.
pub fn get(tx: &mut Tx, tenant: TenantId, id: CommandId) -> Result<Command, Problem> {
    if let Some(command) = store::by_id(tx, tenant, id)? {
        return Ok(command);
    }
    let operation = operation::get(tx, tenant, id.uuid()).ok();
    operation
        .and_then(Command::standing_for)
        .ok_or_else(|| NOT_FOUND.detail("There is no such command."))
}

impl Command {
    /// The command of an operation on one device before it is made; none of an operation on a list.
    pub fn standing_for(operation: Operation) -> Option<Command> {
        Some(Command {
            id: CommandId::from_uuid(operation.id),
            operation: Some(operation.id),
            device: operation.device?,
            epoch: 0,
            sequence: 0,
            kind: operation.kind.type_name().to_owned(),
            arguments: serde_json::to_string(&operation.kind).ok()?,
            state: operation.state.of_command(),
            envelope: String::new(),
            entry: EntryId::from_uuid(Uuid::nil()),
            created_by: operation.created_by,
            created_at: operation.created_at,
            expires_at: operation.expires_at,
            delivered_at: None,
            completed_at: operation.ended_at,
            attempts: 0,
            receipt: None,
            position: Some(0),
            retry_at: None,
            released_at: None,
            because: operation.because,
            trace: None,
        })
    }
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

/// What waits for a device in this epoch.
#[derive(Debug, Default)]
pub struct Due {
    /// To be delivered now, in the order of the lane.
    pub now: Vec<Command>,
    /// When the next of the others is delivered again, if there are others.
    pub next_at: Option<Timestamp>,
    /// Withheld until now, while the device took later ones.
    pub overtaken: Vec<Command>,
}

impl Due {
    /// Whether nothing waits at all.
    pub fn is_empty(&self) -> bool {
        self.now.is_empty() && self.next_at.is_none() && self.overtaken.is_empty()
    }
}

/// The commands of a device that says which number it took last: what it never took comes in order, what it took and has not
/// answered comes again in its time. A halted tenant's devices get what is harmless.
pub fn due(
    tx: &mut Tx,
    tenant: TenantId,
    (device, epoch): (DeviceId, u32),
    last_taken: u64,
    now: Timestamp,
) -> Result<Due, Problem> {
    let mut due = Due::default();
    let waiting = store::due(tx, tenant, device, epoch, now, OPEN_PER_DEVICE_MAX)?;
    if waiting.is_empty() {
        return Ok(due);
    }
    let is_halted = operation::halt_of(tx, tenant)?.is_some();
    for command in waiting {
        let later = command.retry_at.unwrap_or(now);
        if is_halted && !is_harmless(&command) {
            let again = now.plus(HALTED_AGAIN);
            due.next_at = Some(due.next_at.map_or(again, |at| at.min(again)));
        } else if command.attempts == 0 && command.sequence <= last_taken {
            due.overtaken.push(command);
        } else if !rules::is_due(command.sequence, last_taken, command.retry_at, now) {
            due.next_at = Some(due.next_at.map_or(later, |at| at.min(later)));
        } else if i64::try_from(due.now.len()).is_ok_and(|count| count < DUE_PER_CHECKIN_MAX) {
            due.now.push(command);
        }
    }
    Ok(due)
}

fn is_harmless(command: &Command) -> bool {
    CommandKind::parse(command.arguments.as_bytes()).is_ok_and(|kind| kind.is_harmless())
}

/// Marks commands as handed out, until they are to be delivered again. Those that ended, were halted, or were handed out by
/// another node meanwhile are left out of the answer.
pub async fn mark_delivered(app: &App, tenant: TenantId, due: Vec<Command>) -> Result<Vec<Command>, Problem> {
    let (now, away) = (app.clock.now(), away_after(app));
    #[cfg(debug_assertions)]
    let settings = app.settings.clone();
    let (handed, waits) = audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        let (mut handed, mut waits) = (Vec::with_capacity(due.len()), Vec::new());
        let is_halted = operation::halt_of(tx, tenant)?.is_some();
        for command in &due {
            if is_halted && !is_harmless(command) {
                continue;
            }
            let retry_at = now.plus(rules::retry_after(command.attempts, unit_random()));
            let delivered = store::delivered(tx, tenant, command.id, now, retry_at, command.attempts, away)?;
            if let Some(waited_ms) = delivered {
                handed.push(command.clone());
                let waited_ms = waited_ms.filter(|_| command.delivered_at.is_none());
                waits.extend(waited_ms.map(|waited_ms| (waited_ms, command.trace)));
            }
        }
        #[cfg(debug_assertions)]
        fault::at(settings.fault.as_deref(), When::Before, delivered_step(&handed))?;
        Ok((handed, waits))
    })
    .await?;
    for (waited_ms, trace) in waits {
        app.command_metrics
            .waited(tenant, Duration::from_millis(waited_ms), trace);
    }
    #[cfg(debug_assertions)]
    fault::at(
        app.settings.fault.as_deref(),
        When::After,
        delivered_step(&handed),
    )?;
    Ok(handed)
}

/// Records that what people approved is handed out again to a device that has seen the newest head of the log. The head grows by
/// that: a device that was restarted since obeys such a command only by a head that is newer than what it knows.
pub async fn note_again(app: &App, tenant: TenantId, command: &Command) -> Result<(), Problem> {
    let (id, device, attempts) = (command.id, command.device, command.attempts + 1);
    audit::commit(app, &Author::system(tenant), move |tx| {
        let detail = serde_json::json!({"command_id": id, "attempts": attempts});
        tx.record("command.delivered_again", ("device", device.to_string()), detail)
            .map(drop)
    })
    .await
}

/// How long commands waited for devices that could be reached, in milliseconds: those that were handed out since a time, and those
/// that wait still. At most `limit` of each, the newest ones.
pub fn queue_waits(
    app: &App,
    tx: &mut Tx,
    tenant: TenantId,
    since: Timestamp,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<u64>, Problem> {
    Ok(store::queue_waits(
        tx,
        tenant,
        since,
        now,
        away_after(app),
        limit,
    )?)
}

/// A device that was not heard of for this long is away: two check-ins, and the time that it takes to store that it was seen.
fn away_after(app: &App) -> Duration {
    Duration::from_secs(app.settings.checkin_interval_seconds * 2 + 30)
}

#[cfg(debug_assertions)]
fn delivered_step(handed: &[Command]) -> Option<&'static str> {
    (!handed.is_empty()).then_some("command.delivered")
}

/// A number from 0 to 1.
fn unit_random() -> f64 {
    f64::from(u32::from_be_bytes(clock::random())) / f64::from(u32::MAX)
}

/// Takes a command back. What a device has already received may still be carried out; its receipt will say so.
pub fn cancel(tx: &mut LoggedTx<'_>, id: CommandId) -> Result<Command, Problem> {
    let tenant = tx.tenant();
    let command = get(tx, tenant, id)?;
    visits::require_own(tx.author(), &command.created_by)?;
    let state = command::next(command.state, CommandEvent::Cancel)
        .map_err(|refused| ILLEGAL_STATE.detail(format!("The command cannot be cancelled: {refused}.")))?;
    // It was not made yet: its operation is taken back.
    if store::by_id(tx, tenant, id)?.is_none() {
        operation::cancel(tx, id.uuid(), "cancelled")?;
        return get(tx, tenant, id);
    }
    let because = format!("cancelled by {}", tx.actor());
    if !end(tx, &command, state, "command.cancelled", &because)? {
        return Err(ILLEGAL_STATE.detail("The command cannot be cancelled: it ended just now."));
    }
    Ok(Command {
        state,
        completed_at: Some(tx.at()),
        because: Some(because),
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
        let because = "its time is over";
        let ended = end_logged(
            app,
            tenant,
            command,
            CommandEvent::Expire,
            "command.expired",
            because,
        )
        .await;
        failed = failed.or(ended.err());
    }
    failed.map_or(Ok(count), Err)
}

/// Gives up commands that devices took and never answer, however often they are delivered. A reconciler's step.
pub async fn give_up(app: &App) -> Result<usize, Problem> {
    let now = app.clock.now();
    let dead = app
        .db
        .read(Scope::System, move |tx| {
            Ok::<_, Problem>(store::tried_out(tx, rules::ATTEMPTS_MAX, now, EXPIRED_PER_STEP)?)
        })
        .await?;
    let (count, mut failed) = (dead.len(), None);
    for (tenant, command) in dead {
        let because = "the device took it and does not answer";
        let ended = end_logged(
            app,
            tenant,
            command,
            CommandEvent::GiveUp,
            "command.given_up",
            because,
        )
        .await;
        failed = failed.or(ended.err());
    }
    failed.map_or(Ok(count), Err)
}

/// Removes what ended long ago. A reconciler's step.
pub async fn forget_ended(app: &App) -> Result<(), Problem> {
    let now = app.clock.now();
    audit::housekeeping(app, Scope::System, move |tx| {
        store::forget(tx, now.minus(KEPT), FORGOTTEN_PER_STEP)?;
        operation::forget(tx, now.minus(KEPT), rules::hour_of(now) - PACE_HOURS_KEPT)
    })
    .await
}

/// Ends what still waits for a device's earlier epochs, so that nothing of the old queue reaches the new enrollment.
pub async fn supersede_before(
    app: &App,
    tenant: TenantId,
    device: DeviceId,
    epoch: u32,
) -> Result<usize, Problem> {
    operation::leave_out(app, tenant, device, epoch).await?;
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
            "the device enrolled anew, or is gone",
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

/// What breaks "a command that waits is one that was logged, and what was released was approved", for the doctor: rows that
/// were inserted or edited by SQL.
pub fn broken(tx: &mut Tx, keys: &TenantKeys) -> Result<Vec<String>, Problem> {
    let tenant = keys.tenant;
    let mut broken = operation::broken(tx, keys)?;
    for command in store::all_open(tx, tenant, CHECKED_MAX)? {
        let entry = audit::entry(tx, tenant, command.entry)?;
        if entry.and_then(|entry| as_logged(&command, &entry)).is_none() {
            broken.push(format!("{} waits and was not logged", command.id));
        }
        let kind = CommandKind::parse(command.arguments.as_bytes());
        if kind.is_ok_and(|kind| keys.root.needs_approval(&kind)) && command.released_at.is_none() {
            broken.push(format!("{} waits and nobody approved it", command.id));
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
    because: &'static str,
) -> Result<(), Problem> {
    let Ok(state) = command::next(command.state, event) else {
        return Ok(());
    };
    audit::commit(app, &Author::system(tenant), move |tx| {
        end(tx, &command, state, action, because).map(drop)
    })
    .await
}

/// Ends a command and records it; `false`, and nothing is recorded, when it had ended.
fn end(
    tx: &mut LoggedTx<'_>,
    command: &Command,
    state: CommandState,
    action: &'static str,
    because: &str,
) -> Result<bool, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    if store::end(tx, tenant, command.id, state, at, because)? == 0 {
        return Ok(false);
    }
    tx.record(
        action,
        ("device", command.device.to_string()),
        serde_json::json!({"command_id": command.id, "type": command.kind, "state": state, "because": because}),
    )?;
    Ok(true)
}
