//! The reconciler of rollouts: counts those that are under way, asks their gates, and acts. It takes no input and may run
//! twice; one node runs it at a time.

use muster_model::{RolloutId, RolloutState, TenantId, gate::GateDecision, rollout::is_open};
use muster_storage::Scope;

use super::{
    Rollout, change, get,
    plan::{HoldKind, Step, next_step},
    progress::{self, Tally},
    reload, store,
};
use crate::{
    App,
    access::{self, Author, problem::Problem},
    audit, devices,
};

/// Running rollouts that one pass looks at.
const ROLLOUTS_PER_PASS: i64 = 1000;
/// Stages without devices follow each other within one pass.
const STEPS_PER_PASS: usize = 2 * muster_model::rollout::STAGES_MAX;

/// What one look at a rollout found.
struct Look {
    rollout: Rollout,
    tally: Tally,
    decisions: Vec<GateDecision>,
    step: Step,
    /// The counts that were kept before.
    kept: Option<Vec<super::Counts>>,
}

/// One pass over the running rollouts of every tenant. Answers how many steps were taken.
pub async fn reconcile(app: &App) -> Result<usize, Problem> {
    let running = app
        .db
        .read(Scope::System, |tx| {
            // Those of a suspended tenant wait: nobody reports, and that says nothing of them.
            let working = access::working_tenants(tx)?;
            let mut running = store::running(tx, ROLLOUTS_PER_PASS)?;
            running.retain(|(tenant, _)| working.contains(tenant));
            Ok::<_, Problem>(running)
        })
        .await?;
    let mut steps = 0;
    for (tenant, rollout) in running {
        // One that cannot be judged must not stop the others.
        match reconcile_one(app, tenant, rollout).await {
            Ok(taken) => steps += taken,
            Err(problem) => tracing::warn!(%problem, %rollout, "a rollout was not judged; trying again"),
        }
    }
    Ok(steps)
}

async fn reconcile_one(app: &App, tenant: TenantId, id: RolloutId) -> Result<usize, Problem> {
    for taken in 0..STEPS_PER_PASS {
        let look = look_at(app, tenant, id).await?;
        match act(app, tenant, look).await? {
            Outcome::Nothing => return Ok(taken),
            Outcome::Ended => {
                reload(app, tenant).await?;
                return Ok(taken + 1);
            }
            Outcome::Opened => reload(app, tenant).await?,
        }
    }
    Ok(STEPS_PER_PASS)
}

/// What came of a look.
enum Outcome {
    Nothing,
    /// The next stage: it may have no devices, and pass at once.
    Opened,
    /// Completed, undone, or left to a person.
    Ended,
}

async fn look_at(app: &App, tenant: TenantId, id: RolloutId) -> Result<Look, Problem> {
    let (settings, now) = (app.settings.clone(), app.clock.now());
    app.db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            let rollout = get(tx, tenant, id)?;
            let tally = progress::count(tx, tenant, &rollout, &settings, now)?;
            let decisions = progress::decisions(&rollout, &tally.stages, now);
            let step = match rollout.state {
                RolloutState::Running => {
                    next_step(&rollout.plan, &decisions, is_open(&rollout.plan.windows, now))
                }
                RolloutState::Paused
                | RolloutState::Completed
                | RolloutState::RolledBack
                | RolloutState::Aborted => Step::Wait,
            };
            let kept = store::progress(tx, tenant, id)?.map(|(stages, _)| stages);
            Ok(Look {
                rollout,
                tally,
                decisions,
                step,
                kept,
            })
        })
        .await
}

