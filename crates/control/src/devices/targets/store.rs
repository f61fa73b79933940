//! SQL of targets: the devices of a target, with what they reported.

use muster_model::{DeviceId, Platform, TenantId, Timestamp};
use muster_storage::{Row, StorageError, ToValue, Tx, statements};
use uuid::Uuid;

use super::TargetDevice;

/// How many platforms a statement takes.
pub const PLATFORM_PLACES: usize = 5;
/// How many device ids a statement takes.
pub const DEVICE_PLACES: usize = 16;

statements! {
    COUNT_TARGETS = "SELECT COUNT(*) FROM devices_device \
        WHERE tenant_id = $1 AND state = 'active' AND platform IN ($2, $3, $4, $5, $6)";
    COUNT_TARGETS_OF = "SELECT COUNT(*) FROM devices_device \
        WHERE tenant_id = $1 AND state = 'active' AND platform IN ($2, $3, $4, $5, $6) \
        AND device_id IN ($7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)";
    TARGET_PROGRESS = "SELECT COALESCE(r.state, ''), d.enrolled_at <= $8, COUNT(*) FROM devices_device d \
        LEFT JOIN rollout_report r ON r.tenant_id = d.tenant_id AND r.device_id = d.device_id \
        AND r.epoch = d.epoch AND r.generation >= $7 \
        WHERE d.tenant_id = $1 AND d.state = 'active' AND d.platform IN ($2, $3, $4, $5, $6) GROUP BY 1, 2";
    TARGET_PROGRESS_OF = "SELECT COALESCE(r.state, ''), d.enrolled_at <= $8, COUNT(*) FROM devices_device d \
        LEFT JOIN rollout_report r ON r.tenant_id = d.tenant_id AND r.device_id = d.device_id \
        AND r.epoch = d.epoch AND r.generation >= $7 \
        WHERE d.tenant_id = $1 AND d.state = 'active' AND d.platform IN ($2, $3, $4, $5, $6) \
        AND d.device_id IN ($9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24) \
        GROUP BY 1, 2";
    TARGET_PAGE = "SELECT device_id, name, platform, epoch, enrolled_at FROM devices_device \
        WHERE tenant_id = $1 AND state = 'active' AND platform IN ($2, $3, $4, $5, $6) AND device_id > $7 \
        ORDER BY device_id LIMIT $8";
    TARGET_PAGE_OF = "SELECT device_id, name, platform, epoch, enrolled_at FROM devices_device \
        WHERE tenant_id = $1 AND state = 'active' AND platform IN ($2, $3, $4, $5, $6) \
        AND device_id IN ($7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22) \
        ORDER BY device_id";
    STALE_VERDICT = "SELECT epoch FROM devices_device \
        WHERE tenant_id = $1 AND state = 'active' AND platform IN ($2, $3, $4, $5, $6) \
        AND compliance_state <> 'pending' AND compliance_at < $7 LIMIT 1";
    STALE_VERDICT_OF = "SELECT epoch FROM devices_device \
        WHERE tenant_id = $1 AND state = 'active' AND platform IN ($2, $3, $4, $5, $6) \
        AND compliance_state <> 'pending' AND compliance_at < $7 \
        AND device_id IN ($8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23) LIMIT 1";
    MARK_PENDING = "UPDATE devices_device SET compliance_state = 'pending' \
        WHERE tenant_id = $1 AND device_id IN (SELECT device_id FROM devices_device \
        WHERE tenant_id = $1 AND state = 'active' AND platform IN ($2, $3, $4, $5, $6) \
        AND compliance_state <> 'pending' AND compliance_at < $7 LIMIT $8)";
    MARK_PENDING_OF = "UPDATE devices_device SET compliance_state = 'pending' \
        WHERE tenant_id = $1 AND state = 'active' AND platform IN ($2, $3, $4, $5, $6) \
        AND compliance_state <> 'pending' AND compliance_at < $7 \
        AND device_id IN ($8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)";
}

