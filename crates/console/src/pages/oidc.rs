//! The way to an identity provider and back, and what a provider calls itself.

use axum::{
    Form, Json, Router,
    extract::{FromRequestParts, Path, Query, Request, State},
    http::{Extensions, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use muster_control::{
    App,
    access::{
        PagePermit,
        oidc::{self, Answer, FLOW_COOKIE},
        problem::{INVALID, Problem, SIGN_IN_REFUSED},
    },
};
use serde::Deserialize;

use super::ways_in::{COOKIE_SECONDS, Wanted, address_of, arrived, cookie, id_of};
use crate::shell::{Refusal, see_other};

pub fn router() -> Router<App> {
    Router::new()
        .route("/auth/oidc/{id}/start", get(start))
        .route("/auth/oidc/{id}/callback", get(callback))
        .route("/auth/oidc/{id}/logout", get(logout))
        .route("/auth/oidc/{id}/backchannel-logout", post(backchannel_logout))
        .route("/auth/oidc/{id}/jwks", get(jwks))
}

async fn start(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(wanted): Query<Wanted>,
    request: Request,
) -> Result<Response, Refusal> {
    let id = id_of(&id)?;
    let (mut parts, _) = request.into_parts();
    let (purpose, session) = wanted.purpose(&mut parts, &app, id).await?;
    let browser = (cookie(&parts.headers, FLOW_COOKIE), address_of(&parts.extensions));
    let away = oidc::depart(&app, id, browser, (purpose, session.as_ref()), wanted.next()).await?;
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
    let from = address_of(&parts.extensions);
    // Whoever proves again who they are has a session; whoever signs in may have none.
    let session = PagePermit::from_request_parts(&mut parts, &app).await.ok();
    let browser = cookie(&parts.headers, FLOW_COOKIE);
    let arrival = oidc::arrive(&app, id, (browser, from), session.as_ref(), answer).await?;
    arrived(&app, arrival).await
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
    extensions: Extensions,
    form: Result<Form<LogoutForm>, axum::extract::rejection::FormRejection>,
) -> Result<Response, Problem> {
    let Form(form) = form.map_err(|_| INVALID.detail("Send logout_token in a form."))?;
    match oidc::logged_out(&app, id_of(&id)?, &form.logout_token, address_of(&extensions)).await {
        Ok(_) => Ok((StatusCode::OK, [(header::CACHE_CONTROL, "no-store")]).into_response()),
        // Section 2.8: what is wrong with the request is answered with 400.
        Err(problem) if problem.kind == SIGN_IN_REFUSED => Err(INVALID.detail(problem.detail)),
        Err(problem) => Err(problem),
    }
}

async fn jwks(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Problem> {
    Ok(Json(oidc::public_keys(&app, id_of(&id)?).await?).into_response())
}
