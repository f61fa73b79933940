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
    let empty = scene.page("/alerts").await;
    assert!(empty.contains("Nothing fires.") && empty.contains("Nobody would be told"));
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

#[tokio::test]
async fn a_destination_is_made_changed_and_removed_in_the_console() {
    let scene = Scene::new().await;
    assert!(
        scene
            .page("/alerts/destinations")
            .await
            .contains("Make the first destination")
    );
    let kinds = scene.page("/alerts/destinations/new?name=slack-mdm-ops").await;
    assert!(kinds.contains("kind=slack&amp;name=slack-mdm-ops"), "{kinds}");
    for kind in [
        "pagerduty",
        "slack",
        "opsgenie",
        "teams",
        "email",
        "webhook",
        "alertmanager",
    ] {
        let form = scene.page(&format!("/alerts/destinations/new?kind={kind}")).await;
        assert_eq!(form.contains("whsec_"), kind == "webhook", "{kind}");
    }
    let mail = |to| {
        [
            ("kind", "email"),
            ("name", "ops"),
            ("host", "mail.example.com"),
            ("port", "587"),
            ("security", "starttls"),
            ("from", "mdm@example.com"),
            ("to", to),
            ("enabled", "yes"),
        ]
    };
    let refused = scene.post("/alerts/destinations", &mail(HOSTILE)).await;
    assert_eq!(refused.status, StatusCode::OK);
    assert!(refused.body.contains("each like mdm@example.com") && refused.body.contains("mail.example.com"));
    assert!(!refused.body.contains("<script>alert"));
    let made = scene
        .post("/alerts/destinations", &mail("a@example.com\r\nb@example.com"))
        .await;
    assert_eq!(made.status, StatusCode::SEE_OTHER, "{made:?}");
    let again = scene.post("/alerts/destinations", &mail("c@example.com")).await;
    assert!(again.body.contains("There is a destination ops already."));
    assert!(!scene.page("/alerts").await.contains("Nobody would be told"));
    let form = scene.page("/alerts/destinations/ops/edit").await;
    assert!(form.contains("a@example.com\nb@example.com"), "{form}");
    let changed = scene
        .post("/alerts/destinations/ops/edit", &mail("c@example.com"))
        .await;
    assert_eq!(changed.status, StatusCode::SEE_OTHER, "{changed:?}");
    assert!(
        scene
            .page("/alerts/destinations/ops/edit")
            .await
            .contains("c@example.com")
    );
    let removed = scene.post("/alerts/destinations/ops/remove", &[]).await;
    assert_eq!(removed.status, StatusCode::SEE_OTHER);
    assert!(scene.page("/alerts").await.contains("Nobody would be told"));
}

#[tokio::test]
async fn a_stored_secret_stays_where_it_is_and_follows_to_no_other_place() {
    let scene = Scene::new().await;
    let hook = |url, secret| {
        [
            ("kind", "alertmanager"),
            ("name", "am"),
            ("url", url),
            ("secret", secret),
            ("enabled", "yes"),
        ]
    };
    scene
        .post("/alerts/destinations", &hook("https://one.example", "T0KEN"))
        .await;
    let form = scene.page("/alerts/destinations/am/edit").await;
    assert!(form.contains("https://one.example") && !form.contains("T0KEN"));
    let edit = "/alerts/destinations/am/edit";
    let same = scene.post(edit, &hook("https://one.example", "")).await;
    assert_eq!(same.status, StatusCode::SEE_OTHER, "{same:?}");
    let elsewhere = scene.post(edit, &hook("https://evil.example", "")).await;
    assert!(elsewhere.body.contains("gives its secret again"), "{elsewhere:?}");
    let given = scene.post(edit, &hook("https://two.example", "T0KEN")).await;
    assert_eq!(given.status, StatusCode::SEE_OTHER, "{given:?}");
}
