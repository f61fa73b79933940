//! Messages go to standard error, where the service manager picks them up.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::{LogFormat, LogLevel};

/// Starts logging; a second call changes nothing.
pub fn start(level: LogLevel, format: LogFormat) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    // Libraries are of interest only when they complain: their details may hold what is none of the log's business.
    let targets = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("muster", level);
    let plain = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false);
    let registry = tracing_subscriber::registry().with(targets);
    // Fails only when logging was started before.
    let _ = match format {
        LogFormat::Text => registry.with(plain).try_init(),
        LogFormat::Json => registry.with(plain.json().flatten_event(true)).try_init(),
    };
}
