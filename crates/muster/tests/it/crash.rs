//! `kill -9` under load: what was acknowledged is there, and the log is whole.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::{
    api::{Api, try_answer},
    database::each_database,
    server::{Server, assert_healthy},
};

/// What one writer was told before the server died.
#[derive(Default)]
pub struct Acknowledged {
    policies: Vec<String>,
    versions: Vec<String>,
    tokens: usize,
    clients: Vec<String>,
}

/// Writes as fast as answers come, until the server answers no more.
pub async fn write_until_it_ends(api: Api, writer: usize) -> Acknowledged {
    let mut done = Acknowledged::default();
    for number in 0.. {
        let name = format!("policy-{writer}-{number}");
        let calls = [
            ("/policies".to_owned(), json!({"name": name})),
            (
                format!("/policies/{name}/versions"),
                json!({"version": "1", "settings": {"firewall.enabled": true}}),
            ),
            (
                "/enrollment-tokens".to_owned(),
                json!({"device_uuid": Uuid::new_v4()}),
            ),
            (
                "/clients".to_owned(),
                json!({"name": format!("client-{writer}-{number}"), "scopes": ["device:read"]}),
            ),
        ];
        for (kind, (path, body)) in calls.into_iter().enumerate() {
            let Ok(answer) = try_answer(api.request(reqwest::Method::POST, &path).json(&body)).await else {
                return done;
            };
            assert_eq!(answer.status, 201, "{path}: {}", answer.text());
            match kind {
                0 => done.policies.push(name.clone()),
                1 => done.versions.push(name.clone()),
                2 => done.tokens += 1,
                _ => done.clients.push(
                    answer.json()["client_id"]
                        .as_str()
                        .expect("an id is text")
                        .to_owned(),
                ),
            }
        }
    }
    done
}

/// Asserts that a server still has everything that writers were told.
pub async fn assert_all_there(api: &Api, acknowledged: &[Acknowledged]) {
    let names = |items: Vec<Value>, field: &str| -> Vec<String> {
        items
            .iter()
            .map(|item| item[field].as_str().expect("it is text").to_owned())
            .collect()
    };
    let policies = api.list("/policies?limit=500").await;
    let clients = names(api.list("/clients?limit=500").await, "client_id");
    let tokens = api.list("/enrollment-tokens?limit=500").await.len();
    let with_version: Vec<Value> = policies
        .iter()
        .filter(|policy| policy["versions"] == 1)
        .cloned()
        .collect();
    let (policies, with_version) = (names(policies, "name"), names(with_version, "name"));
    for done in acknowledged {
        assert!(
            done.policies.iter().all(|name| policies.contains(name)),
            "a policy was lost"
        );
        assert!(
            done.versions.iter().all(|name| with_version.contains(name)),
            "a version was lost"
        );
        assert!(
            done.clients.iter().all(|client| clients.contains(client)),
            "a client was lost"
        );
    }
    let acknowledged_tokens: usize = acknowledged.iter().map(|done| done.tokens).sum();
    assert!(
        tokens >= acknowledged_tokens,
        "an enrollment token was lost: {tokens} of {acknowledged_tokens}"
    );
}

/// Waits until the writers have something to lose.
pub async fn some_load() {
    tokio::time::sleep(Duration::from_millis(1500)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r1_kill_9_under_load_loses_nothing_acknowledged() {
    const WRITERS: usize = 6;
    const ROUNDS: usize = 3;
    each_database(async |options| {
        let mut server = Server::start(options).await;
        let mut acknowledged = Vec::new();
        for round in 0..ROUNDS {
            let api = server.api().await;
            let mut writers = JoinSet::new();
            for writer in 0..WRITERS {
                writers.spawn(write_until_it_ends(api.clone(), round * WRITERS + writer));
            }
            some_load().await;
            server.kill().await;
            acknowledged.extend(writers.join_all().await);
            server.restart().await;
        }
        let written: usize = acknowledged.iter().map(|done| done.policies.len()).sum();
        assert!(written > 10, "the load was real: {written} policies");
        assert_all_there(&server.api().await, &acknowledged).await;
        assert_healthy(&server).await;
        server.stop().await;
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r1_kill_9_during_the_first_start_hinders_no_later_one() {
    each_database(async |options| {
        let folder = std::sync::Arc::new(tempfile::tempdir().expect("a folder can be made"));
        for delay in [5, 20, 40, 60, 80, 120, 200, 400] {
            let data = folder.path().join("data");
            let mut command = crate::support::server::muster();
            command.args(crate::support::server::serve_arguments(&data, &options));
            command
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .kill_on_drop(true);
            let mut child = command.spawn().expect("the program muster starts");
            tokio::time::sleep(Duration::from_millis(delay)).await;
            child.kill().await.expect("a child can be killed");
        }
        let server = Server::start_in(folder, "data", options).await;
        server.api().await.get("/policies").await.ok();
        assert_healthy(&server).await;
    })
    .await;
}
