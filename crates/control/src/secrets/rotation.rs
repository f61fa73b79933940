//! Rotates the keys of the rings: one node at a time, each step safe to stop at and to take again.
//!
//! 1. A new value is made and written to the store. Nothing uses it: a process that dies here leaves a value that is deleted later.
//! 2. One transaction, fenced by the lease, adds the version, says until when the one before is accepted, writes the record and the
//!    entry of the log. From now on every node accepts what the new version signs; it signs only after [`SETTLE`].
//! 3. Nothing: the rest follows from the clock. Only what is sealed has to be sealed anew before its old key can be retired.

use std::time::Duration;

use muster_model::{TenantId, Timestamp};
use muster_storage::{Lease, Scope};
use muster_trust::key::SigningKey;

use super::{
    SealingKey, SecretText,
    keeper::{self, record_of},
    places::{EMBEDDED, SecretStore, StoreError},
    records::Record,
    ring::{RingName, SETTLE, Version},
    store, vouched,
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
/// The entry that ends earlier versions at once, and the one that ends keys which nothing needs any more.
pub const REVOKED: &str = "secret.revoked";
pub const RETIRED: &str = "secret.retired";
/// How long nothing is tried after a rotation that failed: at first, and at most.
const AFTER_FAILURE: Duration = Duration::from_secs(10);
const AFTER_FAILURE_MAX: Duration = Duration::from_secs(600);
/// A store that keeps fewer versions than this is spoken of.
pub const VERSIONS_KEPT_MIN: u32 = 20;
/// How long after it seals a sealing key's predecessor may be retired: what other nodes sealed with it until then is found, and what
/// waits in the outbox with a secret of its own is over.
const SEALED_ANEW: Duration = Duration::from_secs(2 * 86_400);

/// Rotates every ring that is due. Answers whether anything was done.
pub async fn rotate_due(app: &App, lease: &Lease) -> Result<bool, Problem> {
    let Some(tenant) = keeper::operator(app).await? else {
        return Ok(false);
    };
    let now = app.clock.now();
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
        if app
            .stores
            .rests
            .lock()
            .get(&name)
            .is_some_and(|rest| rest.holds(lease, &record))
        {
            continue;
        }
        match rotate(app, tenant, name, &record, lease).await {
            Ok(()) => {
                app.stores.rests.lock().remove(&name);
                did = true;
            }
            Err(problem) => {
                let rest = {
                    let mut rests = app.stores.rests.lock();
                    let rest = Rest::after(rests.get(&name), lease, &record);
                    rests.insert(name, rest);
                    rest.until.saturating_sub(clock::uptime())
                };
                tracing::warn!(%problem, secret = name.as_str(), again_in_seconds = rest.as_secs(),
                    "a key was not rotated; trying again");
                say_failed(app, tenant, record, problem.detail).await?;
            }
        }
    }
    Ok(did)
}

/// What follows from rotations of a ring that failed, on the node whose task they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rest {
    /// Under which holding of the lease.
    token: i64,
    failures: u32,
    /// By the clock that nobody sets.
    until: Duration,
    /// Whoever asks again is not made to wait.
    asked_at: Option<Timestamp>,
}

impl Rest {
    fn holds(&self, lease: &Lease, record: &Record) -> bool {
        self.token == lease.token && self.asked_at == record.asked_at && clock::uptime() < self.until
    }

    fn after(before: Option<&Rest>, lease: &Lease, record: &Record) -> Rest {
        let same = before.filter(|rest| rest.token == lease.token && rest.asked_at == record.asked_at);
        let failures = same.map_or(0, |rest| rest.failures).saturating_add(1);
        Rest {
            token: lease.token,
            failures,
            until: clock::uptime() + pause(failures),
            asked_at: record.asked_at,
        }
    }
}

