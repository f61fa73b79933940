//! How a tenant looks on its pages, and the two files that browsers fetch for it: its logo, and a style sheet of its accent.
//!
//! The style sheet is in its address: whoever asks for other colors gets other colors, and learns of no tenant. The logo's address
//! follows from the tenant and the file.

use axum::{
    Extension, Router,
    extract::{Path, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};
use muster_control::{
    App,
    access::{
        ClientAddress,
        problem::{NOT_FOUND, Problem},
    },
    branding::{
        self, Support,
        colors::{self, Color, DARK, LIGHT},
    },
    strangers::Door,
};
use muster_model::TenantId;
use muster_storage::{Scope, Tx};

use crate::shell::Refusal;

/// What surrounds the pages of a tenant.
#[derive(Debug, Clone, Default)]
pub struct Look {
    /// What people call the tenant; empty shows the program's name.
    pub name: String,
    /// The address of its logo.
    pub logo: Option<String>,
    /// The address of its accent's style sheet.
    pub style: Option<String>,
    pub support: Support,
    /// What people read before they sign in.
    pub notice: String,
}

impl Look {
    /// How a tenant looks.
    pub fn read(tx: &mut Tx, tenant: TenantId) -> Result<Look, Problem> {
        let name = branding::name_of(tx, tenant)?;
        let Some(look) = branding::look(tx, tenant)? else {
            return Ok(Look {
                name,
                ..Look::default()
            });
        };
        Ok(Look {
            name,
            logo: look.logo.map(|logo| format!("/look/{}.png", logo.address)),
            style: look.accent.map(|accent| style_of(&accent.light, &accent.dark)),
            support: look.support,
            notice: look.signin_notice,
        })
    }

    /// The lines of the notice.
    pub fn lines(&self) -> std::str::Lines<'_> {
        self.notice.lines()
    }
}

/// As [`Look::read`], outside of a transaction.
pub async fn look_of(app: &App, tenant: TenantId) -> Result<Look, Problem> {
    app.db
        .read(Scope::Tenant(tenant.uuid()), move |tx| Look::read(tx, tenant))
        .await
}

/// The address of the style sheet of an accent.
fn style_of(light: &str, dark: &str) -> String {
    let digits = |color: &str| color.trim_start_matches('#').to_owned();
    format!("/look/{}-{}.css", digits(light), digits(dark))
}

pub fn router() -> Router<App> {
    Router::new().route("/look/{file}", get(serve))
}

async fn serve(
    State(app): State<App>,
    Path(file): Path<String>,
    from: Option<Extension<ClientAddress>>,
) -> Result<Response, Refusal> {
    if file.ends_with(".png") {
        let from = from.and_then(|Extension(ClientAddress(address))| address);
        app.strangers.take(Door::Logo, from)?;
    }
    let found = match file.rsplit_once('.') {
        Some((address, "png")) => branding::logo_at(&app, address)
            .await?
            .map(|bytes| ("image/png", bytes)),
        Some((colors, "css")) => style(colors).map(|text| ("text/css; charset=utf-8", text.into_bytes())),
        _ => None,
    };
    let (media_type, bytes) =
        found.ok_or_else(|| NOT_FOUND.detail("There is no such file. Load the page again."))?;
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=31536000, immutable"),
    );
    Ok(response)
}

/// The style sheet of two colors that can be read.
fn style(colors: &str) -> Option<String> {
    let (light, dark) = colors.split_once('-')?;
    let color = |digits: &str| format!("#{digits}").parse::<Color>().ok();
    let (light, dark) = (color(light)?, color(dark)?);
    let is_readable = colors::check(light, &LIGHT).is_ok() && colors::check(dark, &DARK).is_ok();
    is_readable.then(|| colors::style(light, dark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_style_sheet_is_made_of_two_readable_colors_and_of_nothing_else() {
        let made = style("7a1fa2-d9a5ee").expect("both can be read");
        assert!(
            made.starts_with(":root { --accent: light-dark(#7a1fa2, #d9a5ee);"),
            "{made}"
        );
        for other in [
            "",
            "-",
            "7a1fa2",
            "ffcc00-d9a5ee",
            "7a1fa2-7a1fa2",
            "7a1fa2-d9a5ee-7a1fa2",
            "7a1fa2-d9a5e}",
        ] {
            assert_eq!(style(other), None, "{other}");
        }
    }
}
