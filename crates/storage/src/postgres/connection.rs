//! Running a statement on a PostgreSQL connection, its values on the wire, and what its errors mean.

use std::{collections::HashMap, error::Error as StdError, pin::pin, sync::Arc};

use bytes::{BufMut, BytesMut};
use deadpool_postgres::Object;
use futures_util::TryStreamExt;
use tokio::runtime::Handle;
use tokio_postgres::{
    error::{DbError, SqlState},
    types::{FromSql, IsNull, ToSql, Type, to_sql_checked},
};
use uuid::Uuid;

use crate::{
    error::{EngineFailure, StorageError},
    statement::Statement,
    tx::{Row, RowOf},
    value::{Value, ValueRef},
};

const CONTROL: &str = "transaction control";

/// The types that have a Rust type. NUMERIC is one because SUM over BIGINT answers it.
const USABLE: &[Type] = &[
    Type::INT8,
    Type::INT4,
    Type::INT2,
    Type::NUMERIC,
    Type::BOOL,
    Type::TEXT,
    Type::VARCHAR,
    Type::NAME,
    Type::BPCHAR,
    Type::BYTEA,
    Type::UUID,
];

/// Table and columns of each unique index, by the index's name. PostgreSQL hides the columns from the error message of a
/// table with row-level security.
pub(crate) type UniqueIndexes = HashMap<String, (String, Vec<String>)>;

/// A connection of the pool. Unless it was handed back clean, dropping it closes it.
pub(crate) struct Connection {
    client: Option<Object>,
    clean: bool,
    runtime: Handle,
    indexes: Arc<UniqueIndexes>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(client) = self.client.take()
            && !self.clean
        {
            drop(Object::take(client));
        }
    }
}

impl Connection {
    pub fn new(client: Object, runtime: Handle, indexes: Arc<UniqueIndexes>) -> Self {
        Self {
            client: Some(client),
            clean: false,
            runtime,
            indexes,
        }
    }

    /// Begins a transaction.
    pub async fn begin(&self, sql: &str) -> Result<(), StorageError> {
        let begun = self.client()?.batch_execute(sql).await;
        begun.map_err(|error| failure(CONTROL, &error, &self.indexes))
    }

