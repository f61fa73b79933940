//! D9: a storm of messages of one tenant's devices leaves those of the others alone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use muster_channel_agent::path;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{
    PATIENCE,
    api::Api,
    database::each_database,
    device::{Applicant, Device, Door, token_for},
    eventually,
    machine::{Machine, ended, order},
    server::{AdminFile, Options, Server, assert_healthy},
    two::Two,
};

/// Devices that send as fast as they can, and the connections of each. One alone has a quarter of its tenant's bucket at most.
const LOUD: usize = 6;
const STORMING: usize = 4;
/// Devices of the other tenant, and their check-ins that are measured.
const QUIET: usize = 6;
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
fn storm(devices: &[Device], refused: Refused) -> (Arc<Storm>, JoinSet<()>) {
    let (storm, mut senders) = (Arc::<Storm>::default(), JoinSet::new());
    for (sender, device) in devices.iter().cycle().take(devices.len() * STORMING).enumerate() {
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

async fn enroll(count: usize, api: &Api, admin: &AdminFile) -> Vec<Device> {
    let mut devices = Vec::with_capacity(count);
    for _ in 0..count {
        devices.push(Device::enroll(api, admin).await);
    }
    devices
}

/// Sends one message over and over until it is stopped, whatever the answers are.
fn flood(
    door: &Door,
    method: Method,
    path: &str,
    body: &Value,
    ends: &Arc<AtomicBool>,
    senders: &mut JoinSet<()>,
) {
    for _ in 0..STORMING {
        let (door, path, body, ends) = (door.clone(), path.to_owned(), body.clone(), Arc::clone(ends));
        let method = method.clone();
        senders.spawn(async move {
            while !ends.load(Ordering::Relaxed) {
                let request = door.http.request(method.clone(), format!("{}{path}", door.url));
                crate::support::api::answer(request.json(&body)).await;
            }
        });
    }
}

/// Latencies of check-ins one after the other, the shortest first.
async fn latencies(devices: &[Device]) -> Vec<Duration> {
    let mut measured = Vec::with_capacity(MEASURED);
    for device in devices.iter().cycle().take(MEASURED) {
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
    let loud = enroll(LOUD, &two.a, &two.server.admin).await;
    let quiet = enroll(QUIET, &two.b, &two.b_admin).await;
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
        let loud = enroll(LOUD, &two.a, &two.server.admin).await;
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

/// A command that a device has fetched.
async fn fetched(api: &Api, device: &Device) -> String {
    let command = order(api, &device.id(), &json!({"type": "lock"})).await;
    eventually("the command is delivered", PATIENCE, async || {
        (!device.checkin().await.commands.is_empty()).then_some(())
    })
    .await;
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn d9_one_device_live_or_retired_and_one_token_leave_the_rest_of_their_tenant_alone() {
    each_database(async |options| {
        let options = options
            .with("--device-messages-per-second", 100)
            .with("--metrics-tenants", 8);
        let server = Server::start(options).await;
        let api = server.api().await;
        let [loud, retired, honest] = <[Device; 3]>::try_from(enroll(3, &api, &server.admin).await)
            .unwrap_or_else(|_| panic!("three were enrolled"));
        api.post(&format!("/devices/{}/retire", retired.id()), &json!({}))
            .await
            .expect(204);
        let applicant = Applicant::new();
        let token = token_for(&api, applicant.device_uuid).await;
        let (ends, mut senders) = (Arc::<AtomicBool>::default(), JoinSet::new());
        let mut worthless = loud.checkin_body();
        worthless["receipts"] = json!([loud.receipt("01980000-0000-7000-8000-000000000000", "done")]);
        flood(
            &loud.door,
            Method::POST,
            path::CHECKIN,
            &worthless,
            &ends,
            &mut senders,
        );
        let renewal = json!({"csr": ""});
        flood(
            &retired.door,
            Method::POST,
            path::RENEW,
            &renewal,
            &ends,
            &mut senders,
        );
        flood(
            &retired.door,
            Method::POST,
            path::CHECKIN,
            &retired.checkin_body(),
            &ends,
            &mut senders,
        );
        let begin = applicant.begin_body(&token);
        let stranger = Door::of(&server.admin);
        flood(
            &stranger,
            Method::POST,
            "/agent/v1/enroll/begin",
            &begin,
            &ends,
            &mut senders,
        );
        let wanted = format!(
            "mdm_device_budget_refusals_total{{tenant=\"{}\",message=\"device\"}}",
            server.admin.tenant
        );
        let metrics = async || {
            let metrics = reqwest::get(format!("{}/metrics", server.admin.ops_url)).await;
            metrics.expect("metrics are served").text().await.expect("text")
        };
        eventually("they are refused by themselves", PATIENCE, async || {
            metrics().await.contains(&wanted).then_some(())
        })
        .await;
        for _ in 0..3 {
            let command = fetched(&api, &honest).await;
            let taken = honest
                .checkin_with("receipts", json!([honest.receipt(&command, "done")]))
                .await;
            assert_eq!(taken.receipts_accepted.len(), 1);
            honest.send_facts().await;
        }
        Device::enroll(&api, &server.admin).await.checkin().await;
        let refused = metrics().await;
        for message in ["receipts", "checkin", "other"] {
            let of_all = format!("message=\"{message}\"");
            assert!(!refused.contains(&of_all), "the tenant has some left: {refused}");
        }
        ends.store(true, Ordering::Relaxed);
        senders.join_all().await;
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d9_an_output_for_which_the_server_has_no_time_is_kept_and_comes_later() {
    let options = Options::default().with("--metrics-tenants", 8);
    let server = Server::start(options).await;
    let api = server.api().await;
    let mut machine = Machine::running(&api, &server.admin).await;
    // Too long for a receipt: it is sent beside it.
    machine.write("/var/log/syslog", &"a line of the log\n".repeat(10_000));
    // Each has a quarter of the limit at most: so many leave one in six of what can wait to anybody.
    let loud = enroll(24, &api, &server.admin).await;
    let limits = json!({"device_messages_per_second": 20});
    let path = format!("/tenants/{}/limits", server.admin.tenant);
    api.put(&path, &limits).await.ok();
    let (ends, mut senders) = (Arc::<AtomicBool>::default(), JoinSet::new());
    for device in &loud {
        flood(
            &device.door,
            Method::PUT,
            path::INVENTORY,
            &json!({}),
            &ends,
            &mut senders,
        );
    }
    let wanted = format!(
        "mdm_device_budget_refusals_total{{tenant=\"{}\",message=\"other\"}}",
        server.admin.tenant
    );
    eventually("what can wait is refused", PATIENCE, async || {
        let metrics = reqwest::get(format!("{}/metrics", server.admin.ops_url))
            .await
            .ok()?;
        metrics.text().await.ok()?.contains(&wanted).then_some(())
    })
    .await;
    // What is refused leaves check-ins their part of the bucket, so that the command comes to the device.
    let mut commands = Vec::new();
    while machine.logged("an output is kept") == 0 {
        // On a machine that is slow the storm is a small one.
        assert!(commands.len() < 60, "one of so many is refused");
        commands.push(order(&api, &machine.device, &json!({"type": "collect-logs"})).await);
        eventually("it was executed", PATIENCE, async || {
            (machine.logged("actions: executed") >= commands.len()).then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    ends.store(true, Ordering::Relaxed);
    senders.join_all().await;
    for command in commands {
        let done = ended(&api, &command).await;
        assert_eq!(done["state"], "done", "{done}");
        assert!(done["receipt"]["output_sha256"].is_string(), "{done}");
    }
    assert!(machine.runs());
    assert_healthy(&server).await;
}
