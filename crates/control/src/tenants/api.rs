//! Routes of tenants.

use axum::{
    Json,
    body::Body as AxumBody,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use muster_model::TenantId;
use muster_trust::{
    dsse::Envelope,
    encoding::to_base64,
    key::{PublicKey, sha256},
    root,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    export, make, state,
    store::Draft,
    view::{self, TenantView},
};
use crate::{
    App,
    access::{
        Permit, TenantState,
        problem::{ILLEGAL_STATE, INVALID, Problem},
        request::{Body, Params, PathOf},
        scope::{TenantExport, TenantRead, TenantWrite},
    },
    page::{Page, PageQuery, cursor, page_limit},
};

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_tenants, post_tenant))
        .routes(routes!(get_tenant, patch_tenant, delete_tenant_draft))
        .routes(routes!(post_tenant_root))
        .routes(routes!(suspend_tenant))
        .routes(routes!(resume_tenant))
        .routes(routes!(close_tenant))
        .routes(routes!(export_tenant))
        .merge(super::limits::router())
}

/// The operator's tenant, or 403.
async fn operator<S>(app: &App, permit: &Permit<S>) -> Result<TenantId, Problem> {
    state::require_operator(app, permit.tenant()).await?;
    Ok(permit.tenant())
}

/// The tenants of the installation, the oldest first: also those that wait for their root document, and those that ended. For the
/// operator's tenant alone.
#[utoipa::path(
    get, path = "/tenants", tag = "tenants", params(PageQuery), security(("oauth2" = ["tenant:read"])),
    responses((status = 200, body = Page<TenantView>)),
)]
async fn list_tenants(
    permit: Permit<TenantRead>,
    State(app): State<App>,
    Params(page): Params<PageQuery>,
) -> Result<Json<Page<TenantView>>, Problem> {
    let operator = operator(&app, &permit).await?;
    let (behind, limit) = (
        cursor::<TenantId>(page.cursor.as_deref())?,
        page_limit(page.limit),
    );
    let items = view::all(&app, operator, behind, limit).await?;
    Ok(Json(Page::of(items, limit, |tenant| tenant.id.to_string())))
}

#[utoipa::path(
    get, path = "/tenants/{id}", tag = "tenants", params(("id" = String, Path)), security(("oauth2" = ["tenant:read"])),
    responses((status = 200, body = TenantView)),
)]
async fn get_tenant(
    permit: Permit<TenantRead>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
) -> Result<Json<TenantView>, Problem> {
    let operator = operator(&app, &permit).await?;
    Ok(Json(view::one(&app, operator, &id).await?))
}

/// A tenant that is to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TenantRequest {
    /// 1 to 63 small letters, digits and hyphens; no other tenant has it.
    name: String,
    #[serde(default)]
    display_name: String,
    /// Public keys in PEM (SPKI), 1 to 16. The private ones never come here.
    root_keys: Vec<String>,
    /// How many of them must sign; 1 unless given.
    #[serde(default = "one")]
    root_threshold: u32,
}

fn one() -> u32 {
    1
}

/// What the root keys are to sign.
#[derive(Debug, Serialize, ToSchema)]
struct DraftView {
    id: String,
    name: String,
    /// `awaiting_root`.
    state: &'static str,
    /// The DSSE payload type of the envelope.
    payload_type: &'static str,
    /// The exact bytes that are to be signed, base64.
    payload: String,
    /// Their SHA-256, hexadecimal.
    payload_sha256: String,
    /// The same as an object, to look at.
    #[schema(value_type = Object)]
    document: serde_json::Value,
    /// When the draft is forgotten.
    expires_at: String,
}

impl DraftView {
    fn of(draft: &Draft) -> DraftView {
        DraftView {
            id: draft.id.to_string(),
            name: draft.name.clone(),
            state: "awaiting_root",
            payload_type: root::PAYLOAD_TYPE,
            payload: to_base64(&draft.document),
            payload_sha256: sha256(&draft.document).to_string(),
            document: serde_json::from_slice(&draft.document).unwrap_or_default(),
            expires_at: draft.expires_at.to_string(),
        }
    }
}

