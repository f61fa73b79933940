//! The fold itself: entries in, fields out.

use std::collections::BTreeMap;

use muster_model::Timestamp;
use muster_trust::entry::LogEntry;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Kind;

/// Entries about rollouts that say what of a policy is active.
pub const ROLLOUT_ACTIONS: [&str; 4] = [
    "rollout.activated",
    "rollout.completed",
    "rollout.rolled_back",
    "rollout.withdrawn",
];
/// Commands that a device's state lists as open.
const OPEN_COMMANDS_MAX: usize = 100;

/// A field of an object, and who gave it this value.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Field {
    #[schema(value_type = Object)]
    pub value: Value,
    /// The entry that set it.
    pub entry: String,
    /// The entry's place in the tree.
    pub index: u64,
    pub action: String,
    pub actor: String,
    #[schema(value_type = String)]
    pub at: Timestamp,
}

/// Fields by their names. An entry without a meaning for the state changes nothing.
pub fn fold<'e>(kind: Kind, entries: impl Iterator<Item = (u64, &'e LogEntry)>) -> BTreeMap<String, Field> {
    let mut state = State::default();
    for (place, entry) in entries {
        let mut step = Step {
            state: &mut state,
            place,
            entry,
        };
        match kind {
            Kind::Device => step.device(),
            Kind::Policy => step.policy(),
            Kind::Client => step.client(),
        }
    }
    state.fields
}

#[derive(Default)]
struct State {
    fields: BTreeMap<String, Field>,
}

struct Step<'s, 'e> {
    state: &'s mut State,
    place: u64,
    entry: &'e LogEntry,
}

impl Step<'_, '_> {
    fn set(&mut self, name: impl Into<String>, value: Value) {
        let entry = self.entry;
        self.state.fields.insert(
            name.into(),
            Field {
                value,
                entry: entry.id.to_string(),
                index: self.place,
                action: entry.action.clone(),
                actor: entry.actor.id.clone(),
                at: entry.at,
            },
        );
    }

    fn clear(&mut self, name: &str) {
        self.state.fields.remove(name);
    }

    /// Takes members of the detail under their own names.
    fn take(&mut self, names: &[&str]) {
        for name in names {
            if let Some(value) = self.entry.detail.get(*name) {
                self.set(*name, value.clone());
            }
        }
    }

    fn detail(&self, name: &str) -> Value {
        self.entry.detail.get(name).cloned().unwrap_or(Value::Null)
    }

    fn texts(&self, name: &str) -> Vec<String> {
        let list = self.entry.detail.get(name).and_then(Value::as_array);
        let texts = list.into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    }

    fn device(&mut self) {
        match self.entry.action.as_str() {
            "device.enrolled" => {
                self.enrolled("active");
                self.clear("quarantine_reason");
            }
            "device.quarantined" => {
                self.enrolled("quarantined");
                self.set("quarantine_reason", self.detail("reason"));
            }
            "device.quarantine_decided" => {
                self.set("quarantine_decision", self.detail("decision"));
                if self.detail("decision") == "reject" {
                    self.set("state", json!("retired"));
                } else {
                    self.set("state", json!("active"));
                    self.clear("quarantine_reason");
                }
            }
            "device.rekeyed" => self.take(&["key_sha256"]),
            "device.retired" => self.set("state", json!("retired")),
            "device.labels_changed" => {
                // The log holds names of labels and a digest of their values, which may name people.
                for label in self.texts("removed") {
                    self.clear(&format!("labels.{label}"));
                }
                for label in self.texts("set") {
                    let value = json!({"change_sha256": self.detail("change_sha256")});
                    self.set(format!("labels.{label}"), value);
                }
            }
            "certificate.issued" => {
                self.set("certificate.serial", self.detail("serial"));
                self.set("certificate.not_after", self.detail("not_after"));
                self.clear("certificate.revoked");
            }
            "certificate.revoked" => self.set("certificate.revoked", self.detail("reason")),
            "compliance.changed" => self.set("compliance", self.detail("to")),
            "security.split_view" => self.set("split_view.size", self.detail("size")),
            "command.created" => self.command_created(),
            "command.completed" => self.command_ended(self.detail("state")),
            "command.cancelled" | "command.expired" | "command.superseded" => {
                let word = self.entry.action.trim_start_matches("command.");
                self.command_ended(json!(word));
            }
            _ => {}
        }
    }

    fn enrolled(&mut self, state: &str) {
        self.set("state", json!(state));
        self.take(&[
            "device_uuid",
            "serial",
            "platform",
            "epoch",
            "key_sha256",
            "attestation",
            "ownership",
            "protocol",
        ]);
    }

    fn command_created(&mut self) {
        let Some(id) = self.entry.detail_text("command_id") else {
            return;
        };
        let is_open = |name: &&String| name.starts_with("commands.");
        if self.state.fields.keys().filter(is_open).count() < OPEN_COMMANDS_MAX {
            self.set(
                format!("commands.{id}"),
                json!({"type": self.detail("type"), "state": "queued"}),
            );
        }
    }

