//! The ops listener: health, version and metrics over plain HTTP on loopback.

use std::{collections::HashSet, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
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

/// The media type of OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text";

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
    app.budgets.register(&mut registry);
    app.alert_metrics.register(&mut registry);
    app.sink_metrics.register(&mut registry);
    app.signals.metrics.register(&mut registry);
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

/// Ready when the database answers, every tenant's keys are here, and tokens can be signed. A store of secrets outside that is away
/// counts only when what was read from it may not be used any more.
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
        None => match secrets::readiness(&ops.app) {
            Ok(()) => "ready\n".into_response(),
            Err(problem) => {
                let why = format!("secrets: {}\n", problem.detail);
                (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
            }
        },
    }
}

async fn version() -> Json<serde_json::Value> {
    Json(serde_json::json!({"name": "muster", "version": env!("CARGO_PKG_VERSION")}))
}

/// OpenMetrics 1.0, with traces as examples, for whoever asks for it, as Prometheus does; otherwise the text format that came
/// before, which knows no examples.
async fn expose(State(ops): State<Ops>, headers: HeaderMap) -> Response {
    ops.roots.set(&ops.app);
    let mut text = String::new();
    if encode(&mut text, &ops.registry).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let accepted = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    if accepted.is_some_and(|accept| accept.contains(OPEN_METRICS)) {
        let content_type = format!("{OPEN_METRICS}; version=1.0.0; charset=utf-8");
        return ([(header::CONTENT_TYPE, content_type)], text).into_response();
    }
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], as_plain_text(&text)).into_response()
}

/// OpenMetrics as the older text format: counters are described under their full name, and what it does not know is left out.
fn as_plain_text(text: &str) -> String {
    let counters: HashSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut plain = String::with_capacity(text.len());
    for line in text.lines() {
        let description = ["# HELP ", "# TYPE "].into_iter().find_map(|word| {
            let (name, rest) = line.strip_prefix(word)?.split_once(' ')?;
            Some((word, name, rest))
        });
        let line = match description {
            Some((word, name, rest)) if counters.contains(name) => format!("{word}{name}_total {rest}"),
            Some(_) => line.to_owned(),
            None if line.starts_with('#') => continue,
            None => line
                .split_once(" # {")
                .map_or(line, |(sample, _)| sample)
                .to_owned(),
        };
        plain.push_str(&line);
        plain.push('\n');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_names_counters_whole_and_has_no_examples() {
        let open = "# HELP a_b Things.\n# TYPE a_b counter\na_b_total 1\n# HELP c Seconds.\n# TYPE c histogram\n# UNIT c seconds\n\
                    c_bucket{le=\"1.0\"} 1 # {trace_id=\"4bf9\"} 0.5\n# EOF\n";
        let plain = "# HELP a_b_total Things.\n# TYPE a_b_total counter\na_b_total 1\n# HELP c Seconds.\n# TYPE c histogram\n\
                     c_bucket{le=\"1.0\"} 1\n";
        assert_eq!(as_plain_text(open), plain);
    }
}
