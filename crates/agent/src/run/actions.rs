//! What the device core asks for, done on the machine and the wire.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use muster_channel_agent::Base64Bytes;
use muster_channel_agent::backoff::Backoff;
use muster_channel_agent::device::{Action, Begin, Execution};
use muster_channel_agent::inventory::InventoryRequest;
use muster_channel_agent::limits::{BUNDLE_BYTES_MAX, INVENTORY_BODY_BYTES_MAX, RENEW_RESPONSE_BYTES_MAX};
use muster_channel_agent::path;
use muster_channel_agent::renew::{RenewRequest, RenewResponse};
use muster_model::command::{CommandKind, RotatedKey};
use muster_model::facts::Facts;
use muster_model::id::CommandId;
use muster_model::report::{SettingReport, SettingState};
use muster_model::settings::SettingValue;
use muster_model::telemetry::EventKind;
use muster_trust::key::{Digest, sha256};
use muster_trust::statement::ScriptStatement;
use tokio::time::Instant;

use super::{Agent, AttemptError, RETRY, Unsent, Work};
use crate::error::AgentError;
use crate::link::{Link, LinkError};
use crate::machine_clock;
use crate::os::{ExecOutcome, Machine, Order};
use crate::spool::Slot;
use crate::telemetry::PolicyFigures;

/// What the machine showed, setting by setting.
pub(super) type Shown = BTreeMap<String, SettingReport>;

/// Most settings that one event each is told of.
const TOLD_MAX: usize = 32;
/// Most actions performed for one answer; a bound against a core that never stops asking.
const ACTIONS_MAX: usize = 1024;

impl Agent {
    /// After a start: finishes what was begun, and puts the policy in force that was in force.
    pub(super) async fn recover(&mut self) {
        let machine = Arc::clone(&self.machine);
        let reading = machine_clock::read();
        let recovered = self.change_and_save(|core, sign| {
            core.recover(&reading, &mut |kind| machine.already_true(kind), sign)
        });
        match recovered {
            Err(error) => tracing::error!(%error, "the state cannot be saved: unfinished work waits"),
            Ok(actions) => {
                if let Err(error) = self.perform(actions, None).await {
                    tracing::warn!(%error, "unfinished work waits for the server");
                }
            }
        }
    }

    /// Performs actions in order, and what follows from them. Without a link, what needs the server is left out: the
    /// server asks again. A bundle for which the server has no time now does not keep the rest from being done.
    pub(super) async fn perform(
        &mut self,
        actions: Vec<Action>,
        link: Option<&Link>,
    ) -> Result<(), AttemptError> {
        let mut queue = VecDeque::from(actions);
        let mut busy = None;
        for _ in 0..ACTIONS_MAX {
            let Some(action) = queue.pop_front() else {
                return busy.map_or(Ok(()), |error| Err(AttemptError::Link(error)));
            };
            match action {
                Action::Refused(refused) => {
                    tracing::warn!(
                        subject = refused.subject,
                        code = refused.code,
                        "refused: {}",
                        refused.detail
                    );
                }
                Action::Execute { command_id } => self.execute(command_id, link).await?,
                Action::FetchBundle { sha256 } => {
                    let Some(link) = link.filter(|_| busy.is_none()) else {
                        continue;
                    };
                    match self.fetch_bundle(sha256, link).await {
                        Ok(more) => queue.extend(more),
                        Err(AttemptError::Link(error)) if error.is_busy() => busy = Some(error),
                        Err(error) => return Err(error),
                    }
                }
                Action::Apply { settings } => self.apply(settings).await?,
                Action::ReadBack { settings } => {
                    let reports = self.on_machine(move |machine| machine.read_back(&settings)).await;
                    self.report(reports)?;
                }
                Action::SendInventory => {
                    let Some(link) = link else { continue };
                    if let Err(error) = self.send_inventory(link).await {
                        tracing::warn!(%error, "the inventory could not be sent");
                    }
                }
                Action::Renew => {
                    let Some(link) = link else { continue };
                    self.renew(link).await;
                }
                Action::Depart { how } => self.departed = Some(how),
            }
        }
        tracing::error!("more than {ACTIONS_MAX} actions for one answer: the rest waits for the next");
        Ok(())
    }

