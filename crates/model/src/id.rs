//! Identifiers: UUIDv7 (RFC 9562 section 5.7) behind one type per noun, with the noun's prefix in their text form.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::time::Timestamp;

/// The text is not an id of the expected kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form {prefix}_ and 32 lower-case hex digits")]
pub struct InvalidId {
    /// What the id must start with.
    pub prefix: &'static str,
}

macro_rules! ids {
    ($($(#[$meta:meta])* $name:ident = $prefix:literal;)*) => {
        $(
            $(#[$meta])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub struct $name(Uuid);

            impl $name {
                /// What the text form starts with, before the underscore.
                pub const PREFIX: &'static str = $prefix;

                /// Wraps a UUID that storage or a trusted statement holds.
                pub const fn from_uuid(uuid: Uuid) -> Self {
                    Self(uuid)
                }

                /// The UUID alone.
                pub const fn uuid(self) -> Uuid {
                    self.0
                }

                /// A new id: ordered by `now` to the millisecond, the rest from `entropy`.
                pub fn generate(now: Timestamp, entropy: [u8; 10]) -> Self {
                    Self(uuid_v7(now, &entropy))
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    write!(f, "{}_{}", $prefix, self.0.as_simple())
                }
            }

            impl FromStr for $name {
                type Err = InvalidId;

                fn from_str(text: &str) -> Result<Self, InvalidId> {
                    parse(text, $prefix).map(Self).ok_or(InvalidId { prefix: $prefix })
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
        )*
    };
}

ids! {
    /// A tenant.
    TenantId = "tnt";
    /// A device.
    DeviceId = "dev";
    /// A dynamic group of devices.
    GroupId = "grp";
    /// A policy.
    PolicyId = "pol";
    /// A command.
    CommandId = "cmd";
    /// A rollout.
    RolloutId = "rol";
    /// An API client.
    ClientId = "cli";
    /// A session of a person in the console.
    SessionId = "ses";
    /// A visit of somebody of the operator's tenant to another tenant.
    VisitId = "vis";
    /// A connection to an identity provider.
    ConnectionId = "con";
    /// A trust in an issuer of tokens.
    TrustId = "tru";
    /// An entry of a tenant's log.
    EntryId = "ent";
    /// An enrollment token.
    TokenId = "jti";
    /// A violation of a rule or setting by a device.
    ViolationId = "vio";
    /// A person of the directory.
    UserId = "usr";
    /// A group of people of the directory.
    UserGroupId = "ugr";
    /// A long-lived token of an identity provider.
    ScimTokenId = "sct";
    /// A request of an identity provider.
    ScimRequestId = "scr";
    /// An alert.
    AlertId = "alr";
    /// One message about an alert to one destination.
    DeliveryId = "dlv";
    /// A silence: alerts of which nobody is told for a while.
    SilenceId = "sil";
    /// Who outside says something of devices.
    SignalSourceId = "sgs";
    /// A message of such a source.
    SignalArrivalId = "sga";
    /// One answer to a saved question.
    QueryRunId = "qrn";
    /// Devices being asked for fresh facts.
    RefreshId = "rfr";
}

fn parse(text: &str, prefix: &str) -> Option<Uuid> {
    let digits = text.strip_prefix(prefix)?.strip_prefix('_')?;
    let plain = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digits.len() != 32 || !digits.bytes().all(plain) {
        return None;
    }
    u128::from_str_radix(digits, 16).ok().map(Uuid::from_u128)
}

fn uuid_v7(now: Timestamp, entropy: &[u8; 10]) -> Uuid {
    let millis = u64::try_from(now.as_micros() / 1000).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, entropy).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_reads_back_and_nothing_else_does() {
        let id = DeviceId::generate(Timestamp::from_unix_seconds(1_700_000_000), [7; 10]);
        assert_eq!(id.to_string().parse(), Ok(id));
        let digits = id.uuid().as_simple().to_string();
        for wrong in [
            digits.clone(),
            format!("pol_{digits}"),
            format!("dev_{}", digits.to_uppercase()),
            format!("dev_{digits}0"),
            "dev_+".into(),
        ] {
            assert!(wrong.parse::<DeviceId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn later_ids_sort_later() {
        let id = |seconds| DeviceId::generate(Timestamp::from_unix_seconds(seconds), [0; 10]);
        assert!(id(1) < id(2));
    }

    proptest::proptest! {
        #[test]
        fn reading_an_id_never_panics_and_reads_back(text in "(dev_)?([0-9a-f]{32}|[0-9a-fA-F+_-]{30,34}|\\PC{0,40})") {
            if let Ok(id) = text.parse::<DeviceId>() {
                proptest::prop_assert_eq!(id.to_string(), text);
            }
        }

        #[test]
        fn every_id_reads_back(bytes in proptest::prelude::any::<u128>()) {
            let id = EntryId::from_uuid(Uuid::from_u128(bytes));
            proptest::prop_assert_eq!(id.to_string().parse(), Ok(id));
        }
    }
}
