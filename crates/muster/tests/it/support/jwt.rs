//! JSON Web Tokens made by hand, so that wrong ones can be made.

use std::path::Path;

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

/// A P-256 key that signs tokens.
pub struct TokenKey {
    pair: EcdsaKeyPair,
    pem: String,
}

impl TokenKey {
    /// The key in a file of `keys/`: what someone holds who stole it, or the server itself.
    pub fn read(path: &Path) -> TokenKey {
        TokenKey::of_pem(std::fs::read_to_string(path).expect("the key is there"))
    }

    /// A key that the server does not know.
    pub fn foreign() -> TokenKey {
        let key = muster_trust::key::SigningKey::generate_p256().expect("a key can be made");
        TokenKey::of_pem(key.to_pkcs8_pem().expect("it can be written").to_string())
    }

    fn of_pem(pem: String) -> TokenKey {
        use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).expect("it is a key");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der());
        TokenKey {
            pair: pair.expect("it is a P-256 key"),
            pem,
        }
    }

    /// The id under which headers name the key.
    pub fn id(&self) -> String {
        let key = muster_trust::key::SigningKey::from_pkcs8_pem(&self.pem).expect("it is a key");
        key.key_id().to_string()
    }

    /// The public key as PEM: the bytes that an algorithm confusion would take for a secret.
    pub fn public_pem(&self) -> String {
        let key = muster_trust::key::SigningKey::from_pkcs8_pem(&self.pem).expect("it is a key");
        key.public().to_pem()
    }

    /// The public key's point as a JWK.
    pub fn public_jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let coordinate = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
        serde_json::json!({"kty": "EC", "crv": "P-256", "x": coordinate(1..33), "y": coordinate(33..65)})
    }

    /// A token with this header and these claims, signed with ES256 whatever the header says.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let text = unsigned(header, claims);
        let signature = self
            .pair
            .sign(&SystemRandom::new(), text.as_bytes())
            .expect("a key signs");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// Header and claims, without a signature.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// A token under HMAC-SHA256 with this secret.
pub fn sign_hs256(secret: &[u8], header: &Value, claims: &Value) -> String {
    let text = unsigned(header, claims);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
}

/// The header and the claims of a token, unverified.
pub fn parts(token: &str) -> (Value, Value) {
    let mut parts = token.split('.').map(|part| {
        let bytes = URL_SAFE_NO_PAD.decode(part).expect("a token is base64url");
        serde_json::from_slice(&bytes).unwrap_or_default()
    });
    (
        parts.next().expect("a token has a header"),
        parts.next().expect("a token has claims"),
    )
}
