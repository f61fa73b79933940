//! Public areas (TPMT_PUBLIC; TPM 2.0 Library, part 2, 12.2) and what the keys of an enrollment must be allowed to do.

use crate::key::{Curve, Hash, PublicKey, Scheme};
use crate::reject::Reject;
use crate::tpm::wire::{self, Malformed, Reader};

const FIXED_TPM: u32 = 1 << 1;
const FIXED_PARENT: u32 = 1 << 4;
const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
const RESTRICTED: u32 = 1 << 16;
const DECRYPT: u32 = 1 << 17;
const SIGN: u32 = 1 << 18;
/// Bits that TPM 2.0 Library 1.59 defines in TPMA_OBJECT; the others are reserved and zero.
const DEFINED: u32 = 0b1111 << 16 | 0b1111 << 8 | 0b1111_0110;

/// A key that signs what its TPM itself made and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestationKey {
    /// The canonical SubjectPublicKeyInfo.
    pub spki_der: Vec<u8>,
    /// Hash algorithm and hash of the public area: what a credential is bound to.
    pub name: Vec<u8>,
    pub(crate) key: PublicKey,
    pub(crate) scheme: Scheme,
}

/// The key of the device's certificate: made in its TPM and never outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceKey {
    /// The canonical SubjectPublicKeyInfo: the caller compares it with that of the certificate request.
    pub spki_der: Vec<u8>,
    /// Hash algorithm and hash of the public area: what [`super::verify_certify`] looks for.
    pub name: Vec<u8>,
}

struct Public {
    attributes: u32,
    scheme: PublicScheme,
    key: PublicKey,
    name: Vec<u8>,
}

enum PublicScheme {
    /// The scheme is chosen at each signature.
    Null,
    Fixed(Scheme),
    Refused,
}

/// Reads the public area (TPMT_PUBLIC, not TPM2B_PUBLIC) of an attestation key: fixed to its TPM, made there,
/// restricted, a signing key alone, with a fixed scheme that does not hash with SHA-1.
pub fn read_attestation_key(tpmt_public: &[u8]) -> Result<AttestationKey, Reject> {
    let public = read(tpmt_public)?;
    let has = |bits: u32| public.attributes & bits == bits;
    if !has(FIXED_TPM | FIXED_PARENT) {
        return Err(Reject::AttestationKeyNotFixed);
    }
    if !has(SENSITIVE_DATA_ORIGIN) {
        return Err(Reject::AttestationKeyImported);
    }
    if !has(RESTRICTED) {
        return Err(Reject::AttestationKeyUnrestricted);
    }
    if !has(SIGN) || has(DECRYPT) {
        return Err(Reject::AttestationKeyUsage);
    }
    let PublicScheme::Fixed(scheme) = public.scheme else {
        return Err(Reject::AttestationKeyScheme);
    };
    Ok(AttestationKey {
        spki_der: public.key.to_spki(),
        name: public.name,
        key: public.key,
        scheme,
    })
}

/// Reads the public area (TPMT_PUBLIC, not TPM2B_PUBLIC) of a device key: fixed to its TPM, made there, signing, not
/// restricted.
pub fn read_device_key(tpmt_public: &[u8]) -> Result<DeviceKey, Reject> {
    let public = read(tpmt_public)?;
    let has = |bits: u32| public.attributes & bits == bits;
    if !has(FIXED_TPM | FIXED_PARENT) {
        return Err(Reject::DeviceKeyNotFixed);
    }
    if !has(SENSITIVE_DATA_ORIGIN) {
        return Err(Reject::DeviceKeyImported);
    }
    if has(RESTRICTED) {
        return Err(Reject::DeviceKeyRestricted);
    }
    if !has(SIGN) {
        return Err(Reject::DeviceKeyUsage);
    }
    if matches!(public.scheme, PublicScheme::Refused) {
        return Err(Reject::DeviceKeyScheme);
    }
    Ok(DeviceKey {
        spki_der: public.key.to_spki(),
        name: public.name,
    })
}

fn read(tpmt_public: &[u8]) -> Result<Public, Reject> {
    let mut reader = Reader::new(tpmt_public);
    let public = read_fields(&mut reader, tpmt_public).map_err(|failed| match failed {
        Failed::Malformed => Reject::PublicMalformed,
        Failed::Rejected(reject) => reject,
    })?;
    reader.end().map_err(|Malformed| Reject::PublicTrailing)?;
    Ok(public)
}

