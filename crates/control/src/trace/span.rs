//! A span as it is recorded (OpenTelemetry trace specification).

use std::borrow::Cow;

use muster_model::{DeviceId, Timestamp, TraceContext, telemetry::SpanId};

use super::ids::new_span_id;

/// Longest text of an attribute, in bytes; the rest is cut off.
const TEXT_BYTES_MAX: usize = 256;

/// Whose word a span is. A collector sees it as the resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// This process.
    Server,
    /// A device says so.
    Device(DeviceId),
}

/// How a span stands to its neighbors (OpenTelemetry trace specification, "SpanKind").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Internal,
    Server,
    Client,
    Producer,
    Consumer,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::from(text.as_str())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Number(number)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// A piece of work. It counts when it is handed to [`super::Traces::finish`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub source: Source,
    pub context: TraceContext,
    pub parent: Option<SpanId>,
    /// What callers of other vendors pass along (W3C Trace Context section 3.3); of the span that came over the wire alone.
    pub trace_state: Option<String>,
    pub name: Cow<'static, str>,
    pub kind: Kind,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    pub attributes: Vec<(&'static str, Value)>,
    /// A stable code where it failed.
    pub error: Option<String>,
}

impl Span {
    /// A span of this process with a name of its own, under the one that is given.
    pub fn child(parent: TraceContext, name: &'static str, kind: Kind, started_at: Timestamp) -> Span {
        Span {
            source: Source::Server,
            context: parent.at(new_span_id()),
            parent: Some(parent.span_id),
            trace_state: None,
            name: Cow::Borrowed(name),
            kind,
            started_at,
            ended_at: started_at,
            attributes: Vec::new(),
            error: None,
        }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Span {
        self.attributes.push((name, value.into()));
        self
    }

    pub fn failed(mut self, code: &str) -> Span {
        self.error = Some(code.to_owned());
        self
    }

    pub fn until(mut self, ended_at: Timestamp) -> Span {
        self.ended_at = ended_at.max(self.started_at);
        self
    }
}
