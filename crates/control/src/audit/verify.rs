//! The whole log of a tenant against its signed head: what `muster log verify` and `muster doctor` run.

use muster_model::{TenantId, Timestamp};
use muster_storage::{StorageError, Tx};
use muster_trust::{
    checkpoint::{Checkpoint, CheckpointBody, CheckpointKeys},
    entry::LogEntry,
    key::PublicKey,
    log::{StoredEntry, VerifyError, verify_log},
    root::{Role, RootDocument},
};

use super::{
    sealed,
    sequence::read_tile,
    store::{self, PendingRow, PlacedRow},
    witnesses,
};
use crate::access::problem::Problem;

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

/// Verifies every entry of a tenant; the error names the first bad one.
pub fn verify_tenant(
    tx: &mut Tx,
    tenant: TenantId,
    root: &RootDocument,
) -> Result<Result<LogSummary, String>, Problem> {
    let Some(tree) = store::tree(tx, tenant)? else {
        return Ok(Err(
            "the log has no signed head: audit_tree has no row for the tenant".to_owned(),
        ));
    };
    // Witnesses cosign after the log has signed: their threshold is for what devices are shown.
    let log_alone = CheckpointKeys {
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
    let mut heads: Vec<CheckpointBody> = witnessed.into_iter().collect();
    heads.push(head.body.clone());
    let (rows, relabeled) = read_rows(tx, tenant)?;
    let entries = rows.into_iter().map(Ok::<_, StorageError>);
    let verified = verify_log(tenant, entries, |tile| read_tile(tx, tenant, tile), &heads);
    let summary = match (verified, relabeled) {
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
    let (keys, _) = root.role(Role::Log);
    if let Some(row) = waiting.iter().find(|row| !is_ours(tenant, row, &keys)) {
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

/// Reads every row that has a place, in the order of the places, and the first place whose columns are not those of its
/// bytes. A negative place is out of order wherever it stands.
fn read_rows(tx: &mut Tx, tenant: TenantId) -> Result<(Vec<StoredEntry>, Option<u64>), Problem> {
    let (mut all, mut relabeled) = (Vec::new(), None);
    let mut from = i64::MIN;
    loop {
        let rows = store::rows_from(tx, tenant, from, ROWS_PER_READ)?;
        let Some(last) = rows.last().map(|row| row.place) else {
            return Ok((all, relabeled));
        };
        for row in rows {
            let index = row.place.cast_unsigned();
            if relabeled.is_none() && is_relabeled(&row) {
                relabeled = Some(index);
            }
            all.push(StoredEntry {
                index,
                bytes: row.body,
            });
        }
        if last == i64::MAX {
            return Ok((all, relabeled));
        }
        from = last + 1;
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
