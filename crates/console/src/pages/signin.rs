//! Signing in with a one-time link, and out.
//!
//! The link's secret is behind the `#`, so that no server or proxy writes it into a log. Opening the link does nothing:
//! programs that look at links before people do would use it up. The person presses the button.

use std::net::IpAddr;

use askama::Template;
use axum::{
    Extension, Router,
    extract::State,
    http::{StatusCode, header},
    response::{AppendHeaders, IntoResponse, Response},
    routing::{get, post},
};
use muster_control::{
    App,
    access::{self, ClientAddress, SESSION_COOKIE, oidc, problem::UNAUTHENTICATED, saml},
    strangers::Door,
};
use muster_model::ConnectionId;
use serde::Deserialize;

use super::{
    saml::farewell_cookie,
    ways_in::{Offer, offer, start_of},
};
use crate::{
    form::{Fields, Sent},
    session::{Ask, local_path},
    shell::{Refusal, Section, Shell, page_with, see_other},
};

pub fn router() -> Router<App> {
    Router::new()
        .route("/signin", get(show).post(sign_in))
        .route("/signout", post(sign_out))
}

#[derive(Debug, Default, Deserialize)]
struct Wanted {
    #[serde(default)]
    next: String,
    /// The company whose identity providers are offered.
    #[serde(default)]
    company: String,
    /// The connection by which somebody came who has just signed out, or that they did so `everywhere`.
    #[serde(default)]
    left: String,
    /// What the connection speaks.
    #[serde(default)]
    by: String,
}

#[derive(Template)]
#[template(path = "signin.html")]
struct SigninPage {
    shell: Shell,
    next: String,
    /// The link that was sent is not valid any more.
    is_refused: bool,
    offer: Offer,
    company: String,
    /// Where the session at the identity provider is ended.
    left: Option<String>,
    /// They signed out there as well.
    is_out: bool,
}

async fn show(
    State(app): State<App>,
    from: Option<Extension<ClientAddress>>,
    Ask(wanted): Ask<Wanted>,
) -> Result<Response, Refusal> {
    app.strangers.take(Door::Page, address(from))?;
    sign_in_page(&app, StatusCode::OK, wanted, false).await
}

fn address(from: Option<Extension<ClientAddress>>) -> Option<IpAddr> {
    from.and_then(|Extension(ClientAddress(address))| address)
}

async fn sign_in(
    State(app): State<App>,
    from: Option<Extension<ClientAddress>>,
    fields: Fields,
) -> Result<Response, Refusal> {
    let from = address(from);
    app.strangers.check(Door::Link, from)?;
    let next = local_path(fields.text("next")).to_owned();
    match access::sign_in(&app, secret_of(fields.text("secret"))).await {
        Ok(secret) => {
            let set = [cookie(&secret, ""), super::visits::no_cookie()].map(|set| (header::SET_COOKIE, set));
            Ok((AppendHeaders(set), see_other(&next)).into_response())
        }
        Err(problem) if problem.kind == UNAUTHENTICATED => {
            app.strangers.failed(Door::Link, from);
            let wanted = Wanted {
                next,
                ..Wanted::default()
            };
            sign_in_page(&app, StatusCode::UNAUTHORIZED, wanted, true).await
        }
        Err(problem) => Err(Refusal(problem)),
    }
}

async fn sign_out(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.page_permit();
    // Whoever visits goes home; their own session is another one.
    if permit.visit().is_some() {
        access::visits::leave(&app, permit).await?;
        return Ok(super::visits::forgotten("/tenants?notice=visit-ended"));
    }
    // Whatever is wrong there, people sign out here.
    let farewell = saml::farewell(&app, permit).await.ok().flatten();
    let next = match (permit.connection(), permit.method()) {
        (Some(_), saml::BY_SAML) if farewell.is_none() => "/signin".to_owned(),
        (Some(id), kind) => format!("/signin?left={id}&by={kind}"),
        (None, _) => "/signin".to_owned(),
    };
    access::end_session(&app, permit).await?;
    let mut set = vec![
        (header::SET_COOKIE, cookie("", "; Max-Age=0")),
        (header::SET_COOKIE, super::visits::no_cookie()),
    ];
    set.extend(farewell.map(|kept| (header::SET_COOKIE, farewell_cookie(&kept))));
    Ok((AppendHeaders(set), see_other(&next)).into_response())
}

async fn sign_in_page(
    app: &App,
    status: StatusCode,
    wanted: Wanted,
    is_refused: bool,
) -> Result<Response, Refusal> {
    let next = local_path(&wanted.next).to_owned();
    let left = wanted.left.parse::<ConnectionId>().ok();
    let kind = if wanted.by == saml::BY_SAML {
        saml::BY_SAML
    } else {
        oidc::BY_OIDC
    };
    let offer = offer(app, wanted.company.trim(), &next, start_of).await?;
    page_with(
        status,
        &SigninPage {
            shell: Shell {
                look: offer.look.clone(),
                ..Shell::new("Sign in", Section::Other, None)
            },
            offer,
            company: wanted.company,
            left: left.map(|id| format!("/auth/{kind}/{id}/logout")),
            is_out: wanted.left == "everywhere",
            next,
            is_refused,
        },
    )
}

/// People paste the whole link or what is behind its `#`.
pub fn secret_of(pasted: &str) -> &str {
    pasted
        .rsplit_once('#')
        .map_or(pasted, |(_, secret)| secret)
        .trim()
}

/// A cookie for this origin alone that no script can read. It follows links from elsewhere, which change nothing; forms
/// carry a token of their own.
fn cookie(secret: &str, end: &str) -> String {
    format!("{SESSION_COOKIE}={secret}; Path=/; Secure; HttpOnly; SameSite=Lax{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_link_can_be_pasted() {
        assert_eq!(secret_of("https://127.0.0.1:8440/signin#abc_-1"), "abc_-1");
        assert_eq!(secret_of("abc_-1"), "abc_-1");
    }

    #[test]
    fn the_cookie_is_for_this_origin_alone() {
        let cookie = cookie("s", "");
        for part in ["__Host-muster=s", "Path=/", "Secure", "HttpOnly", "SameSite=Lax"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        assert!(!cookie.contains("Domain"));
    }
}
