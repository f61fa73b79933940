//! Access to the API for people: a program that shows a code, and the access tokens of their own provider.

use axum::{
    Extension, Form, Json, Router,
    http::{Method, StatusCode},
    routing::post,
};
use muster_control::access::{ClientAddress, SESSION_COOKIE, tokens};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{
    oauth::{EXCHANGE, ORIGIN, refused, scene, token_of},
    oidc::{Stage, merge},
};
use crate::testing::{Answer, Scene};

const DEVICE: &str = "urn:ietf:params:oauth:grant-type:device_code";

struct Waiting {
    device_code: String,
    user_code: String,
}

async fn begin(scene: &Scene, scope: &str) -> Waiting {
    let fields = [
        ("client_id", "muster-cli"),
        ("scope", scope),
        ("label", "muster on <b>laptop</b>"),
    ];
    let answer = scene.ask_oauth("/oauth2/device_authorization", &fields).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let said = answer.json();
    assert_eq!(said["verification_uri"], format!("{ORIGIN}/device-login"));
    let text = |name: &str| said[name].as_str().expect("it is text").to_owned();
    Waiting {
        device_code: text("device_code"),
        user_code: text("user_code"),
    }
}

async fn poll(scene: &Scene, waiting: &Waiting) -> Answer {
    let fields = [
        ("grant_type", DEVICE),
        ("client_id", "muster-cli"),
        ("device_code", waiting.device_code.as_str()),
    ];
    scene.ask_oauth("/oauth2/token", &fields).await
}

async fn decide(scene: &Scene, waiting: &Waiting, decision: &str) -> Answer {
    let fields = [("code", waiting.user_code.as_str()), ("decision", decision)];
    scene.post("/device-login/decide", &fields).await
}

