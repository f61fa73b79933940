//! Routes of groups.

use axum::{Json, extract::State, http::StatusCode, response::Response};
use muster_model::{
    DeviceId, GroupId,
    text::{Description, Name},
};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Explanation, GroupView, Member, NewGroup, Preview, PreviewRequest, change};
use crate::{
    App,
    access::{
        Permit,
        idempotency::{IdempotencyKey, commit_once},
        problem::Problem,
        request::{Body, Params, PathOf},
        scope::{GroupRead, GroupWrite},
    },
    audit, devices,
    page::{Page, PageQuery, cursor, page_limit},
};

/// Members that a preview shows unless asked for another number, and at most.
const SHOWN: usize = 20;
const SHOWN_MAX: usize = 500;

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_groups, create_group))
        .routes(routes!(preview_group))
        .routes(routes!(get_group, delete_group))
        .routes(routes!(list_members))
        .routes(routes!(explain_member))
}

/// A new group.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct GroupRequest {
    /// Unique in the tenant; usable in place of the id.
    #[schema(value_type = String)]
    name: Name,
    #[schema(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<Description>,
    /// An expression; members are the active devices for which it is true…
    include: String,
    /// …and for which this one is not true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exclude: Option<String>,
}

impl GroupRequest {
    fn new_group(&self) -> NewGroup {
        NewGroup {
            name: self.name.clone(),
            description: self.description.clone(),
            include: self.include.clone(),
            exclude: self.exclude.clone(),
        }
    }
}

/// A change of a group: what is left out stays, `null` removes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GroupPatch {
    #[schema(value_type = Option<String>)]
    name: Option<Name>,
    #[schema(value_type = Option<String>)]
    #[serde(deserialize_with = "present")]
    description: Option<Option<Description>>,
    include: Option<String>,
    #[schema(value_type = Option<String>)]
    #[serde(deserialize_with = "present")]
    exclude: Option<Option<String>>,
}

/// Tells `null` from what is not there.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl From<NewGroup> for GroupPatch {
    fn from(group: NewGroup) -> GroupPatch {
        GroupPatch {
            name: Some(group.name),
            description: Some(group.description),
            include: Some(group.include),
            exclude: Some(group.exclude),
        }
    }
}

impl GroupPatch {
    /// The group as it is to be.
    pub fn wanted(&self, group: &super::Group) -> Result<NewGroup, Problem> {
        let stored = |text: &Option<String>| {
            let text = text.as_deref().map(Description::parse);
            text.transpose().map_err(Problem::internal)
        };
        Ok(NewGroup {
            name: match &self.name {
                Some(name) => name.clone(),
                None => Name::parse(&group.name).map_err(Problem::internal)?,
            },
            description: match &self.description {
                Some(description) => description.clone(),
                None => stored(&group.description)?,
            },
            include: self.include.clone().unwrap_or_else(|| group.include.clone()),
            exclude: self.exclude.clone().unwrap_or_else(|| group.exclude.clone()),
        })
    }
}

#[utoipa::path(
    get, path = "/groups", tag = "groups", params(PageQuery), security(("oauth2" = ["group:read"])),
    responses((status = 200, body = Page<GroupView>)),
)]
async fn list_groups(
    permit: Permit<GroupRead>,
    State(app): State<App>,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<GroupView>>, Problem> {
    let limit = page_limit(query.limit);
    let after = cursor::<GroupId>(query.cursor.as_deref())?;
    let tenant = permit.tenant();
    let items = app
        .db
        .read(permit.storage(), move |tx| {
            let groups = super::list(tx, tenant, after, limit + 1)?;
            let views = groups.into_iter().map(|group| GroupView::read(tx, tenant, group));
            views.collect::<Result<Vec<_>, Problem>>()
        })
        .await?;
    Ok(Json(Page::of(items, limit, |group: &GroupView| {
        group.id.to_string()
    })))
}

#[utoipa::path(
    post, path = "/groups", tag = "groups", params(("Idempotency-Key" = Option<String>, Header)),
    security(("oauth2" = ["group:write"])), request_body = GroupRequest, responses((status = 201, body = GroupView)),
)]
async fn create_group(
    permit: Permit<GroupWrite>,
    State(app): State<App>,
    key: IdempotencyKey,
    Body(request): Body<GroupRequest>,
) -> Result<Response, Problem> {
    let new = request.new_group();
    let answer = commit_once(&app, &permit, key, "POST /groups", &request, move |tx| {
        let group = super::create(tx, &new)?;
        Ok((StatusCode::CREATED, GroupView::of(group, Vec::new())))
    })
    .await?;
    app.nudges.groups.notify_one();
    Ok(answer)
}

