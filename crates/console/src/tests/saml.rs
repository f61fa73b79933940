//! Signing in by SAML against a provider that lies, through the routes: what the real ones do not do.

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

#[tokio::test]
async fn what_a_person_may_do_follows_from_their_groups() {
    let mut stage = Stage::new().await;
    let session = std::mem::take(&mut stage.scene.cookie);
    let page = stage
        .scene
        .send(Method::GET, "/signin?next=/devices", &[], "")
        .await;
    assert!(page.body.contains("Sign in with corp"), "{}", page.body);
    let answer = stage.visit_as(|_| {}).await;
    refused("nobody gave the group a role", &answer);
    assert!(
        answer.body.contains("mdm-admins") && answer.body.contains("corp/ada@example.com"),
        "{}",
        answer.body
    );
    stage.grant("helpdesk", "mdm-admins").await;
    stage.sign_in().await;
    assert!(stage.scene.page("/devices").await.contains("Ada Lovelace"));
    let me = stage.scene.page("/access/me").await;
    assert!(
        me.contains("helpdesk") && me.contains("mdm-admins") && me.contains("corp/ada@example.com"),
        "{me}"
    );
    // The same person comes again, and another of the same address is somebody else.
    stage.sign_in().await;
    let other = stage
        .visit_as(|said| {
            said.name_id = "0002".to_owned();
            said.attributes.pop();
        })
        .await;
    assert!(other.body.contains("corp/ada@example.com (2)"), "{}", other.body);
    let body = json!({"person": "corp/ada@example.com"}).to_string();
    stage
        .scene
        .call(Method::POST, "/api/v1/access/people/disable", &body)
        .await;
    assert!(!stage.is_in().await);
    let disabled = stage.visit_as(|_| {}).await;
    refused("disabled", &disabled);
    assert!(disabled.body.contains("is disabled here"), "{}", disabled.body);
    // The connection works, and its page says so.
    stage.scene.cookie = session;
    let page = stage.scene.page("/access/connections/corp").await;
    assert!(
        page.contains("works") && page.contains(&stage.address("acs")),
        "{page}"
    );
}

#[tokio::test]
async fn a10_of_the_attacks_on_a_genuine_answer_none_signs_anybody_in() {
    let stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    stage.grant("owner", "mdm-superadmins").await;
    let away = stage.depart("next=%2F").await;
    // The attacks change this name and this group into others.
    let said = Said {
        name_id: "alice".to_owned(),
        ..stage.answer(&away.request)
    };
    let genuine = stage.idp.respond(&said, Sign::Both);
    let all = attacks(&genuine);
    assert!(all.len() > 40, "{}", all.len());
    for attack in all.iter().filter(|attack| attack.name != GENUINE) {
        let answer = stage
            .post(&stage.id, &attack.message, &away.flow, &away.cookie)
            .await;
        refused(attack.name, &answer);
        // The person is told nothing that helps to search for one that passes; who looks after the connection is told the code.
        let error = stage.error().await;
        let code = between(&error, "(", ")");
        assert!(code.contains('.'), "{}: {error}", attack.name);
        assert!(!answer.body.contains(code), "{}: {}", attack.name, answer.body);
    }
    let page = stage.scene.page("/access/connections").await;
    assert!(page.contains("failing"), "{page}");
    let answer = stage.arrive(&away, &genuine).await;
    assert_eq!(
        answer.status,
        StatusCode::SEE_OTHER,
        "the genuine one does: {}",
        answer.body
    );
    assert!(answer.cookie(SESSION_COOKIE).is_some());
    assert_eq!(stage.error().await, "");
    refused("the genuine one again", &stage.arrive(&away, &genuine).await);
}

