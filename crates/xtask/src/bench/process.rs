//! What the kernel says about a process (proc(5)): processor time and memory.

use std::fs;

use anyhow::{Context, Result};

/// Ticks per second of the times in `/proc/<pid>/stat`: USER_HZ, 100 on every Linux that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor seconds, user and system, that the process has used so far.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process has ended")?;
    let ticks = ticks(&stat).with_context(|| format!("/proc/{pid}/stat has no times"))?;
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// Resident bytes of the process now.
pub fn rss_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process has ended")?;
    kibibytes(&status, "VmRSS:")
        .map(|n| n * 1024)
        .with_context(|| format!("/proc/{pid}/status has no VmRSS"))
}

/// `utime` + `stime`: fields 14 and 15, counted after the name, which may hold spaces and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn kibibytes(status: &str, field: &str) -> Option<u64> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(field))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_after_a_name_with_brackets() {
        let stat = "42 (a) b)) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("42 (a) S"), None);
    }

    #[test]
    fn memory_is_read_in_kibibytes() {
        assert_eq!(
            kibibytes("Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n", "VmRSS:"),
            Some(1024)
        );
        assert_eq!(kibibytes("Name:\tx\n", "VmRSS:"), None);
    }

    #[test]
    fn this_process_has_memory_and_time() {
        let me = std::process::id();
        assert!(rss_bytes(me).expect("memory") > 0);
        assert!(cpu_seconds(me).expect("time") >= 0.0);
    }
}
