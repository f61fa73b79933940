//! Until when this node may answer a message by the identity that it remembers (`docs/decisions/0010-revocation-on-all-nodes.md`).

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use muster_storage::Engine;

/// An identity in memory counts only while a step of the follower that began within this time has ended.
pub const FOLLOWED_WITHIN: Duration = Duration::from_secs(1);
/// How much longer than that a revocation waits: the nodes' clocks do not run equally fast, and are read to the millisecond.
const MARGIN: Duration = Duration::from_millis(50);

/// The trust of a node in its memory of devices. Times are [`crate::clock::uptime`], which no one sets.
#[derive(Debug)]
pub enum MemoryTrust {
    /// No other node changes what this one remembers.
    Alone,
    /// Other nodes may have revoked what this one remembers; trusted before this many milliseconds.
    AmongOthers(AtomicU64),
}

impl MemoryTrust {
    /// SQLite belongs to one process; PostgreSQL may be shared.
    pub fn of(engine: Engine) -> MemoryTrust {
        match engine {
            Engine::Sqlite => MemoryTrust::Alone,
            Engine::Postgres => MemoryTrust::AmongOthers(AtomicU64::new(0)),
        }
    }

    /// Whether other nodes may change what this one remembers.
    pub fn is_shared(&self) -> bool {
        match self {
            MemoryTrust::Alone => false,
            MemoryTrust::AmongOthers(_) => true,
        }
    }

    /// Whether memory may be trusted. Ask before memory is read: what a step has made it forget is then not found any more.
    pub fn stands(&self, now: impl FnOnce() -> Duration) -> bool {
        match self {
            MemoryTrust::Alone => true,
            MemoryTrust::AmongOthers(until) => millis(now()) < until.load(Ordering::Acquire),
        }
    }

    /// A step of the follower that began at `begun` has ended, and memory has forgotten what it was told to forget.
    pub fn followed(&self, begun: Duration) {
        match self {
            MemoryTrust::Alone => {}
            MemoryTrust::AmongOthers(until) => {
                until.fetch_max(millis(begun + FOLLOWED_WITHIN), Ordering::Release);
            }
        }
    }

    /// How long after a commit every node has followed it or trusts its memory no more.
    pub fn settles_after(&self) -> Duration {
        match self {
            MemoryTrust::Alone => Duration::ZERO,
            MemoryTrust::AmongOthers(_) => FOLLOWED_WITHIN + MARGIN,
        }
    }

    /// Returns when no node accepts a message any more by what was true before the call. A revocation is answered after it.
    pub async fn settle(&self) {
        tokio::time::sleep(self.settles_after()).await;
    }
}

fn millis(at: Duration) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_node_alone_trusts_its_memory_and_waits_for_nobody() {
        let trust = MemoryTrust::of(Engine::Sqlite);
        assert!(trust.stands(|| 1000 * SECOND));
        assert_eq!(trust.settles_after(), Duration::ZERO);
    }

    #[test]
    fn memory_is_trusted_only_for_a_time_after_the_begin_of_a_step_that_ended() {
        let trust = MemoryTrust::of(Engine::Postgres);
        assert!(!trust.stands(|| SECOND), "nothing was followed yet");
        // It began at 10 s and may have ended at any time after: what was committed at 10 s it may not have seen.
        trust.followed(10 * SECOND);
        assert!(trust.stands(|| 10 * SECOND + FOLLOWED_WITHIN - Duration::from_millis(1)));
        assert!(!trust.stands(|| 10 * SECOND + FOLLOWED_WITHIN));
    }

    #[test]
    fn a_step_that_ended_late_takes_nothing_from_a_newer_one() {
        let trust = MemoryTrust::of(Engine::Postgres);
        trust.followed(20 * SECOND);
        trust.followed(10 * SECOND);
        assert!(trust.stands(|| 20 * SECOND));
    }

    #[test]
    fn whoever_has_waited_finds_no_trust_that_stands_on_a_step_from_before() {
        let trust = MemoryTrust::of(Engine::Postgres);
        // The last step of the other node that may have missed the change began just when it was committed.
        let committed = 30 * SECOND;
        trust.followed(committed);
        assert!(trust.stands(|| committed));
        assert!(!trust.stands(|| committed + trust.settles_after()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_revocation_waits_out_the_bound() {
        let begun = tokio::time::Instant::now();
        MemoryTrust::of(Engine::Postgres).settle().await;
        assert!(begun.elapsed() > FOLLOWED_WITHIN);
    }
}
