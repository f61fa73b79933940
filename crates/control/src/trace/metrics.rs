//! What traces count of themselves, and the trace that a measurement is an example of.

use muster_model::{TraceContext, telemetry::TraceId};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// The trace of an exemplar (OpenMetrics 1.0, "Exemplars").
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ExemplarLabel {
    trace_id: String,
}

/// The exemplar of work in a trace that is kept; of another there is nothing to look at.
pub fn exemplar(context: Option<TraceContext>) -> Option<ExemplarLabel> {
    let sampled = context.filter(|context| context.is_sampled);
    sampled.map(|context| label(context.trace_id))
}

fn label(trace_id: TraceId) -> ExemplarLabel {
    ExemplarLabel {
        trace_id: trace_id.to_string(),
    }
}

/// Counters of the exporter.
#[derive(Debug, Default)]
pub struct TraceMetrics {
    /// `exported`, `dropped` (the queue was full), `failed` (the collector did not take them), `refused` (a device's word that is
    /// not believed).
    spans: Family<ResultLabel, Counter>,
    /// Requests to the collector: `done`, `failed`.
    exports: Family<ResultLabel, Counter>,
}

impl TraceMetrics {
    /// Registers everything under the prefix `mdm_trace`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("mdm_trace");
        for result in ["exported", "dropped", "failed", "refused"] {
            drop(self.spans.get_or_create(&ResultLabel { result }));
        }
        for result in ["done", "failed"] {
            drop(self.exports.get_or_create(&ResultLabel { result }));
        }
        registry.register("spans", "Spans by what became of them", self.spans.clone());
        registry.register(
            "exports",
            "Requests to the collector of traces by how they ended",
            self.exports.clone(),
        );
    }

    pub fn spans(&self, result: &'static str, count: u64) {
        if count > 0 {
            self.spans.get_or_create(&ResultLabel { result }).inc_by(count);
        }
    }

    pub(super) fn export(&self, result: &'static str) {
        self.exports.get_or_create(&ResultLabel { result }).inc();
    }
}
