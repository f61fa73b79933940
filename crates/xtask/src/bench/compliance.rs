//! `bench compliance`: ten rules, five checks and five expressions, over a fleet on one core, against a function that is
//! written by hand for the same questions over the same facts. Pure computing: `muster load compliance`, no server.

use anyhow::Result;

use super::Options;
use super::report::{Better, Ratio, short};
use super::server::{computed, number};
use crate::workspace::Programs;

/// The fleet of the goal: a million devices, ten rules, ten seconds.
const DEVICES: u32 = 1_000_000;
const SECONDS_GOAL: f64 = 10.0;

/// Answers every rule for every device once.
pub fn run(programs: &Programs, options: &Options) -> Result<()> {
    let devices = options.devices.unwrap_or(DEVICES);
    let report = computed(programs, &["compliance", "--devices", &devices.to_string()])?;
    let rules = number(&report, "rules")?;
    let by_hand = number(&report, "by_hand_seconds")?;
    for (what, field) in [
        ("rules with verdicts and reasons", "evaluated_seconds"),
        ("rules, answers alone", "answered_seconds"),
    ] {
        let seconds = number(&report, field)?;
        let rate = f64::from(devices) / seconds;
        println!(
            "{what}: {} s for {devices} devices x {rules} rules, {} devices/s",
            short(seconds),
            short(rate)
        );
        let ratio = Ratio {
            what,
            value: seconds,
            unit: "s",
            against: "the same answers by hand",
            peer: by_hand,
            better: Better::Less,
        };
        println!("{ratio}");
    }
    let goal = Ratio {
        what: "a million devices x ten rules with verdicts",
        value: number(&report, "evaluated_seconds")? * f64::from(DEVICES) / f64::from(devices.max(1)),
        unit: "s",
        against: "the goal",
        peer: SECONDS_GOAL,
        better: Better::Less,
    };
    println!("{goal}");
    Ok(())
}
