//! The envelope of every ACME request: a JSON Web Signature in flattened form (RFC 7515 §7.2.2, RFC 8555 §6.2).
//!
//! Nothing of the payload is read before the signature has verified. The protected header has four members and no other:
//! what is not understood is refused, `crit` included.

use serde::Deserialize;

use super::account_key::{AccountKey, Algorithm, Jwk, bytes};

/// The largest body of a request.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// The largest protected header, decoded. An RSA key of 4096 bits takes 700 bytes.
const HEADER_BYTES_MAX: usize = 4096;
/// The largest signature: RSA with 4096 bits.
const SIGNATURE_BYTES_MAX: usize = 512;

/// Why an envelope was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    #[error("The body is larger than 64 KiB.")]
    TooLarge,
    #[error("The body is not a flattened JSON Web Signature with `protected`, `payload` and `signature`.")]
    Envelope,
    #[error(
        "The protected header has other members than `alg`, `nonce`, `url` and one of `jwk` and `kid`, or is malformed."
    )]
    Header,
    #[error("The signature algorithm is not ES256, ES384, RS256 or EdDSA.")]
    Algorithm,
    #[error("The account key is malformed, too weak, or of a kind that is not accepted.")]
    Key,
    #[error("The signature does not verify.")]
    Signature,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Flattened {
    protected: String,
    payload: String,
    signature: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    nonce: Option<String>,
    url: String,
    jwk: Option<Jwk>,
    kid: Option<String>,
}

/// Who says that they signed: a key that is shown, or the account whose URL is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    Key(AccountKey),
    Account(String),
}

/// An envelope that was taken apart; nobody has checked its signature.
#[derive(Debug, Clone)]
pub struct Unverified {
    pub signer: Signer,
    pub url: String,
    pub nonce: Option<String>,
    algorithm: Algorithm,
    signed: Vec<u8>,
    signature: Vec<u8>,
    payload: String,
}

/// Takes an envelope apart.
pub fn read(body: &[u8]) -> Result<Unverified, JwsError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(JwsError::TooLarge);
    }
    let envelope: Flattened = serde_json::from_slice(body).map_err(|_| JwsError::Envelope)?;
    let header = bytes(&envelope.protected).ok_or(JwsError::Envelope)?;
    let signature = bytes(&envelope.signature).ok_or(JwsError::Envelope)?;
    if header.len() > HEADER_BYTES_MAX || signature.len() > SIGNATURE_BYTES_MAX {
        return Err(JwsError::Envelope);
    }
    let header: Header = serde_json::from_slice(&header).map_err(|_| JwsError::Header)?;
    let algorithm = Algorithm::parse(&header.alg).ok_or(JwsError::Algorithm)?;
    let signer = match (header.jwk, header.kid) {
        (Some(jwk), None) => Signer::Key(AccountKey::from_jwk(&jwk).ok_or(JwsError::Key)?),
        (None, Some(kid)) => Signer::Account(kid),
        (Some(_), Some(_)) | (None, None) => return Err(JwsError::Header),
    };
    Ok(Unverified {
        signer,
        url: header.url,
        nonce: header.nonce,
        algorithm,
        signed: format!("{}.{}", envelope.protected, envelope.payload).into_bytes(),
        signature,
        payload: envelope.payload,
    })
}

impl Unverified {
    /// Checks the signature by `key` and hands out the payload.
    pub fn verify(self, key: &AccountKey) -> Result<Vec<u8>, JwsError> {
        if key.algorithm() != self.algorithm || !key.verifies(&self.signed, &self.signature) {
            return Err(JwsError::Signature);
        }
        bytes(&self.payload).ok_or(JwsError::Envelope)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
    };
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const URL: &str = "https://mdm.example/acme/t/new-account";

    struct Client {
        pair: EcdsaKeyPair,
        jwk: Value,
    }

    impl Client {
        fn new() -> Client {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key can be made");
            let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
            let text = |raw| URL_SAFE_NO_PAD.encode(raw);
            let jwk = json!({"kty": "EC", "crv": "P-256", "x": text(x), "y": text(y)});
            Client { pair, jwk }
        }

        fn header(&self) -> Value {
            json!({"alg": "ES256", "nonce": "n", "url": URL, "jwk": self.jwk})
        }