/// Does what a look found to be due.
async fn act(app: &App, tenant: TenantId, look: Look) -> Result<Outcome, Problem> {
    let Look {
        rollout,
        tally,
        decisions,
        step,
        kept,
    } = look;
    let (author, settings, id) = (Author::system(tenant), app.settings.clone(), rollout.id);
    let decision = decisions.get(rollout.plan.at_stage()).cloned();
    match (step, decision) {
        (Step::Open, Some(decision)) => {
            audit::commit(app, &author, move |tx| {
                change::open_next(tx, rollout.clone(), decision.clone())
            })
            .await?;
            Ok(Outcome::Opened)
        }
        (Step::Complete, Some(decision)) => {
            audit::commit(app, &author, move |tx| {
                // What completed it is what it ends with, also where the fleet is too large to be counted once more.
                store::put_progress(tx, tenant, id, &tally.stages, tally.at)?;
                change::complete(tx, &settings, rollout.clone(), decision.clone())
            })
            .await?;
            Ok(Outcome::Ended)
        }
        (Step::RollBack { stage }, _) => {
            if let Some(decision) = decisions.get(stage).cloned() {
                roll_back(app, tenant, rollout, (stage, decision), tally).await?;
            }
            Ok(Outcome::Ended)
        }
        (Step::Hold(kind), _) => {
            let is_held = rollout.plan.hold.as_ref().is_some_and(|hold| hold.kind == kind);
            if !is_held {
                hold(app, tenant, rollout, kind, &decisions).await?;
            }
            note(app, tenant, id, tally, kept).await?;
            Ok(if is_held { Outcome::Nothing } else { Outcome::Ended })
        }
        (Step::Wait | Step::Open | Step::Complete, _) => {
            note(app, tenant, id, tally, kept).await?;
            Ok(Outcome::Nothing)
        }
    }
}

/// Undoes a rollout whose gate failed, and says so loudly.
async fn roll_back(
    app: &App,
    tenant: TenantId,
    rollout: Rollout,
    (stage, decision): (usize, GateDecision),
    tally: Tally,
) -> Result<(), Problem> {
    use muster_model::rollout::RolloutEvent;
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let (author, settings, id) = (Author::system(tenant), app.settings.clone(), rollout.id);
    let name = rollout.plan.stages[stage].plan.name.clone();
    let reason = decision.reason.clone();
    let undone = audit::commit(app, &author, move |tx| {
        let detail = serde_json::json!({
            "policy_id": rollout.policy, "version": rollout.version, "generation": rollout.generation,
            "stage": rollout.plan.stages[stage].plan.name, "gate": decision.record(),
        });
        tx.record("rollout.gate_failed", ("rollout", rollout.id.to_string()), detail)?;
        store::put_progress(tx, tenant, rollout.id, &tally.stages, tally.at)?;
        let failed = Some((stage, decision.clone()));
        change::undo(
            tx,
            &keys,
            &settings,
            rollout.clone(),
            RolloutEvent::RollBack,
            failed,
        )
    })
    .await?;
    tracing::warn!(
        rollout = %id, stage = name, reason, replacement = ?undone.replacement.map(|replacement| replacement.id),
        "a stage failed its gate: the devices that the rollout reached go back"
    );
    Ok(())
}

async fn hold(
    app: &App,
    tenant: TenantId,
    rollout: Rollout,
    kind: HoldKind,
    decisions: &[GateDecision],
) -> Result<(), Problem> {
    use muster_model::gate::Verdict;
    let failed = decisions
        .iter()
        .position(|decision| decision.verdict == Verdict::Fail);
    let stage = failed
        .filter(|_| kind == HoldKind::Failed)
        .unwrap_or(rollout.plan.at_stage());
    let Some(decision) = decisions.get(stage).cloned() else {
        return Ok(());
    };
    let (id, reason) = (rollout.id, decision.reason.clone());
    audit::commit(app, &Author::system(tenant), move |tx| {
        change::hold(tx, rollout.clone(), stage, kind, decision.clone())
    })
    .await?;
    tracing::warn!(rollout = %id, waits_for = kind.as_str(), reason, "a rollout waits for a person");
    Ok(())
}

/// Keeps the counts for those who look, and marks verdicts that are about what was before.
async fn note(
    app: &App,
    tenant: TenantId,
    id: RolloutId,
    tally: Tally,
    kept: Option<Vec<super::Counts>>,
) -> Result<(), Problem> {
    if tally.outdated.is_empty() && kept.as_ref() == Some(&tally.stages) {
        return Ok(());
    }
    audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        // Of a rollout that ended meanwhile, nothing is kept here.
        if get(tx, tenant, id)?.state == RolloutState::Running {
            store::put_progress(tx, tenant, id, &tally.stages, tally.at)?;
            let mut opened: Vec<_> = tally.outdated.iter().map(|(_, opened)| *opened).collect();
            opened.sort_unstable();
            opened.dedup();
            for at in opened {
                let own = tally.outdated.iter().filter(|(_, opened)| *opened == at);
                let own: Vec<_> = own.map(|(device, _)| *device).collect();
                devices::mark_pending(tx, tenant, &own, at)?;
            }
        }
        Ok(())
    })
    .await
}
