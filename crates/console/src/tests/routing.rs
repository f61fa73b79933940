//! A claim leads each person to one tenant, or nowhere: against a provider that says what it is told to say.

use axum::http::{Method, StatusCode};
use muster_control::{
    access::{self, SESSION_COOKIE, problem::Problem},
    audit,
    devices::DeviceState,
    enrollment::{self, Candidate, ClaimedHardware, Enrolled, Evidence},
};
use muster_model::{ClientId, Platform, TenantId};
use muster_storage::Scope;
use muster_trust::key::SigningKey;
use serde_json::{Value, json};

use super::oidc::{CLIENT, Stage};
use crate::testing::Answer;

pub type Of = (TenantId, ClientId);

pub const DEVICE: &str = "9b2f0c3e-1111-4222-8333-444455556666";
pub const ENROLL_COOKIE: &str = "__Host-muster-enroll";
const RULES: &str = "/api/v1/access/connections/corp/routing";

/// The first tenant with a connection, and two others.
pub struct Routed {
    pub stage: Stage,
    pub acme: Of,
    pub beta: Of,
}

impl Routed {
    /// Rules lead to both others, and both have accepted them.
    pub async fn new() -> Routed {
        let routed = Routed::unaccepted().await;
        for of in [routed.acme, routed.beta] {
            routed.accept(of, false).await;
        }
        routed.grant("helpdesk", "acme-staff").await;
        routed
    }

    pub async fn unaccepted() -> Routed {
        let mut stage = Stage::new().await;
        let (acme, _) = stage.scene.another_tenant("acme").await;
        let (beta, _) = stage.scene.another_tenant("beta").await;
        stage.scene.cookie = String::new();
        let routed = Routed { stage, acme, beta };
        routed.route(None, &routed.usual()).await;
        routed
    }

    pub fn home(&self) -> Of {
        (self.stage.scene.tenant, self.stage.scene.client)
    }

    pub fn usual(&self) -> Vec<(&'static str, TenantId)> {
        vec![
            ("acme-staff", self.acme.0),
            ("beta-staff", self.beta.0),
            ("ours", self.home().0),
        ]
    }

    pub async fn route(&self, claim: Option<&str>, rules: &[(&str, TenantId)]) -> Value {
        let rules: Vec<Value> = rules
            .iter()
            .map(|(value, tenant)| json!({"value": value, "tenant": tenant}))
            .collect();
        let body = json!({"claim": claim, "rules": rules}).to_string();
        self.stage.scene.call(Method::PUT, RULES, &body).await
    }

    pub async fn call(&self, of: Of, method: Method, path: &str, body: &Value) -> Answer {
        let path = format!("/api/v1/access{path}");
        self.stage
            .scene
            .in_tenant(of, method, &path, &body.to_string())
            .await
    }

    pub async fn offer(&self, of: Of) -> Value {
        let found = self
            .call(of, Method::GET, "/routed-connections", &json!({}))
            .await;
        found.json()["items"][0].clone()
    }

