//! The telemetry spool: one SQLite file, apart from the agent's own, so that nothing about telemetry can stand in the way of
//! a command.
//!
//! What is recorded, and that it was recorded, is one transaction. A batch is made under its sequence in one transaction
//! that takes its contents out of the tables, and is on the disk before it is sent; it stays until the server has it. So
//! `made = uploaded + stored + dropped` holds after a crash at any point.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use muster_channel_agent::telemetry::{Accounting, Attributes, ContentEncoding, FinishedSpan};
use muster_model::telemetry::{EventKind, LabelValue, Metric, SamplingPlan, StreamId, Urgency};
use muster_model::time::Timestamp;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Transaction, TransactionBehavior};

use super::accounts::{
    DropReason, Kind, MADE, accounting, bounded, count, count_dropped, give_up_batches, take_up_losses,
};
use super::ledger::Ledger;
use super::rows::add_sample;
use super::{batch, drops, room};

/// The database in the state folder.
pub(crate) const DATABASE_FILE: &str = "telemetry.db";
const WAL_FILE: &str = "telemetry.db-wal";
/// Largest page cache, in KiB.
const CACHE_KIB: i32 = 256;
/// The journal is folded into the database after this many pages.
const WAL_PAGES: i32 = 128;
/// Statements that are kept prepared.
const STATEMENTS_MAX: usize = 48;
/// Layout of the database. Another one is begun anew: it holds measurements, nothing that anybody obeys.
const SCHEMA_VERSION: i64 = 1;
/// Most events that wait.
const EVENTS_MAX: u64 = 2000;
/// Most finished spans that wait.
const SPANS_MAX: u64 = 2000;
/// Largest note that a collector keeps for itself, in bytes.
const MEMO_BYTES_MAX: usize = 1024 * 1024;

/// So many windows that are over are a backlog.
const BACKLOG_WINDOWS: i64 = 400;
/// The enrollment for which the stream was begun.
const EPOCH_MEMO: &str = "epoch";

const SCHEMA: &str = "
BEGIN;
CREATE TABLE stream (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    stream BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    event_number INTEGER NOT NULL,
    cut_at INTEGER NOT NULL,
    lost_samples INTEGER NOT NULL,
    lost_events INTEGER NOT NULL
) STRICT;
CREATE TABLE account (
    kind TEXT NOT NULL, fate TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (kind, fate)
) STRICT, WITHOUT ROWID;
CREATE TABLE sample_window (
    metric TEXT NOT NULL, label TEXT NOT NULL, start INTEGER NOT NULL, width INTEGER NOT NULL, count INTEGER NOT NULL,
    min REAL NOT NULL, max REAL NOT NULL, sum REAL NOT NULL, last REAL NOT NULL, sketch BLOB, level INTEGER NOT NULL,
    PRIMARY KEY (metric, label, start)
) STRICT, WITHOUT ROWID;
CREATE INDEX sample_window_start ON sample_window (start);
CREATE TABLE event (
    number INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, attributes TEXT NOT NULL, urgent INTEGER NOT NULL
) STRICT;
CREATE TABLE span (number INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
CREATE TABLE batch (
    sequence INTEGER PRIMARY KEY, encoding TEXT NOT NULL, body BLOB NOT NULL, samples INTEGER NOT NULL,
    events INTEGER NOT NULL, spans INTEGER NOT NULL, urgent INTEGER NOT NULL
) STRICT;
CREATE TABLE memo (name TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
PRAGMA user_version = 1;
COMMIT;
";

/// Why the spool did not take or give something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused: disk full, I/O error, corruption.
    #[error("cannot use the telemetry spool {path}: {source}")]
    Database { path: PathBuf, source: rusqlite::Error },
    /// The file beside it, or the folder.
    #[error("cannot use {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    /// A batch has no wire form.
    #[error("a batch cannot be encoded: {0}")]
    Encode(String),
}

/// One measurement. Of a counter it is the increase since the one before.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub metric: Metric,
    pub label: Option<LabelValue>,
    pub value: f64,
}

/// Something that happened, before it has a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    pub kind: EventKind,
    pub at: Timestamp,
    pub attributes: Attributes,
}

