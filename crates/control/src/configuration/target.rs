//! Whom a version is for, as documents say it: groups by name, which is the same in every tenant, or by id.

use std::collections::BTreeMap;

use muster_model::{DeviceId, GroupId, platform::Platform, text::Name};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    access::problem::{INVALID, Problem},
    groups::Group,
    rollout::{TARGET_GROUPS_MAX, Target},
};

/// The devices that are in every list that is given; all devices when none is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetDocument {
    #[schema(value_type = Option<Vec<String>>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platforms: Option<Vec<Platform>>,
    #[schema(value_type = Option<Vec<String>>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<DeviceId>>,
    /// Devices that are in one of these groups: names, or ids.
    #[schema(value_type = Option<Vec<String>>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<Name>>,
    /// And in none of these.
    #[schema(value_type = Option<Vec<String>>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_groups: Option<Vec<Name>>,
}

/// The groups of a tenant.
#[derive(Debug, Clone, Default)]
pub struct KnownGroups {
    /// The newest change of them.
    pub version: i64,
    pub by_name: BTreeMap<String, Group>,
}

impl TargetDocument {
    /// A target with the names of its groups. A group that is gone has its id alone.
    pub fn of(target: &Target, known: &KnownGroups) -> TargetDocument {
        let names = |groups: &Option<Vec<GroupId>>| {
            groups.as_ref().map(|groups| {
                let mut names: Vec<Name> = groups.iter().filter_map(|id| known.reference(*id)).collect();
                names.sort_unstable();
                names
            })
        };
        TargetDocument {
            platforms: target.platforms.clone(),
            devices: target.devices.clone(),
            groups: names(&target.groups),
            exclude_groups: names(&target.exclude_groups),
        }
    }

    /// The same target in its one form, or why it means nobody or too many by name.
    pub fn checked(self) -> Result<TargetDocument, Problem> {
        let rest = Target {
            platforms: self.platforms,
            devices: self.devices,
            ..Target::default()
        };
        let Target {
            platforms, devices, ..
        } = rest.checked()?;
        let (groups, exclude_groups) = (names(self.groups)?, names(self.exclude_groups)?);
        if groups.as_ref().is_some_and(Vec::is_empty) {
            return Err(
                INVALID.detail("The target names nobody. Leave out a list that should restrict nothing.")
            );
        }
        Ok(TargetDocument {
            platforms,
            devices,
            groups,
            // To leave nobody out is to say nothing.
            exclude_groups: exclude_groups.filter(|groups| !groups.is_empty()),
        })
    }

    /// Every group that it names.
    pub fn named_groups(&self) -> impl Iterator<Item = &Name> {
        [&self.groups, &self.exclude_groups]
            .into_iter()
            .flatten()
            .flatten()
    }

    /// The target by ids; nothing where a name is of no group that is stored.
    pub fn resolved(&self, known: &KnownGroups) -> Option<Target> {
        let ids = |names: &Option<Vec<Name>>| -> Option<Option<Vec<GroupId>>> {
            let Some(names) = names else {
                return Some(None);
            };
            let mut ids = names
                .iter()
                .map(|name| known.id_of(name))
                .collect::<Option<Vec<GroupId>>>()?;
            ids.sort_unstable();
            ids.dedup();
            Some(Some(ids))
        };
        Some(Target {
            platforms: self.platforms.clone(),
            devices: self.devices.clone(),
            groups: ids(&self.groups)?,
            exclude_groups: ids(&self.exclude_groups)?,
        })
    }

    /// The target in words.
    pub fn whom(&self, known: &KnownGroups) -> String {
        let devices = match &self.devices {
            None => "every device".to_owned(),
            Some(devices) => format!("{} listed devices", devices.len()),
        };
        let mut whom = match &self.platforms {
            None => devices,
            Some(platforms) if self.devices.is_none() => platform_names(platforms),
            Some(platforms) => format!("{devices} of {}", platform_names(platforms)),
        };
        for (word, groups) in [("in", &self.groups), ("without", &self.exclude_groups)] {
            if let Some(groups) = groups {
                let names: Vec<&str> = groups.iter().map(|name| known.name_of(name)).collect();
                whom.push_str(&format!(" {word} {}", names.join(", ")));
            }
        }
        whom
    }
}

impl KnownGroups {
    /// The stored group that a name or an id means.
    pub fn get(&self, reference: &Name) -> Option<&Group> {
        match reference.as_str().parse::<GroupId>() {
            Ok(id) => self.by_id(id),
            Err(_) => self.by_name.get(reference.as_str()),
        }
    }

    /// An id is its own, whether the group is there or gone.
    fn id_of(&self, reference: &Name) -> Option<GroupId> {
        match reference.as_str().parse::<GroupId>() {
            Ok(id) => Some(id),
            Err(_) => self.by_name.get(reference.as_str()).map(|group| group.id),
        }
    }

    fn by_id(&self, id: GroupId) -> Option<&Group> {
        self.by_name.values().find(|group| group.id == id)
    }

    /// What a document calls a group: its name, unless a reader would take that for an id.
    fn reference(&self, id: GroupId) -> Option<Name> {
        let name = self.by_id(id).and_then(|group| Name::parse(&group.name).ok());
        let name = name.filter(|name| name.as_str().parse::<GroupId>().is_err());
        name.or_else(|| Name::parse(&id.to_string()).ok())
    }

    fn name_of<'a>(&'a self, reference: &'a Name) -> &'a str {
        self.get(reference)
            .map_or(reference.as_str(), |group| &group.name)
    }
}

fn names(names: Option<Vec<Name>>) -> Result<Option<Vec<Name>>, Problem> {
    let Some(mut names) = names else { return Ok(None) };
    names.sort_unstable();
    names.dedup();
    if names.len() > TARGET_GROUPS_MAX {
        return Err(INVALID.detail(format!(
            "A target names at most {TARGET_GROUPS_MAX} groups. Make one group of them."
        )));
    }
    Ok(Some(names))
}

fn platform_names(platforms: &[Platform]) -> String {
    let names: Vec<&str> = platforms.iter().map(|platform| platform.as_str()).collect();
    names.join(", ")
}
