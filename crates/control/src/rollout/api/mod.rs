//! Routes of rollouts, and a device's settings and verdicts.

mod activate;
mod groups;

use std::collections::BTreeMap;

use axum::{Json, extract::State, http::StatusCode, response::Response};
use muster_model::{DeviceId, RolloutId, SettingReport, TenantId, platform::Platform, rollout::RolloutEvent};
use muster_storage::Tx;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    Rollout, Undone, change, decisions, store,
    view::{RolloutDevice, RolloutView, Wanted, devices_of, view},
};
use crate::{
    App, Settings,
    access::{
        Author, Permit,
        idempotency::{IdempotencyKey, commit_once},
        problem::{BUNDLE_CHANGED, INVALID, Problem},
        request::{Params, PathOf},
        scope::{DeviceRead, RolloutRead, RolloutWrite},
    },
    audit::LoggedTx,
    compliance::DeviceSettingsView,
    devices,
    page::{Page, PageQuery, cursor, page_limit},
    policy,
};

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(activate::activate_policy))
        .routes(routes!(activate::preview_activation))
        .routes(routes!(groups::change_group))
        .routes(routes!(list_rollouts))
        .routes(routes!(get_rollout))
        .routes(routes!(list_rollout_devices))
        .routes(routes!(list_decisions))
        .routes(routes!(pause_rollout))
        .routes(routes!(resume_rollout))
        .routes(routes!(promote_rollout))
        .routes(routes!(abort_rollout))
        .routes(routes!(roll_back_rollout))
        .routes(routes!(get_device_settings))
}

/// Rollouts, newest first.
#[utoipa::path(
    get, path = "/rollouts", tag = "rollouts", params(PageQuery), security(("oauth2" = ["rollout:read"])),
    responses((status = 200, body = Page<RolloutView>)),
)]
async fn list_rollouts(
    permit: Permit<RolloutRead>,
    State(app): State<App>,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<RolloutView>>, Problem> {
    let limit = page_limit(query.limit);
    let before = cursor::<RolloutId>(query.cursor.as_deref())?;
    let (tenant, settings, now) = (permit.tenant(), app.settings.clone(), app.clock.now());
    let items = app
        .db
        .read(permit.storage(), move |tx| {
            let rollouts = super::list(tx, tenant, before, limit + 1)?;
            let views = rollouts
                .into_iter()
                .map(|rollout| view(tx, tenant, rollout, &settings, now));
            views.collect::<Result<Vec<_>, Problem>>()
        })
        .await?;
    Ok(Json(Page::of(items, limit, |rollout: &RolloutView| {
        rollout.id.to_string()
    })))
}

#[utoipa::path(
    get, path = "/rollouts/{id}", tag = "rollouts", params(("id" = String, Path)),
    security(("oauth2" = ["rollout:read"])), responses((status = 200, body = RolloutView)),
)]
async fn get_rollout(
    permit: Permit<RolloutRead>,
    State(app): State<App>,
    PathOf(id): PathOf<RolloutId>,
) -> Result<Json<RolloutView>, Problem> {
    let (tenant, settings, now) = (permit.tenant(), app.settings.clone(), app.clock.now());
    let view = app
        .db
        .read(permit.storage(), move |tx| {
            let rollout = super::get(tx, tenant, id)?;
            view(tx, tenant, rollout, &settings, now)
        })
        .await?;
    Ok(Json(view))
}

/// A device of a rollout, with what it reported.
#[derive(Debug, Serialize, ToSchema)]
struct RolloutDeviceView {
    #[schema(value_type = String)]
    device_id: DeviceId,
    name: String,
    #[schema(value_type = String)]
    platform: Platform,
    model: Option<String>,
    /// The name of its stage.
    stage: String,
    /// `waiting` (its stage is not open), `pending`, `applied`, `verified`, `weaker`, `failed`, or `silent` past the deadline.
    state: &'static str,
    reported_at: Option<String>,
    /// By key: `state`, `observed`, `detail`.
    #[schema(value_type = Object)]
    settings: BTreeMap<String, SettingReport>,
}

/// Which devices to list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct RolloutDevicesQuery {
    /// The name of a stage; every stage when absent.
    stage: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items on a page, at most 500.
    limit: Option<usize>,
}

