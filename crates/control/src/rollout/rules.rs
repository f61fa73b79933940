//! Pure decisions about rollouts and reports.

use std::{collections::BTreeMap, time::Duration};

use muster_model::{
    DeviceId, GroupId, PolicyId, SettingReport, SettingState, Timestamp,
    platform::Platform,
    rollout::{Membership, RolloutEvent, RolloutState, next},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    access::problem::{ILLEGAL_STATE, INVALID, Problem},
    devices::{TargetFilter, Traits},
};

/// Devices that a target may list by id.
pub const TARGET_DEVICES_MAX: usize = 1000;
/// Groups that a target may name in one list.
pub const TARGET_GROUPS_MAX: usize = 16;
/// Reports of one generation that cross on their way do so within minutes. What claims to be older than that comes from a
/// clock that was set back, and is believed.
const CROSSING_MAX: Duration = Duration::from_secs(600);

/// Whom a rollout is for: the devices that are in every list that is given; all devices when none is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    #[schema(value_type = Option<Vec<String>>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platforms: Option<Vec<Platform>>,
    #[schema(value_type = Option<Vec<String>>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<DeviceId>>,
    /// Devices that are in one of these groups.
    #[schema(value_type = Option<Vec<String>>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<GroupId>>,
    /// And in none of these.
    #[schema(value_type = Option<Vec<String>>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_groups: Option<Vec<GroupId>>,
}

impl Target {
    /// The target with each list sorted, or why it means nobody or too many by name.
    pub fn checked(mut self) -> Result<Target, Problem> {
        if let Some(platforms) = &mut self.platforms {
            platforms.sort_unstable();
            platforms.dedup();
        }
        if let Some(devices) = &mut self.devices {
            devices.sort_unstable();
            devices.dedup();
        }
        for groups in [&mut self.groups, &mut self.exclude_groups].into_iter().flatten() {
            groups.sort_unstable();
            groups.dedup();
            if groups.len() > TARGET_GROUPS_MAX {
                return Err(INVALID.detail(format!(
                    "A target names at most {TARGET_GROUPS_MAX} groups. Make one group of them."
                )));
            }
        }
        // To leave nobody out is to say nothing.
        self.exclude_groups = self.exclude_groups.filter(|groups| !groups.is_empty());
        let is_empty = |list: Option<usize>| list == Some(0);
        let lists = [
            self.platforms.as_ref().map(Vec::len),
            self.devices.as_ref().map(Vec::len),
            self.groups.as_ref().map(Vec::len),
        ];
        if lists.into_iter().any(is_empty) {
            return Err(
                INVALID.detail("The target names nobody. Leave out a list that should restrict nothing.")
            );
        }
        if self
            .devices
            .as_ref()
            .is_some_and(|devices| devices.len() > TARGET_DEVICES_MAX)
        {
            return Err(INVALID.detail(format!(
                "A target lists at most {TARGET_DEVICES_MAX} devices by id. Target platforms, or leave the list out."
            )));
        }
        Ok(self)
    }

    /// Whether the target holds a device. The device list is sorted. Whatever else a target goes by is asked here, and
    /// only here.
    pub fn means(&self, traits: &Traits) -> bool {
        self.platforms
            .as_ref()
            .is_none_or(|platforms| platforms.contains(&traits.platform()))
            && self
                .devices
                .as_ref()
                .is_none_or(|devices| devices.binary_search(&traits.device).is_ok())
            && self
                .groups
                .as_ref()
                .is_none_or(|groups| groups.iter().any(|group| traits.groups.contains(group)))
            && self
                .exclude_groups
                .as_ref()
                .is_none_or(|groups| !groups.iter().any(|group| traits.groups.contains(group)))
    }

    /// The groups that decide about it.
    pub fn named_groups(&self) -> impl Iterator<Item = GroupId> {
        [&self.groups, &self.exclude_groups]
            .into_iter()
            .flatten()
            .flatten()
            .copied()
    }

    /// What the database can leave out; `means` has the last word.
    pub fn filter(&self) -> TargetFilter<'_> {
        TargetFilter {
            platforms: self.platforms.as_deref(),
            devices: self.devices.as_deref(),
        }
    }
}

/// The devices that a rollout had reached when it was undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Touched {
    pub target: Target,
    pub membership: Membership,
    /// How many of its stages were open.
    pub opened: usize,
    /// The generations of its openings: a device that holds one was reached, whatever kind it is now.
    pub generations: Vec<u64>,
}

impl Touched {
    pub fn holds(&self, policy: PolicyId, traits: &Traits) -> bool {
        let is_member = || {
            self.target.means(traits)
                && self.membership.stage_of(traits.device, &traits.stratum) < self.opened
        };
        let has_it = |generation: &u64| traits.held.has_exactly(policy, *generation);
        is_member() || self.generations.iter().any(has_it)
    }
}

/// A device's report in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReportState {
    /// Something is still under way.
    Pending,
    /// Something is in force that the platform cannot read back.
    Applied,
    /// Everything was read back as wanted.
    Verified,
    /// Something is in force with less effect than wanted, or cannot be expressed there.
    Weaker,
    Failed,
}

