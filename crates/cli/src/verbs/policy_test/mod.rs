//! `muster policy test`: a version against a simulated fleet, with the gates that it would meet.
//!
//! Here is what a client does of it: its flags and files ([`PolicyTestArgs`]), the rollout over the admin API ([`drive`]), and the
//! report ([`show`]). The control plane and the fleet, which live as long as the test, are the binary's.

mod drive;
mod report;

use std::path::{Path, PathBuf};

use muster_model::gate::{GateMethod, GateRule, OnFailure, OnInconclusive};
use muster_model::rollout::{StageRequest, plan_of, read_stages};
use muster_model::rules::Rule;
use muster_model::settings::Settings;
use muster_model::statistics::Ppm;
use serde_json::{Value, json};

pub use drive::drive;
pub use report::{TestReport, show};

use super::{activation, bundle};
use crate::CliError;
use crate::folder::{read_settings, secrets};

pub const HELP: &str = "Examples:\n  muster policy test --bundle policy.zip --devices 500 --seed 1\n  muster policy test --settings \
    settings.yml --before before.yml --fault 'Fieldbook 14:camera.allowed=0.02'\n  muster policy test --settings settings.yml \
    --silent-rate 0.3 --gate exact --limit 0.01 -o json\n\nA control plane and simulated devices are started in this process, over \
    the real wire, and nothing of them stays. A bundle need not be signed, and its signature is not checked: `muster bundle \
    verify` does that. Exit code 0 if the rollout completed, 1 if a gate stopped it, 2 for wrong flags.";

/// Most simulated devices of a test.
const DEVICES_MAX: i64 = 100_000;
/// How long a device may be silent in a small fleet, in seconds.
const SILENT_AFTER_SECONDS: u64 = 20;
/// A larger fleet takes longer to answer: a second more for each of so many devices.
const DEVICES_PER_SILENT_SECOND: u64 = 25;
/// The policy and version that are tested where a bundle names none.
const NAME: &str = "tested";
const VERSION: &str = "1";
/// The version that is active before.
const VERSION_BEFORE: &str = "before";

/// What `policy test` takes.
#[derive(Clone, Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("content").required(true).multiple(true).args(["bundle", "settings", "rules"])))]
pub struct PolicyTestArgs {
    /// A bundle, signed or a draft
    #[arg(long, value_name = "FILE", conflicts_with_all = ["settings", "rules"])]
    bundle: Option<PathBuf>,
    /// Settings: a mapping, YAML or JSON
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Rules: a list, YAML or JSON
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Secrets that the settings refer to by {secret: NAME}
    #[arg(long, value_name = "FILE")]
    secrets_file: Option<PathBuf>,
    /// What is in force before: a bundle, or settings. Without it a roll-back takes the policy away
    #[arg(long, value_name = "FILE")]
    before: Option<PathBuf>,
    /// How many simulated devices
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=DEVICES_MAX))]
    pub devices: u32,
    /// Which fleet: its models and what fails where
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Part of the devices on which some setting fails
    #[arg(long, value_name = "RATE", default_value_t = 0.0, value_parser = rate)]
    pub fail_rate: f64,
    /// Part of the devices that enroll and are never heard of again
    #[arg(long, value_name = "RATE", default_value_t = 0.0, value_parser = rate)]
    pub silent_rate: f64,
    /// A setting that fails on a part of the devices of one model: MODEL:SETTING=RATE; may be repeated
    #[arg(long = "fault", value_name = "FAULT")]
    pub faults: Vec<String>,
    /// How the fleet's conditions change, as for `muster farm`; its seconds count from the first enrollment
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,
    /// Stages with the percentage of the devices that have the version when they are open
    #[arg(long, value_name = "STAGES", default_value = "pilot=10,canary=25,full")]
    stages: String,
    /// How each stage is judged: point, exact, sequential, anytime
    #[arg(long, value_name = "METHOD", default_value = "point", value_parser = activation::method)]
    gate: GateMethod,
    /// The share of failures that every stage must stay below
    #[arg(long, value_name = "RATE", default_value = "0.005", value_parser = limit)]
    limit: Ppm,
    /// A device that did not answer for so long counts as failed [default: 20, and one more for each 25 devices]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    silent_after: Option<u64>,
    /// Give up after this time
    #[arg(long, value_name = "SECONDS", default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

/// Settings and rules, as the API takes them.
#[derive(Clone, Debug)]
struct Content {
    settings: Value,
    rules: Value,
}

/// A test whose files were read and whose flags fit together.
#[derive(Clone, Debug)]
pub struct PolicyTest {
    policy: String,
    version: String,
    tested: Content,
    before: Option<Content>,
    stages: Vec<StageRequest>,
    devices: u32,
    seed: u64,
    /// After how many seconds a device counts as silent.
    pub silent_after_seconds: u64,
    timeout: std::time::Duration,
}