/// The devices of a rollout. A page may hold fewer than asked for while there are more: go on while there is a cursor. Of a
/// rollout that is over, devices show what they last reported.
#[utoipa::path(
    get, path = "/rollouts/{id}/devices", tag = "rollouts", params(("id" = String, Path), RolloutDevicesQuery),
    security(("oauth2" = ["rollout:read"])), responses((status = 200, body = Page<RolloutDeviceView>)),
)]
async fn list_rollout_devices(
    permit: Permit<RolloutRead>,
    State(app): State<App>,
    PathOf(id): PathOf<RolloutId>,
    Params(query): Params<RolloutDevicesQuery>,
) -> Result<Json<Page<RolloutDeviceView>>, Problem> {
    let limit = page_limit(query.limit);
    let after = cursor::<DeviceId>(query.cursor.as_deref())?.unwrap_or(DeviceId::from_uuid(Uuid::nil()));
    let (tenant, now, settings) = (permit.tenant(), app.clock.now(), app.settings.clone());
    let page = app
        .db
        .read(permit.storage(), move |tx| {
            let rollout = super::get(tx, tenant, id)?;
            let wanted = Wanted {
                stage: query
                    .stage
                    .as_deref()
                    .map(|name| stage_called(&rollout, name))
                    .transpose()?,
                only_failed: false,
            };
            let page = devices_of(tx, tenant, &rollout, (after, limit), wanted, (&settings, now))?;
            let items = page
                .devices
                .into_iter()
                .map(|device| device_view(&rollout, device));
            Ok::<_, Problem>(Page {
                items: items.collect(),
                next_cursor: page.next.map(|last| last.to_string()),
            })
        })
        .await?;
    Ok(Json(page))
}

fn stage_called(rollout: &Rollout, name: &str) -> Result<usize, Problem> {
    let place = rollout
        .plan
        .stages
        .iter()
        .position(|stage| stage.plan.name == name);
    place.ok_or_else(|| INVALID.detail(format!("stage: the rollout has no stage {name}.")))
}

fn device_view(rollout: &Rollout, device: RolloutDevice) -> RolloutDeviceView {
    let stage = rollout.plan.stages.get(device.stage);
    let (reported_at, settings) = match device.report {
        Some((report, settings)) => (Some(report.reported_at.to_string()), settings),
        None => (None, BTreeMap::new()),
    };
    RolloutDeviceView {
        device_id: device.device.id,
        name: device.device.name,
        platform: device.device.platform,
        model: device.device.model,
        stage: stage.map(|stage| stage.plan.name.clone()).unwrap_or_default(),
        state: device.state,
        reported_at,
        settings,
    }
}

/// A decision of a gate that something came of.
#[derive(Debug, Serialize, ToSchema)]
struct DecisionView {
    /// From 1, in their order.
    number: u64,
    stage: String,
    at: String,
    /// `pass`, `fail`, `wait` or `inconclusive`.
    verdict: String,
    /// `point`, `exact`, `sequential` or `anytime`.
    method: String,
    /// `opened_next`, `completed`, `held` or `rolled_back`.
    action: String,
    /// Who: the system, or the person that promoted.
    actor: String,
    /// Every number that it rests on, in whole numbers: shares in parts per million or billion.
    #[schema(value_type = Object)]
    numbers: Box<serde_json::value::RawValue>,
}

