//! What every test stands on.

pub mod acme;
pub mod api;
pub mod approvers;
pub mod attested;
pub mod authority;
pub mod azure;
pub mod cell;
pub mod collector;
pub mod crossing;
pub mod cutter;
pub mod database;
pub mod device;
pub mod elastic;
pub mod enrollee;
pub mod furnish;
pub mod haproxy;
pub mod jwt;
pub mod machine;
pub mod mail;
pub mod objects;
pub mod openapi;
pub mod pagers;
pub mod pki;
pub mod raw;
pub mod receivers;
pub mod routes;
pub mod scim;
pub mod server;
pub mod siem;
pub mod sinks;
pub mod slapd;
#[path = "../../../../agent/src/tpm/swtpm.rs"]
#[expect(dead_code, reason = "the agent's own tests use the rest of it")]
pub mod swtpm;
pub mod timeseries;
pub mod traced;
pub mod two;
pub mod vault;
pub mod witness;

use std::time::{Duration, Instant};

/// How long a test waits for what the server does by itself.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks until there is an answer; panics when there is none in time.
pub async fn eventually<T>(what: &str, patience: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < patience, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A variable of the environment that tests are run in.
#[expect(
    clippy::disallowed_methods,
    reason = "tests have no command line; this is the one place that reads theirs"
)]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Seconds since 1970 now, for tokens that tests forge.
#[expect(clippy::disallowed_methods, reason = "the tests' one look at the clock")]
pub fn unix_seconds() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.expect("it is after 1970").as_secs()).expect("it is before the end of time")
}
