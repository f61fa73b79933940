//! What simulated devices measure: a pure function of (seed, device, time), so that the same fleet has the same past.
//!
//! Days have a rhythm, disks fill up, batteries age (some far too fast), programs crash now and then.

use std::time::Duration;

use muster_channel_agent::telemetry::{Account, Accounting, Attributes, DeviceEvent, Series, TelemetryBatch};
use muster_model::telemetry::{Aggregate, EventKind, LabelValue, Metric, StreamId, Window};
use muster_model::{Platform, Timestamp};

use crate::draw::Draw;
use crate::plan::DevicePlan;

const MINUTE_SECONDS: i64 = 60;
const DAY_SECONDS: i64 = 86_400;
/// Most samples that one window is made of; a longer one takes them further apart.
const SAMPLES_MAX: i64 = 30;
/// Part of the machines that run on a battery.
const BATTERY: f64 = 0.8;
/// Part of the batteries that fail early.
const BAD_BATTERY: f64 = 0.03;
/// How often programs crash, per minute of a device: about once in ten days.
const CRASHES_PER_MINUTE: f64 = 7e-5;
/// The longest past, in days.
pub const HISTORY_DAYS_MAX: u32 = 400;

/// How simulated devices send telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Time between two uploads.
    pub interval: Duration,
    /// Days before the farm began that the first upload tells of, in windows of a day.
    pub history_days: u32,
}

/// Metrics with a value of their own at any time.
const METRICS: &[(Metric, Option<&str>)] = &[
    (Metric::CpuUsage, None),
    (Metric::MemoryUsed, None),
    (Metric::DiskUsed, Some("/")),
    (Metric::DiskFree, Some("/")),
    (Metric::BatteryLevel, None),
    (Metric::BatteryHealth, None),
    (Metric::Temperature, Some("cpu")),
    (Metric::NetworkRtt, None),
    (Metric::Uptime, None),
];

/// The telemetry of one device.
#[derive(Debug)]
pub struct Pulse {
    plan: DevicePlan,
    stream: StreamId,
    sequence: u64,
    event_number: u64,
    samples: u64,
    /// Everything before this second is in a batch.
    told_through: i64,
    /// Made, and not accepted yet.
    pending: Option<TelemetryBatch>,
}

impl Pulse {
    /// Begins a stream with nothing told.
    pub fn new(plan: DevicePlan, stream: StreamId, now: Timestamp) -> Self {
        Self {
            plan,
            stream,
            sequence: 0,
            event_number: 0,
            samples: 0,
            told_through: now.as_unix_seconds(),
            pending: None,
        }
    }

    /// The batch that the server does not have: the one that it did not take, or one of all since the last.
    pub fn batch(&mut self, epoch: u32, now: Timestamp, history_days: u32) -> &TelemetryBatch {
        if self.pending.is_none() {
            self.pending = Some(self.make(epoch, now, history_days));
        }
        self.pending.as_ref().expect("it was just made")
    }

    /// The server has the batch.
    pub fn accepted(&mut self) {
        self.pending = None;
    }

    fn make(&mut self, epoch: u32, now: Timestamp, history_days: u32) -> TelemetryBatch {
        let to = now.as_unix_seconds();
        let from = self.told_through.min(to - MINUTE_SECONDS);
        let mut spans = Vec::new();
        if self.sequence == 0 {
            let days = i64::from(history_days.min(HISTORY_DAYS_MAX));
            let today = from - from % DAY_SECONDS;
            spans.extend(
                (1..=days)
                    .rev()
                    .map(|day| today - day * DAY_SECONDS)
                    .map(|at| (at, DAY_SECONDS)),
            );
        }
        spans.push((from, to - from));
        let series: Vec<Series> = METRICS
            .iter()
            .filter_map(|(metric, label)| self.series(*metric, *label, &spans))
            .collect();
        let windows = series.iter().flat_map(|series| &series.windows);
        self.samples += windows.map(|window| window.aggregate.count).sum::<u64>();
        let events = self.events(from, to);
        self.sequence += 1;
        self.told_through = to;
        let all_sent = |count| Account {
            made: count,
            uploaded: count,
            ..Account::default()
        };
        TelemetryBatch {
            epoch,
            stream: self.stream,
            sequence: self.sequence,
            device_time: now,
            boot_id: None,
            series,
            events,
            spans: Vec::new(),
            accounting: Accounting {
                samples: all_sent(self.samples),
                events: all_sent(self.event_number),
                spans: Account::default(),
            },
        }
    }

    fn series(&self, metric: Metric, label: Option<&str>, spans: &[(i64, i64)]) -> Option<Series> {
        let windows: Vec<Window> = spans
            .iter()
            .filter_map(|(from, seconds)| self.window(metric, *from, *seconds))
            .collect();
        (!windows.is_empty()).then(|| Series {
            metric: metric.into(),
            label: label.and_then(LabelValue::lenient),
            windows,
        })
    }

    fn window(&self, metric: Metric, from: i64, seconds: i64) -> Option<Window> {
        let def = metric.def();
        let count = (seconds / MINUTE_SECONDS).clamp(1, SAMPLES_MAX);
        let times = (0..count).map(|sample| from + sample * seconds / count);
        let mut samples = times.filter_map(|at| value(&self.plan, metric, at));
        let mut aggregate = Aggregate::of(samples.next()?);
        aggregate.round(def.decimals);
        for sample in samples {
            let mut next = Aggregate::of(sample);
            next.round(def.decimals);
            aggregate.merge(&next, def.quantiles);
        }
        aggregate.round(def.decimals);
        Some(Window {
            start_seconds: from,
            width_seconds: u32::try_from(seconds).ok()?,
            aggregate,
        })
    }

