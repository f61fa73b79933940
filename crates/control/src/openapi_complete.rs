//! What every operation of the document has and no handler says: how it refuses, and what generated schemas get wrong.

use std::collections::BTreeMap;

use utoipa::openapi::{
    Content, OpenApi, Ref, RefOr, ResponseBuilder, Schema,
    path::{Operation, PathItem},
    schema::{
        AdditionalProperties, AllOf, Array, ArrayItems, KnownFormat, Object, ObjectBuilder, SchemaFormat,
        Type,
    },
};

use crate::access::problem::ProblemBody;

/// Statuses with what they mean; each is a response of the document that operations point to.
const REFUSALS: &[(&str, &str)] = &[
    (
        "400",
        "The request could not be read, or says something that cannot be.",
    ),
    ("401", "Nobody is signed in, or the token is not good."),
    (
        "403",
        "The caller may not do this, or has to prove anew who they are.",
    ),
    (
        "404",
        "Something that the request names does not exist, or is of another tenant.",
    ),
    ("409", "The request contradicts what is there."),
    (
        "412",
        "What is there is not what the request says that it changes (`If-Match`).",
    ),
    ("413", "The body is larger than it may be."),
    (
        "415",
        "The body is of another media type than the operation takes.",
    ),
    (
        "422",
        "The request can be read, and cannot be carried out as it stands.",
    ),
    (
        "429",
        "Too many requests, or a budget is used up: `Retry-After` says when to come again.",
    ),
    (
        "503",
        "The database or a service does not answer; nothing was changed: `Retry-After` says when to come again.",
    ),
];
const PROBLEM: &str = "Problem";
const PROBLEM_TYPE: &str = "application/problem+json";
/// Where errors have the form of RFC 6749, section 5.2, instead.
const OAUTH: &str = "/oauth2/";

/// The document with all of that.
pub fn complete(document: &mut OpenApi) {
    let components = document.components.get_or_insert_default();
    let mut schemas = Vec::new();
    <ProblemBody as utoipa::ToSchema>::schemas(&mut schemas);
    components.schemas.extend(schemas);
    components.schemas.insert(
        PROBLEM.to_owned(),
        <ProblemBody as utoipa::PartialSchema>::schema(),
    );
    for (status, meaning) in REFUSALS {
        let content = Content::new(Some(RefOr::Ref(Ref::from_schema_name(PROBLEM))));
        let response = ResponseBuilder::new()
            .description(*meaning)
            .content(PROBLEM_TYPE, content);
        components
            .responses
            .insert(name_of(status), RefOr::T(response.build()));
    }
    open_flattened(&mut components.schemas);
    for schema in components.schemas.values_mut() {
        take_repetitions(schema);
    }
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths = paths
        .into_iter()
        .map(|(path, mut item)| {
            for (is_read, operation) in operations(&mut item) {
                refuse(&path, is_read, operation);
                name_bytes(operation);
            }
            // A path of the document has no wildcards (OpenAPI 3.1, section 4.8.8.2): the slashes are in the value.
            (path.replace("{*", "{"), item)
        })
        .collect();
}

fn name_of(status: &str) -> String {
    format!("Refused{status}")
}

/// Every operation of a path; whether it only reads.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (bool, &mut Operation)> {
    let read = item.get.iter_mut().map(|operation| (true, operation));
    let write = [&mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
    read.chain(write.into_iter().flatten().map(|operation| (false, operation)))
}

/// Adds how an operation refuses, where it does not say so itself.
fn refuse(path: &str, is_read: bool, operation: &mut Operation) {
    let is_guarded = operation.security.is_some();
    let has_body = operation.request_body.is_some();
    let takes_names = path.contains('{') || has_body || operation.parameters.is_some();
    for (status, _) in REFUSALS {
        let can_be = match *status {
            "401" | "403" => is_guarded,
            "404" => takes_names,
            "409" | "412" | "422" => !is_read,
            "413" | "415" => has_body,
            _ => true,
        };
        // Errors of the authorization server that it says itself have their own form.
        let said = operation.responses.responses.contains_key(*status);
        if can_be && !said && !(path.starts_with(OAUTH) && *status == "404") {
            operation.responses.responses.insert(
                (*status).to_owned(),
                Ref::from_response_name(name_of(status)).into(),
            );
        }
    }
}

