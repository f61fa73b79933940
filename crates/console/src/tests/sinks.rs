//! The page of sinks.

use axum::http::{Method, StatusCode};

use crate::testing::{HOSTILE, Scene};

#[tokio::test]
async fn sinks_are_shown_paused_and_resumed_and_their_secrets_are_on_no_page() {
    let scene = Scene::new().await;
    assert!(scene.page("/sinks").await.contains("muster sink put siem"));
    let body = serde_json::json!({
        "place": {"kind": "elastic", "url": "https://es.example.com:9200"}, "secret": "QVBJS0VZ",
    });
    scene
        .call(Method::PUT, "/api/v1/sinks/siem", &body.to_string())
        .await;
    let page = scene.page("/sinks").await;
    assert!(
        page.contains("https://es.example.com:9200") && page.contains("never used"),
        "{page}"
    );
    assert!(!page.contains("QVBJS0VZ"));
    let paused = scene.post("/sinks/siem/pause", &[("reason", HOSTILE)]).await;
    assert_eq!(paused.status, StatusCode::SEE_OTHER, "{paused:?}");
    assert!(scene.page("/sinks").await.contains("paused"));
    let resumed = scene.post("/sinks/siem/resume", &[]).await;
    assert_eq!(resumed.status, StatusCode::SEE_OTHER, "{resumed:?}");
    let nothing = scene.post("/sinks/siem/replay-dead", &[]).await;
    assert_eq!(nothing.status, StatusCode::NOT_FOUND, "nothing is set aside");
}
