//! `cargo xtask bench NAME`: whole-system figures of the release build.
//!
//! Each benchmark starts the real `muster serve` in a temporary folder and drives it with `muster farm` or with the
//! hidden `muster load …`, over the real listeners. Nothing is measured inside the server.

mod agent_telemetry;
mod attest;
mod authz;
mod checkin;
mod command;
mod compile;
mod compliance;
mod enroll;
mod idle;
mod log;
mod process;
mod query;
mod queue;
mod report;
mod rollout;
mod scim;
mod server;
mod siem;
mod telemetry;

use anyhow::Result;

use crate::workspace::{Profile, Programs, Scope};

/// The gauge of connected devices on `/metrics`.
const DEVICES_CONNECTED: &str = "mdm_devices_connected";
/// How long a fleet may take to enroll and connect.
const CONNECT_SECONDS_MAX: u64 = 900;

/// What to measure.
#[derive(clap::Args)]
pub struct Options {
    /// Which benchmark
    name: Name,
    /// How many simulated devices (each benchmark has its own default)
    #[arg(long)]
    devices: Option<u32>,
    /// How long each measuring phase lasts
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Name {
    /// Up-to-date check-ins per second and processor time per check-in
    Checkin,
    /// API call to receipt, with connected devices
    Command,
    /// A new policy to connected devices, until every report is in
    Rollout,
    /// One command for every device of a fleet: accepted, made, answered
    Queue,
    /// Memory and processor time per connected idle device
    Idle,
    /// Enrollments per second with a TPM, a software key and the token alone
    Enroll,
    /// Verifications of hardware proofs per second and core
    Attest,
    /// Ten rules over a million devices on one core
    Compliance,
    /// Policies compiled per second for each platform
    Compile,
    /// What a day of telemetry costs a device: processor, memory, wire
    AgentTelemetry,
    /// Appends to the log per second, and how long an entry waits for its checkpoint
    Log,
    /// Windows of telemetry per second and bytes for each, and questions, beside VictoriaMetrics
    Telemetry,
    /// People that an identity provider sends per second
    Scim,
    /// Questions over 100,000 devices, beside SQLite asking the same over the same rows
    Query,
    /// Events of the log that leave for each kind of sink per second
    Siem,
    /// Nanoseconds of one decision about scopes, roles and claims
    Authz,
    /// All of them
    All,
}

/// Builds the release programs and runs one benchmark, or all.
pub fn run(options: &Options) -> Result<bool> {
    let Some(programs) = Programs::build(Profile::Release, Scope::Programs)? else {
        return Ok(false);
    };
    let wants = |name: Name| options.name == name || options.name == Name::All;
    if wants(Name::Checkin) {
        checkin::run(&programs, options)?;
    }
    if wants(Name::Command) {
        command::run(&programs, options)?;
    }
    if wants(Name::Rollout) {
        rollout::run(&programs, options)?;
    }
    if wants(Name::Queue) {
        queue::run(&programs, options)?;
    }
    if wants(Name::Idle) {
        idle::run(&programs, options)?;
    }
    if wants(Name::Enroll) {
        enroll::run(&programs, options)?;
    }
    if wants(Name::Attest) {
        attest::run(&programs, options)?;
    }
    if wants(Name::Compliance) {
        compliance::run(&programs, options)?;
    }
    if wants(Name::Compile) {
        compile::run(&programs, options)?;
    }
    if wants(Name::AgentTelemetry) {
        agent_telemetry::run(&programs)?;
    }
    if wants(Name::Log) {
        log::run(&programs, options)?;
    }
    if wants(Name::Scim) {
        scim::run(&programs, options)?;
    }
    if wants(Name::Siem) {
        siem::run(&programs, options)?;
    }
    if wants(Name::Telemetry) {
        telemetry::run(&programs, options)?;
    }
    if wants(Name::Query) {
        query::run()?;
    }
    if wants(Name::Authz) {
        authz::run(&programs)?;
    }
    Ok(true)
}
