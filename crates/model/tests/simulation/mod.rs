//! Many stages played through a gate that is asked after every report: how often it passes and stops.
//!
//! Devices answer one after the other, each fails with the same chance. Playing every report through the gate would
//! take minutes, so the gate is asked first where its answers change ([`Thresholds`]); a stage is then a walk from
//! failure to failure.

use muster_model::{
    gate::{GateRule, Observation, Verdict, verdict},
    statistics::{Ppm, exact_shows_above, exact_shows_below},
};

/// A small generator of random numbers (Steele et al., SplitMix64), so that a seed gives the same stages everywhere.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// How many devices answer up to and with the next failure.
    pub fn until_failure(&mut self, rate: f64) -> u64 {
        let uniform = ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        let verified = (uniform.ln() / (-rate).ln_1p()).floor();
        (verified as u64).saturating_add(1)
    }
}

/// The counts after `sample` of `devices` answers.
pub fn after(devices: u64, failed: u64, sample: u64) -> Observation {
    Observation {
        devices,
        verified: sample - failed,
        failed,
        pending: devices - sample,
        ..Observation::default()
    }
}

/// For each number of failures, up to which sample a gate fails and from which it passes.
pub struct Thresholds {
    devices: u64,
    fails_up_to: Vec<u64>,
    passes_from: Vec<u64>,
}

impl Thresholds {
    /// Asks the gate.
    pub fn of_rule(rule: &GateRule, devices: u64) -> Thresholds {
        if let Some(test) = rule.sequential_test() {
            assert!(
                test.truncation_sample() > devices,
                "a truncated test fails at more than the early samples"
            );
        }
        Thresholds::of(devices, |failed, sample| {
            verdict(rule, &after(devices, failed, sample))
        })
    }

    /// The exact bound misused: computed after every report, and the first answer taken.
    pub fn of_exact_bound_at_every_look(limit: Ppm, confidence: Ppm, devices: u64) -> Thresholds {
        Thresholds::of(devices, |failed, sample| {
            if exact_shows_above(failed, sample, limit, confidence) {
                Verdict::Fail
            } else if exact_shows_below(failed, sample, limit, confidence) {
                Verdict::Pass
            } else {
                Verdict::Wait
            }
        })
    }

    fn of(devices: u64, verdict: impl Fn(u64, u64) -> Verdict) -> Thresholds {
        let mut thresholds = Thresholds {
            devices,
            fails_up_to: Vec::new(),
            passes_from: Vec::new(),
        };
        for failed in 0..=devices {
            let first = failed.max(1);
            let fails = partition(first, devices + 1, |sample| {
                verdict(failed, sample) == Verdict::Fail
            });
            let passes = partition(fails, devices + 1, |sample| {
                verdict(failed, sample) != Verdict::Pass
            });
            thresholds.fails_up_to.push(fails - 1);
            thresholds.passes_from.push(passes);
            if fails > devices {
                break;
            }
        }
        thresholds
    }

    /// Plays one stage: what the gate said, and after how many answers.
    pub fn play(&self, rate: f64, random: &mut Random) -> (Verdict, u64) {
        let (mut failed, mut sample) = (0, 0);
        loop {
            let next = random.until_failure(rate).saturating_add(sample);
            let passes = self.passes_from[failed].max(sample);
            if passes < next && passes <= self.devices {
                return (Verdict::Pass, passes);
            }
            if next > self.devices {
                return (Verdict::Inconclusive, self.devices);
            }
            (failed, sample) = (failed + 1, next);
            if sample <= self.fails_up_to[failed] {
                return (Verdict::Fail, sample);
            }
        }
    }
}

/// The first place from `low` on where `holds` is false; `high` if it is nowhere.
fn partition(mut low: u64, mut high: u64, holds: impl Fn(u64) -> bool) -> u64 {
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// Shares of many stages.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    pub passed: f64,
    pub failed: f64,
    pub inconclusive: f64,
    /// How many devices had answered, on average.
    pub answers: f64,
}

/// Plays many stages.
pub fn rates(thresholds: &Thresholds, rate: f64, runs: u32, seed: u64) -> Rates {
    let mut random = Random(seed);
    let (mut passed, mut failed, mut answers) = (0_u32, 0_u32, 0_u64);
    for _ in 0..runs {
        let (verdict, sample) = thresholds.play(rate, &mut random);
        passed += u32::from(verdict == Verdict::Pass);
        failed += u32::from(verdict == Verdict::Fail);
        answers += sample;
    }
    let share = |count: u32| f64::from(count) / f64::from(runs);
    Rates {
        passed: share(passed),
        failed: share(failed),
        inconclusive: share(runs - passed - failed),
        answers: answers as f64 / f64::from(runs),
    }
}
