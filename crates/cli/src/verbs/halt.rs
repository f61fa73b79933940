//! `muster halt`: stops what is destructive and not delivered, on every node.

use serde_json::{Value, json};

use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::output::{Printer, Sheet, plain};

/// For the help of `muster halt` itself.
pub const HELP: &str = "Examples:\n  muster halt --reason 'somebody has an administrator session'\n  muster halt show\n  muster halt \
    lift --reason 'session ended, key replaced'";

/// Why.
#[derive(Clone, Debug, clap::Args)]
pub struct HaltArgs {
    /// Written into the log
    #[arg(long, default_value = "")]
    reason: String,
}

/// Verbs of the halt.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum HaltCommand {
    /// Whether destructive commands are halted, since when, by whom
    #[command(after_help = "Examples:\n  muster halt show")]
    Show,
    /// Let destructive commands go on
    #[command(after_help = "Examples:\n  muster halt lift --reason 'session ended, key replaced'")]
    Lift {
        /// Written into the log
        #[arg(long)]
        reason: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Runs one verb; without one, halts. Nobody is asked: stopping too much is cheap.
pub async fn run(
    command: Option<HaltCommand>,
    arguments: HaltArgs,
    api: &Api,
    printer: &Printer,
) -> Result<(), CliError> {
    let call = match command {
        Some(HaltCommand::Show) => Call::get(&["halt"]),
        Some(HaltCommand::Lift { reason, yes }) => {
            let what = "What was approved and not delivered goes on.";
            printer.confirm(yes, what, "lift")?;
            Call::post(&["halt", "lift"]).body(json!({"reason": reason}))
        }
        None => {
            let reason = if arguments.reason.is_empty() {
                "halted from the command line".to_owned()
            } else {
                arguments.reason
            };
            Call::post(&["halt"]).body(json!({"reason": reason}))
        }
    };
    let answer: Answer<Value> = api.send(call).await?;
    printer.answer(&answer.value, |_| sheet(&answer.value))
}

/// Every member that is no list or object.
fn sheet(value: &Value) -> Sheet {
    let members = value.as_object().into_iter().flatten();
    let rows: Vec<Vec<String>> = members
        .filter(|(_, value)| !value.is_array() && !value.is_object())
        .map(|(name, value)| vec![name.replace('_', " "), plain(value)])
        .collect();
    if rows.is_empty() {
        return Sheet::new().text("Done.");
    }
    Sheet::new().rows("details", &["", ""], rows)
}
