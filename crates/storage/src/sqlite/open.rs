//! Opening the file: lock, pragmas, migrations.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rusqlite::OpenFlags;

use super::connection::{Connection, failure};
use crate::{
    error::{EngineFailure, StorageError},
    migration::{self, APPLIED, Applied, Migration, OWN_TABLES},
};

/// How long to wait for a predecessor that is still ending.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// How many prepared statements a connection keeps.
const STATEMENTS_CACHED_MAX: usize = 512;
/// `busy_timeout` matters only if somebody opens the file with another program.
const PRAGMAS: &str = "PRAGMA busy_timeout = 5000; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
    PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -32768;";
const STEP: &str = "opening the database";

pub(super) struct Opened {
    /// Absent where the file is only read, beside the process that owns it.
    pub lock: Option<File>,
    pub writer: Connection,
    pub readers: Vec<Connection>,
}

pub(super) fn open(
    path: &Path,
    migrations: &'static [Migration],
    reader_threads: usize,
) -> Result<Opened, StorageError> {
    let lock = lock(path)?;
    // SQLite would make the file readable to everybody; its WAL takes over the mode of the file.
    private_file(path)?;
    let writer = connect(path)?;
    let mode: String = writer
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(|error| failure(STEP, error))?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(StorageError::Engine {
            statement: STEP,
            source: EngineFailure {
                code: String::new(),
                message: format!("journal mode is {mode}, not wal"),
            },
        });
    }
    migrate(&writer, migrations)?;
    let reader = |_| -> Result<Connection, StorageError> {
        let raw = connect(path)?;
        raw.execute_batch("PRAGMA query_only = ON")
            .map_err(|error| failure(STEP, error))?;
        Ok(Connection::new(raw))
    };
    let readers = (0..reader_threads).map(reader).collect::<Result<_, _>>()?;
    Ok(Opened {
        lock: Some(lock),
        writer: Connection::new(writer),
        readers,
    })
}

/// Opens a file that another process may own, to read it: without the lock, and every connection refuses to write.
pub(super) fn open_read_only(path: &Path, migrations: &'static [Migration]) -> Result<Opened, StorageError> {
    if !path.exists() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(StorageError::io("opening", path, missing));
    }
    let reader = || -> Result<rusqlite::Connection, StorageError> {
        let raw = connect(path)?;
        raw.execute_batch("PRAGMA query_only = ON")
            .map_err(|error| failure(STEP, error))?;
        Ok(raw)
    };
    let first = reader()?;
    let waiting = migration::pending(
        migrations,
        &applied(&first).map_err(|error| failure(STEP, error))?,
    )?
    .len();
    if waiting > 0 {
        return Err(StorageError::OlderSchema { waiting });
    }
    Ok(Opened {
        lock: None,
        writer: Connection::new(reader()?),
        readers: vec![Connection::new(first)],
    })
}

fn lock(path: &Path) -> Result<File, StorageError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let path = PathBuf::from(name);
    let file = private_file(&path)?;
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if started.elapsed() < LOCK_WAIT => thread::sleep(LOCK_RETRY),
            Err(TryLockError::WouldBlock) => {
                return Err(StorageError::Locked {
                    path: path.display().to_string(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(StorageError::io("locking", &path, error)),
        }
    }
}

fn private_file(path: &Path) -> Result<File, StorageError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(path)
        .map_err(|error| StorageError::io("opening", path, error))
}

fn connect(path: &Path) -> Result<rusqlite::Connection, StorageError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connect = || {
        let raw = rusqlite::Connection::open_with_flags(path, flags)?;
        raw.execute_batch(PRAGMAS)?;
        raw.set_prepared_statement_cache_capacity(STATEMENTS_CACHED_MAX);
        Ok(raw)
    };
    connect().map_err(|error| failure(STEP, error))
}

/// Runs the missing migrations, all in one transaction.
fn migrate(raw: &rusqlite::Connection, known: &'static [Migration]) -> Result<(), StorageError> {
    let step = |sql: &str| {
        raw.execute_batch(sql)
            .map_err(|error| failure("migration", error))
    };
    step("BEGIN IMMEDIATE")?;
    let run = || {
        for table in OWN_TABLES {
            step(table)?;
        }
        for migration in
            migration::pending(known, &applied(raw).map_err(|error| failure("migration", error))?)?
        {
            for statement in migration.statements() {
                raw.execute_batch(&statement)
                    .map_err(|error| failure(migration.name, error))?;
            }
            raw.execute(
                "INSERT INTO storage_migration (version, name, digest) VALUES (?1, ?2, ?3)",
                (migration.version, migration.name, migration.digest()),
            )
            .map_err(|error| failure("migration", error))?;
            tracing::info!(version = migration.version, name = migration.name, "migrated");
        }
        step("COMMIT")
    };
    run().inspect_err(|_| {
        // The first error counts; the file is closed next, which undoes the rest.
        let _ = step("ROLLBACK");
    })
}

fn applied(raw: &rusqlite::Connection) -> rusqlite::Result<Vec<Applied>> {
    let mut statement = raw.prepare(APPLIED)?;
    let rows = statement.query_map([], |row| {
        Ok(Applied {
            version: row.get(0)?,
            name: row.get(1)?,
            digest: row.get(2)?,
        })
    })?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_is_durable_and_keeps_foreign_keys() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let opened = open(&folder.path().join("test.db"), &[], 2).expect("it opens");
        let check = |connection: &Connection, query_only: i64| {
            let pragma = |name: &str| {
                connection
                    .raw
                    .query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
            };
            const FULL: i64 = 2;
            assert_eq!(pragma("synchronous"), Ok(FULL));
            assert_eq!(pragma("foreign_keys"), Ok(1));
            assert_eq!(pragma("query_only"), Ok(query_only));
            let mode: String = connection
                .raw
                .query_row("PRAGMA journal_mode", [], |row| row.get(0))
                .expect("a mode");
            assert_eq!(mode, "wal");
        };
        check(&opened.writer, 0);
        assert_eq!(opened.readers.len(), 2);
        opened.readers.iter().for_each(|reader| check(reader, 1));
    }
}
