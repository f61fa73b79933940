//! A quantile sketch: any quantile within one percent of the true value, in bounded memory, mergeable in any order.
//!
//! The method is DDSketch (Masson, Rim, Lee: "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
//! guarantees", PVLDB 12(12), 2019): a value falls into the bin `ceil(log(value) / log(gamma))`, with
//! `gamma = (1 + a) / (1 - a)` for the relative accuracy `a`. Bins of negative values mirror those of positive ones. Past
//! [`SKETCH_BINS_MAX`] the bins nearest to zero are joined, so that high quantiles stay exact to the accuracy.
//!
//! It is our own because a device sends it: a sketch off the wire has to be refused where it is not one, and has to take
//! few bytes.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeSeq as _};

/// How far an answer is from the true quantile at most, as a part of it.
pub const RELATIVE_ACCURACY: f64 = 0.01;
/// The most bins of either sign.
pub const SKETCH_BINS_MAX: usize = 1024;

const GAMMA: f64 = (1.0 + RELATIVE_ACCURACY) / (1.0 - RELATIVE_ACCURACY);
/// What is nearer to zero than this counts as zero.
const ZERO: f64 = 1e-9;
/// What is larger falls into the last bin.
const LARGEST: f64 = 1e15;
/// No bin has a key outside these: those of [`ZERO`] and [`LARGEST`], rounded outward.
const KEYS: std::ops::RangeInclusive<i16> = -1037..=1728;
/// The most samples of one sketch; far more than a fleet makes in a year.
const COUNT_MAX: u64 = 1 << 52;

/// A bin: its key and how many values fell into it.
type Bin = (i16, u64);

/// Counts of values by their magnitude.
///
/// On the wire it is a list of integers: how many values are zero, how many bins are negative, then the negative and the
/// positive bins, each by rising keys as `key, count` with keys after the first of a sign relative to the one before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sketch {
    zero: u64,
    negative: Vec<Bin>,
    positive: Vec<Bin>,
}

/// A list of integers that is not a sketch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a sketch: {0}")]
pub struct InvalidSketch(&'static str);

impl Sketch {
    /// Takes a value up. What is not finite is left out.
    pub fn observe(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        if value.abs() < ZERO {
            self.zero = self.zero.saturating_add(1);
        } else {
            let bins = if value < 0.0 {
                &mut self.negative
            } else {
                &mut self.positive
            };
            let key = key_of(value.abs());
            match bins.binary_search_by_key(&key, |bin| bin.0) {
                Ok(at) => bins[at].1 = bins[at].1.saturating_add(1),
                Err(at) => bins.insert(at, (key, 1)),
            }
            collapse(bins);
        }
    }

    /// Takes all values of another sketch up.
    pub fn merge(&mut self, other: &Sketch) {
        self.zero = self.zero.saturating_add(other.zero);
        merge_bins(&mut self.negative, &other.negative);
        merge_bins(&mut self.positive, &other.positive);
    }

    /// How many values were taken up.
    pub fn count(&self) -> u64 {
        let bins = self.negative.iter().chain(&self.positive);
        bins.fold(self.zero, |sum, bin| sum.saturating_add(bin.1))
    }

    /// The value at quantile `q` (0 is the least, 1 the greatest), within [`RELATIVE_ACCURACY`]; none of no values.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 || q.is_nan() {
            return None;
        }
        let rank = (q.clamp(0.0, 1.0) * (count - 1) as f64).floor() as u64;
        let mut seen = 0_u64;
        for (value, values) in self.ascending() {
            seen = seen.saturating_add(values);
            if seen > rank {
                return Some(value);
            }
        }
        None
    }

    /// The middle of every bin that holds values, with how many, by rising value.
    fn ascending(&self) -> impl Iterator<Item = (f64, u64)> {
        let negative = self.negative.iter().rev().map(|bin| (-value_of(bin.0), bin.1));
        let zero = (self.zero > 0).then_some((0.0, self.zero));
        let positive = self.positive.iter().map(|bin| (value_of(bin.0), bin.1));
        negative.chain(zero).chain(positive)
    }

    /// The integers of the wire form.
    pub fn to_integers(&self) -> Vec<i64> {
        let mut integers = vec![integer(self.zero), self.negative.len() as i64];
        for bins in [&self.negative, &self.positive] {
            let mut before = 0_i64;
            for (key, count) in bins {
                integers.extend([i64::from(*key) - before, integer(*count)]);
                before = i64::from(*key);
            }
        }
        integers
    }

    /// Reads the integers of the wire form.
    pub fn from_integers(integers: &[i64]) -> Result<Sketch, InvalidSketch> {
        let [zero, negative, bins @ ..] = integers else {
            return Err(InvalidSketch("it has no header"));
        };
        let (pairs, rest) = bins.as_chunks::<2>();
        let negative = usize::try_from(*negative).map_err(|_| InvalidSketch("it counts bins below zero"))?;
        if !rest.is_empty() || negative > pairs.len() {
            return Err(InvalidSketch("a bin is half"));
        }
        let (negative, positive) = pairs.split_at(negative);
        let sketch = Sketch {
            zero: count(*zero)?,
            negative: read_bins(negative)?,
            positive: read_bins(positive)?,
        };
        if sketch.count() > COUNT_MAX {
            return Err(InvalidSketch("it counts too many values"));
        }
        Ok(sketch)
    }
}

