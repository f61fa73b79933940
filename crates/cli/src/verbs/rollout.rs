//! `muster rollout …`

use std::time::Duration;

use serde::Deserialize;

use super::{Page, Paging, list};
use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::output::{Printer, Sheet, or_dash};
use crate::progress::{self, Pace};

/// Verbs of rollouts.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum RolloutCommand {
    /// List rollouts, newest first
    #[command(after_help = "Examples:\n  muster rollout list --limit 10")]
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a rollout and its counts
    #[command(after_help = "Examples:\n  muster rollout get rol_…")]
    Get { id: String },
    /// List the devices of a rollout and how far each got
    #[command(after_help = "Examples:\n  muster rollout devices rol_…")]
    Devices {
        id: String,
        #[command(flatten)]
        paging: Paging,
    },
    /// Watch a rollout to its end: 0 if it completed, 1 if it ended otherwise or is held
    #[command(
        after_help = "Examples:\n  muster rollout watch rol_…\n  muster rollout watch rol_… --timeout 600"
    )]
    Watch {
        id: String,
        /// Give up after this many seconds
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u64>,
    },
    /// Hold a rollout: devices that have it keep it, others do not get it
    #[command(after_help = "Examples:\n  muster rollout pause rol_…")]
    Pause { id: String },
    /// Go on with a paused rollout
    #[command(after_help = "Examples:\n  muster rollout resume rol_…")]
    Resume { id: String },
    /// End a rollout and go back to the version before
    #[command(after_help = "Examples:\n  muster rollout abort rol_…")]
    Abort {
        id: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Take a rollout back, also a completed one
    #[command(after_help = "Examples:\n  muster rollout rollback rol_… --yes")]
    Rollback {
        id: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Rollout {
    id: String,
    policy_name: String,
    version: String,
    bundle_sha256: String,
    generation: u64,
    state: String,
    created_by: Option<String>,
    created_at: Option<String>,
    updated_at: Option<String>,
    stages: Vec<Stage>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Stage {
    name: String,
    devices: u64,
    verified: u64,
    failed: u64,
    silent: u64,
    pending: u64,
    gate: Option<Gate>,
}

/// What a stage is judged by.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Gate {
    failed: u64,
    sample: u64,
    limit: f64,
    passes: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RolloutDevice {
    #[serde(alias = "device_id")]
    id: String,
    name: Option<String>,
    platform: Option<String>,
    state: String,
    reported_at: Option<String>,
}

/// Runs one verb.
pub async fn run(command: RolloutCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command {
        RolloutCommand::List { paging } => {
            let answer: Answer<Page<Rollout>> = list(api, Call::get(&["rollouts"]), &paging).await?;
            printer.answer(&answer.value, |printer| rollouts(printer, &answer.known.items))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
        RolloutCommand::Get { id } => {
            let answer: Answer<Rollout> = api.send(Call::get(&["rollouts", &id])).await?;
            printer.answer(&answer.value, |printer| rollout(printer, &answer.known))
        }
        RolloutCommand::Devices { id, paging } => {
            let call = Call::get(&["rollouts", &id, "devices"]);
            let answer: Answer<Page<RolloutDevice>> = list(api, call, &paging).await?;
            printer.answer(&answer.value, |printer| devices(printer, &answer.known.items))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
        RolloutCommand::Watch { id, timeout } => {
            watch(api, printer, &id, timeout.map(Duration::from_secs)).await
        }
        RolloutCommand::Pause { id } => change(api, printer, &id, "pause").await,
        RolloutCommand::Resume { id } => change(api, printer, &id, "resume").await,
        RolloutCommand::Abort { id, yes } => {
            printer.confirm(
                yes,
                "The version before takes effect on every device of the rollout.",
                &id,
            )?;
            change(api, printer, &id, "abort").await
        }
        RolloutCommand::Rollback { id, yes } => {
            printer.confirm(
                yes,
                "The version before takes effect on every device of the rollout.",
                &id,
            )?;
            change(api, printer, &id, "rollback").await
        }
    }
}

async fn change(api: &Api, printer: &Printer, id: &str, verb: &str) -> Result<(), CliError> {
    let answer = api.send_raw(Call::post(&["rollouts", id, verb])).await?;
    let answer: Answer<Option<Rollout>> = crate::api::read_answer(&answer.bytes)?;
    match answer.known {
        Some(known) if !known.state.is_empty() => {
            printer.answer(&answer.value, |printer| rollout(printer, &known))
        }
        _ => printer.answer(&answer.value, |_| {
            Sheet::new().text(format!("{id}: {verb} accepted"))
        }),
    }
}

/// Follows a rollout to its end with a bar; an end other than `completed` is a failure.
pub async fn watch(
    api: &Api,
    printer: &Printer,
    id: &str,
    timeout: Option<Duration>,
) -> Result<(), CliError> {
    let bar = progress::bar(0, "devices reported");
    let mut pace = Pace::new(timeout);
    let mut was_held = false;
    loop {
        let answer: Answer<Rollout> = api.send(Call::get(&["rollouts", id])).await?;
        let counts = answer.known.totals();
        bar.set_length(counts.devices);
        bar.set_position(counts.devices.saturating_sub(counts.pending));
        bar.set_prefix(format!(
            "{}: {} verified, {} failed, {} silent",
            answer.known.state, counts.verified, counts.failed, counts.silent
        ));
        // Twice, since the counts and the state are not taken in one moment.
        let hold = answer.known.hold();
        if let (Some(reason), true) = (&hold, was_held) {
            bar.finish_and_clear();
            printer.answer(&answer.value, |printer| rollout(printer, &answer.known))?;
            return Err(CliError::Failed(format!(
                "{reason}; `muster rollout devices {id}` names them, and `abort` or another version ends the rollout"
            )));
        }
        was_held = hold.is_some();
        if answer.known.is_over() {
            bar.finish_and_clear();
            printer.answer(&answer.value, |printer| rollout(printer, &answer.known))?;
            return match answer.known.state.as_str() {
                "completed" => Ok(()),
                other => Err(CliError::Failed(format!("the rollout ended {other}"))),
            };
        }
        if !pace.next().await {
            bar.finish_and_clear();
            printer.answer(&answer.value, |printer| rollout(printer, &answer.known))?;
            return Err(CliError::Failed(
                "the rollout did not end in time; it goes on".to_owned(),
            ));
        }
    }
}

impl Rollout {
    fn totals(&self) -> Stage {
        self.stages.iter().fold(Stage::default(), |mut sum, stage| {
            sum.devices += stage.devices;
            sum.verified += stage.verified;
            sum.failed += stage.failed;
            sum.silent += stage.silent;
            sum.pending += stage.pending;
            sum
        })
    }

    /// Why nothing more will happen by itself: every device has answered, and too many failed.
    fn hold(&self) -> Option<String> {
        let is_waiting = self.state == "running" && self.totals().pending == 0;
        let gate = self
            .stages
            .iter()
            .filter_map(|stage| stage.gate.as_ref())
            .find(|gate| !gate.passes)?;
        is_waiting.then(|| {
            let Gate {
                failed,
                sample,
                limit,
                ..
            } = gate;
            format!(
                "the rollout is held: {failed} of {sample} devices failed, at least {} %",
                limit * 100.0
            )
        })
    }

    fn is_over(&self) -> bool {
        !matches!(self.state.as_str(), "running" | "paused")
    }
}

fn rollouts(printer: &Printer, rollouts: &[Rollout]) -> Sheet {
    let row = |rollout: &Rollout| {
        let counts = rollout.totals();
        vec![
            rollout.policy_name.clone(),
            rollout.version.clone(),
            rollout.state.clone(),
            counts.devices.to_string(),
            counts.verified.to_string(),
            counts.failed.to_string(),
            counts.silent.to_string(),
            printer.ago(rollout.created_at.as_deref()),
            rollout.id.clone(),
        ]
    };
    let header = [
        "policy", "version", "state", "devices", "verified", "failed", "silent", "created", "id",
    ];
    Sheet::new().rows("rollouts", &header, rollouts.iter().map(row).collect())
}

fn rollout(printer: &Printer, rollout: &Rollout) -> Sheet {
    let stages = rollout.stages.iter().map(|stage| {
        let counts = [
            stage.devices,
            stage.verified,
            stage.failed,
            stage.silent,
            stage.pending,
        ];
        std::iter::once(stage.name.clone())
            .chain(counts.iter().map(u64::to_string))
            .collect()
    });
    Sheet::new()
        .fields(vec![
            ("id", Some(rollout.id.clone())),
            (
                "policy",
                Some(format!("{} {}", rollout.policy_name, rollout.version)),
            ),
            ("state", Some(rollout.state.clone())),
            ("generation", Some(rollout.generation.to_string())),
            ("bundle", Some(rollout.bundle_sha256.clone())),
            ("by", rollout.created_by.clone()),
            ("created", Some(printer.when(rollout.created_at.as_deref()))),
            ("updated", Some(printer.when(rollout.updated_at.as_deref()))),
        ])
        .rows(
            "stages",
            &["stage", "devices", "verified", "failed", "silent", "pending"],
            stages.collect(),
        )
}

fn devices(printer: &Printer, devices: &[RolloutDevice]) -> Sheet {
    let row = |device: &RolloutDevice| {
        vec![
            or_dash(device.name.as_deref()),
            or_dash(device.platform.as_deref()),
            device.state.clone(),
            printer.ago(device.reported_at.as_deref()),
            device.id.clone(),
        ]
    };
    Sheet::new().rows(
        "devices",
        &["name", "platform", "state", "reported", "id"],
        devices.iter().map(row).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_whose_gate_is_closed_is_held_once_all_have_answered() {
        let rollout = |state: &str, pending: u64, passes: bool| -> Rollout {
            let gate = serde_json::json!({"failed": 2, "sample": 10, "limit": 0.005, "passes": passes});
            let stage = serde_json::json!({"devices": 10, "pending": pending, "gate": gate});
            serde_json::from_value(serde_json::json!({"state": state, "stages": [stage]})).expect("a rollout")
        };
        let held = rollout("running", 0, false).hold().expect("it is held");
        assert_eq!(
            held,
            "the rollout is held: 2 of 10 devices failed, at least 0.5 %"
        );
        assert!(rollout("running", 1, false).hold().is_none());
        assert!(rollout("running", 0, true).hold().is_none());
        assert!(rollout("completed", 0, false).hold().is_none());
    }

    #[test]
    fn counts_add_up_over_stages_and_only_final_states_end() {
        let rollout: Rollout = serde_json::from_str(
            r#"{"state":"running","stages":[{"name":"a","devices":2,"verified":1,"pending":1},{"devices":3,"failed":3}]}"#,
        )
        .expect("a rollout");
        let totals = rollout.totals();
        assert_eq!(
            (totals.devices, totals.verified, totals.failed, totals.pending),
            (5, 1, 3, 1)
        );
        for (state, is_over) in [
            ("running", false),
            ("paused", false),
            ("completed", true),
            ("rolled_back", true),
        ] {
            let rollout = Rollout {
                state: state.to_owned(),
                ..rollout.clone()
            };
            assert_eq!(rollout.is_over(), is_over, "{state}");
        }
    }
}
