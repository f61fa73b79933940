//! Background work, fair between tenants: which devices to look at again though nothing came from them.

use muster_model::{DeviceId, TenantId, Timestamp};
use muster_storage::{Scope, Tx};
use std::time::Duration;

use super::{TenantRow, store};
use crate::{App, access, access::problem::Problem, audit};

/// Even where no policy changed, every device is looked at this often: whatever a rollout, a label or a group did without a
/// word reaches the verdicts.
pub const PASS_EVERY: Duration = Duration::from_secs(6 * 3600);
/// Orphans that the doctor names.
const ORPHANS_MAX: i64 = 1000;

/// A pass over a tenant's devices that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// The device that was looked at last; nil at the beginning.
    pub after: DeviceId,
}

/// Every tenant at work, the one that was served longest ago first.
pub async fn tenants_in_turn(app: &App) -> Result<Vec<TenantId>, Problem> {
    app.db
        .read(Scope::System, |tx| {
            let served: std::collections::HashMap<TenantId, Timestamp> =
                store::served(tx)?.into_iter().collect();
            let mut tenants = access::working_tenants(tx)?;
            tenants.sort_by_key(|tenant| served.get(tenant).copied());
            Ok(tenants)
        })
        .await
}

/// Devices of a tenant whose verdicts may have changed by time alone, the longest due first.
pub fn rechecks(tx: &mut Tx, tenant: TenantId, now: Timestamp, limit: i64) -> Result<Vec<DeviceId>, Problem> {
    Ok(store::rechecks(tx, tenant, now, limit)?)
}

/// Has a device evaluated soon, or all of a tenant's: labels changed, and rules may read them.
pub async fn recheck(app: &App, tenant: TenantId, device: Option<DeviceId>) -> Result<(), Problem> {
    let now = app.clock.now();
    audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        match device {
            Some(device) => store::recheck_device(tx, tenant, device, now)?,
            None => store::recheck_all(tx, tenant, now)?,
        };
        Ok(())
    })
    .await
}

/// The digest of the policies that a device was evaluated by last, if it was evaluated.
pub fn evaluated_by(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<Option<String>, Problem> {
    Ok(store::evaluated_by(tx, tenant, device)?)
}

/// Where to go on with the pass over a tenant's devices; `None` where none is needed. One begins with a new generation, and
/// now and then.
pub fn next_page(
    tx: &mut Tx,
    tenant: TenantId,
    generation: u64,
    now: Timestamp,
) -> Result<Option<Pass>, Problem> {
    let Some(row) = store::tenant(tx, tenant)? else {
        return Ok(Some(Pass { after: nil() }));
    };
    let goes_on = row.pass_after.map(|after| Pass { after });
    let begins = row.pass_generation != generation || now.since(row.pass_started_at) >= PASS_EVERY;
    Ok(goes_on.or(begins.then(|| Pass { after: nil() })))
}

/// Notes that a page of a pass was looked at: `last` is its last device, `None` where the pass is over. Of two nodes that
/// looked at the same page, the second changes nothing.
pub fn page_done(
    tx: &mut Tx,
    tenant: TenantId,
    pass: Pass,
    generation: u64,
    (looked_at, evaluated): (i64, i64),
    last: Option<DeviceId>,
    now: Timestamp,
) -> Result<(), Problem> {
    let mut row: TenantRow = store::begin_tenant(tx, tenant, now)?;
    if row.pass_after.unwrap_or(nil()) != pass.after {
        return Ok(());
    }
    if row.pass_after.is_none() {
        // What is activated while the pass runs makes another one.
        (row.pass_generation, row.pass_started_at) = (generation, now);
        (row.pass_looked_at, row.pass_evaluated) = (0, 0);
    }
    row.pass_looked_at += looked_at;
    row.pass_evaluated += evaluated;
    row.pass_after = last;
    store::save_tenant(tx, tenant, &row)?;
    Ok(())
}

/// What breaks "an open violation belongs to an active device and a known policy", for the doctor.
pub fn broken(tx: &mut Tx, tenant: TenantId) -> Result<Vec<String>, Problem> {
    let orphans = store::orphans(tx, tenant, ORPHANS_MAX)?;
    let broken = orphans.into_iter().map(|(violation, device, state, policy)| {
        if policy.is_empty() {
            format!("{violation} of {device} is about a policy that does not exist")
        } else {
            format!("{violation} is open, and {device} is {state}")
        }
    });
    Ok(broken.collect())
}

fn nil() -> DeviceId {
    DeviceId::from_uuid(uuid::Uuid::nil())
}
