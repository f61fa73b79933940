//! What people decide about an operation: approve, reject, let go, cancel.

use std::{sync::Arc, time::Duration};

use muster_model::{CommandKind, TenantId};
use muster_storage::Tx;
use muster_trust::approval::{Approval, ApprovalError, Counted, MAX_APPROVALS, TargetList, account_of};
use muster_trust::root::{Role, RootDocument};
use uuid::Uuid;

use super::{
    Batch, Given, Halt, Operation, OperationState,
    ask::{refuse_new_account, statement_of},
    proof::{OTHER_LIST, as_asked},
    store,
};
use crate::{
    access::{
        self,
        problem::{APPROVER_REFUSED, FORBIDDEN, ILLEGAL_STATE, INVALID, Problem, ROW_EDITED},
        visits,
    },
    audit::LoggedTx,
};

const BECAUSE_CHARS_MAX: usize = 512;
/// Operations for the same that are looked through.
const LIKE_MAX: i64 = 100;

/// Takes a person's approval in. It must verify and count now; when it is the last that was missing, the operation runs after
/// the delay of the root document.
pub fn approve(tx: &mut LoggedTx<'_>, id: Uuid, approval: Approval) -> Result<Operation, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    // Two approvals at once take turns, so that neither is lost.
    store::take_turn(tx, tenant)?;
    let mut operation = super::get(tx, tenant, id)?;
    if operation.state != OperationState::AwaitingApproval {
        return Err(refused_state(&operation, "approved"));
    }
    if operation.expires_at <= at {
        return Err(ILLEGAL_STATE.detail("The request has expired. Ask again."));
    }
    let root = tx.keys().root.clone();
    let keys = Arc::clone(tx.keys());
    let edited = match as_asked(tx, &keys, &operation)? {
        Err(why) => Some(why),
        Ok(statement) => {
            let list = TargetList::new(store::targets(tx, tenant, id)?);
            (list.count() != statement.count || list.root() != statement.targets_root).then_some(OTHER_LIST)
        }
    };
    if let Some(why) = edited {
        return Err(ROW_EDITED.detail(format!(
            "The request is not what was asked for: {why} Reject it, and look at the log and at who writes into the database."
        )));
    }
    let Some(batch) = &operation.batch else {
        return Err(Problem::internal("an operation awaits approval and has no batch"));
    };
    let counted = batch
        .approved()
        .person(&approval, &root, at)
        .map_err(|error| APPROVER_REFUSED.detail(format!("{error}.")))?;
    let approver = match counted {
        Counted::Yes(approver) => approver,
        Counted::Unknown => {
            return Err(APPROVER_REFUSED.detail("The root document names no approver with this key."));
        }
        Counted::Requester(_) => {
            return Err(APPROVER_REFUSED.detail("Whoever asked for it does not approve it."));
        }
        Counted::TooNew(_, from) => {
            return Err(APPROVER_REFUSED.detail(format!(
                "The key was named too short a time ago. It counts from {from} on."
            )));
        }
    };
    if operation.was_asked_by(&approver.person, &root) {
        return Err(APPROVER_REFUSED.detail(
            "Whoever asked for it does not approve it, nor does whoever has the account that made the sign-in link of who asked.",
        ));
    }
    if access::is_barred(tx, tenant, &approver.person.to_string())? {
        return Err(APPROVER_REFUSED.detail("The directory says that this person is not active."));
    }
    if batch.given.len() >= MAX_APPROVALS {
        return Err(ILLEGAL_STATE.detail("The request has as many approvals as it can carry."));
    }
    let (person, keyid) = (approver.person.to_string(), approval.keyid);
    if let Some(batch) = &mut operation.batch {
        batch.given.retain(|given| given.approval.keyid != keyid);
        batch.given.push(Given {
            person: person.clone(),
            at,
            approval,
        });
    }
    disregard(tx, tenant, &mut operation, &root)?;
    let Some(batch) = &operation.batch else {
        return Err(Problem::internal("a batch is gone"));
    };
    let sha256 = batch.sha256;
    let people = match batch.approved().verify(&root, at) {
        Ok(approved) => Some(approved.people),
        Err(ApprovalError::Threshold { .. } | ApprovalError::NobodyApproves) => None,
        Err(error) => return Err(APPROVER_REFUSED.detail(format!("{error}."))),
    };
    if people.is_some() {
        let statement = statement_of(batch)?;
        let delay = Duration::from_secs(root.approval.delay_seconds.into());
        operation.state = OperationState::Running;
        operation.because = None;
        operation.next_at = Some(statement.not_before.max(at.plus(delay)));
    }
    store::update(tx, tenant, &operation)?;
    tx.record(
        "operation.approved",
        ("operation", id.to_string()),
        serde_json::json!({
            "operation_id": id,
            "batch_sha256": sha256.to_string(),
            "person": person,
            "key_id": keyid.to_string(),
            "threshold": root.role(Role::Approver).1,
            "complete": people.is_some(),
            "people": people,
            "begins_at": operation.next_at,
        }),
    )?;
    Ok(operation)
}

