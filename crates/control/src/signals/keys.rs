//! The tenant's keys for what others check: security event tokens and compliance tokens.
//!
//! A key signs for 30 days. Its successor stands in the key set a day before it signs, and it stays there for a week after, so
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
    access::problem::{Problem, UNAVAILABLE},
    audit,
    secrets::{SealingRing, SecretText},
};

/// How long a key signs (REQUIREMENTS §4).
const SIGNS_FOR: Duration = Duration::from_secs(30 * 86_400);
/// How long it is shown before.
const SHOWN_BEFORE: Duration = Duration::from_secs(86_400);
/// How long it is shown after.
const SHOWN_AFTER: Duration = Duration::from_secs(7 * 86_400);

/// What is to be done about a tenant's keys.
#[derive(Debug, PartialEq, Eq)]
struct Care {
    /// When a new key is to sign, where one is needed.
    make: Option<Timestamp>,
    /// Keys that nobody needs any more.
    drop: Vec<String>,
}

/// Judges the keys, which are in their order, the newest first.
fn care(keys: &[(String, Timestamp)], now: Timestamp) -> Care {
    let make = match keys.first() {
        None => Some(now),
        Some((_, active_from)) => {
            let ends = active_from.plus(SIGNS_FOR);
            (now.plus(SHOWN_BEFORE) >= ends).then(|| ends.max(now.plus(SHOWN_BEFORE)))
        }
    };
    let pairs = keys.windows(2);
    let over = pairs.filter(|pair| now >= pair[0].1.plus(SHOWN_AFTER));
    Care {
        make,
        drop: over.map(|pair| pair[1].0.clone()).collect(),
    }
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
        .map_err(Problem::internal)?;
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

/// The public keys of a tenant, as others read them.
pub fn public_keys(tx: &mut Tx, tenant: TenantId) -> Result<serde_json::Value, Problem> {
    let keys = store::keys(tx, tenant)?.into_iter();
    let keys: Vec<PublicJwk> = keys
        .filter_map(|key| PublicJwk::of_point(key.id, &key.point))
        .collect();
    Ok(jwks(&keys))
}

/// Makes and drops keys of every tenant in operation as their time comes. A reconciler's step.
pub async fn keep_keys(app: &App) -> Result<(), Problem> {
    for tenant in app.db.read(Scope::System, access::working_tenants).await? {
        keep_keys_of(app, tenant).await?;
    }
    Ok(())
}

/// As [`keep_keys`], of one tenant.
async fn keep_keys_of(app: &App, tenant: TenantId) -> Result<(), Problem> {
    let (now, shared) = (app.clock.now(), app.clone());
    let is_fine = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            let care = care(&known(tx, tenant)?, now);
            Ok::<_, Problem>(care.make.is_none() && care.drop.is_empty())
        })
        .await?;
    if is_fine {
        return Ok(());
    }
    audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        let care = care(&known(tx, tenant)?, now);
        for id in &care.drop {
            store::drop_key(tx, tenant, id)?;
        }
        if let Some(active_from) = care.make {
            let key = make(&shared.keys.sealing, tenant, (now, active_from))?;
            store::insert_key(tx, tenant, &key)?;
        }
        Ok(())
    })
    .await
}

fn known(tx: &mut Tx, tenant: TenantId) -> Result<Vec<(String, Timestamp)>, Problem> {
    let keys = store::keys(tx, tenant)?.into_iter();
    Ok(keys.map(|key| (key.id, key.active_from)).collect())
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

    #[test]
    fn a_key_is_shown_a_day_before_it_signs_and_a_week_after() {
        let key = |name: &str, from: Timestamp| (name.to_owned(), from);
        assert_eq!(care(&[], NOW).make, Some(NOW));
        let first = [key("a", NOW)];
        assert_eq!(care(&first, NOW.plus(DAY * 28)).make, None);
        let at = NOW.plus(DAY * 29);
        assert_eq!(care(&first, at).make, Some(NOW.plus(DAY * 30)));
        // Nobody was here for a year: the new one is still shown first.
        let late = NOW.plus(DAY * 365);
        assert_eq!(care(&first, late).make, Some(late.plus(DAY)));
        let both = [key("b", NOW.plus(DAY * 30)), key("a", NOW)];
        let before = care(&both, NOW.plus(DAY * 36));
        assert!(before.drop.is_empty() && before.make.is_none());
        assert_eq!(care(&both, NOW.plus(DAY * 37)).drop, ["a"]);
    }
}
