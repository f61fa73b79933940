use std::convert::Infallible;

use muster_trust::key::Digest;
use muster_trust::merkle::{
    BuildError, Frontier, Hash, MAX_TREE_SIZE, Node, ProofError, consistency_proof, empty_root,
    inclusion_proof, leaf_hash, node_hash, root, verify_consistency, verify_inclusion,
};
use proptest::prelude::*;

/// The tree as RFC 6962 section 2.1 defines it, slow and plain: what the fast one is compared with.
fn reference_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let mut split = 1;
            while split * 2 < leaves.len() {
                split *= 2;
            }
            node_hash(
                &reference_root(&leaves[..split]),
                &reference_root(&leaves[split..]),
            )
        }
    }
}

fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
}

/// Reads complete subtrees straight from the leaves, and refuses to go past them.
fn reader(leaves: &[Hash]) -> impl FnMut(Node) -> Result<Hash, BuildError<Infallible>> + '_ {
    |node| {
        let start = (node.index << node.height) as usize;
        let range = leaves
            .get(start..start + (1 << node.height))
            .ok_or(BuildError::Missing(node))?;
        Ok(reference_root(range))
    }
}

fn hash(hex: &str) -> Hash {
    hex.parse::<Digest>().unwrap()
}

/// The leaves and roots that certificate-transparency implementations share as test vectors.
#[test]
fn rfc6962_known_roots() {
    let inputs = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ];
    let roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let mut frontier = Frontier::new();
    assert_eq!(
        frontier.root().to_hex(),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
    let mut hashes = Vec::new();
    for (input, expected) in inputs.iter().zip(roots) {
        let leaf = leaf_hash(&hex::decode(input).unwrap());
        hashes.push(leaf);
        frontier.append(leaf).unwrap();
        assert_eq!(frontier.root(), hash(expected));
        assert_eq!(reference_root(&hashes), hash(expected));
    }
    let path: Vec<String> = inclusion_proof(5, 8, reader(&hashes))
        .unwrap()
        .iter()
        .map(Digest::to_hex)
        .collect();
    assert_eq!(
        path,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]
    );
    let path: Vec<String> = consistency_proof(6, 8, reader(&hashes))
        .unwrap()
        .iter()
        .map(Digest::to_hex)
        .collect();
    assert_eq!(
        path,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]
    );
}

#[test]
fn every_inclusion_proof_of_small_trees_verifies_and_nothing_else_does() {
    for size in 1..=130 {
        let leaves = leaves(size);
        let root = reference_root(&leaves);
        for index in 0..size {
            let leaf = &leaves[index as usize];
            let proof = inclusion_proof(index, size, reader(&leaves)).unwrap();
            verify_inclusion(leaf, index, size, &proof, &root).unwrap();
            assert!(verify_inclusion(&leaf_hash(b"other"), index, size, &proof, &root).is_err());
            assert!(verify_inclusion(leaf, index, size, &proof, &leaf_hash(b"other")).is_err());
            if size > 1 {
                assert!(verify_inclusion(leaf, (index + 1) % size, size, &proof, &root).is_err());
                assert!(verify_inclusion(leaf, index, size, &proof[1..], &root).is_err());
            }
            let longer = [proof.as_slice(), &[root]].concat();
            assert_eq!(
                verify_inclusion(leaf, index, size, &longer, &root),
                Err(ProofError::Length)
            );
            assert_eq!(
                verify_inclusion(leaf, size, size, &proof, &root),
                Err(ProofError::Range)
            );
        }
    }
}

