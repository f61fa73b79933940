//! Reconnecting without a herd: exponential back-off with full jitter.

use std::time::Duration;

/// Longest `Retry-After` that a device obeys; a longer one is cut to this.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Delays between attempts: the n-th is drawn uniformly from zero to `base · 2ⁿ`, at most `max`.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    /// Starts at `base` and grows to `max`.
    pub const fn new(base: Duration, max: Duration) -> Self {
        Self {
            base,
            max,
            attempts: 0,
        }
    }

    /// How many attempts have failed since the last success.
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Forgets the failures.
    pub fn succeeded(&mut self) {
        self.attempts = 0;
    }

    /// Counts a failure and draws the delay before the next attempt. `random` is a uniform draw. A `retry_after` is a
    /// floor: the jitter comes on top of it, so that a crowd sent away together does not come back together.
    pub fn failed(&mut self, random: u64, retry_after: Option<Duration>) -> Duration {
        let ceiling = self
            .base
            .saturating_mul(1_u32.checked_shl(self.attempts).unwrap_or(u32::MAX))
            .min(self.max);
        self.attempts = self.attempts.saturating_add(1);
        retry_after
            .unwrap_or_default()
            .min(RETRY_AFTER_MAX)
            .saturating_add(full_jitter(random, ceiling))
    }
}

/// A uniform draw from zero to `ceiling`.
pub fn full_jitter(random: u64, ceiling: Duration) -> Duration {
    let micros = u128::from(random) * (ceiling.as_micros() + 1) / (u128::from(u64::MAX) + 1);
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// `interval` stretched or shrunk by up to `fraction` of itself (cut to 0..=1), by a uniform draw.
pub fn spread(random: u64, interval: Duration, fraction: f64) -> Duration {
    let fraction = if fraction.is_finite() {
        fraction.clamp(0.0, 1.0)
    } else {
        0.0
    };
    let width = interval.mul_f64(2.0 * fraction);
    interval
        .saturating_sub(width / 2)
        .saturating_add(full_jitter(random, width))
}

/// Reads a `Retry-After` header given in seconds (RFC 9110 section 10.2.3); a date is ignored, since clocks differ.
pub fn parse_retry_after(value: &str) -> Option<Duration> {
    value
        .trim()
        .parse::<u32>()
        .ok()
        .map(|seconds| Duration::from_secs(u64::from(seconds)).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn delays_grow_to_the_bound_and_start_over_after_success() {
        let mut backoff = Backoff::new(SECOND, 8 * SECOND);
        let delays: Vec<_> = (0..6).map(|_| backoff.failed(u64::MAX, None).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 8, 8]);
        backoff.succeeded();
        assert_eq!(backoff.failed(u64::MAX, None), SECOND);
        assert_eq!(backoff.failed(0, None), Duration::ZERO);
    }

    #[test]
    fn a_thousand_failures_never_overflow() {
        let mut backoff = Backoff::new(SECOND, 300 * SECOND);
        for _ in 0..1000 {
            assert!(backoff.failed(u64::MAX, None) <= 300 * SECOND);
        }
    }

    #[test]
    fn retry_after_is_a_floor_and_has_a_bound() {
        let mut backoff = Backoff::new(SECOND, SECOND);
        assert_eq!(backoff.failed(0, Some(30 * SECOND)), 30 * SECOND);
        assert_eq!(backoff.failed(0, Some(1_000_000 * SECOND)), RETRY_AFTER_MAX);
        assert_eq!(parse_retry_after(" 120 "), Some(120 * SECOND));
        assert_eq!(parse_retry_after("Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }

    #[test]
    fn an_interval_spreads_evenly_around_itself() {
        let interval = 100 * SECOND;
        assert_eq!(spread(0, interval, 0.1), 90 * SECOND);
        assert_eq!(spread(u64::MAX, interval, 0.1), 110 * SECOND);
        assert_eq!(spread(u64::MAX / 2, interval, f64::NAN), interval);
        assert_eq!(spread(7, interval, 0.0), interval);
    }
}
