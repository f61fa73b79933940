//! Simulated devices on the real wire.
//!
//! Each device has a key of its own, enrolls with a one-time token, holds a mutually authenticated connection, verifies
//! everything with the same code as the real agent, and answers with signed reports and receipts. Only the machine
//! beneath is simulated. Models, identities, facts and faults are pure functions of (seed, index); see [`plan`] and
//! [`faults`]. A simulated device is wiped on the word of those who may approve it, like a real one, and of nobody else.
//!
//! * [`run`]: a fleet, for `muster farm` and `muster serve --farm`.
//! * [`load`]: raw load for benchmarks.
//! * [`program`]: the command line of both.

pub mod admin;
mod clock;
mod device;
mod draw;
pub mod faults;
mod identity;
mod link;
pub mod load;
mod machine;
mod models;
pub mod plan;
mod program;
pub mod scenario;
mod stats;
mod store;
pub mod telemetry;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use admin::{Admin, AdminFile};
use faults::{Conditions, Disorder};
use scenario::Scenario;
use stats::Stats;
use store::Store;
use telemetry::Pace;
use tls::Endpoint;

pub use program::{FarmArgs, LoadArgs, run_load, run_program};
pub use stats::{LatencySummary, Summary};

/// Enrollments at once.
pub const ENROLLING_MAX: usize = 32;
/// TLS handshakes at once.
const CONNECTING_MAX: usize = 64;
/// Most devices of one farm.
pub const DEVICES_MAX: u32 = 1_000_000;
/// Time between two uploads of telemetry of the farm within a server.
const TELEMETRY_INTERVAL: Duration = Duration::from_secs(300);
/// How long the first sign-in may wait for a server that is just starting.
const SIGN_IN_TIME_MAX: Duration = Duration::from_secs(15);

/// How a farm runs.
#[derive(Clone, Debug)]
pub struct FarmOptions {
    /// `admin.json` of the server.
    pub admin_file: PathBuf,
    /// How many devices.
    pub devices: u32,
    /// Which fleet.
    pub seed: u64,
    /// What goes wrong from the beginning.
    pub conditions: Conditions,
    /// How disorderly wire and devices are.
    pub disorder: Disorder,
    /// How conditions change later.
    pub scenario: Option<Scenario>,
    /// The farm ends after this time; without it when it is told to.
    pub duration: Option<Duration>,
    /// Devices live here, so that the next farm goes on with them.
    pub state_dir: Option<PathBuf>,
    /// Enrollment shows a bar on standard error.
    pub has_progress: bool,
    /// How devices send telemetry, if they do.
    pub telemetry: Option<Pace>,
}

impl FarmOptions {
    /// The farm of `muster serve --farm N`: no faults, state kept in a folder so that a restart resumes the same devices.
    pub fn in_process(admin_file: PathBuf, devices: u32, seed: u64, state_dir: PathBuf) -> Self {
        Self {
            admin_file,
            devices,
            seed,
            conditions: Conditions::CALM,
            disorder: Disorder::NONE,
            scenario: None,
            duration: None,
            state_dir: Some(state_dir),
            has_progress: false,
            telemetry: Some(Pace {
                interval: TELEMETRY_INTERVAL,
                history_days: 0,
            }),
        }
    }
}

