//! The Merkle tree of a log (RFC 6962 section 2.1; proofs as verified in RFC 9162 sections 2.1.3 and 2.1.4).
//!
//! Building a proof needs only hashes of *complete* subtrees, which never change once written; they come through a reader
//! so that the caller decides where they are kept (see [`crate::tile`]).

use serde::{Deserialize, Serialize};

use crate::key::{Digest, sha256, sha256_of};

/// A hash in the tree.
pub type Hash = Digest;

/// Longest proof that is read: both kinds need at most two hashes per level of a tree of 2⁶³ leaves.
pub const MAX_PROOF_HASHES: usize = 128;
/// Most leaves a tree may have: sizes are stored as signed 64-bit integers.
pub const MAX_TREE_SIZE: u64 = i64::MAX as u64;

/// The root of the tree without leaves: SHA-256 of nothing.
pub fn empty_root() -> Hash {
    sha256(b"")
}

/// The hash of a leaf: SHA-256(0x00 ‖ entry).
pub fn leaf_hash(entry: &[u8]) -> Hash {
    sha256_of(&[&[0x00], entry])
}

/// The hash of an inner node: SHA-256(0x01 ‖ left ‖ right).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256_of(&[&[0x01], &left.0, &right.0])
}

/// A complete subtree: the leaves `[index · 2^height, (index + 1) · 2^height)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// 0 is a leaf.
    pub height: u8,
    /// Position among the nodes of that height.
    pub index: u64,
}

/// Why a proof or a root could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError<E> {
    /// The leaf or the smaller tree is not within the tree.
    #[error("{at} is not within a tree of {size} leaves")]
    OutOfRange {
        /// Leaf index or size of the smaller tree.
        at: u64,
        /// Size of the tree.
        size: u64,
    },
    /// The store does not hold a hash that a tree of this size must have.
    #[error("the hash at height {} index {} is missing", .0.height, .0.index)]
    Missing(Node),
    /// The store failed.
    #[error("the hash store failed: {0}")]
    Store(E),
}

/// Why a proof was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The leaf is outside the tree, or the smaller tree is the larger one.
    #[error("the sizes of the proof make no sense")]
    Range,
    /// The proof has too few or too many hashes.
    #[error("the proof has the wrong number of hashes")]
    Length,
    /// The hashes lead to another root.
    #[error("the proof leads to another root")]
    Root,
}

/// The right edge of a growing tree: all that is needed to append and to know the root.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "FrontierParts")]
pub struct Frontier {
    size: u64,
    /// Roots of the complete subtrees that make up the tree, largest (leftmost) first: one per one-bit of `size`.
    hashes: Vec<Hash>,
}

/// The size and the number of hashes do not fit, or the tree is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tree of {size} leaves cannot have {hashes} frontier hashes, or is full")]
pub struct FrontierError {
    /// The tree size.
    pub size: u64,
    /// How many hashes were given.
    pub hashes: usize,
}

/// A frontier as it is stored, before size and number of hashes are compared.
#[derive(Deserialize)]
struct FrontierParts {
    size: u64,
    hashes: Vec<Hash>,
}

impl TryFrom<FrontierParts> for Frontier {
    type Error = FrontierError;

    fn try_from(parts: FrontierParts) -> Result<Self, FrontierError> {
        Self::resume(parts.size, parts.hashes)
    }
}

