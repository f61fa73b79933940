//! L4: what cannot be written into the log does not happen, and somebody is told.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    agent::SmallDisk,
    log_tamper::{all_placed, allow_inserts, refuse_inserts},
    support::{
        PATIENCE,
        api::{Api, answer},
        approvers::{approve, ask_wipe, batch_of, two_of},
        database::{Store, each_database},
        device::{Device, Obedient},
        eventually,
        server::{Options, Server, assert_healthy},
    },
};

const FAILED_CHANGES: &str = "mdm_log_failed_changes_total";

/// How many rows each table has.
async fn counts(store: &Store) -> Vec<(String, i64)> {
    let sql = match store {
        Store::Sqlite(_) => "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name",
        Store::Postgres(_) => {
            "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public' ORDER BY table_name"
        }
    };
    let mut counts = Vec::new();
    for row in store.rows(sql).await {
        let name = row[0].text().to_owned();
        // What nodes know of each other, and which device is still to be looked at, are no changes of anybody's.
        let is_work = ["storage_", "sqlite_", "compliance_", "devices_change"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
        if !is_work {
            let count = store.count(&name).await;
            counts.push((name, count));
        }
    }
    assert!(counts.len() > 30, "{counts:?}");
    counts
}

/// What people see of things that the changes are about.
async fn shown(api: &Api, device: &str, operation: &str) -> Vec<Value> {
    let mut all = Vec::new();
    for path in [
        "/halt".to_owned(),
        format!("/operations/{operation}"),
        format!("/devices/{device}"),
        "/clients".to_owned(),
        "/policies".to_owned(),
    ] {
        let mut value = api.get(&path).await.ok();
        // Counts as of now.
        value["at"] = Value::Null;
        all.push(value);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn l4_what_cannot_be_logged_changes_no_table_and_is_said() {
    each_database(async |options| {
        let mut server = Server::start(options).await;
        let keys = two_of(&mut server, &["Ada", "Grace"]).await;
        let api = server.api().await;
        let mut device = Obedient::enroll(&api, &server.admin).await;
        let id = device.device.id();
        let operation = ask_wipe(&api, &id).await;
        approve(&api, &operation, &keys[0]).await.ok();
        let last = batch_of(&api, &operation)
            .await
            .approve(&keys[1])
            .expect("it signs");
        let store = server.store().await;
        all_placed(&store).await;
        let before = (counts(&store).await, shown(&api, &id, &operation).await);
        let failed = server.metric(FAILED_CHANGES).await;
        refuse_inserts(&store).await;
        let post = |path: &str, body: Value| (Method::POST, path.to_owned(), body);
        let changes = [
            post(&format!("/devices/{id}/commands"), json!({"type": "lock"})),
            post(
                &format!("/devices/{id}/commands"),
                json!({"type": "wipe", "mode": "full"}),
            ),
            post("/commands", json!({"type": "restart", "filter": "state:active"})),
            post(
                &format!("/operations/{operation}/approvals"),
                serde_json::to_value(last).expect("JSON"),
            ),
            post(
                &format!("/operations/{operation}/reject"),
                json!({"reason": "no"}),
            ),
            post("/halt", json!({"reason": "stolen session"})),
            post("/policies", json!({"name": "unlogged"})),
            post("/clients", json!({"name": "unlogged", "scopes": ["device:read"]})),
            post("/enrollment-tokens", json!({"device_uuid": uuid::Uuid::new_v4()})),
            post(
                "/scripts",
                json!({"name": "n", "interpreter": "sh", "text": "id\n"}),
            ),
            post(&format!("/devices/{id}/retire"), json!({})),
            (
                Method::PUT,
                format!("/devices/{id}/labels"),
                json!({"labels": {"site": "north"}}),
            ),
        ];
        let count = changes.len();
        for (method, path, body) in changes {
            let answered = answer(api.request(method, &path).json(&body)).await;
            assert!(answered.status >= 500, "{path} answered {}", answered.word());
        }
        assert_eq!(
            (counts(&store).await, shown(&api, &id, &operation).await),
            before,
            "nothing changed"
        );
        device.obey().await;
        assert!(device.executed.is_empty());
        let told = server.metric(FAILED_CHANGES).await - failed;
        assert!(told >= count as i64, "{told} of {count} are counted");
        let said = server.log().matches("a request failed").count();
        assert!(said >= count, "{said} of {count} are in the server's own log");
        allow_inserts(&store).await;
        api.post(
            &format!("/operations/{operation}/reject"),
            &json!({"reason": "no"}),
        )
        .await
        .ok();
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l4_on_a_full_disk_nothing_happens_and_the_log_stays_whole() {
    const MEGABYTES: u32 = 32;
    const TRIES_MAX: usize = 2000;
    let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
    let Some(disk) = SmallDisk::mounted(&folder, "data", MEGABYTES).await else {
        return;
    };
    let mut server = Server::start_in(Arc::clone(&folder), "data", Options::default()).await;
    let api = server.api().await;
    let device = Device::enroll(&api, &server.admin).await;
    all_placed(&server.store().await).await;
    disk.fill();
    // There may be some room left in the files themselves.
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    for number in 0..TRIES_MAX {
        let name = format!("p-{number}");
        let answered = api.post("/policies", &json!({"name": name})).await;
        match answered.status {
            201 => acknowledged.push(name),
            status => {
                assert!(status >= 500, "{}", answered.word());
                refused += 1;
            }
        }
        if refused == 5 {
            break;
        }
    }
    assert_eq!(refused, 5, "the disk was really full");
    assert!(server.metric(FAILED_CHANGES).await >= 5);
    let path = format!("/devices/{}/commands", device.id());
    let lock = api.post(&path, &json!({"type": "lock"})).await;
    assert!(lock.status >= 500, "{}", lock.word());
    assert!(server.runs());
    let names = async |api: &Api| -> Vec<String> {
        let mut names: Vec<String> = api
            .list("/policies?limit=500")
            .await
            .iter()
            .map(|policy| policy["name"].as_str().expect("text").to_owned())
            .collect();
        names.sort();
        names
    };
    acknowledged.sort();
    assert_eq!(names(&api).await, acknowledged, "what was refused is not there");
    disk.empty();
    eventually("changes are taken again", PATIENCE, async || {
        let answered = api.post("/policies", &json!({"name": "q"})).await;
        (answered.status == 201).then_some(())
    })
    .await;
    acknowledged.push("q".to_owned());
    assert_eq!(names(&api).await, acknowledged);
    all_placed(&server.store().await).await;
    assert!(api.list("/commands").await.is_empty());
    assert_healthy(&server).await;
    server.stop().await;
    assert_healthy(&server).await;
}
