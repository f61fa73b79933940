//! Routes of roles, grants, people and sessions.

use axum::{Json, extract::State, http::StatusCode};
use muster_model::{SessionId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Grant, ListedSession, Person, Reviewed, Role, SessionSettings, Subject, Through, held, store};
use crate::{
    App,
    access::{
        Permit, explain, oauth, people,
        problem::{Explanation, INVALID, NOT_FOUND, Problem},
        request::{Body, Params, PathOf},
        scope::{self, AccessRead, AccessWrite, SessionWrite},
    },
    audit,
    page::{Page, PageQuery, page_limit},
};

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_roles))
        .routes(routes!(put_role, delete_role))
        .routes(routes!(list_grants, create_grant))
        .routes(routes!(revoke_grant))
        .routes(routes!(list_people))
        .routes(routes!(disable_person))
        .routes(routes!(enable_person))
        .routes(routes!(review_access))
        .routes(routes!(explain_access))
        .routes(routes!(list_sessions))
        .routes(routes!(end_session))
        .routes(routes!(end_sessions))
        .routes(routes!(get_session_settings, put_session_settings))
}

/// Everything of a short list.
#[derive(Debug, Serialize, ToSchema)]
struct Items<T> {
    items: Vec<T>,
}

/// A role.
#[derive(Debug, Serialize, ToSchema)]
struct RoleView {
    name: String,
    description: String,
    scopes: Vec<String>,
    /// Whether the program has it; a tenant's own can be changed.
    built_in: bool,
    updated_by: Option<String>,
    updated_at: Option<String>,
}

impl From<Role> for RoleView {
    fn from(role: Role) -> RoleView {
        RoleView {
            name: role.name,
            description: role.description,
            scopes: role.scopes.split_whitespace().map(str::to_owned).collect(),
            built_in: role.is_built_in,
            updated_by: role.updated_by,
            updated_at: role.updated_at.map(|at| at.to_string()),
        }
    }
}

#[utoipa::path(
    get, path = "/access/roles", tag = "access", operation_id = "list_roles", security(("oauth2" = ["access:read"])),
    responses((status = 200, body = Items<RoleView>)),
)]
async fn list_roles(
    permit: Permit<AccessRead>,
    State(app): State<App>,
) -> Result<Json<Items<RoleView>>, Problem> {
    let tenant = permit.tenant();
    let roles = app
        .db
        .read(permit.storage(), move |tx| super::all_roles(tx, tenant))
        .await?;
    Ok(Json(Items {
        items: roles.into_iter().map(RoleView::from).collect(),
    }))
}

/// A role as a tenant defines it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RoleRequest {
    /// At most 200 characters.
    #[serde(default)]
    description: String,
    /// What it gives; the caller holds all of it.
    scopes: Vec<String>,
}

/// Defines a role of the tenant, or defines it anew.
#[utoipa::path(
    put, path = "/access/roles/{name}", tag = "access", operation_id = "put_role", params(("name" = String, Path)),
    security(("oauth2" = ["access:write"])), request_body = RoleRequest, responses((status = 200, body = RoleView)),
)]
async fn put_role(
    permit: Permit<AccessWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
    Body(request): Body<RoleRequest>,
) -> Result<Json<RoleView>, Problem> {
    let author = permit.author().clone();
    let role = audit::commit(&app, &author, move |tx| {
        super::put_role(tx, &permit, (&name, &request.description), &request.scopes)
    });
    Ok(Json(role.await?.into()))
}

