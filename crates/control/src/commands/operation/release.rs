//! Releasing: the commands of an operation are made, part by part, within the budget, and fairly between tenants.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use muster_model::{DeviceId, TenantId, Timestamp};
use muster_storage::Scope;
use muster_trust::approval::{Approved, BatchStatement, TargetList};
use uuid::Uuid;

use super::{
    super::Release,
    Operation, OperationState,
    approve::disregard,
    ask::command_id,
    proof::{OTHER_LIST, as_asked, is_free_as_asked},
    store,
};
use crate::{
    App,
    access::{Author, problem::Problem},
    audit::{self, LoggedTx},
    devices,
};

/// Commands of one transaction: others write in between.
const STEP_TARGETS: u64 = 250;
/// Operations that one round looks at.
const ROUND_OPERATIONS: i64 = 500;
/// Steps of one round; what is left waits for the next.
const ROUND_STEPS: usize = 200;
/// How soon an operation is looked at again that the budget or the halt switch stopped.
const STOPPED_AGAIN: Duration = Duration::from_secs(2);
const NOT_ASKED: &str = "the log does not say that it was asked for like this: was it edited?";
const HOUR: Duration = Duration::from_secs(3600);
/// Waiting operations of one device that are ended together.
const WAITING_MAX: usize = 500;

/// Releases what is due, one step of each tenant at a time. A reconciler's step; answers whether more is due now.
pub async fn release_due(app: &App) -> Result<bool, Problem> {
    let now = app.clock.now();
    let due = app
        .db
        .read(Scope::System, move |tx| {
            Ok::<_, Problem>(store::due(tx, now, ROUND_OPERATIONS)?)
        })
        .await?;
    let mut queues: VecDeque<(TenantId, VecDeque<Uuid>)> = VecDeque::new();
    for (tenant, operation) in due {
        match queues.iter_mut().find(|(known, _)| *known == tenant) {
            Some((_, operations)) => operations.push_back(operation),
            None => queues.push_back((tenant, VecDeque::from([operation]))),
        }
    }
    let (mut steps, mut failed) = (0, None);
    while let Some((tenant, mut operations)) = queues.pop_front() {
        let Some(operation) = operations.front().copied() else {
            continue;
        };
        if steps == ROUND_STEPS {
            return failed.map_or(Ok(true), Err);
        }
        steps += 1;
        let released = audit::commit(app, &Author::system(tenant), move |tx| release(tx, operation)).await;
        match released {
            Ok(true) => {}
            Ok(false) => drop(operations.pop_front()),
            Err(problem) => {
                operations.pop_front();
                failed = failed.or(Some(problem));
            }
        }
        queues.push_back((tenant, operations));
    }
    failed.map_or(Ok(false), Err)
}

