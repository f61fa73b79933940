//! Predictions of single devices, and that a prediction is what the evaluator says after the change.

use muster_model::{rules::Rule, settings::Settings};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const AT: Timestamp = Timestamp::from_micros(0);

fn id(number: u128) -> PolicyId {
    PolicyId::from_uuid(Uuid::from_u128(number))
}

fn policy(number: u128, settings: &str, rules: &str) -> Arc<ActivePolicy> {
    Arc::new(ActivePolicy {
        policy: id(number),
        version: "1".parse().expect("it is a label"),
        generation: u64::try_from(number).expect("it is small"),
        settings: Settings::parse(settings.as_bytes()).expect("the settings are valid"),
        rules: serde_json::from_str::<Vec<Rule>>(rules).expect("the rules are valid"),
        is_intact: true,
    })
}

fn instead_of(number: u128, replacement: Option<Arc<ActivePolicy>>) -> Hypothesis {
    Hypothesis {
        policy: id(number),
        replacement,
    }
}

fn linux() -> Subject<'static> {
    Subject::of_facts(Platform::Linux, None)
}

/// A report that every setting of the policies is in force.
fn all_verified(policies: &[Arc<ActivePolicy>]) -> Reported {
    let settings = evaluate::effective(&evaluated(policies)).into_iter();
    let settings = settings.map(|(key, setting)| {
        let report = SettingReport {
            state: SettingState::Verified,
            observed: Some(setting.value),
            detail: None,
        };
        (key.to_owned(), report)
    });
    Reported {
        settings: settings.collect(),
        is_current: true,
    }
}

fn text(change: &SettingChange) -> String {
    let value = |value: &Option<SettingValue>| value.as_ref().map_or("-".to_owned(), ToString::to_string);
    format!("{}: {} to {}", change.key, value(&change.from), value(&change.to))
}

fn changes(case: &Case) -> Vec<String> {
    case.changes.iter().map(text).collect()
}

