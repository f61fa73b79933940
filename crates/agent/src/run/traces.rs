//! The agent's part of a command's trace: what the server said where it belongs, as spans that travel with the telemetry.
//!
//! All of it is in memory: after a restart a command that is delivered again brings its place along again, and what was under way
//! is not told of. Nothing waits for it and nothing is decided by it.

use std::collections::BTreeMap;

use muster_channel_agent::clock::ClockReading;
use muster_channel_agent::command::DueCommand;
use muster_channel_agent::device::{Action, Execution};
use muster_channel_agent::telemetry::{Attributes, FinishedSpan, SpanStatus};
use muster_model::command::ReceiptOutcome;
use muster_model::id::CommandId;
use muster_model::telemetry::SpanId;
use muster_model::trace::TraceContext;
use muster_trust::encoding::from_strict_json;
use muster_trust::statement::{CommandStatement, Statement as _};

use crate::machine_clock;

/// Commands whose place in a trace is remembered.
const KNOWN_MAX: usize = 256;

#[derive(Debug)]
struct Traced {
    /// The delivery.
    context: TraceContext,
    kind: &'static str,
    begun: Option<ClockReading>,
    executed: Option<ClockReading>,
}

/// The commands that are traced.
#[derive(Debug, Default)]
pub(super) struct Traces {
    known: BTreeMap<CommandId, Traced>,
}

impl Traces {
    /// Commands came and were checked in between; `actions` is what followed.
    pub fn came(
        &mut self,
        due: &[DueCommand],
        (before, after): (&ClockReading, &ClockReading),
        actions: &[Action],
    ) -> Vec<FinishedSpan> {
        let mut spans = Vec::new();
        for command in due {
            let Some(context) = command.trace() else { continue };
            let Ok(statement) =
                from_strict_json::<CommandStatement>(&command.envelope.payload, CommandStatement::MAX_BYTES)
            else {
                continue;
            };
            let id = statement.command_id;
            let name = id.to_string();
            let code = actions.iter().find_map(|action| match action {
                Action::Refused(refused) if refused.subject == name => Some(refused.code.as_str()),
                _ => None,
            });
            if self.known.len() >= KNOWN_MAX {
                // Ids rise with time: the oldest.
                self.known.pop_first();
            }
            let traced = self.known.entry(id).or_insert(Traced {
                context,
                kind: statement.kind.type_name(),
                begun: None,
                executed: None,
            });
            traced.context = context;
            spans.extend(span("command.verify", id, traced, (before, after), (None, code)));
        }
        spans
    }

    /// The trace of a command, for log lines.
    pub fn trace_of(&self, id: CommandId) -> Option<String> {
        let traced = self.known.get(&id)?;
        Some(traced.context.trace_id.to_string())
    }

    /// A command begins.
    pub fn begun(&mut self, id: CommandId, now: ClockReading) {
        if let Some(traced) = self.known.get_mut(&id) {
            traced.begun = Some(now);
        }
    }

    /// A command has ended like this.
    pub fn executed(
        &mut self,
        id: CommandId,
        execution: &Execution,
        now: ClockReading,
    ) -> Option<FinishedSpan> {
        let traced = self.known.get_mut(&id)?;
        let begun = traced.begun.take()?;
        traced.executed = Some(now);
        let failure = (execution.outcome == ReceiptOutcome::Failed)
            .then(|| execution.code.as_deref().unwrap_or("failed"));
        let ended = (Some(outcome(execution.outcome)), failure);
        span("command.execute", id, traced, (&begun, &now), ended)
    }

    /// The server has these receipts.
    pub fn accepted(&mut self, ids: &[CommandId], now: &ClockReading) -> Vec<FinishedSpan> {
        let told = ids.iter().filter_map(|id| {
            let traced = self.known.remove(id)?;
            let executed = traced.executed?;
            span("command.receipt", *id, &traced, (&executed, now), (None, None))
        });
        told.collect()
    }
}

fn outcome(outcome: ReceiptOutcome) -> &'static str {
    match outcome {
        ReceiptOutcome::Done => "done",
        ReceiptOutcome::Noop => "noop",
        ReceiptOutcome::Failed => "failed",
        ReceiptOutcome::NotNow => "not_now",
    }
}

/// A span under the delivery, where its trace is kept or it failed. Its length is the boot clock's, which nobody sets.
fn span(
    name: &str,
    id: CommandId,
    traced: &Traced,
    (from, to): (&ClockReading, &ClockReading),
    (outcome, failure): (Option<&str>, Option<&str>),
) -> Option<FinishedSpan> {
    if !traced.context.is_sampled && failure.is_none() {
        return None;
    }
    let mut attributes: Attributes = [
        ("muster.command.id".to_owned(), id.to_string()),
        ("muster.command.type".to_owned(), traced.kind.to_owned()),
    ]
    .into();
    for (key, value) in [("muster.outcome", outcome), ("error.type", failure)] {
        attributes.extend(value.map(|value| (key.to_owned(), value.to_owned())));
    }
    let took = to.since_boot.saturating_sub(from.since_boot);
    Some(FinishedSpan {
        trace_id: traced.context.trace_id,
        span_id: SpanId::from_bytes(machine_clock::random().to_be_bytes())?,
        parent_span_id: Some(traced.context.span_id),
        name: name.to_owned(),
        started_at: from.wall,
        duration_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        status: if failure.is_some() {
            SpanStatus::Error
        } else {
            SpanStatus::Ok
        },
        attributes,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use muster_model::time::Timestamp;

    use super::*;

    fn reading(seconds: u64) -> ClockReading {
        ClockReading {
            wall: Timestamp::from_unix_seconds(1_800_000_000 + seconds.cast_signed()),
            since_boot: Duration::from_secs(seconds),
            boot: 1,
        }
    }

    fn traces(flag: &str) -> (Traces, CommandId) {
        let id = CommandId::from_uuid(uuid::Uuid::from_u128(7));
        let text = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flag}");
        let traced = Traced {
            context: TraceContext::parse(&text).expect("a context"),
            kind: "lock",
            begun: None,
            executed: None,
        };
        let known = [(id, traced)].into();
        (Traces { known }, id)
    }

    #[test]
    fn carrying_out_and_answering_are_spans_under_the_delivery() {
        let (mut traces, id) = traces("01");
        traces.begun(id, reading(1));
        let executed = traces
            .executed(id, &Execution::done(), reading(3))
            .expect("a span");
        assert_eq!(
            (executed.name.as_str(), executed.duration_us),
            ("command.execute", 2_000_000)
        );
        assert_eq!(
            executed.parent_span_id.map(|id| id.to_string()).as_deref(),
            Some("00f067aa0ba902b7")
        );
        let answered = traces.accepted(&[id], &reading(4));
        assert_eq!(answered.len(), 1);
        assert_eq!(
            (answered[0].name.as_str(), answered[0].duration_us),
            ("command.receipt", 1_000_000)
        );
        assert!(traces.known.is_empty());
    }

    #[test]
    fn of_a_trace_that_is_not_kept_only_failures_are_told() {
        let (mut traces, id) = traces("00");
        traces.begun(id, reading(1));
        assert_eq!(traces.executed(id, &Execution::done(), reading(2)), None);
        traces.begun(id, reading(3));
        let failed = traces.executed(id, &Execution::failed("no_screen", "none"), reading(4));
        assert_eq!(failed.expect("a span").attributes["error.type"], "no_screen");
    }
}
