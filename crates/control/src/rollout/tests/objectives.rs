//! Objectives of gates that are measured from compliance, on both engines.

use muster_model::{SettingState, facts::Facts, platform::Platform};
use muster_storage::testing::on_both;
use serde_json::{Value, json};

use super::{LOOSER, complete, reconcile, reports, rollout, versions};
use crate::{
    MIGRATIONS,
    policy::testing::{Scene, TestDevice},
    rollout::take_facts,
};

/// Version 2 demands a newer system in a rule; devices say which one they have.
const RULES: &str = r#"[{"name":"fresh system","check":{"fact":"os.version","op":"ge","value":"13"}}]"#;

async fn says(scene: &Scene, device: &TestDevice, version: &str) {
    let mut facts: Facts =
        serde_json::from_str(r#"{"hardware":{},"os":{"id":"debian"},"collected_at":"2026-11-23T21:00:00Z"}"#)
            .expect("they are facts");
    facts.os.version = Some(version.to_owned());
    facts.collected_at = scene.app.clock.now();
    let moves = take_facts(&scene.app, scene.tenant, device.id, facts).await;
    assert!(
        moves.expect("the facts are taken").is_empty(),
        "there is no group"
    );
}

/// Ten devices at version 1, and version 2 with its rule.
async fn fleet(scene: &Scene) -> Vec<TestDevice> {
    let mut devices = Vec::new();
    for _ in 0..10 {
        devices.push(scene.device(Platform::Linux).await);
    }
    scene.version("baseline", "1", LOOSER).await;
    complete(scene, "baseline", "1", &devices.iter().collect::<Vec<_>>()).await;
    let body = format!(r#"{{"version":"2","settings":{{"passcode.min_length":12}},"rules":{RULES}}}"#);
    let made = scene
        .call("POST", "/policies/baseline/versions", Some(&body))
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    devices
}

fn with_objective(name: &str) -> String {
    let stages = json!([
        {"name": "pilot", "percent": 20, "soak_seconds": 60, "gate": {"slos": [{"name": name, "limit": 0.1}]}},
        {"name": "full"},
    ]);
    format!(r#""stages":{stages}"#)
}

async fn pilot_of<'a>(scene: &Scene, devices: &'a [TestDevice]) -> Vec<&'a TestDevice> {
    let mut pilot = Vec::new();
    for device in devices {
        if versions(scene, device).await == ["2"] {
            pilot.push(device);
        }
    }
    pilot
}

async fn objective(scene: &Scene, id: &str) -> Value {
    rollout(scene, id).await["stages"][0]["gate"]["slos"][0].clone()
}

async fn run(scene: &Scene) -> usize {
    reconcile(&scene.app).await.expect("the reconciler runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_pilot_that_becomes_noncompliant_is_stopped_and_rolled_back() {
    for name in ["compliance", "compliance:fresh system"] {
        on_both(MIGRATIONS, async |db| {
            let scene = Scene::new(db.db().clone()).await;
            let devices = fleet(&scene).await;
            for device in &devices {
                says(&scene, device, "13").await;
            }
            let id = scene.activate_in("baseline", "2", &with_objective(name)).await;
            let pilot = pilot_of(&scene, &devices).await;
            assert_eq!(pilot.len(), 2);
            for device in &pilot {
                reports(&scene, device, SettingState::Verified).await;
            }
            assert_eq!(run(&scene).await, 0, "the stage soaks");
            assert_eq!(
                objective(&scene, &id).await,
                json!({"name": name, "count": 0, "of": 2, "limit": 0.1, "state": "within"})
            );
            // Every setting is verified, and yet the devices comply no more.
            says(&scene, pilot[0], "12").await;
            scene.pass_seconds(60);
            assert_eq!(run(&scene).await, 1);
            let ended = rollout(&scene, &id).await;
            assert_eq!(ended["state"], "rolled_back");
            assert_eq!(
                ended["reason"],
                format!("stage pilot: {name}: 1 of 2, the limit is 10 %")
            );
            assert_eq!(ended["stages"][0]["gate"]["slos"][0]["count"], 1, "{ended}");
            for device in &pilot {
                assert_eq!(versions(&scene, device).await, ["1"]);
            }
            assert_eq!(scene.entries("rollout.gate_failed").await, 1);
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_pilot_of_which_nothing_is_known_does_not_pass_until_it_complies() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let devices = fleet(&scene).await;
        let id = scene
            .activate_in("baseline", "2", &with_objective("compliance"))
            .await;
        let pilot = pilot_of(&scene, &devices).await;
        for device in &pilot {
            reports(&scene, device, SettingState::Verified).await;
        }
        scene.pass_seconds(60);
        // The rule needs a fact that nobody of the pilot has sent: nothing is measured, and nothing passes by that.
        assert_eq!(run(&scene).await, 1);
        let held = rollout(&scene, &id).await;
        assert_eq!(held["waits_for"], "inconclusive", "{held}");
        assert_eq!(objective(&scene, &id).await["state"], "unmeasured");
        for device in &pilot {
            says(&scene, device, "13").await;
        }
        assert_eq!(run(&scene).await, 1);
        let opened = rollout(&scene, &id).await;
        assert_eq!(opened["stages"][1]["state"], "open", "{opened}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_what_nobody_measures_is_refused_before_anything_begins() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        fleet(&scene).await;
        for name in ["checkin_loss", "compliance:other", "telemetry:crashes"] {
            let body = format!(r#"{{"version":"2",{}}}"#, with_objective(name));
            for path in ["activate", "activation-preview"] {
                let path = format!("/policies/baseline/{path}");
                let refused = scene.call("POST", &path, Some(&body)).await;
                assert_eq!((refused.status, refused.code().as_str()), (422, "stages_invalid"));
                let detail = refused.json()["detail"].as_str().unwrap_or_default().to_owned();
                assert!(
                    detail.contains(name) && detail.ends_with("`compliance`, `compliance:fresh system`."),
                    "{detail}"
                );
            }
        }
        assert_eq!(scene.entries("rollout.activated").await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_preview_refuses_a_group_that_is_not_there_as_the_activation_does() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.version("baseline", "1", LOOSER).await;
        let body = r#"{"version":"1","target":{"groups":["grp_00000000000000000000000000000001"]}}"#;
        let seen = scene
            .call("POST", "/policies/baseline/activation-preview", Some(body))
            .await;
        let refused = scene
            .call("POST", "/policies/baseline/activate", Some(body))
            .await;
        assert_eq!((seen.status, seen.code()), (404, "not_found".to_owned()));
        assert_eq!(
            (refused.status, &refused.json()["detail"]),
            (404, &seen.json()["detail"])
        );
    })
    .await;
}
