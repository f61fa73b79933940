//! Logs on standard error: readable on a terminal, JSON lines elsewhere. No secret, no personal data, no raw body.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Starts logging; `quiet` programs say warnings only.
pub fn start(quiet: bool) {
    let level = if quiet {
        LevelFilter::WARN
    } else {
        LevelFilter::INFO
    };
    let registry = tracing_subscriber::registry().with(level);
    let terminal = std::io::stderr().is_terminal();
    let plain = fmt::layer().with_writer(std::io::stderr).with_target(false);
    if terminal {
        registry.with(plain.compact()).init();
    } else {
        registry.with(plain.json().flatten_event(true)).init();
    }
}
