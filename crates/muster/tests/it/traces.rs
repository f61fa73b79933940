//! Traces, as a collector that is not ours takes them: one from the API call to the device and back.

use std::{collections::BTreeMap, time::Instant};

use muster_channel_agent::telemetry::{Accounting, FinishedSpan, SpanStatus, TelemetryBatch};
use muster_model::{Timestamp, telemetry::StreamId};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    PATIENCE,
    api::{Answer, Api, answer},
    collector::{Collector, Seen},
    database::each_database,
    device::{Device, now},
    eventually,
    machine::{Machine, activate, ended, reported},
    server::{Options, Server},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

fn traceparent() -> String {
    format!("00-{TRACE}-{CALLER}-01")
}

/// Queues a command under a `traceparent`.
async fn order_in_trace(api: &Api, device: &str, traceparent: &str) -> Answer {
    let path = format!("/devices/{device}/commands");
    let request = api
        .request(Method::POST, &path)
        .header("traceparent", traceparent)
        .json(&json!({"type": "collect-inventory"}));
    answer(request).await
}

/// A folder for what a collector says.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder can be made")
}

fn over_http(options: Options, collector: &Collector) -> Options {
    options.with(
        "--otlp-endpoint",
        format!("http://127.0.0.1:{}", collector.http_port),
    )
}

fn over_grpc(options: Options, collector: &Collector) -> Options {
    options
        .with(
            "--otlp-endpoint",
            format!("http://127.0.0.1:{}", collector.grpc_port),
        )
        .with("--otlp-protocol", "grpc")
}

