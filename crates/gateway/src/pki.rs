//! What relying parties of the device certificates fetch: authorities, revocation lists, OCSP.
//!
//! These routes are public by design (RFC 5280 section 8, RFC 6960): they say of a serial number what a Wi-Fi or VPN
//! server must know, and nothing else. They are on the device listener and, because relying parties fetch over plain
//! HTTP, on a listener of their own where the operator asks for one.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{
    Engine, alphabet, engine::DecodePaddingMode, engine::GeneralPurpose, engine::GeneralPurposeConfig,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use muster_control::{
    App,
    access::problem::{BODY_TOO_LARGE, METHOD_NOT_ALLOWED, NOT_FOUND, Problem},
    certificates::{self, OCSP_REQUEST_BYTES_MAX, OcspAnswer},
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use tower::Service;

/// Connections of the plain listener.
const CONNECTIONS_MAX: usize = 512;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection of the plain listener ends after this long, whatever it does.
const CONNECTION_LIVES: Duration = Duration::from_secs(60);
const HEADER_BYTES_MAX: usize = 8 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

const CERTIFICATE_TYPE: &str = "application/pkix-cert";
const LIST_TYPE: &str = "application/pkix-crl";
const OCSP_TYPE: &str = "application/ocsp-response";
/// An authority's certificate never changes.
const CERTIFICATE_SECONDS: u64 = 86_400;

/// RFC 6960 appendix A asks for base64, which some write without padding.
const OCSP_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The public routes below `/pki`, for any listener.
pub fn routes<S: Clone + Send + Sync + 'static>(app: App) -> Router<S> {
    Router::new()
        .route("/pki/ocsp", post(ocsp_post))
        .route("/pki/ocsp/{*request}", get(ocsp_get))
        .route("/pki/{file}", get(file))
        .layer(DefaultBodyLimit::max(OCSP_REQUEST_BYTES_MAX))
        .with_state(app)
}

/// The router of the plain listener.
pub fn router(app: App) -> Router {
    routes(app)
        .fallback(|| async { NOT_FOUND.detail("This listener has the paths below /pki alone.") })
        .method_not_allowed_fallback(|| async { METHOD_NOT_ALLOWED.detail("The path takes another method.") })
}

async fn file(State(app): State<App>, Path(name): Path<String>) -> Result<Response, Problem> {
    let unknown =
        || NOT_FOUND.detail("There is no such file. See docs/how-to/device-certificates-for-wifi.md.");
    let set = app.keys.authority.set();
    let (stem, kind) = name.rsplit_once('.').ok_or_else(unknown)?;
    let id = match stem {
        "device-ca" => set.device().id.clone(),
        other => other.to_owned(),
    };
    match kind {
        "der" if stem == "root" => Ok(bytes(
            app.keys.authority.root_certificate().to_vec(),
            CERTIFICATE_TYPE,
            CERTIFICATE_SECONDS,
        )),
        "der" => {
            let member = set
                .device_cas()
                .find(|member| member.id == id)
                .ok_or_else(unknown)?;
            let seconds = if stem == "device-ca" {
                60
            } else {
                CERTIFICATE_SECONDS
            };
            Ok(bytes(member.certificate.to_vec(), CERTIFICATE_TYPE, seconds))
        }
        "crl" => {
            let (list, seconds) = certificates::revocation_list(&app, &id).await?;
            Ok(bytes(Bytes::from_owner(list), LIST_TYPE, seconds))
        }
        _ => Err(unknown()),
    }
}

async fn ocsp_post(State(app): State<App>, request: Request) -> Response {
    let body = axum::body::to_bytes(request.into_body(), OCSP_REQUEST_BYTES_MAX);
    match timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => said(certificates::answer_ocsp(&app, &body).await),
        _ => BODY_TOO_LARGE
            .detail("An OCSP request has at most 4096 bytes, sent within ten seconds.")
            .into_response(),
    }
}

async fn ocsp_get(State(app): State<App>, Path(request): Path<String>) -> Response {
    let request = match request.len() > OCSP_REQUEST_BYTES_MAX * 2 {
        true => Vec::new(),
        // What is no base64 is answered as any other request that cannot be read.
        false => OCSP_BASE64.decode(request.as_bytes()).unwrap_or_default(),
    };
    said(certificates::answer_ocsp(&app, &request).await)
}

fn said(answer: OcspAnswer) -> Response {
    bytes(Bytes::from_owner(answer.der), OCSP_TYPE, answer.max_age_seconds)
}

fn bytes(content: impl Into<Bytes>, content_type: &'static str, seconds: u64) -> Response {
    let mut response = Body::from(content.into()).into_response();
    *response.status_mut() = StatusCode::OK;
    let caching = match seconds {
        0 => "no-store".to_owned(),
        _ => format!("public, max-age={seconds}, no-transform, must-revalidate"),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Ok(caching) = HeaderValue::from_str(&caching) {
        headers.insert(header::CACHE_CONTROL, caching);
    }
    headers.insert(
        HeaderName::from_static("x-content-type-options"),
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// Serves `router` over plain HTTP/1.1 on `tcp` until `stop` becomes true.
pub async fn serve_plain(tcp: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = tcp.accept() => accepted,
            _ = stop.changed() => return,
        };
        let (socket, _): (_, SocketAddr) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let router = router.clone();
        tokio::spawn(async move {
            let _slot = slot;
            let service = service_fn(move |request: hyper::Request<Incoming>| {
                router.clone().call(request.map(Body::new))
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(HEADER_BYTES_MAX)
                .serve_connection(TokioIo::new(socket), service);
            // A connection that breaks, or that is cut off, is the client's affair.
            let _ = timeout(CONNECTION_LIVES, connection).await;
        });
    }
}
