//! `muster export`, `muster plan` and `muster apply`: a tenant's configuration as a folder of files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::context::write_private;
use crate::error::Problem;
use crate::folder::{Exported, Folder, secrets, write};
use crate::output::{Printer, Sheet};
use crate::progress::{self, Pace};

use super::activation::seconds;

pub const EXPORT_HELP: &str = "Examples:\n  muster export --out config\n  muster export --out config --secrets-out \
    secrets.json\n\nSecrets are not written into the folder: {secret: NAME} stands where one was. `plan` and `apply` take \
    them from --secrets-file, or from the version that the server has.";
pub const PLAN_HELP: &str = "Examples:\n  muster plan -f config\n  muster plan -f config --prune -o json\n  muster plan -f \
    config --exit-code\n\nWith --exit-code the exit code is 3 where the folder and the server differ.";
pub const APPLY_HELP: &str = "Examples:\n  muster apply -f config\n  muster apply -f config --plan-sha256 \
    9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\n  muster apply -f config --prune --deletion-budget 2\
    \n\nNothing is deleted by leaving it out: a plan that leaves something out needs --prune, or --partial. What is \
    activated for a group that the folder makes or changes is activated in a second step, when the members of the group \
    are known.";

/// How often a plan is applied again that was refused as changed, and was not.
const TRIES_MAX: u32 = 5;

/// Flags of `export`.
#[derive(Clone, Debug, clap::Args)]
pub struct ExportArgs {
    /// The folder to write: empty, or an earlier export
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Also write the secrets, by name, into a file that only its owner can read; keep it out of Git
    #[arg(long, value_name = "FILE")]
    secrets_out: Option<PathBuf>,
}

/// What `plan` and `apply` have in common.
#[derive(Clone, Debug, clap::Args)]
pub struct Source {
    /// The folder with default.yml
    #[arg(short = 'f', long = "folder", value_name = "DIR")]
    folder: PathBuf,
    /// Secrets that the folder refers to: a mapping of names to texts
    #[arg(long, value_name = "FILE")]
    secrets_file: Option<PathBuf>,
    /// Delete what the folder leaves out: withdraw what is active, archive policies, delete groups
    #[arg(long, conflicts_with = "partial")]
    prune: bool,
    /// The folder is a part of the configuration: keep what it leaves out
    #[arg(long)]
    partial: bool,
}

/// Flags of `plan`.
#[derive(Clone, Debug, clap::Args)]
pub struct PlanArgs {
    #[command(flatten)]
    source: Source,
    /// Exit with 3 where anything differs
    #[arg(long)]
    exit_code: bool,
}

/// Flags of `apply`.
#[derive(Clone, Debug, clap::Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    source: Source,
    /// Apply exactly the plan that was looked at
    #[arg(long, value_name = "SHA256")]
    plan_sha256: Option<String>,
    /// How many deletions are expected at most; 5 unless given
    #[arg(long, value_name = "N", requires = "prune")]
    deletion_budget: Option<u32>,
    /// How long to wait until the members of groups are known: 90s, 30m, 1h
    #[arg(long, value_name = "TIME", value_parser = seconds, default_value = "10m")]
    group_timeout: u64,
    /// Repeating the request with the same key applies it once
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Plan {
    plan_sha256: String,
    changes: Vec<Change>,
    deletions: usize,
}

