//! The pure part: the shared evaluator, and how far an older report still counts.

use std::{collections::BTreeMap, sync::Arc};

use muster_model::{
    SettingReport, SettingState, Subject, Timestamp,
    compliance::ComplianceState,
    evaluate::{self, EffectiveSetting, EvaluatedPolicy, Evaluation},
};

use super::{ActivePolicy, Reported, Standing};

/// Evaluates a device. A report about other policies than the active ones counts only for settings that it verified with
/// the value that is wanted now; until the device has reported on the active ones it is pending at best.
pub fn evaluate(
    policies: &[Arc<ActivePolicy>],
    subject: &Subject<'_>,
    reported: &Reported,
    now: Timestamp,
) -> Standing {
    let evaluated: Vec<EvaluatedPolicy<'_>> = policies
        .iter()
        .map(|policy| EvaluatedPolicy {
            policy: policy.policy,
            version: &policy.version,
            generation: policy.generation,
            settings: &policy.settings,
            rules: &policy.rules,
        })
        .collect();
    let in_force = if reported.is_current {
        reported.settings.clone()
    } else {
        still_valid(&reported.settings, &evaluate::effective(&evaluated))
    };
    let evaluation = evaluate::evaluate(&evaluated, subject, &in_force, now);
    let state = overall(&evaluation, policies, reported.is_current);
    Standing {
        evaluation,
        in_force,
        state,
    }
}

fn still_valid(
    reports: &BTreeMap<String, SettingReport>,
    wanted: &BTreeMap<&'static str, EffectiveSetting>,
) -> BTreeMap<String, SettingReport> {
    let holds = |key: &str, report: &SettingReport| {
        report.state == SettingState::Verified
            && wanted
                .get(key)
                .is_some_and(|setting| report.observed.as_ref() == Some(&setting.value))
    };
    reports
        .iter()
        .filter(|(key, report)| holds(key, report))
        .map(|(key, report)| (key.clone(), report.clone()))
        .collect()
}

fn overall(evaluation: &Evaluation, policies: &[Arc<ActivePolicy>], is_current: bool) -> ComplianceState {
    let waits = !is_current && !evaluation.state.is_empty();
    match evaluation.compliance {
        ComplianceState::Noncompliant => ComplianceState::Noncompliant,
        ComplianceState::Compliant | ComplianceState::Unknown | ComplianceState::Pending if waits => {
            ComplianceState::Pending
        }
        // Of a policy whose bundle was edited behind our back, nobody can say what it wants.
        _ if policies.iter().any(|policy| !policy.is_intact) => ComplianceState::Unknown,
        state @ (ComplianceState::Compliant | ComplianceState::Unknown | ComplianceState::Pending) => state,
    }
}

#[cfg(test)]
mod tests {
    use muster_model::{
        Platform, PolicyId,
        rules::Rule,
        settings::{SettingValue, Settings},
    };
    use uuid::Uuid;

    use super::*;

    const LINUX: Subject<'static> = Subject::of_facts(Platform::Linux, None);

    fn policy(settings: &str, rules: &str) -> Arc<ActivePolicy> {
        Arc::new(ActivePolicy {
            policy: PolicyId::from_uuid(Uuid::from_u128(1)),
            version: "1".parse().expect("it is a label"),
            generation: 1,
            settings: Settings::parse(settings.as_bytes()).expect("the settings are valid"),
            rules: serde_json::from_str::<Vec<Rule>>(rules).expect("the rules are valid"),
            is_intact: true,
        })
    }

    fn reported(value: i64, state: SettingState, is_current: bool) -> Reported {
        let report = SettingReport {
            state,
            observed: Some(SettingValue::Int(value)),
            detail: None,
        };
        Reported {
            settings: BTreeMap::from([("passcode.min_length".to_owned(), report)]),
            is_current,
        }
    }

    fn state(policies: &[Arc<ActivePolicy>], reported: &Reported) -> ComplianceState {
        evaluate(policies, &LINUX, reported, Timestamp::from_micros(0)).state
    }

    #[test]
    fn a_current_report_decides() {
        let policies = [policy(r#"{"passcode.min_length":12}"#, "[]")];
        assert_eq!(
            state(&policies, &reported(12, SettingState::Verified, true)),
            ComplianceState::Compliant
        );
        assert_eq!(
            state(&policies, &reported(8, SettingState::Failed, true)),
            ComplianceState::Noncompliant
        );
    }

    #[test]
    fn a_device_is_pending_until_it_reported_on_the_active_policies() {
        let policies = [policy(r#"{"passcode.min_length":12}"#, "[]")];
        assert_eq!(state(&policies, &Reported::default()), ComplianceState::Pending);
        assert_eq!(
            state(&policies, &reported(12, SettingState::Verified, false)),
            ComplianceState::Pending
        );
        assert_eq!(
            state(&policies, &reported(8, SettingState::Failed, false)),
            ComplianceState::Pending
        );
    }

    #[test]
    fn an_older_report_still_shows_what_it_verified() {
        let policies = [policy(r#"{"passcode.min_length":12}"#, "[]")];
        let at = Timestamp::from_micros(0);
        let same = evaluate(
            &policies,
            &LINUX,
            &reported(12, SettingState::Verified, false),
            at,
        );
        let other = evaluate(&policies, &LINUX, &reported(8, SettingState::Verified, false), at);
        assert_eq!((same.in_force.len(), other.in_force.len()), (1, 0));
    }

    #[test]
    fn without_policies_there_is_nothing_to_break() {
        assert_eq!(state(&[], &Reported::default()), ComplianceState::Compliant);
    }

    #[test]
    fn a_rule_without_its_fact_is_unknown() {
        let rules = r#"[{"name":"os","check":{"fact":"os.version","op":"ge","value":"12"}}]"#;
        assert_eq!(
            state(&[policy("{}", rules)], &Reported::default()),
            ComplianceState::Unknown
        );
    }

    #[test]
    fn an_edited_bundle_makes_nobody_compliant() {
        let mut edited = policy("{}", "[]");
        Arc::make_mut(&mut edited).is_intact = false;
        assert_eq!(
            state(
                &[edited],
                &Reported {
                    is_current: true,
                    ..Reported::default()
                }
            ),
            ComplianceState::Unknown
        );
    }
}
