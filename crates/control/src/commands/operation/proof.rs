//! What a device is shown with a command that people approved, and what the doctor looks at.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use muster_model::{CommandKind, TenantId, Timestamp};
use muster_storage::Tx;
use muster_trust::{
    approval::{ApprovalProof, BatchStatement, TargetList},
    entry::LogEntry,
    key::{Digest, sha256},
};
use parking_lot::Mutex;
use uuid::Uuid;

use super::{
    super::Command,
    Operation, OperationState,
    ask::{arguments_digest, statement_of},
    store,
};
use crate::{
    access::problem::{ILLEGAL_STATE, Problem},
    audit::{self, LoggedTx},
    secrets::TenantKeys,
};

/// Lists whose trees are kept; one of a million devices takes about 64 MB.
const LISTS_KEPT_MAX: usize = 16;
/// Released commands that the doctor looks at.
const CHECKED_MAX: i64 = 100_000;
const HOUR: Duration = Duration::from_secs(3600);

/// The trees of lists that were handed out lately.
#[derive(Debug, Default)]
pub struct Lists(Mutex<HashMap<(TenantId, Uuid), Arc<TargetList>>>);

/// What goes to the device beside a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Evidence {
    /// Nobody has to approve it.
    NotNeeded,
    Approved(Box<ApprovalProof>),
    /// It is not delivered now, for this reason.
    Withheld(String),
    /// It is not delivered: the database says what nobody asked for or approved.
    Edited(&'static str),
}

impl Lists {
    /// Verifies the approvals of a command anew, by the root document as it is now, and makes the proof for its device.
    pub fn evidence(
        &self,
        tx: &mut Tx,
        keys: &TenantKeys,
        command: &Command,
        now: Timestamp,
    ) -> Result<Evidence, Problem> {
        let (tenant, root) = (keys.tenant, &keys.root);
        let withheld = |why: &str| Ok(Evidence::Withheld(why.to_owned()));
        let Ok(kind) = CommandKind::parse(command.arguments.as_bytes()) else {
            return withheld("its arguments are unreadable");
        };
        if !root.needs_approval(&kind) && command.released_at.is_none() {
            return Ok(Evidence::NotNeeded);
        }
        let (Some(id), Some(position)) = (command.operation, command.position) else {
            return Ok(Evidence::Edited("nobody was asked to approve it"));
        };
        let Some(operation) = store::by_id(tx, tenant, id)? else {
            return Ok(Evidence::Edited("the operation that it is of is not there"));
        };
        match operation.state {
            OperationState::Running | OperationState::Completed => {}
            OperationState::AwaitingApproval
            | OperationState::Held
            | OperationState::Cancelled
            | OperationState::Rejected
            | OperationState::Expired => return withheld("its operation does not run"),
        }
        let Some(batch) = &operation.batch else {
            return Ok(Evidence::Edited("nobody was asked to approve its operation"));
        };
        let approved = match batch.approved().verify(root, now) {
            Ok(approved) => approved,
            Err(error) => return withheld(&error.to_string()),
        };
        if let Err(why) = as_asked(tx, keys, &operation)? {
            return Ok(Evidence::Edited(why));
        }
        if is_ended(tx, keys, command)? {
            return Ok(Evidence::Edited("the log says that it was ended"));
        }
        let slot = approved.statement.slot(position);
        if now < slot {
            return withheld(&format!("its hour comes at {slot}"));
        }
        if approved.statement.kind != kind {
            return Ok(Evidence::Edited("another command was approved"));
        }
        let list = self.list(tx, tenant, id)?;
        if list.root() != approved.statement.targets_root {
            return Ok(Evidence::Edited(OTHER_LIST));
        }
        let Some(path) = list.path(position) else {
            return Ok(Evidence::Edited("it has no place in the list of its operation"));
        };
        Ok(Evidence::Approved(Box::new(ApprovalProof {
            batch: batch.approved(),
            position,
            path,
        })))
    }

