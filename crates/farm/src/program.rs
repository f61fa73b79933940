//! The command line of the farm and of the load.

use std::path::PathBuf;
use std::time::Duration;

use crate::admin::read_file;
use crate::faults::{Conditions, Disorder, ModelFault};
use crate::load::{
    self, CommandLoad, EnrollLoad, Enrollment, LoadOptions, QueueLoad, RolloutLoad, ScimLoad, SiemLoad,
    Target, TelemetryLoad,
};
use crate::scenario::Scenario;
use crate::telemetry::{HISTORY_DAYS_MAX, Pace};
use crate::{FarmError, FarmOptions};

/// Connections that make entries of the log.
const SIEM_CONNECTIONS: u32 = 16;

/// `muster farm …`
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  muster farm --admin-file data/admin.json --devices 100 --seed 7\n  muster farm \
    --admin-file data/admin.json --devices 1000 --silent-rate 0.3 --scenario outage.toml --duration 600\n\nThe same seed \
    against the same install is the same fleet: identities, facts and faults. Ctrl-C ends it with a summary."
)]
pub struct FarmArgs {
    /// Address and credentials of the install: its `admin.json`
    #[arg(long, value_name = "FILE", env = "MUSTER_ADMIN_FILE")]
    pub admin_file: Option<PathBuf>,
    /// How many devices
    #[arg(long, value_name = "N", env = "MUSTER_FARM_DEVICES")]
    pub devices: u32,
    /// Which fleet
    #[arg(long, value_name = "S", default_value_t = 1, env = "MUSTER_FARM_SEED")]
    pub seed: u64,
    /// Part of the devices on which some setting fails
    #[arg(long, value_name = "RATE", default_value_t = 0.02, value_parser = rate, env = "MUSTER_FARM_FAIL_RATE")]
    pub fail_rate: f64,
    /// Part of the devices that enroll and are never heard of again
    #[arg(long, value_name = "RATE", default_value_t = 0.0, value_parser = rate, env = "MUSTER_FARM_SILENT_RATE")]
    pub silent_rate: f64,
    /// A setting that fails on a part of the devices of one model: MODEL:SETTING=RATE; may be given again
    #[arg(long = "fault", value_name = "FAULT", value_parser = ModelFault::parse, env = "MUSTER_FARM_FAULT")]
    pub faults: Vec<ModelFault>,
    /// Part of the devices that take seconds for everything
    #[arg(long, value_name = "RATE", default_value_t = 0.0, value_parser = rate,
          env = "MUSTER_FARM_SLOW_RATE")]
    pub slow_rate: f64,
    /// Part of the check-ins that are sent twice
    #[arg(long, value_name = "RATE", default_value_t = Disorder::TYPICAL.duplicate_rate, value_parser = rate,
          env = "MUSTER_FARM_DUPLICATE_RATE")]
    pub duplicate_rate: f64,
    /// Part of the check-ins whose answer is taken after the next one's
    #[arg(long, value_name = "RATE", default_value_t = Disorder::TYPICAL.reorder_rate, value_parser = rate,
          env = "MUSTER_FARM_REORDER_RATE")]
    pub reorder_rate: f64,
    /// Part of the commands that meet a busy device, which answers not now
    #[arg(long, value_name = "RATE", default_value_t = 0.0, value_parser = rate,
          env = "MUSTER_FARM_NOT_NOW_RATE")]
    pub not_now_rate: f64,
    /// Part of the devices that are their users' own (BYOD)
    #[arg(long, value_name = "RATE", default_value_t = 0.0, value_parser = rate,
          env = "MUSTER_FARM_PERSONAL_RATE")]
    pub personal_rate: f64,
    /// Time between two uploads of a device's telemetry; 0 is none
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 300,
        value_parser = clap::value_parser!(u64).range(..=86_400),
        env = "MUSTER_FARM_TELEMETRY_INTERVAL"
    )]
    pub telemetry_interval: u64,
    /// Days before now that the first upload tells of
    #[arg(long, value_name = "DAYS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=i64::from(HISTORY_DAYS_MAX)),
          env = "MUSTER_FARM_TELEMETRY_HISTORY")]
    pub telemetry_history: u32,
    /// How conditions change: a TOML file of phases with at_seconds, fail_rate, silent_rate, offline
    #[arg(long, value_name = "FILE", env = "MUSTER_FARM_SCENARIO")]
    pub scenario: Option<PathBuf>,
    /// End after this time
    #[arg(long, value_name = "SECONDS", env = "MUSTER_FARM_DURATION")]
    pub duration: Option<u64>,
    /// Keep the devices here, so that the next farm goes on with them
    #[arg(long, value_name = "DIR", env = "MUSTER_FARM_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
}

