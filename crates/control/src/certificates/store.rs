//! SQL of the `certificates_` tables.

use muster_model::{DeviceId, TenantId, Timestamp};
use muster_storage::{Row, StorageError, Tx, statements};

use super::{Certificate, NewCertificate, RevocationReason};

statements! {
    INSERT = "INSERT INTO certificates_certificate \
        (tenant_id, serial, device_id, epoch, not_before, not_after, der, issued_at, authority, spki_sha256, to_sign) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
    OF_DEVICE = "SELECT serial, device_id, epoch, not_before, not_after, revoked_at, revocation_reason, authority \
        FROM certificates_certificate WHERE tenant_id = $1 AND device_id = $2 ORDER BY not_after DESC, serial LIMIT $3";
    NEWEST = "SELECT serial, authority, der, to_sign, not_after FROM certificates_certificate WHERE tenant_id = $1 \
        AND device_id = $2 AND epoch = $3 AND revoked_at IS NULL ORDER BY not_after DESC LIMIT 1";
    UNSIGNED = "SELECT serial, authority, der, to_sign, not_after FROM certificates_certificate WHERE tenant_id = $1 \
        AND device_id = $2 AND epoch = $3 AND spki_sha256 = $4 AND revoked_at IS NULL AND to_sign IS NOT NULL \
        ORDER BY not_after DESC LIMIT 1";
    PUT_SIGNED = "UPDATE certificates_certificate SET der = $3, to_sign = NULL \
        WHERE tenant_id = $1 AND serial = $2 AND to_sign IS NOT NULL";
    DER = "SELECT der FROM certificates_certificate WHERE tenant_id = $1 AND serial = $2";
    HOLDER = "SELECT device_id FROM certificates_certificate WHERE tenant_id = $1 AND spki_sha256 = $2 \
        ORDER BY issued_at, serial LIMIT 1";
    OTHER_HOLDER = "SELECT device_id FROM certificates_certificate WHERE tenant_id = $1 AND spki_sha256 = $2 \
        AND device_id <> $3 AND revoked_at IS NULL AND not_after > $4 LIMIT 1";
    REVOKE_ALL = "UPDATE certificates_certificate SET revoked_at = $3, revocation_reason = $4 \
        WHERE tenant_id = $1 AND device_id = $2 AND revoked_at IS NULL";
    REVOKE_ONE = "UPDATE certificates_certificate SET revoked_at = $4, revocation_reason = $5 \
        WHERE tenant_id = $1 AND serial = $2 AND device_id = $3 AND revoked_at IS NULL";
    REVOKE_OF_AUTHORITY = "UPDATE certificates_certificate SET revoked_at = $3, revocation_reason = $4 \
        WHERE tenant_id = $1 AND authority = $2 AND revoked_at IS NULL";
    HOLD = "UPDATE certificates_certificate SET revoked_at = NULL WHERE tenant_id = $1 AND serial = $2 \
        AND device_id = $3 AND epoch = $4 AND revoked_at IS NULL";
    HOLDER_OF_DER = "SELECT device_id, revoked_at FROM certificates_certificate \
        WHERE tenant_id = $1 AND serial = $2 AND der = $3";
    STRAYS = "SELECT c.serial, c.device_id FROM certificates_certificate c \
        LEFT JOIN devices_device d ON d.tenant_id = c.tenant_id AND d.device_id = c.device_id \
        WHERE c.tenant_id = $1 AND c.revoked_at IS NULL AND c.not_after > $2 \
        AND (d.device_id IS NULL OR d.state = 'retired' OR d.epoch <> c.epoch) ORDER BY c.serial LIMIT 100";
    UNEXPIRED = "SELECT serial, authority, der, revoked_at FROM certificates_certificate \
        WHERE tenant_id = $1 AND not_after > $2 AND serial > $3 ORDER BY serial LIMIT $4";
    FORGET = "DELETE FROM certificates_certificate WHERE not_after < $1";
    ADOPT = "UPDATE certificates_certificate SET authority = $1 WHERE authority IS NULL";
    REVOKED = "SELECT serial, revoked_at, revocation_reason FROM certificates_certificate \
        WHERE authority = $1 AND revoked_at IS NOT NULL AND not_after > $2 AND serial > $3 ORDER BY serial LIMIT $4";
    REVOKED_STAMP = "SELECT COUNT(*), MAX(revoked_at) FROM certificates_certificate \
        WHERE authority = $1 AND revoked_at IS NOT NULL AND not_after > $2";
    HELD = "SELECT c.serial, d.enrolled_at FROM devices_device d \
        JOIN certificates_certificate c ON c.tenant_id = d.tenant_id AND c.device_id = d.device_id \
        WHERE d.state = 'quarantined' AND c.authority = $1 AND c.revoked_at IS NULL AND c.not_after > $2 \
        ORDER BY c.serial LIMIT $3";
    STATUS = "SELECT c.revoked_at, c.revocation_reason, d.state, d.enrolled_at FROM certificates_certificate c \
        LEFT JOIN devices_device d ON d.tenant_id = c.tenant_id AND d.device_id = c.device_id \
        WHERE c.serial = $1 AND c.authority = $2";
    AUTHORITIES = "SELECT authority, state FROM certificates_authority WHERE tenant_id = $1 ORDER BY authority";
    PUT_AUTHORITY = "INSERT INTO certificates_authority (tenant_id, authority, state, changed_at) \
        VALUES ($1, $2, $3, $4) ON CONFLICT (tenant_id, authority) DO UPDATE SET state = $3, changed_at = $4";
}

