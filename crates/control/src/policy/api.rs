//! Routes of policies and their versions.

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use muster_model::{
    EntryId, PolicyId,
    rules::Rule,
    text::{Name, VersionLabel},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    BUNDLE_MEDIA_TYPE, PolicySummary, Version, catalogue,
    change::{self, Made},
    compile, push,
    rules::{self, Content},
};
use crate::{
    App,
    access::{
        Author, Permit,
        idempotency::{IdempotencyKey, commit_once},
        problem::{BUNDLE_CHANGED, CURSOR_INVALID, Problem, VERSION_EXISTS},
        request::{Body, Params, PathOf},
        scope::{PolicyRead, PolicyWrite},
    },
    audit,
    page::{Page, PageQuery, cursor, page_limit},
};

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_policies, create_policy))
        .routes(routes!(get_policy))
        .routes(routes!(list_versions, create_version))
        .routes(routes!(get_version))
        .routes(routes!(get_bundle))
        .merge(catalogue::router())
        .merge(compile::router())
        .merge(push::router())
}

/// A policy.
#[derive(Debug, Serialize, ToSchema)]
pub struct PolicyView {
    #[schema(value_type = String)]
    pub id: PolicyId,
    pub name: String,
    pub description: Option<String>,
    pub created_at: String,
    /// How many versions it has.
    pub versions: u64,
    /// Its newest version.
    pub newest_version: Option<String>,
    /// `git` when it was made or changed by applying a document: change it there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<String>,
    /// Since when it is put away: not listed, not activated, with no new versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archived_at: Option<String>,
}

impl From<PolicySummary> for PolicyView {
    fn from(summary: PolicySummary) -> PolicyView {
        PolicyView {
            id: summary.policy.id,
            name: summary.policy.name,
            description: summary.policy.description,
            created_at: summary.policy.created_at.to_string(),
            versions: summary.versions,
            newest_version: summary.newest,
            managed_by: summary.policy.managed_by,
            archived_at: summary.policy.archived_at.map(|at| at.to_string()),
        }
    }
}

/// A version of a policy: immutable.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PolicyVersionView)]
pub struct VersionView {
    #[schema(value_type = String)]
    pub policy_id: PolicyId,
    #[schema(value_type = String)]
    pub version: VersionLabel,
    /// The place among the policy's versions, from 1.
    pub sequence: u64,
    /// SHA-256 of the bundle, lower hex.
    pub sha256: String,
    /// The log entry of its making.
    #[schema(value_type = String)]
    pub entry_id: EntryId,
    pub created_by: String,
    pub created_at: String,
    #[schema(value_type = Object)]
    pub settings: Box<RawValue>,
    #[schema(value_type = Vec<Object>)]
    pub rules: Box<RawValue>,
}

impl VersionView {
    fn of(version: Version) -> Result<VersionView, Problem> {
        Ok(VersionView {
            policy_id: version.policy,
            version: version.version,
            sequence: version.sequence,
            sha256: version.bundle_sha256,
            entry_id: version.entry,
            created_by: version.created_by,
            created_at: version.created_at.to_string(),
            settings: RawValue::from_string(version.settings).map_err(Problem::internal)?,
            rules: RawValue::from_string(version.rules).map_err(Problem::internal)?,
        })
    }
}

#[utoipa::path(
    get, path = "/policies", tag = "policies", params(PageQuery), security(("oauth2" = ["policy:read"])),
    responses((status = 200, body = Page<PolicyView>)),
)]
async fn list_policies(
    permit: Permit<PolicyRead>,
    State(app): State<App>,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<PolicyView>>, Problem> {
    let limit = page_limit(query.limit);
    let after = cursor::<PolicyId>(query.cursor.as_deref())?.unwrap_or(PolicyId::from_uuid(Uuid::nil()));
    let tenant = permit.tenant();
    let policies = app
        .db
        .read(permit.storage(), move |tx| {
            super::list(tx, tenant, after, limit + 1)
        })
        .await?;
    let items = policies.into_iter().map(PolicyView::from).collect();
    Ok(Json(Page::of(items, limit, |policy: &PolicyView| {
        policy.id.to_string()
    })))
}

/// A new policy.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PolicyRequest {
    /// Unique in the tenant; usable in place of the id.
    #[schema(value_type = String)]
    name: Name,
    description: Option<String>,
}

/// The id of a new policy.
#[derive(Debug, Serialize, ToSchema)]
struct CreatedPolicy {
    #[schema(value_type = String)]
    id: PolicyId,
}

