//! `muster operation …`: what was asked of many devices at once, or needs approvals.

use serde_json::json;

use super::approver::{Operation, Target};
use super::{Page, Paging, list};
use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::output::{Printer, Sheet, or_dash, plain};
use crate::progress::{self, Pace};

/// States in which an operation stays.
const OVER: [&str; 4] = ["completed", "rejected", "cancelled", "expired"];

/// Verbs of operations.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum OperationCommand {
    /// List operations, newest first
    #[command(
        after_help = "Examples:\n  muster operation list\n  muster operation list --state awaiting_approval"
    )]
    List {
        /// Only these, such as awaiting_approval
        #[arg(long)]
        state: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show an operation: what it is, who asked, who approved, how far it is
    #[command(after_help = "Examples:\n  muster operation show 0192f3a8-…")]
    Show { operation: String },
    /// List the devices of an operation, in their order
    #[command(after_help = "Examples:\n  muster operation targets 0192f3a8-… --all")]
    Targets {
        operation: String,
        #[command(flatten)]
        paging: Paging,
    },
    /// Stop an operation: devices that have not begun never will
    #[command(after_help = "Examples:\n  muster operation cancel 0192f3a8-…")]
    Cancel {
        operation: String,
        /// Written into the log
        #[arg(long, default_value = "")]
        reason: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Let an operation go on that was held because it is unusual
    #[command(after_help = "Examples:\n  muster operation release 0192f3a8-…")]
    Release {
        operation: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Refuse an operation that waits for approvals
    #[command(after_help = "Examples:\n  muster operation reject 0192f3a8-… --reason 'wrong list'")]
    Reject {
        operation: String,
        /// Written into the log
        #[arg(long)]
        reason: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Watch an operation until no device has anything before it
    #[command(after_help = "Examples:\n  muster operation watch 0192f3a8-… --timeout 1h")]
    Watch {
        operation: String,
        /// Give up after this time
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        timeout: Option<std::time::Duration>,
    },
}

/// Runs one verb.
pub async fn run(command: OperationCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command {
        OperationCommand::List { state, paging } => list_in(api, state.as_deref(), &paging, printer).await,
        OperationCommand::Show { operation } => {
            let answer: Answer<Operation> = api.send(Call::get(&["operations", &operation])).await?;
            printer.answer(&answer.value, |printer| details(printer, &answer.known))
        }
        OperationCommand::Targets { operation, paging } => {
            let call = Call::get(&["operations", &operation, "targets"]);
            let answer: Answer<Page<Target>> = list(api, call, &paging).await?;
            printer.answer(&answer.value, |_| targets(&answer.known.items))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
        OperationCommand::Cancel {
            operation,
            reason,
            yes,
        } => {
            printer.confirm(yes, "Devices that have not begun never will.", &operation)?;
            let call = Call::post(&["operations", &operation, "cancel"]).body(json!({"reason": reason}));
            api.send_quiet(call).await?;
            printer.note(&format!("{operation} is cancelled."));
            Ok(())
        }
        OperationCommand::Release { operation, yes } => {
            printer.confirm(yes, "What was held as unusual goes on.", &operation)?;
            api.send_quiet(Call::post(&["operations", &operation, "release"]))
                .await?;
            printer.note(&format!("{operation} goes on."));
            Ok(())
        }
        OperationCommand::Reject {
            operation,
            reason,
            yes,
        } => reject(api, &operation, &reason, yes, printer).await,
        OperationCommand::Watch { operation, timeout } => watch(api, &operation, timeout, printer).await,
    }
}

/// Lists operations in a state.
pub async fn list_in(
    api: &Api,
    state: Option<&str>,
    paging: &Paging,
    printer: &Printer,
) -> Result<(), CliError> {
    let call = Call::get(&["operations"]).query("state", state);
    let answer: Answer<Page<Operation>> = list(api, call, paging).await?;
    printer.answer(&answer.value, |printer| operations(printer, &answer.known.items))?;
    printer.next_page(answer.known.next_cursor.as_deref());
    Ok(())
}

/// Refuses an operation, after asking.
pub async fn reject(
    api: &Api,
    operation: &str,
    reason: &str,
    yes: bool,
    printer: &Printer,
) -> Result<(), CliError> {
    printer.confirm(yes, "Nobody can approve it any more.", operation)?;
    let call = Call::post(&["operations", operation, "reject"]).body(json!({"reason": reason}));
    api.send_quiet(call).await?;
    printer.note(&format!("{operation} is rejected."));
    Ok(())
}

async fn watch(
    api: &Api,
    id: &str,
    timeout: Option<std::time::Duration>,
    printer: &Printer,
) -> Result<(), CliError> {
    let spinner = progress::spinner(format!("{id}: asking"));
    let mut pace = Pace::new(timeout);
    loop {
        let answer: Answer<Operation> = api.send(Call::get(&["operations", id])).await?;
        let known = &answer.known;
        spinner.set_message(format!("{id}: {}, {}", known.state, progress_line(known)));
        if is_over(known) {
            spinner.finish_and_clear();
            return printer.answer(&answer.value, |printer| details(printer, known));
        }
        if !pace.next().await {
            spinner.finish_and_clear();
            return Err(CliError::Failed(format!(
                "{id} goes on: {}",
                progress_line(known)
            )));
        }
    }
}

/// Whether nothing more will happen.
fn is_over(operation: &Operation) -> bool {
    OVER.contains(&operation.state.as_str())
}

fn progress_line(operation: &Operation) -> String {
    let parts: Vec<String> = operation
        .progress
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(state, count)| format!("{count} {}", state.replace('_', " ")))
        .collect();
    if parts.is_empty() {
        return "nothing yet".to_owned();
    }
    parts.join(", ")
}

fn approved(operation: &Operation) -> Option<String> {
    let approval = operation.approval.as_ref()?;
    let people: Vec<&str> = approval
        .people
        .iter()
        .map(|signer| signer.person.as_str())
        .collect();
    let who = match people.is_empty() {
        true => String::new(),
        false => format!(": {}", people.join(", ")),
    };
    Some(format!("{} of {}{who}", people.len(), approval.threshold))
}

fn operations(printer: &Printer, operations: &[Operation]) -> Sheet {
    let row = |operation: &Operation| {
        vec![
            operation.operation_id.clone(),
            operation.kind.clone(),
            operation.state.clone(),
            operation.count.to_string(),
            approved(operation).unwrap_or_else(|| "-".to_owned()),
            printer.ago(operation.created_at.as_deref()),
            operation.created_by.clone(),
            or_dash(operation.reason.as_deref()),
        ]
    };
    Sheet::new().rows(
        "operations",
        &[
            "id", "type", "state", "devices", "approved", "asked", "by", "reason",
        ],
        operations.iter().map(row).collect(),
    )
}

fn details(printer: &Printer, operation: &Operation) -> Sheet {
    let arguments: Vec<String> = operation
        .arguments
        .iter()
        .map(|(name, value)| format!("{name}={}", plain(value)))
        .collect();
    let when = |time: &Option<String>| time.as_ref().map(|_| printer.when(time.as_deref()));
    Sheet::new().fields(vec![
        ("id", Some(operation.operation_id.clone())),
        ("type", Some(operation.kind.clone())),
        ("arguments", (!arguments.is_empty()).then(|| arguments.join(" "))),
        ("state", Some(operation.state.clone())),
        ("devices", Some(operation.count.to_string())),
        ("progress", Some(progress_line(operation))),
        ("asked", when(&operation.created_at)),
        ("asked by", Some(operation.created_by.clone())),
        ("reason", operation.reason.clone()),
        ("because", operation.because.clone()),
        (
            "begins",
            operation
                .approval
                .as_ref()
                .and_then(|approval| when(&approval.not_before)),
        ),
        ("expires", when(&operation.expires_at)),
        (
            "an hour",
            operation
                .approval
                .as_ref()
                .and_then(|approval| approval.per_hour)
                .map(|count| count.to_string()),
        ),
        ("approved by", approved(operation)),
        (
            "sha256",
            operation
                .approval
                .as_ref()
                .map(|approval| approval.sha256.clone()),
        ),
    ])
}

fn targets(targets: &[Target]) -> Sheet {
    let row = |target: &Target| {
        vec![
            target.position.to_string(),
            or_dash(target.name.as_deref()),
            or_dash(target.owner.as_deref()),
            target.epoch.to_string(),
            target.device_id.clone(),
        ]
    };
    Sheet::new().rows(
        "devices",
        &["#", "name", "owner", "epoch", "id"],
        targets.iter().map(row).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_over_in_its_last_states_alone() {
        let in_state = |state: &str| Operation {
            state: state.to_owned(),
            ..Operation::default()
        };
        for state in ["completed", "rejected", "cancelled", "expired"] {
            assert!(is_over(&in_state(state)), "{state}");
        }
        for state in ["awaiting_approval", "held", "running", ""] {
            assert!(!is_over(&in_state(state)), "{state}");
        }
    }

    #[test]
    fn progress_is_said_in_words() {
        let progress = [("done", 2), ("left_out", 1), ("failed", 0)];
        let operation = Operation {
            progress: progress.map(|(state, count)| (state.to_owned(), count)).into(),
            ..Operation::default()
        };
        assert_eq!(progress_line(&operation), "2 done, 1 left out");
    }
}
