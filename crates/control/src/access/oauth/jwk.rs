//! Public keys of service accounts as JSON Web Keys (RFC 7517, RFC 8037), read strictly.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use muster_trust::key::{PublicKey, sha256};
use serde_json::{Value, json};

/// Shortest and longest modulus of RSA, in bytes: 2048 to 4096 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=512;
const KID_CHARS_MAX: usize = 128;
/// Members that only a private or shared key has (RFC 7518, section 6).
const PRIVATE_MEMBERS: &[&str] = &["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A public key that can check a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicJwk {
    /// As tokens name it.
    pub kid: String,
    /// RFC 7638, SHA-256, base64url.
    pub thumbprint: String,
    /// `EC P-256`, `Ed25519`, or `RSA` with its bits.
    pub kind: String,
    /// With `kid`, `use` and, where it was said, `alg`; nothing else.
    pub value: Value,
}

/// Reads a key; answers what is wrong in words for people. Nothing of a private key gets into them.
pub fn read(value: &Value) -> Result<PublicJwk, String> {
    let members = value.as_object().ok_or("A key is a JSON object.")?;
    if PRIVATE_MEMBERS.iter().any(|name| members.contains_key(*name)) {
        return Err(
            "This is a private or shared key. Send the public half alone, and take a new key: this one was shown."
                .to_owned(),
        );
    }
    let text = |name: &str| members.get(name).and_then(Value::as_str).unwrap_or_default();
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)).unwrap_or_default();
    let (required, kind, algorithms): (Value, String, &[&str]) = match (text("kty"), text("crv")) {
        ("EC", "P-256") => {
            let (x, y) = (bytes("x"), bytes("y"));
            let is_point = x.len() == 32 && y.len() == 32;
            let point = [&[4], x.as_slice(), y.as_slice()].concat();
            if !is_point || PublicKey::from_p256_point(&point).is_err() {
                return Err("x and y are no point of P-256.".to_owned());
            }
            let required = json!({"crv": "P-256", "kty": "EC", "x": text("x"), "y": text("y")});
            (required, "EC P-256".to_owned(), &["ES256"])
        }
        ("OKP", "Ed25519") => {
            if bytes("x").len() != 32 {
                return Err("x is no key of Ed25519.".to_owned());
            }
            let required = json!({"crv": "Ed25519", "kty": "OKP", "x": text("x")});
            (required, "Ed25519".to_owned(), &["EdDSA"])
        }
        ("RSA", _) => {
            let (n, e) = (bytes("n"), bytes("e"));
            if !RSA_BYTES.contains(&n.len())
                || n.first().is_none_or(|first| *first < 0x80)
                || n.last().is_none_or(|last| last % 2 == 0)
            {
                return Err("An RSA key has 2048 to 4096 bits.".to_owned());
            }
            if e != [1, 0, 1] {
                return Err("The public exponent of an RSA key is 65537.".to_owned());
            }
            let required = json!({"e": text("e"), "kty": "RSA", "n": text("n")});
            (required, format!("RSA {}", n.len() * 8), &["PS256", "RS256"])
        }
        _ => {
            return Err(
                "A key is of kty EC with crv P-256, of kty OKP with crv Ed25519, or of kty RSA.".to_owned(),
            );
        }
    };
    if members.contains_key("use") && text("use") != "sig" {
        return Err("The key is not for signatures (use).".to_owned());
    }
    let algorithm = members.get("alg").map(|_| text("alg"));
    if algorithm.is_some_and(|said| !algorithms.contains(&said)) {
        return Err(format!("alg of such a key is {}.", algorithms.join(" or ")));
    }
    // The members stand in the order of the alphabet, without spaces: RFC 7638, section 3.
    let thumbprint = URL_SAFE_NO_PAD.encode(sha256(required.to_string().as_bytes()).as_bytes());
    let kid = match members.get("kid") {
        None => thumbprint.clone(),
        Some(Value::String(kid))
            if (1..=KID_CHARS_MAX).contains(&kid.len())
                && kid.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            kid.clone()
        }
        Some(_) => return Err("kid has 1 to 128 visible characters.".to_owned()),
    };
    let mut value = required;
    value["kid"] = json!(kid);
    value["use"] = json!("sig");
    if let Some(algorithm) = algorithm {
        value["alg"] = json!(algorithm);
    }
    Ok(PublicJwk {
        kid,
        thumbprint,
        kind,
        value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thumbprint_of_the_example_of_rfc_8037_is_the_one_that_it_says() {
        let key = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        let read = read(&key).expect("it is a key");
        assert_eq!(read.thumbprint, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert_eq!(
            (read.kid.as_str(), read.kind.as_str()),
            (read.thumbprint.as_str(), "Ed25519")
        );
    }

    #[test]
    fn keys_that_are_private_short_or_of_another_kind_are_refused() {
        let n = |bytes: usize| URL_SAFE_NO_PAD.encode(vec![0xff; bytes]);
        let rsa = json!({"kty": "RSA", "n": n(256), "e": "AQAB"});
        assert!(read(&rsa).is_ok());
        let wrong = [
            json!({"kty": "RSA", "n": n(128), "e": "AQAB"}),
            json!({"kty": "RSA", "n": n(1024), "e": "AQAB"}),
            json!({"kty": "RSA", "n": n(256), "e": "Aw"}),
            json!({"kty": "RSA", "n": n(256), "e": "AQAB", "d": "AA"}),
            json!({"kty": "RSA", "n": n(256), "e": "AQAB", "alg": "HS256"}),
            json!({"kty": "RSA", "n": n(256), "e": "AQAB", "alg": 1}),
            json!({"kty": "RSA", "n": n(256), "e": "AQAB", "use": "enc"}),
            json!({"kty": "RSA", "n": n(256), "e": "AQAB", "kid": ""}),
            json!({"kty": "RSA", "n": n(256), "e": "AQAB", "kid": "a b"}),
            json!({"kty": "oct", "k": "AAAA"}),
            json!({"kty": "EC", "crv": "P-256", "x": n(32), "y": n(32)}),
            json!({"kty": "EC", "crv": "P-384", "x": n(48), "y": n(48)}),
            json!({"kty": "OKP", "crv": "X25519", "x": n(32)}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": n(31)}),
            json!([]),
        ];
        for key in wrong {
            assert!(read(&key).is_err(), "{key}");
        }
        let secret = read(&json!({"kty": "OKP", "crv": "Ed25519", "x": n(32), "d": "SECRET"}));
        assert!(secret.is_err_and(|why| !why.contains("SECRET")));
    }

    proptest::proptest! {
        #[test]
        fn random_json_is_no_key_and_never_panics(
            kty in "EC|OKP|RSA|x", crv in "P-256|Ed25519|y", x in "[A-Za-z0-9_-]{0,100}", y in "\\PC{0,50}"
        ) {
            let _ = read(&json!({"kty": kty, "crv": crv, "x": x, "y": y, "n": x, "e": y}));
        }
    }
}
