//! The one evaluator: what policies mean for a device, and whether the device complies. Server, agent, command line and
//! simulator all call it; it has no I/O and gives the same answer for the same input.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    compliance::ComplianceState,
    facts::Facts,
    id::PolicyId,
    platform::Platform,
    report::{SettingReport, SettingState},
    rules::{Answer, Rule, all_encrypted, compare_versions},
    settings::{MergeRule, SettingDef, SettingKind, SettingValue, Settings, Support, definition},
    text::VersionLabel,
    time::Timestamp,
};

/// A policy version that applies to the device.
#[derive(Debug, Clone, Copy)]
pub struct EvaluatedPolicy<'a> {
    pub policy: PolicyId,
    pub version: &'a VersionLabel,
    pub generation: u64,
    pub settings: &'a Settings,
    pub rules: &'a [Rule],
}

/// The value that is to be in force, and whose it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EffectiveSetting {
    pub value: SettingValue,
    /// The policy that decided.
    pub from: PolicyId,
    /// Policies that asked for another value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overruled: Vec<PolicyId>,
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
/// `now` is when the question is asked, for rules about time.
pub fn evaluate(
    policies: &[EvaluatedPolicy<'_>],
    facts: Option<&Facts>,
    in_force: &BTreeMap<String, SettingReport>,
    platform: Platform,
    _now: Timestamp,
) -> Evaluation {
    let state = effective(policies);
    let gaps = state
        .keys()
        .filter_map(|key| definition(key))
        .filter_map(|def| gap(def, platform))
        .collect();
    let mut verdicts: Vec<Verdict> = state
        .iter()
        .map(|(key, setting)| Verdict {
            subject: (*key).to_owned(),
            from: setting.from,
            outcome: judge_setting(key, &setting.value, facts, in_force.get(*key)),
        })
        .collect();
    let mut ordered: Vec<&EvaluatedPolicy<'_>> = policies.iter().collect();
    ordered.sort_by_key(|policy| policy.policy);
    for policy in ordered {
        verdicts.extend(policy.rules.iter().map(|rule| Verdict {
            subject: rule.name.to_string(),
            from: policy.policy,
            outcome: judge_rule(rule, facts),
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

/// The value of every setting after the merge rules.
pub fn effective(policies: &[EvaluatedPolicy<'_>]) -> BTreeMap<&'static str, EffectiveSetting> {
    let mut ordered: Vec<&EvaluatedPolicy<'_>> = policies.iter().collect();
    ordered.sort_by_key(|policy| policy.policy);
    let mut state: BTreeMap<&'static str, EffectiveSetting> = BTreeMap::new();
    for policy in ordered {
        for (key, value) in policy.settings.iter() {
            let Some(def) = definition(key) else { continue };
            match state.get_mut(key) {
                None => {
                    let setting = EffectiveSetting {
                        value: value.clone(),
                        from: policy.policy,
                        overruled: Vec::new(),
                    };
                    state.insert(key, setting);
                }
                Some(setting) => merge(def, setting, value, policy.policy),
            }
        }
    }
    state
}

fn merge(def: &SettingDef, setting: &mut EffectiveSetting, value: &SettingValue, policy: PolicyId) {
    if setting.value == *value {
        return;
    }
    if def.merge == MergeRule::Union {
        if let (SettingValue::List(held), SettingValue::List(more)) = (&mut setting.value, value) {
            held.extend(
                more.iter()
                    .filter(|item| !held.contains(item))
                    .cloned()
                    .collect::<Vec<_>>(),
            );
            held.sort();
        }
        return;
    }
    if stricter(def, value, &setting.value) {
        setting.overruled.push(setting.from);
        setting.value = value.clone();
        setting.from = policy;
    } else {
        setting.overruled.push(policy);
    }
}

/// Whether `new` wins over `held` under the setting's merge rule.
fn stricter(def: &SettingDef, new: &SettingValue, held: &SettingValue) -> bool {
    let rank = |value: &SettingValue| match value {
        SettingValue::Bool(value) => i64::from(*value),
        SettingValue::Int(value) => *value,
        SettingValue::Text(_) | SettingValue::List(_) | SettingValue::Object(_) => 0,
    };
    match def.merge {
        MergeRule::Highest => rank(new) > rank(held),
        MergeRule::Lowest => rank(new) < rank(held),
        MergeRule::LowestNonzero => rank(new) != 0 && (rank(held) == 0 || rank(new) < rank(held)),
        MergeRule::LatestWord => word_rank(def, new) > word_rank(def, held),
        MergeRule::HighestVersion => match (new, held) {
            (SettingValue::Text(new), SettingValue::Text(held)) => compare_versions(new, held).is_gt(),
            _ => false,
        },
        MergeRule::Union | MergeRule::FirstPolicy => false,
    }
}

fn word_rank(def: &SettingDef, value: &SettingValue) -> Option<usize> {
    match (&def.kind, value) {
        (SettingKind::Enum(words), SettingValue::Text(word)) => words.iter().position(|known| known == word),
        _ => None,
    }
}

fn gap(def: &SettingDef, platform: Platform) -> Option<Gap> {
    match def.support_on(platform) {
        Support::Exact => None,
        support @ (Support::Weaker(_) | Support::NotExpressible(_) | Support::NeedsAgent(_)) => Some(Gap {
            key: def.key,
            support,
        }),
    }
}

fn judge_setting(
    key: &str,
    value: &SettingValue,
    facts: Option<&Facts>,
    report: Option<&SettingReport>,
) -> Outcome {
    if let Some(outcome) = judge_by_facts(key, value, facts) {
        return outcome;
    }
    let Some(report) = report else {
        return unknown("the device has not reported on it");
    };
    let detail = || {
        report
            .detail
            .clone()
            .unwrap_or_else(|| format!("the device says {}", report.state.as_str()))
    };
    match report.state {
        SettingState::Verified
        | SettingState::Applied
        | SettingState::Weaker
        | SettingState::NotExpressible => Outcome::Compliant,
        SettingState::Pending => unknown("it is being applied"),
        SettingState::Failed => Outcome::Noncompliant { reason: detail() },
    }
}

/// Settings that are a question about the device rather than something to apply.
fn judge_by_facts(key: &str, value: &SettingValue, facts: Option<&Facts>) -> Option<Outcome> {
    match (key, value) {
        ("os.min_version", SettingValue::Text(minimum)) => {
            let Some(version) = facts.and_then(|facts| facts.os.version.as_deref()) else {
                return Some(unknown("the device has not sent its version"));
            };
            Some(if compare_versions(version, minimum).is_lt() {
                Outcome::Noncompliant {
                    reason: format!("the version is {version}, at least {minimum} is asked for"),
                }
            } else {
                Outcome::Compliant
            })
        }
        ("disk_encryption.required", SettingValue::Bool(true)) => match facts.and_then(all_encrypted) {
            Some(true) => Some(Outcome::Compliant),
            Some(false) => Some(Outcome::Noncompliant {
                reason: "a fixed disk is not encrypted".to_owned(),
            }),
            None => None,
        },
        _ => None,
    }
}

fn judge_rule(rule: &Rule, facts: Option<&Facts>) -> Outcome {
    match rule.check.answer(facts) {
        Answer::True => Outcome::Compliant,
        Answer::False(reason) => Outcome::Noncompliant { reason },
        Answer::Unknown => unknown("the device has not sent the fact"),
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
mod tests {
    use uuid::Uuid;

    use super::*;

    fn settings(json: &str) -> Settings {
        Settings::parse(json.as_bytes()).expect("the settings are valid")
    }

    fn version() -> VersionLabel {
        VersionLabel::parse("1").expect("1 is a version")
    }

    fn policy<'a>(id: u128, settings: &'a Settings, version: &'a VersionLabel) -> EvaluatedPolicy<'a> {
        EvaluatedPolicy {
            policy: PolicyId::from_uuid(Uuid::from_u128(id)),
            version,
            generation: 1,
            settings,
            rules: &[],
        }
    }

    fn report(state: SettingState) -> SettingReport {
        SettingReport {
            state,
            observed: None,
            detail: None,
        }
    }

    fn judged(json: &str, reports: &[(&str, SettingState)]) -> ComplianceState {
        let (settings, version) = (settings(json), version());
        let in_force = reports
            .iter()
            .map(|(key, state)| ((*key).to_owned(), report(*state)))
            .collect();
        let policies = [policy(1, &settings, &version)];
        evaluate(&policies, None, &in_force, Platform::Linux, Timestamp::default()).compliance
    }

    #[test]
    fn the_stricter_value_wins_and_says_whose_it_is() {
        let (loose, strict, version) = (
            settings(
                r#"{"passcode.min_length":8,"usb.storage":"readonly","passcode.max_age_days":0,"camera.allowed":true}"#,
            ),
            settings(
                r#"{"passcode.min_length":12,"usb.storage":"deny","passcode.max_age_days":90,"camera.allowed":false}"#,
            ),
            version(),
        );
        for policies in [
            [policy(1, &loose, &version), policy(2, &strict, &version)],
            [policy(2, &strict, &version), policy(1, &loose, &version)],
        ] {
            let state = effective(&policies);
            assert!(
                state.values().all(|setting| setting.from.uuid().as_u128() == 2),
                "{state:?}"
            );
        }
    }

    #[test]
    fn lists_are_united() {
        let (one, two, version) = (
            settings(r#"{"apps.blocked":["b","a"]}"#),
            settings(r#"{"apps.blocked":["c","a"]}"#),
            version(),
        );
        let state = effective(&[policy(1, &one, &version), policy(2, &two, &version)]);
        assert_eq!(state["apps.blocked"].value.to_string(), r#"["a","b","c"]"#);
    }

    #[test]
    fn verdicts_follow_the_report() {
        let json = r#"{"camera.allowed":false}"#;
        assert_eq!(judged(json, &[]), ComplianceState::Pending);
        assert_eq!(
            judged(json, &[("camera.allowed", SettingState::Verified)]),
            ComplianceState::Compliant
        );
        assert_eq!(
            judged(json, &[("camera.allowed", SettingState::Failed)]),
            ComplianceState::Noncompliant
        );
        assert_eq!(judged("{}", &[]), ComplianceState::Compliant);
    }

    #[test]
    fn a_setting_that_the_platform_cannot_carry_is_a_gap() {
        let (settings, version) = (
            settings(r#"{"screen_capture.allowed":false,"camera.allowed":false}"#),
            version(),
        );
        let evaluation = evaluate(
            &[policy(1, &settings, &version)],
            None,
            &BTreeMap::new(),
            Platform::Linux,
            Timestamp::default(),
        );
        assert_eq!(
            evaluation.gaps.iter().map(|gap| gap.key).collect::<Vec<_>>(),
            ["screen_capture.allowed"]
        );
    }

    proptest::proptest! {
        #[test]
        fn the_order_of_policies_does_not_matter(lengths in proptest::collection::vec(0_i64..64, 1..6)) {
            let version = version();
            let all: Vec<Settings> = lengths.iter().map(|n| settings(&format!(r#"{{"passcode.min_length":{n}}}"#))).collect();
            let forward: Vec<_> = all.iter().enumerate().map(|(id, s)| policy(id as u128, s, &version)).collect();
            let backward: Vec<_> = forward.iter().rev().copied().collect();
            proptest::prop_assert_eq!(effective(&forward), effective(&backward));
        }
    }
}
