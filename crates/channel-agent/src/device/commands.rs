//! Commands on the device: checked, recorded, executed once, answered with a signed receipt.

use std::collections::BTreeMap;

use muster_model::command::{CommandKind, ReceiptOutcome};
use muster_model::id::CommandId;
use muster_model::time::Timestamp;
use muster_trust::approval::ApprovalError;
use muster_trust::dsse::Envelope;
use muster_trust::encoding::from_strict_json;
use muster_trust::obey::Refusal;
use muster_trust::statement::{
    CommandStatement, MAX_RECEIPT_DETAIL_CHARS, ReceiptStatement, Statement as _, StatementError,
};
use serde::{Deserialize, Serialize};

use super::{Action, DeviceCore, DeviceIdentity, Signer, refused, sign_as_device};
use crate::clock::ClockReading;
use crate::command::DueCommand;
use crate::limits::COMMANDS_MAX;

/// Most commands that a device remembers. Older ones are refused by their sequence alone.
const RECORDS_MAX: usize = 256;

/// How an execution ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// Done, nothing to do, or failed.
    pub outcome: ReceiptOutcome,
    /// A stable code where it failed.
    pub code: Option<String>,
    /// One sentence where there is something to say.
    pub detail: Option<String>,
}

impl Execution {
    /// The command took effect.
    pub fn done() -> Self {
        Self {
            outcome: ReceiptOutcome::Done,
            code: None,
            detail: None,
        }
    }

    /// The command's effect was there already.
    pub fn noop() -> Self {
        Self {
            outcome: ReceiptOutcome::Noop,
            code: None,
            detail: None,
        }
    }

    /// The command did not take effect.
    pub fn failed(code: &str, detail: impl Into<String>) -> Self {
        let outcome = ReceiptOutcome::Failed;
        Self {
            outcome,
            code: Some(code.to_owned()),
            detail: Some(detail.into()),
        }
    }
}

/// What [`DeviceCore::begin`] decided.
#[derive(Clone, Debug, PartialEq)]
pub enum Begin {
    /// Save, then execute this, then call [`DeviceCore::on_executed`].
    Run(CommandStatement),
    /// Nothing to execute: it expired, or it already ran.
    Nothing,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Progress {
    /// Checked and accepted; not begun.
    Accepted(Box<CommandStatement>),
    /// Handed to the machine in this boot.
    Started {
        statement: Box<CommandStatement>,
        boot: String,
    },
    /// Over, with this outcome.
    Finished { execution: Execution, at: Timestamp },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    sequence: u64,
    progress: Progress,
}

/// What the device knows about its commands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Ledger {
    last_sequence: u64,
    records: BTreeMap<CommandId, Record>,
    /// Receipts that the server has not confirmed.
    receipts: BTreeMap<CommandId, Envelope>,
}

impl Ledger {
    pub(super) fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    pub(super) fn has_receipts(&self) -> bool {
        !self.receipts.is_empty()
    }

    /// The oldest receipts first.
    pub(super) fn receipts(&self, count_max: usize) -> Vec<Envelope> {
        let sequence = |id: &CommandId| self.records.get(id).map_or(0, |record| record.sequence);
        let mut pending: Vec<_> = self.receipts.iter().collect();
        pending.sort_by_key(|(id, _)| sequence(id));
        pending
            .into_iter()
            .take(count_max)
            .map(|(_, receipt)| receipt.clone())
            .collect()
    }

    pub(super) fn on_receipts_accepted(&mut self, accepted: &[CommandId]) {
        for id in accepted {
            self.receipts.remove(id);
        }
    }

