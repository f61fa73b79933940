//! What a client finds out by asking (RFC 7644, section 4): the service, its resource types, its schemas.

use serde_json::{Map, Value, json};

use crate::{
    bulk::{BULK_BYTES_MAX, BULK_OPERATIONS_MAX},
    query::COUNT_MAX,
    schema::{Attribute, Kind, RESOURCE_TYPES, ResourceType, Schema},
};

/// The URN of an answered list.
const LIST_URN: &str = "urn:ietf:params:scim:api:messages:2.0:ListResponse";

/// What the service offers that the documents name.
#[derive(Debug, Clone, Copy)]
pub struct Features {
    /// Resources that one filter may find.
    pub results_max: usize,
}

/// Where the documents are: the base without a final slash.
#[derive(Debug, Clone, Copy)]
pub struct Documents<'a> {
    pub base: &'a str,
    pub documentation: &'a str,
}

/// A list as it is answered (RFC 7644, section 3.4.2).
pub fn list_response(
    resources: Vec<Value>,
    total: Option<usize>,
    start_index: Option<usize>,
    next_cursor: Option<String>,
) -> Value {
    let mut answer = Map::new();
    answer.insert("schemas".to_owned(), json!([LIST_URN]));
    if let Some(total) = total {
        answer.insert("totalResults".to_owned(), total.into());
    }
    answer.insert("itemsPerPage".to_owned(), resources.len().into());
    if let Some(start) = start_index {
        answer.insert("startIndex".to_owned(), start.into());
    }
    if let Some(cursor) = next_cursor {
        answer.insert("nextCursor".to_owned(), cursor.into());
    }
    answer.insert("Resources".to_owned(), Value::Array(resources));
    Value::Object(answer)
}

/// `/ServiceProviderConfig` (RFC 7643, section 5; RFC 9865, section 4).
pub fn service_provider_config(at: Documents<'_>, features: Features) -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
        "documentationUri": at.documentation,
        "patch": {"supported": true},
        "bulk": {"supported": true, "maxOperations": BULK_OPERATIONS_MAX, "maxPayloadSize": BULK_BYTES_MAX},
        "filter": {"supported": true, "maxResults": features.results_max},
        "changePassword": {"supported": false},
        "sort": {"supported": true},
        "etag": {"supported": true},
        "pagination": {
            "cursor": true, "index": true, "defaultPaginationMethod": "index", "defaultPageSize": 100,
            "maxPageSize": COUNT_MAX,
        },
        "authenticationSchemes": [{
            "type": "oauthbearertoken",
            "name": "Bearer token",
            "description": "A SCIM token, or an access token of a client with the scope scim:write.",
            "specUri": "https://www.rfc-editor.org/info/rfc6750",
            "primary": true,
        }],
        "meta": {"resourceType": "ServiceProviderConfig", "location": format!("{}/ServiceProviderConfig", at.base)},
    })
}

/// Every resource type, as a list.
pub fn resource_types(at: Documents<'_>) -> Value {
    let items: Vec<Value> = RESOURCE_TYPES
        .iter()
        .map(|kind| describe_type(at, kind))
        .collect();
    let total = items.len();
    list_response(items, Some(total), Some(1), None)
}

/// One resource type, by its name.
pub fn resource_type(at: Documents<'_>, name: &str) -> Option<Value> {
    RESOURCE_TYPES
        .iter()
        .find(|kind| kind.name == name)
        .map(|kind| describe_type(at, kind))
}

fn describe_type(at: Documents<'_>, kind: &ResourceType) -> Value {
    let extension = |schema: &&Schema| json!({"schema": schema.id, "required": false});
    let extensions: Vec<Value> = kind.extensions.iter().map(extension).collect();
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ResourceType"],
        "id": kind.name,
        "name": kind.name,
        "endpoint": kind.endpoint,
        "description": kind.description,
        "schema": kind.schema.id,
        "schemaExtensions": extensions,
        "meta": {"resourceType": "ResourceType", "location": format!("{}/ResourceTypes/{}", at.base, kind.name)},
    })
}

fn every_schema() -> impl Iterator<Item = &'static Schema> {
    RESOURCE_TYPES
        .iter()
        .flat_map(|kind| std::iter::once(kind.schema).chain(kind.extensions.iter().copied()))
}

/// Every schema, as a list.
pub fn schemas(at: Documents<'_>) -> Value {
    let items: Vec<Value> = every_schema().map(|schema| describe_schema(at, schema)).collect();
    let total = items.len();
    list_response(items, Some(total), Some(1), None)
}

/// One schema, by its URN.
pub fn schema_document(at: Documents<'_>, urn: &str) -> Option<Value> {
    every_schema()
        .find(|schema| schema.id.eq_ignore_ascii_case(urn))
        .map(|schema| describe_schema(at, schema))
}

fn describe_schema(at: Documents<'_>, schema: &Schema) -> Value {
    let attributes: Vec<Value> = schema.attributes.iter().map(describe_attribute).collect();
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Schema"],
        "id": schema.id,
        "name": schema.name,
        "description": schema.description,
        "attributes": attributes,
        "meta": {"resourceType": "Schema", "location": format!("{}/Schemas/{}", at.base, schema.id)},
    })
}

fn describe_attribute(attribute: &Attribute) -> Value {
    let mut described = json!({
        "name": attribute.name,
        "type": attribute.kind.as_str(),
        "multiValued": attribute.is_multiple,
        "description": attribute.description,
        // What cannot be removed is told so by the one word that schemas have for it.
        "required": attribute.is_required || attribute.is_lasting,
        "mutability": attribute.mutability.as_str(),
        "returned": attribute.returned.as_str(),
        "uniqueness": if attribute.is_unique { "server" } else { "none" },
    });
    if attribute.kind == Kind::Complex {
        described["subAttributes"] = attribute.subs.iter().map(describe_attribute).collect();
    } else {
        described["caseExact"] = attribute.is_case_exact.into();
    }
    if !attribute.words.is_empty() {
        described["canonicalValues"] = attribute.words.into();
    }
    if attribute.kind == Kind::Reference {
        described["referenceTypes"] = attribute.references.into();
    }
    described
}
