//! Operations: what was asked of many devices or needs people, how far it is, and what is decided about it.

use std::collections::BTreeMap;

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
        self,
        problem::{APPROVER_REFUSED, NOT_FOUND, Problem},
        scope::{ApprovalWrite, CommandRead, CommandWrite},
    },
    audit, commands,
    commands::{Operation, OperationState, Progress},
    devices,
};
use muster_model::{CommandState, TenantId, Timestamp};
use muster_storage::Tx;
use muster_trust::approval::{Approval, Assertion};
use serde::Deserialize;
use uuid::Uuid;

use super::{
    ROWS,
    log::{Line, own_lines},
    operation_card::{ByPasskey, Card, Viewer, state},
    passkeys::bytes,
};
use crate::{
    form::{Fields, Sent},
    kinds,
    session::{Ask, At, Session, encode, parse, rows},
    shell::{Refusal, Section, Shell, page, see_other},
    ui::{self, Badge, Tone, When},
};

/// The width of the progress bar, in its own units.
const WIDTH: u64 = 1000;
/// Entries that the page shows.
const ENTRIES: usize = 20;

pub fn router() -> Router<App> {
    Router::new()
        .route("/operations", get(list))
        .route("/operations/{id}", get(show))
        .route("/operations/{id}/progress", get(progress))
        .route("/operations/{id}/{action}", post(decide))
}

/// An operation as a row.
#[derive(Debug)]
struct Row {
    href: String,
    title: String,
    state: Badge,
    devices: String,
    by: String,
    created: When,
    because: String,
}

#[derive(Debug, Default, Deserialize)]
struct Search {
    #[serde(default)]
    state: String,
    before: Option<String>,
}

/// A state to show alone.
#[derive(Debug)]
struct Chip {
    label: String,
    href: String,
    is_on: bool,
}

#[derive(Template)]
#[template(path = "operations.html")]
struct OperationsPage {
    shell: Shell,
    rows: Vec<Row>,
    chips: Vec<Chip>,
    is_filtered: bool,
    first: String,
    older: Option<String>,
    is_first: bool,
}

async fn list(
    State(app): State<App>,
    session: Session,
    Ask(search): Ask<Search>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<CommandRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let wanted = OperationState::parse(&search.state);
    let before = search.before.as_deref().map(parse::<Uuid>).transpose()?;
    let mut found = app
        .db
        .read(permit.storage(), move |tx| {
            commands::operations(tx, tenant, wanted, before, ROWS + 1)
        })
        .await?;
    let more = found.len() > ROWS;
    found.truncate(ROWS);
    let first = match wanted {
        Some(wanted) => format!("/operations?state={}", wanted.as_str()),
        None => "/operations?".to_owned(),
    };
    let older = found
        .last()
        .filter(|_| more)
        .map(|last| format!("{first}&before={}", last.id));
    let all = Chip {
        label: "All".to_owned(),
        href: "/operations".to_owned(),
        is_on: wanted.is_none(),
    };
    let chips = OperationState::ALL.map(|known| Chip {
        label: state(known).word.to_owned(),
        href: format!("/operations?state={}", encode(known.as_str())),
        is_on: wanted == Some(known),
    });
    page(&OperationsPage {
        shell: session.shell("Operations", Section::Commands),
        rows: found
            .into_iter()
            .map(|operation| Row {
                href: format!("/operations/{}", operation.id),
                title: kinds::words(&operation.kind),
                state: state(operation.state),
                devices: ui::count(i64::try_from(operation.targets).unwrap_or(i64::MAX)),
                by: ui::author(&operation.created_by),
                created: When::new(operation.created_at, now),
                because: operation.because.unwrap_or_default(),
            })
            .collect(),
        chips: std::iter::once(all).chain(chips).collect(),
        is_filtered: wanted.is_some(),
        first,
        older,
        is_first: search.before.is_none(),
    })
}

/// A part of the progress bar.
#[derive(Debug)]
pub struct Part {
    pub name: &'static str,
    pub label: &'static str,
    pub class: &'static str,
    pub count: u64,
    pub start: u64,
    pub width: u64,
}

/// The parts of an operation by the states of its commands; a part with nothing in it stands too, so that it can grow.
fn parts(progress: &Progress, targets: u64) -> Vec<Part> {
    let of = |state: CommandState| progress.by_state.get(state.as_str()).copied().unwrap_or(0);
    let parts = [
        ("done", "done", "good", of(CommandState::Done)),
        ("noop", "was so already", "hue4", of(CommandState::Noop)),
        ("failed", "failed", "bad", of(CommandState::Failed)),
        ("unknown", "nobody knows", "hue3", of(CommandState::Unknown)),
        ("expired", "expired", "warn", of(CommandState::Expired)),
        ("delivered", "delivered", "wait", of(CommandState::Delivered)),
        (
            "queued",
            "queued",
            "hue2",
            of(CommandState::Queued) + of(CommandState::Held) + of(CommandState::AwaitingApproval),
        ),
        (
            "ended",
            "cancelled or superseded",
            "off",
            of(CommandState::Cancelled) + of(CommandState::Superseded),
        ),
        ("left_out", "left out", "off", progress.left_out),
        ("pending", "not made yet", "none", progress.pending),
    ];
    let mut start = 0;
    let parts = parts.into_iter().map(|(name, label, class, count)| {
        let width = count.saturating_mul(WIDTH) / targets.max(1);
        let part = Part {
            name,
            label,
            class,
            count,
            start,
            width,
        };
        start += width;
        part
    });
    parts.collect()
}

