//! The catalogue of metrics. Names are stable and end in their base unit; a counter ends in `_total`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{LABEL_BYTES_MAX, NAME_BYTES_MAX};

/// How values of one metric relate to each other over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricKind {
    /// A state that goes up and down.
    Gauge,
    /// Something that happens. Each sample is the increase since the one before, so that a restart loses nothing.
    Counter,
}

/// Whether quantiles of a metric are kept beside its mean and extremes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantiles {
    Sketched,
    Plain,
}

/// The base unit of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A part of one: 0 to 1.
    Ratio,
    Bytes,
    Seconds,
    Celsius,
    /// Decibels relative to a milliwatt.
    Dbm,
    Watts,
    /// A number of things; 0 and 1 are no and yes.
    Count,
}

/// One metric of the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct MetricDef {
    pub name: &'static str,
    pub kind: MetricKind,
    pub unit: Unit,
    /// What its label tells apart, where it has one.
    pub label: Option<&'static str>,
    pub quantiles: Quantiles,
    /// Decimals that are worth keeping.
    pub decimals: i32,
    /// What it says, in a sentence.
    pub meaning: &'static str,
}

macro_rules! label {
    (-) => {
        None
    };
    ($label:literal) => {
        Some($label)
    };
}

macro_rules! metrics {
    ($($variant:ident $name:literal $kind:ident $unit:ident $quantiles:ident $decimals:literal $label:tt $meaning:literal;)*) => {
        /// A number that a device measures of itself.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Metric {
            $(#[doc = $meaning] $variant,)*
        }

        impl Metric {
            /// Every metric of the catalogue.
            pub const ALL: &'static [Metric] = &[$(Metric::$variant),*];
            /// The names of all, in the same order.
            pub const NAMES: &'static [&'static str] = &[$($name),*];

            /// What the catalogue says of it.
            pub const fn def(self) -> &'static MetricDef {
                match self {
                    $(Metric::$variant => &MetricDef {
                        name: $name,
                        kind: MetricKind::$kind,
                        unit: Unit::$unit,
                        label: label!($label),
                        quantiles: Quantiles::$quantiles,
                        decimals: $decimals,
                        meaning: $meaning,
                    },)*
                }
            }

            /// The metric of this name.
            pub fn parse(name: &str) -> Option<Metric> {
                match name {
                    $($name => Some(Metric::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

// Each row: variant, name, kind, unit, quantiles, decimals, label, meaning.
metrics! {
    CpuUsage "cpu_usage_ratio" Gauge Ratio Sketched 4 - "How much of the processors' time was used.";
    Load1 "load1" Gauge Count Plain 2 - "How many tasks ran or waited to run, over a minute.";
    PressureStalled "pressure_stalled_ratio" Gauge Ratio Plain 4 "resource"
        "For how much of the time some task waited for the processor, memory or disk.";
    Threads "threads" Gauge Count Plain 0 - "How many threads there are, of all programs.";
    MemoryAvailable "memory_available_bytes" Gauge Bytes Plain 0 - "Memory that programs can have without swapping.";
    MemoryUsed "memory_used_ratio" Gauge Ratio Sketched 4 - "How much of the memory is in use.";
    SwapUsed "swap_used_bytes" Gauge Bytes Plain 0 - "How much was swapped out.";
    DiskFree "disk_free_bytes" Gauge Bytes Plain 0 "disk" "What programs can still write to a file system.";
    DiskUsed "disk_used_ratio" Gauge Ratio Plain 4 "disk" "How full a file system is.";
    DiskRead "disk_read_bytes_total" Counter Bytes Plain 0 "disk" "What was read from a disk.";
    DiskWritten "disk_written_bytes_total" Counter Bytes Plain 0 "disk" "What was written to a disk.";
    DiskErrors "disk_errors_total" Counter Count Plain 0 "disk" "Requests that a disk did not carry out.";
    DiskWear "disk_wear_ratio" Gauge Ratio Plain 3 "disk" "How much of its life a disk has used up, by its own word.";
    DiskHealthy "disk_healthy" Gauge Count Plain 0 "disk" "1 while a disk says that it is well, 0 when it does not.";
    BatteryLevel "battery_level_ratio" Gauge Ratio Plain 3 - "How full the battery is.";
    BatteryHealth "battery_health_ratio" Gauge Ratio Plain 4 - "What the battery holds when full, as a part of what it held when new.";
    BatteryCycles "battery_cycles" Gauge Count Plain 0 - "How often the battery was charged.";
    BatteryCharging "battery_charging" Gauge Count Plain 0 - "1 while the battery is charged or kept full, 0 while it is used.";
    BatteryPower "battery_power_watts" Gauge Watts Plain 2 - "What the battery gives or takes.";
    Temperature "temperature_celsius" Gauge Celsius Plain 1 "sensor" "How warm a part of the machine is.";
    NetworkRtt "network_rtt_seconds" Gauge Seconds Sketched 6 - "How long the server's answer to a small packet takes.";
    NetworkLoss "network_loss_ratio" Gauge Ratio Plain 4 - "How many segments of the connection to the server had to be sent again.";
    NetworkSignal "network_signal_dbm" Gauge Dbm Plain 0 "interface" "How strong the radio signal is.";
    NetworkReceived "network_receive_bytes_total" Counter Bytes Plain 0 - "What came in over all interfaces.";
    NetworkTransmitted "network_transmit_bytes_total" Counter Bytes Plain 0 - "What went out over all interfaces.";
    NetworkErrors "network_errors_total" Counter Count Plain 0 - "Packets that were damaged or thrown away.";
    ServerFailures "server_failures_total" Counter Count Plain 0 - "Attempts to reach the server that failed.";
    Uptime "uptime_seconds" Gauge Seconds Plain 0 - "Time since the machine started.";
    Crashes "crashes_total" Counter Count Plain 0 - "Programs that crashed.";
    Reboots "reboots_total" Counter Count Plain 0 - "Starts of the machine.";
    RebootRequired "reboot_required" Gauge Count Plain 0 - "1 while an update waits for a restart.";
    Packages "packages" Gauge Count Plain 0 - "How many packages are installed.";
    PolicySettings "policy_settings" Gauge Count Plain 0 - "How many settings policy asks for.";
    PolicySettingsFailed "policy_settings_failed" Gauge Count Plain 0 - "How many of them are not in force.";
    AgentMemory "agent_memory_bytes" Gauge Bytes Plain 0 - "Resident memory of the agent.";
    AgentCpu "agent_cpu_seconds_total" Counter Seconds Plain 3 - "Processor time of the agent.";
    AgentUploaded "agent_uploaded_bytes_total" Counter Bytes Plain 0 - "What the agent sent as telemetry.";
}

impl Metric {
    pub const fn as_str(self) -> &'static str {
        self.def().name
    }
}

/// A text that is not a name or a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} has {form}, and at most {bytes_max} of them")]
pub struct InvalidName {
    pub(super) what: &'static str,
    pub(super) form: &'static str,
    pub(super) bytes_max: usize,
}

/// Makes a text with a closed set of characters a type.
macro_rules! bounded_text {
    ($(#[$doc:meta])* $name:ident, $what:literal, $form:literal, $bytes_max:expr, $is_valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                let is_valid: fn(&str) -> bool = $is_valid;
                if text.is_empty() || text.len() > $bytes_max || !is_valid(text) {
                    return Err(InvalidName {
                        what: $what,
                        form: $form,
                        bytes_max: $bytes_max,
                    });
                }
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(super) use bounded_text;

pub(super) fn is_snake_case(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

bounded_text! {
    /// The name of a metric as a device sent it: of the catalogue or of a newer one.
    MetricName, "the name of a metric", "lower-case letters, digits and _", NAME_BYTES_MAX, is_snake_case
}

bounded_text! {
    /// The value of a metric's label: a disk, a sensor, an interface.
    LabelValue, "a label", "letters, digits and . _ : / + -", LABEL_BYTES_MAX, |text| text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._:/+-".contains(&byte))
}

impl LabelValue {
    /// Makes a label of any text: what a label may not hold becomes `_`, what is too long is cut. None of an empty text.
    pub fn lenient(text: &str) -> Option<LabelValue> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._:/+-".contains(c);
        let kept: String = text
            .trim()
            .chars()
            .map(|c| if fits(c) { c } else { '_' })
            .take(LABEL_BYTES_MAX)
            .collect();
        kept.parse().ok()
    }
}

impl MetricName {
    /// The metric of the catalogue, if this program knows it.
    pub fn known(&self) -> Option<Metric> {
        Metric::parse(&self.0)
    }
}

impl From<Metric> for MetricName {
    fn from(metric: Metric) -> Self {
        Self(metric.as_str().into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_distinct_and_end_in_their_unit() {
        let names: BTreeSet<_> = Metric::NAMES.iter().collect();
        assert_eq!(names.len(), Metric::ALL.len());
        for metric in Metric::ALL {
            let def = metric.def();
            assert_eq!(Metric::parse(def.name), Some(*metric));
            assert!(def.name.parse::<MetricName>().is_ok(), "{}", def.name);
            let suffix = match def.unit {
                Unit::Ratio => "_ratio",
                Unit::Bytes => "_bytes",
                Unit::Seconds => "_seconds",
                Unit::Celsius => "_celsius",
                Unit::Dbm => "_dbm",
                Unit::Watts => "_watts",
                Unit::Count => "",
            };
            let stem = def.name.strip_suffix("_total");
            assert_eq!(stem.is_some(), def.kind == MetricKind::Counter, "{}", def.name);
            assert!(stem.unwrap_or(def.name).ends_with(suffix), "{}", def.name);
            assert!(def.meaning.ends_with('.'));
        }
    }

    #[test]
    fn a_text_that_is_no_name_is_refused() {
        for bad in [
            "",
            "Cpu",
            "1cpu",
            "cpu usage",
            "cpu\n",
            &"x".repeat(NAME_BYTES_MAX + 1),
        ] {
            assert!(bad.parse::<MetricName>().is_err(), "{bad:?}");
        }
        for bad in ["", "a b", "a\"b", "ä", &"x".repeat(LABEL_BYTES_MAX + 1)] {
            assert!(bad.parse::<LabelValue>().is_err(), "{bad:?}");
        }
        let made = LabelValue::lenient("x86 \"pkg\" temp").expect("something is left");
        assert_eq!(made.as_str(), "x86__pkg__temp");
        assert_eq!(LabelValue::lenient("  "), None);
    }
}
