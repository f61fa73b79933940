//! Configuration as code over its routes, on both engines.

use muster_model::platform::Platform;
use muster_storage::testing::{on_both, statement_problems};
use serde_json::{Value, json};

use crate::{
    MIGRATIONS,
    policy::testing::{Answer, Scene},
    rollout,
};

const BASELINE: &str = r#"{"passcode.required":true,"passcode.min_length":12}"#;
const LOOSER: &str = r#"{"passcode.min_length":8}"#;
/// Two policies; the second is made first, is not active, and has a secret.
const DOCUMENT: &str = r#"{"format":1,"policies":[
    {"name":"wifi","versions":[{"version":"1","settings":{"wifi.networks":[
        {"ssid":"office","security":"wpa-psk","passphrase":"correct horse"}]}}]},
    {"name":"baseline","description":"For everybody","versions":[
        {"version":"2026.05","settings":{"passcode.required":true,"passcode.min_length":12}},
        {"version":"2026.04","settings":{"passcode.min_length":8},
         "rules":[{"name":"os","check":{"fact":"os.version","op":"ge","value":"12"}}]}],
     "active":{"version":"2026.05","target":{"platforms":["macos","linux"]}}}]}"#;

mod groups;
mod stages;

async fn export(scene: &Scene) -> String {
    let answer = scene.call("GET", "/export", None).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    String::from_utf8(answer.body).expect("JSON is text")
}

