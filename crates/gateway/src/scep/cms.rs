//! The cryptographic message syntax (RFC 5652) as far as SCEP and EST use it: one signer, one enclosed content.
//!
//! What is read borrows from the message and trusts nothing of it; the caller asks for each check by name.

use aws_lc_rs::rsa::{Pkcs1PublicEncryptingKey, PublicEncryptingKey};
use muster_control::secrets::KeyTransport;

use super::{
    algorithm::{BLOCK_BYTES, ContentCipher, DigestAlgorithm},
    der::{self, DerError, Reader, tag},
    oid,
};

/// Certificates that a message may carry (ABUSE, limits).
const CERTIFICATES_MAX: usize = 8;
/// Attributes that a signer may sign.
const ATTRIBUTES_MAX: usize = 32;
/// Recipients that an envelope may have.
const RECIPIENTS_MAX: usize = 8;

/// Why a message is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CmsError {
    #[error("the message is not CMS in DER of the form that SCEP uses")]
    Malformed,
    #[error("the message uses an algorithm other than AES-CBC, SHA-256, SHA-512 and RSA")]
    Algorithm,
    #[error("the signature or the encryption of the message does not hold")]
    Integrity,
}

impl From<DerError> for CmsError {
    fn from(_: DerError) -> CmsError {
        CmsError::Malformed
    }
}

/// Who signed or is to open something: the issuer's name (DER) and the serial number (bytes of the INTEGER).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateName<'a> {
    pub issuer: &'a [u8],
    pub serial: &'a [u8],
}

impl<'a> CertificateName<'a> {
    fn read(mut reader: Reader<'a>) -> Result<CertificateName<'a>, DerError> {
        let issuer = reader.element(tag::SEQUENCE)?.raw;
        let serial = reader.content(tag::INTEGER)?;
        reader.end()?;
        Ok(CertificateName { issuer, serial })
    }

    /// The name of a certificate (DER).
    pub fn of(certificate: &'a [u8]) -> Result<CertificateName<'a>, DerError> {
        let mut fields = Reader::whole(certificate, tag::SEQUENCE)?.enter(tag::SEQUENCE)?;
        fields.optional(tag::CONTEXT_0)?;
        let serial = fields.content(tag::INTEGER)?;
        fields.enter(tag::SEQUENCE)?;
        let issuer = fields.element(tag::SEQUENCE)?.raw;
        Ok(CertificateName { issuer, serial })
    }

    fn write(&self) -> Vec<u8> {
        der::sequence(&[self.issuer, &der::wrap(tag::INTEGER, &[self.serial])])
    }
}

/// A SignedData with one signer, read and not yet verified.
#[derive(Debug, Clone)]
pub struct Signed<'a> {
    /// What was signed, if it is in the message.
    pub content: Option<&'a [u8]>,
    /// Certificates (DER) as they stand in the message.
    pub certificates: Vec<&'a [u8]>,
    /// The attributes under the signature, by name, each with its one value.
    attributes: Vec<(&'a [u8], der::Element<'a>)>,
    attribute_bytes: &'a [u8],
    signer: CertificateName<'a>,
    digest: Reader<'a>,
    signature_algorithm: Reader<'a>,
    signature: &'a [u8],
}

impl<'a> Signed<'a> {
    /// Reads a ContentInfo that holds SignedData.
    pub fn read(message: &'a [u8]) -> Result<Signed<'a>, CmsError> {
        let mut fields = content_info(message, oid::SIGNED_DATA)?;
        version(&mut fields)?;
        let digests = fields.element(tag::SET)?;
        let content = enclosed(fields.enter(tag::SEQUENCE)?)?;
        let certificates = match fields.optional(tag::CONTEXT_0)? {
            Some(found) => certificates(found.content)?,
            None => Vec::new(),
        };
        let mut signers = fields.enter(tag::SET)?;
        fields.end()?;
        let mut signer = signers.enter(tag::SEQUENCE)?;
        // One signer: with two, which of them asked?
        signers.end()?;
        version(&mut signer)?;
        let name = CertificateName::read(signer.enter(tag::SEQUENCE)?)?;
        let digest = signer.element(tag::SEQUENCE)?;
        // What is under no signature must say the same as what is, or nothing.
        if digests.content != digest.raw {
            return Err(CmsError::Malformed);
        }
        let signed = signer.element(tag::CONTEXT_0)?;
        let signature_algorithm = signer.enter(tag::SEQUENCE)?;
        let signature = signer.content(tag::OCTET_STRING)?;
        signer.end()?;
        Ok(Signed {
            content,
            certificates,
            attributes: attributes(signed.content)?,
            attribute_bytes: signed.content,
            signer: name,
            digest: Reader::new(digest.content),
            signature_algorithm,
            signature,
        })
    }

    /// The one value of a signed attribute, which must have this tag.
    pub fn attribute(&self, name: &[u8], tag: u8) -> Option<&'a [u8]> {
        let (_, value) = self.attributes.iter().find(|(found, _)| *found == name)?;
        (value.tag == tag).then_some(value.content)
    }

