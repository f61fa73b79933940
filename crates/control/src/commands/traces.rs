//! A command's way as spans: queued, placed in the log, its device woken, delivered, carried out, answered.
//!
//! The span of queueing is stored with the command, and everything later is told of under it. What a device says of its part
//! comes with its telemetry and is believed as far as it can be: see [`take_spans`].

use std::{borrow::Cow, collections::HashMap};

use muster_channel_agent::telemetry::{FinishedSpan, SpanStatus};
use muster_model::{
    CommandId, CommandKind, DeviceId, EntryId, ReceiptOutcome, TenantId, Timestamp, TraceContext,
    telemetry::TraceId,
};
use muster_storage::Scope;
use muster_trust::statement::ReceiptStatement;

use super::{Command, store};
use crate::{
    App,
    access::problem::Problem,
    audit::LoggedTx,
    trace::{Kind, Source, Span, Value},
};

/// Commands of one operation that are told of: a trace of a million spans is read by nobody.
const TRACED_PER_OPERATION_MAX: u64 = 200;
/// Spans of one batch of telemetry that are looked at.
pub const DEVICE_SPANS_MAX: usize = 256;
/// The newest commands of a device into whose traces it may speak.
const DEVICE_TRACES_MAX: i64 = 256;
/// What a device may tell of: its own part of a command's way.
const DEVICE_SPANS: [(&str, Kind); 3] = [
    ("command.verify", Kind::Consumer),
    ("command.execute", Kind::Internal),
    ("command.receipt", Kind::Client),
];
/// What a device may say about it.
const DEVICE_ATTRIBUTES: [&str; 4] = [
    "muster.command.id",
    "muster.command.type",
    "muster.outcome",
    "error.type",
];
/// Longest value that a device may say, in bytes.
const DEVICE_TEXT_BYTES_MAX: usize = 128;
/// How long ago a device's span may have begun.
const SPAN_AGE_SECONDS_MAX: i64 = 14 * 86_400;
/// How far ahead of the server it may end: what the correction of a clock leaves.
const SPAN_AHEAD_SECONDS_MAX: i64 = 300;
/// The longest piece of work.
const SPAN_SECONDS_MAX: u64 = 86_400;
/// A clock that is off by less is left alone: it is the network that takes so long.
const CLOCK_TOLERANCE_MICROS: i64 = 500_000;

/// Tells of a command that is queued, and answers what to store with it.
pub fn queued(
    tx: &mut LoggedTx<'_>,
    kind: &CommandKind,
    (id, device): (CommandId, DeviceId),
    entry: EntryId,
    position: Option<u64>,
) -> Option<TraceContext> {
    let parent = tx.trace()?;
    if position.is_some_and(|position| position >= TRACED_PER_OPERATION_MAX) {
        return None;
    }
    let span = Span::child(parent, "command.queue", Kind::Producer, tx.at())
        .with("muster.command.id", id.to_string())
        .with("muster.command.type", kind.type_name())
        .with("muster.tenant.id", tx.tenant().to_string())
        .with("device.id", device.to_string());
    let context = span.context;
    tx.tell(span);
    if context.is_sampled {
        tx.await_place(entry, context);
    }
    Some(context)
}

/// Tells of a command that is handed to its device at a check-in that began at `arrived`, and answers the context for the device.
/// `woken` is when the device was called last.
pub fn deliver(
    app: &App,
    command: &Command,
    arrived: Timestamp,
    woken: Option<Timestamp>,
) -> Option<TraceContext> {
    let parent = command.trace.filter(|_| app.traces.is_on())?;
    let told = |span: Span| {
        span.with("muster.command.id", command.id.to_string())
            .with("device.id", command.device.to_string())
    };
    if let Some(woken) = woken.filter(|woken| *woken >= command.created_at && command.attempts == 0) {
        let wake = Span::child(parent, "device.wake", Kind::Producer, woken);
        app.traces.finish(told(wake.until(arrived)));
    }
    let span = Span::child(parent, "command.deliver", Kind::Server, arrived);
    let span = told(span)
        .with("muster.command.type", command.kind.as_str())
        .with("muster.command.attempt", u64::from(command.attempts) + 1)
        .until(app.clock.now());
    let context = span.context;
    app.traces.finish(span);
    Some(context)
}

