//! Routes of access: API clients, sign-in links.

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use muster_model::{ClientId, Name};
use muster_trust::entry::ActorKind;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    Client, Permit, oauth, people,
    problem::{FORBIDDEN, ILLEGAL_STATE, INVALID, LAST_CLIENT, NAME_TAKEN, NOT_FOUND, Problem},
    request::{Body, Params, PathOf},
    scope::{self, ClientRead, ClientWrite},
    store,
};
use crate::{
    App, audit,
    page::{Page, PageQuery, cursor, page_limit},
    secrets,
};

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_clients, create_client))
        .routes(routes!(delete_client))
        .routes(routes!(rotate_client_secret))
        .routes(routes!(create_console_link))
        .merge(super::scim_tokens::router())
        .merge(people::router())
        .merge(super::connection::router())
        .merge(super::routing::router())
        .merge(super::visits::router())
        .merge(oauth::router())
}

/// An API client.
#[derive(Debug, Serialize, ToSchema)]
struct ClientView {
    #[schema(value_type = String)]
    client_id: ClientId,
    name: String,
    scopes: Vec<String>,
    /// Whether it has a secret. Otherwise it has keys, or trusts bring its tokens.
    has_secret: bool,
    created_at: String,
    disabled_at: Option<String>,
}

impl From<Client> for ClientView {
    fn from(client: Client) -> ClientView {
        ClientView {
            client_id: client.id,
            name: client.name,
            scopes: client.scopes.split_whitespace().map(str::to_owned).collect(),
            has_secret: !client.secret_sha256.is_empty(),
            created_at: client.created_at.to_string(),
            disabled_at: client.disabled_at.map(|at| at.to_string()),
        }
    }
}

#[utoipa::path(
    get, path = "/clients", tag = "clients", params(PageQuery), security(("oauth2" = ["client:read"])),
    responses((status = 200, body = Page<ClientView>)),
)]
async fn list_clients(
    permit: Permit<ClientRead>,
    State(app): State<App>,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<ClientView>>, Problem> {
    let limit = page_limit(query.limit);
    let after = cursor::<ClientId>(query.cursor.as_deref())?.unwrap_or(ClientId::from_uuid(Uuid::nil()));
    let tenant = permit.tenant();
    let rows = app
        .db
        .read(permit.storage(), move |tx| {
            Ok::<_, Problem>(store::clients(tx, tenant, after, limit as i64 + 1)?)
        })
        .await?;
    let items = rows.into_iter().map(ClientView::from).collect();
    Ok(Json(Page::of(items, limit, |client: &ClientView| {
        client.client_id.to_string()
    })))
}

/// A new API client.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewClientRequest {
    #[schema(value_type = String)]
    name: Name,
    #[serde(default)]
    scopes: Vec<String>,
    /// Roles that it has besides: what they give follows when a role changes.
    #[serde(default)]
    roles: Vec<String>,
    /// Whether it gets no secret: it signs with keys of its own, or trusts bring its tokens.
    #[serde(default)]
    without_secret: bool,
}

/// A new client's credentials. The secret is shown this once.
#[derive(Debug, Serialize, ToSchema)]
struct NewClientView {
    #[schema(value_type = String)]
    client_id: ClientId,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<String>,
}

