//! What telemetry counts of itself. No label holds a tenant, a device or a metric.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// Counters of ingestion and of the store.
#[derive(Debug, Default)]
pub struct TelemetryMetrics {
    /// `new`, `duplicate`, `refused`, `turned_away`.
    batches: Family<ResultLabel, Counter>,
    /// `kept`, `expired`, `refused`.
    points: Family<ResultLabel, Counter>,
    pub(super) events: Counter,
    /// Spans that came. What becomes of them, `trace` counts.
    pub(super) spans: Counter,
    pub(super) settled: Counter,
    pub(super) settle_failures: Counter,
    pub(super) under_way: Gauge,
}

impl TelemetryMetrics {
    /// Registers everything under the prefix `mdm_telemetry`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("mdm_telemetry");
        registry.register(
            "batches",
            "Batches of devices by what became of them",
            self.batches.clone(),
        );
        registry.register(
            "points",
            "Windows of devices by what became of them",
            self.points.clone(),
        );
        registry.register("events", "Events of devices", self.events.clone());
        registry.register("spans", "Spans of devices", self.spans.clone());
        registry.register(
            "settled_batches",
            "Batches that reached the time-series store",
            self.settled.clone(),
        );
        registry.register(
            "settle_failures",
            "Attempts to reach the time-series store that failed",
            self.settle_failures.clone(),
        );
        registry.register(
            "batches_under_way",
            "Batches that are read or wait to be written",
            self.under_way.clone(),
        );
    }

    /// Counts a batch.
    pub fn batch(&self, result: &'static str) {
        self.batches.get_or_create(&ResultLabel { result }).inc();
    }

    pub(super) fn points(&self, result: &'static str, count: u64) {
        if count > 0 {
            self.points.get_or_create(&ResultLabel { result }).inc_by(count);
        }
    }
}
