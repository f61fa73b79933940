//! Letting in somebody whose identity another has proven: the one way from an identity provider's word to a session, whatever the
//! protocol in which the word came.
//!
//! Who somebody is follows from (issuer, subject). Their name in the log is made once, at their first visit, and stays. What they
//! may do follows from the roles that they and their groups have; whoever has none is remembered, so that somebody can give them one,
//! and gets no session.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use muster_model::{ClientId, ConnectionId, TenantId, Timestamp};
use muster_storage::Scope;
use muster_trust::{
    entry::{Actor, ActorKind},
    key::{Digest, sha256},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Author, PagePermit,
    barred::is_barred_as,
    connection::{self, InDirectory, refused},
    is_barred,
    people::{self, Outside, Person, store},
    problem::{CONFLICT, INVALID, Problem},
    routing::{Owner, Reason, Whereto},
    scope,
    session::{self, NewSession},
    step_up,
    store::SessionKind,
    visits,
};
use crate::{App, audit, clock, secrets::SecretText};

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
    /// To get a token for a device of their own. No session begins.
    Enroll,
}

impl Purpose {
    /// Whether the provider has to ask the person anew: a session that is still open there proves nothing of who sits before it.
    pub fn asks_anew(self) -> bool {
        matches!(self, Purpose::StepUp | Purpose::Enroll)
    }
}

/// How a way to a provider and back ended, and where to go on.
#[derive(Debug)]
pub enum Arrival {
    Admitted {
        admission: Admission,
        purpose: Purpose,
        next: String,
    },
    SteppedUp {
        next: String,
    },
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
    /// Who the person is to the SCIM connector that the connection names, if it names one.
    pub in_directory: Option<InDirectory>,
    /// Limits below those of the tenant.
    pub idle_seconds: Option<u64>,
    pub session_seconds: Option<u64>,
    /// What routing was told, where the connection routes.
    pub routed: Option<String>,
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
    /// Another connection speaks for the person.
    OfAnother {
        person: String,
    },
    /// They belong to no tenant; a person decides. The reference is what they quote.
    Held {
        reference: Uuid,
        reason: Reason,
    },
    /// They have proven who they are, and enroll a device of their own.
    Proven(Proven),
}

/// Somebody who has just proven who they are, in the tenant that they belong to. Only this slice makes one.
#[derive(Debug, Clone)]
pub struct Proven {
    pub(super) tenant: TenantId,
    pub(super) owner: Owner,
}

impl Proven {
    fn of(tenant: TenantId, name: String, identity: &OutsideIdentity) -> Proven {
        Proven {
            tenant,
            owner: Owner::stored(name, identity.connection, identity.routed.clone()),
        }
    }

    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Who asks, as a token keeps them.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Whose the device will be: the name that the tenant knows the person by, with the connection before it. What a provider calls
    /// somebody is not theirs alone: another connection's provider calls somebody else so.
    pub fn name(&self) -> &str {
        &self.owner.person
    }

    /// What the person's browser takes along while they are asked whether they mean it: sealed for the secret in that browser's cookie
    /// and for `what` they were asked. It counts once, for five minutes.
    pub fn kept(&self, app: &App, browser: &str, what: &str) -> Result<String, Problem> {
        let now = app.clock.now();
        let kept = Kept {
            id: Uuid::from_bytes(clock::random()),
            at: now.as_unix_seconds(),
            owner: self.owner.clone(),
        };
        let text = SecretText::new(serde_json::to_string(&kept).map_err(Problem::internal)?);
        let sealed = app
            .keys
            .sealing
            .seal(self.tenant, &bound(browser, what), &text, now)?;
        Ok(format!("{}.{}", self.tenant, URL_SAFE_NO_PAD.encode(sealed)))
    }

    /// Whoever comes back with what their browser took along.
    pub async fn again(app: &App, browser: Option<&str>, what: &str, kept: &str) -> Result<Proven, Problem> {
        let over = || {
            refused(
                "you did not prove in this browser who you are, or too long ago, or this was done already. Begin again",
            )
        };
        let browser = browser.filter(|secret| !secret.is_empty()).ok_or_else(over)?;
        let (tenant, sealed) = Some(kept)
            .filter(|kept| kept.len() <= KEPT_BYTES_MAX)
            .and_then(|kept| kept.split_once('.'))
            .ok_or_else(over)?;
        let tenant: TenantId = tenant.parse().map_err(|_| over())?;
        let sealed = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| over())?;
        let text = app
            .keys
            .sealing
            .unseal(tenant, &bound(browser, what), &sealed)
            .map_err(|_| over())?;
        let kept: Kept = serde_json::from_str(text.reveal()).map_err(|_| over())?;
        let age = app.clock.now().as_unix_seconds().saturating_sub(kept.at);
        if !(0..=KEPT_SECONDS_MAX).contains(&age) {
            return Err(over());
        }
        let hash = sha256(kept.id.as_bytes());
        let until = Timestamp::from_unix_seconds(kept.at + 2 * KEPT_SECONDS_MAX);
        let counted = audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
            let once = ("own-device", hash.as_bytes().as_slice());
            Ok(connection::store::count_once(tx, tenant, once, until)?)
        });
        if counted.await? == 0 {
            return Err(over());
        }
        Ok(Proven {
            tenant,
            owner: kept.owner,
        })
    }

    /// The person acts themselves.
    pub fn author(&self) -> Author {
        Author {
            tenant: self.tenant,
            actor: Actor {
                kind: ActorKind::User,
                id: self.owner.person.clone(),
            },
            voucher: None,
            visit: None,
        }
    }
}

