//! Access to the API by keys and by tokens of workloads, against an issuer that lies and clients that cheat.

use axum::http::{Method, StatusCode};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use muster_integrations::Egress;
use muster_trust::key::SigningKey;
use serde_json::{Value, json};

use super::oidc::{Idp, jwk, merge, sign};
use crate::testing::{Answer, Scene};

pub const ORIGIN: &str = "https://muster.example:8440";
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
pub const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const SUBJECT: &str = "repo:octo/app:ref:refs/heads/main";

pub async fn scene() -> Scene {
    let scene = Scene::at(ORIGIN).await;
    let network = "127.0.0.0/8".parse().expect("it is a network");
    let egress = Egress::new(&[network], None).expect("a client can be made");
    assert!(scene.app.web.set(Box::new(egress)).is_ok(), "it is set once");
    scene
}

fn key() -> SigningKey {
    SigningKey::generate_p256().expect("a key can be made")
}

/// A service account without a secret; answers its id.
async fn client(scene: &Scene, name: &str, scopes: &[&str]) -> String {
    let body = json!({"name": name, "scopes": scopes, "without_secret": true});
    let made = scene
        .call(Method::POST, "/api/v1/clients", &body.to_string())
        .await;
    assert!(made.get("client_secret").is_none(), "{made}");
    made["client_id"].as_str().expect("it has an id").to_owned()
}

async fn add_key(scene: &Scene, id: &str, jwk: &Value) -> Answer {
    let body = json!({"jwk": jwk}).to_string();
    scene
        .try_call(Method::POST, &format!("/api/v1/clients/{id}/keys"), &body)
        .await
}

/// The claims of a sound assertion, with these changes; null removes one.
fn claims(scene: &Scene, id: &str, jti: &str, changes: &Value) -> Value {
    let now = scene.app.clock.now().as_unix_seconds();
    let mut claims = json!({"iss": id, "sub": id, "aud": format!("{ORIGIN}/oauth2/token"), "iat": now, "exp": now + 60, "jti": jti});
    merge(&mut claims, changes);
    claims
}

fn assertion(scene: &Scene, id: &str, key: &SigningKey, jti: &str, changes: &Value) -> String {
    sign(
        key,
        &json!({"alg": "ES256", "kid": "k"}),
        &claims(scene, id, jti, changes),
    )
}

async fn by_assertion(scene: &Scene, assertion: &str) -> Answer {
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", ASSERTION),
        ("client_assertion", assertion),
    ];
    scene.ask_oauth("/oauth2/token", &fields).await
}

#[track_caller]
pub fn token_of(answer: &Answer) -> String {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    answer.json()["access_token"]
        .as_str()
        .expect("it is text")
        .to_owned()
}

#[track_caller]
pub fn refused(what: &str, answer: &Answer, error: &str) {
    let body = answer.json();
    assert_eq!(body["error"], error, "{what}: {body}");
    assert_eq!(answer.headers["cache-control"], "no-store", "{what}");
    assert!(answer.status.is_client_error(), "{what}");
}

