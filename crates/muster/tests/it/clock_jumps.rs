//! L10: the clock of a running server jumps an hour, there and back. The log stays in its order, and says where time went back.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::{
    agent::faketime,
    log_tamper::all_placed,
    support::{
        PATIENCE,
        database::each_database,
        device::{Device, Obedient},
        eventually,
        machine::order,
        server::{Options, Server, assert_healthy},
    },
};

const HOUR: i64 = 3600;
/// Nodes may differ by so much without a flag.
const TOLERATED_SECONDS: i64 = 5;

/// The clock of a server, which the test sets while it runs.
struct ShiftedClock(PathBuf);

impl ShiftedClock {
    fn set(&self, seconds: i64) {
        let next = self.0.with_extension("next");
        std::fs::write(&next, format!("{seconds:+}\n")).expect("it can be written");
        std::fs::rename(next, &self.0).expect("it can be renamed");
    }
}

/// Options of a server whose clock is wrong by what the file says.
fn shifted(options: Options, folder: &tempfile::TempDir) -> Option<(Options, ShiftedClock)> {
    let library = faketime()?;
    let clock = ShiftedClock(folder.path().join("clock"));
    clock.set(0);
    let options = options
        .with_variable("LD_PRELOAD", library.display())
        .with_variable("FAKETIME_TIMESTAMP_FILE", clock.0.display())
        .with_variable("FAKETIME_NO_CACHE", 1)
        .with_variable("FAKETIME_DONT_FAKE_MONOTONIC", 1);
    Some((options, clock))
}

fn seconds_of(entry: &Value) -> i64 {
    let at = entry["at"].as_str().expect("a time is text");
    at.parse::<muster_model::Timestamp>()
        .expect("it is a time")
        .as_unix_seconds()
}

#[tokio::test(flavor = "multi_thread")]
async fn l10_a_clock_that_jumps_an_hour_leaves_the_log_in_its_order_and_is_flagged() {
    each_database(async |options| {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let Some((options, clock)) = shifted(options, &folder) else {
            return;
        };
        let server = Server::start(options).await;
        let mut device = Obedient::enroll(&server.api().await, &server.admin).await;
        let store = server.store().await;
        let mut made = Vec::new();
        for (step, offset) in [0, HOUR, -HOUR, 0].into_iter().enumerate() {
            clock.set(offset);
            // Tokens that another time issued may not count in this one.
            let api = server.api().await;
            for number in 0..4 {
                let name = format!("p-{step}-{number}");
                api.post("/policies", &json!({"name": name})).await.expect(201);
                made.push(name);
                // Each has its place before the next is made, so that the order is known.
                all_placed(&store).await;
            }
            let message = json!({"type": "message", "text": format!("step {step}")});
            order(&api, &device.device.id(), &message).await;
            let before = device.executed.len();
            eventually("the device obeys at any hour", PATIENCE, async || {
                device.obey().await;
                (device.executed.len() > before).then_some(())
            })
            .await;
        }
        assert!(device.refused.is_empty(), "{:?}", device.refused);
        all_placed(&store).await;
        let entries = server
            .api()
            .await
            .list("/log/entries?order=oldest&limit=500")
            .await;
        let places: Vec<u64> = entries
            .iter()
            .map(|entry| entry["index"].as_u64().expect("a number"))
            .collect();
        assert_eq!(places, (0..entries.len() as u64).collect::<Vec<_>>());
        let names: Vec<&str> = entries
            .iter()
            .filter(|entry| entry["action"] == "policy.created")
            .map(|entry| entry["detail"]["name"].as_str().expect("a name is text"))
            .collect();
        assert_eq!(
            names, made,
            "the order is that of the commits, whatever the clock said"
        );
        let mut went_back = Vec::new();
        for pair in entries.windows(2) {
            let behind = seconds_of(&pair[0]) - seconds_of(&pair[1]);
            let flag = pair[1]["clock_back_seconds"].as_i64();
            if behind > TOLERATED_SECONDS + 1 {
                went_back.push(behind);
                let flag = flag.unwrap_or_else(|| panic!("not flagged: {}", pair[1]));
                assert!((flag - behind).abs() <= 1, "{flag} for {behind}");
            } else if behind < TOLERATED_SECONDS {
                assert_eq!(flag, None, "{}", pair[1]);
            }
        }
        assert_eq!(
            went_back.len(),
            1,
            "forward is no sign of anything: {went_back:?}"
        );
        assert!((went_back[0] - 2 * HOUR).abs() < 300, "{went_back:?}");
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l10_what_a_server_of_a_later_hour_held_is_taken_over_at_once() {
    each_database(async |options| {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let Some((options, clock)) = shifted(options, &folder) else {
            return;
        };
        let mut server = Server::start(options).await;
        clock.set(HOUR);
        let api = server.api().await;
        api.post("/policies", &json!({"name": "later"})).await.expect(201);
        let store = server.store().await;
        all_placed(&store).await;
        server.kill().await;
        clock.set(0);
        server.restart().await;
        let api = server.api().await;
        api.post("/policies", &json!({"name": "now"})).await.expect(201);
        // Without this the leases of the dead process last until the hour that its clock showed.
        all_placed(&store).await;
        let device = Device::enroll(&api, &server.admin).await;
        order(&api, &device.id(), &json!({"type": "lock"})).await;
        eventually("a command is delivered", PATIENCE, async || {
            (!device.checkin().await.commands.is_empty()).then_some(())
        })
        .await;
        assert_healthy(&server).await;
    })
    .await;
}