    /// Unfinished commands after a start. What can run twice without harm runs again; the rest is reported by what can be
    /// seen of its effect.
    pub(super) fn recover(
        &mut self,
        identity: &DeviceIdentity,
        now: Timestamp,
        boot: u128,
        is_already_true: &mut dyn FnMut(&CommandKind) -> bool,
        sign: &mut Signer<'_>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        for id in self.unfinished() {
            let Some(record) = self.records.get_mut(&id) else {
                continue;
            };
            let Progress::Started {
                statement,
                boot: started_in,
            } = &record.progress
            else {
                actions.push(Action::Execute { command_id: id });
                continue;
            };
            let has_rebooted = *started_in != boot_text(boot);
            match &statement.kind {
                CommandKind::Lock { .. }
                | CommandKind::Unlock {}
                | CommandKind::ClearPasscode {}
                | CommandKind::LostModeOn { .. }
                | CommandKind::LostModeOff {}
                | CommandKind::Locate {}
                | CommandKind::InstallApp { .. }
                | CommandKind::RemoveApp { .. }
                | CommandKind::UpdateApp { .. }
                | CommandKind::CollectInventory {}
                | CommandKind::CollectLogs { .. }
                | CommandKind::CollectFiles { .. }
                | CommandKind::RotateKey { .. }
                | CommandKind::UpdateOs {}
                | CommandKind::Message { .. } => {
                    record.progress = Progress::Accepted(statement.clone());
                    actions.push(Action::Execute { command_id: id });
                }
                CommandKind::Restart { .. } | CommandKind::ShutDown { .. } if has_rebooted => {
                    self.finish(identity, id, Execution::done(), now, sign);
                }
                kind @ (CommandKind::Restart { .. }
                | CommandKind::ShutDown { .. }
                | CommandKind::Wipe { .. }
                | CommandKind::Unenroll {}
                | CommandKind::RunScript { .. }
                | CommandKind::UpdateAgent { .. }) => {
                    let execution = if is_already_true(kind) {
                        Execution::done()
                    } else {
                        Execution::failed("interrupted", "the agent ended while the command ran")
                    };
                    self.finish(identity, id, execution, now, sign);
                }
            }
        }
        actions
    }

    /// Accepted and started commands in sequence order.
    fn unfinished(&self) -> Vec<CommandId> {
        let mut found: Vec<_> = self
            .records
            .iter()
            .filter(|(_, record)| !matches!(record.progress, Progress::Finished { .. }))
            .map(|(id, record)| (record.sequence, *id))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, id)| id).collect()
    }

    /// Records the outcome and signs the receipt.
    fn finish(
        &mut self,
        identity: &DeviceIdentity,
        id: CommandId,
        execution: Execution,
        at: Timestamp,
        sign: &mut Signer<'_>,
    ) {
        let Some(record) = self.records.get_mut(&id) else {
            return;
        };
        record.progress = Progress::Finished { execution, at };
        self.repeat(identity, id, sign);
    }

    /// Signs the receipt of a finished command, unless one waits already. A key that cannot sign now is asked again at the
    /// next delivery.
    fn repeat(&mut self, identity: &DeviceIdentity, id: CommandId, sign: &mut Signer<'_>) {
        if self.receipts.contains_key(&id) {
            return;
        }
        if let Some(Record {
            progress: Progress::Finished { execution, at },
            ..
        }) = self.records.get(&id)
            && let Ok(receipt) = receipt(identity, id, execution, *at, sign)
        {
            self.receipts.insert(id, receipt);
        }
    }

    /// Makes room for one more record; false where every record is still needed.
    fn make_room(&mut self) -> bool {
        if self.records.len() < RECORDS_MAX {
            return true;
        }
        let oldest = self
            .records
            .iter()
            .filter(|(id, record)| {
                matches!(record.progress, Progress::Finished { .. }) && !self.receipts.contains_key(id)
            })
            .min_by_key(|(_, record)| record.sequence)
            .map(|(id, _)| *id);
        oldest.is_some_and(|id| self.records.remove(&id).is_some())
    }
}

fn boot_text(boot: u128) -> String {
    format!("{boot:032x}")
}

fn receipt(
    identity: &DeviceIdentity,
    command_id: CommandId,
    execution: &Execution,
    at: Timestamp,
    sign: &mut Signer<'_>,
) -> Result<Envelope, StatementError> {
    let statement = ReceiptStatement {
        tenant: identity.tenant,
        device_id: identity.device_id,
        epoch: identity.epoch,
        command_id,
        outcome: execution.outcome,
        detail: execution
            .detail
            .as_ref()
            .map(|detail| detail.chars().take(MAX_RECEIPT_DETAIL_CHARS).collect()),
        code: execution.code.clone(),
        at,
        output: None,
    };
    sign_as_device(&statement, sign)
}

impl DeviceCore {
    /// What a command is that was accepted and not begun.
    pub fn accepted(&self, command_id: CommandId) -> Option<&CommandKind> {
        match &self.commands.records.get(&command_id)?.progress {
            Progress::Accepted(statement) => Some(&statement.kind),
            Progress::Started { .. } | Progress::Finished { .. } => None,
        }
    }

