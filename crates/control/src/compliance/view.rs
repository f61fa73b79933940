//! A device's settings and verdicts as the API shows them.

use muster_model::{
    DeviceId, PolicyId, SettingReport, SettingState, Timestamp,
    compliance::ComplianceState,
    evaluate::{Gap, Outcome, Verdict},
    settings::{SettingValue, Support, definition},
    text::VersionLabel,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{ActivePolicy, Standing};

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