/// The first of two steps to a tenant: makes the keys that the server signs with, and answers the root document that the root keys are to
/// sign. There is no tenant before they have: `POST /tenants/{id}/root`.
#[utoipa::path(
    post, path = "/tenants", tag = "tenants", security(("oauth2" = ["tenant:write"])), request_body = TenantRequest,
    responses((status = 201, body = DraftView)),
)]
async fn post_tenant(
    permit: Permit<TenantWrite>,
    State(app): State<App>,
    Body(request): Body<TenantRequest>,
) -> Result<Response, Problem> {
    operator(&app, &permit).await?;
    if request.root_keys.len() > make::ROOT_KEYS_MAX {
        return Err(INVALID.detail(format!(
            "root_keys: name 1 to {} public keys.",
            make::ROOT_KEYS_MAX
        )));
    }
    let key = |pem: &String| {
        PublicKey::from_pem(pem).map_err(|error| INVALID.detail(format!("root_keys: {error}.")))
    };
    let wanted = make::Wanted {
        name: request.name,
        display_name: request.display_name,
        root_keys: request.root_keys.iter().map(key).collect::<Result<_, _>>()?,
        root_threshold: request.root_threshold,
    };
    let draft = make::draft(&app, permit.author(), wanted).await?;
    Ok((StatusCode::CREATED, Json(DraftView::of(&draft))).into_response())
}

/// A tenant that was made now, and the only copy of what opens it.
#[derive(Debug, Serialize, ToSchema)]
struct MadeView {
    id: String,
    /// `active`.
    state: &'static str,
    /// A service account that holds every scope of the new tenant.
    client_id: String,
    /// Shown once.
    client_secret: String,
    /// A link that signs the first person in, once.
    signin_url: String,
    signin_expires_at: String,
}

/// The second step: takes the root document with the signatures of its root keys, over exactly the bytes that the first step answered.
/// From then on there is the tenant, on every node.
#[utoipa::path(
    post, path = "/tenants/{id}/root", tag = "tenants", params(("id" = String, Path)),
    security(("oauth2" = ["tenant:write"])), request_body(content = Object, description = "A signed DSSE envelope"),
    responses((status = 201, body = MadeView)),
)]
async fn post_tenant_root(
    permit: Permit<TenantWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
    Body(envelope): Body<Envelope>,
) -> Result<Response, Problem> {
    let operator = operator(&app, &permit).await?;
    let id = view::id_of(&app, operator, &id).await?;
    let made = make::activate(&app, permit.author(), id, &envelope).await?;
    let (secret, expires_at) = made.link;
    let view = MadeView {
        id: id.to_string(),
        state: "active",
        client_id: made.client.id.to_string(),
        client_secret: made.client.secret,
        signin_url: format!("{}/signin#{secret}", app.settings.admin_url),
        signin_expires_at: expires_at.to_string(),
    };
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

/// Takes back a tenant that has no root document yet. One that has is closed by its root keys.
#[utoipa::path(
    delete, path = "/tenants/{id}", tag = "tenants", operation_id = "delete_tenant_draft", params(("id" = String, Path)),
    security(("oauth2" = ["tenant:write"])), responses((status = 204)),
)]
async fn delete_tenant_draft(
    permit: Permit<TenantWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
) -> Result<StatusCode, Problem> {
    let operator = operator(&app, &permit).await?;
    let found = view::one(&app, operator, &id).await?;
    if found.state != "awaiting_root" {
        return Err(ILLEGAL_STATE.detail(format!(
            "The tenant is {}. A tenant that has its root document is suspended, and closed by its root keys.",
            found.state
        )));
    }
    make::discard(&app, permit.author(), found.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What changes of a tenant.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TenantChange {
    display_name: String,
}

#[utoipa::path(
    patch, path = "/tenants/{id}", tag = "tenants", params(("id" = String, Path)),
    security(("oauth2" = ["tenant:write"])), request_body = TenantChange, responses((status = 200, body = TenantView)),
)]
async fn patch_tenant(
    permit: Permit<TenantWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
    Body(change): Body<TenantChange>,
) -> Result<Json<TenantView>, Problem> {
    let operator = operator(&app, &permit).await?;
    let tenant = state::find(&app, &id).await?.id;
    state::rename(&app, permit.author(), tenant, change.display_name).await?;
    shown(&app, operator, tenant).await
}

