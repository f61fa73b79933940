//! Routes of rollouts, and a device's settings and verdicts.

use std::collections::BTreeMap;

use axum::{Json, extract::State, http::StatusCode, response::Response};
use muster_model::{
    DeviceId, EntryId, PolicyId, RolloutId, RolloutState, SettingReport, TenantId, Timestamp,
    platform::Platform, rollout::RolloutEvent, text::VersionLabel,
};
use muster_storage::Tx;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    Rollout, Undone, change,
    report::OpenReport,
    rules::{Gate, STAGE, Stage, Target},
    store,
};
use crate::{
    App, Settings,
    access::{
        Author, Permit,
        idempotency::{IdempotencyKey, commit_once},
        problem::{BUNDLE_CHANGED, Problem, STAGES_UNSUPPORTED},
        request::{Body, Params, PathOf},
        scope::{DeviceRead, PolicyActivate, RolloutRead, RolloutWrite},
    },
    audit::LoggedTx,
    compliance::DeviceSettingsView,
    devices::{self, TargetDevice},
    page::{Page, PageQuery, cursor, page_limit},
    policy,
};

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(activate_policy))
        .routes(routes!(list_rollouts))
        .routes(routes!(get_rollout))
        .routes(routes!(list_rollout_devices))
        .routes(routes!(pause_rollout))
        .routes(routes!(resume_rollout))
        .routes(routes!(abort_rollout))
        .routes(routes!(roll_back_rollout))
        .routes(routes!(get_device_settings))
}

/// Which version to activate: `{"version":"2026.05"}`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ActivateRequest {
    #[schema(value_type = String)]
    version: VersionLabel,
    /// Absent, or `[{"name":"full"}]`.
    #[schema(value_type = Option<Vec<Object>>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stages: Option<Vec<Box<RawValue>>>,
    /// Whom it is for; every device when absent. The policy then applies to these devices and no others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<Target>,
}

/// The only stage that a rollout can have.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StageRequest {
    name: String,
}

/// A rollout that has begun.
#[derive(Debug, Serialize, ToSchema)]
struct Activated {
    #[schema(value_type = String)]
    rollout_id: RolloutId,
    generation: u64,
}

/// Starts the rollout of a version.
#[utoipa::path(
    post, path = "/policies/{id}/activate", tag = "rollouts",
    params(("id" = String, Path, description = "Id or name")), security(("oauth2" = ["policy:activate"])),
    request_body = ActivateRequest, responses((status = 202, body = Activated)),
)]
async fn activate_policy(
    permit: Permit<PolicyActivate>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
    key: IdempotencyKey,
    Body(request): Body<ActivateRequest>,
) -> Result<Response, Problem> {
    require_one_stage(request.stages.as_deref())?;
    let target = request.target.clone().unwrap_or_default().checked()?;
    let (tenant, settings, label) = (permit.tenant(), app.settings.clone(), request.version.clone());
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let artifact = policy::require_artifact(&app, tenant, &id, &label).await;
    let answer = match artifact {
        Err(problem) => Err(problem),
        Ok(()) => {
            commit_once(
                &app,
                &permit,
                key,
                "POST /policies/{id}/activate",
                &(&id, &request),
                {
                    let (id, label) = (id.clone(), label.clone());
                    move |tx| {
                        let policy = policy::resolve(tx, tenant, &id)?;
                        let rollout =
                            change::activate(tx, &keys, &settings, policy.id, &label, target.clone())?;
                        Ok((
                            StatusCode::ACCEPTED,
                            Activated {
                                rollout_id: rollout.id,
                                generation: rollout.generation,
                            },
                        ))
                    }
                },
            )
            .await
        }
    };
    match answer {
        Ok(answer) => {
            after_change(&app, tenant).await?;
            Ok(answer)
        }
        Err(problem) => {
            if problem.kind == BUNDLE_CHANGED {
                report_tampering(&app, permit.author(), &problem, move |tx| {
                    let policy = policy::resolve(tx, tenant, &id)?;
                    policy::version(tx, tenant, policy.id, &label)
                })
                .await?;
            }
            Err(problem)
        }
    }
}

