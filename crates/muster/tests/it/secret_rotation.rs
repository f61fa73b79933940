//! Secrets that are rotated while they are in use: no request fails, on one node and on two, whatever dies at whatever step.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::{
    PATIENCE,
    api::{Api, try_answer},
    database::{each_database, on_postgres},
    device::Device,
    eventually, jwt,
    server::{AdminFile, Options, Server, assert_healthy},
};

/// Rings settle for 15 seconds before a new key signs.
const SETTLED: Duration = Duration::from_secs(40);

fn key_of(token: &str) -> Value {
    jwt::parts(token).0["kid"].clone()
}

async fn version_of(api: &Api, name: &str) -> i64 {
    let secret = api.get(&format!("/secrets/{name}")).await.ok();
    secret["version"].as_i64().expect("a number")
}

/// The one secret whose name begins so.
async fn named(api: &Api, start: &str) -> String {
    let items = api.get("/secrets").await.ok()["items"].clone();
    let items = items.as_array().expect("a list").clone();
    let names = items.iter().map(|secret| secret["name"].as_str().expect("text"));
    let found = names.into_iter().find(|name| name.starts_with(start));
    found.unwrap_or_else(|| panic!("{start}")).to_owned()
}

async fn rotate(api: &Api, name: &str) {
    let before = version_of(api, name).await;
    api.post(&format!("/secrets/{name}/rotate"), &json!({}))
        .await
        .expect(202);
    eventually(name, PATIENCE, async || {
        (version_of(api, name).await > before).then_some(())
    })
    .await;
}

/// What load is and how it fares.
#[derive(Default)]
struct Load {
    done: AtomicU64,
    stop: AtomicBool,
}

impl Load {
    /// Requests with a token of the beginning, with fresh tokens, and over connections of their own, on these nodes in turn.
    fn begin(self: &Arc<Load>, admins: Vec<AdminFile>, old: Api) -> JoinSet<Vec<String>> {
        let mut tasks = JoinSet::new();
        for worker in 0..3 {
            let (load, admins, old) = (Arc::clone(self), admins.clone(), old.clone());
            tasks.spawn(async move {
                let mut failed = Vec::new();
                for round in 0_usize.. {
                    if load.stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let admin = &admins[(round + worker) % admins.len()];
                    // A client of its own is a new connection with a new handshake.
                    let fresh = Api::anonymous(admin);
                    let fields = [
                        ("grant_type", "client_credentials"),
                        ("client_id", admins[0].client_id.as_str()),
                        ("client_secret", admins[0].client_secret.as_str()),
                    ];
                    let answer = fresh.form("/oauth2/token", &fields).await;
                    if answer.status != 200 {
                        failed.push(format!("a token: {} {}", answer.status, answer.text()));
                        continue;
                    }
                    let token = answer.json()["access_token"].as_str().expect("text").to_owned();
                    for token in [token, old.token.clone()] {
                        let call = fresh.with_token(token);
                        match try_answer(call.request(Method::GET, "/policies")).await {
                            Ok(answer) if answer.status == 200 => {}
                            Ok(answer) => failed.push(format!("{} {}", answer.status, answer.text())),
                            Err(error) => failed.push(error.to_string()),
                        }
                        load.done.fetch_add(1, Ordering::SeqCst);
                    }
                }
                failed
            });
        }
        tasks
    }

    async fn end(&self, tasks: JoinSet<Vec<String>>) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        let failed: Vec<String> = tasks.join_all().await.into_iter().flatten().collect();
        assert!(
            failed.is_empty(),
            "{} failed, such as {:?}",
            failed.len(),
            &failed[..failed.len().min(3)]
        );
        self.done.load(Ordering::SeqCst)
    }
}

