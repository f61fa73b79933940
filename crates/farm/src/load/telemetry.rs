//! Load of telemetry: devices that upload batches as fast as they are taken, the same windows into a VictoriaMetrics beside it, and
//! the same questions to both.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use muster_channel_agent::telemetry::{Accounting, Series, TelemetryBatch, encode_batch};
use muster_channel_agent::{ContentType, path};
use muster_model::telemetry::{Aggregate, LabelValue, Metric, Quantiles, StreamId, Window};
use serde::Serialize;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;

use super::{ANSWER_TIME_MAX, read_answer};
use crate::admin::{Admin, StoreUsage};
use crate::device::Device;
use crate::draw::Draw;
use crate::faults::{Conditions, Disorder};
use crate::identity::Identity;
use crate::link::LinkError;
use crate::stats::Latencies;
use crate::tls::{Credentials, HTTP1};
use crate::{AdminFile, FarmError, FarmOptions, Shared};

/// The fleet of the load, apart from those that people make.
const SEED: u64 = 0x6d75_7374_6572_5453;
/// Windows of each series in one batch, and how long each of them is.
const WINDOWS: i64 = 12;
const WINDOW_SECONDS: u32 = 60;
/// Samples of a window.
const SAMPLES: usize = 6;
/// What each device measures; disks and sensors count for each of their labels.
const METRICS: [(Metric, Option<&str>); 16] = [
    (Metric::CpuUsage, None),
    (Metric::Load1, None),
    (Metric::MemoryAvailable, None),
    (Metric::MemoryUsed, None),
    (Metric::DiskUsed, Some("/")),
    (Metric::DiskUsed, Some("/home")),
    (Metric::DiskFree, Some("/")),
    (Metric::DiskRead, Some("nvme0n1")),
    (Metric::DiskWritten, Some("nvme0n1")),
    (Metric::BatteryLevel, None),
    (Metric::BatteryHealth, None),
    (Metric::Temperature, Some("cpu")),
    (Metric::NetworkRtt, None),
    (Metric::NetworkReceived, None),
    (Metric::NetworkTransmitted, None),
    (Metric::Uptime, None),
];
/// Batches of one device: what it may send in an hour.
const BATCHES_MAX: u32 = 550;
/// How long the store may take until everything has left the spool.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(120);
/// How often each question is asked.
const QUESTIONS: usize = 20;

/// A load of telemetry.
#[derive(Clone, Debug)]
pub struct TelemetryLoad {
    /// `admin.json` of the server.
    pub admin_file: PathBuf,
    /// Connections, each of its own device, each with one upload at a time.
    pub devices: u32,
    /// Batches of each device.
    pub batches: u32,
    /// Origin of a VictoriaMetrics that gets the same windows afterwards.
    pub beside: Option<String>,
}

/// What it came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TelemetryReport {
    /// Batches that were taken.
    pub batches: u64,
    /// Windows in them.
    pub points: u64,
    /// How long the uploads took.
    pub seconds: f64,
    pub points_per_second: f64,
    /// Compressed bytes on the wire for each window.
    pub wire_bytes_per_point: f64,
    /// From the first upload until everything was merged.
    pub settled_seconds: f64,
    /// Bytes of chunks for each window at the finest resolution, and at all three.
    pub raw_bytes_per_point: f64,
    pub all_bytes_per_point: f64,
    pub upload_p50_ms: f64,
    pub upload_p99_ms: f64,
    pub chart_p50_ms: f64,
    pub fleet_p50_ms: f64,
    /// The same of the store beside it; 0 without one.
    pub peer_points_per_second: f64,
    pub peer_chart_p50_ms: f64,
    pub peer_fleet_p50_ms: f64,
}

/// Batches of one device, ready to go, and what is in them.
struct Ready {
    key_pkcs8: Vec<u8>,
    identity: Identity,
    requests: Vec<Vec<u8>>,
    wire_bytes: u64,
    /// Lines of VictoriaMetrics' JSON import, one text for each batch.
    lines: Vec<String>,
}

