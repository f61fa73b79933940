//! Routes of sinks.

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    carrier::{Probe, SinkAddress},
    definition::StreamKind,
    people::{self, SinkChange, Start},
    sets,
    view::{self, LetterView, SinkView},
};
use crate::{
    App,
    access::{
        Permit,
        problem::{Problem, UNAVAILABLE},
        request::{Body, Params, PathOf},
        scope::{LogRead, SinkRead, SinkWrite, TelemetryRead},
    },
    audit,
    page::{Page, page_limit},
};

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_sinks))
        .routes(routes!(get_sink, put_sink, delete_sink))
        .routes(routes!(test_sink))
        .routes(routes!(pause_sink))
        .routes(routes!(resume_sink))
        .routes(routes!(replay_sink))
        .routes(routes!(list_sink_dead_letters))
        .routes(routes!(replay_sink_dead_letters))
        .routes(routes!(discard_sink_dead_letters))
}

/// Every sink.
#[derive(Debug, Serialize, ToSchema)]
struct Sinks {
    items: Vec<SinkView>,
}

async fn shown<S>(app: &App, permit: &Permit<S>, name: String) -> Result<Json<SinkView>, Problem> {
    let (tenant, shared) = (permit.tenant(), app.clone());
    let found = app.db.read(permit.storage(), move |tx| {
        view::sink_view(&shared, tx, tenant, &name)
    });
    Ok(Json(found.await?))
}

#[utoipa::path(
    get, path = "/sinks", tag = "sinks", security(("oauth2" = ["sink:read"])),
    responses((status = 200, body = Sinks)),
)]
async fn list_sinks(permit: Permit<SinkRead>, State(app): State<App>) -> Result<Json<Sinks>, Problem> {
    let (tenant, shared) = (permit.tenant(), app.clone());
    let items = app
        .db
        .read(permit.storage(), move |tx| view::sink_views(&shared, tx, tenant));
    Ok(Json(Sinks { items: items.await? }))
}

#[utoipa::path(
    get, path = "/sinks/{name}", tag = "sinks", params(("name" = String, Path)), security(("oauth2" = ["sink:read"])),
    responses((status = 200, body = SinkView)),
)]
async fn get_sink(
    permit: Permit<SinkRead>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
) -> Result<Json<SinkView>, Problem> {
    shown(&app, &permit, name).await
}

/// Makes or changes a sink. Its secret is never shown again. It can read everything that it sends, so whoever makes one can too.
#[utoipa::path(
    put, path = "/sinks/{name}", tag = "sinks", params(("name" = String, Path)),
    security(("oauth2" = ["log:read", "sink:write", "telemetry:read"])), request_body = SinkChange,
    responses((status = 200, body = SinkView)),
)]
async fn put_sink(
    permit: Permit<(LogRead, SinkWrite, TelemetryRead)>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
    Body(change): Body<SinkChange>,
) -> Result<Json<SinkView>, Problem> {
    let (shared, of) = (app.clone(), name.clone());
    audit::commit(&app, permit.author(), move |tx| {
        people::put_sink(&shared, tx, &of, &change).map(drop)
    })
    .await?;
    app.nudges.sinks.notify_one();
    shown(&app, &permit, name).await
}

#[utoipa::path(
    delete, path = "/sinks/{name}", tag = "sinks", params(("name" = String, Path)),
    security(("oauth2" = ["sink:write"])), responses((status = 204)),
)]
async fn delete_sink(
    permit: Permit<SinkWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
) -> Result<StatusCode, Problem> {
    audit::commit(&app, permit.author(), move |tx| people::remove_sink(tx, &name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tries step by step whether a sink works, and sends it one event that says that it is a test.
#[utoipa::path(
    post, path = "/sinks/{name}/test", tag = "sinks", params(("name" = String, Path)),
    security(("oauth2" = ["sink:write"])), responses((status = 200, body = Probe)),
)]
async fn test_sink(
    permit: Permit<SinkWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
) -> Result<Json<Probe>, Problem> {
    probe(&app, &permit, name).await.map(Json)
}

/// Tests a sink and records what was found.
pub async fn probe(app: &App, permit: &Permit<SinkWrite>, name: String) -> Result<Probe, Problem> {
    let (tenant, of) = (permit.tenant(), name.clone());
    let sink = app
        .db
        .read(permit.storage(), move |tx| view::sink(tx, tenant, &of))
        .await?;
    let Some(carrier) = app.carrier.get() else {
        return Err(UNAVAILABLE.detail("This process sends nothing."));
    };
    let secret = sink
        .open_secret(&app.keys.sealing, tenant)
        .map_err(Problem::internal)?;
    let mut event = people::test_event(app, tenant, &sink, &permit.author().actor)?;
    let signed = sets::signed(app, tenant, &sink.definition.place, vec![event.item.clone()]).await?;
    event.item = signed.into_iter().next().unwrap_or(event.item);
    let address = SinkAddress {
        tenant,
        name: &sink.name,
        place: &sink.definition.place,
        format: sink.definition.format,
        secret: secret.as_ref(),
        now: app.clock.now(),
    };
    let found = carrier.probe(address, &event).await;
    let noted = found.clone();
    audit::commit(app, permit.author(), move |tx| people::tested(tx, &name, &noted)).await?;
    Ok(found)
}

/// Why a sink is paused.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SinkPause {
    /// At most 500 characters.
    reason: String,
}

