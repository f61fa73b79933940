//! The task beside the agent's loop. It ends with the handle, and nothing about it can hold a command up.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use muster_channel_agent::ErrorCode;
use muster_channel_agent::clock::ClockReading;
use muster_channel_agent::telemetry::{FinishedSpan, TelemetryAnswer};
use muster_model::attestation::Ownership;
use muster_model::telemetry::{BootId, EventKind, Metric, SamplingPlan};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::batch::Head;
use super::sampler::{Reading, Sampler};
use super::store::{Findings, Happening, Haste, StoreError, StoredBatch, TelemetryStore, attributes};
use super::uploader::{Moment, Uploader};
use crate::link::{Link, LinkError};
use crate::os::{Health, Machine};
use crate::{AGENT_VERSION, machine_clock};

/// Most notes that wait for the task.
const NOTES_MAX: usize = 256;
/// How long the task waits when nothing is due at all.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// How often an upload that is put off is thought of again.
const UPLOAD_CHECK: Duration = Duration::from_secs(60);
/// Delay after a server answered that it knows no telemetry: an older one.
const UNKNOWN_DELAY: Duration = Duration::from_secs(3600);
/// Longest time for the packet that measures the distance.
const PROBE_TIME_MAX: Duration = Duration::from_secs(5);
/// Longest time that the end of the program waits for the last note.
const END_TIME_MAX: Duration = Duration::from_secs(1);

/// How the settings of the policy are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyFigures {
    pub settings: usize,
    pub failed: usize,
}

/// What the agent's loop tells the task.
#[derive(Clone, Debug, Default)]
struct Context {
    link: Option<Link>,
    plan: SamplingPlan,
    policy: PolicyFigures,
    server_failures: u64,
}

enum Note {
    Happened(Happening),
    Finished(Box<FinishedSpan>),
}

