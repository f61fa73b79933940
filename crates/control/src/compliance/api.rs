//! Routes of compliance: the fleet, its rules, its violations, one device.

use axum::{Json, extract::State};
use muster_model::ViolationId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{ComplianceSummary, DeviceComplianceView, RuleShare, SharePoint, ViolationView};
use crate::{
    App,
    access::{
        Permit,
        problem::Problem,
        request::{Params, PathOf},
        scope::DeviceRead,
    },
    page::{Page, cursor, page_limit},
    policy,
};

/// The hours that a history shows unless another number is asked for.
const HISTORY_HOURS: i64 = 7 * 24;

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_compliance))
        .routes(routes!(list_rules))
        .routes(routes!(get_rule_history))
        .routes(routes!(list_violations))
        .routes(routes!(get_device_compliance))
}

/// Where the fleet stands: devices by state, open violations by severity, the rules that most devices violate.
#[utoipa::path(
    get, path = "/compliance", tag = "compliance", security(("oauth2" = ["device:read"])),
    responses((status = 200, body = ComplianceSummary)),
)]
async fn get_compliance(
    permit: Permit<DeviceRead>,
    State(app): State<App>,
) -> Result<Json<ComplianceSummary>, Problem> {
    let (tenant, now) = (permit.tenant(), app.clock.now());
    let summary = app
        .db
        .read(permit.storage(), move |tx| super::summary(tx, tenant, now))
        .await?;
    Ok(Json(summary))
}

/// Rules and settings with their shares.
#[derive(Debug, Serialize, ToSchema)]
struct RulesView {
    /// Those with the most violating devices first, at most 1000.
    items: Vec<RuleShare>,
}

/// Every rule and setting that devices are judged by, with the share of devices that violate it: now, a day ago, a week ago.
#[utoipa::path(
    get, path = "/compliance/rules", tag = "compliance", security(("oauth2" = ["device:read"])),
    responses((status = 200, body = RulesView)),
)]
async fn list_rules(permit: Permit<DeviceRead>, State(app): State<App>) -> Result<Json<RulesView>, Problem> {
    let (tenant, now) = (permit.tenant(), app.clock.now());
    let items = app
        .db
        .read(permit.storage(), move |tx| super::rule_shares(tx, tenant, now))
        .await?;
    Ok(Json(RulesView { items }))
}

/// How far back a history goes.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct HistoryQuery {
    /// Hours, from 1 to 2160 (90 days); 168 unless given.
    hours: Option<i64>,
}

/// The share of a rule or setting, hour by hour.
#[derive(Debug, Serialize, ToSchema)]
struct HistoryView {
    /// The oldest first. An hour in which nothing was sampled is left out.
    items: Vec<SharePoint>,
}

/// The share of devices that violated a rule or setting, sampled hourly.
#[utoipa::path(
    get, path = "/compliance/rules/{policy}/{subject}/history", tag = "compliance",
    params(
        ("policy" = String, Path, description = "Id or name"),
        ("subject" = String, Path, description = "A rule's name or a setting's key"),
        HistoryQuery,
    ),
    security(("oauth2" = ["device:read"])), responses((status = 200, body = HistoryView)),
)]
async fn get_rule_history(
    permit: Permit<DeviceRead>,
    State(app): State<App>,
    PathOf((policy, subject)): PathOf<(String, String)>,
    Params(query): Params<HistoryQuery>,
) -> Result<Json<HistoryView>, Problem> {
    let (tenant, now) = (permit.tenant(), app.clock.now());
    let hours = query.hours.unwrap_or(HISTORY_HOURS);
    let items = app
        .db
        .read(permit.storage(), move |tx| {
            let policy = policy::resolve(tx, tenant, &policy)?.id;
            super::share_history(tx, tenant, policy, &subject, hours, now)
        })
        .await?;
    Ok(Json(HistoryView { items }))
}

/// Which violations to list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ViolationsQuery {
    /// `severity:high policy:baseline subject:"disk is encrypted" escalated:yes`.
    filter: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
}

/// Open violations, newest first.
#[utoipa::path(
    get, path = "/violations", tag = "compliance", params(ViolationsQuery), security(("oauth2" = ["device:read"])),
    responses((status = 200, body = Page<ViolationView>)),
)]
async fn list_violations(
    permit: Permit<DeviceRead>,
    State(app): State<App>,
    Params(query): Params<ViolationsQuery>,
) -> Result<Json<Page<ViolationView>>, Problem> {
    let limit = page_limit(query.limit);
    let before = cursor::<ViolationId>(query.cursor.as_deref())?;
    let (tenant, now) = (permit.tenant(), app.clock.now());
    let filter = query.filter.unwrap_or_default();
    let items = app
        .db
        .read(permit.storage(), move |tx| {
            super::list_violations(tx, tenant, &filter, before, limit + 1, now)
        })
        .await?;
    Ok(Json(Page::of(items, limit, |item: &ViolationView| {
        item.id.to_string()
    })))
}

/// What a device does not comply with, what comes next, and its history.
#[utoipa::path(
    get, path = "/devices/{id}/compliance", tag = "compliance", params(("id" = String, Path)),
    security(("oauth2" = ["device:read"])), responses((status = 200, body = DeviceComplianceView)),
)]
async fn get_device_compliance(
    permit: Permit<DeviceRead>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
) -> Result<Json<DeviceComplianceView>, Problem> {
    let (tenant, now) = (permit.tenant(), app.clock.now());
    let view = app
        .db
        .read(permit.storage(), move |tx| {
            super::device_compliance(tx, tenant, &id, now)
        })
        .await?;
    Ok(Json(view))
}
