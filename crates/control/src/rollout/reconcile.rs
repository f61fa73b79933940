//! The reconciler of rollouts: completes those whose devices have answered. It takes no input and may run twice.

use muster_model::{
    RolloutId, TenantId,
    rollout::{Step, next_step},
};
use muster_storage::Scope;

use super::{Stage, change, get, reload, stage, store};
use crate::{
    App,
    access::{Author, problem::Problem},
    audit, devices,
};

/// Running rollouts that one pass looks at.
const ROLLOUTS_PER_PASS: i64 = 1000;
/// Devices that one pass marks as pending for one rollout.
const MARKED_PER_PASS: usize = 5000;

/// One pass over the running rollouts of every tenant. Answers how many were completed.
pub async fn reconcile(app: &App) -> Result<usize, Problem> {
    for tenant in app.activations.with_pauses() {
        reload(app, tenant).await?;
    }
    let running = app
        .db
        .read(Scope::System, |tx| {
            Ok::<_, Problem>(store::running(tx, ROLLOUTS_PER_PASS)?)
        })
        .await?;
    let mut completed = 0;
    for (tenant, rollout) in running {
        completed += usize::from(reconcile_one(app, tenant, rollout).await?);
    }
    Ok(completed)
}

async fn reconcile_one(app: &App, tenant: TenantId, id: RolloutId) -> Result<bool, Problem> {
    let (settings, now) = (app.settings.clone(), app.clock.now());
    let (state, progress) = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            let rollout = get(tx, tenant, id)?;
            let stage: Stage = stage(tx, tenant, &rollout, &settings, now)?;
            Ok::<_, Problem>((rollout.state, stage.progress()))
        })
        .await?;
    match next_step(state, &progress) {
        Step::Wait if progress.pending > 0 => {
            mark_pending(app, tenant, id).await?;
            Ok(false)
        }
        Step::Wait | Step::Hold => Ok(false),
        Step::Complete => {
            let settings = app.settings.clone();
            let completed = audit::commit(app, &Author::system(tenant), move |tx| {
                change::complete(tx, &settings, id)
            })
            .await?;
            if completed.is_some() {
                reload(app, tenant).await?;
            }
            Ok(completed.is_some())
        }
    }
}

/// Verdicts from before the activation are about other policies: until their devices report, they are pending.
async fn mark_pending(app: &App, tenant: TenantId, id: RolloutId) -> Result<(), Problem> {
    let scope = Scope::Tenant(tenant.uuid());
    let stale = app
        .db
        .read(scope, move |tx| {
            let rollout = get(tx, tenant, id)?;
            devices::has_stale_verdicts(tx, tenant, rollout.plan.target.filter(), rollout.created_at)
        })
        .await?;
    if stale {
        audit::housekeeping(app, scope, move |tx| {
            let rollout = get(tx, tenant, id)?;
            let filter = rollout.plan.target.filter();
            devices::mark_pending(tx, tenant, filter, rollout.created_at, MARKED_PER_PASS).map(drop)
        })
        .await?;
    }
    Ok(())
}
