//! From a rule and counts to a verdict.

use super::{
    EvidenceNumbers, GateDecision, GateMethod, GateRule, Observation, PassWhen, SequentialNumbers,
    SloDecision, SloState, Verdict,
    reason::{self, Why},
};
use crate::statistics::{
    Ppm, anytime_lower, anytime_upper, exact_lower, exact_shows_above, exact_shows_below, exact_upper,
    ln_evidence_above, ln_evidence_below, ln_evidence_needed, parts_per_billion,
};

/// The counts of a stage, made consistent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    pub devices: u64,
    pub verified: u64,
    /// Silent devices among them.
    pub failed: u64,
    pub silent: u64,
    pub pending: u64,
    pub sample: u64,
}

impl Counts {
    fn of(observation: &Observation) -> Counts {
        let failed = observation.failed.saturating_add(observation.silent);
        let sample = observation.verified.saturating_add(failed);
        let devices = observation
            .devices
            .max(sample.saturating_add(observation.pending));
        Counts {
            devices,
            verified: observation.verified,
            failed,
            silent: observation.silent.min(failed),
            pending: devices - sample,
            sample,
        }
    }
}

/// What the method alone says of the counts.
enum Finding {
    Failed(Why),
    Passed(Why),
    /// Neither is shown, and devices are still to answer.
    Open(Why),
    /// Neither is shown, and all have answered.
    Undecided(Why),
}

/// Judges a stage, with all numbers. The same rule and counts give the same decision on every platform.
pub fn decide(rule: &GateRule, observation: &Observation) -> GateDecision {
    let counts = Counts::of(observation);
    let slos = slos(rule, observation);
    let (verdict, why) = judge(rule, observation.soaked_seconds, &counts, &slos);
    let (lower, upper) = match rule.method {
        GateMethod::Point | GateMethod::Exact | GateMethod::Sequential => (
            exact_lower(counts.failed, counts.sample, rule.confidence),
            exact_upper(counts.failed, counts.sample, rule.confidence),
        ),
        GateMethod::Anytime => (
            anytime_lower(counts.failed, counts.sample, rule.confidence),
            anytime_upper(counts.failed, counts.sample, rule.confidence),
        ),
    };
    let mut decision = GateDecision {
        verdict,
        method: rule.method,
        devices: counts.devices,
        verified: counts.verified,
        failed: counts.failed,
        silent: counts.silent,
        pending: counts.pending,
        sample: counts.sample,
        limit_ppm: rule.limit.get(),
        ratio_ppb: ratio_ppb(counts.failed, counts.sample),
        confidence_ppm: rule.confidence.get(),
        lower_ppb: parts_per_billion(lower),
        upper_ppb: parts_per_billion(upper),
        sequential: sequential_numbers(rule, &counts),
        evidence: evidence_numbers(rule, &counts),
        soaked_seconds: observation.soaked_seconds,
        slos,
        reason: String::new(),
    };
    decision.reason = reason::sentence(rule, &decision, &why);
    decision
}

/// The verdict of [`decide`] alone.
pub fn verdict(rule: &GateRule, observation: &Observation) -> Verdict {
    let slos = slos(rule, observation);
    judge(rule, observation.soaked_seconds, &Counts::of(observation), &slos).0
}

fn judge(rule: &GateRule, soaked_seconds: u64, counts: &Counts, slos: &[SloDecision]) -> (Verdict, Why) {
    if counts.devices == 0 {
        return (Verdict::Pass, Why::Empty);
    }
    let slo_in = |state: SloState| slos.iter().position(|slo| slo.state == state);
    if let Some(index) = slo_in(SloState::ShownOver) {
        return (Verdict::Fail, Why::SloOver(index));
    }
    if counts.sample == 0 {
        return (Verdict::Wait, Why::NothingYet);
    }
    let (hoped, why) = match find(rule, counts) {
        Finding::Failed(why) => return (Verdict::Fail, why),
        Finding::Open(why) => return (Verdict::Wait, why),
        Finding::Passed(_) if counts.pending > 0 && rule.pass_when == PassWhen::AllAnswered => {
            return (Verdict::Wait, Why::Pending);
        }
        Finding::Passed(_) if counts.sample < rule.min_sample => {
            let hoped = if counts.pending > 0 {
                Verdict::Wait
            } else {
                Verdict::Inconclusive
            };
            (hoped, Why::SampleSmall)
        }
        Finding::Passed(why) => (Verdict::Pass, why),
        Finding::Undecided(why) => (Verdict::Inconclusive, why),
    };
    if hoped == Verdict::Wait {
        return (hoped, why);
    }
    if soaked_seconds < rule.min_soak_seconds {
        return (Verdict::Wait, Why::Soaking);
    }
    if let Some(index) = slo_in(SloState::Over) {
        return (Verdict::Fail, Why::SloOver(index));
    }
    match slo_in(SloState::Unmeasured) {
        Some(index) if counts.pending > 0 => (Verdict::Wait, Why::SloUnmeasured(index)),
        Some(index) => (Verdict::Inconclusive, Why::SloUnmeasured(index)),
        None => (hoped, why),
    }
}

fn find(rule: &GateRule, counts: &Counts) -> Finding {
    match rule.method {
        GateMethod::Point => find_by_point(rule, counts),
        GateMethod::Exact => find_by_exact_bound(rule, counts),
        GateMethod::Sequential => find_by_sequential_test(rule, counts),
        GateMethod::Anytime => find_by_evidence(rule, counts),
    }
}

