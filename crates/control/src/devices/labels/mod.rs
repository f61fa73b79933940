//! Labels of devices: what people say of a device that it cannot say of itself, such as its department.

mod import;
mod store;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use muster_model::{
    DeviceId, TenantId,
    subject::{LABELS_MAX, Labels, TooManyLabels},
    text::{LabelKey, LabelValue},
};
use muster_storage::{Statement, Tx};

use super::{
    Device, DeviceState,
    changes::{self, Changes},
};
use crate::{
    access::problem::{ILLEGAL_STATE, INVALID, Problem},
    audit::LoggedTx,
};
pub use import::{ImportMode, ImportOutcome, import};
pub use table::{BYTES_MAX as LABEL_TABLE_BYTES_MAX, ROWS_MAX as LABEL_ROWS_MAX};

/// Every statement of this part, for the test that prepares them all on both engines.
pub const LABEL_STATEMENTS: &[Statement] = store::ALL;
/// The label whose value names the owner's groups, with `;` between.
pub const OWNER_GROUPS: &str = "owner.groups";
/// The label whose value names the department; rollouts draw their stages by it.
pub const DEPARTMENT: &str = "department";

/// What is to become of a device's labels; what is not named stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelChange {
    pub set: BTreeMap<LabelKey, LabelValue>,
    pub removed: BTreeSet<LabelKey>,
}

impl LabelChange {
    /// The part of the change that is not so already.
    fn beyond(&self, labels: &Labels) -> LabelChange {
        let set = self
            .set
            .iter()
            .filter(|(key, value)| labels.get(key.as_str()) != Some(value.as_str()));
        let removed = self
            .removed
            .iter()
            .filter(|key| labels.get(key.as_str()).is_some());
        LabelChange {
            set: set.map(|(key, value)| (key.clone(), value.clone())).collect(),
            removed: removed.cloned().collect(),
        }
    }