#[tokio::test]
async fn a10_an_answer_that_is_not_for_us_now_and_to_this_request_is_refused() {
    let stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    type Change = Box<dyn Fn(&mut Said)>;
    let text = |change: fn(&mut Said) -> &mut String, value: &str| -> Change {
        let value = value.to_owned();
        Box::new(move |said| value.clone_into(change(said)))
    };
    let now = stage.now();
    let cases: Vec<(&str, Change)> = vec![
        (
            "response.destination",
            text(|said| &mut said.destination, "https://muster.example:8440/acs"),
        ),
        (
            "assertion.recipient",
            text(|said| &mut said.recipient, "https://other.example/acs"),
        ),
        (
            "assertion.audience",
            Box::new(|said| said.audiences = vec![SERVICE_PROVIDER.to_owned()]),
        ),
        (
            "response.issuer",
            text(|said| &mut said.issuer, "https://evil.example"),
        ),
        (
            "response.in_response_to",
            Box::new(|said| said.in_response_to = Some("_other".to_owned())),
        ),
        (
            "response.in_response_to",
            Box::new(|said| said.confirmation_in_response_to = Some("_other".to_owned())),
        ),
        (
            "response.unsolicited",
            Box::new(|said| said.in_response_to = None),
        ),
        (
            "assertion.expired",
            Box::new(move |said| said.not_on_or_after = now.minus(minutes(2))),
        ),
        (
            "assertion.expired",
            Box::new(move |said| said.confirmed_until = now.minus(minutes(2))),
        ),
        (
            "assertion.not_yet_valid",
            Box::new(move |said| said.not_before = now.plus(minutes(5))),
        ),
        (
            "response.issue_instant",
            Box::new(move |said| said.issued = now.minus(minutes(20))),
        ),
        (
            "response.issue_instant",
            Box::new(move |said| said.issued = now.plus(minutes(20))),
        ),
        (
            "assertion.session_expired",
            Box::new(move |said| said.session_not_on_or_after = Some(now.minus(minutes(2)))),
        ),
        (
            "status.responder",
            text(
                |said| &mut said.status,
                "urn:oasis:names:tc:SAML:2.0:status:Responder",
            ),
        ),
        (
            "transient",
            text(
                |said| &mut said.name_id_format,
                "urn:oasis:names:tc:SAML:2.0:nameid-format:transient",
            ),
        ),
    ];
    for (code, change) in cases {
        let answer = stage.visit_as(|said| change(said)).await;
        refused(code, &answer);
        let error = stage.error().await;
        assert!(error.contains(code), "{code}: {error}");
    }
    let away = stage.depart("next=%2F").await;
    let said = stage.answer(&away.request);
    let other = Provider::new(KeyKind::Rsa);
    for (code, message) in [
        (
            "signature.assertion_missing",
            stage.idp.respond(&said, Sign::Nothing),
        ),
        (
            "signature.assertion_missing",
            stage.idp.respond(&said, Sign::Response),
        ),
        ("signature.invalid", other.respond(&said, Sign::Assertion)),
        ("xml.not_well_formed", String::new()),
        ("xml.not_well_formed", "x".repeat(1000)),
        ("xml.too_large", " ".repeat(300_000)),
    ] {
        refused(code, &stage.arrive(&away, &message).await);
        let error = stage.error().await;
        assert!(error.contains(code), "{code}: {error}");
    }
    let test = stage.scene.call(Method::POST, &format!("{PATH}/test"), "").await;
    let claims = test["items"].as_array().expect("it is a list").last().cloned();
    let claims = claims.expect("there are steps");
    assert_eq!(
        (&claims["step"], &claims["outcome"]),
        (&json!("claims"), &json!("failed"))
    );
    let honest = stage.arrive(&away, &stage.signed(&said)).await;
    assert_eq!(honest.status, StatusCode::SEE_OTHER, "{}", honest.body);
}

