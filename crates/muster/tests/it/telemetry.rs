//! Telemetry from the device's upload to the answer: once, bounded, in its place in time, of its own tenant.

use muster_channel_agent::{
    ContentType, encode,
    limits::{TELEMETRY_BODY_BYTES_MAX, TELEMETRY_RATIO_MAX},
    path,
    telemetry::{Accounting, ContentEncoding, DeviceEvent, Series, TelemetryBatch, encode_batch},
};
use muster_model::{
    Timestamp,
    telemetry::{Aggregate, StreamId, Window},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    PATIENCE,
    api::{Answer, Api, answer},
    database::each_database,
    device::{CBOR, Device, now},
    eventually,
    server::{Options, Server, assert_healthy},
    timeseries::TimeSeries,
};

const DAY: i64 = 86_400;

fn window(start: i64, width: u32, value: f64) -> Window {
    Window {
        start_seconds: start,
        width_seconds: width,
        aggregate: Aggregate::of(value),
    }
}

fn series(metric: &str, label: Option<&str>, windows: Vec<Window>) -> Series {
    Series {
        metric: metric.parse().expect("it is a name"),
        label: label.map(|label| label.parse().expect("it is a label")),
        windows,
    }
}

fn batch(device: &Device, sequence: u64, series: Vec<Series>) -> TelemetryBatch {
    TelemetryBatch {
        epoch: device.enrolled.epoch,
        stream: StreamId::from_bytes([7; 16]).expect("a stream has a name"),
        sequence,
        device_time: now(),
        boot_id: None,
        series,
        events: Vec::new(),
        spans: Vec::new(),
        accounting: Accounting::default(),
    }
}

async fn post(device: &Device, encoding: ContentEncoding, body: Vec<u8>) -> Answer {
    let url = format!("{}{}", device.door.url, path::TELEMETRY);
    let request = device
        .door
        .http
        .post(url)
        .header("content-type", CBOR)
        .header("accept", "application/json")
        .body(body);
    answer(match encoding.as_header() {
        Some(encoding) => request.header("content-encoding", encoding),
        None => request,
    })
    .await
}

async fn upload(device: &Device, batch: &TelemetryBatch) -> Answer {
    let (encoding, body) = encode_batch(ContentType::Cbor, batch).expect("it can be written");
    post(device, encoding, body).await
}

/// An upload that is taken; the answer as JSON.
async fn taken(device: &Device, batch: &TelemetryBatch) -> Value {
    let url = format!("{}{}", device.door.url, path::TELEMETRY);
    let body = encode(ContentType::Json, batch).expect("it can be written");
    let request = device
        .door
        .http
        .post(url)
        .header("content-type", "application/json");
    answer(request.body(body)).await.expect(200)
}

