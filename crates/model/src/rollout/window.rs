//! Maintenance windows: when devices may be moved.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::time::Timestamp;

/// Windows that one rollout may have.
pub const WINDOWS_MAX: usize = 16;
/// The farthest a zone is from UTC.
const OFFSET_MINUTES_MAX: i16 = 14 * 60;
/// How far back open time is counted: longer silence needs no exact number.
const COUNTED_DAYS_MAX: i64 = 92;
const DAY_MINUTES: i64 = 24 * 60;
const MINUTE_MICROS: i64 = 60_000_000;

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Weekday {
    pub const ALL: [Weekday; 7] = [
        Weekday::Mon,
        Weekday::Tue,
        Weekday::Wed,
        Weekday::Thu,
        Weekday::Fri,
        Weekday::Sat,
        Weekday::Sun,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Weekday::Mon => "mon",
            Weekday::Tue => "tue",
            Weekday::Wed => "wed",
            Weekday::Thu => "thu",
            Weekday::Fri => "fri",
            Weekday::Sat => "sat",
            Weekday::Sun => "sun",
        }
    }
}

/// A time of day, to the minute: `22:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeOfDay(u16);

impl FromStr for TimeOfDay {
    type Err = InvalidWindow;

    fn from_str(text: &str) -> Result<TimeOfDay, InvalidWindow> {
        let number = |part: &str| -> Option<u16> {
            (part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit()))
                .then(|| part.parse().ok())
                .flatten()
        };
        let read = text
            .split_once(':')
            .and_then(|(hours, minutes)| Some((number(hours)?, number(minutes)?)))
            .filter(|(hours, minutes)| *hours < 24 && *minutes < 60);
        let (hours, minutes) = read.ok_or(InvalidWindow::Time)?;
        Ok(TimeOfDay(hours * 60 + minutes))
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl Serialize for TimeOfDay {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TimeOfDay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TimeOfDay, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A window that comes again every week. Where `end` is not after `start`, it ends on the next day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The days on which it begins.
    pub days: Vec<Weekday>,
    pub start: TimeOfDay,
    pub end: TimeOfDay,
    /// What the clock on the wall is ahead of UTC.
    #[serde(default)]
    pub utc_offset_minutes: i16,
}

/// Why windows are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWindow {
    #[error("a time of day is written as HH:MM, from 00:00 to 23:59")]
    Time,
    #[error("a window names at least one day, each once")]
    Days,
    #[error("the offset from UTC is at most {OFFSET_MINUTES_MAX} minutes")]
    Offset,
    #[error("a rollout has at most {WINDOWS_MAX} windows")]
    TooMany,
}

impl Window {
    fn check(&self) -> Result<(), InvalidWindow> {
        let mut days = self.days.clone();
        days.sort_unstable();
        days.dedup();
        if days.is_empty() || days.len() != self.days.len() {
            return Err(InvalidWindow::Days);
        }
        if self.utc_offset_minutes.abs() > OFFSET_MINUTES_MAX {
            return Err(InvalidWindow::Offset);
        }
        Ok(())
    }

    fn minutes(&self) -> i64 {
        let minutes = i64::from(self.end.0) - i64::from(self.start.0);
        if minutes > 0 {
            minutes
        } else {
            minutes + DAY_MINUTES
        }
    }

    /// The window that begins on a local day (counted from 1970-01-01), in microseconds since the epoch.
    fn on(&self, day: i64) -> Option<(i64, i64)> {
        // 1970-01-01 was a Thursday.
        let weekday = Weekday::ALL[usize::try_from((day + 3).rem_euclid(7)).unwrap_or(0)];
        if !self.days.contains(&weekday) {
            return None;
        }
        let local = day * DAY_MINUTES + i64::from(self.start.0);
        let start = local - i64::from(self.utc_offset_minutes);
        Some((start * MINUTE_MICROS, (start + self.minutes()) * MINUTE_MICROS))
    }

    fn local_day(&self, at: i64) -> i64 {
        (at.div_euclid(MINUTE_MICROS) + i64::from(self.utc_offset_minutes)).div_euclid(DAY_MINUTES)
    }

    fn is_open(&self, now: i64) -> bool {
        let today = self.local_day(now);
        [today - 1, today]
            .into_iter()
            .filter_map(|day| self.on(day))
            .any(|(start, end)| (start..end).contains(&now))
    }
}

/// Refuses windows that cannot be meant.
pub fn check_windows(windows: &[Window]) -> Result<(), InvalidWindow> {
    if windows.len() > WINDOWS_MAX {
        return Err(InvalidWindow::TooMany);
    }
    windows.iter().try_for_each(Window::check)
}

/// Whether devices may be moved now: always, where there are no windows.
pub fn is_open(windows: &[Window], now: Timestamp) -> bool {
    windows.is_empty() || windows.iter().any(|window| window.is_open(now.as_micros()))
}

