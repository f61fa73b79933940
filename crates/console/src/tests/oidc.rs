//! Signing in by OpenID Connect against a provider that lies: everything that the real ones do not do.

use std::sync::{Arc, Mutex};

use axum::{
    Form, Json, Router,
    extract::State,
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, jwk::Jwk};
use muster_control::{
    access::{self, SESSION_COOKIE, oidc::FLOW_COOKIE, scope},
    audit,
};
use muster_integrations::Egress;
use muster_model::Timestamp;
use muster_storage::Scope;
use muster_trust::key::SigningKey;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::testing::{Answer, Scene};

pub const CLIENT: &str = "muster";

/// What the provider does next.
#[derive(Clone)]
pub struct Behavior {
    pub key: Arc<SigningKey>,
    pub kid: String,
    /// Merged over the claims of a sound token; null removes one.
    pub claims: Value,
    /// Instead of the token that it would sign.
    token: Option<String>,
    header: Value,
    metadata: Value,
    pub is_down: bool,
    /// How often somebody asked what the provider says of itself.
    pub metadata_asked: u32,
    jwks: Option<Value>,
}

/// A provider on a port of this machine.
pub struct Idp {
    pub issuer: String,
    behavior: Arc<Mutex<Behavior>>,
}

pub fn jwk(key: &SigningKey, kid: &str) -> Value {
    let pem = key.to_pkcs8_pem().expect("it can be written");
    let signer = EncodingKey::from_ec_pem(pem.as_bytes()).expect("it is a key");
    let jwk = Jwk::from_encoding_key(&signer, Algorithm::ES256).expect("it has a public half");
    let mut value = serde_json::to_value(jwk).expect("it is JSON");
    value["kid"] = json!(kid);
    value["use"] = json!("sig");
    value
}

pub fn sign(key: &SigningKey, header: &Value, claims: &Value) -> String {
    let pem = key.to_pkcs8_pem().expect("it can be written");
    let signer = EncodingKey::from_ec_pem(pem.as_bytes()).expect("it is a key");
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &signer, Algorithm::ES256).expect("it signs");
    format!("{message}.{signature}")
}

impl Behavior {
    pub fn signed(&self, claims: Value) -> String {
        let mut header = json!({"alg": "ES256", "kid": self.kid, "typ": "JWT"});
        merge(&mut header, &self.header);
        sign(&self.key, &header, &claims)
    }
}

pub fn merge(into: &mut Value, changes: &Value) {
    let into = into.as_object_mut().expect("it is an object");
    for (name, value) in changes.as_object().into_iter().flatten() {
        if value.is_null() {
            into.remove(name);
        } else {
            into.insert(name.clone(), value.clone());
        }
    }
}

#[derive(Clone)]
struct Shared {
    issuer: String,
    now: Arc<dyn Fn() -> i64 + Send + Sync>,
    behavior: Arc<Mutex<Behavior>>,
}

impl Idp {
    pub async fn start(scene: &Scene) -> Idp {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let issuer = format!("http://{}", listener.local_addr().expect("it has an address"));
        let key = SigningKey::generate_p256().expect("a key can be made");
        let behavior = Arc::new(Mutex::new(Behavior {
            key: Arc::new(key),
            kid: "k1".to_owned(),
            claims: json!({}),
            token: None,
            header: json!({}),
            metadata: json!({}),
            is_down: false,
            metadata_asked: 0,
            jwks: None,
        }));
        let app = scene.app.clone();
        let shared = Shared {
            issuer: issuer.clone(),
            now: Arc::new(move || app.clock.now().as_unix_seconds()),
            behavior: Arc::clone(&behavior),
        };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/jwks", get(keys))
            .route("/token", post(token))
            .with_state(shared);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Idp { issuer, behavior }
    }

    pub fn set(&self, change: impl FnOnce(&mut Behavior)) {
        change(&mut self.behavior.lock().expect("nobody panics with it"));
    }

    pub fn behavior(&self) -> Behavior {
        self.behavior.lock().expect("nobody panics with it").clone()
    }
}