#[derive(Clone, Debug, Deserialize)]
struct Change {
    action: String,
    group: Option<String>,
    policy: Option<String>,
    version: Option<String>,
    #[serde(default)]
    detail: String,
    rollout_id: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Applied {
    applied: Vec<Change>,
}

/// Writes the configuration into a folder.
pub async fn export(arguments: ExportArgs, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let answer: Answer<Value> = api.send(Call::get(&["export"])).await?;
    let exported = Exported::of(&answer.value)?;
    let left = write(&arguments.out, &exported)?;
    if let Some(path) = &arguments.secrets_out {
        let text = serde_json::to_string_pretty(&exported.secrets)
            .map_err(|error| CliError::Answer(error.to_string()))?;
        write_private(path, format!("{text}\n").as_bytes())?;
    }
    for path in &left {
        printer.note(&format!(
            "{} is not of this export and was left: remove it, or apply it",
            path.display()
        ));
    }
    let files: Vec<&str> = exported.files.iter().map(|(path, _)| path.as_str()).collect();
    let names: Vec<&String> = exported.secrets.keys().collect();
    let value = json!({"folder": arguments.out, "files": files, "secrets": names});
    printer.answer(&value, |_| {
        Sheet::new().fields(vec![
            ("folder", Some(arguments.out.display().to_string())),
            ("files", Some(files.len().to_string())),
            ("secrets", Some(names.len().to_string())),
        ])
    })
}

/// Shows what applying a folder would do.
pub async fn plan(arguments: PlanArgs, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let Planned { answer, .. } = planned(&arguments.source, api).await?;
    printer.answer(&answer.value, |_| sheet_of(&answer.known))?;
    let is_different = answer.known.differences().next().is_some();
    if arguments.exit_code && is_different {
        return Err(CliError::Drift);
    }
    Ok(())
}

/// Applies a folder. What waits for groups that the folder makes or changes is planned once more when they are made, and
/// applied if it is what was left.
pub async fn apply(arguments: ApplyArgs, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let Planned { body, answer } = planned(&arguments.source, api).await?;
    let plan = answer.known;
    printer.aside(&sheet_of(&plan));
    if let Some(expected) = &arguments.plan_sha256
        && !expected.eq_ignore_ascii_case(&plan.plan_sha256)
    {
        return Err(CliError::Failed(format!(
            "the plan is another one now: {}. Nothing was changed; look at it, and apply it by this digest",
            plan.plan_sha256
        )));
    }
    let mut pace = Pace::new(Some(Duration::from_secs(arguments.group_timeout)));
    let key = arguments.idempotency_key.clone();
    let mut made = carry_out(&plan, &body, &arguments, key, api, &mut pace).await?;
    if plan.later().next().is_some() {
        printer.aside(&applied_sheet(&made.known.applied));
        printer.note("The groups are made; the rest is activated when their members are known.");
        let answer: Answer<Plan> = api.send(Call::post(&["plan"]).body(body.clone())).await?;
        let rest = answer.known;
        require_rest(&plan, &rest)?;
        if rest.to_make().next().is_some() {
            let key = arguments
                .idempotency_key
                .as_ref()
                .map(|key| format!("{key}-later"));
            let more = carry_out(&rest, &body, &arguments, key, api, &mut pace).await?;
            made = joined(made, more);
        }
    }
    printer.answer(&made.value, |_| applied_sheet(&made.known.applied))
}

/// Has the server apply a plan. While the members of its groups are being found, it asks again; also where a stage of a
/// rollout opened at the same moment, which refuses a plan that is still the same.
async fn carry_out(
    plan: &Plan,
    document: &Value,
    arguments: &ApplyArgs,
    key: Option<String>,
    api: &Api,
    pace: &mut Pace,
) -> Result<Answer<Applied>, CliError> {
    let mut body = json!({"plan_sha256": plan.plan_sha256});
    if let Some(budget) = arguments.deletion_budget {
        body["deletion_budget"] = budget.into();
    }
    let mut spinner = None;
    let mut tries = 0;
    loop {
        let call = Call::create(&["apply"], body.clone(), key.clone());
        match api.send(call).await {
            Err(CliError::Refused(problem)) if problem.is_for_now() => {
                spinner
                    .get_or_insert_with(|| progress::spinner("waiting for the members of groups".to_owned()));
                if !pace.next().await {
                    return Err(CliError::Refused(problem));
                }
            }
            Err(CliError::Refused(problem)) if problem.code == "plan_changed" && tries < TRIES_MAX => {
                tries += 1;
                let again: Answer<Plan> = api.send(Call::post(&["plan"]).body(document.clone())).await?;
                if again.known.plan_sha256 != plan.plan_sha256 {
                    return Err(CliError::Refused(problem));
                }
            }
            answer => return answer,
        }
    }
}

/// What the second plan of a folder may do is what the first one left for it.
fn require_rest(plan: &Plan, rest: &Plan) -> Result<(), CliError> {
    let is_left = |change: &Change| {
        change.action == "activate"
            && plan
                .later()
                .any(|later| (&later.policy, &later.version) == (&change.policy, &change.version))
    };
    match rest.differences().find(|change| !is_left(change)) {
        None => Ok(()),
        Some(other) => Err(CliError::Failed(format!(
            "the first part of the plan was applied, and what is left is another plan now ({} {}). Nothing more was \
             changed; look at it with `muster plan`",
            other.action.replace('_', " "),
            other.name()
        ))),
    }
}

/// Two answers as one.
fn joined(first: Answer<Applied>, second: Answer<Applied>) -> Answer<Applied> {
    let Answer { mut value, mut known } = first;
    known.applied.extend(second.known.applied);
    if let Some(members) = value.as_object_mut() {
        members.remove("later");
    }
    if let (Some(applied), Value::Array(more)) = (value["applied"].as_array_mut(), &second.value["applied"]) {
        applied.extend(more.iter().cloned());
    }
    Answer { value, known }
}

fn applied_sheet(applied: &[Change]) -> Sheet {
    Sheet::new().rows("changes that were made", &HEADER, rows(applied))
}

/// A plan, with the request that made it.
struct Planned {
    body: Value,
    answer: Answer<Plan>,
}

/// Reads the folder and has the server plan it.
async fn planned(source: &Source, api: &Api) -> Result<Planned, CliError> {
    let folder = Folder::read(&source.folder)?;
    let known = match &source.secrets_file {
        Some(path) => secrets::read_file(path)?,
        None => secrets::Secrets::new(),
    };
    let stored = if folder.has_unknown_secrets(&known) {
        let answer: Answer<Value> = api.send(Call::get(&["export"])).await?;
        Some(answer.value)
    } else {
        None
    };
    let read = folder.document(&known, stored.as_ref())?;
    let mut body = read.document;
    if source.prune {
        body["prune"] = true.into();
    }
    if source.partial {
        body["partial"] = true.into();
    }
    let answer = api.send(Call::post(&["plan"]).body(body.clone())).await;
    let answer = answer.map_err(|error| with_places(error, &source.folder, &read.places))?;
    Ok(Planned { body, answer })
}

impl Plan {
    /// What is, or would be, otherwise on the server.
    fn differences(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.action != "keep")
    }

