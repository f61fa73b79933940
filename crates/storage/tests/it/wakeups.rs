//! Wake-ups within a process and between nodes.

use std::time::Duration;

use muster_storage::{
    Engine, WAKEUP_PAYLOAD_BYTES_MAX, Wakeup,
    testing::{on_both, open},
};
use tokio::{sync::broadcast::Receiver, time::timeout};

use crate::SCHEMA;

const PATIENCE: Duration = Duration::from_secs(20);

fn wakeup(topic: &str, payload: &str) -> Wakeup {
    Wakeup {
        topic: topic.to_owned(),
        payload: payload.to_owned(),
    }
}

async fn next(receiver: &mut Receiver<Wakeup>) -> Wakeup {
    timeout(PATIENCE, receiver.recv())
        .await
        .expect("a wake-up comes")
        .expect("the sender lives")
}

/// Says "hello" until it is heard: a node listens only once its connection is up.
async fn greet(from: &muster_storage::Database, to: &mut Receiver<Wakeup>) {
    let heard = async {
        loop {
            from.notify("hello", "");
            if let Ok(Ok(_)) = timeout(Duration::from_millis(50), to.recv()).await {
                return;
            }
        }
    };
    timeout(PATIENCE, heard).await.expect("the nodes hear each other");
}

#[tokio::test]
async fn a_process_hears_its_own_wakeups_once() {
    on_both(SCHEMA, async |db| {
        let mut receiver = db.subscribe();
        db.notify("device", "1");
        db.notify("device", &"x".repeat(WAKEUP_PAYLOAD_BYTES_MAX + 1));
        db.notify("", "a topic is needed");
        db.notify("last", "");
        for expected in [wakeup("device", "1"), wakeup("device", ""), wakeup("last", "")] {
            assert_eq!(next(&mut receiver).await, expected);
        }
        assert!(
            timeout(Duration::from_millis(200), receiver.recv())
                .await
                .is_err(),
            "no echo"
        );
    })
    .await;
}

#[tokio::test]
async fn another_node_hears_them_too() {
    on_both(SCHEMA, async |db| {
        // SQLite belongs to one process: there, another handle is a clone.
        let other = match db.engine() {
            Engine::Sqlite => db.db().clone(),
            Engine::Postgres => open(db.url(), SCHEMA).await.expect("a second node opens"),
        };
        let (mut here, mut there) = (db.subscribe(), other.subscribe());
        greet(&db, &mut there).await;
        greet(&other, &mut here).await;
        for number in 0..500 {
            db.notify("device", &number.to_string());
        }
        let mut heard = std::collections::HashSet::new();
        while heard.len() < 500 {
            let wakeup = next(&mut there).await;
            if wakeup.topic == "device" {
                heard.insert(wakeup.payload);
            }
        }
        other.close().await;
    })
    .await;
}
