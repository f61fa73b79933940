//! Sessions, forgery, headers.

use axum::http::{Method, StatusCode};

use crate::testing::{Answer, Scene};

/// Every page that needs a person.
const PAGES: &[&str] = &[
    "/",
    "/devices",
    "/query",
    "/policies",
    "/policies/new",
    "/settings",
    "/rollouts",
    "/commands",
    "/alerts",
    "/alerts/deliveries",
    "/alerts/destinations",
    "/alerts/destinations/new",
    "/signals",
    "/sinks",
    "/sinks/new",
    "/sinks/new?kind=syslog",
    "/log",
    "/tokens",
    "/tokens/new",
    "/tokens/table",
    "/quarantine",
    "/enrollment-policy",
    "/approvals",
    "/operations",
    "/passkeys",
    "/halt",
    "/commands/new",
    "/access",
    "/access/roles",
    "/access/sessions",
    "/access/connections",
    "/access/routing",
    "/access/me",
    "/branding",
    "/step-up",
];

/// Every form, with an id where one is needed.
pub fn forms() -> Vec<String> {
    let (dev, pol) = (format!("dev_{:032x}", 1), format!("pol_{:032x}", 1));
    let (rol, cmd) = (format!("rol_{:032x}", 1), format!("cmd_{:032x}", 1));
    vec![
        "/signout".to_owned(),
        "/query/refresh".to_owned(),
        "/query/save".to_owned(),
        "/query/saved/x/delete".to_owned(),
        "/halt".to_owned(),
        "/step-up".to_owned(),
        "/access/grant".to_owned(),
        "/access/revoke".to_owned(),
        "/access/disable".to_owned(),
        "/access/enable".to_owned(),
        "/access/roles/put".to_owned(),
        "/access/roles/delete".to_owned(),
        "/access/sessions/settings".to_owned(),
        format!("/access/sessions/ses_{:032x}/end", 1),
        "/access/connections/put".to_owned(),
        "/access/connections/corp/test".to_owned(),
        "/access/connections/corp/delete".to_owned(),
        "/access/routing/put".to_owned(),
        "/access/routing/remove".to_owned(),
        "/access/routing/accept".to_owned(),
        "/access/routing/withdraw".to_owned(),
        "/access/routing/decide".to_owned(),
        "/access/routing/own-devices".to_owned(),
        "/branding".to_owned(),
        "/branding/logo".to_owned(),
        "/branding/logo/remove".to_owned(),
        format!("/tenants/tnt_{:032x}/limits", 1),
        "/halt/lift".to_owned(),
        "/passkeys".to_owned(),
        format!("/passkeys/{}/remove", "0".repeat(64)),
        "/commands/new".to_owned(),
        format!("/operations/{}/approve", uuid::Uuid::nil()),
        format!("/operations/{}/reject", uuid::Uuid::nil()),
        format!("/operations/{}/release", uuid::Uuid::nil()),
        format!("/operations/{}/cancel", uuid::Uuid::nil()),
        format!("/alerts/alr_{:032x}/acknowledge", 1),
        format!("/alerts/alr_{:032x}/resolve", 1),
        format!("/alerts/deliveries/dlv_{:032x}/replay", 1),
        "/alerts/destinations".to_owned(),
        "/alerts/destinations/nobody/edit".to_owned(),
        "/alerts/destinations/nobody/remove".to_owned(),
        "/alerts/destinations/nobody/test".to_owned(),
        "/sinks/nobody/test".to_owned(),
        "/sinks/nobody/pause".to_owned(),
        "/sinks/nobody/resume".to_owned(),
        "/sinks/nobody/replay-dead".to_owned(),
        "/sinks".to_owned(),
        "/sinks/nobody/edit".to_owned(),
        "/sinks/nobody/remove".to_owned(),
        "/alerts/silences".to_owned(),
        format!("/alerts/silences/sil_{:032x}/end", 1),
        "/tokens".to_owned(),
        "/tokens/table".to_owned(),
        "/tokens/table/csv".to_owned(),
        "/enrollment-policy".to_owned(),
        "/policies".to_owned(),
        format!("/policies/{pol}/versions"),
        format!("/policies/{pol}/activate"),
        format!("/devices/{dev}/commands"),
        format!("/devices/{dev}/decide"),
        format!("/devices/{dev}/retire"),
        format!("/devices/{dev}/revoke"),
        format!("/commands/{cmd}/cancel"),
        format!("/rollouts/{rol}/pause"),
        format!("/rollouts/{rol}/promote"),
        format!("/rollouts/{rol}/abort"),
        format!("/rollouts/{rol}/rollback"),
    ]
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer
        .headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

#[tokio::test]
async fn whoever_is_signed_out_is_sent_to_sign_in_and_back() {
    let scene = Scene::new().await;
    for path in PAGES {
        let answer = scene.send(Method::GET, path, &[], "").await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{path}");
        assert_eq!(
            answer.location(),
            format!("/signin?next={}", crate::session::encode(path))
        );
    }
    for path in forms() {
        let answer = scene.send(Method::POST, &path, &[], "csrf=").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    let page = scene.send(Method::GET, "/signin?next=%2Fdevices", &[], "").await;
    assert!(
        page.body.contains(r#"name="next" value="/devices""#),
        "{}",
        page.body
    );
}

#[tokio::test]
async fn a_link_signs_in_once() {
    let scene = Scene::new().await;
    let form = format!("secret={}", scene.link("ada").await);
    let first = scene.send(Method::POST, "/signin", &[], &form).await;
    assert_eq!(first.status, StatusCode::SEE_OTHER);
    let cookie = header(&first, "set-cookie");
    assert!(
        cookie.starts_with("__Host-muster=") && cookie.contains("; Secure; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );
    let second = scene.send(Method::POST, "/signin", &[], &form).await;
    assert_eq!(second.status, StatusCode::UNAUTHORIZED);
    assert!(
        second
            .body
            .contains("muster console-link --admin-file DIR/admin.json"),
        "{}",
        second.body
    );
}

#[tokio::test]
async fn a_link_expires() {
    let scene = Scene::new().await;
    let form = format!("secret={}", scene.link("ada").await);
    scene.pass_seconds(3601);
    let late = scene.send(Method::POST, "/signin", &[], &form).await;
    assert_eq!(late.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn signing_in_never_leads_to_another_site() {
    let scene = Scene::new().await;
    for (next, leads_to) in [
        ("%2F%2Fevil.example", "/"),
        ("https%3A%2F%2Fevil.example", "/"),
        ("%2Flog", "/log"),
    ] {
        let form = format!("secret={}&next={next}", scene.link("ada").await);
        let answer = scene.send(Method::POST, "/signin", &[], &form).await;
        assert_eq!(answer.location(), leads_to, "{next}");
    }
}

#[tokio::test]
async fn a_session_ends_when_idle_and_when_signed_out() {
    let scene = Scene::new().await;
    assert_eq!(scene.get("/devices").await.status, StatusCode::OK);
    scene.pass_seconds(16 * 60);
    assert_eq!(scene.get("/devices").await.status, StatusCode::SEE_OTHER);

    let scene = Scene::new().await;
    let out = scene.post("/signout", &[]).await;
    assert_eq!((out.status, out.location()), (StatusCode::SEE_OTHER, "/signin"));
    assert!(header(&out, "set-cookie").contains("Max-Age=0"));
    assert_eq!(
        scene.get("/devices").await.status,
        StatusCode::SEE_OTHER,
        "the server forgot the session"
    );
}

#[tokio::test]
async fn j10_no_form_works_without_the_token_of_its_session() {
    let scene = Scene::new().await;
    let other = scene.sign_in("ada").await;
    for path in forms() {
        for form in ["", "csrf=", "csrf=00", &format!("csrf={}", scene.csrf())] {
            // The last one is a true token, of another session.
            let answer = scene.send(Method::POST, &path, &[("cookie", &other)], form).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path} {form}");
        }
    }
}

#[tokio::test]
async fn j10_a_form_from_another_site_is_refused() {
    let scene = Scene::new().await;
    let form = format!("csrf={}&name=x", scene.csrf());
    for site in ["cross-site", "same-site"] {
        let headers = [("cookie", scene.cookie.as_str()), ("sec-fetch-site", site)];
        let answer = scene.send(Method::POST, "/policies", &headers, &form).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{site}");
    }
    let json = [("cookie", scene.cookie.as_str()), ("content-type", "text/plain")];
    let answer = scene.send(Method::POST, "/policies", &json, &form).await;
    assert_eq!(
        answer.status,
        StatusCode::BAD_REQUEST,
        "a form has the content type of a form"
    );
}

#[tokio::test]
async fn a4_the_api_does_not_accept_the_cookie_and_pages_do_not_accept_tokens() {
    let scene = Scene::new().await;
    assert_eq!(
        scene.get("/api/v1/devices").await.status,
        StatusCode::UNAUTHORIZED
    );
    let every = muster_control::access::scope::every();
    let (token, _) = muster_control::access::tokens::issue_access(
        &scene.app.keys,
        &scene.issue(scene.client, &every),
        scene.app.clock.now(),
    )
    .expect("a token can be issued");
    let answer = scene
        .send(
            Method::GET,
            "/devices",
            &[("authorization", &format!("Bearer {token}"))],
            "",
        )
        .await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let scene = Scene::new().await;
    for path in [
        "/",
        "/signin",
        "/nothing",
        "/api/v1/devices",
        "/api/v1/docs",
        "/errors/not_found",
        "/log",
    ] {
        let answer = scene.get(path).await;
        assert_eq!(
            header(&answer, "content-security-policy"),
            crate::edge::CONTENT_SECURITY_POLICY,
            "{path}"
        );
        assert_eq!(header(&answer, "x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header(&answer, "referrer-policy"), "no-referrer", "{path}");
        assert_eq!(header(&answer, "x-request-id").len(), 32, "{path}");
        assert!(!header(&answer, "cache-control").is_empty(), "{path}");
        assert!(
            answer.headers.get("access-control-allow-origin").is_none(),
            "{path}"
        );
    }
    let policy = crate::edge::CONTENT_SECURITY_POLICY;
    for part in [
        "default-src 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "require-trusted-types-for 'script'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"));
}

#[tokio::test]
async fn programs_get_problems_and_people_get_pages() {
    let scene = Scene::new().await;
    for (method, path, status) in [
        (Method::GET, "/api/v1/nothing", StatusCode::NOT_FOUND),
        (Method::PATCH, "/api/v1/devices", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let answer = scene.send(method, path, &[], "").await;
        assert_eq!(
            (answer.status, header(&answer, "content-type")),
            (status, "application/problem+json"),
            "{path}"
        );
    }
    for (method, path, status) in [
        (Method::GET, "/nothing", StatusCode::NOT_FOUND),
        (Method::DELETE, "/devices", StatusCode::METHOD_NOT_ALLOWED),
    ] {
        let answer = scene.send(method, path, &[], "").await;
        assert_eq!(
            (answer.status, header(&answer, "content-type")),
            (status, "text/html; charset=utf-8"),
            "{path}"
        );
        assert!(
            answer.body.contains("/errors/"),
            "{path}: a page says what the error means"
        );
    }
}

#[tokio::test]
async fn files_are_cached_for_ever_under_a_name_of_their_content() {
    let scene = Scene::new().await;
    let page = scene.send(Method::GET, "/signin", &[], "").await.body;
    let at = page.find("/assets/app.").expect("the page names its style");
    let path = page[at..].split('"').next().expect("it ends");
    let answer = scene.send(Method::GET, path, &[], "").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        header(&answer, "cache-control"),
        "public, max-age=31536000, immutable"
    );
    assert_eq!(
        scene.send(Method::GET, "/assets/app.css", &[], "").await.status,
        StatusCode::NOT_FOUND
    );
}
