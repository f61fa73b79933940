//! Who enrolls a device of their own, and what their token may do.

use axum::http::{Method, StatusCode};
use muster_control::{
    access::{problem::IDENTITY_CONFLICT, tokens},
    devices::DeviceState,
};
use muster_model::Ownership;
use muster_trust::key::SigningKey;
use serde_json::{Value, json};

use super::{
    oidc::CLIENT,
    routing::{DEVICE, ENROLL_COOKIE, Routed},
};

#[tokio::test]
async fn t10_a_token_is_made_for_whoever_was_asked_anew_and_means_it() {
    let routed = Routed::new().await;
    routed.let_enroll(routed.acme, &json!({})).await;
    // A session that is open at the provider proves nothing of who sits before it.
    let now = routed.stage.scene.app.clock.now().as_unix_seconds();
    for time in [json!(now - 86_400), json!(null)] {
        routed.says(json!({"groups": ["acme-staff"], "auth_time": time}));
        let answer = routed.own_device().await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.body);
    }
    routed.says(json!({"groups": ["acme-staff"]}));
    let asked = routed.asks_for_own_device(&routed.stage.id).await;
    assert!(
        asked.status == StatusCode::OK && asked.body.contains("Is this your device?"),
        "{}",
        asked.body
    );
    assert!(routed.tokens(routed.acme).await.is_empty(), "a link made a token");
    // It is for this browser and this device, counts once, and not for long.
    for (cookie, device) in [
        (String::new(), DEVICE),
        (format!("{ENROLL_COOKIE}=another"), DEVICE),
        (
            format!(
                "{ENROLL_COOKIE}={}",
                asked.cookie(ENROLL_COOKIE).unwrap_or_default()
            ),
            "9b2f0c3e-1111-4222-8333-444455556667",
        ),
    ] {
        let refused = routed.says_so(&cookie, &asked, device).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{cookie} {device}");
    }
    assert!(routed.tokens(routed.acme).await.is_empty());
    let made = routed.means_it(&asked, DEVICE).await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.body);
    let again = routed.means_it(&asked, DEVICE).await;
    assert_eq!(again.status, StatusCode::FORBIDDEN, "{}", again.body);
    let asked = routed.asks_for_own_device(&routed.stage.id).await;
    routed.stage.scene.pass_seconds(301);
    let late = routed.means_it(&asked, DEVICE).await;
    assert_eq!(late.status, StatusCode::FORBIDDEN, "{}", late.body);
    assert_eq!(routed.tokens(routed.acme).await.len(), 1);
}

#[tokio::test]
async fn t10_whoever_is_called_like_another_at_another_provider_owns_none_of_their_devices() {
    let routed = Routed::new().await;
    routed.let_enroll(routed.acme, &json!({})).await;
    let own = routed
        .stage
        .scene
        .connect_in(routed.acme, "own", &routed.stage.idp.issuer)
        .await;
    let path = format!("/self-enrollment/{own}");
    let answer = routed.call(routed.acme, Method::PUT, &path, &json!({})).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let key = SigningKey::generate_p256().expect("a key can be made");
    routed.says(json!({"groups": ["acme-staff"]}));
    assert_eq!(routed.own_device_by(&own).await.status, StatusCode::OK);
    assert_eq!(
        routed.tokens(routed.acme).await[0]["owner"],
        "own/ada@example.com"
    );
    let enrolled = routed.enrolls_with(&key).await.expect("it is theirs");
    assert_eq!(enrolled.state, DeviceState::Active);
    assert_eq!(routed.own_device().await.status, StatusCode::OK);
    assert_eq!(
        routed.tokens(routed.acme).await[0]["owner"],
        "routed:corp/ada@example.com"
    );
    let refused = routed.enrolls_with(&key).await.expect_err("it is another's");
    assert_eq!(refused.kind, IDENTITY_CONFLICT);
}

#[tokio::test]
async fn t10_nobody_takes_a_device_over_with_a_token_of_their_own() {
    let routed = Routed::new().await;
    routed.let_enroll(routed.acme, &json!({})).await;
    let key = SigningKey::generate_p256().expect("a key can be made");
    // Their own device comes back as it was.
    routed.says(json!({"groups": ["acme-staff"]}));
    for epoch in [1, 2] {
        assert_eq!(routed.own_device().await.status, StatusCode::OK);
        let enrolled = routed.enrolls_with(&key).await.expect("it is theirs");
        assert_eq!((enrolled.epoch, enrolled.state), (epoch, DeviceState::Active));
        assert_eq!(enrolled.ownership, Ownership::Personal);
    }
    // Somebody else's it does not become.
    routed.says(json!({"sub": "0002", "preferred_username": "ben", "groups": ["acme-staff"]}));
    assert_eq!(routed.own_device().await.status, StatusCode::OK);
    let refused = routed.enrolls_with(&key).await.expect_err("it is another's");
    assert_eq!(refused.kind, IDENTITY_CONFLICT);
    // Whoever looks after devices makes it the company's, and a person does not make it personal again.
    routed.stage.scene.pass_seconds(1);
    let body = json!({"device_uuid": DEVICE}).to_string();
    let path = "/api/v1/enrollment-tokens";
    let made = routed
        .stage
        .scene
        .in_tenant(routed.acme, Method::POST, path, &body)
        .await;
    assert!(made.status.is_success(), "{}", made.body);
    let enrolled = routed.enrolls_with(&key).await.expect("the token is taken");
    assert_eq!((enrolled.epoch, enrolled.ownership), (3, Ownership::Company));
    routed.says(json!({"groups": ["acme-staff"]}));
    assert_eq!(routed.own_device().await.status, StatusCode::OK);
    let refused = routed.enrolls_with(&key).await.expect_err("it is the company's");
    assert_eq!(refused.kind, IDENTITY_CONFLICT);
}

#[tokio::test]
async fn t10_whoever_lets_people_enroll_may_make_tokens() {
    let routed = Routed::new().await;
    let with = async |scope: &str, method: Method, path: &str, body: Value| {
        let app = &routed.stage.scene.app;
        let issue = routed.stage.scene.issue(routed.stage.scene.client, scope);
        let (token, _) = tokens::issue_access(&app.keys, &issue, app.clock.now()).expect("it can be issued");
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        let path = format!("/api/v1/access{path}");
        routed
            .stage
            .scene
            .send(method, &path, &headers, &body.to_string())
            .await
            .status
    };
    let on = format!("/self-enrollment/{}", routed.stage.id);
    let definition =
        json!({"definition": {"issuer": routed.stage.idp.issuer, "client_id": CLIENT, "name_claim": "sub"}});
    let change = "/connections/corp";
    for scope in ["sso:write", "token:write"] {
        let status = with(scope, Method::PUT, &on, json!({})).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{scope}");
    }
    // Before anybody enrolls, who comes is nothing of tokens.
    let status = with("sso:write", Method::PUT, change, definition.clone()).await;
    assert_eq!(status, StatusCode::OK);
    let status = with("sso:write token:write", Method::PUT, &on, json!({})).await;
    assert_eq!(status, StatusCode::OK);
    let status = with("sso:write", Method::PUT, change, definition.clone()).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let status = with("sso:write token:write", Method::PUT, change, definition).await;
    assert_eq!(status, StatusCode::OK);
    // Off it goes without.
    let status = with("sso:write", Method::DELETE, &on, json!({})).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
}