/// Makes the next commands of an operation. Answers whether more may be made at once.
///
/// What needs approvals is verified anew here, against the root document as it is now: this transaction is the only one that
/// makes such a command.
pub fn release(tx: &mut LoggedTx<'_>, id: Uuid) -> Result<bool, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let is_halted = store::take_turn(tx, tenant)?;
    // The turn, and where the operation stands, are no decision; the commands have entries of their own.
    tx.excuse(2);
    let mut operation = super::get(tx, tenant, id)?;
    if operation.state != OperationState::Running || operation.next_at.is_none_or(|next| next > at) {
        return Ok(false);
    }
    if is_halted && !operation.kind.is_harmless() {
        return stop(
            tx,
            operation,
            at.plus(STOPPED_AGAIN),
            "the delivery of commands is halted",
        );
    }
    let keys = Arc::clone(tx.keys());
    disregard(tx, tenant, &mut operation, &keys.root)?;
    let approved = match &operation.batch {
        None => {
            if !operation.kind.is_harmless() && !is_free_as_asked(tx, &keys, &operation)? {
                tracing::error!(operation = %id, "not released: the log does not say that it was asked for like this");
                return stop(tx, operation, at.plus(HOUR), NOT_ASKED);
            }
            None
        }
        Some(batch) => match batch.approved().verify(&tx.keys().root, at) {
            Ok(approved) => Some(approved),
            Err(error) => {
                let because = format!("its approvals do not suffice: {error}");
                return stop(tx, operation, at.plus(HOUR / 60), &because);
            }
        },
    };
    if approved.is_some() && !audit::split_views(tx, &keys)?.is_empty() {
        let because =
            "a device has seen another history of the log: settle it in the root document when you know why";
        return stop(tx, operation, at.plus(HOUR / 60), because);
    }
    let room = match &approved {
        None => STEP_TARGETS,
        Some(approved) if !operation.kind.is_for_devices() => approved.statement.count,
        Some(approved) => {
            let left = budget_left(tx)?;
            let reached = reached(&approved.statement, at).saturating_sub(operation.released);
            if reached == 0 {
                let next = approved.statement.slot(operation.released);
                return stop(tx, operation, next, "the rest waits for its hour");
            }
            if left == 0 {
                let because = "the budget of this hour is used up";
                return stop(tx, operation, at.plus(STOPPED_AGAIN), because);
            }
            left.min(reached).min(STEP_TARGETS)
        }
    };
    // The list is read last: it may be long.
    if approved.is_some()
        && let Some(why) = is_edited(tx, &operation)?
    {
        tracing::error!(operation = %id, why, "not released: it is not what was approved");
        return stop(tx, operation, at.plus(HOUR), why);
    }
    if !operation.kind.is_for_devices() {
        // What was approved is asked for again, by whoever wants to do it.
        if approved.is_none() {
            return Err(Problem::internal(
                "nobody was asked to approve what is for no device",
            ));
        }
        operation.released = operation.targets;
        (operation.state, operation.because) = (OperationState::Completed, None);
        (operation.next_at, operation.ended_at) = (None, Some(at));
        store::update(tx, tenant, &operation)?;
        return Ok(false);
    }
    make(tx, &mut operation, approved.as_ref(), room)?;
    operation.because = None;
    let is_whole = operation.released >= operation.targets;
    if is_whole {
        operation.state = OperationState::Completed;
        operation.ended_at = Some(at);
        operation.next_at = None;
    } else {
        operation.next_at = Some(at);
    }
    store::update(tx, tenant, &operation)?;
    Ok(!is_whole)
}

