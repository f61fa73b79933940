//! Commands: the list, and the whole life of one.

use std::{
    cmp::Reverse,
    collections::{HashMap, hash_map::Entry},
};

use askama::Template;
use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use muster_control::{
    App,
    access::{
        problem::Problem,
        scope::{CommandRead, CommandWrite, OutputRead, ScriptRead},
    },
    audit::{self, EntryRow},
    commands::{self, Command, Operation},
    devices, outputs, scripts,
};
use muster_model::{CommandId, CommandKind, DeviceId, TenantId, Timestamp};
use muster_storage::Tx;
use serde::Deserialize;
use uuid::Uuid;

use super::{
    ROWS,
    log::{Line, own_lines},
};
use crate::{
    form::Sent,
    kinds,
    session::{Ask, At, Session, parse},
    shell::{Refusal, Section, Shell, page, see_other},
    ui::{self, Badge, When},
};

/// Entries of the device that are looked through for those of a command.
const ENTRIES_LOOKED_AT: i64 = 500;
/// Characters of what a command printed that its page shows.
const PRINTED_CHARS: usize = 8192;
/// Entries of its operation that a command's page shows.
const ENTRIES_OF_OPERATION: i64 = 20;

pub fn router() -> Router<App> {
    Router::new()
        .route("/commands", get(list))
        .route("/commands/{id}", get(show))
        .route("/commands/{id}/progress", get(progress))
        .route("/commands/{id}/output", get(output))
        .route("/commands/{id}/cancel", post(cancel))
}

/// A command as a row.
#[derive(Debug)]
pub struct CommandRow {
    pub href: String,
    pub kind: String,
    /// Address and name, where the list is about several devices.
    pub device: Option<(String, String)>,
    pub state: Badge,
    pub created: When,
    pub completed: Option<When>,
    pub detail: String,
}

/// The row of a command.
pub fn row(command: Command, device_name: Option<String>, now: Timestamp) -> CommandRow {
    let receipt = Receipt::of(&command, now);
    let href = format!("/devices/{}", command.device);
    CommandRow {
        href: format!("/commands/{}", command.id),
        kind: kinds::label(&command.kind).to_owned(),
        device: device_name.map(|name| (href, name)),
        state: ui::command(command.state),
        created: When::new(command.created_at, now),
        completed: command.completed_at.map(|at| When::new(at, now)),
        detail: receipt
            .map(|receipt| receipt.detail)
            .filter(|detail| !detail.is_empty())
            .or(command.because)
            .unwrap_or_default(),
    }
}

/// What the device signed.
#[derive(Debug)]
pub struct Receipt {
    pub outcome: String,
    pub code: String,
    pub detail: String,
    pub at: Option<When>,
}

/// A stored receipt.
#[derive(Debug, Deserialize)]
struct StoredReceipt {
    outcome: String,
    code: Option<String>,
    detail: Option<String>,
    at: Option<String>,
}

impl Receipt {
    fn of(command: &Command, now: Timestamp) -> Option<Receipt> {
        let stored: StoredReceipt = serde_json::from_str(command.receipt.as_deref()?).ok()?;
        Some(Receipt {
            outcome: stored.outcome,
            code: stored.code.unwrap_or_default(),
            detail: stored.detail.unwrap_or_default(),
            at: stored.at.and_then(|at| When::read(&at, now)),
        })
    }
}

/// The commands of a device with what stands for those that wait for people, newest first.
pub fn of_device(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    before: Option<CommandId>,
    limit: usize,
) -> Result<Vec<Command>, Problem> {
    let mut found = commands::list(tx, tenant, Some(device), before, limit)?;
    let until = before.map_or(Uuid::max(), CommandId::uuid);
    let waiting = commands::waiting_of_device(tx, tenant, device, until, limit)?;
    found.extend(waiting.into_iter().filter_map(Command::standing_for));
    found.sort_unstable_by_key(|command| Reverse(command.id));
    found.truncate(limit);
    Ok(found)
}

