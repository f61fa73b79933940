//! Routes of how a tenant looks.

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, Request, State},
    http::{StatusCode, header},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Accent, Look, Support, Wanted};
use crate::{
    App,
    access::{
        Permit,
        problem::{BODY_TOO_LARGE, Problem, UNSUPPORTED_MEDIA_TYPE},
        request::Body,
        scope::{AccessRead, AccessWrite},
    },
};

const PNG: &str = "image/png";

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_branding, put_branding))
        .routes(routes!(put_branding_logo, delete_branding_logo))
}

/// How a tenant looks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct BrandingView {
    /// What people read in the header, on the sign-in page and in mails; empty shows the tenant's name.
    pub display_name: String,
    /// Absent shows Muster's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accent: Option<Accent>,
    pub support: Support,
    /// What people read before they sign in.
    pub signin_notice: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logo: Option<LogoView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<String>,
}

/// A logo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct LogoView {
    /// Where browsers fetch it; another one for other content.
    pub url: String,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// A look as the API shows it.
pub fn view(admin_url: &str, look: Option<Look>) -> BrandingView {
    let Some(look) = look else {
        return BrandingView {
            display_name: String::new(),
            accent: None,
            support: Support::default(),
            signin_notice: String::new(),
            logo: None,
            changed_by: None,
            changed_at: None,
        };
    };
    BrandingView {
        display_name: look.display_name,
        accent: look.accent,
        support: look.support,
        signin_notice: look.signin_notice,
        logo: look.logo.map(|logo| LogoView {
            url: format!("{admin_url}/look/{}.png", logo.address),
            width: logo.width,
            height: logo.height,
        }),
        changed_by: Some(look.changed_by),
        changed_at: Some(look.changed_at.to_string()),
    }
}

async fn shown<S>(app: &App, permit: &Permit<S>) -> Result<Json<BrandingView>, Problem> {
    let tenant = permit.tenant();
    let look = app
        .db
        .read(permit.storage(), move |tx| super::look(tx, tenant))
        .await?;
    Ok(Json(view(&app.settings.admin_url, look)))
}

/// How the tenant looks to its own people.
#[utoipa::path(
    get, path = "/settings/branding", tag = "branding", security(("oauth2" = ["access:read"])),
    responses((status = 200, body = BrandingView)),
)]
async fn get_branding(
    permit: Permit<AccessRead>,
    State(app): State<App>,
) -> Result<Json<BrandingView>, Problem> {
    shown(&app, &permit).await
}

/// Sets how the tenant looks, all of it but the logo: what is absent is Muster's own. An accent that cannot be read in the console is
/// refused with what it stands on.
#[utoipa::path(
    put, path = "/settings/branding", tag = "branding", security(("oauth2" = ["access:write"])), request_body = Wanted,
    responses((status = 200, body = BrandingView)),
)]
async fn put_branding(
    permit: Permit<AccessWrite>,
    State(app): State<App>,
    Body(wanted): Body<Wanted>,
) -> Result<Json<BrandingView>, Problem> {
    super::put(&app, permit.author(), wanted).await?;
    shown(&app, &permit).await
}

/// Sets the tenant's logo: a PNG of at most 64 KiB, 16 to 1024 pixels a side, not interlaced. What in the file is no part of the picture
/// is left out.
#[utoipa::path(
    put, path = "/settings/branding/logo", tag = "branding", security(("oauth2" = ["access:write"])),
    request_body(content = Vec<u8>, content_type = "image/png"), responses((status = 200, body = BrandingView)),
)]
async fn put_branding_logo(
    permit: Permit<AccessWrite>,
    State(app): State<App>,
    request: Request,
) -> Result<Json<BrandingView>, Problem> {
    let media_type = request.headers().get(header::CONTENT_TYPE);
    if media_type.is_none_or(|media_type| media_type.as_bytes() != PNG.as_bytes()) {
        return Err(UNSUPPORTED_MEDIA_TYPE.detail("Send the logo as image/png."));
    }
    let file = Bytes::from_request(request, &app)
        .await
        .map_err(|_| BODY_TOO_LARGE.detail("The body is over the limit of this call, or broke off."))?;
    super::put_logo(&app, permit.author(), &file).await?;
    shown(&app, &permit).await
}

/// Takes the tenant's logo away.
#[utoipa::path(
    delete, path = "/settings/branding/logo", tag = "branding", security(("oauth2" = ["access:write"])),
    responses((status = 204)),
)]
async fn delete_branding_logo(
    permit: Permit<AccessWrite>,
    State(app): State<App>,
) -> Result<StatusCode, Problem> {
    super::remove_logo(&app, permit.author()).await?;
    Ok(StatusCode::NO_CONTENT)
}
