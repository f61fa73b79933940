//! Security events as JSON lines, for Falco and whoever else watches the host: what somebody should look at now, written by
//! the node on which it was committed, after it was.

use std::{fs, io::Write, path::PathBuf};

use muster_model::{TenantId, Timestamp};
use muster_trust::entry::LogEntry;
use parking_lot::Mutex;
use serde::Serialize;

use crate::App;

/// Events that one node writes in a minute; more are counted and left out.
const EVENTS_PER_MINUTE_MAX: u32 = 600;

/// Where events go.
#[derive(Debug)]
pub enum EventSink {
    /// A file that is appended to, and opened anew for every line: it may be rotated at any time.
    File(PathBuf),
    Stdout,
}

/// Writes events; made by the composition root.
#[derive(Debug)]
pub struct SecurityEvents {
    sink: EventSink,
    budget: Mutex<Budget>,
}

/// What was written in this minute.
#[derive(Debug, Default)]
struct Budget {
    minute: i64,
    written: u32,
    left_out: u32,
}

/// How much an event matters, in the words of Falco's priorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    Notice,
    Warning,
    Critical,
}

/// Something that happened and that somebody should look at. Texts hold ids and codes, never secrets.
#[derive(Debug, Clone, Serialize)]
pub struct SecurityEvent {
    /// Such as `command.held`.
    pub event: String,
    pub priority: Priority,
    pub tenant: TenantId,
    pub actor_kind: String,
    pub actor: String,
    pub object_kind: String,
    pub object: String,
    /// The log entry, where there is one.
    pub entry: Option<String>,
    pub detail: serde_json::Map<String, serde_json::Value>,
}

/// A line of the file.
#[derive(Serialize)]
struct Line<'a> {
    source: &'static str,
    time: Timestamp,
    node: &'a str,
    #[serde(flatten)]
    event: &'a SecurityEvent,
    /// Events of the minute before that were left out.
    #[serde(skip_serializing_if = "is_zero")]
    left_out_before: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference over")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl SecurityEvents {
    pub fn to(sink: EventSink) -> SecurityEvents {
        SecurityEvents {
            sink,
            budget: Mutex::default(),
        }
    }

    fn write(&self, node: &str, event: &SecurityEvent, now: Timestamp) -> std::io::Result<()> {
        // The lock is held while the line is written: lines are whole, and in the order of their times.
        let mut budget = self.budget.lock();
        let minute = now.as_unix_seconds() / 60;
        let mut left_out_before = 0;
        if budget.minute != minute {
            left_out_before = budget.left_out;
            *budget = Budget {
                minute,
                ..Budget::default()
            };
        }
        if budget.written >= EVENTS_PER_MINUTE_MAX {
            budget.left_out += 1;
            return Ok(());
        }
        budget.written += 1;
        let mut line = serde_json::to_vec(&Line {
            source: "muster",
            time: now,
            node,
            event,
            left_out_before,
        })?;
        line.push(b'\n');
        match &self.sink {
            EventSink::Stdout => std::io::stdout().write_all(&line),
            EventSink::File(path) => fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)?
                .write_all(&line),
        }
    }
}

/// Writes an event where the operator wants events. Call it after the commit: what was rolled back did not happen. That it
/// cannot be written is logged, and holds nothing up.
pub fn security_event(app: &App, event: &SecurityEvent) {
    let Some(events) = app.security_events.get() else {
        return;
    };
    if let Err(error) = events.write(&app.node, event, app.clock.now()) {
        tracing::error!(%error, event = event.event, "a security event cannot be written");
    }
}

/// The event that an entry is, where it is one: whatever is about security, tampering, halting, holding, or too much at once.
pub(super) fn of_entry(entry: &LogEntry) -> Option<SecurityEvent> {
    let (noun, verb) = entry.action.split_once('.').unwrap_or((&entry.action, ""));
    let priority = match (noun, verb) {
        (
            "security",
            "split_view" | "witness_conflict" | "archive_conflict" | "head_refused" | "entry_lost"
            | "log_stalled" | "row_edited",
        ) => Priority::Critical,
        (_, "bundle_tampered") => Priority::Critical,
        ("security", _) | ("root", _) | ("signin", "held") => Priority::Warning,
        ("commands", "halted" | "halt_lifted") | ("operation", "stopped") => Priority::Warning,
        ("operation", "approved" | "rejected" | "released") => Priority::Notice,
        (_, "change_refused" | "bundle_refused") => Priority::Notice,
        _ => return None,
    };
    let actor_kind = super::api::actor_kind(entry.actor.kind);
    Some(SecurityEvent {
        event: entry.action.clone(),
        priority,
        tenant: entry.tenant,
        actor_kind: actor_kind.to_owned(),
        actor: entry.actor.id.clone(),
        object_kind: entry.object.kind.clone(),
        object: entry.object.id.clone(),
        entry: Some(entry.id.to_string()),
        detail: entry.detail.clone(),
    })
}

/// The event of an alarm about the log that could not be entered into it.
pub(super) fn without_entry(tenant: TenantId, action: &str, detail: serde_json::Value) -> SecurityEvent {
    SecurityEvent {
        event: action.to_owned(),
        priority: Priority::Critical,
        tenant,
        actor_kind: "system".to_owned(),
        actor: "muster".to_owned(),
        object_kind: "log".to_owned(),
        object: tenant.to_string(),
        entry: None,
        detail: match detail {
            serde_json::Value::Object(detail) => detail,
            _ => serde_json::Map::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> SecurityEvent {
        SecurityEvent {
            event: "command.held".to_owned(),
            priority: Priority::Warning,
            tenant: TenantId::from_uuid(uuid::Uuid::nil()),
            actor_kind: "client".to_owned(),
            actor: "cli_1".to_owned(),
            object_kind: "device".to_owned(),
            object: "dev\n1".to_owned(),
            entry: None,
            detail: serde_json::Map::new(),
        }
    }

    #[test]
    fn m6_an_event_is_one_line_that_falco_can_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.jsonl");
        let events = SecurityEvents::to(EventSink::File(path.clone()));
        let now = Timestamp::from_unix_seconds(1_790_000_000);
        events.write("node", &event(), now).expect("it can be written");
        std::fs::rename(&path, folder.path().join("rotated")).expect("it can be rotated");
        events.write("node", &event(), now).expect("it can be written");
        let text = std::fs::read_to_string(&path).expect("it is made anew");
        assert_eq!(text.lines().count(), 1);
        let line: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        assert_eq!(
            (&line["source"], &line["event"]),
            (&"muster".into(), &"command.held".into())
        );
        assert_eq!(
            (&line["priority"], &line["object"]),
            (&"warning".into(), &"dev\n1".into())
        );
    }

    #[test]
    fn a_storm_is_counted_and_cut() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.jsonl");
        let events = SecurityEvents::to(EventSink::File(path.clone()));
        let at = |seconds: i64| Timestamp::from_unix_seconds(1_790_000_040 + seconds);
        for _ in 0..EVENTS_PER_MINUTE_MAX + 7 {
            events.write("node", &event(), at(0)).expect("it can be written");
        }
        events.write("node", &event(), at(60)).expect("it can be written");
        let text = std::fs::read_to_string(&path).expect("it is there");
        assert_eq!(text.lines().count(), EVENTS_PER_MINUTE_MAX as usize + 1);
        let last: serde_json::Value =
            serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
        assert_eq!(last["left_out_before"], 7);
    }
}
