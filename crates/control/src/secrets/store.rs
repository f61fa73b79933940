//! SQL of the `secrets_` tables.

use muster_model::{TenantId, Timestamp};
use muster_storage::{StorageError, Tx, statements};

statements! {
    ROOTS_AFTER = "SELECT version, envelope FROM secrets_root_document WHERE tenant_id = $1 AND version > $2 \
        ORDER BY version LIMIT $3";
    ROOT_VERSIONS = "SELECT tenant_id, MAX(version) FROM secrets_root_document GROUP BY tenant_id";
    INSERT_ROOT = "INSERT INTO secrets_root_document (tenant_id, version, envelope, created_by, created_at) \
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant_id, version) DO NOTHING";
    PUBLISHED_AT = "SELECT created_at FROM secrets_root_document WHERE tenant_id = $1 AND version = $2";
    REMOVE_ROOT = "DELETE FROM secrets_root_document WHERE tenant_id = $1 AND version = $2";
}

/// A root document as stored. Nothing in it is to be believed.
#[derive(Debug, Clone)]
pub struct RootRow {
    pub version: i64,
    pub envelope: Vec<u8>,
}

pub fn roots_after(
    tx: &mut Tx,
    tenant: TenantId,
    version: i64,
    limit: i64,
) -> Result<Vec<RootRow>, StorageError> {
    tx.query(&ROOTS_AFTER, &[&tenant.uuid(), &version, &limit], |row| {
        Ok(RootRow {
            version: row.get(0)?,
            envelope: row.get(1)?,
        })
    })
}

/// The newest stored version of each tenant that has any.
pub fn root_versions(tx: &mut Tx) -> Result<Vec<(TenantId, i64)>, StorageError> {
    tx.query(&ROOT_VERSIONS, &[], |row| {
        Ok((TenantId::from_uuid(row.get(0)?), row.get(1)?))
    })
}

/// Whether the row was written: there is none of this version yet.
pub fn insert_root(
    tx: &mut Tx,
    tenant: TenantId,
    row: &RootRow,
    created_by: &str,
    created_at: Timestamp,
) -> Result<bool, StorageError> {
    let rows = tx.execute(
        &INSERT_ROOT,
        &[
            &tenant.uuid(),
            &row.version,
            &row.envelope,
            &created_by,
            &created_at.as_micros(),
        ],
    )?;
    Ok(rows > 0)
}

/// When a document was published.
pub fn published_at(tx: &mut Tx, tenant: TenantId, version: i64) -> Result<Option<Timestamp>, StorageError> {
    tx.query_opt(&PUBLISHED_AT, &[&tenant.uuid(), &version], |row| {
        row.get(0).map(Timestamp::from_micros)
    })
}

pub fn remove_root(tx: &mut Tx, tenant: TenantId, version: i64) -> Result<(), StorageError> {
    tx.execute(&REMOVE_ROOT, &[&tenant.uuid(), &version]).map(drop)
}