    /// Recorded as started, saved, executed, recorded as finished, saved. What may take long runs beside everything else, one
    /// after the other.
    async fn execute(&mut self, command_id: CommandId, link: Option<&Link>) -> Result<(), AttemptError> {
        let Some(kind) = self.core.accepted(command_id) else {
            return Ok(());
        };
        if link.is_none() && needs_server(kind) {
            self.waiting.push(command_id);
            return Ok(());
        }
        if is_slow(kind) {
            return self.begin_beside(command_id);
        }
        let Some((kind, _)) = self.begin(command_id)? else {
            return Ok(());
        };
        let execution = match (&kind, link) {
            (CommandKind::CollectInventory {}, Some(link)) => match self.send_inventory(link).await {
                Ok(()) => Execution::done(),
                Err(error) => not_sent(&error),
            },
            (
                CommandKind::RotateKey {
                    key: RotatedKey::Certificate,
                },
                Some(link),
            ) => match self.try_renew(link).await {
                Ok(()) => {
                    // The next exchange opens a connection that shows the new certificate.
                    self.disconnect();
                    Execution::done()
                }
                Err(AttemptError::Link(error)) => not_sent(&error),
                Err(error) => Execution::failed("renewal_failed", error.to_string()),
            },
            _ => {
                let outcome = self
                    .on_machine(move |machine| execute_on(machine, command_id, &kind, None))
                    .await;
                execution_of(outcome)
            }
        };
        self.finish(command_id, execution)
    }

    /// The command, once it is recorded as started; nothing where it is not to run.
    fn begin(
        &mut self,
        command_id: CommandId,
    ) -> Result<Option<(CommandKind, Option<ScriptStatement>)>, AttemptError> {
        let reading = machine_clock::read();
        let begun = self.change_and_save(|core, sign| core.begin(command_id, &reading, sign))?;
        let Begin::Run(statement) = begun else {
            return Ok(None);
        };
        self.traces.begun(command_id, reading);
        let script = self.core.script(command_id).cloned();
        let trace_id = self.traces.trace_of(command_id);
        tracing::info!(command = %command_id, trace_id, kind = statement.kind.type_name(), "executing");
        Ok(Some((statement.kind, script)))
    }

    fn finish(&mut self, command_id: CommandId, execution: Execution) -> Result<(), AttemptError> {
        let trace_id = self.traces.trace_of(command_id);
        tracing::info!(command = %command_id, trace_id, outcome = ?execution.outcome, code = execution.code, "executed");
        let reading = machine_clock::read();
        let span = self.traces.executed(command_id, &execution, reading);
        self.tell(span);
        self.change(|core, sign| core.on_executed(command_id, execution, &reading, sign));
        // It has happened: memory keeps the outcome even where the disk does not take it, and the next save tries again.
        self.save()?;
        Ok(())
    }

    /// Starts a command that may take long, or lets it wait for its turn.
    fn begin_beside(&mut self, command_id: CommandId) -> Result<(), AttemptError> {
        // The first check-in of an enrollment ends before such a command does: `run` takes it up.
        if self.is_once {
            return Ok(());
        }
        if self.work.is_some() || self.unsent.is_some() {
            if !self.queue.contains(&command_id) {
                self.queue.push_back(command_id);
            }
            return Ok(());
        }
        let Some((kind, script)) = self.begin(command_id)? else {
            return Ok(());
        };
        let machine = Arc::clone(&self.machine);
        let handle =
            tokio::task::spawn_blocking(move || execute_on(&machine, command_id, &kind, script.as_ref()));
        self.work = Some(Work { command_id, handle });
        Ok(())
    }

    /// Records what has ended beside everything else, and starts what waited for it.
    pub(super) async fn on_work_done(&mut self, command_id: CommandId, outcome: ExecOutcome) {
        let mut outcome = outcome;
        let upload = outcome.upload.take();
        let execution = execution_of(outcome);
        match upload {
            None => self.end_work(command_id, execution),
            Some(bytes) => {
                let unsent = Unsent {
                    command_id,
                    bytes: Bytes::from(bytes),
                    execution,
                    backoff: Backoff::new(RETRY.0, RETRY.1),
                    again_at: Instant::now(),
                };
                self.send_output(unsent).await;
            }
        }
    }

