//! The way to the collector: in batches, beside everything else, within bounds.

use std::{collections::VecDeque, time::Duration};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use super::{On, Span, TraceMetrics};
use crate::App;

/// Spans that wait for the collector, some 8 MiB of them; more are left out.
pub const WAITING_MAX: usize = 16_384;
/// Spans of one request.
const BATCH_MAX: usize = 512;
/// How long spans wait for others.
const GATHER: Duration = Duration::from_secs(1);
/// First and longest wait after the collector failed. Spans gather meanwhile, up to the bound.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How often one batch is sent before it is given up.
const TRIES_MAX: u32 = 6;
/// What the end of the process leaves for what waits.
const FLUSH: Duration = Duration::from_secs(3);

/// Why a batch did not reach the collector.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// It may work later.
    #[error("the collector cannot be reached: {0}")]
    Unavailable(String),
    /// It would be refused again.
    #[error("the collector refuses the spans: {0}")]
    Refused(String),
}

/// Who brings spans to the collector. Answers how many of them it did not want.
pub trait SpanExporter: Send + Sync {
    fn export<'a>(&'a self, spans: &'a [Span]) -> BoxFuture<'a, Result<u64, ExportError>>;
}

/// Spans that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<VecDeque<Span>>,
    ready: Notify,
}

impl Queue {
    /// `false`, and the span is left out, when too many wait.
    pub fn push(&self, span: Span) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= WAITING_MAX {
            return false;
        }
        waiting.push_back(span);
        // The exporter is told of the first one, and when there is a batch.
        if waiting.len() == 1 || waiting.len() == BATCH_MAX {
            self.ready.notify_one();
        }
        true
    }

    fn take(&self) -> Vec<Span> {
        let mut waiting = self.waiting.lock();
        let count = waiting.len().min(BATCH_MAX);
        waiting.drain(..count).collect()
    }

    pub fn len(&self) -> usize {
        self.waiting.lock().len()
    }
}

/// Sends what has ended until the process stops, and then what is left. Returns at once where traces are off.
pub async fn export_finished(app: App, mut stop: watch::Receiver<bool>) {
    let Some(on) = app.traces.on.get() else { return };
    let mut health = Health::default();
    while !*stop.borrow() {
        tokio::select! {
            () = gather(&on.queue) => {}
            _ = stop.changed() => break,
        }
        while on.queue.len() > 0 {
            let batch = on.queue.take();
            let sent = tokio::select! {
                sent = send(on, &app.traces.metrics, &batch, &mut health) => sent,
                _ = stop.changed() => false,
            };
            if *stop.borrow() {
                // Was it sent? The collector knows a span by its id.
                if !sent {
                    flush(on, &app.traces.metrics, batch).await;
                }
                return flush(on, &app.traces.metrics, Vec::new()).await;
            }
        }
    }
    flush(on, &app.traces.metrics, Vec::new()).await;
}

/// Waits until there is something, and then a moment for more of it.
async fn gather(queue: &Queue) {
    if queue.len() == 0 {
        queue.ready.notified().await;
    }
    if queue.len() < BATCH_MAX {
        let _ = timeout(GATHER, queue.ready.notified()).await;
    }
}

/// Whether the collector took the last batch, so that its failure and its return are said once each.
#[derive(Debug, Default)]
struct Health {
    has_failed: bool,
}

impl Health {
    fn failed(&mut self, error: &ExportError) {
        if !std::mem::replace(&mut self.has_failed, true) {
            tracing::warn!(%error, "spans are not exported; trying again");
        }
    }

    fn succeeded(&mut self) {
        if std::mem::take(&mut self.has_failed) {
            tracing::info!("spans are exported again");
        }
    }
}

/// Sends a batch, again and again within bounds. `false` where it was given up.
async fn send(on: &On, metrics: &TraceMetrics, batch: &[Span], health: &mut Health) -> bool {
    let mut wait = RETRY.0;
    for attempt in 1..=TRIES_MAX {
        match on.exporter.export(batch).await {
            Ok(refused) => {
                health.succeeded();
                metrics.export("done");
                metrics.spans("exported", (batch.len() as u64).saturating_sub(refused));
                metrics.spans("failed", refused);
                return true;
            }
            Err(error) => {
                metrics.export("failed");
                health.failed(&error);
                let is_last = attempt == TRIES_MAX || matches!(error, ExportError::Refused(_));
                if is_last {
                    break;
                }
                sleep(wait).await;
                wait = (wait * 2).min(RETRY.1);
            }
        }
    }
    metrics.spans("failed", batch.len() as u64);
    false
}

/// Sends what is left, once and in little time.
async fn flush(on: &On, metrics: &TraceMetrics, mut batch: Vec<Span>) {
    let all = async {
        loop {
            if batch.is_empty() {
                batch = on.queue.take();
            }
            if batch.is_empty() {
                return;
            }
            match on.exporter.export(&batch).await {
                Ok(refused) => metrics.spans("exported", (batch.len() as u64).saturating_sub(refused)),
                Err(error) => {
                    let lost = batch.len() + on.queue.len();
                    tracing::warn!(%error, lost, "the last spans are not exported");
                    return;
                }
            }
            batch.clear();
        }
    };
    if timeout(FLUSH, all).await.is_err() {
        tracing::warn!("the last spans were not exported in time");
    }
}
