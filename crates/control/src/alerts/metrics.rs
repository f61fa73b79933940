//! What alerts count. No label holds a tenant or the name of a destination.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::rules::Severity;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DeliveryLabels {
    /// Of the destination, such as `pagerduty`.
    pub kind: &'static str,
    /// `delivered`, `retried` or `dead`.
    pub result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SeverityLabel {
    pub severity: &'static str,
}

/// Counters and gauges of the node that evaluates.
#[derive(Debug, Default)]
pub struct AlertMetrics {
    deliveries: Family<DeliveryLabels, Counter>,
    firing: Family<SeverityLabel, Gauge>,
    /// Messages that wait.
    pub(super) waiting: Gauge,
    /// How long the oldest of them waits.
    pub(super) oldest_seconds: Gauge,
    /// When rules were evaluated last, in seconds since 1970; 0 where another node does it.
    pub(super) evaluated_at: Gauge,
    pub(super) evaluation_failures: Counter,
    /// Open violations of every tenant.
    pub(super) violations: Gauge,
    /// Until the first certificate, token or root document expires; 0 afterward.
    pub(super) expires_in: Gauge,
}

impl AlertMetrics {
    /// Registers everything under the prefix `mdm`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("mdm");
        registry.register(
            "alert_deliveries",
            "Attempts to hand a message to a destination, by its kind and what came of it",
            self.deliveries.clone(),
        );
        registry.register("alerts_firing", "Alerts that fire", self.firing.clone());
        registry.register(
            "alert_outbox_messages",
            "Messages that wait",
            self.waiting.clone(),
        );
        registry.register(
            "alert_outbox_oldest_seconds",
            "How long the oldest message waits",
            self.oldest_seconds.clone(),
        );
        registry.register(
            "alert_evaluated_timestamp_seconds",
            "When this node evaluated rules last; 0 where another does",
            self.evaluated_at.clone(),
        );
        registry.register(
            "alert_evaluation_failures",
            "Evaluations of rules that failed",
            self.evaluation_failures.clone(),
        );
        registry.register(
            "policy_violations",
            "Open violations of rules and settings, on the node that evaluates",
            self.violations.clone(),
        );
        registry.register(
            "expires_in_seconds",
            "Until the first certificate, token or root document expires, on the node that evaluates",
            self.expires_in.clone(),
        );
    }

    pub(super) fn delivery(&self, kind: &'static str, result: &'static str) {
        self.deliveries
            .get_or_create(&DeliveryLabels { kind, result })
            .inc();
    }

    pub(super) fn firing(&self, severity: Severity, alerts: i64) {
        let severity = severity.as_str();
        self.firing.get_or_create(&SeverityLabel { severity }).set(alerts);
    }
}