    /// Uploads what a command printed or collected, which ends it. Where the server has no time, or cannot be reached any more
    /// since, it is kept: what a command did is not done again for its output.
    pub(super) async fn send_output(&mut self, mut unsent: Unsent) {
        let command_id = unsent.command_id;
        let was_kept = unsent.backoff.attempts() > 0;
        let execution = match self.upload(command_id, unsent.bytes.clone()).await {
            Ok(digest) => Execution {
                output_sha256: Some(digest),
                ..unsent.execution
            },
            Err(AttemptError::Link(error)) if error.is_busy() || (was_kept && is_unreachable(&error)) => {
                let delay = unsent
                    .backoff
                    .failed(machine_clock::random(), error.retry_after());
                tracing::warn!(command = %command_id, %error, retry_in = ?delay, "an output is kept");
                unsent.again_at = Instant::now() + delay;
                self.unsent = Some(unsent);
                return;
            }
            Err(AttemptError::Link(error)) => not_sent(&error),
            Err(error) => Execution::not_now("upload_failed", error.to_string()),
        };
        self.end_work(command_id, execution);
    }

    /// Records how work has ended, and starts what waited for it.
    fn end_work(&mut self, command_id: CommandId, execution: Execution) {
        if let Err(error) = self.finish(command_id, execution) {
            tracing::error!(%error, "the outcome of a command is not saved yet");
        }
        while self.work.is_none()
            && let Some(next) = self.queue.pop_front()
        {
            if let Err(error) = self.begin_beside(next) {
                tracing::error!(%error, "a command waits until the state can be saved");
            }
        }
    }

    async fn upload(&mut self, command_id: CommandId, bytes: Bytes) -> Result<Digest, AttemptError> {
        let digest = sha256(&bytes);
        let link = self.connected().await?;
        link.output(&format!("{}{command_id}/output", path::COMMANDS), bytes)
            .await?;
        Ok(digest)
    }

    async fn fetch_bundle(&mut self, sha256: Digest, link: &Link) -> Result<Vec<Action>, AttemptError> {
        let bytes = link.bundle(&sha256.to_hex(), BUNDLE_BYTES_MAX).await?;
        let reading = machine_clock::read();
        Ok(self.change_and_save(|core, sign| core.on_bundle(sha256, &bytes, &reading, sign))?)
    }

    async fn apply(&mut self, settings: BTreeMap<String, SettingValue>) -> Result<(), AttemptError> {
        // What was asked for before a wipe of the same answer.
        if self.core.departed().is_some() {
            return Ok(());
        }
        tracing::info!(settings = settings.len(), "applying");
        if let Some(telemetry) = &self.telemetry {
            let count = settings.len().to_string();
            telemetry.happened(EventKind::PolicyApplied, [("settings", count)]);
        }
        let reports = self.on_machine(move |machine| machine.apply(&settings)).await;
        self.report(reports)
    }

    fn report(&mut self, reports: Shown) -> Result<(), AttemptError> {
        let reading = machine_clock::read();
        self.change_and_save(|core, sign| core.on_applied(&reports, &reading, sign))?;
        self.tell_policy(&reports);
        self.shown = Some(reports);
        Ok(())
    }

    /// Tells telemetry what the policy asks of it, how the policy is, and which settings are not in force any more.
    fn tell_policy(&self, reports: &Shown) {
        let Some(telemetry) = &self.telemetry else { return };
        let is_failed = |report: &SettingReport| report.state == SettingState::Failed;
        let figures = PolicyFigures {
            settings: reports.len(),
            failed: reports.values().filter(|report| is_failed(report)).count(),
        };
        telemetry.set_policy(self.sampling_plan(), figures);
        let before = self.shown.as_ref();
        let is_known = |key: &String| before.and_then(|shown| shown.get(key)).is_some_and(is_failed);
        let failed = reports.iter().filter(|(_, report)| is_failed(report));
        for (key, report) in failed.filter(|(key, _)| !is_known(key)).take(TOLD_MAX) {
            let reason = report.detail.clone().unwrap_or_default();
            telemetry.happened(
                EventKind::PolicyFailed,
                [("setting", key.clone()), ("reason", reason)],
            );
        }
    }

