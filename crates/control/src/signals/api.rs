//! Routes of signals.

use std::collections::BTreeMap;

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    definition::SignalKind,
    keys,
    people::{self, FreshSecret, SecretShown, SignalSourceChange},
    view::{self, ArrivalView, DeviceSignalView, SignalSourceView, UnmatchedView},
};
use crate::{
    App,
    access::{
        Permit,
        problem::Problem,
        request::{Body, Params, PathOf},
        scope::{DeviceRead, SignalRead, SignalWrite},
    },
    audit, devices,
    page::{Page, PageQuery, page_limit},
};

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_signal_sources))
        .routes(routes!(
            get_signal_source,
            put_signal_source,
            delete_signal_source
        ))
        .routes(routes!(make_signal_source_secret))
        .routes(routes!(list_unmatched_subjects))
        .routes(routes!(list_signal_arrivals))
        .routes(routes!(list_device_signals))
}

/// Every source, and what others need to read what we say.
#[derive(Debug, Serialize, ToSchema)]
struct SignalSources {
    items: Vec<SignalSourceView>,
    /// The issuer of the tenant's own tokens.
    issuer: String,
    /// Where their keys are, for anybody.
    jwks_url: String,
}

#[utoipa::path(
    get, path = "/signal-sources", tag = "signals", security(("oauth2" = ["signal:read"])),
    responses((status = 200, body = SignalSources)),
)]
async fn list_signal_sources(
    permit: Permit<SignalRead>,
    State(app): State<App>,
) -> Result<Json<SignalSources>, Problem> {
    let (tenant, shared) = (permit.tenant(), app.clone());
    let items = app
        .db
        .read(permit.storage(), move |tx| {
            view::source_views(&shared, tx, tenant)
        })
        .await?;
    let issuer = keys::issuer(&app, tenant);
    Ok(Json(SignalSources {
        items,
        jwks_url: format!("{issuer}/jwks.json"),
        issuer,
    }))
}

async fn shown<S>(app: &App, permit: &Permit<S>, name: String) -> Result<Json<SignalSourceView>, Problem> {
    let (tenant, shared) = (permit.tenant(), app.clone());
    let found = app.db.read(permit.storage(), move |tx| {
        view::source_view(&shared, tx, tenant, &name)
    });
    Ok(Json(found.await?))
}

#[utoipa::path(
    get, path = "/signal-sources/{name}", tag = "signals", params(("name" = String, Path)),
    security(("oauth2" = ["signal:read"])), responses((status = 200, body = SignalSourceView)),
)]
async fn get_signal_source(
    permit: Permit<SignalRead>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
) -> Result<Json<SignalSourceView>, Problem> {
    shown(&app, &permit, name).await
}

/// Makes or changes a source of signals. What it says of devices can be read by rules and groups, so whoever makes one decides
/// about devices.
#[utoipa::path(
    put, path = "/signal-sources/{name}", tag = "signals", params(("name" = String, Path)),
    security(("oauth2" = ["signal:write"])), request_body = SignalSourceChange,
    responses((status = 200, body = SignalSourceView)),
)]
async fn put_signal_source(
    permit: Permit<SignalWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
    Body(change): Body<SignalSourceChange>,
) -> Result<Json<SignalSourceView>, Problem> {
    let (shared, of) = (app.clone(), name.clone());
    audit::commit(&app, permit.author(), move |tx| {
        people::put_source(&shared, tx, &of, &change).map(drop)
    })
    .await?;
    shown(&app, &permit, name).await
}

