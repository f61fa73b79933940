//! Routes of secrets: what there is, how old it is, and its rotation. No route answers a value.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    SecretText,
    keeper::{self, StoreStatus},
    places::{EMBEDDED, StoreError},
    records_view::{self, SecretView},
    ring::RingName,
    rotation::VERSIONS_KEPT_MIN,
};
use crate::{
    App,
    access::{
        Permit,
        problem::{Problem, UNAVAILABLE},
        request::{Body, PathOf},
        scope::{SecretRead, SecretWrite},
    },
    audit,
    clock::random_secret,
};

/// What a test writes: it is no secret.
const PROBE: &str = "muster-probe";

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_secrets))
        .routes(routes!(get_secret, put_secret))
        .routes(routes!(rotate_secret))
        .routes(routes!(revoke_secret))
        .routes(routes!(list_secret_stores))
        .routes(routes!(test_secret_store))
}

/// Everything of a short list.
#[derive(Debug, Serialize, ToSchema)]
struct SecretItems<T> {
    items: Vec<T>,
}

/// The tenant's secrets and those of the installation, the most overdue first, then the next that is due.
#[utoipa::path(
    get, path = "/secrets", tag = "secrets", security(("oauth2" = ["secret:read"])),
    responses((status = 200, body = SecretItems<SecretView>)),
)]
async fn list_secrets(
    permit: Permit<SecretRead>,
    State(app): State<App>,
) -> Result<Json<SecretItems<SecretView>>, Problem> {
    let items = records_view::all(&app, permit.tenant()).await?;
    Ok(Json(SecretItems { items }))
}

#[utoipa::path(
    get, path = "/secrets/{name}", tag = "secrets", params(("name" = String, Path)),
    security(("oauth2" = ["secret:read"])), responses((status = 200, body = SecretView)),
)]
async fn get_secret(
    permit: Permit<SecretRead>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
) -> Result<Json<SecretView>, Problem> {
    records_view::one(&app, permit.tenant(), &name).await.map(Json)
}

/// What may be set of a secret.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SecretChange {
    /// Days after which it is rotated, 1 to 90.
    period_days: u32,
}

#[utoipa::path(
    put, path = "/secrets/{name}", tag = "secrets", params(("name" = String, Path)),
    security(("oauth2" = ["secret:write"])), request_body = SecretChange, responses((status = 200, body = SecretView)),
)]
async fn put_secret(
    permit: Permit<SecretWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
    Body(change): Body<SecretChange>,
) -> Result<Json<SecretView>, Problem> {
    let named = name.clone();
    audit::commit(&app, permit.author(), move |tx| {
        records_view::set_period(tx, &named, change.period_days)
    })
    .await?;
    records_view::one(&app, permit.tenant(), &name).await.map(Json)
}

/// Asks for a rotation now. It is done within seconds, by the node whose task it is; the answer is the secret as it is meanwhile.
#[utoipa::path(
    post, path = "/secrets/{name}/rotate", tag = "secrets", params(("name" = String, Path)),
    security(("oauth2" = ["secret:write"])), responses((status = 202, body = SecretView)),
)]
async fn rotate_secret(
    permit: Permit<SecretWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
) -> Result<Response, Problem> {
    records_view::one(&app, permit.tenant(), &name).await?;
    let named = name.clone();
    audit::commit(&app, permit.author(), move |tx| records_view::ask(tx, &named)).await?;
    app.nudges.secrets.notify_one();
    let view = records_view::one(&app, permit.tenant(), &name).await?;
    Ok((StatusCode::ACCEPTED, Json(view)).into_response())
}

/// Ends at once what earlier versions of a key signed: every node refuses it within two seconds.
#[utoipa::path(
    post, path = "/secrets/{name}/revoke", tag = "secrets", params(("name" = String, Path)),
    security(("oauth2" = ["secret:write"])), responses((status = 200, body = SecretView)),
)]
async fn revoke_secret(
    permit: Permit<SecretWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
) -> Result<Json<SecretView>, Problem> {
    records_view::one(&app, permit.tenant(), &name).await?;
    let named = name.clone();
    audit::commit(&app, permit.author(), move |tx| records_view::revoke(tx, &named)).await?;
    app.nudges.secrets.notify_one();
    keeper::follow(&app).await?;
    records_view::one(&app, permit.tenant(), &name).await.map(Json)
}

