//! One simulated device: the real device core, the real wire, and a machine that only remembers what was done to it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use muster_channel_agent::backoff::{Backoff, full_jitter, spread};
use muster_channel_agent::checkin::CheckinResponse;
use muster_channel_agent::clock::ClockReading;
use muster_channel_agent::device::{Action, Begin, CheckinFailure, Departed, DeviceCore, Execution, Signer};
use muster_channel_agent::inventory::InventoryRequest;
use muster_channel_agent::limits::{BUNDLE_BYTES_MAX, CHECKIN_RESPONSE_BYTES_MAX, RENEW_RESPONSE_BYTES_MAX};
use muster_channel_agent::renew::{RenewRequest, RenewResponse};
use muster_channel_agent::{Base64Bytes, ContentType, ErrorCode, path};
use muster_model::command::CommandKind;
use muster_model::settings::SettingValue;
use muster_model::telemetry::StreamId;
use muster_model::{CommandId, ReceiptOutcome, Timestamp};
use muster_trust::key::{SigningKey, sha256};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Shared;
use crate::draw::Draw;
use crate::faults::{self, Conditions, Exchange};
use crate::identity::{self, Identity};
use crate::link::{Link, LinkError, WakeStream};
use crate::machine::{Effect, Machine};
use crate::plan::DevicePlan;
use crate::store::{Snapshot, Stored};
use crate::telemetry::Pulse;
use crate::tls::Credentials;

/// First and longest delay between attempts to reach the server.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Delay after an answer that will not change by asking again soon.
const HOPELESS_DELAY: Duration = Duration::from_secs(300);
/// The wake stream is opened again after a draw from zero to this.
const WAKE_REOPEN_MAX: Duration = Duration::from_secs(5);
/// A check-in that has news is followed by another at once, at most this often.
const ROUNDS_MAX: u32 = 16;
/// Bounds of what the server may say about the next check-in.
const INTERVAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));
/// Most actions performed for one answer.
const ACTIONS_MAX: usize = 1024;
/// How often a device tries to enroll before it is given up.
const ENROLL_TRIES_MAX: u32 = 8;

/// A device with an identity.
pub struct Device {
    shared: Arc<Shared>,
    plan: DevicePlan,
    key: SigningKey,
    identity: Identity,
    pub(crate) core: DeviceCore,
    link: Option<Link>,
    backoff: Backoff,
    jitter: Draw,
    /// Check-ins so far; the n-th has its fate from the seed.
    exchanges: u64,
    boots: u64,
    machine: Machine,
    /// Absent where the fleet sends none, or the server takes none.
    pulse: Option<Pulse>,
}

/// Runs one device until the task is ended: enrollment, then everything else.
pub async fn live(shared: Arc<Shared>, index: u32) {
    if let Some(device) = Box::pin(Device::enter(shared, index)).await {
        device.serve().await;
    }
}

impl Device {
    /// The device of an earlier run, or a newly enrolled one; `None` where it was given up.
    pub async fn enter(shared: Arc<Shared>, index: u32) -> Option<Self> {
        let plan = DevicePlan::new(shared.seed, index);
        let stored = shared.store.load(index);
        // One that has left does not come back by itself.
        if stored
            .as_ref()
            .is_some_and(|stored| stored.machine.departed.is_some())
        {
            shared.stats.departed(index);
            return None;
        }
        if let Some(stored) = stored
            && let Some(device) = Self::resume(&shared, plan, stored)
        {
            shared.stats.resumed(index);
            return Some(device);
        }
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut jitter = Draw::new(shared.seed, index, "jitter");
        for _ in 0..ENROLL_TRIES_MAX {
            let _turn = shared.enrolling.acquire().await.ok()?;
            let started = Instant::now();
            // Boxed: thousands wait for their turn, and none of them needs the room of a handshake meanwhile.
            match Box::pin(Self::enroll(&shared, plan)).await {
                Ok(device) => {
                    shared.stats.enrollments.record(started.elapsed());
                    shared.stats.enrolled(index);
                    device.save();
                    return Some(device);
                }
                Err(error) => {
                    shared.stats.exchange_failed();
                    let delay = backoff.failed(jitter.number(), error.retry_after());
                    tracing::warn!(device = index, %error, retry_in = ?delay, "a device was not enrolled");
                    drop(_turn);
                    tokio::time::sleep(delay).await;
                }
            }
        }
        shared.stats.not_enrolled();
        None
    }

