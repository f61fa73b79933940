//! Events of the log on their way out: how many a second leave for each kind of sink, whose other side is here, takes everything at
//! once, and looks at nothing.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::admin::Admin;
use crate::{AdminFile, FarmError};

/// Names that are written again and again, each time with an entry of the log.
const NAMES: u64 = 50;
/// How long a sink may take for everything.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(600);
const ASK_EVERY: Duration = Duration::from_millis(25);
/// Entries of one page of the API, for the peer.
const PAGE: u64 = 500;

/// A load of sinks.
#[derive(Clone, Debug)]
pub struct SiemLoad {
    /// `admin.json` of the server, which may send to this machine.
    pub admin_file: PathBuf,
    /// Entries of the log that are made first.
    pub entries: u64,
    /// Connections that make them.
    pub connections: u32,
}

/// What came of it, in events per second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SiemReport {
    /// Entries of the log that each sink got.
    pub entries: u64,
    /// The same log, read as pages of the API on one connection: the peer.
    pub api_per_second: f64,
    pub webhook_per_second: f64,
    /// With an acknowledgment at the first question.
    pub splunk_per_second: f64,
    pub sentinel_per_second: f64,
    /// Over TCP without TLS, a connection for each batch.
    pub syslog_per_second: f64,
    pub s3_per_second: f64,
    pub nats_per_second: f64,
}

/// Makes entries, then sends all of them to one sink after the other.
///
/// # Errors
/// A call that fails, and a sink that does not end.
pub async fn load_siem(options: SiemLoad, measuring: impl FnOnce()) -> Result<SiemReport, FarmError> {
    let admin = Arc::new(Admin::new(AdminFile::read(&options.admin_file)?)?);
    admin.sign_in().await?;
    make_entries(&admin, &options).await?;
    let http = listen(serve_http).await?;
    let syslog = listen(drain_stream).await?;
    let nats = listen(serve_nats).await?;
    measuring();
    let (entries, api_per_second) = read_by_api(&admin).await?;
    let url = format!("http://127.0.0.1:{http}");
    let key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let sinks = [
        json!({"place": {"kind": "webhook", "url": format!("{url}/hook")}, "secret": key}),
        json!({"place": {"kind": "splunk", "url": url}, "secret": "token"}),
        json!({
            "place": {"kind": "sentinel", "url": url, "authority": url, "rule": "r", "stream": "s", "directory": "d", "client_id": "c"},
            "secret": "secret",
        }),
        json!({"place": {"kind": "syslog", "host": "127.0.0.1", "port": syslog, "security": "plain", "message_bytes_max": 262_144}}),
        json!({
            "place": {"kind": "s3", "url": url, "region": "r", "bucket": "b", "access_key_id": "id", "flush_seconds": 1},
            "secret": "secret",
        }),
        json!({"place": {"kind": "nats", "url": format!("nats://127.0.0.1:{nats}")}}),
    ];
    let mut figures = Vec::with_capacity(sinks.len());
    for (number, sink) in sinks.into_iter().enumerate() {
        figures.push(sent_per_second(&admin, &format!("bench-{number}"), sink).await?);
    }
    let [webhook, splunk, sentinel, syslog, s3, nats] = figures[..] else {
        return Err(FarmError::Load("a sink was not measured".to_owned()));
    };
    Ok(SiemReport {
        entries,
        api_per_second,
        webhook_per_second: webhook,
        splunk_per_second: splunk,
        sentinel_per_second: sentinel,
        syslog_per_second: syslog,
        s3_per_second: s3,
        nats_per_second: nats,
    })
}

async fn make_entries(admin: &Arc<Admin>, options: &SiemLoad) -> Result<(), FarmError> {
    let next = Arc::new(AtomicU64::new(0));
    let mut running = JoinSet::new();
    for _ in 0..options.connections.max(1) {
        let (admin, next, entries) = (Arc::clone(admin), Arc::clone(&next), options.entries);
        running.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= entries {
                    return Ok::<(), FarmError>(());
                }
                let path = format!("/expiries/bench-{}", number % NAMES);
                let body = json!({"expires_at": "2099-01-01T00:00:00Z", "note": format!("number {number}")});
                admin.api(Method::PUT, &path, Some(&body)).await?;
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.map_err(|error| FarmError::Load(error.to_string()))??;
    }
    Ok(())
}