#[utoipa::path(
    get, path = "/groups/{id}", tag = "groups", params(("id" = String, Path, description = "Id or name")),
    security(("oauth2" = ["group:read"])), responses((status = 200, body = GroupView)),
)]
async fn get_group(
    permit: Permit<GroupRead>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
) -> Result<Json<GroupView>, Problem> {
    let tenant = permit.tenant();
    let view = app
        .db
        .read(permit.storage(), move |tx| {
            let group = super::resolve(tx, tenant, &id)?;
            GroupView::read(tx, tenant, group)
        })
        .await?;
    Ok(Json(view))
}

#[utoipa::path(
    delete, path = "/groups/{id}", tag = "groups", params(("id" = String, Path, description = "Id or name")),
    security(("oauth2" = ["group:write"])), responses((status = 204)),
)]
async fn delete_group(
    permit: Permit<GroupWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
) -> Result<StatusCode, Problem> {
    audit::commit(&app, permit.author(), move |tx| {
        let tenant = tx.tenant();
        let group = super::resolve(tx, tenant, &id)?;
        super::delete(tx, &group)
    })
    .await?;
    app.memberships.forget_tenant(permit.tenant());
    app.nudges.groups.notify_one();
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(
    get, path = "/groups/{id}/members", tag = "groups",
    params(("id" = String, Path, description = "Id or name"), PageQuery),
    security(("oauth2" = ["group:read"])), responses((status = 200, body = Page<Member>)),
)]
async fn list_members(
    permit: Permit<GroupRead>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<Member>>, Problem> {
    let limit = page_limit(query.limit);
    let after = cursor::<DeviceId>(query.cursor.as_deref())?;
    let tenant = permit.tenant();
    let items = app
        .db
        .read(permit.storage(), move |tx| {
            let group = super::resolve(tx, tenant, &id)?;
            super::members(tx, tenant, group.id, after, limit + 1)
        })
        .await?;
    Ok(Json(Page::of(items, limit, |member: &Member| {
        member.id.to_string()
    })))
}

/// A definition to try.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TryRequest {
    include: String,
    #[serde(default)]
    exclude: Option<String>,
    /// How many members to show; 20 unless given, at most 500.
    #[serde(default)]
    limit: Option<usize>,
}

#[utoipa::path(
    post, path = "/groups/preview", tag = "groups", security(("oauth2" = ["group:read"])),
    request_body = TryRequest, responses((status = 200, body = Preview)),
)]
async fn preview_group(
    permit: Permit<GroupRead>,
    State(app): State<App>,
    Body(request): Body<TryRequest>,
) -> Result<Json<Preview>, Problem> {
    // Before a transaction is begun for it.
    change::read_pair(&request.include, request.exclude.as_deref())?;
    let request = PreviewRequest {
        include: request.include,
        exclude: request.exclude,
        shown: request.limit.unwrap_or(SHOWN).min(SHOWN_MAX),
    };
    let (tenant, now) = (permit.tenant(), app.clock.now());
    let preview = app
        .db
        .read(permit.storage(), move |tx| {
            super::preview(tx, tenant, &request, now)
        })
        .await?;
    Ok(Json(preview))
}

/// Which device to explain.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ExplainQuery {
    /// Id, unique name or hardware UUID.
    device: String,
}

#[utoipa::path(
    get, path = "/groups/{id}/explain", tag = "groups",
    params(("id" = String, Path, description = "Id or name"), ExplainQuery),
    security(("oauth2" = ["group:read"])), responses((status = 200, body = Explanation)),
)]
async fn explain_member(
    permit: Permit<GroupRead>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
    Params(query): Params<ExplainQuery>,
) -> Result<Json<Explanation>, Problem> {
    let (tenant, now) = (permit.tenant(), app.clock.now());
    let explanation = app
        .db
        .read(permit.storage(), move |tx| {
            let group = super::resolve(tx, tenant, &id)?;
            let device = devices::resolve(tx, tenant, &query.device)?;
            super::explain(tx, tenant, &group, &device, now)
        })
        .await?;
    Ok(Json(explanation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_removes_and_silence_leaves() {
        let patch: GroupPatch = serde_json::from_str(r#"{"exclude":null}"#).expect("it is a patch");
        assert_eq!((patch.exclude, patch.description), (Some(None), None));
        assert!(serde_json::from_str::<GroupPatch>(r#"{"members":1}"#).is_err());
    }
}