/// Removes a role of the tenant that nobody has.
#[utoipa::path(
    delete, path = "/access/roles/{name}", tag = "access", operation_id = "delete_role", params(("name" = String, Path)),
    security(("oauth2" = ["access:write"])), responses((status = 204)),
)]
async fn delete_role(
    permit: Permit<AccessWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
) -> Result<StatusCode, Problem> {
    let author = permit.author().clone();
    audit::commit(&app, &author, move |tx| super::delete_role(tx, &permit, &name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Who has, or is to have, a role: one of `person`, `client` and `group`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct GrantRequest {
    /// The role's name.
    role: String,
    /// A person who came from an identity provider, as `GET /access/people` names them.
    person: Option<String>,
    /// The id of a service account.
    client: Option<String>,
    /// A group as the identity provider names it in its claim; of the directory, its name or id.
    group: Option<String>,
    /// Of a group: the connection's name or id; or `directory`, for groups that SCIM brought.
    source: Option<String>,
    /// From when it counts no more.
    #[schema(value_type = Option<String>)]
    expires_at: Option<Timestamp>,
}

impl GrantRequest {
    fn subject(&self) -> Result<Subject, Problem> {
        match (&self.person, &self.client, &self.group, &self.source) {
            (Some(person), None, None, None) => Ok(Subject::Person(person.clone())),
            (None, Some(client), None, None) => client
                .parse()
                .map(Subject::Client)
                .map_err(|_| INVALID.detail("client is the id of a service account.")),
            (None, None, Some(group), Some(source)) => Ok(Subject::Group {
                source: source.clone(),
                name: group.clone(),
            }),
            _ => Err(INVALID.detail("Send one of person, client, or group with its source.")),
        }
    }
}

/// That somebody has a role.
#[derive(Debug, Serialize, ToSchema)]
struct GrantView {
    /// `person`, `client` or `group`.
    kind: &'static str,
    subject: String,
    /// Of a group of the directory: what people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Of a group: who says who is in it.
    source: Option<String>,
    role: String,
    granted_by: String,
    granted_at: String,
    expires_at: Option<String>,
}

impl From<Grant> for GrantView {
    fn from(grant: Grant) -> GrantView {
        GrantView {
            kind: grant.subject.kind(),
            subject: grant.subject.name(),
            name: None,
            source: Some(grant.subject.source().to_owned()).filter(|source| !source.is_empty()),
            role: grant.role,
            granted_by: grant.granted_by,
            granted_at: grant.granted_at.to_string(),
            expires_at: grant.expires_at.map(|end| end.to_string()),
        }
    }
}

#[utoipa::path(
    get, path = "/access/grants", tag = "access", operation_id = "list_grants", security(("oauth2" = ["access:read"])),
    responses((status = 200, body = Items<GrantView>)),
)]
async fn list_grants(
    permit: Permit<AccessRead>,
    State(app): State<App>,
) -> Result<Json<Items<GrantView>>, Problem> {
    let tenant = permit.tenant();
    let grants = app
        .db
        .read(permit.storage(), move |tx| {
            let mut views = Vec::new();
            for grant in super::grants(tx, tenant)? {
                let name = super::group_name(tx, tenant, &grant.subject)?;
                views.push(GrantView {
                    name,
                    ..GrantView::from(grant)
                });
            }
            Ok::<_, Problem>(views)
        })
        .await?;
    Ok(Json(Items { items: grants }))
}

/// Gives a role. Nobody gives one that can do more than they can.
#[utoipa::path(
    post, path = "/access/grants", tag = "access", operation_id = "create_grant", security(("oauth2" = ["access:write"])),
    request_body = GrantRequest, responses((status = 201, body = GrantView)),
)]
async fn create_grant(
    permit: Permit<AccessWrite>,
    State(app): State<App>,
    Body(request): Body<GrantRequest>,
) -> Result<(StatusCode, Json<GrantView>), Problem> {
    let subject = request.subject()?;
    let author = permit.author().clone();
    let grant = audit::commit(&app, &author, move |tx| {
        let subject = super::resolve(tx, subject.clone())?;
        super::grant(tx, &permit, subject, &request.role, request.expires_at)
    });
    Ok((StatusCode::CREATED, Json(grant.await?.into())))
}

