//! `bench attest`: verifications per second of each kind of hardware proof on one core, against one P-256 signature
//! verification. Nothing but `attest` runs, so this is the one benchmark inside a process: `muster load attest`.

use anyhow::Result;

use super::Options;
use super::report::{Better, Ratio};
use super::server::{computed, number};
use crate::workspace::Programs;

/// Runs every case for as long.
pub fn run(programs: &Programs, options: &Options) -> Result<()> {
    let report = computed(programs, &["attest", "--seconds", &options.seconds.to_string()])?;
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