/// `muster load …`: prints `measuring` when its figures begin, and its report as one line of JSON at the end.
#[derive(Clone, Debug, clap::Args)]
pub struct LoadArgs {
    /// What is sent
    #[arg(value_enum)]
    pub kind: LoadKind,
    /// Address and credentials of the install: its `admin.json`
    #[arg(long, value_name = "FILE", env = "MUSTER_ADMIN_FILE")]
    pub admin_file: Option<PathBuf>,
    /// How many connections, each a device of its own; for `command` how many devices get commands in turn
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub devices: u32,
    /// How long is measured; for `telemetry` how many tens of batches each device has
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub seconds: u64,
    /// For `telemetry`: origin of a VictoriaMetrics that gets the same windows, and is asked the same
    #[arg(long, value_name = "URL")]
    pub beside: Option<String>,
}

/// What the load sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LoadKind {
    /// The listener's cheapest answer.
    Constant,
    /// Check-ins of devices that are up to date.
    Checkin,
    /// Commands through the admin API, one at a time, each until its receipt.
    Command,
    /// A new policy for the connected devices, until every report is in; `--seconds` is for the peer.
    Rollout,
    /// One command for every device, until those that are connected (`--devices`) have answered; `--seconds` is for the peer.
    Queue,
    /// People by SCIM: made, looked for, put in a group, deactivated, on `--devices` connections.
    Scim,
    /// `--devices` thousand entries of the log, sent to one sink after the other, each with its other side here.
    Siem,
    /// Batches of telemetry, as fast as they are taken, until all are merged.
    Telemetry,
    /// Enrollments with a key in a simulated TPM; the tenant is told to trust the TPMs of this load.
    EnrollTpm,
    /// Enrollments with a software key.
    EnrollKey,
    /// The first call of enrollments: the token is checked, a session opened.
    EnrollToken,
    /// Mutually authenticated handshakes, each with one more signature.
    Handshake,
    /// Verifications of hardware proofs in this process; needs no server.
    Attest,
    /// Ten rules over `--devices` devices in this process; needs no server.
    Compliance,
    /// Compilations of a policy for each platform in this process; needs no server.
    Compile,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&rate) {
        Ok(rate)
    } else {
        Err("a rate is from 0 to 1".to_owned())
    }
}

fn admin_file(given: Option<PathBuf>) -> Result<PathBuf, FarmError> {
    given.ok_or_else(|| FarmError::Options("say which install: --admin-file DIR/admin.json".to_owned()))
}

/// Runs `muster farm` until Ctrl-C, SIGTERM or its duration, and prints the summary.
pub async fn run_program(arguments: FarmArgs) -> Result<(), FarmError> {
    let scenario = match &arguments.scenario {
        None => None,
        Some(path) => {
            let text = String::from_utf8(read_file(path)?).map_err(|error| FarmError::Content {
                path: path.clone(),
                detail: error.to_string(),
            })?;
            Some(Scenario::parse(&text)?)
        }
    };
    let FarmArgs {
        slow_rate,
        duplicate_rate,
        reorder_rate,
        not_now_rate,
        personal_rate,
        ..
    } = arguments;
    let options = FarmOptions {
        admin_file: admin_file(arguments.admin_file)?,
        devices: arguments.devices,
        seed: arguments.seed,
        conditions: Conditions {
            fail_rate: arguments.fail_rate,
            silent_rate: arguments.silent_rate,
            faults: arguments.faults,
            ..Conditions::CALM
        },
        disorder: Disorder {
            slow_rate,
            duplicate_rate,
            reorder_rate,
            not_now_rate,
            personal_rate,
        },
        scenario,
        duration: arguments.duration.map(Duration::from_secs),
        state_dir: arguments.state_dir,
        has_progress: true,
        telemetry: (arguments.telemetry_interval > 0).then(|| Pace {
            interval: Duration::from_secs(arguments.telemetry_interval),
            history_days: arguments.telemetry_history,
        }),
    };
    let summary = crate::run(options, stop()).await?;
    if arguments.json {
        print_line(&serde_json::to_string(&summary).map_err(|error| FarmError::Load(error.to_string()))?);
    } else {
        print_line(&summary.to_string());
    }
    Ok(())
}