/// The names of devices, each looked up once.
pub fn names(
    tx: &mut Tx,
    tenant: TenantId,
    ids: impl Iterator<Item = DeviceId>,
) -> Result<HashMap<DeviceId, String>, Problem> {
    let mut names = HashMap::new();
    for id in ids {
        if let Entry::Vacant(place) = names.entry(id) {
            place.insert(devices::get(tx, tenant, id)?.name);
        }
    }
    Ok(names)
}

#[derive(Debug, Default, Deserialize)]
struct Before {
    before: Option<String>,
}

#[derive(Template)]
#[template(path = "commands.html")]
pub struct CommandsPage {
    pub shell: Shell,
    pub rows: Vec<CommandRow>,
    pub older: Option<String>,
    pub is_first: bool,
}

async fn list(
    State(app): State<App>,
    session: Session,
    Ask(query): Ask<Before>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<CommandRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let before = query.before.as_deref().map(parse::<CommandId>).transpose()?;
    let (mut found, names) = app
        .db
        .read(permit.storage(), move |tx| {
            let found = commands::list(tx, tenant, None, before, ROWS + 1)?;
            let names = names(tx, tenant, found.iter().map(|command| command.device))?;
            Ok::<_, Problem>((found, names))
        })
        .await?;
    let more = found.len() > ROWS;
    found.truncate(ROWS);
    let older = found
        .last()
        .filter(|_| more)
        .map(|last| format!("/commands?before={}", last.id));
    let rows = found.into_iter().map(|command| {
        let name = names.get(&command.device).cloned();
        row(command, name, now)
    });
    page(&CommandsPage {
        shell: session.shell("Commands", Section::Commands),
        rows: rows.collect(),
        older,
        is_first: query.before.is_none(),
    })
}

/// A step of a command's life.
#[derive(Debug)]
pub struct Step {
    pub title: &'static str,
    pub when: Option<When>,
    pub note: String,
    pub is_past: bool,
}

/// What a command printed or collected.
#[derive(Debug)]
pub enum Printed {
    /// The beginning of it, and whether that is all.
    Text { text: String, is_whole: bool },
    /// Bytes of a compressed file.
    File(usize),
}

impl Printed {
    fn of(output: outputs::Output) -> Printed {
        match output {
            outputs::Output::Text(text) => {
                let shown = text.char_indices().nth(PRINTED_CHARS).map(|(end, _)| end);
                Printed::Text {
                    text: text[..shown.unwrap_or(text.len())].to_owned(),
                    is_whole: shown.is_none(),
                }
            }
            outputs::Output::Gzip { bytes, .. } => Printed::File(bytes.len()),
        }
    }
}

/// The name of the signed script that a command runs.
fn script_of(tx: &mut Tx, tenant: TenantId, command: &Command) -> Result<Option<String>, Problem> {
    match CommandKind::parse(command.arguments.as_bytes()) {
        Ok(CommandKind::RunScript { sha256, .. }) => Ok(scripts::get(tx, tenant, sha256.as_str())
            .ok()
            .map(|script| script.name.to_string())),
        Ok(_) | Err(_) => Ok(None),
    }
}

#[derive(Template)]
#[template(path = "command.html")]
pub struct CommandPage {
    pub shell: Shell,
    pub id: String,
    pub kind: String,
    pub device_href: String,
    pub device_name: String,
    pub state: Badge,
    pub word: &'static str,
    pub is_final: bool,
    pub steps: Vec<Step>,
    pub receipt: Option<Receipt>,
    pub output: Option<Printed>,
    /// What the people who signed it call the script that runs.
    pub script: Option<String>,
    pub arguments: String,
    pub created_by: String,
    pub sequence: u64,
    pub epoch: u32,
    pub attempts: u32,
    /// When it is delivered again.
    pub retry: Option<When>,
    pub expires: When,
    /// Whether it was made: before that it has no number, no signature and no entry of its own.
    pub is_made: bool,
    pub entry_href: String,
    pub operation: Option<String>,
    pub approvals: Vec<(String, When)>,
    pub envelope: String,
    pub lines: Vec<Line>,
}