/// What one look at the machine brought.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    pub samples: Vec<Sample>,
    pub happenings: Vec<Happening>,
    pub spans: Vec<FinishedSpan>,
    /// Samples that were made and left out, because their metric has too many labels.
    pub over_label_limit: u64,
    /// Events that nobody had room for before they came here.
    pub missed_events: u64,
    /// Notes of collectors, saved together with what they led to.
    pub memos: Vec<(&'static str, Vec<u8>)>,
}

/// A batch as it is sent, and sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    pub sequence: u64,
    pub encoding: ContentEncoding,
    pub body: Vec<u8>,
}

/// Whether a batch waits for windows to be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// Only what is over.
    None,
    /// Windows that go on are cut short and go too.
    Urgent,
}

/// The open spool.
#[derive(Debug)]
pub struct TelemetryStore {
    connection: Connection,
    path: PathBuf,
    ledger: Ledger,
    stream: StreamId,
}

type Sql<T> = Result<T, rusqlite::Error>;

impl TelemetryStore {
    /// Opens the spool in the state folder, whose lock the caller holds. What is no such database, or one of another
    /// layout, is begun anew, as `fresh`.
    pub fn open(state_dir: &Path, fresh: StreamId) -> Result<Self, StoreError> {
        let path = state_dir.join(DATABASE_FILE);
        let opened = open_database(&path, fresh).or_else(|error| {
            if !is_damaged(&error) {
                return Err(error);
            }
            tracing::error!(%error, "the telemetry spool is damaged, and is begun anew");
            for file in [DATABASE_FILE, WAL_FILE] {
                // What stays makes the next attempt fail with its own error.
                let _ = std::fs::remove_file(state_dir.join(file));
            }
            open_database(&path, fresh)
        });
        let (connection, stream) = opened.map_err(|source| StoreError::Database {
            path: path.clone(),
            source,
        })?;
        let ledger = Ledger::open(state_dir, stream).map_err(|source| StoreError::File {
            path: state_dir.join(super::ledger::LEDGER_FILE),
            source,
        })?;
        Ok(Self {
            connection,
            path,
            ledger,
            stream,
        })
    }

    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// Takes up what was found. Where the disk does not take it, it is counted as lost, and the error says why.
    pub fn record(
        &mut self,
        now: Timestamp,
        findings: &Findings,
        plan: &SamplingPlan,
    ) -> Result<(), StoreError> {
        let lost = self.ledger.lost();
        let recorded = self.transact(Durability::Deferred, |tx| {
            take_up_losses(tx, lost)?;
            write_samples(tx, now, findings, plan)?;
            write_events(tx, &findings.happenings)?;
            let missed = bounded(findings.missed_events);
            count(tx, Kind::Events, MADE, missed)?;
            count_dropped(tx, Kind::Events, DropReason::TooMany, missed)?;
            write_spans(tx, &findings.spans)?;
            for (name, value) in &findings.memos {
                write_memo(tx, name, value)?;
            }
            room::make(tx, now, plan.spool_bytes_max)
        });
        if recorded.is_err() {
            let samples = findings.samples.len() as u64 + findings.over_label_limit;
            let events = findings.happenings.len() as u64 + findings.missed_events;
            self.ledger.add(samples, events);
        }
        recorded
    }

    /// Ends the windows that go on, because they are to be of another width from now on.
    pub fn cut(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.transact(Durability::Deferred, |tx| cut(tx, now))
    }

    /// The batch that the server does not have yet; a new one if there is none, and none if there is nothing to send. It is
    /// on the disk when it is returned.
    pub fn next_batch(
        &mut self,
        head: &batch::Head,
        haste: Haste,
    ) -> Result<Option<StoredBatch>, StoreError> {
        if let Some(batch) = self.pending()? {
            return Ok(Some(batch));
        }
        let (stream, lost) = (self.stream, self.ledger.lost());
        let made = self.transact(Durability::Immediate, |tx| {
            take_up_losses(tx, lost)?;
            drops::say(tx, head.now)?;
            if haste == Haste::Urgent {
                cut(tx, head.now)?;
            }
            batch::make(tx, stream, head, haste)
        })?;
        made.transpose().map_err(StoreError::Encode)?;
        self.pending()
    }

