//! The envelope: a compact JWS of one type by a key that was known before (RFC 7515, RFC 8725).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Validation, decode};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};

use crate::{
    keys::{Algorithm, KeySet},
    reject::Reject,
};

const HEADER_CHARS_MAX: usize = 4096;

/// What a header may hold. Whatever brings a key of its own, or wants something understood, is refused.
#[derive(Deserialize)]
struct HeaderText {
    alg: String,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<IgnoredAny>,
    #[serde(default)]
    jku: Option<IgnoredAny>,
    #[serde(default)]
    jwk: Option<IgnoredAny>,
    #[serde(default)]
    x5u: Option<IgnoredAny>,
    #[serde(default)]
    x5c: Option<IgnoredAny>,
    #[serde(default)]
    b64: Option<IgnoredAny>,
    #[serde(default)]
    zip: Option<IgnoredAny>,
    #[serde(default)]
    enc: Option<IgnoredAny>,
}

/// Checks the signature of a token and reads its claims. `typ` is the media type without `application/`.
pub fn open<T: DeserializeOwned>(
    token: &str,
    typ: &str,
    allowed: &[Algorithm],
    keys: &KeySet,
) -> Result<T, Reject> {
    let mut parts = token.split('.');
    let (Some(head), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Reject::request("that is no signed token of three parts"));
    };
    if head.len() > HEADER_CHARS_MAX {
        return Err(Reject::request("the header is too long"));
    }
    let head = URL_SAFE_NO_PAD
        .decode(head)
        .map_err(|_| Reject::request("the header is not base64url"))?;
    let head: HeaderText =
        serde_json::from_slice(&head).map_err(|_| Reject::request("the header cannot be read"))?;
    let brings_something = [
        &head.crit, &head.jku, &head.jwk, &head.x5u, &head.x5c, &head.b64, &head.zip, &head.enc,
    ];
    if brings_something.iter().any(|member| member.is_some()) {
        return Err(Reject::key(
            "the header names a key of its own, or an extension that is not known",
        ));
    }
    let said = head.typ.as_deref().unwrap_or_default();
    let said = match said.split_at_checked("application/".len()) {
        Some((begin, rest)) if begin.eq_ignore_ascii_case("application/") => rest,
        _ => said,
    };
    if !said.eq_ignore_ascii_case(typ) {
        return Err(Reject::request("the token is of another type"));
    }
    let algorithm = Algorithm::parse(&head.alg)
        .filter(|algorithm| allowed.contains(algorithm))
        .ok_or(Reject::key("the algorithm is not allowed"))?;
    let key = keys
        .find(algorithm, head.kid.as_deref())
        .ok_or(Reject::key("no key that is known can be meant"))?;
    let mut validation = Validation::new(algorithm.library());
    // Judged by the caller, who knows what they mean.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    decode::<T>(token, key, &validation)
        .map(|data| data.claims)
        .map_err(|error| match error.kind() {
            jsonwebtoken::errors::ErrorKind::Json(_) => Reject::request("the claims cannot be read"),
            _ => Reject::key("the signature does not verify"),
        })
}
