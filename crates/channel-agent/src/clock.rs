//! Time that a device can trust: the times in signed checkpoints, carried forward by a clock that nobody sets.
//!
//! The wall clock of a device may be an hour off, or set by whoever holds it. Expiry is therefore judged by the newest
//! checkpoint's time plus what the boot clock has counted since. Before the first checkpoint of a boot the wall clock is
//! all there is, but it never counts for less than the newest time seen.

use std::time::Duration;

use muster_model::time::Timestamp;
use serde::{Deserialize, Serialize};

/// What the device's clocks show at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// The wall clock: whatever it was set to.
    pub wall: Timestamp,
    /// Time since boot, suspended time included.
    pub since_boot: Duration,
    /// Which boot it is: a random number per boot; one per start of the program where nothing names the boot.
    pub boot: u128,
}

/// A checkpoint's time, tied to the boot clock at the moment it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Anchor {
    time: Timestamp,
    since_boot_micros: u64,
    #[serde(with = "boot_text")]
    boot: u128,
}

/// The trusted clock. Persisted with the device's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustedClock {
    anchor: Option<Anchor>,
}

impl TrustedClock {
    /// A clock that has seen no checkpoint.
    pub const fn new() -> Self {
        Self { anchor: None }
    }

    /// True when a checkpoint of this boot carries the clock, so that the wall clock does not matter.
    pub fn is_anchored(&self, reading: &ClockReading) -> bool {
        self.anchor.is_some_and(|anchor| anchor.boot == reading.boot)
    }

    /// The trusted time at this reading.
    pub fn now(&self, reading: &ClockReading) -> Timestamp {
        match self.anchor {
            None => reading.wall,
            Some(anchor) if anchor.boot == reading.boot => {
                let elapsed = reading
                    .since_boot
                    .saturating_sub(Duration::from_micros(anchor.since_boot_micros));
                anchor.time.plus(elapsed)
            }
            Some(anchor) => anchor.time.max(reading.wall),
        }
    }

    /// Takes the time of a checkpoint whose signature was checked. An older time than what is known is ignored: time does
    /// not run backwards.
    pub fn observe(&mut self, checkpoint_time: Timestamp, reading: &ClockReading) {
        let known = self.anchor.map(|anchor| {
            if anchor.boot == reading.boot {
                self.now(reading)
            } else {
                anchor.time
            }
        });
        if known.is_none_or(|known| checkpoint_time > known) {
            self.anchor = Some(Anchor {
                time: checkpoint_time,
                since_boot_micros: u64::try_from(reading.since_boot.as_micros()).unwrap_or(u64::MAX),
                boot: reading.boot,
            });
        }
    }
}

/// 128-bit numbers as hexadecimal text, since not every JSON reader takes them.
mod boot_text {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(boot: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{boot:032x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        let text = String::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;

    fn reading(wall_seconds: i64, since_boot_seconds: u64, boot: u128) -> ClockReading {
        let since_boot = Duration::from_secs(since_boot_seconds);
        ClockReading {
            wall: Timestamp::from_unix_seconds(wall_seconds),
            since_boot,
            boot,
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    #[test]
    fn an_anchored_clock_ignores_a_wall_clock_an_hour_off() {
        let mut clock = TrustedClock::new();
        clock.observe(at(1_000_000), &reading(1_000_000 + HOUR, 10, 1));
        for wall in [1_000_000 - HOUR, 1_000_060, 1_000_060 + HOUR] {
            assert_eq!(clock.now(&reading(wall, 70, 1)), at(1_000_060));
        }
    }

    #[test]
    fn time_never_runs_backwards_over_a_reboot() {
        let mut clock = TrustedClock::new();
        clock.observe(at(1_000_000), &reading(1_000_000, 10, 1));
        let after_reboot = reading(500, 3, 2);
        assert!(!clock.is_anchored(&after_reboot));
        assert_eq!(clock.now(&after_reboot), at(1_000_000));
        assert_eq!(clock.now(&reading(1_000_500, 3, 2)), at(1_000_500));
    }

    #[test]
    fn a_fast_wall_clock_after_a_reboot_is_corrected_by_the_next_checkpoint() {
        let mut clock = TrustedClock::new();
        clock.observe(at(1_000_000), &reading(1_000_000, 10, 1));
        let fast = reading(1_000_100 + HOUR, 5, 2);
        assert_eq!(clock.now(&fast), at(1_000_100 + HOUR));
        clock.observe(at(1_000_100), &fast);
        assert_eq!(clock.now(&fast), at(1_000_100));
    }

    #[test]
    fn an_older_checkpoint_moves_nothing() {
        let mut clock = TrustedClock::new();
        clock.observe(at(1_000_000), &reading(0, 10, 1));
        let before = clock.clone();
        clock.observe(at(999_000), &reading(0, 20, 1));
        assert_eq!(clock, before);
    }

    #[test]
    fn the_anchor_survives_storage() {
        let mut clock = TrustedClock::new();
        clock.observe(at(1_000_000), &reading(0, 10, u128::MAX));
        let text = serde_json::to_string(&clock).expect("a clock is plain data");
        assert_eq!(
            serde_json::from_str::<TrustedClock>(&text).expect("and reads back"),
            clock
        );
    }
}
