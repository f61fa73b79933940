//! What devices sign, and what becomes of what another signed or nobody asked for (ABUSE E2, M15).

use base64::{Engine, engine::general_purpose::STANDARD};
use muster_trust::key::SigningKey;
use serde_json::{Value, json};

use crate::{
    protocol::Ground,
    support::{
        PATIENCE,
        device::{Device, logged},
        eventually,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn e2_m15_what_another_device_signed_is_refused_and_alarms() {
    let ground = Ground::open().await;
    let (api, thief) = (&ground.api, &ground.device);
    let victim = Device::enroll(api, &ground.server.admin).await;
    let asked = api
        .post(
            &format!("/devices/{}/commands", victim.id()),
            &json!({"type": "lock"}),
        )
        .await
        .expect(202);
    let command = asked["command_id"].as_str().expect("an id is text");
    eventually("the command is delivered", PATIENCE, async || {
        (!victim.checkin().await.commands.is_empty()).then_some(())
    })
    .await;
    let state = async || api.get(&format!("/commands/{command}")).await.ok()["state"].clone();
    let in_victims_name = thief.receipt_of(&victim.receipt_statement(command, "done"));
    let stranger = SigningKey::generate_p256().expect("a key can be made");
    let payload = thief.receipt_statement(command, "done").to_string();
    let by_stranger = muster_trust::dsse::sign(
        "application/vnd.muster.receipt+json",
        payload.as_bytes(),
        &[&stranger],
    );
    let mut wrong_epoch = thief.receipt_statement(command, "done");
    wrong_epoch["epoch"] = json!(2);
    let receipts = [
        victim.receipt(command, "done"),
        in_victims_name,
        serde_json::to_value(by_stranger.expect("a key signs")).expect("JSON"),
        thief.receipt_of(&wrong_epoch),
        thief.signed("policy-report", &thief.receipt_statement(command, "done")),
    ];
    let count = receipts.len();
    for receipt in receipts {
        thief
            .try_checkin_with("receipts", json!([receipt]))
            .await
            .refused(403, "device_blocked");
        assert_eq!(state().await, "delivered");
    }
    let report = victim.report(json!({}));
    thief
        .try_checkin_with("report", report)
        .await
        .refused(403, "device_blocked");
    let alarms = logged(api, "security.message_refused", count + 1).await;
    assert!(
        alarms.iter().all(|alarm| alarm["object"] == json!(thief.id())),
        "{alarms:?}"
    );
    assert_eq!(alarms.len(), count + 1);

    // Its own name under another's command is no alarm of this kind, and changes nothing.
    let accepted = thief
        .checkin_with("receipts", json!([thief.receipt(command, "done")]))
        .await
        .receipts_accepted;
    assert_eq!(accepted.len(), 1, "it is not asked to repeat it");
    assert_eq!(state().await, "delivered");
    logged(api, "receipt.refused", 1).await;
    victim
        .checkin_with("receipts", json!([victim.receipt(command, "done")]))
        .await;
    assert_eq!(state().await, "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn m15_receipts_without_a_delivery_after_the_end_or_for_nothing_change_nothing() {
    let ground = Ground::open().await;
    let (api, device) = (&ground.api, &ground.device);
    let asked = api
        .post(
            &format!("/devices/{}/commands", device.id()),
            &json!({"type": "lock"}),
        )
        .await
        .expect(202);
    let command = asked["command_id"].as_str().expect("an id is text").to_owned();
    let state = async || api.get(&format!("/commands/{command}")).await.ok()["state"].clone();
    let send = async |receipt: Value| {
        let answer = device.try_checkin_with("receipts", json!([receipt])).await;
        answer.expect(200);
    };
    let unknown = format!("cmd_{}", "1".repeat(32));
    send(device.receipt(&unknown, "done")).await;
    let before = logged(api, "receipt.refused", 1).await.len();
    // Before it was ever delivered. The answer of this very check-in may deliver it.
    api.post(&format!("/commands/{command}/cancel"), &json!({}))
        .await
        .ok();
    assert_eq!(state().await, "cancelled");
    send(device.receipt(&command, "done")).await;
    assert_eq!(state().await, "cancelled");
    logged(api, "receipt.refused", before + 1).await;
    for receipt in [
        json!({}),
        json!("x"),
        json!({"payload": "!", "payloadType": "x", "signatures": []}),
    ] {
        device
            .try_checkin_with("receipts", json!([receipt]))
            .await
            .refused(400, "malformed");
    }
    let many = vec![device.receipt(&command, "done"); 65];
    device
        .try_checkin_with("receipts", json!(many))
        .await
        .refused(400, "malformed");
    let unsigned = json!({
        "payload": STANDARD.encode(device.receipt_statement(&command, "done").to_string()),
        "payloadType": "application/vnd.muster.receipt+json",
        "signatures": [],
    });
    device
        .try_checkin_with("receipts", json!([unsigned]))
        .await
        .refused(403, "device_blocked");
}
