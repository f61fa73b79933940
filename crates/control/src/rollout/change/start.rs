//! The beginning of rollouts: whom they are for, in which stages, and what becomes of those that they replace.

use std::sync::Arc;

use muster_model::{
    DeviceId, PolicyId, RolloutId, RolloutState, TenantId,
    rollout::{Membership, StagePlan, StageState, Stratum, Window, full_stage},
    text::VersionLabel,
};
use muster_storage::Tx;
use uuid::Uuid;

use super::{
    loosening::{self, Change},
    opening, record_opening, store_change, with_next_generation,
};
use crate::{
    Settings,
    access::{
        problem::{ILLEGAL_STATE, NOT_FOUND, Problem},
        visits,
    },
    audit::LoggedTx,
    clock,
    devices::{self, Held, Traits, stratum},
    groups, policy,
    rollout::{
        Rollout,
        activations::ACTIVE_POLICIES_MAX,
        objectives,
        plan::{Counts, Plan, StageRun},
        progress,
        rules::{Target, Touched},
        store,
    },
    secrets::TenantKeys,
};

/// Layers that a policy may have before an activation gathers them.
pub const LAYERS_MAX: usize = 8;
/// Devices read at a time.
const PAGE: usize = 5000;

/// What a person asks for.
#[derive(Debug, Clone)]
pub struct Order {
    pub target: Target,
    pub stages: Vec<StagePlan>,
    pub windows: Vec<Window>,
}

impl Order {
    /// The target in the stages that a rollout has when none are given.
    pub fn of(target: Target) -> Order {
        Order {
            target,
            stages: muster_model::rollout::default_stages(),
            windows: Vec::new(),
        }
    }
}

/// An order with the stage of every device.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub order: Order,
    pub membership: Membership,
}

/// What is to be started.
pub(super) struct Beginning<'a> {
    pub policy: PolicyId,
    pub version: &'a VersionLabel,
    pub prepared: Prepared,
    pub rolled_back_from: Option<RolloutId>,
    pub touched: Option<Touched>,
    pub reason: Option<String>,
}

/// Draws the stages of an order over the devices that there are. Reads every device of the target, so large tenants do this
/// before they begin to write.
pub fn prepare(tx: &mut Tx, tenant: TenantId, order: Order) -> Result<Prepared, Problem> {
    groups::require_ready(tx, tenant, order.target.named_groups())?;
    let meant = if order.stages.len() > 1 {
        meant(tx, tenant, &order)?
    } else {
        Vec::new()
    };
    Ok(drawn(order, meant))
}

