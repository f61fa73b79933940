//! Connections to identity providers: one voice for a person, and not too many answers from one address.

use axum::http::{Method, StatusCode};
use serde_json::json;

use super::oidc::{CLIENT, Stage};

#[tokio::test]
async fn a_second_connection_of_one_issuer_is_refused() {
    let stage = Stage::new().await;
    let body =
        json!({"definition": {"issuer": stage.idp.issuer, "client_id": "other"}, "client_secret": "s"})
            .to_string();
    let twin = "/api/v1/access/connections/twin";
    let refused = stage.scene.try_call(Method::PUT, twin, &body).await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.body);
    assert!(refused.body.contains("corp"), "{}", refused.body);
    // It is changed as ever, and once it is gone the next one takes its people over.
    stage.grant("owner", "mdm-admins").await;
    stage.visit().await;
    let own = "/api/v1/access/connections/corp";
    stage.scene.call(Method::PUT, own, &body).await;
    stage.scene.call(Method::DELETE, own, "").await;
    let body = json!({"definition": {"issuer": stage.idp.issuer, "client_id": CLIENT}, "client_secret": "s"})
        .to_string();
    let made = stage.scene.call(Method::PUT, twin, &body).await;
    let grant = json!({"role": "helpdesk", "person": "corp/ada@example.com"}).to_string();
    stage
        .scene
        .call(Method::POST, "/api/v1/access/grants", &grant)
        .await;
    let id = made["id"].as_str().expect("it has an id");
    let away = stage.depart(id, "next=%2F").await;
    let arrived = stage.arrive(id, &away, "").await;
    assert_eq!(arrived.status, StatusCode::SEE_OTHER, "{}", arrived.body);
}

#[tokio::test]
async fn whoever_comes_back_from_a_provider_too_often_waits_and_strangers_cost_an_address_nothing() {
    let stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    // What no browser was sent away with is refused, and counts against nobody who shares the address.
    let path = format!("/auth/oidc/{}/callback?code=x&state=y", stage.id);
    for _ in 0..300 {
        assert_eq!(stage.scene.get(&path).await.status, StatusCode::FORBIDDEN);
    }
    let away = stage.depart(&stage.id, "next=%2F").await;
    let arrived = stage.arrive(&stage.id, &away, "").await;
    assert_eq!(arrived.status, StatusCode::SEE_OTHER, "{}", arrived.body);
    let mut last = StatusCode::OK;
    for _ in 0..2000 {
        last = stage.arrive(&stage.id, &away, "").await.status;
        if last == StatusCode::TOO_MANY_REQUESTS {
            break;
        }
        assert_eq!(last, StatusCode::FORBIDDEN, "a way back counts once");
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
}
