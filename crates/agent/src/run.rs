//! `muster-agent run`: the I/O around the device core.
//!
//! One loop waits for the first of: the wish to end, a wake-up, the next check-in, the next look at the machine. Whatever
//! fails is tried again later; nothing here ends the program but the wish to end.

mod actions;
mod traces;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use muster_channel_agent::backoff::{Backoff, full_jitter, spread};
use muster_channel_agent::checkin::CheckinResponse;
use muster_channel_agent::clock::ClockReading;
use muster_channel_agent::device::{Action, CheckinFailure, Departed, DeviceCore, Execution, REVERTED_CODE};
use muster_channel_agent::limits::CHECKIN_RESPONSE_BYTES_MAX;
use muster_channel_agent::telemetry::FinishedSpan;
use muster_channel_agent::{ErrorCode, path};
use muster_model::id::CommandId;
use muster_model::telemetry::{EventKind, SamplingPlan};
use muster_trust::dsse::DsseError;
use muster_trust::key::KeyError;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::departure;
use crate::device_key::{DeviceKey, TlsKey};
use crate::error::AgentError;
use crate::identity::Identity;
use crate::link::{Link, LinkError, Wake, WakeStream};
use crate::os::{ExecOutcome, Machine};
use crate::sandbox::{self, Sandbox};
use crate::spool::{Opening, Slot, Spool, SpoolError};
use crate::status::{self, LastCheckin};
use crate::stop::Stop;
use crate::telemetry::Telemetry;
use crate::tls::{self, ClientIdentity, JudgedAt};
use crate::{AGENT_VERSION, machine_clock};

/// First and longest delay between attempts to reach the server.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Delay after an answer that will not change by asking again soon (blocked, revoked).
const HOPELESS_DELAY: Duration = Duration::from_secs(300);
/// The wake stream is opened again after a draw from zero to this.
const WAKE_REOPEN_MAX: Duration = Duration::from_secs(5);
/// How often the machine is compared with the policy, whether the server can be reached or not.
const ENFORCE_INTERVAL: Duration = Duration::from_secs(300);
/// A check-in that has news is followed by another at once, at most this often.
const ROUNDS_MAX: u32 = 16;
/// Bounds of what the server may say about the next check-in.
const INTERVAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));
/// How long the check-in at the end of an enrollment may take.
const FIRST_CHECKIN_TIME_MAX: Duration = Duration::from_secs(30);
/// Delay after the key did not sign: a TPM that was reset, or is busy.
const SIGN_RETRY: Duration = Duration::from_secs(20);
/// Delay after the state could not be saved (disk full).
const SAVE_RETRY: Duration = Duration::from_secs(10);

/// Why an attempt ended early.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the state cannot be saved, so nothing is done: {0}")]
    Save(#[from] SpoolError),
    #[error(transparent)]
    Setup(#[from] AgentError),
}

/// The running agent.
pub struct Agent {
    state_dir: PathBuf,
    spool: Spool,
    identity: Identity,
    key: Arc<DeviceKey>,
    core: DeviceCore,
    machine: Arc<Machine>,
    link: Option<Link>,
    wake: Option<WakeStream>,
    /// Not before this is the wake stream asked for again.
    wake_again_at: Instant,
    backoff: Backoff,
    /// What the machine showed when it was last reported.
    shown: Option<actions::Shown>,
    /// Accepted commands that need the server.
    waiting: Vec<CommandId>,
    /// The key did not sign a receipt or a report. The server asks again for receipts; the machine is reported again.
    is_unsigned: bool,
    /// A command that may take long, while it runs.
    work: Option<Work>,
    /// What the server has had no time for yet. Nothing that may take long is begun before it is sent, so that memory holds one.
    unsent: Option<Unsent>,
    /// Those that wait for both.
    queue: VecDeque<CommandId>,
    /// Only one check-in is made: nothing that may take long is begun.
    is_once: bool,
    /// The enrollment is over, and the server knows: end.
    departed: Option<Departed>,
    /// Absent before the agent runs, and where its spool cannot be used.
    telemetry: Option<Telemetry>,
    traces: traces::Traces,
}

/// A command that runs beside everything else.
struct Work {
    command_id: CommandId,
    handle: JoinHandle<ExecOutcome>,
}

/// What a command printed or collected. The command ends when the server has it.
struct Unsent {
    command_id: CommandId,
    /// A gzip file.
    bytes: Bytes,
    /// How the command ended on the machine.
    execution: Execution,
    backoff: Backoff,
    again_at: Instant,
}

/// What the check-in at the end of an enrollment brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstCheckin {
    /// How many settings are in force.
    pub settings: usize,
    /// True if the server has not heard of everything yet.
    pub news: bool,
}

