//! What counts of failures say about the rate behind them: exact bounds, and tests that may be looked at after every
//! report. Pure, deterministic on every platform, and a number for every input.
//!
//! Two kinds of statement, which must not be confused:
//!
//! - **At one look.** The exact bound of Clopper and Pearson is wrong in at most 1 − confidence of all stages, if it is
//!   computed once, at a moment that was chosen before (when the whole stage has answered). Looked at after every
//!   report until it says what one hopes for, it is wrong far more often.
//! - **At every look.** Wald's sequential test ([`SequentialTest`]) and the anytime-valid evidence
//!   ([`ln_evidence_below`], [`ln_evidence_above`]) keep their error when they are looked at after each report and the
//!   first crossing is acted on. The price is a larger sample.

mod anytime;
mod beta;
mod elementary;
mod sequential;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

pub use anytime::{
    anytime_lower, anytime_sample_needed, anytime_upper, ln_evidence_above, ln_evidence_below,
};
use beta::{Tail, quantile};
pub use beta::{Tails, beta_quantile, beta_regularized, ln_gamma};
use elementary::{exp, exp_m1, ln, ln_1p};
pub use sequential::{ExpectedSample, SequentialTest};

/// Parts of one, as millionths.
const MILLION: u32 = 1_000_000;
/// No sample that is searched for is larger.
const SAMPLE_MAX: u64 = 1 << 60;

/// A share strictly between 0 and 1, in whole parts per million. JSON shows it as a fraction such as `0.005`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ppm(u32);

impl Ppm {
    /// From parts per million; `None` for 0 and from a million.
    pub const fn new(ppm: u32) -> Option<Ppm> {
        if ppm > 0 && ppm < MILLION {
            Some(Ppm(ppm))
        } else {
            None
        }
    }

    /// From parts per million that are known to fit.
    pub(crate) const fn known(ppm: u32) -> Ppm {
        match Ppm::new(ppm) {
            Some(ppm) => ppm,
            None => panic!("a share is strictly between 0 and a million parts per million"),
        }
    }

    /// From a fraction with at most six decimals.
    pub fn from_fraction(fraction: f64) -> Option<Ppm> {
        let ppm = fraction * f64::from(MILLION);
        let whole = ppm.round();
        let exact = (ppm - whole).abs() < 1e-6 && whole > 0.0 && whole < f64::from(MILLION);
        exact.then_some(whole as u32).and_then(Ppm::new)
    }

    /// Parts per million.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// As a number between 0 and 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(MILLION)
    }

    /// One minus this.
    pub const fn complement(self) -> Ppm {
        Ppm(MILLION - self.0)
    }
}

impl Serialize for Ppm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.fraction())
    }
}

impl<'de> Deserialize<'de> for Ppm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ppm, D::Error> {
        let fraction = f64::deserialize(deserializer)?;
        Ppm::from_fraction(fraction).ok_or_else(|| {
            D::Error::custom("a share is between 0 and 1, such as 0.005, with at most six decimals")
        })
    }
}

/// The chance of at most `failures` in `sample` devices, each failing with the chance `rate` (0…1).
pub fn binomial_at_most(failures: u64, sample: u64, rate: f64) -> f64 {
    if failures >= sample {
        return 1.0;
    }
    tails_of(rate, failures + 1, sample - failures).upper
}

/// The chance of at least `failures` in `sample` devices, each failing with the chance `rate` (0…1).
pub fn binomial_at_least(failures: u64, sample: u64, rate: f64) -> f64 {
    if failures == 0 {
        return 1.0;
    }
    if failures > sample {
        return 0.0;
    }
    tails_of(rate, failures, (sample - failures).saturating_add(1)).lower
}

fn tails_of(rate: f64, a: u64, b: u64) -> Tails {
    let rate = if rate.is_nan() { 0.0 } else { rate.clamp(0.0, 1.0) };
    beta_regularized(rate, a as f64, b as f64)
        .expect("shapes from 1 to 2^64 and a rate from 0 to 1 are in the domain")
}

