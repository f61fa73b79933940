//! What becomes of groups.

use std::collections::BTreeSet;

use super::{Action, LeftOut, State, Step, Work, group_change};
use crate::{
    configuration::document::Entries,
    groups::{Group, NewGroup},
};

/// The groups that are new or become another. A description that the document does not have is kept.
pub fn about_groups<'a>(
    entries: &'a Entries,
    state: &State,
    steps: &mut Vec<Step<'a>>,
    left_out: &mut Vec<Step<'a>>,
) {
    for group in entries.groups.iter().flatten() {
        let name = group.name.as_str();
        let Some(stored) = state.groups.by_name.get(name) else {
            steps.push(Step {
                change: group_change(
                    Action::CreateGroup,
                    name,
                    format!("A new group: {}.", expressions(group)),
                ),
                work: Work::CreateGroup { group },
            });
            continue;
        };
        if group.description.is_none() && stored.description.is_some() {
            let detail = "The document has no description. The stored one is kept.".to_owned();
            left_out.push(Step {
                change: group_change(Action::Keep, name, detail),
                work: Work::Keep,
            });
        }
        steps.extend(changed(group, stored));
    }
}

/// The names of the groups whose members these steps change: they are known some time after that.
pub fn moving(steps: &[Step<'_>]) -> BTreeSet<String> {
    let moving = steps.iter().filter_map(|step| match &step.work {
        Work::CreateGroup { group } => Some(group.name.to_string()),
        Work::UpdateGroup { before, wanted } => {
            has_other_members(wanted, before).then(|| before.name.clone())
        }
        Work::DeleteGroup { .. }
        | Work::Create { .. }
        | Work::Describe { .. }
        | Work::AddVersion { .. }
        | Work::Activate { .. }
        | Work::Restore
        | Work::Withdraw { .. }
        | Work::Archive { .. }
        | Work::Keep => None,
    });
    moving.collect()
}

/// The stored groups that a document which has groups does not name.
pub fn left_out<'a>(entries: &Entries, state: &State, left_out: &mut Vec<Step<'a>>) {
    let Some(groups) = &entries.groups else {
        return;
    };
    let named: BTreeSet<&str> = groups.iter().map(|group| group.name.as_str()).collect();
    let unnamed = state
        .groups
        .by_name
        .values()
        .filter(|group| !named.contains(group.name.as_str()));
    left_out.extend(unnamed.map(|group| {
        let (action, detail, work) = match entries.left_out {
            LeftOut::Refuse => (Action::WouldDelete, "The document has no such group.", Work::Keep),
            LeftOut::Keep => (
                Action::Keep,
                "The document has no such group. It is kept.",
                Work::Keep,
            ),
            LeftOut::Prune => (
                Action::DeleteGroup,
                "The document has no such group. It is deleted, unless something uses it.",
                Work::DeleteGroup {
                    group: Box::new(group.clone()),
                },
            ),
        };
        Step {
            change: group_change(action, &group.name, detail.to_owned()),
            work,
        }
    }));
}

fn changed<'a>(group: &NewGroup, stored: &Group) -> Option<Step<'a>> {
    let stored_description = stored.description.as_deref();
    let description = group.description.as_ref().map(|description| description.as_str());
    let is_described_otherwise = description.is_some() && description != stored_description;
    let detail = match (has_other_members(group, stored), is_described_otherwise) {
        (false, false) => return None,
        (false, true) => "Another description.".to_owned(),
        (true, _) => format!("Its members are found anew: {}.", expressions(group)),
    };
    let kept = || {
        let stored = stored_description?;
        muster_model::text::Description::parse(stored).ok()
    };
    let wanted = NewGroup {
        description: group.description.clone().or_else(kept),
        ..group.clone()
    };
    Some(Step {
        change: group_change(Action::UpdateGroup, &stored.name, detail),
        work: Work::UpdateGroup {
            before: Box::new(stored.clone()),
            wanted: Box::new(wanted),
        },
    })
}

fn has_other_members(group: &NewGroup, stored: &Group) -> bool {
    group.include != stored.include || group.exclude != stored.exclude
}

fn expressions(group: &NewGroup) -> String {
    match &group.exclude {
        None => format!("devices with {}", group.include),
        Some(exclude) => format!("devices with {}, without those with {exclude}", group.include),
    }
}
