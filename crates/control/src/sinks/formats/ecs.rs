//! Fields of the Elastic Common Schema, version 8.17 (<https://www.elastic.co/docs/reference/ecs>).
//!
//! Whatever has no field there is under `muster`, and only under names that this program chooses: what a device or an entry says
//! freely is text, so that no mapping of an index can collide with it or grow by it.

use std::net::IpAddr;

use muster_model::{TenantId, telemetry::EventKind};
use muster_trust::entry::{ActorKind, LogEntry};
use serde_json::{Map, Value, json};

use super::{attributes, line};
use crate::{access::problem::Problem, telemetry::Event};

const VERSION: &str = "8.17.0";

/// The words of ECS for what happened.
struct Words {
    kind: &'static str,
    categories: &'static [&'static str],
    types: &'static [&'static str],
    /// From 1 to 5, as OCSF counts.
    severity: u8,
}

/// An entry of the log.
pub fn of_entry(place: u64, entry: &LogEntry) -> Result<Value, Problem> {
    let words = of_action(&entry.action);
    let is_refused = entry.action.ends_with("refused");
    let mut document = json!({
        "@timestamp": entry.at.to_string(),
        "ecs": {"version": VERSION},
        "message": entry.action.replace(['.', '_'], " "),
        "event": {
            "id": entry.id.to_string(),
            "kind": words.kind,
            "category": words.categories,
            "type": words.types,
            "severity": words.severity,
            "action": entry.action,
            "outcome": if is_refused { "failure" } else { "success" },
            "module": "muster",
            "dataset": "muster.log",
            "provider": "muster",
            "sequence": place,
        },
        "organization": {"id": entry.tenant.to_string()},
        "observer": observer(),
        "muster": {
            "actor": {"kind": actor_kind(entry.actor.kind), "id": entry.actor.id},
            "object": {"kind": entry.object.kind, "id": entry.object.id},
            "detail": line(&Value::Object(entry.detail.clone())),
        },
    });
    let members = document
        .as_object_mut()
        .ok_or_else(|| Problem::internal("a document is an object"))?;
    if matches!(entry.actor.kind, ActorKind::User | ActorKind::Client) {
        members.insert("user".to_owned(), json!({"id": entry.actor.id}));
    }
    let device = match (entry.actor.kind, &*entry.object.kind) {
        (_, "device") => Some(&entry.object.id),
        (ActorKind::Device, _) => Some(&entry.actor.id),
        _ => None,
    };
    if let Some(device) = device {
        members.insert("host".to_owned(), json!({"id": device}));
    }
    Ok(document)
}

/// An event of a device.
pub fn of_event(tenant: TenantId, place: u64, event: &Event) -> Value {
    let kind = EventKind::parse(&event.name);
    let words = of_kind(kind);
    let (known, other) = split(kind, attributes(event));
    let failed = has_failed(kind);
    let mut document = json!({
        "@timestamp": event.at.to_string(),
        "ecs": {"version": VERSION},
        "message": event.name.replace('_', " "),
        "event": {
            "id": event.id.to_string(),
            "kind": words.kind,
            "category": words.categories,
            "type": words.types,
            "severity": words.severity,
            "action": event.name,
            "outcome": if failed { "failure" } else { "success" },
            "module": "muster",
            "dataset": "muster.events",
            "provider": "muster",
            "sequence": place,
            "created": event.device_at.to_string(),
            "ingested": event.received_at.to_string(),
        },
        "host": {"id": event.device.to_string()},
        "organization": {"id": tenant.to_string()},
        "observer": observer(),
        "muster": {"event": known},
    });
    if let Some(members) = document.as_object_mut() {
        members.extend(of_attributes(kind, &known));
        if !other.is_empty() {
            members["muster"]["other"] = line(&Value::Object(other)).into();
        }
    }
    document
}

fn observer() -> Value {
    json!({"vendor": "Muster", "product": "Muster", "type": "mdm", "version": env!("CARGO_PKG_VERSION")})
}

fn actor_kind(kind: ActorKind) -> &'static str {
    match kind {
        ActorKind::Client => "client",
        ActorKind::User => "user",
        ActorKind::Device => "device",
        ActorKind::System => "system",
    }
}

/// Attributes that the catalogue names, as texts, and everything else.
fn split(
    kind: Option<EventKind>,
    attributes: Map<String, Value>,
) -> (Map<String, Value>, Map<String, Value>) {
    let names = kind.map_or(&[][..], |kind| kind.def().attributes);
    attributes
        .into_iter()
        .partition(|(name, value)| names.contains(&name.as_str()) && value.is_string())
}

/// The fields of ECS that attributes have.
fn of_attributes(kind: Option<EventKind>, known: &Map<String, Value>) -> Map<String, Value> {
    let text = |name: &str| known.get(name).and_then(Value::as_str);
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| {
        fields.insert(name.to_owned(), value);
    };
    match kind {
        Some(EventKind::Crash) => {
            if let Some(program) = text("program") {
                put("process", json!({"name": program}));
            }
        }
        Some(EventKind::Login) => {
            if let Some(user) = text("user") {
                put("user", json!({"name": user}));
            }
            if let Some(from) = text("from").filter(|from| !from.is_empty()) {
                put(
                    "source",
                    match from.parse::<IpAddr>() {
                        Ok(address) => json!({"address": from, "ip": address.to_string()}),
                        Err(_) => json!({"address": from}),
                    },
                );
            }
        }
        Some(EventKind::AppInstalled | EventKind::AppUpdated | EventKind::AppRemoved) => {
            if let Some(app) = text("app") {
                put("package", json!({"name": app, "version": text("version")}));
            }
        }
        Some(_) | None => {}
    }
    fields
}