#[tokio::test]
async fn a_client_signs_who_it_is_and_has_no_secret() {
    let scene = scene().await;
    let (id, key) = (client(&scene, "ci", &["device:read"]).await, key());
    let added = add_key(&scene, &id, &jwk(&key, "k")).await;
    assert_eq!(added.status, StatusCode::CREATED, "{}", added.body);
    let thumbprint = added.json()["thumbprint"]
        .as_str()
        .expect("it has one")
        .to_owned();
    let sound = assertion(&scene, &id, &key, "1", &json!({}));
    let token = token_of(&by_assertion(&scene, &sound).await);
    assert_eq!(
        scene
            .with_token(&token, Method::GET, "/api/v1/devices")
            .await
            .status,
        StatusCode::OK
    );
    refused(
        "the same again",
        &by_assertion(&scene, &sound).await,
        "invalid_client",
    );
    // No secret opens it, the empty one least of all.
    for secret in ["", "x"] {
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", id.as_str()),
            ("client_secret", secret),
        ];
        refused(
            secret,
            &scene.ask_oauth("/oauth2/token", &fields).await,
            "invalid_client",
        );
    }
    // The issuer is as good an audience, a key without a name is found, and introspection takes an assertion too.
    let other = sign(
        &key,
        &json!({"alg": "ES256"}),
        &claims(&scene, &id, "2", &json!({"aud": ORIGIN})),
    );
    let fields = [
        ("client_assertion_type", ASSERTION),
        ("client_assertion", other.as_str()),
        ("token", token.as_str()),
    ];
    let said = scene.ask_oauth("/oauth2/introspect", &fields).await.json();
    assert_eq!(
        (&said["active"], &said["via"]),
        (&json!(true), &json!(format!("key:{thumbprint}"))),
        "{said}"
    );
    // The key goes, and with it the token.
    let path = format!("/api/v1/clients/{id}/keys/{thumbprint}");
    scene.call(Method::DELETE, &path, "").await;
    let answer = scene.with_token(&token, Method::GET, "/api/v1/devices").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.body);
    let late = assertion(&scene, &id, &key, "3", &json!({}));
    refused(
        "the key was removed",
        &by_assertion(&scene, &late).await,
        "invalid_client",
    );
    let again = scene.try_call(Method::DELETE, &path, "").await;
    assert_eq!(again.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a6_a8_assertions_that_cheat_are_refused() {
    let scene = scene().await;
    let (id, own) = (client(&scene, "ci", &["device:read"]).await, key());
    let (neighbor, theirs) = (client(&scene, "other", &["device:read"]).await, key());
    let public = jwk(&own, "k");
    assert_eq!(add_key(&scene, &id, &public).await.status, StatusCode::CREATED);
    assert_eq!(
        add_key(&scene, &neighbor, &jwk(&theirs, "k")).await.status,
        StatusCode::CREATED
    );
    let now = scene.app.clock.now().as_unix_seconds();
    let nobody = format!("cli_{}", "0".repeat(32));
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = |header: Value| {
        format!(
            "{}.{}.",
            part(&header),
            part(&claims(&scene, &id, "x", &json!({})))
        )
    };
    let sound = claims(&scene, &id, "y", &json!({}));
    let with_header = |header: Value| sign(&own, &header, &sound);
    let cases = [
        ("alg none", unsigned(json!({"alg": "none", "kid": "k"}))),
        ("alg HS256", with_header(json!({"alg": "HS256", "kid": "k"}))),
        (
            "alg of another kind",
            with_header(json!({"alg": "RS256", "kid": "k"})),
        ),
        (
            "a key in the header",
            with_header(json!({"alg": "ES256", "kid": "k", "jwk": public})),
        ),
        (
            "crit",
            with_header(json!({"alg": "ES256", "kid": "k", "crit": ["x"], "x": 1})),
        ),
        (
            "an unknown kid",
            with_header(json!({"alg": "ES256", "kid": "other"})),
        ),
        (
            "another type",
            with_header(json!({"alg": "ES256", "kid": "k", "typ": "at+jwt"})),
        ),
        ("another's key", assertion(&scene, &id, &theirs, "a", &json!({}))),
        (
            "another client",
            assertion(&scene, &neighbor, &own, "b", &json!({})),
        ),
        ("nobody", assertion(&scene, &nobody, &own, "c", &json!({}))),
        (
            "iss is not sub",
            assertion(&scene, &id, &own, "d", &json!({"iss": neighbor})),
        ),
        (
            "another audience",
            assertion(&scene, &id, &own, "e", &json!({"aud": "https://evil.example"})),
        ),
        (
            "two audiences",
            assertion(
                &scene,
                &id,
                &own,
                "f",
                &json!({"aud": [ORIGIN, "https://evil.example"]}),
            ),
        ),
        (
            "expired",
            assertion(&scene, &id, &own, "g", &json!({"exp": now - 60})),
        ),
        (
            "too long",
            assertion(&scene, &id, &own, "h", &json!({"exp": now + 400})),
        ),
        ("no end", assertion(&scene, &id, &own, "i", &json!({"exp": null}))),
        ("no id", assertion(&scene, &id, &own, "j", &json!({"jti": null}))),
        ("nonsense", "a.b.c".to_owned()),
        ("much", "x".repeat(9000)),
    ];
    for (what, assertion) in cases {
        refused(what, &by_assertion(&scene, &assertion).await, "invalid_client");
    }
    let sound = assertion(&scene, &id, &own, "k", &json!({}));
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_assertion", sound.as_str()),
    ];
    refused(
        "no type",
        &scene.ask_oauth("/oauth2/token", &fields).await,
        "invalid_client",
    );
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", neighbor.as_str()),
        ("client_assertion_type", ASSERTION),
        ("client_assertion", sound.as_str()),
    ];
    refused(
        "two clients",
        &scene.ask_oauth("/oauth2/token", &fields).await,
        "invalid_client",
    );
    // None of it spoiled the sound one.
    token_of(&by_assertion(&scene, &sound).await);
}

