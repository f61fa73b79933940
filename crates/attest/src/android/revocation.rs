//! The list of attestation keys that Google revoked or suspended, as
//! `https://android.googleapis.com/attestation/status` serves it. Fetching it is the caller's; a list that is too old
//! decides nothing, so every attestation fails then.

use std::collections::HashMap;
use std::time::Duration;

use muster_model::time::Timestamp;
use serde::Deserialize;

use crate::reject::Reject;

/// How old a list may be unless the caller says otherwise.
pub const REVOCATION_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Longest list that is read, in bytes.
pub const LIST_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most entries that are read.
pub const LIST_ENTRIES_MAX: usize = 100_000;
/// Longest serial number in a list, in digits.
const SERIAL_DIGITS_MAX: usize = 64;

/// A list of revoked and suspended keys, and when it was fetched.
#[derive(Debug, Clone)]
pub struct RevocationList {
    entries: HashMap<String, Status>,
    fetched_at: Timestamp,
    age_max: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Revoked,
    Suspended,
}

#[derive(Deserialize)]
struct Document {
    entries: HashMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    status: String,
}

impl RevocationList {
    /// Reads a list that was fetched then. Fields beyond the status are skipped; a status that is not known counts as
    /// revoked.
    pub fn parse(json: &[u8], fetched_at: Timestamp) -> Result<Self, Reject> {
        if json.len() > LIST_BYTES_MAX {
            return Err(Reject::AndroidListMalformed);
        }
        let document: Document = serde_json::from_slice(json).map_err(|_| Reject::AndroidListMalformed)?;
        if document.entries.len() > LIST_ENTRIES_MAX {
            return Err(Reject::AndroidListMalformed);
        }
        let mut entries = HashMap::with_capacity(document.entries.len());
        for (serial, entry) in document.entries {
            let digits = !serial.is_empty() && serial.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !digits || serial.len() > SERIAL_DIGITS_MAX {
                return Err(Reject::AndroidListMalformed);
            }
            let status = match entry.status.as_str() {
                "SUSPENDED" => Status::Suspended,
                _ => Status::Revoked,
            };
            let serial = serial.to_ascii_lowercase();
            entries.insert(serial.trim_start_matches('0').to_owned(), status);
        }
        Ok(Self {
            entries,
            fetched_at,
            age_max: REVOCATION_AGE_MAX,
        })
    }

    /// The same list, usable for this long after it was fetched.
    pub fn with_age_max(mut self, age_max: Duration) -> Self {
        self.age_max = age_max;
        self
    }

    /// When it was fetched.
    pub fn fetched_at(&self) -> Timestamp {
        self.fetched_at
    }

    /// How many keys it names.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it names none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Fails when the list is too old to rely on.
    pub fn check_age(&self, now: Timestamp) -> Result<(), Reject> {
        (now.since(self.fetched_at) <= self.age_max)
            .then_some(())
            .ok_or(Reject::AndroidListStale)
    }

    /// Fails when the list names a serial number. Lists write them in hexadecimal without leading zeros, old ones in
    /// decimal, so both are looked up: that another certificate's number reads the same is not to be feared.
    pub(super) fn check(&self, serial: &[u8]) -> Result<(), Reject> {
        let hexadecimal = hex::encode(serial);
        let hexadecimal = hexadecimal.trim_start_matches('0');
        let status = self
            .entries
            .get(hexadecimal)
            .or_else(|| self.entries.get(&decimal(serial)));
        match status {
            None => Ok(()),
            Some(Status::Revoked) => Err(Reject::AndroidRevoked),
            Some(Status::Suspended) => Err(Reject::AndroidSuspended),
        }
    }
}

/// A big-endian number in decimal digits. A serial number has at most 20 octets; longer ones are in no list.
fn decimal(octets: &[u8]) -> String {
    if octets.len() > 32 {
        return String::new();
    }
    // Least significant digit first.
    let mut digits: Vec<u8> = Vec::new();
    for octet in octets {
        let mut carry = u32::from(*octet);
        for digit in &mut digits {
            let value = u32::from(*digit) * 256 + carry;
            *digit = (value % 10) as u8;
            carry = value / 10;
        }
        while carry > 0 {
            digits.push((carry % 10) as u8);
            carry /= 10;
        }
    }
    digits
        .iter()
        .rev()
        .map(|digit| char::from(b'0' + digit))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use muster_model::time::Timestamp;

    use super::{RevocationList, decimal};
    use crate::reject::Reject;

    const LIST: &[u8] = br#"{"entries":{
        "2C8CDDDFD5E03BFC":{"status":"REVOKED","reason":"KEY_COMPROMISE","comment":"x"},
        "0c8966fcb2fbb0d7":{"status":"SUSPENDED","expires":"2030-01-01"},
        "6681152659205225093":{"status":"REVOKED"},
        "aa":{"status":"SOMETHING_NEW"}}}"#;

    #[test]
    fn serial_numbers_are_found_in_every_spelling() {
        let list = RevocationList::parse(LIST, Timestamp::from_unix_seconds(0)).expect("a list");
        assert_eq!(list.len(), 4);
        let check = |hexadecimal: &str| list.check(&hex::decode(hexadecimal).expect("hex"));
        assert_eq!(check("2c8cdddfd5e03bfc"), Err(Reject::AndroidRevoked));
        assert_eq!(check("002c8cdddfd5e03bfc"), Err(Reject::AndroidRevoked));
        assert_eq!(check("0c8966fcb2fbb0d7"), Err(Reject::AndroidSuspended));
        assert_eq!(
            decimal(&hex::decode("5cb8384e8fb85c85").expect("hex")),
            "6681151957273959557"
        );
        let listed = 6_681_152_659_205_225_093_u64.to_be_bytes();
        assert_eq!(list.check(&listed), Err(Reject::AndroidRevoked));
        assert_eq!(check("00aa"), Err(Reject::AndroidRevoked));
        assert_eq!(check("ab"), Ok(()));
    }

    #[test]
    fn an_old_list_decides_nothing() {
        let fetched_at = Timestamp::from_unix_seconds(1_000_000);
        let list = RevocationList::parse(LIST, fetched_at)
            .expect("a list")
            .with_age_max(Duration::from_secs(60));
        assert_eq!(list.check_age(fetched_at.plus(Duration::from_secs(60))), Ok(()));
        let later = fetched_at.plus(Duration::from_secs(61));
        assert_eq!(list.check_age(later), Err(Reject::AndroidListStale));
    }

    #[test]
    fn a_list_is_read_strictly() {
        for bad in [
            &b"{}"[..],
            b"[]",
            br#"{"entries":{"xyz":{"status":"REVOKED"}}}"#,
            br#"{"entries":{"":{"status":"REVOKED"}}}"#,
            br#"{"entries":{"aa":{}}}"#,
        ] {
            let parsed = RevocationList::parse(bad, Timestamp::from_unix_seconds(0));
            assert_eq!(parsed.err(), Some(Reject::AndroidListMalformed));
        }
    }
}
