//! The tenant's keys for what others check: security event tokens and compliance tokens.
//!
//! A key signs for 30 days unless somebody sets another period. Its successor stands in the key set a day before it signs, and it stays there for a week after, so
//! that nobody who keeps a key set for hours meets a key that is not in it.

use std::time::Duration;

use muster_model::{TenantId, Timestamp};
use muster_ssf::{PublicJwk, TokenType, jwks, sign};
use muster_storage::{Scope, Tx};
use muster_trust::key::{PublicKey, SigningKey};
use serde::Serialize;

use super::store::{self, KeyRow};
use crate::{
    App, access,
    access::{
        Author,
        problem::{Problem, UNAVAILABLE},
    },
    audit::{self, LoggedTx},
    secrets::{
        self, Kind, PERIOD_DAYS, RETIRED, ROTATED, Record, RotatedBy, SealingRing, SecretText, UnsealError,
    },
};

/// How long a key is shown before.
const SHOWN_BEFORE: Duration = Duration::from_secs(86_400);
/// How long a key is shown before that somebody asked for: twice as long as others may keep a key set.
const SHOWN_BEFORE_ASKED: Duration = Duration::from_secs(2 * 3600);
/// What clocks of nodes may differ by.
const SLACK: Duration = Duration::from_secs(600);
/// How long it is shown after.
const SHOWN_AFTER: Duration = Duration::from_secs(7 * 86_400);
/// When whoever asks for keys that cannot be opened now is to ask again: as often as the store is asked.
const AWAY_SECONDS: u64 = 30;
/// The record of a tenant's keys among its secrets.
pub const RECORD: &str = "signal-key";

/// What is to be done about a tenant's keys.
#[derive(Debug, PartialEq, Eq)]
struct Care {
    /// When a new key is to sign, where one is needed.
    make: Option<Timestamp>,
    /// Keys that nobody needs any more.
    drop: Vec<String>,
}

/// A key as it is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    id: String,
    active_from: Timestamp,
    /// It will never open: its row was changed.
    is_broken: bool,
}

/// What somebody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Nothing,
    /// Another key.
    Rotate,
    /// Another key at once, and none of the others any more.
    Revoke,
}

/// Judges the keys, which are in their order, the newest first. A key signs for `period`.
fn care(keys: &[Known], asked: Asked, period: Duration, now: Timestamp) -> Care {
    let broken = keys.iter().filter(|key| key.is_broken).map(|key| key.id.clone());
    let mut dropped: Vec<String> = broken.collect();
    let good: Vec<&Known> = keys.iter().filter(|key| !key.is_broken).collect();
    let pairs = good.windows(2);
    let over = pairs.filter(|pair| now >= pair[0].active_from.plus(SHOWN_AFTER));
    dropped.extend(over.map(|pair| pair[1].id.clone()));
    let signs_soon = good.iter().any(|key| key.active_from <= now.plus(SLACK));
    let make = match (asked, good.first()) {
        (Asked::Revoke, _) => {
            dropped = keys.iter().map(|key| key.id.clone()).collect();
            Some(now)
        }
        (_, None) => Some(now),
        // Nothing can be signed until then: others meet a key that they have not seen.
        _ if !signs_soon => Some(now),
        (Asked::Rotate, _) => {
            // One that waits for its turn has signed nothing yet.
            let waiting = good.iter().filter(|key| key.active_from > now);
            dropped.extend(waiting.map(|key| key.id.clone()));
            Some(now.plus(SHOWN_BEFORE_ASKED))
        }
        (Asked::Nothing, Some(newest)) => {
            let ends = newest.active_from.plus(period);
            (now.plus(SHOWN_BEFORE) >= ends).then(|| ends.max(now.plus(SHOWN_BEFORE)))
        }
    };
    Care { make, drop: dropped }
}

/// The `iss` of what a tenant signs, and where its metadata is found (SSF 1.0, section 7.2).
pub fn issuer(app: &App, tenant: TenantId) -> String {
    format!("{}/signals/{tenant}", app.settings.admin_url)
}

/// Signs for one tenant with the key whose turn it is. It cannot be printed.
pub struct Signer {
    pub issuer: String,
    key_id: String,
    pem: SecretText,
}