/// Rotates everything that the server rotates, and waits until the new keys sign.
async fn rotate_everything(server: &Server, api: &Api) {
    let before = key_of(&server.api().await.token);
    let (tls, client) = (
        named(api, "tls:").await,
        format!("client:{}", server.admin.client_id),
    );
    for name in [
        "access-token-key",
        "enrollment-token-key",
        "sealing-key",
        &tls,
        &client,
    ] {
        rotate(api, name).await;
    }
    let now = eventually("admin.json has the new secret", PATIENCE, async || {
        let now = AdminFile::read(&server.admin_file());
        (now.client_secret != server.admin.client_secret).then_some(now)
    })
    .await;
    eventually("the new key signs", SETTLED, async || {
        let answer = Api::anonymous(&now)
            .sign_in_as(&now.client_id, &now.client_secret)
            .await;
        (key_of(&answer.token) != before).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_rotates_under_load_and_no_request_fails() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let device = Device::enroll(&api, &server.admin).await;
        let waiting = api
            .post("/enrollment-tokens", &json!({"device_uuid": Uuid::new_v4()}))
            .await
            .expect(201);
        let hook = json!({
            "place": {"kind": "webhook", "url": "https://hook.example/x"},
            "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        });
        api.put("/alert-destinations/hook", &hook).await.ok();
        let sealed = server
            .store()
            .await
            .value("SELECT secret FROM alerts_destination")
            .await;
        let load = Arc::new(Load::default());
        let tasks = load.begin(vec![server.admin.clone()], api.clone());
        rotate_everything(&server, &api).await;
        let done = load.end(tasks).await;
        assert!(done > 50, "{done} requests are no load");
        println!("{done} requests while everything rotated, none failed");

        device.checkin().await;
        assert_ne!(waiting["token"], Value::Null);
        Device::enroll(&api, &server.admin).await;
        let entries = api.list("/log/entries?limit=500").await;
        let rotated = entries.iter().filter(|entry| entry["action"] == "secret.rotated");
        assert!(rotated.count() >= 5, "each rotation is an entry of the log");
        let store = server.store().await;
        eventually("what the first key sealed is sealed anew", SETTLED, async || {
            let now = store.value("SELECT secret FROM alerts_destination").await;
            (now.bytes() != sealed.bytes()).then_some(())
        })
        .await;
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_accept_each_other_s_tokens_while_keys_rotate() {
    on_postgres(async |options| {
        let first = Server::start(options).await;
        let second = first.second_node().await;
        let api = first.api().await;
        let load = Arc::new(Load::default());
        let tasks = load.begin(vec![first.admin.clone(), second.admin.clone()], api.clone());
        rotate_everything(&first, &api).await;
        let done = load.end(tasks).await;
        println!("{done} requests on two nodes while everything rotated, none failed");
        let crossed = second.api().await.with_token(&api.token);
        crossed.get("/policies").await.ok();
        // One certificate for each node.
        let items = api.get("/secrets").await.ok()["items"].clone();
        let items = items.as_array().expect("a list").clone();
        let nodes = items.iter().filter(|secret| secret["kind"] == "tls_certificate");
        assert_eq!(nodes.count(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r1_a_rotation_that_dies_at_any_step_is_done_once() {
    each_database(async |options| {
        let mut server = Server::start(options).await;
        let mut version = version_of(&server.api().await, "access-token-key").await;
        for fault in [
            "secret.stored/after/kill",
            "secret.rotated/before/kill",
            "secret.rotated/after/kill",
        ] {
            server.break_with(fault).await;
            let old = server.api().await;
            // It may die before it answers.
            let asked = old.request(Method::POST, "/secrets/access-token-key/rotate");
            let _ = try_answer(asked.json(&json!({}))).await;
            eventually(fault, PATIENCE, async || (!server.runs()).then_some(())).await;
            server.mend().await;
            let api = server.api().await.with_token(&old.token);
            let now = eventually("the rotation is done", PATIENCE, async || {
                let now = version_of(&api, "access-token-key").await;
                (now > version).then_some(now)
            })
            .await;
            assert_eq!(now, version + 1, "{fault}");
            version = now;
            // A minute between two rotations that somebody asks for is not waited for here.
            let store = server.store().await;
            store
                .execute("UPDATE secrets_record SET rotated_at = rotated_at - 120000000 WHERE name = 'access-token-key'")
                .await;
        }
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_two_secrets_while_it_changes_from_one_to_the_other() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let made = api
        .post("/clients", &json!({"name": "ci", "scopes": ["device:read"]}))
        .await
        .expect(201);
    let text = |value: &Value, field: &str| value[field].as_str().expect("text").to_owned();
    let (id, first) = (text(&made, "client_id"), text(&made, "client_secret"));
    let second = api
        .post(&format!("/clients/{id}/secret"), &json!({}))
        .await
        .expect(201);
    let second = text(&second, "client_secret");
    for secret in [&first, &second] {
        Api::anonymous(&server.admin).sign_in_as(&id, secret).await;
    }
    let body = json!({"overlap_seconds": 0});
    let third = api
        .post(&format!("/clients/{id}/secret"), &body)
        .await
        .expect(201);
    let third = text(&third, "client_secret");
    Api::anonymous(&server.admin).sign_in_as(&id, &third).await;
    for gone in [&first, &second] {
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", id.as_str()),
            ("client_secret", gone.as_str()),
        ];
        let refused = Api::anonymous(&server.admin).form("/oauth2/token", &fields).await;
        assert_eq!(refused.status, 401);
    }
    // A weaker client cannot become a stronger one by taking its secret.
    let weak = api.client_with("weak", &["client:write", "client:read"]).await;
    weak.post(&format!("/clients/{id}/secret"), &json!({}))
        .await
        .refused(403, "insufficient_scope");
    // A node's own account is the node's to rotate.
    let own = format!("/clients/{}/secret", server.admin.client_id);
    eventually("the node says which account is its own", PATIENCE, async || {
        let answer = api
            .get(&format!("/secrets/client:{}", server.admin.client_id))
            .await
            .ok();
        (answer["rotated_by"] == "server").then_some(())
    })
    .await;
    api.post(&own, &json!({})).await.refused(409, "illegal_state");
    assert!(!server.log().contains(&third), "l1: no secret in the log");
}
