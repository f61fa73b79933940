//! Dynamic groups: the active devices for which one expression is true and another is not.
//!
//! Membership is stored and kept right: a change of a device marks it in its own transaction, and whoever settles the mark
//! evaluates the groups that read what changed. A new or changed group is evaluated over all devices, page by page.

mod api;
mod change;
mod definition;
mod evaluate;
mod memory;
mod preview;
mod reconcile;
mod store;
#[cfg(test)]
mod tests;
mod view;

use std::{collections::HashSet, sync::Arc};

use muster_model::{DeviceId, GroupId, TenantId, Timestamp};
use muster_storage::{Statement, Tx};
use uuid::Uuid;

use crate::access::problem::{ILLEGAL_STATE, NOT_FOUND, Problem};
pub use api::GroupPatch;
pub use api::router;
pub(crate) use change::update;
pub use change::{NewGroup, canonical, create, delete, let_go, redefines, users, uses};
pub use definition::{EXPRESSION_BYTES_MAX, Known};
pub use evaluate::{Moves, settle};
pub use memory::{Memberships, note, of};
pub use preview::{Preview, PreviewRequest, UnknownReason, preview};
pub use reconcile::{follow_moves, forget_moves, reconcile};
pub use view::{Explanation, GroupView, Member, ReadValue, Side, explain};

/// Every statement of this slice, for the test that prepares them all on both engines.
pub const STATEMENTS: &[Statement] = store::ALL;
/// Groups that one tenant may have.
pub const GROUPS_MAX: usize = 256;
/// The lease under which one node settles what is marked and evaluates changed groups.
pub const EVALUATOR_LEASE: &str = "groups.evaluator";

/// Whether a group's members are all known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupState {
    /// The definition is new, and not every device was looked at since.
    Evaluating,
    Ready,
    /// It is gone for everybody; its rows are being removed.
    Deleting,
}

impl GroupState {
    pub const fn as_str(self) -> &'static str {
        match self {
            GroupState::Evaluating => "evaluating",
            GroupState::Ready => "ready",
            GroupState::Deleting => "deleting",
        }
    }

    /// A word that the database holds; an unknown one has no members that may be counted on.
    fn parse(text: &str) -> GroupState {
        match text {
            "ready" => GroupState::Ready,
            "deleting" => GroupState::Deleting,
            _ => GroupState::Evaluating,
        }
    }
}

/// A group as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub id: GroupId,
    pub name: String,
    pub description: Option<String>,
    /// The expression that is true of members.
    pub include: String,
    /// The expression that is true of nobody among them.
    pub exclude: Option<String>,
    /// Whether an expression reads the time.
    pub reads_now: bool,
    /// The change of the tenant's groups that made this definition.
    pub version: i64,
    pub state: GroupState,
    /// How far a full evaluation has come.
    pub evaluated_to: DeviceId,
    /// When every device had been looked at last.
    pub evaluated_at: Option<Timestamp>,
    pub members: u64,
    pub created_by: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The group that an id or a unique name means.
pub fn resolve(tx: &mut Tx, tenant: TenantId, text: &str) -> Result<Group, Problem> {
    let found = match text.parse::<GroupId>() {
        Ok(id) => store::group(tx, tenant, id)?,
        Err(_) => store::group_by_name(tx, tenant, text)?,
    };
    found.ok_or_else(|| NOT_FOUND.detail("There is no such group."))
}

/// A page of groups by id after `after`, at most `limit`.
pub fn list(
    tx: &mut Tx,
    tenant: TenantId,
    after: Option<GroupId>,
    limit: usize,
) -> Result<Vec<Group>, Problem> {
    let after = after.unwrap_or(GroupId::from_uuid(Uuid::nil()));
    Ok(store::groups(tx, tenant, after, limit)?)
}

/// The newest change of the tenant's groups; 0 when there never was a group.
pub fn newest_version(tx: &mut Tx, tenant: TenantId) -> Result<i64, Problem> {
    Ok(store::version(tx, tenant)?)
}

/// A page of a group's members by device id after `after`, at most `limit`.
pub fn members(
    tx: &mut Tx,
    tenant: TenantId,
    group: GroupId,
    after: Option<DeviceId>,
    limit: usize,
) -> Result<Vec<Member>, Problem> {
    let after = after.unwrap_or(DeviceId::from_uuid(Uuid::nil()));
    Ok(store::members(tx, tenant, group, after, limit)?)
}

/// The groups of a device with their names, in the order of the names.
pub fn named_of(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<Vec<(GroupId, String)>, Problem> {
    Ok(store::named_of(tx, tenant, device)?)
}

/// The groups of a device, in the order of their ids, as the transaction sees them.
pub fn groups_of(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<Vec<GroupId>, Problem> {
    Ok(store::groups_of(tx, tenant, device)?)
}

/// The members of some groups, to ask about many devices.
#[derive(Debug, Default)]
pub struct MembersOf(Vec<(GroupId, HashSet<DeviceId>)>);

impl MembersOf {
    /// Which of the groups a device is in.
    pub fn of(&self, device: DeviceId) -> Arc<[GroupId]> {
        let holding = self.0.iter().filter(|(_, members)| members.contains(&device));
        holding.map(|(group, _)| *group).collect()
    }
}

/// Reads the members of these groups.
pub fn members_of(
    tx: &mut Tx,
    tenant: TenantId,
    groups: impl IntoIterator<Item = GroupId>,
) -> Result<MembersOf, Problem> {
    let mut read = MembersOf::default();
    for group in groups {
        if read.0.iter().all(|(known, _)| *known != group) {
            let members = store::member_ids(tx, tenant, group)?;
            read.0.push((group, members.into_iter().collect()));
        }
    }
    Ok(read)
}

/// Refuses groups that are unknown, or whose members are still being found.
pub fn require_ready(
    tx: &mut Tx,
    tenant: TenantId,
    groups: impl IntoIterator<Item = GroupId>,
) -> Result<(), Problem> {
    for id in groups {
        let group = store::group(tx, tenant, id)?
            .ok_or_else(|| NOT_FOUND.detail(format!("There is no group {id}.")))?;
        if group.state != GroupState::Ready {
            return Err(ILLEGAL_STATE
                .detail(format!(
                    "The members of the group {} are still being found. Try again when it is ready.",
                    group.name
                ))
                .retry_after(2));
        }
    }
    Ok(())
}

/// How many active devices are in a group.
pub fn count_members(tx: &mut Tx, tenant: TenantId, group: GroupId) -> Result<u64, Problem> {
    Ok(store::count_members(tx, tenant, group)?)
}
