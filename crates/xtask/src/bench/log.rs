//! `bench log`: appends to the log, each under a signed head in the end, against bare commits of the same row on the same disk
//! in the same run; and how long an entry waits for its checkpoint. In one process on SQLite: `muster bench-log`.

use anyhow::{Context, Result, ensure};

use super::Options;
use super::report::{Better, Ratio, short};
use super::server::number;
use crate::process;
use crate::workspace::Programs;

/// What the contract allows an entry to wait for its checkpoint.
const LAG_GOAL_MS: f64 = 1000.0;

/// Runs both for as long.
pub fn run(programs: &Programs, options: &Options) -> Result<()> {
    let mut command = process::command(&programs.muster);
    command.args(["bench-log", "--seconds", &options.seconds.to_string()]);
    let output = command.output().context("cannot start the benchmark")?;
    ensure!(
        output.status.success(),
        "muster bench-log: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report = serde_json::from_slice(&output.stdout).context("its answer is JSON")?;
    let appends = Ratio {
        what: "log appends until they can be proved",
        value: number(&report, "appends_per_second")?,
        unit: "per second",
        against: "bare commits of the same row",
        peer: number(&report, "bare_per_second")?,
        better: Better::More,
    };
    println!("{appends}");
    let lag = Ratio {
        what: "commit to signed checkpoint, p99",
        value: number(&report, "lag_p99_ms")?,
        unit: "ms",
        against: "the second that is allowed",
        peer: LAG_GOAL_MS,
        better: Better::Less,
    };
    println!("{lag}");
    println!(
        "inclusion proofs made and verified: {} per second on one core",
        short(number(&report, "proofs_per_second")?)
    );
    Ok(())
}
