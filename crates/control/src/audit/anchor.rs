//! The newest head of each log that this node signed or saw. Every later one must extend it, whatever the database says: nothing
//! else is shown, and nothing else gets our signature. Only a root document with a new restore epoch lets a log begin anew.

use std::{collections::HashMap, sync::Arc};

use muster_model::TenantId;
use muster_storage::{StorageError, Tx};
use muster_trust::{
    checkpoint::{self, CheckpointBody},
    key::PublicKey,
    merkle::{BuildError, Hash, verify_consistency},
    note::SignedNote,
    tile,
};
use parking_lot::Mutex;

use super::{sequence::read_tile, store};
use crate::{
    App,
    access::problem::Problem,
    secrets::{KeptHead, Keyring, SecretsError, TenantKeys},
};

/// A head that this node holds a log to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// Of the root document under which it was signed or seen.
    pub restore_epoch: u32,
    /// What its checkpoint says.
    pub body: CheckpointBody,
    /// The checkpoint as a C2SP signed note.
    pub note: String,
}

/// Why the stored head of a log is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// What this node knows cannot be read: its file beside the keys.
    Unknown,
    /// There is none, and this node knows one.
    Missing,
    /// Its row is not one that this program writes.
    Unreadable,
    /// No log key of this tenant signed it.
    NotSigned,
    /// It is smaller than one that this node knows.
    Shorter,
    /// It does not extend the one that this node knows.
    OtherHistory,
    /// The stored hashes of the tree do not lead to it.
    TreeChanged,
}

impl Refused {
    /// The code of the alarm.
    pub fn code(self) -> &'static str {
        match self {
            Refused::Unknown => "kept_head_unreadable",
            Refused::Missing => "head_missing",
            Refused::Unreadable => "head_unreadable",
            Refused::NotSigned => "head_not_signed",
            Refused::Shorter => "head_shorter",
            Refused::OtherHistory => "other_history",
            Refused::TreeChanged => "tree_changed",
        }
    }

    /// What is wrong, in words.
    pub fn why(self) -> &'static str {
        match self {
            Refused::Unknown => "what this node kept of it, log-head.json beside its keys, cannot be read",
            Refused::Missing => "its head is gone",
            Refused::Unreadable => "its head cannot be read",
            Refused::NotSigned => "its head is not one that this installation signed",
            Refused::Shorter => "it is shorter than the head that this node has seen",
            Refused::OtherHistory => "it does not extend the head that this node has seen",
            Refused::TreeChanged => "its tiles do not lead to the signed root",
        }
    }
}

/// What this node holds each log to, in memory and in a file beside the keys.
#[derive(Debug, Default)]
pub struct Anchors {
    known: Mutex<HashMap<TenantId, Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    anchor: Option<Arc<Anchor>>,
    is_kept: bool,
}

impl Anchors {
    /// The head that the stored one must extend; none where the log begins, also where it begins anew after a restore.
    pub fn of(&self, keyring: &Keyring, keys: &TenantKeys) -> Result<Option<Arc<Anchor>>, SecretsError> {
        let mut all = self.known.lock();
        let known = match all.get(&keys.tenant) {
            Some(known) => known.anchor.clone(),
            None => {
                let anchor = kept(keyring, keys.tenant)?.map(Arc::new);
                let known = Known {
                    anchor: anchor.clone(),
                    is_kept: true,
                };
                all.insert(keys.tenant, known);
                anchor
            }
        };
        Ok(known.filter(|anchor| anchor.restore_epoch >= keys.root.restore_epoch))
    }

    /// The tenants of which a head is known.
    pub fn tenants(&self) -> Vec<TenantId> {
        let all = self.known.lock();
        let with_head = all.iter().filter(|(_, known)| known.anchor.is_some());
        with_head.map(|(tenant, _)| *tenant).collect()
    }

    /// Takes up what was signed here or verified. An older head changes nothing.
    pub fn advance(&self, tenant: TenantId, anchor: Anchor) {
        let order = |anchor: &Anchor| (anchor.restore_epoch, anchor.body.size);
        let mut all = self.known.lock();
        let before = all.get(&tenant).and_then(|known| known.anchor.as_deref());
        if before.is_none_or(|before| order(before) < order(&anchor)) {
            let anchor = Some(Arc::new(anchor));
            all.insert(
                tenant,
                Known {
                    anchor,
                    is_kept: false,
                },
            );
        }
    }

    /// Forgets what a log was held to: it ended.
    pub(super) fn forget(&self, tenant: TenantId) {
        self.known.lock().remove(&tenant);
    }

    fn unkept(&self) -> Vec<(TenantId, Arc<Anchor>)> {
        let all = self.known.lock();
        let unkept = all.iter().filter(|(_, known)| !known.is_kept);
        unkept
            .filter_map(|(tenant, known)| Some((*tenant, Arc::clone(known.anchor.as_ref()?))))
            .collect()
    }

