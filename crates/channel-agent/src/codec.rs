//! JSON and CBOR by content type, bounded in size and depth before anything is built from the bytes.
//!
//! Both encodings carry the same data model: member names are text, ids and times are their text forms, and bytes are
//! standard base64 text with padding (RFC 4648 section 4) in CBOR too. A message can be translated from one to the other
//! without knowing its type.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::DEPTH_MAX;

/// The encoding of a message body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// `application/json` (RFC 8259).
    Json,
    /// `application/cbor` (RFC 8949).
    Cbor,
}

impl ContentType {
    /// The media type as it stands in a `Content-Type` or `Accept` header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Cbor => "application/cbor",
        }
    }

    /// Reads a `Content-Type` header. Parameters (`; charset=utf-8`) are ignored; an unknown type is `None`.
    pub fn from_header(value: &str) -> Option<Self> {
        let essence = value.split(';').next().unwrap_or_default().trim();
        [Self::Json, Self::Cbor]
            .into_iter()
            .find(|kind| essence.eq_ignore_ascii_case(kind.as_str()))
    }

    /// Chooses the answer's encoding from an `Accept` header: the first known type named wins; otherwise `fallback`.
    pub fn from_accept(value: Option<&str>, fallback: Self) -> Self {
        value
            .into_iter()
            .flat_map(|value| value.split(','))
            .find_map(Self::from_header)
            .unwrap_or(fallback)
    }
}

/// Why a body was refused.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The body is longer than this message may be.
    #[error("the body has {bytes} bytes; this message may have at most {bytes_max}")]
    TooLarge {
        /// What came.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
    },
    /// Arrays and objects are nested too deeply.
    #[error("the body nests arrays and objects deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// The bytes are not the encoding, or not this message.
    #[error("the body is not a valid message: {0}")]
    Malformed(String),
}

/// A value that cannot be written. Only a type outside this crate can cause it (a map with keys that are not text).
#[derive(Debug, thiserror::Error)]
#[error("the message cannot be encoded: {0}")]
pub struct EncodeError(String);

/// Reads one message of at most `bytes_max` bytes; trailing bytes, unknown encodings of known fields and excessive depth
/// are errors. Never panics.
pub fn decode<T: DeserializeOwned>(
    content_type: ContentType,
    bytes: &[u8],
    bytes_max: usize,
) -> Result<T, DecodeError> {
    if bytes.len() > bytes_max {
        return Err(DecodeError::TooLarge {
            bytes: bytes.len(),
            bytes_max,
        });
    }
    match content_type {
        ContentType::Json => decode_json(bytes),
        ContentType::Cbor => decode_cbor(bytes),
    }
}

/// Writes one message.
pub fn encode<T: Serialize>(content_type: ContentType, message: &T) -> Result<Vec<u8>, EncodeError> {
    match content_type {
        ContentType::Json => serde_json::to_vec(message).map_err(|error| EncodeError(error.to_string())),
        ContentType::Cbor => {
            let mut bytes = Vec::new();
            ciborium::into_writer(message, &mut bytes).map_err(|error| EncodeError(error.to_string()))?;
            Ok(bytes)
        }
    }
}

fn decode_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    if json_depth(bytes) > DEPTH_MAX {
        return Err(DecodeError::TooDeep);
    }
    serde_json::from_slice(bytes).map_err(|error| DecodeError::Malformed(error.to_string()))
}

/// The deepest nesting of brackets outside of strings. Exact for valid JSON; for anything else the parser refuses anyway.
fn json_depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0_usize);
    let (mut in_string, mut escaped) = (false, false);
    for byte in bytes {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn decode_cbor<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut rest = bytes;
    let value =
        ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH_MAX).map_err(
            |error| match error {
                ciborium::de::Error::RecursionLimitExceeded => DecodeError::TooDeep,
                other => DecodeError::Malformed(other.to_string()),
            },
        )?;
    if !rest.is_empty() {
        return Err(DecodeError::Malformed(format!(
            "{} bytes follow the message",
            rest.len()
        )));
    }
    Ok(value)
}

/// Bytes that travel as standard base64 text with padding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Base64Bytes(pub Vec<u8>);

impl Base64Bytes {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as an array, if there are exactly `N`.
    pub fn to_array<const N: usize>(&self) -> Option<[u8; N]> {
        self.0.as_slice().try_into().ok()
    }
}

impl From<Vec<u8>> for Base64Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&[u8]> for Base64Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl Serialize for Base64Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
