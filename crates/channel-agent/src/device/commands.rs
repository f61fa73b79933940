//! Commands on the device: checked, recorded, executed once, answered with a signed receipt.

use std::collections::BTreeMap;

use muster_model::command::{CommandKind, ReceiptOutcome};
use muster_model::id::CommandId;
use muster_model::time::Timestamp;
use muster_trust::approval::ApprovalError;
use muster_trust::dsse::Envelope;
use muster_trust::encoding::from_strict_json;
use muster_trust::key::Digest;
use muster_trust::obey::Refusal;
use muster_trust::root::RootDocument;
use muster_trust::statement::{
    CommandStatement, MAX_RECEIPT_DETAIL_CHARS, MAX_RECEIPT_OUTPUT_BYTES, ReceiptStatement, ScriptStatement,
    Statement as _, StatementError,
};
use serde::{Deserialize, Serialize};

use super::approved::{
    APPROVAL_STALE_CODE, APPROVAL_USED_CODE, Approval, ApprovedList, SpentLists, TIME_UNPROVEN_CODE,
};
use super::departure::DEPARTED_CODE;
use super::{Action, DeviceCore, DeviceIdentity, Signer, refused, sign_as_device};
use crate::clock::ClockReading;
use crate::command::DueCommand;
use crate::limits::{COMMANDS_MAX, RECEIPTS_BYTES_MAX};

/// Most commands that a device remembers. Older ones are refused by their sequence alone.
const RECORDS_MAX: usize = 256;
/// Most bytes of receipts that wait; while there are more, no command is taken.
const PENDING_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of receipts that wait with their outputs; what is printed beyond that is left out.
const OUTPUTS_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Finished commands whose output is remembered after its receipt was accepted.
const OUTPUTS_KEPT_MAX: usize = 4;
/// Code of a command that does not exist for a device of this ownership.
pub const PERSONAL_DEVICE_CODE: &str = "personal_device";
/// Code of `run-script` that came without its script.
pub const SCRIPT_MISSING_CODE: &str = "script_missing";
/// Code of `run-script` whose script is not signed as it must be.
pub const SCRIPT_REFUSED_CODE: &str = "script_refused";

/// How an execution ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// Done, nothing to do, or failed.
    pub outcome: ReceiptOutcome,
    /// A stable code where it failed.
    pub code: Option<String>,
    /// One sentence where there is something to say.
    pub detail: Option<String>,
    /// What the command printed or collected. What is past the limit of a receipt is cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// SHA-256 of what was uploaded beside the receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_sha256: Option<Digest>,
}

impl Execution {
    /// The command took effect.
    pub fn done() -> Self {
        Self::of(ReceiptOutcome::Done, None, None)
    }

    /// The command's effect was there already.
    pub fn noop() -> Self {
        Self::of(ReceiptOutcome::Noop, None, None)
    }

    /// The command did not take effect.
    pub fn failed(code: &str, detail: impl Into<String>) -> Self {
        Self::of(ReceiptOutcome::Failed, Some(code.to_owned()), Some(detail.into()))
    }

    /// The command cannot be carried out at this moment: it is to be delivered again.
    pub fn not_now(code: &str, detail: impl Into<String>) -> Self {
        Self::of(ReceiptOutcome::NotNow, Some(code.to_owned()), Some(detail.into()))
    }

    fn of(outcome: ReceiptOutcome, code: Option<String>, detail: Option<String>) -> Self {
        Self {
            outcome,
            code,
            detail,
            output: None,
            output_sha256: None,
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
    /// Known to be the tenant's word, and not to be done before it is delivered, and checked, once more.
    Deferred { expires_at: Timestamp },
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
    /// It began once, in time: after a crash it may be finished later than it may begin.
    #[serde(default)]
    has_begun: bool,
    /// What `run-script` runs, until it has run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    script: Option<Box<ScriptStatement>>,
    /// Of what needs approvals: how long they may be relied on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    approved: Option<Approval>,
}

impl Record {
    fn output(&self) -> Option<&String> {
        match &self.progress {
            Progress::Finished { execution, .. } => execution.output.as_ref(),
            Progress::Accepted(_) | Progress::Deferred { .. } | Progress::Started { .. } => None,
        }
    }

    fn new(sequence: u64, progress: Progress) -> Self {
        Self {
            sequence,
            progress,
            has_begun: false,
            script: None,
            approved: None,
        }
    }

    /// Whether the approvals of what has not begun were checked a moment ago, by the newest root document.
    fn is_approved(&self, root_version: u64, now: Timestamp) -> bool {
        self.approved
            .as_ref()
            .is_some_and(|approved| approved.holds(root_version, now))
    }
}

/// What the device knows about its commands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Ledger {
    last_sequence: u64,
    records: BTreeMap<CommandId, Record>,
    /// Receipts that the server has not confirmed.
    receipts: BTreeMap<CommandId, Envelope>,
    /// What people approved is for one command of this device.
    #[serde(default, skip_serializing_if = "SpentLists::is_empty")]
    spent: SpentLists,
}

impl Ledger {
    pub(super) fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    pub(super) fn has_receipts(&self) -> bool {
        !self.receipts.is_empty()
    }

