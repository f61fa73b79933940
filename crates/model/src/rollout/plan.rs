//! The plan of a rollout: its stages, from what people write to what is stored.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize, Serializer};

use super::membership::WHOLE_PER_MILLE;
use crate::{
    gate::{GateMethod, GateRule, InvalidGate, Promotion},
    text::{InvalidText, Name},
};

/// Stages that a rollout may have.
pub const STAGES_MAX: usize = 16;
/// What a stage without a share of its own is called, and what the last one is.
pub const FULL: &str = "full";

/// A stage as a request writes it: `{"name":"pilot","percent":10}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageRequest {
    pub name: String,
    /// The share of the target that has the version when this stage is open, those of earlier stages among them; in tenths.
    /// The last stage is everything.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "plain_percent"
    )]
    pub percent: Option<f64>,
    /// When the stage passes; the default gate where absent. Written with what is not the default alone.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "brief_gate"
    )]
    pub gate: Option<GateRule>,
    /// Short for the gate's `min_soak_seconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak_seconds: Option<u64>,
    /// Short for the gate's `promotion`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotion: Option<Promotion>,
}

/// A stage of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StagePlan {
    pub name: String,
    /// In parts per thousand of the target, earlier stages among them.
    pub share_per_mille: u16,
    pub gate: GateRule,
}

/// Why stages are refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidStages {
    #[error("a rollout has 1 to {STAGES_MAX} stages")]
    Count,
    #[error("the name of a stage {0}")]
    Name(InvalidText),
    #[error("two stages are called {0}")]
    NameTwice(String),
    #[error("stage {0} has no `percent`; only the last one needs none, because it is everything")]
    ShareMissing(String),
    #[error("the `percent` of stage {0} is not from 0.1 to 100 with at most one decimal")]
    Share(String),
    #[error(
        "stage {0} is not larger than the one before: `percent` counts the devices of earlier stages too"
    )]
    ShareFalls(String),
    #[error("the last stage is everything: leave its `percent` out, or end with {{\"name\":\"full\"}}")]
    LastNotFull,
    #[error("stage {name}: {error}")]
    Gate { name: String, error: InvalidGate },
}

/// The stages that a rollout has when none are given: 10 %, 25 %, everything, each by the default gate.
pub fn default_stages() -> Vec<StagePlan> {
    let stage = |name: &str, share_per_mille| StagePlan {
        name: name.to_owned(),
        share_per_mille,
        gate: GateRule::default_point(),
    };
    vec![stage("pilot", 100), stage("canary", 250), full_stage()]
}

/// One stage that holds everything.
pub fn full_stage() -> StagePlan {
    StagePlan {
        name: FULL.to_owned(),
        share_per_mille: WHOLE_PER_MILLE,
        gate: GateRule::default_point(),
    }
}

/// The plan that stages of a request make.
pub fn plan_of(requested: &[StageRequest]) -> Result<Vec<StagePlan>, InvalidStages> {
    if requested.is_empty() || requested.len() > STAGES_MAX {
        return Err(InvalidStages::Count);
    }
    let (mut names, mut before) = (BTreeSet::new(), 0);
    let mut stages = Vec::with_capacity(requested.len());
    for (at, request) in requested.iter().enumerate() {
        let stage = request.stage(at + 1 == requested.len())?;
        if !names.insert(stage.name.clone()) {
            return Err(InvalidStages::NameTwice(stage.name));
        }
        if stage.share_per_mille <= before {
            return Err(InvalidStages::ShareFalls(stage.name));
        }
        before = stage.share_per_mille;
        stages.push(stage);
    }
    Ok(stages)
}

/// Writes 10 rather than 10.0.
fn plain_percent<S: Serializer>(percent: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match percent {
        Some(percent) if percent.fract() == 0.0 && (0.0..=100.0).contains(percent) => {
            serializer.serialize_u64(*percent as u64)
        }
        percent => percent.serialize(serializer),
    }
}

fn brief_gate<S: Serializer>(gate: &Option<GateRule>, serializer: S) -> Result<S::Ok, S::Error> {
    gate.as_ref().map(GateRule::brief).serialize(serializer)
}

impl StageRequest {
    /// The request that makes a stage of a plan: one form for one plan, without what is so anyway.
    pub fn of(stage: &StagePlan) -> StageRequest {
        let is_whole = stage.share_per_mille == WHOLE_PER_MILLE;
        StageRequest {
            name: stage.name.clone(),
            percent: (!is_whole).then(|| f64::from(stage.share_per_mille) / 10.0),
            gate: Some(stage.gate.clone()).filter(|gate| *gate != GateRule::default()),
            soak_seconds: None,
            promotion: None,
        }
    }

    fn stage(&self, is_last: bool) -> Result<StagePlan, InvalidStages> {
        let name = Name::parse(&self.name)
            .map_err(InvalidStages::Name)?
            .as_str()
            .to_owned();
        let share_per_mille = match self.percent {
            None if is_last => WHOLE_PER_MILLE,
            None => return Err(InvalidStages::ShareMissing(name)),
            Some(percent) => match per_mille(percent) {
                Some(share) if is_last && share < WHOLE_PER_MILLE => return Err(InvalidStages::LastNotFull),
                Some(share) => share,
                None => return Err(InvalidStages::Share(name)),
            },
        };
        let mut gate = self.gate.clone().unwrap_or_default();
        if let Some(seconds) = self.soak_seconds {
            gate.min_soak_seconds = seconds;
        }
        if let Some(promotion) = self.promotion {
            gate.promotion = promotion;
        }
        match gate.check() {
            Ok(()) => Ok(StagePlan {
                name,
                share_per_mille,
                gate,
            }),
            Err(error) => Err(InvalidStages::Gate { name, error }),
        }
    }
}