#[test]
fn only_what_wins_is_a_change() {
    let now = [
        policy(1, r#"{"passcode.min_length":8,"camera.allowed":true}"#, "[]"),
        policy(2, r#"{"passcode.min_length":12}"#, "[]"),
    ];
    let newer = policy(1, r#"{"passcode.min_length":10,"camera.allowed":false}"#, "[]");
    let case = Case::of(&now, &instead_of(1, Some(newer)), true);
    assert_eq!(changes(&case), ["camera.allowed: true to false"]);
    let lost: Vec<_> = case.conflicts.iter().map(|conflict| conflict.key).collect();
    assert_eq!(
        lost,
        ["passcode.min_length"],
        "it asks for less than the other policy"
    );
}

#[test]
fn conflicts_of_others_are_not_its_conflicts() {
    let now = [
        policy(1, r#"{"passcode.min_length":8}"#, "[]"),
        policy(2, r#"{"passcode.min_length":12}"#, "[]"),
    ];
    let third = policy(3, r#"{"camera.allowed":false}"#, "[]");
    assert_eq!(Case::of(&now, &instead_of(3, Some(third)), true).conflicts, []);
}

#[test]
fn a_device_outside_of_the_target_loses_the_policy() {
    let now = [policy(1, r#"{"camera.allowed":false}"#, "[]")];
    let newer = policy(1, r#"{"camera.allowed":false,"passcode.min_length":10}"#, "[]");
    let hypothesis = instead_of(1, Some(newer));
    let outside = Case::of(&now, &hypothesis, false);
    assert!(outside.is_touched() && outside.holds && !outside.gets);
    assert_eq!(changes(&outside), ["camera.allowed: false to -"]);
    assert!(!Case::of(&[], &hypothesis, false).is_touched());
    let withdrawn = Case::of(&now, &instead_of(1, None), true);
    assert_eq!(changes(&withdrawn), ["camera.allowed: false to -"]);
}

#[test]
fn a_rule_is_judged_by_what_is_known() {
    let facts: muster_model::facts::Facts = serde_json::from_str(
        r#"{"hardware":{},"os":{"id":"debian","version":"12.4"},"collected_at":"2026-01-01T00:00:00Z"}"#,
    )
    .expect("they are facts");
    let rules = r#"[{"name":"os","check":{"fact":"os.version","op":"ge","value":"13"}}]"#;
    let case = Case::of(&[], &instead_of(1, Some(policy(1, "{}", rules))), true);
    let known = Subject::of_facts(Platform::Linux, Some(&facts));
    let judged = case.judge(&known, &all_verified(&[]), AT);
    assert_eq!(
        (judged.now, judged.then),
        (ComplianceState::Compliant, ComplianceState::Noncompliant)
    );
    assert_eq!(judged.reasons.len(), 1);
    assert!(judged.reasons[0].why.contains("12.4"), "{:?}", judged.reasons);
    let unknown = case.judge(&linux(), &all_verified(&[]), AT);
    assert_eq!(unknown.then, ComplianceState::Unknown);
}

#[test]
fn what_stays_is_judged_by_what_the_device_said() {
    let now = [policy(
        1,
        r#"{"camera.allowed":false,"passcode.min_length":8}"#,
        "[]",
    )];
    let mut reported = all_verified(&now);
    let failed = reported
        .settings
        .get_mut("camera.allowed")
        .expect("it is reported");
    failed.state = SettingState::Failed;
    let longer = policy(1, r#"{"camera.allowed":false,"passcode.min_length":10}"#, "[]");
    let judged = Case::of(&now, &instead_of(1, Some(longer)), true).judge(&linux(), &reported, AT);
    assert_eq!(
        judged.then,
        ComplianceState::Noncompliant,
        "the camera still fails"
    );
    assert_eq!(judged.reasons, [], "and that is no news");
    let without = policy(1, r#"{"passcode.min_length":10}"#, "[]");
    let judged = Case::of(&now, &instead_of(1, Some(without)), true).judge(&linux(), &reported, AT);
    assert_eq!(judged.then, ComplianceState::Compliant);
    assert_eq!(judged.reasons[0].subject, "camera.allowed");
}

#[test]
fn secrets_are_not_shown() {
    let wifi = |passphrase: &str| {
        let settings = format!(
            r#"{{"wifi.networks":[{{"ssid":"a","security":"wpa-psk","passphrase":"{passphrase}"}}]}}"#
        );
        policy(1, &settings, "[]")
    };
    let case = Case::of(
        &[wifi("correct horse")],
        &instead_of(1, Some(wifi("battery staple"))),
        true,
    );
    let shown = changes(&case).join(" ");
    assert!(
        shown.starts_with("wifi.networks"),
        "another passphrase is a change"
    );
    assert!(!shown.contains("horse") && !shown.contains("staple"), "{shown}");
}

#[test]
fn a_platform_that_cannot_is_counted_as_such() {
    let asked = policy(1, r#"{"passcode.min_length":12}"#, "[]");
    let case = Case::of(&[], &instead_of(1, Some(Arc::clone(&asked))), true);
    for platform in Platform::ALL {
        let def = definition("passcode.min_length").expect("it is in the catalogue");
        let expected = def.support_for(platform, asked.settings.get(def.key).expect("it is asked"));
        let found: Vec<_> = case.support(id(1), platform).collect();
        assert_eq!(found, [(def.key, expected)], "{platform:?}");
    }
}

fn some_policy(number: u128) -> impl Strategy<Value = Option<Arc<ActivePolicy>>> {
    let setting = prop_oneof![
        (4_u8..16).prop_map(|length| format!(r#""passcode.min_length":{length}"#)),
        any::<bool>().prop_map(|allowed| format!(r#""camera.allowed":{allowed}"#)),
        any::<bool>().prop_map(|allowed| format!(r#""bluetooth.allowed":{allowed}"#)),
        prop_oneof![Just("readonly"), Just("deny"), Just("allow")]
            .prop_map(|word| format!(r#""usb.storage":"{word}""#)),
    ];
    let document = proptest::collection::btree_map(0_u8..4, setting, 0..4);
    let settings = document.prop_map(move |parts| {
        let mut keys = std::collections::BTreeSet::new();
        let parts: Vec<String> = parts
            .into_values()
            .filter(|part| keys.insert(part.split(':').next().unwrap_or_default().to_owned()))
            .collect();
        policy(number, &format!("{{{}}}", parts.join(",")), "[]")
    });
    proptest::option::of(settings)
}

proptest! {
    /// Whatever the policies: the predicted changes lead from the values of now to those of then, and the predicted word is
    /// what the evaluator says of a device that then reports everything in force.
    #[test]
    fn a_prediction_is_the_outcome(
        first in some_policy(1), second in some_policy(2), newer in some_policy(1), is_targeted in any::<bool>(),
        platform in proptest::sample::select(Platform::ALL.to_vec()),
    ) {
        let now: Vec<_> = first.iter().chain(&second).map(Arc::clone).collect();
        let then: Vec<_> = second.iter().chain(newer.as_ref().filter(|_| is_targeted)).map(Arc::clone).collect();
        let case = Case::of(&now, &instead_of(1, newer), is_targeted);
        let mut values: BTreeMap<_, _> = evaluate::effective(&evaluated(&now))
            .into_iter()
            .map(|(key, setting)| (key, setting.value))
            .collect();
        for change in &case.changes {
            prop_assert_eq!(values.get(change.key), change.from.as_ref());
            prop_assert_ne!(&change.from, &change.to);
            match &change.to {
                Some(value) => { values.insert(change.key, value.clone()); }
                None => { values.remove(change.key); }
            }
        }
        let outcome: BTreeMap<_, _> = evaluate::effective(&evaluated(&then))
            .into_iter()
            .map(|(key, setting)| (key, setting.value))
            .collect();
        prop_assert_eq!(values, outcome);
        let subject = Subject::of_facts(platform, None);
        let judged = case.judge(&subject, &all_verified(&now), AT);
        prop_assert_eq!(judged.then, compliance::evaluate(&then, &subject, &all_verified(&then), AT).state);
    }
}
