//! Certificates that signatures are by, our own keys, and the algorithms that are accepted.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey,
};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
    VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_model::Timestamp;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::reject::Reject;
use crate::sha256;

/// Octets of a certificate in DER.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;
const RSA_BITS_MIN: usize = 2048;
const RSA_BITS_MAX: usize = 8192;
const OID_RSA: &str = "1.2.840.113549.1.1.1";
const OID_EC: &str = "1.2.840.10045.2.1";
const OID_P256: &str = "1.2.840.10045.3.1.7";
const OID_P384: &str = "1.3.132.0.34";
/// Octets of an uncompressed point (SEC 1, section 2.3.3).
const P256_POINT_BYTES: usize = 65;
const P384_POINT_BYTES: usize = 97;

/// What signs (RFC 9231 for the names). No SHA-1, no HMAC, no DSA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignatureAlgorithm {
    RsaSha256,
    RsaSha384,
    RsaSha512,
    /// On P-256.
    EcdsaSha256,
    /// On P-384.
    EcdsaSha384,
}

impl SignatureAlgorithm {
    const ALL: [Self; 5] = [
        Self::RsaSha256,
        Self::RsaSha384,
        Self::RsaSha512,
        Self::EcdsaSha256,
        Self::EcdsaSha384,
    ];

    pub fn uri(self) -> &'static str {
        match self {
            Self::RsaSha256 => "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256",
            Self::RsaSha384 => "http://www.w3.org/2001/04/xmldsig-more#rsa-sha384",
            Self::RsaSha512 => "http://www.w3.org/2001/04/xmldsig-more#rsa-sha512",
            Self::EcdsaSha256 => "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256",
            Self::EcdsaSha384 => "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384",
        }
    }

    pub fn from_uri(uri: &str) -> Result<Self, Reject> {
        let known = Self::ALL.into_iter().find(|algorithm| algorithm.uri() == uri);
        known.ok_or(Reject::SignatureAlgorithm)
    }
}

/// What hashes an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DigestAlgorithm {
    Sha256,
    Sha384,
    Sha512,
}

impl DigestAlgorithm {
    pub fn from_uri(uri: &str) -> Result<Self, Reject> {
        match uri {
            "http://www.w3.org/2001/04/xmlenc#sha256" => Ok(Self::Sha256),
            "http://www.w3.org/2001/04/xmldsig-more#sha384" => Ok(Self::Sha384),
            "http://www.w3.org/2001/04/xmlenc#sha512" => Ok(Self::Sha512),
            _ => Err(Reject::SignatureAlgorithm),
        }
    }

    pub fn of(self, bytes: &[u8]) -> aws_lc_rs::digest::Digest {
        let algorithm = match self {
            Self::Sha256 => &aws_lc_rs::digest::SHA256,
            Self::Sha384 => &aws_lc_rs::digest::SHA384,
            Self::Sha512 => &aws_lc_rs::digest::SHA512,
        };
        aws_lc_rs::digest::digest(algorithm, bytes)
    }
}

/// The key inside of a certificate.
#[derive(Clone, PartialEq, Eq)]
enum VerificationKey {
    /// RSAPublicKey (RFC 8017, appendix A.1.1).
    Rsa(Vec<u8>),
    P256(Vec<u8>),
    P384(Vec<u8>),
}

/// A certificate of an identity provider or of ours: a key, and until when its owner means to use it.
///
/// Who issued it does not count: it is believed because an administrator configured it. For the same reason its expiry is
/// told ([`Certificate::not_after`]) and does not refuse (SAML V2.0 Metadata Interoperability Profile, section 2.6.1).
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    key: VerificationKey,
    not_after: Timestamp,
}

