//! Secrets by reference: `passphrase: {secret: NAME}` stands where the value would.
//!
//! A reference is resolved from a file of secrets that is kept elsewhere, or else from the version that the server already
//! has under the same label: versions never change, so that what is there is what was meant.

use std::collections::BTreeMap;
use std::path::Path;

use muster_model::settings::{REDACTED, definition};
use serde_json::{Map, Value};

use crate::CliError;
use crate::yaml::{Kind, Node};

/// The one member of a reference.
pub const MEMBER: &str = "secret";

/// Values of secrets by their names.
pub type Secrets = BTreeMap<String, String>;

/// The name that a node refers to, if it is a reference.
pub fn referred(node: &Node) -> Option<&str> {
    match node.members()? {
        [(key, value)] if key.text == MEMBER => value.as_text(),
        _ => None,
    }
}

/// Whether any reference in the node is not among these secrets.
pub fn has_unknown(node: &Node, known: &Secrets) -> bool {
    if let Some(name) = referred(node) {
        return !known.contains_key(name);
    }
    match &node.kind {
        Kind::Scalar { .. } => false,
        Kind::List(items) => items.iter().any(|item| has_unknown(item, known)),
        Kind::Map(members) => members.iter().any(|(_, value)| has_unknown(value, known)),
    }
}

/// Reads a file of secrets: a mapping of names to texts, YAML or JSON.
pub fn read_file(path: &Path) -> Result<Secrets, CliError> {
    let node = super::read_value(path)?;
    let wrong = |line: usize, detail: &str| CliError::Content {
        path: format!("{}:{line}", path.display()).into(),
        detail: detail.to_owned(),
    };
    let members = node
        .members()
        .ok_or_else(|| wrong(node.line, "write a mapping of names to secrets"))?;
    members
        .iter()
        .map(|(key, value)| match value.as_text() {
            Some(text) => Ok((key.text.clone(), text.to_owned())),
            None => Err(wrong(key.line, "a secret is a text; quote it")),
        })
        .collect()
}

/// Puts references in the place of secrets, whose values are added to `found` under `PREFIX/…`.
pub fn take_out(key: &str, value: &Value, prefix: &str, found: &mut Secrets) -> Result<Value, CliError> {
    let unknown = || {
        CliError::Answer(format!(
            "the setting {key} is not known here, so that nobody can say whether it holds secrets; use the `muster` of the \
             server's version"
        ))
    };
    let def = definition(key).ok_or_else(unknown)?;
    let read = serde_json::from_value(value.clone()).map_err(|_| unknown())?;
    let shown = serde_json::to_value(def.redacted(&read)).map_err(|_| unknown())?;
    Ok(differences(value, &shown, &format!("{prefix}/{key}"), found))
}

fn differences(value: &Value, shown: &Value, place: &str, found: &mut Secrets) -> Value {
    match (value, shown) {
        (Value::String(secret), Value::String(mark)) if mark == REDACTED => {
            found.insert(place.to_owned(), secret.clone());
            Value::Object(Map::from_iter([(MEMBER.to_owned(), place.into())]))
        }
        (Value::Array(items), Value::Array(shown)) => {
            let items = items.iter().zip(shown).enumerate();
            Value::Array(
                items
                    .map(|(at, (item, shown))| differences(item, shown, &format!("{place}/{at}"), found))
                    .collect(),
            )
        }
        (Value::Object(members), Value::Object(shown)) => {
            let member = |(name, value): (&String, &Value)| {
                let shown = shown.get(name).unwrap_or(value);
                let place = format!("{place}/{name}");
                (name.clone(), differences(value, shown, &place, found))
            };
            let mut kept = Map::new();
            for (name, value) in members.iter().map(member) {
                kept.insert(name, value);
            }
            Value::Object(kept)
        }
        (value, _) => value.clone(),
    }
}
