//! From readings to samples: which metrics are due, increases of counters, and limits that are urgent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_model::telemetry::{
    Bound, EventKind, LABEL_VALUES_MAX, LabelValue, Metric, MetricKind, SamplingPlan,
};
use muster_model::time::Timestamp;

use super::store::{Findings, Happening, Sample, attributes};

/// What a collector read: of a counter, how far it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    pub metric: Metric,
    pub label: Option<LabelValue>,
    pub value: f64,
}

impl Reading {
    pub fn of(metric: Metric, value: f64) -> Self {
        Self {
            metric,
            label: None,
            value,
        }
    }

    /// With a label of any text.
    pub fn labeled(metric: Metric, label: &str, value: f64) -> Self {
        Self {
            label: LabelValue::lenient(label),
            ..Self::of(metric, value)
        }
    }
}

type SeriesKey = (Metric, Option<LabelValue>);

/// What has to be known from one look at the machine to the next.
#[derive(Debug, Default)]
pub struct Sampler {
    /// When a metric is due again, by the boot clock.
    due: BTreeMap<Metric, Duration>,
    /// Where counters stood.
    counters: BTreeMap<SeriesKey, f64>,
    labels: BTreeMap<Metric, BTreeSet<LabelValue>>,
    /// Series past a limit of the plan, on which side.
    crossed: BTreeSet<(SeriesKey, bool)>,
}

impl Sampler {
    /// The metrics that are due, which are then due again after their interval.
    pub fn take_due(&mut self, since_boot: Duration, plan: &SamplingPlan) -> BTreeSet<Metric> {
        let mut due = BTreeSet::new();
        for metric in Metric::ALL {
            let interval = plan.of(*metric).interval_seconds;
            if interval == 0 {
                self.due.remove(metric);
                continue;
            }
            if self.due.get(metric).is_none_or(|at| *at <= since_boot) {
                due.insert(*metric);
                self.due
                    .insert(*metric, next_slot(since_boot, u64::from(interval)));
            }
        }
        due
    }

    /// When the next metric is due; none while all are off.
    pub fn next_due(&self) -> Option<Duration> {
        self.due.values().min().copied()
    }

    /// Another plan: everything is due at once.
    pub fn replan(&mut self) {
        self.due.clear();
        self.crossed.clear();
    }

    /// Turns readings into samples and events.
    pub fn take_up(
        &mut self,
        now: Timestamp,
        readings: Vec<Reading>,
        due: &BTreeSet<Metric>,
        plan: &SamplingPlan,
        findings: &mut Findings,
    ) {
        for reading in readings {
            if !due.contains(&reading.metric) || !reading.value.is_finite() {
                continue;
            }
            let Some(value) = self.value_of(&reading) else {
                continue;
            };
            if !self.has_room_for(&reading) {
                findings.over_label_limit += 1;
                continue;
            }
            let sample = Sample {
                metric: reading.metric,
                label: reading.label,
                value: rounded(value, reading.metric.def().decimals),
            };
            self.judge(now, &sample, plan, findings);
            findings.samples.push(sample);
        }
    }

    /// The sample of a reading: none of a counter that is seen for the first time. One that stands lower than before began
    /// anew.
    fn value_of(&mut self, reading: &Reading) -> Option<f64> {
        match reading.metric.def().kind {
            MetricKind::Gauge => Some(reading.value),
            MetricKind::Counter => {
                let key = (reading.metric, reading.label.clone());
                let before = self.counters.insert(key, reading.value)?;
                let increase = reading.value - before;
                Some(if increase < 0.0 { reading.value } else { increase })
            }
        }
    }

    fn has_room_for(&mut self, reading: &Reading) -> bool {
        let Some(label) = &reading.label else { return true };
        let known = self.labels.entry(reading.metric).or_default();
        if known.len() < LABEL_VALUES_MAX {
            known.insert(label.clone());
        }
        known.contains(label)
    }

