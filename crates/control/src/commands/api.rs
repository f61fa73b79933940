//! Routes of commands.

use std::{collections::BTreeMap, time::Duration};

use axum::{Json, extract::State, http::StatusCode, response::Response};
use muster_model::{CommandId, CommandKind, CommandState, DeviceId, TenantId, text::Description};
use muster_storage::Tx;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{Command, Operation, OperationState, operation};
use crate::{
    App,
    access::{
        Author, Permit,
        idempotency::{IdempotencyKey, commit_once},
        problem::{ACCOUNT_TOO_NEW, INVALID, OVER_BUDGET, Problem},
        request::{Body, Params, PathOf},
        scope::{CommandRead, CommandWipe, CommandWrite, ScriptRun},
    },
    audit::{self, LoggedTx},
    devices::{self, Device, DeviceFilter},
    page::{Page, cursor, page_limit},
};

/// The longest that a command may wait.
const TTL_SECONDS_MAX: u64 = 90 * 86_400;
/// Devices that one bulk call may name or match.
const BULK_DEVICES_MAX: usize = 10_000;
/// Devices that one bulk call may match by a filter.
const MATCHED_MAX: usize = operation::TARGETS_MAX;
/// A list up to this long is queued within the call.
const AT_ONCE_MAX: usize = 100;
/// Devices that one bulk call may name otherwise than by id: a name is looked for among all devices, while nobody else writes.
const BULK_NAMES_MAX: usize = 100;

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_for_device))
        .routes(routes!(list_commands, create_bulk))
        .routes(routes!(get_command))
        .routes(routes!(cancel_command))
        .merge(operation::router())
}

/// What to do: `{"type":"lock","message":"…"}`, `{"type":"restart","delay_seconds":30}`, `{"type":"collect-inventory"}`,
/// `{"type":"message","text":"…"}`, `{"type":"wipe","mode":"full"}` and so on; the reference of commands has every type with
/// its members.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct CommandRequest {
    /// One of the types of the reference.
    #[serde(rename = "type")]
    #[schema(required)]
    kind: String,
    /// For `lock` and `lost-mode-on`: shown on the lock screen.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// For `lost-mode-on`: whom to call.
    #[serde(skip_serializing_if = "Option::is_none")]
    phone: Option<String>,
    /// For `message`: shown to whoever is signed in.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// For `restart` and `shut-down`.
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_seconds: Option<u32>,
    /// For `wipe`: `full` or `enterprise`.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    /// For `install-app`, `remove-app` and `update-app`.
    #[serde(skip_serializing_if = "Option::is_none")]
    package: Option<String>,
    /// For `install-app` and `update-agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// For `run-script`: of the signed script.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    /// For `run-script`.
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<Vec<String>>,
    /// For `run-script`: how long it may run.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<u32>,
    /// For `collect-logs`: how far back.
    #[serde(skip_serializing_if = "Option::is_none")]
    since_seconds: Option<u32>,
    /// For `collect-files`.
    #[serde(skip_serializing_if = "Option::is_none")]
    paths: Option<Vec<String>>,
    /// For `rotate-key`: `certificate` or `disk-recovery`.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// How long it may wait for the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_seconds: Option<u64>,
    /// Why, for those who approve it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// In `POST /commands`: device ids. One that does not exist refuses the whole call.
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<Vec<String>>,
    /// In `POST /commands`: a device filter, as for `GET /devices`.
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<String>,
}

/// A command that was accepted.
#[derive(Debug, Serialize, ToSchema)]
struct Accepted {
    #[schema(value_type = String)]
    command_id: CommandId,
    #[schema(value_type = String)]
    state: CommandState,
}

/// A bulk call that was accepted.
#[derive(Debug, Serialize, ToSchema)]
struct BulkAccepted {
    operation_id: Uuid,
    /// Devices of the list.
    commands: usize,
    state: OperationState,
    /// Why it waits for somebody.
    because: Option<String>,
}

