//! The page of signals.

use axum::http::Method;

use crate::testing::Scene;

#[tokio::test]
async fn sources_are_shown_with_what_is_missing_and_their_secrets_are_on_no_page() {
    let scene = Scene::new().await;
    assert!(scene.page("/signals").await.contains("muster signal put edr"));
    let body = serde_json::json!({"from": {"kind": "webhook", "authentication": "hmac"}});
    scene
        .call(Method::PUT, "/api/v1/signal-sources/edr", &body.to_string())
        .await;
    assert!(scene.page("/signals").await.contains("has no secret"));
    let made = scene
        .call(Method::POST, "/api/v1/signal-sources/edr/secret", "{}")
        .await;
    let secret = made["secret"].as_str().expect("it is shown once");
    assert!(secret.starts_with("whsec_"));
    let page = scene.page("/signals").await;
    assert!(
        page.contains("never heard of") && page.contains("/signals/in/sgs_"),
        "{page}"
    );
    assert!(!page.contains(secret));
}
