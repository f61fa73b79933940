//! Operations: what one call asks of a list of devices.
//!
//! The list is frozen when it is asked. What needs approvals waits until enough people have signed its batch statement; only
//! then are commands made, by nobody else and in no other way: [`release`] is the one place, and it holds proof of the
//! approvals in its hands. What is unusual is held until somebody else has looked at it.

mod api;
mod approve;
mod ask;
mod proof;
mod release;
mod store;

use std::time::Duration;

use muster_model::{
    CommandKind, CommandState, DeviceId, Name, TenantId, Timestamp, TraceContext, text::Description,
};
use muster_storage::{Statement, Tx};
use muster_trust::{
    approval::{Approval, ApprovedBatch, account_of},
    key::Digest,
    root::RootDocument,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::problem::{NOT_FOUND, Problem};
pub use api::{OperationView, if_edited, router};
pub use approve::{approve, approved_lately, cancel, halt, let_go, lift_halt, reject, waiting_for};
pub use ask::{Order, ask, is_mass, needs_people, note_pace, note_retirement, statement_of};
pub use proof::{Asked, Evidence, Lists, approved_batch};
pub use release::{expire_overdue, leave_out, release, release_due};
pub use store::{Halt, Progress};

/// Every statement of operations, for the test that prepares them all on both engines.
pub const OPERATION_STATEMENTS: &[Statement] = store::ALL;
/// Devices of one operation.
pub const TARGETS_MAX: usize = 1_000_000;
/// Operations of one tenant that have not ended; more are refused.
pub const OPEN_OPERATIONS_MAX: i64 = 1000;

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Too few people have approved it.
    AwaitingApproval,
    /// Something about it is unusual: somebody else than who asked must let it go, or reject it.
    Held,
    /// Its commands are being made, or will be when their hour comes.
    Running,
    /// All of its commands were made.
    Completed,
    Cancelled,
    Rejected,
    Expired,
}

impl OperationState {
    pub const ALL: [OperationState; 7] = [
        OperationState::AwaitingApproval,
        OperationState::Held,
        OperationState::Running,
        OperationState::Completed,
        OperationState::Cancelled,
        OperationState::Rejected,
        OperationState::Expired,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            OperationState::AwaitingApproval => "awaiting_approval",
            OperationState::Held => "held",
            OperationState::Running => "running",
            OperationState::Completed => "completed",
            OperationState::Cancelled => "cancelled",
            OperationState::Rejected => "rejected",
            OperationState::Expired => "expired",
        }
    }

    /// The state that a word names.
    pub fn parse(word: &str) -> Option<OperationState> {
        OperationState::ALL
            .into_iter()
            .find(|state| state.as_str() == word)
    }

    /// What stands for the command of an operation on one device, before that is made.
    pub const fn of_command(self) -> CommandState {
        match self {
            OperationState::AwaitingApproval => CommandState::AwaitingApproval,
            OperationState::Held | OperationState::Running => CommandState::Held,
            // It was made, or its device was left out.
            OperationState::Completed => CommandState::Superseded,
            OperationState::Cancelled | OperationState::Rejected => CommandState::Cancelled,
            OperationState::Expired => CommandState::Expired,
        }
    }
}

/// A person's approval as it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    pub person: String,
    pub at: Timestamp,
    pub approval: Approval,
}

/// What people sign, and what they signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub payload: Vec<u8>,
    pub sha256: Digest,
    pub given: Vec<Given>,
}

impl Batch {
    /// With every approval that was given.
    pub fn approved(&self) -> ApprovedBatch {
        ApprovedBatch {
            payload: self.payload.clone(),
            approvals: self.given.iter().map(|given| given.approval.clone()).collect(),
        }
    }
}

impl Operation {
    /// The accounts by which it was asked, as root documents write them: of who asked, and of what is behind that.
    pub fn accounts(&self) -> [String; 2] {
        let account = |text: &str| account_of(text.split_once(':').map_or("", |(_, id)| id));
        [account(&self.created_by), account(&self.asked_through)]
    }

