//! What people and programs can do to others before anybody knows who they are.

use axum::http::{Method, StatusCode};

use super::oidc::Stage;

#[tokio::test]
async fn what_strangers_may_make_us_ask_a_provider_is_bounded() {
    let stage = Stage::new().await;
    stage.idp.set(|idp| idp.is_down = true);
    let start = format!("/auth/oidc/{}/start?next=%2F", stage.id);
    // A failure is remembered: nobody waits for the provider again.
    let mut asked = Vec::new();
    for _ in 0..5 {
        asked.push(stage.scene.get(&start).await.status);
    }
    assert_eq!(asked, [StatusCode::SERVICE_UNAVAILABLE; 5]);
    assert_eq!(stage.idp.behavior().metadata_asked, 1);
    stage.idp.set(|idp| idp.is_down = false);
    stage.scene.pass_seconds(30);
    // Logout tokens that are none count by their address, and so do ways to the provider.
    let path = format!("/auth/oidc/{}/backchannel-logout", stage.id);
    let mut last = StatusCode::OK;
    for _ in 0..2000 {
        if last == StatusCode::TOO_MANY_REQUESTS {
            break;
        }
        let answer = stage
            .scene
            .send(Method::POST, &path, &[], "logout_token=garbage")
            .await;
        last = answer.status;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    let mut last = StatusCode::OK;
    for _ in 0..2000 {
        if last == StatusCode::TOO_MANY_REQUESTS {
            break;
        }
        last = stage.scene.get(&start).await.status;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(stage.idp.behavior().metadata_asked, 2);
}
