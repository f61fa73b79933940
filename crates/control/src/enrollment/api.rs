//! Routes of enrollment tokens.

use std::{collections::BTreeSet, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    response::Response,
};
use muster_model::{
    AttestationLevel, DeviceId, Ownership, TokenId,
    text::{DeviceUuid, Label, Name, SerialNumber},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{BulkOutcome, EnrollmentPolicy, Funnel, StoredPolicy, Token};
use crate::{
    App,
    access::{
        Permit,
        idempotency::{IdempotencyKey, commit_once},
        problem::{CSV_INVALID, FieldError, INVALID, Problem},
        request::{Body, Params},
        scope::{ConfigRead, ConfigWrite, TokenRead, TokenWrite},
    },
    audit,
    devices::Protocol,
    page::{Page, PageQuery, cursor, page_limit},
};

/// Bytes of a table of tokens.
const CSV_BYTES_MAX: usize = 1024 * 1024;
const FUNNEL_HOURS: u64 = 7 * 24;
const FUNNEL_HOURS_MAX: u64 = 90 * 24;

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_token, list_tokens))
        .routes(routes!(create_tokens))
        .routes(routes!(funnel))
        .routes(routes!(get_enrollment_policy, put_enrollment_policy))
        .merge(
            OpenApiRouter::new()
                .routes(routes!(import_android_status))
                .layer(DefaultBodyLimit::max(super::ANDROID_STATUS_BYTES_MAX)),
        )
}

/// Which device may enroll.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EnrollmentTokenRequest)]
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
    /// How the device enrolls; `agent` unless given.
    #[serde(default, skip_serializing_if = "is_agent")]
    protocol: Protocol,
    /// For SCEP and EST: the common name that the request has to have; the UUID unless given.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<Label>,
    /// `company` unless given, or `personal`: a personal device can never be given a full wipe.
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ownership: Option<Ownership>,
    /// Kinds of hardware proof of which the device has to bring one; what the tenant accepts unless given.
    #[schema(value_type = Vec<String>)]
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    attestation: BTreeSet<AttestationLevel>,
}

fn is_agent(protocol: &Protocol) -> bool {
    *protocol == Protocol::Agent
}

/// A one-time token. It is shown this once.
#[derive(Debug, Serialize, ToSchema)]
struct NewToken {
    #[schema(value_type = String)]
    id: TokenId,
    /// What the device shows: a JWT for the agent, a challenge for ACME (`ClientIdentifier`), SCEP (`challengePassword`) and
    /// EST (the password of HTTP Basic).
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
    pub protocol: Protocol,
    pub subject: Option<String>,
    #[schema(value_type = String)]
    pub ownership: Ownership,
    #[schema(value_type = Vec<String>)]
    pub attestation: BTreeSet<AttestationLevel>,
    /// Who asked for it for their own device.
    pub person: Option<String>,
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
            protocol: token.protocol,
            subject: token.subject,
            ownership: token.ownership,
            attestation: token.attestation,
            person: token.person.map(|owner| owner.person),
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
        protocol: request.protocol,
        subject: request
            .subject
            .as_ref()
            .map(|subject| subject.as_str().to_owned()),
        ownership: request.ownership.unwrap_or(Ownership::Company),
        attestation: request.attestation.clone(),
        person: None,
    };
    let shared = app.clone();
    commit_once(
        &app,
        &permit,
        key,
        "POST /enrollment-tokens",
        &request,
        move |tx| {
            let made = super::create_token(tx, &shared, &new)?;
            Ok((
                StatusCode::CREATED,
                NewToken {
                    id: made.id,
                    token: made.secret,
                    expires_at: made.expires_at.to_string(),
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

/// How to take a table.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct BulkQuery {
    /// Whether good rows are kept when others are bad; otherwise one bad row refuses the table.
    #[serde(default)]
    partial: bool,
}

/// Tokens of a table. Each is shown this once.
#[derive(Debug, Serialize, ToSchema)]
struct NewTokens {
    tokens: Vec<TokenOfRow>,
    /// Rows that made no token; only with `partial=true`.
    errors: Vec<FieldError>,
}

/// The token that a row made.
#[derive(Debug, Serialize, ToSchema)]
struct TokenOfRow {
    /// From 2: the first row is the header.
    row: usize,
    #[schema(value_type = String)]
    id: TokenId,
    device_uuid: Uuid,
    serial: Option<String>,
    owner: Option<String>,
    token: String,
    expires_at: String,
}

impl From<BulkOutcome> for NewTokens {
    fn from(outcome: BulkOutcome) -> NewTokens {
        let tokens = outcome.made.into_iter().map(|made| TokenOfRow {
            row: made.row,
            id: made.token.id,
            device_uuid: made.request.device_uuid,
            serial: made.request.serial,
            owner: made.request.owner,
            token: made.token.secret,
            expires_at: made.token.expires_at.to_string(),
        });
        NewTokens {
            tokens: tokens.collect(),
            errors: outcome.errors,
        }
    }
}

#[utoipa::path(
    post, path = "/enrollment-tokens/bulk", tag = "enrollment", params(BulkQuery),
    security(("oauth2" = ["token:write"])), request_body(content = String, content_type = "text/csv"),
    responses((status = 201, body = NewTokens)),
)]
async fn create_tokens(
    permit: Permit<TokenWrite>,
    State(app): State<App>,
    Params(query): Params<BulkQuery>,
    table: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<(StatusCode, Json<NewTokens>), Problem> {
    let table = table
        .ok()
        .filter(|table| table.len() <= CSV_BYTES_MAX)
        .ok_or_else(|| {
            CSV_INVALID.detail("The table could not be read, or has more than 1 MiB. Split it.")
        })?;
    let shared = app.clone();
    let outcome = audit::commit(&app, permit.author(), move |tx| {
        super::create_tokens(tx, &shared, &table, query.partial)
    })
    .await?;
    Ok((StatusCode::CREATED, Json(outcome.into())))
}

/// Which time to count.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct FunnelQuery {
    /// The last so many hours; 168 unless given, at most 2160.
    hours: Option<u64>,
}

#[utoipa::path(
    get, path = "/enrollment-funnel", tag = "enrollment", params(FunnelQuery), security(("oauth2" = ["token:read"])),
    responses((status = 200, body = Funnel)),
)]
async fn funnel(
    permit: Permit<TokenRead>,
    State(app): State<App>,
    Params(query): Params<FunnelQuery>,
) -> Result<Json<Funnel>, Problem> {
    let hours = query.hours.unwrap_or(FUNNEL_HOURS);
    if !(1..=FUNNEL_HOURS_MAX).contains(&hours) {
        return Err(INVALID.detail("hours is from 1 to 2160: tokens are kept 90 days."));
    }
    let (tenant, now) = (permit.tenant(), app.clock.now());
    let since = now.minus(Duration::from_secs(hours * 3600));
    let funnel = app
        .db
        .read(permit.storage(), move |tx| super::funnel(tx, tenant, since, now))
        .await?;
    Ok(Json(funnel))
}

