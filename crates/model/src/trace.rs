//! Which trace a piece of work belongs to (W3C Trace Context, <https://www.w3.org/TR/trace-context/>).

use std::fmt;

use crate::telemetry::{SpanId, TraceId};

/// Bytes of a `traceparent` of version 00, the only one that is written.
pub const TRACEPARENT_BYTES: usize = 55;
/// Longest `traceparent` that is read: a later version may append fields to those of version 00.
pub const TRACEPARENT_BYTES_MAX: usize = 256;
/// Longest `tracestate` that is kept (section 3.3.1.5 asks for at least this).
pub const TRACESTATE_BYTES_MAX: usize = 512;

/// The flag of a trace whose spans are recorded (section 3.2.2.5.1).
const SAMPLED: u8 = 1;

/// A place in a trace: what is done next is its child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceContext {
    pub trace_id: TraceId,
    /// The span that is under way.
    pub span_id: SpanId,
    /// Whether the spans of this trace are kept.
    pub is_sampled: bool,
}

impl TraceContext {
    /// Reads a `traceparent` (section 3.2); nothing where it is not one. A later version is read as far as version 00 goes.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > TRACEPARENT_BYTES_MAX || !text.is_ascii() {
            return None;
        }
        let mut fields = text.split('-');
        let version = hex_byte(fields.next()?)?;
        let (trace_id, span_id) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let flags = hex_byte(fields.next()?)?;
        let has_more = fields.next().is_some();
        if version == 0xff || (version == 0 && has_more) {
            return None;
        }
        Some(Self {
            trace_id,
            span_id,
            is_sampled: flags & SAMPLED != 0,
        })
    }

    /// Another span of the same trace.
    pub fn at(self, span_id: SpanId) -> Self {
        Self { span_id, ..self }
    }
}

/// As a `traceparent` of version 00.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = if self.is_sampled { SAMPLED } else { 0 };
        write!(f, "00-{}-{}-{flags:02x}", self.trace_id, self.span_id)
    }
}

/// Two digits; capital letters are not allowed (section 3.2.2).
fn hex_byte(text: &str) -> Option<u8> {
    let is_written_so = text.len() == 2 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_written_so.then(|| u8::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_reads_back() {
        let context = TraceContext::parse(GIVEN).expect("it is one");
        assert!(context.is_sampled);
        assert_eq!(context.to_string(), GIVEN);
        assert_eq!(GIVEN.len(), TRACEPARENT_BYTES);
        let quiet = GIVEN.replace("-01", "-00");
        assert!(!TraceContext::parse(&quiet).expect("it is one").is_sampled);
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        for later in [
            GIVEN.replacen("00", "cc", 1),
            format!("{}-what-the", GIVEN.replacen("00", "01", 1)),
        ] {
            let context = TraceContext::parse(&later).expect("the first four fields are there");
            assert_eq!(context.to_string(), GIVEN);
        }
    }

    #[test]
    fn what_is_no_traceparent_is_nothing() {
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-+1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            &format!(
                "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-{}",
                "x".repeat(300)
            ),
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in ".{0,300}") {
            let _ = TraceContext::parse(&text);
        }

        #[test]
        fn what_is_read_is_written_alike(version in "[0-9a-f]{2}", trace in "[0-9a-f]{32}", span in "[0-9a-f]{16}", flags in "[0-9a-f]{2}") {
            let text = format!("{version}-{trace}-{span}-{flags}");
            if let Some(context) = TraceContext::parse(&text) {
                prop_assert_eq!(TraceContext::parse(&context.to_string()), Some(context));
            }
        }
    }
}
