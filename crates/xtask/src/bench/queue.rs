//! `bench queue`: one command for every device of a fleet, of which a part is connected.

use anyhow::Result;

use super::report::{Better, Ratio};
use super::server::{Server, number};
use super::{CONNECT_SECONDS_MAX, DEVICES_CONNECTED, Options};
use crate::workspace::Programs;

/// The fleet when none is asked for.
const DEVICES: u32 = 100_000;
/// The counter of devices that enrolled.
const ENROLLED: &str = "mdm_enrollments_total{result=\"done\"}";
/// Of these, at most so many are connected: a process may open only so many files.
const CONNECTED_MAX: u32 = 10_000;

/// Enrolls the fleet, sends one command to all of it, and prints how soon it was accepted, how many commands were made and
/// how many receipts came in a second, against the signatures that one core verifies in a second.
pub fn run(programs: &Programs, options: &Options) -> Result<()> {
    let devices = options.devices.unwrap_or(DEVICES);
    let connected = devices.min(CONNECTED_MAX);
    let server = Server::start(&programs.muster, &[])?;
    // Those that only enroll end before the others come: they are devices that are away.
    let away = devices - connected;
    if away > 0 {
        let count = away.to_string();
        let silent = [
            "farm",
            "--devices",
            &count,
            "--seed",
            "2",
            "--fail-rate",
            "0",
            "--silent-rate",
            "1",
        ];
        let enrolling = server.load(&silent)?;
        server.wait_for_metric(ENROLLED, f64::from(away), 4 * CONNECT_SECONDS_MAX)?;
        drop(enrolling);
    }
    let count = connected.to_string();
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
    server.wait_for_metric(DEVICES_CONNECTED, f64::from(connected), CONNECT_SECONDS_MAX)?;
    let seconds = options.seconds.min(5).to_string();
    let report = server
        .load(&["load", "queue", "--devices", &count, "--seconds", &seconds])?
        .report()?;
    println!(
        "one command for {} devices, {connected} of them connected: accepted after {:.3} s, all made after {:.1} s \
         ({:.0} a second), {} receipts after {:.1} s",
        number(&report, "devices")?,
        number(&report, "accepted_seconds")?,
        number(&report, "made_seconds")?,
        number(&report, "made_per_second")?,
        number(&report, "receipts")?,
        number(&report, "receipts_seconds")?,
    );
    let peer = number(&report, "verifications_per_second")?;
    for (what, member) in [
        ("commands made", "made_per_second"),
        ("receipts", "receipts_per_second"),
    ] {
        let ratio = Ratio {
            what,
            value: number(&report, member)?,
            unit: "/s",
            against: "P-256 verifications of one core",
            peer,
            better: Better::More,
        };
        println!("{ratio}");
    }
    Ok(())
}