/// How many devices need nothing more.
fn settled(parts: &[Part]) -> u64 {
    let open = ["delivered", "queued", "pending"];
    let settled = parts.iter().filter(|part| !open.contains(&part.name));
    settled.map(|part| part.count).sum()
}

/// What changes the words of the page when it changes, so that the page loads again.
fn page_state(operation: &Operation) -> String {
    let given = operation.batch.as_ref().map_or(0, |batch| batch.given.len());
    format!(
        "{}-{given}-{}",
        operation.state.as_str(),
        operation.because.as_deref().unwrap_or_default()
    )
}

/// A device of the list.
#[derive(Debug)]
struct TargetRow {
    position: u64,
    href: String,
    name: String,
    owner: String,
    model: String,
    note: &'static str,
}

#[derive(Debug, Default, Deserialize)]
struct After {
    after: Option<u64>,
}

#[derive(Template)]
#[template(path = "operation.html")]
struct OperationPage {
    shell: Shell,
    card: Card,
    state_key: String,
    is_live: bool,
    parts: Vec<Part>,
    settled: u64,
    targets: u64,
    commands_href: Option<String>,
    sha256: Option<String>,
    rows: Vec<TargetRow>,
    next: Option<String>,
    is_first: bool,
    lines: Vec<Line>,
    back: &'static str,
}

async fn show(
    State(app): State<App>,
    session: Session,
    At(id): At<String>,
    Ask(query): Ask<After>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<CommandRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let id: Uuid = parse(&id)?;
    let first = query.after.map_or(0, |after| after.saturating_add(1));
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let (author, shared) = (permit.author().clone(), app.clone());
    let named = session.clone();
    let content = app
        .db
        .read(permit.storage(), move |tx| {
            let operation = commands::operation(tx, tenant, id)?;
            let progress = commands::progress(tx, tenant, &operation)?;
            let parts = parts(&progress, operation.targets);
            let mut rows = target_rows(tx, tenant, &operation, first)?;
            let more = rows.len() > ROWS;
            rows.truncate(ROWS);
            let next = rows.last().filter(|_| more).map(|last| last.position);
            let entries = audit::entries_of(tx, tenant, &id.to_string(), i64::MAX, self::rows(ENTRIES))?;
            let viewer = Viewer {
                tenant,
                author: &author,
                keys: &keys,
                lists: &shared.lists,
                now,
            };
            Ok::<_, Problem>(OperationPage {
                shell: named.shell(kinds::words(&operation.kind), Section::Commands),
                state_key: page_state(&operation),
                is_live: operation.ended_at.is_none() || settled(&parts) < operation.targets,
                settled: settled(&parts),
                parts,
                targets: operation.targets,
                commands_href: operation
                    .device
                    .map(|_| format!("/commands/{}", muster_model::CommandId::from_uuid(id))),
                sha256: operation.batch.as_ref().map(|batch| batch.sha256.to_string()),
                rows,
                next: next.map(|next| format!("/operations/{id}?after={next}#targets")),
                is_first: first == 0,
                lines: own_lines(tx, tenant, entries, now)?,
                card: Card::of(tx, &viewer, operation)?,
                back: "",
            })
        })
        .await?;
    page(&content)
}

fn target_rows(
    tx: &mut Tx,
    tenant: TenantId,
    operation: &Operation,
    first: u64,
) -> Result<Vec<TargetRow>, Problem> {
    let targets = commands::targets_of(tx, tenant, operation, first, ROWS + 1)?;
    let mut found = Vec::with_capacity(targets.len());
    for target in targets {
        let device = match devices::get(tx, tenant, target.device) {
            Ok(device) => Some(device),
            Err(problem) if problem.kind == NOT_FOUND => None,
            Err(problem) => return Err(problem),
        };
        found.push(TargetRow {
            position: target.position,
            href: format!("/devices/{}/commands", target.device),
            note: match &device {
                None => "gone",
                Some(device) if device.epoch != target.epoch => "enrolled anew since",
                Some(device) if device.state != devices::DeviceState::Active => "not active",
                Some(_) => "",
            },
            name: device
                .as_ref()
                .map_or_else(|| target.device.to_string(), |device| device.name.clone()),
            owner: device
                .as_ref()
                .and_then(|device| device.owner.clone())
                .unwrap_or_default(),
            model: device.and_then(|device| device.model).unwrap_or_default(),
        });
    }
    Ok(found)
}

