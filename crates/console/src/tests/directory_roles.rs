//! Roles by groups that SCIM brought: for people of a connection that says whose people they are, and for nobody else.

use axum::http::{Method, StatusCode};
use muster_control::access::scope;
use serde_json::{Value, json};

use super::oidc::Stage;

const CONNECTION: &str = "/api/v1/access/connections/corp";
const GRANTS: &str = "/api/v1/access/grants";

/// A provider by both ways: it signs people in, and keeps them here by SCIM.
pub struct Both {
    pub stage: Stage,
    pub token: String,
    pub person: String,
    group: String,
}

impl Both {
    pub async fn new() -> Both {
        let stage = Stage::new().await;
        let token = json!({"connector": "entra"}).to_string();
        let made = stage
            .scene
            .call(Method::POST, "/api/v1/scim-tokens", &token)
            .await;
        let mut both = Both {
            token: made["token"].as_str().expect("it is shown once").to_owned(),
            stage,
            person: String::new(),
            group: String::new(),
        };
        both.person = both.user("ada@example.com", "0001").await;
        let group = json!({"schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"], "displayName": "MDM Admins",
            "members": [{"value": both.person}]});
        both.group = both.scim(Method::POST, "/Groups", &group).await;
        both
    }

    /// A request of the connector; answers the id of what came of it.
    pub async fn scim(&self, method: Method, path: &str, body: &Value) -> String {
        let path = format!("/scim/v2{path}");
        let answer = self
            .stage
            .scene
            .with_body(&self.token, method, &path, &body.to_string())
            .await;
        assert!(answer.status.is_success(), "{path}: {}", answer.body);
        answer.json()["id"].as_str().unwrap_or_default().to_owned()
    }

    pub async fn user(&self, name: &str, external_id: &str) -> String {
        let user = json!({"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": name, "externalId": external_id,
            "active": true});
        self.scim(Method::POST, "/Users", &user).await
    }

    pub async fn patch(&self, path: &str, operation: &Value) {
        let patch =
            json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [operation]});
        self.scim(Method::PATCH, path, &patch).await;
    }

    fn definition(&self, directory: &Value) -> String {
        let mut definition = json!({"issuer": self.stage.idp.issuer, "client_id": "muster"});
        if !directory.is_null() {
            definition["directory"] = directory.clone();
        }
        json!({"definition": definition, "client_secret": "s3cret"}).to_string()
    }

    /// Links the two; the groups may give everything, unless it is said.
    pub async fn link(&self, directory: &Value) {
        let mut directory = directory.clone();
        if directory.is_object() && directory["at_most"].is_null() {
            directory["at_most"] = "owner".into();
        }
        let body = self.definition(&directory);
        self.stage.scene.call(Method::PUT, CONNECTION, &body).await;
    }

    async fn grant(&self) -> Value {
        let body = json!({"role": "owner", "group": "MDM Admins", "source": "directory"}).to_string();
        self.stage.scene.call(Method::POST, GRANTS, &body).await
    }

    pub async fn is_in(&self) -> bool {
        self.stage.scene.get("/devices").await.status == StatusCode::OK
    }
}

