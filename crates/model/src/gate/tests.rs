//! What a gate says in typical stages, and what holds for every rule and count.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{statistics::Ppm, text::Name};

fn stage(devices: u64, verified: u64, failed: u64, silent: u64) -> Observation {
    Observation {
        devices,
        verified,
        failed,
        silent,
        pending: devices - verified - failed - silent,
        ..Observation::default()
    }
}

#[track_caller]
fn check(rule: &GateRule, observation: &Observation, wanted: Verdict, reason: &str) {
    let decision = decide(rule, observation);
    assert_eq!((decision.verdict, decision.reason.as_str()), (wanted, reason));
    assert_eq!(verdict(rule, observation), wanted);
}

#[test]
fn a_point_gate_waits_for_all_and_compares() {
    let rule = GateRule::default_point();
    check(
        &rule,
        &stage(0, 0, 0, 0),
        Verdict::Pass,
        "the stage has no devices",
    );
    check(
        &rule,
        &stage(600, 0, 0, 0),
        Verdict::Wait,
        "none of 600 devices has answered",
    );
    check(
        &rule,
        &stage(600, 500, 2, 0),
        Verdict::Wait,
        "2 of 502 devices failed (0.3984 %); 98 are still to answer",
    );
    check(
        &rule,
        &stage(1000, 996, 1, 3),
        Verdict::Pass,
        "4 of 1000 devices failed, 3 of them silent (0.4 %); the rate must stay below 0.5 %",
    );
    check(
        &rule,
        &stage(1000, 995, 5, 0),
        Verdict::Fail,
        "5 of 1000 devices failed (0.5 %); the rate must stay below 0.5 %",
    );
}

#[test]
fn a_point_gate_stops_as_soon_as_failing_is_certain() {
    let rule = GateRule::default_point();
    check(
        &rule,
        &stage(600, 10, 2, 1),
        Verdict::Fail,
        "3 of 13 devices failed, 1 of them silent (23.0769 %); 3 of 600 is not below 0.5 %, even if the 587 that are still to answer verify",
    );
    assert_eq!(verdict(&rule, &stage(601, 10, 2, 1)), Verdict::Wait);
}

#[test]
fn an_exact_gate_needs_598_devices_without_failure() {
    let rule = GateRule::by(GateMethod::Exact);
    check(
        &rule,
        &stage(598, 598, 0, 0),
        Verdict::Pass,
        "0 of 598 devices failed (0 %); at 95 % the rate is below 0.4997 %, the limit is 0.5 %",
    );
    check(
        &rule,
        &stage(597, 597, 0, 0),
        Verdict::Inconclusive,
        "0 of 597 devices failed (0 %); at 95 % the rate is above 0 %, and below 0.5005 %, the limit is 0.5 %",
    );
    assert_eq!(rule.can_ever_pass(598), Ok(()));
    let too_small = rule
        .can_ever_pass(100)
        .expect_err("100 devices show less than 2.95 %");
    assert_eq!(too_small.needed, 598);
    assert_eq!(
        too_small.to_string(),
        "a stage of 100 devices can never pass this exact gate: without any failure it needs 598"
    );
}

#[test]
fn an_exact_gate_is_judged_when_all_have_answered() {
    let rule = GateRule::by(GateMethod::Exact);
    assert_eq!(verdict(&rule, &stage(5000, 4000, 5, 0)), Verdict::Wait);
    check(
        &rule,
        &stage(700, 600, 1, 0),
        Verdict::Wait,
        "1 of 601 devices failed (0.1664 %); 99 are still to answer, but with 1 failed, 700 devices cannot show a rate below 0.5 %",
    );
    check(
        &rule,
        &stage(1000, 60, 11, 0),
        Verdict::Fail,
        "11 of 71 devices failed (15.493 %); the rate is above 0.5 % at 95 % even if the 929 that are still to answer verify",
    );
    let early = decide(&rule, &stage(10_000, 60, 4, 0));
    assert_eq!(early.verdict, Verdict::Fail);
    assert!(
        early.reason.contains("evidence that holds at every look"),
        "{}",
        early.reason
    );
}

