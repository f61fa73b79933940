//! Reads X.509 certificates (RFC 5280, section 4) as slices of the received bytes.
//!
//! What a manufacturer may get wrong without harm is let through: names are compared byte by byte and never sorted, and
//! the serial number may be anything. What decides is read strictly.

use muster_model::time::Timestamp;

use crate::der::{self, Malformed, Reader, Tag};
use crate::key::{Hash, PublicKey, Scheme};
use crate::reject::Reject;

/// Longest certificate that is read, in bytes.
pub const CERTIFICATE_BYTES_MAX: usize = 8 * 1024;
/// Most extensions that are read of one certificate.
const EXTENSIONS_MAX: usize = 64;
/// Most attributes that are read of one name.
const NAME_ATTRIBUTES_MAX: usize = 64;

const OID_SUBJECT_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 0x0e];
const OID_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const OID_SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const OID_BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const OID_NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x1e];
const OID_CERTIFICATE_POLICIES: &[u8] = &[0x55, 0x1d, 0x20];
const OID_AUTHORITY_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 0x23];
const OID_EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
/// 1.3.6.1.4.1.11129.2.1.17, which a maker may mark critical without loss: its reader is this crate.
pub(crate) const OID_ANDROID_KEY_DESCRIPTION: &[u8] =
    &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x01, 0x11];

/// Critical extensions that are understood. Certificate policies are, in that none is asked for: more than half of the
/// TPM manufacturers' authorities mark them critical.
const UNDERSTOOD: &[&[u8]] = &[
    OID_SUBJECT_KEY_IDENTIFIER,
    OID_KEY_USAGE,
    OID_SUBJECT_ALT_NAME,
    OID_BASIC_CONSTRAINTS,
    OID_CERTIFICATE_POLICIES,
    OID_AUTHORITY_KEY_IDENTIFIER,
    OID_EXTENDED_KEY_USAGE,
    OID_ANDROID_KEY_DESCRIPTION,
];

/// An attribute of a name: object identifier and text.
pub(crate) type Attribute<'a> = (&'a [u8], &'a [u8]);

/// An extension of a certificate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extension<'a> {
    pub oid: &'a [u8],
    pub value: &'a [u8],
    critical: bool,
}

/// What a certificate says about being an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BasicConstraints {
    pub authority: bool,
    pub path_length: Option<u64>,
}

/// How the signature of a certificate was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignatureAlgorithm {
    Accepted(Scheme),
    Sha1,
    Other,
}

/// A certificate whose structure has been read; nothing about it has been verified.
#[derive(Debug, Clone)]
pub(crate) struct Certificate<'a> {
    /// What is signed, as received.
    pub signed: &'a [u8],
    /// The octets of the serial number.
    pub serial: &'a [u8],
    pub issuer: &'a [u8],
    pub subject: &'a [u8],
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// The SubjectPublicKeyInfo as received.
    pub spki: &'a [u8],
    pub algorithm: SignatureAlgorithm,
    pub signature: &'a [u8],
    extensions: Vec<Extension<'a>>,
}

