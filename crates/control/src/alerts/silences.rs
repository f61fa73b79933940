//! Silences and maintenance windows: alerts of which nobody is told for a while. They begin and end all the same. Pure.

use std::time::Duration;

use muster_model::{SilenceId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::rules::{self, Alert, Severity};
use crate::access::problem::{INVALID, Problem};

/// The longest silence that does not repeat, and the longest time for which one repeats.
const SILENCE_MAX: Duration = Duration::from_secs(30 * 86_400);
const REPEAT_MAX: Duration = Duration::from_secs(366 * 86_400);
const WEEK: Duration = Duration::from_secs(7 * 86_400);
const PATTERN_BYTES_MAX: usize = 128;
const REASON_CHARS: std::ops::RangeInclusive<usize> = 3..=500;

/// Which alerts are meant: those that fit every part that is there. At least one part is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Matcher {
    /// The rule's name; `*` stands for anything, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What the alert is about; `*` stands for anything, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
}

impl Matcher {
    /// Whether an alert is meant: with an object, every one of the alert's objects has to fit.
    pub fn fits(&self, alert: &Alert) -> bool {
        let is = |pattern: &Option<String>, text: &str| {
            pattern
                .as_deref()
                .is_none_or(|pattern| rules::matches(pattern, text))
        };
        is(&self.rule, &alert.rule)
            && self.severity.is_none_or(|severity| severity == alert.severity)
            && (self.object.is_none()
                || alert
                    .instances
                    .iter()
                    .all(|instance| is(&self.object, &instance.object)))
    }
}

/// A silence as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Silence {
    pub id: SilenceId,
    pub matcher: Matcher,
    pub reason: String,
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
    /// It comes again every week until then.
    pub weekly_until: Option<Timestamp>,
    pub created_by: String,
    pub created_at: Timestamp,
    /// When somebody ended it early.
    pub ended_at: Option<Timestamp>,
}

impl Silence {
    /// Checks what somebody asks for.
    pub fn check(&self, now: Timestamp) -> Result<(), Problem> {
        let refuse = |detail: &str| Err(INVALID.detail(detail));
        let Matcher {
            rule,
            object,
            severity,
        } = &self.matcher;
        let is_pattern = |pattern: &Option<String>| {
            pattern.as_deref().is_none_or(|pattern| {
                !pattern.is_empty() && pattern.len() <= PATTERN_BYTES_MAX && pattern.matches('*').count() <= 1
            })
        };
        if rule.is_none() && object.is_none() && severity.is_none() {
            return refuse(
                "A silence names a rule, an object or a severity: one that fits everything is not given.",
            );
        }
        if !is_pattern(rule) || !is_pattern(object) {
            return refuse("A pattern has 1 to 128 bytes and at most one `*`.");
        }
        if !REASON_CHARS.contains(&self.reason.trim().chars().count()) {
            return refuse("Say why, in 3 to 500 characters: others see an alert that nobody is told of.");
        }
        if self.ends_at <= self.starts_at || self.ends_at <= now {
            return refuse("It ends after it starts, and not before now.");
        }
        let length = self.ends_at.since(self.starts_at);
        if length > SILENCE_MAX {
            return refuse("A silence lasts at most 30 days.");
        }
        match self.weekly_until {
            Some(_) if length >= WEEK => refuse("What repeats every week lasts less than a week."),
            Some(until) if until > self.starts_at.plus(REPEAT_MAX) => {
                refuse("It repeats for at most a year.")
            }
            _ => Ok(()),
        }
    }

    /// Whether it counts now.
    pub fn is_active(&self, now: Timestamp) -> bool {
        if now < self.starts_at || self.is_over(now) {
            return false;
        }
        let length = self.ends_at.since(self.starts_at);
        let into = now.since(self.starts_at);
        if self.weekly_until.is_none() {
            return into < length;
        }
        let into_week = into.as_micros() % WEEK.as_micros();
        into_week < length.as_micros()
    }

    /// Whether it never counts again.
    pub fn is_over(&self, now: Timestamp) -> bool {
        let last = self
            .weekly_until
            .map_or(self.ends_at, |until| until.max(self.ends_at));
        self.ended_at.is_some() || now >= last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn silence(weekly_weeks: Option<u32>) -> Silence {
        let start = Timestamp::from_unix_seconds(1_800_000_000);
        Silence {
            id: SilenceId::generate(start, [0; 10]),
            matcher: Matcher {
                rule: Some("expiry_*".to_owned()),
                ..Matcher::default()
            },
            reason: "Database move".to_owned(),
            starts_at: start,
            ends_at: start.plus(HOUR * 2),
            weekly_until: weekly_weeks.map(|weeks| start.plus(WEEK * weeks)),
            created_by: "client:x".to_owned(),
            created_at: start,
            ended_at: None,
        }
    }

    #[test]
    fn a_silence_counts_between_its_times() {
        let silence = silence(None);
        let at = |duration: Duration| silence.is_active(silence.starts_at.plus(duration));
        assert!(at(Duration::ZERO) && at(HOUR) && !at(HOUR * 2) && !at(WEEK));
        assert!(!silence.is_active(silence.starts_at.minus(HOUR)));
        let ended = Silence {
            ended_at: Some(silence.starts_at.plus(HOUR)),
            ..silence.clone()
        };
        assert!(!ended.is_active(silence.starts_at.plus(HOUR)));
    }

    #[test]
    fn a_maintenance_window_comes_again_every_week() {
        let silence = silence(Some(3));
        let at = |duration: Duration| silence.is_active(silence.starts_at.plus(duration));
        assert!(at(HOUR) && at(WEEK + HOUR) && at(WEEK * 2));
        assert!(!at(HOUR * 3) && !at(WEEK + HOUR * 2) && !at(WEEK * 3 + HOUR));
    }

    #[test]
    fn what_silences_everything_or_says_no_reason_is_refused() {
        let good = silence(None);
        let now = good.starts_at;
        assert!(good.check(now).is_ok());
        let wrong = [
            Silence {
                matcher: Matcher::default(),
                ..good.clone()
            },
            Silence {
                reason: "  ".to_owned(),
                ..good.clone()
            },
            Silence {
                ends_at: good.starts_at,
                ..good.clone()
            },
            Silence {
                ends_at: good.starts_at.plus(SILENCE_MAX * 2),
                ..good.clone()
            },
            Silence {
                weekly_until: Some(now.plus(REPEAT_MAX * 2)),
                ..good.clone()
            },
            Silence {
                matcher: Matcher {
                    object: Some("a*b*".to_owned()),
                    ..Matcher::default()
                },
                ..good.clone()
            },
        ];
        for silence in wrong {
            assert!(silence.check(now).is_err(), "{silence:?}");
        }
    }
}