/// Prepares devices and their batches, calls `measuring`, uploads them, and asks.
///
/// # Errors
/// A device that cannot be prepared, and any answer that is not 200: a load that fails measures nothing.
pub async fn load_telemetry(
    options: TelemetryLoad,
    measuring: impl FnOnce(),
) -> Result<TelemetryReport, FarmError> {
    let batches = options.batches.clamp(1, BATCHES_MAX);
    let admin = Admin::new(AdminFile::read(&options.admin_file)?)?;
    let shared = Shared::prepare(&FarmOptions {
        admin_file: options.admin_file.clone(),
        devices: options.devices,
        seed: SEED,
        conditions: Conditions::CALM,
        disorder: Disorder::NONE,
        scenario: None,
        duration: None,
        state_dir: None,
        has_progress: false,
        telemetry: None,
    })
    .await?;
    let is_beside = options.beside.is_some();
    let mut preparing = JoinSet::new();
    for index in 0..options.devices {
        preparing.spawn(prepare(Arc::clone(&shared), index, batches, is_beside));
    }
    let mut ready = Vec::new();
    while let Some(device) = preparing.join_next().await {
        let device = device.map_err(|error| FarmError::Load(error.to_string()))?;
        ready.push(device.map_err(|error| FarmError::Load(error.to_string()))?);
    }
    let lines: Vec<Vec<String>> = ready
        .iter_mut()
        .map(|device| std::mem::take(&mut device.lines))
        .collect();
    let wire_bytes: u64 = ready.iter().map(|device| device.wire_bytes).sum();
    // A connection that waited while the batches of others were made would be closed by the server.
    let mut connecting = JoinSet::new();
    for device in ready {
        connecting.spawn(connect(Arc::clone(&shared), device));
    }
    let mut connected = Vec::new();
    while let Some(device) = connecting.join_next().await {
        let device = device.map_err(|error| FarmError::Load(error.to_string()))?;
        connected.push(device.map_err(|error| FarmError::Load(error.to_string()))?);
    }
    measuring();
    let started = Instant::now();
    let mut running = JoinSet::new();
    for (stream, requests) in connected {
        running.spawn(upload(stream, requests));
    }
    let latencies = Latencies::new();
    while let Some(lane) = running.join_next().await {
        let of_lane = lane.map_err(|error| FarmError::Load(error.to_string()))?;
        latencies.absorb(&of_lane.map_err(|error| FarmError::Load(error.to_string()))?);
    }
    let seconds = started.elapsed().as_secs_f64();
    let count = u64::from(options.devices) * u64::from(batches);
    let points = count * METRICS.len() as u64 * WINDOWS as u64;
    let usage = settled(&admin, started).await?;
    let settled_seconds = started.elapsed().as_secs_f64();
    let device = admin.active_devices(1).await?.pop().unwrap_or_default();
    let (chart, fleet) = ask(&admin, &device).await?;
    let peer = match &options.beside {
        None => Peer::default(),
        Some(origin) => beside(origin, lines, points).await?,
    };
    let upload = latencies.summary();
    let raw = usage.levels.first().map_or(0, |level| level.bytes);
    let all: u64 = usage.levels.iter().map(|level| level.bytes).sum();
    Ok(TelemetryReport {
        batches: count,
        points,
        seconds,
        points_per_second: points as f64 / seconds,
        wire_bytes_per_point: wire_bytes as f64 / points as f64,
        settled_seconds,
        raw_bytes_per_point: raw as f64 / points as f64,
        all_bytes_per_point: all as f64 / points as f64,
        upload_p50_ms: upload.p50_ms,
        upload_p99_ms: upload.p99_ms,
        chart_p50_ms: chart,
        fleet_p50_ms: fleet,
        peer_points_per_second: peer.points_per_second,
        peer_chart_p50_ms: peer.chart_p50_ms,
        peer_fleet_p50_ms: peer.fleet_p50_ms,
    })
}

async fn prepare(shared: Arc<Shared>, index: u32, batches: u32, is_beside: bool) -> Result<Ready, LinkError> {
    let mut device = Device::enter(Arc::clone(&shared), index)
        .await
        .ok_or_else(|| LinkError::Protocol(format!("device {index} could not be enrolled")))?;
    device.checkin().await?;
    device.disconnect();
    let (key_pkcs8, identity) = device.credentials()?;
    let now = crate::clock::wall().as_unix_seconds();
    let first = now - i64::from(batches) * WINDOWS * i64::from(WINDOW_SECONDS);
    let (mut draw, mut walks) = (Draw::new(SEED, index, "telemetry"), [0.5_f64; METRICS.len()]);
    let (mut requests, mut lines, mut wire_bytes) = (Vec::new(), Vec::new(), 0);
    for sequence in 1..=u64::from(batches) {
        let begins = first + (sequence as i64 - 1) * WINDOWS * i64::from(WINDOW_SECONDS);
        let series: Vec<Series> = METRICS
            .iter()
            .zip(&mut walks)
            .map(|((metric, label), walk)| series(*metric, *label, begins, walk, &mut draw))
            .collect();
        if is_beside {
            lines.push(import_lines(index, &series));
        }
        let batch = TelemetryBatch {
            epoch: identity.epoch,
            stream: StreamId::from_bytes([1; 16])
                .ok_or_else(|| LinkError::Protocol("a stream has a name".to_owned()))?,
            sequence,
            device_time: crate::clock::wall(),
            boot_id: None,
            series,
            events: Vec::new(),
            spans: Vec::new(),
            accounting: Accounting::default(),
        };
        let (encoding, body) = encode_batch(ContentType::Cbor, &batch)
            .map_err(|error| LinkError::Protocol(error.to_string()))?;
        wire_bytes += body.len() as u64;
        let encoding = encoding
            .as_header()
            .map_or_else(String::new, |name| format!("content-encoding: {name}\r\n"));
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/cbor\r\n{encoding}content-length: {}\r\n\r\n",
            path::TELEMETRY,
            shared.endpoint.authority(),
            body.len()
        );
        requests.push([head.as_bytes(), &body].concat());
    }
    Ok(Ready {
        key_pkcs8,
        identity: identity.clone(),
        requests,
        wire_bytes,
        lines,
    })
}