async fn show(State(app): State<App>, session: Session, At(id): At<String>) -> Result<Response, Refusal> {
    let permit = session.permit::<CommandRead>()?;
    let (sees_output, sees_script) = (
        permit.also_holds::<OutputRead>(),
        permit.also_holds::<ScriptRead>(),
    );
    let (tenant, now) = (session.tenant(), app.clock.now());
    let id: CommandId = parse(&id)?;
    let (command, name, operation, lines, output, script) = app
        .db
        .read(permit.storage(), move |tx| {
            let command = commands::get(tx, tenant, id)?;
            let name = devices::get(tx, tenant, command.device)?.name;
            let operation = match command.operation {
                Some(operation) => commands::operation(tx, tenant, operation).ok(),
                None => None,
            };
            let entries = entries_of(tx, tenant, &command)?;
            let lines = own_lines(tx, tenant, entries, now)?;
            let output = match sees_output {
                true => outputs::get(tx, tenant, id).ok().map(Printed::of),
                false => None,
            };
            let script = match sees_script {
                true => script_of(tx, tenant, &command)?,
                false => None,
            };
            Ok::<_, Problem>((command, name, operation, lines, output, script))
        })
        .await?;
    let title = format!("{} on {name}", kinds::label(&command.kind));
    let content = CommandPage {
        lines,
        output,
        script,
        device_name: name,
        approvals: given(operation.as_ref(), now),
        ..command_page(
            session.shell(title, Section::Commands),
            command,
            operation.as_ref(),
            now,
        )
    };
    page(&content)
}

async fn output(State(app): State<App>, session: Session, At(id): At<String>) -> Result<Response, Refusal> {
    let permit = session.permit::<(CommandRead, OutputRead)>()?;
    let (tenant, id): (_, CommandId) = (session.tenant(), parse(&id)?);
    let output = app
        .db
        .read(permit.storage(), move |tx| outputs::get(tx, tenant, id))
        .await?;
    Ok(output.download(id)?)
}

/// Who approved it, and when.
fn given(operation: Option<&Operation>, now: Timestamp) -> Vec<(String, When)> {
    let batch = operation.and_then(|operation| operation.batch.as_ref());
    let given = batch.map_or(&[][..], |batch| &batch.given).iter();
    given
        .map(|given| (given.person.clone(), When::new(given.at, now)))
        .collect()
}

/// The entries about one command, newest first: they are among those of its device, and of its operation.
fn entries_of(tx: &mut Tx, tenant: TenantId, command: &Command) -> Result<Vec<EntryRow>, Problem> {
    let mut entries = audit::entries_of(
        tx,
        tenant,
        &command.device.to_string(),
        i64::MAX,
        ENTRIES_LOOKED_AT,
    )?;
    let id = command.id.to_string();
    entries.retain(|row| {
        row.entry()
            .is_ok_and(|entry| entry.detail_text("command_id") == Some(id.as_str()))
    });
    if let Some(operation) = command.operation {
        let of_operation =
            audit::entries_of(tx, tenant, &operation.to_string(), i64::MAX, ENTRIES_OF_OPERATION)?;
        entries.extend(of_operation);
    }
    entries.sort_unstable_by_key(|row| Reverse(row.place));
    Ok(entries)
}

fn command_page(
    shell: Shell,
    command: Command,
    operation: Option<&Operation>,
    now: Timestamp,
) -> CommandPage {
    let is_made = !command.envelope.is_empty();
    CommandPage {
        shell,
        id: command.id.to_string(),
        steps: steps(&command, operation, now),
        receipt: Receipt::of(&command, now),
        output: None,
        script: None,
        device_href: format!("/devices/{}", command.device),
        device_name: String::new(),
        state: ui::command(command.state),
        word: command.state.as_str(),
        is_final: command.state.is_final(),
        arguments: pretty(&command.arguments),
        created_by: ui::author(&command.created_by),
        sequence: command.sequence,
        epoch: command.epoch,
        attempts: command.attempts,
        retry: command
            .retry_at
            .filter(|_| !command.state.is_final())
            .map(|at| When::new(at, now)),
        expires: When::new(command.expires_at, now),
        is_made,
        entry_href: format!("/log/{}", command.entry),
        operation: command.operation.map(|operation| operation.to_string()),
        approvals: Vec::new(),
        envelope: pretty(&command.envelope),
        lines: Vec::new(),
        kind: kinds::label(&command.kind).to_owned(),
    }
}

