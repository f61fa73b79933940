//! What is known of a secret besides its value: whose it is, how old it is, when it is due, who rotates it.

use std::time::Duration;

use muster_model::{TenantId, Timestamp};
use muster_storage::Tx;
use serde::Serialize;
use utoipa::ToSchema;

use super::store;
use crate::access::problem::{CONFLICT, Problem};

/// How often a secret is rotated unless somebody sets it.
pub const PERIOD_DAYS: u32 = 30;
/// What may be set.
pub const PERIODS_DAYS: std::ops::RangeInclusive<u32> = 1..=90;
/// What may be set of those that people rotate in a ceremony.
pub const LONG_PERIODS_DAYS: std::ops::RangeInclusive<u32> = 1..=366;
/// Secrets of one tenant that have a record.
pub const SECRETS_MAX: i64 = 2000;
/// More than the server has keys of its own, which count for nothing there.
const OWN_KEYS_MAX: i64 = 16;
/// A server rotates by itself when a secret is due; only when it could not for so long is the secret overdue.
const SERVER_GRACE: Duration = Duration::from_secs(6 * 3600);
const DAY: Duration = Duration::from_secs(86_400);

macro_rules! words {
    ($(#[$meta:meta])* $type:ident { $($(#[$note:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $type { $($(#[$note])* $variant,)* }

        impl $type {
            pub const fn as_str(self) -> &'static str {
                match self { $($type::$variant => $word,)* }
            }

            pub fn parse(word: &str) -> Option<$type> {
                [$($type::$variant),*].into_iter().find(|one| one.as_str() == word)
            }
        }
    };
}

words! {
    /// What a secret is.
    Kind {
        /// Signs tokens.
        SigningKey = "signing_key",
        /// Seals what is stored.
        SealingKey = "sealing_key",
        /// Authenticates a service account.
        ClientSecret = "client_secret",
        /// A certificate with its key.
        TlsCertificate = "tls_certificate",
        /// Authenticates this installation elsewhere, or signs what is sent there.
        DestinationSecret = "destination_secret",
        /// Authenticates this installation to an identity provider.
        ProviderSecret = "provider_secret",
        /// Authenticates somebody else to this installation.
        SourceSecret = "source_secret",
        /// Opens the database.
        DatabasePassword = "database_password",
    }
}

words! {
    /// Who rotates it.
    RotatedBy {
        /// The server, by itself, when it is due.
        Server = "server",
        /// Whoever uses it: the server cannot bring the new one there.
        Holder = "holder",
        /// The operator, on the host.
        Operator = "operator",
    }
}

/// The record of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub name: String,
    pub kind: Kind,
    /// Who has it or uses it, for people.
    pub owner: String,
    pub rotated_by: RotatedBy,
    /// Where its newest value is kept.
    pub place: String,
    pub version: i64,
    pub rotated_at: Timestamp,
    pub period_days: u32,
    /// Until when the value before is good as well.
    pub overlap_until: Option<Timestamp>,
    pub asked_at: Option<Timestamp>,
    pub seen_at: Option<Timestamp>,
    /// Why the last attempt to rotate it failed.
    pub error: Option<String>,
    /// Whether the end of the values before was asked for as well.
    pub revoke_asked: bool,
    /// When that was asked for last.
    pub revoked_at: Option<Timestamp>,
}

impl Record {
    /// A record of a secret that was made now.
    pub fn new(
        name: String,
        (kind, rotated_by): (Kind, RotatedBy),
        owner: String,
        place: &str,
        at: Timestamp,
    ) -> Record {
        Record {
            name,
            kind,
            owner,
            rotated_by,
            place: place.to_owned(),
            version: 1,
            rotated_at: at,
            period_days: PERIOD_DAYS,
            overlap_until: None,
            asked_at: None,
            seen_at: None,
            error: None,
            revoke_asked: false,
            revoked_at: None,
        }
    }

    /// Whether it is of a key that the server made for itself: one of each name.
    fn is_own_key(&self) -> bool {
        let is_key = matches!(self.kind, Kind::SigningKey | Kind::SealingKey);
        is_key && self.rotated_by == RotatedBy::Server
    }

    /// When it is to be rotated.
    pub fn due_at(&self) -> Timestamp {
        self.rotated_at.plus(DAY * self.period_days)
    }

