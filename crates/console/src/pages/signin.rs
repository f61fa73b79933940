//! Signing in with a one-time link, and out.
//!
//! The link's secret is behind the `#`, so that no server or proxy writes it into a log. Opening the link does nothing:
//! programs that look at links before people do would use it up. The person presses the button.

use askama::Template;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use muster_control::{
    App,
    access::{self, SESSION_COOKIE, problem::UNAUTHENTICATED},
};
use serde::Deserialize;

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

#[derive(Debug, Deserialize)]
struct Wanted {
    #[serde(default)]
    next: String,
}

#[derive(Template)]
#[template(path = "signin.html")]
struct SigninPage {
    shell: Shell,
    next: String,
    /// The link that was sent is not valid any more.
    is_refused: bool,
}

async fn show(Ask(wanted): Ask<Wanted>) -> Result<Response, Refusal> {
    sign_in_page(StatusCode::OK, &wanted.next, false)
}

async fn sign_in(State(app): State<App>, fields: Fields) -> Result<Response, Refusal> {
    let next = local_path(fields.text("next")).to_owned();
    match access::sign_in(&app, secret_of(fields.text("secret"))).await {
        Ok(secret) => Ok(([(header::SET_COOKIE, cookie(&secret, ""))], see_other(&next)).into_response()),
        Err(problem) if problem.kind == UNAUTHENTICATED => {
            sign_in_page(StatusCode::UNAUTHORIZED, &next, true)
        }
        Err(problem) => Err(Refusal(problem)),
    }
}

async fn sign_out(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    access::end_session(&app, sent.session.page_permit()).await?;
    Ok((
        [(header::SET_COOKIE, cookie("", "; Max-Age=0"))],
        see_other("/signin"),
    )
        .into_response())
}

fn sign_in_page(status: StatusCode, next: &str, is_refused: bool) -> Result<Response, Refusal> {
    let shell = Shell::new("Sign in", Section::Other, None);
    page_with(
        status,
        &SigninPage {
            shell,
            next: local_path(next).to_owned(),
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