        fn sign(&self, header: &Value, payload: &[u8]) -> Value {
            let protected = URL_SAFE_NO_PAD.encode(header.to_string());
            let payload = URL_SAFE_NO_PAD.encode(payload);
            let signed = format!("{protected}.{payload}");
            let signature = self
                .pair
                .sign(&SystemRandom::new(), signed.as_bytes())
                .expect("a key signs");
            json!({"protected": protected, "payload": payload, "signature": URL_SAFE_NO_PAD.encode(signature)})
        }
    }

    fn open(envelope: &Value) -> Result<Vec<u8>, JwsError> {
        let read = read(envelope.to_string().as_bytes())?;
        match read.signer.clone() {
            Signer::Key(key) => read.verify(&key),
            Signer::Account(_) => Err(JwsError::Header),
        }
    }

    #[test]
    fn an_envelope_gives_its_payload() {
        let client = Client::new();
        let envelope = client.sign(&client.header(), b"{}");
        assert_eq!(open(&envelope).as_deref(), Ok(b"{}".as_slice()));
        let read = read(envelope.to_string().as_bytes()).expect("it is well formed");
        assert_eq!((read.url.as_str(), read.nonce.as_deref()), (URL, Some("n")));
    }

    #[test]
    fn a6_a_header_chooses_nothing() {
        let client = Client::new();
        let with = |name: &str, value: Value| {
            let mut header = client.header();
            header[name] = value;
            open(&client.sign(&header, b"{}"))
        };
        for alg in ["none", "None", "", "HS256", "RS512", "ES512", "es256"] {
            assert_eq!(with("alg", json!(alg)), Err(JwsError::Algorithm), "{alg}");
        }
        // An algorithm that is accepted, but not this key's.
        for alg in ["ES384", "RS256", "EdDSA"] {
            assert_eq!(with("alg", json!(alg)), Err(JwsError::Signature), "{alg}");
        }
        for name in ["crit", "b64", "x5c", "x5u", "jku", "typ", "cty", "Alg"] {
            assert_eq!(with(name, json!([])), Err(JwsError::Header), "{name}");
        }
        assert_eq!(with("kid", json!("https://mdm.example/1")), Err(JwsError::Header));
        assert_eq!(with("jwk", Value::Null), Err(JwsError::Header));
        assert_eq!(with("url", Value::Null), Err(JwsError::Header));
        assert_eq!(
            with("jwk", json!({"kty": "oct", "k": "AAAA"})),
            Err(JwsError::Key)
        );
    }

    #[test]
    fn an_envelope_has_three_members_and_each_of_them_once() {
        let client = Client::new();
        let good = client.sign(&client.header(), b"{}");
        let mut more = good.clone();
        more["header"] = json!({});
        assert_eq!(open(&more), Err(JwsError::Envelope));
        let twice = good.to_string().replacen('{', "{\"payload\":\"e30\",", 1);
        assert_eq!(read(twice.as_bytes()).err(), Some(JwsError::Envelope));
        let compact = format!("\"{}..{}\"", good["protected"], good["signature"]);
        assert_eq!(read(compact.as_bytes()).err(), Some(JwsError::Envelope));
        let mut padded = good.clone();
        padded["signature"] = json!(format!("{}==", good["signature"].as_str().expect("text")));
        assert_eq!(open(&padded), Err(JwsError::Envelope));
        let large = vec![b' '; BODY_BYTES_MAX + 1];
        assert_eq!(read(&large).err(), Some(JwsError::TooLarge));
    }

    #[test]
    fn a_doubled_member_of_the_header_is_refused() {
        let client = Client::new();
        let doubled = client.header().to_string().replacen('{', "{\"alg\":\"none\",", 1);
        let mut envelope = client.sign(&client.header(), b"{}");
        envelope["protected"] = json!(URL_SAFE_NO_PAD.encode(doubled));
        assert_eq!(open(&envelope), Err(JwsError::Header));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(body in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = read(&body);
        }

        #[test]
        fn no_changed_or_cut_envelope_verifies(at in 0_usize..1000, bit in 0_u8..8, cut in any::<bool>()) {
            let client = Client::new();
            let good = client.sign(&client.header(), b"{\"termsOfServiceAgreed\":true}").to_string();
            let mut bent = good.clone().into_bytes();
            let at = at % bent.len();
            if cut {
                bent.truncate(at);
            } else {
                bent[at] ^= 1 << bit;
            }
            let Ok(read) = read(&bent) else { return Ok(()) };
            if let Signer::Key(key) = read.signer.clone() {
                prop_assert!(read.verify(&key).is_err());
            }
        }
    }
}
