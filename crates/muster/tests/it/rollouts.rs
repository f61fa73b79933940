//! Staged rollouts over a simulated fleet: the real server, devices on the real wire.

use std::{collections::BTreeMap, path::Path, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::process::Child;

use crate::support::{
    PATIENCE,
    api::Api,
    database::{each_database, on_postgres},
    eventually,
    server::{Options, Server, assert_healthy, muster},
};

/// Devices of a fleet here: enough for a pilot with several models, few enough for a test.
const DEVICES: usize = 60;
/// A rollout may take this long on a loaded machine.
const ROLLOUT_PATIENCE: Duration = Duration::from_secs(120);
const LOOSE: &str = r#"{"passcode.min_length":8}"#;
const STRICT: &str = r#"{"passcode.min_length":12,"camera.allowed":false}"#;

/// Simulated devices on the wire. They are gone when the test ends.
struct Farm {
    child: Child,
}

impl Farm {
    fn start(server: &Server, arguments: &[&str]) -> Farm {
        let child = muster()
            .args([
                "farm",
                "--seed",
                "7",
                "--fail-rate",
                "0",
                "--devices",
                &DEVICES.to_string(),
            ])
            .arg("--admin-file")
            .arg(server.admin_file())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        Farm {
            child: child.expect("the farm starts"),
        }
    }

    async fn kill(mut self) {
        self.child.kill().await.expect("the farm can be killed");
    }
}

/// Waits until every device is enrolled.
async fn enrolled(api: &Api) {
    eventually("every device is enrolled", ROLLOUT_PATIENCE, async || {
        let devices = api.list("/devices?filter=state%3Aactive&limit=500").await;
        (devices.len() == DEVICES).then_some(())
    })
    .await;
}

async fn version(api: &Api, version: &str, settings: &str) {
    let made = api.post("/policies", &json!({"name": "base"})).await;
    assert!(matches!(made.status, 201 | 409), "{}", made.text());
    let settings: Value = serde_json::from_str(settings).expect("settings are JSON");
    let body = json!({"version": version, "settings": settings});
    api.post("/policies/base/versions", &body).await.expect(201);
}

async fn activate(api: &Api, body: Value) -> String {
    let begun = api.post("/policies/base/activate", &body).await.expect(202);
    begun["rollout_id"].as_str().expect("an id is text").to_owned()
}

async fn until(api: &Api, id: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    eventually(what, ROLLOUT_PATIENCE, async || {
        let rollout = api.get(&format!("/rollouts/{id}")).await.ok();
        is_so(&rollout).then_some(rollout)
    })
    .await
}

async fn ended(api: &Api, id: &str) -> Value {
    until(api, id, "the rollout ends", |rollout| {
        !matches!(rollout["state"].as_str(), Some("running" | "paused"))
    })
    .await
}

/// Ids of the devices of a stage.
async fn members(api: &Api, id: &str, stage: &str) -> Vec<String> {
    let devices = api
        .list(&format!("/rollouts/{id}/devices?stage={stage}&limit=500"))
        .await;
    let ids = devices
        .iter()
        .map(|device| device["device_id"].as_str().expect("an id is text"));
    ids.map(str::to_owned).collect()
}

/// Brings the fleet to a first version, at once.
async fn at_first_version(api: &Api) {
    version(api, "1", LOOSE).await;
    let id = activate(api, json!({"version": "1", "stages": [{"name": "full"}]})).await;
    assert_eq!(ended(api, &id).await["state"], "completed");
}

fn sum(rollout: &Value, field: &str) -> u64 {
    let stages = rollout["stages"].as_array().expect("stages are a list");
    stages.iter().filter_map(|stage| stage[field].as_u64()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_the_literal_call_brings_a_good_version_through_all_stages() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let _farm = Farm::start(&server, &[]);
        enrolled(&api).await;
        at_first_version(&api).await;
        version(&api, "2026.05", STRICT).await;
        let id = activate(&api, json!({"version": "2026.05"})).await;
        let done = ended(&api, &id).await;
        assert_eq!(done["state"], "completed", "{done}");
        let stages: Vec<_> = (0..3)
            .map(|place| done["stages"][place]["devices"].clone())
            .collect();
        assert_eq!(stages, [json!(6), json!(9), json!(45)]);
        assert_eq!((sum(&done, "failed"), sum(&done, "silent")), (0, 0));
        assert_eq!(api.list(&format!("/rollouts/{id}/decisions")).await.len(), 3);
        let devices = api.list("/devices?limit=500").await;
        assert!(
            devices
                .iter()
                .all(|device| device["policy"]["version"] == "2026.05")
        );
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_version_that_fails_on_one_model_is_stopped_and_only_the_touched_devices_go_back() {
    each_database(async |options| fails_on_one_model(options).await).await;
}

async fn fails_on_one_model(options: Options) {
    let server = Server::start(options).await;
    let api = server.api().await;
    let _farm = Farm::start(&server, &["--fault", "Fieldbook 14:camera.allowed=1"]);
    enrolled(&api).await;
    eventually("every device has said what it is", ROLLOUT_PATIENCE, async || {
        let devices = api.list("/devices?limit=500").await;
        devices
            .iter()
            .all(|device| device["model"].is_string())
            .then_some(())
    })
    .await;
    at_first_version(&api).await;
    let before = api.list("/devices?limit=500").await;
    version(&api, "2", STRICT).await;
    let id = activate(&api, json!({"version": "2"})).await;
    let undone = ended(&api, &id).await;
    assert_eq!(
        (&undone["state"], &undone["stages"][0]["state"]),
        (&json!("rolled_back"), &json!("failed"))
    );
    assert_eq!(undone["stages"][1]["state"], "waiting", "{undone}");
    let touched = members(&api, &id, "pilot").await;
    assert_eq!((touched.len(), &undone["touched"]), (6, &json!(6)));

    let rollouts = api.list("/rollouts").await;
    let back = rollouts
        .iter()
        .find(|one| one["rolled_back_from"] == id.as_str())
        .expect("it is undone");
    let back = ended(&api, back["id"].as_str().expect("an id is text")).await;
    assert_eq!(
        (&back["state"], &back["stages"][0]["devices"]),
        (&json!("completed"), &json!(6))
    );

    let policy = |devices: &[Value]| -> BTreeMap<String, Value> {
        let of = |device: &Value| {
            (
                device["id"].as_str().expect("an id is text").to_owned(),
                device["policy"].clone(),
            )
        };
        devices.iter().map(of).collect()
    };
    let (before, after) = (policy(&before), policy(&api.list("/devices?limit=500").await));
    assert_eq!(before, after, "every device is where it was");
    // Who was not touched was told nothing: its last report is the one about the first version.
    for device in after.keys().filter(|id| !touched.contains(id)) {
        let settings = api.get(&format!("/devices/{device}/settings")).await.ok();
        assert_eq!(settings["policies"][0]["generation"], 1, "{settings}");
    }
    for device in &touched {
        let settings = api.get(&format!("/devices/{device}/settings")).await.ok();
        assert_eq!(settings["policies"][0]["generation"], 3, "{settings}");
    }
    let alerts = api.list("/log/entries?limit=500").await;
    assert!(
        alerts
            .iter()
            .any(|entry| entry["action"] == "rollout.gate_failed")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_fleet_with_many_silent_devices_stops_a_rollout() {
    each_database(async |options| {
        let server = Server::start(options.with("--silent-after-seconds", 8)).await;
        let api = server.api().await;
        let _farm = Farm::start(&server, &["--silent-rate", "0.3"]);
        enrolled(&api).await;
        version(&api, "1", LOOSE).await;
        let members = json!({"version": "1", "stages": [{"name": "half", "percent": 50}, {"name": "full"}]});
        let id = activate(&api, members).await;
        let undone = ended(&api, &id).await;
        assert_eq!(undone["state"], "rolled_back", "{undone}");
        let stage = &undone["stages"][0];
        assert!(
            stage["silent"].as_u64().is_some_and(|silent| silent > 0),
            "{stage}"
        );
        assert_eq!(
            (&stage["devices"], &undone["stages"][1]["state"]),
            (&json!(30), &json!("waiting"))
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_rollout_goes_on_after_the_server_was_killed() {
    let mut server = Server::start(Options::default()).await;
    let state = server.folder().path().join("farm");
    let state = state.to_str().expect("paths here are text").to_owned();
    let farm = Farm::start(&server, &["--state-dir", &state]);
    let api = server.api().await;
    enrolled(&api).await;
    version(&api, "1", LOOSE).await;
    farm.kill().await;
    let id = activate(&api, json!({"version": "1"})).await;
    server.kill().await;
    server.restart().await;
    assert!(Path::new(&state).exists());
    let _farm = Farm::start(&server, &["--state-dir", &state]);
    let api = server.api().await;
    let done = ended(&api, &id).await;
    assert_eq!(
        (&done["state"], sum(&done, "verified")),
        (&json!("completed"), DEVICES as u64),
        "{done}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_of_two_nodes_one_opens_each_stage() {
    on_postgres(async |options| {
        let first = Server::start(options).await;
        let second = first.second_node().await;
        let _farm = Farm::start(&first, &[]);
        let api = second.api().await;
        enrolled(&api).await;
        version(&api, "1", LOOSE).await;
        let id = activate(&api, json!({"version": "1"})).await;
        let done = ended(&api, &id).await;
        assert_eq!(done["state"], "completed", "{done}");
        let entries = api.list("/log/entries?limit=500").await;
        let opened = entries
            .iter()
            .filter(|entry| entry["action"] == "rollout.activated");
        assert_eq!(opened.count(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_stage_is_promoted_by_hand_paused_and_resumed() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let _farm = Farm::start(&server, &[]);
    enrolled(&api).await;
    version(&api, "1", LOOSE).await;
    let stages = json!([{"name": "pilot", "percent": 10, "promotion": "manual"}, {"name": "full"}]);
    let id = activate(&api, json!({"version": "1", "stages": stages})).await;
    let waiting = until(&api, &id, "the pilot passes", |rollout| {
        rollout["waits_for"] == "promotion"
    })
    .await;
    assert_eq!(
        (&waiting["stages"][0]["verified"], &waiting["touched"]),
        (&json!(6), &json!(6))
    );
    api.post(&format!("/rollouts/{id}/pause"), &json!({})).await.ok();
    api.post(&format!("/rollouts/{id}/promote"), &json!({}))
        .await
        .refused(409, "illegal_state");
    api.post(&format!("/rollouts/{id}/resume"), &json!({})).await.ok();
    api.post(&format!("/rollouts/{id}/promote"), &json!({}))
        .await
        .ok();
    assert_eq!(ended(&api, &id).await["state"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn p11_a_client_that_may_only_write_policies_can_neither_activate_nor_promote() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let author = api.client_with("ci", &["policy:write", "policy:read"]).await;
    version(&author, "1", LOOSE).await;
    let stages = json!([{"name": "pilot", "percent": 10, "promotion": "manual"}, {"name": "full"}]);
    let body = json!({"version": "1", "stages": stages});
    author
        .post("/policies/base/activate", &body)
        .await
        .refused(403, "insufficient_scope");
    author.post("/policies/base/activation-preview", &body).await.ok();
    let id = activate(&api, body).await;
    for what in ["promote", "pause", "resume", "abort", "rollback"] {
        author
            .post(&format!("/rollouts/{id}/{what}"), &json!({}))
            .await
            .refused(403, "insufficient_scope");
    }
    // Who may activate may not promote.
    let starter = api.client_with("starter", &["policy:activate"]).await;
    starter
        .post(&format!("/rollouts/{id}/promote"), &json!({}))
        .await
        .refused(403, "insufficient_scope");
    eventually(
        "nobody is there, so the first stage passes",
        PATIENCE,
        async || {
            let rollout = api.get(&format!("/rollouts/{id}")).await.ok();
            (rollout["waits_for"] == "promotion").then_some(())
        },
    )
    .await;
}
