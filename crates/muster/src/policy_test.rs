//! `muster policy test`: a control plane and simulated devices for as long as one test takes, and nothing of them afterwards.

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use muster_cli::{CliError, Globals, PolicyTest, PolicyTestArgs, TestReport, policy_test};
use muster_farm::{
    FarmError, FarmOptions,
    admin::read_file,
    faults::{Conditions, Disorder, ModelFault},
    scenario::Scenario,
};
use tokio::{sync::oneshot, task::JoinHandle};

use crate::{
    admin_file::AdminFile,
    config::Options,
    install, limits,
    serve::{ControlPlane, Signals},
};

/// How long the farm may take to end.
const FARM_END_TIME_MAX: Duration = Duration::from_secs(5);

/// Runs a test: 0 where the rollout completed, 1 where a gate stopped it or no verdict came, 2 where the flags are wrong.
pub async fn run(args: &PolicyTestArgs, globals: &Globals) -> ExitCode {
    let read = enough_files(args.devices).and_then(|()| Ok((args.read()?, fleet(args)?)));
    let (test, fleet) = match read {
        Ok(read) => read,
        Err(error) => return muster_cli::failed(&error, globals),
    };
    let report = match in_a_folder(&test, fleet).await {
        Ok(report) => report,
        Err(error) => return muster_cli::failed(&CliError::Failed(format!("{error:#}")), globals),
    };
    match policy_test::show(&report, globals) {
        Ok(()) if report.is_completed() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => muster_cli::failed(&error, globals),
    }
}

/// Refuses a fleet for which this process may not open enough connections: both ends of each are in it.
fn enough_files(devices: u32) -> Result<(), CliError> {
    match limits::devices_max(2) {
        Some(most) if u64::from(devices) > most => Err(CliError::Usage(format!(
            "--devices {devices}: this process may open files for {most} devices; test fewer, or raise the limit of open files \
             (`ulimit -n {}`, LimitNOFILE in a unit)",
            u64::from(devices) * 2 + 256
        ))),
        Some(_) | None => Ok(()),
    }
}

/// The fleet of these flags. Where its server is comes later.
fn fleet(args: &PolicyTestArgs) -> Result<FarmOptions, CliError> {
    let faults = args.faults.iter().map(|text| ModelFault::parse(text));
    let faults = faults
        .collect::<Result<Vec<_>, _>>()
        .map_err(|why| CliError::Usage(format!("--fault: {why}")))?;
    let scenario = match &args.scenario {
        None => None,
        Some(path) => Some(scenario(path).map_err(|error| CliError::Usage(format!("--scenario: {error}")))?),
    };
    Ok(FarmOptions {
        admin_file: std::path::PathBuf::new(),
        devices: args.devices,
        seed: args.seed,
        conditions: Conditions {
            fail_rate: args.fail_rate,
            silent_rate: args.silent_rate,
            faults,
            ..Conditions::CALM
        },
        // What a test says must not depend on the luck of a wire.
        disorder: Disorder::NONE,
        scenario,
        duration: None,
        state_dir: None,
        telemetry: None,
        has_progress: true,
    })
}

fn scenario(path: &Path) -> Result<Scenario, FarmError> {
    let text = String::from_utf8(read_file(path)?).map_err(|error| FarmError::Content {
        path: path.to_owned(),
        detail: error.to_string(),
    })?;
    Ok(Scenario::parse(&text)?)
}

/// Runs the test in a folder of its own, which is gone afterwards, also after a signal.
async fn in_a_folder(test: &PolicyTest, fleet: FarmOptions) -> Result<TestReport> {
    let signals = Signals::listen()?;
    let folder = tempfile::Builder::new()
        .prefix("muster-policy-test-")
        .tempdir()
        .context("a temporary folder cannot be made")?;
    let result = tokio::select! {
        result = on_a_control_plane(test, fleet, folder.path()) => result,
        () = signals.first() => Err(anyhow::anyhow!("it was interrupted")),
    };
    folder.close().context("the temporary folder cannot be removed")?;
    result
}

async fn on_a_control_plane(test: &PolicyTest, fleet: FarmOptions, folder: &Path) -> Result<TestReport> {
    let loopback = Some(([127, 0, 0, 1], 0).into());
    let options = Options {
        admin_listen: loopback,
        device_listen: loopback,
        ops_listen: loopback,
        silent_after_seconds: Some(test.silent_after_seconds),
        ..Options::default()
    };
    let data_dir = install::data_folder(&folder.join("data"))?;
    let plane = ControlPlane::start(&data_dir, &options)
        .await
        .context("the control plane of the test does not start")?;
    let admin_file = AdminFile::path(&data_dir);
    let farm = Farm::start(FarmOptions {
        admin_file: admin_file.clone(),
        ..fleet
    });
    let driven = policy_test::drive(test, &admin_file).await;
    plane.stop(farm.end()).await;
    Ok(driven?)
}

/// The simulated devices of a test.
struct Farm {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Farm {
    fn start(options: FarmOptions) -> Farm {
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let stopped = async move {
                let _ = stopped.await;
            };
            if let Err(error) = muster_farm::run(options, stopped).await {
                tracing::error!(%error, "the simulated devices ended");
            }
        });
        Farm { stop, task }
    }

    async fn end(self) {
        let _ = self.stop.send(());
        let _ = tokio::time::timeout(FARM_END_TIME_MAX, self.task).await;
    }
}
