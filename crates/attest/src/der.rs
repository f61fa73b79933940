//! A strict reader of DER (ITU-T X.690): definite minimal lengths, bounded by the input, tag numbers of up to 28 bits.
//!
//! It hands out slices of the input, so that a signature is always checked over the bytes that were received: encoding a
//! structure again would reorder sets that their makers did not sort.

/// The bytes are not DER, or not of the expected shape. The caller says which structure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// A tag: class, whether constructed, number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag {
    /// Class and constructed bit: the top three bits of the first octet.
    lead: u8,
    number: u32,
}

const CONSTRUCTED: u8 = 0x20;
const CONTEXT: u8 = 0x80;
const HIGH_NUMBER: u8 = 0x1f;
/// Octets of a tag number in the long form that are read: 28 bits.
const TAG_OCTETS_MAX: usize = 4;
/// Octets of a length in the long form that are read: nothing here is longer than 2^24 bytes.
const LENGTH_OCTETS_MAX: usize = 3;

impl Tag {
    pub const BOOLEAN: Self = Self::universal(1);
    pub const INTEGER: Self = Self::universal(2);
    pub const BIT_STRING: Self = Self::universal(3);
    pub const OCTET_STRING: Self = Self::universal(4);
    pub const OBJECT_IDENTIFIER: Self = Self::universal(6);
    pub const ENUMERATED: Self = Self::universal(10);
    pub const UTF8_STRING: Self = Self::universal(12);
    pub const SEQUENCE: Self = Self {
        lead: CONSTRUCTED,
        number: 16,
    };
    pub const SET: Self = Self {
        lead: CONSTRUCTED,
        number: 17,
    };
    pub const UTC_TIME: Self = Self::universal(23);
    pub const GENERALIZED_TIME: Self = Self::universal(24);

    const fn universal(number: u32) -> Self {
        Self { lead: 0, number }
    }

    /// A context-specific constructed tag: the wrapper of an explicit tag.
    pub const fn explicit(number: u32) -> Self {
        Self {
            lead: CONTEXT | CONSTRUCTED,
            number,
        }
    }

    /// A context-specific primitive tag: an implicit tag on a primitive type.
    pub const fn implicit(number: u32) -> Self {
        Self {
            lead: CONTEXT,
            number,
        }
    }

    /// The number of a context-specific constructed tag.
    pub fn explicit_number(self) -> Option<u32> {
        (self.lead == CONTEXT | CONSTRUCTED).then_some(self.number)
    }
}

/// One element.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Element<'a> {
    pub tag: Tag,
    /// The contents.
    pub value: &'a [u8],
    /// Tag, length and contents as received.
    pub raw: &'a [u8],
}

/// Reads one element after the other.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Fails when bytes are left.
    pub fn end(&self) -> Result<(), Malformed> {
        self.rest.is_empty().then_some(()).ok_or(Malformed)
    }

    /// The next element, whatever it is.
    pub fn element(&mut self) -> Result<Element<'a>, Malformed> {
        let whole = self.rest;
        let tag = self.tag()?;
        let length = self.length()?;
        let value = self.take(length)?;
        let raw = &whole[..whole.len() - self.rest.len()];
        Ok(Element { tag, value, raw })
    }

    /// The contents of the next element, which has this tag.
    pub fn expect(&mut self, tag: Tag) -> Result<&'a [u8], Malformed> {
        Ok(self.expect_element(tag)?.value)
    }

    /// The next element, which has this tag.
    pub fn expect_element(&mut self, tag: Tag) -> Result<Element<'a>, Malformed> {
        let element = self.element()?;
        (element.tag == tag).then_some(element).ok_or(Malformed)
    }

    /// The contents of the next element if it has this tag.
    pub fn optional(&mut self, tag: Tag) -> Result<Option<&'a [u8]>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut ahead = self.clone();
        let element = ahead.element()?;
        if element.tag != tag {
            return Ok(None);
        }
        *self = ahead;
        Ok(Some(element.value))
    }

    /// A reader of the contents of the next element, which has this tag.
    pub fn nested(&mut self, tag: Tag) -> Result<Self, Malformed> {
        Ok(Self::new(self.expect(tag)?))
    }

    fn tag(&mut self) -> Result<Tag, Malformed> {
        let first = self.byte()?;
        let lead = first & !HIGH_NUMBER;
        let low = first & HIGH_NUMBER;
        if low != HIGH_NUMBER {
            return Ok(Tag {
                lead,
                number: u32::from(low),
            });
        }
        let mut number: u32 = 0;
        for octet in 0..TAG_OCTETS_MAX {
            let byte = self.byte()?;
            if octet == 0 && byte == 0x80 {
                return Err(Malformed);
            }
            number = number << 7 | u32::from(byte & 0x7f);
            if byte & 0x80 == 0 {
                let needed = number >= u32::from(HIGH_NUMBER);
                return needed.then_some(Tag { lead, number }).ok_or(Malformed);
            }
        }
        Err(Malformed)
    }

    fn length(&mut self) -> Result<usize, Malformed> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(usize::from(first));
        }
        let octets = usize::from(first & 0x7f);
        if octets == 0 || octets > LENGTH_OCTETS_MAX {
            return Err(Malformed);
        }
        let mut length: usize = 0;
        for octet in 0..octets {
            let byte = self.byte()?;
            if octet == 0 && byte == 0 {
                return Err(Malformed);
            }
            length = length << 8 | usize::from(byte);
        }
        (length >= 0x80).then_some(length).ok_or(Malformed)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.rest.split_first().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*first)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }
}

