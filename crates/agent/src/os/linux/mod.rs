//! Linux: settings as files of their own programs, facts from `/sys`, `/proc` and `/etc`, commands through systemd.

mod commands;
mod effects;
mod enforce;
mod facts;
mod files;
mod formats;
mod managed;
mod merge;
mod settings;
mod tools;

use std::collections::BTreeMap;
use std::path::Path;

use muster_model::command::CommandKind;
use muster_model::facts::Facts;
use muster_model::report::SettingReport;
use muster_model::settings::SettingValue;
use muster_model::time::Timestamp;

use super::{ExecOutcome, HardwareFacts};
use files::Root;
use managed::ManagedStore;
use tools::Tools;

/// A Linux machine, or a folder that stands for one.
#[derive(Debug)]
pub(super) struct Linux {
    root: Root,
    tools: Tools,
    store: ManagedStore,
}

impl Linux {
    pub(super) fn new(root: &Path, state_dir: &Path) -> Linux {
        let root = Root::new(root);
        let tools = Tools::new(root.is_real());
        Linux {
            root,
            tools,
            store: ManagedStore::new(state_dir),
        }
    }

    pub(super) fn hardware_claims(&self) -> HardwareFacts {
        let facts::Claims {
            device_uuid,
            serial,
            vendor,
            model,
        } = facts::claims(&self.root);
        HardwareFacts {
            device_uuid,
            serial,
            vendor,
            model,
        }
    }

    pub(super) fn collect_facts(&self, now: Timestamp) -> Facts {
        facts::collect(&self.root, now)
    }

    pub(super) fn apply(&self, settings: &BTreeMap<String, SettingValue>) -> BTreeMap<String, SettingReport> {
        enforce::apply(self.view(settings), &self.store)
    }

    pub(super) fn read_back(
        &self,
        settings: &BTreeMap<String, SettingValue>,
    ) -> BTreeMap<String, SettingReport> {
        enforce::read_back(self.view(settings))
    }

    pub(super) fn execute(&self, kind: &CommandKind) -> ExecOutcome {
        commands::execute(kind, &self.root, self.tools)
    }

    pub(super) fn already_true(&self, kind: &CommandKind) -> bool {
        commands::already_true(kind, &self.root, self.tools)
    }

    fn view<'m>(&'m self, settings: &'m BTreeMap<String, SettingValue>) -> enforce::Machine<'m> {
        enforce::Machine {
            root: &self.root,
            tools: self.tools,
            settings,
        }
    }
}
