//! What a request does to a group, without the group's members at hand: a group has as many as there are people.

use serde_json::Value;

use crate::{
    error::{ScimError, ScimType, syntax, value},
    filter::Filter,
    patch::{Operation, OperationKind},
    path::PatchPath,
    resource::{Resource, single},
    schema::{GROUPS, Mutability},
};

/// A member as sent: the id of a user or group.
pub type Member = String;

/// One step of a change.
#[derive(Debug, Clone, PartialEq)]
pub enum GroupStep {
    DisplayName(String),
    ExternalId(Option<String>),
    Add(Vec<Member>),
    Remove(Vec<Member>),
    /// These and no others.
    Replace(Vec<Member>),
    /// Those for which the filter is true.
    RemoveWhere(Filter),
}

/// The members that a whole group names, taken out of it. Each once.
pub fn members_of(sent: &mut Value) -> Result<Vec<Member>, ScimError> {
    let Value::Object(members) = sent else {
        return Err(syntax("A resource is a JSON object."));
    };
    let name = members
        .keys()
        .find(|name| name.eq_ignore_ascii_case("members"))
        .cloned();
    match name.and_then(|name| members.remove(&name)) {
        None => Ok(Vec::new()),
        Some(sent) => member_ids(sent),
    }
}

/// What PATCH operations do to a group.
pub fn group_steps(operations: Vec<Operation>) -> Result<Vec<GroupStep>, ScimError> {
    let mut steps = Vec::new();
    for operation in operations {
        match (operation.path, operation.value) {
            (Some(path), value) => {
                let path = PatchPath::parse(&GROUPS, &path)?;
                steps.extend(step(&path, operation.kind, value)?);
            }
            (None, Some(Value::Object(members))) => {
                for (name, sent) in members {
                    let path = PatchPath::parse(&GROUPS, &name)?;
                    let is_dropped = match &path {
                        PatchPath::Attribute(target) => {
                            !target.attribute.is_writable() || target.attribute.name == "schemas"
                        }
                        _ => false,
                    };
                    if !is_dropped {
                        steps.extend(step(&path, operation.kind, Some(sent))?);
                    }
                }
            }
            (None, _) => return Err(value("Without a path, the value is an object of attributes.")),
        }
    }
    Ok(steps)
}

fn step(path: &PatchPath, what: OperationKind, sent: Option<Value>) -> Result<Option<GroupStep>, ScimError> {
    let target = match path {
        PatchPath::Unknown | PatchPath::Extension(_) => return Ok(None),
        PatchPath::Values { target, filter } if target.attribute.name == "members" => {
            return of_members(filter, what, target.sub.is_some()).map(Some);
        }
        PatchPath::Attribute(target) | PatchPath::Values { target, .. } => target,
    };
    let attribute = target.attribute;
    if attribute.mutability == Mutability::ReadOnly {
        return Err(ScimError::of(
            ScimType::Mutability,
            format!("{} is read-only.", target.text()),
        ));
    }
    match (attribute.name, what) {
        ("displayName", OperationKind::Remove) => {
            Err(ScimError::of(ScimType::Mutability, "displayName is required."))
        }
        ("displayName", _) => match single(attribute, sent.unwrap_or_default())? {
            Some(Value::String(text)) if !text.trim().is_empty() => Ok(Some(GroupStep::DisplayName(text))),
            _ => Err(value("displayName is required.")),
        },
        ("externalId", OperationKind::Remove) => Ok(Some(GroupStep::ExternalId(None))),
        ("externalId", _) => {
            let text = single(attribute, sent.unwrap_or_default())?;
            Ok(Some(GroupStep::ExternalId(
                text.and_then(|text| text.as_str().map(str::to_owned)),
            )))
        }
        ("members", _) if target.sub.is_some() => Err(ScimError::of(
            ScimType::Mutability,
            "A member is added or removed, never changed.",
        )),
        ("members", OperationKind::Add) => Ok(Some(GroupStep::Add(member_ids(sent.unwrap_or_default())?))),
        ("members", OperationKind::Replace) => {
            Ok(Some(GroupStep::Replace(member_ids(sent.unwrap_or_default())?)))
        }
        // Entra ID and Okta name whom to remove in the value; without one, everybody is meant.
        ("members", OperationKind::Remove) => match sent.filter(|sent| !sent.is_null()) {
            Some(sent) => Ok(Some(GroupStep::Remove(member_ids(sent)?))),
            None => Ok(Some(GroupStep::Replace(Vec::new()))),
        },
        _ => Ok(None),
    }
}

/// `members[value eq "…"]`.
fn of_members(filter: &Filter, what: OperationKind, has_sub: bool) -> Result<GroupStep, ScimError> {
    if what != OperationKind::Remove || has_sub {
        return Err(ScimError::of(
            ScimType::Mutability,
            "A member is added or removed, never changed.",
        ));
    }
    Ok(named(filter).map_or_else(|| GroupStep::RemoveWhere(filter.clone()), GroupStep::Remove))
}

/// The members that a filter of nothing but `value eq "…"` and `or` names.
fn named(filter: &Filter) -> Option<Vec<Member>> {
    match filter {
        Filter::Compare(_) => filter.equals("value").map(|id| vec![id.to_owned()]),
        Filter::Or(any) => {
            let each: Option<Vec<Vec<Member>>> = any.iter().map(named).collect();
            Some(each?.into_iter().flatten().collect())
        }
        _ => None,
    }
}

fn member_ids(sent: Value) -> Result<Vec<Member>, ScimError> {
    let items = match sent {
        Value::Array(items) => items,
        Value::Null => Vec::new(),
        one => vec![one],
    };
    let mut ids = Vec::with_capacity(items.len());
    for item in items {
        let id = match item {
            Value::String(id) => Some(id),
            Value::Object(members) => members
                .into_iter()
                .find(|(name, _)| name.eq_ignore_ascii_case("value"))
                .and_then(|(_, id)| id.as_str().map(str::to_owned)),
            _ => None,
        };
        ids.push(
            id.ok_or_else(|| value("A member is an object with the id of a user or group as its value."))?,
        );
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

impl GroupStep {
    /// The steps that make a group what a whole one says (PUT).
    pub fn of_whole(resource: &Resource, members: Vec<Member>) -> Vec<GroupStep> {
        let text = |name: &str| resource.get(name).and_then(Value::as_str).map(str::to_owned);
        vec![
            GroupStep::DisplayName(text("displayName").unwrap_or_default()),
            GroupStep::ExternalId(text("externalId")),
            GroupStep::Replace(members),
        ]
    }
}
