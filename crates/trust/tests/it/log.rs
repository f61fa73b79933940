use std::convert::Infallible;

use muster_trust::checkpoint::CheckpointBody;
use muster_trust::entry::Object;
use muster_trust::log::{BadEntry, StoredEntry, Summary, VerifyError, Why, verify_log};
use muster_trust::merkle::{Hash, leaf_hash};
use muster_trust::tile::Tile;
use proptest::prelude::*;
use serde_json::json;

use crate::support::{Tenant, TestLog, at};

fn tenant_with(entries: u64) -> Tenant {
    let mut tenant = Tenant::new(1);
    for n in 0..entries {
        let object = Object {
            kind: "device".to_owned(),
            id: format!("dev_{n}"),
        };
        tenant.log_entry("device.enrolled", object, json!({"number": n}));
    }
    tenant
}

fn rows(log: &TestLog) -> Vec<StoredEntry> {
    log.rows
        .iter()
        .enumerate()
        .map(|(n, bytes)| StoredEntry {
            index: n as u64,
            bytes: bytes.clone(),
        })
        .collect()
}

fn heads(tenant: &Tenant, sizes: &[u64]) -> Vec<CheckpointBody> {
    sizes
        .iter()
        .map(|size| tenant.log.body(tenant.id, *size, at(*size)))
        .collect()
}

fn verify(tenant: &Tenant, rows: Vec<StoredEntry>, heads: &[CheckpointBody]) -> Result<Summary, BadEntry> {
    let rows = rows.into_iter().map(Ok::<_, Infallible>);
    verify_log(tenant.id, rows, |tile| tenant.log.read(tile), heads).map_err(|error| match error {
        VerifyError::Bad(bad) => bad,
        VerifyError::Store(never) => match never {},
    })
}

fn bad(index: u64, why: Why) -> Result<Summary, BadEntry> {
    Err(BadEntry { index, why })
}

/// A valid row that says something else than the one at this place.
fn other_row(index: u64) -> StoredEntry {
    let mut other = Tenant::new(1);
    let object = Object {
        kind: "device".to_owned(),
        id: "dev_forged".to_owned(),
    };
    other.log_entry("device.wiped", object, json!({}));
    StoredEntry {
        index,
        bytes: other.log.rows.remove(0),
    }
}

#[test]
fn an_honest_log_verifies_with_its_unsigned_tail() {
    let tenant = tenant_with(600);
    let heads = heads(&tenant, &[0, 1, 256, 300, 590]);
    let summary = verify(&tenant, rows(&tenant.log), &heads).unwrap();
    let root = heads[4].root;
    assert_eq!(
        summary,
        Summary {
            signed_entries: 590,
            unsigned_entries: 10,
            root,
            checkpoints: 5
        }
    );
    let empty = Tenant::new(1);
    assert_eq!(verify(&empty, vec![], &[]).unwrap().signed_entries, 0);
}

#[test]
fn l3_a_changed_row_is_named() {
    let tenant = tenant_with(300);
    let heads = heads(&tenant, &[300]);
    for index in [0, 1, 255, 256, 299] {
        let mut rows = rows(&tenant.log);
        let row = &mut rows[index as usize];
        *row.bytes.last_mut().unwrap() ^= 1;
        assert_eq!(verify(&tenant, rows, &heads), bad(index, Why::Changed));
    }
}

#[test]
fn l3_the_first_of_several_changes_is_named() {
    let tenant = tenant_with(300);
    let mut rows = rows(&tenant.log);
    for index in [280, 17, 90] {
        rows[index].bytes[5] ^= 1;
    }
    assert_eq!(
        verify(&tenant, rows, &heads(&tenant, &[300])),
        bad(17, Why::Changed)
    );
}

#[test]
fn l3_a_removed_row_is_named_with_and_without_renumbering() {
    let tenant = tenant_with(300);
    let heads = heads(&tenant, &[300]);
    for index in [0, 7, 256, 299] {
        let mut gap = rows(&tenant.log);
        gap.remove(index);
        assert_eq!(
            verify(&tenant, gap.clone(), &heads),
            bad(index as u64, Why::Removed)
        );
        for (n, row) in gap.iter_mut().enumerate() {
            row.index = n as u64;
        }
        let why = if index == 299 { Why::Removed } else { Why::Changed };
        assert_eq!(verify(&tenant, gap, &heads), bad(index as u64, why));
    }
}

