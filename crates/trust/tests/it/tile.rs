use std::cell::Cell;
use std::convert::Infallible;

use muster_trust::merkle::{BuildError, leaf_hash, verify_consistency, verify_inclusion};
use muster_trust::tile::{
    Tile, TilePath, consistency_proof, decode_entries, decode_hashes, encode_entries, encode_hashes,
    frontier, inclusion_proof, root,
};
use proptest::prelude::*;

use crate::support::TestLog;

fn log_of(size: u64) -> TestLog {
    let mut log = TestLog::default();
    for n in 0..size {
        log.append(n.to_be_bytes().to_vec());
    }
    log
}

/// The examples of <https://c2sp.org/tlog-tiles>.
#[test]
fn paths_are_those_of_the_specification() {
    let path = |index, width| {
        TilePath::Hashes(Tile {
            level: 0,
            index,
            width,
        })
        .to_string()
    };
    assert_eq!(path(1_234_067, 256), "tile/0/x001/x234/067");
    assert_eq!(path(0, 256), "tile/0/000");
    assert_eq!(path(273, 112), "tile/0/273.p/112");
    assert_eq!(path(1000, 256), "tile/0/x001/000");
    assert_eq!(
        TilePath::Entries(Tile {
            level: 0,
            index: 5,
            width: 1
        })
        .to_string(),
        "tile/entries/005.p/1"
    );
    for path in [
        "tile/0/x001/x234/067",
        "tile/63/000",
        "tile/1/273.p/112",
        "tile/entries/x999/999.p/255",
    ] {
        assert_eq!(path.parse::<TilePath>().unwrap().to_string(), path);
    }
    let wrong = [
        "",
        "tile",
        "tile/",
        "tile/0",
        "tile/0/",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/x000/000",
        "tile/00/000",
        "tile/64/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/000/p/1",
        "tile/+1/000",
        "tile/0/001/234",
        "tile/0/x001/x234",
        "tile/0/-01",
        "/tile/0/000",
        "tile/0/000/",
        "tile/0/../000",
        "tile/entries/0/000",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
    ];
    for path in wrong {
        assert!(path.parse::<TilePath>().is_err(), "{path}");
    }
}

/// The example of the specification: 70,000 entries.
#[test]
fn widths_are_those_of_the_specification() {
    let width = |level, index| Tile::in_tree(level, index, 70_000).map(|tile| tile.width);
    assert_eq!(width(0, 272), Some(256));
    assert_eq!(width(0, 273), Some(112));
    assert_eq!(width(0, 274), None);
    assert_eq!(width(1, 0), Some(256));
    assert_eq!(width(1, 1), Some(17));
    assert_eq!(width(2, 0), Some(1));
    assert_eq!(width(3, 0), None);
    assert_eq!(Tile::in_tree(1, 0, 256).unwrap().width, 1);
    assert_eq!(Tile::in_tree(200, u64::MAX, u64::MAX), None);
}

#[test]
fn appending_fills_the_tiles_and_every_proof_comes_out_of_them() {
    let log = log_of(1300);
    assert_eq!(log.tiles[&(0, 0)].len(), 256);
    assert_eq!(log.tiles[&(0, 5)].len(), 1300 - 5 * 256);
    assert_eq!(log.tiles[&(1, 0)].len(), 5);
    for size in [1, 2, 255, 256, 257, 511, 512, 513, 1000, 1299, 1300] {
        let head = root(size, |tile| log.read(tile)).unwrap();
        assert_eq!(frontier(size, |tile| log.read(tile)).unwrap().root(), head);
        for index in (0..size).step_by(37).chain([size - 1]) {
            let proof = inclusion_proof(index, size, |tile| log.read(tile)).unwrap();
            verify_inclusion(&leaf_hash(&index.to_be_bytes()), index, size, &proof, &head).unwrap();
        }
        for from in (0..=size).step_by(53) {
            let old = root(from, |tile| log.read(tile)).unwrap();
            let proof = consistency_proof(from, size, |tile| log.read(tile)).unwrap();
            verify_consistency(from, &old, size, &head, &proof).unwrap();
        }
    }
    assert_eq!(root(1300, |tile| log.read(tile)).unwrap(), log.frontier.root());
}

#[test]
fn a_proof_reads_few_tiles() {
    let log = log_of(70_000);
    let reads = Cell::new(0);
    let read = |tile| {
        reads.set(reads.get() + 1);
        log.read(tile)
    };
    inclusion_proof(12_345, 70_000, read).unwrap();
    assert!(reads.get() <= 5, "{} tiles read", reads.get());
    reads.set(0);
    consistency_proof(12_345, 70_000, read).unwrap();
    assert!(reads.get() <= 6, "{} tiles read", reads.get());
}

#[test]
fn a_short_tile_is_an_error_and_not_a_wrong_proof() {
    let log = log_of(300);
    let short = |tile: Tile| log.read(tile).map(|hashes| hashes[..hashes.len() - 1].to_vec());
    assert!(matches!(
        inclusion_proof(299, 300, short),
        Err(BuildError::Missing(_))
    ));
    let empty = |_: Tile| Ok::<_, Infallible>(Vec::new());
    assert!(matches!(root(300, empty), Err(BuildError::Missing(_))));
    assert_eq!(
        inclusion_proof(0, 9, |_| Err("disk")),
        Err(BuildError::Store("disk"))
    );
}

#[test]
fn tiles_and_bundles_round_trip() {
    let hashes: Vec<_> = (0..256u32).map(|n| leaf_hash(&n.to_be_bytes())).collect();
    assert_eq!(decode_hashes(&encode_hashes(&hashes)).unwrap(), hashes);
    assert_eq!(decode_hashes(&[0; 31]), None);
    assert_eq!(decode_hashes(&[]), None);
    assert_eq!(decode_hashes(&[0; 257 * 32]), None);
    let entries: Vec<&[u8]> = vec![b"one", b"", b"three"];
    assert_eq!(
        decode_entries(&encode_entries(entries.clone()).unwrap()).unwrap(),
        entries
    );
    assert_eq!(encode_entries([vec![0; 65_536].as_slice()]), None);
    assert_eq!(encode_entries(vec![b"".as_slice(); 257]), None);
    assert_eq!(decode_entries(&[0; 2 * 257]), None);
    assert_eq!(decode_entries(&[0, 5, 1]), None);
}

proptest! {
    #[test]
    fn decoders_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), path in "tile/[0-9entris]{0,3}/[x0-9/.p]{0,24}") {
        let _ = decode_hashes(&bytes);
        if let Some(entries) = decode_entries(&bytes) {
            prop_assert_eq!(encode_entries(entries).unwrap(), bytes);
        }
        if let Ok(parsed) = path.parse::<TilePath>() {
            prop_assert_eq!(parsed.to_string(), path);
        }
    }

    #[test]
    fn every_path_round_trips(level in 0u8..=63, index in any::<u64>(), width in 1u32..=256) {
        let path = TilePath::Hashes(Tile { level, index, width });
        prop_assert_eq!(path.to_string().parse::<TilePath>().unwrap(), path);
    }
}
