//! The part of BER that LDAP uses (RFC 4511, section 5.1): definite lengths, tags of one byte. Elements are walked, never
//! built into a tree, so that nesting costs nothing.

use crate::message::DecodeError;

/// Bytes of one message. A group of 200,000 members in one answer is about 16 MiB.
pub const MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;

pub const INTEGER: u8 = 0x02;
pub const OCTET_STRING: u8 = 0x04;
pub const BOOLEAN: u8 = 0x01;
pub const ENUMERATED: u8 = 0x0a;
pub const SEQUENCE: u8 = 0x30;
pub const SET: u8 = 0x31;

/// The bytes of elements that follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    pub fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The tag of the next element, where there is one.
    pub fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// Takes the next element: its tag and its content.
    pub fn take(&mut self) -> Result<(u8, &'a [u8]), DecodeError> {
        let (tag, start, length) = header(self.0)?.ok_or(DecodeError::Truncated)?;
        let end = start.checked_add(length).ok_or(DecodeError::TooLong)?;
        let content = self.0.get(start..end).ok_or(DecodeError::Truncated)?;
        self.0 = self.0.get(end..).unwrap_or_default();
        Ok((tag, content))
    }

    /// Takes the next element, which has this tag.
    pub fn expect(&mut self, tag: u8) -> Result<&'a [u8], DecodeError> {
        let (found, content) = self.take()?;
        if found == tag {
            Ok(content)
        } else {
            Err(DecodeError::Shape)
        }
    }

    /// Takes a number of at most 31 bits, as LDAP's are (RFC 4511, section 4.1.1).
    pub fn number(&mut self, tag: u8) -> Result<u32, DecodeError> {
        number(self.expect(tag)?)
    }
}

/// A number that is not negative, in at most four bytes; some servers write more zeros before it than they need.
pub fn number(content: &[u8]) -> Result<u32, DecodeError> {
    let digits = match content.iter().position(|byte| *byte != 0) {
        None if content.is_empty() => return Err(DecodeError::Shape),
        None => return Ok(0),
        Some(at) => content.get(at..).unwrap_or_default(),
    };
    let is_negative = content.first().is_some_and(|byte| byte & 0x80 != 0);
    if digits.len() > 4 || is_negative {
        return Err(DecodeError::Shape);
    }
    let value = digits
        .iter()
        .fold(0_u32, |value, byte| value << 8 | u32::from(*byte));
    if value > i32::MAX as u32 {
        return Err(DecodeError::Shape);
    }
    Ok(value)
}

/// Tag, where the content begins, and how long it is; nothing where the header itself is not complete. Active Directory
/// writes every length in four bytes, so more bytes than needed are read too.
pub fn header(bytes: &[u8]) -> Result<Option<(u8, usize, usize)>, DecodeError> {
    let [tag, first, rest @ ..] = bytes else {
        return Ok(None);
    };
    if tag & 0x1f == 0x1f {
        return Err(DecodeError::Shape);
    }
    if *first < 0x80 {
        return Ok(Some((*tag, 2, usize::from(*first))));
    }
    let count = usize::from(first & 0x7f);
    if count == 0 || count > 4 {
        return Err(DecodeError::Shape);
    }
    let Some(digits) = rest.get(..count) else {
        return Ok(None);
    };
    let length = digits
        .iter()
        .fold(0_usize, |length, byte| length << 8 | usize::from(*byte));
    if length > MESSAGE_BYTES_MAX {
        return Err(DecodeError::TooLong);
    }
    Ok(Some((*tag, 2 + count, length)))
}

/// Appends an element.
pub fn put(into: &mut Vec<u8>, tag: u8, content: &[u8]) {
    into.push(tag);
    let length = content.len();
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => into.push(short),
        _ => {
            let digits = length.to_be_bytes();
            let skipped = digits.iter().take_while(|byte| **byte == 0).count();
            let digits = digits.get(skipped..).unwrap_or_default();
            into.push(0x80 | u8::try_from(digits.len()).unwrap_or(0x7f));
            into.extend_from_slice(digits);
        }
    }
    into.extend_from_slice(content);
}

/// Appends a number.
pub fn put_number(into: &mut Vec<u8>, tag: u8, value: u32) {
    let digits = value.to_be_bytes();
    let skipped = digits.iter().take(3).take_while(|byte| **byte == 0).count();
    let mut content = digits.get(skipped..).unwrap_or_default().to_vec();
    if content.first().is_some_and(|byte| byte & 0x80 != 0) {
        content.insert(0, 0);
    }
    put(into, tag, &content);
}
