//! R10: a backup of before a wipe is restored. The wipe is not delivered again, nor what waited when the backup was made.

use serde_json::json;

use crate::support::{
    PATIENCE,
    approvers::{approve, ask_wipe, change_root, command_of, reaches, two_of},
    device::Obedient,
    eventually,
    machine::order,
    server::{Options, Server, copy_folder},
};

const ROUNDS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn r10_a_restored_backup_delivers_no_wipe_again() {
    let mut server = Server::start(Options::default()).await;
    let keys = two_of(&mut server, &["Ada", "Grace"]).await;
    let api = server.api().await;
    let mut wiped = Obedient::enroll(&api, &server.admin).await;
    let mut spared = Obedient::enroll(&api, &server.admin).await;
    let mut operations = Vec::new();
    for device in [&wiped, &spared] {
        let operation = ask_wipe(&api, &device.device.id()).await;
        for key in &keys {
            approve(&api, &operation, key).await.ok();
        }
        reaches(&api, &operation, "completed").await;
        operations.push(operation);
    }
    // The backup holds both commands, signed, logged and not delivered.
    server.stop().await;
    copy_folder(&server.data_dir(), &server.folder().path().join("backup"));
    server.restart().await;
    let api = server.api().await;
    wiped.move_to(&server.admin);
    eventually("the wipe is carried out", PATIENCE, async || {
        wiped.obey().await;
        (wiped.executed.len() == 1).then_some(())
    })
    .await;
    // The other one was called off in time, and people went on working.
    let path = format!("/operations/{}/cancel", operations[1]);
    api.post(&path, &json!({})).await.ok();
    spared.move_to(&server.admin);
    spared.obey().await;
    let again = wiped.device.applicant.with_fresh_key();
    server.stop().await;

    // As the page on restoring a backup says: halted until the root keys have spoken.
    let options = Options::default().with("--begin-halted", true);
    let mut restored = Server::start_in(server.folder(), "backup", options).await;
    let api = restored.api().await;
    for operation in &operations {
        let command = command_of(operation);
        let shown = api.get(&format!("/commands/{command}")).await.ok();
        assert_eq!(
            (&shown["state"], &shown["attempts"]),
            (&json!("queued"), &json!(0)),
            "the backup knows of no delivery"
        );
    }
    // The wiped device has seen a later head and refuses this one. The spared one has not: to it the backup looks genuine.
    for _ in 0..ROUNDS {
        for device in [&mut wiped, &mut spared] {
            device.move_to(&restored.admin);
            device.try_obey().await;
        }
    }
    assert_eq!((wiped.executed.len(), spared.executed.len()), (1, 0));
    change_root(&mut restored, |root| root.restore_epoch += 1).await;
    let api = restored.api().await;
    api.post("/halt/lift", &json!({"reason": "the restore epoch is published"}))
        .await
        .ok();
    for _ in 0..ROUNDS {
        for device in [&mut wiped, &mut spared] {
            device.move_to(&restored.admin);
            device.try_obey().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    assert_eq!((wiped.executed.len(), spared.executed.len()), (1, 0));
    // The wiped machine is installed anew: a new epoch of the same device, or a new device.
    let mut fresh = Obedient::of(again.enroll(&api, &restored.admin).await);
    for _ in 0..ROUNDS {
        fresh.try_obey().await;
    }
    assert!(fresh.executed.is_empty(), "{:?}", fresh.executed);
    // What is asked now is carried out, so that the channel itself is sound.
    let id = spared.device.id();
    order(&api, &id, &json!({"type": "lock"})).await;
    eventually("the spared device obeys again", PATIENCE, async || {
        spared.try_obey().await;
        (!spared.executed.is_empty()).then_some(())
    })
    .await;
    assert_eq!(spared.executed.len(), 1, "{:?}", spared.executed);
    assert!(!spared.executed[0].is_destructive());
}
