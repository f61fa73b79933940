//! Verification of a whole log against its signed heads: what `muster log verify` and `muster doctor` run.
//!
//! The stored tiles say what each leaf was when it was signed, so the first entry that differs can be named: changed,
//! removed, added and reordered rows all show as a row whose leaf hash is not the stored one. Where somebody rewrote the
//! tiles as well, the signed roots still differ, and the answer is the first stretch of the log that does.

use std::fmt;

use muster_model::id::TenantId;

use crate::checkpoint::CheckpointBody;
use crate::entry::LogEntry;
use crate::merkle::{Frontier, Hash, leaf_hash};
use crate::tile::{self, TILE_WIDTH, Tile, TileHash};

/// One stored row of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    /// The number that the row claims.
    pub index: u64,
    /// The entry's bytes.
    pub bytes: Vec<u8>,
}

/// A log that verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Number of entries that a checkpoint commits to.
    pub signed_entries: u64,
    /// Number of entries after the newest checkpoint, checked against their stored leaf hashes only.
    pub unsigned_entries: u64,
    /// The root at the newest checkpoint.
    pub root: Hash,
    /// How many checkpoints were compared.
    pub checkpoints: usize,
}

/// What is wrong with the first bad entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The row's bytes do not hash to the stored leaf: changed, or another entry was put into its place.
    Changed,
    /// There is no row with this number.
    Removed,
    /// There is a row, and the log never had a leaf with this number.
    Added,
    /// A row comes again or out of order.
    OutOfOrder,
    /// The bytes hash to the stored leaf, and are not an entry of this tenant.
    NotAnEntry(String),
    /// The tree has a leaf with this number whose stored hash is missing.
    LeafMissing,
    /// The stored hashes of the tree do not belong to the entries from here through `through`, or were changed.
    TreeChanged {
        /// Last entry of the stretch.
        through: u64,
    },
    /// A signed head does not commit to these entries: somewhere from here through `through`, rows and tiles were both
    /// changed.
    RootDiffers {
        /// Last entry of the stretch.
        through: u64,
    },
    /// A signed head commits to more entries than are stored; the tail was cut off from here on.
    Truncated {
        /// How many entries were signed.
        signed: u64,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed => f.write_str("the entry was changed or replaced"),
            Self::Removed => f.write_str("the entry was removed"),
            Self::Added => f.write_str("the entry was added behind the log's back"),
            Self::OutOfOrder => f.write_str("the entry is out of order or there twice"),
            Self::NotAnEntry(error) => write!(f, "the entry cannot be read: {error}"),
            Self::LeafMissing => f.write_str("the stored leaf hash is missing"),
            Self::TreeChanged { through } => {
                write!(f, "the stored tree differs in the entries through {through}")
            }
            Self::RootDiffers { through } => {
                write!(f, "the signed root differs; changed between here and {through}")
            }
            Self::Truncated { signed } => write!(f, "the log ends here, and {signed} entries were signed"),
        }
    }
}

/// The first entry that is not what was signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {index}: {why}")]
pub struct BadEntry {
    /// Its number.
    pub index: u64,
    /// What is wrong.
    pub why: Why,
}

/// Why a log did not verify.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError<E> {
    /// The log is not what was signed.
    #[error(transparent)]
    Bad(#[from] BadEntry),
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(E),
}

/// Reads all rows in the order of their numbers and compares them with the stored tiles and the signed heads.
///
/// `checkpoints` are verified heads of this log in ascending order of size; at least the newest, and every other one makes
/// the answer to a rewritten log more precise. `read` returns the stored hashes of a tile, empty or short if some are
/// missing, and more than the width asked for if it has them.
pub fn verify_log<E>(
    tenant: TenantId,
    rows: impl IntoIterator<Item = Result<StoredEntry, E>>,
    read: impl FnMut(Tile) -> Result<Vec<Hash>, E>,
    checkpoints: &[CheckpointBody],
) -> Result<Summary, VerifyError<E>> {
    let signed = checkpoints.last().map_or(0, |checkpoint| checkpoint.size);
    let mut verifier = Verifier::new(tenant, signed, read, checkpoints);
    for row in rows {
        verifier.row(&row.map_err(VerifyError::Store)?)?;
    }
    verifier.finish()
}

struct Verifier<'c, R> {
    tenant: TenantId,
    signed: u64,
    read: R,
    /// The level-0 tile that is being compared.
    leaves: Option<(u64, Vec<Hash>)>,
    frontier: Frontier,
    heads: std::iter::Peekable<std::slice::Iter<'c, CheckpointBody>>,
    /// Size of the last head that was right.
    confirmed: u64,
    root: Hash,
    compared: usize,
}

