//! Prints the table of `docs/reference/gates.md`: how often each kind of gate passes and stops stages of several sizes.
//!
//! `cargo run --release -p muster-model --example gate_rates`

#[path = "../tests/simulation/mod.rs"]
mod simulation;

use muster_model::gate::{GateMethod, GateRule};
use simulation::{Thresholds, rates};

const STAGES: [u64; 4] = [100, 598, 2_000, 10_000];
const RUNS: u32 = 100_000;
const SEED: u64 = 4;

fn main() {
    let limit = GateRule::default_point().limit.fraction();
    println!(
        "| Gate | Devices | Half the limit: pass · stop · neither | At the limit | Twice the limit | Answers |"
    );
    println!("|---|---|---|---|---|---|");
    for method in [
        GateMethod::Point,
        GateMethod::Exact,
        GateMethod::Sequential,
        GateMethod::Anytime,
    ] {
        let rule = GateRule::by(method);
        for devices in STAGES {
            row(
                method.as_str(),
                devices,
                &Thresholds::of_rule(&rule, devices),
                limit,
            );
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
