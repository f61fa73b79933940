//! What survives a power cut: the identity and the device's state, in one SQLite file.
//!
//! The rule that the rest of the program builds on: [`Spool::save`] returns `Ok` only after the bytes are on the disk
//! (WAL with `synchronous=FULL`). A command whose acceptance could not be saved is not executed.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The database in the state folder.
const DATABASE_FILE: &str = "agent.db";
/// Held locked while a program works on the folder.
const LOCK_FILE: &str = "lock";
/// Largest page cache, in KiB: the whole state is smaller.
const CACHE_KIB: i32 = 256;
/// The journal is folded into the database after this many pages, so that it stays small.
const WAL_PAGES: i32 = 64;
/// Layout of the database; a newer one is refused.
const SCHEMA_VERSION: i64 = 1;
/// Largest key file that is read, in bytes.
const KEY_FILE_BYTES_MAX: u64 = 16 * 1024;

/// Why the state folder could not be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The folder, a file or a permission.
    #[error("cannot use {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    /// SQLite refused: disk full, I/O error, corruption.
    #[error("cannot use the database {path}: {source}")]
    Database { path: PathBuf, source: rusqlite::Error },
    /// Another program holds the folder.
    #[error("{path} is in use by another muster-agent")]
    InUse { path: PathBuf },
    /// Written by a newer agent.
    #[error("{path} was written by a newer agent (layout {found}, this one knows {SCHEMA_VERSION})")]
    NewerLayout { path: PathBuf, found: i64 },
    /// The stored text is not what this agent writes.
    #[error("{path} holds an unreadable {slot}: {source}")]
    Unreadable {
        path: PathBuf,
        slot: &'static str,
        source: serde_json::Error,
    },
}

/// What is stored, one row each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Who this machine is: written once by `enroll`, again at each renewal.
    Identity,
    /// The device state machine.
    Device,
}

impl Slot {
    const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Device => "device",
        }
    }
}

/// The open state folder.
#[derive(Debug)]
pub struct Spool {
    connection: Connection,
    path: PathBuf,
    /// The bytes last written to each slot, so that an unchanged state costs no write.
    saved: [Option<Vec<u8>>; 2],
    _lock: File,
}

/// Whether the folder may be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// `enroll`: makes what is missing.
    Create,
    /// `run`: an absent folder is an error.
    Existing,
}

impl Spool {
    /// Opens the folder, takes its lock and prepares the database. The folder ends with mode 0700, the files with 0600.
    pub fn open(state_dir: &Path, opening: Opening) -> Result<Self, SpoolError> {
        prepare_folder(state_dir, opening)?;
        let lock = take_lock(state_dir)?;
        let path = state_dir.join(DATABASE_FILE);
        if opening == Opening::Existing && !path.exists() {
            return Err(file_error(&path, std::io::ErrorKind::NotFound.into()));
        }
        private_file()
            .open(&path)
            .map_err(|source| file_error(&path, source))?;
        let connection = open_database(&path)?;
        Ok(Self {
            connection,
            path,
            saved: [None, None],
            _lock: lock,
        })
    }

    /// Reads a slot, if it was ever written.
    pub fn load<T: DeserializeOwned>(&self, slot: Slot) -> Result<Option<T>, SpoolError> {
        read_slot(&self.connection, &self.path, slot)
    }

    /// Writes a slot and returns when it is on the disk. An unchanged value costs nothing.
    pub fn save<T: Serialize>(&mut self, slot: Slot, value: &T) -> Result<(), SpoolError> {
        let bytes = serde_json::to_vec(value).map_err(|source| SpoolError::Unreadable {
            path: self.path.clone(),
            slot: slot.name(),
            source,
        })?;
        if self.saved[slot as usize].as_deref() == Some(&bytes) {
            return Ok(());
        }
        let statement = "INSERT INTO slot (name, value) VALUES ($1, $2) \
                         ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.connection
            .execute(statement, (slot.name(), &bytes))
            .map_err(|source| SpoolError::Database {
                path: self.path.clone(),
                source,
            })?;
        self.saved[slot as usize] = Some(bytes);
        Ok(())
    }
}

/// Reads a slot without taking the folder's lock, for `status` beside a running agent.
pub fn peek<T: DeserializeOwned>(state_dir: &Path, slot: Slot) -> Result<Option<T>, SpoolError> {
    let path = state_dir.join(DATABASE_FILE);
    if !path.exists() {
        return Err(file_error(&path, std::io::ErrorKind::NotFound.into()));
    }
    let connection = open_database(&path)?;
    read_slot(&connection, &path, slot)
}

