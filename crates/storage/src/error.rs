//! What can go wrong, in one enum for both engines.

use std::{fmt, sync::Arc};

/// Why a storage operation failed. Cloneable, because one failed commit answers every job of its batch.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageError {
    /// A unique constraint or primary key was violated. `columns` are those of the index, in its order; empty for an
    /// index over an expression.
    #[error("{table} already has a row with the same {}", columns.join(", "))]
    Unique {
        /// The table whose constraint it is.
        table: String,
        /// The columns of the index.
        columns: Vec<String>,
    },
    /// A foreign key was violated.
    #[error("a row refers to one that is not there, or is still referred to")]
    ForeignKey(#[source] EngineFailure),
    /// A NOT NULL or CHECK constraint was violated.
    #[error("a row breaks a rule of its table")]
    Constraint(#[source] EngineFailure),
    /// Row-level security or a missing privilege forbade the statement.
    #[error("the statement reaches outside its scope")]
    Forbidden(#[source] EngineFailure),
    /// A read transaction tried to write.
    #[error("a read transaction cannot write (statement {statement})")]
    ReadOnly {
        /// The statement's name.
        statement: &'static str,
    },
    /// The database, the pool or a lock was not free within its time limit. Nothing was changed.
    #[error("the database is busy: {0}")]
    Busy(&'static str),
    /// Every retry met another conflict. Nothing was changed.
    #[error("the transaction conflicted with others {attempts} times")]
    Serialization {
        /// How often it was tried.
        attempts: u32,
    },
    /// The database cannot be reached. Nothing was changed.
    #[error("the database cannot be reached")]
    Unavailable(#[source] EngineFailure),
    /// The connection was lost while COMMIT was under way: the change may or may not be there.
    #[error("the connection was lost during commit; the outcome is unknown")]
    OutcomeUnknown(#[source] EngineFailure),
    /// An earlier statement of the transaction failed, so the transaction cannot go on.
    #[error("an earlier statement of this transaction failed")]
    Aborted,
    /// The closure panicked. Its changes were rolled back.
    #[error("the transaction panicked: {0}")]
    Panicked(String),
    /// The database was closed.
    #[error("the database is closed")]
    Closed,
    /// A statement that must answer one row answered none.
    #[error("statement {statement} found no row")]
    NoRow {
        /// The statement's name.
        statement: &'static str,
    },
    /// A statement that must answer at most one row answered more.
    #[error("statement {statement} found more than one row")]
    ManyRows {
        /// The statement's name.
        statement: &'static str,
    },
    /// A column or parameter does not have the type or range that was asked for.
    #[error("column or parameter {index}: expected {expected}, found {found}")]
    Type {
        /// The column's place from 0, or the parameter's from 1.
        index: usize,
        /// What the code wants.
        expected: &'static str,
        /// What the database has.
        found: String,
    },
    /// The lease is somebody else's by now.
    #[error("the lease {name} is no longer held")]
    LeaseLost {
        /// The lease's name.
        name: String,
    },
    /// The database was written by a newer program.
    #[error(
        "the database has schema version {found}, and this program knows {known}: install the newer program"
    )]
    NewerSchema {
        /// The version in the database.
        found: u32,
        /// The newest version that the program knows.
        known: u32,
    },
    /// The database was written by an older program and is only to be read.
    #[error("{waiting} migrations wait for this database: start the server once, it applies them")]
    OlderSchema {
        /// How many.
        waiting: usize,
    },
    /// A migration that was already applied has other text than then.
    #[error("migration {version} ({name}) was edited after it was applied: add a new migration instead")]
    MigrationChanged {
        /// Its version.
        version: u32,
        /// Its name.
        name: String,
    },
    /// The program's list of migrations is not strictly ascending from 1.
    #[error("migration versions must ascend from 1 without gaps; found {found} where {expected} belongs")]
    MigrationOrder {
        /// The version that belongs there.
        expected: u32,
        /// The version that was there.
        found: u32,
    },
    /// Another process uses the same SQLite database.
    #[error("{path} is in use by another process")]
    Locked {
        /// The lock file.
        path: String,
    },
    /// The database URL cannot be used.
    #[error(transparent)]
    Url(#[from] crate::url::InvalidDatabaseUrl),
    /// A file could not be read or written.
    #[error("{what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: String,
        /// What the system said.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The engine refused a statement for another reason.
    #[error("statement {statement} failed")]
    Engine {
        /// The statement's name.
        statement: &'static str,
        /// What the engine said.
        #[source]
        source: EngineFailure,
    },
}

impl StorageError {
    /// Whether a unique constraint over exactly these columns of `table` was violated.
    pub fn is_unique(&self, table: &str, columns: &[&str]) -> bool {
        match self {
            Self::Unique {
                table: its_table,
                columns: its_columns,
            } => its_table == table && its_columns == columns,
            _ => false,
        }
    }

    /// Whether the same call may succeed a moment later, and certainly has had no effect yet.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Busy(_) | Self::Serialization { .. } | Self::Unavailable(_)
        )
    }

    pub(crate) fn io(what: &'static str, path: &std::path::Path, source: std::io::Error) -> Self {
        Self::Io {
            what,
            path: path.display().to_string(),
            source: Arc::new(source),
        }
    }

    pub(crate) fn panicked(payload: &(dyn std::any::Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned());
        Self::Panicked(text.unwrap_or_else(|| "no message".to_owned()))
    }
}

/// What an engine said: its code (SQLSTATE, or SQLite's extended result code) and message. PostgreSQL's detail line is
/// left out, because it quotes the row.
#[derive(Clone, PartialEq, Eq)]
pub struct EngineFailure {
    /// SQLSTATE, SQLite's extended result code, or empty.
    pub code: String,
    /// The engine's message.
    pub message: String,
}

impl fmt::Display for EngineFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{} ({})", self.message, self.code)
        }
    }
}

impl fmt::Debug for EngineFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for EngineFailure {}
