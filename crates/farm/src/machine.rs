//! The machine beneath a simulated device: what commands change on it, and what they find done already.

use std::collections::BTreeMap;

use muster_channel_agent::device::{Departed, Execution};
use muster_model::command::{CommandKind, RotatedKey};
use muster_model::text::PackageName;
use muster_trust::statement::ScriptStatement;
use serde::{Deserialize, Serialize};

use crate::plan::{AGENT_VERSION, DevicePlan};

/// Packages that one simulated device remembers beside those of its model.
const APPS_MAX: usize = 256;
/// The version that an installed app has where the command names none.
const ANY_VERSION: &str = "1.0";
/// And after an update.
const NEWEST_VERSION: &str = "2.0";

/// What is not as it came from the factory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    pub is_locked: bool,
    pub is_wiped: bool,
    /// A new passcode is to be chosen.
    is_passcode_cleared: bool,
    /// What the screen says in lost mode.
    lost: Option<String>,
    /// By package; `None` was removed.
    apps: BTreeMap<String, Option<String>>,
    is_updated: bool,
    agent_version: Option<String>,
    /// Commands so far: the n-th has its fate from the seed.
    pub attempts: u64,
    /// It left the management, and the server knows.
    pub departed: Option<Departed>,
}

/// What a command comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is over.
    Ended(Box<Execution>),
    /// The machine starts again, which is its end.
    Restarts,
    /// The facts are to be sent.
    SendsInventory,
    /// The certificate is to be renewed.
    Renews,
}

impl Machine {
    /// Whether the machine is already as the command would leave it.
    pub fn is_already_true(&self, kind: &CommandKind, plan: &DevicePlan) -> bool {
        match kind {
            CommandKind::Lock { .. } => self.is_locked,
            CommandKind::Unlock {} => !self.is_locked,
            CommandKind::ClearPasscode {} => self.is_passcode_cleared,
            CommandKind::Wipe { .. } => self.is_wiped,
            CommandKind::LostModeOn { .. } => self.lost.is_some() && self.lost == screen(kind),
            CommandKind::LostModeOff {} => self.lost.is_none(),
            CommandKind::InstallApp { package, version } => self
                .version(package, plan)
                .is_some_and(|found| version.as_ref().is_none_or(|version| version.as_str() == found)),
            CommandKind::RemoveApp { package } => self.version(package, plan).is_none(),
            CommandKind::UpdateApp { package } => self
                .apps
                .get(package.as_str())
                .is_some_and(|version| version.as_deref() == Some(NEWEST_VERSION)),
            CommandKind::UpdateOs {} => self.is_updated,
            CommandKind::UpdateAgent { version } => {
                self.agent_version.as_deref().unwrap_or(AGENT_VERSION) == version.as_str()
            }
            CommandKind::Unenroll {} => self.departed.is_some(),
            CommandKind::Restart { .. }
            | CommandKind::ShutDown { .. }
            | CommandKind::Locate {}
            | CommandKind::RunScript { .. }
            | CommandKind::CollectInventory {}
            | CommandKind::CollectLogs { .. }
            | CommandKind::CollectFiles { .. }
            | CommandKind::RotateKey { .. }
            | CommandKind::Message { .. }
            | CommandKind::LoosenPolicy { .. } => false,
        }
    }

