//! `bench checkin`: up-to-date check-ins over mTLS keep-alive, against the same listener answering a constant.

use anyhow::Result;

use super::Options;
use super::report::{Better, Ratio};
use super::server::{Server, number};
use crate::workspace::Programs;

/// Requests per second, and processor seconds of the server per request.
struct Figures {
    rate: f64,
    cpu_seconds: f64,
}

/// Runs both loads with as many devices and as long, one after the other.
pub fn run(programs: &Programs, options: &Options) -> Result<()> {
    let server = Server::start(&programs.muster, &[])?;
    let constant = measure(&server, "constant", options)?;
    let checkin = measure(&server, "checkin", options)?;
    let against = "the same listener answering a constant";
    let rate = Ratio {
        what: "up-to-date check-ins",
        value: checkin.rate,
        unit: "requests/s",
        against,
        peer: constant.rate,
        better: Better::More,
    };
    let processor = Ratio {
        what: "processor time of the server per check-in",
        value: checkin.cpu_seconds * 1e6,
        unit: "µs",
        against,
        peer: constant.cpu_seconds * 1e6,
        better: Better::Less,
    };
    println!("{rate}\n{processor}");
    Ok(())
}

/// `muster load KIND` reports `{"requests": n, "seconds": s}` of its measuring phase.
fn measure(server: &Server, kind: &str, options: &Options) -> Result<Figures> {
    let (devices, seconds) = (
        options.devices.unwrap_or(100).to_string(),
        options.seconds.to_string(),
    );
    let mut load = server.load(&["load", kind, "--devices", &devices, "--seconds", &seconds])?;
    load.wait_until_measuring()?;
    let before = server.cpu_seconds()?;
    let report = load.report()?;
    let cpu_seconds = server.cpu_seconds()? - before;
    let requests = number(&report, "requests")?;
    Ok(Figures {
        rate: requests / number(&report, "seconds")?,
        cpu_seconds: cpu_seconds / requests.max(1.0),
    })
}
