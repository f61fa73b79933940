//! What people see of the directory.

use muster_model::{ClientId, ScimRequestId, TenantId, Timestamp, UserGroupId, UserId};
use muster_scim::name_key;
use muster_storage::Tx;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Team, USERS_MAX, User, store, teams};
use crate::{
    access::{
        self, ScimTokenView,
        problem::{INVALID, NOT_FOUND, Problem},
    },
    devices,
    page::Page,
};

/// Devices that are shown of a person.
const DEVICES_SHOWN: usize = 100;

/// A person of the directory.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = DirectoryPersonView)]
pub struct PersonView {
    #[schema(value_type = String)]
    pub id: UserId,
    pub user_name: String,
    pub display_name: Option<String>,
    pub department: Option<String>,
    pub active: bool,
    /// The service account of the identity provider that keeps it.
    #[schema(value_type = String)]
    pub connector: ClientId,
    pub created_at: String,
    /// When the identity provider changed it last.
    pub updated_at: String,
}

impl PersonView {
    fn of(user: User) -> PersonView {
        PersonView {
            id: user.id,
            user_name: user.user_name,
            display_name: user.display_name,
            department: user.department,
            active: user.is_active,
            connector: user.connector,
            created_at: user.created_at.to_string(),
            updated_at: user.updated_at.to_string(),
        }
    }
}

/// A person with what hangs on it.
#[derive(Debug, Serialize, ToSchema)]
pub struct PersonDetail {
    #[serde(flatten)]
    pub person: PersonView,
    /// The connector's name.
    pub connector_name: String,
    /// The id that the identity provider gave.
    pub external_id: Option<String>,
    pub version: i64,
    /// The groups that the person is in, also through others.
    pub groups: Vec<PersonGroup>,
    /// At most 100 devices whose owner has the person's `userName`.
    pub devices: Vec<PersonDevice>,
    /// The person as SCIM has it.
    #[schema(value_type = Object)]
    pub resource: serde_json::Map<String, serde_json::Value>,
}

/// A group of a person.
#[derive(Debug, Serialize, ToSchema)]
pub struct PersonGroup {
    #[schema(value_type = String)]
    pub id: UserGroupId,
    pub display_name: String,
    /// Whether the group lists the person itself.
    pub direct: bool,
}

/// A device of a person.
#[derive(Debug, Serialize, ToSchema)]
pub struct PersonDevice {
    #[schema(value_type = String)]
    pub id: muster_model::DeviceId,
    pub name: String,
    pub platform: &'static str,
    pub state: &'static str,
    pub compliance: &'static str,
}

/// A group of people.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TeamView {
    #[schema(value_type = String)]
    pub id: UserGroupId,
    pub display_name: String,
    pub members: i64,
    #[schema(value_type = String)]
    pub connector: ClientId,
    pub created_at: String,
    pub updated_at: String,
}

impl TeamView {
    fn of(team: Team) -> TeamView {
        TeamView {
            id: team.id,
            display_name: team.display_name,
            members: team.members,
            connector: team.connector,
            created_at: team.created_at.to_string(),
            updated_at: team.updated_at.to_string(),
        }
    }
}

/// A member of a group.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TeamMemberView {
    /// Of a user, or of a group.
    pub id: String,
    pub display_name: Option<String>,
}

/// How the directory stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct DirectoryView {
    pub users: i64,
    pub inactive_users: i64,
    pub groups: i64,
    pub memberships: i64,
    /// Users that the tenant may have.
    pub users_max: i64,
    /// What an identity provider is given as its tenant URL or base URL.
    pub scim_url: String,
    pub connectors: Vec<ConnectorView>,
}

/// An identity provider that is connected.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConnectorView {
    pub name: String,
    pub tokens: Vec<ScimTokenView>,
}

/// A request of an identity provider: a change, or one that was refused.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RequestView {
    #[schema(value_type = String)]
    pub id: ScimRequestId,
    pub connector: String,
    pub method: String,
    /// What it was about, such as `Users/usr_…`.
    pub target: String,
    pub status: u16,
    pub scim_type: Option<String>,
    /// Why it was refused.
    pub detail: Option<String>,
    pub at: String,
}

/// Which people are wanted.
#[derive(Debug, Clone, Default)]
pub struct PersonFilter {
    /// A part of the name.
    pub text: String,
    /// `active`, `inactive` or empty.
    pub state: String,
}

/// A page of people by id.
pub fn people(
    tx: &mut Tx,
    tenant: TenantId,
    filter: &PersonFilter,
    after: Option<UserId>,
    limit: usize,
) -> Result<Page<PersonView>, Problem> {
    if !["", "active", "inactive"].contains(&filter.state.as_str()) {
        return Err(INVALID.detail("state is active or inactive."));
    }
    let after = after.unwrap_or(UserId::from_uuid(Uuid::nil()));
    let key = name_key(&filter.text);
    let like = match key.is_empty() {
        true => String::new(),
        false => format!(
            "%{}%",
            key.replace('!', "!!").replace('%', "!%").replace('_', "!_")
        ),
    };
    let found = store::find_users(tx, tenant, (&like, &filter.state), after, limit + 1)?;
    let views = found.into_iter().map(PersonView::of).collect();
    Ok(Page::of(views, limit, |view: &PersonView| view.id.to_string()))
}

