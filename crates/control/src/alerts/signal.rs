//! The signals that rules read: each has a name, a unit and a meaning, and is of the tenant or of one object of it. Pure.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

/// What a signal's number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A plain number.
    Count,
    /// A part of one: 0.002 is written `0.2%`.
    Ratio,
    /// Seconds; written `30s`, `5m`, `2h` or `30d`.
    Seconds,
}

/// Whether a signal has one value, or one for each object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Of {
    Tenant,
    /// Certificates, tokens and root documents that expire.
    Expiring,
    /// Destinations of alerts.
    Destination,
    /// Sinks of events that are not paused.
    Sink,
    /// Secrets of the tenant and of the installation.
    Secret,
}

macro_rules! signals {
    ($($variant:ident = $name:literal, $unit:ident, $of:ident, $meaning:literal;)*) => {
        /// A signal.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Signal {
            $(#[doc = $meaning] $variant,)*
        }

        impl Signal {
            /// Every signal.
            pub const ALL: &[Signal] = &[$(Signal::$variant),*];

            /// What expressions call it.
            pub const fn name(self) -> &'static str {
                match self { $(Signal::$variant => $name,)* }
            }

            pub const fn unit(self) -> Unit {
                match self { $(Signal::$variant => Unit::$unit,)* }
            }

            pub const fn of(self) -> Of {
                match self { $(Signal::$variant => Of::$of,)* }
            }

            /// What it says, a sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Signal::$variant => $meaning,)* }
            }
        }
    };
}

signals! {
    EnrollmentAttempts = "enrollment_attempts_1h", Count, Tenant, "Enrollments that were answered in the last hour, whatever the answer.";
    EnrollmentFailures = "enrollment_failures_1h", Count, Tenant, "Enrollments that were refused in the last hour.";
    EnrollmentFailureRate = "enrollment_failure_rate_1h", Ratio, Tenant, "Refused enrollments of all enrollments of the last hour; absent without any.";
    Violations = "policy_violations", Count, Tenant, "Open violations of rules and settings.";
    ViolationsAdded = "policy_violations_added_24h", Count, Tenant, "How many more open violations there are than a day ago; absent while nothing was sampled then.";
    ViolationIncrease = "policy_violation_increase_24h", Ratio, Tenant, "How much the share of violated verdicts grew in a day, relative to what it was; absent while nothing was sampled then.";
    QueueLatency = "command_queue_latency_p99", Seconds, Tenant, "How long commands of the last 15 minutes waited for devices that could be reached, at the 99th percentile.";
    QueueDeliveries = "command_queue_deliveries_15m", Count, Tenant, "Commands of the last 15 minutes to devices that could be reached.";
    Devices = "devices", Count, Tenant, "Devices that are not retired.";
    Quarantined = "devices_quarantined", Count, Tenant, "Devices in quarantine.";
    Halted = "delivery_halted", Count, Tenant, "1 while the delivery of commands is halted, otherwise 0.";
    ExpiresIn = "expires_in", Seconds, Expiring, "How long a certificate, token or root document is still valid; 0 afterward.";
    SecretOverdue = "secret_overdue", Seconds, Secret, "How long a secret should have been rotated; 0 while it is on time.";
    SecretStoreSilent = "secret_store_silent", Seconds, Tenant, "For how long the store of secrets outside of the database has not answered as it should; absent where there is none.";
    DeadLetters = "dead_letters_24h", Count, Destination, "Messages to a destination that were given up in the last day and not sent again.";
    SinkLag = "sink_lag", Seconds, Sink, "How long the oldest event waits for a sink; 0 where none does.";
    SinkLagEvents = "sink_lag_events", Count, Sink, "Events that wait for a sink.";
    SinkDeadLetters = "sink_dead_letters", Count, Sink, "Events that a sink refused for good and that are set aside.";
}

impl Signal {
    /// The signal of this name.
    pub fn parse(name: &str) -> Option<Signal> {
        Signal::ALL.iter().copied().find(|signal| signal.name() == name)
    }

    /// A value as people read it.
    pub fn show(self, value: f64) -> String {
        match self.unit() {
            Unit::Count => format!("{value}"),
            Unit::Ratio => format!("{} %", round(value * 100.0)),
            Unit::Seconds if value >= 172_800.0 => format!("{} days", (value / 86_400.0).floor()),
            Unit::Seconds if value >= 7200.0 => format!("{} h", round(value / 3600.0)),
            Unit::Seconds => format!("{} s", round(value)),
        }
    }
}

/// With two digits behind the point at most.
fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The signals of one object.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ObjectReadings {
    /// What people call it.
    pub object: String,
    pub values: BTreeMap<Signal, f64>,
}

/// Every signal of a tenant at one moment. One that is not there is absent: it was not measured, or cannot be said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Readings {
    pub tenant: BTreeMap<Signal, f64>,
    pub expiring: Vec<ObjectReadings>,
    pub destinations: Vec<ObjectReadings>,
    pub sinks: Vec<ObjectReadings>,
    pub secrets: Vec<ObjectReadings>,
}

impl Readings {
    /// The objects that signals of this kind are of.
    pub fn objects(&self, of: Of) -> &[ObjectReadings] {
        match of {
            Of::Tenant => &[],
            Of::Expiring => &self.expiring,
            Of::Destination => &self.destinations,
            Of::Sink => &self.sinks,
            Of::Secret => &self.secrets,
        }
    }

    /// A signal's value: of the object, or of the tenant.
    pub fn value(&self, signal: Signal, object: Option<&ObjectReadings>) -> Option<f64> {
        match signal.of() {
            Of::Tenant => self.tenant.get(&signal).copied(),
            Of::Expiring | Of::Destination | Of::Secret | Of::Sink => object?.values.get(&signal).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_used_once_and_reads_back() {
        for signal in Signal::ALL {
            assert_eq!(Signal::parse(signal.name()), Some(*signal));
        }
        assert_eq!(Signal::parse("nothing"), None);
    }

    #[test]
    fn values_are_shown_in_their_unit() {
        assert_eq!(Signal::EnrollmentFailureRate.show(0.002), "0.2 %");
        assert_eq!(Signal::QueueLatency.show(42.5), "42.5 s");
        assert_eq!(Signal::ExpiresIn.show(29.5 * 86_400.0), "29 days");
        assert_eq!(Signal::ExpiresIn.show(3.0 * 3600.0), "3 h");
    }
}