fn integer(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn count(integer: i64) -> Result<u64, InvalidSketch> {
    u64::try_from(integer)
        .ok()
        .filter(|count| *count <= COUNT_MAX)
        .ok_or(InvalidSketch("a count is out of range"))
}

fn read_bins(pairs: &[[i64; 2]]) -> Result<Vec<Bin>, InvalidSketch> {
    if pairs.len() > SKETCH_BINS_MAX {
        return Err(InvalidSketch("it has too many bins"));
    }
    let mut bins: Vec<Bin> = Vec::with_capacity(pairs.len());
    for [step, values] in pairs {
        let before = bins.last().map(|bin| i64::from(bin.0));
        if before.is_some() && *step <= 0 {
            return Err(InvalidSketch("keys do not rise"));
        }
        let key = before
            .unwrap_or(0)
            .checked_add(*step)
            .and_then(|key| i16::try_from(key).ok())
            .filter(|key| KEYS.contains(key))
            .ok_or(InvalidSketch("a key is out of range"))?;
        let values = count(*values)?;
        if values == 0 {
            return Err(InvalidSketch("a bin is empty"));
        }
        bins.push((key, values));
    }
    Ok(bins)
}

/// The key of a positive value.
fn key_of(value: f64) -> i16 {
    let key = (value.min(LARGEST).ln() / GAMMA.ln()).ceil() as i16;
    key.clamp(*KEYS.start(), *KEYS.end())
}

/// The value of a bin that is within the accuracy of all values in it.
fn value_of(key: i16) -> f64 {
    2.0 * GAMMA.powi(i32::from(key)) / (GAMMA + 1.0)
}

fn merge_bins(into: &mut Vec<Bin>, other: &[Bin]) {
    let mut merged = Vec::with_capacity(into.len() + other.len());
    let (mut left, mut right) = (into.iter().peekable(), other.iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        match a.0.cmp(&b.0) {
            std::cmp::Ordering::Less => merged.extend(left.next()),
            std::cmp::Ordering::Greater => merged.extend(right.next()),
            std::cmp::Ordering::Equal => {
                merged.push((a.0, a.1.saturating_add(b.1)));
                left.next();
                right.next();
            }
        }
    }
    merged.extend(left.chain(right));
    collapse(&mut merged);
    *into = merged;
}

/// Joins the bins nearest to zero until there are few enough.
fn collapse(bins: &mut Vec<Bin>) {
    let Some(excess) = bins
        .len()
        .checked_sub(SKETCH_BINS_MAX)
        .filter(|excess| *excess > 0)
    else {
        return;
    };
    let joined = bins
        .drain(..excess)
        .fold(0_u64, |sum, bin| sum.saturating_add(bin.1));
    bins[0].1 = bins[0].1.saturating_add(joined);
}

impl Serialize for Sketch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let integers = self.to_integers();
        let mut list = serializer.serialize_seq(Some(integers.len()))?;
        for integer in &integers {
            list.serialize_element(integer)?;
        }
        list.end()
    }
}

