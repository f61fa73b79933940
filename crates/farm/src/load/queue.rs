//! One command for every device of a fleet: how soon it is accepted, made and answered.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use super::rollout::verifications;
use crate::admin::Admin;
use crate::{AdminFile, FarmError};

/// Longest wait for the last receipt.
const RECEIPTS_TIME_MAX: Duration = Duration::from_secs(1800);
/// How often the operation is asked about.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A load of one operation.
#[derive(Clone, Debug)]
pub struct QueueLoad {
    /// `admin.json` of the server.
    pub admin_file: PathBuf,
    /// Devices that are connected, and will answer.
    pub connected: u64,
    /// How long signatures are verified for the peer.
    pub duration: Duration,
}

/// What an operation came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QueueReport {
    /// Devices of the operation.
    pub devices: u64,
    /// From the call to its answer.
    pub accepted_seconds: f64,
    /// From the call until every command was made.
    pub made_seconds: f64,
    pub made_per_second: f64,
    /// Receipts of the devices that are connected.
    pub receipts: u64,
    /// From the call to the last of these receipts.
    pub receipts_seconds: f64,
    pub receipts_per_second: f64,
    /// P-256 signatures that one core verifies in a second: each receipt is one.
    pub verifications_per_second: f64,
}

/// An operation as far as it is looked at.
#[derive(Debug, Deserialize)]
pub struct OperationLife {
    /// How far it is.
    pub progress: OperationProgress,
}

/// How many commands of an operation are where.
#[derive(Debug, Deserialize)]
pub struct OperationProgress {
    pub pending: u64,
    #[serde(default)]
    done: u64,
    #[serde(default)]
    noop: u64,
    #[serde(default)]
    failed: u64,
}

impl OperationProgress {
    fn answered(&self) -> u64 {
        self.done + self.noop + self.failed
    }
}

/// Asks every device of the fleet for something harmless, and waits for the receipts of those that are connected.
///
/// # Errors
/// A call that fails, and receipts that do not come.
pub async fn load_queue(options: QueueLoad, measuring: impl FnOnce()) -> Result<QueueReport, FarmError> {
    let admin = Admin::new(AdminFile::read(&options.admin_file)?)?;
    admin.sign_in().await?;
    let verifications_per_second = verifications(options.duration)?;
    measuring();
    let started = Instant::now();
    let asked = admin
        .bulk(&json!({"type": "message", "text": "All is well.", "filter": "state:active"}))
        .await?;
    let accepted_seconds = started.elapsed().as_secs_f64();
    let mut made_seconds = None;
    loop {
        let OperationLife { progress } = admin.operation(&asked.operation_id).await?;
        let elapsed = started.elapsed();
        if progress.pending == 0 && made_seconds.is_none() {
            made_seconds = Some(elapsed.as_secs_f64());
        }
        if let Some(made_seconds) = made_seconds
            && progress.answered() >= options.connected
        {
            let receipts_seconds = elapsed.as_secs_f64();
            return Ok(QueueReport {
                devices: asked.commands,
                accepted_seconds,
                made_seconds,
                made_per_second: asked.commands as f64 / made_seconds,
                receipts: progress.answered(),
                receipts_seconds,
                receipts_per_second: progress.answered() as f64 / receipts_seconds,
                verifications_per_second,
            });
        }
        if elapsed > RECEIPTS_TIME_MAX {
            return Err(FarmError::Load(format!(
                "{} of {} receipts came within {RECEIPTS_TIME_MAX:?}",
                progress.answered(),
                options.connected
            )));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
