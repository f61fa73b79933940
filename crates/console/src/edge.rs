//! What surrounds every request of the admin listener: its id, the headers of every answer, and where a panic ends.

use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use muster_control::{
    App,
    access::budget,
    access::problem::{CSRF, INTERNAL, METHOD_NOT_ALLOWED, NOT_FOUND, Problem},
    trace::{with_request, with_work},
};

use crate::{pages::is_posted_by_providers, requests::Begun, shell::Refusal};

/// Everything is ours and from here; nothing runs or is styled inline; no string becomes script.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
    img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SAME_ORIGIN: [(HeaderName, &str); 2] = [
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

tokio::task_local! {
    static PAGE: String;
}

/// The page that a refused form stood on, as its address says: what a form does is the last word of it.
pub fn page_of_form() -> String {
    const DEEDS: &[&str] = &[
        "retire", "revoke", "approve", "release", "reject", "cancel", "remove", "grant", "disable", "enable",
        "decide", "test", "end", "put", "delete", "settings", "logo",
    ];
    let path = PAGE.try_with(Clone::clone).unwrap_or_else(|_| "/".to_owned());
    match path.rsplit_once('/') {
        Some((page, deed)) if DEEDS.contains(&deed) && !page.is_empty() => page.to_owned(),
        _ => path,
    }
}

/// Gives every request an id, refuses forms that another site sent, turns a panic into a refusal of that request alone, and
/// sets the security headers. A client that goes away does not stop a change that has begun.
pub async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let is_api = is_api(request.uri().path());
    let path = request.uri().path().to_owned();
    let begun = Begun::read(&app, &request, is_api);
    let (context, is_told) = (begun.context, begun.is_told);
    let run = budget::told(PAGE.scope(path, async move {
        if !is_api && is_foreign_form(&request) {
            let problem = CSRF.detail("Another site sent this form. Open the console itself and repeat.");
            return Refusal(problem).into_response();
        }
        next.run(request).await
    }));
    let run = async move {
        if is_told {
            with_work(context, run).await
        } else {
            with_request(context, run).await
        }
    };
    let mut response = match tokio::spawn(run).await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(%error, request_id = %context.trace_id, "a request panicked");
            with_request(context, async {
                refuse(is_api, INTERNAL.detail("The request was not carried out."))
            })
            .await
        }
    };
    set_headers(&mut response, &context.trace_id.to_string());
    begun.end(&app, response.status());
    response
}

/// There is nothing at this path.
pub async fn not_found(request: Request) -> Response {
    refuse(
        is_api(request.uri().path()),
        NOT_FOUND.detail("There is nothing at this address."),
    )
}

/// There is something at this path, but not for this method.
pub async fn method_not_allowed(request: Request) -> Response {
    refuse(
        is_api(request.uri().path()),
        METHOD_NOT_ALLOWED.detail("The address takes another method."),
    )
}

fn refuse(is_api: bool, problem: Problem) -> Response {
    if is_api {
        problem.into_response()
    } else {
        Refusal(problem).into_response()
    }
}

/// Whether programs, not people, ask under this path.
fn is_api(path: &str) -> bool {
    ["/api/", "/oauth2/", "/scim/", "/signals/", "/.well-known/"]
        .iter()
        .any(|prefix| path.starts_with(prefix))
}

/// Browsers say where a request comes from (Fetch Metadata); what says nothing is judged by its token alone. `Origin` is no
/// help here: under `Referrer-Policy: no-referrer` a browser sends `null` even from our own pages.
fn is_foreign_form(request: &Request) -> bool {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    let site = request.headers().get(FETCH_SITE);
    let is_meant = is_posted_by_providers(request.uri().path());
    changes && !is_meant && site.is_some_and(|site| site != "same-origin" && site != "none")
}

fn set_headers(response: &mut Response, id: &str) {
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in fixed.into_iter().chain(SAME_ORIGIN) {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
}
