//! Alerts: the inbox with what each means and what to do, the messages that were sent, the destinations and rules.

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
        scope::{AlertRead, AlertWrite},
    },
    alerts::{
        self, AlertState, AlertView, DeliveryState, DeliveryView, DestinationView, ExpiryView, RuleView,
        Severity, SilenceView,
    },
    audit,
};
use muster_model::{AlertId, DeliveryId, SilenceId, Timestamp};
use serde::Deserialize;

use super::ROWS;
use crate::{
    form::Sent,
    session::{Ask, At, Session, parse},
    shell::{Refusal, Section, Shell, page, see_other},
    ui::{self, Badge, Tone, When},
};

pub fn router() -> Router<App> {
    Router::new()
        .route("/alerts", get(inbox))
        .route("/alerts/deliveries", get(deliveries))
        .route("/alerts/deliveries/{id}/replay", post(replay))
        .route("/alerts/destinations", get(destinations))
        .route("/alerts/destinations/{name}/test", post(test))
        .route("/alerts/silences", post(silence))
        .route("/alerts/silences/{id}/end", post(end_silence))
        .route("/alerts/{id}", get(show))
        .route("/alerts/{id}/{action}", post(decide))
}

/// An alert as a card.
struct Card {
    view: AlertView,
    href: String,
    runbook: String,
    severity: Badge,
    state: Badge,
    since: Option<When>,
    ended: Option<When>,
    about: Vec<About>,
    more: usize,
    acknowledged: String,
}

/// One object of a card.
struct About {
    object: String,
    value: String,
    since: Option<When>,
    /// The entry of the log, where there is one.
    entry: String,
}

/// Objects that a card shows.
const OBJECTS_SHOWN: usize = 20;

impl Card {
    fn of(view: AlertView, now: Timestamp) -> Card {
        let about = view.objects.iter().take(OBJECTS_SHOWN).map(|object| About {
            object: object.object.clone(),
            value: object.value.clone().unwrap_or_default(),
            since: When::read(&object.since, now),
            entry: object.entry.clone().unwrap_or_default(),
        });
        Card {
            href: format!("/alerts/{}", view.id),
            runbook: format!("/runbooks/{}", view.rule),
            severity: severity(view.severity),
            state: state(&view),
            since: When::read(&view.started_at, now),
            ended: view.resolved_at.as_deref().and_then(|at| When::read(at, now)),
            about: about.collect(),
            more: view.objects.len().saturating_sub(OBJECTS_SHOWN),
            acknowledged: view
                .acknowledged_by
                .as_deref()
                .map(ui::author)
                .unwrap_or_default(),
            view,
        }
    }

    fn is_open(&self) -> bool {
        self.view.state != AlertState::Resolved
    }
}

fn severity(severity: Severity) -> Badge {
    match severity {
        Severity::Critical => Badge::new("critical", Tone::Bad),
        Severity::Error => Badge::new("error", Tone::Bad),
        Severity::Warning => Badge::new("warning", Tone::Warn),
        Severity::Info => Badge::new("info", Tone::Off),
    }
}

fn state(view: &AlertView) -> Badge {
    match view.state {
        AlertState::Resolved => Badge::new("over", Tone::Good),
        AlertState::Pending => Badge::new("may begin", Tone::Wait),
        AlertState::Firing if view.silenced_because.is_some() => Badge::new("silenced", Tone::Off),
        AlertState::Firing if view.acknowledged_by.is_some() => Badge::new("acknowledged", Tone::Wait),
        AlertState::Firing => Badge::new("firing", Tone::Bad),
    }
}

#[derive(Debug, Default, Deserialize)]
struct Search {
    #[serde(default)]
    state: String,
    before: Option<String>,
}

#[derive(Template)]
#[template(path = "alerts.html")]
struct InboxPage {
    shell: Shell,
    cards: Vec<Card>,
    silences: Vec<SilenceRow>,
    /// Whether no destination is switched on.
    is_nobody_told: bool,
    is_all: bool,
    is_first: bool,
    older: Option<String>,
}

/// A silence as a row.
struct SilenceRow {
    view: SilenceView,
    about: String,
    by: String,
    ends: Option<When>,
}

impl SilenceRow {
    fn of(view: SilenceView, now: Timestamp) -> SilenceRow {
        let parts = [
            view.matcher.rule.clone(),
            view.matcher.object.clone(),
            view.matcher.severity.map(|severity| severity.as_str().to_owned()),
        ];
        SilenceRow {
            about: parts.into_iter().flatten().collect::<Vec<_>>().join(", "),
            by: ui::author(&view.created_by),
            ends: When::read(view.weekly_until.as_deref().unwrap_or(&view.ends_at), now),
            view,
        }
    }
}