impl<'a> Certificate<'a> {
    /// Reads one certificate and refuses whatever it demands that is not understood.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Reject> {
        if bytes.len() > CERTIFICATE_BYTES_MAX {
            return Err(Reject::CertificateTooLarge);
        }
        let mut outer = Reader::new(bytes);
        let body = outer
            .nested(Tag::SEQUENCE)
            .map_err(|Malformed| Reject::CertificateMalformed)?;
        outer.end().map_err(|Malformed| Reject::CertificateTrailing)?;
        let certificate = read(body).map_err(|Malformed| Reject::CertificateMalformed)?;
        certificate.check_extensions()?;
        Ok(certificate)
    }

    /// The certified key.
    pub fn key(&self) -> Result<PublicKey, Reject> {
        PublicKey::from_spki(self.spki)
    }

    /// Whether the certificate is signed by a key.
    pub fn verify(&self, issuer: &PublicKey) -> Result<(), Reject> {
        match self.algorithm {
            SignatureAlgorithm::Sha1 => Err(Reject::CertificateSha1),
            SignatureAlgorithm::Other => Err(Reject::CertificateSignatureAlgorithm),
            SignatureAlgorithm::Accepted(scheme) => issuer
                .verifies(scheme, self.signed, self.signature)
                .then_some(())
                .ok_or(Reject::ChainSignature),
        }
    }

    /// The contents of an extension.
    pub fn extension(&self, oid: &[u8]) -> Option<&'a [u8]> {
        self.extensions
            .iter()
            .find(|extension| extension.oid == oid)
            .map(|extension| extension.value)
    }

    /// RFC 5280, section 4.2.1.9. Absent means no authority.
    pub fn basic_constraints(&self) -> Result<BasicConstraints, Reject> {
        let Some(value) = self.extension(OID_BASIC_CONSTRAINTS) else {
            return Ok(BasicConstraints {
                authority: false,
                path_length: None,
            });
        };
        read_basic_constraints(value).map_err(|Malformed| Reject::CertificateMalformed)
    }

    /// RFC 5280, section 4.2.1.3: the bits, the first named bit highest; `None` if the certificate does not say.
    pub fn key_usage(&self) -> Result<Option<u8>, Reject> {
        let Some(value) = self.extension(OID_KEY_USAGE) else {
            return Ok(None);
        };
        let first = || {
            let mut reader = Reader::new(value);
            let bits = reader.expect(Tag::BIT_STRING)?;
            reader.end()?;
            match bits {
                [unused, first, ..] if *unused < 8 => Ok(*first),
                _ => Err(Malformed),
            }
        };
        first()
            .map(Some)
            .map_err(|Malformed| Reject::CertificateMalformed)
    }

    /// Whether the extended key usage lists a purpose (RFC 5280, section 4.2.1.12).
    pub fn has_purpose(&self, oid: &[u8]) -> Result<bool, Reject> {
        let Some(value) = self.extension(OID_EXTENDED_KEY_USAGE) else {
            return Ok(false);
        };
        let listed = || {
            let mut reader = Reader::new(value);
            let mut purposes = reader.nested(Tag::SEQUENCE)?;
            reader.end()?;
            let mut found = false;
            while !purposes.is_empty() {
                found |= purposes.expect(Tag::OBJECT_IDENTIFIER)? == oid;
            }
            Ok(found)
        };
        listed().map_err(|Malformed| Reject::CertificateMalformed)
    }

    /// The names of the subject alternative name extension, in order; empty if there is none.
    pub fn alternative_names(&self) -> Result<Vec<der::Element<'a>>, Malformed> {
        let Some(value) = self.extension(OID_SUBJECT_ALT_NAME) else {
            return Ok(Vec::new());
        };
        let mut reader = Reader::new(value);
        let mut names = reader.nested(Tag::SEQUENCE)?;
        reader.end()?;
        let mut elements = Vec::new();
        while !names.is_empty() {
            if elements.len() == NAME_ATTRIBUTES_MAX {
                return Err(Malformed);
            }
            elements.push(names.element()?);
        }
        Ok(elements)
    }

    fn check_extensions(&self) -> Result<(), Reject> {
        for (index, extension) in self.extensions.iter().enumerate() {
            if self.extensions[..index]
                .iter()
                .any(|other| other.oid == extension.oid)
            {
                return Err(Reject::CertificateDuplicateExtension);
            }
            if extension.oid == OID_NAME_CONSTRAINTS {
                return Err(Reject::CertificateNameConstraints);
            }
            if extension.critical && !UNDERSTOOD.contains(&extension.oid) {
                return Err(Reject::CertificateUnknownCritical);
            }
        }
        Ok(())
    }
}

fn read<'a>(mut body: Reader<'a>) -> Result<Certificate<'a>, Malformed> {
    let signed = body.expect_element(Tag::SEQUENCE)?;
    let outer_algorithm = body.expect_element(Tag::SEQUENCE)?;
    let signature = der::octets_of_bits(body.expect(Tag::BIT_STRING)?)?;
    body.end()?;

    let mut fields = Reader::new(signed.value);
    let mut version = fields.nested(Tag::explicit(0))?;
    // Version 3: only it has extensions, without which there is no authority.
    if der::small(version.expect(Tag::INTEGER)?)? != 2 {
        return Err(Malformed);
    }
    version.end()?;
    let serial = fields.expect(Tag::INTEGER)?;
    let inner_algorithm = fields.expect_element(Tag::SEQUENCE)?;
    if inner_algorithm.raw != outer_algorithm.raw {
        return Err(Malformed);
    }
    let issuer = fields.expect_element(Tag::SEQUENCE)?.raw;
    let mut validity = fields.nested(Tag::SEQUENCE)?;
    let not_before = read_time(&mut validity)?;
    let not_after = read_time(&mut validity)?;
    validity.end()?;
    let subject = fields.expect_element(Tag::SEQUENCE)?.raw;
    let spki = fields.expect_element(Tag::SEQUENCE)?.raw;
    fields.optional(Tag::implicit(1))?;
    fields.optional(Tag::implicit(2))?;
    let extensions = match fields.optional(Tag::explicit(3))? {
        Some(wrapped) => read_extensions(wrapped)?,
        None => Vec::new(),
    };
    fields.end()?;
    Ok(Certificate {
        signed: signed.raw,
        serial,
        issuer,
        subject,
        not_before,
        not_after,
        spki,
        algorithm: read_algorithm(outer_algorithm.value)?,
        signature,
        extensions,
    })
}

