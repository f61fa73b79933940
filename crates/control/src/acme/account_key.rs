//! Account keys: the JSON Web Keys (RFC 7517) that ACME clients sign with, and the names that come from them.
//!
//! A key has exactly one algorithm, so a message's `alg` can only agree with it or be refused.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use muster_trust::key::{Digest, sha256};
use serde::Deserialize;

/// Bytes of a coordinate on P-256.
const P256_BYTES: usize = 32;
/// Bytes of a coordinate on P-384.
const P384_BYTES: usize = 48;
/// Bytes of an RSA modulus that is read: 2048 to 4096 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=512;
/// The one public exponent that is read: 65537.
const RSA_EXPONENT: &str = "AQAB";
const SPKI_P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const SPKI_P384: &[u8] = &[
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81,
    0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
];
const SPKI_ED25519: &[u8] = &[
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
const UNCOMPRESSED: u8 = 4;

/// A signature algorithm of JSON Web Signatures (RFC 7518 §3, RFC 8037 §3.1) that is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Es256,
    Es384,
    Rs256,
    EdDsa,
}

impl Algorithm {
    pub const ALL: [Algorithm; 4] = [
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::Rs256,
        Algorithm::EdDsa,
    ];

    /// The name in a header's `alg`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::Rs256 => "RS256",
            Algorithm::EdDsa => "EdDSA",
        }
    }

    /// The algorithm that a name means, letter for letter.
    pub fn parse(name: &str) -> Option<Algorithm> {
        Algorithm::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str() == name)
    }
}

/// The members of a JSON Web Key that make a public key; a member of a private key is no key of an account.
#[derive(Debug, Clone, Deserialize)]
pub struct Jwk {
    kty: String,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    d: Option<serde::de::IgnoredAny>,
    p: Option<serde::de::IgnoredAny>,
    q: Option<serde::de::IgnoredAny>,
    k: Option<serde::de::IgnoredAny>,
}

/// A public key that is on its curve or of an accepted size. Two equal keys have equal ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountKey {
    P256([u8; 2 * P256_BYTES]),
    P384([u8; 2 * P384_BYTES]),
    Ed25519([u8; 32]),
    /// The modulus, without leading zeros; the exponent is 65537.
    Rsa(Vec<u8>),
}

