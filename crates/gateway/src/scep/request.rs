//! PKCS#10 requests (RFC 2986) of foreign clients: what they ask for is read in full, so that whoever asks for more than a
//! device may have is refused and not quietly given less.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512,
    UnparsedPublicKey, VerificationAlgorithm,
};
use muster_control::certificates::CSR_BYTES_MAX;
use zeroize::Zeroizing;

use super::{
    algorithm::DigestAlgorithm,
    der::{self, DerError, Reader, tag},
    oid,
};

const BIT_STRING: u8 = 0x03;
const BOOLEAN: u8 = 0x01;
const UTF8_STRING: u8 = 0x0c;
const IA5_STRING: u8 = 0x16;
/// RFC 5280 §4.1.2.6 and §4.2.1, RFC 2985 §5.4.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];
const CHALLENGE_PASSWORD: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x07];
const EXTENSION_REQUEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];
/// Microsoft's older name for the same attribute.
const MICROSOFT_EXTENSIONS: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x02, 0x01, 0x0e];
const SECP384R1: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const ECDSA_WITH_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];

/// RSA keys that are accepted: smaller ones are weak, larger ones cost us more than the client.
const RSA_BITS_MIN: usize = 2048;
const RSA_BITS_MAX: usize = 4096;
const ATTRIBUTES_MAX: usize = 16;
const EXTENSIONS_MAX: usize = 16;
const CHALLENGE_BYTES_MAX: usize = 256;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("The request is not PKCS#10 in DER of at most 16 KiB.")]
    Malformed,
    #[error(
        "The request is signed with another algorithm than SHA-256 (SHA-384 for a P-384 key, SHA-512 for RSA)."
    )]
    Signature,
    #[error("The signature of the request does not verify.")]
    Proof,
    #[error("The key is not RSA of 2048 to 4096 bits, ECDSA P-256 or P-384.")]
    Key,
    #[error("The subject is not the one name that the challenge was issued for.")]
    Subject,
    #[error("The request asks for alternative names. The server sets them.")]
    AlternativeName,
    #[error("The request asks to be a certificate authority.")]
    Authority,
    #[error("The request asks for another use than client authentication.")]
    Usage,
    #[error("A renewal asks for the subject and the alternative names of the current certificate.")]
    Renewal,
    #[error("The request asks for a critical extension that is not known here.")]
    Extension,
}

impl From<DerError> for RequestError {
    fn from(_: DerError) -> RequestError {
        RequestError::Malformed
    }
}

/// The kinds of keys that get certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    Rsa,
    EcdsaP256,
    EcdsaP384,
}

/// A request whose signature proves possession of its key.
#[derive(Debug, Clone)]
pub struct Request {
    /// The key (SPKI, DER).
    pub spki: Vec<u8>,
    pub kind: KeyKind,
    /// The only part of the subject, if it is a common name.
    common_name: Option<String>,
    /// The alternative names that are asked for (GeneralNames, DER).
    pub alternative_names: Option<Vec<u8>>,
    pub challenge: Option<Zeroizing<String>>,
    /// The first thing that was asked for and that no device may have.
    refused: Option<RequestError>,
}

impl Request {
    /// Reads a request (DER) and checks that its own key signed it.
    pub fn read(der: &[u8]) -> Result<Request, RequestError> {
        if der.len() > CSR_BYTES_MAX {
            return Err(RequestError::Malformed);
        }
        let mut outer = Reader::whole(der, tag::SEQUENCE)?;
        let info = outer.element(tag::SEQUENCE)?;
        let algorithm = outer.enter(tag::SEQUENCE)?;
        let signature = bits(outer.content(BIT_STRING)?)?;
        outer.end()?;
        let mut fields = Reader::new(info.content);
        if fields.small_integer()? != 0 {
            return Err(RequestError::Malformed);
        }
        let subject = fields.content(tag::SEQUENCE)?;
        let spki = fields.element(tag::SEQUENCE)?.raw;
        let attributes = fields.optional(tag::CONTEXT_0)?;
        fields.end()?;
        let kind = key_kind(spki)?;
        if UnparsedPublicKey::new(signature_algorithm(kind, algorithm)?, spki)
            .verify(info.raw, signature)
            .is_err()
        {
            return Err(RequestError::Proof);
        }
        let mut request = Request {
            spki: spki.to_vec(),
            kind,
            common_name: common_name(subject)?,
            alternative_names: None,
            challenge: None,
            refused: None,
        };
        if let Some(attributes) = attributes {
            request.take_attributes(attributes.content)?;
        }
        Ok(request)
    }

    /// Whether this asks for what a new device may have: a subject of this one common name, and nothing beside.
    pub fn is_for(&self, common_name: &str) -> Result<(), RequestError> {
        self.is_modest()?;
        if self.alternative_names.is_some() {
            return Err(RequestError::AlternativeName);
        }
        let same = self
            .common_name
            .as_deref()
            .is_some_and(|asked| asked.eq_ignore_ascii_case(common_name));
        if same { Ok(()) } else { Err(RequestError::Subject) }
    }

