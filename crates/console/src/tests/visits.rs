//! Visits: letting in, entering, the banner of every page, and coming home.

use axum::http::{Method, StatusCode, header};
use muster_control::{
    access::{
        Author, SESSION_COOKIE, VISIT_COOKIE,
        problem::{FORBIDDEN, INVALID, Problem},
        visits,
    },
    audit,
};
use muster_model::TenantId;
use muster_trust::entry::{Actor, ActorKind};

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
        found.remove(0).visit
    }

    /// Says how far the other tenant lets in.
    async fn allow(&mut self, mode: &str, ceiling: &str) {
        let fields = [("mode", mode), ("ceiling", ceiling)];
        self.post(self.there.clone(), "/access/visits/setting", &fields)
            .await;
    }

    /// Asks for a visit; answers its id, whatever became of it.
    async fn ask(&mut self, role: &str) -> String {
        // Later ones have greater ids.
        self.scene.pass_seconds(1);
        let tenant = self.tenant.to_string();
        let asked = [
            ("tenant", tenant.as_str()),
            ("reason", "a look"),
            ("role", role),
            ("minutes", "30"),
        ];
        self.scene.cookie.clone_from(&self.home);
        self.scene.post("/tenants/visits/ask", &asked).await;
        self.visit().await.id.to_string()
    }

    /// Begins a visit; answers its cookie alone.
    async fn begin(&mut self, id: &str) -> String {
        self.scene.cookie.clone_from(&self.home);
        let begun = self.scene.post("/tenants/visits/begin", &[("visit", id)]).await;
        let secret = begun.cookie(VISIT_COOKIE).expect("a cookie is set");
        format!("{VISIT_COOKIE}={secret}")
    }

    /// Whoever visits, as their requests act.
    async fn visitor(&self) -> Author {
        let visit = self.visit().await;
        let mark = visits::Mark {
            id: visit.id,
            home: visit.home,
        };
        Author {
            tenant: visit.tenant,
            actor: Actor {
                kind: ActorKind::User,
                id: visit.actor,
            },
            voucher: Some(visits::account_of(mark)),
            visit: Some(mark),
        }
    }

    /// Commits an entry of this action as the visitor.
    async fn record(&self, author: &Author, action: &'static str) -> Result<(), Problem> {
        audit::commit(&self.scene.app, author, move |tx| {
            tx.record(action, ("test", "x".to_owned()), serde_json::json!({}))
                .map(drop)
        })
        .await
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
    sides.scene.pass_seconds(1);
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

#[tokio::test]
async fn what_only_the_setting_granted_ends_when_the_tenant_wants_to_be_asked() {
    let mut sides = Sides::new().await;
    sides.allow("always", "read_only").await;
    let under_way = sides.ask("read_only").await;
    let cookie = sides.begin(&under_way).await;
    let inside = format!("{}; {cookie}", sides.home);
    assert!(
        sides
            .page(&inside, "/devices")
            .await
            .contains("You are in second")
    );
    let waiting = sides.ask("read_only").await;
    assert_eq!(sides.visit().await.state, visits::State::Granted);
    sides.allow("ask", "read_only").await;
    let page = sides.page(&inside, "/devices").await;
    assert!(page.contains("The visit is over."), "{page}");
    let found = sides.visit().await;
    assert_eq!(
        (found.state, found.ended_because.as_deref()),
        (visits::State::Ended, Some("setting"))
    );
    // Also when it says `always` again.
    sides.allow("always", "read_only").await;
    sides.scene.cookie.clone_from(&sides.home);
    let refused = sides
        .scene
        .post("/tenants/visits/begin", &[("visit", &waiting)])
        .await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.body);
    // What a person of the tenant granted goes on.
    sides.allow("ask", "read_only").await;
    let granted = sides.ask("read_only").await;
    let grant = [
        ("visit", granted.as_str()),
        ("role", "read_only"),
        ("minutes", "20"),
    ];
    sides
        .post(sides.there.clone(), "/access/visits/grant", &grant)
        .await;
    let cookie = sides.begin(&granted).await;
    let inside = format!("{}; {cookie}", sides.home);
    sides.allow("always", "read_only").await;
    sides.allow("ask", "read_only").await;
    assert!(
        sides
            .page(&inside, "/devices")
            .await
            .contains("You are in second")
    );
    // After `never` nothing of before is good.
    sides.allow("never", "read_only").await;
    sides.allow("ask", "read_only").await;
    let page = sides.page(&inside, "/devices").await;
    assert!(page.contains("The visit is over."), "{page}");
}

