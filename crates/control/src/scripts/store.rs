//! SQL of the `scripts_` tables.

use muster_model::{TenantId, Timestamp};
use muster_storage::{Row, StorageError, Tx, statements};

use super::Script;

macro_rules! script_columns {
    () => {
        "sha256, name, interpreter, timeout_seconds, output_bytes_max, envelope, created_by, created_at"
    };
}

statements! {
    INSERT = concat!("INSERT INTO scripts_script (tenant_id, ", script_columns!(), ") \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)");
    BY_SHA256 = concat!("SELECT ", script_columns!(), " FROM scripts_script WHERE tenant_id = $1 AND sha256 = $2");
    LIST = concat!("SELECT ", script_columns!(), " FROM scripts_script WHERE tenant_id = $1 AND sha256 > $2 \
        ORDER BY sha256 LIMIT $3");
    COUNT = "SELECT COUNT(*) FROM scripts_script WHERE tenant_id = $1";
    DELETE = "DELETE FROM scripts_script WHERE tenant_id = $1 AND sha256 = $2";
}

pub fn insert(tx: &mut Tx, tenant: TenantId, script: &Script) -> Result<(), StorageError> {
    tx.execute(
        &INSERT,
        &[
            &tenant.uuid(),
            &script.sha256.as_str(),
            &script.name.as_str(),
            &script.interpreter.as_str(),
            &i64::from(script.timeout_seconds),
            &i64::from(script.output_bytes_max),
            &script.envelope.as_str(),
            &script.created_by.as_str(),
            &script.created_at.as_micros(),
        ],
    )
    .map(drop)
}

pub fn by_sha256(tx: &mut Tx, tenant: TenantId, sha256: &str) -> Result<Option<Script>, StorageError> {
    tx.query_opt(&BY_SHA256, &[&tenant.uuid(), &sha256], script_of)
}

pub fn list(tx: &mut Tx, tenant: TenantId, after: &str, limit: usize) -> Result<Vec<Script>, StorageError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    tx.query(&LIST, &[&tenant.uuid(), &after, &limit], script_of)
}

pub fn count(tx: &mut Tx, tenant: TenantId) -> Result<i64, StorageError> {
    tx.query_one(&COUNT, &[&tenant.uuid()], |row| row.get(0))
}

pub fn delete(tx: &mut Tx, tenant: TenantId, sha256: &str) -> Result<u64, StorageError> {
    tx.execute(&DELETE, &[&tenant.uuid(), &sha256])
}

fn script_of(row: &Row<'_>) -> Result<Script, StorageError> {
    Ok(Script {
        sha256: row.get(0)?,
        name: row.get(1)?,
        interpreter: row.get(2)?,
        timeout_seconds: row.get(3)?,
        output_bytes_max: row.get(4)?,
        envelope: row.get(5)?,
        created_by: row.get(6)?,
        created_at: Timestamp::from_micros(row.get(7)?),
    })
}
