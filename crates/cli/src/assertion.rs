//! What a client signs to say who it is (RFC 7523, `private_key_jwt`), and its public key as a JSON Web Key.

use std::path::Path;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use muster_trust::key::{PublicKey, SigningKey, sha256};
use serde_json::{Value, json};

use crate::CliError;
use crate::clock;
use crate::key_file::{self, PassphraseSource};

/// `client_assertion_type` (RFC 7523 section 2.2).
pub const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// How long an assertion counts. It is sent at once.
const LIFE_SECONDS: i64 = 60;

/// A public key as a JSON Web Key (RFC 7517, RFC 8037), named by its thumbprint (RFC 7638).
pub fn jwk(key: &PublicKey) -> Value {
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (required, algorithm) = match key {
        PublicKey::Ed25519(raw) => (json!({"crv": "Ed25519", "kty": "OKP", "x": part(raw)}), "EdDSA"),
        PublicKey::EcdsaP256(point) => {
            let (x, y) = (part(&point[1..33]), part(&point[33..]));
            (json!({"crv": "P-256", "kty": "EC", "x": x, "y": y}), "ES256")
        }
    };
    let mut jwk = required.clone();
    jwk["kid"] = json!(part(sha256(required.to_string().as_bytes()).as_bytes()));
    jwk["alg"] = json!(algorithm);
    jwk["use"] = json!("sig");
    jwk
}

/// Signs that this client asks this install, for the next minute and once.
pub fn sign(file: &Path, client: &str, admin_url: &str) -> Result<String, CliError> {
    let key = key_file::read(file, &PassphraseSource::default())?;
    let now = clock::now().as_unix_seconds();
    let id = uuid::Uuid::new_v4().simple().to_string();
    signed(
        &key,
        client,
        &format!("{}/oauth2/token", admin_url.trim_end_matches('/')),
        (&id, now),
    )
}

fn signed(
    key: &SigningKey,
    client: &str,
    audience: &str,
    (id, now): (&str, i64),
) -> Result<String, CliError> {
    let jwk = jwk(key.public());
    let header = json!({"alg": jwk["alg"], "kid": jwk["kid"], "typ": "client-authentication+jwt"});
    let claims = json!({"iss": client, "sub": client, "aud": audience, "iat": now, "exp": now + LIFE_SECONDS, "jti": id});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&header), part(&claims));
    let signature = signature(key, message.as_bytes())
        .ok_or_else(|| CliError::Failed("the key does not sign".to_owned()))?;
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// A signature as RFC 7518, section 3.4, has it: of P-256, both numbers at full length.
fn signature(key: &SigningKey, message: &[u8]) -> Option<Vec<u8>> {
    match key.public() {
        PublicKey::Ed25519(_) => key.sign(message).ok(),
        PublicKey::EcdsaP256(_) => {
            let der = key.to_pkcs8_der().ok()?;
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).ok()?;
            let signature = pair.sign(&SystemRandom::new(), message).ok()?;
            Some(signature.as_ref().to_vec())
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;

    #[test]
    fn both_kinds_of_keys_sign_what_their_public_half_checks() {
        let ed = SigningKey::generate_ed25519().expect("a key");
        let token = signed(&ed, "cli_1", "https://m/oauth2/token", ("1", 100)).expect("it signs");
        let (message, signature) = token.rsplit_once('.').expect("three parts");
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
        ed.public()
            .verify(message.as_bytes(), &signature)
            .expect("it is the key's");

        let ec = SigningKey::generate_p256().expect("a key");
        let token = signed(&ec, "cli_1", "https://m/oauth2/token", ("1", 100)).expect("it signs");
        let (message, signature) = token.rsplit_once('.').expect("three parts");
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
        let PublicKey::EcdsaP256(point) = ec.public() else {
            panic!("it is of P-256");
        };
        assert_eq!(signature.len(), 64);
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(message.as_bytes(), &signature)
            .expect("it is the key's");
    }

    #[test]
    fn a_key_is_named_by_its_thumbprint() {
        // RFC 8037, appendix A.3.
        let raw = URL_SAFE_NO_PAD
            .decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
            .expect("base64url");
        let key = PublicKey::Ed25519(raw.try_into().expect("32 bytes"));
        assert_eq!(jwk(&key)["kid"], "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }
}
