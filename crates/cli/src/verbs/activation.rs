//! How a version is activated: its target, its stages, and what that would do.

use muster_model::gate::{GateMethod, Promotion};
use muster_model::rollout::read_stages;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::rollout;
use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::output::{Printer, Sheet, or_dash};

/// Whom an activation is for, and in which stages it goes.
#[derive(Clone, Debug, clap::Args)]
pub struct ActivationArgs {
    /// Only for devices of this platform; may be repeated
    #[arg(long, value_name = "PLATFORM")]
    platform: Vec<String>,
    /// Only for this device (id); may be repeated
    #[arg(long, value_name = "ID")]
    device: Vec<String>,
    /// Only for devices in this group (name or id); may be repeated
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// Not for devices in this group (name or id); may be repeated
    #[arg(long, value_name = "GROUP")]
    exclude_group: Vec<String>,
    /// Stages with the percentage of the devices that have the version when they are open: pilot=10,canary=25,full
    #[arg(long, value_name = "STAGES")]
    stages: Option<String>,
    /// How each stage is judged: point, exact, sequential, anytime
    #[arg(long, value_name = "METHOD", value_parser = method)]
    gate: Option<GateMethod>,
    /// How long each stage is open at least: 90s, 30m, 1h, 2d
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    soak: Option<u64>,
    /// A person opens each stage: `muster rollout promote`
    #[arg(long)]
    manual: bool,
    /// Say what it would do, and do nothing
    #[arg(long)]
    dry_run: bool,
}

impl ActivationArgs {
    /// Whether nothing is to be done.
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// As the server takes it: groups by their ids.
    pub async fn resolved(mut self, api: &Api) -> Result<Self, CliError> {
        for groups in [&mut self.group, &mut self.exclude_group] {
            for group in groups {
                let found: Answer<Found> = api.send(Call::get(&["groups", group])).await?;
                *group = found.known.id;
            }
        }
        Ok(self)
    }

    /// The request for a version.
    pub fn body(&self, version: &str) -> Result<Value, CliError> {
        let mut body = json!({"version": version});
        let mut target = Map::new();
        if !self.platform.is_empty() {
            target.insert("platforms".to_owned(), json!(self.platform));
        }
        if !self.device.is_empty() {
            target.insert("devices".to_owned(), json!(self.device));
        }
        if !self.group.is_empty() {
            target.insert("groups".to_owned(), json!(self.group));
        }
        if !self.exclude_group.is_empty() {
            target.insert("exclude_groups".to_owned(), json!(self.exclude_group));
        }
        if !target.is_empty() {
            body["target"] = Value::Object(target);
        }
        let says_how = self.gate.is_some() || self.soak.is_some() || self.manual;
        if self.stages.is_none() && !says_how {
            return Ok(body);
        }
        let text = self.stages.as_deref().unwrap_or("pilot=10,canary=25,full");
        let method = self.gate.unwrap_or(GateMethod::Point);
        let mut stages =
            read_stages(text, method).map_err(|why| CliError::Usage(format!("--stages: {why}")))?;
        for stage in &mut stages {
            stage.soak_seconds = self.soak;
            stage.promotion = self.manual.then_some(Promotion::Manual);
        }
        body["stages"] = json!(stages);
        Ok(body)
    }
}

/// The part of a group that is needed to name it.
#[derive(serde::Deserialize)]
struct Found {
    id: String,
}

/// Reads the method of a gate.
pub fn method(text: &str) -> Result<GateMethod, String> {
    let methods = [
        GateMethod::Point,
        GateMethod::Exact,
        GateMethod::Sequential,
        GateMethod::Anytime,
    ];
    methods
        .into_iter()
        .find(|method| method.as_str() == text)
        .ok_or_else(|| "a gate is point, exact, sequential or anytime".to_owned())
}