impl AccountKey {
    /// Reads a key; none when it is malformed, not on its curve, too weak, or of a kind that is not accepted.
    pub fn from_jwk(jwk: &Jwk) -> Option<AccountKey> {
        if jwk.d.is_some() || jwk.p.is_some() || jwk.q.is_some() || jwk.k.is_some() {
            return None;
        }
        match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("EC", Some("P-256")) => p256(&coordinates(jwk)?),
            ("EC", Some("P-384")) => p384(&coordinates(jwk)?),
            ("OKP", Some("Ed25519")) => ed25519(&bytes(jwk.x.as_deref()?)?),
            ("RSA", None) if jwk.e.as_deref() == Some(RSA_EXPONENT) => rsa(bytes(jwk.n.as_deref()?)?),
            _ => None,
        }
    }

    /// Reads an id that `id` wrote; no other spelling of a key is read.
    pub fn from_id(id: &str) -> Option<AccountKey> {
        let (kind, rest) = id.split_once('.')?;
        let raw = bytes(rest)?;
        match kind {
            "p256" => p256(&raw),
            "p384" => p384(&raw),
            "ed25519" => ed25519(&raw),
            "rsa" => rsa(raw),
            _ => None,
        }
    }

    /// The account's name in its URL: the key itself, so that the server keeps nothing of an account that only signed up.
    pub fn id(&self) -> String {
        let (kind, raw): (&str, &[u8]) = match self {
            AccountKey::P256(point) => ("p256", point),
            AccountKey::P384(point) => ("p384", point),
            AccountKey::Ed25519(raw) => ("ed25519", raw),
            AccountKey::Rsa(modulus) => ("rsa", modulus),
        };
        format!("{kind}.{}", URL_SAFE_NO_PAD.encode(raw))
    }

    /// The one algorithm that this key signs with.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            AccountKey::P256(_) => Algorithm::Es256,
            AccountKey::P384(_) => Algorithm::Es384,
            AccountKey::Ed25519(_) => Algorithm::EdDsa,
            AccountKey::Rsa(_) => Algorithm::Rs256,
        }
    }

    /// Whether `signature` (RFC 7518 §3.4: `r ‖ s` for ECDSA) is this key's over `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self {
            AccountKey::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, uncompressed(point))
                .verify(message, signature),
            AccountKey::P384(point) => UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, uncompressed(point))
                .verify(message, signature),
            AccountKey::Ed25519(raw) => UnparsedPublicKey::new(&ED25519, raw).verify(message, signature),
            AccountKey::Rsa(modulus) => {
                let components = RsaPublicKeyComponents {
                    n: modulus.as_slice(),
                    e: [1, 0, 1].as_slice(),
                };
                components.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
        };
        verified.is_ok()
    }

    /// The SHA-256 thumbprint (RFC 7638).
    pub fn thumbprint(&self) -> Digest {
        let text = |raw: &[u8]| URL_SAFE_NO_PAD.encode(raw);
        let canonical = match self {
            AccountKey::P256(point) => curve("P-256", point),
            AccountKey::P384(point) => curve("P-384", point),
            AccountKey::Ed25519(raw) => {
                format!("{{\"crv\":\"Ed25519\",\"kty\":\"OKP\",\"x\":\"{}\"}}", text(raw))
            }
            AccountKey::Rsa(n) => {
                format!(
                    "{{\"e\":\"{RSA_EXPONENT}\",\"kty\":\"RSA\",\"n\":\"{}\"}}",
                    text(n)
                )
            }
        };
        sha256(canonical.as_bytes())
    }

    /// The key authorization of a challenge token (RFC 8555 §8.1).
    pub fn authorization(&self, token: &str) -> String {
        let thumbprint = self.thumbprint();
        format!("{token}.{}", URL_SAFE_NO_PAD.encode(thumbprint.as_bytes()))
    }

    /// Whether a SubjectPublicKeyInfo (DER) is this key. RSA keys are never those of a device certificate.
    pub fn is_spki(&self, spki: &[u8]) -> bool {
        let of_point = |prefix: &[u8], point: &[u8]| {
            spki.strip_prefix(prefix)
                .and_then(|rest| rest.strip_prefix(&[UNCOMPRESSED]))
                == Some(point)
        };
        match self {
            AccountKey::P256(point) => of_point(SPKI_P256, point),
            AccountKey::P384(point) => of_point(SPKI_P384, point),
            AccountKey::Ed25519(raw) => spki.strip_prefix(SPKI_ED25519) == Some(raw.as_slice()),
            AccountKey::Rsa(_) => false,
        }
    }
}

/// Base64url without padding (RFC 7515 §2); another spelling of the same bytes is refused.
pub fn bytes(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn coordinates(jwk: &Jwk) -> Option<Vec<u8>> {
    let (x, y) = (bytes(jwk.x.as_deref()?)?, bytes(jwk.y.as_deref()?)?);
    // Each coordinate has its full length (RFC 7518 §6.2.1.2), so none can lend bytes to the other.
    (x.len() == y.len()).then(|| [x, y].concat())
}

fn uncompressed(point: &[u8]) -> Vec<u8> {
    [&[UNCOMPRESSED], point].concat()
}

fn p256(point: &[u8]) -> Option<AccountKey> {
    let point: [u8; 2 * P256_BYTES] = point.try_into().ok()?;
    ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, uncompressed(&point)).ok()?;
    Some(AccountKey::P256(point))
}

fn p384(point: &[u8]) -> Option<AccountKey> {
    let point: [u8; 2 * P384_BYTES] = point.try_into().ok()?;
    ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, uncompressed(&point)).ok()?;
    Some(AccountKey::P384(point))
}

fn ed25519(raw: &[u8]) -> Option<AccountKey> {
    raw.try_into().ok().map(AccountKey::Ed25519)
}

fn rsa(modulus: Vec<u8>) -> Option<AccountKey> {
    let (first, last) = (*modulus.first()?, *modulus.last()?);
    // The shortest modulus must have all of its 2048 bits; an even one is no product of two primes.
    let strong = RSA_BYTES.contains(&modulus.len())
        && first != 0
        && last & 1 == 1
        && (modulus.len() > *RSA_BYTES.start() || first & 0x80 != 0);
    strong.then_some(AccountKey::Rsa(modulus))
}

