//! Load for benchmarks, as cheap as possible on this side, so that the server is what is measured.
//!
//! Every connection is an enrolled device of its own. Check-ins are built once, as bytes of HTTP/1.1, and repeated over
//! mutually authenticated keep-alive; answers are read to their end and looked at no further than their status.

mod attest;
mod compile;
mod compliance;
mod enroll;
mod queue;
mod rollout;
mod scim;
mod siem;
mod telemetry;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use muster_channel_agent::{ContentType, encode, path};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;

use crate::admin::Admin;
use crate::device::Device;
use crate::faults::{Conditions, Disorder};
use crate::link::LinkError;
use crate::stats::{Latencies, LatencySummary};
use crate::tls::{Credentials, HTTP1};
use crate::{AdminFile, FarmError, FarmOptions, Shared};

pub use attest::load_verifications;
pub use compile::load_compilations;
pub use compliance::{ComplianceReport, load_compliance};
pub use enroll::{EnrollLoad, EnrollReport, Enrollment, load_enrollments};
pub use queue::{OperationLife, OperationProgress, QueueLoad, QueueReport, load_queue};
pub use rollout::{RolloutCounts, RolloutLoad, RolloutReport, StageCounts, load_rollout};
pub use scim::{ScimLoad, ScimReport, load_scim};
pub use siem::{SiemLoad, SiemReport, load_siem};
pub use telemetry::{TelemetryLoad, TelemetryReport, load_telemetry};

/// The listener's cheapest answer.
const CONSTANT: &str = "/agent/v1/ping";
/// The fleet of the load, apart from those that people make.
const SEED: u64 = 0x6d75_7374_6572_4c44;
/// Check-ins until a new device is where the server wants it.
const SETTLE_ROUNDS_MAX: u32 = 20;
/// Longest wait for one answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// Longest wait for a command's receipt.
const RECEIPT_TIME_MAX: Duration = Duration::from_secs(60);
/// How often a command is asked about.
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What is asked, over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// `POST /agent/v1/checkin` of a device that is up to date.
    Checkin,
    /// The listener's cheapest answer.
    Constant,
}

/// A load of check-ins.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// `admin.json` of the server.
    pub admin_file: PathBuf,
    /// Connections, each of its own device, each with one request at a time.
    pub connections: u32,
    /// How long is measured.
    pub duration: Duration,
    /// What is asked.
    pub target: Target,
}

/// What a load came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoadReport {
    /// Answers with status 200.
    pub requests: u64,
    /// How long it took.
    pub seconds: f64,
    /// Answers in each second.
    pub per_second: Vec<u64>,
    /// Connections.
    pub connections: u32,
    /// Latency of one request.
    #[serde(flatten)]
    pub latency: LatencySummary,
}

