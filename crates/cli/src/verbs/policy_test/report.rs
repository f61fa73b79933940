//! What came of a test, as a person or a pipeline reads it.

use serde::{Deserialize, Serialize};

use crate::output::{Printer, Sheet};
use crate::{CliError, Globals};

/// What came of a test. As JSON it is the answer of `muster policy test -o json`.
#[derive(Clone, Debug, Serialize)]
pub struct TestReport {
    /// `completed`, or `stopped` by a gate.
    pub result: String,
    pub(super) policy: String,
    pub(super) version: String,
    pub(super) devices: u32,
    pub(super) seed: u64,
    /// The stage whose gate did not pass.
    pub(super) stopped_in: Option<String>,
    /// Why, with the gate's numbers.
    pub(super) reason: Option<String>,
    /// Devices of the stages that were opened.
    pub(super) touched: u64,
    pub(super) stages: Vec<StageRow>,
    pub(super) failures: Vec<FailureRow>,
    pub(super) gaps: Vec<GapRow>,
    pub(super) roll_back: Option<RollBack>,
    /// From the activation to the last gate.
    pub(super) seconds: f64,
}

/// A stage and how it went.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StageRow {
    pub(super) name: String,
    pub(super) percent: f64,
    pub(super) state: String,
    pub(super) devices: u64,
    pub(super) verified: u64,
    pub(super) failed: u64,
    pub(super) silent: u64,
    pub(super) pending: u64,
    pub(super) gate: Option<GateRow>,
}

/// What its gate said.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GateRow {
    pub(super) method: String,
    pub(super) verdict: String,
    pub(super) reason: String,
    pub(super) limit: f64,
}

/// A setting that failed on devices of a model.
#[derive(Clone, Debug, Serialize)]
pub struct FailureRow {
    pub(super) setting: String,
    pub(super) platform: String,
    pub(super) model: String,
    pub(super) devices: u64,
    /// Devices of the model that answered.
    pub(super) of: u64,
    pub(super) why: String,
}

/// A setting that is weaker than asked on a platform, or that the platform does not have.
#[derive(Clone, Debug, Serialize)]
pub struct GapRow {
    pub(super) setting: String,
    pub(super) platform: String,
    /// `weaker` or `not_expressible`.
    pub(super) state: String,
    pub(super) devices: u64,
    pub(super) why: String,
}

/// How the devices went back.
#[derive(Clone, Debug, Serialize)]
pub struct RollBack {
    /// The version before; absent where the policy was taken away.
    pub(super) to: Option<String>,
    /// Devices that had answered, and have said that the version is gone.
    pub(super) back: u64,
    pub(super) not_back: u64,
    /// Devices that the rollout was for and that never answered.
    pub(super) never_answered: u64,
    pub(super) seconds: f64,
}

impl TestReport {
    /// Whether the rollout completed.
    pub fn is_completed(&self) -> bool {
        self.result == "completed"
    }

    /// The verdict in a sentence or two.
    fn sentence(&self) -> String {
        let of = format!(
            "{} {} on {} simulated devices",
            self.policy, self.version, self.devices
        );
        let seconds = self.seconds;
        let Some(stage) = &self.stopped_in else {
            return format!("PASSED: {of}: every stage passed its gate, in {seconds:.1} s.");
        };
        let reason = self.reason.as_deref().unwrap_or("the gate did not pass");
        format!(
            "STOPPED: {of}: stopped in stage {stage} after {} devices, in {seconds:.1} s: {reason}.",
            self.touched
        )
    }
}

impl RollBack {
    fn sentence(&self) -> String {
        let place = match &self.to {
            Some(_) => "back on the version before",
            None => "without the policy again",
        };
        let mut text = format!(
            "{} of {} devices that had answered are {place}, after {:.1} s.",
            self.back,
            self.back + self.not_back,
            self.seconds
        );
        if self.never_answered > 0 {
            text.push_str(&format!(" {} never answered.", self.never_answered));
        }
        text
    }
}

/// Prints a report, as a table or as JSON.
///
/// # Errors
/// Where standard output is gone.
pub fn show(report: &TestReport, globals: &Globals) -> Result<(), CliError> {
    let value = serde_json::to_value(report).map_err(|error| CliError::Failed(error.to_string()))?;
    Printer::new(globals).answer(&value, |_| sheet(report))
}

fn sheet(report: &TestReport) -> Sheet {
    let stages = report.stages.iter().map(|stage| {
        let gate = stage.gate.as_ref().filter(|_| stage.state != "waiting");
        vec![
            stage.name.clone(),
            format!("{} %", stage.percent),
            stage.state.clone(),
            stage.devices.to_string(),
            stage.verified.to_string(),
            stage.failed.to_string(),
            stage.silent.to_string(),
            gate.map_or_else(
                || "-".to_owned(),
                |gate| format!("{}: {}", gate.method, gate.reason),
            ),
        ]
    });
    let header = [
        "stage", "share", "state", "devices", "verified", "failed", "silent", "gate",
    ];
    let mut sheet = Sheet::new().rows("stages", &header, stages.collect());
    if !report.failures.is_empty() {
        let rows = report.failures.iter().map(|row| {
            vec![
                row.setting.clone(),
                row.platform.clone(),
                row.model.clone(),
                format!("{} of {}", row.devices, row.of),
                row.why.clone(),
            ]
        });
        let header = ["failed setting", "platform", "model", "devices", "why"];
        sheet = sheet.rows("failures", &header, rows.collect());
    }
    if !report.gaps.is_empty() {
        let rows = report.gaps.iter().map(|row| {
            vec![
                row.setting.clone(),
                row.platform.clone(),
                row.state.clone(),
                row.devices.to_string(),
                row.why.clone(),
            ]
        });
        let header = ["setting", "platform", "is", "devices", "why"];
        sheet = sheet.rows("gaps", &header, rows.collect());
    }
    sheet = sheet.text(report.sentence());
    match &report.roll_back {
        Some(roll_back) => sheet.text(roll_back.sentence()),
        None => sheet,
    }
}
