//! Alerts over their routes and the engine, on both engines of the database, with a clock that stands still.

use std::time::Duration;

use muster_model::platform::Platform;
use muster_storage::testing::on_both;
use serde_json::{Value, json};

use super::{ALERTS_LEASE, Engine};
use crate::{
    MIGRATIONS,
    access::Author,
    audit, commands,
    policy::testing::{Answer, Scene},
    reconcile,
};

mod changes;
mod outbox;
mod rules;
mod secrets;

impl Scene {
    /// Places what was recorded, then evaluates once.
    async fn evaluate(&self) {
        reconcile::sequence_now(&self.app)
            .await
            .expect("entries get their place");
        let now = self.app.clock.now().as_micros();
        let lease = self
            .app
            .db
            .acquire_lease(ALERTS_LEASE, &self.app.node, Duration::from_secs(5), now)
            .await
            .expect("the database answers")
            .expect("nobody else evaluates");
        let mut engine = Engine::default();
        while engine
            .evaluate(&self.app, &lease)
            .await
            .expect("rules can be evaluated")
        {}
    }

    async fn ask(&self, method: &str, path: &str, body: Value) -> Answer {
        let text = body.to_string();
        self.call(method, path, (body != Value::Null).then_some(text.as_str()))
            .await
    }

    async fn items(&self, path: &str) -> Vec<Value> {
        let answer = self.call("GET", path, None).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["items"].as_array().expect("a list").clone()
    }

