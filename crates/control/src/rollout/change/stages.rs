//! Stages: opened, held, passed by a person, and the end of a rollout that went well.

use muster_model::{
    RolloutState,
    gate::GateDecision,
    rollout::{RolloutEvent, StageState},
};

use super::{opening, record_opening, start, store_change, with_next_generation};
use crate::{
    Settings,
    access::problem::{ILLEGAL_STATE, Problem},
    audit::LoggedTx,
    rollout::{
        Rollout,
        decisions::{self, Made},
        plan::{Hold, HoldKind},
        progress, rules, store,
    },
};

/// Opens the next stage, under the tenant's next generation and with its own log entry, because the one before passed.
pub(in crate::rollout) fn open_next(
    tx: &mut LoggedTx<'_>,
    mut rollout: Rollout,
    decision: GateDecision,
) -> Result<Rollout, Problem> {
    let from = rollout.mark();
    let at = rollout.plan.at_stage();
    let made = Made::of(&rollout, at, &decision, "opened_next", tx.actor());
    let record = decision.record();
    pass(&mut rollout, at, decision);
    let next = at + 1;
    let opening = opening(tx);
    let Some(stage) = rollout.plan.stages.get_mut(next) else {
        return Err(Problem::internal("there is no stage after the last one"));
    };
    stage.state = StageState::Open;
    stage.opening = Some(opening);
    rollout.updated_at = tx
        .at()
        .max(from.updated_at.plus(std::time::Duration::from_micros(1)));
    with_next_generation(tx, &mut rollout, start::opened_as(next), |tx, tenant, rollout| {
        store::update(tx, tenant, rollout, from)
    })?;
    decisions::keep(tx, &made)?;
    record_opening(tx, &rollout, next, serde_json::json!({"gate": record}))?;
    Ok(rollout)
}

/// Ends a rollout whose last stage passed. What lay under it is no longer needed, unless it was about some devices only.
pub(in crate::rollout) fn complete(
    tx: &mut LoggedTx<'_>,
    settings: &Settings,
    mut rollout: Rollout,
    decision: GateDecision,
) -> Result<Rollout, Problem> {
    let from = rollout.mark();
    rollout.state = rules::transition(from.state, RolloutEvent::Complete)?;
    let at = rollout.plan.at_stage();
    let made = Made::of(&rollout, at, &decision, "completed", tx.actor());
    pass(&mut rollout, at, decision);
    start::end(tx, settings, &mut rollout)?;
    store_change(tx, &mut rollout, from)?;
    if rollout.plan.touched.is_none() {
        let tenant = tx.tenant();
        for mut layer in store::current_of(tx, tenant, rollout.policy)? {
            if layer.generation < rollout.generation {
                let from = layer.mark();
                layer.current = false;
                store_change(tx, &mut layer, from)?;
            }
        }
    }
    decisions::keep(tx, &made)?;
    let stages: Vec<_> = rollout.plan.stages.iter().map(stage_record).collect();
    let detail = serde_json::json!({
        "policy_id": rollout.policy, "version": rollout.version, "generation": rollout.generation, "stages": stages,
    });
    tx.record("rollout.completed", ("rollout", rollout.id.to_string()), detail)?;
    Ok(rollout)
}

/// Leaves the decision to a person, and says so once.
pub(in crate::rollout) fn hold(
    tx: &mut LoggedTx<'_>,
    mut rollout: Rollout,
    stage: usize,
    kind: HoldKind,
    decision: GateDecision,
) -> Result<Rollout, Problem> {
    let from = rollout.mark();
    let made = Made::of(&rollout, stage, &decision, "held", tx.actor());
    let action = match kind {
        HoldKind::Promotion => "rollout.stage_passed",
        HoldKind::Inconclusive => "rollout.gate_inconclusive",
        HoldKind::Failed => "rollout.gate_failed",
    };
    rollout.plan.hold = Some(Hold {
        kind,
        reason: decision.reason.clone(),
    });
    let detail = serde_json::json!({
        "policy_id": rollout.policy, "version": rollout.version, "generation": rollout.generation,
        "stage": rollout.plan.stages[stage].plan.name, "gate": decision.record(),
    });
    let run = &mut rollout.plan.stages[stage];
    run.state = match kind {
        HoldKind::Promotion => StageState::Passed,
        HoldKind::Inconclusive => run.state,
        HoldKind::Failed => StageState::Failed,
    };
    run.decision = Some(decision);
    store_change(tx, &mut rollout, from)?;
    decisions::keep(tx, &made)?;
    tx.record(action, ("rollout", rollout.id.to_string()), detail)?;
    Ok(rollout)
}

/// A person lets a rollout go on that waits for one: to the next stage, or to its end.
pub fn promote(tx: &mut LoggedTx<'_>, settings: &Settings, mut rollout: Rollout) -> Result<Rollout, Problem> {
    if rollout.state != RolloutState::Running {
        return Err(ILLEGAL_STATE.detail(format!(
            "A rollout that is {} cannot be promoted; only a running one can be.",
            rollout.state.as_str()
        )));
    }
    let Some(hold) = rollout.plan.hold.clone() else {
        return Err(ILLEGAL_STATE.detail(
            "The rollout does not wait for a person. A stage that passes its gate opens the next one by itself, or waits \
             to be promoted where its promotion is manual.",
        ));
    };
    let (tenant, at) = (tx.tenant(), tx.at());
    let stage = rollout.plan.at_stage();
    let (counts, _) = progress::seen(tx, tenant, &rollout, settings, at)?;
    let decision = progress::decisions(&rollout, &counts, at).into_iter().nth(stage);
    let decision = decision.ok_or_else(|| Problem::internal("no stage of the rollout is open"))?;
    let detail = serde_json::json!({
        "policy_id": rollout.policy, "version": rollout.version, "generation": rollout.generation,
        "stage": rollout.stage_name(), "waited_for": hold.kind.as_str(), "gate": decision.record(),
    });
    tx.record("rollout.promoted", ("rollout", rollout.id.to_string()), detail)?;
    rollout.plan.hold = None;
    for run in rollout
        .plan
        .stages
        .iter_mut()
        .filter(|run| run.state == StageState::Failed)
    {
        run.accepted = true;
        run.state = StageState::Passed;
    }
    if rollout.plan.is_fully_open() {
        complete(tx, settings, rollout, decision)
    } else {
        open_next(tx, rollout, decision)
    }
}

fn pass(rollout: &mut Rollout, stage: usize, decision: GateDecision) {
    rollout.plan.hold = None;
    if let Some(run) = rollout.plan.stages.get_mut(stage) {
        run.state = StageState::Passed;
        run.decision = Some(decision);
    }
}

fn stage_record(run: &crate::rollout::plan::StageRun) -> serde_json::Value {
    let counts = run.ended.clone().unwrap_or_default();
    serde_json::json!({
        "name": run.plan.name, "devices": counts.devices, "verified": counts.verified, "failed": counts.failed,
        "silent": counts.silent, "gate": run.decision.as_ref().map(GateDecision::record),
    })
}
