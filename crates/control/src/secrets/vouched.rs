//! Which versions of a key the log vouches for.
//!
//! A row of `secrets_version` can be written by whoever writes SQL, so it decides nothing. Each rotation is an entry that was sealed
//! with the log key, and that entry names the version, where its value is kept, and the id of the key; ends are read from entries as
//! well. A row adds what does no harm: a public key whose id the entry names, and an end that is sooner.

use muster_model::Timestamp;
use muster_storage::Tx;
use muster_trust::{entry::LogEntry, key::sha256};

use super::{
    TenantKeys,
    places::FILE,
    ring::{RingName, SETTLE, Version},
    rotation::{RETIRED, REVOKED, ROTATED},
    store,
};
use crate::{
    access::problem::Problem,
    audit::{self, Newest},
};

/// The entries that speak of versions.
const ACTIONS: [&str; 3] = [ROTATED, REVOKED, RETIRED];

/// What an entry of the log says of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Voucher {
    number: i64,
    place: String,
    /// What the store calls it, and the id of the key. Entries of before these were written down have neither: such a key is
    /// believed when its store gives it, and never from a row.
    store_version: Option<String>,
    key_id: Option<String>,
    used_from: Timestamp,
}

/// What the log says of a ring.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Said {
    /// The newest first.
    vouchers: Vec<Voucher>,
    /// Versions before this one end at this time, unless one in between said so before.
    ends: Vec<(i64, Timestamp)>,
    /// Versions before this one end at this time in any case.
    revoked: Vec<(i64, Timestamp)>,
}

/// The versions of a ring, and what is wrong with its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// The oldest first.
    pub versions: Vec<Version>,
    /// In words, for the alarm.
    pub edited: Vec<String>,
}

impl Said {
    /// What the sealed entries say of this ring.
    pub fn read(tx: &mut Tx, keys: &TenantKeys, name: RingName) -> Result<Said, Problem> {
        let mut said = Said::default();
        for action in ACTIONS {
            for entry in audit::sealed_about(tx, keys, name.as_str(), action)? {
                said.take(&entry);
            }
        }
        Ok(said)
    }

    fn take(&mut self, entry: &LogEntry) {
        let number = |field: &str| entry.detail.get(field).and_then(serde_json::Value::as_i64);
        let time = |field: &str| entry.detail_text(field).and_then(|text| text.parse().ok());
        let text = |field: &str| entry.detail_text(field).map(str::to_owned);
        match entry.action.as_str() {
            ROTATED => {
                let (Some(version), Some(place)) = (number("version"), text("place")) else {
                    return;
                };
                if let Some(until) = time("before_good_until") {
                    self.ends.push((version, until));
                }
                self.vouchers.push(Voucher {
                    number: version,
                    place,
                    store_version: text("store_version"),
                    key_id: text("key_id"),
                    used_from: time("used_from").unwrap_or(entry.at),
                });
            }
            REVOKED => self
                .revoked
                .extend(number("before_version").map(|before| (before, entry.at))),
            RETIRED => {
                let before = number("before_version");
                self.ends
                    .extend(before.map(|before| (before, entry.at.plus(SETTLE))));
            }
            _ => {}
        }
    }

    /// The number of the next version: no number comes twice, whatever rows are gone.
    pub fn next_number(&self, rows: &[Version]) -> i64 {
        let vouched = self.vouchers.iter().map(|voucher| voucher.number).max();
        let stored = rows.last().map(|row| row.number);
        vouched.max(stored).unwrap_or(0).saturating_add(1)
    }

    /// The highest version that an entry names, and before which version all were revoked; 0 where no entry says so.
    pub fn reach(&self) -> (i64, i64) {
        let named = self.vouchers.iter().map(|voucher| voucher.number);
        let revoked = self.revoked.iter().map(|(before, _)| *before);
        (named.max().unwrap_or(0), revoked.max().unwrap_or(0))
    }

    /// Takes what was read before and is hidden now. Answers whether something was.
    pub fn remember(&mut self, before: Said) -> bool {
        let vouchers: Vec<Voucher> = before
            .vouchers
            .into_iter()
            .filter(|voucher| !self.vouchers.contains(voucher))
            .collect();
        let ends: Vec<_> = before
            .ends
            .into_iter()
            .filter(|end| !self.ends.contains(end))
            .collect();
        let revoked: Vec<_> = before
            .revoked
            .into_iter()
            .filter(|end| !self.revoked.contains(end))
            .collect();
        let was_hidden = !(vouchers.is_empty() && ends.is_empty() && revoked.is_empty());
        self.vouchers.extend(vouchers);
        self.ends.extend(ends);
        self.revoked.extend(revoked);
        was_hidden
    }