#[tokio::test]
async fn a_person_lets_a_program_in_that_shows_a_code() {
    let scene = scene().await;
    let waiting = begin(&scene, "").await;
    refused(
        "nobody decided",
        &poll(&scene, &waiting).await,
        "authorization_pending",
    );
    refused("too often", &poll(&scene, &waiting).await, "slow_down");
    let page = scene
        .post("/device-login", &[("code", &waiting.user_code.to_lowercase())])
        .await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.body);
    for part in [
        "muster on &#60;b&#62;laptop",
        "device:read",
        "refuse: they would act as you",
    ] {
        assert!(page.body.contains(part), "{part}: {}", page.body);
    }
    let allowed = decide(&scene, &waiting, "allow").await;
    assert_eq!(
        allowed.location(),
        "/device-login?notice=program-let-in",
        "{}",
        allowed.body
    );
    let token = token_of(&poll(&scene, &waiting).await);
    refused("used", &poll(&scene, &waiting).await, "expired_token");
    assert_eq!(
        decide(&scene, &waiting, "allow").await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        scene
            .with_token(&token, Method::GET, "/api/v1/devices")
            .await
            .status,
        StatusCode::OK
    );
    // The log names the person.
    scene.settle().await;
    let log = scene
        .call(
            Method::GET,
            "/api/v1/log/entries?action=access.device_login_allowed",
            "",
        )
        .await
        .to_string();
    assert!(log.contains("mara") && log.contains("laptop"), "{log}");
    // A token is no cookie, and a cookie is no token.
    let cookie = format!("{SESSION_COOKIE}={token}");
    let page = scene
        .send(Method::GET, "/devices", &[("cookie", &cookie)], "")
        .await;
    assert!(page.location().starts_with("/signin"), "{}", page.body);
    let secret = scene.cookie.split_once('=').expect("it has a value").1;
    for wrong in [
        secret.to_owned(),
        format!("muster_ses_{secret}"),
        "muster_ses_".to_owned(),
    ] {
        let answer = scene.with_token(&wrong, Method::GET, "/api/v1/devices").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{wrong}");
    }
    let shown = scene
        .call(Method::GET, "/api/v1/access/sessions", "")
        .await
        .to_string();
    assert!(shown.contains(r#""kind":"api""#), "{shown}");
    // What needs a proof in the console needs one here.
    let path = "/api/v1/access/sessions/ses_00000000000000000000000000000000/end";
    assert_eq!(
        scene.with_token(&token, Method::POST, path).await.status,
        StatusCode::NOT_FOUND
    );
    scene.pass_seconds(600);
    scene.with_token(&token, Method::GET, "/api/v1/devices").await;
    scene.pass_seconds(301);
    let late = scene.with_token(&token, Method::POST, path).await;
    assert_eq!(
        (late.status, &late.json()["code"]),
        (StatusCode::UNAUTHORIZED, &json!("step_up_required")),
        "{}",
        late.body
    );
    assert_eq!(
        scene
            .with_token(&token, Method::GET, "/api/v1/devices")
            .await
            .status,
        StatusCode::OK
    );
    // Sign-in links are made by accounts alone: they end with these.
    // It idles as a page does, and ends at its time however much it is used.
    for _ in 0..34 {
        scene.pass_seconds(800);
        let used = scene.with_token(&token, Method::GET, "/api/v1/devices").await;
        assert_eq!(used.status, StatusCode::OK);
    }
    scene.pass_seconds(8 * 3600 - 902 - 34 * 800);
    assert_eq!(
        scene
            .with_token(&token, Method::GET, "/api/v1/devices")
            .await
            .status,
        StatusCode::OK
    );
    scene.pass_seconds(2);
    assert_eq!(
        scene
            .with_token(&token, Method::GET, "/api/v1/devices")
            .await
            .status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn a_program_gets_what_was_asked_for_and_ends_with_its_person() {
    let scene = scene().await;
    let waiting = begin(&scene, "device:read log:read").await;
    decide(&scene, &waiting, "allow").await;
    let answer = poll(&scene, &waiting).await;
    let token = token_of(&answer);
    assert_eq!(answer.json()["scope"], "device:read log:read");
    assert_eq!(
        scene
            .with_token(&token, Method::GET, "/api/v1/policies")
            .await
            .status,
        StatusCode::FORBIDDEN
    );
    let fields = [("token", token.as_str())];
    let bearer = scene.ask_oauth("/oauth2/introspect", &fields).await;
    refused("introspection asks who asks", &bearer, "invalid_client");
    let body = json!({"person": "mara"}).to_string();
    scene
        .call(Method::POST, "/api/v1/access/people/disable", &body)
        .await;
    assert_eq!(
        scene
            .with_token(&token, Method::GET, "/api/v1/devices")
            .await
            .status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn what_is_said_of_a_program_is_what_it_may_do_now() {
    let scene = scene().await;
    let waiting = begin(&scene, "").await;
    decide(&scene, &waiting, "allow").await;
    let token = token_of(&poll(&scene, &waiting).await);
    let said = async || {
        let fields = format!("token={token}");
        let (bearer, _) = tokens::issue_access(
            &scene.app.keys,
            &scene.issue(scene.client, "client:write"),
            scene.app.clock.now(),
        )
        .expect("a token can be issued");
        let bearer = format!("Bearer {bearer}");
        let headers = [("authorization", bearer.as_str())];
        scene
            .send(Method::POST, "/oauth2/introspect", &headers, &fields)
            .await
            .json()
    };
    let scopes = said().await["scope"].as_str().expect("it has scopes").to_owned();
    assert!(
        scopes.contains("access:write") && scopes.contains("device:read"),
        "{scopes}"
    );
    let bulk = json!({"type": "clear-passcode", "filter": "platform:android"}).to_string();
    let bulk = async || {
        scene
            .with_body(&token, Method::POST, "/api/v1/commands", &bulk)
            .await
    };
    assert_ne!(bulk().await.json()["code"], "step_up_required");
    scene.pass_seconds(600);
    scene.with_token(&token, Method::GET, "/api/v1/devices").await;
    scene.pass_seconds(301);
    let scopes = said().await["scope"].as_str().expect("it has scopes").to_owned();
    assert!(
        !scopes.contains("access:write") && scopes.contains("device:read"),
        "{scopes}"
    );
    // What is destructive at scale needs a fresh proof, though sending commands does not.
    let stale = bulk().await;
    assert_eq!(
        (stale.status, &stale.json()["code"]),
        (StatusCode::UNAUTHORIZED, &json!("step_up_required")),
        "{}",
        stale.body
    );
    // To ask about a session does not use it: it idles all the same.
    for _ in 0..2 {
        scene.pass_seconds(500);
        said().await;
    }
    assert_eq!(said().await, json!({"active": false}));
    let idle = scene.with_token(&token, Method::GET, "/api/v1/devices").await;
    assert_eq!(idle.status, StatusCode::UNAUTHORIZED, "{}", idle.body);
}

#[tokio::test]
async fn the_programs_of_one_ipv6_network_share_their_places() {
    let mut scene = scene().await;
    let router = scene.router.clone();
    let mut answers = Vec::new();
    for host in 0..22 {
        let address = format!("2001:db8::{host:x}").parse().expect("it is an address");
        scene.router = router.clone().layer(Extension(ClientAddress(Some(address))));
        let fields = [("client_id", "muster-cli")];
        answers.push(
            scene
                .ask_oauth("/oauth2/device_authorization", &fields)
                .await
                .status,
        );
    }
    assert_eq!(
        answers.iter().filter(|status| **status == StatusCode::OK).count(),
        20
    );
    let address = "2001:db8:1::1".parse().expect("it is an address");
    scene.router = router.clone().layer(Extension(ClientAddress(Some(address))));
    begin(&scene, "").await;
}

#[tokio::test]
async fn a_program_that_nobody_wants_gets_nothing() {
    let mut scene = scene().await;
    let fields = [("client_id", "muster-cli"), ("scope", "root:everything")];
    refused(
        "no such scope",
        &scene.ask_oauth("/oauth2/device_authorization", &fields).await,
        "invalid_scope",
    );
    refused(
        "no such client",
        &scene
            .ask_oauth("/oauth2/device_authorization", &[("client_id", "x")])
            .await,
        "invalid_client",
    );
    let unwanted = begin(&scene, "").await;
    decide(&scene, &unwanted, "refuse").await;
    refused("refused", &poll(&scene, &unwanted).await, "access_denied");
    refused("and gone", &poll(&scene, &unwanted).await, "expired_token");
    // Nobody is let in who was not proven to be there just now.
    scene.pass_seconds(901);
    scene.cookie = scene.sign_in("mara").await;
    let waiting = begin(&scene, "").await;
    scene.pass_seconds(599);
    scene.pass_seconds(2);
    refused("expired", &poll(&scene, &waiting).await, "expired_token");
    assert_eq!(
        decide(&scene, &waiting, "allow").await.status,
        StatusCode::NOT_FOUND
    );
    scene.get("/devices").await;
    scene.pass_seconds(400);
    let late = begin(&scene, "").await;
    let answer = decide(&scene, &late, "allow").await;
    assert!(
        answer.status == StatusCode::UNAUTHORIZED || answer.location().starts_with("/step-up"),
        "{answer:?}"
    );
    // Whoever signs out before the program asks takes what they allowed along.
    scene.cookie = scene.sign_in("mara").await;
    let allowed = begin(&scene, "").await;
    decide(&scene, &allowed, "allow").await;
    scene.post("/signout", &[]).await;
    refused("signed out", &poll(&scene, &allowed).await, "access_denied");
    // Codes are not tried out, and not many wait from one address.
    scene.cookie = scene.sign_in("mara").await;
    for _ in 0..10 {
        scene.post("/device-login", &[("code", "BBBB-BBBB")]).await;
    }
    let waiting = begin(&scene, "").await;
    assert_eq!(
        decide(&scene, &waiting, "allow").await.status,
        StatusCode::TOO_MANY_REQUESTS
    );
    let mut last = StatusCode::OK;
    for _ in 0..25 {
        last = scene
            .ask_oauth("/oauth2/device_authorization", &[("client_id", "muster-cli")])
            .await
            .status;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
}

/// A provider's answers about tokens: `good` is active, as the claims say.
async fn introspection(claims: Value) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = format!("http://{}/introspect", listener.local_addr().expect("it has one"));
    let answer = move |Form(form): Form<Vec<(String, String)>>| {
        let is_good = form
            .iter()
            .any(|(name, value)| name == "token" && value == "good-token");
        let answer = if is_good {
            claims.clone()
        } else {
            json!({"active": false})
        };
        async move { Json(answer) }
    };
    let router = Router::new().route("/introspect", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test]
async fn a_token_of_the_persons_own_provider_is_taken_by_the_api() {
    let mut stage = Stage::new().await;
    stage.grant("helpdesk", "mdm-admins").await;
    let now = stage.scene.app.clock.now().as_unix_seconds();
    let token = |changes: Value| {
        let mut claims = json!({"iss": stage.idp.issuer, "aud": "api://muster", "sub": "0001", "iat": now, "exp": now + 300,
            "scp": "muster.use", "groups": ["mdm-admins"]});
        merge(&mut claims, &changes);
        stage.idp.behavior().signed(claims)
    };
    let sound = token(json!({}));
    let asked = async |token: &str| {
        stage
            .scene
            .with_token(token, Method::GET, "/api/v1/devices")
            .await
            .status
    };
    assert_eq!(asked(&sound).await, StatusCode::UNAUTHORIZED, "nobody trusts it");
    let about = introspection(
        json!({"active": true, "aud": "api://muster", "sub": "0001", "exp": now + 300,
        "scope": "muster.use", "groups": ["mdm-admins"]}),
    )
    .await;
    let people = json!({"connection": "corp", "audience": "api://muster", "required_scope": "muster.use",
        "introspection_endpoint": about, "introspection_client_id": "muster"});
    let body = json!({"definition": {"people": people}, "introspection_secret": "s3cret"}).to_string();
    let made = stage
        .scene
        .call(Method::PUT, "/api/v1/trusts/corp-api", &body)
        .await;
    assert!(!made.to_string().contains("s3cret"), "{made}");
    let id = made["id"].as_str().expect("it has an id").to_owned();
    assert_eq!(
        asked(&sound).await,
        StatusCode::UNAUTHORIZED,
        "the person never came"
    );
    let cookie = stage.scene.cookie.clone();
    stage.sign_in().await;
    stage.scene.cookie = cookie;
    let scene = &stage.scene;
    let asked = async |token: &str| {
        scene
            .with_token(token, Method::GET, "/api/v1/devices")
            .await
            .status
    };
    assert_eq!(asked(&sound).await, StatusCode::OK);
    // The roles are those of now, of the groups that the token names.
    assert_eq!(
        scene
            .with_token(&sound, Method::GET, "/api/v1/access/people")
            .await
            .status,
        StatusCode::FORBIDDEN
    );
    let signed = |changes: Value| {
        let mut claims = json!({"iss": stage.idp.issuer, "aud": "api://muster", "sub": "0001", "iat": now, "exp": now + 300,
            "scp": "muster.use", "groups": ["mdm-admins"]});
        merge(&mut claims, &changes);
        stage.idp.behavior().signed(claims)
    };
    for (what, changes) in [
        ("another audience", json!({"aud": "api://other"})),
        ("two audiences", json!({"aud": ["api://muster", "api://other"]})),
        ("what sign-ins have", json!({"aud": "muster", "nonce": "n"})),
        ("another person", json!({"sub": "0002"})),
        ("without the scope", json!({"scp": "openid"})),
        ("expired", json!({"exp": now - 100})),
        ("of a program", json!({"idtyp": "app"})),
        ("an answer", json!({"active": true})),
    ] {
        assert_eq!(asked(&signed(changes)).await, StatusCode::UNAUTHORIZED, "{what}");
    }
    assert_eq!(
        asked(&signed(json!({"groups": []}))).await,
        StatusCode::FORBIDDEN,
        "no group, no role"
    );
    // About what is no JSON Web Token the provider is asked.
    let opaque = async |token: &str, trust: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("muster-trust", trust)];
        scene
            .send(Method::GET, "/api/v1/devices", &headers, "")
            .await
            .status
    };
    assert_eq!(opaque("good-token", &id).await, StatusCode::OK);
    assert_eq!(opaque("bad-token", &id).await, StatusCode::UNAUTHORIZED);
    assert_eq!(opaque("good-token", "tru_x").await, StatusCode::UNAUTHORIZED);
    assert_eq!(opaque(&sound, &id).await, StatusCode::OK);
    let body = json!({"person": "corp/ada@example.com"}).to_string();
    scene
        .call(Method::POST, "/api/v1/access/people/disable", &body)
        .await;
    assert_eq!(asked(&sound).await, StatusCode::UNAUTHORIZED, "disabled");
    assert_eq!(
        opaque("good-token", &id).await,
        StatusCode::UNAUTHORIZED,
        "disabled"
    );
}

#[tokio::test]
async fn the_metadata_says_what_there_is() {
    let scene = scene().await;
    let said = scene
        .send(Method::GET, "/.well-known/oauth-authorization-server", &[], "")
        .await
        .json();
    let has = |list: &str, value: &str| {
        said[list]
            .as_array()
            .is_some_and(|items| items.contains(&json!(value)))
    };
    assert!(
        has("grant_types_supported", EXCHANGE) && has("grant_types_supported", DEVICE),
        "{said}"
    );
    assert!(
        has("token_endpoint_auth_methods_supported", "private_key_jwt"),
        "{said}"
    );
    assert!(
        has("token_endpoint_auth_signing_alg_values_supported", "EdDSA"),
        "{said}"
    );
    assert_eq!(
        said["device_authorization_endpoint"],
        format!("{ORIGIN}/oauth2/device_authorization")
    );
}
