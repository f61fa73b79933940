//! Routes of commands.

use std::time::Duration;

use axum::{Json, extract::State, http::StatusCode, response::Response};
use muster_model::{CommandId, CommandKind, CommandState};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::Command;
use crate::{
    App,
    access::{
        Permit,
        idempotency::{IdempotencyKey, commit_once},
        problem::{INVALID, Problem},
        request::{Body, Params, PathOf},
        scope::{CommandRead, CommandWrite},
    },
    audit::{self, LoggedTx},
    clock,
    devices::{self, Device, DeviceFilter},
    page::{Page, cursor, page_limit},
};

/// The longest that a command may wait.
const TTL_SECONDS_MAX: u64 = 90 * 86_400;
/// Devices that one bulk call may name or match.
const BULK_DEVICES_MAX: usize = 10_000;
/// Devices that one bulk call may name otherwise than by id: a name is looked for among all devices, while nobody else writes.
const BULK_NAMES_MAX: usize = 100;

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_for_device))
        .routes(routes!(list_commands, create_bulk))
        .routes(routes!(get_command))
        .routes(routes!(cancel_command))
}

/// What to do: `{"type":"lock","message":"…"}`, `{"type":"restart","delay_seconds":30}`, `{"type":"collect-inventory"}`,
/// `{"type":"message","text":"…"}`, `{"type":"wipe","mode":"full"}`; with `ttl_seconds`, how long it may wait.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CommandRequest {
    /// `lock`, `restart`, `collect-inventory`, `message` or `wipe`.
    #[serde(rename = "type")]
    kind: String,
    /// For `lock`: shown on the lock screen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// For `message`: shown to whoever is signed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// For `restart`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delay_seconds: Option<u32>,
    /// For `wipe`: `full` or `enterprise`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl_seconds: Option<u64>,
}

/// A command for many devices: name them, or give a filter.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BulkRequest {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delay_seconds: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl_seconds: Option<u64>,
    /// Device ids. One that does not exist refuses the whole call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    devices: Option<Vec<String>>,
    /// A device filter, as for `GET /devices`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
    commands: usize,
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
    let (kind, ttl) = parse(&app, &request)?;
    let (tenant, identified) = (permit.tenant(), (id.clone(), &request));
    commit_once(
        &app,
        &permit,
        key,
        "POST /devices/{id}/commands",
        &identified,
        move |tx| {
            let device = devices::resolve(tx, tenant, &id)?;
            let command = super::create(tx, &device, &kind, ttl, None)?;
            Ok((
                StatusCode::ACCEPTED,
                Accepted {
                    command_id: command.id,
                    state: command.state,
                },
            ))
        },
    )
    .await
}

#[utoipa::path(
    post, path = "/commands", tag = "commands", params(("Idempotency-Key" = Option<String>, Header)),
    security(("oauth2" = ["command:write"])), request_body = BulkRequest, responses((status = 202, body = BulkAccepted)),
)]
async fn create_bulk(
    permit: Permit<CommandWrite>,
    State(app): State<App>,
    key: IdempotencyKey,
    Body(request): Body<BulkRequest>,
) -> Result<Response, Problem> {
    let BulkRequest {
        kind,
        message,
        text,
        delay_seconds,
        mode,
        ttl_seconds,
        ..
    } = &request;
    let single = CommandRequest {
        kind: kind.clone(),
        message: message.clone(),
        text: text.clone(),
        delay_seconds: *delay_seconds,
        mode: mode.clone(),
        ttl_seconds: *ttl_seconds,
    };
    let (kind, ttl) = parse(&app, &single)?;
    let target = BulkTarget::of(&request)?;
    commit_once(&app, &permit, key, "POST /commands", &request, move |tx| {
        let devices = target.devices(tx)?;
        let operation = CommandId::generate(tx.at(), clock::random()).uuid();
        for device in &devices {
            super::create(tx, device, &kind, ttl, Some(operation))?;
        }
        if devices.is_empty() {
            tx.record(
                "command.bulk_empty",
                ("operation", operation.to_string()),
                serde_json::json!({}),
            )?;
        }
        Ok((
            StatusCode::ACCEPTED,
            BulkAccepted {
                operation_id: operation,
                commands: devices.len(),
            },
        ))
    })
    .await
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
            super::list(tx, tenant, device.map(|device| device.id), before, limit + 1)
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
enum BulkTarget {
    Ids(Vec<String>),
    Filter(DeviceFilter),
}

impl BulkTarget {
    fn of(request: &BulkRequest) -> Result<BulkTarget, Problem> {
        match (&request.devices, &request.filter) {
            (Some(ids), None) if !ids.is_empty() && ids.len() <= BULK_DEVICES_MAX => {
                Ok(BulkTarget::Ids(ids.clone()))
            }
            (None, Some(filter)) => Ok(BulkTarget::Filter(DeviceFilter::parse(filter)?)),
            _ => Err(INVALID.detail("Send either devices, a list of 1 to 10,000 ids, or filter.")),
        }
    }

    /// Loads every device by tenant and id; one that is not there refuses them all.
    fn devices(&self, tx: &mut LoggedTx<'_>) -> Result<Vec<Device>, Problem> {
        let tenant = tx.tenant();
        match self {
            BulkTarget::Ids(ids) => {
                let names = ids
                    .iter()
                    .filter(|id| id.parse::<muster_model::DeviceId>().is_err());
                if names.count() > BULK_NAMES_MAX {
                    return Err(
                        INVALID.detail("Name at most 100 devices by something else than their ids, dev_….")
                    );
                }
                ids.iter().map(|id| devices::resolve(tx, tenant, id)).collect()
            }
            BulkTarget::Filter(filter) => {
                let matched = devices::list(tx, tenant, filter, None, BULK_DEVICES_MAX + 1)?;
                if matched.len() > BULK_DEVICES_MAX {
                    return Err(INVALID.detail("The filter matches more than 10,000 devices. Narrow it."));
                }
                let active = |device: &Device| device.state == devices::DeviceState::Active;
                Ok(matched.into_iter().filter(active).collect())
            }
        }
    }
}

/// Reads the request as a command of the model, whose rules bound every argument.
fn parse(app: &App, request: &CommandRequest) -> Result<(CommandKind, Duration), Problem> {
    let ttl = request.ttl_seconds.unwrap_or(app.settings.command_ttl_seconds);
    if ttl == 0 || ttl > TTL_SECONDS_MAX {
        return Err(INVALID.detail("ttl_seconds is from 1 to 7776000 (90 days)."));
    }
    let mut fields = serde_json::to_value(request).map_err(Problem::internal)?;
    if let Some(fields) = fields.as_object_mut() {
        fields.remove("ttl_seconds");
    }
    let text = fields.to_string();
    let kind = CommandKind::parse(text.as_bytes()).map_err(|error| INVALID.detail(error.to_string()))?;
    Ok((kind, Duration::from_secs(ttl)))
}
