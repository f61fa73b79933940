//! The ops listener: health, version and metrics over plain HTTP on loopback.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use muster_control::{
    App, access,
    secrets::{self, TenantKeys, Urgency},
};
use muster_gateway::Metrics;
use muster_storage::Scope;
use prometheus_client::{encoding::text::encode, metrics::gauge::Gauge, registry::Registry};

#[derive(Clone)]
struct Ops {
    app: App,
    registry: Arc<Registry>,
    roots: RootGauges,
}

/// The root documents of all tenants of this installation. No label holds a tenant.
#[derive(Clone, Default)]
struct RootGauges {
    expires_in: Gauge,
    ignored: Gauge,
    urgent: Gauge,
}

impl RootGauges {
    fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("mdm_root_document");
        let gauges = [
            (
                "expires_in_seconds",
                "Until the first root document of a tenant expires; 0 afterward",
                &self.expires_in,
            ),
            (
                "rows_ignored",
                "Tenants whose database holds a root document that does not verify",
                &self.ignored,
            ),
            (
                "urgent",
                "Tenants whose root document needs a person now",
                &self.urgent,
            ),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
    }

    /// Reads memory alone.
    fn set(&self, app: &App) {
        let (now, known) = (app.clock.now(), app.keys.known());
        let left = known.iter().map(|keys| keys.root.expires_at.since(now).as_secs());
        self.expires_in
            .set(i64::try_from(left.min().unwrap_or(0)).unwrap_or(i64::MAX));
        let count = |holds: &dyn Fn(&TenantKeys) -> bool| {
            i64::try_from(known.iter().filter(|keys| holds(keys)).count()).unwrap_or(i64::MAX)
        };
        let refused = |keys: &TenantKeys| app.keys.refused_root(keys.tenant);
        self.ignored.set(count(&|keys| refused(keys).is_some()));
        self.urgent.set(count(&|keys| {
            secrets::concerns(keys, refused(keys).as_ref(), now)
                .iter()
                .any(|concern| concern.urgency == Urgency::Now)
        }));
    }
}

/// The routes of the ops listener.
pub fn router(app: App, metrics: &Metrics) -> Router {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let roots = RootGauges::default();
    roots.register(&mut registry);
    app.log_metrics.register(&mut registry);
    app.telemetry.metrics.register(&mut registry);
    app.command_metrics.register(&mut registry);
    app.alert_metrics.register(&mut registry);
    app.traces.metrics.register(&mut registry);
    app.requests.register(&mut registry);
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/version", get(version))
        .route("/metrics", get(expose))
        .with_state(Ops {
            app,
            registry: Arc::new(registry),
            roots,
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
    ops.roots.set(&ops.app);
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
