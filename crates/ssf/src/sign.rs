//! Tokens of our own, and the keys that others check them with.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;

/// What a token is for: a token of one type is worthless where another one is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    /// A security event token (RFC 8417, section 2.3).
    SecurityEvent,
    /// See [`crate::compliance`].
    Compliance,
}

impl TokenType {
    /// The `typ` of the header.
    pub const fn as_str(self) -> &'static str {
        match self {
            TokenType::SecurityEvent => "secevent+jwt",
            TokenType::Compliance => "compliance+jwt",
        }
    }
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
#[error("the token was not signed: {0}")]
pub struct SignError(#[from] jsonwebtoken::errors::Error);

/// Signs claims with a P-256 key, a PKCS#8 document in PEM, as `ES256`.
pub fn sign<T: Serialize>(
    typ: TokenType,
    key_id: &str,
    pkcs8_pem: &str,
    claims: &T,
) -> Result<String, SignError> {
    let mut header = Header::new(jsonwebtoken::Algorithm::ES256);
    header.typ = Some(typ.as_str().to_owned());
    header.kid = Some(key_id.to_owned());
    let key = EncodingKey::from_ec_pem(pkcs8_pem.as_bytes())?;
    Ok(jsonwebtoken::encode(&header, claims, &key)?)
}

/// A public P-256 key as others read it (RFC 7517, RFC 7518, section 6.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublicJwk {
    kty: &'static str,
    crv: &'static str,
    #[serde(rename = "use")]
    usage: &'static str,
    alg: &'static str,
    kid: String,
    x: String,
    y: String,
}

impl PublicJwk {
    /// The key of an uncompressed point, `04 ‖ x ‖ y`; `None` where it has another length.
    pub fn of_point(key_id: String, point: &[u8]) -> Option<PublicJwk> {
        let (4, coordinates) = point.split_first().map(|(form, rest)| (*form, rest))? else {
            return None;
        };
        let (x, y) = coordinates.split_at_checked(32).filter(|(_, y)| y.len() == 32)?;
        Some(PublicJwk {
            kty: "EC",
            crv: "P-256",
            usage: "sig",
            alg: "ES256",
            kid: key_id,
            x: URL_SAFE_NO_PAD.encode(x),
            y: URL_SAFE_NO_PAD.encode(y),
        })
    }
}

/// A key set with these keys.
pub fn jwks(keys: &[PublicJwk]) -> serde_json::Value {
    serde_json::json!({ "keys": keys })
}
