//! What somebody holds, and through what.

use muster_model::{TenantId, Timestamp};
use muster_storage::Tx;
use serde::Serialize;
use utoipa::ToSchema;

use super::{DIRECTORY, Grant, Subject, find_role, store};
use crate::access::{Client, connection, problem::Problem, scope, shared_scopes};

/// Names that an explanation gives of those who can help.
const HELPERS_MAX: usize = 5;
/// Rows that are looked at for them.
const LOOKED_AT: i64 = 500;

/// The scopes of somebody, and the roles behind them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// With spaces between, in the order of the list.
    pub scopes: String,
    pub through: Vec<Through>,
}

/// A role, and how somebody comes to have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Through {
    pub role: String,
    /// `directly`, `link`, or the group's name.
    pub by: String,
    /// Who gave it, and when, where that is written.
    pub granted_by: Option<String>,
    pub granted_at: Option<String>,
    pub expires_at: Option<String>,
}

impl Held {
    /// The names of the roles, each once.
    pub fn roles(&self) -> Vec<String> {
        let mut names: Vec<String> = self.through.iter().map(|through| through.role.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn of_grants(
        tx: &mut Tx,
        tenant: TenantId,
        own: &str,
        grants: Vec<Grant>,
        now: Timestamp,
    ) -> Result<Held, Problem> {
        let mut lists = vec![own.to_owned()];
        let mut through = Vec::new();
        for grant in grants.into_iter().filter(|grant| grant.counts(now)) {
            // A role that is no more gives nothing.
            let Some(role) = find_role(tx, tenant, &grant.role)? else {
                continue;
            };
            lists.push(role.scopes);
            through.push(Through {
                role: grant.role,
                by: match grant.subject {
                    Subject::Group { name, .. } => name,
                    Subject::Person(_) | Subject::Client(_) => "directly".to_owned(),
                },
                granted_by: Some(grant.granted_by),
                granted_at: Some(grant.granted_at.to_string()),
                expires_at: grant.expires_at.map(|end| end.to_string()),
            });
        }
        Ok(Held {
            scopes: scope::union(lists.iter().map(String::as_str)),
            through,
        })
    }
}

/// What a service account holds: its own scopes, and those of its roles.
pub fn of_client(tx: &mut Tx, client: &Client, now: Timestamp) -> Result<Held, Problem> {
    let grants = store::grants_of(tx, client.tenant, &Subject::Client(client.id))?;
    Held::of_grants(tx, client.tenant, &client.scopes, grants, now)
}

/// What these roles give.
pub fn of_roles<'a>(
    tx: &mut Tx,
    tenant: TenantId,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<Held, Problem> {
    let mut held = Held::default();
    let mut lists = Vec::new();
    for name in names {
        if let Some(role) = find_role(tx, tenant, name)? {
            lists.push(role.scopes);
            held.through.push(Through {
                role: name.to_owned(),
                by: "link".to_owned(),
                granted_by: None,
                granted_at: None,
                expires_at: None,
            });
        }
    }
    held.scopes = scope::union(lists.iter().map(String::as_str));
    Ok(held)
}

/// What a person holds: the roles that they were given, and those of the groups that `source` says they are in.
pub fn of_groups(
    tx: &mut Tx,
    tenant: TenantId,
    person: Option<&str>,
    (source, groups): (&str, &[String]),
    now: Timestamp,
) -> Result<Held, Problem> {
    let mut grants = match person {
        Some(name) => store::grants_of(tx, tenant, &Subject::Person(name.to_owned()))?,
        None => Vec::new(),
    };
    grants.extend(of_source(tx, tenant, (source, groups))?);
    let mut held = Held::of_grants(tx, tenant, "", grants, now)?;
    if let Some(name) = person {
        let more = of_directory(tx, tenant, name, now)?;
        held.scopes = scope::union([held.scopes.as_str(), more.scopes.as_str()]);
        held.through.extend(more.through);
    }
    Ok(held)
}

/// As [`of_groups`], for a person who comes just now: groups of the directory that they were added to since count from here on.
pub fn at_sign_in(
    tx: &mut Tx,
    tenant: TenantId,
    person: &str,
    groups: (&str, &[String]),
    now: Timestamp,
) -> Result<Held, Problem> {
    let mut grants = store::grants_of(tx, tenant, &Subject::Person(person.to_owned()))?;
    grants.extend(of_source(tx, tenant, groups)?);
    grants.extend(directory_grants(tx, tenant, person)?);
    Held::of_grants(tx, tenant, "", grants, now)
}

fn of_source(
    tx: &mut Tx,
    tenant: TenantId,
    (source, groups): (&str, &[String]),
) -> Result<Vec<Grant>, Problem> {
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    let mut grants = store::grants_from(tx, tenant, source)?;
    grants.retain(|grant| groups.contains(&grant.subject.name()));
    Ok(grants)
}

/// What groups of the directory give a person, by the groups' names. They are in them now, and active; a role that can do more than
/// the groups of this connector give at most is none of them.
pub fn directory_grants(tx: &mut Tx, tenant: TenantId, person: &str) -> Result<Vec<Grant>, Problem> {
    let mut grants = store::grants_from(tx, tenant, DIRECTORY)?;
    if grants.is_empty() {
        return Ok(grants);
    }
    let teams = store::teams_of_person(tx, tenant, person)?;
    grants.retain(|grant| teams.iter().any(|(id, _)| id.to_string() == grant.subject.name()));
    let connection = store::person(tx, tenant, person)?.and_then(|person| person.connection);
    let ceiling = match connection {
        Some(connection) if !grants.is_empty() => connection::ceiling(tx, tenant, connection)?,
        _ => String::new(),
    };
    let mut within = Vec::new();
    for grant in grants {
        // A role that is no more gives nothing, wherever it is counted.
        if find_role(tx, tenant, &grant.role)?.is_some_and(|role| role.is_within(&ceiling)) {
            within.push(grant);
        }
    }
    let named = within.into_iter().filter_map(|grant| {
        let (_, name) = teams
            .iter()
            .find(|(id, _)| id.to_string() == grant.subject.name())?;
        Some(Grant {
            subject: Subject::Group {
                source: DIRECTORY.to_owned(),
                name: name.clone(),
            },
            ..grant
        })
    });
    Ok(named.collect())
}

/// What groups of the directory give a person now, within what they could do when they came last: since when somebody can do how much
/// is written down then, so that nobody is made stronger between two sign-ins. A role that was widened since gives what it gave.
fn of_directory(tx: &mut Tx, tenant: TenantId, person: &str, now: Timestamp) -> Result<Held, Problem> {
    let grants = directory_grants(tx, tenant, person)?;
    if grants.is_empty() {
        return Ok(Held::default());
    }
    let before = store::person(tx, tenant, person)?.map(|person| person.scopes);
    let held = Held::of_grants(tx, tenant, "", grants, now)?;
    let scopes = shared_scopes(&held.scopes, &before.unwrap_or_default());
    match scopes.is_empty() {
        true => Ok(Held::default()),
        false => Ok(Held { scopes, ..held }),
    }
}

/// Some of those who can give these scopes: who holds them, and may give roles or make accounts.
pub fn who_can_give(
    tx: &mut Tx,
    tenant: TenantId,
    missing: &[&str],
    now: Timestamp,
) -> Result<Vec<String>, Problem> {
    let can = |scopes: &str| {
        scope::holds(scopes, "access:write") && missing.iter().all(|name| scope::holds(scopes, name))
    };
    let mut found = Vec::new();
    for grant in store::grants(tx, tenant, LOOKED_AT)? {
        if found.len() >= HELPERS_MAX {
            break;
        }
        let role = find_role(tx, tenant, &grant.role)?;
        if grant.counts(now) && role.is_some_and(|role| can(&role.scopes)) {
            let label = match &grant.subject {
                Subject::Person(name) => format!("{name} ({})", grant.role),
                Subject::Group { name, .. } => format!("people of the group {name} ({})", grant.role),
                Subject::Client(_) => continue,
            };
            found.push(label);
        }
    }
    let first = muster_model::ClientId::from_uuid(uuid::Uuid::nil());
    for client in crate::access::store::clients(tx, tenant, first, LOOKED_AT)? {
        if found.len() < HELPERS_MAX && client.disabled_at.is_none() && can(&client.scopes) {
            found.push(format!("whoever has the service account {}", client.name));
        }
    }
    Ok(found)
}
