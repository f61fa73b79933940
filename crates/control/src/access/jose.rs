//! Tokens that others signed: JSON Web Signature (RFC 7515) with the keys of a JWK set (RFC 7517), read strictly.
//!
//! Only asymmetric algorithms are known here, so a token that is signed with a public key as if it were a secret, or not at all,
//! finds no way through. A key is taken from the issuer's set alone: what a header offers as a key is never looked at.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    crypto::verify,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use serde::{Deserialize, Deserializer, de::MapAccess, de::Visitor};
use serde_json::{Map, Value};

/// Longest token: claims of groups make them long.
pub const TOKEN_BYTES_MAX: usize = 64 * 1024;
/// Keys of one set that are looked at.
const KEYS_MAX: usize = 64;
/// Shortest modulus of RSA (NIST SP 800-131A).
const RSA_BYTES_MIN: usize = 256;
/// Members of a header that would change what a token means, or bring a key along.
const FORBIDDEN_MEMBERS: &[&str] = &["crit", "b64", "jwk", "zip", "enc"];

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoseError {
    #[error("the token is not a signed JSON Web Token")]
    Malformed,
    #[error("the token is of another type")]
    Type,
    #[error("the token is signed with an algorithm that is not accepted, or not at all")]
    Algorithm,
    #[error("the issuer's keys do not contain the one that signed the token")]
    UnknownKey,
    #[error("the token's signature is wrong")]
    Signature,
}

/// The members of a JSON object, each once: a second one of the same name refuses the whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Members(pub Map<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Members, A::Error> {
                let mut map = Map::new();
                while let Some((name, value)) = members.next_entry::<String, Value>()? {
                    if map.insert(name, value).is_some() {
                        return Err(serde::de::Error::custom("a member stands twice"));
                    }
                }
                Ok(Members(map))
            }
        }
        deserializer.deserialize_map(Once)
    }
}

impl Members {
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// A whole number; a time in a token may be written with a fraction.
    pub fn seconds(&self, name: &str) -> Option<i64> {
        let value = self.0.get(name)?;
        let whole = |seconds: f64| (seconds.abs() < 1e12).then_some(seconds as i64);
        value.as_i64().or_else(|| value.as_f64().and_then(whole))
    }

    /// A text, or a list of texts.
    pub fn texts(&self, name: &str) -> Option<Vec<&str>> {
        texts_of(self.0.get(name)?)
    }
}

/// A text, or a list of texts and nothing else.
pub fn texts_of(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(items) => items.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// The keys of an issuer.
#[derive(Debug, Clone, Default)]
pub struct KeySet(Vec<Jwk>);

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a set. Keys of unknown kinds, for encryption, or too short are left out.
    pub fn read(bytes: &[u8]) -> Option<KeySet> {
        let set: Set = serde_json::from_slice(bytes).ok()?;
        Some(KeySet::of(set.keys))
    }

    /// A set of these keys, read as strictly.
    pub fn of(keys: impl IntoIterator<Item = Value>) -> KeySet {
        let keys = keys.into_iter().take(KEYS_MAX);
        let keys = keys.filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        KeySet(keys.filter(is_usable).collect())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key of a header: the one of its name, or the only one of its kind where it has no name.
    fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&Jwk> {
        let mut fitting = self.0.iter().filter(|key| fits(key, algorithm));
        match kid {
            Some(kid) => fitting.find(|key| key.common.key_id.as_deref() == Some(kid)),
            None => {
                let first = fitting.next()?;
                fitting.next().is_none().then_some(first)
            }
        }
    }
}

fn is_usable(key: &Jwk) -> bool {
    let is_for_signatures = matches!(key.common.public_key_use, None | Some(PublicKeyUse::Signature));
    let is_strong = match &key.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            let modulus = URL_SAFE_NO_PAD.decode(&rsa.n).unwrap_or_default();
            let leading = modulus.iter().take_while(|byte| **byte == 0).count();
            modulus.len() - leading >= RSA_BYTES_MIN
        }
        AlgorithmParameters::EllipticCurve(_) | AlgorithmParameters::OctetKeyPair(_) => true,
        // A shared secret, or a kind of tomorrow.
        _ => false,
    };
    is_for_signatures && is_strong
}

/// Whether a key is one for an algorithm, and says no other.
fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    let is_kind = match (&key.algorithm, algorithm) {
        (
            AlgorithmParameters::RSA(_),
            Algorithm::RS256
            | Algorithm::RS384
            | Algorithm::RS512
            | Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512,
        ) => true,
        (AlgorithmParameters::EllipticCurve(key), Algorithm::ES256) => key.curve == EllipticCurve::P256,
        (AlgorithmParameters::EllipticCurve(key), Algorithm::ES384) => key.curve == EllipticCurve::P384,
        (AlgorithmParameters::OctetKeyPair(key), Algorithm::EdDSA) => key.curve == EllipticCurve::Ed25519,
        _ => false,
    };
    // What it says is compared as its JSON, which is the name that a header has.
    let said = key
        .common
        .key_algorithm
        .map(|said| serde_json::to_value(said).unwrap_or_default());
    is_kind
        && said.is_none_or(|said| {
            ALGORITHMS
                .iter()
                .any(|(name, known)| said == *name && *known == algorithm)
        })
}

/// The algorithms that are accepted.
const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// The names of the accepted algorithms.
pub fn accepted() -> impl Iterator<Item = &'static str> {
    ALGORITHMS.iter().map(|(name, _)| *name)
}

