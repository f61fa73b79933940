//! PATCH (RFC 7644, section 3.5.2), with what Entra ID and Okta make of it.
//!
//! Operation names in any case; an object without a path whose members are paths (`name.givenName`,
//! `urn:…:User:department`, `emails[type eq "work"].value`); read-only members of such an object are dropped.

use serde_json::{Map, Value};

use crate::{
    error::{ScimError, ScimType, syntax, value},
    evaluate::matches,
    filter::{Condition, Filter, Literal, Operator},
    path::{PatchPath, Target},
    resource::{self, Resource, VALUES_MAX, canonical, is_kept, single},
    schema::{Attribute, Mutability, ResourceType},
};

/// Operations of one request.
pub const OPERATIONS_MAX: usize = 1000;
/// The URN of a PATCH request.
const PATCH_URN: &str = "urn:ietf:params:scim:api:messages:2.0:PatchOp";

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationKind {
    Add,
    Remove,
    Replace,
}

/// One operation as sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    pub kind: OperationKind,
    pub path: Option<String>,
    pub value: Option<Value>,
}

/// Reads a PATCH request.
pub fn operations(sent: Value) -> Result<Vec<Operation>, ScimError> {
    let Value::Object(members) = sent else {
        return Err(syntax("A PATCH request is a JSON object."));
    };
    let mut found = None;
    let mut is_patch = false;
    for (name, value) in members {
        match name.to_ascii_lowercase().as_str() {
            "operations" => found = Some(value),
            "schemas" => {
                let urns = value.as_array().map(Vec::as_slice).unwrap_or_default();
                is_patch = urns.iter().any(|urn| {
                    urn.as_str()
                        .is_some_and(|urn| urn.eq_ignore_ascii_case(PATCH_URN))
                });
            }
            _ => {}
        }
    }
    if !is_patch {
        return Err(syntax(format!(
            "schemas is missing, or does not name {PATCH_URN}."
        )));
    }
    let Some(Value::Array(items)) = found else {
        return Err(syntax("Operations is a list."));
    };
    if items.is_empty() || items.len() > OPERATIONS_MAX {
        return Err(value("A PATCH request has 1 to 1,000 operations."));
    }
    items.into_iter().map(operation).collect()
}

fn operation(sent: Value) -> Result<Operation, ScimError> {
    let Value::Object(members) = sent else {
        return Err(syntax("An operation is a JSON object."));
    };
    let (mut kind, mut path, mut value_of) = (None, None, None);
    for (name, member) in members {
        match (name.to_ascii_lowercase().as_str(), member) {
            ("op", Value::String(op)) => {
                kind = match op.to_ascii_lowercase().as_str() {
                    "add" => Some(OperationKind::Add),
                    "remove" => Some(OperationKind::Remove),
                    "replace" => Some(OperationKind::Replace),
                    _ => None,
                }
            }
            ("path", Value::String(text)) => path = Some(text).filter(|text| !text.trim().is_empty()),
            ("path", Value::Null) => {}
            ("path", _) => return Err(ScimError::of(ScimType::InvalidPath, "path is a text.")),
            ("value", member) => value_of = Some(member),
            _ => {}
        }
    }
    let kind = kind.ok_or_else(|| syntax("op is add, remove or replace."))?;
    if kind == OperationKind::Remove && path.is_none() {
        return Err(ScimError::of(ScimType::NoTarget, "remove needs a path."));
    }
    if kind != OperationKind::Remove && value_of.is_none() {
        return Err(value("add and replace need a value."));
    }
    Ok(Operation {
        kind,
        path,
        value: value_of,
    })
}

/// Carries operations out, in their order, all or none: on an error the resource is half changed and is to be dropped.
pub fn apply(
    kind: &'static ResourceType,
    resource: &mut Resource,
    operations: Vec<Operation>,
) -> Result<(), ScimError> {
    let attributes = kind.schema.attributes.iter();
    let lasting: Vec<&str> = attributes
        .filter(|attribute| attribute.is_lasting && resource.contains_key(attribute.name))
        .map(|attribute| attribute.name)
        .collect();
    for operation in operations {
        let Some(path) = &operation.path else {
            apply_members(kind, resource, operation)?;
            continue;
        };
        let path = PatchPath::parse(kind, path)?;
        apply_one(kind, resource, &path, operation.kind, operation.value)?;
    }
    // Null in its place is a removal too.
    if let Some(name) = lasting.into_iter().find(|name| !resource.contains_key(*name)) {
        return Err(value(format!("{name} stays: give it a value.")));
    }
    resource::check(kind, resource)
}

