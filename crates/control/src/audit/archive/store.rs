//! SQL of the archive's progress.

use muster_model::{TenantId, Timestamp};
use muster_storage::{StorageError, Tx, statements};

statements! {
    PROGRESS = "SELECT bundles, size FROM audit_archive WHERE tenant_id = $1";
    PUT_PROGRESS = "INSERT INTO audit_archive (tenant_id, bundles, size, archived_at) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (tenant_id) DO UPDATE SET bundles = $2, size = $3, archived_at = $4";
}

/// How far a log is in the archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Full bundles of entries, each with its hash tiles.
    pub bundles: u64,
    /// Size of the newest archived checkpoint.
    pub size: u64,
}

pub fn progress(tx: &mut Tx, tenant: TenantId) -> Result<Progress, StorageError> {
    let found = tx.query_opt(&PROGRESS, &[&tenant.uuid()], |row| {
        Ok(Progress {
            bundles: row.get(0)?,
            size: row.get(1)?,
        })
    })?;
    Ok(found.unwrap_or_default())
}

pub fn put_progress(
    tx: &mut Tx,
    tenant: TenantId,
    progress: Progress,
    at: Timestamp,
) -> Result<(), StorageError> {
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    tx.execute(
        &PUT_PROGRESS,
        &[
            &tenant.uuid(),
            &signed(progress.bundles),
            &signed(progress.size),
            &at.as_micros(),
        ],
    )
    .map(drop)
}
