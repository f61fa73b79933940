use std::collections::BTreeMap;
use std::io::{Cursor, Read as _, Write as _};

use muster_trust::archive::{ArchiveError, MAX_ARCHIVE_ENTRIES, read, write};
use proptest::prelude::*;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::support::bit_flips;

fn files(list: &[(&str, &[u8])]) -> BTreeMap<String, Vec<u8>> {
    list.iter()
        .map(|(name, content)| ((*name).to_owned(), content.to_vec()))
        .collect()
}

fn sample() -> Vec<u8> {
    write(&files(&[("a.json", b"{}"), ("dir/b.json", b"[1,2,3]")])).unwrap()
}

/// What another zip writer makes of the entries; `stored` and a fixed time as near to ours as it gets.
fn foreign(entries: &[(&str, &[u8])], options: SimpleFileOptions) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        writer.start_file(*name, options).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn stored() -> SimpleFileOptions {
    SimpleFileOptions::default().compression_method(CompressionMethod::Stored)
}

/// Replaces every occurrence of a name by another of the same length: in local and central header alike.
fn renamed(archive: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = archive.to_vec();
    for start in 0..bytes.len() - from.len() {
        if &bytes[start..start + from.len()] == from.as_bytes() {
            bytes[start..start + to.len()].copy_from_slice(to.as_bytes());
        }
    }
    bytes
}

fn position(bytes: &[u8], needle: &[u8]) -> usize {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
        .expect("the needle is there")
}

#[test]
fn an_archive_round_trips_and_other_tools_read_it() {
    let list = files(&[("a.json", b"{}"), ("dir/b.json", b"[1,2,3]"), ("empty", b"")]);
    let bytes = write(&list).unwrap();
    assert_eq!(read(&bytes).unwrap(), list);
    assert_eq!(write(&list).unwrap(), bytes);
    let mut other = ZipArchive::new(Cursor::new(bytes)).unwrap();
    assert_eq!(other.len(), 3);
    for (name, content) in &list {
        let mut text = Vec::new();
        other.by_name(name).unwrap().read_to_end(&mut text).unwrap();
        assert_eq!(&text, content);
    }
}

#[test]
fn p1_every_bit_flip_of_an_archive_is_refused() {
    for (at, changed) in bit_flips(&sample()) {
        assert!(read(&changed).is_err(), "byte {at}");
    }
}

#[test]
fn p1_every_truncation_insertion_and_removal_is_refused() {
    let good = sample();
    for at in 0..good.len() {
        assert!(read(&good[..at]).is_err(), "cut at {at}");
        assert!(read(&good[at + 1..]).is_err(), "begun after {at}");
        assert!(
            read(&[&good[..at], &good[at + 1..]].concat()).is_err(),
            "without {at}"
        );
        assert!(
            read(&[&good[..at], &[0], &good[at..]].concat()).is_err(),
            "a zero before {at}"
        );
    }
    assert!(read(&[good.as_slice(), &[0]].concat()).is_err());
    assert!(read(&[good.as_slice(), &good].concat()).is_err());
    assert!(read(b"").is_err());
}

#[test]
fn p10_traversal_absolute_and_strange_names_are_refused() {
    let good = write(&files(&[("aaaa/bbbbbb", b"x")])).unwrap();
    read(&good).unwrap();
    for name in [
        "../../etc/x",
        "/etc/passwd",
        "aaaa/../bbb",
        "..\\..\\evils",
        "C:/windowsx",
        "aaaa//bbbbb",
        "aaaa/bbbbb/",
        "./aaaa/bbbb",
        "aaaa/bbbbb\u{0}",
        "aaaa/bbb\u{e9}b",
        "aaaa/bb bbb",
        "aaaa/.bbbbb",
        "aaaa/bbbbb.",
        "aaaa/bb\nbbb",
        "aaaa/bbb:bb",
        "~aaa/bbbbbb",
    ] {
        let bytes = renamed(&good, "aaaa/bbbbbb", name);
        assert_eq!(read(&bytes), Err(ArchiveError::ForbiddenName), "{name:?}");
        assert_eq!(
            write(&files(&[(name, b"x")])),
            Err(ArchiveError::ForbiddenName),
            "{name:?}"
        );
    }
    let long = "n".repeat(129);
    assert_eq!(write(&files(&[(&long, b"")])), Err(ArchiveError::ForbiddenName));
    assert_eq!(write(&files(&[("", b"")])), Err(ArchiveError::ForbiddenName));
}

