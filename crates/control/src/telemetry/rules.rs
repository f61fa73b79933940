//! Pure decisions: where a window belongs, at which resolution a question is answered, when a device is to come back.

use std::collections::BTreeMap;

use muster_model::{
    Timestamp,
    telemetry::{Metric, MetricKind},
    time::InvalidTimestamp,
};

use super::series::{Point, SeriesKey, SeriesSet, Windows};

const HOUR: i64 = 3600;
const DAY: i64 = 86_400;
/// A clock that is wrong by less is taken as right: messages take their time too.
pub const CLOCK_TOLERANCE_SECONDS: i64 = 120;
/// A window that begins later than this after now is of no use.
const FUTURE_SECONDS_MAX: i64 = 3600;
/// How many steps a chart has, unless somebody says how long they are.
const STEPS: i64 = 240;
/// Steps that a chart may have.
pub const STEPS_MAX: i64 = 2000;
/// How long steps are, unless somebody says it.
const STEP_SECONDS: [i64; 12] = [
    60,
    300,
    900,
    1800,
    3600,
    7200,
    14_400,
    21_600,
    43_200,
    DAY,
    7 * DAY,
    28 * DAY,
];
/// From this part of the queue on, devices are asked to come later.
const PRESSURE: f64 = 0.5;
/// How much later, at most.
const NOT_BEFORE_SECONDS_MAX: f64 = 900.0;
/// When a device that was turned away comes again, and how much later at most.
const RETRY_SECONDS: u64 = 10;
const RETRY_SPREAD_SECONDS: u64 = 50;

/// A resolution at which windows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// As the device sent them.
    Raw,
    /// Of an hour.
    Hour,
    /// Of a day.
    Day,
}

impl Level {
    pub const ALL: [Level; 3] = [Level::Raw, Level::Hour, Level::Day];

    /// How the database names it.
    pub fn number(self) -> i64 {
        match self {
            Level::Raw => 0,
            Level::Hour => 1,
            Level::Day => 2,
        }
    }

    /// How people name it.
    pub fn name(self) -> &'static str {
        match self {
            Level::Raw => "raw",
            Level::Hour => "hour",
            Level::Day => "day",
        }
    }

    /// How long its windows are; those of `Raw` are as long as the device made them, a minute at least.
    pub fn window_seconds(self) -> i64 {
        match self {
            Level::Raw => 60,
            Level::Hour => HOUR,
            Level::Day => DAY,
        }
    }

    /// What one chunk spans. About as many windows at each level.
    pub fn span_seconds(self) -> i64 {
        match self {
            Level::Raw => DAY,
            Level::Hour => 8 * DAY,
            Level::Day => 64 * DAY,
        }
    }

    /// How long its windows are kept, of `days` altogether.
    pub fn kept_seconds(self, days: u32) -> i64 {
        let days = match self {
            Level::Raw => days.min(8),
            Level::Hour => days.min(96),
            Level::Day => days,
        };
        i64::from(days) * DAY
    }

    /// The span that a moment is in.
    pub fn span_of(self, at: i64) -> i64 {
        floor(at, self.span_seconds())
    }

    /// The windows of this level that windows of a device make.
    fn roll_up(self, key: &SeriesKey, windows: &[Point]) -> (SeriesKey, Windows) {
        let width = self.window_seconds();
        if self == Level::Raw || i64::from(key.window_seconds) >= width {
            return (key.clone(), Windows::of(key, windows.to_vec()));
        }
        let wide = SeriesKey {
            window_seconds: u32::try_from(width).unwrap_or(u32::MAX),
            ..key.clone()
        };
        let points = windows.iter().map(|point| Point {
            at: floor(point.at, width),
            of: point.of.clone(),
        });
        let windows = Windows::of(&wide, points.collect());
        (wide, windows)
    }
}

pub fn floor(at: i64, width: i64) -> i64 {
    at.div_euclid(width).saturating_mul(width)
}

pub fn ceil(at: i64, width: i64) -> i64 {
    floor(at.saturating_add(width - 1), width)
}

/// Windows by the chunk that they belong to.
pub type Spread = BTreeMap<(Level, i64), SeriesSet>;

/// Puts windows into the chunks of every level that still keeps them.
pub fn spread(set: &SeriesSet, now: i64, days: u32) -> Spread {
    let mut spread = Spread::new();
    for level in Level::ALL {
        let oldest = now.saturating_sub(level.kept_seconds(days));
        for (key, windows) in &set.series {
            let kept = windows.points().partition_point(|point| point.at < oldest);
            let same_span = |one: &Point, next: &Point| level.span_of(one.at) == level.span_of(next.at);
            for part in windows.points()[kept..].chunk_by(same_span) {
                let (key, windows) = level.roll_up(key, part);
                let chunk = spread.entry((level, level.span_of(part[0].at))).or_default();
                chunk.add(key, windows);
            }
        }
    }
    spread
}

