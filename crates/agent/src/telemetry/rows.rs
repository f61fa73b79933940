//! Windows as rows of the spool.

use muster_model::telemetry::{Aggregate, LabelValue, Sketch, Window};
use rusqlite::{OptionalExtension as _, Transaction};

use super::accounts::bounded;
use super::store::Sample;

type Sql<T> = Result<T, rusqlite::Error>;

/// Puts a sample into its window, whatever is in it already.
pub(super) fn add_sample(tx: &Transaction<'_>, sample: &Sample, [start, width]: [i64; 2]) -> Sql<()> {
    let def = sample.metric.def();
    let label = sample.label.as_ref().map_or("", LabelValue::as_str);
    let mut aggregate = Aggregate::of(sample.value);
    let found = tx
        .prepare_cached(
            "SELECT count, min, max, sum, last, sketch, width FROM sample_window \
             WHERE metric = ?1 AND label = ?2 AND start = ?3",
        )?
        .query_row((def.name, label, start), |row| {
            Ok((read_aggregate(row, 0)?, row.get::<_, i64>(6)?))
        })
        .optional()?;
    let mut width = width;
    if let Some((mut before, found_width)) = found {
        before.merge(&aggregate, def.quantiles);
        aggregate = before;
        width = width.max(found_width);
    }
    aggregate.round(def.decimals);
    write_window(
        tx,
        &StoredWindow {
            metric: def.name.to_owned(),
            label: label.to_owned(),
            window: Window {
                start_seconds: start,
                width_seconds: u32::try_from(width).unwrap_or(1),
                aggregate,
            },
        },
        0,
    )
}

/// A window with the series that it is of.
#[derive(Clone, Debug)]
pub(crate) struct StoredWindow {
    pub(crate) metric: String,
    pub(crate) label: String,
    pub(crate) window: Window,
}

/// Columns of a window in the order that [`read_window`] reads them.
pub(crate) const WINDOW_COLUMNS: &str = "metric, label, start, width, count, min, max, sum, last, sketch";

pub(crate) fn read_window(row: &rusqlite::Row<'_>) -> Sql<StoredWindow> {
    Ok(StoredWindow {
        metric: row.get(0)?,
        label: row.get(1)?,
        window: Window {
            start_seconds: row.get(2)?,
            width_seconds: row.get(3)?,
            aggregate: read_aggregate(row, 4)?,
        },
    })
}

fn read_aggregate(row: &rusqlite::Row<'_>, at: usize) -> Sql<Aggregate> {
    let numbers = [
        row.get(at + 1)?,
        row.get(at + 2)?,
        row.get(at + 3)?,
        row.get(at + 4)?,
    ];
    let sketch = row.get::<_, Option<Vec<u8>>>(at + 5)?;
    let sketch = sketch.and_then(|bytes| serde_json::from_slice::<Sketch>(&bytes).ok());
    Ok(Aggregate::from_parts(
        row.get::<_, i64>(at)?.unsigned_abs(),
        numbers,
        sketch,
    ))
}

pub(crate) fn write_window(tx: &Transaction<'_>, stored: &StoredWindow, level: i64) -> Sql<()> {
    let StoredWindow {
        metric,
        label,
        window,
    } = stored;
    let of = &window.aggregate;
    let sketch = of
        .explicit_sketch()
        .map(|sketch| serde_json::to_vec(sketch).expect("a sketch is a list of integers"));
    tx.prepare_cached(
        "INSERT OR REPLACE INTO sample_window \
         (metric, label, start, width, count, min, max, sum, last, sketch, level) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(rusqlite::params![
        metric,
        label,
        window.start_seconds,
        window.width_seconds,
        bounded(of.count),
        of.min,
        of.max,
        of.sum,
        of.last,
        sketch,
        level
    ])?;
    Ok(())
}