/// Takes a role away; it is gone with the next request.
#[utoipa::path(
    post, path = "/access/grants/revoke", tag = "access", operation_id = "revoke_grant",
    security(("oauth2" = ["access:write"])), request_body = GrantRequest, responses((status = 204)),
)]
async fn revoke_grant(
    permit: Permit<AccessWrite>,
    State(app): State<App>,
    Body(request): Body<GrantRequest>,
) -> Result<StatusCode, Problem> {
    let subject = request.subject()?;
    let author = permit.author().clone();
    audit::commit(&app, &author, move |tx| {
        let subject = super::resolve(tx, subject.clone())?;
        super::revoke(tx, &permit, &subject, &request.role)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A person that is known.
#[derive(Debug, Serialize, ToSchema)]
struct PersonView {
    /// As the log names them.
    person: String,
    display_name: String,
    since: String,
    /// `link`, or the connection's id.
    comes_by: String,
    issuer: Option<String>,
    subject: Option<String>,
    /// The groups that the identity provider named when they last came.
    groups: Vec<String>,
    roles: Vec<Through>,
    scopes: Vec<String>,
    seen_at: Option<String>,
    disabled_at: Option<String>,
}

fn person_view(
    tx: &mut muster_storage::Tx,
    tenant: muster_model::TenantId,
    person: Person,
    now: Timestamp,
) -> Result<PersonView, Problem> {
    let source = person.connection.map(|id| id.to_string()).unwrap_or_default();
    let held = if person.outside.is_some() {
        held::of_groups(tx, tenant, Some(&person.name), (&source, &person.member_of), now)?
    } else {
        held::Held::default()
    };
    let (issuer, subject) = person
        .outside
        .map(|outside| (outside.issuer, outside.subject))
        .unzip();
    Ok(PersonView {
        person: person.name,
        display_name: person.display_name,
        since: person.since.to_string(),
        comes_by: if issuer.is_some() {
            source
        } else {
            "link".to_owned()
        },
        issuer,
        subject,
        groups: person.member_of,
        scopes: held.scopes.split_whitespace().map(str::to_owned).collect(),
        roles: held.through,
        seen_at: person.seen_at.map(|at| at.to_string()),
        disabled_at: person.disabled_at.map(|at| at.to_string()),
    })
}

#[utoipa::path(
    get, path = "/access/people", tag = "access", operation_id = "list_people", params(PageQuery),
    security(("oauth2" = ["access:read"])), responses((status = 200, body = Page<PersonView>)),
)]
async fn list_people(
    permit: Permit<AccessRead>,
    State(app): State<App>,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<PersonView>>, Problem> {
    let (tenant, limit, now) = (permit.tenant(), page_limit(query.limit), app.clock.now());
    let after = query.cursor.unwrap_or_default();
    let items = app.db.read(permit.storage(), move |tx| {
        let people = super::people(tx, tenant, &after, limit + 1)?;
        people
            .into_iter()
            .map(|person| person_view(tx, tenant, person, now))
            .collect::<Result<Vec<_>, Problem>>()
    });
    Ok(Json(Page::of(items.await?, limit, |person: &PersonView| {
        person.person.clone()
    })))
}

/// A person by name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PersonRequest {
    person: String,
}

/// How many sessions ended.
#[derive(Debug, Serialize, ToSchema)]
struct EndedView {
    sessions_ended: u64,
}

/// Lets a person in no more, and ends their sessions.
#[utoipa::path(
    post, path = "/access/people/disable", tag = "access", operation_id = "disable_person",
    security(("oauth2" = ["access:write"])), request_body = PersonRequest, responses((status = 200, body = EndedView)),
)]
async fn disable_person(
    permit: Permit<AccessWrite>,
    State(app): State<App>,
    Body(request): Body<PersonRequest>,
) -> Result<Json<EndedView>, Problem> {
    let ended = audit::commit(&app, permit.author(), move |tx| {
        super::disable_person(tx, &request.person)
    });
    Ok(Json(EndedView {
        sessions_ended: ended.await?,
    }))
}

