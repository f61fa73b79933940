//! What a document would change: a pure function of the document and the state.

mod activation;
mod groups;
mod policies;

use std::collections::{BTreeMap, BTreeSet};

use muster_model::{
    TenantId,
    text::{Name, VersionLabel},
};
use muster_trust::key::{Digest, sha256_of};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{document::Entries, target::KnownGroups};
use crate::{
    access::problem::{FieldError, Problem, VERSION_EXISTS},
    groups::{Group, NewGroup},
    policy::{Content, Policy},
    rollout::{self, Course, Rollout},
};

const DIGEST_CONTEXT: &[u8] = b"muster-configuration-plan-v1\0";

/// What a tenant has.
#[derive(Debug)]
pub struct State {
    /// The highest one.
    pub generation: u64,
    pub groups: KnownGroups,
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
    pub active: Option<Active>,
}

/// What is active of a policy.
#[derive(Debug, Clone)]
pub struct Active {
    pub rollout: Rollout,
    /// What was asked for when it was activated.
    pub course: Course,
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
    CreateGroup,
    /// Its members are found anew where an expression is another.
    UpdateGroup,
    CreatePolicy,
    DescribePolicy,
    AddVersion,
    /// Starts a rollout.
    Activate,
    /// Its groups are made or changed by this plan, and their members are not known before it is applied: another plan, of
    /// the same document, activates it then.
    ActivateLater,
    /// Brings an archived policy of this name back, with its versions.
    RestorePolicy,
    /// The document leaves out what is active: it is taken from its devices. Only with `prune`.
    Withdraw,
    /// The document leaves the policy out: it is taken from its devices and put away. Only with `prune`.
    ArchivePolicy,
    /// The document has groups and not this one. Only with `prune`.
    DeleteGroup,
    /// The document leaves it out, and neither `prune` nor `partial` says what to do: the plan cannot be applied.
    WouldDelete,
    /// The document leaves it out, and it is kept: versions and descriptions always, everything with `partial`. Or it says
    /// other stages for what is active already.
    Keep,
}

impl Action {
    /// Whether it takes something away, or would.
    pub fn is_deletion(self) -> bool {
        match self {
            Action::Withdraw | Action::ArchivePolicy | Action::DeleteGroup | Action::WouldDelete => true,
            Action::CreateGroup
            | Action::UpdateGroup
            | Action::CreatePolicy
            | Action::DescribePolicy
            | Action::AddVersion
            | Action::Activate
            | Action::ActivateLater
            | Action::RestorePolicy
            | Action::Keep => false,
        }
    }

    /// Whether applying the plan does it.
    pub fn is_made(self) -> bool {
        match self {
            Action::CreateGroup
            | Action::UpdateGroup
            | Action::CreatePolicy
            | Action::DescribePolicy
            | Action::AddVersion
            | Action::Activate
            | Action::RestorePolicy
            | Action::Withdraw
            | Action::ArchivePolicy
            | Action::DeleteGroup => true,
            Action::ActivateLater | Action::WouldDelete | Action::Keep => false,
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
    /// The name of the group that it is about…
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// …or of the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
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

    /// Activations for another plan, when the groups of this one are ready.
    pub fn later(&self) -> impl Iterator<Item = &Change> {
        let changes = self.changes.iter();
        changes.filter(|change| change.action == Action::ActivateLater)
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
    CreateGroup {
        group: &'a NewGroup,
    },
    UpdateGroup {
        before: Box<Group>,
        wanted: Box<NewGroup>,
    },
    DeleteGroup {
        group: Box<Group>,
    },
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
        order: rollout::Order,
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

/// The steps from the state to the document. A version that exists with other content, an activation of one that exists
/// nowhere, and a target with a group that exists nowhere are refused.
pub fn steps<'a>(entries: &'a Entries, state: &State) -> Result<Vec<Step<'a>>, Problem> {
    let mut steps = Vec::new();
    let mut left_out = Vec::new();
    let mut errors = Vec::new();
    groups::about_groups(entries, state, &mut steps, &mut left_out);
    let moving = groups::moving(&steps);
    for entry in &entries.policies {
        let name = entry.name.as_str();
        let archived = state.archived.get(name);
        let known = state.policies.get(name).or(archived);
        if let Some(archived) = archived {
            steps.push(policies::restored(name, archived));
        }
        policies::about_policy(entry, known, &mut steps);
        policies::about_versions(entry, known, &mut steps, &mut errors);
        match activation::about_activation(entry, known, entries, &state.groups, &moving)? {
            Some(step) if step.change.action == Action::Keep => left_out.push(step),
            Some(step) => steps.push(step),
            None => {}
        }
        if let Some(known) = known {
            policies::about_left_out(entry, known, &state.groups, entries.left_out, &mut left_out);
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
    left_out.extend(
        unnamed.map(|(name, known)| policies::policy_left_out(name, known, &state.groups, entries.left_out)),
    );
    // Last: what is taken away with a policy uses its groups no more.
    groups::left_out(entries, state, &mut left_out);
    steps.extend(left_out);
    Ok(steps)
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
        group: None,
        policy: Some(policy.to_owned()),
        version: version.cloned(),
        detail,
    }
}

fn group_change(action: Action, group: &str, detail: String) -> Change {
    Change {
        action,
        group: Some(group.to_owned()),
        policy: None,
        version: None,
        detail,
    }
}
