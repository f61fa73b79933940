//! Routes of access: OAuth 2.0 endpoints, API clients, sign-in links.

use axum::{
    Form, Json,
    extract::{FromRequest, Request, State, rejection::FormRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use muster_model::{ClientId, Name, TenantId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    Client, Permit, authenticate_client, people,
    problem::{ILLEGAL_STATE, INVALID, INVALID_CLIENT, LAST_CLIENT, NAME_TAKEN, NOT_FOUND, Problem},
    request::{Body, Params, PathOf},
    scope::{self, ClientRead, ClientWrite},
    store, tokens,
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
}

/// Routes of the authorization server, beside `/api/v1`.
pub fn oauth_router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(token))
        .routes(routes!(introspect))
        .routes(routes!(metadata))
}

/// A token request (RFC 6749 §4.4).
#[derive(Debug, Deserialize, ToSchema)]
struct TokenRequest {
    /// `client_credentials`.
    grant_type: String,
    client_id: Option<String>,
    client_secret: Option<String>,
    /// The scopes wanted, separated by spaces; all of the client's when absent.
    scope: Option<String>,
}

/// A token answer (RFC 6749 §5.1).
#[derive(Debug, Serialize, ToSchema)]
struct TokenResponse {
    access_token: String,
    token_type: &'static str,
    /// Seconds.
    expires_in: i64,
    scope: String,
}

/// A refusal of the token endpoint (RFC 6749 §5.2).
#[derive(Debug, Serialize, ToSchema)]
struct OAuthError {
    error: &'static str,
    error_description: String,
}

#[utoipa::path(
    post, path = "/oauth2/token", tag = "oauth", operation_id = "issue_token",
    request_body(content = TokenRequest, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, body = TokenResponse), (status = 400, body = OAuthError), (status = 401, body = OAuthError)),
)]
async fn token(State(app): State<App>, headers: HeaderMap, request: Request) -> Result<Response, Response> {
    let form: TokenRequest = form(request).await?;
    if form.grant_type != "client_credentials" {
        return Err(refuse(
            "unsupported_grant_type",
            "Use grant_type=client_credentials.",
        ));
    }
    let client = client_of(&app, &headers, form.client_id, form.client_secret).await?;
    let held = held_by(&app, client.clone())
        .await
        .map_err(IntoResponse::into_response)?;
    let granted = match form
        .scope
        .as_deref()
        .map(str::trim)
        .filter(|wanted| !wanted.is_empty())
    {
        None => held,
        Some(wanted) => {
            let shared = super::shared_scopes(wanted, &held);
            if shared.split(' ').count() != wanted.split_whitespace().count() || shared.is_empty() {
                return Err(refuse(
                    "invalid_scope",
                    "The client does not hold every scope that was asked for.",
                ));
            }
            shared
        }
    };
    let (access_token, claims) =
        tokens::issue_access(&app.keys, client.tenant, client.id, &granted, app.clock.now())
            .map_err(IntoResponse::into_response)?;
    let answer = TokenResponse {
        access_token,
        token_type: "Bearer",
        expires_in: claims.exp - claims.iat,
        scope: granted,
    };
    Ok(uncached(Json(answer).into_response()))
}

/// What a client holds now, and that it was used.
async fn held_by(app: &App, client: Client) -> Result<String, Problem> {
    const NOTED_SECONDS: u64 = 3600;
    let now = app.clock.now();
    let (tenant, id) = (client.tenant, client.id);
    let held = app.db.read(permit_storage(tenant), move |tx| {
        Ok::<_, Problem>(super::people::of_client(tx, &client, now)?.scopes)
    });
    let held = held.await?;
    let noted_before = now.minus(std::time::Duration::from_secs(NOTED_SECONDS));
    if app.noted_clients.is_due(id, now, noted_before) {
        audit::housekeeping(app, permit_storage(tenant), move |tx| {
            Ok(super::people::store::used_client(
                tx,
                tenant,
                id,
                (now, noted_before),
            )?)
        })
        .await?;
    }
    Ok(held)
}