    /// The oldest receipts first, as many as one check-in holds: at least one.
    pub(super) fn receipts(&self, count_max: usize) -> Vec<Envelope> {
        let sequence = |id: &CommandId| self.records.get(id).map_or(0, |record| record.sequence);
        let mut pending: Vec<_> = self.receipts.iter().collect();
        pending.sort_by_key(|(id, _)| sequence(id));
        let mut bytes = 0;
        let fits = |(place, receipt): &(usize, &Envelope)| {
            bytes += receipt.payload.len();
            *place == 0 || bytes <= RECEIPTS_BYTES_MAX
        };
        pending
            .into_iter()
            .take(count_max)
            .map(|(_, receipt)| receipt)
            .enumerate()
            .take_while(fits)
            .map(|(_, receipt)| receipt.clone())
            .collect()
    }

    pub(super) fn on_receipts_accepted(&mut self, accepted: &[CommandId]) {
        for id in accepted {
            self.receipts.remove(id);
        }
        if !accepted.is_empty() {
            self.forget_old_outputs();
        }
    }

    /// A repeated receipt of a recent command has the output of the first; older outputs are not kept for it.
    fn forget_old_outputs(&mut self) {
        let receipts = &self.receipts;
        let mut told: Vec<&mut Record> = self
            .records
            .iter_mut()
            .filter(|(id, record)| record.output().is_some() && !receipts.contains_key(id))
            .map(|(_, record)| record)
            .collect();
        told.sort_by_key(|record| std::cmp::Reverse(record.sequence));
        for record in told.into_iter().skip(OUTPUTS_KEPT_MAX) {
            if let Progress::Finished { execution, .. } = &mut record.progress {
                execution.output = None;
            }
        }
    }

    /// Unfinished commands after a start. What can run twice without harm runs again; the rest is reported by what can be
    /// seen of its effect. What needs approvals and was not begun waits until it is delivered, and checked, again: it may have
    /// been taken back while the machine was off.
    pub(super) fn recover(
        &mut self,
        (identity, root): (&DeviceIdentity, &RootDocument),
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
            let (statement, started_in) = match &record.progress {
                Progress::Accepted(statement)
                    if root.needs_approval(&statement.kind) && !record.has_begun =>
                {
                    let expires_at = statement.expires_at;
                    record.progress = Progress::Deferred { expires_at };
                    continue;
                }
                Progress::Accepted(_) => {
                    actions.push(Action::Execute { command_id: id });
                    continue;
                }
                Progress::Started { statement, boot } => (statement.clone(), boot.clone()),
                Progress::Deferred { .. } | Progress::Finished { .. } => continue,
            };
            let has_rebooted = started_in != boot_text(boot);
            let is_done = match &statement.kind {
                CommandKind::Restart { .. } | CommandKind::ShutDown { .. } if has_rebooted => true,
                kind => is_already_true(kind),
            };
            if is_done {
                self.finish(identity, id, Execution::done(), now, sign);
            } else if may_run_twice(&statement.kind) {
                record.progress = Progress::Accepted(statement);
                actions.push(Action::Execute { command_id: id });
            } else {
                let execution = Execution::failed("interrupted", "the agent ended while the command ran");
                self.finish(identity, id, execution, now, sign);
            }
        }
        actions
    }

