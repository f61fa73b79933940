//! Random identifiers that travel as lower-case hexadecimal text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is not an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not {digits} lower-case hexadecimal digits, of which one at least is not 0")]
pub struct InvalidHexId {
    digits: usize,
}

fn read<const N: usize>(text: &str) -> Result<[u8; N], InvalidHexId> {
    let invalid = InvalidHexId { digits: 2 * N };
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(invalid),
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return Err(invalid);
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    if bytes == [0; N] { Err(invalid) } else { Ok(bytes) }
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// From random bytes; none of zeros only.
            pub fn from_bytes(bytes: [u8; $bytes]) -> Option<Self> {
                (bytes != [0; $bytes]).then_some(Self(bytes))
            }

            pub fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidHexId;

            fn from_str(text: &str) -> Result<Self, InvalidHexId> {
                read(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_id! {
    /// One life of a device's telemetry spool: made anew whenever the spool is.
    StreamId, 16
}
hex_id! {
    /// One run of the operating system, from start to end.
    BootId, 16
}
hex_id! {
    /// What belongs together across programs (W3C Trace Context, section 3.2.2.3).
    TraceId, 16
}
hex_id! {
    /// One piece of work in a trace (W3C Trace Context, section 3.2.2.4).
    SpanId, 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_reads_back_and_everything_else_is_refused() {
        let text = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(text.parse::<TraceId>().expect("an id").to_string(), text);
        for bad in [
            "",
            "4bf92f3577b34da6a3ce929d0e0e473",
            "4BF92F3577B34DA6A3CE929D0E0E4736",
            "4bf92f3577b34da6a3ce929d0e0e47360",
            "00000000000000000000000000000000",
            "ä".repeat(16).as_str(),
        ] {
            assert!(bad.parse::<TraceId>().is_err(), "{bad:?}");
        }
        assert_eq!(SpanId::from_bytes([0; 8]), None);
    }
}
