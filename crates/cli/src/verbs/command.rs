//! `muster command …`

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use muster_model::command::{CommandKind, CommandState, WipeMode};
use muster_model::text::UserMessage;
use serde::Deserialize;
use serde_json::{Value, json};

use super::command_kinds::KindCommand;
use super::{Page, Paging, command_output, list};
use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::output::{Printer, Sheet, or_dash};
use crate::progress::{self, Pace};

/// Most pages of commands that a wait for a bulk call reads in one round.
const BULK_PAGES_MAX: usize = 64;

/// Verbs of commands. DEVICE is a device's id, name, serial number or hardware UUID.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum CommandCommand {
    /// Lock a device
    #[command(
        after_help = "Examples:\n  muster command lock laptop-7 --wait\n  muster command lock laptop-7 --message \
        'Call +1 555 0100'"
    )]
    Lock {
        device: String,
        /// Shown on the lock screen
        #[arg(long)]
        message: Option<String>,
        #[command(flatten)]
        options: SendOptions,
    },
    /// Restart a device
    #[command(after_help = "Examples:\n  muster command restart laptop-7 --delay-seconds 60 --wait")]
    Restart {
        device: String,
        /// Wait on the device before it restarts, at most 3600
        #[arg(long, value_name = "SECONDS")]
        delay_seconds: Option<u32>,
        #[command(flatten)]
        options: SendOptions,
    },
    /// Ask a device for its facts now
    #[command(after_help = "Examples:\n  muster command collect-inventory laptop-7 --wait")]
    CollectInventory {
        device: String,
        #[command(flatten)]
        options: SendOptions,
    },
    /// Show a text to whoever is signed in on a device
    #[command(after_help = "Examples:\n  muster command message laptop-7 'Please restart today' --wait")]
    Message {
        device: String,
        /// At most 256 characters
        text: String,
        #[command(flatten)]
        options: SendOptions,
    },
    /// Wipe a device; devices refuse it until people have approved it
    #[command(after_help = "Examples:\n  muster command wipe laptop-7 --mode enterprise --yes")]
    Wipe {
        device: String,
        /// Everything, or what management put there
        #[arg(long, value_enum, default_value_t = Mode::Full)]
        mode: Mode,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        options: SendOptions,
    },
    #[command(flatten)]
    Kind(KindCommand),
    /// Print what a command printed or collected, or write it to a file
    #[command(
        after_help = "Examples:\n  muster command output cmd_…\n  muster command output cmd_… --out files.tar.gz\n\nIt is what \
        the device sent, and as trustworthy."
    )]
    Output {
        id: String,
        /// Where it is written, as it came
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Show a command and its receipt
    #[command(after_help = "Examples:\n  muster command get cmd_…")]
    Get { id: String },
    /// List commands, newest first
    #[command(after_help = "Examples:\n  muster command list --device laptop-7")]
    List {
        /// Only of this device
        #[arg(long, value_name = "DEVICE")]
        device: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Cancel a command that no device has taken yet
    #[command(after_help = "Examples:\n  muster command cancel cmd_…")]
    Cancel { id: String },
    /// Send one command to many devices
    #[command(
        after_help = "Examples:\n  muster command bulk lock --filter 'platform:linux' --wait\n  muster command bulk \
        collect-inventory --device dev_1 --device dev_2"
    )]
    Bulk {
        /// What to do
        #[arg(value_enum)]
        kind: BulkKind,
        /// Which devices, as in `muster device list --filter`
        #[arg(
            long,
            value_name = "FILTER",
            conflicts_with = "device",
            required_unless_present = "device"
        )]
        filter: Option<String>,
        /// A device; may be repeated
        #[arg(long, value_name = "DEVICE")]
        device: Vec<String>,
        /// For `lock`: shown on the lock screen
        #[arg(long)]
        message: Option<String>,
        /// For `restart`
        #[arg(long, value_name = "SECONDS")]
        delay_seconds: Option<u32>,
        #[command(flatten)]
        options: SendOptions,
    },
}

/// How a command is sent.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SendOptions {
    /// The device must have taken the command within this time; 7 days unless given
    #[arg(long, value_name = "SECONDS")]
    ttl_seconds: Option<u64>,
    /// Wait for the receipt: 0 if done or nothing to do, 1 otherwise
    #[arg(long)]
    wait: bool,
    /// With --wait: give up after this many seconds; the command goes on
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    timeout: Option<u64>,
    /// Repeating the request with the same key sends one command
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

/// What a wipe takes.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Mode {
    /// Everything.
    Full,
    /// What management put there.
    Enterprise,
}

