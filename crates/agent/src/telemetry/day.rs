//! `muster-agent bench-telemetry`, for `cargo xtask bench agent-telemetry`: a day of telemetry of this machine, as fast as it
//! goes, with the collectors, the spool and the batches of the real agent. Only the wire is missing.

use std::path::Path;
use std::time::Duration;

use muster_channel_agent::clock::ClockReading;
use muster_model::attestation::Ownership;
use muster_model::telemetry::{BootId, Metric, MetricKind, SamplingPlan};
use serde::Serialize;

use super::batch::Head;
use super::sampler::{Reading, Sampler};
use super::store::{Findings, Haste, StoreError, TelemetryStore};
use crate::machine_clock;
use crate::os::Machine;

const DAY_SECONDS: u64 = 86_400;
/// Gauges are drawn from so far around what the machine shows: it does not change within the seconds that this takes, and
/// what does not change costs nothing on the wire.
const SPREAD: f64 = 0.1;

/// What a day came to.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Report {
    /// Looks at the machine.
    pub looks: u64,
    pub samples: u64,
    pub batches: u64,
    /// Bodies of uploads.
    pub wire_bytes: u64,
    /// Processor time of the process, over the day.
    pub cpu_seconds: f64,
    /// Resident memory at the end.
    pub resident_bytes: u64,
    /// The spool at the end of a day without a server.
    pub offline_spool_bytes: u64,
}

/// Measures in an empty folder: a day on a link, and a day without one.
pub fn measure(state_dir: &Path) -> Result<Report, StoreError> {
    let mut report = Report::default();
    let cpu_before = cpu_time();
    live(state_dir, &mut report, Some(900))?;
    report.cpu_seconds = (cpu_time() - cpu_before).as_secs_f64();
    let mut offline = Report::default();
    live(state_dir, &mut offline, None)?;
    report.offline_spool_bytes = offline.offline_spool_bytes;
    report.resident_bytes = resident_bytes();
    Ok(report)
}

fn live(state_dir: &Path, report: &mut Report, upload_seconds: Option<u64>) -> Result<(), StoreError> {
    let mut store = TelemetryStore::open(state_dir, machine_clock::random_stream())?;
    let plan = SamplingPlan::default();
    let machine = Machine::new(Path::new("/"), state_dir);
    let mut health = machine.health(Ownership::Company, |_| None);
    let mut sampler = Sampler::default();
    let begin = machine_clock::read();
    for second in (0..DAY_SECONDS).step_by(60) {
        let passed = Duration::from_secs(second);
        let clock = ClockReading {
            wall: begin.wall.plus(passed),
            since_boot: begin.since_boot + passed,
            boot: begin.boot,
        };
        let due = sampler.take_due(clock.since_boot, &plan);
        if !due.is_empty() {
            let look = health.look(clock.wall, clock.since_boot, &due);
            let mut findings = Findings {
                happenings: look.happenings,
                memos: look.memos,
                ..Findings::default()
            };
            let readings = look.readings.into_iter().map(varied).chain(absent()).collect();
            sampler.take_up(clock.wall, readings, &due, &plan, &mut findings);
            report.looks += 1;
            report.samples += findings.samples.len() as u64;
            store.record(clock.wall, &findings, &plan)?;
        }
        if upload_seconds.is_some_and(|interval| second % interval == 0) {
            let head = Head {
                epoch: 1,
                now: clock.wall,
                boot_id: BootId::from_bytes(clock.boot.to_be_bytes()),
            };
            if let Some(batch) = store.next_batch(&head, Haste::None)? {
                report.batches += 1;
                report.wire_bytes += batch.body.len() as u64;
                store.accepted(batch.sequence, machine_clock::random_stream())?;
            }
        }
    }
    report.offline_spool_bytes = store.bytes()?;
    Ok(())
}

fn draw() -> f64 {
    machine_clock::random() as f64 / u64::MAX as f64
}

fn varied(reading: Reading) -> Reading {
    match reading.metric.def().kind {
        MetricKind::Counter => reading,
        MetricKind::Gauge => Reading {
            value: reading.value * (1.0 - SPREAD + 2.0 * SPREAD * draw()),
            ..reading
        },
    }
}

/// What takes time or a server to measure.
fn absent() -> [Reading; 3] {
    [
        Reading::of(Metric::CpuUsage, draw()),
        Reading::of(Metric::NetworkRtt, draw() / 10.0),
        Reading::of(Metric::NetworkLoss, draw() / 100.0),
    ]
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
