//! Changes of rollouts: activation, pause, resume, abort and roll-back. Each writes its log entry in the same transaction.

use muster_model::{EntryId, PolicyId, RolloutId, RolloutState, rollout::RolloutEvent, text::VersionLabel};
use muster_storage::StorageError;

use super::{
    Rollout,
    activations::ACTIVE_POLICIES_MAX,
    rules::{self, Plan, Target},
    store,
};
use crate::{
    Settings,
    access::problem::{CONFLICT, ILLEGAL_STATE, Problem},
    audit::LoggedTx,
    clock, policy,
    secrets::TenantKeys,
};

/// How often a generation that somebody else just took is chosen anew. Each time, one of the others has won.
const TRIES_MAX: u32 = 64;

/// What became of an undone rollout: another version activated in its place, or the policy withdrawn.
#[derive(Debug, Clone)]
pub struct Undone {
    pub rollout: Rollout,
    /// The rollout that brings the earlier version back; none when there was no earlier version.
    pub replacement: Option<Rollout>,
}

/// What is to be activated.
struct Order<'a> {
    policy: PolicyId,
    version: &'a VersionLabel,
    target: Target,
    rolled_back_from: Option<RolloutId>,
}

/// Starts the rollout of a version. The stored bundle is checked first: an edited one is refused.
pub fn activate(
    tx: &mut LoggedTx<'_>,
    keys: &TenantKeys,
    settings: &Settings,
    policy: PolicyId,
    version: &VersionLabel,
    target: Target,
) -> Result<Rollout, Problem> {
    start(
        tx,
        keys,
        settings,
        Order {
            policy,
            version,
            target,
            rolled_back_from: None,
        },
    )
}

/// Stops moving devices; those that have the rollout keep it.
pub fn pause(tx: &mut LoggedTx<'_>, rollout: Rollout) -> Result<Rollout, Problem> {
    step(tx, rollout, RolloutEvent::Pause, "rollout.paused")
}

/// Goes on with a paused rollout.
pub fn resume(tx: &mut LoggedTx<'_>, rollout: Rollout) -> Result<Rollout, Problem> {
    step(tx, rollout, RolloutEvent::Resume, "rollout.resumed")
}

/// Ends a rollout (`Abort` or `RollBack`) and brings its devices back to the newest other version that was completed, or
/// to none. Generations only rise: going back is a new activation.
pub fn undo(
    tx: &mut LoggedTx<'_>,
    keys: &TenantKeys,
    settings: &Settings,
    mut rollout: Rollout,
    event: RolloutEvent,
) -> Result<Undone, Problem> {
    let from = rollout.state;
    rollout.state = rules::transition(from, event)?;
    if !rollout.current {
        return Err(ILLEGAL_STATE.detail("A newer rollout of the policy took its place. Roll that one back."));
    }
    let (tenant, at) = (tx.tenant(), tx.at());
    rollout.plan.ended = Some(super::stage(tx, tenant, &rollout, settings, at)?);
    rollout.current = false;
    rollout.updated_at = at;
    let Some(earlier) = store::completed_before(tx, tenant, &rollout)? else {
        withdraw(tx, &mut rollout, from)?;
        return Ok(Undone {
            rollout,
            replacement: None,
        });
    };
    store_change(tx, &rollout, from)?;
    let action = if event == RolloutEvent::Abort {
        "rollout.aborted"
    } else {
        "rollout.rolled_back"
    };
    let detail = serde_json::json!({
        "policy_id": rollout.policy, "version": rollout.version, "generation": rollout.generation,
        "back_to": earlier.version,
    });
    tx.record(action, ("rollout", rollout.id.to_string()), detail)?;
    let order = Order {
        policy: rollout.policy,
        version: &earlier.version,
        target: earlier.plan.target.clone(),
        rolled_back_from: Some(rollout.id),
    };
    let replacement = start(tx, keys, settings, order)?;
    Ok(Undone {
        rollout,
        replacement: Some(replacement),
    })
}

