//! One HTTP/2 connection of a simulated device: check-ins, downloads and the wake stream share it.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use muster_channel_agent::Base64Bytes;
use muster_channel_agent::backoff::parse_retry_after;
use muster_channel_agent::enroll::{EXPORTER_BYTES, EXPORTER_LABEL};
use muster_channel_agent::limits::{PROBLEM_BYTES_MAX, TELEMETRY_RESPONSE_BYTES_MAX};
use muster_channel_agent::telemetry::{TelemetryAnswer, TelemetryBatch, encode_batch};
use muster_channel_agent::wake::WakeReader;
use muster_channel_agent::{ContentType, ErrorCode, Problem, decode, encode, path};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout, timeout_at};

use crate::tls::{Credentials, Endpoint, H2};

const CONNECT_TIME_MAX: Duration = Duration::from_secs(60);
const CALL_TIME_MAX: Duration = Duration::from_secs(60);
/// A wake stream that is silent for longer than this is dead: the server writes every 25 s, and a loaded machine is late.
const WAKE_SILENCE_MAX: Duration = Duration::from_secs(90);
/// Receive windows: the smallest that HTTP/2 starts with, so that an idle connection costs little memory.
const WINDOW_BYTES: u32 = 64 * 1024;
/// What a connection holds back for sending.
const SEND_BUFFER_BYTES: usize = 16 * 1024;

/// Why an exchange did not happen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkError {
    /// No answer came.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// The server refused.
    #[error("the server answered {status} {code}: {detail}", status = problem.status, code = problem.code,
            detail = problem.detail)]
    Answered {
        /// What it said.
        problem: Box<Problem>,
        /// When to come back.
        retry_after: Option<Duration>,
    },
    /// The answer is not the protocol.
    #[error("the server's answer is not valid: {0}")]
    Protocol(String),
}

impl LinkError {
    pub(crate) fn unreachable(error: impl std::error::Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            text = inner.to_string();
            source = inner.source();
        }
        Self::Unreachable(text)
    }

    /// The code of a refusal.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Answered { problem, .. } => problem.code(),
            Self::Unreachable(_) | Self::Protocol(_) => None,
        }
    }

    /// When the server wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Answered { retry_after, .. } => *retry_after,
            Self::Unreachable(_) | Self::Protocol(_) => None,
        }
    }
}

/// An open connection.
#[derive(Clone, Debug)]
pub struct Link {
    sender: http2::SendRequest<Full<Bytes>>,
    authority: String,
    content_type: ContentType,
    exporter: [u8; EXPORTER_BYTES],
}

