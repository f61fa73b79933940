//! Undoing a rollout: exactly the devices that it reached go back to the last version that was good.

use muster_model::{
    RolloutState,
    gate::{GateDecision, OnFailure},
    rollout::{Membership, RolloutEvent, StageState, full_stage},
};

use super::{
    Mark,
    loosening::{self, Change},
    start::{Beginning, Order, Prepared, end, start},
    store_change, with_next_generation,
};
use crate::{
    Settings,
    access::problem::{ILLEGAL_STATE, Problem},
    audit::LoggedTx,
    groups,
    rollout::{
        Rollout,
        decisions::{self, Made},
        rules::{self, Target},
        store,
    },
    secrets::TenantKeys,
};

/// What became of an undone rollout: another version activated in its place, or the policy withdrawn.
#[derive(Debug, Clone)]
pub struct Undone {
    pub rollout: Rollout,
    /// The rollout that brings the earlier version back; none when there was no earlier version.
    pub replacement: Option<Rollout>,
}

/// Ends a rollout (`Abort` or `RollBack`) and brings the devices that it reached back to the newest other version that was
/// completed, or to none. Generations only rise: going back is a new activation. `failed` is the stage whose gate says so.
pub fn undo(
    tx: &mut LoggedTx<'_>,
    keys: &TenantKeys,
    settings: &Settings,
    mut rollout: Rollout,
    event: RolloutEvent,
    failed: Option<(usize, GateDecision)>,
) -> Result<Undone, Problem> {
    let from = rollout.mark();
    rollout.state = rules::transition(from.state, event)?;
    let layers = layers_under(tx, &rollout)?;
    if failed.is_none() && loosening::is_settled(from.state, from.updated_at, tx.at()) {
        let earlier = last_good(tx, &rollout, &layers)?;
        loosening::require(tx, keys, &back_to(&rollout, earlier.as_ref()))?;
    }
    let gate = failed.as_ref().map(|(_, decision)| decision.record());
    let touched = Some(rollout.plan.reached())
        .filter(|_| from.state != RolloutState::Completed || rollout.plan.touched.is_some());
    end(tx, settings, &mut rollout)?;
    fail(tx, &mut rollout, failed)?;
    rollout.current = false;
    let Some(earlier) = last_good(tx, &rollout, &layers)? else {
        withdraw(tx, &mut rollout, from, layers, gate)?;
        return Ok(Undone {
            rollout,
            replacement: None,
        });
    };
    store_change(tx, &mut rollout, from)?;
    let action = if event == RolloutEvent::Abort {
        "rollout.aborted"
    } else {
        "rollout.rolled_back"
    };
    let detail = serde_json::json!({
        "policy_id": rollout.policy, "version": rollout.version, "generation": rollout.generation,
        "back_to": earlier.version, "stage": rollout.stage_name(), "reason": rollout.plan.reason, "gate": gate,
    });
    tx.record(action, ("rollout", rollout.id.to_string()), detail)?;
    let mut stage = full_stage();
    stage.gate.on_failure = OnFailure::Hold;
    let beginning = Beginning {
        policy: rollout.policy,
        version: &earlier.version,
        prepared: Prepared {
            order: Order {
                target: earlier.plan.target.clone(),
                stages: vec![stage],
                windows: Vec::new(),
            },
            membership: Membership::whole(),
        },
        rolled_back_from: Some(rollout.id),
        touched,
        reason: Some(format!("undoes {}", rollout.id)),
    };
    let replacement = start(tx, keys, settings, beginning)?;
    Ok(Undone {
        rollout,
        replacement: Some(replacement),
    })
}

/// Ends the newest rollout of a policy, and brings no earlier version back: its devices are without the policy.
pub fn take_back(
    tx: &mut LoggedTx<'_>,
    keys: &TenantKeys,
    settings: &Settings,
    mut rollout: Rollout,
) -> Result<Rollout, Problem> {
    loosening::require(tx, keys, &back_to(&rollout, None))?;
    let from = rollout.mark();
    rollout.state = rules::transition(from.state, RolloutEvent::RollBack)?;
    let layers = layers_under(tx, &rollout)?;
    end(tx, settings, &mut rollout)?;
    rollout.current = false;
    withdraw(tx, &mut rollout, from, layers, None)?;
    Ok(rollout)
}

