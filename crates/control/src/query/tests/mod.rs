//! Questions over what is stored, on both engines: answers, privacy, tenants, schedules, refreshes.

mod cost;

use muster_model::{
    DeviceId, Ownership, RefreshId,
    facts::{Disk, Facts, Package, UserAccount},
    platform::Platform,
    query::{Kind, Plan},
};
use muster_storage::testing::on_both;

use super::{
    AnswerView, EXAMPLES, Expected, RUNS_KEPT, RefreshState, SCHEMA, Saved, SavedChange, Schedule,
    reconcile::Difference, refresh, schema,
};
use crate::{
    MIGRATIONS,
    access::{
        Author,
        problem::{ILLEGAL_STATE, PRECONDITION_FAILED, Problem, QUERY_INVALID},
    },
    audit, devices,
    policy::testing::{Scene, TestDevice},
};

#[test]
fn every_column_has_its_value_and_every_example_is_a_question() {
    assert_eq!(SCHEMA.shared[schema::FACTS_FROM].name, "os_id");
    let now = muster_model::Timestamp::from_unix_seconds(1_800_000_000);
    for table in SCHEMA.tables {
        let all = format!("SELECT * FROM {}", table.name);
        for question in [table.example, &all] {
            Plan::check(question, &SCHEMA, now).unwrap_or_else(|error| panic!("{question}: {error}"));
        }
        for column in SCHEMA.columns(table) {
            let example = column.example.replace("dev_…", "dev_1");
            let question = format!("SELECT {} FROM {} WHERE {example}", column.name, table.name);
            Plan::check(&question, &SCHEMA, now).unwrap_or_else(|error| panic!("{question}: {error}"));
            assert!(column.kind == Kind::Text || column.words.is_empty());
        }
    }
    for (_, question) in EXAMPLES {
        Plan::check(question, &SCHEMA, now).unwrap_or_else(|error| panic!("{question}: {error}"));
    }
}

fn facts(os: &str, version: &str) -> Facts {
    let json = format!(
        r#"{{"hardware":{{"cpu_cores":8}},"os":{{"id":"{os}","version":"{version}"}},"collected_at":"2026-11-23T21:00:00Z"}}"#
    );
    Facts {
        packages: vec![Package {
            name: "openssl".to_owned(),
            version: "3.0.9".to_owned(),
        }],
        disks: vec![Disk {
            name: "sda".to_owned(),
            size_bytes: 1000,
            encrypted: Some(false),
            removable: false,
        }],
        users: vec![UserAccount {
            name: "ada".to_owned(),
            uid: Some(1000),
            administrator: true,
            locked: None,
        }],
        ..serde_json::from_str(&json).expect("they are facts")
    }
}

async fn put_facts(scene: &Scene, device: DeviceId, facts: Facts) {
    let (tenant, now) = (scene.tenant, scene.app.clock.now());
    audit::housekeeping(&scene.app, scene.storage(), move |tx| {
        let device = devices::get(tx, tenant, device)?;
        devices::put_facts(tx, &device, tenant, &facts, now)
    })
    .await
    .expect("facts are stored");
}

async fn ask(scene: &Scene, question: &str) -> Result<AnswerView, Problem> {
    let answered = super::ask(&scene.app, scene.tenant, question, 1000).await?;
    Ok(AnswerView::of(&answered))
}

/// Rows as JSON, in an order of their own.
async fn rows(scene: &Scene, question: &str) -> Vec<String> {
    let answer = ask(scene, question)
        .await
        .unwrap_or_else(|problem| panic!("{question}: {}", problem.detail));
    let row = |row: &Vec<serde_json::Value>| serde_json::to_string(row).expect("it is JSON");
    let mut rows: Vec<String> = answer.rows.iter().map(row).collect();
    rows.sort();
    rows
}