async fn inbox(
    State(app): State<App>,
    session: Session,
    Ask(search): Ask<Search>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<AlertRead>()?;
    let (tenant, now, shared) = (session.tenant(), app.clock.now(), app.clone());
    let is_all = search.state == "all";
    let before = search.before.as_deref().map(parse::<AlertId>).transpose()?;
    let (found, silences, destinations) = app
        .db
        .read(permit.storage(), move |tx| {
            let found = alerts::alerts_page(&shared, tx, tenant, before, !is_all, ROWS)?;
            Ok::<_, muster_control::access::problem::Problem>((
                found,
                alerts::silence_views(tx, tenant, now)?,
                alerts::destination_views(tx, tenant)?,
            ))
        })
        .await?;
    let first = if is_all {
        "/alerts?state=all"
    } else {
        "/alerts?state=open"
    };
    page(&InboxPage {
        shell: session.shell("Alerts", Section::Alerts),
        older: found.next_cursor.map(|cursor| format!("{first}&before={cursor}")),
        cards: found.items.into_iter().map(|view| Card::of(view, now)).collect(),
        silences: silences
            .into_iter()
            .map(|view| SilenceRow::of(view, now))
            .collect(),
        is_nobody_told: !destinations.iter().any(|destination| destination.enabled),
        is_all,
        is_first: search.before.is_none(),
    })
}

/// A message as a row.
struct DeliveryRow {
    view: DeliveryView,
    state: Badge,
    created: Option<When>,
    next: Option<When>,
    alert: String,
    is_dead: bool,
}

impl DeliveryRow {
    fn of(view: DeliveryView, now: Timestamp) -> DeliveryRow {
        DeliveryRow {
            state: match view.state {
                DeliveryState::Waiting => Badge::new("waiting", Tone::Wait),
                DeliveryState::Delivered => Badge::new("delivered", Tone::Good),
                DeliveryState::Dead => Badge::new("given up", Tone::Bad),
            },
            created: When::read(&view.created_at, now),
            next: view.next_at.as_deref().and_then(|at| When::read(at, now)),
            alert: view
                .alert
                .map(|alert| format!("/alerts/{alert}"))
                .unwrap_or_default(),
            is_dead: view.state == DeliveryState::Dead,
            view,
        }
    }
}

#[derive(Template)]
#[template(path = "alert.html")]
struct AlertPage {
    shell: Shell,
    card: Card,
    rows: Vec<DeliveryRow>,
}

async fn show(State(app): State<App>, session: Session, At(id): At<String>) -> Result<Response, Refusal> {
    let permit = session.permit::<AlertRead>()?;
    let id: AlertId = parse(&id)?;
    let (tenant, now, shared) = (session.tenant(), app.clock.now(), app.clone());
    let found = app.db.read(permit.storage(), move |tx| {
        alerts::alert_view(&shared, tx, tenant, id)
    });
    let (view, deliveries) = found.await?;
    page(&AlertPage {
        shell: session.shell(view.title.clone(), Section::Alerts),
        card: Card::of(view, now),
        rows: deliveries
            .into_iter()
            .map(|view| DeliveryRow::of(view, now))
            .collect(),
    })
}

async fn decide(
    State(app): State<App>,
    At((id, action)): At<(String, String)>,
    sent: Sent,
) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<AlertWrite>()?;
    let id: AlertId = parse(&id)?;
    let (note, shared) = (sent.fields.text("note").to_owned(), app.clone());
    let notice = match action.as_str() {
        "acknowledge" => {
            audit::commit(&app, permit.author(), move |tx| {
                alerts::acknowledge(&shared, tx, id, &note)
            })
            .await?;
            "alert-acknowledged"
        }
        "resolve" => {
            audit::commit(&app, permit.author(), move |tx| {
                alerts::resolve(&shared, tx, id, &note)
            })
            .await?;
            "alert-resolved"
        }
        _ => return Err(NOT_FOUND.detail("There is no such action.").into()),
    };
    app.nudges.alerts.notify_one();
    Ok(see_other(&format!("/alerts/{id}?notice={notice}")))
}

/// How long the form's choices silence an alert, in hours.
const HOURS: [u64; 4] = [1, 4, 24, 168];

async fn silence(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<AlertWrite>()?;
    let fields = &sent.fields;
    let hours = fields
        .text("hours")
        .parse()
        .ok()
        .filter(|hours| HOURS.contains(hours));
    let hours = hours.unwrap_or(HOURS[0]);
    let part = |name: &str| Some(fields.text(name).trim().to_owned()).filter(|text| !text.is_empty());
    let request = alerts::SilenceRequest {
        matcher: alerts::Matcher {
            rule: part("rule"),
            object: part("object"),
            severity: None,
        },
        reason: fields.text("reason").to_owned(),
        starts_at: None,
        ends_at: app.clock.now().plus(std::time::Duration::from_secs(hours * 3600)),
        weekly_until: None,
    };
    let shared = app.clone();
    audit::commit(&app, permit.author(), move |tx| {
        alerts::silence(&shared, tx, &request)
    })
    .await?;
    Ok(see_other("/alerts?notice=alert-silenced"))
}

