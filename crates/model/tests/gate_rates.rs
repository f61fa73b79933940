//! What gates promise, by simulation: seeded, so that a failure can be repeated.

mod simulation;

use muster_model::{
    gate::{GateMethod, GateRule, PassWhen, Verdict, verdict},
    statistics::binomial_at_most,
};
use simulation::{Random, Rates, Thresholds, after, rates};

const STAGES: [u64; 4] = [100, 598, 2_000, 10_000];
const RUNS: u32 = 4_000;
const LIMIT: f64 = 0.005;

/// Four standard deviations of a share of `RUNS`: a correct gate exceeds it once in 30,000 tests.
fn margin(share: f64) -> f64 {
    4.0 * (share * (1.0 - share) / f64::from(RUNS)).sqrt()
}

/// What a promise is tested with: a pass at the first moment at which it is shown.
fn eager(method: GateMethod) -> GateRule {
    GateRule {
        pass_when: PassWhen::Shown,
        ..GateRule::by(method)
    }
}

fn play(method: GateMethod, devices: u64, rate: f64) -> Rates {
    let seed = devices ^ rate.to_bits();
    let rates = rates(&Thresholds::of_rule(&eager(method), devices), rate, RUNS, seed);
    println!("{method:?}, {devices} devices, rate {rate}, seed {seed}: {rates:?}");
    assert!((rates.passed + rates.failed + rates.inconclusive - 1.0).abs() < 1e-9);
    assert!((1.0..=devices as f64).contains(&rates.answers));
    rates
}

fn at_most(found: f64, promised: f64) {
    assert!(
        found <= promised + margin(promised),
        "{found} is more than {promised}"
    );
}

#[test]
fn an_anytime_gate_keeps_both_errors_at_every_look() {
    for devices in STAGES {
        let at = play(GateMethod::Anytime, devices, LIMIT);
        at_most(at.failed, 0.05);
        at_most(at.passed, 0.05);
        at_most(play(GateMethod::Anytime, devices, LIMIT / 2.0).failed, 0.01);
        at_most(play(GateMethod::Anytime, devices, LIMIT * 2.0).passed, 0.01);
    }
}

#[test]
fn an_exact_gate_keeps_its_error_of_passing() {
    for devices in STAGES {
        let at = play(GateMethod::Exact, devices, LIMIT);
        at_most(at.passed, 0.05);
        // By the bound at the end, or by the evidence before.
        at_most(at.failed, 0.1);
        at_most(play(GateMethod::Exact, devices, LIMIT / 2.0).failed, 0.02);
    }
}

#[test]
fn a_sequential_gate_keeps_walds_errors() {
    for devices in STAGES {
        at_most(
            play(GateMethod::Sequential, devices, LIMIT / 2.0).failed,
            0.05 / 0.95,
        );
        at_most(play(GateMethod::Sequential, devices, LIMIT).passed, 0.05 / 0.95);
    }
}

/// No promise of the point estimate, but its known weakness; and the simulation agrees with the binomial distribution.
#[test]
fn a_point_gate_passes_what_chance_lets_pass() {
    for devices in STAGES {
        for rate in [LIMIT / 2.0, LIMIT, LIMIT * 2.0] {
            let passed = play(GateMethod::Point, devices, rate).passed;
            let allowed = GateRule::default_point()
                .failures_allowed(devices)
                .expect("a clean stage passes");
            let expected = binomial_at_most(allowed, devices, rate);
            assert!(
                (passed - expected).abs() <= margin(expected) + 1e-9,
                "{passed} is not {expected}"
            );
        }
    }
}

#[test]
fn the_exact_bound_does_not_hold_at_every_look() {
    let rule = GateRule::by(GateMethod::Exact);
    let misused = Thresholds::of_exact_bound_at_every_look(rule.limit, rule.confidence, 10_000);
    let found = rates(&misused, LIMIT, RUNS, 1);
    println!("{found:?}");
    assert!(found.passed > 0.07 && found.failed > 0.2, "{found:?}");
}

/// The shortcut of the simulation says what the gate says when it is asked after every report.
#[test]
fn thresholds_are_what_the_gate_says() {
    for method in [
        GateMethod::Point,
        GateMethod::Exact,
        GateMethod::Sequential,
        GateMethod::Anytime,
    ] {
        let (rule, devices) = (eager(method), 1_300);
        let thresholds = Thresholds::of_rule(&rule, devices);
        for (seed, rate) in [(1, 0.0005), (2, 0.005), (3, 0.02)] {
            let mut random = Random(seed);
            let played = thresholds.play(rate, &mut random);
            assert_eq!(
                played,
                asked_at_every_report(&rule, devices, rate, seed),
                "{method:?}, seed {seed}"
            );
        }
    }
}

fn asked_at_every_report(rule: &GateRule, devices: u64, rate: f64, seed: u64) -> (Verdict, u64) {
    let mut random = Random(seed);
    let (mut failed, mut next) = (0, random.until_failure(rate));
    for sample in 1..=devices {
        if sample == next {
            failed += 1;
            next = sample.saturating_add(random.until_failure(rate));
        }
        let said = verdict(rule, &after(devices, failed, sample));
        if said != Verdict::Wait {
            return (said, sample);
        }
    }
    panic!("a gate whose devices have all answered does not wait");
}
