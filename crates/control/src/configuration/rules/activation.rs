//! What becomes of what is active.

use std::collections::BTreeSet;

use super::{Action, Active, Known, LeftOut, Step, Work, change, kept};
use crate::{
    access::problem::{INVALID, Problem},
    configuration::{
        document::{ActiveEntry, Entries, PolicyEntry},
        target::{KnownGroups, TargetDocument},
    },
    rollout::{Order, Target},
};

/// The step to what the document wants active; nothing where it is. `moving` are the groups whose members this plan changes.
pub fn about_activation<'a>(
    entry: &'a PolicyEntry,
    known: Option<&Known>,
    entries: &Entries,
    groups: &KnownGroups,
    moving: &BTreeSet<String>,
) -> Result<Option<Step<'a>>, Problem> {
    let Some(active) = &entry.active else {
        return Ok(None);
    };
    require_version(entry, active, known)?;
    require_not_deleted(entry, active, entries, groups)?;
    let before = known.and_then(|known| known.active.as_ref());
    let target = active.target.resolved(groups);
    if let Some(before) = before.filter(|before| is_same(before, active, target.as_ref())) {
        return Ok(about_course(entry, active, before));
    }
    require_groups(entry, active, entries, groups)?;
    let is_moving = |name: &str| moving.contains(name);
    let waits_for: BTreeSet<&str> = active
        .target
        .named_groups()
        .map(|reference| {
            groups
                .get(reference)
                .map_or(reference.as_str(), |group| &group.name)
        })
        .filter(|name| is_moving(name))
        .collect();
    let instead = match before {
        Some(Active { rollout, .. }) => format!(
            ", in place of version {} (generation {}) for {}.",
            rollout.version,
            rollout.generation,
            whom(&rollout.plan.target, groups)
        ),
        None => ". No version is active.".to_owned(),
    };
    let detail = format!("For {}{instead}", active.target.whom(groups));
    let name = entry.name.as_str();
    let step = match target {
        Some(target) if waits_for.is_empty() => Step {
            change: change(Action::Activate, name, Some(&active.version), detail),
            work: Work::Activate {
                label: &active.version,
                order: Order {
                    target,
                    stages: active.course.stages.clone(),
                    windows: active.course.windows.clone(),
                },
            },
        },
        Some(_) | None => {
            let names: Vec<&str> = waits_for.into_iter().collect();
            let detail = format!(
                "{detail} The members of {} are found after this plan is applied; then another plan activates it.",
                names.join(", ")
            );
            Step {
                change: change(Action::ActivateLater, name, Some(&active.version), detail),
                work: Work::Keep,
            }
        }
    };
    Ok(Some(step))
}

/// The target of a rollout in words.
pub fn whom(target: &Target, groups: &KnownGroups) -> String {
    TargetDocument::of(target, groups).whom(groups)
}

/// Whether devices have what the document wants, or are on their way to it.
fn is_same(before: &Active, active: &ActiveEntry, target: Option<&Target>) -> bool {
    before.rollout.version == active.version && Some(&before.rollout.plan.target) == target
}

/// Other stages for the same version and devices change nothing on any device: there is nothing to roll out.
fn about_course<'a>(entry: &PolicyEntry, active: &ActiveEntry, before: &Active) -> Option<Step<'a>> {
    (active.course != before.course).then(|| {
        let detail = "The document has other stages or windows than those in which this version was activated. It stays as \
                      it is: they count from the next activation on.";
        kept(entry.name.as_str(), Some(&active.version), detail.to_owned())
    })
}

fn require_version(entry: &PolicyEntry, active: &ActiveEntry, known: Option<&Known>) -> Result<(), Problem> {
    let label = &active.version;
    let stored = known.iter().flat_map(|known| &known.versions);
    let is_there = entry.versions.iter().any(|(own, _)| own == label)
        || stored.into_iter().any(|version| version.label == *label);
    if is_there {
        Ok(())
    } else {
        Err(INVALID.detail(format!(
            "{}: version {label} is to be active, and is neither in the document nor stored.",
            entry.name
        )))
    }
}

/// A document that deletes a group cannot go by it.
fn require_not_deleted(
    entry: &PolicyEntry,
    active: &ActiveEntry,
    entries: &Entries,
    groups: &KnownGroups,
) -> Result<(), Problem> {
    let Some(own) = entries
        .groups
        .as_ref()
        .filter(|_| entries.left_out == LeftOut::Prune)
    else {
        return Ok(());
    };
    let stored = active
        .target
        .named_groups()
        .filter_map(|reference| groups.get(reference));
    let deleted = stored
        .map(|group| group.name.as_str())
        .find(|name| own.iter().all(|group| group.name.as_str() != *name));
    match deleted {
        None => Ok(()),
        Some(name) => Err(INVALID.detail(format!(
            "{}: the target names the group {name}, which the document leaves out and `prune` would delete. Put the group \
             into the document, or take it out of the target.",
            entry.name
        ))),
    }
}

fn require_groups(
    entry: &PolicyEntry,
    active: &ActiveEntry,
    entries: &Entries,
    groups: &KnownGroups,
) -> Result<(), Problem> {
    let own = entries.groups.as_deref().unwrap_or_default();
    let unknown = active.target.named_groups().find(|reference| {
        groups.get(reference).is_none() && own.iter().all(|group| group.name != **reference)
    });
    match unknown {
        None => Ok(()),
        Some(reference) => Err(INVALID.detail(format!(
            "{}: the target names the group {reference}, which is neither in the document nor stored.",
            entry.name
        ))),
    }
}
