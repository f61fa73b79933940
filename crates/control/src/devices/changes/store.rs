//! SQL of `devices_change`.

use muster_model::{DeviceId, TenantId};
use muster_storage::{StorageError, Tx, statements};

use super::Marked;

statements! {
    MARK = "INSERT INTO devices_change (tenant_id, device_id, what, mark) VALUES ($1, $2, $3, 1) \
        ON CONFLICT (tenant_id, device_id) DO UPDATE SET what = devices_change.what | $3, mark = devices_change.mark + 1";
    HOLD_PAGE = "INSERT INTO devices_change (tenant_id, device_id, what, mark) \
        SELECT tenant_id, device_id, 0, 0 FROM devices_device \
        WHERE tenant_id = $1 AND device_id > $2 AND state = 'active' ORDER BY device_id LIMIT $3 \
        ON CONFLICT (tenant_id, device_id) DO UPDATE SET mark = devices_change.mark RETURNING device_id";
    MARKED_WHAT = "SELECT what FROM devices_change WHERE tenant_id = $1 AND device_id = $2";
    SETTLE = "DELETE FROM devices_change WHERE tenant_id = $1 AND device_id = $2";
    LET_GO = "DELETE FROM devices_change WHERE tenant_id = $1 AND device_id > $2 AND device_id <= $3 AND what = 0";
    MARKED = "SELECT tenant_id, device_id FROM devices_change ORDER BY tenant_id, device_id LIMIT $1";
}

pub fn mark(tx: &mut Tx, tenant: TenantId, device: DeviceId, what: i64) -> Result<(), StorageError> {
    tx.execute(&MARK, &[&tenant.uuid(), &device.uuid(), &what])
        .map(drop)
}

pub fn hold_page(
    tx: &mut Tx,
    tenant: TenantId,
    after: DeviceId,
    limit: usize,
) -> Result<Vec<DeviceId>, StorageError> {
    let mut held = tx.query(
        &HOLD_PAGE,
        &[&tenant.uuid(), &after.uuid(), &rows(limit)],
        |row| Ok(DeviceId::from_uuid(row.get(0)?)),
    )?;
    held.sort_unstable();
    Ok(held)
}

pub fn what(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<Option<i64>, StorageError> {
    tx.query_opt(&MARKED_WHAT, &[&tenant.uuid(), &device.uuid()], |row| row.get(0))
}

pub fn settle(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<(), StorageError> {
    tx.execute(&SETTLE, &[&tenant.uuid(), &device.uuid()]).map(drop)
}

pub fn let_go(tx: &mut Tx, tenant: TenantId, after: DeviceId, until: DeviceId) -> Result<(), StorageError> {
    tx.execute(&LET_GO, &[&tenant.uuid(), &after.uuid(), &until.uuid()])
        .map(drop)
}

pub fn marked(tx: &mut Tx, limit: usize) -> Result<Vec<Marked>, StorageError> {
    tx.query(&MARKED, &[&rows(limit)], |row| {
        Ok(Marked {
            tenant: TenantId::from_uuid(row.get(0)?),
            device: DeviceId::from_uuid(row.get(1)?),
        })
    })
}

fn rows(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