    /// The certificate (DER) that the signer names, from the message.
    pub fn signer_certificate(&self) -> Option<&'a [u8]> {
        self.certificates
            .iter()
            .copied()
            .find(|certificate| CertificateName::of(certificate) == Ok(self.signer))
    }

    /// Checks that the content and the attributes are signed by the RSA key `spki` (DER) (RFC 5652 §5.4 and §5.6).
    pub fn verify(&self, spki: &[u8]) -> Result<(), CmsError> {
        let digest = DigestAlgorithm::read(self.digest)?.ok_or(CmsError::Algorithm)?;
        if !digest.signs_as(self.signature_algorithm)? {
            return Err(CmsError::Algorithm);
        }
        let content_digest = digest.digest(self.content.unwrap_or_default());
        let names_content = self.attribute(oid::CONTENT_TYPE, tag::OBJECT_IDENTIFIER) == Some(oid::DATA)
            && self.attribute(oid::MESSAGE_DIGEST, tag::OCTET_STRING) == Some(content_digest.as_ref());
        let message = der::wrap(tag::SET, &[self.attribute_bytes]);
        if names_content && digest.verifies(spki, &message, self.signature) {
            Ok(())
        } else {
            Err(CmsError::Integrity)
        }
    }
}

/// Version 1: data with certificates, by a signer who is named by issuer and serial number (RFC 5652 §5.1 and §5.3).
fn version(fields: &mut Reader<'_>) -> Result<(), CmsError> {
    match fields.small_integer()? {
        1 => Ok(()),
        _ => Err(CmsError::Malformed),
    }
}

/// What a ContentInfo of this type holds.
fn content_info<'a>(message: &'a [u8], kind: &[u8]) -> Result<Reader<'a>, CmsError> {
    let mut info = Reader::whole(message, tag::SEQUENCE)?;
    if info.content(tag::OBJECT_IDENTIFIER)? != kind {
        return Err(CmsError::Malformed);
    }
    let explicit = info.content(tag::CONTEXT_0)?;
    info.end()?;
    Ok(Reader::whole(explicit, tag::SEQUENCE)?)
}

fn enclosed(mut info: Reader<'_>) -> Result<Option<&[u8]>, CmsError> {
    if info.content(tag::OBJECT_IDENTIFIER)? != oid::DATA {
        return Err(CmsError::Malformed);
    }
    let Some(explicit) = info.optional(tag::CONTEXT_0)? else {
        info.end()?;
        return Ok(None);
    };
    info.end()?;
    let mut inner = Reader::new(explicit.content);
    let content = inner.content(tag::OCTET_STRING)?;
    inner.end()?;
    Ok(Some(content))
}

fn certificates(bytes: &[u8]) -> Result<Vec<&[u8]>, CmsError> {
    let mut reader = Reader::new(bytes);
    let mut found = Vec::new();
    while !reader.is_empty() {
        if found.len() == CERTIFICATES_MAX {
            return Err(CmsError::Malformed);
        }
        found.push(reader.element(tag::SEQUENCE)?.raw);
    }
    Ok(found)
}

