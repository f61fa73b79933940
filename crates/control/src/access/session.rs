//! Console sessions: a one-time link or a sign-in elsewhere, then a cookie. The API never accepts the cookie.
//!
//! What a session may do is read at each request: of a link, the roles that it was made with, never more than its maker may do
//! now; of a person from outside, the roles that they and their groups have now. When the maker is removed, the connection is
//! switched off, or the person is disabled, the session is over.

use std::{borrow::Cow, time::Duration};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use muster_model::{ConnectionId, SessionId, TenantId, Timestamp};
use muster_storage::{Scope, Tx};
use muster_trust::{
    entry::{Actor, ActorKind},
    key::{Digest, sha256},
};
use subtle::ConstantTimeEq;

use super::{
    Author, Permit,
    budget::Door,
    caller::held_now,
    explain, is_barred,
    outside::Session,
    people::{self, Held, SessionSettings, Through},
    problem::{CONFLICT, CSRF, FORBIDDEN, INVALID, Problem, STEP_UP, UNAUTHENTICATED},
    routing, scope,
    store::{self, SessionKind},
    visits, vouch,
};
use crate::{
    App,
    audit::{self, LoggedTx},
    clock,
};

/// The name of the session cookie; the prefix binds it to this origin (RFC 6265bis).
pub const SESSION_COOKIE: &str = "__Host-muster";
/// The cookie of a visit to another tenant. It goes before the person's own, which stays for when the visit is over.
pub const VISIT_COOKIE: &str = "__Host-muster-visit";
/// How a person came who used a link.
pub const BY_LINK: &str = "link";
const SIGNIN_LINK_MINUTES: u64 = 60;
/// A session's last use is stored at most this often.
const TOUCH_SECONDS: u64 = 60;

/// Proof that a page request comes from a signed-in person. Pages act with the same permits as the API.
#[derive(Debug, Clone)]
pub struct PagePermit {
    author: Author,
    csrf: String,
    held: Held,
    id: Option<SessionId>,
    pub(super) hash: Digest,
    method: String,
    connection: Option<ConnectionId>,
    /// As pages name the person.
    display_name: String,
    authenticated_at: Timestamp,
    settings: SessionSettings,
    pub(super) challenge: Option<Vec<u8>>,
    visit: Option<visits::Standing>,
    /// Whether the browser still has the cookie of a visit that is over.
    is_visit_over: bool,
    /// When it was asked, and whether it is a form, which changes something, and no page that is looked at.
    asked_at: Timestamp,
    is_form: bool,
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

    /// The scopes of the session, with spaces between, and the roles behind them.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// The id of this session in lists.
    pub fn session(&self) -> Option<SessionId> {
        self.id
    }

    /// By which connection the person came; nothing for a link.
    pub fn connection(&self) -> Option<ConnectionId> {
        self.connection
    }

    /// How the person came: `link`, or the kind of the connection.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The person's name as they know it.
    pub fn display_name(&self) -> &str {
        &self.display_name
    }

    /// The visit by which somebody of the operator's tenant is here.
    pub fn visit(&self) -> Option<&visits::Standing> {
        self.visit.as_ref()
    }

    /// Whether a visit ended from which the browser came back just now.
    pub fn is_visit_over(&self) -> bool {
        self.is_visit_over
    }

    /// The permit for an action of this page. A form that does what [`scope::NEEDS_PROOF`] names needs a fresh proof, as a program of the
    /// person does; none is left out. Looking at what could be done needs none, nor does what a form reads.
    pub fn permit<S: super::scope::Scopes>(&self) -> Result<Permit<S>, Problem> {
        let roles = self.held.roles();
        explain::check(S::NAMES, &self.held.scopes, &roles)?;
        let fresh = self.require_fresh(self.asked_at);
        let is_stale = fresh.is_err();
        if self.is_form && S::NAMES.iter().any(|name| scope::NEEDS_PROOF.contains(name)) {
            fresh?;
        }
        // What is needed besides, such as for a kind of command, needs it as well.
        let (held, held_back) = held_now(&self.held.scopes, !(self.is_form && is_stale));
        Ok(Permit {
            session: self.id,
            is_stale,
            held_back,
            ..Permit::new(self.author.clone(), held, roles)
        })
    }