    /// Runs a statement on the calling thread, which must be one that may block.
    pub fn run(
        &mut self,
        statement: &Statement,
        values: &[Value<'_>],
        each: &mut dyn FnMut(&Row<'_>) -> bool,
    ) -> Result<u64, StorageError> {
        let client = self.client()?;
        let affected = self.runtime.block_on(async {
            let prepared = client.prepare_cached(statement.sql).await?;
            let stream = client.query_raw(&prepared, values.iter().map(Param)).await?;
            let mut rows = pin!(stream);
            let mut wanted = true;
            while let Some(row) = rows.try_next().await? {
                wanted = wanted && each(&Row(RowOf::Postgres(&row)));
            }
            Ok::<_, tokio_postgres::Error>(rows.rows_affected().unwrap_or(0))
        });
        match affected {
            Ok(rows) => Ok(if statement.writes() { rows } else { 0 }),
            Err(error) => {
                if error.as_db_error().and_then(DbError::routine) == Some("RevalidateCachedQuery") {
                    // A migration changed what a prepared statement answers: prepare anew and try again.
                    client.statement_cache.clear();
                    return Err(StorageError::Serialization { attempts: 1 });
                }
                Err(failure(statement.name, &error, &self.indexes))
            }
        }
    }

    /// Prepares a statement and answers which of its types cannot be used.
    pub fn prepare(&self, statement: &Statement) -> Result<Vec<String>, StorageError> {
        let prepared = self.runtime.block_on(self.client()?.prepare(statement.sql));
        let prepared = prepared.map_err(|error| failure(statement.name, &error, &self.indexes))?;
        let params = prepared.params().iter().map(|ty| ("parameter", ty));
        let columns = prepared.columns().iter().map(|column| ("column", column.type_()));
        let unusable = params.chain(columns).filter(|(_, ty)| !USABLE.contains(ty));
        Ok(unusable
            .map(|(what, ty)| format!("{what} of type {ty}"))
            .collect())
    }

    pub fn control(&mut self, sql: &str) -> Result<(), StorageError> {
        let done = self.runtime.block_on(self.client()?.batch_execute(sql));
        done.map_err(|error| failure(CONTROL, &error, &self.indexes))
    }

    /// Commits and lets the connection go back to the pool.
    pub fn commit(&mut self) -> Result<(), StorageError> {
        let committed = self.control("COMMIT");
        self.clean = committed.is_ok();
        committed
    }

    /// Rolls back and lets the connection go back to the pool; closes it if that fails.
    pub fn rollback(&mut self) {
        self.clean = self.control("ROLLBACK").is_ok();
    }

    fn client(&self) -> Result<&Object, StorageError> {
        self.client.as_ref().ok_or(StorageError::Closed)
    }
}

/// A parameter on the wire, in the type that the statement wants.
#[derive(Debug)]
struct Param<'a>(&'a Value<'a>);

#[derive(Debug, thiserror::Error)]
#[error("a parameter of type {wanted} was given {given}")]
struct WrongParameter {
    wanted: String,
    given: &'static str,
}

impl ToSql for Param<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        let wrong = |given| {
            Box::new(WrongParameter {
                wanted: ty.name().to_owned(),
                given,
            })
        };
        match *self.0 {
            Value::Null => return Ok(IsNull::Yes),
            Value::Int(number) if *ty == Type::INT8 => out.put_i64(number),
            Value::Int(number) if *ty == Type::INT4 => out.put_i32(number.try_into()?),
            Value::Int(number) if *ty == Type::INT2 => out.put_i16(number.try_into()?),
            Value::Int(_) | Value::Unsigned(_) => return Err(wrong("an integer")),
            Value::Bool(truth) if *ty == Type::BOOL => out.put_u8(u8::from(truth)),
            Value::Bool(_) => return Err(wrong("a truth value")),
            Value::Text(text) if [Type::TEXT, Type::VARCHAR, Type::NAME, Type::BPCHAR].contains(ty) => {
                out.put_slice(text.as_bytes());
            }
            Value::Text(_) => return Err(wrong("a text")),
            Value::Blob(bytes) if *ty == Type::BYTEA => out.put_slice(bytes),
            Value::Blob(_) => return Err(wrong("bytes")),
            Value::Uuid(uuid) if *ty == Type::UUID => out.put_slice(uuid.as_bytes()),
            Value::Uuid(_) => return Err(wrong("a UUID")),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// A column on the wire.
struct Cell<'a>(ValueRef<'a>);

impl<'a> FromSql<'a> for Cell<'a> {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(match *ty {
            Type::INT8 => ValueRef::Int(i64::from_be_bytes(raw.try_into()?)),
            Type::INT4 => ValueRef::Int(i32::from_be_bytes(raw.try_into()?).into()),
            Type::INT2 => ValueRef::Int(i16::from_be_bytes(raw.try_into()?).into()),
            Type::NUMERIC => {
                whole_number(raw).map_or(ValueRef::Other("a number beyond BIGINT"), ValueRef::Int)
            }
            Type::BOOL => ValueRef::Bool(raw.first().is_some_and(|byte| *byte != 0)),
            Type::TEXT | Type::VARCHAR | Type::NAME | Type::BPCHAR => {
                ValueRef::Text(std::str::from_utf8(raw)?)
            }
            Type::BYTEA => ValueRef::Blob(raw),
            Type::UUID => ValueRef::Uuid(Uuid::from_slice(raw)?),
            _ => ValueRef::Other("a type that is not read"),
        }))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(ValueRef::Null))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Reads a NUMERIC without a fraction: what SUM over BIGINT answers. On the wire it is the number of digits to the base
/// 10,000, the weight of the first, sign and scale, and the digits, 16 bits each.
fn whole_number(raw: &[u8]) -> Option<i64> {
    let words: Vec<u16> = raw
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
        .collect();
    let [count, weight, sign, _scale, digits @ ..] = words.as_slice() else {
        return None;
    };
    let weight = i64::from(weight.cast_signed());
    if usize::from(*count) != digits.len() || (digits.len() as i64) > weight + 1 {
        return (digits.is_empty()).then_some(0);
    }
    let mut number: i64 = 0;
    for place in 0..=weight {
        let digit = digits.get(usize::try_from(place).ok()?).copied().unwrap_or(0);
        number = number.checked_mul(10_000)?.checked_sub(i64::from(digit))?;
    }
    match sign {
        0x4000 => Some(number),
        0 => number.checked_neg(),
        _ => None,
    }
}

