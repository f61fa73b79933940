//! T7, A9: what only the server says is in no body, at whatever depth.

use serde_json::Value;

use super::bodies::Bodies;
use crate::support::{
    api::answer,
    furnish::furnish,
    openapi::Document,
    routes,
    server::{Options, assert_healthy},
    two::Two,
};

/// Members that the server decides, and such that somebody somewhere would have taken.
const OF_THE_SERVER: &[&str] = &[
    "tenant_id",
    "tenant",
    "role",
    "roles",
    "is_admin",
    "id",
    "created_at",
    "updated_by",
    "state",
    "approved",
    "compliant",
    "attested",
    "enrolled_at",
    "quarantined",
    "__proto__",
];
/// Objects that have one member, which says what they are: a second one is refused, whatever it is called, and not by its name.
const OF_ONE_MEMBER: &[(&str, &str)] = &[("/api/v1/alert-rules/{name}", "/when")];
/// Fewer than these, and the bodies are not read as they were.
const TRIED_MIN: usize = 800;

#[tokio::test(flavor = "multi_thread")]
async fn t7_a9_members_that_only_the_server_writes_are_refused_by_name_in_every_body() {
    let two = Two::start(Options::default()).await;
    let own = furnish(&two.server, &two.a, &two.server.admin, "alpha").await;
    let (bodies, document) = (Bodies::new(&own), Document::checked_in());
    let mut tried = 0;
    let mut taken = Vec::new();
    for route in routes::all().into_iter().filter(|route| !route.is_public()) {
        let Some((kind, schema)) = document.body(&route) else {
            continue;
        };
        if kind != "application/json" {
            continue;
        }
        let (plain, _) = bodies
            .plain(&document, route.method, route.path)
            .unwrap_or_else(|| panic!("{route:?} has a body"));
        let plain: Value = serde_json::from_str(&plain).expect("it is JSON");
        for (pointer, known) in document.closed_objects(schema, &plain) {
            let is_named = !OF_ONE_MEMBER.contains(&(route.path, &pointer));
            for name in OF_THE_SERVER.iter().filter(|name| !known.contains(**name)) {
                let mut body = plain.clone();
                let object = body.pointer_mut(&pointer).and_then(Value::as_object_mut);
                object
                    .expect("an object is there")
                    .insert((*name).to_owned(), true.into());
                let method = route.method.parse().expect("the table names methods");
                let url = format!("{}{}", two.a.origin, route.filled());
                let request = two
                    .a
                    .http
                    .request(method, url)
                    .bearer_auth(&two.a.token)
                    .json(&body);
                let said = answer(request).await;
                tried += 1;
                if said.status != 400 || is_named && !said.text().contains(name) {
                    taken.push(format!(
                        "{} {} {pointer}/{name}: {} {}",
                        route.method,
                        route.path,
                        said.status,
                        said.text()
                    ));
                }
            }
        }
    }
    assert!(
        taken.is_empty(),
        "{} of {tried}:\n{}",
        taken.len(),
        taken.join("\n")
    );
    assert!(tried >= TRIED_MIN, "the bodies are read: {tried}");
    println!("{tried} members that only the server writes were refused");
    assert_healthy(&two.server).await;
}
