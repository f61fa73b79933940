//! What follows from the directory: for sign-ins, approvals, devices; and what a large group costs.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::support::{
    PATIENCE,
    api::{Api, answer},
    approvers,
    database::each_database,
    device::{Applicant, Device, Door, logged},
    eventually,
    scim::{ENTERPRISE, Provider, path_of, user},
    server::{Options, Server, assert_healthy},
};

/// Within this time a person who was deactivated can do nothing more.
const DEAD_WITHIN: Duration = Duration::from_secs(60);

/// A device whose owner is this person.
async fn device_of(server: &Server, api: &Api, owner: &str) -> Device {
    let applicant = Applicant::new();
    let made = api
        .post(
            "/enrollment-tokens",
            &json!({"device_uuid": applicant.device_uuid, "owner": owner}),
        )
        .await
        .expect(201);
    let token = made["token"].as_str().expect("a token").to_owned();
    let finished = applicant.try_enroll(&Door::of(&server.admin), &token).await;
    finished.expect(201);
    applicant.with_identity(&server.admin, &finished)
}

async fn members(api: &Api, group: &str) -> u64 {
    let shown = api.get(&format!("/groups/{group}")).await.ok();
    if shown["state"] == "ready" {
        shown["members"].as_u64().unwrap_or_default()
    } else {
        u64::MAX
    }
}

async fn becomes(api: &Api, group: &str, count: u64) {
    eventually(&format!("{group} has {count} members"), DEAD_WITHIN, async || {
        (members(api, group).await == count).then_some(())
    })
    .await;
}