#[test]
fn p10_duplicates_and_case_collisions_are_refused() {
    let good = write(&files(&[("a.json", b"1"), ("b.json", b"2")])).unwrap();
    assert_eq!(
        read(&renamed(&good, "b.json", "a.json")),
        Err(ArchiveError::NameCollision)
    );
    assert_eq!(
        read(&renamed(&good, "b.json", "A.json")),
        Err(ArchiveError::NameCollision)
    );
    assert_eq!(
        write(&files(&[("a", b""), ("A", b"")])),
        Err(ArchiveError::NameCollision)
    );
    assert_eq!(
        write(&files(&[("Dir/x", b""), ("dir/X", b"")])),
        Err(ArchiveError::NameCollision)
    );
}

#[test]
fn p10_symbolic_links_and_directories_are_refused() {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.add_symlink("link", "/etc/passwd", stored()).unwrap();
    let bytes = writer.finish().unwrap().into_inner();
    assert_eq!(read(&bytes), Err(ArchiveError::NotAFile));
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.add_directory("dir/", stored()).unwrap();
    let bytes = writer.finish().unwrap().into_inner();
    assert!(matches!(
        read(&bytes),
        Err(ArchiveError::ForbiddenName | ArchiveError::NotAFile)
    ));
}

#[test]
fn p10_too_many_entries_are_refused() {
    let many = |count: usize| -> BTreeMap<String, Vec<u8>> {
        (0..count).map(|n| (format!("f{n:06}"), vec![])).collect()
    };
    let most = write(&many(MAX_ARCHIVE_ENTRIES)).unwrap();
    assert_eq!(read(&most).unwrap().len(), MAX_ARCHIVE_ENTRIES);
    assert_eq!(
        write(&many(MAX_ARCHIVE_ENTRIES + 1)),
        Err(ArchiveError::TooLarge("MAX_ARCHIVE_ENTRIES"))
    );
    let names: Vec<String> = (0..10_000).map(|n| n.to_string()).collect();
    let entries: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), b"".as_slice())).collect();
    assert_eq!(
        read(&foreign(&entries, stored())),
        Err(ArchiveError::TooLarge("MAX_ARCHIVE_ENTRIES"))
    );
}

#[test]
fn p10_archives_are_bounded_in_size() {
    let big = files(&[("a", &vec![0; 40 << 20]), ("b", &vec![0; 40 << 20])]);
    assert_eq!(write(&big), Err(ArchiveError::TooLarge("MAX_ARCHIVE_BYTES")));
    assert_eq!(
        read(&vec![0; (64 << 20) + 1]),
        Err(ArchiveError::TooLarge("MAX_ARCHIVE_BYTES"))
    );
}

/// A compression bomb cannot be expressed: nothing that claims to be compressed or to be larger than it is gets read.
#[test]
fn p10_compressed_encrypted_and_lying_sizes_are_refused() {
    let good = sample();
    let central = position(&good, b"PK\x01\x02");
    let with = |changes: &[(usize, u8)]| {
        let mut bytes = good.clone();
        for (at, value) in changes {
            bytes[*at] = *value;
        }
        read(&bytes)
    };
    // Method 8 (deflate) in both headers, the encryption flag, the "sizes follow" flag.
    assert_eq!(with(&[(8, 8), (central + 10, 8)]), Err(ArchiveError::NotStored));
    assert_eq!(with(&[(6, 1), (central + 8, 1)]), Err(ArchiveError::NotStored));
    assert_eq!(with(&[(6, 8), (central + 8, 8)]), Err(ArchiveError::NotStored));
    // The uncompressed size alone raised to 16 MiB and more: a ratio far above 100.
    assert_eq!(with(&[(25, 1), (central + 27, 1)]), Err(ArchiveError::Overlap));
    // By a few bytes: the sizes of one header disagree.
    let a_little_more = [(22, 3), (central + 24, 3)];
    assert_eq!(with(&a_little_more), Err(ArchiveError::HeaderMismatch));
    // Both sizes raised: points outside.
    let both = |at: usize, value: u8| {
        with(&[
            (18 + at, value),
            (22 + at, value),
            (central + 20 + at, value),
            (central + 24 + at, value),
        ])
    };
    assert_eq!(both(3, 1), Err(ArchiveError::Overlap));
    assert_eq!(both(0, 200), Err(ArchiveError::Truncated));
}

/// Many entries over the same bytes: each alone is in order, all together cost the square of the archive's length.
#[test]
fn p10_overlapping_entries_are_refused() {
    let content = vec![b'x'; 1000];
    let good = write(&files(&[("a", &content), ("b", &content)])).unwrap();
    let central = position(&good, b"PK\x01\x02");
    let second = central + 47;
    let mut bytes = good.clone();
    // Both entries, in their local and central headers, claim everything up to the end of the archive.
    let everything = (good.len() as u32 - 31).to_le_bytes();
    for sizes in [18, 1031 + 18, central + 20, second + 20] {
        bytes[sizes..sizes + 4].copy_from_slice(&everything);
        bytes[sizes + 4..sizes + 8].copy_from_slice(&everything);
    }
    assert_eq!(read(&bytes), Err(ArchiveError::Overlap));
}

