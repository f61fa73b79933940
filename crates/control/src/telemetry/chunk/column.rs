//! One column of a chunk: integers as runs or packed differences, numbers as decimals where they are such, and otherwise
//! XORed with their predecessor (Pelkonen et al., "Gorilla: A Fast, Scalable, In-Memory Time Series Database", VLDB 2015,
//! section 4.1.2).

use super::{
    Corrupt,
    bits::{BitReader, BitWriter, Bytes, put_varint, unzigzag, zigzag},
};

/// Differences that share one width.
const FRAME: usize = 32;
/// Decimal places that are tried.
const PLACES_MAX: u32 = 9;
const POWERS: [f64; PLACES_MAX as usize + 1] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// Integers up to here are exact as an `f64`.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

const RUNS: u8 = 0;
const PACKED: u8 = 1;

const CONSTANT: u8 = 0;
const DECIMAL: u8 = 1;
const XOR: u8 = 2;

/// Appends integers: their differences as runs of equal ones, or packed, whichever is shorter.
pub fn put_integers(out: &mut Vec<u8>, values: &[i64]) {
    let Some((first, rest)) = values.split_first() else {
        return;
    };
    let mut before = *first;
    let differences: Vec<u64> = rest
        .iter()
        .map(|value| zigzag(value.wrapping_sub(std::mem::replace(&mut before, *value))))
        .collect();
    let runs = runs_of(&differences);
    let packed = pack(&differences, runs.len());
    out.push(if packed.is_some() { PACKED } else { RUNS });
    put_varint(out, zigzag(*first));
    out.extend_from_slice(packed.as_deref().unwrap_or(&runs));
}

/// Reads `count` integers.
pub fn integers(bytes: &mut Bytes<'_>, count: usize) -> Result<Vec<i64>, Corrupt> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let kind = bytes.byte()?;
    let mut value = unzigzag(bytes.varint()?);
    let mut values = Vec::with_capacity(count);
    values.push(value);
    match kind {
        RUNS => {
            while values.len() < count {
                let difference = unzigzag(bytes.varint()?);
                let run = bytes.length(count - values.len())?;
                if run == 0 {
                    return Err(Corrupt::Number);
                }
                for _ in 0..run {
                    value = value.wrapping_add(difference);
                    values.push(value);
                }
            }
        }
        PACKED => {
            while values.len() < count {
                let width = u32::from(bytes.byte()?);
                if width > u64::BITS {
                    return Err(Corrupt::Number);
                }
                let frame = FRAME.min(count - values.len());
                let mut reader = BitReader::new(bytes.take((width as usize * frame).div_ceil(8))?);
                for _ in 0..frame {
                    value = value.wrapping_add(unzigzag(reader.take(width)?));
                    values.push(value);
                }
            }
        }
        _ => return Err(Corrupt::Kind),
    }
    Ok(values)
}

fn runs_of(differences: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    for run in differences.chunk_by(PartialEq::eq) {
        put_varint(&mut out, run[0]);
        put_varint(&mut out, run.len() as u64);
    }
    out
}

/// The packed form, if it is shorter than `bytes_below`.
fn pack(differences: &[u64], bytes_below: usize) -> Option<Vec<u8>> {
    let width = |frame: &[u64]| u64::BITS - frame.iter().fold(0, |all, value| all | value).leading_zeros();
    let length: usize = differences
        .chunks(FRAME)
        .map(|frame| 1 + (width(frame) as usize * frame.len()).div_ceil(8))
        .sum();
    if length >= bytes_below {
        return None;
    }
    let mut out = Vec::with_capacity(length);
    for frame in differences.chunks(FRAME) {
        let width = width(frame);
        out.push(width as u8);
        let mut writer = BitWriter::default();
        for value in frame {
            writer.put(*value, width);
        }
        out.extend_from_slice(&writer.finish());
    }
    Some(out)
}

/// Appends numbers, each of them exactly.
pub fn put_numbers(out: &mut Vec<u8>, values: &[f64]) {
    let Some(first) = values.first() else {
        return;
    };
    if values.iter().all(|value| value.to_bits() == first.to_bits()) {
        out.push(CONSTANT);
        out.extend_from_slice(&first.to_bits().to_le_bytes());
        return;
    }
    if let Some((places, integers)) = decimals(values) {
        out.push(DECIMAL);
        out.push(places);
        put_integers(out, &integers);
        return;
    }
    out.push(XOR);
    let packed = xor(values);
    put_varint(out, packed.len() as u64);
    out.extend_from_slice(&packed);
}

/// Reads `count` numbers.
pub fn numbers(bytes: &mut Bytes<'_>, count: usize) -> Result<Vec<f64>, Corrupt> {
    if count == 0 {
        return Ok(Vec::new());
    }
    match bytes.byte()? {
        CONSTANT => {
            let bits: [u8; 8] = bytes.take(8)?.try_into().map_err(|_| Corrupt::Short)?;
            Ok(vec![f64::from_bits(u64::from_le_bytes(bits)); count])
        }
        DECIMAL => {
            let places = bytes.byte()?;
            let power = POWERS.get(usize::from(places)).ok_or(Corrupt::Number)?;
            let integers = integers(bytes, count)?;
            Ok(integers.into_iter().map(|value| value as f64 / power).collect())
        }
        XOR => {
            // No number takes more than 77 bits.
            let length = bytes.length(8 + count.saturating_mul(10))?;
            unxor(bytes.take(length)?, count)
        }
        _ => Err(Corrupt::Kind),
    }
}