fn curve(name: &str, point: &[u8]) -> String {
    let (x, y) = point.split_at(point.len() / 2);
    let text = |raw: &[u8]| URL_SAFE_NO_PAD.encode(raw);
    format!(
        "{{\"crv\":\"{name}\",\"kty\":\"EC\",\"x\":\"{}\",\"y\":\"{}\"}}",
        text(x),
        text(y)
    )
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
    };
    use proptest::prelude::*;

    use super::*;

    fn jwk(text: &str) -> Option<AccountKey> {
        AccountKey::from_jwk(&serde_json::from_str(text).ok()?)
    }

    /// The RSA key and the thumbprint of RFC 7638 §3.1.
    const RFC_7638: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";

    #[test]
    fn the_thumbprint_is_that_of_the_standard() {
        let key = jwk(&format!(
            r#"{{"kty":"RSA","n":"{RFC_7638}","e":"AQAB","alg":"RS256","kid":"2011-04-29"}}"#
        ))
        .expect("the key of the standard");
        let thumbprint = URL_SAFE_NO_PAD.encode(key.thumbprint().as_bytes());
        assert_eq!(thumbprint, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        assert_eq!(AccountKey::from_id(&key.id()), Some(key));
    }

    #[test]
    fn keys_that_are_weak_or_not_on_their_curve_or_private_are_none() {
        let zeros = URL_SAFE_NO_PAD.encode([0; 32]);
        let short = URL_SAFE_NO_PAD.encode([0xff; 128]);
        let refused = [
            format!(r#"{{"kty":"EC","crv":"P-256","x":"{zeros}","y":"{zeros}"}}"#),
            format!(r#"{{"kty":"EC","crv":"secp256k1","x":"{zeros}","y":"{zeros}"}}"#),
            format!(r#"{{"kty":"EC","x":"{zeros}","y":"{zeros}"}}"#),
            format!(r#"{{"kty":"RSA","n":"{short}","e":"AQAB"}}"#),
            format!(r#"{{"kty":"RSA","n":"{RFC_7638}","e":"Aw"}}"#),
            format!(r#"{{"kty":"RSA","n":"{RFC_7638}","e":"AQAB","d":"AQAB"}}"#),
            format!(r#"{{"kty":"RSA","n":"AA{RFC_7638}","e":"AQAB"}}"#),
            format!(r#"{{"kty":"oct","k":"{zeros}"}}"#),
            format!(r#"{{"kty":"OKP","crv":"X25519","x":"{zeros}="}}"#),
        ];
        for text in refused {
            assert_eq!(jwk(&text), None, "{text}");
        }
    }

    #[test]
    fn each_kind_verifies_its_own_signature_alone() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key can be made");
        let point = &pair.public_key().as_ref()[1..];
        let key = p384(point).expect("it is on the curve");
        let signature = pair.sign(&SystemRandom::new(), b"message").expect("a key signs");
        assert!(
            key.verifies(b"message", signature.as_ref()) && !key.verifies(b"another", signature.as_ref())
        );
        assert_eq!(AccountKey::from_id(&key.id()), Some(key.clone()));
        assert!(key.is_spki(&[SPKI_P384, &[4], point].concat()));

        let pair = Ed25519KeyPair::generate().expect("a key can be made");
        let other = ed25519(pair.public_key().as_ref()).expect("any 32 bytes");
        assert!(other.verifies(b"message", pair.sign(b"message").as_ref()));
        assert!(!other.verifies(b"message", signature.as_ref()) && !key.is_spki(&other.id().into_bytes()));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(id in ".{0,80}", json in ".{0,200}") {
            let _ = AccountKey::from_id(&id);
            let _ = jwk(&json);
        }

        #[test]
        fn an_id_has_one_spelling(raw in proptest::collection::vec(any::<u8>(), 32)) {
            let key = ed25519(&raw).expect("any 32 bytes");
            let id = key.id();
            prop_assert_eq!(AccountKey::from_id(&id), Some(key));
            prop_assert_eq!(AccountKey::from_id(&format!("{id}=")), None);
            prop_assert_eq!(AccountKey::from_id(&id.to_ascii_uppercase()), None);
        }
    }
}