    /// Refuses a form that was not made by this session.
    pub fn check_csrf(&self, presented: &str) -> Result<(), Problem> {
        if bool::from(self.csrf.as_bytes().ct_eq(presented.as_bytes())) {
            Ok(())
        } else {
            Err(CSRF.detail("The form has expired. Load the page again and repeat."))
        }
    }

    /// Refuses what a person does only shortly after they proved who they are: a session that was left open, or stolen, is not
    /// enough.
    pub fn require_fresh(&self, now: Timestamp) -> Result<(), Problem> {
        visits::refuse(&self.author)?;
        let allowed = Duration::from_secs(self.settings.step_up_seconds);
        if now.since(self.authenticated_at) <= allowed {
            return Ok(());
        }
        Err(STEP_UP.detail(format!(
            "This is done only within {} minutes after proving who you are.",
            self.settings.step_up_seconds.div_ceil(60)
        )))
    }
}

impl FromRequestParts<App> for PagePermit {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let now = app.clock.now();
        let of_visit = cookie_of(&parts.headers, VISIT_COOKIE);
        // Each cookie holds its own kind, whoever wrote it into the browser.
        let own = of_cookie(app, cookie_of(&parts.headers, SESSION_COOKIE), now).await?;
        let own = own.filter(|(found, ..)| found.visit.is_none());
        // A visit counts beside the very session on which it stands: who signs in at the same browser is not the one who visits.
        let visiting = match &own {
            Some((at_home, ..)) => of_cookie(app, of_visit, now).await?.filter(|(found, ..)| {
                found
                    .visit
                    .as_ref()
                    .is_some_and(|visit| visit.is_on(&at_home.row))
            }),
            None => None,
        };
        let (found, secret, hash) = visiting.or(own).ok_or_else(signed_out)?;
        let is_visit_over = of_visit.is_some() && found.visit.is_none();
        // What a program holds opens no page.
        if found.row.kind != SessionKind::Console {
            return Err(signed_out());
        }
        super::require_open(app, found.row.tenant).await?;
        touch(app, &hash, &found, now).await?;
        let author = found.author();
        app.budgets.take_by(Door::Console, &author, clock::uptime())?;
        let Standing {
            row,
            held,
            settings,
            display_name,
            visit,
        } = found;
        let csrf = sha256(format!("csrf:{secret}").as_bytes()).to_string();
        Ok(PagePermit {
            author,
            csrf,
            held,
            id: row.id,
            hash,
            method: row.method,
            connection: row.connection,
            display_name,
            authenticated_at: row.authenticated_at,
            settings,
            challenge: row.challenge,
            visit,
            is_visit_over,
            asked_at: now,
            is_form: !parts.method.is_safe(),
        })
    }
}

/// The session of a cookie, if there is one and it stands, with the cookie's value and its hash.
async fn of_cookie(
    app: &App,
    secret: Option<&str>,
    now: Timestamp,
) -> Result<Option<(Standing, String, Digest)>, Problem> {
    let Some(secret) = secret else {
        return Ok(None);
    };
    let hash = sha256(secret.as_bytes());
    let found = app.db.read(Scope::System, move |tx| standing(tx, &hash, now));
    Ok(found.await?.map(|found| (found, secret.to_owned(), hash)))
}

