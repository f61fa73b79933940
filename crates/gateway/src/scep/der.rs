//! DER (X.690 §10) as CMS messages need it: a reader that borrows and a writer that concatenates.
//!
//! The reader takes definite, shortest lengths and one-byte tags and nothing else, and goes exactly as deep as the caller
//! asks: foreign bytes choose neither its recursion nor an allocation.

/// The bytes are not the DER that was expected there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the DER that was expected")]
pub struct DerError;

/// Tags that the messages here use.
pub mod tag {
    pub const INTEGER: u8 = 0x02;
    pub const OCTET_STRING: u8 = 0x04;
    pub const NULL: u8 = 0x05;
    pub const OBJECT_IDENTIFIER: u8 = 0x06;
    pub const PRINTABLE_STRING: u8 = 0x13;
    pub const SEQUENCE: u8 = 0x30;
    pub const SET: u8 = 0x31;
    /// `[0]`, constructed.
    pub const CONTEXT_0: u8 = 0xa0;
    /// `[1]`, constructed.
    pub const CONTEXT_1: u8 = 0xa1;
    /// `[0]` around a string of bytes.
    pub const CONTEXT_0_PRIMITIVE: u8 = 0x80;
}

/// One element: its tag, what it holds, and all of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'a> {
    pub tag: u8,
    pub content: &'a [u8],
    pub raw: &'a [u8],
}

/// Reads elements one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// The only element of `bytes`, which must have this tag.
    pub fn whole(bytes: &'a [u8], tag: u8) -> Result<Reader<'a>, DerError> {
        let mut reader = Reader::new(bytes);
        let inner = reader.enter(tag)?;
        reader.end()?;
        Ok(inner)
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Nothing may follow.
    pub fn end(&self) -> Result<(), DerError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DerError)
        }
    }

    /// The next element, whatever it is.
    pub fn any(&mut self) -> Result<Element<'a>, DerError> {
        const LONG_TAG: u8 = 0x1f;
        let (&tag, after_tag) = self.rest.split_first().ok_or(DerError)?;
        if tag & LONG_TAG == LONG_TAG {
            return Err(DerError);
        }
        let (length, after_length) = length(after_tag)?;
        if length > after_length.len() {
            return Err(DerError);
        }
        let (content, rest) = after_length.split_at(length);
        let raw = &self.rest[..self.rest.len() - rest.len()];
        self.rest = rest;
        Ok(Element { tag, content, raw })
    }

    /// The next element, which must have this tag.
    pub fn element(&mut self, tag: u8) -> Result<Element<'a>, DerError> {
        let element = self.any()?;
        if element.tag == tag {
            Ok(element)
        } else {
            Err(DerError)
        }
    }

    /// What the next element holds, which must have this tag.
    pub fn content(&mut self, tag: u8) -> Result<&'a [u8], DerError> {
        Ok(self.element(tag)?.content)
    }

    /// A reader of what the next element holds.
    pub fn enter(&mut self, tag: u8) -> Result<Reader<'a>, DerError> {
        Ok(Reader::new(self.content(tag)?))
    }

    /// The next element if it has this tag; nothing is taken otherwise.
    pub fn optional(&mut self, tag: u8) -> Result<Option<Element<'a>>, DerError> {
        match self.rest.first() {
            Some(&found) if found == tag => self.any().map(Some),
            Some(_) | None => Ok(None),
        }
    }

    /// An INTEGER from 0 to 127.
    pub fn small_integer(&mut self) -> Result<u8, DerError> {
        match self.content(tag::INTEGER)? {
            [value] if *value < 0x80 => Ok(*value),
            _ => Err(DerError),
        }
    }
}

/// A length in its shortest form, of at most three bytes: nothing here is larger than 16 MiB.
fn length(bytes: &[u8]) -> Result<(usize, &[u8]), DerError> {
    const LENGTH_BYTES_MAX: usize = 3;
    let (&first, rest) = bytes.split_first().ok_or(DerError)?;
    if first < 0x80 {
        return Ok((usize::from(first), rest));
    }
    let count = usize::from(first & 0x7f);
    if count == 0 || count > LENGTH_BYTES_MAX || count > rest.len() {
        return Err(DerError);
    }
    let (digits, rest) = rest.split_at(count);
    let length = digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit));
    // One byte would have done, or a byte fewer.
    if length < 0x80 || digits[0] == 0 {
        return Err(DerError);
    }
    Ok((length, rest))
}

/// An element around the concatenation of `parts`.
pub fn wrap(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length + 5);
    out.push(tag);
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let bytes = length.to_be_bytes();
            let digits = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
            out.push(0x80 | u8::try_from(digits.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(digits);
        }
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

pub fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    wrap(tag::SEQUENCE, parts)
}

/// A SET OF: its elements in the order of their encodings (X.690 §11.6).
pub fn set_of(mut elements: Vec<Vec<u8>>) -> Vec<u8> {
    elements.sort();
    let parts: Vec<&[u8]> = elements.iter().map(Vec::as_slice).collect();
    wrap(tag::SET, &parts)
}

pub fn octets(bytes: &[u8]) -> Vec<u8> {
    wrap(tag::OCTET_STRING, &[bytes])
}

/// An OBJECT IDENTIFIER from the bytes that it holds.
pub fn oid(content: &[u8]) -> Vec<u8> {
    wrap(tag::OBJECT_IDENTIFIER, &[content])
}

pub fn small_integer(value: u8) -> Vec<u8> {
    wrap(tag::INTEGER, &[&[value & 0x7f]])
}

pub fn null() -> Vec<u8> {
    wrap(tag::NULL, &[])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_that_der_does_not_write_are_refused() {
        for bytes in [
            &[0x04, 0x80, 0, 0][..],
            &[0x04, 0x81, 0x01, 0],
            &[0x04, 0x82, 0x00, 0x80],
            &[0x04, 0x84, 0, 0, 0, 1, 0],
            &[0x04, 0x02, 0],
            &[0x1f, 0x81, 0x01, 0],
            &[0x04],
            &[],
        ] {
            assert_eq!(Reader::new(bytes).any(), Err(DerError), "{bytes:02x?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(content in proptest::collection::vec(any::<u8>(), 0..70_000)) {
            let written = octets(&content);
            let mut reader = Reader::new(&written);
            prop_assert_eq!(reader.content(tag::OCTET_STRING), Ok(content.as_slice()));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn random_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = Reader::new(&bytes);
            while let Ok(element) = reader.any() {
                prop_assert!(element.content.len() < element.raw.len());
            }
        }
    }
}