    fn note_kept(&self, tenant: TenantId, anchor: &Arc<Anchor>) {
        if let Some(known) = self.known.lock().get_mut(&tenant)
            && known.anchor.as_ref().is_some_and(|now| Arc::ptr_eq(now, anchor))
        {
            known.is_kept = true;
        }
    }
}

/// The head in the file beside the keys. One that cannot be read is an error: to go on without it would be to forget a history.
pub fn kept(keyring: &Keyring, tenant: TenantId) -> Result<Option<Anchor>, SecretsError> {
    let Some(head) = keyring.kept_head(tenant)? else {
        return Ok(None);
    };
    let body = parse(&head.note).filter(|body| body.origin == checkpoint::origin(tenant));
    let body = body.ok_or_else(|| {
        SecretsError::Ceremony(format!(
            "the kept head of the log of {tenant} (log-head.json beside its keys) is not a checkpoint of it"
        ))
    })?;
    Ok(Some(Anchor {
        restore_epoch: head.restore_epoch,
        body,
        note: head.note,
    }))
}

/// Writes what is newer than its file. What cannot be written is tried again, and said once an hour.
pub async fn keep_heads(app: &App) -> Result<(), Problem> {
    let unkept = app.heads.anchors.unkept();
    if unkept.is_empty() {
        return Ok(());
    }
    let shared = app.clone();
    let written = tokio::task::spawn_blocking(move || {
        for (tenant, anchor) in &unkept {
            let head = KeptHead {
                restore_epoch: anchor.restore_epoch,
                note: anchor.note.clone(),
            };
            match shared.keys.keep_head(*tenant, &head) {
                Ok(()) => shared.heads.anchors.note_kept(*tenant, anchor),
                Err(error) if shared.heads.may_alarm(*tenant, "head_not_kept") => {
                    tracing::error!(%error, %tenant,
                        "the newest head of the log is in memory alone: after a restart this node knows an older one");
                }
                Err(_) => {}
            }
        }
    });
    written.await.map_err(Problem::internal)
}

/// The stored head of a log, if this node may believe it; none where the log is empty.
pub fn stored(
    tx: &mut Tx,
    keys: &TenantKeys,
    anchor: Option<&Anchor>,
) -> Result<Result<Option<Anchor>, Refused>, Problem> {
    let Some(tree) = store::tree(tx, keys.tenant)? else {
        return Ok(match anchor {
            None => Ok(None),
            Some(_) => Err(Refused::Missing),
        });
    };
    let body = match read(keys, &tree, anchor) {
        Ok(body) => body,
        Err(refused) => return Ok(Err(refused)),
    };
    if let Some(anchor) = anchor
        && let Err(refused) = extends(tx, keys.tenant, &anchor.body, &body)?
    {
        return Ok(Err(refused));
    }
    Ok(Ok(Some(Anchor {
        restore_epoch: keys.root.restore_epoch,
        body,
        note: tree.note,
    })))
}

/// Reads a head and checks who signed it: this installation, with the key that it has or one that the root document still names.
/// What this node has seen before needs no signature: its key may have been replaced since.
fn read(
    keys: &TenantKeys,
    tree: &store::TreeRow,
    anchor: Option<&Anchor>,
) -> Result<CheckpointBody, Refused> {
    let note: SignedNote = tree.note.parse().map_err(|_| Refused::Unreadable)?;
    let body = CheckpointBody::parse(note.text()).map_err(|_| Refused::Unreadable)?;
    let origin = checkpoint::origin(keys.tenant);
    if body.size != tree.size || body.origin != origin {
        return Err(Refused::Unreadable);
    }
    let is_signed = |key: &&PublicKey| note.signed_by(&origin, key).is_ok_and(|ours| ours);
    if anchor.is_some_and(|anchor| anchor.body == body) || keys.log_keys().iter().any(is_signed) {
        Ok(body)
    } else {
        Err(Refused::NotSigned)
    }
}

/// Whether the tree of one head is the beginning of the other's, by the stored tiles.
fn extends(
    tx: &mut Tx,
    tenant: TenantId,
    earlier: &CheckpointBody,
    later: &CheckpointBody,
) -> Result<Result<(), Refused>, StorageError> {
    if later.size < earlier.size {
        return Ok(Err(Refused::Shorter));
    }
    let proof: Vec<Hash> = if earlier.size == later.size {
        Vec::new()
    } else {
        match tile::consistency_proof(earlier.size, later.size, |tile| read_tile(tx, tenant, tile)) {
            Ok(proof) => proof,
            Err(BuildError::Store(error)) => return Err(error),
            Err(BuildError::Missing(_) | BuildError::OutOfRange { .. }) => {
                return Ok(Err(Refused::TreeChanged));
            }
        }
    };
    let proved = verify_consistency(earlier.size, &earlier.root, later.size, &later.root, &proof);
    Ok(proved.map_err(|_| Refused::OtherHistory))
}

fn parse(note: &str) -> Option<CheckpointBody> {
    CheckpointBody::parse(note.parse::<SignedNote>().ok()?.text()).ok()
}
