//! What a farm counts, and its summary.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use muster_model::{ReceiptOutcome, SettingReport, SettingState};
use parking_lot::Mutex;
use serde::Serialize;

/// Longest latency that is told apart, in microseconds: ten minutes.
const LATENCY_MICROS_MAX: u64 = 600_000_000;
/// Digits of a latency that count.
const LATENCY_DIGITS: u8 = 3;

/// Latencies.
#[derive(Debug)]
pub struct Latencies(Mutex<Histogram<u64>>);

impl Latencies {
    /// None yet.
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, LATENCY_DIGITS);
        Self(Mutex::new(
            histogram.expect("the bounds are constants in the library's range"),
        ))
    }

    /// Adds one.
    pub fn record(&self, latency: Duration) {
        self.0
            .lock()
            .saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    /// Adds those of another.
    pub fn absorb(&self, other: &Self) {
        // Same bounds, so nothing can be out of range.
        let _ = self.0.lock().add(&*other.0.lock());
    }

    /// The quantiles.
    pub fn summary(&self) -> LatencySummary {
        let histogram = self.0.lock();
        let millis = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        LatencySummary {
            count: histogram.len(),
            p50_ms: millis(0.5),
            p99_ms: millis(0.99),
        }
    }
}

/// Quantiles of a latency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LatencySummary {
    /// How many were measured.
    pub count: u64,
    /// Half were faster, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 were faster, in milliseconds.
    pub p99_ms: f64,
}

impl fmt::Display for LatencySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {:.1} ms, p99 {:.1} ms of {}",
            self.p50_ms, self.p99_ms, self.count
        )
    }
}

/// What one device has come to.
#[derive(Debug, Default)]
struct DeviceCounts {
    is_enrolled: AtomicBool,
    has_report: AtomicBool,
    has_departed: AtomicBool,
    settings_failed: AtomicU64,
}

/// Everything that a farm counts.
#[derive(Debug)]
pub struct Stats {
    devices: Vec<DeviceCounts>,
    resumed: AtomicU64,
    not_enrolled: AtomicU64,
    wiped: AtomicU64,
    commands: Mutex<BTreeMap<&'static str, u64>>,
    refused: Mutex<BTreeMap<String, u64>>,
    exchange_errors: AtomicU64,
    pub enrollments: Latencies,
    pub checkins: Latencies,
}

impl Stats {
    /// For this many devices.
    pub fn new(devices: u32) -> Self {
        Self {
            devices: (0..devices).map(|_| DeviceCounts::default()).collect(),
            resumed: AtomicU64::new(0),
            not_enrolled: AtomicU64::new(0),
            wiped: AtomicU64::new(0),
            commands: Mutex::default(),
            refused: Mutex::default(),
            exchange_errors: AtomicU64::new(0),
            enrollments: Latencies::new(),
            checkins: Latencies::new(),
        }
    }

    /// A device has an identity.
    pub fn enrolled(&self, index: u32) {
        self.device(index, |device| device.is_enrolled.store(true, Ordering::Relaxed));
    }

    /// A device goes on with the identity of an earlier run.
    pub fn resumed(&self, index: u32) {
        self.resumed.fetch_add(1, Ordering::Relaxed);
        self.enrolled(index);
    }

    /// A device was given up before it had an identity.
    pub fn not_enrolled(&self) {
        self.not_enrolled.fetch_add(1, Ordering::Relaxed);
    }

    /// A device has applied a policy. Without any setting there is nothing that could be verified.
    pub fn reported(&self, index: u32, reports: &BTreeMap<String, SettingReport>) {
        let failed = reports
            .values()
            .filter(|report| report.state == SettingState::Failed)
            .count() as u64;
        self.device(index, |device| {
            device.has_report.store(!reports.is_empty(), Ordering::Relaxed);
            device.settings_failed.store(failed, Ordering::Relaxed);
        });
    }

    /// A device has executed a command.
    pub fn executed(&self, outcome: ReceiptOutcome) {
        let word = match outcome {
            ReceiptOutcome::Done => "done",
            ReceiptOutcome::Noop => "noop",
            ReceiptOutcome::Failed => "failed",
            ReceiptOutcome::NotNow => "not_now",
        };
        *self.commands.lock().entry(word).or_default() += 1;
    }

    /// A device was wiped.
    pub fn wiped(&self) {
        self.wiped.fetch_add(1, Ordering::Relaxed);
    }

    /// A device has left the management.
    pub fn departed(&self, index: u32) {
        self.device(index, |device| device.has_departed.store(true, Ordering::Relaxed));
    }

    /// A device has refused something that the server sent.
    pub fn refused(&self, code: &str) {
        *self.refused.lock().entry(code.to_owned()).or_default() += 1;
    }

