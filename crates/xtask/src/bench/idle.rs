//! `bench idle`: memory and processor time per connected device that has nothing to do.

use std::time::Duration;

use anyhow::Result;

use super::report::{Better, Ratio};
use super::server::Server;
use super::{CONNECT_SECONDS_MAX, DEVICES_CONNECTED, Options};
use crate::workspace::Programs;

/// What one held connection may cost: 100,000 of them in a quarter of the 24 GiB machine.
const DEVICE_BYTES_MAX: f64 = 6.0 * 1024.0 * 1024.0 * 1024.0 / 100_000.0;

/// Holds devices connected and compares the server with itself without them.
pub fn run(programs: &Programs, options: &Options) -> Result<()> {
    let devices = options.devices.unwrap_or(1_000);
    let server = Server::start(&programs.muster, &[])?;
    let cpu_alone = cpu_per_second(&server, options.seconds)?;
    let rss_alone = server.rss_bytes()?;
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
    server.wait_for_metric(DEVICES_CONNECTED, devices as f64, CONNECT_SECONDS_MAX)?;
    let cpu_connected = cpu_per_second(&server, options.seconds)?;
    let rss_connected = server.rss_bytes()?;
    let memory = Ratio {
        what: &format!("memory per connected idle device ({devices} devices)"),
        value: (rss_connected as f64 - rss_alone as f64) / devices as f64,
        unit: "bytes",
        against: "the allowance for 100,000 devices in 6 GiB",
        peer: DEVICE_BYTES_MAX,
        better: Better::Less,
    };
    let processor = Ratio {
        what: &format!("processor time of the server with {devices} connected devices"),
        value: cpu_connected,
        unit: "cores",
        against: "the same server without devices",
        peer: cpu_alone,
        better: Better::Less,
    };
    println!("{memory}\n{processor}");
    Ok(())
}

fn cpu_per_second(server: &Server, seconds: u64) -> Result<f64> {
    let before = server.cpu_seconds()?;
    std::thread::sleep(Duration::from_secs(seconds));
    Ok((server.cpu_seconds()? - before) / seconds as f64)
}
