//! Changes of rollouts. Each writes its log entry in the same transaction.
//!
//! Here: what they share, and what a person does to one that is under way. `start` makes rollouts, `stages` opens their
//! stages and ends them, `undo` takes them back.

mod loosening;
mod stages;
mod start;
mod undo;

use muster_model::{EntryId, RolloutState, TenantId, Timestamp, rollout::RolloutEvent};
use muster_storage::StorageError;

use super::{Rollout, plan::StageOpening, rules, store};
use crate::{
    access::problem::{CONFLICT, Problem},
    audit::LoggedTx,
    clock, groups,
};
pub use loosening::{
    Change as PolicyChange, Wanted, ask_for_group, ask_people, ask_where_required, change_group,
};
pub use stages::promote;
pub(super) use stages::{complete, hold, open_next};
pub use start::{Order, Prepared, activate, prepare};
pub(super) use start::{drawn, meant};
pub use undo::{Undone, take_back, undo};

/// How often a generation that somebody else just took is chosen anew. Each time, one of the others has won.
const TRIES_MAX: u32 = 64;

/// What a rollout was when it was read: a change of anything else is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub state: RolloutState,
    pub updated_at: Timestamp,
    pub generation: u64,
}

impl Rollout {
    /// To be taken before a change.
    pub fn mark(&self) -> Mark {
        Mark {
            state: self.state,
            updated_at: self.updated_at,
            generation: self.generation,
        }
    }
}

/// Stops moving devices; those that have the rollout keep it.
pub fn pause(tx: &mut LoggedTx<'_>, rollout: Rollout) -> Result<Rollout, Problem> {
    step(tx, rollout, RolloutEvent::Pause, "rollout.paused")
}

/// Goes on with a paused rollout.
pub fn resume(tx: &mut LoggedTx<'_>, mut rollout: Rollout) -> Result<Rollout, Problem> {
    rollout.plan.resumed_at = Some(tx.at());
    step(tx, rollout, RolloutEvent::Resume, "rollout.resumed")
}

fn step(
    tx: &mut LoggedTx<'_>,
    mut rollout: Rollout,
    event: RolloutEvent,
    action: &'static str,
) -> Result<Rollout, Problem> {
    let from = rollout.mark();
    rollout.state = rules::transition(from.state, event)?;
    store_change(tx, &mut rollout, from)?;
    let detail = serde_json::json!({
        "policy_id": rollout.policy, "version": rollout.version, "generation": rollout.generation,
        "stage": rollout.stage_name(),
    });
    tx.record(action, ("rollout", rollout.id.to_string()), detail)?;
    Ok(rollout)
}

/// Writes the log entry that devices want proved before they take the bundle of a stage.
fn record_opening(
    tx: &mut LoggedTx<'_>,
    rollout: &Rollout,
    stage: usize,
    more: serde_json::Value,
) -> Result<(), Problem> {
    let run = &rollout.plan.stages[stage];
    let opening = run
        .opening
        .ok_or_else(|| Problem::internal("a stage is recorded before it was opened"))?;
    let membership = rollout.plan.membership();
    let mut detail = serde_json::json!({
        "policy_id": rollout.policy, "version": rollout.version, "bundle_sha256": rollout.bundle_sha256,
        "generation": opening.generation, "rollout_id": rollout.id, "target": rollout.plan.target,
        "stage": run.plan.name, "stage_index": stage, "stages": rollout.plan.stages.len(),
        "share_per_mille": run.plan.share_per_mille,
        "membership_sha256": muster_trust::key::sha256(
            serde_json::to_string(&membership).map_err(Problem::internal)?.as_bytes(),
        ),
    });
    if let (Some(detail), serde_json::Value::Object(more)) = (detail.as_object_mut(), more) {
        detail.extend(more);
    }
    let object = ("rollout", rollout.id.to_string());
    tx.record_as(opening.entry, "rollout.activated", object, detail)
        .map(drop)
}

/// An opening under a generation that is still to be taken.
fn opening(tx: &LoggedTx<'_>) -> StageOpening {
    StageOpening {
        generation: 0,
        entry: EntryId::generate(tx.at(), clock::random()),
        at: tx.at(),
    }
}

/// Writes a row with the tenant's next generation, which `take` puts into the rollout. Two changes at once choose the same
/// one: the later one chooses again.
fn with_next_generation(
    tx: &mut LoggedTx<'_>,
    rollout: &mut Rollout,
    take: impl Fn(&mut Rollout, u64),
    write: impl Fn(&mut muster_storage::Tx, TenantId, &Rollout) -> Result<u64, StorageError>,
) -> Result<(), Problem> {
    let tenant = tx.tenant();
    for _ in 0..TRIES_MAX {
        take(rollout, store::max_generation(tx, tenant)? + 1);
        match tx.attempt(|tx| write(tx, tenant, rollout)) {
            // An update that met no row: somebody else was first.
            Ok(0) => return Err(changed_meanwhile()),
            Ok(_) => return Ok(()),
            Err(StorageError::Unique { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(changed_meanwhile())
}

fn store_change(tx: &mut LoggedTx<'_>, rollout: &mut Rollout, from: Mark) -> Result<(), Problem> {
    let tenant = tx.tenant();
    // The time is the mark of a change, so it always moves.
    rollout.updated_at = tx
        .at()
        .max(from.updated_at.plus(std::time::Duration::from_micros(1)));
    if store::update(tx, tenant, rollout, from)? == 0 {
        return Err(changed_meanwhile());
    }
    if rollout.current {
        Ok(())
    } else {
        groups::let_go(tx, tenant, &rollout.id.to_string())
    }
}

fn changed_meanwhile() -> Problem {
    CONFLICT
        .detail("Somebody changed rollouts at the same moment. Look again and repeat.")
        .retry_after(1)
}
