//! Who leaves is out, whatever they are called: by the id of their link, and by the name that they had.

use axum::http::{Method, StatusCode};
use muster_control::{access, access::problem::Problem, audit, devices, directory};
use muster_storage::{Scope, Statement};
use serde_json::{Value, json};

use super::directory_roles::Both;

const PATCH_URN: &str = "urn:ietf:params:scim:api:messages:2.0:PatchOp";

fn active(is: bool) -> Value {
    json!({"op": "replace", "path": "active", "value": is})
}

fn named(name: &str) -> Value {
    json!({"op": "Replace", "path": "userName", "value": name})
}

/// People of the provider, whom no group of the directory has to let in. What the provider calls them is not their `userName`.
async fn linked() -> Both {
    let both = Both::new().await;
    both.link(&json!({"connector": "entra"})).await;
    both.stage.grant("helpdesk", "mdm-admins").await;
    both.stage
        .idp
        .set(|idp| idp.claims = json!({"preferred_username": "ada"}));
    both
}

/// People who are known by their name alone.
async fn by_name() -> Both {
    let both = Both::new().await;
    both.stage.grant("helpdesk", "mdm-admins").await;
    both
}

impl Both {
    fn path(&self) -> String {
        format!("/Users/{}", self.person)
    }

    async fn patch_all(&self, operations: Value) {
        let patch = json!({"schemas": [PATCH_URN], "Operations": operations});
        self.scim(Method::PATCH, &self.path(), &patch).await;
    }

    /// A request of the connector that may be refused.
    async fn asks(&self, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
        let path = format!("/scim/v2{path}");
        let scene = &self.stage.scene;
        let answer = scene
            .with_body(&self.token, method, &path, &body.to_string())
            .await;
        (
            answer.status,
            serde_json::from_str(&answer.body).unwrap_or_default(),
        )
    }

    /// Whether approvals of this person count no more.
    async fn is_barred(&self, person: &'static str) -> bool {
        let (app, tenant) = (&self.stage.scene.app, self.stage.scene.tenant);
        let read = app.db.read(Scope::Tenant(tenant.uuid()), move |tx| {
            access::is_barred(tx, tenant, person)
        });
        read.await.expect("it can be read")
    }

    /// `owner.active` of a device of this person.
    async fn owner_active(&self, serial: &str, owner: &'static str) -> Option<bool> {
        let id = self.stage.scene.device(serial).await.id;
        let (app, tenant) = (&self.stage.scene.app, self.stage.scene.tenant);
        let read = app.db.read(Scope::Tenant(tenant.uuid()), move |tx| {
            let mut device = devices::get(tx, tenant, id)?;
            device.owner = Some(owner.to_owned());
            Ok::<_, Problem>(directory::owner_of(tx, tenant, &device)?.active)
        });
        read.await.expect("it can be read")
    }
}

#[tokio::test]
async fn s3_who_left_is_out_by_their_id_whatever_the_provider_calls_them() {
    let mut both = linked().await;
    both.stage.sign_in().await;
    assert!(both.is_in().await);
    assert_eq!(both.owner_active("S-1", "corp/ada").await, None);
    // Deactivated: what they have ends, and nothing new begins, by whatever name they come.
    both.patch(&both.path(), &active(false)).await;
    assert!(!both.is_in().await, "the session is over");
    both.stage.refused("deactivated").await;
    both.stage
        .idp
        .set(|idp| idp.claims = json!({"preferred_username": "eve"}));
    both.stage.refused("deactivated, and called another").await;
    assert!(both.is_barred("corp/ada").await, "approvals count no more");
    assert_eq!(
        both.owner_active("S-2", "corp/ada").await,
        Some(false),
        "devices follow"
    );
    // Back, and deleted.
    both.patch(&both.path(), &active(true)).await;
    both.stage.sign_in().await;
    assert!(both.is_in().await);
    assert!(!both.is_barred("corp/ada").await);
    both.scim(Method::DELETE, &both.path(), &json!({})).await;
    assert!(!both.is_in().await, "the session is over");
    both.stage.refused("deleted").await;
    // Hired again, by another name.
    both.person = both.user("ada.lovelace@example.com", "0001").await;
    both.stage.sign_in().await;
    // The connector takes the id away and deactivates in one request.
    both.patch_all(json!([{"op": "replace", "path": "externalId", "value": "gone-0001"}, active(false)]))
        .await;
    assert!(!both.is_in().await);
    both.stage.refused("the id was taken away").await;
}

#[tokio::test]
async fn whom_the_connector_never_had_comes_by_other_grants_as_before() {
    let mut both = linked().await;
    both.stage
        .idp
        .set(|idp| idp.claims = json!({"sub": "0009", "preferred_username": "guest"}));
    both.stage.sign_in().await;
    assert!(both.is_in().await);
    // Others of the connector are others.
    both.scim(Method::DELETE, &both.path(), &json!({})).await;
    assert!(both.is_in().await);
    both.stage.sign_in().await;
}

