//! Routes of the fleet: devices with their policies, decisions, the overview.

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{CertificateDetail, FleetDevice, Overview};
use crate::{
    App,
    access::{
        Permit,
        problem::Problem,
        request::{Body, Params, PathOf},
        scope::{DeviceRead, DeviceWrite},
    },
    certificates::RevocationReason,
    devices::{DeviceFilter, QuarantineDecision},
    page::{Page, cursor, page_limit},
};

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_devices))
        .routes(routes!(get_device))
        .routes(routes!(quarantine_decision))
        .routes(routes!(retire_device))
        .routes(routes!(revoke_certificates))
        .routes(routes!(list_certificates))
        .routes(routes!(revoke_certificate))
        .routes(routes!(overview))
        .merge(super::labels::router())
}

/// Which devices to list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct DevicesQuery {
    /// `platform:linux compliance:noncompliant state:active model:"X 1" label:site=north free text`.
    filter: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
}

#[utoipa::path(
    get, path = "/devices", tag = "devices", params(DevicesQuery), security(("oauth2" = ["device:read"])),
    responses((status = 200, body = Page<FleetDevice>)),
)]
async fn list_devices(
    permit: Permit<DeviceRead>,
    State(app): State<App>,
    Params(query): Params<DevicesQuery>,
) -> Result<Json<Page<FleetDevice>>, Problem> {
    let limit = page_limit(query.limit);
    let filter = DeviceFilter::parse(query.filter.as_deref().unwrap_or_default())?;
    let after = cursor(query.cursor.as_deref())?;
    let (tenant, shared) = (permit.tenant(), app.clone());
    let items = app
        .db
        .read(permit.storage(), move |tx| {
            let now = shared.clock.now();
            super::list(tx, &shared.activations, tenant, &filter, after, limit + 1, now)
        })
        .await?;
    Ok(Json(Page::of(items, limit, |item: &FleetDevice| {
        item.device.id.to_string()
    })))
}

#[utoipa::path(
    get, path = "/devices/{id}", tag = "devices", params(("id" = String, Path)), security(("oauth2" = ["device:read"])),
    responses((status = 200, body = FleetDevice)),
)]
async fn get_device(
    permit: Permit<DeviceRead>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
) -> Result<Json<FleetDevice>, Problem> {
    let (tenant, shared) = (permit.tenant(), app.clone());
    let device = app
        .db
        .read(permit.storage(), move |tx| {
            super::device(tx, &shared.activations, tenant, &id, shared.clock.now())
        })
        .await?;
    Ok(Json(device))
}

/// A decision about a quarantined device.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DecisionRequest {
    decision: QuarantineDecision,
    /// For a merge, which device it continues; needed where several make the same hardware claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    continues: Option<String>,
}

#[utoipa::path(
    post, path = "/devices/{id}/quarantine-decision", tag = "devices", params(("id" = String, Path)),
    security(("oauth2" = ["device:write"])), request_body = DecisionRequest, responses((status = 204)),
)]
async fn quarantine_decision(
    permit: Permit<DeviceWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
    Body(request): Body<DecisionRequest>,
) -> Result<StatusCode, Problem> {
    super::decide(&app, &permit, id, request.decision, request.continues).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(
    post, path = "/devices/{id}/retire", tag = "devices", params(("id" = String, Path)),
    security(("oauth2" = ["device:write"])), responses((status = 204)),
)]
async fn retire_device(
    permit: Permit<DeviceWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
) -> Result<StatusCode, Problem> {
    super::retire(&app, &permit, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(
    post, path = "/devices/{id}/certificates/revoke", tag = "devices", params(("id" = String, Path)),
    security(("oauth2" = ["device:write"])), responses((status = 204)),
)]
async fn revoke_certificates(
    permit: Permit<DeviceWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
) -> Result<StatusCode, Problem> {
    super::revoke_certificates(&app, &permit, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The certificates of a device.
#[derive(Debug, Serialize, ToSchema)]
struct CertificatesView {
    /// The newest first, at most 32.
    items: Vec<CertificateDetail>,
}

#[utoipa::path(
    get, path = "/devices/{id}/certificates", tag = "devices", params(("id" = String, Path)),
    security(("oauth2" = ["device:read"])), responses((status = 200, body = CertificatesView)),
)]
async fn list_certificates(
    permit: Permit<DeviceRead>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
) -> Result<Json<CertificatesView>, Problem> {
    let tenant = permit.tenant();
    let items = app
        .db
        .read(permit.storage(), move |tx| {
            super::certificates_of(tx, tenant, &id)
        })
        .await?;
    Ok(Json(CertificatesView { items }))
}

/// Why one certificate is revoked.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RevocationRequest {
    reason: RevocationReason,
}

#[utoipa::path(
    post, path = "/devices/{id}/certificates/{serial}/revoke", tag = "devices",
    params(("id" = String, Path), ("serial" = String, Path, description = "Lower hex.")),
    security(("oauth2" = ["device:write"])), request_body = RevocationRequest, responses((status = 204)),
)]
async fn revoke_certificate(
    permit: Permit<DeviceWrite>,
    State(app): State<App>,
    PathOf((id, serial)): PathOf<(String, String)>,
    Body(request): Body<RevocationRequest>,
) -> Result<StatusCode, Problem> {
    super::revoke_certificate(&app, &permit, id, serial, request.reason).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(
    get, path = "/overview", tag = "devices", security(("oauth2" = ["device:read"])),
    responses((status = 200, body = Overview)),
)]
async fn overview(permit: Permit<DeviceRead>, State(app): State<App>) -> Result<Json<Overview>, Problem> {
    let (tenant, shared, now) = (permit.tenant(), app.clone(), app.clock.now());
    let overview = app
        .db
        .read(permit.storage(), move |tx| {
            super::overview(&shared, tx, tenant, now)
        })
        .await?;
    Ok(Json(overview))
}