/// When what is due.
struct Schedule {
    checkin: Instant,
    enforce: Instant,
}

impl Agent {
    /// Opens the state folder.
    pub fn open(state_dir: &Path) -> Result<Self, AgentError> {
        departure::require_enrolled(state_dir)?;
        let missing = || AgentError::NotEnrolled {
            state_dir: state_dir.to_owned(),
        };
        if !state_dir.is_dir() {
            return Err(missing());
        }
        let spool = Spool::open(state_dir, Opening::Existing)?;
        let identity: Identity = spool.load(Slot::Identity)?.ok_or_else(missing)?;
        let mut core: DeviceCore = spool.load(Slot::Device)?.ok_or_else(missing)?;
        core.set_agent_version(AGENT_VERSION);
        let key = DeviceKey::load(state_dir)?;
        let machine = Machine::new(&identity.root, state_dir);
        Ok(Self {
            state_dir: state_dir.to_owned(),
            spool,
            identity,
            key: Arc::new(key),
            core,
            machine: Arc::new(machine),
            link: None,
            wake: None,
            wake_again_at: Instant::now(),
            backoff: Backoff::new(RETRY.0, RETRY.1),
            shown: None,
            waiting: Vec::new(),
            is_unsigned: false,
            work: None,
            unsent: None,
            queue: VecDeque::new(),
            is_once: false,
            departed: None,
            telemetry: None,
            traces: traces::Traces::default(),
        })
    }

    /// Gives up the right to write anywhere but where settings live. Best effort: an older kernel gives less.
    pub fn enter_sandbox(&self) {
        match sandbox::enter(&self.state_dir, &self.identity.root, self.key.device_path()) {
            Ok(Sandbox::Full) => tracing::info!("sandboxed"),
            Ok(Sandbox::Partial) => tracing::warn!("partly sandboxed: this kernel's Landlock is older"),
            Ok(Sandbox::Absent) => tracing::warn!("not sandboxed: this kernel has no Landlock"),
            Err(error) => tracing::warn!(%error, "not sandboxed"),
        }
    }

