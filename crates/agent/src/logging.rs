//! Messages go to standard error, where the service manager picks them up.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::LogLevel;

/// Starts logging; a second call changes nothing.
pub fn start(level: LogLevel) {
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
    let format = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false);
    // Fails only when logging was started before.
    let _ = tracing_subscriber::registry()
        .with(targets)
        .with(format)
        .try_init();
}
