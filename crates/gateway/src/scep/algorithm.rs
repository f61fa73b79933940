//! The algorithms that SCEP messages may use here: AES in CBC mode, SHA-256 and SHA-512, RSA of 2048 bits and more.
//!
//! RFC 8894 §2.9 makes AES and SHA-256 mandatory and leaves DES, triple DES, SHA-1 and MD5 to the past. So do we: there is no
//! variant for them, so nothing can be talked down to them.

use aws_lc_rs::{
    cipher::{
        AES_128, AES_256, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey,
        PaddedBlockEncryptingKey, UnboundCipherKey,
    },
    digest,
    iv::FixedLength,
    signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey},
};
use zeroize::Zeroizing;

use super::{
    der::{self, DerError, Reader, tag},
    oid,
};

/// Bytes of an AES block, and of what CBC begins with.
pub const BLOCK_BYTES: usize = 16;

/// A digest with the RSA signature over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigestAlgorithm {
    Sha256,
    Sha512,
}

impl DigestAlgorithm {
    /// Reads an AlgorithmIdentifier; none for a digest that is not accepted.
    pub fn read(identifier: Reader<'_>) -> Result<Option<DigestAlgorithm>, DerError> {
        Ok(match plain(identifier)? {
            Some(oid::SHA256) => Some(DigestAlgorithm::Sha256),
            Some(oid::SHA512) => Some(DigestAlgorithm::Sha512),
            _ => None,
        })
    }

    /// The digest of an RSA signature (PKCS #1 v1.5) that names its digest; none for every other signature.
    pub fn of_signature(identifier: Reader<'_>) -> Result<Option<DigestAlgorithm>, DerError> {
        Ok(match plain(identifier)? {
            Some(oid::SHA256_WITH_RSA) => Some(DigestAlgorithm::Sha256),
            Some(oid::SHA512_WITH_RSA) => Some(DigestAlgorithm::Sha512),
            _ => None,
        })
    }

    /// Whether an AlgorithmIdentifier names an RSA signature (PKCS #1 v1.5) with this digest.
    pub fn signs_as(self, identifier: Reader<'_>) -> Result<bool, DerError> {
        Ok(plain(identifier)? == Some(oid::RSA_ENCRYPTION)
            || DigestAlgorithm::of_signature(identifier)? == Some(self))
    }

    pub fn digest(self, bytes: &[u8]) -> digest::Digest {
        match self {
            DigestAlgorithm::Sha256 => digest::digest(&digest::SHA256, bytes),
            DigestAlgorithm::Sha512 => digest::digest(&digest::SHA512, bytes),
        }
    }

    /// Whether `signature` over `message` is by the RSA key `spki` (DER) of 2048 bits or more.
    pub fn verifies(self, spki: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let parameters = match self {
            DigestAlgorithm::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
            DigestAlgorithm::Sha512 => &RSA_PKCS1_2048_8192_SHA512,
        };
        UnparsedPublicKey::new(parameters, spki)
            .verify(message, signature)
            .is_ok()
    }
}

/// The name in an AlgorithmIdentifier whose parameters are NULL or absent; none where they are something else.
fn plain(mut identifier: Reader<'_>) -> Result<Option<&[u8]>, DerError> {
    let named = identifier.content(tag::OBJECT_IDENTIFIER)?;
    let parameters = identifier.optional(tag::NULL)?;
    let is_null = parameters.is_none_or(|null| null.content.is_empty());
    Ok((is_null && identifier.is_empty()).then_some(named))
}

/// How the content of an envelope is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentCipher {
    Aes128Cbc,
    Aes256Cbc,
}

impl ContentCipher {
    /// Reads an AlgorithmIdentifier with its IV; none for a cipher that is not accepted.
    pub fn read(mut identifier: Reader<'_>) -> Result<Option<(ContentCipher, [u8; BLOCK_BYTES])>, DerError> {
        let cipher = match identifier.content(tag::OBJECT_IDENTIFIER)? {
            oid::AES128_CBC => ContentCipher::Aes128Cbc,
            oid::AES256_CBC => ContentCipher::Aes256Cbc,
            _ => return Ok(None),
        };
        let iv = identifier.content(tag::OCTET_STRING)?;
        identifier.end()?;
        Ok(Some((cipher, iv.try_into().map_err(|_| DerError)?)))
    }

    /// The AlgorithmIdentifier with its IV.
    pub fn identifier(self, iv: &[u8; BLOCK_BYTES]) -> Vec<u8> {
        let name = match self {
            ContentCipher::Aes128Cbc => oid::AES128_CBC,
            ContentCipher::Aes256Cbc => oid::AES256_CBC,
        };
        der::sequence(&[&der::oid(name), &der::octets(iv)])
    }

    pub fn key_bytes(self) -> usize {
        match self {
            ContentCipher::Aes128Cbc => 16,
            ContentCipher::Aes256Cbc => 32,
        }
    }

    fn key(self, key: &[u8]) -> Option<UnboundCipherKey> {
        let algorithm = match self {
            ContentCipher::Aes128Cbc => &AES_128,
            ContentCipher::Aes256Cbc => &AES_256,
        };
        UnboundCipherKey::new(algorithm, key).ok()
    }

    /// Decrypts and unpads; none for every kind of failure.
    pub fn decrypt(self, key: &[u8], iv: [u8; BLOCK_BYTES], content: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        if content.is_empty() || !content.len().is_multiple_of(BLOCK_BYTES) {
            return None;
        }
        let key = PaddedBlockDecryptingKey::cbc_pkcs7(self.key(key)?).ok()?;
        let mut bytes = Zeroizing::new(content.to_vec());
        let context = DecryptionContext::Iv128(FixedLength::from(iv));
        let length = key.decrypt(&mut bytes, context).ok()?.len();
        bytes.truncate(length);
        Some(bytes)
    }

    /// Pads and encrypts; none only for a key of the wrong length.
    pub fn encrypt(self, key: &[u8], iv: [u8; BLOCK_BYTES], content: &[u8]) -> Option<Vec<u8>> {
        let key = PaddedBlockEncryptingKey::cbc_pkcs7(self.key(key)?).ok()?;
        let mut bytes = content.to_vec();
        key.less_safe_encrypt(&mut bytes, EncryptionContext::Iv128(FixedLength::from(iv)))
            .ok()?;
        Some(bytes)
    }
}
