//! Sinks over their routes, on both engines of the database, with a clock that stands still. What leaves is tested end to end,
//! against a server that is not ours.

use std::collections::BTreeSet;

use muster_model::telemetry::EventKind;
use muster_storage::testing::on_both;
use serde_json::{Value, json};

use super::{StreamKind, store};
use crate::{
    MIGRATIONS, audit,
    policy::testing::{Answer, Scene},
    reconcile, telemetry,
    telemetry::tests::{batch, device, event, send, writers},
};

mod turns;

impl Scene {
    async fn call_json(&self, method: &str, path: &str, body: Value) -> Answer {
        let text = body.to_string();
        self.call(method, path, (body != Value::Null).then_some(text.as_str()))
            .await
    }

    async fn place_entries(&self) {
        reconcile::sequence_now(&self.app)
            .await
            .expect("entries get their place");
    }

    async fn sink(&self, name: &str) -> Value {
        let answer = self.call("GET", &format!("/sinks/{name}"), None).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }
}

fn elastic(members: Value) -> Value {
    let mut body = json!({
        "place": {"kind": "elastic", "url": "https://es.example.com:9200"},
        "secret": "VnVhQ2ZHY0JDZGJrU",
    });
    for (name, value) in members.as_object().expect("members") {
        body[name] = value.clone();
    }
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_begins_now_or_where_it_is_told_and_shows_no_secret() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.place_entries().await;
        let made = scene.call_json("PUT", "/sinks/siem", elastic(json!({}))).await;
        assert_eq!(made.status, 200, "{made:?}");
        let sink = made.json();
        assert_eq!(
            (&sink["has_secret"], &sink["paused"]),
            (&json!(true), &json!(false))
        );
        assert!(!String::from_utf8_lossy(&made.body).contains("VnVhQ2ZHY0JDZGJrU"));
        let end = sink["progress"][0]["end"].as_u64().expect("a place");
        assert!(end > 0 && sink["progress"][0]["place"] == end && sink["progress"][1]["stream"] == "events");
        scene
            .call_json(
                "PUT",
                "/sinks/all",
                elastic(json!({"from": "beginning", "streams": ["log"]})),
            )
            .await;
        let all = scene.sink("all").await;
        assert_eq!(all["progress"][0]["place"], 0);
        assert!(all["progress"][0]["lag_events"].as_u64() >= Some(end) && all["progress"][1].is_null());
        let too_far = json!({"from": {"place": 1_000_000}, "stream": "log"});
        assert_eq!(
            scene.call_json("POST", "/sinks/all/replay", too_far).await.status,
            400
        );
        let back = json!({"from": {"time": "2027-01-15T08:00:00Z"}});
        assert_eq!(
            scene.call_json("POST", "/sinks/all/replay", back).await.status,
            200
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_does_not_follow_a_sink_to_another_place() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.call_json("PUT", "/sinks/siem", elastic(json!({}))).await;
        let mut same = elastic(json!({"streams": ["log"]}));
        same.as_object_mut().expect("an object").remove("secret");
        let kept = scene.call_json("PUT", "/sinks/siem", same.clone()).await;
        assert_eq!(kept.json()["has_secret"], true, "{kept:?}");
        same["place"]["url"] = "https://thief.example.com".into();
        assert_eq!(scene.call_json("PUT", "/sinks/siem", same).await.status, 400);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pausing_replaying_and_removing_are_entries_of_the_log() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.call_json("PUT", "/sinks/siem", elastic(json!({}))).await;
        let reason = json!({"reason": "maintenance of the cluster"});
        assert_eq!(
            scene
                .call_json("POST", "/sinks/siem/pause", reason.clone())
                .await
                .status,
            200
        );
        assert_eq!(
            scene.call_json("POST", "/sinks/siem/pause", reason).await.status,
            409
        );
        assert_eq!(scene.sink("siem").await["paused"], true);
        assert_eq!(
            scene
                .call_json("POST", "/sinks/siem/resume", Value::Null)
                .await
                .status,
            200
        );
        let replay = json!({"from": "beginning", "stream": "log"});
        assert_eq!(
            scene.call_json("POST", "/sinks/siem/replay", replay).await.status,
            200
        );
        assert_eq!(scene.sink("siem").await["progress"][0]["place"], 0);
        assert_eq!(scene.call("DELETE", "/sinks/siem", None).await.status, 204);
        assert_eq!(scene.call("GET", "/sinks/siem", None).await.status, 404);
        scene.place_entries().await;
        let tenant = scene.tenant;
        let entries = scene
            .app
            .db
            .read(scene.storage(), move |tx| {
                audit::newest_entries(tx, tenant, i64::MAX, 10)
            })
            .await
            .expect("the log can be read");
        // The clock stands still, so that their order is nobody's.
        let actions: BTreeSet<String> = entries
            .iter()
            .filter_map(|row| Some(row.entry().ok()?.action))
            .filter(|action| action.starts_with("sink."))
            .collect();
        let expected = ["created", "paused", "removed", "replayed", "resumed"];
        let expected: BTreeSet<String> = expected.map(|verb| format!("sink.{verb}")).into();
        assert_eq!(actions, expected);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_one_tenant_sees_no_sink_of_another() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.call_json("PUT", "/sinks/siem", elastic(json!({}))).await;
        let other = scene.beside().await;
        assert_eq!(other.call("GET", "/sinks/siem", None).await.status, 404);
        assert_eq!(other.call("GET", "/sinks", None).await.json()["items"], json!([]));
        assert_eq!(other.call("DELETE", "/sinks/siem", None).await.status, 404);
        let replay = json!({"from": "beginning"});
        assert_eq!(
            other.call_json("POST", "/sinks/siem/replay", replay).await.status,
            404
        );
        assert_eq!(scene.sink("siem").await["name"], "siem");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_devices_have_an_order_without_gaps_and_are_found_by_time() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let _writers = writers(&scene);
        let names = EventKind::ALL.iter().map(|kind| kind.as_str());
        let names: Vec<&str> = names.collect();
        for number in 1..=6_u64 {
            let now = scene.app.clock.now();
            let mut batch = batch(number, now, Vec::new());
            for (place, name) in names.iter().take(5).enumerate() {
                batch.events.push(event(number * 100 + place as u64, name, now));
            }
            let of = (scene.tenant, device(u128::from(number % 3)));
            send(&scene, of, None, batch.clone()).await.expect("it is taken");
            // A second time changes nothing.
            send(&scene, of, None, batch).await.expect("it is answered");
            scene.pass_seconds(60);
        }
        let tenant = scene.tenant;
        let last_minutes = scene.app.clock.now().minus(std::time::Duration::from_secs(125));
        let (events, end, late) = scene
            .app
            .db
            .read(scene.storage(), move |tx| {
                Ok::<_, crate::access::problem::Problem>((
                    telemetry::events_from(tx, tenant, 0, 100)?,
                    telemetry::event_end(tx, tenant)?,
                    telemetry::event_place_at(tx, tenant, last_minutes)?,
                ))
            })
            .await
            .expect("events can be read");
        let places: Vec<u64> = events.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, (0..30).collect::<Vec<u64>>());
        assert_eq!((end, late), (30, 20));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_aside_is_paged_sent_again_and_given_up() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        scene.call_json("PUT", "/sinks/siem", elastic(json!({}))).await;
        let tenant = scene.tenant;
        let now = scene.app.clock.now();
        audit::housekeeping(&scene.app, scene.storage(), move |tx| {
            for stream in StreamKind::ALL {
                for place in 0..3 {
                    let letter = super::Letter {
                        stream,
                        place,
                        event_id: format!("e{place}"),
                        event_name: "crash".to_owned(),
                        is_again: false,
                        error: "400 document_parsing_exception".to_owned(),
                        died_at: now,
                    };
                    store::put_letter(tx, tenant, "siem", &letter)?;
                }
            }
            Ok(())
        })
        .await
        .expect("they are written");
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/sinks/siem/dead-letters?limit=2{cursor}");
            let page = scene.call("GET", &path, None).await.json();
            let items = page["items"].as_array().expect("a list").clone();
            seen.extend(
                items
                    .iter()
                    .map(|item| format!("{} {}", item["stream"], item["place"])),
            );
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen.len(), 6, "{seen:?}");
        let one = json!({"only": {"stream": "events", "place": 1}});
        let again = scene
            .call_json("POST", "/sinks/siem/dead-letters/replay", one.clone())
            .await;
        assert_eq!(again.json()["events"], 1);
        let gone = scene
            .call_json("POST", "/sinks/siem/dead-letters/discard", one)
            .await;
        assert_eq!(gone.json()["events"], 1);
        assert_eq!(scene.sink("siem").await["dead_letters"], 5);
        let all = scene
            .call_json("POST", "/sinks/siem/dead-letters/replay", json!({}))
            .await;
        assert_eq!(all.json()["events"], 5);
        // They go after a while.
        scene.pass_seconds(31 * 86_400);
        super::forget_expired(&scene.app)
            .await
            .expect("they are forgotten");
        assert_eq!(scene.sink("siem").await["dead_letters"], 0);
    })
    .await;
}