    /// Whether an entry names this key as that of a version.
    pub fn names_key(&self, id: &str) -> bool {
        self.vouchers
            .iter()
            .any(|voucher| voucher.key_id.as_deref() == Some(id))
    }

    /// Whether versions were revoked at this time or later.
    pub fn was_revoked_since(&self, at: Timestamp) -> bool {
        self.revoked.iter().any(|(_, revoked_at)| *revoked_at >= at)
    }

    fn end_of(&self, number: i64) -> Option<Timestamp> {
        let follows = |(before, _): &&(i64, Timestamp)| number < *before;
        // A clock that was set back makes later ends earlier: the row has the first one.
        let first = self.ends.iter().filter(follows).min_by_key(|(before, _)| *before);
        let revoked = self.revoked.iter().filter(follows);
        first.into_iter().chain(revoked).map(|(_, at)| *at).min()
    }

    /// Judges the rows of a ring, which are in their order.
    pub fn judge(&self, rows: &[Version], now: Timestamp) -> Judged {
        let mut judged = Judged {
            versions: Vec::new(),
            edited: Vec::new(),
        };
        let lowest = self.vouchers.iter().map(|voucher| voucher.number).min();
        for row in rows {
            let voucher = self.vouchers.iter().find(|voucher| voucher.number == row.number);
            match voucher {
                Some(voucher) => judged.vouched(voucher, row),
                // The first version is that of the key folder.
                None if row.number == 1 && row.place == FILE => judged.versions.push(unread(row)),
                // It is older than everything that this log key sealed, and its store has to give it.
                None if row.number > 1
                    && row.place != FILE
                    && lowest.is_none_or(|lowest| row.number < lowest) =>
                {
                    judged.versions.push(unread(row));
                }
                None => judged
                    .edited
                    .push(format!("the log records no version {} of this key", row.number)),
            }
        }
        for voucher in &self.vouchers {
            let is_over = self.end_of(voucher.number).is_some_and(|at| at <= now);
            if is_over
                || judged
                    .versions
                    .iter()
                    .any(|version| version.number == voucher.number)
            {
                continue;
            }
            judged
                .edited
                .push(format!("the row of version {} is gone", voucher.number));
            if let Some(version) = voucher.version() {
                judged.versions.push(version);
            }
        }
        for version in &mut judged.versions {
            let Some(end) = self.end_of(version.number) else {
                continue;
            };
            let is_later = version.retires_at.is_none_or(|at| at > end);
            // Of the end that an entry says in a text, the row may know more digits.
            if is_later && version.retires_at.map(|at| at.to_string()) != Some(end.to_string()) {
                judged.edited.push(format!(
                    "the row of version {} lives longer than the log says",
                    version.number
                ));
            }
            version.retires_at = Some(version.retires_at.map_or(end, |at| at.min(end)));
        }
        judged.versions.sort_by_key(|version| version.number);
        judged
    }
}

impl Judged {
    fn vouched(&mut self, voucher: &Voucher, row: &Version) {
        let mut version = Version {
            place: voucher.place.clone(),
            activates_at: voucher.used_from,
            key_id: voucher.key_id.clone(),
            public_key: None,
            ..row.clone()
        };
        if let Some(named) = &voucher.store_version {
            version.store_version.clone_from(named);
        }
        let is_same = (&version.place, &version.store_version) == (&row.place, &row.store_version)
            && version.activates_at.to_string() == row.activates_at.to_string();
        let mut is_edited = !is_same;
        if let (Some(id), Some(public_key)) = (&voucher.key_id, &row.public_key) {
            if sha256(public_key).to_string() == *id {
                version.public_key = Some(public_key.clone());
            } else {
                is_edited = true;
            }
        }
        if is_edited {
            self.edited.push(format!(
                "the row of version {} is not what the log records",
                row.number
            ));
        }
        self.versions.push(version);
    }
}