/// Sends nothing until it is resumed. Events wait where they are.
#[utoipa::path(
    post, path = "/sinks/{name}/pause", tag = "sinks", params(("name" = String, Path)),
    security(("oauth2" = ["sink:write"])), request_body = SinkPause, responses((status = 200, body = SinkView)),
)]
async fn pause_sink(
    permit: Permit<SinkWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
    Body(request): Body<SinkPause>,
) -> Result<Json<SinkView>, Problem> {
    let of = name.clone();
    audit::commit(&app, permit.author(), move |tx| {
        people::pause(tx, &of, &request.reason)
    })
    .await?;
    shown(&app, &permit, name).await
}

#[utoipa::path(
    post, path = "/sinks/{name}/resume", tag = "sinks", params(("name" = String, Path)),
    security(("oauth2" = ["sink:write"])), responses((status = 200, body = SinkView)),
)]
async fn resume_sink(
    permit: Permit<SinkWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
) -> Result<Json<SinkView>, Problem> {
    let of = name.clone();
    audit::commit(&app, permit.author(), move |tx| people::resume(tx, &of)).await?;
    app.nudges.sinks.notify_one();
    shown(&app, &permit, name).await
}

/// From where a sink sends again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SinkReplay {
    /// One stream, or every one that the sink takes.
    #[serde(default)]
    stream: Option<StreamKind>,
    from: Start,
}

/// Moves a sink's cursor, and sends from there on again: what was sent before comes a second time under the same id.
#[utoipa::path(
    post, path = "/sinks/{name}/replay", tag = "sinks", params(("name" = String, Path)),
    security(("oauth2" = ["sink:write"])), request_body = SinkReplay, responses((status = 200, body = SinkView)),
)]
async fn replay_sink(
    permit: Permit<SinkWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
    Body(request): Body<SinkReplay>,
) -> Result<Json<SinkView>, Problem> {
    let (shared, of) = (app.clone(), name.clone());
    audit::commit(&app, permit.author(), move |tx| {
        people::replay(&shared, tx, &of, request.stream, &request.from)
    })
    .await?;
    app.nudges.sinks.notify_one();
    shown(&app, &permit, name).await
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct SinkLettersQuery {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items on a page, at most 500.
    limit: Option<usize>,
}

#[utoipa::path(
    get, path = "/sinks/{name}/dead-letters", tag = "sinks", params(("name" = String, Path), SinkLettersQuery),
    security(("oauth2" = ["sink:read"])), responses((status = 200, body = Page<LetterView>)),
)]
async fn list_sink_dead_letters(
    permit: Permit<SinkRead>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
    Params(query): Params<SinkLettersQuery>,
) -> Result<Json<Page<LetterView>>, Problem> {
    let (tenant, limit) = (permit.tenant(), page_limit(query.limit));
    let page = app.db.read(permit.storage(), move |tx| {
        view::letters_page(tx, tenant, &name, query.cursor.as_deref(), limit)
    });
    Ok(Json(page.await?))
}

/// Which events that were set aside: all of them, unless one is named.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SinkLetters {
    #[serde(default)]
    only: Option<SinkLetterPlace>,
}

/// The place of one event.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SinkLetterPlace {
    stream: StreamKind,
    place: u64,
}

impl SinkLetters {
    fn only(&self) -> Option<(StreamKind, u64)> {
        self.only.map(|only| (only.stream, only.place))
    }
}

/// How many events it was about.
#[derive(Debug, Serialize, ToSchema)]
struct SinkLettersCounted {
    events: u64,
}

/// Sends again what was set aside.
#[utoipa::path(
    post, path = "/sinks/{name}/dead-letters/replay", tag = "sinks", params(("name" = String, Path)),
    security(("oauth2" = ["sink:write"])), request_body = SinkLetters, responses((status = 200, body = SinkLettersCounted)),
)]
async fn replay_sink_dead_letters(
    permit: Permit<SinkWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
    Body(request): Body<SinkLetters>,
) -> Result<Json<SinkLettersCounted>, Problem> {
    let events = audit::commit(&app, permit.author(), move |tx| {
        people::replay_letters(tx, &name, request.only())
    })
    .await?;
    app.nudges.sinks.notify_one();
    Ok(Json(SinkLettersCounted { events }))
}

/// Gives up what was set aside.
#[utoipa::path(
    post, path = "/sinks/{name}/dead-letters/discard", tag = "sinks", params(("name" = String, Path)),
    security(("oauth2" = ["sink:write"])), request_body = SinkLetters, responses((status = 200, body = SinkLettersCounted)),
)]
async fn discard_sink_dead_letters(
    permit: Permit<SinkWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
    Body(request): Body<SinkLetters>,
) -> Result<Json<SinkLettersCounted>, Problem> {
    let events = audit::commit(&app, permit.author(), move |tx| {
        people::discard_letters(tx, &name, request.only())
    })
    .await?;
    app.nudges.sinks.notify_one();
    Ok(Json(SinkLettersCounted { events }))
}
