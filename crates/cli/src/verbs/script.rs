//! `muster script …`: what devices may run, signed by the policy role.

use std::path::{Path, PathBuf};

use muster_model::TenantId;
use muster_model::command::CommandKind;
use muster_model::text::{Name, Sha256Text};
use muster_trust::dsse::Envelope;
use muster_trust::key::sha256;
use muster_trust::statement::{self, Interpreter, MAX_RECEIPT_OUTPUT_BYTES, ScriptStatement};
use serde::Deserialize;
use serde_json::{Value, json};

use super::command::{SendOptions, send};
use super::key::read_key;
use super::{Page, Paging, list};
use crate::api::{Answer, Api, Call};
use crate::context::read_file;
use crate::log::root_of_server;
use crate::output::{Printer, Sheet, clean};
use crate::{CliError, Globals};

/// Pages that a search for a name reads.
const PAGES_MAX: usize = 8;

/// Verbs of scripts.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ScriptCommand {
    /// Add a script; the server signs it with the tenant's policy key
    #[command(after_help = "Examples:\n  muster script add --name 'Free disk space' --interpreter sh df.sh")]
    Add {
        file: PathBuf,
        #[command(flatten)]
        limits: ScriptOptions,
    },
    /// Sign a script on this machine, for `muster script push`
    #[command(
        after_help = "Examples:\n  muster script sign --name 'Free disk space' --interpreter sh df.sh --key policy.pem --out \
        df.json\n\nWhat is left out of --tenant is asked from the server."
    )]
    Sign {
        file: PathBuf,
        #[command(flatten)]
        limits: ScriptOptions,
        /// A policy key (PKCS #8, PEM); may be repeated
        #[arg(long, value_name = "FILE", required = true)]
        key: Vec<PathBuf>,
        /// Whose devices may run it
        #[arg(long)]
        tenant: Option<TenantId>,
        /// Where the signed script is written
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Hand a signed script to the server
    #[command(after_help = "Examples:\n  muster script push df.json")]
    Push { file: PathBuf },
    /// List scripts
    #[command(after_help = "Examples:\n  muster script list --all")]
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a script with its text
    #[command(after_help = "Examples:\n  muster script show 3f2a…\n  muster script show 'Free disk space'")]
    Show {
        /// Its SHA-256 or its name
        script: String,
    },
    /// Run a script on a device
    #[command(
        after_help = "Examples:\n  muster script run 'Free disk space' laptop-7 --wait\n  muster script run 3f2a… laptop-7 -- /home"
    )]
    Run {
        /// Its SHA-256 or its name
        script: String,
        device: String,
        /// What the script gets, after `--`
        #[arg(last = true)]
        arguments: Vec<String>,
        /// Less than the script's own limit
        #[arg(long, value_name = "SECONDS")]
        timeout_seconds: Option<u32>,
        #[command(flatten)]
        options: SendOptions,
    },
    /// Remove a script: no new command can name it
    #[command(after_help = "Examples:\n  muster script remove 3f2a…")]
    Remove {
        /// Its SHA-256 or its name
        script: String,
    },
}

/// What a script is besides its text.
#[derive(Clone, Debug, clap::Args)]
pub struct ScriptOptions {
    /// What people call it
    #[arg(long)]
    name: String,
    /// What runs it
    #[arg(long, value_enum)]
    interpreter: InterpreterWord,
    /// How long it may run, 1 to 3600
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout_seconds: u32,
    /// How much of its output is sent back
    #[arg(long, value_name = "BYTES", default_value_t = MAX_RECEIPT_OUTPUT_BYTES as u32)]
    output_bytes_max: u32,
}

/// What runs a script.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum InterpreterWord {
    Sh,
    Bash,
    Python3,
}

