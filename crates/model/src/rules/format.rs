//! Rules as JSON. Every error says which rule is wrong, so the object is read whole before its members are.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

use super::{Condition, Rule};
use crate::text::Name;

/// The members of a rule, in the order in which they are written.
const MEMBERS: &[&str] = &[
    "name",
    "check",
    "expression",
    "description",
    "severity",
    "remediation",
];
/// How much of a wrong name is shown.
const SHOWN_CHARS_MAX: usize = 64;

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.name)?;
        match &self.condition {
            Condition::Check(check) => map.serialize_entry("check", check)?,
            Condition::Expression(expression) => map.serialize_entry("expression", expression)?,
        }
        if let Some(description) = &self.description {
            map.serialize_entry("description", description)?;
        }
        if let Some(severity) = &self.severity {
            map.serialize_entry("severity", severity)?;
        }
        if let Some(remediation) = &self.remediation {
            map.serialize_entry("remediation", remediation)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match OnceEach::deserialize(deserializer)?.0 {
            Value::Object(members) => read(members).map_err(D::Error::custom),
            _ => Err(D::Error::custom(
                "a rule is an object with name and check or expression",
            )),
        }
    }
}

fn read(mut members: Map<String, Value>) -> Result<Rule, String> {
    let name: Name = match members.remove("name") {
        None => return Err("a rule has no name; write \"name\"".to_owned()),
        Some(name) => serde_json::from_value(name).map_err(|error| format!("the name of a rule: {error}"))?,
    };
    read_named(name.clone(), members).map_err(|error| format!("rule {name}: {error}"))
}

fn read_named(name: Name, mut members: Map<String, Value>) -> Result<Rule, String> {
    let condition = match (members.remove("check"), members.remove("expression")) {
        (Some(check), None) => Condition::Check(member("check", check)?),
        (None, Some(expression)) => Condition::Expression(member("expression", expression)?),
        (Some(_), Some(_)) => return Err("write either check or expression, not both".to_owned()),
        (None, None) => {
            return Err(
                "write what it asks: an expression such as \"disks.all_encrypted\", or a check".to_owned(),
            );
        }
    };
    let description = optional(&mut members, "description")?;
    let severity = optional(&mut members, "severity")?;
    let remediation = optional(&mut members, "remediation")?;
    if let Some(unknown) = members.keys().next() {
        let shown: String = unknown.chars().take(SHOWN_CHARS_MAX).collect();
        return Err(format!(
            "there is no member {shown}; a rule has {}",
            MEMBERS.join(", ")
        ));
    }
    Ok(Rule {
        name,
        condition,
        description,
        severity,
        remediation,
    })
}

fn member<T: DeserializeOwned>(name: &str, value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| format!("{name}: {error}"))
}

fn optional<T: DeserializeOwned>(members: &mut Map<String, Value>, name: &str) -> Result<Option<T>, String> {
    members.remove(name).map(|value| member(name, value)).transpose()
}

/// Any value in which every member of every object stands once.
struct OnceEach(Value);

impl<'de> Deserialize<'de> for OnceEach {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OnceEachVisitor).map(OnceEach)
    }
}

struct OnceEachVisitor;

impl<'de> Visitor<'de> for OnceEachVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a rule: an object with name and check or expression")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("the number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(OnceEach(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some((name, OnceEach(value))) = entries.next_entry::<String, OnceEach>()? {
            let shown: String = name.chars().take(SHOWN_CHARS_MAX).collect();
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom(format_args!(
                    "the member {shown} of a rule stands twice"
                )));
            }
        }
        Ok(Value::Object(members))
    }
}
