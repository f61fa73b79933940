//! Events of devices in CEF, written as entries of the log are (`audit::cef`).

use std::net::IpAddr;

use muster_model::{TenantId, telemetry::EventKind};
use serde_json::Value;

use super::{attributes, ecs, line};
use crate::{audit::cef, telemetry::Event};

pub fn of_event(tenant: TenantId, place: u64, event: &Event) -> String {
    let kind = EventKind::parse(&event.name);
    let outcome = match ecs::has_failed(kind) {
        true => "failure",
        false => "success",
    };
    let known = attributes(event);
    let text = |name: &str| known.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut pairs = vec![
        ("rt", (event.received_at.as_micros() / 1000).to_string()),
        ("start", (event.at.as_micros() / 1000).to_string()),
        ("externalId", event.id.to_string()),
        ("cat", "device".to_owned()),
        ("act", event.name.clone()),
        ("outcome", outcome.to_owned()),
        ("deviceExternalId", event.device.to_string()),
    ];
    match kind {
        Some(EventKind::Crash) => pairs.push(("sproc", text("program").to_owned())),
        Some(EventKind::Login) => {
            pairs.push(("duser", text("user").to_owned()));
            // The dictionary wants an IPv4 address in `src`; any other origin is a host's name.
            match text("from").parse() {
                Ok(IpAddr::V4(address)) => pairs.push(("src", address.to_string())),
                Ok(IpAddr::V6(_)) | Err(_) => pairs.push(("shost", text("from").to_owned())),
            }
        }
        Some(_) | None => {}
    }
    pairs.extend([
        ("cs1Label", "tenant".to_owned()),
        ("cs1", tenant.to_string()),
        ("cs3Label", "attributes".to_owned()),
        ("cs3", line(&Value::Object(known.clone()))),
        ("cn1Label", "eventPlace".to_owned()),
        ("cn1", place.to_string()),
    ]);
    pairs.retain(|(_, value)| !value.is_empty());
    cef::write(&event.name, ecs::severity(kind), &pairs)
}