/// Attributes, each once and with one value.
fn attributes(bytes: &[u8]) -> Result<Vec<(&[u8], der::Element<'_>)>, CmsError> {
    let mut reader = Reader::new(bytes);
    let mut found: Vec<(&[u8], der::Element<'_>)> = Vec::new();
    while !reader.is_empty() {
        let mut attribute = reader.enter(tag::SEQUENCE)?;
        let name = attribute.content(tag::OBJECT_IDENTIFIER)?;
        let mut values = attribute.enter(tag::SET)?;
        attribute.end()?;
        let value = values.any()?;
        values.end()?;
        if found.len() == ATTRIBUTES_MAX || found.iter().any(|(known, _)| *known == name) {
            return Err(CmsError::Malformed);
        }
        found.push((name, value));
    }
    Ok(found)
}

/// An EnvelopedData, read and not yet opened.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    pub cipher: ContentCipher,
    pub iv: [u8; BLOCK_BYTES],
    pub content: &'a [u8],
    pub transport: KeyTransport,
    /// The key of the content, encrypted for us.
    pub encrypted_key: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Reads a ContentInfo that holds EnvelopedData for the certificate `recipient`.
    pub fn read(message: &'a [u8], recipient: CertificateName<'_>) -> Result<Envelope<'a>, CmsError> {
        let mut fields = content_info(message, oid::ENVELOPED_DATA)?;
        fields.small_integer()?;
        let recipients = fields.enter(tag::SET)?;
        let mut info = fields.enter(tag::SEQUENCE)?;
        fields.optional(tag::CONTEXT_1)?;
        fields.end()?;
        if info.content(tag::OBJECT_IDENTIFIER)? != oid::DATA {
            return Err(CmsError::Malformed);
        }
        let (cipher, iv) = ContentCipher::read(info.enter(tag::SEQUENCE)?)?.ok_or(CmsError::Algorithm)?;
        let content = info.content(tag::CONTEXT_0_PRIMITIVE)?;
        info.end()?;
        let (transport, encrypted_key) = for_recipient(recipients, recipient)?;
        Ok(Envelope {
            cipher,
            iv,
            content,
            transport,
            encrypted_key,
        })
    }
}

fn for_recipient<'a>(
    mut recipients: Reader<'a>,
    recipient: CertificateName<'_>,
) -> Result<(KeyTransport, &'a [u8]), CmsError> {
    for _ in 0..RECIPIENTS_MAX {
        if recipients.is_empty() {
            break;
        }
        let found = recipients.any()?;
        // Other kinds of recipients than key transport have context tags.
        if found.tag != tag::SEQUENCE {
            continue;
        }
        let mut fields = Reader::new(found.content);
        fields.small_integer()?;
        let name = fields.any()?;
        let algorithm = fields.enter(tag::SEQUENCE)?;
        let encrypted_key = fields.content(tag::OCTET_STRING)?;
        fields.end()?;
        let named = name.tag == tag::SEQUENCE
            && CertificateName::read(Reader::new(name.content)).is_ok_and(|named| named == recipient);
        if named {
            return Ok((transport(algorithm)?, encrypted_key));
        }
    }
    Err(CmsError::Integrity)
}

/// RSA as in PKCS #1 v1.5, or OAEP with SHA-256 throughout and no label (RFC 8017 §A.2.1).
fn transport(mut identifier: Reader<'_>) -> Result<KeyTransport, CmsError> {
    match identifier.content(tag::OBJECT_IDENTIFIER)? {
        oid::RSA_ENCRYPTION => Ok(KeyTransport::Pkcs1),
        oid::RSAES_OAEP => {
            let mut parameters = identifier.enter(tag::SEQUENCE)?;
            let hash = parameters.optional(tag::CONTEXT_0)?.ok_or(CmsError::Algorithm)?;
            let mask = parameters.optional(tag::CONTEXT_1)?.ok_or(CmsError::Algorithm)?;
            parameters.end().map_err(|_| CmsError::Algorithm)?;
            let hash = DigestAlgorithm::read(Reader::whole(hash.content, tag::SEQUENCE)?)?;
            let mut mask = Reader::whole(mask.content, tag::SEQUENCE)?;
            if mask.content(tag::OBJECT_IDENTIFIER)? != oid::MGF1 {
                return Err(CmsError::Algorithm);
            }
            let mask_hash = DigestAlgorithm::read(mask.enter(tag::SEQUENCE)?)?;
            if (hash, mask_hash) == (Some(DigestAlgorithm::Sha256), Some(DigestAlgorithm::Sha256)) {
                Ok(KeyTransport::OaepSha256)
            } else {
                Err(CmsError::Algorithm)
            }
        }
        _ => Err(CmsError::Algorithm),
    }
}

/// The random bytes that enclose one content.
pub struct ContentKey {
    pub key: zeroize::Zeroizing<[u8; 32]>,
    pub iv: [u8; BLOCK_BYTES],
}

