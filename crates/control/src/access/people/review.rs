//! The access review: everybody who may do anything, through what, and when they last did.

use std::collections::BTreeMap;

use muster_model::{ClientId, SessionId, TenantId, Timestamp};
use muster_storage::Tx;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Subject, Through, held, store, store::ListedSession};
use crate::access::{
    problem::Problem,
    scope,
    session::{BY_LINK, of_link},
    visits,
};

/// Rows of each kind that a review looks at.
const ROWS_MAX: i64 = 2_000;
/// Scopes that a reviewer looks for first, with what they allow in a word.
const POWERS: &[(&str, &str)] = &[
    ("command:wipe", "wipe"),
    ("script:run", "run scripts"),
    ("access:write", "give roles"),
    ("client:write", "make accounts"),
    ("sso:write", "connect identity providers"),
    ("root:write", "publish root documents"),
    ("config:read", "read configuration secrets"),
];
/// After this long without use a reviewer asks.
const UNUSED_DAYS: u64 = 90;

/// What kind of subject a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReviewedSubject {
    Person,
    /// A person who is signed in by a one-time link.
    Link,
    Group,
    Client,
    /// A person of the operator's tenant who is here by a visit, or may begin one now.
    Visitor,
}

/// One who may do something.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Reviewed {
    pub kind: ReviewedSubject,
    /// As grants name it: a person, a client's id, a group.
    pub subject: String,
    /// As people know it.
    pub name: String,
    /// Of a group: who says who is in it.
    pub source: Option<String>,
    pub through: Vec<Through>,
    pub scopes: Vec<String>,
    /// What of it a reviewer looks at first.
    pub powers: Vec<String>,
    pub last_used_at: Option<String>,
    pub disabled: bool,
    /// What to look at.
    pub notes: Vec<String>,
}

