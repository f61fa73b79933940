//! The server engine: a pool of connections, each transaction on a blocking thread that holds one.
//!
//! A connection goes back to the pool only after COMMIT or ROLLBACK succeeded; every other one is closed. The tenant is
//! set with SET LOCAL in the same message as BEGIN, so it ends with the transaction and a pooled connection carries none.

mod connection;
mod connector;
mod migrate;
mod url;
mod wakeups;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType,
};
use tokio::{runtime::Handle, task::JoinHandle};
use uuid::Uuid;

pub(crate) use self::{
    connection::{Connection, column},
    url::PostgresUrl,
};
use self::{
    connection::{UniqueIndexes, unreachable_server},
    connector::{Connector, Passwords},
    migrate::Prepared,
};
use crate::{
    OpenOptions,
    error::StorageError,
    migration::Migration,
    tx::{self, Scope, Tx, TxState},
    wakeup::Hub,
};

/// How often a write is tried before its conflicts are reported.
const ATTEMPTS_MAX: u32 = 5;
/// The wait before the second attempt; doubled each time, and up to as much again at random.
const RETRY_WAIT: Duration = Duration::from_millis(5);
/// How long a transaction waits for a connection of the pool.
const POOL_WAIT: Duration = Duration::from_secs(15);
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// How many dead connections of the pool a transaction throws away before it gives up.
const STALE_CONNECTIONS_MAX: u32 = 3;

/// The connections of one PostgreSQL database.
pub(crate) struct Postgres {
    pool: Pool,
    indexes: Arc<UniqueIndexes>,
    /// What the transactions of [`Self::write`] are.
    strongest: Mode,
    wakeups: JoinHandle<()>,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.wakeups.abort();
    }
}

#[derive(Clone, Copy)]
enum Mode {
    Read,
    Write,
}

/// How one run of a transaction ended.
enum Ended<T, E> {
    With(Result<T, E>),
    /// Nothing was changed, and another attempt may succeed.
    Again(StorageError),
}

impl Postgres {
    pub async fn open(text: &str, options: &OpenOptions<'_>, hub: Arc<Hub>) -> Result<Self, StorageError> {
        let connector = connector(text, options.application)?;
        let prepared = migrate::prepare(&connector, options.migrations).await?;
        Self::start(connector, prepared, options.pool_size, Mode::Write, hub)
    }

    /// Opens a schema that is up to date, changes nothing, and begins no transaction that could.
    pub async fn open_read_only(
        text: &str,
        migrations: &'static [Migration],
        hub: Arc<Hub>,
    ) -> Result<Self, StorageError> {
        let connector = connector(text, "muster read only")?;
        let prepared = migrate::inspect(&connector, migrations).await?;
        Self::start(connector, prepared, 1, Mode::Read, hub)
    }