impl InterpreterWord {
    const fn interpreter(self) -> Interpreter {
        match self {
            Self::Sh => Interpreter::Sh,
            Self::Bash => Interpreter::Bash,
            Self::Python3 => Interpreter::Python3,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Script {
    sha256: String,
    name: String,
    interpreter: String,
    timeout_seconds: u32,
    output_bytes_max: u32,
    created_by: Option<String>,
    created_at: Option<String>,
    text: Option<String>,
}

/// Runs one verb.
pub async fn run(command: ScriptCommand, globals: &Globals, printer: &Printer) -> Result<(), CliError> {
    match command {
        ScriptCommand::Add { file, limits } => {
            let body = json!({
                "name": name(&limits)?, "interpreter": limits.interpreter.interpreter(), "text": read_text(&file)?,
                "timeout_seconds": limits.timeout_seconds, "output_bytes_max": limits.output_bytes_max,
            });
            let call = Call::create(&["scripts"], body, None);
            let answer: Answer<Script> = Api::connect(globals)?.send(call).await?;
            printer.answer(&answer.value, |printer| sheet(printer, &answer.known))
        }
        ScriptCommand::Sign {
            file,
            limits,
            key,
            tenant,
            out,
        } => sign(&file, &limits, &key, tenant, &out, globals, printer).await,
        ScriptCommand::Push { file } => {
            let envelope: Value =
                serde_json::from_slice(&read_file(&file)?).map_err(|error| CliError::Content {
                    path: file.clone(),
                    detail: error.to_string(),
                })?;
            let call = Call::post(&["scripts", "signed"]).body(envelope);
            let answer: Answer<Script> = Api::connect(globals)?.send(call).await?;
            printer.answer(&answer.value, |printer| sheet(printer, &answer.known))
        }
        ScriptCommand::List { paging } => {
            let api = Api::connect(globals)?;
            let answer: Answer<Page<Script>> = list(&api, Call::get(&["scripts"]), &paging).await?;
            printer.answer(&answer.value, |printer| rows(printer, &answer.known.items))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
        ScriptCommand::Show { script } => {
            let api = Api::connect(globals)?;
            let sha256 = resolve(&api, &script).await?;
            let answer: Answer<Script> = api.send(Call::get(&["scripts", sha256.as_str()])).await?;
            printer.answer(&answer.value, |printer| {
                let text = answer.known.text.as_deref().unwrap_or_default();
                sheet(printer, &answer.known).text(clean(text))
            })
        }
        ScriptCommand::Run {
            script,
            device,
            arguments,
            timeout_seconds,
            options,
        } => {
            let api = Api::connect(globals)?;
            let kind = CommandKind::RunScript {
                sha256: resolve(&api, &script).await?,
                arguments,
                timeout_seconds,
            };
            send(&api, printer, &device, &kind, options).await
        }
        ScriptCommand::Remove { script } => {
            let api = Api::connect(globals)?;
            let sha256 = resolve(&api, &script).await?;
            api.send_quiet(Call::delete(&["scripts", sha256.as_str()]))
                .await?;
            printer.answer(&json!({"removed": sha256.as_str()}), |_| {
                Sheet::new().fields(vec![("removed", Some(sha256.to_string()))])
            })
        }
    }
}

async fn sign(
    file: &Path,
    limits: &ScriptOptions,
    keys: &[PathBuf],
    tenant: Option<TenantId>,
    out: &Path,
    globals: &Globals,
    printer: &Printer,
) -> Result<(), CliError> {
    let keys = keys
        .iter()
        .map(|path| read_key(path))
        .collect::<Result<Vec<_>, _>>()?;
    let tenant = match tenant {
        Some(tenant) => tenant,
        None => root_of_server(&Api::connect(globals)?).await?.tenant,
    };
    let statement = ScriptStatement {
        tenant,
        name: name(limits)?,
        interpreter: limits.interpreter.interpreter(),
        text: read_text(file)?,
        timeout_seconds: limits.timeout_seconds,
        output_bytes_max: limits.output_bytes_max,
    };
    let envelope = statement::sign(&statement, &keys.iter().collect::<Vec<_>>())
        .map_err(|error| CliError::Usage(error.to_string()))?;
    write(out, &envelope)?;
    let digest = sha256(&envelope.payload).to_hex();
    let value = json!({"sha256": digest, "file": out, "tenant": tenant});
    printer.answer(&value, |_| {
        Sheet::new().fields(vec![
            ("script", Some(statement.name.to_string())),
            ("sha256", Some(digest.clone())),
            ("tenant", Some(tenant.to_string())),
            ("file", Some(out.display().to_string())),
        ])
    })
}

fn write(out: &Path, envelope: &Envelope) -> Result<(), CliError> {
    let bytes = serde_json::to_vec_pretty(envelope).map_err(|error| CliError::Failed(error.to_string()))?;
    std::fs::write(out, bytes).map_err(|source| CliError::File {
        path: out.to_owned(),
        source,
    })
}

fn name(limits: &ScriptOptions) -> Result<Name, CliError> {
    Name::parse(&limits.name).map_err(|why| CliError::Usage(format!("--name {why}")))
}

fn read_text(file: &Path) -> Result<String, CliError> {
    String::from_utf8(read_file(file)?).map_err(|_| CliError::Content {
        path: file.to_owned(),
        detail: "a script is UTF-8 text".to_owned(),
    })
}

/// The script that a SHA-256 or a name means; of several with one name, none.
async fn resolve(api: &Api, script: &str) -> Result<Sha256Text, CliError> {
    if let Ok(sha256) = Sha256Text::parse(script) {
        return Ok(sha256);
    }
    let (mut found, mut cursor) = (Vec::new(), None::<String>);
    for _ in 0..PAGES_MAX {
        let call = Call::get(&["scripts"])
            .query("limit", Some(500))
            .query("cursor", cursor.as_ref());
        let page: Answer<Page<Script>> = api.send(call).await?;
        found.extend(page.known.items.into_iter().filter(|item| item.name == script));
        cursor = page.known.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    match found.as_slice() {
        [one] => Sha256Text::parse(&one.sha256).map_err(|error| CliError::Answer(error.to_string())),
        [] => Err(CliError::Usage(format!("there is no script {script}"))),
        several => Err(CliError::Usage(format!(
            "{} scripts are called {script}: name one by its sha256",
            several.len()
        ))),
    }
}

fn rows(printer: &Printer, scripts: &[Script]) -> Sheet {
    let row = |script: &Script| {
        vec![
            script.name.clone(),
            script.interpreter.clone(),
            printer.ago(script.created_at.as_deref()),
            script.sha256.clone(),
        ]
    };
    let header = ["name", "interpreter", "added", "sha256"];
    Sheet::new().rows("scripts", &header, scripts.iter().map(row).collect())
}

fn sheet(printer: &Printer, script: &Script) -> Sheet {
    Sheet::new().fields(vec![
        ("script", Some(script.name.clone())),
        ("interpreter", Some(script.interpreter.clone())),
        (
            "runs at most",
            Some(format!("{} seconds", script.timeout_seconds)),
        ),
        (
            "prints at most",
            Some(format!("{} bytes", script.output_bytes_max)),
        ),
        ("by", script.created_by.clone()),
        (
            "added",
            script.created_at.as_deref().map(|time| printer.when(Some(time))),
        ),
        ("sha256", Some(script.sha256.clone())),
    ])
}
