//! Sinks as people and programs see them.

use muster_model::{TenantId, Timestamp};
use muster_storage::Tx;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Cursor, Letter,
    definition::{Sink, SinkDefinition, StreamKind},
    store, streams,
};
use crate::{
    App,
    access::problem::{CURSOR_INVALID, NOT_FOUND, Problem},
    page::Page,
};

/// How far one stream of a sink is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SinkStreamView {
    pub stream: StreamKind,
    /// The first place that was not settled yet.
    pub place: u64,
    /// The place that the next event gets.
    pub end: u64,
    /// Events that wait.
    pub lag_events: u64,
    /// How long the oldest of them waits.
    pub lag_seconds: u64,
    /// Events since the sink was made: taken, refused for good, and not kept any more when their turn came.
    pub taken: u64,
    pub refused: u64,
    pub missed: u64,
    pub succeeded_at: Option<String>,
    pub failed_at: Option<String>,
    /// What the other side answered last, where it answered.
    pub status: Option<u16>,
    /// Why the last try failed, where it did.
    pub error: Option<String>,
    /// When it is tried next, while it waits after a failure.
    pub next_at: Option<String>,
}

/// A sink, without its secret.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SinkView {
    pub name: String,
    #[serde(flatten)]
    pub definition: SinkDefinition,
    pub has_secret: bool,
    pub paused: bool,
    pub updated_by: String,
    pub updated_at: String,
    pub progress: Vec<SinkStreamView>,
    /// Events that are set aside because the other side refused them for good.
    pub dead_letters: u64,
}

/// An event that is set aside.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LetterView {
    pub stream: StreamKind,
    pub place: u64,
    pub event_id: String,
    pub event_name: String,
    /// Whether it is about to be sent again.
    pub again: bool,
    pub error: String,
    pub died_at: String,
}

/// How far behind a sink is.
#[derive(Debug, Clone)]
pub struct Behind {
    pub sink: String,
    pub is_paused: bool,
    /// Events that wait, of both streams.
    pub events: u64,
    /// How long the oldest of them waits.
    pub seconds: u64,
    pub letters: u64,
    pub is_failing: bool,
}

fn text(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.to_string())
}

impl From<Letter> for LetterView {
    fn from(letter: Letter) -> LetterView {
        LetterView {
            stream: letter.stream,
            place: letter.place,
            event_id: letter.event_id,
            event_name: letter.event_name,
            again: letter.is_again,
            error: letter.error,
            died_at: letter.died_at.to_string(),
        }
    }
}

fn stream_view(app: &App, tx: &mut Tx, tenant: TenantId, cursor: Cursor) -> Result<SinkStreamView, Problem> {
    let now = app.clock.now();
    let end = streams::end(app, tx, tenant, cursor.stream)?.max(cursor.place);
    let oldest = match cursor.place < end {
        true => streams::time_at(tx, tenant, cursor.stream, cursor.place)?,
        false => None,
    };
    Ok(SinkStreamView {
        stream: cursor.stream,
        place: cursor.place,
        end,
        lag_events: end - cursor.place,
        lag_seconds: oldest.map_or(0, |oldest| now.since(oldest).as_secs()),
        taken: cursor.taken,
        refused: cursor.refused,
        missed: cursor.missed,
        succeeded_at: text(cursor.succeeded_at),
        failed_at: text(cursor.failed_at),
        status: cursor.status,
        next_at: (cursor.error.is_some() && cursor.next_at > now).then(|| cursor.next_at.to_string()),
        error: cursor.error,
    })
}

fn view(app: &App, tx: &mut Tx, tenant: TenantId, sink: Sink) -> Result<SinkView, Problem> {
    let mut progress = Vec::new();
    for cursor in store::cursors(tx, tenant, &sink.name)? {
        progress.push(stream_view(app, tx, tenant, cursor)?);
    }
    Ok(SinkView {
        dead_letters: store::count_letters(tx, tenant, &sink.name)?,
        name: sink.name,
        // What may be a key is not shown, to whoever sees sinks.
        definition: SinkDefinition {
            place: sink.definition.place.redacted(),
            ..sink.definition
        },
        has_secret: sink.secret.is_some(),
        paused: sink.is_paused,
        updated_by: sink.updated_by,
        updated_at: sink.updated_at.to_string(),
        progress,
    })
}

/// Every sink.
pub fn sink_views(app: &App, tx: &mut Tx, tenant: TenantId) -> Result<Vec<SinkView>, Problem> {
    let sinks = store::sinks(tx, tenant)?;
    sinks
        .into_iter()
        .map(|sink| view(app, tx, tenant, sink))
        .collect()
}

/// One sink.
pub fn sink_view(app: &App, tx: &mut Tx, tenant: TenantId, name: &str) -> Result<SinkView, Problem> {
    let sink = sink(tx, tenant, name)?;
    view(app, tx, tenant, sink)
}

/// The sink of this name.
pub(super) fn sink(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Sink, Problem> {
    store::sink(tx, tenant, name)?.ok_or_else(|| NOT_FOUND.detail("There is no such sink."))
}

/// How far behind every sink of a tenant is.
pub fn behind(app: &App, tx: &mut Tx, tenant: TenantId) -> Result<Vec<Behind>, Problem> {
    let behind = |view: SinkView| Behind {
        events: view.progress.iter().map(|stream| stream.lag_events).sum(),
        seconds: view
            .progress
            .iter()
            .map(|stream| stream.lag_seconds)
            .max()
            .unwrap_or(0),
        is_failing: view.progress.iter().any(|stream| stream.error.is_some()),
        letters: view.dead_letters,
        is_paused: view.paused,
        sink: view.name,
    };
    Ok(sink_views(app, tx, tenant)?.into_iter().map(behind).collect())
}

/// A page of what is set aside, the log before events, each in its order.
pub fn letters_page(
    tx: &mut Tx,
    tenant: TenantId,
    name: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Page<LetterView>, Problem> {
    sink(tx, tenant, name)?;
    let mut from = match after {
        None => (StreamKind::Log, 0),
        Some(text) => place_of(text)
            .ok_or_else(|| CURSOR_INVALID.detail("Send next_cursor of the page before, or no cursor."))?,
    };
    let mut found = Vec::new();
    for stream in StreamKind::ALL {
        if stream < from.0 || found.len() > limit {
            continue;
        }
        if stream > from.0 {
            from = (stream, 0);
        }
        let rows = i64::try_from(limit + 1 - found.len()).unwrap_or(i64::MAX);
        found.extend(store::letters_from(tx, tenant, name, from, rows)?);
    }
    let items = found.into_iter().map(LetterView::from).collect();
    Ok(Page::of(items, limit, |letter: &LetterView| {
        format!("{}.{}", letter.stream.as_str(), letter.place + 1)
    }))
}

fn place_of(text: &str) -> Option<(StreamKind, u64)> {
    let (stream, place) = text.split_once('.')?;
    Some((StreamKind::parse(stream)?, place.parse().ok()?))
}
