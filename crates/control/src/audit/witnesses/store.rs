//! SQL of the cosigned checkpoints.

use muster_model::{TenantId, Timestamp};
use muster_storage::{StorageError, Tx, statements};

statements! {
    COSIGNED = "SELECT size, note, updated_at FROM audit_cosigned WHERE tenant_id = $1";
    ALL_COSIGNED = "SELECT tenant_id, size, note FROM audit_cosigned";
    PUT_COSIGNED = "INSERT INTO audit_cosigned (tenant_id, size, note, updated_at) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (tenant_id) DO UPDATE SET size = $2, note = $3, updated_at = $4 \
        WHERE audit_cosigned.size <= $2";
}

/// A checkpoint with cosignatures, as stored.
#[derive(Debug, Clone)]
pub struct CosignedRow {
    pub size: u64,
    pub note: String,
    pub at: Timestamp,
}

pub fn cosigned(tx: &mut Tx, tenant: TenantId) -> Result<Option<CosignedRow>, StorageError> {
    tx.query_opt(&COSIGNED, &[&tenant.uuid()], |row| {
        Ok(CosignedRow {
            size: row.get(0)?,
            note: row.get(1)?,
            at: Timestamp::from_micros(row.get(2)?),
        })
    })
}

pub fn all_cosigned(tx: &mut Tx) -> Result<Vec<(TenantId, u64, String)>, StorageError> {
    tx.query(&ALL_COSIGNED, &[], |row| {
        Ok((TenantId::from_uuid(row.get(0)?), row.get(1)?, row.get(2)?))
    })
}

/// Stores a cosigned checkpoint; answers 0 where a larger one is there.
pub fn put_cosigned(
    tx: &mut Tx,
    tenant: TenantId,
    size: u64,
    note: &str,
    at: Timestamp,
) -> Result<u64, StorageError> {
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    tx.execute(&PUT_COSIGNED, &[&tenant.uuid(), &size, &note, &at.as_micros()])
}
