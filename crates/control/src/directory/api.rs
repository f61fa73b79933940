//! Routes about the directory: what people and programs read of it. Only SCIM changes it.

use axum::{Json, extract::State};
use muster_model::{ScimRequestId, UserGroupId, UserId};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::view::{
    self, DirectoryView, PersonDetail, PersonFilter, PersonView, RequestView, TeamMemberView, TeamView,
};
use crate::{
    App,
    access::{
        Permit,
        problem::Problem,
        request::{Params, PathOf},
        scope::DirectoryRead,
    },
    page::{Page, PageQuery, cursor, page_limit},
};

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_users))
        .routes(routes!(get_user))
        .routes(routes!(list_user_groups))
        .routes(routes!(get_user_group))
        .routes(routes!(list_user_group_members))
        .routes(routes!(get_directory))
        .routes(routes!(list_scim_requests))
}

/// Which people.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct UsersQuery {
    /// A part of the name.
    q: Option<String>,
    /// `active` or `inactive`.
    state: Option<String>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items on a page, at most 500.
    limit: Option<usize>,
}

#[utoipa::path(
    get, path = "/users", tag = "directory", params(UsersQuery), security(("oauth2" = ["directory:read"])),
    responses((status = 200, body = Page<PersonView>)),
)]
async fn list_users(
    permit: Permit<DirectoryRead>,
    State(app): State<App>,
    Params(query): Params<UsersQuery>,
) -> Result<Json<Page<PersonView>>, Problem> {
    let (tenant, limit) = (permit.tenant(), page_limit(query.limit));
    let after = cursor::<UserId>(query.cursor.as_deref())?;
    let filter = PersonFilter {
        text: query.q.unwrap_or_default(),
        state: query.state.unwrap_or_default(),
    };
    let page = app.db.read(permit.storage(), move |tx| {
        view::people(tx, tenant, &filter, after, limit)
    });
    Ok(Json(page.await?))
}

/// A person by id or `userName`, with groups and devices.
#[utoipa::path(
    get, path = "/users/{id}", tag = "directory", params(("id" = String, Path)),
    security(("oauth2" = ["directory:read"])), responses((status = 200, body = PersonDetail)),
)]
async fn get_user(
    permit: Permit<DirectoryRead>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
) -> Result<Json<PersonDetail>, Problem> {
    let tenant = permit.tenant();
    let found = app
        .db
        .read(permit.storage(), move |tx| view::person(tx, tenant, &id));
    Ok(Json(found.await?))
}

#[utoipa::path(
    get, path = "/user-groups", tag = "directory", params(PageQuery), security(("oauth2" = ["directory:read"])),
    responses((status = 200, body = Page<TeamView>)),
)]
async fn list_user_groups(
    permit: Permit<DirectoryRead>,
    State(app): State<App>,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<TeamView>>, Problem> {
    let (tenant, limit) = (permit.tenant(), page_limit(query.limit));
    let after = cursor::<UserGroupId>(query.cursor.as_deref())?;
    let page = app.db.read(permit.storage(), move |tx| {
        view::teams_page(tx, tenant, after, limit)
    });
    Ok(Json(page.await?))
}

#[utoipa::path(
    get, path = "/user-groups/{id}", tag = "directory", params(("id" = String, Path)),
    security(("oauth2" = ["directory:read"])), responses((status = 200, body = TeamView)),
)]
async fn get_user_group(
    permit: Permit<DirectoryRead>,
    State(app): State<App>,
    PathOf(id): PathOf<UserGroupId>,
) -> Result<Json<TeamView>, Problem> {
    let tenant = permit.tenant();
    let found = app
        .db
        .read(permit.storage(), move |tx| view::team(tx, tenant, id));
    Ok(Json(found.await?))
}

#[utoipa::path(
    get, path = "/user-groups/{id}/members", tag = "directory", params(("id" = String, Path), PageQuery),
    security(("oauth2" = ["directory:read"])), responses((status = 200, body = Page<TeamMemberView>)),
)]
async fn list_user_group_members(
    permit: Permit<DirectoryRead>,
    State(app): State<App>,
    PathOf(id): PathOf<UserGroupId>,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<TeamMemberView>>, Problem> {
    let (tenant, limit) = (permit.tenant(), page_limit(query.limit));
    let page = app.db.read(permit.storage(), move |tx| {
        view::team_members(tx, tenant, id, query.cursor.as_deref(), limit)
    });
    Ok(Json(page.await?))
}

/// How many people and groups there are, and which identity providers are connected.
#[utoipa::path(
    get, path = "/directory", tag = "directory", security(("oauth2" = ["directory:read"])),
    responses((status = 200, body = DirectoryView)),
)]
async fn get_directory(
    permit: Permit<DirectoryRead>,
    State(app): State<App>,
) -> Result<Json<DirectoryView>, Problem> {
    let (tenant, now, url) = (permit.tenant(), app.clock.now(), app.settings.admin_url.clone());
    let found = app
        .db
        .read(permit.storage(), move |tx| view::overview(tx, tenant, &url, now));
    Ok(Json(found.await?))
}

/// Which requests.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct RequestsQuery {
    /// Only those that were refused.
    #[serde(default)]
    refused: bool,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items on a page, at most 500.
    limit: Option<usize>,
}

/// What identity providers changed, and what was refused, newest first: a week, at most 5,000.
#[utoipa::path(
    get, path = "/directory/requests", tag = "directory", params(RequestsQuery),
    security(("oauth2" = ["directory:read"])), responses((status = 200, body = Page<RequestView>)),
)]
async fn list_scim_requests(
    permit: Permit<DirectoryRead>,
    State(app): State<App>,
    Params(query): Params<RequestsQuery>,
) -> Result<Json<Page<RequestView>>, Problem> {
    let (tenant, limit) = (permit.tenant(), page_limit(query.limit));
    let before = cursor::<ScimRequestId>(query.cursor.as_deref())?;
    let page = app.db.read(permit.storage(), move |tx| {
        view::requests(tx, tenant, query.refused, before, limit)
    });
    Ok(Json(page.await?))
}