#[test]
fn every_consistency_proof_of_small_trees_verifies_and_nothing_else_does() {
    let leaves = leaves(130);
    let roots: Vec<Hash> = (0..=leaves.len())
        .map(|size| reference_root(&leaves[..size]))
        .collect();
    for to in 0..=130 {
        for from in 0..=to {
            let (old, new) = (&roots[from as usize], &roots[to as usize]);
            let proof = consistency_proof(from, to, reader(&leaves)).unwrap();
            verify_consistency(from, old, to, new, &proof).unwrap();
            assert!(
                verify_consistency(from, &leaf_hash(b"fork"), to, new, &proof).is_err(),
                "{from} to {to}"
            );
            if from > 0 {
                assert!(
                    verify_consistency(from, old, to, &leaf_hash(b"fork"), &proof).is_err(),
                    "{from} to {to}"
                );
            }
            for place in 0..proof.len() {
                let mut changed = proof.clone();
                changed[place] = leaf_hash(b"fork");
                assert!(
                    verify_consistency(from, old, to, new, &changed).is_err(),
                    "{from} to {to} at {place}"
                );
            }
            let longer = [proof.as_slice(), &[*new]].concat();
            assert!(verify_consistency(from, old, to, new, &longer).is_err());
            if let Some((_, shorter)) = proof.split_last() {
                assert!(verify_consistency(from, old, to, new, shorter).is_err());
            }
        }
    }
    assert_eq!(
        verify_consistency(5, &roots[5], 4, &roots[4], &[]),
        Err(ProofError::Range)
    );
}

#[test]
fn a_frontier_resumes_from_size_and_hashes() {
    let leaves = leaves(300);
    let mut frontier = Frontier::new();
    for (size, leaf) in leaves.iter().enumerate() {
        assert_eq!(frontier.root(), reference_root(&leaves[..size]));
        let resumed = Frontier::resume(frontier.size(), frontier.hashes().to_vec()).unwrap();
        assert_eq!(resumed, frontier);
        frontier = resumed;
        frontier.append(*leaf).unwrap();
    }
    assert_eq!(root(300, reader(&leaves)).unwrap(), frontier.root());
    let stored = serde_json::to_string(&frontier).unwrap();
    assert_eq!(serde_json::from_str::<Frontier>(&stored).unwrap(), frontier);
    assert!(serde_json::from_str::<Frontier>(r#"{"size":3,"hashes":[]}"#).is_err());
    assert!(Frontier::resume(3, vec![leaves[0]]).is_err());
    assert!(Frontier::resume(u64::MAX, vec![leaves[0]; 64]).is_err());
}

#[test]
fn proofs_outside_the_tree_are_not_built() {
    let leaves = leaves(5);
    assert!(inclusion_proof(5, 5, reader(&leaves)).is_err());
    assert!(inclusion_proof(0, 0, reader(&leaves)).is_err());
    assert!(consistency_proof(6, 5, reader(&leaves)).is_err());
    assert!(inclusion_proof(0, 6, reader(&leaves)).is_err());
    assert!(inclusion_proof(0, u64::MAX, reader(&leaves)).is_err());
}

proptest! {
    #[test]
    fn larger_trees_prove(size in 131u64..3000, a in any::<u64>(), b in any::<u64>()) {
        let leaves = leaves(size);
        let root = reference_root(&leaves);
        let index = a % size;
        let proof = inclusion_proof(index, size, reader(&leaves)).unwrap();
        prop_assert!(verify_inclusion(&leaves[index as usize], index, size, &proof, &root).is_ok());
        let from = b % (size + 1);
        let old = reference_root(&leaves[..from as usize]);
        let proof = consistency_proof(from, size, reader(&leaves)).unwrap();
        prop_assert!(verify_consistency(from, &old, size, &root, &proof).is_ok());
    }

    #[test]
    fn verifiers_never_panic(index in any::<u64>(), size in any::<u64>(), count in 0usize..140) {
        let hashes = vec![leaf_hash(b"x"); count];
        let any = leaf_hash(b"y");
        let size = if size % 3 == 0 { size % (MAX_TREE_SIZE + 2) } else { size };
        prop_assert!(verify_inclusion(&any, index, size, &hashes, &any).is_err() || (size == 1 && count == 0));
        let _ = verify_consistency(index, &any, size, &any, &hashes);
        let _ = verify_consistency(index % 200, &any, size % 300, &any, &hashes);
    }
}
