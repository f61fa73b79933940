//! The one place where this library reads the clock.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use muster_channel_agent::clock::ClockReading;
use muster_model::Timestamp;

static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The wall clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the farm's one reading of the wall clock"
)]
pub fn wall() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// The clocks of a device in its `boot`-th boot. The boot clock starts again with the process, so the process counts too.
pub fn read(index: u32, boot: u64, process: u64) -> ClockReading {
    let boot = (u128::from(process) << 64) | (u128::from(index) << 32) | u128::from(boot & 0xffff_ffff);
    ClockReading {
        wall: wall(),
        since_boot: STARTED.elapsed() + Duration::from_secs(1),
        boot,
    }
}