async fn leaver(options: Options) {
    let server = Server::start(options).await;
    let api = server.api().await;
    let provider = Provider::of(&api, "entra").await;
    let device = device_of(&server, &api, "Ada@example.com").await;
    for (name, include) in [
        ("left", "owner.active == false"),
        ("here", "owner.active"),
        ("engines", "owner.department == \"Engines\""),
        ("poets", "\"Poets\" in owner.groups"),
    ] {
        api.post("/groups", &json!({"name": name, "include": include}))
            .await
            .expect(201);
    }
    becomes(&api, "here", 0).await;
    let mut ada = user("ada@example.com");
    ada[ENTERPRISE] = json!({"department": "Engines"});
    let ada = provider.post("/Users", &ada).await.expect(201);
    let path = path_of("Users", &ada);
    becomes(&api, "here", 1).await;
    becomes(&api, "engines", 1).await;
    // Through a group in a group, which is then renamed, and deleted.
    let inner = provider.group("Inner", &[&ada]).await;
    let outer = provider.group("Poets", &[&inner]).await;
    becomes(&api, "poets", 1).await;
    let outer_path = path_of("Groups", &outer);
    provider
        .patch(
            &outer_path,
            json!([{"op": "replace", "path": "displayName", "value": "Others"}]),
        )
        .await;
    becomes(&api, "poets", 0).await;
    provider
        .patch(
            &outer_path,
            json!([{"op": "replace", "path": "displayName", "value": "Poets"}]),
        )
        .await;
    becomes(&api, "poets", 1).await;
    // A circle ends somewhere.
    let circle = json!([{"op": "add", "path": "members", "value": [{"value": outer["id"]}]}]);
    assert_eq!(
        provider.patch(&path_of("Groups", &inner), circle).await.status,
        204
    );
    assert_eq!(
        answer(provider.request(Method::DELETE, &outer_path)).await.status,
        204
    );
    becomes(&api, "poets", 0).await;
    // A session and a link that was not used.
    let link = async || {
        api.post("/console-links", &json!({"person": "ADA@example.com"}))
            .await
    };
    let browser = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let ca = std::fs::read(&server.admin.ca_file).expect("a certificate");
    let ca = reqwest::Certificate::from_pem(&ca).expect("a certificate");
    let browser = browser.tls_certs_only([ca]).build().expect("a client");
    let secret = link().await.expect(201)["url"]
        .as_str()
        .and_then(|url| url.split_once('#'))
        .expect("a secret")
        .1
        .to_owned();
    let signed_in = browser
        .post(format!("{}/signin", api.origin))
        .header("sec-fetch-site", "same-origin")
        .form(&[("secret", secret.as_str())])
        .send()
        .await
        .expect("an answer");
    let cookie = signed_in
        .headers()
        .get("set-cookie")
        .expect("a cookie")
        .to_str()
        .expect("text");
    let cookie = cookie.split(';').next().expect("a pair").to_owned();
    let page = async || {
        let sent = browser
            .get(format!("{}/users", api.origin))
            .header("cookie", &cookie)
            .send()
            .await;
        sent.expect("an answer").status().as_u16()
    };
    assert_eq!(page().await, 200);
    link().await.expect(201);
    provider
        .patch(
            &path,
            json!([{"op": "Replace", "path": "active", "value": "False"}]),
        )
        .await
        .expect(200);
    assert_ne!(page().await, 200, "the session is dead at once");
    link().await.refused(403, "insufficient_scope");
    becomes(&api, "left", 1).await;
    becomes(&api, "here", 0).await;
    let entries = logged(&api, "user.deactivated", 1).await;
    assert_eq!(entries[0]["detail"]["sessions_ended"], 1);
    assert_eq!(entries[0]["detail"]["links_ended"], 1);
    assert!(
        !entries[0].to_string().contains("example.com"),
        "{:?}",
        entries[0]
    );
    // Who is deleted stays gone for the devices; who comes back is let in.
    assert_eq!(answer(provider.request(Method::DELETE, &path)).await.status, 204);
    eventually("the deletion was followed", PATIENCE, async || {
        (members(&api, "engines").await == 0).then_some(())
    })
    .await;
    assert_eq!(members(&api, "left").await, 1);
    link().await.refused(403, "insufficient_scope");
    provider.user("ada@example.com").await;
    becomes(&api, "here", 1).await;
    link().await.expect(201);
    drop(device);
    assert_healthy(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_who_left_is_signed_out_and_the_devices_follow() {
    each_database(leaver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_approvals_of_who_left_count_no_more() {
    let mut server = Server::start(Options::default()).await;
    let keys = approvers::two_of(&mut server, &["ada", "grace"]).await;
    let api = server.api().await;
    let provider = Provider::of(&api, "entra").await;
    let ada = provider.user("ada").await;
    let path = path_of("Users", &ada);
    let device = Device::enroll(&api, &server.admin).await;
    let operation = approvers::ask_wipe(&api, &device.id()).await;
    approvers::approve(&api, &operation, &keys[0]).await.ok();
    provider
        .patch(
            &path,
            json!([{"op": "replace", "path": "active", "value": false}]),
        )
        .await
        .expect(200);
    // The second approval does not complete what the first one began, and the first one cannot be given again.
    let second = approvers::approve(&api, &operation, &keys[1]).await.ok();
    assert_eq!(second["state"], "awaiting_approval", "{second}");
    approvers::approve(&api, &operation, &keys[0])
        .await
        .refused(403, "approver_refused");
    provider
        .patch(&path, json!([{"op": "replace", "path": "active", "value": true}]))
        .await
        .expect(200);
    let third = approvers::approve(&api, &operation, &keys[0]).await.ok();
    assert_ne!(third["state"], "awaiting_approval", "{third}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_member_of_a_large_group_is_one_row() {
    let server = Server::start(Options::default().with("--scim-requests-per-second", 10_000)).await;
    let api = server.api().await;
    let provider = Provider::of(&api, "large").await;
    let (first, last) = (
        provider.user("first@example.com").await,
        provider.user("last@example.com").await,
    );
    let group = provider.group("Everyone", &[&first]).await;
    let path = path_of("Groups", &group);
    let store = server.store().await;
    let id = group["id"]
        .as_str()
        .and_then(|id| id.strip_prefix("ugr_"))
        .expect("an id")
        .to_uppercase();
    store
        .execute(&format!(
            "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 100000) \
             INSERT INTO directory_member (tenant_id, group_id, member_id, is_group) \
             SELECT m.tenant_id, m.group_id, randomblob(16), FALSE FROM number, directory_member m WHERE m.group_id = X'{id}'"
        ))
        .await;
    let begun = std::time::Instant::now();
    for (op, value) in [("add", last["id"].clone()), ("remove", last["id"].clone())] {
        let change = json!([{"op": op, "path": "members", "value": [{"value": value}]}]);
        assert_eq!(provider.patch(&path, change).await.status, 204);
    }
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "it took {:?}",
        begun.elapsed()
    );
    let shown = answer(
        provider
            .request(Method::GET, &path)
            .query(&[("excludedAttributes", "members")]),
    )
    .await;
    assert!(shown.bytes.len() < 1000);
    let whole = provider.get(&path).await;
    assert!(
        whole.json()["members"]
            .as_array()
            .is_some_and(|all| all.len() > 100_000)
    );
}
