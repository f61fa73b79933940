//! One face over SQLite and PostgreSQL: transactions, migrations, leases and wake-ups.
//!
//! A caller hands a synchronous closure over a [`Tx`] to [`Database::read`] or [`Database::write`]. On SQLite it runs on
//! the one writer thread, which commits many jobs at once, or on a reader thread; on PostgreSQL it runs on a blocking
//! thread that holds a pooled connection. The SQL is one text for both engines, with `$1` parameters.
//!
//! Rules that hold on both engines:
//! - Every transaction has a [`Scope`]. On PostgreSQL row-level security enforces it.
//! - After a statement failed, its transaction is lost: further statements answer [`StorageError::Aborted`] and the
//!   transaction is rolled back even if the closure returns `Ok`. [`Tx::attempt`] confines a failure that is expected.
//! - A write closure may run more than once (conflicts are retried here and nowhere else), so it must not have effects
//!   outside the transaction.
//! - A read sees one snapshot.

pub mod bare;
mod database;
mod error;
mod lease;
mod migration;
mod postgres;
mod sqlite;
mod statement;
pub mod testing;
mod tx;
mod url;
mod value;
mod wakeup;

pub use database::{Database, Engine, OpenOptions};
pub use error::{EngineFailure, StorageError};
pub use lease::Lease;
pub use migration::Migration;
pub use statement::Statement;
pub use tx::{Row, Scope, Tx};
pub use url::{DatabaseUrl, InvalidDatabaseUrl};
pub use value::{FromValue, ToValue, Value, ValueRef};
pub use wakeup::{WAKEUP_PAYLOAD_BYTES_MAX, WAKEUP_TOPIC_BYTES_MAX, Wakeup};

/// Every statement of this crate, for the test that prepares them on both engines.
pub const STATEMENTS: &[Statement] = lease::ALL;
