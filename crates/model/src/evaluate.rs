//! The one evaluator: what policies mean for a device, and whether the device complies. Server, agent, command line and
//! simulator all call it; it has no I/O and gives the same answer for the same input.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    compliance::ComplianceState,
    expression::Variable,
    facts::Facts,
    id::PolicyId,
    merge::{in_order, stricter},
    platform::Platform,
    report::{SettingReport, SettingState},
    rules::{Answer, Rule, all_encrypted, compare_versions},
    settings::{SettingDef, SettingValue, Settings, Support, definition},
    subject::Subject,
    text::VersionLabel,
    time::Timestamp,
};

pub use crate::merge::{Conflict, EffectiveSetting, Overruled, conflicts, effective};

/// A policy version that applies to the device.
#[derive(Debug, Clone, Copy)]
pub struct EvaluatedPolicy<'a> {
    pub policy: PolicyId,
    pub version: &'a VersionLabel,
    pub generation: u64,
    pub settings: &'a Settings,
    pub rules: &'a [Rule],
}

/// Whether one setting or rule is met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    Compliant,
    Noncompliant { reason: String },
    Unknown { reason: String },
}

/// The answer about one setting or rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// A setting's key or a rule's name.
    pub subject: String,
    pub from: PolicyId,
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// A setting that the platform cannot carry exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Gap {
    pub key: &'static str,
    #[serde(flatten)]
    pub support: Support,
}

/// Everything that the policies mean for the device.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    pub state: BTreeMap<&'static str, EffectiveSetting>,
    pub verdicts: Vec<Verdict>,
    pub gaps: Vec<Gap>,
    pub compliance: ComplianceState,
}

