//! Routes of visits: those of the operator's people, and those of the tenant that is visited.

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use muster_model::{TenantId, VisitId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Given, Mode, Named, OperatorAccess, Wanted, view};
use crate::{
    App,
    access::{
        Permit,
        problem::{INVALID, Problem},
        request::{Body, Params, PathOf},
        scope::{AccessRead, TenantEnter, TenantRead, VisitManage},
        store::SessionKind,
    },
    page::{Page, PageQuery, cursor, page_limit},
};

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(post_visit))
        .routes(routes!(list_visits))
        .routes(routes!(get_visit))
        .routes(routes!(begin_visit))
        .routes(routes!(end_visit))
        .routes(routes!(list_operator_visits))
        .routes(routes!(get_operator_visit))
        .routes(routes!(grant_operator_visit))
        .routes(routes!(deny_operator_visit))
        .routes(routes!(end_operator_visit))
        .routes(routes!(get_operator_access, put_operator_access))
}

/// How far the log of the visited tenant was, so that both logs can be compared.
#[derive(Debug, Serialize, ToSchema)]
struct VisitLogView {
    /// Entries before the visit began.
    size_before: u64,
    /// Entries of the newest checkpoint when it ended; absent while it has not.
    size_after: Option<u64>,
    /// That checkpoint (C2SP tlog-checkpoint).
    checkpoint: Option<String>,
}

/// A visit of a person of the operator's tenant.
#[derive(Debug, Serialize, ToSchema)]
struct VisitView {
    #[schema(value_type = String)]
    id: VisitId,
    /// The tenant that is visited.
    #[schema(value_type = String)]
    tenant: TenantId,
    tenant_name: String,
    #[schema(value_type = String)]
    operator: TenantId,
    operator_name: String,
    person: String,
    display_name: String,
    /// As the visited tenant's log names the visitor.
    actor: String,
    role: String,
    minutes: u32,
    reason: String,
    /// `requested`, `granted`, `denied`, `expired`, `active` or `ended`.
    state: &'static str,
    asked_at: String,
    /// Until when a request is answered, and a granted visit begun.
    answer_by: String,
    /// Who granted or denied it; `setting` where the tenant lets in without asking.
    decided_by: Option<String>,
    decided_at: Option<String>,
    begun_at: Option<String>,
    ends_at: Option<String>,
    ended_at: Option<String>,
    ended_by: Option<String>,
    /// `visitor`, `home`, `visited`, `setting`, `time`, `session` or `suspended`.
    ended_because: Option<String>,
    /// Entries of the visited tenant's log that the visitor made.
    changes: u64,
    log: Option<VisitLogView>,
}

impl VisitView {
    fn of(named: Named) -> VisitView {
        let visit = named.visit;
        let text = |at: Option<muster_model::Timestamp>| at.map(|at| at.to_string());
        VisitView {
            id: visit.id,
            tenant: visit.tenant,
            tenant_name: named.tenant_name,
            operator: visit.home,
            operator_name: named.home_name,
            person: visit.person,
            display_name: visit.display_name,
            actor: visit.actor,
            role: visit.role,
            minutes: visit.minutes,
            reason: visit.reason,
            state: visit.state.word(),
            asked_at: visit.asked_at.to_string(),
            answer_by: visit.answer_by.to_string(),
            decided_by: visit.decided_by,
            decided_at: text(visit.decided_at),
            begun_at: text(visit.begun_at),
            ends_at: text(visit.ends_at),
            ended_at: text(visit.ended_at),
            ended_by: visit.ended_by,
            ended_because: visit.ended_because,
            changes: visit.changes,
            log: visit.size_before.map(|size_before| VisitLogView {
                size_before,
                size_after: visit.size_after,
                checkpoint: visit.checkpoint,
            }),
        }
    }
}

async fn seen_from_home(app: &App, home: TenantId, id: VisitId) -> Result<Json<VisitView>, Problem> {
    Ok(Json(VisitView::of(view::one_from_home(app, home, id).await?)))
}

async fn seen_there(app: &App, tenant: TenantId, id: VisitId) -> Result<Json<VisitView>, Problem> {
    Ok(Json(VisitView::of(view::one_of_tenant(app, tenant, id).await?)))
}

/// A visit that somebody asks for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct VisitRequest {
    /// What it is for: 1 to 500 characters, which both logs keep.
    reason: String,
    /// `read_only` unless given; `auditor`, `helpdesk` or `operator`, as far as the tenant lets in.
    #[serde(default = "read_only")]
    role: String,
    /// How long, 1 to 480.
    minutes: u32,
}

fn read_only() -> String {
    super::rules::FIRST_CEILING.to_owned()
}

