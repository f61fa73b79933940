//! The device agent of Muster: enrolls this machine, keeps it in the state that its organization has signed, and executes
//! what its organization has signed and logged. It obeys signatures, not servers.
//!
//! * [`cli`]: the command line. [`enroll`], [`run`], [`status`], [`compliance_token`], [`export`]: its commands.
//! * [`device_key`] and [`tpm`]: what signs.
//! * [`link`] and [`tls`]: the wire. [`spool`]: the disk. [`telemetry`]: what is measured. `os`: the machine. [`sandbox`]: what the process may touch.
//! * What is decided is decided in `muster-channel-agent`'s device core, without I/O.

pub mod cli;
pub mod compliance_token;
pub mod departure;
pub mod device_key;
pub mod enroll;
pub mod error;
pub mod export;
pub mod identity;
pub mod link;
mod logging;
pub mod machine_clock;
pub mod os;
pub mod run;
pub mod sandbox;
pub mod spool;
pub mod status;
mod stop;
pub mod telemetry;
pub mod tls;
pub mod tpm;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;

use cli::{Cli, Command};
use error::AgentError;

/// The version that check-ins report.
pub const AGENT_VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long work on the machine may hold up the end of the process. What it cuts off is found in the spool at the next
/// start.
const STOP_TIME_MAX: Duration = Duration::from_secs(3);

/// The whole program. clap ends usage errors with exit code 2 and help with 0.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::start(cli.log_level, cli.log_format);
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("muster-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<(), AgentError> {
    match command {
        Command::Enroll(arguments) => {
            let identity = block_on(enroll::enroll(&arguments))??;
            println!("enrolled as {} of {}", identity.device_id, identity.tenant);
            let key = device_key::DeviceKey::load(&arguments.state_dir)?;
            println!(
                "the key is in {key}; attestation: {}",
                identity.attestation.as_str()
            );
            first_checkin(&arguments.state_dir);
            Ok(())
        }
        Command::Run(arguments) => {
            let agent = run::Agent::open(&arguments.state_dir)?;
            agent.enter_sandbox();
            block_on(async {
                agent
                    .run(stop::Stop::on_signals().map_err(AgentError::Start)?)
                    .await
            })?
        }
        Command::Status(arguments) => status::print(&arguments),
        Command::BenchTelemetry(arguments) => {
            let report = telemetry::day::measure(&arguments.state_dir)
                .map_err(|error| AgentError::Start(std::io::Error::other(error)))?;
            println!("{}", serde_json::json!(report));
            Ok(())
        }
        Command::ComplianceToken(arguments) => block_on(compliance_token::print(&arguments))?,
        Command::Export(arguments) => {
            for path in export::export(&arguments)? {
                println!("{}", path.display());
            }
            Ok(())
        }
    }
}

/// Delivers the first settings within the enrollment. The machine is enrolled whatever comes of it.
fn first_checkin(state_dir: &Path) {
    let checkin = || -> Result<run::FirstCheckin, String> {
        let agent = run::Agent::open(state_dir).map_err(|error| error.to_string())?;
        agent.enter_sandbox();
        block_on(agent.check_in_once()).map_err(|error| error.to_string())?
    };
    match checkin() {
        Ok(run::FirstCheckin { settings: 0, .. }) => {
            println!("first check-in: the server has no settings for this machine yet")
        }
        Ok(run::FirstCheckin {
            settings,
            news: false,
        }) => println!("first check-in: settings in force: {settings}"),
        Ok(run::FirstCheckin { settings, news: true }) => {
            println!(
                "first check-in: settings in force: {settings}; the report goes out with `muster-agent run`"
            );
        }
        Err(error) => println!("first check-in: not finished ({error}); `muster-agent run` goes on"),
    }
}

/// One thread for everything asynchronous; blocking work on the machine gets threads of its own, which inherit the
/// sandbox.
fn block_on<T>(work: impl Future<Output = T>) -> Result<T, AgentError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(3)
        .thread_keep_alive(Duration::from_secs(2))
        .build()
        .map_err(AgentError::Start)?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(STOP_TIME_MAX);
    Ok(result)
}
