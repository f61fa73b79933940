//! Names of traces and spans, and which traces are kept.

use muster_model::telemetry::{SpanId, TraceId};

use crate::clock;

/// A new span's name, from the operating system's generator.
pub fn new_span_id() -> SpanId {
    loop {
        if let Some(id) = SpanId::from_bytes(clock::random()) {
            return id;
        }
    }
}

/// A new trace's name. All of it is random, as AWS X-Ray and level 2 of the W3C's specification want it.
pub fn new_trace_id() -> TraceId {
    loop {
        if let Some(id) = TraceId::from_bytes(clock::random()) {
            return id;
        }
    }
}

/// Whether a trace is among the share that is kept. Every program that goes by the lower 56 bits of the name, as OpenTelemetry's
/// `TraceIdRatioBased` does, keeps the same ones.
pub fn is_in_ratio(id: TraceId, ratio: f64) -> bool {
    const STEPS: u64 = 1 << 56;
    let mut low = [0; 8];
    low[1..].copy_from_slice(&id.as_bytes()[9..]);
    let bound = (ratio.clamp(0.0, 1.0) * STEPS as f64) as u64;
    u64::from_be_bytes(low) < bound
}
