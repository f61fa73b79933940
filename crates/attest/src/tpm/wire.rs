//! The TPM's encoding: big-endian numbers and byte strings with a length of 16 bits (TPM 2.0 Library, part 2, 4).

use crate::key::Hash;

/// The bytes end early or do not have the expected shape. The caller says which structure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

pub(crate) const ALG_RSA: u16 = 0x0001;
pub(crate) const ALG_SHA256: u16 = 0x000b;
pub(crate) const ALG_SHA384: u16 = 0x000c;
pub(crate) const ALG_SHA512: u16 = 0x000d;
pub(crate) const ALG_NULL: u16 = 0x0010;
pub(crate) const ALG_RSASSA: u16 = 0x0014;
pub(crate) const ALG_RSAPSS: u16 = 0x0016;
pub(crate) const ALG_ECDSA: u16 = 0x0018;
pub(crate) const ALG_ECC: u16 = 0x0023;
pub(crate) const CURVE_P256: u16 = 0x0003;
pub(crate) const CURVE_P384: u16 = 0x0004;
pub(crate) const TYPE_CERTIFY: u16 = 0x8017;
pub(crate) const TYPE_QUOTE: u16 = 0x8018;
/// TPM_GENERATED_VALUE: "\xffTCG". A restricted key signs nothing from outside that begins so.
pub(crate) const MAGIC: u32 = 0xff54_4347;

/// The hash that an algorithm identifier names, if it is accepted.
pub(crate) fn hash_of(algorithm: u16) -> Option<Hash> {
    match algorithm {
        ALG_SHA256 => Some(Hash::Sha256),
        ALG_SHA384 => Some(Hash::Sha384),
        ALG_SHA512 => Some(Hash::Sha512),
        _ => None,
    }
}

/// Reads one value after the other.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A TPM2B: length of 16 bits, then as many bytes.
    pub fn sized(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Fails when bytes are left.
    pub fn end(&self) -> Result<(), Malformed> {
        self.rest.is_empty().then_some(()).ok_or(Malformed)
    }
}

/// Appends a TPM2B. `bytes` is one of ours and short.
pub(crate) fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).expect("a structure that this crate writes is short");
    out.extend(length.to_be_bytes());
    out.extend_from_slice(bytes);
}