/// A question about a token (RFC 7662 §2.1).
#[derive(Debug, Deserialize, ToSchema)]
struct IntrospectRequest {
    token: String,
    client_id: Option<String>,
    client_secret: Option<String>,
    #[serde(rename = "token_type_hint")]
    _token_type_hint: Option<String>,
}

/// What is known of a token (RFC 7662 §2.2). Of a token that is not active, nothing else is said.
#[derive(Debug, Default, Serialize, ToSchema)]
struct Introspection {
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    client_id: Option<ClientId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    sub: Option<ClientId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    tenant: Option<TenantId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
}

#[utoipa::path(
    post, path = "/oauth2/introspect", tag = "oauth", operation_id = "introspect_token",
    request_body(content = IntrospectRequest, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, body = Introspection), (status = 401, body = OAuthError)),
)]
async fn introspect(
    State(app): State<App>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    // The asker is authenticated by its own client credentials or access token; it learns of its own tenant alone.
    let bearer = super::authenticate(&app, &headers)
        .await
        .ok()
        .map(|caller| caller.author.tenant);
    let form: IntrospectRequest = form(request).await?;
    let tenant = match bearer {
        Some(tenant) => tenant,
        None => {
            client_of(&app, &headers, form.client_id, form.client_secret)
                .await?
                .tenant
        }
    };
    let answer = describe(&app, tenant, &form.token)
        .await
        .map_err(IntoResponse::into_response)?;
    Ok(uncached(Json(answer).into_response()))
}

async fn describe(app: &App, tenant: TenantId, token: &str) -> Result<Introspection, Problem> {
    let Ok(claims) = super::verify_access(app, token).await else {
        return Ok(Introspection::default());
    };
    let client = super::client_with_roles(app, claims.client_id)
        .await?
        .filter(|(client, _)| {
            client.tenant == tenant && client.tenant == claims.tid && client.disabled_at.is_none()
        });
    let Some((_, held)) = client else {
        return Ok(Introspection::default());
    };
    Ok(Introspection {
        active: true,
        scope: Some(super::shared_scopes(&claims.scope, &held.scopes)),
        client_id: Some(claims.client_id),
        sub: Some(claims.sub),
        tenant: Some(claims.tid),
        iss: Some(claims.iss.clone()),
        aud: Some(claims.aud.clone()),
        exp: Some(claims.exp),
        iat: Some(claims.iat),
        nbf: Some(claims.nbf),
        jti: Some(claims.jti),
        token_type: Some("Bearer"),
    })
}

/// What clients need to know of this authorization server (RFC 8414 §2).
#[derive(Debug, Serialize, ToSchema)]
struct ServerMetadata {
    issuer: String,
    token_endpoint: String,
    introspection_endpoint: String,
    grant_types_supported: Vec<&'static str>,
    token_endpoint_auth_methods_supported: Vec<&'static str>,
    introspection_endpoint_auth_methods_supported: Vec<&'static str>,
    response_types_supported: Vec<&'static str>,
    scopes_supported: Vec<&'static str>,
}

#[utoipa::path(
    get, path = "/.well-known/oauth-authorization-server", tag = "oauth", operation_id = "server_metadata",
    responses((status = 200, body = ServerMetadata)),
)]
async fn metadata(State(app): State<App>) -> Json<ServerMetadata> {
    let url = &app.settings.admin_url;
    let methods = || vec!["client_secret_basic", "client_secret_post"];
    Json(ServerMetadata {
        issuer: url.clone(),
        token_endpoint: format!("{url}/oauth2/token"),
        introspection_endpoint: format!("{url}/oauth2/introspect"),
        grant_types_supported: vec!["client_credentials"],
        token_endpoint_auth_methods_supported: methods(),
        introspection_endpoint_auth_methods_supported: methods(),
        response_types_supported: Vec::new(),
        scopes_supported: scope::ALL.iter().map(|(name, _)| *name).collect(),
    })
}

