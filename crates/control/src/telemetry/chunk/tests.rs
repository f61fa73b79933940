//! Chunks read back, and what is no chunk is refused.

use muster_model::telemetry::Quantiles;
use proptest::prelude::*;

use super::*;

fn decode(bytes: &[u8]) -> Result<SeriesSet, Corrupt> {
    decode_where(bytes, |_| true)
}

fn key(metric: &str) -> SeriesKey {
    SeriesKey {
        metric: metric.to_owned(),
        subject: String::new(),
        window_seconds: 300,
    }
}

fn aggregate(values: &[f64]) -> Aggregate {
    let mut whole = Aggregate::of(values[0]);
    for value in &values[1..] {
        whole.merge(&Aggregate::of(*value), Quantiles::Sketched);
    }
    whole.round(4);
    whole
}

/// Values as a sensor makes them: a walk with four decimals.
fn walk(seed: u64, length: usize) -> Vec<f64> {
    let mut state = seed | 1;
    let mut value = 0.5_f64;
    let mut values = Vec::with_capacity(length);
    for _ in 0..length {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let step = (state >> 33) as f64 / f64::from(1_u32 << 31) - 0.5;
        value = (value + step / 50.0).clamp(0.0, 1.0);
        values.push((value * 1e4).round() / 1e4);
    }
    values
}

fn day(metric: &str, samples: usize) -> SeriesSet {
    let mut set = SeriesSet::default();
    let values = walk(7, 288 * samples);
    let points = values
        .chunks(samples)
        .zip(0_i64..)
        .map(|(values, place)| Point {
            at: 1_795_900_200 + place * 300,
            of: aggregate(values),
        })
        .collect();
    let key = key(metric);
    let windows = Windows::of(&key, points);
    set.add(key, windows);
    set
}

#[test]
fn a_day_reads_back_and_is_small() {
    let plain = day("load1", 1);
    let bytes = encode(&plain);
    assert_eq!(decode(&bytes), Ok(plain));
    assert!(bytes.len() < 288 * 2, "{} bytes for 288 windows", bytes.len());
    let summed = day("disk_used_ratio", 3);
    let bytes = encode(&summed);
    assert_eq!(decode(&bytes), Ok(summed));
    assert!(bytes.len() < 288 * 8, "{} bytes for 288 windows", bytes.len());
    let sketched = day("cpu_usage_ratio", 10);
    assert_eq!(decode(&encode(&sketched)), Ok(sketched));
}

#[test]
fn only_the_series_that_are_wanted_are_read() {
    let mut set = day("load1", 1);
    set.absorb(day("processes", 1));
    let read = decode_where(&encode(&set), |metric| metric == "load1").expect("it is a chunk");
    assert_eq!(read, day("load1", 1));
}

#[test]
fn a_chunk_that_says_more_than_it_has_is_refused() {
    let whole = encode(&day("cpu_usage_ratio", 10));
    for cut in 0..whole.len() {
        assert!(decode(&whole[..cut]).is_err(), "cut at {cut}");
    }
    assert_eq!(decode(&[&whole[..], &[0]].concat()), Err(Corrupt::Trailing));
    // One series of as many windows as the largest number says.
    let mut huge = vec![VERSION, 1, 1, b'a', 0, 60];
    put_varint(&mut huge, u64::MAX);
    assert_eq!(decode(&huge), Err(Corrupt::Limit));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn changed_bytes_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = encode(&day("cpu_usage_ratio", 5));
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let _ = decode(&bytes);
    }

    #[test]
    fn any_series_reads_back(
        points in prop::collection::btree_map(-1_000_000_i64..1_000_000, prop::collection::vec(-1e9_f64..1e9, 1..6), 0..40),
        subject in "[a-z0-9/]{0,20}",
    ) {
        let key = SeriesKey { metric: "x".to_owned(), subject, window_seconds: 60 };
        let points = points.into_iter().map(|(at, values)| Point { at, of: aggregate(&values) }).collect();
        let mut set = SeriesSet::default();
        let windows = Windows::of(&key, points);
        set.add(key, windows);
        let read = decode(&encode(&set)).expect("what was written is read");
        prop_assert_eq!(read.points(), set.points());
        if set.points() > 0 {
            prop_assert_eq!(read, set);
        }
    }
}