impl Certificate {
    /// Reads DER of at most [`CERTIFICATE_BYTES_MAX`] octets.
    pub fn from_der(der: &[u8]) -> Result<Self, Reject> {
        if der.len() > CERTIFICATE_BYTES_MAX {
            return Err(Reject::CertificateMalformed);
        }
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| Reject::CertificateMalformed)?;
        if !rest.is_empty() {
            return Err(Reject::CertificateMalformed);
        }
        Ok(Self {
            der: der.to_vec(),
            key: read_key(&certificate)?,
            not_after: Timestamp::from_unix_seconds(certificate.validity().not_after.timestamp()),
        })
    }

    /// Reads base64 as in an `X509Certificate` element, or PEM.
    pub fn from_text(text: &str) -> Result<Self, Reject> {
        let body = text
            .trim()
            .trim_start_matches("-----BEGIN CERTIFICATE-----")
            .trim_end_matches("-----END CERTIFICATE-----");
        if body.len() > 2 * CERTIFICATE_BYTES_MAX {
            return Err(Reject::CertificateMalformed);
        }
        let der = decode_base64(body).ok_or(Reject::CertificateMalformed)?;
        Self::from_der(&der)
    }

    /// The certificate in DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The SHA-256 of its DER, by which people compare it.
    pub fn fingerprint(&self) -> [u8; 32] {
        sha256(&self.der)
    }

    /// When its owner means to replace it.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Whether a signature in the form of XML Signature (for ECDSA: r and s side by side) is by this key.
    pub(crate) fn verifies(&self, algorithm: SignatureAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        let (how, key): (&'static dyn VerificationAlgorithm, &[u8]) = match (&self.key, algorithm) {
            (VerificationKey::Rsa(key), SignatureAlgorithm::RsaSha256) => (&RSA_PKCS1_2048_8192_SHA256, key),
            (VerificationKey::Rsa(key), SignatureAlgorithm::RsaSha384) => (&RSA_PKCS1_2048_8192_SHA384, key),
            (VerificationKey::Rsa(key), SignatureAlgorithm::RsaSha512) => (&RSA_PKCS1_2048_8192_SHA512, key),
            (VerificationKey::P256(key), SignatureAlgorithm::EcdsaSha256) => (&ECDSA_P256_SHA256_FIXED, key),
            (VerificationKey::P384(key), SignatureAlgorithm::EcdsaSha384) => (&ECDSA_P384_SHA384_FIXED, key),
            (VerificationKey::Rsa(_), SignatureAlgorithm::EcdsaSha256 | SignatureAlgorithm::EcdsaSha384)
            | (VerificationKey::P256(_) | VerificationKey::P384(_), _) => return false,
        };
        UnparsedPublicKey::new(how, key)
            .verify(message, signature)
            .is_ok()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", hex::encode(self.fingerprint()))
    }
}

fn read_key(certificate: &X509Certificate<'_>) -> Result<VerificationKey, Reject> {
    let spki = certificate.public_key();
    let algorithm = spki.algorithm.algorithm.to_id_string();
    let bytes = spki.subject_public_key.data.to_vec();
    if algorithm == OID_RSA {
        let Ok(PublicKey::RSA(key)) = spki.parsed() else {
            return Err(Reject::KeyUnsupported);
        };
        // An even or small exponent is refused where the key is used; a size that is not accepted is told here.
        let bits = key.modulus.iter().skip_while(|byte| **byte == 0).count() * 8;
        return (RSA_BITS_MIN..=RSA_BITS_MAX)
            .contains(&bits)
            .then_some(VerificationKey::Rsa(bytes))
            .ok_or(Reject::KeyUnsupported);
    }
    let curve = spki
        .algorithm
        .parameters
        .as_ref()
        .and_then(|any| any.as_oid().ok());
    match curve.map(|oid| oid.to_id_string()).as_deref() {
        Some(OID_P256) if algorithm == OID_EC && bytes.len() == P256_POINT_BYTES => {
            Ok(VerificationKey::P256(bytes))
        }
        Some(OID_P384) if algorithm == OID_EC && bytes.len() == P384_POINT_BYTES => {
            Ok(VerificationKey::P384(bytes))
        }
        _ => Err(Reject::KeyUnsupported),
    }
}

/// The key that our requests are signed with.
pub struct SigningKey(Pair);

