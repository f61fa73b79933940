//! D9: a storm of messages of one tenant's devices leaves those of the others alone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use muster_channel_agent::path;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{
    PATIENCE,
    database::each_database,
    device::{Applicant, Device, Door, token_for},
    eventually,
    server::{Options, assert_healthy},
    two::Two,
};

/// Connections that send as fast as they can.
const STORMING: usize = 24;
/// Check-ins of the other tenant's device that are measured.
const MEASURED: usize = 120;
const PAUSE: Duration = Duration::from_millis(15);

/// What a storm was answered.
#[derive(Default)]
struct Storm {
    answered: AtomicUsize,
    refused: AtomicUsize,
    /// Refusals that did not say when to come again.
    silent: AtomicUsize,
    ends: AtomicBool,
}

/// What devices do that are refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// They come again at once: somebody's program, not ours.
    ComesAtOnce,
    /// They wait as the protocol says.
    Waits,
}

/// Devices of a tenant that send messages which cost something, until they are stopped.
fn storm(device: &Device, refused: Refused) -> (Arc<Storm>, JoinSet<()>) {
    let (storm, mut senders) = (Arc::<Storm>::default(), JoinSet::new());
    for sender in 0..STORMING {
        let (storm, door) = (Arc::clone(&storm), device.door.clone());
        // It stands at another digest than it should: the server has work with each of them.
        let mut body = device.checkin_body();
        body["state_digest"] = json!(format!("{sender:064x}"));
        senders.spawn(async move {
            while !storm.ends.load(Ordering::Relaxed) {
                let answer = door.post(path::CHECKIN, &body).await;
                match answer.status {
                    200 => storm.answered.fetch_add(1, Ordering::Relaxed),
                    429 => {
                        let waits = answer.header("retry-after").parse::<u64>();
                        if !waits.as_ref().is_ok_and(|seconds| (1..=5).contains(seconds)) {
                            storm.silent.fetch_add(1, Ordering::Relaxed);
                        }
                        if refused == Refused::Waits {
                            tokio::time::sleep(Duration::from_secs(waits.unwrap_or(1))).await;
                        }
                        storm.refused.fetch_add(1, Ordering::Relaxed)
                    }
                    other => panic!("a check-in was answered {other}: {}", answer.text()),
                };
            }
        });
    }
    (storm, senders)
}

