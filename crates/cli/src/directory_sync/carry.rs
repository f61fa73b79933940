//! Carries a plan out: people, then their managers, then groups, then members, in bulk requests within the server's bounds.

use std::collections::HashMap;

use indicatif::ProgressBar;
use muster_scim::{BULK_BYTES_MAX, ENTERPRISE_USER, GROUP, USER};
use serde_json::{Value, json};

use crate::CliError;

use super::plan::{Members, PersonStep, Plan, Ref, TeamStep};
use super::scim::{Answered, Scim};

/// Operations of one request: a share of what the server takes, so that the bar moves and an answer comes soon.
const OPERATIONS_MAX: usize = 100;
/// Bytes of the operations of one request; the rest of what the server takes is for what is around them.
const BYTES_MAX: usize = BULK_BYTES_MAX / 2;
/// Members of one operation.
const MEMBERS_MAX: usize = 2_000;
/// Where an operation about members has them.
const MEMBERS: &str = "/data/Operations/0/value";
const PATCH_URN: &str = "urn:ietf:params:scim:api:messages:2.0:PatchOp";

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    pub created: usize,
    pub updated: usize,
    pub deactivated: usize,
    pub deleted: usize,
    /// Managers who were made in the same run.
    pub managers: usize,
    pub teams_created: usize,
    pub teams_updated: usize,
    pub teams_deleted: usize,
    pub members_added: usize,
    pub members_removed: usize,
    pub failures: Vec<Failure>,
}

/// What Muster did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub what: String,
    pub detail: String,
}

/// One operation, and what it means.
struct Operation {
    body: Value,
    what: String,
    kind: Kind,
    /// What is made, by the external id.
    makes: Option<Ref>,
    is_again: bool,
}

impl Operation {
    /// The same in two, where it is about several members.
    fn halves(&self) -> Option<[Operation; 2]> {
        let (Kind::MembersAdded(count) | Kind::MembersRemoved(count)) = self.kind else {
            return None;
        };
        let of = |from: usize, to: usize| {
            let mut body = self.body.clone();
            let Some(Value::Array(members)) = body.pointer_mut(MEMBERS) else {
                return None;
            };
            *members = members.get(from..to)?.to_vec();
            Some(Operation {
                body,
                what: self.what.clone(),
                kind: match self.kind {
                    Kind::MembersAdded(_) => Kind::MembersAdded(to - from),
                    _ => Kind::MembersRemoved(to - from),
                },
                makes: None,
                is_again: self.is_again,
            })
        };
        if count < 2 {
            return None;
        }
        Some([of(0, count / 2)?, of(count / 2, count)?])
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Created,
    Updated,
    Deactivated,
    Deleted,
    Manager,
    TeamCreated,
    TeamUpdated,
    TeamDeleted,
    MembersAdded(usize),
    MembersRemoved(usize),
}

/// How many operations a plan is, about.
pub fn size(plan: &Plan) -> u64 {
    (plan.people.len() + plan.managers.len() + plan.teams.len() + plan.members.len()) as u64
}

/// Carries a plan out. What Muster refuses is counted, and the rest goes on.
///
/// # Errors
/// The server did not answer, or refused everything: what is missing is found by the next run. The first value holds what was
/// done until then.
pub async fn carry(plan: &Plan, scim: &Scim, bar: &ProgressBar) -> (Done, Result<(), CliError>) {
    let mut run = Run {
        scim,
        bar,
        made: HashMap::new(),
        done: Done::default(),
    };
    let outcome = run.all(plan).await;
    (run.done, outcome)
}

struct Run<'a> {
    scim: &'a Scim,
    bar: &'a ProgressBar,
    made: HashMap<Ref, String>,
    done: Done,
}

