//! `bench compile`: compilations of one whole policy per second and core for each platform with a compiler, against
//! writing the same settings as JSON in the same run. In one process: `muster load compile`.

use anyhow::Result;

use super::Options;
use super::report::{Better, Ratio};
use super::server::{computed, number};
use crate::workspace::Programs;

/// Runs every platform for as long.
pub fn run(programs: &Programs, options: &Options) -> Result<()> {
    let report = computed(programs, &["compile", "--seconds", &options.seconds.to_string()])?;
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