/// Latencies of check-ins one after the other, the shortest first.
async fn latencies(device: &Device) -> Vec<Duration> {
    let mut measured = Vec::with_capacity(MEASURED);
    for _ in 0..MEASURED {
        let begun = Instant::now();
        device.checkin().await;
        measured.push(begun.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    measured.sort();
    measured
}

fn told(what: &str, measured: &[Duration]) -> String {
    let at = |percent: usize| measured[(measured.len() * percent / 100).min(measured.len() - 1)];
    format!(
        "{what}: p50 {:.1} ms, p99 {:.1} ms",
        at(50).as_secs_f64() * 1000.0,
        at(99).as_secs_f64() * 1000.0
    )
}

/// What the quiet tenant's device sees alone, and beside a storm; how much of the storm was answered and refused.
async fn measure(options: Options, per_second: u32, manner: Refused) -> (String, usize, usize, f64) {
    let two = Two::start(
        options
            .with("--device-messages-per-second", per_second)
            .with("--metrics-tenants", 8),
    )
    .await;
    let loud = Device::enroll(&two.a, &two.server.admin).await;
    let quiet = Device::enroll(&two.b, &two.b_admin).await;
    let alone = latencies(&quiet).await;
    let (storm, senders) = storm(&loud, manner);
    let begun = Instant::now();
    let beside = latencies(&quiet).await;
    storm.ends.store(true, Ordering::Relaxed);
    let seconds = begun.elapsed().as_secs_f64();
    senders.join_all().await;
    assert_eq!(
        storm.silent.load(Ordering::Relaxed),
        0,
        "each refusal says when to come again"
    );
    let (answered, refused) = (
        storm.answered.load(Ordering::Relaxed),
        storm.refused.load(Ordering::Relaxed),
    );
    if refused > 0 {
        let metrics = reqwest::get(format!("{}/metrics", two.server.admin.ops_url)).await;
        let metrics = metrics.expect("metrics are served").text().await.expect("text");
        let wanted = format!(
            "mdm_device_budget_refusals_total{{tenant=\"{}\",message=\"checkin\"}}",
            two.server.admin.tenant
        );
        assert!(metrics.contains(&wanted), "{wanted} is not in {metrics}");
        assert!(
            !metrics.contains(&format!(
                "mdm_device_budget_refusals_total{{tenant=\"{}\"",
                two.b_admin.tenant
            )),
            "nothing of the quiet tenant was refused"
        );
    }
    assert_healthy(&two.server).await;
    let line = format!("{}; {}", told("alone", &alone), told("beside the storm", &beside));
    (line, answered, refused, seconds)
}

#[tokio::test(flavor = "multi_thread")]
async fn d9_a_tenants_storm_of_checkins_is_refused_and_the_others_devices_are_served() {
    const PER_SECOND: u32 = 40;
    each_database(async |options| {
        let (line, answered, refused, seconds) = measure(options, 1_000_000, Refused::Waits).await;
        let a_second = answered as f64 / seconds;
        println!("fairness, without a limit: {line}; the storm had {a_second:.0} answers in a second, {refused} refusals");
        assert_eq!(refused, 0);
    })
    .await;
    each_database(async |options| {
        let (line, answered, refused, seconds) = measure(options, PER_SECOND, Refused::ComesAtOnce).await;
        let a_second = answered as f64 / seconds;
        println!("fairness, {PER_SECOND} in a second, refused ones come at once: {line}; the storm had {a_second:.0} answers in a second, {refused} refusals");
        // What five seconds hold at once, and what each second fills; a fifth is kept for receipts.
        let most = f64::from(PER_SECOND) * (5.0 + seconds + 1.0);
        assert!((answered as f64) <= most, "{answered} of at most {most}");
        assert!(refused > answered, "the storm is refused: {refused}");
    })
    .await;
    each_database(async |options| {
        let (line, answered, refused, seconds) = measure(options, PER_SECOND, Refused::Waits).await;
        let a_second = answered as f64 / seconds;
        println!("fairness, {PER_SECOND} in a second, refused ones wait: {line}; the storm had {a_second:.0} answers in a second, {refused} refusals");
        assert!(refused > 0, "the storm is refused");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d9_receipts_of_commands_are_taken_in_the_middle_of_a_storm() {
    each_database(async |options| {
        let options = options
            .with("--device-messages-per-second", 40)
            .with("--metrics-tenants", 8);
        let two = Two::start(options).await;
        let loud = Device::enroll(&two.a, &two.server.admin).await;
        let honest = Device::enroll(&two.a, &two.server.admin).await;
        let asked = json!({"type": "lock"});
        let asked = two
            .a
            .post(&format!("/devices/{}/commands", honest.id()), &asked)
            .await;
        let command = asked.expect(202)["command_id"]
            .as_str()
            .expect("an id")
            .to_owned();
        eventually("the command is delivered", PATIENCE, async || {
            (!honest.checkin().await.commands.is_empty()).then_some(())
        })
        .await;
        let (storm, senders) = storm(&loud, Refused::ComesAtOnce);
        eventually("the storm is refused", PATIENCE, async || {
            (storm.refused.load(Ordering::Relaxed) > 200).then_some(())
        })
        .await;
        let receipts = json!([honest.receipt(&command, "done")]);
        let taken = honest.try_checkin_with("receipts", receipts).await;
        let taken = taken.expect(200);
        assert_eq!(taken["receipts_accepted"], json!([command]));
        let state = two.a.get(&format!("/commands/{command}")).await.ok();
        assert_eq!(state["state"], "done");
        // What can wait is told to, a device of its own included; so is whoever would enroll there.
        let inventory = honest
            .door
            .http
            .put(format!("{}{}", honest.door.url, path::INVENTORY));
        let refused = crate::support::api::answer(inventory.json(&json!({"epoch": 1, "facts": {}}))).await;
        refused.refused(429, "rate_limited");
        let applicant = Applicant::new();
        let token = token_for(&two.a, applicant.device_uuid).await;
        let door = Door::of(&two.server.admin);
        applicant.begin(&door, &token).await.refused(429, "rate_limited");
        let refusals = two.a.list("/log/entries?action=enrollment.refused").await;
        assert_eq!(refusals.len(), 0, "a storm does not fill the log");
        // The other tenant enrolls and is served meanwhile.
        Device::enroll(&two.b, &two.b_admin).await.checkin().await;
        storm.ends.store(true, Ordering::Relaxed);
        senders.join_all().await;
        eventually("afterwards it enrolls", PATIENCE, async || {
            (applicant.try_enroll(&door, &token).await.status == 201).then_some(())
        })
        .await;
        assert_healthy(&two.server).await;
    })
    .await;
}