/// The handle of the task.
#[derive(Debug)]
pub struct Telemetry {
    context: watch::Sender<Context>,
    notes: mpsc::Sender<Note>,
    missed: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Telemetry {
    /// Starts the task on the spool in the state folder. Where that cannot be used, the machine is managed all the same,
    /// without telemetry.
    pub fn start(
        state_dir: &Path,
        machine: &Machine,
        (epoch, ownership): (u32, Ownership),
        plan: SamplingPlan,
    ) -> Result<Self, StoreError> {
        let mut store = TelemetryStore::open(state_dir, machine_clock::random_stream())?;
        store.begin_epoch(epoch, machine_clock::random_stream())?;
        if !plan.is_enabled {
            store.turn_off()?;
        }
        let health = machine.health(ownership, |name| store.memo(name).ok().flatten());
        let (context, watched) = watch::channel(Context {
            plan: plan.clone(),
            ..Context::default()
        });
        let (notes, received) = mpsc::channel(NOTES_MAX);
        let missed = Arc::new(AtomicU64::new(0));
        let clock = machine_clock::read();
        let interval = upload_interval(&plan);
        let worker = Worker {
            epoch,
            context: watched,
            notes: received,
            missed: Arc::clone(&missed),
            uploader: Uploader::new(clock.since_boot, interval, machine_clock::random()),
            bench: Some(Box::new(Bench {
                store,
                health,
                sampler: Sampler::default(),
            })),
            plan,
            upload: None,
            uploaded_bytes: 0,
            is_urgent: false,
        };
        let telemetry = Self {
            context,
            notes,
            missed,
            task: tokio::spawn(worker.run()),
        };
        telemetry.happened(EventKind::AgentStarted, [("version", AGENT_VERSION.to_owned())]);
        Ok(telemetry)
    }

    /// The connection that uploads share, or that there is none.
    pub fn set_link(&self, link: Option<Link>) {
        self.context.send_modify(|context| context.link = link);
    }

    /// The plan and the policy's figures, where they changed.
    pub fn set_policy(&self, plan: SamplingPlan, policy: PolicyFigures) {
        self.context.send_if_modified(|context| {
            let is_changed = context.plan != plan;
            (context.plan, context.policy) = (plan, policy);
            is_changed
        });
    }

    /// An attempt to reach the server failed.
    pub fn server_failed(&self) {
        self.context.send_if_modified(|context| {
            context.server_failures += 1;
            false
        });
    }

    /// Something happened that the agent itself knows of.
    pub fn happened<const N: usize>(&self, kind: EventKind, pairs: [(&str, String); N]) {
        self.note(Note::Happened(Happening {
            kind,
            at: machine_clock::read().wall,
            attributes: attributes(pairs),
        }));
    }

    /// A span ended.
    pub fn finished(&self, span: FinishedSpan) {
        self.note(Note::Finished(Box::new(span)));
    }

    fn note(&self, note: Note) {
        if self.notes.try_send(note).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends the task, with a note that the agent was told to end.
    pub async fn end(self) {
        drop((self.context, self.notes));
        if tokio::time::timeout(END_TIME_MAX, self.task).await.is_err() {
            tracing::warn!("telemetry did not end in time");
        }
    }
}

/// What blocking work is done on, away from the loop.
struct Bench {
    store: TelemetryStore,
    health: Health,
    sampler: Sampler,
}

struct Worker {
    epoch: u32,
    context: watch::Receiver<Context>,
    notes: mpsc::Receiver<Note>,
    missed: Arc<AtomicU64>,
    uploader: Uploader,
    /// Absent only while blocking work has it.
    bench: Option<Box<Bench>>,
    /// The plan that is followed.
    plan: SamplingPlan,
    upload: Option<JoinHandle<(u64, Result<TelemetryAnswer, LinkError>)>>,
    uploaded_bytes: u64,
    is_urgent: bool,
}

impl Worker {
    async fn run(mut self) {
        loop {
            let mut notes = Vec::new();
            let wake_at = self.wake_at();
            tokio::select! {
                changed = self.context.changed() => {
                    if changed.is_err() {
                        break;
                    }
                }
                note = self.notes.recv() => {
                    let Some(note) = note else { break };
                    notes.push(note);
                }
                (sequence, result) = next_upload(&mut self.upload) => {
                    self.upload = None;
                    self.on_uploaded(sequence, result).await;
                }
                () = tokio::time::sleep_until(wake_at) => {}
            }
            while let Ok(note) = self.notes.try_recv() {
                notes.push(note);
            }
            self.follow_plan().await;
            self.sample(notes).await;
            self.send().await;
            if self.bench.is_none() {
                return;
            }
        }
        if let Some(bench) = &mut self.bench {
            let findings = Findings {
                memos: vec![bench.health.farewell()],
                ..Findings::default()
            };
            let now = machine_clock::read().wall;
            if let Err(error) = bench.store.record(now, &findings, &self.plan) {
                tracing::debug!(%error, "the end was not noted");
            }
        }
    }

    fn wake_at(&self) -> Instant {
        let now = machine_clock::read().since_boot;
        let due = self.bench.as_ref().and_then(|bench| bench.sampler.next_due());
        let sample = due
            .filter(|_| self.plan.is_enabled)
            .map_or(IDLE_MAX, |due| due.saturating_sub(now));
        let wait = if self.is_urgent && self.upload.is_none() {
            sample.min(UPLOAD_CHECK)
        } else {
            sample
        };
        Instant::now() + wait.min(IDLE_MAX)
    }

    /// Blocking work beside the loop; `None` where it broke down, which ends telemetry and nothing else.
    async fn on_bench<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Bench) -> T + Send + 'static,
    ) -> Option<T> {
        let mut bench = self.bench.take()?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&mut bench);
            (bench, result)
        });
        match done.await {
            Ok((bench, result)) => {
                self.bench = Some(bench);
                Some(result)
            }
            Err(error) => {
                tracing::error!(%error, "telemetry broke down: there is none until the next start");
                None
            }
        }
    }

    /// Goes over to another plan: what is measured in windows of the old widths ends.
    async fn follow_plan(&mut self) {
        let wanted = self.context.borrow_and_update().plan.clone();
        if wanted == self.plan {
            return;
        }
        let clock = machine_clock::read();
        let is_enabled = wanted.is_enabled;
        self.uploader.replan(clock.since_boot, upload_interval(&wanted));
        self.plan = wanted;
        let changed = self.on_bench(move |bench| {
            bench.sampler.replan();
            if is_enabled {
                bench.store.cut(clock.wall)
            } else {
                bench.store.turn_off()
            }
        });
        if let Some(Err(error)) = changed.await {
            tracing::warn!(%error, "the windows of the plan before go on");
        }
    }

    async fn sample(&mut self, notes: Vec<Note>) {
        if !self.plan.is_enabled {
            return;
        }
        let clock = machine_clock::read();
        let plan = self.plan.clone();
        let Some(bench) = &mut self.bench else { return };
        let due = bench.sampler.take_due(clock.since_boot, &plan);
        let missed = self.missed.swap(0, Ordering::Relaxed);
        if due.is_empty() && notes.is_empty() && missed == 0 {
            return;
        }
        let mut readings = self.own_readings();
        if due.contains(&Metric::NetworkRtt) {
            readings.extend(probe(self.link()).await);
        }
        let mut findings = Findings {
            missed_events: missed,
            ..Findings::default()
        };
        for note in notes {
            match note {
                Note::Happened(happening) => findings.happenings.push(happening),
                Note::Finished(span) => findings.spans.push(*span),
            }
        }
        let recorded = self.on_bench(move |bench| {
            if !due.is_empty() {
                bench.look(&clock, &due, readings, &plan, &mut findings);
            }
            bench.store.record(clock.wall, &findings, &plan)?;
            bench.store.has_urgent()
        });
        match recorded.await {
            Some(Ok(is_urgent)) => self.is_urgent = is_urgent,
            Some(Err(error)) => {
                tracing::error!(%error, "telemetry is not stored: it is counted as lost");
            }
            None => {}
        }
    }

    /// What the agent knows of itself.
    fn own_readings(&self) -> Vec<Reading> {
        let context = self.context.borrow();
        let PolicyFigures { settings, failed } = context.policy;
        vec![
            Reading::of(Metric::PolicySettings, settings as f64),
            Reading::of(Metric::PolicySettingsFailed, failed as f64),
            Reading::of(Metric::ServerFailures, context.server_failures as f64),
            Reading::of(Metric::AgentUploaded, self.uploaded_bytes as f64),
        ]
    }

    /// The connection, while there is one.
    fn link(&self) -> Option<Link> {
        let link = self.context.borrow().link.clone();
        link.filter(|link| !link.is_closed())
    }

    /// Sends a batch where one is due.
    async fn send(&mut self) {
        let link = self
            .context
            .borrow()
            .link
            .clone()
            .filter(|link| !link.is_closed());
        let Some(link) = link.filter(|_| self.upload.is_none() && self.plan.is_enabled) else {
            return;
        };
        let clock = machine_clock::read();
        let Some(bench) = &self.bench else { return };
        let offset = bench.health.utc_offset_seconds(clock.wall);
        let moment = Moment {
            since_boot: clock.since_boot,
            is_urgent: self.is_urgent,
            is_in_window: self.plan.may_upload_at(clock.wall, offset),
        };
        if !self.uploader.is_due(moment) {
            return;
        }
        let head = Head {
            epoch: self.epoch,
            now: clock.wall,
            boot_id: BootId::from_bytes(clock.boot.to_be_bytes()),
        };
        let haste = if self.is_urgent {
            Haste::Urgent
        } else {
            Haste::None
        };
        let batch = self
            .on_bench(move |bench| bench.store.next_batch(&head, haste))
            .await;
        match batch {
            Some(Ok(Some(batch))) => {
                self.uploader.on_sent(clock.since_boot, batch.body.len());
                self.uploaded_bytes += batch.body.len() as u64;
                self.upload = Some(tokio::spawn(send(link, batch)));
            }
            Some(Ok(None)) => {
                self.is_urgent = false;
                self.uploader
                    .on_nothing(clock.since_boot, upload_interval(&self.plan));
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "no batch of telemetry can be made");
                self.uploader
                    .on_failed(clock.since_boot, None, machine_clock::random());
            }
            None => {}
        }
    }

    async fn on_uploaded(&mut self, sequence: u64, result: Result<TelemetryAnswer, LinkError>) {
        let clock = machine_clock::read();
        let answer = match result {
            Ok(answer) if answer.accepted_through >= sequence => answer,
            Ok(_) => {
                tracing::warn!("the server did not say that it has the batch");
                self.uploader
                    .on_failed(clock.since_boot, None, machine_clock::random());
                return;
            }
            Err(error) => {
                self.on_upload_failed(sequence, &error).await;
                return;
            }
        };
        let through = answer.accepted_through;
        let fresh = machine_clock::random_stream();
        let state = self.on_bench(move |bench| {
            bench.store.accepted(through, fresh)?;
            Ok::<_, StoreError>((bench.store.has_backlog(clock.wall)?, bench.store.has_urgent()?))
        });
        let (is_more, is_urgent) = match state.await {
            Some(Ok(state)) => state,
            Some(Err(error)) => {
                // It is sent once more, and the server knows it.
                tracing::warn!(%error, "the server has a batch that the spool cannot forget yet");
                (false, false)
            }
            None => return,
        };
        self.is_urgent = is_urgent;
        self.uploader
            .on_accepted(clock.since_boot, &answer, upload_interval(&self.plan), is_more);
    }

    async fn on_upload_failed(&mut self, sequence: u64, error: &LinkError) {
        let since_boot = machine_clock::read().since_boot;
        let code = error.code().and_then(ErrorCode::parse);
        if matches!(code, Some(ErrorCode::Malformed | ErrorCode::BodyTooLarge)) {
            tracing::error!(%error, sequence, "the server refuses a batch for good: it is counted as dropped");
            if let Some(Err(error)) = self.on_bench(move |bench| bench.store.refused(sequence)).await {
                tracing::warn!(%error, "the batch could not be given up yet");
            }
        } else {
            tracing::debug!(%error, "telemetry waits");
        }
        let floor = match code {
            Some(ErrorCode::NotFound | ErrorCode::MethodNotAllowed) => Some(UNKNOWN_DELAY),
            _ => error.retry_after(),
        };
        self.uploader
            .on_failed(since_boot, floor, machine_clock::random());
    }
}

