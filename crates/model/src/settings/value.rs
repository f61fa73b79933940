//! Values of settings, and the kinds that say which values a setting takes.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// The deepest nesting of a value.
const DEPTH_MAX: usize = 4;
/// The most items of a list or members of an object, whatever the setting.
const ITEMS_MAX: usize = 1024;

/// A value: a truth, a whole number, a text, a list or an object of those. There are no fractions and no null.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SettingValue {
    Bool(bool),
    Int(i64),
    Text(String),
    List(Vec<SettingValue>),
    Object(BTreeMap<String, SettingValue>),
}

/// Which values a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingKind {
    Bool,
    Int {
        min: i64,
        max: i64,
    },
    /// One of these words, from the loosest to the strictest.
    Enum(&'static [&'static str]),
    Text {
        chars_max: usize,
    },
    /// Numbers joined by dots, such as `12.5`.
    Version,
    TextList {
        items_max: usize,
        chars_max: usize,
    },
    Object(&'static [FieldDef]),
    ObjectList {
        items_max: usize,
        fields: &'static [FieldDef],
    },
    /// Free members with text values.
    TextMap {
        items_max: usize,
        chars_max: usize,
    },
}

/// A member of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldDef {
    pub name: &'static str,
    pub kind: SettingKind,
    pub required: bool,
}

/// Why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    #[error("the value is not readable: {0}")]
    Malformed(String),
    #[error("write {0}")]
    Type(String),
    #[error("{0}")]
    Range(String),
}

impl ValueError {
    /// The stable code of the error.
    pub const fn code(&self) -> &'static str {
        match self {
            ValueError::Malformed(_) => "malformed",
            ValueError::Type(_) => "wrong_type",
            ValueError::Range(_) => "out_of_range",
        }
    }
}

impl SettingKind {
    /// Reads a value of this kind from JSON.
    pub fn read(&self, json: &str) -> Result<SettingValue, ValueError> {
        let value: SettingValue = serde_json::from_str(json)
            .map_err(|error| ValueError::Type(format!("{}; {error}", self.describe())))?;
        self.check(&value)?;
        Ok(value)
    }

    /// Checks that a value is of this kind.
    pub fn check(&self, value: &SettingValue) -> Result<(), ValueError> {
        match (self, value) {
            (SettingKind::Bool, SettingValue::Bool(_)) => Ok(()),
            (SettingKind::Int { min, max }, SettingValue::Int(number)) => {
                if (min..=max).contains(&number) {
                    Ok(())
                } else {
                    Err(range(format!("{number} is not from {min} to {max}")))
                }
            }
            (SettingKind::Enum(words), SettingValue::Text(word)) => {
                if words.contains(&word.as_str()) {
                    Ok(())
                } else {
                    Err(range(format!("write one of {}", words.join(", "))))
                }
            }
            (SettingKind::Text { chars_max }, SettingValue::Text(text)) => within(text, *chars_max),
            (SettingKind::Version, SettingValue::Text(text)) => version(text),
            (SettingKind::TextList { items_max, chars_max }, SettingValue::List(items)) => {
                count(items.len(), *items_max)?;
                items.iter().try_for_each(|item| {
                    SettingKind::Text {
                        chars_max: *chars_max,
                    }
                    .check(item)
                })
            }
            (SettingKind::Object(fields), SettingValue::Object(members)) => object(fields, members),
            (SettingKind::ObjectList { items_max, fields }, SettingValue::List(items)) => {
                count(items.len(), *items_max)?;
                items
                    .iter()
                    .try_for_each(|item| SettingKind::Object(fields).check(item))
            }
            (SettingKind::TextMap { items_max, chars_max }, SettingValue::Object(members)) => {
                count(members.len(), *items_max)?;
                members.values().try_for_each(|member| {
                    SettingKind::Text {
                        chars_max: *chars_max,
                    }
                    .check(member)
                })
            }
            (
                SettingKind::Bool
                | SettingKind::Int { .. }
                | SettingKind::Enum(_)
                | SettingKind::Text { .. }
                | SettingKind::Version
                | SettingKind::TextList { .. }
                | SettingKind::Object(_)
                | SettingKind::ObjectList { .. }
                | SettingKind::TextMap { .. },
                _,
            ) => Err(ValueError::Type(self.describe())),
        }
    }