/// Tells of a receipt that ends a command.
pub fn completed(tx: &mut LoggedTx<'_>, command: &Command, receipt: &ReceiptStatement) {
    let Some(parent) = command.trace else { return };
    let outcome = match receipt.outcome {
        ReceiptOutcome::Done => "done",
        ReceiptOutcome::Noop => "noop",
        ReceiptOutcome::Failed => "failed",
        ReceiptOutcome::NotNow => "not_now",
    };
    let span = Span::child(parent, "receipt.store", Kind::Consumer, tx.at())
        .with("muster.command.id", command.id.to_string())
        .with("muster.command.type", command.kind.as_str())
        .with("muster.outcome", outcome)
        .with("device.id", command.device.to_string());
    let span = match receipt.outcome {
        ReceiptOutcome::Failed => span.failed(receipt.code.as_deref().unwrap_or("failed")),
        ReceiptOutcome::Done | ReceiptOutcome::Noop | ReceiptOutcome::NotNow => span,
    };
    tx.tell(span);
}

/// Takes what a device says of its part of the way of its commands. Whatever is not that is counted and left out: a device
/// speaks only into the traces of its own newest commands, in words that are known, a bounded number of times, and always as
/// itself. `clock_offset` is by how many microseconds the server's clock is ahead of the device's.
pub async fn take_spans(
    app: &App,
    tenant: TenantId,
    device: DeviceId,
    mut spans: Vec<FinishedSpan>,
    clock_offset: Option<i64>,
) -> Result<(), Problem> {
    let came = spans.len();
    spans.truncate(DEVICE_SPANS_MAX.min(app.traces.allowance(device, came, app.clock.now())));
    let mut taken = 0;
    if !spans.is_empty() {
        let own = app
            .db
            .read(Scope::Tenant(tenant.uuid()), move |tx| {
                Ok::<_, Problem>(store::traces_of_device(tx, tenant, device, DEVICE_TRACES_MAX)?)
            })
            .await?;
        let judge = Judge {
            device,
            own: by_trace(own),
            correction: clock_offset
                .filter(|offset| offset.abs() >= CLOCK_TOLERANCE_MICROS)
                .unwrap_or(0),
            now: app.clock.now(),
        };
        for span in spans.into_iter().filter_map(|span| judge.believe(span)) {
            taken += 1;
            app.traces.finish(span);
        }
    }
    app.traces.metrics.spans("refused", (came - taken) as u64);
    Ok(())
}

fn by_trace(contexts: Vec<TraceContext>) -> HashMap<TraceId, Vec<TraceContext>> {
    let mut by_trace: HashMap<TraceId, Vec<TraceContext>> = HashMap::new();
    for context in contexts {
        by_trace.entry(context.trace_id).or_default().push(context);
    }
    by_trace
}

/// What a device's word is judged by.
struct Judge {
    device: DeviceId,
    /// The contexts of its newest commands.
    own: HashMap<TraceId, Vec<TraceContext>>,
    /// Microseconds to add to its times.
    correction: i64,
    now: Timestamp,
}

