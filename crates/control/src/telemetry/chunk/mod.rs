//! Series of one device as bytes, and back.
//!
//! ```text
//! chunk  = version count series*
//! series = metric subject window points columns-length columns
//! columns = begins counts mins maxes sums lasts sketches
//! ```
//! Lengths and numbers are variable-length integers; a column is as [`column`] has it. A column of values that equals an
//! earlier one of its series (a gauge that was sampled once in each window) is a reference to it. Everything is bounded, so
//! that whoever edits the database costs a reader no more than an error.

mod bits;
mod column;
mod sketches;
#[cfg(test)]
mod tests;

use self::{
    bits::{Bytes, put_varint},
    column::{integers, numbers, put_integers, put_numbers},
};
use muster_model::telemetry::Aggregate;

use super::series::{Point, SeriesKey, SeriesSet, Windows};

/// Series in one chunk.
pub const SERIES_MAX: usize = 1024;
/// Windows of one series in one chunk.
pub const POINTS_MAX: usize = 16 * 1024;
/// Windows in one chunk.
pub const CHUNK_POINTS_MAX: usize = 256 * 1024;
/// Bytes of a metric's or a subject's name.
pub const NAME_BYTES_MAX: usize = 256;
/// Bytes of one chunk.
pub const CHUNK_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The format.
const VERSION: u8 = 1;

/// How a column of values is written.
const OWN: u8 = 0;
const AS_MIN: u8 = 1;
const AS_MAX: u8 = 2;
const AS_SUM: u8 = 3;

/// Why bytes are no chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    #[error("it is of an unknown version")]
    Version,
    #[error("it ends early")]
    Short,
    #[error("a number in it is impossible")]
    Number,
    #[error("it is larger than a chunk may be")]
    Limit,
    #[error("it uses an unknown form")]
    Kind,
    #[error("a name in it is no text")]
    Text,
    #[error("windows in it are not in their order")]
    Order,
    #[error("something follows its end")]
    Trailing,
}

/// Writes a chunk. The caller keeps to the limits above; what is past them cannot be read again.
pub fn encode(set: &SeriesSet) -> Vec<u8> {
    let mut out = vec![VERSION];
    let filled = || {
        set.series
            .iter()
            .filter(|(_, windows)| !windows.points().is_empty())
    };
    put_varint(&mut out, filled().count() as u64);
    let mut columns = Vec::new();
    for (key, windows) in filled() {
        for name in [&key.metric, &key.subject] {
            put_varint(&mut out, name.len() as u64);
            out.extend_from_slice(name.as_bytes());
        }
        put_varint(&mut out, u64::from(key.window_seconds));
        put_varint(&mut out, windows.points().len() as u64);
        columns.clear();
        put_columns(&mut columns, windows.points());
        put_varint(&mut out, columns.len() as u64);
        out.extend_from_slice(&columns);
    }
    out
}

fn put_columns(out: &mut Vec<u8>, points: &[Point]) {
    let begins: Vec<i64> = points.iter().map(|point| point.at).collect();
    let counts: Vec<i64> = points
        .iter()
        .map(|point| i64::try_from(point.of.count).unwrap_or(i64::MAX))
        .collect();
    let of = |value: fn(&Point) -> f64| points.iter().map(value).collect::<Vec<f64>>();
    let (mins, maxes) = (of(|point| point.of.min), of(|point| point.of.max));
    let (sums, lasts) = (of(|point| point.of.sum), of(|point| point.of.last));
    put_integers(out, &begins);
    put_integers(out, &counts);
    put_numbers(out, &mins);
    put_values(out, &maxes, &[(AS_MIN, &mins)]);
    put_values(out, &sums, &[(AS_MIN, &mins), (AS_MAX, &maxes)]);
    put_values(out, &lasts, &[(AS_MIN, &mins), (AS_MAX, &maxes), (AS_SUM, &sums)]);
    sketches::put(out, points);
}

