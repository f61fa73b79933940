//! Compliance from outside: a violation opens, its ladder restarts the device and has it apply again, and it ends.

use serde_json::{Value, json};

use crate::support::{
    PATIENCE,
    api::Api,
    database::each_database,
    device::{Obedient, logged},
    eventually,
    server::{Options, Server, assert_healthy},
};
use muster_model::CommandKind;

/// Activates a version whose rule no machine meets.
async fn activate(api: &Api, version: &str, wanted: &str, steps: &Value) {
    let policy = json!({"name": "base"});
    let made = api.post("/policies", &policy).await;
    assert!([201, 409].contains(&made.status), "{}", made.text());
    let version_ = json!({
        "version": version,
        "settings": {"camera.allowed": false},
        "rules": [{
            "name": "new system",
            "severity": "high",
            "check": {"fact": "os.version", "op": "ge", "value": wanted},
            "remediation": {"steps": steps},
        }],
    });
    api.post("/policies/base/versions", &version_).await.expect(201);
    api.post("/policies/base/activate", &json!({"version": version}))
        .await
        .expect(202);
}

async fn shown(api: &Api, device: &str) -> Value {
    api.get(&format!("/devices/{device}/compliance")).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ladder_reaches_the_device_and_ends_with_the_violation() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let mut device = Obedient::enroll(&api, &server.admin).await;
        let id = device.device.enrolled.device_id.to_string();
        let steps = json!([
            {"action": "notify"},
            {"action": "message", "text": "Please update."},
            {"action": "command", "command": {"type": "restart"}},
        ]);
        activate(&api, "1", "999", &steps).await;
        eventually("the device was told and restarted", PATIENCE, async || {
            device.obey().await;
            (device.executed.len() == 2).then_some(())
        })
        .await;
        assert!(
            matches!(
                device.executed[..],
                [CommandKind::Message { .. }, CommandKind::Restart { .. }]
            ),
            "{:?}",
            device.executed
        );
        let open = shown(&api, &id).await["open"][0].clone();
        assert_eq!(
            (&open["subject"], &open["severity"], &open["steps_done"]),
            (&json!("new system"), &json!("high"), &json!(3)),
            "{open}"
        );
        assert_eq!(api.list("/violations?filter=escalated:yes").await.len(), 1);
        logged(&api, "compliance.violated", 1).await;
        logged(&api, "compliance.escalated", 1).await;

        // What is asked for now, the device meets: nothing goes on about it.
        activate(&api, "2", "1", &json!([{"action": "reapply"}])).await;
        eventually("the violation has ended", PATIENCE, async || {
            device.obey().await;
            let now = shown(&api, &id).await;
            (now["compliance"] == "compliant" && now["open"] == json!([])).then_some(())
        })
        .await;
        assert_eq!(shown(&api, &id).await["resolved"][0]["id"], open["id"]);
        assert_eq!(device.executed.len(), 2);
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_applies_again_when_a_ladder_asks_for_it() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let mut device = Obedient::enroll(&api, &server.admin).await;
    let id = device.device.enrolled.device_id.to_string();
    activate(
        &api,
        "1",
        "999",
        &json!([{"after_seconds": 2, "action": "reapply"}]),
    )
    .await;
    let reported = async || {
        let settings = api.get(&format!("/devices/{id}/settings")).await.ok();
        (settings["is_current"] == true).then(|| settings["reported_at"].clone())
    };
    let first = eventually("the first report came", PATIENCE, async || {
        device.obey().await;
        reported().await
    })
    .await;
    let asked = eventually("the device is asked to apply again", PATIENCE, async || {
        let answer = device.ask().await;
        answer.want_report.then_some(answer)
    })
    .await;
    assert_eq!(reported().await, Some(first.clone()), "nothing was reported yet");
    // Whoever does not answer is asked again.
    assert!(device.ask().await.want_report);
    let actions = device.take(&asked);
    device.perform(actions).await;
    device.obey().await;
    assert_ne!(reported().await, Some(first));
    assert!(!device.ask().await.want_report);
    logged(&api, "compliance.reapply_asked", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retiring_a_device_ends_its_violations() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let mut device = Obedient::enroll(&api, &server.admin).await;
    let id = device.device.enrolled.device_id.to_string();
    activate(
        &api,
        "1",
        "999",
        &json!([{"after_seconds": 3600, "action": "notify"}]),
    )
    .await;
    eventually("the violation is open", PATIENCE, async || {
        device.obey().await;
        (!api.list("/violations").await.is_empty()).then_some(())
    })
    .await;
    let rules = api.get("/compliance/rules").await.ok();
    assert_eq!(rules["items"][0]["violating"], 1, "{rules}");
    api.post(&format!("/devices/{id}/retire"), &Value::Null)
        .await
        .expect(204);
    assert_eq!(api.list("/violations").await.len(), 0);
    let rules = api.get("/compliance/rules").await.ok();
    assert_eq!(rules["items"], json!([]));
    assert_healthy(&server).await;
}