fn steps(command: &Command, operation: Option<&Operation>, now: Timestamp) -> Vec<Step> {
    let is_made = !command.envelope.is_empty();
    let mut steps = Vec::new();
    if let Some(operation) = operation {
        steps.push(Step {
            title: "Asked",
            when: Some(When::new(operation.created_at, now)),
            note: format!("by {}", ui::author(&operation.created_by)),
            is_past: true,
        });
        if let Some(batch) = &operation.batch {
            steps.push(Step {
                title: "Approved",
                is_past: operation.released > 0 || operation.next_at.is_some(),
                when: batch.given.last().map(|given| When::new(given.at, now)),
                note: match batch.given.len() {
                    0 => "nobody has approved it yet".to_owned(),
                    1 => "by one person; the device checks it again".to_owned(),
                    several => format!("by {several} people; the device checks it again"),
                },
            });
        }
    }
    if is_made {
        steps.push(Step {
            title: "Queued",
            when: Some(When::new(command.created_at, now)),
            note: format!("signed and logged for {}", ui::author(&command.created_by)),
            is_past: true,
        });
    } else if !command.state.is_final() {
        steps.push(Step {
            title: "Queued",
            when: None,
            note: command
                .because
                .clone()
                .unwrap_or_else(|| "waits for the people who decide".to_owned()),
            is_past: false,
        });
    }
    if is_made || !command.state.is_final() {
        steps.push(delivered(command, now));
    }
    steps.push(ended(command, now));
    steps
}

fn delivered(command: &Command, now: Timestamp) -> Step {
    let times = match command.attempts {
        0 | 1 => "handed out once".to_owned(),
        attempts => format!("handed out {attempts} times; carried out once"),
    };
    let waits = if command.state.is_final() {
        "never handed out"
    } else {
        "waits for the device's next check-in"
    };
    Step {
        title: "Delivered",
        is_past: command.delivered_at.is_some(),
        note: match command.delivered_at {
            Some(_) => times,
            None => waits.to_owned(),
        },
        when: command.delivered_at.map(|at| When::new(at, now)),
    }
}

fn ended(command: &Command, now: Timestamp) -> Step {
    let completed = command.completed_at.map(|at| When::new(at, now));
    let state = command.state.as_str().replace('_', " ");
    Step {
        title: if completed.is_some() { "Ended" } else { "Answer" },
        is_past: completed.is_some(),
        note: match (&completed, &command.because) {
            (Some(_), Some(because)) => format!("{state}: {because}"),
            (Some(_), None) => state,
            (None, _) => "the receipt, signed by the device's key".to_owned(),
        },
        when: completed,
    }
}

fn pretty(json: &str) -> String {
    let value: Result<serde_json::Value, _> = serde_json::from_str(json);
    value
        .ok()
        .and_then(|value| serde_json::to_string_pretty(&value).ok())
        .unwrap_or_else(|| json.to_owned())
}

/// The state for a page that waits for it.
async fn progress(State(app): State<App>, session: Session, At(id): At<String>) -> Result<Response, Refusal> {
    let permit = session.permit::<CommandRead>()?;
    let tenant = session.tenant();
    let id: CommandId = parse(&id)?;
    let command = app
        .db
        .read(permit.storage(), move |tx| commands::get(tx, tenant, id))
        .await?;
    Ok(Json(serde_json::json!({"state": command.state.as_str()})).into_response())
}

async fn cancel(State(app): State<App>, At(id): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<CommandWrite>()?;
    let id: CommandId = parse(&id)?;
    audit::commit(&app, permit.author(), move |tx| commands::cancel(tx, id)).await?;
    Ok(see_other(&format!("/commands/{id}?notice=command-cancelled")))
}
