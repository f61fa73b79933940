//! How often those may try whom nobody vouches for yet: by the address that they come from, on this node, in bounded memory.

use std::net::{IpAddr, Ipv4Addr};

use crate::{
    access::problem::{Problem, RATE_LIMITED},
    clock,
    limit::Limit,
};

/// What one address may try in a second at each door, on average; five times as much may come at once. An office that shares an
/// address signs in faster than that only when everybody comes within the same seconds, and waits one.
const TRIES_PER_SECOND: u32 = 20;

/// Where strangers try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Door {
    /// They come back from an identity provider. Each costs questions to it, or the judging of what it signed.
    SignIn,
    /// They bring a token of which only its provider knows.
    Token,
    /// They send a message to a source of signals, and do not prove who they are.
    Signal,
    /// They fetch a logo, which pages before the sign-in show.
    Logo,
    /// They load the sign-in page, which looks for ways in.
    Page,
    /// They send a sign-in link that is none. It is no door of those who come from a provider: another site can have browsers send some.
    Link,
}

/// What each address has left at each door.
#[derive(Debug)]
pub struct Strangers(Limit<(Door, IpAddr)>);

impl Default for Strangers {
    fn default() -> Strangers {
        Strangers(Limit::new(TRIES_PER_SECOND))
    }
}

impl Strangers {
    /// Counts a try.
    pub fn take(&self, door: Door, from: Option<IpAddr>) -> Result<(), Problem> {
        self.0
            .take((door, network(from)), clock::uptime())
            .map_err(refused)
    }

    /// Refuses where nothing is left, and counts nothing: for doors at which only failures count.
    pub fn check(&self, door: Door, from: Option<IpAddr>) -> Result<(), Problem> {
        self.0
            .check(&(door, network(from)), clock::uptime())
            .map_err(refused)
    }

    /// Counts a failure.
    pub fn failed(&self, door: Door, from: Option<IpAddr>) {
        // With nothing left it is refused before it comes here; of those that came at once it matters as little.
        let _ = self.0.take((door, network(from)), clock::uptime());
    }
}

fn refused(seconds: u64) -> Problem {
    RATE_LIMITED
        .detail("Too much of this came from your address. Try again in a few seconds.")
        .retry_after(seconds)
}

/// What counts as one address: whoever has one of an IPv6 network (/64) has them all. Those whose address nobody knows share one.
pub fn network(address: Option<IpAddr>) -> IpAddr {
    let Some(address) = address else {
        return IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    };
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

/// The network around an address that one hand can have many addresses of: /48 of IPv6, /24 of IPv4.
pub fn around(address: Option<IpAddr>) -> IpAddr {
    match network(address) {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            IpAddr::from([a, b, c, 0])
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            IpAddr::from([a, b, c, 0, 0, 0, 0, 0])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("it is an address"))
    }

    #[test]
    fn an_ipv6_network_is_one_address_and_a_mapped_one_its_own() {
        assert_eq!(
            network(address("2001:db8::1")),
            network(address("2001:db8::ffff:2"))
        );
        assert_ne!(
            network(address("2001:db8::1")),
            network(address("2001:db8:0:1::1"))
        );
        assert_eq!(
            network(address("::ffff:192.0.2.1")),
            network(address("192.0.2.1"))
        );
        assert_ne!(network(address("192.0.2.1")), network(address("192.0.2.2")));
        assert_eq!(network(None), network(address("0.0.0.0")));
        assert_eq!(around(address("2001:db8::1")), around(address("2001:db8:0:9::1")));
        assert_ne!(around(address("2001:db8::1")), around(address("2001:db8:1::1")));
        assert_eq!(around(address("192.0.2.1")), around(address("192.0.2.9")));
        assert_ne!(around(address("192.0.2.1")), around(address("192.0.3.1")));
    }

    #[test]
    fn one_address_has_its_tries_at_each_door_and_failures_count_where_only_they_do() {
        let (strangers, from) = (Strangers::default(), address("2001:db8::1"));
        let tried = (0..1000)
            .filter(|_| strangers.take(Door::SignIn, from).is_ok())
            .count();
        assert!((100..200).contains(&tried), "{tried}");
        assert!(strangers.take(Door::SignIn, address("2001:db8::2")).is_err());
        assert!(strangers.take(Door::SignIn, address("192.0.2.1")).is_ok());
        for _ in 0..1000 {
            assert!(
                strangers.check(Door::Signal, from).is_ok(),
                "asking costs nothing"
            );
        }
        for _ in 0..200 {
            strangers.failed(Door::Signal, from);
        }
        assert!(strangers.check(Door::Signal, from).is_err());
        assert!(strangers.check(Door::Token, from).is_ok(), "another door");
    }
}
