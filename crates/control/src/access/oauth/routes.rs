//! Routes of keys of service accounts, and of trusts, under `/api/v1`.

use axum::{Json, extract::State, http::StatusCode};
use muster_model::{ClientId, TrustId};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    keys::{self, ClientKey},
    store,
    trusts::{self, Trust, TrustSpec},
};
use crate::{
    App,
    access::{
        Permit,
        problem::{INVALID, Problem},
        request::{Body, PathOf},
        scope::{ClientRead, ClientWrite},
    },
    audit,
    secrets::SecretText,
};

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_client_keys, add_client_key))
        .routes(routes!(remove_client_key))
        .routes(routes!(set_client_jwks_uri))
        .routes(routes!(list_trusts))
        .routes(routes!(put_trust, delete_trust))
}

/// A public key of a service account.
#[derive(Debug, Serialize, ToSchema)]
struct ClientKeyView {
    /// RFC 7638, or `x5t:…` of a certificate: the key's id in the path.
    thumbprint: String,
    /// As assertions name it.
    kid: String,
    /// Of a certificate: its SHA-256, its subject and its end.
    jwk: Value,
    added_by: String,
    added_at: String,
}

impl From<ClientKey> for ClientKeyView {
    fn from(key: ClientKey) -> ClientKeyView {
        ClientKeyView {
            jwk: key.value(),
            thumbprint: key.thumbprint,
            kid: key.kid,
            added_by: key.added_by,
            added_at: key.added_at.to_string(),
        }
    }
}

/// How a service account proves who it is without a secret.
#[derive(Debug, Serialize, ToSchema)]
struct ClientKeysView {
    items: Vec<ClientKeyView>,
    /// Where the account publishes its keys.
    jwks_uri: Option<String>,
    /// Whether it has a secret too.
    has_secret: bool,
}

/// The public keys of a service account.
#[utoipa::path(
    get, path = "/clients/{id}/keys", tag = "clients", operation_id = "list_client_keys", params(("id" = String, Path)),
    security(("oauth2" = ["client:read"])), responses((status = 200, body = ClientKeysView)),
)]
async fn list_client_keys(
    permit: Permit<ClientRead>,
    State(app): State<App>,
    PathOf(id): PathOf<ClientId>,
) -> Result<Json<ClientKeysView>, Problem> {
    let tenant = permit.tenant();
    let (client, found) = app
        .db
        .read(permit.storage(), move |tx| {
            let client = keys::living(tx, tenant, id)?;
            Ok::<_, Problem>((client, store::keys_of(tx, tenant, id)?))
        })
        .await?;
    Ok(Json(ClientKeysView {
        items: found.into_iter().map(ClientKeyView::from).collect(),
        jwks_uri: client.jwks_uri,
        has_secret: !client.secret_sha256.is_empty(),
    }))
}

/// A key that is to be added.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AddKeyRequest {
    /// The public key as a JSON Web Key: EC P-256, OKP Ed25519, or RSA of 2048 bits and more.
    #[serde(default)]
    jwk: Option<Value>,
    /// Instead: a certificate, PEM, which the account shows in the handshake.
    #[serde(default)]
    certificate: Option<String>,
}

/// Adds a public key with which the service account signs who it is (`private_key_jwt`), or a certificate that it shows
/// (`self_signed_tls_client_auth`).
#[utoipa::path(
    post, path = "/clients/{id}/keys", tag = "clients", operation_id = "add_client_key", params(("id" = String, Path)),
    security(("oauth2" = ["client:write"])), request_body = AddKeyRequest, responses((status = 201, body = ClientKeyView)),
)]
async fn add_client_key(
    permit: Permit<ClientWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<ClientId>,
    Body(request): Body<AddKeyRequest>,
) -> Result<(StatusCode, Json<ClientKeyView>), Problem> {
    let author = permit.author().clone();
    let added = audit::commit(&app, &author, move |tx| {
        match (&request.jwk, &request.certificate) {
            (Some(jwk), None) => keys::add(tx, &permit, id, jwk),
            (None, Some(pem)) => keys::add_certificate(tx, &permit, id, pem),
            _ => Err(INVALID.detail("Send either jwk or certificate.")),
        }
    });
    Ok((StatusCode::CREATED, Json(added.await?.into())))
}

