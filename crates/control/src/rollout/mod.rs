//! Rollouts: how a policy version reaches devices, and what devices say of it.
//!
//! An activation is a rollout with the tenant's next generation, a number that only rises. A policy applies to exactly the
//! target of its current rollout. What a device should be at is a pure function of the current rollouts and the device, so
//! a rollout writes no row per device; a device's own row is its last signed report.
//!
//! While a rollout is paused, devices that have reported it keep it, and its other devices are held at the generation
//! before it: later activations reach them when it is resumed, aborted or replaced. Aborting or rolling back activates the
//! newest completed other version of the policy anew, or withdraws the policy where there is none.

mod activations;
mod api;
mod change;
mod desired;
mod reconcile;
mod report;
mod rules;
mod store;
#[cfg(test)]
mod tests;

use muster_model::{
    DeviceId, EntryId, PolicyId, RolloutId, RolloutState, TenantId, Timestamp, text::VersionLabel,
};
use muster_storage::{Statement, Tx};

use crate::{
    Settings,
    access::problem::{NOT_FOUND, Problem},
    devices,
};
pub use activations::{Activations, DesiredSet};
pub use api::{RolloutView, StageView, router, view};
pub use change::{Undone, activate, pause, resume, undo};
pub use desired::{DESIRED_STATE_DAYS, desired_for, ensure, load, reload};
pub use reconcile::reconcile;
pub use report::{
    Accepted, DevicePolicy, OpenReport, Reporter, accept_report, device_settings, last_report, last_reported,
    policies_of, refresh, settings_of,
};
pub use rules::{Gate, Plan, ReportState, Stage, Target};

/// Every statement of this slice, for the test that prepares them all on both engines.
pub const STATEMENTS: &[Statement] = store::ALL;

/// A rollout as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    pub id: RolloutId,
    pub policy: PolicyId,
    pub version: VersionLabel,
    /// Lower hex.
    pub bundle_sha256: String,
    /// Of its activation, or of the withdrawal that ended it.
    pub generation: u64,
    /// The log entry of its activation, which devices want proved.
    pub entry: EntryId,
    pub state: RolloutState,
    /// Whether its bundle is what its target should have.
    pub current: bool,
    pub plan: Plan,
    pub created_by: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A device's last report as stored. `settings` and `verdicts` are JSON, `envelope` is the signed statement (DSSE).
#[derive(Debug, Clone)]
pub struct Report {
    pub device: DeviceId,
    pub epoch: u32,
    pub generation: u64,
    pub state_digest: String,
    pub state: ReportState,
    pub settings: String,
    pub verdicts: String,
    pub envelope: String,
    pub reported_at: Timestamp,
}

/// The rollout with this id.
pub fn get(tx: &mut Tx, tenant: TenantId, id: RolloutId) -> Result<Rollout, Problem> {
    store::rollout(tx, tenant, id)?.ok_or_else(|| NOT_FOUND.detail("There is no such rollout."))
}

/// A page of rollouts, newest first, before `before`, at most `limit`.
pub fn list(
    tx: &mut Tx,
    tenant: TenantId,
    before: Option<RolloutId>,
    limit: usize,
) -> Result<Vec<Rollout>, Problem> {
    let before = before.unwrap_or(RolloutId::from_uuid(uuid::Uuid::max()));
    Ok(store::rollouts(
        tx,
        tenant,
        before,
        i64::try_from(limit).unwrap_or(i64::MAX),
    )?)
}

/// The current rollout of a policy, if it is active.
pub fn current_of(tx: &mut Tx, tenant: TenantId, policy: PolicyId) -> Result<Option<Rollout>, Problem> {
    Ok(store::current_of(tx, tenant, policy)?.pop())
}

/// The tenant's highest generation: activations and withdrawals take the next one, and thereby their turns.
pub fn newest_generation(tx: &mut Tx, tenant: TenantId) -> Result<u64, Problem> {
    Ok(store::max_generation(tx, tenant)?)
}

/// Every current rollout of the tenant, at most one for each active policy, in the order of their generation.
pub fn current(tx: &mut Tx, tenant: TenantId) -> Result<Vec<Rollout>, Problem> {
    Ok(store::current(tx, tenant)?)
}

/// The counts of a rollout's stage: as they are, or as they were when it ended.
pub fn stage(
    tx: &mut Tx,
    tenant: TenantId,
    rollout: &Rollout,
    settings: &Settings,
    now: Timestamp,
) -> Result<Stage, Problem> {
    if let Some(ended) = rollout.plan.ended {
        return Ok(ended);
    }
    let silence = std::time::Duration::from_secs(settings.silent_after_seconds);
    let enrolled_by = silent_since(rollout, silence, now);
    let filter = rollout.plan.target.filter();
    let progress = devices::target_progress(tx, tenant, filter, rollout.generation, enrolled_by)?;
    Ok(Stage::of(&progress))
}

/// Devices enrolled up to this time are overdue without a report: nobody, while the rollout is younger than that itself.
/// A rollout that was resumed is as young as its resumption.
fn silent_since(rollout: &Rollout, silence: std::time::Duration, now: Timestamp) -> Timestamp {
    if now.since(rollout.updated_at) < silence {
        Timestamp::from_micros(i64::MIN)
    } else {
        now.minus(silence)
    }
}
