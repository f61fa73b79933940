//! People enroll a device of their own: they say which, prove who they are at their identity provider, and get one token for it.
//!
//! Nobody has a session for this, and nothing happens before the provider has asked them and they have said here that they mean it: the
//! address with the device's id goes along sealed, and so does who came back, for this browser. The token is shown once.

use askama::Template;
use axum::{
    Extension, Router,
    extract::State,
    http::{HeaderMap, header},
    response::{AppendHeaders, IntoResponse, Response},
    routing::get,
};
use muster_control::{
    App,
    access::{
        ClientAddress,
        outside::Proven,
        problem::{INVALID, Problem},
    },
    clock, enrollment,
    strangers::Door,
};
use muster_model::{TenantId, text::DeviceUuid};
use serde::Deserialize;

use super::ways_in::{Offer, cookie, offer, own_device_start};
use crate::{
    form::Fields,
    look::look_of,
    qr::{self, Drawing},
    session::{Ask, encode},
    shell::{Refusal, Section, Shell, page},
    ui::When,
};

const PATH: &str = "/enroll-my-device";
/// The cookie of the browser whose person is asked whether they mean it. No other site's form brings it.
const COOKIE: &str = "__Host-muster-enroll";
/// For as long as what was proven counts.
const COOKIE_SECONDS: u32 = 300;

pub fn router() -> Router<App> {
    Router::new().route(PATH, get(show).post(make))
}

#[derive(Debug, Default, Deserialize)]
struct Wanted {
    /// The hardware UUID.
    #[serde(default)]
    device: String,
    #[serde(default)]
    company: String,
}

#[derive(Template)]
#[template(path = "own_device.html")]
struct OwnDevicePage {
    shell: Shell,
    device: String,
    is_no_device: bool,
    company: String,
    offer: Offer,
}

async fn show(
    State(app): State<App>,
    from: Option<Extension<ClientAddress>>,
    Ask(wanted): Ask<Wanted>,
) -> Result<Response, Refusal> {
    let from = from.and_then(|Extension(ClientAddress(address))| address);
    app.strangers.take(Door::Page, from)?;
    let typed = wanted.device.trim();
    let device = typed.parse::<DeviceUuid>().ok();
    let offer = match &device {
        Some(device) => offer(&app, wanted.company.trim(), &place_of(device), own_device_start).await?,
        None => Offer::default(),
    };
    page(&OwnDevicePage {
        shell: Shell {
            look: offer.look.clone(),
            ..Shell::new("Enroll my device", Section::Other, None)
        },
        is_no_device: device.is_none() && !typed.is_empty(),
        device: device.map_or_else(|| typed.to_owned(), |device| device.uuid().to_string()),
        company: wanted.company,
        offer,
    })
}

/// The address that goes to the provider and back.
fn place_of(device: &DeviceUuid) -> String {
    format!("{PATH}?device={}", encode(&device.uuid().to_string()))
}

/// The device of an address that came back.
fn device_of(place: &str) -> Result<DeviceUuid, Problem> {
    let device = place
        .strip_prefix(PATH)
        .and_then(|rest| rest.strip_prefix("?device="));
    device
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| INVALID.detail("Say first which device you enroll, at /enroll-my-device."))
}

#[derive(Template)]
#[template(path = "own_device_token.html")]
struct TokenPage {
    shell: Shell,
    device: String,
    tenant: String,
    owner: String,
    token: String,
    device_url: String,
    expires: When,
    qr: Option<Drawing>,
}

#[derive(Template)]
#[template(path = "own_device_confirm.html")]
struct ConfirmPage {
    shell: Shell,
    device: String,
    tenant: String,
    owner: String,
    proof: String,
}

/// Asks somebody who has just proven who they are whether the device is theirs. Nothing is made before they say so: whoever sent them
/// here may have chosen the device.
pub async fn ask(app: &App, proven: Proven, place: &str) -> Result<Response, Refusal> {
    let device = device_of(place)?.uuid().to_string();
    let browser = clock::random_secret();
    let shown = page(&ConfirmPage {
        shell: Shell {
            look: look_of(app, proven.tenant()).await?,
            ..Shell::new("Enroll my device", Section::Other, None)
        },
        tenant: tenant_name(app, proven.tenant()).await?,
        owner: proven.name().to_owned(),
        proof: proven.kept(app, &browser, &device)?,
        device,
    })?;
    let set = [(header::SET_COOKIE, kept_cookie(&browser, COOKIE_SECONDS))];
    Ok((AppendHeaders(set), shown).into_response())
}

fn kept_cookie(value: &str, seconds: u32) -> String {
    format!("{COOKIE}={value}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={seconds}")
}

/// Shows the token of somebody who has proven who they are and means it.
async fn make(State(app): State<App>, headers: HeaderMap, fields: Fields) -> Result<Response, Refusal> {
    let device = fields.text("device").parse::<DeviceUuid>();
    let device = device.map_err(|_| INVALID.detail("That is no hardware UUID."))?;
    let shown = device.uuid().to_string();
    let proven = Proven::again(&app, cookie(&headers, COOKIE), &shown, fields.text("proof")).await?;
    let (tenant, owner) = (proven.tenant(), proven.name().to_owned());
    let made = enrollment::own_device(&app, proven, device).await?;
    let shown = page(&TokenPage {
        shell: Shell {
            look: look_of(&app, tenant).await?,
            ..Shell::new("Your token", Section::Other, None)
        },
        device: shown,
        tenant: tenant_name(&app, tenant).await?,
        owner,
        device_url: app.settings.device_url.clone(),
        expires: When::new(made.expires_at, app.clock.now()),
        qr: qr::draw(&made.secret),
        token: made.secret,
    })?;
    let gone = [(header::SET_COOKIE, kept_cookie("", 0))];
    Ok((AppendHeaders(gone), shown).into_response())
}

async fn tenant_name(app: &App, tenant: TenantId) -> Result<String, Problem> {
    let tenants = app
        .db
        .read(muster_storage::Scope::System, muster_control::access::tenants)
        .await?;
    let name = tenants
        .into_iter()
        .find(|(id, _)| *id == tenant)
        .map(|(_, name)| name);
    Ok(name.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_comes_back_as_it_went() {
        let device: DeviceUuid = "9b2f0c3e-1111-4222-8333-444455556666".parse().expect("it is one");
        assert_eq!(
            device_of(&place_of(&device)).expect("it is one").uuid(),
            device.uuid()
        );
        for wrong in [
            "/",
            "/devices",
            "/enroll-my-device",
            "/enroll-my-device?device=",
            "/enroll-my-device?device=x",
        ] {
            assert!(device_of(wrong).is_err(), "{wrong}");
        }
    }
}
