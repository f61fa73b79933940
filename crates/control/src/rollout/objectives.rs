//! What gates judge besides failures: the compliance of the devices of a stage.
//!
//! A device is measured when it has reported the version of its stage and its policies were evaluated: its verdict is from
//! the report itself, or newer. The verdict comes with the device's row; only the devices that violate a single rule are
//! read in addition, from the index of open violations.

use std::collections::HashSet;

use muster_model::{
    ComplianceState, DeviceId, TenantId, gate::SloObservation, rollout::StagePlan, rules::Rule,
};
use muster_storage::Tx;

use super::{Rollout, plan::Counts, progress::Standing};
use crate::{
    access::problem::{Problem, STAGES_INVALID},
    compliance,
    devices::TargetDevice,
    policy,
};

/// The share of noncompliant devices, by all policies that they have.
const COMPLIANCE: &str = "compliance";
/// In front of a rule's name: the share of devices that violate this rule of the policy.
const OF_RULE: &str = "compliance:";

/// What an objective's name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure<'a> {
    Compliance,
    Rule(&'a str),
}

impl Measure<'_> {
    fn parse(name: &str) -> Option<Measure<'_>> {
        match name.strip_prefix(OF_RULE) {
            Some(rule) if !rule.is_empty() => Some(Measure::Rule(rule)),
            Some(_) => None,
            None => (name == COMPLIANCE).then_some(Measure::Compliance),
        }
    }
}

/// Refuses stages with objectives that nobody measures. `rules` are those of the version, where they are known by now.
pub fn check(stages: &[StagePlan], rules: Option<&[Rule]>) -> Result<(), Problem> {
    let objectives = stages
        .iter()
        .flat_map(|stage| stage.gate.slos.iter().map(move |slo| (stage, slo.name.as_str())));
    for (stage, name) in objectives {
        if !is_known(name, rules) {
            return Err(STAGES_INVALID.detail(format!(
                "Stage {}: nothing measures the objective `{name}`. Known are {}.",
                stage.name,
                known(rules)
            )));
        }
    }
    Ok(())
}

/// As [`check`], for a stored version.
pub fn check_for(stages: &[StagePlan], version: &policy::Version) -> Result<(), Problem> {
    if stages.iter().all(|stage| stage.gate.slos.is_empty()) {
        return Ok(());
    }
    let rules: Vec<Rule> = serde_json::from_str(&version.rules).map_err(Problem::internal)?;
    check(stages, Some(&rules))
}

/// Leaves out the objectives that are about rules which a version does not have.
pub fn keep_known(stages: &mut [StagePlan], version: &policy::Version) -> Result<(), Problem> {
    let rules: Vec<Rule> = serde_json::from_str(&version.rules).map_err(Problem::internal)?;
    for stage in stages {
        let slos = &mut stage.gate.slos;
        slos.retain(|slo| is_known(slo.name.as_str(), Some(&rules)));
    }
    Ok(())
}

fn is_known(name: &str, rules: Option<&[Rule]>) -> bool {
    match (Measure::parse(name), rules) {
        (Some(Measure::Rule(wanted)), Some(rules)) => rules.iter().any(|rule| rule.name.as_str() == wanted),
        (Some(Measure::Compliance), _) | (Some(Measure::Rule(_)), None) => true,
        (None, _) => false,
    }
}

fn known(rules: Option<&[Rule]>) -> String {
    let mut names = vec![format!("`{COMPLIANCE}`")];
    match rules {
        None => names.push(format!("`{OF_RULE}RULE` with the name of a rule of the version")),
        Some(rules) => names.extend(rules.iter().map(|rule| format!("`{OF_RULE}{}`", rule.name))),
    }
    names.join(", ")
}

/// The objectives of a rollout's stages, with what is needed to measure them.
pub struct Objectives {
    /// By stage, in the order of its gate; nothing for stages that are not open.
    stages: Vec<Vec<Objective>>,
}

