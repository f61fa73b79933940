//! The structures of TPM 2.0 (Library specification, part 2): big-endian numbers and buffers with a length before them.
//!
//! A TPM may be broken or hostile, so nothing in here trusts a length.

use muster_trust::key::PublicKey;

use super::ids::{alg, curve, object};

/// Longest command or answer, in bytes. TPMs have buffers of at most this size.
pub const MESSAGE_BYTES_MAX: usize = 4096;
/// Size of the head of an answer: tag, size, response code.
pub const HEAD_BYTES: usize = 10;
/// Most PCR banks in one selection.
const BANKS_MAX: usize = 16;
/// Longest bitmap of PCRs, in bytes.
const PCR_BITMAP_BYTES_MAX: usize = 4;

/// What is wrong with bytes from a TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It ends in the middle.
    #[error("it ends too early")]
    Truncated,
    /// It goes on after its end.
    #[error("it holds more than it should")]
    TrailingBytes,
    /// A size that cannot be.
    #[error("it has an impossible size")]
    Size,
    /// A tag that does not belong there.
    #[error("it has an unknown tag")]
    Tag,
    /// An algorithm, curve or scheme that was not asked for.
    #[error("it names an algorithm that was not asked for")]
    Algorithm,
    /// More entries than make sense.
    #[error("it holds too many entries")]
    TooMany,
    /// A public key that is not on its curve, or of the wrong size.
    #[error("it holds an impossible public key")]
    PublicKey,
}

/// Writes one structure.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// A byte.
    pub fn byte(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    /// `UINT16`.
    pub fn short(mut self, value: u16) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// `UINT32`.
    pub fn long(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A `TPM2B`: the length and the bytes. What is longer than a message is cut: the TPM refuses it.
    pub fn sized(self, bytes: &[u8]) -> Self {
        let bytes = &bytes[..bytes.len().min(MESSAGE_BYTES_MAX)];
        // At most MESSAGE_BYTES_MAX, which fits.
        self.short(bytes.len() as u16).raw(bytes)
    }

    /// What was written so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads one structure.
#[derive(Clone, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Exactly this many bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| Malformed::Truncated)
    }

    /// A byte.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[value]| value)
    }

    /// `UINT16`.
    pub fn short(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    /// `UINT32`.
    pub fn long(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// A `TPM2B`.
    pub fn sized(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.short()?;
        self.take(usize::from(length))
    }

    /// What is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Nothing may be left.
    pub fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Malformed::TrailingBytes)
        }
    }
}

/// The head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// `TPM_ST`.
    pub tag: u16,
    /// Of the whole answer, in bytes.
    pub size: usize,
    /// `TPM_RC`; zero is success.
    pub code: u32,
}

/// Reads the head of an answer, and bounds its size.
pub fn read_head(bytes: &[u8]) -> Result<Head, Malformed> {
    let mut reader = Reader::new(bytes);
    let (tag, size, code) = (reader.short()?, reader.long()?, reader.long()?);
    let size = usize::try_from(size).map_err(|_| Malformed::Size)?;
    if !(HEAD_BYTES..=MESSAGE_BYTES_MAX).contains(&size) {
        return Err(Malformed::Size);
    }
    Ok(Head { tag, size, code })
}

/// The public key in a `TPMT_PUBLIC`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicPoint {
    /// The modulus, without leading zeros.
    Rsa { modulus: Vec<u8> },
    /// The uncompressed point.
    Ecc { curve: u16, point: Vec<u8> },
}

/// The parts of a `TPMT_PUBLIC` that this program looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicArea {
    /// `TPMA_OBJECT`.
    pub attributes: u32,
    /// The key itself.
    pub key: PublicPoint,
}

impl PublicArea {
    /// Reads a whole `TPMT_PUBLIC` of an RSA or ECC key.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let kind = reader.short()?;
        let _name_algorithm = reader.short()?;
        let attributes = reader.long()?;
        let _policy = reader.sized()?;
        skip_symmetric(&mut reader)?;
        skip_scheme(&mut reader)?;
        let key = match kind {
            alg::RSA => {
                let (_bits, _exponent) = (reader.short()?, reader.long()?);
                let modulus = trim_zeros(reader.sized()?).to_vec();
                PublicPoint::Rsa { modulus }
            }
            alg::ECC => {
                let curve = reader.short()?;
                skip_scheme(&mut reader)?;
                let point = uncompressed(curve, reader.sized()?, reader.sized()?)?;
                PublicPoint::Ecc { curve, point }
            }
            _ => return Err(Malformed::Algorithm),
        };
        reader.end()?;
        Ok(Self { attributes, key })
    }

    /// True if all of these attributes are set.
    pub fn has(&self, attributes: u32) -> bool {
        self.attributes & attributes == attributes
    }

    /// True for a key that other keys can be kept under.
    pub fn is_storage_parent(&self) -> bool {
        self.has(object::FIXED_TPM | object::FIXED_PARENT | object::RESTRICTED | object::DECRYPT)
            && !self.has(object::SIGN)
    }

    /// The key, if it is on P-256.
    pub fn p256(&self) -> Result<PublicKey, Malformed> {
        match &self.key {
            PublicPoint::Ecc { curve, point } if *curve == curve::NIST_P256 => {
                PublicKey::from_p256_point(point).map_err(|_| Malformed::PublicKey)
            }
            PublicPoint::Ecc { .. } | PublicPoint::Rsa { .. } => Err(Malformed::Algorithm),
        }
    }
}

