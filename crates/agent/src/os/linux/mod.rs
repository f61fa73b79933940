//! Linux: settings as files of their own programs, facts from `/sys`, `/proc` and `/etc`, commands through systemd.

mod commands;
mod effects;
mod enforce;
mod facts;
mod files;
mod formats;
pub(super) mod health;
mod managed;
mod merge;
mod settings;
mod tools;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use muster_model::attestation::Ownership;
use muster_model::command::CommandKind;
use muster_model::facts::Facts;
use muster_model::report::SettingReport;
use muster_model::settings::SettingValue;
use muster_model::time::Timestamp;

use super::{ExecOutcome, HardwareFacts, Order};
use files::Root;
use managed::ManagedStore;
use tools::Tools;

/// A Linux machine, or a folder that stands for one.
#[derive(Debug)]
pub(super) struct Linux {
    root: Root,
    tools: Tools,
    store: ManagedStore,
    /// Held by whoever changes what is managed: commands run beside the policy.
    records: Mutex<()>,
    state_dir: PathBuf,
}

impl Linux {
    pub(super) fn new(root: &Path, state_dir: &Path) -> Linux {
        let root = Root::new(root);
        let tools = Tools::new(root.is_real());
        Linux {
            root,
            tools,
            store: ManagedStore::new(state_dir),
            records: Mutex::new(()),
            state_dir: state_dir.to_owned(),
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
        let _turn = self.records.lock();
        enforce::apply(self.view(settings), &self.store)
    }

    pub(super) fn read_back(
        &self,
        settings: &BTreeMap<String, SettingValue>,
    ) -> BTreeMap<String, SettingReport> {
        enforce::read_back(self.view(settings))
    }

    pub(super) fn execute(&self, order: &Order<'_>) -> ExecOutcome {
        commands::execute(order, self.site())
    }

    pub(super) fn health(
        &self,
        ownership: Ownership,
        memo: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> health::Collector {
        health::Collector::new(&self.root, ownership, memo)
    }

    pub(super) fn already_true(&self, kind: &CommandKind) -> bool {
        commands::already_true(kind, self.site())
    }

    fn site(&self) -> commands::Site<'_> {
        commands::Site {
            root: &self.root,
            tools: self.tools,
            store: &self.store,
            records: &self.records,
            state_dir: &self.state_dir,
        }
    }

    fn view<'m>(&'m self, settings: &'m BTreeMap<String, SettingValue>) -> enforce::Machine<'m> {
        enforce::Machine {
            root: &self.root,
            tools: self.tools,
            settings,
        }
    }
}
