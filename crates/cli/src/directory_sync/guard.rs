//! What is held back: a plan that takes too much away at once, or lets too many back in.

use std::collections::HashSet;

use super::plan::{ATTRIBUTES, PersonStep, Plan, TeamStep};

/// So many of a kind may always go in one run, unless they are all.
const REMOVALS_FREE: usize = 5;

/// Too much at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooMany {
    /// What there is several of.
    pub what: &'static str,
    pub count: usize,
    pub of: usize,
    pub names: Vec<String>,
    /// Whether they come back instead of going.
    is_return: bool,
}

impl TooMany {
    /// As a part of a sentence.
    pub fn sentence(&self) -> String {
        let verb = if self.is_return { "be active again" } else { "go" };
        format!("{} of {} {} would {verb}", self.count, self.of, self.what)
    }
}

impl Plan {
    /// Where more changes than a share of what is there, and more than a handful: a directory that was half restored or half
    /// hidden looks like this. People, groups and memberships that are all there is are never a handful. `allowed` is the number
    /// that a person allowed for this run.
    pub fn too_many(&self, percent_max: u8, allowed: Option<usize>) -> Vec<TooMany> {
        let people = self.people.iter().filter(|one| one.step.is_end());
        let people: Vec<String> = people.map(|one| one.name.clone()).collect();
        let is_deleted = |step: &TeamStep| matches!(step, TeamStep::Delete { .. });
        let teams = self.teams.iter().filter(|one| is_deleted(&one.step));
        let teams: Vec<String> = teams.map(|one| one.name.clone()).collect();
        let (memberships, leaving) = self.leaving();
        let before = &self.before;
        let going = [
            ("people", people.len(), before.people, people),
            ("groups", teams.len(), before.teams, teams),
            ("memberships", memberships, before.memberships, leaving),
        ];
        let back = &self.reactivated;
        let back = ("inactive people", back.len(), before.inactive, back.clone());
        let lost = self.losses.iter().zip(ATTRIBUTES);
        let lost = lost.map(|(one, (_, what))| (what, one.names.len(), one.of, one.names.clone()));
        let is_too_much = |count: usize, of: usize, is_free: bool| {
            !is_free
                && count.saturating_mul(100) > of.saturating_mul(usize::from(percent_max))
                && allowed.is_none_or(|allowed| count > allowed)
        };
        let going = going
            .into_iter()
            .filter(|(_, count, of, _)| is_too_much(*count, *of, *count <= REMOVALS_FREE && count < of))
            .map(|one| (one, false));
        let back = [(back, true)].into_iter();
        let other = back
            .chain(lost.map(|one| (one, false)))
            .filter(|((_, count, of, _), _)| is_too_much(*count, *of, *count <= REMOVALS_FREE));
        going
            .chain(other)
            .map(|((what, count, of, names), is_return)| TooMany {
                what,
                count,
                of,
                names,
                is_return,
            })
            .collect()
    }

    /// Memberships that go, with a group or without it, and where; not those of people and groups who go themselves, which
    /// follows.
    fn leaving(&self) -> (usize, Vec<String>) {
        let gone = self.gone();
        let members = self
            .members
            .iter()
            .map(|one| (&one.name, one.remove.iter().collect()));
        let teams = self.teams.iter().filter_map(|one| match &one.step {
            TeamStep::Delete { members, .. } => Some((&one.name, members.iter().collect())),
            TeamStep::Create | TeamStep::Rename { .. } => None,
        });
        let (mut all, mut names) = (0, Vec::new());
        for (name, ids) in members.chain(teams) {
            let ids: Vec<&String> = ids;
            let count = ids.into_iter().filter(|id| !gone.contains(id.as_str())).count();
            if count > 0 {
                names.push(format!("{count} from {name}"));
            }
            all += count;
        }
        (all, names)
    }

    fn gone(&self) -> HashSet<&str> {
        let people = self.people.iter().filter_map(|one| match &one.step {
            PersonStep::Deactivate { id, .. } | PersonStep::Delete { id, .. } => Some(id.as_str()),
            PersonStep::Create { .. } | PersonStep::Replace { .. } => None,
        });
        let teams = self.teams.iter().filter_map(|one| match &one.step {
            TeamStep::Delete { id, .. } => Some(id.as_str()),
            TeamStep::Create | TeamStep::Rename { .. } => None,
        });
        people.chain(teams).collect()
    }
}