/// Removes a public key; tokens that it brought end at once.
#[utoipa::path(
    delete, path = "/clients/{id}/keys/{key}", tag = "clients", operation_id = "remove_client_key",
    params(("id" = String, Path), ("key" = String, Path)), security(("oauth2" = ["client:write"])),
    responses((status = 204)),
)]
async fn remove_client_key(
    permit: Permit<ClientWrite>,
    State(app): State<App>,
    PathOf((id, key)): PathOf<(ClientId, String)>,
) -> Result<StatusCode, Problem> {
    let author = permit.author().clone();
    audit::commit(&app, &author, move |tx| keys::remove(tx, &permit, id, &key)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Where a service account publishes its keys.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct JwksUriRequest {
    /// The address of a JWK set; `null` for none.
    jwks_uri: Option<String>,
}

/// Says where the service account publishes the keys with which it signs who it is.
#[utoipa::path(
    put, path = "/clients/{id}/jwks-uri", tag = "clients", operation_id = "set_client_jwks_uri",
    params(("id" = String, Path)), security(("oauth2" = ["client:write"])), request_body = JwksUriRequest,
    responses((status = 204)),
)]
async fn set_client_jwks_uri(
    permit: Permit<ClientWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<ClientId>,
    Body(request): Body<JwksUriRequest>,
) -> Result<StatusCode, Problem> {
    let author = permit.author().clone();
    audit::commit(&app, &author, move |tx| {
        keys::set_jwks_uri(tx, &permit, id, request.jwks_uri.as_deref())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A trust. Its secret is never shown.
#[derive(Debug, Serialize, ToSchema)]
struct TrustView {
    #[schema(value_type = String)]
    id: TrustId,
    name: String,
    /// `workload` or `people`.
    kind: &'static str,
    issuer: String,
    definition: TrustSpec,
    has_secret: bool,
    updated_by: String,
    updated_at: String,
    /// When a token was last taken.
    used_at: Option<String>,
    failed_at: Option<String>,
    /// Why a token of this issuer was last refused. Only of workloads.
    error: Option<String>,
}

fn view(trust: Trust) -> Result<TrustView, Problem> {
    Ok(TrustView {
        definition: trust.spec()?,
        id: trust.id,
        name: trust.name,
        kind: trust.kind.word(),
        issuer: trust.issuer,
        has_secret: trust.secret.is_some(),
        updated_by: trust.updated_by,
        updated_at: trust.updated_at.to_string(),
        used_at: trust.used_at.map(|at| at.to_string()),
        failed_at: trust.failed_at.map(|at| at.to_string()),
        error: trust.error,
    })
}

/// Everything of a short list.
#[derive(Debug, Serialize, ToSchema)]
struct TrustsView {
    items: Vec<TrustView>,
}

/// Whose tokens are taken instead of a secret.
#[utoipa::path(
    get, path = "/trusts", tag = "clients", operation_id = "list_trusts", security(("oauth2" = ["client:read"])),
    responses((status = 200, body = TrustsView)),
)]
async fn list_trusts(
    permit: Permit<ClientRead>,
    State(app): State<App>,
) -> Result<Json<TrustsView>, Problem> {
    let tenant = permit.tenant();
    let found = app
        .db
        .read(permit.storage(), move |tx| trusts::trusts(tx, tenant))
        .await?;
    let items = found.into_iter().map(view).collect::<Result<_, _>>()?;
    Ok(Json(TrustsView { items }))
}

/// A trust as it is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TrustRequest {
    definition: TrustSpec,
    /// With which this server asks the provider about tokens; without one, the one that is known stays.
    introspection_secret: Option<String>,
}

/// Trusts the tokens of workloads or of people's provider, or changes which. People's also needs `sso:write`.
#[utoipa::path(
    put, path = "/trusts/{name}", tag = "clients", operation_id = "put_trust", params(("name" = String, Path)),
    security(("oauth2" = ["client:write"])), request_body = TrustRequest, responses((status = 200, body = TrustView)),
)]
async fn put_trust(
    permit: Permit<ClientWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
    Body(request): Body<TrustRequest>,
) -> Result<Json<TrustView>, Problem> {
    let (author, shared) = (permit.author().clone(), app.clone());
    let secret = request.introspection_secret.map(SecretText::new);
    let spec = request.definition;
    let made = audit::commit(&app, &author, move |tx| {
        trusts::put(tx, &shared.keys.sealing, &permit, &name, (&spec, secret.as_ref()))
    });
    view(made.await?).map(Json)
}

/// Removes a trust; tokens that it brought end at once.
#[utoipa::path(
    delete, path = "/trusts/{name}", tag = "clients", operation_id = "delete_trust", params(("name" = String, Path)),
    security(("oauth2" = ["client:write"])), responses((status = 204)),
)]
async fn delete_trust(
    permit: Permit<ClientWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
) -> Result<StatusCode, Problem> {
    let author = permit.author().clone();
    audit::commit(&app, &author, move |tx| trusts::delete(tx, &permit, &name)).await?;
    Ok(StatusCode::NO_CONTENT)
}