/// The session of this hash, if it stands and its person came from outside: for an answer that a browser brings without its cookie,
/// because another site sends it.
pub(super) async fn of_hash(app: &App, hash: Digest) -> Result<Option<Session>, Problem> {
    let now = app.clock.now();
    let found = app
        .db
        .read(Scope::System, move |tx| standing(tx, &hash, now))
        .await?;
    // What a program holds comes back in no browser.
    let from_outside =
        found.filter(|found| found.row.connection.is_some() && found.row.kind == SessionKind::Console);
    Ok(from_outside.map(|found| Session {
        author: Author {
            tenant: found.row.tenant,
            actor: Actor {
                kind: ActorKind::User,
                id: found.row.actor,
            },
            voucher: None,
            visit: None,
        },
        hash,
    }))
}

/// Notes that a session was used, at most once in a while.
async fn touch(app: &App, hash: &Digest, found: &Standing, now: Timestamp) -> Result<(), Problem> {
    let idle = now.since(found.row.seen_at);
    if idle > Duration::from_secs(TOUCH_SECONDS.min(found.settings.idle_seconds / 2)) {
        let (hash, behind) = (*hash, found.visit.as_ref().map(visits::Standing::session_at_home));
        audit::housekeeping(app, Scope::System, move |tx| {
            // Whoever visits is at work at home as well: their visit stands on that session.
            if let Some((home, session)) = behind {
                visits::touch(tx, home, session, now)?;
            }
            Ok(store::touch_session(tx, hash.as_bytes(), now)?)
        })
        .await?;
    }
    Ok(())
}

/// A session that stands, and what it may do.
pub(super) struct Standing {
    pub row: store::SessionRow,
    pub held: Held,
    pub settings: SessionSettings,
    pub(super) display_name: String,
    /// Of a visit of somebody of the operator's tenant.
    pub(super) visit: Option<visits::Standing>,
}

impl Standing {
    /// Whoever acts in the session.
    pub fn author(&self) -> Author {
        // Whoever came from outside has no account behind them: they answer for themselves.
        let voucher = (self.row.method == BY_LINK).then(|| super::actor_of(&self.row.made_by));
        let visit = self.visit.as_ref().map(|visit| visit.mark);
        Author {
            tenant: self.row.tenant,
            actor: Actor {
                kind: ActorKind::User,
                id: self.row.actor.clone(),
            },
            voucher: voucher.or_else(|| visit.map(visits::account_of)),
            visit,
        }
    }

    /// Whether the person proved who they are so recently that it counts for what needs that.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        // Whoever visits proves nothing here.
        self.visit.is_none()
            && now.since(self.row.authenticated_at) <= Duration::from_secs(self.settings.step_up_seconds)
    }
}

/// What the token of a person's session begins with, so that scanners of secrets know it.
pub const API_PREFIX: &str = "muster_ses_";

/// The session whose token a program presents, if it stands. It was used then.
pub(super) async fn of_token(app: &App, token: &str) -> Result<Option<Standing>, Problem> {
    let found = about_token(app, token).await?;
    if let Some(found) = &found {
        touch(app, &sha256(token.as_bytes()), found, app.clock.now()).await?;
    }
    Ok(found)
}

/// The session whose token somebody asks about, if it stands: to ask about it does not use it.
pub(super) async fn about_token(app: &App, token: &str) -> Result<Option<Standing>, Problem> {
    let (hash, now) = (sha256(token.as_bytes()), app.clock.now());
    let found = app
        .db
        .read(Scope::System, move |tx| standing(tx, &hash, now))
        .await?;
    Ok(found.filter(|found| found.row.kind == SessionKind::Api))
}

/// The session of a cookie, if it stands.
pub(super) fn standing(tx: &mut Tx, hash: &Digest, now: Timestamp) -> Result<Option<Standing>, Problem> {
    match store::session(tx, hash.as_bytes())? {
        Some(row) => standing_of(tx, row, now),
        None => Ok(None),
    }
}

