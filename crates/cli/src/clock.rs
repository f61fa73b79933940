//! The one place where this library reads the clock.

use muster_model::Timestamp;

/// The wall clock, for "3 minutes ago".
#[expect(
    clippy::disallowed_methods,
    reason = "the command line's one reading of the wall clock"
)]
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