    /// A limit is urgent when it is crossed, and again only after the value was back.
    fn judge(&mut self, now: Timestamp, sample: &Sample, plan: &SamplingPlan, findings: &mut Findings) {
        let of_metric = plan
            .thresholds
            .iter()
            .filter(|threshold| threshold.metric == sample.metric);
        for threshold in of_metric {
            let series = (sample.metric, sample.label.clone());
            let key = (series, threshold.bound == Bound::Above);
            if !threshold.is_crossed_by(sample.value) {
                self.crossed.remove(&key);
            } else if self.crossed.insert(key) {
                let label = sample.label.as_ref().map(LabelValue::to_string);
                findings.happenings.push(Happening {
                    kind: EventKind::ThresholdCrossed,
                    at: now,
                    attributes: attributes([
                        ("metric", sample.metric.as_str().to_owned()),
                        ("label", label.unwrap_or_default()),
                        ("value", sample.value.to_string()),
                        ("limit", threshold.limit.to_string()),
                    ]),
                });
            }
        }
    }
}

/// Slots of one width begin together for all metrics, so that the device wakes once for all of them.
fn next_slot(since_boot: Duration, interval_seconds: u64) -> Duration {
    let seconds = since_boot.as_secs();
    Duration::from_secs(seconds - seconds % interval_seconds + interval_seconds)
}

fn rounded(value: f64, decimals: i32) -> f64 {
    let scale = 10_f64.powi(decimals);
    let rounded = (value * scale).round() / scale;
    if rounded.is_finite() { rounded } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(sampler: &mut Sampler, readings: Vec<Reading>) -> Findings {
        let (mut findings, all) = (Findings::default(), Metric::ALL.iter().copied().collect());
        let now = Timestamp::from_unix_seconds(1_795_900_000);
        sampler.take_up(now, readings, &all, &SamplingPlan::default(), &mut findings);
        findings
    }

    fn values(sampler: &mut Sampler, metric: Metric, value: f64) -> Vec<f64> {
        let samples = take(sampler, vec![Reading::of(metric, value)]).samples;
        samples.into_iter().map(|sample| sample.value).collect()
    }

    #[test]
    fn a_counter_gives_increases_and_survives_a_restart_of_what_it_counts() {
        let mut sampler = Sampler::default();
        let seen = [100.0, 150.0, 30.0].map(|value| values(&mut sampler, Metric::NetworkReceived, value));
        assert_eq!(seen, [vec![], vec![50.0], vec![30.0]]);
    }

    #[test]
    fn a_gauge_is_rounded_to_what_is_worth_keeping() {
        let mut sampler = Sampler::default();
        assert_eq!(values(&mut sampler, Metric::CpuUsage, 0.123_456), [0.1235]);
        assert!(values(&mut sampler, Metric::CpuUsage, f64::NAN).is_empty());
    }

    #[test]
    fn one_label_too_many_is_counted() {
        let mut sampler = Sampler::default();
        let readings: Vec<_> = (0..=LABEL_VALUES_MAX)
            .map(|number| Reading::labeled(Metric::Temperature, &format!("zone{number}"), 40.0))
            .collect();
        let findings = take(&mut sampler, readings);
        assert_eq!(findings.samples.len(), LABEL_VALUES_MAX);
        assert_eq!(findings.over_label_limit, 1);
    }

    #[test]
    fn a_limit_is_urgent_once_until_the_value_was_back() {
        let mut sampler = Sampler::default();
        let crossings = [0.98, 0.99, 0.5, 0.98].map(|value| {
            let reading = Reading::labeled(Metric::DiskUsed, "/", value);
            take(&mut sampler, vec![reading]).happenings.len()
        });
        assert_eq!(crossings, [1, 0, 0, 1]);
    }

    #[test]
    fn metrics_of_one_interval_are_due_together() {
        let (mut sampler, plan) = (Sampler::default(), SamplingPlan::default());
        let first = sampler.take_due(Duration::from_secs(7), &plan);
        assert_eq!(first.len(), Metric::ALL.len());
        assert!(sampler.take_due(Duration::from_secs(8), &plan).is_empty());
        assert_eq!(sampler.next_due(), Some(Duration::from_secs(60)));
        let second = sampler.take_due(Duration::from_secs(61), &plan);
        assert!(second.contains(&Metric::CpuUsage) && !second.contains(&Metric::BatteryHealth));
    }
}