/// What became of the windows of a batch.
#[derive(Debug, Default, PartialEq)]
pub struct Placed {
    pub set: SeriesSet,
    pub points: u64,
    /// Older than anything that is kept.
    pub expired: u64,
    /// Past the limits, or from the future.
    pub refused: u64,
}

/// Puts windows of the device's time onto the server's: later by `offset` seconds.
pub fn place(
    series: impl IntoIterator<Item = (SeriesKey, Vec<Point>)>,
    offset: i64,
    now: i64,
    days: u32,
) -> Placed {
    let mut placed = Placed::default();
    let oldest = now.saturating_sub(Level::Day.kept_seconds(days));
    for (key, mut points) in series {
        points.retain_mut(|point| {
            point.at = point.at.saturating_add(offset);
            let (is_expired, is_future) = (point.at < oldest, point.at > now + FUTURE_SECONDS_MAX);
            placed.expired += u64::from(is_expired);
            placed.refused += u64::from(is_future);
            !is_expired && !is_future
        });
        if points.is_empty() {
            continue;
        }
        placed.points += points.len() as u64;
        let windows = Windows::of(&key, points);
        placed.set.add(key, windows);
    }
    placed
}

/// What is known of a device's clock when a batch comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReadings {
    /// By how much the server's clock was ahead of the device's at its last check-in with this node, in microseconds.
    pub at_checkin: Option<i64>,
    /// The device's clock when the batch was made.
    pub made_at: Timestamp,
    pub received_at: Timestamp,
}

/// By how many microseconds the server's clock is ahead of the device's: none where it cannot be known.
///
/// A batch may have waited on the device for weeks, so that only one from the future says something by itself.
pub fn clock_offset(readings: &ClockReadings) -> Option<i64> {
    let since_made = readings
        .received_at
        .as_micros()
        .saturating_sub(readings.made_at.as_micros());
    readings.at_checkin.or((since_made < 0).then_some(since_made))
}

/// The seconds to add to a device's times.
pub fn correction(offset: Option<i64>) -> i64 {
    let seconds = offset.unwrap_or(0) / 1_000_000;
    if seconds.abs() <= CLOCK_TOLERANCE_SECONDS {
        0
    } else {
        seconds
    }
}

/// A span of time of which something is asked, in seconds since the epoch: `[from, to)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from: i64,
    pub to: i64,
}

impl Span {
    pub fn seconds(self) -> i64 {
        self.to - self.from
    }

    /// Widened to whole windows.
    fn widened(self, width: i64) -> Span {
        Span {
            from: floor(self.from, width),
            to: ceil(self.to, width),
        }
    }
}

/// How a chart of one device is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chart {
    pub level: Level,
    pub span: Span,
    pub step_seconds: i64,
}

/// The finest resolution that has the whole span and not more than a chart can show.
pub fn chart(span: Span, step: Option<i64>, now: i64, days: u32) -> Chart {
    let level = finest(span, now, days, [2 * DAY, 62 * DAY]);
    let wanted = step.unwrap_or_else(|| {
        let step = STEP_SECONDS.iter().find(|step| **step * STEPS >= span.seconds());
        step.copied().unwrap_or(28 * DAY)
    });
    let least = level.window_seconds().max(span.seconds() / STEPS_MAX + 1);
    let step_seconds = ceil(wanted.max(least), level.window_seconds());
    Chart {
        level,
        span: span.widened(step_seconds),
        step_seconds,
    }
}

/// The resolution at which all devices are asked about a span, and the span in whole windows of it.
pub fn survey(span: Span, now: i64, days: u32) -> (Level, Span) {
    let level = finest(span, now, days, [6 * HOUR, 4 * DAY]);
    let width = match level {
        Level::Raw => 300,
        Level::Hour | Level::Day => level.window_seconds(),
    };
    (level, span.widened(width))
}

/// The finest level that keeps all of a span and is meant for one so long.
fn finest(span: Span, now: i64, days: u32, seconds_max: [i64; 2]) -> Level {
    let fits = |level: Level, seconds_max: i64| {
        span.seconds() <= seconds_max && span.from >= now.saturating_sub(level.kept_seconds(days))
    };
    if fits(Level::Raw, seconds_max[0]) {
        Level::Raw
    } else if fits(Level::Hour, seconds_max[1]) {
        Level::Hour
    } else {
        Level::Day
    }
}

