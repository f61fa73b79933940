//! The way to an identity provider and back, and what a provider calls itself.

use axum::{
    Form, Json, Router,
    extract::{FromRequestParts, Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use muster_control::{
    App,
    access::{
        PagePermit, SESSION_COOKIE,
        oidc::{self, Answer, Arrival, FLOW_COOKIE, Purpose},
        outside::Admission,
        problem::{INVALID, NO_ROLE, NOT_FOUND, Problem, SIGN_IN_REFUSED},
    },
};
use muster_model::ConnectionId;
use muster_storage::Scope;
use serde::Deserialize;

use super::step_up::with_notice;
use crate::{
    session::local_path,
    shell::{Refusal, see_other},
};

/// How long the browser keeps the cookie of a sign-in.
const COOKIE_SECONDS: u32 = 900;

pub fn router() -> Router<App> {
    Router::new()
        .route("/auth/oidc/{id}/start", get(start))
        .route("/auth/oidc/{id}/callback", get(callback))
        .route("/auth/oidc/{id}/logout", get(logout))
        .route("/auth/oidc/{id}/backchannel-logout", post(backchannel_logout))
        .route("/auth/oidc/{id}/jwks", get(jwks))
}

fn id_of(text: &str) -> Result<ConnectionId, Problem> {
    text.parse()
        .map_err(|_| NOT_FOUND.detail("There is no such way to sign in. Ask whoever sent you here."))
}

/// The value of the cookie of a sign-in.
fn flow_cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == FLOW_COOKIE).then_some(value))
}

#[derive(Debug, Deserialize)]
struct Wanted {
    #[serde(default)]
    next: String,
    #[serde(default)]
    purpose: String,
}

async fn start(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(wanted): Query<Wanted>,
    request: Request,
) -> Result<Response, Refusal> {
    let id = id_of(&id)?;
    let (mut parts, _) = request.into_parts();
    let next = local_path(&wanted.next).to_owned();
    let (purpose, session) = if wanted.purpose == "step-up" {
        let session = PagePermit::from_request_parts(&mut parts, &app).await?;
        if session.connection() != Some(id) {
            return Err(Refusal(
                INVALID.detail("You signed in another way. Prove who you are there."),
            ));
        }
        (Purpose::StepUp, Some(session))
    } else {
        (Purpose::SignIn, None)
    };
    let browser = flow_cookie(&parts.headers);
    let away = oidc::depart(&app, id, browser, (purpose, session.as_ref()), &next).await?;
    let cookie = format!(
        "{FLOW_COOKIE}={}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={COOKIE_SECONDS}",
        away.cookie
    );
    Ok(([(header::SET_COOKIE, cookie)], see_other(&away.location)).into_response())
}

async fn callback(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(answer): Query<Answer>,
    request: Request,
) -> Result<Response, Refusal> {
    let id = id_of(&id)?;
    let (mut parts, _) = request.into_parts();
    // Whoever proves again who they are has a session; whoever signs in may have none.
    let session = PagePermit::from_request_parts(&mut parts, &app).await.ok();
    let arrival = oidc::arrive(&app, id, flow_cookie(&parts.headers), session.as_ref(), answer).await?;
    match arrival {
        Arrival::SteppedUp { next } => Ok(see_other(&with_notice(local_path(&next), "proven"))),
        Arrival::Admitted {
            admission: Admission::Session(secret),
            next,
        } => {
            let cookie = format!("{SESSION_COOKIE}={secret}; Path=/; Secure; HttpOnly; SameSite=Lax");
            Ok(([(header::SET_COOKIE, cookie)], see_other(local_path(&next))).into_response())
        }
        Arrival::Admitted {
            admission: Admission::NoRole { person, groups },
            ..
        } => Err(Refusal(no_role(&person, &groups))),
        Arrival::Admitted {
            admission: Admission::Disabled { person },
            ..
        } => Err(Refusal(SIGN_IN_REFUSED.detail(format!(
            "{person} is disabled here. Ask somebody who gives roles."
        )))),
    }
}

fn no_role(person: &str, groups: &[String]) -> Problem {
    const SHOWN: usize = 10;
    let groups = match groups {
        [] => "Your identity provider named no group of yours.".to_owned(),
        some => {
            let shown: Vec<&str> = some.iter().take(SHOWN).map(String::as_str).collect();
            let more = if some.len() > SHOWN { " and others" } else { "" };
            format!(
                "Your groups, as your identity provider says: {}{more}.",
                shown.join(", ")
            )
        }
    };
    NO_ROLE.detail(format!(
        "You are known now as {person}, and neither you nor a group of yours has a role. {groups} Whoever gives roles finds you \
         under Access, and you come in as soon as you have one."
    ))
}

/// Sends the browser on to end its session at the provider as well.
async fn logout(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let place = oidc::end_at_provider(&app, id_of(&id)?).await?;
    Ok(see_other(place.as_deref().unwrap_or("/signin")))
}

#[derive(Deserialize)]
struct LogoutForm {
    logout_token: String,
}

/// The provider says that a session there is over (Back-Channel Logout 1.0, section 2.5).
async fn backchannel_logout(
    State(app): State<App>,
    Path(id): Path<String>,
    form: Result<Form<LogoutForm>, axum::extract::rejection::FormRejection>,
) -> Result<Response, Problem> {
    let Form(form) = form.map_err(|_| INVALID.detail("Send logout_token in a form."))?;
    match oidc::logged_out(&app, id_of(&id)?, &form.logout_token).await {
        Ok(_) => Ok((StatusCode::OK, [(header::CACHE_CONTROL, "no-store")]).into_response()),
        // Section 2.8: what is wrong with the request is answered with 400.
        Err(problem) if problem.kind == SIGN_IN_REFUSED => Err(INVALID.detail(problem.detail)),
        Err(problem) => Err(problem),
    }
}

async fn jwks(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Problem> {
    Ok(Json(oidc::public_keys(&app, id_of(&id)?).await?).into_response())
}

/// What the sign-in page offers.
#[derive(Debug, Default)]
pub struct Offer {
    /// Address and name of each connection.
    pub ways: Vec<(String, String)>,
    /// Whether the person has to say whose connections they mean.
    pub asks_company: bool,
    pub is_unknown: bool,
}

/// The connections of the company that is named, or of the only one.
pub async fn offer(app: &App, company: &str, next: &str) -> Result<Offer, Problem> {
    let (company, next) = (company.to_owned(), next.to_owned());
    app.db
        .read(Scope::System, move |tx| {
            let tenants = muster_control::access::tenants(tx)?;
            let found = match (company.as_str(), tenants.as_slice()) {
                ("", [(only, _)]) => Some(*only),
                ("", _) => None,
                (name, all) => all.iter().find(|(_, known)| known == name).map(|(id, _)| *id),
            };
            let ways = match found {
                Some(tenant) => oidc::offered(tx, tenant)?,
                None => Vec::new(),
            };
            let way = |(id, name): (ConnectionId, String)| {
                let next = crate::session::encode(&next);
                (format!("/auth/oidc/{id}/start?next={next}"), name)
            };
            Ok::<_, Problem>(Offer {
                asks_company: tenants.len() > 1,
                is_unknown: !company.is_empty() && ways.is_empty(),
                ways: ways.into_iter().map(way).collect(),
            })
        })
        .await
}
