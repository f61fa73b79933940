//! Room in the spool: the oldest windows become coarser, step by step, and only then fewer. Joined windows keep every sample
//! in their counts; what is dropped is counted.

use muster_model::telemetry::{Metric, Quantiles, WINDOW_SECONDS_MAX};
use muster_model::time::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Transaction};

use super::accounts::{DropReason, Kind, count_dropped};
use super::rows::{StoredWindow, WINDOW_COLUMNS, read_window, write_window};

/// Widths to which windows are joined, in seconds, from the first resort to the last.
const COARSER: [i64; 3] = [3600, 6 * 3600, 86_400];
/// Most steps in one go, so that a tick stays short; the next one goes on.
const STEPS_MAX: usize = 8;
/// How many windows are dropped in one step.
const DROPPED_AT_ONCE: i64 = 128;
/// Most windows that are read in one step.
const READ_AT_ONCE: i64 = 4096;

/// Makes room until no more than `bytes_max` are used, as far as a few steps reach.
pub(super) fn make(tx: &Transaction<'_>, now: Timestamp, bytes_max: u64) -> Result<(), rusqlite::Error> {
    for _ in 0..STEPS_MAX {
        if used_bytes(tx)? <= bytes_max {
            return Ok(());
        }
        if !coarsen_oldest(tx, now.as_unix_seconds())? {
            drop_oldest(tx)?;
        }
    }
    Ok(())
}

/// Bytes of the pages that hold something.
pub(super) fn used_bytes(connection: &Connection) -> Result<u64, rusqlite::Error> {
    let value = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let pages = value("page_count")? - value("freelist_count")?;
    Ok(pages.max(0).unsigned_abs() * value("page_size")?.unsigned_abs())
}

/// Joins the oldest windows that are finer than a step allows; false where nothing is left to join.
fn coarsen_oldest(tx: &Transaction<'_>, now: i64) -> Result<bool, rusqlite::Error> {
    for (level, width) in (1_i64..).zip(COARSER) {
        // A span that is not over yet is left alone: its windows still come.
        let last = now - now.rem_euclid(width);
        let oldest: Option<i64> = tx
            .prepare_cached(
                "SELECT start FROM sample_window WHERE start < ?2 AND level < ?1 ORDER BY start LIMIT 1",
            )?
            .query_row([level, last], |row| row.get(0))
            .optional()?;
        if let Some(oldest) = oldest {
            let from = oldest - oldest.rem_euclid(width);
            join(tx, level, from, from + width)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Joins the windows of each series that start within a span.
fn join(tx: &Transaction<'_>, level: i64, from: i64, to: i64) -> Result<(), rusqlite::Error> {
    let windows = {
        let mut select = tx.prepare_cached(&format!(
            "SELECT {WINDOW_COLUMNS} FROM sample_window WHERE start >= ?1 AND start < ?2 AND level < ?3 \
             ORDER BY metric, label, start LIMIT ?4"
        ))?;
        let rows = select.query_map([from, to, level, READ_AT_ONCE], read_window)?;
        rows.collect::<Result<Vec<_>, _>>()?
    };
    let mut joined: Vec<StoredWindow> = Vec::new();
    for next in windows {
        tx.prepare_cached("DELETE FROM sample_window WHERE metric = ?1 AND label = ?2 AND start = ?3")?
            .execute((&next.metric, &next.label, next.window.start_seconds))?;
        match joined.last_mut() {
            Some(last) if last.metric == next.metric && last.label == next.label => append(last, &next),
            Some(_) | None => joined.push(next),
        }
    }
    joined
        .iter()
        .try_for_each(|window| write_window(tx, window, level))
}

fn append(window: &mut StoredWindow, next: &StoredWindow) {
    let (into, from) = (&mut window.window, &next.window);
    let def = Metric::parse(&window.metric).map(Metric::def);
    let quantiles = def.map_or(Quantiles::Plain, |def| def.quantiles);
    into.aggregate.merge(&from.aggregate, quantiles);
    if let Some(def) = def {
        into.aggregate.round(def.decimals);
    }
    let width = from.start_seconds + i64::from(from.width_seconds) - into.start_seconds;
    let width = u32::try_from(width).unwrap_or(WINDOW_SECONDS_MAX);
    into.width_seconds = into.width_seconds.max(width).min(WINDOW_SECONDS_MAX);
}

fn drop_oldest(tx: &Transaction<'_>) -> Result<(), rusqlite::Error> {
    let windows = {
        let mut select = tx.prepare_cached(&format!(
            "SELECT {WINDOW_COLUMNS} FROM sample_window ORDER BY start LIMIT ?1"
        ))?;
        let rows = select.query_map([DROPPED_AT_ONCE], read_window)?;
        rows.collect::<Result<Vec<_>, _>>()?
    };
    let mut samples = 0_i64;
    for StoredWindow {
        metric,
        label,
        window,
    } in &windows
    {
        samples += i64::try_from(window.aggregate.count).unwrap_or(i64::MAX);
        tx.prepare_cached("DELETE FROM sample_window WHERE metric = ?1 AND label = ?2 AND start = ?3")?
            .execute((metric, label, window.start_seconds))?;
    }
    count_dropped(tx, Kind::Samples, DropReason::SpoolFull, samples)
}
