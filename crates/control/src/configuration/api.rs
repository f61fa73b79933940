//! Routes of configuration as code.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    Json,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    response::Response,
};
use muster_trust::key::Digest;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Action, Applied, Change, DELETION_BUDGET, DOCUMENT_BYTES_MAX, Document, Entries, GroupDocument, LeftOut,
    Order, Outcome, PolicyDocument, document::FORMAT,
};
use crate::{
    App,
    access::{
        Permit,
        idempotency::{IdempotencyKey, commit_once},
        problem::{APPROVAL_REQUIRED, BUNDLE_CHANGED, FORBIDDEN, INVALID, Problem},
        request::Body,
        scope::{ConfigRead, ConfigWrite, GroupRead, GroupWrite},
    },
    audit, rollout,
};

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(export_configuration))
        .routes(routes!(plan_configuration))
        .routes(routes!(apply_configuration))
        .layer(DefaultBodyLimit::max(DOCUMENT_BYTES_MAX))
}

/// The whole configuration as one document, the same bytes for the same state. A plan of it changes nothing. Settings are
/// exported as they are, secrets such as Wi-Fi passphrases among them: without them it would be another configuration.
/// Keep the document as you keep a password. Groups are in it for a caller that holds `group:read` too, where there are any.
#[utoipa::path(
    get, path = "/export", tag = "configuration", security(("oauth2" = ["config:read"])),
    responses((status = 200, body = Document)),
)]
async fn export_configuration(
    permit: Permit<ConfigRead>,
    State(app): State<App>,
) -> Result<Json<Document>, Problem> {
    super::export(&app, &permit).await.map(Json)
}

/// A document to plan.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PlanRequest {
    /// 1.
    format: u32,
    /// The groups that there are to be. Without this member the document says nothing about groups, and all stay.
    #[serde(default)]
    groups: Option<Vec<GroupDocument>>,
    policies: Vec<PolicyDocument>,
    /// Delete what the document leaves out: withdraw what is active, archive policies, delete groups. Versions always stay.
    #[serde(default)]
    prune: bool,
    /// The document is a part: keep what it leaves out.
    #[serde(default)]
    partial: bool,
}

fn left_out(prune: bool, partial: bool) -> Result<LeftOut, Problem> {
    match (prune, partial) {
        (false, false) => Ok(LeftOut::Refuse),
        (true, false) => Ok(LeftOut::Prune),
        (false, true) => Ok(LeftOut::Keep),
        (true, true) => Err(INVALID.detail(
            "`prune` deletes what the document leaves out, `partial` keeps it. Send one of them, or none.",
        )),
    }
}

/// What applying the document would do.
#[derive(Debug, Serialize, ToSchema)]
struct PlanView {
    /// What `POST /apply` takes, for an hour.
    #[schema(value_type = String)]
    plan_sha256: Digest,
    changes: Vec<Change>,
    /// How many of the changes take something away: `withdraw`, `archive_policy` and `delete_group`, or `would_delete`, with
    /// which the plan cannot be applied.
    deletions: usize,
    left_out: LeftOut,
    base: BaseView,
}

/// The state that a plan was made on.
#[derive(Debug, Serialize, ToSchema)]
struct BaseView {
    /// The size of the tenant's log.
    tree_size: u64,
}

/// What applying a document would change. Changes nothing; the planned document is kept for an hour. A document with groups
/// needs `group:read` too. An activation for groups that the same document makes or changes is `activate_later`: their members
/// are found after the plan is applied, and the document, planned and applied again, activates it then.
#[utoipa::path(
    post, path = "/plan", tag = "configuration", security(("oauth2" = ["config:read"])),
    request_body = PlanRequest, responses((status = 200, body = PlanView)),
)]
async fn plan_configuration(
    permit: Permit<ConfigRead>,
    State(app): State<App>,
    Body(request): Body<PlanRequest>,
) -> Result<Json<PlanView>, Problem> {
    let left_out = left_out(request.prune, request.partial)?;
    if request.groups.is_some() && !permit.also_holds::<GroupRead>() {
        return Err(FORBIDDEN.detail(
            "The document has groups: planning it needs the scope group:read as well. Ask for a token of a client that holds \
             it, or leave `groups` out.",
        ));
    }
    let document = Document {
        format: request.format,
        groups: request.groups,
        policies: request.policies,
    };
    let plan = super::plan(&app, &permit, document.checked(left_out)?).await?;
    Ok(Json(PlanView {
        plan_sha256: plan.sha256,
        deletions: plan.deletions(),
        changes: plan.changes,
        left_out,
        base: BaseView {
            tree_size: audit::head(&app, permit.tenant()).map_or(0, |head| head.size),
        },
    }))
}