/// What can be sent to many devices at once.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum BulkKind {
    /// Lock.
    Lock,
    /// Restart.
    Restart,
    /// Ask for facts.
    CollectInventory,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Command {
    command_id: String,
    device_id: String,
    #[serde(rename = "type")]
    kind: String,
    state: String,
    operation_id: Option<String>,
    created_by: Option<String>,
    created_at: Option<String>,
    expires_at: Option<String>,
    delivered_at: Option<String>,
    completed_at: Option<String>,
    attempts: u32,
    receipt: Option<Receipt>,
    entry_id: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Receipt {
    outcome: String,
    code: Option<String>,
    detail: Option<String>,
    output_bytes: Option<u64>,
    output_sha256: Option<String>,
}

impl Command {
    fn is_over(&self) -> bool {
        CommandState::parse(&self.state).is_some_and(CommandState::is_final)
    }

    fn succeeded(&self) -> bool {
        matches!(
            CommandState::parse(&self.state),
            Some(CommandState::Done | CommandState::Noop)
        )
    }
}

/// Runs one verb.
pub async fn run(command: CommandCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command {
        CommandCommand::Lock {
            device,
            message,
            options,
        } => send(api, printer, &device, &CommandKind::Lock { message }, options).await,
        CommandCommand::Restart {
            device,
            delay_seconds,
            options,
        } => {
            send(
                api,
                printer,
                &device,
                &CommandKind::Restart { delay_seconds },
                options,
            )
            .await
        }
        CommandCommand::CollectInventory { device, options } => {
            send(api, printer, &device, &CommandKind::CollectInventory {}, options).await
        }
        CommandCommand::Message {
            device,
            text,
            options,
        } => {
            let text = UserMessage::parse(&text).map_err(|why| CliError::Usage(format!("The text {why}")))?;
            send(api, printer, &device, &CommandKind::Message { text }, options).await
        }
        CommandCommand::Wipe {
            device,
            mode,
            yes,
            options,
        } => {
            printer.confirm(
                yes,
                &format!("This wipes {device}. It cannot be taken back."),
                &device,
            )?;
            let mode = match mode {
                Mode::Full => WipeMode::Full,
                Mode::Enterprise => WipeMode::Enterprise,
            };
            send(api, printer, &device, &CommandKind::Wipe { mode }, options).await
        }
        CommandCommand::Kind(kind) => {
            let order = kind.order()?;
            if let Some(question) = &order.question {
                printer.confirm(false, question, &order.device)?;
            }
            send(api, printer, &order.device, &order.kind, order.options).await
        }
        CommandCommand::Output { id, out } => command_output::run(&id, out.as_deref(), api, printer).await,
        CommandCommand::Get { id } => {
            let answer: Answer<Command> = api.send(Call::get(&["commands", &id])).await?;
            printer.answer(&answer.value, |printer| show(printer, &answer.known))
        }
        CommandCommand::List { device, paging } => {
            let call = Call::get(&["commands"]).query("device", device);
            let answer: Answer<Page<Command>> = list(api, call, &paging).await?;
            printer.answer(&answer.value, |printer| commands(printer, &answer.known.items))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
        CommandCommand::Cancel { id } => {
            let answer: Answer<Command> = api.send(Call::post(&["commands", &id, "cancel"])).await?;
            printer.answer(&answer.value, |printer| show(printer, &answer.known))
        }
        CommandCommand::Bulk {
            kind,
            filter,
            device,
            message,
            delay_seconds,
            options,
        } => {
            let kind = match kind {
                BulkKind::Lock => CommandKind::Lock { message },
                BulkKind::Restart => CommandKind::Restart { delay_seconds },
                BulkKind::CollectInventory => CommandKind::CollectInventory {},
            };
            let mut body = body(&kind, &options)?;
            match filter {
                Some(filter) => body["filter"] = filter.into(),
                None => body["devices"] = json!(device),
            }
            bulk(api, printer, body, options).await
        }
    }
}

/// The request's body, checked by the rules that the server and the device use.
fn body(kind: &CommandKind, options: &SendOptions) -> Result<Value, CliError> {
    kind.check().map_err(|error| CliError::Usage(error.to_string()))?;
    let mut body = serde_json::to_value(kind).map_err(|error| CliError::Usage(error.to_string()))?;
    if let Value::Object(members) = &mut body {
        members.retain(|_, value| !value.is_null());
    }
    if let Some(seconds) = options.ttl_seconds {
        body["ttl_seconds"] = seconds.into();
    }
    Ok(body)
}

/// Sends a command to one device, and waits for its receipt where that is asked for.
pub async fn send(
    api: &Api,
    printer: &Printer,
    device: &str,
    kind: &CommandKind,
    options: SendOptions,
) -> Result<(), CliError> {
    let body = body(kind, &options)?;
    let call = Call::create(
        &["devices", device, "commands"],
        body,
        options.idempotency_key.clone(),
    );
    let answer: Answer<Command> = api.send(call).await?;
    let id = answer.known.command_id.clone();
    if !options.wait {
        return printer.answer(&answer.value, |_| {
            Sheet::new().fields(vec![
                ("command", Some(id.clone())),
                ("state", Some(answer.known.state.clone())),
            ])
        });
    }
    let spinner = progress::spinner(format!("{} {device}: {}", kind.type_name(), answer.known.state));
    let mut pace = Pace::new(options.timeout.map(Duration::from_secs));
    loop {
        let answer: Answer<Command> = api.send(Call::get(&["commands", &id])).await?;
        spinner.set_message(format!("{} {device}: {}", kind.type_name(), answer.known.state));
        let is_in_time = answer.known.is_over() || pace.next().await;
        if answer.known.is_over() || !is_in_time {
            spinner.finish_and_clear();
            printer.answer(&answer.value, |printer| show(printer, &answer.known))?;
            return end(&answer.known);
        }
    }
}

fn end(command: &Command) -> Result<(), CliError> {
    if command.succeeded() {
        return Ok(());
    }
    if !command.is_over() {
        let detail = format!(
            "no receipt in time; `muster command get {}` shows how it goes on",
            command.command_id
        );
        return Err(CliError::Failed(detail));
    }
    let receipt = command.receipt.clone().unwrap_or_default();
    let reason = receipt
        .detail
        .or(receipt.code)
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default();
    Err(CliError::Failed(format!(
        "the command ended {}{reason}",
        command.state
    )))
}

async fn bulk(api: &Api, printer: &Printer, body: Value, options: SendOptions) -> Result<(), CliError> {
    #[derive(Deserialize)]
    struct Accepted {
        operation_id: String,
        commands: u64,
    }
    let answer: Answer<Accepted> = api
        .send(Call::create(&["commands"], body, options.idempotency_key))
        .await?;
    let Accepted {
        operation_id,
        commands,
    } = &answer.known;
    let accepted = |_: &Printer| {
        let fields = vec![
            ("operation", Some(operation_id.clone())),
            ("commands", Some(commands.to_string())),
        ];
        Sheet::new().fields(fields)
    };
    if !options.wait || *commands == 0 {
        return printer.answer(&answer.value, accepted);
    }
    let bar = progress::bar(*commands, "receipts");
    let mut pace = Pace::new(options.timeout.map(Duration::from_secs));
    loop {
        let counts = count(api, operation_id, *commands).await?;
        let over: u64 = counts
            .iter()
            .filter(|(state, _)| is_final(state))
            .map(|(_, count)| count)
            .sum();
        bar.set_position(over);
        let is_over = over >= *commands;
        if is_over || !pace.next().await {
            bar.finish_and_clear();
            let summary = json!({"operation_id": operation_id, "commands": commands, "states": counts});
            printer.answer(&summary, |printer| {
                let rows = counts
                    .iter()
                    .map(|(state, count)| vec![state.clone(), count.to_string()])
                    .collect();
                accepted(printer).rows("commands", &["state", "commands"], rows)
            })?;
            return bulk_end(&counts, *commands);
        }
    }
}

fn bulk_end(counts: &BTreeMap<String, u64>, commands: u64) -> Result<(), CliError> {
    let of = |words: &[CommandState]| {
        words
            .iter()
            .filter_map(|state| counts.get(state.as_str()))
            .sum::<u64>()
    };
    let good = of(&[CommandState::Done, CommandState::Noop]);
    if good == commands {
        return Ok(());
    }
    Err(CliError::Failed(format!(
        "{} of {commands} commands did not succeed (yet)",
        commands - good.min(commands)
    )))
}

fn is_final(state: &str) -> bool {
    CommandState::parse(state).is_some_and(CommandState::is_final)
}

/// How many commands of an operation are in which state: the newest commands, page by page, until all are found.
async fn count(api: &Api, operation: &str, commands: u64) -> Result<BTreeMap<String, u64>, CliError> {
    let mut counts = BTreeMap::new();
    let (mut found, mut cursor) = (0, None::<String>);
    for _ in 0..BULK_PAGES_MAX {
        let call = Call::get(&["commands"])
            .query("limit", Some(500))
            .query("cursor", cursor.as_ref());
        let page: Answer<Page<Command>> = api.send(call).await?;
        for command in page.known.items {
            if command.operation_id.as_deref() == Some(operation) {
                found += 1;
                *counts.entry(command.state).or_insert(0) += 1;
            }
        }
        cursor = page.known.next_cursor;
        if found >= commands || cursor.is_none() {
            break;
        }
    }
    Ok(counts)
}

fn commands(printer: &Printer, commands: &[Command]) -> Sheet {
    let row = |command: &Command| {
        let receipt = command.receipt.as_ref();
        vec![
            command.kind.clone(),
            command.state.clone(),
            or_dash(receipt.and_then(|receipt| receipt.code.as_deref())),
            command.device_id.clone(),
            printer.ago(command.created_at.as_deref()),
            command.command_id.clone(),
        ]
    };
    let header = ["type", "state", "code", "device", "created", "id"];
    Sheet::new().rows("commands", &header, commands.iter().map(row).collect())
}

fn show(printer: &Printer, command: &Command) -> Sheet {
    let receipt = command.receipt.clone().unwrap_or_default();
    let when = |time: &Option<String>| time.as_deref().map(|time| printer.when(Some(time)));
    Sheet::new().fields(vec![
        ("command", Some(command.command_id.clone())),
        ("type", Some(command.kind.clone())),
        ("state", Some(command.state.clone())),
        (
            "outcome",
            Some(receipt.outcome).filter(|outcome| !outcome.is_empty()),
        ),
        ("code", receipt.code),
        ("detail", receipt.detail),
        (
            "output",
            receipt
                .output_bytes
                .map(|bytes| format!("{bytes} bytes: `muster command output`"))
                .or(receipt
                    .output_sha256
                    .map(|_| "uploaded: `muster command output`".to_owned())),
        ),
        ("device", Some(command.device_id.clone())),
        ("operation", command.operation_id.clone()),
        ("by", command.created_by.clone()),
        ("created", when(&command.created_at)),
        ("delivered", when(&command.delivered_at)),
        ("completed", when(&command.completed_at)),
        ("expires", when(&command.expires_at)),
        ("attempts", Some(command.attempts.to_string())),
        ("log entry", command.entry_id.clone()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_hold_what_was_given_and_no_nulls() {
        let options = SendOptions {
            ttl_seconds: Some(60),
            ..SendOptions::default()
        };
        let lock = body(&CommandKind::Lock { message: None }, &options).expect("valid");
        assert_eq!(lock, json!({"type": "lock", "ttl_seconds": 60}));
        let wipe = body(
            &CommandKind::Wipe {
                mode: WipeMode::Enterprise,
            },
            &SendOptions::default(),
        )
        .expect("valid");
        assert_eq!(wipe, json!({"type": "wipe", "mode": "enterprise"}));
        let delay = CommandKind::Restart {
            delay_seconds: Some(99_999),
        };
        assert!(matches!(body(&delay, &options), Err(CliError::Usage(_))));
    }

    #[test]
    fn a_command_ends_well_only_when_done_or_noop() {
        let ended = |state: &str| {
            end(&Command {
                state: state.to_owned(),
                ..Command::default()
            })
        };
        assert!(ended("done").is_ok() && ended("noop").is_ok());
        for state in ["failed", "expired", "cancelled", "queued", "unheard_of"] {
            assert!(matches!(ended(state), Err(CliError::Failed(_))), "{state}");
        }
    }

    #[test]
    fn a_failed_receipt_says_why() {
        let receipt = Receipt {
            outcome: "failed".to_owned(),
            code: Some("approvals_required".to_owned()),
            ..Receipt::default()
        };
        let command = Command {
            state: "failed".to_owned(),
            receipt: Some(receipt),
            ..Command::default()
        };
        let text = end(&command).expect_err("it failed").to_string();
        assert_eq!(text, "the command ended failed: approvals_required");
    }

    #[test]
    fn a_bulk_call_succeeds_only_as_a_whole() {
        let counts = |pairs: &[(&str, u64)]| {
            pairs
                .iter()
                .map(|(state, count)| ((*state).to_owned(), *count))
                .collect()
        };
        assert!(bulk_end(&counts(&[("done", 2), ("noop", 1)]), 3).is_ok());
        assert!(bulk_end(&counts(&[("done", 2), ("queued", 1)]), 3).is_err());
        assert!(bulk_end(&counts(&[]), 1).is_err());
    }
}
