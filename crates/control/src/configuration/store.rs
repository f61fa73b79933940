//! SQL of the `configuration_` table.

use muster_model::{TenantId, Timestamp};
use muster_storage::{StorageError, Tx, statements};
use muster_trust::key::Digest;

/// Plans of a tenant that are kept, the newest.
const PLANS_KEPT_MAX: i64 = 100;
/// Bytes of documents of a tenant that are kept.
const PLAN_BYTES_MAX: i64 = 64 * 1024 * 1024;

statements! {
    KEEP_PLAN = "INSERT INTO configuration_plan (tenant_id, plan_sha256, document, bytes, created_at) \
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant_id, plan_sha256) DO UPDATE SET created_at = $5";
    DROP_SURPLUS = "DELETE FROM configuration_plan WHERE tenant_id = $1 AND (created_at < $2 OR plan_sha256 IN \
        (SELECT ranked.plan_sha256 FROM (SELECT plan_sha256, \
        ROW_NUMBER() OVER (ORDER BY created_at DESC, plan_sha256) AS place, \
        CAST(SUM(bytes) OVER (ORDER BY created_at DESC, plan_sha256) AS BIGINT) AS total \
        FROM configuration_plan WHERE tenant_id = $1) AS ranked \
        WHERE ranked.place > $3 OR ranked.place > 1 AND ranked.total > $4))";
    PLANNED = "SELECT document FROM configuration_plan \
        WHERE tenant_id = $1 AND plan_sha256 = $2 AND created_at >= $3";
    FORGET_PLANS = "DELETE FROM configuration_plan WHERE created_at < $1";
}

/// Keeps a planned document, and drops what is too much or from before `since`.
pub fn keep(
    tx: &mut Tx,
    tenant: TenantId,
    sha256: &Digest,
    document: &str,
    now: Timestamp,
    since: Timestamp,
) -> Result<(), StorageError> {
    let bytes = i64::try_from(document.len()).unwrap_or(i64::MAX);
    tx.execute(
        &KEEP_PLAN,
        &[
            &tenant.uuid(),
            &sha256.as_bytes().as_slice(),
            &document,
            &bytes,
            &now.as_micros(),
        ],
    )?;
    tx.execute(
        &DROP_SURPLUS,
        &[
            &tenant.uuid(),
            &since.as_micros(),
            &PLANS_KEPT_MAX,
            &PLAN_BYTES_MAX,
        ],
    )
    .map(drop)
}

/// The document of a plan that was made at `since` or later.
pub fn planned(
    tx: &mut Tx,
    tenant: TenantId,
    sha256: &Digest,
    since: Timestamp,
) -> Result<Option<String>, StorageError> {
    tx.query_opt(
        &PLANNED,
        &[&tenant.uuid(), &sha256.as_bytes().as_slice(), &since.as_micros()],
        |row| row.get(0),
    )
}

/// Removes the plans of every tenant that were made before a time.
pub fn forget(tx: &mut Tx, before: Timestamp) -> Result<u64, StorageError> {
    tx.execute(&FORGET_PLANS, &[&before.as_micros()])
}
