//! Violations, ladders and shares over facts, reports and routes, on both engines.

use muster_model::{facts::Facts, platform::Platform};
use muster_storage::{
    Scope,
    testing::{on_both, statement_problems, whole_table_scans},
};
use serde_json::{Value, json};

use super::{remedy, share::KEPT_DAYS};
use crate::{
    MIGRATIONS,
    access::{Author, problem::Problem},
    audit, compliance, devices,
    policy::testing::{Scene, TestDevice},
    rollout,
};

/// A rule about the system's version, with what else a test wants of it.
fn os_rule(more: Value) -> Value {
    let mut rule =
        json!({"name": "fresh system", "check": {"fact": "os.version", "op": "ge", "value": "13"}});
    for (key, value) in more.as_object().expect("it is an object") {
        rule[key] = value.clone();
    }
    rule
}

/// Activates a version that has these rules and no settings.
async fn activate(scene: &Scene, policy: &str, version: &str, rules: Value) {
    let made = scene
        .call("POST", "/policies", Some(&json!({"name": policy}).to_string()))
        .await;
    assert!(matches!(made.status, 201 | 409), "{made:?}");
    let body = json!({"version": version, "settings": {}, "rules": rules}).to_string();
    let made = scene
        .call("POST", &format!("/policies/{policy}/versions"), Some(&body))
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    scene.activate(policy, version).await;
}