#[tokio::test]
async fn a10_an_answer_counts_once_and_in_the_browser_that_asked() {
    let stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    let away = stage.depart("next=%2F").await;
    let message = stage.signed(&stage.answer(&away.request));
    let post = async |relay_state: &str, cookie: &str| {
        stage
            .post(&stage.id, message.as_bytes(), relay_state, cookie)
            .await
    };
    refused("another browser", &post(&away.flow, "").await);
    refused("no relay state", &post("", &away.cookie).await);
    refused("an address", &post("https://evil.example/", &away.cookie).await);
    let thief = stage.depart("next=%2F").await;
    refused(
        "the cookie of another way",
        &post(&away.flow, &thief.cookie).await,
    );
    refused(
        "an answer to another request",
        &post(&thief.flow, &thief.cookie).await,
    );
    // A cookie under another name opens nothing: it is sealed for its own.
    let (_, value) = away.cookie.split_once('=').expect("it has a value");
    let renamed = format!("{FLOW_COOKIE_PREFIX}{}={value}", thief.flow);
    refused("a renamed cookie", &post(&thief.flow, &renamed).await);
    let bent = away.cookie.replace(value, &value[..value.len() - 2]);
    refused("a bent cookie", &post(&away.flow, &bent).await);

    let taken = stage.arrive(&away, &message).await;
    assert_eq!(
        (taken.status, taken.location()),
        (StatusCode::SEE_OTHER, "/"),
        "{}",
        taken.body
    );
    assert_eq!(
        taken
            .cookie(&format!("{FLOW_COOKIE_PREFIX}{}", away.flow))
            .as_deref(),
        Some(""),
        "the cookie is taken away"
    );
    refused("twice", &stage.arrive(&away, &message).await);
    assert!(stage.error().await.contains("used before"));
    let second = stage.signed(&stage.answer(&away.request));
    refused(
        "a second answer to one request",
        &stage.arrive(&away, &second).await,
    );
    // The same assertion in an answer to another request, which only a broken provider makes.
    let again = stage.depart("next=%2F").await;
    let said = Said {
        assertion_id: "_a1".to_owned(),
        ..stage.answer(&again.request)
    };
    refused(
        "an assertion that was used",
        &stage.arrive(&again, &stage.signed(&said)).await,
    );

    let late = stage.depart("next=%2F").await;
    stage.scene.pass_seconds(601);
    let message = stage.signed(&stage.answer(&late.request));
    refused("too late", &stage.arrive(&late, &message).await);
    // Nobody is sent to another site.
    for next in [
        "%2F%2Fevil.example",
        "https%3A%2F%2Fevil.example",
        "%2F%5Cevil.example",
    ] {
        let away = stage.depart(&format!("next={next}")).await;
        assert!(
            away.location
                .starts_with("https://idp.example.com/sso?tenant=1&SAMLRequest=")
        );
        let message = stage.signed(&stage.answer(&away.request));
        assert_eq!(stage.arrive(&away, &message).await.location(), "/", "{next}");
    }
}

