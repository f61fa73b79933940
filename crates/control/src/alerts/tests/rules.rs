//! The pure part: what a rule says at which time.

use std::time::Duration;

use muster_model::{AlertId, Timestamp};

use crate::alerts::{
    builtin::built_in,
    expression::Truth,
    rules::{
        Alert, AlertState, Definition, GROUP_INTERVAL, Instance, NoData, REPEAT_INTERVAL, Rule, Severity,
        Tell, When, Why, matches, step, tell,
    },
    signal::{Readings, Signal},
};

fn start() -> Timestamp {
    Timestamp::from_unix_seconds(1_800_000_000)
}

fn after(seconds: u64) -> Timestamp {
    start().plus(Duration::from_secs(seconds))
}

fn rule(for_seconds: u32, keep_seconds: u32, no_data: NoData) -> Rule {
    let definition = Definition {
        title: "t".to_owned(),
        meaning: String::new(),
        remedy: String::new(),
        severity: Severity::Warning,
        when: When::Expression("devices > 1".to_owned()),
        for_seconds,
        keep_seconds,
        no_data,
        destinations: Vec::new(),
        escalation: Vec::new(),
        enabled: true,
    };
    Rule::new("r", definition).expect("it is valid")
}

/// The states of one object over (seconds, truth): `-` nothing, `p` pending, `f` firing.
fn course(rule: &Rule, truths: &[(u64, Truth)]) -> String {
    let mut instance: Option<Instance> = None;
    let states = truths.iter().map(|(seconds, truth)| {
        instance = step(rule, instance.as_ref(), "", *truth, None, after(*seconds));
        match &instance {
            None => '-',
            Some(instance) if instance.is_firing => 'f',
            Some(_) => 'p',
        }
    });
    states.collect()
}

#[test]
fn a_condition_has_to_hold_and_to_end_for_its_times() {
    use Truth::{No, Yes};
    let rule = rule(60, 30, NoData::Keep);
    assert_eq!(
        course(
            &rule,
            &[(0, Yes), (59, Yes), (60, Yes), (70, No), (99, No), (100, No)]
        ),
        "ppfff-"
    );
    assert_eq!(
        course(&rule, &[(0, Yes), (59, No), (60, Yes), (119, Yes), (120, Yes)]),
        "p-ppf"
    );
    assert_eq!(
        course(
            &rule,
            &[(0, Yes), (60, Yes), (70, No), (80, Yes), (109, No), (138, No)]
        ),
        "pfffff"
    );
}

#[test]
fn absent_data_is_what_the_rule_says() {
    use Truth::{Unknown, Yes};
    let truths = [(0, Unknown), (1, Yes), (2, Unknown), (3, Unknown)];
    assert_eq!(course(&rule(0, 0, NoData::Keep), &truths), "-fff");
    assert_eq!(course(&rule(0, 0, NoData::Resolve), &truths), "-f--");
    assert_eq!(course(&rule(0, 0, NoData::Fire), &truths), "ffff");
}

fn alert(rule: &Rule, objects: usize) -> Alert {
    let instances = (0..objects).map(|number| Instance {
        object: format!("o{number}"),
        since: start(),
        is_firing: true,
        clear_since: None,
        value: None,
        entry: None,
    });
    Alert::begin(
        AlertId::generate(start(), [0; 10]),
        rule,
        "r".to_owned(),
        instances.collect(),
        start(),
    )
}

#[test]
fn more_objects_are_told_together_after_a_while() {
    let rule = rule(0, 0, NoData::Keep);
    let mut alert = alert(&rule, 1);
    assert_eq!(tell(&rule, &alert, false, start()), Tell::Rule(Why::Began));
    (alert.told_at, alert.told_occurrences) = (Some(start()), 1);
    alert.told.push("d".to_owned());
    alert.occurrences = 4;
    assert_eq!(tell(&rule, &alert, false, after(1)), Tell::Nothing);
    let later = start().plus(GROUP_INTERVAL);
    assert_eq!(tell(&rule, &alert, false, later), Tell::Rule(Why::Grew));
    assert_eq!(tell(&rule, &alert, true, later), Tell::Nothing);
    alert.told_occurrences = 4;
    assert_eq!(tell(&rule, &alert, false, later), Tell::Nothing);
    assert_eq!(
        tell(&rule, &alert, false, start().plus(REPEAT_INTERVAL)),
        Tell::Rule(Why::GoesOn)
    );
    alert.become_of(Vec::new(), later);
    assert_eq!(alert.state, AlertState::Resolved);
    assert_eq!(tell(&rule, &alert, true, later), Tell::Resolved);
}

