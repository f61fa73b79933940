//! Stages over the API and with signed reports, on both engines.

use muster_model::{SettingState, platform::Platform};
use muster_storage::testing::on_both;
use serde_json::{Value, json};

use super::{BASELINE, LOOSER, complete, desired, post, reconcile, reports, rollout, versions};
use crate::{
    MIGRATIONS,
    policy::testing::{Scene, TestDevice},
};

const PILOT: &str = r#""stages":[{"name":"pilot","percent":20},{"name":"full"}]"#;

async fn fleet(scene: &Scene, count: usize) -> Vec<TestDevice> {
    let mut devices = Vec::with_capacity(count);
    for _ in 0..count {
        devices.push(scene.device(Platform::Linux).await);
    }
    devices
}

/// The devices that should have this version, and the others.
async fn split<'a>(
    scene: &Scene,
    devices: &'a [TestDevice],
    version: &str,
) -> (Vec<&'a TestDevice>, Vec<&'a TestDevice>) {
    let (mut have, mut others) = (Vec::new(), Vec::new());
    for device in devices {
        if versions(scene, device).await == [version] {
            have.push(device);
        } else {
            others.push(device);
        }
    }
    (have, others)
}

async fn stage(scene: &Scene, id: &str, place: usize) -> Value {
    rollout(scene, id).await["stages"][place].clone()
}

async fn run(scene: &Scene) -> usize {
    reconcile(&scene.app).await.expect("the reconciler runs")
}

