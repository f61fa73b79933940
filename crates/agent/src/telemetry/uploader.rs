//! When a batch is sent: at once if something is urgent, otherwise at its interval, in the hours that policy leaves, within
//! what the server grants, and less and less often while the server cannot be reached.

use std::time::Duration;

use muster_channel_agent::backoff::Backoff;
use muster_channel_agent::telemetry::TelemetryAnswer;

/// First and longest delay between attempts.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(900));
/// The longest that a server may put off.
const PUT_OFF_MAX: Duration = Duration::from_secs(86_400);
/// The least that a server grants: otherwise a device would never get rid of a batch.
const BYTES_PER_HOUR_MIN: u64 = 4096;
const HOUR_SECONDS: f64 = 3600.0;

/// What is known when a batch could be sent.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The boot clock.
    pub since_boot: Duration,
    /// Something waits that is not to wait.
    pub is_urgent: bool,
    /// Policy's hours for uploads.
    pub is_in_window: bool,
}

/// A budget that fills up over an hour.
#[derive(Clone, Copy, Debug)]
struct Budget {
    bytes_per_hour: u64,
    left: f64,
    at: Duration,
}

impl Budget {
    fn left_at(&self, now: Duration) -> f64 {
        let full = self.bytes_per_hour as f64;
        let elapsed = now.saturating_sub(self.at).as_secs_f64();
        (self.left + full * elapsed / HOUR_SECONDS).min(full)
    }
}

/// The schedule of uploads.
#[derive(Debug)]
pub struct Uploader {
    /// When the next regular upload is due.
    regular_at: Duration,
    /// Before this nothing is sent.
    blocked_until: Duration,
    /// Before this nothing regular is sent.
    not_before: Duration,
    /// More than one batch waits, or one was not accepted yet.
    is_behind: bool,
    budget: Option<Budget>,
    backoff: Backoff,
}

impl Uploader {
    /// The first regular upload comes within an interval, at random, so that devices that start together do not come
    /// together.
    pub fn new(since_boot: Duration, interval: Duration, random: u64) -> Self {
        let first = muster_channel_agent::backoff::full_jitter(random, interval);
        Self {
            regular_at: since_boot + first,
            blocked_until: Duration::ZERO,
            not_before: Duration::ZERO,
            is_behind: false,
            budget: None,
            backoff: Backoff::new(RETRY.0, RETRY.1),
        }
    }

    /// Whether a batch is sent now.
    pub fn is_due(&self, moment: Moment) -> bool {
        let now = moment.since_boot;
        let has_budget = self.budget.is_none_or(|budget| budget.left_at(now) > 0.0);
        if now < self.blocked_until || !has_budget {
            return false;
        }
        moment.is_urgent
            || (moment.is_in_window && now >= self.not_before && (self.is_behind || now >= self.regular_at))
    }

    /// Another interval holds from now on.
    pub fn replan(&mut self, since_boot: Duration, interval: Duration) {
        self.regular_at = self.regular_at.min(since_boot + interval);
    }

    /// Bytes went out, whatever comes of them.
    pub fn on_sent(&mut self, since_boot: Duration, bytes: usize) {
        if let Some(budget) = &mut self.budget {
            budget.left = budget.left_at(since_boot) - bytes as f64;
            budget.at = since_boot;
        }
    }

    /// The server has a batch.
    pub fn on_accepted(
        &mut self,
        since_boot: Duration,
        answer: &TelemetryAnswer,
        interval: Duration,
        is_more: bool,
    ) {
        self.backoff.succeeded();
        self.blocked_until = Duration::ZERO;
        self.is_behind = is_more;
        self.regular_at = since_boot + interval;
        let put_off = Duration::from_secs(u64::from(answer.not_before_seconds)).min(PUT_OFF_MAX);
        self.not_before = since_boot + put_off;
        self.budget = answer.bytes_per_hour.map(|granted| {
            let granted = granted.max(BYTES_PER_HOUR_MIN);
            let before = self.budget.filter(|budget| budget.bytes_per_hour == granted);
            Budget {
                bytes_per_hour: granted,
                left: before.map_or(granted as f64, |budget| budget.left_at(since_boot)),
                at: since_boot,
            }
        });
    }

    /// No answer, or one that asks to come again. The batch stays.
    pub fn on_failed(&mut self, since_boot: Duration, retry_after: Option<Duration>, random: u64) {
        let floor = retry_after.map(|delay| delay.min(PUT_OFF_MAX));
        self.blocked_until = since_boot + self.backoff.failed(random, floor);
        self.is_behind = true;
    }

    /// There was nothing to send.
    pub fn on_nothing(&mut self, since_boot: Duration, interval: Duration) {
        self.is_behind = false;
        self.regular_at = since_boot + interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(900);

    fn at(seconds: u64) -> Moment {
        Moment {
            since_boot: Duration::from_secs(seconds),
            is_urgent: false,
            is_in_window: true,
        }
    }

    fn urgent(seconds: u64) -> Moment {
        Moment {
            is_urgent: true,
            is_in_window: false,
            ..at(seconds)
        }
    }

    fn answer(bytes_per_hour: Option<u64>, not_before_seconds: u32) -> TelemetryAnswer {
        TelemetryAnswer {
            accepted_through: 1,
            server_time: "2026-11-28T12:00:00Z".parse().expect("a time"),
            bytes_per_hour,
            not_before_seconds,
        }
    }

    fn accepted(answer: &TelemetryAnswer) -> Uploader {
        let mut uploader = Uploader::new(Duration::ZERO, INTERVAL, 0);
        uploader.on_accepted(Duration::from_secs(1000), answer, INTERVAL, false);
        uploader
    }

    #[test]
    fn a_regular_upload_waits_for_its_interval_and_its_hours() {
        let uploader = accepted(&answer(None, 0));
        assert!(!uploader.is_due(at(1899)));
        assert!(uploader.is_due(at(1900)));
        let outside = Moment {
            is_in_window: false,
            ..at(1900)
        };
        assert!(!uploader.is_due(outside));
        assert!(uploader.is_due(urgent(1001)));
    }

    #[test]
    fn what_is_behind_goes_on_at_once_unless_the_server_puts_it_off() {
        let mut uploader = accepted(&answer(None, 0));
        uploader.on_accepted(Duration::from_secs(1000), &answer(None, 0), INTERVAL, true);
        assert!(uploader.is_due(at(1000)));
        uploader.on_accepted(Duration::from_secs(1000), &answer(None, 60), INTERVAL, true);
        assert!(!uploader.is_due(at(1059)));
        assert!(uploader.is_due(at(1060)));
        assert!(uploader.is_due(urgent(1001)));
    }

    #[test]
    fn the_budget_fills_up_over_an_hour_and_binds_what_is_urgent_too() {
        let mut uploader = accepted(&answer(Some(36_000), 0));
        uploader.on_sent(Duration::from_secs(1000), 40_000);
        assert!(!uploader.is_due(urgent(1300)));
        assert!(uploader.is_due(urgent(1500)));
    }

    #[test]
    fn a_failure_blocks_for_as_long_as_the_server_asks() {
        let mut uploader = accepted(&answer(None, 0));
        uploader.on_failed(Duration::from_secs(1900), Some(Duration::from_secs(120)), 0);
        assert!(!uploader.is_due(urgent(2019)));
        assert!(uploader.is_due(at(2020)));
    }
}
