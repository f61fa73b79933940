//! The one place that reads the wall clock and the operating system's randomness.

use muster_model::Timestamp;

/// Where the time comes from. Rules never see it: they get a `Timestamp`.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    #[default]
    System,
    /// Stands still until a test moves it.
    Fixed(std::sync::Arc<std::sync::atomic::AtomicI64>),
}

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the control plane's only reading of the wall clock"
    )]
    pub fn now(&self) -> Timestamp {
        match self {
            Clock::System => {
                let since = std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .unwrap_or_default();
                Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
            }
            Clock::Fixed(micros) => Timestamp::from_micros(micros.load(std::sync::atomic::Ordering::SeqCst)),
        }
    }
}

/// The time since the machine was started, with the time that it slept: no one sets it, and it never goes back.
pub fn uptime() -> std::time::Duration {
    // macOS counts sleep in its monotonic clock and knows no other name for it.
    #[cfg(target_os = "linux")]
    let id = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let id = rustix::time::ClockId::Monotonic;
    std::time::Duration::try_from(rustix::time::clock_gettime(id)).unwrap_or_default()
}

/// Fills an array from the operating system's generator.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system's random generator works");
    bytes
}

/// A secret of 256 bits as base64url without padding.
pub fn random_secret() -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    URL_SAFE_NO_PAD.encode(random::<32>())
}
