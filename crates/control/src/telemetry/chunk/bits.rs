//! Bits and variable-length integers, written and read; every read is bounded by the bytes that are there.

use super::Corrupt;

/// The longest variable-length integer: 64 bits, seven in a byte.
const VARINT_BYTES_MAX: usize = 10;

/// Appends an integer, seven bits in a byte, the lowest first; the top bit says that more follows.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Makes small numbers of both signs small.
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The other way.
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Bytes that are read from the front.
pub struct Bytes<'a> {
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    pub fn new(bytes: &'a [u8]) -> Bytes<'a> {
        Bytes { rest: bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn byte(&mut self) -> Result<u8, Corrupt> {
        let (first, rest) = self.rest.split_first().ok_or(Corrupt::Short)?;
        self.rest = rest;
        Ok(*first)
    }

    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Corrupt> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Corrupt::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    pub fn varint(&mut self) -> Result<u64, Corrupt> {
        let mut value = 0_u64;
        for place in 0..VARINT_BYTES_MAX {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if place == VARINT_BYTES_MAX - 1 && bits > 1 {
                return Err(Corrupt::Number);
            }
            value |= bits << (7 * place);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Corrupt::Number)
    }

    /// A length of at most `max`.
    pub fn length(&mut self, max: usize) -> Result<usize, Corrupt> {
        let length = usize::try_from(self.varint()?).map_err(|_| Corrupt::Limit)?;
        if length > max {
            return Err(Corrupt::Limit);
        }
        Ok(length)
    }
}

/// Bits that are appended, the highest first.
#[derive(Default)]
pub struct BitWriter {
    bytes: Vec<u8>,
    held: u64,
    held_bits: u32,
}

impl BitWriter {
    /// Appends the lowest `bits` of `value`; at most 64.
    pub fn put(&mut self, value: u64, bits: u32) {
        if bits > 32 {
            self.put_some(value >> 32, bits - 32);
            self.put_some(value, 32);
        } else {
            self.put_some(value, bits);
        }
    }

    fn put_some(&mut self, value: u64, bits: u32) {
        if bits == 0 {
            return;
        }
        // Fewer than 8 bits are held between calls, so 40 at most are held here.
        self.held = (self.held << bits) | (value & ((1 << bits) - 1));
        self.held_bits += bits;
        while self.held_bits >= 8 {
            self.held_bits -= 8;
            self.bytes.push((self.held >> self.held_bits) as u8);
        }
        self.held &= (1 << self.held_bits) - 1;
    }

    /// What was written, filled up with zeros to a whole byte.
    pub fn finish(mut self) -> Vec<u8> {
        if self.held_bits > 0 {
            self.put_some(0, 8 - self.held_bits);
        }
        self.bytes
    }
}

/// Bits that are read, the highest first.
pub struct BitReader<'a> {
    bytes: &'a [u8],
    held: u64,
    held_bits: u32,
}

impl<'a> BitReader<'a> {
    pub fn new(bytes: &'a [u8]) -> BitReader<'a> {
        BitReader {
            bytes,
            held: 0,
            held_bits: 0,
        }
    }

    /// The next `bits` as the lowest of a number; at most 64.
    pub fn take(&mut self, bits: u32) -> Result<u64, Corrupt> {
        if bits > 32 {
            let high = self.take_some(bits - 32)?;
            return Ok((high << 32) | self.take_some(32)?);
        }
        self.take_some(bits)
    }

    fn take_some(&mut self, bits: u32) -> Result<u64, Corrupt> {
        while self.held_bits < bits {
            let (first, rest) = self.bytes.split_first().ok_or(Corrupt::Short)?;
            self.bytes = rest;
            self.held = (self.held << 8) | u64::from(*first);
            self.held_bits += 8;
        }
        self.held_bits -= bits;
        let value = self.held >> self.held_bits;
        self.held &= (1 << self.held_bits) - 1;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn integers_read_back(values in prop::collection::vec(any::<i64>(), 0..50)) {
            let mut out = Vec::new();
            for value in &values {
                put_varint(&mut out, zigzag(*value));
            }
            let mut bytes = Bytes::new(&out);
            for value in &values {
                prop_assert_eq!(bytes.varint().map(unzigzag), Ok(*value));
            }
            prop_assert!(bytes.is_empty());
        }

        #[test]
        fn bits_read_back(values in prop::collection::vec((any::<u64>(), 0_u32..=64), 0..50)) {
            let mut writer = BitWriter::default();
            for (value, bits) in &values {
                writer.put(*value, *bits);
            }
            let bytes = writer.finish();
            let mut reader = BitReader::new(&bytes);
            for (value, bits) in &values {
                let lowest = if *bits == 64 { *value } else { *value & ((1 << bits) - 1) };
                prop_assert_eq!(reader.take(*bits), Ok(lowest));
            }
            prop_assert_eq!(reader.take(8), Err(Corrupt::Short));
        }
    }
}