/// Evaluates the policies of a device. `in_force` is what it reported of its settings; it is empty before its first report.
/// `now` is when the question is asked, for deadlines. The order of the policies does not matter.
pub fn evaluate(
    policies: &[EvaluatedPolicy<'_>],
    subject: &Subject<'_>,
    in_force: &BTreeMap<String, SettingReport>,
    now: Timestamp,
) -> Evaluation {
    let (platform, facts) = (subject.platform, subject.facts);
    let state = effective(policies);
    let defined = || {
        let pair = |(key, setting)| Some((definition(key)?, setting));
        state
            .iter()
            .filter_map(move |(key, setting)| pair((key, setting)))
    };
    let gaps = defined()
        .filter_map(|(def, setting)| gap(def, &setting.value, platform))
        .collect();
    let mut verdicts: Vec<Verdict> = defined()
        .map(|(def, setting)| Verdict {
            subject: def.key.to_owned(),
            from: setting.from,
            outcome: judge_setting(def, &setting.value, facts, in_force.get(def.key), now),
        })
        .collect();
    for policy in in_order(policies) {
        verdicts.extend(policy.rules.iter().map(|rule| Verdict {
            subject: rule.name.to_string(),
            from: policy.policy,
            outcome: judge_rule(rule, subject, now),
        }));
    }
    let compliance = overall(&verdicts, policies, in_force, !state.is_empty());
    Evaluation {
        state,
        verdicts,
        gaps,
        compliance,
    }
}

fn gap(def: &SettingDef, value: &SettingValue, platform: Platform) -> Option<Gap> {
    match def.support_for(platform, value) {
        Support::Exact => None,
        support @ (Support::Weaker(_) | Support::NotExpressible(_) | Support::NeedsAgent(_)) => Some(Gap {
            key: def.key,
            support,
        }),
    }
}

/// Judges by what the device reported of itself, else by its report on the setting. What a platform cannot carry is a gap
/// of the policy, not a fault of the device.
fn judge_setting(
    def: &SettingDef,
    value: &SettingValue,
    facts: Option<&Facts>,
    report: Option<&SettingReport>,
    now: Timestamp,
) -> Outcome {
    if let Some(outcome) = judge_by_facts(def.key, value, facts, now) {
        return outcome;
    }
    let Some(report) = report else {
        return unknown("the device has not reported on it");
    };
    match (report.state, &report.observed) {
        (SettingState::Verified, Some(observed)) if stricter(def, value, observed) == Some(true) => {
            Outcome::Noncompliant {
                reason: format!("{observed} is in force, {value} is asked for"),
            }
        }
        (
            SettingState::Verified
            | SettingState::Applied
            | SettingState::Weaker
            | SettingState::NotExpressible,
            _,
        ) => Outcome::Compliant,
        (SettingState::Pending, _) => unknown("it is being applied"),
        (SettingState::Failed, _) => Outcome::Noncompliant {
            reason: report
                .detail
                .clone()
                .unwrap_or_else(|| "the device could not put it in force".to_owned()),
        },
    }
}

/// Settings that are a question about the device rather than something to apply.
fn judge_by_facts(key: &str, value: &SettingValue, facts: Option<&Facts>, now: Timestamp) -> Option<Outcome> {
    let version = || facts.and_then(|facts| facts.os.version.as_deref());
    match (key, value) {
        ("os.min_version", SettingValue::Text(minimum)) => Some(match version() {
            None => unknown("the device has not sent its version"),
            Some(version) if compare_versions(version, minimum).is_lt() => Outcome::Noncompliant {
                reason: format!("the version is {version}, at least {minimum} is asked for"),
            },
            Some(_) => Outcome::Compliant,
        }),
        ("os.update.enforce", SettingValue::Object(members)) => {
            let (SettingValue::Text(wanted), SettingValue::Text(deadline)) =
                (members.get("version")?, members.get("deadline")?)
            else {
                return None;
            };
            let version = version()?;
            if compare_versions(version, wanted).is_ge() {
                Some(Outcome::Compliant)
            } else if deadline
                .parse::<Timestamp>()
                .is_ok_and(|deadline| deadline <= now)
            {
                Some(Outcome::Noncompliant {
                    reason: format!("the version is {version}, {wanted} was due by {deadline}"),
                })
            } else {
                None
            }
        }
        ("disk_encryption.required", SettingValue::Bool(true)) => match facts.and_then(all_encrypted)? {
            true => Some(Outcome::Compliant),
            false => Some(Outcome::Noncompliant {
                reason: "a fixed disk is not encrypted".to_owned(),
            }),
        },
        _ => None,
    }
}

/// What the verdict on a setting depends on besides the device's report.
pub fn setting_reads(key: &str) -> Option<Variable> {
    match key {
        "os.min_version" | "os.update.enforce" => Some(Variable::OsVersion),
        "disk_encryption.required" => Some(Variable::DisksAllEncrypted),
        _ => None,
    }
}

/// When the verdict on a setting may change by itself.
pub fn setting_deadline(key: &str, value: &SettingValue) -> Option<Timestamp> {
    match (key, value) {
        ("os.update.enforce", SettingValue::Object(members)) => match members.get("deadline")? {
            SettingValue::Text(deadline) => deadline.parse().ok(),
            _ => None,
        },
        _ => None,
    }
}

/// Judges one rule: what a device said, or what nobody knows yet.
pub fn judge_rule(rule: &Rule, subject: &Subject<'_>, now: Timestamp) -> Outcome {
    match rule.answer(subject, now) {
        Answer::True => Outcome::Compliant,
        Answer::False(reason) => Outcome::Noncompliant { reason },
        Answer::Unknown(reason) => Outcome::Unknown { reason },
    }
}

fn overall(
    verdicts: &[Verdict],
    policies: &[EvaluatedPolicy<'_>],
    in_force: &BTreeMap<String, SettingReport>,
    any_settings: bool,
) -> ComplianceState {
    let any = |test: fn(&Outcome) -> bool| verdicts.iter().any(|verdict| test(&verdict.outcome));
    if any(|outcome| matches!(outcome, Outcome::Noncompliant { .. })) {
        ComplianceState::Noncompliant
    } else if !policies.is_empty() && any_settings && in_force.is_empty() {
        ComplianceState::Pending
    } else if any(|outcome| matches!(outcome, Outcome::Unknown { .. })) {
        ComplianceState::Unknown
    } else {
        ComplianceState::Compliant
    }
}

fn unknown(reason: &str) -> Outcome {
    Outcome::Unknown {
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;
