//! SQL of targets: the devices of a target, with what they reported.

use muster_model::{ComplianceState, DeviceId, Platform, TenantId, Timestamp};
use muster_storage::{Row, StorageError, ToValue, Tx, statements};
use uuid::Uuid;

use super::{TargetDevice, TargetReport};

/// How many platforms a statement takes.
pub const PLATFORM_PLACES: usize = 5;
/// How many device ids a statement takes.
pub const DEVICE_PLACES: usize = 16;

macro_rules! target_columns {
    () => {
        "d.device_id, d.name, d.platform, d.model, d.epoch, d.enrolled_at, \
         CASE WHEN d.compliance_state = 'pending' THEN NULL ELSE d.compliance_at END, \
         r.state, r.generation, r.bundles, CASE WHEN r.state = 'failed' THEN r.settings ELSE NULL END, r.reported_at, \
         l.value, d.compliance_state \
         FROM devices_device d \
         LEFT JOIN devices_label l ON l.tenant_id = d.tenant_id AND l.device_id = d.device_id AND l.key = 'department' \
         LEFT JOIN rollout_report r ON r.tenant_id = d.tenant_id AND r.device_id = d.device_id AND r.epoch = d.epoch \
         WHERE d.tenant_id = $1 AND d.state = 'active' AND d.platform IN ($2, $3, $4, $5, $6)"
    };
}

statements! {
    TARGET_PAGE = concat!("SELECT ", target_columns!(), " AND d.device_id > $7 ORDER BY d.device_id LIMIT $8");
    TARGET_PAGE_OF = concat!("SELECT ", target_columns!(), " AND d.device_id IN ($7, $8, $9, $10, $11, $12, $13, $14, \
        $15, $16, $17, $18, $19, $20, $21, $22) ORDER BY d.device_id");
    MARK_PENDING_OF = "UPDATE devices_device SET compliance_state = 'pending' \
        WHERE tenant_id = $1 AND state = 'active' AND compliance_state <> 'pending' AND compliance_at < $2 \
        AND device_id IN ($3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)";
}

type Platforms = [&'static str; PLATFORM_PLACES];
type Devices = [DeviceId; DEVICE_PLACES];

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

pub fn mark_pending_of(
    tx: &mut Tx,
    tenant: TenantId,
    evaluated_before: Timestamp,
    devices: &Devices,
) -> Result<u64, StorageError> {
    let (tenant, before) = (tenant.uuid(), evaluated_before.as_micros());
    let devices = devices.map(DeviceId::uuid);
    tx.execute(&MARK_PENDING_OF, &with(&[&tenant], &[], &[&before], &devices))
}

fn with<'a>(
    tenant: &[&'a dyn ToValue],
    platforms: &'a [&'static str],
    own: &[&'a dyn ToValue],
    devices: &'a [Uuid],
) -> Vec<&'a dyn ToValue> {
    let mut parameters = tenant.to_vec();
    parameters.extend(platforms.iter().map(|word| word as &dyn ToValue));
    parameters.extend_from_slice(own);
    parameters.extend(devices.iter().map(|id| id as &dyn ToValue));
    parameters
}

fn device(row: &Row<'_>) -> Result<TargetDevice, StorageError> {
    let platform: String = row.get(2)?;
    Ok(TargetDevice {
        id: DeviceId::from_uuid(row.get(0)?),
        name: row.get(1)?,
        // A word that this program does not know is a device of a later one; it is listed all the same.
        platform: Platform::parse(&platform).unwrap_or(Platform::Linux),
        model: row.get(3)?,
        epoch: row.get(4)?,
        enrolled_at: Timestamp::from_micros(row.get(5)?),
        judged_at: row.get::<Option<i64>>(6)?.map(Timestamp::from_micros),
        report: report(row)?,
        department: row.get(12)?,
        compliance: ComplianceState::parse(&row.get::<String>(13)?).unwrap_or(ComplianceState::Unknown),
    })
}

fn report(row: &Row<'_>) -> Result<Option<TargetReport>, StorageError> {
    let Some(state) = row.get::<Option<String>>(7)? else {
        return Ok(None);
    };
    Ok(Some(TargetReport {
        state,
        generation: row.get(8)?,
        bundles: row.get(9)?,
        failed_settings: row.get(10)?,
        reported_at: Timestamp::from_micros(row.get(11)?),
    }))
}
