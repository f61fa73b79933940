//! `muster approver …`: a person's key on that person's machine, and what it signs.

mod review;

use std::path::{Path, PathBuf};

use muster_model::text::Name;
use muster_trust::approval::Approval;
use muster_trust::root::RootDocument;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Page, Paging, list};
use crate::api::{Answer, Api, Call};
use crate::context::{read_input_of, write_private};
use crate::key_file::{self, NewPassphrase, PassphraseSource};
use crate::output::{Printer, Sheet, or_dash};
use crate::root_file::RootFile;
use crate::{CliError, Globals, clock};
pub use review::{Operation, Target};
use review::{Review, review};

/// Devices that are shown before an approval.
const SHOWN: usize = 10;
/// Owners that are shown before an approval.
const OWNERS_SHOWN: usize = 8;
/// Largest file of a request: a million devices.
const REQUEST_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Verbs of approvers.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ApproverCommand {
    /// Make your key on this machine, and show the public half to hand over
    #[command(
        after_help = "Examples:\n  muster approver init --person 'Ada Lovelace'\n  muster approver init --person 'Ada Lovelace' \
        --out ada.pem\n\nThe key approves nothing until the root document names it, and the cool-down is over."
    )]
    Init {
        #[arg(long, value_name = "NAME", value_parser = Name::parse)]
        person: Name,
        /// Where the private key is written; the public half goes beside it, as .pub
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        passphrase: NewPassphrase,
    },
    /// List the operations that wait for approvals
    #[command(after_help = "Examples:\n  muster approver list")]
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Check an operation and its whole list of devices, and show what it would do
    #[command(
        after_help = "Examples:\n  muster approver show 0192f3a8-…\n  muster approver show 0192f3a8-… --out request.json\n  muster approver \
        show --request request.json"
    )]
    Show {
        #[arg(required_unless_present = "request")]
        operation: Option<String>,
        /// A file of `--out` instead of the server
        #[arg(long, value_name = "FILE", conflicts_with_all = ["operation", "out"])]
        request: Option<PathBuf>,
        /// Also write everything that is to be checked into a file, for a machine without a network
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Check an operation as `show` does, ask, and sign it
    #[command(
        after_help = "Examples:\n  muster approver approve 0192f3a8-… --key ada.pem\n  muster approver approve --request request.json \
        --key ada.pem --out approval.json"
    )]
    Approve {
        #[arg(required_unless_present = "request")]
        operation: Option<String>,
        /// Your private key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// A file of `muster approver show --out` instead of the server
        #[arg(long, value_name = "FILE", conflicts_with = "operation", requires = "out")]
        request: Option<PathBuf>,
        /// Write the approval into a file instead of sending it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
    /// Send an approval that was made without a network
    #[command(after_help = "Examples:\n  muster approver send approval.json")]
    Send { file: PathBuf },
    /// Refuse an operation, for everybody
    #[command(after_help = "Examples:\n  muster approver reject 0192f3a8-… --reason 'wrong list'")]
    Reject {
        operation: String,
        /// Written into the log
        #[arg(long)]
        reason: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Everything that is to be checked, as a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Request {
    operation: Operation,
    targets: Vec<Target>,
    /// The root documents, from version 1 on.
    root: Value,
}

/// An approval on its way to the server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApprovalFile {
    operation_id: String,
    approval: Approval,
}

/// Runs one verb.
pub async fn run(command: ApproverCommand, globals: &Globals, printer: &Printer) -> Result<(), CliError> {
    match command {
        ApproverCommand::Init {
            person,
            out,
            passphrase,
        } => init(&person, out, &passphrase, printer),
        ApproverCommand::List { paging } => {
            super::operation::list_in(
                &Api::connect(globals)?,
                Some("awaiting_approval"),
                &paging,
                printer,
            )
            .await
        }
        ApproverCommand::Show {
            operation,
            request,
            out,
        } => {
            let request = obtain(operation.as_deref(), request.as_deref(), globals).await?;
            if let Some(out) = &out {
                let text =
                    serde_json::to_vec(&request).map_err(|error| CliError::Answer(error.to_string()))?;
                write_private(out, &text)?;
            }
            let (review, root) = check(&request)?;
            let value = value_of(&request, &review);
            printer.answer(&value, |printer| sheet(printer, &request, &review, &root))
        }
        ApproverCommand::Approve {
            operation,
            key,
            request,
            out,
            yes,
            passphrase,
        } => {
            let request = obtain(operation.as_deref(), request.as_deref(), globals).await?;
            let (review, root) = check(&request)?;
            printer.aside(&sheet(printer, &request, &review, &root));
            let key = key_file::read(&key, &passphrase)?;
            // Refused before anybody is asked where the signature would not count.
            let approval = review
                .approve(&key, &root, clock::now())
                .map_err(CliError::Failed)?;
            let what = format!(
                "This approves the {} of {} devices, exactly these.",
                review.statement.kind.type_name(),
                review.statement.count
            );
            printer.confirm(yes, &what, &review.statement.count.to_string())?;
            let file = ApprovalFile {
                operation_id: request.operation.operation_id.clone(),
                approval,
            };
            match out {
                Some(out) => {
                    let text =
                        serde_json::to_vec(&file).map_err(|error| CliError::Answer(error.to_string()))?;
                    write_private(&out, &text)?;
                    printer.note(&format!(
                        "The approval is in {}: `muster approver send {}`.",
                        out.display(),
                        out.display()
                    ));
                    Ok(())
                }
                None => send(&file, globals, printer).await,
            }
        }
        ApproverCommand::Send { file } => {
            let file: ApprovalFile = read_json(&file)?;
            send(&file, globals, printer).await
        }
        ApproverCommand::Reject {
            operation,
            reason,
            yes,
        } => super::operation::reject(&Api::connect(globals)?, &operation, &reason, yes, printer).await,
    }
}

fn init(
    person: &Name,
    out: Option<PathBuf>,
    passphrase: &NewPassphrase,
    printer: &Printer,
) -> Result<(), CliError> {
    let path = out.unwrap_or_else(|| PathBuf::from(format!("approver-{}.pem", slug(person.as_str()))));
    let public = path.with_extension("pub");
    if public == path {
        return Err(CliError::Usage(
            "Call the private key something else than .pub.".to_owned(),
        ));
    }
    if public.exists() {
        return Err(CliError::File {
            path: public,
            source: std::io::ErrorKind::AlreadyExists.into(),
        });
    }
    let key = key_file::generate(&path, passphrase)?;
    let pem = key.public().to_pem();
    key_file::write_new(&public, pem.as_bytes(), 0o644)?;
    let id = key.key_id().to_string();
    let value =
        json!({"person": person, "key_id": id, "public_key": pem, "file": path, "public_file": public});
    printer.answer(&value, |_| {
        Sheet::new()
            .fields(vec![
                ("person", Some(person.to_string())),
                ("key id", Some(id.clone())),
                ("private key in", Some(path.display().to_string())),
                ("public half in", Some(public.display().to_string())),
            ])
            .text(pem.clone())
            .text(format!(
                "Hand the public half to whoever keeps the root key, and say the key id over another way:\n  muster root \
                 add-approver --in root.json --person '{person}' --key {} --account ACCOUNT --out next.json\nACCOUNT is the name \
                 under which you sign in (`ada`): what it asks for, you cannot approve.",
                public.display()
            ))
    })
}

/// A name as a part of a file's name.
fn slug(name: &str) -> String {
    let lower = name.to_lowercase();
    let words = lower
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    let slug = words.collect::<Vec<_>>().join("-");
    if slug.is_empty() { "key".to_owned() } else { slug }
}

/// Gets an operation with its whole list and the root documents, from the server or from a file.
async fn obtain(
    operation: Option<&str>,
    request: Option<&Path>,
    globals: &Globals,
) -> Result<Request, CliError> {
    if let Some(path) = request {
        return read_json(path);
    }
    let id = operation.ok_or_else(|| CliError::Usage("Name an operation.".to_owned()))?;
    let api = Api::connect(globals)?;
    let operation: Answer<Operation> = api.send(Call::get(&["operations", id])).await?;
    let every = Paging {
        all: true,
        ..Paging::default()
    };
    let call = Call::get(&["operations", id, "targets"]);
    let targets: Answer<Page<Target>> = list(&api, call, &every).await?;
    let root: Answer<Value> = api.send(Call::get(&["log", "root"])).await?;
    Ok(Request {
        operation: operation.known,
        targets: targets.known.items,
        root: root.value,
    })
}

fn check(request: &Request) -> Result<(Review, RootDocument), CliError> {
    let published = crate::log::envelopes(request.root.clone())
        .ok_or_else(|| CliError::Answer("no list of root documents".to_owned()))?;
    let root = RootFile::verified(published, None)?.current;
    let review = review(&request.operation, &request.targets, &root, clock::now())
        .map_err(|why| CliError::Failed(format!("do not approve this: {why}")))?;
    Ok((review, root))
}

async fn send(file: &ApprovalFile, globals: &Globals, printer: &Printer) -> Result<(), CliError> {
    let body = serde_json::to_value(&file.approval).map_err(|error| CliError::Answer(error.to_string()))?;
    let call = Call::post(&["operations", &file.operation_id, "approvals"]).body(body);
    let answer: Answer<Operation> = Api::connect(globals)?.send(call).await?;
    let people = answer
        .known
        .approval
        .as_ref()
        .map_or(0, |approval| approval.people.len());
    let threshold = answer
        .known
        .approval
        .as_ref()
        .map_or(0, |approval| approval.threshold);
    printer.answer(&answer.value, |_| {
        Sheet::new().text(format!(
            "{}: {people} of {threshold} people approved, {}.",
            file.operation_id,
            or_dash(Some(&answer.known.state))
        ))
    })
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, CliError> {
    serde_json::from_slice(&read_input_of(path, REQUEST_BYTES_MAX)?).map_err(|error| CliError::Content {
        path: path.to_owned(),
        detail: error.to_string(),
    })
}

fn value_of(request: &Request, review: &Review) -> Value {
    json!({
        "operation_id": request.operation.operation_id,
        "statement": review.statement,
        "sha256": review.batch.sha256(),
        "owners": review.owners,
        "budget_per_hour": review.budget,
        "threshold": review.threshold,
        "people": review.people,
        "last_may_begin_at": review.last_slot(),
        "targets_verified": request.targets.len(),
    })
}

/// What it would do, by the statement that is signed. Names and owners are the server's word, and are said to be.
fn sheet(printer: &Printer, request: &Request, review: &Review, root: &RootDocument) -> Sheet {
    let statement = &review.statement;
    let now = clock::now();
    let command = serde_json::to_string(&statement.kind).unwrap_or_default();
    let time = |at: muster_model::Timestamp| printer.when(Some(&at.to_string()));
    let owners: Vec<String> = review
        .owners
        .iter()
        .take(OWNERS_SHOWN)
        .map(|(owner, count)| format!("{owner} ({count})"))
        .collect();
    let more_owners = review.owners.len().saturating_sub(OWNERS_SHOWN);
    let more = |count: usize| {
        if count == 0 {
            String::new()
        } else {
            format!(" and {count} more")
        }
    };
    let delay = std::time::Duration::from_secs(review.delay(now).as_secs());
    let fields = vec![
        ("operation", Some(request.operation.operation_id.clone())),
        ("command", Some(command)),
        (
            "devices",
            Some(format!(
                "{} of {} ({:.2} %)",
                statement.count,
                statement.fleet,
                review.percent()
            )),
        ),
        (
            "owners",
            Some(format!("{}{}", owners.join(", "), more(more_owners))),
        ),
        (
            "pace",
            statement
                .kind
                .is_for_devices()
                .then(|| format!("{} an hour (the budget is {})", statement.per_hour, review.budget)),
        ),
        (
            "begins",
            Some(format!(
                "{}, {} from now to stop it",
                statement.not_before,
                humantime::format_duration(delay)
            )),
        ),
        (
            "last device",
            statement.kind.is_for_devices().then(|| time(review.last_slot())),
        ),
        ("expires", Some(time(statement.expires_at))),
        (
            "asked by",
            Some(format!(
                "{}, {}",
                statement.requested_by,
                time(statement.requested_at)
            )),
        ),
        ("reason", statement.reason.as_ref().map(ToString::to_string)),
        (
            "approved by",
            Some(format!(
                "{} of {} people{}",
                review.people.len(),
                review.threshold,
                match review.people.is_empty() {
                    true => String::new(),
                    false => format!(": {}", review.people.join(", ")),
                }
            )),
        ),
        ("sha256", Some(review.batch.sha256().to_string())),
        ("root document", Some(format!("version {}", root.version))),
    ];
    let rows = request
        .targets
        .iter()
        .take(SHOWN)
        .map(|target| {
            vec![
                target.position.to_string(),
                or_dash(target.name.as_deref()),
                or_dash(target.owner.as_deref()),
                target.device_id.clone(),
                statement.slot(target.position).to_string(),
            ]
        })
        .collect();
    let rest = request.targets.len().saturating_sub(SHOWN);
    Sheet::new()
        .fields(fields)
        .rows("devices", &["#", "name", "owner", "id", "not before"], rows)
        .text(format!(
            "{} devices verified against the statement's list{}. Names and owners are the server's word; the ids are signed.",
            request.targets.len(),
            match rest {
                0 => String::new(),
                rest => format!(", {rest} of them not shown"),
            }
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_makes_a_name_of_a_file() {
        assert_eq!(slug("Ada Lovelace"), "ada-lovelace");
        assert_eq!(slug("../../etc/passwd"), "etc-passwd");
        assert_eq!(slug("李"), "key");
    }

    #[test]
    fn an_approval_survives_its_file() {
        let key = muster_trust::key::SigningKey::generate_ed25519().expect("a key");
        let file = ApprovalFile {
            operation_id: "opr_1".to_owned(),
            approval: Approval {
                keyid: key.key_id(),
                sig: vec![1, 2, 3],
                assertion: None,
            },
        };
        let text = serde_json::to_vec(&file).expect("JSON");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("approval.json");
        write_private(&path, &text).expect("written");
        let read: ApprovalFile = read_json(&path).expect("read");
        assert_eq!(read.approval, file.approval);
    }
}
