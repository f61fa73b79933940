//! What sinks count. No label holds a tenant or the name of a sink.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SinkLabels {
    /// Of the sink, such as `elastic`.
    pub kind: &'static str,
    /// Of events `taken`, `refused` or `missed`; of batches `settled` or `failed`.
    pub result: &'static str,
}

/// Counters and gauges of the node that sends.
#[derive(Debug, Default)]
pub struct SinkMetrics {
    events: Family<SinkLabels, Counter>,
    batches: Family<SinkLabels, Counter>,
    /// Events that wait for the sink that is furthest behind.
    pub(super) lag_events: Gauge,
    /// How long the oldest event waits, of any sink.
    pub(super) lag_seconds: Gauge,
    /// Events that are set aside.
    pub(super) letters: Gauge,
    /// Sinks whose last try failed.
    pub(super) failing: Gauge,
    /// When lags were looked at last, in seconds since 1970; 0 where another node does it.
    pub(super) looked_at: Gauge,
}

impl SinkMetrics {
    /// Registers everything under the prefix `mdm`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("mdm");
        registry.register(
            "sink_events",
            "Events by what became of them: taken, refused for good, or not kept any more when their turn came",
            self.events.clone(),
        );
        registry.register(
            "sink_batches",
            "Batches that were handed to sinks, by the sink's kind and what came of it",
            self.batches.clone(),
        );
        registry.register(
            "sink_lag_events",
            "Events that wait for the sink that is furthest behind",
            self.lag_events.clone(),
        );
        registry.register(
            "sink_lag_seconds",
            "How long the oldest event waits for any sink",
            self.lag_seconds.clone(),
        );
        registry.register(
            "sink_dead_letters",
            "Events that sinks refused for good and that are set aside",
            self.letters.clone(),
        );
        registry.register(
            "sinks_failing",
            "Sinks whose last try failed",
            self.failing.clone(),
        );
        registry.register(
            "sink_looked_timestamp_seconds",
            "When this node looked at sinks last; 0 where another does",
            self.looked_at.clone(),
        );
    }

    pub(super) fn events(&self, kind: &'static str, result: &'static str, count: u64) {
        if count > 0 {
            self.events
                .get_or_create(&SinkLabels { kind, result })
                .inc_by(count);
        }
    }

    pub(super) fn batch(&self, kind: &'static str, result: &'static str) {
        self.batches.get_or_create(&SinkLabels { kind, result }).inc();
    }
}
