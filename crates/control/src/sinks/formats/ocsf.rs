//! Events of devices in OCSF, framed as entries of the log are (`audit::ocsf`). The class follows from the kind; every attribute
//! stays whole in `unmapped`, with the device where its class has no field for it.

use std::net::IpAddr;

use muster_model::{TenantId, telemetry::EventKind};
use serde_json::{Map, Value, json};

use super::{attributes, ecs};
use crate::{
    audit::ocsf::{Class, Frame},
    telemetry::Event,
};

/// What a kind of event is in the schema.
#[derive(Debug, Clone, Copy)]
enum Family {
    /// Detection Finding (2004).
    Finding,
    /// Authentication (3002): a logon.
    SignIn,
    /// Device Config State Change (5019).
    Configuration,
    /// Application Lifecycle (6002), with its activity.
    Application(u32),
    /// Base Event (0): what the schema has no class for.
    Base,
}

const INSTALL: u32 = 1;
const REMOVE: u32 = 2;
const START: u32 = 3;
const UPDATE: u32 = 8;
const OTHER: u32 = 99;

impl Family {
    fn of(kind: Option<EventKind>) -> Family {
        let Some(kind) = kind else { return Family::Base };
        match kind {
            EventKind::Tamper => Family::Finding,
            EventKind::Login | EventKind::LoginFailed => Family::SignIn,
            EventKind::PolicyApplied | EventKind::PolicyFailed | EventKind::PolicyReverted => {
                Family::Configuration
            }
            EventKind::AppInstalled => Family::Application(INSTALL),
            EventKind::AppUpdated => Family::Application(UPDATE),
            EventKind::AppRemoved => Family::Application(REMOVE),
            EventKind::AgentStarted => Family::Application(START),
            EventKind::Crash => Family::Application(OTHER),
            EventKind::KernelCrash
            | EventKind::OutOfMemory
            | EventKind::Reboot
            | EventKind::DiskFailing
            | EventKind::DiskFull
            | EventKind::BatteryFailing
            | EventKind::Overheated
            | EventKind::ThresholdCrossed
            | EventKind::ClockStepped
            | EventKind::SpoolDropped => Family::Base,
        }
    }

    fn class(self) -> Class {
        let (category, class, activity) = match self {
            Family::Finding => (2, 2004, 1),
            Family::SignIn => (3, 3002, 1),
            Family::Configuration => (5, 5019, 1),
            Family::Application(activity) => (6, 6002, activity),
            Family::Base => (0, 0, OTHER),
        };
        Class {
            category,
            class,
            activity,
        }
    }
}

pub fn of_event(tenant: TenantId, place: u64, event: &Event) -> Value {
    let kind = EventKind::parse(&event.name);
    let family = Family::of(kind);
    let known = attributes(event);
    let mut written = Frame {
        class: family.class(),
        at: event.at,
        severity: ecs::severity(kind),
        failed: ecs::has_failed(kind),
        code: &event.name,
        uid: event.id.to_string(),
        place,
        tenant,
        log_name: "muster.events",
        unmapped: json!({
            "device": event.device.to_string(),
            "attributes": known,
            "device_at": event.device_at.to_string(),
            "received_at": event.received_at.to_string(),
        }),
    }
    .event();
    if let Some(members) = written.as_object_mut() {
        members.extend(fields(family, kind, event, &known));
    }
    written
}

/// The fields of the class.
fn fields(
    family: Family,
    kind: Option<EventKind>,
    event: &Event,
    known: &Map<String, Value>,
) -> Map<String, Value> {
    let text = |name: &str| {
        let value = known.get(name).and_then(Value::as_str);
        value.filter(|value| !value.is_empty())
    };
    let device = json!({"uid": event.device.to_string(), "type_id": 0});
    let fields = match family {
        Family::Finding => json!({
            "finding_info": {"uid": event.id.to_string(), "title": event.name.replace('_', " ")},
            "is_alert": true,
            "device": device,
        }),
        Family::SignIn => {
            let mut fields = json!({
                // A personal device does not say who.
                "user": {"name": text("user").unwrap_or("unknown"), "type_id": if text("user").is_some() { 1 } else { 0 }},
                "dst_endpoint": {"uid": event.device.to_string()},
            });
            if let Some(from) = text("from") {
                fields["src_endpoint"] = match from.parse::<IpAddr>() {
                    Ok(address) => json!({"ip": address.to_string()}),
                    Err(_) => json!({"name": from}),
                };
            }
            if let Some(count) = text("count").and_then(|count| count.parse::<u32>().ok()) {
                fields["count"] = count.into();
            }
            fields
        }
        Family::Configuration => json!({"device": device}),
        Family::Application(_) => {
            let mut app = match kind {
                Some(EventKind::AgentStarted) => json!({"name": "muster-agent", "vendor_name": "Muster"}),
                _ => json!({"name": text("app").or_else(|| text("program")).unwrap_or("unknown")}),
            };
            if let Some(version) = text("version") {
                app["version"] = version.into();
            }
            json!({"app": app})
        }
        Family::Base => json!({}),
    };
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
