//! Values of questions, and how they compare.

use std::cmp::Ordering;

use crate::version::compare_versions;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Text,
    Int,
    Real,
    Bool,
    /// Microseconds since 1970.
    Time,
    /// A text that compares as versions do: see [`crate::version::compare_versions`].
    Version,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Int => "integer",
            Kind::Real => "number",
            Kind::Bool => "boolean",
            Kind::Time => "time",
            Kind::Version => "version",
        }
    }

    pub(super) const fn is_number(self) -> bool {
        matches!(self, Kind::Int | Kind::Real)
    }
}

/// A value of a row that is being looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Real(f64),
    /// Microseconds since 1970.
    Time(i64),
    Text(&'a str),
}

/// A value of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Null,
    Bool(bool),
    Int(i64),
    Real(f64),
    /// Microseconds since 1970.
    Time(i64),
    Text(Box<str>),
}

impl Cell {
    pub fn value(&self) -> Value<'_> {
        match self {
            Cell::Null => Value::Null,
            Cell::Bool(value) => Value::Bool(*value),
            Cell::Int(value) => Value::Int(*value),
            Cell::Real(value) => Value::Real(*value),
            Cell::Time(value) => Value::Time(*value),
            Cell::Text(value) => Value::Text(value),
        }
    }

    /// What it takes in memory, about.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Cell>()
            + match self {
                Cell::Text(text) => text.len(),
                Cell::Null | Cell::Bool(_) | Cell::Int(_) | Cell::Real(_) | Cell::Time(_) => 0,
            }
    }
}

impl<'a> Value<'a> {
    pub fn text(value: Option<&'a str>) -> Value<'a> {
        value.map_or(Value::Null, Value::Text)
    }

    pub fn int(value: Option<i64>) -> Value<'a> {
        value.map_or(Value::Null, Value::Int)
    }

    pub fn bool(value: Option<bool>) -> Value<'a> {
        value.map_or(Value::Null, Value::Bool)
    }

    pub fn time(value: Option<crate::Timestamp>) -> Value<'a> {
        value.map_or(Value::Null, |at| Value::Time(at.as_micros()))
    }

    /// The value as an answer keeps it.
    pub fn to_cell(self) -> Cell {
        match self {
            Value::Null => Cell::Null,
            Value::Bool(value) => Cell::Bool(value),
            Value::Int(value) => Cell::Int(value),
            Value::Real(value) => Cell::Real(value),
            Value::Time(value) => Cell::Time(value),
            Value::Text(text) => Cell::Text(text.into()),
        }
    }

    pub(super) fn is_null(self) -> bool {
        matches!(self, Value::Null)
    }

    /// The order of two values of one kind; nothing where one of them is missing.
    pub(super) fn compare(self, other: Value<'_>, kind: Kind) -> Option<Ordering> {
        match (self, other) {
            (Value::Null, _) | (_, Value::Null) => None,
            (Value::Text(a), Value::Text(b)) if kind == Kind::Version => Some(compare_versions(a, b)),
            (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(&b)),
            (Value::Int(a), Value::Int(b)) | (Value::Time(a), Value::Time(b)) => Some(a.cmp(&b)),
            (a, b) => Some(a.as_real()?.total_cmp(&b.as_real()?)),
        }
    }

    /// The order of answers: what is missing comes first.
    pub(super) fn order(self, other: Value<'_>, kind: Kind) -> Ordering {
        match (self.is_null(), other.is_null()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self.compare(other, kind).unwrap_or(Ordering::Equal),
        }
    }

    /// A number without a sign of zero, so that both zeros are one.
    fn as_real(self) -> Option<f64> {
        match self {
            Value::Int(value) => Some(value as f64 + 0.0),
            Value::Real(value) => Some(value + 0.0),
            Value::Null | Value::Bool(_) | Value::Time(_) | Value::Text(_) => None,
        }
    }

    /// Appends the value so that two values are equal exactly if their bytes are.
    pub(super) fn key(self, key: &mut Vec<u8>) {
        match self {
            Value::Null => key.push(0),
            Value::Bool(value) => key.extend([1, u8::from(value)]),
            Value::Int(value) => fixed(key, 2, value.to_le_bytes()),
            Value::Real(value) => fixed(key, 3, (value + 0.0).to_bits().to_le_bytes()),
            Value::Time(value) => fixed(key, 4, value.to_le_bytes()),
            Value::Text(text) => {
                fixed(key, 5, (text.len() as u64).to_le_bytes());
                key.extend(text.as_bytes());
            }
        }
    }
}

fn fixed(key: &mut Vec<u8>, tag: u8, bytes: [u8; 8]) {
    key.push(tag);
    key.extend(bytes);
}

/// Whether a text is like a pattern, in which `%` stands for any characters and `_` for one. Capital letters of ASCII are as
/// small ones. The time is at most the product of both lengths.
pub(super) fn is_like(text: &str, pattern: &str) -> bool {
    let (mut text, mut pattern) = (text.chars(), pattern.chars());
    // Where to go on after the last `%` took one character more.
    let mut again: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let mut rest = pattern.clone();
        match rest.next() {
            Some('%') => {
                pattern = rest;
                again = Some((text.clone(), pattern.clone()));
                continue;
            }
            wanted => {
                let mut next = text.clone();
                match (wanted, next.next()) {
                    (None, None) => return true,
                    (Some(wanted), Some(is)) if wanted == '_' || wanted.eq_ignore_ascii_case(&is) => {
                        (text, pattern) = (next, rest);
                        continue;
                    }
                    _ => {}
                }
            }
        }
        let Some((from, after)) = &mut again else {
            return false;
        };
        if from.next().is_none() {
            return false;
        }
        (text, pattern) = (from.clone(), after.clone());
    }
}
