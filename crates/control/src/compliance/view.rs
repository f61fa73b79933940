//! A device's settings and verdicts as the API shows them.

use std::collections::BTreeMap;

use muster_model::{
    DeviceId, PolicyId, SettingReport, SettingState, TenantId, Timestamp, ViolationId,
    compliance::ComplianceState,
    evaluate::{Gap, Outcome, Verdict},
    rules::Severity,
    settings::{SettingValue, Support, definition},
    text::VersionLabel,
};
use muster_storage::Tx;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    ActivePolicy, ListedViolation, RuleShare, Standing, Violation, ViolationFilter, rule_shares,
    share::PolicyNames, store,
};
use crate::{
    access::problem::{INVALID, Problem},
    devices, policy,
};

/// Rules that a summary names.
const TOP_RULES: usize = 10;
/// Resolved violations that a device shows.
const RESOLVED_SHOWN: i64 = 50;
/// Changes of its state that a device shows.
const CHANGES_SHOWN: i64 = 100;
/// The longest filter of violations.
const FILTER_CHARS_MAX: usize = 300;

/// What a device should be at, what it says it is at, and what follows.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceSettingsView {
    #[schema(value_type = String)]
    pub device_id: DeviceId,
    /// `compliant`, `noncompliant`, `unknown` or `pending`.
    #[schema(value_type = String)]
    pub compliance: ComplianceState,
    /// When the device's last signed report came.
    pub reported_at: Option<String>,
    /// Whether that report is about the policies below.
    pub is_current: bool,
    pub policies: Vec<PolicyRow>,
    pub settings: Vec<SettingRow>,
    pub verdicts: Vec<VerdictRow>,
}

/// A policy that is active for the device.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PolicyRow {
    #[schema(value_type = String)]
    pub policy_id: PolicyId,
    pub name: String,
    #[schema(value_type = String)]
    pub version: VersionLabel,
    pub generation: u64,
}

/// A setting that should be in force.
#[derive(Debug, Serialize, ToSchema)]
pub struct SettingRow {
    pub key: String,
    #[schema(value_type = Object)]
    pub value: SettingValue,
    /// The policy that decided the value.
    #[schema(value_type = String)]
    pub policy_id: PolicyId,
    /// Policies that asked for another value.
    #[schema(value_type = Vec<String>)]
    pub overruled: Vec<PolicyId>,
    /// `pending`, `applied`, `verified`, `weaker`, `not_expressible` or `failed`.
    #[schema(value_type = String)]
    pub state: SettingState,
    #[schema(value_type = Option<Object>)]
    pub observed: Option<SettingValue>,
    pub detail: Option<String>,
    /// Why the device's platform cannot carry it exactly, where that is so.
    pub gap: Option<String>,
    pub verdict: &'static str,
    pub reason: Option<String>,
}

/// The verdict on a setting or a rule.
#[derive(Debug, Serialize, ToSchema)]
pub struct VerdictRow {
    /// A setting's key or a rule's name.
    pub subject: String,
    #[schema(value_type = String)]
    pub policy_id: PolicyId,
    /// `compliant`, `noncompliant` or `unknown`.
    pub verdict: &'static str,
    pub reason: Option<String>,
}

/// Lays out a standing.
pub fn device_settings(
    device: DeviceId,
    standing: &Standing,
    policies: &[PolicyRow],
    reported_at: Option<Timestamp>,
    is_current: bool,
) -> DeviceSettingsView {
    let evaluation = &standing.evaluation;
    let settings = evaluation.state.iter().map(|(key, setting)| {
        let report = standing.in_force.get(*key);
        let verdict = evaluation.verdicts.iter().find(|verdict| verdict.subject == *key);
        let (word, reason) = verdict.map_or(("unknown", None), |verdict| outcome(&verdict.outcome));
        // Passphrases and the like stay in the bundle: whoever may read a device's state need not know them.
        let shown =
            |value: &SettingValue| definition(key).map_or_else(|| value.clone(), |def| def.redacted(value));
        SettingRow {
            key: (*key).to_owned(),
            value: shown(&setting.value),
            policy_id: setting.from,
            overruled: setting.overruled.clone(),
            state: report.map_or(SettingState::Pending, |report| report.state),
            observed: report.and_then(|report| report.observed.as_ref()).map(shown),
            detail: report.and_then(|report: &SettingReport| report.detail.clone()),
            gap: evaluation.gaps.iter().find(|gap| gap.key == *key).and_then(why),
            verdict: word,
            reason,
        }
    });
    DeviceSettingsView {
        device_id: device,
        compliance: standing.state,
        reported_at: reported_at.map(|at| at.to_string()),
        is_current,
        policies: policies.to_vec(),
        settings: settings.collect(),
        verdicts: evaluation.verdicts.iter().map(verdict_row).collect(),
    }
}

