//! What policies mean for a device, and whether it complies: the shared evaluator over what is stored, what devices do not
//! comply with, and what is done about it.
//!
//! This slice knows no rollout. Whoever calls it says which policies are active for the device and what it reported.
//!
//! A violation is a row for as long as it lasts: it opens and ends in the transaction that stores the verdict. The log holds
//! what people act on, and no more than [`LOGGED_PER_HOUR_MAX`] entries of one device in an hour: violations of high and
//! critical severity, devices that become noncompliant or stop being it, and every step of a ladder.

mod api;
mod incremental;
mod ladder;
mod owners;
mod remedy;
mod rules;
mod share;
mod signals;
mod standing;
mod store;
#[cfg(test)]
mod tests;
mod view;
mod work;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use muster_model::{
    DeviceId, PolicyId, TenantId, Timestamp,
    compliance::ComplianceState,
    evaluate::Evaluation,
    facts::Facts,
    report::SettingReport,
    rules::{Rule, Severity},
    settings::Settings,
    text::VersionLabel,
};
use muster_storage::{Statement, Tx};

use crate::{
    access::problem::Problem,
    devices::{self, Device},
    directory,
    groups::Known,
    signals as outside,
};
pub use api::router;
pub use incremental::is_affected;
pub use ladder::Violation;
pub use owners::follow_owners;
pub use remedy::remedy;
pub use rules::evaluate;
pub use share::{
    Level, PolicyNames, RuleShare, SharePoint, forget_expired, levels, rule_shares, sample, share_history,
};
pub use signals::follow_signals;
pub use standing::{
    Held, LOGGED_PER_HOUR_MAX, Occasion, begin, end, forget, is_report_wanted, mark_report_asked, refresh,
};
pub use view::{
    ChangeView, ComplianceSummary, DeviceComplianceView, DeviceSettingsView, PolicyRow, SettingRow,
    VerdictRow, ViolationView, device_compliance, device_settings, list_violations, summary,
};
pub use work::{Pass, broken, evaluated_by, next_page, page_done, recheck, rechecks, tenants_in_turn};

/// Every statement of this slice, for the test that prepares them all on both engines.
pub const STATEMENTS: &[Statement] = store::ALL;

/// A policy that is active for a device, as its checked bundle says it.
#[derive(Debug, Clone)]
pub struct ActivePolicy {
    pub policy: PolicyId,
    pub version: VersionLabel,
    pub generation: u64,
    pub settings: Settings,
    pub rules: Vec<Rule>,
    /// Whether its stored bundle is the one that was signed; settings and rules are empty where it is not.
    pub is_intact: bool,
}

/// What a device reported last, and whether that is about the policies that are active for it now.
#[derive(Debug, Clone, Default)]
pub struct Reported {
    pub settings: BTreeMap<String, SettingReport>,
    pub is_current: bool,
}

/// A device's standing: what the evaluator says, and the one word for lists.
#[derive(Debug, Clone)]
pub struct Standing {
    pub evaluation: Evaluation,
    /// What the device reported, as far as it is about the active policies.
    pub in_force: BTreeMap<String, SettingReport>,
    pub state: ComplianceState,
}

/// Evaluates a device from what is stored of it.
pub fn evaluate_device(
    tx: &mut Tx,
    tenant: TenantId,
    device: &Device,
    policies: &[Arc<ActivePolicy>],
    reported: &Reported,
    now: Timestamp,
) -> Result<Standing, Problem> {
    let facts: Option<Facts> = devices::facts(tx, tenant, device.id)?.map(|(facts, _)| facts);
    let labels = devices::labels(tx, tenant, device.id)?;
    let owner = directory::owner_of(tx, tenant, device)?;
    let said = outside::of_device(tx, tenant, device.id)?;
    let known = Known::of(device, facts.as_ref(), Some(&labels), owner, said);
    Ok(rules::evaluate(policies, &known.subject(), reported, now))
}

/// What a device does not comply with, with the names of the policies that ask for it.
pub fn open_violations(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    names: &mut PolicyNames,
) -> Result<Vec<(Violation, String)>, Problem> {
    let open = store::open_of(tx, tenant, device)?;
    let named = open.into_iter().map(|violation| {
        let name = names.of(tx, tenant, violation.policy)?;
        Ok((violation, name))
    });
    named.collect()
}

/// The devices that violate a rule or setting of a policy now, by what was evaluated last.
pub fn violating(
    tx: &mut Tx,
    tenant: TenantId,
    policy: PolicyId,
    subject: &str,
) -> Result<HashSet<DeviceId>, Problem> {
    Ok(store::violating(tx, tenant, policy, subject)?
        .into_iter()
        .collect())
}

/// What is stored of a device's evaluation; its row is locked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HeldRow {
    /// `None` before the first evaluation.
    state: Option<ComplianceState>,
    policies_sha256: String,
    judged_sha256: Option<Vec<u8>>,
    recheck_at: Option<Timestamp>,
    /// When a fresh report was asked for that has not come.
    report_wanted_at: Option<Timestamp>,
    /// When the device was told so.
    report_asked_at: Option<Timestamp>,
    logged_hour: i64,
    logged: i64,
}

/// A change of a device's standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    at: Timestamp,
    from: ComplianceState,
    to: ComplianceState,
}

/// How many of the judged devices violated a subject in an hour since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Share {
    policy: PolicyId,
    subject: String,
    hour: i64,
    violating: i64,
    judged: i64,
}

/// Where the background work on a tenant stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TenantRow {
    sampled_hour: i64,
    pass_generation: u64,
    pass_started_at: Timestamp,
    /// The device that the running pass looked at last.
    pass_after: Option<DeviceId>,
    pass_looked_at: i64,
    pass_evaluated: i64,
    budget_hour: i64,
    budget_used: i64,
    budget_refused: i64,
}

/// A violation with its device's name.
#[derive(Debug, Clone)]
pub struct ListedViolation {
    pub device_name: String,
    pub violation: Violation,
}

/// Which open violations to list; what is empty does not matter.
#[derive(Debug, Clone, Default)]
pub struct ViolationFilter {
    pub severity: Option<Severity>,
    pub subject: String,
    pub policy: Option<PolicyId>,
    pub only_escalated: bool,
}
