//! What goes out while others do not answer, or cannot be read.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use muster_storage::testing::on_both;
use serde_json::{Value, json};

use super::super::{Address, Courier, NotDelivered, Notice, Outbox, Place};
use crate::{MIGRATIONS, policy::testing::Scene, reconcile, secrets, sending};

/// The world outside: hosts that are called dead never answer, the others take everything.
#[derive(Debug, Default)]
struct Outside {
    asked: Mutex<Vec<String>>,
}

#[derive(Debug)]
struct Way(Arc<Outside>);

impl Courier for Way {
    fn deliver<'a>(
        &'a self,
        to: Address<'a>,
        _: &'a Notice,
    ) -> BoxFuture<'a, Result<Option<u16>, NotDelivered>> {
        let Place::Webhook { url, .. } = to.place else {
            unreachable!("there are webhooks alone");
        };
        let is_dead = url.contains("dead");
        self.0
            .asked
            .lock()
            .expect("nobody panics with it")
            .push(url.clone());
        Box::pin(async move {
            if is_dead {
                std::future::pending::<()>().await;
            }
            Ok(Some(200))
        })
    }
}

impl Outside {
    fn asked(&self, part: &str) -> usize {
        let asked = self.asked.lock().expect("nobody panics with it");
        asked.iter().filter(|url| url.contains(part)).count()
    }
}

impl Scene {
    async fn outside(&self) -> Arc<Outside> {
        let outside = Arc::new(Outside::default());
        assert!(self.app.courier.set(Box::new(Way(Arc::clone(&outside)))).is_ok());
        outside
    }

    async fn tested(&self, name: &str) {
        let path = format!("/alert-destinations/{name}/test");
        let answer = self.ask("POST", &path, Value::Null).await;
        assert!(answer.status < 300, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_silent_destinations_of_one_tenant_hold_up_nobody_s_pages() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let other = scene.beside().await;
        let outside = scene.outside().await;
        for number in 0..48 {
            let name = format!("dead-{number:02}");
            scene.hook(&name, false).await;
            scene.tested(&name).await;
        }
        other.hook("live", false).await;
        let mut outbox = Outbox::default();
        outbox.pass(&scene.app).await.expect("it goes on");
        scene.pass_seconds(1);
        other.tested("live").await;
        outbox.pass(&scene.app).await.expect("it goes on");
        for _ in 0..200 {
            if outside.asked("live") > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(outside.asked("live") > 0, "the other tenant's page leaves");
        assert!(outside.asked("dead") <= 4, "no more than its share");
        outbox.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_this_program_cannot_read_hold_up_no_alert_and_no_message() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let other = scene.beside().await;
        let outside = scene.outside().await;
        secrets::take_up(&scene.app).await.expect("the first keys are taken up");
        scene.hook("first", true).await;
        scene.hook("newer", false).await;
        other.hook("beside", false).await;
        let sink = json!({"place": {"kind": "webhook", "url": "https://live.example/hook"}, "streams": ["log"],
            "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"});
        assert_eq!(scene.ask("PUT", "/sinks/newer", sink).await.status, 200);
        let silence = json!({"matcher": {"rule": "many"}, "reason": "moving house", "ends_at": "2027-02-01T00:00:00Z"});
        let silenced = scene.ask("POST", "/alert-silences", silence).await;
        assert!(silenced.status < 300, "{silenced:?}");
        scene.sql("UPDATE alerts_destination SET place = '{\"kind\":\"pigeon\"}' WHERE tenant_id = $1 AND name = 'newer'").await;
        scene.sql("UPDATE alerts_silence SET matcher = '{\"planet\":\"mars\"}' WHERE tenant_id = $1").await;
        scene.sql("UPDATE sinks_sink SET definition = '{\"place\":{\"kind\":\"pigeon\"}}' WHERE tenant_id = $1").await;
        scene.devices_rule(json!({"when": {"expression": "devices >= 0"}})).await;
        let mut alerts = sending::Alerts::default();
        for _ in 0..100 {
            reconcile::sequence_now(&scene.app).await.expect("entries get their place");
            alerts.step(&scene.app).await.expect("rules are evaluated");
            if outside.asked("first") > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(outside.asked("first") > 0, "an alert is told");
        let shown = scene.items("/alert-destinations").await;
        let names: Vec<&Value> = shown.iter().map(|destination| &destination["name"]).collect();
        assert_eq!(names, ["first"]);
        // The same where a tenant's alerts cannot be evaluated at all: messages go out, of everyone.
        scene.sql("UPDATE secrets_record SET rotated_by = 'pigeon' WHERE tenant_id = $1").await;
        other.tested("beside").await;
        let mut alerts = sending::Alerts::default();
        assert!(alerts.step(&scene.app).await.is_err(), "it is said");
        for _ in 0..100 {
            let _ = alerts.step(&scene.app).await;
            if outside.asked("beside") > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(outside.asked("beside") > 0, "the message leaves");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_of_rows_that_this_program_cannot_read_are_sealed_anew() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        secrets::take_up(&scene.app).await.expect("the first keys are taken up");
        scene.hook("newer", false).await;
        let sink = json!({"place": {"kind": "webhook", "url": "https://live.example/hook"}, "streams": ["log"],
            "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"});
        assert_eq!(scene.ask("PUT", "/sinks/newer", sink).await.status, 200);
        scene.sql("UPDATE alerts_destination SET place = '{\"kind\":\"pigeon\"}' WHERE tenant_id = $1").await;
        scene.sql("UPDATE sinks_sink SET definition = '{}' WHERE tenant_id = $1").await;
        let sealed = async || -> HashMap<&str, Vec<u8>> {
            [
                ("destination", scene.value("SELECT secret FROM alerts_destination WHERE tenant_id = $1").await),
                ("sink", scene.value("SELECT secret FROM sinks_sink WHERE tenant_id = $1").await),
            ]
            .into()
        };
        let before = sealed().await;
        scene.pass_seconds(31 * 86_400);
        scene.rotate().await;
        scene.pass_seconds(20);
        scene.rotate().await;
        assert!(crate::sinks::reseal(&scene.app).await.expect("it goes on"));
        let (after, now) = (sealed().await, scene.app.clock.now());
        for what in ["destination", "sink"] {
            assert!(scene.app.keys.sealing.is_old(&before[what], now), "{what}");
            assert!(!scene.app.keys.sealing.is_old(&after[what], now), "{what}");
        }
    })
    .await;
}
