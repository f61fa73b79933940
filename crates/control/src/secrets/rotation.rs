//! Rotates the keys of the rings: one node at a time, each step safe to stop at and to take again.
//!
//! 1. A new value is made and written to the store. Nothing uses it: a process that dies here leaves a value that is deleted later.
//! 2. One transaction, fenced by the lease, adds the version, says until when the one before is accepted, writes the record and the
//!    entry of the log. From now on every node accepts what the new version signs; it signs only after [`SETTLE`].
//! 3. Nothing: the rest follows from the clock. Only what is sealed has to be sealed anew before its old key can be retired.

use muster_model::{TenantId, Timestamp};
use muster_storage::{Lease, Scope};
use muster_trust::key::SigningKey;

use super::{
    SealingKey, SecretText,
    keeper::{self, record_of},
    places::StoreError,
    records::Record,
    ring::{RingName, SETTLE, Version},
    store,
};
#[cfg(debug_assertions)]
use crate::fault::{self, When};
use crate::{
    App,
    access::{
        Author,
        problem::{CONFLICT, ILLEGAL_STATE, Problem},
    },
    audit, clock,
};

/// The lease under which one node rotates.
pub const ROTATION_LEASE: &str = "secrets.rotation";
/// The entry of a rotation.
pub const ROTATED: &str = "secret.rotated";
/// How long nothing is tried after a rotation that failed.
const AFTER_FAILURE: std::time::Duration = std::time::Duration::from_secs(10);
/// How long after it seals a sealing key's predecessor may be retired: what other nodes sealed with it until then is found, and what
/// waits in the outbox with a secret of its own is over.
const SEALED_ANEW: std::time::Duration = std::time::Duration::from_secs(2 * 86_400);

/// Rotates every ring that is due. Answers whether anything was done.
pub async fn rotate_due(app: &App, lease: &Lease) -> Result<bool, Problem> {
    let Some(tenant) = keeper::operator(app).await? else {
        return Ok(false);
    };
    let now = app.clock.now();
    let (token, rests_until) = *app.stores.rotation_rest.lock();
    if token == lease.token && clock::uptime() < rests_until {
        return Ok(false);
    }
    let records = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            let mut found = Vec::new();
            for name in RingName::ALL {
                found.push((name, store::record(tx, tenant, name.as_str())?));
            }
            Ok::<_, Problem>(found)
        })
        .await?;
    let mut did = false;
    for (name, record) in records {
        let Some(record) = record.filter(|record| record.is_due(now)) else {
            continue;
        };
        match rotate(app, tenant, name, &record, lease).await {
            Ok(()) => did = true,
            Err(problem) => {
                tracing::warn!(%problem, secret = name.as_str(), "a key was not rotated; trying again");
                // Every attempt may leave a value in the store.
                *app.stores.rotation_rest.lock() = (lease.token, clock::uptime() + AFTER_FAILURE);
                say_failed(app, tenant, record, problem.detail).await?;
            }
        }
    }
    Ok(did)
}

/// Writes down why, once for each reason.
async fn say_failed(app: &App, tenant: TenantId, record: Record, why: String) -> Result<(), Problem> {
    if record.error.as_deref() == Some(&why) {
        return Ok(());
    }
    audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        Ok(store::failed(tx, tenant, &record.name, &why).map(drop)?)
    })
    .await
}

fn make(name: RingName) -> Result<(SecretText, Option<Vec<u8>>), Problem> {
    match name {
        RingName::AccessTokens | RingName::EnrollmentTokens => {
            let key = SigningKey::generate_p256().map_err(Problem::internal)?;
            let pem = key.to_pkcs8_pem().map_err(Problem::internal)?;
            Ok((SecretText::new((*pem).clone()), Some(key.public().spki_der())))
        }
        RingName::Sealing => Ok((SealingKey::generate_hex(), None)),
    }
}