type Platforms = [&'static str; PLATFORM_PLACES];
type Devices = [DeviceId; DEVICE_PLACES];
/// The reported state (empty when there is no report), whether a report is owed, and how many devices.
type ProgressRow = (String, bool, u64);

pub fn count(tx: &mut Tx, tenant: TenantId, platforms: &Platforms) -> Result<u64, StorageError> {
    let tenant = tenant.uuid();
    tx.query_one(&COUNT_TARGETS, &with(&[&tenant], platforms, &[], &[]), |row| {
        row.get(0)
    })
}

pub fn count_of(
    tx: &mut Tx,
    tenant: TenantId,
    platforms: &Platforms,
    devices: &Devices,
) -> Result<u64, StorageError> {
    let (tenant, devices) = (tenant.uuid(), devices.map(DeviceId::uuid));
    tx.query_one(
        &COUNT_TARGETS_OF,
        &with(&[&tenant], platforms, &[], &devices),
        |row| row.get(0),
    )
}

pub fn progress(
    tx: &mut Tx,
    tenant: TenantId,
    platforms: &Platforms,
    generation: u64,
    enrolled_by: Timestamp,
) -> Result<Vec<ProgressRow>, StorageError> {
    let (tenant, generation, by) = (tenant.uuid(), signed(generation), enrolled_by.as_micros());
    tx.query(
        &TARGET_PROGRESS,
        &with(&[&tenant], platforms, &[&generation, &by], &[]),
        progress_row,
    )
}

pub fn progress_of(
    tx: &mut Tx,
    tenant: TenantId,
    platforms: &Platforms,
    generation: u64,
    enrolled_by: Timestamp,
    devices: &Devices,
) -> Result<Vec<ProgressRow>, StorageError> {
    let (tenant, generation, by) = (tenant.uuid(), signed(generation), enrolled_by.as_micros());
    let devices = devices.map(DeviceId::uuid);
    tx.query(
        &TARGET_PROGRESS_OF,
        &with(&[&tenant], platforms, &[&generation, &by], &devices),
        progress_row,
    )
}

pub fn page(
    tx: &mut Tx,
    tenant: TenantId,
    platforms: &Platforms,
    after: DeviceId,
    limit: i64,
) -> Result<Vec<TargetDevice>, StorageError> {
    let (tenant, after) = (tenant.uuid(), after.uuid());
    tx.query(
        &TARGET_PAGE,
        &with(&[&tenant], platforms, &[&after, &limit], &[]),
        device,
    )
}

pub fn page_of(
    tx: &mut Tx,
    tenant: TenantId,
    platforms: &Platforms,
    devices: &Devices,
) -> Result<Vec<TargetDevice>, StorageError> {
    let (tenant, devices) = (tenant.uuid(), devices.map(DeviceId::uuid));
    tx.query(
        &TARGET_PAGE_OF,
        &with(&[&tenant], platforms, &[], &devices),
        device,
    )
}

pub fn has_stale(
    tx: &mut Tx,
    tenant: TenantId,
    platforms: &Platforms,
    evaluated_before: Timestamp,
) -> Result<bool, StorageError> {
    let (tenant, before) = (tenant.uuid(), evaluated_before.as_micros());
    let found = tx.query_opt(
        &STALE_VERDICT,
        &with(&[&tenant], platforms, &[&before], &[]),
        |row| row.get::<i64>(0),
    )?;
    Ok(found.is_some())
}

pub fn has_stale_of(
    tx: &mut Tx,
    tenant: TenantId,
    platforms: &Platforms,
    evaluated_before: Timestamp,
    devices: &Devices,
) -> Result<bool, StorageError> {
    let (tenant, before) = (tenant.uuid(), evaluated_before.as_micros());
    let devices = devices.map(DeviceId::uuid);
    let parameters = with(&[&tenant], platforms, &[&before], &devices);
    Ok(tx
        .query_opt(&STALE_VERDICT_OF, &parameters, |row| row.get::<i64>(0))?
        .is_some())
}

pub fn mark_pending(
    tx: &mut Tx,
    tenant: TenantId,
    platforms: &Platforms,
    evaluated_before: Timestamp,
    limit: i64,
) -> Result<u64, StorageError> {
    let (tenant, before) = (tenant.uuid(), evaluated_before.as_micros());
    tx.execute(
        &MARK_PENDING,
        &with(&[&tenant], platforms, &[&before, &limit], &[]),
    )
}

pub fn mark_pending_of(
    tx: &mut Tx,
    tenant: TenantId,
    platforms: &Platforms,
    evaluated_before: Timestamp,
    devices: &Devices,
) -> Result<u64, StorageError> {
    let (tenant, before) = (tenant.uuid(), evaluated_before.as_micros());
    let devices = devices.map(DeviceId::uuid);
    tx.execute(
        &MARK_PENDING_OF,
        &with(&[&tenant], platforms, &[&before], &devices),
    )
}

/// Parameters in the order that every statement here has: tenant, platforms, its own, device ids.
fn with<'a>(
    tenant: &[&'a dyn ToValue],
    platforms: &'a Platforms,
    own: &[&'a dyn ToValue],
    devices: &'a [Uuid],
) -> Vec<&'a dyn ToValue> {
    let mut parameters = tenant.to_vec();
    parameters.extend(platforms.iter().map(|word| word as &dyn ToValue));
    parameters.extend_from_slice(own);
    parameters.extend(devices.iter().map(|id| id as &dyn ToValue));
    parameters
}

fn progress_row(row: &Row<'_>) -> Result<ProgressRow, StorageError> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

fn device(row: &Row<'_>) -> Result<TargetDevice, StorageError> {
    let platform: String = row.get(2)?;
    Ok(TargetDevice {
        id: DeviceId::from_uuid(row.get(0)?),
        name: row.get(1)?,
        // A word that this program does not know is a device of a later one; it is listed all the same.
        platform: Platform::parse(&platform).unwrap_or(Platform::Linux),
        epoch: row.get(3)?,
        enrolled_at: Timestamp::from_micros(row.get(4)?),
    })
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
