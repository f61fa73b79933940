//! Route of outputs.

use axum::{
    extract::State,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use muster_model::CommandId;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Output;
use crate::{
    App,
    access::{
        Permit,
        problem::Problem,
        request::PathOf,
        scope::{CommandRead, OutputRead},
    },
};

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_output))
}

/// What a command printed or collected: `text/plain` of the receipt, or `application/gzip` of an upload (a `tar.gz` of
/// `collect-files`). It is what a device sent: treat it as such.
#[utoipa::path(
    get, path = "/commands/{id}/output", tag = "commands", params(("id" = String, Path)),
    security(("oauth2" = ["command:read", "output:read"])),
    responses((status = 200, body = Vec<u8>, content_type = "application/gzip")),
)]
async fn get_output(
    permit: Permit<(CommandRead, OutputRead)>,
    State(app): State<App>,
    PathOf(id): PathOf<CommandId>,
) -> Result<Response, Problem> {
    let tenant = permit.tenant();
    let output = app
        .db
        .read(permit.storage(), move |tx| super::get(tx, tenant, id))
        .await?;
    output.download(id)
}

impl Output {
    /// The answer with the output as a file, for a browser that is to store it and to make nothing of it.
    pub fn download(self, id: CommandId) -> Result<Response, Problem> {
        let (bytes, media_type, ending) = match self {
            Output::Text(text) => (text.into_bytes(), "text/plain; charset=utf-8", "txt"),
            Output::Gzip { bytes, kind } if kind == "collect-files" => (bytes, "application/gzip", "tar.gz"),
            Output::Gzip { bytes, .. } => (bytes, "application/gzip", "gz"),
        };
        let name = format!("attachment; filename=\"{id}.{ending}\"");
        let mut response = bytes.into_response();
        let headers = response.headers_mut();
        for (header, value) in [
            (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
            (
                header::CONTENT_DISPOSITION,
                HeaderValue::from_str(&name).map_err(Problem::internal)?,
            ),
            // It came from a device: no browser is to guess what it is.
            (
                HeaderName::from_static("x-content-type-options"),
                HeaderValue::from_static("nosniff"),
            ),
            (
                header::CACHE_CONTROL,
                HeaderValue::from_static("private, no-store"),
            ),
        ] {
            headers.insert(header, value);
        }
        Ok(response)
    }
}