/// Where a device key is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFile {
    /// PKCS#8 PEM.
    Software,
    /// What only the TPM that made it can load.
    Tpm,
}

impl KeyFile {
    const fn name(self) -> &'static str {
        match self {
            Self::Software => "device.key",
            Self::Tpm => "device.tpm",
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::Software => Self::Tpm,
            Self::Tpm => Self::Software,
        }
    }
}

/// Writes the device key so that a crash leaves the old file or the new one, never half of it. A key of the other kind,
/// left by an enrollment that failed, is removed.
pub fn write_key(state_dir: &Path, kind: KeyFile, text: &str) -> Result<(), SpoolError> {
    let path = state_dir.join(kind.name());
    let fresh = state_dir.join(format!("{}.new", kind.name()));
    let write = || -> std::io::Result<()> {
        let mut file = private_file().truncate(true).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        match fs::remove_file(state_dir.join(kind.other().name())) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        File::open(state_dir)?.sync_all()
    };
    write().map_err(|source| file_error(&path, source))
}

/// Removes everything that [`Spool`] and [`write_key`] keep, the key first: without it the rest is worth nothing. What is
/// gone already is fine.
pub fn erase(state_dir: &Path) -> Result<(), SpoolError> {
    let names = [
        KeyFile::Software.name(),
        KeyFile::Tpm.name(),
        "device.key.new",
        "device.tpm.new",
        DATABASE_FILE,
        "agent.db-wal",
        "agent.db-shm",
        "telemetry.db",
        "telemetry.db-wal",
        "telemetry.lost",
        LOCK_FILE,
    ];
    let remove = |name: &str| match fs::remove_file(state_dir.join(name)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    };
    names
        .into_iter()
        .try_for_each(remove)
        .and_then(|()| File::open(state_dir)?.sync_all())
        .map_err(|source| file_error(state_dir, source))
}

/// Reads a device key, if there is one of this kind.
pub fn read_key(state_dir: &Path, kind: KeyFile) -> Result<Option<String>, SpoolError> {
    use std::io::Read as _;
    let path = state_dir.join(kind.name());
    let read = || -> std::io::Result<String> {
        let mut text = String::new();
        File::open(&path)?
            .take(KEY_FILE_BYTES_MAX)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    match read() {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(file_error(&path, source)),
    }
}

fn prepare_folder(state_dir: &Path, opening: Opening) -> Result<(), SpoolError> {
    let prepare = || -> std::io::Result<()> {
        if opening == Opening::Create {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(state_dir)?;
        }
        let metadata = fs::metadata(state_dir)?;
        if !metadata.is_dir() {
            return Err(std::io::ErrorKind::NotADirectory.into());
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(state_dir, fs::Permissions::from_mode(0o700))?;
        }
        Ok(())
    };
    prepare().map_err(|source| file_error(state_dir, source))
}

fn take_lock(state_dir: &Path) -> Result<File, SpoolError> {
    let path = state_dir.join(LOCK_FILE);
    let file = private_file()
        .open(&path)
        .map_err(|source| file_error(&path, source))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(SpoolError::InUse {
            path: state_dir.to_owned(),
        }),
        Err(errno) => Err(file_error(&path, errno.into())),
    }
}

/// SQLite gives its journal files the permissions of the database file.
fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    options
}

fn open_database(path: &Path) -> Result<Connection, SpoolError> {
    let open = || -> Result<(Connection, i64), rusqlite::Error> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
        let found = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if found == 0 {
            connection.execute_batch(
                "BEGIN; CREATE TABLE slot (name TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL) STRICT; \
                 PRAGMA user_version = 1; COMMIT;",
            )?;
        }
        Ok((connection, found))
    };
    let (connection, found) = open().map_err(|source| SpoolError::Database {
        path: path.to_owned(),
        source,
    })?;
    if found > SCHEMA_VERSION {
        return Err(SpoolError::NewerLayout {
            path: path.to_owned(),
            found,
        });
    }
    Ok(connection)
}

fn read_slot<T: DeserializeOwned>(
    connection: &Connection,
    path: &Path,
    slot: Slot,
) -> Result<Option<T>, SpoolError> {
    let bytes: Option<Vec<u8>> = connection
        .query_row("SELECT value FROM slot WHERE name = $1", [slot.name()], |row| {
            row.get(0)
        })
        .optional()
        .map_err(|source| SpoolError::Database {
            path: path.to_owned(),
            source,
        })?;
    let parse = |bytes: Vec<u8>| serde_json::from_slice(&bytes);
    bytes
        .map(parse)
        .transpose()
        .map_err(|source| SpoolError::Unreadable {
            path: path.to_owned(),
            slot: slot.name(),
            source,
        })
}