    /// Carries a command out. On every simulated machine somebody is signed in.
    pub fn execute(
        &mut self,
        kind: &CommandKind,
        script: Option<&ScriptStatement>,
        plan: &DevicePlan,
    ) -> Effect {
        if self.is_already_true(kind, plan) {
            return ended(Execution::noop());
        }
        match kind {
            CommandKind::Lock { .. } => self.is_locked = true,
            CommandKind::Unlock {} if self.lost.is_some() => {
                return ended(Execution::failed("lost_mode", "the device is in lost mode"));
            }
            CommandKind::Unlock {} => self.is_locked = false,
            CommandKind::ClearPasscode {} => self.is_passcode_cleared = true,
            // A simulated machine that was switched off is switched on again at once.
            CommandKind::Restart { .. } | CommandKind::ShutDown { .. } => {
                (self.is_locked, self.is_passcode_cleared) = (self.lost.is_some(), false);
                return Effect::Restarts;
            }
            // The core has seen that enough people approved it.
            CommandKind::Wipe { .. } => {
                let attempts = self.attempts;
                *self = Self {
                    is_wiped: true,
                    attempts,
                    ..Self::default()
                };
            }
            CommandKind::Unenroll {} => self.lost = None,
            CommandKind::LostModeOn { .. } => (self.lost, self.is_locked) = (screen(kind), true),
            CommandKind::LostModeOff {} => self.lost = None,
            CommandKind::Locate {} if self.lost.is_none() => {
                return ended(Execution::failed("not_lost", "a place is told in lost mode only"));
            }
            CommandKind::Locate {} => return ended(told(place(plan))),
            CommandKind::InstallApp { package, version } => {
                let version = version.as_ref().map_or(ANY_VERSION, |version| version.as_str());
                return self.set(package, Some(version));
            }
            CommandKind::RemoveApp { package } => return self.set(package, None),
            CommandKind::UpdateApp { package } if self.version(package, plan).is_none() => {
                return ended(Execution::failed("not_installed", "the package is not installed"));
            }
            CommandKind::UpdateApp { package } => return self.set(package, Some(NEWEST_VERSION)),
            CommandKind::RunScript { .. } => return ended(run(script, plan)),
            CommandKind::CollectInventory {} => return Effect::SendsInventory,
            CommandKind::CollectLogs { .. } => {
                return ended(told(format!("simulated log of {}\n", plan.serial())));
            }
            CommandKind::CollectFiles { paths } => {
                let lines = paths.iter().map(|path| format!("{path}: simulated\n"));
                return ended(told(lines.collect()));
            }
            CommandKind::RotateKey {
                key: RotatedKey::Certificate,
            } => return Effect::Renews,
            CommandKind::RotateKey {
                key: RotatedKey::DiskRecovery,
            } => return ended(Execution::failed("not_supported", "no recovery key is in escrow")),
            CommandKind::UpdateOs {} => self.is_updated = true,
            CommandKind::UpdateAgent { version } => self.agent_version = Some(version.to_string()),
            CommandKind::Message { .. } => {}
            // Its statement is refused before it comes here.
            CommandKind::LoosenPolicy { .. } => {
                return ended(Execution::failed(
                    "not_supported",
                    "nothing that a device carries out",
                ));
            }
        }
        ended(Execution::done())
    }

    /// The version of a package, by what was changed and what the model has.
    fn version(&self, package: &PackageName, plan: &DevicePlan) -> Option<String> {
        if let Some(changed) = self.apps.get(package.as_str()) {
            return changed.clone();
        }
        let models = plan.model.packages.iter();
        models
            .filter(|(name, _)| *name == package.as_str())
            .find_map(|(_, versions)| versions.last())
            .map(|version| (*version).to_owned())
    }

    fn set(&mut self, package: &PackageName, version: Option<&str>) -> Effect {
        if self.apps.len() >= APPS_MAX && !self.apps.contains_key(package.as_str()) {
            return ended(Execution::failed(
                "no_space",
                "a simulated device has room for 256 apps",
            ));
        }
        self.apps.insert(package.to_string(), version.map(str::to_owned));
        ended(Execution::done())
    }
}

/// What lost mode shows.
fn screen(kind: &CommandKind) -> Option<String> {
    let CommandKind::LostModeOn { message, phone } = kind else {
        return None;
    };
    let text = |text: &Option<muster_model::text::UserMessage>| {
        text.as_ref().map(ToString::to_string).unwrap_or_default()
    };
    Some(format!("{}\n{}", text(message), text(phone)))
}

