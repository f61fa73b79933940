//! One HTTP/2 connection to the server: check-ins, downloads and the wake stream share it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use muster_channel_agent::backoff::parse_retry_after;
use muster_channel_agent::command::OUTPUT_CONTENT_TYPE;
use muster_channel_agent::enroll::{EXPORTER_BYTES, EXPORTER_LABEL};
use muster_channel_agent::limits::{PROBLEM_BYTES_MAX, TELEMETRY_RESPONSE_BYTES_MAX};
use muster_channel_agent::problem::Problem;
use muster_channel_agent::telemetry::TelemetryAnswer;
use muster_channel_agent::wake::WakeReader;
use muster_channel_agent::{ContentType, decode, encode, path};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use url::Url;

use crate::telemetry::StoredBatch;

/// Longest time for TCP, TLS and HTTP/2 together.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(20);
/// Longest time for one ordinary exchange.
const CALL_TIME_MAX: Duration = Duration::from_secs(60);
/// Longest time for one bundle download.
const DOWNLOAD_TIME_MAX: Duration = Duration::from_secs(600);
/// Longest time for one upload of an output.
const UPLOAD_TIME_MAX: Duration = Duration::from_secs(300);
/// A connection without any sign of life is probed this often.
const PING_INTERVAL: Duration = Duration::from_secs(40);
/// And given up when the probe stays unanswered for this long.
const PING_TIME_MAX: Duration = Duration::from_secs(20);
/// A wake stream that is silent for longer than two keep-alives is dead.
const WAKE_SILENCE_MAX: Duration = Duration::from_secs(70);
/// Receive windows: the default of the protocol, so that an idle connection costs little memory.
const WINDOW_BYTES: u32 = 256 * 1024;

/// Why an exchange did not happen.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No answer: name, route, TCP, TLS, HTTP/2 or time.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// The server answered with an error.
    #[error("the server answered {status} {code}: {detail}", status = problem.status, code = problem.code,
            detail = problem.detail)]
    Answered {
        /// What it said.
        problem: Box<Problem>,
        /// When to come back.
        retry_after: Option<Duration>,
    },
    /// The server answered with something that is not the protocol.
    #[error("the server's answer is not valid: {0}")]
    Protocol(String),
}

impl LinkError {
    fn unreachable(error: impl std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            text.push_str(": ");
            text.push_str(&inner.to_string());
            source = inner.source();
        }
        Self::Unreachable(text)
    }

    /// The stable code of an answered error.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Answered { problem, .. } => Some(&problem.code),
            Self::Unreachable(_) | Self::Protocol(_) => None,
        }
    }

    /// True if the server had no time for it: what was refused is kept and sent again.
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Answered { problem, .. } => matches!(problem.status, 429 | 503),
            Self::Unreachable(_) | Self::Protocol(_) => false,
        }
    }

    /// When the server asked to be left alone until.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Answered { retry_after, .. } => *retry_after,
            Self::Unreachable(_) | Self::Protocol(_) => None,
        }
    }
}

/// A value that both ends of one TLS connection, and nobody else, can derive. It prints as `***`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Exporter(pub [u8; EXPORTER_BYTES]);

impl std::fmt::Debug for Exporter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Exporter(***)")
    }
}

/// An open connection.
#[derive(Clone, Debug)]
pub struct Link {
    sender: http2::SendRequest<Full<Bytes>>,
    origin: String,
    exporter: Exporter,
}

impl Link {
    /// Opens a connection.
    pub async fn connect(server: &Url, tls: Arc<ClientConfig>) -> Result<Self, LinkError> {
        tokio::time::timeout(CONNECT_TIME_MAX, open(server, tls))
            .await
            .map_err(|_| LinkError::Unreachable(format!("no connection within {CONNECT_TIME_MAX:?}")))?
    }

    /// Names this connection in an enrollment's transcript (RFC 8446, section 7.5).
    pub fn exporter(&self) -> Exporter {
        self.exporter
    }

