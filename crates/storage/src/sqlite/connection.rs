//! Running a statement on a SQLite connection, and what its errors mean.

use std::collections::HashMap;

use rusqlite::{
    ErrorCode, ffi,
    types::{ToSqlOutput, ValueRef as Cell},
};

use crate::{
    error::{EngineFailure, StorageError},
    statement::{self, Statement},
    tx::{Row, RowOf},
    value::{Value, ValueRef},
};

/// A connection and its statements, rewritten once each.
pub(crate) struct Connection {
    pub raw: rusqlite::Connection,
    /// Keyed by where the constant text lies, which costs less than hashing the text.
    rewritten: HashMap<(usize, usize), Box<str>>,
}

impl Connection {
    pub fn new(raw: rusqlite::Connection) -> Self {
        Self {
            raw,
            rewritten: HashMap::new(),
        }
    }

    pub fn run(
        &mut self,
        statement: &Statement,
        values: &[Value<'_>],
        each: &mut dyn FnMut(&Row<'_>) -> bool,
    ) -> Result<u64, StorageError> {
        let key = (statement.sql.as_ptr() as usize, statement.sql.len());
        let sql = self
            .rewritten
            .entry(key)
            .or_insert_with(|| statement::for_sqlite(statement.sql).into());
        run_prepared(&self.raw, sql, statement.name, values, each)
    }

    pub fn prepare(&self, statement: &Statement) -> Result<(), StorageError> {
        let prepared = self.raw.prepare(&statement::for_sqlite(statement.sql));
        prepared.map(drop).map_err(|error| failure(statement.name, error))
    }

    /// The steps of the plan for a statement.
    pub fn plan(&self, statement: &Statement) -> Result<Vec<String>, StorageError> {
        let sql = format!("EXPLAIN QUERY PLAN {}", statement::for_sqlite(statement.sql));
        let steps = || {
            let mut prepared = self.raw.prepare(&sql)?;
            let mut rows = prepared.raw_query();
            let mut steps = Vec::new();
            while let Some(row) = rows.next()? {
                steps.push(row.get(3)?);
            }
            Ok(steps)
        };
        steps().map_err(|error| failure(statement.name, error))
    }

    pub fn control(&mut self, sql: &str) -> Result<(), StorageError> {
        let mut prepared = self
            .raw
            .prepare_cached(sql)
            .map_err(|error| failure("transaction control", error))?;
        prepared
            .raw_execute()
            .map(drop)
            .map_err(|error| failure("transaction control", error))
    }

    /// Whether a transaction is open. The engine ends one itself when the disk is full or fails.
    pub fn in_transaction(&self) -> bool {
        !self.raw.is_autocommit()
    }
}

fn run_prepared(
    raw: &rusqlite::Connection,
    sql: &str,
    name: &'static str,
    values: &[Value<'_>],
    each: &mut dyn FnMut(&Row<'_>) -> bool,
) -> Result<u64, StorageError> {
    let fail = |error| failure(name, error);
    let changes_before = raw.total_changes();
    let mut prepared = raw.prepare_cached(sql).map_err(fail)?;
    if prepared.parameter_count() != values.len() {
        let message = format!(
            "{} parameters wanted, {} given",
            prepared.parameter_count(),
            values.len()
        );
        return Err(StorageError::Engine {
            statement: name,
            source: EngineFailure {
                code: String::new(),
                message,
            },
        });
    }
    for (at, value) in values.iter().enumerate() {
        prepared.raw_bind_parameter(at + 1, bound(value)).map_err(fail)?;
    }
    let mut rows = prepared.raw_query();
    while let Some(row) = rows.next().map_err(fail)? {
        if !each(&Row(RowOf::Sqlite(row))) {
            break;
        }
    }
    drop(rows);
    Ok(if raw.total_changes() == changes_before {
        0
    } else {
        raw.changes()
    })
}

fn bound<'a>(value: &Value<'a>) -> ToSqlOutput<'a> {
    match *value {
        Value::Null => ToSqlOutput::Borrowed(Cell::Null),
        Value::Int(number) => ToSqlOutput::Borrowed(Cell::Integer(number)),
        // `Tx` has refused what does not fit.
        Value::Unsigned(number) => ToSqlOutput::Borrowed(Cell::Integer(number.cast_signed())),
        Value::Bool(truth) => ToSqlOutput::Borrowed(Cell::Integer(i64::from(truth))),
        Value::Text(text) => ToSqlOutput::Borrowed(Cell::Text(text.as_bytes())),
        Value::Blob(bytes) => ToSqlOutput::Borrowed(Cell::Blob(bytes)),
        Value::Uuid(uuid) => ToSqlOutput::Owned(rusqlite::types::Value::Blob(uuid.as_bytes().to_vec())),
    }
}

/// Reads a column of a row.
pub(crate) fn column<'a>(row: &'a rusqlite::Row<'_>, index: usize) -> ValueRef<'a> {
    match row.get_ref(index) {
        Ok(Cell::Null) => ValueRef::Null,
        Ok(Cell::Integer(number)) => ValueRef::Int(number),
        Ok(Cell::Real(_)) => ValueRef::Other("a floating-point number"),
        Ok(Cell::Text(bytes)) => {
            std::str::from_utf8(bytes).map_or(ValueRef::Other("text not in UTF-8"), ValueRef::Text)
        }
        Ok(Cell::Blob(bytes)) => ValueRef::Blob(bytes),
        Err(_) => ValueRef::Other("no such column"),
    }
}

/// What an error of the engine means.
pub(crate) fn failure(statement: &'static str, error: rusqlite::Error) -> StorageError {
    let (code, message) = match error {
        rusqlite::Error::SqliteFailure(code, message) => {
            (Some(code), message.unwrap_or_else(|| code.to_string()))
        }
        rusqlite::Error::SqlInputError { error, msg, .. } => (Some(error), msg),
        other => (None, other.to_string()),
    };
    let text = code
        .map(|code| code.extended_code.to_string())
        .unwrap_or_default();
    match code.map(|code| (code.code, code.extended_code)) {
        Some((
            _,
            ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID,
        )) => unique(&message),
        Some((_, ffi::SQLITE_CONSTRAINT_FOREIGNKEY)) => {
            StorageError::ForeignKey(EngineFailure { code: text, message })
        }
        Some((ErrorCode::ConstraintViolation, _)) => {
            StorageError::Constraint(EngineFailure { code: text, message })
        }
        Some((ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _)) => {
            StorageError::Busy("the database file is locked by another program")
        }
        Some((ErrorCode::ReadOnly, _)) => StorageError::ReadOnly { statement },
        _ => StorageError::Engine {
            statement,
            source: EngineFailure { code: text, message },
        },
    }
}

/// Reads `UNIQUE constraint failed: t.a, t.b`; an index over an expression is named instead and gives no columns.
fn unique(message: &str) -> StorageError {
    let list = message.split_once(": ").map_or("", |(_, list)| list);
    let names: Vec<(&str, &str)> = list.split(", ").filter_map(|name| name.split_once('.')).collect();
    StorageError::Unique {
        table: names
            .first()
            .map(|(table, _)| (*table).to_owned())
            .unwrap_or_default(),
        columns: names.iter().map(|(_, column)| (*column).to_owned()).collect(),
    }
}
