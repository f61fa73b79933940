//! Evidence that may be looked at after every report.
//!
//! The likelihood of each rate beyond the limit, over the likelihood at the limit, is a supermartingale as long as the
//! true rate is on the limit's other side; so is any average of them. By Ville's inequality such an average ever reaches
//! 1/α with a chance of at most α, however often one looks (J. Ville, 1939; H. Robbins, "Statistical Methods Related to
//! the Law of the Iterated Logarithm", 1970; S. Howard et al., "Time-uniform, nonparametric, nonasymptotic confidence
//! sequences", 2021). The averages here are beta mixtures cut off at the limit, which have closed forms:
//!
//! - below the limit with the density ½·q^-½·limit^-½, which loses little at rates near zero;
//! - above the limit with the density 1/(q·ln(1/limit)), the same for every doubling of the rate.

use super::{
    Ppm,
    beta::{Tail, ln_tail_over_power},
    first_where, ln, ln_1p, ln_evidence_needed,
};

/// Bounds are found to within this of the rate.
const BOUND_WIDTH: f64 = 2e-11;
const BOUND_STEPS_MAX: u32 = 80;

/// The logarithm of the evidence that the rate is below `limit`. Where it reaches `ln(1/α)`, "below" is wrong in at most
/// α of all stages whose rate is at the limit or above, however often this was looked at.
pub fn ln_evidence_below(failures: u64, sample: u64, limit: Ppm) -> f64 {
    below(failures, sample, limit.fraction())
}

/// The logarithm of the evidence that the rate is above `limit`, with the same guarantee for rates at the limit or
/// below. Without any failure there is no closed form; the value is then a bound from above, and never positive.
pub fn ln_evidence_above(failures: u64, sample: u64, limit: Ppm) -> f64 {
    above(failures, sample, limit.fraction())
}

/// Evidence "below" of any limit strictly between 0 and 1.
fn below(failures: u64, sample: u64, limit: f64) -> f64 {
    let failures = failures.min(sample);
    let (a, b) = (failures as f64 + 0.5, (sample - failures) as f64 + 1.0);
    let tail = ln_tail_over_power(Tail::Lower, limit, a, b)
        .expect("shapes from a half to 2^64 + 1 and a limit between 0 and 1 are in the domain");
    tail + ln_1p(-limit) - std::f64::consts::LN_2
}

/// Evidence "above" of any limit strictly between 0 and 1.
fn above(failures: u64, sample: u64, limit: f64) -> f64 {
    let failures = failures.min(sample);
    if failures == 0 {
        // Each likelihood is at most the one at the limit, and at most the one with a failure more.
        return if sample == 0 {
            0.0
        } else {
            above(1, sample, limit).min(0.0)
        };
    }
    let (a, b) = (failures as f64, (sample - failures) as f64 + 1.0);
    let tail = ln_tail_over_power(Tail::Upper, limit, a, b)
        .expect("shapes from 1 to 2^64 + 1 and a limit between 0 and 1 are in the domain");
    tail + ln_1p(-limit) - ln(-ln(limit))
}

/// The upper bound that holds at every look: the largest rate that the evidence does not exclude. 1 without a sample.
pub fn anytime_upper(failures: u64, sample: u64, confidence: Ppm) -> f64 {
    let failures = failures.min(sample);
    if failures == sample {
        return 1.0;
    }
    let wanted = ln_evidence_needed(confidence);
    bisect(failures as f64 / sample as f64, 1.0, |rate| {
        below(failures, sample, rate) < wanted
    })
}

/// The lower bound that holds at every look: the smallest rate that the evidence does not exclude. 0 without failures.
pub fn anytime_lower(failures: u64, sample: u64, confidence: Ppm) -> f64 {
    let failures = failures.min(sample);
    if failures == 0 {
        return 0.0;
    }
    let wanted = ln_evidence_needed(confidence);
    1.0 - bisect(1.0 - failures as f64 / sample as f64, 1.0, |rest| {
        above(failures, sample, 1.0 - rest) < wanted
    })
}

/// The end of where `holds` is true, which it is at `low` and not at `high`.
fn bisect(mut low: f64, mut high: f64, holds: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..BOUND_STEPS_MAX {
        let middle = 0.5 * (low + high);
        if high - low < BOUND_WIDTH || middle <= low || middle >= high {
            break;
        }
        if holds(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// How many devices must answer, so many of them failed, before the evidence "below" reaches the confidence.
pub fn anytime_sample_needed(failures: u64, limit: Ppm, confidence: Ppm) -> u64 {
    let wanted = ln_evidence_needed(confidence);
    let expected = (failures as f64 / limit.fraction()) as u64;
    first_where(expected.max(failures).max(1), |sample| {
        ln_evidence_below(failures, sample, limit) >= wanted
    })
}