#[test]
fn a_sequential_gate_passes_and_fails_at_its_boundaries() {
    let rule = eager(GateMethod::Sequential);
    assert_eq!(verdict(&rule, &stage(5000, 1173, 0, 0)), Verdict::Wait);
    check(
        &rule,
        &stage(5000, 1174, 0, 0),
        Verdict::Pass,
        "0 of 1174 devices failed (0 %); the log-likelihood ratio is −2.946, the stage passes at −2.944 and fails at 2.944",
    );
    assert_eq!(verdict(&rule, &stage(5000, 90, 5, 0)), Verdict::Fail);
    assert_eq!(verdict(&rule, &stage(1000, 1000, 0, 0)), Verdict::Inconclusive);
    assert_eq!(rule.can_ever_pass(1173).map_err(|small| small.needed), Err(1174));
    // Past the truncation the sign decides.
    let truncated = decide(&rule, &stage(100_000, 14_905, 55, 0));
    assert_eq!(truncated.verdict, Verdict::Fail);
    assert!(truncated.reason.ends_with("devices on"), "{}", truncated.reason);
}

#[test]
fn an_anytime_gate_passes_before_all_have_answered() {
    let rule = eager(GateMethod::Anytime);
    let needed = rule.smallest_stage();
    assert_eq!(verdict(&rule, &stage(5000, needed - 1, 0, 0)), Verdict::Wait);
    let passed = decide(&rule, &stage(5000, needed, 0, 0));
    assert_eq!(passed.verdict, Verdict::Pass);
    assert!(passed.upper_ppb <= 5_000_000, "{passed:?}");
    let failed = decide(&rule, &stage(5000, 200, 6, 0));
    assert_eq!(failed.verdict, Verdict::Fail);
    assert!(failed.lower_ppb >= 5_000_000, "{failed:?}");
    assert_eq!(verdict(&rule, &stage(100, 100, 0, 0)), Verdict::Inconclusive);
}

/// A setting that cuts devices off: those that are left all verify.
#[test]
fn a_pass_waits_for_the_silent_unless_told_otherwise() {
    for method in [GateMethod::Sequential, GateMethod::Anytime] {
        let so_far = stage(2000, 1400, 0, 0);
        assert_eq!(verdict(&eager(method), &so_far), Verdict::Pass);
        let rule = GateRule::by(method);
        assert_eq!(verdict(&rule, &so_far), Verdict::Wait);
        assert_eq!(verdict(&rule, &stage(2000, 1400, 0, 600)), Verdict::Fail);
        assert_eq!(verdict(&rule, &stage(2000, 2000, 0, 0)), Verdict::Pass);
    }
    check(
        &GateRule::by(GateMethod::Anytime),
        &stage(2000, 1400, 0, 0),
        Verdict::Wait,
        "0 of 1400 devices failed (0 %); 600 are still to answer, at 95 % the rate is above 0 %, and below 0.2702 %, the limit is 0.5 %",
    );
}

#[test]
fn thirty_percent_silent_fails_by_every_method() {
    for method in METHODS {
        let decision = decide(&GateRule::by(method), &stage(1000, 700, 0, 300));
        assert_eq!(decision.verdict, Verdict::Fail, "{decision:?}");
        assert_eq!((decision.failed, decision.silent), (300, 300));
    }
}

#[test]
fn a_pass_waits_for_soak_and_sample() {
    let rule = GateRule {
        min_soak_seconds: 3600,
        min_sample: 200,
        ..GateRule::default_point()
    };
    let open_for = |soaked_seconds, observation| Observation {
        soaked_seconds,
        ..observation
    };
    check(
        &rule,
        &open_for(3599, stage(200, 200, 0, 0)),
        Verdict::Wait,
        "0 of 200 devices failed (0 %); the stage has been open 3599 of 3600 seconds",
    );
    assert_eq!(
        verdict(&rule, &open_for(3600, stage(200, 200, 0, 0))),
        Verdict::Pass
    );
    check(
        &rule,
        &open_for(3600, stage(199, 199, 0, 0)),
        Verdict::Inconclusive,
        "0 of 199 devices failed (0 %); the rule wants at least 200 answers, there are 199",
    );
    assert_eq!(verdict(&rule, &open_for(0, stage(200, 100, 1, 0))), Verdict::Fail);
    assert_eq!(rule.can_ever_pass(199).map_err(|small| small.needed), Err(200));
}

