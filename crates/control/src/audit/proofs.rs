//! The newest signed head of every tenant's log in memory, and proofs against it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use muster_model::{DeviceId, EntryId, TenantId};
use muster_storage::{StorageError, Tx};
use muster_trust::{
    checkpoint::{Checkpoint, CheckpointBody},
    merkle::Hash,
    note::SignedNote,
    proof::LoggedProof,
    root::RootDocument,
    tile::{self, TILE_WIDTH, Tile},
};
use parking_lot::{Mutex, RwLock};

use super::{
    anchor::{self, Anchor, Anchors, Refused},
    sequence::read_tile,
    store,
};
use crate::{
    App,
    access::problem::{INVALID, NOT_FOUND, Problem},
    secrets::TenantKeys,
};

/// Full tiles kept in memory over all tenants; each has 8 KiB.
const TILES_CACHED_MAX: usize = 2048;
/// Roots of earlier sizes kept in memory over all tenants.
const ROOTS_CACHED_MAX: usize = 16 * 1024;
/// How often an alarm of one kind is entered into a log at most.
const ALARM_EVERY: Duration = Duration::from_secs(3600);
/// Devices with a foreign head that a node remembers.
const FOREIGN_REMEMBERED_MAX: usize = 4096;

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
    heads: RwLock<HashMap<TenantId, Heads>>,
    tiles: Mutex<HashMap<TilePlace, Arc<Vec<Hash>>>>,
    roots: RwLock<HashMap<(TenantId, u64), Hash>>,
    /// Heads that devices proved and that are not ours, with the version of the root document at which the device stood, so that
    /// each is stored once.
    foreign: Mutex<HashMap<DeviceId, (u64, u64)>>,
    /// When alarms about the log were entered into it, by uptime.
    alarmed: Mutex<HashMap<(TenantId, &'static str), Duration>>,
    /// What this node holds each log to.
    pub(super) anchors: Anchors,
}

/// What a node knows of one log.
#[derive(Debug)]
struct Heads {
    /// Of the root document under which they were learned.
    restore_epoch: u32,
    /// The newest that the log key signed.
    signed: Arc<Head>,
    /// The newest that devices and tools are shown: with as many witnesses as the root document demands.
    published: Option<Arc<Head>>,
}

impl LogHeads {
    /// Whether this is the newest head already, under the restore epoch of now.
    fn is_signed(&self, tenant: TenantId, restore_epoch: u32, note: &str) -> bool {
        let heads = self.heads.read();
        let known = heads.get(&tenant);
        known.is_some_and(|known| known.restore_epoch == restore_epoch && known.signed.note == note)
    }

    /// Takes up a head that verified. An older one changes nothing, except under a new restore epoch.
    fn take(&self, tenant: TenantId, head: Anchor) {
        let (restore_epoch, size) = (head.restore_epoch, head.body.size);
        let mut heads = self.heads.write();
        let before = heads.get(&tenant);
        let is_anew = before.is_none_or(|known| known.restore_epoch != restore_epoch);
        if before.is_some() && is_anew {
            self.forget_tree();
        }
        self.remember_root(tenant, size, head.body.root);
        let signed = Arc::new(Head {
            size,
            root: head.body.root,
            note: head.note.clone(),
        });
        self.anchors.advance(tenant, head);
        match heads.get_mut(&tenant) {
            Some(known) if !is_anew => {
                if known.signed.size < size {
                    known.signed = signed;
                }
            }
            Some(_) | None => {
                let published = None;
                heads.insert(
                    tenant,
                    Heads {
                        restore_epoch,
                        signed,
                        published,
                    },
                );
            }
        }
    }

    /// Forgets a log that is deleted with its tenant, by the word of its root keys.
    pub fn forget_tenant(&self, tenant: TenantId) {
        self.heads.write().remove(&tenant);
        self.tiles.lock().retain(|(of, _, _), _| *of != tenant);
        self.roots.write().retain(|(of, _), _| *of != tenant);
        self.anchors.forget(tenant);
    }

    /// Forgets what was read of trees: it may be what somebody changed.
    fn forget_tree(&self) {
        self.tiles.lock().clear();
        self.roots.write().clear();
    }

    /// Settles which head is shown, after the newest signed one and the newest that witnesses cosigned.
    fn show(&self, root: &RootDocument, cosigned: Option<String>) {
        let mut heads = self.heads.write();
        let Some(known) = heads.get_mut(&root.tenant) else {
            return;
        };
        let is_newer = |note: &String, published: &Option<Arc<Head>>| {
            published.as_ref().is_none_or(|published| published.note != *note)
        };
        let cosigned = cosigned
            .filter(|note| is_newer(note, &known.published))
            .and_then(parse);
        let published = if root.checkpoint_keys().witness_threshold == 0 {
            // Cosignatures are an addition: nobody waits for them, and without one the row is nobody's word.
            let same = |head: &Head| head.size == known.signed.size && head.root == known.signed.root;
            match cosigned.filter(same) {
                Some(head) => Some(Arc::new(head)),
                None => Some(Arc::clone(&known.signed)),
            }
        } else {
            cosigned
                .filter(|head| {
                    Checkpoint::open(&head.note, &root.log_origin, &root.checkpoint_keys()).is_ok()
                })
                .map(Arc::new)
        };
        if let Some(head) = published
            && known
                .published
                .as_ref()
                .is_none_or(|before| replaces(before, &head))
        {
            known.published = Some(head);
        }
    }

