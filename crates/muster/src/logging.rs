//! Logs on standard error: readable on a terminal, JSON lines elsewhere. No secret, no personal data, no raw body. A line that is
//! said while a request is answered names its trace.

use std::{fmt, io::IsTerminal, str::FromStr};

use muster_control::trace;
use serde::Deserialize;
use tracing::{Event, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, JsonFields, Writer},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Json,
    Text,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<LogFormat, String> {
        match text {
            "json" => Ok(LogFormat::Json),
            "text" => Ok(LogFormat::Text),
            _ => Err("neither json nor text".to_owned()),
        }
    }
}

/// Starts logging; `quiet` programs say warnings only.
pub fn start(quiet: bool, format: Option<LogFormat>) {
    let level = if quiet {
        LevelFilter::WARN
    } else {
        LevelFilter::INFO
    };
    let registry = tracing_subscriber::registry().with(level);
    let is_terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if is_terminal {
        LogFormat::Text
    } else {
        LogFormat::Json
    });
    let plain = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal);
    match format {
        LogFormat::Text => {
            let inner = Format::default().compact().with_target(false);
            let traced = Traced { inner, format };
            registry.with(plain.event_format(traced)).init();
        }
        LogFormat::Json => {
            let inner = Format::default().json().with_target(false).flatten_event(true);
            let traced = Traced { inner, format };
            let plain = plain.fmt_fields(JsonFields::new()).event_format(traced);
            registry.with(plain).init();
        }
    }
}

/// Adds the trace to a line of another format.
struct Traced<F> {
    inner: F,
    format: LogFormat,
}

impl<S, N, F> FormatEvent<S, N> for Traced<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(current) = trace::current() else {
            return self.inner.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end_matches('\n');
        let (trace_id, span_id) = (current.trace_id, current.span_id);
        match (self.format, line.strip_suffix('}')) {
            (LogFormat::Json, Some(open)) => {
                writeln!(
                    writer,
                    r#"{open},"trace_id":"{trace_id}","span_id":"{span_id}"}}"#
                )
            }
            (LogFormat::Json | LogFormat::Text, _) => {
                writeln!(writer, "{line} trace_id={trace_id} span_id={span_id}")
            }
        }
    }
}
