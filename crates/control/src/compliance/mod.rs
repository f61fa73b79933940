//! What policies mean for a device, and whether it complies: the shared evaluator over what is stored.
//!
//! This slice knows no rollout. Whoever calls it says which policies are active for the device and what it reported.

mod rules;
mod view;

use std::{collections::BTreeMap, sync::Arc};

use muster_model::{
    DeviceAttributes, Labels, PolicyId, Subject, TenantId, Timestamp, compliance::ComplianceState,
    evaluate::Evaluation, facts::Facts, report::SettingReport, rules::Rule, settings::Settings,
    text::VersionLabel,
};
use muster_storage::Tx;

use crate::{
    access::problem::Problem,
    devices::{self, Device},
};
pub use rules::evaluate;
pub use view::{DeviceSettingsView, PolicyRow, SettingRow, VerdictRow, device_settings};

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
    Ok(rules::evaluate(
        policies,
        &subject(device, facts.as_ref()),
        reported,
        now,
    ))
}

/// What expressions see of a device. It has no labels, and its owner no groups.
pub fn subject<'a>(device: &'a Device, facts: Option<&'a Facts>) -> Subject<'a> {
    Subject {
        platform: device.platform,
        facts,
        device: Some(DeviceAttributes {
            name: &device.name,
            model: device.model.as_deref(),
            vendor: device.vendor.as_deref(),
            serial: device.serial.as_deref(),
            owner: device.owner.as_deref(),
            ownership: device.ownership,
            attestation: device.attestation_level,
            enrolled_at: device.enrolled_at,
        }),
        labels: Some(Labels::EMPTY),
        owner_groups: Some(&[]),
    }
}

/// Evaluates a device and stores the verdict.
pub fn refresh(
    tx: &mut Tx,
    tenant: TenantId,
    device: &Device,
    policies: &[Arc<ActivePolicy>],
    reported: &Reported,
    now: Timestamp,
) -> Result<Standing, Problem> {
    let standing = evaluate_device(tx, tenant, device, policies, reported, now)?;
    devices::set_compliance(tx, tenant, device.id, standing.state, now)?;
    Ok(standing)
}
