//! Every route of the table: who may not call it, and by which other spelling of its path.

use reqwest::Method;
use serde_json::Value;

use crate::support::{
    api::{Api, answer},
    raw,
    routes::{Route, all},
    server::{Options, Server},
};

/// Routes that anyone may call. More than these would be noticed here.
const PUBLIC_ROUTES_MAX: usize = 8;

fn method(route: &Route) -> Method {
    route.method.parse().expect("the table names methods")
}

fn url(api: &Api, path: &str) -> String {
    format!("{}{path}", api.origin)
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_every_route_without_credentials_is_refused() {
    let server = Server::start(Options::default()).await;
    let api = Api::anonymous(&server.admin);
    let (public, guarded): (Vec<Route>, Vec<Route>) = all().into_iter().partition(Route::is_public);
    assert!(public.len() <= PUBLIC_ROUTES_MAX, "{public:?}");
    assert!(guarded.len() > 30, "the table is there");
    for route in guarded {
        let got = answer(api.http.request(method(&route), url(&api, &route.filled()))).await;
        assert_eq!(
            (got.status, got.json()["code"].as_str()),
            (401, Some("unauthenticated")),
            "{route:?}"
        );
        assert!(got.header("www-authenticate").starts_with("Bearer"), "{route:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_every_route_with_a_token_that_lacks_its_scope_is_refused_by_name() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let scopes: Vec<String> = {
        let metadata = answer(api.http.get(url(&api, "/.well-known/oauth-authorization-server")))
            .await
            .ok();
        serde_json::from_value(metadata["scopes_supported"].clone()).expect("scopes are texts")
    };
    for scope in &scopes {
        let others: Vec<&str> = scopes
            .iter()
            .map(String::as_str)
            .filter(|other| other != scope)
            .collect();
        let routes: Vec<Route> = all()
            .into_iter()
            .filter(|route| route.scopes().any(|needed| needed == scope))
            .collect();
        let lacking = api
            .client_with(&format!("no-{}", scope.replace(':', "-")), &others)
            .await;
        for route in routes {
            let request = lacking
                .http
                .request(method(&route), url(&api, &route.filled()))
                .bearer_auth(&lacking.token);
            let said = answer(request).await.refused(403, "insufficient_scope");
            assert!(said.contains(scope.as_str()), "{route:?}: {said}");
        }
    }
    assert!(all().iter().all(|route| {
        route.is_public()
            || route
                .scopes()
                .all(|needed| scopes.iter().any(|scope| scope == needed))
    }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_a_route_is_open_to_its_own_scope_alone() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    for route in all().into_iter().filter(|route| !route.is_public()) {
        let name = format!("only-{}", route.scope.replace([':', ' '], "-"));
        let clients = api.list("/clients?limit=500").await;
        let found = clients.iter().any(|client| client["name"] == name.as_str());
        if found {
            continue;
        }
        let own: Vec<&str> = route.scopes().collect();
        let only = api.client_with(&name, &own).await;
        for other in all()
            .into_iter()
            .filter(|other| !other.is_public() && other.method == "GET")
        {
            let request = only.http.get(url(&api, &other.filled())).bearer_auth(&only.token);
            let status = answer(request).await.status;
            assert_eq!(
                status == 403,
                !other.scopes().all(|needed| own.contains(&needed)),
                "{other:?} with {} answered {status}",
                route.scope
            );
        }
    }
}

/// Other spellings of a path that some server or proxy somewhere takes for the same.
fn spellings(path: &str) -> Vec<String> {
    let (head, tail) = path.rsplit_once('/').expect("a path has a slash");
    let upper = path.to_ascii_uppercase();
    vec![
        format!("/{path}"),
        format!("{head}//{tail}"),
        format!("/.{path}"),
        format!("/x/..{path}"),
        format!("/api/v1/version/../../..{path}"),
        format!("/api/v1/version/%2e%2e/%2e%2e/%2e%2e{path}"),
        format!("/api/v1/version;{path}"),
        format!("{path};a=b"),
        format!("/.;{path}"),
        format!("/;{path}"),
        format!("{path}/"),
        format!("{path}/."),
        format!("{path}."),
        format!("{path}%00"),
        format!("{path}%20"),
        format!("{path}.json"),
        format!("{path}%2f"),
        format!("{head}%2f{tail}"),
        format!("{head}%252f{tail}"),
        format!("{head}\\{tail}"),
        format!("{head}%5c{tail}"),
        path.replace("/api/", "/api/../api/"),
        path.replace("/api/", "/%61pi/"),
        upper,
        format!("https://localhost{path}"),
        format!("http://evil.example{path}"),
        format!("{path}?_method=GET"),
        format!("{path}#fragment"),
        format!("{path}?%00"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_no_spelling_of_a_path_goes_around_authentication() {
    let server = Server::start(Options::default()).await;
    let admin = &server.admin;
    let overrides = [
        "X-HTTP-Method-Override: GET",
        "X-Original-URL: /api/v1/version",
        "X-Rewrite-URL: /api/v1/version",
    ];
    for route in all()
        .into_iter()
        .filter(|route| !route.is_public() && route.method == "GET")
    {
        for spelling in spellings(&route.filled()) {
            let answer = raw::get(admin, &spelling, &overrides).await;
            assert!(
                (400..500).contains(&answer.status),
                "{spelling} answered {}: {}",
                answer.status,
                answer.body
            );
        }
    }
}

/// What the device listener answers who shows nothing at all.
const DEVICE_ROUTES: [(&str, &str, u16); 15] = [
    ("GET", "/agent/v1/ping", 200),
    ("POST", "/agent/v1/enroll/begin", 400),
    ("POST", "/agent/v1/enroll/finish", 400),
    ("POST", "/agent/v1/checkin", 401),
    (
        "GET",
        "/agent/v1/bundles/0000000000000000000000000000000000000000000000000000000000000000",
        401,
    ),
    ("PUT", "/agent/v1/inventory", 401),
    ("POST", "/agent/v1/renew", 401),
    ("GET", "/agent/v1/wake", 401),
    ("GET", "/scep?operation=GetCACaps", 200),
    ("GET", "/scep?operation=GetCACert", 200),
    ("POST", "/scep?operation=PKIOperation", 400),
    ("GET", "/.well-known/est/cacerts", 200),
    ("GET", "/.well-known/est/csrattrs", 200),
    ("POST", "/.well-known/est/simpleenroll", 401),
    ("POST", "/.well-known/est/simplereenroll", 401),
];

/// Sends `{}` as JSON and nothing that would say who asks.
async fn unknown(server: &Server, address: &str, method: &str, target: &str) -> raw::RawAnswer {
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\
         Connection: close\r\n\r\n{{}}"
    );
    raw::send_to(&server.admin, address, request.as_bytes()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_the_device_listener_tells_strangers_what_is_public_and_no_more() {
    let server = Server::start(Options::default()).await;
    let (device, admin) = (server.admin.device_address(), server.admin.admin_address());
    for (method, path, status) in DEVICE_ROUTES {
        let answer = unknown(&server, device, method, path).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        let elsewhere = unknown(&server, admin, method, path).await.status;
        assert!(
            (400..500).contains(&elsewhere),
            "{method} {path} on the admin listener: {elsewhere}"
        );
        if status == 200 {
            continue;
        }
        for spelling in spellings(path) {
            let answer = unknown(&server, device, method, &spelling).await;
            assert!(
                (400..500).contains(&answer.status),
                "{method} {spelling} answered {}: {}",
                answer.status,
                answer.body
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_the_method_is_that_of_the_request_line() {
    let server = Server::start(Options::default()).await;
    let admin = &server.admin;
    for method in [
        "HEAD", "OPTIONS", "TRACE", "PUT", "PATCH", "PROPFIND", "GET\t", "FOO",
    ] {
        let request = format!(
            "{method} /api/v1/devices HTTP/1.1\r\nHost: localhost\r\nX-HTTP-Method: GET\r\nConnection: close\r\n\r\n"
        );
        let answer = raw::send(admin, request.as_bytes()).await;
        assert!(
            (400..500).contains(&answer.status),
            "{method} answered {}",
            answer.status
        );
        assert!(
            !answer.head.to_ascii_lowercase().contains("access-control-allow"),
            "{method}: no cross-origin access"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_authentication_comes_before_the_body() {
    let server = Server::start(Options::default()).await;
    let api = Api::anonymous(&server.admin);
    let bodies = ["", "{", "[]", "null", "{\"name\":\"${7*7}\"}", "\u{feff}{}"];
    for route in all()
        .into_iter()
        .filter(|route| !route.is_public() && route.method == "POST")
    {
        for body in bodies {
            for content_type in ["application/json", "text/plain", "application/xml"] {
                let request = api
                    .http
                    .post(url(&api, &route.filled()))
                    .header("content-type", content_type);
                answer(request.body(body)).await.refused(401, "unauthenticated");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a9_unknown_fields_are_refused() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let bodies: [(&str, Value); 14] = [
        (
            "/scripts",
            serde_json::json!({"name": "n", "interpreter": "sh", "text": "id"}),
        ),
        ("/groups", serde_json::json!({"name": "n", "include": "true"})),
        ("/groups/preview", serde_json::json!({"include": "true"})),
        ("/plan", serde_json::json!({"format": 1, "policies": []})),
        ("/apply", serde_json::json!({"plan_sha256": "0".repeat(64)})),
        (
            "/clients",
            serde_json::json!({"name": "n", "scopes": ["device:read"]}),
        ),
        ("/console-links", serde_json::json!({"person": "Ada"})),
        ("/scim-tokens", serde_json::json!({"connector": "entra"})),
        (
            "/enrollment-tokens",
            serde_json::json!({"device_uuid": uuid::Uuid::new_v4()}),
        ),
        ("/policies", serde_json::json!({"name": "n"})),
        ("/commands", serde_json::json!({"type": "lock", "filter": ""})),
        (
            "/policies/n/versions",
            serde_json::json!({"version": "1", "settings": {"firewall.enabled": true}}),
        ),
        ("/policies/n/activate", serde_json::json!({"version": "1"})),
        ("/policies/n/what-if", serde_json::json!({"version": "1"})),
    ];
    for (path, body) in &bodies {
        for field in [
            "role",
            "is_admin",
            "tenant_id",
            "tenant",
            "id",
            "compliance",
            "attested",
            "enrolled_at",
            "created_by",
            "__proto__",
        ] {
            let mut body = body.clone();
            body[field] = serde_json::json!("x");
            let answer = api.post(path, &body).await;
            let said = answer.refused(400, "invalid");
            assert!(said.contains(field), "{path}: {said}");
        }
    }
    for path in [
        "/policies?tenant=x",
        "/devices?role=admin",
        "/groups?tenant=x",
        "/users?tenant=x",
        "/clients?offset=5",
        "/log/entries?sort=seal",
        "/rollouts?x=",
    ] {
        api.get(path).await.refused(400, "invalid");
    }
    assert_eq!(api.list("/policies").await.len(), 0);
    assert_eq!(api.list("/clients").await.len(), 1);
}