/// Reads a column of a row.
pub(crate) fn column(row: &tokio_postgres::Row, index: usize) -> ValueRef<'_> {
    row.try_get::<_, Cell<'_>>(index).map_or(
        ValueRef::Other("no such column, or bytes of another type"),
        |cell| cell.0,
    )
}

/// What an error of the engine means.
fn failure(statement: &'static str, error: &tokio_postgres::Error, indexes: &UniqueIndexes) -> StorageError {
    let Some(db) = error.as_db_error() else {
        return match error.source() {
            Some(cause) if cause.is::<WrongParameter>() || cause.is::<std::num::TryFromIntError>() => {
                StorageError::Engine {
                    statement,
                    source: spoken(error),
                }
            }
            Some(cause) if cause.is::<std::io::Error>() => StorageError::Unavailable(spoken(error)),
            _ if error.is_closed() => StorageError::Unavailable(spoken(error)),
            _ => StorageError::Engine {
                statement,
                source: spoken(error),
            },
        };
    };
    let source = EngineFailure {
        code: db.code().code().to_owned(),
        message: db.message().to_owned(),
    };
    match db.code() {
        &SqlState::UNIQUE_VIOLATION => unique(db, indexes),
        &SqlState::FOREIGN_KEY_VIOLATION => StorageError::ForeignKey(source),
        code if code.code().starts_with("23") => StorageError::Constraint(source),
        &SqlState::INSUFFICIENT_PRIVILEGE => StorageError::Forbidden(source),
        &SqlState::READ_ONLY_SQL_TRANSACTION => StorageError::ReadOnly { statement },
        &SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED => {
            StorageError::Serialization { attempts: 1 }
        }
        &SqlState::QUERY_CANCELED => StorageError::Busy("a statement took too long"),
        &SqlState::LOCK_NOT_AVAILABLE => StorageError::Busy("a row was locked for too long"),
        code if ["57P", "08", "53300"]
            .iter()
            .any(|class| code.code().starts_with(class)) =>
        {
            StorageError::Unavailable(source)
        }
        _ => StorageError::Engine { statement, source },
    }
}

fn unique(db: &DbError, indexes: &UniqueIndexes) -> StorageError {
    let known = db.constraint().and_then(|name| indexes.get(name)).cloned();
    let (table, columns) = known.unwrap_or_else(|| (db.table().unwrap_or_default().to_owned(), Vec::new()));
    StorageError::Unique { table, columns }
}

/// The server cannot be reached, or refuses the connection.
pub(super) fn unreachable_server(error: &(dyn StdError + 'static)) -> StorageError {
    StorageError::Unavailable(spoken(error))
}

/// An error and its causes in one line. Of what the server said, only code and message: its detail quotes rows.
pub(super) fn spoken(error: &(dyn StdError + 'static)) -> EngineFailure {
    let (mut code, mut words) = (String::new(), Vec::new());
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(db) = error.downcast_ref::<DbError>() {
            db.code().code().clone_into(&mut code);
            words.push(db.message().to_owned());
            break;
        }
        let text = error.to_string();
        if words.last().is_none_or(|last: &String| !last.ends_with(&text)) {
            words.push(text);
        }
        next = error.source();
    }
    EngineFailure {
        code,
        message: words.join(": "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numerics_are_read_and_others_are_not() {
        let wire = |words: &[u16]| -> Vec<u8> { words.iter().flat_map(|word| word.to_be_bytes()).collect() };
        let check = |words: &[u16], expected| assert_eq!(whole_number(&wire(words)), expected, "{words:?}");
        check(&[0, 0, 0, 0], Some(0));
        check(&[1, 0, 0, 0, 42], Some(42));
        check(&[1, 1, 0, 0, 3], Some(30_000));
        check(&[2, 1, 0x4000, 0, 12, 3456], Some(-123_456));
        check(&[5, 4, 0, 0, 922, 3372, 368, 5477, 5807], Some(i64::MAX));
        check(&[5, 4, 0x4000, 0, 922, 3372, 368, 5477, 5808], Some(i64::MIN));
        check(&[5, 4, 0, 0, 922, 3372, 368, 5477, 5808], None);
        check(&[2, 0, 0, 1, 1, 5000], None);
        check(&[0, 0, 0xc000, 0], None);
        check(&[1, 0], None);
    }
}
