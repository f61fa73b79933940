//! Long-lived tokens of identity providers.
//!
//! Entra ID and Okta keep one bearer token and cannot fetch another each hour. Such a token opens SCIM and nothing else, ends
//! on a day that is known when it is made, and is told of before. A connector may have several, so that one can take over
//! from another.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use muster_model::{ClientId, Name, ScimTokenId, TenantId, Timestamp};
use muster_storage::{Scope as TenantScope, Tx};
use muster_trust::{
    entry::{Actor, ActorKind},
    key::sha256,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Author, Caller, Permit, connection,
    problem::{INVALID, NAME_TAKEN, NOT_FOUND, Problem, TOKEN_EXPIRED, UNAUTHENTICATED},
    request::{Body, PathOf},
    scope::{ClientRead, ClientWrite, ScimWrite, Scope},
    store,
};
use crate::{App, audit, clock};

/// What such a token begins with, so that scanners of secrets know it.
pub const PREFIX: &str = "muster_scim_";
/// Tokens of one tenant, revoked and expired ones too until they are forgotten.
pub const SCIM_TOKENS_MAX: usize = 64;
const DAYS: u32 = 180;
const DAYS_MAX: u32 = 365;
const DAY: Duration = Duration::from_secs(86_400);
/// How long a token that is over is shown.
const OVER_KEPT: Duration = Duration::from_secs(30 * 86_400);
/// A token's last use is stored at most this often.
const USED_EVERY: Duration = Duration::from_secs(60);

/// A token as stored.
#[derive(Debug, Clone)]
pub struct ScimToken {
    pub id: ScimTokenId,
    pub client: ClientId,
    /// The connector's name.
    pub connector: String,
    pub created_by: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub used_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

impl ScimToken {
    /// Whether it opens anything.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at > now
    }
}

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_scim_tokens, create_scim_token))
        .routes(routes!(delete_scim_token))
}

/// Whether a bearer token is of this kind.
pub(super) fn is_one(token: &str) -> bool {
    token.starts_with(PREFIX)
}

/// Who presents a token. It opens SCIM alone, and only while its connector may.
pub(super) async fn authenticate(app: &App, token: &str) -> Result<Caller, Problem> {
    let refused = || UNAUTHENTICATED.detail("The SCIM token is unknown or was revoked.");
    if token.len() > 256 {
        return Err(refused());
    }
    let (hash, now) = (sha256(token.as_bytes()), app.clock.now());
    let found = app
        .db
        .read(TenantScope::System, move |tx| {
            Ok::<_, Problem>(store::scim_token_by_secret(tx, hash.as_bytes())?)
        })
        .await?;
    let (tenant, token, scopes) = found.ok_or_else(refused)?;
    if token.revoked_at.is_some() {
        return Err(refused());
    }
    if token.expires_at <= now {
        return Err(
            TOKEN_EXPIRED.detail("The SCIM token has expired. `muster scim token create` makes a new one.")
        );
    }
    if token.used_at.is_none_or(|used| now.since(used) > USED_EVERY) {
        let id = token.id;
        audit::housekeeping(app, TenantScope::Tenant(tenant.uuid()), move |tx| {
            Ok(store::scim_token_used(tx, tenant, id, now)?)
        })
        .await?;
    }
    let author = Author {
        tenant,
        actor: Actor {
            kind: ActorKind::Client,
            id: token.client.to_string(),
        },
        voucher: None,
        visit: None,
    };
    Ok(Caller {
        session: None,
        author,
        scopes: super::shared_scopes(ScimWrite::NAME, &scopes),
        roles: Vec::new(),
        held_back: String::new(),
        is_stale: false,
    })
}

/// The tokens of a tenant, newest first.
pub fn scim_tokens(tx: &mut Tx, tenant: TenantId) -> Result<Vec<ScimToken>, Problem> {
    Ok(store::scim_tokens(tx, tenant)?)
}

