//! Values of settings: read from JSON or CBOR with bounds, written in one form.

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

impl SettingValue {
    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            SettingValue::Text(text) => Some(text),
            SettingValue::Bool(_)
            | SettingValue::Int(_)
            | SettingValue::List(_)
            | SettingValue::Object(_) => None,
        }
    }

    /// A member of an object.
    pub fn member(&self, name: &str) -> Option<&SettingValue> {
        match self {
            SettingValue::Object(members) => members.get(name),
            SettingValue::Bool(_) | SettingValue::Int(_) | SettingValue::Text(_) | SettingValue::List(_) => {
                None
            }
        }
    }

    /// A member of an object that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.member(name)?.as_text()
    }

    /// The items of a list; none of anything else.
    pub fn items(&self) -> &[SettingValue] {
        match self {
            SettingValue::List(items) => items,
            SettingValue::Bool(_)
            | SettingValue::Int(_)
            | SettingValue::Text(_)
            | SettingValue::Object(_) => &[],
        }
    }
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
