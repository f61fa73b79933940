//! The newest signed head of every tenant's log in memory, and proofs against it.

use std::{collections::HashMap, sync::Arc};

use muster_model::{EntryId, TenantId};
use muster_storage::{StorageError, Tx};
use muster_trust::{
    checkpoint::CheckpointBody,
    merkle::Hash,
    note::SignedNote,
    proof::LoggedProof,
    tile::{self, TILE_WIDTH, Tile},
};
use parking_lot::{Mutex, RwLock};

use super::{sequence::read_tile, store};
use crate::{
    App,
    access::problem::{INVALID, NOT_FOUND, Problem},
};

/// Full tiles kept in memory over all tenants; each has 8 KiB.
const TILES_CACHED_MAX: usize = 2048;

/// A signed head of a log.
#[derive(Debug)]
pub struct Head {
    /// The checkpoint as a C2SP signed note.
    pub note: String,
    pub size: u64,
    pub root: Hash,
}

/// Where a tile is: tenant, level, index.
type TilePlace = (TenantId, u8, u64);

/// The newest heads, and full tiles, which never change.
#[derive(Debug, Default)]
pub struct LogHeads {
    heads: RwLock<HashMap<TenantId, Arc<Head>>>,
    tiles: Mutex<HashMap<TilePlace, Arc<Vec<Hash>>>>,
}

impl LogHeads {
    /// Learns a head, if it is newer than the known one.
    pub(super) fn learn(&self, tenant: TenantId, size: u64, note: String) {
        let mut heads = self.heads.write();
        if heads.get(&tenant).is_some_and(|known| known.size >= size) {
            return;
        }
        let parsed = note
            .parse::<SignedNote>()
            .ok()
            .and_then(|note| CheckpointBody::parse(note.text()).ok());
        match parsed.filter(|body| body.size == size) {
            Some(body) => {
                heads.insert(
                    tenant,
                    Arc::new(Head {
                        note,
                        size,
                        root: body.root,
                    }),
                );
            }
            None => tracing::error!(%tenant, "the stored checkpoint is not one that this program wrote"),
        }
    }

    fn of(&self, tenant: TenantId) -> Option<Arc<Head>> {
        self.heads.read().get(&tenant).map(Arc::clone)
    }

    fn tile(&self, tx: &mut Tx, tenant: TenantId, tile: Tile) -> Result<Vec<Hash>, StorageError> {
        let key = (tenant, tile.level, tile.index);
        if let Some(hashes) = self.tiles.lock().get(&key) {
            return Ok(hashes.as_ref().clone());
        }
        let hashes = read_tile(tx, tenant, tile)?;
        if hashes.len() == TILE_WIDTH as usize {
            let mut tiles = self.tiles.lock();
            if tiles.len() >= TILES_CACHED_MAX {
                tiles.clear();
            }
            tiles.insert(key, Arc::new(hashes.clone()));
        }
        Ok(hashes)
    }
}

/// The newest head of a tenant's log that this node knows.
pub fn head(app: &App, tenant: TenantId) -> Option<Arc<Head>> {
    app.heads.of(tenant)
}

/// The proof that an entry is in the tree of `head`; `None` while it has no place there yet.
pub fn entry_proof(
    app: &App,
    tx: &mut Tx,
    tenant: TenantId,
    entry: EntryId,
    head: &Head,
) -> Result<Option<LoggedProof>, Problem> {
    match store::entry_by_id(tx, tenant, entry)? {
        Some(row) if row.place < head.size => prove(app, tx, tenant, row, head).map(Some),
        Some(_) | None => Ok(None),
    }
}

/// The proof of the entry at a place.
pub fn place_proof(
    app: &App,
    tx: &mut Tx,
    tenant: TenantId,
    place: u64,
    head: &Head,
) -> Result<LoggedProof, Problem> {
    let missing = || NOT_FOUND.detail("The log has no entry at this place.");
    let row = store::entry_by_place(tx, tenant, place)?
        .filter(|row| row.place < head.size)
        .ok_or_else(missing)?;
    prove(app, tx, tenant, row, head)
}

/// The proof that the tree of `to` entries extends the tree of `from` entries.
pub fn consistency(
    app: &App,
    tx: &mut Tx,
    tenant: TenantId,
    from: u64,
    to: u64,
) -> Result<Vec<Hash>, Problem> {
    if from > to {
        return Err(INVALID.detail("A consistency proof goes from the smaller tree to the larger one."));
    }
    tile::consistency_proof(from, to, |tile| app.heads.tile(tx, tenant, tile)).map_err(Problem::internal)
}

fn prove(
    app: &App,
    tx: &mut Tx,
    tenant: TenantId,
    row: store::EntryRow,
    head: &Head,
) -> Result<LoggedProof, Problem> {
    let hashes = tile::inclusion_proof(row.place, head.size, |tile| app.heads.tile(tx, tenant, tile))
        .map_err(Problem::internal)?;
    Ok(LoggedProof {
        entry: row.body,
        index: row.place,
        tree_size: head.size,
        hashes,
    })
}