fn named<'a>(spans: &'a [Seen], name: &str) -> &'a Seen {
    spans
        .iter()
        .find(|span| span.name == name)
        .unwrap_or_else(|| panic!("no {name} in {spans:#?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_from_the_api_call_to_the_device_and_back() {
    each_database(async |options| {
        let folder = folder();
        let Some(collector) = Collector::start(folder.path()).await else {
            return;
        };
        // Each engine with another protocol.
        let is_sqlite = matches!(options.place, crate::support::database::Place::Sqlite);
        let options = if is_sqlite {
            over_grpc(options, &collector)
        } else {
            over_http(options, &collector)
        };
        let server = Server::start(options).await;
        let api = server.api().await;
        let machine = Machine::running(&api, &server.admin).await;
        // The agent's spans travel with its telemetry: as often as that goes.
        activate(
            &api,
            "telemetry",
            "1",
            &json!({"telemetry.upload_interval_seconds": 60}),
        )
        .await;
        reported(&api, &machine.device, "1").await;

        let asked = order_in_trace(&api, &machine.device, &traceparent()).await;
        let id = asked.headers.get("x-request-id").cloned();
        assert_eq!(id.as_ref().and_then(|id| id.to_str().ok()), Some(TRACE));
        let command = asked.expect(202)["command_id"]
            .as_str()
            .expect("an id is text")
            .to_owned();
        assert_eq!(ended(&api, &command).await["state"], "done");

        let spans = eventually("the agent's spans are there", PATIENCE * 5, async || {
            let spans = collector.of_trace(TRACE);
            spans
                .iter()
                .any(|span| span.name == "command.receipt")
                .then_some(spans)
        })
        .await;
        let tree: BTreeMap<&str, (&str, &str)> = [
            ("POST /api/v1/devices/{id}/commands", ("muster", "")),
            ("command.queue", ("muster", "POST /api/v1/devices/{id}/commands")),
            ("log.sequence", ("muster", "command.queue")),
            ("device.wake", ("muster", "command.queue")),
            ("command.deliver", ("muster", "command.queue")),
            ("command.verify", ("muster-agent", "command.deliver")),
            ("command.execute", ("muster-agent", "command.deliver")),
            ("command.receipt", ("muster-agent", "command.deliver")),
            ("receipt.store", ("muster", "command.queue")),
        ]
        .into();
        for (name, (service, parent)) in &tree {
            let span = named(&spans, name);
            assert_eq!(span.service(), *service, "{name}");
            let parent_id = match *parent {
                "" => CALLER,
                parent => &named(&spans, parent).id,
            };
            assert_eq!(span.parent, parent_id, "{name} is under {parent}");
            assert!(span.end_nanos >= span.start_nanos, "{name}");
        }
        assert_eq!(spans.len(), tree.len(), "{spans:#?}");
        let (asked, executed) = (
            named(&spans, "POST /api/v1/devices/{id}/commands"),
            named(&spans, "command.execute"),
        );
        assert_eq!(asked.attributes["http.route"], "/api/v1/devices/{id}/commands");
        assert_eq!(asked.attributes["http.request.method"], "POST");
        assert_eq!(asked.attributes["http.response.status_code"], "202");
        assert_eq!(executed.resource["device.id"], machine.device);
        assert_eq!(executed.attributes["device.id"], machine.device);
        assert_eq!(executed.attributes["muster.command.id"], command);
        assert_eq!(executed.attributes["muster.outcome"], "done");
        assert!(executed.start_nanos >= asked.start_nanos);
        no_secrets(&server, &api, &collector);
        names_a_trace_in_metrics(&server).await;
    })
    .await;
}

/// L1: nothing that opens a door, and nobody's name, is in what was exported.
fn no_secrets(server: &Server, api: &Api, collector: &Collector) {
    let said = collector.said();
    for secret in [&server.admin.client_secret, &server.admin.client_id, &api.token] {
        assert!(!said.contains(secret.as_str()), "a secret is in a span");
    }
}

/// The trace is the example of its latency.
async fn names_a_trace_in_metrics(server: &Server) {
    let url = format!("{}/metrics", server.admin.ops_url);
    let asked = reqwest::Client::new()
        .get(url)
        .header("accept", "application/openmetrics-text; version=1.0.0")
        .send();
    let text = asked.await.expect("it answers").text().await.expect("it is text");
    let is_example = |line: &&str| line.contains(&format!("# {{trace_id=\"{TRACE}\"}}"));
    for metric in [
        "mdm_http_request_duration_seconds_bucket",
        "mdm_command_queue_latency_seconds_bucket",
    ] {
        let found = text
            .lines()
            .filter(|line| line.starts_with(metric))
            .find(is_example);
        assert!(found.is_some(), "{metric} has no example in\n{text}");
    }
    assert!(
        text.contains("mdm_tenant_command_queue_latency_seconds_count{tenant=\"tnt_"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_on_many_devices_is_one_trace() {
    each_database(async |options| {
        let folder = folder();
        let Some(collector) = Collector::start(folder.path()).await else {
            return;
        };
        let server = Server::start(over_http(options, &collector)).await;
        let api = server.api().await;
        let devices = [
            Device::enroll(&api, &server.admin).await,
            Device::enroll(&api, &server.admin).await,
        ];
        let ids: Vec<String> = devices.iter().map(Device::id).collect();
        let request = api
            .request(Method::POST, "/commands")
            .header("traceparent", traceparent())
            .json(&json!({"type": "collect-inventory", "devices": ids}));
        answer(request).await.expect(202);
        for device in &devices {
            eventually("the command comes, with its place", PATIENCE, async || {
                let answer = device.checkin().await;
                let trace = answer.commands.first()?.trace()?;
                (trace.trace_id.to_string() == TRACE && trace.is_sampled).then_some(())
            })
            .await;
        }
        let spans = eventually("both deliveries are told of", PATIENCE, async || {
            let spans = collector.of_trace(TRACE);
            let delivered = spans.iter().filter(|span| span.name == "command.deliver").count();
            (delivered == 2).then_some(spans)
        })
        .await;
        let root = &named(&spans, "POST /api/v1/commands").id;
        let queued: Vec<&Seen> = spans.iter().filter(|span| span.name == "command.queue").collect();
        assert_eq!(queued.len(), 2);
        assert!(queued.iter().all(|span| span.parent == *root));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_traceparent_is_ignored() {
    let folder = folder();
    let Some(collector) = Collector::start(folder.path()).await else {
        return;
    };
    let server = Server::start(over_http(Options::default(), &collector)).await;
    let api = server.api().await;
    let device = Device::enroll(&api, &server.admin).await;
    for bad in ["", "00-x-y-01", &"0".repeat(8000), &traceparent().to_uppercase()] {
        let asked = order_in_trace(&api, &device.id(), bad).await;
        let id = asked.headers["x-request-id"]
            .to_str()
            .expect("it is text")
            .to_owned();
        asked.expect(202);
        assert!(id.len() == 32 && id != TRACE, "{id}");
        let spans = eventually("its own trace is there", PATIENCE, async || {
            let spans = collector.of_trace(&id);
            (!spans.is_empty()).then_some(spans)
        })
        .await;
        assert_eq!(named(&spans, "POST /api/v1/devices/{id}/commands").parent, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_neither_slows_nor_fails_the_api() {
    let folder = folder();
    let Some(collector) = Collector::start(folder.path()).await else {
        return;
    };
    let options = over_grpc(Options::default(), &collector);
    // Nobody listens until later.
    let port = crate::support::haproxy::free_port();
    let nowhere = Options::default()
        .with("--otlp-endpoint", format!("http://127.0.0.1:{port}"))
        .with("--log-format", "json");
    let server = Server::start(nowhere).await;
    let api = server.api().await;
    let device = Device::enroll(&api, &server.admin).await;
    let begun = Instant::now();
    for _ in 0..50 {
        order_in_trace(&api, &device.id(), &traceparent())
            .await
            .expect(202);
    }
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    eventually("failures are counted", PATIENCE, async || {
        (server.metric("mdm_trace_exports_total{result=\"failed\"}").await >= 2).then_some(())
    })
    .await;
    let said = server.log().matches("spans are not exported").count();
    assert_eq!(said, 1, "once, not for every try:\n{}", server.log());
    drop(server);

    // One that comes back is told what waited.
    let server = Server::start(options).await;
    let api = server.api().await;
    let device = Device::enroll(&api, &server.admin).await;
    let collector = collector.start_again(folder.path()).await;
    order_in_trace(&api, &device.id(), &traceparent())
        .await
        .expect(202);
    eventually("the span came after all", PATIENCE, async || {
        (!collector.of_trace(TRACE).is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_just_before_the_server_stops_is_exported() {
    let folder = folder();
    let Some(collector) = Collector::start(folder.path()).await else {
        return;
    };
    let mut server = Server::start(over_grpc(Options::default(), &collector)).await;
    let api = server.api().await;
    let device = Device::enroll(&api, &server.admin).await;
    order_in_trace(&api, &device.id(), &traceparent())
        .await
        .expect(202);
    assert!(server.stop().await.success());
    eventually("it was told of", PATIENCE, async || {
        let spans = collector.of_trace(TRACE);
        spans
            .iter()
            .any(|span| span.name == "command.queue")
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_want_no_trace_get_none_unless_it_fails() {
    let folder = folder();
    let Some(collector) = Collector::start(folder.path()).await else {
        return;
    };
    let options = over_http(Options::default(), &collector).with("--trace-sampling", "0");
    let server = Server::start(options).await;
    let api = server.api().await;
    let device = Device::enroll(&api, &server.admin).await;
    let quiet = traceparent().replace("-01", "-00");
    order_in_trace(&api, &device.id(), &quiet).await.expect(202);
    let command = eventually("the command comes, unsampled", PATIENCE, async || {
        let answer = device.checkin().await;
        let trace = answer.commands.first()?.trace()?;
        (!trace.is_sampled).then(|| answer.commands[0].clone())
    })
    .await;
    let statement: Value = serde_json::from_slice(&command.envelope.payload).expect("a statement");
    let id = statement["command_id"].as_str().expect("an id is text");
    device
        .checkin_with("receipts", json!([device.receipt(id, "failed")]))
        .await;
    let spans = eventually("the failure is there", PATIENCE, async || {
        let spans = collector.of_trace(TRACE);
        (!spans.is_empty()).then_some(spans)
    })
    .await;
    assert_eq!(spans.len(), 1, "{spans:#?}");
    assert_eq!(named(&spans, "receipt.store").status, "STATUS_CODE_ERROR");
}

fn said(trace: &str, number: u8, name: &str) -> FinishedSpan {
    FinishedSpan {
        trace_id: trace.parse().expect("a trace"),
        span_id: format!("{:016x}", 0x1000 + u64::from(number))
            .parse()
            .expect("a span"),
        parent_span_id: CALLER.parse().ok(),
        name: name.to_owned(),
        started_at: now(),
        duration_us: 1000,
        status: SpanStatus::Ok,
        attributes: [
            ("service.name".to_owned(), "muster".to_owned()),
            ("device.id".to_owned(), "dev_somebody".to_owned()),
            ("muster.outcome".to_owned(), "done".to_owned()),
        ]
        .into(),
    }
}

async fn upload(device: &Device, sequence: u64, device_time: Timestamp, spans: Vec<FinishedSpan>) {
    let batch = TelemetryBatch {
        epoch: device.enrolled.epoch,
        stream: StreamId::from_bytes([7; 16]).expect("a stream has a name"),
        sequence,
        device_time,
        boot_id: None,
        series: Vec::new(),
        events: Vec::new(),
        spans,
        accounting: Accounting::default(),
    };
    let body = serde_json::to_value(&batch).expect("it can be written");
    device.door.post("/agent/v1/telemetry", &body).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_device_speaks_as_itself_within_bounds_and_into_its_own_traces_alone() {
    let folder = folder();
    let Some(collector) = Collector::start(folder.path()).await else {
        return;
    };
    let server = Server::start(over_http(Options::default(), &collector)).await;
    let api = server.api().await;
    let (device, other) = (
        Device::enroll(&api, &server.admin).await,
        Device::enroll(&api, &server.admin).await,
    );
    order_in_trace(&api, &device.id(), &traceparent())
        .await
        .expect(202);
    let foreign = TRACE.replace('4', "5");
    let theirs = format!("00-{foreign}-{CALLER}-01");
    order_in_trace(&api, &other.id(), &theirs).await.expect(202);

    let mut spans = vec![
        said(TRACE, 1, "command.execute"),
        said(&foreign, 2, "command.execute"),
        said(TRACE, 3, "command.queue"),
        said(TRACE, 4, "anything"),
    ];
    spans.extend((5..=250).map(|number| said(&foreign, number, "command.verify")));
    upload(&device, 1, now(), spans).await;
    let spans = eventually("the one that is its own came", PATIENCE, async || {
        let spans = collector.spans();
        let of_agents: Vec<Seen> = spans
            .into_iter()
            .filter(|span| span.service() == "muster-agent")
            .collect();
        (!of_agents.is_empty()).then_some(of_agents)
    })
    .await;
    assert_eq!(spans.len(), 1, "{spans:#?}");
    assert_eq!(
        (spans[0].trace.as_str(), spans[0].name.as_str()),
        (TRACE, "command.execute")
    );
    assert_eq!(spans[0].resource["device.id"], device.id());
    assert_eq!(spans[0].attributes["device.id"], device.id());
    assert!(!spans[0].attributes.contains_key("service.name"));
    assert_eq!(
        server.metric("mdm_trace_spans_total{result=\"refused\"}").await,
        249
    );

    // However much it says of its own command, it is as much as it may say in an hour.
    for sequence in 2..9 {
        let spans = (0..250)
            .map(|number| said(TRACE, number, "command.verify"))
            .collect();
        upload(&device, sequence, now(), spans).await;
    }
    let refused = server.metric("mdm_trace_spans_total{result=\"refused\"}").await;
    assert_eq!(refused, 249 + 7 * 250 - 750);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_clock_is_wrong_is_put_onto_the_servers_time() {
    let folder = folder();
    let Some(collector) = Collector::start(folder.path()).await else {
        return;
    };
    let server = Server::start(over_http(Options::default(), &collector)).await;
    let api = server.api().await;
    let device = Device::enroll(&api, &server.admin).await;
    order_in_trace(&api, &device.id(), &traceparent())
        .await
        .expect(202);
    let behind = std::time::Duration::from_secs(7200);
    let its_now = now().minus(behind);
    device.checkin_with("clock", json!(its_now)).await;
    let mut span = said(TRACE, 1, "command.execute");
    span.started_at = its_now;
    upload(&device, 1, its_now, vec![span]).await;
    let span = eventually("the span came", PATIENCE, async || {
        let spans = collector.of_trace(TRACE);
        spans.into_iter().find(|span| span.name == "command.execute")
    })
    .await;
    let server_now = u64::try_from(now().as_micros()).expect("it is after 1970") * 1000;
    assert!(
        server_now.abs_diff(span.start_nanos) < 60_000_000_000,
        "{span:#?}"
    );
    let correction: i64 = span.attributes["muster.clock.correction_ms"]
        .parse()
        .expect("a number");
    assert!((7_199_000..7_260_000).contains(&correction), "{correction}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_a_request_still_has_its_callers_trace_for_a_name() {
    let server = Server::start(Options::default().with("--log-format", "json")).await;
    let api = server.api().await;
    let device = Device::enroll(&api, &server.admin).await;
    let asked = order_in_trace(&api, &device.id(), &traceparent()).await;
    assert_eq!(asked.headers["x-request-id"], TRACE);
    asked.expect(202);
    let answer = eventually("the command comes", PATIENCE, async || {
        let answer = device.checkin().await;
        (!answer.commands.is_empty()).then_some(answer)
    })
    .await;
    assert_eq!(answer.commands[0].traceparent, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn l1_no_planted_secret_is_in_a_span() {
    const HEADER: &str = "canary-of-the-collector-5523";
    const TEXT: &str = "canary-in-a-body-5524";
    const QUERY: &str = "canary-in-a-query-5525";
    const PATH: &str = "canary-in-a-path-5526";
    const PERSON: &str = "Canary Person 5527";
    let folder = folder();
    let Some(collector) = Collector::start(folder.path()).await else {
        return;
    };
    let headers = folder.path().join("headers");
    std::fs::write(&headers, format!("authorization=Bearer {HEADER}\n")).expect("it can be written");
    let options = over_grpc(Options::default(), &collector).with("--otlp-headers-file", headers.display());
    let mut server = Server::start(options).await;
    let api = server.api().await;
    let device = Device::enroll(&api, &server.admin).await;
    let link = api
        .post("/console-links", &json!({"person": PERSON}))
        .await
        .expect(201);
    let link = link["url"]
        .as_str()
        .expect("text")
        .split('#')
        .nth(1)
        .expect("a secret")
        .to_owned();
    let locked = api
        .post(
            &format!("/devices/{}/commands", device.id()),
            &json!({"type": "lock", "message": TEXT}),
        )
        .await
        .expect(202);
    let id = locked["command_id"].as_str().expect("an id is text").to_owned();
    eventually("the command comes", PATIENCE, async || {
        (!device.checkin().await.commands.is_empty()).then_some(())
    })
    .await;
    device
        .checkin_with("receipts", json!([device.receipt(&id, "failed")]))
        .await;
    api.get(&format!("/devices?cursor={QUERY}")).await;
    api.get(&format!("/devices/{PATH}")).await;
    api.get(&format!("/{PATH}/none")).await;
    api.with_token(HEADER).get("/devices").await.expect(401);
    let metrics = reqwest::get(format!("{}/metrics", server.admin.ops_url)).await;
    let metrics = metrics.expect("it answers").text().await.expect("it is text");
    assert!(server.stop().await.success());

    let is_there = |name: &str| collector.spans().iter().any(|span| span.name == name);
    eventually("everything was told of", PATIENCE, async || {
        (is_there("receipt.store") && is_there("GET /api/v1/devices/{id}")).then_some(())
    })
    .await;
    let (said, log) = (collector.said(), server.log());
    for secret in [
        HEADER,
        TEXT,
        QUERY,
        PATH,
        PERSON,
        &link,
        &api.token,
        &server.admin.client_secret,
    ] {
        assert!(!said.contains(secret), "{secret} is in a span");
        assert!(!log.contains(secret), "{secret} is in the log");
        assert!(!metrics.contains(secret), "{secret} is in the metrics");
    }
}