enum Failed {
    Malformed,
    Rejected(Reject),
}

impl From<Malformed> for Failed {
    fn from(Malformed: Malformed) -> Self {
        Self::Malformed
    }
}

impl From<Reject> for Failed {
    fn from(reject: Reject) -> Self {
        Self::Rejected(reject)
    }
}

fn read_fields(reader: &mut Reader<'_>, whole: &[u8]) -> Result<Public, Failed> {
    let kind = reader.u16()?;
    let name_algorithm = reader.u16()?;
    let name_hash = wire::hash_of(name_algorithm).ok_or(Reject::PublicAlgorithm)?;
    let attributes = reader.u32()?;
    if attributes & !DEFINED != 0 {
        return Err(Failed::Malformed);
    }
    let policy = reader.sized()?;
    if !policy.is_empty() && policy.len() != name_hash.of(&[]).len() {
        return Err(Failed::Malformed);
    }
    // Only a key that wraps others has a symmetric algorithm.
    if reader.u16()? != wire::ALG_NULL {
        return Err(Reject::PublicAlgorithm.into());
    }
    let (scheme, key) = match kind {
        wire::ALG_RSA => read_rsa(reader)?,
        wire::ALG_ECC => read_ecc(reader)?,
        _ => return Err(Reject::PublicAlgorithm.into()),
    };
    let mut name = name_algorithm.to_be_bytes().to_vec();
    name.extend(name_hash.of(whole));
    Ok(Public {
        attributes,
        scheme,
        key,
        name,
    })
}

fn read_rsa(reader: &mut Reader<'_>) -> Result<(PublicScheme, PublicKey), Failed> {
    let scheme = match reader.u16()? {
        wire::ALG_NULL => PublicScheme::Null,
        wire::ALG_RSASSA => read_scheme(reader, Scheme::Pkcs1)?,
        wire::ALG_RSAPSS => read_scheme(reader, Scheme::Pss)?,
        _ => return Err(Reject::PublicAlgorithm.into()),
    };
    let bits = reader.u16()?;
    let exponent = match reader.u32()? {
        // Zero means the default, 2^16 + 1.
        0 => 65_537,
        exponent => exponent,
    };
    let modulus = reader.sized()?;
    let octets = exponent.to_be_bytes();
    let start = octets.iter().position(|byte| *byte != 0).unwrap_or(0);
    let key = PublicKey::from_rsa(modulus, &octets[start..])?;
    if usize::from(bits) != modulus.len() * 8 {
        return Err(Failed::Malformed);
    }
    Ok((scheme, key))
}

fn read_ecc(reader: &mut Reader<'_>) -> Result<(PublicScheme, PublicKey), Failed> {
    let scheme = match reader.u16()? {
        wire::ALG_NULL => PublicScheme::Null,
        wire::ALG_ECDSA => read_scheme(reader, Scheme::Ecdsa)?,
        _ => return Err(Reject::PublicAlgorithm.into()),
    };
    let curve = match reader.u16()? {
        wire::CURVE_P256 => Curve::P256,
        wire::CURVE_P384 => Curve::P384,
        _ => return Err(Reject::KeyAlgorithm.into()),
    };
    if reader.u16()? != wire::ALG_NULL {
        return Err(Reject::PublicAlgorithm.into());
    }
    let mut point = vec![4];
    for _coordinate in 0..2 {
        point.extend(pad(reader.sized()?, curve.octets())?);
    }
    Ok((scheme, PublicKey::from_point(curve, &point)?))
}

fn read_scheme(reader: &mut Reader<'_>, scheme: fn(Hash) -> Scheme) -> Result<PublicScheme, Malformed> {
    Ok(match wire::hash_of(reader.u16()?) {
        Some(hash) => PublicScheme::Fixed(scheme(hash)),
        None => PublicScheme::Refused,
    })
}

/// A number in as many octets: a TPM may leave leading zeros away.
fn pad(number: &[u8], octets: usize) -> Result<Vec<u8>, Malformed> {
    let missing = octets.checked_sub(number.len()).ok_or(Malformed)?;
    let mut padded = vec![0; missing];
    padded.extend_from_slice(number);
    Ok(padded)
}
