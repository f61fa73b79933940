//! Rollouts: how a policy version reaches devices in stages, and what devices say of it.
//!
//! An activation is a rollout. Each of its stages is opened under the tenant's next generation, a number that only rises, and
//! with its own log entry. Which device belongs to which stage is a pure function of the plan and the device, so a rollout
//! writes no row per device; a device's own row is its last signed report. Gates (`muster_model::gate`) decide from the
//! reports whether the next stage opens.
//!
//! The rollouts of a policy lie over each other in layers (`activations`): a device takes the newest one that reaches it.
//! When the last stage has passed, what lies under it is dropped. A rollout that is undone is replaced by one that brings
//! exactly the devices that it reached back to the last good version; the others see nothing change.

mod activations;
mod api;
mod change;
mod course;
mod decisions;
mod desired;
mod objectives;
mod plan;
mod preview;
mod progress;
mod reconcile;
mod reevaluate;
mod report;
mod rules;
mod store;
#[cfg(test)]
mod tests;
mod view;

use muster_model::{
    DeviceId, EntryId, PolicyId, RolloutId, RolloutState, TenantId, Timestamp, text::VersionLabel,
};
use muster_storage::{Statement, Tx};

use crate::{
    access::problem::{NOT_FOUND, Problem},
    audit,
    secrets::TenantKeys,
};
pub use activations::{Activations, DesiredSet};
pub use api::router;
pub use change::{
    Order, PolicyChange, Prepared, Undone, Wanted as WantedChange, activate, ask_for_group, ask_people,
    ask_where_required, change_group, pause, prepare, promote, resume, take_back, undo,
};
pub use course::Course;
pub use decisions::{Decision, list as decisions_of};
pub use desired::{DESIRED_STATE_DAYS, desired_for, ensure, load, reload};
pub use objectives::check as check_objectives;
pub use plan::{Counts, Hold, HoldKind, Plan, StageRun};
pub use reconcile::reconcile;
pub use reevaluate::reevaluate;
pub use report::{
    Accepted, DevicePolicy, OpenReport, Reporter, accept_report, device_settings, held, last_report,
    last_reported, policies_of, settings_of, standing_now, take_facts, traits_of,
};
pub use rules::{ReportState, TARGET_GROUPS_MAX, Target};
pub use view::{
    DevicePage, GateView, RolloutDevice, RolloutView, SloView, StageView, Wanted, devices_of, view,
};

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
    /// Of the opening of its newest stage, or of the withdrawal that ended it.
    pub generation: u64,
    /// The log entry of its activation, the opening of its first stage.
    pub entry: EntryId,
    pub state: RolloutState,
    /// Whether it is a layer of its policy: some devices have its bundle, or should.
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
    /// The activations that it is about, as `devices::Held` writes them.
    pub bundles: Option<String>,
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

/// The newest layer of a policy, if it is active.
pub fn current_of(tx: &mut Tx, tenant: TenantId, policy: PolicyId) -> Result<Option<Rollout>, Problem> {
    Ok(store::current_of(tx, tenant, policy)?.pop())
}

/// The tenant's highest generation: activations and withdrawals take the next one, and thereby their turns.
pub fn newest_generation(tx: &mut Tx, tenant: TenantId) -> Result<u64, Problem> {
    Ok(store::max_generation(tx, tenant)?)
}

/// Every layer of every active policy of the tenant, in the order of their generation: the newest of a policy comes last.
pub fn current(tx: &mut Tx, tenant: TenantId) -> Result<Vec<Rollout>, Problem> {
    Ok(store::current(tx, tenant)?)
}

/// What breaks "a policy is off its devices only because the log says so", for the doctor.
pub fn broken(tx: &mut Tx, keys: &TenantKeys) -> Result<Vec<String>, Problem> {
    const POLICIES_MAX: i64 = 10_000;
    let mut broken = Vec::new();
    for (id, state) in store::newest_not_current(tx, keys.tenant, POLICIES_MAX)? {
        let withdrawn = audit::sealed_about(tx, keys, &id.to_string(), "rollout.withdrawn")?;
        if withdrawn.is_empty() {
            broken.push(format!(
                "{id} is {state}, devices do not have it, and the log does not say why"
            ));
        }
    }
    Ok(broken)
}

impl Rollout {
    /// The generation of its activation.
    pub fn activated_generation(&self) -> u64 {
        let first = self.plan.stages.first().and_then(|stage| stage.opening);
        first.map_or(self.generation, |opening| opening.generation)
    }

    /// The name of the stage that was opened last.
    pub fn stage_name(&self) -> &str {
        let stage = self.plan.stages.get(self.plan.at_stage());
        stage.map_or("", |stage| stage.plan.name.as_str())
    }
}
