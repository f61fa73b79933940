//! Public keys and the signatures by them: RSA of 2048 to 8192 bits with e ≥ 65537, and the curves P-256 and P-384.

use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P256_SHA512_ASN1, ECDSA_P384_SHA256_ASN1,
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA512_ASN1, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};

use crate::der::{self, Malformed, Reader, Tag};
use crate::reject::Reject;

pub(crate) const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// id-RSAES-OAEP: some makers name the key of an endorsement certificate by what it is used for.
const OID_RSA_OAEP: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07];
pub(crate) const OID_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
pub(crate) const OID_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
pub(crate) const OID_P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];

const RSA_BITS_MIN: usize = 2048;
const RSA_BITS_MAX: usize = 8192;
const RSA_EXPONENT_MIN: u64 = 65_537;
/// First octet of a point that is not compressed (SEC 1, section 2.3.3).
const UNCOMPRESSED: u8 = 4;

/// A curve of NIST SP 800-186.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Curve {
    P256,
    P384,
}

impl Curve {
    /// Octets of a coordinate.
    pub const fn octets(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }

    pub fn oid(self) -> &'static [u8] {
        match self {
            Self::P256 => OID_P256,
            Self::P384 => OID_P384,
        }
    }
}

/// A hash of FIPS 180-4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    pub fn algorithm(self) -> &'static aws_lc_rs::digest::Algorithm {
        match self {
            Self::Sha256 => &aws_lc_rs::digest::SHA256,
            Self::Sha384 => &aws_lc_rs::digest::SHA384,
            Self::Sha512 => &aws_lc_rs::digest::SHA512,
        }
    }

    pub fn of(self, bytes: &[u8]) -> Vec<u8> {
        aws_lc_rs::digest::digest(self.algorithm(), bytes)
            .as_ref()
            .to_vec()
    }
}

/// How something was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    Ecdsa(Hash),
    /// RSASSA-PKCS1-v1_5.
    Pkcs1(Hash),
    /// RSASSA-PSS with a salt as long as the hash.
    Pss(Hash),
}

/// A public key that is acceptable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum PublicKey {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// The uncompressed point, with its leading octet.
    Ec {
        curve: Curve,
        point: Vec<u8>,
    },
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7).
    pub fn from_spki(spki: &[u8]) -> Result<Self, Reject> {
        let Spki {
            algorithm,
            parameters,
            key,
        } = split_spki(spki).map_err(|Malformed| Reject::KeyMalformed)?;
        if algorithm == OID_RSA || algorithm == OID_RSA_OAEP {
            return read_rsa(key);
        }
        if algorithm != OID_EC {
            return Err(Reject::KeyAlgorithm);
        }
        let mut parameters = Reader::new(parameters);
        let curve = parameters
            .expect(Tag::OBJECT_IDENTIFIER)
            .map_err(|Malformed| Reject::KeyAlgorithm)?;
        parameters.end().map_err(|Malformed| Reject::KeyMalformed)?;
        if curve == OID_P256 {
            Self::from_point(Curve::P256, key)
        } else if curve == OID_P384 {
            Self::from_point(Curve::P384, key)
        } else {
            Err(Reject::KeyAlgorithm)
        }
    }

    /// A point in the uncompressed form. That it lies on the curve is checked by whoever computes with it.
    pub fn from_point(curve: Curve, point: &[u8]) -> Result<Self, Reject> {
        let shaped = point.len() == 1 + 2 * curve.octets() && point[0] == UNCOMPRESSED;
        let point = shaped.then(|| point.to_vec()).ok_or(Reject::KeyMalformed)?;
        Ok(Self::Ec { curve, point })
    }

    /// An RSA key of its numbers, big-endian, without leading zeros.
    pub fn from_rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, Reject> {
        let (Some(first), Some(_)) = (modulus.first(), exponent.first()) else {
            return Err(Reject::KeyMalformed);
        };
        let bits = (modulus.len() * 8).saturating_sub(first.leading_zeros() as usize);
        if bits < RSA_BITS_MIN {
            return Err(Reject::KeyTooSmall);
        }
        if bits > RSA_BITS_MAX {
            return Err(Reject::KeyTooLarge);
        }
        let value = exponent.iter().fold(0_u64, |sum, byte| {
            sum.saturating_mul(256).saturating_add(u64::from(*byte))
        });
        if exponent.len() > 4 || value < RSA_EXPONENT_MIN || value % 2 == 0 {
            return Err(Reject::KeyExponent);
        }
        if modulus.last().is_none_or(|byte| byte % 2 == 0) || *first == 0 {
            return Err(Reject::KeyMalformed);
        }
        Ok(Self::Rsa {
            modulus: modulus.to_vec(),
            exponent: exponent.to_vec(),
        })
    }

    /// The one encoding as SubjectPublicKeyInfo by which a key is named.
    pub fn to_spki(&self) -> Vec<u8> {
        match self {
            Self::Rsa { modulus, exponent } => {
                let key = sequence(&[positive(modulus), positive(exponent)].concat());
                let algorithm = sequence(&[tlv(0x06, OID_RSA), tlv(0x05, &[])].concat());
                sequence(&[algorithm, bits(&key)].concat())
            }
            Self::Ec { curve, point } => {
                let algorithm = sequence(&[tlv(0x06, OID_EC), tlv(0x06, curve.oid())].concat());
                sequence(&[algorithm, bits(point)].concat())
            }
        }
    }

    /// Whether `signature` over `message` is by this key. An ECDSA signature is in the form of RFC 3279.
    pub fn verifies(&self, scheme: Scheme, message: &[u8], signature: &[u8]) -> bool {
        match (self, scheme) {
            (Self::Ec { curve, point }, Scheme::Ecdsa(hash)) => {
                let algorithm: &'static signature::EcdsaVerificationAlgorithm = match (curve, hash) {
                    (Curve::P256, Hash::Sha256) => &ECDSA_P256_SHA256_ASN1,
                    (Curve::P256, Hash::Sha384) => &ECDSA_P256_SHA384_ASN1,
                    (Curve::P256, Hash::Sha512) => &ECDSA_P256_SHA512_ASN1,
                    (Curve::P384, Hash::Sha256) => &ECDSA_P384_SHA256_ASN1,
                    (Curve::P384, Hash::Sha384) => &ECDSA_P384_SHA384_ASN1,
                    (Curve::P384, Hash::Sha512) => &ECDSA_P384_SHA512_ASN1,
                };
                UnparsedPublicKey::new(algorithm, point)
                    .verify(message, signature)
                    .is_ok()
            }
            (Self::Rsa { modulus, exponent }, Scheme::Pkcs1(hash)) => {
                let parameters = match hash {
                    Hash::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
                    Hash::Sha384 => &RSA_PKCS1_2048_8192_SHA384,
                    Hash::Sha512 => &RSA_PKCS1_2048_8192_SHA512,
                };
                rsa_verifies(modulus, exponent, parameters, message, signature)
            }
            (Self::Rsa { modulus, exponent }, Scheme::Pss(hash)) => {
                let parameters = match hash {
                    Hash::Sha256 => &RSA_PSS_2048_8192_SHA256,
                    Hash::Sha384 => &RSA_PSS_2048_8192_SHA384,
                    Hash::Sha512 => &RSA_PSS_2048_8192_SHA512,
                };
                rsa_verifies(modulus, exponent, parameters, message, signature)
            }
            (Self::Ec { .. }, Scheme::Pkcs1(_) | Scheme::Pss(_)) | (Self::Rsa { .. }, Scheme::Ecdsa(_)) => {
                false
            }
        }
    }
}

