//! Brings what waits in the spool to the time-series store, and ends what is over.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use muster_model::{DeviceId, TenantId};
use muster_storage::Scope;
use tokio::sync::{Notify, watch};

use super::{EVENT_RETENTION, Level, Settling, StoreError, embedded, ingest::SPOOL_TENANT_BYTES_MAX, store};
use crate::{
    App,
    access::problem::{Problem, UNAVAILABLE},
    audit, clock,
    reconcile::{Held, hold, wait},
};

/// The lease under which one node empties the spool.
pub const SETTLER_LEASE: &str = "telemetry.settler";
/// Batches that one step looks at to find the devices that are due.
const DUE_MAX: usize = 512;
/// Devices that one transaction merges.
const DEVICES_PER_STEP: usize = 32;
/// Batches of one device that one step merges.
const BATCHES_PER_DEVICE: usize = 64;
/// Rows that one step of forgetting removes, and how many steps there are in a round.
const FORGOTTEN_PER_STEP: usize = 2000;
const FORGET_STEPS_MAX: usize = 50;

/// How often telemetry is looked at that waits for its store.
const SETTLE_EVERY: Duration = Duration::from_secs(2);

/// Brings telemetry from the spool to its store: one node at a time.
pub async fn keep_settled(app: App, stop: watch::Receiver<bool>) {
    let (mut held, never) = (None::<Held>, Notify::new());
    while !*stop.borrow() {
        let step = async {
            match hold(&app, &mut held, SETTLER_LEASE).await? {
                Some(_) => settle(&app).await,
                None => Ok(false),
            }
        };
        match step.await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(problem) => {
                tracing::warn!(%problem, "telemetry waits for its store; trying again");
                held = None;
            }
        }
        wait(&stop, &never, SETTLE_EVERY).await;
    }
    if let Some(held) = held {
        let _ = app.db.release_lease(held.lease).await;
    }
}

/// Empties a part of the spool; true where there is more. Batches wait a while before they are merged into chunks, so that a
/// chunk is not written anew for each of them; another store gets them at once.
pub async fn settle(app: &App) -> Result<bool, Problem> {
    let now = app.clock.now();
    let is_embedded = app.telemetry.remote.get().is_none();
    let wait = if is_embedded && !app.telemetry.ingest.is_crowded(SPOOL_TENANT_BYTES_MAX / 4) {
        app.settings.telemetry_merge_after
    } else {
        std::time::Duration::ZERO
    };
    let due = app
        .db
        .read(Scope::System, move |tx| {
            store::spool_due(tx, now.minus(wait), DUE_MAX)
        })
        .await
        .map_err(Problem::from)?;
    let more = due.len() == DUE_MAX;
    let mut by_tenant: BTreeMap<TenantId, BTreeSet<DeviceId>> = BTreeMap::new();
    for (tenant, device) in due {
        by_tenant.entry(tenant).or_default().insert(device);
    }
    for (tenant, devices) in by_tenant {
        let devices: Vec<DeviceId> = devices.into_iter().collect();
        for part in devices.chunks(DEVICES_PER_STEP) {
            settle_devices(app, tenant, part.to_vec()).await?;
        }
    }
    Ok(more)
}

async fn settle_devices(app: &App, tenant: TenantId, devices: Vec<DeviceId>) -> Result<(), Problem> {
    let batches = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            let mut found = Vec::new();
            for device in devices {
                let mut settling = Settling::default();
                for (id, bytes) in store::spool_of(tx, tenant, device, BATCHES_PER_DEVICE)? {
                    settling.batches.push(id);
                    settling.set.absorb(embedded::readable(&bytes, device, |_| true));
                }
                found.push((device, settling));
            }
            Ok::<_, Problem>(found)
        })
        .await?;
    let ids: Vec<_> = batches
        .iter()
        .map(|(device, settling)| (*device, settling.batches.clone()))
        .collect();
    let count: usize = ids.iter().map(|(_, ids)| ids.len()).sum();
    let points: Vec<_> = batches
        .iter()
        .map(|(device, settling)| (*device, settling.set.points() as u64))
        .collect();
    let refused = match app.telemetry.store().put(tenant, batches).await {
        Ok(()) => Vec::new(),
        Err(StoreError::Refused(why)) => {
            tracing::error!(%tenant, why, "the time-series store refuses telemetry for good; it is counted as refused");
            points
        }
        Err(StoreError::Unavailable(why)) => {
            app.telemetry.metrics.settle_failures.inc();
            return Err(UNAVAILABLE
                .detail("The time-series store does not answer.")
                .caused_by(why));
        }
    };
    if app.telemetry.remote.get().is_some() || !refused.is_empty() {
        audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
            for (device, ids) in &ids {
                for id in ids {
                    store::unspool(tx, tenant, *device, *id)?;
                }
            }
            for (device, points) in &refused {
                store::refuse_points(tx, tenant, *device, *points)?;
            }
            Ok(())
        })
        .await?;
    }
    app.telemetry.ingest.forget_spooled(tenant);
    app.telemetry.metrics.settled.inc_by(count as u64);
    Ok(())
}

/// Removes what is older than its time. A reconciler's step.
pub async fn forget_expired(app: &App) -> Result<(), Problem> {
    let now = app.clock.now();
    let days = app.settings.telemetry_retention_days;
    for level in Level::ALL {
        // A span goes when its last window is over.
        let before = now.as_unix_seconds() - level.kept_seconds(days) - level.span_seconds();
        for _ in 0..FORGET_STEPS_MAX {
            let removed = audit::housekeeping(app, Scope::System, move |tx| {
                Ok(store::forget_chunks(tx, level, before, FORGOTTEN_PER_STEP)?)
            })
            .await?;
            if removed < FORGOTTEN_PER_STEP as u64 {
                break;
            }
        }
    }
    for _ in 0..FORGET_STEPS_MAX {
        let removed = audit::housekeeping(app, Scope::System, move |tx| {
            Ok(store::forget_events(
                tx,
                now.minus(EVENT_RETENTION),
                FORGOTTEN_PER_STEP,
            )?)
        })
        .await?;
        if removed < FORGOTTEN_PER_STEP as u64 {
            break;
        }
    }
    app.telemetry
        .metrics
        .under_way
        .set(i64::try_from(app.telemetry.ingest.under_way()).unwrap_or(i64::MAX));
    app.telemetry.ingest.forget_idle(clock::uptime());
    Ok(())
}
