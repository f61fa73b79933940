//! From the stored rollouts to what devices are told: the tenant's view, and the signed statement for one device.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use muster_model::{DeviceId, EntryId, PolicyId, RolloutState, TenantId};
use muster_storage::{Scope, Tx};
use muster_trust::{
    dsse::Envelope,
    key::Digest,
    statement::{self, DesiredBundle, DesiredStateStatement},
};

use super::{
    DesiredSet, Rollout,
    activations::{Layer, Opening, Pile, View},
    store,
};
use crate::{
    App,
    access::{self, problem::Problem},
    compliance::ActivePolicy,
    policy,
    secrets::TenantKeys,
};

/// How long a signed desired state may be taken up.
pub const DESIRED_STATE_DAYS: u64 = 7;

/// Reads the views of all tenants. Called once at start.
pub async fn load(app: &App) -> Result<(), Problem> {
    let tenants = app.db.read(Scope::System, access::tenants).await?;
    for (tenant, _) in tenants {
        reload(app, tenant).await?;
    }
    Ok(())
}

/// Reads a tenant's view again: after a change of its rollouts here or on another node.
pub async fn reload(app: &App, tenant: TenantId) -> Result<(), Problem> {
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let ticket = app.activations.ticket();
    let view = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| read_view(tx, &keys))
        .await?;
    app.activations.learn(tenant, ticket, view);
    Ok(())
}

/// Reads a tenant's view if that has not been done.
pub async fn ensure(app: &App, tenant: TenantId) -> Result<(), Problem> {
    if app.activations.knows(tenant) {
        Ok(())
    } else {
        reload(app, tenant).await
    }
}

/// Signs what one device should be at. Also answers the activation entries whose inclusion the device wants proved, in the
/// order of the bundles.
pub fn desired_for(
    app: &App,
    tenant: TenantId,
    device: DeviceId,
    epoch: u32,
    set: &DesiredSet,
) -> Result<(Envelope, Vec<EntryId>), Problem> {
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let now = app.clock.now();
    let statement = DesiredStateStatement {
        tenant,
        device_id: device,
        epoch,
        generation: set.generation,
        bundles: set.bundles.clone(),
        issued_at: now,
        expires_at: now.plus(Duration::from_secs(DESIRED_STATE_DAYS * 86_400)),
    };
    let envelope = statement::sign(&statement, &[&keys.action]).map_err(Problem::internal)?;
    Ok((
        envelope,
        set.bundles.iter().map(|bundle| bundle.activation_entry).collect(),
    ))
}

fn read_view(tx: &mut Tx, keys: &TenantKeys) -> Result<View, Problem> {
    let tenant = keys.tenant;
    let generation = store::max_generation(tx, tenant)?;
    let mut piles: BTreeMap<PolicyId, Vec<Layer>> = BTreeMap::new();
    // Newest first in each policy.
    for rollout in store::current(tx, tenant)?.iter().rev() {
        let layer = layer(tx, keys, rollout)?;
        piles.entry(rollout.policy).or_default().push(layer);
    }
    let policies = piles.into_iter().map(|(policy, layers)| Pile { policy, layers });
    Ok(View {
        generation,
        policies: policies.collect(),
    })
}

/// A rollout as the view needs it. A bundle that was edited in the database stays what its rollout says, so that devices
/// refuse it, and nobody is called compliant with it.
fn layer(tx: &mut Tx, keys: &TenantKeys, rollout: &Rollout) -> Result<Layer, Problem> {
    let opened = match policy::open(tx, keys, rollout.policy, &rollout.version) {
        Ok(opened) => Some(opened),
        Err(problem) if problem.kind.status == 500 || problem.kind.status == 503 => return Err(problem),
        Err(problem) => {
            tracing::error!(rollout = %rollout.id, %problem, "the bundle of an active rollout cannot be read");
            None
        }
    };
    let sha256: Digest = rollout.bundle_sha256.parse().map_err(Problem::internal)?;
    let is_intact = opened.is_some();
    let (settings, rules) = opened
        .map(|opened| (opened.settings, opened.rules))
        .unwrap_or_default();
    let plan = &rollout.plan;
    let openings = plan.stages.iter().map_while(|stage| stage.opening);
    let openings = openings.map(|opening| Opening {
        bundle: DesiredBundle {
            policy_id: rollout.policy,
            version: rollout.version.clone(),
            sha256,
            generation: opening.generation,
            activation_entry: opening.entry,
        },
        policy: Arc::new(ActivePolicy {
            policy: rollout.policy,
            version: rollout.version.clone(),
            generation: opening.generation,
            settings: settings.clone(),
            rules: rules.clone(),
            is_intact,
        }),
    });
    Ok(Layer {
        target: Arc::new(plan.target.clone()),
        touched: plan.touched.clone().map(Arc::new),
        membership: Arc::new(plan.membership()),
        openings: openings.collect(),
        is_closed: matches!(
            rollout.state,
            RolloutState::Paused | RolloutState::Aborted | RolloutState::RolledBack
        ),
        windows: plan.windows.clone().into(),
    })
}