async fn events(api: &Api) -> Vec<Value> {
    api.list("/telemetry/events").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_reaches_the_chart_once_and_stays_there_over_a_restart() {
    each_database(async |options| {
        let mut server = Server::start(options.with("--telemetry-merge-after-seconds", 0)).await;
        let api = server.api().await;
        let device = Device::enroll(&api, &server.admin).await;
        let until = now().as_unix_seconds() / 900 * 900;
        let windows = |metric: &str, values: [f64; 4]| {
            let window = |(place, value): (i64, f64)| window(until - 3600 + place * 900, 900, value);
            series(metric, None, (0..).zip(values).map(window).collect())
        };
        let mut first = batch(
            &device,
            1,
            vec![windows("battery_level_ratio", [0.9, 0.8, 0.7, 0.6])],
        );
        first.events.push(DeviceEvent {
            number: 1,
            kind: "tamper".parse().expect("it is a name"),
            at: now(),
            attributes: [("setting".to_owned(), "firewall.enabled".to_owned())].into(),
        });
        assert_eq!(taken(&device, &first).await["accepted_through"], 1);
        assert_eq!(taken(&device, &first).await["accepted_through"], 1);
        let path = format!(
            "/devices/{}/telemetry?metric=battery_level_ratio&from={}&to={until}&step=900",
            device.id(),
            until - 3600
        );
        let means = |chart: &Value| -> Vec<f64> {
            let steps = chart["lines"][0]["steps"].as_array().expect("a line has steps");
            steps
                .iter()
                .map(|step| step["mean"].as_f64().expect("a number"))
                .collect()
        };
        let expected = [0.9, 0.8, 0.7, 0.6];
        let chart = api.get(&path).await.ok();
        assert_eq!(
            (&chart["unit"], means(&chart)),
            (&json!("ratio"), expected.to_vec())
        );
        let shown = events(&api).await;
        assert_eq!((shown.len(), &shown[0]["name"]), (1, &json!("tamper")));
        server.stop().await;
        server.restart().await;
        let api = server.api().await;
        let device = device.at(&server.admin);
        assert_eq!(taken(&device, &first).await["accepted_through"], 1);
        eventually("the batch is merged", PATIENCE, async || {
            let store = server.store().await;
            (store.count("telemetry_spool").await == 0).then_some(())
        })
        .await;
        assert_eq!(means(&api.get(&path).await.ok()), expected);
        let latest = api
            .get(&format!("/devices/{}/telemetry/latest", device.id()))
            .await
            .ok();
        assert_eq!(latest["latest"][0]["value"], 0.6);
        assert_eq!(latest["streams"][0]["points"], 4);
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_what_is_too_much_or_nothing_is_refused_before_it_is_built() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let device = Device::enroll(&api, &server.admin).await;
    // Without a certificate nobody gets as far as the body.
    let bare = crate::support::device::Door::of(&server.admin);
    bare.send(Method::POST, path::TELEMETRY, Some(CBOR), vec![0; 100])
        .await
        .refused(401, "certificate_required");
    let long = vec![b' '; TELEMETRY_BODY_BYTES_MAX + 1];
    post(&device, ContentEncoding::Identity, long)
        .await
        .refused(413, "body_too_large");
    // A bomb: zeros that inflate to far more than the ratio allows.
    let bomb = {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![b' '; 20 << 20]).expect("memory takes it");
        encoder.finish().expect("it ends")
    };
    assert!(bomb.len() * TELEMETRY_RATIO_MAX < 20 << 20);
    post(&device, ContentEncoding::Gzip, bomb)
        .await
        .refused(413, "body_too_large");
    post(&device, ContentEncoding::Gzip, b"no gzip".to_vec())
        .await
        .refused(400, "malformed");
    post(&device, ContentEncoding::Identity, vec![0xff; 64])
        .await
        .refused(400, "malformed");
    let url = format!("{}{}", device.door.url, path::TELEMETRY);
    let strange = device
        .door
        .http
        .post(&url)
        .header("content-type", CBOR)
        .header("content-encoding", "br");
    answer(strange.body(vec![0]))
        .await
        .refused(415, "unsupported_media_type");
    let mut old = batch(&device, 1, Vec::new());
    old.epoch += 1;
    upload(&device, &old).await.refused(403, "epoch_mismatch");
    let fine = batch(
        &device,
        1,
        vec![series(
            "load1",
            None,
            vec![window(now().as_unix_seconds() - 60, 60, 1.0)],
        )],
    );
    upload(&device, &fine).await.expect(200);
    assert_healthy(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b4_a_wrong_clock_is_corrected_by_the_check_in_and_shown() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let device = Device::enroll(&api, &server.admin).await;
    // Its clock is a day behind.
    let behind = now().minus(std::time::Duration::from_secs(DAY as u64));
    device.checkin_with("clock", json!(behind)).await;
    let start = behind.as_unix_seconds() - 300;
    let mut sent = batch(
        &device,
        1,
        vec![series("load1", None, vec![window(start, 300, 2.0)])],
    );
    sent.device_time = behind;
    assert_eq!(taken(&device, &sent).await["accepted_through"], 1);
    let shown = api
        .get(&format!("/devices/{}/telemetry/latest", device.id()))
        .await
        .ok();
    let at: Timestamp = serde_json::from_value(shown["latest"][0]["at"].clone()).expect("a time");
    let distance = (at.as_unix_seconds() - (start + DAY)).abs();
    assert!(distance <= 120, "{shown}");
    let offset = shown["streams"][0]["clock_offset_seconds"]
        .as_f64()
        .expect("it is known");
    assert!((offset - DAY as f64).abs() < 120.0, "{shown}");
    assert_eq!(shown["clock"].as_array().map(Vec::len), Some(1), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn d10_questions_that_cannot_be_meant_are_refused() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let device = Device::enroll(&api, &server.admin).await.id();
    for (path, code) in [
        (format!("/devices/{device}/telemetry"), "invalid"),
        (format!("/devices/{device}/telemetry?metric=a%20b"), "invalid"),
        (
            format!("/devices/{device}/telemetry?metric=load1&from=yesterday"),
            "invalid",
        ),
        (
            format!("/devices/{device}/telemetry?metric=load1&from=-1d&to=-2d"),
            "invalid",
        ),
        (
            format!("/devices/{device}/telemetry?metric=load1&step=0"),
            "invalid",
        ),
        ("/telemetry/fleet?metric=load1&quantiles=2".to_owned(), "invalid"),
        ("/telemetry/fleet?metric=load1&quantiles=a".to_owned(), "invalid"),
        ("/telemetry/top?metric=load1&order=best".to_owned(), "invalid"),
        ("/telemetry/changes?metric=load1".to_owned(), "invalid"),
        (
            "/telemetry/changes?metric=load1&fell=0.1&rose=0.1".to_owned(),
            "invalid",
        ),
        ("/telemetry/changes?metric=load1&fell=nan".to_owned(), "invalid"),
        (
            "/telemetry/changes?metric=load1&fell=0.1&days=1".to_owned(),
            "invalid",
        ),
        ("/telemetry/events?cursor=x".to_owned(), "cursor_invalid"),
    ] {
        let refused = api.get(&path).await;
        assert_eq!(
            (refused.status, refused.json()["code"].as_str()),
            (400, Some(code)),
            "{path}"
        );
    }
    let long = api
        .get(&format!("/devices/{device}/telemetry?metric=load1&from=0&step=1"))
        .await
        .ok();
    assert_eq!(long["lines"], json!([]));
}

/// Numbers of a month of three devices, as every store must answer them.
async fn month(api: &Api, server: &Server, recent: i64) -> Vec<Device> {
    let until = now().as_unix_seconds() / DAY * DAY;
    let mut devices = Vec::new();
    for (number, from, to) in [(0, 0.96, 0.95), (1, 0.9, 0.7), (2, 1.0, 0.6)] {
        let device = Device::enroll(api, &server.admin).await;
        let health = |day: i64| ((from + (to - from) * day as f64 / 29.0) * 1e4_f64).round() / 1e4;
        let daily = (0..30).map(|day| window(until - (29 - day) * DAY, 3600, health(day)));
        let quarters = |base: f64| {
            let window =
                move |place: i64| window(recent - (8 - place) * 900, 900, base + place as f64 / 100.0);
            (0..8).map(window).collect::<Vec<_>>()
        };
        let sent = batch(
            &device,
            1,
            vec![
                series("battery_health_ratio", None, daily.collect()),
                series(
                    "disk_used_ratio",
                    Some("/"),
                    quarters(0.1 * f64::from(number + 1)),
                ),
                series(
                    "disk_used_ratio",
                    Some("/home"),
                    quarters(0.2 * f64::from(number + 1)),
                ),
                series(
                    "crashes_total",
                    None,
                    vec![window(recent - 1800, 900, f64::from(number))],
                ),
            ],
        );
        upload(&device, &sent).await.expect(200);
        devices.push(device);
    }
    devices
}

/// An answer with its numbers rounded: stores add in another order.
fn rounded(value: Value) -> Value {
    match value {
        Value::Number(number) => {
            let number = number.as_f64().expect("a number");
            json!((number * 1e9).round() / 1e9)
        }
        Value::Array(items) => items.into_iter().map(rounded).collect(),
        Value::Object(members) => {
            let kept = members
                .into_iter()
                .filter(|(name, _)| name != "p50" && name != "p95");
            kept.map(|(name, value)| (name, rounded(value))).collect()
        }
        other => other,
    }
}

/// What is asked, with the devices' ids and names replaced by their numbers.
async fn answers(api: &Api, devices: &[Device], recent: i64) -> Vec<Value> {
    let span = format!("from={}&to={recent}", recent - 7200);
    let paths = [
        format!(
            "/devices/{}/telemetry?metric=disk_used_ratio&{span}&step=1800",
            devices[1].id()
        ),
        format!(
            "/devices/{}/telemetry?metric=battery_health_ratio&from=-30d&step=86400",
            devices[2].id()
        ),
        format!("/telemetry/fleet?metric=disk_used_ratio&{span}&quantiles=0,0.25,0.5,0.99"),
        format!("/telemetry/fleet?metric=crashes_total&{span}"),
        format!("/telemetry/fleet?metric=disk_used_ratio&{span}&statistic=max"),
        format!("/telemetry/top?metric=disk_used_ratio&{span}&n=2"),
        format!("/telemetry/top?metric=crashes_total&{span}&n=1&order=lowest"),
        "/telemetry/changes?metric=battery_health_ratio&fell=0.1&days=30".to_owned(),
    ];
    let mut found = Vec::new();
    for path in paths {
        let answer = api.get(&path).await;
        let mut text = rounded(answer.ok()).to_string();
        for (number, device) in devices.iter().enumerate() {
            text = text.replace(&device.id(), &format!("device {number}"));
        }
        let mut value: Value = serde_json::from_str(&text).expect("it is JSON still");
        // Names are drawn at enrollment.
        if let Some(items) = value["items"].as_array_mut() {
            for item in items {
                item["name"] = Value::Null;
            }
        }
        found.push(value);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_store_answers_the_same_questions_alike() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let recent = now().as_unix_seconds() / 900 * 900;
    let devices = month(&api, &server, recent).await;
    let embedded = answers(&api, &devices, recent).await;
    assert_eq!(
        embedded[7]["items"][0]["device_id"], "device 2",
        "{}",
        embedded[7]
    );
    assert_eq!(embedded[7]["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(embedded[2]["devices"], 3.0);
    for store in TimeSeries::all().await {
        println!("on {}", store.name);
        let server = Server::start(store.options(Options::default())).await;
        let api = server.api().await;
        let devices = month(&api, &server, recent).await;
        // Samples are sent on a moment after the device has its answer.
        let begun = std::time::Instant::now();
        let mut of_store = answers(&api, &devices, recent).await;
        while of_store != embedded && begun.elapsed() < PATIENCE {
            tokio::time::sleep(std::time::Duration::from_millis(250)).await;
            of_store = answers(&api, &devices, recent).await;
        }
        for (place, (one, another)) in embedded.iter().zip(&of_store).enumerate() {
            assert_eq!(one, another, "question {place} on {}", store.name);
        }
        let latest = api
            .get(&format!("/devices/{}/telemetry/latest", devices[0].id()))
            .await
            .ok();
        assert_eq!(latest["latest"].as_array().map(Vec::len), Some(4), "{latest}");
        let store_of_server = server.store().await;
        assert_eq!(store_of_server.count("telemetry_spool").await, 0);
        assert_healthy(&server).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn telemetry_waits_for_a_store_that_is_away() {
    let port = crate::support::haproxy::free_port();
    let options = Options::default().with(
        "--telemetry-write-url",
        format!("http://127.0.0.1:{port}/api/v1/write"),
    );
    let server = Server::start(options).await;
    let api = server.api().await;
    let device = Device::enroll(&api, &server.admin).await;
    let sent = batch(
        &device,
        1,
        vec![series(
            "load1",
            None,
            vec![window(now().as_unix_seconds() - 60, 60, 1.0)],
        )],
    );
    upload(&device, &sent).await.expect(200);
    let path = format!("/devices/{}/telemetry?metric=load1", device.id());
    api.get(&path).await.refused(503, "unavailable");
    assert_eq!(server.store().await.count("telemetry_spool").await, 1);
    assert_healthy(&server).await;
}