    pub async fn accept(&self, of: Of, assigned_people: bool) -> Answer {
        let offer = self.offer(of).await;
        let body = json!({"offer": offer["offer"], "assigned_people": assigned_people});
        let path = format!("/routed-connections/{}", self.stage.id);
        let answer = self.call(of, Method::PUT, &path, &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        answer
    }

    /// In acme.
    pub async fn grant(&self, role: &str, group: &str) {
        let body = json!({"role": role, "group": group, "source": "routed:corp"});
        let answer = self.call(self.acme, Method::POST, "/grants", &body).await;
        assert!(answer.status.is_success(), "{}", answer.body);
    }

    pub fn says(&self, claims: Value) {
        self.stage.idp.set(|behavior| behavior.claims = claims);
    }

    /// Who has sessions by the connection in a tenant.
    pub async fn sessions(&self, of: Of) -> Vec<String> {
        let found = self.call(of, Method::GET, "/sessions", &json!({})).await.json();
        let items = found["items"].as_array().expect("it is a list").iter();
        let by_it = items.filter(|one| one["method"] == "oidc");
        by_it
            .map(|one| one["person"].as_str().expect("it is text").to_owned())
            .collect()
    }

    pub async fn nobody_is_in(&self) {
        for of in [self.home(), self.acme, self.beta] {
            assert_eq!(self.sessions(of).await, [""; 0]);
        }
    }

    /// Somebody signs in and may look at devices.
    pub async fn comes_in(&mut self) -> String {
        let answer = self.stage.visit().await;
        assert_eq!(answer.location(), "/devices", "{}", answer.body);
        let value = answer.cookie(SESSION_COOKIE).expect("a session begins");
        self.stage.scene.cookie = format!("{SESSION_COOKIE}={value}");
        assert_eq!(self.looks().await, StatusCode::OK);
        self.stage.scene.cookie.clone()
    }

    pub async fn looks(&self) -> StatusCode {
        self.stage.scene.get("/devices").await.status
    }

    /// Somebody signs in, is held for this reason, and has no session anywhere.
    pub async fn is_held(&self, reason: &str) -> Value {
        let answer = self.stage.visit().await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{reason}: {}", answer.body);
        assert!(
            answer.cookie(SESSION_COOKIE).is_none(),
            "{reason}: a session began"
        );
        let held = self.held().await;
        // The person is told what to quote.
        let is_quoted = |one: &&Value| answer.body.contains(one["reference"].as_str().unwrap_or("-"));
        let one = held
            .iter()
            .find(is_quoted)
            .unwrap_or_else(|| panic!("{reason}: {held:?}"));
        assert_eq!(one["reason"], reason);
        one.clone()
    }

    pub async fn held(&self) -> Vec<Value> {
        let found = self
            .call(self.home(), Method::GET, "/held-sign-ins", &json!({}))
            .await;
        found.json()["items"].as_array().cloned().unwrap_or_default()
    }

    pub async fn decide(&self, held: &Value, choice: Value) -> Answer {
        let reference = held["reference"].as_str().expect("it is text");
        let path = format!("/held-sign-ins/{reference}/decide");
        self.call(self.home(), Method::POST, &path, &choice).await
    }

    /// The actions in a tenant's log.
    pub async fn log(&self, of: Of) -> String {
        self.stage.scene.settle().await;
        let path = "/api/v1/log/entries?limit=200";
        self.stage.scene.in_tenant(of, Method::GET, path, "").await.body
    }

    pub async fn own_device(&self) -> Answer {
        self.own_device_by(&self.stage.id).await
    }

    pub async fn own_device_by(&self, connection: &str) -> Answer {
        self.own_device_there(connection, DEVICE).await
    }

    pub async fn own_device_of(&self, device: &str) -> Answer {
        self.own_device_there(&self.stage.id, device).await
    }

    async fn own_device_there(&self, connection: &str, device: &str) -> Answer {
        let asked = self.asks_for_device(connection, device).await;
        if asked.status != StatusCode::OK {
            return asked;
        }
        self.means_it(&asked, device).await
    }

    /// Somebody proves at a provider who they are, and is asked whether the device is theirs.
    pub async fn asks_for_own_device(&self, connection: &str) -> Answer {
        self.asks_for_device(connection, DEVICE).await
    }

    async fn asks_for_device(&self, connection: &str, device: &str) -> Answer {
        // The newest token is the one of the latest second.
        self.stage.scene.pass_seconds(1);
        let next = format!("purpose=own-device&next=%2Fenroll-my-device%3Fdevice%3D{device}");
        let away = self.stage.depart(connection, &next).await;
        let asked = away.asks("prompt=login") && away.asks("max_age=0");
        assert!(asked, "the provider has to ask anew");
        self.stage.arrive(connection, &away, "").await
    }

    /// They say so, in the same browser.
    pub async fn means_it(&self, asked: &Answer, device: &str) -> Answer {
        let secret = asked.cookie(ENROLL_COOKIE).expect("the browser is bound");
        self.says_so(&format!("{ENROLL_COOKIE}={secret}"), asked, device)
            .await
    }

    pub async fn says_so(&self, cookie: &str, asked: &Answer, device: &str) -> Answer {
        let (_, rest) = asked
            .body
            .split_once("name=\"proof\" value=\"")
            .expect("there is a form");
        let (proof, _) = rest.split_once('"').expect("the value ends");
        let headers = [("cookie", cookie), ("sec-fetch-site", "same-origin")];
        let body = format!("device={device}&proof={proof}");
        self.stage
            .scene
            .send(Method::POST, "/enroll-my-device", &headers, &body)
            .await
    }

    pub async fn let_enroll(&self, of: Of, limits: &Value) {
        let path = format!("/self-enrollment/{}", self.stage.id);
        let answer = self.call(of, Method::PUT, &path, limits).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    }

    pub async fn tokens(&self, of: Of) -> Vec<Value> {
        let path = "/api/v1/enrollment-tokens";
        let found = self.stage.scene.in_tenant(of, Method::GET, path, "").await.json();
        found["items"].as_array().cloned().unwrap_or_default()
    }

    /// A device comes with the newest token of acme.
    pub async fn enrolls(&self) -> Enrolled {
        let key = SigningKey::generate_p256().expect("a key can be made");
        self.enrolls_with(&key).await.expect("the token is taken")
    }

    /// The device that has this key comes with the newest token of acme.
    pub async fn enrolls_with(&self, key: &SigningKey) -> Result<Enrolled, Problem> {
        let tokens = self.tokens(self.acme).await;
        let token = tokens
            .iter()
            .find(|one| one["state"] == "issued")
            .expect("one waits");
        let token = token["id"]
            .as_str()
            .expect("it is text")
            .parse()
            .expect("it is an id");
        let candidate = Candidate {
            tenant: self.acme.0,
            token,
            spki: key.public().spki_der().to_vec(),
            hardware: ClaimedHardware::of_platform(Platform::Linux),
            evidence: Evidence::unattested(),
        };
        enrollment::admit(&self.stage.scene.app, candidate).await
    }
}

#[tokio::test]
async fn t10_a_group_leads_to_one_tenant_with_the_roles_that_this_tenant_gives() {
    let mut routed = Routed::new().await;
    // What the first tenant gives to the same group counts in the first tenant alone, where nobody of it belongs.
    routed.stage.grant("owner", "acme-staff").await;
    routed.says(json!({"groups": ["everybody", "acme-staff"]}));
    routed.comes_in().await;
    assert_eq!(
        routed.sessions(routed.acme).await,
        ["routed:corp/ada@example.com"]
    );
    assert!(routed.sessions(routed.home()).await.is_empty() && routed.sessions(routed.beta).await.is_empty());
    assert_eq!(
        routed.stage.scene.get("/access").await.status,
        StatusCode::FORBIDDEN
    );
    assert!(routed.log(routed.home()).await.contains("access.person_routed"));
    // Somebody else belongs to the tenant that the rules name for them, the first one too.
    routed.says(json!({"sub": "0002", "groups": ["ours"], "preferred_username": "ben"}));
    routed.stage.grant("helpdesk", "ours").await;
    routed.comes_in().await;
    assert_eq!(routed.sessions(routed.home()).await, ["corp/ben"]);
    assert!(routed.held().await.is_empty());
    // People of acme find the way in by the name of their company.
    let page = routed
        .stage
        .scene
        .send(Method::GET, "/signin?company=acme", &[], "")
        .await;
    assert!(page.body.contains(&routed.stage.id), "{}", page.body);
}

#[tokio::test]
async fn t10_whoever_no_rule_leads_to_one_tenant_is_held_and_nowhere() {
    let routed = Routed::new().await;
    for of in [routed.home(), routed.acme, routed.beta] {
        routed.let_enroll(of, &json!({})).await;
    }
    for (number, (groups, reason)) in [
        (json!(["everybody"]), "no_rule"),
        (json!(null), "claim_absent"),
        (json!([]), "claim_absent"),
        (json!({"acme-staff": true}), "claim_type"),
        (json!(["acme-staff", 7]), "claim_type"),
        (json!(["acme-staff", "acme-staff"]), "claim_duplicate"),
        (json!(["acme-staff", "ACME-staff"]), "claim_spelling"),
        (json!([" acme-staff"]), "claim_spelling"),
        (json!(["acme-staff", "beta-staff"]), "several_tenants"),
        (json!(["acme-staff", "ours"]), "several_tenants"),
    ]
    .into_iter()
    .enumerate()
    {
        routed.says(json!({"sub": format!("held-{number}"), "groups": groups}));
        let held = routed.is_held(reason).await;
        assert_eq!(held["times"], 1);
        // Nor does a device come in, and whoever comes again is one row.
        let answer = routed.own_device().await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{reason}: {}", answer.body);
        assert_eq!(routed.is_held(reason).await["times"], 3);
        let decided = routed.decide(&held, json!({"decision": "refuse"})).await;
        assert_eq!(decided.status, StatusCode::NO_CONTENT, "{}", decided.body);
        assert_eq!(routed.is_held("refused").await["reference"], held["reference"]);
    }
    routed.says(json!({"sub": "many", "groups": ["acme-staff"], "hasgroups": true}));
    routed.is_held("claim_incomplete").await;
    routed.nobody_is_in().await;
    assert!(routed.tokens(routed.acme).await.is_empty() && routed.tokens(routed.home()).await.is_empty());
    let log = routed.log(routed.home()).await;
    assert!(log.contains("signin.held"), "{log}");
    // Of the claim nothing is kept but what routing needs.
    assert!(!log.contains("everybody") && !format!("{:?}", routed.held().await).contains("everybody"));
}

#[tokio::test]
async fn t10_a_named_claim_routes_as_groups_do() {
    let mut routed = Routed::unaccepted().await;
    let rules = [("ACME Ltd", routed.acme.0), ("Beta", routed.beta.0)];
    routed.route(Some("/org/name"), &rules).await;
    routed.accept(routed.acme, false).await;
    routed.grant("helpdesk", "everybody").await;
    routed.says(json!({"org": {"name": "ACME Ltd"}, "groups": ["everybody"]}));
    routed.comes_in().await;
    assert_eq!(routed.sessions(routed.acme).await.len(), 1);
    for (number, (claims, reason)) in [
        (json!({"name": "Acme Ltd"}), "claim_spelling"),
        (json!({"name": ["ACME Ltd", "Beta"]}), "several_tenants"),
        (json!({"name": 5}), "claim_type"),
        (json!({}), "claim_absent"),
        (json!("ACME Ltd"), "claim_absent"),
        (json!({"name": "Beta"}), "not_accepted"),
    ]
    .into_iter()
    .enumerate()
    {
        routed.says(json!({"sub": format!("n-{number}"), "org": claims, "groups": ["everybody"]}));
        routed.is_held(reason).await;
    }
    // Another claim is another question: who came by the old one is out with the next click.
    routed.route(Some("tenant"), &rules).await;
    assert_eq!(routed.looks().await, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a13_a_logout_at_the_provider_ends_the_session_in_the_tenant_that_it_led_to() {
    let mut routed = Routed::new().await;
    routed.says(json!({"groups": ["acme-staff"]}));
    routed.comes_in().await;
    let mut other = routed.stage.logout_claims("logout-0");
    other["sid"] = json!("session-2");
    assert_eq!(routed.stage.logs_out(other).await, StatusCode::OK);
    assert_eq!(routed.looks().await, StatusCode::OK, "it was another session");
    let claims = routed.stage.logout_claims("logout-1");
    assert_eq!(routed.stage.logs_out(claims).await, StatusCode::OK);
    assert_eq!(routed.looks().await, StatusCode::SEE_OTHER, "the session is over");
    routed.nobody_is_in().await;
    let log = routed.log(routed.acme).await;
    assert!(log.contains("logout at the identity provider"), "{log}");
}

#[tokio::test]
async fn t10_nobody_comes_to_a_tenant_that_did_not_accept_them() {
    let mut routed = Routed::unaccepted().await;
    routed.says(json!({"groups": ["acme-staff"]}));
    routed.is_held("not_accepted").await;
    // The offer shows what leads here and nothing of others; what was not shown is not accepted.
    let offer = routed.offer(routed.acme).await;
    assert_eq!(
        (&offer["state"], &offer["values"]),
        (&json!("offered"), &json!(["acme-staff"]))
    );
    assert!(!offer.to_string().contains("beta"));
    let rules = [("acme-staff", routed.acme.0), ("everybody", routed.acme.0)];
    routed.route(None, &rules).await;
    let path = format!("/routed-connections/{}", routed.stage.id);
    let stale = routed
        .call(routed.acme, Method::PUT, &path, &json!({"offer": offer["offer"]}))
        .await;
    assert_eq!(stale.status, StatusCode::CONFLICT, "{}", stale.body);
    // Nobody accepts for another.
    let foreign = routed
        .call(routed.beta, Method::PUT, &path, &json!({"offer": offer["offer"]}))
        .await;
    assert_eq!(foreign.status, StatusCode::NOT_FOUND, "{}", foreign.body);

    routed.route(None, &rules[..1]).await;
    routed.accept(routed.acme, false).await;
    routed.grant("helpdesk", "acme-staff").await;
    routed.comes_in().await;
    let both = [routed.log(routed.home()).await, routed.log(routed.acme).await];
    assert!(
        both.iter().all(|log| log.contains("access.routing_accepted")),
        "{both:?}"
    );
    assert!(both[1].contains("access.routing_offered"));
    // A rule that comes later brings nobody before it is accepted as well, and disturbs nobody.
    routed.route(None, &rules).await;
    assert_eq!(routed.looks().await, StatusCode::OK);
    routed.says(json!({"sub": "0002", "groups": ["everybody"]}));
    routed.is_held("not_accepted").await;
    assert_eq!(routed.offer(routed.acme).await["state"], "changed");
    // Whoever changes what is believed of people does not change whose they are: the acceptance is of the connection as it was.
    let body =
        json!({"definition": {"issuer": routed.stage.idp.issuer, "client_id": CLIENT, "name_claim": "sub"}});
    let changed = routed
        .call(routed.home(), Method::PUT, "/connections/corp", &body)
        .await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.body);
    assert_eq!(routed.looks().await, StatusCode::SEE_OTHER);
    routed.says(json!({"groups": ["acme-staff"]}));
    routed.is_held("not_accepted").await;
    routed.accept(routed.acme, false).await;
    routed.comes_in().await;
    // Taken back, it is over at once, and so are the roles of its groups.
    let gone = routed.call(routed.acme, Method::DELETE, &path, &json!({})).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT, "{}", gone.body);
    assert_eq!(routed.looks().await, StatusCode::SEE_OTHER);
    assert!(
        routed
            .log(routed.home())
            .await
            .contains("access.routing_withdrawn")
    );
}

#[tokio::test]
async fn t10_nobody_is_moved_by_a_claim_alone() {
    let mut routed = Routed::new().await;
    routed.says(json!({"groups": ["acme-staff"]}));
    let before = routed.comes_in().await;
    routed.stage.scene.cookie = String::new();
    routed.says(json!({"groups": ["beta-staff"]}));
    let held = routed.is_held("moved").await;
    assert_eq!(held["belonged_to"], "acme");
    // What they had ended.
    routed.stage.scene.cookie = before;
    assert_eq!(routed.looks().await, StatusCode::SEE_OTHER);
    routed.nobody_is_in().await;
    assert!(routed.log(routed.acme).await.contains("access.person_held"));
    // Somebody says that it is right, and the other tenant has to take people who are assigned.
    let choice = json!({"decision": "assign", "tenant": routed.beta.0});
    assert_eq!(routed.decide(&held, choice).await.status, StatusCode::NO_CONTENT);
    routed.is_held("not_accepted").await;
    routed.accept(routed.beta, true).await;
    let answer = routed.stage.visit().await;
    assert!(answer.body.contains("You have no role here"), "{}", answer.body);
    assert!(routed.log(routed.beta).await.contains("access.person_assigned"));
    // What was decided holds for what was said then: the way back is another.
    routed.says(json!({"groups": ["acme-staff"]}));
    routed.is_held("moved").await;
    routed.says(json!({"groups": ["acme-staff", "beta-staff"]}));
    routed.is_held("several_tenants").await;
}

#[tokio::test]
async fn t10_a_rule_that_is_gone_ends_what_came_by_it() {
    let mut routed = Routed::new().await;
    routed.says(json!({"groups": ["acme-staff"]}));
    routed.comes_in().await;
    routed.route(None, &routed.usual()[1..]).await;
    assert_eq!(routed.looks().await, StatusCode::SEE_OTHER);
    routed.route(None, &routed.usual()).await;
    routed.comes_in().await;
    // The value leads elsewhere: nobody goes along.
    routed.route(None, &[("acme-staff", routed.beta.0)]).await;
    assert_eq!(routed.looks().await, StatusCode::SEE_OTHER);
    let log = routed.log(routed.acme).await;
    assert!(log.contains("access.routing_offered"), "{log}");
    // Without rules the connection is its own tenant's again, and a session that was routed belongs nowhere.
    routed.route(None, &routed.usual()).await;
    routed.comes_in().await;
    let gone = routed
        .call(
            routed.home(),
            Method::DELETE,
            "/connections/corp/routing",
            &json!({}),
        )
        .await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT, "{}", gone.body);
    assert_eq!(routed.looks().await, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn t10_the_first_tenant_alone_routes_and_its_rules_are_nobody_elses_to_see() {
    let routed = Routed::new().await;
    let own = routed
        .stage
        .scene
        .connect_in(routed.acme, "own", &routed.stage.idp.issuer)
        .await;
    let rules = json!({"rules": [{"value": "x", "tenant": routed.beta.0}]});
    let refused = routed
        .call(routed.acme, Method::PUT, "/connections/own/routing", &rules)
        .await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
    for (method, path) in [
        (Method::GET, "/connections/corp/routing".to_owned()),
        (Method::PUT, "/connections/corp/routing".to_owned()),
        (Method::DELETE, "/connections/corp/routing".to_owned()),
        (Method::DELETE, format!("/routed-connections/{own}")),
        (Method::PUT, format!("/self-enrollment/{}", uuid::Uuid::new_v4())),
    ] {
        let answer = routed.call(routed.acme, method.clone(), &path, &rules).await;
        assert!(
            answer.status.is_client_error(),
            "{method} {path}: {}",
            answer.body
        );
    }
    routed.says(json!({"groups": ["nobody"]}));
    let held = routed.is_held("no_rule").await;
    let others = routed
        .call(routed.acme, Method::GET, "/held-sign-ins", &json!({}))
        .await;
    assert_eq!(others.json()["items"], json!([]));
    let path = format!(
        "/held-sign-ins/{}/decide",
        held["reference"].as_str().expect("it is text")
    );
    let choice = json!({"decision": "assign", "tenant": routed.acme.0});
    let refused = routed.call(routed.acme, Method::POST, &path, &choice).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
    // Values that look the same, tenants that are none, and a revision that is not the newest are refused at entry.
    for rules in [
        json!([{"value": "x", "tenant": routed.acme.0}, {"value": "X", "tenant": routed.beta.0}]),
        json!([{"value": "x", "tenant": TenantId::from_uuid(uuid::Uuid::new_v4())}]),
    ] {
        let body = json!({"rules": rules});
        let refused = routed
            .call(routed.home(), Method::PUT, "/connections/corp/routing", &body)
            .await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.body);
    }
}

#[tokio::test]
async fn t10_whoever_comes_by_somebody_elses_connection_is_nobody_whom_an_own_one_knows() {
    let mut routed = Routed::new().await;
    // Acme has a connection to the same provider, by which its owner comes.
    let own = routed
        .stage
        .scene
        .connect_in(routed.acme, "own", &routed.stage.idp.issuer)
        .await;
    routed.says(json!({"groups": ["acme-staff"]}));
    let away = routed.stage.depart(&own, "next=%2Fdevices").await;
    routed.stage.arrive(&own, &away, "").await;
    let body = json!({"role": "owner", "person": "own/ada@example.com"});
    let granted = routed.call(routed.acme, Method::POST, "/grants", &body).await;
    assert!(granted.status.is_success(), "{}", granted.body);
    // The same issuer and subject by the operator's connection is another person, without those roles.
    routed.comes_in().await;
    assert_eq!(
        routed.sessions(routed.acme).await,
        ["routed:corp/ada@example.com"]
    );
    assert_eq!(
        routed.stage.scene.get("/access").await.status,
        StatusCode::FORBIDDEN
    );
}

#[tokio::test]
async fn t10_a_device_follows_its_person() {
    let routed = Routed::new().await;
    routed.says(json!({"groups": ["acme-staff"]}));
    // Nobody does before the tenant says so, whatever the first tenant says.
    routed.let_enroll(routed.home(), &json!({})).await;
    assert_eq!(routed.own_device().await.status, StatusCode::FORBIDDEN);
    routed
        .let_enroll(routed.acme, &json!({"devices_max": 2, "tokens_per_hour_max": 4}))
        .await;
    let page = routed.own_device().await;
    assert!(
        page.status == StatusCode::OK
            && page.body.contains("muster-agent enroll")
            && page.body.contains("acme"),
        "{}",
        page.body
    );
    assert!(page.cookie(SESSION_COOKIE).is_none(), "a token is no session");
    let token = routed.tokens(routed.acme).await[0].clone();
    assert_eq!(
        (
            &token["person"],
            &token["owner"],
            &token["ownership"],
            &token["device_uuid"]
        ),
        (
            &json!("routed:corp/ada@example.com"),
            &json!("routed:corp/ada@example.com"),
            &json!("personal"),
            &json!(DEVICE)
        )
    );
    assert!(routed.tokens(routed.home()).await.is_empty());
    assert_eq!(routed.enrolls().await.state, DeviceState::Active);

    // Somebody else moves before their device comes.
    let waits = async |why: &str| {
        let enrolled = routed.enrolls().await;
        assert_eq!(enrolled.state, DeviceState::Quarantined);
        let path = format!("/api/v1/devices/{}", enrolled.device);
        let shown = routed
            .stage
            .scene
            .in_tenant(routed.acme, Method::GET, &path, "")
            .await;
        assert!(shown.body.contains(why), "{}", shown.body);
    };
    let other = DEVICE.replace("4455", "4466");
    routed.says(json!({"sub": "0002", "preferred_username": "ben", "groups": ["acme-staff"]}));
    assert_eq!(routed.own_device_of(&other).await.status, StatusCode::OK);
    routed.says(json!({"sub": "0002", "preferred_username": "ben", "groups": ["beta-staff"]}));
    routed.is_held("moved").await;
    waits("moved or held meanwhile").await;
    assert_eq!(routed.own_device_of(&other).await.status, StatusCode::FORBIDDEN);

    // Disabled in the tenant: the device waits too.
    let third = DEVICE.replace("4455", "4477");
    routed.says(json!({"sub": "0003", "preferred_username": "cleo", "groups": ["acme-staff"]}));
    assert_eq!(routed.own_device_of(&third).await.status, StatusCode::OK);
    let body = json!({"person": "routed:corp/cleo"});
    let disabled = routed
        .call(routed.acme, Method::POST, "/people/disable", &body)
        .await;
    assert!(disabled.status.is_success(), "{}", disabled.body);
    waits("was disabled").await;

    // Limits of one person.
    routed.says(json!({"sub": "0004", "preferred_username": "dora", "groups": ["acme-staff"]}));
    for _ in 0..4 {
        assert_eq!(routed.own_device().await.status, StatusCode::OK);
    }
    let answer = routed.own_device().await;
    assert!(
        answer.status == StatusCode::FORBIDDEN && answer.body.contains("within an hour"),
        "{}",
        answer.body
    );
    assert!(routed.tokens(routed.beta).await.is_empty());
}

#[tokio::test]
async fn t10_whom_the_first_tenants_directory_says_goodbye_to_is_out_everywhere() {
    let mut routed = Routed::new().await;
    routed.let_enroll(routed.acme, &json!({})).await;
    routed.says(json!({"groups": ["acme-staff"]}));
    routed.comes_in().await;
    assert_eq!(routed.own_device().await.status, StatusCode::OK);
    let (app, home) = (routed.stage.scene.app.clone(), routed.home().0);
    let now = app.clock.now();
    audit::housekeeping(&app, Scope::Tenant(home.uuid()), move |tx| {
        access::bar(tx, home, "ada@example.com", now).map(drop)
    })
    .await
    .expect("it can be written");
    assert_eq!(routed.looks().await, StatusCode::SEE_OTHER);
    assert_eq!(routed.enrolls().await.state, DeviceState::Quarantined);
    routed.stage.scene.cookie = String::new();
    routed.is_held("inactive").await;
    routed.nobody_is_in().await;
    // Nobody lets them in by hand while they are gone, and nobody has to when they are back.
    audit::housekeeping(&app, Scope::Tenant(home.uuid()), move |tx| {
        access::unbar(tx, home, "ada@example.com")
    })
    .await
    .expect("it can be written");
    routed.comes_in().await;
}
