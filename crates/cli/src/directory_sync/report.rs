//! A run as people and programs see it.

use serde_json::{Value, json};

use crate::output::{Sheet, clean};

use super::carry::Done;
use super::guard::TooMany;
use super::plan::{Named, PersonStep, Plan, TeamStep};
use super::reading::Reading;

/// Rows of a table for people; `-o json` has all.
const ROWS_MAX: usize = 200;

/// How a run went.
#[derive(Debug)]
pub struct Report {
    pub reading: Reading,
    pub plan: Plan,
    /// Nothing where it was only looked at, or held back.
    pub done: Option<Done>,
    pub held_back: Vec<TooMany>,
}

fn word(step: &PersonStep) -> &'static str {
    match step {
        PersonStep::Create { .. } => "create",
        PersonStep::Deactivate { .. } => "deactivate",
        PersonStep::Replace { .. } => "update",
        PersonStep::Delete { .. } => "delete",
    }
}

fn team_word(step: &TeamStep) -> &'static str {
    match step {
        TeamStep::Create => "create",
        TeamStep::Rename { .. } => "update",
        TeamStep::Delete { .. } => "delete",
    }
}

fn why(one: &Named<PersonStep>) -> String {
    match &one.step {
        PersonStep::Create { .. } => String::new(),
        PersonStep::Replace { changed, .. } => changed.join(", "),
        PersonStep::Deactivate { .. } if one.dn.is_some() => "the directory says not active".to_owned(),
        PersonStep::Deactivate { .. } | PersonStep::Delete { .. } => "the entry is gone".to_owned(),
    }
}

impl Report {
    /// Whether something is not as it should be.
    pub fn is_bad(&self) -> bool {
        let has_failed = self.done.as_ref().is_some_and(|done| !done.failures.is_empty());
        has_failed
            || !self.held_back.is_empty()
            || !self.plan.problems.is_empty()
            || !self.reading.is_complete()
    }

    /// What to say at the end of a run that is bad.
    pub fn sentence(&self) -> String {
        let failures = self.done.as_ref().map_or(0, |done| done.failures.len());
        let mut parts = Vec::new();
        if let Some(most) = self.held_back.iter().map(|one| one.count).max() {
            let kinds: Vec<String> = self.held_back.iter().map(TooMany::sentence).collect();
            parts.push(format!(
                "nothing was done: {}. If that is meant: --allow-removals {most}",
                kinds.join(", ")
            ));
        }
        if !self.reading.is_complete() {
            parts.push(format!(
                "the directory was not read to its end, so nobody was taken away ({})",
                self.reading.cuts.join("; ")
            ));
        }
        if !self.plan.problems.is_empty() {
            parts.push(format!("entries that are left out: {}", self.plan.problems.len()));
        }
        if failures > 0 {
            parts.push(format!("changes that Muster refused: {failures}"));
        }
        parts.join("; ")
    }

    /// One line about a run, for a journal.
    pub fn line(&self) -> String {
        let read = format!(
            "read {}, {}",
            counted(self.reading.people.len(), "person", "people"),
            counted(self.reading.teams.len(), "group", "groups")
        );
        let Some(done) = &self.done else {
            return read;
        };
        let counts = [
            (done.created, "created"),
            (done.updated, "updated"),
            (done.deactivated, "deactivated"),
            (done.deleted, "deleted"),
            (done.managers, "given their managers"),
        ];
        let people = counts
            .into_iter()
            .map(|(count, what)| (count, format!("{count} {what}")));
        let counts = [
            (done.teams_created, "created"),
            (done.teams_updated, "updated"),
            (done.teams_deleted, "deleted"),
        ];
        let teams = counts
            .into_iter()
            .map(|(count, what)| (count, format!("{} {what}", counted(count, "group", "groups"))));
        let counts = [(done.members_added, "added"), (done.members_removed, "removed")];
        let members = counts
            .into_iter()
            .map(|(count, what)| (count, format!("{} {what}", counted(count, "member", "members"))));
        let refused = (done.failures.len(), format!("{} refused", done.failures.len()));
        let said: Vec<String> = people
            .chain(teams)
            .chain(members)
            .chain([refused])
            .filter(|(count, _)| *count > 0)
            .map(|(_, text)| text)
            .collect();
        match said.is_empty() {
            true => format!("{read}; nothing changed"),
            false => format!("{read}; {}", said.join(", ")),
        }
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let person = |one: &Named<PersonStep>| {
            json!({
                "do": word(&one.step), "user_name": one.name, "external_id": one.external_id, "dn": one.dn,
                "changed": match &one.step { PersonStep::Replace { changed, .. } => Some(changed), _ => None },
            })
        };
        let team = |one: &Named<TeamStep>| json!({"do": team_word(&one.step), "name": one.name, "external_id": one.external_id, "dn": one.dn});
        let problems = self.plan.problems.iter();
        let held_back = self.held_back.iter();
        json!({
            "read": {
                "people": self.reading.people.len(), "groups": self.reading.teams.len(),
                "memberships": self.reading.memberships(), "referrals": self.reading.referrals,
                "members_elsewhere": self.plan.members_elsewhere, "complete": self.reading.is_complete(),
                "cut_off": self.reading.cuts,
            },
            "plan": {
                "people": self.plan.people.iter().map(person).collect::<Vec<_>>(),
                "managers": self.plan.managers.len(),
                "groups": self.plan.teams.iter().map(team).collect::<Vec<_>>(),
                "members": self.plan.members.iter().map(|one| {
                    json!({"group": one.name, "add": one.add.len(), "remove": one.remove.len()})
                }).collect::<Vec<_>>(),
            },
            "problems": problems.map(|one| json!({"dn": one.dn, "why": one.why})).collect::<Vec<_>>(),
            "held_back": held_back.map(|one| {
                json!({"what": one.what, "count": one.count, "of": one.of, "names": one.names})
            }).collect::<Vec<_>>(),
            "done": self.done.as_ref().map(|done| json!({
                "created": done.created, "updated": done.updated, "deactivated": done.deactivated, "deleted": done.deleted,
                "managers_set": done.managers, "groups_created": done.teams_created, "groups_updated": done.teams_updated,
                "groups_deleted": done.teams_deleted, "members_added": done.members_added,
                "members_removed": done.members_removed,
                "refused": done.failures.iter().map(|one| json!({"what": one.what, "why": one.detail})).collect::<Vec<_>>(),
            })),
        })
    }

