//! Log entries: who did what to which object, and when. Every change of a tenant is one; no entry, no effect.

use muster_model::id::{EntryId, TenantId};
use muster_model::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::encoding::{JsonError, from_strict_json};
use crate::key::Digest;
use crate::merkle::{Hash, leaf_hash};

/// Longest entry in canonical form.
pub const MAX_ENTRY_BYTES: usize = 16 * 1024;
/// Longest action, actor kind or object kind.
pub const MAX_WORD_CHARS: usize = 64;
/// Longest actor or object id.
pub const MAX_REFERENCE_CHARS: usize = 256;
/// Deepest nesting of `detail`.
pub const MAX_DETAIL_DEPTH: usize = 8;

/// Actions that devices look for; other actions are the server's own business.
pub mod action {
    /// A command was created: `detail.statement_sha256` is the digest of the signed statement.
    pub const COMMAND_CREATED: &str = "command.created";
    /// A policy version was activated: `detail` names `policy_id`, `bundle_sha256` and `generation`.
    pub const ROLLOUT_ACTIVATED: &str = "rollout.activated";
}

/// Keys of `detail` that devices read.
pub mod detail {
    /// SHA-256 of the statement's payload, lower-case hex.
    pub const STATEMENT_SHA256: &str = "statement_sha256";
    /// SHA-256 of the bundle, lower-case hex.
    pub const BUNDLE_SHA256: &str = "bundle_sha256";
    /// The policy, `pol_…`.
    pub const POLICY_ID: &str = "policy_id";
    /// The activation counter, a number.
    pub const GENERATION: &str = "generation";
}

/// What kind of party acted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// A service account.
    Client,
    /// A person.
    User,
    /// A device, by its certificate.
    Device,
    /// The server itself: first run, a reconciler.
    System,
}

/// Who acted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Actor {
    /// What kind of party.
    pub kind: ActorKind,
    /// Its id, such as `cli_…` or `dev_…`, or the name of the reconciler.
    pub id: String,
}

/// What was acted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// A noun: `device`, `policy`, `command`.
    pub kind: String,
    /// Its id, such as `dev_…`.
    pub id: String,
}

/// One entry of a tenant's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogEntry {
    /// The entry's own id.
    pub id: EntryId,
    /// When, by the server's clock.
    pub at: Timestamp,
    /// Whose log.
    pub tenant: TenantId,
    /// Who acted.
    pub actor: Actor,
    /// What was done: `noun.verb_in_past_tense`, such as `device.enrolled`.
    pub action: String,
    /// What was acted on.
    pub object: Object,
    /// What else a reader needs; whole numbers, text, booleans, lists and objects.
    pub detail: Map<String, Value>,
}

/// Why an entry was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Not the JSON of an entry.
    #[error("not a log entry: {0}")]
    Json(#[from] JsonError),
    /// A word or id has another form than allowed.
    #[error("the entry's {0} is empty, too long or has characters that are not allowed")]
    Field(&'static str),
    /// `detail` is nested too deep or holds a number that is not a whole one.
    #[error("the entry's detail holds a fraction or is nested deeper than {MAX_DETAIL_DEPTH}")]
    Detail,
    /// The canonical form is longer than [`MAX_ENTRY_BYTES`].
    #[error("the entry has {0} bytes, at most {MAX_ENTRY_BYTES} are allowed")]
    TooLarge(usize),
    /// Well-formed, and not the canonical bytes of what it says.
    #[error("the entry is not in canonical form")]
    NotCanonical,
}

impl LogEntry {
    /// The one byte string of this entry, which the log hashes: compact JSON, fields in the order of the type, keys of
    /// `detail` sorted at every depth.
    pub fn canonical_bytes(&self) -> Result<Vec<u8>, EntryError> {
        self.check()?;
        let sorted = Self {
            detail: sorted(&self.detail),
            ..self.clone()
        };
        let bytes = serde_json::to_vec(&sorted).map_err(|error| JsonError::Malformed(error.to_string()))?;
        if bytes.len() > MAX_ENTRY_BYTES {
            Err(EntryError::TooLarge(bytes.len()))
        } else {
            Ok(bytes)
        }
    }

    /// Reads an entry; refuses every byte string but the canonical one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > MAX_ENTRY_BYTES {
            return Err(EntryError::TooLarge(bytes.len()));
        }
        let entry: Self = from_strict_json(bytes, MAX_ENTRY_BYTES)?;
        if entry.canonical_bytes()? == bytes {
            Ok(entry)
        } else {
            Err(EntryError::NotCanonical)
        }
    }

    /// The hash of this entry's leaf.
    pub fn leaf_hash(&self) -> Result<Hash, EntryError> {
        Ok(leaf_hash(&self.canonical_bytes()?))
    }

    /// A text of `detail`.
    pub fn detail_text(&self, key: &str) -> Option<&str> {
        self.detail.get(key)?.as_str()
    }

    /// A digest in `detail`.
    pub fn detail_digest(&self, key: &str) -> Option<Digest> {
        self.detail_text(key)?.parse().ok()
    }

    /// A whole number of `detail` that is not negative.
    pub fn detail_number(&self, key: &str) -> Option<u64> {
        self.detail.get(key)?.as_u64()
    }

    fn check(&self) -> Result<(), EntryError> {
        let bad = EntryError::Field;
        if !is_word(&self.action) {
            return Err(bad("action"));
        }
        if !is_word(&self.object.kind) {
            return Err(bad("object.kind"));
        }
        if !is_reference(&self.object.id) {
            return Err(bad("object.id"));
        }
        if !is_reference(&self.actor.id) {
            return Err(bad("actor.id"));
        }
        if self
            .detail
            .values()
            .all(|value| is_plain(value, MAX_DETAIL_DEPTH))
        {
            Ok(())
        } else {
            Err(EntryError::Detail)
        }
    }
}

fn is_word(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    (1..=MAX_WORD_CHARS).contains(&text.len()) && text.bytes().all(allowed)
}

fn is_reference(text: &str) -> bool {
    !text.is_empty()
        && text.chars().take(MAX_REFERENCE_CHARS + 1).count() <= MAX_REFERENCE_CHARS
        && !text.chars().any(char::is_control)
}

/// Fractions are excluded because their text form is not the same for every writer.
fn is_plain(value: &Value, depth: usize) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => true,
        Value::Number(number) => number.is_u64() || number.is_i64(),
        Value::Array(items) => depth > 0 && items.iter().all(|item| is_plain(item, depth - 1)),
        Value::Object(fields) => depth > 0 && fields.values().all(|field| is_plain(field, depth - 1)),
    }
}

/// Sorts keys at every depth: whether a map keeps its insertion order is a build-wide feature of the JSON library.
fn sorted(map: &Map<String, Value>) -> Map<String, Value> {
    let mut fields: Vec<(&String, &Value)> = map.iter().collect();
    fields.sort_by_key(|(key, _)| *key);
    fields
        .into_iter()
        .map(|(key, value)| (key.clone(), sorted_value(value)))
        .collect()
}

fn sorted_value(value: &Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(sorted(fields)),
        Value::Array(items) => Value::Array(items.iter().map(sorted_value).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}