/// An object without a path: each member is an operation of its own.
fn apply_members(
    kind: &'static ResourceType,
    resource: &mut Resource,
    operation: Operation,
) -> Result<(), ScimError> {
    let Some(Value::Object(members)) = operation.value else {
        return Err(value("Without a path, the value is an object of attributes."));
    };
    for (name, sent) in members {
        if name.eq_ignore_ascii_case("schemas") {
            continue;
        }
        let path = PatchPath::parse(kind, &name)?;
        let is_read_only = match &path {
            PatchPath::Attribute(target) | PatchPath::Values { target, .. } => {
                !target.attribute.is_writable()
            }
            PatchPath::Extension(_) | PatchPath::Unknown => false,
        };
        if !is_read_only {
            apply_one(kind, resource, &path, operation.kind, Some(sent))?;
        }
    }
    Ok(())
}

fn apply_one(
    kind: &'static ResourceType,
    resource: &mut Resource,
    path: &PatchPath,
    what: OperationKind,
    sent: Option<Value>,
) -> Result<(), ScimError> {
    match path {
        PatchPath::Unknown => Ok(()),
        PatchPath::Extension(schema) => {
            if what != OperationKind::Add {
                let is_merged = what == OperationKind::Replace && sent.as_ref().is_some_and(Value::is_object);
                if !is_merged {
                    resource.remove(schema.id);
                }
            }
            let Some(sent) = sent.filter(|_| what != OperationKind::Remove) else {
                return Ok(());
            };
            let Value::Object(members) = sent else {
                return Err(value(format!("{} is an object.", schema.id)));
            };
            for (name, sent) in members {
                let Some(attribute) = schema.attribute(&name).filter(|known| is_kept(known)) else {
                    continue;
                };
                let target = Target {
                    extension: Some(schema),
                    attribute,
                    sub: None,
                };
                in_holder(resource, target, |holder| set(holder, attribute, what, sent))?;
            }
            Ok(())
        }
        PatchPath::Attribute(target) => {
            refuse_read_only(target)?;
            // Which schemas a resource has follows from what it holds.
            if !is_kept(target.leaf()) || target.attribute.name == "schemas" {
                return Ok(());
            }
            refuse_loss(kind, target, what)?;
            in_holder(resource, *target, |holder| match target.sub {
                None => set(holder, target.attribute, what, sent.unwrap_or(Value::Null)),
                Some(sub) => set_sub(holder, target.attribute, sub, what, sent.unwrap_or(Value::Null)),
            })
        }
        PatchPath::Values { target, filter } => {
            refuse_read_only(target)?;
            in_holder(resource, *target, |holder| {
                set_values(holder, target, filter, what, sent.unwrap_or(Value::Null))
            })
        }
    }
}

fn refuse_read_only(target: &Target) -> Result<(), ScimError> {
    if target.attribute.is_writable() && target.leaf().is_writable() {
        return Ok(());
    }
    Err(ScimError::of(
        ScimType::Mutability,
        format!("{} is read-only.", target.text()),
    ))
}

/// What every resource must have is not removed.
fn refuse_loss(kind: &ResourceType, target: &Target, what: OperationKind) -> Result<(), ScimError> {
    let is_needed = target.extension.is_none()
        && (target.attribute.is_required || target.attribute.is_lasting)
        && kind.schema.attributes.contains(target.attribute);
    if what == OperationKind::Remove && is_needed {
        return Err(ScimError::of(
            ScimType::Mutability,
            format!("{} is required.", target.text()),
        ));
    }
    Ok(())
}

/// Does something with the object that holds the attribute, and removes an extension that holds nothing any more.
fn in_holder(
    resource: &mut Resource,
    target: Target,
    change: impl FnOnce(&mut Map<String, Value>) -> Result<(), ScimError>,
) -> Result<(), ScimError> {
    let Some(schema) = target.extension else {
        return change(resource);
    };
    let mut held = match resource.remove(schema.id) {
        Some(Value::Object(held)) => held,
        _ => Map::new(),
    };
    change(&mut held)?;
    if !held.is_empty() {
        resource.insert(schema.id.to_owned(), Value::Object(held));
    }
    Ok(())
}

fn set(
    holder: &mut Map<String, Value>,
    attribute: &'static Attribute,
    what: OperationKind,
    sent: Value,
) -> Result<(), ScimError> {
    let name = attribute.name;
    let new = if what == OperationKind::Remove {
        None
    } else {
        canonical(attribute, sent)?
    };
    let Some(new) = new else {
        // Adding nothing adds nothing.
        if what != OperationKind::Add {
            holder.remove(name);
        }
        return Ok(());
    };
    match (holder.get_mut(name), new) {
        (Some(Value::Array(held)), Value::Array(new)) if what == OperationKind::Add => {
            add_values(held, new, name)
        }
        (Some(Value::Object(held)), Value::Object(new)) => {
            held.extend(new);
            Ok(())
        }
        (_, new) => {
            holder.insert(name.to_owned(), new);
            Ok(())
        }
    }
}

fn add_values(held: &mut Vec<Value>, new: Vec<Value>, name: &str) -> Result<(), ScimError> {
    for item in new {
        if held.contains(&item) {
            continue;
        }
        demote(held, &item);
        held.push(item);
    }
    if held.len() > VALUES_MAX {
        return Err(value(format!("{name} has more than {VALUES_MAX} values.")));
    }
    Ok(())
}