/// A token whose signature was checked.
#[derive(Debug, Clone)]
pub struct Signed {
    pub claims: Members,
    /// The name of the algorithm, for the hash of an access token.
    pub algorithm: &'static str,
}

/// Checks a token's signature by the issuer's keys. `types` are the types that its header may say; none at all is accepted too,
/// since many issuers leave it out, and what a token is for is then seen by its claims.
pub fn open(token: &str, keys: &KeySet, types: &[&str]) -> Result<Signed, JoseError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(JoseError::Malformed);
    }
    let mut parts = token.split('.');
    let (Some(head), Some(body), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(JoseError::Malformed);
    };
    let header = members(head)?;
    if FORBIDDEN_MEMBERS.iter().any(|name| header.0.contains_key(*name)) {
        return Err(JoseError::Malformed);
    }
    if let Some(said) = header.0.get("typ") {
        let said = said.as_str().unwrap_or_default().to_ascii_lowercase();
        let said = said.strip_prefix("application/").unwrap_or(&said);
        if !types.contains(&said) {
            return Err(JoseError::Type);
        }
    }
    let wanted = header.text("alg").ok_or(JoseError::Algorithm)?;
    let (name, algorithm) = ALGORITHMS
        .iter()
        .find(|(name, _)| *name == wanted)
        .ok_or(JoseError::Algorithm)?;
    let kid = match header.0.get("kid") {
        None => None,
        Some(Value::String(kid)) => Some(kid.as_str()),
        Some(_) => return Err(JoseError::Malformed),
    };
    let key = keys.find(kid, *algorithm).ok_or(JoseError::UnknownKey)?;
    let key = DecodingKey::from_jwk(key).map_err(|_| JoseError::UnknownKey)?;
    let message = &token.as_bytes()[..head.len() + 1 + body.len()];
    match verify(signature, message, &key, *algorithm) {
        Ok(true) => Ok(Signed {
            claims: members(body)?,
            algorithm: name,
        }),
        Ok(false) | Err(_) => Err(JoseError::Signature),
    }
}

/// The claims of a token that was *not* checked: for finding out whose keys to ask, and for nothing else.
pub fn peek(token: &str) -> Result<Members, JoseError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(JoseError::Malformed);
    }
    let mut parts = token.split('.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(body), Some(_), None) => members(body),
        _ => Err(JoseError::Malformed),
    }
}

fn members(part: &str) -> Result<Members, JoseError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| JoseError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| JoseError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_signed_by_an_asymmetric_key_is_refused_before_a_key_is_looked_for() {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        for (header, expected) in [
            (r#"{"alg":"none"}"#, JoseError::Algorithm),
            (r#"{"alg":"None"}"#, JoseError::Algorithm),
            (r#"{"alg":"HS256"}"#, JoseError::Algorithm),
            (r#"{"alg":"RS256","crit":["x"]}"#, JoseError::Malformed),
            (r#"{"alg":"RS256","jwk":{}}"#, JoseError::Malformed),
            (r#"{"alg":"RS256","alg":"none"}"#, JoseError::Malformed),
            (r#"{"alg":"RS256","kid":1}"#, JoseError::Malformed),
            (r#"{"alg":"RS256","typ":"at+jwt"}"#, JoseError::Type),
            (r#"{"alg":"RS256","kid":"k"}"#, JoseError::UnknownKey),
            (r#"{}"#, JoseError::Algorithm),
        ] {
            let token = format!("{}.{}.", part(header), part("{}"));
            let found = open(&token, &KeySet::default(), &["jwt"]).map(drop);
            assert_eq!(found, Err(expected), "{header}");
        }
        for malformed in ["", ".", "..", "a.b", "a.b.c.d", "e30.e30"] {
            assert!(
                open(malformed, &KeySet::default(), &["jwt"]).is_err(),
                "{malformed}"
            );
        }
    }

    #[test]
    fn keys_that_are_short_secret_or_for_encryption_are_left_out() {
        let short = URL_SAFE_NO_PAD.encode([255_u8; 128]);
        let long = URL_SAFE_NO_PAD.encode([255_u8; 256]);
        let text = format!(
            r#"{{"keys":[
                {{"kty":"RSA","kid":"short","n":"{short}","e":"AQAB"}},
                {{"kty":"RSA","kid":"enc","use":"enc","n":"{long}","e":"AQAB"}},
                {{"kty":"oct","kid":"secret","k":"AAAA"}},
                {{"kty":"future","kid":"x"}},
                {{"kty":"RSA","kid":"good","use":"sig","alg":"RS256","n":"{long}","e":"AQAB"}}]}}"#
        );
        let keys = KeySet::read(text.as_bytes()).expect("it is a set");
        assert_eq!(keys.len(), 1);
        assert!(keys.find(Some("good"), Algorithm::RS256).is_some());
        assert!(keys.find(None, Algorithm::RS256).is_some(), "the only one");
        assert!(
            keys.find(Some("good"), Algorithm::PS256).is_none(),
            "it says RS256"
        );
        assert!(keys.find(Some("other"), Algorithm::RS256).is_none());
        assert!(KeySet::read(b"[]").is_none());
    }

    proptest::proptest! {
        #[test]
        fn random_bytes_are_no_keys_and_no_token_and_never_panic(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), text in "\\PC{0,200}"
        ) {
            let _ = KeySet::read(&bytes);
            proptest::prop_assert!(open(&text, &KeySet::default(), &["jwt"]).is_err());
            let token = format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes), text);
            proptest::prop_assert!(open(&token, &KeySet::default(), &["jwt"]).is_err());
            let _ = serde_json::from_slice::<Members>(&bytes);
            let _ = peek(&token);
        }
    }
}