async fn metadata(State(shared): State<Shared>) -> Response {
    shared
        .behavior
        .lock()
        .expect("nobody panics with it")
        .metadata_asked += 1;
    let behavior = shared.behavior.lock().expect("nobody panics with it").clone();
    if behavior.is_down {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let issuer = &shared.issuer;
    let mut document = json!({
        "issuer": issuer, "authorization_endpoint": format!("{issuer}/auth"), "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/jwks"), "end_session_endpoint": format!("{issuer}/end"),
        "code_challenge_methods_supported": ["S256"], "backchannel_logout_supported": true,
    });
    merge(&mut document, &behavior.metadata);
    Json(document).into_response()
}

async fn keys(State(shared): State<Shared>) -> Response {
    let behavior = shared.behavior.lock().expect("nobody panics with it").clone();
    if behavior.is_down {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let set = behavior.jwks.clone();
    Json(set.unwrap_or_else(|| json!({"keys": [jwk(&behavior.key, &behavior.kid)]}))).into_response()
}

#[derive(Deserialize)]
struct TokenForm {
    code: String,
    code_verifier: String,
}

/// The code is the nonce and the challenge of the request, so that nothing has to be remembered.
async fn token(State(shared): State<Shared>, Form(form): Form<TokenForm>) -> Response {
    let behavior = shared.behavior.lock().expect("nobody panics with it").clone();
    let refused = |error: &str| (StatusCode::BAD_REQUEST, Json(json!({"error": error}))).into_response();
    let Some((nonce, challenge)) = form.code.split_once('.') else {
        return refused("invalid_grant");
    };
    let hashed = muster_trust::key::sha256(form.code_verifier.as_bytes());
    if URL_SAFE_NO_PAD.encode(hashed.as_bytes()) != challenge {
        return refused("invalid_grant");
    }
    let now = (shared.now)();
    let mut claims = json!({
        "iss": shared.issuer, "aud": CLIENT, "sub": "0001", "iat": now, "exp": now + 300, "nonce": nonce,
        "auth_time": now, "preferred_username": "ada@example.com", "name": "Ada Lovelace", "groups": ["mdm-admins"],
        "sid": "session-1",
    });
    merge(&mut claims, &behavior.claims);
    let token = behavior.token.clone().unwrap_or_else(|| behavior.signed(claims));
    Json(json!({"id_token": token, "access_token": "at", "token_type": "Bearer"})).into_response()
}

/// A browser on its way.
pub struct Away {
    cookie: String,
    state: String,
    code: String,
    location: String,
}

impl Away {
    /// Whether the provider is asked this.
    pub fn asks(&self, pair: &str) -> bool {
        let query = self.location.split_once('?').map_or("", |(_, query)| query);
        query.split('&').any(|found| found == pair)
    }
}

pub struct Stage {
    pub scene: Scene,
    pub idp: Idp,
    pub id: String,
}

fn query(location: &str, name: &str) -> String {
    let query = location.split_once('?').map_or("", |(_, query)| query);
    let found = query
        .split('&')
        .find_map(|pair| pair.strip_prefix(&format!("{name}=")));
    found.unwrap_or_default().to_owned()
}

async fn connect(scene: &Scene, name: &str, issuer: &str) -> String {
    let body = json!({"definition": {"issuer": issuer, "client_id": CLIENT}, "client_secret": "s3cret"});
    let path = format!("/api/v1/access/connections/{name}");
    let made = scene.call(Method::PUT, &path, &body.to_string()).await;
    assert!(!made.to_string().contains("s3cret"), "a secret is never shown");
    made["id"].as_str().expect("it has an id").to_owned()
}

impl Stage {
    /// What a logout token says that is of the session of whoever signed in (Back-Channel Logout 1.0, section 2.4).
    pub fn logout_claims(&self, jti: &str) -> Value {
        let now = self.scene.app.clock.now().as_unix_seconds();
        json!({
            "iss": self.idp.issuer, "aud": CLIENT, "iat": now, "exp": now + 120, "jti": jti, "sid": "session-1",
            "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
        })
    }

    /// The provider says that a session is over.
    pub async fn logs_out(&self, claims: Value) -> StatusCode {
        let token = self.idp.behavior().signed(claims);
        let path = format!("/auth/oidc/{}/backchannel-logout", self.id);
        let body = format!("logout_token={token}");
        self.scene.send(Method::POST, &path, &[], &body).await.status
    }

    pub async fn new() -> Stage {
        let scene = Scene::at("https://muster.example:8440").await;
        let network = "127.0.0.0/8".parse().expect("it is a network");
        let egress = Egress::new(&[network], None).expect("a client can be made");
        assert!(scene.app.web.set(Box::new(egress)).is_ok(), "it is set once");
        let idp = Idp::start(&scene).await;
        let id = connect(&scene, "corp", &idp.issuer).await;
        Stage { scene, idp, id }
    }

    pub async fn grant(&self, role: &str, group: &str) {
        let body = json!({"role": role, "group": group, "source": "corp"});
        self.scene
            .call(Method::POST, "/api/v1/access/grants", &body.to_string())
            .await;
    }

    pub async fn depart(&self, id: &str, rest: &str) -> Away {
        let path = format!("/auth/oidc/{id}/start?{rest}");
        let answer = self
            .scene
            .send(Method::GET, &path, &[("cookie", &self.scene.cookie)], "")
            .await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        let location = answer.location().to_owned();
        Away {
            cookie: answer.cookie(FLOW_COOKIE).expect("the browser is bound"),
            state: query(&location, "state"),
            code: format!(
                "{}.{}",
                query(&location, "nonce"),
                query(&location, "code_challenge")
            ),
            location,
        }
    }

    pub async fn arrive(&self, id: &str, away: &Away, more: &str) -> Answer {
        let path = format!(
            "/auth/oidc/{id}/callback?code={}&state={}{more}",
            away.code, away.state
        );
        let cookie = format!("{FLOW_COOKIE}={}; {}", away.cookie, self.scene.cookie);
        self.scene
            .send(Method::GET, &path, &[("cookie", &cookie)], "")
            .await
    }

    pub async fn visit(&self) -> Answer {
        let away = self.depart(&self.id, "next=%2Fdevices").await;
        self.arrive(&self.id, &away, "").await
    }

    pub async fn sign_in(&mut self) {
        let answer = self.visit().await;
        assert_eq!(answer.location(), "/devices", "{}", answer.body);
        let value = answer.cookie(SESSION_COOKIE).expect("a session begins");
        self.scene.cookie = format!("{SESSION_COOKIE}={value}");
    }

    pub async fn refused(&self, what: &str) {
        let answer = self.visit().await;
        assert!(answer.cookie(SESSION_COOKIE).is_none(), "{what}: a session began");
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what}: {}", answer.body);
    }
}