/// What the gates of a rollout decided, newest first; at most the last 200.
#[utoipa::path(
    get, path = "/rollouts/{id}/decisions", tag = "rollouts", params(("id" = String, Path), PageQuery),
    security(("oauth2" = ["rollout:read"])), responses((status = 200, body = Page<DecisionView>)),
)]
async fn list_decisions(
    permit: Permit<RolloutRead>,
    State(app): State<App>,
    PathOf(id): PathOf<RolloutId>,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<DecisionView>>, Problem> {
    let limit = page_limit(query.limit);
    let before = cursor::<u32>(query.cursor.as_deref())?.map_or(u64::MAX >> 1, u64::from);
    let tenant = permit.tenant();
    let items = app
        .db
        .read(permit.storage(), move |tx| {
            super::get(tx, tenant, id)?;
            let decisions = decisions::list(tx, tenant, id, before, limit + 1)?;
            decisions
                .into_iter()
                .map(decision_view)
                .collect::<Result<Vec<_>, Problem>>()
        })
        .await?;
    Ok(Json(Page::of(items, limit, |decision: &DecisionView| {
        decision.number.to_string()
    })))
}

fn decision_view(decision: decisions::Decision) -> Result<DecisionView, Problem> {
    let made = decision.made;
    Ok(DecisionView {
        number: decision.number,
        stage: made.stage,
        at: decision.at.to_string(),
        verdict: made.verdict,
        method: made.method,
        action: made.action,
        actor: made.actor,
        numbers: serde_json::value::RawValue::from_string(made.numbers).map_err(Problem::internal)?,
    })
}

/// Stops moving devices to the version; those that have it keep it.
#[utoipa::path(
    post, path = "/rollouts/{id}/pause", tag = "rollouts", params(("id" = String, Path)),
    security(("oauth2" = ["rollout:write"])), responses((status = 200, body = RolloutView)),
)]
async fn pause_rollout(
    permit: Permit<RolloutWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<RolloutId>,
    key: IdempotencyKey,
) -> Result<Response, Problem> {
    change_rollout(
        app,
        permit,
        key,
        "POST /rollouts/{id}/pause",
        id,
        |tx, _, rollout| change::pause(tx, rollout),
    )
    .await
}

/// Goes on with a paused rollout.
#[utoipa::path(
    post, path = "/rollouts/{id}/resume", tag = "rollouts", params(("id" = String, Path)),
    security(("oauth2" = ["rollout:write"])), responses((status = 200, body = RolloutView)),
)]
async fn resume_rollout(
    permit: Permit<RolloutWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<RolloutId>,
    key: IdempotencyKey,
) -> Result<Response, Problem> {
    change_rollout(
        app,
        permit,
        key,
        "POST /rollouts/{id}/resume",
        id,
        |tx, _, rollout| change::resume(tx, rollout),
    )
    .await
}

/// Lets a rollout go on that waits for a person: because its stage is promoted by hand, its gate can say neither, or its gate
/// failed and is to hold.
#[utoipa::path(
    post, path = "/rollouts/{id}/promote", tag = "rollouts", params(("id" = String, Path)),
    security(("oauth2" = ["rollout:write"])), responses((status = 200, body = RolloutView)),
)]
async fn promote_rollout(
    permit: Permit<RolloutWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<RolloutId>,
    key: IdempotencyKey,
) -> Result<Response, Problem> {
    change_rollout(
        app,
        permit,
        key,
        "POST /rollouts/{id}/promote",
        id,
        change::promote,
    )
    .await
}

/// An undone rollout.
#[derive(Debug, Serialize, ToSchema)]
struct UndoneView {
    #[serde(flatten)]
    rollout: RolloutView,
    /// The rollout that brings the earlier version back; absent when the policy was withdrawn instead.
    #[schema(value_type = Option<String>)]
    replacement_id: Option<RolloutId>,
}

/// Ends a rollout that is under way. The devices that it reached go back to the newest other version that was completed, or
/// lose the policy; the others see nothing change.
#[utoipa::path(
    post, path = "/rollouts/{id}/abort", tag = "rollouts", params(("id" = String, Path)),
    security(("oauth2" = ["rollout:write"])), responses((status = 200, body = UndoneView)),
)]
async fn abort_rollout(
    permit: Permit<RolloutWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<RolloutId>,
    key: IdempotencyKey,
) -> Result<Response, Problem> {
    undo_rollout(
        app,
        permit,
        key,
        "POST /rollouts/{id}/abort",
        id,
        RolloutEvent::Abort,
    )
    .await
}

/// As abort, also for a rollout that was completed.
#[utoipa::path(
    post, path = "/rollouts/{id}/rollback", tag = "rollouts", params(("id" = String, Path)),
    security(("oauth2" = ["rollout:write"])), responses((status = 200, body = UndoneView)),
)]
async fn roll_back_rollout(
    permit: Permit<RolloutWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<RolloutId>,
    key: IdempotencyKey,
) -> Result<Response, Problem> {
    undo_rollout(
        app,
        permit,
        key,
        "POST /rollouts/{id}/rollback",
        id,
        RolloutEvent::RollBack,
    )
    .await
}