    fn start(
        mut connector: Connector,
        prepared: Prepared,
        pool_size: usize,
        strongest: Mode,
        hub: Arc<Hub>,
    ) -> Result<Self, StorageError> {
        if prepared.takes_app_role {
            connector.take_app_role();
        }
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let manager = Manager::from_connect(connector.config.clone(), connector.clone(), recycling);
        let mut builder = Pool::builder(manager);
        if let Some(passwords) = connector.passwords() {
            let passwords = Arc::clone(passwords);
            builder = builder.pre_recycle(Hook::sync_fn(move |_, metrics| {
                if passwords.is_over(metrics.created) {
                    Err(HookError::message("it is of an earlier password, or old"))
                } else {
                    Ok(())
                }
            }));
        }
        let pool = builder
            .max_size(pool_size.max(1))
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(POOL_WAIT))
            .create_timeout(Some(CONNECT_WAIT))
            .build()
            .map_err(|error| unreachable_server(&error))?;
        let wakeups = tokio::spawn(wakeups::run(connector, hub));
        Ok(Self {
            pool,
            indexes: Arc::new(prepared.indexes),
            strongest,
            wakeups,
        })
    }

    pub async fn read<T, E, F>(&self, scope: Scope, job: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StorageError> + Send + 'static,
        F: FnOnce(&mut Tx) -> Result<T, E> + Send + 'static,
    {
        let tx = self.begin(scope, Mode::Read).await?;
        let ended = tokio::task::spawn_blocking(move || {
            let mut job = Some(job);
            run(tx, |tx| {
                job.take()
                    .map_or_else(|| Err(StorageError::Aborted.into()), |job| job(tx))
            })
        });
        match ended.await.map_err(|_| StorageError::Closed)? {
            Ended::With(outcome) => outcome,
            Ended::Again(error) => Err(error.into()),
        }
    }

    pub async fn write<T, E, F>(&self, scope: Scope, mut job: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StorageError> + Send + 'static,
        F: FnMut(&mut Tx) -> Result<T, E> + Send + 'static,
    {
        let mut attempts = 1;
        loop {
            let tx = self.begin(scope, self.strongest).await?;
            let ended = tokio::task::spawn_blocking(move || {
                let ended = run(tx, &mut job);
                (ended, job)
            });
            let (ended, same_job) = ended.await.map_err(|_| StorageError::Closed)?;
            job = same_job;
            match ended {
                Ended::With(outcome) => return outcome,
                Ended::Again(_) if attempts < ATTEMPTS_MAX => {
                    tokio::time::sleep(wait_before_retry(attempts)).await;
                    attempts += 1;
                }
                Ended::Again(StorageError::Serialization { .. }) => {
                    return Err(StorageError::Serialization { attempts }.into());
                }
                Ended::Again(error) => return Err(error.into()),
            }
        }
    }

    pub async fn close(&self) {
        self.wakeups.abort();
        self.pool.close();
    }

    /// The value of a setting outside of every transaction, on a connection of the pool. For tests.
    pub async fn session_setting(&self, name: &str) -> Result<Option<String>, StorageError> {
        let client = self.pool.get().await.map_err(no_connection)?;
        let row = client
            .query_one("SELECT current_setting($1, true)", &[&name])
            .await;
        row.and_then(|row| row.try_get(0))
            .map_err(|error| unreachable_server(&error))
    }

    /// A connection with an open transaction in `scope`.
    async fn begin(&self, scope: Scope, mode: Mode) -> Result<Tx, StorageError> {
        let begin = match mode {
            Mode::Read => "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            Mode::Write => "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE",
        };
        let begin = format!("{begin}; SET LOCAL muster.tenant = '{}'", scope.setting());
        let mut tries = 0;
        loop {
            tries += 1;
            let client = self.pool.get().await.map_err(no_connection)?;
            let connection = Connection::new(client, Handle::current(), Arc::clone(&self.indexes));
            match connection.begin(&begin).await {
                Ok(()) => {
                    return Ok(Tx {
                        connection: tx::Connection::Postgres(connection),
                        state: TxState::new(scope),
                    });
                }
                Err(StorageError::Unavailable(_)) if tries < STALE_CONNECTIONS_MAX => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn connector(text: &str, application: &str) -> Result<Connector, StorageError> {
    let url = PostgresUrl::parse(text)?;
    let mut config = url.config(application);
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_WAIT);
    }
    let passwords = url.password_file().map(|(path, age)| Passwords::new(path, age));
    Ok(Connector::new(config, url.tls()?, passwords))
}

/// Runs one statement outside a transaction on a connection of its own. For test databases.
pub(crate) async fn run_once(text: &str, sql: &str) -> Result<(), StorageError> {
    let connector = connector(text, "muster-test")?;
    let (client, _driver) = connector
        .start()
        .await
        .map_err(|error| unreachable_server(&error))?;
    client
        .batch_execute(sql)
        .await
        .map_err(|error| unreachable_server(&error))
}

/// Runs the closure in the open transaction and ends that. Runs on a blocking thread.
fn run<T, E: From<StorageError>>(mut tx: Tx, job: impl FnOnce(&mut Tx) -> Result<T, E>) -> Ended<T, E> {
    let outcome = catch_unwind(AssertUnwindSafe(|| job(&mut tx)));
    let failure = tx.state.failure.take();
    let tx::Connection::Postgres(mut connection) = tx.connection else {
        return Ended::With(Err(StorageError::Closed.into()));
    };
    let value = match (outcome, failure) {
        (Ok(Ok(value)), None) => value,
        (outcome, failure) => {
            connection.rollback();
            return match (outcome, failure) {
                (Err(panic), _) => Ended::With(Err(StorageError::panicked(&*panic).into())),
                (
                    Ok(_),
                    Some(error @ (StorageError::Serialization { .. } | StorageError::Unavailable(_))),
                ) => Ended::Again(error),
                (Ok(Ok(_)), _) => Ended::With(Err(StorageError::Aborted.into())),
                (Ok(Err(error)), _) => Ended::With(Err(error)),
            };
        }
    };
    match connection.commit() {
        Ok(()) => Ended::With(Ok(value)),
        Err(error @ StorageError::Serialization { .. }) => Ended::Again(error),
        Err(StorageError::Unavailable(source)) => {
            Ended::With(Err(StorageError::OutcomeUnknown(source).into()))
        }
        Err(error) => Ended::With(Err(error.into())),
    }
}

fn no_connection(error: PoolError) -> StorageError {
    match error {
        PoolError::Timeout(TimeoutType::Wait) => StorageError::Busy("no connection of the pool was free"),
        PoolError::Closed => StorageError::Closed,
        PoolError::Backend(error) => unreachable_server(&error),
        other => unreachable_server(&other),
    }
}

fn wait_before_retry(attempt: u32) -> Duration {
    let base = RETRY_WAIT * 2u32.saturating_pow(attempt.saturating_sub(1));
    base + base * u32::from(Uuid::new_v4().as_bytes()[0]) / 255
}
