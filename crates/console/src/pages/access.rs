//! Who may do what: the review, roles, sessions, and why somebody may not.

use askama::Template;
use axum::{Router, extract::State, response::Response, routing::get};
use muster_control::{
    App,
    access::{
        people::{self, ListedSession, Reviewed, ReviewedSubject, Role, SessionSettings},
        problem::{INVALID, Problem},
        scope::{self, AccessRead},
    },
};
use muster_model::{TenantId, Timestamp};
use muster_storage::{Scope, Tx};
use serde::Deserialize;

use crate::{
    session::{Ask, Session},
    shell::{Refusal, Section, Shell, page},
    ui::{self, Badge, Tone, When},
};

/// People that are looked at for those who wait.
const PEOPLE_LOOKED_AT: usize = 2_000;

pub fn router() -> Router<App> {
    Router::new()
        .route("/access", get(review))
        .route("/access/roles", get(roles))
        .route("/access/sessions", get(sessions))
        .route("/access/me", get(me))
        .route("/access/explain", get(explain))
}

/// The people who came from an identity provider, are not disabled, and may do nothing.
pub fn without_role(tx: &mut Tx, tenant: TenantId) -> Result<Vec<String>, Problem> {
    let people = people::people(tx, tenant, "", PEOPLE_LOOKED_AT)?;
    let waiting = people.into_iter().filter(|person| {
        person.outside.is_some() && person.disabled_at.is_none() && person.scopes.is_empty()
    });
    Ok(waiting.map(|person| person.name).collect())
}

/// One who may do something, as a row.
#[derive(Debug)]
struct Row {
    name: String,
    subject: String,
    kind: &'static str,
    source: String,
    through: Vec<Given>,
    scopes: String,
    scope_count: usize,
    powers: String,
    used: Option<When>,
    notes: String,
    state: Badge,
    is_person: bool,
    is_disabled: bool,
}

/// A role of a row.
#[derive(Debug)]
struct Given {
    role: String,
    by: String,
    /// Whether it was given to this subject itself, so that it can be taken away here.
    is_own: bool,
    hint: String,
}

impl Row {
    fn of(reviewed: Reviewed, now: Timestamp) -> Row {
        let kind = match reviewed.kind {
            ReviewedSubject::Person => "person",
            ReviewedSubject::Link => "person, by a one-time link",
            ReviewedSubject::Group => "group",
            ReviewedSubject::Client => "client",
            ReviewedSubject::Visitor => "person of the operator's tenant, by a visit",
        };
        let through = reviewed.through.into_iter().map(|through| Given {
            is_own: through.by == "directly" && through.granted_by.is_some(),
            hint: match (&through.granted_by, &through.expires_at) {
                (_, Some(end)) => format!("until {end}"),
                (Some(by), None) => format!("by {}", ui::author(by)),
                (None, None) => String::new(),
            },
            role: through.role,
            by: if through.by == "directly"
                || matches!(reviewed.kind, ReviewedSubject::Link | ReviewedSubject::Visitor)
            {
                String::new()
            } else {
                format!("as member of {}", through.by)
            },
        });
        Row {
            through: through.collect(),
            is_person: reviewed.kind == ReviewedSubject::Person,
            is_disabled: reviewed.disabled,
            kind,
            name: reviewed.name,
            subject: reviewed.subject,
            source: reviewed.source.unwrap_or_default(),
            scope_count: reviewed.scopes.len(),
            scopes: reviewed.scopes.join(" "),
            powers: reviewed.powers.join(", "),
            used: reviewed
                .last_used_at
                .as_deref()
                .and_then(|at| When::read(at, now)),
            state: match (reviewed.disabled, reviewed.notes.is_empty()) {
                (true, _) => Badge::new("disabled", Tone::Off),
                (false, true) => Badge::new("active", Tone::Good),
                (false, false) => Badge::new("look", Tone::Warn),
            },
            notes: reviewed.notes.join(", "),
        }
    }
}

#[derive(Template)]
#[template(path = "access.html")]
struct ReviewPage {
    shell: Shell,
    rows: Vec<Row>,
    waiting: Vec<String>,
    /// The roles that the person who looks can give.
    roles: Vec<String>,
    sources: Vec<(String, String)>,
    is_whole: bool,
}

async fn review(State(app): State<App>, session: Session) -> Result<Response, Refusal> {
    let permit = session.permit::<AccessRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let held = session.page_permit().held().scopes.clone();
    let found = app.db.read(permit.storage(), move |tx| {
        let (rows, is_whole) = people::review(tx, tenant, now)?;
        let roles = people::all_roles(tx, tenant)?;
        let can_give = |role: &Role| scope::missing(&role.scopes, &held).is_empty();
        let roles: Vec<String> = roles.into_iter().filter(can_give).map(|role| role.name).collect();
        let sources = people::sources(tx, tenant)?;
        Ok::<_, Problem>((rows, is_whole, without_role(tx, tenant)?, roles, sources))
    });
    let (rows, is_whole, waiting, roles, sources) = found.await?;
    page(&ReviewPage {
        shell: session.shell("Access", Section::Access),
        rows: rows.into_iter().map(|row| Row::of(row, now)).collect(),
        waiting,
        roles,
        sources,
        is_whole,
    })
}

/// A scope with the roles that give it.
#[derive(Debug)]
struct ScopeRow {
    name: &'static str,
    meaning: &'static str,
    cells: Vec<bool>,
}

#[derive(Template)]
#[template(path = "access_roles.html")]
struct RolesPage {
    shell: Shell,
    roles: Vec<Role>,
    scopes: Vec<ScopeRow>,
    /// The scopes that the person who looks can put into a role.
    own: Vec<&'static str>,
}