/// Asks a tenant for a visit. By default no tenant lets anybody in: its own people decide (`PUT /settings/operator-access`). Of a person of
/// the operator's tenant, shortly after proving who they are.
#[utoipa::path(
    post, path = "/tenants/{id}/visits", tag = "visits", params(("id" = String, Path)),
    security(("oauth2" = ["tenant:enter"])), request_body = VisitRequest, responses((status = 201, body = VisitView)),
)]
async fn post_visit(
    permit: Permit<TenantEnter>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
    Body(request): Body<VisitRequest>,
) -> Result<Response, Problem> {
    let wanted = Wanted {
        reason: request.reason.trim().to_owned(),
        role: request.role,
        minutes: request.minutes,
    };
    let visit = super::ask(&app, &permit, &id, wanted).await?;
    let seen = seen_from_home(&app, permit.tenant(), visit.id).await?;
    Ok((StatusCode::CREATED, seen).into_response())
}

/// Visits of people of the operator's tenant, to whatever tenants, the newest first.
#[utoipa::path(
    get, path = "/visits", tag = "visits", params(PageQuery), security(("oauth2" = ["tenant:read"])),
    responses((status = 200, body = Page<VisitView>)),
)]
async fn list_visits(
    permit: Permit<TenantRead>,
    State(app): State<App>,
    Params(page): Params<PageQuery>,
) -> Result<Json<Page<VisitView>>, Problem> {
    let home = super::require_operator(&app, &permit).await?;
    let (before, limit) = (cursor::<VisitId>(page.cursor.as_deref())?, page_limit(page.limit));
    let items = super::from_home(&app, home, before, limit).await?;
    let items = items.into_iter().map(VisitView::of).collect();
    Ok(Json(Page::of(items, limit, |visit: &VisitView| {
        visit.id.to_string()
    })))
}

#[utoipa::path(
    get, path = "/visits/{id}", tag = "visits", params(("id" = String, Path)),
    security(("oauth2" = ["tenant:read"])), responses((status = 200, body = VisitView)),
)]
async fn get_visit(
    permit: Permit<TenantRead>,
    State(app): State<App>,
    PathOf(id): PathOf<VisitId>,
) -> Result<Json<VisitView>, Problem> {
    let home = super::require_operator(&app, &permit).await?;
    seen_from_home(&app, home, id).await
}

/// A visit that has begun, and the only copy of the token that is good in the visited tenant.
#[derive(Debug, Serialize, ToSchema)]
struct BegunVisitView {
    visit: VisitView,
    /// A bearer token. It is good until the visit ends, whoever ends it, and while the session with which this was asked stands.
    token: String,
    ends_at: Option<String>,
}

/// Begins a visit that was granted. Only the person who asked does that, on a session of theirs, shortly after proving who they are; once.
#[utoipa::path(
    post, path = "/visits/{id}/begin", tag = "visits", params(("id" = String, Path)),
    security(("oauth2" = ["tenant:enter"])), responses((status = 201, body = BegunVisitView)),
)]
async fn begin_visit(
    permit: Permit<TenantEnter>,
    State(app): State<App>,
    PathOf(id): PathOf<VisitId>,
) -> Result<Response, Problem> {
    let begun = super::begin(&app, &permit, id, SessionKind::Api).await?;
    let view = BegunVisitView {
        ends_at: begun.visit.ends_at.map(|at| at.to_string()),
        visit: VisitView::of(view::one_from_home(&app, permit.tenant(), id).await?),
        token: begun.token,
    };
    let no_store = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((StatusCode::CREATED, no_store, Json(view)).into_response())
}

/// Ends a visit, or takes back what was asked for: the visitor, or a colleague who may visit too.
#[utoipa::path(
    post, path = "/visits/{id}/end", tag = "visits", params(("id" = String, Path)),
    security(("oauth2" = ["tenant:enter"])), responses((status = 200, body = VisitView)),
)]
async fn end_visit(
    permit: Permit<TenantEnter>,
    State(app): State<App>,
    PathOf(id): PathOf<VisitId>,
) -> Result<Json<VisitView>, Problem> {
    super::call_back(&app, &permit, id).await?;
    seen_from_home(&app, permit.tenant(), id).await
}

/// Visits of the operator's people to this tenant, the newest first.
#[utoipa::path(
    get, path = "/operator-visits", tag = "visits", params(PageQuery), security(("oauth2" = ["access:read"])),
    responses((status = 200, body = Page<VisitView>)),
)]
async fn list_operator_visits(
    permit: Permit<AccessRead>,
    State(app): State<App>,
    Params(page): Params<PageQuery>,
) -> Result<Json<Page<VisitView>>, Problem> {
    let (before, limit) = (cursor::<VisitId>(page.cursor.as_deref())?, page_limit(page.limit));
    let items = super::of_tenant(&app, permit.tenant(), before, limit).await?;
    let items = items.into_iter().map(VisitView::of).collect();
    Ok(Json(Page::of(items, limit, |visit: &VisitView| {
        visit.id.to_string()
    })))
}

