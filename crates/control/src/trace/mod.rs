//! Traces: which spans this process makes, and the way of finished spans to the collector.
//!
//! Off unless an exporter was set: then nothing is recorded, and a request has its trace id for its name alone. A span is plain
//! data that is handed over when it has ended; handing over takes a lock for a moment and never waits. What is too much is counted
//! and left out.

mod allowance;
mod current;
mod export;
mod ids;
mod metrics;
mod placed;
mod requests;
mod span;

use std::sync::OnceLock;

use muster_model::{DeviceId, EntryId, Timestamp, TraceContext};

pub use current::{current, current_id, current_work, with_request, with_work};
pub use export::{ExportError, SpanExporter, export_finished};
pub use ids::new_span_id;
pub use metrics::{ExemplarLabel, TraceMetrics, exemplar};
pub use requests::RequestMetrics;
pub use span::{Kind, Source, Span, Value};

use self::{allowance::Allowance, export::Queue, placed::Awaited};

/// The spans of one process.
#[derive(Default)]
pub struct Traces {
    on: OnceLock<On>,
    awaited: Awaited,
    allowance: Allowance,
    pub metrics: TraceMetrics,
}

struct On {
    /// The share of traces that begin here and are kept, from 0 to 1.
    ratio: f64,
    queue: Queue,
    exporter: Box<dyn SpanExporter>,
}

impl std::fmt::Debug for Traces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Traces(on: {})", self.is_on())
    }
}

impl Traces {
    /// Makes spans from now on; `ratio` of the traces that begin here are kept. `false` when they were made already.
    pub fn turn_on(&self, exporter: Box<dyn SpanExporter>, ratio: f64) -> bool {
        let on = On {
            ratio,
            queue: Queue::default(),
            exporter,
        };
        self.on.set(on).is_ok()
    }

    pub fn is_on(&self) -> bool {
        self.on.get().is_some()
    }

    /// The context of work that begins here: a child of its caller's, or a trace of its own.
    pub fn begin(&self, caller: Option<TraceContext>) -> TraceContext {
        let span_id = new_span_id();
        match caller {
            Some(caller) => caller.at(span_id),
            None => {
                let trace_id = ids::new_trace_id();
                let ratio = self.on.get().map_or(0.0, |on| on.ratio);
                TraceContext {
                    trace_id,
                    span_id,
                    is_sampled: ids::is_in_ratio(trace_id, ratio),
                }
            }
        }
    }

    /// Takes a span that has ended. What went wrong is kept whether its trace is or not.
    pub fn finish(&self, span: Span) {
        let Some(on) = self.on.get() else { return };
        if !span.context.is_sampled && span.error.is_none() {
            return;
        }
        if !on.queue.push(span) {
            self.metrics.spans("dropped", 1);
        }
    }

    /// How many of so many spans a device may tell of in this hour; they count.
    pub(crate) fn allowance(&self, device: DeviceId, wanted: usize, now: Timestamp) -> usize {
        self.allowance.take(device, wanted, now)
    }

    /// An entry of the log belongs to a trace: the time until it has its place is a span.
    pub(crate) fn await_place(&self, entry: EntryId, context: TraceContext, since: Timestamp) {
        if self.is_on() {
            self.awaited.add(entry, context, since);
        }
    }

    /// These entries were read at their places.
    pub(crate) fn placed(&self, entries: impl Iterator<Item = (EntryId, u64)>, now: Timestamp) {
        if self.is_on() {
            for span in self.awaited.take(entries, now) {
                self.finish(span);
            }
        }
    }
}

#[cfg(test)]
mod tests;