    /// Whether this asks for what a device has already: one of its names, and no alternative name but its URI.
    pub fn is_again_for(&self, names: &[String], uri: &str) -> Result<(), RequestError> {
        const CONTEXT_6: u8 = 0x86;
        self.is_modest()?;
        let expected = der::sequence(&[&der::wrap(CONTEXT_6, &[uri.as_bytes()])]);
        let same_names = self
            .alternative_names
            .as_ref()
            .is_none_or(|asked| *asked == expected);
        if same_names && self.common_name.as_ref().is_some_and(|name| names.contains(name)) {
            Ok(())
        } else {
            Err(RequestError::Renewal)
        }
    }

    fn is_modest(&self) -> Result<(), RequestError> {
        self.refused.map_or(Ok(()), Err)
    }

    fn refuse(&mut self, why: RequestError) {
        self.refused.get_or_insert(why);
    }

    fn take_attributes(&mut self, bytes: &[u8]) -> Result<(), RequestError> {
        let mut reader = Reader::new(bytes);
        let mut extensions_seen = false;
        for _ in 0..ATTRIBUTES_MAX {
            if reader.is_empty() {
                break;
            }
            let mut attribute = reader.enter(tag::SEQUENCE)?;
            let name = attribute.content(tag::OBJECT_IDENTIFIER)?;
            let mut values = attribute.enter(tag::SET)?;
            attribute.end()?;
            match name {
                CHALLENGE_PASSWORD => {
                    let value = values.any()?;
                    values.end()?;
                    if self.challenge.is_some() || value.content.len() > CHALLENGE_BYTES_MAX {
                        return Err(RequestError::Malformed);
                    }
                    self.challenge = Some(Zeroizing::new(text(value.tag, value.content)?.to_owned()));
                }
                EXTENSION_REQUEST | MICROSOFT_EXTENSIONS => {
                    let extensions = values.enter(tag::SEQUENCE)?;
                    values.end()?;
                    if std::mem::replace(&mut extensions_seen, true) {
                        return Err(RequestError::Malformed);
                    }
                    self.take_extensions(extensions)?;
                }
                _ => {}
            }
        }
        Ok(reader.end()?)
    }

    fn take_extensions(&mut self, mut extensions: Reader<'_>) -> Result<(), RequestError> {
        let mut seen: Vec<&[u8]> = Vec::new();
        while !extensions.is_empty() {
            let mut extension = extensions.enter(tag::SEQUENCE)?;
            let name = extension.content(tag::OBJECT_IDENTIFIER)?;
            let critical = extension
                .optional(BOOLEAN)?
                .is_some_and(|flag| flag.content != [0]);
            let value = extension.content(tag::OCTET_STRING)?;
            extension.end()?;
            if seen.len() == EXTENSIONS_MAX || seen.contains(&name) {
                return Err(RequestError::Malformed);
            }
            seen.push(name);
            match name {
                ALTERNATIVE_NAME => self.alternative_names = Some(value.to_vec()),
                BASIC_CONSTRAINTS => self.take_constraints(value)?,
                EXTENDED_KEY_USAGE => self.take_extended_usage(value)?,
                KEY_USAGE => self.take_usage(value)?,
                _ if critical => self.refuse(RequestError::Extension),
                _ => {}
            }
        }
        Ok(())
    }

    fn take_constraints(&mut self, value: &[u8]) -> Result<(), RequestError> {
        let mut constraints = Reader::whole(value, tag::SEQUENCE)?;
        if constraints
            .optional(BOOLEAN)?
            .is_some_and(|flag| flag.content != [0])
        {
            self.refuse(RequestError::Authority);
        }
        Ok(())
    }

    fn take_extended_usage(&mut self, value: &[u8]) -> Result<(), RequestError> {
        let mut usages = Reader::whole(value, tag::SEQUENCE)?;
        while !usages.is_empty() {
            if usages.content(tag::OBJECT_IDENTIFIER)? != CLIENT_AUTH {
                self.refuse(RequestError::Usage);
            }
        }
        Ok(())
    }

    /// `keyCertSign` and `cRLSign` are bits 5 and 6 (RFC 5280 §4.2.1.3).
    fn take_usage(&mut self, value: &[u8]) -> Result<(), RequestError> {
        const SIGNS_FOR_OTHERS: u8 = 0b0000_0110;
        let mut reader = Reader::new(value);
        let bits = reader.content(BIT_STRING)?;
        reader.end()?;
        if bits.get(1).is_some_and(|first| first & SIGNS_FOR_OTHERS != 0) {
            self.refuse(RequestError::Authority);
        }
        Ok(())
    }
}

/// The key (SPKI, DER) of a certificate (DER) (RFC 5280 §4.1).
pub fn certificate_key(certificate: &[u8]) -> Result<&[u8], DerError> {
    let mut fields = Reader::whole(certificate, tag::SEQUENCE)?.enter(tag::SEQUENCE)?;
    fields.optional(tag::CONTEXT_0)?;
    fields.element(tag::INTEGER)?;
    // Signature algorithm, issuer, validity and subject.
    for _ in 0..4 {
        fields.element(tag::SEQUENCE)?;
    }
    Ok(fields.element(tag::SEQUENCE)?.raw)
}

