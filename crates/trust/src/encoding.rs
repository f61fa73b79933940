//! Text encodings of the wire: standard base64 with padding, lower-case hex, PEM, and strict JSON.

use std::collections::HashSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

/// Nesting that a signed document may have: more than any of ours needs, far less than a stack holds.
pub const MAX_JSON_DEPTH: usize = 32;
/// Values (scalars, arrays, objects and keys) that one signed document may hold.
pub const MAX_JSON_NODES: usize = 200_000;

const PEM_LINE_CHARS: usize = 64;

/// Encodes bytes as standard base64 with padding (RFC 4648 section 4).
pub fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Decodes standard base64; padding is required and unused bits must be zero, so that a text has one meaning and a
/// meaning has one text.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Decodes base64 with the URL-safe alphabet and without padding (RFC 4648 section 5), as Web Authentication has it.
pub fn from_base64_url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Why a JSON text was refused before or while it was read into a type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The text is longer than its kind may be.
    #[error("{bytes} bytes of JSON, at most {limit} are allowed")]
    TooLarge {
        /// Length of the text.
        bytes: usize,
        /// The limit it broke.
        limit: usize,
    },
    /// Not JSON, a duplicate key, too deep, too many values, an unknown field or a wrong type.
    #[error("the JSON is malformed: {0}")]
    Malformed(String),
}

/// Reads one JSON document of at most `limit` bytes; refuses duplicate keys at any depth, which a parser that keeps the
/// last one would let two readers understand differently.
pub fn from_strict_json<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, JsonError> {
    if bytes.len() > limit {
        return Err(JsonError::TooLarge {
            bytes: bytes.len(),
            limit,
        });
    }
    let malformed = |error: serde_json::Error| JsonError::Malformed(error.to_string());
    let mut nodes = 0;
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    Guard {
        nodes: &mut nodes,
        depth: 0,
    }
    .deserialize(&mut reader)
    .map_err(malformed)?;
    reader.end().map_err(malformed)?;
    serde_json::from_slice(bytes).map_err(malformed)
}

/// Walks a document without building it, and fails on what no honest writer produces.
struct Guard<'n> {
    nodes: &'n mut usize,
    depth: usize,
}

impl Guard<'_> {
    fn count<E: serde::de::Error>(&mut self) -> Result<(), E> {
        *self.nodes += 1;
        if *self.nodes > MAX_JSON_NODES {
            return Err(E::custom(format_args!("more than {MAX_JSON_NODES} values")));
        }
        Ok(())
    }

    fn enter<E: serde::de::Error>(&mut self) -> Result<Guard<'_>, E> {
        if self.depth >= MAX_JSON_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_JSON_DEPTH}")));
        }
        Ok(Guard {
            nodes: self.nodes,
            depth: self.depth + 1,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Guard<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<(), D::Error> {
        self.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Guard<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let mut inner = self.enter()?;
        while items
            .next_element_seed(Guard {
                nodes: inner.nodes,
                depth: inner.depth,
            })?
            .is_some()
        {
            inner.count()?;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        let mut inner = self.enter()?;
        let mut seen = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            inner.count()?;
            if seen.contains(&key) {
                return Err(serde::de::Error::custom(format_args!("duplicate key {key:?}")));
            }
            seen.insert(key);
            entries.next_value_seed(Guard {
                nodes: inner.nodes,
                depth: inner.depth,
            })?;
        }
        Ok(())
    }
}

/// Writes DER as PEM with the given label.
pub fn to_pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(to_base64(der));
    let mut pem = Zeroizing::new(String::with_capacity(
        body.len() + body.len() / PEM_LINE_CHARS + 64,
    ));
    pem.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(PEM_LINE_CHARS));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

/// Reads the single PEM block with the given label; text around it is not tolerated.
pub fn from_pem(label: &str, pem: &str) -> Option<Zeroizing<Vec<u8>>> {
    let body = pem.trim().strip_prefix(&format!("-----BEGIN {label}-----"))?;
    let body = body.strip_suffix(&format!("-----END {label}-----"))?;
    let compact: Zeroizing<String> = Zeroizing::new(body.split_ascii_whitespace().collect());
    from_base64(&compact).map(Zeroizing::new)
}

/// Serde for byte strings as base64 text, whatever the outer format; use with `#[serde(with = "…")]`.
pub mod base64_bytes {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the bytes as standard base64.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::to_base64(bytes))
    }

    /// Reads standard base64.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::from_base64(&text).ok_or_else(|| serde::de::Error::custom("not standard base64"))
    }
}

/// Serde for lists of hashes as base64 text (32 bytes each), bounded to the length that a Merkle proof can have.
pub mod base64_hashes {
    use serde::{Deserialize, Deserializer, Serializer, ser::SerializeSeq};

    use crate::key::Digest;
    use crate::merkle::MAX_PROOF_HASHES;

    /// Writes each hash as standard base64.
    pub fn serialize<S: Serializer>(hashes: &[Digest], serializer: S) -> Result<S::Ok, S::Error> {
        let mut items = serializer.serialize_seq(Some(hashes.len()))?;
        for hash in hashes {
            items.serialize_element(&hash.to_base64())?;
        }
        items.end()
    }

    /// Reads at most [`MAX_PROOF_HASHES`] hashes.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Digest>, D::Error> {
        use serde::de::Error;
        let texts = Vec::<String>::deserialize(deserializer)?;
        if texts.len() > MAX_PROOF_HASHES {
            return Err(D::Error::custom(format_args!(
                "a proof has at most {MAX_PROOF_HASHES} hashes"
            )));
        }
        let parse = |text: &String| Digest::from_base64(text);
        texts
            .iter()
            .map(parse)
            .collect::<Option<_>>()
            .ok_or_else(|| D::Error::custom("not 32 bytes of base64"))
    }
}
