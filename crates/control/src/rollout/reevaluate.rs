//! Evaluates devices from which nothing comes: those whose verdicts depend on time, and those whose policies changed. It
//! goes page by page, in turn between tenants, and goes on where it stopped.

use muster_model::{DeviceId, TenantId};
use muster_storage::Scope;

use super::{
    ensure,
    report::{refresh_in, traits_of},
};
use crate::{
    App,
    access::{Author, problem::Problem},
    audit, compliance,
    devices::{self, DeviceFilter},
};

/// Devices of one tenant that one round evaluates because time went by.
const RECHECKS_PER_ROUND: i64 = 100;
/// Devices of one tenant that one round looks at.
const PAGE_DEVICES: usize = 200;

/// One round over every tenant. Answers how many devices were evaluated. A tenant that cannot be served holds up no other; the
/// first such problem is the answer.
pub async fn reevaluate(app: &App) -> Result<usize, Problem> {
    let (mut evaluated, mut failed) = (0, None);
    for tenant in compliance::tenants_in_turn(app).await? {
        for served in [recheck(app, tenant).await, look_at_page(app, tenant).await] {
            match served {
                Ok(count) => evaluated += count,
                Err(problem) => failed = failed.or(Some(problem)),
            }
        }
    }
    failed.map_or(Ok(evaluated), Err)
}

async fn recheck(app: &App, tenant: TenantId) -> Result<usize, Problem> {
    let now = app.clock.now();
    let due = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            compliance::rechecks(tx, tenant, now, RECHECKS_PER_ROUND)
        })
        .await?;
    evaluate(app, tenant, due).await
}

async fn look_at_page(app: &App, tenant: TenantId) -> Result<usize, Problem> {
    ensure(app, tenant).await?;
    let Some(generation) = app.activations.generation(tenant) else {
        return Ok(0);
    };
    let (work, now) = (app.clone(), app.clock.now());
    let scope = Scope::Tenant(tenant.uuid());
    let page = app
        .db
        .read(scope, move |tx| {
            let Some(pass) = compliance::next_page(tx, tenant, generation, now)? else {
                return Ok::<_, Problem>(None);
            };
            let active = DeviceFilter::parse("state:active")?;
            let devices = devices::list(tx, tenant, &active, Some(pass.after), PAGE_DEVICES)?;
            let mut stale = Vec::new();
            for device in &devices {
                let traits = traits_of(tx, tenant, device)?;
                let set = work.activations.desired(tenant, &traits, now);
                let wanted = set.as_ref().map(|set| set.digest.to_hex());
                let evaluated = compliance::evaluated_by(tx, tenant, device.id)?;
                // Who should have nothing and was never evaluated has not said anything yet.
                let is_new = evaluated.is_none() && set.is_some_and(|set| set.bundles.is_empty());
                if evaluated != wanted && !is_new {
                    stale.push(device.id);
                }
            }
            let last = devices.last().filter(|_| devices.len() == PAGE_DEVICES);
            Ok(Some((pass, stale, devices.len(), last.map(|device| device.id))))
        })
        .await?;
    let Some((pass, stale, looked_at, last)) = page else {
        return Ok(0);
    };
    let count = evaluate(app, tenant, stale).await?;
    let counts = (signed(looked_at), signed(count));
    audit::housekeeping(app, scope, move |tx| {
        compliance::page_done(tx, tenant, pass, generation, counts, last, now)
    })
    .await?;
    Ok(count)
}

/// Evaluates devices, each in its own transaction: one of a whole page would hold the rows of all of them.
async fn evaluate(app: &App, tenant: TenantId, devices: Vec<DeviceId>) -> Result<usize, Problem> {
    if devices.is_empty() {
        return Ok(0);
    }
    ensure(app, tenant).await?;
    let count = devices.len();
    for device in devices {
        let work = app.clone();
        audit::observe(app, &Author::system(tenant), move |tx| {
            refresh_in(tx, &work.activations, device)
        })
        .await?;
    }
    Ok(count)
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
