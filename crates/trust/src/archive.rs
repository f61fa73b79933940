//! The one form of zip file that a bundle may have: stored entries, sorted names, fixed times, nothing else.
//!
//! Zip readers disagree about nearly everything the format allows (APPNOTE.TXT 6.3.10). So nothing is allowed: the reader
//! takes the names and contents from the central directory, writes the archive that they ought to have, and compares. What
//! one tool could read differently from another does not survive the comparison; the checks before it only give the
//! refusal a name.

use std::collections::BTreeMap;

/// Longest archive.
pub const MAX_ARCHIVE_BYTES: usize = 64 * 1024 * 1024;
/// Most entries.
pub const MAX_ARCHIVE_ENTRIES: usize = 4096;
/// Longest name of an entry.
pub const MAX_ENTRY_NAME_CHARS: usize = 128;

const LOCAL_HEADER: u32 = 0x0403_4b50;
const CENTRAL_HEADER: u32 = 0x0201_4b50;
const END_HEADER: u32 = 0x0605_4b50;
const LOCAL_HEADER_BYTES: usize = 30;
const CENTRAL_HEADER_BYTES: usize = 46;
const END_BYTES: usize = 22;
/// Version 1.0 of the format, made on MS-DOS: no attributes of any file system, hence no symbolic links.
const VERSION: u16 = 10;
const STORED: u16 = 0;
/// Midnight of 1 January 1980, the earliest time that the format has.
const DOS_TIME: u16 = 0;
const DOS_DATE: u16 = 0x0021;

/// Why an archive was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// A named bound is broken.
    #[error("the archive breaks the limit {0}")]
    TooLarge(&'static str),
    /// Cut off, or fields that point outside.
    #[error("the archive is truncated or its directory is wrong")]
    Truncated,
    /// Absolute, with `..`, with a backslash, a drive, a control character or any character outside `a-z A-Z 0-9 . _ - /`.
    #[error("the archive has an entry with a forbidden name")]
    ForbiddenName,
    /// Two entries have one name, or names that differ by case only.
    #[error("the archive has two entries whose names collide")]
    NameCollision,
    /// Compressed or encrypted.
    #[error("the archive has a compressed or encrypted entry")]
    NotStored,
    /// The entries together are larger than the archive.
    #[error("the archive has entries that overlap or are larger than the archive")]
    Overlap,
    /// A symbolic link, a directory or another special file.
    #[error("the archive has an entry that is not a plain file")]
    NotAFile,
    /// A zip archive inside the archive.
    #[error("the archive contains another archive")]
    Nested,
    /// The local header of an entry says something else than the directory.
    #[error("the archive's local header and directory disagree")]
    HeaderMismatch,
    /// The content does not have the checksum of the directory.
    #[error("the archive has an entry with a wrong checksum")]
    Checksum,
    /// Any other difference from the canonical form: order, times, flags, extra fields, comments, gaps, bytes before or after.
    #[error("the archive is not in canonical form")]
    NotCanonical,
}

