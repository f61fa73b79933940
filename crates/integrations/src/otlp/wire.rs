//! The message of an export: `opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest`, as
//! <https://github.com/open-telemetry/opentelemetry-proto> of version 1 numbers its fields.

use muster_control::trace::{Kind, Source, Span, Value};
use muster_model::Timestamp;

use crate::protobuf::{Content, bytes, fixed32, fixed64, integer, next_field};

/// The name under which devices' spans are shown: nothing that a device says changes it.
const DEVICE_SERVICE: &str = "muster-agent";
/// Who made the spans, as a scope.
const SCOPE: &str = "muster";
/// `STATUS_CODE_ERROR`.
const STATUS_ERROR: u64 = 2;
/// The flag of W3C Trace Context for a trace that is kept.
const SAMPLED: u32 = 1;

/// This process, as traces name it.
#[derive(Debug, Clone)]
pub struct Resource {
    pub service_name: String,
    pub service_version: String,
    pub service_instance: String,
}

/// `ExportTraceServiceRequest { repeated ResourceSpans resource_spans = 1; }`, `ResourceSpans { Resource resource = 1; repeated
/// ScopeSpans scope_spans = 2; }`: one for this process and one for each device.
pub fn request(server: &Resource, spans: &[Span]) -> Vec<u8> {
    let mut sources: Vec<Source> = Vec::new();
    for span in spans {
        if !sources.contains(&span.source) {
            sources.push(span.source);
        }
    }
    let mut out = Vec::new();
    for source in sources {
        let mut content = Vec::new();
        bytes(&mut content, 1, &resource(server, source));
        let of_source = spans.iter().filter(|span| span.source == source);
        bytes(&mut content, 2, &scope_spans(of_source));
        bytes(&mut out, 1, &content);
    }
    out
}

/// `Resource { repeated KeyValue attributes = 1; }`
fn resource(server: &Resource, source: Source) -> Vec<u8> {
    let text = |text: &str| Value::from(text);
    let attributes = match source {
        Source::Server => vec![
            ("service.name", text(&server.service_name)),
            ("service.version", text(&server.service_version)),
            ("service.instance.id", text(&server.service_instance)),
        ],
        Source::Device(device) => vec![
            ("service.name", text(DEVICE_SERVICE)),
            ("service.instance.id", text(&device.to_string())),
            ("device.id", text(&device.to_string())),
            // A device's word about itself, passed on by the server that knows it.
            ("muster.source", text("device")),
        ],
    };
    let mut out = Vec::new();
    for (name, value) in &attributes {
        bytes(&mut out, 1, &key_value(name, value));
    }
    out
}

/// `ScopeSpans { InstrumentationScope scope = 1; repeated Span spans = 2; }`, `InstrumentationScope { string name = 1; }`
fn scope_spans<'a>(spans: impl Iterator<Item = &'a Span>) -> Vec<u8> {
    let (mut out, mut scope) = (Vec::new(), Vec::new());
    bytes(&mut scope, 1, SCOPE.as_bytes());
    bytes(&mut out, 1, &scope);
    for one in spans {
        bytes(&mut out, 2, &span(one));
    }
    out
}

/// `Span { bytes trace_id = 1; bytes span_id = 2; string trace_state = 3; bytes parent_span_id = 4; string name = 5; SpanKind kind
/// = 6; fixed64 start_time_unix_nano = 7; fixed64 end_time_unix_nano = 8; repeated KeyValue attributes = 9; Status status = 15;
/// fixed32 flags = 16; }`, `Status { string message = 2; StatusCode code = 3; }`
fn span(span: &Span) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    bytes(&mut out, 1, span.context.trace_id.as_bytes());
    bytes(&mut out, 2, span.context.span_id.as_bytes());
    if let Some(state) = &span.trace_state {
        bytes(&mut out, 3, state.as_bytes());
    }
    if let Some(parent) = &span.parent {
        bytes(&mut out, 4, parent.as_bytes());
    }
    bytes(&mut out, 5, span.name.as_bytes());
    integer(&mut out, 6, kind(span.kind));
    fixed64(&mut out, 7, nanoseconds(span.started_at));
    fixed64(&mut out, 8, nanoseconds(span.ended_at));
    for (name, value) in &span.attributes {
        bytes(&mut out, 9, &key_value(name, value));
    }
    if let Some(error) = &span.error {
        let is_known = span.attributes.iter().any(|(name, _)| *name == "error.type");
        if !is_known {
            bytes(
                &mut out,
                9,
                &key_value("error.type", &Value::from(error.as_str())),
            );
        }
        let mut status = Vec::new();
        bytes(&mut status, 2, error.as_bytes());
        integer(&mut status, 3, STATUS_ERROR);
        bytes(&mut out, 15, &status);
    }
    fixed32(&mut out, 16, if span.context.is_sampled { SAMPLED } else { 0 });
    out
}

