//! Stages and windows in documents, on both engines.

use muster_storage::testing::on_both;
use serde_json::json;

use super::{apply, changes, export, plan, refused};
use crate::{MIGRATIONS, policy::testing::Scene, rollout};

/// A policy with two versions, and this member for what is active.
fn document(active: &str) -> String {
    format!(
        r#"{{"format":1,"policies":[{{"name":"baseline","versions":[
            {{"version":"1","settings":{{"passcode.min_length":8}},
             "rules":[{{"name":"os","check":{{"fact":"os.version","op":"ge","value":"12"}}}}]}},
            {{"version":"2","settings":{{"passcode.min_length":12}}}}],"active":{active}}}]}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_an_activation_can_say_comes_back_as_the_same_bytes() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let said = document(
            r#"{"version":"1","target":{"platforms":["macos","linux"]},
             "stages":[{"name":"pilot","percent":2.5,"soak_seconds":3600,"promotion":"manual","gate":{
                "method":"anytime","limit":0.01,"confidence":0.99,"min_sample":10,"silent_after_seconds":7200,"on_failure":"hold",
                "on_inconclusive":"advance","pass_when":"shown","slos":[{"name":"compliance:os","limit":0.02}]}},
              {"name":"half","percent":50,"gate":{"method":"sequential","acceptable":0.001,"alpha":0.01,"beta":0.02}},
              {"name":"everything"}],
             "windows":[{"days":["fri","mon"],"start":"22:00","end":"05:00","utc_offset_minutes":60}]}"#,
        );
        let planned = plan(&scene, &said).await;
        assert_eq!(apply(&scene, &planned).await.status, 200);
        let exported = export(&scene).await;
        let stages = r#""stages":[{"name":"pilot","percent":2.5,"gate":{"confidence":0.99,"limit":0.01,"method":"anytime","min_sample":10,"min_soak_seconds":3600,"on_failure":"hold","on_inconclusive":"advance","pass_when":"shown","promotion":"manual","silent_after_seconds":7200,"slos":[{"limit":0.02,"name":"compliance:os"}]}},{"name":"half","percent":50,"gate":{"acceptable":0.001,"alpha":0.01,"beta":0.02,"method":"sequential"}},{"name":"everything"}],"windows":[{"days":["fri","mon"],"start":"22:00","end":"05:00","utc_offset_minutes":60}]"#;
        assert!(exported.contains(stages), "{exported}");
        for document in [&exported, &said] {
            let unchanged = plan(&scene, document).await;
            assert_eq!(unchanged["changes"], json!([]));
        }
        assert_eq!(apply(&scene, &plan(&scene, &exported).await).await.json(), json!({"applied": []}));
        assert_eq!(export(&scene).await, exported);

        let other = scene.beside().await;
        let planned = plan(&other, &exported).await;
        assert_eq!(apply(&other, &planned).await.status, 200);
        assert_eq!(export(&other).await, exported);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_stages_for_what_is_active_start_nothing_and_count_for_the_next_version() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let first = document(r#"{"version":"1"}"#);
        assert_eq!(apply(&scene, &plan(&scene, &first).await).await.status, 200);
        let before = export(&scene).await;
        assert!(!before.contains("stages"), "the default is not written: {before}");

        let stages = r#""stages":[{"name":"full"}]"#;
        let other = document(&format!(r#"{{"version":"1",{stages}}}"#));
        let planned = plan(&scene, &other).await;
        assert_eq!(changes(&planned["changes"]), ["keep baseline 1"]);
        assert_eq!(apply(&scene, &planned).await.json(), json!({"applied": []}));
        assert_eq!(export(&scene).await, before);
        assert_eq!(scene.entries("rollout.activated").await, 1);

        let next = document(&format!(r#"{{"version":"2",{stages}}}"#));
        let applied = apply(&scene, &plan(&scene, &next).await).await.json();
        assert_eq!(changes(&applied["applied"]), ["activate baseline 2"]);
        let id = applied["applied"][0]["rollout_id"]
            .as_str()
            .expect("it has an id");
        let begun = scene.call("GET", &format!("/rollouts/{id}"), None).await.json();
        assert_eq!(begun["stages"].as_array().map(Vec::len), Some(1));
        assert_eq!(plan(&scene, &next).await["changes"], json!([]));
        assert!(export(&scene).await.contains(stages));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_after_a_roll_back_the_stages_are_those_that_a_person_asked_for() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let first = document(r#"{"version":"1"}"#);
        assert_eq!(apply(&scene, &plan(&scene, &first).await).await.status, 200);
        // Nobody is there to wait for: every stage passes.
        rollout::reconcile(&scene.app).await.expect("the reconciler runs");
        let stages = r#""stages":[{"name":"few","percent":1},{"name":"full"}]"#;
        // An objective that the version which comes back cannot be measured by is not its own.
        let with_objective = stages.replace(
            r#"{"name":"full"}"#,
            r#"{"name":"full","gate":{"slos":[{"name":"compliance:fresh","limit":0.1}]}}"#,
        );
        let version = r#"{"version":"3","settings":{},"rules":[
            {"name":"fresh","check":{"fact":"os.version","op":"ge","value":"13"}}]}"#;
        let made = scene
            .call("POST", "/policies/baseline/versions", Some(version))
            .await;
        assert_eq!(made.status, 201, "{made:?}");
        let id = scene.activate_in("baseline", "3", &with_objective).await;
        let undone = scene.call("POST", &format!("/rollouts/{id}/abort"), None).await;
        assert_eq!(undone.status, 200, "{undone:?}");
        let exported = export(&scene).await;
        assert!(
            exported.contains(&format!(r#""active":{{"version":"1",{stages}}}"#)),
            "{exported}"
        );
        assert_eq!(plan(&scene, &exported).await["changes"], json!([]));
        let other = scene.beside().await;
        assert_eq!(apply(&other, &plan(&other, &exported).await).await.status, 200);
        assert_eq!(export(&other).await, exported);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_stages_that_cannot_be_meant_are_refused_when_planning() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let slo = |name: &str| {
            format!(r#""stages":[{{"name":"full","gate":{{"slos":[{{"name":"{name}","limit":0.1}}]}}}}]"#)
        };
        for (members, status, code) in [
            (
                r#""stages":[{"name":"full","percent":5}]"#.to_owned(),
                422,
                "stages_invalid",
            ),
            (r#""stages":[]"#.to_owned(), 422, "stages_invalid"),
            (slo("checkin_loss"), 422, "stages_invalid"),
            (slo("compliance:other"), 422, "stages_invalid"),
            (
                r#""windows":[{"days":[],"start":"22:00","end":"05:00"}]"#.to_owned(),
                400,
                "invalid",
            ),
            (
                r#""stages":[{"name":"full","share":5}]"#.to_owned(),
                400,
                "invalid",
            ),
        ] {
            let document = document(&format!(r#"{{"version":"1",{members}}}"#));
            assert_eq!(
                refused(&scene, "/plan", &document).await,
                (status, code.to_owned()),
                "{members}"
            );
        }
    })
    .await;
}
