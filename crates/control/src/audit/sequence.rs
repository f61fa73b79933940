//! The sequencer: gives waiting entries their place in the tree and signs a checkpoint over it.

use std::collections::BTreeMap;

use muster_model::{TenantId, Timestamp};
use muster_storage::{Lease, Scope, Tx};
use muster_trust::{
    checkpoint::{self, CheckpointBody},
    merkle::{Frontier, Hash, leaf_hash},
    tile::{self, TILE_WIDTH, Tile},
};

use super::{
    LOG_TOPIC,
    anchor::{self, Anchor},
    store,
    verify::is_ours,
};
use crate::{
    App,
    access::problem::Problem,
    secrets::{self, TenantKeys},
};

/// Entries that one transaction places.
const BATCH: i64 = 2000;

/// Places what waits, tenant by tenant; answers how many entries got a place. Every write is fenced by the lease. A tenant
/// whose log cannot be extended holds up no other; the first such problem is the answer.
pub async fn sequence(app: &App, lease: &Lease) -> Result<u64, Problem> {
    let tenants = app
        .db
        .read(Scope::System, |tx| Ok::<_, Problem>(store::pending_tenants(tx)?))
        .await?;
    let (mut placed, mut failed) = (0, None);
    for tenant in tenants.into_iter().filter(|tenant| !app.keys.is_gone(*tenant)) {
        let of_tenant = match sequence_tenant(app, lease.clone(), tenant).await {
            Ok(of_tenant) => of_tenant,
            Err(problem) => {
                tracing::error!(%problem, %tenant, "the log of a tenant was not sequenced");
                failed = failed.or(Some(problem));
                continue;
            }
        };
        if of_tenant > 0 {
            app.db.notify(LOG_TOPIC, "");
            app.nudges.follower.notify_one();
            app.nudges.witnesses.notify_one();
        }
        placed += of_tenant;
    }
    failed.map_or(Ok(placed), Err)
}

async fn sequence_tenant(app: &App, lease: Lease, tenant: TenantId) -> Result<u64, Problem> {
    let keys = secrets::keys_of(app, tenant).await?;
    let now = app.clock.now();
    let known = app
        .heads
        .anchors
        .of(&app.keys, &keys)
        .map_err(Problem::internal)?;
    let signed = app
        .db
        .write(super::tenant_scope(tenant), move |tx| {
            tx.fence(&lease)?;
            let mut batch = Batch::open(tx, &keys, known.as_deref())?;
            for row in store::pending(tx, tenant, BATCH)? {
                if !is_ours(tenant, &row, &keys.log_keys()) {
                    tracing::error!(entry = %row.id, %tenant, "an entry without our seal waits in the log and is not placed");
                    continue;
                }
                let place = batch.append(tx, leaf_hash(&row.body))?;
                store::place(tx, tenant, row.id, place)?;
            }
            batch.close(tx, &keys, now)
        })
        .await?;
    // Only what is committed counts as signed: a head in the file that the database never had would stop the log for good.
    Ok(signed.map_or(0, |(placed, head)| {
        app.heads.anchors.advance(tenant, head);
        placed
    }))
}

/// The tree while a batch is appended to it.
struct Batch {
    tenant: TenantId,
    first: u64,
    frontier: Frontier,
    earlier: Option<Timestamp>,
    tiles: BTreeMap<(u8, u64), Vec<Hash>>,
}

impl Batch {
    /// Opens the stored tree. It is extended only if it is what was signed last, and extends what this node has signed or seen:
    /// whoever changed it by SQL must not get our signature under the change.
    fn open(tx: &mut Tx, keys: &TenantKeys, known: Option<&Anchor>) -> Result<Batch, Problem> {
        let tenant = keys.tenant;
        let signed = anchor::stored(tx, keys, known)?.map_err(|refused| changed(refused.why()))?;
        let signed = signed.map(|signed| signed.body);
        let size = signed.as_ref().map_or(0, |signed| signed.size);
        let frontier = tile::frontier(size, |tile| read_tile(tx, tenant, tile)).map_err(Problem::internal)?;
        if let Some(signed) = &signed
            && signed.root != frontier.root()
        {
            return Err(changed(anchor::Refused::TreeChanged.why()));
        }
        Ok(Batch {
            tenant,
            first: size,
            frontier,
            earlier: signed.map(|signed| signed.time),
            tiles: BTreeMap::new(),
        })
    }

    fn append(&mut self, tx: &mut Tx, leaf: Hash) -> Result<u64, Problem> {
        let place = self.frontier.size();
        for hash in tile::append(&mut self.frontier, leaf).map_err(Problem::internal)? {
            let width = u64::from(TILE_WIDTH);
            let (index, at) = (hash.index / width, (hash.index % width) as usize);
            let held = match self.tiles.entry((hash.level, index)) {
                std::collections::btree_map::Entry::Occupied(held) => held.into_mut(),
                std::collections::btree_map::Entry::Vacant(free) => {
                    let stored = store::tile(tx, self.tenant, hash.level, index)?;
                    free.insert(
                        stored
                            .and_then(|bytes| tile::decode_hashes(&bytes))
                            .unwrap_or_default(),
                    )
                }
            };
            held.truncate(at);
            if held.len() != at {
                return Err(Problem::internal(
                    "a tile of the log lacks hashes; run `muster log verify`",
                ));
            }
            held.push(hash.hash);
        }
        Ok(place)
    }

    /// Signs and stores the new head; none where nothing was appended.
    fn close(self, tx: &mut Tx, keys: &TenantKeys, now: Timestamp) -> Result<Option<(u64, Anchor)>, Problem> {
        let size = self.frontier.size();
        if size == self.first {
            return Ok(None);
        }
        for ((level, index), hashes) in &self.tiles {
            store::put_tile(tx, self.tenant, *level, *index, &tile::encode_hashes(hashes))?;
        }
        let time = self.earlier.map_or(now, |earlier| earlier.max(now));
        let body = CheckpointBody {
            origin: checkpoint::origin(self.tenant),
            size,
            root: self.frontier.root(),
            time,
        };
        let note = body.sign(&[&keys.log]).map_err(Problem::internal)?.to_string();
        let row = store::TreeRow {
            tenant: self.tenant,
            size,
            note: note.clone(),
        };
        if store::put_tree(tx, &row, now)? == 0 {
            return Err(Problem::internal("another sequencer has signed a larger tree"));
        }
        let head = Anchor {
            restore_epoch: keys.root.restore_epoch,
            body,
            note,
        };
        Ok(Some((size - self.first, head)))
    }
}

/// Reads a tile as stored; a missing one is empty, which the reader's caller reports.
pub(super) fn read_tile(
    tx: &mut Tx,
    tenant: TenantId,
    tile: Tile,
) -> Result<Vec<Hash>, muster_storage::StorageError> {
    let bytes = store::tile(tx, tenant, tile.level, tile.index)?;
    Ok(bytes
        .and_then(|bytes| tile::decode_hashes(&bytes))
        .unwrap_or_default())
}

fn changed(how: &str) -> Problem {
    Problem::internal(format!(
        "the stored log was changed: {how}; nothing is added to it. Run `muster log verify`"
    ))
}
