//! `bench scim`: people that an identity provider sends, against bare commits of one row on the same disk in the same run.

use anyhow::{Context, Result, ensure};

use super::Options;
use super::report::{Better, Ratio, short};
use super::server::{Server, number};
use crate::process;
use crate::workspace::Programs;

/// Connections: Entra ID and Okta send a few requests at a time.
const CONNECTIONS: u32 = 16;

/// Runs the phases one after the other against one server on SQLite.
pub fn run(programs: &Programs, options: &Options) -> Result<()> {
    let seconds = options.seconds.to_string();
    let mut bare = process::command(&programs.muster);
    bare.args(["bench-log", "--seconds", &seconds]);
    let output = bare
        .output()
        .context("cannot start the benchmark of bare commits")?;
    ensure!(
        output.status.success(),
        "muster bench-log: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let bare = serde_json::from_slice(&output.stdout).context("its answer is JSON")?;
    let server = Server::start(&programs.muster, &["--scim-requests-per-second", "10000"])?;
    let connections = options.devices.unwrap_or(CONNECTIONS).to_string();
    let report = server
        .load(&["load", "scim", "--devices", &connections, "--seconds", &seconds])?
        .report()?;
    let created = Ratio {
        what: "people made by SCIM, each with its entry of the log",
        value: number(&report, "created_per_second")?,
        unit: "per second",
        against: "bare commits of one row, grouped",
        peer: number(&bare, "bare_per_second")?,
        better: Better::More,
    };
    println!("{created}");
    for (name, what) in [
        ("found_per_second", "people looked for by userName"),
        ("joined_per_second", "people added one by one to one group"),
        ("deactivated_per_second", "people deactivated"),
    ] {
        println!("{what}: {} per second", short(number(&report, name)?));
    }
    println!("people at the end: {}", short(number(&report, "users")?));
    Ok(())
}
