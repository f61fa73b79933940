//! The sequencer: gives waiting entries their place in the tree and signs a checkpoint over it.

use std::collections::BTreeMap;

use muster_model::{TenantId, Timestamp};
use muster_storage::{Lease, Scope, Tx};
use muster_trust::{
    checkpoint::{self, CheckpointBody},
    key::PublicKey,
    merkle::{Frontier, Hash, leaf_hash},
    note::SignedNote,
    tile::{self, TILE_WIDTH, Tile},
};

use super::{LOG_TOPIC, proofs, store, verify::is_ours};
use crate::{App, access::problem::Problem, secrets::TenantKeys};

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
    for tenant in tenants {
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
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let now = app.clock.now();
    let seen = proofs::signed_head(app, tenant).map_or(0, |head| head.size);
    app.db
        .write(super::tenant_scope(tenant), move |tx| {
            tx.fence(&lease)?;
            let mut batch = Batch::open(tx, &keys, seen)?;
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
        .await
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
    /// Opens the stored tree. It is extended only if it is what was signed last, and not shorter than what this node has
    /// seen: whoever changed it by SQL must not get our signature under the change.
    fn open(tx: &mut Tx, keys: &TenantKeys, seen: u64) -> Result<Batch, Problem> {
        let tenant = keys.tenant;
        let tree = store::tree(tx, tenant)?;
        let size = tree.as_ref().map_or(0, |tree| tree.size);
        if size < seen {
            return Err(changed("it is shorter than the head that this node has seen"));
        }
        let frontier = tile::frontier(size, |tile| read_tile(tx, tenant, tile)).map_err(Problem::internal)?;
        let signed = tree.map(|tree| signed_head(keys, &tree.note)).transpose()?;
        if let Some(signed) = &signed
            && (signed.size != size || signed.root != frontier.root())
        {
            return Err(changed("its tiles do not lead to the signed root"));
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

    fn close(self, tx: &mut Tx, keys: &TenantKeys, now: Timestamp) -> Result<u64, Problem> {
        let size = self.frontier.size();
        if size == self.first {
            return Ok(0);
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
        if store::put_tree(
            tx,
            &store::TreeRow {
                tenant: self.tenant,
                size,
                note,
            },
            now,
        )? == 0
        {
            return Err(Problem::internal("another sequencer has signed a larger tree"));
        }
        Ok(size - self.first)
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

/// What this installation signed last, with the key that it has or with one that the root document still names.
fn signed_head(keys: &TenantKeys, note: &str) -> Result<CheckpointBody, Problem> {
    let unreadable = || changed("its head cannot be read");
    let note: SignedNote = note.parse().map_err(|_| unreadable())?;
    let body = CheckpointBody::parse(note.text()).map_err(|_| unreadable())?;
    let origin = checkpoint::origin(keys.tenant);
    let is_signed = |key: &&PublicKey| note.signed_by(&origin, key).is_ok_and(|ours| ours);
    if body.origin != origin || !keys.log_keys().iter().any(is_signed) {
        return Err(changed("its head is not one that this installation signed"));
    }
    Ok(body)
}

fn changed(how: &str) -> Problem {
    Problem::internal(format!(
        "the stored log was changed: {how}; nothing is added to it. Run `muster log verify`"
    ))
}
