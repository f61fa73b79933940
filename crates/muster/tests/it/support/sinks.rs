//! A server with a sink, and the other sides: what the tests of sinks stand on.

use std::{path::PathBuf, time::Duration};

use muster_channel_agent::{
    ContentType, encode, path,
    telemetry::{Accounting, DeviceEvent, TelemetryBatch},
};
use muster_model::telemetry::StreamId;
use serde_json::{Value, json};

use super::{
    api::{Api, answer},
    device::{Device, now},
    eventually,
    objects::{S3, moto_server},
    receivers::{Certificates, Nats, Rsyslog},
    server::{Options, Server},
    siem::{Arrived, Vendors},
};

/// How long events may take to arrive: a pause after a failure, and a slow machine.
pub const ARRIVAL: Duration = Duration::from_secs(120);
pub const BUCKET: &str = "audit";

/// Something that takes events.
pub trait Peer {
    async fn close(&mut self);
    async fn open(&mut self);
    /// The body that names it as a sink.
    fn sink(&self) -> Value;
    async fn arrived(&self) -> Vec<Arrived>;
}

/// One of the stand-ins.
pub struct Vendor {
    pub kind: &'static str,
    pub vendors: Vendors,
}

impl Vendor {
    /// Without the clients that judge it there is none.
    pub async fn start(kind: &'static str) -> Option<Vendor> {
        let vendors = Vendors::start().await;
        let is_judged = vendors.is_judged().await;
        is_judged.then_some(Vendor { kind, vendors })
    }
}

impl Peer for Vendor {
    async fn close(&mut self) {
        self.vendors.close();
    }

    async fn open(&mut self) {
        self.vendors.open().await;
    }

    fn sink(&self) -> Value {
        self.vendors.sink(self.kind)
    }

    async fn arrived(&self) -> Vec<Arrived> {
        self.vendors.arrived(self.kind)
    }
}

/// rsyslog, with what it shows and what is shown to it.
pub struct Syslog {
    pub rsyslog: Rsyslog,
    pub certificates: Certificates,
    _folder: tempfile::TempDir,
}

impl Syslog {
    pub async fn start(driver: &'static str) -> Option<Syslog> {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let certificates = Certificates::make(folder.path());
        Some(Syslog {
            rsyslog: Rsyslog::start(folder.path(), driver).await?,
            certificates,
            _folder: folder,
        })
    }
}

impl Peer for Syslog {
    async fn close(&mut self) {
        self.rsyslog.close().await;
    }

    async fn open(&mut self) {
        self.rsyslog.open().await;
    }

    fn sink(&self) -> Value {
        self.rsyslog.sink(&self.certificates)
    }

    async fn arrived(&self) -> Vec<Arrived> {
        self.rsyslog.arrived()
    }
}

pub struct Stream {
    pub nats: Nats,
    pub certificates: Certificates,
    _folder: tempfile::TempDir,
}

impl Stream {
    pub async fn start(message_bytes_max: usize) -> Option<Stream> {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let certificates = Certificates::make(folder.path());
        let nats = Nats::start(folder.path()).await?;
        nats.make_stream(message_bytes_max).await;
        Some(Stream {
            nats,
            certificates,
            _folder: folder,
        })
    }
}

impl Peer for Stream {
    async fn close(&mut self) {
        self.nats.close().await;
    }

    async fn open(&mut self) {
        self.nats.open().await;
    }

    fn sink(&self) -> Value {
        self.nats.sink()
    }

    async fn arrived(&self) -> Vec<Arrived> {
        self.nats.arrived().await
    }
}

/// A bucket of moto, which forgets everything when it ends: it is away by being slow to begin.
pub struct Bucket {
    pub s3: S3,
}

impl Bucket {
    pub async fn start() -> Option<Bucket> {
        let s3 = S3::start(&moto_server()?).await;
        s3.make_locked(BUCKET).await;
        Some(Bucket { s3 })
    }

    pub fn sink(&self) -> Value {
        json!({
            "place": {
                "kind": "s3", "url": format!("http://{}", self.s3.address()), "region": "us-east-1", "bucket": BUCKET,
                "access_key_id": "test", "flush_seconds": 1, "lock": {"mode": "governance", "days": 3},
            },
            "secret": "secret-of-the-bucket",
        })
    }

