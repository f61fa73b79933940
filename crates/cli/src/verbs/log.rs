//! `muster log …`

use std::collections::BTreeMap;
use std::path::PathBuf;

use muster_trust::key::PublicKey;
use muster_trust::note::{SignatureType, verifier_key};
use muster_trust::root::Role;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Page, Paging, list};
use crate::api::{Answer, Api, Call};
use crate::log_folder::verify_folder;
use crate::output::{Printer, Sheet};
use crate::{CliError, Globals, VerifyArgs, verify_remote};

/// Verbs of the transparency log.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum LogCommand {
    /// Print the newest signed checkpoint, a C2SP signed note
    #[command(after_help = "Examples:\n  muster log checkpoint > checkpoint.txt")]
    Checkpoint,
    /// List entries, oldest first
    #[command(
        after_help = "Examples:\n  muster log entries --newest --limit 20\n  muster log entries --action \
        device.enrolled --all -o json\n  muster log entries --object dev_…"
    )]
    Entries {
        /// Only this action, such as device.enrolled
        #[arg(long)]
        action: Option<String>,
        /// Only about this object, such as dev_…
        #[arg(long)]
        object: Option<String>,
        /// Newest first
        #[arg(long)]
        newest: bool,
        /// Start behind this place
        #[arg(long, value_name = "PLACE", conflicts_with = "cursor")]
        after: Option<u64>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Find entries by who, what, when and about what
    #[command(
        after_help = "Examples:\n  muster log search --actor cli_… --since 2026-05-04T08:00:00Z\n  muster log search \
        --action device. --contains 0197 --newest"
    )]
    Search(SearchArgs),
    /// What a device, policy or service account was at a moment, from the log alone
    #[command(
        after_help = "Examples:\n  muster log at device:dev_… --at 2026-05-04T08:00:00Z\n  muster log at policy:pol_… -o json"
    )]
    At {
        /// device:dev_…, policy:pol_… or client:cli_…
        object: String,
        /// The moment; now unless given
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
    },
    /// Print the verifier keys of the log and of its witnesses, for witnesses and offline verification
    #[command(after_help = "Examples:\n  muster log key\n  muster log key --root-file root.json")]
    Key {
        /// Root documents from elsewhere instead of the server's
        #[arg(long, value_name = "FILE")]
        root_file: Option<PathBuf>,
    },
    /// Write the log out: as a folder that verifies without a server, or as lines for a SIEM
    #[command(
        after_help = "Examples:\n  muster log export --out ./log\n  muster log export --format ocsf --out log.ocsf.jsonl\n  \
        muster log export --format cef --since 2026-05-04T08:00:00Z"
    )]
    Export(ExportArgs),
    /// Verify the whole log: 0 and a summary, or 1 and the first bad entry
    Verify(VerifyArgs),
}

/// What to look for. Everything that is given must hold.
#[derive(Clone, Debug, clap::Args)]
pub struct SearchArgs {
    /// Only entries of this actor, such as cli_…
    #[arg(long)]
    actor: Option<String>,
    /// Only this action; with a dot at the end every action that begins so
    #[arg(long)]
    action: Option<String>,
    /// Only about this object, such as dev_…
    #[arg(long)]
    object: Option<String>,
    /// Only about objects whose id has this text in it
    #[arg(long, value_name = "TEXT")]
    contains: Option<String>,
    /// Only about this kind of object, such as device
    #[arg(long)]
    kind: Option<String>,
    /// Only from this time on
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Newest first
    #[arg(long)]
    newest: bool,
    #[command(flatten)]
    paging: Paging,
}

/// What to write, and where.
#[derive(Clone, Debug, clap::Args)]
pub struct ExportArgs {
    /// The folder (format tiles) or file; standard output unless given
    #[arg(long, value_name = "PATH", required_if_eq("format", "tiles"))]
    out: Option<PathBuf>,
    /// tiles: C2SP files that verify; the others: one line for each entry
    #[arg(long, value_enum, default_value_t = ExportFormat::Tiles)]
    format: ExportFormat,
    /// Only entries from this time on
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only entries before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

/// How a log is written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ExportFormat {
    /// Tiles, entry bundles and checkpoints in the layout of C2SP tlog-tiles
    Tiles,
    /// Entries as the API shows them, a JSON object each line
    Json,
    /// Events of the Open Cybersecurity Schema Framework, a JSON object each line
    Ocsf,
    /// ArcSight Common Event Format
    Cef,
}