    fn resume(shared: &Arc<Shared>, plan: DevicePlan, stored: Stored) -> Option<Self> {
        let is_over = stored
            .identity
            .validity()
            .is_none_or(|validity| validity.is_over(crate::clock::wall()));
        if stored.identity.tenant.to_string() != shared.tenant || is_over {
            return None;
        }
        let key = SigningKey::from_pkcs8_der(&stored.key.0).ok()?;
        let mut device = Self::new(shared, plan, key, stored.identity, stored.core);
        (device.boots, device.machine) = (stored.boots, stored.machine);
        Some(device)
    }

    async fn enroll(shared: &Arc<Shared>, plan: DevicePlan) -> Result<Self, LinkError> {
        let key = identity::device_key(&shared.secret, &plan)?;
        let uuid = plan.device_uuid.to_string();
        let token = shared
            .admin
            .enrollment_token(
                &uuid,
                &plan.serial(),
                &plan.owner(),
                shared.disorder.ownership(plan.seed, plan.index),
            )
            .await;
        let token = token.map_err(|error| LinkError::Unreachable(error.to_string()))?;
        let link = Link::connect(&shared.endpoint, &[], None, content_type(&plan)).await?;
        let reading = crate::clock::read(plan.index, 0, shared.process);
        let (identity, core) = identity::enroll(&link, &token, &key, None, &plan, &reading).await?;
        Ok(Self::new(shared, plan, key, identity, core))
    }