    /// What applying it does.
    fn to_make(&self) -> impl Iterator<Item = &Change> {
        self.differences()
            .filter(|change| change.action != "activate_later")
    }

    /// What another plan activates, when the groups of this one are made.
    fn later(&self) -> impl Iterator<Item = &Change> {
        let changes = self.changes.iter();
        changes.filter(|change| change.action == "activate_later")
    }
}

impl Change {
    /// The name of what it is about.
    fn name(&self) -> &str {
        let name = self.group.as_deref().or(self.policy.as_deref());
        name.unwrap_or_default()
    }
}

/// Says in which file and line a refused field stands.
fn with_places(error: CliError, folder: &Path, places: &BTreeMap<String, String>) -> CliError {
    let CliError::Refused(problem) = error else {
        return error;
    };
    let mut problem: Problem = *problem;
    for wrong in &mut problem.errors {
        if let Some(place) = places.get(&wrong.field) {
            wrong.field.clone_from(place);
        }
    }
    if problem.errors.is_empty() {
        problem.detail = format!("{} (planning {})", problem.detail, folder.display());
    }
    CliError::Refused(Box::new(problem))
}

const HEADER: [&str; 4] = ["action", "name", "version", "detail"];

fn sheet_of(plan: &Plan) -> Sheet {
    let differences = plan.differences().count();
    Sheet::new()
        .rows("changes", &HEADER, rows(&plan.changes))
        .fields(vec![
            ("changes", Some(differences.to_string())),
            ("deletions", Some(plan.deletions.to_string())),
            ("kept", Some((plan.changes.len() - differences).to_string())),
            ("plan sha256", Some(plan.plan_sha256.clone())),
        ])
}

fn rows(changes: &[Change]) -> Vec<Vec<String>> {
    let row = |change: &Change| {
        let detail = match &change.rollout_id {
            Some(rollout) => format!("{} {rollout}", change.detail),
            None => change.detail.clone(),
        };
        vec![
            change.action.replace('_', " "),
            change.name().to_owned(),
            change.version.clone().unwrap_or_default(),
            detail,
        ]
    };
    changes.iter().map(row).collect()
}
