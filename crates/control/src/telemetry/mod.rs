//! What devices measured and what happened on them: taken up once, kept compressed, asked about.
//!
//! The way of a batch: room is asked for ([`admit`]) before its body is read; [`prepare`] puts its windows onto the server's
//! time and packs them; [`write`] stores it with others in one transaction and says how far the stream was taken. There it
//! waits in the spool until the reconciler brings it to the [`SeriesStore`]: the embedded one, or another over a port.

mod api;
mod chunk;
mod embedded;
mod ingest;
mod metrics;
mod port;
mod reconcile;
mod rules;
mod series;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod view;

use std::{sync::OnceLock, time::Duration};

use muster_channel_agent::telemetry::{TelemetryAnswer, TelemetryBatch};
use muster_model::{DeviceId, TenantId, Timestamp};
use muster_storage::{Database, Statement, Tx};
use muster_trust::key::sha256;
use uuid::Uuid;

use crate::{App, Clock, access::problem::Problem};

pub use api::router;
pub use embedded::Embedded;
pub use ingest::{DEVICE_BYTES_PER_HOUR, Room, Taken, admit, write, write_queued};
pub use metrics::TelemetryMetrics;
pub use port::{
    Change, Comparison, Distribution, End, Latest, Line, Movement, Ranked, SeriesStore, Settling, StoreError,
    Survey,
};
pub use reconcile::{SETTLER_LEASE, forget_expired, keep_settled, settle};
pub use rules::{Chart, Level, STEPS_MAX, Span, Statistic, is_counter, moment};
pub use series::{Point, SeriesKey, SeriesSet, Windows};
pub use view::{
    Health, StreamView, changes, chart, check_metric, device_health, distribution, latest, names, ranking,
};

/// Every statement of this slice, for the test that prepares them all on both engines.
pub const STATEMENTS: &[Statement] = store::ALL;
/// Streams of one enrollment of a device that are remembered; those used longest ago are forgotten.
pub const STREAMS_MAX: usize = 8;
/// Hours with a wrong clock that are remembered of a device.
pub const CLOCK_ROWS_MAX: usize = 48;
/// Events that are kept of a device.
pub const EVENTS_MAX: usize = 1000;
/// How long an event is kept.
pub const EVENT_RETENTION: Duration = Duration::from_secs(90 * 86_400);

/// Telemetry of one process.
#[derive(Debug)]
pub struct Telemetry {
    pub ingest: ingest::Ingest,
    pub metrics: TelemetryMetrics,
    embedded: Embedded,
    /// Another store than the embedded one. Set by the composition root, before the loops start.
    pub remote: OnceLock<Box<dyn SeriesStore>>,
}

impl Telemetry {
    pub fn new(db: Database, clock: Clock, retention_days: u32) -> Telemetry {
        Telemetry {
            ingest: ingest::Ingest::default(),
            metrics: TelemetryMetrics::default(),
            embedded: Embedded::new(db, clock, retention_days),
            remote: OnceLock::new(),
        }
    }

    /// Where time series are kept and asked for.
    pub fn store(&self) -> &dyn SeriesStore {
        match self.remote.get() {
            Some(remote) => remote.as_ref(),
            None => &self.embedded,
        }
    }
}

/// Who sent a batch, as its certificate and its last check-in say.
#[derive(Debug, Clone, Copy)]
pub struct Sender {
    pub tenant: TenantId,
    pub device: DeviceId,
    pub epoch: u32,
    /// By how much the server's clock was ahead of the device's at its last check-in here, in microseconds.
    pub clock_offset: Option<i64>,
}

/// A batch on its way into the database.
#[derive(Debug, Clone)]
pub struct Batch {
    pub device: DeviceId,
    pub epoch: u32,
    pub stream: Uuid,
    pub sequence: u64,
    /// When the batch was made, by the device's clock.
    pub sent_at: Timestamp,
    pub received_at: Timestamp,
    /// By how much the server's clock is ahead, in microseconds, where it is known.
    pub clock_offset: Option<i64>,
    /// What was added to the device's times.
    pub correction_seconds: i64,
    /// The windows, as a chunk.
    pub content: Vec<u8>,
    pub points: u64,
    pub points_expired: u64,
    pub points_refused: u64,
    pub events: Vec<Event>,
    /// Spans that came along: they are counted here, and go another way.
    pub spans: u64,
    /// What the device says became of its samples: JSON.
    pub accounting: String,
}

/// Something that happened on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: Uuid,
    pub device: DeviceId,
    pub name: String,
    /// By the server's clock.
    pub at: Timestamp,
    /// By the device's.
    pub device_at: Timestamp,
    /// JSON: texts by name.
    pub attributes: String,
    pub received_at: Timestamp,
}

/// Which events are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventFilter {
    pub device: Option<DeviceId>,
    pub name: Option<String>,
    /// Only what comes after this place in the list, which is newest first.
    pub before: (Timestamp, Uuid),
}

/// An hour in which a device's clock was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockNote {
    pub hour: Timestamp,
    /// What was added to the device's times, in microseconds.
    pub offset: i64,
    pub batches: u64,
}