    fn new(
        shared: &Arc<Shared>,
        plan: DevicePlan,
        key: SigningKey,
        identity: Identity,
        core: DeviceCore,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            plan,
            key,
            identity,
            core,
            link: None,
            backoff: Backoff::new(RETRY.0, RETRY.1),
            jitter: Draw::new(plan.seed, plan.index, "jitter"),
            exchanges: 0,
            boots: 0,
            machine: Machine::default(),
            pulse: shared.telemetry.and_then(|_| pulse(&plan)),
        }
    }

    /// Everything after enrollment, for ever.
    async fn serve(mut self) {
        let mut conditions = self.shared.conditions.subscribe();
        let mut wake: Option<WakeStream> = None;
        let (mut checkin_at, mut wake_at) = (Instant::now(), Instant::now());
        let pace = self.shared.telemetry.map_or(Duration::MAX, |pace| pace.interval);
        let mut telemetry_at = Instant::now() + full_jitter(self.jitter.number(), pace.min(RETRY.1));
        Box::pin(self.recover()).await;
        loop {
            // Like a real one, a device that was unenrolled ends once the server knows. One that was wiped stays on the wire
            // and says `noop` to another wipe, until its operator retires it.
            if self.machine.departed == Some(Departed::Unenrolled) {
                return;
            }
            if self.conditions().is_away(self.plan.seed, self.plan.index) {
                (self.link, wake) = (None, None);
                if away(&mut conditions).await.is_err() {
                    return;
                }
                checkin_at = Instant::now() + full_jitter(self.jitter.number(), RETRY.0);
                continue;
            }
            let can_open_wake = wake.is_none() && self.identity.checkin.wake && self.link.is_some();
            tokio::select! {
                changed = conditions.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    Box::pin(self.conditions_changed()).await;
                    checkin_at = Instant::now() + full_jitter(self.jitter.number(), RETRY.0);
                }
                woken = next_wake(&mut wake) => {
                    if woken {
                        checkin_at = Instant::now() + Box::pin(self.attempt()).await;
                    } else {
                        wake = None;
                        wake_at = Instant::now() + full_jitter(self.jitter.number(), WAKE_REOPEN_MAX);
                        if self.link.as_ref().is_some_and(Link::is_closed) {
                            self.link = None;
                            checkin_at = checkin_at.min(wake_at);
                        }
                    }
                }
                () = tokio::time::sleep_until(wake_at), if can_open_wake => {
                    wake = Box::pin(self.open_wake()).await;
                    wake_at = Instant::now() + full_jitter(self.jitter.number(), RETRY.1);
                    if self.link.is_none() {
                        checkin_at = checkin_at.min(wake_at);
                    }
                }
                () = tokio::time::sleep_until(telemetry_at), if self.pulse.is_some() && self.link.is_some() => {
                    telemetry_at = Instant::now() + Box::pin(self.send_telemetry(pace)).await;
                }
                () = tokio::time::sleep_until(checkin_at) => {
                    checkin_at = Instant::now() + Box::pin(self.attempt()).await;
                }
            }
            if self.link.is_none() {
                wake = None;
            }
        }
    }

    /// Sends what was measured since the last time, and the delay to the next. What fails is sent again; a server that knows
    /// no telemetry is not asked again.
    async fn send_telemetry(&mut self, pace: Duration) -> Duration {
        let (Some(link), Some(pulse)) = (self.link.clone(), &mut self.pulse) else {
            return pace;
        };
        let history_days = self.shared.telemetry.map_or(0, |pace| pace.history_days);
        let batch = pulse.batch(self.identity.epoch, crate::clock::wall(), history_days);
        match link.telemetry(batch).await {
            Ok(answer) => {
                pulse.accepted();
                pace.max(Duration::from_secs(u64::from(answer.not_before_seconds)))
            }
            Err(error) if error.code() == Some(ErrorCode::NotFound) => {
                self.pulse = None;
                pace
            }
            Err(error) => {
                tracing::debug!(device = self.plan.index, %error, "telemetry was not taken");
                self.shared.stats.exchange_failed();
                let floor = error.retry_after().unwrap_or(RETRY.1);
                floor + full_jitter(self.jitter.number(), RETRY.1)
            }
        }
    }

    async fn open_wake(&mut self) -> Option<WakeStream> {
        let opened = self.link.as_ref()?.wake().await;
        match opened {
            Ok(stream) => Some(stream),
            Err(error) => {
                tracing::debug!(device = self.plan.index, %error, "no wake stream");
                self.shared.stats.exchange_failed();
                if self.link.as_ref().is_some_and(Link::is_closed) {
                    self.link = None;
                }
                None
            }
        }
    }

    /// Check-ins until there is nothing left to say, and the delay to the next.
    async fn attempt(&mut self) -> Duration {
        match self.checkin().await {
            Ok(delay) => {
                self.backoff.succeeded();
                delay
            }
            Err(error) => {
                self.link = None;
                self.shared.stats.exchange_failed();
                let failure = match &error {
                    LinkError::Unreachable(_) => CheckinFailure::Unreachable,
                    LinkError::Answered { .. } | LinkError::Protocol(_) => CheckinFailure::Answered,
                };
                let reading = self.reading();
                let actions = self.core.on_checkin_failed(failure, &reading);
                // Without a link only local actions can come: a policy that is reverted.
                let _ = self.perform(actions, None).await;
                let floor = is_hopeless(&error)
                    .then_some(HOPELESS_DELAY)
                    .or(error.retry_after());
                let delay = self.backoff.failed(self.jitter.number(), floor);
                tracing::debug!(device = self.plan.index, %error, retry_in = ?delay, "check-in failed");
                delay
            }
        }
    }

    pub(crate) async fn checkin(&mut self) -> Result<Duration, LinkError> {
        let mut delay = RETRY.1;
        for _ in 0..ROUNDS_MAX {
            let link = self.connected().await?;
            let response = self.exchange(&link).await?;
            let asked =
                Duration::from_secs(u64::from(response.next_checkin_seconds)).clamp(INTERVAL.0, INTERVAL.1);
            delay = spread(self.jitter.number(), asked, self.identity.checkin.jitter_fraction);
            let actions = self.take(&response);
            let has_work = !actions.is_empty() || !response.receipts_accepted.is_empty();
            self.perform(actions, Some(&link)).await?;
            if self.machine.departed == Some(Departed::Unenrolled) {
                break;
            }
            self.renew_if_due(&link).await;
            if has_work {
                self.save();
            }
            if !self.core.has_news() {
                break;
            }
        }
        Ok(delay)
    }

    /// One check-in, with the disorder that the seed has for it. Late and doubled answers go into the core first; the answer
    /// that is returned is the newest that it has not seen.
    async fn exchange(&mut self, link: &Link) -> Result<CheckinResponse, LinkError> {
        self.exchanges += 1;
        let fate = self
            .shared
            .disorder
            .exchange(self.plan.seed, self.plan.index, self.exchanges);
        let started = Instant::now();
        let request = self.core.checkin_request(&self.reading());
        let ask = async |request| {
            link.exchange::<CheckinResponse>(path::CHECKIN, request, CHECKIN_RESPONSE_BYTES_MAX)
                .await
        };
        let first = ask(&request).await?;
        self.shared.stats.checkins.record(started.elapsed());
        let (early, late) = match fate {
            Exchange::Plain => return Ok(first),
            Exchange::Duplicated => (first, ask(&request).await?),
            Exchange::Reordered => {
                let later = self.core.checkin_request(&self.reading());
                (ask(&later).await?, first)
            }
        };
        let actions = self.take(&early);
        Box::pin(self.perform(actions, Some(link))).await?;
        Ok(late)
    }

    fn take(&mut self, response: &CheckinResponse) -> Vec<Action> {
        let reading = self.reading();
        self.with_signer(|core, sign| core.on_checkin(response, &reading, sign))
    }

    /// The open connection, or a new one.
    pub(crate) async fn connected(&mut self) -> Result<Link, LinkError> {
        if let Some(link) = &self.link
            && !link.is_closed()
        {
            return Ok(link.clone());
        }
        let _turn = self.shared.connecting.acquire().await;
        let pkcs8 = self
            .key
            .to_pkcs8_der()
            .map_err(|error| LinkError::Protocol(error.to_string()))?;
        let credentials = Credentials {
            certificate_chain: &self.identity.certificate_chain,
            key_pkcs8: &pkcs8,
        };
        let anchors = &self.identity.ca_certificates;
        let link = Link::connect(
            &self.shared.endpoint,
            anchors,
            Some(credentials),
            content_type(&self.plan),
        )
        .await?;
        self.link = Some(link.clone());
        Ok(link)
    }

    /// What is this device's own on the wire: for connections that others drive.
    pub(crate) fn credentials(&self) -> Result<(Vec<u8>, &Identity), LinkError> {
        let pkcs8 = self
            .key
            .to_pkcs8_der()
            .map_err(|error| LinkError::Protocol(error.to_string()))?;
        Ok((pkcs8.to_vec(), &self.identity))
    }

    /// One signature of the device key, for a load that counts it.
    pub(crate) fn sign_nothing(&self) -> Result<(), LinkError> {
        self.key
            .sign(b"")
            .map(drop)
            .map_err(|error| LinkError::Protocol(error.to_string()))
    }

    /// Ends the connection.
    pub(crate) fn disconnect(&mut self) {
        self.link = None;
    }

    pub(crate) fn reading(&self) -> ClockReading {
        crate::clock::read(self.plan.index, self.boots, self.shared.process)
    }

    fn conditions(&self) -> Conditions {
        self.shared.conditions.borrow().clone()
    }

    fn with_signer<T>(&mut self, change: impl FnOnce(&mut DeviceCore, &mut Signer<'_>) -> T) -> T {
        let key = &self.key;
        change(&mut self.core, &mut |kind, payload| {
            muster_trust::dsse::sign(kind, payload, &[key])
        })
    }

    fn save(&self) {
        let Ok(key) = self.key.to_pkcs8_der() else { return };
        let snapshot = Snapshot {
            key: Base64Bytes(key.to_vec()),
            identity: &self.identity,
            core: &self.core,
            boots: self.boots,
            machine: &self.machine,
        };
        if let Err(error) = self.shared.store.save(self.plan.index, &snapshot) {
            tracing::warn!(device = self.plan.index, %error, "a device's state was not saved");
        }
    }
}