/// Windows of a value that walks, with as many decimals as the metric is worth.
fn series(metric: Metric, label: Option<&str>, begins: i64, walk: &mut f64, draw: &mut Draw) -> Series {
    let def = metric.def();
    // What a part of one stands for.
    let scale = match metric {
        Metric::MemoryAvailable | Metric::DiskFree => 1e10,
        Metric::DiskRead | Metric::DiskWritten | Metric::NetworkReceived | Metric::NetworkTransmitted => 1e7,
        Metric::Uptime => 1e6,
        Metric::Temperature => 90.0,
        Metric::Load1 => 8.0,
        Metric::NetworkRtt => 0.2,
        _ => 1.0,
    };
    let windows = (0..WINDOWS).map(|place| {
        let mut samples = (0..SAMPLES).map(|_| {
            *walk = (*walk + (draw.fraction() - 0.5) / 40.0).clamp(0.01, 1.0);
            let mut of = Aggregate::of(*walk * scale);
            of.round(def.decimals);
            of
        });
        let mut whole = samples.next().unwrap_or_else(|| Aggregate::of(0.0));
        for sample in samples {
            whole.merge(&sample, Quantiles::Plain);
        }
        whole.round(def.decimals);
        Window {
            start_seconds: begins + place * i64::from(WINDOW_SECONDS),
            width_seconds: WINDOW_SECONDS,
            aggregate: whole,
        }
    });
    Series {
        metric: metric.into(),
        label: label.and_then(LabelValue::lenient),
        windows: windows.collect(),
    }
}

/// One number of a window.
type Part = fn(&Aggregate) -> f64;

/// The same windows as five series of each, as remote write would send them: lines of `/api/v1/import`.
fn import_lines(index: u32, series: &[Series]) -> String {
    let mut text = String::new();
    for one in series {
        let times: Vec<i64> = one
            .windows
            .iter()
            .map(|window| window.start_seconds * 1000)
            .collect();
        let parts: [(&str, Part); 5] = [
            ("count", |of| of.count as f64),
            ("min", |of| of.min),
            ("max", |of| of.max),
            ("sum", |of| of.sum),
            ("last", |of| of.last),
        ];
        for (part, value) in parts {
            let values: Vec<f64> = one
                .windows
                .iter()
                .map(|window| value(&window.aggregate))
                .collect();
            let mut labels = json!({
                "__name__": format!("muster_device_{}_{part}", one.metric),
                "device": format!("device-{index}"),
                "tenant": "bench",
            });
            if let Some(label) = &one.label {
                labels["subject"] = label.as_str().into();
            }
            text.push_str(&json!({"metric": labels, "values": values, "timestamps": times}).to_string());
            text.push('\n');
        }
    }
    text
}

type Lane = (TlsStream<TcpStream>, Vec<Vec<u8>>);

async fn connect(shared: Arc<Shared>, ready: Ready) -> Result<Lane, LinkError> {
    let credentials = Credentials {
        certificate_chain: &ready.identity.certificate_chain,
        key_pkcs8: &ready.key_pkcs8,
    };
    let _turn = shared.connecting.acquire().await;
    let stream = shared
        .endpoint
        .connect(&ready.identity.ca_certificates, Some(credentials), HTTP1)
        .await?;
    Ok((stream, ready.requests))
}

async fn upload(mut stream: TlsStream<TcpStream>, requests: Vec<Vec<u8>>) -> Result<Latencies, LinkError> {
    let latencies = Latencies::new();
    let mut buffer = Vec::with_capacity(4096);
    for request in &requests {
        let asked = Instant::now();
        stream.write_all(request).await.map_err(LinkError::unreachable)?;
        let answer = timeout(ANSWER_TIME_MAX, read_answer(&mut stream, &mut buffer)).await;
        let status = answer.map_err(|_| LinkError::Unreachable("no answer in time".to_owned()))??;
        if status != 200 {
            let said = String::from_utf8_lossy(&buffer).into_owned();
            return Err(LinkError::Protocol(format!("an upload was answered with {said}")));
        }
        latencies.record(asked.elapsed());
    }
    Ok(latencies)
}