/// Runs `muster load`.
pub async fn run_load(arguments: LoadArgs) -> Result<(), FarmError> {
    let duration = Duration::from_secs(arguments.seconds.max(1));
    let admin_file = match arguments.kind {
        // It measures this process alone.
        LoadKind::Attest | LoadKind::Compliance | LoadKind::Compile => PathBuf::new(),
        _ => admin_file(arguments.admin_file)?,
    };
    let measuring = || print_line("measuring");
    let enroll = |kind| EnrollLoad {
        admin_file: admin_file.clone(),
        devices: arguments.devices,
        kind,
    };
    let report = match arguments.kind {
        LoadKind::Attest => serde_json::to_string(&load::load_verifications(duration)?),
        LoadKind::Compliance => serde_json::to_string(&load::load_compliance(arguments.devices)?),
        LoadKind::Compile => serde_json::to_string(&load::load_compilations(duration)?),
        LoadKind::EnrollTpm => {
            serde_json::to_string(&load::load_enrollments(enroll(Enrollment::Tpm), measuring).await?)
        }
        LoadKind::EnrollKey => {
            serde_json::to_string(&load::load_enrollments(enroll(Enrollment::SoftwareKey), measuring).await?)
        }
        LoadKind::EnrollToken => {
            serde_json::to_string(&load::load_enrollments(enroll(Enrollment::TokenOnly), measuring).await?)
        }
        LoadKind::Handshake => {
            serde_json::to_string(&load::load_enrollments(enroll(Enrollment::Handshake), measuring).await?)
        }
        LoadKind::Command => {
            let options = CommandLoad {
                admin_file,
                devices: arguments.devices,
                duration,
            };
            serde_json::to_string(&load::load_commands(options, measuring).await?)
        }
        LoadKind::Rollout => {
            let options = RolloutLoad { admin_file, duration };
            serde_json::to_string(&load::load_rollout(options, measuring).await?)
        }
        LoadKind::Scim => {
            let options = ScimLoad {
                admin_file,
                connections: arguments.devices,
                duration,
            };
            serde_json::to_string(&load::load_scim(options, measuring).await?)
        }
        LoadKind::Siem => {
            let options = SiemLoad {
                admin_file,
                entries: u64::from(arguments.devices) * 1000,
                connections: SIEM_CONNECTIONS,
            };
            serde_json::to_string(&load::load_siem(options, measuring).await?)
        }
        LoadKind::Telemetry => {
            let options = TelemetryLoad {
                admin_file,
                devices: arguments.devices,
                batches: u32::try_from(arguments.seconds)
                    .unwrap_or(u32::MAX)
                    .saturating_mul(10),
                beside: arguments.beside,
            };
            serde_json::to_string(&load::load_telemetry(options, measuring).await?)
        }
        LoadKind::Queue => {
            let options = QueueLoad {
                admin_file,
                connected: arguments.devices.into(),
                duration,
            };
            serde_json::to_string(&load::load_queue(options, measuring).await?)
        }
        kind @ (LoadKind::Constant | LoadKind::Checkin) => {
            let target = if kind == LoadKind::Checkin {
                Target::Checkin
            } else {
                Target::Constant
            };
            let options = LoadOptions {
                admin_file,
                connections: arguments.devices,
                duration,
                target,
            };
            serde_json::to_string(&load::load_checkins(options, measuring).await?)
        }
    };
    print_line(&report.map_err(|error| FarmError::Load(error.to_string()))?);
    Ok(())
}

/// Ctrl-C, or SIGTERM where there is such a thing.
async fn stop() {
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    tokio::select! {
        () = interrupted => {}
        () = terminated => {}
    }
}

/// Prints a line at once: whoever drives a load waits for it. A reader that is gone needs nothing any more.
fn print_line(line: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    enum Program {
        Farm(FarmArgs),
        Load(LoadArgs),
    }

    fn parse(line: &str) -> Result<Program, clap::Error> {
        Program::try_parse_from(std::iter::once("muster").chain(line.split_whitespace()))
    }

    #[test]
    fn the_parser_contradicts_itself_nowhere() {
        Program::command().debug_assert();
    }

    #[test]
    fn the_lines_of_the_contract_parse() {
        let line = "farm --admin-file data/admin.json --devices 25 --seed 7 --fail-rate 0.02 --silent-rate 0.3 \
            --scenario s.toml --duration 60";
        let Ok(Program::Farm(farm)) = parse(line) else {
            panic!("it parses")
        };
        assert_eq!((farm.devices, farm.seed, farm.duration), (25, 7, Some(60)));
        for kind in ["constant", "checkin"] {
            assert!(
                parse(&format!(
                    "load {kind} --devices 100 --seconds 10 --admin-file a.json"
                ))
                .is_ok()
            );
        }
        assert!(
            matches!(parse("load command --seconds 5"), Ok(Program::Load(load)) if load.kind == LoadKind::Command)
        );
    }

    #[test]
    fn a_rate_is_a_part_of_one() {
        for bad in ["1.1", "-0.1", "nan", "half"] {
            assert!(
                parse(&format!("farm --devices 1 --fail-rate={bad}")).is_err(),
                "{bad}"
            );
        }
    }
}
