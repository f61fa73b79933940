//! Where sources send to, and where others read our keys: outside of the admin API, for none of them has an account here.

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State, rejection::BytesRejection},
    http::{Extensions, HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use muster_model::{SignalSourceId, TenantId};
use muster_ssf::{RejectCode, SET_BYTES_MAX, uri};
use muster_storage::Scope;
use serde_json::json;

use super::{
    arrive::{Told, arrive},
    keys,
};
use crate::{
    App, access,
    access::problem::{NOT_FOUND, Problem},
    strangers::Door,
};

/// Every route, with the limit of its own.
pub fn router() -> Router<App> {
    Router::new()
        .route("/signals/in/{source}", post(receive))
        .route("/signals/{tenant}/jwks.json", get(key_set))
        .route(
            "/.well-known/ssf-configuration/signals/{tenant}",
            get(configuration),
        )
        .layer(DefaultBodyLimit::max(SET_BYTES_MAX))
}

/// Push delivery (RFC 8935, section 2), and messages of webhooks.
async fn receive(
    State(app): State<App>,
    Path(source): Path<String>,
    extensions: Extensions,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let from = extensions
        .get::<access::ClientAddress>()
        .and_then(|address| address.0);
    if let Err(problem) = app.strangers.check(Door::Signal, from) {
        return later(
            StatusCode::TOO_MANY_REQUESTS,
            problem.retry_after_seconds.unwrap_or(1),
        );
    }
    let Ok(source) = source.parse::<SignalSourceId>() else {
        return no_source();
    };
    let Ok(body) = body else {
        return refused(
            RejectCode::InvalidRequest,
            "the body is longer than 64 KiB, or broke off",
        );
    };
    match arrive(&app, source, &headers, &body).await {
        Ok(Told::Accepted) => StatusCode::ACCEPTED.into_response(),
        Ok(Told::Refused { code, why }) => {
            app.strangers.failed(Door::Signal, from);
            refused(code, &why)
        }
        Ok(Told::Later { seconds }) => later(StatusCode::TOO_MANY_REQUESTS, seconds),
        Ok(Told::NoSource) => {
            app.strangers.failed(Door::Signal, from);
            no_source()
        }
        Err(problem) => {
            tracing::warn!(%problem, "a message of a source of signals was not kept; it may send again");
            later(StatusCode::SERVICE_UNAVAILABLE, 5)
        }
    }
}

fn later(status: StatusCode, seconds: u64) -> Response {
    let mut response = status.into_response();
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

fn no_source() -> Response {
    let why = "there is no source of signals at this address";
    (
        StatusCode::NOT_FOUND,
        Json(json!({"err": "access_denied", "description": why})),
    )
        .into_response()
}

/// The answer of RFC 8935, section 2.3, whatever is wrong.
fn refused(code: RejectCode, why: &str) -> Response {
    let mut response = (
        StatusCode::BAD_REQUEST,
        Json(json!({"err": code.as_str(), "description": why})),
    )
        .into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_LANGUAGE, HeaderValue::from_static("en"));
    response
}

/// The tenant of an address, if there is one.
async fn tenant(app: &App, text: &str) -> Result<TenantId, Problem> {
    let missing = || NOT_FOUND.detail("There is nothing at this address.");
    let wanted: TenantId = text.parse().map_err(|_| missing())?;
    let tenants = app.db.read(Scope::System, access::tenants).await?;
    let is_known = tenants.iter().any(|(tenant, _)| *tenant == wanted);
    is_known.then_some(wanted).ok_or_else(missing)
}

/// The keys of what a tenant signs for others (RFC 7517). Whoever asks makes none: the first one is made by what is signed first.
async fn key_set(State(app): State<App>, Path(text): Path<String>) -> Result<Response, Problem> {
    let tenant = tenant(&app, &text).await?;
    let set = keys::public_keys(&app, tenant).await?;
    let mut response = Json(set).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/jwk-set+json"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=3600"),
    );
    Ok(response)
}

/// What we are as a transmitter (SSF 1.0, section 7). Streams are made by people, as sinks.
async fn configuration(State(app): State<App>, Path(text): Path<String>) -> Result<Response, Problem> {
    let tenant = tenant(&app, &text).await?;
    let issuer = keys::issuer(&app, tenant);
    let document = json!({
        "spec_version": "1_0",
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/jwks.json"),
        "delivery_methods_supported": ["urn:ietf:rfc:8935"],
        "default_subjects": "ALL",
        "events_supported": [uri::DEVICE_COMPLIANCE_CHANGE],
    });
    let mut response = Json(document).into_response();
    response.headers_mut().insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=3600"),
    );
    Ok(response)
}