/// A state as the API shows it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct StateAt {
    object: String,
    at: String,
    fields: BTreeMap<String, Field>,
    entries: u64,
    is_cut: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Field {
    value: Value,
    entry: String,
    action: String,
    actor: String,
    at: Option<String>,
}

/// An entry as the API shows it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Entry {
    index: u64,
    at: Option<String>,
    actor_kind: String,
    actor: String,
    action: String,
    object: String,
    detail: Map<String, Value>,
}

/// Runs one verb.
pub async fn run(command: LogCommand, globals: &Globals, printer: &Printer) -> Result<(), CliError> {
    match command {
        LogCommand::Checkpoint => {
            let call = Call::get(&["log", "checkpoint"]).accept("text/plain");
            let answer = Api::connect(globals)?.send_raw(call).await?;
            let note = String::from_utf8(answer.bytes)
                .map_err(|_| CliError::Answer("the checkpoint is not text".to_owned()))?;
            if printer.is_json() {
                return printer.json(&serde_json::json!({"note": note}));
            }
            printer.line(&note)
        }
        LogCommand::Entries {
            action,
            object,
            newest,
            after,
            mut paging,
        } => {
            paging.cursor = paging.cursor.or(after.map(|after| after.to_string()));
            let call = Call::get(&["log", "entries"])
                .query("action", action)
                .query("object", object)
                .query("order", newest.then_some("newest"));
            let answer: Answer<Page<Entry>> = list(&Api::connect(globals)?, call, &paging).await?;
            printer.answer(&answer.value, |printer| entries(printer, &answer.known.items))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
        LogCommand::Search(wanted) => {
            let call = Call::get(&["log", "entries"])
                .query("actor", wanted.actor)
                .query("action", wanted.action)
                .query("object", wanted.object)
                .query("object_contains", wanted.contains)
                .query("object_kind", wanted.kind)
                .query("since", wanted.since)
                .query("until", wanted.until)
                .query("order", Some(if wanted.newest { "newest" } else { "oldest" }));
            let answer: Answer<Page<Entry>> = list(&Api::connect(globals)?, call, &wanted.paging).await?;
            printer.answer(&answer.value, |printer| entries(printer, &answer.known.items))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
        LogCommand::At { object, at } => {
            let call = Call::get(&["log", "state"])
                .query("object", Some(object))
                .query("at", at);
            let answer: Answer<StateAt> = Api::connect(globals)?.send(call).await?;
            printer.answer(&answer.value, |printer| state(printer, &answer.known))
        }
        LogCommand::Key { root_file } => keys(root_file.as_deref(), globals, printer).await,
        LogCommand::Export(arguments) => export(arguments, &Api::connect(globals)?, printer).await,
        LogCommand::Verify(arguments) if arguments.folder.is_some() => {
            let report = verify_folder(&arguments)?;
            let value = serde_json::to_value(&report).map_err(|error| CliError::Answer(error.to_string()))?;
            printer.answer(&value, |_| report.sheet())
        }
        LogCommand::Verify(arguments) => {
            let report = verify_remote(&arguments, globals).await?;
            let value = serde_json::to_value(&report).map_err(|error| CliError::Answer(error.to_string()))?;
            printer.answer(&value, |_| report.sheet())
        }
    }
}

fn state(printer: &Printer, state: &StateAt) -> Sheet {
    let row = |(name, field): (&String, &Field)| {
        vec![
            name.clone(),
            crate::output::plain(&field.value),
            field.action.clone(),
            field.actor.clone(),
            printer.when(field.at.as_deref()),
            field.entry.clone(),
        ]
    };
    let header = ["field", "value", "set by", "actor", "when", "entry"];
    let cut = if state.is_cut { ", and there are more" } else { "" };
    Sheet::new()
        .text(format!(
            "{} at {}, from {} entries{cut}",
            state.object, state.at, state.entries
        ))
        .rows("fields", &header, state.fields.iter().map(row).collect())
}

/// Verifier keys as other tools take them.
async fn keys(
    root_file: Option<&std::path::Path>,
    globals: &Globals,
    printer: &Printer,
) -> Result<(), CliError> {
    let root = match root_file {
        Some(path) => crate::log::read_root(path)?,
        None => crate::log::root_of_server(&Api::connect(globals)?).await?,
    };
    let text = |name: &str, kind, key: &PublicKey| {
        verifier_key(name, kind, key).map_err(|error| CliError::Answer(error.to_string()))
    };
    let (log, _) = root.role(Role::Log);
    let (witnesses, threshold) = root.role(Role::Witness);
    let log = log
        .into_iter()
        .map(|key| text(&root.log_origin, SignatureType::Ed25519, key))
        .collect::<Result<Vec<_>, _>>()?;
    // A root document knows keys, not names: a witness calls itself what it likes.
    let witnesses = witnesses
        .into_iter()
        .map(|key| text("witness", SignatureType::Cosignature, key))
        .collect::<Result<Vec<_>, _>>()?;
    let value = serde_json::json!({"log": log, "witnesses": witnesses, "witness_threshold": threshold});
    if printer.is_json() {
        return printer.json(&value);
    }
    let lines: Vec<_> = log.into_iter().chain(witnesses).collect();
    printer.line(&lines.join("\n"))
}

async fn export(arguments: ExportArgs, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let format = match arguments.format {
        ExportFormat::Tiles => {
            let folder = arguments
                .out
                .ok_or_else(|| CliError::Usage("--out names the folder".to_owned()))?;
            if arguments.since.is_some() || arguments.until.is_some() {
                return Err(CliError::Usage(
                    "a part of a log does not verify: --since and --until are for lines".to_owned(),
                ));
            }
            let entries = crate::log_folder::export(api, &folder).await?;
            printer.note(&format!("{entries} entries are in {}.", folder.display()));
            return Ok(());
        }
        ExportFormat::Json => "json_lines",
        ExportFormat::Ocsf => "ocsf",
        ExportFormat::Cef => "cef",
    };
    let mut out: Box<dyn std::io::Write> = match &arguments.out {
        Some(path) => Box::new(
            std::fs::File::create(path)
                .map_err(|error| CliError::Failed(format!("{}: {error}", path.display())))?,
        ),
        None => Box::new(std::io::stdout()),
    };
    let mut after = None::<String>;
    loop {
        let call = Call::get(&["log", "entries"])
            .query("format", Some(format))
            .query("order", Some("oldest"))
            .query("limit", Some(500))
            .query("since", arguments.since.clone())
            .query("until", arguments.until.clone())
            .query("after", after.take());
        let answer = api
            .send_raw(call.accept("application/x-ndjson, text/plain"))
            .await?;
        out.write_all(&answer.bytes).map_err(CliError::Output)?;
        let next = answer
            .headers
            .get("x-next-cursor")
            .and_then(|next| next.to_str().ok());
        match next {
            Some(next) => after = Some(next.to_owned()),
            None => return out.flush().map_err(CliError::Output),
        }
    }
}

/// Entries as a table.
pub fn entries(printer: &Printer, entries: &[Entry]) -> Sheet {
    let row = |entry: &Entry| {
        let detail: Vec<_> = entry
            .detail
            .iter()
            .map(|(name, value)| format!("{name}={}", crate::output::plain(value)))
            .collect();
        vec![
            entry.index.to_string(),
            printer.ago(entry.at.as_deref()),
            entry.action.clone(),
            entry.object.clone(),
            format!("{} {}", entry.actor_kind, entry.actor),
            detail.join(" "),
        ]
    };
    let header = ["place", "when", "action", "object", "actor", "detail"];
    Sheet::new().rows("entries", &header, entries.iter().map(row).collect())
}
