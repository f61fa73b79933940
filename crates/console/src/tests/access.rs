//! Who may do what: no credential makes a stronger one, pages offer what is allowed, what is taken away is gone.

use axum::http::{Method, StatusCode};
use muster_control::access::{SESSION_COOKIE, scope};

use crate::testing::{Answer, Scene};

const LINKS: &str = "/api/v1/console-links";
const GRANTS: &str = "/api/v1/access/grants";

async fn post(scene: &Scene, scopes: &str, path: &str, body: &str) -> Answer {
    scene.ask(scopes, Method::POST, path, body).await
}

/// A service account with these roles; answers its id.
async fn client(scene: &Scene, name: &str, roles: &str) -> muster_model::ClientId {
    let body = format!(r#"{{"name":"{name}","roles":[{roles}]}}"#);
    let made = scene.call(Method::POST, "/api/v1/clients", &body).await;
    made["client_id"]
        .as_str()
        .expect("it has an id")
        .parse()
        .expect("it is one")
}

/// A connection whose groups can have roles.
async fn connection(scene: &Scene) {
    let body = r#"{"definition":{"issuer":"https://idp.example","client_id":"muster","client_auth":"private_key_jwt"}}"#;
    scene
        .call(Method::PUT, "/api/v1/access/connections/corp", body)
        .await;
}

/// The cookie of a person who used a link.
async fn used(scene: &Scene, link: &Answer) -> String {
    assert_eq!(link.status, StatusCode::CREATED, "{}", link.body);
    let url = link.json()["url"].as_str().expect("it has an address").to_owned();
    let secret = url
        .rsplit_once('#')
        .expect("the secret is behind the #")
        .1
        .to_owned();
    let answer = scene
        .send(Method::POST, "/signin", &[], &format!("secret={secret}&next=%2F"))
        .await;
    let value = answer.cookie(SESSION_COOKIE).expect("the person is signed in");
    format!("{SESSION_COOKIE}={value}")
}

#[tokio::test]
async fn m3_no_credential_makes_a_stronger_one() {
    let scene = Scene::new().await;
    connection(&scene).await;
    let weak = "client:write access:write access:read device:read";
    for (path, body) in [
        // A link without roles would do whatever the account may do.
        (LINKS, r#"{"person":"eve"}"#),
        (LINKS, r#"{"person":"eve","roles":["owner"]}"#),
        (LINKS, r#"{"person":"eve","roles":["helpdesk"]}"#),
        ("/api/v1/clients", r#"{"name":"eve","scopes":["command:wipe"]}"#),
        ("/api/v1/clients", r#"{"name":"eve","roles":["owner"]}"#),
        (
            "/api/v1/clients",
            r#"{"name":"eve","scopes":["device:read"],"roles":["security"]}"#,
        ),
        (GRANTS, r#"{"role":"owner","group":"everybody","source":"corp"}"#),
    ] {
        let answer = post(&scene, weak, path, body).await;
        assert_eq!(
            answer.status,
            StatusCode::FORBIDDEN,
            "{path} {body}: {}",
            answer.body
        );
        assert_eq!(answer.json()["code"], "insufficient_scope");
    }
    let defined = scene
        .ask(
            weak,
            Method::PUT,
            "/api/v1/access/roles/mine",
            r#"{"scopes":["script:run"]}"#,
        )
        .await;
    assert_eq!(defined.status, StatusCode::FORBIDDEN, "{}", defined.body);
    // Nor does it take away what it could not give: the account above it, its role, a role with more in it.
    let strong = client(&scene, "strong", r#""owner""#).await;
    let removed = scene
        .ask(weak, Method::DELETE, &format!("/api/v1/clients/{strong}"), "")
        .await;
    assert_eq!(removed.status, StatusCode::FORBIDDEN, "{}", removed.body);
    let body = format!(r#"{{"role":"owner","client":"{strong}"}}"#);
    let revoked = post(&scene, weak, "/api/v1/access/grants/revoke", &body).await;
    assert_eq!(revoked.status, StatusCode::FORBIDDEN, "{}", revoked.body);
    scene
        .call(
            Method::PUT,
            "/api/v1/access/roles/runner",
            r#"{"scopes":["script:run"]}"#,
        )
        .await;
    let weakened = scene
        .ask(
            weak,
            Method::PUT,
            "/api/v1/access/roles/runner",
            r#"{"scopes":["device:read"]}"#,
        )
        .await;
    assert_eq!(weakened.status, StatusCode::FORBIDDEN, "{}", weakened.body);
    // What it holds, it gives.
    let given = r#"{"name":"reader","scopes":["device:read"]}"#;
    assert_eq!(
        post(&scene, weak, "/api/v1/clients", given).await.status,
        StatusCode::CREATED
    );
}

#[tokio::test]
async fn a_link_never_does_more_than_its_maker_may_do_now() {
    let mut scene = Scene::new().await;
    let maker = client(&scene, "desk", r#""administrator""#).await;
    let all = scope::every();
    let link = scene
        .ask_as(
            maker,
            &all,
            Method::POST,
            LINKS,
            r#"{"person":"ben","roles":["helpdesk"]}"#,
        )
        .await;
    scene.cookie = used(&scene, &link).await;
    let page = scene.page("/devices").await;
    assert!(
        page.contains("Enroll a device") && !page.contains("Labels from a table"),
        "{page}"
    );
    assert!(
        !page.contains(r#"href="/access""#),
        "the help desk does not see who may do what"
    );
    let refused = scene.get("/access").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(
        refused.body.contains("access:read")
            && refused.body.contains("helpdesk")
            && refused.body.contains("auditor"),
        "{}",
        refused.body
    );
    let why = scene.page("/access/explain?needs=access:read").await;
    assert!(
        why.contains("You do not have it") && why.contains("the service account admin"),
        "{why}"
    );
    // The account loses its role: what its links gave is gone with the next click.
    let body = format!(r#"{{"role":"administrator","client":"{maker}"}}"#);
    scene
        .call(Method::POST, "/api/v1/access/grants/revoke", &body)
        .await;
    assert_eq!(scene.get("/devices").await.status, StatusCode::FORBIDDEN);
    scene
        .call(Method::DELETE, &format!("/api/v1/clients/{maker}"), "")
        .await;
    let over = scene.get("/devices").await;
    assert_eq!(
        over.status,
        StatusCode::SEE_OTHER,
        "the maker is gone, and so is the session"
    );
}

#[tokio::test]
async fn t8_the_help_desk_locks_and_is_told_why_it_does_not_wipe() {
    let mut scene = Scene::new().await;
    let device = scene.device("S-1").await.id;
    let link = post(
        &scene,
        &scope::every(),
        LINKS,
        r#"{"person":"ben","roles":["helpdesk"]}"#,
    )
    .await;
    let helpdesk = used(&scene, &link).await;
    let administrator = std::mem::replace(&mut scene.cookie, helpdesk);
    let form = format!("/devices/{device}/commands");
    let name = scene.name(device).await;
    let locked = scene.post(&form, &[("type", "lock")]).await;
    assert_eq!(locked.status, StatusCode::SEE_OTHER, "{}", locked.body);
    let wiped = scene
        .post(&form, &[("type", "wipe"), ("mode", "full"), ("name", &name)])
        .await;
    assert_eq!(wiped.status, StatusCode::FORBIDDEN, "{}", wiped.body);
    assert!(
        wiped.body.contains("command:wipe") && wiped.body.contains("security"),
        "{}",
        wiped.body
    );
    for path in [
        format!("/devices/{device}/retire"),
        format!("/devices/{device}/revoke"),
    ] {
        let refused = scene.post(&path, &[("name", &name)]).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}");
    }
    let page = scene.page(&format!("/devices/{device}")).await;
    assert!(!page.contains("Retire…"), "what is not allowed is not offered");
    // The API says the same, in words for programs.
    let path = format!("/api/v1/devices/{device}/commands");
    let refused = post(&scene, "command:write", &path, r#"{"type":"wipe","mode":"full"}"#).await;
    let problem = refused.json();
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(problem["explanation"]["missing"][0], "command:wipe", "{problem}");
    let script = format!(r#"{{"type":"run-script","sha256":"{}"}}"#, "0".repeat(64));
    let refused = post(&scene, "command:write command:wipe", &path, &script).await;
    assert!(
        refused.status == StatusCode::FORBIDDEN || refused.status == StatusCode::BAD_REQUEST,
        "{}",
        refused.body
    );
    scene.cookie = administrator;
    assert!(
        scene
            .page(&format!("/devices/{device}"))
            .await
            .contains("Retire…")
    );
}

#[tokio::test]
async fn a15_what_is_destructive_needs_a_fresh_proof() {
    let mut scene = Scene::at("https://muster.example:8440").await;
    let device = scene.device("S-1").await.id;
    let name = scene.name(device).await;
    let retire = format!("/devices/{device}/retire");
    scene.pass_seconds(14 * 60);
    scene.page("/devices").await;
    scene.pass_seconds(2 * 60);
    let asked = scene.post(&retire, &[("name", &name)]).await;
    assert_eq!(asked.status, StatusCode::UNAUTHORIZED, "{}", asked.body);
    let back = format!("/step-up?next=%2Fdevices%2F{device}");
    assert!(asked.body.contains(&back), "{}", asked.body);
    let page = scene.page("/step-up?next=/devices").await;
    assert!(
        page.contains("With a new sign-in link") && !page.contains("With your passkey"),
        "{page}"
    );
    // A link for somebody else proves nothing, and what signs in does so once.
    let other = scene.link("eve").await;
    let refused = scene.post("/step-up", &[("secret", &other)]).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.body);
    let own = scene.link("mara").await;
    let proven = scene
        .post("/step-up", &[("secret", &own), ("next", "//evil.example")])
        .await;
    assert_eq!(proven.location(), "/?notice=proven", "{}", proven.body);
    let again = scene.post("/step-up", &[("secret", &own)]).await;
    assert_eq!(again.status, StatusCode::BAD_REQUEST);
    let done = scene.post(&retire, &[("name", &name)]).await;
    assert_eq!(done.status, StatusCode::SEE_OTHER, "{}", done.body);
    // A stolen session makes itself no passkey, gives no role, and connects no provider.
    scene.cookie = scene.sign_in("mara").await;
    scene.pass_seconds(10 * 60);
    scene.page("/devices").await;
    scene.pass_seconds(10 * 60);
    for path in [
        "/passkeys",
        "/access/grant",
        "/access/revoke",
        "/access/roles/put",
        "/access/connections/put",
    ] {
        let refused = scene.post(path, &[]).await;
        assert_eq!(
            refused.status,
            StatusCode::UNAUTHORIZED,
            "{path}: {}",
            refused.body
        );
    }
}

#[tokio::test]
async fn a13_sessions_have_limits_and_are_ended_by_others() {
    let mut scene = Scene::new().await;
    let first = scene.cookie.clone();
    let mut cookies = vec![first];
    for _ in 0..3 {
        scene.pass_seconds(1);
        cookies.push(scene.sign_in("mara").await);
    }
    for (number, cookie) in cookies.iter().enumerate() {
        scene.cookie.clone_from(cookie);
        let expected = if number == 0 {
            StatusCode::SEE_OTHER
        } else {
            StatusCode::OK
        };
        assert_eq!(scene.get("/devices").await.status, expected, "session {number}");
    }
    let settings =
        r#"{"idle_seconds":60,"session_seconds":300,"step_up_seconds":60,"sessions_per_person":3}"#;
    scene
        .call(Method::PUT, "/api/v1/access/session-settings", settings)
        .await;
    let wrong = settings.replace("60,\"session", "5,\"session");
    let refused = scene
        .ask(
            &scope::every(),
            Method::PUT,
            "/api/v1/access/session-settings",
            &wrong,
        )
        .await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.body);
    let page = scene.page("/access/sessions").await;
    assert!(
        page.contains("this session") && page.contains("link of"),
        "{page}"
    );
    let listed = scene
        .call(Method::GET, "/api/v1/access/sessions?person=mara", "")
        .await;
    let id = listed["items"][0]["id"]
        .as_str()
        .expect("it has an id")
        .to_owned();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(3), "{listed}");
    scene
        .call(Method::POST, &format!("/api/v1/access/sessions/{id}/end"), "")
        .await;
    assert_eq!(
        scene.get("/devices").await.status,
        StatusCode::SEE_OTHER,
        "it was the newest"
    );
    scene.cookie.clone_from(&cookies[1]);
    assert_eq!(scene.get("/devices").await.status, StatusCode::OK);
    scene.pass_seconds(61);
    assert_eq!(
        scene.get("/devices").await.status,
        StatusCode::SEE_OTHER,
        "idle for too long"
    );
}

#[tokio::test]
async fn the_review_says_who_may_do_what_and_when_they_last_did() {
    let scene = Scene::new().await;
    client(&scene, "dashboard", r#""read_only""#).await;
    connection(&scene).await;
    let of_directory = r#"{"role":"security","group":"soc","source":"directory"}"#;
    assert_eq!(
        post(&scene, &scope::every(), GRANTS, of_directory).await.status,
        StatusCode::NOT_FOUND
    );
    scene
        .call(
            Method::POST,
            GRANTS,
            r#"{"role":"security","group":"soc","source":"corp"}"#,
        )
        .await;
    let review = scene.call(Method::GET, "/api/v1/access/review", "").await;
    let find = |name: &str| {
        let items = review["items"].as_array().expect("it is a list");
        items
            .iter()
            .find(|item| item["name"] == name)
            .expect("it is listed")
            .clone()
    };
    assert_eq!(find("soc")["powers"][0], "wipe", "{review}");
    assert_eq!(find("dashboard")["through"][0]["role"], "read_only");
    assert_eq!(
        review["items"][0]["name"], "admin",
        "the most powerful stands first: {review}"
    );
    let page = scene.page("/access").await;
    assert!(
        page.contains("soc") && page.contains("dashboard") && page.contains("Take away"),
        "{page}"
    );
    let roles = scene.page("/access/roles").await;
    assert!(
        roles.contains("helpdesk") && roles.contains("command:wipe"),
        "{roles}"
    );
    let query = "/api/v1/access/explain?needs=command:wipe&client=";
    let admin = scene
        .call(Method::GET, &format!("{query}{}", scene.client), "")
        .await;
    assert_eq!(admin["allowed"], true, "{admin}");
    let role = r#"{"scopes":["device:read"],"description":"x"}"#;
    scene.call(Method::PUT, "/api/v1/access/roles/viewer", role).await;
    let taken = scene
        .ask(&scope::every(), Method::PUT, "/api/v1/access/roles/owner", role)
        .await;
    assert_eq!(taken.status, StatusCode::CONFLICT);
    let body = r#"{"role":"viewer","group":"all","source":"corp"}"#;
    scene.call(Method::POST, GRANTS, body).await;
    let used = scene
        .ask(&scope::every(), Method::DELETE, "/api/v1/access/roles/viewer", "")
        .await;
    assert_eq!(used.status, StatusCode::CONFLICT, "{}", used.body);
    scene
        .call(Method::POST, "/api/v1/access/grants/revoke", body)
        .await;
    scene
        .call(Method::DELETE, "/api/v1/access/roles/viewer", "")
        .await;
    let nobody = r#"{"role":"owner","person":"nobody"}"#;
    assert_eq!(
        post(&scene, &scope::every(), GRANTS, nobody).await.status,
        StatusCode::NOT_FOUND
    );
    let by_link = r#"{"role":"owner","person":"mara"}"#;
    assert_eq!(
        post(&scene, &scope::every(), GRANTS, by_link).await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn the_sessions_of_others_and_tests_of_connections_ask_for_a_fresh_proof() {
    let mut scene = Scene::new().await;
    connection(&scene).await;
    scene.sign_in("noor").await;
    let id_of = async |person: &str| {
        let found = scene
            .call(
                Method::GET,
                &format!("/api/v1/access/sessions?person={person}"),
                "",
            )
            .await;
        found["items"][0]["id"].as_str().expect("there is one").to_owned()
    };
    let (own, others) = (id_of("mara").await, id_of("noor").await);
    let paths = [
        format!("/access/sessions/{others}/end"),
        "/access/connections/corp/test".to_owned(),
    ];
    scene.pass_seconds(600);
    scene.page("/access/me").await;
    scene.pass_seconds(301);
    for path in &paths {
        let stale = scene.post(path, &[]).await;
        assert!(stale.body.contains("/step-up?next="), "{path}: {}", stale.body);
    }
    // One's own ends without.
    let ended = scene.post(&format!("/access/sessions/{own}/end"), &[]).await;
    assert_eq!(
        ended.location(),
        "/access/me?notice=session-ended",
        "{}",
        ended.body
    );
    scene.cookie = scene.sign_in("mara").await;
    let fresh = scene.post(&paths[0], &[]).await;
    assert_eq!(fresh.status, StatusCode::SEE_OTHER, "{}", fresh.body);
    assert_eq!(fresh.location(), "/access/sessions?notice=session-ended");
}
