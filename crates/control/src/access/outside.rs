//! Letting in somebody whose identity another has proven: the one way from an identity provider's word to a session, whatever the
//! protocol in which the word came.
//!
//! Who somebody is follows from (issuer, subject). Their name in the log is made once, at their first visit, and stays. What they
//! may do follows from the roles that they and their groups have; whoever has none is remembered, so that somebody can give them one,
//! and gets no session.

use muster_model::{ConnectionId, TenantId, Timestamp};
use muster_trust::{
    entry::{Actor, ActorKind},
    key::Digest,
};
use serde::{Deserialize, Serialize};

use super::{
    Author, PagePermit,
    connection::{Connection, refused},
    is_barred,
    people::{self, Outside, Person, store},
    problem::{CONFLICT, INVALID, Problem},
    scope,
    session::{self, NewSession},
    step_up,
    store::SessionKind,
};
use crate::{App, audit};

/// Names that are tried before a person is called by their subject.
const NAMES_TRIED: usize = 20;
const NAME_CHARS_MAX: usize = 100;

/// What somebody is sent to an identity provider for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    SignIn,
    /// To prove again who they are, in the session that they have.
    StepUp,
}

/// How a way to a provider and back ended, and where to go on.
#[derive(Debug)]
pub enum Arrival {
    Admitted { admission: Admission, next: String },
    SteppedUp { next: String },
}

/// What another has proven about a person.
#[derive(Debug, Clone)]
pub struct OutsideIdentity {
    /// Who says so: groups count only as this connection names them.
    pub connection: ConnectionId,
    pub connection_name: String,
    /// `oidc` or another.
    pub method: &'static str,
    pub issuer: String,
    pub subject: String,
    /// What the person signs in with there: for people, never to know them by.
    pub username: String,
    pub display_name: String,
    pub groups: Vec<String>,
    /// When the provider asked the person, where it says so.
    pub authenticated_at: Option<Timestamp>,
    /// The session at the provider, so that its end ends ours.
    pub provider_session: Option<String>,
    /// As the provider names the person when it ends sessions, where that is more than the subject.
    pub provider_name: Option<String>,
    /// Limits below those of the tenant.
    pub idle_seconds: Option<u64>,
    pub session_seconds: Option<u64>,
}

/// How a visit ended.
#[derive(Debug)]
pub enum Admission {
    /// The session cookie's value.
    Session(String),
    /// Nobody gave the person or one of their groups a role.
    NoRole {
        person: String,
        groups: Vec<String>,
    },
    Disabled {
        person: String,
    },
}

/// Lets a person in, if they have a role.
pub async fn admit(app: &App, tenant: TenantId, identity: OutsideIdentity) -> Result<Admission, Problem> {
    let known = find(app, tenant, &identity).await?;
    let (name, is_new) = match known {
        Some(person) => (person.name, false),
        None => (free_name(app, tenant, &identity).await?, true),
    };
    // Whoever comes from outside answers for themselves: no account vouches for them.
    let author = Author {
        tenant,
        actor: Actor {
            kind: ActorKind::User,
            id: name.clone(),
        },
        voucher: None,
    };
    audit::commit(app, &author, move |tx| {
        super::require_open_in(tx, tenant)?;
        let at = tx.at();
        if is_new {
            insert(tx, tenant, &name, &identity)?;
        }
        let person = store::person(tx, tenant, &name)?
            .ok_or_else(|| Problem::internal("a person who was just written is not there"))?;
        let because = if person.disabled_at.is_some() {
            Some("disabled")
        } else if is_barred(tx, tenant, &identity.username)? || is_barred(tx, tenant, &name)? {
            Some("inactive in the directory")
        } else {
            None
        };
        if let Some(because) = because {
            tx.record(
                "signin.refused",
                ("user", name.clone()),
                serde_json::json!({"because": because}),
            )?;
            return Ok(Admission::Disabled { person: name.clone() });
        }
        let source = identity.connection.to_string();
        let held = people::of_groups(tx, tenant, Some(&name), (&source, &identity.groups), at)?;
        let is_raised = !scope::missing(&held.scopes, &person.scopes).is_empty();
        store::came(
            tx,
            tenant,
            &Person {
                connection: Some(identity.connection),
                username: identity.username.clone(),
                display_name: identity.display_name.clone(),
                member_of: identity.groups.clone(),
                scopes: held.scopes.clone(),
                raised_at: if is_raised { Some(at) } else { person.raised_at },
                seen_at: Some(at),
                ..person
            },
        )?;
        if held.scopes.is_empty() {
            tx.record(
                "signin.refused",
                ("user", name.clone()),
                serde_json::json!({"because": "no role"}),
            )?;
            return Ok(Admission::NoRole {
                person: name.clone(),
                groups: identity.groups.clone(),
            });
        }
        let new = NewSession {
            method: identity.method.into(),
            made_by: String::new(),
            roles: String::new(),
            connection: Some(identity.connection),
            provider_session: identity.provider_session.clone(),
            provider_name: identity.provider_name.clone(),
            member_of: identity.groups.clone(),
            // A provider that does not say when it asked may have asked long ago.
            authenticated_at: identity
                .authenticated_at
                .map_or(Timestamp::from_micros(0), |said| said.min(at)),
            idle_seconds: identity.idle_seconds,
            session_seconds: identity.session_seconds,
            kind: SessionKind::Console,
            scopes: String::new(),
        };
        session::start(tx, new).map(Admission::Session)
    })
    .await
}

