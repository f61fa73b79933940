//! Entries as other systems read them: one line each, always in the order of the tree, always with the entry's own id.

pub mod cef;
pub mod ocsf;
#[cfg(test)]
mod tests;

use muster_trust::entry::LogEntry;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{EntryView, api::actor_kind};
use crate::access::problem::Problem;

/// A line format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LineFormat {
    /// The entry as lists show it, as JSON.
    JsonLines,
    /// An event of the Open Cybersecurity Schema Framework 1.5.0, as JSON.
    Ocsf,
    /// ArcSight Common Event Format, version 0.
    Cef,
}

impl LineFormat {
    /// The media type of its lines.
    pub fn media_type(self) -> &'static str {
        match self {
            LineFormat::JsonLines | LineFormat::Ocsf => "application/x-ndjson",
            LineFormat::Cef => "text/plain; charset=utf-8",
        }
    }
}

/// One entry as one line, with its newline.
pub fn line(format: LineFormat, place: u64, entry: &LogEntry) -> Result<String, Problem> {
    let mut line = match format {
        LineFormat::JsonLines => plain_json(&EntryView::of(place, entry.clone()))?,
        LineFormat::Ocsf => plain_json(&ocsf::event(place, entry))?,
        LineFormat::Cef => cef::event(place, entry)?,
    };
    line.push('\n');
    Ok(line)
}

/// JSON in one line for readers of every kind: characters that some of them take for the end of a line, or for nothing, are
/// written as escapes.
fn plain_json(value: &impl serde::Serialize) -> Result<String, Problem> {
    let text = serde_json::to_string(value).map_err(Problem::internal)?;
    Ok(without_strange_ends(&text))
}

/// JSON whose characters end no line and are seen by every reader.
pub fn without_strange_ends(json: &str) -> String {
    let mut plain = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => {
                plain.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            other => plain.push(other),
        }
    }
    plain
}

/// What kind of happening an action is, for the classes of foreign schemas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// A service account came or went.
    Account,
    /// A person signed in or out.
    SignIn,
    /// A managed object: device, policy, group, token, authority.
    Entity,
    /// What a device is measured to be.
    DeviceState,
    /// Something that should not have happened.
    Alarm,
    /// Everything else that somebody did through the interface.
    Call,
}

impl Family {
    fn of(action: &str) -> Family {
        let (noun, verb) = action.split_once('.').unwrap_or((action, ""));
        match (noun, verb) {
            ("security", _) | (_, "bundle_tampered") => Family::Alarm,
            (_, verb) if verb.ends_with("refused") => Family::Alarm,
            ("client", _) => Family::Account,
            ("session" | "signin", _) => Family::SignIn,
            ("compliance", _) => Family::DeviceState,
            ("device" | "policy" | "group" | "tenant" | "enrollment" | "authority", _) => Family::Entity,
            _ => Family::Call,
        }
    }
}

/// How much an action matters, from 1 to 5.
pub fn severity(action: &str) -> u8 {
    match (Family::of(action), action) {
        (Family::Alarm, action) if action.ends_with("refused") => 3,
        (Family::Alarm, "security.split_view" | "security.witness_conflict") => 5,
        (Family::Alarm, _) => 4,
        (_, "device.quarantined" | "rollout.gate_failed" | "compliance.violated") => 3,
        (_, "certificate.revoked" | "device.retired" | "rollout.aborted" | "rollout.rolled_back") => 2,
        _ => 1,
    }
}

/// `device.labels_changed` as words: "device labels changed".
fn title(action: &str) -> String {
    action.replace(['.', '_'], " ")
}

fn product_version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