/// How long somebody may think about what they are asked, and how large what is kept meanwhile may be.
const KEPT_SECONDS_MAX: i64 = 300;
const KEPT_BYTES_MAX: usize = 128 * 1024;

/// Who was proven, while they are asked whether they mean it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    id: Uuid,
    at: i64,
    owner: Owner,
}

/// What it is sealed for.
fn bound(browser: &str, what: &str) -> String {
    format!("access/proven/{what}/{}", sha256(browser.as_bytes()))
}

/// Takes somebody where they belong: into a tenant, or nowhere.
pub(super) async fn arrive(app: &App, whereto: Whereto, purpose: Purpose) -> Result<Admission, Problem> {
    match whereto {
        Whereto::Tenant(tenant, identity) => admit(app, tenant, *identity, purpose).await,
        Whereto::Held { reference, reason } => Ok(Admission::Held { reference, reason }),
    }
}

/// Lets a person in, if they have a role; for a device of their own they need none.
async fn admit(
    app: &App,
    tenant: TenantId,
    identity: OutsideIdentity,
    purpose: Purpose,
) -> Result<Admission, Problem> {
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
        visit: None,
    };
    audit::commit(app, &author, move |tx| {
        super::require_open_in(tx, tenant)?;
        let at = tx.at();
        if is_new {
            insert(tx, tenant, &name, &identity)?;
        }
        let person = store::person(tx, tenant, &name)?
            .ok_or_else(|| Problem::internal("a person who was just written is not there"))?;
        if let Some(because) = turned_away(tx, tenant, &person, &identity)? {
            tx.record(
                "signin.refused",
                ("user", name.clone()),
                serde_json::json!({"because": because, "connection": identity.connection}),
            )?;
            let person_name = name.clone();
            return Ok(if person.is_of(identity.connection) {
                Admission::Disabled { person: person_name }
            } else {
                Admission::OfAnother { person: person_name }
            });
        }
        let source = identity.connection.to_string();
        note_directory(tx, tenant, &name, &identity)?;
        let held = people::at_sign_in(tx, tenant, &name, (&source, &identity.groups), at)?;
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
        if purpose == Purpose::Enroll {
            tx.record(
                "access.person_proven",
                ("user", name.clone()),
                serde_json::json!({"connection": identity.connection, "for": "a device of their own"}),
            )?;
            return Ok(Admission::Proven(Proven::of(tenant, name.clone(), &identity)));
        }
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
        session::start(tx, new_session(&identity, at)).map(Admission::Session)
    })
    .await
}

/// Notes who a person is to the connector that their connection names.
fn note_directory(
    tx: &mut audit::LoggedTx<'_>,
    tenant: TenantId,
    name: &str,
    identity: &OutsideIdentity,
) -> Result<(), Problem> {
    let there = in_directory(tx, tenant, identity)?;
    Ok(store::note_directory(tx, tenant, name, there)?)
}

/// Who a person is to the connector that their connection names.
fn in_directory<'a>(
    tx: &mut audit::LoggedTx<'_>,
    tenant: TenantId,
    identity: &'a OutsideIdentity,
) -> Result<Option<(ClientId, &'a str)>, Problem> {
    // Whose people a connection's people are is for its own tenant to say.
    let own = identity
        .in_directory
        .as_ref()
        .filter(|_| identity.routed.is_none());
    Ok(match own {
        Some(there) => there.known(tx, tenant)?,
        None => None,
    })
}

/// Why somebody who was proven to be this person does not come in.
fn turned_away(
    tx: &mut audit::LoggedTx<'_>,
    tenant: TenantId,
    person: &Person,
    identity: &OutsideIdentity,
) -> Result<Option<&'static str>, Problem> {
    let there = in_directory(tx, tenant, identity)?;
    Ok(if !person.is_of(identity.connection) {
        Some("known by another connection")
    } else if person.disabled_at.is_some() {
        Some("disabled")
    } else if is_barred(tx, tenant, &identity.username)? || is_barred_as(tx, tenant, &person.name, there)? {
        Some("inactive in the directory")
    } else {
        None
    })
}