    fn events(&mut self, from: i64, to: i64) -> Vec<DeviceEvent> {
        let mut events = Vec::new();
        for minute in from / MINUTE_SECONDS..to / MINUTE_SECONDS {
            let mut draw = moment(&self.plan, "crash", minute);
            if draw.fraction() >= CRASHES_PER_MINUTE {
                continue;
            }
            let packages = self.plan.model.packages;
            let program = packages
                .get(draw.below(packages.len()))
                .map_or("init", |(name, _)| *name);
            self.event_number += 1;
            events.push(DeviceEvent {
                number: self.event_number,
                kind: EventKind::Crash.into(),
                at: Timestamp::from_unix_seconds(minute * MINUTE_SECONDS),
                attributes: Attributes::from([("program".to_owned(), program.to_owned())]),
            });
        }
        events
    }
}

/// Draws for one device at one time.
fn moment(plan: &DevicePlan, topic: &str, at: i64) -> Draw {
    Draw::new(plan.seed ^ at.unsigned_abs().rotate_left(17), plan.index, topic)
}

/// What one device measures at a time, in seconds since the epoch; none of what it does not have.
fn value(plan: &DevicePlan, metric: Metric, at: i64) -> Option<f64> {
    let trait_of = |topic: &str| Draw::new(plan.seed, plan.index, topic).fraction();
    let noise = moment(plan, metric.as_str(), at).fraction();
    let day = at as f64 / DAY_SECONDS as f64;
    // From 0 at midnight to 1 at noon.
    let daylight = 0.5 - 0.5 * (std::f64::consts::TAU * day).cos();
    let cpu = 0.03 + 0.25 * trait_of("cpu") * (0.3 + daylight) + 0.3 * noise.powi(4);
    let disk_used = (0.25 + 0.5 * trait_of("disk") + 0.0008 * trait_of("filling") * (day % 365.0)).min(0.99);
    let is_phone = plan.model.has_modem;
    let has_battery = is_phone || (trait_of("battery") < BATTERY && plan.model.platform != Platform::Windows);
    let value = match metric {
        Metric::CpuUsage => cpu,
        Metric::MemoryUsed => 0.25 + 0.5 * trait_of("memory") + 0.1 * daylight + 0.05 * noise,
        Metric::DiskUsed => disk_used,
        Metric::DiskFree => (1.0 - disk_used) * (plan.model.disk_gib << 30) as f64,
        Metric::BatteryLevel if has_battery => 1.0 - 0.8 * (day * 1.7 + trait_of("phase")).fract(),
        Metric::BatteryHealth if has_battery => battery_health(trait_of("wear"), trait_of("age"), day),
        Metric::Temperature => 34.0 + 45.0 * cpu + 3.0 * noise,
        Metric::NetworkRtt => 0.005 + 0.08 * trait_of("distance") + 0.2 * noise.powi(8),
        Metric::Uptime => (day + trait_of("boot") * 9.0) % 9.0 * DAY_SECONDS as f64,
        _ => return None,
    };
    Some(value)
}

/// Batteries lose a tenth in a year or two; bad ones in three weeks, after which they are replaced.
fn battery_health(wear: f64, age: f64, day: f64) -> f64 {
    if wear < BAD_BATTERY {
        1.0 - 0.005 * ((day + 120.0 * age) % 120.0)
    } else {
        1.0 - (0.00013 + 0.00015 * wear) * ((day + 900.0 * age) % 900.0)
    }
}

#[cfg(test)]
mod tests {
    use muster_channel_agent::ContentType;
    use muster_channel_agent::telemetry::{decode_batch, encode_batch};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_795_900_000 + seconds)
    }

    fn pulse(index: u32) -> Pulse {
        let stream = StreamId::from_bytes([7; 16]).expect("it is not zero");
        Pulse::new(DevicePlan::new(1, index), stream, at(0))
    }

    #[test]
    fn every_batch_is_one_that_a_server_takes() {
        for index in 0..50 {
            let mut pulse = pulse(index);
            for round in 1..4 {
                let batch = pulse.batch(1, at(round * 300), 30).clone();
                assert!(batch.accounting.samples.is_balanced());
                assert_eq!(
                    *pulse.batch(1, at(round * 300 + 5), 30),
                    batch,
                    "until it is accepted"
                );
                let (encoding, body) = encode_batch(ContentType::Cbor, &batch).expect("it has a form");
                let read = decode_batch(ContentType::Cbor, encoding, &body).expect("it is a batch");
                assert_eq!(read.sequence, round as u64);
                let expected = if round == 1 { 31 } else { 1 };
                assert!(read.series.iter().all(|series| series.windows.len() == expected));
                pulse.accepted();
            }
        }
    }

    #[test]
    fn a_few_batteries_fall_a_tenth_in_a_month() {
        let health = |index, day: i64| {
            let plan = DevicePlan::new(1, index);
            value(&plan, Metric::BatteryHealth, day * DAY_SECONDS)
        };
        let fell = |index: &u32| {
            let pair = health(*index, 20_000).zip(health(*index, 20_030));
            pair.is_some_and(|(before, now)| before - now > 0.1)
        };
        let count = (0..2000).filter(fell).count();
        assert!((10..100).contains(&count), "{count} of 2000");
    }

    #[test]
    fn the_past_of_a_fleet_does_not_depend_on_when_it_is_told() {
        let mut whole = pulse(3);
        let crashes = |batch: &TelemetryBatch| batch.events.len();
        let day = whole.batch(1, at(20 * DAY_SECONDS), 0).clone();
        let mut parts = pulse(3);
        let mut count = 0;
        for hour in 1..=20 * 24 {
            count += crashes(parts.batch(1, at(hour * 3600), 0));
            parts.accepted();
        }
        assert_eq!(crashes(&day), count);
    }
}