    /// The root of an earlier head, if this node still knows it.
    pub(super) fn root_at(&self, tenant: TenantId, size: u64) -> Option<Hash> {
        self.roots.read().get(&(tenant, size)).copied()
    }

    pub(super) fn remember_root(&self, tenant: TenantId, size: u64, root: Hash) {
        let mut roots = self.roots.write();
        if roots.len() >= ROOTS_CACHED_MAX {
            roots.clear();
        }
        roots.insert((tenant, size), root);
    }

    /// Whether an alarm of this kind may be entered into the log now; it then counts as entered.
    pub(super) fn may_alarm(&self, tenant: TenantId, kind: &'static str) -> bool {
        let (now, mut alarmed) = (crate::clock::uptime(), self.alarmed.lock());
        let key = (tenant, kind);
        if alarmed.get(&key).is_some_and(|at| now < *at + ALARM_EVERY) {
            return false;
        }
        alarmed.insert(key, now);
        true
    }

    /// Whether this device proved a foreign head of this size to this node before, at this root document.
    pub(super) fn knows_foreign(&self, device: DeviceId, size: u64, root_version: u64) -> bool {
        self.foreign.lock().get(&device) == Some(&(size, root_version))
    }

    pub(super) fn remember_foreign(&self, device: DeviceId, size: u64, root_version: u64) {
        let mut foreign = self.foreign.lock();
        if foreign.len() >= FOREIGN_REMEMBERED_MAX {
            foreign.clear();
        }
        foreign.insert(device, (size, root_version));
    }

    fn published(&self, tenant: TenantId) -> Option<Arc<Head>> {
        self.heads.read().get(&tenant)?.published.clone()
    }

    fn signed(&self, tenant: TenantId) -> Option<Arc<Head>> {
        self.heads
            .read()
            .get(&tenant)
            .map(|known| Arc::clone(&known.signed))
    }

    pub(super) fn tile(&self, tx: &mut Tx, tenant: TenantId, tile: Tile) -> Result<Vec<Hash>, StorageError> {
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

/// Learns what is stored of a log: its signed head, and the newest head that witnesses cosigned. A head that is not signed, or does
/// not extend what this node has signed or seen, is refused, and what was known stays.
pub(super) async fn learn(
    app: &App,
    keys: &Arc<TenantKeys>,
    note: &str,
    cosigned: Option<String>,
) -> Result<Result<(), Refused>, Problem> {
    let tenant = keys.tenant;
    if !app.heads.is_signed(tenant, keys.root.restore_epoch, note) {
        let known = match app.heads.anchors.of(&app.keys, keys) {
            Ok(known) => known,
            Err(error) => {
                tracing::debug!(%error, %tenant, "the kept head cannot be read");
                return Ok(Err(Refused::Unknown));
            }
        };
        let shared = Arc::clone(keys);
        // The row is read again, beside the tiles of now: another step may have learned more meanwhile.
        let stored = app
            .db
            .read(super::tenant_scope(tenant), move |tx| {
                anchor::stored(tx, &shared, known.as_deref())
            })
            .await?;
        match stored {
            Ok(Some(head)) => app.heads.take(tenant, head),
            Ok(None) => return Ok(Ok(())),
            Err(refused) => {
                app.heads.forget_tree();
                return Ok(Err(refused));
            }
        }
    }
    app.heads.show(&keys.root, cosigned);
    Ok(Ok(()))
}

/// The newest head of a tenant's log that this node may show: with the cosignatures that the root document demands.
pub fn head(app: &App, tenant: TenantId) -> Option<Arc<Head>> {
    app.heads.published(tenant)
}

/// The newest head that the log key signed, whether witnesses have cosigned it or not.
pub fn signed_head(app: &App, tenant: TenantId) -> Option<Arc<Head>> {
    app.heads.signed(tenant)
}

/// Whether a head takes the place of the one before: it is larger, or the same with more signatures.
fn replaces(before: &Head, head: &Head) -> bool {
    head.size > before.size || (head.size == before.size && head.note.len() > before.note.len())
}

fn parse(note: String) -> Option<Head> {
    let body = CheckpointBody::parse(note.parse::<SignedNote>().ok()?.text()).ok()?;
    Some(Head {
        size: body.size,
        root: body.root,
        note,
    })
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