#[test]
fn p10_nested_archives_are_refused() {
    let inner = sample();
    assert_eq!(write(&files(&[("inner.zip", &inner)])), Err(ArchiveError::Nested));
    assert_eq!(
        write(&files(&[("settings.json", b"PK\x05\x06 and more")])),
        Err(ArchiveError::Nested)
    );
    let outer = foreign(&[("inner", &inner)], stored());
    assert!(matches!(
        read(&outer),
        Err(ArchiveError::Nested | ArchiveError::NotAFile | ArchiveError::NotCanonical)
    ));
}

/// Two readers, one of which believes the local header and one the directory, must not see different files.
#[test]
fn p10_local_and_central_headers_must_agree() {
    let good = write(&files(&[("a.json", b"11"), ("b.json", b"22")])).unwrap();
    let local_name = position(&good, b"a.json");
    let central = position(&good, b"PK\x01\x02");
    let change = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        read(&bytes)
    };
    assert_eq!(change(local_name, b'c'), Err(ArchiveError::HeaderMismatch));
    assert_eq!(change(14, good[14] ^ 1), Err(ArchiveError::HeaderMismatch));
    assert_eq!(change(18, 1), Err(ArchiveError::HeaderMismatch));
    assert_eq!(change(8, 8), Err(ArchiveError::HeaderMismatch));
    // The directory points at the other entry's header, or at the middle of one.
    let second = position(&good[1..], b"PK\x03\x04") + 1;
    assert_eq!(
        change(central + 42, second as u8),
        Err(ArchiveError::HeaderMismatch)
    );
    assert!(matches!(
        change(central + 42, 4),
        Err(ArchiveError::HeaderMismatch | ArchiveError::Truncated)
    ));
    // Content that matches neither checksum.
    assert_eq!(change(36, b'9'), Err(ArchiveError::Checksum));
}

#[test]
fn p10_gaps_comments_order_and_times_are_not_canonical() {
    let good = sample();
    let central = position(&good, b"PK\x01\x02");
    let end = good.len() - 22;
    // Bytes between the entries and the directory, with all offsets corrected.
    let mut gap = [&good[..central], b"hidden", &good[central..]].concat();
    let start = u32::from_le_bytes(gap[end + 6 + 16..end + 6 + 20].try_into().unwrap()) + 6;
    gap[end + 6 + 16..end + 6 + 20].copy_from_slice(&start.to_le_bytes());
    assert_eq!(read(&gap), Err(ArchiveError::NotCanonical));
    // A comment, properly announced.
    let mut comment = [&good[..], b"hi"].concat();
    comment[end + 20] = 2;
    assert_eq!(read(&comment), Err(ArchiveError::NotCanonical));
    // Another time in both headers.
    let mut time = good.clone();
    (time[10], time[central + 12]) = (1, 1);
    assert_eq!(read(&time), Err(ArchiveError::NotCanonical));
    // A proper archive by another tool, and one in another order.
    let options = stored().unix_permissions(0o644);
    for entries in [[("a", b"1"), ("b", b"2")], [("b", b"2"), ("a", b"1")]] {
        let entries = entries.map(|(name, content)| (name, content.as_slice()));
        assert_eq!(read(&foreign(&entries, options)), Err(ArchiveError::NotCanonical));
    }
}

proptest! {
    #[test]
    fn the_reader_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(&bytes);
        // The same with an end record, so that the directory is looked at.
        let end = [b"PK\x05\x06\0\0\0\0".as_slice(), &bytes[..bytes.len().min(12)]].concat();
        let mut whole = [bytes.as_slice(), &end].concat();
        whole.resize(bytes.len() + 22, 0);
        let _ = read(&whole);
    }

    #[test]
    fn bit_flips_and_overwrites_never_panic(at in 0usize..400, value in any::<[u8; 4]>()) {
        let mut bytes = sample();
        let at = at % (bytes.len() - 4);
        let before = bytes.clone();
        bytes[at..at + 4].copy_from_slice(&value);
        prop_assert_eq!(read(&bytes).is_ok(), bytes == before);
    }

    #[test]
    fn any_files_round_trip(list in proptest::collection::btree_map("[a-z]{1,8}(/[a-z0-9_-]{1,8})?", proptest::collection::vec(0u8..64, 0..60), 0..12)) {
        let bytes = write(&list).unwrap();
        prop_assert_eq!(read(&bytes).unwrap(), list);
    }
}
