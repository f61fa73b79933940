//! Routes that start rollouts, or say what starting one would do.

use axum::{Json, extract::State, http::StatusCode, response::Response};
use muster_model::{
    RolloutId,
    rollout::{StageRequest, Window},
    text::VersionLabel,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{after_change, report_tampering};
use crate::{
    App,
    access::{
        Permit,
        idempotency::{IdempotencyKey, commit_once},
        problem::{BUNDLE_CHANGED, Problem},
        request::{Body, PathOf},
        scope::{PolicyActivate, PolicyRead},
    },
    policy,
    rollout::{
        Course,
        change::{self, Order, Wanted, ask_people},
        preview::{PreviewView, preview},
        rules::Target,
    },
};

/// Which version to activate: `{"version":"2026.05"}`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ActivateRequest {
    #[schema(value_type = String)]
    version: VersionLabel,
    /// In their order: `name`, `percent` (of the target, with the devices of earlier stages; the last stage is everything),
    /// `gate`, `soak_seconds`, `promotion` (`automatic` or `manual`). A pilot of 10 %, a canary of 25 % and everything when
    /// absent.
    #[schema(value_type = Option<Vec<Object>>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stages: Option<Vec<StageRequest>>,
    /// Whom it is for; every device when absent. The policy then applies to these devices and no others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<Target>,
    /// When devices may be moved: `{"days":["sat"],"start":"22:00","end":"05:00","utc_offset_minutes":60}`. Always when
    /// absent.
    #[schema(value_type = Option<Vec<Object>>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    windows: Option<Vec<Window>>,
}

impl ActivateRequest {
    fn order(&self) -> Result<Order, Problem> {
        let Course { stages, windows } = Course::read(self.stages.as_deref(), self.windows.as_deref())?;
        Ok(Order {
            target: self.target.clone().unwrap_or_default().checked()?,
            stages,
            windows,
        })
    }
}

/// A rollout that has begun.
#[derive(Debug, Serialize, ToSchema)]
struct Activated {
    #[schema(value_type = String)]
    rollout_id: RolloutId,
    generation: u64,
}

/// Starts the rollout of a version: opens its first stage. A rollout of the policy that is under way is superseded.
#[utoipa::path(
    post, path = "/policies/{id}/activate", tag = "rollouts",
    params(("id" = String, Path, description = "Id or name")), security(("oauth2" = ["policy:activate"])),
    request_body = ActivateRequest, responses((status = 202, body = Activated)),
)]
pub async fn activate_policy(
    permit: Permit<PolicyActivate>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
    key: IdempotencyKey,
    Body(request): Body<ActivateRequest>,
) -> Result<Response, Problem> {
    let order = request.order()?;
    let target = order.target.clone();
    let (tenant, settings, label) = (permit.tenant(), app.settings.clone(), request.version.clone());
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    // Every device of the target is read for this, so not while others wait to write.
    let prepared = app
        .db
        .read(permit.storage(), move |tx| change::prepare(tx, tenant, order))
        .await?;
    let route = "POST /policies/{id}/activate";
    let answer = match policy::require_artifact(&app, tenant, &id, &label).await {
        Err(problem) => Err(problem),
        Ok(()) => {
            commit_once(&app, &permit, key, route, &(&id, &request), {
                let (id, label) = (id.clone(), label.clone());
                move |tx| {
                    let policy = policy::resolve(tx, tenant, &id)?;
                    let rollout =
                        change::activate(tx, &keys, &settings, policy.id, &label, prepared.clone())?;
                    let activated = Activated {
                        rollout_id: rollout.id,
                        generation: rollout.generation,
                    };
                    Ok((StatusCode::ACCEPTED, activated))
                }
            })
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
                let (id, label) = (id.clone(), label.clone());
                report_tampering(&app, permit.author(), &problem, move |tx| {
                    let policy = policy::resolve(tx, tenant, &id)?;
                    policy::version(tx, tenant, policy.id, &label)
                })
                .await?;
            }
            let wanted = Wanted::Activate(id, label, target);
            match ask_people(&app, permit.author(), &problem, wanted).await? {
                Some(operation) => Err(operation.explains(problem)),
                None => Err(problem),
            }
        }
    }
}

/// Says what an activation would do: devices of each stage, gates that cannot pass, settings that other policies set
/// differently. Changes nothing; which devices the stages draw is decided anew at the activation.
#[utoipa::path(
    post, path = "/policies/{id}/activation-preview", tag = "rollouts",
    params(("id" = String, Path, description = "Id or name")), security(("oauth2" = ["policy:read"])),
    request_body = ActivateRequest, responses((status = 200, body = PreviewView)),
)]
pub async fn preview_activation(
    permit: Permit<PolicyRead>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
    Body(request): Body<ActivateRequest>,
) -> Result<Json<PreviewView>, Problem> {
    let order = request.order()?;
    let (tenant, now) = (permit.tenant(), app.clock.now());
    let view = app
        .db
        .read(permit.storage(), move |tx| {
            let policy = policy::resolve(tx, tenant, &id)?;
            preview(tx, tenant, &policy, &request.version, order, now)
        })
        .await?;
    Ok(Json(view))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(body: &str) -> Result<Order, Problem> {
        let request: ActivateRequest = serde_json::from_str(body).expect("the body is readable");
        request.order()
    }

    #[test]
    fn p6_the_literal_body_of_the_contract_is_a_pilot_a_canary_and_everything() {
        let names = |body: &str| -> Vec<String> {
            let order = order(body).expect("it is an order");
            order.stages.into_iter().map(|stage| stage.name).collect()
        };
        assert_eq!(names(r#"{"version":"2026.05"}"#), ["pilot", "canary", "full"]);
        assert_eq!(
            names(r#"{"version":"2026.05","stages":[{"name":"full"}]}"#),
            ["full"]
        );
    }

    #[test]
    fn p6_stages_and_windows_that_would_be_obeyed_in_part_are_refused() {
        for (body, code) in [
            (
                r#"{"version":"1","stages":[{"name":"full","percent":5}]}"#,
                "stages_invalid",
            ),
            (
                r#"{"version":"1","stages":[{"name":"a"},{"name":"full"}]}"#,
                "stages_invalid",
            ),
            (r#"{"version":"1","stages":[]}"#, "stages_invalid"),
            (
                r#"{"version":"1","windows":[{"days":[],"start":"22:00","end":"05:00"}]}"#,
                "invalid",
            ),
        ] {
            assert_eq!(order(body).expect_err("it is refused").code(), code, "{body}");
        }
    }
}
