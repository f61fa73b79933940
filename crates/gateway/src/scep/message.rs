//! SCEP messages (RFC 8894 §3): what a client asks, and how it is answered.

use aws_lc_rs::error::Unspecified;
use muster_control::secrets::ScepRa;
use zeroize::Zeroizing;

use super::{
    algorithm::{BLOCK_BYTES, ContentCipher},
    cms::{self, CertificateName, CmsError, ContentKey, Envelope, Signed},
    der::{self, tag},
    oid,
    request::{self, KeyKind},
};

/// The largest message that is read (ABUSE, limits: unauthenticated enrollment).
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// A transaction id is a text of the client's choice, often the hash of its key in hex.
const TRANSACTION_BYTES_MAX: usize = 128;
const NONCE_BYTES: usize = 16;

/// What a message is (RFC 8894 §3.2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageType {
    CertRep,
    RenewalReq,
    PkcsReq,
    CertPoll,
    GetCert,
    GetCrl,
}

impl MessageType {
    fn parse(text: &[u8]) -> Option<MessageType> {
        match text {
            b"3" => Some(MessageType::CertRep),
            b"17" => Some(MessageType::RenewalReq),
            b"19" => Some(MessageType::PkcsReq),
            b"20" => Some(MessageType::CertPoll),
            b"21" => Some(MessageType::GetCert),
            b"22" => Some(MessageType::GetCrl),
            _ => None,
        }
    }
}

/// Why a request failed, as the client is told (RFC 8894 §3.2.1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::enum_variant_names, reason = "RFC 8894 names them so")]
pub enum FailInfo {
    BadAlg,
    BadMessageCheck,
    BadRequest,
    BadCertId,
}

impl FailInfo {
    fn text(self) -> &'static [u8] {
        match self {
            FailInfo::BadAlg => b"0",
            FailInfo::BadMessageCheck => b"1",
            FailInfo::BadRequest => b"2",
            FailInfo::BadCertId => b"4",
        }
    }
}

impl From<CmsError> for FailInfo {
    fn from(error: CmsError) -> FailInfo {
        match error {
            CmsError::Malformed => FailInfo::BadRequest,
            CmsError::Algorithm => FailInfo::BadAlg,
            CmsError::Integrity => FailInfo::BadMessageCheck,
        }
    }
}

/// What an answer repeats of its question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    id: Vec<u8>,
    nonce: Vec<u8>,
}

/// A message whose outer form was read: it can be answered, and nothing of it is believed yet.
#[derive(Debug, Clone)]
pub struct Outer<'a> {
    pub transaction: Transaction,
    kind: Option<MessageType>,
    signed: Signed<'a>,
}

/// A message under a signature that holds.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    pub kind: MessageType,
    /// The certificate (DER) of the key that signed.
    pub certificate: &'a [u8],
    /// Whether that certificate is the client's own, which it has before it has any other.
    pub is_self_signed: bool,
    /// That key (SPKI, DER): RSA of 2048 to 4096 bits.
    pub spki: &'a [u8],
    /// What is enclosed for us.
    envelope: &'a [u8],
}

/// What a message encloses.
pub struct Opened {
    pub content: Zeroizing<Vec<u8>>,
    /// The cipher that the client used; the answer uses the same.
    pub cipher: ContentCipher,
}

impl<'a> Outer<'a> {
    /// Reads a message; one without a transaction cannot be answered in kind.
    pub fn read(bytes: &'a [u8]) -> Result<Outer<'a>, CmsError> {
        let signed = Signed::read(bytes)?;
        let id = signed
            .attribute(oid::TRANSACTION_ID, tag::PRINTABLE_STRING)
            .filter(|id| (1..=TRANSACTION_BYTES_MAX).contains(&id.len()) && id.is_ascii())
            .ok_or(CmsError::Malformed)?;
        let nonce = signed
            .attribute(oid::SENDER_NONCE, tag::OCTET_STRING)
            .filter(|nonce| nonce.len() == NONCE_BYTES)
            .ok_or(CmsError::Malformed)?;
        let kind = signed
            .attribute(oid::MESSAGE_TYPE, tag::PRINTABLE_STRING)
            .and_then(MessageType::parse);
        Ok(Outer {
            transaction: Transaction {
                id: id.to_vec(),
                nonce: nonce.to_vec(),
            },
            kind,
            signed,
        })
    }

    /// Checks the signature by the certificate that the message carries, whoever that may be.
    pub fn verify(&self) -> Result<Message<'a>, CmsError> {
        let certificate = self.signed.signer_certificate().ok_or(CmsError::Integrity)?;
        let spki = request::certificate_key(certificate).map_err(|_| CmsError::Malformed)?;
        match request::key_kind(spki) {
            Ok(KeyKind::Rsa) => {}
            Ok(KeyKind::EcdsaP256 | KeyKind::EcdsaP384) | Err(_) => return Err(CmsError::Algorithm),
        }
        self.signed.verify(spki)?;
        let is_self_signed = request::is_own_issuer(certificate)?;
        if is_self_signed {
            // It proves nothing more, and what is not as its maker made it has no place in a message.
            let holds = request::is_signed_by(certificate, spki)?.ok_or(CmsError::Algorithm)?;
            if !holds {
                return Err(CmsError::Integrity);
            }
        }
        Ok(Message {
            kind: self.kind.ok_or(CmsError::Malformed)?,
            certificate,
            is_self_signed,
            spki,
            envelope: self.signed.content.ok_or(CmsError::Malformed)?,
        })
    }
}