/// A store of secrets as this node sees it.
#[derive(Debug, Serialize, ToSchema)]
struct SecretStoreView {
    /// `embedded`, or the store that the settings name, such as `vault:secret/muster`; to tenants other than the first one
    /// `external`.
    place: String,
    /// Whether new values go there.
    is_used: bool,
    /// When it last answered as it should; of the embedded store, always now.
    confirmed_at: Option<String>,
    /// Whether it answered as it should when it was asked last.
    is_answering: bool,
    /// Why not. Only the first tenant, whose people operate the installation, reads what the store said.
    error: Option<String>,
}

#[utoipa::path(
    get, path = "/secret-stores", tag = "secrets", security(("oauth2" = ["secret:read"])),
    responses((status = 200, body = SecretItems<SecretStoreView>)),
)]
async fn list_secret_stores(
    permit: Permit<SecretRead>,
    State(app): State<App>,
) -> Result<Json<SecretItems<SecretStoreView>>, Problem> {
    let external = records_view::store_status(&app, permit.tenant()).await?;
    let embedded = SecretStoreView {
        place: EMBEDDED.to_owned(),
        is_used: external.is_none(),
        confirmed_at: Some(app.clock.now().to_string()),
        is_answering: true,
        error: None,
    };
    let outside = external.map(|status: StoreStatus| SecretStoreView {
        place: status.place,
        is_used: true,
        confirmed_at: status.confirmed_at.map(|at| at.to_string()),
        is_answering: status.error.is_none(),
        error: status.error,
    });
    let items = outside.into_iter().chain([embedded]).collect();
    Ok(Json(SecretItems { items }))
}

/// How a test went.
#[derive(Debug, Serialize, ToSchema)]
struct SecretStoreTest {
    place: String,
    /// What the store called the version that was written.
    version: String,
    /// How many of the newest versions of a secret it keeps; nothing where it keeps all that anybody makes.
    versions_kept: Option<u32>,
    /// What should be changed, where something should.
    warning: Option<String>,
}

/// Writes something that is no secret to the store for new values, reads it back, and compares.
#[utoipa::path(
    post, path = "/secret-stores/test", tag = "secrets", security(("oauth2" = ["secret:write"])),
    responses((status = 200, body = SecretStoreTest)),
)]
async fn test_secret_store(
    permit: Permit<SecretWrite>,
    State(app): State<App>,
) -> Result<Json<SecretStoreTest>, Problem> {
    records_view::only_operator(&app, permit.tenant()).await?;
    let (store, value) = (app.stores.newest(), SecretText::new(random_secret()));
    let tried = async {
        store.health().await?;
        let after = store.newest(PROBE).await?;
        let version = store.write(PROBE, &value, after.as_deref()).await?;
        let read = store.read(PROBE, &version).await?;
        if read.reveal() == value.reveal() {
            Ok((
                version,
                store.versions_kept(RingName::AccessTokens.as_str()).await?,
            ))
        } else {
            Err(StoreError::Invalid(
                "it gave another value back than it was given".to_owned(),
            ))
        }
    };
    let (version, versions_kept) = tried.await.map_err(|error| {
        UNAVAILABLE.detail(format!("The store {} cannot be used: {error}.", store.place()))
    })?;
    keeper::follow(&app).await?;
    Ok(Json(SecretStoreTest {
        place: store.place().to_owned(),
        version,
        warning: versions_kept
            .filter(|kept| *kept < VERSIONS_KEPT_MIN)
            .map(|kept| {
                format!(
                    "The store keeps {kept} versions of a secret. Let it keep {VERSIONS_KEPT_MIN} or more."
                )
            }),
        versions_kept,
    }))
}
