//! The evaluator on policies, facts and reports.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{
    facts::{Disk, Hardware, OsFacts},
    settings::tests::some_settings,
};

const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

fn facts(version: Option<&str>, encrypted: Option<bool>) -> Facts {
    Facts {
        hardware: Hardware::default(),
        os: OsFacts {
            version: version.map(str::to_owned),
            ..OsFacts::default()
        },
        disks: vec![Disk {
            name: "sda".to_owned(),
            size_bytes: 1,
            encrypted,
            removable: false,
        }],
        interfaces: Vec::new(),
        users: Vec::new(),
        packages: Vec::new(),
        agent_version: None,
        collected_at: NOW,
    }
}

fn report(state: SettingState, observed: Option<SettingValue>) -> SettingReport {
    SettingReport {
        state,
        observed,
        detail: None,
    }
}

fn reports(all: &[(&str, SettingState)]) -> BTreeMap<String, SettingReport> {
    let one = |(key, state): &(&str, SettingState)| ((*key).to_owned(), report(*state, None));
    all.iter().map(one).collect()
}

fn evaluated(
    settings: &str,
    rules: &str,
    facts: Option<&Facts>,
    in_force: &BTreeMap<String, SettingReport>,
    platform: Platform,
) -> Evaluation {
    let settings = Settings::parse(settings.as_bytes()).expect("the settings are valid");
    let rules: Vec<Rule> = serde_json::from_str(rules).expect("the rules are valid");
    let policy = EvaluatedPolicy {
        policy: PolicyId::from_uuid(Uuid::from_u128(1)),
        version: &"1".parse().expect("1 is a version"),
        generation: 1,
        settings: &settings,
        rules: &rules,
    };
    evaluate(&[policy], &Subject::of_facts(platform, facts), in_force, NOW)
}

fn judged(settings: &str, reported: &[(&str, SettingState)], facts: Option<&Facts>) -> ComplianceState {
    evaluated(settings, "[]", facts, &reports(reported), Platform::Linux).compliance
}

#[test]
fn verdicts_follow_the_report() {
    let json = r#"{"camera.allowed":false,"bluetooth.allowed":false}"#;
    assert_eq!(judged("{}", &[], None), ComplianceState::Compliant);
    assert_eq!(judged(json, &[], None), ComplianceState::Pending);
    for (state, expected) in [
        (SettingState::Verified, ComplianceState::Compliant),
        (SettingState::Applied, ComplianceState::Compliant),
        (SettingState::Weaker, ComplianceState::Compliant),
        (SettingState::NotExpressible, ComplianceState::Compliant),
        (SettingState::Pending, ComplianceState::Unknown),
        (SettingState::Failed, ComplianceState::Noncompliant),
    ] {
        let reported = [
            ("bluetooth.allowed", SettingState::Verified),
            ("camera.allowed", state),
        ];
        assert_eq!(judged(json, &reported, None), expected, "{state:?}");
    }
    let half = [("camera.allowed", SettingState::Verified)];
    assert_eq!(judged(json, &half, None), ComplianceState::Unknown);
}

#[test]
fn a_verified_value_that_is_looser_than_asked_for_is_not_compliant() {
    for (observed, expected) in [
        (8, ComplianceState::Noncompliant),
        (12, ComplianceState::Compliant),
        (14, ComplianceState::Compliant),
    ] {
        let report = report(SettingState::Verified, Some(SettingValue::Int(observed)));
        let in_force = BTreeMap::from([("passcode.min_length".to_owned(), report)]);
        let json = r#"{"passcode.min_length":12}"#;
        let evaluation = evaluated(json, "[]", None, &in_force, Platform::Linux);
        assert_eq!(evaluation.compliance, expected, "{observed}");
    }
}

#[test]
fn versions_are_judged_by_the_devices_own() {
    let json = r#"{"os.min_version":"12.5"}"#;
    let applied = [("os.min_version", SettingState::Applied)];
    for (version, expected) in [
        (Some("12.4"), ComplianceState::Noncompliant),
        (Some("12.10"), ComplianceState::Compliant),
        (None, ComplianceState::Unknown),
    ] {
        let facts = facts(version, None);
        assert_eq!(judged(json, &applied, Some(&facts)), expected, "{version:?}");
    }
}

