//! The one place where this program reads clocks and draws random numbers.

use std::sync::LazyLock;
use std::time::Duration;

use muster_channel_agent::clock::ClockReading;
use muster_model::telemetry::StreamId;
use muster_model::time::Timestamp;

/// Stands for the boot where the kernel names none: every start of this program is one of its own, so that the boot clock
/// of another is never counted on.
static BOOT_UNKNOWN: LazyLock<u128> = LazyLock::new(|| (u128::from(random()) << 64) | u128::from(random()));

/// Reads the wall clock, the boot clock and the boot's identity.
pub fn read() -> ClockReading {
    ClockReading {
        wall: wall(),
        since_boot: since_boot(),
        boot: boot_id(),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the agent's one reading of the wall clock"
)]
fn wall() -> Timestamp {
    let micros = match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
    };
    Timestamp::from_micros(micros)
}

/// The boot clock counts suspended time and cannot be set.
fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

fn boot_id() -> u128 {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .ok()
        .and_then(|text| uuid::Uuid::parse_str(text.trim()).ok())
        .map_or_else(|| *BOOT_UNKNOWN, |id| id.as_u128())
}

/// A uniform draw for jitter. Falls back on the clock's low bits where the system has no randomness to give: jitter need
/// not be secret.
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => (since_boot().as_nanos() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
    }
}

/// The name of a new stream of telemetry. Like jitter, it need not be secret.
pub fn random_stream() -> StreamId {
    let (high, low) = (random().to_be_bytes(), random().to_be_bytes());
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&high);
    bytes[8..].copy_from_slice(&low);
    // A draw of zeros only is as likely as any other, and has a name all the same.
    StreamId::from_bytes(bytes).unwrap_or_else(|| StreamId::from_bytes([1; 16]).expect("it is not zero"))
}