fn rsa_verifies(
    modulus: &[u8],
    exponent: &[u8],
    parameters: &'static RsaParameters,
    message: &[u8],
    signature: &[u8],
) -> bool {
    let key = RsaPublicKeyComponents {
        n: modulus,
        e: exponent,
    };
    key.verify(parameters, message, signature).is_ok()
}

struct Spki<'a> {
    algorithm: &'a [u8],
    /// As received, with tag and length; empty if there are none.
    parameters: &'a [u8],
    key: &'a [u8],
}

fn split_spki(spki: &[u8]) -> Result<Spki<'_>, Malformed> {
    let mut outer = Reader::new(spki);
    let mut fields = outer.nested(Tag::SEQUENCE)?;
    outer.end()?;
    let mut algorithm = fields.nested(Tag::SEQUENCE)?;
    let oid = algorithm.expect(Tag::OBJECT_IDENTIFIER)?;
    let parameters = if algorithm.is_empty() {
        &[][..]
    } else {
        algorithm.element()?.raw
    };
    algorithm.end()?;
    let key = der::octets_of_bits(fields.expect(Tag::BIT_STRING)?)?;
    fields.end()?;
    Ok(Spki {
        algorithm: oid,
        parameters,
        key,
    })
}

fn read_rsa(key: &[u8]) -> Result<PublicKey, Reject> {
    let numbers = || {
        let mut outer = Reader::new(key);
        let mut fields = outer.nested(Tag::SEQUENCE)?;
        outer.end()?;
        let modulus = der::magnitude(fields.expect(Tag::INTEGER)?)?;
        let exponent = der::magnitude(fields.expect(Tag::INTEGER)?)?;
        fields.end()?;
        Ok((modulus, exponent))
    };
    let (modulus, exponent) = numbers().map_err(|Malformed| Reject::KeyMalformed)?;
    PublicKey::from_rsa(modulus, exponent)
}

/// Writes one element whose tag fits an octet.
pub fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = value.len();
    match length {
        0..0x80 => out.push(length as u8),
        0x80..0x100 => out.extend([0x81, length as u8]),
        0x100..0x1_0000 => out.extend([0x82, (length >> 8) as u8, length as u8]),
        _ => out.extend([0x83, (length >> 16) as u8, (length >> 8) as u8, length as u8]),
    }
    out.extend_from_slice(value);
    out
}

pub fn sequence(value: &[u8]) -> Vec<u8> {
    tlv(0x30, value)
}

/// A BIT STRING of whole octets.
pub fn bits(octets: &[u8]) -> Vec<u8> {
    let mut value = vec![0];
    value.extend_from_slice(octets);
    tlv(0x03, &value)
}

/// A positive INTEGER of big-endian octets.
pub fn positive(octets: &[u8]) -> Vec<u8> {
    let start = octets.iter().position(|byte| *byte != 0);
    let octets = start.map_or(&[0][..], |start| &octets[start..]);
    let mut value = Vec::with_capacity(octets.len() + 1);
    if octets.first().is_some_and(|first| *first >= 0x80) {
        value.push(0);
    }
    value.extend_from_slice(octets);
    tlv(0x02, &value)
}
