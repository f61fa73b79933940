//! L3 on files: whatever is changed in a folder, the first bad entry is named.

use muster_model::EntryId;
use muster_trust::checkpoint;
use muster_trust::entry::{Actor, ActorKind, LogEntry, Object};
use muster_trust::key::SigningKey;
use muster_trust::merkle::{Frontier, leaf_hash};
use muster_trust::note::verifier_key;

use super::*;

const SIZE: u64 = 600;
const EARLIER: u64 = 300;

fn key(seed: u8) -> SigningKey {
    SigningKey::ed25519_from_seed(&[seed; 32]).expect("any seed is a key")
}

fn tenant() -> TenantId {
    TenantId::from_uuid(uuid::Uuid::from_u128(7))
}

fn entry(number: u64, word: &str) -> Vec<u8> {
    let entry = LogEntry {
        id: EntryId::from_uuid(uuid::Uuid::from_u128(u128::from(number))),
        at: Timestamp::from_micros(1_790_000_000_000_000 + i64::try_from(number).expect("small")),
        tenant: tenant(),
        actor: Actor {
            kind: ActorKind::System,
            id: "test".to_owned(),
        },
        action: format!("test.{word}"),
        object: Object {
            kind: "test".to_owned(),
            id: number.to_string(),
        },
        detail: serde_json::Map::new(),
    };
    entry.canonical_bytes().expect("within limits")
}

/// Writes entries, tiles and heads of a log; a head is signed at each of `sizes`.
fn write_log(folder: &Path, entries: &[Vec<u8>], sizes: &[u64]) {
    let (mut frontier, mut tiles) = (Frontier::new(), std::collections::BTreeMap::new());
    for (place, bytes) in entries.iter().enumerate() {
        for hash in tile::append(&mut frontier, leaf_hash(bytes)).expect("there is room") {
            let at = (hash.level, hash.index / u64::from(TILE_WIDTH));
            tiles.entry(at).or_insert_with(Vec::new).push(hash.hash);
        }
        if sizes.contains(&(place as u64 + 1)) {
            sign_head(folder, place as u64 + 1, frontier.root());
        }
    }
    for path in tiles_of(entries.len() as u64) {
        let bytes = match path {
            TilePath::Hashes(tile) => tile::encode_hashes(&tiles[&(tile.level, tile.index)]),
            TilePath::Entries(tile) => {
                let from = (tile.index * u64::from(TILE_WIDTH)) as usize;
                let rows = &entries[from..from + tile.width as usize];
                tile::encode_entries(rows.iter().map(Vec::as_slice)).expect("they fit")
            }
        };
        write(&folder.join(path.to_string()), &bytes).expect("it is written");
    }
}

fn sign_head(folder: &Path, size: u64, root: Hash) {
    let body = CheckpointBody {
        origin: checkpoint::origin(tenant()),
        size,
        root,
        time: Timestamp::from_unix_seconds(1_790_000_000),
    };
    let mut note = body.sign(&[&key(1)]).expect("it signs");
    note.cosign("witness.example", &key(2), 1_790_000_001)
        .expect("it cosigns");
    for name in ["checkpoint".to_owned(), format!("checkpoints/{size}")] {
        write(&folder.join(name), note.to_string().as_bytes()).expect("it is written");
    }
}

fn arguments(folder: &Path, witness: u8) -> VerifyArgs {
    let text = |name: &str, kind, seed| verifier_key(name, kind, key(seed).public()).expect("it is Ed25519");
    let log = text(&checkpoint::origin(tenant()), SignatureType::Ed25519, 1);
    let witness = text("witness.example", SignatureType::Cosignature, witness);
    VerifyArgs {
        folder: Some(folder.to_owned()),
        key: Some(log.parse().expect("it is a key")),
        witness: vec![witness.parse().expect("it is a key")],
        ..VerifyArgs::default()
    }
}

fn log() -> (tempfile::TempDir, Vec<Vec<u8>>) {
    let folder = tempfile::tempdir().expect("a folder");
    let entries: Vec<_> = (0..SIZE).map(|number| entry(number, "made")).collect();
    write_log(folder.path(), &entries, &[EARLIER, SIZE]);
    (folder, entries)
}