/// An API client.
#[derive(Debug, Serialize, ToSchema)]
struct ClientView {
    #[schema(value_type = String)]
    client_id: ClientId,
    name: String,
    scopes: Vec<String>,
    created_at: String,
    disabled_at: Option<String>,
}

impl From<Client> for ClientView {
    fn from(client: Client) -> ClientView {
        ClientView {
            client_id: client.id,
            name: client.name,
            scopes: client.scopes.split_whitespace().map(str::to_owned).collect(),
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
}

/// A new client's credentials. The secret is shown this once.
#[derive(Debug, Serialize, ToSchema)]
struct NewClientView {
    #[schema(value_type = String)]
    client_id: ClientId,
    client_secret: String,
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
        let client = super::insert_client(tx, tenant, request.name.as_str(), &scopes)?;
        for role in &request.roles {
            people::grant(tx, &permit, people::Subject::Client(client.id), role, None)?;
        }
        Ok(client)
    })
    .await?;
    let view = NewClientView {
        client_id: client.id,
        client_secret: client.secret,
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
    let client = app
        .db
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
    // Whoever reads the new secret is this client from now on.
    permit.require_held(client.scopes.split(' '))?;
    let fresh = audit::commit(&app, permit.author(), move |tx| {
        let client = store::client(tx, id)?.filter(|client| client.disabled_at.is_none());
        let client = client.ok_or_else(|| NOT_FOUND.detail("There is no client with this id."))?;
        let kept = client.secret_sha256.clone();
        super::rotate_client(tx, &client, &kept, overlap)
    })
    .await?;
    let view = NewClientView {
        client_id: fresh.id,
        client_secret: fresh.secret,
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
    let roles = link_roles(&app, &permit, request.roles).await?;
    let (secret, expires_at) =
        super::create_signin_link(&app, permit.author(), request.person.as_str(), &roles).await?;
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

fn permit_storage(tenant: TenantId) -> muster_storage::Scope {
    muster_storage::Scope::Tenant(tenant.uuid())
}

async fn form<T: serde::de::DeserializeOwned>(request: Request) -> Result<T, Response> {
    let read: Result<Form<T>, FormRejection> = Form::from_request(request, &()).await;
    read.map(|Form(value)| value)
        .map_err(|_| refuse("invalid_request", "Send the parameters as a form, each once."))
}

async fn client_of(
    app: &App,
    headers: &HeaderMap,
    id: Option<String>,
    secret: Option<String>,
) -> Result<Client, Response> {
    let (id, secret) = match (basic(headers), id, secret) {
        (Some(pair), _, None) => pair,
        (None, Some(id), Some(secret)) => (id, secret),
        _ => {
            return Err(refuse(
                "invalid_client",
                "Send the client's id and secret once: as Basic credentials or in the form.",
            ));
        }
    };
    authenticate_client(app, &id, &secret)
        .await
        .map_err(|problem| match problem.kind {
            INVALID_CLIENT => refuse("invalid_client", &problem.detail),
            _ => problem.into_response(),
        })
}

/// The client's credentials from HTTP Basic (RFC 6749 §2.3.1). Ids and secrets of ours need no percent-decoding.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (kind, encoded) = value.split_once(' ')?;
    if !kind.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    text.split_once(':')
        .map(|(id, secret)| (id.to_owned(), secret.to_owned()))
}

fn refuse(error: &'static str, description: &str) -> Response {
    let status = if error == "invalid_client" {
        StatusCode::UNAUTHORIZED
    } else {
        StatusCode::BAD_REQUEST
    };
    let body = OAuthError {
        error,
        error_description: description.to_owned(),
    };
    let mut response = (status, Json(body)).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"muster\""),
        );
    }
    uncached(response)
}

fn uncached(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
