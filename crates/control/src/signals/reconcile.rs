//! What signals do by themselves: say whose devices are to be looked at, and forget.

use std::time::Duration;

use muster_model::{DeviceId, SignalSourceId, TenantId, Timestamp};
use muster_storage::{Scope, Tx};
use uuid::Uuid;

use super::{
    ARRIVALS_MAX, MESSAGE_AGE_MAX, SEEN_MAX, UNMATCHED_MAX, keys,
    store::{self, DueRow},
};
use crate::{App, access, access::problem::Problem, audit};

/// How long what arrived is shown, and subjects without a device.
const SHOWN_FOR: Duration = Duration::from_secs(7 * 86_400);
const UNMATCHED_FOR: Duration = Duration::from_secs(30 * 86_400);
/// How long what was said is kept: longer than anything counts.
const SAID_FOR: Duration = Duration::from_secs(180 * 86_400);
const FORGOTTEN_PER_PASS: i64 = 5_000;
const DELETED_AT_ONCE: i64 = 8;

/// A device that is to be evaluated: what is said of it changed, got too old, or counts no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    pub tenant: TenantId,
    pub device: DeviceId,
    row: Option<DueRow>,
    gone: Option<SignalSourceId>,
}

/// Devices that are due, at most `limit` for each reason.
pub fn due(tx: &mut Tx, now: Timestamp, limit: i64) -> Result<Vec<Due>, Problem> {
    let rows = store::due(tx, now, limit)?.into_iter().map(|row| Due {
        tenant: row.tenant,
        device: row.device,
        row: Some(row),
        gone: None,
    });
    let mut found: Vec<Due> = rows.collect();
    for (tenant, source) in store::deleted(tx, DELETED_AT_ONCE)? {
        let devices = store::said_by(tx, tenant, source, limit)?.into_iter();
        found.extend(devices.map(|device| Due {
            tenant,
            device,
            row: None,
            gone: Some(source),
        }));
    }
    Ok(found)
}

/// The device was looked at, as it was when it was due.
pub fn followed(tx: &mut Tx, due: &Due, now: Timestamp) -> Result<(), Problem> {
    if let Some(source) = due.gone {
        store::drop_said(tx, due.tenant, due.device, source)?;
    }
    if let Some(row) = &due.row {
        let of_source = super::store::said(tx, row.tenant, row.device, row.source)?;
        let max_age = store::max_age(tx, row.tenant, row.source)?;
        let next = of_source
            .zip(max_age)
            .and_then(|(said, max_age)| said.signal(max_age).ends_next(now));
        store::followed(tx, row, next)?;
    }
    Ok(())
}

/// Forgets what is old or too much, and keeps the keys. A reconciler's step.
pub async fn forget_expired(app: &App) -> Result<(), Problem> {
    keys::keep_keys(app).await?;
    let now = app.clock.now();
    for (tenant, _) in app.db.read(Scope::System, access::tenants).await? {
        let scope = Scope::Tenant(tenant.uuid());
        audit::housekeeping(app, scope, move |tx| {
            store::forget_arrivals(tx, tenant, before(now.minus(SHOWN_FOR)), ARRIVALS_MAX)?;
            Ok(())
        })
        .await?;
        let sources = app
            .db
            .read(scope, move |tx| Ok::<_, Problem>(store::sources(tx, tenant)?))
            .await?;
        for source in sources {
            let id = source.id;
            audit::housekeeping(app, scope, move |tx| {
                // A token may be ahead by what clocks differ.
                let seen = now.minus(MESSAGE_AGE_MAX + Duration::from_secs(600));
                store::forget_seen(tx, tenant, id, seen, SEEN_MAX)?;
                store::forget_unmatched(tx, tenant, id, now.minus(UNMATCHED_FOR), UNMATCHED_MAX)?;
                store::forget_said(tx, tenant, id, now.minus(SAID_FOR), FORGOTTEN_PER_PASS)?;
                Ok(())
            })
            .await?;
        }
    }
    let deleted = app
        .db
        .read(Scope::System, |tx| {
            Ok::<_, Problem>(store::deleted(tx, DELETED_AT_ONCE)?)
        })
        .await?;
    for (tenant, source) in deleted {
        audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
            store::forget_seen(tx, tenant, source, now, 0)?;
            store::forget_unmatched(tx, tenant, source, now, 0)?;
            // Its last statement goes first: devices follow that.
            if store::said_by(tx, tenant, source, 1)?.is_empty() {
                store::drop_source(tx, tenant, source)?;
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// The first id of a time.
fn before(at: Timestamp) -> Uuid {
    let millis = u64::try_from(at.as_micros() / 1000).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
}