#[utoipa::path(
    post, path = "/policies", tag = "policies", security(("oauth2" = ["policy:write"])),
    request_body = PolicyRequest, responses((status = 201, body = CreatedPolicy)),
)]
async fn create_policy(
    permit: Permit<PolicyWrite>,
    State(app): State<App>,
    key: IdempotencyKey,
    Body(request): Body<PolicyRequest>,
) -> Result<Response, Problem> {
    rules::check_policy(&request.name, request.description.as_deref())?;
    let (name, description) = (request.name.clone(), request.description.clone());
    commit_once(&app, &permit, key, "POST /policies", &request, move |tx| {
        let policy = change::create(tx, &name, description.clone())?;
        Ok((StatusCode::CREATED, CreatedPolicy { id: policy.id }))
    })
    .await
}

#[utoipa::path(
    get, path = "/policies/{id}", tag = "policies", params(("id" = String, Path, description = "Id or name")),
    security(("oauth2" = ["policy:read"])), responses((status = 200, body = PolicyView)),
)]
async fn get_policy(
    permit: Permit<PolicyRead>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
) -> Result<Json<PolicyView>, Problem> {
    let tenant = permit.tenant();
    let summary = app
        .db
        .read(permit.storage(), move |tx| {
            let policy = super::resolve(tx, tenant, &id)?;
            let newest = super::versions(tx, tenant, policy.id, u64::MAX, 1)?.pop();
            let versions = newest.as_ref().map_or(0, |newest| newest.sequence);
            let newest = newest.map(|newest| newest.version.to_string());
            Ok::<_, Problem>(PolicySummary {
                policy,
                versions,
                newest,
            })
        })
        .await?;
    Ok(Json(summary.into()))
}

#[utoipa::path(
    get, path = "/policies/{id}/versions", tag = "policies",
    params(("id" = String, Path, description = "Id or name"), PageQuery),
    security(("oauth2" = ["policy:read"])), responses((status = 200, body = Page<VersionView>)),
)]
async fn list_versions(
    permit: Permit<PolicyRead>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<VersionView>>, Problem> {
    let limit = page_limit(query.limit);
    let before = cursor::<u64>(query.cursor.as_deref())?.unwrap_or(u64::MAX);
    if before == 0 {
        return Err(CURSOR_INVALID.detail("Send next_cursor of the page before, or no cursor."));
    }
    let tenant = permit.tenant();
    let versions = app
        .db
        .read(permit.storage(), move |tx| {
            let policy = super::resolve(tx, tenant, &id)?;
            super::versions(tx, tenant, policy.id, before, limit + 1)
        })
        .await?;
    let items = versions
        .into_iter()
        .map(VersionView::of)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Json(Page::of(items, limit, |version: &VersionView| {
        version.sequence.to_string()
    })))
}

/// A new version of a policy.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct VersionRequest {
    /// For example `2026.05`.
    #[schema(value_type = String)]
    version: VersionLabel,
    /// Setting keys of `GET /settings` with their values.
    #[schema(value_type = Object)]
    settings: Box<RawValue>,
    /// Conditions, for example `{"name":"os","expression":"os.version >= version(\"12\")"}` or
    /// `{"name":"os","check":{"fact":"os.version","op":"ge","value":"12"}}`.
    #[schema(value_type = Option<Vec<Object>>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rules: Option<Vec<Rule>>,
}

/// A version that now exists.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CreatedVersion {
    #[schema(value_type = String)]
    policy_id: PolicyId,
    #[schema(value_type = String)]
    version: VersionLabel,
    sequence: u64,
    /// SHA-256 of the bundle, lower hex.
    sha256: String,
}

impl From<Version> for CreatedVersion {
    fn from(version: Version) -> CreatedVersion {
        CreatedVersion {
            policy_id: version.policy,
            version: version.version,
            sequence: version.sequence,
            sha256: version.bundle_sha256,
        }
    }
}

/// Makes a version: 201 the first time, 200 with the same answer when it exists with the same content.
#[utoipa::path(
    post, path = "/policies/{id}/versions", tag = "policies",
    params(("id" = String, Path, description = "Id or name")), security(("oauth2" = ["policy:write"])),
    request_body = VersionRequest,
    responses((status = 201, body = CreatedVersion), (status = 200, body = CreatedVersion)),
)]
async fn create_version(
    permit: Permit<PolicyWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
    key: IdempotencyKey,
    Body(request): Body<VersionRequest>,
) -> Result<Response, Problem> {
    let content = rules::read_content(
        request.settings.get(),
        request.rules.as_deref().unwrap_or_default(),
    )?;
    let label = request.version.clone();
    let made = commit_once(
        &app,
        &permit,
        key,
        "POST /policies/{id}/versions",
        &(&id, &request),
        {
            let (id, label, content) = (id.clone(), label.clone(), content.clone());
            move |tx| {
                let tenant = tx.tenant();
                let policy = super::resolve(tx, tenant, &id)?;
                Ok(match change::make_version(tx, &policy, &label, &content)? {
                    Made::Created(version) => (StatusCode::CREATED, CreatedVersion::from(version)),
                    Made::Found(version) => (StatusCode::OK, CreatedVersion::from(version)),
                })
            }
        },
    )
    .await;
    if let Err(problem) = &made
        && problem.kind == VERSION_EXISTS
    {
        record_refusal(&app, permit.author(), id, label, content).await?;
    }
    made
}

