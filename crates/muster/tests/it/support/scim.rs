//! An identity provider that keeps people by SCIM.

use reqwest::Method;
use serde_json::{Value, json};

use super::api::{Answer, Api, answer};

pub const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";
pub const PATCH: &str = "urn:ietf:params:scim:api:messages:2.0:PatchOp";

/// An identity provider with its token.
pub struct Provider {
    pub api: Api,
    pub secret: String,
    pub token_id: String,
}

impl Provider {
    pub async fn of(api: &Api, connector: &str) -> Provider {
        let made = api
            .post("/scim-tokens", &json!({"connector": connector}))
            .await
            .expect(201);
        let text = |name: &str| made[name].as_str().expect("a text").to_owned();
        assert_eq!(text("scim_url"), format!("{}/scim/v2", api.origin));
        Provider {
            api: api.with_token(text("token")),
            secret: text("token"),
            token_id: text("id"),
        }
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}/scim/v2{path}", self.api.origin);
        self.api.http.request(method, url).bearer_auth(&self.secret)
    }

    pub async fn send(&self, method: Method, path: &str, body: &Value) -> Answer {
        let request = self
            .request(method, path)
            .header("content-type", "application/scim+json; charset=utf-8");
        answer(request.body(body.to_string())).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, body).await
    }

    pub async fn patch(&self, path: &str, operations: Value) -> Answer {
        let body = json!({"schemas": [PATCH], "Operations": operations});
        self.send(Method::PATCH, path, &body).await
    }

    pub async fn user(&self, name: &str) -> Value {
        self.post("/Users", &user(name)).await.expect(201)
    }

    pub async fn group(&self, name: &str, members: &[&Value]) -> Value {
        let members: Vec<Value> = members
            .iter()
            .map(|member| json!({"value": member["id"]}))
            .collect();
        let body = json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"], "displayName": name, "members": members,
        });
        self.post("/Groups", &body).await.expect(201)
    }

    pub async fn find(&self, path: &str, filter: &str) -> Vec<Value> {
        let request = self.request(Method::GET, path).query(&[("filter", filter)]);
        let found = answer(request).await.expect(200);
        assert_eq!(
            found["totalResults"],
            found["Resources"].as_array().map_or(0, Vec::len),
            "{filter}"
        );
        found["Resources"].as_array().expect("a list").clone()
    }
}

/// A person as it is sent.
pub fn user(name: &str) -> Value {
    json!({"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User", ENTERPRISE], "userName": name, "active": true})
}

/// Where a resource is.
pub fn path_of(kind: &str, resource: &Value) -> String {
    format!("/{kind}/{}", resource["id"].as_str().expect("an id"))
}

/// Checks a refusal: SCIM's own message, in its media type.
pub fn refused(answer: &Answer, status: u16, kind: Option<&str>) -> String {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert!(answer.header("content-type").starts_with("application/scim+json"));
    let body = answer.json();
    assert_eq!(
        body["schemas"],
        json!(["urn:ietf:params:scim:api:messages:2.0:Error"])
    );
    assert_eq!(body["status"], status.to_string());
    assert_eq!(body["scimType"].as_str(), kind, "{body}");
    body["detail"].as_str().expect("a sentence").to_owned()
}