/// As [`standing`], of a session that was read.
pub(super) fn standing_of(
    tx: &mut Tx,
    row: store::SessionRow,
    now: Timestamp,
) -> Result<Option<Standing>, Problem> {
    let settings = people::session_settings(tx, row.tenant)?;
    let idle = row
        .idle_seconds
        .map_or(settings.idle_seconds, |own| own.min(settings.idle_seconds));
    // A program's session too: a token that lies about unused is one that somebody finds.
    let is_idle = now.since(row.seen_at) > Duration::from_secs(idle);
    if row.expires_at <= now || is_idle {
        return Ok(None);
    }
    if row.method == visits::BY_VISIT {
        return visits::standing(tx, row, settings, now);
    }
    let person = people::person(tx, row.tenant, &row.actor)?;
    if person.as_ref().is_some_and(|person| person.disabled_at.is_some()) {
        return Ok(None);
    }
    // Another connection speaks for them by now, or spoke for them at that time.
    let is_theirs = |id| person.as_ref().is_some_and(|person| person.is_of(id));
    if row.connection.is_some_and(|id| !is_theirs(id)) {
        return Ok(None);
    }
    // A bar ends sessions; one that began in the same moment is found here.
    let outside = person.as_ref().map_or("", |person| person.username.as_str());
    if is_barred(tx, row.tenant, &row.actor)? || is_barred(tx, row.tenant, outside)? {
        return Ok(None);
    }
    let held = if row.method == BY_LINK {
        of_link(tx, (row.tenant, &row.made_by, &row.roles), now)?
    } else {
        of_outside(tx, &row, person.as_ref(), now)?
    };
    let held = held.map(|held| limited(held, &row.scopes));
    let name = person
        .map(|person| person.display_name)
        .filter(|name| !name.is_empty());
    Ok(held.map(|held| Standing {
        display_name: name.unwrap_or_else(|| row.actor.clone()),
        row,
        held,
        settings,
        visit: None,
    }))
}

/// What is held, within the most that a session may do.
fn limited(held: Held, most: &str) -> Held {
    if most.is_empty() {
        return held;
    }
    Held {
        scopes: super::shared_scopes(&held.scopes, most),
        ..held
    }
}

/// What the session of a link may do: its roles, and never more than its maker. Nothing where the maker is gone.
pub(super) fn of_link(
    tx: &mut Tx,
    (tenant, made_by, roles): (TenantId, &str, &str),
    now: Timestamp,
) -> Result<Option<Held>, Problem> {
    let maker = super::actor_of(made_by);
    let most = match maker.kind {
        ActorKind::Client => {
            let client = maker
                .id
                .parse()
                .ok()
                .map(|id| store::client(tx, id))
                .transpose()?
                .flatten();
            let client = client.filter(|client| client.tenant == tenant && client.disabled_at.is_none());
            let Some(client) = client else {
                return Ok(None);
            };
            people::of_client(tx, &client, now)?.scopes
        }
        // The first run, on the machine itself.
        ActorKind::System => scope::every(),
        ActorKind::User | ActorKind::Device => return Ok(None),
    };
    if roles.is_empty() {
        let through = Through {
            role: "everything that the link's maker may do".to_owned(),
            by: BY_LINK.to_owned(),
            granted_by: Some(made_by.to_owned()),
            granted_at: None,
            expires_at: None,
        };
        return Ok(Some(Held {
            scopes: most,
            through: vec![through],
        }));
    }
    let mut held = people::of_roles(tx, tenant, roles.split(' '))?;
    held.scopes = super::shared_scopes(&held.scopes, &most);
    Ok(Some(held))
}

/// What the session of a person from outside may do now.
fn of_outside(
    tx: &mut Tx,
    row: &store::SessionRow,
    person: Option<&people::Person>,
    now: Timestamp,
) -> Result<Option<Held>, Problem> {
    let Some(id) = row.connection else {
        return Ok(None);
    };
    let outside = person.and_then(|person| person.outside.as_ref());
    if !routing::session_stands(tx, row, outside)? {
        return Ok(None);
    }
    let source = id.to_string();
    let groups = (source.as_str(), row.member_of.as_slice());
    people::of_groups(tx, row.tenant, Some(&row.actor), groups, now).map(Some)
}