async fn plan(scene: &Scene, document: &str) -> Value {
    let answer = scene.call("POST", "/plan", Some(document)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn apply(scene: &Scene, plan: &Value) -> Answer {
    let body = json!({"plan_sha256": plan["plan_sha256"]}).to_string();
    scene.call("POST", "/apply", Some(&body)).await
}

/// Action, group or policy, and version of each change.
fn changes(list: &Value) -> Vec<String> {
    let words = |change: &Value| {
        ["action", "group", "policy", "version"]
            .iter()
            .filter_map(|word| change[word].as_str())
            .collect::<Vec<_>>()
            .join(" ")
    };
    list.as_array().expect("it is a list").iter().map(words).collect()
}

async fn refused(scene: &Scene, path: &str, body: &str) -> (u16, String) {
    let answer = scene.call("POST", path, Some(body)).await;
    (answer.status, answer.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_is_understood_by_both_engines() {
    on_both(MIGRATIONS, async |db| {
        assert_eq!(
            statement_problems(db.db(), super::STATEMENTS).await,
            Vec::<String>::new()
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_applied_whole_and_once() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let planned = plan(&scene, DOCUMENT).await;
        let expected = [
            "create_policy baseline",
            "add_version baseline 2026.05",
            "add_version baseline 2026.04",
            "activate baseline 2026.05",
            "create_policy wifi",
            "add_version wifi 1",
        ];
        assert_eq!(changes(&planned["changes"]), expected);
        assert_eq!(planned["deletions"], 0);
        assert_eq!(plan(&scene, DOCUMENT).await, planned);
        assert_eq!(export(&scene).await, r#"{"format":1,"policies":[]}"#);

        let applied = apply(&scene, &planned).await;
        assert_eq!(applied.status, 200, "{applied:?}");
        assert_eq!(changes(&applied.json()["applied"]), expected);
        let id = applied.json()["applied"][3]["rollout_id"]
            .as_str()
            .expect("it has an id")
            .to_owned();
        let begun = scene.call("GET", &format!("/rollouts/{id}"), None).await.json();
        assert_eq!(
            (&begun["state"], &begun["policy_name"]),
            (&json!("running"), &json!("baseline"))
        );
        // Nobody is there to wait for: every stage passes.
        rollout::reconcile(&scene.app).await.expect("the reconciler runs");
        let device = scene.device(Platform::Macos).await;
        let traits = crate::devices::Traits {
            device: device.id,
            stratum: std::sync::Arc::clone(&device.reporter.stratum),
            held: std::sync::Arc::default(),
            groups: std::sync::Arc::default(),
        };
        let desired = scene
            .app
            .activations
            .desired(scene.tenant, &traits, scene.app.clock.now());
        assert_eq!(desired.expect("the tenant's view was read").bundles.len(), 1);

        let again = plan(&scene, DOCUMENT).await;
        assert_eq!(again["changes"], json!([]));
        for plan in [&again, &planned] {
            let nothing = apply(&scene, plan).await;
            assert_eq!((nothing.status, nothing.json()), (200, json!({"applied": []})));
        }
        assert_eq!(scene.entries("rollout.activated").await, 3, "its three stages");
        assert_eq!(scene.entries("policy.version_created").await, 3);
        assert_eq!(scene.entries("configuration.applied").await, 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_comes_back_as_the_same_bytes() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let planned = plan(&scene, DOCUMENT).await;
        assert_eq!(apply(&scene, &planned).await.status, 200);
        let exported = export(&scene).await;
        assert!(exported.contains("correct horse"), "{exported}");
        let unchanged = plan(&scene, &exported).await;
        assert_eq!(
            (&unchanged["changes"], &unchanged["deletions"]),
            (&json!([]), &json!(0))
        );

        let other = scene.beside().await;
        let planned = plan(&other, &exported).await;
        assert_eq!(apply(&other, &planned).await.status, 200);
        assert_eq!(export(&other).await, exported);
        assert_eq!(export(&scene).await, exported);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_whose_state_moved_on_changes_nothing() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.version("baseline", "1", BASELINE).await;
        scene.version("baseline", "2", LOOSER).await;
        scene.activate("baseline", "1").await;
        let document = r#"{"format":1,"policies":[
            {"name":"added","versions":[{"version":"1","settings":{"passcode.required":true}}]},
            {"name":"baseline","active":{"version":"2"}}]}"#;
        let planned = plan(&scene, document).await;
        scene.activate("baseline", "1").await;
        let answer = apply(&scene, &planned).await;
        assert_eq!((answer.status, answer.code().as_str()), (409, "plan_changed"));
        assert_eq!(scene.call("GET", "/policies/added", None).await.status, 404);

        // A version that came in between with other content is the same: the plan is no longer possible.
        let planned = plan(&scene, document).await;
        scene.version("added", "1", LOOSER).await;
        let answer = apply(&scene, &planned).await;
        assert_eq!((answer.status, answer.code().as_str()), (409, "plan_changed"));
        assert_eq!(scene.entries("configuration.applied").await, 0);
        assert_eq!(scene.entries("rollout.activated").await, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_plan_applied_many_times_at_once_is_applied_once() {
    on_both(MIGRATIONS, async |db| {
        let scene = std::sync::Arc::new(Scene::new(db.db().clone()).await);
        // The second one only activates: no unique name or label keeps two of it apart.
        let other =
            r#"{"format":1,"partial":true,"policies":[{"name":"baseline","active":{"version":"2026.04"}}]}"#;
        for (document, activations) in [(DOCUMENT, 1), (other, 2)] {
            let planned = plan(&scene, document).await;
            let mut calls = Vec::new();
            for _ in 0..8 {
                let (scene, planned) = (std::sync::Arc::clone(&scene), planned.clone());
                calls.push(tokio::spawn(async move { apply(&scene, &planned).await }));
            }
            let mut made = 0;
            for call in calls {
                let answer = call.await.expect("the call ends");
                match answer.status {
                    200 => made += usize::from(answer.json()["applied"] != json!([])),
                    status => assert_eq!((status, answer.code().as_str()), (409, "plan_changed")),
                }
            }
            assert_eq!(made, 1);
            assert_eq!(scene.entries("rollout.activated").await, activations);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m13_what_a_document_leaves_out_is_shown_and_refused_until_pruned() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let planned = plan(&scene, DOCUMENT).await;
        assert_eq!(apply(&scene, &planned).await.status, 200);
        let before = export(&scene).await;

        let empty = plan(&scene, r#"{"format":1,"policies":[]}"#).await;
        assert_eq!(
            changes(&empty["changes"]),
            ["would_delete baseline", "would_delete wifi"]
        );
        let bare = plan(&scene, r#"{"format":1,"policies":[{"name":"baseline"}]}"#).await;
        let left_out = [
            "keep baseline",
            "keep baseline 2026.05",
            "keep baseline 2026.04",
            "would_delete baseline 2026.05",
            "would_delete wifi",
        ];
        assert_eq!(changes(&bare["changes"]), left_out);
        assert_eq!(bare["deletions"], 2);
        for plan in [&empty, &bare] {
            let answer = apply(&scene, plan).await;
            assert_eq!((answer.status, answer.code().as_str()), (422, "prune_required"));
        }
        assert_eq!(export(&scene).await, before);

        let part = plan(&scene, r#"{"format":1,"policies":[],"partial":true}"#).await;
        assert_eq!(changes(&part["changes"]), ["keep baseline", "keep wifi"]);
        assert_eq!(apply(&scene, &part).await.json(), json!({"applied": []}));
        let both = r#"{"format":1,"policies":[],"partial":true,"prune":true}"#;
        assert_eq!(refused(&scene, "/plan", both).await, (400, "invalid".to_owned()));
        assert_eq!(export(&scene).await, before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m13_pruning_takes_away_what_is_left_out_and_naming_it_again_brings_it_back() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let planned = plan(&scene, DOCUMENT).await;
        assert_eq!(apply(&scene, &planned).await.status, 200);
        // Nobody is there to wait for: every stage passes.
        let settle = async || rollout::reconcile(&scene.app).await.expect("the reconciler runs");
        settle().await;
        let before = export(&scene).await;
        let device = scene.device(Platform::Macos).await;
        let traits = crate::devices::Traits {
            device: device.id,
            stratum: std::sync::Arc::clone(&device.reporter.stratum),
            held: std::sync::Arc::default(),
            groups: std::sync::Arc::default(),
        };
        let bundles = || {
            let desired = scene
                .app
                .activations
                .desired(scene.tenant, &traits, scene.app.clock.now());
            desired.map_or(0, |desired| desired.bundles.len())
        };
        assert_eq!(bundles(), 1);

        let withdrawn = plan(
            &scene,
            r#"{"format":1,"prune":true,"policies":[{"name":"baseline"},{"name":"wifi"}]}"#,
        )
        .await;
        assert_eq!(withdrawn["deletions"], 1);
        let answer = apply(&scene, &withdrawn).await;
        assert_eq!(
            changes(&answer.json()["applied"]),
            ["withdraw baseline 2026.05"],
            "{answer:?}"
        );
        assert_eq!(bundles(), 0);
        assert_eq!(scene.entries("rollout.withdrawn").await, 1);

        assert_eq!(apply(&scene, &plan(&scene, DOCUMENT).await).await.status, 200);
        settle().await;
        assert_eq!((bundles(), export(&scene).await), (1, before.clone()));
        let pruned = plan(&scene, r#"{"format":1,"policies":[],"prune":true}"#).await;
        assert_eq!(
            changes(&pruned["changes"]),
            ["archive_policy baseline", "archive_policy wifi"]
        );
        let answer = apply(&scene, &pruned).await;
        assert_eq!(
            answer.json()["applied"].as_array().map(Vec::len),
            Some(2),
            "{answer:?}"
        );
        assert_eq!(bundles(), 0);
        assert_eq!(export(&scene).await, r#"{"format":1,"policies":[]}"#);
        assert_eq!(scene.entries("policy.archived").await, 2);
        let policy = scene.call("GET", "/policies/wifi", None).await.json();
        assert!(policy["archived_at"].is_string(), "{policy}");
        let version = r#"{"version":"2","settings":{"passcode.min_length":8}}"#;
        let made = refused(&scene, "/policies/wifi/versions", version).await;
        assert_eq!(made, (409, "illegal_state".to_owned()));
        let activated = refused(&scene, "/policies/wifi/activate", r#"{"version":"1"}"#).await;
        assert_eq!(activated, (409, "illegal_state".to_owned()));
        let taken = refused(&scene, "/policies", r#"{"name":"wifi"}"#).await;
        assert_eq!(taken, (409, "name_taken".to_owned()));

        let back = plan(&scene, DOCUMENT).await;
        assert_eq!(
            changes(&back["changes"]),
            [
                "restore_policy baseline",
                "activate baseline 2026.05",
                "restore_policy wifi"
            ]
        );
        assert_eq!(apply(&scene, &back).await.status, 200);
        assert_eq!((bundles(), export(&scene).await), (1, before));
        assert_eq!(apply(&scene, &pruned).await.code(), "plan_changed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m13_a_prune_above_its_budget_changes_nothing() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        for number in 0..6 {
            scene.version(&format!("p{number}"), "1", BASELINE).await;
        }
        let before = export(&scene).await;
        let pruned = plan(&scene, r#"{"format":1,"policies":[],"prune":true}"#).await;
        assert_eq!(pruned["deletions"], 6);
        let budget = |budget: usize| json!({"plan_sha256": pruned["plan_sha256"], "deletion_budget": budget});
        let exceeded = (422, "deletion_budget_exceeded".to_owned());
        let answer = apply(&scene, &pruned).await;
        assert_eq!((answer.status, answer.code()), exceeded);
        assert_eq!(refused(&scene, "/apply", &budget(5).to_string()).await, exceeded);
        assert_eq!(refused(&scene, "/apply", &budget(0).to_string()).await, exceeded);
        assert_eq!(export(&scene).await, before);
        assert_eq!(scene.entries("policy.archived").await, 0);
        let answer = scene.call("POST", "/apply", Some(&budget(6).to_string())).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(scene.entries("policy.archived").await, 6);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_document_changed_is_managed_by_it() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.version("by-hand", "1", BASELINE).await;
        let by_hand = scene.call("GET", "/policies/by-hand", None).await.json();
        assert!(by_hand["managed_by"].is_null());
        let both = r#"{"format":1,"policies":[{"name":"by-hand","versions":[
            {"version":"1","settings":{"passcode.required":true,"passcode.min_length":12}}]},{"name":"new"}]}"#;
        assert_eq!(apply(&scene, &plan(&scene, both).await).await.status, 200);
        let managed = async |name: &str| {
            let path = format!("/policies/{name}");
            scene.call("GET", &path, None).await.json()["managed_by"].clone()
        };
        assert_eq!((managed("new").await, managed("by-hand").await), (json!("git"), Value::Null));
        let changed = both.replace(r#""name":"by-hand""#, r#""name":"by-hand","description":"d""#);
        assert_eq!(apply(&scene, &plan(&scene, &changed).await).await.status, 200);
        assert_eq!(managed("by-hand").await, json!("git"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_not_archived_while_it_is_activated() {
    on_both(MIGRATIONS, async |db| {
        let scene = std::sync::Arc::new(Scene::new(db.db().clone()).await);
        for round in 0..6 {
            let name = format!("p{round}");
            scene.version(&name, "1", BASELINE).await;
            let pruned = plan(&scene, r#"{"format":1,"policies":[],"prune":true}"#).await;
            let archiving = tokio::spawn({
                let scene = std::sync::Arc::clone(&scene);
                async move { apply(&scene, &pruned).await }
            });
            let activated = scene
                .call(
                    "POST",
                    &format!("/policies/{name}/activate"),
                    Some(r#"{"version":"1"}"#),
                )
                .await;
            let archived = archiving.await.expect("the call ends");
            match (archived.status, activated.status) {
                (200, 409) | (409, 202) => {}
                other => panic!("{other:?}: {archived:?} {activated:?}"),
            }
            let policy = scene.call("GET", &format!("/policies/{name}"), None).await.json();
            assert_eq!(policy["archived_at"].is_string(), archived.status == 200);
            let rest = plan(&scene, r#"{"format":1,"policies":[],"prune":true}"#).await;
            assert_eq!(apply(&scene, &rest).await.status, 200);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_description_and_target_are_changes() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.version("baseline", "1", BASELINE).await;
        scene.activate("baseline", "1").await;
        let document = r#"{"format":1,"policies":[{"name":"baseline","description":"For Linux",
            "versions":[{"version":"1","settings":{"passcode.min_length":12,"passcode.required":true}}],
            "active":{"version":"1","target":{"platforms":["linux"]}}}]}"#;
        let planned = plan(&scene, document).await;
        assert_eq!(
            changes(&planned["changes"]),
            ["describe_policy baseline", "activate baseline 1"]
        );
        let detail = planned["changes"][1]["detail"]
            .as_str()
            .expect("it is a sentence");
        assert_eq!(
            detail,
            "For linux, in place of version 1 (generation 1) for every device."
        );
        assert_eq!(apply(&scene, &planned).await.status, 200);
        let policy = scene.call("GET", "/policies/baseline", None).await.json();
        assert_eq!(policy["description"], "For Linux");
        assert_eq!(plan(&scene, document).await["changes"], json!([]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_are_named_by_policy_and_version() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let document = r#"{"format":1,"policies":[
            {"name":"a","versions":[{"version":"1","settings":{"passcode.min_lenght":12,"passcode.required":"yes"}}]},
            {"name":"b","versions":[{"version":"2","settings":{}}]}]}"#;
        let answer = scene.call("POST", "/plan", Some(document)).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, "settings_invalid"));
        let body = answer.json();
        let mut fields: Vec<&str> = body["errors"]
            .as_array()
            .expect("it is a list")
            .iter()
            .filter_map(|error| error["field"].as_str())
            .collect();
        fields.sort_unstable();
        assert_eq!(fields, ["a/1/passcode.min_lenght", "a/1/passcode.required", "b/2"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_cannot_be_are_refused() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.version("baseline", "1", BASELINE).await;
        let policies = |policies: &str| format!(r#"{{"format":1,"policies":[{policies}]}}"#);
        let version = r#"{"version":"1","settings":{"passcode.min_length":8}}"#;
        let cases = [
            (
                policies(&format!(r#"{{"name":"baseline","versions":[{version}]}}"#)),
                409,
                "version_exists",
            ),
            (
                policies(&format!(r#"{{"name":"x","versions":[{version},{version}]}}"#)),
                400,
                "invalid",
            ),
            (policies(r#"{"name":"x"},{"name":"x"}"#), 400, "invalid"),
            (
                policies(r#"{"name":"x","active":{"version":"9"}}"#),
                400,
                "invalid",
            ),
            (
                policies(r#"{"name":"x","activ":{"version":"9"}}"#),
                400,
                "invalid",
            ),
            (
                policies(r#"{"name":"pol_00000000000000000000000000000000"}"#),
                400,
                "invalid",
            ),
            (
                policies(r#"{"name":"baseline","active":{"version":"1","target":{"devices":[]}}}"#),
                400,
                "invalid",
            ),
            (r#"{"format":2,"policies":[]}"#.to_owned(), 400, "invalid"),
            (r#"{"policies":[]}"#.to_owned(), 400, "invalid"),
        ];
        for (document, status, code) in cases {
            assert_eq!(
                refused(&scene, "/plan", &document).await,
                (status, code.to_owned()),
                "{document}"
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_another_tenants_plan_is_not_there_and_a_plan_ends_after_an_hour() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let stranger = scene.beside().await;
        let planned = plan(&scene, DOCUMENT).await;
        let answer = apply(&stranger, &planned).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"));
        assert_ne!(
            plan(&stranger, DOCUMENT).await["plan_sha256"],
            planned["plan_sha256"]
        );
        assert_eq!(export(&stranger).await, r#"{"format":1,"policies":[]}"#);

        scene.pass_seconds(3601);
        assert_eq!(apply(&scene, &planned).await.status, 404);
        let forgotten = super::forget_expired(&scene.app)
            .await
            .expect("plans can be forgotten");
        assert_eq!(forgotten, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_is_not_kept_is_applied_with_its_document_alone() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let planned = plan(&scene, DOCUMENT).await;
        let with = |document: &str| {
            let mut body: Value = serde_json::from_str(document).expect("it is JSON");
            body["plan_sha256"] = planned["plan_sha256"].clone();
            body.to_string()
        };
        let other = with(r#"{"format":1,"policies":[{"name":"other"}]}"#);
        assert_eq!(
            refused(&scene, "/apply", &other).await,
            (409, "plan_changed".to_owned())
        );
        scene.pass_seconds(3601);
        let half = r#"{"plan_sha256":"00","format":1}"#;
        assert_eq!(refused(&scene, "/apply", half).await.0, 400);
        let answer = scene.call("POST", "/apply", Some(&with(DOCUMENT))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(scene.entries("rollout.activated").await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_gives_the_first_answer_again() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let planned = plan(&scene, DOCUMENT).await;
        let body = json!({"plan_sha256": planned["plan_sha256"]}).to_string();
        let key = [("Idempotency-Key", "apply-1")];
        let first = scene.call_with("POST", "/apply", &key, Some(&body)).await;
        let second = scene.call_with("POST", "/apply", &key, Some(&body)).await;
        assert_eq!((first.status, &first.body), (second.status, &second.body));
        let other = scene
            .call_with("POST", "/apply", &[("Idempotency-Key", "apply-2")], Some(&body))
            .await;
        assert_eq!((other.status, other.json()), (200, json!({"applied": []})));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_an_edited_bundle_is_neither_exported_nor_activated_and_both_are_logged() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.version("baseline", "1", BASELINE).await;
        let document = r#"{"format":1,"policies":[{"name":"baseline","active":{"version":"1"}}]}"#;
        let planned = plan(&scene, document).await;
        scene
            .sql("UPDATE policy_version SET bundle_sha256 = 'x' WHERE tenant_id = $1")
            .await;
        let exported = scene.call("GET", "/export", None).await;
        assert_eq!(
            (exported.status, exported.code().as_str()),
            (409, "bundle_changed")
        );
        let answer = apply(&scene, &planned).await;
        assert_eq!((answer.status, answer.code().as_str()), (409, "bundle_changed"));
        assert_eq!(scene.entries("policy.bundle_tampered").await, 2);
        assert_eq!(scene.entries("rollout.activated").await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_hundred_plans_of_a_tenant_are_kept() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        for number in 0..103 {
            scene.pass_seconds(1);
            plan(
                &scene,
                &format!(r#"{{"format":1,"policies":[{{"name":"policy {number}"}}]}}"#),
            )
            .await;
        }
        let kept: i64 = scene
            .value("SELECT COUNT(*) FROM configuration_plan WHERE tenant_id = $1")
            .await;
        assert_eq!(kept, 100);
    })
    .await;
}
