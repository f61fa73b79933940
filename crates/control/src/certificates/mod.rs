//! Device certificates: issued for a key, tied to (tenant, device, epoch), revoked with the next message as effect.
//!
//! A certificate is made in two steps. `issue` gives it its serial number inside the transaction of its cause and, where
//! the device CA's key is in this process, signs it there. `chain` signs what is not signed yet, outside of any
//! transaction, because a key elsewhere may be slow or gone; then the row waits and the same request finds it again.

mod authorities;
mod issue;
mod ocsp;
mod reason;
mod request;
mod revocation;
mod store;

use std::time::Duration;

use muster_model::{DeviceId, TenantId, Timestamp};
use muster_storage::{Scope, Statement, Tx};

use crate::{
    App,
    access::problem::{CONFLICT, NOT_FOUND, Problem},
    audit::{self, LoggedTx},
};
pub use authorities::{adopt_unnamed, broken_chains, follow_register, note_beginnings};
pub use issue::{Issued, chain, issue, key_holder, newest, ready};
pub use ocsp::{OCSP_REQUEST_BYTES_MAX, OcspAnswer, answer as answer_ocsp};
pub use reason::RevocationReason;
pub use request::{
    CSR_BYTES_MAX, CertificateRequest, ClientKey, ClientRequest, RequestedName, read_client_request,
    read_request,
};
pub use revocation::{Revocations, revocation_list};

/// Every statement of this slice, for the test that prepares them all on both engines.
pub const STATEMENTS: &[Statement] = store::ALL;
/// Expired certificates are kept this long for those who ask what a device once held.
const KEPT_DAYS: u64 = 90;

/// A device certificate as stored. `serial` is lower hex.
#[derive(Debug, Clone)]
pub struct Certificate {
    pub serial: String,
    pub device: DeviceId,
    pub epoch: u32,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub revoked_at: Option<Timestamp>,
    pub revocation_reason: Option<String>,
    /// The id of the authority that signed it.
    pub authority: Option<String>,
}

impl Certificate {
    /// Whether a message under this certificate is accepted at `now` for `epoch`.
    pub fn valid(&self, epoch: u32, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.epoch == epoch && now < self.not_after
    }
}

/// A row to be.
struct NewCertificate<'a> {
    serial: &'a str,
    device: DeviceId,
    epoch: u32,
    not_before: Timestamp,
    not_after: Timestamp,
    authority: &'a str,
    spki_sha256: &'a [u8],
    der: Option<&'a [u8]>,
    to_sign: Option<&'a [u8]>,
}

/// Holds a certificate until the transaction ends, so that no revocation passes between this check and what follows it.
/// `false` when it is revoked, or not this device's in this epoch.
pub fn hold(
    tx: &mut Tx,
    tenant: TenantId,
    serial: &str,
    device: DeviceId,
    epoch: u32,
) -> Result<bool, Problem> {
    Ok(store::hold(tx, tenant, serial, device, epoch)?)
}

/// The device that exactly these bytes (DER) were issued to, and whether that certificate is revoked. `serial` is lower hex.
pub fn holder_of(
    tx: &mut Tx,
    tenant: TenantId,
    serial: &str,
    der: &[u8],
) -> Result<Option<(DeviceId, bool)>, Problem> {
    Ok(store::holder_of(tx, tenant, serial, der)?)
}

/// Revokes every certificate of a device; answers how many were valid.
pub fn revoke_all(tx: &mut LoggedTx<'_>, device: DeviceId, reason: &str) -> Result<u64, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let revoked = store::revoke_all(tx, tenant, device, at, reason)?;
    tx.record(
        "certificate.revoked",
        ("device", device.to_string()),
        serde_json::json!({"certificates": revoked, "reason": reason}),
    )?;
    Ok(revoked)
}

/// Revokes one certificate of a device, by its serial number in lower hex.
pub fn revoke(
    tx: &mut LoggedTx<'_>,
    device: DeviceId,
    serial: &str,
    reason: RevocationReason,
) -> Result<(), Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    if !store::revoke_one(tx, tenant, serial, device, at, reason.as_str())? {
        let held = store::of_device(tx, tenant, device)?;
        return Err(if held.iter().any(|certificate| certificate.serial == serial) {
            CONFLICT.detail("The certificate is revoked already.")
        } else {
            NOT_FOUND.detail("The device has no certificate with this serial number.")
        });
    }
    tx.record(
        "certificate.revoked",
        ("device", device.to_string()),
        serde_json::json!({"certificates": 1, "serial": serial, "reason": reason.as_str()}),
    )?;
    Ok(())
}

/// The certificates of a device, newest first.
pub fn of_device(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<Vec<Certificate>, Problem> {
    Ok(store::of_device(tx, tenant, device)?)
}

/// What breaks "a valid certificate has a device that may use it", for the doctor.
pub fn broken(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<Vec<String>, Problem> {
    let strays = store::strays(tx, tenant, now)?;
    Ok(strays
        .into_iter()
        .map(|(serial, device)| format!("certificate {serial} of {device} is valid and must not be"))
        .collect())
}

/// Removes certificates that expired long ago. A reconciler's step.
pub async fn forget_expired(app: &App) -> Result<u64, Problem> {
    let before = app.clock.now().minus(Duration::from_secs(KEPT_DAYS * 86_400));
    audit::housekeeping(app, Scope::System, move |tx| Ok(store::forget(tx, before)?)).await
}