/// Two spans of whole days that are compared: the first and the last tenth of the days up to now.
pub fn compared(days: u32, now: i64) -> (Span, Span) {
    let to = ceil(now, DAY);
    let from = to - i64::from(days) * DAY;
    let width = i64::from((days / 10).max(1)) * DAY;
    let before = Span {
        from,
        to: from + width,
    };
    (before, Span { from: to - width, to })
}

/// How one number is made of what a device measured in a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistic {
    /// The mean of all samples; of a counter, how much it grew.
    Value,
    Min,
    Max,
}

/// Whether the samples of a metric are increases.
pub fn is_counter(metric: &str) -> bool {
    let by_catalogue = Metric::parse(metric).map(|metric| metric.def().kind == MetricKind::Counter);
    by_catalogue.unwrap_or_else(|| metric.ends_with("_total"))
}

/// The number that a sorted list of numbers has at a quantile, between two of them by proportion, as PromQL's `quantile`.
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let rank = q.clamp(0.0, 1.0) * last as f64;
    let (low, high) = (rank.floor() as usize, rank.ceil() as usize);
    let weight = rank - rank.floor();
    Some(sorted[low.min(last)] * (1.0 - weight) + sorted[high.min(last)] * weight)
}

/// How many seconds a device is asked to wait with its next batch, of how full the queue is (0 to 1).
pub fn not_before_seconds(fill: f64) -> u32 {
    let pressure = ((fill - PRESSURE) / (1.0 - PRESSURE)).clamp(0.0, 1.0);
    (pressure * NOT_BEFORE_SECONDS_MAX) as u32
}

/// When a device that found the queue full comes again: not all at once.
pub fn retry_after_seconds(draw: u8) -> u64 {
    RETRY_SECONDS + u64::from(draw) * RETRY_SPREAD_SECONDS / 255
}

/// Reads a time as people and programs write it: RFC 3339, seconds since the epoch, or `-6h`, `-30d` from now.
pub fn moment(text: &str, now: i64) -> Result<i64, InvalidTimestamp> {
    if let Some(ago) = text.strip_prefix('-') {
        let unit = ago.chars().last().ok_or(InvalidTimestamp)?;
        let seconds = match unit {
            'm' => 60,
            'h' => HOUR,
            'd' => DAY,
            _ => return Err(InvalidTimestamp),
        };
        let number: i64 = ago[..ago.len() - 1]
            .parse::<u32>()
            .map_err(|_| InvalidTimestamp)?
            .into();
        return Ok(now.saturating_sub(number.saturating_mul(seconds)));
    }
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(seconds.into());
    }
    text.parse::<Timestamp>().map(Timestamp::as_unix_seconds)
}

#[cfg(test)]
mod tests {
    use muster_model::telemetry::Aggregate;

    use super::*;

    const NOW: i64 = 1_795_900_200;

    fn key() -> SeriesKey {
        SeriesKey {
            metric: "load1".to_owned(),
            subject: String::new(),
            window_seconds: 300,
        }
    }

    fn points(at: impl IntoIterator<Item = i64>) -> Vec<Point> {
        let point = |at| Point {
            at,
            of: Aggregate::of(1.0),
        };
        at.into_iter().map(point).collect()
    }

    #[test]
    fn every_sample_is_in_each_level_that_keeps_it() {
        let at = (0..40).map(|day| NOW - day * DAY).chain([NOW - 100 * DAY]);
        let placed = place([(key(), points(at))], 0, NOW, 400);
        assert_eq!((placed.points, placed.expired, placed.refused), (41, 0, 0));
        let samples = |level| -> u64 {
            let spread = spread(&placed.set, NOW, 400);
            let chunks = spread.iter().filter(|((of, _), _)| *of == level);
            let windows = chunks.flat_map(|(_, set)| set.series.values().flat_map(Windows::points));
            windows.map(|point| point.of.count).sum()
        };
        assert_eq!(samples(Level::Raw), 9);
        assert_eq!(samples(Level::Hour), 40);
        assert_eq!(samples(Level::Day), 41);
    }

    #[test]
    fn windows_of_an_hour_become_one() {
        let placed = place(
            [(key(), points((0..24).map(|place| NOW - 7200 + place * 300)))],
            0,
            NOW,
            400,
        );
        let spread = spread(&placed.set, NOW, 400);
        let hours: Vec<(i64, u64)> = spread
            .iter()
            .filter(|((level, _), _)| *level == Level::Hour)
            .flat_map(|(_, set)| set.series.iter())
            .flat_map(|(key, windows)| {
                assert_eq!(key.window_seconds, 3600);
                windows
                    .points()
                    .iter()
                    .map(|point| (point.at % 3600, point.of.count))
            })
            .collect();
        assert!(hours.iter().all(|(at, _)| *at == 0));
        assert_eq!(hours.iter().map(|(_, count)| count).sum::<u64>(), 24);
        assert!(hours.len() <= 3, "{hours:?}");
    }