async fn roles(State(app): State<App>, session: Session) -> Result<Response, Refusal> {
    let permit = session.permit::<AccessRead>()?;
    let tenant = session.tenant();
    let roles = app
        .db
        .read(permit.storage(), move |tx| people::all_roles(tx, tenant))
        .await?;
    let row = |(name, meaning): &(&'static str, &'static str)| ScopeRow {
        name,
        meaning,
        cells: roles
            .iter()
            .map(|role| scope::holds(&role.scopes, name))
            .collect(),
    };
    let own = scope::ALL.iter().map(|(name, _)| *name);
    page(&RolesPage {
        shell: session.shell("Roles", Section::Access),
        scopes: scope::ALL.iter().map(row).collect(),
        own: own.filter(|name| session.may(name)).collect(),
        roles,
    })
}

/// A session as a row.
#[derive(Debug)]
struct SessionRow {
    id: String,
    person: String,
    how: String,
    began: When,
    seen: When,
    ends: When,
    is_own: bool,
}

fn session_row(listed: ListedSession, own: Option<muster_model::SessionId>, now: Timestamp) -> SessionRow {
    SessionRow {
        is_own: own == Some(listed.id),
        id: listed.id.to_string(),
        person: listed.person,
        how: match (listed.kind.as_str(), listed.method.as_str()) {
            ("api", _) => "a program that they let in".to_owned(),
            (_, "link") => format!("link of {}", ui::author(&listed.made_by)),
            (_, other) => other.to_owned(),
        },
        began: When::new(listed.created_at, now),
        seen: When::new(listed.seen_at, now),
        ends: When::new(listed.expires_at, now),
    }
}

#[derive(Template)]
#[template(path = "access_sessions.html")]
struct SessionsPage {
    shell: Shell,
    rows: Vec<SessionRow>,
    settings: SessionSettings,
}

async fn sessions(State(app): State<App>, session: Session) -> Result<Response, Refusal> {
    let permit = session.permit::<AccessRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let found = app.db.read(permit.storage(), move |tx| {
        Ok::<_, Problem>((
            people::sessions(tx, tenant, None)?,
            people::session_settings(tx, tenant)?,
        ))
    });
    let (rows, settings) = found.await?;
    let own = session.page_permit().session();
    page(&SessionsPage {
        shell: session.shell("Sessions", Section::Access),
        rows: rows.into_iter().map(|row| session_row(row, own, now)).collect(),
        settings,
    })
}

#[derive(Template)]
#[template(path = "access_me.html")]
struct MePage {
    shell: Shell,
    account: String,
    through: Vec<(String, String)>,
    scopes: Vec<(&'static str, &'static str)>,
    rows: Vec<SessionRow>,
}

async fn me(State(app): State<App>, session: Session) -> Result<Response, Refusal> {
    let (tenant, now) = (session.tenant(), app.clock.now());
    let account = session.page_permit().author().actor.id.clone();
    let person = account.clone();
    let rows = app.db.read(Scope::Tenant(tenant.uuid()), move |tx| {
        people::sessions(tx, tenant, Some(&person))
    });
    let rows = rows.await?;
    let own = session.page_permit().session();
    let held = session.page_permit().held();
    page(&MePage {
        account,
        through: held
            .through
            .iter()
            .map(|through| (through.role.clone(), through.by.clone()))
            .collect(),
        scopes: scope::ALL
            .iter()
            .copied()
            .filter(|(name, _)| scope::holds(&held.scopes, name))
            .collect(),
        rows: rows.into_iter().map(|row| session_row(row, own, now)).collect(),
        shell: session.shell("You", Section::Other),
    })
}

#[derive(Debug, Deserialize)]
struct Needs {
    #[serde(default)]
    needs: String,
}

#[derive(Template)]
#[template(path = "access_explain.html")]
struct ExplainPage {
    shell: Shell,
    needs: Vec<(&'static str, &'static str, bool)>,
    roles: Vec<String>,
    given_by: Vec<&'static str>,
    ask: Vec<String>,
    is_allowed: bool,
}

async fn explain(
    State(app): State<App>,
    session: Session,
    Ask(asked): Ask<Needs>,
) -> Result<Response, Refusal> {
    let (tenant, now) = (session.tenant(), app.clock.now());
    let words: Vec<&str> = asked
        .needs
        .split([',', ' '])
        .filter(|word| !word.is_empty())
        .collect();
    let known = scope::ALL.iter().filter(|(name, _)| words.contains(name));
    let needs: Vec<(&str, &str, bool)> = known
        .map(|(name, meaning)| (*name, *meaning, session.may(name)))
        .collect();
    if needs.is_empty() {
        return Err(Refusal(
            INVALID.detail("The address names nothing that somebody may do."),
        ));
    }
    let missing: Vec<&'static str> = needs.iter().filter(|need| !need.2).map(|need| need.0).collect();
    let wanted = missing.clone();
    let ask = app.db.read(Scope::Tenant(tenant.uuid()), move |tx| {
        people::who_can_give(tx, tenant, &wanted, now)
    });
    let given_by = muster_control::access::roles::built_in()
        .iter()
        .rev()
        .filter(|role| missing.iter().all(|name| scope::holds(&role.scopes, name)))
        .map(|role| role.name);
    page(&ExplainPage {
        shell: session.shell("Why not?", Section::Other),
        is_allowed: missing.is_empty(),
        roles: session.page_permit().held().roles(),
        given_by: given_by.collect(),
        ask: ask.await?,
        needs,
    })
}