    /// The batch that was made and is not accepted.
    pub fn pending(&self) -> Result<Option<StoredBatch>, StoreError> {
        let read = |row: &rusqlite::Row<'_>| -> Sql<StoredBatch> {
            let encoding: String = row.get(1)?;
            Ok(StoredBatch {
                sequence: row.get::<_, i64>(0)?.unsigned_abs(),
                encoding: ContentEncoding::from_header(Some(&encoding)).unwrap_or(ContentEncoding::Identity),
                body: row.get(2)?,
            })
        };
        self.connection
            .query_row(
                "SELECT sequence, encoding, body FROM batch ORDER BY sequence LIMIT 1",
                [],
                read,
            )
            .optional()
            .map_err(|source| self.error(source))
    }

    /// Forgets what the server has. A sequence that was never given out means that this state is an older copy of itself:
    /// `fresh` names the stream that it goes on as.
    pub fn accepted(&mut self, through: u64, fresh: StreamId) -> Result<(), StoreError> {
        let renamed = self.transact(Durability::Deferred, |tx| {
            let given: i64 = tx.query_row("SELECT sequence FROM stream", [], |row| row.get(0))?;
            if through > given.unsigned_abs() {
                begin_stream(tx, fresh)?;
                return Ok(true);
            }
            tx.execute("DELETE FROM batch WHERE sequence <= ?1", [bounded(through)])?;
            Ok(false)
        })?;
        if renamed {
            tracing::warn!(stream = %fresh, "this state is an older copy of itself: a new stream begins");
            self.rename(fresh)?;
        }
        Ok(())
    }

    /// Gives a batch up that the server will never take.
    pub fn refused(&mut self, sequence: u64) -> Result<(), StoreError> {
        self.transact(Durability::Deferred, |tx| {
            give_up_batches(tx, bounded(sequence), DropReason::Refused)
        })
    }

    /// Drops everything that waits, counted, because policy wants no telemetry.
    pub fn turn_off(&mut self) -> Result<(), StoreError> {
        self.transact(Durability::Deferred, |tx| {
            give_up_batches(tx, i64::MAX, DropReason::TurnedOff)?;
            for kind in Kind::ALL {
                let stored: i64 = tx.query_row(kind.stored(), [], |row| row.get(0))?;
                count_dropped(tx, kind, DropReason::TurnedOff, stored)?;
            }
            tx.execute_batch("DELETE FROM sample_window; DELETE FROM event; DELETE FROM span;")
        })
    }

    /// Whether an event waits that is not to wait, or a batch with one.
    pub fn has_urgent(&self) -> Result<bool, StoreError> {
        let question = "SELECT EXISTS (SELECT 1 FROM event WHERE urgent = 1) \
                        OR EXISTS (SELECT 1 FROM batch WHERE urgent = 1)";
        let found = self.connection.query_row(question, [], |row| row.get(0));
        found.map_err(|source| self.error(source))
    }

    /// Whether more waits than what an upload leaves behind in its course.
    pub fn has_backlog(&self, now: Timestamp) -> Result<bool, StoreError> {
        let over = self.connection.query_row(
            "SELECT count(*) FROM (SELECT 1 FROM sample_window WHERE NOT (start <= ?1 + 1 AND start + width > ?1) LIMIT ?2)",
            [now.as_unix_seconds(), BACKLOG_WINDOWS],
            |row| row.get::<_, i64>(0),
        );
        over.map(|over| over >= BACKLOG_WINDOWS)
            .map_err(|source| self.error(source))
    }

    /// A device that enrolled anew is another one to the server: a batch that was made for the one before is given up, and
    /// a new stream begins.
    pub fn begin_epoch(&mut self, epoch: u32, fresh: StreamId) -> Result<(), StoreError> {
        let known = self.memo(EPOCH_MEMO)?;
        let now = epoch.to_be_bytes();
        if known.as_deref() == Some(&now) {
            return Ok(());
        }
        self.transact(Durability::Immediate, |tx| {
            if known.is_some() {
                begin_stream(tx, fresh)?;
            }
            write_memo(tx, EPOCH_MEMO, &now)
        })?;
        if known.is_some() {
            self.rename(fresh)?;
        }
        Ok(())
    }

    fn rename(&mut self, stream: StreamId) -> Result<(), StoreError> {
        self.stream = stream;
        self.ledger = Ledger::open(self.folder(), stream).map_err(|source| StoreError::File {
            path: self.folder().join(super::ledger::LEDGER_FILE),
            source,
        })?;
        Ok(())
    }

    /// A collector's note.
    pub fn memo(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.connection
            .query_row("SELECT value FROM memo WHERE name = ?1", [name], |row| row.get(0))
            .optional()
            .map_err(|source| self.error(source))
    }

    /// What became of everything since the stream began, and what was lost and is not in the accounts yet.
    pub fn accounting(&mut self) -> Result<Accounting, StoreError> {
        let lost = self.ledger.lost();
        self.transact(Durability::Deferred, |tx| {
            take_up_losses(tx, lost)?;
            accounting(tx)
        })
    }

    /// Bytes of the database that hold something.
    pub fn bytes(&self) -> Result<u64, StoreError> {
        room::used_bytes(&self.connection).map_err(|source| self.error(source))
    }

    /// Bounds the database's file from now on, as a disk with no more room would, in pages; for tests of that case.
    pub fn limit_pages(&self, pages_max: u32) -> Result<(), StoreError> {
        self.connection
            .pragma_update(None, "max_page_count", pages_max)
            .map_err(|source| self.error(source))
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    fn error(&self, source: rusqlite::Error) -> StoreError {
        StoreError::Database {
            path: self.path.clone(),
            source,
        }
    }

    fn transact<T>(
        &mut self,
        durability: Durability,
        work: impl FnOnce(&Transaction<'_>) -> Sql<T>,
    ) -> Result<T, StoreError> {
        let run = |connection: &mut Connection| -> Sql<T> {
            connection.pragma_update(None, "synchronous", durability.as_str())?;
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&tx)?;
            tx.commit()?;
            Ok(result)
        };
        run(&mut self.connection).map_err(|source| self.error(source))
    }
}

