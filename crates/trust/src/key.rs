//! Keys and digests: Ed25519 (RFC 8032) and ECDSA P-256 with SHA-256 (FIPS 186-5), named by the hash of their SPKI.
//!
//! The algorithm is a property of the key, never of the message: a signature carries no `alg`, so none can be confused.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    ParsedPublicKey, UnparsedPublicKey,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::encoding::{from_base64, from_pem, to_base64, to_pem};

/// Longest private key document that is read: a P-256 PKCS#8 document is 138 bytes.
pub const MAX_PKCS8_BYTES: usize = 1024;

const SPKI_ED25519: &[u8] = &[
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];
const SPKI_P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const P256_POINT_BYTES: usize = 65;
const PRIVATE_KEY_LABEL: &str = "PRIVATE KEY";
const PUBLIC_KEY_LABEL: &str = "PUBLIC KEY";

/// A SHA-256 digest. Text form: 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub [u8; 32]);

/// Hashes bytes with SHA-256.
pub fn sha256(bytes: &[u8]) -> Digest {
    sha256_of(&[bytes])
}

/// Hashes the concatenation of the parts with SHA-256.
pub fn sha256_of(parts: &[&[u8]]) -> Digest {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    Digest(digest)
}

impl Digest {
    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Lower-case hex, 64 characters.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Standard base64, 44 characters.
    pub fn to_base64(&self) -> String {
        to_base64(&self.0)
    }

    /// Reads exactly 32 bytes of standard base64.
    pub fn from_base64(text: &str) -> Option<Self> {
        Self::from_slice(&from_base64(text)?)
    }

    /// Takes exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl AsRef<[u8]> for Digest {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The text is not 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 lower-case hex digits")]
pub struct DigestError;

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        if text.len() != 64 || text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(DigestError);
        }
        let mut digest = [0; 32];
        hex::decode_to_slice(text, &mut digest).map_err(|_| DigestError)?;
        Ok(Self(digest))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The name of a public key: the SHA-256 of its SPKI DER.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(pub Digest);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for KeyId {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        text.parse().map(Self)
    }
}

/// Which of the two signature algorithms a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Algorithm {
    /// Pure Ed25519.
    #[serde(rename = "ed25519")]
    Ed25519,
    /// ECDSA on P-256 with SHA-256; signatures are ASN.1 DER.
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
}

/// What can be wrong with a key or a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Neither an Ed25519 nor a P-256 SubjectPublicKeyInfo in DER, or the point is not on the curve.
    #[error("not the SPKI DER of an Ed25519 or P-256 public key")]
    PublicKey,
    /// Neither an Ed25519 nor a P-256 private key in PKCS#8.
    #[error("not the PKCS#8 document of an Ed25519 or P-256 private key")]
    PrivateKey,
    /// The cryptographic library could not make a key or a signature.
    #[error("the cryptographic library refused the operation")]
    Library,
    /// The signature is not by this key over this message.
    #[error("the signature does not verify")]
    Signature,
    /// What holds the private key (a TPM, a token) did not sign. It says why elsewhere.
    #[error("the holder of the private key did not sign")]
    Holder,
}

/// A public key that signatures are checked against. Only valid keys exist: the P-256 point is on the curve.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PublicKey {
    /// The 32 bytes of RFC 8032.
    Ed25519([u8; 32]),
    /// The uncompressed point, `04 ‖ x ‖ y`.
    EcdsaP256([u8; P256_POINT_BYTES]),
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo; only the one canonical DER form of each algorithm is known.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, KeyError> {
        if let Some(raw) = der.strip_prefix(SPKI_ED25519) {
            return raw.try_into().map(Self::Ed25519).map_err(|_| KeyError::PublicKey);
        }
        let point = der.strip_prefix(SPKI_P256).ok_or(KeyError::PublicKey)?;
        Self::from_p256_point(point)
    }

    /// Takes an uncompressed P-256 point and checks that it is on the curve.
    pub fn from_p256_point(point: &[u8]) -> Result<Self, KeyError> {
        let point: [u8; P256_POINT_BYTES] = point.try_into().map_err(|_| KeyError::PublicKey)?;
        if point[0] != 0x04 {
            return Err(KeyError::PublicKey);
        }
        ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).map_err(|_| KeyError::PublicKey)?;
        Ok(Self::EcdsaP256(point))
    }

    /// Reads a `PUBLIC KEY` PEM block.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        Self::from_spki_der(&from_pem(PUBLIC_KEY_LABEL, pem).ok_or(KeyError::PublicKey)?)
    }

    /// The SubjectPublicKeyInfo in DER.
    pub fn spki_der(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(raw) => [SPKI_ED25519, raw].concat(),
            Self::EcdsaP256(point) => [SPKI_P256, point].concat(),
        }
    }

    /// A `PUBLIC KEY` PEM block.
    pub fn to_pem(&self) -> String {
        to_pem(PUBLIC_KEY_LABEL, &self.spki_der()).to_string()
    }

    /// The SHA-256 of the SPKI DER.
    pub fn key_id(&self) -> KeyId {
        KeyId(sha256(&self.spki_der()))
    }

    /// The algorithm that this key is for.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Ed25519(_) => Algorithm::Ed25519,
            Self::EcdsaP256(_) => Algorithm::EcdsaP256,
        }
    }

    /// Checks a signature over the message.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        let result = match self {
            Self::Ed25519(raw) => UnparsedPublicKey::new(&ED25519, raw).verify(message, signature),
            Self::EcdsaP256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature)
            }
        };
        result.map_err(|_| KeyError::Signature)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:?}, {})", self.algorithm(), self.key_id())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublicKeyText {
    alg: Algorithm,
    public: String,
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        PublicKeyText {
            alg: self.algorithm(),
            public: to_base64(&self.spki_der()),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let text = PublicKeyText::deserialize(deserializer)?;
        let der = from_base64(&text.public).ok_or_else(|| D::Error::custom("public: not standard base64"))?;
        let key = Self::from_spki_der(&der).map_err(D::Error::custom)?;
        if key.algorithm() != text.alg {
            return Err(D::Error::custom("alg does not match the key"));
        }
        Ok(key)
    }
}

