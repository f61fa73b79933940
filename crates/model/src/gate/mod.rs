//! Gates: whether a stage of a rollout passes, from its counts. Pure: the engine counts, asks, logs and acts.
//!
//! [`decide`] gives the verdict with every number it rests on; [`verdict`] gives the same verdict alone, cheaply, for
//! asking after every report. What the methods promise is in [`crate::statistics`].

mod decide;
mod reason;
mod rule;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use decide::{decide, verdict};
pub use rule::{
    GateMethod, GateRule, InvalidGate, OnFailure, OnInconclusive, PassWhen, Promotion, SloRule, TooSmall,
};

/// The most service level objectives of one gate.
pub const SLOS_MAX: usize = 8;
/// The largest minimum sample.
pub const MIN_SAMPLE_MAX: u64 = 1_000_000_000;
/// The longest soak and the longest wait for silent devices: 90 days.
pub const GATE_SECONDS_MAX: u64 = 90 * 86_400;
/// The shortest wait before a device counts as silent.
pub const SILENT_AFTER_SECONDS_MIN: u64 = 60;

/// What is known of a stage now. `devices` = `verified` + `failed` + `silent` + `pending`; devices in none of the four
/// count as pending.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observation {
    pub devices: u64,
    /// Reported the version in force.
    pub verified: u64,
    /// Reported that it could not be put in force.
    pub failed: u64,
    /// Past their deadline without a report: they count as failed.
    pub silent: u64,
    pub pending: u64,
    /// How long the stage has been open.
    pub soaked_seconds: u64,
    /// What was measured for the rule's other objectives, by name.
    #[serde(default)]
    pub slos: Vec<SloObservation>,
}

/// How often an objective was violated: `count` of `of`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SloObservation {
    pub name: String,
    pub count: u64,
    pub of: u64,
}

/// What a gate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The next stage may open; with manual promotion, when a person says so.
    Pass,
    /// Too many failed: certain, or shown.
    Fail,
    /// Ask again after the next report.
    Wait,
    /// Nothing more will come, and neither was shown.
    Inconclusive,
}

impl Verdict {
    /// The word in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Wait => "wait",
            Verdict::Inconclusive => "inconclusive",
        }
    }
}

/// A verdict with the numbers it rests on. Whole numbers only, as the log takes them: shares in parts per million or
/// billion, logarithms in millionths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateDecision {
    pub verdict: Verdict,
    pub method: GateMethod,
    pub devices: u64,
    pub verified: u64,
    /// Failed and silent devices.
    pub failed: u64,
    pub silent: u64,
    pub pending: u64,
    /// `verified` and `failed`.
    pub sample: u64,
    pub limit_ppm: u32,
    /// `failed` of `sample`; absent without a sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_ppb: Option<u64>,
    /// One-sided bounds of the failure rate at `confidence_ppm`: at every look for `anytime`, otherwise exact and for
    /// one look.
    pub confidence_ppm: u32,
    pub lower_ppb: u64,
    pub upper_ppb: u64,
    /// The sequential test's statistic and its two boundaries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequential: Option<SequentialNumbers>,
    /// The anytime-valid evidence and what it must reach; also what stops an exact gate early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<EvidenceNumbers>,
    pub soaked_seconds: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slos: Vec<SloDecision>,
    /// A sentence with the numbers, for people.
    pub reason: String,
}

/// Natural logarithms of likelihood ratios, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequentialNumbers {
    pub log_likelihood_micro: i64,
    pub fail_at_micro: i64,
    pub pass_at_micro: i64,
    /// From this sample on the sign decides.
    pub truncation_sample: u64,
}

/// Natural logarithms of the evidence on either side of the limit, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceNumbers {
    pub above_micro: i64,
    pub below_micro: i64,
    pub needed_micro: i64,
}

/// One objective in a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SloDecision {
    pub name: String,
    pub limit_ppm: u32,
    pub count: u64,
    pub of: u64,
    pub state: SloState,
}

/// How an objective stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SloState {
    /// Nothing was measured: the gate cannot pass.
    Unmeasured,
    /// Below its limit.
    Within,
    /// At its limit or above: the gate fails when the stage is judged.
    Over,
    /// Above its limit by evidence: the gate fails at once.
    ShownOver,
}

impl GateDecision {
    /// The decision as the log takes it: an object of whole numbers and texts.
    pub fn record(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("a structure of numbers and texts is JSON")
    }
}