/// Everybody who may do anything, the most powerful first; whether that is all of them.
pub fn review(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<(Vec<Reviewed>, bool), Problem> {
    let mut rows = Vec::new();
    let used: BTreeMap<ClientId, Timestamp> = store::clients_used(tx, tenant)?.into_iter().collect();
    let first = ClientId::from_uuid(uuid::Uuid::nil());
    let clients = crate::access::store::clients(tx, tenant, first, ROWS_MAX)?;
    let mut is_whole = (clients.len() as i64) < ROWS_MAX;
    for client in clients.into_iter().filter(|client| client.disabled_at.is_none()) {
        let held = held::of_client(tx, &client, now)?;
        let mut through = held.through;
        if !client.scopes.is_empty() {
            through.push(Through {
                role: "its own scopes".to_owned(),
                by: "directly".to_owned(),
                granted_by: None,
                granted_at: Some(client.created_at.to_string()),
                expires_at: None,
            });
        }
        let last = used.get(&client.id).copied();
        rows.push(Reviewed::of(
            (ReviewedSubject::Client, client.id.to_string(), client.name),
            (through, &held.scopes),
            (last, client.created_at, now),
        ));
    }
    let people = store::persons(tx, tenant, "", ROWS_MAX)?;
    is_whole &= (people.len() as i64) < ROWS_MAX;
    for person in people.into_iter().filter(|person| person.outside.is_some()) {
        let source = person.connection.map(|id| id.to_string()).unwrap_or_default();
        let held = held::of_groups(tx, tenant, Some(&person.name), (&source, &person.member_of), now)?;
        if held.scopes.is_empty() {
            continue;
        }
        let label = if person.display_name.is_empty() {
            person.name.clone()
        } else {
            person.display_name.clone()
        };
        let mut row = Reviewed::of(
            (ReviewedSubject::Person, person.name, label),
            (held.through, &held.scopes),
            (person.seen_at, person.since, now),
        );
        row.disabled = person.disabled_at.is_some();
        rows.push(row);
    }
    let (by_link, all_sessions) = signed_in_by_link(tx, tenant, now)?;
    is_whole &= all_sessions;
    rows.extend(by_link);
    rows.extend(visitors(tx, tenant, now)?);
    let mut groups: BTreeMap<Subject, Vec<Through>> = BTreeMap::new();
    for grant in store::grants(tx, tenant, ROWS_MAX)? {
        if matches!(grant.subject, Subject::Group { .. }) && grant.counts(now) {
            groups.entry(grant.subject).or_default().push(Through {
                role: grant.role,
                by: "directly".to_owned(),
                granted_by: Some(grant.granted_by),
                granted_at: Some(grant.granted_at.to_string()),
                expires_at: grant.expires_at.map(|end| end.to_string()),
            });
        }
    }
    for (subject, through) in groups {
        let names = through.iter().map(|through| through.role.as_str());
        let scopes = held::of_roles(tx, tenant, names)?.scopes;
        let name = super::group_name(tx, tenant, &subject)?.unwrap_or_else(|| subject.name());
        let mut row = Reviewed::of(
            (ReviewedSubject::Group, subject.name(), name),
            (through, &scopes),
            (Some(now), now, now),
        );
        row.source = Some(subject.source().to_owned());
        row.last_used_at = None;
        rows.push(row);
    }
    rows.sort_by_key(|row| std::cmp::Reverse((row.powers.len(), row.scopes.len())));
    Ok((rows, is_whole))
}

/// People of the operator's tenant whose visits are granted or under way.
fn visitors(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<Vec<Reviewed>, Problem> {
    let mut rows = Vec::new();
    for visit in visits::let_in(tx, tenant, now)? {
        let through = Through {
            role: visit.role.clone(),
            by: visits::BY_VISIT.to_owned(),
            granted_by: visit.decided_by.clone(),
            granted_at: visit.decided_at.map(|at| at.to_string()),
            expires_at: visit.ends_at.or(Some(visit.answer_by)).map(|at| at.to_string()),
        };
        let scopes = visits::scopes_of(&visit.role).unwrap_or_default();
        rows.push(Reviewed::of(
            (ReviewedSubject::Visitor, visit.actor, visit.display_name),
            (vec![through], &scopes),
            (visit.begun_at, visit.asked_at, now),
        ));
    }
    Ok(rows)
}

/// People who are signed in by a one-time link: nobody gave them a role, and they act all the same, until their sessions end.
/// Also whether that is all of them.
fn signed_in_by_link(
    tx: &mut Tx,
    tenant: TenantId,
    now: Timestamp,
) -> Result<(Vec<Reviewed>, bool), Problem> {
    let sessions = store::sessions(tx, tenant, SessionId::from_uuid(uuid::Uuid::nil()), ROWS_MAX)?;
    let is_whole = (sessions.len() as i64) < ROWS_MAX;
    let mut people: BTreeMap<String, Vec<ListedSession>> = BTreeMap::new();
    let is_live = |session: &ListedSession| session.method == BY_LINK && session.expires_at > now;
    for session in sessions.into_iter().filter(is_live) {
        people.entry(session.person.clone()).or_default().push(session);
    }
    let mut rows = Vec::new();
    for (person, sessions) in people {
        let (mut through, mut scopes) = (Vec::new(), Vec::new());
        for session in &sessions {
            if let Some(held) = of_link(tx, (tenant, &session.made_by, &session.roles), now)? {
                through.extend(held.through.into_iter().map(|given| Through {
                    by: BY_LINK.to_owned(),
                    granted_by: Some(session.made_by.clone()),
                    granted_at: Some(session.created_at.to_string()),
                    expires_at: Some(session.expires_at.to_string()),
                    ..given
                }));
                scopes.push(held.scopes);
            }
        }
        let scopes = scope::union(scopes.iter().map(String::as_str));
        let seen = sessions.iter().map(|session| session.seen_at).max();
        let since = sessions.iter().map(|session| session.created_at).min();
        if !scopes.is_empty() {
            rows.push(Reviewed::of(
                (ReviewedSubject::Link, person.clone(), person),
                (through, &scopes),
                (seen, since.unwrap_or(now), now),
            ));
        }
    }
    Ok((rows, is_whole))
}

impl Reviewed {
    fn of(
        (kind, subject, name): (ReviewedSubject, String, String),
        (through, scopes): (Vec<Through>, &str),
        (used, since, now): (Option<Timestamp>, Timestamp, Timestamp),
    ) -> Reviewed {
        let powers = POWERS.iter().filter(|(name, _)| scope::holds(scopes, name));
        let unused = std::time::Duration::from_secs(UNUSED_DAYS * 86_400);
        let mut notes = Vec::new();
        match used {
            None if now.since(since) > unused => notes.push("never used".to_owned()),
            Some(last) if now.since(last) > unused => notes.push(format!("not used for {UNUSED_DAYS} days")),
            _ => {}
        }
        if through.iter().any(|through| through.expires_at.is_some()) {
            notes.push("ends by itself".to_owned());
        }
        Reviewed {
            kind,
            subject,
            name,
            source: None,
            through,
            scopes: scopes.split_whitespace().map(str::to_owned).collect(),
            powers: powers.map(|(_, word)| (*word).to_owned()).collect(),
            last_used_at: used.map(|at| at.to_string()),
            disabled: false,
            notes,
        }
    }
}
