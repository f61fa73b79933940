//! The directory: people and groups of people, as identity providers keep them here by SCIM.
//!
//! A person's row is the SCIM resource; a group's members are rows of their own, so that a group may be as large as the
//! tenant. Who is deactivated or deleted is barred in the same transaction (`access::bar`). What people's devices go by
//! follows within seconds: a changed person is touched, and whoever follows touched people evaluates their devices.
//!
//! A person or group belongs to the connector that made it: the service account of one identity provider. Another reads it and
//! cannot change it. Roles that an identity provider sends grant nothing.

mod answer;
mod api;
mod bulk;
mod list;
mod reconcile;
mod refusal;
mod scim;
mod store;
mod teams;
mod users;
mod view;

use muster_model::{
    ClientId, TenantId, Timestamp, UserGroupId, UserId, subject::GROUPS_MAX as OWNER_GROUPS_MAX,
};
use muster_scim::{Resource, name_key};
use muster_storage::{Statement, Tx};
use tokio::sync::Semaphore;

use crate::{access, access::problem::Problem, devices::Device, limit::Limit};
pub use api::router;
pub use reconcile::{Touched, forget_expired, touched, untouch, walk};
pub use scim::router as scim_router;
pub use view::{
    ConnectorView, DirectoryView, PersonDetail, PersonDevice, PersonFilter, PersonGroup, PersonView,
    RequestView, TeamView, overview, people, person, requests, team, team_members, teams_page,
};

/// Every statement of this slice, for the test that prepares them all on both engines.
pub const STATEMENTS: &[Statement] = store::ALL;
/// As [`STATEMENTS`], of groups of people.
pub const GROUP_STATEMENTS: &[Statement] = teams::STATEMENTS;
/// People that one tenant may have.
pub const USERS_MAX: i64 = 200_000;
/// Groups of people that one tenant may have.
pub const TEAMS_MAX: i64 = 20_000;
/// Memberships that one tenant may have.
pub const MEMBERS_MAX: i64 = 4_000_000;
/// Members of one group.
pub const TEAM_MEMBERS_MAX: i64 = 200_000;
/// Requests of identity providers that are kept of one tenant.
pub const REQUESTS_MAX: i64 = 5_000;
/// Groups in each other that are followed: a circle ends here.
pub const NESTING_MAX: usize = 8;
/// SCIM requests that one node works on at once.
const REQUESTS_AT_ONCE: usize = 32;
/// Questions that look through everybody, at once.
const SCANS_AT_ONCE: usize = 2;

/// What this node keeps of the directory in memory.
#[derive(Debug)]
pub struct Directory {
    limit: Limit<ClientId>,
    requests: Semaphore,
    scans: Semaphore,
}

impl Directory {
    /// With the requests that one connector may send in a second.
    pub fn new(requests_per_second: u32) -> Directory {
        Directory {
            limit: Limit::new(requests_per_second),
            requests: Semaphore::new(REQUESTS_AT_ONCE),
            scans: Semaphore::new(SCANS_AT_ONCE),
        }
    }
}

/// How many people the directory of a tenant has.
pub fn size(tx: &mut muster_storage::Tx, tenant: TenantId) -> Result<i64, Problem> {
    Ok(store::counted(tx, tenant)?.users)
}

/// A person as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    pub id: UserId,
    pub user_name: String,
    pub display_name: Option<String>,
    pub department: Option<String>,
    pub is_active: bool,
    pub connector: ClientId,
    pub external_id: Option<String>,
    /// The SCIM resource, without `externalId`.
    pub resource: Resource,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A group of people as stored, without its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Team {
    pub id: UserGroupId,
    pub display_name: String,
    pub connector: ClientId,
    pub external_id: Option<String>,
    pub members: i64,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// What the directory says of a device's owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    /// Absent for who never was in the directory.
    pub active: Option<bool>,
    pub department: Option<String>,
    /// Names of the groups that the owner is in, also through others, in their order and each once.
    pub groups: Vec<String>,
    pub user: Option<UserId>,
}

impl Owner {
    /// Whether the directory has, or had, this person.
    pub const fn is_known(&self) -> bool {
        self.active.is_some()
    }
}

/// What the directory says of the owner of a device: the person whose `userName` the owner is.
pub fn owner_of(tx: &mut Tx, tenant: TenantId, device: &Device) -> Result<Owner, Problem> {
    let Some(owner) = device.owner.as_deref() else {
        return Ok(Owner::default());
    };
    let key = name_key(owner);
    let Some((user, is_active, department)) = store::owner(tx, tenant, &key)? else {
        let is_gone = access::is_barred(tx, tenant, owner)?;
        return Ok(Owner {
            active: is_gone.then_some(false),
            ..Owner::default()
        });
    };
    let mut groups: Vec<String> = teams::teams_of(tx, tenant, user)?
        .into_iter()
        .map(|team| team.display_name)
        .collect();
    groups.sort_unstable();
    groups.dedup();
    groups.truncate(OWNER_GROUPS_MAX);
    Ok(Owner {
        active: Some(is_active),
        department,
        groups,
        user: Some(user),
    })
}
