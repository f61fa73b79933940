//! The record of what gates decided: every decision that something came of, with its numbers.

use muster_model::{RolloutId, TenantId, Timestamp, gate::GateDecision};
use muster_storage::Tx;

use super::{Rollout, store};
use crate::{access::problem::Problem, audit::LoggedTx};

/// Decisions that are kept of one rollout; older ones go.
pub const DECISIONS_MAX: u64 = 200;

/// A decision as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// From 1, in their order.
    pub number: u64,
    pub at: Timestamp,
    pub made: Made,
}

/// What was decided, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    pub rollout: RolloutId,
    pub stage: String,
    pub verdict: String,
    pub method: String,
    /// `opened_next`, `completed`, `held` or `rolled_back`.
    pub action: String,
    /// Who: the system, or the person that promoted.
    pub actor: String,
    /// `GateDecision::record` as JSON.
    pub numbers: String,
}

impl Made {
    pub fn of(rollout: &Rollout, stage: usize, decision: &GateDecision, action: &str, actor: String) -> Made {
        let stage = rollout.plan.stages.get(stage);
        Made {
            rollout: rollout.id,
            stage: stage.map(|stage| stage.plan.name.clone()).unwrap_or_default(),
            verdict: decision.verdict.as_str().to_owned(),
            method: decision.method.as_str().to_owned(),
            action: action.to_owned(),
            actor,
            numbers: decision.record().to_string(),
        }
    }
}

/// Keeps a decision in the transaction of what came of it.
pub fn keep(tx: &mut LoggedTx<'_>, made: &Made) -> Result<(), Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let number = store::last_decision(tx, tenant, made.rollout)? + 1;
    store::insert_decision(tx, tenant, number, at, made)?;
    if let Some(oldest) = number.checked_sub(DECISIONS_MAX) {
        store::forget_decisions(tx, tenant, made.rollout, oldest)?;
    }
    Ok(())
}

/// A page of the decisions of a rollout, the newest first, before a number.
pub fn list(
    tx: &mut Tx,
    tenant: TenantId,
    rollout: RolloutId,
    before: u64,
    limit: usize,
) -> Result<Vec<Decision>, Problem> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    Ok(store::decisions(tx, tenant, rollout, before, limit)?)
}
