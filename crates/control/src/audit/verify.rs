//! The whole log of a tenant against its signed head: what `muster log verify` and `muster doctor` run.

use muster_model::TenantId;
use muster_storage::{StorageError, Tx};
use muster_trust::{
    checkpoint::Checkpoint,
    log::{StoredEntry, VerifyError, verify_log},
    root::RootDocument,
};

use super::{sealed, sequence::read_tile, store};
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
    let head = match Checkpoint::open(&tree.note, &root.log_origin, &root.checkpoint_keys()) {
        Ok(head) => head,
        Err(error) => {
            return Ok(Err(format!(
                "the signed head of the log does not verify: {error}"
            )));
        }
    };
    let rows = read_rows(tx, tenant)?;
    let entries = rows.into_iter().map(Ok::<_, StorageError>);
    let verified = verify_log(
        tenant,
        entries,
        |tile| read_tile(tx, tenant, tile),
        std::slice::from_ref(&head.body),
    );
    let summary = match verified {
        Ok(summary) => summary,
        Err(VerifyError::Bad(bad)) => return Ok(Err(bad.to_string())),
        Err(VerifyError::Store(error)) => return Err(error.into()),
    };
    if summary.unsigned_entries > 0 {
        return Ok(Err(format!(
            "entry {}: it has a place behind the signed head",
            summary.signed_entries
        )));
    }
    let (keys, _) = root.role(muster_trust::root::Role::Log);
    let waiting = store::unplaced(tx, tenant, UNPLACED_MAX)?;
    for row in &waiting {
        if !keys
            .iter()
            .any(|key| key.verify(&sealed(&row.body), &row.seal).is_ok())
        {
            return Ok(Err(format!(
                "entry {}: it was added behind the log's back: it has no seal",
                row.id
            )));
        }
    }
    Ok(Ok(LogSummary {
        entries: summary.signed_entries,
        waiting: waiting.len() as u64,
        root: summary.root.to_string(),
    }))
}

/// Reads every row that has a place, in the order of the places. A negative place is out of order wherever it stands.
fn read_rows(tx: &mut Tx, tenant: TenantId) -> Result<Vec<StoredEntry>, Problem> {
    let mut all = Vec::new();
    let mut from = i64::MIN;
    loop {
        let rows = store::rows_from(tx, tenant, from, ROWS_PER_READ)?;
        let Some((last, _)) = rows.last() else {
            return Ok(all);
        };
        let next = last.saturating_add(1);
        all.extend(rows.into_iter().map(|(place, bytes)| StoredEntry {
            index: place.cast_unsigned(),
            bytes,
        }));
        if next == from {
            return Ok(all);
        }
        from = next;
    }
}