/// Certificates that are listed of one device at most; older ones are forgotten after they expire.
const LISTED_MAX: i64 = 32;

pub fn insert(
    tx: &mut Tx,
    tenant: TenantId,
    certificate: &NewCertificate<'_>,
    at: Timestamp,
) -> Result<(), StorageError> {
    tx.execute(
        &INSERT,
        &[
            &tenant.uuid(),
            &certificate.serial,
            &certificate.device.uuid(),
            &i64::from(certificate.epoch),
            &certificate.not_before.as_micros(),
            &certificate.not_after.as_micros(),
            &certificate.der.unwrap_or_default(),
            &at.as_micros(),
            &certificate.authority,
            &certificate.spki_sha256,
            &certificate.to_sign,
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

/// A certificate with its bytes, or with what is to be signed.
pub struct StoredBytes {
    pub serial: String,
    pub authority: Option<String>,
    pub der: Vec<u8>,
    pub to_sign: Option<Vec<u8>>,
    pub not_after: Timestamp,
}

/// The newest certificate of a device's epoch that is not revoked.
pub fn newest(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    epoch: u32,
) -> Result<Option<StoredBytes>, StorageError> {
    tx.query_opt(
        &NEWEST,
        &[&tenant.uuid(), &device.uuid(), &i64::from(epoch)],
        bytes_of,
    )
}

/// The newest certificate of a device's epoch and key that waits for its signature.
pub fn unsigned(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    epoch: u32,
    spki_sha256: &[u8],
) -> Result<Option<StoredBytes>, StorageError> {
    tx.query_opt(
        &UNSIGNED,
        &[&tenant.uuid(), &device.uuid(), &i64::from(epoch), &spki_sha256],
        bytes_of,
    )
}

/// Stores the signed certificate, unless another signature came first; answers the stored bytes.
pub fn put_signed(
    tx: &mut Tx,
    tenant: TenantId,
    serial: &str,
    der: &[u8],
) -> Result<Option<Vec<u8>>, StorageError> {
    tx.execute(&PUT_SIGNED, &[&tenant.uuid(), &serial, &der])?;
    tx.query_opt(&DER, &[&tenant.uuid(), &serial], |row| row.get(0))
}

/// The device that was the first to have a certificate for a key.
pub fn holder(tx: &mut Tx, tenant: TenantId, spki_sha256: &[u8]) -> Result<Option<DeviceId>, StorageError> {
    tx.query_opt(&HOLDER, &[&tenant.uuid(), &spki_sha256], |row| {
        Ok(DeviceId::from_uuid(row.get(0)?))
    })
}

/// Whether another device has a valid certificate for a key.
pub fn is_held_by_another(
    tx: &mut Tx,
    tenant: TenantId,
    spki_sha256: &[u8],
    device: DeviceId,
    now: Timestamp,
) -> Result<bool, StorageError> {
    let other = tx.query_opt(
        &OTHER_HOLDER,
        &[&tenant.uuid(), &spki_sha256, &device.uuid(), &now.as_micros()],
        |_| Ok(()),
    )?;
    Ok(other.is_some())
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

/// Revokes one certificate; `false` when it is not this device's, or revoked already.
pub fn revoke_one(
    tx: &mut Tx,
    tenant: TenantId,
    serial: &str,
    device: DeviceId,
    at: Timestamp,
    reason: &str,
) -> Result<bool, StorageError> {
    let rows = tx.execute(
        &REVOKE_ONE,
        &[&tenant.uuid(), &serial, &device.uuid(), &at.as_micros(), &reason],
    )?;
    Ok(rows == 1)
}

/// Revokes everything that an authority signed for the tenant.
pub fn revoke_of_authority(
    tx: &mut Tx,
    tenant: TenantId,
    authority: &str,
    at: Timestamp,
    reason: &str,
) -> Result<u64, StorageError> {
    tx.execute(
        &REVOKE_OF_AUTHORITY,
        &[&tenant.uuid(), &authority, &at.as_micros(), &reason],
    )
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

/// Whose certificate exactly these bytes are, and whether it is revoked.
pub fn holder_of(
    tx: &mut Tx,
    tenant: TenantId,
    serial: &str,
    der: &[u8],
) -> Result<Option<(DeviceId, bool)>, StorageError> {
    tx.query_opt(&HOLDER_OF_DER, &[&tenant.uuid(), &serial, &der], |row| {
        let revoked_at: Option<i64> = row.get(1)?;
        Ok((DeviceId::from_uuid(row.get(0)?), revoked_at.is_some()))
    })
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

/// A certificate that has not expired, for the doctor.
pub struct Unexpired {
    pub serial: String,
    pub authority: Option<String>,
    /// Empty while its signature is waited for.
    pub der: Vec<u8>,
    pub is_revoked: bool,
}

/// Unexpired certificates of the tenant after serial `after`.
pub fn unexpired(
    tx: &mut Tx,
    tenant: TenantId,
    now: Timestamp,
    after: &str,
    limit: i64,
) -> Result<Vec<Unexpired>, StorageError> {
    tx.query(
        &UNEXPIRED,
        &[&tenant.uuid(), &now.as_micros(), &after, &limit],
        |row| {
            Ok(Unexpired {
                serial: row.get(0)?,
                authority: row.get(1)?,
                der: row.get(2)?,
                is_revoked: row.get::<Option<i64>>(3)?.is_some(),
            })
        },
    )
}

pub fn forget(tx: &mut Tx, before: Timestamp) -> Result<u64, StorageError> {
    tx.execute(&FORGET, &[&before.as_micros()])
}

/// Names the authority of certificates that were issued before the database said by whom. Of every tenant.
pub fn adopt(tx: &mut Tx, authority: &str) -> Result<u64, StorageError> {
    tx.execute(&ADOPT, &[&authority])
}

/// A revoked certificate, as a revocation list names it.
pub struct Revoked {
    pub serial: String,
    pub at: Timestamp,
    pub reason: Option<String>,
}

/// Revoked certificates of an authority that have not expired, after serial `after`. Of every tenant.
pub fn revoked(
    tx: &mut Tx,
    authority: &str,
    now: Timestamp,
    after: &str,
    limit: i64,
) -> Result<Vec<Revoked>, StorageError> {
    tx.query(&REVOKED, &[&authority, &now.as_micros(), &after, &limit], |row| {
        Ok(Revoked {
            serial: row.get(0)?,
            at: Timestamp::from_micros(row.get(1)?),
            reason: row.get(2)?,
        })
    })
}

/// How many certificates of an authority are revoked and have not expired, and when the last was. Of every tenant.
pub fn revoked_stamp(
    tx: &mut Tx,
    authority: &str,
    now: Timestamp,
) -> Result<(i64, Option<i64>), StorageError> {
    tx.query_one(&REVOKED_STAMP, &[&authority, &now.as_micros()], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

/// Certificates of an authority whose device is in quarantine, ascending by serial. Of every tenant.
pub fn held(tx: &mut Tx, authority: &str, now: Timestamp, limit: i64) -> Result<Vec<Revoked>, StorageError> {
    tx.query(&HELD, &[&authority, &now.as_micros(), &limit], |row| {
        Ok(Revoked {
            serial: row.get(0)?,
            at: Timestamp::from_micros(row.get(1)?),
            reason: Some(RevocationReason::CertificateHold.as_str().to_owned()),
        })
    })
}

/// The state of a certificate.
pub enum Status {
    Good,
    Revoked { at: Timestamp, reason: Option<String> },
}

/// The state of a certificate, if there is one. Serials are of no tenant.
pub fn status(tx: &mut Tx, serial: &str, authority: &str) -> Result<Option<Status>, StorageError> {
    tx.query_opt(&STATUS, &[&serial, &authority], |row| {
        let at = row.get::<Option<i64>>(0)?.map(Timestamp::from_micros);
        let reason: Option<String> = row.get(1)?;
        let is_held = row.get::<Option<String>>(2)?.as_deref() == Some("quarantined");
        let since = row.get::<Option<i64>>(3)?.map(Timestamp::from_micros);
        Ok(match (at, since) {
            (Some(at), _) => Status::Revoked { at, reason },
            (None, Some(at)) if is_held => Status::Revoked {
                at,
                reason: Some(RevocationReason::CertificateHold.as_str().to_owned()),
            },
            (None, _) => Status::Good,
        })
    })
}

/// What the tenant's log says of the device CAs, as (authority, state).
pub fn authorities(tx: &mut Tx, tenant: TenantId) -> Result<Vec<(String, String)>, StorageError> {
    tx.query(&AUTHORITIES, &[&tenant.uuid()], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

pub fn put_authority(
    tx: &mut Tx,
    tenant: TenantId,
    authority: &str,
    state: &str,
    at: Timestamp,
) -> Result<(), StorageError> {
    tx.execute(
        &PUT_AUTHORITY,
        &[&tenant.uuid(), &authority, &state, &at.as_micros()],
    )
    .map(drop)
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
        authority: row.get(7)?,
    })
}

fn bytes_of(row: &Row<'_>) -> Result<StoredBytes, StorageError> {
    Ok(StoredBytes {
        serial: row.get(0)?,
        authority: row.get(1)?,
        der: row.get(2)?,
        to_sign: row.get(3)?,
        not_after: Timestamp::from_micros(row.get(4)?),
    })
}