/// What it is for the policy to go back from a rollout.
fn back_to<'a>(rollout: &'a Rollout, earlier: Option<&'a Rollout>) -> Change<'a> {
    Change {
        policy: rollout.policy,
        version: earlier.map(|earlier| &earlier.version),
        target: earlier.map_or(&rollout.plan.target, |earlier| &earlier.plan.target),
    }
}

/// What undoing a settled rollout would come to, for those who are asked to approve it: the version to go back to.
pub(super) fn goes_back_to(
    tx: &mut LoggedTx<'_>,
    rollout: &Rollout,
) -> Result<Option<(muster_model::text::VersionLabel, Target)>, Problem> {
    let layers = layers_under(tx, rollout)?;
    let earlier = last_good(tx, rollout, &layers)?;
    Ok(earlier.map(|earlier| (earlier.version, earlier.plan.target)))
}

/// The other layers of the policy, the newest first. One that a newer rollout lies over is not undone.
fn layers_under(tx: &mut LoggedTx<'_>, rollout: &Rollout) -> Result<Vec<Rollout>, Problem> {
    let tenant = tx.tenant();
    let mut layers = store::current_of(tx, tenant, rollout.policy)?;
    layers.reverse();
    let is_newest = layers.first().is_some_and(|newest| newest.id == rollout.id);
    if !is_newest {
        return Err(ILLEGAL_STATE.detail("A newer rollout of the policy took its place. Roll that one back."));
    }
    layers.remove(0);
    Ok(layers)
}

/// The version to go back to: the newest other one that was completed; failing that, one that never failed.
fn last_good(
    tx: &mut LoggedTx<'_>,
    rollout: &Rollout,
    layers: &[Rollout],
) -> Result<Option<Rollout>, Problem> {
    let mut others = layers
        .iter()
        .filter(|layer| layer.bundle_sha256 != rollout.bundle_sha256);
    if let Some(good) = others
        .clone()
        .find(|layer| layer.state == RolloutState::Completed)
    {
        return Ok(Some(good.clone()));
    }
    let tenant = tx.tenant();
    if let Some(completed) = store::completed_before(tx, tenant, rollout)? {
        return Ok(Some(completed));
    }
    Ok(others.next().cloned())
}

fn fail(
    tx: &mut LoggedTx<'_>,
    rollout: &mut Rollout,
    failed: Option<(usize, GateDecision)>,
) -> Result<(), Problem> {
    let Some((stage, decision)) = failed else {
        return Ok(());
    };
    let made = Made::of(rollout, stage, &decision, "rolled_back", tx.actor());
    decisions::keep(tx, &made)?;
    let run = &mut rollout.plan.stages[stage];
    rollout.plan.reason = Some(format!("stage {}: {}", run.plan.name, decision.reason));
    run.state = StageState::Failed;
    run.decision = Some(decision);
    Ok(())
}

/// Takes the policy from its devices: no version of it was ever good. The rollout moves to a new generation, so that what
/// was signed before cannot come back.
fn withdraw(
    tx: &mut LoggedTx<'_>,
    rollout: &mut Rollout,
    from: Mark,
    layers: Vec<Rollout>,
    gate: Option<serde_json::Value>,
) -> Result<(), Problem> {
    let activated = from.generation;
    rollout.plan.activated_generation = Some(activated);
    rollout.updated_at = tx
        .at()
        .max(from.updated_at.plus(std::time::Duration::from_micros(1)));
    let take = |rollout: &mut Rollout, generation| rollout.generation = generation;
    with_next_generation(tx, rollout, take, |tx, tenant, rollout| {
        store::update(tx, tenant, rollout, from)
    })?;
    let tenant = tx.tenant();
    groups::let_go(tx, tenant, &rollout.id.to_string())?;
    for mut layer in layers {
        let from = layer.mark();
        layer.current = false;
        store_change(tx, &mut layer, from)?;
    }
    let detail = serde_json::json!({
        "policy_id": rollout.policy, "version": rollout.version, "rollout_id": rollout.id,
        "state": rollout.state, "activated_generation": activated, "generation": rollout.generation,
        "stage": rollout.stage_name(), "reason": rollout.plan.reason, "gate": gate,
    });
    tx.record("rollout.withdrawn", ("rollout", rollout.id.to_string()), detail)
        .map(drop)
}
