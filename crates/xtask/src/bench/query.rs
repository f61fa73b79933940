//! `bench query`: questions over 100,000 devices with 4,000,000 packages, answered by `control::query` and by SQLite itself over the
//! same rows, in one process of the release build. The test that measures checks that both answers are equal.

use anyhow::{Result, ensure};

use super::report::{Better, Ratio};
use crate::process;

const DEVICES: &str = "100000";
/// What a line with figures begins with.
const MARK: &str = "bench query\t";

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
        "query::tests::cost::questions_over_a_fleet_are_answered_as_sqlite_answers_them",
    ]);
    command.env("MUSTER_BENCH_QUERY_DEVICES", DEVICES);
    let printed = process::output(&mut command)?;
    let mut figures = 0;
    for line in printed.lines().filter_map(|line| line.split_once(MARK)) {
        let mut parts = line.1.split('\t');
        let (Some(what), Some(ours), Some(theirs)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let ratio = Ratio {
            what,
            value: ours.parse()?,
            unit: "seconds",
            against: "SQLite asking the same over the same rows",
            peer: theirs.parse()?,
            better: Better::Less,
        };
        println!("{ratio}");
        figures += 1;
    }
    ensure!(figures > 0, "the measuring test printed no figure:\n{printed}");
    Ok(())
}