    /// A webhook of this name, and whether it is told of everything else.
    async fn hook(&self, name: &str, is_default: bool) {
        let body = json!({
            "place": {"kind": "webhook", "url": format!("https://{name}.example/hook")},
            "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "is_default": is_default,
        });
        let answer = self
            .ask("PUT", &format!("/alert-destinations/{name}"), body)
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// A rule on the number of devices.
    async fn devices_rule(&self, members: Value) {
        let mut rule = json!({
            "title": "Many devices", "severity": "warning", "when": {"expression": "devices >= 2"},
            "destinations": ["first"],
        });
        for (name, value) in members.as_object().expect("members") {
            rule[name] = value.clone();
        }
        let answer = self.ask("PUT", "/alert-rules/many", rule).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// What was written into the outbox, oldest first: destination and event.
    async fn outbox(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let items = self.items("/alert-deliveries?limit=500").await;
        items
            .iter()
            .rev()
            .map(|item| (text(&item["destination"]), text(&item["event"])))
            .collect()
    }

    async fn alert_of(&self, rule: &str) -> Option<Value> {
        let items = self.items("/alerts?state=all").await;
        items.into_iter().find(|alert| alert["rule"] == rule)
    }

    async fn halt(&self) {
        let author = Author::system(self.tenant);
        audit::commit(&self.app, &author, |tx| commands::halt(tx, "stolen session"))
            .await
            .expect("it halts");
    }

    async fn lift(&self) {
        let author = Author::system(self.tenant);
        audit::commit(&self.app, &author, |tx| commands::lift_halt(tx, "over"))
            .await
            .expect("it is lifted");
    }
}

fn told(destination: &str, event: &str) -> (String, String) {
    (destination.to_owned(), event.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_begins_waits_fires_and_ends() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.hook("first", false).await;
        scene
            .devices_rule(json!({"for_seconds": 60, "keep_seconds": 30}))
            .await;
        scene.evaluate().await;
        assert!(scene.alert_of("many").await.is_none());
        scene.device(Platform::Linux).await;
        let gone = scene.device(Platform::Linux).await;
        scene.evaluate().await;
        let pending = scene.alert_of("many").await.expect("it begins");
        assert_eq!(
            (&pending["state"], &pending["objects"][0]["value"]),
            (&json!("pending"), &json!("2"))
        );
        assert!(scene.outbox().await.is_empty());
        scene.pass_seconds(60);
        scene.evaluate().await;
        assert_eq!(scene.alert_of("many").await.expect("it fires")["state"], "firing");
        assert_eq!(scene.outbox().await, [told("first", "firing")]);
        // Evaluating again tells nobody again.
        scene.evaluate().await;
        scene.pass_seconds(600);
        scene.evaluate().await;
        assert_eq!(scene.outbox().await.len(), 1);
        let tenant = scene.tenant;
        audit::commit(&scene.app, &Author::system(tenant), move |tx| {
            let device = crate::devices::get(tx, tenant, gone.id)?;
            crate::devices::retire(tx, &device)
        })
        .await
        .expect("the device is retired");
        scene.evaluate().await;
        assert_eq!(
            scene.alert_of("many").await.expect("it is kept")["state"],
            "firing"
        );
        scene.pass_seconds(30);
        scene.evaluate().await;
        assert_eq!(
            scene.alert_of("many").await.expect("it ended")["state"],
            "resolved"
        );
        assert_eq!(
            scene.outbox().await,
            [told("first", "firing"), told("first", "resolved")]
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_before_its_time_leaves_no_trace() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.device(Platform::Linux).await;
        scene.device(Platform::Linux).await;
        scene.devices_rule(json!({"for_seconds": 60})).await;
        scene.evaluate().await;
        assert!(scene.alert_of("many").await.is_some());
        scene
            .devices_rule(json!({"for_seconds": 60, "when": {"expression": "devices >= 5"}}))
            .await;
        scene.evaluate().await;
        assert!(scene.alert_of("many").await.is_none());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m6_a_halt_is_told_once_and_ends_with_its_lift() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.hook("pagerduty", false).await;
        scene.hook("other", true).await;
        scene.evaluate().await;
        scene.halt().await;
        scene.evaluate().await;
        scene.evaluate().await;
        let alert = scene.alert_of("delivery_halted").await.expect("it fires");
        assert_eq!(
            (&alert["state"], &alert["severity"]),
            (&json!("firing"), &json!("critical"))
        );
        assert_eq!(
            scene.outbox().await,
            [told("pagerduty", "firing")],
            "the rule names the pager alone"
        );
        scene.pass_seconds(1);
        scene.lift().await;
        scene.evaluate().await;
        assert_eq!(
            scene.outbox().await,
            [told("pagerduty", "firing"), told("pagerduty", "resolved")]
        );
        let ended = scene.alert_of("delivery_halted").await.expect("it is kept");
        assert!(
            ended["because"]
                .as_str()
                .is_some_and(|because| because.contains("commands.halt_lifted"))
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_named_destination_the_default_ones_are_told_and_without_any_later_ones() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.halt().await;
        scene.evaluate().await;
        assert!(scene.outbox().await.is_empty());
        let rules = scene.items("/alert-rules").await;
        let halted = rules
            .iter()
            .find(|rule| rule["name"] == "delivery_halted")
            .expect("it comes along");
        assert_eq!(halted["missing_destinations"], json!(["pagerduty"]));
        scene.hook("somewhere", true).await;
        scene.evaluate().await;
        assert_eq!(scene.outbox().await, [told("somewhere", "firing")]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_acknowledges_stops_the_escalation_and_everyone_hears_of_the_end() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.hook("first", false).await;
        scene.hook("second", false).await;
        scene.hook("third", false).await;
        scene.device(Platform::Linux).await;
        scene.device(Platform::Linux).await;
        let steps = json!([
            {"after_minutes": 5, "destinations": ["second"]}, {"after_minutes": 10, "destinations": ["third"]},
        ]);
        scene.devices_rule(json!({"escalation": steps})).await;
        scene.evaluate().await;
        scene.pass_seconds(299);
        scene.evaluate().await;
        assert_eq!(scene.outbox().await, [told("first", "firing")]);
        scene.pass_seconds(1);
        scene.evaluate().await;
        assert_eq!(scene.outbox().await.last(), Some(&told("second", "firing")));
        let id = scene.alert_of("many").await.expect("it fires")["id"].as_str().expect("an id").to_owned();
        let path = format!("/alerts/{id}/acknowledge");
        assert_eq!(scene.ask("POST", &path, json!({"note": "mine"})).await.status, 200);
        assert_eq!(scene.ask("POST", &path, json!({})).await.code(), "conflict");
        assert_eq!(scene.entries("alert.acknowledged").await, 1);
        scene.pass_seconds(3600);
        scene.evaluate().await;
        let outbox = scene.outbox().await;
        assert_eq!(outbox.iter().filter(|told| told.1 == "acknowledged").count(), 2);
        assert!(outbox.iter().all(|told| told.0 != "third"), "{outbox:?}");
        scene.devices_rule(json!({"when": {"expression": "devices > 9"}})).await;
        scene.evaluate().await;
        let ends = scene.outbox().await.into_iter().filter(|told| told.1 == "resolved").count();
        assert_eq!(ends, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_silenced_fires_and_is_told_when_the_silence_ends() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.hook("first", false).await;
        scene.device(Platform::Linux).await;
        scene.device(Platform::Linux).await;
        scene.devices_rule(json!({})).await;
        let until = scene.app.clock.now().plus(Duration::from_secs(600)).to_string();
        let silence = json!({"matcher": {"rule": "man*"}, "reason": "moving house", "ends_at": until});
        let made = scene.ask("POST", "/alert-silences", silence).await;
        assert_eq!(made.status, 201, "{made:?}");
        scene.evaluate().await;
        let alert = scene.alert_of("many").await.expect("it fires");
        assert_eq!(
            (&alert["state"], &alert["silenced_because"]),
            (&json!("firing"), &json!("moving house"))
        );
        assert!(scene.outbox().await.is_empty());
        let id = made.json()["id"].as_str().expect("an id").to_owned();
        let ended = scene
            .ask("POST", &format!("/alert-silences/{id}/end"), Value::Null)
            .await;
        assert_eq!(ended.status, 200, "{ended:?}");
        scene.evaluate().await;
        assert_eq!(scene.outbox().await, [told("first", "firing")]);
        assert_eq!(
            (
                scene.entries("alert.silenced").await,
                scene.entries("alert.silence_ended").await
            ),
            (1, 1)
        );
        let again = scene
            .ask("POST", &format!("/alert-silences/{id}/end"), Value::Null)
            .await;
        assert_eq!(again.code(), "illegal_state");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_events_is_a_bounded_number_of_alerts() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.hook("pagerduty", false).await;
        scene.evaluate().await;
        let tenant = scene.tenant;
        audit::commit(&scene.app, &Author::system(tenant), |tx| {
            for number in 0..60 {
                tx.record("security.test", ("device", format!("dev_{number}")), json!({}))?;
            }
            Ok(())
        })
        .await
        .expect("they are recorded");
        scene.evaluate().await;
        let alerts = scene.items("/alerts?limit=500").await;
        let of_rule = alerts
            .iter()
            .filter(|alert| alert["rule"] == "security_event")
            .count();
        assert_eq!(of_rule, super::rules::EVENT_ALERTS_PER_RULE_MAX + 1);
        assert_eq!(scene.outbox().await.len(), of_rule);
        scene.pass_seconds(86_401);
        scene.evaluate().await;
        let left = scene.items("/alerts").await;
        assert!(
            left.iter().all(|alert| alert["rule"] != "security_event"),
            "nothing lasts for ever"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_is_told_at_30_14_7_and_1_days() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.hook("email", false).await;
        scene.hook("pagerduty", false).await;
        let at = |days: u64| {
            scene
                .app
                .clock
                .now()
                .plus(Duration::from_secs(days * 86_400))
                .to_string()
        };
        let token = json!({"expires_at": at(31), "note": "identity.example"});
        let entered = scene.ask("PUT", "/expiries/push-certificate", token).await;
        assert_eq!(entered.status, 200, "{entered:?}");
        scene.evaluate().await;
        assert!(scene.outbox().await.is_empty());
        for (days, destination) in [(1, "email"), (16, "email"), (7, "pagerduty"), (6, "pagerduty")] {
            scene.pass_seconds(days * 86_400);
            scene.evaluate().await;
            let outbox = scene.outbox().await;
            let last = outbox.iter().rev().find(|told| told.1 == "firing");
            assert!(last.is_some(), "after {days} more days: {outbox:?}");
            assert!(
                outbox.contains(&told(destination, "firing")),
                "after {days} more days: {outbox:?}"
            );
        }
        let renewed = json!({"expires_at": at(365)});
        assert_eq!(
            scene
                .ask("PUT", "/expiries/push-certificate", renewed)
                .await
                .status,
            200
        );
        scene.evaluate().await;
        let open = scene.items("/alerts").await;
        let names_it = |alert: &Value| alert["objects"].to_string().contains("push-certificate");
        assert!(!open.iter().any(names_it), "{open:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_row_or_entry_holds_a_secret() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let secret = "R0UT1NGKEY0123456789";
        let body = json!({"place": {"kind": "pagerduty"}, "secret": secret});
        let made = scene.ask("PUT", "/alert-destinations/pager", body).await;
        assert_eq!(made.status, 200, "{made:?}");
        assert!(!made.json().to_string().contains(secret));
        assert!(
            !scene.items("/alert-destinations").await[0]
                .to_string()
                .contains(secret)
        );
        let sealed: Vec<u8> = scene
            .value("SELECT secret FROM alerts_destination WHERE tenant_id = $1")
            .await;
        assert!(!sealed.windows(secret.len()).any(|part| part == secret.as_bytes()));
        let logged: Vec<u8> = scene
            .value(
                "SELECT body FROM audit_entry WHERE tenant_id = $1 AND action = 'alert.destination_changed'",
            )
            .await;
        assert!(!String::from_utf8_lossy(&logged).contains(secret));
        // To another place the secret does not follow.
        let moved = json!({"place": {"kind": "pagerduty", "url": "https://evil.example/"}});
        assert_eq!(
            scene.ask("PUT", "/alert-destinations/pager", moved).await.code(),
            "invalid"
        );
        let same = json!({"place": {"kind": "pagerduty"}, "is_default": true});
        assert_eq!(
            scene.ask("PUT", "/alert-destinations/pager", same).await.status,
            200
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alert_of_an_event_can_be_resolved_and_that_of_a_condition_cannot() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.device(Platform::Linux).await;
        scene.device(Platform::Linux).await;
        scene.devices_rule(json!({})).await;
        scene.halt().await;
        scene.evaluate().await;
        let id = async |rule: &str| {
            let alert = scene.alert_of(rule).await.expect("it fires");
            alert["id"].as_str().expect("an id").to_owned()
        };
        let condition = format!("/alerts/{}/resolve", id("many").await);
        assert_eq!(
            scene.ask("POST", &condition, json!({})).await.code(),
            "illegal_state"
        );
        let event = format!("/alerts/{}/resolve", id("delivery_halted").await);
        assert_eq!(
            scene.ask("POST", &event, json!({"note": "known"})).await.status,
            200
        );
        scene.evaluate().await;
        assert_eq!(
            scene.alert_of("delivery_halted").await.expect("it is kept")["state"],
            "resolved"
        );
        assert_eq!(scene.entries("alert.resolved").await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_is_due_at_its_interval() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let body = json!({
            "place": {"kind": "webhook", "url": "https://dead.example/"}, "heartbeat_seconds": 60,
            "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        });
        assert_eq!(scene.ask("PUT", "/alert-destinations/dead", body).await.status, 200);
        for (seconds, sent) in [(0, 1), (59, 1), (1, 2), (120, 3)] {
            scene.pass_seconds(seconds);
            scene.evaluate().await;
            assert_eq!(scene.outbox().await, vec![told("dead", "heartbeat"); sent]);
        }
        let slack = json!({
            "place": {"kind": "slack"}, "secret": "https://hooks.slack.com/services/T/B/x", "heartbeat_seconds": 60,
        });
        assert_eq!(scene.ask("PUT", "/alert-destinations/slack", slack).await.code(), "invalid");
    })
    .await;
}
