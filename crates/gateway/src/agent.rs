//! Routes of the agent protocol (`docs/agent-protocol.md`).

use std::{panic::AssertUnwindSafe, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use futures_util::FutureExt;
use muster_channel_agent::{
    codec::Base64Bytes,
    command::OUTPUT_CONTENT_TYPE,
    compliance::{ComplianceTokenRequest, ComplianceTokenResponse},
    enroll::{EnrollBeginRequest, EnrollFinishRequest},
    inventory::InventoryRequest,
    limits::{
        COMMAND_OUTPUT_BYTES_MAX, COMPLIANCE_TOKEN_BYTES_MAX, ENROLL_BODY_BYTES_MAX,
        ENROLL_FINISH_BODY_BYTES_MAX, INVENTORY_BODY_BYTES_MAX, RENEW_BODY_BYTES_MAX,
    },
    renew::{RenewRequest, RenewResponse},
};
use muster_control::{
    access::{
        Author,
        problem::{
            BUNDLE_CHANGED, CERTIFICATE_REVOKED, CSR_INVALID, DEVICE_BLOCKED, EPOCH_MISMATCH, INTERNAL,
            MALFORMED, METHOD_NOT_ALLOWED, NOT_FOUND, Problem, UNSUPPORTED_MEDIA_TYPE,
        },
    },
    audit, certificates,
    devices::{self, DeviceState},
    enrollment, groups, outputs, passes, policy, query, rollout,
    trace::with_request,
};
use muster_model::CommandId;
use muster_storage::Scope;
use muster_trust::key::Digest;

use crate::{
    Arrival, Gateway, Peer, acme, checkin,
    client_cert::{self, Gate},
    est, fairness,
    identity::{ChannelBinding, known, known_peer},
    pki, scep, telemetry, wake, wire,
};

/// What a path is told that is no route.
pub(crate) const NO_SUCH_PATH: &str = "The device listener has no such path. See docs/agent-protocol.md.";

/// Every route of a listener for devices.
pub fn router(gateway: Gateway, arrival: Arrival) -> Router {
    let gate = Gate {
        app: gateway.app.clone(),
        arrival,
        metrics: Arc::clone(&gateway.metrics),
        warned: Arc::default(),
    };
    Router::new()
        .route("/agent/v1/enroll/begin", post(begin))
        .route("/agent/v1/enroll/finish", post(finish))
        .route("/agent/v1/checkin", post(checkin::checkin))
        .route("/agent/v1/bundles/{sha256}", get(bundle))
        .route("/agent/v1/commands/{id}/output", post(output))
        .route("/agent/v1/inventory", put(inventory))
        .route("/agent/v1/renew", post(renew))
        .route("/agent/v1/compliance-token", post(compliance_token))
        .route("/agent/v1/telemetry", post(telemetry::telemetry))
        .route("/agent/v1/wake", get(wake::wake))
        .route("/agent/v1/ping", get(ping))
        .merge(acme::routes(gateway.clone()))
        .merge(pki::routes(gateway.app.clone()))
        .merge(scep::router())
        .merge(est::router())
        .fallback(|| async { NOT_FOUND.detail(NO_SUCH_PATH) })
        .method_not_allowed_fallback(|| async { METHOD_NOT_ALLOWED.detail("The path takes another method.") })
        .layer(middleware::from_fn_with_state(gateway.clone(), fairness::shared))
        .layer(DefaultBodyLimit::max(INVENTORY_BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(gate, client_cert::gate))
        .layer(middleware::from_fn_with_state(gateway.clone(), identified))
        .with_state(gateway)
}

/// Gives every request an id, and turns a panic into a refusal of that request alone.
async fn identified(State(gateway): State<Gateway>, request: Request, next: Next) -> Response {
    let id = gateway.app.traces.begin(None);
    let answering = with_request(id, next.run(request));
    match AssertUnwindSafe(answering).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!(request_id = %id.trace_id, "a request panicked");
            INTERNAL
                .detail("The request was not carried out.")
                .into_response()
        }
    }
}

/// The cheapest answer there is: what benchmarks compare check-ins with.
async fn ping() -> &'static str {
    "pong"
}

