//! The types that cross between Rust and a column, the same on both engines.
//!
//! | column | Rust | SQLite | PostgreSQL |
//! |---|---|---|---|
//! | `BIGINT` | `i64`, `u64`, `u32`, `i32` | INTEGER | int8 |
//! | `BOOLEAN` | `bool` | INTEGER 0 or 1 | bool |
//! | `TEXT` | `String`, `&str` | TEXT | text |
//! | `BYTEA` | `Vec<u8>`, `&[u8]`, `[u8; N]` | BLOB | bytea |
//! | `UUID` | `Uuid` | BLOB of 16 bytes | uuid |

use uuid::Uuid;

use crate::error::StorageError;

/// A parameter, ready to be bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// NULL.
    Null,
    /// A signed integer.
    Int(i64),
    /// An unsigned integer; refused when it is above `i64::MAX`.
    Unsigned(u64),
    /// A truth value.
    Bool(bool),
    /// A text.
    Text(&'a str),
    /// Bytes.
    Blob(&'a [u8]),
    /// A UUID.
    Uuid(Uuid),
}

/// A column's content.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueRef<'a> {
    /// NULL.
    Null,
    /// An integer of any width.
    Int(i64),
    /// A truth value (PostgreSQL only; SQLite answers `Int`).
    Bool(bool),
    /// A text.
    Text(&'a str),
    /// Bytes; on SQLite also a UUID.
    Blob(&'a [u8]),
    /// A UUID (PostgreSQL only).
    Uuid(Uuid),
    /// A type that no Rust type here reads.
    Other(&'a str),
}

impl ValueRef<'_> {
    pub(crate) fn kind(&self) -> String {
        match self {
            Self::Null => "NULL".to_owned(),
            Self::Int(_) => "integer".to_owned(),
            Self::Bool(_) => "boolean".to_owned(),
            Self::Text(_) => "text".to_owned(),
            Self::Blob(bytes) => format!("{} bytes", bytes.len()),
            Self::Uuid(_) => "uuid".to_owned(),
            Self::Other(name) => (*name).to_owned(),
        }
    }
}

/// A type that can be a parameter.
pub trait ToValue {
    /// The parameter's value, borrowed from `self`.
    fn to_value(&self) -> Value<'_>;
}

/// A type that can be read from a column.
pub trait FromValue: Sized {
    /// What a column must hold, for the error message.
    const EXPECTED: &'static str;

    /// Reads the value; `None` when it has another type or is out of range.
    fn from_value(value: ValueRef<'_>) -> Option<Self>;
}

pub(crate) fn read<T: FromValue>(index: usize, value: ValueRef<'_>) -> Result<T, StorageError> {
    T::from_value(value).ok_or_else(|| StorageError::Type {
        index,
        expected: T::EXPECTED,
        found: value.kind(),
    })
}

impl<T: ToValue + ?Sized> ToValue for &T {
    fn to_value(&self) -> Value<'_> {
        (**self).to_value()
    }
}

impl<T: ToValue> ToValue for Option<T> {
    fn to_value(&self) -> Value<'_> {
        self.as_ref().map_or(Value::Null, ToValue::to_value)
    }
}

impl<T: FromValue> FromValue for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn from_value(value: ValueRef<'_>) -> Option<Self> {
        match value {
            ValueRef::Null => Some(None),
            other => T::from_value(other).map(Some),
        }
    }
}

impl ToValue for i64 {
    fn to_value(&self) -> Value<'_> {
        Value::Int(*self)
    }
}

impl ToValue for i32 {
    fn to_value(&self) -> Value<'_> {
        Value::Int(i64::from(*self))
    }
}

impl ToValue for u32 {
    fn to_value(&self) -> Value<'_> {
        Value::Int(i64::from(*self))
    }
}

impl ToValue for u16 {
    fn to_value(&self) -> Value<'_> {
        Value::Int(i64::from(*self))
    }
}

impl ToValue for u64 {
    fn to_value(&self) -> Value<'_> {
        Value::Unsigned(*self)
    }
}

macro_rules! integers_from_value {
    ($($integer:ty => $expected:literal),*) => {$(
        impl FromValue for $integer {
            const EXPECTED: &'static str = $expected;

            fn from_value(value: ValueRef<'_>) -> Option<Self> {
                match value {
                    ValueRef::Int(number) => number.try_into().ok(),
                    _ => None,
                }
            }
        }
    )*};
}

integers_from_value!(
    i64 => "an integer",
    u64 => "an integer of at least 0",
    i32 => "an integer of 32 bits",
    u32 => "an integer of 32 bits, at least 0",
    u16 => "an integer of 16 bits, at least 0"
);

impl ToValue for bool {
    fn to_value(&self) -> Value<'_> {
        Value::Bool(*self)
    }
}

impl FromValue for bool {
    const EXPECTED: &'static str = "a truth value";

    fn from_value(value: ValueRef<'_>) -> Option<Self> {
        match value {
            ValueRef::Bool(truth) => Some(truth),
            ValueRef::Int(0) => Some(false),
            ValueRef::Int(1) => Some(true),
            _ => None,
        }
    }
}

impl ToValue for str {
    fn to_value(&self) -> Value<'_> {
        Value::Text(self)
    }
}

impl ToValue for String {
    fn to_value(&self) -> Value<'_> {
        Value::Text(self)
    }
}

impl FromValue for String {
    const EXPECTED: &'static str = "text";

    fn from_value(value: ValueRef<'_>) -> Option<Self> {
        match value {
            ValueRef::Text(text) => Some(text.to_owned()),
            _ => None,
        }
    }
}

impl ToValue for [u8] {
    fn to_value(&self) -> Value<'_> {
        Value::Blob(self)
    }
}

impl ToValue for Vec<u8> {
    fn to_value(&self) -> Value<'_> {
        Value::Blob(self)
    }
}

impl FromValue for Vec<u8> {
    const EXPECTED: &'static str = "bytes";

    fn from_value(value: ValueRef<'_>) -> Option<Self> {
        match value {
            ValueRef::Blob(bytes) => Some(bytes.to_vec()),
            // SQLite's columns hold what they are given: a row that somebody edited with text must be readable, so that it
            // can be found to be another one.
            ValueRef::Text(text) => Some(text.as_bytes().to_vec()),
            _ => None,
        }
    }
}

impl<const N: usize> ToValue for [u8; N] {
    fn to_value(&self) -> Value<'_> {
        Value::Blob(self)
    }
}

impl<const N: usize> FromValue for [u8; N] {
    const EXPECTED: &'static str = "bytes of a fixed length";

    fn from_value(value: ValueRef<'_>) -> Option<Self> {
        match value {
            ValueRef::Blob(bytes) => bytes.try_into().ok(),
            _ => None,
        }
    }
}

impl ToValue for Uuid {
    fn to_value(&self) -> Value<'_> {
        Value::Uuid(*self)
    }
}

impl FromValue for Uuid {
    const EXPECTED: &'static str = "a UUID";

    fn from_value(value: ValueRef<'_>) -> Option<Self> {
        match value {
            ValueRef::Uuid(uuid) => Some(uuid),
            ValueRef::Blob(bytes) => Uuid::from_slice(bytes).ok(),
            _ => None,
        }
    }
}
