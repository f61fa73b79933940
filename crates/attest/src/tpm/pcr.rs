//! Which values of the platform configuration registers a tenant allows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::key::Hash;

/// The registers that are quoted unless a policy says otherwise: firmware, its drivers, boot loader, Secure Boot state
/// (TCG PC Client Platform Firmware Profile, 3.3.4).
pub const DEFAULT_SELECTION: [u8; 4] = [0, 2, 4, 7];
/// Highest register of a PC.
const INDEX_MAX: u8 = 23;
/// Most values that a policy allows for one register.
const VALUES_MAX: usize = 256;

/// The value of a register in the SHA-256 bank. Text form: 64 hex digits, written in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PcrDigest(pub [u8; 32]);

/// Allowed values per register of the SHA-256 bank; a register that is not named may hold anything.
///
/// JSON: `{"allowed":{"7":["<64 hex digits>", …]},"quoted":[0,2,4,7]}`; both fields may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct PcrPolicy {
    allowed: BTreeMap<u8, BTreeSet<PcrDigest>>,
    quoted: BTreeSet<u8>,
}

/// A policy names a register that does not exist, allows no value for one, or too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidPcrPolicy;

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    allowed: BTreeMap<u8, BTreeSet<PcrDigest>>,
    #[serde(default = "default_quoted")]
    quoted: BTreeSet<u8>,
}

fn default_quoted() -> BTreeSet<u8> {
    DEFAULT_SELECTION.into()
}

impl PcrPolicy {
    /// Quotes the default registers and allows every value.
    pub fn allow_all() -> Self {
        Self {
            allowed: BTreeMap::new(),
            quoted: default_quoted(),
        }
    }

    /// A policy of allowed values per register, which quotes these and `quoted`.
    pub fn new(
        allowed: BTreeMap<u8, BTreeSet<PcrDigest>>,
        quoted: BTreeSet<u8>,
    ) -> Result<Self, InvalidPcrPolicy> {
        let known = allowed.keys().chain(&quoted).all(|index| *index <= INDEX_MAX);
        let sized = allowed
            .values()
            .all(|values| (1..=VALUES_MAX).contains(&values.len()));
        let some = !allowed.is_empty() || !quoted.is_empty();
        (known && sized && some)
            .then_some(Self { allowed, quoted })
            .ok_or(InvalidPcrPolicy)
    }

    /// The registers that a device must quote, ascending.
    pub fn selection(&self) -> Vec<u8> {
        let mut selection = self.quoted.clone();
        selection.extend(self.allowed.keys());
        selection.into_iter().collect()
    }

    /// Whether every register that the policy names is there and holds an allowed value.
    pub fn allows(&self, values: &[(u8, [u8; 32])]) -> bool {
        self.allowed.iter().all(|(index, allowed)| {
            values
                .iter()
                .any(|(quoted, value)| quoted == index && allowed.contains(&PcrDigest(*value)))
        })
    }
}

/// The digest over registers that a quote holds: the hash of their values, one after the other.
pub(crate) fn pcr_digest(hash: Hash, values: &[(u8, [u8; 32])]) -> Vec<u8> {
    let all: Vec<u8> = values.iter().flat_map(|(_, value)| *value).collect();
    hash.of(&all)
}

impl TryFrom<Fields> for PcrPolicy {
    type Error = InvalidPcrPolicy;

    fn try_from(fields: Fields) -> Result<Self, InvalidPcrPolicy> {
        Self::new(fields.allowed, fields.quoted)
    }
}

impl From<PcrPolicy> for Fields {
    fn from(policy: PcrPolicy) -> Self {
        Self {
            allowed: policy.allowed,
            quoted: policy.quoted,
        }
    }
}

impl fmt::Display for InvalidPcrPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a policy names registers from 0 to {INDEX_MAX}, each with 1 to {VALUES_MAX} allowed values"
        )
    }
}

impl std::error::Error for InvalidPcrPolicy {}

impl fmt::Debug for PcrDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Serialize for PcrDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for PcrDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let mut digest = [0; 32];
        hex::decode_to_slice(text.as_bytes(), &mut digest)
            .map_err(|_| serde::de::Error::custom("a register value is 64 hex digits"))?;
        Ok(Self(digest))
    }
}

#[cfg(test)]
mod tests {
    use super::PcrPolicy;

    fn read(json: &str) -> Option<PcrPolicy> {
        serde_json::from_str(json).ok()
    }

    #[test]
    fn a_policy_quotes_what_it_judges() {
        assert_eq!(read("{}"), Some(PcrPolicy::allow_all()));
        let digest = "ab".repeat(32);
        let policy = read(&format!(
            r#"{{"allowed":{{"7":["{digest}"],"11":["{digest}"]}}}}"#
        ))
        .expect("a policy");
        assert_eq!(policy.selection(), [0, 2, 4, 7, 11]);
        let again = serde_json::to_string(&policy).expect("JSON");
        assert_eq!(read(&again), Some(policy.clone()));
        assert!(policy.allows(&[(7, [0xab; 32]), (11, [0xab; 32])]));
        assert!(!policy.allows(&[(7, [0xab; 32]), (11, [0xac; 32])]));
        assert!(!policy.allows(&[(7, [0xab; 32])]));
    }

    #[test]
    fn a_policy_is_read_strictly() {
        for bad in [
            r#"{"allowed":{"24":["00"]}}"#,
            r#"{"allowed":{"7":[]}}"#,
            r#"{"allowed":{"7":["00"]}}"#,
            r#"{"allow":{}}"#,
            r#"{"quoted":[]}"#,
            r#"{"quoted":[24]}"#,
            r#"{"quoted":[300]}"#,
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