/// A command with its life so far.
#[derive(Debug, Serialize, ToSchema)]
pub struct CommandView {
    #[schema(value_type = String)]
    pub command_id: CommandId,
    #[schema(value_type = String)]
    pub device_id: muster_model::DeviceId,
    #[serde(rename = "type")]
    pub kind: String,
    #[schema(value_type = Object)]
    pub arguments: Option<Box<RawValue>>,
    #[schema(value_type = String)]
    pub state: CommandState,
    pub operation_id: Option<Uuid>,
    pub created_by: String,
    pub created_at: String,
    pub expires_at: String,
    pub delivered_at: Option<String>,
    pub completed_at: Option<String>,
    pub attempts: u32,
    /// When it is delivered again, if the device does not answer before.
    pub retry_at: Option<String>,
    /// When approvals released it.
    pub released_at: Option<String>,
    /// Why it waits, or ended without a receipt.
    pub because: Option<String>,
    /// What the device signed: outcome, code, detail, at.
    #[schema(value_type = Option<Object>)]
    pub receipt: Option<Box<RawValue>>,
    #[schema(value_type = String)]
    pub entry_id: muster_model::EntryId,
}

impl From<Command> for CommandView {
    fn from(command: Command) -> CommandView {
        CommandView {
            command_id: command.id,
            device_id: command.device,
            kind: command.kind,
            arguments: RawValue::from_string(command.arguments).ok(),
            state: command.state,
            operation_id: command.operation,
            created_by: command.created_by,
            created_at: command.created_at.to_string(),
            expires_at: command.expires_at.to_string(),
            delivered_at: command.delivered_at.map(|at| at.to_string()),
            completed_at: command.completed_at.map(|at| at.to_string()),
            attempts: command.attempts,
            retry_at: command
                .retry_at
                .filter(|_| !command.state.is_final())
                .map(|at| at.to_string()),
            released_at: command.released_at.map(|at| at.to_string()),
            because: command.because,
            receipt: command
                .receipt
                .and_then(|receipt| RawValue::from_string(receipt).ok()),
            entry_id: command.entry,
        }
    }
}

#[utoipa::path(
    post, path = "/devices/{id}/commands", tag = "commands", params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    security(("oauth2" = ["command:write"])), request_body = CommandRequest, responses((status = 202, body = Accepted)),
)]
async fn create_for_device(
    permit: Permit<CommandWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
    key: IdempotencyKey,
    Body(request): Body<CommandRequest>,
) -> Result<Response, Problem> {
    if request.devices.is_some() || request.filter.is_some() {
        return Err(INVALID.detail("The path names the device. For many devices use POST /commands."));
    }
    let wanted = parse(&app, &request)?;
    require_scopes(&permit, &wanted.kind)?;
    let (tenant, identified) = (permit.tenant(), (id.clone(), &request));
    let answer = commit_once(
        &app,
        &permit,
        key,
        "POST /devices/{id}/commands",
        &identified,
        move |tx| {
            let device = devices::resolve(tx, tenant, &id)?;
            let command = ask_device(tx, &device, &wanted)?;
            Ok((
                StatusCode::ACCEPTED,
                Accepted {
                    command_id: command.id,
                    state: command.state,
                },
            ))
        },
    )
    .await;
    alarmed(&app, permit.author(), answer).await
}

/// Queues a command for one device, or asks people where it needs them, or where the account has asked for so much that
/// somebody else should look.
pub fn ask_device(tx: &mut LoggedTx<'_>, device: &Device, wanted: &Wanted) -> Result<Command, Problem> {
    let kind = &wanted.kind;
    devices::require_active(device)?;
    kind.check_for(device.ownership)
        .map_err(|why| INVALID.detail(format!("{}: {why}.", device.name)))?;
    if operation::needs_people(tx, kind, 1)? || operation::is_mass(tx, kind, 1)? {
        let order = wanted.order(vec![(device.id, device.epoch)], true);
        let operation = operation::ask(tx, order)?;
        let id = operation.id;
        return Command::standing_for(operation)
            .ok_or_else(|| Problem::internal(format!("operation {id} names no device")));
    }
    if !kind.is_harmless() {
        operation::note_pace(tx, kind, 1)?;
    }
    super::create(tx, device, kind, wanted.ttl, None)
}

/// Asks for a command on a list of devices. A short list that nothing stands before is queued at once.
pub fn ask_devices(
    tx: &mut LoggedTx<'_>,
    targets: Vec<(DeviceId, u32)>,
    wanted: &Wanted,
) -> Result<Operation, Problem> {
    let is_short = targets.len() <= AT_ONCE_MAX;
    let operation = operation::ask(tx, wanted.order(targets, false))?;
    let is_free = operation.state == OperationState::Running && operation.batch.is_none();
    if !is_free || !is_short {
        return Ok(operation);
    }
    operation::release(tx, operation.id)?;
    let tenant = tx.tenant();
    operation::get(tx, tenant, operation.id)
}

