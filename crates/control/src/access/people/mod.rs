//! Who may do what: roles of a tenant, who has them, the people that are known, and the limits of their sessions.
//!
//! What somebody may do is read at each request, so a role that is taken away is gone at once. Nobody gives a role that can do
//! more than they can, takes one away that they could not give, or makes one with scopes that they do not hold.

mod api;
mod held;
mod review;
mod room;
pub(super) mod store;

use std::collections::BTreeSet;

use muster_model::{ClientId, ConnectionId, SessionId, TenantId, Timestamp, UserGroupId};
use muster_storage::Tx;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Permit, connection,
    problem::{CONFLICT, INVALID, NAME_TAKEN, NOT_FOUND, Problem},
    roles, routing, scope, vouch,
};
use crate::audit::LoggedTx;
pub use api::router;
pub use held::{Held, Through, at_sign_in, directory_grants, of_client, of_groups, of_roles, who_can_give};
pub use review::{Reviewed, ReviewedSubject, review};
pub(super) use room::make_room;
pub use room::{CROWDED, UNSEEN_DAYS, forget_unseen};
pub use store::ListedSession;

/// Roles that a tenant defines.
pub const ROLES_MAX: usize = 100;
/// Grants of one tenant, and roles of one subject.
pub const GRANTS_MAX: i64 = 2_000;
pub const ROLES_OF_ONE_MAX: usize = 16;
/// People of one tenant that are remembered.
pub const PEOPLE_MAX: i64 = 10_000;
const NAME_CHARS_MAX: usize = 64;
const DESCRIPTION_CHARS_MAX: usize = 200;
const SUBJECT_CHARS_MAX: usize = 256;
/// A name that no connection has: the directory that is kept up to date from outside.
pub const DIRECTORY: &str = "directory";

/// A role: a name for scopes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    pub name: String,
    pub description: String,
    /// With spaces between, in the order of the list.
    pub scopes: String,
    pub is_built_in: bool,
    pub updated_by: Option<String>,
    pub updated_at: Option<Timestamp>,
}

/// Who can have a role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Person(String),
    Client(ClientId),
    /// A group, as `source` names it: the id of a connection.
    Group {
        source: String,
        name: String,
    },
}

impl Subject {
    pub const fn kind(&self) -> &'static str {
        match self {
            Subject::Person(_) => "person",
            Subject::Client(_) => "client",
            Subject::Group { .. } => "group",
        }
    }

    pub fn source(&self) -> &str {
        match self {
            Subject::Person(_) | Subject::Client(_) => "",
            Subject::Group { source, .. } => source,
        }
    }

    pub fn name(&self) -> String {
        match self {
            Subject::Person(name) | Subject::Group { name, .. } => name.clone(),
            Subject::Client(id) => id.to_string(),
        }
    }

    fn read(kind: &str, source: String, name: String) -> Option<Subject> {
        match kind {
            "person" => Some(Subject::Person(name)),
            "client" => name.parse().ok().map(Subject::Client),
            "group" => Some(Subject::Group { source, name }),
            _ => None,
        }
    }
}

/// That somebody has a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub subject: Subject,
    pub role: String,
    pub granted_by: String,
    pub granted_at: Timestamp,
    /// From when it counts no more.
    pub expires_at: Option<Timestamp>,
}

impl Grant {
    pub fn counts(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

/// Who a person is outside: OpenID Connect Core, section 5.7, and the subject of a SAML assertion. Never an address of mail, which
/// may belong to somebody else tomorrow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    pub issuer: String,
    pub subject: String,
}

/// A person that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// As the log names them, for ever.
    pub name: String,
    pub since: Timestamp,
    /// Nothing for people of sign-in links.
    pub outside: Option<Outside>,
    /// The connection that speaks for them; no other one does, whatever issuer it names.
    pub connection: Option<ConnectionId>,
    /// What they last signed in with there: as the directory knows them. Empty for people of links.
    pub username: String,
    pub display_name: String,
    /// The groups that the connection named then.
    pub member_of: Vec<String>,
    /// What they could do when they last came, and since when that much.
    pub scopes: String,
    pub raised_at: Option<Timestamp>,
    pub seen_at: Option<Timestamp>,
    pub disabled_at: Option<Timestamp>,
}

