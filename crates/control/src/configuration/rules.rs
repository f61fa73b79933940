//! What a document would change: a pure function of the document and the state.

use std::collections::BTreeMap;

use muster_model::{
    TenantId,
    text::{Name, VersionLabel},
};
use muster_trust::key::{Digest, sha256_of};
use serde::Serialize;
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
    /// The document leaves it out. It is kept: nothing is deleted by leaving it out.
    WouldDelete,
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
        self.changes
            .iter()
            .filter(|change| change.action != Action::WouldDelete)
    }

    /// How many objects the document leaves out.
    pub fn deletions(&self) -> usize {
        self.changes.len() - self.to_make().count()
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
    let document = entries.to_json()?;
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
    for entry in &entries.0 {
        let known = state.policies.get(entry.name.as_str());
        about_policy(entry, known, &mut steps);
        about_versions(entry, known, &mut steps, &mut errors);
        about_activation(entry, known, &mut steps)?;
        if let Some(known) = known {
            about_left_out(entry, known, &mut left_out);
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
    let named = |name: &str| entries.0.iter().any(|entry| entry.name.as_str() == name);
    for name in state.policies.keys().filter(|name| !named(name)) {
        left_out.push(kept(
            name,
            None,
            "The document has no such policy. It is kept with its versions and devices.".to_owned(),
        ));
    }
    steps.extend(left_out);
    Ok(steps)
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
fn about_left_out(entry: &PolicyEntry, known: &Known, left_out: &mut Vec<Step<'_>>) {
    let name = entry.name.as_str();
    if entry.description.is_none() && known.policy.description.is_some() {
        left_out.push(kept(
            name,
            None,
            "The document has no description. The stored one is kept.".to_owned(),
        ));
    }
    let named: std::collections::BTreeSet<&VersionLabel> =
        entry.versions.iter().map(|(label, _)| label).collect();
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
        left_out.push(kept(
            name,
            Some(&rollout.version),
            format!(
                "The document has no version active. This one stays active (generation {}); roll its rollout back to \
                 take it from its devices.",
                rollout.generation
            ),
        ));
    }
}

fn kept<'a>(policy: &str, version: Option<&VersionLabel>, detail: String) -> Step<'a> {
    Step {
        change: change(Action::WouldDelete, policy, version, detail),
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
    match (&target.platforms, &target.devices) {
        (None, None) => "every device".to_owned(),
        (Some(platforms), None) => platform_names(platforms),
        (None, Some(devices)) => format!("{} listed devices", devices.len()),
        (Some(platforms), Some(devices)) => {
            format!(
                "{} listed devices of {}",
                devices.len(),
                platform_names(platforms)
            )
        }
    }
}

fn platform_names(platforms: &[muster_model::platform::Platform]) -> String {
    let names: Vec<&str> = platforms.iter().map(|platform| platform.as_str()).collect();
    names.join(", ")
}