/// Reads the log as others read it, page by page; answers how many entries there are.
async fn read_by_api(admin: &Admin) -> Result<(u64, f64), FarmError> {
    let (begun, mut read, mut cursor) = (Instant::now(), 0, String::new());
    loop {
        let page = admin
            .api(Method::GET, &format!("/log/entries?limit={PAGE}{cursor}"), None)
            .await?;
        read += page["items"].as_array().map_or(0, Vec::len) as u64;
        match page["next_cursor"].as_i64() {
            Some(next) => cursor = format!("&after={next}"),
            None => return Ok((read, read as f64 / begun.elapsed().as_secs_f64())),
        }
    }
}

/// Makes a sink that begins at the beginning, and waits until nothing waits for it.
async fn sent_per_second(admin: &Admin, name: &str, mut sink: Value) -> Result<f64, FarmError> {
    sink["streams"] = json!(["log"]);
    sink["from"] = "beginning".into();
    let path = format!("/sinks/{name}");
    let begun = Instant::now();
    admin.api(Method::PUT, &path, Some(&sink)).await?;
    while begun.elapsed() < DRAIN_TIME_MAX {
        let shown = admin.api(Method::GET, &path, None).await?;
        let progress = &shown["progress"][0];
        if progress["lag_events"] == 0 {
            let taken = progress["taken"].as_f64().unwrap_or_default();
            let seconds = begun.elapsed().as_secs_f64();
            let reason = json!({"reason": "it was measured"});
            admin
                .api(Method::POST, &format!("{path}/pause"), Some(&reason))
                .await?;
            return Ok(taken / seconds);
        }
        if let Some(error) = progress["error"].as_str() {
            return Err(FarmError::Load(format!("{name}: {error}")));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    Err(FarmError::Load(format!("{name} does not come to its end")))
}

/// Serves each connection with `serve`; answers the port.
async fn listen<F, S>(serve: S) -> Result<u16, FarmError>
where
    S: Fn(TcpStream) -> F + Send + 'static,
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let failed = |error: std::io::Error| FarmError::Load(error.to_string());
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    Ok(port)
}

async fn serve_http(stream: TcpStream) -> std::io::Result<()> {
    let service =
        service_fn(|request: Request<Incoming>| async move { Ok::<_, Infallible>(answered(request).await) });
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    serving.await.map_err(std::io::Error::other)
}

/// What each kind of other side answers when all is well.
async fn answered(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes());
    let body = body.unwrap_or_default();
    let said = match path.as_str() {
        "/services/collector/event" => json!({"text": "Success", "code": 0, "ackId": 0}),
        "/services/collector/ack" => {
            let question: Value = serde_json::from_slice(&body).unwrap_or_default();
            let number = question["acks"][0].to_string();
            json!({"acks": {number: true}})
        }
        "/d/oauth2/v2.0/token" => json!({"access_token": "token", "expires_in": 3600}),
        _ => Value::Null,
    };
    let mut response = Response::new(Full::new(Bytes::from(said.to_string())));
    *response.status_mut() = StatusCode::OK;
    response
}

/// Reads to the end, and ends.
async fn drain_stream(mut stream: TcpStream) -> std::io::Result<()> {
    let mut sink = tokio::io::sink();
    tokio::io::copy(&mut stream, &mut sink).await.map(drop)
}

/// The few words of NATS that publishing needs, and an acknowledgment for each message.
async fn serve_nats(stream: TcpStream) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let info = "INFO {\"headers\":true,\"max_payload\":1048576}\r\n";
    writer.write_all(info.as_bytes()).await?;
    let (mut line, mut places) = (String::new(), 0_u64);
    loop {
        line.clear();
        if reader.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["PING"] => writer.write_all(b"PONG\r\n").await?,
            ["HPUB", _, reply, _, bytes] => {
                let mut content = vec![0; bytes.parse::<usize>().unwrap_or_default() + 2];
                reader.read_exact(&mut content).await?;
                places += 1;
                let said = format!("{{\"stream\":\"BENCH\",\"seq\":{places}}}");
                let message = format!("MSG {reply} 1 {}\r\n{said}\r\n", said.len());
                writer.write_all(message.as_bytes()).await?;
            }
            _ => {}
        }
    }
}