impl Signer {
    /// A signed token.
    pub fn sign<T: Serialize>(&self, typ: TokenType, claims: &T) -> Result<String, Problem> {
        sign(typ, &self.key_id, self.pem.reveal(), claims).map_err(Problem::internal)
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// Who signs for a tenant now; its first key is made here, the others by [`keep_keys`].
pub async fn signer(app: &App, tenant: TenantId) -> Result<Signer, Problem> {
    let now = app.clock.now();
    let key = match key_in_use(app, tenant, now).await? {
        Some(key) => key,
        None => {
            keep_keys_of(app, tenant).await?;
            key_in_use(app, tenant, now)
                .await?
                .ok_or_else(|| UNAVAILABLE.detail("The tenant has no key to sign with yet."))?
        }
    };
    let pem = app
        .keys
        .sealing
        .unseal(tenant, &context(&key.id), &key.secret)
        .map_err(|error| {
            if app.keys.sealing.is_whole() {
                Problem::internal(error)
            } else {
                away()
            }
        })?;
    Ok(Signer {
        issuer: issuer(app, tenant),
        key_id: key.id,
        pem,
    })
}

async fn key_in_use(app: &App, tenant: TenantId, now: Timestamp) -> Result<Option<KeyRow>, Problem> {
    let keys = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            Ok::<_, Problem>(store::keys(tx, tenant)?)
        })
        .await?;
    Ok(keys.into_iter().find(|key| key.active_from <= now))
}

/// The public keys of a tenant, as others read them: of keys that open, and as those say. What a row calls a public key is nobody's
/// word; where it is another one, somebody wrote it past this server. While a key that seals is away, the set is not known: a part of
/// it, which others keep, would make them refuse what the missing keys signed.
pub async fn public_keys(app: &App, tenant: TenantId) -> Result<serde_json::Value, Problem> {
    let keys = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            Ok::<_, Problem>(store::keys(tx, tenant)?)
        })
        .await?;
    let mut shown: Vec<PublicJwk> = Vec::new();
    for key in keys {
        let point = match point_of(&app.keys.sealing, tenant, &key) {
            Ok(point) => point,
            Err(unread) if !app.keys.sealing.is_whole() || !never_opens(&unread) => {
                tracing::warn!(%tenant, key = key.id, "a key of signals does not open here, and no set of keys is shown");
                return Err(away());
            }
            Err(_) => {
                tracing::warn!(%tenant, key = key.id, "a key of signals does not open, and is not shown");
                continue;
            }
        };
        if point != key.point {
            let object = ("signals_key", key.id.clone());
            audit::row_edited(app, tenant, object, "its public key is not that of its secret").await?;
        }
        shown.extend(PublicJwk::of_point(key.id, &point));
    }
    Ok(jwks(&shown))
}

/// The keys that seal are away, or not all there: nothing is said of what does not open.
fn away() -> Problem {
    UNAVAILABLE
        .detail("The keys of this tenant cannot be opened now. Try again later.")
        .retry_after(AWAY_SECONDS)
}

/// The point of a key, from its secret.
fn point_of(sealing: &SealingRing, tenant: TenantId, key: &KeyRow) -> Result<Vec<u8>, Unread> {
    let pem = sealing
        .unseal(tenant, &context(&key.id), &key.secret)
        .map_err(Unread::Sealed)?;
    let read = SigningKey::from_pkcs8_pem(pem.reveal()).map_err(|_| Unread::NoKey)?;
    match read.public() {
        PublicKey::EcdsaP256(point) => Ok(point.to_vec()),
        PublicKey::Ed25519(_) => Err(Unread::NoKey),
    }
}

/// Why a key cannot be used.
enum Unread {
    Sealed(UnsealError),
    NoKey,
}

/// Makes and drops keys of every tenant in operation as their time comes. A reconciler's step.
pub async fn keep_keys(app: &App) -> Result<(), Problem> {
    keep_all(app, Broken::Kept).await
}

/// As [`keep_keys`], and replaces keys that are damaged; only the node that rotates does so. What another key sealed is left alone:
/// this node might merely lack it.
pub async fn mend_keys(app: &App) -> Result<(), Problem> {
    keep_all(app, Broken::Replaced).await
}