fn said(folder: &Path) -> String {
    match verify_folder(&arguments(folder, 2)) {
        Ok(report) => panic!("it verifies: {report:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_whole_folder_verifies_without_anything_else() {
    let (folder, _) = log();
    let report = verify_folder(&arguments(folder.path(), 2)).expect("it verifies");
    assert_eq!((report.entries, report.checkpoints), (SIZE, 2));
    let other_witness = verify_folder(&arguments(folder.path(), 3)).expect_err("nobody else cosigned");
    assert!(
        other_witness.to_string().contains("has not cosigned"),
        "{other_witness}"
    );
}

#[test]
fn l3_the_first_bad_entry_of_a_folder_is_named() {
    type Change = fn(&mut Vec<Vec<u8>>);
    let table: [(&str, Change, &str); 6] = [
        ("changed", |rows| rows[411] = entry(411, "unmade"), "entry 411:"),
        ("removed", |rows| drop(rows.remove(5)), "entry 5:"),
        (
            "inserted",
            |rows| rows.insert(257, entry(9000, "made")),
            "entry 257:",
        ),
        ("reordered", |rows| rows.swap(300, 301), "entry 300:"),
        ("reordered far", |rows| rows.swap(2, 500), "entry 2:"),
        ("tail cut off", |rows| rows.truncate(590), "entry 590:"),
    ];
    for (what, change, words) in table {
        let (folder, mut rows) = log();
        change(&mut rows);
        for tile in (0..).map_while(|index| Tile::in_tree(0, index, SIZE)) {
            let from = (tile.index * u64::from(TILE_WIDTH)) as usize;
            let until = (from + tile.width as usize).min(rows.len());
            let bytes = tile::encode_entries(rows[from..until].iter().map(Vec::as_slice)).expect("they fit");
            let path = folder.path().join(TilePath::Entries(tile).to_string());
            write(&path, &bytes).expect("it is written");
        }
        let said = said(folder.path());
        assert!(said.contains(words), "{what}: {said}");
    }
}

#[test]
fn l3_a_tail_that_was_cut_off_with_its_head_is_found_by_a_kept_head() {
    let (folder, entries) = log();
    let kept = std::fs::read(folder.path().join(format!("checkpoints/{SIZE}"))).expect("it is there");
    std::fs::remove_dir_all(folder.path().join("tile")).expect("it can be removed");
    std::fs::remove_dir_all(folder.path().join("checkpoints")).expect("it can be removed");
    write_log(folder.path(), &entries[..500], &[500]);
    assert!(
        verify_folder(&arguments(folder.path(), 2)).is_ok(),
        "alone it is a log"
    );
    // The head of before comes from the archive, or from whoever kept it.
    write(&folder.path().join(format!("checkpoints/{SIZE}")), &kept).expect("it is written");
    let said = said(folder.path());
    assert!(said.contains("entry 500:"), "{said}");
}

#[test]
fn l3_a_fork_is_named_by_the_two_heads() {
    let (folder, mut entries) = log();
    let kept = std::fs::read(folder.path().join(format!("checkpoints/{EARLIER}"))).expect("it is there");
    entries[100] = entry(100, "forged");
    std::fs::remove_dir_all(folder.path()).expect("it can be removed");
    write_log(folder.path(), &entries, &[EARLIER, SIZE]);
    assert!(
        verify_folder(&arguments(folder.path(), 2)).is_ok(),
        "whoever has the log key can do this"
    );
    write(&folder.path().join("checkpoints/kept"), &kept).expect("it is written");
    assert!(
        said(folder.path()).contains("two different heads of 300"),
        "{}",
        said(folder.path())
    );
}

#[test]
fn files_that_are_gone_or_strange_are_no_panic() {
    for (path, content) in [
        ("tile/entries/001", None),
        ("tile/0/000", None),
        ("tile/0/000", Some(&b"short"[..])),
        ("tile/1/000.p/2", None),
        ("tile/entries/000", Some(&b"\x00\xff"[..])),
        ("checkpoint", None),
        ("checkpoint", Some(b"\xff")),
        ("checkpoints/300", Some(b"text\n")),
    ] {
        let (folder, _) = log();
        let file = folder.path().join(path);
        match content {
            None => std::fs::remove_file(&file).expect("it is there"),
            Some(bytes) => std::fs::write(&file, bytes).expect("it can be written"),
        }
        said(folder.path());
    }
}
