//! `bench enroll`: enrollments per second with a TPM, with a software key and with the token alone, against bare mutually
//! authenticated handshakes with one more signature each.

use anyhow::Result;

use super::Options;
use super::report::{Better, Ratio};
use super::server::{Server, number};
use crate::workspace::Programs;

/// Devices of each kind when no number is asked for.
const DEVICES: u32 = 2_000;

/// Runs the four loads one after the other against one server.
pub fn run(programs: &Programs, options: &Options) -> Result<()> {
    let server = Server::start(&programs.muster, &[])?;
    let devices = options.devices.unwrap_or(DEVICES);
    let handshakes = measure(&server, "handshake", devices)?;
    let kinds = [
        ("enroll-tpm", "enrollments with TPM verification"),
        ("enroll-key", "enrollments with a software key"),
        ("enroll-token", "enrollments up to the checked token"),
    ];
    for (kind, what) in kinds {
        let ratio = Ratio {
            what,
            value: measure(&server, kind, devices)?,
            unit: "per second",
            against: "mTLS handshakes with one more signature",
            peer: handshakes,
            better: Better::More,
        };
        println!("{ratio}");
    }
    Ok(())
}

/// `muster load KIND` reports `{"requests": n, "seconds": s}` of its measuring phase.
fn measure(server: &Server, kind: &str, devices: u32) -> Result<f64> {
    let report = server
        .load(&["load", kind, "--devices", &devices.to_string()])?
        .report()?;
    Ok(number(&report, "requests")? / number(&report, "seconds")?)
}