#[tokio::test]
async fn what_a_person_may_do_follows_from_their_groups() {
    let mut stage = Stage::new().await;
    stage.scene.cookie = String::new();
    let page = stage
        .scene
        .send(Method::GET, "/signin?next=/devices", &[], "")
        .await;
    assert!(page.body.contains("Sign in with corp"), "{}", page.body);
    // Nobody gave the group a role yet: a clear page, no session, and somebody who waits.
    let answer = stage.visit().await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(
        answer.body.contains("mdm-admins") && answer.body.contains("corp/ada@example.com"),
        "{}",
        answer.body
    );
    assert!(answer.cookie(SESSION_COOKIE).is_none());
    stage.grant("helpdesk", "mdm-admins").await;
    stage.sign_in().await;
    let page = stage.scene.page("/devices").await;
    assert!(
        page.contains("Ada Lovelace") && !page.contains(r#"href="/access""#),
        "{page}"
    );
    let me = stage.scene.page("/access/me").await;
    assert!(
        me.contains("helpdesk") && me.contains("mdm-admins") && me.contains("corp/ada@example.com"),
        "{me}"
    );
    // More through another role counts with the next click, and so does less.
    stage.grant("auditor", "mdm-admins").await;
    assert_eq!(stage.scene.get("/access").await.status, StatusCode::OK);
    for role in ["auditor", "helpdesk"] {
        let body = json!({"role": role, "group": "mdm-admins", "source": "corp"}).to_string();
        stage
            .scene
            .call(Method::POST, "/api/v1/access/grants/revoke", &body)
            .await;
    }
    assert_eq!(stage.scene.get("/devices").await.status, StatusCode::FORBIDDEN);
    let body = json!({"role": "read_only", "person": "corp/ada@example.com"}).to_string();
    stage
        .scene
        .call(Method::POST, "/api/v1/access/grants", &body)
        .await;
    assert_eq!(stage.scene.get("/devices").await.status, StatusCode::OK);
    // A name is no identity: another subject of the same name is somebody else.
    stage.idp.set(|idp| idp.claims = json!({"sub": "0002"}));
    let other = stage.visit().await;
    assert!(other.body.contains("corp/ada@example.com (2)"), "{}", other.body);
    // And a link cannot be made for somebody whom a provider knows.
    let link = json!({"person": "corp/ada@example.com"}).to_string();
    let refused = stage
        .scene
        .ask(&scope::every(), Method::POST, "/api/v1/console-links", &link)
        .await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.body);
    let body = json!({"person": "corp/ada@example.com"}).to_string();
    stage
        .scene
        .call(Method::POST, "/api/v1/access/people/disable", &body)
        .await;
    assert_eq!(stage.scene.get("/devices").await.status, StatusCode::SEE_OTHER);
    stage.idp.set(|idp| idp.claims = json!({}));
    stage.refused("disabled").await;
}