async fn set(scene: &Scene, sql: &'static str) {
    scene.sql(sql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_answered_from_facts_labels_and_verdicts() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let linux: Vec<TestDevice> = vec![
            scene.device(Platform::Linux).await,
            scene.device(Platform::Linux).await,
        ];
        scene.device(Platform::Windows).await;
        put_facts(&scene, linux[0].id, facts("debian", "12.10")).await;
        put_facts(&scene, linux[1].id, facts("debian", "12.4")).await;
        assert_eq!(
            rows(
                &scene,
                "SELECT platform, count(*), max(os_version) FROM devices GROUP BY platform"
            )
            .await,
            [r#"["linux",2,"12.10"]"#, r#"["windows",1,null]"#]
        );
        let old = format!("[\"{}\"]", linux[1].id);
        assert_eq!(
            rows(&scene, "SELECT device_id FROM devices WHERE os_version < '12.9'").await,
            [old]
        );
        assert_eq!(rows(&scene, "SELECT count(*) FROM facts").await, ["[2]"]);
        assert_eq!(
            rows(&scene, "SELECT count(*) FROM devices WHERE facts_at IS NULL").await,
            ["[1]"]
        );
        assert_eq!(
            rows(
                &scene,
                "SELECT name, version, count(*) FROM packages GROUP BY name, version"
            )
            .await,
            [r#"["openssl","3.0.9",2]"#]
        );
        let answer = ask(&scene, "SELECT * FROM disks WHERE NOT encrypted")
            .await
            .expect("it is answered");
        assert_eq!((answer.rows.len(), answer.devices), (2, 3));
        assert!(
            answer.facts_oldest_at.is_some() && answer.columns.iter().any(|column| column.name == "facts_at")
        );
        set(
            &scene,
            "INSERT INTO devices_label (tenant_id, device_id, key, value) SELECT tenant_id, device_id, 'site', 'north' \
             FROM devices_facts WHERE tenant_id = $1 AND facts LIKE '%12.10%'",
        )
        .await;
        assert_eq!(
            rows(
                &scene,
                "SELECT cpu_cores FROM devices WHERE label('site') = 'north'"
            )
            .await,
            ["[8]"]
        );
        assert_eq!(
            rows(&scene, "SELECT key, value FROM labels").await,
            [r#"["site","north"]"#]
        );
        assert_eq!(rows(&scene, "SELECT count(*) FROM groups").await, ["[0]"]);
        assert_eq!(rows(&scene, "SELECT count(*) FROM violations").await, ["[0]"]);
        let wrong = ask(&scene, "SELECT devise FROM devices")
            .await
            .expect_err("there is no such column");
        assert!(
            wrong.kind == QUERY_INVALID && wrong.detail.contains("did you mean device?"),
            "{}",
            wrong.detail
        );
        assert_eq!(
            rows(&scene.beside().await, "SELECT count(*) FROM devices").await,
            ["[0]"]
        );
        set(
            &scene,
            "UPDATE devices_device SET state = 'retired' WHERE tenant_id = $1 AND platform = 'windows'",
        )
        .await;
        assert_eq!(rows(&scene, "SELECT count(*) FROM devices").await, ["[2]"]);
        assert_eq!(
            rows(&scene, "SELECT state, count(*) FROM devices GROUP BY state").await,
            [r#"["active",2]"#, r#"["retired",1]"#]
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn personal_devices_show_no_packages_accounts_or_addresses() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let device = scene.device(Platform::Linux).await;
        put_facts(&scene, device.id, facts("debian", "12")).await;
        assert_eq!(Ownership::Personal.as_str(), "personal");
        set(
            &scene,
            "UPDATE devices_device SET ownership = 'personal' WHERE tenant_id = $1",
        )
        .await;
        for table in ["packages", "users", "interfaces"] {
            let answer = ask(&scene, &format!("SELECT * FROM {table}"))
                .await
                .expect("it is answered");
            assert_eq!((answer.rows.len(), answer.withheld_devices), (0, 1), "{table}");
        }
        assert_eq!(
            rows(&scene, "SELECT os_id, encrypted FROM disks").await,
            [r#"["debian",false]"#]
        );
    })
    .await;
}

async fn save(
    scene: &Scene,
    name: &'static str,
    change: SavedChange,
    expected: Expected,
) -> Result<Saved, Problem> {
    audit::commit(&scene.app, &Author::system(scene.tenant), move |tx| {
        super::save(tx, name, &change, expected)
    })
    .await
}

fn change(question: &str, schedule: Option<Schedule>) -> SavedChange {
    SavedChange {
        question: question.to_owned(),
        description: String::new(),
        schedule,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_question_is_changed_only_at_the_version_that_was_read() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let question = change("SELECT count(*) FROM devices", None);
        let made = save(&scene, "all", question.clone(), Expected::Absent)
            .await
            .expect("it is new");
        assert_eq!(made.version, 1);
        for wrong in [Expected::Absent, Expected::Version(2)] {
            let refused = save(&scene, "all", question.clone(), wrong)
                .await
                .expect_err("it is at version 1");
            assert_eq!(refused.kind, PRECONDITION_FAILED);
        }
        let changed = save(&scene, "all", question.clone(), Expected::Version(1))
            .await
            .expect("it is");
        assert_eq!(changed.version, 2);
        let wrong = save(
            &scene,
            "bad",
            change("DELETE FROM devices", None),
            Expected::Anything,
        )
        .await;
        assert_eq!(wrong.expect_err("it is no question").kind, QUERY_INVALID);
        assert_eq!(scene.entries("query.saved").await, 2);
        let listed = scene.call("GET", "/queries", None).await.json();
        assert_eq!(
            (&listed["items"][0]["name"], &listed["items"][0]["version"]),
            (&"all".into(), &2.into())
        );
        let other = scene.beside().await;
        assert_eq!(other.call("GET", "/queries/all", None).await.code(), "not_found");
    })
    .await;
}

const RUNS: &str = "SELECT COUNT(*) FROM query_run WHERE tenant_id = $1";

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_question_runs_once_and_says_what_changed() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let (tenant, app) = (scene.tenant, scene.app.clone());
        let schedule = Some(Schedule::EveryMinutes(5));
        save(
            &scene,
            "ids",
            change("SELECT device_id FROM devices", schedule),
            Expected::Anything,
        )
        .await
        .expect("it is saved");
        let both = async || {
            let (one, two) = tokio::join!(super::reconcile(&app), super::reconcile(&app));
            one.and(two).expect("what is due is run");
        };
        both().await;
        assert_eq!(scene.value::<i64>(RUNS).await, 0, "its time has not come");
        scene.pass_seconds(300);
        both().await;
        both().await;
        assert_eq!(
            scene.value::<i64>(RUNS).await,
            1,
            "two nodes at once keep one answer"
        );
        scene.device(Platform::Linux).await;
        scene.pass_seconds(300);
        both().await;
        let newest = scene.call("GET", "/queries/ids/runs/newest", None).await.json();
        assert_eq!(
            (&newest["added"], &newest["removed"]),
            (&1.into(), &0.into()),
            "{newest}"
        );
        assert_eq!(newest["added_rows"], newest["answer"]["rows"]);
        for _ in 0..RUNS_KEPT + 3 {
            scene.pass_seconds(300);
            super::reconcile(&app).await.expect("what is due is run");
        }
        let kept = i64::try_from(RUNS_KEPT).expect("it is small");
        assert_eq!(scene.value::<i64>(RUNS).await, kept);
        audit::commit(&app, &Author::system(tenant), |tx| {
            super::remove(tx, "ids", Expected::Anything)
        })
        .await
        .expect("it is there");
        assert_eq!(scene.value::<i64>(RUNS).await, 0);
    })
    .await;
}

async fn progress(scene: &Scene, id: RefreshId) -> super::Progress {
    let tenant = scene.tenant;
    let read = scene
        .app
        .db
        .read(scene.storage(), move |tx| refresh::progress(tx, tenant, id));
    read.await.expect("the refresh is there")
}

async fn is_asked(scene: &Scene, device: DeviceId) -> bool {
    let tenant = scene.tenant;
    let read = scene
        .app
        .db
        .read(scene.storage(), move |tx| super::is_asked(tx, tenant, device));
    read.await.expect("it can be read")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_asks_whom_the_question_can_be_about_and_ends() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let (app, author) = (scene.app.clone(), Author::system(scene.tenant));
        let (one, two) = (
            scene.device(Platform::Linux).await,
            scene.device(Platform::Linux).await,
        );
        let other = scene.device(Platform::Windows).await;
        let question = "SELECT os_version FROM devices WHERE platform = 'linux' AND os_id = 'debian'";
        let start = async || super::start_refresh(&app, &author, question, Some(60)).await;
        let begun = start().await.expect("it begins");
        assert_eq!(
            (begun.state, begun.devices, begun.asked),
            (RefreshState::Running, 2, 0)
        );
        super::reconcile(&app).await.expect("devices are asked");
        super::follow(&app).await.expect("devices are called");
        assert!(app.registry.seat(one.id).is_due());
        assert!(is_asked(&scene, one.id).await && is_asked(&scene, two.id).await);
        assert!(!is_asked(&scene, other.id).await);
        super::answered(&app, scene.tenant, one.id)
            .await
            .expect("it is noted");
        let now = progress(&scene, begun.id).await;
        assert_eq!((now.asked, now.answered, now.unanswered), (2, 1, 1));
        super::answered(&app, scene.tenant, two.id)
            .await
            .expect("it is noted");
        super::reconcile(&app).await.expect("it ends");
        let now = progress(&scene, begun.id).await;
        assert_eq!(
            (now.state, now.answered, now.unanswered),
            (RefreshState::Done, 2, 0)
        );

        let late = start().await.expect("it begins");
        super::reconcile(&app).await.expect("devices are asked");
        scene.pass_seconds(61);
        super::reconcile(&app).await.expect("it ends");
        let now = progress(&scene, late.id).await;
        assert_eq!(
            (now.state, now.answered, now.unanswered),
            (RefreshState::Expired, 0, 2)
        );
        assert!(!is_asked(&scene, one.id).await, "nobody waits any more");
        super::follow(&app).await.expect("there is nothing to do");
        assert!(!app.queries.is_refreshing());

        for _ in 0..super::REFRESHES_OPEN_MAX {
            start().await.expect("there is room");
        }
        assert_eq!(start().await.expect_err("there are enough").kind, ILLEGAL_STATE);
        assert_eq!(scene.entries("query.refresh_asked").await, 5);
        scene.pass_seconds(61);
        super::reconcile(&app).await.expect("they end");
        scene.pass_seconds(2 * 86_400);
        super::forget_expired(&app).await.expect("old ones go");
        assert_eq!(
            scene
                .value::<i64>("SELECT COUNT(*) FROM query_refresh WHERE tenant_id = $1")
                .await,
            0
        );
        assert_eq!(
            scene
                .value::<i64>("SELECT COUNT(*) FROM query_asked WHERE tenant_id = $1")
                .await,
            0
        );
    })
    .await;
}

#[test]
fn what_came_and_went_is_counted() {
    let rows = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| vec![serde_json::json!(text)])
            .collect::<Vec<_>>()
    };
    let difference = Difference::between(&rows(&["a", "a", "b"]), &rows(&["a", "c", "b", "b"]));
    assert_eq!(
        (difference.added, difference.removed),
        (rows(&["c", "b"]), rows(&["a"]))
    );
}
