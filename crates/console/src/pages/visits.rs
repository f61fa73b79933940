//! Visits of people of the operator's tenant: asking and entering on one side, letting in and sending away on the other.

use askama::Template;
use axum::{
    Router,
    extract::State,
    http::header,
    response::{AppendHeaders, IntoResponse, Response},
    routing::{get, post},
};
use muster_control::{
    App,
    access::{
        SessionKind, VISIT_COOKIE,
        problem::{INVALID, Problem},
        scope::{AccessRead, TenantEnter, VisitManage},
        visits::{self, Given, Mode, Named, State as VisitState, Wanted},
    },
    tenants,
};
use muster_model::{Timestamp, VisitId};

use crate::{
    form::Sent,
    session::{Session, parse},
    shell::{Refusal, Section, Shell, page, see_other},
    ui::{self, Badge, Tone, When},
};

/// Visits that a page shows; the command line lists all.
pub const SHOWN_MAX: usize = 100;
/// How long a visit is that nobody says more of.
const MINUTES: &str = "60";

pub fn router() -> Router<App> {
    Router::new()
        .route("/access/visits", get(show))
        .route("/access/visits/grant", post(grant))
        .route("/access/visits/deny", post(deny))
        .route("/access/visits/end", post(end))
        .route("/access/visits/setting", post(setting))
        .route("/tenants/visits/ask", post(ask))
        .route("/tenants/visits/begin", post(begin))
        .route("/tenants/visits/end", post(call_back))
        .route("/visit/leave", post(leave))
        .route("/visit/forget", post(forget))
}

/// A visit as people read it.
pub struct Row {
    pub id: String,
    pub tenant: String,
    pub person: String,
    pub role: String,
    pub minutes: u32,
    pub reason: String,
    pub badge: Badge,
    pub asked: When,
    /// Until when it is answered or begun, or when it ends or ended.
    pub until: Option<When>,
    /// What a date of `until` is.
    pub until_what: &'static str,
    pub decided_by: Option<String>,
    /// What it changed, and why it is over.
    pub outcome: String,
    pub is_requested: bool,
    pub is_granted: bool,
    pub is_open: bool,
    /// The roles that a request can be granted with.
    pub roles: Vec<&'static str>,
}

impl Row {
    pub fn of(named: Named, now: Timestamp) -> Row {
        let because = named.because();
        let visit = named.visit;
        let (label, tone) = match visit.state {
            VisitState::Requested => ("asked for", Tone::Wait),
            VisitState::Granted => ("granted", Tone::Wait),
            VisitState::Active => ("under way", Tone::Warn),
            VisitState::Denied => ("denied", Tone::Off),
            VisitState::Expired => ("expired", Tone::Off),
            VisitState::Ended => ("ended", Tone::Off),
        };
        let (until, until_what) = match visit.state {
            VisitState::Requested => (Some(visit.answer_by), "Answer by"),
            VisitState::Granted => (Some(visit.answer_by), "Begins by"),
            VisitState::Active => (visit.ends_at, "Ends"),
            VisitState::Denied | VisitState::Expired | VisitState::Ended => {
                (visit.ended_at.or(visit.decided_at), "Over")
            }
        };
        let changed = match (visit.begun_at, visit.changes) {
            (None, _) => String::new(),
            (Some(_), 0) => "Nothing was changed. ".to_owned(),
            (Some(_), 1) => "One change. ".to_owned(),
            (Some(_), many) => format!("{many} changes. "),
        };
        let over = because.map(|why| format!("Over: {why}.")).unwrap_or_default();
        Row {
            id: visit.id.to_string(),
            tenant: named.tenant_name,
            person: match visit.display_name == visit.person {
                true => visit.person,
                false => format!("{} ({})", visit.display_name, visit.person),
            },
            roles: visits::within(&visit.role),
            role: visit.role,
            minutes: visit.minutes,
            reason: visit.reason,
            badge: Badge::new(label, tone),
            asked: When::new(visit.asked_at, now),
            until: until.map(|at| When::new(at, now)),
            until_what,
            decided_by: visit.decided_by.map(|by| match by.as_str() {
                "setting" => "the tenant's setting".to_owned(),
                by => ui::author(by),
            }),
            outcome: format!("{changed}{over}").trim().to_owned(),
            is_requested: visit.state == VisitState::Requested,
            is_granted: visit.state == VisitState::Granted,
            is_open: visit.state.is_open(),
        }
    }
}

/// A choice of the setting.
struct Choice {
    word: &'static str,
    meaning: &'static str,
    is_chosen: bool,
}

fn meaning(mode: Mode) -> &'static str {
    match mode {
        Mode::Never => "Never: nobody of the operator's tenant comes in.",
        Mode::Ask => "Ask: each visit waits until one of you grants it.",
        Mode::Always => "Always: they come in without asking, within the ceiling.",
    }
}

#[derive(Template)]
#[template(path = "visits.html")]
struct VisitsPage {
    shell: Shell,
    /// Whether this is the operator's own tenant, which nobody visits.
    is_operator: bool,
    mode: &'static str,
    ceiling: String,
    choices: Vec<Choice>,
    roles: &'static [&'static str],
    /// How many wait for an answer, and how many are here.
    waiting: usize,
    here: usize,
    rows: Vec<Row>,
    more: bool,
}

