//! Tenants of the installation, for people of the operator's tenant: what state each is in, and what needs a person.

use askama::Template;
use axum::{
    Router,
    extract::State,
    response::Response,
    routing::{get, post},
};
use muster_control::{
    App,
    access::{
        problem::NOT_FOUND,
        scope::{TenantRead, TenantWrite},
        visits,
    },
    tenants::{self, TenantView},
};
use muster_model::TenantId;

use crate::{
    form::Sent,
    session::Session,
    shell::{Refusal, Section, Shell, page, see_other},
    ui::{Badge, Tone, When},
};

/// Tenants that the page shows; the command line lists all.
const SHOWN_MAX: usize = 500;

pub fn router() -> Router<App> {
    Router::new()
        .route("/tenants", get(show))
        .route("/tenants/suspend", post(suspend))
        .route("/tenants/resume", post(resume))
}

/// One tenant as people read it.
struct Row {
    id: String,
    name: String,
    display_name: String,
    badge: Badge,
    since: Option<When>,
    devices: u64,
    people: u64,
    /// What it waits for, in a sentence; empty where it is at work.
    waits: String,
    can_be_suspended: bool,
    can_be_resumed: bool,
    has_limits: bool,
    /// Whether somebody can ask for a visit; the tenant says whether it lets them in.
    can_be_visited: bool,
    checkpoint: Option<String>,
}

#[derive(Template)]
#[template(path = "tenants.html")]
struct TenantsPage {
    shell: Shell,
    /// Whether the person is of the operator's tenant.
    is_operator: bool,
    /// The person's own tenant, as the command line names it.
    own: String,
    /// How many wait for a person, or for their time.
    waiting: usize,
    /// There are more than are shown.
    more: bool,
    rows: Vec<Row>,
    /// The roles of visits, and the newest visits of people of this tenant.
    roles: &'static [&'static str],
    visits: Vec<super::visits::Row>,
}

fn badge(state: &str) -> Badge {
    match state {
        "active" => Badge::new("active", Tone::Good),
        "awaiting_root" => Badge::new("awaits its root keys", Tone::Wait),
        "suspended" => Badge::new("suspended", Tone::Warn),
        "closing" => Badge::new("closing", Tone::Bad),
        "erasing" => Badge::new("being deleted", Tone::Bad),
        _ => Badge::new("deleted", Tone::Off),
    }
}

fn waits(tenant: &TenantView) -> String {
    let erase_at = tenant.closing.as_ref().map(|closing| closing.erase_at.as_str());
    match (tenant.state, erase_at, tenant.expires_at.as_deref()) {
        ("awaiting_root", _, Some(at)) => {
            format!("Its root keys sign its first document, or it is forgotten at {at}.")
        }
        ("suspended", _, _) => "Nobody of it gets in. Resume it, or let its root keys close it.".to_owned(),
        ("closing", Some(at), _) => {
            format!(
                "Its root keys ended it. It can be taken back until {at}; then everything of it is deleted."
            )
        }
        ("erasing", _, _) => "Its keys are gone, and its rows are being deleted.".to_owned(),
        _ => String::new(),
    }
}

fn row(tenant: TenantView, now: muster_model::Timestamp) -> Row {
    Row {
        badge: badge(tenant.state),
        since: tenant
            .state_since
            .as_deref()
            .and_then(|since| When::read(since, now)),
        waits: waits(&tenant),
        can_be_suspended: tenant.state == "active" && !tenant.is_operator,
        can_be_resumed: matches!(tenant.state, "suspended" | "closing"),
        has_limits: matches!(tenant.state, "active" | "suspended" | "closing"),
        can_be_visited: tenant.state == "active" && !tenant.is_operator,
        checkpoint: tenant
            .closing
            .filter(|closing| closing.deleted_at.is_some())
            .and_then(|closing| closing.checkpoint),
        id: tenant.id.to_string(),
        name: tenant.name,
        display_name: if tenant.is_operator && tenant.display_name.is_empty() {
            "the operator's".to_owned()
        } else {
            tenant.display_name
        },
        devices: tenant.devices,
        people: tenant.people,
    }
}

async fn show(State(app): State<App>, session: Session) -> Result<Response, Refusal> {
    session.permit::<TenantRead>()?;
    let (own, now) = (session.tenant(), app.clock.now());
    let is_operator = tenants::is_operator(&app, own).await?;
    let mut found = if is_operator {
        tenants::tenant_views(&app, own, None, SHOWN_MAX).await?
    } else {
        Vec::new()
    };
    let more = found.len() > SHOWN_MAX;
    found.truncate(SHOWN_MAX);
    // What needs somebody stands first.
    found.sort_by_key(|tenant| match tenant.state {
        "closing" | "erasing" => 0,
        "awaiting_root" => 1,
        "suspended" => 2,
        "active" => 3,
        _ => 4,
    });
    let rows: Vec<Row> = found.into_iter().map(|tenant| row(tenant, now)).collect();
    let mut visits = if is_operator {
        visits::from_home(&app, own, None, super::visits::SHOWN_MAX).await?
    } else {
        Vec::new()
    };
    visits.truncate(super::visits::SHOWN_MAX);
    visits.sort_by_key(|named| !named.visit.state.is_open());
    page(&TenantsPage {
        roles: visits::ROLES,
        visits: visits
            .into_iter()
            .map(|named| super::visits::Row::of(named, now))
            .collect(),
        shell: session.shell("Tenants", Section::Tenants),
        is_operator,
        own: own.to_string(),
        waiting: rows.iter().filter(|row| !row.waits.is_empty()).count(),
        more,
        rows,
    })
}

/// The tenant of a form, for whoever may change tenants and proved a moment ago who they are.
async fn asked(app: &App, sent: &Sent) -> Result<TenantId, Refusal> {
    sent.session.permit::<TenantWrite>()?;
    sent.session.require_fresh(app)?;
    tenants::require_operator(app, sent.session.tenant()).await?;
    let id = sent.fields.text("tenant").parse::<TenantId>();
    Ok(id.map_err(|_| NOT_FOUND.detail("There is no such tenant."))?)
}

async fn suspend(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let tenant = asked(&app, &sent).await?;
    let reason = sent.fields.text("reason");
    tenants::suspend(&app, sent.session.page_permit().author(), tenant, reason).await?;
    Ok(see_other("/tenants?notice=tenant-suspended"))
}

async fn resume(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let tenant = asked(&app, &sent).await?;
    tenants::resume(&app, sent.session.page_permit().author(), tenant).await?;
    Ok(see_other("/tenants?notice=tenant-resumed"))
}
