//! Pure decisions about commands: what is delivered again and when, what needs people, what is unusual.

use std::time::Duration;

use muster_model::{CommandKind, Timestamp};
use muster_trust::root::RootDocument;

/// The shortest wait before a command is delivered again.
const RETRY_SECONDS_MIN: u64 = 5;
/// The longest.
const RETRY_SECONDS_MAX: u64 = 3600;
/// How long a device that said "not now" is left alone at most.
const NOT_NOW_SECONDS_MAX: u64 = 900;
/// Deliveries after which a device that took a command and never answers is given up.
pub const ATTEMPTS_MAX: u32 = 40;

/// Devices that one account may ask something of in an hour before it is held, whatever the fleet.
pub const MASS_DEVICES_MIN: u64 = 1000;
/// Smaller calls are never held for their hour, their size or the age of their account.
const UNUSUAL_DEVICES_MIN: u64 = 100;
/// How often larger than any before a call may be.
const UNUSUAL_FACTOR: u64 = 4;
/// Hours in which an account must have acted before an hour can be unusual.
const HOURS_KNOWN_MIN: usize = 20;

/// How long to wait until the next delivery: full jitter over a bound that doubles with each attempt. `random` is 0 to 1.
pub fn retry_after(attempts: u32, random: f64) -> Duration {
    let bound = RETRY_SECONDS_MIN
        .saturating_mul(1_u64.checked_shl(attempts.min(32)).unwrap_or(u64::MAX))
        .min(RETRY_SECONDS_MAX);
    jittered(RETRY_SECONDS_MIN, bound, random)
}

/// How long a device that cannot do it now is left alone.
pub fn not_now_after(random: f64) -> Duration {
    jittered(RETRY_SECONDS_MIN, NOT_NOW_SECONDS_MAX, random)
}

fn jittered(from: u64, to: u64, random: f64) -> Duration {
    let span = Duration::from_secs(to.saturating_sub(from));
    Duration::from_secs(from) + span.mul_f64(random.clamp(0.0, 1.0))
}

/// Whether a command that waits is delivered at this check-in. What the device has never taken always is, in order; what it
/// has taken is delivered again when its time has come.
pub fn is_due(sequence: u64, last_taken: u64, retry_at: Option<Timestamp>, now: Timestamp) -> bool {
    sequence > last_taken || retry_at.is_none_or(|at| at <= now)
}

/// Whether so many devices within the hour make people approve what a device alone would carry out.
pub fn is_at_scale(root: &RootDocument, count: u64, fleet: u64) -> bool {
    count > root.budgets.destructive_per_hour(fleet)
}

/// What an account did before, by hours since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pace {
    /// Of each hour: which, how many devices in all, and in the largest call.
    pub hours: Vec<(i64, u64, u64)>,
}

impl Pace {
    /// Devices asked in this hour and the one before it: a burst across the full hour counts.
    pub fn lately(&self, hour: i64) -> u64 {
        let near = self.hours.iter().filter(|(at, _, _)| hour - at <= 1);
        near.map(|(_, devices, _)| devices).sum()
    }

    fn largest(&self) -> Option<u64> {
        self.hours.iter().map(|(_, _, largest)| *largest).max()
    }

    /// Whether the account has acted within an hour of this time of day before, or is too little known to say.
    fn knows_time_of_day(&self, hour: i64) -> bool {
        let of_day = |hour: i64| hour.rem_euclid(24);
        let near = |at: i64| {
            let distance = (of_day(at) - of_day(hour)).rem_euclid(24);
            distance <= 1 || distance >= 23
        };
        self.hours.len() < HOURS_KNOWN_MIN || self.hours.iter().any(|(at, _, _)| near(*at))
    }
}

/// The hour since 1970.
pub fn hour_of(at: Timestamp) -> i64 {
    at.as_micros().div_euclid(3_600_000_000)
}

/// How many devices of a fleet one account reaches in an hour without being held.
pub fn mass_of(fleet: u64) -> u64 {
    MASS_DEVICES_MIN.max(fleet / 4)
}

