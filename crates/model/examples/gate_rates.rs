//! Prints the tables of `docs/reference/gates.md`: how many devices each kind of gate needs, and how often it passes and
//! stops stages of several sizes.
//!
//! `cargo run --release -p muster-model --example gate_rates`

#[path = "../tests/simulation/mod.rs"]
mod simulation;

use muster_model::{
    gate::{GateMethod, GateRule, PassWhen},
    statistics::{anytime_sample_needed, sample_needed_with},
};
use simulation::{Thresholds, rates};

const STAGES: [u64; 4] = [100, 598, 2_000, 10_000];
const RUNS: u32 = 100_000;
const SEED: u64 = 4;

fn main() {
    needed();
    println!();
    outcomes();
}

/// The answers with which a stage passes by each method.
fn needed() {
    let rule = GateRule::default_point();
    let test = rule
        .sequential_test()
        .expect("half the limit is less than the limit");
    println!("| Failed | exact | anytime | sequential |");
    println!("|---|---|---|---|");
    for failed in [0, 1, 2, 3, 4, 5, 10, 20] {
        let exact = sample_needed_with(failed, rule.limit, rule.confidence);
        let anytime = anytime_sample_needed(failed, rule.limit, rule.confidence);
        println!(
            "| {failed} | {exact} | {anytime} | {} |",
            test.sample_to_pass(failed)
        );
    }
}

fn outcomes() {
    let limit = GateRule::default_point().limit.fraction();
    println!(
        "| Gate | Devices | Rate 0.25 %: pass · stop · neither | Rate 0.5 % | Rate 1 % | Mean answers |"
    );
    println!("|---|---|---|---|---|---|");
    let all = [
        GateMethod::Point,
        GateMethod::Exact,
        GateMethod::Sequential,
        GateMethod::Anytime,
    ];
    let eager = [GateMethod::Sequential, GateMethod::Anytime].map(|method| (method, PassWhen::Shown));
    for (method, pass_when) in all
        .map(|method| (method, PassWhen::AllAnswered))
        .into_iter()
        .chain(eager)
    {
        let rule = GateRule {
            pass_when,
            ..GateRule::by(method)
        };
        let name = match pass_when {
            PassWhen::AllAnswered => method.as_str().to_owned(),
            PassWhen::Shown => format!("{}, passes when shown", method.as_str()),
        };
        for devices in STAGES {
            row(&name, devices, &Thresholds::of_rule(&rule, devices), limit);
        }
    }
    let rule = GateRule::by(GateMethod::Exact);
    for devices in STAGES {
        let misused = Thresholds::of_exact_bound_at_every_look(rule.limit, rule.confidence, devices);
        row("(exact bound at every look)", devices, &misused, limit);
    }
}

fn row(name: &str, devices: u64, thresholds: &Thresholds, limit: f64) {
    let [half, at, twice] = [0.5, 1.0, 2.0].map(|factor| rates(thresholds, factor * limit, RUNS, SEED));
    let cell = |rates: simulation::Rates| {
        format!(
            "{} · {} · {}",
            percent(rates.passed),
            percent(rates.failed),
            percent(rates.inconclusive)
        )
    };
    println!(
        "| {name} | {devices} | {} | {} | {} | {:.0} · {:.0} · {:.0} |",
        cell(half),
        cell(at),
        cell(twice),
        half.answers,
        at.answers,
        twice.answers
    );
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
