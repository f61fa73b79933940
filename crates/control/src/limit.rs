//! How many requests one of many may send: an identity provider, a source of signals.

use std::{collections::HashMap, hash::Hash, time::Duration};

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
}

impl<K: Copy + Eq + Hash> Limit<K> {
    pub fn new(per_second: u32) -> Limit<K> {
        Limit {
            per_second: per_second.max(1),
            buckets: Mutex::default(),
        }
    }

    /// Refuses where none is left, and takes none.
    pub fn check(&self, sender: &K, now: Duration) -> Result<(), u64> {
        let rate = f64::from(self.per_second);
        let buckets = self.buckets.lock();
        let left = buckets.get(sender).map_or(f64::INFINITY, |bucket| {
            bucket.left + now.saturating_sub(bucket.at).as_secs_f64() * rate
        });
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
        let mut buckets = self.buckets.lock();
        let bucket = self.filled(&mut buckets, sender, now);
        if bucket.left < 1.0 {
            return Err(self.told(*bucket));
        }
        bucket.left -= 1.0;
        Ok(self.told(*bucket))
    }

    /// Gives a request back that was taken and not carried out, for want of somebody else's.
    pub fn give_back(&self, sender: K, now: Duration) -> Left {
        let mut buckets = self.buckets.lock();
        let bucket = self.filled(&mut buckets, sender, now);
        bucket.left = (bucket.left + 1.0).min(f64::from(self.quota()));
        self.told(*bucket)
    }

    /// What a sender may still send.
    pub fn left(&self, sender: K, now: Duration) -> Left {
        let mut buckets = self.buckets.lock();
        let bucket = *self.filled(&mut buckets, sender, now);
        self.told(bucket)
    }

    fn filled<'a>(&self, buckets: &'a mut HashMap<K, Bucket>, sender: K, now: Duration) -> &'a mut Bucket {
        let (rate, most) = (f64::from(self.per_second), f64::from(self.quota()));
        if buckets.len() >= SENDERS_MAX && !buckets.contains_key(&sender) {
            forget_idle(buckets, rate, most, now);
        }
        let bucket = buckets.entry(sender).or_insert(Bucket { left: most, at: now });
        let filled = now.saturating_sub(bucket.at).as_secs_f64() * rate;
        *bucket = Bucket {
            left: (bucket.left + filled).min(most),
            at: now,
        };
        bucket
    }

    fn quota(&self) -> u32 {
        self.per_second.saturating_mul(BURST_SECONDS)
    }

    fn told(&self, bucket: Bucket) -> Left {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is between nothing and the quota"
        )]
        let remaining = bucket.left.max(0.0) as u32;
        Left {
            per_second: self.per_second,
            quota: self.quota(),
            remaining,
            // Every bucket gets at least one request in a second.
            reset_seconds: 1,
        }
    }
}

/// Makes room for one more: those whose buckets are full again lose nothing by it. Without one, whoever has the most left goes, so that
/// nobody who has used theirs up begins anew because many others come.
fn forget_idle<K: Copy + Eq + Hash>(buckets: &mut HashMap<K, Bucket>, rate: f64, most: f64, now: Duration) {
    let left = |bucket: &Bucket| bucket.left + now.saturating_sub(bucket.at).as_secs_f64() * rate;
    buckets.retain(|_, bucket| left(bucket) < most);
    if buckets.len() < SENDERS_MAX {
        return;
    }
    let fullest = buckets
        .iter()
        .max_by(|(_, a), (_, b)| left(a).total_cmp(&left(b)))
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
