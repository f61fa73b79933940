//! How this machine is: read from `/proc` and `/sys`, never by running a program, and what happened on it since the last look.
//!
//! Beneath a prefix that has a `/proc` everything is read there; otherwise numbers are those of the running machine.

mod apps;
mod battery;
mod compute;
mod crashes;
mod disks;
mod heat;
mod local_time;
mod logins;
mod network;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_model::attestation::Ownership;
use muster_model::telemetry::{EventKind, Metric};
use muster_model::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::files::Root;
use crate::telemetry::{Happening, Reading, attributes};

/// The name under which [`Seen`] is kept.
const SEEN: &str = "seen";
/// The name under which the packages are kept.
const APPS: &str = "apps";
/// A clock that was off by less is being steered, not set.
const CLOCK_STEP_SECONDS: u64 = 5;
/// Most things of one kind that are remembered.
const REMEMBERED_MAX: usize = 256;

/// What was seen on the machine already, so that nothing is told twice. It is saved with what it led to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Seen {
    /// The run of the system that was seen last.
    boot: Option<String>,
    /// Whether the agent was told to end before the system did.
    is_stopped: bool,
    /// Microseconds since the epoch: dumps up to here are known.
    dumps_through: i64,
    kernel_records: BTreeSet<String>,
    oom_kills: Option<u64>,
    failing: BTreeSet<String>,
    full: BTreeSet<String>,
    hot: BTreeSet<String>,
    is_battery_failing: bool,
    wtmp_bytes: Option<u64>,
    btmp_bytes: Option<u64>,
    /// When the package manager last wrote, in seconds since the epoch.
    packages_at: i64,
    packages: u64,
}

/// What a look at the machine brought.
#[derive(Debug, Default)]
pub(crate) struct Look {
    pub(crate) readings: Vec<Reading>,
    pub(crate) happenings: Vec<Happening>,
    /// Notes to be saved together with what they led to.
    pub(crate) memos: Vec<(&'static str, Vec<u8>)>,
}

impl Look {
    fn read(&mut self, metric: Metric, value: impl Into<Option<f64>>) {
        if let Some(value) = value.into() {
            self.readings.push(Reading::of(metric, value));
        }
    }

    fn read_labeled(&mut self, metric: Metric, label: &str, value: impl Into<Option<f64>>) {
        if let Some(value) = value.into() {
            self.readings.push(Reading::labeled(metric, label, value));
        }
    }

    fn happened<const N: usize>(
        &mut self,
        kind: EventKind,
        at: Timestamp,
        pairs: [(&'static str, String); N],
    ) {
        self.happenings.push(Happening {
            kind,
            at,
            attributes: attributes(pairs),
        });
    }
}

/// When a look happens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LookAt<'a> {
    pub(crate) now: Timestamp,
    pub(crate) since_boot: Duration,
    pub(crate) due: &'a BTreeSet<Metric>,
}

impl LookAt<'_> {
    fn wants(&self, metrics: &[Metric]) -> bool {
        metrics.iter().any(|metric| self.due.contains(metric))
    }
}

/// The machine's collectors, with what they have to know from one look to the next.
#[derive(Debug)]
pub(crate) struct Collector {
    root: Root,
    /// Of a personal device it is not told who uses it.
    ownership: Ownership,
    seen: Seen,
    saved: Seen,
    apps: BTreeMap<String, String>,
    cpu: Option<compute::CpuTimes>,
    segments: Option<network::Segments>,
    crashes: u64,
    reboots: u64,
    /// The wall clock and the boot clock of the look before.
    clocks: Option<(Timestamp, Duration)>,
}

impl Collector {
    /// Goes on from the notes that earlier looks left.
    pub(crate) fn new(root: &Root, ownership: Ownership, memo: impl Fn(&str) -> Option<Vec<u8>>) -> Self {
        let root = super::facts::describing(root, "/proc/stat");
        let seen: Seen = memo(SEEN)
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        let apps = memo(APPS)
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Self {
            root,
            ownership,
            saved: seen.clone(),
            seen,
            apps,
            cpu: None,
            segments: None,
            crashes: 0,
            reboots: 0,
            clocks: None,
        }
    }

    /// Reads what is due, and finds what happened.
    pub(crate) fn look(&mut self, at: LookAt<'_>) -> Look {
        let mut look = Look::default();
        self.see_reboot(at, &mut look);
        self.see_clock(at, &mut look);
        self.read_compute(at, &mut look);
        self.read_disks(at, &mut look);
        self.read_battery(at, &mut look);
        self.read_heat(at, &mut look);
        self.read_network(at, &mut look);
        self.see_crashes(at, &mut look);
        self.see_logins(at, &mut look);
        self.see_apps(at, &mut look);
        look.read(Metric::Crashes, self.crashes as f64);
        look.read(Metric::Reboots, self.reboots as f64);
        if self.seen != self.saved {
            let bytes = serde_json::to_vec(&self.seen).expect("what was seen is plain data");
            look.memos.push((SEEN, bytes));
            self.saved = self.seen.clone();
        }
        look
    }

    /// The note that the agent was told to end, so that the next start of the system is a clean one.
    pub(crate) fn farewell(&mut self) -> (&'static str, Vec<u8>) {
        self.seen.is_stopped = true;
        let bytes = serde_json::to_vec(&self.seen).expect("what was seen is plain data");
        (SEEN, bytes)
    }

    /// The machine's own time less UTC, in seconds.
    pub(crate) fn utc_offset_seconds(&self, now: Timestamp) -> i32 {
        local_time::utc_offset_seconds(&self.root, now).unwrap_or(0)
    }

    fn see_reboot(&mut self, at: LookAt<'_>, look: &mut Look) {
        let Some(boot) = self.root.read_line("/proc/sys/kernel/random/boot_id") else {
            return;
        };
        if self.seen.boot.as_ref() != Some(&boot) {
            if self.seen.boot.is_some() {
                self.reboots += 1;
                let shutdown = if self.seen.is_stopped { "clean" } else { "unclean" };
                let started = at.now.minus(at.since_boot);
                look.happened(EventKind::Reboot, started, [("shutdown", shutdown.to_owned())]);
            }
            self.seen.boot = Some(boot);
            self.seen.oom_kills = None;
        }
        self.seen.is_stopped = false;
    }

    /// The wall clock against the boot clock, which nobody sets.
    fn see_clock(&mut self, at: LookAt<'_>, look: &mut Look) {
        if let Some((wall, since_boot)) = self.clocks {
            let expected = wall.plus(at.since_boot.saturating_sub(since_boot));
            let (ahead, behind) = (at.now.since(expected), expected.since(at.now));
            if ahead.as_secs().max(behind.as_secs()) >= CLOCK_STEP_SECONDS {
                let seconds = ahead.as_secs_f64() - behind.as_secs_f64();
                look.happened(
                    EventKind::ClockStepped,
                    at.now,
                    [("seconds", format!("{seconds:.0}"))],
                );
            }
        }
        self.clocks = Some((at.now, at.since_boot));
    }
}

/// Keeps a set of names from growing without bound.
fn remember(names: &mut BTreeSet<String>, name: &str) -> bool {
    names.len() < REMEMBERED_MAX && names.insert(name.to_owned())
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok()
}

fn read_number(root: &Root, path: &str) -> Option<f64> {
    root.read_line(path).as_deref().and_then(number)
}

/// Text of a file of `/proc`, which tells no size.
fn read_text(root: &Root, path: &str) -> String {
    root.read(path).ok().flatten().unwrap_or_default()
}

#[cfg(test)]
mod tests;
