//! Rollouts over their routes and with signed reports, on both engines.

use std::{collections::BTreeMap, sync::Arc};

use muster_model::{ComplianceState, RolloutId, SettingReport, SettingState, Timestamp, platform::Platform};
use muster_storage::testing::{on_both, statement_problems, whole_table_scans};
use muster_trust::{
    dsse::Envelope,
    statement::{self, DesiredStateStatement, PolicyReportStatement},
};

use super::{Accepted, DesiredSet, accept_report, desired_for, reconcile};
use crate::{
    MIGRATIONS,
    access::problem::Problem,
    devices,
    policy::testing::{Scene, TestDevice},
};

const BASELINE: &str = r#"{"passcode.required":true,"passcode.min_length":12}"#;
const LOOSER: &str = r#"{"passcode.min_length":8}"#;

mod large;
mod layers;
mod objectives;
mod stages;

/// What a device should be at, by what it reported so far.
async fn desired(scene: &Scene, device: &TestDevice) -> Arc<DesiredSet> {
    let (tenant, id) = (scene.tenant, device.id);
    let traits = scene.app.db.read(scene.storage(), move |tx| {
        let device = devices::get(tx, tenant, id)?;
        super::traits_of(tx, tenant, &device)
    });
    let traits = traits.await.expect("the device is there");
    scene
        .app
        .activations
        .desired(scene.tenant, &traits, scene.app.clock.now())
        .expect("the tenant's view was read")
}

async fn versions(scene: &Scene, device: &TestDevice) -> Vec<String> {
    desired(scene, device)
        .await
        .bundles
        .iter()
        .map(|bundle| bundle.version.to_string())
        .collect()
}

/// A report that says every wanted setting is in this state.
fn report(
    scene: &Scene,
    device: &TestDevice,
    set: &DesiredSet,
    state: SettingState,
) -> PolicyReportStatement {
    let wanted = set.policies.iter().flat_map(|policy| policy.settings.iter());
    let settings: BTreeMap<String, SettingReport> = wanted
        .map(|(key, value)| {
            (
                key.to_owned(),
                SettingReport {
                    state,
                    observed: Some(value.clone()),
                    detail: None,
                },
            )
        })
        .collect();
    PolicyReportStatement {
        tenant: scene.tenant,
        device_id: device.id,
        epoch: device.reporter.epoch,
        state_digest: set.digest,
        generation: set.generation,
        settings,
        at: scene.app.clock.now(),
        facts_digest: None,
    }
}

fn signed(device: &TestDevice, statement: &PolicyReportStatement) -> Envelope {
    statement::sign(statement, &[&device.key]).expect("the report can be signed")
}

async fn reports(scene: &Scene, device: &TestDevice, state: SettingState) -> Accepted {
    let statement = report(scene, device, &*desired(scene, device).await, state);
    accept_report(&scene.app, &device.reporter, &signed(device, &statement))
        .await
        .expect("the report is accepted")
}

async fn compliance(scene: &Scene, device: &TestDevice) -> ComplianceState {
    let (tenant, id) = (scene.tenant, device.id);
    let device = scene
        .app
        .db
        .read(scene.storage(), move |tx| devices::get(tx, tenant, id))
        .await;
    device.expect("the device is there").compliance
}