    /// For people: what is planned, or what went wrong.
    pub fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::new();
        if self.done.is_none() {
            sheet = self.planned(sheet);
        }
        let held = self
            .held_back
            .iter()
            .flat_map(|one| one.names.iter().map(|name| (one.what, name)));
        let held: Vec<Vec<String>> = held
            .take(ROWS_MAX)
            .map(|(what, name)| vec![what.to_owned(), clean(name)])
            .collect();
        if !held.is_empty() {
            sheet = sheet.rows("removals", &["too many", "name"], held);
        }
        let problems = self.plan.problems.iter().take(ROWS_MAX);
        let problems: Vec<Vec<String>> = problems
            .map(|one| vec![clean(&one.dn), clean(&one.why)])
            .collect();
        if !problems.is_empty() {
            sheet = sheet.rows("problems", &["left out", "why"], problems);
        }
        let failures = self.done.iter().flat_map(|done| &done.failures).take(ROWS_MAX);
        let failures: Vec<Vec<String>> = failures
            .map(|one| vec![clean(&one.what), clean(&one.detail)])
            .collect();
        if !failures.is_empty() {
            sheet = sheet.rows("refusals", &["refused", "why"], failures);
        }
        sheet.text(self.summary())
    }

    fn planned(&self, sheet: Sheet) -> Sheet {
        let people = self.plan.people.iter().map(|one| {
            vec![
                word(&one.step).to_owned(),
                "user".to_owned(),
                clean(&one.name),
                clean(&why(one)),
            ]
        });
        let teams = self.plan.teams.iter().map(|one| {
            vec![
                team_word(&one.step).to_owned(),
                "group".to_owned(),
                clean(&one.name),
                String::new(),
            ]
        });
        let members = self.plan.members.iter().map(|one| {
            let (add, remove) = (one.add.len(), one.remove.len());
            vec![
                "members".to_owned(),
                "group".to_owned(),
                clean(&one.name),
                format!("{add} added, {remove} removed"),
            ]
        });
        let rows: Vec<Vec<String>> = people.chain(teams).chain(members).collect();
        let left_out = rows.len().saturating_sub(ROWS_MAX);
        let rows = rows.into_iter().take(ROWS_MAX).collect();
        let sheet = sheet.rows(
            "changes: Muster knows what the directory knows",
            &["do", "what", "name", "why"],
            rows,
        );
        match left_out {
            0 => sheet,
            more => sheet.text(format!("… and {more} more; -o json has all.")),
        }
    }

    fn summary(&self) -> String {
        let mut lines = vec![match &self.done {
            Some(_) => capitalized(&self.line()),
            None => format!(
                "{}; {} of people, {} of groups, {} of memberships",
                capitalized(&self.line()),
                counted(self.plan.people.len(), "change", "changes"),
                self.plan.teams.len(),
                self.plan.members.len()
            ),
        }];
        if self.reading.referrals > 0 {
            let count = counted(self.reading.referrals, "reference", "references");
            lines.push(format!("Not followed: {count} to other servers"));
        }
        if self.plan.members_elsewhere > 0 {
            let count = counted(self.plan.members_elsewhere, "member", "members");
            lines.push(format!(
                "Left out: {count} of groups, about whom no entry was read"
            ));
        }
        lines
            .iter()
            .map(|line| format!("{line}."))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