/// Of each connector with a valid token: its name and when the last of them ends.
pub fn scim_token_expiries(
    tx: &mut Tx,
    tenant: TenantId,
    now: Timestamp,
) -> Result<Vec<(String, Timestamp)>, Problem> {
    let mut ends = std::collections::BTreeMap::new();
    for token in store::scim_tokens(tx, tenant)?
        .into_iter()
        .filter(|token| token.revoked_at.is_none())
    {
        // One that ended a while ago without a successor is told of as well.
        if token.expires_at.plus(OVER_KEPT) > now {
            let end = ends.entry(token.connector).or_insert(token.expires_at);
            *end = (*end).max(token.expires_at);
        }
    }
    Ok(ends.into_iter().collect())
}

/// A SCIM token, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct ScimTokenView {
    #[schema(value_type = String)]
    pub id: ScimTokenId,
    /// The service account that the identity provider acts as.
    pub connector: String,
    #[schema(value_type = String)]
    pub client_id: ClientId,
    /// `active`, `expired` or `revoked`.
    pub state: &'static str,
    pub created_by: String,
    pub created_at: String,
    pub expires_at: String,
    pub last_used_at: Option<String>,
}

impl ScimTokenView {
    pub fn of(token: ScimToken, now: Timestamp) -> ScimTokenView {
        ScimTokenView {
            id: token.id,
            client_id: token.client,
            state: match (token.revoked_at, token.expires_at > now) {
                (Some(_), _) => "revoked",
                (None, true) => "active",
                (None, false) => "expired",
            },
            connector: token.connector,
            created_by: token.created_by,
            created_at: token.created_at.to_string(),
            expires_at: token.expires_at.to_string(),
            last_used_at: token.used_at.map(|at| at.to_string()),
        }
    }
}

/// Every token.
#[derive(Debug, Serialize, ToSchema)]
struct ScimTokensView {
    items: Vec<ScimTokenView>,
}

#[utoipa::path(
    get, path = "/scim-tokens", tag = "directory", security(("oauth2" = ["client:read"])),
    responses((status = 200, body = ScimTokensView)),
)]
async fn list_scim_tokens(
    permit: Permit<ClientRead>,
    State(app): State<App>,
) -> Result<Json<ScimTokensView>, Problem> {
    let (tenant, now) = (permit.tenant(), app.clock.now());
    let tokens = app
        .db
        .read(permit.storage(), move |tx| scim_tokens(tx, tenant))
        .await?;
    let items = tokens
        .into_iter()
        .map(|token| ScimTokenView::of(token, now))
        .collect();
    Ok(Json(ScimTokensView { items }))
}

/// A new SCIM token.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewScimToken {
    /// The service account that the identity provider acts as, such as `entra`. It is made where there is none.
    #[schema(value_type = String)]
    connector: Name,
    /// 1 to 365; 180 where it is left out.
    days: Option<u32>,
}

/// A new token with its secret, which is shown this once.
#[derive(Debug, Serialize, ToSchema)]
struct NewScimTokenView {
    #[schema(value_type = String)]
    id: ScimTokenId,
    token: String,
    /// What the identity provider calls the tenant URL or base URL.
    scim_url: String,
    connector: String,
    #[schema(value_type = String)]
    client_id: ClientId,
    expires_at: String,
}