/// Writes down that an account which is too new asked for something destructive, or one for more than the budget, and hands
/// the refusal on.
pub async fn alarmed<T>(app: &App, author: &Author, answer: Result<T, Problem>) -> Result<T, Problem> {
    let problem = match answer {
        Ok(answer) => return Ok(answer),
        Err(problem) => problem,
    };
    if [ACCOUNT_TOO_NEW, OVER_BUDGET].contains(&problem.kind) {
        let (actor, reason, code) = (author.actor.id.clone(), problem.detail.clone(), problem.kind.code);
        tracing::warn!(actor, code, "something destructive was refused");
        audit::commit(app, author, move |tx| {
            let detail = serde_json::json!({"code": code, "reason": reason});
            tx.record("security.destructive_refused", ("client", actor.clone()), detail)
                .map(drop)
        })
        .await?;
    }
    Err(problem)
}

#[utoipa::path(
    post, path = "/commands", tag = "commands", params(("Idempotency-Key" = Option<String>, Header)),
    security(("oauth2" = ["command:write"])), request_body = CommandRequest, responses((status = 202, body = BulkAccepted)),
)]
async fn create_bulk(
    permit: Permit<CommandWrite>,
    State(app): State<App>,
    key: IdempotencyKey,
    Body(request): Body<CommandRequest>,
) -> Result<Response, Problem> {
    let wanted = parse(&app, &request)?;
    require_scopes(&permit, &wanted.kind)?;
    if wanted.kind.is_destructive_at_scale() {
        permit.require_proof()?;
    }
    let target = BulkTarget::of(&request)?;
    let answer = commit_once(&app, &permit, key, "POST /commands", &request, move |tx| {
        let tenant = tx.tenant();
        let targets = target.targets(tx, tenant, &wanted.kind)?;
        let commands = targets.len();
        let operation = ask_devices(tx, targets, &wanted)?;
        Ok((
            StatusCode::ACCEPTED,
            BulkAccepted {
                operation_id: operation.id,
                commands,
                state: operation.state,
                because: operation.because,
            },
        ))
    })
    .await;
    app.nudges.operations.notify_one();
    alarmed(&app, permit.author(), answer).await
}

/// Refuses a kind of command that needs more than sending commands: what destroys, and what runs a script.
pub fn require_scopes<S>(permit: &Permit<S>, kind: &CommandKind) -> Result<(), Problem> {
    if kind.is_destructive() {
        permit.require::<CommandWipe>()?;
    }
    if matches!(kind, CommandKind::RunScript { .. }) {
        permit.require::<ScriptRun>()?;
    }
    Ok(())
}

/// The filter of a command list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// A device's id or name.
    device: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
}

#[utoipa::path(
    get, path = "/commands", tag = "commands", params(ListQuery), security(("oauth2" = ["command:read"])),
    responses((status = 200, body = Page<CommandView>)),
)]
async fn list_commands(
    permit: Permit<CommandRead>,
    State(app): State<App>,
    Params(query): Params<ListQuery>,
) -> Result<Json<Page<CommandView>>, Problem> {
    let limit = page_limit(query.limit);
    let before = cursor::<CommandId>(query.cursor.as_deref())?;
    let tenant = permit.tenant();
    let commands = app
        .db
        .read(permit.storage(), move |tx| {
            let device = query
                .device
                .as_deref()
                .map(|text| devices::resolve(tx, tenant, text))
                .transpose()?;
            let device = device.map(|device| device.id);
            let mut commands = super::list(tx, tenant, device, before, limit + 1)?;
            if let Some(device) = device {
                let before = before.map_or(Uuid::max(), CommandId::uuid);
                let waiting = operation::waiting_of_device(tx, tenant, device, before, limit + 1)?;
                commands.extend(waiting.into_iter().filter_map(Command::standing_for));
                commands.sort_unstable_by_key(|command| std::cmp::Reverse(command.id));
                commands.truncate(limit + 1);
            }
            Ok::<_, Problem>(commands)
        })
        .await?;
    let items = commands.into_iter().map(CommandView::from).collect();
    Ok(Json(Page::of(items, limit, |command: &CommandView| {
        command.command_id.to_string()
    })))
}

#[utoipa::path(
    get, path = "/commands/{id}", tag = "commands", params(("id" = String, Path)), security(("oauth2" = ["command:read"])),
    responses((status = 200, body = CommandView)),
)]
async fn get_command(
    permit: Permit<CommandRead>,
    State(app): State<App>,
    PathOf(id): PathOf<CommandId>,
) -> Result<Json<CommandView>, Problem> {
    let tenant = permit.tenant();
    let command = app
        .db
        .read(permit.storage(), move |tx| super::get(tx, tenant, id))
        .await?;
    Ok(Json(command.into()))
}