    /// True once the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// One JSON exchange. `answer_bytes_max` bounds the answer.
    pub async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        message: &impl Serialize,
        answer_bytes_max: usize,
    ) -> Result<T, LinkError> {
        let body = self.send(method, path, message, answer_bytes_max).await?;
        decode(ContentType::Json, &body, answer_bytes_max)
            .map_err(|error| LinkError::Protocol(error.to_string()))
    }

    /// One upload that is answered without a body.
    pub async fn upload(&self, path: &str, message: &impl Serialize) -> Result<(), LinkError> {
        self.send(Method::PUT, path, message, PROBLEM_BYTES_MAX)
            .await
            .map(|_| ())
    }

    /// Uploads what a command printed or collected: a gzip file.
    pub async fn output(&self, path: &str, gzip: Bytes) -> Result<(), LinkError> {
        let mut request = self.request(Method::POST, path, gzip)?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(OUTPUT_CONTENT_TYPE));
        self.call(request, PROBLEM_BYTES_MAX, UPLOAD_TIME_MAX)
            .await
            .map(|_| ())
    }

    /// Uploads one batch of telemetry, as it was stored.
    pub async fn telemetry(&self, batch: StoredBatch) -> Result<TelemetryAnswer, LinkError> {
        let mut request = self.request(Method::POST, path::TELEMETRY, Bytes::from(batch.body))?;
        if let Some(encoding) = batch.encoding.as_header() {
            let headers = request.headers_mut();
            headers.insert(CONTENT_ENCODING, http::HeaderValue::from_static(encoding));
        }
        let body = self
            .call(request, TELEMETRY_RESPONSE_BYTES_MAX, UPLOAD_TIME_MAX)
            .await?;
        decode(ContentType::Json, &body, TELEMETRY_RESPONSE_BYTES_MAX)
            .map_err(|error| LinkError::Protocol(error.to_string()))
    }

    /// One small exchange, to see how long it takes.
    pub async fn ping(&self) -> Result<(), LinkError> {
        let request = self.request(Method::GET, path::PING, Bytes::new())?;
        self.call(request, PROBLEM_BYTES_MAX, CALL_TIME_MAX)
            .await
            .map(|_| ())
    }

    /// Downloads one bundle.
    pub async fn bundle(&self, sha256: &str, bytes_max: usize) -> Result<Bytes, LinkError> {
        let request = self.request(Method::GET, &format!("{}{sha256}", path::BUNDLES), Bytes::new())?;
        self.call(request, bytes_max, DOWNLOAD_TIME_MAX).await
    }

    /// Opens the wake stream.
    pub async fn wake(&self) -> Result<WakeStream, LinkError> {
        let request = self.request(Method::GET, path::WAKE, Bytes::new())?;
        let sending = self.sender.clone().send_request(request);
        let response = within(CALL_TIME_MAX, sending)
            .await?
            .map_err(LinkError::unreachable)?;
        if response.status() != StatusCode::OK {
            return Err(read_problem(response).await);
        }
        Ok(WakeStream {
            body: response.into_body(),
            reader: WakeReader::default(),
            heard_at: Instant::now(),
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        message: &impl Serialize,
        answer_bytes_max: usize,
    ) -> Result<Bytes, LinkError> {
        let body =
            encode(ContentType::Json, message).map_err(|error| LinkError::Protocol(error.to_string()))?;
        let request = self.request(method, path, Bytes::from(body))?;
        self.call(request, answer_bytes_max, CALL_TIME_MAX).await
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, LinkError> {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.origin))
            .header(CONTENT_TYPE, ContentType::Json.as_str())
            .header(ACCEPT, ContentType::Json.as_str())
            .body(Full::new(body))
            .map_err(|error| LinkError::Protocol(error.to_string()))
    }

    async fn call(
        &self,
        request: Request<Full<Bytes>>,
        bytes_max: usize,
        time_max: Duration,
    ) -> Result<Bytes, LinkError> {
        let mut sender = self.sender.clone();
        let exchange = async move {
            let response = sender
                .send_request(request)
                .await
                .map_err(LinkError::unreachable)?;
            if !response.status().is_success() {
                return Err(read_problem(response).await);
            }
            read_body(response.into_body(), bytes_max).await
        };
        within(time_max, exchange).await?
    }
}

