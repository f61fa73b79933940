//! Devices say which head of the log they stand at. One that is not a head of ours, and that our key signed all the same, is
//! a split view: somebody with the log key shows another history, or this server came back from a backup.

pub(super) mod store;

use std::sync::Arc;

use muster_model::{DeviceId, TenantId, Timestamp};
use muster_storage::Tx;
use muster_trust::{
    checkpoint::{self, CheckpointBody},
    merkle::Hash,
    note::SignedNote,
    root::{Role, RootDocument},
    tile,
};

use super::{LoggedTx, tenant_scope};
use crate::{
    App,
    access::{Author, problem::Problem},
    secrets::{self, TenantKeys},
};

/// Split views that are kept of one tenant: after so many devices one more says nothing new.
pub const SPLIT_VIEWS_MAX: i64 = 100;
/// Longest checkpoint that an entry of the log repeats.
const NOTE_LOGGED_BYTES_MAX: usize = 4096;

/// A head that a device holds and that this server's tree does not have. Our log key signed it.
#[derive(Debug, Clone)]
pub struct SplitView {
    pub device: DeviceId,
    /// Entries that the device's head commits to.
    pub size: u64,
    pub root: Hash,
    /// The device's checkpoint, a C2SP signed note: the proof.
    pub note: String,
    pub seen_at: Timestamp,
}

/// How a head that a device reports goes with the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is a head of this tree.
    Ours,
    /// The tree of this size has another root.
    OtherRoot,
    /// The tree is shorter.
    Longer,
}

impl Standing {
    fn as_str(self) -> &'static str {
        match self {
            Standing::Ours => "ours",
            Standing::OtherRoot => "other_root",
            Standing::Longer => "longer",
        }
    }
}

/// How a device's head goes with the tree of the tenant. Heads of this process's time are answered from memory; others are
/// computed once from the tiles.
pub async fn standing(app: &App, tenant: TenantId, size: u64, root: Hash) -> Result<Standing, Problem> {
    let of = |ours: Hash| match ours == root {
        true => Standing::Ours,
        false => Standing::OtherRoot,
    };
    if let Some(ours) = app.heads.root_at(tenant, size) {
        return Ok(of(ours));
    }
    let shared = app.clone();
    let ours = app
        .db
        .read(tenant_scope(tenant), move |tx| root_at(&shared, tx, tenant, size))
        .await?;
    Ok(match ours {
        Some(ours) => {
            app.heads.remember_root(tenant, size, ours);
            of(ours)
        }
        None => Standing::Longer,
    })
}

/// The root of the tree at a size; none where the stored tree, which another node may have signed, does not reach it.
fn root_at(app: &App, tx: &mut Tx, tenant: TenantId, size: u64) -> Result<Option<Hash>, Problem> {
    let stored = super::store::tree(tx, tenant)?.map_or(0, |tree| tree.size);
    if size > stored {
        return Ok(None);
    }
    tile::root(size, |tile| app.heads.tile(tx, tenant, tile))
        .map(Some)
        .map_err(Problem::internal)
}

/// Whether a note is a checkpoint of this log, signed by a log key that a root document of the tenant names or named.
fn is_signed_by_us(keys: &TenantKeys, note: &str, size: u64, root: &Hash) -> bool {
    let Ok(signed) = note.parse::<SignedNote>() else {
        return false;
    };
    let Ok(body) = CheckpointBody::parse(signed.text()) else {
        return false;
    };
    let origin = checkpoint::origin(keys.tenant);
    if body.origin != origin || body.size != size || body.root != *root {
        return false;
    }
    let documents = keys
        .root_documents
        .iter()
        .filter_map(|envelope| RootDocument::from_payload(&envelope.payload).ok());
    documents.into_iter().any(|document| {
        let (log_keys, _) = document.role(Role::Log);
        log_keys
            .iter()
            .any(|key| signed.signed_by(&origin, key).is_ok_and(|signed| signed))
    })
}

/// What a report of another head came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// Our key signed it: it is stored, and entered into the log the first time.
    Proved,
    /// Our key signed it before a restore of which the device has not heard yet.
    OfBefore,
    /// It is the device's word only, which counts for nothing.
    NotOurs,
}