impl Judge {
    fn believe(&self, said: FinishedSpan) -> Option<Span> {
        let own = self.own.get(&said.trace_id)?;
        let (name, kind) = DEVICE_SPANS.into_iter().find(|(name, _)| *name == said.name)?;
        let parent = said.parent_span_id.filter(|parent| *parent != said.span_id)?;
        if own.iter().any(|context| context.span_id == said.span_id) {
            return None;
        }
        let started_at = Timestamp::from_micros(said.started_at.as_micros().saturating_add(self.correction));
        let duration = std::time::Duration::from_micros(said.duration_us);
        let (now, started) = (self.now.as_unix_seconds(), started_at.as_unix_seconds());
        let is_in_time = started >= now - SPAN_AGE_SECONDS_MAX && duration.as_secs() <= SPAN_SECONDS_MAX;
        let ended_at = started_at.plus(duration);
        if !is_in_time || ended_at.as_unix_seconds() > now + SPAN_AHEAD_SECONDS_MAX {
            return None;
        }
        let mut attributes: Vec<(&'static str, Value)> = DEVICE_ATTRIBUTES
            .into_iter()
            .filter_map(|known| Some((known, said.attributes.get(known)?)))
            .filter(|(_, value)| is_plain(value))
            .map(|(known, value)| (known, Value::from(value.as_str())))
            .collect();
        let error = (said.status == SpanStatus::Error).then(|| {
            let code = said.attributes.get("error.type").filter(|code| is_plain(code));
            code.map_or_else(|| "failed".to_owned(), Clone::clone)
        });
        attributes.push(("device.id", Value::from(self.device.to_string())));
        if self.correction != 0 {
            attributes.push(("muster.clock.correction_ms", Value::from(self.correction / 1000)));
        }
        Some(Span {
            source: Source::Device(self.device),
            context: TraceContext {
                trace_id: said.trace_id,
                span_id: said.span_id,
                is_sampled: own.iter().any(|context| context.is_sampled),
            },
            parent: Some(parent),
            trace_state: None,
            name: Cow::Borrowed(name),
            kind,
            started_at,
            ended_at,
            attributes,
            error,
        })
    }
}

/// A word, not a text.
fn is_plain(value: &str) -> bool {
    value.len() <= DEVICE_TEXT_BYTES_MAX && value.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const OWN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const NOW: i64 = 1_800_000_000;

    fn judge(correction: i64) -> Judge {
        let own = vec![TraceContext::parse(OWN).expect("a context")];
        Judge {
            device: DeviceId::from_uuid(uuid::Uuid::from_u128(1)),
            own: by_trace(own),
            correction,
            now: Timestamp::from_unix_seconds(NOW),
        }
    }

    fn said() -> FinishedSpan {
        FinishedSpan {
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".parse().expect("a trace"),
            span_id: "1111111111111111".parse().expect("a span"),
            parent_span_id: "2222222222222222".parse().ok(),
            name: "command.execute".to_owned(),
            started_at: Timestamp::from_unix_seconds(NOW - 5),
            duration_us: 1_000_000,
            status: SpanStatus::Ok,
            attributes: BTreeMap::new(),
        }
    }

    #[test]
    fn a_device_speaks_as_itself_and_on_the_servers_time() {
        let span = judge(3_600_000_000)
            .believe(FinishedSpan {
                started_at: Timestamp::from_unix_seconds(NOW - 3605),
                ..said()
            })
            .expect("it is its own part");
        assert_eq!(span.started_at, Timestamp::from_unix_seconds(NOW - 5));
        assert!(matches!(span.source, Source::Device(_)));
        let text = format!("{:?}", span.attributes);
        assert!(
            text.contains("muster.clock.correction_ms") && text.contains("device.id"),
            "{text}"
        );
    }

    /// What a hostile device may do to a span.
    type Change = fn(&mut FinishedSpan);

    #[test]
    fn what_is_not_a_devices_own_part_is_not_believed() {
        let changes: [(&str, Change); 8] = [
            ("the trace of another", |said| {
                said.trace_id = "5bf92f3577b34da6a3ce929d0e0e4736".parse().expect("a trace");
            }),
            ("a word of the server's", |said| {
                said.name = "command.queue".to_owned()
            }),
            ("no parent", |said| said.parent_span_id = None),
            ("its own parent", |said| said.parent_span_id = Some(said.span_id)),
            ("the server's span again", |said| {
                said.span_id = "00f067aa0ba902b7".parse().expect("a span");
            }),
            ("long ago", |said| {
                said.started_at = Timestamp::from_unix_seconds(NOW - 15 * 86_400)
            }),
            ("tomorrow", |said| {
                said.started_at = Timestamp::from_unix_seconds(NOW + 86_400)
            }),
            ("for ever", |said| said.duration_us = u64::MAX),
        ];
        assert!(judge(0).believe(said()).is_some());
        for (what, change) in changes {
            let mut span = said();
            change(&mut span);
            assert!(judge(0).believe(span).is_none(), "{what}");
        }
    }

    #[test]
    fn what_a_device_says_beyond_the_known_words_is_left_out() {
        let mut span = said();
        span.status = SpanStatus::Error;
        let pairs = [
            ("service.name", "muster"),
            ("device.id", "dev_of_another"),
            ("muster.outcome", "two words"),
            ("error.type", "no_screen"),
            ("muster.command.type", &"x".repeat(129)),
        ];
        span.attributes = pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let span = judge(0).believe(span).expect("it is its own part");
        assert_eq!(span.error.as_deref(), Some("no_screen"));
        let names: Vec<&str> = span.attributes.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["error.type", "device.id"]);
        assert!(!format!("{span:?}").contains("dev_of_another"));
    }
}