/// A person by id or `userName`.
pub fn person(tx: &mut Tx, tenant: TenantId, text: &str) -> Result<PersonDetail, Problem> {
    let found = match text.parse::<UserId>() {
        Ok(id) => store::user(tx, tenant, id)?,
        Err(_) => store::user_by_key(tx, tenant, &name_key(text))?,
    };
    let user = found.ok_or_else(|| NOT_FOUND.detail("There is no such user."))?;
    let direct = teams::direct_teams_of(tx, tenant, user.id.uuid())?.len();
    let groups = teams::teams_of(tx, tenant, user.id)?.into_iter().enumerate();
    let groups = groups.map(|(at, team)| PersonGroup {
        id: team.id,
        display_name: team.display_name,
        direct: at < direct,
    });
    let owned = devices::of_owner(tx, tenant, &name_key(&user.user_name), DEVICES_SHOWN)?;
    let devices = owned.into_iter().map(|device| PersonDevice {
        id: device.id,
        name: device.name,
        platform: device.platform.as_str(),
        state: device.state.as_str(),
        compliance: device.compliance.as_str(),
    });
    Ok(PersonDetail {
        connector_name: access::client_name(tx, tenant, user.connector)?,
        external_id: user.external_id.clone(),
        version: user.version,
        groups: groups.collect(),
        devices: devices.collect(),
        resource: user.resource.clone(),
        person: PersonView::of(user),
    })
}

/// A page of groups by id.
pub fn teams_page(
    tx: &mut Tx,
    tenant: TenantId,
    after: Option<UserGroupId>,
    limit: usize,
) -> Result<Page<TeamView>, Problem> {
    let after = after.unwrap_or(UserGroupId::from_uuid(Uuid::nil()));
    let found = teams::after(tx, tenant, after, limit + 1)?;
    let views = found.into_iter().map(TeamView::of).collect();
    Ok(Page::of(views, limit, |view: &TeamView| view.id.to_string()))
}

/// A group by id.
pub fn team(tx: &mut Tx, tenant: TenantId, id: UserGroupId) -> Result<TeamView, Problem> {
    let found = teams::team(tx, tenant, id)?;
    found
        .map(TeamView::of)
        .ok_or_else(|| NOT_FOUND.detail("There is no such group of people."))
}

/// A page of a group's members by id.
pub fn team_members(
    tx: &mut Tx,
    tenant: TenantId,
    id: UserGroupId,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<TeamMemberView>, Problem> {
    team(tx, tenant, id)?;
    let after = match after {
        None => Uuid::nil(),
        Some(text) => teams::parse_member(text).map(|(id, _)| id).ok_or_else(|| {
            crate::access::problem::CURSOR_INVALID
                .detail("Send next_cursor of the page before, or no cursor.")
        })?,
    };
    let found = teams::members(tx, tenant, id, after, limit + 1)?;
    let views = found.into_iter().map(|row| TeamMemberView {
        id: teams::member_id((row.id, row.is_group)),
        display_name: row.display,
    });
    Ok(Page::of(views.collect(), limit, |view: &TeamMemberView| {
        view.id.clone()
    }))
}

/// How the directory stands.
pub fn overview(
    tx: &mut Tx,
    tenant: TenantId,
    admin_url: &str,
    now: Timestamp,
) -> Result<DirectoryView, Problem> {
    let counted = store::counted(tx, tenant)?;
    let mut connectors: Vec<ConnectorView> = Vec::new();
    for token in access::scim_tokens(tx, tenant)? {
        let name = token.connector.clone();
        let view = ScimTokenView::of(token, now);
        match connectors.iter_mut().find(|known| known.name == name) {
            Some(known) => known.tokens.push(view),
            None => connectors.push(ConnectorView {
                name,
                tokens: vec![view],
            }),
        }
    }
    let allowed = access::limits::limits_of(tx, tenant)?.people_max;
    Ok(DirectoryView {
        users: counted.users,
        inactive_users: store::count_inactive(tx, tenant)?,
        groups: counted.groups,
        memberships: counted.members,
        users_max: allowed.map_or(USERS_MAX, |most| i64::from(most).min(USERS_MAX)),
        scim_url: format!("{admin_url}/scim/v2"),
        connectors,
    })
}

/// A page of requests, newest first.
pub fn requests(
    tx: &mut Tx,
    tenant: TenantId,
    is_refused_only: bool,
    before: Option<ScimRequestId>,
    limit: usize,
) -> Result<Page<RequestView>, Problem> {
    let before = before.unwrap_or(ScimRequestId::from_uuid(Uuid::max()));
    let status_min = if is_refused_only { 400 } else { 0 };
    let mut views = Vec::new();
    for request in store::requests(tx, tenant, before, status_min, limit + 1)? {
        views.push(RequestView {
            id: request.id,
            connector: access::client_name(tx, tenant, request.connector)?,
            method: request.method,
            target: request.target,
            status: request.status,
            scim_type: request.scim_type,
            detail: request.detail,
            at: request.at.to_string(),
        });
    }
    Ok(Page::of(views, limit, |view: &RequestView| view.id.to_string()))
}