fn file_error(path: &Path, source: std::io::Error) -> SpoolError {
    SpoolError::File {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &Path) -> Spool {
        Spool::open(folder, Opening::Create).expect("a temporary folder is usable")
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it exists").permissions().mode() & 0o777
    }

    #[test]
    fn a_saved_value_is_there_after_a_crash() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut spool = open(folder.path());
        spool.save(Slot::Device, &vec![1, 2, 3]).expect("it saves");
        // The power is cut: the journal is as it was, nothing is closed in order.
        let copy = tempfile::tempdir().expect("a temporary folder");
        for file in fs::read_dir(folder.path()).expect("it lists") {
            let file = file.expect("an entry").path();
            fs::copy(&file, copy.path().join(file.file_name().expect("a name"))).expect("it copies");
        }
        assert_eq!(
            open(copy.path())
                .load::<Vec<i32>>(Slot::Device)
                .expect("it reads"),
            Some(vec![1, 2, 3])
        );
    }

    #[test]
    fn a_full_disk_is_an_error_and_the_old_value_stays() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut spool = open(folder.path());
        spool.save(Slot::Device, &"before").expect("it saves");
        let pages: i64 = spool
            .connection
            .pragma_query_value(None, "page_count", |row| row.get(0))
            .expect("a count");
        spool
            .connection
            .pragma_update(None, "max_page_count", pages)
            .expect("the disk is full now");
        let big = "x".repeat(1 << 20);
        assert!(matches!(
            spool.save(Slot::Device, &big),
            Err(SpoolError::Database { .. })
        ));
        assert_eq!(
            spool.load::<String>(Slot::Device).expect("it reads").as_deref(),
            Some("before")
        );
        spool
            .connection
            .pragma_update(None, "max_page_count", 1_000_000)
            .expect("there is room again");
        spool
            .save(Slot::Device, &big)
            .expect("it saves again without a restart");
    }

    #[test]
    fn an_unchanged_value_writes_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut spool = open(folder.path());
        spool.save(Slot::Device, &7).expect("it saves");
        let changes = spool.connection.total_changes();
        spool.save(Slot::Device, &7).expect("it saves");
        assert_eq!(spool.connection.total_changes(), changes);
    }

    #[test]
    fn the_folder_is_private_even_if_it_was_not() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let folder = parent.path().join("state");
        fs::create_dir(&folder).expect("it is made");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("it is opened");
        let mut spool = open(&folder);
        spool.save(Slot::Device, &1).expect("it saves");
        write_key(&folder, KeyFile::Software, "pem").expect("it writes");
        assert_eq!(mode(&folder), 0o700);
        for file in fs::read_dir(&folder).expect("it lists") {
            let path = file.expect("an entry").path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }

    #[test]
    fn a_folder_holds_one_device_key() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (kind, other) in [
            (KeyFile::Software, KeyFile::Tpm),
            (KeyFile::Tpm, KeyFile::Software),
        ] {
            write_key(folder.path(), kind, kind.name()).expect("it writes");
            let read = |kind| read_key(folder.path(), kind).expect("it reads");
            assert_eq!((read(kind).as_deref(), read(other)), (Some(kind.name()), None));
        }
    }

    #[test]
    fn a_second_program_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let _first = open(folder.path());
        assert!(matches!(
            Spool::open(folder.path(), Opening::Existing),
            Err(SpoolError::InUse { .. })
        ));
    }

    #[test]
    fn a_newer_layout_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let spool = open(folder.path());
        spool
            .connection
            .pragma_update(None, "user_version", 9)
            .expect("it updates");
        drop(spool);
        assert!(matches!(
            Spool::open(folder.path(), Opening::Existing),
            Err(SpoolError::NewerLayout { found: 9, .. })
        ));
    }

    #[test]
    fn garbage_in_place_of_the_database_is_an_error() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join(DATABASE_FILE), vec![0x5a; 8192]).expect("it writes");
        assert!(matches!(
            Spool::open(folder.path(), Opening::Existing),
            Err(SpoolError::Database { .. })
        ));
    }

    #[test]
    fn peeking_works_beside_a_running_agent() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut spool = open(folder.path());
        spool.save(Slot::Identity, &"me").expect("it saves");
        assert_eq!(
            peek::<String>(folder.path(), Slot::Identity)
                .expect("it reads")
                .as_deref(),
            Some("me")
        );
    }
}
