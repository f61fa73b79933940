//! A resource as a client sent it, brought into the one form that is stored (RFC 7643, sections 2 and 3).

use serde_json::{Map, Value};

use crate::{
    error::{ScimError, ScimType, syntax, value},
    schema::{Attribute, Kind, Mutability, ResourceType},
};

/// A resource's attributes by their names as the schema writes them, extensions below their URN.
pub type Resource = Map<String, Value>;

/// Characters of a text; certificates may have more.
pub const TEXT_CHARS_MAX: usize = 2048;
const BINARY_CHARS_MAX: usize = 32 * 1024;
/// Values of one attribute. Members of groups do not come this way.
pub const VALUES_MAX: usize = 100;
/// Bytes of one user as it is stored.
pub const RESOURCE_BYTES_MAX: usize = 128 * 1024;

/// Takes a resource in: names in any case, what the server says or no schema knows is dropped, passwords too.
pub fn accept(kind: &'static ResourceType, sent: Value) -> Result<Resource, ScimError> {
    let Value::Object(sent) = sent else {
        return Err(syntax("A resource is a JSON object."));
    };
    require_schema(kind, &sent)?;
    let mut resource = Resource::new();
    for (name, sent) in sent {
        put(kind, &mut resource, &name, sent)?;
    }
    check(kind, &resource)?;
    Ok(resource)
}

/// Puts one member of a resource where it belongs.
pub(crate) fn put(
    kind: &'static ResourceType,
    resource: &mut Resource,
    name: &str,
    sent: Value,
) -> Result<(), ScimError> {
    if let Some(schema) = kind.extension(name) {
        let Value::Object(members) = sent else {
            return Err(value(format!("{} is an object.", schema.id)));
        };
        let mut held = Resource::new();
        for (name, sent) in members {
            let Some(attribute) = schema.attribute(&name).filter(|known| is_kept(known)) else {
                continue;
            };
            insert(&mut held, attribute, canonical(attribute, sent)?);
        }
        if !held.is_empty() {
            resource.insert(schema.id.to_owned(), Value::Object(held));
        }
        return Ok(());
    }
    let is_schemas = name.eq_ignore_ascii_case("schemas");
    if let Some(attribute) = kind.attribute(name).filter(|known| is_kept(known) && !is_schemas) {
        insert(resource, attribute, canonical(attribute, sent)?);
    }
    Ok(())
}

fn insert(into: &mut Resource, attribute: &Attribute, value: Option<Value>) {
    match value {
        Some(value) => drop(into.insert(attribute.name.to_owned(), value)),
        None => drop(into.remove(attribute.name)),
    }
}

/// Whether a client's value is kept.
pub(crate) fn is_kept(attribute: &Attribute) -> bool {
    matches!(
        attribute.mutability,
        Mutability::ReadWrite | Mutability::Immutable
    )
}

fn require_schema(kind: &ResourceType, sent: &Map<String, Value>) -> Result<(), ScimError> {
    let schemas = sent
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("schemas"))
        .map(|(_, value)| value);
    let names_it = schemas.and_then(Value::as_array).is_some_and(|urns| {
        urns.iter().any(|urn| {
            urn.as_str()
                .is_some_and(|urn| urn.eq_ignore_ascii_case(kind.schema.id))
        })
    });
    if names_it {
        return Ok(());
    }
    Err(syntax(format!(
        "schemas is missing, or does not name {}.",
        kind.schema.id
    )))
}

