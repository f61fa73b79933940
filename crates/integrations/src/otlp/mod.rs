//! Spans to a collector over OTLP 1 (<https://opentelemetry.io/docs/specs/otlp/>): gRPC, or protocol buffers over HTTP.
//!
//! The requests are a message of few fields and one call, so that they are written by hand on the HTTP client that is here anyway;
//! what the OpenTelemetry SDK would add is told in decision 0019.

mod grpc;
mod wire;

use std::{fmt, str::FromStr, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use muster_control::trace::{ExportError, Span, SpanExporter};
use reqwest::{Certificate, Client, header};
use url::Url;

use self::wire::Resource;

/// How long one request may take: the default of the OpenTelemetry specification.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Headers that requests may be given.
const HEADERS_MAX: usize = 16;
/// The path of traces below an endpoint for HTTP.
const TRACES_PATH: &str = "v1/traces";

/// Why an exporter cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    #[error("the endpoint is not an http or https URL without credentials")]
    Endpoint,
    #[error("{0:?} is neither grpc nor http/protobuf")]
    Protocol(String),
    #[error("header {0} is not NAME=VALUE, or not one to give")]
    Header(usize),
    #[error("there are more than {HEADERS_MAX} headers")]
    Headers,
    #[error("the file of authorities holds no certificate in PEM")]
    Authorities,
    #[error("the HTTP client cannot be made")]
    Client,
}

/// How spans travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OtlpProtocol {
    Grpc,
    /// The default of the OpenTelemetry specification.
    #[default]
    HttpProtobuf,
}

impl FromStr for OtlpProtocol {
    type Err = OtlpError;

    fn from_str(text: &str) -> Result<OtlpProtocol, OtlpError> {
        match text {
            "grpc" => Ok(OtlpProtocol::Grpc),
            "http/protobuf" => Ok(OtlpProtocol::HttpProtobuf),
            _ => Err(OtlpError::Protocol(text.to_owned())),
        }
    }
}

/// Headers of every request. They may hold a secret, and are never shown.
#[derive(Clone, Default)]
pub struct OtlpHeaders(HeaderMap);

impl fmt::Debug for OtlpHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OtlpHeaders({})", self.0.len())
    }
}

impl OtlpHeaders {
    /// Reads lines of `name=value`.
    pub fn from_lines(text: &str) -> Result<OtlpHeaders, OtlpError> {
        let lines = text.lines().map(str::trim);
        Self::read(lines.filter(|line| !line.is_empty()), |value| {
            Some(value.to_owned())
        })
    }

    /// Reads what `OTEL_EXPORTER_OTLP_HEADERS` holds: `name=value,name=value`, the values percent-encoded.
    pub fn from_variable(text: &str) -> Result<OtlpHeaders, OtlpError> {
        let pairs = text.split(',').map(str::trim);
        Self::read(pairs.filter(|pair| !pair.is_empty()), percent_decoded)
    }

    fn read<'a>(
        pairs: impl Iterator<Item = &'a str>,
        decode: impl Fn(&str) -> Option<String>,
    ) -> Result<OtlpHeaders, OtlpError> {
        let mut headers = HeaderMap::new();
        for (index, pair) in pairs.enumerate() {
            if index == HEADERS_MAX {
                return Err(OtlpError::Headers);
            }
            let (name, value) = header_of(pair, &decode).ok_or(OtlpError::Header(index + 1))?;
            headers.insert(name, value);
        }
        Ok(OtlpHeaders(headers))
    }
}

fn header_of(pair: &str, decode: &impl Fn(&str) -> Option<String>) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = pair.split_once('=')?;
    let name: HeaderName = name.trim().parse().ok()?;
    let is_ours = [
        header::CONTENT_TYPE,
        header::CONTENT_LENGTH,
        header::HOST,
        header::TE,
    ]
    .contains(&name);
    let mut value = HeaderValue::from_str(&decode(value.trim())?).ok()?;
    value.set_sensitive(true);
    (!is_ours).then_some((name, value))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        decoded.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(decoded).ok()
}

/// Where spans go.
#[derive(Debug, Clone)]
pub struct OtlpOptions {
    /// Such as `http://collector:4317`. For HTTP, `/v1/traces` is appended unless the path ends so.
    pub endpoint: String,
    /// The endpoint is the whole address of traces: nothing is appended.
    pub is_whole: bool,
    pub protocol: OtlpProtocol,
    pub headers: OtlpHeaders,
    /// PEM: the authorities that the collector's certificate is from; the system's where there are none.
    pub authorities: Option<Vec<u8>>,
    /// The server's name in traces.
    pub service_name: String,
    pub service_version: String,
    /// This process among those of that name.
    pub service_instance: String,
}

/// An exporter over OTLP.
#[derive(Debug)]
pub struct Otlp {
    client: Client,
    url: Url,
    protocol: OtlpProtocol,
    headers: OtlpHeaders,
    server: Resource,
}