/// A rollout.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RolloutView {
    #[schema(value_type = String)]
    pub id: RolloutId,
    #[schema(value_type = String)]
    pub policy_id: PolicyId,
    pub policy_name: String,
    #[schema(value_type = String)]
    pub version: VersionLabel,
    pub bundle_sha256: String,
    /// The tenant's activation counter at this activation.
    pub generation: u64,
    /// The log entry of the activation.
    #[schema(value_type = String)]
    pub entry_id: EntryId,
    /// `running`, `paused`, `completed`, `rolled_back` or `aborted`.
    #[schema(value_type = String)]
    pub state: RolloutState,
    /// Whether its bundle is what its target should have.
    pub current: bool,
    pub target: Target,
    /// The rollout whose undoing this one is.
    #[schema(value_type = Option<String>)]
    pub rolled_back_from: Option<RolloutId>,
    pub created_by: String,
    pub created_at: String,
    pub updated_at: String,
    pub stages: Vec<StageView>,
}

/// A stage of a rollout: `devices` = `verified` + `failed` + `silent` + `pending`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct StageView {
    pub name: &'static str,
    pub devices: u64,
    /// Devices whose signed report says that the rollout is in force.
    pub verified: u64,
    /// Those of them that also report something weaker than wanted, not expressible, or not readable.
    pub with_gaps: u64,
    pub failed: u64,
    /// Devices past their deadline without a report; they count as failed.
    pub silent: u64,
    pub pending: u64,
    pub gate: Gate,
}

impl StageView {
    fn of(stage: Stage) -> StageView {
        StageView {
            name: STAGE,
            devices: stage.devices,
            verified: stage.verified,
            with_gaps: stage.with_gaps,
            failed: stage.failed,
            silent: stage.silent,
            pending: stage.pending,
            gate: Gate::of(&stage),
        }
    }
}

/// A rollout with its counts, for the API and the console.
pub fn view(
    tx: &mut Tx,
    tenant: TenantId,
    rollout: Rollout,
    settings: &Settings,
    now: Timestamp,
) -> Result<RolloutView, Problem> {
    let stage = super::stage(tx, tenant, &rollout, settings, now)?;
    Ok(RolloutView {
        id: rollout.id,
        policy_id: rollout.policy,
        policy_name: policy::name(tx, tenant, rollout.policy)?,
        version: rollout.version,
        bundle_sha256: rollout.bundle_sha256,
        generation: rollout.plan.activated_generation.unwrap_or(rollout.generation),
        entry_id: rollout.entry,
        state: rollout.state,
        current: rollout.current,
        target: rollout.plan.target,
        rolled_back_from: rollout.plan.rolled_back_from,
        created_by: rollout.created_by,
        created_at: rollout.created_at.to_string(),
        updated_at: rollout.updated_at.to_string(),
        stages: vec![StageView::of(stage)],
    })
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
    /// `pending`, `applied`, `verified`, `weaker`, `failed`, or `silent` past the deadline.
    state: &'static str,
    reported_at: Option<String>,
    /// By key: `state`, `observed`, `detail`.
    #[schema(value_type = Object)]
    settings: BTreeMap<String, SettingReport>,
}