    /// What people are asked to approve: the statement, if the operation's row, its list and the log say the same. If not,
    /// why: then nobody should sign it.
    pub fn asked(&self, tx: &mut Tx, keys: &TenantKeys, operation: &Operation) -> Result<Asked, Problem> {
        let statement = match as_asked(tx, keys, operation)? {
            Ok(statement) => statement,
            Err(why) => return Ok(Err(why)),
        };
        let list = self.list(tx, keys.tenant, operation.id)?;
        if list.count() != statement.count || list.root() != statement.targets_root {
            return Ok(Err(OTHER_LIST));
        }
        Ok(Ok(statement))
    }

    fn list(&self, tx: &mut Tx, tenant: TenantId, operation: Uuid) -> Result<Arc<TargetList>, Problem> {
        if let Some(list) = self.0.lock().get(&(tenant, operation)) {
            return Ok(Arc::clone(list));
        }
        let list = Arc::new(TargetList::new(store::targets(tx, tenant, operation)?));
        let mut kept = self.0.lock();
        if kept.len() >= LISTS_KEPT_MAX {
            kept.clear();
        }
        kept.insert((tenant, operation), Arc::clone(&list));
        Ok(list)
    }
}

/// The statement of an operation, or why it is not what was asked for.
pub type Asked = Result<BatchStatement, &'static str>;

pub(super) const OTHER_LIST: &str = "the list of its devices is not the one of its statement: was it edited?";

/// Whether an operation's row says what its statement says, and the log that exactly this was asked for and is not over: who
/// writes into the database can change a row, and seals no entry of the log. Its list is compared by whoever has it.
pub fn as_asked(tx: &mut Tx, keys: &TenantKeys, operation: &Operation) -> Result<Asked, Problem> {
    let Some(batch) = &operation.batch else {
        return Ok(Err("nobody was asked to approve it"));
    };
    let Ok(statement) = batch.approved().read() else {
        return Ok(Err("its statement cannot be read"));
    };
    let is_its_row = batch.sha256 == sha256(&batch.payload)
        && statement.tenant == keys.tenant
        && statement.operation == operation.id
        && statement.kind == operation.kind
        && statement.count == operation.targets
        && operation.accounts().contains(&statement.requested_by)
        && statement.requested_at == operation.created_at
        && statement.expires_at == operation.expires_at
        && statement.reason == operation.reason;
    if !is_its_row {
        return Ok(Err("its row is not what its statement says: was it edited?"));
    }
    let object = operation.id.to_string();
    for action in ["operation.cancelled", "operation.rejected", "operation.expired"] {
        if !audit::sealed_about(tx, keys, &object, action)?.is_empty() {
            return Ok(Err("the log says that it is over"));
        }
    }
    let asked = audit::sealed_about(tx, keys, &object, "operation.asked")?;
    // Before it was kept, the entry does not say through whom.
    let is_it = |entry: &LogEntry| {
        entry.detail_digest("batch_sha256") == Some(batch.sha256)
            && operation
                .created_by
                .split_once(':')
                .is_some_and(|(_, id)| id == entry.actor.id)
            && entry
                .detail_text("asked_through")
                .is_none_or(|through| through == operation.asked_through)
    };
    match asked.iter().any(is_it) {
        true => Ok(Ok(statement)),
        false => Ok(Err(
            "the log does not say that this was asked for: was it edited?",
        )),
    }
}

/// Whether the log says that an operation without a batch was asked for as its row says, and that nobody has to approve it, or
/// that somebody has let it go.
pub fn is_free_as_asked(tx: &mut Tx, keys: &TenantKeys, operation: &Operation) -> Result<bool, Problem> {
    let object = operation.id.to_string();
    for action in ["operation.cancelled", "operation.rejected", "operation.expired"] {
        if !audit::sealed_about(tx, keys, &object, action)?.is_empty() {
            return Ok(false);
        }
    }
    let digest = arguments_digest(&operation.kind)?;
    let asked = audit::sealed_about(tx, keys, &object, "operation.asked")?;
    let is_it = |entry: &&LogEntry| {
        entry.detail_text("arguments_sha256") == Some(digest.as_str())
            && entry.detail.get("devices").and_then(serde_json::Value::as_u64) == Some(operation.targets)
            && entry.detail_text("batch_sha256").is_none()
    };
    Ok(
        match asked
            .iter()
            .find(is_it)
            .and_then(|entry| entry.detail_text("state"))
        {
            Some("running") => true,
            Some("held") => !audit::sealed_about(tx, keys, &object, "operation.released")?.is_empty(),
            Some(_) | None => false,
        },
    )
}

