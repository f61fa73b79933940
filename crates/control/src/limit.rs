//! How many requests one of many may send: an identity provider, a source of signals.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;

/// Senders that are counted; with more, whoever has the most left is forgotten.
const SENDERS_MAX: usize = 4096;
/// So many seconds' requests may come at once.
pub const BURST_SECONDS: u32 = 5;

/// A bucket of requests for each sender, filled again by time.
#[derive(Debug)]
pub struct Limit<K> {
    per_second: u32,
    buckets: Mutex<HashMap<K, Bucket>>,
}

/// The bucket of one sender, for whoever keeps something of each sender anyway: the microsecond at which it is full again.
#[derive(Debug, Default)]
pub struct Meter(AtomicU64);

impl Meter {
    /// Takes one where there is one left of `per_second`, of which five seconds' may come at once. The next one comes within a second.
    pub fn take(&self, per_second: u32, now: Duration) -> bool {
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let each = (1_000_000 / u64::from(per_second.max(1))).max(1);
        let empty = now.saturating_add(u64::from(BURST_SECONDS) * 1_000_000);
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full| {
            let full = full.clamp(now, empty) + each;
            (full <= empty).then_some(full)
        });
        taken.is_ok()
    }
}

/// How fast a sender's bucket fills, and which part of it one kind of request leaves to those that matter more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub per_second: u32,
    /// Hundredths of the quota that are not touched.
    pub kept_percent: u32,
}

/// What a sender may still send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    pub per_second: u32,
    /// How many may come at once.
    pub quota: u32,
    pub remaining: u32,
    /// Until one more may come.
    pub reset_seconds: u64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Duration,
    per_second: u32,
}

impl Bucket {
    fn most(&self) -> f64 {
        f64::from(quota(self.per_second))
    }

    fn left_at(&self, now: Duration) -> f64 {
        let filled = now.saturating_sub(self.at).as_secs_f64() * f64::from(self.per_second);
        (self.left + filled).min(self.most())
    }
}

fn quota(per_second: u32) -> u32 {
    per_second.saturating_mul(BURST_SECONDS)
}

impl<K: Copy + Eq + Hash> Limit<K> {
    pub fn new(per_second: u32) -> Limit<K> {
        Limit {
            per_second: per_second.max(1),
            buckets: Mutex::default(),
        }
    }

    /// What every sender has of whom nothing else is said.
    pub fn whole(&self) -> Share {
        Share {
            per_second: self.per_second,
            kept_percent: 0,
        }
    }

    /// Refuses where none is left, and takes none.
    pub fn check(&self, sender: &K, now: Duration) -> Result<(), u64> {
        let buckets = self.buckets.lock();
        let left = buckets
            .get(sender)
            .map_or(f64::INFINITY, |bucket| bucket.left_at(now));
        if left < 1.0 { Err(1) } else { Ok(()) }
    }

    /// Takes one request; after how many seconds to come again, where there is none left.
    pub fn take(&self, sender: K, now: Duration) -> Result<(), u64> {
        self.take_of(sender, now)
            .map(|_| ())
            .map_err(|left| left.reset_seconds)
    }

    /// As [`Limit::take`]: what is left, after this one or without it.
    pub fn take_of(&self, sender: K, now: Duration) -> Result<Left, Left> {
        self.take_share(sender, self.whole(), now)
    }

    /// As [`Limit::take_of`], of a sender whose share is its own.
    pub fn take_share(&self, sender: K, share: Share, now: Duration) -> Result<Left, Left> {
        let mut buckets = self.buckets.lock();
        let bucket = filled(&mut buckets, sender, share.per_second, now);
        let kept = f64::from(share.kept_percent.min(100)) / 100.0 * bucket.most();
        if bucket.left < kept + 1.0 {
            return Err(told(*bucket, kept));
        }
        bucket.left -= 1.0;
        Ok(told(*bucket, kept))
    }

    /// Gives a request back that was taken and not carried out, for want of somebody else's.
    pub fn give_back(&self, sender: K, share: Share, now: Duration) -> Left {
        let mut buckets = self.buckets.lock();
        let bucket = filled(&mut buckets, sender, share.per_second, now);
        bucket.left = (bucket.left + 1.0).min(bucket.most());
        told(*bucket, 0.0)
    }

    /// What a sender may still send.
    pub fn left(&self, sender: K, share: Share, now: Duration) -> Left {
        let mut buckets = self.buckets.lock();
        let bucket = *filled(&mut buckets, sender, share.per_second, now);
        told(bucket, 0.0)
    }
}

fn filled<K: Copy + Eq + Hash>(
    buckets: &mut HashMap<K, Bucket>,
    sender: K,
    per_second: u32,
    now: Duration,
) -> &mut Bucket {
    if buckets.len() >= SENDERS_MAX && !buckets.contains_key(&sender) {
        forget_idle(buckets, now);
    }
    let per_second = per_second.max(1);
    let bucket = buckets.entry(sender).or_insert(Bucket {
        left: f64::from(quota(per_second)),
        at: now,
        per_second,
    });
    let left = bucket.left_at(now);
    // Where the share was changed, what is left counts up to the new one: nobody begins anew by it.
    *bucket = Bucket {
        left: left.min(f64::from(quota(per_second))),
        at: now,
        per_second,
    };
    bucket
}

