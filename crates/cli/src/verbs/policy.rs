//! `muster policy …`

use std::path::{Path, PathBuf};

use muster_model::settings::Settings;
use muster_trust::bundle;
use muster_trust::key::sha256;
use reqwest::header::ETAG;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::activation::{self, ActivationArgs};
use super::policy_compile::{self, CompileArgs};
use super::policy_test::{self, PolicyTestArgs};
use super::what_if::{self, WhatIfArgs};
use super::{Page, Paging, list};
use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::context::read_input;
use crate::output::{Printer, Sheet, or_dash, plain};
use crate::yaml;

/// Verbs of policies. POLICY is a policy's id or name.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum PolicyCommand {
    /// List policies
    #[command(after_help = "Examples:\n  muster policy list")]
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a policy
    #[command(after_help = "Examples:\n  muster policy get baseline")]
    Get { policy: String },
    /// Make a policy without any version
    #[command(
        after_help = "Examples:\n  muster policy create baseline --description 'What every device has'"
    )]
    Create {
        name: String,
        /// What it is for
        #[arg(long)]
        description: Option<String>,
        /// Repeating the request with the same key makes one policy
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
    /// Versions: make one, show one
    #[command(subcommand)]
    Version(VersionCommand),
    /// List the versions of a policy, newest first
    #[command(after_help = "Examples:\n  muster policy versions baseline")]
    Versions {
        policy: String,
        #[command(flatten)]
        paging: Paging,
    },
    /// Download the signed bundle of a version and check it
    #[command(
        after_help = "Examples:\n  muster policy bundle baseline 2026.05 --out policy.zip\n\nWithout --out the \
        bundle is checked and described only."
    )]
    Bundle {
        policy: String,
        version: String,
        /// Where the bundle is written
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Show what a version becomes on each platform, and write the files for its management
    #[command(after_help = policy_compile::HELP)]
    Compile(CompileArgs),
    /// Show what a version would do to the fleet, before it is activated
    #[command(after_help = what_if::HELP)]
    WhatIf(WhatIfArgs),
    /// Roll a version out to a simulated fleet, and fail where a gate would
    #[command(after_help = policy_test::HELP)]
    Test(Box<PolicyTestArgs>),
    /// Roll a version out
    #[command(
        after_help = "Examples:\n  muster policy activate baseline 2026.05\n  muster policy activate baseline \
        2026.05 --platform linux --wait\n  muster policy activate baseline 2026.05 --stages pilot=10,canary=25,full \
        --soak 1h --dry-run\n\nWithout --stages it goes to a pilot of 10 %, a canary of 25 % and everything; a stage that fails \
        its gate undoes the rollout. Without --platform and --device it is for every device. The policy then applies \
        to its target and to nothing else."
    )]
    Activate {
        policy: String,
        version: String,
        #[command(flatten)]
        activation: ActivationArgs,
        /// Watch the rollout to its end
        #[arg(long)]
        wait: bool,
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
}