/// Puts the windows and events of a batch onto the server's time and packs them. Takes time: it belongs on a thread for that.
pub fn prepare(sender: &Sender, batch: TelemetryBatch, now: Timestamp, retention_days: u32) -> Batch {
    let readings = rules::ClockReadings {
        at_checkin: sender.clock_offset,
        made_at: batch.device_time,
        received_at: now,
    };
    let clock_offset = rules::clock_offset(&readings);
    let correction = rules::correction(clock_offset);
    let stream = Uuid::from_bytes(*batch.stream.as_bytes());
    let accounting = serde_json::to_string(&batch.accounting).unwrap_or_default();
    let events = batch.events.into_iter().map(|event| Event {
        id: event_id(stream, event.number),
        device: sender.device,
        name: event.kind.as_str().to_owned(),
        at: later(event.at, correction),
        device_at: event.at,
        attributes: serde_json::to_string(&event.attributes).unwrap_or_default(),
        received_at: now,
    });
    let events = events.collect();
    let windows = batch.series.into_iter().flat_map(by_width);
    let placed = rules::place(windows, correction, now.as_unix_seconds(), retention_days);
    Batch {
        device: sender.device,
        epoch: sender.epoch,
        stream,
        sequence: batch.sequence,
        sent_at: batch.device_time,
        received_at: now,
        clock_offset,
        correction_seconds: correction,
        content: chunk::encode(&placed.set),
        points: placed.points,
        points_expired: placed.expired,
        points_refused: placed.refused,
        events,
        spans: batch.spans.len() as u64,
        accounting,
    }
}

/// A series of the wire, whose windows may be of several widths.
fn by_width(series: muster_channel_agent::telemetry::Series) -> Vec<(SeriesKey, Vec<Point>)> {
    let mut parts: Vec<(SeriesKey, Vec<Point>)> = Vec::new();
    for window in series.windows {
        let point = Point {
            at: window.start_seconds,
            of: window.aggregate,
        };
        match parts
            .iter_mut()
            .find(|(key, _)| key.window_seconds == window.width_seconds)
        {
            Some((_, points)) => points.push(point),
            None => {
                let key = SeriesKey {
                    metric: series.metric.as_str().to_owned(),
                    subject: series
                        .label
                        .as_ref()
                        .map_or_else(String::new, |label| label.as_str().to_owned()),
                    window_seconds: window.width_seconds,
                };
                parts.push((key, vec![point]));
            }
        }
    }
    parts
}

fn later(at: Timestamp, seconds: i64) -> Timestamp {
    Timestamp::from_micros(at.as_micros().saturating_add(seconds.saturating_mul(1_000_000)))
}

/// A stream and a number in it name an event, however often it is sent.
fn event_id(stream: Uuid, number: u64) -> Uuid {
    let digest = sha256(&[&stream.as_bytes()[..], &number.to_be_bytes()].concat());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    // A name-based identifier of our own making (RFC 9562 section 5.8).
    uuid::Builder::from_bytes(bytes)
        .with_variant(uuid::Variant::RFC4122)
        .with_version(uuid::Version::Custom)
        .into_uuid()
}

/// The answer to a device whose batch was taken.
pub fn answer(app: &App, taken: Taken) -> TelemetryAnswer {
    TelemetryAnswer {
        accepted_through: taken.accepted_through,
        server_time: app.clock.now(),
        bytes_per_hour: Some(DEVICE_BYTES_PER_HOUR),
        not_before_seconds: rules::not_before_seconds(app.telemetry.ingest.fill()),
    }
}

/// The newest events, of one device or of all.
pub fn newest_events(
    tx: &mut Tx,
    tenant: TenantId,
    device: Option<DeviceId>,
    limit: usize,
) -> Result<Vec<Event>, Problem> {
    let filter = EventFilter {
        device,
        name: None,
        before: (Timestamp::from_micros(i64::MAX), Uuid::max()),
    };
    events(tx, tenant, &filter, limit)
}

/// Events, newest first.
pub fn events(
    tx: &mut Tx,
    tenant: TenantId,
    filter: &EventFilter,
    limit: usize,
) -> Result<Vec<Event>, Problem> {
    Ok(store::events(tx, tenant, filter, limit)?)
}

/// How many events of a tenant were ever kept: the place of the next one.
pub fn event_end(tx: &mut Tx, tenant: TenantId) -> Result<u64, Problem> {
    Ok(store::event_end(tx, tenant)?)
}

/// As [`event_end`], of every tenant that has events.
pub fn event_ends(tx: &mut Tx) -> Result<Vec<(TenantId, u64)>, Problem> {
    Ok(store::event_ends(tx)?)
}

/// Events with their places in the order in which the server took them, from a place on. Places of events that are not kept any
/// more are left out.
pub fn events_from(
    tx: &mut Tx,
    tenant: TenantId,
    place: u64,
    limit: i64,
) -> Result<Vec<(u64, Event)>, Problem> {
    Ok(store::events_from(tx, tenant, place, limit)?)
}

/// The place of the first event that was received at a time or later, of those that are kept; the end where there is none.
pub fn event_place_at(tx: &mut Tx, tenant: TenantId, at: Timestamp) -> Result<u64, Problem> {
    // Events are placed in the order in which they are written, nearly that of their reception.
    let (mut low, mut high) = (0, store::event_end(tx, tenant)?);
    while low < high {
        let middle = low + (high - low) / 2;
        match store::events_from(tx, tenant, middle, 1)?.first() {
            Some((place, event)) if event.received_at < at => low = place + 1,
            Some(_) | None => high = middle,
        }
    }
    Ok(low)
}
