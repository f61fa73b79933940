//! OTLP over gRPC: one unary call (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use http::HeaderMap;
use http_body_util::{BodyExt, Limited};
use muster_control::trace::ExportError;
use reqwest::header;
use url::Url;

use super::{ANSWER_BYTES_MAX, OtlpError, unreachable, wire};

const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// What stands before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

pub fn url(mut url: Url) -> Result<Url, OtlpError> {
    if !matches!(url.path(), "" | "/") {
        return Err(OtlpError::Endpoint);
    }
    url.set_path(METHOD);
    Ok(url)
}

/// Calls `Export`; answers how many spans were not wanted.
pub async fn call(request: reqwest::RequestBuilder, message: &[u8]) -> Result<u64, ExportError> {
    let request = request
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(framed(message));
    let response: http::Response<reqwest::Body> = request.send().await.map_err(unreachable)?.into();
    let (parts, body) = response.into_parts();
    if !parts.status.is_success() {
        return Err(ExportError::Unavailable(format!(
            "HTTP status {}",
            parts.status.as_u16()
        )));
    }
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| ExportError::Unavailable(error.to_string()))?;
    // What fails at once has its status among the headers.
    let status = body
        .trailers()
        .and_then(status)
        .or_else(|| status(&parts.headers))
        .ok_or_else(|| ExportError::Unavailable("it answers without a status of gRPC".to_owned()))?;
    if status != 0 {
        let why = format!("gRPC status {status}");
        return Err(if is_passing(status) {
            ExportError::Unavailable(why)
        } else {
            ExportError::Refused(why)
        });
    }
    let answer = body.to_bytes();
    Ok(answer.get(PREFIX_BYTES..).map_or(0, wire::rejected))
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a batch of spans has a bound");
    let mut body = Vec::with_capacity(PREFIX_BYTES + message.len());
    body.push(0);
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(message);
    body
}

fn status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// Whether a call may work later (OTLP specification, "Failures"): cancelled, deadline exceeded, resource exhausted, aborted, out
/// of range, unavailable, data loss.
fn is_passing(status: u32) -> bool {
    matches!(status, 1 | 4 | 8 | 10 | 11 | 14 | 15)
}
