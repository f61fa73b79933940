//! An answer as the API shows it.

use muster_model::{
    ComplianceState, DeviceId, Platform, PolicyId,
    evaluate::Overruled,
    settings::{MergeRule, Reversal, SettingValue, definition},
    text::VersionLabel,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    rules::{Hypothesis, Reason, SettingChange},
    tally::{Class, Example, SettingTally, Tally},
};

/// What would become of the fleet. Nothing was stored.
#[derive(Debug, Serialize, ToSchema)]
pub struct WhatIfView {
    #[schema(value_type = String)]
    pub policy_id: PolicyId,
    pub policy_name: String,
    /// The version that was asked about; absent for settings that are no version yet, and for a withdrawal.
    #[schema(value_type = Option<String>)]
    pub version: Option<VersionLabel>,
    /// The version that is in force now.
    #[schema(value_type = Option<String>)]
    pub active_version: Option<VersionLabel>,
    pub withdraw: bool,
    pub asked_at: String,
    pub progress: ProgressView,
    pub counts: CountsView,
    /// Settings whose effective value changes on some device, by key.
    pub settings: Vec<SettingChangesView>,
    /// How well platforms carry what the version asks for, on the devices that would get it.
    pub support: Vec<PlatformSupportView>,
    /// Where the version and other active policies want different things of the same device.
    pub conflicts: Vec<PolicyConflictView>,
    /// Devices in further conflicts than those that are listed.
    pub other_conflicts: u64,
    /// Settings of which something stays when the rollout is undone.
    pub lasting: Vec<LastingView>,
    pub examples: ExamplesView,
}

/// How far the question got.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WhatIfProgressView)]
pub struct ProgressView {
    /// Active devices of the tenant.
    pub devices_total: u64,
    /// Devices that this answer counts.
    pub devices: u64,
    /// Whether devices are left: then ask again with `next_cursor` as `cursor`, and add the answers up.
    pub truncated: bool,
    #[schema(value_type = Option<String>)]
    pub next_cursor: Option<DeviceId>,
}

