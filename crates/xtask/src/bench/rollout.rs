//! `bench rollout`: a new policy to connected devices in one stage, until every report is in.

use anyhow::Result;

use super::report::{Better, Ratio};
use super::server::{Server, number};
use super::{CONNECT_SECONDS_MAX, DEVICES_CONNECTED, Options};
use crate::workspace::Programs;

/// The fleet when none is asked for.
const DEVICES: u32 = 100_000;

/// Connects the fleet, rolls a policy out, prints how long the last report took and how many came in a second, against the
/// signatures that one core verifies in a second: each report is one.
pub fn run(programs: &Programs, options: &Options) -> Result<()> {
    let devices = options.devices.unwrap_or(DEVICES);
    let server = Server::start(&programs.muster, &[])?;
    let count = devices.to_string();
    let _farm = server.load(&[
        "farm",
        "--devices",
        &count,
        "--seed",
        "1",
        "--fail-rate",
        "0",
        "--silent-rate",
        "0",
    ])?;
    server.wait_for_metric(DEVICES_CONNECTED, f64::from(devices), CONNECT_SECONDS_MAX)?;
    let processor = server.cpu_seconds()?;
    let report = server
        .load(&[
            "load",
            "rollout",
            "--seconds",
            &options.seconds.min(5).to_string(),
        ])?
        .report()?;
    let processor = server.cpu_seconds()? - processor;
    let reported = number(&report, "devices")?;
    println!(
        "rollout to {reported} connected devices: every report in after {:.1} s ({} failed); {:.0} µs of the server's \
         processors for each",
        number(&report, "seconds")?,
        number(&report, "failed")?,
        processor * 1e6 / reported.max(1.0),
    );
    let ratio = Ratio {
        what: &format!("reports of a new policy, {reported} connected devices"),
        value: number(&report, "reports_per_second")?,
        unit: "/s",
        against: "P-256 verifications of one core",
        peer: number(&report, "verifications_per_second")?,
        better: Better::More,
    };
    println!("{ratio}");
    Ok(())
}
