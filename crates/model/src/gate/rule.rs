//! The rule of a gate, as a rollout's plan holds it.

use serde::{Deserialize, Serialize};

use super::{
    GATE_SECONDS_MAX, MIN_SAMPLE_MAX, Observation, SILENT_AFTER_SECONDS_MIN, SLOS_MAX, Verdict, verdict,
};
use crate::{
    rollout::FAILURE_RATIO_MAX_PPM,
    statistics::{Ppm, SequentialTest, anytime_sample_needed, sample_needed},
    text::Name,
};

/// 95 %.
const CONFIDENCE_DEFAULT: Ppm = Ppm::known(950_000);
/// Below this a confidence is no evidence.
const CONFIDENCE_MIN: Ppm = Ppm::known(500_000);
/// 5 %.
const ERROR_DEFAULT: Ppm = Ppm::known(50_000);
const ERROR_MAX: Ppm = Ppm::known(499_999);

/// How a gate judges the failures of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateMethod {
    /// The share of failures itself, once the whole stage has answered or run out of time.
    Point,
    /// The exact bound of Clopper and Pearson, once the whole stage has answered or run out of time.
    Exact,
    /// Wald's sequential probability ratio test, at every look.
    Sequential,
    /// Evidence that holds at every look.
    Anytime,
}

impl GateMethod {
    /// The word in plans and in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            GateMethod::Point => "point",
            GateMethod::Exact => "exact",
            GateMethod::Sequential => "sequential",
            GateMethod::Anytime => "anytime",
        }
    }
}

/// What the engine does when a gate fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    RollBack,
    Hold,
}

/// What the engine does when nothing more will come and neither was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInconclusive {
    Hold,
    Advance,
    RollBack,
}

/// How long `sequential` and `anytime`, which need not wait for the whole stage, do wait before they pass. They stop at
/// once in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PassWhen {
    /// Until the whole stage has answered or run out of time: what cuts a device off shows as silence only.
    AllAnswered,
    /// Not at all: right where devices that fail answer as soon as those that verify.
    Shown,
}

/// Who opens the next stage after a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Promotion {
    Automatic,
    Manual,
}

/// A further objective: a share that must stay below its limit, such as `compliance`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SloRule {
    pub name: Name,
    pub limit: Ppm,
}

/// When a stage passes. Every part has a default; the default of all is [`GateRule::default_point`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GateRule {
    pub method: GateMethod,
    /// The failure rate that a stage must stay below.
    pub limit: Ppm,
    /// How sure `exact` and `anytime` are; also how surely another objective must be missed to fail at once.
    pub confidence: Ppm,
    /// The failure rate at which `sequential` should pass; half the limit where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acceptable: Option<Ppm>,
    /// The share of acceptable stages that `sequential` may fail.
    pub alpha: Ppm,
    /// The share of stages at the limit that `sequential` may pass.
    pub beta: Ppm,
    pub pass_when: PassWhen,
    /// No pass with fewer answers, silent devices among them.
    pub min_sample: u64,
    /// No pass before the stage has been open so long.
    pub min_soak_seconds: u64,
    /// When a device without a report counts as failed; the server's setting where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silent_after_seconds: Option<u64>,
    pub on_failure: OnFailure,
    pub on_inconclusive: OnInconclusive,
    pub promotion: Promotion,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub slos: Vec<SloRule>,
}

/// A rule that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGate {
    #[error("a gate's confidence is at least 0.5")]
    Confidence,
    #[error("a gate's alpha and beta are below 0.5")]
    Errors,
    #[error("a gate's acceptable rate is below its limit")]
    Acceptable,
    #[error("a gate's minimum sample is at most {MIN_SAMPLE_MAX} devices")]
    MinSample,
    #[error("a gate's soak is at most {GATE_SECONDS_MAX} seconds")]
    MinSoak,
    #[error("a device counts as silent after {SILENT_AFTER_SECONDS_MIN} to {GATE_SECONDS_MAX} seconds")]
    SilentAfter,
    #[error("a gate has at most {SLOS_MAX} other objectives")]
    SlosTooMany,
    #[error("two objectives of a gate are called {0}")]
    SloTwice(String),
}

/// A stage that cannot pass by its rule, however well it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a stage of {devices} devices can never pass this {} gate: without any failure it needs {needed}",
    method.as_str()
)]
pub struct TooSmall {
    pub method: GateMethod,
    pub devices: u64,
    pub needed: u64,
}

impl Default for GateRule {
    fn default() -> GateRule {
        GateRule::default_point()
    }
}

impl GateRule {
    /// The share of failures itself, below 0.5 %, when the whole stage has answered or run out of time; no soak.
    pub fn default_point() -> GateRule {
        GateRule {
            method: GateMethod::Point,
            limit: FAILURE_RATIO_MAX_PPM,
            confidence: CONFIDENCE_DEFAULT,
            acceptable: None,
            alpha: ERROR_DEFAULT,
            beta: ERROR_DEFAULT,
            pass_when: PassWhen::AllAnswered,
            min_sample: 0,
            min_soak_seconds: 0,
            silent_after_seconds: None,
            on_failure: OnFailure::RollBack,
            on_inconclusive: OnInconclusive::Hold,
            promotion: Promotion::Automatic,
            slos: Vec::new(),
        }
    }

