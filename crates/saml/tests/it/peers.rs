//! Programs that are not ours, and the one clock of these tests.

use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use muster_model::Timestamp;

/// A moment for messages that no program of others made.
pub const NOW: Timestamp = Timestamp::from_unix_seconds(1_795_000_000);

#[expect(clippy::disallowed_methods, reason = "the test harness starts programs")]
pub fn program(name: &str) -> Command {
    Command::new(name)
}

#[expect(
    clippy::disallowed_methods,
    reason = "an identity provider that is not ours says what time it is"
)]
pub fn clock() -> Timestamp {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Timestamp::from_micros(i64::try_from(elapsed.as_micros()).expect("a time"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests have no command line; this is the one place that reads theirs"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Whether a program is there. Without it the test says so; where peers are required it fails.
pub fn installed(name: &str, probe: &[&str]) -> bool {
    let found = program(name)
        .args(probe)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found {
        skip(&format!("{name}: not installed"));
    }
    found
}

/// Says loudly that a test could not be carried out here, or panics where that is not allowed.
pub fn skip(why: &str) {
    let required = variable("MUSTER_REQUIRE_PEERS").as_deref() == Some("1");
    assert!(!required, "{why}, and this run must not skip anything");
    println!("SKIPPED {why}");
}