fn place(plan: &DevicePlan) -> String {
    let facts = plan.facts(muster_model::Timestamp::from_micros(0));
    let addresses: Vec<_> = facts
        .interfaces
        .into_iter()
        .flat_map(|interface| interface.addresses)
        .collect();
    serde_json::json!({"method": "network", "gateways": [], "addresses": addresses, "access_points": []})
        .to_string()
}

fn run(script: Option<&ScriptStatement>, plan: &DevicePlan) -> Execution {
    match script {
        Some(script) => told(format!("{} on {}\n", script.name, plan.serial())),
        None => Execution::failed("script_missing", "the command came without its script"),
    }
}

fn told(output: String) -> Execution {
    Execution {
        output: Some(output),
        ..Execution::done()
    }
}

fn ended(execution: Execution) -> Effect {
    Effect::Ended(Box::new(execution))
}

#[cfg(test)]
mod tests {
    use muster_model::ReceiptOutcome;

    use super::*;

    fn machine() -> (Machine, DevicePlan) {
        (Machine::default(), DevicePlan::new(1, 1))
    }

    fn answer(machine: &mut Machine, plan: &DevicePlan, json: &str) -> Execution {
        let kind = CommandKind::parse(json.as_bytes()).expect("it is a command");
        match machine.execute(&kind, None, plan) {
            Effect::Ended(execution) => *execution,
            other => panic!("{json} does not end here: {other:?}"),
        }
    }

    #[test]
    fn what_is_so_already_is_a_noop() {
        let (mut machine, plan) = machine();
        for json in [
            r#"{"type":"lock"}"#,
            r#"{"type":"clear-passcode"}"#,
            r#"{"type":"lost-mode-on","message":"Call us"}"#,
            r#"{"type":"install-app","package":"zsh","version":"5.9-4"}"#,
            r#"{"type":"update-app","package":"zsh"}"#,
            r#"{"type":"remove-app","package":"zsh"}"#,
            r#"{"type":"update-os"}"#,
            r#"{"type":"update-agent","version":"9.9"}"#,
            r#"{"type":"lost-mode-off"}"#,
            r#"{"type":"unlock"}"#,
            r#"{"type":"wipe","mode":"full"}"#,
        ] {
            let outcomes = [0, 1].map(|_| answer(&mut machine, &plan, json).outcome);
            assert_eq!(outcomes, [ReceiptOutcome::Done, ReceiptOutcome::Noop], "{json}");
        }
        assert!(machine.is_wiped && !machine.is_locked);
    }

    #[test]
    fn a_place_is_told_in_lost_mode_only() {
        let (mut machine, plan) = machine();
        let locate = r#"{"type":"locate"}"#;
        assert_eq!(
            answer(&mut machine, &plan, locate).code.as_deref(),
            Some("not_lost")
        );
        answer(&mut machine, &plan, r#"{"type":"lost-mode-on"}"#);
        assert!(
            answer(&mut machine, &plan, locate)
                .output
                .expect("a place")
                .contains("198.")
        );
    }

    #[test]
    fn every_command_has_an_answer() {
        let (mut machine, plan) = machine();
        for json in [
            r#"{"type":"message","text":"hi"}"#,
            r#"{"type":"collect-logs"}"#,
            r#"{"type":"collect-files","paths":["/etc/hostname"]}"#,
            r#"{"type":"unenroll"}"#,
        ] {
            assert_eq!(
                answer(&mut machine, &plan, json).outcome,
                ReceiptOutcome::Done,
                "{json}"
            );
        }
        for json in [r#"{"type":"restart"}"#, r#"{"type":"shut-down"}"#] {
            let kind = CommandKind::parse(json.as_bytes()).expect("it is a command");
            assert_eq!(machine.execute(&kind, None, &plan), Effect::Restarts);
        }
    }
}