/// Ends the current rollout of a policy, and brings no earlier version back: its devices are without the policy.
pub fn take_back(
    tx: &mut LoggedTx<'_>,
    settings: &Settings,
    mut rollout: Rollout,
) -> Result<Rollout, Problem> {
    let from = rollout.state;
    rollout.state = rules::transition(from, RolloutEvent::RollBack)?;
    if !rollout.current {
        return Err(changed_meanwhile());
    }
    let (tenant, at) = (tx.tenant(), tx.at());
    rollout.plan.ended = Some(super::stage(tx, tenant, &rollout, settings, at)?);
    rollout.current = false;
    rollout.updated_at = at;
    withdraw(tx, &mut rollout, from)?;
    Ok(rollout)
}

/// Ends a running rollout whose devices all have it. `None` when it is no longer running.
pub(super) fn complete(
    tx: &mut LoggedTx<'_>,
    settings: &Settings,
    id: RolloutId,
) -> Result<Option<Rollout>, Problem> {
    use muster_model::rollout::{Step, next_step};
    let (tenant, at) = (tx.tenant(), tx.at());
    let mut rollout = super::get(tx, tenant, id)?;
    let stage = super::stage(tx, tenant, &rollout, settings, at)?;
    match next_step(rollout.state, &stage.progress()) {
        Step::Complete => {}
        Step::Wait | Step::Hold => return Ok(None),
    }
    let from = rollout.state;
    rollout.state = rules::transition(from, RolloutEvent::Complete)?;
    rollout.plan.ended = Some(stage);
    rollout.updated_at = at;
    store_change(tx, &rollout, from)?;
    // The log takes no fractions: the limit in thousandths, the ratio as its two counts.
    let gate = rules::Gate::of(&stage);
    let gate = serde_json::json!({
        "method": gate.method, "failed": gate.failed, "sample": gate.sample,
        "limit_per_mille": rules::FAILURES_PER_MILLE_MAX, "passes": gate.passes,
    });
    let detail = serde_json::json!({
        "policy_id": rollout.policy, "version": rollout.version, "generation": rollout.generation,
        "stages": [{"name": rules::STAGE, "devices": stage.devices, "verified": stage.verified,
            "failed": stage.failed, "silent": stage.silent, "gate": gate}],
    });
    tx.record("rollout.completed", ("rollout", rollout.id.to_string()), detail)?;
    Ok(Some(rollout))
}

/// Inserts first: the unique generation makes activations of a tenant one after the other, so that what is read after it is
/// what the one before left.
fn start(
    tx: &mut LoggedTx<'_>,
    keys: &TenantKeys,
    settings: &Settings,
    order: Order<'_>,
) -> Result<Rollout, Problem> {
    let tenant = tx.tenant();
    policy::hold(tx, order.policy)?;
    let version = policy::version(tx, tenant, order.policy, order.version)?;
    policy::bundle(tx, keys, &version)?;
    if store::count_others_current(tx, tenant, order.policy)? >= ACTIVE_POLICIES_MAX as u64 {
        return Err(ILLEGAL_STATE.detail(format!(
            "{ACTIVE_POLICIES_MAX} policies are active, which is the most. Roll one back, or put settings together."
        )));
    }
    let mut rollout = Rollout {
        id: RolloutId::generate(tx.at(), clock::random()),
        policy: order.policy,
        version: version.version,
        bundle_sha256: version.bundle_sha256,
        generation: 0,
        entry: EntryId::generate(tx.at(), clock::random()),
        state: RolloutState::Running,
        current: true,
        plan: Plan {
            target: order.target,
            rolled_back_from: order.rolled_back_from,
            ..Plan::default()
        },
        created_by: tx.actor(),
        created_at: tx.at(),
        updated_at: tx.at(),
    };
    with_next_generation(tx, &mut rollout, store::insert)?;
    let replaced = replace_others(tx, settings, &rollout)?;
    let detail = serde_json::json!({
        "policy_id": rollout.policy, "version": rollout.version, "bundle_sha256": rollout.bundle_sha256,
        "generation": rollout.generation, "rollout_id": rollout.id, "target": rollout.plan.target,
        "replaces": replaced, "rolled_back_from": rollout.plan.rolled_back_from,
    });
    tx.record_as(
        rollout.entry,
        "rollout.activated",
        ("rollout", rollout.id.to_string()),
        detail,
    )?;
    Ok(rollout)
}

