//! A look at CBOR (RFC 8949) before it is decoded: depth, number of items and lengths are bounded, so that the decoder
//! never recurses or allocates beyond them.

/// Deepest nesting that is read.
pub(crate) const DEPTH_MAX: usize = 16;
/// Most items that are read.
pub(crate) const ITEMS_MAX: usize = 4096;

/// Why bytes are not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Not one item of definite lengths.
    Malformed,
    /// Too deep or too many items.
    TooComplex,
}

/// Checks that the bytes are exactly one item within the limits, without indefinite lengths.
pub(crate) fn check(bytes: &[u8]) -> Result<(), Refused> {
    let mut rest = bytes;
    let mut items = 0;
    // How many items are still to come, per level.
    let mut open: Vec<u64> = vec![1];
    while let Some(left) = open.last_mut() {
        if *left == 0 {
            open.pop();
            continue;
        }
        *left -= 1;
        items += 1;
        if items > ITEMS_MAX {
            return Err(Refused::TooComplex);
        }
        let children = item(&mut rest)?;
        if children > 0 {
            if open.len() > DEPTH_MAX {
                return Err(Refused::TooComplex);
            }
            open.push(children);
        }
    }
    rest.is_empty().then_some(()).ok_or(Refused::Malformed)
}

/// Reads the head of an item and the bytes of a string; returns how many items it contains.
fn item(rest: &mut &[u8]) -> Result<u64, Refused> {
    let first = take(rest, 1)?[0];
    let value = match first & 0x1f {
        small @ 0..24 => u64::from(small),
        24 => u64::from(take(rest, 1)?[0]),
        size @ (25..=27) => take(rest, 1 << (size - 24))?
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)),
        _ => return Err(Refused::Malformed),
    };
    match first >> 5 {
        2 | 3 => {
            let length = usize::try_from(value).map_err(|_| Refused::Malformed)?;
            take(rest, length)?;
            Ok(0)
        }
        // A count beyond the bytes that are left is caught when they end, or by the number of items.
        4 => Ok(value),
        5 => value.checked_mul(2).ok_or(Refused::TooComplex),
        6 => Ok(1),
        _ => Ok(0),
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Refused> {
    let (taken, after) = rest.split_at_checked(length).ok_or(Refused::Malformed)?;
    *rest = after;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{DEPTH_MAX, ITEMS_MAX, Refused, check};

    #[test]
    fn bombs_are_refused_before_they_are_decoded() {
        let nested = |depth: usize| {
            let mut bytes = vec![0x81; depth];
            bytes.push(0);
            bytes
        };
        assert_eq!(check(&nested(DEPTH_MAX)), Ok(()));
        assert_eq!(check(&nested(DEPTH_MAX + 1)), Err(Refused::TooComplex));
        assert_eq!(check(&vec![0x81; 60_000]), Err(Refused::TooComplex));
        let mut wide = vec![0x99, 0xff, 0xff];
        wide.resize(3 + 0xffff, 0);
        assert_eq!(check(&wide), Err(Refused::TooComplex));
        assert_eq!(
            check(&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            Err(Refused::Malformed)
        );
        assert_eq!(
            check(&[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            Err(Refused::TooComplex)
        );
        assert_eq!(
            check(&[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            Err(Refused::Malformed)
        );
        assert_eq!(check(&[0x9f, 0xff]), Err(Refused::Malformed));
        assert_eq!(check(&[0x00, 0x00]), Err(Refused::Malformed));
        const { assert!(ITEMS_MAX < 0xffff) };
    }

    proptest! {
        #[test]
        fn what_passes_is_decoded_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if check(&bytes).is_ok() {
                let _ = ciborium::from_reader::<ciborium::Value, _>(&bytes[..]);
            }
        }
    }
}