    /// What to write, for people.
    pub fn describe(&self) -> String {
        match self {
            SettingKind::Bool => "true or false".to_owned(),
            SettingKind::Int { min, max } => format!("a whole number from {min} to {max}"),
            SettingKind::Enum(words) => format!("one of {}", words.join(", ")),
            SettingKind::Text { chars_max } => format!("a text of at most {chars_max} characters"),
            SettingKind::Version => "a version as text, such as \"12.5\"".to_owned(),
            SettingKind::TextList { items_max, .. } => format!("a list of at most {items_max} texts"),
            SettingKind::Object(fields) => format!("an object with {}", names(fields)),
            SettingKind::ObjectList { items_max, fields } => {
                format!("a list of at most {items_max} objects with {}", names(fields))
            }
            SettingKind::TextMap { items_max, .. } => format!("an object of at most {items_max} texts"),
        }
    }
}

fn names(fields: &[FieldDef]) -> String {
    let name = |field: &FieldDef| format!("{}{}", field.name, if field.required { "" } else { "?" });
    fields.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn object(fields: &[FieldDef], members: &BTreeMap<String, SettingValue>) -> Result<(), ValueError> {
    if let Some(unknown) = members
        .keys()
        .find(|name| fields.iter().all(|field| field.name != *name))
    {
        let name: String = unknown.chars().take(64).collect();
        return Err(ValueError::Type(format!(
            "no member {name}; there are {}",
            names(fields)
        )));
    }
    for field in fields {
        match members.get(field.name) {
            Some(value) => field.kind.check(value)?,
            None if field.required => return Err(ValueError::Type(format!("the member {}", field.name))),
            None => {}
        }
    }
    Ok(())
}

fn within(text: &str, chars_max: usize) -> Result<(), ValueError> {
    if text.chars().count() > chars_max {
        return Err(range(format!("the text is longer than {chars_max} characters")));
    }
    if text
        .chars()
        .any(|character| character.is_control() && character != '\n' && character != '\t')
    {
        return Err(range("the text has control characters".to_owned()));
    }
    Ok(())
}

fn version(text: &str) -> Result<(), ValueError> {
    let part = |part: &str| (1..=9).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts = text.split('.').count();
    if parts <= 6 && text.split('.').all(part) {
        Ok(())
    } else {
        Err(ValueError::Type(SettingKind::Version.describe()))
    }
}

fn count(items: usize, items_max: usize) -> Result<(), ValueError> {
    if items > items_max {
        Err(range(format!("there are more than {items_max} items")))
    } else {
        Ok(())
    }
}

fn range(detail: String) -> ValueError {
    ValueError::Range(detail)
}

impl fmt::Display for SettingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingValue::Bool(value) => write!(f, "{value}"),
            SettingValue::Int(value) => write!(f, "{value}"),
            SettingValue::Text(value) => f.write_str(value),
            SettingValue::List(_) | SettingValue::Object(_) => {
                f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
            }
        }
    }
}

impl Serialize for SettingValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            SettingValue::Bool(value) => serializer.serialize_bool(*value),
            SettingValue::Int(value) => serializer.serialize_i64(*value),
            SettingValue::Text(value) => serializer.serialize_str(value),
            SettingValue::List(items) => items.serialize(serializer),
            SettingValue::Object(members) => members.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for SettingValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor).and_then(|value| {
            if depth(&value) > DEPTH_MAX {
                Err(D::Error::custom("it is nested too deeply"))
            } else {
                Ok(value)
            }
        })
    }
}

fn depth(value: &SettingValue) -> usize {
    match value {
        SettingValue::Bool(_) | SettingValue::Int(_) | SettingValue::Text(_) => 0,
        SettingValue::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        SettingValue::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = SettingValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a truth, a whole number, a text, a list or an object")
    }

    fn visit_bool<E>(self, value: bool) -> Result<SettingValue, E> {
        Ok(SettingValue::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<SettingValue, E> {
        Ok(SettingValue::Int(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<SettingValue, E> {
        i64::try_from(value)
            .map(SettingValue::Int)
            .map_err(|_| E::custom("the number is too large"))
    }

    fn visit_str<E>(self, value: &str) -> Result<SettingValue, E> {
        Ok(SettingValue::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<SettingValue, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            if items.len() == ITEMS_MAX {
                return Err(A::Error::custom("the list is too long"));
            }
            items.push(item);
        }
        Ok(SettingValue::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SettingValue, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, SettingValue>()? {
            if members.len() == ITEMS_MAX {
                return Err(A::Error::custom("the object has too many members"));
            }
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a member stands twice"));
            }
        }
        Ok(SettingValue::Object(members))
    }
}

/// The members of an object with their raw values; a repeated key is an error.
pub(super) struct Members<'a>(pub BTreeMap<String, &'a RawValue>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if members.insert(key, value).is_some() {
                        return Err(A::Error::custom("a setting stands twice"));
                    }
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}
