//! The program `muster`: the server, its maintenance verbs, the farm, and the command line client.

/// Prints a line. Whoever closed the pipe has read enough: that is no reason to end, least of all for a server.
macro_rules! say {
    () => { say!("") };
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod admin_file;
mod bench_log;
mod ca;
mod config;
mod custody;
mod doctor;
mod install;
mod limits;
mod listeners;
mod logging;
mod ops;
mod otlp;
mod policy_test;
mod proxy_certificate;
mod public_certificate;
mod secrets;
mod seed;
mod serve;
mod witness;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Manage a fleet of devices that obey signatures, not servers.
#[derive(Debug, Parser)]
#[command(name = "muster", version, after_help = EXAMPLES)]
struct Program {
    #[command(flatten)]
    globals: muster_cli::Globals,
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "Examples:
  muster serve --data-dir ./data --farm 25      a control plane with 25 simulated devices
  muster device list --admin-file ./data/admin.json
  muster log verify --data-dir ./data";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the control plane
    Serve(Box<serve::ServeArgs>),
    /// Check every invariant of an install; exit code 0 or 1
    Doctor(Box<doctor::DoctorArgs>),
    /// Tenants of an installation: make them, pause them, take them away, end them
    #[command(subcommand)]
    Tenant(install::TenantCommand),
    ProxyCertificate(proxy_certificate::ProxyCertificateArgs),
    /// Replace a certificate authority; its root key stays offline
    #[command(subcommand)]
    Ca(ca::CaCommand),
    /// Cosign the checkpoints of logs, on another machine than the server
    Witness(witness::WitnessArgs),
    /// Run simulated devices against a control plane
    Farm(muster_farm::FarmArgs),
    /// Put load on a control plane, for benchmarks
    #[command(hide = true)]
    Load(muster_farm::LoadArgs),
    /// Measure the log in this process, for benchmarks
    #[command(hide = true)]
    BenchLog(bench_log::BenchLogArgs),
    /// Measure decisions about access in this process, for benchmarks
    #[command(hide = true)]
    BenchAuthz {
        /// How often each is made in a round
        #[arg(long, default_value_t = 200_000)]
        times: u32,
    },
    /// Print the OpenAPI document of the admin API
    Openapi,
    #[command(flatten)]
    Client(Box<muster_cli::Command>),
}

fn main() -> ExitCode {
    let mut program = Program::parse();
    program.globals.program = Some(Program::command());
    let quiet = !matches!(program.verb, Verb::Serve(_) | Verb::Witness(_));
    let format = match &program.verb {
        Verb::Serve(args) => args.log_format(),
        _ => None,
    };
    logging::start(quiet, format);
    limits::raise_open_files();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::Error::from(error)),
    };
    let code = runtime.block_on(run(program));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    code
}

async fn run(program: Program) -> ExitCode {
    let result = match program.verb {
        Verb::Serve(args) => serve::run(*args).await,
        Verb::Doctor(args) => return doctor::run(*args).await,
        Verb::Tenant(command) => return install::tenant(command, program.globals).await,
        Verb::ProxyCertificate(args) => proxy_certificate::run(args),
        Verb::Ca(command) => ca::run(command).await,
        Verb::Witness(args) => witness::run(args).await,
        Verb::Farm(args) => muster_farm::run_program(args).await.map_err(anyhow::Error::from),
        Verb::Load(args) => muster_farm::run_load(args).await.map_err(anyhow::Error::from),
        Verb::BenchLog(args) => bench_log::run(args).await,
        Verb::BenchAuthz { times } => {
            let costs = muster_control::access::measure_costs(times.max(1));
            say!("{}", serde_json::json!(costs));
            Ok(())
        }
        Verb::Openapi => openapi(),
        Verb::Client(command) => {
            if let Some(data_dir) = command.local_log_verification() {
                return doctor::verify_logs(data_dir).await;
            }
            if let Some(args) = command.policy_test() {
                return policy_test::run(args, &program.globals).await;
            }
            return muster_cli::run(*command, program.globals).await;
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn openapi() -> anyhow::Result<()> {
    say!("{}", muster_control::openapi::document().to_pretty_json()?);
    Ok(())
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("muster: {error:#}");
    ExitCode::FAILURE
}