    /// One check-in with all that follows from it, so that a machine has its first settings when it is enrolled. No wake
    /// stream is held for it. What does not end in time is taken up by [`Self::run`].
    pub async fn check_in_once(mut self) -> Result<FirstCheckin, String> {
        self.wake_again_at = Instant::now() + 2 * FIRST_CHECKIN_TIME_MAX;
        self.is_once = true;
        match tokio::time::timeout(FIRST_CHECKIN_TIME_MAX, self.checkin()).await {
            Ok(Ok(_)) => Ok(FirstCheckin {
                settings: self.core.effective_settings().len(),
                news: self.core.has_news(),
            }),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("it took longer than {FIRST_CHECKIN_TIME_MAX:?}")),
        }
    }

    /// Runs until told to end.
    pub async fn run(mut self, mut stop: Stop) -> Result<(), AgentError> {
        let notification = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        if let Err(error) = notification {
            tracing::debug!(%error, "the service manager was not told");
        }
        tracing::info!(device = %self.identity.device_id, server = %self.identity.server, "running");
        self.start_telemetry();
        let mut ending = stop.clone();
        tokio::select! {
            () = ending.wait() => {}
            () = async {
                self.recover().await;
                if self.departed.is_none() {
                    self.serve(&mut stop).await;
                }
            } => {}
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        if let Some(telemetry) = self.telemetry.take() {
            telemetry.end().await;
        }
        if let Some(how) = self.departed {
            return self.leave(how);
        }
        tracing::info!("ended");
        Ok(())
    }

    fn start_telemetry(&mut self) {
        let plan = self.sampling_plan();
        let whose = (self.identity.epoch, self.core.ownership());
        match Telemetry::start(&self.state_dir, &self.machine, whose, plan) {
            Ok(telemetry) => {
                telemetry.set_link(self.link.clone());
                self.telemetry = Some(telemetry);
            }
            Err(error) => tracing::error!(%error, "there is no telemetry"),
        }
    }

    fn sampling_plan(&self) -> SamplingPlan {
        SamplingPlan::from_settings(&self.core.effective_settings())
    }

    /// Forgets who this machine was. It ends well: there is nothing left to do.
    fn leave(self, how: Departed) -> Result<(), AgentError> {
        let (state_dir, at) = (self.state_dir, machine_clock::read().wall);
        let departure = departure::Departure {
            how,
            at,
            device_id: self.identity.device_id.to_string(),
            tenant: self.identity.tenant.to_string(),
            epoch: self.identity.epoch,
        };
        // The database and its lock are let go before they are removed.
        drop((self.spool, self.core));
        departure::complete(&state_dir, &departure)?;
        tracing::info!(
            how = how.as_str(),
            device = departure.device_id,
            "not managed any more"
        );
        Ok(())
    }

    async fn serve(&mut self, stop: &mut Stop) {
        let mut schedule = Schedule {
            checkin: Instant::now(),
            enforce: Instant::now() + ENFORCE_INTERVAL,
        };
        loop {
            let work = async {
                tokio::select! {
                    event = next_wake(&mut self.wake) => self.on_wake(event, &mut schedule).await,
                    (command_id, outcome) = next_work(&mut self.work) => {
                        self.work = None;
                        self.on_work_done(command_id, outcome).await;
                        if self.unsent.is_none() {
                            schedule.checkin = Instant::now();
                        }
                    }
                    () = due_again(self.unsent.as_ref().map(|unsent| unsent.again_at)) => {
                        if let Some(unsent) = self.unsent.take() {
                            self.send_output(unsent).await;
                        }
                        if self.unsent.is_none() {
                            schedule.checkin = Instant::now();
                        }
                    }
                    () = tokio::time::sleep_until(schedule.checkin) => self.attempt(&mut schedule).await,
                    () = tokio::time::sleep_until(schedule.enforce) => {
                        self.enforce().await;
                        // Its spool could not be used at the start: the disk was full.
                        if self.telemetry.is_none() {
                            self.start_telemetry();
                        }
                        schedule.enforce = Instant::now() + ENFORCE_INTERVAL;
                        if self.core.has_news() && self.link.is_some() {
                            schedule.checkin = Instant::now();
                        }
                        if self.is_unsigned {
                            schedule.checkin = schedule.checkin.min(Instant::now() + SIGN_RETRY);
                        }
                    }
                }
            };
            tokio::select! {
                biased;
                () = stop.wait() => return,
                () = work => {}
            }
            if self.departed.is_some() {
                return;
            }
        }
    }

    async fn on_wake(&mut self, event: Wake, schedule: &mut Schedule) {
        match event {
            Wake::Come => self.attempt(schedule).await,
            Wake::Ended(reason) => {
                tracing::debug!(reason, "wake stream ended");
                self.wake = None;
                // The next check-in opens it again first, so that nothing that happens in between is missed for long.
                let delay = full_jitter(machine_clock::random(), WAKE_REOPEN_MAX);
                schedule.checkin = schedule.checkin.min(Instant::now() + delay);
            }
        }
    }

    /// Opens the wake stream where the server wants it held. Without it the device polls.
    async fn open_wake(&mut self, link: &Link) -> Result<(), LinkError> {
        if self.wake.is_some() || !self.identity.checkin.wake || Instant::now() < self.wake_again_at {
            return Ok(());
        }
        match link.wake().await {
            Ok(stream) => {
                self.wake = Some(stream);
                Ok(())
            }
            Err(error @ LinkError::Unreachable(_)) => Err(error),
            Err(error) => {
                tracing::debug!(%error, "no wake stream: polling");
                let jitter = full_jitter(machine_clock::random(), RETRY.1);
                self.wake_again_at = Instant::now() + error.retry_after().unwrap_or_default() + jitter;
                Ok(())
            }
        }
    }

    /// Forgets the connection and what was held on it.
    fn disconnect(&mut self) {
        (self.link, self.wake) = (None, None);
        if let Some(telemetry) = &self.telemetry {
            telemetry.set_link(None);
        }
    }

    /// One try to be where the server wants this device, with its consequences for the schedule.
    async fn attempt(&mut self, schedule: &mut Schedule) {
        let delay = match self.checkin().await {
            Ok(delay) => {
                self.backoff.succeeded();
                // A renewed certificate is shown by a new connection: make it now, so that wake-ups arrive.
                if self.link.is_some() {
                    if self.is_unsigned {
                        delay.min(SIGN_RETRY)
                    } else {
                        delay
                    }
                } else {
                    full_jitter(machine_clock::random(), WAKE_REOPEN_MAX)
                }
            }
            Err(AttemptError::Save(error)) => {
                tracing::error!(%error, "the state cannot be saved, so nothing is done");
                self.disconnect();
                SAVE_RETRY
            }
            Err(AttemptError::Setup(error)) => {
                tracing::error!(%error, "no connection can be prepared");
                self.disconnect();
                self.backoff.failed(machine_clock::random(), None)
            }
            Err(AttemptError::Link(error)) => {
                // A server that has no time now would have less for another handshake, and calls over what is held.
                if !error.is_busy() {
                    self.disconnect();
                }
                self.on_failure(&error).await;
                let floor = is_hopeless(&error)
                    .then_some(HOPELESS_DELAY)
                    .or(error.retry_after());
                let delay = self.backoff.failed(machine_clock::random(), floor);
                tracing::warn!(%error, retry_in = ?delay, "check-in failed");
                delay
            }
        };
        schedule.checkin = Instant::now() + delay;
    }

    async fn on_failure(&mut self, error: &LinkError) {
        if let Some(telemetry) = &self.telemetry {
            telemetry.server_failed();
        }
        let failure = match error {
            LinkError::Unreachable(_) => CheckinFailure::Unreachable,
            LinkError::Answered { .. } | LinkError::Protocol(_) => CheckinFailure::Answered,
        };
        let actions = self.core.on_checkin_failed(failure, &machine_clock::read());
        if let Err(error) = self.save() {
            tracing::error!(%error, "the state cannot be saved");
        }
        let is_reverted = actions
            .iter()
            .any(|action| matches!(action, Action::Refused(refused) if refused.code == REVERTED_CODE));
        if let Some(telemetry) = self.telemetry.as_ref().filter(|_| is_reverted) {
            telemetry.happened(EventKind::PolicyReverted, []);
        }
        // Without a link only local actions can come: a policy that is reverted.
        if let Err(error) = self.perform(actions, None).await {
            tracing::error!(%error, "the last policy that worked could not be put back yet");
        }
    }

    /// Check-ins until there is nothing left to say. Returns the delay to the next.
    async fn checkin(&mut self) -> Result<Duration, AttemptError> {
        let mut delay = RETRY.1;
        for _ in 0..ROUNDS_MAX {
            let link = self.connected().await?;
            self.open_wake(&link).await?;
            let waiting = std::mem::take(&mut self.waiting);
            let waiting = waiting
                .into_iter()
                .map(|command_id| Action::Execute { command_id })
                .collect();
            self.perform(waiting, Some(&link)).await?;
            if std::mem::take(&mut self.is_unsigned) {
                let settings = self.core.effective_settings();
                self.perform(vec![Action::ReadBack { settings }], Some(&link))
                    .await?;
            }
            let request = self.core.checkin_request(&machine_clock::read());
            let response: CheckinResponse = link
                .exchange(Method::POST, path::CHECKIN, &request, CHECKIN_RESPONSE_BYTES_MAX)
                .await?;
            let reading = machine_clock::read();
            status::record_checkin(&self.state_dir, LastCheckin { at: reading.wall });
            let actions = self.change_and_save(|core, sign| core.on_checkin(&response, &reading, sign))?;
            self.trace_answer(&response, &reading, &actions);
            let asked =
                Duration::from_secs(u64::from(response.next_checkin_seconds)).clamp(INTERVAL.0, INTERVAL.1);
            delay = spread(
                machine_clock::random(),
                asked,
                self.identity.checkin.jitter_fraction,
            );
            self.perform(actions, Some(&link)).await?;
            if self.departed.is_some() {
                break;
            }
            self.renew_if_due(&link).await;
            if !self.core.has_news() {
                break;
            }
        }
        Ok(delay)
    }

    /// Tells of the receipts that the server has, and of the commands that were checked.
    fn trace_answer(&mut self, response: &CheckinResponse, reading: &ClockReading, actions: &[Action]) {
        let mut spans = self.traces.accepted(&response.receipts_accepted, reading);
        let checked = (reading, &machine_clock::read());
        spans.extend(self.traces.came(&response.commands, checked, actions));
        self.tell(spans);
    }

    /// Spans travel with the telemetry; where there is none, nobody asked.
    fn tell(&self, spans: impl IntoIterator<Item = FinishedSpan>) {
        let Some(telemetry) = &self.telemetry else { return };
        for span in spans {
            telemetry.finished(span);
        }
    }

    /// The open connection, or a new one.
    async fn connected(&mut self) -> Result<Link, AttemptError> {
        if let Some(link) = &self.link
            && !link.is_closed()
        {
            return Ok(link.clone());
        }
        self.disconnect();
        let reading = machine_clock::read();
        let now = self.core.now(&reading);
        if let Ok(validity) = self.identity.validity()
            && validity.not_after < now
        {
            tracing::warn!(ended = %validity.not_after, "the device certificate has expired: this machine has to be enrolled again");
        }
        let at = JudgedAt::trusted(now, reading.wall);
        let key = TlsKey::new(Arc::clone(&self.key));
        let identity = ClientIdentity {
            certificate_chain: &self.identity.certificate_chain,
            key: key.clone(),
        };
        let config = tls::client_config(&self.identity.ca_certificates, Some(identity), at)
            .map_err(AgentError::Tls)?;
        // A key that does not sign is no sign of a server that cannot be reached, on which a policy would be reverted.
        let link = Link::connect(&self.identity.server, config)
            .await
            .map_err(|error| match key.take_failure() {
                Some(failure) => AttemptError::Setup(failure),
                None => AttemptError::Link(error),
            })?;
        tracing::debug!("connected");
        self.link = Some(link.clone());
        if let Some(telemetry) = &self.telemetry {
            telemetry.set_link(Some(link.clone()));
        }
        Ok(link)
    }

    fn save(&mut self) -> Result<(), SpoolError> {
        self.spool.save(Slot::Device, &self.core)
    }

    /// Changes the core, and notes whether the key signed what had to be signed.
    fn change<T>(
        &mut self,
        change: impl FnOnce(&mut DeviceCore, &mut muster_channel_agent::device::Signer<'_>) -> T,
    ) -> T {
        let key = Arc::clone(&self.key);
        let mut is_unsigned = false;
        let result = change(&mut self.core, &mut |kind, payload| {
            let signed = key.envelope(kind, payload);
            is_unsigned |= matches!(signed, Err(DsseError::Key(KeyError::Holder)));
            signed
        });
        self.is_unsigned |= is_unsigned;
        result
    }

    /// Changes the core and saves it. What could not be saved did not happen: the core is as before.
    fn change_and_save<T>(
        &mut self,
        change: impl FnOnce(&mut DeviceCore, &mut muster_channel_agent::device::Signer<'_>) -> T,
    ) -> Result<T, SpoolError> {
        let before = self.core.clone();
        let result = self.change(change);
        if let Err(error) = self.save() {
            self.core = before;
            return Err(error);
        }
        Ok(result)
    }
}

/// Waits forever where there is no stream.
async fn next_wake(wake: &mut Option<WakeStream>) -> Wake {
    match wake {
        Some(stream) => stream.next().await,
        None => std::future::pending().await,
    }
}

/// Waits forever where nothing waits to be sent.
async fn due_again(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Waits forever where nothing runs. A command whose thread broke down is a failed one.
async fn next_work(work: &mut Option<Work>) -> (CommandId, ExecOutcome) {
    match work {
        Some(Work { command_id, handle }) => {
            let outcome = handle
                .await
                .unwrap_or_else(|error| ExecOutcome::failed("broke_down", &error.to_string()));
            (*command_id, outcome)
        }
        None => std::future::pending().await,
    }
}

/// True for answers that do not change by asking again soon.
fn is_hopeless(error: &LinkError) -> bool {
    matches!(
        error.code().and_then(ErrorCode::parse),
        Some(ErrorCode::DeviceBlocked | ErrorCode::CertificateRevoked | ErrorCode::EpochMismatch)
    )
}