/// Writes the archive of these files. The same files give the same bytes.
pub fn write(files: &BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>, ArchiveError> {
    let borrowed: BTreeMap<&str, &[u8]> = files
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    check_names(borrowed.keys().copied())?;
    check_content(&borrowed)?;
    encode(&borrowed)
}

/// Reads an archive; refuses every byte string that [`write()`] does not produce.
pub fn read(bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, ArchiveError> {
    if bytes.len() > MAX_ARCHIVE_BYTES {
        return Err(ArchiveError::TooLarge("MAX_ARCHIVE_BYTES"));
    }
    let entries = directory(bytes)?;
    check_names(entries.iter().map(|entry| entry.name))?;
    // Entries that share bytes could make a small archive cost a lot of work.
    if entries.iter().map(|entry| u64::from(entry.size)).sum::<u64>() > bytes.len() as u64 {
        return Err(ArchiveError::Overlap);
    }
    let mut files = BTreeMap::new();
    for entry in &entries {
        files.insert(entry.name, entry.content(bytes)?);
    }
    check_content(&files)?;
    if encode(&files)? != bytes {
        return Err(ArchiveError::NotCanonical);
    }
    Ok(files
        .into_iter()
        .map(|(name, content)| (name.to_owned(), content.to_vec()))
        .collect())
}

/// What the central directory says about one entry.
struct CentralEntry<'a> {
    name: &'a str,
    flags: u16,
    method: u16,
    external_attributes: u32,
    crc: u32,
    compressed: u32,
    size: u32,
    offset: u32,
}

impl<'a> CentralEntry<'a> {
    fn content(&self, archive: &'a [u8]) -> Result<&'a [u8], ArchiveError> {
        let encrypted_or_streamed = self.flags & 0b1001 != 0;
        if self.method != STORED || encrypted_or_streamed {
            return Err(ArchiveError::NotStored);
        }
        // The upper half holds the Unix mode, the bit 0x10 marks an MS-DOS directory.
        let kind = self.external_attributes >> 28;
        if self.external_attributes & 0x10 != 0 || (kind != 0 && kind != 0o10) {
            return Err(ArchiveError::NotAFile);
        }
        if self.compressed != self.size {
            return Err(ArchiveError::HeaderMismatch);
        }
        let local = archive
            .get(self.offset as usize..)
            .ok_or(ArchiveError::Truncated)?;
        let header = local.get(..LOCAL_HEADER_BYTES).ok_or(ArchiveError::Truncated)?;
        let (name_bytes, extra_bytes) = (usize::from(u16_at(header, 26)), usize::from(u16_at(header, 28)));
        let name = local
            .get(LOCAL_HEADER_BYTES..LOCAL_HEADER_BYTES + name_bytes)
            .ok_or(ArchiveError::Truncated)?;
        let agrees = u32_at(header, 0) == LOCAL_HEADER
            && u16_at(header, 6) == self.flags
            && u16_at(header, 8) == self.method
            && u32_at(header, 14) == self.crc
            && u32_at(header, 18) == self.compressed
            && u32_at(header, 22) == self.size
            && name == self.name.as_bytes();
        if !agrees {
            return Err(ArchiveError::HeaderMismatch);
        }
        let start = LOCAL_HEADER_BYTES + name_bytes + extra_bytes;
        let content = local.get(start..).and_then(|rest| rest.get(..self.size as usize));
        let content = content.ok_or(ArchiveError::Truncated)?;
        if crc32(content) == self.crc {
            Ok(content)
        } else {
            Err(ArchiveError::Checksum)
        }
    }
}

fn directory(bytes: &[u8]) -> Result<Vec<CentralEntry<'_>>, ArchiveError> {
    let end_at = bytes
        .len()
        .checked_sub(END_BYTES)
        .ok_or(ArchiveError::Truncated)?;
    let end = &bytes[end_at..];
    if u32_at(end, 0) != END_HEADER {
        // A comment or bytes after the end, or no zip file at all.
        return Err(ArchiveError::NotCanonical);
    }
    let count = usize::from(u16_at(end, 10));
    if count > MAX_ARCHIVE_ENTRIES {
        return Err(ArchiveError::TooLarge("MAX_ARCHIVE_ENTRIES"));
    }
    let start = u32_at(end, 16) as usize;
    let mut rest = bytes.get(start..end_at).ok_or(ArchiveError::Truncated)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let header = rest.get(..CENTRAL_HEADER_BYTES).ok_or(ArchiveError::Truncated)?;
        if u32_at(header, 0) != CENTRAL_HEADER {
            return Err(ArchiveError::Truncated);
        }
        let name_end = CENTRAL_HEADER_BYTES + usize::from(u16_at(header, 28));
        let name = rest
            .get(CENTRAL_HEADER_BYTES..name_end)
            .ok_or(ArchiveError::Truncated)?;
        entries.push(CentralEntry {
            name: std::str::from_utf8(name).map_err(|_| ArchiveError::ForbiddenName)?,
            flags: u16_at(header, 8),
            method: u16_at(header, 10),
            external_attributes: u32_at(header, 38),
            crc: u32_at(header, 16),
            compressed: u32_at(header, 20),
            size: u32_at(header, 24),
            offset: u32_at(header, 42),
        });
        let after = name_end + usize::from(u16_at(header, 30)) + usize::from(u16_at(header, 32));
        rest = rest.get(after..).ok_or(ArchiveError::Truncated)?;
    }
    if rest.is_empty() {
        Ok(entries)
    } else {
        Err(ArchiveError::NotCanonical)
    }
}

