//! Where connections may be relayed from.

use std::{net::IpAddr, str::FromStr};

/// Networks that a server knows by name.
const NETWORKS_MAX: usize = 64;

/// One network: an address and how many of its first bits count (RFC 4632 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

/// Why a text is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    #[error("a network is an address and a prefix length, such as 10.0.0.0/8")]
    Malformed,
    #[error("the address of a network has no bits after its prefix")]
    HostBits,
    #[error("there are at most {NETWORKS_MAX} networks")]
    TooMany,
}

impl Network {
    /// Whether an address is in this network. An IPv4 address in the clothes of an IPv6 one is taken for what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                mask(u128::from(address.to_bits()) << 96, self.prefix_bits)
                    == u128::from(network.to_bits()) << 96
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                mask(address.to_bits(), self.prefix_bits) == network.to_bits()
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// The first `bits` bits.
fn mask(value: u128, bits: u8) -> u128 {
    value & !u128::MAX.checked_shr(u32::from(bits)).unwrap_or(0)
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Network, NetworkError> {
        let (address, prefix) = text.split_once('/').ok_or(NetworkError::Malformed)?;
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Malformed)?;
        let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
        let canonical = digits && (prefix == "0" || !prefix.starts_with('0'));
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = prefix
            .parse()
            .ok()
            .filter(|bits| canonical && *bits <= longest)
            .ok_or(NetworkError::Malformed)?;
        let network = Network { address, prefix_bits };
        // `10.0.0.1/8` means one machine or a whole network: whoever wrote it has to say which.
        if network.contains(address) && address.to_canonical() == address {
            Ok(network)
        } else {
            Err(NetworkError::HostBits)
        }
    }
}

/// Who relays connections with the PROXY protocol. From these the header must come; from all others it is not understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    networks: Vec<Network>,
    unix: bool,
}

impl Sources {
    /// Reads networks, and the word `unix` for the Unix socket.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Sources, NetworkError> {
        let mut sources = Sources::default();
        for text in texts {
            match text.as_ref() {
                "unix" => sources.unix = true,
                network => sources.networks.push(network.parse()?),
            }
        }
        if sources.networks.len() > NETWORKS_MAX {
            return Err(NetworkError::TooMany);
        }
        Ok(sources)
    }

    pub(crate) fn relays(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }

    pub(crate) fn relays_on_unix(&self) -> bool {
        self.unix
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        let network: Network = network.parse().expect("a network");
        network.contains(address.parse().expect("an address"))
    }

    #[test]
    fn a_network_contains_what_shares_its_prefix() {
        assert!(contains("10.0.0.0/8", "10.255.0.1"));
        assert!(!contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("192.0.2.7/32", "192.0.2.7"));
        assert!(!contains("192.0.2.7/32", "192.0.2.6"));
        assert!(contains("0.0.0.0/0", "255.255.255.255"));
        assert!(!contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(contains("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(!contains("2001:db8::/32", "2001:db9::1"));
        assert!(contains("::/0", "2001:db8::1"));
        assert!(!contains("::/0", "10.0.0.1"));
        assert!(contains("2001:db8::7/128", "2001:db8::7"));
    }

    #[test]
    fn what_is_not_exactly_a_network_is_refused() {
        for text in [
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0.0/8 ",
            "10/8",
            "::/129",
            "",
            "/",
        ] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError::Malformed), "{text:?}");
        }
        for text in [
            "10.0.0.1/8",
            "192.0.2.1/31",
            "2001:db8::1/64",
            "::ffff:10.0.0.0/104",
        ] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError::HostBits), "{text:?}");
        }
        assert_eq!(
            Sources::parse(&["unix"; 2]).map(|sources| sources.relays_on_unix()),
            Ok(true)
        );
        assert_eq!(Sources::parse(&["Unix"]), Err(NetworkError::Malformed));
        assert_eq!(
            Sources::parse(&["10.0.0.0/8"; NETWORKS_MAX + 1]),
            Err(NetworkError::TooMany)
        );
    }

    proptest! {
        #[test]
        fn any_text_is_a_network_or_refused(text in ".{0,40}") {
            let _ = text.parse::<Network>();
        }

        #[test]
        fn a_full_prefix_is_one_address(own in any::<IpAddr>(), other in any::<IpAddr>()) {
            let bits = if own.is_ipv4() { 32 } else { 128 };
            if let Ok(network) = format!("{own}/{bits}").parse::<Network>() {
                prop_assert!(network.contains(own));
                prop_assert_eq!(network.contains(other), own == other.to_canonical());
            }
        }
    }
}