/// The session of somebody who was let in at a time.
fn new_session(identity: &OutsideIdentity, at: Timestamp) -> NewSession {
    NewSession {
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
        routed: identity.routed.clone(),
    }
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
pub(super) async fn prove(app: &App, whereto: Whereto, session: Option<Session>) -> Result<(), Problem> {
    let (tenant, identity) = match whereto {
        Whereto::Tenant(tenant, identity) => (tenant, identity),
        Whereto::Held { reference, .. } => {
            return Err(refused(format!(
                "what your identity provider says of you leads to no tenant any more. Ask whoever looks after sign-in, and quote \
                 {reference}"
            )));
        }
    };
    let session = session
        .filter(|session| session.author.tenant == tenant)
        .ok_or_else(|| refused("the session that asked for this is over. Sign in again"))?;
    let person = find(app, tenant, &identity).await?;
    let person = person.filter(|person| person.is_of(identity.connection));
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
async fn find(app: &App, tenant: TenantId, identity: &OutsideIdentity) -> Result<Option<Person>, Problem> {
    let outside = Outside {
        issuer: identity.issuer.clone(),
        subject: identity.subject.clone(),
    };
    app.db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
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
    // Nobody is called as the log calls visitors.
    let called = called.replace(visits::IN_NAMES, "[");
    let called = match called.trim() {
        "" => "somebody".to_owned(),
        text => text.to_owned(),
    };
    let first = format!("{}/{called}", identity.connection_name);
    app.db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            for number in 1..=NAMES_TRIED {
                let name = match number {
                    1 => first.clone(),
                    other => format!("{first} ({other})"),
                };
                // Of somebody who was forgotten the log still speaks by this name: it goes to nobody else.
                if store::person(tx, tenant, &name)?.is_none() && !audit::has_acted(tx, tenant, &name)? {
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
    let full = INVALID.detail("10,000 people of this tenant are known, and each has a role or came today.");
    people::make_room(tx, true, full)?;
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

#[cfg(test)]
mod tests {
    use muster_storage::testing::on_both;
    use uuid::Uuid;

    use super::*;
    use crate::policy::testing::Scene;

    fn identity(connection: ConnectionId, name: &str) -> OutsideIdentity {
        OutsideIdentity {
            connection,
            connection_name: name.to_owned(),
            method: "saml",
            issuer: "saml:https://idp.example".to_owned(),
            subject: "0001".to_owned(),
            username: "ada@example.com".to_owned(),
            display_name: "Ada".to_owned(),
            groups: vec!["mdm-admins".to_owned()],
            authenticated_at: None,
            provider_session: None,
            provider_name: None,
            in_directory: None,
            idle_seconds: None,
            session_seconds: None,
            routed: None,
        }
    }

    /// What the first release let in: a second connection of one entity id, saved before its people had roles.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_second_connection_of_one_provider_speaks_for_none_of_the_firsts_people() {
        on_both(crate::MIGRATIONS, async |db| {
            let scene = Scene::new(db.db().clone()).await;
            let (app, tenant) = (&scene.app, scene.tenant);
            let id = |number| ConnectionId::from_uuid(Uuid::from_u128(number));
            let came = async |number, name: &str| {
                admit(app, tenant, identity(id(number), name), Purpose::SignIn)
                    .await
                    .expect("it is judged")
            };
            assert!(matches!(came(1, "corp").await, Admission::NoRole { .. }));
            audit::commit(app, &Author::system(tenant), move |tx| {
                for source in [id(1), id(2)] {
                    let grant = people::Grant {
                        subject: people::Subject::Group {
                            source: source.to_string(),
                            name: "mdm-admins".to_owned(),
                        },
                        role: "owner".to_owned(),
                        granted_by: "test".to_owned(),
                        granted_at: tx.at(),
                        expires_at: None,
                    };
                    store::insert_grant(tx, tenant, &grant)?;
                }
                tx.excuse(2);
                Ok(())
            })
            .await
            .expect("roles are given");
            assert!(matches!(came(1, "corp").await, Admission::Session(_)));
            let twin = came(2, "twin").await;
            assert!(
                matches!(&twin, Admission::OfAnother { person } if person == "corp/ada@example.com"),
                "{twin:?}"
            );
            assert!(
                matches!(came(1, "corp").await, Admission::Session(_)),
                "the first one is as before"
            );
            // Nor does it prove anything in a session of theirs.
            let found = find(app, tenant, &identity(id(2), "twin"))
                .await
                .expect("it can be read");
            assert!(found.is_some_and(|person| person.is_of(id(1)) && !person.is_of(id(2))));
        })
        .await;
    }
}
