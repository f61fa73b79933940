//! The port towards stores of secrets, and the one that comes along: a table of the database, sealed with the key of the key folder.
//!
//! A store keeps versions of named values and never changes one. Which version is used, and until when the one before is good as
//! well, is not the store's business: that is in `secrets_version`, in one transaction with the entry of the log.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use muster_model::TenantId;
use muster_storage::{Database, Scope};

use super::{SealingKey, SecretText, store};
use crate::Clock;

/// The place of values that lie in the key folder, as the first run put them there.
pub const FILE: &str = "file";
/// The place of values in the database.
pub const EMBEDDED: &str = "embedded";
/// The longest value.
pub const VALUE_BYTES_MAX: usize = 8192;

/// Why a store did not do what it was asked for. The words hold no value and no credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It is away, sealed, throttled or slow: the same may work later.
    #[error("{why}")]
    Away {
        why: String,
        retry_after: Option<Duration>,
    },
    /// It does not let us.
    #[error("{0}")]
    Denied(String),
    /// There is no such secret or version.
    #[error("the store has no such version")]
    Missing,
    /// Another version came between.
    #[error("another version was written meanwhile")]
    Conflict,
    /// What it answered is nothing that we wrote.
    #[error("{0}")]
    Invalid(String),
}

impl StoreError {
    /// It did not answer as it should, in these words.
    pub fn away(why: impl Into<String>) -> StoreError {
        StoreError::Away {
            why: why.into(),
            retry_after: None,
        }
    }
}

/// A store of secrets. Names have 1 to 64 of the characters a-z, 0-9 and hyphens. Every call ends within seconds.
pub trait SecretStore: std::fmt::Debug + Send + Sync {
    /// What it is called in tables and messages, such as `vault:secret/muster`; the same for as long as it holds the same secrets.
    fn place(&self) -> &str;

    /// The value of a version.
    fn read<'a>(&'a self, name: &'a str, version: &'a str) -> BoxFuture<'a, Result<SecretText, StoreError>>;

    /// The name of the newest version; none where there is no such secret.
    fn newest<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<String>, StoreError>>;

    /// Adds a version behind `after` (none: the first one) and answers its name. A store that can refuse what came between does;
    /// the others compare before they write.
    fn write<'a>(
        &'a self,
        name: &'a str,
        value: &'a SecretText,
        after: Option<&'a str>,
    ) -> BoxFuture<'a, Result<String, StoreError>>;

    /// How many of the newest versions of a secret it keeps, where it counts versions and throws old ones away; nothing where it
    /// keeps all, or more than anybody makes.
    fn versions_kept<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, Result<Option<u32>, StoreError>> {
        async { Ok(None) }.boxed()
    }

    /// Whether it would answer now.
    fn health(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// Whether a text can name a secret in every store.
pub fn is_store_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(is_plain)
}

/// The store that comes along.
pub struct Embedded {
    db: Database,
    clock: Clock,
    key: Arc<SealingKey>,
    /// Whose rows the values are; set once the first tenant is there.
    tenant: std::sync::OnceLock<TenantId>,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Embedded")
    }
}

impl Embedded {
    pub(super) fn new(db: Database, clock: Clock, key: Arc<SealingKey>) -> Embedded {
        Embedded {
            db,
            clock,
            key,
            tenant: std::sync::OnceLock::new(),
        }
    }

    pub(super) fn belongs_to(&self, tenant: TenantId) {
        let _ = self.tenant.set(tenant);
    }

    fn tenant(&self) -> Result<TenantId, StoreError> {
        self.tenant
            .get()
            .copied()
            .ok_or_else(|| StoreError::away("the installation has no tenant yet"))
    }
}

pub(super) fn context(name: &str, version: i64) -> String {
    format!("secrets/value/{name}/{version}")
}

fn number(version: &str) -> Result<i64, StoreError> {
    version.parse().map_err(|_| StoreError::Missing)
}

fn database(error: impl std::fmt::Display) -> StoreError {
    StoreError::away(format!("the database: {error}"))
}

impl SecretStore for Embedded {
    fn place(&self) -> &str {
        EMBEDDED
    }

    fn read<'a>(&'a self, name: &'a str, version: &'a str) -> BoxFuture<'a, Result<SecretText, StoreError>> {
        async move {
            let (tenant, version, owned) = (self.tenant()?, number(version)?, name.to_owned());
            let sealed = self
                .db
                .read(Scope::Tenant(tenant.uuid()), move |tx| {
                    store::value(tx, tenant, &owned, version)
                })
                .await
                .map_err(database)?
                .ok_or(StoreError::Missing)?;
            self.key
                .unseal(tenant, &context(name, version), &sealed)
                .map_err(|error| StoreError::Invalid(error.to_string()))
        }
        .boxed()
    }

    fn newest<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        async move {
            let (tenant, name) = (self.tenant()?, name.to_owned());
            let newest = self
                .db
                .read(Scope::Tenant(tenant.uuid()), move |tx| {
                    store::newest_value(tx, tenant, &name)
                })
                .await
                .map_err(database)?;
            Ok(newest.map(|version| version.to_string()))
        }
        .boxed()
    }

    fn write<'a>(
        &'a self,
        name: &'a str,
        value: &'a SecretText,
        after: Option<&'a str>,
    ) -> BoxFuture<'a, Result<String, StoreError>> {
        async move {
            let tenant = self.tenant()?;
            let version = after.map(number).transpose()?.unwrap_or(0) + 1;
            let sealed = self.key.seal(tenant, &context(name, version), value);
            let (name, now) = (name.to_owned(), self.clock.now());
            let written = self
                .db
                .write(Scope::Tenant(tenant.uuid()), move |tx| {
                    store::insert_value(tx, tenant, (&name, version), &sealed, now)
                })
                .await
                .map_err(database)?;
            if written {
                Ok(version.to_string())
            } else {
                Err(StoreError::Conflict)
            }
        }
        .boxed()
    }

    fn health(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async move { self.tenant().map(drop) }.boxed()
    }
}