    /// An exchange has failed and will be tried again.
    pub fn exchange_failed(&self) {
        self.exchange_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// How many devices have an identity.
    pub fn enrolled_count(&self) -> u64 {
        self.devices
            .iter()
            .filter(|device| device.is_enrolled.load(Ordering::Relaxed))
            .count() as u64
    }

    /// The summary; `silent` is how many devices the conditions keep away.
    pub fn summary(&self, silent: u64) -> Summary {
        let has_report = |device: &DeviceCounts| device.has_report.load(Ordering::Relaxed);
        let failed = |device: &DeviceCounts| device.settings_failed.load(Ordering::Relaxed);
        let commands = self.commands.lock();
        let of = |word: &str| commands.get(word).copied().unwrap_or_default();
        Summary {
            devices: self.devices.len() as u64,
            enrolled: self.enrolled_count(),
            resumed: self.resumed.load(Ordering::Relaxed),
            not_enrolled: self.not_enrolled.load(Ordering::Relaxed),
            silent,
            verified: self
                .devices
                .iter()
                .filter(|device| has_report(device) && failed(device) == 0)
                .count() as u64,
            failed: self
                .devices
                .iter()
                .filter(|device| has_report(device) && failed(device) > 0)
                .count() as u64,
            settings_failed: self.devices.iter().map(failed).sum(),
            commands_done: of("done"),
            commands_noop: of("noop"),
            commands_failed: of("failed"),
            commands_not_now: of("not_now"),
            departed: self
                .devices
                .iter()
                .filter(|device| device.has_departed.load(Ordering::Relaxed))
                .count() as u64,
            wiped: self.wiped.load(Ordering::Relaxed),
            refused: self.refused.lock().clone(),
            exchange_errors: self.exchange_errors.load(Ordering::Relaxed),
            enrollment: self.enrollments.summary(),
            checkin: self.checkins.summary(),
        }
    }

    fn device(&self, index: u32, change: impl FnOnce(&DeviceCounts)) {
        if let Some(device) = self.devices.get(index as usize) {
            change(device);
        }
    }
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Devices of the fleet.
    pub devices: u64,
    /// Those with an identity.
    pub enrolled: u64,
    /// Those that went on with the identity of an earlier run.
    pub resumed: u64,
    /// Those that were given up before they had one.
    pub not_enrolled: u64,
    /// Those that are silent under the last conditions.
    pub silent: u64,
    /// Those whose newest report names no failed setting.
    pub verified: u64,
    /// Those whose newest report names one.
    pub failed: u64,
    /// Failed settings of the newest reports.
    pub settings_failed: u64,
    /// Commands that took effect.
    pub commands_done: u64,
    /// Commands whose effect was there already.
    pub commands_noop: u64,
    /// Commands that did not take effect.
    pub commands_failed: u64,
    /// Answers that a command cannot be carried out now.
    pub commands_not_now: u64,
    /// Devices that were wiped or unenrolled, and whose receipt has arrived.
    pub departed: u64,
    /// Devices that carried out a wipe.
    pub wiped: u64,
    /// What devices refused, by code: `approvals_required` is a wipe.
    pub refused: BTreeMap<String, u64>,
    /// Exchanges that failed and were tried again.
    pub exchange_errors: u64,
    /// Both calls of enrollment.
    pub enrollment: LatencySummary,
    /// Check-ins, connected devices.
    pub checkin: LatencySummary,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            devices,
            enrolled,
            resumed,
            not_enrolled,
            silent,
            ..
        } = self;
        write!(
            f,
            "{enrolled} of {devices} devices enrolled ({resumed} resumed, {not_enrolled} given up), {silent} silent"
        )?;
        write!(
            f,
            "; {} verified, {} failed ({} settings)",
            self.verified, self.failed, self.settings_failed
        )?;
        let refused: u64 = self.refused.values().sum();
        write!(
            f,
            "; commands: {} done, {} noop, {} failed, {} not now, {refused} refusals",
            self.commands_done, self.commands_noop, self.commands_failed, self.commands_not_now
        )?;
        for (code, count) in &self.refused {
            write!(f, " {code} {count}")?;
        }
        write!(f, "; {} wiped, {} left", self.wiped, self.departed)?;
        write!(
            f,
            "; enrollment {}; check-in {}; {} exchanges tried again",
            self.enrollment, self.checkin, self.exchange_errors
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_report_of_each_device_counts() {
        let stats = Stats::new(3);
        let report = |state| {
            BTreeMap::from([(
                "camera.allowed".to_owned(),
                SettingReport {
                    state,
                    observed: None,
                    detail: None,
                },
            )])
        };
        stats.enrolled(0);
        stats.resumed(1);
        stats.reported(0, &report(SettingState::Failed));
        stats.reported(0, &report(SettingState::Verified));
        stats.reported(1, &report(SettingState::Failed));
        stats.reported(2, &BTreeMap::new());
        let summary = stats.summary(1);
        assert_eq!((summary.enrolled, summary.resumed, summary.silent), (2, 1, 1));
        assert_eq!(
            (summary.verified, summary.failed, summary.settings_failed),
            (1, 1, 1)
        );
    }

    #[test]
    fn latencies_have_quantiles_and_a_bound() {
        let latencies = Latencies::new();
        (1..=100).for_each(|millis| latencies.record(Duration::from_millis(millis)));
        latencies.record(Duration::from_secs(86_400));
        let summary = latencies.summary();
        assert_eq!(summary.count, 101);
        assert!(
            (50.0..52.0).contains(&summary.p50_ms) && summary.p99_ms < 101.0,
            "{summary}"
        );
    }
}