/// The numbers for a page that follows them.
async fn progress(State(app): State<App>, session: Session, At(id): At<String>) -> Result<Response, Refusal> {
    let permit = session.permit::<CommandRead>()?;
    let tenant = session.tenant();
    let id: Uuid = parse(&id)?;
    let (operation, progress) = app
        .db
        .read(permit.storage(), move |tx| {
            let operation = commands::operation(tx, tenant, id)?;
            let progress = commands::progress(tx, tenant, &operation)?;
            Ok::<_, Problem>((operation, progress))
        })
        .await?;
    let parts = parts(&progress, operation.targets);
    let mut fields: BTreeMap<&str, u64> = parts.iter().map(|part| (part.name, part.count)).collect();
    fields.insert("settled", settled(&parts));
    let bars: BTreeMap<&str, [u64; 2]> = parts
        .iter()
        .map(|part| (part.name, [part.start, part.width]))
        .collect();
    Ok(Json(serde_json::json!({
        "state": page_state(&operation),
        "fields": fields,
        "bars": bars,
    }))
    .into_response())
}

async fn decide(
    State(app): State<App>,
    At((id, action)): At<(String, String)>,
    sent: Sent,
) -> Result<Response, Refusal> {
    let id: Uuid = parse(&id)?;
    let reason = sent.fields.text("reason").to_owned();
    let notice = match action.as_str() {
        "approve" => {
            approve(&app, &sent, id).await?;
            "approved"
        }
        "reject" => {
            let permit = sent.session.permit::<ApprovalWrite>()?;
            sent.session.require_fresh(&app)?;
            audit::commit(&app, permit.author(), move |tx| commands::reject(tx, id, &reason)).await?;
            "request-rejected"
        }
        "release" => {
            let permit = sent.session.permit::<ApprovalWrite>()?;
            sent.session.require_fresh(&app)?;
            audit::commit(&app, permit.author(), move |tx| commands::let_go(tx, id)).await?;
            "released"
        }
        "cancel" => {
            let permit = sent.session.permit::<CommandWrite>()?;
            audit::commit(&app, permit.author(), move |tx| {
                commands::cancel_operation(tx, id, &reason)
            })
            .await?;
            "operation-cancelled"
        }
        _ => return Err(Refusal(NOT_FOUND.detail("There is nothing at this address."))),
    };
    app.nudges.operations.notify_one();
    Ok(see_other(&match sent.fields.text("back") {
        "approvals" => format!("/approvals?notice={notice}"),
        _ => format!("/operations/{id}?notice={notice}"),
    }))
}

/// Hands in what the person's passkey signed, as the API takes it from anybody.
async fn approve(app: &App, sent: &Sent, id: Uuid) -> Result<(), Refusal> {
    let permit = sent.session.permit::<ApprovalWrite>()?;
    sent.session.require_fresh(app)?;
    let (tenant, account) = (permit.tenant(), permit.author().actor.id.clone());
    let passkeys = app
        .db
        .read(permit.storage(), move |tx| {
            access::passkeys_of(tx, tenant, &account)
        })
        .await?;
    let approval = approval_of(&sent.fields, &passkeys)?;
    let approved = audit::commit(app, permit.author(), move |tx| {
        commands::approve(tx, id, approval.clone()).map(drop)
    })
    .await;
    Ok(commands::if_edited(app, permit.tenant(), id, approved).await?)
}

fn approval_of(fields: &Fields, passkeys: &[access::Passkey]) -> Result<Approval, Refusal> {
    let credential = bytes(fields, "credential")?;
    let passkey = passkeys
        .iter()
        .find(|passkey| passkey.credential_id == credential)
        .ok_or_else(|| {
            Refusal(APPROVER_REFUSED.detail("The passkey is not one that this account made here."))
        })?;
    Ok(Approval {
        keyid: passkey.key_id(),
        sig: bytes(fields, "signature")?,
        assertion: Some(Assertion {
            authenticator_data: bytes(fields, "authenticator_data")?,
            client_data_json: bytes(fields, "client_data_json")?,
        }),
    })
}

/// The operations that wait for people, newest first: for the first page.
pub fn waiting(tx: &mut Tx, tenant: TenantId, limit: usize) -> Result<Vec<Operation>, Problem> {
    let mut waiting = Vec::new();
    for state in [OperationState::AwaitingApproval, OperationState::Held] {
        waiting.extend(commands::operations(tx, tenant, Some(state), None, limit)?);
    }
    waiting.sort_unstable_by_key(|operation| std::cmp::Reverse(operation.id));
    Ok(waiting)
}

/// `Wipe everything: 3 devices, asked 5 min ago`.
pub fn in_short(operation: &Operation, now: Timestamp) -> String {
    let devices = if operation.targets == 1 {
        "device"
    } else {
        "devices"
    };
    format!(
        "{}: {} {devices}, asked {}",
        kinds::words(&operation.kind),
        ui::count(i64::try_from(operation.targets).unwrap_or(i64::MAX)),
        When::new(operation.created_at, now).relative()
    )
}
