//! Routes of operations, their approval, and the halt switch.

use axum::{Json, extract::State};
use muster_model::{CommandKind, DeviceId, TenantId, text::Description};
use muster_storage::Tx;
use muster_trust::{approval::Approval, encoding::to_base64, root::Role, root::RootDocument};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{Operation, OperationState, ask::statement_of};
use crate::{
    App,
    access::{
        Permit,
        problem::{CURSOR_INVALID, INVALID, Problem, ROW_EDITED},
        request::{Body, Params, PathOf},
        scope::{ApprovalWrite, CommandRead, CommandWrite, HaltWrite},
    },
    audit, devices,
    page::{Page, PageQuery, cursor, page_limit},
};

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_operations))
        .routes(routes!(get_operation))
        .routes(routes!(list_targets))
        .routes(routes!(approve_operation))
        .routes(routes!(reject_operation))
        .routes(routes!(release_operation))
        .routes(routes!(cancel_operation))
        .routes(routes!(get_halt, halt))
        .routes(routes!(lift_halt))
}

/// The id of an operation in a path.
#[derive(Debug, Clone, Copy)]
struct OperationId(Uuid);

impl<'de> Deserialize<'de> for OperationId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Uuid::try_parse(&text)
            .map(OperationId)
            .map_err(|_| serde::de::Error::custom("not the id of an operation, which is a UUID"))
    }
}

/// An operation with how far it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct OperationView {
    pub operation_id: Uuid,
    #[serde(rename = "type")]
    pub kind: &'static str,
    #[schema(value_type = Object)]
    pub arguments: CommandKind,
    /// Whether it removes something for good, or could at this scale: people were asked.
    pub needs_approval: bool,
    pub state: OperationState,
    /// The device, where one was named.
    #[schema(value_type = Option<String>)]
    pub device_id: Option<DeviceId>,
    /// Devices.
    pub count: u64,
    pub created_by: String,
    pub created_at: String,
    pub expires_at: String,
    #[schema(value_type = Option<String>)]
    pub reason: Option<Description>,
    /// Why it is held or waits, or ended early.
    pub because: Option<String>,
    /// When its next commands may be made.
    pub next_at: Option<String>,
    pub ended_at: Option<String>,
    pub approval: Option<ApprovalView>,
    pub progress: ProgressView,
}

/// What people sign, and who has.
#[derive(Debug, Serialize, ToSchema)]
pub struct ApprovalView {
    /// The bytes of the batch statement, base64.
    pub payload: String,
    /// SHA-256 of the payload.
    pub sha256: String,
    /// How many people must approve.
    pub threshold: u32,
    pub people: Vec<PersonView>,
    /// Devices that may begin in an hour.
    pub per_hour: u32,
    /// Active devices when it was asked.
    pub fleet: u64,
    pub not_before: String,
    pub expires_at: String,
    /// When the last device may begin.
    pub last_at: String,
}

/// A person's approval.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OperationPersonView)]
pub struct PersonView {
    pub person: String,
    pub keyid: String,
    pub at: String,
}

/// Commands by state.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProgressView {
    /// Not made yet.
    pub pending: u64,
    /// Retired, enrolled anew, or not allowed.
    pub left_out: u64,
    #[serde(flatten)]
    #[schema(value_type = std::collections::BTreeMap<String, u64>)]
    pub by_state: std::collections::BTreeMap<String, u64>,
}

impl OperationView {
    /// Reads what belongs to an operation.
    pub fn of(tx: &mut Tx, root: &RootDocument, operation: Operation) -> Result<OperationView, Problem> {
        let progress = super::progress(tx, root.tenant, &operation)?;
        let approval = match &operation.batch {
            None => None,
            Some(batch) => {
                let statement = statement_of(batch)?;
                Some(ApprovalView {
                    payload: to_base64(&batch.payload),
                    sha256: batch.sha256.to_string(),
                    threshold: root.role(Role::Approver).1,
                    people: batch
                        .given
                        .iter()
                        .map(|given| PersonView {
                            person: given.person.clone(),
                            keyid: given.approval.keyid.to_string(),
                            at: given.at.to_string(),
                        })
                        .collect(),
                    per_hour: statement.per_hour,
                    fleet: statement.fleet,
                    not_before: statement.not_before.to_string(),
                    expires_at: statement.expires_at.to_string(),
                    last_at: statement.slot(statement.count.saturating_sub(1)).to_string(),
                })
            }
        };
        Ok(OperationView {
            operation_id: operation.id,
            kind: operation.kind.type_name(),
            arguments: operation.kind,
            needs_approval: approval.is_some(),
            state: operation.state,
            device_id: operation.device,
            count: operation.targets,
            created_by: operation.created_by,
            created_at: operation.created_at.to_string(),
            expires_at: operation.expires_at.to_string(),
            reason: operation.reason,
            because: operation.because,
            next_at: operation.next_at.map(|at| at.to_string()),
            ended_at: operation.ended_at.map(|at| at.to_string()),
            approval,
            progress: ProgressView {
                pending: progress.pending,
                left_out: progress.left_out,
                by_state: progress.by_state,
            },
        })
    }
}