/// When the next window opens, if none is open.
pub fn next_opening(windows: &[Window], now: Timestamp) -> Option<Timestamp> {
    if is_open(windows, now) {
        return None;
    }
    let now = now.as_micros();
    let next = windows.iter().filter_map(|window| {
        let today = window.local_day(now);
        (today..=today + 7)
            .filter_map(|day| window.on(day))
            .find(|(start, _)| *start > now)
            .map(|(start, _)| start)
    });
    next.min().map(Timestamp::from_micros)
}

/// How long devices could be moved between two times.
pub fn open_time(windows: &[Window], from: Timestamp, to: Timestamp) -> Duration {
    if windows.is_empty() {
        return to.since(from);
    }
    let to = to.as_micros();
    let from = from
        .as_micros()
        .max(to.saturating_sub(COUNTED_DAYS_MAX * DAY_MINUTES * MINUTE_MICROS));
    let mut open: Vec<(i64, i64)> = windows
        .iter()
        .flat_map(|window| {
            (window.local_day(from) - 1..=window.local_day(to)).filter_map(|day| window.on(day))
        })
        .map(|(start, end)| (start.max(from), end.min(to)))
        .filter(|(start, end)| start < end)
        .collect();
    open.sort_unstable();
    let (mut sum, mut reached) = (0_i64, i64::MIN);
    for (start, end) in open {
        sum += (end - start.max(reached)).max(0);
        reached = reached.max(end);
    }
    Duration::from_micros(u64::try_from(sum).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window(text: &str) -> Window {
        serde_json::from_str(text).expect("it is a window")
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("it is a time")
    }

    fn nights() -> Vec<Window> {
        vec![window(
            r#"{"days":["mon","fri"],"start":"22:00","end":"05:00","utc_offset_minutes":60}"#,
        )]
    }

    #[test]
    fn p6_a_window_over_midnight_ends_on_the_next_day() {
        // 2026-11-27 is a Friday.
        for (time, wanted) in [
            ("2026-11-27T20:59:59Z", false),
            ("2026-11-27T21:00:00Z", true),
            ("2026-11-28T03:59:59Z", true),
            ("2026-11-28T04:00:00Z", false),
            ("2026-11-28T22:00:00Z", false),
            ("2026-11-30T21:00:00Z", true),
        ] {
            assert_eq!(is_open(&nights(), at(time)), wanted, "{time}");
        }
        assert!(is_open(&[], at("2026-11-28T22:00:00Z")));
    }

    #[test]
    fn the_next_opening_is_told_while_all_are_closed() {
        let next = next_opening(&nights(), at("2026-11-28T04:00:00Z"));
        assert_eq!(next, Some(at("2026-11-30T21:00:00Z")));
        assert_eq!(next_opening(&nights(), at("2026-11-27T21:00:00Z")), None);
    }

    #[test]
    fn open_time_counts_each_moment_once() {
        let mut windows = nights();
        let whole_week = open_time(&windows, at("2026-11-23T00:00:00Z"), at("2026-11-30T00:00:00Z"));
        assert_eq!(whole_week, Duration::from_secs(2 * 7 * 3600));
        windows.push(windows[0].clone());
        assert_eq!(
            open_time(&windows, at("2026-11-23T00:00:00Z"), at("2026-11-30T00:00:00Z")),
            whole_week
        );
        assert_eq!(
            open_time(&[], at("2026-11-23T00:00:00Z"), at("2026-11-23T01:00:00Z")),
            Duration::from_secs(3600)
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        assert!("24:00".parse::<TimeOfDay>().is_err() && "7:00".parse::<TimeOfDay>().is_err());
        assert_eq!(
            "07:05".parse::<TimeOfDay>().expect("it is a time").to_string(),
            "07:05"
        );
        let none = window(r#"{"days":[],"start":"22:00","end":"05:00"}"#);
        assert_eq!(check_windows(&[none]), Err(InvalidWindow::Days));
        let far = window(r#"{"days":["mon"],"start":"22:00","end":"05:00","utc_offset_minutes":900}"#);
        assert_eq!(check_windows(&[far]), Err(InvalidWindow::Offset));
        let many = vec![nights().remove(0); WINDOWS_MAX + 1];
        assert_eq!(check_windows(&many), Err(InvalidWindow::TooMany));
    }

    proptest! {
        #[test]
        fn open_time_agrees_with_asking_every_minute(
            start in 0..1440_u16, end in 0..1440_u16, days in proptest::collection::btree_set(0..7_usize, 1..7),
            offset in -840..=840_i16, from in 0..20_000_i64, length in 0..3000_i64,
        ) {
            let window = Window {
                days: days.into_iter().map(|day| Weekday::ALL[day]).collect(),
                start: TimeOfDay(start),
                end: TimeOfDay(end),
                utc_offset_minutes: offset,
            };
            let windows = [window];
            let time = |minute: i64| Timestamp::from_unix_seconds(1_800_000_000 + (from + minute) * 60);
            let asked = (0..length).filter(|minute| is_open(&windows, time(*minute))).count();
            let open = open_time(&windows, time(0), time(length));
            prop_assert_eq!(open.as_secs(), asked as u64 * 60);
        }
    }
}