/// Verbs of versions.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum VersionCommand {
    /// Make a version; it never changes afterwards
    #[command(
        after_help = "Examples:\n  muster policy version add baseline 2026.05 --set passcode.min_length=12\n  muster \
        policy version add baseline 2026.06 --settings settings.json --rules rules.json\n\n`muster settings` lists every \
        setting. A value of --set is JSON, or text where it is not JSON."
    )]
    Add {
        policy: String,
        version: String,
        /// An object of settings, JSON or YAML by its name; `-` reads JSON from standard input
        #[arg(long, value_name = "FILE")]
        settings: Option<PathBuf>,
        /// One setting; may be repeated, and wins over the file
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// A JSON list of rules: checks of facts, or expressions
        #[arg(long, value_name = "FILE")]
        rules: Option<PathBuf>,
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
    /// Show a version
    #[command(after_help = "Examples:\n  muster policy version get baseline 2026.05")]
    Get { policy: String, version: String },
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Policy {
    id: String,
    name: String,
    description: Option<String>,
    created_at: Option<String>,
    versions: u64,
    newest_version: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Version {
    version: String,
    sequence: u64,
    sha256: String,
    entry_id: Option<String>,
    created_by: Option<String>,
    created_at: Option<String>,
    settings: Map<String, Value>,
    rules: Vec<Value>,
}

/// Runs one verb.
pub async fn run(command: PolicyCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command {
        PolicyCommand::List { paging } => {
            let answer: Answer<Page<Policy>> = list(api, Call::get(&["policies"]), &paging).await?;
            printer.answer(&answer.value, |printer| policies(printer, &answer.known.items))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
        PolicyCommand::Get { policy: id } => {
            let answer: Answer<Policy> = api.send(Call::get(&["policies", &id])).await?;
            printer.answer(&answer.value, |printer| policy(printer, &answer.known))
        }
        PolicyCommand::Create {
            name,
            description,
            idempotency_key,
        } => {
            let mut body = json!({"name": name});
            if let Some(description) = description {
                body["description"] = description.into();
            }
            let answer: Answer<Policy> = api
                .send(Call::create(&["policies"], body, idempotency_key))
                .await?;
            printer.answer(&answer.value, |_| Sheet::new().text(answer.known.id.clone()))
        }
        PolicyCommand::Version(command) => version(command, api, printer).await,
        PolicyCommand::Versions { policy, paging } => {
            let call = Call::get(&["policies", &policy, "versions"]);
            let answer: Answer<Page<Version>> = list(api, call, &paging).await?;
            printer.answer(&answer.value, |printer| versions(printer, &answer.known.items))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
        PolicyCommand::Bundle { policy, version, out } => {
            download(api, printer, &policy, &version, out.as_deref()).await
        }
        PolicyCommand::Compile(arguments) => policy_compile::online(&arguments, api, printer).await,
        PolicyCommand::WhatIf(arguments) => what_if::run(&arguments, api, printer).await,
        PolicyCommand::Test(_) => Err(CliError::Failed(
            "a test needs a control plane of its own, which this program has not: run it with `muster`"
                .to_owned(),
        )),
        PolicyCommand::Activate {
            policy,
            version,
            activation,
            wait,
            idempotency_key,
        } => {
            let activation = activation.resolved(api).await?;
            let body = activation.body(&version)?;
            if activation.is_dry_run() {
                return activation::preview(api, printer, &policy, body).await;
            }
            let call = Call::create(&["policies", &policy, "activate"], body, idempotency_key);
            activation::activate(api, printer, call, wait).await
        }
    }
}

async fn version(command: VersionCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command {
        VersionCommand::Add {
            policy,
            version,
            settings,
            set,
            rules,
            idempotency_key,
        } => {
            let settings = read_settings(settings.as_deref(), &set)?;
            let mut body = json!({"version": version, "settings": settings});
            if let Some(path) = rules {
                body["rules"] = read_json(&path)?;
            }
            let call = Call::create(&["policies", &policy, "versions"], body, idempotency_key);
            let answer: Answer<Version> = api.send(call).await?;
            printer.answer(&answer.value, |_| {
                let sha256 = Some(answer.known.sha256.clone());
                Sheet::new().fields(vec![
                    ("version", Some(answer.known.version.clone())),
                    ("sha256", sha256),
                ])
            })
        }
        VersionCommand::Get { policy, version } => {
            let answer: Answer<Version> = api
                .send(Call::get(&["policies", &policy, "versions", &version]))
                .await?;
            printer.answer(&answer.value, |printer| one_version(printer, &answer.known))
        }
    }
}

/// The settings of a file and of the line together, checked against the catalogue before anything is sent.
fn read_settings(file: Option<&Path>, set: &[String]) -> Result<Value, CliError> {
    let mut settings = match file {
        None if set.is_empty() => {
            return Err(CliError::Usage(
                "say which settings: --set KEY=VALUE, --settings FILE, or both".to_owned(),
            ));
        }
        None => Map::new(),
        Some(path) => match read_document(path)? {
            Value::Object(settings) => settings,
            _ => {
                let detail = "not an object of settings".to_owned();
                return Err(CliError::Content {
                    path: path.to_owned(),
                    detail,
                });
            }
        },
    };
    for pair in set {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| CliError::Usage(format!("`{pair}`: write --set KEY=VALUE")))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        settings.insert(key.trim().to_owned(), value);
    }
    let settings = Value::Object(settings);
    if let Err(errors) = Settings::parse(settings.to_string().as_bytes()) {
        let lines: Vec<_> = errors
            .iter()
            .map(|error| format!("  {}: {} ({})", error.key, error.detail, error.code))
            .collect();
        return Err(CliError::Failed(format!(
            "the settings are not valid; nothing was sent\n{}",
            lines.join("\n")
        )));
    }
    Ok(settings)
}

/// Reads a document from a file: YAML where its name says so, else JSON.
fn read_document(path: &Path) -> Result<Value, CliError> {
    let is_yaml = path
        .extension()
        .is_some_and(|ending| ending == "yml" || ending == "yaml");
    if !is_yaml {
        return read_json(path);
    }
    let content = |detail: String| CliError::Content {
        path: path.to_owned(),
        detail,
    };
    let text = std::fs::read_to_string(path).map_err(|error| content(error.to_string()))?;
    let document = yaml::read(&text).and_then(|node| node.to_json());
    document.map_err(|wrong| content(format!("line {}: {}", wrong.line, wrong.detail)))
}

/// Reads a document of JSON from a file; `-` is standard input.
pub fn read_json(path: &Path) -> Result<Value, CliError> {
    let bytes = read_input(path)?;
    serde_json::from_slice(&bytes).map_err(|error| CliError::Content {
        path: path.to_owned(),
        detail: error.to_string(),
    })
}

async fn download(
    api: &Api,
    printer: &Printer,
    policy: &str,
    version: &str,
    out: Option<&Path>,
) -> Result<(), CliError> {
    let call = Call::get(&["policies", policy, "versions", version, "bundle"]).accept("application/zip");
    let answer = api.send_raw(call).await?;
    let digest = sha256(&answer.bytes).to_hex();
    let etag = answer
        .headers
        .get(ETAG)
        .and_then(|etag| etag.to_str().ok())
        .unwrap_or_default();
    if etag.trim_start_matches("W/").trim_matches('"') != digest {
        return Err(CliError::Failed(format!(
            "the bundle's bytes hash to {digest}, its ETag says {etag}"
        )));
    }
    let open = bundle::open(&answer.bytes).map_err(|error| {
        CliError::Failed(format!(
            "the bundle is not one that a device would accept: {error}"
        ))
    })?;
    if let Some(path) = out {
        std::fs::write(path, &answer.bytes).map_err(|source| CliError::File {
            path: path.to_owned(),
            source,
        })?;
    }
    let manifest =
        serde_json::to_value(&open.manifest).map_err(|error| CliError::Answer(error.to_string()))?;
    printer.answer(
        &json!({"sha256": digest, "bytes": answer.bytes.len(), "manifest": manifest}),
        |_| {
            Sheet::new().fields(vec![
                (
                    "policy",
                    Some(format!(
                        "{} ({})",
                        open.manifest.policy_name, open.manifest.policy_id
                    )),
                ),
                ("version", Some(open.manifest.version.to_string())),
                ("created", Some(open.manifest.created_at.to_string())),
                ("sha256", Some(digest.clone())),
                ("bytes", Some(answer.bytes.len().to_string())),
                ("written to", out.map(|path| path.display().to_string())),
            ])
        },
    )
}

fn policies(printer: &Printer, policies: &[Policy]) -> Sheet {
    let row = |policy: &Policy| {
        vec![
            policy.name.clone(),
            or_dash(policy.newest_version.as_deref()),
            policy.versions.to_string(),
            printer.ago(policy.created_at.as_deref()),
            policy.id.clone(),
        ]
    };
    let header = ["name", "newest", "versions", "created", "id"];
    Sheet::new().rows("policies", &header, policies.iter().map(row).collect())
}

fn policy(printer: &Printer, policy: &Policy) -> Sheet {
    Sheet::new().fields(vec![
        ("name", Some(policy.name.clone())),
        ("id", Some(policy.id.clone())),
        ("description", policy.description.clone()),
        ("versions", Some(policy.versions.to_string())),
        ("newest", policy.newest_version.clone()),
        ("created", Some(printer.when(policy.created_at.as_deref()))),
    ])
}

fn versions(printer: &Printer, versions: &[Version]) -> Sheet {
    let row = |version: &Version| {
        vec![
            version.version.clone(),
            version.settings.len().to_string(),
            version.rules.len().to_string(),
            printer.ago(version.created_at.as_deref()),
            or_dash(version.created_by.as_deref()),
            version.sha256.clone(),
        ]
    };
    let header = ["version", "settings", "rules", "created", "by", "sha256"];
    Sheet::new().rows("versions", &header, versions.iter().map(row).collect())
}

fn one_version(printer: &Printer, version: &Version) -> Sheet {
    let settings = version
        .settings
        .iter()
        .map(|(key, value)| vec![key.clone(), plain(value)])
        .collect();
    let rules: Vec<_> = version
        .rules
        .iter()
        .map(|rule| vec![plain(&rule["name"]), condition(rule)])
        .collect();
    let sheet = Sheet::new()
        .fields(vec![
            ("version", Some(version.version.clone())),
            ("sequence", Some(version.sequence.to_string())),
            ("sha256", Some(version.sha256.clone())),
            ("log entry", version.entry_id.clone()),
            ("created", Some(printer.when(version.created_at.as_deref()))),
            ("by", version.created_by.clone()),
        ])
        .rows("settings", &["setting", "value"], settings);
    if rules.is_empty() {
        sheet
    } else {
        sheet.rows("rules", &["rule", "condition"], rules)
    }
}

/// What a rule asks, as it was written.
fn condition(rule: &Value) -> String {
    match rule.get("expression") {
        Some(expression) => plain(expression),
        None => rule["check"].to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[&str]) -> Result<Value, CliError> {
        let pairs: Vec<_> = pairs.iter().map(|pair| (*pair).to_owned()).collect();
        read_settings(None, &pairs)
    }

    #[test]
    fn a_rule_is_shown_by_what_it_asks() {
        let expression = serde_json::json!({"name": "a", "expression": "os.id == \"debian\""});
        assert_eq!(condition(&expression), "os.id == \"debian\"");
        let check = serde_json::json!({"name": "a", "check": {"fact": "os.id", "op": "exists"}});
        assert_eq!(condition(&check), r#"{"fact":"os.id","op":"exists"}"#);
    }

    #[test]
    fn values_of_the_line_are_json_or_text() {
        let settings = set(&[
            "passcode.min_length=12",
            "camera.allowed=false",
            "usb.storage=deny",
        ])
        .expect("valid");
        let expected = json!({"passcode.min_length": 12, "camera.allowed": false, "usb.storage": "deny"});
        assert_eq!(settings, expected);
    }

    #[test]
    fn wrong_settings_are_named_before_anything_is_sent() {
        let error = set(&["passcode.min_lenth=12", "camera.allowed=maybe"])
            .expect_err("wrong")
            .to_string();
        assert!(
            error.contains("passcode.min_lenth") && error.contains("camera.allowed"),
            "{error}"
        );
        assert!(matches!(set(&["passcode.min_length"]), Err(CliError::Usage(_))));
        assert!(matches!(set(&[]), Err(CliError::Usage(_))));
    }

    #[test]
    fn the_line_wins_over_the_file() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), r#"{"passcode.min_length":8,"camera.allowed":true}"#).expect("written");
        let both = read_settings(Some(file.path()), &["passcode.min_length=12".to_owned()]).expect("valid");
        assert_eq!(both, json!({"passcode.min_length": 12, "camera.allowed": true}));
    }
}