impl<'c, R, E> Verifier<'c, R>
where
    R: FnMut(Tile) -> Result<Vec<Hash>, E>,
{
    fn new(tenant: TenantId, signed: u64, read: R, checkpoints: &'c [CheckpointBody]) -> Self {
        let frontier = Frontier::new();
        let root = frontier.root();
        let heads = checkpoints.iter().peekable();
        Self {
            tenant,
            signed,
            read,
            leaves: None,
            frontier,
            heads,
            confirmed: 0,
            root,
            compared: 0,
        }
    }

    fn row(&mut self, row: &StoredEntry) -> Result<(), VerifyError<E>> {
        let index = self.frontier.size();
        if row.index > index {
            return bad(index, Why::Removed);
        }
        if row.index < index {
            return bad(row.index, Why::OutOfOrder);
        }
        self.check_heads()?;
        let leaf = leaf_hash(&row.bytes);
        match self.stored_leaf(index)? {
            Some(stored) if stored == leaf => {}
            Some(_) => return bad(index, Why::Changed),
            None if index < self.signed => return bad(index, Why::LeafMissing),
            None => return bad(index, Why::Added),
        }
        match LogEntry::from_bytes(&row.bytes) {
            Ok(entry) if entry.tenant == self.tenant => {}
            Ok(entry) => return bad(index, Why::NotAnEntry(format!("it belongs to {}", entry.tenant))),
            Err(error) => return bad(index, Why::NotAnEntry(error.to_string())),
        }
        let complete = tile::append(&mut self.frontier, leaf);
        let complete = complete.map_err(|error| BadEntry {
            index,
            why: Why::NotAnEntry(error.to_string()),
        })?;
        for hash in complete.iter().filter(|hash| hash.level > 0) {
            self.check_inner(hash)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Summary, VerifyError<E>> {
        self.check_heads()?;
        let size = self.frontier.size();
        if self.signed > size {
            // The next leaf says whether only rows are gone, or the tree is shorter as well.
            let why = match self.stored_leaf(size)? {
                Some(_) => Why::Removed,
                None => Why::Truncated { signed: self.signed },
            };
            return bad(size, why);
        }
        if self.stored_leaf(size)?.is_some() {
            return bad(size, Why::Removed);
        }
        Ok(Summary {
            signed_entries: self.signed,
            unsigned_entries: size - self.signed,
            root: self.root,
            checkpoints: self.compared,
        })
    }

    /// Compares every head of exactly the size reached with the root of the entries.
    fn check_heads(&mut self) -> Result<(), VerifyError<E>> {
        let size = self.frontier.size();
        while let Some(head) = self.heads.next_if(|head| head.size <= size) {
            self.compared += 1;
            if head.size < size {
                return bad(head.size, Why::OutOfOrder);
            }
            self.root = self.frontier.root();
            if head.root != self.root {
                return bad(
                    self.confirmed,
                    Why::RootDiffers {
                        through: size.saturating_sub(1),
                    },
                );
            }
            self.confirmed = size;
        }
        Ok(())
    }

    fn stored_leaf(&mut self, index: u64) -> Result<Option<Hash>, VerifyError<E>> {
        let (number, place) = (
            index / u64::from(TILE_WIDTH),
            (index % u64::from(TILE_WIDTH)) as usize,
        );
        if self.leaves.as_ref().is_none_or(|(known, _)| *known != number) {
            let tile = Tile {
                level: 0,
                index: number,
                width: TILE_WIDTH,
            };
            self.leaves = Some((number, (self.read)(tile).map_err(VerifyError::Store)?));
        }
        Ok(self
            .leaves
            .as_ref()
            .and_then(|(_, hashes)| hashes.get(place))
            .copied())
    }

    fn check_inner(&mut self, hash: &TileHash) -> Result<(), VerifyError<E>> {
        let (number, place) = (
            hash.index / u64::from(TILE_WIDTH),
            (hash.index % u64::from(TILE_WIDTH)) as usize,
        );
        let width = place as u32 + 1;
        let stored = (self.read)(Tile {
            level: hash.level,
            index: number,
            width,
        })
        .map_err(VerifyError::Store)?;
        if stored.get(place) == Some(&hash.hash) {
            return Ok(());
        }
        let start = hash.index << (u32::from(tile::TILE_HEIGHT) * u32::from(hash.level));
        bad(
            start,
            Why::TreeChanged {
                through: self.frontier.size() - 1,
            },
        )
    }
}

fn bad<T, E>(index: u64, why: Why) -> Result<T, VerifyError<E>> {
    Err(VerifyError::Bad(BadEntry { index, why }))
}