impl Run<'_> {
    async fn all(&mut self, plan: &Plan) -> Result<(), CliError> {
        // Names are given free before they are given away.
        let (later, first): (Vec<_>, Vec<_>) = plan
            .people
            .iter()
            .partition(|one| matches!(one.step, PersonStep::Create { .. }));
        self.send(first.into_iter().map(person).collect()).await?;
        self.send(later.into_iter().map(person).collect()).await?;
        let managers = plan
            .managers
            .iter()
            .filter_map(|pair| self.manager(pair))
            .collect();
        self.send(managers).await?;
        self.send(plan.teams.iter().map(team).collect()).await?;
        let mut members = Vec::new();
        for one in &plan.members {
            self.members(one, &mut members);
        }
        self.send(members).await
    }

    fn id(&self, who: &Ref) -> Option<String> {
        match who {
            Ref::Known(id) => Some(id.clone()),
            Ref::Person(_) | Ref::Team(_) => self.made.get(who).cloned(),
        }
    }

    fn manager(&self, (of, manager): &(Ref, Ref)) -> Option<Operation> {
        // Who was refused is told as refused.
        let (of, manager) = (self.id(of)?, self.id(manager)?);
        let path = format!("{}:manager", ENTERPRISE_USER.id);
        let operations = json!([{"op": "replace", "path": path, "value": {"value": manager}}]);
        Some(Operation {
            body: patch(&format!("/Users/{of}"), None, operations),
            what: format!("the manager of {of}"),
            kind: Kind::Manager,
            makes: None,
            is_again: false,
        })
    }

    fn members(&self, members: &Members, into: &mut Vec<Operation>) {
        let Some(team) = self.id(&members.team) else {
            return;
        };
        let path = format!("/Groups/{team}");
        let added: Vec<String> = members.add.iter().filter_map(|who| self.id(who)).collect();
        let parts = [("remove", &members.remove), ("add", &added)];
        for (op, ids) in parts {
            for ids in ids.chunks(MEMBERS_MAX) {
                let values: Vec<Value> = ids.iter().map(|id| json!({"value": id})).collect();
                let operations = json!([{"op": op, "path": "members", "value": values}]);
                into.push(Operation {
                    body: patch(&path, None, operations),
                    what: format!("members of the group {}", members.name),
                    kind: match op {
                        "add" => Kind::MembersAdded(ids.len()),
                        _ => Kind::MembersRemoved(ids.len()),
                    },
                    makes: None,
                    is_again: false,
                });
            }
        }
    }

    /// Sends operations, and once more those whose name somebody had who is renamed by a later one. Members of whom one is not
    /// taken are sent again in halves, until only that one is left out.
    async fn send(&mut self, mut operations: Vec<Operation>) -> Result<(), CliError> {
        while !operations.is_empty() {
            operations = self.once(operations).await?;
        }
        Ok(())
    }

    async fn once(&mut self, operations: Vec<Operation>) -> Result<Vec<Operation>, CliError> {
        let (mut part, mut bytes, mut again) = (Vec::new(), 0, Vec::new());
        for (at, mut operation) in operations.into_iter().enumerate() {
            if operation.makes.is_some()
                && let Value::Object(body) = &mut operation.body
            {
                body.insert("bulkId".to_owned(), at.to_string().into());
            }
            let size = operation.body.to_string().len();
            if part.len() == OPERATIONS_MAX || (bytes + size > BYTES_MAX && !part.is_empty()) {
                again.extend(self.part(std::mem::take(&mut part)).await?);
                bytes = 0;
            }
            bytes += size;
            part.push(operation);
        }
        again.extend(self.part(part).await?);
        Ok(again)
    }

    async fn part(&mut self, part: Vec<Operation>) -> Result<Vec<Operation>, CliError> {
        if part.is_empty() {
            return Ok(Vec::new());
        }
        let bodies: Vec<Value> = part.iter().map(|one| one.body.clone()).collect();
        let told = self.scim.bulk(&bodies).await?;
        self.bar.inc(part.len() as u64);
        let mut again = Vec::new();
        for (mut operation, answered) in part.into_iter().zip(told) {
            if answered.status == 409 && !operation.is_again {
                operation.is_again = true;
                again.push(operation);
                continue;
            }
            if matches!(answered.status, 400 | 404)
                && let Some(halves) = operation.halves()
            {
                again.extend(halves);
                continue;
            }
            self.note(operation, answered);
        }
        Ok(again)
    }

    fn note(&mut self, operation: Operation, answered: Answered) {
        if !answered.is_done() {
            self.done.failures.push(Failure {
                what: operation.what,
                detail: answered
                    .detail
                    .unwrap_or_else(|| format!("Muster answers {}", answered.status)),
            });
            return;
        }
        if let (Some(who), Some(id)) = (operation.makes, answered.id) {
            self.made.insert(who, id);
        }
        match operation.kind {
            Kind::Created => self.done.created += 1,
            Kind::Updated => self.done.updated += 1,
            Kind::Deactivated => self.done.deactivated += 1,
            Kind::Deleted => self.done.deleted += 1,
            Kind::Manager => self.done.managers += 1,
            Kind::TeamCreated => self.done.teams_created += 1,
            Kind::TeamUpdated => self.done.teams_updated += 1,
            Kind::TeamDeleted => self.done.teams_deleted += 1,
            Kind::MembersAdded(count) => self.done.members_added += count,
            Kind::MembersRemoved(count) => self.done.members_removed += count,
        }
    }
}