impl Frontier {
    /// The frontier of the empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Continues a tree from its stored size and frontier hashes.
    pub fn resume(size: u64, hashes: Vec<Hash>) -> Result<Self, FrontierError> {
        if size > MAX_TREE_SIZE || hashes.len() != size.count_ones() as usize {
            return Err(FrontierError {
                size,
                hashes: hashes.len(),
            });
        }
        Ok(Self { size, hashes })
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The hashes to store for [`Frontier::resume`], largest subtree first.
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// Appends a leaf hash and returns every node that became complete, the leaf first, then upwards.
    pub fn append(&mut self, leaf: Hash) -> Result<Vec<(Node, Hash)>, FrontierError> {
        if self.size >= MAX_TREE_SIZE {
            return Err(FrontierError {
                size: self.size,
                hashes: self.hashes.len(),
            });
        }
        let (mut node, mut hash) = (
            Node {
                height: 0,
                index: self.size,
            },
            leaf,
        );
        let mut complete = vec![(node, hash)];
        while node.index & 1 == 1 {
            let left = self
                .hashes
                .pop()
                .expect("an odd node has a complete left sibling in the frontier");
            hash = node_hash(&left, &hash);
            node = Node {
                height: node.height + 1,
                index: node.index >> 1,
            };
            complete.push((node, hash));
        }
        self.hashes.push(hash);
        self.size += 1;
        Ok(complete)
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        let mut from_right = self.hashes.iter().rev();
        let Some(last) = from_right.next() else {
            return empty_root();
        };
        from_right.fold(*last, |right, left| node_hash(left, &right))
    }
}

/// The root of the tree of the first `size` leaves.
pub fn root<E>(
    size: u64,
    mut read: impl FnMut(Node) -> Result<Hash, BuildError<E>>,
) -> Result<Hash, BuildError<E>> {
    check_range(0, size)?;
    if size == 0 {
        Ok(empty_root())
    } else {
        subtree(0, size, &mut read)
    }
}

/// The audit path of leaf `index` in the tree of `size` leaves, lowest sibling first.
pub fn inclusion_proof<E>(
    index: u64,
    size: u64,
    mut read: impl FnMut(Node) -> Result<Hash, BuildError<E>>,
) -> Result<Vec<Hash>, BuildError<E>> {
    check_range(index, size)?;
    if index == size {
        return Err(BuildError::OutOfRange { at: index, size });
    }
    let (mut start, mut count) = (0, size);
    let mut proof = Vec::new();
    while count > 1 {
        let left = split(count);
        if index < start + left {
            proof.push(subtree(start + left, count - left, &mut read)?);
            count = left;
        } else {
            proof.push(subtree(start, left, &mut read)?);
            (start, count) = (start + left, count - left);
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The proof that the tree of `to` leaves extends the tree of `from` leaves; empty when they are equal or `from` is 0.
pub fn consistency_proof<E>(
    from: u64,
    to: u64,
    mut read: impl FnMut(Node) -> Result<Hash, BuildError<E>>,
) -> Result<Vec<Hash>, BuildError<E>> {
    check_range(from, to)?;
    if from == 0 || from == to {
        return Ok(Vec::new());
    }
    // RFC 6962 section 2.1.2: walk down to the subtree that ends at `from`; it is known to the verifier only if it is
    // the whole old tree.
    let (mut start, mut count) = (0, to);
    let mut proof = Vec::new();
    while start + count != from {
        let left = split(count);
        if from <= start + left {
            proof.push(subtree(start + left, count - left, &mut read)?);
            count = left;
        } else {
            proof.push(subtree(start, left, &mut read)?);
            (start, count) = (start + left, count - left);
        }
    }
    if start != 0 {
        proof.push(subtree(start, count, &mut read)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Checks that the leaf is number `index` of the tree with this size and root (RFC 9162 section 2.1.3.2).
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if index >= size || size > MAX_TREE_SIZE {
        return Err(ProofError::Range);
    }
    let (mut position, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if position & 1 == 1 || position == last {
            hash = node_hash(sibling, &hash);
            while position & 1 == 0 && position != 0 {
                (position, last) = (position >> 1, last >> 1);
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        (position, last) = (position >> 1, last >> 1);
    }
    if last != 0 {
        return Err(ProofError::Length);
    }
    if hash == *root {
        Ok(())
    } else {
        Err(ProofError::Root)
    }
}

/// Checks that the tree with `to` extends the tree with `from` (RFC 9162 section 2.1.4.2). A tree extends the empty tree
/// without proof, and itself if the roots are equal.
pub fn verify_consistency(
    from: u64,
    from_root: &Hash,
    to: u64,
    to_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if from > to || to > MAX_TREE_SIZE {
        return Err(ProofError::Range);
    }
    if from == 0 || from == to {
        let expected_root = if from == 0 { empty_root() } else { *to_root };
        return match (proof.is_empty(), *from_root == expected_root) {
            (false, _) => Err(ProofError::Length),
            (true, false) => Err(ProofError::Root),
            (true, true) => Ok(()),
        };
    }
    if proved_roots(from, from_root, to, proof)? == (*from_root, *to_root) {
        Ok(())
    } else {
        Err(ProofError::Root)
    }
}

/// Whether a consistency proof shows that the tree with `to` had another root than `from_root` at `from` leaves: its nodes lead
/// to `to_root`, which nobody can contrive, and to another earlier root. Where `from` is a power of two the proof leaves the
/// earlier root out, and shows nothing.
pub fn proves_another_history(from: u64, from_root: &Hash, to: u64, to_root: &Hash, proof: &[Hash]) -> bool {
    if from == 0 || from >= to || to > MAX_TREE_SIZE || from.is_power_of_two() {
        return false;
    }
    proved_roots(from, from_root, to, proof).is_ok_and(|(old, new)| new == *to_root && old != *from_root)
}

/// The two roots to which the nodes of a consistency proof lead; 0 < `from` < `to`.
fn proved_roots(from: u64, from_root: &Hash, to: u64, proof: &[Hash]) -> Result<(Hash, Hash), ProofError> {
    let (first, rest) = if from.is_power_of_two() {
        (from_root, proof)
    } else {
        proof.split_first().ok_or(ProofError::Length)?
    };
    let shift = (from - 1).trailing_ones();
    let (mut position, mut last) = ((from - 1) >> shift, (to - 1) >> shift);
    let (mut old, mut new) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return Err(ProofError::Length);
        }
        if position & 1 == 1 || position == last {
            old = node_hash(sibling, &old);
            new = node_hash(sibling, &new);
            while position & 1 == 0 && position != 0 {
                (position, last) = (position >> 1, last >> 1);
            }
        } else {
            new = node_hash(&new, sibling);
        }
        (position, last) = (position >> 1, last >> 1);
    }
    if last != 0 {
        return Err(ProofError::Length);
    }
    Ok((old, new))
}

/// The hash of `count ≥ 1` leaves from `start`, which a tree cut at a power of two; the recursion halves `count`.
fn subtree<E>(
    start: u64,
    count: u64,
    read: &mut impl FnMut(Node) -> Result<Hash, BuildError<E>>,
) -> Result<Hash, BuildError<E>> {
    if count.is_power_of_two() {
        let height = count.trailing_zeros();
        return read(Node {
            height: height as u8,
            index: start >> height,
        });
    }
    let left = split(count);
    let left_hash = subtree(start, left, read)?;
    let right_hash = subtree(start + left, count - left, read)?;
    Ok(node_hash(&left_hash, &right_hash))
}

/// The largest power of two below `count`, which is at least 2.
fn split(count: u64) -> u64 {
    1 << (63 - (count - 1).leading_zeros())
}

fn check_range<E>(at: u64, size: u64) -> Result<(), BuildError<E>> {
    if at > size || size > MAX_TREE_SIZE {
        Err(BuildError::OutOfRange { at, size })
    } else {
        Ok(())
    }
}