#[tokio::test]
async fn s3_who_left_is_out_when_the_row_of_the_person_does_not_know_the_link_yet() {
    let mut both = by_name().await;
    both.stage
        .idp
        .set(|idp| idp.claims = json!({"preferred_username": "ada"}));
    // Before the connection said whose people these are.
    both.stage.sign_in().await;
    both.link(&json!({"connector": "entra"})).await;
    both.patch(&both.path(), &active(false)).await;
    // The session has no link, and the name is another; the next sign-in says who it is.
    both.stage.refused("the link of this sign-in counts").await;
}

#[tokio::test]
async fn s3_a_rename_does_not_let_a_leaver_in() {
    // Renamed and deactivated in one request, and one after the other in both orders.
    let (off, gone) = (active(false), named("disabled-ada@example.com"));
    for steps in [
        vec![json!([gone, off])],
        vec![json!([off]), json!([gone])],
        vec![json!([gone]), json!([off])],
    ] {
        let mut both = by_name().await;
        both.stage.sign_in().await;
        let is_renamed_first = steps[0] == json!([gone]);
        for step in &steps {
            both.patch_all(step.clone()).await;
        }
        assert!(!both.is_in().await, "{steps:?}");
        if is_renamed_first {
            // Whoever was renamed while they were active is another name from then on: what they had under the old one is over.
            continue;
        }
        both.stage.refused(&format!("{steps:?}")).await;
        assert!(both.is_barred("ada@example.com").await, "approvals: {steps:?}");
        assert_eq!(
            both.owner_active("S-1", "Ada@example.com").await,
            Some(false),
            "{steps:?}"
        );
        // Until somebody else has the name.
        both.user("ada@example.com", "0002").await;
        assert!(!both.is_barred("ada@example.com").await);
        both.stage.sign_in().await;
    }
}

#[tokio::test]
async fn s3_whether_somebody_is_active_is_never_left_out() {
    let both = by_name().await;
    let user = |more: &Value| {
        let mut user = json!({"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": "ada@example.com",
            "externalId": "0001"});
        super::oidc::merge(&mut user, more);
        user
    };
    both.patch(&both.path(), &active(false)).await;
    // PUT without it changes nothing of it.
    let (status, put) = both
        .asks(
            Method::PUT,
            &both.path(),
            &user(&json!({"displayName": "Ada Lovelace"})),
        )
        .await;
    assert_eq!((status, &put["active"]), (StatusCode::OK, &json!(false)), "{put}");
    both.stage.refused("left out").await;
    // PATCH does not take it away.
    for (operation, kind) in [
        (json!({"op": "remove", "path": "active"}), "mutability"),
        (
            json!({"op": "replace", "path": "active", "value": null}),
            "invalidValue",
        ),
        (
            json!({"op": "replace", "value": {"active": null}}),
            "invalidValue",
        ),
    ] {
        let patch = json!({"schemas": [PATCH_URN], "Operations": [operation]});
        let (status, said) = both.asks(Method::PATCH, &both.path(), &patch).await;
        assert_eq!(
            (status, &said["scimType"]),
            (StatusCode::BAD_REQUEST, &json!(kind)),
            "{operation}: {said}"
        );
    }
    both.stage.refused("nothing was changed").await;
    // Whoever is made without a word is active, and says so.
    let made = user(&json!({"userName": "eve@example.com", "externalId": "0002"}));
    let (status, made) = both.asks(Method::POST, "/Users", &made).await;
    assert_eq!(
        (status, &made["active"]),
        (StatusCode::CREATED, &json!(true)),
        "{made}"
    );
    let found = "/Users?filter=active%20eq%20true%20and%20userName%20eq%20%22eve@example.com%22";
    let (_, listed) = both.asks(Method::GET, found, &json!({})).await;
    assert_eq!(listed["totalResults"], 1, "{listed}");
    // So do people of before it was always kept.
    const BEFORE: Statement = Statement {
        name: "TEST_BEFORE",
        sql: "UPDATE directory_user SET resource = '{\"userName\":\"eve@example.com\"}' WHERE tenant_id = $1 AND user_name = $2",
    };
    let tenant = both.stage.scene.tenant.uuid();
    let changed = audit::housekeeping(&both.stage.scene.app, Scope::Tenant(tenant), move |tx| {
        Ok::<_, Problem>(tx.execute(&BEFORE, &[&tenant, &"eve@example.com"])?)
    });
    assert_eq!(changed.await.expect("it is written"), 1);
    let (_, listed) = both.asks(Method::GET, found, &json!({})).await;
    assert_eq!(listed["totalResults"], 1, "{listed}");
}
