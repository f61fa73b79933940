//! What rollouts go by when they decide about a device, from memory.

use std::sync::Arc;

use muster_model::{DeviceId, GroupId, Platform, PolicyId, rollout::Stratum};

use super::Device;

/// Policies that a device may hold; a report that lists more is not read.
const HELD_MAX: usize = 64;

/// A device as rollouts see it. Cheap to clone: it is made for every check-in.
#[derive(Debug, Clone)]
pub struct Traits {
    pub device: DeviceId,
    /// The kind of device: platform, model, department.
    pub stratum: Arc<Stratum>,
    /// What it had in force by its last report.
    pub held: Arc<Held>,
    /// The dynamic groups that it is in.
    pub groups: Arc<[GroupId]>,
}

impl Traits {
    /// The traits of a stored device, with its label `department`, its groups, and what its last report said it holds.
    pub fn of(device: &Device, department: Option<&str>, groups: Vec<GroupId>, held: Arc<Held>) -> Traits {
        Traits {
            device: device.id,
            stratum: Arc::new(stratum(device.platform, device.model.as_deref(), department)),
            held,
            groups: groups.into(),
        }
    }

    pub fn platform(&self) -> Platform {
        self.stratum.platform
    }
}

/// The stratum of a device.
pub fn stratum(platform: Platform, model: Option<&str>, department: Option<&str>) -> Stratum {
    Stratum {
        platform,
        model: model.map(str::to_owned),
        department: department.map(str::to_owned),
    }
}

/// The activations that a device had in force when it reported last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Held {
    /// By policy: the generation of the activation that put it there.
    bundles: Vec<(PolicyId, u64)>,
    /// Of a report that was stored before it said which activations it is about: it is about all up to this one.
    up_to: Option<u64>,
}

impl Held {
    pub fn of(bundles: Vec<(PolicyId, u64)>) -> Held {
        Held { bundles, up_to: None }
    }

    /// Of a report of an earlier version of this program.
    pub fn up_to(generation: u64) -> Held {
        Held {
            bundles: Vec::new(),
            up_to: Some(generation),
        }
    }

    /// Whether the device has what this activation put there.
    pub fn has(&self, policy: PolicyId, generation: u64) -> bool {
        self.up_to.is_some_and(|up_to| generation <= up_to) || self.bundles.contains(&(policy, generation))
    }

    /// As `has`, of a report that says so itself.
    pub fn has_exactly(&self, policy: PolicyId, generation: u64) -> bool {
        self.bundles.contains(&(policy, generation))
    }

    /// Whether an activation of the policy is in force on the device, as far as that was said.
    pub fn has_any(&self, policy: PolicyId) -> bool {
        self.bundles.iter().any(|(held, _)| *held == policy)
    }

    /// As it is stored: `pol_…:generation`, separated by spaces. Nothing for a report that does not say.
    pub fn to_text(&self) -> Option<String> {
        if self.up_to.is_some() {
            return None;
        }
        let words: Vec<String> = self
            .bundles
            .iter()
            .map(|(policy, generation)| format!("{policy}:{generation}"))
            .collect();
        Some(words.join(" "))
    }

    /// Reads what was stored, of a report of this generation.
    pub fn from_text(text: Option<&str>, generation: u64) -> Held {
        let Some(text) = text else {
            return Held::up_to(generation);
        };
        let words = text.split(' ').filter(|word| !word.is_empty()).take(HELD_MAX);
        let read = words.filter_map(|word| {
            let (policy, generation) = word.split_once(':')?;
            Some((policy.parse().ok()?, generation.parse().ok()?))
        });
        Held::of(read.collect())
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_is_held_survives_storage() {
        let policy = |number| PolicyId::from_uuid(Uuid::from_u128(number));
        let held = Held::of(vec![(policy(1), 7), (policy(2), u64::MAX)]);
        let text = held.to_text().expect("it says");
        assert_eq!(Held::from_text(Some(&text), 9), held);
        assert_eq!(Held::from_text(Some(""), 9), Held::default());
        assert_eq!(Held::from_text(Some("x:1 pol_1:2 ::"), 9), Held::default());
        assert!(held.has(policy(1), 7) && !held.has(policy(1), 6) && !held.has(policy(3), 7));
        assert!(held.has_any(policy(2)) && !held.has_any(policy(3)));
    }

    #[test]
    fn an_old_report_is_about_all_activations_before_it() {
        let policy = PolicyId::from_uuid(Uuid::from_u128(1));
        let held = Held::from_text(None, 9);
        assert!(held.has(policy, 9) && !held.has(policy, 10));
        assert_eq!(held.to_text(), None);
    }
}