async fn rotate(
    app: &App,
    tenant: TenantId,
    name: RingName,
    record: &Record,
    lease: &Lease,
) -> Result<(), Problem> {
    // Before anything is written to the store.
    let versions = app.db.read(Scope::Tenant(tenant.uuid()), move |tx| {
        Ok::<_, Problem>(store::versions(tx, tenant, name.as_str())?)
    });
    not_behind(name, &versions.await?)?;
    let (value, public_key) = make(name)?;
    let (place, store_version) = keep(app, name, &value).await.map_err(refused)?;
    #[cfg(debug_assertions)]
    fault::at(app.settings.fault.as_deref(), When::After, ["secret.stored"])?;
    let (lease, record, was_asked) = (lease.clone(), record.clone(), record.asked_at.is_some());
    audit::commit(app, &Author::system(tenant), move |tx| {
        tx.fence(&lease)?;
        let (at, versions) = (tx.at(), store::versions(tx, tenant, name.as_str())?);
        let number = versions.last().map_or(0, |newest| newest.number) + 1;
        not_behind(name, &versions)?;
        let version = Version {
            number,
            place: place.clone(),
            store_version: store_version.clone(),
            public_key: public_key.clone(),
            created_at: at,
            activates_at: at.plus(SETTLE),
            retires_at: None,
        };
        if !store::insert_version(tx, tenant, name.as_str(), &version)? {
            return Err(CONFLICT.detail("Another node rotated this key just now."));
        }
        let good_until = name.overlap().map(|overlap| version.activates_at.plus(overlap));
        if let Some(until) = good_until {
            store::retire_before(tx, tenant, (name.as_str(), number), until)?;
        }
        let mut fresh = record_of(name, &version, &place);
        fresh.overlap_until = good_until;
        fresh.period_days = record.period_days;
        store::put_record(tx, tenant, &fresh)?;
        tx.record(
            ROTATED,
            ("secret", name.as_str().to_owned()),
            serde_json::json!({
                "version": number,
                "place": place,
                "used_from": version.activates_at.to_string(),
                "before_good_until": good_until.map(|at| at.to_string()),
                "asked": was_asked,
            }),
        )?;
        Ok(())
    })
    .await?;
    keeper::follow(app).await
}

/// A key that opens what is sealed stays until everything is sealed anew, so that there are never many.
fn not_behind(name: RingName, versions: &[Version]) -> Result<(), Problem> {
    let open = versions.iter().filter(|version| version.retires_at.is_none());
    if name == RingName::Sealing && open.count() > 2 {
        return Err(ILLEGAL_STATE.detail("What earlier keys sealed has to be sealed anew first."));
    }
    Ok(())
}

/// Writes a value to the store for new ones and reads it back: a key that nobody can fetch must not become a version.
async fn keep(app: &App, name: RingName, value: &SecretText) -> Result<(String, String), StoreError> {
    let store = app.stores.newest();
    let kept = async {
        let after = store.newest(name.as_str()).await?;
        let version = store.write(name.as_str(), value, after.as_deref()).await?;
        let read = store.read(name.as_str(), &version).await?;
        if read.reveal() == value.reveal() {
            Ok(version)
        } else {
            Err(StoreError::Invalid(
                "it gave another value back than it was given".to_owned(),
            ))
        }
    };
    let kept = kept.await;
    if store.place() != super::places::EMBEDDED {
        app.stores.heard(&kept, app.clock.now());
    }
    Ok((store.place().to_owned(), kept?))
}

fn refused(error: StoreError) -> Problem {
    crate::access::problem::UNAVAILABLE.detail(format!("The store of secrets: {error}."))
}

/// Retires the sealing keys before the newest one, once nothing is sealed with them. The caller has sealed everything anew.
pub async fn retire_sealing(app: &App, lease: &Lease) -> Result<(), Problem> {
    let Some(tenant) = keeper::operator(app).await? else {
        return Ok(());
    };
    let now = app.clock.now();
    let name = RingName::Sealing.as_str();
    let due = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            Ok::<_, Problem>(retirable(&store::versions(tx, tenant, name)?, now))
        })
        .await?;
    let Some(number) = due else { return Ok(()) };
    let lease = lease.clone();
    audit::commit(app, &Author::system(tenant), move |tx| {
        tx.fence(&lease)?;
        let at = tx.at();
        if store::retire_before(tx, tenant, (name, number), at.plus(SETTLE))? > 0 {
            tx.record(
                "secret.retired",
                ("secret", name.to_owned()),
                serde_json::json!({"before_version": number}),
            )?;
        }
        Ok(())
    })
    .await
}

/// The newest version, where it has been in use for long enough and there are others that are not retired.
fn retirable(versions: &[Version], now: Timestamp) -> Option<i64> {
    let (newest, before) = versions.split_last()?;
    let is_settled = newest.activates_at.plus(SEALED_ANEW) <= now;
    let has_others = before.iter().any(|version| version.retires_at.is_none());
    (is_settled && has_others).then_some(newest.number)
}