async fn settled(admin: &Admin, started: Instant) -> Result<StoreUsage, FarmError> {
    loop {
        let usage = admin.telemetry_usage().await?;
        if usage.waiting_batches == 0 {
            return Ok(usage);
        }
        if started.elapsed() > SETTLE_TIME_MAX {
            return Err(FarmError::Load(format!(
                "{} batches still wait for the store",
                usage.waiting_batches
            )));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Median milliseconds of a device's chart of a day, and of a distribution over the fleet.
async fn ask(admin: &Admin, device: &str) -> Result<(f64, f64), FarmError> {
    let chart = format!("/devices/{device}/telemetry?metric=cpu_usage_ratio&from=-1d&step=900");
    let fleet = "/telemetry/fleet?metric=cpu_usage_ratio&from=-6h&quantiles=0.5,0.95".to_owned();
    let mut medians = Vec::new();
    for path in [chart, fleet] {
        let latencies = Latencies::new();
        for _ in 0..QUESTIONS {
            let asked = Instant::now();
            admin.ask(&path).await?;
            latencies.record(asked.elapsed());
        }
        medians.push(latencies.summary().p50_ms);
    }
    Ok((medians[0], medians[1]))
}

#[derive(Default)]
struct Peer {
    points_per_second: f64,
    chart_p50_ms: f64,
    fleet_p50_ms: f64,
}

/// Writes the same windows into a VictoriaMetrics, as many lanes at a time as there are devices, and asks it the same.
async fn beside(origin: &str, lines: Vec<Vec<String>>, points: u64) -> Result<Peer, FarmError> {
    let failed = |error: reqwest::Error| FarmError::Load(format!("the store beside: {error}"));
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(ANSWER_TIME_MAX)
        .build()
        .map_err(failed)?;
    let started = Instant::now();
    let mut lanes = JoinSet::new();
    for of_device in lines {
        let (http, url) = (http.clone(), format!("{origin}/api/v1/import"));
        lanes.spawn(async move {
            for text in of_device {
                let answer = http.post(&url).body(text).send().await?;
                answer.error_for_status()?;
            }
            Ok::<_, reqwest::Error>(())
        });
    }
    while let Some(lane) = lanes.join_next().await {
        lane.map_err(|error| FarmError::Load(error.to_string()))?
            .map_err(failed)?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let get = async |path: &str| {
        let answer = http.get(format!("{origin}{path}")).send().await.map_err(failed)?;
        let answer = answer.error_for_status().map_err(failed)?;
        answer.bytes().await.map(drop).map_err(failed)
    };
    // What was just written is in memory and not searchable yet.
    get("/internal/force_flush").await?;
    let now = crate::clock::wall().as_unix_seconds();
    let of = |part: &str, over: &str, label: &str| {
        format!("{over}_over_time(muster_device_cpu_usage_ratio_{part}%7B{label}%7D%5B")
    };
    let label = "device%3D%22device-0%22";
    let mut charts = Vec::new();
    for (part, over) in [
        ("count", "sum"),
        ("min", "min"),
        ("max", "max"),
        ("sum", "sum"),
        ("last", "last"),
    ] {
        charts.push(format!(
            "/api/v1/query_range?query={}900s%5D)&start={}&end={now}&step=900&nocache=1",
            of(part, over, label),
            now - 86_400
        ));
    }
    let all = "tenant%3D%22bench%22";
    let value = format!(
        "sum%20by%20(device)%20({}21600s%5D))%20%2F%20sum%20by%20(device)%20({}21600s%5D))",
        of("sum", "sum", all),
        of("count", "sum", all)
    );
    let mut fleets = Vec::new();
    for query in [
        format!("count({value})"),
        format!("min({value})"),
        format!("avg({value})"),
        format!("max({value})"),
        format!("quantile(0.5%2C%20{value})"),
        format!("quantile(0.95%2C%20{value})"),
    ] {
        fleets.push(format!("/api/v1/query?query={query}&time={now}&nocache=1"));
    }
    let mut medians = Vec::new();
    for paths in [charts, fleets] {
        let latencies = Latencies::new();
        for _ in 0..QUESTIONS {
            let asked = Instant::now();
            for path in &paths {
                get(path).await?;
            }
            latencies.record(asked.elapsed());
        }
        medians.push(latencies.summary().p50_ms);
    }
    Ok(Peer {
        points_per_second: points as f64 / seconds,
        chart_p50_ms: medians[0],
        fleet_p50_ms: medians[1],
    })
}