impl Otlp {
    /// Prepares an exporter. Nothing is sent yet: the collector may be away.
    pub fn open(options: &OtlpOptions) -> Result<Otlp, OtlpError> {
        let url = match options.protocol {
            OtlpProtocol::Grpc => grpc::url(endpoint(&options.endpoint)?)?,
            OtlpProtocol::HttpProtobuf if options.is_whole => endpoint(&options.endpoint)?,
            OtlpProtocol::HttpProtobuf => traces_url(endpoint(&options.endpoint)?),
        };
        let mut builder = Client::builder()
            .timeout(REQUEST_TIME)
            .redirect(reqwest::redirect::Policy::none());
        if options.protocol == OtlpProtocol::Grpc {
            // gRPC is HTTP/2 alone, with and without TLS.
            builder = builder.http2_prior_knowledge();
        }
        if let Some(pem) = &options.authorities {
            let certificates = Certificate::from_pem_bundle(pem).map_err(|_| OtlpError::Authorities)?;
            if certificates.is_empty() {
                return Err(OtlpError::Authorities);
            }
            builder = builder.tls_certs_only(certificates);
        }
        Ok(Otlp {
            client: builder.build().map_err(|_| OtlpError::Client)?,
            url,
            protocol: options.protocol,
            headers: options.headers.clone(),
            server: Resource {
                service_name: options.service_name.clone(),
                service_version: options.service_version.clone(),
                service_instance: options.service_instance.clone(),
            },
        })
    }

    /// The origin, for messages: it holds no secret.
    pub fn place(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    async fn send(&self, spans: &[Span]) -> Result<u64, ExportError> {
        let message = wire::request(&self.server, spans);
        let request = self.client.post(self.url.clone()).headers(self.headers.0.clone());
        match self.protocol {
            OtlpProtocol::Grpc => grpc::call(request, &message).await,
            OtlpProtocol::HttpProtobuf => post(request, message).await,
        }
    }
}

impl SpanExporter for Otlp {
    fn export<'a>(&'a self, spans: &'a [Span]) -> BoxFuture<'a, Result<u64, ExportError>> {
        self.send(spans).boxed()
    }
}

fn endpoint(text: &str) -> Result<Url, OtlpError> {
    let url = Url::parse(text).map_err(|_| OtlpError::Endpoint)?;
    let is_plain = matches!(url.scheme(), "http" | "https")
        && url.host().is_some()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none();
    is_plain.then_some(url).ok_or(OtlpError::Endpoint)
}

fn traces_url(mut url: Url) -> Url {
    let path = url.path().trim_end_matches('/').to_owned();
    if !path.ends_with(TRACES_PATH) {
        url.set_path(&format!("{path}/{TRACES_PATH}"));
    }
    url
}

/// OTLP/HTTP: `POST` of the message (section "OTLP/HTTP Request").
async fn post(request: reqwest::RequestBuilder, message: Vec<u8>) -> Result<u64, ExportError> {
    let request = request
        .header(header::CONTENT_TYPE, "application/x-protobuf")
        .body(message);
    let response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    if status.is_success() {
        let answer = body(response).await?;
        return Ok(wire::rejected(&answer));
    }
    let why = format!("HTTP status {}", status.as_u16());
    Err(match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => ExportError::Unavailable(why),
        _ => ExportError::Refused(why),
    })
}

/// What kept a request from being answered. The address is left out: it may be somebody's secret.
fn unreachable(error: reqwest::Error) -> ExportError {
    let error = error.without_url();
    let mut why = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        why = cause.to_string();
        source = cause.source();
    }
    ExportError::Unavailable(why)
}

async fn body(mut response: reqwest::Response) -> Result<Vec<u8>, ExportError> {
    let mut answer = Vec::new();
    while let Some(part) = response.chunk().await.map_err(unreachable)? {
        if answer.len() + part.len() > ANSWER_BYTES_MAX {
            return Err(ExportError::Refused("its answer is too long".to_owned()));
        }
        answer.extend_from_slice(&part);
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_the_specification_and_a_file_write_them() {
        let value = |headers: &OtlpHeaders, name: &str| {
            headers
                .0
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let headers = OtlpHeaders::from_variable("Authorization=Basic%20YTpi, x-team=mdm").expect("headers");
        assert_eq!(value(&headers, "authorization").as_deref(), Some("Basic YTpi"));
        assert_eq!(value(&headers, "x-team").as_deref(), Some("mdm"));
        let headers = OtlpHeaders::from_lines("authorization=Basic YTpi=,x\n\n").expect("headers");
        assert_eq!(value(&headers, "authorization").as_deref(), Some("Basic YTpi=,x"));
        for bad in ["x", "=x", "a b=c", "host=x", "a=%zz", "a=%2", "a=%00"] {
            assert!(OtlpHeaders::from_variable(bad).is_err(), "{bad}");
        }
        assert!(OtlpHeaders::from_lines(&"a=b\n".repeat(17)).is_err());
    }

    #[test]
    fn l1_headers_are_never_shown() {
        let headers = OtlpHeaders::from_lines("authorization=Bearer canary").expect("headers");
        assert!(!format!("{headers:?}").contains("canary"));
        assert!(!format!("{:?}", headers.0).contains("canary"));
        let error = OtlpHeaders::from_lines("canary")
            .err()
            .map(|error| error.to_string());
        assert!(error.is_some_and(|error| !error.contains("canary")));
    }

    #[test]
    fn an_endpoint_is_a_base_or_the_whole_address() {
        let of = |text: &str| endpoint(text).map(|url| traces_url(url).to_string());
        assert_eq!(
            of("http://c:4318").ok().as_deref(),
            Some("http://c:4318/v1/traces")
        );
        assert_eq!(
            of("http://c/otlp/").ok().as_deref(),
            Some("http://c/otlp/v1/traces")
        );
        assert_eq!(
            of("https://c/v1/traces").ok().as_deref(),
            Some("https://c/v1/traces")
        );
        for bad in [
            "c:4318",
            "ftp://c",
            "http://user:secret@c",
            "http://c/?token=x",
            "",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