/// Encloses `content` for the RSA key `spki` (DER) of the certificate `recipient`; none if that is no RSA key of 2048 bits or
/// more.
pub fn enclose(
    content: &[u8],
    recipient: CertificateName<'_>,
    spki: &[u8],
    cipher: ContentCipher,
    random: &ContentKey,
) -> Option<Vec<u8>> {
    let key = &random.key[..cipher.key_bytes()];
    let encrypted = cipher.encrypt(key, random.iv, content)?;
    let public = Pkcs1PublicEncryptingKey::new(PublicEncryptingKey::from_der(spki).ok()?).ok()?;
    let mut room = vec![0; public.ciphertext_size()];
    let encrypted_key = public.encrypt(key, &mut room).ok()?;
    let recipient = der::sequence(&[
        &der::small_integer(0),
        &recipient.write(),
        &der::sequence(&[&der::oid(oid::RSA_ENCRYPTION), &der::null()]),
        &der::octets(encrypted_key),
    ]);
    let info = der::sequence(&[
        &der::oid(oid::DATA),
        &cipher.identifier(&random.iv),
        &der::wrap(tag::CONTEXT_0_PRIMITIVE, &[&encrypted]),
    ]);
    let enveloped = der::sequence(&[&der::small_integer(0), &der::set_of(vec![recipient]), &info]);
    Some(wrap_info(oid::ENVELOPED_DATA, &enveloped))
}

/// Signs `content` and `attributes` (each an Attribute in DER) with SHA-256 by `sign`, as the certificate `signer` (DER).
pub fn sign<E>(
    content: &[u8],
    mut attributes: Vec<Vec<u8>>,
    signer: &[u8],
    certificates: &[&[u8]],
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<Option<Vec<u8>>, E> {
    let Ok(name) = CertificateName::of(signer) else {
        return Ok(None);
    };
    let digest = DigestAlgorithm::Sha256.digest(content);
    attributes.push(attribute(oid::CONTENT_TYPE, &der::oid(oid::DATA)));
    attributes.push(attribute(oid::MESSAGE_DIGEST, &der::octets(digest.as_ref())));
    let signed = der::set_of(attributes);
    let signature = sign(&signed)?;
    let mut implicit = signed;
    implicit[0] = tag::CONTEXT_0;
    let sha256 = der::sequence(&[&der::oid(oid::SHA256)]);
    let signer = der::sequence(&[
        &der::small_integer(1),
        &name.write(),
        &sha256,
        &implicit,
        &der::sequence(&[&der::oid(oid::RSA_ENCRYPTION), &der::null()]),
        &der::octets(&signature),
    ]);
    let data = signed_data(&[sha256], Some(content), certificates, vec![signer]);
    Ok(Some(wrap_info(oid::SIGNED_DATA, &data)))
}

/// Certificates and nothing else (RFC 8894 §3.4, RFC 7030 §4.1.3).
pub fn certificates_only(certificates: &[&[u8]]) -> Vec<u8> {
    wrap_info(
        oid::SIGNED_DATA,
        &signed_data(&[], None, certificates, Vec::new()),
    )
}

/// An attribute with one value (DER).
pub fn attribute(name: &[u8], value: &[u8]) -> Vec<u8> {
    der::sequence(&[&der::oid(name), &der::wrap(tag::SET, &[value])])
}

fn signed_data(
    digests: &[Vec<u8>],
    content: Option<&[u8]>,
    certificates: &[&[u8]],
    signers: Vec<Vec<u8>>,
) -> Vec<u8> {
    let explicit = content.map(|content| der::wrap(tag::CONTEXT_0, &[&der::octets(content)]));
    let enclosed = der::sequence(&[&der::oid(oid::DATA), &explicit.unwrap_or_default()]);
    // In the order given, which BER allows: clients take the first certificate for the one that they asked for.
    let certificates = der::wrap(tag::CONTEXT_0, certificates);
    der::sequence(&[
        &der::small_integer(1),
        &der::set_of(digests.to_vec()),
        &enclosed,
        &certificates,
        &der::set_of(signers),
    ])
}

fn wrap_info(kind: &[u8], content: &[u8]) -> Vec<u8> {
    der::sequence(&[&der::oid(kind), &der::wrap(tag::CONTEXT_0, &[content])])
}
