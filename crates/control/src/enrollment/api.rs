//! Routes of enrollment tokens.

use axum::{Json, extract::State, http::StatusCode, response::Response};
use muster_model::{
    DeviceId, TokenId,
    text::{DeviceUuid, Name, SerialNumber},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::Token;
use crate::{
    App,
    access::{
        Permit,
        idempotency::{IdempotencyKey, commit_once},
        problem::Problem,
        request::{Body, Params},
        scope::{TokenRead, TokenWrite},
    },
    page::{Page, PageQuery, cursor, page_limit},
};

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create_token, list_tokens))
}

/// Which device may enroll.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TokenRequest {
    /// The hardware UUID (SMBIOS system UUID where there is one).
    #[schema(value_type = String)]
    device_uuid: DeviceUuid,
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    serial: Option<SerialNumber>,
    /// Whose device it is.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<Name>,
    /// 300 unless given; at most 86400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl_seconds: Option<i64>,
}

/// A one-time token. It is shown this once.
#[derive(Debug, Serialize, ToSchema)]
struct NewToken {
    token: String,
    expires_at: String,
}

/// A token as it is listed, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenView {
    #[schema(value_type = String)]
    pub id: TokenId,
    pub device_uuid: Uuid,
    pub serial: Option<String>,
    pub owner: Option<String>,
    /// `issued`, `redeemed` or `expired`.
    pub state: String,
    pub created_by: String,
    pub created_at: String,
    pub expires_at: String,
    pub redeemed_at: Option<String>,
    #[schema(value_type = Option<String>)]
    pub device_id: Option<DeviceId>,
    pub failures: i64,
    pub last_failure: Option<String>,
}

impl TokenView {
    /// The token as it stands at `now`.
    pub fn of(token: Token, now: muster_model::Timestamp) -> TokenView {
        let state = match token.redeemed_at {
            Some(_) => "redeemed",
            None if token.expires_at <= now => "expired",
            None => "issued",
        };
        TokenView {
            id: token.id,
            device_uuid: token.device_uuid,
            serial: token.serial,
            owner: token.owner,
            state: state.to_owned(),
            created_by: token.created_by,
            created_at: token.created_at.to_string(),
            expires_at: token.expires_at.to_string(),
            redeemed_at: token.redeemed_at.map(|at| at.to_string()),
            device_id: token.device,
            failures: token.failures,
            last_failure: token.last_failure,
        }
    }
}

#[utoipa::path(
    post, path = "/enrollment-tokens", tag = "enrollment", params(("Idempotency-Key" = Option<String>, Header)),
    security(("oauth2" = ["token:write"])), request_body = TokenRequest, responses((status = 201, body = NewToken)),
)]
async fn create_token(
    permit: Permit<TokenWrite>,
    State(app): State<App>,
    key: IdempotencyKey,
    Body(request): Body<TokenRequest>,
) -> Result<Response, Problem> {
    let new = super::NewTokenRequest {
        device_uuid: request.device_uuid.uuid(),
        serial: request.serial.as_ref().map(|serial| serial.as_str().to_owned()),
        owner: request.owner.as_ref().map(|owner| owner.as_str().to_owned()),
        ttl_seconds: request.ttl_seconds,
    };
    let shared = app.clone();
    commit_once(
        &app,
        &permit,
        key,
        "POST /enrollment-tokens",
        &request,
        move |tx| {
            let (token, expires_at) = super::create_token(tx, &shared, &new)?;
            Ok((
                StatusCode::CREATED,
                NewToken {
                    token,
                    expires_at: expires_at.to_string(),
                },
            ))
        },
    )
    .await
}

#[utoipa::path(
    get, path = "/enrollment-tokens", tag = "enrollment", params(PageQuery), security(("oauth2" = ["token:read"])),
    responses((status = 200, body = Page<TokenView>)),
)]
async fn list_tokens(
    permit: Permit<TokenRead>,
    State(app): State<App>,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<TokenView>>, Problem> {
    let limit = page_limit(query.limit);
    let before = cursor::<TokenId>(query.cursor.as_deref())?;
    let (tenant, now) = (permit.tenant(), app.clock.now());
    let rows = app
        .db
        .read(permit.storage(), move |tx| {
            super::list(tx, tenant, before, limit + 1)
        })
        .await?;
    let items = rows.into_iter().map(|token| TokenView::of(token, now)).collect();
    Ok(Json(Page::of(items, limit, |token: &TokenView| {
        token.id.to_string()
    })))
}