impl PolicyRow {
    pub fn of(policy: &ActivePolicy, name: String) -> PolicyRow {
        PolicyRow {
            policy_id: policy.policy,
            name,
            version: policy.version.clone(),
            generation: policy.generation,
        }
    }
}

fn verdict_row(verdict: &Verdict) -> VerdictRow {
    let (word, reason) = outcome(&verdict.outcome);
    VerdictRow {
        subject: verdict.subject.clone(),
        policy_id: verdict.from,
        verdict: word,
        reason,
    }
}

fn outcome(outcome: &Outcome) -> (&'static str, Option<String>) {
    match outcome {
        Outcome::Compliant => ("compliant", None),
        Outcome::Noncompliant { reason } => ("noncompliant", Some(reason.clone())),
        Outcome::Unknown { reason } => ("unknown", Some(reason.clone())),
    }
}

fn why(gap: &Gap) -> Option<String> {
    match gap.support {
        Support::Exact => None,
        Support::Weaker(why) | Support::NotExpressible(why) | Support::NeedsAgent(why) => {
            Some(why.to_owned())
        }
    }
}

/// Where the fleet stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct ComplianceSummary {
    /// Active devices by state.
    pub devices: BTreeMap<String, i64>,
    /// Open violations by severity: `low`, `medium`, `high`, `critical`.
    pub open_violations: BTreeMap<String, i64>,
    /// Open violations of which a ladder told the administrators.
    pub escalated: i64,
    /// The rules and settings with the most violating devices.
    pub top: Vec<RuleShare>,
}

/// Something that a device does not comply with.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ViolationView {
    #[schema(value_type = String)]
    pub id: ViolationId,
    #[schema(value_type = String)]
    pub device_id: DeviceId,
    pub device_name: String,
    #[schema(value_type = String)]
    pub policy_id: PolicyId,
    pub policy_name: String,
    /// A setting's key or a rule's name.
    pub subject: String,
    #[schema(value_type = String)]
    pub severity: Severity,
    pub reason: String,
    pub since: String,
    /// Nobody knows since then whether it goes on; its ladder stands still.
    pub unknown_since: Option<String>,
    /// Whether the rule's grace has not ended: the device is noncompliant, and no step is taken yet.
    pub in_grace: bool,
    pub grace_until: Option<String>,
    /// Steps of the rule's remediation that were taken.
    pub steps_done: u32,
    pub next_step: Option<NextStepView>,
    /// When the administrators were told.
    pub escalated_at: Option<String>,
    pub resolved_at: Option<String>,
}

/// The step of a ladder that comes next.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct NextStepView {
    /// `notify`, `message`, `reapply` or `command`.
    pub action: &'static str,
    pub at: String,
}

/// A change of a device's state.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ComplianceChangeView)]
pub struct ChangeView {
    pub at: String,
    #[schema(value_type = String)]
    pub from: ComplianceState,
    #[schema(value_type = String)]
    pub to: ComplianceState,
}

/// What a device does not comply with, and how it came there.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceComplianceView {
    #[schema(value_type = String)]
    pub device_id: DeviceId,
    /// As it is evaluated: a grace does not change it.
    #[schema(value_type = String)]
    pub compliance: ComplianceState,
    /// When the last grace ends, where every open violation is in its grace.
    pub grace_until: Option<String>,
    pub open: Vec<ViolationView>,
    /// The last ones that ended, newest first.
    pub resolved: Vec<ViolationView>,
    /// The last changes of the state, newest first.
    pub changes: Vec<ChangeView>,
}