async fn rollout(scene: &Scene, id: &str) -> serde_json::Value {
    let answer = scene.call("GET", &format!("/rollouts/{id}"), None).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn post(scene: &Scene, id: &str, what: &str) -> serde_json::Value {
    let answer = scene.call("POST", &format!("/rollouts/{id}/{what}"), None).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Activates a version and lets the devices verify it until the rollout is completed.
async fn complete(scene: &Scene, policy: &str, version: &str, devices: &[&TestDevice]) -> String {
    let id = scene.activate(policy, version).await;
    for device in devices {
        reports(scene, device, SettingState::Verified).await;
    }
    reconcile(&scene.app).await.expect("the reconciler runs");
    assert_eq!(rollout(scene, &id).await["state"], "completed");
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_is_understood_by_both_engines() {
    on_both(MIGRATIONS, async |db| {
        assert_eq!(
            statement_problems(db.db(), super::STATEMENTS).await,
            Vec::<String>::new()
        );
        assert_eq!(
            statement_problems(db.db(), devices::TARGET_STATEMENTS).await,
            Vec::<String>::new()
        );
        for statements in [
            super::STATEMENTS,
            devices::TARGET_STATEMENTS,
            crate::policy::STATEMENTS,
        ] {
            let mut scans = whole_table_scans(db.db(), statements).await;
            // The reconciler reads the small indexes of current rollouts and of unstored bundles, of every tenant.
            let small = ["rollout_rollout_current", "policy_version_unstored"];
            scans.retain(|scan| {
                !small
                    .iter()
                    .any(|index| scan.ends_with(&format!("USING INDEX {index}")))
            });
            assert_eq!(scans, Vec::<String>::new());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_literal_call_of_the_contract_reaches_devices_and_completes() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let (one, two) = (
            scene.device(Platform::Linux).await,
            scene.device(Platform::Ios).await,
        );
        scene.version("baseline", "2026.05", BASELINE).await;
        let answer = scene
            .call(
                "POST",
                "/policies/baseline/activate",
                Some(r#"{"version":"2026.05"}"#),
            )
            .await;
        assert_eq!(answer.status, 202, "{answer:?}");
        let id = answer.json()["rollout_id"]
            .as_str()
            .expect("it has an id")
            .to_owned();
        assert_eq!(scene.entries("rollout.activated").await, 1, "the pilot");
        reconcile(&scene.app).await.expect("the reconciler runs");
        let now = rollout(&scene, &id).await;
        assert_eq!(
            (
                now["state"].as_str(),
                &now["stages"][0]["pending"],
                &now["touched"]
            ),
            (Some("running"), &1.into(), &1.into())
        );
        // One of two devices is the pilot; the other one has nothing yet.
        let (pilot, rest) = if versions(&scene, &one).await.is_empty() {
            (&two, &one)
        } else {
            (&one, &two)
        };
        assert_eq!(desired(&scene, pilot).await.generation, 1);
        assert!(versions(&scene, rest).await.is_empty());

        let accepted = reports(&scene, pilot, SettingState::Verified).await;
        assert!(matches!(
            accepted,
            Accepted::Stored {
                compliance: ComplianceState::Compliant,
                is_current: true,
                ..
            }
        ));
        // The canary has nobody, and passes at once.
        assert_eq!(reconcile(&scene.app).await.expect("the reconciler runs"), 2);
        reports(&scene, rest, SettingState::Weaker).await;
        assert_eq!(reconcile(&scene.app).await.expect("the reconciler runs"), 1);
        let now = rollout(&scene, &id).await;
        assert_eq!(now["state"], "completed");
        let stage = &now["stages"][2];
        assert_eq!(
            (&stage["devices"], &stage["verified"], &stage["with_gaps"]),
            (&1.into(), &1.into(), &1.into())
        );
        assert_eq!(
            (&stage["gate"]["method"], &stage["state"]),
            (&"point".into(), &"passed".into())
        );
        assert_eq!(scene.entries("rollout.activated").await, 3);
        assert_eq!(scene.entries("rollout.completed").await, 1);
        assert_eq!(
            reconcile(&scene.app).await.expect("the reconciler may run twice"),
            0
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_is_told_verifies_and_names_the_activation() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let device = scene.device(Platform::Linux).await;
        scene.version("baseline", "1", BASELINE).await;
        scene.activate("baseline", "1").await;
        let set = desired(&scene, &device).await;
        let (envelope, entries) =
            desired_for(&scene.app, scene.tenant, device.id, 1, &set).expect("it can be signed");
        let keys = scene.app.keys.tenant(scene.tenant).expect("the tenant has keys");
        let verified = statement::verify::<DesiredStateStatement>(&envelope, &[keys.action.public()], 1);
        let told = verified.expect("the action role signed it").statement;
        assert_eq!((told.generation, told.bundles.len()), (1, 1));
        assert_eq!(statement::state_digest(&told.bundles), set.digest);
        assert_eq!(entries, [told.bundles[0].activation_entry]);
        let sha256 = told.bundles[0].sha256;
        let bundle = scene
            .app
            .db
            .read(scene.storage(), {
                let tenant = scene.tenant;
                move |tx| crate::policy::bundle_by_sha256(tx, tenant, &sha256)
            })
            .await;
        assert!(bundle.expect("the bundle is intact").is_some());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_an_edited_bundle_is_not_activated_and_the_edit_is_logged() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.version("baseline", "1", BASELINE).await;
        scene.version("baseline", "2", LOOSER).await;
        scene
            .sql("UPDATE policy_version SET bundle = (SELECT v.bundle FROM policy_version v WHERE v.tenant_id = $1 \
                AND v.version = '2') WHERE tenant_id = $1 AND version = '1'")
            .await;
        let refused = scene.call("POST", "/policies/baseline/activate", Some(r#"{"version":"1"}"#)).await;
        assert_eq!((refused.status, refused.code().as_str()), (409, "bundle_changed"));
        assert_eq!(scene.entries("policy.bundle_tampered").await, 1);
        assert_eq!(scene.entries("rollout.activated").await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_activations_change_nothing() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.version("baseline", "1", BASELINE).await;
        for (body, status, code) in [
            (r#"{"version":"9"}"#, 404, "not_found"),
            (
                r#"{"version":"1","stages":[{"name":"a"},{"name":"b"}]}"#,
                422,
                "stages_invalid",
            ),
            (r#"{"version":"1","target":{"platforms":[]}}"#, 400, "invalid"),
            (
                r#"{"version":"1","target":{"platforms":["beos"]}}"#,
                400,
                "invalid",
            ),
            (r#"{"version":"1","target":{"groups":["x"]}}"#, 400, "invalid"),
            (r#"{"version":"1","force":true}"#, 400, "invalid"),
        ] {
            let refused = scene
                .call("POST", "/policies/baseline/activate", Some(body))
                .await;
            assert_eq!(
                (refused.status, refused.code().as_str()),
                (status, code),
                "{body}"
            );
        }
        assert_eq!(scene.entries("rollout.activated").await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_limits_a_rollout_to_its_devices() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let (linux, ios) = (
            scene.device(Platform::Linux).await,
            scene.device(Platform::Ios).await,
        );
        let other = scene.device(Platform::Linux).await;
        scene.version("baseline", "1", BASELINE).await;
        let body = format!(
            r#"{{"version":"1","target":{{"platforms":["linux"],"devices":["{}","{}"]}}}}"#,
            linux.id, ios.id
        );
        let answer = scene
            .call("POST", "/policies/baseline/activate", Some(&body))
            .await;
        let id = answer.json()["rollout_id"]
            .as_str()
            .expect("it has an id")
            .to_owned();
        assert_eq!(rollout(&scene, &id).await["stages"][0]["devices"], 1);
        assert_eq!(versions(&scene, &linux).await, ["1"]);
        assert!(versions(&scene, &ios).await.is_empty() && versions(&scene, &other).await.is_empty());
        let listed = scene
            .call("GET", &format!("/rollouts/{id}/devices"), None)
            .await
            .json();
        assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));
        assert_eq!(listed["items"][0]["state"], "pending");
        reports(&scene, &linux, SettingState::Failed).await;
        let listed = scene
            .call("GET", &format!("/rollouts/{id}/devices"), None)
            .await
            .json();
        assert_eq!(listed["items"][0]["state"], "failed");
        assert_eq!(
            listed["items"][0]["settings"]["passcode.min_length"]["state"],
            "failed"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_holds_back_those_who_have_not_reported() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let (fast, slow) = (
            scene.device(Platform::Linux).await,
            scene.device(Platform::Linux).await,
        );
        scene.version("baseline", "1", LOOSER).await;
        scene.version("baseline", "2", BASELINE).await;
        complete(&scene, "baseline", "1", &[&fast, &slow]).await;
        let id = scene.activate("baseline", "2").await;
        reports(&scene, &fast, SettingState::Verified).await;
        assert_eq!(post(&scene, &id, "pause").await["state"], "paused");
        assert_eq!(
            (versions(&scene, &fast).await, versions(&scene, &slow).await),
            (vec!["2".to_owned()], vec!["1".to_owned()])
        );
        assert_eq!(desired(&scene, &slow).await.bundles[0].generation, 1);
        let again = scene.call("POST", &format!("/rollouts/{id}/pause"), None).await;
        assert_eq!((again.status, again.code().as_str()), (409, "illegal_state"));
        reconcile(&scene.app).await.expect("the reconciler runs");
        assert_eq!(rollout(&scene, &id).await["state"], "paused");

        assert_eq!(post(&scene, &id, "resume").await["state"], "running");
        assert_eq!(versions(&scene, &slow).await, ["2"]);
        reports(&scene, &slow, SettingState::Verified).await;
        reconcile(&scene.app).await.expect("the reconciler runs");
        assert_eq!(rollout(&scene, &id).await["state"], "completed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_an_abort_brings_the_last_completed_version_back_with_a_new_generation() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let device = scene.device(Platform::Linux).await;
        scene.version("baseline", "1", LOOSER).await;
        scene.version("baseline", "2", BASELINE).await;
        complete(&scene, "baseline", "1", &[&device]).await;
        let id = scene.activate("baseline", "2").await;
        reports(&scene, &device, SettingState::Failed).await;
        let undone = post(&scene, &id, "abort").await;
        assert_eq!(
            (undone["state"].as_str(), &undone["stages"][0]["failed"]),
            (Some("aborted"), &1.into())
        );
        let replacement = undone["replacement_id"]
            .as_str()
            .expect("there is an earlier version");
        assert_eq!(rollout(&scene, replacement).await["rolled_back_from"], *id);
        assert_eq!(
            (
                versions(&scene, &device).await,
                desired(&scene, &device).await.generation
            ),
            (vec!["1".to_owned()], 3)
        );
        reports(&scene, &device, SettingState::Verified).await;
        assert_eq!(
            rollout(&scene, &id).await["stages"][0]["failed"],
            1,
            "what ended keeps its counts"
        );
        let again = scene
            .call("POST", &format!("/rollouts/{id}/rollback"), None)
            .await;
        assert_eq!((again.status, again.code().as_str()), (409, "illegal_state"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_back_without_an_earlier_version_withdraws_the_policy() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let device = scene.device(Platform::Linux).await;
        scene.version("baseline", "1", BASELINE).await;
        let id = complete(&scene, "baseline", "1", &[&device]).await;
        let undone = post(&scene, &id, "rollback").await;
        assert_eq!(
            (undone["state"].as_str(), undone["generation"].as_u64()),
            (Some("rolled_back"), Some(1))
        );
        assert!(undone["replacement_id"].is_null());
        assert_eq!(scene.entries("rollout.withdrawn").await, 1);
        let set = desired(&scene, &device).await;
        assert_eq!((set.bundles.len(), set.generation), (0, 2));
        let accepted = reports(&scene, &device, SettingState::Verified).await;
        assert!(matches!(
            accepted,
            Accepted::Stored {
                compliance: ComplianceState::Compliant,
                ..
            }
        ));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e2_a_report_counts_only_from_the_device_that_it_names() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let (honest, liar) = (
            scene.device(Platform::Linux).await,
            scene.device(Platform::Linux).await,
        );
        scene.version("baseline", "1", BASELINE).await;
        let id = scene.activate("baseline", "1").await;
        let statement = report(
            &scene,
            &honest,
            &*desired(&scene, &honest).await,
            SettingState::Verified,
        );
        let refusal = |result: Result<Accepted, Problem>| result.expect_err("it is refused").code();

        let forged = signed(&liar, &statement);
        assert_eq!(
            refusal(accept_report(&scene.app, &honest.reporter, &forged).await),
            "device_blocked"
        );
        assert_eq!(
            refusal(accept_report(&scene.app, &liar.reporter, &forged).await),
            "device_blocked"
        );
        let mut earlier = statement.clone();
        earlier.epoch = 7;
        let earlier = signed(&honest, &earlier);
        assert_eq!(
            refusal(accept_report(&scene.app, &honest.reporter, &earlier).await),
            "epoch_mismatch"
        );
        let mut early = statement.clone();
        early.generation = u64::MAX;
        let early = signed(&honest, &early);
        assert_eq!(
            refusal(accept_report(&scene.app, &honest.reporter, &early).await),
            "malformed"
        );
        assert_eq!(rollout(&scene, &id).await["stages"][0]["verified"], 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_was_overtaken_changes_nothing() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let device = scene.device(Platform::Linux).await;
        scene.version("baseline", "1", BASELINE).await;
        scene.activate("baseline", "1").await;
        let failed = report(
            &scene,
            &device,
            &*desired(&scene, &device).await,
            SettingState::Failed,
        );
        scene.pass_seconds(5);
        reports(&scene, &device, SettingState::Verified).await;
        let late = accept_report(&scene.app, &device.reporter, &signed(&device, &failed)).await;
        assert_eq!(late.expect("it is genuine"), Accepted::Overtaken);
        assert_eq!(compliance(&scene, &device).await, ComplianceState::Compliant);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_a_report_is_silent_after_its_deadline() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.device(Platform::Linux).await;
        scene.version("baseline", "1", BASELINE).await;
        let id = scene.activate("baseline", "1").await;
        scene.pass_seconds(23 * 3600);
        let stage = rollout(&scene, &id).await["stages"][0].clone();
        assert_eq!((&stage["pending"], &stage["silent"]), (&1.into(), &0.into()));
        scene.pass_seconds(3600);
        let newcomer = scene.device(Platform::Linux).await;
        let stage = rollout(&scene, &id).await["stages"][0].clone();
        assert_eq!((&stage["pending"], &stage["silent"]), (&1.into(), &1.into()));
        assert_eq!(stage["gate"]["passes"], false);
        reports(&scene, &newcomer, SettingState::Verified).await;
        reconcile(&scene.app).await.expect("the reconciler runs");
        assert_eq!(
            rollout(&scene, &id).await["state"],
            "rolled_back",
            "silence counts as failure"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_activation_makes_its_devices_pending_until_they_report() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let device = scene.device(Platform::Linux).await;
        scene.version("baseline", "1", LOOSER).await;
        scene.version("baseline", "2", BASELINE).await;
        complete(&scene, "baseline", "1", &[&device]).await;
        assert_eq!(compliance(&scene, &device).await, ComplianceState::Compliant);
        scene.pass_seconds(60);
        scene.activate("baseline", "2").await;
        reconcile(&scene.app).await.expect("the reconciler runs");
        assert_eq!(compliance(&scene, &device).await, ComplianceState::Pending);
        let view = scene
            .call("GET", &format!("/devices/{}/settings", device.id), None)
            .await
            .json();
        assert_eq!(
            (view["compliance"].as_str(), view["is_current"].as_bool()),
            (Some("pending"), Some(false))
        );
        reports(&scene, &device, SettingState::Failed).await;
        assert_eq!(compliance(&scene, &device).await, ComplianceState::Noncompliant);
        let view = scene
            .call("GET", &format!("/devices/{}/settings", device.id), None)
            .await
            .json();
        assert_eq!(view["settings"].as_array().map(Vec::len), Some(2));
        assert_eq!(view["settings"][0]["verdict"], "noncompliant");
        assert_eq!(view["policies"][0]["name"], "baseline");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn activations_at_once_get_generations_of_their_own_and_one_is_current() {
    on_both(MIGRATIONS, async |db| {
        let scene = Arc::new(Scene::new(db.db().clone()).await);
        scene.version("baseline", "1", BASELINE).await;
        let mut calls = Vec::new();
        for _ in 0..12 {
            let scene = Arc::clone(&scene);
            calls.push(tokio::spawn(async move {
                scene
                    .call("POST", "/policies/baseline/activate", Some(r#"{"version":"1"}"#))
                    .await
            }));
        }
        for call in calls {
            let answer = call.await.expect("the call ends");
            assert_eq!(answer.status, 202, "{answer:?}");
        }
        let generations: i64 = scene
            .value("SELECT COUNT(DISTINCT generation) FROM rollout_rollout WHERE tenant_id = $1")
            .await;
        let current: i64 = scene
            .value("SELECT COUNT(*) FROM rollout_rollout WHERE tenant_id = $1 AND current")
            .await;
        // Eight unfinished rollouts of a policy are gathered into one before the next begins.
        assert_eq!((generations, current), (13, 5));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_activation_with_the_same_key_happens_once() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.version("baseline", "1", BASELINE).await;
        let key = [("Idempotency-Key", "deploy-7")];
        let body = Some(r#"{"version":"1"}"#);
        let first = scene
            .call_with("POST", "/policies/baseline/activate", &key, body)
            .await;
        let second = scene
            .call_with("POST", "/policies/baseline/activate", &key, body)
            .await;
        assert_eq!((first.status, first.json()), (second.status, second.json()));
        assert_eq!(scene.entries("rollout.activated").await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_another_tenants_rollouts_and_policies_are_not_there() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.version("baseline", "1", BASELINE).await;
        let id = scene.activate("baseline", "1").await;
        let stranger = scene.beside().await;
        for path in [
            format!("/rollouts/{id}"),
            format!("/rollouts/{id}/devices"),
            "/policies/baseline".to_owned(),
            "/policies/baseline/versions/1/bundle".to_owned(),
        ] {
            assert_eq!(stranger.call("GET", &path, None).await.status, 404, "{path}");
        }
        for what in ["pause", "abort", "rollback"] {
            assert_eq!(
                stranger
                    .call("POST", &format!("/rollouts/{id}/{what}"), None)
                    .await
                    .status,
                404,
                "{what}"
            );
        }
        let listed = stranger.call("GET", "/rollouts", None).await.json();
        assert_eq!(listed["items"].as_array().map(Vec::len), Some(0));
        assert!(id.parse::<RolloutId>().is_ok());
        assert!(
            rollout(&scene, &id).await["created_at"]
                .as_str()
                .is_some_and(|at| at.parse::<Timestamp>().is_ok())
        );
    })
    .await;
}
