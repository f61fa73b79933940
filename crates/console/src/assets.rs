//! Style sheet, scripts and icon: ours, inside the program, served under names that change with their content.

use std::sync::LazyLock;

use axum::{
    Router,
    extract::Path,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};
use muster_control::{App, access::problem::NOT_FOUND};
use muster_trust::key::sha256;
use rust_embed::Embed;

use crate::shell::Refusal;

#[derive(Embed)]
#[folder = "assets"]
struct Files;

/// One file as it is served.
struct Asset {
    name: String,
    media_type: &'static str,
    bytes: Vec<u8>,
}

/// Where pages find the files.
pub struct Addresses {
    pub style: String,
    pub theme: String,
    pub script: String,
    pub signin: String,
    pub icon: String,
}

static ASSETS: LazyLock<Vec<(String, Asset)>> =
    LazyLock::new(|| Files::iter().filter_map(|name| read(&name)).collect());

/// The addresses of the files, made once.
pub static ADDRESSES: LazyLock<Addresses> = LazyLock::new(|| Addresses {
    style: address("app.css"),
    theme: address("theme.js"),
    script: address("app.js"),
    signin: address("signin.js"),
    icon: address("icon.svg"),
});

/// The route of the files.
pub fn router() -> Router<App> {
    Router::new().route("/assets/{name}", get(serve))
}

async fn serve(Path(name): Path<String>) -> Response {
    let Some((_, asset)) = ASSETS.iter().find(|(_, asset)| asset.name == name) else {
        return Refusal(NOT_FOUND.detail("There is no such file. Load the page again.")).into_response();
    };
    let mut response = asset.bytes.clone().into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.media_type));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=31536000, immutable"),
    );
    response
}

fn read(file: &str) -> Option<(String, Asset)> {
    const HASH_CHARS: usize = 16;
    let bytes = Files::get(file)?.data.into_owned();
    let (stem, extension) = file.rsplit_once('.')?;
    let media_type = match extension {
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => return None,
    };
    let hash = &sha256(&bytes).to_hex()[..HASH_CHARS];
    Some((
        file.to_owned(),
        Asset {
            name: format!("{stem}.{hash}.{extension}"),
            media_type,
            bytes,
        },
    ))
}

fn address(file: &str) -> String {
    let asset = ASSETS.iter().find(|(name, _)| name == file);
    asset
        .map(|(_, asset)| format!("/assets/{}", asset.name))
        .expect("every file that pages name is embedded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_leads_to_a_file() {
        let addresses = &ADDRESSES;
        for path in [
            &addresses.style,
            &addresses.theme,
            &addresses.script,
            &addresses.signin,
            &addresses.icon,
        ] {
            let name = path.strip_prefix("/assets/").expect("it is under /assets/");
            assert!(ASSETS.iter().any(|(_, asset)| asset.name == name), "{path}");
        }
    }

    #[test]
    fn no_script_makes_markup_from_text() {
        for (name, asset) in ASSETS.iter().filter(|(name, _)| name.ends_with(".js")) {
            let text = String::from_utf8_lossy(&asset.bytes);
            for sink in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
            ] {
                assert!(!text.contains(sink), "{name} uses {sink}");
            }
        }
    }
}
