//! Asking: the list is frozen, and it is decided what stands between it and the devices.

use std::time::Duration;

use muster_model::{CommandKind, DeviceId, Timestamp, text::Description};
use muster_trust::{
    approval::{ApprovedBatch, BatchStatement, TargetList, account_of},
    key::sha256,
    root::Role,
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
        problem::{ACCOUNT_TOO_NEW, INVALID, OVER_BUDGET, Problem, RATE_LIMITED},
        visits,
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

/// The line of the pace of what is destructive at scale, whoever asks for it: a second account is no second allowance.
const AT_SCALE: &str = "at-scale";

/// Whether people must approve a command for so many devices, after what the tenant's accounts asked within the hour.
pub fn needs_people(tx: &mut LoggedTx<'_>, kind: &CommandKind, count: u64) -> Result<bool, Problem> {
    if !kind.is_for_devices() || tx.keys().root.needs_approval(kind) {
        return Ok(true);
    }
    if !kind.is_destructive_at_scale() {
        return Ok(false);
    }
    let (tenant, hour) = (tx.tenant(), rules::hour_of(tx.at()));
    // One after the other, so that many at once are not each the first.
    store::take_turn(tx, tenant)?;
    tx.excuse(1);
    let before = store::pace(tx, tenant, AT_SCALE, hour - 1)?.lately(hour);
    let fleet = devices::active_count(tx, tenant)?;
    Ok(rules::is_at_scale(&tx.keys().root, before + count, fleet))
}

/// Whether so many devices more, on top of what the account asked within the hour, are more than one account should reach
/// before somebody else has looked.
pub fn is_mass(tx: &mut LoggedTx<'_>, kind: &CommandKind, count: u64) -> Result<bool, Problem> {
    if kind.is_harmless() {
        return Ok(false);
    }
    let (tenant, account, hour) = (tx.tenant(), tx.account(), rules::hour_of(tx.at()));
    let lately = store::pace(tx, tenant, &account, hour - 1)?.lately(hour) + count;
    if lately <= rules::MASS_DEVICES_MIN {
        return Ok(false);
    }
    Ok(lately > rules::mass_of(devices::active_count(tx, tenant)?))
}

/// Remembers that an account asked something of so many devices.
pub fn note_pace(tx: &mut LoggedTx<'_>, kind: &CommandKind, count: u64) -> Result<(), Problem> {
    let (tenant, account, hour) = (tx.tenant(), tx.account(), rules::hour_of(tx.at()));
    if kind.is_destructive_at_scale() {
        store::add_pace(tx, tenant, AT_SCALE, hour, count)?;
    }
    Ok(store::add_pace(tx, tenant, &account, hour, count)?)
}

/// The line of the pace under which retirements are counted, whoever asks for them.
const RETIREMENTS: &str = "retirements";

/// Counts a device that is retired by an account, without a word to the device. Since the root document names people who
/// approve, no more are within an hour than its budget: to let more go at once is to unenroll them, with approvals.
pub fn note_retirement(tx: &mut LoggedTx<'_>) -> Result<(), Problem> {
    let (tenant, hour) = (tx.tenant(), rules::hour_of(tx.at()));
    if tx.keys().root.role(Role::Approver).1 == 0 {
        return Ok(());
    }
    // One after the other, on every node.
    store::take_turn(tx, tenant)?;
    let lately = store::pace(tx, tenant, RETIREMENTS, hour - 1)?.lately(hour);
    let fleet = devices::active_count(tx, tenant)?;
    let budget = tx.keys().root.budgets.destructive_per_hour(fleet);
    if lately >= budget {
        return Err(OVER_BUDGET
            .detail(format!(
                "{lately} devices were retired within the hour, and the root document's budget is {budget}. Unenroll the \
                 others by a command, which people approve, or go on later."
            ))
            .retry_after(HOUR.as_secs()));
    }
    Ok(store::add_pace(tx, tenant, RETIREMENTS, hour, 1)?)
}

fn pace(tx: &mut LoggedTx<'_>) -> Result<Pace, Problem> {
    let (tenant, account, hour) = (tx.tenant(), tx.account(), rules::hour_of(tx.at()));
    Ok(store::pace(tx, tenant, &account, hour - PACE_HOURS)?)
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
    visits::refuse_command(tx.author(), &kind)?;
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
        asked_through: tx.account(),
        created_at: at,
        expires_at: at.plus(ttl),
        ttl,
        reason,
        because: None,
        batch: None,
        next_at: Some(at),
        ended_at: None,
        trace: tx.trace(),
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
    if operation.kind.is_for_devices() {
        note_pace(tx, &operation.kind, operation.targets)?;
    }
    let detail = serde_json::json!({
        "operation_id": id,
        "type": operation.kind.type_name(),
        "state": operation.state.as_str(),
        "devices": operation.targets,
        "arguments_sha256": arguments_digest(&operation.kind)?,
        "batch_sha256": operation.batch.as_ref().map(|batch| batch.sha256.to_string()),
        "held_because": operation.because,
        "asked_through": operation.asked_through,
    });
    tx.record("operation.asked", ("operation", id.to_string()), detail.clone())?;
    if operation.state == OperationState::Held {
        tx.record("security.mass_command", ("operation", id.to_string()), detail)?;
    }
    Ok(operation)
}

/// What the entry of a request says of its command, so that nobody gives it other arguments afterwards.
pub(super) fn arguments_digest(kind: &CommandKind) -> Result<String, Problem> {
    let arguments = serde_json::to_vec(kind).map_err(Problem::internal)?;
    Ok(sha256(&arguments).to_string())
}

fn await_approval(
    tx: &mut LoggedTx<'_>,
    operation: &mut Operation,
    targets: &[(DeviceId, u32)],
) -> Result<(), Problem> {
    visits::refuse_approvals(tx.author())?;
    let (tenant, at) = (tx.tenant(), tx.at());
    let fleet = devices::active_count(tx, tenant)?;
    let root = &tx.keys().root;
    let budget = root.budgets.destructive_per_hour(fleet).max(1);
    let list = TargetList::new(targets.iter().copied());
    let per_hour = u32::try_from(budget.min(list.count())).unwrap_or(u32::MAX);
    let not_before = at.plus(Duration::from_secs(root.approval.delay_seconds.into()));
    let hours = match operation.kind.is_for_devices() {
        true => (list.count() - 1) / u64::from(per_hour),
        false => 0,
    };
    let statement = BatchStatement {
        tenant,
        operation: operation.id,
        kind: operation.kind.clone(),
        count: list.count(),
        targets_root: list.root(),
        per_hour,
        fleet,
        requested_by: requested_by(tx),
        requested_at: at,
        not_before,
        expires_at: not_before
            .plus(HOUR * u32::try_from(hours).unwrap_or(u32::MAX))
            .plus(operation.ttl),
        restore_epoch: root.restore_epoch,
        reason: operation.reason.clone(),
    };
    let payload = payload(&statement).map_err(Problem::internal)?;
    let nobody = root.role(Role::Approver).1 == 0;
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

/// The account that a statement says asked. The name on a sign-in link is free to choose, so that of whoever came by one it is the
/// account that made the link, where the root document says whose that is: devices refuse that person's approval.
fn requested_by(tx: &LoggedTx<'_>) -> String {
    let author = tx.author();
    let behind = author.voucher.as_ref().map(|voucher| account_of(&voucher.id));
    behind
        .filter(|account| tx.keys().root.names_account(account))
        .unwrap_or_else(|| account_of(&author.actor.id))
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

/// Until when who acts counts as new; of a person who is signed in, the account that vouches for that as well.
fn new_until(tx: &mut LoggedTx<'_>) -> Result<Option<Timestamp>, Problem> {
    let (tenant, at, author) = (tx.tenant(), tx.at(), tx.author().clone());
    let cool_down = Duration::from_secs(tx.keys().root.approval.cool_down_seconds.into());
    let mut latest = None;
    for actor in [Some(&author.actor), author.voucher.as_ref()]
        .into_iter()
        .flatten()
    {
        latest = latest.max(access::account_since(tx, tenant, actor)?);
    }
    let until = latest.map(|since| since.plus(cool_down));
    Ok(until.filter(|until| at < *until))
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