fn of_action(action: &str) -> Words {
    let (noun, verb) = action.split_once('.').unwrap_or((action, ""));
    let is_alarm = noun == "security" || verb == "bundle_tampered";
    let (categories, types): (&[_], &[_]) = match (noun, verb) {
        _ if is_alarm => (&["intrusion_detection"], &["info"]),
        ("client", "created") => (&["iam"], &["admin", "creation"]),
        ("client", "removed") => (&["iam"], &["admin", "deletion"]),
        ("client" | "role" | "directory", _) => (&["iam"], &["admin", "change"]),
        ("session" | "signin", "ended") => (&["authentication", "session"], &["end"]),
        ("session" | "signin", _) => (&["authentication", "session"], &["start"]),
        ("device", "enrolled") => (&["host"], &["info"]),
        (_, verb) if verb.ends_with("refused") => (&["configuration"], &["denied"]),
        (_, "created") => (&["configuration"], &["creation"]),
        (_, "deleted" | "removed" | "retired") => (&["configuration"], &["deletion"]),
        _ => (&["configuration"], &["change"]),
    };
    Words {
        kind: if is_alarm { "alert" } else { "event" },
        categories,
        types,
        severity: match verb {
            _ if is_alarm => 4,
            verb if verb.ends_with("refused") => 3,
            _ => 1,
        },
    }
}

/// How much an event of a device matters, from 1 to 5.
pub fn severity(kind: Option<EventKind>) -> u8 {
    of_kind(kind).severity
}

/// Whether an event of a device tells of something that did not succeed.
pub fn has_failed(kind: Option<EventKind>) -> bool {
    matches!(
        kind,
        Some(EventKind::LoginFailed | EventKind::PolicyFailed | EventKind::PolicyReverted)
    )
}

fn of_kind(kind: Option<EventKind>) -> Words {
    let words = |categories, types, severity| Words {
        kind: "event",
        categories,
        types,
        severity,
    };
    let Some(kind) = kind else {
        return words(&["host"], &["info"], 1);
    };
    match kind {
        EventKind::Tamper => Words {
            kind: "alert",
            ..words(&["configuration", "intrusion_detection"], &["change"], 4)
        },
        EventKind::Crash => words(&["process"], &["end", "error"], 2),
        EventKind::KernelCrash | EventKind::OutOfMemory => words(&["host", "process"], &["error"], 3),
        EventKind::Login => words(&["authentication", "session"], &["start"], 1),
        EventKind::LoginFailed => words(&["authentication"], &["start"], 2),
        EventKind::AppInstalled => words(&["package"], &["installation"], 1),
        EventKind::AppUpdated => words(&["package"], &["change"], 1),
        EventKind::AppRemoved => words(&["package"], &["deletion"], 1),
        EventKind::PolicyApplied => words(&["configuration"], &["change"], 1),
        EventKind::PolicyFailed | EventKind::PolicyReverted => words(&["configuration"], &["error"], 3),
        EventKind::DiskFailing | EventKind::DiskFull | EventKind::BatteryFailing | EventKind::Overheated => {
            words(&["host"], &["error"], 3)
        }
        EventKind::Reboot | EventKind::AgentStarted => words(&["host"], &["start"], 1),
        EventKind::ThresholdCrossed | EventKind::ClockStepped | EventKind::SpoolDropped => {
            words(&["host"], &["info"], 2)
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_model::{DeviceId, Timestamp};
    use uuid::Uuid;

    use super::*;

    fn event(name: &str, attributes: &str) -> Event {
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

    fn written(name: &str, attributes: &str) -> Value {
        of_event(TenantId::from_uuid(Uuid::nil()), 3, &event(name, attributes))
    }

    #[test]
    fn a_login_says_who_and_from_where() {
        let login = written("login", r#"{"user":"mia","from":"192.0.2.7"}"#);
        assert_eq!(
            (&login["user"]["name"], &login["source"]["ip"]),
            (&json!("mia"), &json!("192.0.2.7"))
        );
        let local = written("login", r#"{"user":"mia","from":":0"}"#);
        assert_eq!(local["source"], json!({"address": ":0"}));
        // A personal device says neither.
        let personal = written("login", "{}");
        assert!(personal.get("user").is_none() && personal.get("source").is_none());
    }

    #[test]
    fn what_a_device_makes_up_is_text_under_one_name() {
        let made_up = written(
            "tamper",
            r#"{"setting":"firewall.enabled","x.y":{"deep":1},"user":7}"#,
        );
        assert_eq!(made_up["muster"]["event"], json!({"setting": "firewall.enabled"}));
        assert!(made_up["muster"]["other"].is_string());
        assert_eq!(made_up["event"]["kind"], "alert");
        let unknown = written("newer_than_this", r#"{"a":"b"}"#);
        assert_eq!(unknown["muster"]["event"], json!({}));
        assert_eq!(unknown["muster"]["other"], r#"{"a":"b"}"#);
        assert!(written("crash", "not json")["muster"].get("other").is_none());
    }

    proptest::proptest! {
        #[test]
        fn no_attributes_make_it_panic(name in "[a-z_]{0,20}", text in ".{0,200}") {
            let written = written(&name, &text);
            proptest::prop_assert!(written["event"]["id"].is_string());
        }
    }
}
