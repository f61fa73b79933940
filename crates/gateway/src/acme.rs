//! The ACME server on the device listener, below `/acme/{tenant}/` (RFC 8555): limits, headers and problem documents. What a
//! request means is `muster_control::acme`.

mod limiter;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use muster_control::{
    access::problem::{NOT_FOUND, Problem, RATE_LIMITED, UNSUPPORTED_MEDIA_TYPE},
    acme::{AcmeProblem, BODY_BYTES_MAX, CONTENT_TYPE, Call, Ended, ErrorType, Reply, ReplyBody, Server},
    trace::current_id,
};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::{Gateway, Peer, acme::limiter::Limiter, wire};

const REPLAY_NONCE: HeaderName = HeaderName::from_static("replay-nonce");
/// When an address that asked too often may come again.
const LIMITED_SECONDS: u64 = 60;

/// What the routes work with.
#[derive(Clone)]
struct Acme {
    gateway: Gateway,
    limiter: Arc<Mutex<Limiter>>,
}

/// Every route of the ACME server.
pub fn routes<S: Clone + Send + Sync + 'static>(gateway: Gateway) -> Router<S> {
    let state = Acme {
        gateway,
        limiter: Arc::default(),
    };
    Router::new()
        .route("/acme/{tenant}/directory", get(directory))
        .route("/acme/{tenant}/new-nonce", get(new_nonce))
        .route("/acme/{tenant}/new-account", post(new_account))
        .route("/acme/{tenant}/account/{key}", post(account))
        .route("/acme/{tenant}/account/{key}/orders", post(orders))
        .route("/acme/{tenant}/new-order", post(new_order))
        .route("/acme/{tenant}/order/{id}", post(order))
        .route("/acme/{tenant}/order/{id}/finalize", post(finalize))
        .route("/acme/{tenant}/authz/{id}", post(authorization))
        .route("/acme/{tenant}/challenge/{id}", post(challenge))
        .route("/acme/{tenant}/certificate/{id}", post(certificate))
        .route("/acme/{tenant}/revoke-cert", post(revoke))
        .with_state(state)
}

async fn directory(State(acme): State<Acme>, Path(tenant): Path<String>) -> Result<Response, Problem> {
    let server = acme.server(&tenant).await?;
    let mut response = Bytes::from(server.directory()).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// RFC 8555 §7.2: 200 for HEAD, 204 for GET.
async fn new_nonce(
    State(acme): State<Acme>,
    Path(tenant): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let server = acme.server(&tenant).await?;
    let status = match *request.method() {
        http::Method::HEAD => StatusCode::OK,
        _ => StatusCode::NO_CONTENT,
    };
    let mut response = status.into_response();
    finish(&server, response.headers_mut());
    Ok(response)
}

async fn new_account(state: State<Acme>, Path(tenant): Path<String>, request: Request) -> Response {
    serve(state.0, &tenant, Some(Call::NewAccount), request).await
}

async fn account(
    state: State<Acme>,
    Path((tenant, key)): Path<(String, String)>,
    request: Request,
) -> Response {
    serve(state.0, &tenant, Some(Call::Account(key)), request).await
}

async fn orders(
    state: State<Acme>,
    Path((tenant, key)): Path<(String, String)>,
    request: Request,
) -> Response {
    serve(state.0, &tenant, Some(Call::Orders(key)), request).await
}

async fn new_order(state: State<Acme>, Path(tenant): Path<String>, request: Request) -> Response {
    serve(state.0, &tenant, Some(Call::NewOrder), request).await
}

async fn order(state: State<Acme>, Path((tenant, id)): Path<(String, String)>, request: Request) -> Response {
    serve(state.0, &tenant, parse(&id).map(Call::Order), request).await
}

async fn finalize(
    state: State<Acme>,
    Path((tenant, id)): Path<(String, String)>,
    request: Request,
) -> Response {
    serve(state.0, &tenant, parse(&id).map(Call::Finalize), request).await
}

async fn authorization(
    state: State<Acme>,
    Path((tenant, id)): Path<(String, String)>,
    request: Request,
) -> Response {
    serve(state.0, &tenant, parse(&id).map(Call::Authorization), request).await
}

async fn challenge(
    state: State<Acme>,
    Path((tenant, id)): Path<(String, String)>,
    request: Request,
) -> Response {
    serve(state.0, &tenant, parse(&id).map(Call::Challenge), request).await
}

async fn certificate(
    state: State<Acme>,
    Path((tenant, id)): Path<(String, String)>,
    request: Request,
) -> Response {
    serve(state.0, &tenant, parse(&id).map(Call::Certificate), request).await
}

async fn revoke(state: State<Acme>, Path(tenant): Path<String>, request: Request) -> Response {
    serve(state.0, &tenant, Some(Call::RevokeCertificate), request).await
}

/// An id as the server writes it, 32 lower-case hex digits, and in no other spelling.
fn parse(id: &str) -> Option<Uuid> {
    let parsed = Uuid::try_parse(id).ok()?;
    (parsed.as_simple().to_string() == id).then_some(parsed)
}

/// Answers a signed request. Without a call there is nothing under the path.
async fn serve(acme: Acme, tenant: &str, call: Option<Call>, request: Request) -> Response {
    let server = match acme.server(tenant).await {
        Ok(server) => server,
        Err(problem) => return problem.into_response(),
    };
    let answered = match call {
        Some(call) => acme.answer(&server, call, request).await,
        None => Err(ErrorType::Malformed.because(nothing())),
    };
    let mut response = match answered {
        Ok(reply) => succeeded(&acme, reply),
        Err(refusal) => {
            if ends_enrollment(refusal.kind) {
                acme.gateway.metrics.enrollment("refused");
            }
            refused(&refusal)
        }
    };
    finish(&server, response.headers_mut());
    response
}

impl Acme {
    async fn server(&self, tenant: &str) -> Result<Server, Problem> {
        Server::of(&self.gateway.app, tenant).await?.ok_or_else(nothing)
    }

    async fn answer(&self, server: &Server, call: Call, request: Request) -> Result<Reply, AcmeProblem> {
        self.admit(&request)?;
        let content_type = request.headers().get(header::CONTENT_TYPE);
        if content_type.is_none_or(|value| value.as_bytes() != CONTENT_TYPE.as_bytes()) {
            return Err(ErrorType::Malformed
                .because(UNSUPPORTED_MEDIA_TYPE.detail("Send the request as application/jose+json.")));
        }
        let path = request
            .uri()
            .path_and_query()
            .map(|path| path.as_str().to_owned())
            .unwrap_or_default();
        let body = wire::body(request, BODY_BYTES_MAX).await?;
        server.answer(&path, call, &body).await
    }

    /// Signatures are checked and nonces are kept for anybody, so nobody may ask without end.
    fn admit(&self, request: &Request) -> Result<(), AcmeProblem> {
        let remote = request.extensions().get::<Peer>().and_then(|peer| peer.remote);
        // Those whose address no proxy knows share one.
        let address = remote.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |remote| remote.ip());
        let now = self.gateway.app.clock.now();
        if self.limiter.lock().take(address, now) {
            return Ok(());
        }
        let problem = RATE_LIMITED.detail("Too many requests from this address. Come again later.");
        Err(problem.retry_after(LIMITED_SECONDS).into())
    }
}