/// A private key. It cannot be printed; the library erases it when it is dropped.
pub struct SigningKey {
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    Ed25519(Box<Ed25519KeyPair>),
    EcdsaP256(Box<EcdsaKeyPair>),
}

impl SigningKey {
    /// Makes an Ed25519 key from the operating system's randomness.
    pub fn generate_ed25519() -> Result<Self, KeyError> {
        Self::from_ed25519(Ed25519KeyPair::generate().map_err(|_| KeyError::Library)?)
    }

    /// Makes a P-256 key from the operating system's randomness.
    pub fn generate_p256() -> Result<Self, KeyError> {
        Self::from_p256(
            EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| KeyError::Library)?,
        )
    }

    /// Makes the Ed25519 key of a 32-byte seed (RFC 8032): simulated devices and tests have reproducible keys.
    pub fn ed25519_from_seed(seed: &[u8; 32]) -> Result<Self, KeyError> {
        Self::from_ed25519(Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::PrivateKey)?)
    }

    /// Reads an unencrypted PKCS#8 document of either algorithm.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, KeyError> {
        if der.len() > MAX_PKCS8_BYTES {
            return Err(KeyError::PrivateKey);
        }
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8(der) {
            return Self::from_ed25519(pair);
        }
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der);
        Self::from_p256(pair.map_err(|_| KeyError::PrivateKey)?)
    }

    /// Reads a `PRIVATE KEY` PEM block.
    pub fn from_pkcs8_pem(pem: &str) -> Result<Self, KeyError> {
        Self::from_pkcs8_der(&from_pem(PRIVATE_KEY_LABEL, pem).ok_or(KeyError::PrivateKey)?)
    }

    /// The PKCS#8 version 1 document, as OpenSSL writes it; erased when dropped.
    pub fn to_pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let document = match &self.pair {
            Pair::Ed25519(pair) => pair.to_pkcs8v1(),
            Pair::EcdsaP256(pair) => pair.to_pkcs8v1(),
        };
        Ok(Zeroizing::new(
            document.map_err(|_| KeyError::Library)?.as_ref().to_vec(),
        ))
    }

    /// The PKCS#8 document as a `PRIVATE KEY` PEM block; erased when dropped.
    pub fn to_pkcs8_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        Ok(to_pem(PRIVATE_KEY_LABEL, &self.to_pkcs8_der()?))
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The name of the public half.
    pub fn key_id(&self) -> KeyId {
        self.public.key_id()
    }

    /// Signs the message. Ed25519 signatures are deterministic, 64 bytes; P-256 ones are randomized, ASN.1 DER.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = match &self.pair {
            Pair::Ed25519(pair) => pair.try_sign(message),
            Pair::EcdsaP256(pair) => pair.sign(&SystemRandom::new(), message),
        };
        Ok(signature.map_err(|_| KeyError::Library)?.as_ref().to_vec())
    }

    fn from_ed25519(pair: Ed25519KeyPair) -> Result<Self, KeyError> {
        let raw = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| KeyError::Library)?;
        Ok(Self {
            pair: Pair::Ed25519(Box::new(pair)),
            public: PublicKey::Ed25519(raw),
        })
    }

    fn from_p256(pair: EcdsaKeyPair) -> Result<Self, KeyError> {
        let public = PublicKey::from_p256_point(pair.public_key().as_ref())?;
        Ok(Self {
            pair: Pair::EcdsaP256(Box::new(pair)),
            public,
        })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(***)")
    }
}
