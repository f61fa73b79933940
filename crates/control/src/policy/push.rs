//! Bundles that were built and signed elsewhere, for example in a pipeline that holds the policy key.

use axum::{
    Json,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use muster_trust::bundle;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    BUNDLE_MEDIA_TYPE,
    api::CreatedVersion,
    change::{self, Made},
    rules::{self, Pushed, RefusedBundle},
};
use crate::{
    App,
    access::{
        Author, Permit,
        problem::{BODY_TOO_LARGE, BUNDLE_REFUSED, Problem, UNSUPPORTED_MEDIA_TYPE, VERSION_EXISTS},
        request::PathOf,
        scope::PolicyWrite,
    },
    audit,
};

/// The largest bundle that is taken.
pub const BUNDLE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(push_bundle))
        .layer(DefaultBodyLimit::max(BUNDLE_BYTES_MAX))
}

/// Makes a version from a bundle that was built and signed elsewhere: 201 the first time, 200 when this very bundle is
/// there. It is checked as devices check it: one canonical archive, signed by the tenant's policy keys, for this tenant
/// and policy, with the policy's next sequence. Pushing reaches no device.
#[utoipa::path(
    post, path = "/policies/{id}/bundles", tag = "policies",
    params(("id" = String, Path, description = "Id or name")), security(("oauth2" = ["policy:write"])),
    request_body(content = Vec<u8>, content_type = "application/zip"),
    responses((status = 201, body = CreatedVersion), (status = 200, body = CreatedVersion)),
)]
async fn push_bundle(
    permit: Permit<PolicyWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
    request: Request,
) -> Result<Response, Problem> {
    let bytes = read_body(request).await?;
    let tenant = permit.tenant();
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let named = id.clone();
    let policy = app
        .db
        .read(permit.storage(), move |tx| super::resolve(tx, tenant, &named))
        .await?;
    let open = bundle::open(&bytes).map_err(|error| BUNDLE_REFUSED.detail(format!("{error}.")))?;
    let pushed = match rules::check_pushed(open, &keys, &policy, app.clock.now()) {
        Ok(pushed) => pushed,
        Err(RefusedBundle::Content(problem)) => return Err(problem),
        Err(RefusedBundle::NotOurs { why, sha256 }) => {
            let detail =
                serde_json::json!({"policy_id": policy.id, "offered_bundle_sha256": sha256, "why": why});
            record_refusal(&app, permit.author(), "policy.bundle_refused", &policy, detail).await?;
            return Err(BUNDLE_REFUSED.detail(format!("{why}. The attempt is in the log.")));
        }
    };
    let made = audit::commit(&app, permit.author(), {
        let (pushed, bytes) = (pushed.clone(), bytes.clone());
        move |tx| {
            let tenant = tx.tenant();
            let policy = super::resolve(tx, tenant, &id)?;
            change::accept_version(tx, &policy, &pushed, &bytes)
        }
    })
    .await;
    match made {
        Ok(Made::Created(version)) => {
            Ok((StatusCode::CREATED, Json(CreatedVersion::from(version))).into_response())
        }
        Ok(Made::Found(version)) => Ok((StatusCode::OK, Json(CreatedVersion::from(version))).into_response()),
        Err(problem) => {
            if problem.kind == VERSION_EXISTS {
                let detail = refusal_detail(&app, &permit, &policy, &pushed).await?;
                record_refusal(&app, permit.author(), "policy.change_refused", &policy, detail).await?;
            }
            Err(problem)
        }
    }
}

/// Reads the body after authorization, when it says that it is a bundle.
async fn read_body(request: Request) -> Result<Bytes, Problem> {
    let media_type = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(|value| {
            value
                .split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .to_ascii_lowercase()
        });
    if media_type.as_deref() != Some(BUNDLE_MEDIA_TYPE) {
        return Err(UNSUPPORTED_MEDIA_TYPE.detail(format!(
            "Send the bundle itself with the header Content-Type: {BUNDLE_MEDIA_TYPE}."
        )));
    }
    Bytes::from_request(request, &())
        .await
        .map_err(|_| BODY_TOO_LARGE.detail(format!("A bundle has at most {BUNDLE_BYTES_MAX} bytes.")))
}

/// What was offered in place of which stored version.
async fn refusal_detail(
    app: &App,
    permit: &Permit<PolicyWrite>,
    policy: &super::Policy,
    pushed: &Pushed,
) -> Result<serde_json::Value, Problem> {
    let (tenant, id, label) = (permit.tenant(), policy.id, pushed.open.manifest.version.clone());
    let stored = app
        .db
        .read(permit.storage(), move |tx| super::version(tx, tenant, id, &label))
        .await?;
    Ok(serde_json::json!({
        "policy_id": policy.id, "version": stored.version, "bundle_sha256": stored.bundle_sha256,
        "offered_content_sha256": pushed.content.sha256, "offered_bundle_sha256": pushed.open.sha256,
    }))
}

/// A refused attempt is itself logged, although it changed nothing.
async fn record_refusal(
    app: &App,
    author: &Author,
    action: &'static str,
    policy: &super::Policy,
    detail: serde_json::Value,
) -> Result<(), Problem> {
    let object = policy.id.to_string();
    audit::commit(app, author, move |tx| {
        tx.record(action, ("policy", object.clone()), detail.clone())
            .map(drop)
    })
    .await
}
