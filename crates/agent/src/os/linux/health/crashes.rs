//! Programs and kernels that crashed, by what they left: the dumps of systemd-coredump(8), the reports of apport, the
//! records of pstore (kernel documentation, ABI/testing/pstore) and the kernel's count of programs ended for memory.

use muster_model::telemetry::EventKind;
use muster_model::time::Timestamp;

use super::{Collector, Look, LookAt, read_text, remember};

const DUMPS: &str = "/var/lib/systemd/coredump";
const REPORTS: &str = "/var/crash";
const RECORDS: [&str; 2] = ["/sys/fs/pstore", "/var/lib/systemd/pstore"];
/// Most crashes that are told of one look; the rest is counted.
const TOLD_MAX: usize = 16;

/// A program that crashed.
struct Crash {
    program: String,
    at: Timestamp,
}

impl Collector {
    pub(super) fn see_crashes(&mut self, at: LookAt<'_>, look: &mut Look) {
        // What lay there before the agent ever looked is not news.
        let is_first_look = self.seen.dumps_through == 0;
        self.see_programs(at, look);
        for folder in RECORDS {
            for name in self.root.list(folder) {
                if remember(&mut self.seen.kernel_records, &name) && !is_first_look {
                    look.happened(EventKind::KernelCrash, at.now, [("record", name)]);
                }
            }
        }
        let kills = read_text(&self.root, "/proc/vmstat")
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill ")?.parse::<u64>().ok());
        if let Some(kills) = kills {
            let fresh = kills.saturating_sub(self.seen.oom_kills.unwrap_or(kills));
            if fresh > 0 {
                look.happened(EventKind::OutOfMemory, at.now, [("count", fresh.to_string())]);
            }
            self.seen.oom_kills = Some(kills);
        }
    }

    fn see_programs(&mut self, at: LookAt<'_>, look: &mut Look) {
        let known_through = self.seen.dumps_through;
        let mut crashes: Vec<Crash> = self
            .root
            .list(DUMPS)
            .iter()
            .filter_map(|name| dump(name))
            .chain(self.reports())
            .filter(|crash| crash.at.as_micros() > known_through && crash.at <= at.now)
            .collect();
        crashes.sort_by_key(|crash| crash.at);
        let newest = crashes.last().map_or(known_through, |crash| crash.at.as_micros());
        if known_through == 0 {
            self.seen.dumps_through = newest.max(at.now.as_micros()).max(1);
            return;
        }
        self.seen.dumps_through = newest;
        self.crashes += crashes.len() as u64;
        for crash in crashes.into_iter().take(TOLD_MAX) {
            look.happened(EventKind::Crash, crash.at, [("program", crash.program)]);
        }
    }

    /// `_usr_bin_cat.1000.crash`, dated by when it was written.
    fn reports(&self) -> Vec<Crash> {
        let report = |name: &String| {
            let program = name.strip_suffix(".crash")?.rsplit_once('.')?.0;
            let written = self.root.stat(&format!("{REPORTS}/{name}"))?.modified_seconds;
            Some(Crash {
                program: program.rsplit('_').next().unwrap_or(program).to_owned(),
                at: Timestamp::from_unix_seconds(written),
            })
        };
        self.root.list(REPORTS).iter().filter_map(report).collect()
    }
}

/// `core.PROGRAM.UID.BOOT.PID.MICROSECONDS[.zst]`; a program's name may hold dots.
fn dump(name: &str) -> Option<Crash> {
    let name = name.strip_prefix("core.")?;
    let name = [".zst", ".lz4", ".xz"]
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .unwrap_or(name);
    let mut fields = name.rsplitn(5, '.');
    let at: i64 = fields.next()?.parse().ok()?;
    let program = fields.nth(3)?;
    Some(Crash {
        program: program.to_owned(),
        at: Timestamp::from_micros(at),
    })
}