#[test]
fn every_objective_can_fail_a_gate() {
    let rule = GateRule {
        slos: vec![SloRule {
            name: Name::parse("checkin_loss").expect("a name"),
            limit: Ppm::known(20_000),
        }],
        ..GateRule::default_point()
    };
    let with = |count, of, pending: u64| Observation {
        slos: vec![SloObservation {
            name: "checkin_loss".to_owned(),
            count,
            of,
        }],
        ..stage(1000, 1000 - pending, 0, 0)
    };
    assert_eq!(verdict(&rule, &with(19, 1000, 0)), Verdict::Pass);
    // At its limit: fails where the stage would pass, and not before.
    check(
        &rule,
        &with(20, 1000, 0),
        Verdict::Fail,
        "checkin_loss: 20 of 1000, the limit is 2 %",
    );
    assert_eq!(verdict(&rule, &with(20, 1000, 1)), Verdict::Wait);
    // Far above: at once.
    assert_eq!(verdict(&rule, &with(60, 1000, 1)), Verdict::Fail);
    assert_eq!(verdict(&rule, &with(60, 1000, 1000)), Verdict::Fail);
    check(
        &rule,
        &stage(1000, 1000, 0, 0),
        Verdict::Inconclusive,
        "0 of 1000 devices failed (0 %); nothing was measured for checkin_loss",
    );
}

#[test]
fn a_stage_allows_so_many_failures() {
    let allowed = |method, devices| GateRule::by(method).failures_allowed(devices);
    assert_eq!(allowed(GateMethod::Point, 1000), Some(4));
    assert_eq!(allowed(GateMethod::Point, 100), Some(0));
    assert_eq!(allowed(GateMethod::Exact, 597), None);
    assert_eq!(allowed(GateMethod::Exact, 946), Some(0));
    assert_eq!(allowed(GateMethod::Exact, 947), Some(1));
    assert_eq!(allowed(GateMethod::Anytime, 700), None);
}

#[test]
fn a_rule_is_read_with_defaults_and_written_as_a_fraction() {
    let read = |value: Value| serde_json::from_value::<GateRule>(value);
    assert_eq!(
        read(json!({})).expect("every part has a default"),
        GateRule::default_point()
    );
    let rule = read(json!({"method": "exact", "limit": 0.01, "on_failure": "hold", "slos": [{"name": "checkin_loss", "limit": 0.02}]}))
        .expect("a rule");
    assert_eq!(
        (rule.method, rule.limit.get(), rule.on_failure),
        (GateMethod::Exact, 10_000, OnFailure::Hold)
    );
    let written = serde_json::to_value(&rule).expect("a rule is JSON");
    assert_eq!(written["limit"], json!(0.01));
    assert_eq!(read(written).expect("what was written can be read"), rule);
    for wrong in [
        json!({"limt": 0.01}),
        json!({"limit": 0}),
        json!({"method": "guess"}),
        json!({"min_sample": -1}),
    ] {
        assert!(read(wrong.clone()).is_err(), "{wrong}");
    }
    assert_eq!(no_fraction(&rule.record()), Ok(()));
}

#[test]
fn a_rule_without_meaning_is_refused() {
    let of = |value: Value| serde_json::from_value::<GateRule>(value).expect("a rule").check();
    assert_eq!(of(json!({"method": "sequential"})), Ok(()));
    assert_eq!(of(json!({"confidence": 0.4})), Err(InvalidGate::Confidence));
    assert_eq!(of(json!({"alpha": 0.5})), Err(InvalidGate::Errors));
    assert_eq!(
        of(json!({"method": "sequential", "acceptable": 0.005})),
        Err(InvalidGate::Acceptable)
    );
    assert_eq!(
        of(json!({"method": "sequential", "limit": 0.000001})),
        Err(InvalidGate::Acceptable)
    );
    assert_eq!(
        of(json!({"min_sample": MIN_SAMPLE_MAX + 1})),
        Err(InvalidGate::MinSample)
    );
    assert_eq!(
        of(json!({"min_soak_seconds": GATE_SECONDS_MAX + 1})),
        Err(InvalidGate::MinSoak)
    );
    assert_eq!(
        of(json!({"silent_after_seconds": 59})),
        Err(InvalidGate::SilentAfter)
    );
    let slo = json!({"name": "loss", "limit": 0.1});
    assert_eq!(
        of(json!({"slos": [slo, slo]})),
        Err(InvalidGate::SloTwice("loss".to_owned()))
    );
    let many: Vec<_> = (0..=SLOS_MAX)
        .map(|n| json!({"name": format!("loss {n}"), "limit": 0.1}))
        .collect();
    assert_eq!(of(json!({"slos": many})), Err(InvalidGate::SlosTooMany));
}

fn eager(method: GateMethod) -> GateRule {
    GateRule {
        pass_when: PassWhen::Shown,
        ..GateRule::by(method)
    }
}