#[utoipa::path(
    post, path = "/commands/{id}/cancel", tag = "commands", params(("id" = String, Path)),
    security(("oauth2" = ["command:write"])), responses((status = 200, body = CommandView)),
)]
async fn cancel_command(
    permit: Permit<CommandWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<CommandId>,
) -> Result<Json<CommandView>, Problem> {
    let command = audit::commit(&app, permit.author(), move |tx| super::cancel(tx, id)).await?;
    Ok(Json(command.into()))
}

/// The devices of a bulk call, as asked.
#[derive(Debug, Clone)]
pub enum BulkTarget {
    Ids(Vec<String>),
    Filter(DeviceFilter),
}

impl BulkTarget {
    fn of(request: &CommandRequest) -> Result<BulkTarget, Problem> {
        match (&request.devices, &request.filter) {
            (Some(ids), None) if !ids.is_empty() && ids.len() <= BULK_DEVICES_MAX => {
                Ok(BulkTarget::Ids(ids.clone()))
            }
            (None, Some(filter)) => Ok(BulkTarget::Filter(DeviceFilter::parse(filter)?)),
            _ => Err(INVALID.detail("Send either devices, a list of 1 to 10,000 ids, or filter.")),
        }
    }

    /// The active devices with their epochs. A named one that is not there, or cannot be told this, refuses them all; of
    /// those that match, what cannot be told this is left out when its turn comes.
    pub fn targets(
        &self,
        tx: &mut Tx,
        tenant: TenantId,
        kind: &CommandKind,
    ) -> Result<Vec<(DeviceId, u32)>, Problem> {
        match self {
            BulkTarget::Ids(ids) => {
                let names = ids.iter().filter(|id| id.parse::<DeviceId>().is_err());
                if names.count() > BULK_NAMES_MAX {
                    return Err(
                        INVALID.detail("Name at most 100 devices by something else than their ids, dev_….")
                    );
                }
                let mut targets = BTreeMap::new();
                for id in ids {
                    let device = devices::resolve(tx, tenant, id)?;
                    devices::require_active(&device)?;
                    kind.check_for(device.ownership)
                        .map_err(|why| INVALID.detail(format!("{}: {why}.", device.name)))?;
                    targets.insert(device.id, device.epoch);
                }
                Ok(targets.into_iter().collect())
            }
            BulkTarget::Filter(filter) => {
                let matched = devices::list_epochs(tx, tenant, filter, MATCHED_MAX + 1)?;
                if matched.len() > MATCHED_MAX {
                    return Err(INVALID.detail("The filter matches more than 1,000,000 devices. Narrow it."));
                }
                Ok(matched)
            }
        }
    }
}

/// What a request asks for.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub kind: CommandKind,
    /// How long each command may wait.
    pub ttl: Duration,
    pub reason: Option<Description>,
}

impl Wanted {
    fn order(&self, targets: Vec<(DeviceId, u32)>, is_single: bool) -> operation::Order {
        operation::Order {
            kind: self.kind.clone(),
            ttl: self.ttl,
            reason: self.reason.clone(),
            targets,
            is_single,
        }
    }
}

/// Reads the request as a command of the model, whose rules bound every argument.
fn parse(app: &App, request: &CommandRequest) -> Result<Wanted, Problem> {
    let ttl = request.ttl_seconds.unwrap_or(app.settings.command_ttl_seconds);
    if ttl == 0 || ttl > TTL_SECONDS_MAX {
        return Err(INVALID.detail("ttl_seconds is from 1 to 7776000 (90 days)."));
    }
    let reason = request.reason.as_deref().map(str::parse).transpose();
    let reason = reason.map_err(|why| INVALID.detail(format!("reason {why}.")))?;
    let mut fields = serde_json::to_value(request).map_err(Problem::internal)?;
    if let Some(fields) = fields.as_object_mut() {
        for other in ["ttl_seconds", "reason", "devices", "filter"] {
            fields.remove(other);
        }
    }
    let text = fields.to_string();
    let kind = CommandKind::parse(text.as_bytes()).map_err(|error| INVALID.detail(error.to_string()))?;
    Ok(Wanted {
        kind,
        ttl: Duration::from_secs(ttl),
        reason,
    })
}
