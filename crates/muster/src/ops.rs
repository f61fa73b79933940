//! The ops listener: health, version and metrics over plain HTTP on loopback.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use muster_control::{App, access};
use muster_gateway::Metrics;
use muster_storage::Scope;
use prometheus_client::{encoding::text::encode, registry::Registry};

#[derive(Clone)]
struct Ops {
    app: App,
    registry: Arc<Registry>,
}

/// The routes of the ops listener.
pub fn router(app: App, metrics: &Metrics) -> Router {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    app.log_metrics.register(&mut registry);
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/version", get(version))
        .route("/metrics", get(expose))
        .with_state(Ops {
            app,
            registry: Arc::new(registry),
        })
}

/// Ready when the database answers and every tenant's keys are here. It never depends on anything outside.
async fn ready(State(ops): State<Ops>) -> Response {
    let tenants = match ops.app.db.read(Scope::System, access::tenants).await {
        Ok(tenants) => tenants,
        Err(problem) => {
            return (StatusCode::SERVICE_UNAVAILABLE, format!("database: {problem}\n")).into_response();
        }
    };
    match tenants
        .iter()
        .find_map(|(tenant, _)| ops.app.keys.tenant(*tenant).err())
    {
        Some(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("keys: {error}\n")).into_response(),
        None => "ready\n".into_response(),
    }
}

async fn version() -> Json<serde_json::Value> {
    Json(serde_json::json!({"name": "muster", "version": env!("CARGO_PKG_VERSION")}))
}

async fn expose(State(ops): State<Ops>) -> Response {
    let mut text = String::new();
    if encode(&mut text, &ops.registry).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    (
        [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        text,
    )
        .into_response()
}
