//! What becomes of policies and their versions.

use std::collections::{BTreeMap, BTreeSet};

use muster_model::text::VersionLabel;

use super::{Action, Active, Known, LeftOut, Step, Work, activation::whom, change, kept};
use crate::{
    access::problem::{FieldError, VERSION_EXISTS},
    configuration::{document::PolicyEntry, target::KnownGroups},
    rollout::Rollout,
};

/// An archived policy that the document names.
pub fn restored<'a>(name: &str, known: &Known) -> Step<'a> {
    let detail = format!(
        "The archived policy of this name comes back with its {} versions.",
        known.versions.len()
    );
    Step {
        change: change(Action::RestorePolicy, name, None, detail),
        work: Work::Restore,
    }
}

/// A policy that the document leaves out.
pub fn policy_left_out<'a>(name: &str, known: &Known, groups: &KnownGroups, left_out: LeftOut) -> Step<'a> {
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
        (LeftOut::Prune, Some(Active { rollout, .. })) => (
            Action::ArchivePolicy,
            format!(
                "The document has no such policy. Version {} (generation {}) is taken from {}; the policy is archived, \
                 its versions stay.",
                rollout.version,
                rollout.generation,
                whom(&rollout.plan.target, groups)
            ),
            Work::Archive {
                active: Some(Box::new(rollout.clone())),
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

/// Whether a policy is new, or described in other words.
pub fn about_policy<'a>(entry: &'a PolicyEntry, known: Option<&Known>, steps: &mut Vec<Step<'a>>) {
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

/// The versions that are new; `errors` takes those that exist with other content.
pub fn about_versions<'a>(
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

/// What the state has of a policy and the document does not say.
pub fn about_left_out(
    entry: &PolicyEntry,
    known: &Known,
    groups: &KnownGroups,
    what: LeftOut,
    left_out: &mut Vec<Step<'_>>,
) {
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
    if let (None, Some(active)) = (&entry.active, &known.active) {
        left_out.push(activation_left_out(name, &active.rollout, groups, what));
    }
}

fn activation_left_out<'a>(
    name: &str,
    rollout: &Rollout,
    groups: &KnownGroups,
    left_out: LeftOut,
) -> Step<'a> {
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
        whom(&rollout.plan.target, groups),
        rollout.generation
    );
    Step {
        change: change(action, name, Some(&rollout.version), detail),
        work,
    }
}