    /// Whether a person of the root document asked for it, by whichever account of theirs.
    pub fn was_asked_by(&self, person: &Name, root: &RootDocument) -> bool {
        self.accounts()
            .iter()
            .any(|account| root.is_account_of(person, account))
    }
}

/// An operation as stored.
#[derive(Debug, Clone)]
pub struct Operation {
    pub id: Uuid,
    pub kind: CommandKind,
    pub state: OperationState,
    /// The device, where there is one: its command has the operation's id.
    pub device: Option<DeviceId>,
    pub targets: u64,
    /// Targets, from the first on, that were released.
    pub released: u64,
    /// Of these, those that were left out.
    pub left_out: u64,
    /// `kind:id` of who asked.
    pub created_by: String,
    /// `kind:id` of the account behind that: see [`crate::access::Author::account`].
    pub asked_through: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// How long each command may wait.
    pub ttl: Duration,
    pub reason: Option<Description>,
    /// Why it is held, or ended early.
    pub because: Option<String>,
    /// Of what needs approvals.
    pub batch: Option<Batch>,
    pub next_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// The span that it was asked in; its commands are queued under it.
    pub trace: Option<TraceContext>,
}

/// The operation with this id.
pub fn get(tx: &mut Tx, tenant: TenantId, id: Uuid) -> Result<Operation, Problem> {
    store::by_id(tx, tenant, id)?.ok_or_else(|| NOT_FOUND.detail("There is no such operation."))
}

/// Operations from the newest on, before `before`; in one state where it is named.
pub fn list(
    tx: &mut Tx,
    tenant: TenantId,
    state: Option<OperationState>,
    before: Option<Uuid>,
    limit: usize,
) -> Result<Vec<Operation>, Problem> {
    let before = before.unwrap_or(Uuid::max());
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    Ok(store::list(tx, tenant, state, before, limit)?)
}

/// The operations on this one device that have made no command: they wait, or they ended before.
pub fn waiting_of_device(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    before: Uuid,
    limit: usize,
) -> Result<Vec<Operation>, Problem> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    Ok(store::of_device(tx, tenant, device, before, limit)?)
}

/// A device of an operation's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// From 0.
    pub position: u64,
    pub device: DeviceId,
    pub epoch: u32,
}

/// The list of an operation from a position on, at most `limit` devices of it.
pub fn targets_of(
    tx: &mut Tx,
    tenant: TenantId,
    operation: &Operation,
    first: u64,
    limit: usize,
) -> Result<Vec<Target>, Problem> {
    let (mut found, mut position) = (Vec::new(), first);
    while found.len() < limit && position < operation.targets {
        let part = store::targets_from(tx, tenant, operation.id, position)?;
        if part.is_empty() {
            break;
        }
        for (device, epoch) in part.into_iter().take(limit - found.len()) {
            found.push(Target {
                position,
                device,
                epoch,
            });
            position += 1;
        }
    }
    Ok(found)
}

/// How many of an operation's commands are in each state.
pub fn progress(tx: &mut Tx, tenant: TenantId, operation: &Operation) -> Result<Progress, Problem> {
    Ok(store::progress(tx, tenant, operation)?)
}

/// Whether the tenant's delivery is halted.
pub fn halt_of(tx: &mut Tx, tenant: TenantId) -> Result<Option<Halt>, Problem> {
    Ok(store::halt_of(tx, tenant)?)
}

/// What breaks "what was released was approved before, and within the budget", for the doctor.
pub fn broken(tx: &mut Tx, keys: &crate::secrets::TenantKeys) -> Result<Vec<String>, Problem> {
    proof::broken(tx, keys)
}

/// Removes what ended before a time, and the pace of hours before another.
pub fn forget(tx: &mut Tx, ended_before: Timestamp, hours_before: i64) -> Result<(), Problem> {
    const FORGOTTEN_PER_STEP: i64 = 1000;
    Ok(store::forget(tx, ended_before, hours_before, FORGOTTEN_PER_STEP)?)
}