/// How many decimal places hold every value exactly, and the values as integers of the last place.
fn decimals(values: &[f64]) -> Option<(u8, Vec<i64>)> {
    let mut places = 0;
    for value in values {
        while scaled(*value, places).is_none() {
            places += 1;
            if places > PLACES_MAX {
                return None;
            }
        }
    }
    let integers: Option<Vec<i64>> = values.iter().map(|value| scaled(*value, places)).collect();
    Some((places as u8, integers?))
}

fn scaled(value: f64, places: u32) -> Option<i64> {
    let power = POWERS[places as usize];
    let scaled = (value * power).round();
    let is_exact = scaled.abs() < EXACT_MAX && (scaled / power).to_bits() == value.to_bits();
    // Negative zero and what is no number fail the comparison of bits.
    is_exact.then_some(scaled as i64)
}

fn xor(values: &[f64]) -> Vec<u8> {
    let mut writer = BitWriter::default();
    let mut before = values[0].to_bits();
    writer.put(before, 64);
    // Leading and trailing zeros of the window in use; none yet.
    let mut window: Option<(u32, u32)> = None;
    for value in &values[1..] {
        let bits = value.to_bits();
        let difference = bits ^ std::mem::replace(&mut before, bits);
        if difference == 0 {
            writer.put(0, 1);
            continue;
        }
        let (leading, trailing) = (difference.leading_zeros().min(31), difference.trailing_zeros());
        match window {
            Some((lead, trail)) if leading >= lead && trailing >= trail => {
                writer.put(0b10, 2);
                writer.put(difference >> trail, 64 - lead - trail);
            }
            _ => {
                let length = 64 - leading - trailing;
                writer.put(0b11, 2);
                writer.put(u64::from(leading), 5);
                writer.put(u64::from(length - 1), 6);
                writer.put(difference >> trailing, length);
                window = Some((leading, trailing));
            }
        }
    }
    writer.finish()
}

fn unxor(bytes: &[u8], count: usize) -> Result<Vec<f64>, Corrupt> {
    let mut reader = BitReader::new(bytes);
    let mut before = reader.take(64)?;
    let mut values = Vec::with_capacity(count);
    values.push(f64::from_bits(before));
    let mut window: Option<(u32, u32)> = None;
    while values.len() < count {
        if reader.take(1)? == 1 {
            if reader.take(1)? == 1 {
                let (leading, length) = (reader.take(5)? as u32, reader.take(6)? as u32 + 1);
                let trailing = 64_u32.checked_sub(leading + length).ok_or(Corrupt::Number)?;
                window = Some((leading, trailing));
            }
            let (leading, trailing) = window.ok_or(Corrupt::Number)?;
            before ^= reader.take(64 - leading - trailing)? << trailing;
        }
        values.push(f64::from_bits(before));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_numbers(values: &[f64]) -> usize {
        let mut out = Vec::new();
        put_numbers(&mut out, values);
        let mut bytes = Bytes::new(&out);
        let read = numbers(&mut bytes, values.len()).expect("what was written is read");
        assert!(bytes.is_empty());
        let same = |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits();
        assert!(
            read.len() == values.len() && read.iter().zip(values).all(same),
            "{values:?}"
        );
        out.len()
    }

    #[test]
    fn a_reading_of_four_places_costs_two_bytes_at_most() {
        let noisy: Vec<f64> = (0..288_u32)
            .map(|place| f64::from(4_000 + place * 7919 % 997) / 10_000.0)
            .collect();
        assert!(check_numbers(&noisy) < 288 * 2);
        let steady = vec![0.87; 288];
        assert_eq!(check_numbers(&steady), 9);
    }

    #[test]
    fn numbers_that_are_no_decimals_are_kept_too() {
        check_numbers(&[
            0.1 + 0.2,
            f64::MAX,
            f64::MIN_POSITIVE,
            -0.0,
            0.0,
            f64::INFINITY,
            1.0 / 3.0,
        ]);
        check_numbers(&[f64::NAN, 1.0]);
        check_numbers(&[9.1e15, 1.0]);
    }

    #[test]
    fn regular_times_cost_nothing() {
        let times: Vec<i64> = (0..10_000).map(|place| 1_700_000_000 + place * 300).collect();
        let mut out = Vec::new();
        put_integers(&mut out, &times);
        assert!(out.len() < 12, "{}", out.len());
        assert_eq!(integers(&mut Bytes::new(&out), times.len()), Ok(times));
    }

    proptest! {
        #[test]
        fn integers_read_back(values in prop::collection::vec(any::<i64>(), 0..200)) {
            let mut out = Vec::new();
            put_integers(&mut out, &values);
            prop_assert_eq!(integers(&mut Bytes::new(&out), values.len()), Ok(values));
        }

        #[test]
        fn small_integers_read_back(values in prop::collection::vec(-5_i64..5, 0..200)) {
            let mut out = Vec::new();
            put_integers(&mut out, &values);
            prop_assert_eq!(integers(&mut Bytes::new(&out), values.len()), Ok(values));
        }

        #[test]
        fn numbers_read_back(bits in prop::collection::vec(any::<u64>(), 1..100)) {
            check_numbers(&bits.into_iter().map(f64::from_bits).collect::<Vec<_>>());
        }

        #[test]
        fn decimals_read_back(values in prop::collection::vec(-100_000_i32..100_000, 1..100), places in 0_i32..5) {
            check_numbers(&values.iter().map(|value| f64::from(*value) / 10_f64.powi(places)).collect::<Vec<_>>());
        }
    }
}