fn facts(scene: &Scene, version: &str) -> Facts {
    let mut facts: Facts =
        serde_json::from_str(r#"{"hardware":{},"os":{"id":"debian"},"collected_at":"2026-11-23T21:00:00Z"}"#)
            .expect("they are facts");
    facts.os.version = Some(version.to_owned());
    facts.collected_at = scene.app.clock.now();
    facts
}

async fn says(scene: &Scene, device: &TestDevice, version: &str) {
    let moves = rollout::take_facts(&scene.app, scene.tenant, device.id, facts(scene, version)).await;
    assert!(
        moves.expect("the facts are taken").devices.is_empty(),
        "there is no group"
    );
}

async fn get(scene: &Scene, path: &str) -> Value {
    let answer = scene.call("GET", path, None).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn of(scene: &Scene, device: &TestDevice) -> Value {
    get(scene, &format!("/devices/{}/compliance", device.id)).await
}

async fn remedied(scene: &Scene) -> usize {
    remedy(&scene.app).await.expect("the ladder can be climbed")
}

async fn reevaluated(scene: &Scene) -> usize {
    rollout::reevaluate(&scene.app)
        .await
        .expect("the fleet can be evaluated")
}

async fn compliance_at(scene: &Scene, device: &TestDevice) -> Option<i64> {
    let (tenant, id) = (scene.tenant, device.id);
    let read = scene
        .app
        .db
        .read(scene.storage(), move |tx| devices::get(tx, tenant, id));
    let device = read.await.expect("the device is there");
    device.compliance_at.map(|at| at.as_micros())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_is_understood_by_both_engines() {
    on_both(MIGRATIONS, async |db| {
        assert_eq!(
            statement_problems(db.db(), super::STATEMENTS).await,
            Vec::<String>::new()
        );
        let mut scans = whole_table_scans(db.db(), super::STATEMENTS).await;
        // One row for each tenant.
        scans.retain(|scan| !scan.starts_with("SERVED:"));
        assert_eq!(scans, Vec::<String>::new());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_violation_opens_and_ends_with_the_verdict_and_is_kept_as_history() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let device = scene.device(Platform::Linux).await;
        activate(
            &scene,
            "baseline",
            "1",
            json!([os_rule(json!({"severity": "high"}))]),
        )
        .await;
        says(&scene, &device, "12").await;
        let found = of(&scene, &device).await;
        assert_eq!(found["compliance"], "noncompliant");
        let open = &found["open"][0];
        assert_eq!(
            (
                &open["subject"],
                &open["severity"],
                &open["reason"],
                &open["policy_name"]
            ),
            (
                &json!("fresh system"),
                &json!("high"),
                &json!("os.version is 12"),
                &json!("baseline")
            )
        );
        assert_eq!(
            (&open["in_grace"], &open["next_step"]),
            (&json!(false), &json!(null))
        );
        assert_eq!(scene.entries("compliance.violated").await, 1);

        // Another reason of the same violation is the same violation.
        scene.pass_seconds(60);
        says(&scene, &device, "12.5").await;
        let still = of(&scene, &device).await;
        assert_eq!(still["open"].as_array().map(Vec::len), Some(1));
        assert_eq!(still["open"][0]["since"], open["since"]);
        assert_eq!(still["open"][0]["reason"], "os.version is 12.5");
        assert_eq!(scene.entries("compliance.violated").await, 1);

        scene.pass_seconds(60);
        says(&scene, &device, "13").await;
        let after = of(&scene, &device).await;
        assert_eq!(
            (&after["compliance"], &after["open"]),
            (&json!("compliant"), &json!([]))
        );
        assert_eq!(after["resolved"][0]["id"], open["id"]);
        assert_eq!(after["changes"][0]["to"], "compliant");
        assert_eq!(after["changes"][1]["to"], "noncompliant");
        assert_eq!(scene.entries("compliance.resolved").await, 1);
        assert_eq!(scene.entries("compliance.changed").await, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_that_no_verdict_reads_evaluate_nothing() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let device = scene.device(Platform::Linux).await;
        activate(&scene, "baseline", "1", json!([os_rule(json!({}))])).await;
        says(&scene, &device, "13").await;
        let evaluated = compliance_at(&scene, &device).await;
        scene.pass_seconds(60);
        says(&scene, &device, "13").await;
        assert_eq!(compliance_at(&scene, &device).await, evaluated);
        says(&scene, &device, "14").await;
        assert_ne!(compliance_at(&scene, &device).await, evaluated);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ladder_takes_each_step_once_after_the_grace_whoever_climbs() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let device = scene.device(Platform::Linux).await;
        let ladder = json!({"grace_seconds": 100, "steps": [
            {"action": "notify"},
            {"after_seconds": 10, "action": "message", "text": "Please update."},
            {"after_seconds": 20, "action": "command", "command": {"type": "restart"}},
        ]});
        activate(
            &scene,
            "baseline",
            "1",
            json!([os_rule(json!({"remediation": ladder}))]),
        )
        .await;
        says(&scene, &device, "12").await;
        let found = of(&scene, &device).await;
        assert_eq!(found["compliance"], "noncompliant");
        assert_eq!(found["grace_until"], found["open"][0]["grace_until"]);
        assert_eq!(
            (
                &found["open"][0]["in_grace"],
                &found["open"][0]["next_step"]["action"]
            ),
            (&json!(true), &json!("notify"))
        );
        scene.pass_seconds(99);
        assert_eq!(remedied(&scene).await, 0);
        scene.pass_seconds(1);
        // Two nodes find the same step due.
        let (one, other) = tokio::join!(remedy(&scene.app), remedy(&scene.app));
        assert_eq!(one.expect("it works") + other.expect("it works"), 1);
        assert_eq!(scene.entries("compliance.escalated").await, 1);
        let listed = get(&scene, "/violations?filter=escalated:yes").await;
        assert_eq!(listed["items"][0]["steps_done"], 1);
        assert_eq!(get(&scene, "/compliance").await["escalated"], 1);

        scene.pass_seconds(1000);
        for _ in 0..4 {
            let (one, other) = tokio::join!(remedy(&scene.app), remedy(&scene.app));
            one.and(other).expect("it works");
        }
        assert_eq!(scene.entries("command.created").await, 2);
        assert_eq!(scene.entries("compliance.remedied").await, 2);
        assert_eq!(remedied(&scene).await, 0);
        let after = of(&scene, &device).await;
        assert_eq!(
            (&after["open"][0]["steps_done"], &after["open"][0]["next_step"]),
            (&json!(3), &json!(null))
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resolved_violation_climbs_no_further() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let device = scene.device(Platform::Linux).await;
        let ladder =
            json!({"steps": [{"after_seconds": 60, "action": "command", "command": {"type": "restart"}}]});
        activate(
            &scene,
            "baseline",
            "1",
            json!([os_rule(json!({"remediation": ladder}))]),
        )
        .await;
        says(&scene, &device, "12").await;
        scene.pass_seconds(30);
        says(&scene, &device, "13").await;
        scene.pass_seconds(3600);
        assert_eq!(remedied(&scene).await, 0);
        assert_eq!(scene.entries("command.created").await, 0);
        // It begins anew with a new violation.
        says(&scene, &device, "12").await;
        assert_eq!(remedied(&scene).await, 0);
        scene.pass_seconds(60);
        assert_eq!(remedied(&scene).await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_past_the_budget_of_the_hour_wait_and_that_is_logged_once() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let (one, two) = (
            scene.device(Platform::Linux).await,
            scene.device(Platform::Linux).await,
        );
        let ladder = json!({"steps": [{"action": "command", "command": {"type": "restart"}}]});
        activate(
            &scene,
            "baseline",
            "1",
            json!([os_rule(json!({"remediation": ladder}))]),
        )
        .await;
        says(&scene, &one, "12").await;
        says(&scene, &two, "12").await;
        reevaluated(&scene).await;
        let hour = super::share::hour_of(scene.app.clock.now());
        let (tenant, full) = (scene.tenant, super::remedy::COMMANDS_PER_HOUR_MAX);
        audit::housekeeping(&scene.app, scene.storage(), move |tx| {
            let now = muster_model::Timestamp::from_unix_seconds(hour * 3600);
            let mut row = super::store::begin_tenant(tx, tenant, now)?;
            (row.budget_hour, row.budget_used) = (hour, full - 1);
            super::store::save_tenant(tx, tenant, &row)?;
            Ok::<_, Problem>(())
        })
        .await
        .expect("the budget can be used up");
        assert_eq!(remedied(&scene).await, 1);
        assert_eq!(remedied(&scene).await, 0);
        assert_eq!(scene.entries("command.created").await, 1);
        assert_eq!(scene.entries("compliance.postponed").await, 1);
        scene.pass_seconds(3600);
        assert_eq!(remedied(&scene).await, 1);
        assert_eq!(scene.entries("command.created").await, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_does_not_report_is_evaluated_by_its_new_rules() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let device = scene.device(Platform::Linux).await;
        says(&scene, &device, "12").await;
        assert_eq!(of(&scene, &device).await["compliance"], "compliant");
        reevaluated(&scene).await;
        activate(&scene, "baseline", "1", json!([os_rule(json!({}))])).await;
        assert_eq!(reevaluated(&scene).await, 1);
        assert_eq!(of(&scene, &device).await["compliance"], "noncompliant");
        assert_eq!(reevaluated(&scene).await, 0);
        // The rule is asked for no more.
        activate(&scene, "baseline", "2", json!([])).await;
        assert_eq!(reevaluated(&scene).await, 1);
        assert_eq!(of(&scene, &device).await["open"], json!([]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_that_reads_the_time_is_looked_at_again() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let device = scene.device(Platform::Linux).await;
        let rule =
            json!({"name": "fresh facts", "expression": "now - facts.collected_at < duration(\"2h\")"});
        activate(&scene, "baseline", "1", json!([rule])).await;
        says(&scene, &device, "12").await;
        reevaluated(&scene).await;
        assert_eq!(of(&scene, &device).await["compliance"], "compliant");
        assert_eq!(reevaluated(&scene).await, 0);
        for expected in ["compliant", "noncompliant"] {
            scene.pass_seconds(3601);
            assert_eq!(reevaluated(&scene).await, 1);
            assert_eq!(of(&scene, &device).await["compliance"], expected);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_are_sampled_once_an_hour_and_compared_with_yesterday() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        activate(&scene, "baseline", "1", json!([os_rule(json!({}))])).await;
        let (one, two, silent) = (
            scene.device(Platform::Linux).await,
            scene.device(Platform::Linux).await,
            scene.device(Platform::Linux).await,
        );
        says(&scene, &one, "12").await;
        says(&scene, &two, "13").await;
        // Of a device that said nothing nobody knows: it is not judged.
        reevaluated(&scene).await;
        assert_eq!(of(&scene, &silent).await["compliance"], "unknown");
        assert_eq!(super::sample(&scene.app).await.expect("it can be sampled"), 1);
        assert_eq!(super::sample(&scene.app).await.expect("it may run twice"), 0);
        scene.pass_seconds(24 * 3600);
        says(&scene, &one, "13").await;
        let rules = get(&scene, "/compliance/rules").await;
        let rule = &rules["items"][0];
        assert_eq!(
            (&rule["violating"], &rule["judged"], &rule["share"]),
            (&json!(0), &json!(2), &json!(0.0))
        );
        assert_eq!(
            (&rule["share_24h_ago"], &rule["share_7d_ago"]),
            (&json!(0.5), &json!(null))
        );
        super::sample(&scene.app).await.expect("it can be sampled");
        let history = get(
            &scene,
            "/compliance/rules/baseline/fresh%20system/history?hours=48",
        )
        .await;
        let shares: Vec<&Value> = history["items"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|point| &point["share"])
            .collect();
        assert_eq!(shares, [&json!(0.5), &json!(0.0)]);
        scene.pass_seconds((KEPT_DAYS + 2) * 86_400);
        super::forget_expired(&scene.app)
            .await
            .expect("it can be forgotten");
        let kept: i64 = scene
            .value("SELECT COUNT(*) FROM compliance_share WHERE tenant_id = $1")
            .await;
        assert_eq!(kept, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_goes_to_and_fro_fills_neither_the_log_nor_the_table() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let device = scene.device(Platform::Linux).await;
        activate(
            &scene,
            "baseline",
            "1",
            json!([os_rule(json!({"severity": "critical"}))]),
        )
        .await;
        for round in 0..40 {
            scene.pass_seconds(1);
            says(&scene, &device, if round % 2 == 0 { "12" } else { "13" }).await;
        }
        let logged = scene.entries("compliance.violated").await
            + scene.entries("compliance.resolved").await
            + scene.entries("compliance.changed").await;
        assert_eq!(logged, compliance::LOGGED_PER_HOUR_MAX);
        let (tenant, id) = (scene.tenant, device.id);
        audit::housekeeping(&scene.app, scene.storage(), move |tx| {
            super::store::trim_resolved(tx, tenant, id, 5)?;
            super::store::trim_changes(tx, tenant, id, 5)?;
            Ok::<_, Problem>(())
        })
        .await
        .expect("the history can be trimmed");
        let found = of(&scene, &device).await;
        assert_eq!(found["resolved"].as_array().map(Vec::len), Some(5));
        assert_eq!(found["changes"].as_array().map(Vec::len), Some(5));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_to_apply_again_is_asked_until_its_report_comes() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let device = scene.device(Platform::Linux).await;
        let ladder = json!({"steps": [{"action": "reapply"}]});
        activate(
            &scene,
            "baseline",
            "1",
            json!([os_rule(json!({"remediation": ladder}))]),
        )
        .await;
        says(&scene, &device, "12").await;
        assert_eq!(remedied(&scene).await, 1);
        assert_eq!(scene.entries("compliance.reapply_asked").await, 1);
        let (tenant, id) = (scene.tenant, device.id);
        let wanted = async || {
            let read = scene.app.db.read(scene.storage(), move |tx| {
                compliance::is_report_wanted(tx, tenant, id)
            });
            read.await.expect("it can be read")
        };
        let evaluate = async |occasion| {
            audit::observe(&scene.app, &Author::system(tenant), move |tx| {
                let now = tx.at();
                let turn = compliance::begin(tx, tenant, id, now)?;
                let device = devices::get(tx, tenant, id)?;
                let reported = compliance::Reported::default();
                let digest = muster_trust::key::sha256(b"");
                compliance::refresh(tx, turn, &device, &digest, &[], &reported, occasion).map(drop)
            })
            .await
            .expect("it can be evaluated");
        };
        // A report that was under way before the device was asked is no answer.
        evaluate(compliance::Occasion::Report).await;
        assert!(wanted().await);
        compliance::mark_report_asked(&scene.app, tenant, id)
            .await
            .expect("it can be asked");
        evaluate(compliance::Occasion::Change).await;
        assert!(wanted().await);
        evaluate(compliance::Occasion::Report).await;
        assert!(!wanted().await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_names_violations_of_nobody() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let device = scene.device(Platform::Linux).await;
        activate(&scene, "baseline", "1", json!([os_rule(json!({}))])).await;
        says(&scene, &device, "12").await;
        let tenant = scene.tenant;
        let broken = async || {
            let read = scene
                .app
                .db
                .read(Scope::System, move |tx| compliance::broken(tx, tenant));
            read.await.expect("it can be read")
        };
        assert_eq!(broken().await, Vec::<String>::new());
        scene
            .sql("UPDATE devices_device SET state = 'retired' WHERE tenant_id = $1")
            .await;
        assert_eq!(broken().await.len(), 1);
        // What an entry that was not followed left behind, the sweeper ends.
        scene.pass_seconds(60);
        super::forget_expired(&scene.app).await.expect("it can be swept");
        assert_eq!(broken().await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tenants_violations_are_not_anothers() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let device = scene.device(Platform::Linux).await;
        activate(&scene, "baseline", "1", json!([os_rule(json!({}))])).await;
        says(&scene, &device, "12").await;
        let other = scene.beside().await;
        assert_eq!(get(&other, "/violations").await["items"], json!([]));
        assert_eq!(get(&other, "/compliance/rules").await["items"], json!([]));
        let path = format!("/devices/{}/compliance", device.id);
        assert_eq!(other.call("GET", &path, None).await.status, 404);
        let path = "/compliance/rules/baseline/fresh%20system/history";
        assert_eq!(other.call("GET", path, None).await.status, 404);
        let problem = other.call("GET", "/violations?filter=severity:loud", None).await;
        assert_eq!((problem.status, problem.code().as_str()), (400, "invalid"));
    })
    .await;
}
