//! Console sessions: a one-time link, then a cookie. The API never accepts the cookie.

use std::time::Duration;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use muster_model::{TenantId, Timestamp};
use muster_storage::{Scope, Tx};
use muster_trust::{
    entry::{Actor, ActorKind},
    key::sha256,
};
use subtle::ConstantTimeEq;

use super::{
    Author, Permit, is_barred,
    problem::{CSRF, FORBIDDEN, INVALID, Problem, UNAUTHENTICATED},
    store,
};
use crate::{App, audit, clock};

/// The name of the session cookie; the prefix binds it to this origin (RFC 6265bis).
pub const SESSION_COOKIE: &str = "__Host-muster";
/// People of one tenant that are remembered.
const PEOPLE_MAX: u64 = 10_000;
const SIGNIN_LINK_MINUTES: u64 = 60;
const SESSION_HOURS_MAX: u64 = 8;
const SESSION_IDLE_MINUTES_MAX: u64 = 15;
/// A session's last use is stored at most this often.
const TOUCH_SECONDS: u64 = 60;

/// Proof that a page request comes from a signed-in person. Pages act with the same permits as the API.
#[derive(Debug, Clone)]
pub struct PagePermit {
    author: Author,
    csrf: String,
}

impl PagePermit {
    pub fn tenant(&self) -> TenantId {
        self.author.tenant
    }

    pub fn author(&self) -> &Author {
        &self.author
    }

    /// The value that every form of this session must carry.
    pub fn csrf(&self) -> &str {
        &self.csrf
    }

    /// The permit for an action of this page. The first service account's link holds every scope of its tenant.
    pub fn permit<S: super::scope::Scopes>(&self) -> Permit<S> {
        Permit::new(self.author.clone(), super::scope::every())
    }

    /// Refuses a form that was not made by this session.
    pub fn check_csrf(&self, presented: &str) -> Result<(), Problem> {
        if bool::from(self.csrf.as_bytes().ct_eq(presented.as_bytes())) {
            Ok(())
        } else {
            Err(CSRF.detail("The form has expired. Load the page again and repeat."))
        }
    }
}

impl FromRequestParts<App> for PagePermit {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let secret = session_secret(&parts.headers).ok_or_else(signed_out)?.to_owned();
        let hash = sha256(secret.as_bytes());
        let now = app.clock.now();
        let row = app
            .db
            .read(Scope::System, move |tx| {
                let row = store::session(tx, hash.as_bytes())?;
                // A bar ends sessions; one that began in the same moment is found here.
                let Some(row) = row else { return Ok(None) };
                let is_barred = is_barred(tx, row.tenant, &row.actor)?;
                Ok::<_, Problem>((!is_barred).then_some(row))
            })
            .await?
            .ok_or_else(signed_out)?;
        let idle = now.since(row.seen_at);
        if row.expires_at <= now || idle > Duration::from_secs(SESSION_IDLE_MINUTES_MAX * 60) {
            return Err(signed_out());
        }
        if idle > Duration::from_secs(TOUCH_SECONDS) {
            audit::housekeeping(app, Scope::System, move |tx| {
                Ok(store::touch_session(tx, hash.as_bytes(), now)?)
            })
            .await?;
        }
        let csrf = sha256(format!("csrf:{secret}").as_bytes()).to_string();
        Ok(PagePermit {
            author: Author {
                tenant: row.tenant,
                actor: Actor {
                    kind: ActorKind::User,
                    id: row.actor,
                },
                voucher: Some(super::actor_of(&row.made_by)),
            },
            csrf,
        })
    }
}

/// Makes a one-time sign-in link's secret for the console.
pub async fn create_signin_link(
    app: &App,
    author: &Author,
    person: &str,
) -> Result<(String, Timestamp), Problem> {
    let secret = clock::random_secret();
    let hash = sha256(secret.as_bytes());
    let tenant = author.tenant;
    let person = person.to_owned();
    let expires_at = app
        .clock
        .now()
        .plus(Duration::from_secs(SIGNIN_LINK_MINUTES * 60));
    audit::commit(app, author, move |tx| {
        let (made_by, at) = (tx.account(), tx.at());
        refuse_barred(tx, tenant, &person)?;
        if store::note_person(tx, tenant, &person, at)? > PEOPLE_MAX {
            return Err(INVALID.detail("More than 10,000 people were signed in to this tenant by links."));
        }
        store::insert_signin(tx, tenant, hash.as_bytes(), (&person, &made_by), expires_at)?;
        tx.record(
            "signin.link_created",
            ("user", person.clone()),
            serde_json::json!({}),
        )?;
        Ok(())
    })
    .await?;
    Ok((secret, expires_at))
}

/// Exchanges a one-time link for a session; answers the cookie's value.
pub async fn sign_in(app: &App, link_secret: &str) -> Result<String, Problem> {
    let link = sha256(link_secret.as_bytes());
    let now = app.clock.now();
    let used = audit::housekeeping(app, Scope::System, move |tx| {
        Ok(store::use_signin(tx, link.as_bytes(), now)?)
    })
    .await?;
    let (tenant, person, made_by) = used.ok_or_else(|| {
        UNAUTHENTICATED.detail("The link was used or has expired. `muster console-link` makes a new one.")
    })?;
    let secret = clock::random_secret();
    let hash = sha256(secret.as_bytes());
    let author = Author {
        tenant,
        actor: Actor {
            kind: ActorKind::User,
            id: person.clone(),
        },
        voucher: Some(super::actor_of(&made_by)),
    };
    audit::commit(app, &author, move |tx| {
        let at = tx.at();
        refuse_barred(tx, tenant, &person)?;
        let until = at.plus(Duration::from_secs(SESSION_HOURS_MAX * 3600));
        store::insert_session(tx, tenant, hash.as_bytes(), (&person, &made_by), at, until)?;
        tx.record("session.started", ("user", person.clone()), serde_json::json!({}))?;
        Ok(())
    })
    .await?;
    Ok(secret)
}

/// Refuses to sign in whom the directory says is gone.
fn refuse_barred(tx: &mut Tx, tenant: TenantId, person: &str) -> Result<(), Problem> {
    if is_barred(tx, tenant, person)? {
        return Err(FORBIDDEN.detail("The directory says that this person is not active."));
    }
    Ok(())
}

/// Ends the session of a request on the server's side.
pub async fn end_session(app: &App, permit: &PagePermit, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(secret) = session_secret(headers) else {
        return Ok(());
    };
    let hash = sha256(secret.as_bytes());
    let person = permit.author.actor.id.clone();
    audit::commit(app, permit.author(), move |tx| {
        store::delete_session(tx, hash.as_bytes())?;
        tx.record("session.ended", ("user", person.clone()), serde_json::json!({}))?;
        Ok(())
    })
    .await
}

fn session_secret(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == SESSION_COOKIE).then_some(value))
}

fn signed_out() -> Problem {
    UNAUTHENTICATED.detail("You are signed out. `muster console-link` makes a new sign-in link.")
}
