//! Key sets of others: a closed list of algorithms, and keys that are good for one of them (RFC 7517, RFC 7518, RFC 8037).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use serde::Deserialize;

/// The longest key set that is read, in bytes.
pub const JWKS_BYTES_MAX: usize = 128 * 1024;
/// Keys of one set that are looked at.
pub const KEYS_MAX: usize = 64;
const KEY_ID_BYTES_MAX: usize = 256;
/// RSA moduli, in bytes: 2048 to 4096 bits (RFC 7518, section 3.3 asks for 2048 at least).
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=512;
/// Public exponents of more bytes make verification slow and nothing else.
const EXPONENT_BYTES_MAX: usize = 4;
const COORDINATE_BYTES: usize = 32;

/// How a token may be signed. There is no other: neither `none` nor a shared secret can be written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    Es256,
    Rs256,
    Ps256,
    EdDsa,
}

impl Algorithm {
    pub const ALL: [Algorithm; 4] = [
        Algorithm::Es256,
        Algorithm::Rs256,
        Algorithm::Ps256,
        Algorithm::EdDsa,
    ];

    /// The word of RFC 7518 and RFC 8037.
    pub const fn as_str(self) -> &'static str {
        match self {
            Algorithm::Es256 => "ES256",
            Algorithm::Rs256 => "RS256",
            Algorithm::Ps256 => "PS256",
            Algorithm::EdDsa => "EdDSA",
        }
    }

    pub(crate) fn parse(word: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|known| known.as_str() == word)
    }

    pub(crate) const fn library(self) -> jsonwebtoken::Algorithm {
        match self {
            Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
            Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
            Algorithm::Ps256 => jsonwebtoken::Algorithm::PS256,
            Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

/// The shape of a key, which decides what it is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    P256,
    Rsa,
    Ed25519,
}

impl Shape {
    const fn fits(self, algorithm: Algorithm) -> bool {
        match algorithm {
            Algorithm::Es256 => matches!(self, Shape::P256),
            Algorithm::Rs256 | Algorithm::Ps256 => matches!(self, Shape::Rsa),
            Algorithm::EdDsa => matches!(self, Shape::Ed25519),
        }
    }
}

#[derive(Clone)]
struct Key {
    id: Option<String>,
    shape: Shape,
    /// The one algorithm that the key is for, where it says so.
    only: Option<Algorithm>,
    key: DecodingKey,
}

/// The keys that one issuer signs with.
#[derive(Clone)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// Why a key set is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    #[error("the key set is longer than 128 KiB")]
    TooLong,
    #[error("that is no JSON Web Key Set: an object with a list keys")]
    Unreadable,
    #[error("the key set has more than 64 keys")]
    TooMany,
    #[error("no key of the set is for ES256, RS256, PS256 or EdDSA signatures")]
    NoUsableKey,
}

#[derive(Deserialize)]
struct JwksText<'a> {
    #[serde(borrow)]
    keys: Vec<&'a serde_json::value::RawValue>,
}

#[derive(Deserialize)]
struct JwkText {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default, rename = "use")]
    usage: Option<String>,
    #[serde(default)]
    key_ops: Option<Vec<String>>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
}

impl KeySet {
    /// Reads a key set. Keys that are for something else are left out (RFC 7517, section 5).
    pub fn parse(text: &[u8]) -> Result<KeySet, KeySetError> {
        if text.len() > JWKS_BYTES_MAX {
            return Err(KeySetError::TooLong);
        }
        let set: JwksText<'_> = serde_json::from_slice(text).map_err(|_| KeySetError::Unreadable)?;
        if set.keys.len() > KEYS_MAX {
            return Err(KeySetError::TooMany);
        }
        let keys: Vec<Key> = set
            .keys
            .iter()
            .filter_map(|key| serde_json::from_str::<JwkText>(key.get()).ok())
            .filter_map(usable)
            .collect();
        if keys.is_empty() {
            return Err(KeySetError::NoUsableKey);
        }
        Ok(KeySet { keys })
    }

    /// How many keys of the set can be used.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none, which [`KeySet::parse`] lets nobody make.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key that a header means. A token without `kid` is accepted where one key alone can be meant.
    pub(crate) fn find(&self, algorithm: Algorithm, id: Option<&str>) -> Option<&DecodingKey> {
        let fits = |key: &&Key| {
            key.shape.fits(algorithm)
                && key.only.is_none_or(|only| only == algorithm)
                && id.is_none_or(|id| key.id.as_deref() == Some(id))
        };
        let mut found = self.keys.iter().filter(fits);
        let first = found.next()?;
        found.next().is_none().then_some(&first.key)
    }
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids = self.keys.iter().map(|key| key.id.as_deref().unwrap_or("-"));
        f.debug_list().entries(ids).finish()
    }
}

fn usable(text: JwkText) -> Option<Key> {
    let is_for_signatures = text.usage.as_deref().is_none_or(|usage| usage == "sig")
        && text
            .key_ops
            .as_ref()
            .is_none_or(|operations| operations.iter().any(|operation| operation == "verify"));
    let is_named_well = text.kid.as_ref().is_none_or(|id| id.len() <= KEY_ID_BYTES_MAX);
    if !is_for_signatures || !is_named_well {
        return None;
    }
    let only = match &text.alg {
        Some(word) => Some(Algorithm::parse(word)?),
        None => None,
    };
    let decoded = |part: &Option<String>| {
        let part = part.as_deref()?;
        // Nothing that is accepted below is longer.
        (part.len() <= 2 * *MODULUS_BYTES.end()).then(|| URL_SAFE_NO_PAD.decode(part).ok())?
    };
    let (shape, key) = match (text.kty.as_str(), text.crv.as_deref()) {
        ("EC", Some("P-256")) => {
            let (x, y) = (decoded(&text.x)?, decoded(&text.y)?);
            if x.len() != COORDINATE_BYTES || y.len() != COORDINATE_BYTES {
                return None;
            }
            let key = DecodingKey::from_ec_components(text.x.as_deref()?, text.y.as_deref()?).ok()?;
            (Shape::P256, key)
        }
        ("OKP", Some("Ed25519")) => {
            if decoded(&text.x)?.len() != COORDINATE_BYTES {
                return None;
            }
            (
                Shape::Ed25519,
                DecodingKey::from_ed_components(text.x.as_deref()?).ok()?,
            )
        }
        ("RSA", _) => {
            let (modulus, exponent) = (decoded(&text.n)?, decoded(&text.e)?);
            let is_sane = MODULUS_BYTES.contains(&modulus.len())
                && modulus.first().is_some_and(|byte| *byte != 0)
                && (1..=EXPONENT_BYTES_MAX).contains(&exponent.len())
                && exponent.last().is_some_and(|byte| byte % 2 == 1);
            if !is_sane {
                return None;
            }
            (
                Shape::Rsa,
                DecodingKey::from_rsa_raw_components(&modulus, &exponent),
            )
        }
        _ => return None,
    };
    if only.is_some_and(|only| !shape.fits(only)) {
        return None;
    }
    Some(Key {
        id: text.kid,
        shape,
        only,
        key,
    })
}