/// Devices by what would become of them.
#[derive(Debug, Serialize, ToSchema)]
pub struct CountsView {
    pub devices_in_target: u64,
    /// Devices that do not have the policy and would.
    pub gain_policy: u64,
    /// Devices that have the policy and would not any more.
    pub lose_policy: u64,
    /// Devices on which some setting gets another effective value.
    pub settings_change: u64,
    pub become_noncompliant: u64,
    pub become_compliant: u64,
    pub become_unknown: u64,
    /// Devices that have the policy or would have it, by what they are and would be.
    pub transitions: Vec<TransitionView>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct TransitionView {
    #[schema(value_type = String)]
    pub now: ComplianceState,
    #[schema(value_type = String)]
    pub then: ComplianceState,
    pub devices: u64,
}

/// A setting that changes.
#[derive(Debug, Serialize, ToSchema)]
pub struct SettingChangesView {
    pub key: &'static str,
    pub devices: u64,
    pub changes: Vec<ValueChangeView>,
    /// Devices that change between further values than those that are listed.
    pub other_devices: u64,
}

/// From one value to another. An absent value: no policy asks for the setting.
#[derive(Debug, Serialize, ToSchema)]
pub struct ValueChangeView {
    #[schema(value_type = Option<Object>)]
    pub from: Option<SettingValue>,
    #[schema(value_type = Option<Object>)]
    pub to: Option<SettingValue>,
    pub devices: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct PlatformSupportView {
    pub key: &'static str,
    #[schema(value_type = String)]
    pub platform: Platform,
    /// `exact`, `weaker`, `not_expressible` or `needs_agent`.
    pub support: &'static str,
    /// Empty where it is exact.
    pub why: &'static str,
    pub devices: u64,
}

/// Policies that want different things. Secrets are redacted.
#[derive(Debug, Serialize, ToSchema)]
pub struct PolicyConflictView {
    pub key: &'static str,
    /// How it is decided, for example `highest`.
    #[schema(value_type = String)]
    pub rule: MergeRule,
    #[schema(value_type = String)]
    pub winner: PolicyId,
    pub winner_name: String,
    #[schema(value_type = Object)]
    pub value: SettingValue,
    pub overruled: Vec<OverruledView>,
    pub devices: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct OverruledView {
    #[schema(value_type = String)]
    pub policy_id: PolicyId,
    pub name: String,
    #[schema(value_type = Object)]
    pub value: SettingValue,
}

/// A setting of which something stays when it is taken back.
#[derive(Debug, Serialize, ToSchema)]
pub struct LastingView {
    pub key: &'static str,
    /// `stays_until_changed` or `irreversible`, and `why`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub reversal: Reversal,
    /// Devices on which it gets another value.
    pub devices: u64,
}

/// Some devices by name: those with the lowest ids.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct ExamplesView {
    pub changes: Vec<DeviceChangeView>,
    pub become_noncompliant: Vec<DeviceChangeView>,
    pub become_compliant: Vec<DeviceChangeView>,
    pub become_unknown: Vec<DeviceChangeView>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceChangeView {
    #[schema(value_type = String)]
    pub device_id: DeviceId,
    pub name: String,
    #[schema(value_type = String)]
    pub platform: Platform,
    #[schema(value_type = String)]
    pub now: ComplianceState,
    #[schema(value_type = String)]
    pub then: ComplianceState,
    pub settings: Vec<DeviceSettingChangeView>,
    pub reasons: Vec<ReasonView>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceSettingChangeView {
    pub key: &'static str,
    #[schema(value_type = Option<Object>)]
    pub from: Option<SettingValue>,
    #[schema(value_type = Option<Object>)]
    pub to: Option<SettingValue>,
}

/// A setting or rule that makes the difference.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReasonView {
    pub subject: String,
    pub why: String,
}

impl CountsView {
    pub fn of(tally: &Tally) -> CountsView {
        let transition =
            |((now, then), devices): (&(ComplianceState, ComplianceState), &u64)| TransitionView {
                now: *now,
                then: *then,
                devices: *devices,
            };
        CountsView {
            devices_in_target: tally.targeted,
            gain_policy: tally.gain,
            lose_policy: tally.lose,
            settings_change: tally.change,
            become_noncompliant: tally.becoming(ComplianceState::Noncompliant),
            become_compliant: tally.becoming(ComplianceState::Compliant),
            become_unknown: tally.becoming(ComplianceState::Unknown),
            transitions: tally.transitions.iter().map(transition).collect(),
        }
    }
}

/// The settings of a tally, by key.
pub fn settings(tally: &Tally) -> Vec<SettingChangesView> {
    let view = |(key, setting): (&&'static str, &SettingTally)| SettingChangesView {
        key,
        devices: setting.devices,
        changes: setting
            .pairs
            .iter()
            .map(|((from, to), devices)| ValueChangeView {
                from: from.clone(),
                to: to.clone(),
                devices: *devices,
            })
            .collect(),
        other_devices: setting.other,
    };
    tally.settings.iter().map(view).collect()
}

pub fn support(tally: &Tally) -> Vec<PlatformSupportView> {
    let rows = tally.support.iter();
    rows.map(|((key, platform, support, why), devices)| PlatformSupportView {
        key,
        platform: *platform,
        support,
        why,
        devices: *devices,
    })
    .collect()
}

/// What stays of the settings that the hypothesis asks for or takes away.
pub fn lasting(tally: &Tally, hypothesis: &Hypothesis) -> Vec<LastingView> {
    let asked = hypothesis.replacement.iter();
    let asked = asked.flat_map(|policy| policy.settings.iter().map(|(key, _)| key));
    let mut keys: Vec<&'static str> = asked.chain(tally.settings.keys().copied()).collect();
    keys.sort_unstable();
    keys.dedup();
    let view = |key: &'static str| match definition(key)?.reversal {
        Reversal::Reversible => None,
        reversal @ (Reversal::StaysUntilChanged(_) | Reversal::Irreversible(_)) => Some(LastingView {
            key,
            reversal,
            devices: tally.settings.get(key).map_or(0, |setting| setting.devices),
        }),
    };
    keys.into_iter().filter_map(view).collect()
}

/// The conflicts of a tally; `name` knows what policies are called.
pub fn conflicts(tally: &Tally, name: impl Fn(PolicyId) -> String) -> Vec<PolicyConflictView> {
    let overruled = |lost: &Overruled| OverruledView {
        policy_id: lost.policy,
        name: name(lost.policy),
        value: lost.value.clone(),
    };
    let rows = tally.conflicts.values();
    rows.map(|(conflict, devices)| PolicyConflictView {
        key: conflict.key,
        rule: conflict.rule,
        winner: conflict.winner,
        winner_name: name(conflict.winner),
        value: conflict.value.clone(),
        overruled: conflict.overruled.iter().map(overruled).collect(),
        devices: *devices,
    })
    .collect()
}

pub fn examples(mut tally: Tally) -> ExamplesView {
    let mut take = |class| {
        let shown = tally.examples.remove(&class).unwrap_or_default();
        shown.into_iter().map(DeviceChangeView::of).collect()
    };
    ExamplesView {
        changes: take(Class::Changes),
        become_noncompliant: take(Class::BecomesNoncompliant),
        become_compliant: take(Class::BecomesCompliant),
        become_unknown: take(Class::BecomesUnknown),
    }
}

impl DeviceChangeView {
    fn of(example: Example) -> DeviceChangeView {
        let change = |change: SettingChange| DeviceSettingChangeView {
            key: change.key,
            from: change.from,
            to: change.to,
        };
        let reason = |reason: Reason| ReasonView {
            subject: reason.subject,
            why: reason.why,
        };
        DeviceChangeView {
            device_id: example.id,
            name: example.name,
            platform: example.platform,
            now: example.now,
            then: example.then,
            settings: example.changes.into_iter().map(change).collect(),
            reasons: example.reasons.into_iter().map(reason).collect(),
        }
    }
}