async fn open(server: &Url, tls: Arc<ClientConfig>) -> Result<Link, LinkError> {
    let host = server
        .host_str()
        .ok_or_else(|| LinkError::Protocol("the server address has no host".to_owned()))?;
    let bare_host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = server.port_or_known_default().unwrap_or(443);
    let tcp = TcpStream::connect((bare_host.as_str(), port))
        .await
        .map_err(LinkError::unreachable)?;
    tcp.set_nodelay(true).map_err(LinkError::unreachable)?;
    let name = ServerName::try_from(bare_host).map_err(|error| LinkError::Protocol(error.to_string()))?;
    let tls = TlsConnector::from(tls)
        .connect(name, tcp)
        .await
        .map_err(LinkError::unreachable)?;
    let exporter = tls
        .get_ref()
        .1
        .export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None)
        .map_err(|error| LinkError::Protocol(error.to_string()))?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIME_MAX)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(tls))
        .await
        .map_err(LinkError::unreachable)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection ended");
        }
    });
    Ok(Link {
        sender,
        origin: format!("https://{host}:{port}"),
        exporter: Exporter(exporter),
    })
}

async fn within<T>(time_max: Duration, work: impl Future<Output = T>) -> Result<T, LinkError> {
    tokio::time::timeout(time_max, work)
        .await
        .map_err(|_| LinkError::Unreachable(format!("no answer within {time_max:?}")))
}

async fn read_body(body: Incoming, bytes_max: usize) -> Result<Bytes, LinkError> {
    match Limited::new(body, bytes_max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(LinkError::Protocol(format!(
            "the answer is longer than {bytes_max} bytes"
        ))),
        Err(error) => Err(LinkError::Unreachable(error.to_string())),
    }
}

async fn read_problem(response: Response<Incoming>) -> LinkError {
    let status = response.status();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(parse_retry_after);
    let body = read_body(response.into_body(), PROBLEM_BYTES_MAX)
        .await
        .unwrap_or_default();
    let mut problem =
        decode::<Problem>(ContentType::Json, &body, PROBLEM_BYTES_MAX).unwrap_or_else(|_| Problem {
            kind: String::new(),
            title: String::new(),
            status: 0,
            detail: "the answer carried no problem document".to_owned(),
            code: String::new(),
            request_id: String::new(),
        });
    problem.status = status.as_u16();
    LinkError::Answered {
        problem: Box::new(problem),
        retry_after,
    }
}

/// The open wake stream.
#[derive(Debug)]
pub struct WakeStream {
    body: Incoming,
    reader: WakeReader,
    heard_at: Instant,
}

/// How a wait on the wake stream ended.
#[derive(Debug)]
pub enum Wake {
    /// The server asks for a check-in.
    Come,
    /// The stream ended: closed by the server, silent for too long, or not the protocol.
    Ended(String),
}

impl WakeStream {
    /// Waits for the next wake-up. Cancel-safe: what was read is kept.
    pub async fn next(&mut self) -> Wake {
        loop {
            let frame =
                match tokio::time::timeout_at(self.heard_at + WAKE_SILENCE_MAX, self.body.frame()).await {
                    Err(_) => return Wake::Ended(format!("silent for {WAKE_SILENCE_MAX:?}")),
                    Ok(None) => return Wake::Ended("closed by the server".to_owned()),
                    Ok(Some(Err(error))) => return Wake::Ended(error.to_string()),
                    Ok(Some(Ok(frame))) => frame,
                };
            self.heard_at = Instant::now();
            let Ok(data) = frame.into_data() else { continue };
            match self.reader.feed(&data) {
                Ok(true) => return Wake::Come,
                Ok(false) => {}
                Err(error) => return Wake::Ended(error.to_string()),
            }
        }
    }
}
