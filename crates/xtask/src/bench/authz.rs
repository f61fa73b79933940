//! `bench authz`: nanoseconds of one decision about scopes, roles and claims, against hashing and verifying 256 bytes in the same run.
//! One process of the release build, no I/O: what the database adds is in the figures of whole calls.

use anyhow::{Result, ensure};

use super::report::{Better, Ratio};
use crate::process;

const TIMES: &str = "200000";
/// What a line with figures begins with.
const MARK: &str = "bench authz\t";

/// Builds and runs the measuring test.
pub fn run() -> Result<()> {
    let mut command = process::cargo();
    command.args([
        "test",
        "--release",
        "--quiet",
        "-p",
        "muster-control",
        "--lib",
        "--",
    ]);
    command.args([
        "--nocapture",
        "--exact",
        "access::cost::a_decision_is_cheap_beside_a_signature",
    ]);
    command.env("MUSTER_BENCH_AUTHZ_TIMES", TIMES);
    let printed = process::output(&mut command)?;
    let mut figures = 0;
    for line in printed.lines().filter_map(|line| line.split_once(MARK)) {
        let mut parts = line.1.split('\t');
        let (Some(what), Some(ours), Some(digest), Some(verify)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        for (against, peer) in [
            ("SHA-256 of 256 bytes", digest),
            ("an ECDSA P-256 verification", verify),
        ] {
            let ratio = Ratio {
                what,
                value: ours.parse()?,
                unit: "ns",
                against,
                peer: peer.parse()?,
                better: Better::Less,
            };
            println!("{ratio}");
        }
        figures += 1;
    }
    ensure!(figures > 0, "the measuring test printed no figure:\n{printed}");
    Ok(())
}
