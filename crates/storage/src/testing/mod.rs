//! Throwaway databases for tests, here and in the crates above.
//!
//! `MUSTER_TEST_POSTGRES_URL` names a PostgreSQL server whose user may create databases. Without it a test runs on SQLite
//! only and says so; with `CI=true` or `MUSTER_REQUIRE_PEERS=1` it fails instead.

use std::ops::Deref;

use tempfile::TempDir;
use uuid::Uuid;

use crate::{Database, DatabaseUrl, Engine, Migration, OpenOptions, Scope, Statement, StorageError};

/// The variable that names the PostgreSQL server.
pub const POSTGRES_URL_VARIABLE: &str = "MUSTER_TEST_POSTGRES_URL";
/// Rows of plans that read a whole table, for [`whole_table_scans`].
const SCAN: &str = "SCAN ";

/// A database of its own for one test. It is gone when the test is over.
pub struct TestDatabase {
    db: Database,
    url: DatabaseUrl,
    migrations: &'static [Migration],
    folder: Option<TempDir>,
}

impl Deref for TestDatabase {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.db
    }
}

impl TestDatabase {
    /// A new SQLite database in a temporary folder.
    pub async fn sqlite(migrations: &'static [Migration]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let url = DatabaseUrl::Sqlite(folder.path().join("test.db"));
        let db = open(&url, migrations).await.expect("a new SQLite database opens");
        Self { db, url, migrations, folder: Some(folder) }
    }

    /// The handle itself, to hand on.
    pub fn db(&self) -> &Database {
        &self.db
    }

    /// Where the database is.
    pub fn url(&self) -> &DatabaseUrl {
        &self.url
    }
}

/// Opens a database as tests do: few threads, few connections.
pub async fn open(url: &DatabaseUrl, migrations: &'static [Migration]) -> Result<Database, StorageError> {
    Database::open(url, OpenOptions { migrations, reader_threads: 2, pool_size: 8, application: "muster-test" }).await
}