/// A fleet of ten at version 1, with version 2 in its pilot of two.
async fn piloted(scene: &Scene, devices: &[TestDevice], members: &str) -> String {
    scene.version("baseline", "1", LOOSER).await;
    scene.version("baseline", "2", BASELINE).await;
    complete(scene, "baseline", "1", &devices.iter().collect::<Vec<_>>()).await;
    scene.activate_in("baseline", "2", members).await
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_pilot_that_fails_is_undone_and_nobody_else_sees_anything() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let devices = fleet(&scene, 10).await;
        let id = piloted(&scene, &devices, PILOT).await;
        let (pilot, others) = split(&scene, &devices, "2").await;
        assert_eq!((pilot.len(), others.len()), (2, 8));
        let mut before = Vec::new();
        for device in &others {
            before.push(desired(&scene, device).await.digest);
        }
        reports(&scene, pilot[0], SettingState::Verified).await;
        reports(&scene, pilot[1], SettingState::Failed).await;
        assert_eq!(run(&scene).await, 1);

        let ended = rollout(&scene, &id).await;
        assert_eq!(
            (&ended["state"], &ended["touched"]),
            (&json!("rolled_back"), &json!(2))
        );
        assert_eq!(ended["stages"][0]["state"], "failed");
        assert_eq!(ended["stages"][0]["gate"]["verdict"], "fail");
        assert!(
            ended["reason"]
                .as_str()
                .is_some_and(|reason| reason.starts_with("stage pilot: ")),
            "{ended}"
        );
        for device in &pilot {
            let set = desired(&scene, device).await;
            assert_eq!(
                (versions(&scene, device).await, set.bundles[0].generation),
                (vec!["1".to_owned()], 3)
            );
        }
        for (device, before) in others.iter().zip(before) {
            assert_eq!(desired(&scene, device).await.digest, before);
        }
        assert_eq!(scene.entries("rollout.gate_failed").await, 1);
        assert_eq!(scene.entries("rollout.rolled_back").await, 1);

        for device in &pilot {
            reports(&scene, device, SettingState::Verified).await;
        }
        assert_eq!(run(&scene).await, 1);
        let listed = scene.call("GET", "/rollouts", None).await.json();
        let mut listed = listed["items"].as_array().expect("it is a list").iter();
        let back = listed
            .find(|one| one["rolled_back_from"] == id)
            .expect("a rollout undoes it");
        assert_eq!(
            (&back["state"], &back["stages"][0]["devices"]),
            (&json!("completed"), &json!(2))
        );
        for device in &others {
            assert_eq!(versions(&scene, device).await, ["1"], "the layer under it stays");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_each_stage_opens_when_the_one_before_passes_under_its_own_generation_and_entry() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let devices = fleet(&scene, 10).await;
        let members =
            r#""stages":[{"name":"pilot","percent":20},{"name":"canary","percent":50},{"name":"full"}]"#;
        let id = piloted(&scene, &devices, members).await;
        for (place, wanted) in [(0, 2), (1, 5), (2, 10)] {
            let (have, _) = split(&scene, &devices, "2").await;
            assert_eq!(have.len(), wanted, "stage {place}");
            assert_eq!(run(&scene).await, 0, "not all have reported");
            for device in have {
                reports(&scene, device, SettingState::Verified).await;
            }
            assert_eq!(run(&scene).await, 1);
        }
        let ended = rollout(&scene, &id).await;
        assert_eq!(ended["state"], "completed");
        let generations: Vec<_> = (0..3)
            .map(|place| ended["stages"][place]["generation"].clone())
            .collect();
        assert_eq!(generations, [json!(2), json!(3), json!(4)]);
        assert_eq!(scene.entries("rollout.activated").await, 4);
        let decided = scene
            .call("GET", &format!("/rollouts/{id}/decisions"), None)
            .await
            .json();
        let actions: Vec<_> = decided["items"]
            .as_array()
            .expect("it is a list")
            .iter()
            .map(|item| {
                (
                    item["stage"].clone(),
                    item["action"].clone(),
                    item["numbers"]["sample"].clone(),
                )
            })
            .collect();
        assert_eq!(
            actions,
            [
                (json!("full"), json!("completed"), json!(5)),
                (json!("canary"), json!("opened_next"), json!(3)),
                (json!("pilot"), json!("opened_next"), json!(2)),
            ]
        );
        let canary = scene
            .call("GET", &format!("/rollouts/{id}/devices?stage=canary"), None)
            .await
            .json();
        assert_eq!(canary["items"].as_array().map(Vec::len), Some(3));
        let current: i64 = scene
            .value("SELECT COUNT(*) FROM rollout_rollout WHERE tenant_id = $1 AND current")
            .await;
        assert_eq!(current, 1, "what lay under it is gone");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_an_exact_gate_with_too_few_devices_is_inconclusive_and_a_person_decides() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let devices = fleet(&scene, 10).await;
        let members = r#""stages":[{"name":"pilot","percent":20,"gate":{"method":"exact"}},{"name":"full"}]"#;
        let id = piloted(&scene, &devices, members).await;
        let (pilot, _) = split(&scene, &devices, "2").await;
        for device in &pilot {
            reports(&scene, device, SettingState::Verified).await;
        }
        assert_eq!(run(&scene).await, 1);
        let held = rollout(&scene, &id).await;
        assert_eq!(
            (&held["state"], &held["waits_for"]),
            (&json!("running"), &json!("inconclusive"))
        );
        assert_eq!(held["stages"][0]["gate"]["verdict"], "inconclusive");
        assert_eq!(run(&scene).await, 0, "it is said once");
        assert_eq!(scene.entries("rollout.gate_inconclusive").await, 1);
        assert_eq!(post(&scene, &id, "promote").await["stages"][1]["state"], "open");
        assert_eq!(split(&scene, &devices, "2").await.0.len(), 10);
        assert_eq!(scene.entries("rollout.promoted").await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_stage_that_is_promoted_by_hand_waits_and_soaks() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let devices = fleet(&scene, 10).await;
        let members =
            r#""stages":[{"name":"pilot","percent":20,"soak_seconds":3600,"promotion":"manual"},{"name":"full"}]"#;
        let id = piloted(&scene, &devices, members).await;
        let (pilot, _) = split(&scene, &devices, "2").await;
        for device in &pilot {
            reports(&scene, device, SettingState::Verified).await;
        }
        assert_eq!(run(&scene).await, 0);
        assert_eq!(stage(&scene, &id, 0).await["gate"]["verdict"], "wait");
        let early = scene.call("POST", &format!("/rollouts/{id}/promote"), None).await;
        assert_eq!((early.status, early.code().as_str()), (409, "illegal_state"));
        scene.pass_seconds(3600);
        assert_eq!(run(&scene).await, 1);
        let waiting = rollout(&scene, &id).await;
        assert_eq!(
            (&waiting["waits_for"], &waiting["stages"][0]["state"], &waiting["stages"][1]["state"]),
            (&json!("promotion"), &json!("passed"), &json!("waiting"))
        );
        post(&scene, &id, "promote").await;
        for device in split(&scene, &devices, "2").await.0 {
            reports(&scene, device, SettingState::Verified).await;
        }
        assert_eq!(run(&scene).await, 1);
        assert_eq!(rollout(&scene, &id).await["state"], "completed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_silent_devices_fail_a_stage_after_their_deadline() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let devices = fleet(&scene, 10).await;
        let members =
            r#""stages":[{"name":"pilot","percent":20,"gate":{"silent_after_seconds":600}},{"name":"full"}]"#;
        let id = piloted(&scene, &devices, members).await;
        let (pilot, _) = split(&scene, &devices, "2").await;
        reports(&scene, pilot[0], SettingState::Verified).await;
        scene.pass_seconds(599);
        assert_eq!(run(&scene).await, 0);
        scene.pass_seconds(1);
        assert_eq!(run(&scene).await, 1);
        let ended = rollout(&scene, &id).await;
        assert_eq!(
            (&ended["state"], &ended["stages"][0]["silent"]),
            (&json!("rolled_back"), &json!(1))
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_gate_that_holds_leaves_its_failure_to_a_person() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let devices = fleet(&scene, 10).await;
        let members =
            r#""stages":[{"name":"pilot","percent":20,"gate":{"on_failure":"hold"}},{"name":"full"}]"#;
        let id = piloted(&scene, &devices, members).await;
        let (pilot, _) = split(&scene, &devices, "2").await;
        for device in &pilot {
            reports(&scene, device, SettingState::Failed).await;
        }
        assert_eq!(run(&scene).await, 1);
        let held = rollout(&scene, &id).await;
        assert_eq!(
            (&held["state"], &held["waits_for"], &held["stages"][0]["state"]),
            (&json!("running"), &json!("failed"), &json!("failed"))
        );
        // Going well afterwards does not take the decision from the person.
        for device in &pilot {
            scene.pass_seconds(1);
            reports(&scene, device, SettingState::Verified).await;
        }
        assert_eq!(run(&scene).await, 0);
        post(&scene, &id, "promote").await;
        assert_eq!(split(&scene, &devices, "2").await.0.len(), 10);
        assert_eq!(run(&scene).await, 0, "an accepted failure stops nothing");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_failed_roll_back_holds_and_is_not_rolled_back_itself() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let devices = fleet(&scene, 10).await;
        let id = piloted(&scene, &devices, PILOT).await;
        let (pilot, _) = split(&scene, &devices, "2").await;
        let undone = post(&scene, &id, "abort").await;
        let back = undone["replacement_id"]
            .as_str()
            .expect("there is an earlier version")
            .to_owned();
        for device in &pilot {
            reports(&scene, device, SettingState::Failed).await;
        }
        assert_eq!(run(&scene).await, 1);
        let held = rollout(&scene, &back).await;
        assert_eq!(
            (&held["state"], &held["waits_for"]),
            (&json!("running"), &json!("failed"))
        );
        assert_eq!(scene.entries("rollout.gate_failed").await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_newer_version_supersedes_a_rollout_that_is_under_way() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let devices = fleet(&scene, 10).await;
        let id = piloted(&scene, &devices, PILOT).await;
        let (pilot, _) = split(&scene, &devices, "2").await;
        reports(&scene, pilot[0], SettingState::Verified).await;
        scene
            .version("baseline", "3", r#"{"passcode.min_length":14}"#)
            .await;
        let newer = scene.activate_in("baseline", "3", PILOT).await;
        let superseded = rollout(&scene, &id).await;
        assert_eq!(
            (&superseded["state"], &superseded["reason"]),
            (&json!("aborted"), &json!(format!("superseded by {newer}")))
        );
        // Who has the superseded version keeps it until a stage of the newer one comes; nobody else takes it any more.
        for device in &devices {
            let has = versions(&scene, device).await;
            let had_it = device.id == pilot[0].id;
            assert!(has == ["3"] || has == [if had_it { "2" } else { "1" }], "{has:?}");
        }
        assert_eq!(split(&scene, &devices, "3").await.0.len(), 2);
        for device in split(&scene, &devices, "3").await.0 {
            reports(&scene, device, SettingState::Verified).await;
        }
        run(&scene).await;
        for device in &devices {
            reports(&scene, device, SettingState::Verified).await;
        }
        run(&scene).await;
        assert_eq!(rollout(&scene, &newer).await["state"], "completed");
        assert_eq!(split(&scene, &devices, "3").await.0.len(), 10);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_failures_of_another_policy_stop_nothing() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let device = scene.device(Platform::Linux).await;
        scene.version("baseline", "1", BASELINE).await;
        scene.version("camera", "1", r#"{"camera.allowed":false}"#).await;
        let (one, two) = (
            scene.activate("baseline", "1").await,
            scene.activate("camera", "1").await,
        );
        let mut statement = super::report(
            &scene,
            &device,
            &*desired(&scene, &device).await,
            SettingState::Verified,
        );
        if let Some(report) = statement.settings.get_mut("camera.allowed") {
            report.state = SettingState::Failed;
        }
        super::accept_report(&scene.app, &device.reporter, &super::signed(&device, &statement))
            .await
            .expect("the report is accepted");
        run(&scene).await;
        assert_eq!(rollout(&scene, &one).await["state"], "completed");
        assert_eq!(rollout(&scene, &two).await["state"], "rolled_back");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_preview_says_what_each_stage_would_hold_and_changes_nothing() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        fleet(&scene, 9).await;
        scene.device(Platform::Ios).await;
        scene.version("baseline", "1", BASELINE).await;
        scene.version("other", "1", LOOSER).await;
        scene.activate("other", "1").await;
        let body = r#"{"version":"1","stages":[{"name":"pilot","percent":20,"gate":{"method":"exact"}},{"name":"full"}]}"#;
        let seen = scene.call("POST", "/policies/baseline/activation-preview", Some(body)).await;
        assert_eq!(seen.status, 200, "{seen:?}");
        let seen = seen.json();
        assert_eq!((&seen["devices"], &seen["stages"][0]["devices"]), (&json!(10), &json!(2)));
        assert_eq!(seen["stages"][0]["strata"].as_array().map(Vec::len), Some(2), "each kind is in the pilot");
        assert_eq!(seen["stages"][0]["failures_allowed"], Value::Null);
        assert_eq!(seen["warnings"].as_array().map(Vec::len), Some(1), "{seen}");
        assert_eq!(
            (&seen["conflicts"][0]["setting"], &seen["conflicts"][0]["policy_name"]),
            (&json!("passcode.min_length"), &json!("other"))
        );
        assert_eq!(scene.entries("rollout.activated").await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_outside_its_windows_a_rollout_moves_nobody_and_opens_nothing() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let devices = fleet(&scene, 10).await;
        // Scenes begin on 2027-01-15, a Friday, at 08:00.
        let members = r#""windows":[{"days":["fri"],"start":"09:00","end":"10:00"}],
            "stages":[{"name":"pilot","percent":20},{"name":"full"}]"#;
        let id = piloted(&scene, &devices, members).await;
        assert_eq!(split(&scene, &devices, "2").await.0.len(), 0);
        assert_eq!(rollout(&scene, &id).await["waits_for"], "window");
        scene.pass_seconds(3600);
        let (pilot, _) = split(&scene, &devices, "2").await;
        assert_eq!(pilot.len(), 2);
        for device in &pilot {
            reports(&scene, device, SettingState::Verified).await;
        }
        scene.pass_seconds(3600);
        assert_eq!(run(&scene).await, 0, "the gate passes, and the window is closed");
        scene.pass_seconds(7 * 86_400 - 3600);
        assert_eq!(run(&scene).await, 1);
        assert_eq!(split(&scene, &devices, "2").await.0.len(), 10);
    })
    .await;
}