#[test]
fn the_four_promised_rules_fire_past_their_thresholds_and_guard_small_numbers() {
    let rules = built_in();
    let truth = |name: &str, values: &[(Signal, f64)]| {
        let rule = rules
            .iter()
            .find(|rule| rule.name == name)
            .expect("it comes along");
        let crate::alerts::rules::Trigger::Expression(expression) = &rule.trigger else {
            panic!("{name} is a condition");
        };
        let readings = Readings {
            tenant: values.iter().copied().collect(),
            ..Readings::default()
        };
        expression.holds(&readings, None)
    };
    let enrollments = |attempts: f64, failures: f64| {
        [
            (Signal::EnrollmentAttempts, attempts),
            (Signal::EnrollmentFailures, failures),
            (Signal::EnrollmentFailureRate, failures / attempts),
        ]
    };
    assert_eq!(
        truth("enrollment_failure_rate", &enrollments(1000.0, 3.0)),
        Truth::Yes
    );
    assert_eq!(
        truth("enrollment_failure_rate", &enrollments(1000.0, 2.0)),
        Truth::No,
        "0.2 % is not above it"
    );
    assert_eq!(
        truth("enrollment_failure_rate", &enrollments(5.0, 5.0)),
        Truth::No,
        "too few to say"
    );
    let none = [
        (Signal::EnrollmentAttempts, 0.0),
        (Signal::EnrollmentFailures, 0.0),
    ];
    assert_eq!(truth("enrollment_failure_rate", &none), Truth::No);
    let violations = |increase: f64, added: f64| {
        [
            (Signal::ViolationIncrease, increase),
            (Signal::ViolationsAdded, added),
        ]
    };
    assert_eq!(
        truth("policy_violation_spike", &violations(0.051, 5.0)),
        Truth::Yes
    );
    assert_eq!(
        truth("policy_violation_spike", &violations(0.05, 50.0)),
        Truth::No
    );
    assert_eq!(truth("policy_violation_spike", &violations(1.0, 4.0)), Truth::No);
    assert_eq!(truth("policy_violation_spike", &[]), Truth::Unknown);
    let queue = |latency: f64, commands: f64| {
        [
            (Signal::QueueLatency, latency),
            (Signal::QueueDeliveries, commands),
        ]
    };
    assert_eq!(
        truth("command_queue_latency", &queue(30.0, 20.0)),
        Truth::Yes,
        "it is promised to be below"
    );
    assert_eq!(truth("command_queue_latency", &queue(29.9, 200.0)), Truth::No);
    assert_eq!(truth("command_queue_latency", &queue(300.0, 19.0)), Truth::No);
    let certificate = rules
        .iter()
        .find(|rule| rule.name == "certificate_expiry")
        .expect("it comes along");
    assert_eq!(
        certificate.definition.when,
        When::Expression("expires_in <= 30d".to_owned())
    );
}

#[test]
fn a_pattern_has_one_star() {
    assert!(
        matches("security.*", "security.split_view")
            && matches("*.bundle_tampered", "policy.bundle_tampered")
    );
    assert!(matches("a*a", "aa") && !matches("a*a", "a") && matches("x", "x") && !matches("x", "xy"));
}

#[test]
fn an_entry_about_alerts_raises_no_alert() {
    let events = |actions: &[&str]| {
        let when = serde_json::json!({"events": {"actions": actions}});
        let definition = serde_json::json!({"title": "t", "severity": "info", "when": when});
        let definition: Definition = serde_json::from_value(definition).expect("it is read");
        Rule::new("r", definition).map(drop)
    };
    assert!(events(&["script.*"]).is_ok());
    assert!(events(&["alert.*"]).is_err() && events(&["*"]).is_err() && events(&[]).is_err());
}
