//! `bench attest`: verifications per second of each kind of hardware proof on one core, against one P-256 signature
//! verification. Nothing but `attest` runs, so this is the one benchmark inside a process: `muster load attest`.

use anyhow::Result;

use super::Options;
use super::report::{Better, Ratio};
use super::server::number;
use crate::process;
use crate::workspace::Programs;

/// Runs every case for as long.
pub fn run(programs: &Programs, options: &Options) -> Result<()> {
    let mut command = process::command(&programs.muster);
    command.args(["load", "attest", "--seconds", &options.seconds.to_string()]);
    let output = command.output()?;
    anyhow::ensure!(
        output.status.success(),
        "the load ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout)?;
    let report: serde_json::Value = serde_json::from_str(text.lines().next_back().unwrap_or_default())?;
    let peer = number(&report, "p256_verify")?;
    for (kind, value) in report.as_object().into_iter().flatten() {
        if kind != "p256_verify" {
            let ratio = Ratio {
                what: &format!("verifications of {kind}"),
                value: value.as_f64().unwrap_or_default(),
                unit: "per second and core",
                against: "ECDSA P-256 verifications",
                peer,
                better: Better::More,
            };
            println!("{ratio}");
        }
    }
    Ok(())
}
