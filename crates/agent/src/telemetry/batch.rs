//! Making a batch: what is over leaves the tables and becomes bytes under a sequence, in one transaction.

use std::collections::BTreeMap;

use muster_channel_agent::ContentType;
use muster_channel_agent::telemetry::{
    Attributes, DeviceEvent, FinishedSpan, Series, TelemetryBatch, encode_batch,
};
use muster_model::telemetry::{BootId, LabelValue, MetricName, StreamId, Window};
use muster_model::time::Timestamp;
use rusqlite::Transaction;

use super::accounts::{Kind, accounting, count_uploaded};
use super::rows::{StoredWindow, WINDOW_COLUMNS, read_window};
use super::store::Haste;

/// Most windows in a batch: it has to fit into the memory of a small program, several times.
const WINDOWS_MAX: i64 = 1500;
/// Most bins of sketches in a batch.
const SKETCH_INTEGERS_MAX: usize = 20_000;
/// Most events in a batch.
const EVENTS_MAX: i64 = 200;
/// Most spans in a batch.
const SPANS_MAX: i64 = 200;

/// What a batch says of the device.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    pub epoch: u32,
    pub now: Timestamp,
    pub boot_id: Option<BootId>,
}

type Sql<T> = Result<T, rusqlite::Error>;

/// Makes the next batch and stores it. `None` where there is nothing to send; an error text where it has no wire form.
pub(super) fn make(
    tx: &Transaction<'_>,
    stream: StreamId,
    head: &Head,
    haste: Haste,
) -> Sql<Option<Result<(), String>>> {
    let windows = take_windows(tx, head.now, haste)?;
    let events = take_events(tx)?;
    let spans = take_spans(tx)?;
    if windows.is_empty() && events.is_empty() && spans.is_empty() {
        return Ok(None);
    }
    let samples: u64 = windows.iter().map(|stored| stored.window.aggregate.count).sum();
    let counts = [samples as i64, events.len() as i64, spans.len() as i64];
    for (kind, count) in Kind::ALL.into_iter().zip(counts) {
        count_uploaded(tx, kind, count)?;
    }
    let sequence: i64 = tx.query_row(
        "UPDATE stream SET sequence = sequence + 1 RETURNING sequence",
        [],
        |row| row.get(0),
    )?;
    let batch = TelemetryBatch {
        epoch: head.epoch,
        stream,
        sequence: sequence.unsigned_abs(),
        device_time: head.now,
        boot_id: head.boot_id,
        series: series(windows),
        events,
        spans,
        accounting: accounting(tx)?,
    };
    let (encoding, body) = match encode_batch(ContentType::Json, &batch) {
        Ok(encoded) => encoded,
        Err(error) => return Ok(Some(Err(error.to_string()))),
    };
    tx.execute(
        "INSERT INTO batch (sequence, encoding, body, samples, events, spans, urgent) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        rusqlite::params![
            sequence,
            encoding.as_header().unwrap_or("identity"),
            body,
            counts[0],
            counts[1],
            counts[2],
            haste == Haste::Urgent
        ],
    )?;
    Ok(Some(Ok(())))
}

/// Takes the oldest windows that are over out of the table. Those that begin later than now, by more than the second that a
/// cut takes with it, are of a clock that was ahead.
fn take_windows(tx: &Transaction<'_>, now: Timestamp, haste: Haste) -> Sql<Vec<StoredWindow>> {
    let now = now.as_unix_seconds();
    let horizon = match haste {
        Haste::None => now,
        Haste::Urgent => now.saturating_add(1),
    };
    let mut windows = Vec::new();
    {
        let mut select = tx.prepare_cached(&format!(
            "SELECT {WINDOW_COLUMNS} FROM sample_window WHERE NOT (start <= ?1 + 1 AND start + width > ?2) \
             ORDER BY start LIMIT ?3"
        ))?;
        let mut rows = select.query([now, horizon, WINDOWS_MAX])?;
        let mut integers = 0;
        while let Some(row) = rows.next()? {
            let window = read_window(row)?;
            let sketch = window.window.aggregate.explicit_sketch();
            integers += sketch.map_or(0, |sketch| sketch.to_integers().len());
            if integers > SKETCH_INTEGERS_MAX && !windows.is_empty() {
                break;
            }
            windows.push(window);
        }
    }
    for StoredWindow {
        metric,
        label,
        window,
    } in &windows
    {
        tx.prepare_cached("DELETE FROM sample_window WHERE metric = ?1 AND label = ?2 AND start = ?3")?
            .execute((metric, label, window.start_seconds))?;
    }
    Ok(windows)
}

fn series(windows: Vec<StoredWindow>) -> Vec<Series> {
    let mut by_name: BTreeMap<(String, String), Vec<Window>> = BTreeMap::new();
    for StoredWindow {
        metric,
        label,
        window,
    } in windows
    {
        by_name.entry((metric, label)).or_default().push(window);
    }
    let series = |((metric, label), windows): ((String, String), Vec<Window>)| {
        Some(Series {
            metric: metric.parse::<MetricName>().ok()?,
            label: label.parse::<LabelValue>().ok(),
            windows,
        })
    };
    by_name.into_iter().filter_map(series).collect()
}

fn take_events(tx: &Transaction<'_>) -> Sql<Vec<DeviceEvent>> {
    let mut select = tx.prepare_cached(
        "DELETE FROM event WHERE number IN (SELECT number FROM event ORDER BY urgent DESC, number LIMIT ?1) \
         RETURNING number, kind, at, attributes",
    )?;
    let rows = select.query_map([EVENTS_MAX], |row| {
        let attributes: String = row.get(3)?;
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, i64>(2)?,
            serde_json::from_str::<Attributes>(&attributes).unwrap_or_default(),
        ))
    })?;
    let mut events = Vec::new();
    for row in rows {
        let (number, kind, at, attributes) = row?;
        let Ok(kind) = kind.parse() else { continue };
        events.push(DeviceEvent {
            number: number.unsigned_abs(),
            kind,
            at: Timestamp::from_micros(at),
            attributes,
        });
    }
    events.sort_by_key(|event| event.number);
    Ok(events)
}

fn take_spans(tx: &Transaction<'_>) -> Sql<Vec<FinishedSpan>> {
    let mut select = tx.prepare_cached(
        "DELETE FROM span WHERE number IN (SELECT number FROM span ORDER BY number LIMIT ?1) RETURNING body",
    )?;
    let rows = select.query_map([SPANS_MAX], |row| row.get::<_, String>(0))?;
    let mut spans = Vec::new();
    for row in rows {
        if let Ok(span) = serde_json::from_str(&row?) {
            spans.push(span);
        }
    }
    Ok(spans)
}
