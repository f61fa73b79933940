//! Processors, memory, load, and the agent itself (proc(5)).

use muster_model::telemetry::Metric;

use super::{Collector, Look, LookAt, number, read_text};

/// Processor time since the start, in ticks.
#[derive(Debug, Clone, Copy)]
pub(super) struct CpuTimes {
    all: u64,
    idle: u64,
}

/// What the kernel tells user programs, whatever its own timer is (proc_pid_stat(5)).
const TICKS_PER_SECOND: f64 = 100.0;

impl Collector {
    pub(super) fn read_compute(&mut self, at: LookAt<'_>, look: &mut Look) {
        if at.wants(&[Metric::CpuUsage]) {
            let times = cpu_times(&read_text(&self.root, "/proc/stat"));
            if let (Some(before), Some(now)) = (self.cpu, times) {
                look.read(Metric::CpuUsage, usage(before, now));
            }
            self.cpu = times.or(self.cpu);
        }
        if at.wants(&[Metric::Load1, Metric::Threads]) {
            let text = read_text(&self.root, "/proc/loadavg");
            let mut fields = text.split_whitespace();
            look.read(Metric::Load1, fields.next().and_then(number));
            let threads = fields.nth(2).and_then(|field| field.split_once('/'));
            look.read(Metric::Threads, threads.and_then(|(_, all)| number(all)));
        }
        if at.wants(&[Metric::PressureStalled]) {
            for resource in ["cpu", "memory", "io"] {
                let text = read_text(&self.root, &format!("/proc/pressure/{resource}"));
                look.read_labeled(Metric::PressureStalled, resource, pressure(&text));
            }
        }
        if at.wants(&[Metric::MemoryAvailable, Metric::MemoryUsed, Metric::SwapUsed]) {
            read_memory(&read_text(&self.root, "/proc/meminfo"), look);
        }
        if at.wants(&[Metric::Uptime]) {
            look.read(Metric::Uptime, at.since_boot.as_secs() as f64);
        }
        if at.wants(&[Metric::AgentMemory, Metric::AgentCpu]) {
            read_agent(look);
        }
    }
}

fn cpu_times(text: &str) -> Option<CpuTimes> {
    let fields = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = fields
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; the guests' time after them is in user and nice already.
    Some(CpuTimes {
        all: ticks.iter().take(8).sum(),
        idle: ticks.get(3)? + ticks.get(4)?,
    })
}

fn usage(before: CpuTimes, now: CpuTimes) -> Option<f64> {
    let all = now.all.checked_sub(before.all).filter(|all| *all > 0)?;
    let idle = now.idle.saturating_sub(before.idle).min(all);
    Some(1.0 - idle as f64 / all as f64)
}

/// The average over a minute, of `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
fn pressure(text: &str) -> Option<f64> {
    let some = text.lines().find(|line| line.starts_with("some "))?;
    let percent = some.split(' ').find_map(|field| field.strip_prefix("avg60="))?;
    Some(number(percent)? / 100.0)
}

fn read_memory(text: &str, look: &mut Look) {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib = line.trim_start_matches(':').trim().strip_suffix(" kB")?;
        Some(number(kib)? * 1024.0)
    };
    let (total, available) = (bytes("MemTotal:"), bytes("MemAvailable:"));
    look.read(Metric::MemoryAvailable, available);
    if let (Some(total), Some(available)) = (total.filter(|total| *total > 0.0), available) {
        look.read(Metric::MemoryUsed, (1.0 - available / total).clamp(0.0, 1.0));
    }
    let swapped = bytes("SwapTotal:").zip(bytes("SwapFree:"));
    look.read(Metric::SwapUsed, swapped.map(|(total, free)| total - free));
}

/// The agent is a program of the running machine, whatever prefix it looks at.
fn read_agent(look: &mut Look) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let status = read("/proc/self/status");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|text| number(text.trim().strip_suffix(" kB")?));
    look.read(Metric::AgentMemory, kib.map(|kib| kib * 1024.0));
    let stat = read("/proc/self/stat");
    // The name of the program may hold spaces; fields count from behind it.
    let fields: Vec<&str> = stat
        .rsplit_once(") ")
        .map(|(_, rest)| rest.split(' ').collect())
        .unwrap_or_default();
    let ticks = |at: usize| fields.get(at).copied().and_then(number);
    let seconds = ticks(11)
        .zip(ticks(12))
        .map(|(user, system)| (user + system) / TICKS_PER_SECOND);
    look.read(Metric::AgentCpu, seconds);
}
