//! What the store keeps: aggregates of one metric of one device, one for each window of time.

use std::collections::BTreeMap;

use muster_model::telemetry::{Aggregate, Metric, Quantiles};

/// Decimals that are kept of a metric that this program does not know.
const DECIMALS_UNKNOWN: i32 = 6;

/// One window: what was sampled in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Where the window begins, in seconds since the epoch.
    pub at: i64,
    pub of: Aggregate,
}

/// Names one series of a device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesKey {
    /// The metric's name, such as `battery_health_ratio`.
    pub metric: String,
    /// What of the device it is about, such as a disk; empty where there is only one.
    pub subject: String,
    /// How long each window is.
    pub window_seconds: u32,
}

impl SeriesKey {
    /// The metric, if the catalogue has it.
    fn known(&self) -> Option<Metric> {
        Metric::parse(&self.metric)
    }

    /// Adds samples that came later to those of a window.
    fn merge(&self, into: &mut Aggregate, later: &Aggregate) {
        let quantiles = self
            .known()
            .map_or(Quantiles::Sketched, |metric| metric.def().quantiles);
        into.merge(later, quantiles);
        // Sums of decimals are decimals; what is past them is noise of the addition, and costs room.
        into.round(
            self.known()
                .map_or(DECIMALS_UNKNOWN, |metric| metric.def().decimals),
        );
    }
}

/// The windows of one series, in the order of their beginnings, each once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Windows(Vec<Point>);

impl Windows {
    /// Windows in any order; the same window twice is two parts of it, the later sampled one behind.
    pub fn of(key: &SeriesKey, mut points: Vec<Point>) -> Windows {
        let in_order = points.is_sorted_by(|one, next| one.at < next.at);
        if in_order {
            return Windows(points);
        }
        points.sort_by_key(|point| point.at);
        let mut windows = Windows(Vec::with_capacity(points.len()));
        for point in points {
            windows.push(key, point);
        }
        windows
    }

    /// Adds a window that is not before the last one.
    fn push(&mut self, key: &SeriesKey, point: Point) {
        match self.0.last_mut() {
            Some(last) if last.at == point.at => key.merge(&mut last.of, &point.of),
            _ => self.0.push(point),
        }
    }

    /// Adds the windows of another series of the same key: each sample is in one of them.
    pub fn absorb(&mut self, key: &SeriesKey, other: Windows) {
        let ends_before = |last: &Point| other.0.first().is_none_or(|first| last.at < first.at);
        if self.0.last().is_none_or(ends_before) {
            self.0.extend(other.0);
            return;
        }
        let own = std::mem::take(&mut self.0);
        self.0.reserve(own.len() + other.0.len());
        let (mut own, mut other) = (own.into_iter().peekable(), other.0.into_iter().peekable());
        loop {
            let own_first = match (own.peek(), other.peek()) {
                (None, None) => return,
                (Some(one), Some(another)) => one.at <= another.at,
                (one, _) => one.is_some(),
            };
            let next = if own_first { own.next() } else { other.next() };
            if let Some(point) = next {
                self.push(key, point);
            }
        }
    }

    pub fn points(&self) -> &[Point] {
        &self.0
    }

    pub fn into_points(self) -> Vec<Point> {
        self.0
    }
}

/// Series of one device.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SeriesSet {
    pub series: BTreeMap<SeriesKey, Windows>,
}

impl SeriesSet {
    /// Adds windows of one series.
    pub fn add(&mut self, key: SeriesKey, windows: Windows) {
        match self.series.get_mut(&key) {
            Some(own) => own.absorb(&key, windows),
            None => {
                self.series.insert(key, windows);
            }
        }
    }

    /// Adds everything of another set.
    pub fn absorb(&mut self, other: SeriesSet) {
        for (key, windows) in other.series {
            self.add(key, windows);
        }
    }

    /// How many windows there are.
    pub fn points(&self) -> usize {
        self.series.values().map(|windows| windows.0.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(at: i64, values: &[f64]) -> Point {
        let mut of = Aggregate::of(values[0]);
        for value in &values[1..] {
            of.merge(&Aggregate::of(*value), Quantiles::Plain);
        }
        Point { at, of }
    }

    #[test]
    fn windows_are_kept_in_order_and_parts_of_one_become_one() {
        let key = SeriesKey {
            metric: "battery_level_ratio".to_owned(),
            subject: String::new(),
            window_seconds: 300,
        };
        let unordered = vec![point(600, &[0.1]), point(0, &[0.3]), point(600, &[0.2])];
        let mut windows = Windows::of(&key, unordered);
        windows.absorb(
            &key,
            Windows::of(
                &key,
                vec![point(300, &[0.5]), point(600, &[0.9]), point(900, &[0.7])],
            ),
        );
        windows.absorb(&key, Windows::of(&key, vec![point(1200, &[0.7])]));
        windows.absorb(&key, Windows::default());
        let shown: Vec<_> = windows
            .points()
            .iter()
            .map(|point| {
                (
                    point.at,
                    point.of.count,
                    point.of.min,
                    point.of.max,
                    point.of.sum,
                    point.of.last,
                )
            })
            .collect();
        let expected = [
            (0, 1, 0.3, 0.3, 0.3, 0.3),
            (300, 1, 0.5, 0.5, 0.5, 0.5),
            // 0.1 + 0.2 is not 0.3 in binary; three decimals are kept.
            (600, 3, 0.1, 0.9, 1.2, 0.9),
            (900, 1, 0.7, 0.7, 0.7, 0.7),
            (1200, 1, 0.7, 0.7, 0.7, 0.7),
        ];
        assert_eq!(shown, expected);
    }
}