/// Lets a person in again.
#[utoipa::path(
    post, path = "/access/people/enable", tag = "access", operation_id = "enable_person",
    security(("oauth2" = ["access:write"])), request_body = PersonRequest, responses((status = 204)),
)]
async fn enable_person(
    permit: Permit<AccessWrite>,
    State(app): State<App>,
    Body(request): Body<PersonRequest>,
) -> Result<StatusCode, Problem> {
    let author = permit.author().clone();
    audit::commit(&app, &author, move |tx| {
        super::enable_person(tx, &permit, &request.person)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The access review.
#[derive(Debug, Serialize, ToSchema)]
struct ReviewView {
    /// The most powerful first.
    items: Vec<Reviewed>,
    /// Whether these are all; a tenant with more than 2,000 of a kind sees the first.
    complete: bool,
}

/// Who may do what, through which role or group, and when they last did.
#[utoipa::path(
    get, path = "/access/review", tag = "access", operation_id = "review_access", security(("oauth2" = ["access:read"])),
    responses((status = 200, body = ReviewView)),
)]
async fn review_access(
    permit: Permit<AccessRead>,
    State(app): State<App>,
) -> Result<Json<ReviewView>, Problem> {
    let (tenant, now) = (permit.tenant(), app.clock.now());
    let found = app
        .db
        .read(permit.storage(), move |tx| super::review(tx, tenant, now));
    let (items, complete) = found.await?;
    Ok(Json(ReviewView { items, complete }))
}

/// What is asked: may this one do that.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ExplainQuery {
    /// The scopes that it needs, separated by commas or spaces.
    needs: String,
    /// The person who would do it.
    person: Option<String>,
    /// The id of the service account that would do it.
    client: Option<String>,
    /// The name of a trust in workloads: what their tokens may do.
    trust: Option<String>,
}

/// Whether somebody may do something, and why.
#[derive(Debug, Serialize, ToSchema)]
struct ExplainView {
    allowed: bool,
    /// How they come to what they hold.
    through: Vec<Through>,
    explanation: Explanation,
}

/// Why a person or service account may or may not do something, and who could change that.
#[utoipa::path(
    get, path = "/access/explain", tag = "access", operation_id = "explain_access", params(ExplainQuery),
    security(("oauth2" = ["access:read"])), responses((status = 200, body = ExplainView)),
)]
async fn explain_access(
    permit: Permit<AccessRead>,
    State(app): State<App>,
    Params(query): Params<ExplainQuery>,
) -> Result<Json<ExplainView>, Problem> {
    let (tenant, now) = (permit.tenant(), app.clock.now());
    let view = app.db.read(permit.storage(), move |tx| {
        let needs: Vec<&str> = query
            .needs
            .split([',', ' '])
            .filter(|name| !name.is_empty())
            .collect();
        if let Some(unknown) = needs.iter().find(|name| !scope::exists(name)) {
            return Err(INVALID.detail(format!("There is no scope {unknown}.")));
        }
        let held = match (&query.person, &query.client, &query.trust) {
            (Some(name), None, None) => {
                let person = store::person(tx, tenant, name)?
                    .ok_or_else(|| NOT_FOUND.detail("There is no such person."))?;
                let source = person.connection.map(|id| id.to_string()).unwrap_or_default();
                held::of_groups(tx, tenant, Some(name), (&source, &person.member_of), now)?
            }
            (None, Some(id), None) => {
                let id = id
                    .parse()
                    .map_err(|_| INVALID.detail("client is the id of a service account."))?;
                let client = people::client(tx, tenant, id)?;
                held::of_client(tx, &client, now)?
            }
            (None, None, Some(name)) => oauth::held_by_trust(tx, tenant, name, now)?,
            _ => return Err(INVALID.detail("Send person, client or trust.")),
        };
        let missing: Vec<&str> = needs
            .iter()
            .copied()
            .filter(|name| !scope::holds(&held.scopes, name))
            .collect();
        let mut explanation = explain::explanation(&needs, &missing, &held.roles());
        if !missing.is_empty() {
            explanation.ask = held::who_can_give(tx, tenant, &missing, now)?;
        }
        Ok(ExplainView {
            allowed: missing.is_empty(),
            through: held.through,
            explanation,
        })
    });
    Ok(Json(view.await?))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct SessionsQuery {
    /// Those of one person.
    person: Option<String>,
}

/// A session of a person in the console.
#[derive(Debug, Serialize, ToSchema)]
struct SessionView {
    #[schema(value_type = String)]
    id: SessionId,
    person: String,
    /// `link`, or how the person came otherwise.
    method: String,
    /// The account that made the link.
    made_by: Option<String>,
    /// The roles of the link.
    roles: Vec<String>,
    #[schema(value_type = Option<String>)]
    connection: Option<muster_model::ConnectionId>,
    created_at: String,
    seen_at: String,
    expires_at: String,
    /// When the person last proved who they are.
    authenticated_at: String,
    /// `console`, or `api`: a program holds it for the person.
    kind: String,
}

impl From<ListedSession> for SessionView {
    fn from(session: ListedSession) -> SessionView {
        SessionView {
            id: session.id,
            person: session.person,
            method: session.method,
            made_by: Some(session.made_by).filter(|by| !by.is_empty()),
            roles: session.roles.split_whitespace().map(str::to_owned).collect(),
            connection: session.connection,
            created_at: session.created_at.to_string(),
            seen_at: session.seen_at.to_string(),
            expires_at: session.expires_at.to_string(),
            authenticated_at: session.authenticated_at.to_string(),
            kind: session.kind,
        }
    }
}

/// Sessions that have not been ended, at most 500.
#[utoipa::path(
    get, path = "/access/sessions", tag = "access", operation_id = "list_sessions", params(SessionsQuery),
    security(("oauth2" = ["access:read"])), responses((status = 200, body = Items<SessionView>)),
)]
async fn list_sessions(
    permit: Permit<AccessRead>,
    State(app): State<App>,
    Params(query): Params<SessionsQuery>,
) -> Result<Json<Items<SessionView>>, Problem> {
    let tenant = permit.tenant();
    let found = app.db.read(permit.storage(), move |tx| {
        super::sessions(tx, tenant, query.person.as_deref())
    });
    Ok(Json(Items {
        items: found.await?.into_iter().map(SessionView::from).collect(),
    }))
}