/// A new primary value takes the place of the one before (RFC 7644, section 3.5.2).
fn demote(held: &mut [Value], new: &Value) {
    if new["primary"] != Value::Bool(true) {
        return;
    }
    for item in held.iter_mut().filter_map(Value::as_object_mut) {
        if item.contains_key("primary") {
            item.insert("primary".to_owned(), Value::Bool(false));
        }
    }
}

/// `name.givenName`; of an attribute with several values, that part of each.
fn set_sub(
    holder: &mut Map<String, Value>,
    attribute: &'static Attribute,
    sub: &'static Attribute,
    what: OperationKind,
    sent: Value,
) -> Result<(), ScimError> {
    let new = if what == OperationKind::Remove {
        None
    } else {
        single(sub, sent)?
    };
    let mut items = match holder.remove(attribute.name) {
        Some(Value::Array(items)) => items,
        Some(one) => vec![one],
        None => Vec::new(),
    };
    if items.is_empty() && new.is_some() {
        items.push(Value::Object(Map::new()));
    }
    for item in items.iter_mut().filter_map(Value::as_object_mut) {
        put_sub(item, sub, new.clone());
    }
    keep(holder, attribute, items);
    Ok(())
}

fn put_sub(item: &mut Map<String, Value>, sub: &Attribute, new: Option<Value>) {
    match new {
        Some(new) => drop(item.insert(sub.name.to_owned(), new)),
        None => drop(item.remove(sub.name)),
    }
}

/// Stores what is left of an attribute's values.
fn keep(holder: &mut Map<String, Value>, attribute: &Attribute, mut items: Vec<Value>) {
    items.retain(|item| item.as_object().is_none_or(|members| !members.is_empty()));
    if items.is_empty() {
        return;
    }
    let stored = if attribute.is_multiple {
        Value::Array(items)
    } else {
        items.swap_remove(0)
    };
    holder.insert(attribute.name.to_owned(), stored);
}

/// `emails[type eq "work"].value`.
fn set_values(
    holder: &mut Map<String, Value>,
    target: &Target,
    filter: &Filter,
    what: OperationKind,
    sent: Value,
) -> Result<(), ScimError> {
    let attribute = target.attribute;
    let mut items = match holder.remove(attribute.name) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    let is_meant = |item: &Value| item.as_object().is_some_and(|members| matches(filter, members));
    let meant: Vec<usize> = (0..items.len()).filter(|at| is_meant(&items[*at])).collect();
    match (what, target.sub) {
        (OperationKind::Remove, None) => items.retain(|item| !is_meant(item)),
        (OperationKind::Remove, Some(sub)) => {
            for at in meant {
                if let Some(item) = items[at].as_object_mut() {
                    put_sub(item, sub, None);
                }
            }
        }
        (OperationKind::Replace, _) if meant.is_empty() => {
            return Err(ScimError::of(
                ScimType::NoTarget,
                format!("No value of {} is as the filter says.", attribute.name),
            ));
        }
        (OperationKind::Add | OperationKind::Replace, sub) => {
            let mut new = match sub {
                Some(sub) => single(sub, sent)?
                    .map(|value| Map::from_iter([(sub.name.to_owned(), value)]))
                    .unwrap_or_default(),
                None => match single(attribute, sent)? {
                    Some(Value::Object(members)) => members,
                    _ => return Err(value(format!("A value of {} is an object.", attribute.name))),
                },
            };
            if new.get("primary") == Some(&Value::Bool(true)) {
                demote(&mut items, &Value::Object(new.clone()));
            }
            if meant.is_empty() {
                let mut made = described(filter);
                made.append(&mut new);
                items.push(Value::Object(made));
            } else {
                for at in meant {
                    let is_whole = what == OperationKind::Replace && sub.is_none();
                    match items[at].as_object_mut() {
                        Some(item) if !is_whole => item.extend(new.clone()),
                        _ => items[at] = Value::Object(new.clone()),
                    }
                }
            }
        }
    }
    if items.len() > VALUES_MAX {
        return Err(value(format!(
            "{} has more than {VALUES_MAX} values.",
            attribute.name
        )));
    }
    keep(holder, attribute, items);
    Ok(())
}

/// The members that a filter of equalities describes: what `emails[type eq "work"].value` adds has the type `work`.
fn described(filter: &Filter) -> Map<String, Value> {
    match filter {
        Filter::Compare(Condition {
            target,
            operator: Operator::Equal,
            literal,
        }) if target.attribute.mutability == Mutability::ReadWrite => {
            let value = match literal {
                Literal::Text(text) => Value::String(text.clone()),
                Literal::Bool(truth) => Value::Bool(*truth),
                Literal::Null => return Map::new(),
            };
            Map::from_iter([(target.attribute.name.to_owned(), value)])
        }
        Filter::And(all) => all.iter().flat_map(described).collect(),
        _ => Map::new(),
    }
}