impl ReportState {
    const ALL: [ReportState; 5] = [
        ReportState::Pending,
        ReportState::Applied,
        ReportState::Verified,
        ReportState::Weaker,
        ReportState::Failed,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            ReportState::Pending => "pending",
            ReportState::Applied => "applied",
            ReportState::Verified => "verified",
            ReportState::Weaker => "weaker",
            ReportState::Failed => "failed",
        }
    }

    /// The state that a stored word names.
    pub fn parse(word: &str) -> Option<ReportState> {
        ReportState::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// The worst of its settings speaks for a report.
    pub fn of(settings: &BTreeMap<String, SettingReport>) -> ReportState {
        let has = |wanted: SettingState| settings.values().any(|report| report.state == wanted);
        if has(SettingState::Failed) {
            ReportState::Failed
        } else if has(SettingState::Pending) {
            ReportState::Pending
        } else if has(SettingState::Weaker) || has(SettingState::NotExpressible) {
            ReportState::Weaker
        } else if has(SettingState::Applied) {
            ReportState::Applied
        } else {
            ReportState::Verified
        }
    }
}

/// What orders reports of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportAge {
    pub epoch: u32,
    pub generation: u64,
    /// By the device's clock.
    pub at: Timestamp,
}

/// Whether a report was overtaken by the stored one: it is of an earlier enrollment or generation, or made just before it.
pub fn is_overtaken(stored: ReportAge, arrived: ReportAge) -> bool {
    if (arrived.epoch, arrived.generation) != (stored.epoch, stored.generation) {
        return (arrived.epoch, arrived.generation) < (stored.epoch, stored.generation);
    }
    arrived.at < stored.at && stored.at.since(arrived.at) <= CROSSING_MAX
}

/// The state after an event, or the refusal that an operator gets.
pub fn transition(state: RolloutState, event: RolloutEvent) -> Result<RolloutState, Problem> {
    next(state, event).map_err(|refused| {
        let what = match event {
            RolloutEvent::Pause => "paused; only a running one can be",
            RolloutEvent::Resume => "resumed; only a paused one can be",
            RolloutEvent::Complete => "completed; only a running one can be",
            RolloutEvent::Abort => {
                "aborted; only a running or paused one can be. A completed one can be rolled back"
            }
            RolloutEvent::RollBack => "rolled back; it was undone before",
        };
        ILLEGAL_STATE.detail(format!(
            "A rollout that is {} cannot be {what}.",
            refused.state.as_str()
        ))
    })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn device(number: u128) -> DeviceId {
        DeviceId::from_uuid(Uuid::from_u128(number))
    }

    fn age(epoch: u32, generation: u64, seconds: i64) -> ReportAge {
        ReportAge {
            epoch,
            generation,
            at: Timestamp::from_unix_seconds(seconds),
        }
    }

    #[test]
    fn a_target_means_the_devices_that_are_in_every_list() {
        let target = Target {
            platforms: Some(vec![Platform::Linux]),
            devices: Some(vec![device(9), device(7), device(7)]),
            ..Target::default()
        };
        let target = target.checked().expect("it is a target");
        let means = |target: &Target, platform, number| {
            target.means(&Traits {
                device: device(number),
                stratum: std::sync::Arc::new(crate::devices::stratum(platform, None, None)),
                held: std::sync::Arc::default(),
                groups: std::sync::Arc::default(),
            })
        };
        assert!(means(&target, Platform::Linux, 7));
        assert!(!means(&target, Platform::Ios, 7));
        assert!(!means(&target, Platform::Linux, 8));
        assert!(means(&Target::default(), Platform::Ios, 8));
    }

    #[test]
    fn a_target_of_nobody_is_a_mistake() {
        assert!(
            Target {
                platforms: Some(Vec::new()),
                ..Target::default()
            }
            .checked()
            .is_err()
        );
        assert!(
            Target {
                devices: Some(Vec::new()),
                ..Target::default()
            }
            .checked()
            .is_err()
        );
    }

    #[test]
    fn the_worst_setting_speaks_for_a_report() {
        let report = |states: &[SettingState]| {
            let settings = states.iter().enumerate().map(|(at, state)| {
                (
                    at.to_string(),
                    SettingReport {
                        state: *state,
                        observed: None,
                        detail: None,
                    },
                )
            });
            ReportState::of(&settings.collect())
        };
        assert_eq!(report(&[]), ReportState::Verified);
        assert_eq!(
            report(&[SettingState::Verified, SettingState::NotExpressible]),
            ReportState::Weaker
        );
        assert_eq!(
            report(&[SettingState::Verified, SettingState::Applied]),
            ReportState::Applied
        );
        assert_eq!(
            report(&[SettingState::Failed, SettingState::Pending]),
            ReportState::Failed
        );
        for state in ReportState::ALL {
            assert_eq!(ReportState::parse(state.as_str()), Some(state));
        }
    }

    #[test]
    fn a_report_is_overtaken_by_generation_then_by_time() {
        assert!(is_overtaken(age(1, 5, 100), age(1, 4, 200)));
        assert!(!is_overtaken(age(1, 5, 100), age(1, 6, 50)));
        assert!(!is_overtaken(age(1, 5, 100), age(2, 0, 50)));
        assert!(is_overtaken(age(1, 5, 100), age(1, 5, 99)));
        assert!(!is_overtaken(age(1, 5, 100), age(1, 5, 100)));
    }

    #[test]
    fn a_clock_set_back_by_an_hour_silences_no_device() {
        assert!(!is_overtaken(age(1, 5, 7200), age(1, 5, 3600)));
    }

    #[test]
    fn what_was_undone_stays_undone() {
        assert!(transition(RolloutState::RolledBack, RolloutEvent::RollBack).is_err());
        assert_eq!(
            transition(RolloutState::Completed, RolloutEvent::RollBack).ok(),
            Some(RolloutState::RolledBack)
        );
        assert!(transition(RolloutState::Completed, RolloutEvent::Abort).is_err());
    }
}
