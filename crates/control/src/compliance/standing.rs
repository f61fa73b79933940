//! Storing a verdict: the device's state, its violations, its history, and the entries that people act on.

use std::sync::Arc;

use muster_model::{ComplianceState, DeviceId, PolicyId, TenantId, Timestamp, ViolationId, rules::Severity};
use muster_storage::Tx;
use muster_trust::key::{Digest, sha256};

use super::{
    ActivePolicy, Change, HeldRow, Reported, Standing, Violation, evaluate_device, incremental,
    ladder::{self, Judged, Step, Verdicts},
    store,
};
use crate::{
    App,
    access::problem::Problem,
    audit::{self, LoggedTx},
    clock,
    devices::{self, Device, DeviceState},
};

/// Entries that the verdicts on one device write in an hour; the table has the rest. A device that goes to and fro without
/// end must not fill a log that keeps everything.
pub const LOGGED_PER_HOUR_MAX: i64 = 32;
/// Resolved violations that are kept of one device.
pub const RESOLVED_PER_DEVICE_MAX: i64 = 256;
/// Changes of its state that are kept of one device.
pub const CHANGES_PER_DEVICE_MAX: i64 = 256;
/// Changes among which the last certain state is looked for.
const CERTAIN_WITHIN: i64 = 8;
/// From this severity on a violation is logged.
const LOGGED_FROM: Severity = Severity::High;

/// A device whose row is locked: what is read of it now is newer than what any finished evaluation read. Only [`begin`]
/// makes one.
#[derive(Debug)]
pub struct Held {
    tenant: TenantId,
    device: DeviceId,
    row: HeldRow,
}

/// Why a device is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// It sent a report.
    Report,
    /// Something else that verdicts depend on changed: facts, policies, time.
    Change,
}

impl Held {
    /// Whether the stored verdict is by these policies and no time has come to ask again.
    pub fn is_fresh(&self, policies: &Digest, now: Timestamp) -> bool {
        self.row.state.is_some()
            && self.row.policies_sha256 == policies.to_hex()
            && self.row.recheck_at.is_none_or(|at| at > now)
    }
}

/// Takes a device's turn: to be called before anything is read that the verdict depends on.
pub fn begin(tx: &mut Tx, tenant: TenantId, device: DeviceId, now: Timestamp) -> Result<Held, Problem> {
    let row = store::begin_device(tx, tenant, device, now)?;
    Ok(Held { tenant, device, row })
}

/// Evaluates a device and stores the verdict with all that follows from it. `digest` names the policies.
pub fn refresh(
    tx: &mut LoggedTx<'_>,
    held: Held,
    device: &Device,
    digest: &Digest,
    policies: &[Arc<ActivePolicy>],
    reported: &Reported,
    occasion: Occasion,
) -> Result<Standing, Problem> {
    let (tenant, now) = (held.tenant, tx.at());
    let standing = evaluate_device(tx, tenant, device, policies, reported, now)?;
    devices::set_compliance(tx, tenant, device.id, standing.state, now)?;
    if device.state != DeviceState::Active {
        drop_all(tx, tenant, device.id, now)?;
        return Ok(standing);
    }
    let verdicts = ladder::verdicts(&standing.evaluation, policies);
    let mut row = held.row.clone();
    // Before the rules, so that however many break at once leave room for it in the log.
    note_change(tx, device, standing.state, &mut row)?;
    settle(tx, tenant, held.device, &verdicts, &mut row)?;
    row.policies_sha256 = digest.to_hex();
    row.recheck_at = incremental::recheck_at(policies, now);
    if occasion == Occasion::Report && row.report_asked_at.is_some() {
        (row.report_wanted_at, row.report_asked_at) = (None, None);
    }
    let subjects = judged_subjects(&verdicts)?;
    let judged = sha256(subjects.as_bytes()).as_bytes().to_vec();
    if row.judged_sha256.as_ref() != Some(&judged) {
        store::use_judged(tx, tenant, &judged, &subjects, now)?;
        row.judged_sha256 = Some(judged);
    }
    if row != held.row {
        store::save_device(tx, tenant, held.device, &row)?;
    }
    Ok(standing)
}

/// Ends everything that is open about a device, which stops being active in this transaction.
pub fn end(tx: &mut LoggedTx<'_>, device: DeviceId) -> Result<(), Problem> {
    let (tenant, now) = (tx.tenant(), tx.at());
    begin(tx, tenant, device, now)?;
    drop_all(tx, tenant, device, now)
}

/// Ends everything that is open about a device that is active no more. Does nothing about one that is.
pub async fn forget(app: &App, tenant: TenantId, device: DeviceId) -> Result<(), Problem> {
    let now = app.clock.now();
    let scope = muster_storage::Scope::Tenant(tenant.uuid());
    audit::housekeeping(app, scope, move |tx| {
        begin(tx, tenant, device, now)?;
        if devices::get(tx, tenant, device)?.state == DeviceState::Active {
            return Ok(());
        }
        drop_all(tx, tenant, device, now)
    })
    .await
}