impl Voucher {
    /// The version without its row, where the entry says enough.
    fn version(&self) -> Option<Version> {
        Some(Version {
            number: self.number,
            place: self.place.clone(),
            store_version: self.store_version.clone()?,
            public_key: None,
            key_id: self.key_id.clone(),
            created_at: self.used_from,
            activates_at: self.used_from,
            retires_at: None,
        })
    }
}

/// The version of a row whose public key nobody vouches for: only the value itself says it.
fn unread(row: &Version) -> Version {
    Version {
        public_key: None,
        ..row.clone()
    }
}

/// The newest entries about a ring: what was read of the log is complete as long as they are the same and this installation's.
pub fn newest(tx: &mut Tx, keys: &TenantKeys, name: RingName) -> Result<Vec<Newest>, Problem> {
    let mut found = Vec::with_capacity(ACTIONS.len());
    for action in ACTIONS {
        found.push(audit::newest_about(tx, keys, name.as_str(), action)?);
    }
    Ok(found)
}

/// The rows of a ring as they are stored, with what the log says of it.
pub fn read(tx: &mut Tx, keys: &TenantKeys, name: RingName) -> Result<(Vec<Version>, Said), Problem> {
    let rows = store::versions(tx, keys.tenant, name.as_str())?;
    Ok((rows, Said::read(tx, keys, name)?))
}

/// The versions of a ring that the log vouches for, the oldest first.
pub fn versions(
    tx: &mut Tx,
    keys: &TenantKeys,
    name: RingName,
    now: Timestamp,
) -> Result<Vec<Version>, Problem> {
    let (rows, said) = read(tx, keys, name)?;
    Ok(said.judge(&rows, now).versions)
}

