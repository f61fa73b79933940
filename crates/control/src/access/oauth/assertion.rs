//! What an assertion must say by which a service account proves who it is (`private_key_jwt`; RFC 7523, section 3; RFC 8725). Pure.

use muster_model::ClientId;

use crate::access::jose::{Members, Signed};

/// `client_assertion_type` (RFC 7523, section 2.2).
pub const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Types that the header may say.
pub const HEADER_TYPES: &[&str] = &["jwt", "client-authentication+jwt"];
/// The algorithms that are accepted, each for keys of its kind alone.
pub const ALGORITHMS: &[&str] = &["ES256", "EdDSA", "PS256", "RS256"];
/// How long an assertion may live.
pub const LIFE_SECONDS_MAX: i64 = 300;
/// How far two clocks may be apart.
pub const SKEW_SECONDS: i64 = 30;
const ID_CHARS_MAX: usize = 255;

/// An assertion that is sound. It counts once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sound {
    pub jti: String,
    /// In seconds since the epoch: until then its id is remembered.
    pub ends: i64,
}

/// Judges an assertion; answers what is wrong in words for people.
pub fn judge(
    signed: &Signed,
    client: ClientId,
    audiences: &[String],
    now: i64,
) -> Result<Sound, &'static str> {
    let claims = &signed.claims;
    if !ALGORITHMS.contains(&signed.algorithm) {
        return Err("it is signed with an algorithm that is not accepted: use ES256, EdDSA, PS256 or RS256");
    }
    let id = client.to_string();
    if claims.text("iss") != Some(&id) || claims.text("sub") != Some(&id) {
        return Err("iss and sub are both the client's id");
    }
    match claims.texts("aud").as_deref() {
        Some([one]) if audiences.iter().any(|audience| audience == one) => {}
        _ => return Err("aud is the token endpoint or the issuer, and nothing besides"),
    }
    check_times(claims, now)?;
    let jti = claims.text("jti").unwrap_or_default();
    if jti.is_empty() || jti.chars().count() > ID_CHARS_MAX {
        return Err("jti is an id of 1 to 255 characters, another one each time");
    }
    let ends = claims.seconds("exp").unwrap_or(now).saturating_add(SKEW_SECONDS);
    Ok(Sound {
        jti: jti.to_owned(),
        ends,
    })
}

fn check_times(claims: &Members, now: i64) -> Result<(), &'static str> {
    let Some(expires) = claims.seconds("exp") else {
        return Err("exp says when it ends");
    };
    if expires.saturating_add(SKEW_SECONDS) <= now {
        return Err("it has expired; compare the clocks");
    }
    if expires.saturating_sub(now) > LIFE_SECONDS_MAX + SKEW_SECONDS {
        return Err("it lives longer than five minutes");
    }
    for name in ["iat", "nbf"] {
        if claims.0.contains_key(name) && claims.seconds(name).is_none_or(|at| at > now + SKEW_SECONDS) {
            return Err("it is not valid yet; compare the clocks");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn judged(algorithm: &'static str, change: impl FnOnce(&mut Value)) -> Result<Sound, &'static str> {
        let client = ClientId::from_uuid(Uuid::nil());
        let mut claims = json!({"iss": client.to_string(), "sub": client.to_string(), "aud": "https://m.example/oauth2/token",
            "exp": NOW + 60, "iat": NOW, "jti": "1"});
        change(&mut claims);
        let claims = serde_json::from_value(claims).expect("it is an object");
        let audiences = [
            "https://m.example".to_owned(),
            "https://m.example/oauth2/token".to_owned(),
        ];
        judge(&Signed { claims, algorithm }, client, &audiences, NOW)
    }

    #[test]
    fn a_sound_assertion_counts_until_it_ends() {
        let sound = judged("ES256", |_| ()).expect("it is sound");
        assert_eq!((sound.jti.as_str(), sound.ends), ("1", NOW + 60 + SKEW_SECONDS));
        assert!(judged("EdDSA", |claims| claims["aud"] = json!(["https://m.example"])).is_ok());
    }

    #[test]
    fn an_assertion_with_one_wrong_claim_is_refused() {
        let other = ClientId::from_uuid(Uuid::max()).to_string();
        let wrong: &[(&str, Value)] = &[
            ("iss", json!(other)),
            ("sub", json!(other)),
            ("aud", json!("https://evil.example/oauth2/token")),
            ("aud", json!(["https://m.example", "https://evil.example"])),
            ("aud", json!([])),
            ("aud", Value::Null),
            ("exp", json!(NOW - 31)),
            ("exp", json!(NOW + 331)),
            ("exp", json!("soon")),
            ("exp", json!(i64::MAX)),
            ("iat", json!(NOW + 100)),
            ("nbf", json!(NOW + 100)),
            ("nbf", json!("later")),
            ("jti", json!("")),
            ("jti", json!(7)),
            ("jti", json!("x".repeat(256))),
        ];
        for (name, value) in wrong {
            assert!(
                judged("ES256", |claims| claims[*name] = value.clone()).is_err(),
                "{name} {value}"
            );
        }
        for name in ["iss", "sub", "aud", "exp", "jti"] {
            let removed = judged("ES256", |claims| {
                claims.as_object_mut().expect("it is an object").remove(name);
            });
            assert!(removed.is_err(), "{name}");
        }
        for algorithm in ["RS512", "ES384", "none"] {
            assert!(judged(algorithm, |_| ()).is_err(), "{algorithm}");
        }
    }
}