impl Bench {
    fn look(
        &mut self,
        clock: &ClockReading,
        due: &BTreeSet<Metric>,
        own: Vec<Reading>,
        plan: &SamplingPlan,
        findings: &mut Findings,
    ) {
        let look = self.health.look(clock.wall, clock.since_boot, due);
        findings.happenings.extend(look.happenings);
        findings.memos.extend(look.memos);
        let readings = look.readings.into_iter().chain(own).collect();
        self.sampler.take_up(clock.wall, readings, due, plan, findings);
    }
}

/// The time of one small exchange with the server.
async fn probe(link: Option<Link>) -> Option<Reading> {
    let link = link?;
    let started = Instant::now();
    let answer = tokio::time::timeout(PROBE_TIME_MAX, link.ping()).await;
    let took = started.elapsed().as_secs_f64();
    matches!(answer, Ok(Ok(()))).then(|| Reading::of(Metric::NetworkRtt, took))
}

async fn send(link: Link, batch: StoredBatch) -> (u64, Result<TelemetryAnswer, LinkError>) {
    (batch.sequence, link.telemetry(batch).await)
}

/// Waits forever where nothing is sent. A task that broke down is a failed one.
async fn next_upload(
    upload: &mut Option<JoinHandle<(u64, Result<TelemetryAnswer, LinkError>)>>,
) -> (u64, Result<TelemetryAnswer, LinkError>) {
    match upload {
        Some(handle) => match handle.await {
            Ok(result) => result,
            Err(error) => (0, Err(LinkError::Protocol(error.to_string()))),
        },
        None => std::future::pending().await,
    }
}

fn upload_interval(plan: &SamplingPlan) -> Duration {
    Duration::from_secs(u64::from(plan.upload_interval_seconds))
}