/// Why a farm does not run.
#[derive(Debug, thiserror::Error)]
pub enum FarmError {
    /// The options contradict themselves.
    #[error("{0}")]
    Options(String),
    /// A file cannot be read or written.
    #[error("{path} cannot be read or written")]
    File {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file has unexpected content.
    #[error("{path}: {detail}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The scenario is refused.
    #[error(transparent)]
    Scenario(#[from] scenario::ScenarioError),
    /// The admin API refuses or cannot be reached.
    #[error("the admin API: {0}")]
    Admin(String),
    /// The load cannot go on.
    #[error("the load ended: {0}")]
    Load(String),
}

/// What all devices of a farm share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) seed: u64,
    /// Tells this process's boots from those of others.
    pub(crate) process: u64,
    pub(crate) tenant: String,
    /// What device keys are derived from.
    pub(crate) secret: Vec<u8>,
    pub(crate) admin: Admin,
    pub(crate) endpoint: Endpoint,
    pub(crate) conditions: watch::Sender<Conditions>,
    pub(crate) disorder: Disorder,
    pub(crate) telemetry: Option<Pace>,
    pub(crate) store: Store,
    pub(crate) stats: Stats,
    pub(crate) enrolling: Semaphore,
    pub(crate) connecting: Semaphore,
}

impl Shared {
    /// Reads `admin.json`, signs in, and prepares everything that devices need.
    pub(crate) async fn prepare(options: &FarmOptions) -> Result<Arc<Self>, FarmError> {
        if options.devices == 0 || options.devices > DEVICES_MAX {
            return Err(FarmError::Options(format!(
                "a farm has 1 to {DEVICES_MAX} devices"
            )));
        }
        let file = AdminFile::read(&options.admin_file)?;
        let endpoint = Endpoint::new(&file.device_url, &file.ca_pem()?)?;
        let folder = options.state_dir.as_deref();
        let store = Store::open(folder, options.seed).map_err(|source| FarmError::File {
            path: options.state_dir.clone().unwrap_or_default(),
            source,
        })?;
        let admin = Admin::new(file.clone())?;
        sign_in(&admin).await?;
        Ok(Arc::new(Self {
            seed: options.seed,
            process: uuid::Uuid::new_v4().as_u64_pair().0,
            tenant: file.tenant,
            secret: file.client_secret.into_bytes(),
            admin,
            endpoint,
            conditions: watch::Sender::new(options.conditions.clone()),
            disorder: options.disorder,
            telemetry: options.telemetry,
            store,
            stats: Stats::new(options.devices),
            enrolling: Semaphore::new(ENROLLING_MAX),
            connecting: Semaphore::new(CONNECTING_MAX),
        }))
    }
}

/// A server that is just starting may not listen yet.
async fn sign_in(admin: &Admin) -> Result<(), FarmError> {
    let deadline = Instant::now() + SIGN_IN_TIME_MAX;
    loop {
        match admin.sign_in().await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => sleep(Duration::from_millis(300)).await,
        }
    }
}

/// Runs a fleet until `shutdown`, or for its duration, and says what came of it.
///
/// # Errors
/// Only before the first device: options, files, and an admin API that does not let the farm in. Later failures are the
/// devices' own, who try again.
pub async fn run(options: FarmOptions, shutdown: impl Future<Output = ()>) -> Result<Summary, FarmError> {
    let shared = Shared::prepare(&options).await?;
    let started = Instant::now();
    let mut devices = JoinSet::new();
    for index in 0..options.devices {
        devices.spawn(device::live(Arc::clone(&shared), index));
    }
    let ending = async {
        match options.duration {
            Some(duration) => sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = shutdown => {}
        () = ending => {}
        () = play(&shared, &options, started) => {}
        () = watch_enrollment(&shared, &options, started) => {}
    }
    devices.shutdown().await;
    let conditions = shared.conditions.borrow().clone();
    let silent = (0..options.devices)
        .filter(|index| conditions.is_silent(options.seed, *index))
        .count();
    Ok(shared.stats.summary(silent as u64))
}

/// Changes the conditions when the scenario says so; never ends.
async fn play(shared: &Shared, options: &FarmOptions, started: Instant) {
    let changes = options
        .scenario
        .as_ref()
        .map(|scenario| scenario.changes(&options.conditions))
        .unwrap_or_default();
    for (at, conditions) in changes {
        sleep_until(started + at).await;
        tracing::info!(?conditions, "the farm's conditions change");
        shared.conditions.send_replace(conditions);
    }
    std::future::pending().await
}

/// Shows how enrollment goes on; never ends.
async fn watch_enrollment(shared: &Shared, options: &FarmOptions, started: Instant) {
    let devices = u64::from(options.devices);
    let bar = if options.has_progress {
        ProgressBar::new(devices)
    } else {
        ProgressBar::hidden()
    };
    if let Ok(style) = ProgressStyle::with_template("enrolled [{bar:30}] {pos}/{len} ({eta} left)") {
        bar.set_style(style.progress_chars("=> "));
    }
    while shared.stats.enrolled_count() < devices {
        bar.set_position(shared.stats.enrolled_count());
        sleep(Duration::from_millis(500)).await;
    }
    bar.finish_and_clear();
    tracing::info!(
        devices,
        seconds = started.elapsed().as_secs(),
        "every device of the farm is enrolled"
    );
    std::future::pending().await
}