/// The tenant's enrollment policy.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EnrollmentPolicyView)]
struct PolicyView {
    policy: EnrollmentPolicy,
    /// 0 until somebody changes the default.
    version: i64,
    updated_by: Option<String>,
    updated_at: Option<String>,
}

impl From<StoredPolicy> for PolicyView {
    fn from(stored: StoredPolicy) -> PolicyView {
        PolicyView {
            policy: stored.document,
            version: stored.version,
            updated_by: stored.updated_by,
            updated_at: stored.updated_at.map(|at| at.to_string()),
        }
    }
}

#[utoipa::path(
    get, path = "/enrollment-policy", tag = "enrollment", security(("oauth2" = ["config:read"])),
    responses((status = 200, body = PolicyView)),
)]
async fn get_enrollment_policy(
    permit: Permit<ConfigRead>,
    State(app): State<App>,
) -> Result<Json<PolicyView>, Problem> {
    Ok(Json(super::policy_of(&app, permit.tenant()).await?.into()))
}

/// The whole policy; what is left out has its default.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EnrollmentPolicyRequest)]
struct PolicyRequest {
    policy: EnrollmentPolicy,
    /// The version that the change starts from; another one in the meantime is a conflict.
    version: Option<i64>,
}

#[utoipa::path(
    put, path = "/enrollment-policy", tag = "enrollment", security(("oauth2" = ["config:write"])),
    request_body = PolicyRequest, responses((status = 200, body = PolicyView)),
)]
async fn put_enrollment_policy(
    permit: Permit<ConfigWrite>,
    State(app): State<App>,
    Body(request): Body<PolicyRequest>,
) -> Result<Json<PolicyView>, Problem> {
    let stored = audit::commit(&app, permit.author(), move |tx| {
        super::put_policy(tx, &request.policy, request.version)
    })
    .await?;
    Ok(Json(stored.into()))
}

/// How many keys a list names.
#[derive(Debug, Serialize, ToSchema)]
struct AndroidStatusView {
    keys: usize,
}

#[utoipa::path(
    put, path = "/enrollment-policy/android-status", tag = "enrollment", security(("oauth2" = ["config:write"])),
    request_body(content = String, content_type = "application/json"), responses((status = 200, body = AndroidStatusView)),
)]
async fn import_android_status(
    permit: Permit<ConfigWrite>,
    State(app): State<App>,
    list: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Json<AndroidStatusView>, Problem> {
    let list = list
        .ok()
        .filter(|list| list.len() <= super::ANDROID_STATUS_BYTES_MAX)
        .ok_or_else(|| INVALID.detail("The list could not be read, or has more than 8 MiB."))?;
    let keys = audit::commit(&app, permit.author(), move |tx| {
        super::import_android_status(tx, &list)
    })
    .await?;
    Ok(Json(AndroidStatusView { keys }))
}