    pub async fn arrived(&self) -> Vec<Arrived> {
        let mut arrived = Vec::new();
        for name in self.s3.names_in(BUCKET).await {
            let packed = self.s3.object_in(BUCKET, &name).await.expect("it is there");
            let mut text = String::new();
            let mut unpacked = flate2::read::GzDecoder::new(&packed[..]);
            std::io::Read::read_to_string(&mut unpacked, &mut text).expect("it is gzip");
            let lines = text
                .lines()
                .map(|line| serde_json::from_str(line).expect("a line is JSON"));
            arrived.extend(lines.map(|document: Value| Arrived::of_document(&document)));
        }
        arrived
    }
}

/// A server that may send to this machine.
pub struct Scene {
    pub server: Server,
    pub api: Api,
}

impl Scene {
    pub async fn start(options: Options, authority: Option<PathBuf>) -> Scene {
        let options = options.with("--egress-allow", "127.0.0.0/8,::1");
        let options = match authority {
            Some(path) => options.with("--egress-ca-file", path.display()),
            None => options,
        };
        let server = Server::start(options).await;
        let api = server.api().await;
        Scene { server, api }
    }

    pub async fn put(&self, name: &str, sink: Value, members: Value) -> Value {
        let mut body = sink;
        for (name, value) in members.as_object().expect("members") {
            body[name] = value.clone();
        }
        self.api.put(&format!("/sinks/{name}"), &body).await.ok()
    }

    pub async fn shown(&self, name: &str) -> Value {
        self.api.get(&format!("/sinks/{name}")).await.ok()
    }

    /// Makes so many entries of the log.
    pub async fn entries(&self, count: usize) {
        for number in 0..count {
            let path = format!("/expiries/token-{number}");
            let body = json!({"expires_at": "2099-01-01T00:00:00Z", "note": "of another service"});
            self.api.put(&path, &body).await.ok();
        }
    }

    /// Waits until nothing of a sink waits.
    pub async fn drained(&self, name: &str) -> Value {
        eventually(&format!("{name} has everything"), ARRIVAL, async || {
            let sink = self.shown(name).await;
            let lag = sink["progress"].as_array().expect("streams").iter();
            let lag: u64 = lag
                .map(|stream| stream["lag_events"].as_u64().expect("a number"))
                .sum();
            (lag == 0).then_some(sink)
        })
        .await
    }

    /// Waits until a sink says what fails.
    pub async fn failing(&self, name: &str) -> String {
        eventually(&format!("{name} fails"), ARRIVAL, async || {
            let sink = self.shown(name).await;
            let streams = sink["progress"].as_array().expect("streams").clone();
            let mut errors = streams.iter().filter_map(|stream| stream["error"].as_str());
            errors.next().map(str::to_owned)
        })
        .await
    }

    /// Tests a sink; answers whether it works, and the last step with what was found.
    pub async fn tested(&self, name: &str) -> (bool, String, String) {
        let probe = self
            .api
            .post(&format!("/sinks/{name}/test"), &json!({}))
            .await
            .ok();
        let steps = probe["steps"].as_array().expect("steps");
        let last = steps.last().expect("a step");
        (
            probe["ok"] == true,
            last["step"].as_str().expect("a word").to_owned(),
            probe["steps"].to_string(),
        )
    }
}

/// A batch with events.
pub async fn upload(device: &Device, sequence: u64, events: &[(&str, &str, &str)]) {
    let event = |(place, (kind, name, value)): (usize, &(&str, &str, &str))| DeviceEvent {
        number: sequence * 1000 + place as u64,
        kind: kind.parse().expect("it is a name"),
        at: now(),
        attributes: [((*name).to_owned(), (*value).to_owned())].into(),
    };
    let batch = TelemetryBatch {
        epoch: device.enrolled.epoch,
        stream: StreamId::from_bytes([7; 16]).expect("a stream has a name"),
        sequence,
        device_time: now(),
        boot_id: None,
        series: Vec::new(),
        events: events.iter().enumerate().map(event).collect(),
        spans: Vec::new(),
        accounting: Accounting::default(),
    };
    let url = format!("{}{}", device.door.url, path::TELEMETRY);
    let body = encode(ContentType::Json, &batch).expect("it can be written");
    let request = device
        .door
        .http
        .post(url)
        .header("content-type", "application/json");
    answer(request.body(body)).await.expect(200);
}