    /// Accepted and started commands in sequence order.
    fn unfinished(&self) -> Vec<CommandId> {
        let mut found: Vec<_> = self
            .records
            .iter()
            .filter(|(_, record)| matches!(record.progress, Progress::Accepted(_) | Progress::Started { .. }))
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
        mut execution: Execution,
        at: Timestamp,
        sign: &mut Signer<'_>,
    ) {
        if execution.output.is_some() && self.waiting_bytes() > OUTPUTS_BYTES_MAX {
            execution.output = None;
            execution.detail = Some("the output is left out: too much waits for the server".to_owned());
        }
        let Some(record) = self.records.get_mut(&id) else {
            return;
        };
        record.progress = Progress::Finished { execution, at };
        record.script = None;
        // What it said before, such as that it could not be done at that moment, is over.
        self.receipts.remove(&id);
        self.repeat(identity, id, sign);
    }

    /// Answers that a command cannot be carried out now, and lets it wait for its next delivery.
    fn put_off(
        &mut self,
        identity: &DeviceIdentity,
        id: CommandId,
        execution: &Execution,
        at: Timestamp,
        sign: &mut Signer<'_>,
    ) {
        let Some(record) = self.records.get_mut(&id) else {
            return;
        };
        let (Progress::Accepted(statement) | Progress::Started { statement, .. }) = &record.progress else {
            return;
        };
        let expires_at = statement.expires_at;
        record.progress = Progress::Deferred { expires_at };
        record.script = None;
        // A key that cannot sign now is no harm: the command comes again.
        if let Ok(receipt) = receipt(identity, id, execution, at, sign) {
            self.receipts.insert(id, receipt);
        }
    }

    /// Signs the receipt of a finished command, unless one waits already. A key that cannot sign now is asked again at the
    /// next delivery.
    pub(super) fn repeat(&mut self, identity: &DeviceIdentity, id: CommandId, sign: &mut Signer<'_>) {
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

    fn waiting_bytes(&self) -> usize {
        self.receipts.values().map(|receipt| receipt.payload.len()).sum()
    }

    /// Makes room for one more record; false where every record is still needed, or too much waits to be told.
    fn make_room(&mut self, now: Timestamp) -> bool {
        if self.waiting_bytes() > PENDING_BYTES_MAX {
            return false;
        }
        if self.records.len() < RECORDS_MAX {
            return true;
        }
        let is_over = |record: &Record| match &record.progress {
            Progress::Finished { .. } => true,
            Progress::Deferred { expires_at } => *expires_at <= now,
            Progress::Accepted(_) | Progress::Started { .. } => false,
        };
        let oldest = self
            .records
            .iter()
            .filter(|(id, record)| is_over(record) && !self.receipts.contains_key(id))
            .min_by_key(|(_, record)| record.sequence)
            .map(|(id, _)| *id);
        oldest.is_some_and(|id| self.records.remove(&id).is_some())
    }
}

/// Whether a command that was cut off may be carried out once more. A restart would come twice, a script has its own
/// effects, and a new agent would be asked to install itself.
fn may_run_twice(kind: &CommandKind) -> bool {
    match kind {
        CommandKind::Lock { .. }
        | CommandKind::Unlock {}
        | CommandKind::ClearPasscode {}
        | CommandKind::Wipe { .. }
        | CommandKind::Unenroll {}
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
        | CommandKind::Message { .. }
        | CommandKind::LoosenPolicy { .. } => true,
        CommandKind::Restart { .. }
        | CommandKind::ShutDown { .. }
        | CommandKind::RunScript { .. }
        | CommandKind::UpdateAgent { .. } => false,
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
        output: execution.output.as_deref().map(cut),
        output_sha256: execution.output_sha256,
    };
    sign_as_device(&statement, sign)
}

/// The beginning of an output, as much as a receipt holds.
fn cut(output: &str) -> String {
    output[..output.floor_char_boundary(MAX_RECEIPT_OUTPUT_BYTES)].to_owned()
}

impl DeviceCore {
    /// What a command is that was accepted and not begun.
    pub fn accepted(&self, command_id: CommandId) -> Option<&CommandKind> {
        match &self.commands.records.get(&command_id)?.progress {
            Progress::Accepted(statement) => Some(&statement.kind),
            Progress::Deferred { .. } | Progress::Started { .. } | Progress::Finished { .. } => None,
        }
    }

