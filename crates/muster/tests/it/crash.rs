//! `kill -9` under load: what was acknowledged is there, and the log is whole.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::{
    api::{Api, try_answer},
    approvers::{batch_in, command_of, operation_of, two_of},
    database::each_database,
    device::Obedient,
    server::{Options, Server, assert_healthy},
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

/// A client of a server that may die, fail or hang once.
struct Patient {
    server: Server,
    api: Api,
}

impl Patient {
    async fn of(server: Server) -> Patient {
        let api = server.api().await;
        Patient { server, api }
    }

    async fn get(&mut self, path: &str) -> Value {
        self.call(reqwest::Method::GET, path, "", None, |status| status == 200)
            .await
    }

    /// Calls until there is an answer. A key makes the repetition harmless.
    async fn call(
        &mut self,
        method: reqwest::Method,
        path: &str,
        key: &str,
        body: Option<&Value>,
        is_told: impl Fn(u16) -> bool,
    ) -> Value {
        for _ in 0..6 {
            let mut request = self.api.request(method.clone(), path);
            if let Some(body) = body {
                request = request.header("Idempotency-Key", key).json(body);
            }
            match try_answer(request).await {
                Ok(answer) if is_told(answer.status) => return answer.json(),
                Ok(_) => tokio::time::sleep(Duration::from_millis(200)).await,
                Err(_) => {
                    self.server.mend().await;
                    self.api.origin.clone_from(&self.server.admin.admin_url);
                }
            }
        }
        panic!("{path} was not answered");
    }
}

/// Asks for a wipe, approves it, lets the device carry it out, whatever goes wrong once on the way.
async fn wipe_through(options: Options, fault: &str) {
    let mut server = Server::start(options).await;
    let keys = two_of(&mut server, &["Ada", "Grace"]).await;
    let mut device = Obedient::enroll(&server.api().await, &server.admin).await;
    server.break_with(fault).await;
    let mut patient = Patient::of(server).await;
    let path = format!("/devices/{}/commands", device.device.id());
    let wipe = json!({"type": "wipe", "mode": "full"});
    let post = reqwest::Method::POST;
    let asked = patient
        .call(post.clone(), &path, "ask", Some(&wipe), |status| status == 202)
        .await;
    let operation = operation_of(&asked["command_id"]);
    let shown = patient.get(&format!("/operations/{operation}")).await;
    for key in &keys {
        let approval = batch_in(&shown).approve(key).expect("a key signs");
        let approval = serde_json::to_value(approval).expect("an approval is JSON");
        let path = format!("/operations/{operation}/approvals");
        // Given twice, it is refused the second time where it was the last that was missing.
        let is_told = |status| status == 200 || status == 409;
        patient
            .call(post.clone(), &path, "approve", Some(&approval), is_told)
            .await;
    }
    let command = format!("/commands/{}", command_of(&operation));
    for _ in 0..200 {
        device.move_to(&patient.server.admin);
        device.try_obey().await;
        if patient.get(&command).await["state"] == "done" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let shown = patient.get(&command).await;
    assert_eq!(shown["state"], "done", "{fault}: {shown}");
    assert_eq!(device.executed.len(), 1, "{fault}: {:?}", device.executed);
    for list in ["/commands", "/operations"] {
        let listed = patient.get(list).await;
        assert_eq!(
            listed["items"].as_array().map(Vec::len),
            Some(1),
            "{fault}: {listed}"
        );
    }
    assert_healthy(&patient.server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r1_every_step_of_an_approved_wipe_survives_a_kill_an_error_a_hang_and_a_repetition() {
    const STEPS: [&str; 5] = [
        "operation.asked",
        "operation.approved",
        "command.created",
        "command.delivered",
        "command.completed",
    ];
    // The last one: done and not answered, so that the caller repeats it.
    const FAULTS: [&str; 5] = [
        "before/kill",
        "after/kill",
        "before/error",
        "after/hang",
        "after/error",
    ];
    each_database(async |options| {
        for step in STEPS {
            let one =
                async |fault: &str| wipe_through(options.fresh().await, &format!("{step}/{fault}")).await;
            let [a, b, c, d, e] = FAULTS.map(one);
            tokio::join!(a, b, c, d, e);
        }
    })
    .await;
}