async fn show(State(app): State<App>, session: Session) -> Result<Response, Refusal> {
    session.permit::<AccessRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let access = visits::operator_access(&app, tenant).await?;
    let mut found = visits::of_tenant(&app, tenant, None, SHOWN_MAX).await?;
    let more = found.len() > SHOWN_MAX;
    found.truncate(SHOWN_MAX);
    // What needs somebody stands first.
    found.sort_by_key(|named| match named.visit.state {
        VisitState::Requested => 0,
        VisitState::Active => 1,
        VisitState::Granted => 2,
        VisitState::Denied | VisitState::Expired | VisitState::Ended => 3,
    });
    let in_state = |state| found.iter().filter(|named| named.visit.state == state).count();
    let (waiting, here) = (in_state(VisitState::Requested), in_state(VisitState::Active));
    let choices = Mode::ALL.map(|mode| Choice {
        word: mode.word(),
        meaning: meaning(mode),
        is_chosen: mode == access.mode,
    });
    page(&VisitsPage {
        shell: session.shell("Visits", Section::Access),
        is_operator: tenants::is_operator(&app, tenant).await?,
        mode: access.mode.word(),
        ceiling: access.ceiling,
        choices: choices.into(),
        roles: visits::ROLES,
        waiting,
        here,
        rows: found.into_iter().map(|named| Row::of(named, now)).collect(),
        more,
    })
}

fn visit_of(sent: &Sent) -> Result<VisitId, Problem> {
    parse(sent.fields.text("visit"))
}

fn minutes_of(text: &str) -> Result<u32, Problem> {
    text.trim()
        .parse()
        .map_err(|_| INVALID.detail("minutes: a number."))
}

async fn grant(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<VisitManage>()?;
    sent.session.require_fresh(&app)?;
    let given = Given {
        role: Some(sent.fields.text("role").to_owned()).filter(|role| !role.is_empty()),
        minutes: match sent.fields.text("minutes") {
            "" => None,
            text => Some(minutes_of(text)?),
        },
    };
    visits::grant(&app, &permit, visit_of(&sent)?, given).await?;
    Ok(see_other("/access/visits?notice=visit-granted"))
}

async fn deny(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<VisitManage>()?;
    visits::deny(&app, &permit, visit_of(&sent)?).await?;
    Ok(see_other("/access/visits?notice=visit-denied"))
}

async fn end(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<VisitManage>()?;
    visits::send_away(&app, &permit, visit_of(&sent)?).await?;
    Ok(see_other("/access/visits?notice=visit-ended"))
}

async fn setting(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<VisitManage>()?;
    let mode = Mode::parse(sent.fields.text("mode"))
        .ok_or_else(|| INVALID.detail("Choose never, ask or always."))?;
    // To let in less needs no proof: whoever wants them out has them out.
    if mode != Mode::Never {
        sent.session.require_fresh(&app)?;
    }
    visits::set_operator_access(&app, &permit, mode, sent.fields.text("ceiling")).await?;
    Ok(see_other("/access/visits?notice=operator-access-changed"))
}

async fn ask(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<TenantEnter>()?;
    sent.session.require_fresh(&app)?;
    let minutes = match sent.fields.text("minutes") {
        "" => MINUTES,
        text => text,
    };
    let wanted = Wanted {
        reason: sent.fields.text("reason").trim().to_owned(),
        role: sent.fields.text("role").to_owned(),
        minutes: minutes_of(minutes)?,
    };
    let visit = visits::ask(&app, &permit, sent.fields.text("tenant"), wanted).await?;
    let notice = match visit.state {
        VisitState::Granted => "visit-open",
        _ => "visit-asked",
    };
    Ok(see_other(&format!("/tenants?notice={notice}")))
}

/// Begins a visit: the browser gets a second cookie, which goes before the person's own until the visit is over.
async fn begin(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<TenantEnter>()?;
    sent.session.require_fresh(&app)?;
    let begun = visits::begin(&app, &permit, visit_of(&sent)?, SessionKind::Console).await?;
    let left = begun
        .visit
        .ends_at
        .map_or(0, |end| end.since(app.clock.now()).as_secs());
    let set = [(header::SET_COOKIE, cookie(&begun.token, left))];
    Ok((AppendHeaders(set), see_other("/")).into_response())
}

async fn call_back(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<TenantEnter>()?;
    visits::call_back(&app, &permit, visit_of(&sent)?).await?;
    Ok(see_other("/tenants?notice=visit-ended"))
}

async fn leave(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    visits::leave(&app, sent.session.page_permit()).await?;
    Ok(forgotten("/tenants?notice=visit-ended"))
}

/// Forgets the cookie of a visit that is over.
async fn forget(_: Sent) -> Response {
    forgotten("/tenants")
}

/// What takes the cookie of a visit from the browser: whoever signs in or out there is in no visit.
pub fn no_cookie() -> String {
    cookie("", 0)
}

/// Goes on without the cookie of a visit.
pub fn forgotten(next: &str) -> Response {
    let set = [(header::SET_COOKIE, no_cookie())];
    (AppendHeaders(set), see_other(next)).into_response()
}

/// As the cookie of a session, and no longer than the visit.
fn cookie(secret: &str, seconds: u64) -> String {
    format!("{VISIT_COOKIE}={secret}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}")
}