impl<'de> Deserialize<'de> for Sketch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const INTEGERS_MAX: usize = 2 + 4 * SKETCH_BINS_MAX;
        struct Integers;
        impl<'de> de::Visitor<'de> for Integers {
            type Value = Vec<i64>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the integers of a sketch")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<i64>, A::Error> {
                let mut integers = Vec::new();
                while let Some(integer) = list.next_element()? {
                    if integers.len() == INTEGERS_MAX {
                        return Err(de::Error::custom("a sketch has too many bins"));
                    }
                    integers.push(integer);
                }
                Ok(integers)
            }
        }
        let integers = deserializer.deserialize_seq(Integers)?;
        Sketch::from_integers(&integers).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sketch(values: &[f64]) -> Sketch {
        let mut sketch = Sketch::default();
        for value in values {
            sketch.observe(*value);
        }
        sketch
    }

    fn check(values: &mut [f64], q: f64) {
        values.sort_by(f64::total_cmp);
        let exact = values[(q * (values.len() - 1) as f64).floor() as usize];
        let found = sketch(values).quantile(q).expect("there are values");
        let distance = (found - exact).abs();
        assert!(
            distance <= exact.abs() * RELATIVE_ACCURACY * (1.0 + 1e-9) + ZERO,
            "quantile {q} is {exact}, the sketch says {found}"
        );
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(Sketch::default().quantile(0.5), None);
        assert_eq!(sketch(&[f64::NAN, f64::INFINITY]).count(), 0);
    }

    #[test]
    fn bins_stay_bounded_and_the_high_quantiles_right() {
        let mut values: Vec<f64> = (0..200_000)
            .map(|i| 1e-8 * 1.0005_f64.powi(i % 100_000))
            .collect();
        let whole = sketch(&values);
        assert!(whole.positive.len() <= SKETCH_BINS_MAX);
        assert_eq!(whole.count(), 200_000);
        check(&mut values, 0.99);
    }

    #[test]
    fn a_list_that_is_no_sketch_is_refused() {
        for bad in [
            &[][..],
            &[0],
            &[-1, 0],
            &[0, -1],
            &[0, 1],
            &[0, 0, 5],
            &[0, 0, 5, 0],
            &[0, 0, 5, 1, 0, 1],
            &[0, 0, 5, 1, -1, 1],
            &[0, 0, 30_000, 1],
            &[0, 0, i64::MAX, 1, i64::MAX, 1],
            &[i64::MAX, 0],
        ] {
            assert!(Sketch::from_integers(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_quantile_is_within_one_percent(
            mut values in prop::collection::vec(prop_oneof![-1e9_f64..1e9, 0.0_f64..1.0, Just(0.0)], 1..200),
            q in 0.0_f64..=1.0,
        ) {
            check(&mut values, q);
        }

        #[test]
        fn merging_is_taking_up_one_after_the_other(
            left in prop::collection::vec(-1e6_f64..1e6, 0..100),
            right in prop::collection::vec(-1e6_f64..1e6, 0..100),
        ) {
            let mut merged = sketch(&left);
            merged.merge(&sketch(&right));
            prop_assert_eq!(&merged, &sketch(&[left, right].concat()));
            prop_assert_eq!(Sketch::from_integers(&merged.to_integers()), Ok(merged));
        }

        #[test]
        fn any_integers_are_a_sketch_or_refused(integers in prop::collection::vec(any::<i64>(), 0..40)) {
            if let Ok(sketch) = Sketch::from_integers(&integers) {
                prop_assert_eq!(sketch.to_integers(), integers);
                let _ = sketch.quantile(0.5);
            }
        }

        #[test]
        fn small_integers_are_a_sketch_or_refused(integers in prop::collection::vec(-3_i64..9, 0..16)) {
            if let Ok(sketch) = Sketch::from_integers(&integers) {
                prop_assert_eq!(sketch.to_integers(), integers);
            }
        }
    }
}
