//! SQL of the `outputs_` tables.

use muster_model::{CommandId, DeviceId, TenantId, Timestamp};
use muster_storage::{StorageError, Tx, statements};

statements! {
    PUT = "INSERT INTO outputs_output (tenant_id, command_id, device_id, sha256, size, content, received_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (tenant_id, command_id) DO UPDATE SET \
        sha256 = $4, size = $5, content = $6, received_at = $7";
    BY_COMMAND = "SELECT sha256, content FROM outputs_output WHERE tenant_id = $1 AND command_id = $2";
    HELD = "SELECT COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM outputs_output WHERE tenant_id = $1";
    REMOVE_OLDEST = "DELETE FROM outputs_output WHERE tenant_id = $1 AND command_id IN \
        (SELECT command_id FROM outputs_output WHERE tenant_id = $1 ORDER BY received_at LIMIT $2)";
    REMOVE_BEFORE = "DELETE FROM outputs_output WHERE (tenant_id, command_id) IN \
        (SELECT tenant_id, command_id FROM outputs_output WHERE received_at < $1 ORDER BY received_at LIMIT $2)";
}

pub fn put(
    tx: &mut Tx,
    tenant: TenantId,
    (command, device): (CommandId, DeviceId),
    sha256: &str,
    content: &[u8],
    at: Timestamp,
) -> Result<(), StorageError> {
    tx.execute(
        &PUT,
        &[
            &tenant.uuid(),
            &command.uuid(),
            &device.uuid(),
            &sha256,
            &i64::try_from(content.len()).unwrap_or(i64::MAX),
            &content,
            &at.as_micros(),
        ],
    )
    .map(drop)
}

/// Digest and bytes.
pub fn by_command(
    tx: &mut Tx,
    tenant: TenantId,
    command: CommandId,
) -> Result<Option<(String, Vec<u8>)>, StorageError> {
    tx.query_opt(&BY_COMMAND, &[&tenant.uuid(), &command.uuid()], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

/// How many there are, and their bytes.
pub fn held(tx: &mut Tx, tenant: TenantId) -> Result<(i64, i64), StorageError> {
    tx.query_one(&HELD, &[&tenant.uuid()], |row| Ok((row.get(0)?, row.get(1)?)))
}

pub fn remove_oldest(tx: &mut Tx, tenant: TenantId, count: i64) -> Result<u64, StorageError> {
    tx.execute(&REMOVE_OLDEST, &[&tenant.uuid(), &count])
}

pub fn remove_before(tx: &mut Tx, before: Timestamp, count: i64) -> Result<u64, StorageError> {
    tx.execute(&REMOVE_BEFORE, &[&before.as_micros(), &count])
}
