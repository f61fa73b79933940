//! What an activation would do, without doing it: how many devices of which kinds each stage holds, which gates cannot pass,
//! and where other policies set the same.

use std::collections::BTreeMap;

use muster_model::{
    TenantId, Timestamp,
    rollout::{Stratum, next_opening},
    settings::{Reversal, definition},
    text::VersionLabel,
};
use muster_storage::Tx;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{Order, Prepared, change, current, objectives, rules::Target};
use crate::{
    access::problem::Problem,
    groups,
    policy::{self, Policy},
};

/// Conflicts that one preview names.
const CONFLICTS_MAX: usize = 100;

/// What an activation would do.
#[derive(Debug, Serialize, ToSchema)]
pub struct PreviewView {
    #[schema(value_type = String)]
    pub version: VersionLabel,
    /// The version that is active now, if one is.
    #[schema(value_type = Option<String>)]
    pub replaces: Option<VersionLabel>,
    pub target: Target,
    /// Active devices that the target means now.
    pub devices: u64,
    pub stages: Vec<StagePreview>,
    /// Settings that other active policies set to something else.
    pub conflicts: Vec<ConflictView>,
    pub warnings: Vec<String>,
}

/// A stage of an activation that was not made.
#[derive(Debug, Serialize, ToSchema)]
pub struct StagePreview {
    pub name: String,
    /// The share of the target that has the version when this stage is open, in percent.
    pub percent: f64,
    /// Devices that this stage adds.
    pub devices: u64,
    pub gate_method: &'static str,
    /// Failures among its devices with which the stage still passes; absent if it cannot pass.
    pub failures_allowed: Option<u64>,
    /// Its devices by kind, the most first.
    pub strata: Vec<StratumView>,
}

/// Devices of one kind.
#[derive(Debug, Serialize, ToSchema)]
pub struct StratumView {
    pub platform: String,
    pub model: Option<String>,
    pub department: Option<String>,
    pub devices: u64,
}

/// A setting that two active policies set differently.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ConflictView {
    pub setting: String,
    pub policy_id: String,
    pub policy_name: String,
    #[schema(value_type = String)]
    pub version: VersionLabel,
}

/// Says what an activation would do.
pub fn preview(
    tx: &mut Tx,
    tenant: TenantId,
    policy: &Policy,
    version: &VersionLabel,
    order: Order,
    now: Timestamp,
) -> Result<PreviewView, Problem> {
    let version = policy::version(tx, tenant, policy.id, version)?;
    // What the activation would be refused for is refused here, and no group that is not known counts as one of nobody.
    objectives::check_for(&order.stages, &version)?;
    groups::require_ready(tx, tenant, order.target.named_groups())?;
    let meant = change::meant(tx, tenant, &order)?;
    let Prepared { order, membership } = change::drawn(order, meant.iter().cloned());
    let mut strata: Vec<BTreeMap<&Stratum, u64>> = vec![BTreeMap::new(); order.stages.len()];
    for (device, stratum) in &meant {
        let stage = membership.stage_of(*device, stratum);
        if let Some(counts) = strata.get_mut(stage) {
            *counts.entry(stratum).or_default() += 1;
        }
    }
    let mut warnings = Vec::new();
    if meant.is_empty() {
        warnings.push("The target means no device now.".to_owned());
    }
    if let Some(at) = next_opening(&order.windows, now) {
        warnings.push(format!(
            "No device is moved before the next window opens at {at}."
        ));
    }
    let stages = order.stages.iter().zip(strata).map(|(stage, strata)| {
        let devices = strata.values().sum();
        if let Err(small) = stage.gate.can_ever_pass(devices) {
            warnings.push(format!("Stage {}: {small}.", stage.name));
        }
        StagePreview {
            name: stage.name.clone(),
            percent: f64::from(stage.share_per_mille) / 10.0,
            devices,
            gate_method: stage.gate.method.as_str(),
            failures_allowed: stage.gate.failures_allowed(devices),
            strata: strata_of(strata),
        }
    });
    let stages = stages.collect();
    let replaces = super::current_of(tx, tenant, policy.id)?.map(|rollout| rollout.version);
    if replaces.as_ref() == Some(&version.version) {
        warnings.push("This version is active already.".to_owned());
    }
    warnings.extend(settings_of(&version)?.keys().filter_map(|key| lasting(key)));
    Ok(PreviewView {
        conflicts: conflicts(tx, tenant, &version)?,
        version: version.version,
        replaces,
        target: order.target,
        devices: meant.len() as u64,
        stages,
        warnings,
    })
}

/// What a roll-back would not undo of a setting.
fn lasting(key: &str) -> Option<String> {
    match definition(key)?.reversal {
        Reversal::Reversible => None,
        Reversal::StaysUntilChanged(why) => {
            Some(format!("{key} stays for a while after a roll-back: {why}."))
        }
        Reversal::Irreversible(why) => Some(format!("{key} cannot be undone by a roll-back: {why}.")),
    }
}

fn strata_of(strata: BTreeMap<&Stratum, u64>) -> Vec<StratumView> {
    let mut views: Vec<StratumView> = strata
        .into_iter()
        .map(|(stratum, devices)| StratumView {
            platform: stratum.platform.as_str().to_owned(),
            model: stratum.model.clone(),
            department: stratum.department.clone(),
            devices,
        })
        .collect();
    views.sort_by_key(|view| std::cmp::Reverse(view.devices));
    views.truncate(muster_model::rollout::STRATA_MAX);
    views
}

fn conflicts(tx: &mut Tx, tenant: TenantId, version: &policy::Version) -> Result<Vec<ConflictView>, Problem> {
    let own = settings_of(version)?;
    let mut newest = BTreeMap::new();
    for rollout in current(tx, tenant)? {
        newest.insert(rollout.policy, rollout.version);
    }
    newest.remove(&version.policy);
    let mut conflicts = Vec::new();
    for (id, label) in newest {
        let other = policy::version(tx, tenant, id, &label)?;
        let name = policy::name(tx, tenant, id)?;
        let others = settings_of(&other)?;
        let differing = own
            .iter()
            .filter(|(key, value)| others.get(*key).is_some_and(|other| other.get() != value.get()));
        conflicts.extend(differing.map(|(key, _)| ConflictView {
            setting: key.clone(),
            policy_id: id.to_string(),
            policy_name: name.clone(),
            version: label.clone(),
        }));
        if conflicts.len() >= CONFLICTS_MAX {
            conflicts.truncate(CONFLICTS_MAX);
            break;
        }
    }
    Ok(conflicts)
}

/// The canonical text of every setting of a version.
fn settings_of(version: &policy::Version) -> Result<BTreeMap<String, Box<RawValue>>, Problem> {
    serde_json::from_str(&version.settings).map_err(Problem::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_roll_back_would_not_undo_is_said_before_the_activation() {
        let of = |key| lasting(key).unwrap_or_default();
        assert!(of("os.update.enforce").contains("cannot be undone"));
        assert!(of("apps.required").contains("stays"));
        assert_eq!(lasting("camera.allowed"), None);
    }
}
