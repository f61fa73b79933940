//! Events of the Open Cybersecurity Schema Framework (<https://schema.ocsf.io/1.5.0>): the class follows from the action, the
//! entry's own id is `metadata.uid`, its place in the tree `metadata.sequence`, and its detail stays whole in `unmapped`.

use muster_model::{TenantId, Timestamp};
use muster_trust::entry::{ActorKind, LogEntry};
use serde_json::{Value, json};

use super::{Family, actor_kind, product_version, severity, title};

const SCHEMA_VERSION: &str = "1.5.0";

/// A class and an activity of it.
#[derive(Debug, Clone, Copy)]
pub struct Class {
    pub category: u32,
    pub class: u32,
    pub activity: u32,
}

/// What every event says of itself, whatever its class.
#[derive(Debug)]
pub struct Frame<'a> {
    pub class: Class,
    pub at: Timestamp,
    /// From 1 to 5.
    pub severity: u8,
    pub failed: bool,
    /// Such as `device.enrolled` or `crash`.
    pub code: &'a str,
    pub uid: String,
    /// Its place in its stream.
    pub place: u64,
    pub tenant: TenantId,
    pub log_name: &'a str,
    /// What has no field of its own.
    pub unmapped: Value,
}

impl Frame<'_> {
    /// The event, without the fields of its class.
    pub fn event(self) -> Value {
        let class = self.class;
        json!({
            "category_uid": class.category,
            "class_uid": class.class,
            "activity_id": class.activity,
            "type_uid": class.class * 100 + class.activity,
            "time": self.at.as_micros() / 1000,
            "severity_id": self.severity,
            "status_id": if self.failed { 2 } else { 1 },
            "message": title(self.code),
            "metadata": {
                "version": SCHEMA_VERSION,
                "uid": self.uid,
                "sequence": self.place,
                "event_code": self.code,
                "log_name": self.log_name,
                "tenant_uid": self.tenant.to_string(),
                "product": {"name": "Muster", "vendor_name": "Muster", "version": product_version()},
            },
            "unmapped": self.unmapped,
        })
    }
}

pub fn event(place: u64, entry: &LogEntry) -> Value {
    let family = Family::of(&entry.action);
    let class = class_of(family, &entry.action);
    let mut event = Frame {
        class,
        at: entry.at,
        severity: severity(&entry.action),
        failed: entry.action.ends_with("refused"),
        code: &entry.action,
        uid: entry.id.to_string(),
        place,
        tenant: entry.tenant,
        log_name: "muster",
        unmapped: json!({
            "object": {"kind": entry.object.kind, "id": entry.object.id},
            "detail": entry.detail,
        }),
    }
    .event();
    let more = match family {
        Family::Account => json!({
            "user": {"uid": entry.object.id, "name": named(entry), "type_id": 3},
            "actor": actor(entry),
        }),
        Family::SignIn => json!({
            "user": {"uid": entry.object.id, "name": entry.object.id, "type_id": 2},
            "service": {"name": "muster"},
            "actor": actor(entry),
        }),
        Family::Entity => json!({"entity": entity(entry), "actor": actor(entry)}),
        Family::DeviceState => {
            json!({"device": {"uid": entry.object.id, "type_id": 0}, "actor": actor(entry)})
        }
        Family::Alarm => json!({
            "finding_info": {"uid": entry.id.to_string(), "title": title(&entry.action)},
            "is_alert": true,
            "evidences": [{"actor": actor(entry)}],
        }),
        Family::Call => json!({
            "api": {"operation": entry.action, "service": {"name": "muster"}},
            "resources": [{"uid": entry.object.id, "type": entry.object.kind}],
            "src_endpoint": {"name": source(entry)},
            "actor": actor(entry),
        }),
    };
    if let (Some(event), Value::Object(more)) = (event.as_object_mut(), more) {
        event.extend(more);
    }
    event
}

fn class_of(family: Family, action: &str) -> Class {
    let verb = action.rsplit(['.', '_']).next().unwrap_or_default();
    match family {
        Family::Account => Class {
            category: 3,
            class: 3001,
            activity: match verb {
                "created" => 1,
                "removed" => 6,
                _ => 99,
            },
        },
        Family::SignIn => Class {
            category: 3,
            class: 3002,
            activity: match verb {
                "started" => 1,
                "ended" => 2,
                _ => 99,
            },
        },
        Family::Entity => Class {
            category: 3,
            class: 3004,
            activity: entity_activity(action, verb),
        },
        Family::DeviceState => Class {
            category: 5,
            class: 5019,
            activity: 1,
        },
        Family::Alarm => Class {
            category: 2,
            class: 2004,
            activity: 1,
        },
        Family::Call => Class {
            category: 6,
            class: 6003,
            activity: match verb {
                "created" | "activated" | "issued" => 1,
                "revoked" | "cancelled" | "withdrawn" => 4,
                "completed" | "expired" | "superseded" => 99,
                _ => 3,
            },
        },
    }
}

fn entity_activity(action: &str, verb: &str) -> u32 {
    match (action, verb) {
        ("device.enrolled" | "device.quarantined", _) => 6,
        ("device.retired", _) => 7,
        (_, "created") => 1,
        (_, "deleted") => 4,
        (_, "archived") => 11,
        (_, "restored") => 10,
        _ => 3,
    }
}

fn named(entry: &LogEntry) -> &str {
    entry.detail_text("name").unwrap_or(&entry.object.id)
}

fn entity(entry: &LogEntry) -> Value {
    let type_id = match entry.object.kind.as_str() {
        "device" => 1,
        "group" => 3,
        "tenant" => 4,
        "policy" => 5,
        _ => 99,
    };
    json!({
        "uid": entry.object.id,
        "name": named(entry),
        "type": entry.object.kind,
        "type_id": type_id,
    })
}

fn actor(entry: &LogEntry) -> Value {
    let type_id = match entry.actor.kind {
        ActorKind::User => 2,
        ActorKind::Client | ActorKind::System => 3,
        ActorKind::Device => 99,
    };
    let kind = actor_kind(entry.actor.kind);
    json!({"user": {"uid": entry.actor.id, "type": kind, "type_id": type_id}})
}

/// The log does not keep network addresses: the source is the party itself.
fn source(entry: &LogEntry) -> &str {
    &entry.actor.id
}
