//! Devices say which head of the log they stand at. One that our key signed and that our tree does not have is a split view.

use std::time::Duration;

use muster_channel_agent::checkin::WantCheckpoint;
use muster_trust::key::sha256;
use serde_json::{Value, json};

use crate::support::{
    PATIENCE,
    api::Api,
    approvers::change_root,
    database::each_database,
    device::{Device, Obedient, logged},
    eventually,
    server::{Options, Server, copy_folder, everything, maintain},
};

const DAY: Duration = Duration::from_secs(86_400);

/// Has a device execute a command, so that it stands at a newer head.
async fn advance(api: &Api, device: &mut Obedient) {
    let (id, before) = (device.device.id(), device.executed.len());
    let command = json!({"type": "message", "text": "hello"});
    let given = api.post(&format!("/devices/{id}/commands"), &command).await;
    given.expect(202);
    eventually("the device got its command", PATIENCE, async || {
        device.obey().await;
        (device.executed.len() > before).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_a_restored_backup_is_found_by_the_devices_that_saw_more() {
    let mut server = Server::start(Options::default()).await;
    let api = server.api().await;
    let mut device = Obedient::enroll(&api, &server.admin).await;
    advance(&api, &mut device).await;
    let answer = device.ask().await;
    device.take(&answer);
    assert_eq!(device.ask().await.want_checkpoint, None, "the heads agree");
    server.stop().await;
    copy_folder(&server.data_dir(), &server.folder().path().join("backup"));
    server.restart().await;
    device.device = device.device.at(&server.admin);
    advance(&server.api().await, &mut device).await;
    server.stop().await;

    let events = server.folder().path().join("security.jsonl");
    let options = Options::default().with("--security-events", events.display());
    let restored = Server::start_in(server.folder(), "backup", options).await;
    let api = restored.api().await;
    device.device = device.device.at(&restored.admin);
    let answer = device.ask().await;
    assert_eq!(answer.want_checkpoint, Some(WantCheckpoint::Note));
    device.take(&answer);
    for _ in 0..4 {
        let answer = device.ask().await;
        device.take(&answer);
    }
    let entries = logged(&api, "security.split_view", 1).await;
    assert_eq!(entries.len(), 1, "once for each device and size");
    assert_eq!(entries[0]["object"], device.device.id());
    assert_eq!(entries[0]["detail"]["standing"], "longer");
    assert_eq!(api.get("/overview").await.ok()["split_views"], 1);
    let lines = std::fs::read_to_string(&events).expect("events are written");
    let event: Value = serde_json::from_str(lines.trim_end()).expect("it is one line of JSON");
    assert_eq!(
        (&event["event"], &event["priority"]),
        (&json!("security.split_view"), &json!("critical"))
    );
    assert_eq!(
        (&event["source"], &event["entry"]),
        (&json!("muster"), &entries[0]["id"])
    );
    let output = maintain(&restored, &["doctor"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        everything(&output).contains("holds a signed head"),
        "{}",
        everything(&output)
    );
}

/// Has a device prove that it holds another head, and answers the head.
async fn proved(api: &Api, device: &mut Obedient) -> String {
    for _ in 0..5 {
        let answer = device.ask().await;
        device.take(&answer);
    }
    let entries = logged(api, "security.split_view", 1).await;
    let root = entries[0]["detail"]["root"].as_str();
    root.expect("the entry names the head").to_owned()
}

async fn unsettled(api: &Api) -> Value {
    api.get("/overview").await.ok()["split_views"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_a_split_view_is_settled_by_name_or_by_a_restore_epoch_and_by_nothing_else() {
    let mut server = Server::start(Options::default()).await;
    let api = server.api().await;
    let mut device = Obedient::enroll(&api, &server.admin).await;
    server.stop().await;
    copy_folder(&server.data_dir(), &server.folder().path().join("backup"));
    server.restart().await;
    device.device = device.device.at(&server.admin);
    advance(&server.api().await, &mut device).await;
    server.stop().await;

    let mut restored = Server::start_in(server.folder(), "backup", Options::default()).await;
    device.device = device.device.at(&restored.admin);
    let head = proved(&restored.api().await, &mut device).await;
    assert_eq!(unsettled(&restored.api().await).await, 1);
    // A longer life of the document says nothing about the log.
    change_root(&mut restored, |root| root.expires_at = root.expires_at.plus(DAY)).await;
    assert_eq!(unsettled(&restored.api().await).await, 1);
    change_root(&mut restored, |root| {
        root.settled_heads.insert(head.parse().expect("a digest"));
    })
    .await;
    assert_eq!(unsettled(&restored.api().await).await, 0);
    // The same head again is settled; without the word it stops again.
    device.device = device.device.at(&restored.admin);
    proved(&restored.api().await, &mut device).await;
    assert_eq!(unsettled(&restored.api().await).await, 0);
    change_root(&mut restored, |root| root.settled_heads.clear()).await;
    assert_eq!(unsettled(&restored.api().await).await, 1);
    change_root(&mut restored, |root| root.restore_epoch += 1).await;
    assert_eq!(unsettled(&restored.api().await).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_only_says_so_is_not_believed() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let device = Device::enroll(&api, &server.admin).await;
        let root = sha256(b"another history").to_string();
        let answer = device.checkin_with("checkpoint", json!({"root": root})).await;
        assert_eq!(answer.want_checkpoint, Some(WantCheckpoint::Note));
        let note = api.get("/log/checkpoint").await.text();
        for note in [note.as_str(), "garbage", ""] {
            let seen = json!({"root": root, "note": note});
            let answer = device.checkin_with("checkpoint", seen).await;
            assert_eq!(answer.want_checkpoint, None);
        }
        let too_long = json!({"root": root, "note": "x".repeat(70_000)});
        assert_eq!(device.try_checkin_with("checkpoint", too_long).await.status, 400);
        assert_eq!(server.store().await.count("audit_split_view").await, 0);
        assert_eq!(api.get("/overview").await.ok()["split_views"], 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_knows_nothing_of_it_goes_on_as_before() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let device = Device::enroll(&api, &server.admin).await;
    let answer = device.checkin_with("tree_size", json!(1)).await;
    assert_eq!(answer.want_checkpoint, Some(WantCheckpoint::Root));
    device.checkin().await;
}