    /// The script of a command that [`Self::begin`] handed out: signed by the policy role, and the one that the command
    /// names.
    pub fn script(&self, command_id: CommandId) -> Option<&ScriptStatement> {
        self.commands.records.get(&command_id)?.script.as_deref()
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
        if self.departure.is_some() {
            let execution = match &statement.kind {
                CommandKind::Wipe { .. } | CommandKind::Unenroll {} => Execution::noop(),
                _ => Execution::failed(DEPARTED_CODE, "the device has left the management"),
            };
            self.commands
                .finish(&self.identity, command_id, execution, now, sign);
            return Begin::Nothing;
        }
        if statement.expires_at <= now && !record.has_begun {
            let execution = Execution::failed("expired", "the command expired before it could run");
            self.commands
                .finish(&self.identity, command_id, execution, now, sign);
            return Begin::Nothing;
        }
        let root = &self.trust.root;
        let is_checked = self.clock.is_anchored(reading) && record.is_approved(root.version, now);
        if root.needs_approval(&statement.kind) && !record.has_begun && !is_checked {
            let detail = "it waited: its approvals are checked when it comes again";
            let execution = Execution::not_now(APPROVAL_STALE_CODE, detail);
            self.commands
                .put_off(&self.identity, command_id, &execution, now, sign);
            return Begin::Nothing;
        }
        let statement = statement.clone();
        record.has_begun = true;
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
        let Some(Record {
            progress: Progress::Started { statement, .. },
            ..
        }) = self.commands.records.get(&command_id)
        else {
            return;
        };
        let leaves = statement.kind.is_destructive();
        let kind = statement.kind.clone();
        if execution.outcome == ReceiptOutcome::NotNow {
            self.commands
                .put_off(&self.identity, command_id, &execution, now, sign);
            return;
        }
        if leaves && execution.outcome != ReceiptOutcome::Failed {
            self.depart(command_id, &kind, now);
        }
        self.commands
            .finish(&self.identity, command_id, execution, now, sign);
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
        let mut floor = self.commands.last_sequence;
        if let Some(record) = self.commands.records.get(&id) {
            match &record.progress {
                Progress::Accepted(known)
                    if record.has_begun || !self.trust.root.needs_approval(&known.kind) =>
                {
                    return actions.push(Action::Execute { command_id: id });
                }
                Progress::Started { .. } => return,
                Progress::Finished { .. } => return self.commands.repeat(&self.identity, id, sign),
                // What waits for its next delivery, and what people approved and waits for its turn. Its number is its own;
                // everything else is checked as if it came for the first time.
                Progress::Deferred { .. } | Progress::Accepted(_) => {
                    if record.sequence == announced.sequence {
                        floor = floor.min(record.sequence.saturating_sub(1));
                    }
                }
            }
        }
        let now = self.now(reading);
        if !self.commands.records.contains_key(&id) && !self.commands.make_room(now) {
            let detail = "too many receipts wait for the server; it will be taken when they are accepted";
            actions.push(refused(id.to_string(), "busy", detail));
            return;
        }
        let checked = self.trust.check_command(
            &command.envelope,
            &command.proof,
            command.approval.as_ref(),
            (self.identity.device_id, self.identity.epoch),
            floor,
            now,
        );
        let is_genuine = checked.as_ref().map_or_else(is_genuine, |_| true);
        if is_genuine && self.trust.root.needs_approval(&announced.kind) && !self.clock.is_anchored(reading) {
            // Whether it comes too early or too late, a wall clock cannot say.
            self.put_aside(announced, floor);
            let detail = "no checkpoint has said what time it is since this machine started";
            return actions.push(refused(id.to_string(), TIME_UNPROVEN_CODE, detail));
        }
        match checked {
            Ok(statement) => self.accept(statement, command, now, sign, actions),
            Err(refusal) => {
                if announced.sequence > floor && is_answerable(&refusal) {
                    let execution = Execution::failed(refusal.code(), refusal.to_string());
                    return self.answer(announced.clone(), execution, now, sign, actions);
                }
                if is_early(&refusal) {
                    self.put_aside(announced, floor);
                }
                actions.push(refused(id.to_string(), refusal.code(), refusal.to_string()));
            }
        }
    }