#[utoipa::path(
    post, path = "/clients", tag = "clients", security(("oauth2" = ["client:write"])),
    request_body = NewClientRequest, responses((status = 201, body = NewClientView)),
)]
async fn create_client(
    permit: Permit<ClientWrite>,
    State(app): State<App>,
    Body(request): Body<NewClientRequest>,
) -> Result<Response, Problem> {
    if request.scopes.is_empty() && request.roles.is_empty() || request.scopes.len() > scope::ALL.len() {
        return Err(INVALID.detail(
            "Name the scopes that the client may use, for example device:read, or its roles, for example read_only.",
        ));
    }
    if let Some(unknown) = request.scopes.iter().find(|name| !scope::exists(name)) {
        return Err(INVALID.detail(format!(
            "There is no scope {unknown}. The OAuth metadata lists them."
        )));
    }
    permit.require_held(request.scopes.iter().map(String::as_str))?;
    let scopes = scope::union(request.scopes.iter().map(String::as_str));
    let (tenant, author) = (permit.tenant(), permit.author().clone());
    // No idempotency key: its stored answer would be a second copy of the secret.
    let client = audit::commit(&app, &author, move |tx| {
        if store::client_by_name(tx, tenant, request.name.as_str())?.is_some() {
            return Err(NAME_TAKEN.detail("A client of this tenant has this name. Choose another."));
        }
        let client = if request.without_secret {
            super::insert_client_without_secret(tx, tenant, request.name.as_str(), &scopes)?
        } else {
            super::insert_client(tx, tenant, request.name.as_str(), &scopes)?
        };
        for role in &request.roles {
            people::grant(tx, &permit, people::Subject::Client(client.id), role, None)?;
        }
        Ok(client)
    })
    .await?;
    let view = NewClientView {
        client_id: client.id,
        client_secret: Some(client.secret).filter(|secret| !secret.is_empty()),
    };
    Ok(uncached((StatusCode::CREATED, Json(view)).into_response()))
}

#[utoipa::path(
    delete, path = "/clients/{id}", tag = "clients", params(("id" = String, Path)),
    security(("oauth2" = ["client:write"])), responses((status = 204)),
)]
async fn delete_client(
    permit: Permit<ClientWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<ClientId>,
) -> Result<StatusCode, Problem> {
    let (tenant, author) = (permit.tenant(), permit.author().clone());
    audit::commit(&app, &author, move |tx| {
        let client =
            store::client(tx, id)?.filter(|client| client.tenant == tenant && client.disabled_at.is_none());
        let Some(client) = client else {
            return Err(NOT_FOUND.detail("There is no client with this id."));
        };
        // Nobody takes away what they could not give.
        let at = tx.at();
        let held = people::of_client(tx, &client, at)?;
        permit.require_held(held.scopes.split(' '))?;
        let every = scope::every();
        // Of two removals at once, the second one waits here and then counts what the first one left.
        store::hold_administrators(tx, tenant, &every)?;
        if client.scopes == every && store::other_administrators(tx, tenant, id, &every)? == 0 {
            return Err(
                LAST_CLIENT.detail("This is the last client that holds every scope. Make another one first.")
            );
        }
        store::disable_client(tx, tenant, id, at)?;
        people::store::delete_grants_of(tx, tenant, &people::Subject::Client(id))?;
        secrets::forget(tx, tenant, &secrets::client_record_name(id))?;
        oauth::store::delete_credentials_of(tx, tenant, id)?;
        tx.record(
            "client.removed",
            ("client", id.to_string()),
            serde_json::json!({"name": client.name}),
        )?;
        Ok(())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How a client's secret is replaced.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewSecretRequest {
    /// Seconds that the old secret is good as well, 0 to 2592000.
    #[serde(default = "overlap_seconds")]
    overlap_seconds: u64,
}

const fn overlap_seconds() -> u64 {
    super::SECRET_OVERLAP.as_secs()
}

/// Makes a new secret for a client. The old one is good as well for a while, and an older one no more.
#[utoipa::path(
    post, path = "/clients/{id}/secret", tag = "clients", params(("id" = String, Path)),
    security(("oauth2" = ["client:write"])),
    request_body = NewSecretRequest, responses((status = 201, body = NewClientView)),
)]
async fn rotate_client_secret(
    permit: Permit<ClientWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<ClientId>,
    Body(request): Body<NewSecretRequest>,
) -> Result<Response, Problem> {
    let overlap = std::time::Duration::from_secs(request.overlap_seconds);
    if overlap > super::SECRET_OVERLAP_MAX {
        return Err(INVALID.detail("The old secret is good for 30 days more at most."));
    }
    let tenant = permit.tenant();
    app.db
        .read(permit.storage(), move |tx| super::client(tx, id))
        .await?
        .filter(|client| client.tenant == tenant && client.disabled_at.is_none())
        .ok_or_else(|| NOT_FOUND.detail("There is no client with this id."))?;
    let name = secrets::client_record_name(id);
    let record = app
        .db
        .read(permit.storage(), move |tx| secrets::record(tx, tenant, &name))
        .await?;
    if record.is_some_and(|record| record.rotated_by == secrets::RotatedBy::Server) {
        return Err(ILLEGAL_STATE.detail(format!(
            "A node keeps this secret in its admin.json and rotates it by itself: `muster secret rotate {}`.",
            secrets::client_record_name(id)
        )));
    }
    let author = permit.author().clone();
    let fresh = audit::commit(&app, &author, move |tx| {
        // Whoever reads the new secret is this client from now on, with what its roles give.
        let client = oauth::client_held_by(tx, &permit, id)?;
        let at = tx.at();
        oauth::store::credentials_added(tx, tenant, id, at)?;
        let kept = client.secret_sha256.clone();
        super::rotate_client(tx, &client, &kept, overlap)
    })
    .await?;
    let view = NewClientView {
        client_id: fresh.id,
        client_secret: Some(fresh.secret),
    };
    Ok(uncached((StatusCode::CREATED, Json(view)).into_response()))
}

