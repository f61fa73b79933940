//! `bench compile`: compilations of one whole policy per second and core for each platform with a compiler, against
//! writing the same settings as JSON in the same run. In one process: `muster load compile`.

use anyhow::Result;

use super::Options;
use super::report::{Better, Ratio};
use super::server::number;
use crate::process;
use crate::workspace::Programs;

/// Runs every platform for as long.
pub fn run(programs: &Programs, options: &Options) -> Result<()> {
    let mut command = process::command(&programs.muster);
    command.args(["load", "compile", "--seconds", &options.seconds.to_string()]);
    let output = command.output()?;
    anyhow::ensure!(
        output.status.success(),
        "the load ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout)?;
    let report: serde_json::Value = serde_json::from_str(text.lines().next_back().unwrap_or_default())?;
    let peer = number(&report, "json")?;
    for (platform, value) in report.as_object().into_iter().flatten() {
        if platform != "json" {
            let ratio = Ratio {
                what: &format!("policies compiled for {platform}"),
                value: value.as_f64().unwrap_or_default(),
                unit: "per second and core",
                against: "the same settings as JSON",
                peer,
                better: Better::More,
            };
            println!("{ratio}");
        }
    }
    Ok(())
}