/// Why a call on many devices is held until somebody else has looked at it; empty where it is not.
pub fn unusual(
    kind: &CommandKind,
    (count, fleet): (u64, u64),
    pace: &Pace,
    at: Timestamp,
    is_new_account: bool,
) -> Vec<String> {
    let mut why = Vec::new();
    if kind.is_harmless() {
        return why;
    }
    let hour = hour_of(at);
    let lately = pace.lately(hour) + count;
    let mass = mass_of(fleet);
    if lately > mass {
        why.push(format!(
            "rate: {lately} devices within the hour by one account, more than {mass}"
        ));
    }
    if count <= UNUSUAL_DEVICES_MIN.max(fleet / 10) {
        return why;
    }
    if is_new_account {
        why.push(format!("actor: {count} devices by an account that is new"));
    }
    if let Some(largest) = pace.largest()
        && count > largest.saturating_mul(UNUSUAL_FACTOR)
    {
        why.push(format!(
            "scope: {count} devices in one call, the largest of this account before had {largest}"
        ));
    }
    if !pace.knows_time_of_day(hour) {
        why.push("hour: the account has never acted at this time of day".to_owned());
    }
    why
}

#[cfg(test)]
mod tests {
    use muster_model::command::WipeMode;

    use super::*;

    const LOCK: CommandKind = CommandKind::Lock { message: None };

    fn at_hour(hour: i64) -> Timestamp {
        Timestamp::from_micros(hour * 3_600_000_000)
    }

    #[test]
    fn a_wait_doubles_is_jittered_and_has_an_end() {
        assert_eq!(retry_after(0, 0.0), Duration::from_secs(5));
        assert_eq!(retry_after(3, 1.0), Duration::from_secs(40));
        assert_eq!(retry_after(3, 0.0), Duration::from_secs(5));
        assert_eq!(retry_after(u32::MAX, 1.0), Duration::from_secs(3600));
        assert!(not_now_after(0.5) < Duration::from_secs(900));
    }

    #[test]
    fn what_was_never_taken_is_always_due_and_the_rest_in_its_time() {
        let later = Some(at_hour(2));
        assert!(is_due(5, 4, later, at_hour(1)));
        assert!(!is_due(4, 4, later, at_hour(1)));
        assert!(is_due(4, 4, later, at_hour(2)));
        assert!(is_due(4, 4, None, at_hour(1)));
    }

    #[test]
    fn harmless_commands_are_never_unusual() {
        let why = unusual(
            &CommandKind::CollectInventory {},
            (1_000_000, 1_000_000),
            &Pace::default(),
            at_hour(1),
            true,
        );
        assert!(why.is_empty());
    }

    #[test]
    fn m3_m6_rate_actor_scope_and_hour_are_told() {
        let words = |count, fleet, pace: &Pace, hour, new| -> Vec<String> {
            unusual(&LOCK, (count, fleet), pace, at_hour(hour), new)
                .iter()
                .filter_map(|why| why.split_once(':').map(|(word, _)| word.to_owned()))
                .collect()
        };
        let stranger = Pace::default();
        assert!(words(100, 200, &stranger, 1, true).is_empty());
        assert_eq!(words(101, 200, &stranger, 1, true), ["actor"]);
        assert_eq!(words(1001, 2000, &stranger, 1, false), ["rate"]);
        let busy = Pace {
            hours: vec![(9, 950, 10)],
        };
        assert_eq!(words(60, 2000, &busy, 10, false), ["rate"]);
        assert!(words(60, 2000, &busy, 11, false).is_empty());
        let small = Pace {
            hours: vec![(1, 30, 30)],
        };
        assert_eq!(words(150, 1000, &small, 50, false), ["scope"]);
        let by_day = Pace {
            hours: (0..20).map(|day| (day * 24 + 10, 500, 500)).collect(),
        };
        assert_eq!(words(150, 1000, &by_day, 20 * 24 + 3, false), ["hour"]);
        assert!(words(150, 1000, &by_day, 20 * 24 + 11, false).is_empty());
    }

    #[test]
    fn m6_a_lock_of_a_large_fleet_may_name_a_quarter_of_it() {
        let pace = Pace::default();
        assert!(unusual(&LOCK, (20_000, 80_000), &pace, at_hour(1), false).is_empty());
        assert!(!unusual(&LOCK, (20_001, 80_000), &pace, at_hour(1), false).is_empty());
        let wipe = CommandKind::Wipe { mode: WipeMode::Full };
        assert!(!unusual(&wipe, (80_000, 80_000), &pace, at_hour(1), false).is_empty());
    }
}