/// A stream of its own for each run of the farm: what a device measured before is not kept.
fn pulse(plan: &DevicePlan) -> Option<Pulse> {
    let stream = StreamId::from_bytes(uuid::Uuid::new_v4().into_bytes())?;
    Some(Pulse::new(*plan, stream, crate::clock::wall()))
}

/// What happens on the simulated machine.
impl Device {
    /// After a start: unfinished commands, and the policy in force.
    async fn recover(&mut self) {
        let reading = self.reading();
        let (machine, plan) = (self.machine.clone(), self.plan);
        let mut is_already_true = |kind: &CommandKind| machine.is_already_true(kind, &plan);
        let actions = self.with_signer(|core, sign| core.recover(&reading, &mut is_already_true, sign));
        let _ = self.perform(actions, None).await;
    }

    /// A policy that takes effect, or fails, from now on.
    async fn conditions_changed(&mut self) {
        let settings = self.core.effective_settings();
        if !settings.is_empty() {
            self.apply(&settings).await;
        }
    }

    /// Performs actions in order, and what follows from them. What needs the server is left out without a link.
    async fn perform(&mut self, actions: Vec<Action>, link: Option<&Link>) -> Result<(), LinkError> {
        let mut queue = VecDeque::from(actions);
        for _ in 0..ACTIONS_MAX {
            let Some(action) = queue.pop_front() else {
                return Ok(());
            };
            match (action, link) {
                (Action::Refused(refused), _) => {
                    tracing::debug!(
                        device = self.plan.index,
                        code = refused.code,
                        "refused: {}",
                        refused.detail
                    );
                    self.shared.stats.refused(&refused.code);
                }
                (Action::Apply { settings } | Action::ReadBack { settings }, _) => {
                    self.apply(&settings).await
                }
                (Action::Execute { command_id }, _) => self.execute(command_id, link).await,
                (Action::FetchBundle { sha256 }, Some(link)) => {
                    let bytes = link.bundle(&sha256.to_hex(), BUNDLE_BYTES_MAX).await?;
                    let reading = self.reading();
                    queue.extend(
                        self.with_signer(|core, sign| core.on_bundle(sha256, &bytes, &reading, sign)),
                    );
                }
                (Action::SendInventory, Some(link)) => self.send_inventory(link).await?,
                (Action::Renew, Some(link)) => self.renew(link).await,
                (Action::Depart { how }, _) if self.machine.departed.is_none() => {
                    self.machine.departed = Some(how);
                    self.shared.stats.departed(self.plan.index);
                    self.save();
                }
                (Action::Depart { .. }, _) => {}
                (Action::FetchBundle { .. } | Action::SendInventory | Action::Renew, None) => {}
            }
        }
        Ok(())
    }

