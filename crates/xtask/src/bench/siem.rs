//! `bench siem`: events of the log that leave for each kind of sink, against reading the same log through the API in the same run.
//! The other sides take everything at once, so that Muster's own way out is what is measured.

use anyhow::Result;

use super::Options;
use super::report::{Better, Ratio, short};
use super::server::{Server, number};
use crate::workspace::Programs;

/// Entries of the log, in thousands.
const THOUSANDS: u32 = 20;

/// Runs one sink after the other against one server on SQLite.
pub fn run(programs: &Programs, options: &Options) -> Result<()> {
    let server = Server::start(&programs.muster, &["--egress-allow", "127.0.0.0/8"])?;
    let thousands = options.devices.unwrap_or(THOUSANDS).to_string();
    let report = server
        .load(&["load", "siem", "--devices", &thousands])?
        .report()?;
    println!("entries of the log: {}", short(number(&report, "entries")?));
    let peer = number(&report, "api_per_second")?;
    for (name, what) in [
        ("webhook_per_second", "events to a webhook"),
        (
            "splunk_per_second",
            "events to Splunk, acknowledged at the first question",
        ),
        ("sentinel_per_second", "events to Sentinel"),
        ("syslog_per_second", "events to syslog over TCP"),
        ("s3_per_second", "events to S3"),
        ("nats_per_second", "events to NATS JetStream"),
    ] {
        let ratio = Ratio {
            what,
            value: number(&report, name)?,
            unit: "per second",
            against: "the same log read as pages of the API",
            peer,
            better: Better::More,
        };
        println!("{ratio}");
    }
    Ok(())
}