/// Ends a session; its next request is refused.
#[utoipa::path(
    post, path = "/access/sessions/{id}/end", tag = "access", operation_id = "end_session", params(("id" = String, Path)),
    security(("oauth2" = ["session:write"])), responses((status = 204)),
)]
async fn end_session(
    permit: Permit<SessionWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<SessionId>,
) -> Result<StatusCode, Problem> {
    audit::commit(&app, permit.author(), move |tx| super::end_session(tx, id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends every session of a person.
#[utoipa::path(
    post, path = "/access/sessions/end", tag = "access", operation_id = "end_sessions",
    security(("oauth2" = ["session:write"])), request_body = PersonRequest, responses((status = 200, body = EndedView)),
)]
async fn end_sessions(
    permit: Permit<SessionWrite>,
    State(app): State<App>,
    Body(request): Body<PersonRequest>,
) -> Result<Json<EndedView>, Problem> {
    let ended = audit::commit(&app, permit.author(), move |tx| {
        super::end_sessions_of(tx, &request.person)
    });
    Ok(Json(EndedView {
        sessions_ended: ended.await?,
    }))
}

#[utoipa::path(
    get, path = "/access/session-settings", tag = "access", operation_id = "get_session_settings",
    security(("oauth2" = ["access:read"])), responses((status = 200, body = SessionSettings)),
)]
async fn get_session_settings(
    permit: Permit<AccessRead>,
    State(app): State<App>,
) -> Result<Json<SessionSettings>, Problem> {
    let tenant = permit.tenant();
    let found = app
        .db
        .read(permit.storage(), move |tx| super::session_settings(tx, tenant));
    Ok(Json(found.await?))
}

/// Sets the limits of the tenant's sessions; they count for sessions that are open as well, but for their length.
#[utoipa::path(
    put, path = "/access/session-settings", tag = "access", operation_id = "put_session_settings",
    security(("oauth2" = ["access:write"])), request_body = SessionSettings, responses((status = 200, body = SessionSettings)),
)]
async fn put_session_settings(
    permit: Permit<AccessWrite>,
    State(app): State<App>,
    Body(request): Body<SessionSettings>,
) -> Result<Json<SessionSettings>, Problem> {
    audit::commit(&app, permit.author(), move |tx| {
        super::set_session_settings(tx, &request)
    })
    .await?;
    Ok(Json(request))
}