impl Person {
    /// Whether what a connection says is said of this person.
    pub fn is_of(&self, connection: ConnectionId) -> bool {
        self.connection == Some(connection)
    }
}

/// The limits of a tenant's sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionSettings {
    /// A session without a request for this long ends: 60 to 28800.
    pub idle_seconds: u64,
    /// A session ends after this long whatever happens: 300 to 86400.
    pub session_seconds: u64,
    /// For how long after proving who they are a person may do what is destructive: 60 to 3600.
    pub step_up_seconds: u64,
    /// Sessions that one person has at once, 1 to 20: one more ends the oldest.
    pub sessions_per_person: u64,
}

impl Default for SessionSettings {
    fn default() -> SessionSettings {
        SessionSettings {
            idle_seconds: 15 * 60,
            session_seconds: 8 * 3600,
            step_up_seconds: 15 * 60,
            sessions_per_person: 3,
        }
    }
}

impl SessionSettings {
    fn check(&self) -> Result<(), Problem> {
        let within = [
            ("idle_seconds", self.idle_seconds, 60..=28_800),
            ("session_seconds", self.session_seconds, 300..=86_400),
            ("step_up_seconds", self.step_up_seconds, 60..=3600),
            ("sessions_per_person", self.sessions_per_person, 1..=20),
        ];
        for (name, value, range) in within {
            if !range.contains(&value) {
                return Err(INVALID.detail(format!(
                    "{name} is {} to {}, not {value}.",
                    range.start(),
                    range.end()
                )));
            }
        }
        Ok(())
    }
}

/// The limits of a tenant's sessions, as set or as the program has them.
pub fn session_settings(tx: &mut Tx, tenant: TenantId) -> Result<SessionSettings, Problem> {
    Ok(store::settings(tx, tenant)?.unwrap_or_default())
}

pub fn set_session_settings(tx: &mut LoggedTx<'_>, settings: &SessionSettings) -> Result<(), Problem> {
    settings.check()?;
    let (tenant, by, at) = (tx.tenant(), tx.actor(), tx.at());
    store::put_settings(tx, tenant, settings, (&by, at))?;
    tx.record(
        "access.session_settings_changed",
        ("tenant", tenant.to_string()),
        serde_json::to_value(settings).map_err(Problem::internal)?,
    )
    .map(drop)
}

/// The roles of a tenant: those of the program, then its own.
pub fn all_roles(tx: &mut Tx, tenant: TenantId) -> Result<Vec<Role>, Problem> {
    let built_in = roles::built_in().iter().map(Role::of);
    Ok(built_in.chain(store::roles(tx, tenant)?).collect())
}