enum Pair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
}

impl SigningKey {
    /// Reads PKCS#8 in DER: RSA (signs with SHA-256), P-256 (SHA-256) or P-384 (SHA-384).
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, Reject> {
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der) {
            return Ok(Self(Pair::P256(pair)));
        }
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, der) {
            return Ok(Self(Pair::P384(pair)));
        }
        let pair = RsaKeyPair::from_pkcs8(der).map_err(|_| Reject::KeyUnsupported)?;
        if pair.public_modulus_len() * 8 < RSA_BITS_MIN {
            return Err(Reject::KeyUnsupported);
        }
        Ok(Self(Pair::Rsa(pair)))
    }

    pub(crate) fn algorithm(&self) -> SignatureAlgorithm {
        match &self.0 {
            Pair::Rsa(_) => SignatureAlgorithm::RsaSha256,
            Pair::P256(_) => SignatureAlgorithm::EcdsaSha256,
            Pair::P384(_) => SignatureAlgorithm::EcdsaSha384,
        }
    }

    /// Signs in the form of XML Signature.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Reject> {
        let random = SystemRandom::new();
        match &self.0 {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map_err(|_| Reject::KeyUnsupported)?;
                Ok(signature)
            }
            Pair::P256(pair) | Pair::P384(pair) => {
                let signature = pair.sign(&random, message).map_err(|_| Reject::KeyUnsupported)?;
                Ok(signature.as_ref().to_vec())
            }
        }
    }

    /// Whether a certificate is of this key.
    pub(crate) fn is_of(&self, certificate: &Certificate) -> bool {
        match (&self.0, &certificate.key) {
            (Pair::Rsa(pair), VerificationKey::Rsa(key)) => pair.public_key().as_ref() == key,
            (Pair::P256(pair), VerificationKey::P256(key))
            | (Pair::P384(pair), VerificationKey::P384(key)) => pair.public_key().as_ref() == key,
            (Pair::Rsa(_) | Pair::P256(_) | Pair::P384(_), _) => false,
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?})", self.algorithm())
    }
}

/// How the key of an encrypted assertion is wrapped: RSA-OAEP (RFC 8017, section 7.1).
///
/// `rsa-oaep-mgf1p`, the one that identity providers use, has SHA-1 as its mask; OAEP does not rest on collisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyTransport {
    OaepSha1,
    OaepSha256,
}

/// The RSA key that assertions are encrypted for.
pub struct DecryptionKey(OaepPrivateDecryptingKey);

impl DecryptionKey {
    /// Reads PKCS#8 in DER: RSA of 2048 to 8192 bits.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, Reject> {
        let key = PrivateDecryptingKey::from_pkcs8(der).map_err(|_| Reject::KeyUnsupported)?;
        if key.key_size_bits() < RSA_BITS_MIN {
            return Err(Reject::KeyUnsupported);
        }
        let key = OaepPrivateDecryptingKey::new(key).map_err(|_| Reject::KeyUnsupported)?;
        Ok(Self(key))
    }

    pub(crate) fn unwrap(&self, how: KeyTransport, wrapped: &[u8]) -> Result<Vec<u8>, Reject> {
        let algorithm = match how {
            KeyTransport::OaepSha1 => &OAEP_SHA1_MGF1SHA1,
            KeyTransport::OaepSha256 => &OAEP_SHA256_MGF1SHA256,
        };
        let mut plain = vec![0; self.0.min_output_size()];
        let key = self
            .0
            .decrypt(algorithm, wrapped, &mut plain, None)
            .map_err(|_| Reject::Decryption)?;
        Ok(key.to_vec())
    }
}

impl fmt::Debug for DecryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DecryptionKey(RSA {})", self.0.key_size_bits())
    }
}

/// Reads base64 that may be broken into lines.
pub(crate) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let joined: String = text
        .chars()
        .filter(|character| !matches!(character, ' ' | '\t' | '\r' | '\n'))
        .collect();
    STANDARD.decode(joined).ok()
}