    /// Compares the machine with the policy, and puts right what somebody changed. The server hears of it.
    pub(super) async fn enforce(&mut self) {
        let settings = self.core.effective_settings();
        let Some(shown) = self.shown.clone() else { return };
        if settings.is_empty() {
            return;
        }
        let wanted = settings.clone();
        let found = self.on_machine(move |machine| machine.read_back(&wanted)).await;
        if found == shown {
            return;
        }
        tracing::warn!("the machine has drifted from its policy");
        if let Some(telemetry) = &self.telemetry {
            let drifted = found
                .iter()
                .filter(|(key, report)| shown.get(*key) != Some(*report));
            for (key, _) in drifted.take(TOLD_MAX) {
                telemetry.happened(EventKind::Tamper, [("setting", key.clone())]);
            }
        }
        if let Err(error) = self.apply(settings).await {
            tracing::error!(%error, "the policy could not be enforced");
        }
    }

    async fn send_inventory(&mut self, link: &Link) -> Result<(), LinkError> {
        let now = self.core.now(&machine_clock::read());
        let facts = self.on_machine(move |machine| machine.collect_facts(now)).await;
        facts
            .bounded()
            .map_err(|error| LinkError::Protocol(error.to_string()))?;
        let digest = facts_digest(&facts)?;
        let request = InventoryRequest {
            epoch: self.identity.epoch,
            facts,
        };
        link.upload(path::INVENTORY, &request).await?;
        self.core.on_inventory_sent(digest);
        Ok(())
    }

    /// Renews at two thirds of the certificate's life.
    pub(super) async fn renew_if_due(&mut self, link: &Link) {
        let now = self.core.now(&machine_clock::read());
        if self
            .identity
            .validity()
            .is_ok_and(|validity| validity.is_due(now))
        {
            self.renew(link).await;
        }
    }

    /// A failed renewal is tried again at the next check-in: a third of the certificate's life is left.
    async fn renew(&mut self, link: &Link) {
        match self.try_renew(link).await {
            Ok(()) => {
                tracing::info!("certificate renewed");
                // The next exchange opens a connection that shows the new certificate.
                self.disconnect();
            }
            Err(error) => tracing::warn!(%error, "the certificate could not be renewed"),
        }
    }

    async fn try_renew(&mut self, link: &Link) -> Result<(), AttemptError> {
        let csr = Base64Bytes(self.key.certificate_request(self.identity.device_uuid)?);
        let renewed: RenewResponse = link
            .exchange(
                Method::POST,
                path::RENEW,
                &RenewRequest { csr },
                RENEW_RESPONSE_BYTES_MAX,
            )
            .await?;
        let leaf = renewed
            .certificate_chain
            .first()
            .ok_or_else(|| AgentError::Certificate("the answer holds none".to_owned()))?;
        if !self.key.is_certified_by(&leaf.0) {
            return Err(
                AgentError::Certificate("the new one is not over this machine's key".to_owned()).into(),
            );
        }
        let mut identity = self.identity.clone();
        identity.certificate_chain = renewed.certificate_chain;
        identity.validity()?;
        self.spool.save(Slot::Identity, &identity)?;
        self.identity = identity;
        Ok(())
    }

