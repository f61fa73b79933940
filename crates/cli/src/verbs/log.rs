//! `muster log …`

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Page, Paging, list};
use crate::api::{Answer, Api, Call};
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
    /// Verify the whole log: 0 and a summary, or 1 and the first bad entry
    Verify(VerifyArgs),
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
        LogCommand::Verify(arguments) => {
            let report = verify_remote(&arguments, globals).await?;
            let value = serde_json::to_value(&report).map_err(|error| CliError::Answer(error.to_string()))?;
            printer.answer(&value, |_| report.sheet())
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
