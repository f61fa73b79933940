//! The catalogue of events: things that happen on a device once.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::NAME_BYTES_MAX;
use super::metric::{InvalidName, bounded_text, is_snake_case};

/// Whether an event waits for the next upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Urgency {
    /// It is uploaded at once, outside of low-bandwidth windows too.
    Now,
    /// It goes with the next upload.
    Later,
}

/// One event of the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct EventDef {
    pub name: &'static str,
    pub urgency: Urgency,
    /// The names of its attributes; each may be missing.
    pub attributes: &'static [&'static str],
    /// What happened, in a sentence.
    pub meaning: &'static str,
}

macro_rules! events {
    ($($variant:ident $name:literal $urgency:ident [$($attribute:literal)*] $meaning:literal;)*) => {
        /// A thing that happens on a device.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum EventKind {
            $(#[doc = $meaning] $variant,)*
        }

        impl EventKind {
            /// Every event of the catalogue.
            pub const ALL: &'static [EventKind] = &[$(EventKind::$variant),*];

            /// What the catalogue says of it.
            pub const fn def(self) -> &'static EventDef {
                match self {
                    $(EventKind::$variant => &EventDef {
                        name: $name,
                        urgency: Urgency::$urgency,
                        attributes: &[$($attribute),*],
                        meaning: $meaning,
                    },)*
                }
            }

            /// The event of this name.
            pub fn parse(name: &str) -> Option<EventKind> {
                match name {
                    $($name => Some(EventKind::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

// Each row: variant, name, urgency, attributes, meaning.
events! {
    Crash "crash" Later ["program" "signal"] "A program crashed.";
    KernelCrash "kernel_crash" Now ["record"] "The system's kernel crashed and left a record.";
    OutOfMemory "out_of_memory" Later ["count"] "The system ended programs because memory ran out.";
    Reboot "reboot" Later ["shutdown"] "The machine started; `shutdown` is `clean` or `unclean`.";
    AgentStarted "agent_started" Later ["version"] "The agent started.";
    Login "login" Later ["user" "from"] "Somebody logged in.";
    LoginFailed "login_failed" Later ["count"] "Logins failed since the last such event.";
    Tamper "tamper" Now ["setting"] "A setting of the policy was changed behind the agent's back and put right again.";
    AppInstalled "app_installed" Later ["app" "version"] "An app was installed.";
    AppUpdated "app_updated" Later ["app" "from" "version"] "An app was updated.";
    AppRemoved "app_removed" Later ["app" "version"] "An app was removed.";
    DiskFailing "disk_failing" Now ["disk" "reason"] "A disk says that it is failing.";
    DiskFull "disk_full" Now ["disk"] "A file system has no room left.";
    BatteryFailing "battery_failing" Later ["health"] "The battery holds too little.";
    Overheated "overheated" Now ["sensor" "celsius"] "A part of the machine is too hot.";
    ThresholdCrossed "threshold_crossed" Now ["metric" "label" "value" "limit"]
        "A metric is past a threshold that policy calls urgent.";
    PolicyApplied "policy_applied" Later ["settings"] "Another policy is in force.";
    PolicyFailed "policy_failed" Now ["setting" "reason"] "A setting of the policy is not in force.";
    PolicyReverted "policy_reverted" Now [] "A policy cut the device off and was put back.";
    ClockStepped "clock_stepped" Later ["seconds"] "The device's clock was set by more than a moment.";
    SpoolDropped "spool_dropped" Later ["reason" "samples" "events"] "Telemetry was dropped on the device.";
}

impl EventKind {
    pub const fn as_str(self) -> &'static str {
        self.def().name
    }
}

bounded_text! {
    /// The name of an event as a device sent it: of the catalogue or of a newer one.
    EventName, "the name of an event", "lower-case letters, digits and _", NAME_BYTES_MAX, is_snake_case
}

impl EventName {
    /// The event of the catalogue, if this program knows it.
    pub fn known(&self) -> Option<EventKind> {
        EventKind::parse(&self.0)
    }
}

impl From<EventKind> for EventName {
    fn from(kind: EventKind) -> Self {
        Self(kind.as_str().into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_distinct_and_read_back() {
        let names: BTreeSet<_> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(names.len(), EventKind::ALL.len());
        for kind in EventKind::ALL {
            assert_eq!(EventName::from(*kind).known(), Some(*kind));
            assert!(kind.as_str().parse::<EventName>().is_ok());
            assert!(kind.def().attributes.iter().all(|name| is_snake_case(name)));
        }
    }
}