/// `TPMT_SYM_DEF_OBJECT`.
fn skip_symmetric(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    match reader.short()? {
        alg::NULL => Ok(()),
        alg::AES => reader.take(4).map(|_| ()),
        _ => Err(Malformed::Algorithm),
    }
}

/// `TPMT_ASYM_SCHEME` and `TPMT_KDF_SCHEME`: all that this program meets have one hash.
fn skip_scheme(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    match reader.short()? {
        alg::NULL => Ok(()),
        _ => reader.take(2).map(|_| ()),
    }
}

fn uncompressed(curve: u16, x: &[u8], y: &[u8]) -> Result<Vec<u8>, Malformed> {
    let bytes = match curve {
        curve::NIST_P256 => 32,
        curve::NIST_P384 => 48,
        _ => return Err(Malformed::Algorithm),
    };
    let mut point = vec![0x04];
    for coordinate in [x, y] {
        let padding = bytes - trim_zeros(coordinate).len().min(bytes);
        point.resize(point.len() + padding, 0);
        point.extend_from_slice(trim_zeros(coordinate));
    }
    if point.len() == 1 + 2 * bytes {
        Ok(point)
    } else {
        Err(Malformed::PublicKey)
    }
}

/// A number without leading zeros.
pub fn trim_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// Reads a `TPMT_SIGNATURE` that must be ECDSA with SHA-256 on P-256, as ASN.1 DER (RFC 3279, section 2.2.3).
pub fn ecdsa_signature(bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut reader = Reader::new(bytes);
    if (reader.short()?, reader.short()?) != (alg::ECDSA, alg::SHA256) {
        return Err(Malformed::Algorithm);
    }
    let (r, s) = (trim_zeros(reader.sized()?), trim_zeros(reader.sized()?));
    reader.end()?;
    if r.is_empty() || s.is_empty() || r.len() > 32 || s.len() > 32 {
        return Err(Malformed::Size);
    }
    let content = [der_integer(r), der_integer(s)].concat();
    // Two integers of at most 35 bytes: the length fits the short form.
    Ok([&[0x30, content.len() as u8], content.as_slice()].concat())
}

/// A positive integer of at most 32 bytes without leading zeros.
fn der_integer(number: &[u8]) -> Vec<u8> {
    let sign = if number.first().is_some_and(|byte| byte & 0x80 != 0) {
        &[0][..]
    } else {
        &[]
    };
    [&[0x02, (sign.len() + number.len()) as u8], sign, number].concat()
}

/// The DER value at the start of these bytes, without what follows: NV memory is padded with 0xFF.
pub fn der_value(bytes: &[u8]) -> Option<&[u8]> {
    let [0x30, first, rest @ ..] = bytes else {
        return None;
    };
    let count = usize::from(first & 0x7F);
    let (head, length) = match first {
        0..=0x7F => (2, count),
        0x81..=0x82 => {
            let length = rest.get(..count)?;
            let length = length
                .iter()
                .fold(0, |length, byte| length << 8 | usize::from(*byte));
            (2 + count, length)
        }
        _ => return None,
    };
    bytes.get(..head + length)
}

/// Some PCRs of one bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcrBank {
    /// `TPM_ALG_ID` of the bank.
    pub hash: u16,
    /// Bit *n* of byte *n*/8 is PCR *n*.
    pub bitmap: Vec<u8>,
}

impl PcrBank {
    /// Selects PCRs 0 to 23; a higher number is left out.
    pub fn new(hash: u16, indexes: &[u8]) -> Self {
        let mut bitmap = vec![0; 3];
        for index in indexes {
            if let Some(byte) = bitmap.get_mut(usize::from(index / 8)) {
                *byte |= 1 << (index % 8);
            }
        }
        Self { hash, bitmap }
    }

    /// Selects PCRs of the SHA-256 bank.
    pub fn sha256(indexes: &[u8]) -> Self {
        Self::new(alg::SHA256, indexes)
    }

    /// The selected PCRs, in ascending order.
    pub fn indexes(&self) -> Vec<u8> {
        let is_set = |index: &u8| {
            let byte = self.bitmap.get(usize::from(index / 8));
            byte.is_some_and(|byte| byte & (1 << (index % 8)) != 0)
        };
        (0..=u8::MAX).filter(is_set).collect()
    }
}

/// Writes a `TPML_PCR_SELECTION`.
pub fn write_pcr_selection(writer: Writer, banks: &[PcrBank]) -> Writer {
    let banks = &banks[..banks.len().min(BANKS_MAX)];
    // At most BANKS_MAX banks of at most four bytes.
    banks
        .iter()
        .fold(writer.long(banks.len() as u32), |writer, bank| {
            let bitmap = &bank.bitmap[..bank.bitmap.len().min(PCR_BITMAP_BYTES_MAX)];
            writer.short(bank.hash).byte(bitmap.len() as u8).raw(bitmap)
        })
}

/// Reads a `TPML_PCR_SELECTION`.
pub fn read_pcr_selection(reader: &mut Reader<'_>) -> Result<Vec<PcrBank>, Malformed> {
    let count = usize::try_from(reader.long()?).map_err(|_| Malformed::TooMany)?;
    if count > BANKS_MAX {
        return Err(Malformed::TooMany);
    }
    (0..count)
        .map(|_| {
            let (hash, length) = (reader.short()?, usize::from(reader.byte()?));
            if length > PCR_BITMAP_BYTES_MAX {
                return Err(Malformed::Size);
            }
            let bitmap = reader.take(length)?.to_vec();
            Ok(PcrBank { hash, bitmap })
        })
        .collect()
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
