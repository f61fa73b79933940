//! What commands count. No label holds a tenant or a device.

use std::time::Duration;

use prometheus_client::{metrics::histogram::Histogram, registry::Registry};

/// In seconds. One boundary is where alerts begin.
const BUCKETS: [f64; 12] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0,
];

/// How long commands wait.
#[derive(Debug)]
pub struct CommandMetrics {
    queue: Histogram,
}

impl Default for CommandMetrics {
    fn default() -> CommandMetrics {
        CommandMetrics {
            queue: Histogram::new(BUCKETS),
        }
    }
}

impl CommandMetrics {
    /// Registers everything under the prefix `mdm_command`.
    pub fn register(&self, registry: &mut Registry) {
        registry.sub_registry_with_prefix("mdm_command").register(
            "queue_latency_seconds",
            "How long commands waited before they were handed to a device that could be reached",
            self.queue.clone(),
        );
    }

    pub(super) fn waited(&self, wait: Duration) {
        self.queue.observe(wait.as_secs_f64());
    }
}