/// A role by its name.
pub fn role(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Role, Problem> {
    find_role(tx, tenant, name)?.ok_or_else(|| {
        NOT_FOUND.detail(format!(
            "There is no role {name:?}. `muster access roles` lists them."
        ))
    })
}

pub(super) fn find_role(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Option<Role>, Problem> {
    match roles::find(name) {
        Some(role) => Ok(Some(Role::of(role))),
        None => Ok(store::role(tx, tenant, name)?),
    }
}

/// When the newest of these grants was given, or one of their roles changed: what it gives now may be new.
pub fn granted_at(tx: &mut Tx, tenant: TenantId, grants: &[Grant]) -> Result<Option<Timestamp>, Problem> {
    let mut newest = None;
    for grant in grants {
        let changed = find_role(tx, tenant, &grant.role)?.and_then(|role| role.updated_at);
        newest = newest.max(Some(grant.granted_at)).max(changed);
    }
    Ok(newest)
}

impl Role {
    /// Whether it can do nothing that these scopes cannot.
    fn is_within(&self, scopes: &str) -> bool {
        self.scopes
            .split_whitespace()
            .all(|name| scope::holds(scopes, name))
    }

    fn of(role: &roles::BuiltIn) -> Role {
        Role {
            name: role.name.to_owned(),
            description: role.description.to_owned(),
            scopes: role.scopes.clone(),
            is_built_in: true,
            updated_by: None,
            updated_at: None,
        }
    }
}

/// Defines a role of the tenant, or defines it anew.
pub fn put_role<S>(
    tx: &mut LoggedTx<'_>,
    permit: &Permit<S>,
    (name, description): (&str, &str),
    scopes: &[String],
) -> Result<Role, Problem> {
    let (tenant, by, at) = (tx.tenant(), tx.actor(), tx.at());
    let is_name =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.bytes().all(is_name) {
        return Err(INVALID.detail("The name of a role has 1 to 64 of the characters a-z, 0-9, - and _."));
    }
    if roles::find(name).is_some() {
        return Err(NAME_TAKEN.detail("That is a role of the program. Choose another name."));
    }
    if description.chars().count() > DESCRIPTION_CHARS_MAX {
        return Err(INVALID.detail("A description has at most 200 characters."));
    }
    if let Some(unknown) = scopes.iter().find(|name| !scope::exists(name)) {
        return Err(INVALID.detail(format!(
            "There is no scope {unknown}. The OAuth metadata lists them."
        )));
    }
    let scopes = scope::union(scopes.iter().map(String::as_str));
    if scopes.is_empty() {
        return Err(INVALID.detail("Name the scopes that the role gives, for example device:read."));
    }
    let before = store::role(tx, tenant, name)?;
    // What it gave is taken from those who have it: nobody does that to people who may do more.
    let touched = before
        .iter()
        .map(|role| role.scopes.as_str())
        .chain([scopes.as_str()]);
    permit.require_held(scope::union(touched).split(' '))?;
    if before.is_none() && store::roles(tx, tenant)?.len() >= ROLES_MAX {
        return Err(INVALID.detail("A tenant defines at most 100 roles. Remove one first."));
    }
    store::put_role(tx, tenant, (name, description, &scopes), (&by, at))?;
    tx.record(
        "access.role_defined",
        ("role", name.to_owned()),
        serde_json::json!({"scopes": scopes, "scopes_before": before.map(|role| role.scopes)}),
    )?;
    role(tx, tenant, name)
}

/// Removes a role that nobody has.
pub fn delete_role<S>(tx: &mut LoggedTx<'_>, permit: &Permit<S>, name: &str) -> Result<(), Problem> {
    let tenant = tx.tenant();
    let Some(found) = store::role(tx, tenant, name)? else {
        return Err(NOT_FOUND.detail("The tenant has no role of this name. Those of the program stay."));
    };
    permit.require_held(found.scopes.split(' '))?;
    if connection::links(tx, tenant)?
        .iter()
        .any(|link| link.at_most == name)
    {
        return Err(CONFLICT.detail(
            "A connection's directory gives at most this role: `muster sso list` shows which. Name another one there first.",
        ));
    }
    let granted = store::role_grants(tx, tenant, name)?;
    if granted > 0 {
        return Err(CONFLICT.detail(format!(
            "The role is granted {granted} times. `muster access grants` shows to whom; take it away first."
        )));
    }
    store::delete_role(tx, tenant, name)?;
    tx.record(
        "access.role_removed",
        ("role", name.to_owned()),
        serde_json::json!({}),
    )
    .map(drop)
}

/// Gives a role.
pub fn grant<S>(
    tx: &mut LoggedTx<'_>,
    permit: &Permit<S>,
    subject: Subject,
    name: &str,
    expires_at: Option<Timestamp>,
) -> Result<Grant, Problem> {
    let (tenant, granted_by, at) = (tx.tenant(), tx.actor(), tx.at());
    let found = role(tx, tenant, name)?;
    permit.require_held(found.scopes.split(' '))?;
    if expires_at.is_some_and(|end| end <= at) {
        return Err(INVALID.detail("The grant would have ended already."));
    }
    check_subject(tx, &subject, &found)?;
    let others = store::grants_of(tx, tenant, &subject)?;
    let is_new = !others.iter().any(|grant| grant.role == name);
    if is_new && (others.len() >= ROLES_OF_ONE_MAX || store::grant_count(tx, tenant)? >= GRANTS_MAX) {
        return Err(INVALID.detail("One subject has at most 16 roles, and a tenant 2,000 grants."));
    }
    let grant = Grant {
        subject,
        role: found.name,
        granted_by,
        granted_at: at,
        expires_at,
    };
    store::insert_grant(tx, tenant, &grant)?;
    tx.record(
        "access.role_granted",
        (grant.subject.kind(), grant.subject.name()),
        serde_json::json!({"role": name, "source": grant.subject.source(), "expires_at": expires_at, "scopes": found.scopes}),
    )?;
    Ok(grant)
}

/// Takes a role away; it is gone with the next request.
pub fn revoke<S>(
    tx: &mut LoggedTx<'_>,
    permit: &Permit<S>,
    subject: &Subject,
    name: &str,
) -> Result<(), Problem> {
    let tenant = tx.tenant();
    // A role that is no more can be taken away by anybody who takes roles away.
    let scopes = find_role(tx, tenant, name)?
        .map(|role| role.scopes)
        .unwrap_or_default();
    permit.require_held(scopes.split_whitespace())?;
    if store::delete_grant(tx, tenant, subject, name)? == 0 {
        return Err(NOT_FOUND.detail(format!("The {} does not have the role {name}.", subject.kind())));
    }
    tx.record(
        "access.role_revoked",
        (subject.kind(), subject.name()),
        serde_json::json!({"role": name, "source": subject.source()}),
    )
    .map(drop)
}

/// A subject that exists, or a group that may.
fn check_subject(tx: &mut LoggedTx<'_>, subject: &Subject, role: &Role) -> Result<(), Problem> {
    let tenant = tx.tenant();
    match subject {
        Subject::Person(name) => match store::person(tx, tenant, name)? {
            Some(person) if person.outside.is_some() => Ok(()),
            Some(_) => Err(INVALID.detail(
                "This person comes by links: what they may do is decided where the link is made, with --role.",
            )),
            None => Err(NOT_FOUND.detail(
                "Nobody of this name has come yet. A person who signs in without a role is listed by `muster access people`.",
            )),
        },
        Subject::Client(id) => {
            let client = super::store::client(tx, *id)?;
            let is_ours = |client: super::Client| client.tenant == tenant && client.disabled_at.is_none();
            if client.is_some_and(is_ours) {
                Ok(())
            } else {
                Err(NOT_FOUND.detail("There is no client with this id."))
            }
        }
        Subject::Group { source, name } if source == DIRECTORY => check_team(tx, tenant, name, role),
        Subject::Group { source, name } => {
            if source.is_empty() || source.len() > NAME_CHARS_MAX {
                return Err(INVALID.detail("Say by which connection the group comes."));
            }
            if name.is_empty() || name.chars().count() > SUBJECT_CHARS_MAX || name.chars().any(char::is_control) {
                return Err(INVALID.detail("The name of a group has 1 to 256 characters."));
            }
            Ok(())
        }
    }
}

/// A group of a connector whose people sign in by a connection that says so, and that may give them so much.
fn check_team(tx: &mut LoggedTx<'_>, tenant: TenantId, id: &str, role: &Role) -> Result<(), Problem> {
    let found = match id.parse() {
        Ok(id) => store::team(tx, tenant, id)?,
        Err(_) => None,
    };
    let team = found.ok_or_else(|| NOT_FOUND.detail("The directory has no such group."))?;
    let connector = super::client_name(tx, tenant, team.connector)?;
    let mut links = connection::links(tx, tenant)?;
    links.retain(|link| link.connector == connector);
    let Some(link) = links.first() else {
        return Err(INVALID.detail(format!(
            "Groups of the connector {connector} give roles only once a connection says that its people are that connector's: set \
             directory in it."
        )));
    };
    for link in &links {
        if find_role(tx, tenant, &link.at_most)?.is_some_and(|most| role.is_within(&most.scopes)) {
            return Ok(());
        }
    }
    Err(INVALID.detail(format!(
        "Groups of the connector {connector} give at most the role {}, and {} can do more. Give it to the person, or set \
         at_most of the connection's directory.",
        link.at_most, role.name
    )))
}

/// Says in the log that members were added to a group of the directory through which people get roles: whoever keeps the directory
/// gives them, so that somebody here is told.
pub fn note_joined(tx: &mut LoggedTx<'_>, group: UserGroupId, added: usize) -> Result<(), Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let mut grants = store::grants_from(tx, tenant, DIRECTORY)?;
    grants.retain(|grant| grant.counts(at));
    if grants.is_empty() {
        return Ok(());
    }
    let Some(team) = store::team(tx, tenant, group)? else {
        return Ok(());
    };
    let mut groups = store::teams_over(tx, tenant, group.uuid(), team.connector.uuid())?;
    groups.push((group, team.name));
    let is_of = |grant: &Grant| {
        groups
            .iter()
            .any(|(id, _)| id.to_string() == grant.subject.name())
    };
    let roles: BTreeSet<String> = grants.into_iter().filter(is_of).map(|grant| grant.role).collect();
    if roles.is_empty() {
        return Ok(());
    }
    tx.record(
        "access.role_by_directory",
        ("user_group", group.to_string()),
        serde_json::json!({"roles": roles, "added": added}),
    )
    .map(drop)
}

/// Lets a person in no more, and ends their sessions and sign-in links.
pub fn disable_person(tx: &mut LoggedTx<'_>, name: &str) -> Result<u64, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    if store::disable(tx, tenant, name, at)? == 0 {
        return Err(NOT_FOUND.detail("There is no such person, or they are disabled already."));
    }
    let ended = store::end_sessions_of(tx, tenant, name)?;
    // Otherwise one would be good again when the person is let in again.
    let links = store::delete_links_of(tx, tenant, name)?;
    tx.record(
        "access.person_disabled",
        ("user", name.to_owned()),
        serde_json::json!({"sessions_ended": ended, "links_ended": links}),
    )?;
    Ok(ended)
}

/// Lets a person in again. Their roles come back with them, so whoever does it holds what these give; of a person of links, what the
/// account holds that vouches for them.
pub fn enable_person<S>(tx: &mut LoggedTx<'_>, permit: &Permit<S>, name: &str) -> Result<(), Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    if let Some(person) = store::person(tx, tenant, name)? {
        let source = person.connection.map(|id| id.to_string()).unwrap_or_default();
        let held = of_groups(tx, tenant, Some(name), (&source, &person.member_of), at)?;
        permit.require_held(held.scopes.split_whitespace())?;
        if person.outside.is_none() {
            let most = vouch::holdings(tx, tenant, name, at)?.unwrap_or_default();
            permit.require_held(most.split_whitespace())?;
        }
    }
    if store::enable(tx, tenant, name)? == 0 {
        return Err(NOT_FOUND.detail("There is no such person, or they are not disabled."));
    }
    tx.record(
        "access.person_enabled",
        ("user", name.to_owned()),
        serde_json::json!({}),
    )
    .map(drop)
}