fn check_names<'n>(names: impl Iterator<Item = &'n str>) -> Result<(), ArchiveError> {
    let mut folded = std::collections::BTreeSet::new();
    for name in names {
        if !is_allowed_name(name) {
            return Err(ArchiveError::ForbiddenName);
        }
        if !folded.insert(name.to_ascii_lowercase()) {
            return Err(ArchiveError::NameCollision);
        }
        if folded.len() > MAX_ARCHIVE_ENTRIES {
            return Err(ArchiveError::TooLarge("MAX_ARCHIVE_ENTRIES"));
        }
    }
    Ok(())
}

fn is_allowed_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let part = |part: &str| {
        !part.is_empty() && !part.starts_with('.') && !part.ends_with('.') && part.bytes().all(allowed)
    };
    name.len() <= MAX_ENTRY_NAME_CHARS && name.split('/').all(part)
}

fn check_content(files: &BTreeMap<&str, &[u8]>) -> Result<(), ArchiveError> {
    let starts_archive = |content: &[u8]| {
        content
            .get(..4)
            .is_some_and(|magic| matches!(u32_at(magic, 0), LOCAL_HEADER | CENTRAL_HEADER | END_HEADER))
    };
    if files.values().any(|content| starts_archive(content)) {
        Err(ArchiveError::Nested)
    } else {
        Ok(())
    }
}

fn encode(files: &BTreeMap<&str, &[u8]>) -> Result<Vec<u8>, ArchiveError> {
    let per_entry = |name: &str, content: &[u8]| {
        LOCAL_HEADER_BYTES + CENTRAL_HEADER_BYTES + 2 * name.len() + content.len()
    };
    let total = files
        .iter()
        .map(|(name, content)| per_entry(name, content))
        .sum::<usize>()
        + END_BYTES;
    if total > MAX_ARCHIVE_BYTES {
        return Err(ArchiveError::TooLarge("MAX_ARCHIVE_BYTES"));
    }
    // Every length below fits its field: the archive as a whole is below 2^32 bytes, names and count below 2^16.
    let mut archive = Vec::with_capacity(total);
    let mut central = Vec::new();
    for (name, content) in files {
        let offset = archive.len() as u32;
        put32(&mut archive, LOCAL_HEADER);
        let shared = shared_header(name, content);
        archive.extend_from_slice(&shared);
        archive.extend_from_slice(name.as_bytes());
        archive.extend_from_slice(content);
        put32(&mut central, CENTRAL_HEADER);
        put16(&mut central, VERSION);
        central.extend_from_slice(&shared);
        // Comment length, disk, internal attributes; external attributes.
        central.extend_from_slice(&[0; 10]);
        put32(&mut central, offset);
        central.extend_from_slice(name.as_bytes());
    }
    let start = archive.len() as u32;
    archive.extend_from_slice(&central);
    put32(&mut archive, END_HEADER);
    put32(&mut archive, 0);
    put16(&mut archive, files.len() as u16);
    put16(&mut archive, files.len() as u16);
    put32(&mut archive, central.len() as u32);
    put32(&mut archive, start);
    put16(&mut archive, 0);
    Ok(archive)
}

/// The fields that a local and a central header have in common and in the same order, from "version needed" on.
fn shared_header(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = Vec::with_capacity(26);
    for field in [VERSION, 0, STORED, DOS_TIME, DOS_DATE] {
        put16(&mut header, field);
    }
    for field in [crc32(content), content.len() as u32, content.len() as u32] {
        put32(&mut header, field);
    }
    put16(&mut header, name.len() as u16);
    put16(&mut header, 0);
    header
}

fn put16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Reads a little-endian number at a fixed place of a header whose length was checked.
fn u16_at(header: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([header[at], header[at + 1]])
}

/// Reads a little-endian number at a fixed place of a header whose length was checked.
fn u32_at(header: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

/// The checksum of the format: CRC-32 with the reflected polynomial 0xEDB88320.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        CRC_TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8)
    })
}

const CRC_TABLE: [u32; 256] = crc_table();

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                0xedb8_8320 ^ (crc >> 1)
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}
