//! The admin-facing listener: the admin API, its documentation, and the console's pages.
//!
//! Pages are rendered here and work without scripts; they call the same functions of `muster-control` as the API, with
//! permits of the signed-in person. The API never accepts the console's cookie, and pages never accept a bearer token.

mod assets;
mod charts;
mod edge;
mod form;
mod kinds;
mod look;
mod markdown;
mod pages;
mod proof;
mod qr;
mod reference;
mod refusals;
mod requests;
mod session;
mod shell;
mod ui;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use axum::{Router, extract::DefaultBodyLimit, middleware};
use muster_control::{App, directory, openapi, signals};

/// The largest body that a call or a form may have.
const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The routes of the API and the authorization server without pages and SCIM: for the listener of programs.
pub fn api_router(app: App) -> Router {
    let (api, _) = openapi::api_router().split_for_parts();
    api.fallback(edge::not_found)
        .method_not_allowed_fallback(edge::method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(app.clone(), edge::guard))
        .with_state(app)
}

/// Every route of the admin listener.
pub fn router(app: App) -> Router {
    let (api, _) = openapi::api_router().split_for_parts();
    Router::new()
        .merge(api)
        .merge(reference::router())
        .merge(assets::router())
        .merge(look::router())
        .merge(pages::router())
        .fallback(edge::not_found)
        .method_not_allowed_fallback(edge::method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        // It has limits and refusals of its own.
        .merge(directory::scim_router())
        .merge(signals::inbound_router())
        .layer(middleware::from_fn_with_state(app.clone(), edge::guard))
        .with_state(app)
}
