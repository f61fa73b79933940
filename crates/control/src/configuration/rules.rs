//! What a document would change: a pure function of the document and the state.

use std::collections::{BTreeMap, BTreeSet};

use muster_model::{
    TenantId,
    text::{Name, VersionLabel},
};
use muster_trust::key::{Digest, sha256_of};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::document::{Entries, PolicyEntry};
use crate::{
    access::problem::{FieldError, INVALID, Problem, VERSION_EXISTS},
    policy::{Content, Policy},
    rollout::{Rollout, Target},
};

const DIGEST_CONTEXT: &[u8] = b"muster-configuration-plan-v1\0";

/// What a tenant has.
#[derive(Debug)]
pub struct State {
    /// The highest one.
    pub generation: u64,
    /// By name.
    pub policies: BTreeMap<String, Known>,
    /// The archived policies that the document names, by name.
    pub archived: BTreeMap<String, Known>,
}

/// A policy of the state.
#[derive(Debug)]
pub struct Known {
    pub policy: Policy,
    /// In the order in which they were made.
    pub versions: Vec<KnownVersion>,
    pub active: Option<Rollout>,
}

/// A version of the state.
#[derive(Debug)]
pub struct KnownVersion {
    pub label: VersionLabel,
    pub content_sha256: Vec<u8>,
}

/// What is done about one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    CreatePolicy,
    DescribePolicy,
    AddVersion,
    /// Starts a rollout.
    Activate,
    /// Brings an archived policy of this name back, with its versions.
    RestorePolicy,
    /// The document leaves out what is active: it is taken from its devices. Only with `prune`.
    Withdraw,
    /// The document leaves the policy out: it is taken from its devices and put away. Only with `prune`.
    ArchivePolicy,
    /// The document leaves it out, and neither `prune` nor `partial` says what to do: the plan cannot be applied.
    WouldDelete,
    /// The document leaves it out, and it is kept: versions and descriptions always, everything with `partial`.
    Keep,
}

impl Action {
    /// Whether it takes something away, or would.
    pub fn is_deletion(self) -> bool {
        match self {
            Action::Withdraw | Action::ArchivePolicy | Action::WouldDelete => true,
            Action::CreatePolicy
            | Action::DescribePolicy
            | Action::AddVersion
            | Action::Activate
            | Action::RestorePolicy
            | Action::Keep => false,
        }
    }

    /// Whether applying the plan does it.
    pub fn is_made(self) -> bool {
        match self {
            Action::CreatePolicy
            | Action::DescribePolicy
            | Action::AddVersion
            | Action::Activate
            | Action::RestorePolicy
            | Action::Withdraw
            | Action::ArchivePolicy => true,
            Action::WouldDelete | Action::Keep => false,
        }
    }
}

/// What becomes of what a document leaves out. Versions and descriptions are kept whatever it says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeftOut {
    /// A plan that leaves something out cannot be applied.
    #[default]
    Refuse,
    /// The document is a part: what it leaves out is none of its business.
    Keep,
    /// It is deleted, within the budget of the call that applies the plan.
    Prune,
}

/// One change of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Change {
    pub action: Action,
    /// Its name.
    pub policy: String,
    #[schema(value_type = Option<String>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionLabel>,
    /// A sentence about it, without values of settings.
    pub detail: String,
}

/// What a document would change.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Of the tenant, the document and the changes.
    pub sha256: Digest,
    /// In the order in which they are made; then what is left out.
    pub changes: Vec<Change>,
}

impl Plan {
    /// What applying the plan does.
    pub fn to_make(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.action.is_made())
    }

    /// How many changes take something away, or would.
    pub fn deletions(&self) -> usize {
        let changes = self.changes.iter();
        changes.filter(|change| change.action.is_deletion()).count()
    }
}

/// A change with what is needed to make it.
#[derive(Debug)]
pub struct Step<'a> {
    pub change: Change,
    pub work: Work<'a>,
}

/// What a change does.
#[derive(Debug)]
pub enum Work<'a> {
    Create {
        name: &'a Name,
        description: Option<&'a str>,
    },
    Describe {
        description: &'a str,
    },
    AddVersion {
        label: &'a VersionLabel,
        content: &'a Content,
    },
    Activate {
        label: &'a VersionLabel,
        target: &'a Target,
    },
    Restore,
    Withdraw {
        rollout: Box<Rollout>,
    },
    Archive {
        active: Option<Box<Rollout>>,
    },
    /// Nothing is done.
    Keep,
}

/// The plan of a document.
pub fn plan(tenant: TenantId, entries: &Entries, state: &State) -> Result<Plan, Problem> {
    let steps = steps(entries, state)?;
    plan_of(tenant, entries, &steps)
}