/// Removes a source. What it said counts no more.
#[utoipa::path(
    delete, path = "/signal-sources/{name}", tag = "signals", params(("name" = String, Path)),
    security(("oauth2" = ["signal:write"])), responses((status = 204)),
)]
async fn delete_signal_source(
    permit: Permit<SignalWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
) -> Result<StatusCode, Problem> {
    let shared = app.clone();
    audit::commit(&app, permit.author(), move |tx| {
        people::remove_source(&shared, tx, &name)
    })
    .await?;
    app.nudges.signals.notify_one();
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a new secret, which is shown once. The one before stays good for a while.
#[utoipa::path(
    post, path = "/signal-sources/{name}/secret", tag = "signals", params(("name" = String, Path)),
    security(("oauth2" = ["signal:write"])), request_body = FreshSecret,
    responses((status = 200, body = SecretShown)),
)]
async fn make_signal_source_secret(
    permit: Permit<SignalWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
    Body(wanted): Body<FreshSecret>,
) -> Result<Json<SecretShown>, Problem> {
    let (shared, of) = (app.clone(), name.clone());
    let secret = audit::commit(&app, permit.author(), move |tx| {
        people::make_secret(&shared, tx, &of, &wanted)
    })
    .await?;
    let Json(source) = shown(&app, &permit, name).await?;
    let mut settings = BTreeMap::from([("address", source.address)]);
    if let SignalKind::Webhook { authentication, .. } = source.definition.from {
        let how = match authentication {
            super::Authentication::Hmac => {
                "Standard Webhooks: webhook-id, webhook-timestamp, webhook-signature"
            }
            super::Authentication::Bearer => "Authorization: Bearer",
        };
        settings.insert("authentication", how.to_owned());
    }
    Ok(Json(SecretShown {
        secret: secret.reveal().to_owned(),
        settings,
    }))
}

/// Subjects that no device is known by, the newest first.
#[derive(Debug, Serialize, ToSchema)]
struct UnmatchedSubjects {
    items: Vec<UnmatchedView>,
}

/// The subjects of a source that no device is known by, the newest first, at most 500.
#[utoipa::path(
    get, path = "/signal-sources/{name}/unmatched", tag = "signals", params(("name" = String, Path)),
    security(("oauth2" = ["signal:read"])), responses((status = 200, body = UnmatchedSubjects)),
)]
async fn list_unmatched_subjects(
    permit: Permit<SignalRead>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
) -> Result<Json<UnmatchedSubjects>, Problem> {
    let tenant = permit.tenant();
    let items = app
        .db
        .read(permit.storage(), move |tx| view::unmatched(tx, tenant, &name))
        .await?;
    Ok(Json(UnmatchedSubjects { items }))
}

/// What arrived, the newest first: the last 5,000 statements of a week.
#[utoipa::path(
    get, path = "/signal-arrivals", tag = "signals", params(PageQuery), security(("oauth2" = ["signal:read"])),
    responses((status = 200, body = Page<ArrivalView>)),
)]
async fn list_signal_arrivals(
    permit: Permit<SignalRead>,
    State(app): State<App>,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<ArrivalView>>, Problem> {
    let (tenant, limit) = (permit.tenant(), page_limit(query.limit));
    let page = app.db.read(permit.storage(), move |tx| {
        view::arrivals(tx, tenant, query.cursor.as_deref(), limit)
    });
    Ok(Json(page.await?))
}

/// What is said of a device.
#[derive(Debug, Serialize, ToSchema)]
struct DeviceSignals {
    items: Vec<DeviceSignalView>,
}

/// What sources outside say of a device, as rules read it.
#[utoipa::path(
    get, path = "/devices/{id}/signals", tag = "signals", params(("id" = String, Path)),
    security(("oauth2" = ["device:read"])), responses((status = 200, body = DeviceSignals)),
)]
async fn list_device_signals(
    permit: Permit<DeviceRead>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
) -> Result<Json<DeviceSignals>, Problem> {
    let (tenant, now) = (permit.tenant(), app.clock.now());
    let items = app
        .db
        .read(permit.storage(), move |tx| {
            let device = devices::resolve(tx, tenant, &id)?;
            view::of_device_view(tx, tenant, device.id, now)
        })
        .await?;
    Ok(Json(DeviceSignals { items }))
}