fn read_extensions(wrapped: &[u8]) -> Result<Vec<Extension<'_>>, Malformed> {
    let mut wrapped = Reader::new(wrapped);
    let mut list = wrapped.nested(Tag::SEQUENCE)?;
    wrapped.end()?;
    let mut extensions = Vec::new();
    while !list.is_empty() {
        if extensions.len() == EXTENSIONS_MAX {
            return Err(Malformed);
        }
        let mut fields = list.nested(Tag::SEQUENCE)?;
        let oid = fields.expect(Tag::OBJECT_IDENTIFIER)?;
        let critical = match fields.optional(Tag::BOOLEAN)? {
            Some(value) => der::boolean(value)?,
            None => false,
        };
        let value = fields.expect(Tag::OCTET_STRING)?;
        fields.end()?;
        extensions.push(Extension { oid, value, critical });
    }
    Ok(extensions)
}

fn read_basic_constraints(value: &[u8]) -> Result<BasicConstraints, Malformed> {
    let mut reader = Reader::new(value);
    let mut fields = reader.nested(Tag::SEQUENCE)?;
    reader.end()?;
    let authority = match fields.optional(Tag::BOOLEAN)? {
        Some(value) => der::boolean(value)?,
        None => false,
    };
    let path_length = match fields.optional(Tag::INTEGER)? {
        Some(value) => Some(der::small(value)?),
        None => None,
    };
    fields.end()?;
    Ok(BasicConstraints {
        authority,
        path_length,
    })
}

/// RFC 5280, section 4.1.2.5: UTCTime until 2049, GeneralizedTime from 2050 on; both in UTC with seconds.
fn read_time(reader: &mut Reader<'_>) -> Result<Timestamp, Malformed> {
    let element = reader.element()?;
    let text = std::str::from_utf8(element.value).map_err(|_| Malformed)?;
    let (century, rest) = if element.tag == Tag::UTC_TIME && text.len() == 13 {
        let year: u8 = text
            .get(..2)
            .and_then(|year| year.parse().ok())
            .ok_or(Malformed)?;
        (if year >= 50 { "19" } else { "20" }, text)
    } else if element.tag == Tag::GENERALIZED_TIME && text.len() == 15 {
        (text.get(..2).ok_or(Malformed)?, text.get(2..).ok_or(Malformed)?)
    } else {
        return Err(Malformed);
    };
    let part = |from: usize| rest.get(from..from + 2).ok_or(Malformed);
    let (year, month, day) = (part(0)?, part(2)?, part(4)?);
    let (hour, minute, second) = (part(6)?, part(8)?, part(10)?);
    let zone = rest.get(12..).ok_or(Malformed)?;
    format!("{century}{year}-{month}-{day}T{hour}:{minute}:{second}{zone}")
        .parse()
        .map_err(|_| Malformed)
}

fn read_algorithm(value: &[u8]) -> Result<SignatureAlgorithm, Malformed> {
    const ECDSA_SHA2: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
    const ECDSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
    const PKCS1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    let mut fields = Reader::new(value);
    let oid = fields.expect(Tag::OBJECT_IDENTIFIER)?;
    let parameters = if fields.is_empty() {
        None
    } else {
        Some(fields.element()?)
    };
    fields.end()?;
    if oid == ECDSA_SHA1 {
        return Ok(SignatureAlgorithm::Sha1);
    }
    let (family, Some(last)) = (&oid[..oid.len().saturating_sub(1)], oid.last()) else {
        return Err(Malformed);
    };
    let scheme = match (family, last) {
        (ECDSA_SHA2, 2) => Scheme::Ecdsa(Hash::Sha256),
        (ECDSA_SHA2, 3) => Scheme::Ecdsa(Hash::Sha384),
        (ECDSA_SHA2, 4) => Scheme::Ecdsa(Hash::Sha512),
        (PKCS1, 5) => return Ok(SignatureAlgorithm::Sha1),
        (PKCS1, 11) => Scheme::Pkcs1(Hash::Sha256),
        (PKCS1, 12) => Scheme::Pkcs1(Hash::Sha384),
        (PKCS1, 13) => Scheme::Pkcs1(Hash::Sha512),
        (PKCS1, 10) => match parameters {
            Some(parameters) if parameters.tag == Tag::SEQUENCE => {
                return read_pss(parameters.value);
            }
            _ => return Ok(SignatureAlgorithm::Other),
        },
        _ => return Ok(SignatureAlgorithm::Other),
    };
    Ok(SignatureAlgorithm::Accepted(scheme))
}