/// Whether the device proved this head to this node before, at the same root document: it need not prove it again.
pub fn is_reported(app: &App, device: DeviceId, size: u64, root_version: u64) -> bool {
    app.heads.knows_foreign(device, size, root_version)
}

/// Takes the checkpoint of a device that is not at a head of ours. A device is not believed: only our own signature counts.
pub async fn report(
    app: &App,
    tenant: TenantId,
    standing: Standing,
    root_version: u64,
    view: SplitView,
) -> Result<Reported, Problem> {
    let (device, size, root) = (view.device, view.size, view.root);
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    if !is_signed_by_us(&keys, &view.note, size, &root) {
        return Ok(Reported::NotOurs);
    }
    // The head of a device that has not heard of the restore is one of before it: nothing that anybody wonders about.
    if epoch_began(&keys).is_some_and(|began| root_version < began.version) {
        return Ok(Reported::OfBefore);
    }
    app.log_metrics.split_views.inc();
    let shared = app.clone();
    let is_new = super::observe(app, &Author::device(tenant, device), move |tx| {
        // The tree may have reached it meanwhile, on another node.
        match root_at(&shared, tx, tenant, size)? {
            Some(ours) if ours == root => return Ok(false),
            Some(_) | None => {}
        }
        enter(tx, standing, &view)
    })
    .await?;
    app.heads.remember_foreign(device, size, root_version);
    if is_new {
        tracing::error!(%tenant, %device, size, %root, standing = standing.as_str(),
            "a device holds a head of the log that this server does not have and that our key signed: the log key signs \
             elsewhere, or this server came back from a backup");
    }
    Ok(Reported::Proved)
}

fn enter(tx: &mut LoggedTx<'_>, standing: Standing, view: &SplitView) -> Result<bool, Problem> {
    let tenant = tx.tenant();
    let known = store::list(tx, tenant, SPLIT_VIEWS_MAX)?;
    let is_full = known.len() >= usize::try_from(SPLIT_VIEWS_MAX).unwrap_or(usize::MAX);
    if is_full && known.iter().all(|one| one.device != view.device) {
        return Ok(false);
    }
    let keys = Arc::clone(tx.keys());
    let since = epoch_since(tx, &keys)?;
    if store::put(tx, tenant, view, since)? == 0 {
        return Ok(false);
    }
    let mut detail = serde_json::json!({
        "size": view.size, "root": view.root.to_string(), "standing": standing.as_str(),
    });
    // A checkpoint with very many signatures is in the table alone.
    if view.note.len() <= NOTE_LOGGED_BYTES_MAX {
        detail["checkpoint"] = view.note.as_str().into();
    }
    tx.record("security.split_view", ("device", view.device.to_string()), detail)?;
    Ok(true)
}

/// Every split view that is kept and not settled, at most [`SPLIT_VIEWS_MAX`]: while there is one, what cannot be undone is not
/// sent. Only whoever holds the root keys settles one: by naming its head in the root document, or by beginning a restore epoch
/// after it was seen.
pub fn split_views(tx: &mut Tx, keys: &TenantKeys) -> Result<Vec<SplitView>, Problem> {
    let since = epoch_since(tx, keys)?;
    let mut views = store::list(tx, keys.tenant, SPLIT_VIEWS_MAX)?;
    views.retain(|view| view.seen_at >= since && !keys.root.settled_heads.contains(&view.root));
    Ok(views)
}

/// When the restore epoch of now was published, by the database: whoever writes there could remove split views as well. The beginning
/// of time where nothing was ever restored.
fn epoch_since(tx: &mut Tx, keys: &TenantKeys) -> Result<Timestamp, Problem> {
    let Some(began) = epoch_began(keys) else {
        return Ok(Timestamp::from_micros(0));
    };
    let published = secrets::published_at(tx, keys.tenant, began.version)?;
    Ok(published.unwrap_or(began.issued_at))
}

/// The root document that began the restore epoch of now; none where nothing was ever restored.
fn epoch_began(keys: &TenantKeys) -> Option<RootDocument> {
    let now = keys.root.restore_epoch;
    if now == 0 {
        return None;
    }
    let documents = keys.root_documents.iter().rev();
    documents
        .map_while(|envelope| RootDocument::from_payload(&envelope.payload).ok())
        .take_while(|document| document.restore_epoch == now)
        .last()
}
