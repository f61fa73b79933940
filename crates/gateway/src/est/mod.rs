//! EST (RFC 7030) on the device listener: a first certificate for a challenge, the next one for the current certificate.
//!
//! Server-side key generation and full CMC are not served: a device's key never leaves the device.

use axum::{
    Router,
    body::Bytes,
    extract::{Request as HttpRequest, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use muster_control::{
    App,
    access::problem::{CHALLENGE_INVALID, CSR_INVALID, MALFORMED, Problem, UNSUPPORTED_MEDIA_TYPE},
    certificates::CSR_BYTES_MAX,
    devices::Protocol,
};
use zeroize::Zeroizing;

use crate::{
    Gateway, Peer,
    identity::known_peer,
    scep::{Refused, Request, RequestError, Subject, certificates_only, der, enroll, oid, renew},
    wire,
};

/// A request in base64, with its line breaks.
const BODY_BYTES_MAX: usize = CSR_BYTES_MAX / 3 * 4 + 1024;
/// The value of an Authorization header: a name of the client's choice and a challenge.
const AUTHORIZATION_BYTES_MAX: usize = 1024;

/// Every route of EST that is served.
pub fn router() -> Router<Gateway> {
    Router::new()
        .route("/.well-known/est/cacerts", get(authorities))
        .route("/.well-known/est/csrattrs", get(wanted))
        .route("/.well-known/est/simpleenroll", post(first))
        .route("/.well-known/est/simplereenroll", post(next))
}

/// The chain above every device certificate (RFC 7030 §4.1).
async fn authorities(State(gateway): State<Gateway>) -> Response {
    let authority = &gateway.app.keys.authority;
    let chain = [
        &*authority.device_ca_certificate(),
        &**authority.root_certificate(),
    ];
    encoded("application/pkcs7-mime", &certificates_only(&chain))
}

/// What a request should look like: an ECDSA P-256 key, and SHA-256 (RFC 7030 §4.5.2).
async fn wanted() -> Response {
    let curve = der::wrap(der::tag::SET, &[&der::oid(oid::SECP256R1)]);
    let key = der::sequence(&[&der::oid(oid::EC_PUBLIC_KEY), &curve]);
    let attributes = der::sequence(&[&key, &der::oid(oid::ECDSA_WITH_SHA256)]);
    encoded("application/csrattrs", &attributes)
}

/// `simpleenroll`: the challenge is the password of HTTP Basic authentication; the user may be anything (RFC 7030 §3.2.3).
async fn first(State(gateway): State<Gateway>, request: HttpRequest) -> Response {
    let answered = enroll_first(&gateway.app, request).await;
    let result = if answered.is_ok() { "done" } else { "refused" };
    gateway.metrics.enrollment(result);
    match answered {
        Ok(chain) => issued(&chain),
        Err(problem) => challenged(problem),
    }
}

async fn enroll_first(app: &App, request: HttpRequest) -> Result<Vec<Vec<u8>>, Problem> {
    let (headers, body) = taken(request).await?;
    let challenge = challenge(&headers)?;
    let request = read(&headers, &body)?;
    enroll(app, Protocol::Est, &challenge, &request)
        .await
        .map_err(|refused| match refused {
            Refused::Challenge(problem) => {
                tracing::info!(%problem, "an EST request was refused");
                unknown_challenge()
            }
            Refused::Request(problem) | Refused::Other(problem) => problem,
        })
}

/// `simplereenroll`: the current certificate authenticates, and its subject and names are asked for again (RFC 7030 §4.2.2).
async fn next(State(gateway): State<Gateway>, request: HttpRequest) -> Result<Response, Problem> {
    let app = &gateway.app;
    let peer = request.extensions().get::<Peer>().cloned();
    let (headers, body) = taken(request).await?;
    let known = known_peer(app, peer.as_ref()).await?;
    let request = read(&headers, &body)?;
    if request.alternative_names.is_none() {
        return Err(CSR_INVALID.detail(RequestError::Renewal.to_string()));
    }
    Ok(issued(&renew(app, &known, &request, Subject::Current).await?))
}

/// The headers and the small body. Clients that are refused before they have sent all of it take that for a broken connection.
async fn taken(request: HttpRequest) -> Result<(HeaderMap, Bytes), Problem> {
    let headers = request.headers().clone();
    Ok((headers, wire::body(request, BODY_BYTES_MAX).await?))
}

/// The password of Basic credentials (RFC 7617).
fn challenge(headers: &HeaderMap) -> Result<Zeroizing<String>, Problem> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return Err(unknown_challenge());
    };
    let password = value
        .to_str()
        .ok()
        .filter(|text| text.len() <= AUTHORIZATION_BYTES_MAX)
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
        .and_then(|(_, credentials)| STANDARD.decode(credentials.trim()).ok())
        .map(Zeroizing::new)
        .and_then(|credentials| {
            let text = std::str::from_utf8(&credentials).ok()?;
            Some(Zeroizing::new(text.split_once(':')?.1.to_owned()))
        });
    password.ok_or_else(unknown_challenge)
}

/// One answer for every challenge that opens nothing.
fn unknown_challenge() -> Problem {
    CHALLENGE_INVALID
        .detail("Send an unused challenge of this device as the password of HTTP Basic authentication.")
}

/// Reads a request: PKCS#10 in base64 (RFC 7030 §4.2.1).
fn read(headers: &HeaderMap, body: &[u8]) -> Result<Request, Problem> {
    let is_pkcs10 = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/pkcs10"));
    if !is_pkcs10 {
        return Err(UNSUPPORTED_MEDIA_TYPE.detail("Send the request as application/pkcs10, in base64."));
    }
    let mut text = body.to_vec();
    text.retain(|byte| !byte.is_ascii_whitespace());
    let der = STANDARD
        .decode(text)
        .map_err(|_| MALFORMED.detail("The body is not base64."))?;
    Request::read(&der).map_err(|error| CSR_INVALID.detail(error.to_string()))
}

/// The certificate alone: who wants the chain asks for `cacerts`.
fn issued(chain: &[Vec<u8>]) -> Response {
    let certificate: Vec<&[u8]> = chain.iter().take(1).map(Vec::as_slice).collect();
    encoded(
        "application/pkcs7-mime; smime-type=certs-only",
        &certificates_only(&certificate),
    )
}

/// EST bodies are base64, whatever the transport could carry (RFC 8951 §3.1).
fn encoded(content_type: &'static str, der: &[u8]) -> Response {
    const LINE_CHARS: usize = 64;
    let text = STANDARD.encode(der);
    let lines: Vec<&[u8]> = text.as_bytes().chunks(LINE_CHARS).collect();
    let mut body = lines.join(&b'\n');
    body.push(b'\n');
    let mut response = Bytes::from(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert("content-transfer-encoding", HeaderValue::from_static("base64"));
    response
}

/// A refusal for want of credentials names the scheme that EST clients have.
fn challenged(problem: Problem) -> Response {
    let mut response = problem.into_response();
    if response.status() == StatusCode::UNAUTHORIZED {
        let basic = HeaderValue::from_static("Basic realm=\"muster enrollment\", charset=\"UTF-8\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, basic);
    }
    response
}