/// Reads `90s`, `30m`, `1h`, `2d`, or seconds.
pub fn seconds(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        Some((at, 'd')) => (&text[..at], 86_400),
        _ => (text, 1),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "write 90s, 30m, 1h or 2d".to_owned())?;
    number.checked_mul(unit).ok_or_else(|| "too long".to_owned())
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Preview {
    version: String,
    replaces: Option<String>,
    devices: u64,
    stages: Vec<Stage>,
    conflicts: Vec<Conflict>,
    warnings: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Stage {
    name: String,
    percent: f64,
    devices: u64,
    gate_method: String,
    failures_allowed: Option<u64>,
    strata: Vec<Stratum>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Stratum {
    platform: String,
    model: Option<String>,
    devices: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Conflict {
    setting: String,
    policy_name: String,
    version: String,
}

/// Shows what an activation would do.
pub async fn preview(api: &Api, printer: &Printer, policy: &str, body: Value) -> Result<(), CliError> {
    let call = Call::post(&["policies", policy, "activation-preview"]).body(body);
    let answer: Answer<Preview> = api.send(call).await?;
    printer.answer(&answer.value, |_| sheet(&answer.known))
}

/// Starts a rollout, and watches it if that is asked for.
pub async fn activate(api: &Api, printer: &Printer, call: Call<'_>, wait: bool) -> Result<(), CliError> {
    #[derive(Deserialize)]
    struct Activated {
        rollout_id: String,
    }
    let answer: Answer<Activated> = api.send(call).await?;
    let rollout = answer.known.rollout_id;
    if !wait {
        printer.answer(&answer.value, |_| Sheet::new().text(rollout.clone()))?;
        printer.note(&format!("Watch it with `muster rollout watch {rollout}`."));
        return Ok(());
    }
    rollout::watch(api, printer, &rollout, None).await
}

fn sheet(preview: &Preview) -> Sheet {
    let stages = preview.stages.iter().map(|stage| {
        let failures = stage.failures_allowed.map(|failures| failures.to_string());
        vec![
            stage.name.clone(),
            format!("{} %", stage.percent),
            stage.devices.to_string(),
            stage.gate_method.clone(),
            or_dash(failures.as_deref()),
        ]
    });
    let strata = preview.stages.iter().flat_map(|stage| {
        stage.strata.iter().map(|stratum| {
            vec![
                stage.name.clone(),
                stratum.platform.clone(),
                or_dash(stratum.model.as_deref()),
                stratum.devices.to_string(),
            ]
        })
    });
    let conflicts = preview.conflicts.iter();
    let conflicts = conflicts.map(|conflict| {
        vec![
            conflict.setting.clone(),
            format!("{} {}", conflict.policy_name, conflict.version),
        ]
    });
    let warnings = preview.warnings.iter().map(|warning| vec![warning.clone()]);
    Sheet::new()
        .fields(vec![
            ("version", Some(preview.version.clone())),
            ("replaces", preview.replaces.clone()),
            ("devices", Some(preview.devices.to_string())),
        ])
        .rows(
            "stages",
            &["stage", "share", "devices", "gate", "failures allowed"],
            stages.collect(),
        )
        .rows(
            "devices",
            &["stage", "platform", "model", "devices"],
            strata.collect(),
        )
        .rows("conflicts", &["setting", "also set by"], conflicts.collect())
        .rows("warnings", &["warning"], warnings.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        activation: ActivationArgs,
    }

    fn body(words: &[&str]) -> Result<Value, CliError> {
        use clap::Parser;
        let line = Line::try_parse_from(std::iter::once(&"x").chain(words)).expect("the line is read");
        line.activation.body("2026.05")
    }

    #[test]
    fn p6_nothing_but_a_version_is_the_literal_body_of_the_contract() {
        assert_eq!(body(&[]).expect("it is a body"), json!({"version": "2026.05"}));
    }

    #[test]
    fn p6_stages_gates_soak_and_promotion_are_sent() {
        let sent = body(&[
            "--stages",
            "a=10,full",
            "--gate",
            "exact",
            "--soak",
            "1h",
            "--manual",
        ])
        .expect("it is a body");
        assert_eq!(sent["stages"][0]["percent"], 10);
        assert_eq!(sent["stages"][1]["name"], "full");
        for stage in sent["stages"].as_array().expect("it is a list") {
            assert_eq!(
                (&stage["gate"]["method"], &stage["soak_seconds"]),
                (&json!("exact"), &json!(3600))
            );
            assert_eq!(stage["promotion"], "manual");
        }
        assert_eq!(
            body(&["--manual"]).expect("it is a body")["stages"]
                .as_array()
                .map(Vec::len),
            Some(3)
        );
        assert!(body(&["--stages", "a=x"]).is_err());
    }

    #[test]
    fn a_target_is_sent_only_when_it_restricts() {
        let linux = body(&["--platform", "linux"]).expect("it is a body");
        assert_eq!(
            linux,
            json!({"version": "2026.05", "target": {"platforms": ["linux"]}})
        );
    }

    #[test]
    fn times_are_read() {
        assert_eq!(
            (seconds("90s"), seconds("2d"), seconds("7")),
            (Ok(90), Ok(172_800), Ok(7))
        );
        assert!(seconds("h").is_err() && seconds("1w").is_err() && seconds("99999999999999999999d").is_err());
    }
}