/// The share is judged when all have answered; it has failed as soon as it is over the limit even if all the rest
/// verify.
fn find_by_point(rule: &GateRule, counts: &Counts) -> Finding {
    if !below(counts.failed, counts.devices, rule.limit) {
        Finding::Failed(if counts.pending > 0 {
            Why::Certain
        } else {
            Why::Shown
        })
    } else if counts.pending > 0 {
        Finding::Open(Why::Pending)
    } else {
        Finding::Passed(Why::Shown)
    }
}

/// The bound is computed once, when all have answered. Before, the stage fails where that bound is certain to, and on
/// evidence that holds at every look: the bound itself does not.
fn find_by_exact_bound(rule: &GateRule, counts: &Counts) -> Finding {
    let Counts {
        devices,
        failed,
        sample,
        pending,
        ..
    } = *counts;
    if exact_shows_above(failed, devices, rule.limit, rule.confidence) {
        let certain = if pending > 0 { Why::Certain } else { Why::Shown };
        return Finding::Failed(certain);
    }
    if ln_evidence_above(failed, sample, rule.limit) >= ln_evidence_needed(rule.confidence) {
        return Finding::Failed(Why::Evidence);
    }
    let passes_at_best = exact_shows_below(failed, devices, rule.limit, rule.confidence);
    match (pending > 0, passes_at_best) {
        (true, true) => Finding::Open(Why::Pending),
        (true, false) => Finding::Open(Why::CannotPass),
        (false, true) => Finding::Passed(Why::Shown),
        (false, false) => Finding::Undecided(Why::NotShown),
    }
}

fn find_by_sequential_test(rule: &GateRule, counts: &Counts) -> Finding {
    let Some(test) = rule.sequential_test() else {
        return Finding::Undecided(Why::NoTest);
    };
    let statistic = test.log_likelihood(counts.failed, counts.sample);
    if statistic >= test.fail_at {
        Finding::Failed(Why::Shown)
    } else if statistic <= test.pass_at {
        Finding::Passed(Why::Shown)
    } else if counts.sample >= test.truncation_sample() {
        if statistic > 0.0 {
            Finding::Failed(Why::Truncated)
        } else {
            Finding::Passed(Why::Truncated)
        }
    } else if counts.pending > 0 {
        Finding::Open(Why::Pending)
    } else {
        Finding::Undecided(Why::NotShown)
    }
}

fn find_by_evidence(rule: &GateRule, counts: &Counts) -> Finding {
    let needed = ln_evidence_needed(rule.confidence);
    if ln_evidence_above(counts.failed, counts.sample, rule.limit) >= needed {
        Finding::Failed(Why::Shown)
    } else if ln_evidence_below(counts.failed, counts.sample, rule.limit) >= needed {
        Finding::Passed(Why::Shown)
    } else if counts.pending > 0 {
        Finding::Open(Why::Pending)
    } else {
        Finding::Undecided(Why::NotShown)
    }
}

/// Whether `count` of `of` is a smaller share than `limit`, in whole numbers.
fn below(count: u64, of: u64, limit: Ppm) -> bool {
    u128::from(count) * 1_000_000 < u128::from(of) * u128::from(limit.get())
}

/// How each of the rule's objectives stands.
fn slos(rule: &GateRule, observation: &Observation) -> Vec<SloDecision> {
    let needed = ln_evidence_needed(rule.confidence);
    rule.slos
        .iter()
        .map(|slo| {
            let measured = observation
                .slos
                .iter()
                .find(|measured| measured.name == slo.name.as_str());
            let of = measured.map_or(0, |measured| measured.of);
            let count = measured.map_or(0, |measured| measured.count.min(of));
            let state = if of == 0 {
                SloState::Unmeasured
            } else if ln_evidence_above(count, of, slo.limit) >= needed {
                SloState::ShownOver
            } else if below(count, of, slo.limit) {
                SloState::Within
            } else {
                SloState::Over
            };
            SloDecision {
                name: slo.name.to_string(),
                limit_ppm: slo.limit.get(),
                count,
                of,
                state,
            }
        })
        .collect()
}

fn sequential_numbers(rule: &GateRule, counts: &Counts) -> Option<SequentialNumbers> {
    let test = match rule.method {
        GateMethod::Sequential => rule.sequential_test()?,
        GateMethod::Point | GateMethod::Exact | GateMethod::Anytime => return None,
    };
    Some(SequentialNumbers {
        log_likelihood_micro: micro(test.log_likelihood(counts.failed, counts.sample)),
        fail_at_micro: micro(test.fail_at),
        pass_at_micro: micro(test.pass_at),
        truncation_sample: test.truncation_sample(),
    })
}

fn evidence_numbers(rule: &GateRule, counts: &Counts) -> Option<EvidenceNumbers> {
    match rule.method {
        GateMethod::Exact | GateMethod::Anytime => Some(EvidenceNumbers {
            above_micro: micro(ln_evidence_above(counts.failed, counts.sample, rule.limit)),
            below_micro: micro(ln_evidence_below(counts.failed, counts.sample, rule.limit)),
            needed_micro: micro(ln_evidence_needed(rule.confidence)),
        }),
        GateMethod::Point | GateMethod::Sequential => None,
    }
}

fn ratio_ppb(count: u64, of: u64) -> Option<u64> {
    let scaled = (u128::from(count) * 1_000_000_000).checked_div(u128::from(of))?;
    Some(scaled.min(1_000_000_000) as u64)
}

/// In millionths, cut off at the ends of the whole numbers that JSON readers agree on.
fn micro(value: f64) -> i64 {
    const EXACT_MAX: f64 = 9_007_199_254_740_991.0;
    (value * 1e6).round().clamp(-EXACT_MAX, EXACT_MAX) as i64
}
