//! Nobody silences the pager untold.

use muster_storage::testing::on_both;
use serde_json::{Value, json};

use super::told;
use crate::{MIGRATIONS, policy::testing::Scene};

impl Scene {
    /// The titles of messages that tell a destination of a change, oldest first.
    async fn changes(&self, destination: &str) -> Vec<String> {
        let items = self.items("/alert-deliveries?limit=500").await;
        let of_it = items
            .iter()
            .rev()
            .filter(|item| item["destination"] == destination && item["event"] == "changed");
        of_it
            .map(|item| item["title"].as_str().expect("a title").to_owned())
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_is_told_of_its_own_removal_and_the_message_outlives_it() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.hook("pager", false).await;
        let gone = scene.call("DELETE", "/alert-destinations/pager", None).await;
        assert_eq!(gone.status, 204, "{gone:?}");
        assert_eq!(scene.outbox().await, [told("pager", "changed")]);
        let waiting = scene.items("/alert-deliveries?state=waiting").await;
        assert_eq!(waiting.len(), 1, "it waits although the destination is gone");
        assert!(scene.changes("pager").await[0].starts_with("The destination pager was removed by "));
        // One of the same name elsewhere does not get it, and what is sent there later is not held up.
        scene.hook("pager", false).await;
        assert_eq!(scene.changes("pager").await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_is_told_where_it_was_that_it_is_switched_off_or_sent_elsewhere() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.hook("pager", true).await;
        let put = async |members: Value| {
            let mut body = json!({
                "place": {"kind": "webhook", "url": "https://pager.example/hook"},
                "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "is_default": true,
            });
            for (name, value) in members.as_object().expect("members") {
                body[name] = value.clone();
            }
            let answer = scene.ask("PUT", "/alert-destinations/pager", body).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        };
        // The same again is no change.
        put(json!({})).await;
        assert!(scene.changes("pager").await.is_empty());
        put(json!({"place": {"kind": "webhook", "url": "https://elsewhere.example/hook"}})).await;
        put(json!({"place": {"kind": "webhook", "url": "https://elsewhere.example/hook"}, "is_default": false})).await;
        put(json!({"place": {"kind": "webhook", "url": "https://elsewhere.example/hook"}, "enabled": false, "is_default": false})).await;
        let told = scene.changes("pager").await;
        let words = ["sent elsewhere", "not told of everything else", "switched off"];
        assert_eq!(told.len(), words.len(), "{told:?}");
        for (title, words) in told.iter().zip(words) {
            assert!(title.contains(words), "{title}");
        }
        // Switched off, it hears no more.
        scene.call("DELETE", "/alert-destinations/pager", None).await;
        assert_eq!(scene.changes("pager").await.len(), words.len());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_told_of_security_is_told_of_silences_and_changed_rules() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.hook("pagerduty", false).await;
        scene.hook("slack", false).await;
        let silence = |rule: &str| {
            json!({
                "matcher": {"rule": rule}, "reason": "moving", "ends_at": "2027-01-16T00:00:00Z",
                "starts_at": "2027-01-15T00:00:00Z",
            })
        };
        let made = scene.ask("POST", "/alert-silences", silence("mass_*")).await;
        assert_eq!(made.status, 201, "{made:?}");
        // What is no rule about security is nobody's business.
        scene
            .ask("POST", "/alert-silences", silence("policy_violation_spike"))
            .await;
        assert_eq!(scene.changes("pagerduty").await.len(), 1);
        assert!(scene.changes("pagerduty").await[0].contains("silenced (moving)"));
        assert!(scene.changes("slack").await.is_empty());
        let mut rule = scene.call("GET", "/alert-rules/split_view", None).await.json();
        let rule = rule.as_object_mut().expect("a rule");
        for shown in [
            "name",
            "built_in",
            "changed_by",
            "changed_at",
            "missing_destinations",
        ] {
            rule.remove(shown);
        }
        rule.insert("enabled".to_owned(), false.into());
        let put = scene
            .ask("PUT", "/alert-rules/split_view", Value::Object(rule.clone()))
            .await;
        assert_eq!(put.status, 200, "{put:?}");
        let told = scene.changes("pagerduty").await;
        assert!(told[1].contains("split_view was switched off"), "{told:?}");
    })
    .await;
}
