//! Asking: the list is frozen, and it is decided what stands between it and the devices.

use std::time::Duration;

use muster_model::{CommandKind, DeviceId, Timestamp, text::Description};
use muster_trust::{
    approval::{ApprovedBatch, BatchStatement, TargetList, account_of},
    key::sha256,
    statement::payload,
};
use uuid::Uuid;

use super::{
    super::rules::{self, Pace},
    Batch, OPEN_OPERATIONS_MAX, Operation, OperationState, TARGETS_MAX, store,
};
use crate::{
    access::{
        self,
        problem::{ACCOUNT_TOO_NEW, INVALID, Problem, RATE_LIMITED},
    },
    audit::LoggedTx,
    clock, devices,
};

/// How far back an account's pace is looked at: 30 days.
const PACE_HOURS: i64 = 30 * 24;
const HOUR: Duration = Duration::from_secs(3600);

/// What is asked.
#[derive(Debug, Clone)]
pub struct Order {
    pub kind: CommandKind,
    /// How long each command may wait, from when it may begin.
    pub ttl: Duration,
    pub reason: Option<Description>,
    /// The devices and their epochs, in the order in which they are to begin.
    pub targets: Vec<(DeviceId, u32)>,
    /// Whether it is one device that was named, not a list.
    pub is_single: bool,
}

/// Whether people must approve a command for so many devices, after what the account asked within the hour.
pub fn needs_people(tx: &mut LoggedTx<'_>, kind: &CommandKind, count: u64) -> Result<bool, Problem> {
    if tx.keys().root.needs_approval(kind) || !kind.is_destructive_at_scale() {
        return Ok(tx.keys().root.needs_approval(kind));
    }
    let before = pace(tx)?.lately(rules::hour_of(tx.at()));
    let tenant = tx.tenant();
    let fleet = devices::active_count(tx, tenant)?;
    Ok(rules::is_at_scale(&tx.keys().root, before + count, fleet))
}

/// Whether so many devices more, on top of what the account asked within the hour, are more than one account should reach
/// before somebody else has looked.
pub fn is_mass(tx: &mut LoggedTx<'_>, kind: &CommandKind, count: u64) -> Result<bool, Problem> {
    if kind.is_harmless() {
        return Ok(false);
    }
    let (tenant, actor, hour) = (tx.tenant(), tx.actor(), rules::hour_of(tx.at()));
    let lately = store::pace(tx, tenant, &actor, hour - 1)?.lately(hour) + count;
    if lately <= rules::MASS_DEVICES_MIN {
        return Ok(false);
    }
    Ok(lately > rules::mass_of(devices::active_count(tx, tenant)?))
}

/// Remembers that an account asked something of so many devices.
pub fn note_pace(tx: &mut LoggedTx<'_>, count: u64) -> Result<(), Problem> {
    let (tenant, actor, hour) = (tx.tenant(), tx.actor(), rules::hour_of(tx.at()));
    Ok(store::add_pace(tx, tenant, &actor, hour, count)?)
}

fn pace(tx: &mut LoggedTx<'_>) -> Result<Pace, Problem> {
    let (tenant, actor, hour) = (tx.tenant(), tx.actor(), rules::hour_of(tx.at()));
    Ok(store::pace(tx, tenant, &actor, hour - PACE_HOURS)?)
}

/// Freezes a list and stores the operation. What needs approvals gets its batch statement, and waits; what is unusual is
/// held; anything else runs at once.
pub fn ask(tx: &mut LoggedTx<'_>, order: Order) -> Result<Operation, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let Order {
        kind,
        ttl,
        reason,
        targets,
        is_single,
    } = order;
    if targets.len() > TARGETS_MAX {
        return Err(INVALID.detail("An operation is for at most 1,000,000 devices."));
    }
    if store::open(tx, tenant)? >= OPEN_OPERATIONS_MAX {
        return Err(RATE_LIMITED
            .detail("1,000 operations have not ended. Cancel some, or wait.")
            .retry_after(60));
    }
    let id = muster_model::CommandId::generate(at, clock::random()).uuid();
    let mut operation = Operation {
        id,
        state: OperationState::Running,
        device: targets.first().filter(|_| is_single).map(|(device, _)| *device),
        targets: targets.len() as u64,
        released: 0,
        left_out: 0,
        created_by: tx.actor(),
        created_at: at,
        expires_at: at.plus(ttl),
        ttl,
        reason,
        because: None,
        batch: None,
        next_at: Some(at),
        ended_at: None,
        kind,
    };
    if targets.is_empty() {
        operation.state = OperationState::Completed;
        operation.because = Some("the list is empty".to_owned());
        (operation.next_at, operation.ended_at) = (None, Some(at));
    } else if needs_people(tx, &operation.kind, operation.targets)? {
        refuse_new_account(tx)?;
        await_approval(tx, &mut operation, &targets)?;
    } else {
        hold_unusual(tx, &mut operation)?;
    }
    store::insert(tx, tenant, &operation)?;
    store::insert_targets(tx, tenant, operation.id, &targets)?;
    note_pace(tx, operation.targets)?;
    let detail = serde_json::json!({
        "operation_id": id,
        "type": operation.kind.type_name(),
        "state": operation.state.as_str(),
        "devices": operation.targets,
        "batch_sha256": operation.batch.as_ref().map(|batch| batch.sha256.to_string()),
        "held_because": operation.because,
    });
    tx.record("operation.asked", ("operation", id.to_string()), detail.clone())?;
    if operation.state == OperationState::Held {
        tx.record("security.mass_command", ("operation", id.to_string()), detail)?;
    }
    Ok(operation)
}

