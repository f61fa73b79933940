//! The whole log of a tenant against its signed head: what `muster log verify` and `muster doctor` run.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
};

use muster_model::{TenantId, Timestamp};
use muster_storage::{StorageError, Tx};
use muster_trust::{
    checkpoint::{Checkpoint, CheckpointBody, CheckpointKeys},
    entry::LogEntry,
    key::PublicKey,
    log::{StoredEntry, VerifyError, verify_log},
    root::RootDocument,
};

use super::{
    anchor::Anchor,
    sealed,
    sequence::read_tile,
    store::{self, PendingRow, PlacedRow},
    witnesses,
};
use crate::{access::problem::Problem, secrets::TenantKeys};

/// Rows that are in memory at a time.
const ROWS_PER_READ: i64 = 2000;
const UNPLACED_MAX: i64 = 10_000;

/// A log that verified.
#[derive(Debug, Clone)]
pub struct LogSummary {
    pub entries: u64,
    /// Entries that were committed and wait for their place.
    pub waiting: u64,
    pub root: String,
}

/// Verifies every entry of a tenant; the error names the first bad one. `kept` is the newest head that this node signed or saw,
/// read before the transaction began.
pub fn verify_tenant(
    tx: &mut Tx,
    keys: &TenantKeys,
    kept: Option<&Anchor>,
) -> Result<Result<LogSummary, String>, Problem> {
    let (tenant, root) = (keys.tenant, &keys.root);
    let Some(tree) = store::tree(tx, tenant)? else {
        return Ok(Err(
            "the log has no signed head: audit_tree has no row for the tenant".to_owned(),
        ));
    };
    // Witnesses cosign after the log has signed: their threshold is for what devices are shown.
    let log_alone = CheckpointKeys {
        // The sequencer signs and accepts with its own key too, which may be on its way into the document.
        log: keys.log_keys(),
        witness_threshold: 0,
        ..root.checkpoint_keys()
    };
    let head = match Checkpoint::open(&tree.note, &root.log_origin, &log_alone) {
        Ok(head) => head,
        Err(error) => {
            return Ok(Err(format!(
                "the signed head of the log does not verify: {error}"
            )));
        }
    };
    if tree.size != head.body.size {
        return Ok(Err(format!(
            "the signed head commits to {} entries, and audit_tree.size says {}",
            head.body.size, tree.size
        )));
    }
    let witnessed = match witnessed(tx, tenant, root, &log_alone)? {
        Ok(witnessed) => witnessed,
        Err(why) => return Ok(Err(why)),
    };
    if let Some(larger) = witnessed
        .as_ref()
        .filter(|witnessed| witnessed.size > head.body.size)
    {
        return Ok(Err(format!(
            "entry {}: the log ends here, and witnesses cosigned {} entries",
            head.body.size, larger.size
        )));
    }
    let kept = kept.filter(|kept| kept.restore_epoch >= root.restore_epoch);
    if let Some(larger) = kept.filter(|kept| kept.body.size > head.body.size) {
        return Ok(Err(format!(
            "entry {}: the log ends here, and this node knows a signed head of {} entries: it went back",
            head.body.size, larger.body.size
        )));
    }
    let mut heads: Vec<CheckpointBody> = witnessed.into_iter().collect();
    heads.extend(kept.map(|kept| kept.body.clone()));
    heads.sort_by_key(|head| head.size);
    heads.push(head.body.clone());
    let relabeled = Cell::new(None);
    // Rows and tiles are read in turns, a piece at a time: a log may be larger than the memory.
    let tx = RefCell::new(tx);
    let entries = Rows::new(&tx, tenant, &relabeled);
    let read = |tile| read_tile(&mut tx.borrow_mut(), tenant, tile);
    let verified = verify_log(tenant, entries, read, &heads);
    let tx = tx.into_inner();
    let summary = match (verified, relabeled.get()) {
        (Err(VerifyError::Store(error)), _) => return Err(error.into()),
        (Err(VerifyError::Bad(bad)), relabeled) if relabeled.is_none_or(|place| place >= bad.index) => {
            return Ok(Err(bad.to_string()));
        }
        (_, Some(place)) => {
            return Ok(Err(format!(
                "entry {place}: the columns entry_id, action, actor or object_id are not those of its bytes"
            )));
        }
        (Err(VerifyError::Bad(bad)), None) => return Ok(Err(bad.to_string())),
        (Ok(summary), None) => summary,
    };
    if summary.unsigned_entries > 0 {
        return Ok(Err(format!(
            "entry {}: it has a place behind the signed head",
            summary.signed_entries
        )));
    }
    let waiting = store::unplaced(tx, tenant, UNPLACED_MAX)?;
    let log_keys = keys.log_keys();
    if let Some(row) = waiting.iter().find(|row| !is_ours(tenant, row, &log_keys)) {
        return Ok(Err(format!(
            "entry {}: it was added behind the log's back: it has no seal of ours",
            row.id
        )));
    }
    Ok(Ok(LogSummary {
        entries: summary.signed_entries,
        waiting: waiting.len() as u64,
        root: summary.root.to_string(),
    }))
}

