//! Commands: the list, and the whole life of one.

use std::collections::{HashMap, hash_map::Entry};

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
        scope::{CommandRead, CommandWrite},
    },
    audit,
    commands::{self, Command},
    devices,
};
use muster_model::{CommandId, DeviceId, TenantId, Timestamp};
use muster_storage::Tx;
use serde::Deserialize;

use super::ROWS;
use crate::{
    form::Sent,
    session::{Ask, At, Session, parse},
    shell::{Refusal, Section, Shell, page, see_other},
    ui::{self, Badge, When},
};

pub fn router() -> Router<App> {
    Router::new()
        .route("/commands", get(list))
        .route("/commands/{id}", get(show))
        .route("/commands/{id}/progress", get(progress))
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
        kind: command.kind,
        device: device_name.map(|name| (href, name)),
        state: ui::command(command.state),
        created: When::new(command.created_at, now),
        completed: command.completed_at.map(|at| When::new(at, now)),
        detail: receipt.map(|receipt| receipt.detail).unwrap_or_default(),
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
    let permit = session.permit::<CommandRead>();
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
    pub arguments: String,
    pub created_by: String,
    pub sequence: u64,
    pub epoch: u32,
    pub attempts: u32,
    pub expires: When,
    pub entry_href: String,
    pub operation: Option<String>,
    pub envelope: String,
}

async fn show(State(app): State<App>, session: Session, At(id): At<String>) -> Result<Response, Refusal> {
    let permit = session.permit::<CommandRead>();
    let (tenant, now) = (session.tenant(), app.clock.now());
    let id: CommandId = parse(&id)?;
    let (command, name) = app
        .db
        .read(permit.storage(), move |tx| {
            let command = commands::get(tx, tenant, id)?;
            let name = devices::get(tx, tenant, command.device)?.name;
            Ok::<_, Problem>((command, name))
        })
        .await?;
    let shell = session.shell(format!("{} on {name}", command.kind), Section::Commands);
    page(&command_page(shell, command, name, now))
}

fn command_page(shell: Shell, command: Command, device_name: String, now: Timestamp) -> CommandPage {
    CommandPage {
        shell,
        id: command.id.to_string(),
        steps: steps(&command, now),
        receipt: Receipt::of(&command, now),
        device_href: format!("/devices/{}", command.device),
        device_name,
        state: ui::command(command.state),
        word: command.state.as_str(),
        is_final: command.state.is_final(),
        arguments: pretty(&command.arguments),
        created_by: ui::author(&command.created_by),
        sequence: command.sequence,
        epoch: command.epoch,
        attempts: command.attempts,
        expires: When::new(command.expires_at, now),
        entry_href: format!("/log/{}", command.entry),
        operation: command.operation.map(|operation| operation.to_string()),
        envelope: pretty(&command.envelope),
        kind: command.kind,
    }
}

fn steps(command: &Command, now: Timestamp) -> Vec<Step> {
    let delivered = command.delivered_at.map(|at| When::new(at, now));
    let completed = command.completed_at.map(|at| When::new(at, now));
    let times = match command.attempts {
        0 => String::new(),
        1 => "handed out once".to_owned(),
        attempts => format!("handed out {attempts} times; carried out once"),
    };
    let waits = if command.state.is_final() {
        "never handed out"
    } else {
        "waits for the device's next check-in"
    };
    vec![
        Step {
            title: "Queued",
            when: Some(When::new(command.created_at, now)),
            note: format!("signed and logged for {}", ui::author(&command.created_by)),
            is_past: true,
        },
        Step {
            title: "Delivered",
            is_past: delivered.is_some(),
            note: if delivered.is_some() {
                times
            } else {
                waits.to_owned()
            },
            when: delivered,
        },
        Step {
            title: if completed.is_some() { "Ended" } else { "Answer" },
            is_past: completed.is_some(),
            note: if completed.is_some() {
                command.state.as_str().replace('_', " ")
            } else {
                "the receipt, signed by the device's key".to_owned()
            },
            when: completed,
        },
    ]
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
    let permit = session.permit::<CommandRead>();
    let tenant = session.tenant();
    let id: CommandId = parse(&id)?;
    let command = app
        .db
        .read(permit.storage(), move |tx| commands::get(tx, tenant, id))
        .await?;
    Ok(Json(serde_json::json!({"state": command.state.as_str()})).into_response())
}

async fn cancel(State(app): State<App>, At(id): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<CommandWrite>();
    let id: CommandId = parse(&id)?;
    audit::commit(&app, permit.author(), move |tx| commands::cancel(tx, id)).await?;
    Ok(see_other(&format!("/commands/{id}?notice=command-cancelled")))
}