    /// Takes a command up that was signed, logged and approved as it must be.
    fn accept(
        &mut self,
        statement: CommandStatement,
        command: &DueCommand,
        now: Timestamp,
        sign: &mut Signer<'_>,
        actions: &mut Vec<Action>,
    ) {
        let (id, root) = (statement.command_id, &self.trust.root);
        let list = root
            .needs_approval(&statement.kind)
            .then(|| ApprovedList::of(command))
            .flatten();
        if let Some(list) = &list
            && !self.commands.spent.make_room_for(list, self.trust.trusted_time)
        {
            let detail = "too many approved lists may still be taken; it will be when some have expired";
            return actions.push(refused(id.to_string(), "busy", detail));
        }
        // A command that waits for its next delivery has its approvals still; one that is not known any more has ended.
        let own = self.commands.records.contains_key(&id).then_some(id);
        let used = list.and_then(|list| self.commands.spent.on_other_than(own, &list));
        let checked = match used {
            None => self.check_what(&statement, command),
            Some(used) => {
                let detail = format!("its approvals were for one command, and that was {used}");
                Err(Execution::failed(APPROVAL_USED_CODE, detail))
            }
        };
        let script = match checked {
            Ok(script) => script,
            Err(execution) => return self.answer(statement, execution, now, sign, actions),
        };
        let mut record = Record::new(statement.sequence, Progress::Accepted(Box::new(statement)));
        record.script = script.map(Box::new);
        if let Some(list) = list {
            record.approved = Some(Approval::checked(self.trust.root.version, &list, now));
            self.commands.spent.spend(&list, id);
        }
        self.remember(id, record);
        actions.push(Action::Execute { command_id: id });
    }

    /// Ends a command that is the tenant's word with its reason.
    fn answer(
        &mut self,
        statement: CommandStatement,
        execution: Execution,
        now: Timestamp,
        sign: &mut Signer<'_>,
        actions: &mut Vec<Action>,
    ) {
        let (id, sequence) = (statement.command_id, statement.sequence);
        let code = execution.code.clone().unwrap_or_default();
        let detail = execution.detail.clone().unwrap_or_default();
        self.remember(id, Record::new(sequence, Progress::Accepted(Box::new(statement))));
        self.commands.finish(&self.identity, id, execution, now, sign);
        actions.push(refused(id.to_string(), code, detail));
    }

    /// Lets a command wait for its next delivery: its hour will come. What comes meanwhile must not make it a replay.
    fn put_aside(&mut self, announced: &CommandStatement, floor: u64) {
        if announced.sequence > floor {
            let expires_at = announced.expires_at;
            let record = Record::new(announced.sequence, Progress::Deferred { expires_at });
            self.remember(announced.command_id, record);
        }
    }

    fn remember(&mut self, id: CommandId, record: Record) {
        self.commands.last_sequence = self.commands.last_sequence.max(record.sequence);
        self.commands.records.insert(id, record);
    }

    /// What this very device may be told, whatever was signed; the script of a command that runs one.
    fn check_what(
        &self,
        statement: &CommandStatement,
        command: &DueCommand,
    ) -> Result<Option<ScriptStatement>, Execution> {
        statement
            .kind
            .check_for(self.identity.ownership)
            .map_err(|error| Execution::failed(PERSONAL_DEVICE_CODE, error.to_string()))?;
        let CommandKind::RunScript { sha256, .. } = &statement.kind else {
            return Ok(None);
        };
        let named: Digest = sha256
            .as_str()
            .parse()
            .map_err(|_| Execution::failed(SCRIPT_REFUSED_CODE, "the command names no script"))?;
        let script = command
            .script
            .as_ref()
            .ok_or_else(|| Execution::failed(SCRIPT_MISSING_CODE, "the command came without its script"))?;
        let checked = self.trust.check_script(script, named);
        checked
            .map(Some)
            .map_err(|refusal| Execution::failed(SCRIPT_REFUSED_CODE, refusal.to_string()))
    }
}

/// True for refusals that come only after signature, log inclusion, address and sequence were found right: the statement
/// is the tenant's word, and its sender deserves a receipt. Anything else is not answered at all.
fn is_answerable(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::ApprovalsRequired | Refusal::Expired(_) => true,
        Refusal::Approvals(_) => !is_early(refusal),
        _ => false,
    }
}

/// True where its hour will come, and it will be delivered again.
fn is_early(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Approvals(ApprovalError::TooEarly(_)))
}

/// True for refusals of what is the tenant's word for this device, and new.
fn is_genuine(refusal: &Refusal) -> bool {
    is_answerable(refusal) || is_early(refusal)
}