#[tokio::test]
async fn m3_whoever_adds_a_key_or_a_trust_holds_what_the_client_holds() {
    let scene = scene().await;
    let strong = client(&scene, "strong", &["device:read", "command:wipe"]).await;
    let body = json!({"jwk": jwk(&key(), "k")}).to_string();
    let path = format!("/api/v1/clients/{strong}/keys");
    let weak = "client:read client:write device:read";
    assert_eq!(
        scene.ask(weak, Method::POST, &path, &body).await.status,
        StatusCode::FORBIDDEN
    );
    let address = format!("/api/v1/clients/{strong}/jwks-uri");
    let answer = scene
        .ask(
            weak,
            Method::PUT,
            &address,
            r#"{"jwks_uri":"https://ci.example/keys"}"#,
        )
        .await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    let trust = trust(&strong, "https://ci.example", &["device:read"]).to_string();
    assert_eq!(
        scene
            .ask(weak, Method::PUT, "/api/v1/trusts/ci", &trust)
            .await
            .status,
        StatusCode::FORBIDDEN
    );
    // Nor does anybody of another tenant see it.
    let (other, _) = scene.second_tenant().await;
    let answer = scene.in_tenant(other, Method::POST, &path, &body).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.body);
    assert_eq!(
        scene
            .in_tenant(other, Method::PUT, "/api/v1/trusts/ci", &trust)
            .await
            .status,
        StatusCode::NOT_FOUND
    );
    // What is private is refused, and nothing of it is repeated.
    let mut private = jwk(&key(), "k");
    private["d"] = json!("SECRETSECRET");
    let answer = add_key(&scene, &strong, &private).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(!answer.body.contains("SECRETSECRET"), "{}", answer.body);
    for number in 0..8 {
        let added = add_key(&scene, &strong, &jwk(&key(), &format!("k{number}"))).await;
        assert_eq!(added.status, StatusCode::CREATED, "{}", added.body);
    }
    assert_eq!(
        add_key(&scene, &strong, &jwk(&key(), "more")).await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn a_client_that_publishes_its_keys_changes_them_itself() {
    let scene = scene().await;
    let idp = Idp::start(&scene).await;
    let id = client(&scene, "ci", &["device:read"]).await;
    let path = format!("/api/v1/clients/{id}/jwks-uri");
    let at = |address: Option<String>| json!({"jwks_uri": address}).to_string();
    scene
        .call(Method::PUT, &path, &at(Some(format!("{}/jwks", idp.issuer))))
        .await;
    let signed = |jti: &str| idp.behavior().signed(claims(&scene, &id, jti, &json!({})));
    let token = token_of(&by_assertion(&scene, &signed("1")).await);
    // A new key is found, though not before half a minute has passed.
    idp.set(|idp| {
        idp.key = std::sync::Arc::new(key());
        idp.kid = "second".to_owned();
    });
    refused(
        "just asked",
        &by_assertion(&scene, &signed("2")).await,
        "invalid_client",
    );
    scene.pass_seconds(31);
    token_of(&by_assertion(&scene, &signed("3")).await);
    // Another address, and what came by the first one is over.
    scene.call(Method::PUT, &path, &at(None)).await;
    assert_eq!(
        scene
            .with_token(&token, Method::GET, "/api/v1/devices")
            .await
            .status,
        StatusCode::UNAUTHORIZED
    );
    refused(
        "no address",
        &by_assertion(&scene, &signed("4")).await,
        "invalid_client",
    );
    let wrong = scene
        .try_call(Method::PUT, &path, &at(Some("file:///etc/passwd".to_owned())))
        .await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
}

fn trust(client: &str, issuer: &str, scopes: &[&str]) -> Value {
    json!({"definition": {"workload": {
        "issuer": issuer, "audience": ORIGIN, "client_id": client, "scopes": scopes,
        "conditions": [{"claim": "sub", "equals": SUBJECT}, {"claim": "environment", "matches": "prod-*"}],
    }}})
}

fn workload(scene: &Scene, idp: &Idp, changes: &Value) -> String {
    let now = scene.app.clock.now().as_unix_seconds();
    let mut claims = json!({"iss": idp.issuer, "aud": ORIGIN, "sub": SUBJECT, "iat": now, "exp": now + 300, "jti": "w1",
        "environment": "prod-eu"});
    merge(&mut claims, changes);
    idp.behavior().signed(claims)
}

async fn exchanged(scene: &Scene, client: &str, token: &str) -> Answer {
    let fields = [
        ("grant_type", EXCHANGE),
        ("client_id", client),
        ("subject_token", token),
        ("subject_token_type", JWT),
    ];
    scene.ask_oauth("/oauth2/token", &fields).await
}

#[tokio::test]
async fn a_workload_exchanges_its_token_and_no_secret_is_kept() {
    let scene = scene().await;
    let idp = Idp::start(&scene).await;
    let id = client(&scene, "deploy", &["device:read", "policy:read"]).await;
    let body = trust(&id, &idp.issuer, &["device:read"]).to_string();
    scene.call(Method::PUT, "/api/v1/trusts/gh", &body).await;
    let answer = exchanged(&scene, &id, &workload(&scene, &idp, &json!({}))).await;
    let token = token_of(&answer);
    let said = answer.json();
    assert_eq!(
        (&said["expires_in"], &said["scope"]),
        (&json!(900), &json!("device:read"))
    );
    assert_eq!(
        said["issued_token_type"],
        "urn:ietf:params:oauth:token-type:access_token"
    );
    assert_eq!(
        scene
            .with_token(&token, Method::GET, "/api/v1/devices")
            .await
            .status,
        StatusCode::OK
    );
    // The trust gives a part of what the account holds.
    assert_eq!(
        scene
            .with_token(&token, Method::GET, "/api/v1/policies")
            .await
            .status,
        StatusCode::FORBIDDEN
    );
    scene.settle().await;
    let log = scene
        .call(Method::GET, "/api/v1/log/entries?action=access.exchanged", "")
        .await
        .to_string();
    assert!(log.contains(SUBJECT) && log.contains(&idp.issuer), "{log}");
    assert!(!log.contains(&token), "the log has no token");
    // The trust is narrowed, and with it the tokens that it brought; it goes, and they are over.
    let narrowed = trust(&id, &idp.issuer, &["policy:read"]).to_string();
    scene.call(Method::PUT, "/api/v1/trusts/gh", &narrowed).await;
    assert_eq!(
        scene
            .with_token(&token, Method::GET, "/api/v1/devices")
            .await
            .status,
        StatusCode::FORBIDDEN
    );
    scene.call(Method::DELETE, "/api/v1/trusts/gh", "").await;
    assert_eq!(
        scene
            .with_token(&token, Method::GET, "/api/v1/devices")
            .await
            .status,
        StatusCode::UNAUTHORIZED
    );
    refused(
        "no trust",
        &exchanged(&scene, &id, &workload(&scene, &idp, &json!({}))).await,
        "invalid_request",
    );
}

#[tokio::test]
async fn a_workload_that_the_trust_does_not_mean_gets_nothing() {
    let scene = scene().await;
    let (idp, other_idp) = (Idp::start(&scene).await, Idp::start(&scene).await);
    let id = client(&scene, "deploy", &["device:read"]).await;
    let neighbor = client(&scene, "neighbor", &["device:read"]).await;
    let mut once = trust(&id, &idp.issuer, &["device:read"]);
    once["definition"]["workload"]["once"] = json!(true);
    scene
        .call(Method::PUT, "/api/v1/trusts/gh", &once.to_string())
        .await;
    let now = scene.app.clock.now().as_unix_seconds();
    let made = |changes: Value| workload(&scene, &idp, &changes);
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let sound = json!({"iss": idp.issuer, "aud": ORIGIN, "sub": SUBJECT, "iat": now, "exp": now + 300, "jti": "n",
        "environment": "prod-eu"});
    let stranger = sign(
        &key(),
        &json!({"alg": "ES256", "kid": idp.behavior().kid}),
        &sound,
    );
    let cases = [
        ("another audience", made(json!({"aud": "https://other.example"}))),
        (
            "two audiences",
            made(json!({"aud": [ORIGIN, "https://other.example"]})),
        ),
        (
            "another subject",
            made(json!({"sub": "repo:octo/app:pull_request"})),
        ),
        ("another environment", made(json!({"environment": "test"}))),
        ("no environment", made(json!({"environment": null}))),
        ("expired", made(json!({"exp": now - 100}))),
        ("not yet", made(json!({"nbf": now + 1000}))),
        ("no end", made(json!({"exp": null}))),
        ("too long", made(json!({"exp": now + 100_000}))),
        ("no id, and once", made(json!({"jti": null}))),
        ("an issuer of nobody", workload(&scene, &other_idp, &json!({}))),
        (
            "another issuer's key",
            workload(&scene, &other_idp, &json!({"iss": idp.issuer})),
        ),
        (
            "alg none",
            format!("{}.{}.", part(&json!({"alg": "none"})), part(&sound)),
        ),
        ("a stranger's signature", stranger),
        (
            "another type",
            sign(
                &idp.behavior().key,
                &json!({"alg": "ES256", "kid": idp.behavior().kid, "typ": "logout+jwt"}),
                &sound,
            ),
        ),
        ("nonsense", "x".to_owned()),
        ("much", "x".repeat(17_000)),
    ];
    for (what, token) in cases {
        refused(what, &exchanged(&scene, &id, &token).await, "invalid_request");
    }
    let token = made(json!({}));
    refused(
        "another account",
        &exchanged(&scene, &neighbor, &token).await,
        "invalid_request",
    );
    let ((_, foreign), _) = scene.second_tenant().await;
    refused(
        "another tenant's",
        &exchanged(&scene, &foreign.to_string(), &token).await,
        "invalid_request",
    );
    refused(
        "nobody",
        &exchanged(&scene, "cli_x", &token).await,
        "invalid_client",
    );
    token_of(&exchanged(&scene, &id, &token).await);
    refused("once", &exchanged(&scene, &id, &token).await, "invalid_request");
    let shown = scene.call(Method::GET, "/api/v1/trusts", "").await;
    assert!(shown["items"][0]["used_at"].is_string(), "{shown}");
    // An issuer that does not answer is asked twice a minute, whatever comes.
    other_idp.set(|idp| idp.is_down = true);
    let down = trust(&id, &other_idp.issuer, &["device:read"]).to_string();
    scene.call(Method::PUT, "/api/v1/trusts/down", &down).await;
    let token = workload(&scene, &other_idp, &json!({}));
    refused("down", &exchanged(&scene, &id, &token).await, "invalid_request");
    other_idp.set(|idp| idp.is_down = false);
    refused(
        "still not asked",
        &exchanged(&scene, &id, &token).await,
        "invalid_request",
    );
    scene.pass_seconds(31);
    token_of(&exchanged(&scene, &id, &token).await);
}

#[tokio::test]
async fn a_trust_that_everybody_could_use_cannot_be_made() {
    let scene = scene().await;
    let id = client(&scene, "deploy", &["device:read"]).await;
    let wide = [
        json!([]),
        json!([{"claim": "ref", "equals": "refs/heads/main"}]),
        json!([{"claim": "sub", "matches": "repo:*"}]),
        json!([{"claim": "sub", "matches": "*"}]),
        json!([{"claim": "sub", "equals": "repo:*"}]),
        json!([{"claim": "sub"}]),
    ];
    let put = async |changes: Value| {
        let mut body = trust(&id, "https://ci.example", &["device:read"]);
        merge(&mut body["definition"]["workload"], &changes);
        scene
            .try_call(Method::PUT, "/api/v1/trusts/wide", &body.to_string())
            .await
            .status
    };
    for conditions in wide {
        assert_eq!(
            put(json!({"conditions": conditions})).await,
            StatusCode::BAD_REQUEST,
            "{conditions}"
        );
    }
    for changes in [
        json!({"issuer": "file:///x"}),
        json!({"issuer": "https://a:b@ci.example"}),
        json!({"jwks_uri": "http://ci.example/keys"}),
        json!({"audience": ""}),
        json!({"scopes": []}),
        json!({"scopes": ["policy:read"]}),
        json!({"token_seconds": 3601}),
        json!({"extra": 1}),
    ] {
        assert_eq!(put(changes.clone()).await, StatusCode::BAD_REQUEST, "{changes}");
    }
    assert_eq!(put(json!({})).await, StatusCode::OK);
}
