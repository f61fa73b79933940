//! What the gateway counts. No label holds a device or a tenant.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    pub result: &'static str,
}

/// Counters of the agent protocol.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Check-ins by how they were answered: `up_to_date`, `work`, `refused`.
    pub checkins: Family<ResultLabel, Counter>,
    /// Enrollments by outcome: `done`, `refused`.
    pub enrollments: Family<ResultLabel, Counter>,
    /// Held wake streams.
    pub connected: Gauge,
    /// Handshakes that failed or took too long.
    pub handshakes_failed: Counter,
    /// Requests with a certificate in a header that is not accepted there.
    pub client_cert_refused: Counter,
}

impl Metrics {
    /// Registers everything under the prefix `mdm`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("mdm");
        // From the beginning, at zero: what has not happened yet is no absent data.
        for result in ["done", "refused"] {
            drop(self.enrollments.get_or_create(&ResultLabel { result }));
        }
        for result in ["up_to_date", "work", "refused"] {
            drop(self.checkins.get_or_create(&ResultLabel { result }));
        }
        registry.register(
            "checkins",
            "Check-ins by how they were answered",
            self.checkins.clone(),
        );
        registry.register("enrollments", "Enrollments by outcome", self.enrollments.clone());
        registry.register(
            "devices_connected",
            "Devices that hold a wake stream",
            self.connected.clone(),
        );
        registry.register(
            "tls_handshakes_failed",
            "Device handshakes that failed",
            self.handshakes_failed.clone(),
        );
        registry.register(
            "client_cert_refused",
            "Requests with a certificate in a header where none is accepted",
            self.client_cert_refused.clone(),
        );
    }

    pub fn checkin(&self, result: &'static str) {
        self.checkins.get_or_create(&ResultLabel { result }).inc();
    }

    pub fn enrollment(&self, result: &'static str) {
        self.enrollments.get_or_create(&ResultLabel { result }).inc();
    }
}