impl PolicyTestArgs {
    /// Reads the files, and checks everything that can be checked before a fleet is there.
    ///
    /// # Errors
    /// Flags that contradict each other, stages that are no plan, files that are no bundle, settings or rules.
    pub fn read(&self) -> Result<PolicyTest, CliError> {
        let stages = self.plan()?;
        let known = match &self.secrets_file {
            Some(path) => secrets::read_file(path)?,
            None => secrets::Secrets::new(),
        };
        let (policy, version, tested) = match &self.bundle {
            Some(path) => bundle_content(path)?,
            None => {
                let settings = match &self.settings {
                    Some(path) => read_settings(path, &known)?,
                    None => Settings::default(),
                };
                let rules = match &self.rules {
                    Some(path) => bundle::read_rules(path)?,
                    None => Vec::new(),
                };
                (NAME.to_owned(), VERSION.to_owned(), content(&settings, &rules)?)
            }
        };
        let before = match &self.before {
            Some(path) if bundle::is_archive(path)? => Some(bundle_content(path)?.2),
            Some(path) => Some(content(&read_settings(path, &known)?, &[])?),
            None => None,
        };
        let patience = SILENT_AFTER_SECONDS + u64::from(self.devices) / DEVICES_PER_SILENT_SECOND;
        Ok(PolicyTest {
            policy,
            version,
            tested,
            before,
            stages,
            devices: self.devices,
            seed: self.seed,
            silent_after_seconds: self.silent_after.unwrap_or(patience),
            timeout: std::time::Duration::from_secs(self.timeout),
        })
    }

    /// The stages, with gates that hold when they fail: what failed is read before the devices go back.
    fn plan(&self) -> Result<Vec<StageRequest>, CliError> {
        let usage = |why: String| CliError::Usage(format!("--stages: {why}"));
        let mut stages = read_stages(&self.stages, self.gate).map_err(usage)?;
        for stage in &mut stages {
            stage.gate = Some(GateRule {
                limit: self.limit,
                on_failure: OnFailure::Hold,
                on_inconclusive: OnInconclusive::Hold,
                ..GateRule::by(self.gate)
            });
        }
        plan_of(&stages).map_err(|why| usage(why.to_string()))?;
        Ok(stages)
    }
}

/// The policy's name, the version and the content of a bundle or draft.
fn bundle_content(path: &Path) -> Result<(String, String, Content), CliError> {
    let read = bundle::unchecked(path)?;
    let content = content(&read.settings, &read.rules)?;
    Ok((
        read.manifest.policy_name,
        read.manifest.version.to_string(),
        content,
    ))
}

fn content(settings: &Settings, rules: &[Rule]) -> Result<Content, CliError> {
    if settings.is_empty() && rules.is_empty() {
        return Err(CliError::Usage(
            "there is nothing to test: no setting and no rule".to_owned(),
        ));
    }
    let settings = serde_json::from_str(&settings.canonical_json());
    let settings: Value = settings.map_err(|error| CliError::Failed(error.to_string()))?;
    Ok(Content {
        settings,
        rules: json!(rules),
    })
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.0..=1.0).contains(&rate) => Ok(rate),
        Ok(_) | Err(_) => Err("a rate is a number from 0 to 1".to_owned()),
    }
}

fn limit(text: &str) -> Result<Ppm, String> {
    let fraction = text.parse::<f64>().ok();
    fraction
        .and_then(Ppm::from_fraction)
        .ok_or_else(|| "a limit is between 0 and 1, such as 0.005".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        test: PolicyTestArgs,
    }

    fn read(words: &[&str]) -> Result<PolicyTest, String> {
        let line = Line::try_parse_from(std::iter::once(&"x").chain(words));
        let line = line.map_err(|error| error.to_string())?;
        line.test.read().map_err(|error| error.to_string())
    }

    #[test]
    fn files_and_flags_become_a_test() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("it can be written");
            path.display().to_string()
        };
        let settings = path("settings.yml", "camera.allowed: false\n");
        let before = path("before.json", r#"{"camera.allowed": true}"#);
        let test = read(&[
            "--settings",
            &settings,
            "--before",
            &before,
            "--stages",
            "a=20,full",
            "--gate",
            "exact",
            "--limit",
            "0.01",
            "--devices",
            "1000",
        ])
        .expect("it is a test");
        assert_eq!(
            (
                test.policy.as_str(),
                test.version.as_str(),
                test.silent_after_seconds
            ),
            (NAME, VERSION, 60)
        );
        assert_eq!(test.tested.settings, json!({"camera.allowed": false}));
        assert_eq!(
            test.before.expect("it is there").settings,
            json!({"camera.allowed": true})
        );
        let stages = json!(test.stages);
        assert_eq!(
            (
                &stages[0]["percent"],
                &stages[1]["gate"]["method"],
                &stages[1]["gate"]["limit"]
            ),
            (&json!(20), &json!("exact"), &json!(0.01))
        );
        assert_eq!(stages[0]["gate"]["on_failure"], "hold");
        for wrong in [
            &["--devices", "5"][..],
            &["--settings", &settings, "--bundle", "policy.zip"],
            &["--settings", &settings, "--stages", "a=20,b=10,full"],
            &["--settings", &settings, "--gate", "hope"],
            &["--settings", &settings, "--limit", "2"],
            &["--settings", &settings, "--fail-rate", "2"],
            &["--settings", &settings, "--devices", "0"],
            &["--bundle", &settings],
            &["--settings", &path("empty.yml", "{}")],
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