#[tokio::test]
async fn groups_of_the_directory_give_roles_to_people_of_a_connection_that_says_so() {
    let mut both = Both::new().await;
    let body = json!({"role": "owner", "group": "MDM Admins", "source": "directory"}).to_string();
    let early = both.stage.scene.try_call(Method::POST, GRANTS, &body).await;
    assert_eq!(early.status, StatusCode::BAD_REQUEST, "{}", early.body);
    assert!(early.body.contains("entra"), "{}", early.body);
    both.link(&json!({"connector": "entra"})).await;
    let granted = both.grant().await;
    assert_eq!(granted["subject"], both.group.as_str(), "by its id: {granted}");
    let listed = both.stage.scene.call(Method::GET, GRANTS, "").await.to_string();
    assert!(listed.contains("MDM Admins"), "{listed}");
    both.stage.sign_in().await;
    assert!(both.is_in().await);
    let me = both.stage.scene.page("/access/me").await;
    assert!(me.contains("MDM Admins") && me.contains("owner"), "{me}");
    let review = both.stage.scene.page("/access").await;
    assert!(review.contains("MDM Admins"), "{review}");
    // Out of the group: with the next request.
    let member = format!(r#"members[value eq "{}"]"#, both.person);
    both.patch(
        &format!("/Groups/{}", both.group),
        &json!({"op": "remove", "path": member}),
    )
    .await;
    assert_eq!(
        both.stage.scene.get("/devices").await.status,
        StatusCode::FORBIDDEN
    );
    // Back in: nobody gets stronger between two sign-ins than they were at the last one.
    both.patch(
        &format!("/Groups/{}", both.group),
        &json!({"op": "add", "path": "members", "value": [{"value": both.person}]}),
    )
    .await;
    assert!(both.is_in().await);
    // Through a group in the group as well.
    let inner = json!({"schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"], "displayName": "Inner",
        "members": [{"value": both.person}]});
    let inner = both.scim(Method::POST, "/Groups", &inner).await;
    for operation in [
        json!({"op": "remove", "path": member}),
        json!({"op": "add", "path": "members", "value": [{"value": inner}]}),
    ] {
        both.patch(&format!("/Groups/{}", both.group), &operation).await;
    }
    assert!(both.is_in().await);
    // Two of one id are nobody.
    let twin = both.user("eve@example.com", "0001").await;
    assert_eq!(
        both.stage.scene.get("/devices").await.status,
        StatusCode::FORBIDDEN
    );
    both.scim(Method::DELETE, &format!("/Users/{twin}"), &json!({}))
        .await;
    assert!(both.is_in().await);
    // Deactivated: signed out, and not let in again.
    both.patch(
        &format!("/Users/{}", both.person),
        &json!({"op": "replace", "path": "active", "value": false}),
    )
    .await;
    assert!(!both.is_in().await);
    both.stage.refused("deactivated").await;
}

#[tokio::test]
async fn who_somebody_is_in_the_directory_follows_from_an_id_that_never_changes() {
    let both = Both::new().await;
    both.link(&json!({"connector": "entra"})).await;
    both.grant().await;
    // The name and the address of a person of the directory, and another subject.
    both.stage.idp.set(|idp| {
        idp.claims = json!({"sub": "0002", "oid": "0001", "email": "ada@example.com", "preferred_username": "ada@example.com"});
    });
    both.stage.refused("another subject of the same name").await;
    // By the object id of Entra, where the connection says so.
    both.link(&json!({"connector": "entra", "by": "oid"})).await;
    assert_eq!(both.stage.visit().await.status, StatusCode::SEE_OTHER);
    both.stage.idp.set(|idp| idp.claims = json!({"sub": "0002"}));
    both.stage.refused("no object id").await;
    // Without the link nobody of the directory comes, with or without a grant.
    both.link(&Value::Null).await;
    both.stage.idp.set(|idp| idp.claims = json!({}));
    both.stage.refused("the connection says so no more").await;
}

#[tokio::test]
async fn m3_whose_people_these_are_is_said_by_who_may_do_everything() {
    let both = Both::new().await;
    let linked = both.definition(&json!({"connector": "entra"}));
    let weak: Vec<String> = scope::every()
        .split(' ')
        .filter(|name| *name != "command:wipe")
        .map(str::to_owned)
        .collect();
    let weak = weak.join(" ");
    let scene = &both.stage.scene;
    let refused = scene.ask(&weak, Method::PUT, CONNECTION, &linked).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
    let unknown = both.definition(&json!({"connector": "okta"}));
    let missing = scene.try_call(Method::PUT, CONNECTION, &unknown).await;
    assert_eq!(missing.status, StatusCode::BAD_REQUEST, "{}", missing.body);
    both.link(&json!({"connector": "entra"})).await;
    // From then on a way to act as the connector is as good as any role of its groups.
    for (method, path, body) in [
        (Method::PUT, CONNECTION, linked),
        (Method::PUT, CONNECTION, both.definition(&Value::Null)),
        (
            Method::POST,
            "/api/v1/scim-tokens",
            json!({"connector": "entra"}).to_string(),
        ),
    ] {
        let refused = scene.ask(&weak, method, path, &body).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}: {}", refused.body);
    }
    let other = json!({"connector": "okta"}).to_string();
    let made = scene
        .ask(&weak, Method::POST, "/api/v1/scim-tokens", &other)
        .await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
}

