//! What commands print and collect, and the scripts that they may run.

use muster_trust::key::{SigningKey, sha256};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    protocol::Ground,
    support::{
        PATIENCE,
        api::{Answer, Api},
        database::each_database,
        device::{Device, logged},
        eventually,
        server::{Options, Server, assert_healthy},
    },
};

/// A gzip file of nothing (RFC 1952): a header, an empty block, a checksum and a length of zero.
const GZIP: [u8; 20] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const BYTES_MAX: usize = 8 * 1024 * 1024;

async fn collect(api: &Api, device: &Device) -> String {
    let asked = api
        .post(
            &format!("/devices/{}/commands", device.id()),
            &json!({"type": "collect-logs"}),
        )
        .await
        .expect(202);
    asked["command_id"].as_str().expect("an id is text").to_owned()
}

async fn deliver(device: &Device) {
    eventually("the command is delivered", PATIENCE, async || {
        (!device.checkin().await.commands.is_empty()).then_some(())
    })
    .await;
}

async fn upload(device: &Device, command: &str, bytes: &[u8]) -> Answer {
    let path = format!("/agent/v1/commands/{command}/output");
    device
        .door
        .send(Method::POST, &path, Some("application/gzip"), bytes.to_vec())
        .await
}

async fn end(device: &Device, command: &str, member: &str, value: Value) {
    let mut statement = device.receipt_statement(command, "done");
    statement[member] = value;
    device
        .checkin_with("receipts", json!([device.receipt_of(&statement)]))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_is_shown_as_the_device_signed_for_it_and_to_those_who_may() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let device = Device::enroll(&api, &server.admin).await;
        let command = collect(&api, &device).await;
        upload(&device, &command, &GZIP)
            .await
            .refused(409, "illegal_state");
        deliver(&device).await;
        upload(&device, &command, &GZIP).await.expect(204);
        let path = format!("/commands/{command}/output");
        api.get(&path).await.refused(404, "not_found");
        end(&device, &command, "output_sha256", json!(sha256(&GZIP))).await;
        let shown = api.get(&path).await;
        assert_eq!((shown.status, shown.bytes.as_ref()), (200, GZIP.as_slice()));
        assert_eq!(shown.header("content-type"), "application/gzip");
        assert_eq!(shown.header("x-content-type-options"), "nosniff");
        let view = api.get(&format!("/commands/{command}")).await.ok();
        assert_eq!(view["receipt"]["output_sha256"], json!(sha256(&GZIP)));
        // Late and different: the receipt has named the other one.
        let mut other = GZIP;
        other[4] = 1;
        upload(&device, &command, &other).await.refused(409, "conflict");
        upload(&device, &command, &GZIP).await.expect(204);
        let reader = api.client_with("reader", &["command:read"]).await;
        reader.get(&path).await.refused(403, "insufficient_scope");

        let short = collect(&api, &device).await;
        deliver(&device).await;
        end(&device, &short, "output", json!("uid=0\n")).await;
        let shown = api.get(&format!("/commands/{short}/output")).await;
        assert_eq!((shown.status, shown.text().as_str()), (200, "uid=0\n"));
        let view = api.get(&format!("/commands/{short}")).await.ok();
        assert_eq!(view["receipt"]["output_bytes"], 6);
        assert!(!view.to_string().contains("uid=0"), "{view}");
        logged(&api, "command.output_received", 2).await;
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_bounded_and_for_the_devices_own_commands_alone() {
    let ground = Ground::open().await;
    let (api, thief) = (&ground.api, &ground.device);
    let victim = Device::enroll(api, &ground.server.admin).await;
    let command = collect(api, &victim).await;
    deliver(&victim).await;
    upload(thief, &command, &GZIP).await.refused(404, "not_found");
    for path in ["..%2f..%2fetc%2fshadow", "cmd_1", "%00"] {
        let answer = upload(&victim, path, &GZIP).await;
        assert!((400..500).contains(&answer.status), "{path}: {}", answer.status);
    }
    upload(&victim, &command, b"not gzip")
        .await
        .refused(400, "invalid");
    let mut large = GZIP.to_vec();
    large.resize(BYTES_MAX + 1, 0);
    upload(&victim, &command, &large)
        .await
        .refused(413, "body_too_large");
    victim
        .door
        .send(
            Method::POST,
            &format!("/agent/v1/commands/{command}/output"),
            Some("application/json"),
            GZIP.to_vec(),
        )
        .await
        .refused(415, "unsupported_media_type");
    large.truncate(BYTES_MAX);
    upload(&victim, &command, &large).await.expect(204);
    let lock = api
        .post(
            &format!("/devices/{}/commands", victim.id()),
            &json!({"type": "lock"}),
        )
        .await
        .expect(202);
    deliver(&victim).await;
    let lock = lock["command_id"].as_str().expect("an id is text");
    upload(&victim, lock, &GZIP).await.refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_is_kept_only_as_the_policy_role_signed_it() {
    each_database(async |options: Options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let body = json!({"name": "Who am I", "interpreter": "sh", "text": "id\n", "timeout_seconds": 10});
        let added = api.post("/scripts", &body).await.expect(201);
        let again = api.post("/scripts", &body).await.expect(201);
        assert_eq!(added["sha256"], again["sha256"]);
        assert_eq!(api.list("/scripts").await.len(), 1);
        let sha256_of = added["sha256"].as_str().expect("a digest is text").to_owned();
        let whole = api.get(&format!("/scripts/{sha256_of}")).await.ok();
        assert_eq!(
            (&whole["text"], &whole["output_bytes_max"]),
            (&json!("id\n"), &json!(65_536))
        );
        // The envelope that devices check may be pushed back as it is; one of a stranger's key may not.
        api.post("/scripts/signed", &whole["envelope"]).await.expect(201);
        let stranger = SigningKey::generate_p256().expect("a key can be made");
        let payload: Vec<u8> = {
            use base64::Engine as _;
            let text = whole["envelope"]["payload"].as_str().expect("it is text");
            base64::engine::general_purpose::STANDARD
                .decode(text)
                .expect("it is base64")
        };
        let forged = muster_trust::dsse::sign("application/vnd.muster.script+json", &payload, &[&stranger]);
        let forged = serde_json::to_value(forged.expect("a key signs")).expect("JSON");
        api.post("/scripts/signed", &forged)
            .await
            .refused(422, "script_refused");
        for wrong in [
            json!({"name": "n", "interpreter": "perl", "text": "x"}),
            json!({"name": "n", "interpreter": "sh", "text": ""}),
            json!({"name": "n", "interpreter": "sh", "text": "x", "timeout_seconds": 3601}),
            json!({"name": "n", "interpreter": "sh", "text": "x", "output_bytes_max": 65_537}),
        ] {
            api.post("/scripts", &wrong).await.refused(400, "invalid");
        }
        api.delete(&format!("/scripts/{sha256_of}")).await.expect(204);
        api.get(&format!("/scripts/{sha256_of}"))
            .await
            .refused(404, "not_found");
        assert_healthy(&server).await;
    })
    .await;
}