impl Link {
    /// Opens a connection that speaks JSON or CBOR.
    pub async fn connect(
        endpoint: &Endpoint,
        anchors: &[Base64Bytes],
        credentials: Option<Credentials<'_>>,
        content_type: ContentType,
    ) -> Result<Self, LinkError> {
        let open = async {
            let tls = endpoint.connect(anchors, credentials, H2).await?;
            let exporter = tls
                .get_ref()
                .1
                .export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None)
                .map_err(LinkError::unreachable)?;
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(WINDOW_BYTES)
                .initial_connection_window_size(WINDOW_BYTES)
                .max_send_buf_size(SEND_BUFFER_BYTES)
                .handshake(TokioIo::new(tls))
                .await
                .map_err(LinkError::unreachable)?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::trace!(%error, "connection ended");
                }
            });
            Ok(Self {
                sender,
                authority: endpoint.authority(),
                content_type,
                exporter,
            })
        };
        within(CONNECT_TIME_MAX, open).await?
    }

    /// What names this connection in an enrollment's transcript.
    pub fn exporter(&self) -> &[u8; EXPORTER_BYTES] {
        &self.exporter
    }

    /// True once the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// One exchange of messages.
    pub async fn exchange<T: DeserializeOwned>(
        &self,
        path: &str,
        message: &impl Serialize,
        answer_bytes_max: usize,
    ) -> Result<T, LinkError> {
        let body = self.send(Method::POST, path, message, answer_bytes_max).await?;
        decode(self.content_type, &body, answer_bytes_max)
            .map_err(|error| LinkError::Protocol(error.to_string()))
    }

    /// One upload that is answered without a body.
    pub async fn upload(&self, path: &str, message: &impl Serialize) -> Result<(), LinkError> {
        self.send(Method::PUT, path, message, PROBLEM_BYTES_MAX)
            .await
            .map(drop)
    }

    /// Uploads one batch of telemetry.
    pub async fn telemetry(&self, batch: &TelemetryBatch) -> Result<TelemetryAnswer, LinkError> {
        let (encoding, body) =
            encode_batch(self.content_type, batch).map_err(|error| LinkError::Protocol(error.to_string()))?;
        let mut request = self.request(Method::POST, path::TELEMETRY, Bytes::from(body))?;
        if let Some(encoding) = encoding.as_header() {
            let value = http::HeaderValue::from_static(encoding);
            request.headers_mut().insert(CONTENT_ENCODING, value);
        }
        let answer = self.call(request, TELEMETRY_RESPONSE_BYTES_MAX).await?;
        decode(self.content_type, &answer, TELEMETRY_RESPONSE_BYTES_MAX)
            .map_err(|error| LinkError::Protocol(error.to_string()))
    }

    /// Downloads a bundle.
    pub async fn bundle(&self, sha256: &str, bytes_max: usize) -> Result<Bytes, LinkError> {
        let request = self.request(Method::GET, &format!("{}{sha256}", path::BUNDLES), Bytes::new())?;
        self.call(request, bytes_max).await
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
            encode(self.content_type, message).map_err(|error| LinkError::Protocol(error.to_string()))?;
        self.call(self.request(method, path, Bytes::from(body))?, answer_bytes_max)
            .await
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, LinkError> {
        Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.authority))
            .header(CONTENT_TYPE, self.content_type.as_str())
            .header(ACCEPT, self.content_type.as_str())
            .body(Full::new(body))
            .map_err(|error| LinkError::Protocol(error.to_string()))
    }

    async fn call(&self, request: Request<Full<Bytes>>, bytes_max: usize) -> Result<Bytes, LinkError> {
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
        within(CALL_TIME_MAX, exchange).await?
    }
}

async fn within<T>(time_max: Duration, work: impl Future<Output = T>) -> Result<T, LinkError> {
    timeout(time_max, work)
        .await
        .map_err(|_| LinkError::Unreachable(format!("no answer within {time_max:?}")))
}

async fn read_body(body: Incoming, bytes_max: usize) -> Result<Bytes, LinkError> {
    let body = Limited::new(body, bytes_max).collect().await;
    body.map(|body| body.to_bytes())
        .map_err(|error| LinkError::Unreachable(error.to_string()))
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
    match decode::<Problem>(ContentType::Json, &body, PROBLEM_BYTES_MAX) {
        Ok(mut problem) => {
            problem.status = status.as_u16();
            LinkError::Answered {
                problem: Box::new(problem),
                retry_after,
            }
        }
        Err(_) => LinkError::Protocol(format!("status {status} without a problem document")),
    }
}

/// The open wake stream.
#[derive(Debug)]
pub struct WakeStream {
    body: Incoming,
    reader: WakeReader,
    heard_at: Instant,
}

impl WakeStream {
    /// Waits for the next wake-up; false when the stream has ended. Cancel-safe: what was read is kept.
    pub async fn next(&mut self) -> bool {
        loop {
            let Ok(Some(Ok(frame))) = timeout_at(self.heard_at + WAKE_SILENCE_MAX, self.body.frame()).await
            else {
                return false;
            };
            self.heard_at = Instant::now();
            let Ok(data) = frame.into_data() else { continue };
            match self.reader.feed(&data) {
                Ok(true) => return true,
                Ok(false) => {}
                Err(_) => return false,
            }
        }
    }
}
