//! Tiles: the hashes and entries of a log in files of 256 (<https://c2sp.org/tlog-tiles>).
//!
//! A hash tile at level L holds hashes of complete subtrees of 256^L leaves. Storing every [`TileHash`] that
//! [`append`] returns is enough to serve the tiles and to build any proof with O(log n) tile reads.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::key::Digest;
use crate::merkle::{self, BuildError, Frontier, FrontierError, Hash, MAX_TREE_SIZE, Node, node_hash};

/// Hashes in a full tile.
pub const TILE_WIDTH: u32 = 256;
/// Levels of the tree that one tile spans.
pub const TILE_HEIGHT: u8 = 8;
/// Bytes of a full hash tile.
pub const FULL_TILE_BYTES: usize = TILE_WIDTH as usize * 32;
/// The highest level that a tree of [`MAX_TREE_SIZE`] leaves has.
pub const MAX_LEVEL: u8 = 7;
/// Longest entry that an entry bundle can hold: its length is a 16-bit number.
pub const MAX_BUNDLED_ENTRY_BYTES: usize = u16::MAX as usize;

const MAX_PATH_CHARS: usize = 64;

/// A hash that belongs into a tile: number `index` of all hashes at `level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileHash {
    /// 0 holds leaf hashes; each hash of level L + 1 is the root of a full tile of level L.
    pub level: u8,
    /// Position at that level: tile `index / 256`, place `index % 256`.
    pub index: u64,
    /// The hash.
    pub hash: Hash,
}

/// Appends a leaf hash to the tree and returns the hashes to persist: always the leaf at level 0, then one per level whose
/// tile below became full.
pub fn append(frontier: &mut Frontier, leaf: Hash) -> Result<Vec<TileHash>, FrontierError> {
    let complete = frontier.append(leaf)?;
    let at_tile_levels = complete
        .into_iter()
        .filter(|(node, _)| node.height.is_multiple_of(TILE_HEIGHT));
    Ok(at_tile_levels
        .map(|(node, hash)| TileHash {
            level: node.height / TILE_HEIGHT,
            index: node.index,
            hash,
        })
        .collect())
}

/// A hash tile, or a part of one at the right edge of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    /// 0 holds leaf hashes.
    pub level: u8,
    /// Position at that level.
    pub index: u64,
    /// Number of hashes: 256, or 1 to 255 for a partial tile.
    pub width: u32,
}

impl Tile {
    /// The tile at this place in a tree of `size` leaves, if the tree reaches it.
    pub fn in_tree(level: u8, index: u64, size: u64) -> Option<Self> {
        let width = hashes_at(level, size).checked_sub(index.checked_mul(u64::from(TILE_WIDTH))?)?;
        let width = width.min(u64::from(TILE_WIDTH)) as u32;
        (width > 0).then_some(Self { level, index, width })
    }

    /// Whether the tile has all its 256 hashes and can never change again.
    pub fn is_full(&self) -> bool {
        self.width == TILE_WIDTH
    }
}

/// What a path under the log's prefix names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TilePath {
    /// `tile/<L>/<N>[.p/<W>]`
    Hashes(Tile),
    /// `tile/entries/<N>[.p/<W>]`; the level is 0.
    Entries(Tile),
}

/// The path is not the one canonical path of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a tile path: tile/<level>/<index>[.p/<width>]")]
pub struct TilePathError;

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tile = match self {
            Self::Hashes(tile) => {
                write!(f, "tile/{}/", tile.level)?;
                tile
            }
            Self::Entries(tile) => {
                f.write_str("tile/entries/")?;
                tile
            }
        };
        let mut groups = Vec::new();
        let mut rest = tile.index;
        loop {
            groups.push(rest % 1000);
            rest /= 1000;
            if rest == 0 {
                break;
            }
        }
        let (last, leading) = groups
            .split_first()
            .expect("every number has a last group of digits");
        for group in leading.iter().rev() {
            write!(f, "x{group:03}/")?;
        }
        write!(f, "{last:03}")?;
        if tile.is_full() {
            Ok(())
        } else {
            write!(f, ".p/{}", tile.width)
        }
    }
}

impl FromStr for TilePath {
    type Err = TilePathError;

    fn from_str(path: &str) -> Result<Self, TilePathError> {
        if path.len() > MAX_PATH_CHARS {
            return Err(TilePathError);
        }
        let (kind, place) = path
            .strip_prefix("tile/")
            .and_then(|p| p.split_once('/'))
            .ok_or(TilePathError)?;
        let (digits, width) = match place.split_once(".p/") {
            Some((digits, width)) => (digits, width.parse().map_err(|_| TilePathError)?),
            None => (place, TILE_WIDTH),
        };
        let digits: String = digits.chars().filter(char::is_ascii_digit).collect();
        let index = digits.parse().map_err(|_| TilePathError)?;
        let parsed = if kind == "entries" {
            Self::Entries(Tile {
                level: 0,
                index,
                width,
            })
        } else {
            Self::Hashes(Tile {
                level: kind.parse().map_err(|_| TilePathError)?,
                index,
                width,
            })
        };
        let (Self::Hashes(tile) | Self::Entries(tile)) = parsed;
        let sane = tile.level <= 63 && (1..=TILE_WIDTH).contains(&tile.width);
        // Writing it again settles every question of zeros, signs, `x` and stray characters at once.
        if sane && parsed.to_string() == path {
            Ok(parsed)
        } else {
            Err(TilePathError)
        }
    }
}

