//! `bench command`: from the API call to the device's receipt, with many devices connected.

use anyhow::Result;

use super::report::{Better, Ratio};
use super::server::{Server, number};
use super::{CONNECT_SECONDS_MAX, DEVICES_CONNECTED, Options};
use crate::workspace::Programs;

/// Fleet sizes when none is asked for.
const DEVICES: &[u32] = &[1_000, 10_000];

/// For each fleet size: connects it, sends commands one by one for a while, prints the quantiles.
pub fn run(programs: &Programs, options: &Options) -> Result<()> {
    let sizes = options
        .devices
        .map_or_else(|| DEVICES.to_vec(), |devices| vec![devices]);
    for devices in sizes {
        measure(programs, options, devices)?;
    }
    Ok(())
}

/// `muster load command` reports `commands`, `p50_ms`, `p99_ms`, and `call_p50_ms`: the API call alone, without the
/// device, which is the peer of the same run.
fn measure(programs: &Programs, options: &Options, devices: u32) -> Result<()> {
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
    let report = server
        .load(&["load", "command", "--seconds", &options.seconds.to_string()])?
        .report()?;
    let commands = number(&report, "commands")?;
    for quantile in ["p50", "p99"] {
        let ratio = Ratio {
            what: &format!(
                "API call to receipt, {quantile} of {commands} commands, {devices} connected devices"
            ),
            value: number(&report, &format!("{quantile}_ms"))?,
            unit: "ms",
            against: "the API call alone, p50",
            peer: number(&report, "call_p50_ms")?,
            better: Better::Less,
        };
        println!("{ratio}");
    }
    Ok(())
}