/// Enrolls devices, brings them up to date, calls `measuring`, and sends requests until the time is over.
///
/// # Errors
/// A device that cannot be prepared, and any answer that is not 200: a load that fails measures nothing.
pub async fn load_checkins(options: LoadOptions, measuring: impl FnOnce()) -> Result<LoadReport, FarmError> {
    let shared = Shared::prepare(&FarmOptions {
        admin_file: options.admin_file,
        devices: options.connections,
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
    let mut preparing = JoinSet::new();
    for index in 0..options.connections {
        preparing.spawn(prepare(Arc::clone(&shared), index, options.target));
    }
    let mut lanes = Vec::new();
    while let Some(lane) = preparing.join_next().await {
        let lane = lane.map_err(|error| FarmError::Load(error.to_string()))?;
        lanes.push(lane.map_err(|error| FarmError::Load(error.to_string()))?);
    }
    measuring();
    let started = Instant::now();
    let until = started + options.duration;
    let mut running = JoinSet::new();
    for lane in lanes {
        running.spawn(lane.run(started, until));
    }
    let latencies = Latencies::new();
    let mut per_second = vec![0; options.duration.as_secs().max(1) as usize];
    while let Some(lane) = running.join_next().await {
        let counts = lane.map_err(|error| FarmError::Load(error.to_string()))?;
        let counts = counts.map_err(|error| FarmError::Load(error.to_string()))?;
        latencies.absorb(&counts.latencies);
        for (second, count) in counts.per_second.into_iter().enumerate() {
            if second >= per_second.len() {
                per_second.resize(second + 1, 0);
            }
            per_second[second] += count;
        }
    }
    Ok(LoadReport {
        requests: per_second.iter().sum(),
        seconds: started.elapsed().as_secs_f64(),
        per_second,
        connections: options.connections,
        latency: latencies.summary(),
    })
}

/// One connection and the request that it repeats.
struct Lane {
    stream: TlsStream<TcpStream>,
    request: Vec<u8>,
}

struct Counts {
    per_second: Vec<u64>,
    latencies: Latencies,
}

async fn prepare(shared: Arc<Shared>, index: u32, target: Target) -> Result<Lane, LinkError> {
    let mut device = Device::enter(Arc::clone(&shared), index)
        .await
        .ok_or_else(|| LinkError::Protocol(format!("device {index} could not be enrolled")))?;
    let mut before = None;
    for _ in 0..SETTLE_ROUNDS_MAX {
        device.checkin().await?;
        let now = (device.core.state_digest(), device.core.has_news());
        if before == Some(now) && !now.1 {
            break;
        }
        before = Some(now);
    }
    let request = match target {
        Target::Constant => raw_request("GET", CONSTANT, &shared.endpoint.authority(), &[]),
        Target::Checkin => {
            let message = device.core.checkin_request(&device.reading());
            let body = encode(ContentType::Json, &message)
                .map_err(|error| LinkError::Protocol(error.to_string()))?;
            raw_request("POST", path::CHECKIN, &shared.endpoint.authority(), &body)
        }
    };
    device.disconnect();
    let (key_pkcs8, identity) = device.credentials()?;
    let credentials = Credentials {
        certificate_chain: &identity.certificate_chain,
        key_pkcs8: &key_pkcs8,
    };
    let _turn = shared.connecting.acquire().await;
    let stream = shared
        .endpoint
        .connect(&identity.ca_certificates, Some(credentials), HTTP1)
        .await?;
    Ok(Lane { stream, request })
}

fn raw_request(method: &str, path: &str, authority: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/json\r\naccept: \
         application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

impl Lane {
    async fn run(mut self, started: Instant, until: Instant) -> Result<Counts, LinkError> {
        let mut counts = Counts {
            per_second: Vec::new(),
            latencies: Latencies::new(),
        };
        let mut buffer = Vec::with_capacity(4096);
        loop {
            let asked = Instant::now();
            if asked >= until {
                return Ok(counts);
            }
            self.stream
                .write_all(&self.request)
                .await
                .map_err(LinkError::unreachable)?;
            let answer = timeout(ANSWER_TIME_MAX, read_answer(&mut self.stream, &mut buffer)).await;
            let status = answer.map_err(|_| LinkError::Unreachable("no answer in time".to_owned()))??;
            if status != 200 {
                return Err(LinkError::Protocol(format!(
                    "a request was answered with status {status}"
                )));
            }
            let now = Instant::now();
            counts.latencies.record(now - asked);
            let second = (now - started).as_secs() as usize;
            if second >= counts.per_second.len() {
                counts.per_second.resize(second + 1, 0);
            }
            counts.per_second[second] += 1;
        }
    }
}

/// Reads one answer to its end and returns its status. There is one request at a time, so nothing comes behind it.
async fn read_answer(stream: &mut TlsStream<TcpStream>, buffer: &mut Vec<u8>) -> Result<u16, LinkError> {
    buffer.clear();
    loop {
        if let Some(answer) = parse_answer(buffer).map_err(|what| LinkError::Protocol(what.to_owned()))?
            && buffer.len() >= answer.bytes
        {
            return Ok(answer.status);
        }
        if buffer.len() > ANSWER_BYTES_MAX {
            return Err(LinkError::Protocol(format!(
                "an answer is longer than {ANSWER_BYTES_MAX} bytes"
            )));
        }
        if stream.read_buf(buffer).await.map_err(LinkError::unreachable)? == 0 {
            return Err(LinkError::Unreachable(
                "the server closed the connection".to_owned(),
            ));
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct AnswerHead {
    status: u16,
    /// Head and body.
    bytes: usize,
}

/// The head of an answer; `None` while it is not complete.
fn parse_answer(bytes: &[u8]) -> Result<Option<AnswerHead>, &'static str> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "an answer's head is not text")?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|status| status.parse().ok());
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    match (status, length) {
        (Some(status), Some(length)) => Ok(Some(AnswerHead {
            status,
            bytes: end + 4 + length,
        })),
        (None, _) => Err("an answer has no status"),
        (_, None) => Err("an answer has no content-length"),
    }
}

/// A load of commands.
#[derive(Clone, Debug)]
pub struct CommandLoad {
    /// `admin.json` of the server.
    pub admin_file: PathBuf,
    /// How many of the connected devices get commands, in turn.
    pub devices: u32,
    /// How long is measured.
    pub duration: Duration,
}

/// What a load of commands came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CommandReport {
    /// Commands with a receipt.
    pub commands: u64,
    /// From the beginning of the API call to the receipt that the API shows.
    pub p50_ms: f64,
    /// See `p50_ms`.
    pub p99_ms: f64,
    /// The API call alone.
    pub call_p50_ms: f64,
    /// See `call_p50_ms`.
    pub call_p99_ms: f64,
}

/// Sends commands to devices that others hold connected, one at a time, and waits for each receipt.
pub async fn load_commands(
    options: CommandLoad,
    measuring: impl FnOnce(),
) -> Result<CommandReport, FarmError> {
    let admin = Admin::new(AdminFile::read(&options.admin_file)?)?;
    let devices = admin.active_devices(options.devices.max(1) as usize).await?;
    if devices.is_empty() {
        return Err(FarmError::Load("there is no active device".to_owned()));
    }
    let (calls, receipts) = (Latencies::new(), Latencies::new());
    measuring();
    let started = Instant::now();
    for device in devices.iter().cycle() {
        let asked = Instant::now();
        if asked - started >= options.duration {
            break;
        }
        let command = admin.unlock(device).await?;
        calls.record(asked.elapsed());
        while !admin.command(&command.command_id).await?.is_over() {
            if asked.elapsed() > RECEIPT_TIME_MAX {
                return Err(FarmError::Load(format!(
                    "no receipt of {} within {RECEIPT_TIME_MAX:?}",
                    command.command_id
                )));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        receipts.record(asked.elapsed());
    }
    let (receipts, calls) = (receipts.summary(), calls.summary());
    Ok(CommandReport {
        commands: receipts.count,
        p50_ms: receipts.p50_ms,
        p99_ms: receipts.p99_ms,
        call_p50_ms: calls.p50_ms,
        call_p99_ms: calls.p99_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_to_its_end() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\ndate: x\r\n\r\npong";
        for cut in 0..43 {
            assert_eq!(parse_answer(&text[..cut]), Ok(None), "{cut}");
        }
        assert_eq!(
            parse_answer(text),
            Ok(Some(AnswerHead {
                status: 200,
                bytes: text.len()
            }))
        );
        assert!(parse_answer(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
        assert!(parse_answer(b"nonsense\r\n\r\n").is_err());
        assert!(parse_answer(b"\xff\xff\r\n\r\n").is_err());
    }

    #[test]
    fn a_raw_request_is_whole() {
        let request = raw_request("POST", "/a", "h:1", b"{}");
        let text = String::from_utf8(request).expect("text");
        assert!(text.starts_with("POST /a HTTP/1.1\r\nhost: h:1\r\n"), "{text}");
        assert!(text.ends_with("content-length: 2\r\n\r\n{}"), "{text}");
    }
}
