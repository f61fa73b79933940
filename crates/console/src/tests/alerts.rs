//! Alerts in the console: what fires, what was sent, who is told, and the runbooks.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use muster_control::alerts;

use crate::testing::{HOSTILE, Scene};

impl Scene {
    async fn evaluate_alerts(&self) {
        self.settle().await;
        let now = self.app.clock.now().as_micros();
        let lease = self
            .app
            .db
            .acquire_lease(alerts::ALERTS_LEASE, "test", Duration::from_secs(5), now);
        let lease = lease
            .await
            .expect("the database answers")
            .expect("nobody else evaluates");
        let mut engine = alerts::Engine::default();
        engine
            .evaluate(&self.app, &lease)
            .await
            .expect("rules are evaluated");
    }

    async fn open_alert(&self) -> String {
        let listed = self.call(Method::GET, "/api/v1/alerts", "").await;
        listed["items"][0]["id"]
            .as_str()
            .expect("an alert is open")
            .to_owned()
    }
}

#[tokio::test]
async fn the_inbox_says_what_an_alert_means_and_who_looks_after_it() {
    let scene = Scene::new().await;
    assert!(scene.page("/alerts").await.contains("Nothing fires."));
    scene.post("/halt", &[("reason", HOSTILE)]).await;
    scene.evaluate_alerts().await;
    let inbox = scene.page("/alerts").await;
    for part in [
        "The delivery of commands is halted",
        "What to do:",
        "/runbooks/delivery_halted",
        "critical",
    ] {
        assert!(inbox.contains(part), "{part}");
    }
    let path = format!("/alerts/{}", scene.open_alert().await);
    assert!(scene.page(&path).await.contains("Nobody was told."));
    let acknowledged = scene
        .post(&format!("{path}/acknowledge"), &[("note", HOSTILE)])
        .await;
    assert_eq!(acknowledged.status, StatusCode::SEE_OTHER, "{acknowledged:?}");
    assert!(scene.page("/alerts").await.contains("looked after by"));
    scene.post(&format!("{path}/resolve"), &[("note", "known")]).await;
    assert!(scene.page("/alerts").await.contains("Nothing fires."));
    assert!(scene.page("/alerts?state=all").await.contains(&path));
}

#[tokio::test]
async fn a_rule_is_silenced_from_its_alert_and_the_reason_is_shown() {
    let scene = Scene::new().await;
    scene.post("/halt", &[("reason", "ours")]).await;
    scene.evaluate_alerts().await;
    let form = [("rule", "delivery_halted"), ("hours", "4"), ("reason", HOSTILE)];
    assert_eq!(
        scene.post("/alerts/silences", &form).await.status,
        StatusCode::SEE_OTHER
    );
    let inbox = scene.page("/alerts").await;
    assert!(
        inbox.contains("silenced") && !inbox.contains("<script>alert"),
        "{inbox}"
    );
    let listed = scene.call(Method::GET, "/api/v1/alert-silences", "").await;
    let id = listed["items"][0]["id"].as_str().expect("it is there");
    scene.post(&format!("/alerts/silences/{id}/end"), &[]).await;
    assert!(scene.page("/alerts").await.contains("Nothing is silenced."));
}

#[tokio::test]
async fn a_destination_is_tested_and_its_secret_is_on_no_page() {
    let scene = Scene::new().await;
    let body = serde_json::json!({"place": {"kind": "pagerduty"}, "secret": "R0UT1NGKEY"}).to_string();
    scene
        .call(Method::PUT, "/api/v1/alert-destinations/pager", &body)
        .await;
    let tested = scene.post("/alerts/destinations/pager/test", &[]).await;
    assert_eq!(tested.status, StatusCode::SEE_OTHER, "{tested:?}");
    let (messages, told) = (
        scene.page("/alerts/deliveries").await,
        scene.page("/alerts/destinations").await,
    );
    assert!(
        messages.contains("Test message") && messages.contains("waiting"),
        "{messages}"
    );
    assert!(
        told.contains("never used") && told.contains("there is no pagerduty"),
        "{told}"
    );
    assert!(!messages.contains("R0UT1NGKEY") && !told.contains("R0UT1NGKEY"));
}

#[tokio::test]
async fn every_rule_that_comes_along_has_a_runbook_that_anyone_can_read() {
    let scene = Scene::new().await;
    let rules = scene.call(Method::GET, "/api/v1/alert-rules", "").await;
    for rule in rules["items"].as_array().expect("rules") {
        let path = format!("/runbooks/{}", rule["name"].as_str().expect("a name"));
        let answer = scene.send(Method::GET, &path, &[], "").await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert!(
            answer.body.contains("What it means") && answer.body.contains("How it ends"),
            "{path}"
        );
    }
    assert_eq!(
        scene
            .send(Method::GET, "/runbooks/..%2Ferrors%2Fcsrf", &[], "")
            .await
            .status,
        StatusCode::NOT_FOUND
    );
}