/// RFC 4055, section 3.1: the same hash for message and mask, a salt as long as the hash.
fn read_pss(value: &[u8]) -> Result<SignatureAlgorithm, Malformed> {
    const MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08];
    let mut fields = Reader::new(value);
    let Some(hash) = fields.optional(Tag::explicit(0))? else {
        return Ok(SignatureAlgorithm::Sha1);
    };
    let hash = read_hash(&mut Reader::new(hash))?;
    let Some(mask) = fields.optional(Tag::explicit(1))? else {
        return Ok(SignatureAlgorithm::Sha1);
    };
    let mut mask = Reader::new(mask).nested(Tag::SEQUENCE)?;
    let generator = mask.expect(Tag::OBJECT_IDENTIFIER)?;
    let mask_hash = read_hash(&mut mask)?;
    let salt = match fields.optional(Tag::explicit(2))? {
        Some(salt) => der::small(Reader::new(salt).expect(Tag::INTEGER)?)?,
        None => 20,
    };
    let expected = match hash {
        Some(Hash::Sha256) => 32,
        Some(Hash::Sha384) => 48,
        Some(Hash::Sha512) => 64,
        None => return Ok(SignatureAlgorithm::Other),
    };
    let accepted = generator == MGF1 && mask_hash == hash && salt == expected && fields.is_empty();
    Ok(match hash {
        Some(hash) if accepted => SignatureAlgorithm::Accepted(Scheme::Pss(hash)),
        _ => SignatureAlgorithm::Other,
    })
}

fn read_hash(reader: &mut Reader<'_>) -> Result<Option<Hash>, Malformed> {
    const SHA2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
    let mut fields = reader.nested(Tag::SEQUENCE)?;
    let oid = fields.expect(Tag::OBJECT_IDENTIFIER)?;
    Ok(match oid.split_last() {
        Some((1, SHA2)) => Some(Hash::Sha256),
        Some((2, SHA2)) => Some(Hash::Sha384),
        Some((3, SHA2)) => Some(Hash::Sha512),
        _ => None,
    })
}

/// The attributes of a name; `name` is the whole RDNSequence.
pub(crate) fn attributes(name: &[u8]) -> Result<Vec<Attribute<'_>>, Malformed> {
    let mut reader = Reader::new(name);
    let mut relative = reader.nested(Tag::SEQUENCE)?;
    reader.end()?;
    let mut attributes = Vec::new();
    while !relative.is_empty() {
        let mut set = relative.nested(Tag::SET)?;
        while !set.is_empty() {
            if attributes.len() == NAME_ATTRIBUTES_MAX {
                return Err(Malformed);
            }
            let mut attribute = set.nested(Tag::SEQUENCE)?;
            let oid = attribute.expect(Tag::OBJECT_IDENTIFIER)?;
            let value = attribute.element()?;
            attribute.end()?;
            attributes.push((oid, value.value));
        }
    }
    Ok(attributes)
}

/// A name for people, such as `CN=STM TPM EK Root CA, O=STMicroelectronics NV`; control characters are escaped.
pub(crate) fn display_name(name: &[u8]) -> String {
    let Ok(attributes) = attributes(name) else {
        return String::new();
    };
    let label = |oid: &[u8]| match oid {
        [0x55, 0x04, 3] => Some("CN"),
        [0x55, 0x04, 5] => Some("serialNumber"),
        [0x55, 0x04, 6] => Some("C"),
        [0x55, 0x04, 7] => Some("L"),
        [0x55, 0x04, 8] => Some("ST"),
        [0x55, 0x04, 10] => Some("O"),
        [0x55, 0x04, 11] => Some("OU"),
        _ => None,
    };
    let parts: Vec<String> = attributes
        .iter()
        .filter_map(|(oid, value)| {
            let text: String = String::from_utf8_lossy(value)
                .chars()
                .flat_map(|char| {
                    let escaped = char.is_control().then(|| char.escape_unicode());
                    let plain = escaped.is_none().then_some(char);
                    escaped.into_iter().flatten().chain(plain)
                })
                .collect();
            label(oid).map(|label| format!("{label}={text}"))
        })
        .collect();
    parts.join(", ")
}