async fn shown(app: &App, operator: TenantId, tenant: TenantId) -> Result<Json<TenantView>, Problem> {
    Ok(Json(view::one(app, operator, &tenant.to_string()).await?))
}

/// Why a tenant is suspended.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Suspension {
    /// For the logs of both tenants; at most 500 characters.
    #[serde(default)]
    reason: String,
}

/// Shuts a tenant. From the answer on nobody of it gets in at any node, and its devices are told to come later; nothing is lost.
#[utoipa::path(
    post, path = "/tenants/{id}/suspend", tag = "tenants", params(("id" = String, Path)),
    security(("oauth2" = ["tenant:write"])), request_body = Suspension, responses((status = 200, body = TenantView)),
)]
async fn suspend_tenant(
    permit: Permit<TenantWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
    Body(suspension): Body<Suspension>,
) -> Result<Json<TenantView>, Problem> {
    let operator = operator(&app, &permit).await?;
    let tenant = state::find(&app, &id).await?.id;
    state::suspend(&app, permit.author(), tenant, suspension.reason.trim()).await?;
    shown(&app, operator, tenant).await
}

/// Lets a suspended tenant go on. It also takes back that a tenant ends, until its waiting time is over.
#[utoipa::path(
    post, path = "/tenants/{id}/resume", tag = "tenants", params(("id" = String, Path)),
    security(("oauth2" = ["tenant:write"])), responses((status = 200, body = TenantView)),
)]
async fn resume_tenant(
    permit: Permit<TenantWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
) -> Result<Json<TenantView>, Problem> {
    let operator = operator(&app, &permit).await?;
    let tenant = state::find(&app, &id).await?.id;
    state::resume(&app, permit.author(), tenant).await?;
    shown(&app, operator, tenant).await
}

/// Takes the statement of a suspended tenant's root keys that it ends. When the waiting time is over, everything of it is deleted and
/// cannot be brought back.
#[utoipa::path(
    post, path = "/tenants/{id}/close", tag = "tenants", params(("id" = String, Path)),
    security(("oauth2" = ["tenant:write"])),
    request_body(content = Object, description = "A DSSE envelope of the type application/vnd.muster.tenant-closure+json"),
    responses((status = 202, body = TenantView)),
)]
async fn close_tenant(
    permit: Permit<TenantWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
    Body(envelope): Body<Envelope>,
) -> Result<Response, Problem> {
    let operator = operator(&app, &permit).await?;
    let tenant = state::find(&app, &id).await?.id;
    state::close(&app, permit.author(), tenant, &envelope).await?;
    Ok((StatusCode::ACCEPTED, shown(&app, operator, tenant).await?).into_response())
}

/// Everything of a tenant as a `tar` archive: the rows of every table as NDJSON without secrets, and the log as it can be verified
/// offline. A tenant's owner exports their own; the operator exports one whose root keys signed that it ends, until it is deleted.
#[utoipa::path(
    get, path = "/tenants/{id}/export", tag = "tenants", params(("id" = String, Path)),
    security(("oauth2" = ["tenant:export"])),
    responses((status = 200, body = Vec<u8>, content_type = "application/x-tar")),
)]
async fn export_tenant(
    permit: Permit<TenantExport>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
) -> Result<Response, Problem> {
    let own = permit.tenant();
    let mine = state::find(&app, &own.to_string()).await?;
    let is_own = id == mine.name || id.parse::<TenantId>().is_ok_and(|id| id == own);
    let tenant = if is_own {
        mine
    } else {
        operator(&app, &permit).await?;
        state::find(&app, &id).await?
    };
    // Suspending takes no more than a session; that the tenant ends, its root keys have signed.
    if tenant.id != own && tenant.state != TenantState::Closing {
        return Err(ILLEGAL_STATE.detail(format!(
            "The tenant is {}. The operator exports one that its root keys have closed; its own owner exports it at any time.",
            tenant.state.as_str()
        )));
    }
    state::note_export(&app, permit.author(), tenant.id).await?;
    let parts = export::start(&app, tenant)?;
    let stream = stream::unfold(parts, |mut parts| async move {
        parts.recv().await.map(|part| (part, parts))
    });
    let mut response = AxumBody::from_stream(stream).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-tar"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment; filename=\"muster-export.tar\""),
    );
    Ok(response)
}
