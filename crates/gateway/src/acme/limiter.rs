//! How often one address may send signed requests: a token bucket each, on this node, in bounded memory.

use std::{collections::HashMap, net::IpAddr};

use muster_control::strangers::network;
use muster_model::Timestamp;

/// Requests that an address may send at once. An enrollment takes eight, and an office has one address.
const BURST: u64 = 2000;
/// Requests that it may send per second in the long run.
const PER_SECOND: u64 = 20;
/// Addresses that are remembered. When there are more, newcomers wait until someone is forgotten.
const ADDRESSES_MAX: usize = 65_536;
const MICROS: u64 = 1_000_000;
/// A bucket fills up in this time; it need not be remembered longer.
const FULL_AFTER_MICROS: u64 = BURST * MICROS / PER_SECOND;

/// The buckets of every address that was seen lately.
#[derive(Debug, Default)]
pub struct Limiter {
    buckets: HashMap<IpAddr, Bucket>,
}

/// In millionths of a request, so that time fills it without rounding.
#[derive(Debug)]
struct Bucket {
    left: u64,
    at: Timestamp,
}

impl Limiter {
    /// Takes one request from the bucket of an address; `false` when it is empty.
    pub fn take(&mut self, address: IpAddr, now: Timestamp) -> bool {
        let key = network(Some(address));
        if !self.buckets.contains_key(&key) && self.buckets.len() >= ADDRESSES_MAX {
            self.buckets
                .retain(|_, bucket| micros_since(bucket.at, now) < FULL_AFTER_MICROS);
            if self.buckets.len() >= ADDRESSES_MAX {
                return false;
            }
        }
        let bucket = self.buckets.entry(key).or_insert(Bucket {
            left: BURST * MICROS,
            at: now,
        });
        let gained = micros_since(bucket.at, now).saturating_mul(PER_SECOND);
        bucket.left = bucket.left.saturating_add(gained).min(BURST * MICROS);
        bucket.at = now;
        let enough = bucket.left >= MICROS;
        if enough {
            bucket.left -= MICROS;
        }
        enough
    }
}

fn micros_since(earlier: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.since(earlier).as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_address_has_its_burst_and_then_its_rate() {
        let mut limiter = Limiter::default();
        let start = Timestamp::from_unix_seconds(1_800_000_000);
        let one = IpAddr::from([192, 0, 2, 1]);
        let taken = (0..BURST + 50).filter(|_| limiter.take(one, start)).count();
        assert_eq!(taken as u64, BURST);
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().expect("an address");
        assert!(
            !limiter.take(mapped, start),
            "the same address, spelled otherwise"
        );
        assert!(
            limiter.take(IpAddr::from([192, 0, 2, 2]), start),
            "another has its own"
        );
        let later = start.plus(Duration::from_secs(1));
        let taken = (0..50).filter(|_| limiter.take(one, later)).count();
        assert_eq!(taken as u64, PER_SECOND);
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let mut limiter = Limiter::default();
        let now = Timestamp::from_unix_seconds(1_800_000_000);
        for host in 0..BURST {
            let address: IpAddr = format!("2001:db8::{host:x}").parse().expect("an address");
            assert!(limiter.take(address, now));
        }
        assert!(!limiter.take("2001:db8::ffff:1".parse().expect("an address"), now));
        assert!(limiter.take("2001:db8:1::1".parse().expect("an address"), now));
    }

    #[test]
    fn no_more_addresses_are_remembered_than_the_bound() {
        let mut limiter = Limiter::default();
        let start = Timestamp::from_unix_seconds(1_800_000_000);
        for number in 0..u32::try_from(ADDRESSES_MAX).expect("small") {
            assert!(limiter.take(IpAddr::from(number.to_be_bytes()), start));
        }
        let newcomer = IpAddr::from([203, 0, 113, 1]);
        assert!(!limiter.take(newcomer, start));
        let later = start.plus(Duration::from_micros(FULL_AFTER_MICROS));
        assert!(limiter.take(newcomer, later) && limiter.buckets.len() == 1);
    }
}