/// What stops one tenant stops no other.
async fn keep_all(app: &App, broken: Broken) -> Result<(), Problem> {
    for tenant in app.db.read(Scope::System, access::working_tenants).await? {
        if let Err(problem) = keep(app, tenant, broken).await {
            tracing::error!(%problem, %tenant, "the keys of a tenant's signals were not seen to; trying again");
        }
    }
    Ok(())
}

/// As [`keep_keys`], of one tenant.
pub async fn keep_keys_of(app: &App, tenant: TenantId) -> Result<(), Problem> {
    keep(app, tenant, Broken::Kept).await
}

/// What happens to keys that do not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Kept,
    Replaced,
}

/// What a tenant's keys need, and what is known of them.
struct Found {
    care: Care,
    /// None before the first key, and of keys of before there were records.
    record: Option<Record>,
}

async fn keep(app: &App, tenant: TenantId, broken: Broken) -> Result<(), Problem> {
    let (now, shared) = (app.clock.now(), app.clone());
    let reader = app.clone();
    let found = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            found(&reader.keys.sealing, tx, tenant, (broken, now))
        })
        .await?;
    if found.care.make.is_none() && found.care.drop.is_empty() {
        return Ok(());
    }
    audit::commit(app, &Author::system(tenant), move |tx| {
        let found = found_in(&shared.keys.sealing, tx, (broken, now))?;
        for id in &found.care.drop {
            store::drop_key(tx, tenant, id)?;
        }
        if !found.care.drop.is_empty() {
            let dropped = &found.care.drop;
            tx.record(
                RETIRED,
                ("secret", RECORD.to_owned()),
                serde_json::json!({ "key_ids": dropped }),
            )?;
        }
        let Some(active_from) = found.care.make else {
            return Ok(());
        };
        let key = make(&shared.keys.sealing, tenant, (now, active_from))?;
        store::insert_key(tx, tenant, &key)?;
        let made = (Kind::SigningKey, RotatedBy::Server);
        let owner = "security event tokens and compliance tokens of this tenant".to_owned();
        let mut record = Record::new(RECORD.to_owned(), made, owner, "database", now);
        if let Some(before) = &found.record {
            (record.version, record.period_days) = (before.version + 1, before.period_days);
            record.overlap_until = Some(active_from.plus(SHOWN_AFTER));
        }
        secrets::note(tx, tenant, &record)?;
        tx.record(
            ROTATED,
            ("secret", RECORD.to_owned()),
            serde_json::json!({
                "version": record.version,
                "place": "database",
                "key_id": key.id,
                "used_from": active_from.to_string(),
            }),
        )?;
        Ok(())
    })
    .await
}

fn found_in(
    sealing: &SealingRing,
    tx: &mut LoggedTx<'_>,
    how: (Broken, Timestamp),
) -> Result<Found, Problem> {
    let tenant = tx.tenant();
    found(sealing, tx, tenant, how)
}

fn found(
    sealing: &SealingRing,
    tx: &mut Tx,
    tenant: TenantId,
    (broken, now): (Broken, Timestamp),
) -> Result<Found, Problem> {
    let record = secrets::record(tx, tenant, RECORD)?;
    // While a key of the ring is away, nothing can be said of what does not open.
    let may_replace = broken == Broken::Replaced && sealing.is_whole();
    let keys = store::keys(tx, tenant)?.into_iter();
    let known: Vec<Known> = keys
        .map(|key| Known {
            is_broken: may_replace
                && point_of(sealing, tenant, &key).is_err_and(|unread| never_opens(&unread)),
            id: key.id,
            active_from: key.active_from,
        })
        .collect();
    let asked = match &record {
        Some(record) if record.revoke_asked && broken == Broken::Replaced => Asked::Revoke,
        Some(record) if record.asked_at.is_some() && broken == Broken::Replaced => Asked::Rotate,
        _ => Asked::Nothing,
    };
    let days = record.as_ref().map_or(PERIOD_DAYS, |record| record.period_days);
    let period = Duration::from_secs(u64::from(days) * 86_400);
    Ok(Found {
        care: care(&known, asked, period, now),
        record,
    })
}