/// The exact one-sided upper bound of the failure rate (Clopper and Pearson, "The Use of Confidence or Fiducial Limits
/// Illustrated in the Case of the Binomial", Biometrika 26, 1934): the rate at which so few failures have the chance
/// 1 − confidence. 1 where nothing is known. Failures beyond the sample count as the whole sample.
pub fn exact_upper(failures: u64, sample: u64, confidence: Ppm) -> f64 {
    let alpha = confidence.complement().fraction();
    if failures >= sample {
        return 1.0;
    }
    if failures == 0 {
        return -exp_m1(ln(alpha) / sample as f64);
    }
    quantile(
        Tail::Upper,
        alpha,
        (failures + 1) as f64,
        (sample - failures) as f64,
    )
    .expect("shapes from 1 to 2^64 are in the domain")
}

/// The exact one-sided lower bound of the failure rate: the rate at which so many failures have the chance
/// 1 − confidence. 0 where nothing is known.
pub fn exact_lower(failures: u64, sample: u64, confidence: Ppm) -> f64 {
    let alpha = confidence.complement().fraction();
    let failures = failures.min(sample);
    if failures == 0 {
        return 0.0;
    }
    if failures == sample {
        return exp(ln(alpha) / sample as f64);
    }
    quantile(
        Tail::Lower,
        alpha,
        failures as f64,
        (sample - failures).saturating_add(1) as f64,
    )
    .expect("shapes from 1 to 2^64 are in the domain")
}

/// Whether the exact upper bound is below `limit`, without computing the bound.
pub fn exact_shows_below(failures: u64, sample: u64, limit: Ppm, confidence: Ppm) -> bool {
    binomial_at_most(failures, sample, limit.fraction()) < confidence.complement().fraction()
}

/// Whether the exact lower bound is above `limit`, without computing the bound.
pub fn exact_shows_above(failures: u64, sample: u64, limit: Ppm, confidence: Ppm) -> bool {
    binomial_at_least(failures, sample, limit.fraction()) < confidence.complement().fraction()
}

/// How many devices must answer without any failure before the exact upper bound is below `limit`: 598 for 0.5 % at
/// 95 %.
pub fn sample_needed(limit: Ppm, confidence: Ppm) -> u64 {
    sample_needed_with(0, limit, confidence)
}

/// The same with so many failures; the largest sample that is searched for where none suffices.
pub fn sample_needed_with(failures: u64, limit: Ppm, confidence: Ppm) -> u64 {
    first_where(failures.saturating_add(1), |sample| {
        exact_shows_below(failures, sample, limit, confidence)
    })
}

/// The samples needed with 0 to `failures_max` failures.
pub fn samples_needed(failures_max: u8, limit: Ppm, confidence: Ppm) -> Vec<u64> {
    (0..=u64::from(failures_max))
        .map(|failures| sample_needed_with(failures, limit, confidence))
        .collect()
}

/// The smallest sample from `from` on that `holds`, where it holds for every larger one; [`SAMPLE_MAX`] without any.
fn first_where(from: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let mut low = from.min(SAMPLE_MAX);
    let mut high = low;
    while !holds(high) {
        if high >= SAMPLE_MAX {
            return SAMPLE_MAX;
        }
        low = high + 1;
        high = high.saturating_mul(2).min(SAMPLE_MAX);
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    high
}

/// What the evidence of [`ln_evidence_below`] and [`ln_evidence_above`] must reach: ln(1/(1 − confidence)).
pub fn ln_evidence_needed(confidence: Ppm) -> f64 {
    -ln(confidence.complement().fraction())
}

/// A rate in parts per billion, rounded; for records, which hold whole numbers.
pub(crate) fn parts_per_billion(rate: f64) -> u64 {
    (rate.clamp(0.0, 1.0) * 1e9).round() as u64
}

/// ln(1 − rate).
fn ln_complement(rate: Ppm) -> f64 {
    ln_1p(-rate.fraction())
}

#[cfg(test)]
mod tests;
