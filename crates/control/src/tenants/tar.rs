//! Archives in the `ustar` format (POSIX.1-2001, pax interchange, "ustar Interchange Format"): a header of 512 bytes before each file,
//! and two empty blocks at the end. It is written as it goes, so that an archive of any size takes the memory of its largest file.

const BLOCK: usize = 512;
/// Longest name that the header holds without a prefix.
pub const NAME_BYTES_MAX: usize = 100;
/// Largest file: eleven octal digits.
const FILE_BYTES_MAX: u64 = 0o77_777_777_777;

/// The header of a file, its content, and what fills its last block. None where the name or the content is too long.
pub fn file(name: &str, content: &[u8], modified: i64) -> Option<Vec<u8>> {
    let size = u64::try_from(content.len())
        .ok()
        .filter(|size| *size <= FILE_BYTES_MAX)?;
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
        return None;
    }
    let mut header = [0_u8; BLOCK];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(
        136,
        format!("{:011o}\0", modified.clamp(0, 0o77_777_777_777)).as_bytes(),
    );
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = Vec::with_capacity(2 * BLOCK + content.len());
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    Some(bytes)
}

/// What ends an archive.
pub fn end() -> Vec<u8> {
    vec![0; 2 * BLOCK]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_header_with_its_sum_and_whole_blocks() {
        let bytes = file("a/b.txt", b"hello", 1_800_000_000).expect("it fits");
        assert_eq!(bytes.len(), 2 * BLOCK);
        assert_eq!(&bytes[257..263], b"ustar\0");
        assert_eq!(&bytes[124..135], b"00000000005");
        assert_eq!(&bytes[BLOCK..BLOCK + 5], b"hello");
        let mut header = bytes[..BLOCK].to_vec();
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        assert_eq!(&bytes[148..154], format!("{sum:06o}").as_bytes());
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        assert!(file(&"a".repeat(101), b"", 0).is_none());
        assert!(file("", b"", 0).is_none());
        assert!(file(&"a".repeat(100), b"", 0).is_some());
    }
}
