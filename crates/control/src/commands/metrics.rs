//! What commands count. No label holds a device; tenants are named up to a bound.

use std::{collections::HashSet, time::Duration};

use muster_model::{TenantId, TraceContext};
use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{exemplar::HistogramWithExemplars, family::Family, histogram::Histogram},
    registry::Registry,
};

use crate::trace::{ExemplarLabel, exemplar};

/// In seconds. One boundary is where alerts begin.
const BUCKETS: [f64; 12] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0,
];
/// The label of tenants that are not named.
const OTHER: &str = "_other";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantLabel {
    tenant: String,
}

/// How long commands wait.
#[derive(Debug)]
pub struct CommandMetrics {
    queue: HistogramWithExemplars<ExemplarLabel>,
    of_tenants: Family<TenantLabel, Histogram>,
    /// The tenants that have a label of their own, at most so many.
    named: Mutex<HashSet<TenantId>>,
    named_max: usize,
}

impl CommandMetrics {
    /// Names at most so many tenants: the first ones to which something happens.
    pub fn new(named_max: usize) -> CommandMetrics {
        CommandMetrics {
            queue: HistogramWithExemplars::new(BUCKETS.into_iter()),
            of_tenants: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            named: Mutex::default(),
            named_max,
        }
    }

    /// Registers everything under the prefixes `mdm_command` and `mdm_tenant_command`.
    pub fn register(&self, registry: &mut Registry) {
        registry.sub_registry_with_prefix("mdm_command").register(
            "queue_latency_seconds",
            "How long commands waited before they were handed to a device that could be reached",
            self.queue.clone(),
        );
        if self.named_max > 0 {
            registry.sub_registry_with_prefix("mdm_tenant_command").register(
                "queue_latency_seconds",
                "The same by tenant, where few enough are named; the others are _other",
                self.of_tenants.clone(),
            );
        }
    }

    pub(super) fn waited(&self, tenant: TenantId, wait: Duration, trace: Option<TraceContext>) {
        self.queue.observe(wait.as_secs_f64(), exemplar(trace), None);
        if self.named_max > 0 {
            let label = TenantLabel {
                tenant: self.name_of(tenant),
            };
            self.of_tenants.get_or_create(&label).observe(wait.as_secs_f64());
        }
    }

    fn name_of(&self, tenant: TenantId) -> String {
        let mut named = self.named.lock();
        if named.len() < self.named_max {
            named.insert(tenant);
        }
        if named.contains(&tenant) {
            tenant.to_string()
        } else {
            OTHER.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_of_tenants_is_bounded() {
        let metrics = CommandMetrics::new(2);
        let context = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        for number in 0..100 {
            let tenant = TenantId::from_uuid(uuid::Uuid::from_u128(number));
            metrics.waited(tenant, Duration::from_secs(1), context);
        }
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("it can be written");
        let counts: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("mdm_tenant_command_queue_latency_seconds_count"))
            .collect();
        assert_eq!(counts.len(), 3, "{counts:?}");
        assert!(
            counts.iter().any(|line| line.ends_with("{tenant=\"_other\"} 98")),
            "{counts:?}"
        );
        assert!(
            text.contains("# {trace_id=\"4bf92f3577b34da6a3ce929d0e0e4736\"} 1.0"),
            "{text}"
        );
    }
}