/// What the device should be at, what it reported of each setting, and the verdicts.
#[utoipa::path(
    get, path = "/devices/{id}/settings", tag = "devices", params(("id" = String, Path, description = "Id or name")),
    security(("oauth2" = ["device:read"])), responses((status = 200, body = DeviceSettingsView)),
)]
async fn get_device_settings(
    permit: Permit<DeviceRead>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
) -> Result<Json<DeviceSettingsView>, Problem> {
    let tenant = permit.tenant();
    super::ensure(&app, tenant).await?;
    let (work, now) = (app.clone(), app.clock.now());
    let view = app
        .db
        .read(permit.storage(), move |tx| {
            let device = devices::resolve(tx, tenant, &id)?;
            super::device_settings(tx, &work.activations, tenant, &device, now)
        })
        .await?;
    Ok(Json(view))
}

async fn change_rollout(
    app: App,
    permit: Permit<RolloutWrite>,
    key: IdempotencyKey,
    route: &'static str,
    id: RolloutId,
    change: fn(&mut LoggedTx<'_>, &Settings, Rollout) -> Result<Rollout, Problem>,
) -> Result<Response, Problem> {
    let (tenant, settings, now) = (permit.tenant(), app.settings.clone(), app.clock.now());
    let answer = commit_once(&app, &permit, key, route, &id, move |tx| {
        let rollout = super::get(tx, tenant, id)?;
        let rollout = change(tx, &settings, rollout)?;
        Ok((StatusCode::OK, view(tx, tenant, rollout, &settings, now)?))
    })
    .await?;
    after_change(&app, tenant).await?;
    Ok(answer)
}

async fn undo_rollout(
    app: App,
    permit: Permit<RolloutWrite>,
    key: IdempotencyKey,
    route: &'static str,
    id: RolloutId,
    event: RolloutEvent,
) -> Result<Response, Problem> {
    let (tenant, settings, now) = (permit.tenant(), app.settings.clone(), app.clock.now());
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let answer = commit_once(&app, &permit, key, route, &id, move |tx| {
        let rollout = super::get(tx, tenant, id)?;
        let Undone { rollout, replacement } = change::undo(tx, &keys, &settings, rollout, event, None)?;
        let rollout = view(tx, tenant, rollout, &settings, now)?;
        Ok((
            StatusCode::OK,
            UndoneView {
                rollout,
                replacement_id: replacement.map(|replacement| replacement.id),
            },
        ))
    })
    .await;
    match answer {
        Ok(answer) => {
            after_change(&app, tenant).await?;
            Ok(answer)
        }
        Err(problem) => {
            if problem.kind == BUNDLE_CHANGED {
                report_tampering(&app, permit.author(), &problem, move |tx| {
                    let rollout = super::get(tx, tenant, id)?;
                    let earlier = store::completed_before(tx, tenant, &rollout)?.unwrap_or(rollout);
                    policy::version(tx, tenant, earlier.policy, &earlier.version)
                })
                .await?;
            }
            let wanted = change::Wanted::Undo(id);
            match change::ask_people(&app, permit.author(), &problem, wanted).await? {
                Some(operation) => Err(operation.explains(problem)),
                None => Err(problem),
            }
        }
    }
}

/// This node tells devices at once; other nodes and the wake-ups follow the log.
async fn after_change(app: &App, tenant: TenantId) -> Result<(), Problem> {
    super::reload(app, tenant).await?;
    app.nudges.rollouts.notify_one();
    Ok(())
}

async fn report_tampering(
    app: &App,
    author: &Author,
    problem: &Problem,
    find: impl FnOnce(&mut Tx) -> Result<policy::Version, Problem> + Send + 'static,
) -> Result<(), Problem> {
    let scope = muster_storage::Scope::Tenant(author.tenant.uuid());
    let version = app.db.read(scope, find).await?;
    policy::report_tampering(app, author, &version, &problem.detail).await
}
