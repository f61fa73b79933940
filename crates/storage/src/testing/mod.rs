//! Throwaway databases for tests, here and in the crates above.
//!
//! `MUSTER_TEST_POSTGRES_URL` names a PostgreSQL server whose user may create databases. Without it a test runs on SQLite
//! only and says so; with `CI=true` or `MUSTER_REQUIRE_PEERS=1` it fails instead. [`PostgresServer`] starts a server.
//!
//! What goes wrong here panics: it is a broken test environment.

mod server;
mod statements;

use std::{io::Write, ops::Deref, sync::Once, thread};

use tempfile::TempDir;
use uuid::Uuid;

pub use self::{
    server::PostgresServer,
    statements::{statement_problems, whole_table_scans},
};
use crate::{
    Database, DatabaseUrl, Migration, OpenOptions, StorageError,
    postgres::{PostgresUrl, run_once},
};

/// The variable that names the PostgreSQL server.
pub const POSTGRES_URL_VARIABLE: &str = "MUSTER_TEST_POSTGRES_URL";

/// A database of its own for one test. It is gone when the test is over.
pub struct TestDatabase {
    db: Database,
    url: DatabaseUrl,
    /// SQLite: where its file is.
    _folder: Option<TempDir>,
    /// PostgreSQL: the server's own URL and the name of this database.
    dropped_by: Option<(String, String)>,
}

impl Deref for TestDatabase {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.db
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if let Some((server, name)) = self.dropped_by.take() {
            // `drop` is not asynchronous, and a runtime must not block on itself.
            let dropping = thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                let dropped =
                    runtime.block_on(run_once(&server, &format!("DROP DATABASE {name} WITH (FORCE)")));
                dropped.map_err(std::io::Error::other)
            });
            // The server is thrown away soon after, so a database that stays behind does no harm.
            let _ = dropping.join();
        }
    }
}

impl TestDatabase {
    /// A new SQLite database in a temporary folder.
    pub async fn sqlite(migrations: &'static [Migration]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let url = DatabaseUrl::Sqlite(folder.path().join("test.db"));
        let db = open(&url, migrations).await.expect("a new SQLite database opens");
        Self {
            db,
            url,
            _folder: Some(folder),
            dropped_by: None,
        }
    }

    /// A new database on the PostgreSQL server at `server`.
    pub async fn postgres(server: &str, migrations: &'static [Migration]) -> Self {
        let name = format!("muster_test_{}", Uuid::new_v4().simple());
        run_once(server, &format!("CREATE DATABASE {name}"))
            .await
            .expect("a test database can be created");
        let url = PostgresUrl::with_database(server, &name).expect("the server's URL is valid");
        let url = DatabaseUrl::Postgres(url);
        let db = open(&url, migrations)
            .await
            .expect("a new PostgreSQL database opens");
        Self {
            db,
            url,
            _folder: None,
            dropped_by: Some((server.to_owned(), name)),
        }
    }

    /// The handle itself, to hand on.
    pub fn db(&self) -> &Database {
        &self.db
    }

    /// Where the database is, to open it a second time. A SQLite database must be closed before.
    pub fn url(&self) -> &DatabaseUrl {
        &self.url
    }
}

/// One throwaway database for each engine that is there.
pub async fn databases(migrations: &'static [Migration]) -> Vec<TestDatabase> {
    let mut databases = vec![TestDatabase::sqlite(migrations).await];
    if let Some(server) = postgres_url() {
        databases.push(TestDatabase::postgres(&server, migrations).await);
    }
    databases
}

/// Runs a test on each engine that is there, one after the other.
pub async fn on_both(migrations: &'static [Migration], test: impl AsyncFn(TestDatabase)) {
    for database in databases(migrations).await {
        println!("on {:?}", database.engine());
        test(database).await;
    }
}

/// Opens a database as tests do: few threads, few connections.
pub async fn open(url: &DatabaseUrl, migrations: &'static [Migration]) -> Result<Database, StorageError> {
    Database::open(
        url,
        OpenOptions {
            migrations,
            reader_threads: 2,
            pool_size: 8,
            application: "muster-test",
        },
    )
    .await
}

/// What a pooled PostgreSQL connection says of a setting outside of every transaction; `None` where it is unset.
pub async fn session_setting(db: &Database, name: &str) -> Result<Option<String>, StorageError> {
    db.session_setting(name).await
}

/// The PostgreSQL server for tests. Without one, says so loudly, or panics where that is not allowed.
pub fn postgres_url() -> Option<String> {
    static SAID: Once = Once::new();
    let url = variable(POSTGRES_URL_VARIABLE);
    if url.is_none() {
        let required = variable("CI").as_deref() == Some("true")
            || variable("MUSTER_REQUIRE_PEERS").as_deref() == Some("1");
        assert!(
            !required,
            "{POSTGRES_URL_VARIABLE} is not set, and this run must not skip PostgreSQL"
        );
        // Straight to the stream: the test runner swallows what a passing test prints.
        SAID.call_once(|| {
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED postgres: {POSTGRES_URL_VARIABLE} is not set"
            );
        });
    }
    url
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests have no command line; this is the one place that reads theirs"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
