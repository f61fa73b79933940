//! Devices follow what sources outside say of them.

use std::collections::BTreeMap;

use muster_model::{DeviceId, TenantId};
use muster_storage::Scope;

use super::recheck;
use crate::{
    App,
    access::problem::Problem,
    audit,
    devices::changes::{self, Changes},
    groups,
    signals::{self, Due},
};

/// Devices that one call looks at, for each reason.
const DEVICES_PER_CALL: i64 = 500;
/// Devices of one transaction.
const DEVICES_AT_ONCE: usize = 50;

/// Evaluates the groups of devices of which something else is said now, and has their compliance looked at. Answers whether
/// there is more to do at once.
pub async fn follow_signals(app: &App) -> Result<bool, Problem> {
    let now = app.clock.now();
    let due = app
        .db
        .read(Scope::System, move |tx| signals::due(tx, now, DEVICES_PER_CALL))
        .await?;
    let is_full = due.len() >= usize::try_from(DEVICES_PER_CALL).unwrap_or(usize::MAX);
    let mut by_tenant: BTreeMap<TenantId, Vec<Due>> = BTreeMap::new();
    for due in due {
        by_tenant.entry(due.tenant).or_default().push(due);
    }
    for (tenant, due) in by_tenant {
        for some in due.chunks(DEVICES_AT_ONCE) {
            follow(app, tenant, some).await?;
        }
    }
    Ok(is_full)
}

async fn follow(app: &App, tenant: TenantId, due: &[Due]) -> Result<(), Problem> {
    let (shared, some, now) = (app.clone(), due.to_vec(), app.clock.now());
    let moves = audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        // In one order, as every transaction holds several.
        let mut devices: Vec<DeviceId> = some.iter().map(|due| due.device).collect();
        devices.sort_unstable();
        devices.dedup();
        for device in &devices {
            changes::mark(tx, tenant, *device, Changes::LABELS)?;
        }
        for due in &some {
            signals::followed(tx, due, now)?;
        }
        groups::settle(&shared, tx, tenant, &devices, now)
    })
    .await?;
    groups::note(app, &moves);
    for due in due {
        recheck(app, tenant, Some(due.device)).await?;
    }
    Ok(())
}