impl Message<'_> {
    /// Opens what the message encloses for `ra`.
    ///
    /// Every way in which the encryption can be wrong is one error: with a wrong key the content is decrypted by a key that
    /// nobody knows, and comes out as noise.
    pub fn open(&self, ra: &ScepRa) -> Result<Opened, CmsError> {
        let envelope = Envelope::read(self.envelope, CertificateName::of(ra.certificate())?)?;
        let key = ra.content_key(
            envelope.transport,
            envelope.encrypted_key,
            envelope.cipher.key_bytes(),
        );
        let content = envelope
            .cipher
            .decrypt(&key, envelope.iv, envelope.content)
            .ok_or(CmsError::Integrity)?;
        Ok(Opened {
            content,
            cipher: envelope.cipher,
        })
    }
}

/// The random bytes of one answer.
pub struct AnswerRandom {
    pub nonce: [u8; NONCE_BYTES],
    pub key: [u8; 32],
    pub iv: [u8; BLOCK_BYTES],
}

/// The answer with certificates (DER), enclosed for the key that asked; none where that key cannot be enclosed for.
pub fn success(
    ra: &ScepRa,
    transaction: &Transaction,
    message: &Message<'_>,
    cipher: ContentCipher,
    certificates: &[&[u8]],
    random: AnswerRandom,
) -> Result<Option<Vec<u8>>, Unspecified> {
    let content_key = ContentKey {
        key: Zeroizing::new(random.key),
        iv: random.iv,
    };
    let Ok(recipient) = CertificateName::of(message.certificate) else {
        return Ok(None);
    };
    let content = cms::certificates_only(certificates);
    let Some(enclosed) = cms::enclose(&content, recipient, message.spki, cipher, &content_key) else {
        return Ok(None);
    };
    let attributes = attributes(transaction, b"0", &random.nonce);
    reply(ra, &enclosed, attributes)
}

/// The answer that a request failed. It carries nothing but the reason.
pub fn failure(
    ra: &ScepRa,
    transaction: &Transaction,
    fail: FailInfo,
    nonce: [u8; NONCE_BYTES],
) -> Result<Option<Vec<u8>>, Unspecified> {
    let mut attributes = attributes(transaction, b"2", &nonce);
    attributes.push(cms::attribute(oid::FAIL_INFO, &printable(fail.text())));
    // Empty, not absent: clients on OpenSSL cannot verify a signature over nothing.
    reply(ra, &[], attributes)
}

fn attributes(transaction: &Transaction, status: &[u8], nonce: &[u8]) -> Vec<Vec<u8>> {
    const CERT_REP: &[u8] = b"3";
    vec![
        cms::attribute(oid::MESSAGE_TYPE, &printable(CERT_REP)),
        cms::attribute(oid::TRANSACTION_ID, &printable(&transaction.id)),
        cms::attribute(oid::RECIPIENT_NONCE, &der::octets(&transaction.nonce)),
        cms::attribute(oid::SENDER_NONCE, &der::octets(nonce)),
        cms::attribute(oid::PKI_STATUS, &printable(status)),
    ]
}

fn reply(ra: &ScepRa, content: &[u8], attributes: Vec<Vec<u8>>) -> Result<Option<Vec<u8>>, Unspecified> {
    let certificate = ra.certificate();
    let chain = [certificate, ra.issuer()];
    cms::sign(content, attributes, certificate, &chain, |message| {
        ra.sign(message)
    })
}

fn printable(text: &[u8]) -> Vec<u8> {
    der::wrap(tag::PRINTABLE_STRING, &[text])
}
