//! Whose turn it is, and what of an address is shown.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use muster_storage::testing::on_both;
use serde_json::json;
use tokio::{sync::Notify, time::timeout};

use super::super::{
    SINKS_LEASE, Sender,
    carrier::{Batch, Carrier, NotSent, Probe, SinkAddress, TestEvent, Verdict},
};
use crate::{MIGRATIONS, policy::testing::Scene, sending};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The world outside: what is called dead never answers, the others take everything.
#[derive(Debug, Default)]
struct Outside {
    asked: Mutex<Vec<String>>,
    arrived: Notify,
}

#[derive(Debug)]
struct Way(Arc<Outside>);

impl Carrier for Way {
    fn send<'a>(
        &'a self,
        to: SinkAddress<'a>,
        batch: &'a Batch,
    ) -> BoxFuture<'a, Result<Vec<Verdict>, NotSent>> {
        self.0
            .asked
            .lock()
            .expect("nobody panics with it")
            .push(to.name.to_owned());
        let is_dead = to.name.starts_with("dead");
        Box::pin(async move {
            if is_dead {
                std::future::pending::<()>().await;
            }
            self.0.arrived.notify_one();
            Ok(batch.items.iter().map(|_| Verdict::Taken).collect())
        })
    }

    fn probe<'a>(&'a self, _: SinkAddress<'a>, _: &'a TestEvent) -> BoxFuture<'a, Probe> {
        Box::pin(async { Probe::begin() })
    }
}

fn webhook(url: &str) -> serde_json::Value {
    json!({"place": {"kind": "webhook", "url": url}, "secret": SECRET, "from": "beginning", "streams": ["log"]})
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_dead_sinks_of_one_tenant_hold_up_nobody_else() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let other = scene.beside().await;
        let outside = Arc::new(Outside::default());
        assert!(scene.app.carrier.set(Box::new(Way(Arc::clone(&outside)))).is_ok());
        for number in 0..16 {
            let path = format!("/sinks/dead-{number:02}");
            let made = scene
                .call_json("PUT", &path, webhook("https://dead.example/hook"))
                .await;
            assert_eq!(made.status, 200, "{made:?}");
        }
        scene.place_entries().await;
        let now = scene.app.clock.now().as_micros();
        let lease = scene
            .app
            .db
            .acquire_lease(SINKS_LEASE, &scene.app.node, Duration::from_secs(60), now)
            .await
            .expect("the database answers")
            .expect("nobody else sends");
        let mut sender = Sender::default();
        let mut pass = async || sender.pass(&scene.app, &lease).await.expect("it goes on");
        pass().await;
        let made = other
            .call_json("PUT", "/sinks/live", webhook("https://live.example/hook"))
            .await;
        assert_eq!(made.status, 200, "{made:?}");
        scene.place_entries().await;
        pass().await;
        timeout(Duration::from_secs(30), outside.arrived.notified())
            .await
            .expect("the other tenant's events arrive");
        let asked = outside.asked.lock().expect("nobody panics with it").clone();
        let dead = asked.iter().filter(|name| name.starts_with("dead")).count();
        assert!(dead <= 8, "no more than its share: {asked:?}");
        sender.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_this_program_cannot_read_holds_up_no_other_and_ends_no_batch() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let outside = Arc::new(Outside::default());
        assert!(scene.app.carrier.set(Box::new(Way(Arc::clone(&outside)))).is_ok());
        for name in ["live", "newer"] {
            let path = format!("/sinks/{name}");
            let made = scene.call_json("PUT", &path, webhook("https://live.example/hook")).await;
            assert_eq!(made.status, 200, "{made:?}");
        }
        scene
            .sql("UPDATE sinks_sink SET definition = '{\"place\":{\"kind\":\"pigeon\"}}' WHERE tenant_id = $1 AND name = 'newer'")
            .await;
        scene.place_entries().await;
        let mut sinks = sending::Sinks::default();
        sinks.step(&scene.app).await.expect("it goes on");
        let before = sinks.token();
        timeout(Duration::from_secs(30), outside.arrived.notified())
            .await
            .expect("the other sink's events arrive");
        for _ in 0..3 {
            // Longer than a lease is left alone, and than lags are.
            scene.pass_seconds(3);
            sinks.step(&scene.app).await.expect("it goes on");
        }
        assert_eq!(sinks.token(), before, "what is under way stays good");
        let listed = scene.call("GET", "/sinks", None).await.json();
        assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "{listed}");
        sinks.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_query_of_an_address_is_neither_shown_nor_logged_and_stays() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let url = "https://hooks.example.com/x?key=k3y-of-the-hook";
        let made = scene.call_json("PUT", "/sinks/hook", webhook(url)).await;
        assert_eq!(made.status, 200, "{made:?}");
        let shown = scene.sink("hook").await;
        assert_eq!(shown["place"]["url"], "https://hooks.example.com/x?REDACTED");
        // What was shown is sent back, with another format.
        let mut change = webhook("https://hooks.example.com/x?REDACTED");
        change["format"] = json!("json");
        change.as_object_mut().expect("an object").remove("secret");
        let changed = scene.call_json("PUT", "/sinks/hook", change).await;
        assert_eq!(changed.status, 200, "{changed:?}");
        let listed = scene.call("GET", "/sinks", None).await;
        for answer in [&made, &changed, &listed] {
            assert!(
                !String::from_utf8_lossy(&answer.body).contains("k3y"),
                "{answer:?}"
            );
        }
        let kept: String = scene
            .value("SELECT definition FROM sinks_sink WHERE tenant_id = $1")
            .await;
        assert!(kept.contains("k3y-of-the-hook"), "{kept}");
        for entry in [
            "SELECT body FROM audit_entry WHERE tenant_id = $1 AND action = 'sink.created'",
            "SELECT body FROM audit_entry WHERE tenant_id = $1 AND action = 'sink.changed'",
        ] {
            let body: Vec<u8> = scene.value(entry).await;
            let text = String::from_utf8_lossy(&body);
            assert!(text.contains("REDACTED") && !text.contains("k3y"), "{text}");
        }
    })
    .await;
}