fn patch(path: &str, version: Option<&str>, operations: Value) -> Value {
    let mut body = json!({
        "method": "PATCH", "path": path, "data": {"schemas": [PATCH_URN], "Operations": operations},
    });
    if let (Some(version), Value::Object(body)) = (version, &mut body) {
        body.insert("version".to_owned(), version.into());
    }
    body
}

fn user_data(resource: &serde_json::Map<String, Value>) -> Value {
    let mut data = resource.clone();
    data.insert("schemas".to_owned(), json!([USER.id, ENTERPRISE_USER.id]));
    Value::Object(data)
}

fn person(one: &super::plan::Named<PersonStep>) -> Operation {
    let path = |id: &str| format!("/Users/{id}");
    let (body, kind, makes) = match &one.step {
        PersonStep::Create { resource } => (
            json!({"method": "POST", "path": "/Users", "data": user_data(resource)}),
            Kind::Created,
            Some(Ref::Person(one.external_id.clone())),
        ),
        PersonStep::Replace {
            id,
            version,
            resource,
            ..
        } => {
            let mut body = json!({"method": "PUT", "path": path(id), "data": user_data(resource)});
            if let (Some(version), Value::Object(body)) = (version, &mut body) {
                body.insert("version".to_owned(), version.clone().into());
            }
            (body, Kind::Updated, None)
        }
        PersonStep::Deactivate { id, version } => {
            let operations = json!([{"op": "replace", "path": "active", "value": false}]);
            (
                patch(&path(id), Some(version), operations),
                Kind::Deactivated,
                None,
            )
        }
        PersonStep::Delete { id, version } => (
            json!({"method": "DELETE", "path": path(id), "version": version}),
            Kind::Deleted,
            None,
        ),
    };
    Operation {
        body,
        what: one.name.clone(),
        kind,
        makes,
        is_again: false,
    }
}

fn team(one: &super::plan::Named<TeamStep>) -> Operation {
    let path = |id: &str| format!("/Groups/{id}");
    let (body, kind, makes) = match &one.step {
        TeamStep::Create => (
            json!({
                "method": "POST", "path": "/Groups",
                "data": {"schemas": [GROUP.id], "displayName": one.name, "externalId": one.external_id},
            }),
            Kind::TeamCreated,
            Some(Ref::Team(one.external_id.clone())),
        ),
        TeamStep::Rename { id, version } => {
            let operations = json!([
                {"op": "replace", "path": "displayName", "value": one.name},
                {"op": "replace", "path": "externalId", "value": one.external_id},
            ]);
            (
                patch(&path(id), Some(version), operations),
                Kind::TeamUpdated,
                None,
            )
        }
        TeamStep::Delete { id, version, .. } => (
            json!({"method": "DELETE", "path": path(id), "version": version}),
            Kind::TeamDeleted,
            None,
        ),
    };
    Operation {
        body,
        what: format!("the group {}", one.name),
        kind,
        makes,
        is_again: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_whom_one_is_not_taken_are_sent_in_halves() {
        let ids = ["a", "b", "c"].map(|id| json!({"value": id}));
        let of = |ids: &[Value]| Operation {
            body: patch(
                "/Groups/g",
                None,
                json!([{"op": "add", "path": "members", "value": ids}]),
            ),
            what: String::new(),
            kind: Kind::MembersAdded(ids.len()),
            makes: None,
            is_again: false,
        };
        let halves = of(&ids).halves().expect("two halves");
        let parts = halves.each_ref().map(|half| half.body.pointer(MEMBERS).cloned());
        assert_eq!(parts, [Some(json!(&ids[..1])), Some(json!(&ids[1..]))]);
        assert!(matches!(halves[0].kind, Kind::MembersAdded(1)));
        assert!(matches!(halves[1].kind, Kind::MembersAdded(2)));
        assert!(of(&ids[..1]).halves().is_none(), "one alone is what is refused");
    }
}