    /// Begins a command. `Run` means: save this state, then execute; it is recorded as started.
    pub fn begin(&mut self, command_id: CommandId, reading: &ClockReading, sign: &mut Signer<'_>) -> Begin {
        let now = self.now(reading);
        let Some(record) = self.commands.records.get_mut(&command_id) else {
            return Begin::Nothing;
        };
        let Progress::Accepted(statement) = &record.progress else {
            return Begin::Nothing;
        };
        if statement.expires_at <= now {
            let execution = Execution::failed("expired", "the command expired before it could run");
            self.commands
                .finish(&self.identity, command_id, execution, now, sign);
            return Begin::Nothing;
        }
        let statement = statement.clone();
        record.progress = Progress::Started {
            statement: statement.clone(),
            boot: boot_text(reading.boot),
        };
        Begin::Run(*statement)
    }

    /// Records how a command that [`Self::begin`] handed out has ended, and signs its receipt.
    pub fn on_executed(
        &mut self,
        command_id: CommandId,
        execution: Execution,
        reading: &ClockReading,
        sign: &mut Signer<'_>,
    ) {
        let now = self.now(reading);
        let is_started = matches!(
            self.commands.records.get(&command_id),
            Some(Record {
                progress: Progress::Started { .. },
                ..
            })
        );
        if is_started {
            self.commands
                .finish(&self.identity, command_id, execution, now, sign);
        }
    }

    /// Checks what came, in sequence order, whatever order it came in.
    pub(super) fn take_commands(
        &mut self,
        due: &[DueCommand],
        reading: &ClockReading,
        sign: &mut Signer<'_>,
        actions: &mut Vec<Action>,
    ) {
        let mut announced = Vec::new();
        for command in due.iter().take(COMMANDS_MAX) {
            match from_strict_json::<CommandStatement>(&command.envelope.payload, CommandStatement::MAX_BYTES)
            {
                Ok(statement) => announced.push((statement, command)),
                Err(error) => actions.push(refused("command", "malformed", error.to_string())),
            }
        }
        announced.sort_by_key(|(statement, _)| statement.sequence);
        for (announced, command) in announced {
            self.take_command(&announced, command, reading, sign, actions);
        }
    }

    /// `announced` is what the envelope says before its signature was checked: enough to recognize a command that was
    /// accepted before, and to answer one that was signed and logged but must not run.
    fn take_command(
        &mut self,
        announced: &CommandStatement,
        command: &DueCommand,
        reading: &ClockReading,
        sign: &mut Signer<'_>,
        actions: &mut Vec<Action>,
    ) {
        let id = announced.command_id;
        match self.commands.records.get(&id).map(|record| &record.progress) {
            None => {}
            Some(Progress::Accepted(_)) => return actions.push(Action::Execute { command_id: id }),
            Some(Progress::Started { .. }) => return,
            Some(Progress::Finished { .. }) => return self.commands.repeat(&self.identity, id, sign),
        }
        if !self.commands.make_room() {
            let detail = "too many receipts wait for the server; it will be taken when they are accepted";
            actions.push(refused(id.to_string(), "busy", detail));
            return;
        }
        let now = self.now(reading);
        let checked = self.trust.check_command(
            &command.envelope,
            &command.proof,
            command.approval.as_ref(),
            self.identity.device_id,
            self.identity.epoch,
            self.commands.last_sequence,
            now,
        );
        match checked {
            Ok(statement) => {
                self.commands.last_sequence = statement.sequence;
                let progress = Progress::Accepted(Box::new(statement));
                self.commands.records.insert(
                    id,
                    Record {
                        sequence: announced.sequence,
                        progress,
                    },
                );
                actions.push(Action::Execute { command_id: id });
            }
            Err(refusal) => {
                if is_answerable(&refusal) && announced.sequence > self.commands.last_sequence {
                    self.commands.last_sequence = announced.sequence;
                    let progress = Progress::Accepted(Box::new(announced.clone()));
                    self.commands.records.insert(
                        id,
                        Record {
                            sequence: announced.sequence,
                            progress,
                        },
                    );
                    let execution = Execution::failed(refusal.code(), refusal.to_string());
                    self.commands.finish(&self.identity, id, execution, now, sign);
                }
                actions.push(refused(id.to_string(), refusal.code(), refusal.to_string()));
            }
        }
    }
}

/// True for refusals that come only after signature, log inclusion, address and sequence were found right: the statement
/// is the tenant's word, and its sender deserves a receipt. Anything else is not answered at all.
fn is_answerable(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::ApprovalsRequired | Refusal::Expired(_) => true,
        // Its hour will come, and it will be delivered again.
        Refusal::Approvals(why) => !matches!(why, ApprovalError::TooEarly(_)),
        _ => false,
    }
}