#[tokio::test]
async fn s2_groups_of_the_directory_give_no_more_than_their_connector_may_and_who_joins_is_told_of() {
    let mut both = Both::new().await;
    let scene_grant =
        |role: &str| json!({"role": role, "group": "MDM Admins", "source": "directory"}).to_string();
    // Without a word, everything but the root document and identity providers.
    let body = both.definition(&json!({"connector": "entra"}));
    both.stage.scene.call(Method::PUT, CONNECTION, &body).await;
    let shown = both
        .stage
        .scene
        .call(Method::GET, "/api/v1/access/connections", "")
        .await;
    let directory = &shown["items"][0]["definition"]["directory"];
    assert_eq!(directory["at_most"], "administrator", "{shown}");
    let above = both
        .stage
        .scene
        .try_call(Method::POST, GRANTS, &scene_grant("owner"))
        .await;
    assert_eq!(above.status, StatusCode::BAD_REQUEST, "{}", above.body);
    assert!(
        above.body.contains("at most the role administrator") && above.body.contains("owner can do more"),
        "{}",
        above.body
    );
    both.stage
        .scene
        .call(Method::POST, GRANTS, &scene_grant("operator"))
        .await;
    both.stage.sign_in().await;
    assert!(both.is_in().await);
    // A lower ceiling counts with the next request, also for what was granted before.
    let body = both.definition(&json!({"connector": "entra", "at_most": "read_only"}));
    both.stage.scene.call(Method::PUT, CONNECTION, &body).await;
    assert_eq!(
        both.stage.scene.get("/devices").await.status,
        StatusCode::FORBIDDEN
    );
    let body = both.definition(&json!({"connector": "entra", "at_most": "operator"}));
    both.stage.scene.call(Method::PUT, CONNECTION, &body).await;
    assert!(both.is_in().await, "whose people they are did not change");
    // A path with a filter is no way around: whoever joins such a group is in the log by its own entry, which alerts.
    let other = both.user("eve@example.com", "0002").await;
    let inner = json!({"schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"], "displayName": "Inner", "members": []});
    let inner = both.scim(Method::POST, "/Groups", &inner).await;
    both.patch(
        &format!("/Groups/{}", both.group),
        &json!({"op": "add", "path": "members", "value": [{"value": inner}]}),
    )
    .await;
    both.patch(
        &format!("/Groups/{inner}"),
        &json!({"op": "add", "path": "members", "value": [{"value": other}]}),
    )
    .await;
    both.stage.scene.settle().await;
    let entries = both
        .stage
        .scene
        .call(
            Method::GET,
            "/api/v1/log/entries?action=access.role_by_directory",
            "",
        )
        .await;
    let told: Vec<&Value> = entries["items"].as_array().expect("entries").iter().collect();
    assert_eq!(told.len(), 2, "{entries}");
    for entry in told {
        assert_eq!(entry["detail"]["roles"], json!(["operator"]), "{entry}");
        assert_eq!(entry["detail"]["added"], 1, "{entry}");
    }
    // A role that is no more is no ceiling, and one that is a ceiling stays.
    let role = json!({"scopes": ["device:read"]}).to_string();
    let path = "/api/v1/access/roles/lookers";
    both.stage.scene.call(Method::PUT, path, &role).await;
    let unknown = both.definition(&json!({"connector": "entra", "at_most": "nobody"}));
    let refused = both.stage.scene.try_call(Method::PUT, CONNECTION, &unknown).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.body);
    let body = both.definition(&json!({"connector": "entra", "at_most": "lookers"}));
    both.stage.scene.call(Method::PUT, CONNECTION, &body).await;
    let kept = both.stage.scene.try_call(Method::DELETE, path, "").await;
    assert_eq!(kept.status, StatusCode::CONFLICT, "{}", kept.body);
}