/// The bytes of a hash tile.
pub fn encode_hashes(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// Reads a hash tile: 1 to 256 hashes of 32 bytes.
pub fn decode_hashes(bytes: &[u8]) -> Option<Vec<Hash>> {
    if bytes.is_empty() || bytes.len() > FULL_TILE_BYTES || !bytes.len().is_multiple_of(32) {
        return None;
    }
    bytes.chunks_exact(32).map(Digest::from_slice).collect()
}

/// The bytes of an entry bundle; `None` if an entry is too long or there are more than 256.
pub fn encode_entries<'e>(entries: impl IntoIterator<Item = &'e [u8]>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for (place, entry) in entries.into_iter().enumerate() {
        let length = u16::try_from(entry.len()).ok()?;
        if place >= TILE_WIDTH as usize {
            return None;
        }
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(entry);
    }
    Some(bytes)
}

/// Reads an entry bundle of at most 256 entries.
pub fn decode_entries(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (length, tail) = rest.split_first_chunk::<2>()?;
        let (entry, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        if entries.len() >= TILE_WIDTH as usize {
            return None;
        }
        entries.push(entry);
        rest = tail;
    }
    Some(entries)
}

/// Reads nodes of a tree of `size` leaves out of its tiles. Each tile is read once.
///
/// The reader gets the tile with the width that a tree of `size` leaves has, and may answer with more hashes (the tile of a
/// larger tree), never with fewer.
pub struct TileNodes<R> {
    size: u64,
    read: R,
    cache: BTreeMap<(u8, u64), Vec<Hash>>,
}

impl<R, E> TileNodes<R>
where
    R: FnMut(Tile) -> Result<Vec<Hash>, E>,
{
    /// Reads from the tiles of a tree of `size` leaves.
    pub fn new(size: u64, read: R) -> Self {
        Self {
            size,
            read,
            cache: BTreeMap::new(),
        }
    }

    /// The hash of a complete subtree.
    pub fn node(&mut self, node: Node) -> Result<Hash, BuildError<E>> {
        let (level, above) = (node.height / TILE_HEIGHT, node.height % TILE_HEIGHT);
        let first = node
            .index
            .checked_shl(u32::from(above))
            .filter(|first| first >> above == node.index);
        let first = first.ok_or(BuildError::Missing(node))?;
        let width = u64::from(TILE_WIDTH);
        let hashes = self
            .tile(level, first / width)?
            .ok_or(BuildError::Missing(node))?;
        let start = (first % width) as usize;
        let leaves = hashes
            .get(start..start + (1 << above))
            .ok_or(BuildError::Missing(node))?;
        Ok(fold(leaves))
    }

    fn tile(&mut self, level: u8, index: u64) -> Result<Option<&[Hash]>, BuildError<E>> {
        let Some(tile) = Tile::in_tree(level, index, self.size) else {
            return Ok(None);
        };
        let hashes = match self.cache.entry((level, index)) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert((self.read)(tile).map_err(BuildError::Store)?)
            }
        };
        Ok(hashes.get(..tile.width as usize))
    }
}

/// The root of the tree of `size` leaves, from its tiles.
pub fn root<E>(size: u64, read: impl FnMut(Tile) -> Result<Vec<Hash>, E>) -> Result<Hash, BuildError<E>> {
    let mut nodes = TileNodes::new(size, read);
    merkle::root(size, |node| nodes.node(node))
}

/// The inclusion proof of leaf `index` in the tree of `size` leaves, from its tiles.
pub fn inclusion_proof<E>(
    index: u64,
    size: u64,
    read: impl FnMut(Tile) -> Result<Vec<Hash>, E>,
) -> Result<Vec<Hash>, BuildError<E>> {
    let mut nodes = TileNodes::new(size, read);
    merkle::inclusion_proof(index, size, |node| nodes.node(node))
}

/// The proof that the tree of `to` leaves extends the tree of `from` leaves, from the tiles of the larger tree.
pub fn consistency_proof<E>(
    from: u64,
    to: u64,
    read: impl FnMut(Tile) -> Result<Vec<Hash>, E>,
) -> Result<Vec<Hash>, BuildError<E>> {
    let mut nodes = TileNodes::new(to, read);
    merkle::consistency_proof(from, to, |node| nodes.node(node))
}

/// The frontier of the tree of `size` leaves, from its tiles: to resume appending where none was stored.
pub fn frontier<E>(
    size: u64,
    read: impl FnMut(Tile) -> Result<Vec<Hash>, E>,
) -> Result<Frontier, BuildError<E>> {
    if size > MAX_TREE_SIZE {
        return Err(BuildError::OutOfRange { at: size, size });
    }
    let mut nodes = TileNodes::new(size, read);
    let mut hashes = Vec::new();
    let mut start = 0;
    for height in (0..64).rev().filter(|height| size >> height & 1 == 1) {
        hashes.push(nodes.node(Node {
            height,
            index: start >> height,
        })?);
        start += 1 << height;
    }
    Ok(Frontier::resume(size, hashes).expect("one hash was read per one-bit of the size"))
}

/// Number of complete subtrees of 256^level leaves in a tree of `size` leaves.
fn hashes_at(level: u8, size: u64) -> u64 {
    if level > MAX_LEVEL {
        0
    } else {
        size >> (u32::from(level) * u32::from(TILE_HEIGHT))
    }
}

/// The root over a power of two of hashes.
fn fold(hashes: &[Hash]) -> Hash {
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        row = row
            .chunks_exact(2)
            .map(|pair| node_hash(&pair[0], &pair[1]))
            .collect();
    }
    row.first()
        .copied()
        .expect("a complete subtree has at least one hash")
}
