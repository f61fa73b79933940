//! The way to a SAML identity provider and back, our metadata, and the end of sessions.

use axum::{
    Form, Router,
    extract::{DefaultBodyLimit, Path, Query, RawQuery, Request, State, rejection::FormRejection},
    http::{Extensions, HeaderMap, StatusCode, header},
    response::{AppendHeaders, IntoResponse, Response},
    routing::{get, post},
};
use muster_control::{
    App,
    access::{
        problem::{BODY_TOO_LARGE, MALFORMED, Problem, RATE_LIMITED},
        saml::{
            self, ANSWER_BYTES_MAX, FAREWELL_COOKIE, FLOW_COOKIE_PREFIX, FLOWS_MAX, Posted, SignedOut,
            is_flow,
        },
    },
};

use super::ways_in::{COOKIE_SECONDS, Wanted, address_of, arrived, cookie, cookies, id_of};
use crate::shell::{Refusal, see_other};

/// How long the browser keeps what it needs to sign out at the provider as well.
const FAREWELL_SECONDS: u32 = 600;

pub fn router() -> Router<App> {
    let acs = post(acs).layer(DefaultBodyLimit::max(ANSWER_BYTES_MAX));
    Router::new()
        .route("/auth/saml/{id}/start", get(start))
        .route("/auth/saml/{id}/acs", acs)
        .route("/auth/saml/{id}/metadata", get(metadata))
        .route("/auth/saml/{id}/logout", get(logout))
        .route("/auth/saml/{id}/slo", get(single_logout))
}

/// Whether forms of other sites are meant to come to this path: an identity provider's page posts its answer there, and what is
/// believed of it is bound to the browser by a cookie of its own.
pub fn is_posted_by_providers(path: &str) -> bool {
    let rest = path.strip_prefix("/auth/saml/");
    rest.and_then(|rest| rest.strip_suffix("/acs"))
        .is_some_and(|id| !id.contains('/'))
}

/// The cookie of one way. The provider's page posts the answer from another site, where `Lax` would hold it back.
fn flow_cookie(flow: &str, value: &str, seconds: u32) -> String {
    format!("{FLOW_COOKIE_PREFIX}{flow}={value}; Path=/; Secure; HttpOnly; SameSite=None; Max-Age={seconds}")
}

/// A cookie that comes with links from elsewhere and with nothing else.
pub fn farewell_cookie(value: &str) -> String {
    let seconds = if value.is_empty() { 0 } else { FAREWELL_SECONDS };
    format!("{FAREWELL_COOKIE}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}")
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
    let away = saml::depart(&app, id, (purpose, session.as_ref()), wanted.next()).await?;
    let begun = cookies(&parts.headers).filter_map(|(name, _)| name.strip_prefix(FLOW_COOKIE_PREFIX));
    // What a browser began many times and never ended is forgotten, so that its requests do not grow; it names the oldest first.
    let begun: Vec<&str> = begun.filter(|flow| is_flow(flow)).collect();
    let forgotten = begun.len().saturating_sub(FLOWS_MAX - 1);
    let mut set: Vec<_> = begun[..forgotten]
        .iter()
        .map(|flow| (header::SET_COOKIE, flow_cookie(flow, "", 0)))
        .collect();
    set.push((
        header::SET_COOKIE,
        flow_cookie(&away.flow, &away.cookie, COOKIE_SECONDS),
    ));
    Ok((AppendHeaders(set), see_other(&away.location)).into_response())
}

/// Takes an answer (assertion consumer service; SAML Bindings, section 3.5).
async fn acs(
    State(app): State<App>,
    Path(id): Path<String>,
    extensions: Extensions,
    headers: HeaderMap,
    form: Result<Form<Posted>, FormRejection>,
) -> Result<Response, Refusal> {
    let id = id_of(&id)?;
    let from = address_of(&extensions);
    let Form(posted) = form.map_err(|rejection| unreadable(&rejection))?;
    let flow = posted.flow().map(str::to_owned);
    let kept = flow
        .as_ref()
        .and_then(|flow| cookie(&headers, &format!("{FLOW_COOKIE_PREFIX}{flow}")));
    let arrival = saml::arrive(&app, id, posted, (kept, from)).await;
    // Whatever came of it, the way is at its end; who came too often tries again.
    let is_over = kept.is_some() && !matches!(&arrival, Err(problem) if problem.kind == RATE_LIMITED);
    let response = match arrival {
        Ok(arrival) => arrived(&app, arrival).await.into_response(),
        Err(problem) => Refusal(problem).into_response(),
    };
    let gone = flow
        .filter(|_| is_over)
        .map(|flow| (header::SET_COOKIE, flow_cookie(&flow, "", 0)));
    Ok((AppendHeaders(gone), response).into_response())
}

fn unreadable(rejection: &FormRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return BODY_TOO_LARGE.detail("Your identity provider sent more than is read here.");
    }
    MALFORMED.detail("Your identity provider sent no answer: SAMLResponse is missing, or is there twice.")
}

async fn metadata(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let text = saml::metadata(&app, id_of(&id)?).await?;
    let kind = [(header::CONTENT_TYPE, "application/samlmetadata+xml")];
    Ok((kind, text).into_response())
}

/// Sends the browser on to end its session at the provider as well.
async fn logout(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let kept = cookie(&headers, FAREWELL_COOKIE);
    let (location, value) = saml::leave(&app, id_of(&id)?, kept).await?;
    let set = [(header::SET_COOKIE, farewell_cookie(&value))];
    Ok((AppendHeaders(set), see_other(&location)).into_response())
}

/// Takes what the provider says about signing out (SAML Profiles, section 4.4).
async fn single_logout(
    State(app): State<App>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let kept = cookie(&headers, FAREWELL_COOKIE);
    let query = query.unwrap_or_default();
    match saml::single_logout(&app, id_of(&id)?, &query, kept).await? {
        SignedOut::Answer(location) => Ok(see_other(&location)),
        SignedOut::Here => Ok(see_other("/signin")),
        SignedOut::Everywhere => {
            let gone = [(header::SET_COOKIE, farewell_cookie(""))];
            Ok((AppendHeaders(gone), see_other("/signin?left=everywhere")).into_response())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_sites_post_to_one_path_alone() {
        assert!(is_posted_by_providers("/auth/saml/con_1/acs"));
        for other in [
            "/auth/saml/con_1/acs/",
            "/auth/saml/con_1/x/acs",
            "/auth/saml/con_1/slo",
            "/auth/oidc/con_1/acs",
            "/x/auth/saml/con_1/acs",
            "/access/connections/put",
        ] {
            assert!(!is_posted_by_providers(other), "{other}");
        }
    }

    #[test]
    fn the_cookie_of_a_way_comes_from_other_sites_and_for_this_origin_alone() {
        let cookie = flow_cookie("abcdefghijklmnop", "v", 900);
        for part in [
            "__Host-",
            "Path=/;",
            "Secure",
            "HttpOnly",
            "SameSite=None",
            "Max-Age=900",
        ] {
            assert!(cookie.contains(part), "{cookie}");
        }
        assert!(!cookie.contains("Domain"));
        assert!(farewell_cookie("").contains("Max-Age=0"));
    }
}