struct Objective {
    name: String,
    /// Of a rule: the devices that violate it.
    violating: Option<HashSet<DeviceId>>,
}

impl Objectives {
    pub fn of(tx: &mut Tx, tenant: TenantId, rollout: &Rollout) -> Result<Objectives, Problem> {
        let mut stages = Vec::with_capacity(rollout.plan.stages.len());
        for stage in &rollout.plan.stages {
            let mut objectives = Vec::new();
            let slos = stage.plan.gate.slos.iter();
            for slo in slos.filter(|_| stage.opening.is_some()) {
                let violating = match Measure::parse(slo.name.as_str()) {
                    Some(Measure::Compliance) => None,
                    Some(Measure::Rule(rule)) => {
                        Some(compliance::violating(tx, tenant, rollout.policy, rule)?)
                    }
                    // A plan of another version of this program: what is not measured keeps the gate from passing.
                    None => continue,
                };
                objectives.push(Objective {
                    name: slo.name.to_string(),
                    violating,
                });
            }
            stages.push(objectives);
        }
        Ok(Objectives { stages })
    }

    /// The counts of each stage before any device was looked at.
    pub fn nothing_measured(&self) -> Vec<Counts> {
        let nothing = |objective: &Objective| SloObservation {
            name: objective.name.clone(),
            count: 0,
            of: 0,
        };
        let stages = self.stages.iter();
        stages
            .map(|objectives| Counts {
                slos: objectives.iter().map(nothing).collect(),
                ..Counts::default()
            })
            .collect()
    }

    /// Measures a device of a stage, if it has answered and has a verdict.
    pub fn measure(&self, stage: usize, device: &TargetDevice, standing: Standing, counts: &mut Counts) {
        let has_answered = match standing {
            Standing::Verified | Standing::WithGaps | Standing::Failed => true,
            Standing::Waiting | Standing::Pending | Standing::Silent => false,
        };
        let is_noncompliant = match device.compliance {
            ComplianceState::Compliant => false,
            ComplianceState::Noncompliant => true,
            ComplianceState::Unknown | ComplianceState::Pending => return,
        };
        let Some(objectives) = self.stages.get(stage).filter(|_| has_answered) else {
            return;
        };
        for (objective, measured) in objectives.iter().zip(&mut counts.slos) {
            let violates = match &objective.violating {
                None => is_noncompliant,
                Some(violating) => violating.contains(&device.id),
            };
            measured.of += 1;
            measured.count += u64::from(violates);
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_model::rollout::plan_of;

    use super::*;

    #[test]
    fn p6_objectives_that_nobody_measures_are_refused_with_those_that_are() {
        let stages = |name: &str| {
            let requested =
                serde_json::json!([{"name": "full", "gate": {"slos": [{"name": name, "limit": 0.01}]}}]);
            let requested: Vec<_> = serde_json::from_value(requested).expect("they have the form");
            plan_of(&requested).expect("they are stages")
        };
        let rules: Vec<Rule> =
            serde_json::from_str(r#"[{"name":"os","check":{"fact":"os.version","op":"ge","value":"12"}}]"#)
                .expect("they are rules");
        for (name, with_rules, without) in [
            ("compliance", true, true),
            ("compliance:os", true, true),
            ("compliance:other", false, true),
            ("compliance:", false, false),
            ("telemetry:checkin_loss", false, false),
        ] {
            assert_eq!(check(&stages(name), Some(&rules)).is_ok(), with_rules, "{name}");
            assert_eq!(check(&stages(name), None).is_ok(), without, "{name}");
        }
        let refused = check(&stages("checkin_loss"), Some(&rules)).expect_err("nobody measures it");
        assert_eq!(refused.code(), "stages_invalid");
        assert!(
            refused
                .detail
                .ends_with("Known are `compliance`, `compliance:os`."),
            "{}",
            refused.detail
        );
    }
}