#[tokio::test]
async fn a14_a_provider_that_lies_signs_nobody_in() {
    let stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    let now = stage.scene.app.clock.now().as_unix_seconds();
    for claims in [
        json!({"nonce": "other"}),
        json!({"nonce": null}),
        json!({"iss": "https://evil.example"}),
        json!({"aud": "other"}),
        json!({"aud": [CLIENT, "other"]}),
        json!({"azp": "other"}),
        json!({"exp": now - 120}),
        json!({"iat": now - 3600, "exp": now + 300}),
        json!({"iat": now + 600}),
        json!({"nbf": now + 600}),
        json!({"sub": null}),
        json!({"at_hash": "AAAA"}),
    ] {
        stage.idp.set(|idp| idp.claims = claims.clone());
        stage.refused(&claims.to_string()).await;
    }
    stage.idp.set(|idp| idp.claims = json!({}));
    for header in [
        json!({"alg": "none"}),
        json!({"alg": "HS256"}),
        json!({"alg": "ES384"}),
        json!({"crit": ["x"]}),
        json!({"typ": "at+jwt"}),
        json!({"typ": "logout+jwt"}),
        json!({"kid": "other"}),
        json!({"jwk": {"kty": "EC"}}),
    ] {
        stage.idp.set(|idp| idp.header = header.clone());
        stage.refused(&header.to_string()).await;
    }
    stage.idp.set(|idp| {
        idp.header = json!({});
        let other = SigningKey::generate_p256().expect("a key can be made");
        idp.token = Some(sign(
            &other,
            &json!({"alg": "ES256", "kid": "k1"}),
            &json!({"sub": "0001"}),
        ));
    });
    stage.refused("signed by another key").await;
    stage.idp.set(|idp| idp.token = Some("x".repeat(60_000)));
    stage.refused("no token").await;
    let page = stage.scene.page("/access/connections").await;
    assert!(page.contains("failing"), "{page}");
    stage.idp.set(|idp| idp.token = None);
    assert_eq!(
        stage.visit().await.status,
        StatusCode::SEE_OTHER,
        "an honest one does"
    );
}

