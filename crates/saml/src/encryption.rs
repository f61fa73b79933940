//! Encrypted assertions (W3C XML Encryption 1.1): AES-GCM under a key that is wrapped by RSA-OAEP, and nothing else.
//!
//! CBC and PKCS#1 v1.5 are not accepted: an answer that tells whether padding was right opens both.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use roxmltree::Node;

use crate::key::{DecryptionKey, KeyTransport, decode_base64};
use crate::name::{DSIG, XENC, XENC11};
use crate::reject::Reject;
use crate::xml::{Fields, attribute, is, text};

/// What an encrypted element is.
const TYPE_ELEMENT: &str = "http://www.w3.org/2001/04/xmlenc#Element";
const OAEP_MGF1P: &str = "http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p";
const OAEP: &str = "http://www.w3.org/2009/xmlenc11#rsa-oaep";
const SHA1: &str = "http://www.w3.org/2000/09/xmldsig#sha1";
const SHA256: &str = "http://www.w3.org/2001/04/xmlenc#sha256";
const MGF1_SHA1: &str = "http://www.w3.org/2009/xmlenc11#mgf1sha1";
const MGF1_SHA256: &str = "http://www.w3.org/2009/xmlenc11#mgf1sha256";

/// Decrypts an `EncryptedAssertion` to the octets of the assertion.
pub(crate) fn decrypt(encrypted: Node<'_, '_>, keys: &[&DecryptionKey]) -> Result<Vec<u8>, Reject> {
    let parts = Parts::read(encrypted)?;
    // Each failure is the same one: which step failed would be told to whoever made the message.
    let opened = keys.iter().find_map(|key| {
        let key = key.unwrap(parts.transport, &parts.wrapped).ok()?;
        open(parts.cipher, &key, &parts.sealed)
    });
    opened.ok_or(Reject::Decryption)
}

struct Parts {
    cipher: &'static Algorithm,
    transport: KeyTransport,
    wrapped: Vec<u8>,
    /// Nonce, ciphertext, tag (XML Encryption, section 5.2.4).
    sealed: Vec<u8>,
}

impl Parts {
    fn read(encrypted: Node<'_, '_>) -> Result<Self, Reject> {
        let shape = |_| Reject::EncryptionShape;
        let mut fields = Fields::of(encrypted).map_err(shape)?;
        let data = fields.expect(XENC, "EncryptedData").map_err(shape)?;
        let beside = fields.take(XENC, "EncryptedKey");
        fields.end().map_err(shape)?;
        if attribute(data, "Type") != Some(TYPE_ELEMENT) {
            return Err(Reject::EncryptionShape);
        }
        let mut fields = Fields::of(data).map_err(shape)?;
        let cipher = read_cipher(fields.expect(XENC, "EncryptionMethod").map_err(shape)?)?;
        let key_info = fields.take(DSIG, "KeyInfo");
        let sealed = cipher_value(fields.expect(XENC, "CipherData").map_err(shape)?)?;
        fields.end().map_err(shape)?;

        let inside = key_info.and_then(|node| node.children().find(|child| is(*child, XENC, "EncryptedKey")));
        let key = match (inside, beside) {
            (Some(key), None) | (None, Some(key)) => key,
            (None, None) | (Some(_), Some(_)) => return Err(Reject::EncryptionShape),
        };
        let mut fields = Fields::of(key).map_err(shape)?;
        let transport = read_transport(fields.expect(XENC, "EncryptionMethod").map_err(shape)?)?;
        // For whom the key is meant is tried, not read.
        let _ = fields.take(DSIG, "KeyInfo");
        let wrapped = cipher_value(fields.expect(XENC, "CipherData").map_err(shape)?)?;
        Ok(Self {
            cipher,
            transport,
            wrapped,
            sealed,
        })
    }
}

fn read_cipher(method: Node<'_, '_>) -> Result<&'static Algorithm, Reject> {
    match attribute(method, "Algorithm") {
        Some("http://www.w3.org/2009/xmlenc11#aes128-gcm") => Ok(&AES_128_GCM),
        Some("http://www.w3.org/2009/xmlenc11#aes256-gcm") => Ok(&AES_256_GCM),
        _ => Err(Reject::EncryptionAlgorithm),
    }
}

fn read_transport(method: Node<'_, '_>) -> Result<KeyTransport, Reject> {
    let refused = |_| Reject::EncryptionAlgorithm;
    let mut fields = Fields::of(method).map_err(refused)?;
    let mut digest = SHA1;
    let mut mask = MGF1_SHA1;
    while let Some(field) = fields.any() {
        let algorithm = attribute(field, "Algorithm").ok_or(Reject::EncryptionAlgorithm)?;
        if is(field, DSIG, "DigestMethod") {
            digest = algorithm;
        } else if is(field, XENC11, "MGF") {
            mask = algorithm;
        } else {
            // Parameters of OAEP, which nobody sends.
            return Err(Reject::EncryptionAlgorithm);
        }
    }
    match (attribute(method, "Algorithm"), digest, mask) {
        (Some(OAEP_MGF1P | OAEP), SHA1, MGF1_SHA1) => Ok(KeyTransport::OaepSha1),
        (Some(OAEP), SHA256, MGF1_SHA256) => Ok(KeyTransport::OaepSha256),
        _ => Err(Reject::EncryptionAlgorithm),
    }
}

/// The octets themselves: a reference to octets elsewhere is refused.
fn cipher_value(data: Node<'_, '_>) -> Result<Vec<u8>, Reject> {
    let shape = |_| Reject::EncryptionShape;
    let mut fields = Fields::of(data).map_err(shape)?;
    let value = text(fields.expect(XENC, "CipherValue").map_err(shape)?).map_err(shape)?;
    fields.end().map_err(shape)?;
    decode_base64(&value).ok_or(Reject::EncryptionShape)
}

fn open(cipher: &'static Algorithm, key: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let key = LessSafeKey::new(UnboundKey::new(cipher, key).ok()?);
    let (nonce, body) = sealed.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut body = body.to_vec();
    let length = key.open_in_place(nonce, Aad::empty(), &mut body).ok()?.len();
    body.truncate(length);
    Some(body)
}