/// Which operations to list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// `awaiting_approval`, `held`, `running`, `completed`, `cancelled`, `rejected` or `expired`.
    state: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
}

#[utoipa::path(
    get, path = "/operations", tag = "operations", params(ListQuery), security(("oauth2" = ["command:read"])),
    responses((status = 200, body = Page<OperationView>)),
)]
async fn list_operations(
    permit: Permit<CommandRead>,
    State(app): State<App>,
    Params(query): Params<ListQuery>,
) -> Result<Json<Page<OperationView>>, Problem> {
    let limit = page_limit(query.limit);
    let before = cursor::<Uuid>(query.cursor.as_deref())?;
    let state = match query.state.as_deref() {
        None => None,
        Some(word) => Some(OperationState::parse(word).ok_or_else(|| {
            INVALID.detail(
                "state is awaiting_approval, held, running, completed, cancelled, rejected or expired.",
            )
        })?),
    };
    let tenant = permit.tenant();
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let items = app
        .db
        .read(permit.storage(), move |tx| {
            let operations = super::list(tx, tenant, state, before, limit + 1)?;
            operations
                .into_iter()
                .map(|operation| OperationView::of(tx, &keys.root, operation))
                .collect::<Result<Vec<_>, Problem>>()
        })
        .await?;
    Ok(Json(Page::of(items, limit, |operation: &OperationView| {
        operation.operation_id.to_string()
    })))
}

#[utoipa::path(
    get, path = "/operations/{id}", tag = "operations", params(("id" = String, Path)),
    security(("oauth2" = ["command:read"])), responses((status = 200, body = OperationView)),
)]
async fn get_operation(
    permit: Permit<CommandRead>,
    State(app): State<App>,
    PathOf(id): PathOf<OperationId>,
) -> Result<Json<OperationView>, Problem> {
    let tenant = permit.tenant();
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let view = app
        .db
        .read(permit.storage(), move |tx| {
            let operation = super::get(tx, tenant, id.0)?;
            OperationView::of(tx, &keys.root, operation)
        })
        .await?;
    Ok(Json(view))
}

/// A device of an operation's list.
#[derive(Debug, Serialize, ToSchema)]
struct TargetView {
    /// From 0.
    position: u64,
    #[schema(value_type = String)]
    device_id: DeviceId,
    epoch: u32,
    name: Option<String>,
    owner: Option<String>,
}

#[utoipa::path(
    get, path = "/operations/{id}/targets", tag = "operations", params(("id" = String, Path), PageQuery),
    security(("oauth2" = ["command:read"])), responses((status = 200, body = Page<TargetView>)),
)]
async fn list_targets(
    permit: Permit<CommandRead>,
    State(app): State<App>,
    PathOf(id): PathOf<OperationId>,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<TargetView>>, Problem> {
    let limit = page_limit(query.limit);
    let after = query.cursor.as_deref().map(|text| {
        text.parse::<u64>()
            .map_err(|_| CURSOR_INVALID.detail("Send next_cursor of the page before, or no cursor."))
    });
    let first = after.transpose()?.map_or(0, |after| after.saturating_add(1));
    let tenant = permit.tenant();
    let items = app
        .db
        .read(permit.storage(), move |tx| {
            let operation = super::get(tx, tenant, id.0)?;
            let targets = super::targets_of(tx, tenant, &operation, first, limit + 1)?;
            let items = targets.into_iter().map(|target| {
                let device = devices::get(tx, tenant, target.device).ok();
                let (name, owner) = device.map_or((None, None), |device| (Some(device.name), device.owner));
                TargetView {
                    position: target.position,
                    device_id: target.device,
                    epoch: target.epoch,
                    name,
                    owner,
                }
            });
            let items: Vec<_> = items.collect();
            Ok::<_, Problem>(items)
        })
        .await?;
    Ok(Json(Page::of(items, limit, |target: &TargetView| {
        target.position.to_string()
    })))
}

/// A person's approval: a signature over the batch statement's DSSE encoding, or a passkey's assertion.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ApprovalRequest {
    /// Which key of the root document's approvers.
    keyid: String,
    /// Base64.
    sig: String,
    /// `authenticator_data` and `client_data_json`, base64, of a passkey.
    #[schema(value_type = Option<Object>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    assertion: Option<Box<RawValue>>,
}

#[utoipa::path(
    post, path = "/operations/{id}/approvals", tag = "operations", params(("id" = String, Path)),
    security(("oauth2" = ["approval:write"])), request_body = ApprovalRequest,
    responses((status = 200, body = OperationView)),
)]
async fn approve_operation(
    permit: Permit<ApprovalWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<OperationId>,
    Body(request): Body<ApprovalRequest>,
) -> Result<Json<OperationView>, Problem> {
    let text = serde_json::to_vec(&request).map_err(Problem::internal)?;
    let approval: Approval = serde_json::from_slice(&text)
        .map_err(|error| INVALID.detail(format!("This is no approval: {error}.")))?;
    let approved = decide(app.clone(), &permit, move |tx| {
        super::approve(tx, id.0, approval.clone())
    })
    .await;
    if_edited(&app, permit.tenant(), id.0, approved).await
}

