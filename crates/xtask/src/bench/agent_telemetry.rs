//! `bench agent-telemetry`: what a day of telemetry costs a device, against what an agent may cost. The agent's own collectors,
//! spool and batches, on this machine: `muster-agent bench-telemetry`.

use anyhow::{Context, Result, ensure};

use super::report::{Better, Ratio, short};
use super::server::number;
use crate::process;
use crate::workspace::Programs;

const DAY_SECONDS: f64 = 86_400.0;
/// What the contract allows of a processor.
const CPU_GOAL_PERCENT: f64 = 0.1;
/// And of memory.
const MEMORY_GOAL_MIB: f64 = 20.0;
const MIB: f64 = 1024.0 * 1024.0;

/// Runs a day.
pub fn run(programs: &Programs) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("muster-bench-").tempdir()?;
    let mut command = process::command(&programs.agent);
    command
        .arg("bench-telemetry")
        .arg("--state-dir")
        .arg(folder.path());
    let output = command.output().context("cannot start the benchmark")?;
    ensure!(
        output.status.success(),
        "muster-agent bench-telemetry: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report = serde_json::from_slice(&output.stdout).context("its answer is JSON")?;
    let cpu = Ratio {
        what: "telemetry's processor time",
        value: number(&report, "cpu_seconds")? / DAY_SECONDS * 100.0,
        unit: "% of one core",
        against: "the tenth of a percent that an agent may take",
        peer: CPU_GOAL_PERCENT,
        better: Better::Less,
    };
    println!("{cpu}");
    let memory = Ratio {
        what: "resident memory of collectors, spool and batches",
        value: number(&report, "resident_bytes")? / MIB,
        unit: "MiB",
        against: "the 20 MiB that an agent may take",
        peer: MEMORY_GOAL_MIB,
        better: Better::Less,
    };
    println!("{memory}");
    println!(
        "a day: {} samples in {} looks, {} batches, {} bytes on the wire; a day without a server: {} bytes in the spool",
        short(number(&report, "samples")?),
        short(number(&report, "looks")?),
        short(number(&report, "batches")?),
        short(number(&report, "wire_bytes")?),
        short(number(&report, "offline_spool_bytes")?)
    );
    Ok(())
}
