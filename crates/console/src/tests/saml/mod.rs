//! Signing in by SAML against a provider that lies, through the routes: what the real ones do not do.

mod answers;
mod connection;
mod logout;
mod people;
mod routed;

use std::time::Duration;

use axum::http::{Method, StatusCode, header};
use base64::{Engine, engine::general_purpose::STANDARD};
use muster_control::access::{
    SESSION_COOKIE,
    saml::{FAREWELL_COOKIE, FLOW_COOKIE_PREFIX},
    scope,
};
use muster_model::Timestamp;
use muster_saml::{
    Certificate,
    testing::{
        Answer as Said, GENUINE, IDENTITY_PROVIDER, KeyKind, Provider, SERVICE_PROVIDER, Sign, attacks,
        message_of,
    },
};
use serde_json::{Value, json};

use crate::{
    session::encode,
    testing::{Answer, HOSTILE, Scene},
};

const PATH: &str = "/api/v1/access/connections/corp";
const FOREIGN: (&str, &str) = ("sec-fetch-site", "cross-site");

/// A browser on its way.
#[derive(Clone)]
struct Away {
    location: String,
    /// The name of the way, which is the relay state.
    flow: String,
    cookie: String,
    /// The ID of the request.
    request: String,
}

struct Stage {
    scene: Scene,
    idp: Provider,
    id: String,
    /// Assertions that were made.
    made: std::cell::Cell<u32>,
}

fn definition(idp: &Provider, change: &Value) -> String {
    let mut definition = json!({
        "kind": "saml", "entity_id": IDENTITY_PROVIDER, "sso_url": "https://idp.example.com/sso?tenant=1",
        "slo_url": "https://idp.example.com/slo", "certificates": [STANDARD.encode(idp.certificate().der())],
    });
    for (name, value) in change.as_object().into_iter().flatten() {
        definition[name] = value.clone();
    }
    json!({"definition": definition}).to_string()
}

/// Connects a provider of which everything that can looks like markup.
pub async fn connect_hostile(scene: &Scene, name: &str) {
    let idp = Provider::new(KeyKind::P256);
    let change = json!({
        "entity_id": HOSTILE, "groups_attribute": HOSTILE, "username_attribute": HOSTILE, "subject_attribute": HOSTILE,
        "display_name_attribute": HOSTILE, "valid_until": "2027-01-01T00:00:00Z",
    });
    let path = format!("/api/v1/access/connections/{name}");
    let made = scene.call(Method::PUT, &path, &definition(&idp, &change)).await;
    assert_eq!(made["definition"]["entity_id"], HOSTILE, "{made}");
}

/// What is between two texts.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let rest = text.split_once(before).map_or("", |(_, rest)| rest);
    rest.split_once(after).map_or("", |(found, _)| found)
}

impl Stage {
    async fn new() -> Stage {
        Stage::with(&json!({})).await
    }

    async fn with(change: &Value) -> Stage {
        let scene = Scene::at("https://muster.example:8440").await;
        let idp = Provider::new(KeyKind::Rsa);
        let made = scene.call(Method::PUT, PATH, &definition(&idp, change)).await;
        let id = made["id"].as_str().expect("it has an id").to_owned();
        let made = std::cell::Cell::new(0);
        Stage { scene, idp, id, made }
    }

    async fn change(&self, change: &Value) {
        self.scene
            .call(Method::PUT, PATH, &definition(&self.idp, change))
            .await;
    }

    async fn grant(&self, role: &str, group: &str) {
        let body = json!({"role": role, "group": group, "source": "corp"});
        self.scene
            .call(Method::POST, "/api/v1/access/grants", &body.to_string())
            .await;
    }

    fn now(&self) -> Timestamp {
        self.scene.app.clock.now()
    }

    fn address(&self, what: &str) -> String {
        format!("https://muster.example:8440/auth/saml/{}/{what}", self.id)
    }

    async fn depart(&self, rest: &str) -> Away {
        self.depart_to(&self.id, rest).await
    }

    async fn depart_to(&self, id: &str, rest: &str) -> Away {
        let path = format!("/auth/saml/{id}/start?{rest}");
        let answer = self
            .scene
            .send(Method::GET, &path, &[("cookie", &self.scene.cookie)], "")
            .await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        let location = answer.location().to_owned();
        let set = answer.headers.get_all(header::SET_COOKIE).iter();
        let mut set = set.filter_map(|line| line.to_str().ok()?.strip_prefix(FLOW_COOKIE_PREFIX));
        let line = set.next_back().expect("the browser is bound");
        assert!(
            line.contains("SameSite=None") && line.contains("HttpOnly"),
            "{line}"
        );
        let (flow, value) = line.split_once('=').expect("it has a value");
        let value = value.split(';').next().expect("it has a value");
        let request = message_of(&location, "SAMLRequest");
        Away {
            flow: flow.to_owned(),
            cookie: format!("{FLOW_COOKIE_PREFIX}{flow}={value}"),
            request: between(&request, " ID=\"", "\"").to_owned(),
            location,
        }
    }

    /// A sound answer to a request.
    fn answer(&self, request: &str) -> Said {
        self.made.set(self.made.get() + 1);
        Said {
            destination: self.address("acs"),
            recipient: self.address("acs"),
            audiences: vec![self.address("metadata")],
            assertion_id: format!("_a{}", self.made.get()),
            name_id: "0001".to_owned(),
            attributes: vec![
                ("email".to_owned(), vec!["ada@example.com".to_owned()]),
                ("displayName".to_owned(), vec!["Ada Lovelace".to_owned()]),
                ("groups".to_owned(), vec!["mdm-admins".to_owned()]),
            ],
            ..Said::to(request, self.now())
        }
    }

    fn signed(&self, said: &Said) -> String {
        self.idp.respond(said, Sign::Assertion)
    }

    /// What a page of the provider's posts: the session's cookie does not come with it.
    async fn post(&self, id: &str, message: &[u8], relay_state: &str, cookie: &str) -> Answer {
        let response = encode(&STANDARD.encode(message));
        let body = format!("SAMLResponse={response}&RelayState={}", encode(relay_state));
        let path = format!("/auth/saml/{id}/acs");
        self.scene
            .send(Method::POST, &path, &[FOREIGN, ("cookie", cookie)], &body)
            .await
    }

    async fn arrive(&self, away: &Away, message: &str) -> Answer {
        self.post(&self.id, message.as_bytes(), &away.flow, &away.cookie)
            .await
    }

    async fn visit_as(&self, change: impl FnOnce(&mut Said)) -> Answer {
        let away = self.depart("next=%2Fdevices").await;
        let mut said = self.answer(&away.request);
        change(&mut said);
        self.arrive(&away, &self.signed(&said)).await
    }

    async fn sign_in(&mut self) {
        let answer = self.visit_as(|_| {}).await;
        assert_eq!(answer.location(), "/devices", "{}", answer.body);
        let value = answer.cookie(SESSION_COOKIE).expect("a session begins");
        self.scene.cookie = format!("{SESSION_COOKIE}={value}");
    }

    /// Why the last sign-in failed, as whoever looks after the connection sees it.
    async fn error(&self) -> String {
        let found = self
            .scene
            .call(Method::GET, "/api/v1/access/connections", "")
            .await;
        found["items"][0]["error"].as_str().unwrap_or_default().to_owned()
    }

    async fn is_in(&self) -> bool {
        self.scene.get("/devices").await.status == StatusCode::OK
    }
}

fn refused(what: &str, answer: &Answer) {
    assert!(answer.cookie(SESSION_COOKIE).is_none(), "{what}: a session began");
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what}: {}", answer.body);
}
