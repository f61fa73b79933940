//! The test's rollout, over the admin API: what an operator would do, and what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::report::{FailureRow, GapRow, RollBack, StageRow, TestReport};
use super::{Content, PolicyTest, VERSION_BEFORE};
use crate::api::{Answer, Api, Call};
use crate::context::{AdminFile, Context};
use crate::verbs::{Page, Paging, list};
use crate::{CliError, progress};

/// How often something that is waited for is asked about.
const ASKED_EVERY: Duration = Duration::from_millis(200);
/// Devices that are silent from the beginning never say which model they are: the others have, when nobody new did for so long.
const SETTLED_AFTER: Duration = Duration::from_secs(4);
/// How long the devices that answered may take to be back. Silent ones are not waited for.
const BACK_TIME_MAX: Duration = Duration::from_secs(120);
/// The version before is not judged: the largest limit that a gate takes.
const BEFORE_LIMIT: f64 = 0.999_999;

/// A rollout, as far as a test looks at it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Rollout {
    state: String,
    waits_for: Option<String>,
    reason: Option<String>,
    touched: u64,
    stages: Vec<StageRow>,
}

/// A device of a rollout, with what it reported.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Device {
    device_id: String,
    platform: String,
    model: Option<String>,
    state: String,
    settings: BTreeMap<String, Setting>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Setting {
    state: String,
    detail: Option<String>,
}

struct Run<'a> {
    api: Api,
    test: &'a PolicyTest,
    deadline: Instant,
}

/// Waits for the fleet, makes the versions, rolls the tested one out, and takes it back where a gate stopped it.
///
/// # Errors
/// Only where no verdict came: the API refuses the version, cannot be reached, or the time is over.
pub async fn drive(test: &PolicyTest, admin_file: &Path) -> Result<TestReport, CliError> {
    let run = Run {
        api: Api::new(Context::from_admin_file(&AdminFile::read(admin_file)?)?)?,
        test,
        deadline: Instant::now() + test.timeout,
    };
    run.fleet().await?;
    let call = Call::create(&["policies"], json!({"name": test.policy}), None);
    run.ask::<Value>(call).await?;
    if let Some(before) = &test.before {
        run.version(VERSION_BEFORE, before).await?;
        run.bring_before().await?;
    }
    run.version(&test.version, &test.tested).await?;
    let begun = Instant::now();
    let body = json!({"version": test.version, "stages": test.stages});
    let id = run.activate(body).await?;
    let rollout = run.watch(&id).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let devices = run.devices(&id).await?;
    let roll_back = match rollout.state.as_str() {
        "completed" => None,
        _ => Some(run.roll_back(&id, &devices).await?),
    };
    Ok(report(test, rollout, &devices, roll_back, seconds))
}

