//! JSON from outside: bounded in bytes, depth and nodes, without NUL, and without a name that stands twice.

use std::{cell::Cell, collections::HashSet, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::{ScimError, syntax};

/// Bytes of one request: a group with as many members as one request can carry.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Objects and lists inside each other.
pub const DEPTH_MAX: usize = 16;
/// Values of one document.
pub const NODES_MAX: usize = 400_000;

/// Reads a document. Names are compared without case, as SCIM compares them (RFC 7643, section 2.1).
pub fn parse(bytes: &[u8]) -> Result<Value, ScimError> {
    if bytes.len() > BODY_BYTES_MAX {
        return Err(ScimError::new(
            413,
            "The body is larger than 4 MiB. Send less at a time.",
        ));
    }
    let nodes = Cell::new(0);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let seed = Bounded {
        depth: 0,
        nodes: &nodes,
    };
    let value = seed
        .deserialize(&mut deserializer)
        .map_err(|error| unreadable(&error))?;
    deserializer.end().map_err(|error| unreadable(&error))?;
    Ok(value)
}

/// Where it is wrong, without the text that stands there.
fn unreadable(error: &serde_json::Error) -> ScimError {
    let text = error.to_string();
    let ours = ["twice", "nested", "too many", "NUL"]
        .iter()
        .any(|word| text.contains(word));
    let what = if ours {
        text
    } else {
        format!(
            "it is not JSON at line {}, column {}",
            error.line(),
            error.column()
        )
    };
    syntax(format!("The body cannot be read: {what}."))
}

#[derive(Clone, Copy)]
struct Bounded<'a> {
    depth: usize,
    nodes: &'a Cell<usize>,
}

impl Bounded<'_> {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth == DEPTH_MAX {
            return Err(E::custom("it is nested too deeply"));
        }
        Ok(Bounded {
            depth: self.depth + 1,
            nodes: self.nodes,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let seen = self.nodes.get() + 1;
        self.nodes.set(seen);
        if seen > NODES_MAX {
            return Err(D::Error::custom("it has too many values"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        if text.contains('\0') {
            return Err(E::custom("a text holds the character NUL"));
        }
        Ok(Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let (mut seen, mut members) = (HashSet::new(), Map::new());
        while let Some(name) = map.next_key::<String>()? {
            if name.contains('\0') {
                return Err(A::Error::custom("a name holds the character NUL"));
            }
            if !seen.insert(name.to_lowercase()) {
                return Err(A::Error::custom("a name stands twice in one object"));
            }
            members.insert(name, map.next_value_seed(inner)?);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d5_json_is_bounded() {
        let refused = |text: &str| parse(text.as_bytes()).expect_err(text).detail;
        assert!(refused(r#"{"userName":"a","username":"b"}"#).contains("stands twice"));
        assert!(refused(&format!("{}1{}", "[".repeat(17), "]".repeat(17))).contains("nested"));
        assert!(refused(&"[".repeat(100_000)).contains("nested"));
        assert!(refused(&format!("[{}1]", "1,".repeat(NODES_MAX))).contains("too many"));
        assert!(refused(r#""a\u0000""#).contains("NUL"));
        assert!(refused(r#"{"a":1} {}"#).contains("not JSON"));
        assert!(refused("{\"secret\": hunter2}").contains("line 1"));
        assert_eq!(
            parse(&vec![b' '; BODY_BYTES_MAX + 1])
                .expect_err("too long")
                .status,
            413
        );
        assert!(parse(format!("{}1{}", "[".repeat(16), "]".repeat(16)).as_bytes()).is_ok());
    }
}