fn await_approval(
    tx: &mut LoggedTx<'_>,
    operation: &mut Operation,
    targets: &[(DeviceId, u32)],
) -> Result<(), Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let fleet = devices::active_count(tx, tenant)?;
    let root = &tx.keys().root;
    let budget = root.budgets.destructive_per_hour(fleet).max(1);
    let list = TargetList::new(targets.iter().copied());
    let per_hour = u32::try_from(budget.min(list.count())).unwrap_or(u32::MAX);
    let not_before = at.plus(Duration::from_secs(root.approval.delay_seconds.into()));
    let hours = (list.count() - 1) / u64::from(per_hour);
    let statement = BatchStatement {
        tenant,
        operation: operation.id,
        kind: operation.kind.clone(),
        count: list.count(),
        targets_root: list.root(),
        per_hour,
        fleet,
        requested_by: account_of(&tx.author().actor.id),
        requested_at: at,
        not_before,
        expires_at: not_before
            .plus(HOUR * u32::try_from(hours).unwrap_or(u32::MAX))
            .plus(operation.ttl),
        restore_epoch: root.restore_epoch,
        reason: operation.reason.clone(),
    };
    let payload = payload(&statement).map_err(Problem::internal)?;
    let nobody = root.role(muster_trust::root::Role::Approver).1 == 0;
    operation.batch = Some(Batch {
        sha256: sha256(&payload),
        payload,
        given: Vec::new(),
    });
    operation.state = OperationState::AwaitingApproval;
    operation.expires_at = statement.expires_at;
    operation.next_at = None;
    operation.because = nobody.then(|| {
        "the root document names nobody who approves: name people with `muster root add-approver`".to_owned()
    });
    Ok(())
}

/// An account that was made a short time ago asks nothing destructive: whoever stole an administrator would make one. The
/// account of the first run is as old as the tenant.
pub(super) fn refuse_new_account(tx: &mut LoggedTx<'_>) -> Result<(), Problem> {
    match new_until(tx)? {
        None => Ok(()),
        Some(until) => Err(ACCOUNT_TOO_NEW.detail(format!(
            "What is destructive or unusual is asked for, and released, only by accounts that are older than the approvers' \
             cool-down: this one from {until} on."
        ))),
    }
}

/// Until when the account that acts counts as new.
fn new_until(tx: &mut LoggedTx<'_>) -> Result<Option<Timestamp>, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let actor = tx.author().actor.id.clone();
    let cool_down = Duration::from_secs(tx.keys().root.approval.cool_down_seconds.into());
    let Some(since) = access::account_since(tx, tenant, &actor)? else {
        return Ok(None);
    };
    let until = since.plus(cool_down);
    Ok((at < until).then_some(until))
}

fn hold_unusual(tx: &mut LoggedTx<'_>, operation: &mut Operation) -> Result<(), Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    if operation.kind.is_harmless() {
        return Ok(());
    }
    let fleet = devices::active_count(tx, tenant)?;
    let is_new = new_until(tx)?.is_some();
    let scale = (operation.targets, fleet);
    let why = rules::unusual(&operation.kind, scale, &pace(tx)?, at, is_new);
    if !why.is_empty() {
        operation.state = OperationState::Held;
        operation.because = Some(why.join("; "));
        operation.next_at = None;
    }
    Ok(())
}

/// The batch of an operation with its statement, as it was asked.
pub fn statement_of(batch: &Batch) -> Result<BatchStatement, Problem> {
    ApprovedBatch {
        payload: batch.payload.clone(),
        approvals: Vec::new(),
    }
    .read()
    .map_err(Problem::internal)
}

/// What an operation's id is as a command's.
pub fn command_id(operation: Uuid) -> muster_model::CommandId {
    muster_model::CommandId::from_uuid(operation)
}