/// The contents of a BOOLEAN: DER knows only these two.
pub(crate) fn boolean(value: &[u8]) -> Result<bool, Malformed> {
    match value {
        [0x00] => Ok(false),
        [0xff] => Ok(true),
        _ => Err(Malformed),
    }
}

/// The magnitude of a positive INTEGER without its sign octet.
pub(crate) fn magnitude(value: &[u8]) -> Result<&[u8], Malformed> {
    match value {
        [] => Err(Malformed),
        [0] => Ok(value),
        [0, second, ..] if *second < 0x80 => Err(Malformed),
        [0, rest @ ..] => Ok(rest),
        [first, ..] if *first >= 0x80 => Err(Malformed),
        _ => Ok(value),
    }
}

/// A small INTEGER or ENUMERATED that is not negative.
pub(crate) fn small(value: &[u8]) -> Result<u64, Malformed> {
    let magnitude = magnitude(value)?;
    if magnitude.len() > size_of::<u64>() {
        return Err(Malformed);
    }
    Ok(magnitude.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

/// The octets of a BIT STRING of whole octets.
pub(crate) fn octets_of_bits(value: &[u8]) -> Result<&[u8], Malformed> {
    match value {
        [0, octets @ ..] => Ok(octets),
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Malformed, Reader, Tag, boolean, magnitude, small};

    #[test]
    fn lengths_and_tags_are_minimal() {
        for bad in [
            &[0x30, 0x80, 0, 0][..],
            &[0x30, 0x81, 0x7f],
            &[0x30, 0x82, 0x00, 0x80],
            &[0x30, 0x84, 0, 0, 0, 1, 0],
            &[0x30, 0x05, 1],
            &[0xbf, 0x80, 0x01, 0x00],
            &[0xbf, 0x1e, 0x00],
            &[0xbf, 0xff, 0xff, 0xff, 0xff, 0x01, 0x00],
            &[],
        ] {
            assert_eq!(Reader::new(bad).element().err(), Some(Malformed), "{bad:x?}");
        }
        let element = Reader::new(&[0xbf, 0x85, 0x40, 0x01, 0x07])
            .element()
            .expect("a long tag");
        assert_eq!(element.tag, Tag::explicit(704));
        assert_eq!(element.value, [7]);
    }

    #[test]
    fn numbers_and_booleans_have_one_encoding() {
        assert_eq!(small(&[0]), Ok(0));
        assert_eq!(small(&[0, 0x80]), Ok(128));
        for bad in [&[][..], &[0, 1], &[0x80], &[1; 9]] {
            assert_eq!(small(bad), Err(Malformed), "{bad:x?}");
        }
        assert_eq!(magnitude(&[0, 0xff]), Ok(&[0xff][..]));
        assert_eq!(boolean(&[1]), Err(Malformed));
        assert_eq!(boolean(&[0xff]), Ok(true));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::new(&bytes);
            let mut read = 0;
            while let Ok(element) = reader.element() {
                read += element.raw.len();
                prop_assert!(element.value.len() <= element.raw.len());
            }
            prop_assert!(read <= bytes.len());
        }
    }
}
