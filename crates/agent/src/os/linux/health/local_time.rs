//! The machine's own time less UTC, by `/etc/localtime` (RFC 8536). After the last change that the file lists, the last
//! offset holds.

use std::io::Read as _;

use muster_model::time::Timestamp;

use super::super::files::Root;

const FILE_BYTES_MAX: u64 = 64 * 1024;
const HEADER_BYTES: usize = 44;

pub(super) fn utc_offset_seconds(root: &Root, now: Timestamp) -> Option<i32> {
    let mut bytes = Vec::new();
    let file = root.open_file("/etc/localtime").ok()??;
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    offset(&bytes, now.as_unix_seconds())
}

/// Counts of a header: isut, isstd, leap, transitions, types, characters.
fn counts(header: &[u8]) -> Option<[usize; 6]> {
    if header.get(..4)? != b"TZif" {
        return None;
    }
    let mut counts = [0; 6];
    for (count, bytes) in counts
        .iter_mut()
        .zip(header.get(20..HEADER_BYTES)?.as_chunks::<4>().0)
    {
        *count = usize::try_from(u32::from_be_bytes(*bytes)).ok()?;
    }
    Some(counts)
}

fn offset(bytes: &[u8], now: i64) -> Option<i32> {
    let [isut, isstd, leap, transitions, types, characters] = counts(bytes)?;
    // The first block has times of 32 bits; the second, of 64 bits, counts.
    let first = transitions.checked_mul(5)?
        + types.checked_mul(6)?
        + characters
        + leap.checked_mul(8)?
        + isstd
        + isut;
    let second = bytes.get(HEADER_BYTES.checked_add(first)?..)?;
    let [.., transitions, types, _] = counts(second)?;
    let times = second.get(HEADER_BYTES..)?.get(..transitions.checked_mul(8)?)?;
    let rest = second.get(HEADER_BYTES + times.len()..)?;
    let (kinds, rest) = rest.split_at_checked(transitions)?;
    let offsets = rest.get(..types.checked_mul(6)?)?;
    let (times, _) = times.as_chunks::<8>();
    let passed = times
        .iter()
        .filter(|time| i64::from_be_bytes(**time) <= now)
        .count();
    let kind = match passed.checked_sub(1) {
        None => 0,
        Some(last) => usize::from(*kinds.get(last)?),
    };
    let entry = offsets.get(kind * 6..kind * 6 + 4)?;
    Some(i32::from_be_bytes(entry.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file with an hour more than UTC until 1000 and two hours after.
    fn file() -> Vec<u8> {
        let header = |counts: [u32; 6]| {
            let mut bytes = b"TZif2".to_vec();
            bytes.resize(20, 0);
            bytes.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
            bytes
        };
        let mut bytes = header([0, 0, 0, 0, 1, 1]);
        bytes.extend([0; 7]);
        bytes.extend(header([0, 0, 0, 1, 2, 1]));
        bytes.extend(1000_i64.to_be_bytes());
        bytes.push(1);
        for offset in [3600_i32, 7200] {
            bytes.extend(offset.to_be_bytes());
            bytes.extend([0, 0]);
        }
        bytes.push(0);
        bytes
    }

    #[test]
    fn the_offset_is_that_after_the_last_change() {
        assert_eq!(offset(&file(), 999), Some(3600));
        assert_eq!(offset(&file(), 1000), Some(7200));
    }

    proptest! {
        #[test]
        fn bytes_that_are_no_such_file_never_panic(
            cut in 0_usize..120,
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut bytes = file();
            bytes.truncate(cut);
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = offset(&bytes, 5);
        }
    }
}
