//! How an entry or an event is written for a sink: one line, of JSON or CEF.

mod cef;
mod ecs;
mod ocsf;
pub mod set;

use muster_model::{TenantId, telemetry::EventKind};
use muster_trust::entry::LogEntry;
use serde_json::{Value, json};

use super::definition::SinkFormat;
use crate::{access::problem::Problem, audit, telemetry::Event};

/// An entry of the log.
pub fn of_entry(format: SinkFormat, place: u64, entry: &LogEntry) -> Result<String, Problem> {
    let as_exported = |format| {
        let line = audit::line(format, place, entry)?;
        Ok(line.trim_end().to_owned())
    };
    match format {
        SinkFormat::Ecs => Ok(line(&ecs::of_entry(place, entry)?)),
        SinkFormat::Json => as_exported(audit::LineFormat::JsonLines),
        SinkFormat::Ocsf => as_exported(audit::LineFormat::Ocsf),
        SinkFormat::Cef => as_exported(audit::LineFormat::Cef),
        SinkFormat::Set => Err(Problem::internal("claims are made where the device is known")),
    }
}

/// An event of a device.
pub fn of_event(format: SinkFormat, tenant: TenantId, place: u64, event: &Event) -> String {
    match format {
        SinkFormat::Ecs => line(&ecs::of_event(tenant, place, event)),
        SinkFormat::Json => line(&plain(tenant, place, event)),
        SinkFormat::Ocsf => line(&ocsf::of_event(tenant, place, event)),
        SinkFormat::Cef => cef::of_event(tenant, place, event),
        // No receiver of tokens takes this stream.
        SinkFormat::Set => line(&plain(tenant, place, event)),
    }
}

/// How much an entry matters, from 1 to 5.
pub fn severity_of_entry(entry: &LogEntry) -> u8 {
    audit::severity(&entry.action)
}

/// How much an event matters, from 1 to 5.
pub fn severity_of_event(event: &Event) -> u8 {
    ecs::severity(EventKind::parse(&event.name))
}

/// An event as the API shows it, with its tenant and place.
fn plain(tenant: TenantId, place: u64, event: &Event) -> Value {
    json!({
        "index": place,
        "id": event.id.to_string(),
        "tenant": tenant.to_string(),
        "device": event.device.to_string(),
        "name": event.name,
        "at": event.at.to_string(),
        "device_at": event.device_at.to_string(),
        "received_at": event.received_at.to_string(),
        "attributes": attributes(event),
    })
}

/// The attributes as the device sent them; what is no object of JSON is none.
fn attributes(event: &Event) -> serde_json::Map<String, Value> {
    serde_json::from_str(&event.attributes).unwrap_or_default()
}

/// JSON without any character that a reader of lines may take for the end of one.
fn line(value: &Value) -> String {
    audit::without_strange_ends(&value.to_string())
}

#[cfg(test)]
mod testing {
    use muster_model::{DeviceId, TenantId, Timestamp, telemetry::EventKind};
    use uuid::Uuid;

    use crate::telemetry::Event;

    pub const TENANT: TenantId = TenantId::from_uuid(Uuid::nil());

    pub fn event(name: &str, attributes: &str) -> Event {
        let at = Timestamp::from_unix_seconds(1_800_000_000);
        Event {
            id: Uuid::from_u128(7),
            device: DeviceId::from_uuid(Uuid::from_u128(1)),
            name: name.to_owned(),
            at,
            device_at: at,
            attributes: attributes.to_owned(),
            received_at: at,
        }
    }

    /// One of every kind, some of them with values that would break a careless writer, and one of a newer agent.
    pub fn samples() -> Vec<Event> {
        let mut all: Vec<Event> = EventKind::ALL
            .iter()
            .map(|kind| {
                let pairs: Vec<String> = kind
                    .def()
                    .attributes
                    .iter()
                    .map(|name| match *name {
                        "count" => "\"count\":\"3\"".to_owned(),
                        "from" if *kind == EventKind::Login => "\"from\":\"192.0.2.7\"".to_owned(),
                        name => format!("\"{name}\":\"a|b=c \\n\u{2028}ü\""),
                    })
                    .collect();
                event(kind.as_str(), &format!("{{{}}}", pairs.join(",")))
            })
            .collect();
        all.push(event("login", "{}"));
        all.push(event("login", r#"{"user":"mia","from":":0"}"#));
        all.push(event("newer_than_this", r#"{"x":{"deep":1}}"#));
        all
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{testing::*, *};

    /// What the schemas judge in `tests/it` of the program.
    #[test]
    fn device_events_in_ocsf_are_the_golden_ones() {
        let lines: Vec<String> = samples()
            .iter()
            .enumerate()
            .map(|(place, event)| of_event(SinkFormat::Ocsf, TENANT, place as u64, event))
            .map(|line| line.replace(env!("CARGO_PKG_VERSION"), "VERSION") + "\n")
            .collect();
        let golden = include_str!("golden/events.ocsf.jsonl");
        assert_eq!(lines.concat(), golden);
    }

    #[test]
    fn device_events_in_cef_are_the_golden_ones() {
        let lines: Vec<String> = samples()
            .iter()
            .enumerate()
            .map(|(place, event)| of_event(SinkFormat::Cef, TENANT, place as u64, event))
            .map(|line| line.replace(env!("CARGO_PKG_VERSION"), "VERSION") + "\n")
            .collect();
        assert_eq!(lines.concat(), include_str!("golden/events.cef"));
    }

    proptest::proptest! {
        #[test]
        fn no_attributes_make_a_format_panic_or_break_its_line(name in "[a-z_]{0,20}", text in ".{0,200}") {
            let attributes = serde_json::json!({"program": text, "user": text, "from": text, "count": text}).to_string();
            for attributes in [text, attributes] {
                for name in [&*name, "login", "crash", "login_failed"] {
                    for format in SinkFormat::ALL {
                        let line = of_event(format, TENANT, 3, &event(name, &attributes));
                        let breaks = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}', '\u{feff}'];
                        proptest::prop_assert!(!line.contains(breaks));
                        if format != SinkFormat::Cef {
                            proptest::prop_assert!(serde_json::from_str::<Value>(&line).is_ok());
                        }
                    }
                }
            }
        }
    }
}
