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
    pub passkey: String,
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
    passkey: address("passkey.js"),
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
            &addresses.passkey,
            &addresses.icon,
        ] {
            let name = path.strip_prefix("/assets/").expect("it is under /assets/");
            assert!(ASSETS.iter().any(|(_, asset)| asset.name == name), "{path}");
        }
    }

    /// Relative luminance and contrast (WCAG 2.2, definitions) of two colors as `#rrggbb`.
    fn contrast(one: &str, other: &str) -> f64 {
        let luminance = |color: &str| {
            let channel = |at: usize| {
                let value =
                    f64::from(u8::from_str_radix(&color[at..at + 2], 16).expect("a color is hex")) / 255.0;
                if value <= 0.04045 {
                    value / 12.92
                } else {
                    ((value + 0.055) / 1.055).powf(2.4)
                }
            };
            0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
        };
        let (one, other) = (luminance(one), luminance(other));
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    #[test]
    fn text_is_readable_in_both_themes() {
        let style = Files::get("app.css").expect("the style is embedded").data;
        let style = String::from_utf8_lossy(&style).into_owned();
        let colors = |name: &str| {
            let at = style
                .find(&format!("--{name}: light-dark("))
                .expect("the color is defined");
            let pair = style[at..].split(['(', ')']).nth(1).expect("it has two values");
            let (light, dark) = pair.split_once(", ").expect("it has two values");
            [light.to_owned(), dark.to_owned()]
        };
        let mut pairs = vec![("accent-ink", "accent")];
        for tone in ["good", "bad", "warn", "wait", "off"] {
            pairs.extend([(tone, "surface"), (tone, tone)]);
        }
        for ground in ["paper", "surface", "sunken"] {
            pairs.extend([("ink", ground), ("muted", ground), ("accent", ground)]);
        }
        for (text, ground) in pairs {
            let ground = if text == ground {
                format!("{ground}-soft")
            } else {
                ground.to_owned()
            };
            for (text_color, ground_color) in colors(text).iter().zip(&colors(&ground)) {
                let ratio = contrast(text_color, ground_color);
                assert!(
                    ratio >= 4.5,
                    "{text} {text_color} on {ground} {ground_color}: {ratio:.2}"
                );
            }
        }
    }

    /// What tenants choose is checked against these.
    #[test]
    fn the_colors_against_which_accents_are_checked_are_those_of_the_style_sheet() {
        use muster_control::branding::colors::{DARK, LIGHT};
        let style = Files::get("app.css").expect("the style is embedded").data;
        let style = String::from_utf8_lossy(&style).into_owned();
        let mut pairs = vec![
            ("accent-ink", LIGHT.on_accent, DARK.on_accent),
            ("surface", LIGHT.surface, DARK.surface),
            ("ink", LIGHT.ink, DARK.ink),
        ];
        for (light, dark) in LIGHT.grounds.iter().zip(DARK.grounds) {
            assert_eq!(light.0, dark.0);
            pairs.push((light.0, light.1, dark.1));
        }
        for (name, light, dark) in pairs {
            let wanted = format!("--{name}: light-dark({light}, {dark});");
            assert!(style.contains(&wanted), "{wanted}");
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