/// Bytes are no list of numbers.
fn name_bytes(operation: &mut Operation) {
    let body = operation.request_body.iter_mut();
    let bodies = body.filter_map(here).flat_map(|body| body.content.values_mut());
    let answers = operation.responses.responses.values_mut();
    let answers = answers
        .filter_map(here)
        .flat_map(|answer| answer.content.values_mut());
    for content in bodies.chain(answers) {
        let Some(content) = here(content) else { continue };
        if matches!(&content.schema, Some(RefOr::T(Schema::Array(_)))) {
            let bytes = ObjectBuilder::new().schema_type(Type::String);
            let bytes = bytes.format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)));
            content.schema = Some(RefOr::T(Schema::Object(bytes.build())));
        }
    }
}

/// What is not said elsewhere.
fn here<T>(what: &mut RefOr<T>) -> Option<&mut T> {
    match what {
        RefOr::T(here) => Some(here),
        RefOr::Ref(_) => None,
    }
}

/// A type that refuses unknown members says so in its schema, which is wrong where it is a part of another: the other's members
/// are unknown to it.
fn open_flattened(schemas: &mut BTreeMap<String, RefOr<Schema>>) {
    let closed: BTreeMap<String, Object> = schemas
        .iter()
        .filter_map(|(name, schema)| match schema {
            RefOr::T(Schema::Object(object)) if is_closed(object) => {
                let mut open = object.clone();
                open.additional_properties = None;
                Some((name.clone(), open))
            }
            _ => None,
        })
        .collect();
    for schema in schemas.values_mut() {
        open_parts(schema, &closed);
    }
}

/// A set takes what is said twice: no body is refused for it.
fn take_repetitions(schema: &mut RefOr<Schema>) {
    let Some(schema) = here(schema) else { return };
    match schema {
        Schema::Array(array) => {
            array.unique_items = false;
            if let ArrayItems::RefOrSchema(inner) = &mut array.items {
                take_repetitions(inner);
            }
        }
        Schema::Object(object) => object.properties.values_mut().for_each(take_repetitions),
        Schema::AllOf(all) => all.items.iter_mut().for_each(take_repetitions),
        Schema::OneOf(one) => one.items.iter_mut().for_each(take_repetitions),
        Schema::AnyOf(any) => any.items.iter_mut().for_each(take_repetitions),
        _ => {}
    }
}

fn is_closed(object: &Object) -> bool {
    matches!(
        object.additional_properties.as_deref(),
        Some(AdditionalProperties::FreeForm(false))
    )
}

fn open_parts(schema: &mut RefOr<Schema>, closed: &BTreeMap<String, Object>) {
    let RefOr::T(schema) = schema else { return };
    match schema {
        Schema::AllOf(AllOf { items, .. }) => {
            for item in items {
                let name = match item {
                    RefOr::Ref(to) => to.ref_location.rsplit('/').next().unwrap_or_default().to_owned(),
                    RefOr::T(_) => String::new(),
                };
                match closed.get(&name) {
                    Some(open) => *item = RefOr::T(Schema::Object(open.clone())),
                    None => open_parts(item, closed),
                }
            }
        }
        Schema::Object(object) => {
            for inner in object.properties.values_mut() {
                open_parts(inner, closed);
            }
        }
        Schema::OneOf(one) => {
            for item in &mut one.items {
                open_parts(item, closed);
            }
        }
        Schema::Array(Array {
            items: ArrayItems::RefOrSchema(inner),
            ..
        }) => open_parts(inner, closed),
        _ => {}
    }
}
