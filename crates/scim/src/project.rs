//! `attributes` and `excludedAttributes`: which part of a resource is answered (RFC 7644, section 3.9).

use serde_json::{Map, Value};

use crate::{
    error::{ScimError, ScimType},
    path::{Target, target},
    resource::Resource,
    schema::{Attribute, ResourceType, Returned, Schema},
};

/// Names that one request may list.
const NAMES_MAX: usize = 100;

/// What of a resource is wanted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Projection {
    wanted: Option<Vec<String>>,
    excluded: Vec<String>,
}

/// A listed name, as one resource type reads it.
enum Named {
    Extension(&'static Schema),
    Target(Target),
}

impl Projection {
    /// Reads the two lists; they exclude each other.
    pub fn parse(attributes: &[String], excluded: &[String]) -> Result<Projection, ScimError> {
        if !attributes.is_empty() && !excluded.is_empty() {
            return Err(ScimError::of(
                ScimType::InvalidValue,
                "Send attributes or excludedAttributes, not both.",
            ));
        }
        if attributes.len().max(excluded.len()) > NAMES_MAX {
            return Err(ScimError::of(
                ScimType::InvalidValue,
                "At most 100 attributes are named.",
            ));
        }
        Ok(Projection {
            wanted: (!attributes.is_empty()).then(|| attributes.to_vec()),
            excluded: excluded.to_vec(),
        })
    }

    /// Whether an attribute of the core schema is answered, so that what costs is not read in vain.
    pub fn wants(&self, kind: &'static ResourceType, name: &str) -> bool {
        let names = |listed: &[String], only_whole: bool| {
            listed
                .iter()
                .filter_map(|text| target(kind, text))
                .any(|target| target.attribute.name == name && !(only_whole && target.sub.is_some()))
        };
        match &self.wanted {
            Some(wanted) => names(wanted, false),
            None => !names(&self.excluded, true),
        }
    }

    /// Whether a sub-attribute is asked for by its name.
    pub fn names(&self, kind: &'static ResourceType, name: &str, sub: &str) -> bool {
        let listed = self.wanted.iter().flatten().filter_map(|text| target(kind, text));
        listed
            .into_iter()
            .any(|target| target.attribute.name == name && target.sub.is_some_and(|named| named.name == sub))
    }

    /// The part of a resource that is wanted.
    pub fn of(&self, kind: &'static ResourceType, resource: Resource) -> Resource {
        let read = |listed: &[String]| -> Vec<Named> {
            let one = |text: &String| {
                let extension = kind.extension(text).map(Named::Extension);
                extension.or_else(|| target(kind, text).map(Named::Target))
            };
            listed.iter().filter_map(one).collect()
        };
        match &self.wanted {
            Some(wanted) => only(kind, resource, &read(wanted)),
            None if self.excluded.is_empty() => resource,
            None => without(resource, &read(&self.excluded)),
        }
    }
}

fn only(kind: &'static ResourceType, mut resource: Resource, wanted: &[Named]) -> Resource {
    let mut kept = Resource::new();
    for name in ["schemas", "id"] {
        if let Some(value) = resource.get(name) {
            kept.insert(name.to_owned(), value.clone());
        }
    }
    for named in wanted {
        match named {
            Named::Extension(schema) => {
                if let Some(value) = resource.remove(schema.id) {
                    kept.insert(schema.id.to_owned(), value);
                }
            }
            Named::Target(target) => {
                let (from, to) = match target.extension {
                    None => (Some(&resource), &mut kept),
                    Some(schema) => {
                        let from = resource.get(schema.id).and_then(Value::as_object);
                        if from.is_none() {
                            continue;
                        }
                        let held = kept.entry(schema.id).or_insert_with(|| Value::Object(Map::new()));
                        match held {
                            Value::Object(held) => (from, held),
                            _ => continue,
                        }
                    }
                };
                if let Some(value) = from.and_then(|from| from.get(target.attribute.name)) {
                    take(to, target, value);
                }
            }
        }
    }
    // An extension of which nothing was found is no part of the answer.
    kept.retain(|name, value| {
        kind.extension(name).is_none() || value.as_object().is_none_or(|held| !held.is_empty())
    });
    kept
}

fn take(to: &mut Map<String, Value>, target: &Target, value: &Value) {
    let Some(sub) = target.sub else {
        to.insert(target.attribute.name.to_owned(), value.clone());
        return;
    };
    let part = |value: &Value| {
        let held = value.get(sub.name)?;
        Some((sub.name.to_owned(), held.clone()))
    };
    match (value, to.get_mut(target.attribute.name)) {
        (Value::Array(items), None) => {
            let parts: Vec<Value> = items
                .iter()
                .map(|item| Value::Object(part(item).into_iter().collect()))
                .collect();
            to.insert(target.attribute.name.to_owned(), Value::Array(parts));
        }
        (Value::Array(items), Some(Value::Array(held))) => {
            for (item, held) in items.iter().zip(held) {
                if let Some(held) = held.as_object_mut() {
                    held.extend(part(item));
                }
            }
        }
        (Value::Object(_), Some(Value::Object(held))) => held.extend(part(value)),
        (one, _) => {
            let parts: Map<String, Value> = part(one).into_iter().collect();
            if !parts.is_empty() {
                to.insert(target.attribute.name.to_owned(), Value::Object(parts));
            }
        }
    }
}

fn without(mut resource: Resource, excluded: &[Named]) -> Resource {
    let may_go = |attribute: &Attribute| attribute.returned != Returned::Always;
    for named in excluded {
        match named {
            Named::Extension(schema) => drop(resource.remove(schema.id)),
            Named::Target(target) if may_go(target.leaf()) => {
                let holder = match target.extension {
                    None => Some(&mut resource),
                    Some(schema) => resource.get_mut(schema.id).and_then(Value::as_object_mut),
                };
                if let Some(holder) = holder {
                    leave(holder, target);
                }
            }
            Named::Target(_) => {}
        }
    }
    resource
}

fn leave(holder: &mut Map<String, Value>, target: &Target) {
    let Some(sub) = target.sub else {
        holder.remove(target.attribute.name);
        return;
    };
    match holder.get_mut(target.attribute.name) {
        Some(Value::Array(items)) => {
            for item in items.iter_mut().filter_map(Value::as_object_mut) {
                item.remove(sub.name);
            }
        }
        Some(Value::Object(members)) => drop(members.remove(sub.name)),
        _ => {}
    }
}