/// Why the rows of an operation and of its list are not what was approved; nothing where they are.
fn is_edited(tx: &mut LoggedTx<'_>, operation: &Operation) -> Result<Option<&'static str>, Problem> {
    let (tenant, keys) = (tx.tenant(), Arc::clone(tx.keys()));
    let statement = match as_asked(tx, &keys, operation)? {
        Ok(statement) => statement,
        Err(why) => return Ok(Some(why)),
    };
    let list = TargetList::new(store::targets(tx, tenant, operation.id)?);
    let is_its_list = list.count() == statement.count && list.root() == statement.targets_root;
    Ok((!is_its_list).then_some(OTHER_LIST))
}

/// Makes the commands of the next targets, at most `room`. A device that is not there any more, was enrolled anew, or cannot
/// be told this is left out.
fn make(
    tx: &mut LoggedTx<'_>,
    operation: &mut Operation,
    approved: Option<&Approved>,
    room: u64,
) -> Result<(), Problem> {
    let tenant = tx.tenant();
    let targets = store::targets_from(tx, tenant, operation.id, operation.released)?;
    if targets.is_empty() {
        return Err(Problem::internal("the targets of an operation are missing"));
    }
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    tx.continue_trace(operation.trace);
    for (device, epoch) in targets.into_iter().take(room) {
        let position = operation.released;
        operation.released += 1;
        let active = devices::active(tx, tenant, device)?.filter(|device| device.epoch == epoch);
        let Some(device) = active.filter(|device| operation.kind.check_for(device.ownership).is_ok()) else {
            operation.left_out += 1;
            continue;
        };
        let release = Release {
            id: operation.device.map(|_| command_id(operation.id)),
            operation: operation.id,
            position,
            created_by: &operation.created_by,
            approved,
        };
        match super::super::queue(tx, &device, &operation.kind, operation.ttl, Some(&release)) {
            Ok(_) => {}
            // Its lane is full: the device does not answer.
            Err(problem) if problem.kind == crate::access::problem::RATE_LIMITED => operation.left_out += 1,
            Err(problem) => return Err(problem),
        }
    }
    Ok(())
}

/// Leaves an operation alone until a time. Why is recorded once.
fn stop(
    tx: &mut LoggedTx<'_>,
    mut operation: Operation,
    next: Timestamp,
    because: &str,
) -> Result<bool, Problem> {
    let tenant = tx.tenant();
    let is_news = operation.because.as_deref() != Some(because);
    operation.because = Some(because.to_owned());
    operation.next_at = Some(next);
    store::update(tx, tenant, &operation)?;
    if is_news {
        tx.record(
            "operation.stopped",
            ("operation", operation.id.to_string()),
            serde_json::json!({
                "operation_id": operation.id,
                "because": because,
                "commands_not_made": operation.targets - operation.released,
                "next_at": next,
            }),
        )?;
    }
    Ok(false)
}

/// How many of a batch may have begun by now.
fn reached(statement: &BatchStatement, now: Timestamp) -> u64 {
    if now < statement.not_before {
        return 0;
    }
    let hours = now.since(statement.not_before).as_secs() / HOUR.as_secs();
    (hours + 1)
        .saturating_mul(statement.per_hour.into())
        .min(statement.count)
}

/// How many more commands approvals may release in this hour, over all operations.
fn budget_left(tx: &mut LoggedTx<'_>) -> Result<u64, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let fleet = devices::active_count(tx, tenant)?;
    let budget = tx.keys().root.budgets.destructive_per_hour(fleet);
    let used = store::released_since(tx, tenant, at.minus(HOUR))?;
    Ok(budget.saturating_sub(used))
}

/// Ends operations whose time is over. A reconciler's step.
pub async fn expire_overdue(app: &App) -> Result<(), Problem> {
    let now = app.clock.now();
    let overdue = app
        .db
        .read(Scope::System, move |tx| {
            Ok::<_, Problem>(store::overdue(tx, now, ROUND_OPERATIONS)?)
        })
        .await?;
    let mut failed = None;
    for (tenant, id) in overdue {
        let ended = audit::commit(app, &Author::system(tenant), move |tx| expire(tx, id)).await;
        failed = failed.or(ended.err());
    }
    failed.map_or(Ok(()), Err)
}

fn expire(tx: &mut LoggedTx<'_>, id: Uuid) -> Result<(), Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    store::take_turn(tx, tenant)?;
    tx.excuse(1);
    let mut operation = super::get(tx, tenant, id)?;
    if operation.ended_at.is_some() || operation.expires_at > at {
        return Ok(());
    }
    operation.state = OperationState::Expired;
    operation.because = Some("its time is over".to_owned());
    (operation.next_at, operation.ended_at) = (None, Some(at));
    store::update(tx, tenant, &operation)?;
    tx.record(
        "operation.expired",
        ("operation", id.to_string()),
        serde_json::json!({
            "operation_id": id,
            "type": operation.kind.type_name(),
            "commands_not_made": operation.targets - operation.released,
        }),
    )
    .map(drop)
}

/// Ends operations on one device that wait, when the device has begun another epoch or is gone: the list names the old one.
pub async fn leave_out(app: &App, tenant: TenantId, device: DeviceId, epoch: u32) -> Result<(), Problem> {
    let waiting = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            super::waiting_of_device(tx, tenant, device, Uuid::max(), WAITING_MAX)
        })
        .await?;
    for operation in waiting
        .into_iter()
        .filter(|operation| operation.ended_at.is_none())
    {
        let id = operation.id;
        audit::commit(app, &Author::system(tenant), move |tx| {
            leave_out_one(tx, id, epoch)
        })
        .await?;
    }
    Ok(())
}

fn leave_out_one(tx: &mut LoggedTx<'_>, id: Uuid, epoch: u32) -> Result<(), Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    store::take_turn(tx, tenant)?;
    tx.excuse(1);
    let mut operation = super::get(tx, tenant, id)?;
    let target = store::targets_from(tx, tenant, id, 0)?.into_iter().next();
    if operation.ended_at.is_some() || target.is_none_or(|(_, asked)| asked >= epoch) {
        return Ok(());
    }
    operation.state = OperationState::Completed;
    operation.because = Some("the device enrolled anew, or is gone".to_owned());
    (operation.released, operation.left_out) = (1, 1);
    (operation.next_at, operation.ended_at) = (None, Some(at));
    store::update(tx, tenant, &operation)?;
    tx.record(
        "operation.left_out",
        ("operation", id.to_string()),
        serde_json::json!({"operation_id": id, "type": operation.kind.type_name()}),
    )
    .map(drop)
}
