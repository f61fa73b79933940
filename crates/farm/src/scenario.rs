//! Scenarios: how conditions change over a run, from a TOML file.
//!
//! ```toml
//! [[phase]]
//! at_seconds = 0
//! fail_rate = 0.02
//!
//! [[phase]]
//! at_seconds = 120
//! silent_rate = 0.3
//! offline = 0.1
//!
//! [[phase.fault]]
//! model = "Fieldbook 14"
//! setting = "camera.allowed"
//! fail_rate = 0.02
//! ```
//!
//! A phase with faults replaces those before it.

use std::time::Duration;

use serde::Deserialize;

use crate::faults::{Conditions, ModelFault};

/// Most phases of a scenario.
const PHASES_MAX: usize = 1000;
/// Most faults of a phase.
const FAULTS_MAX: usize = 100;

/// Phases in order.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What changes when.
    #[serde(default, rename = "phase")]
    phases: Vec<Phase>,
}

/// A change of conditions. What is left out stays as it was.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Phase {
    at_seconds: u64,
    fail_rate: Option<f64>,
    silent_rate: Option<f64>,
    offline: Option<f64>,
    #[serde(rename = "fault")]
    faults: Option<Vec<ModelFault>>,
}

/// Why a scenario is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// Not the TOML of a scenario.
    #[error("not a scenario: {0}")]
    Toml(String),
    /// A rate outside of 0 to 1.
    #[error("phase {phase}: `{name}` is from 0 to 1")]
    Rate {
        /// Which phase, from 1.
        phase: usize,
        /// Which rate.
        name: &'static str,
    },
    /// A fault that cannot happen.
    #[error("phase {phase}: {detail}")]
    Fault {
        /// Which phase, from 1.
        phase: usize,
        /// What is wrong with it.
        detail: String,
    },
    /// The phases are not in order.
    #[error("phase {phase}: it must begin after the one before")]
    Order {
        /// Which phase, from 1.
        phase: usize,
    },
    /// Too many phases.
    #[error("a scenario has at most {PHASES_MAX} phases")]
    TooMany,
}

impl Scenario {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self =
            toml::from_str(text).map_err(|error: toml::de::Error| ScenarioError::Toml(error.to_string()))?;
        if scenario.phases.len() > PHASES_MAX {
            return Err(ScenarioError::TooMany);
        }
        let mut earlier = None;
        for (place, phase) in scenario.phases.iter().enumerate() {
            let rates = [
                ("fail_rate", phase.fail_rate),
                ("silent_rate", phase.silent_rate),
                ("offline", phase.offline),
            ];
            for (name, rate) in rates {
                if rate.is_some_and(|rate| !(0.0..=1.0).contains(&rate)) {
                    return Err(ScenarioError::Rate {
                        phase: place + 1,
                        name,
                    });
                }
            }
            let faults = phase.faults.as_deref().unwrap_or_default();
            let checked = if faults.len() > FAULTS_MAX {
                Err(format!("a phase has at most {FAULTS_MAX} faults"))
            } else {
                faults.iter().try_for_each(ModelFault::check)
            };
            checked.map_err(|detail| ScenarioError::Fault {
                phase: place + 1,
                detail,
            })?;
            if earlier.is_some_and(|earlier| phase.at_seconds <= earlier) {
                return Err(ScenarioError::Order { phase: place + 1 });
            }
            earlier = Some(phase.at_seconds);
        }
        Ok(scenario)
    }

    /// When conditions change, and to what, beginning with `base`.
    pub fn changes(&self, base: &Conditions) -> Vec<(Duration, Conditions)> {
        let mut current = base.clone();
        let change = |phase: &Phase| {
            current = Conditions {
                fail_rate: phase.fail_rate.unwrap_or(current.fail_rate),
                silent_rate: phase.silent_rate.unwrap_or(current.silent_rate),
                offline: phase.offline.unwrap_or(current.offline),
                faults: phase.faults.clone().unwrap_or_else(|| current.faults.clone()),
            };
            (Duration::from_secs(phase.at_seconds), current.clone())
        };
        self.phases.iter().map(change).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_changes_what_it_names_and_nothing_else() {
        let text = "[[phase]]\nat_seconds = 0\nfail_rate = 0.5\n[[phase]]\nat_seconds = 60\noffline = 1\n";
        let text = text.replace("offline = 1\n", "offline = 1.0\n");
        let changes = Scenario::parse(&text)
            .expect("a scenario")
            .changes(&Conditions::CALM);
        let first = Conditions {
            fail_rate: 0.5,
            ..Conditions::CALM
        };
        let second = Conditions {
            offline: 1.0,
            ..first.clone()
        };
        assert_eq!(
            changes,
            [(Duration::ZERO, first), (Duration::from_secs(60), second)]
        );
    }

    #[test]
    fn a_wrong_scenario_says_what_is_wrong() {
        let check = |text: &str| Scenario::parse(text).expect_err(text);
        let phase = "[[phase]]\nat_seconds = 5\n";
        let wrong_rate = ScenarioError::Rate {
            phase: 1,
            name: "fail_rate",
        };
        assert_eq!(check(&format!("{phase}fail_rate = 1.5\n")), wrong_rate);
        assert_eq!(check(&format!("{phase}fail_rate = nan\n")), wrong_rate);
        assert_eq!(
            check(&format!("{phase}{phase}")),
            ScenarioError::Order { phase: 2 }
        );
        assert!(
            matches!(check(&format!("{phase}fial_rate = 0.5\n")), ScenarioError::Toml(text) if text.contains("fial_rate"))
        );
        assert!(matches!(
            check("[[phase]]\nfail_rate = 0.5\n"),
            ScenarioError::Toml(_)
        ));
        assert_eq!(
            Scenario::parse("").expect("no phase").changes(&Conditions::CALM),
            []
        );
    }
}