async fn end_silence(State(app): State<App>, At(id): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<AlertWrite>()?;
    let id: SilenceId = parse(&id)?;
    audit::commit(&app, permit.author(), move |tx| alerts::end_silence(tx, id)).await?;
    app.nudges.alerts.notify_one();
    Ok(see_other("/alerts?notice=silence-ended"))
}

#[derive(Template)]
#[template(path = "alert_deliveries.html")]
struct DeliveriesPage {
    shell: Shell,
    rows: Vec<DeliveryRow>,
    state: String,
    is_first: bool,
    older: Option<String>,
}

async fn deliveries(
    State(app): State<App>,
    session: Session,
    Ask(search): Ask<Search>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<AlertRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let wanted = DeliveryState::parse(&search.state);
    let before = search.before.as_deref().map(parse::<DeliveryId>).transpose()?;
    let found = app.db.read(permit.storage(), move |tx| {
        alerts::deliveries_page(tx, tenant, before, wanted, ROWS)
    });
    let found = found.await?;
    let state = wanted.map(|state| state.as_str().to_owned()).unwrap_or_default();
    page(&DeliveriesPage {
        shell: session.shell("Messages about alerts", Section::Alerts),
        older: found
            .next_cursor
            .map(|cursor| format!("/alerts/deliveries?state={state}&before={cursor}")),
        rows: found
            .items
            .into_iter()
            .map(|view| DeliveryRow::of(view, now))
            .collect(),
        state,
        is_first: search.before.is_none(),
    })
}

async fn replay(State(app): State<App>, At(id): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<AlertWrite>()?;
    let id: DeliveryId = parse(&id)?;
    audit::commit(&app, permit.author(), move |tx| alerts::replay(tx, id)).await?;
    app.nudges.alerts.notify_one();
    Ok(see_other("/alerts/deliveries?notice=message-replayed"))
}

/// A destination as a row.
struct DestinationRow {
    view: DestinationView,
    kind: &'static str,
    state: Badge,
    worked: Option<When>,
    error: String,
}

/// A rule as a row.
struct RuleRow {
    severity: Badge,
    runbook: String,
    to: String,
    missing: Vec<String>,
    view: RuleView,
}

/// Something that expires, as a row.
struct ExpiryRow {
    badge: Badge,
    at: Option<When>,
    view: ExpiryView,
}

#[derive(Template)]
#[template(path = "alert_destinations.html")]
struct DestinationsPage {
    shell: Shell,
    rows: Vec<DestinationRow>,
    rules: Vec<RuleRow>,
    expiries: Vec<ExpiryRow>,
}

async fn destinations(State(app): State<App>, session: Session) -> Result<Response, Refusal> {
    let permit = session.permit::<AlertRead>()?;
    let (tenant, now, shared) = (session.tenant(), app.clock.now(), app.clone());
    let (found, rules, expiries) = app
        .db
        .read(permit.storage(), move |tx| {
            Ok::<_, muster_control::access::problem::Problem>((
                alerts::destination_views(tx, tenant)?,
                alerts::rule_views(tx, tenant)?,
                alerts::expiry_views(&shared, tx, tenant)?,
            ))
        })
        .await?;
    page(&DestinationsPage {
        shell: session.shell("Who is told", Section::Alerts),
        rows: found.into_iter().map(|view| destination_row(view, now)).collect(),
        rules: rules.into_iter().map(rule_row).collect(),
        expiries: expiries
            .into_iter()
            .map(|view| ExpiryRow {
                badge: match view.days_left {
                    0..=7 => Badge::new("now", Tone::Bad),
                    8..=30 => Badge::new("soon", Tone::Warn),
                    _ => Badge::new("later", Tone::Good),
                },
                at: When::read(&view.expires_at, now),
                view,
            })
            .collect(),
    })
}

fn destination_row(view: DestinationView, now: Timestamp) -> DestinationRow {
    DestinationRow {
        kind: view.place.kind(),
        state: match (&view.error, view.enabled, &view.succeeded_at) {
            (_, false, _) => Badge::new("switched off", Tone::Off),
            (Some(_), true, _) => Badge::new("failing", Tone::Bad),
            (None, true, Some(_)) => Badge::new("works", Tone::Good),
            (None, true, None) => Badge::new("never used", Tone::Wait),
        },
        worked: view.succeeded_at.as_deref().and_then(|at| When::read(at, now)),
        error: view.error.clone().unwrap_or_default(),
        view,
    }
}

fn rule_row(view: RuleView) -> RuleRow {
    RuleRow {
        severity: severity(view.definition.severity),
        runbook: if view.built_in {
            format!("/runbooks/{}", view.name)
        } else {
            String::new()
        },
        to: view.definition.destinations.join(", "),
        missing: view.missing_destinations.clone(),
        view,
    }
}

async fn test(State(app): State<App>, At(name): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<AlertWrite>()?;
    let shared = app.clone();
    audit::commit(&app, permit.author(), move |tx| {
        alerts::test_destination(&shared, tx, &name)
    })
    .await?;
    app.nudges.alerts.notify_one();
    Ok(see_other("/alerts/deliveries?notice=test-sent"))
}