#[test]
fn an_update_is_due_from_its_deadline_on() {
    let key = "os.update.enforce";
    let due = |seconds: i64| {
        let deadline = Timestamp::from_unix_seconds(NOW.as_unix_seconds() + seconds);
        let json = format!(r#"{{"{key}":{{"version":"12.5","deadline":"{deadline}"}}}}"#);
        judged(
            &json,
            &[(key, SettingState::Applied)],
            Some(&facts(Some("12.4"), None)),
        )
    };
    assert_eq!(due(1), ComplianceState::Compliant);
    assert_eq!(due(0), ComplianceState::Noncompliant);
}

#[test]
fn disks_are_judged_by_the_facts_where_they_say() {
    let json = r#"{"disk_encryption.required":true}"#;
    let failed = [("disk_encryption.required", SettingState::Failed)];
    for (encrypted, expected) in [
        (Some(true), ComplianceState::Compliant),
        (Some(false), ComplianceState::Noncompliant),
        (None, ComplianceState::Noncompliant),
    ] {
        let facts = facts(None, encrypted);
        assert_eq!(judged(json, &failed, Some(&facts)), expected, "{encrypted:?}");
    }
}

#[test]
fn a_rule_without_its_fact_is_unknown_and_names_its_policy() {
    let rules = r#"[{"name":"current","check":{"fact":"os.version","op":"ge","value":"12"}}]"#;
    let of = |facts: Option<&Facts>| evaluated("{}", rules, facts, &BTreeMap::new(), Platform::Linux);
    assert_eq!(of(None).compliance, ComplianceState::Unknown);
    assert_eq!(
        of(Some(&facts(Some("12"), None))).compliance,
        ComplianceState::Compliant
    );
    let behind = of(Some(&facts(Some("11"), None)));
    assert_eq!(behind.compliance, ComplianceState::Noncompliant);
    assert_eq!(
        (
            behind.verdicts[0].subject.as_str(),
            behind.verdicts[0].from.uuid().as_u128()
        ),
        ("current", 1)
    );
}

#[test]
fn a_setting_that_the_platform_cannot_carry_is_a_gap() {
    let json = r#"{"screen_capture.allowed":false,"camera.allowed":false,"passcode.min_length":17}"#;
    let gaps = |platform| {
        let evaluation = evaluated(json, "[]", None, &BTreeMap::new(), platform);
        evaluation.gaps.iter().map(|gap| gap.key).collect::<Vec<_>>()
    };
    assert_eq!(gaps(Platform::Linux), ["screen_capture.allowed"]);
    assert_eq!(gaps(Platform::Macos), ["passcode.min_length"]);
}

#[test]
fn verdicts_have_a_stable_wire_form() {
    let verdict = Verdict {
        subject: "camera.allowed".to_owned(),
        from: PolicyId::from_uuid(Uuid::from_u128(1)),
        outcome: unknown("why"),
    };
    assert_eq!(
        serde_json::to_string(&verdict).expect("it has a text form"),
        r#"{"subject":"camera.allowed","from":"pol_00000000000000000000000000000001","outcome":"unknown","reason":"why"}"#
    );
}

fn any_state() -> impl Strategy<Value = SettingState> {
    proptest::sample::select(vec![
        SettingState::Pending,
        SettingState::Applied,
        SettingState::Verified,
        SettingState::Weaker,
        SettingState::NotExpressible,
        SettingState::Failed,
    ])
}

proptest! {
    #[test]
    fn evaluating_is_deterministic_and_complete(
        all in proptest::collection::vec(some_settings(), 0..4),
        states in proptest::collection::vec(any_state(), 44),
        version in proptest::option::of("[0-9]{1,2}\\.[0-9]"),
        platform in proptest::sample::select(Platform::ALL.to_vec()),
    ) {
        let label: VersionLabel = "1".parse().expect("1 is a version");
        let policy = |(settings, id)| EvaluatedPolicy {
            policy: PolicyId::from_uuid(Uuid::from_u128(id)),
            version: &label,
            generation: 1,
            settings,
            rules: &[],
        };
        let policies: Vec<_> = all.iter().zip(1..).map(policy).collect();
        let backward: Vec<_> = policies.iter().rev().copied().collect();
        let in_force: BTreeMap<String, SettingReport> = crate::settings::catalogue()
            .iter()
            .zip(states)
            .map(|(def, state)| (def.key.to_owned(), report(state, None)))
            .collect();
        let facts = facts(version.as_deref(), None);
        let subject = Subject::of_facts(platform, Some(&facts));
        let one = evaluate(&policies, &subject, &in_force, NOW);
        prop_assert_eq!(&one, &evaluate(&policies, &subject, &in_force, NOW));
        prop_assert_eq!(&one, &evaluate(&backward, &subject, &in_force, NOW));
        let subjects: Vec<_> = one.verdicts.iter().map(|verdict| verdict.subject.as_str()).collect();
        prop_assert_eq!(subjects, one.state.keys().copied().collect::<Vec<_>>());
    }
}