/// What names the connection of a request; none where a proxy ended TLS.
fn exporter(request: &Request) -> enrollment::Exporter {
    match request.extensions().get::<Peer>()?.channel_binding {
        ChannelBinding::Exporter(exporter) => Some(exporter),
        ChannelBinding::ProxyTerminated => None,
    }
}

async fn begin(State(gateway): State<Gateway>, request: Request) -> Result<Response, Problem> {
    let exporter = exporter(&request);
    let message = wire::read::<EnrollBeginRequest>(request, ENROLL_BODY_BYTES_MAX).await?;
    let begun = enrollment::begin(&gateway.app, message.value, exporter).await;
    if begun.is_err() {
        gateway.metrics.enrollment("refused");
    }
    wire::answer(StatusCode::OK, message.answer_as, &begun?)
}

async fn finish(State(gateway): State<Gateway>, request: Request) -> Result<Response, Problem> {
    let exporter = exporter(&request);
    let message = wire::read::<EnrollFinishRequest>(request, ENROLL_FINISH_BODY_BYTES_MAX).await?;
    let finished = enrollment::finish(&gateway.app, message.value, exporter).await;
    gateway
        .metrics
        .enrollment(if finished.is_ok() { "done" } else { "refused" });
    wire::answer(StatusCode::CREATED, message.answer_as, &finished?)
}

async fn bundle(
    State(gateway): State<Gateway>,
    Path(sha256): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    let known = known(&gateway.app, request.extensions()).await?;
    if known.identity.state != DeviceState::Active {
        return Err(DEVICE_BLOCKED.detail("The device is in quarantine; nothing is delivered to it."));
    }
    let digest: Digest = sha256
        .parse()
        .map_err(|_| MALFORMED.detail("A bundle is named by 64 lower-case hex digits."))?;
    let etag = format!("\"{digest}\"");
    if headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|held| held.as_bytes() == etag.as_bytes())
    {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    }
    let tenant = known.identity.tenant;
    let stored = gateway
        .app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            policy::bundle_by_sha256(tx, tenant, &digest)
        })
        .await;
    let bytes = match stored {
        // Whoever edits the database takes no bundle from a device, where it is also kept elsewhere.
        Err(problem) if problem.kind == BUNDLE_CHANGED => policy::artifact(&gateway.app, tenant, &digest)
            .await?
            .ok_or(problem)?,
        stored => stored?
            .ok_or_else(|| NOT_FOUND.detail("There is no such bundle."))?
            .into(),
    };
    let mut response = Body::from(bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/zip"));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=31536000, immutable"),
    );
    headers.insert(
        header::ETAG,
        HeaderValue::from_str(&etag).map_err(Problem::internal)?,
    );
    Ok(response)
}

