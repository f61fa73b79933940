//! A new policy for devices that others hold connected: the time until the last report is in.

use std::path::PathBuf;
use std::time::Duration;

use muster_trust::key::SigningKey;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use crate::admin::Admin;
use crate::{AdminFile, FarmError};

/// Longest wait for the last report.
const REPORTS_TIME_MAX: Duration = Duration::from_secs(1800);
/// How often the rollout is asked about.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A load of one rollout.
#[derive(Clone, Debug)]
pub struct RolloutLoad {
    /// `admin.json` of the server.
    pub admin_file: PathBuf,
    /// How long signatures are verified for the peer.
    pub duration: Duration,
}

/// What a rollout came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RolloutReport {
    /// Devices of the rollout.
    pub devices: u64,
    /// From the call to the last report.
    pub seconds: f64,
    pub reports_per_second: f64,
    /// Devices that reported a failure.
    pub failed: u64,
    /// P-256 signatures that one core verifies in a second: each report is one.
    pub verifications_per_second: f64,
}

/// A rollout as far as it is looked at.
#[derive(Debug, Deserialize)]
pub struct RolloutCounts {
    pub state: String,
    pub stages: Vec<StageCounts>,
}

/// A stage as far as it is looked at.
#[derive(Debug, Deserialize)]
pub struct StageCounts {
    pub devices: u64,
    pub failed: u64,
    pub pending: u64,
}

/// Activates a new policy for every device in one stage, and waits for all reports.
///
/// # Errors
/// A call that fails, and reports that do not come.
pub async fn load_rollout(
    options: RolloutLoad,
    measuring: impl FnOnce(),
) -> Result<RolloutReport, FarmError> {
    let admin = Admin::new(AdminFile::read(&options.admin_file)?)?;
    let name = format!("bench-{}", uuid::Uuid::new_v4().simple());
    let settings = json!({"passcode.required": true, "passcode.min_length": 12, "camera.allowed": false});
    admin.make_version(&name, "1", &settings).await?;
    let verifications_per_second = verifications(options.duration)?;
    measuring();
    let started = Instant::now();
    let stages = json!([{"name": "full", "gate": {"on_failure": "hold"}}]);
    let id = admin.activate(&name, "1", &stages).await?;
    loop {
        let rollout = admin.rollout(&id).await?;
        let sum = |of: fn(&StageCounts) -> u64| rollout.stages.iter().map(of).sum::<u64>();
        let (devices, pending) = (sum(|stage| stage.devices), sum(|stage| stage.pending));
        if devices > 0 && pending == 0 {
            let seconds = started.elapsed().as_secs_f64();
            return Ok(RolloutReport {
                devices,
                seconds,
                reports_per_second: devices as f64 / seconds,
                failed: sum(|stage| stage.failed),
                verifications_per_second,
            });
        }
        if started.elapsed() > REPORTS_TIME_MAX {
            return Err(FarmError::Load(format!(
                "{pending} of {devices} reports did not come within {REPORTS_TIME_MAX:?}; the rollout is {}",
                rollout.state
            )));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// How many signatures one core verifies in a second.
pub(super) fn verifications(duration: Duration) -> Result<f64, FarmError> {
    let failed = |error: muster_trust::key::KeyError| FarmError::Load(error.to_string());
    let key = SigningKey::generate_p256().map_err(failed)?;
    let message = [7; 1024];
    let signature = key.sign(&message).map_err(failed)?;
    let (started, mut count) = (Instant::now(), 0_u64);
    while started.elapsed() < duration {
        for _ in 0..100 {
            key.public().verify(&message, &signature).map_err(failed)?;
        }
        count += 100;
    }
    Ok(count as f64 / started.elapsed().as_secs_f64())
}
