use axum::http::{Method, StatusCode};
use serde_json::json;

use crate::testing::{HOSTILE, Scene};

/// What a person sees before and after an identity provider is connected, with hostile text in everything that it sends.
#[tokio::test]
async fn j8_people_and_what_was_refused_are_shown() {
    let scene = Scene::new().await;
    let empty = scene.page("/users").await;
    for part in [
        "Connect an identity provider",
        "muster scim token create entra",
        "https://127.0.0.1:8440/scim/v2",
    ] {
        assert!(empty.contains(part), "{part}: {empty}");
    }
    let body = json!({"connector": "entra"}).to_string();
    scene.call(Method::POST, "/api/v1/scim-tokens", &body).await;
    assert!(scene.page("/users").await.contains("not heard of yet"));
    let person = json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": HOSTILE, "displayName": HOSTILE, "title": HOSTILE,
        "externalId": HOSTILE, "active": false,
    });
    let made = scene
        .call(Method::POST, "/scim/v2/Users", &person.to_string())
        .await;
    let id = made["id"].as_str().expect("an id").to_owned();
    let group = json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"], "displayName": HOSTILE, "members": [{"value": id}],
    });
    let group = scene
        .call(Method::POST, "/scim/v2/Groups", &group.to_string())
        .await;
    let group = group["id"].as_str().expect("an id").to_owned();
    let refused = scene
        .try_call(Method::POST, "/scim/v2/Users", &person.to_string())
        .await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert!(refused.body.contains("uniqueness"), "{}", refused.body);
    for path in [
        "/users".to_owned(),
        "/users?state=inactive".to_owned(),
        format!("/users/{id}"),
        "/users/groups".to_owned(),
        format!("/users/groups/{group}"),
        "/users/sync".to_owned(),
        "/users/sync?refused=1".to_owned(),
    ] {
        let page = scene.page(&path).await;
        assert!(!page.contains("<script>"), "{path}: {page}");
    }
    let users = scene.page("/users").await;
    assert!(
        users.contains("Refused lately") && users.contains("inactive"),
        "{users}"
    );
    assert!(
        scene
            .page("/users?state=active&q=nobody")
            .await
            .contains("Nobody is like that.")
    );
    let shown = scene.page(&format!("/users/{id}")).await;
    assert!(
        shown.contains("owner.active") && shown.contains("No device has this person"),
        "{shown}"
    );
    assert!(
        scene
            .page("/users/sync?refused=1")
            .await
            .contains("A user has this userName")
    );
    assert_eq!(
        scene
            .get("/users/usr_00000000000000000000000000000000")
            .await
            .status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        scene.get("/users?state=gone").await.status,
        StatusCode::BAD_REQUEST
    );
}