/// What a command printed or collected: a gzip file, which nothing unpacks.
async fn output(
    State(gateway): State<Gateway>,
    Path(id): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let app = &gateway.app;
    let peer = request.extensions().get::<Peer>().cloned();
    known_peer(app, peer.as_ref()).await?;
    let id: CommandId = id
        .parse()
        .map_err(|_| MALFORMED.detail("The path names no command."))?;
    let media_type = request.headers().get(header::CONTENT_TYPE);
    if media_type.is_none_or(|media_type| media_type.as_bytes() != OUTPUT_CONTENT_TYPE.as_bytes()) {
        return Err(UNSUPPORTED_MEDIA_TYPE.detail("Send the output as application/gzip."));
    }
    let bytes = wire::body(request, COMMAND_OUTPUT_BYTES_MAX).await?;
    let known = known_peer(app, peer.as_ref()).await?;
    let identity = &known.identity;
    outputs::take(app, identity.tenant, (identity.device, identity.epoch), id, bytes).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn inventory(State(gateway): State<Gateway>, request: Request) -> Result<StatusCode, Problem> {
    let app = &gateway.app;
    let peer = request.extensions().get::<Peer>().cloned();
    known_peer(app, peer.as_ref()).await?;
    let message = wire::read::<InventoryRequest>(request, INVENTORY_BODY_BYTES_MAX)
        .await?
        .value;
    let known = known_peer(app, peer.as_ref()).await?;
    if message.epoch != known.identity.epoch {
        return Err(EPOCH_MISMATCH.detail("The message names another enrollment than the certificate."));
    }
    message
        .facts
        .bounded()
        .map_err(|limit| MALFORMED.detail(limit.to_string()))?;
    let (tenant, device) = (known.identity.tenant, known.identity.device);
    // Rollouts draw their stages by it.
    let model = message.facts.hardware.model.clone();
    let moves = rollout::take_facts(app, tenant, device, message.facts).await?;
    groups::note(app, &moves);
    query::answered(app, tenant, device).await?;
    if !known.identity.has_facts || model != known.identity.stratum.model {
        app.registry.forget_identity(device);
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn renew(State(gateway): State<Gateway>, request: Request) -> Result<Response, Problem> {
    let app = gateway.app.clone();
    let peer = request.extensions().get::<Peer>().cloned();
    known_peer(&app, peer.as_ref()).await?;
    let message = wire::read::<RenewRequest>(request, RENEW_BODY_BYTES_MAX).await?;
    let known = known_peer(&app, peer.as_ref()).await?;
    let csr = certificates::read_request(&message.value.csr.0)?;
    if csr.spki != known.identity.spki {
        return Err(CSR_INVALID.detail("A renewal is for the key that the device enrolled with."));
    }
    let (tenant, device, epoch) = (known.identity.tenant, known.identity.device, known.identity.epoch);
    let lifetime = std::time::Duration::from_secs(app.settings.device_certificate_days * 86_400);
    let (shared, serial) = (app.clone(), known.serial);
    certificates::ready(&app).await?;
    let issued = audit::commit(&app, &Author::device(tenant, device), move |tx| {
        let stored = devices::get(tx, tenant, device)?;
        if stored.epoch != epoch || stored.state == DeviceState::Retired {
            return Err(EPOCH_MISMATCH.detail("The device was enrolled again or retired meanwhile."));
        }
        if !certificates::hold(tx, tenant, &serial, device, epoch)? {
            return Err(
                CERTIFICATE_REVOKED.detail("The certificate was revoked. The device must enroll again.")
            );
        }
        certificates::issue(tx, &shared.keys, device, epoch, &csr.spki, lifetime)
    })
    .await?;
    app.registry.forget_identity(device);
    let chain = certificates::chain(&app, tenant, issued).await?;
    let answer = RenewResponse {
        certificate_chain: chain.into_iter().map(Base64Bytes).collect(),
    };
    wire::answer(StatusCode::OK, message.answer_as, &answer)
}

/// What is found of the device now, signed for somebody else.
async fn compliance_token(State(gateway): State<Gateway>, request: Request) -> Result<Response, Problem> {
    let app = &gateway.app;
    let peer = request.extensions().get::<Peer>().cloned();
    known_peer(app, peer.as_ref()).await?;
    let message = wire::read::<ComplianceTokenRequest>(request, COMPLIANCE_TOKEN_BYTES_MAX).await?;
    let known = known_peer(app, peer.as_ref()).await?;
    if message.value.epoch != known.identity.epoch {
        return Err(EPOCH_MISMATCH.detail("The message names another enrollment than the certificate."));
    }
    let asked = passes::Asked {
        tenant: known.identity.tenant,
        device: known.identity.device,
        epoch: known.identity.epoch,
        audience: message.value.audience,
        lifetime_seconds: message.value.lifetime_seconds,
        certificate_sha256: *known.certificate_sha256.as_bytes(),
        certificate_until: known.certificate_until,
    };
    let issued = passes::issue(app, asked).await?;
    let answer = ComplianceTokenResponse {
        token: issued.token,
        compliant: issued.is_compliant,
        expires_at: issued.expires_at,
    };
    wire::answer(StatusCode::OK, message.answer_as, &answer)
}

/// Bytes that never change, for handlers that stream.
pub(crate) fn fixed(bytes: &'static [u8]) -> Bytes {
    Bytes::from_static(bytes)
}
