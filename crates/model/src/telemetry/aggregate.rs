//! Samples of one metric over a span of time, summed up on the device.

use serde::{Deserialize, Serialize};

use super::metric::Quantiles;
use super::number;
use super::sketch::Sketch;
use crate::time::Timestamp;

/// The longest window, in seconds.
pub const WINDOW_SECONDS_MAX: u32 = 7 * 86_400;
/// Up to this many samples are known from their least, their greatest and their sum, so that no sketch is sent for them.
const PLAIN_COUNT_MAX: u64 = 3;
/// The most samples of one window.
const COUNT_MAX: u64 = 1 << 32;
/// The first and last second at which a window may start: the years 1970 to 9999.
const STARTS: std::ops::RangeInclusive<i64> = 0..=253_402_300_799;
/// How far a sum may be off by rounding, as a part of the largest value times the count.
const SUM_SLACK: f64 = 1e-3;

/// What is kept of at least one sample. The samples of a counter are increases, so that `sum` is the increase of the window.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// How many samples.
    pub count: u64,
    pub min: f64,
    pub max: f64,
    pub sum: f64,
    /// The latest sample.
    pub last: f64,
    sketch: Option<Sketch>,
}

impl Aggregate {
    /// Of one sample, which is finite.
    pub fn of(value: f64) -> Self {
        Self {
            count: 1,
            min: value,
            max: value,
            sum: value,
            last: value,
            sketch: None,
        }
    }

    /// From its parts, as a store keeps them. `sketch` may be missing, and is where it would say nothing more.
    pub fn from_parts(count: u64, [min, max, sum, last]: [f64; 4], sketch: Option<Sketch>) -> Self {
        Self {
            count,
            min,
            max,
            sum,
            last,
            sketch: sketch.filter(|_| count > PLAIN_COUNT_MAX),
        }
    }

    /// Takes up samples that came later.
    pub fn merge(&mut self, later: &Aggregate, quantiles: Quantiles) {
        let sketch = match quantiles {
            Quantiles::Plain => None,
            Quantiles::Sketched => self.sketch().zip(later.sketch()).map(|(mut sketch, other)| {
                sketch.merge(&other);
                sketch
            }),
        };
        let [min, max] = [self.min.min(later.min), self.max.max(later.max)];
        let count = self.count.saturating_add(later.count);
        *self = Self::from_parts(count, [min, max, self.sum + later.sum, later.last], sketch);
    }

    /// Rounds to this many decimals, which makes the text of numbers short.
    pub fn round(&mut self, decimals: i32) {
        let scale = 10_f64.powi(decimals);
        for value in [&mut self.min, &mut self.max, &mut self.sum, &mut self.last] {
            let rounded = (*value * scale).round() / scale;
            if rounded.is_finite() {
                *value = rounded;
            }
        }
    }