fn per_mille(percent: f64) -> Option<u16> {
    let tenths = percent * 10.0;
    let whole = tenths.round();
    let fits = (1.0..=f64::from(WHOLE_PER_MILLE)).contains(&whole) && (tenths - whole).abs() < 1e-6;
    fits.then_some(whole as u16)
}

/// Reads stages as command lines and forms write them: `pilot=10,canary=25,full`.
pub fn read_stages(text: &str, method: GateMethod) -> Result<Vec<StageRequest>, String> {
    text.split(',')
        .map(|word| {
            let (name, percent) = match word.trim().split_once('=') {
                None => (word.trim(), None),
                Some((name, percent)) => {
                    let number = percent.trim().trim_end_matches('%').parse::<f64>();
                    let number =
                        number.map_err(|_| format!("{percent} is not a percentage: write pilot=10,full"))?;
                    (name.trim(), Some(number))
                }
            };
            Ok(StageRequest {
                name: name.to_owned(),
                percent,
                gate: (method != GateMethod::Point).then(|| GateRule::by(method)),
                soak_seconds: None,
                promotion: None,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<Vec<StagePlan>, InvalidStages> {
        let requested: Vec<StageRequest> = serde_json::from_str(json).expect("it has the form");
        plan_of(&requested)
    }

    #[test]
    fn p6_the_contracts_bodies_make_plans() {
        assert_eq!(plan(r#"[{"name":"full"}]"#), Ok(vec![full_stage()]));
        let three =
            plan(r#"[{"name":"pilot","percent":10},{"name":"canary","percent":25.0},{"name":"full"}]"#);
        assert_eq!(three, Ok(default_stages()));
        let soaked = plan(r#"[{"name":"a","percent":0.5,"soak_seconds":60,"promotion":"manual"},{"name":"b","percent":100}]"#)
            .expect("it is a plan");
        assert_eq!(
            (soaked[0].share_per_mille, soaked[0].gate.min_soak_seconds),
            (5, 60)
        );
        assert_eq!(soaked[0].gate.promotion, Promotion::Manual);
        let exact =
            plan(r#"[{"name":"a","percent":50,"gate":{"method":"exact","limit":0.01}},{"name":"b"}]"#)
                .expect("it is a plan");
        assert_eq!(
            (exact[0].gate.method, exact[0].gate.limit.get()),
            (GateMethod::Exact, 10_000)
        );
    }

    #[test]
    fn stages_that_cannot_be_meant_are_refused() {
        let many = format!(
            "[{}]",
            vec![r#"{"name":"x","percent":1}"#; STAGES_MAX + 1].join(",")
        );
        for json in [
            "[]",
            many.as_str(),
            r#"[{"name":"","percent":10},{"name":"full"}]"#,
            r#"[{"name":"a","percent":10},{"name":"a"}]"#,
            r#"[{"name":"a"},{"name":"full"}]"#,
            r#"[{"name":"a","percent":0},{"name":"full"}]"#,
            r#"[{"name":"a","percent":10.05},{"name":"full"}]"#,
            r#"[{"name":"a","percent":101},{"name":"full"}]"#,
            r#"[{"name":"a","percent":20},{"name":"b","percent":20},{"name":"full"}]"#,
            r#"[{"name":"a","percent":100},{"name":"full"}]"#,
            r#"[{"name":"a","percent":20}]"#,
            r#"[{"name":"a","percent":20,"gate":{"confidence":0.1}},{"name":"full"}]"#,
        ] {
            assert!(plan(json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_plan_is_written_in_one_way_and_read_back_as_itself() {
        let check = |json: &str, expected: &str| {
            let stages = plan(json).expect("it is a plan");
            let requested: Vec<StageRequest> = stages.iter().map(StageRequest::of).collect();
            let written = serde_json::to_string(&requested).expect("it can be written");
            assert_eq!(written, expected);
            assert_eq!(plan(&written), Ok(stages));
        };
        check(
            r#"[{"name":"a","percent":0.5,"soak_seconds":60,"promotion":"manual","gate":{"on_failure":"hold"}},
                {"name":"b","percent":25.0,"gate":{"method":"exact","limit":0.01,"slos":[{"name":"compliance","limit":0.02}]}},
                {"name":"c","percent":100,"gate":{"limit":0.005}}]"#,
            r#"[{"name":"a","percent":0.5,"gate":{"min_soak_seconds":60,"on_failure":"hold","promotion":"manual"}},{"name":"b","percent":25,"gate":{"limit":0.01,"method":"exact","slos":[{"limit":0.02,"name":"compliance"}]}},{"name":"c"}]"#,
        );
        for per_mille in 1..1000_u16 {
            let percent = f64::from(per_mille) / 10.0;
            check(
                &format!(r#"[{{"name":"a","percent":{percent}}},{{"name":"b"}}]"#),
                &format!(r#"[{{"name":"a","percent":{percent}}},{{"name":"b"}}]"#),
            );
        }
    }

    #[test]
    fn a_line_of_stages_is_read() {
        let read = read_stages("pilot=10, canary=25%,full", GateMethod::Point).expect("it is a line");
        assert_eq!(plan_of(&read), Ok(default_stages()));
        assert!(read_stages("pilot=x", GateMethod::Point).is_err());
    }
}
