//! The operating system beneath the agent: what the machine is, which settings it obeys, what it does on command.
//!
//! Everything happens beneath a root folder. With `/` it is the running machine, and its own programs make changes take
//! effect (by argument vector, never by a shell). With any other folder only files beneath it are read and written and
//! no program is started: the folder stands for a machine, in tests and simulations, and its files are the whole truth.

#[cfg(target_os = "linux")]
mod linux;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use muster_model::attestation::Ownership;
use muster_model::command::{CommandKind, ReceiptOutcome};
use muster_model::facts::Facts;
use muster_model::id::CommandId;
use muster_model::report::SettingReport;
use muster_model::settings::SettingValue;
use muster_model::telemetry::Metric;
use muster_model::time::Timestamp;
use muster_trust::statement::ScriptStatement;
use uuid::Uuid;

use crate::telemetry::{Happening, Reading};

/// What the machine says of itself at enrollment. Claims, never credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HardwareFacts {
    /// SMBIOS system UUID, else the machine id of systemd.
    pub device_uuid: Option<Uuid>,
    pub serial: Option<String>,
    pub vendor: Option<String>,
    pub model: Option<String>,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutcome {
    pub outcome: ReceiptOutcome,
    /// A stable word for a failure.
    pub code: Option<String>,
    /// A sentence for people.
    pub detail: Option<String>,
    /// What it printed or found, as text for the receipt itself.
    pub output: Option<String>,
    /// What it collected, for beside the receipt: a gzip file.
    pub upload: Option<Vec<u8>>,
}

/// A command for the machine.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    pub command_id: CommandId,
    pub kind: &'a CommandKind,
    /// Of `run-script`: what the device core has checked.
    pub script: Option<&'a ScriptStatement>,
}

impl ExecOutcome {
    fn of(outcome: ReceiptOutcome, code: Option<&str>, detail: Option<&str>) -> ExecOutcome {
        ExecOutcome {
            outcome,
            code: code.map(str::to_owned),
            detail: detail.map(str::to_owned),
            output: None,
            upload: None,
        }
    }

    /// It cannot be done at this moment.
    pub fn not_now(code: &str, detail: &str) -> ExecOutcome {
        Self::of(ReceiptOutcome::NotNow, Some(code), Some(detail))
    }

    /// Carried out.
    pub fn done() -> ExecOutcome {
        Self::of(ReceiptOutcome::Done, None, None)
    }

    /// Nothing had to be done.
    pub fn noop(detail: &str) -> ExecOutcome {
        Self::of(ReceiptOutcome::Noop, None, Some(detail))
    }

    /// Not carried out.
    pub fn failed(code: &str, detail: &str) -> ExecOutcome {
        Self::of(ReceiptOutcome::Failed, Some(code), Some(detail))
    }
}

/// The machine that the agent manages.
#[derive(Debug)]
pub struct Machine {
    #[cfg(target_os = "linux")]
    os: linux::Linux,
}

#[cfg(target_os = "linux")]
impl Machine {
    /// The machine beneath `root`; what Muster changes on it is recorded in `state_dir/managed.json`.
    pub fn new(root: &Path, state_dir: &Path) -> Machine {
        Machine {
            os: linux::Linux::new(root, state_dir),
        }
    }

    /// Identity as the hardware states it.
    pub fn hardware_claims(&self) -> HardwareFacts {
        self.os.hardware_claims()
    }

    /// The inventory, within the model's limits.
    pub fn collect_facts(&self, now: Timestamp) -> Facts {
        self.os.collect_facts(now)
    }

    /// Puts the settings in force, undoes those that Muster set earlier and that are not among them, and reports what
    /// is in force: one report per setting, none left out.
    pub fn apply(&self, settings: &BTreeMap<String, SettingValue>) -> BTreeMap<String, SettingReport> {
        self.os.apply(settings)
    }

    /// Reports what is in force without changing anything: one report per setting, none left out.
    pub fn read_back(&self, settings: &BTreeMap<String, SettingValue>) -> BTreeMap<String, SettingReport> {
        self.os.read_back(settings)
    }

    /// Carries a command out.
    pub fn execute(&self, order: &Order<'_>) -> ExecOutcome {
        self.os.execute(order)
    }

    /// Watches the machine's health, going on from the notes that earlier looks left. Of a personal device it is not told who uses
    /// it.
    pub fn health(&self, ownership: Ownership, memo: impl Fn(&str) -> Option<Vec<u8>>) -> Health {
        Health {
            os: self.os.health(ownership, memo),
        }
    }

    /// Whether the machine is already as the command would leave it.
    pub fn already_true(&self, kind: &CommandKind) -> bool {
        self.os.already_true(kind)
    }
}

/// Watches the health of the machine.
#[derive(Debug)]
pub struct Health {
    #[cfg(target_os = "linux")]
    os: linux::health::Collector,
}

/// What a look at the machine brought.
#[derive(Debug, Default)]
pub struct Look {
    pub readings: Vec<Reading>,
    pub happenings: Vec<Happening>,
    /// Notes to be saved together with what they led to.
    pub memos: Vec<(&'static str, Vec<u8>)>,
}

#[cfg(target_os = "linux")]
impl Health {
    /// Reads the metrics that are due, and finds what happened since the last look. `since_boot` is of the boot clock.
    pub fn look(&mut self, now: Timestamp, since_boot: Duration, due: &BTreeSet<Metric>) -> Look {
        let linux::health::Look {
            readings,
            happenings,
            memos,
        } = self.os.look(linux::health::LookAt { now, since_boot, due });
        Look {
            readings,
            happenings,
            memos,
        }
    }

    /// The note that the agent was told to end: without it the next start of the system follows a crash.
    pub fn farewell(&mut self) -> (&'static str, Vec<u8>) {
        self.os.farewell()
    }

    /// The machine's own time less UTC, in seconds.
    pub fn utc_offset_seconds(&self, now: Timestamp) -> i32 {
        self.os.utc_offset_seconds(now)
    }
}