    async fn apply(&mut self, settings: &BTreeMap<String, SettingValue>) {
        // What was asked for before a wipe of the same answer.
        if self.core.departed().is_some() {
            return;
        }
        self.take_time().await;
        let (seed, index, model) = (self.plan.seed, self.plan.index, self.plan.model);
        let reports = faults::apply(seed, index, model, settings, &self.conditions());
        let reading = self.reading();
        self.with_signer(|core, sign| core.on_applied(&reports, &reading, sign));
        self.shared.stats.reported(index, &reports);
    }

    async fn take_time(&self) {
        if let Some(delay) = self.shared.disorder.delay(self.plan.seed, self.plan.index) {
            tokio::time::sleep(delay).await;
        }
    }

    /// Recorded as begun, saved, executed, recorded as finished.
    async fn execute(&mut self, command_id: CommandId, link: Option<&Link>) {
        let reading = self.reading();
        let begun = self.with_signer(|core, sign| core.begin(command_id, &reading, sign));
        let Begin::Run(statement) = begun else { return };
        self.save();
        self.take_time().await;
        let execution = if self.is_not_now(&statement.kind) {
            Execution::not_now("busy", "the simulated user is on a call")
        } else {
            let script = self.core.script(command_id);
            match (self.machine.execute(&statement.kind, script, &self.plan), link) {
                (Effect::Ended(execution), _) => *execution,
                (Effect::Restarts, _) => return self.restart(),
                (Effect::SendsInventory, Some(link)) => sent(self.send_inventory(link).await),
                (Effect::Renews, Some(link)) => sent(self.try_renew(link).await),
                (Effect::SendsInventory | Effect::Renews, None) => {
                    Execution::not_now("upload_failed", "the server could not be reached")
                }
            }
        };
        if matches!(statement.kind, CommandKind::Wipe { .. }) && execution.outcome == ReceiptOutcome::Done {
            self.shared.stats.wiped();
        }
        self.shared.stats.executed(execution.outcome);
        let reading = self.reading();
        self.with_signer(|core, sign| core.on_executed(command_id, execution, &reading, sign));
    }