/// Gathers where the fleet stands.
pub fn summary(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<ComplianceSummary, Problem> {
    let mut top = rule_shares(tx, tenant, now)?;
    top.retain(|rule| rule.violating > 0);
    top.truncate(TOP_RULES);
    Ok(ComplianceSummary {
        devices: devices::summary(tx, tenant)?.by_compliance,
        open_violations: store::by_severity(tx, tenant)?.into_iter().collect(),
        escalated: store::count_escalated(tx, tenant)?,
        top,
    })
}

/// What a device does not comply with, and its history.
pub fn device_compliance(
    tx: &mut Tx,
    tenant: TenantId,
    text: &str,
    now: Timestamp,
) -> Result<DeviceComplianceView, Problem> {
    let device = devices::resolve(tx, tenant, text)?;
    let found = store::open_of(tx, tenant, device.id)?;
    let ends: Option<Vec<Timestamp>> = found
        .iter()
        .map(|violation| violation.grace_until.filter(|_| violation.in_grace(now)))
        .collect();
    let (mut open, mut resolved) = (Vec::new(), Vec::new());
    let mut names = PolicyNames::default();
    for violation in found {
        open.push(view(tx, tenant, &mut names, &device.name, violation, now)?);
    }
    for violation in store::resolved_of(tx, tenant, device.id, RESOLVED_SHOWN)? {
        resolved.push(view(tx, tenant, &mut names, &device.name, violation, now)?);
    }
    let changes = store::changes_of(tx, tenant, device.id, CHANGES_SHOWN)?;
    Ok(DeviceComplianceView {
        device_id: device.id,
        compliance: device.compliance,
        grace_until: ends
            .and_then(|ends| ends.into_iter().max())
            .map(|at| at.to_string()),
        open,
        resolved,
        changes: changes
            .into_iter()
            .map(|change| ChangeView {
                at: change.at.to_string(),
                from: change.from,
                to: change.to,
            })
            .collect(),
    })
}

/// A page of open violations, newest first, before `before`.
pub fn list_violations(
    tx: &mut Tx,
    tenant: TenantId,
    filter: &str,
    before: Option<ViolationId>,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<ViolationView>, Problem> {
    let filter = read_filter(tx, tenant, filter)?;
    let before = before.unwrap_or(ViolationId::from_uuid(uuid::Uuid::max()));
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let listed = store::list_open(tx, tenant, &filter, before, limit)?;
    let mut names = PolicyNames::default();
    let views = listed.into_iter().map(|listed| {
        let ListedViolation {
            device_name,
            violation,
        } = listed;
        view(tx, tenant, &mut names, &device_name, violation, now)
    });
    views.collect()
}

/// Reads `severity:high policy:baseline escalated:yes subject:"disk is encrypted"`.
fn read_filter(tx: &mut Tx, tenant: TenantId, filter: &str) -> Result<ViolationFilter, Problem> {
    if filter.chars().count() > FILTER_CHARS_MAX {
        return Err(INVALID.detail("The filter is longer than 300 characters."));
    }
    let mut read = ViolationFilter::default();
    for term in devices::terms(filter) {
        match term.split_once(':') {
            Some(("severity", word)) => {
                let severity = Severity::parse(word);
                read.severity = Some(
                    severity
                        .ok_or_else(|| INVALID.detail("severity: is one of low, medium, high, critical."))?,
                );
            }
            Some(("policy", name)) => read.policy = Some(policy::resolve(tx, tenant, name)?.id),
            Some(("subject", subject)) => subject.clone_into(&mut read.subject),
            Some(("escalated", "yes")) => read.only_escalated = true,
            _ => {
                return Err(INVALID.detail(
                    "Write severity:high, policy:NAME, subject:\"RULE OR SETTING\" or escalated:yes.",
                ));
            }
        }
    }
    Ok(read)
}

fn view(
    tx: &mut Tx,
    tenant: TenantId,
    names: &mut PolicyNames,
    device_name: &str,
    violation: Violation,
    now: Timestamp,
) -> Result<ViolationView, Problem> {
    let text = |at: Option<Timestamp>| at.map(|at| at.to_string());
    let place = usize::try_from(violation.steps_done).unwrap_or(usize::MAX);
    let ladder = violation.remediation.as_ref();
    let next = ladder.and_then(|ladder| ladder.steps.get(place));
    Ok(ViolationView {
        id: violation.id,
        device_id: violation.device,
        device_name: device_name.to_owned(),
        policy_id: violation.policy,
        policy_name: names.of(tx, tenant, violation.policy)?,
        severity: violation.severity,
        since: violation.since.to_string(),
        unknown_since: text(violation.unknown_since),
        in_grace: violation.in_grace(now),
        grace_until: text(violation.grace_until),
        steps_done: violation.steps_done,
        next_step: next.zip(violation.next_at).map(|(step, at)| NextStepView {
            action: step.action.as_str(),
            at: at.to_string(),
        }),
        escalated_at: text(violation.escalated_at),
        resolved_at: text(violation.resolved_at),
        subject: violation.subject,
        reason: violation.reason,
    })
}
