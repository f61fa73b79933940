//! Sinks: where the log and events of devices are sent, how far each is, what failed, and what was set aside.

use askama::Template;
use axum::{
    Router,
    extract::State,
    response::Response,
    routing::{get, post},
};
use muster_control::{
    App,
    access::scope::{SinkRead, SinkWrite},
    audit,
    sinks::{self, Probe, SinkView},
};
use muster_model::Timestamp;

use crate::{
    form::Sent,
    session::{At, Session},
    shell::{Refusal, Section, Shell, page, see_other},
    ui::{Badge, Tone, When},
};

/// Events that are set aside and shown of one sink.
const LETTERS_SHOWN: usize = 20;

pub fn router() -> Router<App> {
    Router::new()
        .route("/sinks", get(list))
        .route("/sinks/{name}/test", post(test))
        .route("/sinks/{name}/pause", post(pause))
        .route("/sinks/{name}/resume", post(resume))
        .route("/sinks/{name}/replay-dead", post(replay_dead))
}

/// A sink as a card.
struct Card {
    state: Badge,
    kind: &'static str,
    place: String,
    streams: Vec<StreamRow>,
    error: String,
    letters: Vec<sinks::LetterView>,
    more: u64,
    view: SinkView,
}

/// One stream of a sink.
struct StreamRow {
    name: &'static str,
    behind: String,
    worked: Option<When>,
    taken: u64,
    refused: u64,
    missed: u64,
}

#[derive(Template)]
#[template(path = "sinks.html")]
struct SinksPage {
    shell: Shell,
    cards: Vec<Card>,
    /// The sink that was tested just now, and what was found.
    tested: Option<(String, Probe)>,
}

async fn list(State(app): State<App>, session: Session) -> Result<Response, Refusal> {
    shown(&app, &session, None).await
}

async fn shown(app: &App, session: &Session, tested: Option<(String, Probe)>) -> Result<Response, Refusal> {
    let permit = session.permit::<SinkRead>()?;
    let (tenant, now, shared) = (session.tenant(), app.clock.now(), app.clone());
    let found = app
        .db
        .read(permit.storage(), move |tx| {
            let views = sinks::sink_views(&shared, tx, tenant)?;
            let mut all = Vec::with_capacity(views.len());
            for view in views {
                let letters = sinks::letters_page(tx, tenant, &view.name, None, LETTERS_SHOWN)?;
                all.push((view, letters.items));
            }
            Ok::<_, muster_control::access::problem::Problem>(all)
        })
        .await?;
    let mut cards: Vec<Card> = found
        .into_iter()
        .map(|(view, letters)| card(view, letters, now))
        .collect();
    // What needs somebody stands first.
    cards.sort_by_key(|card| {
        (
            card.error.is_empty() && card.view.dead_letters == 0,
            card.view.paused,
        )
    });
    page(&SinksPage {
        shell: session.shell("Sinks", Section::Log),
        cards,
        tested,
    })
}

fn card(view: SinkView, letters: Vec<sinks::LetterView>, now: Timestamp) -> Card {
    let error = view.progress.iter().find_map(|stream| stream.error.clone());
    let has_worked = view.progress.iter().any(|stream| stream.succeeded_at.is_some());
    let streams = view.progress.iter().map(|stream| StreamRow {
        name: stream.stream.as_str(),
        behind: match (stream.lag_events, stream.lag_seconds) {
            (0, _) => "nothing waits".to_owned(),
            (1, seconds) => format!("1 event, {seconds} s"),
            (events, seconds) => format!("{events} events, {seconds} s"),
        },
        worked: stream.succeeded_at.as_deref().and_then(|at| When::read(at, now)),
        taken: stream.taken,
        refused: stream.refused,
        missed: stream.missed,
    });
    Card {
        state: match (view.paused, &error, has_worked) {
            (true, _, _) => Badge::new("paused", Tone::Off),
            (false, Some(_), _) => Badge::new("failing", Tone::Bad),
            (false, None, _) if view.dead_letters > 0 => Badge::new("some set aside", Tone::Warn),
            (false, None, true) => Badge::new("works", Tone::Good),
            (false, None, false) => Badge::new("never used", Tone::Wait),
        },
        kind: view.definition.place.kind(),
        place: view.definition.place.target(),
        streams: streams.collect(),
        error: error.unwrap_or_default(),
        more: view.dead_letters.saturating_sub(letters.len() as u64),
        letters,
        view,
    }
}

async fn test(State(app): State<App>, At(name): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<SinkWrite>()?;
    let probe = sinks::probe(&app, &permit, name.clone()).await?;
    shown(&app, &sent.session, Some((name, probe))).await
}

async fn pause(State(app): State<App>, At(name): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<SinkWrite>()?;
    let reason = sent.fields.text("reason").to_owned();
    audit::commit(&app, permit.author(), move |tx| sinks::pause(tx, &name, &reason)).await?;
    Ok(see_other("/sinks?notice=sink-paused"))
}

async fn resume(State(app): State<App>, At(name): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<SinkWrite>()?;
    audit::commit(&app, permit.author(), move |tx| sinks::resume(tx, &name)).await?;
    app.nudges.sinks.notify_one();
    Ok(see_other("/sinks?notice=sink-resumed"))
}

async fn replay_dead(State(app): State<App>, At(name): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<SinkWrite>()?;
    audit::commit(&app, permit.author(), move |tx| {
        sinks::replay_letters(tx, &name, None).map(drop)
    })
    .await?;
    app.nudges.sinks.notify_one();
    Ok(see_other("/sinks?notice=sink-letters-replayed"))
}