fn put_values(out: &mut Vec<u8>, values: &[f64], earlier: &[(u8, &[f64])]) {
    let same = |one: &[f64]| one.iter().zip(values).all(|(a, b)| a.to_bits() == b.to_bits());
    match earlier.iter().find(|(_, column)| same(column)) {
        Some((name, _)) => out.push(*name),
        None => {
            out.push(OWN);
            put_numbers(out, values);
        }
    }
}

/// Reads the series of a chunk that the caller wants; the others are stepped over.
pub fn decode_where(bytes: &[u8], wanted: impl Fn(&str) -> bool) -> Result<SeriesSet, Corrupt> {
    if bytes.len() > CHUNK_BYTES_MAX {
        return Err(Corrupt::Limit);
    }
    let mut bytes = Bytes::new(bytes);
    if bytes.byte()? != VERSION {
        return Err(Corrupt::Version);
    }
    let (mut set, mut points_left) = (SeriesSet::default(), CHUNK_POINTS_MAX);
    for _ in 0..bytes.length(SERIES_MAX)? {
        let metric = name(&mut bytes)?;
        let subject = name(&mut bytes)?;
        let window_seconds = u32::try_from(bytes.varint()?).map_err(|_| Corrupt::Number)?;
        let count = bytes.length(POINTS_MAX)?;
        let length = bytes.length(CHUNK_BYTES_MAX)?;
        let columns = bytes.take(length)?;
        if !wanted(metric) {
            continue;
        }
        points_left = points_left.checked_sub(count).ok_or(Corrupt::Limit)?;
        let key = SeriesKey {
            metric: metric.to_owned(),
            subject: subject.to_owned(),
            window_seconds,
        };
        let windows = windows(&key, columns, count)?;
        set.add(key, windows);
    }
    if !bytes.is_empty() {
        return Err(Corrupt::Trailing);
    }
    Ok(set)
}

fn name<'a>(bytes: &mut Bytes<'a>) -> Result<&'a str, Corrupt> {
    let length = bytes.length(NAME_BYTES_MAX)?;
    std::str::from_utf8(bytes.take(length)?).map_err(|_| Corrupt::Text)
}

fn windows(key: &SeriesKey, columns: &[u8], count: usize) -> Result<Windows, Corrupt> {
    let mut bytes = Bytes::new(columns);
    let begins = integers(&mut bytes, count)?;
    if !begins.is_sorted_by(|one, next| one < next) {
        return Err(Corrupt::Order);
    }
    let counts = integers(&mut bytes, count)?;
    let mins = numbers(&mut bytes, count)?;
    let maxes = values(&mut bytes, count, &[(AS_MIN, &mins)])?;
    let sums = values(&mut bytes, count, &[(AS_MIN, &mins), (AS_MAX, &maxes)])?;
    let lasts = values(
        &mut bytes,
        count,
        &[(AS_MIN, &mins), (AS_MAX, &maxes), (AS_SUM, &sums)],
    )?;
    let sketches = sketches::read(&mut bytes, count)?;
    if !bytes.is_empty() {
        return Err(Corrupt::Trailing);
    }
    let mut points = Vec::with_capacity(count);
    for (place, sketch) in sketches.into_iter().enumerate() {
        let parts = [mins[place], maxes[place], sums[place], lasts[place]];
        let samples = u64::try_from(counts[place]).unwrap_or(0);
        if samples == 0 || parts.iter().any(|part| !part.is_finite()) {
            return Err(Corrupt::Number);
        }
        points.push(Point {
            at: begins[place],
            of: Aggregate::from_parts(samples, parts, sketch),
        });
    }
    Ok(Windows::of(key, points))
}

fn values(bytes: &mut Bytes<'_>, count: usize, earlier: &[(u8, &[f64])]) -> Result<Vec<f64>, Corrupt> {
    match bytes.byte()? {
        OWN => numbers(bytes, count),
        name => earlier
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, column)| column.to_vec())
            .ok_or(Corrupt::Kind),
    }
}