/// When a transaction is on the disk. Either way it is there whole or not at all.
#[derive(Clone, Copy)]
enum Durability {
    /// With the next immediate one, or when the journal is folded: a power cut loses the latest minutes, with their count.
    Deferred,
    /// When it returns.
    Immediate,
}

impl Durability {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Deferred => "NORMAL",
            Self::Immediate => "FULL",
        }
    }
}

fn is_damaged(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
    ) || matches!(
        error,
        rusqlite::Error::QueryReturnedNoRows | rusqlite::Error::InvalidColumnType(..)
    )
}

fn open_database(path: &Path, fresh: StreamId) -> Sql<(Connection, StreamId)> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    // One program has the file: no shared index, which a full disk could take away under our feet (SIGBUS).
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found == 0 {
        connection.execute_batch(SCHEMA)?;
    } else if found != SCHEMA_VERSION {
        return Err(rusqlite::Error::QueryReturnedNoRows);
    }
    let row = connection
        .query_row("SELECT stream FROM stream", [], |row| row.get::<_, [u8; 16]>(0))
        .optional()?;
    let stream = match row.and_then(StreamId::from_bytes) {
        Some(stream) => stream,
        None => {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            begin_stream(&tx, fresh)?;
            tx.commit()?;
            fresh
        }
    };
    Ok((connection, stream))
}

/// Begins a stream with what is stored. A batch that waits was made for the stream before: nobody can say whether the server
/// has it, so it is given up.
fn begin_stream(tx: &Transaction<'_>, stream: StreamId) -> Sql<()> {
    drops::forget(tx)?;
    tx.execute("DELETE FROM account", [])?;
    let events: i64 = tx.query_row("SELECT coalesce(max(number), 0) FROM event", [], |row| row.get(0))?;
    tx.execute(
        "INSERT OR REPLACE INTO stream (id, stream, sequence, event_number, cut_at, lost_samples, lost_events) \
         VALUES (1, ?1, 0, ?2, 0, 0, 0)",
        (stream.as_bytes(), events),
    )?;
    for kind in Kind::ALL {
        let stored: i64 = tx.query_row(kind.stored(), [], |row| row.get(0))?;
        count(tx, kind, MADE, stored)?;
    }
    let waiting: [i64; 3] = tx.query_row(
        "SELECT coalesce(sum(samples), 0), coalesce(sum(events), 0), coalesce(sum(spans), 0) FROM batch",
        [],
        |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]),
    )?;
    for (kind, waiting) in Kind::ALL.into_iter().zip(waiting) {
        count(tx, kind, MADE, waiting)?;
        count_dropped(tx, kind, DropReason::Restored, waiting)?;
    }
    tx.execute("DELETE FROM batch", [])?;
    Ok(())
}