#[tokio::test]
async fn a_visit_counts_only_beside_the_session_on_which_it_stands() {
    let mut sides = Sides::new().await;
    sides.allow("always", "read_only").await;
    let id = sides.ask("read_only").await;
    let visit = sides.begin(&id).await;
    let other = sides.scene.sign_in("otto").await;
    let (home, there) = (sides.home.clone(), sides.there.clone());
    let page = sides.page(&format!("{home}; {visit}"), "/devices").await;
    assert!(page.contains("You are in second"), "{page}");
    // Somebody else signs in at the same browser, or only the visit's cookie was taken.
    for own in [&other, &there] {
        let page = sides.page(&format!("{own}; {visit}"), "/devices").await;
        assert!(!page.contains("You are in second"), "{page}");
    }
    sides.scene.cookie.clone_from(&visit);
    assert_eq!(sides.scene.get("/devices").await.status, StatusCode::SEE_OTHER);
    // Signing in and out takes it from the browser.
    let link = sides.scene.link("otto").await;
    let body = format!("secret={link}&next=%2F");
    let signed_in = sides.scene.send(Method::POST, "/signin", &[], &body).await;
    sides.scene.cookie = other;
    let signed_out = sides.scene.post("/signout", &[]).await;
    for answer in [signed_in, signed_out] {
        let mut set = answer.headers.get_all(header::SET_COOKIE).iter();
        assert!(
            set.any(|set| set.to_str().is_ok_and(|set| {
                set.starts_with(&format!("{VISIT_COOKIE}=;")) && set.contains("Max-Age=0")
            })),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn a_tenant_is_asked_so_often_in_an_hour_refusals_included() {
    let mut sides = Sides::new().await;
    let mut asked = std::collections::BTreeSet::new();
    // It lets nobody in: each attempt is a row and an entry, up to the limit.
    for _ in 0..visits::ASKS_MAX {
        asked.insert(sides.ask("read_only").await);
        assert_eq!(sides.visit().await.state, visits::State::Denied);
    }
    assert_eq!(asked.len() as i64, visits::ASKS_MAX);
    assert!(asked.contains(&sides.ask("read_only").await), "no row more");
    sides.allow("always", "read_only").await;
    assert!(asked.contains(&sides.ask("read_only").await), "nor with consent");
    sides.scene.pass_seconds(3601);
    sides.home = sides.scene.sign_in("olga").await;
    assert!(!asked.contains(&sides.ask("read_only").await));
    assert_eq!(sides.visit().await.state, visits::State::Granted);
}

#[tokio::test]
async fn alarms_about_a_visitor_are_recorded_and_an_overstep_is_told_in_both_logs() {
    let mut sides = Sides::new().await;
    sides.allow("always", "operator").await;
    let id = sides.ask("operator").await;
    sides.begin(&id).await;
    let author = sides.visitor().await;
    for action in [
        "security.mass_command",
        "security.destructive_refused",
        "policy.bundle_tampered",
    ] {
        let recorded = sides.record(&author, action).await;
        recorded.unwrap_or_else(|problem| panic!("{action}: {problem}"));
    }
    let refused = sides.record(&author, "client.created").await;
    assert_eq!(refused.expect_err("no visit is for this").kind, FORBIDDEN);
    sides.scene.settle().await;
    let (home, there) = (sides.home.clone(), sides.there.clone());
    for cookie in [&home, &there] {
        let page = sides.page(cookie, "/log?action=visit.overstepped").await;
        assert!(page.contains(&id), "{page}");
    }
    let page = sides.page(&there, "/log?action=security.mass_command").await;
    assert!(page.contains(&author.actor.id), "{page}");
    assert_eq!(sides.visit().await.changes, 3, "what was refused is no change");
}

#[tokio::test]
async fn visits_of_one_home_are_one_account_and_nobody_is_called_as_a_visitor() {
    let mut sides = Sides::new().await;
    sides.allow("always", "read_only").await;
    let id = sides.ask("read_only").await;
    sides.begin(&id).await;
    let first = sides.visitor().await;
    let id = sides.ask("read_only").await;
    sides.begin(&id).await;
    let second = sides.visitor().await;
    assert_ne!(first.text(), second.text());
    assert_eq!(first.account(), second.account());
    let by = Author::system(sides.tenant);
    let every = muster_control::access::scope::every();
    let name = &first.actor.id;
    let named = muster_control::access::create_signin_link(&sides.scene.app, (&by, &every), name, &[]).await;
    assert_eq!(named.expect_err("the log calls visitors so").kind, INVALID);
}