/// The devices of a rollout's target. Of one that is over, devices show what they last reported.
#[utoipa::path(
    get, path = "/rollouts/{id}/devices", tag = "rollouts", params(("id" = String, Path), PageQuery),
    security(("oauth2" = ["rollout:read"])), responses((status = 200, body = Page<RolloutDeviceView>)),
)]
async fn list_rollout_devices(
    permit: Permit<RolloutRead>,
    State(app): State<App>,
    PathOf(id): PathOf<RolloutId>,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<RolloutDeviceView>>, Problem> {
    let limit = page_limit(query.limit);
    let after = cursor::<DeviceId>(query.cursor.as_deref())?.unwrap_or(DeviceId::from_uuid(Uuid::nil()));
    let (tenant, now) = (permit.tenant(), app.clock.now());
    let silence = std::time::Duration::from_secs(app.settings.silent_after_seconds);
    let items = app
        .db
        .read(permit.storage(), move |tx| {
            let rollout = super::get(tx, tenant, id)?;
            let enrolled_by = super::silent_since(&rollout, silence, now);
            let targeted =
                devices::target_devices(tx, tenant, rollout.plan.target.filter(), after, limit + 1)?;
            let mut items = Vec::with_capacity(targeted.len());
            for device in targeted {
                let reported = super::settings_of(tx, tenant, device.id, device.epoch, id)?;
                items.push(device_view(device, reported, enrolled_by));
            }
            Ok::<_, Problem>(items)
        })
        .await?;
    Ok(Json(Page::of(items, limit, |device: &RolloutDeviceView| {
        device.device_id.to_string()
    })))
}

fn device_view(
    device: TargetDevice,
    reported: Option<OpenReport>,
    enrolled_by: Timestamp,
) -> RolloutDeviceView {
    let waiting = if device.enrolled_at <= enrolled_by {
        "silent"
    } else {
        "pending"
    };
    let (state, reported_at, settings) = match reported {
        Some((report, settings)) => (
            report.state.as_str(),
            Some(report.reported_at.to_string()),
            settings,
        ),
        None => (waiting, None, BTreeMap::new()),
    };
    RolloutDeviceView {
        device_id: device.id,
        name: device.name,
        platform: device.platform,
        state,
        reported_at,
        settings,
    }
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
    change_rollout(app, permit, key, "POST /rollouts/{id}/pause", id, change::pause).await
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
    change_rollout(app, permit, key, "POST /rollouts/{id}/resume", id, change::resume).await
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

/// Ends a rollout that is under way. Its devices go back to the newest other version that was completed, or lose the policy.
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
    change: fn(&mut LoggedTx<'_>, Rollout) -> Result<Rollout, Problem>,
) -> Result<Response, Problem> {
    let (tenant, settings, now) = (permit.tenant(), app.settings.clone(), app.clock.now());
    let answer = commit_once(&app, &permit, key, route, &id, move |tx| {
        let rollout = super::get(tx, tenant, id)?;
        let rollout = change(tx, rollout)?;
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
        let Undone { rollout, replacement } = change::undo(tx, &keys, &settings, rollout, event)?;
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
            Err(problem)
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

/// One stage called `full` is what a rollout has; anything else would be obeyed only in part, and is refused.
fn require_one_stage(stages: Option<&[Box<RawValue>]>) -> Result<(), Problem> {
    let refused = || {
        STAGES_UNSUPPORTED
            .detail("A rollout has one stage. Leave `stages` out, or send [{\"name\":\"full\"}].")
    };
    match stages {
        None => Ok(()),
        Some([only]) => {
            let stage: StageRequest = serde_json::from_str(only.get()).map_err(|_| refused())?;
            if stage.name == STAGE {
                Ok(())
            } else {
                Err(refused())
            }
        }
        Some(_) => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stages(body: &str) -> Result<(), Problem> {
        let request: ActivateRequest = serde_json::from_str(body).expect("the body is readable");
        require_one_stage(request.stages.as_deref())
    }

    #[test]
    fn the_literal_body_of_the_contract_is_one_full_stage() {
        assert!(stages(r#"{"version":"2026.05"}"#).is_ok());
        assert!(stages(r#"{"version":"2026.05","stages":[{"name":"full"}]}"#).is_ok());
    }

    #[test]
    fn a_stage_that_would_be_obeyed_in_part_is_refused() {
        for body in [
            r#"{"version":"1","stages":[{"name":"pilot","percent":5},{"name":"full"}]}"#,
            r#"{"version":"1","stages":[{"name":"full","percent":5}]}"#,
            r#"{"version":"1","stages":[{"name":"pilot"}]}"#,
            r#"{"version":"1","stages":[]}"#,
        ] {
            assert_eq!(
                stages(body).expect_err("it is refused").code(),
                "stages_unsupported",
                "{body}"
            );
        }
    }
}