    /// The members that are not the default's: what a person has to write to mean this rule.
    pub fn brief(&self) -> serde_json::Map<String, serde_json::Value> {
        let members = |rule: &GateRule| match serde_json::to_value(rule) {
            Ok(serde_json::Value::Object(members)) => members,
            Ok(_) | Err(_) => serde_json::Map::new(),
        };
        let default = members(&GateRule::default());
        let own = members(self).into_iter();
        own.filter(|(name, value)| default.get(name) != Some(value))
            .collect()
    }

    /// The default with another method.
    pub fn by(method: GateMethod) -> GateRule {
        GateRule {
            method,
            ..GateRule::default_point()
        }
    }

    /// Whether the rule means something. Whoever takes a plan asks this once.
    pub fn check(&self) -> Result<(), InvalidGate> {
        if self.confidence < CONFIDENCE_MIN {
            return Err(InvalidGate::Confidence);
        }
        if self.alpha > ERROR_MAX || self.beta > ERROR_MAX {
            return Err(InvalidGate::Errors);
        }
        if self.method == GateMethod::Sequential && self.sequential_test().is_none() {
            return Err(InvalidGate::Acceptable);
        }
        if self.min_sample > MIN_SAMPLE_MAX {
            return Err(InvalidGate::MinSample);
        }
        if self.min_soak_seconds > GATE_SECONDS_MAX {
            return Err(InvalidGate::MinSoak);
        }
        let fits = |seconds: u64| (SILENT_AFTER_SECONDS_MIN..=GATE_SECONDS_MAX).contains(&seconds);
        if self.silent_after_seconds.is_some_and(|seconds| !fits(seconds)) {
            return Err(InvalidGate::SilentAfter);
        }
        if self.slos.len() > SLOS_MAX {
            return Err(InvalidGate::SlosTooMany);
        }
        for (index, slo) in self.slos.iter().enumerate() {
            if self.slos[..index].iter().any(|other| other.name == slo.name) {
                return Err(InvalidGate::SloTwice(slo.name.to_string()));
            }
        }
        Ok(())
    }

    /// The rule as the log takes it: whole numbers and texts, shares in parts per million.
    pub fn record(&self) -> serde_json::Value {
        let slos: Vec<_> = self
            .slos
            .iter()
            .map(|slo| serde_json::json!({"name": slo.name, "limit_ppm": slo.limit.get()}))
            .collect();
        serde_json::json!({
            "method": self.method,
            "limit_ppm": self.limit.get(),
            "confidence_ppm": self.confidence.get(),
            "acceptable_ppm": self.acceptable().get(),
            "alpha_ppm": self.alpha.get(),
            "beta_ppm": self.beta.get(),
            "pass_when": self.pass_when,
            "min_sample": self.min_sample,
            "min_soak_seconds": self.min_soak_seconds,
            "silent_after_seconds": self.silent_after_seconds,
            "on_failure": self.on_failure,
            "on_inconclusive": self.on_inconclusive,
            "promotion": self.promotion,
            "slos": slos,
        })
    }

    /// Whether a stage of so many devices can pass if all goes well; otherwise how many it would need. For a warning
    /// before activation. An empty stage passes.
    pub fn can_ever_pass(&self, devices: u64) -> Result<(), TooSmall> {
        let needed = self.smallest_stage();
        if devices == 0 || devices >= needed {
            return Ok(());
        }
        Err(TooSmall {
            method: self.method,
            devices,
            needed,
        })
    }

    /// The smallest stage that passes without any failure.
    pub fn smallest_stage(&self) -> u64 {
        let by_method = match self.method {
            GateMethod::Point => 1,
            GateMethod::Exact => sample_needed(self.limit, self.confidence),
            GateMethod::Sequential => self.sequential_test().map_or(u64::MAX, |test| {
                test.sample_to_pass(0).min(test.truncation_sample())
            }),
            GateMethod::Anytime => anytime_sample_needed(0, self.limit, self.confidence),
        };
        by_method.max(self.min_sample)
    }

    /// With how many failures a stage of so many devices still passes when all have answered; `None` if with none.
    pub fn failures_allowed(&self, devices: u64) -> Option<u64> {
        let bare = GateRule {
            slos: Vec::new(),
            ..self.clone()
        };
        let passes = |failed: u64| {
            let all = Observation {
                devices,
                verified: devices - failed,
                failed,
                soaked_seconds: self.min_soak_seconds,
                ..Observation::default()
            };
            verdict(&bare, &all) == Verdict::Pass
        };
        if devices == 0 || !passes(0) {
            return None;
        }
        let (mut low, mut high) = (0, devices);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if passes(middle) {
                low = middle;
            } else {
                high = middle;
            }
        }
        Some(low)
    }

    /// The failure rate at which the sequential test should pass.
    pub fn acceptable(&self) -> Ppm {
        self.acceptable
            .or_else(|| Ppm::new(self.limit.get() / 2))
            .unwrap_or(self.limit)
    }

    /// Wald's test of this rule; `None` where its rates or errors make no test.
    pub fn sequential_test(&self) -> Option<SequentialTest> {
        SequentialTest::new(self.acceptable(), self.limit, self.alpha, self.beta)
    }
}