/// Ends a session of anybody.
pub fn end_session(tx: &mut LoggedTx<'_>, id: SessionId) -> Result<String, Problem> {
    let tenant = tx.tenant();
    let Some(person) = store::end_session(tx, tenant, id)? else {
        return Err(NOT_FOUND.detail("The session has ended, or never was."));
    };
    tx.record(
        "session.ended",
        ("user", person.clone()),
        serde_json::json!({"session": id.to_string()}),
    )?;
    Ok(person)
}

/// Ends every session of a person; answers how many there were.
pub fn end_sessions_of(tx: &mut LoggedTx<'_>, person: &str) -> Result<u64, Problem> {
    let tenant = tx.tenant();
    let ended = store::end_sessions_of(tx, tenant, person)?;
    if ended > 0 {
        tx.record(
            "session.ended",
            ("user", person.to_owned()),
            serde_json::json!({"sessions": ended}),
        )?;
    }
    Ok(ended)
}

/// The people of a tenant by name.
pub fn people(tx: &mut Tx, tenant: TenantId, after: &str, limit: usize) -> Result<Vec<Person>, Problem> {
    Ok(store::persons(
        tx,
        tenant,
        after,
        i64::try_from(limit).unwrap_or(i64::MAX),
    )?)
}

pub fn person(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Option<Person>, Problem> {
    Ok(store::person(tx, tenant, name)?)
}

pub fn grants(tx: &mut Tx, tenant: TenantId) -> Result<Vec<Grant>, Problem> {
    Ok(store::grants(tx, tenant, GRANTS_MAX + 1)?)
}

/// The sessions of a tenant, or of a person.
pub fn sessions(tx: &mut Tx, tenant: TenantId, of: Option<&str>) -> Result<Vec<ListedSession>, Problem> {
    const ROWS_MAX: i64 = 500;
    Ok(match of {
        Some(person) => store::sessions_of(tx, tenant, person, ROWS_MAX)?,
        None => store::sessions(tx, tenant, SessionId::from_uuid(uuid::Uuid::nil()), ROWS_MAX)?,
    })
}

/// A subject as grants name it: of a group, the connection by its id.
pub fn resolve(tx: &mut LoggedTx<'_>, subject: Subject) -> Result<Subject, Problem> {
    let tenant = tx.tenant();
    match subject {
        // By their ids, which another group of the same name does not get.
        Subject::Group { source, name } if source == DIRECTORY => {
            let name = match name.parse::<UserGroupId>() {
                Ok(id) => id.to_string(),
                Err(_) => match store::teams_named(tx, tenant, &name)?.as_slice() {
                    [only] => only.to_string(),
                    [] => return Err(NOT_FOUND.detail(format!("The directory has no group {name:?}."))),
                    _ => {
                        return Err(INVALID
                            .detail("The directory has several groups of this name: say which by its id."));
                    }
                },
            };
            Ok(Subject::Group { source, name })
        }
        Subject::Group { source, name } => {
            let mut taken = routing::taken(tx, tenant)?.into_iter();
            let is_meant = |one: &routing::Acceptance| {
                one.connection.to_string() == source || routing::name_there(&one.name) == source
            };
            let id = match taken.find(is_meant) {
                Some(one) => one.connection,
                None => connection::named(tx, tenant, &source)?.id,
            };
            Ok(Subject::Group {
                source: id.to_string(),
                name,
            })
        }
        other => Ok(other),
    }
}

/// A service account of the tenant.
pub fn client(tx: &mut Tx, tenant: TenantId, id: ClientId) -> Result<super::Client, Problem> {
    let client = super::store::client(tx, id)?;
    client
        .filter(|client| client.tenant == tenant && client.disabled_at.is_none())
        .ok_or_else(|| NOT_FOUND.detail("There is no client with this id."))
}

/// Who names groups of this tenant, with the names that people know them by.
pub fn sources(tx: &mut Tx, tenant: TenantId) -> Result<Vec<(String, String)>, Problem> {
    let (mut sources, mut has_directory) = (Vec::new(), false);
    for connection in connection::connections(tx, tenant)? {
        has_directory |= connection.definition()?.directory().is_some();
        sources.push((connection.id.to_string(), connection.name));
    }
    if has_directory {
        sources.push((DIRECTORY.to_owned(), "the directory (SCIM)".to_owned()));
    }
    let taken = routing::taken(tx, tenant)?.into_iter();
    sources.extend(taken.map(|one| (one.connection.to_string(), routing::name_there(&one.name))));
    Ok(sources)
}

/// What people call the group of a grant, where grants name it otherwise.
pub fn group_name(tx: &mut Tx, tenant: TenantId, subject: &Subject) -> Result<Option<String>, Problem> {
    match subject {
        Subject::Group { source, name } if source == DIRECTORY => {
            let team = name
                .parse()
                .ok()
                .map(|id| store::team(tx, tenant, id))
                .transpose()?;
            Ok(team.flatten().map(|team| team.name))
        }
        Subject::Group { .. } | Subject::Person(_) | Subject::Client(_) => Ok(None),
    }
}