/// Makes a one-time sign-in link's secret for the console. Without roles the person may do whatever `author` may do, who holds `held` in
/// this request.
pub async fn create_signin_link(
    app: &App,
    (author, held): (&Author, &str),
    person: &str,
    roles: &[String],
) -> Result<(String, Timestamp), Problem> {
    if person.contains(visits::IN_NAMES) {
        return Err(INVALID.detail("person: visitors are called so. Choose another name."));
    }
    let secret = clock::random_secret();
    let hash = sha256(secret.as_bytes());
    let tenant = author.tenant;
    let (person, roles, held) = (person.to_owned(), roles.join(" "), held.to_owned());
    let expires_at = app
        .clock
        .now()
        .plus(Duration::from_secs(SIGNIN_LINK_MINUTES * 60));
    audit::commit(app, author, move |tx| {
        let (made_by, at) = (tx.account(), tx.at());
        refuse_barred(tx, tenant, &person)?;
        match people::person(tx, tenant, &person)? {
            // A link says who somebody is: it must not say that they are somebody whom an identity provider knows.
            Some(known) if known.outside.is_some() => {
                return Err(
                    CONFLICT.detail("This person signs in with an identity provider. Choose another name.")
                );
            }
            Some(known) if known.disabled_at.is_some() => {
                return Err(
                    CONFLICT.detail("This person is disabled. `muster access enable` lets them in again.")
                );
            }
            _ => {}
        }
        if people::person(tx, tenant, &person)?.is_none() {
            let full =
                INVALID.detail("10,000 people of this tenant are known, and each has a role or came today.");
            people::make_room(tx, false, full)?;
        }
        store::note_person(tx, tenant, (&person, &made_by), at)?;
        let passed_on = vouch::vouch(tx, &person, &held)?;
        let link = store::SigninRow {
            person: person.clone(),
            made_by,
            roles: roles.clone(),
        };
        store::insert_signin(tx, tenant, hash.as_bytes(), &link, expires_at)?;
        let mut detail = serde_json::json!({"roles": roles});
        if let Some(passed_on) = passed_on {
            detail["vouched_before"] = passed_on.before.into();
            detail["sessions_ended"] = passed_on.sessions_ended.into();
            detail["links_ended"] = passed_on.links_ended.into();
        }
        tx.record("signin.link_created", ("user", person.clone()), detail)
            .map(drop)
    })
    .await?;
    Ok((secret, expires_at))
}

/// A link that was used now; nothing where it was used before, has expired, or never was.
pub(super) async fn use_link(
    app: &App,
    link_secret: &str,
) -> Result<Option<(TenantId, store::SigninRow)>, Problem> {
    let link = sha256(link_secret.as_bytes());
    let now = app.clock.now();
    audit::housekeeping(app, Scope::System, move |tx| {
        Ok(store::use_signin(tx, link.as_bytes(), now)?)
    })
    .await
}

/// Exchanges a one-time link for a session; answers the cookie's value.
pub async fn sign_in(app: &App, link_secret: &str) -> Result<String, Problem> {
    let (tenant, link) = use_link(app, link_secret).await?.ok_or_else(|| {
        UNAUTHENTICATED.detail("The link was used or has expired. `muster console-link` makes a new one.")
    })?;
    let author = Author {
        tenant,
        actor: Actor {
            kind: ActorKind::User,
            id: link.person.clone(),
        },
        voucher: Some(super::actor_of(&link.made_by)),
        visit: None,
    };
    audit::commit(app, &author, move |tx| {
        let at = tx.at();
        let person = people::person(tx, tenant, &link.person)?;
        if person.is_some_and(|person| person.disabled_at.is_some()) {
            return Err(UNAUTHENTICATED.detail("This person is disabled."));
        }
        people::store::seen(tx, tenant, &link.person, at)?;
        start(
            tx,
            NewSession {
                method: BY_LINK.into(),
                made_by: link.made_by.clone(),
                roles: link.roles.clone(),
                connection: None,
                provider_session: None,
                provider_name: None,
                member_of: Vec::new(),
                authenticated_at: at,
                idle_seconds: None,
                session_seconds: None,
                kind: SessionKind::Console,
                scopes: String::new(),
                routed: None,
            },
        )
    })
    .await
}

