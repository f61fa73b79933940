//! Protocol buffers by hand, for messages of few fields (<https://protobuf.dev/programming-guides/encoding/>).

pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field with a length (wire type 2).
pub fn bytes(out: &mut Vec<u8>, field: u64, content: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// A field with an integer (wire type 0).
pub fn integer(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

/// A field of eight bytes (wire type 1).
pub fn fixed64(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A field of four bytes (wire type 5).
pub fn fixed32(out: &mut Vec<u8>, field: u64, value: u32) {
    varint(out, field << 3 | 5);
    out.extend_from_slice(&value.to_le_bytes());
}

/// What a field of a message holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    Integer(u64),
    Bytes(&'a [u8]),
    /// Of four or eight bytes: nothing here reads one.
    Fixed,
}

/// Reads the next field of a message and moves past it; nothing at its end, or where it is cut short or not well-formed.
pub fn next_field<'a>(message: &mut &'a [u8]) -> Option<(u64, Content<'a>)> {
    let key = read_varint(message)?;
    let content = match key & 7 {
        0 => Content::Integer(read_varint(message)?),
        1 => take(message, 8).map(|_| Content::Fixed)?,
        2 => {
            let length = usize::try_from(read_varint(message)?).ok()?;
            Content::Bytes(take(message, length)?)
        }
        5 => take(message, 4).map(|_| Content::Fixed)?,
        _ => return None,
    };
    Some((key >> 3, content))
}

fn take<'a>(message: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = message.split_at_checked(count)?;
    *message = rest;
    Some(taken)
}

fn read_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *take(message, 1)?.first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut message = Vec::new();
        integer(&mut message, 1, 300);
        fixed64(&mut message, 2, 7);
        fixed32(&mut message, 3, 7);
        bytes(&mut message, 4, b"abc");
        let mut rest = message.as_slice();
        assert_eq!(next_field(&mut rest), Some((1, Content::Integer(300))));
        assert_eq!(next_field(&mut rest), Some((2, Content::Fixed)));
        assert_eq!(next_field(&mut rest), Some((3, Content::Fixed)));
        assert_eq!(next_field(&mut rest), Some((4, Content::Bytes(b"abc"))));
        assert_eq!(next_field(&mut rest), None);
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(message in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = message.as_slice();
            while let Some(_field) = next_field(&mut rest) {}
        }
    }
}
