//! Policies over their routes, on both engines.

use muster_storage::testing::{on_both, statement_problems};
use muster_trust::{bundle, key::sha256};

use super::testing::Scene;
use crate::MIGRATIONS;

const BASELINE: &str = r#"{"passcode.required":true,"passcode.min_length":12}"#;

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
async fn a_version_is_a_signed_bundle_that_anybody_can_check() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.version("baseline", "2026.05", BASELINE).await;
        let answer = scene
            .call("GET", "/policies/baseline/versions/2026.05/bundle", None)
            .await;
        assert_eq!(answer.status, 200);
        assert!(
            answer.headers.contains("content-type: application/zip"),
            "{}",
            answer.headers
        );
        assert!(answer.headers.contains("immutable"));
        let digest = sha256(&answer.body).to_hex();
        assert!(
            answer.headers.contains(&format!("etag: \"{digest}\"")),
            "{}",
            answer.headers
        );
        let open = bundle::open(&answer.body).expect("it is a bundle");
        let keys = scene.app.keys.tenant(scene.tenant).expect("the tenant has keys");
        open.verify(&keys.root).expect("the policy role signed it");
        assert_eq!(open.manifest.version.as_str(), "2026.05");
        assert_eq!(open.manifest.sequence, 1);

        let known = [("If-None-Match", format!("\"{digest}\""))];
        let known: Vec<(&str, &str)> = known
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let again = scene
            .call_with("GET", "/policies/baseline/versions/2026.05/bundle", &known, None)
            .await;
        assert_eq!((again.status, again.body.len()), (304, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_never_changes_and_the_attempt_is_logged() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.version("baseline", "2026.05", BASELINE).await;
        let path = "/policies/baseline/versions";
        let same = r#"{"version":"2026.05","settings":{"passcode.min_length":12,"passcode.required":true}}"#;
        let repeated = scene.call("POST", path, Some(same)).await;
        assert_eq!(repeated.status, 200, "{repeated:?}");
        let listed = scene.call("GET", path, None).await.json();
        assert_eq!(listed["items"][0]["sha256"], repeated.json()["sha256"]);
        assert_eq!(scene.entries("policy.change_refused").await, 0);

        let other = r#"{"version":"2026.05","settings":{"passcode.min_length":4}}"#;
        let refused = scene.call("POST", path, Some(other)).await;
        assert_eq!((refused.status, refused.code().as_str()), (409, "version_exists"));
        assert_eq!(scene.entries("policy.change_refused").await, 1);
        assert_eq!(scene.entries("policy.version_created").await, 1);
        let now = scene
            .call("GET", "/policies/baseline/versions/2026.05", None)
            .await
            .json();
        assert_eq!(now["settings"]["passcode.min_length"], 12);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_setting_changes_nothing_and_is_named() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.version("baseline", "1", BASELINE).await;
        let body = r#"{"version":"2","settings":{"passcode.min_lenght":12,"passcode.required":"yes"}}"#;
        let refused = scene.call("POST", "/policies/baseline/versions", Some(body)).await;
        assert_eq!((refused.status, refused.code().as_str()), (422, "settings_invalid"));
        assert_eq!(refused.json()["errors"].as_array().map(Vec::len), Some(2));
        let rule = r#"{"version":"2","settings":{},"rules":[{"name":"x","check":{"fact":"moon.phase","op":"exists"}}]}"#;
        let refused = scene.call("POST", "/policies/baseline/versions", Some(rule)).await;
        assert_eq!((refused.status, refused.code().as_str()), (422, "settings_invalid"));
        let policy = scene.call("GET", "/policies/baseline", None).await.json();
        assert_eq!((policy["versions"].as_u64(), policy["newest_version"].as_str()), (Some(1), Some("1")));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_expression_is_refused_by_its_rule_and_place() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.version("baseline", "1", BASELINE).await;
        let body = r#"{"version":"2","settings":{},"rules":[{"name":"current","expression":"true && os.versoin == 'x'"}]}"#;
        let refused = scene.call("POST", "/policies/baseline/versions", Some(body)).await;
        let problem = refused.json().to_string();
        assert_eq!(refused.status, 400, "{problem}");
        let detail = "rule current: expression: line 1, column 9: there is no os.versoin; did you mean os.version?";
        assert!(problem.contains(detail), "{problem}");
        let body = r#"{"version":"2","settings":{},"rules":[{"name":"current","expression":"os.version>=version('12')","severity":"high"}]}"#;
        let made = scene.call("POST", "/policies/baseline/versions", Some(body)).await;
        assert_eq!(made.status, 201, "{}", made.json());
        let version = scene.call("GET", "/policies/baseline/versions/2", None).await.json();
        let rule = serde_json::json!({"name": "current", "expression": "os.version >= version(\"12\")", "severity": "high"});
        assert_eq!(version["rules"], serde_json::json!([rule]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d5_unknown_and_doubled_members_are_refused() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.version("baseline", "1", BASELINE).await;
        for (body, status) in [
            (r#"{"version":"2","settings":{},"sequence":7}"#, 400),
            (
                r#"{"version":"2","version":"3","settings":{"passcode.min_length":4}}"#,
                400,
            ),
            (
                r#"{"version":"2","settings":{"passcode.min_length":4,"passcode.min_length":12}}"#,
                422,
            ),
            (r#"{"version":"../2","settings":{"passcode.min_length":4}}"#, 400),
        ] {
            let refused = scene
                .call("POST", "/policies/baseline/versions", Some(body))
                .await;
            assert_eq!(refused.status, status, "{body}: {refused:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_taken_once_and_works_in_place_of_the_id() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let made = scene
            .call(
                "POST",
                "/policies",
                Some(r#"{"name":"baseline","description":"d"}"#),
            )
            .await;
        assert_eq!(made.status, 201, "{made:?}");
        let id = made.json()["id"].as_str().expect("it has an id").to_owned();
        let again = scene
            .call("POST", "/policies", Some(r#"{"name":"baseline"}"#))
            .await;
        assert_eq!((again.status, again.code().as_str()), (409, "name_taken"));
        let by_name = scene.call("GET", "/policies/baseline", None).await.json();
        let by_id = scene.call("GET", &format!("/policies/{id}"), None).await.json();
        assert_eq!(by_name, by_id);
        let missing = scene.call("GET", "/policies/nothing", None).await;
        assert_eq!((missing.status, missing.code().as_str()), (404, "not_found"));
        let posed = scene
            .call("POST", "/policies", Some(&format!(r#"{{"name":"{id}"}}"#)))
            .await;
        assert_eq!(posed.status, 400);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_a_bundle_edited_by_sql_is_not_handed_out_and_the_edit_is_logged() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.version("baseline", "1", BASELINE).await;
        scene.version("baseline", "2", r#"{"passcode.min_length":4}"#).await;
        // A bundle that is genuine, but another version's.
        let swapped = scene
            .sql("UPDATE policy_version SET bundle = (SELECT v.bundle FROM policy_version v WHERE v.tenant_id = $1 \
                AND v.version = '2'), bundle_sha256 = (SELECT v.bundle_sha256 FROM policy_version v \
                WHERE v.tenant_id = $1 AND v.version = '2') WHERE tenant_id = $1 AND version = '1'")
            .await;
        assert_eq!(swapped, 1);
        let refused = scene.call("GET", "/policies/baseline/versions/1/bundle", None).await;
        assert_eq!((refused.status, refused.code().as_str()), (409, "bundle_changed"));
        assert_eq!(scene.entries("policy.bundle_tampered").await, 1);
        assert_eq!(scene.call("GET", "/policies/baseline/versions/2/bundle", None).await.status, 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_version_made_many_times_at_once_is_made_once() {
    on_both(MIGRATIONS, async |db| {
        let scene = std::sync::Arc::new(Scene::new(db.db().clone()).await);
        scene.version("baseline", "0", BASELINE).await;
        let mut calls = Vec::new();
        for number in 0..16 {
            let scene = std::sync::Arc::clone(&scene);
            calls.push(tokio::spawn(async move {
                // Half of them are about the same version, half are each about their own.
                let label = if number % 2 == 0 {
                    "same".to_owned()
                } else {
                    format!("own-{number}")
                };
                let body = format!(r#"{{"version":"{label}","settings":{{"passcode.min_length":9}}}}"#);
                scene
                    .call("POST", "/policies/baseline/versions", Some(&body))
                    .await
            }));
        }
        let mut created = 0;
        for call in calls {
            let answer = call.await.expect("the call ends");
            assert!(matches!(answer.status, 200 | 201), "{answer:?}");
            created += u32::from(answer.status == 201);
        }
        assert_eq!(created, 9);
        let last: i64 = scene
            .value("SELECT MAX(sequence) FROM policy_version WHERE tenant_id = $1")
            .await;
        assert_eq!(last, 10);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_gives_the_first_answer_again() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let key = [("Idempotency-Key", "k1")];
        let body = Some(r#"{"name":"baseline"}"#);
        let first = scene.call_with("POST", "/policies", &key, body).await;
        let second = scene.call_with("POST", "/policies", &key, body).await;
        assert_eq!((first.status, &first.body), (second.status, &second.body));
        let other = scene
            .call_with("POST", "/policies", &key, Some(r#"{"name":"other"}"#))
            .await;
        assert_eq!(
            (other.status, other.code().as_str()),
            (422, "idempotency_key_reused")
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_says_what_every_platform_can_carry() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let catalogue = scene.call("GET", "/settings", None).await.json();
        let items = catalogue["items"].as_array().expect("it is a list");
        assert!(items.len() >= 43, "{}", items.len());
        for item in items {
            assert_eq!(item["support"].as_array().map(Vec::len), Some(5), "{item}");
            assert!(item["support"][0]["support"].is_string(), "{item}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_paged() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        for version in ["1", "2", "3"] {
            scene.version("baseline", version, BASELINE).await;
        }
        let first = scene
            .call("GET", "/policies/baseline/versions?limit=2", None)
            .await
            .json();
        let versions = |page: &serde_json::Value| -> Vec<String> {
            let items = page["items"].as_array().expect("it is a list").iter();
            items
                .map(|item| item["version"].as_str().expect("it has a label").to_owned())
                .collect()
        };
        assert_eq!(versions(&first), ["3", "2"]);
        let cursor = first["next_cursor"].as_str().expect("there is more");
        let rest = scene
            .call(
                "GET",
                &format!("/policies/baseline/versions?cursor={cursor}"),
                None,
            )
            .await
            .json();
        assert_eq!(versions(&rest), ["1"]);
        assert!(rest["next_cursor"].is_null());
        assert_eq!(scene.call("GET", "/policies?cursor=x", None).await.status, 400);
    })
    .await;
}
