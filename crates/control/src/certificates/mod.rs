//! Device certificates: issued for a key, tied to (tenant, device, epoch), revoked with the next message as effect.

mod request;
mod store;

use std::time::Duration;

use muster_model::{DeviceId, TenantId, Timestamp};
use muster_storage::{Scope, Statement, Tx};

use crate::{
    App,
    access::problem::Problem,
    audit::{self, LoggedTx},
    secrets::Keyring,
};
pub use request::{CSR_BYTES_MAX, CertificateRequest, read_request};

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
}

impl Certificate {
    /// Whether a message under this certificate is accepted at `now` for `epoch`.
    pub fn valid(&self, epoch: u32, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.epoch == epoch && now < self.not_after
    }
}

/// Issues and stores a certificate for `spki` (DER); answers its bytes.
pub fn issue(
    tx: &mut LoggedTx<'_>,
    keys: &Keyring,
    device: DeviceId,
    epoch: u32,
    spki: &[u8],
    lifetime: Duration,
) -> Result<Vec<u8>, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let issued = keys
        .authority
        .issue_device(tenant, device, epoch, spki, at, lifetime)
        .map_err(Problem::internal)?;
    let certificate = Certificate {
        serial: issued.serial,
        device,
        epoch,
        not_before: issued.not_before,
        not_after: issued.not_after,
        revoked_at: None,
        revocation_reason: None,
    };
    store::insert(tx, &certificate, tenant, &issued.der, at)?;
    tx.record(
        "certificate.issued",
        ("device", device.to_string()),
        serde_json::json!({
            "serial": certificate.serial,
            "epoch": epoch,
            "not_after": certificate.not_after.to_string(),
        }),
    )?;
    Ok(issued.der)
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

/// The certificates of a device, newest first.
pub fn of_device(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<Vec<Certificate>, Problem> {
    Ok(store::of_device(tx, tenant, device)?)
}

/// The bytes of the newest valid certificate of a device's epoch, for a repeated enrollment whose answer was lost.
pub fn newest_der(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    epoch: u32,
) -> Result<Option<Vec<u8>>, Problem> {
    Ok(store::newest_der(tx, tenant, device, epoch)?)
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
