//! Routes of the root document.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use muster_trust::{dsse::Envelope, key::sha256};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::publish;
use crate::{
    App,
    access::{
        Permit,
        problem::Problem,
        request::Body,
        scope::{RootRead, RootWrite},
    },
};

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_root, post_root))
}

/// The newest root document, and the way to it.
#[derive(Debug, Serialize, ToSchema)]
struct RootView {
    version: u64,
    /// SHA-256 of the newest document's bytes, hexadecimal.
    sha256: String,
    /// SHA-256 of the first one: what devices pinned. Compare it with a copy from elsewhere.
    first_sha256: String,
    issued_at: String,
    expires_at: String,
    restore_epoch: u32,
    /// The newest document: keys, roles, thresholds, approvers, budgets.
    #[schema(value_type = Object)]
    document: serde_json::Value,
    /// Every document from version 1 on as a DSSE envelope; each is signed by the threshold of the one before.
    #[schema(value_type = Vec<Object>)]
    envelopes: Vec<Envelope>,
    /// What somebody should know or do, the most urgent first.
    warnings: Vec<String>,
}

/// A document that the tenant has now.
#[derive(Debug, Serialize, ToSchema)]
struct PublishedView {
    version: u64,
    sha256: String,
    /// What it changes against the one before.
    changes: Vec<ChangeView>,
    warnings: Vec<String>,
}

/// One change, in words.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SecretChangeView)]
struct ChangeView {
    text: String,
    /// It takes a safeguard away, or gives somebody power.
    weakens: bool,
}

/// The newest root document with every envelope that leads to it. Verify them from the first on before believing them.
#[utoipa::path(
    get, path = "/root", tag = "root", security(("oauth2" = ["root:read"])),
    responses((status = 200, body = RootView)),
)]
async fn get_root(permit: Permit<RootRead>, State(app): State<App>) -> Result<Json<RootView>, Problem> {
    let tenant = permit.tenant();
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let document = serde_json::to_value(&keys.root).map_err(Problem::internal)?;
    let first = keys.root_documents.first().map(|first| sha256(&first.payload));
    Ok(Json(RootView {
        version: keys.root.version,
        sha256: keys.root_sha256().to_string(),
        first_sha256: first.unwrap_or_default().to_string(),
        issued_at: keys.root.issued_at.to_string(),
        expires_at: keys.root.expires_at.to_string(),
        restore_epoch: keys.root.restore_epoch,
        document,
        envelopes: keys.root_documents.clone(),
        warnings: warnings(&app, tenant)?,
    }))
}

/// Publishes the next root document: 201 the first time, 200 when this very document is there. It is checked as devices
/// check it: signed by the threshold of the newest document's root keys and of its own, next version, same tenant. Every
/// node and every device follows.
#[utoipa::path(
    post, path = "/root", tag = "root", security(("oauth2" = ["root:write"])),
    request_body(content = Object, description = "A signed DSSE envelope"),
    responses((status = 201, body = PublishedView), (status = 200, body = PublishedView)),
)]
async fn post_root(
    permit: Permit<RootWrite>,
    State(app): State<App>,
    Body(envelope): Body<Envelope>,
) -> Result<Response, Problem> {
    let published = publish::publish(&app, permit.author(), &envelope).await?;
    let status = if published.is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let changes = published.changes.into_iter().map(|change| ChangeView {
        text: change.text,
        weakens: change.weakens,
    });
    let view = PublishedView {
        version: published.version,
        sha256: published.sha256.to_string(),
        changes: changes.collect(),
        warnings: warnings(&app, permit.tenant())?,
    };
    Ok((status, Json(view)).into_response())
}

fn warnings(app: &App, tenant: muster_model::TenantId) -> Result<Vec<String>, Problem> {
    let concerns = publish::of(app, tenant)?;
    Ok(concerns.into_iter().map(|concern| concern.text).collect())
}
