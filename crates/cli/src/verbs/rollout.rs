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
    /// Show a rollout, its stages and their gates
    #[command(
        visible_alias = "show",
        after_help = "Examples:\n  muster rollout get rol_…\n  muster rollout show rol_…"
    )]
    Get { id: String },
    /// List what the gates of a rollout decided, newest first
    #[command(after_help = "Examples:\n  muster rollout decisions rol_…")]
    Decisions {
        id: String,
        #[command(flatten)]
        paging: Paging,
    },
    /// List the devices of a rollout and how far each got
    #[command(after_help = "Examples:\n  muster rollout devices rol_…")]
    Devices {
        id: String,
        /// Only of this stage
        #[arg(long, value_name = "NAME")]
        stage: Option<String>,
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
    /// Let a rollout go on that waits for a person
    #[command(after_help = "Examples:\n  muster rollout promote rol_…")]
    Promote { id: String },
    /// End a rollout; the devices that it reached go back to the version before
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
    waits_for: Option<String>,
    reason: Option<String>,
    touched: u64,
    created_by: Option<String>,
    created_at: Option<String>,
    updated_at: Option<String>,
    stages: Vec<Stage>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Stage {
    name: String,
    percent: f64,
    state: String,
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
    method: String,
    verdict: String,
    reason: String,
    failed: u64,
    sample: u64,
    limit: f64,
    slos: Vec<Slo>,
}

/// A further objective of a gate.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Slo {
    name: String,
    count: u64,
    of: u64,
    limit: f64,
    state: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Decision {
    number: u64,
    stage: String,
    at: Option<String>,
    verdict: String,
    method: String,
    action: String,
    numbers: serde_json::Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RolloutDevice {
    #[serde(alias = "device_id")]
    id: String,
    name: Option<String>,
    platform: Option<String>,
    stage: Option<String>,
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
        RolloutCommand::Decisions { id, paging } => {
            let call = Call::get(&["rollouts", &id, "decisions"]);
            let answer: Answer<Page<Decision>> = list(api, call, &paging).await?;
            printer.answer(&answer.value, |printer| decisions(printer, &answer.known.items))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
        RolloutCommand::Devices { id, stage, paging } => {
            let call = Call::get(&["rollouts", &id, "devices"]).query("stage", stage);
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
        RolloutCommand::Promote { id } => change(api, printer, &id, "promote").await,
        RolloutCommand::Abort { id, yes } => {
            printer.confirm(
                yes,
                "The version before takes effect on every device that the rollout reached.",
                &id,
            )?;
            change(api, printer, &id, "abort").await
        }
        RolloutCommand::Rollback { id, yes } => {
            printer.confirm(
                yes,
                "The version before takes effect on every device that the rollout reached.",
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

/// Follows a rollout to its end with a bar for each stage in turn; an end other than `completed` is a failure.
pub async fn watch(
    api: &Api,
    printer: &Printer,
    id: &str,
    timeout: Option<Duration>,
) -> Result<(), CliError> {
    let bar = progress::bar(0, "devices reported");
    let mut pace = Pace::new(timeout);
    let mut told = 0;
    loop {
        let answer: Answer<Rollout> = api.send(Call::get(&["rollouts", id])).await?;
        let known = &answer.known;
        for stage in known.stages.iter().filter(|stage| stage.is_decided()).skip(told) {
            bar.suspend(|| printer.note(&stage.sentence()));
            told += 1;
        }
        if let Some(stage) = known.at_stage() {
            bar.set_length(stage.devices);
            bar.set_position(stage.devices.saturating_sub(stage.pending));
            bar.set_prefix(format!(
                "{}, stage {}: {} verified, {} failed, {} silent",
                known.state, stage.name, stage.verified, stage.failed, stage.silent
            ));
        }
        let ended = if let Some(reason) = known.hold() {
            Some(Err(CliError::Failed(format!(
                "{reason}; `muster rollout promote {id}` lets it go on, `abort` or another version ends it"
            ))))
        } else if known.is_over() {
            Some(match known.state.as_str() {
                "completed" => Ok(()),
                other => {
                    let reason = known.reason.as_deref().unwrap_or("nobody said why");
                    Err(CliError::Failed(format!("the rollout ended {other}: {reason}")))
                }
            })
        } else if !pace.next().await {
            Some(Err(CliError::Failed(
                "the rollout did not end in time; it goes on".to_owned(),
            )))
        } else {
            None
        };
        if let Some(ended) = ended {
            bar.finish_and_clear();
            printer.answer(&answer.value, |printer| rollout(printer, &answer.known))?;
            return ended;
        }
    }
}

impl Stage {
    fn is_decided(&self) -> bool {
        matches!(self.state.as_str(), "passed" | "failed")
    }

    /// How the stage stands, as its gate says it.
    fn sentence(&self) -> String {
        let reason = self.gate.as_ref().map_or("", |gate| gate.reason.as_str());
        format!("Stage {} {}: {reason}.", self.name, self.state)
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

    /// The stage that is open, or was opened last.
    fn at_stage(&self) -> Option<&Stage> {
        self.stages.iter().rev().find(|stage| stage.state != "waiting")
    }

    /// Why nothing more will happen by itself.
    fn hold(&self) -> Option<String> {
        let reason = self.reason.as_deref().unwrap_or_default();
        match self.waits_for.as_deref() {
            Some("promotion") => Some(format!("the stage passed and waits to be promoted: {reason}")),
            Some("inconclusive") => Some(format!("the gate can say neither: {reason}")),
            Some("failed") => Some(format!("the gate failed and is held: {reason}")),
            _ => None,
        }
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
        [
            stage.name.clone(),
            format!("{} %", stage.percent),
            stage.state.clone(),
        ]
        .into_iter()
        .chain(counts.iter().map(u64::to_string))
        .collect()
    });
    let opened = rollout.stages.iter().filter(|stage| stage.state != "waiting");
    let gates = opened.filter_map(|stage| stage.gate.as_ref().map(|gate| (stage, gate)));
    let objectives = gates.clone().flat_map(|(stage, gate)| {
        gate.slos.iter().map(|slo| {
            vec![
                stage.name.clone(),
                slo.name.clone(),
                format!("{} of {}", slo.count, slo.of),
                format!("{} %", slo.limit * 100.0),
                slo.state.replace('_', " "),
            ]
        })
    });
    let objectives: Vec<Vec<String>> = objectives.collect();
    let gates = gates.map(|(stage, gate)| {
        vec![
            stage.name.clone(),
            gate.method.clone(),
            gate.verdict.clone(),
            format!("{} of {}", gate.failed, gate.sample),
            format!("{} %", gate.limit * 100.0),
            gate.reason.clone(),
        ]
    });
    let sheet = Sheet::new()
        .fields(vec![
            ("id", Some(rollout.id.clone())),
            (
                "policy",
                Some(format!("{} {}", rollout.policy_name, rollout.version)),
            ),
            ("state", Some(rollout.state.clone())),
            ("waits for", rollout.waits_for.clone()),
            ("reason", rollout.reason.clone()),
            ("touched", Some(rollout.touched.to_string())),
            ("generation", Some(rollout.generation.to_string())),
            ("bundle", Some(rollout.bundle_sha256.clone())),
            ("by", rollout.created_by.clone()),
            ("created", Some(printer.when(rollout.created_at.as_deref()))),
            ("updated", Some(printer.when(rollout.updated_at.as_deref()))),
        ])
        .rows(
            "stages",
            &[
                "stage", "share", "state", "devices", "verified", "failed", "silent", "pending",
            ],
            stages.collect(),
        )
        .rows(
            "gates",
            &["stage", "gate", "verdict", "failed", "limit", "numbers"],
            gates.collect(),
        );
    if objectives.is_empty() {
        return sheet;
    }
    let header = ["stage", "objective", "missed by", "limit", "state"];
    sheet.rows("objectives", &header, objectives)
}

fn decisions(printer: &Printer, decisions: &[Decision]) -> Sheet {
    let row = |decision: &Decision| {
        vec![
            decision.number.to_string(),
            decision.stage.clone(),
            decision.verdict.clone(),
            decision.method.clone(),
            decision.action.clone(),
            printer.ago(decision.at.as_deref()),
            decision.numbers["reason"].as_str().unwrap_or_default().to_owned(),
        ]
    };
    Sheet::new().rows(
        "decisions",
        &["number", "stage", "verdict", "gate", "action", "at", "numbers"],
        decisions.iter().map(row).collect(),
    )
}

fn devices(printer: &Printer, devices: &[RolloutDevice]) -> Sheet {
    let row = |device: &RolloutDevice| {
        vec![
            or_dash(device.name.as_deref()),
            or_dash(device.platform.as_deref()),
            or_dash(device.stage.as_deref()),
            device.state.clone(),
            printer.ago(device.reported_at.as_deref()),
            device.id.clone(),
        ]
    };
    Sheet::new().rows(
        "devices",
        &["name", "platform", "stage", "state", "reported", "id"],
        devices.iter().map(row).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_that_waits_for_a_person_is_held_and_one_that_waits_for_a_window_is_not() {
        let rollout = |waits_for: &str| -> Rollout {
            serde_json::from_value(
                serde_json::json!({"state": "running", "waits_for": waits_for, "reason": "2 of 10"}),
            )
            .expect("a rollout")
        };
        assert_eq!(
            rollout("failed").hold().as_deref(),
            Some("the gate failed and is held: 2 of 10")
        );
        assert!(rollout("promotion").hold().is_some() && rollout("inconclusive").hold().is_some());
        assert!(rollout("window").hold().is_none());
    }

    #[test]
    fn the_stage_that_was_opened_last_is_shown() {
        let rollout: Rollout = serde_json::from_str(
            r#"{"stages":[{"name":"a","state":"passed"},{"name":"b","state":"open"},{"name":"c","state":"waiting"}]}"#,
        )
        .expect("a rollout");
        assert_eq!(rollout.at_stage().map(|stage| stage.name.as_str()), Some("b"));
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