#[tokio::test]
async fn a_browser_keeps_few_ways_that_it_never_ended() {
    let mut stage = Stage::new().await;
    let mut kept = Vec::new();
    for _ in 0..6 {
        kept.push(stage.depart("next=%2F").await.cookie);
    }
    stage.scene.cookie = kept.join("; ");
    let path = format!("/auth/saml/{}/start", stage.id);
    let answer = stage.scene.get(&path).await;
    let set: Vec<&str> = answer
        .headers
        .get_all(header::SET_COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .collect();
    let gone = set.iter().filter(|line| line.ends_with("Max-Age=0")).count();
    assert_eq!((set.len(), gone), (4, 3), "{set:?}");
    let (oldest, _) = kept[0].split_once('=').expect("it has a value");
    assert!(set[0].starts_with(oldest), "{set:?}");
}

#[tokio::test]
async fn a_sign_in_that_begins_at_the_provider_is_refused_unless_it_was_allowed() {
    let stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    let unasked = |change: &dyn Fn(&mut Said)| {
        let mut said = Said {
            in_response_to: None,
            confirmation_in_response_to: None,
            ..stage.answer("_none")
        };
        change(&mut said);
        stage.signed(&said)
    };
    let message = unasked(&|_| {});
    refused("off", &stage.post(&stage.id, message.as_bytes(), "", "").await);
    stage.change(&json!({"allow_idp_initiated": true})).await;
    let answer = stage
        .post(&stage.id, message.as_bytes(), "https://evil.example/", "")
        .await;
    assert_eq!(
        (answer.status, answer.location()),
        (StatusCode::SEE_OTHER, "/"),
        "{}",
        answer.body
    );
    assert!(answer.cookie(SESSION_COOKIE).is_some());
    refused("twice", &stage.post(&stage.id, message.as_bytes(), "", "").await);
    let stolen = unasked(&|said| said.in_response_to = Some("_of_another_browser".to_owned()));
    refused(
        "an answer to a request",
        &stage.post(&stage.id, stolen.as_bytes(), "", "").await,
    );
    let old = unasked(&|said| said.issued = said.issued.minus(Duration::from_secs(900)));
    refused("old", &stage.post(&stage.id, old.as_bytes(), "", "").await);
}

#[tokio::test]
async fn t1_a_connection_of_one_tenant_signs_nobody_into_another() {
    let mut stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    let ((other, client), cookie) = stage.scene.second_tenant().await;
    let body = definition(&stage.idp, &json!({}));
    let made = stage
        .scene
        .call_in((other, client), Method::PUT, PATH, &body)
        .await;
    let theirs = made["id"].as_str().expect("it has an id").to_owned();
    // An answer to a request of one connection, brought to the other: with either cookie.
    let away = stage.depart("next=%2F").await;
    let message = stage.signed(&stage.answer(&away.request));
    let crossed = stage
        .post(&theirs, message.as_bytes(), &away.flow, &away.cookie)
        .await;
    refused("the cookie of another connection", &crossed);
    let there = stage.depart_to(&theirs, "next=%2F").await;
    let message = stage.signed(&stage.answer(&there.request));
    let crossed = stage
        .post(&theirs, message.as_bytes(), &there.flow, &there.cookie)
        .await;
    refused("an assertion for another connection", &crossed);
    // Who is known to one tenant is nobody in the other.
    stage.sign_in().await;
    let said = Said {
        destination: stage.address("acs").replace(&stage.id, &theirs),
        recipient: stage.address("acs").replace(&stage.id, &theirs),
        audiences: vec![stage.address("metadata").replace(&stage.id, &theirs)],
        ..stage.answer(&there.request)
    };
    let answer = stage
        .post(
            &theirs,
            stage.signed(&said).as_bytes(),
            &there.flow,
            &there.cookie,
        )
        .await;
    refused("no role there", &answer);
    let own = std::mem::replace(&mut stage.scene.cookie, cookie);
    let page = stage.scene.page("/access/connections").await;
    assert!(!page.contains(&stage.id), "{page}");
    let gone = stage
        .scene
        .get(&format!("/access/connections/{}", stage.id))
        .await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    stage.scene.cookie = own;
}

#[tokio::test]
async fn what_strangers_post_is_bounded() {
    let stage = Stage::new().await;
    let away = stage.depart("next=%2F").await;
    let path = format!("/auth/saml/{}/acs", stage.id);
    let send = async |body: &str| {
        let headers = [FOREIGN, ("cookie", away.cookie.as_str())];
        stage.scene.send(Method::POST, &path, &headers, body).await
    };
    let huge = format!("SAMLResponse={}", "A".repeat(1024 * 1024));
    assert_eq!(send(&huge).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    for body in [
        "",
        "RelayState=x",
        "SAMLResponse=QQ&SAMLResponse=QQ",
        "SAMLResponse=%",
    ] {
        let answer = send(body).await;
        assert!(
            matches!(answer.status, StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN),
            "{body}: {}",
            answer.body
        );
    }
    // Other forms of other sites are refused as ever.
    let foreign = stage
        .scene
        .send(Method::POST, "/signin", &[FOREIGN], "secret=x")
        .await;
    assert_eq!(foreign.status, StatusCode::FORBIDDEN);
    let garbage = format!("SAMLResponse=QQ%3D%3D&RelayState={}", away.flow);
    let mut last = StatusCode::OK;
    for _ in 0..2000 {
        last = send(&garbage).await.status;
        if last == StatusCode::TOO_MANY_REQUESTS {
            break;
        }
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn an_assertion_is_encrypted_for_the_key_in_our_metadata() {
    let stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    let path = format!("/auth/saml/{}/metadata", stage.id);
    let metadata = stage.scene.send(Method::GET, &path, &[], "").await;
    assert_eq!(metadata.headers["content-type"], "application/samlmetadata+xml");
    let text = &metadata.body;
    for part in [
        stage.address("metadata"),
        stage.address("acs"),
        stage.address("slo"),
    ] {
        assert!(text.contains(&part), "{text}");
    }
    assert!(
        !text.contains("PRIVATE") && text.contains("AuthnRequestsSigned=\"true\""),
        "{text}"
    );
    let (_, rest) = text
        .split_once("use=\"encryption\"")
        .expect("there is a key for it");
    let certificate = between(rest, "<ds:X509Certificate>", "</ds:X509Certificate>");
    let certificate = Certificate::from_text(certificate).expect("it is a certificate");
    for (sign, must_be_encrypted) in [(Sign::Assertion, false), (Sign::Both, true)] {
        stage
            .change(&json!({"must_be_encrypted": must_be_encrypted}))
            .await;
        let away = stage.depart("next=%2F").await;
        let message = stage
            .idp
            .respond_encrypted(&stage.answer(&away.request), sign, &certificate);
        assert!(!message.contains("ada@example.com"));
        let answer = stage.arrive(&away, &message).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
    }
    refused("in the clear", &stage.visit_as(|_| {}).await);
    assert!(stage.error().await.contains("encryption.missing"));
    // For another key, and encrypted without a signature.
    let (_, other) = muster_saml::testing::decryption_pair();
    for (sign, recipient) in [(Sign::Assertion, &other), (Sign::Nothing, &certificate)] {
        let away = stage.depart("next=%2F").await;
        let message = stage
            .idp
            .respond_encrypted(&stage.answer(&away.request), sign, recipient);
        refused(
            "another key, or no signature",
            &stage.arrive(&away, &message).await,
        );
    }
}

#[tokio::test]
async fn a15_the_provider_is_asked_again_before_what_is_destructive() {
    let mut stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    let device = stage.scene.device("S-1").await.id;
    let name = stage.scene.name(device).await;
    let retire = format!("/devices/{device}/retire");
    let yesterday = stage.now().minus(Duration::from_secs(86_400));
    let answer = stage.visit_as(|said| said.authn_instant = yesterday).await;
    let value = answer.cookie(SESSION_COOKIE).expect("a session begins");
    stage.scene.cookie = format!("{SESSION_COOKIE}={value}");
    let asked = stage.scene.post(&retire, &[("name", &name)]).await;
    assert_eq!(asked.status, StatusCode::UNAUTHORIZED, "{}", asked.body);
    let page = stage.scene.page("/step-up?next=/devices").await;
    let way = format!("/auth/saml/{}/start?next=%2Fdevices", stage.id);
    assert!(
        page.contains(&way) && !page.contains("With a new sign-in link"),
        "{page}"
    );
    let proof = async |stage: &Stage, change: &dyn Fn(&mut Said)| {
        let away = stage.depart("purpose=step-up&next=%2Fdevices").await;
        assert!(message_of(&away.location, "SAMLRequest").contains("ForceAuthn=\"true\""));
        let mut said = stage.answer(&away.request);
        change(&mut said);
        stage.arrive(&away, &stage.signed(&said)).await
    };
    refused(
        "not asked anew",
        &proof(&stage, &|said| said.authn_instant = yesterday).await,
    );
    assert!(stage.error().await.contains("ForceAuthn"));
    let other = proof(&stage, &|said| said.name_id = "0002".to_owned()).await;
    assert!(other.body.contains("somebody else"), "{}", other.body);
    let proven = proof(&stage, &|_| {}).await;
    assert_eq!(proven.location(), "/devices?notice=proven", "{}", proven.body);
    assert!(
        proven.cookie(SESSION_COOKIE).is_none(),
        "it is the session that there was"
    );
    let done = stage.scene.post(&retire, &[("name", &name)]).await;
    assert_eq!(done.status, StatusCode::SEE_OTHER, "{}", done.body);
    // A proof for a session that ended meanwhile proves nothing.
    let away = stage.depart("purpose=step-up&next=%2Fdevices").await;
    stage.scene.post("/signout", &[]).await;
    let message = stage.signed(&stage.answer(&away.request));
    refused("the session is over", &stage.arrive(&away, &message).await);
}

/// A request of the provider's to end sessions.
fn logout_request(stage: &Stage, id: &str, name_id: &str, session: Option<&str>) -> String {
    let session = session.map_or(String::new(), |index| {
        format!("<samlp:SessionIndex>{index}</samlp:SessionIndex>")
    });
    format!(
        "<samlp:LogoutRequest xmlns:samlp=\"urn:oasis:names:tc:SAML:2.0:protocol\" \
         xmlns:saml=\"urn:oasis:names:tc:SAML:2.0:assertion\" ID=\"{id}\" Version=\"2.0\" IssueInstant=\"{}\" \
         Destination=\"{}\"><saml:Issuer>{IDENTITY_PROVIDER}</saml:Issuer>\
         <saml:NameID Format=\"urn:oasis:names:tc:SAML:2.0:nameid-format:persistent\" SPNameQualifier=\"{SERVICE_PROVIDER}\">{name_id}\
         </saml:NameID>{session}</samlp:LogoutRequest>",
        stage.now(),
        stage.address("slo"),
    )
}

#[tokio::test]
async fn a13_a_logout_at_the_provider_ends_the_sessions_that_it_names() {
    let mut stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    stage.sign_in().await;
    let slo = format!("/auth/saml/{}/slo", stage.id);
    let ask = async |stage: &Stage, query: &str| {
        stage
            .scene
            .send(Method::GET, &format!("{slo}?{query}"), &[FOREIGN], "")
            .await
    };
    let other = Provider::new(KeyKind::Rsa);
    let request = |stage: &Stage, id: &str| logout_request(stage, id, "0001", Some("_session"));
    let forged = other.query("SAMLRequest", &request(&stage, "_l0"), None);
    let genuine = stage
        .idp
        .query("SAMLRequest", &request(&stage, "_l1"), Some("back"));
    let unsigned = genuine
        .split("&SigAlg")
        .next()
        .expect("it has a message")
        .to_owned();
    let bent = genuine.replace("RelayState=back", "RelayState=away");
    for query in ["", "SAMLRequest=x", &forged, &unsigned, &bent] {
        let answer = ask(&stage, query).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}: {}", answer.body);
        assert!(stage.is_in().await, "{query}");
    }
    // Somebody else, or another session of theirs.
    for (id, name, session) in [("_l2", "0002", "_session"), ("_l3", "0001", "_other")] {
        let message = logout_request(&stage, id, name, Some(session));
        let answer = ask(&stage, &stage.idp.query("SAMLRequest", &message, None)).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        assert!(stage.is_in().await, "{id}");
    }
    let answer = ask(&stage, &genuine).await;
    let location = answer.location();
    assert!(
        location.starts_with("https://idp.example.com/slo?SAMLResponse="),
        "{}",
        answer.body
    );
    assert!(location.contains("RelayState=back") && location.contains("&Signature="));
    assert!(message_of(location, "SAMLResponse").contains("InResponseTo=\"_l1\""));
    assert!(!stage.is_in().await, "the session is over");
    stage.sign_in().await;
    assert_eq!(
        ask(&stage, &genuine).await.status,
        StatusCode::BAD_REQUEST,
        "it counts once"
    );
    assert!(stage.is_in().await);
    // Without a session all of the person's end; an old request ends none.
    let all = stage
        .idp
        .query("SAMLRequest", &logout_request(&stage, "_l4", "0001", None), None);
    stage.scene.pass_seconds(400);
    assert_eq!(
        ask(&stage, &all).await.status,
        StatusCode::BAD_REQUEST,
        "it is old"
    );
    let all = logout_request(&stage, "_l5", "0001", None);
    ask(&stage, &stage.idp.query("SAMLRequest", &all, None)).await;
    assert!(!stage.is_in().await);
}

#[tokio::test]
async fn whoever_signs_out_here_can_sign_out_there() {
    let mut stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    stage.sign_in().await;
    let out = stage.scene.post("/signout", &[]).await;
    let kept = out
        .cookie(FAREWELL_COOKIE)
        .expect("the browser can still say who it was");
    let page = stage.scene.send(Method::GET, out.location(), &[], "").await;
    let way = format!("/auth/saml/{}/logout", stage.id);
    assert!(page.body.contains(&way), "{}", page.body);
    let stranger = stage.scene.send(Method::GET, &way, &[], "").await;
    assert_eq!(stranger.status, StatusCode::BAD_REQUEST, "{}", stranger.body);
    let cookie = format!("{FAREWELL_COOKIE}={kept}");
    let asked = stage
        .scene
        .send(Method::GET, &way, &[("cookie", &cookie)], "")
        .await;
    let message = message_of(asked.location(), "SAMLRequest");
    assert!(
        asked.location().starts_with("https://idp.example.com/slo?")
            && asked.location().contains("&Signature="),
        "{}",
        asked.body
    );
    assert!(
        message.contains(">0001<") && message.contains(">_session<"),
        "{message}"
    );
    let id = between(&message, " ID=\"", "\"").to_owned();
    let answer = |to: &str| {
        let message = format!(
            "<samlp:LogoutResponse xmlns:samlp=\"urn:oasis:names:tc:SAML:2.0:protocol\" \
             xmlns:saml=\"urn:oasis:names:tc:SAML:2.0:assertion\" ID=\"_r\" Version=\"2.0\" IssueInstant=\"{}\" \
             Destination=\"{}\" InResponseTo=\"{to}\"><saml:Issuer>{IDENTITY_PROVIDER}</saml:Issuer><samlp:Status>\
             <samlp:StatusCode Value=\"urn:oasis:names:tc:SAML:2.0:status:Success\"/></samlp:Status></samlp:LogoutResponse>",
            stage.now(),
            stage.address("slo"),
        );
        stage.idp.query("SAMLResponse", &message, None)
    };
    let kept = asked.cookie(FAREWELL_COOKIE).expect("the request is remembered");
    let cookie = format!("{FAREWELL_COOKIE}={kept}");
    let back = async |to: &str, cookie: &str| {
        let path = format!("/auth/saml/{}/slo?{}", stage.id, answer(to));
        stage
            .scene
            .send(Method::GET, &path, &[("cookie", cookie)], "")
            .await
    };
    assert_eq!(back("_other", &cookie).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(back(&id, "").await.status, StatusCode::BAD_REQUEST);
    let done = back(&id, &cookie).await;
    assert_eq!(done.location(), "/signin?left=everywhere", "{}", done.body);
    let page = stage.scene.send(Method::GET, done.location(), &[], "").await;
    assert!(
        page.body.contains("here and at your identity provider"),
        "{}",
        page.body
    );
}

#[tokio::test]
async fn a_connection_is_changed_only_by_whoever_can_do_what_its_people_can() {
    let stage = Stage::new().await;
    let all = scope::every();
    let put =
        async |scopes: &str, path: &str, body: &str| stage.scene.ask(scopes, Method::PUT, path, body).await;
    let other = Provider::new(KeyKind::P256);
    let weak = "sso:write access:read";
    // While nobody of it can do anything, whoever connects providers changes it.
    let changed = put(weak, PATH, &definition(&stage.idp, &json!({"idle_seconds": 600}))).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.body);
    stage.visit_as(|_| {}).await;
    let body = json!({"role": "owner", "person": "corp/ada@example.com"}).to_string();
    stage
        .scene
        .call(Method::POST, "/api/v1/access/grants", &body)
        .await;
    // Who enters a certificate says who people are: by changing the connection, or by another of the same provider.
    for path in [PATH, "/api/v1/access/connections/twin"] {
        let refused = put(weak, path, &definition(&other, &json!({}))).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}: {}", refused.body);
    }
    for (change, what) in [
        (
            json!({"entity_id": "https://evil.example"}),
            "the entity id never changes",
        ),
        (json!({"sso_url": "http://idp.example.com/sso"}), "plain HTTP"),
        (json!({"certificates": []}), "no certificate"),
        (json!({"certificates": ["AAAA"]}), "no certificate that is one"),
        (json!({"metadata": "<x/>"}), "metadata and the rest"),
        (json!({"idle_seconds": 1}), "a limit that is none"),
        (json!({"required_authn_contexts": ["a b"]}), "no URI"),
        (json!({"client_id": "c"}), "a member of another kind"),
    ] {
        let refused = put(&all, PATH, &definition(&stage.idp, &change)).await;
        assert_eq!(
            refused.status,
            StatusCode::BAD_REQUEST,
            "{what}: {}",
            refused.body
        );
    }
    let oidc = json!({"definition": {"issuer": IDENTITY_PROVIDER, "client_id": "c"}, "client_secret": "s"});
    let turned = put(&all, PATH, &oidc.to_string()).await;
    assert_eq!(turned.status, StatusCode::BAD_REQUEST, "{}", turned.body);
    let mut secret: Value = serde_json::from_str(&definition(&stage.idp, &json!({}))).expect("it is JSON");
    secret["client_secret"] = json!("s");
    let shared = put(&all, PATH, &secret.to_string()).await;
    assert_eq!(shared.status, StatusCode::BAD_REQUEST, "{}", shared.body);
    // The next certificate beside the one in use; then answers by either are taken, and our own keys stay.
    let before = stage
        .scene
        .get(&format!("/auth/saml/{}/metadata", stage.id))
        .await;
    let both = [&stage.idp, &other].map(|idp| STANDARD.encode(idp.certificate().der()));
    stage.change(&json!({"certificates": both})).await;
    for idp in [&stage.idp, &other] {
        let away = stage.depart("next=%2F").await;
        let message = idp.respond(&stage.answer(&away.request), Sign::Assertion);
        assert_eq!(stage.arrive(&away, &message).await.status, StatusCode::SEE_OTHER);
    }
    let after = stage
        .scene
        .get(&format!("/auth/saml/{}/metadata", stage.id))
        .await;
    assert_eq!(before.body, after.body);
    let mut anew: Value = serde_json::from_str(&definition(&stage.idp, &json!({}))).expect("it is JSON");
    anew["new_keys"] = json!(true);
    stage.scene.call(Method::PUT, PATH, &anew.to_string()).await;
    let replaced = stage
        .scene
        .get(&format!("/auth/saml/{}/metadata", stage.id))
        .await;
    assert_ne!(before.body, replaced.body);
    assert_eq!(stage.visit_as(|_| {}).await.status, StatusCode::SEE_OTHER);
    stage.scene.call(Method::DELETE, PATH, "").await;
    let gone = stage.scene.get(&format!("/auth/saml/{}/start", stage.id)).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_provider_is_connected_by_its_metadata_in_the_console() {
    let stage = Stage::new().await;
    let certificate = STANDARD.encode(stage.idp.certificate().der());
    let metadata = format!(
        "<md:EntityDescriptor xmlns:md=\"urn:oasis:names:tc:SAML:2.0:metadata\" xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\" \
         entityID=\"https://portal.example/idp\"><md:IDPSSODescriptor WantAuthnRequestsSigned=\"true\" \
         protocolSupportEnumeration=\"urn:oasis:names:tc:SAML:2.0:protocol\"><md:KeyDescriptor use=\"signing\"><ds:KeyInfo>\
         <ds:X509Data><ds:X509Certificate>{certificate}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>\
         <md:SingleSignOnService Binding=\"urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect\" \
         Location=\"https://portal.example/sso\"/></md:IDPSSODescriptor></md:EntityDescriptor>"
    );
    let mut fields = vec![
        ("kind", "saml"),
        ("name", "portal"),
        ("metadata", &metadata),
        ("must_be_signed", "both"),
        ("groups_attribute", "teams"),
        ("enabled", "yes"),
    ];
    let unsigned = stage.scene.post("/access/connections/put", &fields).await;
    assert_eq!(
        unsigned.status,
        StatusCode::BAD_REQUEST,
        "it wants signed requests: {}",
        unsigned.body
    );
    fields.push(("sign_requests", "yes"));
    let made = stage.scene.post("/access/connections/put", &fields).await;
    assert_eq!(
        made.location(),
        "/access/connections/portal?notice=connection-saved",
        "{}",
        made.body
    );
    let page = stage.scene.page("/access/connections/portal").await;
    for part in [
        "https://portal.example/idp",
        "https://portal.example/sso",
        "teams",
        "/acs</code>",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    // Saved again as the page has it, without a file.
    let certificates = between(&page, "name=\"certificates\"", "</textarea>");
    let certificates = certificates
        .rsplit('>')
        .next()
        .expect("there is a field")
        .to_owned();
    assert_eq!(certificates, certificate);
    let again = [
        ("kind", "saml"),
        ("name", "portal"),
        ("entity_id", "https://portal.example/idp"),
        ("sso_url", "https://portal.example/sso"),
        ("certificates", &certificates),
        ("must_be_signed", "response"),
        ("sign_requests", "yes"),
        ("session_seconds", "3600"),
    ];
    let saved = stage.scene.post("/access/connections/put", &again).await;
    assert_eq!(saved.status, StatusCode::SEE_OTHER, "{}", saved.body);
    let page = stage.scene.page("/access/connections").await;
    assert!(page.contains("switched off") && page.contains("SAML"), "{page}");
    let tested = stage.scene.post("/access/connections/portal/test", &[]).await;
    for step in ["metadata", "certificates", "keys", "logout", "reach", "claims"] {
        assert!(
            tested.body.contains(&format!(">{step}</th>")),
            "{step}: {}",
            tested.body
        );
    }
    let known = stage
        .scene
        .call(Method::GET, "/api/v1/access/connections", "")
        .await;
    let portal = &known["items"][1];
    assert_eq!(
        (&portal["definition"]["session_seconds"], &portal["kind"]),
        (&json!(3600), &json!("saml"))
    );
    assert!(portal["definition"].get("metadata").is_none(), "{portal}");
    assert!(!known.to_string().contains("PRIVATE"));
}