/// Whether a certificate (DER) names itself as its issuer.
pub fn is_own_issuer(certificate: &[u8]) -> Result<bool, DerError> {
    let mut fields = Reader::whole(certificate, tag::SEQUENCE)?.enter(tag::SEQUENCE)?;
    fields.optional(tag::CONTEXT_0)?;
    fields.element(tag::INTEGER)?;
    fields.element(tag::SEQUENCE)?;
    let issuer = fields.element(tag::SEQUENCE)?.raw;
    fields.element(tag::SEQUENCE)?;
    Ok(fields.element(tag::SEQUENCE)?.raw == issuer)
}

/// Whether a certificate (DER) is signed by the RSA key `spki` (DER); none where its signature is not one that is accepted.
pub fn is_signed_by(certificate: &[u8], spki: &[u8]) -> Result<Option<bool>, DerError> {
    let mut outer = Reader::whole(certificate, tag::SEQUENCE)?;
    let signed = outer.element(tag::SEQUENCE)?.raw;
    let digest = DigestAlgorithm::of_signature(outer.enter(tag::SEQUENCE)?)?;
    let signature = bits(outer.content(BIT_STRING)?)?;
    outer.end()?;
    Ok(digest.map(|digest| digest.verifies(spki, signed, signature)))
}

/// What kind of key this is (SPKI, DER), if it is one that is accepted.
pub fn key_kind(spki: &[u8]) -> Result<KeyKind, RequestError> {
    let mut fields = Reader::whole(spki, tag::SEQUENCE)?;
    let mut algorithm = fields.enter(tag::SEQUENCE)?;
    let key = bits(fields.content(BIT_STRING)?)?;
    fields.end()?;
    match algorithm.content(tag::OBJECT_IDENTIFIER)? {
        oid::RSA_ENCRYPTION => {
            let mut numbers = Reader::whole(key, tag::SEQUENCE)?;
            let modulus = numbers.content(tag::INTEGER)?;
            numbers.content(tag::INTEGER)?;
            numbers.end()?;
            // A positive INTEGER with its highest bit set has a zero before it.
            let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
            let leading = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
            let size = modulus.len() * 8 - leading;
            if (RSA_BITS_MIN..=RSA_BITS_MAX).contains(&size) {
                Ok(KeyKind::Rsa)
            } else {
                Err(RequestError::Key)
            }
        }
        oid::EC_PUBLIC_KEY => match algorithm.content(tag::OBJECT_IDENTIFIER)? {
            oid::SECP256R1 => Ok(KeyKind::EcdsaP256),
            SECP384R1 => Ok(KeyKind::EcdsaP384),
            _ => Err(RequestError::Key),
        },
        _ => Err(RequestError::Key),
    }
}

fn signature_algorithm(
    kind: KeyKind,
    mut identifier: Reader<'_>,
) -> Result<&'static dyn VerificationAlgorithm, RequestError> {
    let name = identifier.content(tag::OBJECT_IDENTIFIER)?;
    match kind {
        KeyKind::Rsa if name == oid::SHA256_WITH_RSA => Ok(&RSA_PKCS1_2048_8192_SHA256),
        KeyKind::Rsa if name == oid::SHA512_WITH_RSA => Ok(&RSA_PKCS1_2048_8192_SHA512),
        KeyKind::EcdsaP256 if name == oid::ECDSA_WITH_SHA256 => Ok(&ECDSA_P256_SHA256_ASN1),
        KeyKind::EcdsaP384 if name == ECDSA_WITH_SHA384 => Ok(&ECDSA_P384_SHA384_ASN1),
        KeyKind::Rsa | KeyKind::EcdsaP256 | KeyKind::EcdsaP384 => Err(RequestError::Signature),
    }
}

/// The bytes of a BIT STRING that has no spare bits.
fn bits(content: &[u8]) -> Result<&[u8], DerError> {
    match content.split_first() {
        Some((0, bytes)) => Ok(bytes),
        Some(_) | None => Err(DerError),
    }
}

/// The common name, if it is all that the subject holds.
fn common_name(subject: &[u8]) -> Result<Option<String>, RequestError> {
    let mut parts = Reader::new(subject);
    if parts.is_empty() {
        return Ok(None);
    }
    let mut values = parts.enter(tag::SET)?;
    let mut value = values.enter(tag::SEQUENCE)?;
    let name = value.content(tag::OBJECT_IDENTIFIER)?;
    let found = value.any()?;
    value.end()?;
    let alone = parts.is_empty() && values.is_empty() && name == COMMON_NAME;
    Ok(if alone {
        text(found.tag, found.content).ok().map(str::to_owned)
    } else {
        None
    })
}

fn text(tag: u8, bytes: &[u8]) -> Result<&str, RequestError> {
    let text = std::str::from_utf8(bytes).map_err(|_| RequestError::Malformed)?;
    match tag {
        UTF8_STRING => Ok(text),
        tag::PRINTABLE_STRING | IA5_STRING if text.is_ascii() => Ok(text),
        _ => Err(RequestError::Malformed),
    }
}