/// Ends the windows that `now` lies in, with its second.
fn cut(tx: &Transaction<'_>, now: Timestamp) -> Sql<()> {
    let at = now.as_unix_seconds().saturating_add(1);
    tx.execute(
        "UPDATE sample_window SET width = ?1 - start WHERE start < ?1 AND start + width > ?1",
        [at],
    )?;
    tx.execute("UPDATE stream SET cut_at = ?1", [at])?;
    Ok(())
}

fn write_samples(tx: &Transaction<'_>, now: Timestamp, findings: &Findings, plan: &SamplingPlan) -> Sql<()> {
    let cut_at: i64 = tx
        .prepare_cached("SELECT cut_at FROM stream")?
        .query_row([], |row| row.get(0))?;
    let at = now.as_unix_seconds().max(0);
    for sample in &findings.samples {
        let width = i64::from(plan.of(sample.metric).window_seconds.max(1));
        let aligned = at - at % width;
        let is_cut = aligned < cut_at && cut_at <= at + 1;
        // The second of a cut is over with it: what still comes in it belongs to the window that follows.
        let start = if is_cut { cut_at } else { aligned };
        let end = start - start % width + width;
        add_sample(tx, sample, [start, end - start])?;
    }
    let dropped = bounded(findings.over_label_limit);
    count(tx, Kind::Samples, MADE, findings.samples.len() as i64 + dropped)?;
    count_dropped(tx, Kind::Samples, DropReason::LabelLimit, dropped)
}

pub(super) fn write_events(tx: &Transaction<'_>, happenings: &[Happening]) -> Sql<()> {
    for happening in happenings {
        let attributes = serde_json::to_string(&happening.attributes).expect("attributes are texts by name");
        let number: i64 = tx.query_row(
            "UPDATE stream SET event_number = event_number + 1 RETURNING event_number",
            [],
            |row| row.get(0),
        )?;
        tx.prepare_cached(
            "INSERT INTO event (number, at, kind, attributes, urgent) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(rusqlite::params![
            number,
            happening.at.as_micros(),
            happening.kind.as_str(),
            attributes,
            happening.kind.def().urgency == Urgency::Now
        ])?;
    }
    count(tx, Kind::Events, MADE, happenings.len() as i64)?;
    if happenings.is_empty() {
        return Ok(());
    }
    // The oldest that can wait go first.
    let dropped = tx.execute(
        "DELETE FROM event WHERE number IN (SELECT number FROM event ORDER BY urgent, number \
         LIMIT max(0, (SELECT count(*) FROM event) - ?1))",
        [bounded(EVENTS_MAX)],
    )?;
    count_dropped(tx, Kind::Events, DropReason::TooMany, dropped as i64)
}

fn write_spans(tx: &Transaction<'_>, spans: &[FinishedSpan]) -> Sql<()> {
    for span in spans {
        let body = serde_json::to_string(span).expect("a span is plain data");
        tx.prepare_cached("INSERT INTO span (body) VALUES (?1)")?
            .execute([body])?;
    }
    count(tx, Kind::Spans, MADE, spans.len() as i64)?;
    if spans.is_empty() {
        return Ok(());
    }
    let dropped = tx.execute(
        "DELETE FROM span WHERE number IN (SELECT number FROM span ORDER BY number \
         LIMIT max(0, (SELECT count(*) FROM span) - ?1))",
        [bounded(SPANS_MAX)],
    )?;
    count_dropped(tx, Kind::Spans, DropReason::TooMany, dropped as i64)
}

pub(super) fn write_memo(tx: &Transaction<'_>, name: &str, value: &[u8]) -> Sql<()> {
    if value.len() > MEMO_BYTES_MAX {
        return Ok(());
    }
    tx.execute(
        "INSERT INTO memo (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )?;
    Ok(())
}

/// Attributes of an event from pairs.
pub fn attributes<const N: usize>(pairs: [(&str, String); N]) -> Attributes {
    BTreeMap::from(pairs.map(|(name, value)| {
        let bounded: String = value.chars().filter(|c| !c.is_control()).take(120).collect();
        (name.to_owned(), bounded)
    }))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