#[utoipa::path(
    get, path = "/operator-visits/{id}", tag = "visits", params(("id" = String, Path)),
    security(("oauth2" = ["access:read"])), responses((status = 200, body = VisitView)),
)]
async fn get_operator_visit(
    permit: Permit<AccessRead>,
    State(app): State<App>,
    PathOf(id): PathOf<VisitId>,
) -> Result<Json<VisitView>, Problem> {
    seen_there(&app, permit.tenant(), id).await
}

/// What is granted of a request: as it was asked for where nothing is said.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct VisitGrant {
    /// A role within the one that was asked for.
    role: Option<String>,
    /// At most as many as were asked for.
    minutes: Option<u32>,
}

/// Grants a request. Of a person of the tenant, shortly after proving who they are.
#[utoipa::path(
    post, path = "/operator-visits/{id}/grant", tag = "visits", params(("id" = String, Path)),
    security(("oauth2" = ["visit:manage"])), request_body = VisitGrant, responses((status = 200, body = VisitView)),
)]
async fn grant_operator_visit(
    permit: Permit<VisitManage>,
    State(app): State<App>,
    PathOf(id): PathOf<VisitId>,
    Body(grant): Body<VisitGrant>,
) -> Result<Json<VisitView>, Problem> {
    let given = Given {
        role: grant.role,
        minutes: grant.minutes,
    };
    super::grant(&app, &permit, id, given).await?;
    seen_there(&app, permit.tenant(), id).await
}

/// Denies a request.
#[utoipa::path(
    post, path = "/operator-visits/{id}/deny", tag = "visits", params(("id" = String, Path)),
    security(("oauth2" = ["visit:manage"])), responses((status = 200, body = VisitView)),
)]
async fn deny_operator_visit(
    permit: Permit<VisitManage>,
    State(app): State<App>,
    PathOf(id): PathOf<VisitId>,
) -> Result<Json<VisitView>, Problem> {
    super::deny(&app, &permit, id).await?;
    seen_there(&app, permit.tenant(), id).await
}

/// Ends a visit, at any moment: what the visitor sends next is refused.
#[utoipa::path(
    post, path = "/operator-visits/{id}/end", tag = "visits", params(("id" = String, Path)),
    security(("oauth2" = ["visit:manage"])), responses((status = 200, body = VisitView)),
)]
async fn end_operator_visit(
    permit: Permit<VisitManage>,
    State(app): State<App>,
    PathOf(id): PathOf<VisitId>,
) -> Result<Json<VisitView>, Problem> {
    super::send_away(&app, &permit, id).await?;
    seen_there(&app, permit.tenant(), id).await
}

/// How far people of the operator's tenant are let in.
#[derive(Debug, Serialize, ToSchema)]
struct OperatorAccessView {
    /// `never`, `ask` or `always`.
    mode: &'static str,
    /// The role that no visit goes beyond.
    ceiling: String,
    /// The roles within it.
    roles: Vec<&'static str>,
    updated_by: Option<String>,
    updated_at: Option<String>,
}

impl OperatorAccessView {
    fn of(access: OperatorAccess) -> OperatorAccessView {
        OperatorAccessView {
            mode: access.mode.word(),
            roles: super::within(&access.ceiling),
            ceiling: access.ceiling,
            updated_by: access.updated_by,
            updated_at: access.updated_at.map(|at| at.to_string()),
        }
    }
}

/// How far people of the operator's tenant are let into this one: never, where nobody said so.
#[utoipa::path(
    get, path = "/settings/operator-access", tag = "visits", security(("oauth2" = ["access:read"])),
    responses((status = 200, body = OperatorAccessView)),
)]
async fn get_operator_access(
    permit: Permit<AccessRead>,
    State(app): State<App>,
) -> Result<Json<OperatorAccessView>, Problem> {
    let access = super::operator_access(&app, permit.tenant()).await?;
    Ok(Json(OperatorAccessView::of(access)))
}

/// How far they are to be let in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OperatorAccessRequest {
    /// `never`, `ask`: each visit is granted by a person of the tenant, or `always`.
    mode: String,
    /// `read_only` unless given; `auditor`, `helpdesk` or `operator`.
    #[serde(default = "read_only")]
    ceiling: String,
}

/// Says how far people of the operator's tenant are let in. Letting in more is done by a person of the tenant, shortly after proving who they
/// are; visits that are beyond it from now on end at once.
#[utoipa::path(
    put, path = "/settings/operator-access", tag = "visits", security(("oauth2" = ["visit:manage"])),
    request_body = OperatorAccessRequest, responses((status = 200, body = OperatorAccessView)),
)]
async fn put_operator_access(
    permit: Permit<VisitManage>,
    State(app): State<App>,
    Body(request): Body<OperatorAccessRequest>,
) -> Result<Json<OperatorAccessView>, Problem> {
    let mode = Mode::parse(&request.mode).ok_or_else(|| INVALID.detail("mode: never, ask or always."))?;
    let access = super::set_operator_access(&app, &permit, mode, &request.ceiling).await?;
    Ok(Json(OperatorAccessView::of(access)))
}
