//! What a tenant may: set by people of the operator's tenant, and seen by its own.

use askama::Template;
use axum::{Router, extract::State, response::Response, routing::get};
use muster_control::{
    App,
    access::{
        limits::Limits,
        problem::INVALID,
        scope::{TenantRead, TenantWrite},
    },
    tenants::{self, LimitView, LimitsView},
};

use crate::{
    form::{Fields, Sent},
    session::{At, Session},
    shell::{Refusal, Section, Shell, page, see_other},
    ui::{self, When},
};

pub fn router() -> Router<App> {
    Router::new().route("/tenants/{id}/limits", get(show).post(put))
}

/// One limit as people read it.
struct Row {
    name: &'static str,
    title: &'static str,
    about: &'static str,
    /// What is set, as a field holds it.
    set: String,
    /// What counts.
    in_force: String,
    used: Option<u64>,
    is_reached: bool,
}

#[derive(Template)]
#[template(path = "tenant_limits.html")]
struct LimitsPage {
    shell: Shell,
    tenant: String,
    name: String,
    is_operator: bool,
    /// How many limits are reached.
    reached: usize,
    rows: Vec<Row>,
    changed: Option<(String, When)>,
}

fn row(
    (name, title, about): (&'static str, &'static str, &'static str),
    limit: LimitView,
    everything: &str,
) -> Row {
    Row {
        name,
        title,
        about,
        set: limit.set.map_or_else(String::new, |set| set.to_string()),
        in_force: limit
            .in_force
            .map_or_else(|| everything.to_owned(), |most| most.to_string()),
        used: limit.used,
        is_reached: limit.is_reached(),
    }
}

fn rows(view: &LimitsView) -> Vec<Row> {
    vec![
        row(
            (
                "requests_per_second",
                "Requests in a second",
                "Of its programs, and as many of its people in the console; five times as many at once.",
            ),
            view.requests_per_second,
            "",
        ),
        row(
            (
                "requests_per_second_of_caller",
                "Of these, of one caller",
                "A service account, or a person.",
            ),
            view.requests_per_second_of_caller,
            "",
        ),
        row(
            (
                "device_messages_per_second",
                "Messages of devices in a second",
                "Check-ins, telemetry, enrollments; five times as many at once. Receipts of commands are refused last.",
            ),
            view.device_messages_per_second,
            "",
        ),
        row(
            (
                "devices_max",
                "Devices",
                "Enrolled and not retired. One more is refused; those that are there go on.",
            ),
            view.devices_max,
            "no limit",
        ),
        row(
            (
                "people_max",
                "People of the directory",
                "One more is refused; those that are there go on.",
            ),
            view.people_max,
            "no limit",
        ),
    ]
}

async fn show(State(app): State<App>, session: Session, At(tenant): At<String>) -> Result<Response, Refusal> {
    session.permit::<TenantRead>()?;
    let (own, now) = (session.tenant(), app.clock.now());
    let is_operator = tenants::is_operator(&app, own).await?;
    let view = if tenant == own.to_string() {
        tenants::own_limits(&app, own).await?
    } else {
        tenants::limits(&app, session.page_permit().author(), &tenant).await?
    };
    let rows = rows(&view);
    let changed = view.changed_by.as_deref().zip(view.changed_at.as_deref());
    page(&LimitsPage {
        shell: session.shell("Limits", Section::Tenants),
        tenant: view.tenant.to_string(),
        is_operator,
        reached: rows.iter().filter(|row| row.is_reached).count(),
        rows,
        changed: changed.and_then(|(by, at)| Some((ui::author(by), When::read(at, now)?))),
        name: view.name,
    })
}

/// A number that may be left empty.
fn number(fields: &Fields, name: &str) -> Result<Option<u32>, Refusal> {
    let read = |text: &str| {
        let wrong = || Refusal(INVALID.detail(format!("{name}: a number, or nothing.")));
        text.parse().map_err(|_| wrong())
    };
    fields.optional(name).map(read).transpose()
}

async fn put(State(app): State<App>, At(tenant): At<String>, sent: Sent) -> Result<Response, Refusal> {
    sent.session.permit::<TenantWrite>()?;
    sent.session.require_fresh(&app)?;
    let fields = &sent.fields;
    let limits = Limits {
        requests_per_second: number(fields, "requests_per_second")?,
        requests_per_second_of_caller: number(fields, "requests_per_second_of_caller")?,
        device_messages_per_second: number(fields, "device_messages_per_second")?,
        devices_max: number(fields, "devices_max")?,
        people_max: number(fields, "people_max")?,
    };
    let view = tenants::set_limits(&app, sent.session.page_permit().author(), &tenant, limits).await?;
    Ok(see_other(&format!(
        "/tenants/{}/limits?notice=limits-changed",
        view.tenant
    )))
}