/// The session that asked for a proof.
pub(super) struct Session {
    pub author: Author,
    pub hash: Digest,
}

impl Session {
    pub fn of(permit: &PagePermit) -> Session {
        Session {
            author: permit.author().clone(),
            hash: permit.hash,
        }
    }
}

/// Takes a proof for the session that asked for it: the same session, the same person.
pub(super) async fn prove(
    app: &App,
    connection: &Connection,
    session: Option<Session>,
    identity: &OutsideIdentity,
) -> Result<(), Problem> {
    let session = session
        .filter(|session| session.author.tenant == connection.tenant)
        .ok_or_else(|| refused("the session that asked for this is over. Sign in again"))?;
    let person = find(app, connection.tenant, identity).await?;
    if person.map(|person| person.name).as_deref() != Some(session.author.actor.id.as_str()) {
        return Err(refused("somebody else signed in there than is signed in here"));
    }
    let said = identity
        .authenticated_at
        .unwrap_or_else(|| Timestamp::from_micros(0));
    let at = said.min(app.clock.now());
    step_up::proven(app, &session, identity.method, at).await
}

/// The person whom a provider names, if they came before.
pub async fn find(
    app: &App,
    tenant: TenantId,
    identity: &OutsideIdentity,
) -> Result<Option<Person>, Problem> {
    let outside = Outside {
        issuer: identity.issuer.clone(),
        subject: identity.subject.clone(),
    };
    app.db
        .read(muster_storage::Scope::Tenant(tenant.uuid()), move |tx| {
            Ok(store::person_of_subject(tx, tenant, &outside)?)
        })
        .await
}

/// A name that nobody has: the connection's, and what the person is called there. People of links have no `/` of a connection
/// before their name, and a name that is taken is never given to another subject.
async fn free_name(app: &App, tenant: TenantId, identity: &OutsideIdentity) -> Result<String, Problem> {
    let seen = identity
        .username
        .chars()
        .filter(|char| !char.is_control() && *char != '/');
    let called: String = seen.take(NAME_CHARS_MAX).collect();
    let called = match called.trim() {
        "" => "somebody".to_owned(),
        text => text.to_owned(),
    };
    let first = format!("{}/{called}", identity.connection_name);
    app.db
        .read(muster_storage::Scope::Tenant(tenant.uuid()), move |tx| {
            for number in 1..=NAMES_TRIED {
                let name = match number {
                    1 => first.clone(),
                    other => format!("{first} ({other})"),
                };
                if store::person(tx, tenant, &name)?.is_none() {
                    return Ok(name);
                }
            }
            Err(CONFLICT.detail("Too many people of this name came by this connection."))
        })
        .await
}

fn insert(
    tx: &mut audit::LoggedTx<'_>,
    tenant: TenantId,
    name: &str,
    identity: &OutsideIdentity,
) -> Result<(), Problem> {
    if store::person_count(tx, tenant)? >= people::PEOPLE_MAX {
        return Err(INVALID.detail("More than 10,000 people of this tenant are known."));
    }
    let person = Person {
        name: name.to_owned(),
        since: tx.at(),
        outside: Some(Outside {
            issuer: identity.issuer.clone(),
            subject: identity.subject.clone(),
        }),
        connection: Some(identity.connection),
        username: identity.username.clone(),
        display_name: identity.display_name.clone(),
        member_of: identity.groups.clone(),
        scopes: String::new(),
        raised_at: None,
        seen_at: None,
        disabled_at: None,
    };
    if store::insert_person(tx, tenant, &person)? == 0 {
        return Err(CONFLICT.detail("Somebody came at the same moment. Sign in again."));
    }
    tx.record(
        "access.person_came",
        ("user", name.to_owned()),
        serde_json::json!({"issuer": identity.issuer, "subject": identity.subject, "connection": identity.connection}),
    )
    .map(drop)
}