fn told(bucket: Bucket, kept: f64) -> Left {
    let waits = (kept + 1.0 - bucket.left) / f64::from(bucket.per_second);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "both are between nothing and the quota"
    )]
    let (remaining, waits) = (
        (bucket.left - kept).max(0.0) as u32,
        waits.ceil().clamp(1.0, f64::from(BURST_SECONDS)) as u64,
    );
    Left {
        per_second: bucket.per_second,
        quota: quota(bucket.per_second),
        remaining,
        reset_seconds: waits,
    }
}

/// Makes room for one more: those whose buckets are full again lose nothing by it. Without one, whoever has the most left goes, so that
/// nobody who has used theirs up begins anew because many others come.
fn forget_idle<K: Copy + Eq + Hash>(buckets: &mut HashMap<K, Bucket>, now: Duration) {
    buckets.retain(|_, bucket| bucket.left_at(now) < bucket.most());
    if buckets.len() < SENDERS_MAX {
        return;
    }
    let fullest = buckets
        .iter()
        .max_by(|(_, a), (_, b)| a.left_at(now).total_cmp(&b.left_at(now)))
        .map(|(sender, _)| *sender);
    if let Some(fullest) = fullest {
        buckets.remove(&fullest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_waits_when_it_has_sent_too_much() {
        let limit: Limit<u8> = Limit::new(2);
        let at = Duration::from_secs;
        for _ in 0..10 {
            assert_eq!(limit.take(1, at(1)), Ok(()));
        }
        assert_eq!(limit.take(1, at(1)), Err(1));
        assert_eq!(limit.take(2, at(1)), Ok(()));
        assert_eq!(limit.take(1, at(2)), Ok(()));
    }

    #[test]
    fn a_meter_holds_five_seconds_fills_by_time_and_follows_another_speed_at_once() {
        let meter = Meter::default();
        let at = Duration::from_millis;
        let many = |per_second, now| (0..1000).filter(|_| meter.take(per_second, now)).count();
        assert_eq!(many(4, at(0)), 20);
        assert_eq!(many(4, at(249)), 0);
        assert_eq!(many(4, at(250)), 1);
        assert_eq!(many(4, at(1250)), 4);
        assert_eq!(many(4, at(3_600_000)), 20, "it holds no more");
        assert_eq!(many(10, at(3_600_500)), 5);
        assert_eq!(
            many(0, at(3_601_500)),
            1,
            "nothing is the least there is: one in a second"
        );
    }

    #[test]
    fn what_matters_less_leaves_a_part_of_the_bucket_alone_and_is_told_when_there_is_more() {
        let limit: Limit<u8> = Limit::new(1);
        let at = Duration::from_secs;
        let rest = Share {
            per_second: 10,
            kept_percent: 40,
        };
        let first = Share {
            kept_percent: 0,
            ..rest
        };
        let many = |share, now| {
            (0..100)
                .filter(|_| limit.take_share(1, share, now).is_ok())
                .count()
        };
        assert_eq!(many(rest, at(1)), 30, "50 at once, 20 of them kept");
        assert_eq!(many(first, at(1)), 20, "the kept ones");
        let refused = limit.take_share(1, rest, at(1)).expect_err("nothing is left");
        assert_eq!((refused.reset_seconds, refused.remaining), (3, 0));
        assert_eq!(
            many(rest, at(3)),
            0,
            "20 are there again, and all of them are kept"
        );
        assert_eq!(many(rest, at(4)), 10);
    }

    #[test]
    fn a_changed_share_counts_at_once_and_gives_nobody_a_new_start() {
        let limit: Limit<u8> = Limit::new(1);
        let at = Duration::from_secs(1);
        let of = |per_second| Share {
            per_second,
            kept_percent: 0,
        };
        let many = |share| {
            (0..1000)
                .filter(|_| limit.take_share(1, share, at).is_ok())
                .count()
        };
        assert!(limit.take_share(1, of(100), at).is_ok());
        assert_eq!(many(of(2)), 10, "what was left of 500 is cut to what is in force");
        assert_eq!(many(of(100)), 0, "a larger one fills by time alone");
    }

    #[test]
    fn many_others_give_nobody_a_new_start() {
        let limit: Limit<usize> = Limit::new(2);
        let at = Duration::from_secs(1);
        for _ in 0..10 {
            assert_eq!(limit.take(0, at), Ok(()));
        }
        for sender in 1..=3 * SENDERS_MAX {
            assert_eq!(limit.take(sender, at), Ok(()));
        }
        assert_eq!(limit.take(0, at), Err(1), "it has used up its own");
        assert!(limit.buckets.lock().len() <= SENDERS_MAX);
        let later = at + Duration::from_secs(60);
        assert_eq!(limit.take(9 * SENDERS_MAX, later), Ok(()));
        assert_eq!(
            limit.buckets.lock().len(),
            1,
            "whoever waited long enough needs no place"
        );
    }
}
