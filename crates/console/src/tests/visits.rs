//! Visits: letting in, entering, the banner of every page, and coming home.

use axum::http::StatusCode;
use muster_control::access::{SESSION_COOKIE, VISIT_COOKIE, visits};
use muster_model::TenantId;

use crate::testing::Scene;

/// The operator's person, and somebody of another tenant.
struct Sides {
    scene: Scene,
    home: String,
    there: String,
    tenant: TenantId,
}

impl Sides {
    async fn new() -> Sides {
        let scene = Scene::new().await;
        let ((tenant, _), there) = scene.second_tenant().await;
        let home = scene.sign_in("olga").await;
        Sides {
            scene,
            home,
            there,
            tenant,
        }
    }

    /// Sends a form of one side, which leads on.
    async fn post(&mut self, cookie: String, path: &str, fields: &[(&str, &str)]) -> String {
        self.scene.cookie = cookie;
        let answer = self.scene.post(path, fields).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{path}: {}", answer.body);
        answer.location().to_owned()
    }

    async fn page(&mut self, cookie: &str, path: &str) -> String {
        self.scene.cookie = cookie.to_owned();
        self.scene.page(path).await
    }

    async fn visit(&self) -> visits::Visit {
        let found = visits::of_tenant(&self.scene.app, self.tenant, None, 10).await;
        let mut found = found.expect("they can be listed");
        assert_eq!(found.len(), 1);
        found.remove(0).visit
    }
}

#[tokio::test]
async fn somebody_is_let_in_sees_where_they_are_and_comes_home() {
    let mut sides = Sides::new().await;
    let (home, there) = (sides.home.clone(), sides.there.clone());
    let tenant = sides.tenant.to_string();
    // Nobody is let in by default, and the page says what to do.
    let page = sides.page(&there, "/access/visits").await;
    assert!(
        page.contains("Nobody ever asked") && page.contains("change that below"),
        "{page}"
    );
    let asked = [
        ("tenant", tenant.as_str()),
        ("reason", "ticket <7>"),
        ("role", "helpdesk"),
        ("minutes", "30"),
    ];
    sides.scene.cookie.clone_from(&home);
    let refused = sides.scene.post("/tenants/visits/ask", &asked).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
    let ask = [("mode", "ask"), ("ceiling", "helpdesk")];
    sides.post(there.clone(), "/access/visits/setting", &ask).await;
    let next = sides.post(home.clone(), "/tenants/visits/ask", &asked).await;
    assert_eq!(next, "/tenants?notice=visit-asked");
    // What needs somebody stands first there.
    let page = sides.page(&there, "/access/visits").await;
    assert!(
        page.contains("One request waits") && page.contains("ticket &#60;7&#62;"),
        "{page}"
    );
    let id = sides.visit().await.id.to_string();
    let grant = [("visit", id.as_str()), ("role", "read_only"), ("minutes", "20")];
    sides.post(there.clone(), "/access/visits/grant", &grant).await;
    let page = sides.page(&home, "/tenants").await;
    assert!(page.contains("Begin the visit"), "{page}");
    // They enter: a second cookie goes before their own.
    sides.scene.cookie.clone_from(&home);
    let begun = sides.scene.post("/tenants/visits/begin", &[("visit", &id)]).await;
    assert_eq!(
        (begun.status, begun.location()),
        (StatusCode::SEE_OTHER, "/"),
        "{}",
        begun.body
    );
    let secret = begun.cookie(VISIT_COOKIE).expect("a cookie is set");
    let inside = format!("{home}; {VISIT_COOKIE}={secret}");
    for path in ["/", "/devices", "/groups"] {
        let page = sides.page(&inside, path).await;
        assert!(
            page.contains("You are in second") && page.contains("visit of olga as read_only"),
            "{path}: {page}"
        );
        assert!(
            page.contains("action=\"/visit/leave\"") && !page.contains("action=\"/signout\""),
            "{path}"
        );
    }
    // Its cookie in the place of another opens nothing.
    sides.scene.cookie = format!("{SESSION_COOKIE}={secret}");
    assert_eq!(sides.scene.get("/devices").await.status, StatusCode::SEE_OTHER);
    // What a visit is not for is refused, also where a page asks for no scope.
    sides.scene.cookie.clone_from(&inside);
    for (path, fields) in [
        (
            "/access/visits/setting",
            vec![("mode", "always"), ("ceiling", "operator")],
        ),
        ("/tenants/visits/ask", asked.to_vec()),
        (
            "/device-login/decide",
            vec![("code", "BCDF-GHJK"), ("decision", "allow")],
        ),
    ] {
        let refused = sides.scene.post(path, &fields).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}: {}", refused.body);
    }
    // The tenant sends them away: the next page is their own tenant's, a form of before does nothing.
    let csrf = sides.scene.csrf();
    sides
        .post(there.clone(), "/access/visits/end", &[("visit", &id)])
        .await;
    let page = sides.page(&inside, "/devices").await;
    assert!(
        page.contains("The visit is over.") && !page.contains("You are in second"),
        "{page}"
    );
    sides.scene.cookie.clone_from(&home);
    let body = format!("csrf={csrf}&reason=late");
    let sent = sides
        .scene
        .send(
            axum::http::Method::POST,
            "/halt",
            &[("cookie", &inside), ("sec-fetch-site", "same-origin")],
            &body,
        )
        .await;
    assert_ne!(sent.status, StatusCode::SEE_OTHER, "{}", sent.body);
    let ended = sides.visit().await;
    assert_eq!((ended.state, ended.changes), (visits::State::Ended, 0));
    let page = sides.page(&home, "/tenants").await;
    assert!(
        page.contains("Nothing was changed. Over: the visited tenant ended it."),
        "{page}"
    );
}

#[tokio::test]
async fn a_visit_ends_from_within_and_with_its_time() {
    let mut sides = Sides::new().await;
    let (home, there) = (sides.home.clone(), sides.there.clone());
    let tenant = sides.tenant.to_string();
    let always = [("mode", "always"), ("ceiling", "read_only")];
    sides.post(there.clone(), "/access/visits/setting", &always).await;
    let asked = [
        ("tenant", tenant.as_str()),
        ("reason", "a look"),
        ("role", "read_only"),
        ("minutes", "5"),
    ];
    let next = sides.post(home.clone(), "/tenants/visits/ask", &asked).await;
    assert_eq!(next, "/tenants?notice=visit-open");
    let id = sides.visit().await.id.to_string();
    sides.scene.cookie.clone_from(&home);
    let begun = sides.scene.post("/tenants/visits/begin", &[("visit", &id)]).await;
    let secret = begun.cookie(VISIT_COOKIE).expect("a cookie is set");
    let inside = format!("{home}; {VISIT_COOKIE}={secret}");
    let page = sides.page(&there, "/access").await;
    assert!(
        page.contains("by a visit"),
        "the review lists who is here: {page}"
    );
    // Five minutes later nobody is there, before anything is written down.
    sides.scene.pass_seconds(301);
    let page = sides.page(&inside, "/devices").await;
    assert!(page.contains("The visit is over."), "{page}");
    visits::settle(&sides.scene.app).await.expect("it is settled");
    let ended = sides.visit().await;
    assert_eq!(ended.ended_because.as_deref(), Some("time"));
    // A form of the visit does nothing at home; one of their own page goes on there.
    sides.scene.cookie = inside;
    assert_eq!(
        sides.scene.post("/signout", &[]).await.status,
        StatusCode::FORBIDDEN
    );
    let next = sides.post(home, "/visit/forget", &[]).await;
    assert_eq!(next, "/tenants", "their own session is one as before");
}