    /// The change that makes `labels` be `wanted` and nothing else.
    fn towards(wanted: &Labels, labels: &Labels) -> LabelChange {
        let removed = labels
            .iter()
            .filter(|(key, _)| wanted.get(key.as_str()).is_none());
        LabelChange {
            removed: removed.map(|(key, _)| key.clone()).collect(),
            set: wanted
                .iter()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.set.is_empty() && self.removed.is_empty()
    }

    /// Carries the change out; refuses to give a device more labels than it may have.
    fn apply(&self, labels: &mut Labels) -> Result<(), TooManyLabels> {
        for key in &self.removed {
            labels.remove(key.as_str());
        }
        for (key, value) in &self.set {
            labels.set(key.clone(), value.clone())?;
        }
        Ok(())
    }
}

/// The labels of a device.
pub fn labels(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<Labels, Problem> {
    let mut found = labels_of(tx, tenant, &[device])?;
    Ok(found.remove(&device).unwrap_or_default())
}

/// The labels of several devices; a device without labels is absent.
pub fn labels_of(
    tx: &mut Tx,
    tenant: TenantId,
    devices: &[DeviceId],
) -> Result<HashMap<DeviceId, Labels>, Problem> {
    let mut found: HashMap<DeviceId, Labels> = HashMap::new();
    for chunk in devices.chunks(store::PLACES) {
        for (device, key, value) in store::of_devices(tx, tenant, chunk)? {
            let labels = found.entry(device).or_default();
            labels.set(key, value).map_err(Problem::internal)?;
        }
    }
    Ok(found)
}

/// Devices with this label, at most two: who asks wants the one.
pub fn labeled(tx: &mut Tx, tenant: TenantId, key: &str, value: &str) -> Result<Vec<DeviceId>, Problem> {
    Ok(store::labeled(tx, tenant, key, value)?)
}

/// Changes the labels of a device and records it; answers the labels as they are then, and whether anything changed.
pub fn change_labels(
    tx: &mut LoggedTx<'_>,
    device: &Device,
    change: &LabelChange,
) -> Result<(Labels, bool), Problem> {
    let mut labels = held_labels(tx, device)?;
    let change = change.beyond(&labels);
    store_change(tx, device.id, &change, &mut labels)?;
    if !change.is_empty() {
        record(tx, device.id, &change)?;
    }
    Ok((labels, !change.is_empty()))
}

/// Gives a device these labels and no others, and records it.
pub fn put_labels(
    tx: &mut LoggedTx<'_>,
    device: &Device,
    wanted: &Labels,
) -> Result<(Labels, bool), Problem> {
    let held = held_labels(tx, device)?;
    change_labels(tx, device, &LabelChange::towards(wanted, &held))
}

/// Gives a device without labels those of the one that it continues.
pub(super) fn inherit(tx: &mut Tx, tenant: TenantId, device: DeviceId, old: DeviceId) -> Result<(), Problem> {
    if labels(tx, tenant, device)?.is_empty() {
        store::copy(tx, tenant, old, device)?;
        changes::mark(tx, tenant, device, Changes::LABELS)?;
    }
    Ok(())
}

/// The labels of a device that nobody else changes until the transaction ends.
fn held_labels(tx: &mut LoggedTx<'_>, device: &Device) -> Result<Labels, Problem> {
    if device.state == DeviceState::Retired {
        return Err(ILLEGAL_STATE.detail("The device is retired. Enroll it again first."));
    }
    let tenant = tx.tenant();
    changes::mark(tx, tenant, device.id, Changes::NONE)?;
    // The mark is how transactions take turns, no change of the tenant's.
    tx.excuse(1);
    labels(tx, tenant, device.id)
}

fn store_change(
    tx: &mut LoggedTx<'_>,
    device: DeviceId,
    change: &LabelChange,
    labels: &mut Labels,
) -> Result<(), Problem> {
    if change.is_empty() {
        return Ok(());
    }
    change.apply(labels).map_err(|_| {
        INVALID.detail(format!(
            "A device has at most {LABELS_MAX} labels, and this would make more. Remove some first."
        ))
    })?;
    let tenant = tx.tenant();
    for (key, value) in &change.set {
        store::put(tx, tenant, device, key, value)?;
    }
    for key in &change.removed {
        store::remove(tx, tenant, device, key)?;
    }
    changes::mark(tx, tenant, device, Changes::LABELS)?;
    Ok(())
}

fn record(tx: &mut LoggedTx<'_>, device: DeviceId, change: &LabelChange) -> Result<(), Problem> {
    // 64 keys are at most 4 KiB; values can be more than an entry holds, and may name people: the log keeps their digest.
    let detail = serde_json::json!({
        "set": change.set.keys().map(LabelKey::as_str).collect::<Vec<_>>(),
        "removed": change.removed.iter().map(LabelKey::as_str).collect::<Vec<_>>(),
        "change_sha256": import::digest(&[(device, change.clone())]).to_string(),
    });
    tx.record("device.labels_changed", ("device", device.to_string()), detail)?;
    Ok(())
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<LabelKey, LabelValue> {
        let pair = |(key, value): &(&str, &str)| {
            (
                LabelKey::parse(key).expect("it is a key"),
                LabelValue::parse(value).expect("it is a value"),
            )
        };
        pairs.iter().map(pair).collect()
    }

    fn labels(these: &[(&str, &str)]) -> Labels {
        Labels::new(pairs(these)).expect("they are few")
    }

    #[test]
    fn only_what_differs_is_a_change() {
        let held = labels(&[("a", "1"), ("b", "2")]);
        let change = LabelChange {
            set: pairs(&[("a", "1"), ("c", "3")]),
            removed: ["b", "x"]
                .map(|key| LabelKey::parse(key).expect("it is a key"))
                .into(),
        };
        let beyond = change.beyond(&held);
        assert_eq!(beyond.set, pairs(&[("c", "3")]));
        assert_eq!(beyond.removed.len(), 1);
        let mut after = held.clone();
        beyond.apply(&mut after).expect("they are few");
        assert_eq!(after, labels(&[("a", "1"), ("c", "3")]));
        assert!(change.beyond(&after).is_empty(), "a second time changes nothing");
    }

    #[test]
    fn replacing_labels_removes_the_others() {
        let held = labels(&[("a", "1"), ("b", "2")]);
        let change = LabelChange::towards(&labels(&[("b", "3")]), &held);
        let mut after = held.clone();
        change.beyond(&held).apply(&mut after).expect("they are few");
        assert_eq!(after, labels(&[("b", "3")]));
    }
}