impl Run<'_> {
    async fn ask<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, CliError> {
        let answer: Answer<T> = self.api.send(call).await?;
        Ok(answer.known)
    }

    /// Waits a little; fails where the time is over.
    async fn pause(&self, until: &str) -> Result<(), CliError> {
        if Instant::now() >= self.deadline {
            return Err(CliError::Failed(format!(
                "{until} within {} s: give it a longer --timeout, or fewer --devices",
                self.test.timeout.as_secs()
            )));
        }
        tokio::time::sleep(ASKED_EVERY).await;
        Ok(())
    }

    /// Waits until every device is enrolled and has said which model it is, so that stages are drawn from every model.
    async fn fleet(&self) -> Result<(), CliError> {
        #[derive(Deserialize)]
        struct Overview {
            devices: Total,
        }
        #[derive(Deserialize)]
        struct Total {
            total: u64,
        }
        loop {
            let overview: Overview = self.ask(Call::get(&["overview"])).await?;
            if overview.devices.total >= u64::from(self.test.devices) {
                break;
            }
            self.pause("the simulated devices were not enrolled").await?;
        }
        let (mut described, mut changed) = (0, Instant::now());
        loop {
            let devices: Vec<Value> = self.list(Call::get(&["devices"])).await?;
            let now = devices
                .iter()
                .filter(|device| device["model"].is_string())
                .count();
            if now >= devices.len() || (now == described && changed.elapsed() >= SETTLED_AFTER) {
                return Ok(());
            }
            if now != described {
                (described, changed) = (now, Instant::now());
            }
            self.pause("the simulated devices did not say what they are")
                .await?;
        }
    }

    async fn list<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<Vec<T>, CliError> {
        let every = Paging {
            all: true,
            ..Paging::default()
        };
        let answer: Answer<Page<T>> = list(&self.api, call, &every).await?;
        Ok(answer.known.items)
    }

    async fn devices(&self, rollout: &str) -> Result<Vec<Device>, CliError> {
        self.list(Call::get(&["rollouts", rollout, "devices"])).await
    }

    async fn version(&self, version: &str, content: &Content) -> Result<(), CliError> {
        let body = json!({"version": version, "settings": content.settings, "rules": content.rules});
        let call = Call::create(&["policies", &self.test.policy, "versions"], body, None);
        self.ask::<Value>(call).await.map(drop)
    }

    async fn activate(&self, body: Value) -> Result<String, CliError> {
        #[derive(Deserialize)]
        struct Activated {
            rollout_id: String,
        }
        let call = Call::create(&["policies", &self.test.policy, "activate"], body, None);
        let activated: Activated = self.ask(call).await?;
        Ok(activated.rollout_id)
    }

    /// Brings the version before to every device at once, whatever fails there: it is not what is tested.
    async fn bring_before(&self) -> Result<(), CliError> {
        let gate = json!({"limit": BEFORE_LIMIT, "on_failure": "hold"});
        let body = json!({"version": VERSION_BEFORE, "stages": [{"name": "full", "gate": gate}]});
        let id = self.activate(body).await?;
        let rollout = self.watch(&id).await?;
        if rollout.state == "completed" {
            return Ok(());
        }
        let why = rollout.reason.unwrap_or_default();
        Err(CliError::Failed(format!(
            "the version of --before reached no device, so there is nothing to test on: {why}"
        )))
    }

    /// Follows a rollout until it is over, or held by a gate whose stage has answered.
    async fn watch(&self, id: &str) -> Result<Rollout, CliError> {
        let bar = progress::bar(0, "devices reported");
        let ended = loop {
            let rollout: Rollout = self.ask(Call::get(&["rollouts", id])).await?;
            rollout.show_on(&bar);
            if rollout.is_decided() {
                break rollout;
            }
            if let Err(late) = self.pause("the rollout came to no end").await {
                bar.finish_and_clear();
                return Err(late);
            }
        };
        bar.finish_and_clear();
        Ok(ended)
    }

    /// Does what a gate does by itself in production, after it was read what failed: takes the version from the devices that it
    /// reached, and waits until each of them that answers has said so.
    async fn roll_back(&self, id: &str, devices: &[Device]) -> Result<RollBack, CliError> {
        #[derive(Deserialize)]
        struct Settings {
            is_current: bool,
            policies: Vec<Policy>,
        }
        #[derive(Deserialize)]
        struct Policy {
            version: String,
        }
        let begun = Instant::now();
        let call = Call::post(&["rollouts", id, "rollback"]);
        let undone: Value = self.ask(call).await?;
        let reached = devices.iter().filter(|device| device.has_answered());
        let mut waiting: BTreeSet<&str> = reached.map(|device| device.device_id.as_str()).collect();
        let answered = waiting.len();
        while !waiting.is_empty() && begun.elapsed() < BACK_TIME_MAX {
            for device in waiting.clone() {
                let settings: Settings = self.ask(Call::get(&["devices", device, "settings"])).await?;
                let has_it = settings
                    .policies
                    .iter()
                    .any(|policy| policy.version == self.test.version);
                if settings.is_current && !has_it {
                    waiting.remove(device);
                }
            }
            self.pause("the devices were not back").await?;
        }
        Ok(RollBack {
            to: undone["replacement_id"]
                .as_str()
                .map(|_| VERSION_BEFORE.to_owned()),
            back: (answered - waiting.len()) as u64,
            not_back: waiting.len() as u64,
            never_answered: undone["touched"]
                .as_u64()
                .unwrap_or_default()
                .saturating_sub(answered as u64),
            seconds: begun.elapsed().as_secs_f64(),
        })
    }
}

impl Rollout {
    /// Whether nothing more comes by itself. A gate may hold before its whole stage answered: the rest is waited for, so that the
    /// report does not depend on who was first.
    fn is_decided(&self) -> bool {
        let is_over = !matches!(self.state.as_str(), "running" | "paused");
        let is_held = matches!(self.waits_for.as_deref(), Some("failed" | "inconclusive"));
        is_over || (is_held && self.at_stage().is_none_or(|stage| stage.pending == 0))
    }

    fn at_stage(&self) -> Option<&StageRow> {
        self.stages.iter().rev().find(|stage| stage.state != "waiting")
    }

    fn show_on(&self, bar: &ProgressBar) {
        if let Some(stage) = self.at_stage() {
            bar.set_length(stage.devices);
            bar.set_position(stage.devices.saturating_sub(stage.pending));
            bar.set_prefix(format!(
                "stage {}: {} verified, {} failed, {} silent",
                stage.name, stage.verified, stage.failed, stage.silent
            ));
        }
    }
}