#[cfg(test)]
mod tests {
    use muster_trust::key::SigningKey;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000 + seconds)
    }

    fn row(number: i64, place: &str, key: Option<&SigningKey>) -> Version {
        Version {
            number,
            place: place.to_owned(),
            store_version: if place == FILE {
                String::new()
            } else {
                number.to_string()
            },
            public_key: key.map(|key| key.public().spki_der()),
            key_id: None,
            created_at: at(0),
            activates_at: at(15),
            retires_at: None,
        }
    }

    fn voucher(number: i64, key: Option<&SigningKey>) -> Voucher {
        Voucher {
            number,
            place: "embedded".to_owned(),
            store_version: key.map(|_| number.to_string()),
            key_id: key.map(|key| key.key_id().to_string()),
            used_from: at(15),
        }
    }

    fn key() -> SigningKey {
        SigningKey::generate_p256().expect("a key")
    }

    fn said(vouchers: Vec<Voucher>, ends: &[(i64, i64)]) -> Said {
        Said {
            vouchers,
            ends: ends.iter().map(|(before, end)| (*before, at(*end))).collect(),
            revoked: Vec::new(),
        }
    }

    #[test]
    fn an_honest_ring_is_taken_as_it_is() {
        let second = key();
        let mut first = row(1, FILE, None);
        first.retires_at = Some(at(3915));
        let judged = said(vec![voucher(2, Some(&second))], &[(2, 3915)])
            .judge(&[first, row(2, "embedded", Some(&second))], at(20));
        assert!(judged.edited.is_empty(), "{:?}", judged.edited);
        assert_eq!(judged.versions.len(), 2);
        assert_eq!(judged.versions[1].public_key, Some(second.public().spki_der()));
    }

    #[test]
    fn m1_a_version_that_no_entry_names_is_no_version() {
        let (second, foreign) = (key(), key());
        let log = said(vec![voucher(2, Some(&second))], &[(2, 3915)]);
        for wrong in [
            row(3, "embedded", Some(&foreign)),
            row(9, FILE, None),
            row(1, "embedded", Some(&foreign)),
        ] {
            let judged = log.judge(&[wrong.clone(), row(2, "embedded", Some(&second))], at(20));
            assert_eq!(judged.edited.len(), 1, "{wrong:?}");
            assert_eq!(judged.versions.len(), 1);
        }
        // Nor is it one where nothing was ever rotated, as far as a row alone could say.
        let judged = said(Vec::new(), &[]).judge(&[row(7, "embedded", Some(&foreign))], at(20));
        assert_eq!(judged.versions[0].public_key, None);
    }

    #[test]
    fn m1_an_edited_row_changes_nothing() {
        let (second, foreign) = (key(), key());
        let log = said(vec![voucher(2, Some(&second))], &[(2, 30)]);
        let honest = row(2, "embedded", Some(&second));
        for edit in [
            |row: &mut Version| row.place = "vault:other/place".to_owned(),
            |row: &mut Version| row.store_version = "1".to_owned(),
            |row: &mut Version| row.activates_at = at(9_000_000),
        ] {
            let mut edited = honest.clone();
            edit(&mut edited);
            let judged = log.judge(&[edited], at(20));
            assert_eq!(judged.edited.len(), 1);
            let found = &judged.versions[0];
            assert_eq!(
                (&found.place, &found.store_version, found.activates_at),
                (&honest.place, &honest.store_version, honest.activates_at)
            );
        }
        let judged = log.judge(&[row(2, "embedded", Some(&foreign))], at(20));
        assert_eq!((judged.edited.len(), &judged.versions[0].public_key), (1, &None));
        // A key that was ended does not come back, and one that is gone does.
        let judged = log.judge(&[row(1, FILE, None), honest.clone()], at(40));
        assert_eq!(
            (judged.edited.len(), judged.versions[0].retires_at),
            (1, Some(at(30)))
        );
        let judged = log.judge(&[], at(20));
        assert_eq!((judged.edited.len(), judged.versions[0].number), (1, 2));
    }

    #[test]
    fn an_entry_of_before_ids_were_written_down_vouches_for_what_its_store_gives() {
        let second = key();
        let judged = said(vec![voucher(2, None)], &[]).judge(&[row(2, "embedded", Some(&second))], at(20));
        assert!(judged.edited.is_empty());
        assert_eq!(
            (&judged.versions[0].public_key, &judged.versions[0].key_id),
            (&None, &None)
        );
    }

    #[test]
    fn l10_a_clock_that_was_set_back_between_two_rotations_is_no_alarm() {
        let (second, third) = (key(), key());
        let mut rows = [
            row(1, FILE, None),
            row(2, "embedded", Some(&second)),
            row(3, "embedded", Some(&third)),
        ];
        (rows[0].retires_at, rows[1].retires_at) = (Some(at(3915)), Some(at(3000)));
        let mut log = said(
            vec![voucher(3, Some(&third)), voucher(2, Some(&second))],
            &[(3, 3000), (2, 3915)],
        );
        let judged = log.judge(&rows, at(20));
        assert!(judged.edited.is_empty(), "{:?}", judged.edited);
        assert_eq!(judged.versions[0].retires_at, Some(at(3915)));
        // What was revoked is over, whatever rows and earlier ends say.
        log.revoked.push((3, at(25)));
        let judged = log.judge(&rows, at(30));
        assert_eq!(
            (judged.edited.len(), judged.versions[0].retires_at),
            (2, Some(at(25)))
        );
    }

    #[test]
    fn what_was_read_once_is_not_hidden_later() {
        let second = key();
        let mut full = said(vec![voucher(2, Some(&second))], &[(2, 30)]);
        full.revoked.push((2, at(25)));
        assert_eq!(full.reach(), (2, 2));
        let mut same = full.clone();
        assert!(!same.remember(full.clone()));
        assert_eq!(same, full);
        let mut hidden = Said::default();
        assert_eq!(hidden.reach(), (0, 0));
        assert!(hidden.remember(full.clone()));
        assert_eq!(hidden, full);
        // The key that was ended does not come back with its row alone.
        let judged = hidden.judge(&[row(1, FILE, None)], at(26));
        assert_eq!(judged.versions[0].retires_at, Some(at(25)));
    }

    #[test]
    fn what_was_a_version_or_is_of_before_a_revocation_is_known() {
        let second = key();
        let mut log = said(vec![voucher(2, Some(&second))], &[]);
        assert!(log.names_key(&second.key_id().to_string()));
        assert!(!log.names_key(&key().key_id().to_string()));
        log.revoked.push((2, at(40)));
        assert!(log.was_revoked_since(at(40)) && !log.was_revoked_since(at(41)));
    }

    #[test]
    fn no_number_comes_twice() {
        let log = said(vec![voucher(4, None), voucher(3, None)], &[]);
        assert_eq!(log.next_number(&[]), 5);
        assert_eq!(log.next_number(&[row(9, "embedded", None)]), 10);
        assert_eq!(said(Vec::new(), &[]).next_number(&[row(1, FILE, None)]), 2);
    }
}
