//! The OpenAPI document: checked in, served, and the same as the table of routes.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{
    api::{Api, answer},
    routes::all,
    server::{Options, Server, run_muster},
};

const CHECKED_IN: &str = include_str!("../../../../openapi/admin.json");

/// `METHOD path` and the scopes of every call in a document, with spaces between; `public` where there is none.
fn calls(document: &Value) -> BTreeSet<(String, String, String)> {
    let paths = document["paths"].as_object().expect("a document has paths");
    let mut calls = BTreeSet::new();
    for (path, item) in paths {
        for (method, call) in item.as_object().expect("a path is an object") {
            let wanted = call["security"][0]["oauth2"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let mut scopes: Vec<&str> = wanted.iter().filter_map(Value::as_str).collect();
            scopes.sort_unstable();
            let scopes = if scopes.is_empty() {
                "public".to_owned()
            } else {
                scopes.join(" ")
            };
            calls.insert((method.to_ascii_uppercase(), path.clone(), scopes));
        }
    }
    calls
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_that_is_served_and_printed_is_the_one_checked_in() {
    let checked_in: Value = serde_json::from_str(CHECKED_IN).expect("openapi/admin.json is JSON");
    let printed = run_muster(["openapi"]).await;
    let printed: Value = serde_json::from_slice(&printed.stdout).expect("it prints JSON");
    assert_eq!(
        printed, checked_in,
        "openapi/admin.json is stale: run `cargo xtask openapi`"
    );

    let server = Server::start(Options::default()).await;
    let api = Api::anonymous(&server.admin);
    let served = answer(api.http.get(format!("{}/api/v1/openapi.json", api.origin)))
        .await
        .ok();
    assert_eq!(served, checked_in);
    assert_eq!(
        served["openapi"].as_str().map(|version| &version[..3]),
        Some("3.1")
    );
}

#[test]
fn every_call_of_the_document_is_in_the_table_with_its_scope_and_the_other_way_round() {
    let checked_in: Value = serde_json::from_str(CHECKED_IN).expect("openapi/admin.json is JSON");
    let table: BTreeSet<(String, String, String)> = all()
        .into_iter()
        .map(|route| {
            (
                route.method.to_owned(),
                route.path.to_owned(),
                route.scope.to_owned(),
            )
        })
        .collect();
    let documented = calls(&checked_in);
    let missing: Vec<_> = documented.difference(&table).collect();
    let stale: Vec<_> = table.difference(&documented).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "not in the table: {missing:?}; not in the document: {stale:?}"
    );
}

#[test]
fn parameters_are_documented_where_they_are() {
    let document: Value = serde_json::from_str(CHECKED_IN).expect("openapi/admin.json is JSON");
    for (path, item) in document["paths"].as_object().expect("a document has paths") {
        for (method, call) in item.as_object().expect("a path is an object") {
            let parameters = call["parameters"].as_array().cloned().unwrap_or_default();
            for parameter in parameters {
                let name = parameter["name"].as_str().expect("a parameter has a name");
                let in_path = path.contains(&format!("{{{name}}}")) || path.contains(&format!("{{*{name}}}"));
                assert_eq!(
                    parameter["in"] == "path",
                    in_path,
                    "{method} {path}: {name} is said to be in {}",
                    parameter["in"]
                );
            }
        }
    }
}