/// A session that begins.
pub(super) struct NewSession {
    pub method: Cow<'static, str>,
    pub made_by: String,
    pub roles: String,
    pub connection: Option<ConnectionId>,
    pub provider_session: Option<String>,
    pub provider_name: Option<String>,
    pub member_of: Vec<String>,
    pub authenticated_at: Timestamp,
    /// Limits below those of the tenant.
    pub idle_seconds: Option<u64>,
    pub session_seconds: Option<u64>,
    pub kind: SessionKind,
    /// The most that it may do; empty for no limit of its own.
    pub scopes: String,
    /// What routing was told, of whoever came by a connection that routes.
    pub routed: Option<String>,
}

/// Begins a session of the transaction's author; answers the cookie's value. One session more than a person may have ends the
/// oldest.
pub(super) fn start(tx: &mut LoggedTx<'_>, new: NewSession) -> Result<String, Problem> {
    let (tenant, at, person) = (tx.tenant(), tx.at(), tx.author().actor.id.clone());
    super::require_open_in(tx, tenant)?;
    let settings = people::session_settings(tx, tenant)?;
    let length = new
        .session_seconds
        .map_or(settings.session_seconds, |own| own.min(settings.session_seconds));
    let prefix = match new.kind {
        SessionKind::Console => "",
        SessionKind::Api => API_PREFIX,
    };
    let secret = format!("{prefix}{}", clock::random_secret());
    let hash = sha256(secret.as_bytes());
    let id = SessionId::generate(at, clock::random());
    let row = store::SessionRow {
        tenant,
        id: Some(id),
        actor: person.clone(),
        made_by: new.made_by,
        method: new.method.clone().into_owned(),
        roles: new.roles,
        connection: new.connection,
        provider_session: new.provider_session,
        provider_name: new.provider_name,
        member_of: new.member_of,
        seen_at: at,
        expires_at: at.plus(Duration::from_secs(length)),
        authenticated_at: new.authenticated_at,
        idle_seconds: new.idle_seconds,
        challenge: None,
        kind: new.kind,
        scopes: new.scopes,
        routed: new.routed,
    };
    store::insert_session(tx, hash.as_bytes(), &row)?;
    tx.record(
        "session.started",
        ("user", person.clone()),
        serde_json::json!({"session": id.to_string(), "method": new.method, "connection": new.connection, "kind": row.kind.word()}),
    )?;
    // Newest first; of those that begin at one time, this one is kept.
    let mut others = people::store::sessions_of(tx, tenant, &person, 500)?;
    others.retain(|other| other.id != id);
    let kept = usize::try_from(settings.sessions_per_person)
        .unwrap_or(usize::MAX)
        .saturating_sub(1);
    for surplus in others.into_iter().skip(kept) {
        people::end_session(tx, surplus.id)?;
    }
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
pub async fn end_session(app: &App, permit: &PagePermit) -> Result<(), Problem> {
    let hash = permit.hash;
    let person = permit.author.actor.id.clone();
    let id = permit.id;
    audit::commit(app, permit.author(), move |tx| {
        store::delete_session(tx, hash.as_bytes())?;
        tx.record(
            "session.ended",
            ("user", person.clone()),
            serde_json::json!({"session": id.map(|id| id.to_string())}),
        )?;
        Ok(())
    })
    .await
}

/// The value of a cookie.
fn cookie_of<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let cookies = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == wanted).then_some(value))
}

fn signed_out() -> Problem {
    UNAUTHENTICATED.detail("You are signed out. `muster console-link` makes a new sign-in link.")
}