/// The plan that these steps make.
pub fn plan_of(tenant: TenantId, entries: &Entries, steps: &[Step<'_>]) -> Result<Plan, Problem> {
    let changes: Vec<Change> = steps.iter().map(|step| step.change.clone()).collect();
    let document = entries.to_kept()?;
    let told = serde_json::to_vec(&changes).map_err(Problem::internal)?;
    let sha256 = sha256_of(&[
        DIGEST_CONTEXT,
        tenant.to_string().as_bytes(),
        b"\n",
        document.as_bytes(),
        b"\n",
        &told,
    ]);
    Ok(Plan { sha256, changes })
}

/// The steps from the state to the document. A version that exists with other content, and an activation of one that
/// exists nowhere, are refused.
pub fn steps<'a>(entries: &'a Entries, state: &State) -> Result<Vec<Step<'a>>, Problem> {
    let mut steps = Vec::new();
    let mut left_out = Vec::new();
    let mut errors = Vec::new();
    for entry in &entries.policies {
        let name = entry.name.as_str();
        let archived = state.archived.get(name);
        let known = state.policies.get(name).or(archived);
        if let Some(archived) = archived {
            steps.push(restored(name, archived));
        }
        about_policy(entry, known, &mut steps);
        about_versions(entry, known, &mut steps, &mut errors);
        about_activation(entry, known, &mut steps)?;
        if let Some(known) = known {
            about_left_out(entry, known, entries.left_out, &mut left_out);
        }
    }
    if !errors.is_empty() {
        let labels: Vec<&str> = errors
            .iter()
            .map(|error: &FieldError| error.field.as_str())
            .collect();
        return Err(VERSION_EXISTS
            .detail(format!(
                "A version never changes, and these exist with other content: {}. Give the content new labels.",
                labels.join(", ")
            ))
            .with_errors(errors));
    }
    let named: BTreeSet<&str> = entries.policies.iter().map(|entry| entry.name.as_str()).collect();
    let unnamed = state
        .policies
        .iter()
        .filter(|(name, _)| !named.contains(name.as_str()));
    left_out.extend(unnamed.map(|(name, known)| policy_left_out(name, known, entries.left_out)));
    steps.extend(left_out);
    Ok(steps)
}

fn restored<'a>(name: &str, known: &Known) -> Step<'a> {
    let detail = format!(
        "The archived policy of this name comes back with its {} versions.",
        known.versions.len()
    );
    Step {
        change: change(Action::RestorePolicy, name, None, detail),
        work: Work::Restore,
    }
}

fn policy_left_out<'a>(name: &str, known: &Known, left_out: LeftOut) -> Step<'a> {
    let made_elsewhere = match known.policy.managed_by {
        None => " It was not made by a document.",
        Some(_) => "",
    };
    let (action, detail, work) = match (left_out, &known.active) {
        (LeftOut::Refuse, _) => (
            Action::WouldDelete,
            "The document has no such policy.".to_owned(),
            Work::Keep,
        ),
        (LeftOut::Keep, _) => (
            Action::Keep,
            "The document has no such policy. It is kept with its versions and devices.".to_owned(),
            Work::Keep,
        ),
        (LeftOut::Prune, Some(rollout)) => (
            Action::ArchivePolicy,
            format!(
                "The document has no such policy. Version {} (generation {}) is taken from {}; the policy is archived, \
                 its versions stay.",
                rollout.version,
                rollout.generation,
                whom(&rollout.plan.target)
            ),
            Work::Archive {
                active: known.active.clone().map(Box::new),
            },
        ),
        (LeftOut::Prune, None) => (
            Action::ArchivePolicy,
            "The document has no such policy. It is not active; it is archived, its versions stay."
                .to_owned(),
            Work::Archive { active: None },
        ),
    };
    Step {
        change: change(action, name, None, detail + made_elsewhere),
        work,
    }
}

fn about_policy<'a>(entry: &'a PolicyEntry, known: Option<&Known>, steps: &mut Vec<Step<'a>>) {
    let description = entry.description.as_deref();
    let (action, detail, work) = match (known, description) {
        (None, _) => (
            Action::CreatePolicy,
            "A new policy.".to_owned(),
            Work::Create {
                name: &entry.name,
                description,
            },
        ),
        (Some(known), Some(description)) if known.policy.description.as_deref() != Some(description) => (
            Action::DescribePolicy,
            "Another description.".to_owned(),
            Work::Describe { description },
        ),
        (Some(_), _) => return,
    };
    steps.push(Step {
        change: change(action, entry.name.as_str(), None, detail),
        work,
    });
}