/// The pause after so many failures in a row.
fn pause(failures: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
    AFTER_FAILURE.saturating_mul(doubled).min(AFTER_FAILURE_MAX)
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

/// A new value of a ring.
struct Made {
    value: SecretText,
    public_key: Option<Vec<u8>>,
    /// What the log calls the key.
    key_id: String,
}

impl Made {
    fn new(name: RingName) -> Result<Made, Problem> {
        let value = match name {
            RingName::AccessTokens | RingName::EnrollmentTokens => {
                let key = SigningKey::generate_p256().map_err(Problem::internal)?;
                let pem = key.to_pkcs8_pem().map_err(Problem::internal)?;
                SecretText::new((*pem).clone())
            }
            RingName::Sealing => SealingKey::generate_hex(),
        };
        Made::of(name, value).ok_or_else(|| Problem::internal("a key that was just made is none"))
    }

    /// What a value is, where it is one of this ring.
    fn of(name: RingName, value: SecretText) -> Option<Made> {
        match name {
            RingName::AccessTokens | RingName::EnrollmentTokens => {
                let key = SigningKey::from_pkcs8_pem(value.reveal()).ok()?;
                Some(Made {
                    public_key: Some(key.public().spki_der()),
                    key_id: key.key_id().to_string(),
                    value,
                })
            }
            RingName::Sealing => Some(Made {
                public_key: None,
                key_id: SealingKey::from_hex(value.reveal().as_bytes()).ok()?.name(),
                value,
            }),
        }
    }
}

/// What an attempt to rotate wrote to a store, as its record keeps it: sealed with the key of the key folder, because this decides
/// which key the next attempt takes.
#[derive(Debug, PartialEq, Eq)]
struct Attempt {
    key_id: String,
    at: Timestamp,
}

impl Attempt {
    fn context(name: RingName) -> String {
        format!("secrets/attempt/{}", name.as_str())
    }

    fn seal(&self, master: &SealingKey, (tenant, name): (TenantId, RingName)) -> String {
        let text = SecretText::new(format!("{}:{}", self.at.as_micros(), self.key_id));
        hex::encode(master.seal(tenant, &Attempt::context(name), &text))
    }

    /// None where nobody with the key of the key folder wrote it for this ring.
    fn unseal(master: &SealingKey, (tenant, name): (TenantId, RingName), sealed: &str) -> Option<Attempt> {
        let sealed = hex::decode(sealed).ok()?;
        let text = master.unseal(tenant, &Attempt::context(name), &sealed).ok()?;
        let (at, key_id) = text.reveal().split_once(':')?;
        Some(Attempt {
            key_id: key_id.to_owned(),
            at: Timestamp::from_micros(at.parse().ok()?),
        })
    }

    /// A record of before says it again when somebody puts it back: a key that was a version is never another one, and after a
    /// revocation nothing of before is taken.
    fn may_be_taken(&self, said: &vouched::Said) -> bool {
        !said.names_key(&self.key_id) && !said.was_revoked_since(self.at)
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
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let reader = std::sync::Arc::clone(&keys);
    let (versions, said, attempt) = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            let (versions, said) = vouched::read(tx, &reader, name)?;
            Ok::<_, Problem>((versions, said, store::attempt(tx, tenant, name.as_str())?))
        })
        .await?;
    not_behind(name, &versions)?;
    // A number would come twice, and an end of before would not count. Where the file cannot be written, the keeper says so.
    if app.keys.is_below_floor(&keys, name, &said).unwrap_or(false) {
        return Err(
            ILLEGAL_STATE.detail("The log says less of this key than this node saw: see the alarm about it.")
        );
    }
    let attempt = attempt
        .and_then(|sealed| Attempt::unseal(&app.keys.master, (tenant, name), &sealed))
        .filter(|attempt| attempt.may_be_taken(&said))
        .map(|attempt| attempt.key_id);
    let place = app.stores.newest().place().to_owned();
    let (made, store_version) = keep(app, (tenant, name), &versions, attempt).await?;
    let (public_key, key_id) = (made.public_key, made.key_id);
    #[cfg(debug_assertions)]
    fault::at(app.settings.fault.as_deref(), When::After, ["secret.stored"])?;
    let (lease, record, was_asked) = (lease.clone(), record.clone(), record.asked_at.is_some());
    audit::commit(app, &Author::system(tenant), move |tx| {
        tx.fence(&lease)?;
        let (at, keys) = (tx.at(), std::sync::Arc::clone(tx.keys()));
        let (versions, said) = vouched::read(tx, &keys, name)?;
        let number = said.next_number(&versions);
        not_behind(name, &versions)?;
        let version = Version {
            number,
            place: place.clone(),
            store_version: store_version.clone(),
            public_key: public_key.clone(),
            key_id: None,
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
                // Nodes believe a row only as far as this entry names it.
                "store_version": store_version,
                "key_id": key_id,
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

/// Writes a value to the store for new ones and reads it back: a key that nobody can fetch must not become a version. What an attempt
/// wrote that did not end is taken instead of another value: stores keep a number of versions, and those in use must stay.
async fn keep(
    app: &App,
    (tenant, name): (TenantId, RingName),
    versions: &[Version],
    attempt: Option<String>,
) -> Result<(Made, String), Problem> {
    let store = app.stores.newest();
    let heard = |result: Result<_, StoreError>| {
        if store.place() != EMBEDDED {
            app.stores.heard(&result, app.clock.now());
        }
        result.map_err(refused)
    };
    let (newest, left) = heard(left_over(store, name, versions, attempt).await)?;
    if let (Some(version), Some(made)) = (&newest, left) {
        tracing::info!(
            secret = name.as_str(),
            "an earlier attempt's value is taken into use"
        );
        return Ok((made, version.clone()));
    }
    room(app, store, name, versions, newest.as_deref()).await?;
    let made = Made::new(name)?;
    let attempt = Attempt {
        key_id: made.key_id.clone(),
        at: app.clock.now(),
    };
    let sealed = attempt.seal(&app.keys.master, (tenant, name));
    audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        Ok(store::set_attempt(tx, tenant, name.as_str(), &sealed).map(drop)?)
    })
    .await?;
    let kept = async {
        let version = store.write(name.as_str(), &made.value, newest.as_deref()).await?;
        #[cfg(debug_assertions)]
        fault::at(app.settings.fault.as_deref(), When::After, ["secret.written"])
            .map_err(|problem| StoreError::away(problem.detail))?;
        let read = store.read(name.as_str(), &version).await?;
        if read.reveal() == made.value.reveal() {
            Ok((Some(version), None))
        } else {
            Err(StoreError::Invalid(
                "it gave another value back than it was given".to_owned(),
            ))
        }
    };
    let (version, _) = heard(kept.await)?;
    let version = version.ok_or_else(|| Problem::internal("a store that took a value says its version"))?;
    Ok((made, version))
}

/// The newest version of a store, and its value where an attempt of ours wrote it and it was not taken into use.
async fn left_over(
    store: &dyn SecretStore,
    name: RingName,
    versions: &[Version],
    attempt: Option<String>,
) -> Result<(Option<String>, Option<Made>), StoreError> {
    let Some(newest) = store.newest(name.as_str()).await? else {
        return Ok((None, None));
    };
    let is_used = |version: &Version| version.place == store.place() && version.store_version == newest;
    let Some(attempt) = attempt.filter(|_| !versions.iter().any(is_used)) else {
        return Ok((Some(newest), None));
    };
    let made = match store.read(name.as_str(), &newest).await {
        Ok(value) => Made::of(name, value).filter(|made| made.key_id == attempt),
        Err(StoreError::Missing | StoreError::Invalid(_)) => None,
        Err(error) => return Err(error),
    };
    Ok((Some(newest), made))
}

/// Whether another version pushes none out of the store that is still in use.
async fn room(
    app: &App,
    store: &dyn SecretStore,
    name: RingName,
    versions: &[Version],
    newest: Option<&str>,
) -> Result<(), Problem> {
    let Some(kept) = store.versions_kept(name.as_str()).await.map_err(refused)? else {
        return Ok(());
    };
    if kept < VERSIONS_KEPT_MIN {
        tracing::warn!(
            secret = name.as_str(),
            kept,
            wanted = VERSIONS_KEPT_MIN,
            "the store keeps few versions: see the reference of secrets"
        );
    }
    let now = app.clock.now();
    let used = versions
        .iter()
        .filter(|version| version.place == store.place() && version.is_accepted(now));
    let oldest = used
        .filter_map(|version| version.store_version.parse().ok())
        .min();
    if has_room(kept, newest.and_then(|newest| newest.parse().ok()), oldest) {
        Ok(())
    } else {
        Err(ILLEGAL_STATE.detail(format!(
            "The store keeps {kept} versions of {}, and another one would push out one that is in use. Let it keep more.",
            name.as_str()
        )))
    }
}

/// Of versions that are counted, a store keeps the newest ones.
fn has_room(kept: u32, newest: Option<u64>, oldest_used: Option<u64>) -> bool {
    match (newest, oldest_used) {
        (Some(newest), Some(oldest)) => (newest + 1).saturating_sub(oldest) < u64::from(kept),
        _ => true,
    }
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
    let known: Vec<Version> = app
        .keys
        .sealing
        .links()
        .iter()
        .map(|link| link.version.clone())
        .collect();
    if retirable(&known, now).is_none() {
        return Ok(());
    }
    // A row that nobody vouches for must not end keys that are in use.
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let due = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            let versions = vouched::versions(tx, &keys, RingName::Sealing, now)?;
            Ok::<_, Problem>(retirable(&versions, now))
        })
        .await?;
    let Some(number) = due else { return Ok(()) };
    let lease = lease.clone();
    audit::commit(app, &Author::system(tenant), move |tx| {
        tx.fence(&lease)?;
        let at = tx.at();
        if store::retire_before(tx, tenant, (name, number), at.plus(SETTLE))? > 0 {
            tx.record(
                RETIRED,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l9_failures_are_answered_with_longer_and_longer_pauses() {
        let seconds: Vec<u64> = [1, 2, 3, 6, 7, 40, u32::MAX]
            .map(|failures| pause(failures).as_secs())
            .to_vec();
        assert_eq!(seconds, [10, 20, 40, 320, 600, 600, 600]);
    }

    #[test]
    fn an_attempt_is_believed_when_it_was_sealed_for_its_ring_alone() {
        let key = || SealingKey::from_hex(SealingKey::generate_hex().reveal().as_bytes()).expect("a key");
        let (master, other) = (key(), key());
        let tenant = TenantId::from_uuid(uuid::Uuid::from_u128(1));
        let attempt = Attempt {
            key_id: "ab".repeat(32),
            at: Timestamp::from_unix_seconds(1_800_000_000),
        };
        let ring = (tenant, RingName::AccessTokens);
        let sealed = attempt.seal(&master, ring);
        assert_eq!(Attempt::unseal(&master, ring, &sealed).as_ref(), Some(&attempt));
        for name in [RingName::EnrollmentTokens, RingName::Sealing] {
            assert_eq!(Attempt::unseal(&master, (tenant, name), &sealed), None);
        }
        assert_eq!(Attempt::unseal(&other, ring, &sealed), None);
        // What was a column of its own, and what somebody writes.
        for wrong in [attempt.key_id.as_str(), "", "xy"] {
            assert_eq!(Attempt::unseal(&master, ring, wrong), None);
        }
    }

    #[test]
    fn no_version_in_use_is_pushed_out_of_a_store() {
        // Ten are kept: 2 to 11 when 11 is written.
        assert!(has_room(10, Some(10), Some(2)));
        assert!(!has_room(10, Some(11), Some(2)));
        assert!(has_room(1, None, None) && has_room(1, Some(90), None));
        assert!(!has_room(1, Some(1), Some(1)));
    }
}
