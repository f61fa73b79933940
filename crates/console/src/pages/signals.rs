//! Signals: who outside says something of devices, what arrived, about whom nothing is known, and what was wrong last.

use askama::Template;
use axum::{Router, extract::State, response::Response, routing::get};
use muster_control::{
    App,
    access::{problem::Problem, scope::SignalRead},
    signals::{self, ArrivalView, SignalKind, SignalSourceView, UnmatchedView},
};
use muster_model::Timestamp;

use crate::{
    session::Session,
    shell::{Refusal, Section, Shell, page},
    ui::{Badge, Tone, When},
};

const ARRIVALS_SHOWN: usize = 50;
const UNMATCHED_SHOWN: usize = 20;

pub fn router() -> Router<App> {
    Router::new().route("/signals", get(list))
}

/// A source as a card.
struct Card {
    state: Badge,
    is_wrong: bool,
    kind: &'static str,
    last: Option<When>,
    error_at: Option<When>,
    unmatched: Vec<UnmatchedView>,
    view: SignalSourceView,
}

/// Something that arrived.
struct Row {
    when: Option<When>,
    outcome: Badge,
    device: String,
    view: ArrivalView,
}

#[derive(Template)]
#[template(path = "signals.html")]
struct SignalsPage {
    shell: Shell,
    cards: Vec<Card>,
    rows: Vec<Row>,
}

async fn list(State(app): State<App>, session: Session) -> Result<Response, Refusal> {
    let permit = session.permit::<SignalRead>()?;
    let (tenant, now, shared) = (session.tenant(), app.clock.now(), app.clone());
    let (found, arrivals) = app
        .db
        .read(permit.storage(), move |tx| {
            let mut all = Vec::new();
            for view in signals::source_views(&shared, tx, tenant)? {
                let mut unmatched = signals::unmatched(tx, tenant, &view.name)?;
                unmatched.truncate(UNMATCHED_SHOWN);
                all.push((view, unmatched));
            }
            let arrivals = signals::arrivals(tx, tenant, None, ARRIVALS_SHOWN)?;
            Ok::<_, Problem>((all, arrivals.items))
        })
        .await?;
    let mut cards: Vec<Card> = found
        .into_iter()
        .map(|(view, unmatched)| card(view, unmatched, now))
        .collect();
    // What needs somebody stands first.
    cards.sort_by_key(|card| !is_wrong(&card.view) && card.unmatched.is_empty());
    page(&SignalsPage {
        shell: session.shell("Signals", Section::Compliance),
        cards,
        rows: arrivals.into_iter().map(|view| row(view, now)).collect(),
    })
}

/// Whether the last thing that happened was a refusal.
fn is_wrong(view: &SignalSourceView) -> bool {
    view.error_at.is_some() && view.error_at >= view.taken_at
}

fn card(view: SignalSourceView, unmatched: Vec<UnmatchedView>, now: Timestamp) -> Card {
    let when = |at: &Option<String>| at.as_deref().and_then(|at| When::read(at, now));
    let (kind, needs_secret) = match view.definition.from {
        SignalKind::Ssf { .. } => ("Shared signals from", false),
        SignalKind::Webhook { .. } => ("Webhook", !view.has_secret),
    };
    Card {
        state: match (needs_secret, is_wrong(&view), view.received) {
            (true, _, _) => Badge::new("has no secret", Tone::Warn),
            (false, true, _) => Badge::new("refused", Tone::Bad),
            (false, false, 0) => Badge::new("never heard of", Tone::Wait),
            (false, false, _) if !unmatched.is_empty() => Badge::new("names unknown devices", Tone::Warn),
            (false, false, _) => Badge::new("works", Tone::Good),
        },
        is_wrong: is_wrong(&view),
        kind,
        last: when(&view.received_at),
        error_at: when(&view.error_at),
        unmatched,
        view,
    }
}

fn row(view: ArrivalView, now: Timestamp) -> Row {
    Row {
        when: When::read(&view.arrived_at, now),
        outcome: match view.outcome.as_str() {
            "taken" => Badge::new("taken", Tone::Good),
            "unmatched" => Badge::new("no device", Tone::Warn),
            "older" => Badge::new("older than known", Tone::Off),
            _ => Badge::new("nothing to keep", Tone::Off),
        },
        device: view.device.map(|device| device.to_string()).unwrap_or_default(),
        view,
    }
}