    fn command_ended(&mut self, state: Value) {
        if let Some(id) = self.entry.detail_text("command_id") {
            self.clear(&format!("commands.{id}"));
            let value = json!({"command_id": id, "type": self.detail("type"), "state": state});
            self.set("last_command", value);
        }
    }

    fn policy(&mut self) {
        match self.entry.action.as_str() {
            "policy.created" => {
                self.take(&["name", "description"]);
                self.set("archived", json!(false));
            }
            "policy.described" => self.take(&["description"]),
            "policy.archived" => self.set("archived", json!(true)),
            "policy.restored" => self.set("archived", json!(false)),
            "policy.version_created" => {
                let value = json!({
                    "version": self.detail("version"), "sequence": self.detail("sequence"),
                    "bundle_sha256": self.detail("bundle_sha256"),
                });
                self.set("newest_version", value);
            }
            "rollout.activated" => {
                let value = json!({
                    "rollout_id": self.detail("rollout_id"), "version": self.detail("version"),
                    "generation": self.detail("generation"), "bundle_sha256": self.detail("bundle_sha256"),
                    "stage": self.detail("stage"),
                });
                self.set("active", value);
            }
            "rollout.completed" => self.set("completed_version", self.detail("version")),
            "rollout.rolled_back" => self.set("rolled_back_version", self.detail("version")),
            "rollout.withdrawn" => {
                self.clear("active");
                self.set("withdrawn_version", self.detail("version"));
            }
            _ => {}
        }
    }

    fn client(&mut self) {
        match self.entry.action.as_str() {
            "client.created" => {
                self.set("state", json!("active"));
                self.take(&["name", "scopes"]);
            }
            "client.removed" => self.set("state", json!("removed")),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_model::{EntryId, TenantId};
    use muster_trust::entry::{Actor, ActorKind, Object};

    use super::*;

    fn entry(number: i64, action: &str, detail: Value) -> LogEntry {
        let at = Timestamp::from_unix_seconds(1_790_000_000 + number);
        let Value::Object(detail) = detail else {
            panic!("a detail is an object")
        };
        LogEntry {
            id: EntryId::generate(at, [0; 10]),
            at,
            tenant: TenantId::generate(at, [1; 10]),
            actor: Actor {
                kind: ActorKind::System,
                id: "test".to_owned(),
            },
            action: action.to_owned(),
            object: Object {
                kind: "device".to_owned(),
                id: "dev_1".to_owned(),
            },
            detail,
        }
    }

    fn folded(kind: Kind, entries: &[LogEntry]) -> BTreeMap<String, Value> {
        let fields = fold(
            kind,
            entries
                .iter()
                .enumerate()
                .map(|(place, entry)| (place as u64, entry)),
        );
        fields
            .into_iter()
            .map(|(name, field)| (name, field.value))
            .collect()
    }

    #[test]
    fn a_device_is_what_its_entries_made_of_it() {
        let entries = [
            entry(0, "device.enrolled", json!({"serial": "S1", "epoch": 1})),
            entry(
                1,
                "device.labels_changed",
                json!({"set": ["site"], "removed": [], "change_sha256": "00"}),
            ),
            entry(
                2,
                "command.created",
                json!({"command_id": "cmd_1", "type": "lock"}),
            ),
            entry(
                3,
                "compliance.changed",
                json!({"from": "compliant", "to": "noncompliant"}),
            ),
            entry(
                4,
                "command.completed",
                json!({"command_id": "cmd_1", "type": "lock", "state": "completed"}),
            ),
            entry(
                5,
                "device.labels_changed",
                json!({"set": [], "removed": ["site"], "change_sha256": "01"}),
            ),
            entry(6, "device.retired", json!({"epoch": 1})),
        ];
        let then = folded(Kind::Device, &entries[..3]);
        assert_eq!(then["state"], "active");
        assert_eq!(then["commands.cmd_1"], json!({"type": "lock", "state": "queued"}));
        assert!(then.contains_key("labels.site") && !then.contains_key("compliance"));
        let now = folded(Kind::Device, &entries);
        assert_eq!(
            (&now["state"], &now["compliance"]),
            (&json!("retired"), &json!("noncompliant"))
        );
        assert!(!now.contains_key("labels.site") && !now.contains_key("commands.cmd_1"));
        assert_eq!(now["last_command"]["state"], "completed");
    }

    #[test]
    fn a_field_names_the_entry_that_set_it() {
        let entries = [
            entry(
                0,
                "client.created",
                json!({"name": "ci", "scopes": "device:read"}),
            ),
            entry(9, "client.removed", json!({"name": "ci"})),
        ];
        let fields = fold(
            Kind::Client,
            entries
                .iter()
                .enumerate()
                .map(|(place, entry)| (place as u64, entry)),
        );
        assert_eq!((fields["state"].index, fields["name"].index), (1, 0));
        assert_eq!(fields["state"].entry, entries[1].id.to_string());
    }
}