    /// Whether the server should rotate it now.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.due_at() <= now || self.asked_at.is_some_and(|asked| asked > self.rotated_at)
    }

    /// How long it should have been rotated; nothing while it is on time. What the server does by itself may take a moment.
    pub fn overdue(&self, now: Timestamp) -> Duration {
        let grace = match self.rotated_by {
            RotatedBy::Server => SERVER_GRACE,
            RotatedBy::Holder | RotatedBy::Operator => Duration::ZERO,
        };
        let late = now.since(self.due_at());
        if late > grace { late } else { Duration::ZERO }
    }
}

/// Remembers that a secret was made or rotated. Part of the transaction that did it.
pub fn note(tx: &mut Tx, tenant: TenantId, record: &Record) -> Result<(), Problem> {
    if !has_room(tx, tenant, record)? && store::record(tx, tenant, &record.name)?.is_none() {
        return Err(CONFLICT.detail(format!("A tenant has at most {SECRETS_MAX} secrets.")));
    }
    store::put_record(tx, tenant, record)?;
    Ok(())
}

/// Remembers a secret that was there before records were, unless there is a record.
pub fn note_old(tx: &mut Tx, tenant: TenantId, record: &Record) -> Result<(), Problem> {
    if has_room(tx, tenant, record)? {
        store::add_record(tx, tenant, record)?;
    }
    Ok(())
}

/// Whether there may be one more record. What people make many of keeps out none of the server's own keys, of which there are few.
fn has_room(tx: &mut Tx, tenant: TenantId, record: &Record) -> Result<bool, Problem> {
    Ok(record.is_own_key() || store::record_count(tx, tenant)? < SECRETS_MAX)
}

/// Forgets the record of a secret that is no more.
pub fn forget(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<(), Problem> {
    Ok(store::remove_record(tx, tenant, name).map(drop)?)
}

/// The record of this name.
pub fn record(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Option<Record>, Problem> {
    Ok(store::record(tx, tenant, name)?)
}

/// The records of a tenant, by name.
pub fn records(tx: &mut Tx, tenant: TenantId) -> Result<Vec<Record>, Problem> {
    Ok(store::records(tx, tenant, SECRETS_MAX + OWN_KEYS_MAX)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAYS: i64 = 86_400;

    fn record(rotated_by: RotatedBy) -> Record {
        let at = Timestamp::from_unix_seconds(0);
        Record::new(
            "x".to_owned(),
            (Kind::ClientSecret, rotated_by),
            String::new(),
            "holder",
            at,
        )
    }

    #[test]
    fn a_secret_is_due_after_thirty_days_or_when_somebody_asks() {
        let mut secret = record(RotatedBy::Server);
        let at = Timestamp::from_unix_seconds;
        assert!(!secret.is_due(at(30 * DAYS - 1)) && secret.is_due(at(30 * DAYS)));
        secret.period_days = 1;
        assert!(secret.is_due(at(DAYS)));
        secret.asked_at = Some(at(5));
        assert!(secret.is_due(at(6)));
        secret.rotated_at = at(10);
        assert!(!secret.is_due(at(11)), "what was asked for before is done");
    }

    #[test]
    fn the_servers_own_keys_have_room_beside_what_people_make() {
        let mut secret = record(RotatedBy::Server);
        assert!(!secret.is_own_key());
        for kind in [Kind::SigningKey, Kind::SealingKey] {
            secret.kind = kind;
            assert!(secret.is_own_key());
        }
        secret.rotated_by = RotatedBy::Operator;
        assert!(!secret.is_own_key());
    }

    #[test]
    fn l9_what_people_rotate_is_overdue_at_once_and_what_the_server_rotates_after_six_hours() {
        let at = Timestamp::from_unix_seconds;
        let late = |by: RotatedBy, seconds: i64| record(by).overdue(at(30 * DAYS + seconds)).as_secs();
        assert_eq!(late(RotatedBy::Holder, -1), 0);
        assert_eq!(late(RotatedBy::Holder, 60), 60);
        assert_eq!(late(RotatedBy::Server, 6 * 3600), 0);
        assert_eq!(late(RotatedBy::Server, 6 * 3600 + 1), 6 * 3600 + 1);
    }
}