const METHODS: [GateMethod; 4] = [
    GateMethod::Point,
    GateMethod::Exact,
    GateMethod::Sequential,
    GateMethod::Anytime,
];

/// The first number with a fraction in a record.
fn no_fraction(value: &Value) -> Result<(), String> {
    match value {
        Value::Number(number) if number.is_f64() => Err(number.to_string()),
        Value::Array(items) => items.iter().try_for_each(no_fraction),
        Value::Object(members) => members.values().try_for_each(no_fraction),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..3_000_u64,
        (0..64_u32).prop_map(|bits| u64::MAX >> bits)
    ]
}

prop_compose! {
    fn any_rule()(
        method in proptest::sample::select(&METHODS[..]),
        limit in prop_oneof![1..1_000_000_u32, 1_000..20_000_u32],
        confidence in 1..1_000_000_u32,
        acceptable in proptest::option::of(1..1_000_000_u32),
        alpha in 1..1_000_000_u32,
        beta in 1..1_000_000_u32,
        pass_when in proptest::sample::select(&[PassWhen::AllAnswered, PassWhen::Shown][..]),
        min_sample in count(),
        slo in proptest::option::of(1..1_000_000_u32),
    ) -> GateRule {
        GateRule {
            limit: Ppm::known(limit),
            confidence: Ppm::known(confidence),
            acceptable: acceptable.map(Ppm::known),
            alpha: Ppm::known(alpha),
            beta: Ppm::known(beta),
            pass_when,
            min_sample,
            slos: slo.into_iter().map(|limit| SloRule {
                name: Name::parse("loss").expect("a name"),
                limit: Ppm::known(limit),
            }).collect(),
            ..GateRule::by(method)
        }
    }
}

prop_compose! {
    fn any_observation()(counts in proptest::array::uniform6(count()), slo in proptest::option::of((count(), count()))) -> Observation {
        let [devices, verified, failed, silent, pending, soaked_seconds] = counts;
        let slos = slo.map(|(count, of)| SloObservation { name: "loss".to_owned(), count, of });
        Observation { devices, verified, failed, silent, pending, soaked_seconds, slos: slos.into_iter().collect() }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_rule_and_count_has_a_decision(rule in any_rule(), observation in any_observation()) {
        let decision = decide(&rule, &observation);
        prop_assert_eq!(decision.verdict, verdict(&rule, &observation));
        prop_assert_eq!(no_fraction(&decision.record()), Ok(()));
        prop_assert!(!decision.reason.is_empty() && decision.reason.len() < 400, "{}", decision.reason);
        let again: GateDecision = serde_json::from_value(decision.record()).expect("a record can be read");
        prop_assert_eq!(again, decision);
        let _ = rule.can_ever_pass(observation.devices);
    }

    #[test]
    fn more_failures_never_help(
        method in proptest::sample::select(&METHODS[..]), devices in 1..20_000_u64, answered in 0.0..=1.0_f64,
        pass_when in proptest::sample::select(&[PassWhen::AllAnswered, PassWhen::Shown][..]),
        failed in 0..120_u64, more in 1..20_u64,
    ) {
        let rule = GateRule { pass_when, ..GateRule::by(method) };
        let sample = (devices as f64 * answered) as u64;
        let failed = failed.min(sample);
        let worse = (failed + more).min(sample);
        let order = |failed: u64| match verdict(&rule, &stage(devices, sample - failed, failed, 0)) {
            Verdict::Pass => 0,
            Verdict::Wait | Verdict::Inconclusive => 1,
            Verdict::Fail => 2,
        };
        prop_assert!(order(failed) <= order(worse));
        // A silent device is a failed one.
        prop_assert_eq!(order(worse), match verdict(&rule, &stage(devices, sample - worse, failed, worse - failed)) {
            Verdict::Pass => 0,
            Verdict::Wait | Verdict::Inconclusive => 1,
            Verdict::Fail => 2,
        });
    }

    #[test]
    fn a_stage_that_is_large_enough_passes_without_failures(method in proptest::sample::select(&METHODS[..]), limit in 500..500_000_u32, devices in 1..20_000_u64) {
        let rule = GateRule { limit: Ppm::known(limit), ..GateRule::by(method) };
        let passed = verdict(&rule, &stage(devices, devices, 0, 0)) == Verdict::Pass;
        prop_assert_eq!(passed, rule.can_ever_pass(devices).is_ok());
        prop_assert_eq!(passed, rule.failures_allowed(devices).is_some());
    }
}