/// Whom a sign-in link is for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ConsoleLinkRequest {
    /// The person, as the log will name them.
    #[schema(value_type = String)]
    person: Name,
    /// What the person may do, never more than the account that makes the link. Without roles: whatever that account may do.
    #[serde(default)]
    roles: Vec<String>,
}

/// A one-time link to the console.
#[derive(Debug, Serialize, ToSchema)]
struct ConsoleLinkView {
    url: String,
    expires_at: String,
}

#[utoipa::path(
    post, path = "/console-links", tag = "clients", security(("oauth2" = ["client:write"])),
    request_body = ConsoleLinkRequest, responses((status = 201, body = ConsoleLinkView)),
)]
async fn create_console_link(
    permit: Permit<ClientWrite>,
    State(app): State<App>,
    Body(request): Body<ConsoleLinkRequest>,
) -> Result<Response, Problem> {
    if permit.author().actor.kind != ActorKind::Client {
        return Err(
            FORBIDDEN.detail("Only service accounts make sign-in links: who they let in ends with them.")
        );
    }
    let roles = link_roles(&app, &permit, request.roles).await?;
    let (secret, expires_at) = super::create_signin_link(
        &app,
        (permit.author(), &permit.held),
        request.person.as_str(),
        &roles,
    )
    .await?;
    let url = format!("{}/signin#{secret}", app.settings.admin_url);
    let view = ConsoleLinkView {
        url,
        expires_at: expires_at.to_string(),
    };
    Ok(uncached((StatusCode::CREATED, Json(view)).into_response()))
}

/// The roles of a link that the caller may make. A link never does more than what made it: a token that holds less than its
/// account names the roles.
async fn link_roles(
    app: &App,
    permit: &Permit<ClientWrite>,
    mut roles: Vec<String>,
) -> Result<Vec<String>, Problem> {
    if roles.len() > people::ROLES_OF_ONE_MAX {
        return Err(INVALID.detail("A link has at most 16 roles."));
    }
    roles.sort_unstable();
    roles.dedup();
    let (tenant, actor, now) = (permit.tenant(), permit.author().actor.id.clone(), app.clock.now());
    let named = roles.clone();
    let most = app.db.read(permit.storage(), move |tx| {
        if named.is_empty() {
            let client = actor
                .parse()
                .ok()
                .map(|id| store::client(tx, id))
                .transpose()?
                .flatten();
            let client = client.ok_or_else(|| NOT_FOUND.detail("The client of this token was removed."))?;
            return Ok(people::of_client(tx, &client, now)?.scopes);
        }
        let mut lists = Vec::new();
        for name in &named {
            lists.push(people::role(tx, tenant, name)?.scopes);
        }
        Ok::<_, Problem>(scope::union(lists.iter().map(String::as_str)))
    });
    permit.require_held(most.await?.split(' '))?;
    Ok(roles)
}

fn uncached(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