impl Device {
    /// Whether it reported on the version that is rolled out.
    fn has_answered(&self) -> bool {
        !matches!(self.state.as_str(), "waiting" | "pending" | "silent")
    }

    fn model(&self) -> String {
        self.model.clone().unwrap_or_default()
    }
}

fn report(
    test: &PolicyTest,
    rollout: Rollout,
    devices: &[Device],
    roll_back: Option<RollBack>,
    seconds: f64,
) -> TestReport {
    let is_completed = rollout.state == "completed";
    let stopped_in = rollout.at_stage().filter(|_| !is_completed);
    let reason = match (&rollout.reason, stopped_in.and_then(|stage| stage.gate.as_ref())) {
        (Some(reason), _) => Some(reason.clone()),
        (None, gate) => gate.map(|gate| gate.reason.clone()),
    };
    TestReport {
        result: if is_completed { "completed" } else { "stopped" }.to_owned(),
        policy: test.policy.clone(),
        version: test.version.clone(),
        devices: test.devices,
        seed: test.seed,
        stopped_in: stopped_in.map(|stage| stage.name.clone()),
        reason: reason.filter(|_| !is_completed),
        touched: rollout.touched,
        failures: failures(devices),
        gaps: gaps(devices),
        stages: rollout.stages,
        roll_back,
        seconds,
    }
}

/// What failed, how often and on which model, most first.
fn failures(devices: &[Device]) -> Vec<FailureRow> {
    let mut asked: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut failed: BTreeMap<(String, String, String), (u64, String)> = BTreeMap::new();
    for device in devices.iter().filter(|device| device.has_answered()) {
        *asked
            .entry((device.platform.clone(), device.model()))
            .or_default() += 1;
        for (key, setting) in device
            .settings
            .iter()
            .filter(|(_, setting)| setting.state == "failed")
        {
            let (count, why) = failed
                .entry((key.clone(), device.platform.clone(), device.model()))
                .or_default();
            *count += 1;
            if why.is_empty() {
                *why = setting.detail.clone().unwrap_or_default();
            }
        }
    }
    let mut rows: Vec<FailureRow> = failed
        .into_iter()
        .map(|((setting, platform, model), (devices, why))| FailureRow {
            of: asked
                .get(&(platform.clone(), model.clone()))
                .copied()
                .unwrap_or_default(),
            setting,
            platform,
            model,
            devices,
            why,
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.devices));
    rows
}

/// What is weaker than asked, or not there, on which platform.
fn gaps(devices: &[Device]) -> Vec<GapRow> {
    let mut gaps: BTreeMap<(String, String, String, String), u64> = BTreeMap::new();
    for device in devices.iter().filter(|device| device.has_answered()) {
        for (key, setting) in &device.settings {
            if matches!(setting.state.as_str(), "weaker" | "not_expressible") {
                let why = setting.detail.clone().unwrap_or_default();
                *gaps
                    .entry((key.clone(), device.platform.clone(), setting.state.clone(), why))
                    .or_default() += 1;
            }
        }
    }
    gaps.into_iter()
        .map(|((setting, platform, state, why), devices)| GapRow {
            setting,
            platform,
            state,
            devices,
            why,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_counted_by_setting_and_model_among_those_that_answered() {
        let device = |model: &str, state: &str, setting: &str| -> Device {
            serde_json::from_value(json!({
                "device_id": "d", "platform": "linux", "model": model, "state": state,
                "settings": {"a.b": {"state": setting, "detail": "why"}},
            }))
            .expect("it is a device")
        };
        let devices = [
            device("m", "failed", "failed"),
            device("m", "verified", "verified"),
            device("m", "waiting", "failed"),
            device("n", "weaker", "weaker"),
        ];
        let rows = failures(&devices);
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].devices, rows[0].of, rows[0].why.as_str()), (1, 2, "why"));
        let gaps = gaps(&devices);
        assert_eq!(
            (gaps.len(), gaps[0].devices, gaps[0].state.as_str()),
            (1, 1, "weaker")
        );
    }

    #[test]
    fn a_held_stage_is_decided_when_everybody_answered() {
        let rollout = |pending: u64, waits_for: Option<&str>| -> Rollout {
            serde_json::from_value(json!({
                "state": "running", "waits_for": waits_for,
                "stages": [{"name": "pilot", "state": "failed", "pending": pending}, {"name": "full", "state": "waiting"}],
            }))
            .expect("it is a rollout")
        };
        assert!(rollout(0, Some("failed")).is_decided() && rollout(0, Some("inconclusive")).is_decided());
        assert!(!rollout(3, Some("failed")).is_decided());
        assert!(!rollout(0, Some("window")).is_decided() && !rollout(0, None).is_decided());
    }
}