/// What must hold of every stored resource.
pub(crate) fn check(kind: &ResourceType, resource: &Resource) -> Result<(), ScimError> {
    for attribute in kind.schema.attributes {
        let value_of = resource.get(attribute.name);
        let is_blank = value_of.is_none_or(|held| held.as_str().is_some_and(|text| text.trim().is_empty()));
        if attribute.is_required && is_blank {
            return Err(value(format!("{} is required.", attribute.name)));
        }
        let primary = |item: &&Value| item["primary"] == Value::Bool(true);
        let items = value_of
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        if items.iter().filter(primary).count() > 1 {
            return Err(value(format!("At most one of {} is primary.", attribute.name)));
        }
    }
    let bytes = serde_json::to_vec(resource).map_or(usize::MAX, |text| text.len());
    if bytes > RESOURCE_BYTES_MAX {
        return Err(value("The resource has more than 128 KiB."));
    }
    Ok(())
}

/// The stored form of an attribute's value; nothing where it is unassigned: null, or an empty list or object (RFC 7643,
/// section 2.5).
pub(crate) fn canonical(attribute: &Attribute, sent: Value) -> Result<Option<Value>, ScimError> {
    if !attribute.is_multiple {
        return match sent {
            // Some clients wrap a single value.
            Value::Array(mut items) if items.len() == 1 => single(attribute, items.remove(0)),
            sent => single(attribute, sent),
        };
    }
    let items = match sent {
        Value::Array(items) => items,
        Value::Null => Vec::new(),
        one => vec![one],
    };
    if items.len() > VALUES_MAX {
        return Err(value(format!(
            "{} has more than {VALUES_MAX} values.",
            attribute.name
        )));
    }
    let mut held: Vec<Value> = Vec::with_capacity(items.len());
    for item in items {
        if let Some(item) = single(attribute, item)?.filter(|item| !held.contains(item)) {
            held.push(item);
        }
    }
    Ok((!held.is_empty()).then_some(Value::Array(held)))
}

/// The stored form of one value.
pub(crate) fn single(attribute: &Attribute, sent: Value) -> Result<Option<Value>, ScimError> {
    if sent.is_null() {
        return Ok(None);
    }
    match attribute.kind {
        Kind::Boolean => boolean(&sent)
            .map(|truth| Some(Value::Bool(truth)))
            .ok_or_else(|| value(format!("{} is true or false.", attribute.name))),
        Kind::Complex => complex(attribute, sent),
        Kind::Text | Kind::DateTime | Kind::Reference | Kind::Binary => {
            let Value::String(text) = sent else {
                return Err(value(format!("{} is a text.", attribute.name)));
            };
            let chars_max = if attribute.kind == Kind::Binary {
                BINARY_CHARS_MAX
            } else {
                TEXT_CHARS_MAX
            };
            if text.chars().count() > chars_max {
                return Err(value(format!(
                    "{} has more than {chars_max} characters.",
                    attribute.name
                )));
            }
            Ok(Some(Value::String(text)))
        }
    }
}

fn complex(attribute: &Attribute, sent: Value) -> Result<Option<Value>, ScimError> {
    let members = match sent {
        Value::Object(members) => members,
        // Entra ID sends a manager as the bare id, and roles as bare texts.
        text @ Value::String(_) if attribute.sub("value").is_some() => {
            Map::from_iter([("value".to_owned(), text)])
        }
        _ => return Err(value(format!("{} is an object.", attribute.name))),
    };
    let mut held = Map::new();
    for (name, sent) in members {
        if let Some(sub) = attribute.sub(&name).filter(|sub| is_kept(sub)) {
            let value = single(sub, sent)?;
            insert(&mut held, sub, value);
        }
    }
    Ok((!held.is_empty()).then_some(Value::Object(held)))
}

/// A truth value, also as the texts that Entra ID sends: `"True"`, `"False"`.
pub fn read_boolean(kind: &'static ResourceType, name: &str, sent: &Value) -> Result<bool, ScimError> {
    let known = kind.attribute(name).map_or(name, |attribute| attribute.name);
    boolean(sent).ok_or_else(|| ScimError::of(ScimType::InvalidValue, format!("{known} is true or false.")))
}

fn boolean(sent: &Value) -> Option<bool> {
    match sent {
        Value::Bool(truth) => Some(*truth),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}