/// Whether a refusal is of a device, rather than of a request that its client can make again.
fn ends_enrollment(kind: ErrorType) -> bool {
    matches!(
        kind,
        ErrorType::Unauthorized | ErrorType::BadCsr | ErrorType::BadAttestationStatement
    )
}

fn succeeded(acme: &Acme, reply: Reply) -> Response {
    match reply.enrollment {
        Some(Ended::Done) => acme.gateway.metrics.enrollment("done"),
        Some(Ended::Refused) => acme.gateway.metrics.enrollment("refused"),
        None => {}
    }
    let status = match reply.is_new {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    let (content_type, body) = match reply.body {
        ReplyBody::Json(bytes) => (Some("application/json"), Bytes::from(bytes)),
        ReplyBody::Pem(text) => (Some("application/pem-certificate-chain"), Bytes::from(text)),
        ReplyBody::Empty => (None, Bytes::new()),
    };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    if let Some(content_type) = content_type {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    if let Some(location) = reply.location.and_then(|url| HeaderValue::from_str(&url).ok()) {
        headers.insert(header::LOCATION, location);
    }
    if let Some(up) = reply.up {
        link(headers, &up, "up");
    }
    response
}

fn refused(refusal: &AcmeProblem) -> Response {
    let request_id = current_id().map(|id| id.to_string());
    if let Some(cause) = refusal.problem.cause() {
        let code = refusal.problem.code();
        tracing::error!(code, %cause, request_id = request_id.as_deref(), "an ACME request failed");
    }
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::to_vec(&refusal.document(request_id)).unwrap_or_default();
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    if let Some(seconds) = refusal.problem.retry_after_seconds {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// What every answer has (RFC 8555 §6.5, §7.1): a fresh nonce, the way to the directory, and no place in a cache.
fn finish(server: &Server, headers: &mut HeaderMap) {
    if let Ok(nonce) = HeaderValue::from_str(&server.nonce()) {
        headers.insert(REPLAY_NONCE, nonce);
    }
    link(headers, &server.directory_url(), "index");
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

fn link(headers: &mut HeaderMap, url: &str, relation: &str) {
    if let Ok(value) = HeaderValue::from_str(&format!("<{url}>;rel=\"{relation}\"")) {
        headers.append(header::LINK, value);
    }
}

/// As for a path that is no route: whether a tenant exists is nobody's to ask here.
fn nothing() -> Problem {
    NOT_FOUND.detail(crate::agent::NO_SUCH_PATH)
}
