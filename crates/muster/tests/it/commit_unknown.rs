//! R4: the connection to the database is lost at the commit. Nobody knows whether it happened; the same request again has one
//! effect.

use serde_json::{Value, json};

use crate::support::{
    PATIENCE,
    api::Api,
    approvers::{approve, batch_of, operation_of, reaches, two_of},
    cutter::{Cut, Cutter},
    database::on_postgres,
    device::Obedient,
    eventually,
    server::{Options, Server, assert_healthy},
};

/// Posts once with the connection lost at the commit, and then as often as a patient client does.
async fn post_through(cutter: &Cutter, cut: Cut, api: &Api, path: &str, body: &Value) -> Value {
    let key = format!("cut-{}", uuid::Uuid::new_v4());
    cutter.cut(&key, cut);
    let first = api.post_once(path, &key, body).await;
    assert!(cutter.has_cut(), "the commit was met: {}", first.word());
    first.refused(503, "outcome_unknown");
    eventually("the same request is answered", PATIENCE, async || {
        let again = api.post_once(path, &key, body).await;
        if again.status == 503 {
            return None;
        }
        let made = again.expect(202);
        let is_replayed = again.header("idempotent-replayed") == "true";
        assert_eq!(is_replayed, cut == Cut::After, "{cut:?}: {made}");
        Some(made)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn r4_a_command_whose_commit_was_cut_off_is_made_once() {
    on_postgres(async |options: Options| {
        let cutter = Cutter::before(&options.database_address()).await;
        let mut server = Server::start(options.reached_at(cutter.address)).await;
        let keys = two_of(&mut server, &["Ada", "Grace"]).await;
        let api = server.api().await;
        for cut in [Cut::After, Cut::Before] {
            let mut device = Obedient::enroll(&api, &server.admin).await;
            let id = device.device.id();
            let path = format!("/devices/{id}/commands");
            let lock = json!({"type": "lock", "message": "once"});
            post_through(&cutter, cut, &api, &path, &lock).await;
            let wipe = json!({"type": "wipe", "mode": "full"});
            let asked = post_through(&cutter, cut, &api, &path, &wipe).await;
            let operation = operation_of(&asked["command_id"]);
            // The approval that was missing, with its commit lost: handed in again, it counts once.
            approve(&api, &operation, &keys[0]).await.ok();
            let approval = batch_of(&api, &operation)
                .await
                .approve(&keys[1])
                .expect("it signs");
            let approval = serde_json::to_value(approval).expect("JSON");
            let signature = approval["sig"].as_str().expect("text").to_owned();
            cutter.cut(&signature, cut);
            let path = format!("/operations/{operation}/approvals");
            api.post(&path, &approval).await.refused(503, "outcome_unknown");
            assert!(cutter.has_cut());
            let again = api.post(&path, &approval).await;
            assert!(
                matches!((again.status, cut), (200 | 409, Cut::After) | (200, Cut::Before)),
                "{cut:?}: {}",
                again.word()
            );
            reaches(&api, &operation, "completed").await;
            eventually("the device has both", PATIENCE, async || {
                device.obey().await;
                (device.executed.len() >= 2).then_some(())
            })
            .await;
            device.obey().await;
            assert_eq!(device.executed.len(), 2, "{:?}", device.executed);
            let listed = api.list(&format!("/commands?device={id}")).await;
            assert_eq!(listed.len(), 2, "{listed:?}");
        }
        assert_eq!(
            api.list("/log/entries?action=operation.asked&limit=500")
                .await
                .len(),
            2
        );
        assert_healthy(&server).await;
    })
    .await;
}