/// Drops the approvals that count no more: of people whom their directory has deactivated since, and of whoever the root document
/// says by now that they asked.
pub(super) fn disregard(
    tx: &mut Tx,
    tenant: TenantId,
    operation: &mut Operation,
    root: &RootDocument,
) -> Result<(), Problem> {
    let Some(batch) = &mut operation.batch else {
        return Ok(());
    };
    let given = std::mem::take(&mut batch.given);
    let mut kept = Vec::with_capacity(given.len());
    for given in given {
        let approver = root.approvers.get(&given.approval.keyid);
        let asked = approver.is_some_and(|approver| operation.was_asked_by(&approver.person, root));
        if !asked && !access::is_barred(tx, tenant, &given.person)? {
            kept.push(given);
        }
    }
    if let Some(batch) = &mut operation.batch {
        batch.given = kept;
    }
    Ok(())
}

/// The operation by which people have approved exactly this, which is for no device, and which has not expired. Their
/// approvals are verified anew, by the root document as it is now.
pub fn approved_lately(tx: &mut LoggedTx<'_>, kind: &CommandKind) -> Result<Option<Uuid>, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let root = tx.keys().root.clone();
    let approved = store::like(tx, tenant, kind, LIKE_MAX)?
        .into_iter()
        .find(|operation| {
            let is_valid = |batch: &Batch| match batch.approved().verify(&root, at) {
                Ok(approved) => {
                    let statement = approved.statement;
                    statement.operation == operation.id
                        && statement.kind == *kind
                        && (statement.not_before..statement.expires_at).contains(&at)
                }
                Err(_) => false,
            };
            operation.state == OperationState::Completed && operation.batch.as_ref().is_some_and(is_valid)
        });
    Ok(approved.map(|operation| operation.id))
}

/// The operation that asks for exactly this, and waits.
pub fn waiting_for(tx: &mut LoggedTx<'_>, kind: &CommandKind) -> Result<Option<Operation>, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let waits = |operation: &Operation| operation.ended_at.is_none() && operation.expires_at > at;
    Ok(store::like(tx, tenant, kind, LIKE_MAX)?.into_iter().find(waits))
}

/// Turns a request down for good.
pub fn reject(tx: &mut LoggedTx<'_>, id: Uuid, because: &str) -> Result<Operation, Problem> {
    let because = reason(because)?;
    let waits = [OperationState::AwaitingApproval, OperationState::Held];
    end(
        tx,
        id,
        &waits,
        OperationState::Rejected,
        "operation.rejected",
        &because,
    )
}

/// Takes an operation back: nothing more of it is released, and what no device was handed is cancelled.
pub fn cancel(tx: &mut LoggedTx<'_>, id: Uuid, because: &str) -> Result<Operation, Problem> {
    let because = reason(because)?;
    if tx.author().visit.is_some() {
        let tenant = tx.tenant();
        let asked = super::get(tx, tenant, id)?;
        visits::require_own(tx.author(), &asked.created_by)?;
    }
    let open = [
        OperationState::AwaitingApproval,
        OperationState::Held,
        OperationState::Running,
        OperationState::Completed,
    ];
    end(
        tx,
        id,
        &open,
        OperationState::Cancelled,
        "operation.cancelled",
        &because,
    )
}

