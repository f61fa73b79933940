//! The sketches of a series: none, or one for each window that has one.

use muster_model::telemetry::Sketch;

use super::{
    Corrupt,
    bits::{Bytes, put_varint, unzigzag, zigzag},
};
use crate::telemetry::series::Point;

/// Integers of one sketch (see its wire form).
const INTEGERS_MAX: usize = 2 + 4 * muster_model::telemetry::SKETCH_BINS_MAX;

/// Appends how many windows have a sketch, and for each of them how many have none before it and the sketch.
pub fn put(out: &mut Vec<u8>, points: &[Point]) {
    let sketches = || points.iter().map(|point| point.of.explicit_sketch());
    put_varint(out, sketches().flatten().count() as u64);
    let mut without = 0_u64;
    for sketch in sketches() {
        let Some(sketch) = sketch else {
            without += 1;
            continue;
        };
        put_varint(out, std::mem::take(&mut without));
        let integers = sketch.to_integers();
        put_varint(out, integers.len() as u64);
        for integer in integers {
            put_varint(out, zigzag(integer));
        }
    }
}

/// Reads the sketches of `count` windows.
pub fn read(bytes: &mut Bytes<'_>, count: usize) -> Result<Vec<Option<Sketch>>, Corrupt> {
    let mut sketches = vec![None; count];
    let mut place = 0_usize;
    for _ in 0..bytes.length(count)? {
        place += bytes.length(count)?;
        let slot = sketches.get_mut(place).ok_or(Corrupt::Limit)?;
        let length = bytes.length(INTEGERS_MAX)?;
        let mut integers = Vec::with_capacity(length.min(64));
        for _ in 0..length {
            integers.push(unzigzag(bytes.varint()?));
        }
        *slot = Some(Sketch::from_integers(&integers).map_err(|_| Corrupt::Number)?);
        place += 1;
    }
    Ok(sketches)
}