/// Takes `current` from the policy's other rollouts; one that was still under way is thereby aborted.
fn replace_others(
    tx: &mut LoggedTx<'_>,
    settings: &Settings,
    newer: &Rollout,
) -> Result<Vec<RolloutId>, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let mut replaced = Vec::new();
    for mut rollout in store::current_of(tx, tenant, newer.policy)? {
        if rollout.id == newer.id {
            continue;
        }
        let from = rollout.state;
        match from {
            RolloutState::Running | RolloutState::Paused => {
                rollout.plan.ended = Some(super::stage(tx, tenant, &rollout, settings, at)?);
                rollout.state = RolloutState::Aborted;
            }
            RolloutState::Completed | RolloutState::RolledBack | RolloutState::Aborted => {}
        }
        rollout.current = false;
        rollout.updated_at = at;
        store_change(tx, &rollout, from)?;
        replaced.push(rollout.id);
    }
    Ok(replaced)
}

/// Takes the policy from its devices. The rollout moves to a new generation, so that what was signed before cannot come
/// back.
fn withdraw(tx: &mut LoggedTx<'_>, rollout: &mut Rollout, from: RolloutState) -> Result<(), Problem> {
    let activated = rollout.generation;
    rollout.plan.activated_generation = Some(activated);
    with_next_generation(tx, rollout, |tx, tenant, rollout| {
        store::update(tx, tenant, rollout, from).map(drop)
    })?;
    let tenant = tx.tenant();
    // An update that met no row changed nothing: somebody else was first.
    if store::rollout(tx, tenant, rollout.id)?.is_none_or(|stored| stored.generation != rollout.generation) {
        return Err(changed_meanwhile());
    }
    let detail = serde_json::json!({
        "policy_id": rollout.policy, "version": rollout.version, "rollout_id": rollout.id,
        "state": rollout.state, "activated_generation": activated, "generation": rollout.generation,
    });
    tx.record("rollout.withdrawn", ("rollout", rollout.id.to_string()), detail)
        .map(drop)
}

fn step(
    tx: &mut LoggedTx<'_>,
    mut rollout: Rollout,
    event: RolloutEvent,
    action: &'static str,
) -> Result<Rollout, Problem> {
    let from = rollout.state;
    rollout.state = rules::transition(from, event)?;
    rollout.updated_at = tx.at();
    store_change(tx, &rollout, from)?;
    let detail = serde_json::json!({
        "policy_id": rollout.policy, "version": rollout.version, "generation": rollout.generation,
    });
    tx.record(action, ("rollout", rollout.id.to_string()), detail)?;
    Ok(rollout)
}

/// Writes a row with the tenant's next generation. Two changes at once choose the same one: the later one chooses again.
fn with_next_generation(
    tx: &mut LoggedTx<'_>,
    rollout: &mut Rollout,
    write: impl Fn(&mut muster_storage::Tx, muster_model::TenantId, &Rollout) -> Result<(), StorageError>,
) -> Result<(), Problem> {
    let tenant = tx.tenant();
    for _ in 0..TRIES_MAX {
        rollout.generation = store::max_generation(tx, tenant)? + 1;
        match tx.attempt(|tx| write(tx, tenant, rollout)) {
            Ok(()) => return Ok(()),
            Err(StorageError::Unique { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(changed_meanwhile())
}

fn store_change(tx: &mut LoggedTx<'_>, rollout: &Rollout, from: RolloutState) -> Result<(), Problem> {
    let tenant = tx.tenant();
    if store::update(tx, tenant, rollout, from)? == 0 {
        Err(changed_meanwhile())
    } else {
        Ok(())
    }
}

fn changed_meanwhile() -> Problem {
    CONFLICT
        .detail("Somebody changed rollouts at the same moment. Look again and repeat.")
        .retry_after(1)
}