    /// Runs blocking work on the machine beside the wire, so that keep-alives and the wish to end are served meanwhile.
    async fn on_machine<T: Send + 'static>(&self, work: impl FnOnce(&Machine) -> T + Send + 'static) -> T {
        let machine = Arc::clone(&self.machine);
        match tokio::task::spawn_blocking(move || work(&machine)).await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// A command whose effect is already there is not executed again.
fn execute_on(
    machine: &Machine,
    command_id: CommandId,
    kind: &CommandKind,
    script: Option<&ScriptStatement>,
) -> ExecOutcome {
    if machine.already_true(kind) {
        return ExecOutcome::noop("it is so already");
    }
    machine.execute(&Order {
        command_id,
        kind,
        script,
    })
}

fn execution_of(outcome: ExecOutcome) -> Execution {
    Execution {
        outcome: outcome.outcome,
        code: outcome.code,
        detail: outcome.detail,
        output: outcome.output,
        output_sha256: None,
    }
}

fn is_unreachable(error: &LinkError) -> bool {
    matches!(error, LinkError::Unreachable(_))
}

/// A server that cannot be reached or has no time is asked again; what it refuses, it refuses.
fn not_sent(error: &LinkError) -> Execution {
    if is_unreachable(error) || error.is_busy() {
        Execution::not_now("upload_failed", error.to_string())
    } else {
        Execution::failed("upload_refused", error.to_string())
    }
}

/// Whether a command is nothing without the server.
fn needs_server(kind: &CommandKind) -> bool {
    matches!(
        kind,
        CommandKind::CollectInventory {} | CommandKind::RotateKey { .. }
    )
}

/// Whether a command may take long, so that a lock or a wipe must not wait for it.
fn is_slow(kind: &CommandKind) -> bool {
    match kind {
        CommandKind::InstallApp { .. }
        | CommandKind::RemoveApp { .. }
        | CommandKind::UpdateApp { .. }
        | CommandKind::RunScript { .. }
        | CommandKind::CollectLogs { .. }
        | CommandKind::CollectFiles { .. }
        | CommandKind::UpdateOs {}
        | CommandKind::UpdateAgent { .. } => true,
        CommandKind::Lock { .. }
        | CommandKind::Unlock {}
        | CommandKind::ClearPasscode {}
        | CommandKind::Restart { .. }
        | CommandKind::ShutDown { .. }
        | CommandKind::Wipe { .. }
        | CommandKind::Unenroll {}
        | CommandKind::LostModeOn { .. }
        | CommandKind::LostModeOff {}
        | CommandKind::Locate {}
        | CommandKind::CollectInventory {}
        | CommandKind::RotateKey { .. }
        | CommandKind::Message { .. }
        | CommandKind::LoosenPolicy { .. } => false,
    }
}

/// Digest of the facts without the time of their collection, so that it changes only when the machine does.
fn facts_digest(facts: &Facts) -> Result<Digest, LinkError> {
    let mut still = facts.clone();
    still.collected_at = muster_model::time::Timestamp::from_micros(0);
    let bytes = serde_json::to_vec(&still).map_err(|error| LinkError::Protocol(error.to_string()))?;
    if bytes.len() > INVENTORY_BODY_BYTES_MAX {
        return Err(LinkError::Protocol(
            "the facts are larger than an inventory may be".to_owned(),
        ));
    }
    Ok(sha256(&bytes))
}

#[cfg(test)]
mod tests {
    use muster_channel_agent::problem::Problem;
    use muster_model::command::ReceiptOutcome;

    use super::*;

    #[test]
    fn what_the_server_has_no_time_for_is_not_now_and_what_it_refuses_has_failed() {
        let answered = |status| LinkError::Answered {
            problem: Box::new(Problem {
                kind: String::new(),
                title: String::new(),
                status,
                detail: String::new(),
                code: String::new(),
                request_id: String::new(),
            }),
            retry_after: None,
        };
        for (error, is_busy, outcome) in [
            (answered(429), true, ReceiptOutcome::NotNow),
            (answered(503), true, ReceiptOutcome::NotNow),
            (answered(403), false, ReceiptOutcome::Failed),
            (answered(500), false, ReceiptOutcome::Failed),
            (
                LinkError::Unreachable(String::new()),
                false,
                ReceiptOutcome::NotNow,
            ),
            (LinkError::Protocol(String::new()), false, ReceiptOutcome::Failed),
        ] {
            assert_eq!(error.is_busy(), is_busy, "{error}");
            assert_eq!(not_sent(&error).outcome, outcome, "{error}");
        }
    }
}