/// The newest head that witnesses cosigned, or why the stored one is not one.
fn witnessed(
    tx: &mut Tx,
    tenant: TenantId,
    root: &RootDocument,
    log_alone: &CheckpointKeys<'_>,
) -> Result<Result<Option<CheckpointBody>, String>, Problem> {
    let Some(row) = witnesses::store::cosigned(tx, tenant)? else {
        return Ok(Ok(None));
    };
    Ok(match Checkpoint::open(&row.note, &root.log_origin, log_alone) {
        Ok(cosigned) if cosigned.body.size == row.size => Ok(Some(cosigned.body)),
        Ok(_) => Err("audit_cosigned.size is not that of its checkpoint".to_owned()),
        Err(error) => Err(format!("the cosigned head of the log does not verify: {error}")),
    })
}

/// What keeps devices from seeing the newest entries: too few witnesses cosigned, for a minute at least.
pub fn unpublished(
    tx: &mut Tx,
    tenant: TenantId,
    root: &RootDocument,
    now: Timestamp,
) -> Result<Option<String>, Problem> {
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
    let threshold = root.checkpoint_keys().witness_threshold;
    let Some(tree) = store::tree(tx, tenant)?.filter(|_| threshold > 0) else {
        return Ok(None);
    };
    let shown = witnesses::store::cosigned(tx, tenant)?
        .filter(|row| Checkpoint::open(&row.note, &root.log_origin, &root.checkpoint_keys()).is_ok());
    let since = shown.as_ref().map_or(root.issued_at, |row| row.at);
    let size = shown.map_or(0, |row| row.size);
    let waits = size < tree.size && now.since(since) > PATIENCE;
    Ok(waits.then(|| {
        format!(
            "the root document demands {threshold} witnesses; they cosigned {size} of {} entries, and devices wait for the \
             rest since {since}",
            tree.size
        )
    }))
}

/// Whether this installation wrote an entry that waits: its seal is by the log's key, and its bytes name it.
pub(super) fn is_ours(tenant: TenantId, row: &PendingRow, keys: &[&PublicKey]) -> bool {
    let sealed = sealed(&row.body);
    keys.iter().any(|key| key.verify(&sealed, &row.seal).is_ok())
        && LogEntry::from_bytes(&row.body).is_ok_and(|entry| entry.tenant == tenant && entry.id == row.id)
}

/// Every row that has a place, in the order of the places, a piece at a time. A negative place is out of order wherever it stands.
struct Rows<'a, 't> {
    tx: &'a RefCell<&'t mut Tx>,
    tenant: TenantId,
    /// The first place whose columns are not those of its bytes, of the rows so far.
    relabeled: &'a Cell<Option<u64>>,
    read: VecDeque<PlacedRow>,
    /// Where the next piece begins; none behind the last one.
    next: Option<i64>,
}

impl<'a, 't> Rows<'a, 't> {
    fn new(tx: &'a RefCell<&'t mut Tx>, tenant: TenantId, relabeled: &'a Cell<Option<u64>>) -> Self {
        Rows {
            tx,
            tenant,
            relabeled,
            read: VecDeque::new(),
            next: Some(i64::MIN),
        }
    }
}

impl Iterator for Rows<'_, '_> {
    type Item = Result<StoredEntry, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.read.is_empty() {
            let from = self.next.take()?;
            match store::rows_from(&mut self.tx.borrow_mut(), self.tenant, from, ROWS_PER_READ) {
                Ok(rows) => self.read = rows.into(),
                Err(error) => return Some(Err(error)),
            }
            self.next = self.read.back().and_then(|last| last.place.checked_add(1));
        }
        let row = self.read.pop_front()?;
        let index = row.place.cast_unsigned();
        if self.relabeled.get().is_none() && is_relabeled(&row) {
            self.relabeled.set(Some(index));
        }
        Some(Ok(StoredEntry {
            index,
            bytes: row.body,
        }))
    }
}

/// Whether the columns by which entries are found say something else than the bytes. What cannot be read is for the
/// verifier to name.
fn is_relabeled(row: &PlacedRow) -> bool {
    LogEntry::from_bytes(&row.body).is_ok_and(|entry| {
        entry.id != row.id
            || entry.action != row.action
            || entry.object.id != row.object
            || (!row.actor.is_empty() && entry.actor.id != row.actor)
    })
}