fn about_versions<'a>(
    entry: &'a PolicyEntry,
    known: Option<&Known>,
    steps: &mut Vec<Step<'a>>,
    errors: &mut Vec<FieldError>,
) {
    let stored: BTreeMap<&VersionLabel, &[u8]> = known
        .iter()
        .flat_map(|known| &known.versions)
        .map(|version| (&version.label, version.content_sha256.as_slice()))
        .collect();
    for (label, content) in &entry.versions {
        match stored.get(label) {
            Some(sha256) if *sha256 == content.sha256.as_bytes() => {}
            Some(_) => errors.push(FieldError {
                field: format!("{}/{label}", entry.name),
                code: VERSION_EXISTS.code.to_owned(),
                detail: "The version exists with other content.".to_owned(),
            }),
            None => steps.push(Step {
                change: change(
                    Action::AddVersion,
                    entry.name.as_str(),
                    Some(label),
                    format!("A new version; content {}.", content.sha256),
                ),
                work: Work::AddVersion { label, content },
            }),
        }
    }
}

fn about_activation<'a>(
    entry: &'a PolicyEntry,
    known: Option<&Known>,
    steps: &mut Vec<Step<'a>>,
) -> Result<(), Problem> {
    let Some((label, target)) = &entry.active else {
        return Ok(());
    };
    let stored = known.iter().flat_map(|known| &known.versions);
    let is_there = entry.versions.iter().any(|(own, _)| own == label)
        || stored.into_iter().any(|version| version.label == *label);
    if !is_there {
        return Err(INVALID.detail(format!(
            "{}: version {label} is to be active, and is neither in the document nor stored.",
            entry.name
        )));
    }
    let before = known.and_then(|known| known.active.as_ref());
    let detail = match before {
        Some(rollout) if rollout.version == *label && rollout.plan.target == *target => return Ok(()),
        Some(rollout) => format!(
            "For {}, in place of version {} (generation {}) for {}.",
            whom(target),
            rollout.version,
            rollout.generation,
            whom(&rollout.plan.target)
        ),
        None => format!("For {}. No version is active.", whom(target)),
    };
    steps.push(Step {
        change: change(Action::Activate, entry.name.as_str(), Some(label), detail),
        work: Work::Activate { label, target },
    });
    Ok(())
}

/// What the state has of a policy and the document does not say.
fn about_left_out(entry: &PolicyEntry, known: &Known, what: LeftOut, left_out: &mut Vec<Step<'_>>) {
    let name = entry.name.as_str();
    if entry.description.is_none() && known.policy.description.is_some() {
        left_out.push(kept(
            name,
            None,
            "The document has no description. The stored one is kept.".to_owned(),
        ));
    }
    let named: BTreeSet<&VersionLabel> = entry.versions.iter().map(|(label, _)| label).collect();
    for version in known
        .versions
        .iter()
        .filter(|version| !named.contains(&version.label))
    {
        left_out.push(kept(
            name,
            Some(&version.label),
            "The document has no such version. It is kept: versions are immutable.".to_owned(),
        ));
    }
    if let (None, Some(rollout)) = (&entry.active, &known.active) {
        left_out.push(activation_left_out(name, rollout, what));
    }
}

fn activation_left_out<'a>(name: &str, rollout: &Rollout, left_out: LeftOut) -> Step<'a> {
    let (action, becomes, work) = match left_out {
        LeftOut::Refuse => (Action::WouldDelete, "is", Work::Keep),
        LeftOut::Keep => (Action::Keep, "stays", Work::Keep),
        LeftOut::Prune => (
            Action::Withdraw,
            "is taken from its devices; until now it is",
            Work::Withdraw {
                rollout: Box::new(rollout.clone()),
            },
        ),
    };
    let detail = format!(
        "The document has no version active. This one {becomes} active for {} (generation {}).",
        whom(&rollout.plan.target),
        rollout.generation
    );
    Step {
        change: change(action, name, Some(&rollout.version), detail),
        work,
    }
}

fn kept<'a>(policy: &str, version: Option<&VersionLabel>, detail: String) -> Step<'a> {
    Step {
        change: change(Action::Keep, policy, version, detail),
        work: Work::Keep,
    }
}

fn change(action: Action, policy: &str, version: Option<&VersionLabel>, detail: String) -> Change {
    Change {
        action,
        policy: policy.to_owned(),
        version: version.cloned(),
        detail,
    }
}

fn whom(target: &Target) -> String {
    let devices = match &target.devices {
        None => "every device".to_owned(),
        Some(devices) => format!("{} listed devices", devices.len()),
    };
    let mut whom = match &target.platforms {
        None => devices,
        Some(platforms) if target.devices.is_none() => platform_names(platforms),
        Some(platforms) => format!("{devices} of {}", platform_names(platforms)),
    };
    for (word, groups) in [("in", &target.groups), ("without", &target.exclude_groups)] {
        if let Some(groups) = groups {
            let names: Vec<String> = groups.iter().map(ToString::to_string).collect();
            whom.push_str(&format!(" {word} {}", names.join(", ")));
        }
    }
    whom
}

fn platform_names(platforms: &[muster_model::platform::Platform]) -> String {
    let names: Vec<&str> = platforms.iter().map(|platform| platform.as_str()).collect();
    names.join(", ")
}
