//! The authorization server: tokens, introspection, metadata (RFC 6749, 7662, 8414).

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::{
    api::{Answer, Api, answer},
    jwt::{self, TokenKey},
    raw,
    server::{Options, Server},
    unix_seconds,
};

/// Asserts a refusal of RFC 6749 §5.2.
#[track_caller]
fn oauth_error(answer: &Answer, status: u16, error: &str) {
    let body = answer.expect(status);
    assert_eq!(body["error"], error, "{body}");
    assert!(
        body["error_description"]
            .as_str()
            .is_some_and(|text| !text.is_empty()),
        "{body}"
    );
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(
        answer.header("www-authenticate").starts_with("Basic"),
        status == 401
    );
}

async fn introspect(api: &Api, token: &str) -> Value {
    let request = api
        .http
        .post(format!("{}/oauth2/introspect", api.origin))
        .bearer_auth(&api.token);
    let found = answer(request.form(&[("token", token)])).await;
    assert_eq!(found.header("cache-control"), "no-store");
    found.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn client_credentials_give_a_token_of_at_most_an_hour() {
    let server = Server::start(Options::default()).await;
    let anonymous = Api::anonymous(&server.admin);
    let (id, secret) = (
        server.admin.client_id.as_str(),
        server.admin.client_secret.as_str(),
    );
    let answer = anonymous
        .ask_token(&[("client_id", id), ("client_secret", secret)])
        .await;
    assert_eq!(answer.header("cache-control"), "no-store");
    let body = answer.ok();
    assert_eq!(body["token_type"], "Bearer");
    assert!(
        body["expires_in"]
            .as_i64()
            .is_some_and(|seconds| seconds > 0 && seconds <= 3600)
    );
    let (_, claims) = jwt::parts(body["access_token"].as_str().expect("a token is text"));
    let life = claims["exp"].as_i64().expect("a number") - claims["iat"].as_i64().expect("a number");
    assert!(life <= 3600);

    let basic = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    let request = anonymous
        .http
        .post(format!("{}/oauth2/token", anonymous.origin))
        .header("authorization", basic);
    let answer = super::support::api::answer(request.form(&[("grant_type", "client_credentials")])).await;
    answer.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_token_requests_are_refused_as_rfc_6749_says() {
    let server = Server::start(Options::default()).await;
    let api = Api::anonymous(&server.admin);
    let (id, secret) = (
        server.admin.client_id.as_str(),
        server.admin.client_secret.as_str(),
    );
    let nobody = format!("cli_{}", "0".repeat(32));
    for (client, secret) in [
        (id, "wrong"),
        (nobody.as_str(), secret),
        ("x' OR '1'='1", secret),
        ("", ""),
        ("admin", secret),
    ] {
        oauth_error(
            &api.ask_token(&[("client_id", client), ("client_secret", secret)])
                .await,
            401,
            "invalid_client",
        );
    }
    oauth_error(&api.ask_token(&[]).await, 401, "invalid_client");
    let form = [
        ("grant_type", "password"),
        ("client_id", id),
        ("client_secret", secret),
    ];
    oauth_error(
        &api.form("/oauth2/token", &form).await,
        400,
        "unsupported_grant_type",
    );
    oauth_error(
        &api.form("/oauth2/token", &form[1..]).await,
        400,
        "invalid_request",
    );
    let twice = [("client_id", id), ("client_id", id), ("client_secret", secret)];
    oauth_error(&api.ask_token(&twice).await, 400, "invalid_request");
    let scope = [
        ("client_id", id),
        ("client_secret", secret),
        ("scope", "device:read root:everything"),
    ];
    oauth_error(&api.ask_token(&scope).await, 400, "invalid_scope");
    let json = api
        .http
        .post(format!("{}/oauth2/token", api.origin))
        .json(&json!({"grant_type": "client_credentials"}));
    oauth_error(&answer(json).await, 400, "invalid_request");
    let got = answer(api.http.get(format!("{}/oauth2/token", api.origin))).await;
    got.refused(405, "method_not_allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_holds_the_scopes_that_were_asked_for_and_no_more() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let (id, secret) = (
        server.admin.client_id.as_str(),
        server.admin.client_secret.as_str(),
    );
    let fields = [
        ("client_id", id),
        ("client_secret", secret),
        ("scope", "device:read log:read"),
    ];
    let body = api.ask_token(&fields).await.ok();
    assert_eq!(body["scope"], "device:read log:read");
    let narrow = api.with_token(body["access_token"].as_str().expect("a token is text"));
    narrow.get("/devices").await.ok();
    let said = narrow.get("/policies").await.refused(403, "insufficient_scope");
    assert!(said.contains("policy:read"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_cannot_be_given_a_scope_that_does_not_exist() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    for scopes in [
        json!([]),
        json!(["root:everything"]),
        json!(["device:read log:read"]),
        json!([""]),
        json!("device:read"),
    ] {
        api.post("/clients", &json!({"name": "n", "scopes": scopes}))
            .await
            .refused(400, "invalid");
    }
    assert_eq!(api.list("/clients").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn introspection_describes_a_living_token() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let found = introspect(&api, &api.token).await;
    assert_eq!(found["active"], true);
    assert_eq!(found["client_id"], server.admin.client_id.as_str());
    assert_eq!(found["sub"], server.admin.client_id.as_str());
    assert_eq!(found["tenant"], server.admin.tenant.as_str());
    assert!(
        found["scope"]
            .as_str()
            .is_some_and(|scope| scope.split(' ').any(|name| name == "device:read"))
    );
    assert!(found["exp"].as_i64().is_some_and(|at| at > unix_seconds()));

    let (id, secret) = (
        server.admin.client_id.as_str(),
        server.admin.client_secret.as_str(),
    );
    let fields = [
        ("client_id", id),
        ("client_secret", secret),
        ("token", api.token.as_str()),
    ];
    assert_eq!(api.form("/oauth2/introspect", &fields).await.ok()["active"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn introspection_says_of_anything_else_only_that_it_is_not_active() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let (header, mut claims) = jwt::parts(&api.token);
    let foreign = TokenKey::foreign().sign(&header, &claims);
    let own = TokenKey::read(&server.data_dir().join("keys/access-tokens.pem"));
    claims["exp"] = json!(unix_seconds() - 1);
    claims["iat"] = json!(unix_seconds() - 1000);
    let expired = own.sign(&header, &claims);
    let asked = json!({"device_uuid": uuid::Uuid::new_v4()});
    let enrollment = api.post("/enrollment-tokens", &asked).await.expect(201)["token"].clone();
    let enrollment = enrollment.as_str().expect("a token is text").to_owned();
    for token in [
        "",
        "rubbish",
        "a.b.c",
        &foreign,
        &expired,
        &enrollment,
        &"x".repeat(10_000),
    ] {
        assert_eq!(
            introspect(&api, token).await,
            json!({"active": false}),
            "{token:.40}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn introspection_needs_credentials() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let token = api.token.as_str();
    oauth_error(
        &api.form("/oauth2/introspect", &[("token", token)]).await,
        401,
        "invalid_client",
    );
    let (id, wrong) = (server.admin.client_id.as_str(), "wrong");
    let fields = [("client_id", id), ("client_secret", wrong), ("token", token)];
    oauth_error(
        &api.form("/oauth2/introspect", &fields).await,
        401,
        "invalid_client",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_client_dies_at_once_with_its_tokens() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let made = api
        .post("/clients", &json!({"name": "short", "scopes": ["device:read"]}))
        .await
        .expect(201);
    let (id, secret) = (
        made["client_id"].as_str().expect("text"),
        made["client_secret"].as_str().expect("text"),
    );
    let client = api.sign_in_as(id, secret).await;
    client.get("/devices").await.ok();
    api.delete(&format!("/clients/{id}")).await.expect(204);
    client.get("/devices").await.refused(401, "unauthenticated");
    assert_eq!(introspect(&api, &client.token).await, json!({"active": false}));
    oauth_error(
        &api.ask_token(&[("client_id", id), ("client_secret", secret)])
            .await,
        401,
        "invalid_client",
    );
    api.delete(&format!("/clients/{id}"))
        .await
        .refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a12_the_last_client_with_every_scope_cannot_be_removed() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let own = format!("/clients/{}", server.admin.client_id);
    api.delete(&own).await.refused(409, "last_client");
    let most = ["client:write", "client:read", "device:read"];
    let helper = api.client_with("helper", &most).await;
    helper.delete(&own).await.refused(403, "insufficient_scope");
    api.get("/clients").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a5_no_header_changes_what_the_server_calls_itself() {
    let server = Server::start(Options::default()).await;
    let forged = [
        "Host: evil.example",
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Proto: http",
        "Forwarded: host=evil.example;proto=http",
    ];
    let path = "/.well-known/oauth-authorization-server";
    let honest = raw::get(&server.admin, path, &[]).await;
    let answer = raw::get(&server.admin, path, &forged).await;
    assert_eq!((answer.status, &answer.body), (200, &honest.body));
    let metadata: Value = serde_json::from_str(&answer.body).expect("it is JSON");
    let origin = &server.admin.admin_url;
    assert_eq!(metadata["issuer"], origin.as_str());
    assert_eq!(metadata["token_endpoint"], format!("{origin}/oauth2/token"));
    assert_eq!(
        metadata["introspection_endpoint"],
        format!("{origin}/oauth2/introspect")
    );

    let api = server.api().await;
    let link = api
        .request(reqwest::Method::POST, "/console-links")
        .header("x-forwarded-host", "evil.example");
    let made = answer_of(link.json(&json!({"person": "Ada"}))).await;
    assert!(
        made["url"].as_str().is_some_and(|url| url.starts_with(origin)),
        "{made}"
    );
}

async fn answer_of(request: reqwest::RequestBuilder) -> Value {
    answer(request).await.ok()
}

/// Whoever is signed in may do something, also when no role was given to them.
#[tokio::test(flavor = "multi_thread")]
async fn the_access_review_names_who_is_signed_in_by_a_link() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let made = api
        .post(
            "/console-links",
            &json!({"person": "mara", "roles": ["helpdesk"]}),
        )
        .await
        .expect(201);
    let named = async || {
        let review = api.get("/access/review").await.ok();
        let rows = review["items"].as_array().expect("a list").clone();
        rows.into_iter().find(|row| row["name"] == "mara")
    };
    assert!(named().await.is_none(), "a link that nobody used is nobody");
    let secret = made["url"]
        .as_str()
        .and_then(|url| url.split_once('#'))
        .expect("a secret")
        .1;
    let sent = api
        .http
        .post(format!("{}/signin", api.origin))
        .form(&[("secret", secret)]);
    assert!(answer(sent).await.status < 400);
    let row = named().await.expect("she is signed in");
    assert_eq!(row["kind"], "link");
    assert_eq!(row["through"][0]["role"], "helpdesk");
    assert!(
        row["through"][0]["granted_by"]
            .as_str()
            .is_some_and(|by| by.starts_with("client:"))
    );
    let session = api.get("/access/sessions?person=mara").await.ok();
    let id = session["items"][0]["id"].as_str().expect("an id").to_owned();
    api.post(&format!("/access/sessions/{id}/end"), &json!({}))
        .await
        .expect(204);
    assert!(named().await.is_none(), "her session is over");
}