/// Which plan to apply: `{"plan_sha256"}`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ApplyRequest {
    #[schema(value_type = String)]
    plan_sha256: Digest,
    /// With `policies`, the planned document: needed only for a plan that is not kept any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    format: Option<u32>,
    /// Of the planned document, if it has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<GroupDocument>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    policies: Option<Vec<PolicyDocument>>,
    /// As it was planned; only with the document.
    #[serde(default, skip_serializing_if = "is_false")]
    prune: bool,
    /// As it was planned; only with the document.
    #[serde(default, skip_serializing_if = "is_false")]
    partial: bool,
    /// How many deletions the plan may make; 5 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deletion_budget: Option<usize>,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl ApplyRequest {
    fn document(&self) -> Result<Option<Entries>, Problem> {
        let left_out = left_out(self.prune, self.partial)?;
        match (self.format, &self.policies) {
            (None, None) if left_out != LeftOut::Refuse => Err(INVALID.detail(
                "`prune` and `partial` are said when planning: the digest stands for them. Send them only with the \
                 whole document.",
            )),
            (None, None) if self.groups.is_none() => Ok(None),
            (Some(format), Some(policies)) => {
                let document = Document {
                    format,
                    groups: self.groups.clone(),
                    policies: policies.clone(),
                };
                document.checked(left_out).map(Some)
            }
            (Some(_) | None, None) | (None, Some(_)) => Err(INVALID.detail(format!(
                "Send `plan_sha256` alone, or with the whole document: `\"format\": {FORMAT}` and `policies`."
            ))),
        }
    }
}

/// The changes that were made.
#[derive(Debug, Serialize, ToSchema)]
struct AppliedView {
    applied: Vec<Applied>,
    /// Activations that wait for groups which this plan made or changed: plan the document again and apply that, when the
    /// groups are `ready`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    later: Vec<Change>,
}

/// Makes every change of a plan, or none. 409 `plan_changed` when it would no longer do what was planned. 422
/// `prune_required` when it leaves out what is there and was planned with neither `prune` nor `partial`; 422
/// `deletion_budget_exceeded` when it deletes more than `deletion_budget`. Applying a plan
/// whose changes were all made answers that nothing was applied. Activations start rollouts: this scope implies
/// `policy:write` and `policy:activate`; a document with groups needs `group:write` too. 409 `group_in_use` where a group that
/// would be deleted is used; 409 `illegal_state` with `Retry-After` while the members of a target's group are being found.
#[utoipa::path(
    post, path = "/apply", tag = "configuration", security(("oauth2" = ["config:write"])),
    request_body = ApplyRequest, responses((status = 200, body = AppliedView)),
)]
async fn apply_configuration(
    permit: Permit<ConfigWrite>,
    State(app): State<App>,
    key: IdempotencyKey,
    Body(request): Body<ApplyRequest>,
) -> Result<Response, Problem> {
    let order = Order {
        plan_sha256: request.plan_sha256,
        document: request.document()?,
        deletion_budget: request.deletion_budget.unwrap_or(DELETION_BUDGET),
        may_change_groups: permit.also_holds::<GroupWrite>(),
    };
    let has_deleted = Arc::new(AtomicBool::new(false));
    let (tenant, settings) = (permit.tenant(), app.settings.clone());
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let (again, approved_by) = (order.clone(), Arc::clone(&keys));
    let deleted = Arc::clone(&has_deleted);
    let answer = commit_once(&app, &permit, key, "POST /apply", &request, move |tx| {
        let Outcome { applied, later } = super::apply(tx, &keys, &settings, &order)?;
        let mut made = applied.iter().map(|made| made.change.action);
        deleted.store(
            made.any(|action| action == Action::DeleteGroup),
            Ordering::Relaxed,
        );
        Ok((StatusCode::OK, AppliedView { applied, later }))
    })
    .await;
    match answer {
        Ok(answer) => {
            if has_deleted.load(Ordering::Relaxed) {
                app.memberships.forget_tenant(tenant);
            }
            rollout::reload(&app, tenant).await?;
            app.nudges.groups.notify_one();
            app.nudges.rollouts.notify_one();
            Ok(answer)
        }
        Err(problem) => {
            if problem.kind == BUNDLE_CHANGED {
                super::report_tampering(&app, permit.author()).await?;
            }
            if problem.kind != APPROVAL_REQUIRED {
                return Err(problem);
            }
            let asked = audit::commit(&app, permit.author(), move |tx| {
                super::ask_people(tx, &approved_by, &again)
            })
            .await?;
            let ids: Vec<String> = asked.iter().map(uuid::Uuid::to_string).collect();
            let next = match ids.as_slice() {
                [] => "add the version first, and activate it by itself, which asks them".to_owned(),
                ids => format!("they were asked, as operation {}", ids.join(", ")),
            };
            Err(APPROVAL_REQUIRED.detail(format!("{} {next}. Then apply again.", problem.detail)))
        }
    }
}