    #[test]
    fn what_is_too_old_or_of_the_future_is_counted() {
        let placed = place(
            [(key(), points([NOW - 500 * DAY, NOW, NOW + 2 * HOUR]))],
            0,
            NOW,
            400,
        );
        assert_eq!((placed.points, placed.expired, placed.refused), (1, 1, 1));
        // The same window of a device whose clock is two hours ahead.
        let placed = place([(key(), points([NOW + 2 * HOUR]))], -2 * HOUR, NOW, 400);
        assert_eq!((placed.points, placed.refused), (1, 0));
    }

    #[test]
    fn a_batch_that_waited_says_nothing_about_the_clock() {
        let at = Timestamp::from_unix_seconds;
        let readings = |at_checkin, made_at| ClockReadings {
            at_checkin,
            made_at: at(made_at),
            received_at: at(NOW),
        };
        assert_eq!(clock_offset(&readings(None, NOW - 14 * DAY)), None);
        assert_eq!(clock_offset(&readings(None, NOW + 10)), Some(-10_000_000));
        assert_eq!(clock_offset(&readings(Some(7), NOW + 10)), Some(7));
        assert_eq!(correction(Some(100_000_000)), 0);
        assert_eq!(correction(Some(-7_200_400_000)), -7200);
        assert_eq!(correction(None), 0);
    }

    #[test]
    fn a_question_is_answered_at_a_resolution_that_has_it() {
        let span = |ago: i64, length: i64| Span {
            from: NOW - ago,
            to: NOW - ago + length,
        };
        let level = |ago, length| chart(span(ago, length), None, NOW, 400).level;
        assert_eq!(level(DAY, DAY), Level::Raw);
        assert_eq!(level(30 * DAY, DAY), Level::Hour);
        assert_eq!(level(30 * DAY, 30 * DAY), Level::Hour);
        assert_eq!(level(300 * DAY, DAY), Level::Day);
        let chart = chart(span(DAY, DAY), None, NOW, 400);
        assert_eq!(chart.step_seconds, 900);
        assert_eq!((chart.span.from % 900, chart.span.to % 900), (0, 0));
        assert!(chart.span.seconds() / chart.step_seconds <= STEPS_MAX);
        let (level, wide) = survey(span(30 * DAY, 30 * DAY), NOW, 400);
        assert_eq!((level, wide.from % DAY, wide.to % DAY), (Level::Day, 0, 0));
    }

    #[test]
    fn a_chart_never_has_too_many_steps() {
        let span = Span { from: 0, to: NOW };
        let chart = chart(span, Some(1), NOW, 400);
        assert!(
            chart.span.seconds() / chart.step_seconds <= STEPS_MAX,
            "{chart:?}"
        );
    }

    #[test]
    fn a_fuller_queue_keeps_devices_away_longer() {
        assert_eq!(not_before_seconds(0.4), 0);
        assert!(not_before_seconds(0.6) < not_before_seconds(0.9));
        assert_eq!(not_before_seconds(2.0), 900);
        assert_eq!((retry_after_seconds(0), retry_after_seconds(255)), (10, 60));
    }

    #[test]
    fn quantiles_lie_between_numbers() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[4.0], 0.99), Some(4.0));
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0], 0.5), Some(2.5));
        assert_eq!(quantile(&[1.0, 2.0], 1.0), Some(2.0));
    }

    #[test]
    fn moments_are_read_as_people_write_them() {
        assert_eq!(moment("-6h", NOW), Ok(NOW - 6 * HOUR));
        assert_eq!(moment("-30d", NOW), Ok(NOW - 30 * DAY));
        assert_eq!(moment("1795900200", NOW), Ok(NOW));
        assert_eq!(moment("2026-11-23T21:00:00Z", NOW), Ok(1_795_467_600));
        for wrong in ["", "-", "-6", "-6y", "-é", "yesterday", "-99999999999d"] {
            assert_eq!(moment(wrong, NOW), Err(InvalidTimestamp), "{wrong}");
        }
    }

    #[test]
    fn the_first_and_the_last_days_are_compared() {
        let (before, after) = compared(30, NOW);
        assert_eq!(before.seconds(), 3 * DAY);
        assert_eq!(after.to - before.from, 30 * DAY);
        assert!(after.to >= NOW && after.to - NOW < DAY);
    }
}
