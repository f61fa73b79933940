//! The admin API as one router and one OpenAPI 3.1 document.

use utoipa::{
    OpenApi,
    openapi::security::{ClientCredentials, Flow, OAuth2, Scopes, SecurityScheme},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    App, access, alerts, audit, branding, commands, compliance, configuration, devices, directory,
    enrollment, fleet, groups, openapi_complete, outputs, policy, query, rollout, scripts, secrets, signals,
    sinks, telemetry, tenants, whatif,
};

/// Where the API is mounted.
pub const PREFIX: &str = "/api/v1";

#[derive(OpenApi)]
#[openapi(info(
    title = "Muster admin API",
    description = "Errors are RFC 9457 problem details; their codes are explained under /errors/{code}. Lists answer \
        {items, next_cursor}. Calls that create accept Idempotency-Key.",
    license(name = "Apache-2.0")
))]
struct Document;

/// The program that answers.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
struct VersionView {
    name: &'static str,
    version: &'static str,
}

#[utoipa::path(get, path = "/version", tag = "service", responses((status = 200, body = VersionView)))]
async fn version() -> axum::Json<VersionView> {
    axum::Json(VersionView {
        name: "muster",
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// Every route of the admin API, under its prefix, with the authorization server's beside it.
pub fn api_router() -> OpenApiRouter<App> {
    let api = OpenApiRouter::new()
        .merge(access::router())
        .merge(alerts::router())
        .merge(audit::router())
        .merge(branding::router())
        .merge(commands::router())
        .merge(compliance::router())
        .merge(configuration::router())
        .merge(devices::router())
        .merge(directory::router())
        .merge(enrollment::router())
        .merge(fleet::router())
        .merge(groups::router())
        .merge(outputs::router())
        .merge(policy::router())
        .merge(query::router())
        .merge(rollout::router())
        .merge(scripts::router())
        .merge(secrets::router())
        .merge(signals::router())
        .merge(sinks::router())
        .merge(secrets::records_router())
        .merge(telemetry::router())
        .merge(tenants::router())
        .merge(whatif::router())
        .routes(routes!(version));
    OpenApiRouter::with_openapi(Document::openapi())
        .nest(PREFIX, api)
        .merge(access::oauth_router())
}

/// The document as it is served and checked in.
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = api_router().into_openapi();
    document.info.version = env!("CARGO_PKG_VERSION").to_owned();
    let scopes = Scopes::from_iter(access::scope::ALL.iter().copied());
    let flow = Flow::ClientCredentials(ClientCredentials::new("/oauth2/token", scopes));
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("oauth2", SecurityScheme::OAuth2(OAuth2::new([flow])));
    openapi_complete::complete(&mut document);
    document
}