/// Whether it opens nowhere. What the head calls the key of somebody else may open on another node, or when this one has its own key
/// again: people end such keys (`muster secret revoke signal-key`), never a task.
fn never_opens(unread: &Unread) -> bool {
    match unread {
        Unread::Sealed(UnsealError::Away | UnsealError::OtherKey) => false,
        Unread::NoKey | Unread::Sealed(UnsealError::Damaged) => true,
    }
}

fn make(
    sealing: &SealingRing,
    tenant: TenantId,
    (now, active_from): (Timestamp, Timestamp),
) -> Result<KeyRow, Problem> {
    let key = SigningKey::generate_p256().map_err(Problem::internal)?;
    let PublicKey::EcdsaP256(point) = key.public() else {
        return Err(Problem::internal("a P-256 key is of another kind"));
    };
    let id = key.key_id().to_string();
    let pem = key.to_pkcs8_pem().map_err(Problem::internal)?;
    let secret = SecretText::new(pem.to_string());
    Ok(KeyRow {
        secret: sealing.seal(tenant, &context(&id), &secret, now)?,
        point: point.to_vec(),
        id,
        active_from,
    })
}

pub(super) fn context(key_id: &str) -> String {
    format!("signals/key/{key_id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);
    const DAY: Duration = Duration::from_secs(86_400);

    const PERIOD: Duration = Duration::from_secs(30 * 86_400);

    fn key(name: &str, active_from: Timestamp) -> Known {
        Known {
            id: name.to_owned(),
            active_from,
            is_broken: false,
        }
    }

    fn cared(keys: &[Known], now: Timestamp) -> Care {
        care(keys, Asked::Nothing, PERIOD, now)
    }

    #[test]
    fn a_key_is_shown_a_day_before_it_signs_and_a_week_after() {
        assert_eq!(cared(&[], NOW).make, Some(NOW));
        let first = [key("a", NOW)];
        assert_eq!(cared(&first, NOW.plus(DAY * 28)).make, None);
        let at = NOW.plus(DAY * 29);
        assert_eq!(cared(&first, at).make, Some(NOW.plus(DAY * 30)));
        // Nobody was here for a year: the new one is still shown first.
        let late = NOW.plus(DAY * 365);
        assert_eq!(cared(&first, late).make, Some(late.plus(DAY)));
        let both = [key("b", NOW.plus(DAY * 30)), key("a", NOW)];
        let before = cared(&both, NOW.plus(DAY * 36));
        assert!(before.drop.is_empty() && before.make.is_none());
        assert_eq!(cared(&both, NOW.plus(DAY * 37)).drop, ["a"]);
    }

    #[test]
    fn a_key_that_never_opens_is_replaced_at_once() {
        let mut keys = [key("a", NOW)];
        keys[0].is_broken = true;
        let found = cared(&keys, NOW.plus(DAY));
        assert_eq!(
            (found.make, found.drop),
            (Some(NOW.plus(DAY)), vec!["a".to_owned()])
        );
        // One that waits for its turn signs nothing before it.
        let mut keys = [key("b", NOW.plus(DAY * 30)), key("a", NOW)];
        keys[1].is_broken = true;
        let at = NOW.plus(DAY * 29);
        assert_eq!(cared(&keys, at).make, Some(at));
    }

    #[test]
    fn a_node_with_another_sealing_key_calls_no_key_broken() {
        let unread = Unread::Sealed;
        assert!(!never_opens(&unread(UnsealError::OtherKey)));
        assert!(!never_opens(&unread(UnsealError::Away)));
        assert!(never_opens(&unread(UnsealError::Damaged)) && never_opens(&Unread::NoKey));
    }

    #[test]
    fn a_key_that_somebody_asks_for_is_shown_before_it_signs_unless_the_others_are_stolen() {
        let both = [key("b", NOW.plus(DAY * 30)), key("a", NOW)];
        let at = NOW.plus(DAY * 29);
        let asked = care(&both, Asked::Rotate, PERIOD, at);
        assert_eq!(
            (asked.make, asked.drop),
            (Some(at.plus(SHOWN_BEFORE_ASKED)), vec!["b".to_owned()])
        );
        let stolen = care(&both, Asked::Revoke, PERIOD, at);
        assert_eq!((stolen.make, stolen.drop.len()), (Some(at), 2));
    }
}
