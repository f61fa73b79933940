//! Issuing: a serial number inside the transaction, the signature there or afterwards.

use std::time::Duration;

use muster_model::{DeviceId, TenantId};
use muster_storage::{Scope, Tx};
use muster_trust::key::sha256;

use super::{NewCertificate, store};
use crate::{
    App,
    access::problem::{CA_UNAVAILABLE, KEY_REUSED, Problem},
    audit::{self, LoggedTx},
    secrets::{DeviceSubject, Keyring, SecretsError, Unavailable},
};

/// A certificate that has its place in the database and the log. [`chain`] makes it whole.
#[derive(Debug, Clone)]
#[must_use = "`chain` signs it once the transaction is committed"]
pub struct Issued {
    /// Lower hex.
    pub serial: String,
    authority: Option<String>,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    Signed(Vec<u8>),
    Unsigned(Vec<u8>),
}

/// Issues and stores a certificate for `spki` (DER). A key for which another device has a valid one is refused. A certificate for the same key
/// that still waits for its signature is answered once more, so that repeating a request makes no second one.
pub fn issue(
    tx: &mut LoggedTx<'_>,
    keys: &Keyring,
    device: DeviceId,
    epoch: u32,
    spki: &[u8],
    lifetime: Duration,
) -> Result<Issued, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let spki_sha256 = sha256(spki);
    if store::is_held_by_another(tx, tenant, spki_sha256.as_bytes(), device, at)? {
        return Err(
            KEY_REUSED.detail("Another device of the tenant has a certificate for this key. Make a new key.")
        );
    }
    if let Some(waiting) = store::unsigned(tx, tenant, device, epoch, spki_sha256.as_bytes())?
        && waiting.not_after.since(at) >= lifetime / 2
        && let Some(to_sign) = waiting.to_sign
    {
        return Ok(Issued {
            serial: waiting.serial,
            authority: waiting.authority,
            content: Content::Unsigned(to_sign),
        });
    }
    let subject = DeviceSubject {
        tenant,
        device,
        epoch,
    };
    let prepared = keys
        .authority
        .prepare_device(&subject, spki, at, lifetime)
        .map_err(refused)?;
    let signed = keys
        .authority
        .sign_at_once(&prepared.authority, &prepared.to_sign)
        .transpose()
        .map_err(refused)?;
    let unsigned = signed.is_none().then_some(prepared.to_sign.as_slice());
    let row = NewCertificate {
        serial: &prepared.serial,
        device,
        epoch,
        not_before: prepared.not_before,
        not_after: prepared.not_after,
        authority: &prepared.authority,
        spki_sha256: spki_sha256.as_bytes(),
        der: signed.as_deref(),
        to_sign: unsigned,
    };
    store::insert(tx, tenant, &row, at)?;
    tx.record(
        "certificate.issued",
        ("device", device.to_string()),
        serde_json::json!({
            "serial": prepared.serial,
            "epoch": epoch,
            "not_after": prepared.not_after.to_string(),
            "authority": prepared.authority,
        }),
    )?;
    Ok(Issued {
        serial: prepared.serial,
        authority: Some(prepared.authority),
        content: match signed {
            Some(der) => Content::Signed(der),
            None => Content::Unsigned(prepared.to_sign),
        },
    })
}

/// The newest certificate of a device's epoch that is not revoked, for a repeated request whose answer was lost.
pub fn newest(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    epoch: u32,
) -> Result<Option<Issued>, Problem> {
    let stored = store::newest(tx, tenant, device, epoch)?;
    Ok(stored.map(|stored| Issued {
        serial: stored.serial,
        authority: stored.authority,
        content: match stored.to_sign {
            Some(to_sign) => Content::Unsigned(to_sign),
            None => Content::Signed(stored.der),
        },
    }))
}

/// The device whose key `spki` (DER) is, if a certificate was ever issued for it.
pub fn key_holder(tx: &mut Tx, tenant: TenantId, spki: &[u8]) -> Result<Option<DeviceId>, Problem> {
    Ok(store::holder(tx, tenant, sha256(spki).as_bytes())?)
}

/// The certificate and its authority's (DER), signed now where it was not. Call it after the transaction of `issue`.
///
/// Refused with `ca_unavailable` while the device CA's key cannot be reached: the certificate keeps its place, and the
/// same request finds it again.
pub async fn chain(app: &App, tenant: TenantId, issued: Issued) -> Result<Vec<Vec<u8>>, Problem> {
    let authority = match &issued.authority {
        Some(id) => app.keys.authority.member(id).map_err(refused)?,
        // Issued before the database said by whom; there was one device CA then.
        None => {
            let set = app.keys.authority.set();
            let first = set.first_device_ca().and_then(|id| set.find(id)).cloned();
            first.ok_or_else(|| Problem::internal("no authority is known for an old certificate"))?
        }
    };
    let der = match issued.content {
        Content::Signed(der) => der,
        Content::Unsigned(to_sign) => {
            let signed = app
                .keys
                .authority
                .sign(&authority.id, &to_sign)
                .await
                .map_err(refused)?;
            let serial = issued.serial;
            audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
                Ok(store::put_signed(tx, tenant, &serial, &signed)?)
            })
            .await?
            .ok_or_else(|| Problem::internal("an issued certificate has no row"))?
        }
    };
    Ok(vec![der, authority.certificate.to_vec()])
}

/// Refuses with `ca_unavailable` while the device CA could not sign. Asked before a token or challenge is used up.
pub async fn ready(app: &App) -> Result<(), Problem> {
    app.keys.authority.ready().await.map_err(unavailable)
}

pub(super) fn refused(error: SecretsError) -> Problem {
    match error {
        SecretsError::CaUnavailable(unavailable) => self::unavailable(unavailable),
        other => Problem::internal(other),
    }
}

fn unavailable(unavailable: Unavailable) -> Problem {
    CA_UNAVAILABLE
        .detail(
            "The key that signs device certificates cannot be reached. Nothing is lost: repeat the request.",
        )
        .retry_after(unavailable.retry_after_seconds)
        .caused_by(unavailable)
}
