//! What the running task works for: the request whose id every problem names, and the trace it belongs to.

use muster_model::{TraceContext, telemetry::TraceId};

#[derive(Debug, Clone, Copy)]
struct Current {
    context: TraceContext,
    /// What the request is done for is traced, and what it begins belongs to its trace.
    is_traced: bool,
}

tokio::task_local! {
    static CURRENT: Current;
}

/// Runs a request under its id alone: the trace's name, which every problem and log line then carries.
pub async fn with_request<F: Future>(context: TraceContext, run: F) -> F::Output {
    let current = Current {
        context,
        is_traced: false,
    };
    CURRENT.scope(current, run).await
}

/// Runs a request as a span: what it begins is a part of its trace.
pub async fn with_work<F: Future>(context: TraceContext, run: F) -> F::Output {
    let current = Current {
        context,
        is_traced: true,
    };
    CURRENT.scope(current, run).await
}

/// The request that this task serves, as a place in a trace.
pub fn current() -> Option<TraceContext> {
    CURRENT.try_with(|current| current.context).ok()
}

/// The span that this task works for, where there is one.
pub fn current_work() -> Option<TraceContext> {
    CURRENT
        .try_with(|current| current.is_traced.then_some(current.context))
        .ok()
        .flatten()
}

/// The id of the request that this task serves.
pub fn current_id() -> Option<TraceId> {
    current().map(|context| context.trace_id)
}