/// Whether the log says that a command was ended before a device carried it out.
fn is_ended(tx: &mut Tx, keys: &TenantKeys, command: &Command) -> Result<bool, Problem> {
    let (object, id) = (command.device.to_string(), command.id.to_string());
    for action in ["command.cancelled", "command.superseded", "command.expired"] {
        let ended = audit::sealed_about(tx, keys, &object, action)?;
        if ended
            .iter()
            .any(|entry| entry.detail_text("command_id") == Some(id.as_str()))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The digest of the batch that a released command is of, if its approvals suffice now.
pub fn approved_batch(tx: &mut LoggedTx<'_>, command: &Command) -> Result<Digest, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let operation = match command.operation {
        Some(id) => store::by_id(tx, tenant, id)?,
        None => None,
    };
    let batch = operation.and_then(|operation| operation.batch);
    let approved = batch.and_then(|batch| batch.approved().verify(&tx.keys().root, at).ok());
    approved
        .map(|approved| approved.sha256)
        .ok_or_else(|| ILLEGAL_STATE.detail("Its approvals do not suffice any more."))
}

/// What breaks "what was released was approved before, and within the budget".
pub fn broken(tx: &mut Tx, keys: &TenantKeys) -> Result<Vec<String>, Problem> {
    let (tenant, root) = (keys.tenant, &keys.root);
    let mut broken = Vec::new();
    let mut lately: VecDeque<Timestamp> = VecDeque::new();
    let mut operations = HashMap::new();
    let mut released = store::released(tx, tenant, CHECKED_MAX)?;
    if i64::try_from(released.len()).is_ok_and(|count| count == CHECKED_MAX) {
        tracing::warn!(%tenant, "of the commands that approvals released, only the newest {CHECKED_MAX} are checked");
    }
    released.reverse();
    for (command, operation, released_at) in released {
        let command = super::ask::command_id(command);
        let Some(id) = operation else {
            broken.push(format!("{command} was released and is of no operation"));
            continue;
        };
        if let std::collections::hash_map::Entry::Vacant(place) = operations.entry(id) {
            place.insert(store::by_id(tx, tenant, id)?);
        }
        let Some(batch) = operations[&id]
            .as_ref()
            .and_then(|operation| operation.batch.as_ref())
        else {
            broken.push(format!(
                "{command} was released and nobody approved its operation"
            ));
            continue;
        };
        let Ok(statement) = statement_of(batch) else {
            broken.push(format!("the batch of operation {id} cannot be read"));
            continue;
        };
        if sha256(&batch.payload) != batch.sha256 {
            broken.push(format!("the batch of operation {id} was edited"));
        }
        if batch.given.is_empty() || batch.given.iter().any(|given| given.at > released_at) {
            broken.push(format!("{command} was released before it was approved"));
        }
        // Under a later root document other people may approve.
        if root.issued_at <= released_at
            && let Err(error) = batch.approved().verify(root, released_at)
        {
            broken.push(format!("the approvals of {command} do not verify: {error}"));
        }
        while lately.front().is_some_and(|at| at.plus(HOUR) <= released_at) {
            lately.pop_front();
        }
        lately.push_back(released_at);
        let budget = root.budgets.destructive_per_hour(statement.fleet);
        if root.issued_at <= released_at && lately.len() as u64 > budget {
            broken.push(format!(
                "{command} was the {}th within an hour, and the budget was {budget}",
                lately.len()
            ));
        }
    }
    Ok(broken)
}
