//! Routes of scripts.

use axum::{Json, extract::State, http::StatusCode, response::Response};
use muster_model::text::{Name, Sha256Text};
use muster_trust::{
    dsse::Envelope,
    statement::{Interpreter, MAX_RECEIPT_OUTPUT_BYTES, ScriptStatement},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Script;
use crate::{
    App,
    access::{
        Permit,
        idempotency::{IdempotencyKey, commit_once},
        problem::Problem,
        request::{Body, Params, PathOf},
        scope::{ScriptRead, ScriptWrite},
    },
    audit,
    page::{Page, PageQuery, cursor, page_limit},
};

/// How long a script may run where nothing is said.
const TIMEOUT_SECONDS: u32 = 300;

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_scripts, add_script))
        .routes(routes!(keep_signed_script))
        .routes(routes!(get_script, remove_script))
}

/// A script that this server is to sign with the tenant's policy key.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ScriptRequest {
    #[schema(value_type = String)]
    name: Name,
    /// `sh`, `bash` or `python3`.
    #[schema(value_type = String)]
    interpreter: Interpreter,
    /// The program, at most 64 KiB.
    text: String,
    /// How long it may run, 1 to 3600; 300 where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<u32>,
    /// How much of its output is sent back, at most 65,536; that much where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output_bytes_max: Option<u32>,
}

/// A script, without its text.
#[derive(Debug, Serialize, ToSchema)]
struct ScriptView {
    /// Of the signed statement: what `run-script` names.
    sha256: String,
    name: String,
    interpreter: String,
    timeout_seconds: u32,
    output_bytes_max: u32,
    created_by: String,
    created_at: String,
}

impl From<Script> for ScriptView {
    fn from(script: Script) -> ScriptView {
        ScriptView {
            sha256: script.sha256,
            name: script.name,
            interpreter: script.interpreter,
            timeout_seconds: script.timeout_seconds,
            output_bytes_max: script.output_bytes_max,
            created_by: script.created_by,
            created_at: script.created_at.to_string(),
        }
    }
}

/// A script with its text, and the envelope that devices check.
#[derive(Debug, Serialize, ToSchema)]
struct WholeScriptView {
    #[serde(flatten)]
    script: ScriptView,
    text: String,
    #[schema(value_type = Object)]
    envelope: Envelope,
}

#[utoipa::path(
    get, path = "/scripts", tag = "scripts", params(PageQuery), security(("oauth2" = ["script:read"])),
    responses((status = 200, body = Page<ScriptView>)),
)]
async fn list_scripts(
    permit: Permit<ScriptRead>,
    State(app): State<App>,
    Params(query): Params<PageQuery>,
) -> Result<Json<Page<ScriptView>>, Problem> {
    let limit = page_limit(query.limit);
    let after = cursor::<Sha256Text>(query.cursor.as_deref())?;
    let tenant = permit.tenant();
    let scripts = app
        .db
        .read(permit.storage(), move |tx| {
            let after = after.as_ref().map_or("", |after| after.as_str());
            super::list(tx, tenant, after, limit + 1)
        })
        .await?;
    let items = scripts.into_iter().map(ScriptView::from).collect();
    Ok(Json(Page::of(items, limit, |script: &ScriptView| {
        script.sha256.clone()
    })))
}

#[utoipa::path(
    post, path = "/scripts", tag = "scripts", params(("Idempotency-Key" = Option<String>, Header)),
    security(("oauth2" = ["script:write"])), request_body = ScriptRequest,
    responses((status = 201, body = ScriptView)),
)]
async fn add_script(
    permit: Permit<ScriptWrite>,
    State(app): State<App>,
    key: IdempotencyKey,
    Body(request): Body<ScriptRequest>,
) -> Result<Response, Problem> {
    let statement = ScriptStatement {
        tenant: permit.tenant(),
        name: request.name.clone(),
        interpreter: request.interpreter,
        text: request.text.clone(),
        timeout_seconds: request.timeout_seconds.unwrap_or(TIMEOUT_SECONDS),
        output_bytes_max: request
            .output_bytes_max
            .unwrap_or(u32::try_from(MAX_RECEIPT_OUTPUT_BYTES).unwrap_or(u32::MAX)),
    };
    commit_once(&app, &permit, key, "POST /scripts", &request, move |tx| {
        let script = super::add(tx, &statement)?;
        Ok((StatusCode::CREATED, ScriptView::from(script)))
    })
    .await
}

/// A script that was signed elsewhere: the DSSE envelope over it.
#[utoipa::path(
    post, path = "/scripts/signed", tag = "scripts", security(("oauth2" = ["script:write"])),
    request_body = Object, responses((status = 201, body = ScriptView)),
)]
async fn keep_signed_script(
    permit: Permit<ScriptWrite>,
    State(app): State<App>,
    Body(envelope): Body<Envelope>,
) -> Result<(StatusCode, Json<ScriptView>), Problem> {
    let script = audit::commit(&app, permit.author(), move |tx| super::keep(tx, &envelope)).await?;
    Ok((StatusCode::CREATED, Json(script.into())))
}

#[utoipa::path(
    get, path = "/scripts/{sha256}", tag = "scripts", params(("sha256" = String, Path)),
    security(("oauth2" = ["script:read"])), responses((status = 200, body = WholeScriptView)),
)]
async fn get_script(
    permit: Permit<ScriptRead>,
    State(app): State<App>,
    PathOf(sha256): PathOf<Sha256Text>,
) -> Result<Json<WholeScriptView>, Problem> {
    let tenant = permit.tenant();
    let script = app
        .db
        .read(permit.storage(), move |tx| {
            super::get(tx, tenant, sha256.as_str())
        })
        .await?;
    let statement = super::text(&script)?;
    let envelope = serde_json::from_str(&script.envelope).map_err(Problem::internal)?;
    Ok(Json(WholeScriptView {
        script: script.into(),
        text: statement.text,
        envelope,
    }))
}

/// No new command can name the script; one that waits for a device fails there.
#[utoipa::path(
    delete, path = "/scripts/{sha256}", tag = "scripts", params(("sha256" = String, Path)),
    security(("oauth2" = ["script:write"])), responses((status = 204)),
)]
async fn remove_script(
    permit: Permit<ScriptWrite>,
    State(app): State<App>,
    PathOf(sha256): PathOf<Sha256Text>,
) -> Result<StatusCode, Problem> {
    audit::commit(&app, permit.author(), move |tx| {
        super::remove(tx, sha256.as_str())
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
