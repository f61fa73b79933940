//! SQL of the `sinks_` tables.

use muster_model::{TenantId, Timestamp};
use muster_storage::{Row, StorageError, Tx, statements};

use super::{
    Cursor, Letter,
    definition::{Sink, StreamKind},
};
use crate::unreadable::{readable, readable_ones};

macro_rules! sink_columns {
    () => {
        "name, definition, secret, is_paused, revision, updated_by, updated_at"
    };
}
macro_rules! cursor_columns {
    () => {
        "stream, place, generation, attempts, next_at, batch_max, refused_in_row, taken, refused, missed, succeeded_at, \
         failed_at, status, error"
    };
}
macro_rules! letter_columns {
    () => {
        "stream, place, event_id, event_name, is_again, error, died_at"
    };
}

statements! {
    SINKS = concat!("SELECT ", sink_columns!(), " FROM sinks_sink WHERE tenant_id = $1 ORDER BY name");
    SINK = concat!("SELECT ", sink_columns!(), " FROM sinks_sink WHERE tenant_id = $1 AND name = $2");
    SEALED = "SELECT name, secret FROM sinks_sink WHERE tenant_id = $1 AND secret IS NOT NULL ORDER BY name";
    SINKS_TO_SERVE = "SELECT tenant_id, name, revision FROM sinks_sink s WHERE NOT is_paused \
        AND EXISTS (SELECT 1 FROM access_tenant t WHERE t.tenant_id = s.tenant_id AND t.state = 'active')";
    PUT_SINK = concat!("INSERT INTO sinks_sink (tenant_id, ", sink_columns!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
        ON CONFLICT (tenant_id, name) DO UPDATE SET definition = $3, secret = $4, is_paused = $5, revision = $6, \
        updated_by = $7, updated_at = $8");
    RESEAL_SINK = "UPDATE sinks_sink SET secret = $4 WHERE tenant_id = $1 AND name = $2 AND secret = $3";
    DELETE_SINK = "DELETE FROM sinks_sink WHERE tenant_id = $1 AND name = $2";

    CURSORS = concat!("SELECT ", cursor_columns!(), " FROM sinks_cursor WHERE tenant_id = $1 AND sink = $2 ORDER BY stream DESC");
    INSERT_CURSOR = concat!("INSERT INTO sinks_cursor (tenant_id, sink, ", cursor_columns!(), ") \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)");
    SETTLE_CURSOR = "UPDATE sinks_cursor SET place = $6, attempts = $7, next_at = $8, batch_max = $9, refused_in_row = $10, \
        taken = $11, refused = $12, missed = $13, succeeded_at = $14, failed_at = $15, status = $16, error = $17 \
        WHERE tenant_id = $1 AND sink = $2 AND stream = $3 AND generation = $4 AND place = $5";
    MOVE_CURSOR = "UPDATE sinks_cursor SET place = $4, generation = generation + 1, attempts = 0, next_at = 0, \
        refused_in_row = 0, error = NULL WHERE tenant_id = $1 AND sink = $2 AND stream = $3";
    WAKE_CURSORS = "UPDATE sinks_cursor SET attempts = 0, next_at = 0, refused_in_row = 0 WHERE tenant_id = $1 AND sink = $2";
    DELETE_CURSOR = "DELETE FROM sinks_cursor WHERE tenant_id = $1 AND sink = $2 AND stream = $3";

    PUT_LETTER = concat!("INSERT INTO sinks_letter (tenant_id, sink, ", letter_columns!(), ") \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (tenant_id, sink, stream, place) DO UPDATE SET is_again = $7, \
        error = $8, died_at = $9");
    COUNT_LETTERS = "SELECT COUNT(*) FROM sinks_letter WHERE tenant_id = $1 AND sink = $2";
    LETTERS_FROM = concat!("SELECT ", letter_columns!(), " FROM sinks_letter WHERE tenant_id = $1 AND sink = $2 \
        AND stream = $3 AND place >= $4 ORDER BY place LIMIT $5");
    LETTERS_AGAIN = concat!("SELECT ", letter_columns!(), " FROM sinks_letter WHERE tenant_id = $1 AND sink = $2 \
        AND stream = $3 AND is_again ORDER BY place LIMIT $4");
    SEND_LETTER_AGAIN = "UPDATE sinks_letter SET is_again = TRUE WHERE tenant_id = $1 AND sink = $2 AND stream = $3 AND place = $4";
    SEND_LETTERS_AGAIN = "UPDATE sinks_letter SET is_again = TRUE WHERE tenant_id = $1 AND sink = $2";
    DELETE_LETTER = "DELETE FROM sinks_letter WHERE tenant_id = $1 AND sink = $2 AND stream = $3 AND place = $4";
    DELETE_LETTERS = "DELETE FROM sinks_letter WHERE tenant_id = $1 AND sink = $2";
    FORGET_LETTERS = "DELETE FROM sinks_letter WHERE tenant_id = $1 AND (sink, stream, place) IN \
        (SELECT sink, stream, place FROM sinks_letter WHERE tenant_id = $1 AND died_at < $2 ORDER BY died_at LIMIT $3)";
}

/// A column that holds what this program does not understand.
fn unreadable(index: usize, expected: &'static str, found: &str) -> StorageError {
    StorageError::Type {
        index,
        expected,
        found: found.to_owned(),
    }
}

fn micros(at: Option<Timestamp>) -> Option<i64> {
    at.map(Timestamp::as_micros)
}

fn sink_of(row: &Row<'_>) -> Result<Sink, StorageError> {
    let definition: String = row.get(1)?;
    Ok(Sink {
        name: row.get(0)?,
        definition: serde_json::from_str(&definition)
            .map_err(|_| unreadable(1, "a sink", "something else"))?,
        secret: row.get(2)?,
        is_paused: row.get(3)?,
        revision: row.get(4)?,
        updated_by: row.get(5)?,
        updated_at: Timestamp::from_micros(row.get(6)?),
    })
}

/// The sinks of a tenant that this program can read.
pub fn sinks(tx: &mut Tx, tenant: TenantId) -> Result<Vec<Sink>, StorageError> {
    let rows = tx.query(&SINKS, &[&tenant.uuid()], |row| Ok((row.get(0)?, sink_of(row))))?;
    readable_ones("a sink", tenant, rows)
}

/// Every sealed secret of a tenant's sinks with its sink's name, whatever else the row holds.
pub fn sealed(tx: &mut Tx, tenant: TenantId) -> Result<Vec<(String, Vec<u8>)>, StorageError> {
    tx.query(&SEALED, &[&tenant.uuid()], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// As [`sink`]; one that this program cannot read is none.
pub fn sink_if_readable(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Option<Sink>, StorageError> {
    let row = tx.query_opt(&SINK, &[&tenant.uuid(), &name], |row| Ok(sink_of(row)))?;
    let read = row.map(|row| readable("a sink", (tenant, name), row));
    Ok(read.transpose()?.flatten())
}

pub fn sink(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Option<Sink>, StorageError> {
    tx.query_opt(&SINK, &[&tenant.uuid(), &name], sink_of)
}

/// Every sink of every tenant that is not paused, with its revision.
pub fn sinks_to_serve(tx: &mut Tx) -> Result<Vec<(TenantId, String, u64)>, StorageError> {
    tx.query(&SINKS_TO_SERVE, &[], |row| {
        Ok((TenantId::from_uuid(row.get(0)?), row.get(1)?, row.get(2)?))
    })
}

pub fn put_sink(tx: &mut Tx, tenant: TenantId, sink: &Sink) -> Result<(), StorageError> {
    let definition = serde_json::to_string(&sink.definition).expect("a sink is serializable");
    tx.execute(
        &PUT_SINK,
        &[
            &tenant.uuid(),
            &sink.name,
            &definition,
            &sink.secret,
            &sink.is_paused,
            &sink.revision,
            &sink.updated_by,
            &sink.updated_at.as_micros(),
        ],
    )
    .map(drop)
}

/// Replaces a sealed secret by the same one under another seal; answers 0 when the secret was changed meanwhile.
pub fn reseal(
    tx: &mut Tx,
    tenant: TenantId,
    name: &str,
    before: &[u8],
    secret: &[u8],
) -> Result<u64, StorageError> {
    tx.execute(&RESEAL_SINK, &[&tenant.uuid(), &name, &before, &secret])
}

/// Removes a sink with its cursors and what was set aside for it; answers how many sinks there were.
pub fn delete_sink(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<u64, StorageError> {
    for stream in StreamKind::ALL {
        delete_cursor(tx, tenant, name, stream)?;
    }
    delete_letters(tx, tenant, name)?;
    tx.execute(&DELETE_SINK, &[&tenant.uuid(), &name])
}

fn cursor_of(row: &Row<'_>) -> Result<Cursor, StorageError> {
    let stream: String = row.get(0)?;
    let at = |at: Option<i64>| at.map(Timestamp::from_micros);
    Ok(Cursor {
        stream: StreamKind::parse(&stream).ok_or_else(|| unreadable(0, "a stream", &stream))?,
        place: row.get(1)?,
        generation: row.get(2)?,
        attempts: row.get(3)?,
        next_at: Timestamp::from_micros(row.get(4)?),
        batch_max: row.get(5)?,
        refused_in_row: row.get(6)?,
        taken: row.get(7)?,
        refused: row.get(8)?,
        missed: row.get(9)?,
        succeeded_at: at(row.get(10)?),
        failed_at: at(row.get(11)?),
        status: row.get(12)?,
        error: row.get(13)?,
    })
}

/// The cursors of a sink that this program can read, that of the log first.
pub fn cursors(tx: &mut Tx, tenant: TenantId, sink: &str) -> Result<Vec<Cursor>, StorageError> {
    let rows = tx.query(&CURSORS, &[&tenant.uuid(), &sink], |row| {
        Ok((sink.to_owned(), cursor_of(row)))
    })?;
    readable_ones("a cursor of a sink", tenant, rows)
}

pub fn insert_cursor(tx: &mut Tx, tenant: TenantId, sink: &str, cursor: &Cursor) -> Result<(), StorageError> {
    tx.execute(
        &INSERT_CURSOR,
        &[
            &tenant.uuid(),
            &sink,
            &cursor.stream.as_str(),
            &cursor.place,
            &cursor.generation,
            &cursor.attempts,
            &cursor.next_at.as_micros(),
            &cursor.batch_max,
            &cursor.refused_in_row,
            &cursor.taken,
            &cursor.refused,
            &cursor.missed,
            &micros(cursor.succeeded_at),
            &micros(cursor.failed_at),
            &cursor.status,
            &cursor.error,
        ],
    )
    .map(drop)
}

/// Writes how far a stream was taken, if nobody moved its cursor from `place` meanwhile; answers whether it was written.
pub fn settle_cursor(
    tx: &mut Tx,
    tenant: TenantId,
    sink: &str,
    place: u64,
    cursor: &Cursor,
) -> Result<bool, StorageError> {
    let written = tx.execute(
        &SETTLE_CURSOR,
        &[
            &tenant.uuid(),
            &sink,
            &cursor.stream.as_str(),
            &cursor.generation,
            &place,
            &cursor.place,
            &cursor.attempts,
            &cursor.next_at.as_micros(),
            &cursor.batch_max,
            &cursor.refused_in_row,
            &cursor.taken,
            &cursor.refused,
            &cursor.missed,
            &micros(cursor.succeeded_at),
            &micros(cursor.failed_at),
            &cursor.status,
            &cursor.error,
        ],
    )?;
    Ok(written == 1)
}

/// Moves a cursor to where somebody wants it.
pub fn move_cursor(
    tx: &mut Tx,
    tenant: TenantId,
    sink: &str,
    stream: StreamKind,
    place: u64,
) -> Result<u64, StorageError> {
    tx.execute(&MOVE_CURSOR, &[&tenant.uuid(), &sink, &stream.as_str(), &place])
}

/// Has a sink tried at once.
pub fn wake_cursors(tx: &mut Tx, tenant: TenantId, sink: &str) -> Result<(), StorageError> {
    tx.execute(&WAKE_CURSORS, &[&tenant.uuid(), &sink]).map(drop)
}

pub fn delete_cursor(
    tx: &mut Tx,
    tenant: TenantId,
    sink: &str,
    stream: StreamKind,
) -> Result<(), StorageError> {
    tx.execute(&DELETE_CURSOR, &[&tenant.uuid(), &sink, &stream.as_str()])
        .map(drop)
}

fn letter_of(row: &Row<'_>) -> Result<Letter, StorageError> {
    let stream: String = row.get(0)?;
    Ok(Letter {
        stream: StreamKind::parse(&stream).ok_or_else(|| unreadable(0, "a stream", &stream))?,
        place: row.get(1)?,
        event_id: row.get(2)?,
        event_name: row.get(3)?,
        is_again: row.get(4)?,
        error: row.get(5)?,
        died_at: Timestamp::from_micros(row.get(6)?),
    })
}

pub fn put_letter(tx: &mut Tx, tenant: TenantId, sink: &str, letter: &Letter) -> Result<(), StorageError> {
    tx.execute(
        &PUT_LETTER,
        &[
            &tenant.uuid(),
            &sink,
            &letter.stream.as_str(),
            &letter.place,
            &letter.event_id,
            &letter.event_name,
            &letter.is_again,
            &letter.error,
            &letter.died_at.as_micros(),
        ],
    )
    .map(drop)
}

pub fn count_letters(tx: &mut Tx, tenant: TenantId, sink: &str) -> Result<u64, StorageError> {
    tx.query_one(&COUNT_LETTERS, &[&tenant.uuid(), &sink], |row| row.get(0))
}

/// What was set aside of a stream, from a place on.
pub fn letters_from(
    tx: &mut Tx,
    tenant: TenantId,
    sink: &str,
    (stream, place): (StreamKind, u64),
    limit: i64,
) -> Result<Vec<Letter>, StorageError> {
    tx.query(
        &LETTERS_FROM,
        &[&tenant.uuid(), &sink, &stream.as_str(), &place, &limit],
        letter_of,
    )
}

/// What was set aside and is to be sent again.
pub fn letters_again(
    tx: &mut Tx,
    tenant: TenantId,
    sink: &str,
    stream: StreamKind,
    limit: i64,
) -> Result<Vec<Letter>, StorageError> {
    tx.query(
        &LETTERS_AGAIN,
        &[&tenant.uuid(), &sink, &stream.as_str(), &limit],
        letter_of,
    )
}

pub fn send_letter_again(
    tx: &mut Tx,
    tenant: TenantId,
    sink: &str,
    (stream, place): (StreamKind, u64),
) -> Result<u64, StorageError> {
    tx.execute(
        &SEND_LETTER_AGAIN,
        &[&tenant.uuid(), &sink, &stream.as_str(), &place],
    )
}

pub fn send_letters_again(tx: &mut Tx, tenant: TenantId, sink: &str) -> Result<u64, StorageError> {
    tx.execute(&SEND_LETTERS_AGAIN, &[&tenant.uuid(), &sink])
}

pub fn delete_letter(
    tx: &mut Tx,
    tenant: TenantId,
    sink: &str,
    (stream, place): (StreamKind, u64),
) -> Result<u64, StorageError> {
    tx.execute(&DELETE_LETTER, &[&tenant.uuid(), &sink, &stream.as_str(), &place])
}

pub fn delete_letters(tx: &mut Tx, tenant: TenantId, sink: &str) -> Result<u64, StorageError> {
    tx.execute(&DELETE_LETTERS, &[&tenant.uuid(), &sink])
}

pub fn forget_letters(
    tx: &mut Tx,
    tenant: TenantId,
    before: Timestamp,
    limit: i64,
) -> Result<u64, StorageError> {
    tx.execute(&FORGET_LETTERS, &[&tenant.uuid(), &before.as_micros(), &limit])
}
