//! How an entry or an event is written for a sink: one line of JSON.

mod ecs;

use muster_model::TenantId;
use muster_trust::entry::LogEntry;
use serde_json::{Value, json};

use super::definition::SinkFormat;
use crate::{access::problem::Problem, audit, telemetry::Event};

/// An entry of the log.
pub fn of_entry(format: SinkFormat, place: u64, entry: &LogEntry) -> Result<String, Problem> {
    match format {
        SinkFormat::Ecs => Ok(line(&ecs::of_entry(place, entry)?)),
        SinkFormat::Json => {
            let line = audit::line(audit::LineFormat::JsonLines, place, entry)?;
            Ok(line.trim_end().to_owned())
        }
    }
}

/// An event of a device.
pub fn of_event(format: SinkFormat, tenant: TenantId, place: u64, event: &Event) -> String {
    match format {
        SinkFormat::Ecs => line(&ecs::of_event(tenant, place, event)),
        SinkFormat::Json => line(&plain(tenant, place, event)),
    }
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