#[test]
fn l3_an_added_row_is_named() {
    let tenant = tenant_with(300);
    let heads = heads(&tenant, &[300]);
    let mut inserted = rows(&tenant.log);
    inserted.insert(40, other_row(40));
    assert_eq!(verify(&tenant, inserted.clone(), &heads), bad(40, Why::Changed));
    let mut twice = rows(&tenant.log);
    twice.insert(40, twice[39].clone());
    assert_eq!(verify(&tenant, twice, &heads), bad(39, Why::OutOfOrder));
    let mut appended = rows(&tenant.log);
    appended.push(other_row(300));
    assert_eq!(verify(&tenant, appended, &heads), bad(300, Why::Added));
}

#[test]
fn l3_reordered_rows_are_named() {
    let tenant = tenant_with(300);
    let heads = heads(&tenant, &[300]);
    let mut swapped = rows(&tenant.log);
    swapped.swap(10, 20);
    assert_eq!(verify(&tenant, swapped.clone(), &heads), bad(10, Why::Removed));
    (swapped[10].index, swapped[20].index) = (10, 20);
    assert_eq!(verify(&tenant, swapped, &heads), bad(10, Why::Changed));
}

#[test]
fn l3_a_cut_tail_is_named_even_if_the_tiles_are_cut_as_well() {
    let tenant = tenant_with(300);
    let signed = heads(&tenant, &[300]);
    let mut cut = rows(&tenant.log);
    cut.truncate(280);
    assert_eq!(verify(&tenant, cut.clone(), &signed), bad(280, Why::Removed));
    let shorter = tenant_with(280);
    assert_eq!(
        verify(&shorter, cut, &signed),
        bad(280, Why::Truncated { signed: 300 })
    );
    // An unsigned tail that lost its last row, and not its leaf.
    let mut unsigned = rows(&tenant.log);
    unsigned.truncate(299);
    assert_eq!(
        verify(&tenant, unsigned, &heads(&tenant, &[280])),
        bad(299, Why::Removed)
    );
}

/// Somebody with the database changes the row, its leaf hash and every tile above it.
#[test]
fn l3_a_log_that_was_rewritten_with_its_tiles_contradicts_the_signed_heads() {
    let honest = tenant_with(300);
    let signed = heads(&honest, &[100, 200, 300]);
    let mut forged = Tenant::new(1);
    for (index, row) in honest.log.rows.iter().enumerate() {
        forged.log.append(if index == 150 {
            other_row(150).bytes
        } else {
            row.clone()
        });
    }
    let result = verify(&forged, rows(&forged.log), &signed);
    assert_eq!(result, bad(100, Why::RootDiffers { through: 199 }));
}

#[test]
fn l3_changed_and_missing_hashes_are_named() {
    let mut tenant = tenant_with(600);
    let signed = heads(&tenant, &[600]);
    let good = tenant.log.tiles.clone();
    tenant.log.tiles.get_mut(&(1, 0)).unwrap()[1] = leaf_hash(b"forged");
    assert_eq!(
        verify(&tenant, rows(&tenant.log), &signed),
        bad(256, Why::TreeChanged { through: 511 })
    );
    tenant.log.tiles = good.clone();
    tenant.log.tiles.get_mut(&(0, 1)).unwrap()[3] = leaf_hash(b"forged");
    assert_eq!(
        verify(&tenant, rows(&tenant.log), &signed),
        bad(259, Why::Changed)
    );
    tenant.log.tiles = good;
    tenant.log.tiles.remove(&(0, 2));
    assert_eq!(
        verify(&tenant, rows(&tenant.log), &signed),
        bad(512, Why::LeafMissing)
    );
}

#[test]
fn t5_an_entry_of_another_tenant_is_named() {
    let mut tenant = tenant_with(3);
    let mut stranger = Tenant::new(2);
    let object = Object {
        kind: "device".to_owned(),
        id: "dev_x".to_owned(),
    };
    stranger.log_entry("device.enrolled", object, json!({}));
    tenant.log.append(stranger.log.rows.remove(0));
    let signed = heads(&tenant, &[4]);
    let result = verify(&tenant, rows(&tenant.log), &signed);
    assert!(matches!(
        result,
        Err(BadEntry {
            index: 3,
            why: Why::NotAnEntry(_)
        })
    ));
}

#[test]
fn a_failing_store_is_not_a_bad_log() {
    let tenant = tenant_with(3);
    let result = verify_log(tenant.id, [Err("disk")], |_: Tile| Ok(Vec::<Hash>::new()), &[]);
    assert_eq!(result, Err(VerifyError::Store("disk")));
}

proptest! {
    #[test]
    fn any_single_change_names_its_entry(size in 1u64..40, index in any::<u64>(), bit in any::<usize>()) {
        let tenant = tenant_with(size);
        let index = index % size;
        let mut rows = rows(&tenant.log);
        let bytes = &mut rows[index as usize].bytes;
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(verify(&tenant, rows, &heads(&tenant, &[size])), bad(index, Why::Changed));
    }
}