/// An attempt to change a version is itself logged, although it changed nothing.
async fn record_refusal(
    app: &App,
    author: &Author,
    policy: String,
    label: VersionLabel,
    content: Content,
) -> Result<(), Problem> {
    let tenant = author.tenant;
    audit::commit(app, author, move |tx| {
        let policy = super::resolve(tx, tenant, &policy)?;
        let version = super::version(tx, tenant, policy.id, &label)?;
        let detail = serde_json::json!({
            "policy_id": policy.id, "version": label, "bundle_sha256": version.bundle_sha256,
            "offered_content_sha256": content.sha256,
        });
        tx.record("policy.change_refused", ("policy", policy.id.to_string()), detail)
            .map(drop)
    })
    .await
}

#[utoipa::path(
    get, path = "/policies/{id}/versions/{version}", tag = "policies",
    params(("id" = String, Path, description = "Id or name"), ("version" = String, Path)),
    security(("oauth2" = ["policy:read"])), responses((status = 200, body = VersionView)),
)]
async fn get_version(
    permit: Permit<PolicyRead>,
    State(app): State<App>,
    PathOf((id, label)): PathOf<(String, VersionLabel)>,
) -> Result<Json<VersionView>, Problem> {
    let tenant = permit.tenant();
    let version = app
        .db
        .read(permit.storage(), move |tx| {
            let policy = super::resolve(tx, tenant, &id)?;
            super::version(tx, tenant, policy.id, &label)
        })
        .await?;
    Ok(Json(VersionView::of(version)?))
}

/// The signed bundle, `policy.zip`. It never changes: `ETag` is its SHA-256.
#[utoipa::path(
    get, path = "/policies/{id}/versions/{version}/bundle", tag = "policies",
    params(("id" = String, Path, description = "Id or name"), ("version" = String, Path)),
    security(("oauth2" = ["policy:read"])),
    responses((status = 200, body = Vec<u8>, content_type = "application/zip"), (status = 304)),
)]
async fn get_bundle(
    permit: Permit<PolicyRead>,
    State(app): State<App>,
    PathOf((id, label)): PathOf<(String, VersionLabel)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = permit.tenant();
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let (version, bundle) = app
        .db
        .read(permit.storage(), move |tx| {
            let policy = super::resolve(tx, tenant, &id)?;
            let version = super::version(tx, tenant, policy.id, &label)?;
            let bundle = super::bundle(tx, &keys, &version);
            Ok::<_, Problem>((version, bundle))
        })
        .await?;
    let bytes = match bundle {
        Ok(bytes) => bytes,
        Err(problem) => {
            if problem.kind == BUNDLE_CHANGED {
                super::report_tampering(&app, permit.author(), &version, &problem.detail).await?;
            }
            return Err(problem);
        }
    };
    let etag = format!("\"{}\"", version.bundle_sha256);
    let known = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .any(|value| etag_matches(value, &etag));
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let mut response = Bytes::from(bytes).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(BUNDLE_MEDIA_TYPE));
        response
    };
    let headers = response.headers_mut();
    headers.insert(
        header::ETAG,
        HeaderValue::from_str(&etag).map_err(Problem::internal)?,
    );
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=31536000, immutable"),
    );
    Ok(response)
}

/// Weak comparison of `If-None-Match` (RFC 9110 §13.1.2).
fn etag_matches(value: &HeaderValue, etag: &str) -> bool {
    let Ok(value) = value.to_str() else { return false };
    value
        .split(',')
        .map(|part| part.trim().trim_start_matches("W/"))
        .any(|part| part == "*" || part == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_matches_in_a_list_and_weakly() {
        let check = |value: &'static str| etag_matches(&HeaderValue::from_static(value), "\"ab\"");
        assert!(check("\"ab\""));
        assert!(check("\"x\", W/\"ab\""));
        assert!(check("*"));
        assert!(!check("\"a\""));
        assert!(!check("ab"));
    }
}