#[utoipa::path(
    post, path = "/scim-tokens", tag = "directory", security(("oauth2" = ["client:write"])),
    request_body = NewScimToken, responses((status = 201, body = NewScimTokenView)),
)]
async fn create_scim_token(
    permit: Permit<ClientWrite>,
    State(app): State<App>,
    Body(request): Body<NewScimToken>,
) -> Result<Response, Problem> {
    permit.require_held([ScimWrite::NAME].into_iter())?;
    let days = request.days.unwrap_or(DAYS);
    if !(1..=DAYS_MAX).contains(&days) {
        return Err(INVALID.detail("A SCIM token lives 1 to 365 days."));
    }
    let secret = format!("{PREFIX}{}", clock::random_secret());
    let hash = sha256(secret.as_bytes());
    let (tenant, author) = (permit.tenant(), permit.author().clone());
    // No idempotency key: its stored answer would be a second copy of the secret.
    let token =
        audit::commit(&app, &author, move |tx| {
            let (at, connector) = (tx.at(), request.connector.as_str());
            connection::require_for_connector(tx, &permit, tenant, connector)?;
            if store::scim_tokens(tx, tenant)?.len() >= SCIM_TOKENS_MAX {
                return Err(INVALID
                    .detail("There are 64 SCIM tokens. Revoke some; they are forgotten after 30 days."));
            }
            let client = match store::client_by_name(tx, tenant, connector)? {
                Some(client) if client.disabled_at.is_none() && client.scopes == ScimWrite::NAME => client.id,
                Some(_) => {
                    return Err(NAME_TAKEN
                        .detail("Another service account has this name, or had it. Choose another."));
                }
                None => super::insert_client(tx, tenant, connector, ScimWrite::NAME)?.id,
            };
            let token = ScimToken {
                id: ScimTokenId::generate(at, clock::random()),
                client,
                connector: connector.to_owned(),
                created_by: tx.actor(),
                created_at: at,
                expires_at: at.plus(DAY * days),
                used_at: None,
                revoked_at: None,
            };
            store::insert_scim_token(tx, tenant, &token, hash.as_bytes())?;
            tx.record(
            "scim_token.created",
            ("scim_token", token.id.to_string()),
            serde_json::json!({"connector": connector, "client_id": client, "expires_at": token.expires_at}),
        )?;
            Ok(token)
        })
        .await?;
    let view = NewScimTokenView {
        id: token.id,
        token: secret,
        scim_url: format!("{}/scim/v2", app.settings.admin_url),
        connector: token.connector,
        client_id: token.client,
        expires_at: token.expires_at.to_string(),
    };
    let mut response = (StatusCode::CREATED, Json(view)).into_response();
    response.headers_mut().insert(
        axum::http::header::CACHE_CONTROL,
        axum::http::HeaderValue::from_static("no-store"),
    );
    Ok(response)
}

#[utoipa::path(
    delete, path = "/scim-tokens/{id}", tag = "directory", params(("id" = String, Path)),
    security(("oauth2" = ["client:write"])), responses((status = 204)),
)]
async fn delete_scim_token(
    permit: Permit<ClientWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<ScimTokenId>,
) -> Result<StatusCode, Problem> {
    // Nobody takes away what they could not give.
    permit.require_held([ScimWrite::NAME].into_iter())?;
    let (tenant, author) = (permit.tenant(), permit.author().clone());
    audit::commit(&app, &author, move |tx| {
        let at = tx.at();
        let token = store::scim_tokens(tx, tenant)?
            .into_iter()
            .find(|token| token.id == id);
        if let Some(token) = token {
            connection::require_for_connector(tx, &permit, tenant, &token.connector)?;
        }
        if store::revoke_scim_token(tx, tenant, id, at)? == 0 {
            return Err(NOT_FOUND.detail("There is no such SCIM token, or it is revoked already."));
        }
        tx.record(
            "scim_token.revoked",
            ("scim_token", id.to_string()),
            serde_json::json!({}),
        )?;
        Ok(())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Forgets tokens that have been over for a while, and the oldest bars of a tenant that has too many. A reconciler's step.
pub(super) fn forget(tx: &mut Tx, now: Timestamp) -> Result<u64, Problem> {
    let mut removed = store::forget_scim_tokens(tx, now.minus(OVER_KEPT))?;
    for (tenant, _) in super::tenants(tx)? {
        removed += store::trim_barred(tx, tenant, super::BARRED_MAX)?;
    }
    Ok(removed)
}