/// The active devices that an order means, with their kinds.
pub fn meant(tx: &mut Tx, tenant: TenantId, order: &Order) -> Result<Vec<(DeviceId, Stratum)>, Problem> {
    let groups = groups::members_of(tx, tenant, order.target.named_groups())?;
    let mut meant = Vec::new();
    let mut after = DeviceId::from_uuid(Uuid::nil());
    loop {
        let page = devices::target_devices(tx, tenant, order.target.filter(), after, PAGE)?;
        for device in &page {
            let traits = Traits {
                device: device.id,
                stratum: stratum(
                    device.platform,
                    device.model.as_deref(),
                    device.department.as_deref(),
                )
                .into(),
                held: Held::default().into(),
                groups: groups.of(device.id),
            };
            if order.target.means(&traits) {
                meant.push((device.id, Arc::unwrap_or_clone(traits.stratum)));
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = last.id,
            Some(_) | None => return Ok(meant),
        }
    }
}

/// Draws the stages of an order over these devices.
pub fn drawn(order: Order, meant: impl IntoIterator<Item = (DeviceId, Stratum)>) -> Prepared {
    let membership = if order.stages.len() > 1 {
        let shares: Vec<u16> = order.stages.iter().map(|stage| stage.share_per_mille).collect();
        Membership::draw(u64::from_le_bytes(clock::random()), &shares, meant)
    } else {
        Membership::whole()
    };
    Prepared { order, membership }
}

/// Starts the rollout of a version: opens its first stage. The stored bundle is checked first: an edited one is refused.
pub fn activate(
    tx: &mut LoggedTx<'_>,
    keys: &TenantKeys,
    settings: &Settings,
    policy: PolicyId,
    version: &VersionLabel,
    prepared: Prepared,
) -> Result<Rollout, Problem> {
    visits::refuse_activation(tx.author())?;
    let beginning = Beginning {
        policy,
        version,
        prepared,
        rolled_back_from: None,
        touched: None,
        reason: None,
    };
    start(tx, keys, settings, beginning)
}

/// Inserts first: the unique generation makes activations of a tenant one after the other, so that what is read after it is
/// what the one before left.
pub(super) fn start(
    tx: &mut LoggedTx<'_>,
    keys: &TenantKeys,
    settings: &Settings,
    beginning: Beginning<'_>,
) -> Result<Rollout, Problem> {
    let tenant = tx.tenant();
    policy::hold(tx, beginning.policy)?;
    let version = policy::version(tx, tenant, beginning.policy, beginning.version)?;
    policy::bundle(tx, keys, &version)?;
    objectives::check_for(&beginning.prepared.order.stages, &version)?;
    let approved_by = match beginning.rolled_back_from {
        // Whether going back needs people was asked before.
        Some(_) => None,
        None => {
            let change = Change {
                policy: beginning.policy,
                version: Some(beginning.version),
                target: &beginning.prepared.order.target,
            };
            loosening::require(tx, keys, &change)?
        }
    };
    if store::count_others_current(tx, tenant, beginning.policy)? >= ACTIVE_POLICIES_MAX as u64 {
        return Err(ILLEGAL_STATE.detail(format!(
            "{ACTIVE_POLICIES_MAX} policies are active, which is the most. Roll one back, or put settings together."
        )));
    }
    let Prepared { order, membership } = beginning.prepared;
    let opening = opening(tx);
    let mut stages: Vec<StageRun> = order.stages.into_iter().map(StageRun::waiting).collect();
    if let Some(first) = stages.first_mut() {
        first.state = StageState::Open;
        first.opening = Some(opening);
    }
    let mut rollout = Rollout {
        id: RolloutId::generate(tx.at(), clock::random()),
        policy: beginning.policy,
        version: version.version,
        bundle_sha256: version.bundle_sha256,
        generation: 0,
        entry: opening.entry,
        state: RolloutState::Running,
        current: true,
        plan: Plan {
            target: order.target,
            membership: Some(membership).filter(|membership| membership.shares.len() > 1),
            stages,
            windows: order.windows,
            rolled_back_from: beginning.rolled_back_from,
            touched: beginning.touched,
            reason: beginning.reason,
            ..Plan::default()
        },
        created_by: tx.actor(),
        created_at: tx.at(),
        updated_at: tx.at(),
    };
    with_next_generation(tx, &mut rollout, opened_as(0), |tx, tenant, rollout| {
        store::insert(tx, tenant, rollout).map(|()| 1)
    })?;
    use_groups(tx, &rollout)?;
    gather(tx, keys, &mut rollout)?;
    let replaced = supersede_others(tx, settings, &rollout)?;
    let more = serde_json::json!({
        "replaces": replaced, "rolled_back_from": rollout.plan.rolled_back_from, "reason": rollout.plan.reason,
        "approved_by": approved_by,
    });
    record_opening(tx, &rollout, 0, more)?;
    Ok(rollout)
}

/// Keeps the groups that a rollout goes by from being deleted.
fn use_groups(tx: &mut LoggedTx<'_>, rollout: &Rollout) -> Result<(), Problem> {
    let (tenant, named) = (tx.tenant(), rollout.plan.named_groups().collect::<Vec<_>>());
    match groups::uses(tx, tenant, &named, &rollout.id.to_string()) {
        // What an older version was for may be gone; going back to it must be possible all the same.
        Err(problem) if problem.kind == NOT_FOUND && rollout.plan.rolled_back_from.is_some() => Ok(()),
        outcome => outcome,
    }
}

/// Puts a generation into a rollout as that of a stage's opening.
pub(super) fn opened_as(stage: usize) -> impl Fn(&mut Rollout, u64) {
    move |rollout, generation| {
        rollout.generation = generation;
        if let Some(opening) = rollout
            .plan
            .stages
            .get_mut(stage)
            .and_then(|run| run.opening.as_mut())
        {
            opening.generation = generation;
        }
    }
}

/// Ends the policy's rollouts that are still under way. Devices that have one of them keep it, until a stage of the newer
/// rollout reaches them.
fn supersede_others(
    tx: &mut LoggedTx<'_>,
    settings: &Settings,
    newer: &Rollout,
) -> Result<Vec<RolloutId>, Problem> {
    let tenant = tx.tenant();
    let mut replaced = Vec::new();
    // So that a gate's decision comes before this or after it, and not in between.
    store::hold_current(tx, tenant, newer.policy)?;
    for mut rollout in store::current_of(tx, tenant, newer.policy)? {
        if rollout.id == newer.id {
            continue;
        }
        replaced.push(rollout.id);
        let from = rollout.mark();
        match from.state {
            RolloutState::Running | RolloutState::Paused => {
                end(tx, settings, &mut rollout)?;
                rollout.state = RolloutState::Aborted;
                rollout.plan.reason = Some(format!("superseded by {}", newer.id));
                store_change(tx, &mut rollout, from)?;
            }
            RolloutState::Completed | RolloutState::RolledBack | RolloutState::Aborted => {}
        }
    }
    Ok(replaced)
}

/// Keeps the counts of a rollout that ends: later reports are about later rollouts.
pub(super) fn end(tx: &mut LoggedTx<'_>, settings: &Settings, rollout: &mut Rollout) -> Result<(), Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let (counts, _) = progress::seen(tx, tenant, rollout, settings, at)?;
    for (stage, counts) in rollout.plan.stages.iter_mut().zip(counts) {
        stage.ended = Some(counts);
    }
    rollout.plan.hold = None;
    Ok(store::forget_progress(tx, tenant, rollout.id)?)
}

/// Where more unfinished versions of a policy lie under a new rollout than may: brings every device back to the last version
/// that was completed, so that one layer is left. That takes the generation before the new rollout's.
fn gather(tx: &mut LoggedTx<'_>, keys: &TenantKeys, newer: &mut Rollout) -> Result<(), Problem> {
    let tenant = tx.tenant();
    let mut layers = store::current_of(tx, tenant, newer.policy)?;
    layers.retain(|layer| layer.id != newer.id);
    if layers.len() < LAYERS_MAX {
        return Ok(());
    }
    let good = layers
        .iter()
        .rposition(|layer| layer.state == RolloutState::Completed);
    let mut base = layers[good.unwrap_or(0)].clone();
    let version = policy::version(tx, tenant, base.policy, &base.version)?;
    policy::bundle(tx, keys, &version)?;
    let mut opening = opening(tx);
    opening.generation = newer.generation;
    base.id = RolloutId::generate(tx.at(), clock::random());
    (base.entry, base.generation, base.state) = (opening.entry, opening.generation, RolloutState::Completed);
    base.plan = Plan {
        target: base.plan.target,
        stages: vec![StageRun {
            state: StageState::Passed,
            opening: Some(opening),
            ended: Some(Counts::default()),
            ..StageRun::waiting(full_stage())
        }],
        reason: Some(format!("gathers {} unfinished versions", layers.len())),
        ..Plan::default()
    };
    (base.created_by, base.created_at, base.updated_at) = (tx.actor(), tx.at(), tx.at());
    newer.plan.gathered_generation = Some(base.generation);
    let from = newer.mark();
    with_next_generation(tx, newer, opened_as(0), |tx, tenant, rollout| {
        store::update(tx, tenant, rollout, from)
    })?;
    store::insert(tx, tenant, &base)?;
    use_groups(tx, &base)?;
    let replaced: Vec<RolloutId> = layers.iter().map(|layer| layer.id).collect();
    for layer in &mut layers {
        let from = layer.mark();
        if matches!(layer.state, RolloutState::Running | RolloutState::Paused) {
            layer.state = RolloutState::Aborted;
            layer.plan.reason = Some(format!("gathered by {}", base.id));
        }
        layer.current = false;
        store_change(tx, layer, from)?;
    }
    let more = serde_json::json!({"replaces": replaced, "reason": base.plan.reason});
    record_opening(tx, &base, 0, more)
}