    pub fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }

    /// The sketch of the samples, rebuilt where there are so few that it is implied; none where none was kept.
    pub fn sketch(&self) -> Option<Sketch> {
        if self.count > PLAIN_COUNT_MAX {
            return self.sketch.clone();
        }
        let mut sketch = Sketch::default();
        sketch.observe(self.min);
        if self.count > 1 {
            sketch.observe(self.max);
        }
        if self.count > 2 {
            let (low, high) = (self.min.min(self.max), self.max.max(self.min));
            sketch.observe((self.sum - self.min - self.max).max(low).min(high));
        }
        Some(sketch)
    }

    /// The sketch as it stands on the wire: left out where it is implied.
    pub fn explicit_sketch(&self) -> Option<&Sketch> {
        self.sketch.as_ref()
    }

    fn check(&self) -> Result<(), InvalidWindow> {
        let numbers = [self.min, self.max, self.sum, self.last];
        if self.count == 0 || self.count > COUNT_MAX {
            return Err(InvalidWindow("its count is out of range"));
        }
        if numbers.iter().any(|number| !number.is_finite()) {
            return Err(InvalidWindow("a number is not finite"));
        }
        if self.min > self.max || self.last < self.min || self.last > self.max {
            return Err(InvalidWindow(
                "its least, latest and greatest contradict each other",
            ));
        }
        let count = self.count as f64;
        let slack = count * SUM_SLACK * (1.0 + self.min.abs().max(self.max.abs()));
        if self.sum < self.min * count - slack || self.sum > self.max * count + slack {
            return Err(InvalidWindow("its sum lies outside of its least and greatest"));
        }
        match &self.sketch {
            Some(sketch) if sketch.count() != self.count => {
                Err(InvalidWindow("its sketch has another count"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// The samples of `[start, start + width)`, by the device's clock.
///
/// On the wire it is a list: start in seconds since the epoch, width in seconds, count, min, max, sum, last, and the
/// sketch where there is one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "Row", try_from = "Row")]
pub struct Window {
    /// Seconds since the epoch.
    pub start_seconds: i64,
    pub width_seconds: u32,
    pub aggregate: Aggregate,
}

/// A list that is not a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a window: {0}")]
pub struct InvalidWindow(&'static str);

impl Window {
    pub fn start(&self) -> Timestamp {
        Timestamp::from_unix_seconds(self.start_seconds)
    }

    /// The first moment after it.
    pub fn end(&self) -> Timestamp {
        Timestamp::from_unix_seconds(self.start_seconds.saturating_add(i64::from(self.width_seconds)))
    }
}

#[derive(Serialize, Deserialize)]
struct Row(
    i64,
    u32,
    u64,
    #[serde(with = "number")] f64,
    #[serde(with = "number")] f64,
    #[serde(with = "number")] f64,
    #[serde(with = "number")] f64,
    #[serde(default, skip_serializing_if = "Option::is_none")] Option<Sketch>,
);

impl From<Window> for Row {
    fn from(window: Window) -> Self {
        let of = window.aggregate;
        Row(
            window.start_seconds,
            window.width_seconds,
            of.count,
            of.min,
            of.max,
            of.sum,
            of.last,
            of.sketch,
        )
    }
}

impl TryFrom<Row> for Window {
    type Error = InvalidWindow;

    fn try_from(row: Row) -> Result<Self, InvalidWindow> {
        let Row(start_seconds, width_seconds, count, min, max, sum, last, sketch) = row;
        if !STARTS.contains(&start_seconds) {
            return Err(InvalidWindow("its start is out of range"));
        }
        if !(1..=WINDOW_SECONDS_MAX).contains(&width_seconds) {
            return Err(InvalidWindow("its width is out of range"));
        }
        let aggregate = Aggregate {
            count,
            min,
            max,
            sum,
            last,
            sketch,
        };
        aggregate.check()?;
        Ok(Window {
            start_seconds,
            width_seconds,
            aggregate: Aggregate::from_parts(count, [min, max, sum, last], aggregate.sketch),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of_all(values: &[f64]) -> Aggregate {
        let mut whole = Aggregate::of(values[0]);
        for value in &values[1..] {
            whole.merge(&Aggregate::of(*value), Quantiles::Sketched);
        }
        whole
    }

    fn window(json: &str) -> Result<Window, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn a_window_is_a_short_list() {
        let window = Window {
            start_seconds: 1_795_900_000,
            width_seconds: 900,
            aggregate: of_all(&[0.5, 2.0]),
        };
        let text = serde_json::to_string(&window).expect("a window has a text form");
        assert_eq!(text, "[1795900000,900,2,0.5,2,2.5,2]");
        assert_eq!(
            serde_json::from_str::<Window>(&text).expect("it reads back"),
            window
        );
    }

    #[test]
    fn a_window_that_contradicts_itself_is_refused() {
        for bad in [
            "[0,60,0,1,1,1,1]",
            "[0,60,1,2,1,1,1]",
            "[0,60,1,1,1,1,2]",
            "[0,60,2,1,1,99,1]",
            "[0,0,1,1,1,1,1]",
            "[-1,60,1,1,1,1,1]",
            "[0,60,1,1,1,1]",
            "[0,60,1,1,1,1,1,[0,0],1]",
            "[0,60,5,1,1,5,1,[4,0]]",
            "[0,99999999,1,1,1,1,1]",
        ] {
            assert!(window(bad).is_err(), "{bad}");
        }
        assert!(window("[0,60,5,0,0,0,0,[5,0]]").is_ok());
    }

    proptest! {
        #[test]
        fn windows_of_one_span_merge_to_the_window_of_the_whole(
            values in prop::collection::vec(-1e6_f64..1e6, 2..60),
            at in any::<prop::sample::Index>(),
        ) {
            let at = 1 + at.index(values.len() - 1);
            let mut merged = of_all(&values[..at]);
            merged.merge(&of_all(&values[at..]), Quantiles::Sketched);
            let whole = of_all(&values);
            prop_assert_eq!((merged.count, merged.min, merged.max), (whole.count, whole.min, whole.max));
            prop_assert_eq!(merged.last, whole.last);
            prop_assert!((merged.sum - whole.sum).abs() < 1e-3);
            prop_assert_eq!(merged.sketch().expect("kept").count(), values.len() as u64);
            prop_assert!(merged.check().is_ok());
        }
    }
}