#[tokio::test]
async fn a14_an_answer_counts_once_in_the_browser_and_for_the_provider_that_was_asked() {
    let stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    let another = Idp::start(&stage.scene).await;
    let other = connect(&stage.scene, "other", &another.issuer).await;
    let refused = async |id: &str, away: &Away, more: &str, what: &str| {
        let answer = stage.arrive(id, away, more).await;
        assert!(answer.cookie(SESSION_COOKIE).is_none(), "{what}");
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what}: {}", answer.body);
    };
    let away = stage.depart(&stage.id, "next=%2F").await;
    assert_eq!(query(&away.location, "code_challenge_method"), "S256");
    refused(&other, &away, "", "another connection").await;
    let mut thief = stage.depart(&stage.id, "next=%2F").await;
    thief.state.clone_from(&away.state);
    thief.code.clone_from(&away.code);
    refused(&stage.id, &thief, "", "another browser").await;
    let mut bent = stage.depart(&stage.id, "next=%2F").await;
    bent.state.pop();
    refused(&stage.id, &bent, "", "a bent state").await;
    refused(
        &stage.id,
        &away,
        "&iss=https%3A%2F%2Fevil.example",
        "another issuer answers",
    )
    .await;
    refused(&stage.id, &away, "&error=access_denied", "the provider refuses").await;
    // A code of another request has the challenge of another verifier.
    let mut injected = stage.depart(&stage.id, "next=%2F").await;
    injected.code.clone_from(&away.code);
    refused(&stage.id, &injected, "", "an injected code").await;
    injected.code = query(&injected.location, "nonce");
    refused(&stage.id, &injected, "", "a second try of one departure").await;
    let page = stage.scene.page("/access/connections").await;
    assert!(page.contains("failing"), "{page}");
    assert_eq!(
        stage.arrive(&stage.id, &away, "").await.status,
        StatusCode::SEE_OTHER
    );
    refused(&stage.id, &away, "", "twice").await;
    let late = stage.depart(&stage.id, "next=%2F").await;
    stage.scene.pass_seconds(601);
    refused(&stage.id, &late, "", "too late").await;
    // Nobody is sent to another site.
    for next in [
        "%2F%2Fevil.example",
        "https%3A%2F%2Fevil.example",
        "%2F%5Cevil.example",
    ] {
        let away = stage.depart(&stage.id, &format!("next={next}")).await;
        assert_eq!(stage.arrive(&stage.id, &away, "").await.location(), "/", "{next}");
    }
    stage
        .idp
        .set(|idp| idp.metadata = json!({"authorization_response_iss_parameter_supported": true}));
    stage.scene.pass_seconds(3700);
    let away = stage.depart(&stage.id, "next=%2F").await;
    refused(
        &stage.id,
        &away,
        "",
        "RFC 9207 says who answers, and nobody is named",
    )
    .await;
    let issuer = crate::session::encode(&stage.idp.issuer);
    let said = stage.arrive(&stage.id, &away, &format!("&iss={issuer}")).await;
    assert_eq!(said.status, StatusCode::SEE_OTHER, "{}", said.body);
}

#[tokio::test]
async fn a13_a_logout_at_the_provider_ends_the_session_at_once() {
    let mut stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    stage.sign_in().await;
    let logout = stage.logout_claims("logout-1");
    let now = logout["iat"].as_i64().expect("it is a number");
    let path = format!("/auth/oidc/{}/backchannel-logout", stage.id);
    let send = async |token: String| {
        stage
            .scene
            .send(Method::POST, &path, &[], &format!("logout_token={token}"))
            .await
            .status
    };
    let behavior = stage.idp.behavior();
    for change in [
        json!({"aud": "other"}),
        json!({"nonce": "n"}),
        json!({"events": {}}),
        json!({"iat": now - 3600}),
        json!({"sid": null}),
        json!({"sid": "another", "jti": "logout-0"}),
    ] {
        let mut claims = logout.clone();
        merge(&mut claims, &change);
        send(behavior.signed(claims)).await;
        assert_eq!(
            stage.scene.get("/devices").await.status,
            StatusCode::OK,
            "{change}"
        );
    }
    let other = SigningKey::generate_p256().expect("a key can be made");
    let forged = sign(&other, &json!({"alg": "ES256", "kid": "k1"}), &logout);
    assert_eq!(send(forged).await, StatusCode::BAD_REQUEST);
    assert_eq!(send("garbage".to_owned()).await, StatusCode::BAD_REQUEST);
    let sound = behavior.signed(logout);
    assert_eq!(send(sound.clone()).await, StatusCode::OK);
    assert_eq!(
        stage.scene.get("/devices").await.status,
        StatusCode::SEE_OTHER,
        "the session is over"
    );
    assert_eq!(send(sound).await, StatusCode::BAD_REQUEST, "it counts once");
}

