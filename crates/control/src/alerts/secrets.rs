//! The secrets of destinations among the secrets of the installation: their records, and sealing them anew under a new key.

use muster_model::{TenantId, Timestamp};
use muster_storage::{Scope, Tx};

use super::{Destination, destinations::context, store};
use crate::{
    App,
    access::{self, problem::Problem},
    audit,
    secrets::{self, Kind, Record, RotatedBy},
};

/// Waiting messages that are sealed anew in one step.
const RESEALED_AT_ONCE: i64 = 500;

/// The record of a destination's secret.
pub fn record_name(destination: &str) -> String {
    format!("destination:{destination}")
}

/// Remembers that a destination was given a new secret.
pub fn note(tx: &mut Tx, tenant: TenantId, destination: &Destination, at: Timestamp) -> Result<(), Problem> {
    let before = secrets::record(tx, tenant, &record_name(&destination.name))?;
    let mut record = record(destination, at);
    record.version = before.map_or(0, |before| before.version) + 1;
    record.overlap_until = destination.previous_until.filter(|until| *until > at);
    secrets::note(tx, tenant, &record)
}

fn record(destination: &Destination, at: Timestamp) -> Record {
    let owner = format!("alerts to {} ({})", destination.name, destination.place.kind());
    let made = (Kind::DestinationSecret, RotatedBy::Holder);
    Record::new(record_name(&destination.name), made, owner, "database", at)
}

/// Writes records for secrets that were given before there were any.
pub async fn note_old_secrets(app: &App) -> Result<(), Problem> {
    for (tenant, _) in app.db.read(Scope::System, access::tenants).await? {
        audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
            for destination in store::destinations(tx, tenant)? {
                if destination.secret.is_some() {
                    secrets::note_old(tx, tenant, &record(&destination, destination.updated_at))?;
                }
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Seals what an earlier key sealed with the newest one, and drops secrets whose overlap is over. Answers whether everything is
/// sealed with the newest key now. It may stop anywhere and begin again: each row changes by itself, and only if nobody changed it
/// meanwhile.
pub async fn reseal(app: &App) -> Result<bool, Problem> {
    let mut is_done = true;
    for (tenant, _) in app.db.read(Scope::System, access::tenants).await? {
        let scope = Scope::Tenant(tenant.uuid());
        let found = app
            .db
            .read(scope, move |tx| Ok::<_, Problem>(store::sealed(tx, tenant)?))
            .await?;
        for sealed in found {
            let Some(change) = resealed(app, tenant, &sealed) else {
                continue;
            };
            let Some((secret, previous)) = change else {
                // A secret that does not open is said when it is used; it holds the old key back, which might still open it.
                is_done = false;
                continue;
            };
            let store::Sealed {
                name, secret: before, ..
            } = sealed;
            let changed = audit::housekeeping(app, scope, move |tx| {
                Ok(store::reseal_destination(
                    tx,
                    tenant,
                    &name,
                    Some(&before),
                    (&secret, previous.as_deref()),
                )?)
            });
            is_done &= changed.await? == 1;
        }
        is_done &= reseal_deliveries(app, tenant).await?;
    }
    Ok(is_done)
}

/// As [`reseal`], of messages that wait for a destination as it was: they keep the secret of then.
async fn reseal_deliveries(app: &App, tenant: TenantId) -> Result<bool, Problem> {
    let (scope, now, ring) = (Scope::Tenant(tenant.uuid()), app.clock.now(), &app.keys.sealing);
    let Some(head) = ring.head(now) else {
        return Ok(false);
    };
    let found = app.db.read(scope, move |tx| {
        Ok::<_, Problem>(store::sealed_otherwise(tx, tenant, &head, RESEALED_AT_ONCE)?)
    });
    let found = found.await?;
    let mut is_done = i64::try_from(found.len()).is_ok_and(|count| count < RESEALED_AT_ONCE);
    for (id, destination, before) in found {
        let context = context(&destination);
        let open = ring.unseal(tenant, &context, &before).ok();
        let Some(anew) = open.and_then(|open| ring.seal(tenant, &context, &open, now).ok()) else {
            // It is said when the message is tried, and the message ends in time.
            is_done = false;
            continue;
        };
        audit::housekeeping(app, scope, move |tx| {
            Ok(store::reseal_delivery(tx, tenant, id, (&before, &anew)).map(drop)?)
        })
        .await?;
    }
    Ok(is_done)
}

type Anew = (Vec<u8>, Option<Vec<u8>>);

/// Nothing where nothing is to be done; within, nothing where it cannot be done.
fn resealed(app: &App, tenant: TenantId, sealed: &store::Sealed) -> Option<Option<Anew>> {
    let now = app.clock.now();
    let (ring, context) = (&app.keys.sealing, context(&sealed.name));
    let secret = &sealed.secret;
    let is_over = sealed.previous_until.is_some_and(|until| until <= now);
    let previous = sealed.previous.as_ref();
    let is_old = |sealed: &Vec<u8>| ring.is_old(sealed, now);
    if !is_old(secret) && !previous.is_some_and(|previous| is_over || is_old(previous)) {
        return None;
    }
    let anew = |sealed: &Vec<u8>| {
        let open = ring.unseal(tenant, &context, sealed).ok()?;
        ring.seal(tenant, &context, &open, now).ok()
    };
    let kept = previous.filter(|_| !is_over);
    let previous = match kept.map(anew) {
        Some(None) => return Some(None),
        Some(sealed) => sealed,
        None => None,
    };
    Some(anew(secret).map(|secret| (secret, previous)))
}
