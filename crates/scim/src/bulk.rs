//! Bulk requests (RFC 7644, section 3.7).

use serde_json::Value;

use crate::error::{ScimError, syntax, value};

/// Operations of one bulk request.
pub const BULK_OPERATIONS_MAX: usize = 1000;
/// Bytes of one bulk request.
pub const BULK_BYTES_MAX: usize = 1024 * 1024;
/// The URN of a bulk request.
const BULK_URN: &str = "urn:ietf:params:scim:api:messages:2.0:BulkRequest";
const REFERENCE: &str = "bulkId:";

/// What an operation of a bulk request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
        }
    }
}

/// One operation of a bulk request.
#[derive(Debug, Clone, PartialEq)]
pub struct BulkOperation {
    pub method: Method,
    pub bulk_id: Option<String>,
    pub version: Option<String>,
    pub path: String,
    pub data: Value,
}

/// A bulk request.
#[derive(Debug, Clone, PartialEq)]
pub struct BulkRequest {
    /// After so many failures the rest is left; nothing goes through all.
    pub fail_on_errors: Option<usize>,
    pub operations: Vec<BulkOperation>,
}

impl BulkRequest {
    pub fn parse(sent: Value) -> Result<BulkRequest, ScimError> {
        let Value::Object(members) = sent else {
            return Err(syntax("A bulk request is a JSON object."));
        };
        let (mut operations, mut fail_on_errors, mut is_bulk) = (None, None, false);
        for (name, member) in members {
            match name.to_ascii_lowercase().as_str() {
                "operations" => operations = Some(member),
                "failonerrors" => {
                    let count = member.as_u64().filter(|count| *count > 0);
                    let count = count.ok_or_else(|| value("failOnErrors is a whole number above 0."))?;
                    fail_on_errors = Some(usize::try_from(count).unwrap_or(usize::MAX));
                }
                "schemas" => {
                    let urns = member.as_array().map(Vec::as_slice).unwrap_or_default();
                    is_bulk = urns
                        .iter()
                        .any(|urn| urn.as_str().is_some_and(|urn| urn.eq_ignore_ascii_case(BULK_URN)));
                }
                _ => {}
            }
        }
        if !is_bulk {
            return Err(syntax(format!(
                "schemas is missing, or does not name {BULK_URN}."
            )));
        }
        let Some(Value::Array(items)) = operations else {
            return Err(syntax("Operations is a list."));
        };
        if items.len() > BULK_OPERATIONS_MAX {
            return Err(ScimError::new(
                413,
                "A bulk request has at most 1,000 operations.",
            ));
        }
        let operations = items.into_iter().map(operation).collect::<Result<Vec<_>, _>>()?;
        Ok(BulkRequest {
            fail_on_errors,
            operations,
        })
    }
}

fn operation(sent: Value) -> Result<BulkOperation, ScimError> {
    let Value::Object(members) = sent else {
        return Err(syntax("An operation is a JSON object."));
    };
    let (mut method, mut bulk_id, mut version, mut path, mut data) = (None, None, None, None, Value::Null);
    for (name, member) in members {
        match (name.to_ascii_lowercase().as_str(), member) {
            ("method", Value::String(text)) => {
                method = match text.to_ascii_uppercase().as_str() {
                    "POST" => Some(Method::Post),
                    "PUT" => Some(Method::Put),
                    "PATCH" => Some(Method::Patch),
                    "DELETE" => Some(Method::Delete),
                    _ => None,
                }
            }
            ("bulkid", Value::String(text)) => bulk_id = Some(text),
            ("version", Value::String(text)) => version = Some(text),
            ("path", Value::String(text)) => path = Some(text),
            ("data", member) => data = member,
            _ => {}
        }
    }
    let method = method.ok_or_else(|| syntax("method is POST, PUT, PATCH or DELETE."))?;
    let path = path.ok_or_else(|| syntax("An operation has a path."))?;
    if method == Method::Post && bulk_id.is_none() {
        return Err(syntax("A POST in a bulk request has a bulkId."));
    }
    Ok(BulkOperation {
        method,
        bulk_id,
        version,
        path,
        data,
    })
}

impl BulkOperation {
    /// The `bulkId`s that the operation refers to.
    pub fn references(&self) -> Vec<String> {
        let mut found: Vec<String> = bulk_reference(self.path.rsplit('/').next().unwrap_or_default())
            .map(str::to_owned)
            .into_iter()
            .collect();
        visit(&self.data, &mut |text| {
            found.extend(bulk_reference(text).map(str::to_owned))
        });
        found
    }

    /// Puts ids in the place of references; what `id_of` does not know stays.
    pub fn resolve(&mut self, id_of: &impl Fn(&str) -> Option<String>) {
        let last = self.path.rsplit('/').next().unwrap_or_default();
        if let Some(id) = bulk_reference(last).and_then(id_of) {
            let kept = self.path.len() - last.len();
            self.path.replace_range(kept.., &id);
        }
        replace(&mut self.data, id_of);
    }
}

/// The `bulkId` of a reference, `bulkId:…`.
pub fn bulk_reference(text: &str) -> Option<&str> {
    text.strip_prefix(REFERENCE)
}

fn visit(value: &Value, each: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => each(text),
        Value::Array(items) => items.iter().for_each(|item| visit(item, each)),
        Value::Object(members) => members.values().for_each(|member| visit(member, each)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn replace(value: &mut Value, id_of: &impl Fn(&str) -> Option<String>) {
    match value {
        Value::String(text) => {
            if let Some(id) = bulk_reference(text).and_then(id_of) {
                *text = id;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, id_of)),
        Value::Object(members) => members.values_mut().for_each(|member| replace(member, id_of)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
