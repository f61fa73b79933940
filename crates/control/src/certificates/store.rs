//! SQL of the `certificates_` tables.

use muster_model::{DeviceId, TenantId, Timestamp};
use muster_storage::{Row, StorageError, Tx, statements};

use super::Certificate;

statements! {
    INSERT = "INSERT INTO certificates_certificate \
        (tenant_id, serial, device_id, epoch, not_before, not_after, der, issued_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    OF_DEVICE = "SELECT serial, device_id, epoch, not_before, not_after, revoked_at, revocation_reason \
        FROM certificates_certificate WHERE tenant_id = $1 AND device_id = $2 ORDER BY not_after DESC, serial LIMIT $3";
    DER = "SELECT der FROM certificates_certificate WHERE tenant_id = $1 AND device_id = $2 AND epoch = $3 \
        AND revoked_at IS NULL ORDER BY not_after DESC LIMIT 1";
    REVOKE_ALL = "UPDATE certificates_certificate SET revoked_at = $3, revocation_reason = $4 \
        WHERE tenant_id = $1 AND device_id = $2 AND revoked_at IS NULL";
    HOLD = "UPDATE certificates_certificate SET revoked_at = NULL WHERE tenant_id = $1 AND serial = $2 \
        AND device_id = $3 AND epoch = $4 AND revoked_at IS NULL";
    STRAYS = "SELECT c.serial, c.device_id FROM certificates_certificate c \
        LEFT JOIN devices_device d ON d.tenant_id = c.tenant_id AND d.device_id = c.device_id \
        WHERE c.tenant_id = $1 AND c.revoked_at IS NULL AND c.not_after > $2 \
        AND (d.device_id IS NULL OR d.state = 'retired' OR d.epoch <> c.epoch) ORDER BY c.serial LIMIT 100";
    FORGET = "DELETE FROM certificates_certificate WHERE not_after < $1";
}

/// Certificates that are listed of one device at most; older ones are forgotten after they expire.
const LISTED_MAX: i64 = 32;

pub fn insert(
    tx: &mut Tx,
    certificate: &Certificate,
    tenant: TenantId,
    der: &[u8],
    at: Timestamp,
) -> Result<(), StorageError> {
    tx.execute(
        &INSERT,
        &[
            &tenant.uuid(),
            &certificate.serial.as_str(),
            &certificate.device.uuid(),
            &i64::from(certificate.epoch),
            &certificate.not_before.as_micros(),
            &certificate.not_after.as_micros(),
            &der,
            &at.as_micros(),
        ],
    )
    .map(drop)
}

pub fn of_device(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<Vec<Certificate>, StorageError> {
    tx.query(
        &OF_DEVICE,
        &[&tenant.uuid(), &device.uuid(), &LISTED_MAX],
        certificate_of,
    )
}

pub fn newest_der(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    epoch: u32,
) -> Result<Option<Vec<u8>>, StorageError> {
    tx.query_opt(
        &DER,
        &[&tenant.uuid(), &device.uuid(), &i64::from(epoch)],
        |row| row.get(0),
    )
}

pub fn revoke_all(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    at: Timestamp,
    reason: &str,
) -> Result<u64, StorageError> {
    // A renewal holds the row of the certificate that it follows, so a pass waits for it; the next pass sees what it made.
    let mut revoked = 0;
    loop {
        match tx.execute(
            &REVOKE_ALL,
            &[&tenant.uuid(), &device.uuid(), &at.as_micros(), &reason],
        )? {
            0 => return Ok(revoked),
            more => revoked += more,
        }
    }
}

/// Holds a certificate for the rest of the transaction; `false` when it is revoked, or not this device's in this epoch.
pub fn hold(
    tx: &mut Tx,
    tenant: TenantId,
    serial: &str,
    device: DeviceId,
    epoch: u32,
) -> Result<bool, StorageError> {
    let rows = tx.execute(
        &HOLD,
        &[&tenant.uuid(), &serial, &device.uuid(), &i64::from(epoch)],
    )?;
    Ok(rows == 1)
}

/// Valid certificates without a device that may use them, as (serial, device).
pub fn strays(
    tx: &mut Tx,
    tenant: TenantId,
    now: Timestamp,
) -> Result<Vec<(String, DeviceId)>, StorageError> {
    tx.query(&STRAYS, &[&tenant.uuid(), &now.as_micros()], |row| {
        Ok((row.get(0)?, DeviceId::from_uuid(row.get(1)?)))
    })
}

pub fn forget(tx: &mut Tx, before: Timestamp) -> Result<u64, StorageError> {
    tx.execute(&FORGET, &[&before.as_micros()])
}

fn certificate_of(row: &Row<'_>) -> Result<Certificate, StorageError> {
    Ok(Certificate {
        serial: row.get(0)?,
        device: DeviceId::from_uuid(row.get(1)?),
        epoch: row.get(2)?,
        not_before: Timestamp::from_micros(row.get(3)?),
        not_after: Timestamp::from_micros(row.get(4)?),
        revoked_at: row.get::<Option<i64>>(5)?.map(Timestamp::from_micros),
        revocation_reason: row.get(6)?,
    })
}