/// Raises the alarm where somebody was about to sign what nobody asked for, and hands the refusal on.
pub async fn if_edited<T>(
    app: &App,
    tenant: TenantId,
    id: Uuid,
    answer: Result<T, Problem>,
) -> Result<T, Problem> {
    if let Err(problem) = &answer
        && problem.kind == ROW_EDITED
    {
        audit::row_edited(app, tenant, ("operation", id.to_string()), &problem.detail).await?;
    }
    answer
}

/// Why.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BecauseRequest {
    #[serde(default)]
    reason: String,
}

#[utoipa::path(
    post, path = "/operations/{id}/reject", tag = "operations", params(("id" = String, Path)),
    security(("oauth2" = ["approval:write"])), request_body = BecauseRequest,
    responses((status = 200, body = OperationView)),
)]
async fn reject_operation(
    permit: Permit<ApprovalWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<OperationId>,
    Body(request): Body<BecauseRequest>,
) -> Result<Json<OperationView>, Problem> {
    decide(app, &permit, move |tx| super::reject(tx, id.0, &request.reason)).await
}

#[utoipa::path(
    post, path = "/operations/{id}/release", tag = "operations", params(("id" = String, Path)),
    security(("oauth2" = ["approval:write"])), responses((status = 200, body = OperationView)),
)]
async fn release_operation(
    permit: Permit<ApprovalWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<OperationId>,
) -> Result<Json<OperationView>, Problem> {
    decide(app, &permit, move |tx| super::let_go(tx, id.0)).await
}

#[utoipa::path(
    post, path = "/operations/{id}/cancel", tag = "operations", params(("id" = String, Path)),
    security(("oauth2" = ["command:write"])), request_body = BecauseRequest,
    responses((status = 200, body = OperationView)),
)]
async fn cancel_operation(
    permit: Permit<CommandWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<OperationId>,
    Body(request): Body<BecauseRequest>,
) -> Result<Json<OperationView>, Problem> {
    decide(app, &permit, move |tx| super::cancel(tx, id.0, &request.reason)).await
}

async fn decide<S>(
    app: App,
    permit: &Permit<S>,
    mut change: impl FnMut(&mut audit::LoggedTx<'_>) -> Result<Operation, Problem> + Send + 'static,
) -> Result<Json<OperationView>, Problem> {
    let keys = app.keys.tenant(permit.tenant()).map_err(Problem::internal)?;
    let view = audit::commit(&app, permit.author(), move |tx| {
        let operation = change(tx)?;
        OperationView::of(tx, &keys.root, operation)
    })
    .await?;
    app.nudges.operations.notify_one();
    Ok(Json(view))
}

/// The halt switch.
#[derive(Debug, Serialize, ToSchema)]
struct HaltView {
    halted: bool,
    at: Option<String>,
    by: Option<String>,
    reason: Option<String>,
}

impl From<Option<super::Halt>> for HaltView {
    fn from(halt: Option<super::Halt>) -> HaltView {
        HaltView {
            halted: halt.is_some(),
            at: halt.as_ref().map(|halt| halt.at.to_string()),
            by: halt.as_ref().map(|halt| halt.by.clone()),
            reason: halt.map(|halt| halt.because),
        }
    }
}

#[utoipa::path(
    get, path = "/halt", tag = "operations", security(("oauth2" = ["command:read"])),
    responses((status = 200, body = HaltView)),
)]
async fn get_halt(permit: Permit<CommandRead>, State(app): State<App>) -> Result<Json<HaltView>, Problem> {
    let tenant = permit.tenant();
    let halt = app
        .db
        .read(permit.storage(), move |tx| super::halt_of(tx, tenant))
        .await?;
    Ok(Json(halt.into()))
}

#[utoipa::path(
    post, path = "/halt", tag = "operations", security(("oauth2" = ["halt:write"])), request_body = BecauseRequest,
    responses((status = 200, body = HaltView)),
)]
async fn halt(
    permit: Permit<HaltWrite>,
    State(app): State<App>,
    Body(request): Body<BecauseRequest>,
) -> Result<Json<HaltView>, Problem> {
    let halt = audit::commit(&app, permit.author(), move |tx| {
        super::approve::halt(tx, &request.reason)
    })
    .await?;
    Ok(Json(Some(halt).into()))
}

#[utoipa::path(
    post, path = "/halt/lift", tag = "operations", security(("oauth2" = ["halt:write"])),
    request_body = BecauseRequest, responses((status = 200, body = HaltView)),
)]
async fn lift_halt(
    permit: Permit<HaltWrite>,
    State(app): State<App>,
    Body(request): Body<BecauseRequest>,
) -> Result<Json<HaltView>, Problem> {
    audit::commit(&app, permit.author(), move |tx| {
        super::approve::lift_halt(tx, &request.reason)
    })
    .await?;
    app.nudges.operations.notify_one();
    Ok(Json(None.into()))
}
