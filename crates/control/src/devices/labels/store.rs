//! SQL of `devices_label`, and how a table's rows find their devices.

use muster_model::{
    DeviceId, TenantId,
    text::{LabelKey, LabelValue},
};
use muster_storage::{Row, StorageError, ToValue, Tx, statements};
use uuid::Uuid;

/// How many devices a statement takes.
pub const PLACES: usize = 32;

/// `$2` to `$33`.
macro_rules! places {
    () => {
        "($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, \
         $26, $27, $28, $29, $30, $31, $32, $33)"
    };
}

statements! {
    LABELS_OF = concat!("SELECT device_id, key, value FROM devices_label WHERE tenant_id = $1 AND device_id IN ",
        places!());
    LABELED = "SELECT device_id FROM devices_label WHERE tenant_id = $1 AND key = $2 AND value = $3 ORDER BY device_id LIMIT 2";
    PUT_LABEL = "INSERT INTO devices_label (tenant_id, device_id, key, value) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (tenant_id, device_id, key) DO UPDATE SET value = $4";
    REMOVE_LABEL = "DELETE FROM devices_label WHERE tenant_id = $1 AND device_id = $2 AND key = $3";
    COPY_LABELS = "INSERT INTO devices_label (tenant_id, device_id, key, value) \
        SELECT tenant_id, $3, key, value FROM devices_label WHERE tenant_id = $1 AND device_id = $2";
    BY_SERIALS = concat!("SELECT device_id, serial FROM devices_device WHERE tenant_id = $1 AND state <> 'retired' \
        AND serial IN ", places!());
    BY_NAMES = concat!("SELECT device_id, name FROM devices_device WHERE tenant_id = $1 AND state <> 'retired' \
        AND name IN ", places!());
    BY_UUIDS = concat!("SELECT device_id, device_uuid FROM devices_device WHERE tenant_id = $1 AND state <> 'retired' \
        AND device_uuid IN ", places!());
    BY_IDS = concat!("SELECT device_id, device_id FROM devices_device WHERE tenant_id = $1 AND state <> 'retired' \
        AND device_id IN ", places!());
}

/// Devices with this label, at most two.
pub fn labeled(tx: &mut Tx, tenant: TenantId, key: &str, value: &str) -> Result<Vec<DeviceId>, StorageError> {
    tx.query(&LABELED, &[&tenant.uuid(), &key, &value], |row| {
        Ok(DeviceId::from_uuid(row.get(0)?))
    })
}

/// The labels of at most `PLACES` devices.
pub fn of_devices(
    tx: &mut Tx,
    tenant: TenantId,
    devices: &[DeviceId],
) -> Result<Vec<(DeviceId, LabelKey, LabelValue)>, StorageError> {
    let ids: Vec<Uuid> = devices.iter().map(|device| device.uuid()).collect();
    tx.query(&LABELS_OF, &filled(&tenant.uuid(), &ids, &Uuid::nil()), |row| {
        Ok((
            DeviceId::from_uuid(row.get(0)?),
            stored(1, &row.get::<String>(1)?, LabelKey::parse)?,
            stored(2, &row.get::<String>(2)?, LabelValue::parse)?,
        ))
    })
}

pub fn put(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    key: &LabelKey,
    value: &LabelValue,
) -> Result<(), StorageError> {
    let (key, value) = (key.as_str(), value.as_str());
    tx.execute(&PUT_LABEL, &[&tenant.uuid(), &device.uuid(), &key, &value])
        .map(drop)
}

pub fn remove(tx: &mut Tx, tenant: TenantId, device: DeviceId, key: &LabelKey) -> Result<(), StorageError> {
    tx.execute(&REMOVE_LABEL, &[&tenant.uuid(), &device.uuid(), &key.as_str()])
        .map(drop)
}

pub fn copy(tx: &mut Tx, tenant: TenantId, from: DeviceId, to: DeviceId) -> Result<(), StorageError> {
    tx.execute(&COPY_LABELS, &[&tenant.uuid(), &from.uuid(), &to.uuid()])
        .map(drop)
}

/// Devices that are not retired by their serial numbers, at most `PLACES` of them, with the serial.
pub fn by_serials(
    tx: &mut Tx,
    tenant: TenantId,
    serials: &[String],
) -> Result<Vec<(DeviceId, String)>, StorageError> {
    // No serial number is empty.
    tx.query(
        &BY_SERIALS,
        &filled(&tenant.uuid(), serials, &String::new()),
        named,
    )
}

/// Devices that are not retired by their names, at most `PLACES` of them, with the name.
pub fn by_names(
    tx: &mut Tx,
    tenant: TenantId,
    names: &[String],
) -> Result<Vec<(DeviceId, String)>, StorageError> {
    tx.query(&BY_NAMES, &filled(&tenant.uuid(), names, &String::new()), named)
}

/// Devices that are not retired by their hardware UUIDs, at most `PLACES` of them, with the UUID.
pub fn by_uuids(
    tx: &mut Tx,
    tenant: TenantId,
    uuids: &[Uuid],
) -> Result<Vec<(DeviceId, Uuid)>, StorageError> {
    tx.query(&BY_UUIDS, &filled(&tenant.uuid(), uuids, &Uuid::nil()), |row| {
        Ok((DeviceId::from_uuid(row.get(0)?), row.get(1)?))
    })
}

/// Devices that are not retired by their ids, at most `PLACES` of them.
pub fn by_ids(tx: &mut Tx, tenant: TenantId, ids: &[Uuid]) -> Result<Vec<(DeviceId, Uuid)>, StorageError> {
    tx.query(&BY_IDS, &filled(&tenant.uuid(), ids, &Uuid::nil()), |row| {
        Ok((DeviceId::from_uuid(row.get(0)?), row.get(1)?))
    })
}

/// The tenant and the values, and in the places that are left what no row has.
fn filled<'a, T: ToValue>(tenant: &'a Uuid, values: &'a [T], nothing: &'a T) -> Vec<&'a dyn ToValue> {
    let mut parameters: Vec<&dyn ToValue> = vec![tenant];
    parameters.extend(values.iter().take(PLACES).map(|value| value as &dyn ToValue));
    parameters.resize(PLACES + 1, nothing);
    parameters
}

fn named(row: &Row<'_>) -> Result<(DeviceId, String), StorageError> {
    Ok((DeviceId::from_uuid(row.get(0)?), row.get(1)?))
}

fn stored<T, E>(index: usize, text: &str, parse: fn(&str) -> Result<T, E>) -> Result<T, StorageError> {
    parse(text).map_err(|_| StorageError::Type {
        index,
        expected: "a label",
        found: text.chars().take(64).collect(),
    })
}
