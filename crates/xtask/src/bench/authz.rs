//! `bench authz`: nanoseconds of one decision about scopes, roles and claims, against hashing and verifying 256 bytes in the same run.
//! One process, no I/O: `muster bench-authz`. What the database adds is in the figures of whole calls.

use anyhow::{Context, Result, ensure};

use super::report::{Better, Ratio};
use super::server::number;
use crate::process;
use crate::workspace::Programs;

/// Measures and prints.
pub fn run(programs: &Programs) -> Result<()> {
    let mut command = process::command(&programs.muster);
    let output = command
        .arg("bench-authz")
        .output()
        .context("cannot start the benchmark")?;
    ensure!(
        output.status.success(),
        "muster bench-authz: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).context("its answer is JSON")?;
    let decisions = report["decisions"].as_array().context("it has decisions")?;
    ensure!(!decisions.is_empty(), "nothing was measured");
    for decision in decisions {
        for (against, peer) in [
            ("SHA-256 of 256 bytes", "digest"),
            ("an ECDSA P-256 verification", "verification"),
        ] {
            let ratio = Ratio {
                what: decision["what"].as_str().context("it has a name")?,
                value: number(decision, "nanoseconds")?,
                unit: "ns",
                against,
                peer: number(&report, peer)?,
                better: Better::Less,
            };
            println!("{ratio}");
        }
    }
    Ok(())
}
