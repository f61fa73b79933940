//! The handle that the rest of the program holds.

use std::{fmt, sync::Arc};

use tokio::sync::broadcast;

use crate::{
    error::StorageError,
    migration::Migration,
    postgres::Postgres,
    sqlite::Sqlite,
    tx::{Scope, Tx},
    url::DatabaseUrl,
    wakeup::{Hub, Wakeup},
};

/// A database, shared by cloning. When the last clone goes, its threads and connections end.
#[derive(Clone)]
pub struct Database {
    engine: Arc<EngineOf>,
    hub: Arc<Hub>,
}

enum EngineOf {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

/// Which engine a database runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Embedded.
    Sqlite,
    /// A server.
    Postgres,
}

/// How to open a database.
#[derive(Debug, Clone)]
pub struct OpenOptions<'a> {
    /// The schema, from the first migration on.
    pub migrations: &'static [Migration],
    /// SQLite: how many threads read at once; at least one.
    pub reader_threads: usize,
    /// PostgreSQL: how many connections transactions may hold at once; at least one.
    pub pool_size: usize,
    /// The name that the server's list of connections shows.
    pub application: &'a str,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("engine", &self.engine())
            .finish_non_exhaustive()
    }
}

impl Database {
    /// Opens the database, makes its schema the newest, and refuses one that a newer program wrote.
    pub async fn open(url: &DatabaseUrl, options: OpenOptions<'_>) -> Result<Self, StorageError> {
        match url {
            DatabaseUrl::Sqlite(path) => {
                let engine =
                    Sqlite::open(path.clone(), options.migrations, options.reader_threads.max(1)).await?;
                Ok(Self {
                    engine: Arc::new(EngineOf::Sqlite(engine)),
                    hub: Arc::new(Hub::new(false)),
                })
            }
            DatabaseUrl::Postgres(text) => {
                let hub = Arc::new(Hub::new(true));
                let engine = Postgres::open(text, &options, Arc::clone(&hub)).await?;
                Ok(Self {
                    engine: Arc::new(EngineOf::Postgres(engine)),
                    hub,
                })
            }
        }
    }

    /// Opens a database to read it, beside the process that may own it: nothing is migrated and no write is accepted.
    pub async fn open_read_only(
        url: &DatabaseUrl,
        migrations: &'static [Migration],
    ) -> Result<Self, StorageError> {
        match url {
            DatabaseUrl::Sqlite(path) => {
                let engine = Sqlite::open_read_only(path.clone(), migrations).await?;
                Ok(Self {
                    engine: Arc::new(EngineOf::Sqlite(engine)),
                    hub: Arc::new(Hub::new(false)),
                })
            }
            DatabaseUrl::Postgres(text) => {
                let hub = Arc::new(Hub::new(true));
                let engine = Postgres::open_read_only(text, migrations, Arc::clone(&hub)).await?;
                Ok(Self {
                    engine: Arc::new(EngineOf::Postgres(engine)),
                    hub,
                })
            }
        }
    }

    /// Runs `job` in a read transaction that sees one snapshot.
    pub async fn read<T, E, F>(&self, scope: Scope, job: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StorageError> + Send + 'static,
        F: FnOnce(&mut Tx) -> Result<T, E> + Send + 'static,
    {
        match &*self.engine {
            EngineOf::Sqlite(engine) => engine.read(scope, job).await,
            EngineOf::Postgres(engine) => engine.read(scope, job).await,
        }
    }

    /// Runs `job` in a write transaction, committed if it answers `Ok` and rolled back if it answers `Err`. Conflicts
    /// are retried, so `job` may run more than once; only its last run counts.
    pub async fn write<T, E, F>(&self, scope: Scope, job: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StorageError> + Send + 'static,
        F: FnMut(&mut Tx) -> Result<T, E> + Send + 'static,
    {
        match &*self.engine {
            EngineOf::Sqlite(engine) => engine.write(scope, job).await,
            EngineOf::Postgres(engine) => engine.write(scope, job).await,
        }
    }

    /// Wakes everybody who waits for `topic`, here and on the other nodes. It may be lost: whoever waits also polls.
    pub fn notify(&self, topic: &str, payload: &str) {
        self.hub.notify(topic, payload);
    }

    /// Hears the wake-ups from now on, of this process and of the other nodes.
    pub fn subscribe(&self) -> broadcast::Receiver<Wakeup> {
        self.hub.subscribe()
    }

    /// Which engine this is.
    pub fn engine(&self) -> Engine {
        match &*self.engine {
            EngineOf::Sqlite(_) => Engine::Sqlite,
            EngineOf::Postgres(_) => Engine::Postgres,
        }
    }

    /// The value of a PostgreSQL setting outside of every transaction; `None` on SQLite and where it is unset.
    pub(crate) async fn session_setting(&self, name: &str) -> Result<Option<String>, StorageError> {
        match &*self.engine {
            EngineOf::Sqlite(_) => Ok(None),
            EngineOf::Postgres(engine) => engine.session_setting(name).await,
        }
    }

    /// Finishes what was begun, refuses anything new, and returns when threads, connections and files are released.
    pub async fn close(&self) {
        match &*self.engine {
            EngineOf::Sqlite(engine) => engine.close().await,
            EngineOf::Postgres(engine) => engine.close().await,
        }
    }
}