/// Whether the device is to put its settings in force again and report.
pub fn is_report_wanted(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<bool, Problem> {
    Ok(store::is_report_wanted(tx, tenant, device)?)
}

/// The device is told so now: its next report answers it.
pub async fn mark_report_asked(app: &App, tenant: TenantId, device: DeviceId) -> Result<(), Problem> {
    let now = app.clock.now();
    let scope = muster_storage::Scope::Tenant(tenant.uuid());
    audit::housekeeping(app, scope, move |tx| {
        store::report_asked(tx, tenant, device, now)?;
        Ok(())
    })
    .await
}

fn drop_all(tx: &mut Tx, tenant: TenantId, device: DeviceId, now: Timestamp) -> Result<(), Problem> {
    store::resolve_all(tx, tenant, device, now)?;
    store::trim_resolved(tx, tenant, device, RESOLVED_PER_DEVICE_MAX)?;
    store::forget_device(tx, tenant, device)?;
    Ok(())
}

/// Opens, updates and ends violations by the verdicts.
fn settle(
    tx: &mut LoggedTx<'_>,
    tenant: TenantId,
    device: DeviceId,
    verdicts: &Verdicts,
    row: &mut HeldRow,
) -> Result<(), Problem> {
    let now = tx.at();
    let open = store::open_of(tx, tenant, device)?;
    let mut resolved = 0;
    for step in ladder::compare(open, verdicts, now) {
        match step {
            Step::Open(policy, subject, found) => {
                let id = ViolationId::generate(now, clock::random());
                let violation = ladder::begin(id, device, policy, subject, &found, now);
                store::open_violation(tx, tenant, &violation)?;
                log_violation(tx, &violation, row, "compliance.violated")?;
            }
            Step::Update(violation) => {
                store::update_violation(tx, tenant, &violation)?;
            }
            Step::Resolve(violation) => {
                resolved += store::resolve(tx, tenant, violation.id, now)?;
                log_violation(tx, &violation, row, "compliance.resolved")?;
            }
        }
    }
    if resolved > 0 {
        store::trim_resolved(tx, tenant, device, RESOLVED_PER_DEVICE_MAX)?;
    }
    Ok(())
}

fn note_change(
    tx: &mut LoggedTx<'_>,
    device: &Device,
    to: ComplianceState,
    row: &mut HeldRow,
) -> Result<(), Problem> {
    let tenant = tx.tenant();
    let from = row.state.replace(to).unwrap_or(device.compliance);
    if from == to {
        return Ok(());
    }
    let change = Change {
        at: tx.at(),
        from,
        to,
    };
    let is_back = to == ComplianceState::Compliant && was_noncompliant(tx, tenant, device)?;
    let id = ViolationId::generate(change.at, clock::random()).uuid();
    store::put_change(tx, tenant, id, device.id, &change)?;
    store::trim_changes(tx, tenant, device.id, CHANGES_PER_DEVICE_MAX)?;
    let matters = is_back || [from, to].contains(&ComplianceState::Noncompliant);
    if matters && may_log(row, change.at) {
        tx.record(
            "compliance.changed",
            ("device", device.id.to_string()),
            serde_json::json!({"from": from, "to": to}),
        )?;
    }
    Ok(())
}

/// Whether the last that was certain of a device is that it did not comply: whoever was told so waits to hear otherwise.
fn was_noncompliant(tx: &mut Tx, tenant: TenantId, device: &Device) -> Result<bool, Problem> {
    let changes = store::changes_of(tx, tenant, device.id, CERTAIN_WITHIN)?;
    let certain = changes
        .into_iter()
        .map(|change| change.to)
        .find(|to| matches!(to, ComplianceState::Compliant | ComplianceState::Noncompliant));
    Ok(certain == Some(ComplianceState::Noncompliant))
}

fn log_violation(
    tx: &mut LoggedTx<'_>,
    violation: &Violation,
    row: &mut HeldRow,
    action: &'static str,
) -> Result<(), Problem> {
    if violation.severity < LOGGED_FROM || !may_log(row, tx.at()) {
        return Ok(());
    }
    tx.record(
        action,
        ("device", violation.device.to_string()),
        serde_json::json!({
            "violation_id": violation.id,
            "policy_id": violation.policy,
            "subject": violation.subject,
            "severity": violation.severity,
            "since": violation.since,
        }),
    )?;
    Ok(())
}

fn may_log(row: &mut HeldRow, now: Timestamp) -> bool {
    let hour = super::share::hour_of(now);
    if row.logged_hour != hour {
        (row.logged_hour, row.logged) = (hour, 0);
    }
    let may = row.logged < LOGGED_PER_HOUR_MAX;
    row.logged += i64::from(may);
    may
}

/// The subjects with a verdict other than "unknown", in their order.
fn judged_subjects(verdicts: &Verdicts) -> Result<String, Problem> {
    let judged: Vec<(PolicyId, &str)> = verdicts
        .iter()
        .filter(|(_, judged)| **judged != Judged::Unknown)
        .map(|((policy, subject), _)| (*policy, subject.as_str()))
        .collect();
    serde_json::to_string(&judged).map_err(Problem::internal)
}
