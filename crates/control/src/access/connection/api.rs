//! Routes of connections to identity providers.

use axum::{Json, extract::State, http::StatusCode};
use muster_model::ConnectionId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Addresses, Checked, Connection, ConnectionChange, Definition, addresses, probe};
use crate::{
    App,
    access::{
        Permit,
        problem::Problem,
        request::{Body, PathOf},
        scope::{AccessRead, SsoWrite},
    },
    audit,
    secrets::SecretText,
};

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_connections))
        .routes(routes!(put_connection, delete_connection))
        .routes(routes!(test_connection))
}

/// Everything of a short list.
#[derive(Debug, Serialize, ToSchema)]
struct Items<T> {
    items: Vec<T>,
}

/// A connection. Its secret is never shown.
#[derive(Debug, Serialize, ToSchema)]
struct ConnectionView {
    #[schema(value_type = String)]
    id: ConnectionId,
    name: String,
    kind: String,
    enabled: bool,
    definition: Definition,
    has_secret: bool,
    /// What is entered at the provider.
    addresses: Addresses,
    updated_by: String,
    updated_at: String,
    succeeded_at: Option<String>,
    failed_at: Option<String>,
    /// Why the last sign-in that failed did so.
    error: Option<String>,
}

fn view(app: &App, connection: Connection) -> Result<ConnectionView, Problem> {
    Ok(ConnectionView {
        definition: connection.definition()?,
        has_secret: connection.has_secret(),
        addresses: addresses(app, &connection),
        id: connection.id,
        name: connection.name,
        kind: connection.kind,
        enabled: connection.disabled_at.is_none(),
        updated_by: connection.updated_by,
        updated_at: connection.updated_at.to_string(),
        succeeded_at: connection.succeeded_at.map(|at| at.to_string()),
        failed_at: connection.failed_at.map(|at| at.to_string()),
        error: connection.error,
    })
}

#[utoipa::path(
    get, path = "/access/connections", tag = "access", operation_id = "list_connections",
    security(("oauth2" = ["access:read"])), responses((status = 200, body = Items<ConnectionView>)),
)]
async fn list_connections(
    permit: Permit<AccessRead>,
    State(app): State<App>,
) -> Result<Json<Items<ConnectionView>>, Problem> {
    let tenant = permit.tenant();
    let found = app
        .db
        .read(permit.storage(), move |tx| super::connections(tx, tenant));
    let items = found.await?.into_iter().map(|connection| view(&app, connection));
    Ok(Json(Items {
        items: items.collect::<Result<_, _>>()?,
    }))
}

/// A connection as it is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ConnectionRequest {
    definition: Definition,
    /// The client's secret at the provider; without one, the one that is known stays. `private_key_jwt` and SAML have none.
    client_secret: Option<String>,
    /// Whether people sign in by it.
    #[serde(default = "yes")]
    enabled: bool,
    /// Whether this server makes new keys of its own: of SAML, where the provider has to be given the new metadata at once, and of
    /// `private_key_jwt`, where both keys are in the key set for a day before and a day after the new one signs.
    #[serde(default)]
    new_keys: bool,
}

const fn yes() -> bool {
    true
}

/// Connects an identity provider, or changes how it is connected.
#[utoipa::path(
    put, path = "/access/connections/{name}", tag = "access", operation_id = "put_connection",
    params(("name" = String, Path)), security(("oauth2" = ["sso:write"])), request_body = ConnectionRequest,
    responses((status = 200, body = ConnectionView)),
)]
async fn put_connection(
    permit: Permit<SsoWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
    Body(request): Body<ConnectionRequest>,
) -> Result<Json<ConnectionView>, Problem> {
    let change = ConnectionChange {
        definition: request.definition,
        secret: request.client_secret.map(SecretText::new),
        enabled: request.enabled,
        new_keys: request.new_keys,
    };
    let made = super::save(&app, permit, name, change).await?;
    view(&app, made).map(Json)
}

/// Removes a connection, the roles of its groups, and the sessions of whoever came by it.
#[utoipa::path(
    delete, path = "/access/connections/{name}", tag = "access", operation_id = "delete_connection",
    params(("name" = String, Path)), security(("oauth2" = ["sso:write"])), responses((status = 204)),
)]
async fn delete_connection(
    permit: Permit<SsoWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
) -> Result<StatusCode, Problem> {
    let author = permit.author().clone();
    audit::commit(&app, &author, move |tx| super::delete(tx, &permit, &name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tries a connection step by step, and says at which one it fails.
#[utoipa::path(
    post, path = "/access/connections/{name}/test", tag = "access", operation_id = "test_connection",
    params(("name" = String, Path)), security(("oauth2" = ["sso:write"])),
    responses((status = 200, body = Items<Checked>)),
)]
async fn test_connection(
    permit: Permit<SsoWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
) -> Result<Json<Items<Checked>>, Problem> {
    let tenant = permit.tenant();
    let connection = app
        .db
        .read(permit.storage(), move |tx| super::named(tx, tenant, &name));
    let items = probe(&app, &connection.await?).await?;
    Ok(Json(Items { items }))
}
