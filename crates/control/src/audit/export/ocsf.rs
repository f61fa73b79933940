//! Events of the Open Cybersecurity Schema Framework (<https://schema.ocsf.io/1.5.0>): the class follows from the action, the
//! entry's own id is `metadata.uid`, its place in the tree `metadata.sequence`, and its detail stays whole in `unmapped`.

use muster_trust::entry::{ActorKind, LogEntry};
use serde_json::{Value, json};

use super::{Family, actor_kind, product_version, severity, title};

const SCHEMA_VERSION: &str = "1.5.0";

/// A class and an activity of it.
struct Class {
    category: u32,
    class: u32,
    activity: u32,
}

pub fn event(place: u64, entry: &LogEntry) -> Value {
    let family = Family::of(&entry.action);
    let class = class_of(family, &entry.action);
    let is_refused = entry.action.ends_with("refused");
    let mut event = json!({
        "category_uid": class.category,
        "class_uid": class.class,
        "activity_id": class.activity,
        "type_uid": class.class * 100 + class.activity,
        "time": entry.at.as_micros() / 1000,
        "severity_id": severity(&entry.action),
        "status_id": if is_refused { 2 } else { 1 },
        "message": title(&entry.action),
        "metadata": {
            "version": SCHEMA_VERSION,
            "uid": entry.id.to_string(),
            "sequence": place,
            "event_code": entry.action,
            "log_name": "muster",
            "tenant_uid": entry.tenant.to_string(),
            "product": {"name": "Muster", "vendor_name": "Muster", "version": product_version()},
        },
        "unmapped": {
            "object": {"kind": entry.object.kind, "id": entry.object.id},
            "detail": entry.detail,
        },
    });
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
