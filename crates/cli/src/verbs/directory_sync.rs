//! `muster directory …`: people and groups of an LDAP directory, brought to Muster.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::CliError;
use crate::directory_sync::{Config, Preset, Report, RunOptions, example, run as run_once, trial};
use crate::output::Printer;

/// Shortest and longest pause between runs.
const EVERY: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(24 * 3600));
/// Longest pause after runs that failed.
const PAUSE_MAX: Duration = Duration::from_secs(4 * 3600);

/// Verbs of directories.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum DirectoryCommand {
    /// Bring people and groups of a directory to Muster: once, or again and again
    #[command(after_help = SYNC_HELP)]
    Sync(SyncArgs),
    /// Try everything that `sync` needs, say at which step it fails, and show the first people; changes nothing
    #[command(
        after_help = "Examples:\n  muster directory test --config directory.toml\n  muster directory test --config directory.toml -o json"
    )]
    Test(ConfigArgs),
    /// Print a configuration to begin with
    #[command(
        after_help = "Examples:\n  muster directory example active-directory > directory.toml\n  muster directory example openldap"
    )]
    Example { preset: Preset },
}

const SYNC_HELP: &str = "Examples:
  muster directory sync --config directory.toml --dry-run     what would change
  muster directory sync --config directory.toml
  muster directory sync --config directory.toml --every 15m   as a service; see the how-to for the unit of systemd
  muster directory sync --config directory.toml --allow-removals 40

Nothing goes where a search was cut off or found nothing. More than 10 % (and more than 5, or all) of the people, groups or
memberships, or of an attribute's values, go only with --allow-removals, and so do people come back. Exit codes: 0 everything is brought over, 1 something was left out, refused or held back.";

/// Which file says what.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigArgs {
    /// What is read and where it is brought; `muster directory example PRESET` prints one
    #[arg(long, value_name = "FILE", env = "MUSTER_DIRECTORY_CONFIG")]
    pub config: PathBuf,
    /// Folder of systemd's credentials
    #[arg(long, value_name = "FOLDER", env = "CREDENTIALS_DIRECTORY", hide = true)]
    pub credentials_directory: Option<PathBuf>,
}

/// Flags of `sync`.
#[derive(Clone, Debug, clap::Args)]
pub struct SyncArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Show what would change, and change nothing
    #[arg(long, conflicts_with = "every")]
    pub dry_run: bool,
    /// Run again after this time, until ended
    #[arg(long, value_name = "TIME", value_parser = pause)]
    pub every: Option<Duration>,
    /// So many people, groups, memberships or values may go, and people come back, in this one run
    #[arg(long, value_name = "COUNT", conflicts_with = "every")]
    pub allow_removals: Option<usize>,
    /// Take over who is there under the same userName: for a directory that was set up anew, or after another connector
    #[arg(long, conflicts_with = "every")]
    pub adopt: bool,
}

fn pause(text: &str) -> Result<Duration, String> {
    let pause = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match (EVERY.0..=EVERY.1).contains(&pause) {
        true => Ok(pause),
        false => Err("a pause is 1 minute to 24 hours".to_owned()),
    }
}

/// Runs one verb.
pub async fn run(command: DirectoryCommand, printer: &Printer) -> Result<(), CliError> {
    match command {
        DirectoryCommand::Example { preset } => printer.line(example(preset)),
        DirectoryCommand::Test(arguments) => {
            let config = Config::read(&arguments.config)?;
            let tried = trial(&config, arguments.credentials_directory.as_deref()).await?;
            printer.answer(&tried.json(), |_| tried.sheet())?;
            match tried.failed_at() {
                None => Ok(()),
                Some(step) => Err(CliError::Failed(format!(
                    "it fails at {step}; nothing was changed"
                ))),
            }
        }
        DirectoryCommand::Sync(arguments) => {
            let options = RunOptions {
                is_dry: arguments.dry_run,
                is_adopting: arguments.adopt,
                removals_allowed: arguments.allow_removals,
            };
            let credentials = arguments.config.credentials_directory.as_deref();
            match arguments.every {
                None => {
                    let config = Config::read(&arguments.config.config)?;
                    once(&config, credentials, options, printer).await
                }
                Some(every) => again_and_again(&arguments.config, every, options, printer).await,
            }
        }
    }
}

async fn once(
    config: &Config,
    credentials: Option<&Path>,
    options: RunOptions,
    printer: &Printer,
) -> Result<(), CliError> {
    let (report, outcome) = run_once(config, credentials, options).await?;
    printer.answer(&report.json(), |_| report.sheet())?;
    outcome?;
    judged(&report)
}

fn judged(report: &Report) -> Result<(), CliError> {
    match report.is_bad() {
        true => Err(CliError::Failed(report.sentence())),
        false => Ok(()),
    }
}

/// Runs until ended. The file is read each time, so that a token that was renewed counts; after a failure the pause doubles.
async fn again_and_again(
    arguments: &ConfigArgs,
    every: Duration,
    options: RunOptions,
    printer: &Printer,
) -> Result<(), CliError> {
    // A mistake in the file is told at once, and not by a service that only waits.
    Config::read(&arguments.config)?;
    let mut failures = 0_u32;
    loop {
        let outcome = match Config::read(&arguments.config) {
            Ok(config) => run_once(&config, arguments.credentials_directory.as_deref(), options).await,
            Err(error) => Err(error),
        };
        // What was left out or held back waits for a person, and nobody else waits for it.
        failures = match outcome.and_then(|(report, outcome)| {
            told(&report, printer)?;
            outcome
        }) {
            Ok(()) => 0,
            Err(error) => {
                printer.error(&error);
                failures.saturating_add(1)
            }
        };
        let pause = paused(every, failures);
        if failures > 0 {
            printer.note(&format!(
                "The next run is in {}.",
                humantime::format_duration(pause)
            ));
        }
        tokio::time::sleep(pause).await;
    }
}

/// Says how one of many runs went: a line, and what is not as it should be.
fn told(report: &Report, printer: &Printer) -> Result<(), CliError> {
    match printer.is_json() {
        true => printer.line(&report.json().to_string())?,
        false => printer.line(&report.line())?,
    }
    if let Err(bad) = judged(report) {
        printer.aside(&report.sheet());
        printer.error(&bad);
    }
    Ok(())
}

/// The pause after so many failures, one after the other.
fn paused(every: Duration, failures: u32) -> Duration {
    let doubled = every.saturating_mul(1 << failures.saturating_sub(1).min(8));
    doubled.min(PAUSE_MAX.max(every))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_failures_and_not_forever() {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        assert_eq!(paused(minutes(15), 0), minutes(15));
        assert_eq!(paused(minutes(15), 1), minutes(15));
        assert_eq!(paused(minutes(15), 3), minutes(60));
        assert_eq!(paused(minutes(15), u32::MAX), PAUSE_MAX);
        assert_eq!(paused(minutes(24 * 60), 9), minutes(24 * 60));
        assert!(pause("10s").is_err() && pause("2days").is_err() && pause("15m").is_ok());
    }
}
