//! Questions through the program: answers, CSV, refreshes of a real agent and of a simulated fleet, schedules between nodes.

use std::{process::Stdio, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    PATIENCE,
    api::{Api, answer},
    database::{each_database, on_postgres},
    device::Device,
    eventually,
    machine::Machine,
    server::{Options, Server, assert_healthy, muster},
};

const FLEET: usize = 25;
/// A refresh of a fleet may take this long on a loaded machine.
const REFRESH_PATIENCE: Duration = Duration::from_secs(120);

async fn rows(api: &Api, question: &str) -> Value {
    let answer = api
        .post("/queries/run", &json!({"question": question}))
        .await
        .ok();
    answer["rows"].clone()
}

async fn ended(api: &Api, refresh: &Value) -> Value {
    let path = format!(
        "/query-refreshes/{}",
        refresh["id"].as_str().expect("an id is text")
    );
    eventually("the refresh ends", REFRESH_PATIENCE, async || {
        let now = api.get(&path).await.ok();
        (now["state"] != "running").then_some(now)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_agent_reports_anew_when_it_is_asked() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let mut machine = Machine::running(&api, &server.admin).await;
        let question = "SELECT device_id, facts_at FROM facts WHERE platform = 'linux'";
        let before = eventually("the agent has reported", PATIENCE, async || {
            let rows = rows(&api, question).await;
            (rows.as_array().map(Vec::len) == Some(1)).then_some(rows)
        })
        .await;
        assert_eq!(before[0][0], machine.device.as_str());
        let asked = json!({"question": question, "deadline_seconds": 60});
        let begun = api.post("/query-refreshes", &asked).await.expect(202);
        assert_eq!(
            (&begun["state"], &begun["devices"]),
            (&json!("running"), &json!(1))
        );
        let done = ended(&api, &begun).await;
        assert_eq!(
            (
                &done["state"],
                &done["asked"],
                &done["answered"],
                &done["unanswered"]
            ),
            (&json!("done"), &json!(1), &json!(1), &json!(0))
        );
        let after = rows(&api, question).await;
        assert!(after[0][1].as_str() > before[0][1].as_str(), "{before} {after}");
        machine.stop().await;
        let log = api.list("/log/entries?limit=500").await;
        assert!(
            log.iter()
                .any(|entry| entry.to_string().contains("query.refresh_asked"))
        );
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_is_asked_through_the_command_line_and_says_who_is_away() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let away = Device::enroll(&api, &server.admin).await;
    let farm = muster()
        .args([
            "farm",
            "--seed",
            "7",
            "--fail-rate",
            "0",
            "--devices",
            &FLEET.to_string(),
        ])
        .arg("--admin-file")
        .arg(server.admin_file())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let _farm = farm.expect("the farm starts");
    eventually("every device has reported", REFRESH_PATIENCE, async || {
        (rows(&api, "SELECT count(*) FROM facts").await == json!([[FLEET]])).then_some(())
    })
    .await;
    let ran = muster()
        .args([
            "query",
            "SELECT count(*) AS n FROM facts WHERE facts_age < 600",
            "--json",
            "--refresh",
            "--deadline",
            "15",
        ])
        .arg("--admin-file")
        .arg(server.admin_file())
        .output()
        .await
        .expect("it runs");
    let (out, err) = (
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
    );
    assert!(ran.status.success(), "{err}");
    let answer: Value = serde_json::from_str(&out).expect("it is JSON");
    assert_eq!(answer["rows"], json!([[FLEET]]));
    assert!(err.contains("did not in time"), "{} never came: {err}", away.id());
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_as_json_and_csv_and_errors_with_their_place() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let device = Device::enroll(&api, &server.admin).await;
        device.send_facts().await;
        assert_eq!(
            rows(&api, "SELECT name, version FROM packages WHERE version > '3.5'").await,
            json!([["openssl", "3.5.1"]])
        );
        let labels = json!({"labels": {"note": "=1+1"}});
        let path = format!("/devices/{}/labels", device.id());
        api.put(&path, &labels).await.ok();
        let request = api
            .request(Method::POST, "/queries/run")
            .header("accept", "text/csv");
        let csv = answer(request.json(&json!({"question": "SELECT value, cpu_cores FROM labels"}))).await;
        assert_eq!(csv.text(), "value,cpu_cores\r\n'=1+1,4\r\n");
        assert!(csv.header("content-type").starts_with("text/csv"));
        let wrong = json!({"question": "SELECT nmae FROM packages"});
        let said = api
            .post("/queries/run", &wrong)
            .await
            .refused(422, "query_invalid");
        assert!(
            said.contains("column 8") && said.contains("did you mean name?"),
            "{said}"
        );
        for wrong in [
            "DELETE FROM devices",
            "SELECT 1; DROP TABLE devices_device",
            "SELECT * FROM devices_device",
        ] {
            api.post("/queries/run", &json!({"question": wrong}))
                .await
                .refused(422, "query_invalid");
        }
        let saved = json!({"question": "SELECT count(*) FROM packages"});
        let kept = api.put("/queries/packages", &saved).await;
        assert_eq!(kept.header("etag"), "\"1\"");
        let stale = api
            .request(Method::PUT, "/queries/packages")
            .header("if-match", "\"7\"");
        answer(stale.json(&saved))
            .await
            .refused(412, "precondition_failed");
        let ran = api.post("/queries/run", &json!({"saved": "packages"})).await.ok();
        assert_eq!(ran["rows"], json!([[1]]));
        api.delete("/queries/packages").await.expect(204);
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_one_node_is_asked_from_the_other() {
    on_postgres(async |options| {
        let first = Server::start(options).await;
        let second = first.second_node().await;
        let (on_first, on_second) = (first.api().await, second.api().await);
        let mut machine = Machine::running(&on_first, &first.admin).await;
        eventually("the agent has reported", PATIENCE, async || {
            (rows(&on_second, "SELECT count(*) FROM facts").await == json!([[1]])).then_some(())
        })
        .await;
        let asked = json!({"question": "SELECT * FROM devices", "deadline_seconds": 60});
        let begun = on_second.post("/query-refreshes", &asked).await.expect(202);
        assert_eq!(ended(&on_first, &begun).await["state"], "done");
        machine.stop().await;
    })
    .await;
}