    /// Whether this attempt meets a busy device, by the seed. What somebody approved is done at once.
    fn is_not_now(&mut self, kind: &CommandKind) -> bool {
        self.machine.attempts += 1;
        let (seed, index) = (self.plan.seed, self.plan.index);
        !kind.is_destructive()
            && self
                .shared
                .disorder
                .is_not_now(seed, index, self.machine.attempts)
    }

    /// Another boot: the core finds the command begun in the boot before, and says that it is done.
    fn restart(&mut self) {
        self.boots += 1;
        self.shared.stats.executed(ReceiptOutcome::Done);
        let reading = self.reading();
        // What it asks for besides is the policy that is in force: nothing of it is lost by this machine's restart.
        self.with_signer(|core, sign| core.recover(&reading, &mut |_| false, sign));
    }

    async fn send_inventory(&mut self, link: &Link) -> Result<(), LinkError> {
        let facts = self.plan.facts(self.core.now(&self.reading()));
        let mut still = facts.clone();
        still.collected_at = Timestamp::from_micros(0);
        let bytes = serde_json::to_vec(&still).map_err(|error| LinkError::Protocol(error.to_string()))?;
        link.upload(
            path::INVENTORY,
            &InventoryRequest {
                epoch: self.identity.epoch,
                facts,
            },
        )
        .await?;
        self.core.on_inventory_sent(sha256(&bytes));
        Ok(())
    }

    async fn renew_if_due(&mut self, link: &Link) {
        let now = self.core.now(&self.reading());
        if self
            .identity
            .validity()
            .is_some_and(|validity| validity.is_due(now))
        {
            self.renew(link).await;
        }
    }

    /// A failed renewal is tried again at the next check-in.
    async fn renew(&mut self, link: &Link) {
        if let Err(error) = self.try_renew(link).await {
            tracing::debug!(device = self.plan.index, %error, "a certificate was not renewed");
        }
    }

    async fn try_renew(&mut self, link: &Link) -> Result<(), LinkError> {
        let csr = identity::certificate_request(&self.key, &self.plan)?;
        let answer: RenewResponse = link
            .exchange(path::RENEW, &RenewRequest { csr }, RENEW_RESPONSE_BYTES_MAX)
            .await?;
        identity::require_own_key(&answer.certificate_chain, &self.key)?;
        self.identity.certificate_chain = answer.certificate_chain;
        // The next exchange opens a connection that shows the new certificate.
        self.link = None;
        self.save();
        Ok(())
    }
}

/// A server that cannot be reached or has no time is asked again.
fn sent(result: Result<(), LinkError>) -> Execution {
    match result {
        Ok(()) => Execution::done(),
        Err(error @ LinkError::Unreachable(_)) => Execution::not_now("upload_failed", error.to_string()),
        Err(LinkError::Answered { problem, .. }) if matches!(problem.status, 429 | 503) => {
            Execution::not_now(
                "upload_failed",
                format!("the server had no time: {}", problem.detail),
            )
        }
        Err(error) => Execution::failed("upload_refused", error.to_string()),
    }
}

/// Half of the fleet speaks CBOR.
fn content_type(plan: &DevicePlan) -> ContentType {
    if Draw::new(plan.seed, plan.index, "encoding").number() & 1 == 0 {
        ContentType::Json
    } else {
        ContentType::Cbor
    }
}

/// Waits for other conditions.
async fn away(conditions: &mut watch::Receiver<Conditions>) -> Result<(), watch::error::RecvError> {
    conditions.changed().await
}

/// Waits forever where there is no stream.
async fn next_wake(wake: &mut Option<WakeStream>) -> bool {
    match wake {
        Some(stream) => stream.next().await,
        None => std::future::pending().await,
    }
}

/// True for answers that do not change by asking again soon.
fn is_hopeless(error: &LinkError) -> bool {
    matches!(
        error.code(),
        Some(ErrorCode::DeviceBlocked | ErrorCode::CertificateRevoked | ErrorCode::EpochMismatch)
    )
}