/// Lets go what was held because it was unusual. Somebody else than who asked does that.
pub fn let_go(tx: &mut LoggedTx<'_>, id: Uuid) -> Result<Operation, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    store::take_turn(tx, tenant)?;
    let mut operation = super::get(tx, tenant, id)?;
    if operation.state != OperationState::Held {
        return Err(refused_state(&operation, "released"));
    }
    if is_of_who_asked(tx, &operation) {
        return Err(FORBIDDEN.detail(
            "Whoever asked for it does not release it, by whichever account of theirs, nor does a person who was signed in by the \
             same account. Release it with another service account, or sign in by a link that another one made.",
        ));
    }
    // Whoever stole an administrator would make an account for this.
    refuse_new_account(tx)?;
    operation.state = OperationState::Running;
    operation.next_at = Some(at);
    let because = operation.because.take();
    store::update(tx, tenant, &operation)?;
    tx.record(
        "operation.released",
        ("operation", id.to_string()),
        serde_json::json!({"operation_id": id, "held_because": because}),
    )?;
    Ok(operation)
}

/// Whether who acts, or the account behind them, is who asked, or has an account of the same person by the root document.
fn is_of_who_asked(tx: &LoggedTx<'_>, operation: &Operation) -> bool {
    let (author, root) = (tx.author(), &tx.keys().root);
    if operation.created_by == tx.actor() || operation.asked_through == tx.account() {
        return true;
    }
    let own = [Some(&author.actor), author.voucher.as_ref()];
    let mut own = own.into_iter().flatten().map(|actor| account_of(&actor.id));
    let asked = operation.accounts();
    own.any(|own| asked.iter().any(|asked| root.are_of_one_person(&own, asked)))
}

fn end(
    tx: &mut LoggedTx<'_>,
    id: Uuid,
    from: &[OperationState],
    state: OperationState,
    action: &'static str,
    because: &str,
) -> Result<Operation, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    store::take_turn(tx, tenant)?;
    let mut operation = super::get(tx, tenant, id)?;
    if !from.contains(&operation.state) {
        return Err(refused_state(&operation, state.as_str()));
    }
    let cancelled = store::cancel_queued(tx, tenant, id, at, because)?;
    operation.state = state;
    operation.because = Some(because.to_owned());
    operation.next_at = None;
    operation.ended_at = operation.ended_at.or(Some(at));
    store::update(tx, tenant, &operation)?;
    tx.record(
        action,
        ("operation", id.to_string()),
        serde_json::json!({
            "operation_id": id,
            "type": operation.kind.type_name(),
            "because": because,
            "commands_cancelled": cancelled,
            "commands_not_made": operation.targets - operation.released,
        }),
    )?;
    Ok(operation)
}

fn reason(text: &str) -> Result<String, Problem> {
    let text = text.trim();
    if text.chars().count() > BECAUSE_CHARS_MAX || text.chars().any(char::is_control) {
        return Err(INVALID.detail("A reason has at most 512 characters, and no control characters."));
    }
    Ok(text.to_owned())
}

fn refused_state(operation: &Operation, what: &str) -> Problem {
    ILLEGAL_STATE.detail(format!(
        "The operation is {}, and cannot be {what}.",
        operation.state.as_str()
    ))
}

/// Stops the delivery of every command of the tenant that is not harmless, on every node, from the next delivery on.
pub fn halt(tx: &mut LoggedTx<'_>, because: &str) -> Result<Halt, Problem> {
    let (tenant, because) = (tx.tenant(), reason(because)?);
    store::take_turn(tx, tenant)?;
    if let Some(halt) = store::halt_of(tx, tenant)? {
        // It is on already, and nothing is to be said; the turn is no change.
        tx.excuse(1);
        return Ok(halt);
    }
    let halt = Halt {
        at: tx.at(),
        by: tx.actor(),
        because,
    };
    store::set_halt(tx, tenant, Some(&halt))?;
    tx.record(
        "commands.halted",
        ("tenant", tenant.to_string()),
        serde_json::json!({"because": halt.because}),
    )?;
    Ok(halt)
}

/// Lets the delivery go on.
pub fn lift_halt(tx: &mut LoggedTx<'_>, because: &str) -> Result<(), Problem> {
    let (tenant, because) = (tx.tenant(), reason(because)?);
    store::take_turn(tx, tenant)?;
    if store::halt_of(tx, tenant)?.is_none() {
        tx.excuse(1);
        return Ok(());
    }
    store::set_halt(tx, tenant, None)?;
    tx.record(
        "commands.halt_lifted",
        ("tenant", tenant.to_string()),
        serde_json::json!({"because": because}),
    )
    .map(drop)
}
