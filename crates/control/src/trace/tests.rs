use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::{FutureExt, future::BoxFuture};
use muster_model::EntryId;

use super::*;

/// A collector in memory.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicUsize>);

impl SpanExporter for Counting {
    fn export<'a>(&'a self, spans: &'a [Span]) -> BoxFuture<'a, Result<u64, ExportError>> {
        self.0.fetch_add(spans.len(), Ordering::SeqCst);
        async { Ok(0) }.boxed()
    }
}

fn on(ratio: f64) -> Traces {
    let traces = Traces::default();
    assert!(traces.turn_on(Box::new(Counting::default()), ratio));
    traces
}

fn waiting(traces: &Traces) -> usize {
    traces.on.get().map_or(0, |on| on.queue.len())
}

fn span(context: TraceContext) -> Span {
    Span::child(context, "a", Kind::Internal, Timestamp::from_unix_seconds(1))
}

#[test]
fn the_callers_word_decides_whether_a_trace_is_kept() {
    let caller =
        TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").expect("a context");
    let begun = on(0.0).begin(Some(caller));
    assert!(begun.is_sampled && begun.trace_id == caller.trace_id && begun.span_id != caller.span_id);
    let quiet = TraceContext {
        is_sampled: false,
        ..caller
    };
    assert!(!on(1.0).begin(Some(quiet)).is_sampled);
    assert!(on(1.0).begin(None).is_sampled && !on(0.0).begin(None).is_sampled);
    assert!(!Traces::default().begin(None).is_sampled);
}

#[test]
fn about_the_share_that_was_asked_for_is_kept() {
    let traces = on(0.25);
    let kept = (0..4000).filter(|_| traces.begin(None).is_sampled).count();
    assert!((800..1200).contains(&kept), "{kept}");
}

#[test]
fn what_failed_is_kept_whatever_the_share() {
    let traces = on(0.0);
    let context = traces.begin(None);
    traces.finish(span(context));
    assert_eq!(waiting(&traces), 0);
    traces.finish(span(context).failed("internal"));
    assert_eq!(waiting(&traces), 1);
}

#[test]
fn what_waits_is_bounded() {
    let traces = on(1.0);
    let context = traces.begin(None);
    for _ in 0..export::WAITING_MAX + 10 {
        traces.finish(span(context));
    }
    assert_eq!(waiting(&traces), export::WAITING_MAX);
    let since = Timestamp::from_unix_seconds(1);
    for number in 0..20_000_u128 {
        traces.await_place(EntryId::from_uuid(uuid::Uuid::from_u128(number)), context, since);
    }
    assert_eq!(traces.awaited.len(), 16_384);
}

#[test]
fn nothing_is_kept_where_traces_are_off() {
    let traces = Traces::default();
    let context = traces.begin(None);
    traces.finish(span(context).failed("internal"));
    traces.await_place(
        EntryId::from_uuid(uuid::Uuid::nil()),
        context,
        Timestamp::from_unix_seconds(1),
    );
    assert_eq!(traces.awaited.len(), 0);
}
