//! Bulk requests: one operation after the other, each in its own transaction (RFC 7644, section 3.7).

use std::collections::{HashMap, HashSet};

use muster_scim::{BulkOperation, BulkRequest, GROUPS, Method, ResourceType, ScimError, ScimType, USERS};
use serde_json::{Map, Value, json};

use super::{
    answer::tag,
    list::Item,
    refusal::scim_error,
    scim::{self, Client, Done},
};
use crate::{App, access::problem::Problem};

/// Carries a bulk request out; answers what came of each operation, in their order.
pub async fn run(app: &App, client: &Client, sent: Value) -> Result<Value, Problem> {
    let request = BulkRequest::parse(sent)?;
    let names: HashSet<String> = request
        .operations
        .iter()
        .filter_map(|one| one.bulk_id.clone())
        .collect();
    let waits_for: Vec<Vec<String>> = request
        .operations
        .iter()
        .map(|one| {
            one.references()
                .into_iter()
                .filter(|name| names.contains(name))
                .collect()
        })
        .collect();
    let mut answers: Vec<Option<Value>> = vec![None; request.operations.len()];
    let (mut ids, mut failed) = (HashMap::<String, String>::new(), HashSet::<String>::new());
    let failures_max = request.fail_on_errors.unwrap_or(usize::MAX);
    let mut failures = 0;
    // What refers to a later operation waits for it; every round carries out one at least, or is the last.
    loop {
        let mut has_moved = false;
        for (at, operation) in request.operations.iter().enumerate() {
            let is_ready = waits_for[at]
                .iter()
                .all(|name| ids.contains_key(name) || failed.contains(name));
            if answers[at].is_some() || !is_ready {
                continue;
            }
            if failures >= failures_max {
                return Ok(answer(answers));
            }
            has_moved = true;
            let mut operation = operation.clone();
            operation.resolve(&|name| ids.get(name).cloned());
            let outcome = match waits_for[at].iter().any(|name| failed.contains(name)) {
                true => Err(ScimError::new(409, "It refers to an operation that failed.").into()),
                false => one(app, client, &mut operation).await,
            };
            if let Some(bulk_id) = &operation.bulk_id {
                match &outcome {
                    Ok(Some(done)) => drop(ids.insert(bulk_id.clone(), id_of(done))),
                    Ok(None) => {}
                    Err(_) => drop(failed.insert(bulk_id.clone())),
                }
            }
            failures += usize::from(outcome.is_err());
            answers[at] = Some(told(app, client, &operation, outcome).await);
        }
        if !has_moved {
            break;
        }
    }
    for (at, operation) in request
        .operations
        .iter()
        .enumerate()
        .filter(|(at, _)| answers[*at].is_none())
        .collect::<Vec<_>>()
    {
        let circle = Err(ScimError::new(409, "It refers to operations that refer back to it.").into());
        answers[at] = Some(told(app, client, operation, circle).await);
    }
    Ok(answer(answers))
}

fn answer(answers: Vec<Option<Value>>) -> Value {
    let told: Vec<Value> = answers.into_iter().flatten().collect();
    json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:BulkResponse"], "Operations": told})
}

fn id_of(done: &Done) -> String {
    match &done.item {
        Item::User(user) => user.id.to_string(),
        Item::Team(team) => team.id.to_string(),
    }
}

/// The resource type and id of a path.
fn address(operation: &BulkOperation) -> Result<(&'static ResourceType, Option<String>), Problem> {
    let path = operation.path.trim_start_matches('/');
    let (endpoint, id) = match path.split_once('/') {
        Some((endpoint, id)) => (endpoint, Some(id.to_owned())),
        None => (path, None),
    };
    let kind = match endpoint {
        "Users" => &USERS,
        "Groups" => &GROUPS,
        _ => {
            return Err(ScimError::of(
                ScimType::InvalidValue,
                "A path is /Users or /Groups, or one with an id.",
            )
            .into());
        }
    };
    Ok((kind, id))
}

async fn one(app: &App, client: &Client, operation: &mut BulkOperation) -> Result<Option<Done>, Problem> {
    let (kind, id) = address(operation)?;
    let (data, version) = (operation.data.take(), operation.version.take());
    let id = id.as_deref().filter(|id| !id.is_empty());
    match (operation.method, id) {
        (Method::Post, None) => scim::create(app, client, kind, data).await.map(Some),
        (Method::Put, Some(id)) => scim::replace(app, client, kind, (id, version), data)
            .await
            .map(Some),
        (Method::Patch, Some(id)) => scim::patch(app, client, kind, (id, version), data)
            .await
            .map(Some),
        (Method::Delete, Some(id)) => scim::delete(app, client, kind, (id, version))
            .await
            .map(|()| None),
        (Method::Post, Some(_)) | (Method::Put | Method::Patch | Method::Delete, None) => Err(ScimError::of(
            ScimType::InvalidValue,
            "POST takes a path without an id, the others one with.",
        )
        .into()),
    }
}

async fn told(
    app: &App,
    client: &Client,
    operation: &BulkOperation,
    outcome: Result<Option<Done>, Problem>,
) -> Value {
    let mut told = Map::new();
    told.insert("method".to_owned(), operation.method.as_str().into());
    if let Some(bulk_id) = &operation.bulk_id {
        told.insert("bulkId".to_owned(), bulk_id.clone().into());
    }
    let status = match outcome {
        Ok(done) => {
            if let Some(done) = &done {
                told.insert("location".to_owned(), done.location.clone().into());
                told.insert("version".to_owned(), tag(done.version).into());
            } else {
                let location = format!("{}/{}", client.asker.base, operation.path.trim_start_matches('/'));
                told.insert("location".to_owned(), location.into());
            }
            match operation.method {
                Method::Post => 201,
                Method::Put | Method::Patch => 200,
                Method::Delete => 204,
            }
        }
        Err(problem) => {
            if let Some(cause) = problem.cause() {
                tracing::error!(%cause, "an operation of a bulk request failed");
            }
            let error = scim_error(&problem);
            let method = format!("BULK {}", operation.method.as_str());
            scim::keep_refused(app, client, &method, "Bulk", &error).await;
            if operation.method != Method::Post {
                let location = format!("{}/{}", client.asker.base, operation.path.trim_start_matches('/'));
                told.insert("location".to_owned(), location.into());
            }
            told.insert("response".to_owned(), error.body());
            error.status
        }
    };
    told.insert("status".to_owned(), status.to_string().into());
    Value::Object(told)
}