#[tokio::test]
async fn whom_the_directory_deactivates_is_signed_out_and_does_not_come_back() {
    let mut stage = Stage::new().await;
    stage.grant("helpdesk", "mdm-admins").await;
    stage.sign_in().await;
    let tenant = stage.scene.tenant;
    let bar = |is_barred: bool| {
        let app = stage.scene.app.clone();
        async move {
            audit::housekeeping(&app, Scope::Tenant(tenant.uuid()), move |tx| {
                // As the directory writes the name: capitals do not count.
                let (person, at) = ("Ada@Example.com", Timestamp::from_unix_seconds(1_800_000_000));
                if is_barred {
                    access::bar(tx, tenant, person, at).map(|ended| ended.sessions)
                } else {
                    access::unbar(tx, tenant, person).map(|()| 0)
                }
            })
            .await
            .expect("it is written")
        }
    };
    assert_eq!(bar(true).await, 1, "the session of the identity provider ends");
    assert_eq!(
        stage.scene.get("/devices").await.status,
        StatusCode::SEE_OTHER,
        "signed out"
    );
    stage.refused("inactive in the directory").await;
    bar(false).await;
    stage.sign_in().await;
    assert_eq!(stage.scene.get("/devices").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a15_the_provider_is_asked_again_before_what_is_destructive() {
    let mut stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    let device = stage.scene.device("S-1").await.id;
    let name = stage.scene.name(device).await;
    let retire = format!("/devices/{device}/retire");
    let now = stage.scene.app.clock.now().as_unix_seconds();
    // Somebody who was asked yesterday is signed in, and no more.
    stage
        .idp
        .set(|idp| idp.claims = json!({"auth_time": now - 86_400}));
    stage.sign_in().await;
    let asked = stage.scene.post(&retire, &[("name", &name)]).await;
    assert_eq!(asked.status, StatusCode::UNAUTHORIZED, "{}", asked.body);
    let page = stage.scene.page("/step-up?next=/devices").await;
    assert!(
        page.contains("Sign in again") && !page.contains("With a new sign-in link"),
        "{page}"
    );
    let proof = async |stage: &Stage| {
        let away = stage.depart(&stage.id, "purpose=step-up&next=%2Fdevices").await;
        assert_eq!(
            (query(&away.location, "prompt"), query(&away.location, "max_age")),
            ("login".to_owned(), "0".to_owned())
        );
        stage.arrive(&stage.id, &away, "").await
    };
    let stale = proof(&stage).await;
    assert_eq!(stale.status, StatusCode::FORBIDDEN, "{}", stale.body);
    stage.idp.set(|idp| idp.claims = json!({"auth_time": null}));
    assert_eq!(proof(&stage).await.status, StatusCode::FORBIDDEN);
    stage.idp.set(|idp| idp.claims = json!({"sub": "0002"}));
    let other = proof(&stage).await;
    assert!(other.body.contains("somebody else"), "{}", other.body);
    stage.idp.set(|idp| idp.claims = json!({}));
    let proven = proof(&stage).await;
    assert_eq!(proven.location(), "/devices?notice=proven", "{}", proven.body);
    let done = stage.scene.post(&retire, &[("name", &name)]).await;
    assert_eq!(done.status, StatusCode::SEE_OTHER, "{}", done.body);
}

#[tokio::test]
async fn keys_roll_over_and_a_provider_that_is_away_ends_no_session() {
    let mut stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    stage.sign_in().await;
    stage.scene.pass_seconds(31);
    stage.idp.set(|idp| {
        idp.key = Arc::new(SigningKey::generate_p256().expect("a key can be made"));
        idp.kid = "k2".to_owned();
    });
    stage.sign_in().await;
    stage.idp.set(|idp| idp.is_down = true);
    stage.sign_in().await;
    stage.scene.pass_seconds(90_000);
    stage.scene.cookie = stage.scene.sign_in("mara").await;
    let path = format!("/auth/oidc/{}/start?next=%2F", stage.id);
    let away = stage.scene.get(&path).await;
    assert_eq!(away.status, StatusCode::SERVICE_UNAVAILABLE, "{}", away.body);
    assert!(away.body.contains("one-time link still works"), "{}", away.body);
    assert_eq!(stage.scene.get("/devices").await.status, StatusCode::OK);
    stage.idp.set(|idp| {
        idp.is_down = false;
        idp.metadata = json!({"issuer": "https://evil.example"});
    });
    assert_eq!(
        stage.scene.get(&path).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    let test = stage
        .scene
        .call(Method::POST, "/api/v1/access/connections/corp/test", "")
        .await;
    let failed = test["items"].as_array().expect("it is a list");
    let failed = failed
        .iter()
        .find(|step| step["outcome"] == "failed")
        .expect("one failed");
    assert_eq!(failed["step"], "issuer", "{test}");
    stage.idp.set(|idp| {
        idp.metadata = json!({"jwks_uri": "http://169.254.169.254/latest"});
    });
    let test = stage
        .scene
        .call(Method::POST, "/api/v1/access/connections/corp/test", "")
        .await;
    assert!(test.to_string().contains("--egress-allow"), "{test}");
    stage.idp.set(|idp| {
        idp.metadata = json!({});
        idp.jwks = Some(json!({"keys": [], "padding": "x".repeat(100_000)}));
    });
    let test = stage
        .scene
        .call(Method::POST, "/api/v1/access/connections/corp/test", "")
        .await;
    assert!(test.to_string().contains("too long"), "{test}");
}

#[tokio::test]
async fn a_connection_is_changed_only_by_whoever_holds_what_its_groups_get() {
    let stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    let path = "/api/v1/access/connections/corp";
    let change = |issuer: &str| {
        let definition = json!({"issuer": issuer, "client_id": CLIENT, "groups_claim": "department"});
        json!({"definition": definition}).to_string()
    };
    let weak = stage
        .scene
        .ask(
            "sso:write access:read",
            Method::PUT,
            path,
            &change(&stage.idp.issuer),
        )
        .await;
    assert_eq!(weak.status, StatusCode::FORBIDDEN, "{}", weak.body);
    let all = scope::every();
    let moved = stage
        .scene
        .ask(&all, Method::PUT, path, &change("https://evil.example"))
        .await;
    assert_eq!(
        moved.status,
        StatusCode::BAD_REQUEST,
        "the issuer never changes: {}",
        moved.body
    );
    let client = json!({"definition": {"issuer": stage.idp.issuer, "client_id": "other"}}).to_string();
    let without = stage.scene.ask(&all, Method::PUT, path, &client).await;
    assert_eq!(
        without.status,
        StatusCode::BAD_REQUEST,
        "a secret does not follow to another client"
    );
    let own = json!({
        "definition": {"issuer": stage.idp.issuer, "client_id": CLIENT, "client_auth": "private_key_jwt"}
    });
    stage.scene.call(Method::PUT, path, &own.to_string()).await;
    let keys = stage
        .scene
        .send(Method::GET, &format!("/auth/oidc/{}/jwks", stage.id), &[], "")
        .await;
    assert!(
        keys.body.contains(r#""kty":"EC""#) && !keys.body.contains(r#""d":"#),
        "{}",
        keys.body
    );
    stage.scene.call(Method::DELETE, path, "").await;
    let gone = stage.scene.get(&format!("/auth/oidc/{}/start", stage.id)).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    let grants = stage.scene.call(Method::GET, "/api/v1/access/grants", "").await;
    assert_eq!(grants["items"], json!([]), "the roles of its groups are gone");
}

#[tokio::test]
async fn t1_a_connection_of_one_tenant_signs_nobody_into_another() {
    let mut stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    let (other, cookie) = stage.scene.second_tenant().await;
    let shared = stage.idp.issuer.clone();
    let theirs = stage.scene.connect_in(other, "corp", &shared).await;
    // The same person of the same issuer is known to one tenant, and has no role in the other.
    stage.sign_in().await;
    let away = stage.depart(&theirs, "next=%2F").await;
    let answer = stage.arrive(&theirs, &away, "").await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.body);
    let away = stage.depart(&stage.id, "next=%2F").await;
    let crossed = stage.arrive(&theirs, &away, "").await;
    assert_eq!(crossed.status, StatusCode::FORBIDDEN);
    let own = std::mem::replace(&mut stage.scene.cookie, cookie);
    let page = stage.scene.page("/access/connections").await;
    assert!(!page.contains(&stage.id), "{page}");
    let people = stage.scene.page("/access").await;
    assert!(
        people.contains("corp/ada@example.com"),
        "they wait in the other tenant as well: {people}"
    );
    stage.scene.cookie = own;
    // With two companies the page asks whose provider is meant.
    let page = stage.scene.send(Method::GET, "/signin", &[], "").await;
    assert!(
        page.body.contains("Your company") && !page.body.contains("Sign in with corp"),
        "{}",
        page.body
    );
    let named = stage
        .scene
        .send(Method::GET, "/signin?company=test", &[], "")
        .await;
    assert!(
        named.body.contains(&stage.id) && !named.body.contains(&theirs),
        "{}",
        named.body
    );
}