/// `KeyValue { string key = 1; AnyValue value = 2; }`, `AnyValue { oneof { string string_value = 1; int64 int_value = 3; } }`
fn key_value(name: &str, value: &Value) -> Vec<u8> {
    let (mut out, mut any) = (Vec::new(), Vec::new());
    match value {
        Value::Text(text) => bytes(&mut any, 1, text.as_bytes()),
        Value::Number(number) => integer(&mut any, 3, number.cast_unsigned()),
    }
    bytes(&mut out, 1, name.as_bytes());
    bytes(&mut out, 2, &any);
    out
}

/// `SpanKind`.
fn kind(kind: Kind) -> u64 {
    match kind {
        Kind::Internal => 1,
        Kind::Server => 2,
        Kind::Client => 3,
        Kind::Producer => 4,
        Kind::Consumer => 5,
    }
}

fn nanoseconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_micros()).unwrap_or(0).saturating_mul(1000)
}

/// How many spans the collector did not want: `ExportTraceServiceResponse { ExportTracePartialSuccess partial_success = 1; }`,
/// `ExportTracePartialSuccess { int64 rejected_spans = 1; }`. What cannot be read says nothing.
pub fn rejected(mut answer: &[u8]) -> u64 {
    while let Some((field, content)) = next_field(&mut answer) {
        let Content::Bytes(mut partial) = content else {
            continue;
        };
        if field != 1 {
            continue;
        }
        while let Some((field, content)) = next_field(&mut partial) {
            if let (1, Content::Integer(count)) = (field, content) {
                return u64::try_from(count.cast_signed()).unwrap_or(0);
            }
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use muster_model::{DeviceId, TraceContext};
    use proptest::prelude::*;

    use super::*;

    fn one(source: Source) -> Span {
        let context = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
            .expect("a context");
        let at = Timestamp::from_unix_seconds(1_800_000_000);
        Span {
            source,
            ..Span::child(context, "a", Kind::Internal, at)
        }
    }

    fn fields(mut message: &[u8], wanted: u64) -> Vec<&[u8]> {
        let mut found = Vec::new();
        while let Some((field, content)) = next_field(&mut message) {
            if let (true, Content::Bytes(content)) = (field == wanted, content) {
                found.push(content);
            }
        }
        found
    }

    #[test]
    fn each_source_is_a_resource_of_its_own() {
        let server = Resource {
            service_name: "muster".to_owned(),
            service_version: "1".to_owned(),
            service_instance: "n".to_owned(),
        };
        let device = |number| Source::Device(DeviceId::from_uuid(uuid::Uuid::from_u128(number)));
        let spans = [
            one(Source::Server),
            one(device(1)),
            one(device(2)),
            one(Source::Server),
        ];
        let message = request(&server, &spans);
        let resources = fields(&message, 1);
        assert_eq!(resources.len(), 3);
        let counts: Vec<usize> = resources
            .iter()
            .map(|resource| fields(fields(resource, 2)[0], 2).len())
            .collect();
        assert_eq!(counts, [2, 1, 1]);
    }

    #[test]
    fn what_the_collector_did_not_want_is_counted() {
        assert_eq!(rejected(&[]), 0);
        assert_eq!(rejected(&[0x0a, 0x02, 0x08, 0x05]), 5);
        assert_eq!(rejected(&[0x0a, 0x00]), 0);
    }

    proptest! {
        #[test]
        fn no_answer_breaks_the_reader(answer in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = rejected(&answer);
        }
    }
}
