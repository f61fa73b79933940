//! One of everything in a tenant: what the isolation matrix crosses with another tenant's credentials.
//!
//! A *place* is a path of a route up to a placeholder, with it: `/api/v1/policies/{id}/versions/{version}`. Every place that is
//! in a route has an object here, and its first id is one that the route takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use muster_model::time::Timestamp;
use serde_json::{Value, json};

use super::{
    PATIENCE,
    api::{Api, answer},
    device::{Device, now},
    eventually,
    server::{AdminFile, Server},
};

/// What a sentence of a failed test tells to do about a place without an object.
pub const HOW_TO_FURNISH: &str = "make one object of it in `furnish` (crates/muster/tests/it/support/furnish.rs) and name its ids there \
     with `made.place(\"PLACE\", [ids])`; a placeholder that is no id of a tenant's object goes into `NO_IDS` beside it";

/// Placeholders that take words of this server's own, the same for every tenant, with one that is good.
pub const NO_IDS: &[(&str, &str)] = &[
    ("/api/v1/log/tile/{path}", "0/000"),
    (
        "/api/v1/policies/{id}/versions/{version}/compiled/{artifact}",
        "policy.mobileconfig",
    ),
    ("/alerts/{id}/{action}", "acknowledge"),
    ("/operations/{id}/{action}", "cancel"),
    ("/rollouts/{id}/{action}", "pause"),
    ("/assets/{name}", "console.css"),
    ("/errors/{code}", "not_found"),
    ("/runbooks/{name}", "certificate_expiry"),
    ("/scim/v2/ResourceTypes/{id}", "User"),
    (
        "/scim/v2/Schemas/{id}",
        "urn:ietf:params:scim:schemas:core:2.0:User",
    ),
];

/// One of everything, in one tenant.
pub struct Furnished {
    /// The ids of what is at each place, in every spelling; the first is the one that fills the placeholder.
    places: BTreeMap<String, Vec<String>>,
    pub device: Device,
    /// Where the tenant's source of signals takes messages, and what a sender shows there.
    pub signals: (String, String),
    /// A person's session of the console: its cookie and the value that its forms carry.
    pub session: (String, String),
}

fn text(value: &Value) -> String {
    value.as_str().expect("an id is text").to_owned()
}

/// After so many seconds.
fn later(seconds: u64) -> Timestamp {
    now().plus(Duration::from_secs(seconds))
}

/// Signs a person in by a link: the cookie, and what forms carry.
pub async fn sign_in(api: &Api, person: &str, role: &str) -> (String, String) {
    sign_in_by(api, &json!({"person": person, "roles": [role]})).await
}

/// As [`sign_in`], by a link as it is asked for.
pub async fn sign_in_by(api: &Api, link: &Value) -> (String, String) {
    let link = api.post("/console-links", link).await.expect(201);
    let url = text(&link["url"]);
    let (_, secret) = url.rsplit_once('#').expect("the secret is behind the #");
    let form = [("secret", secret), ("next", "/")];
    let signed_in = answer(api.http.post(format!("{}/signin", api.origin)).form(&form)).await;
    let cookie = signed_in.header("set-cookie");
    let cookie = cookie.split(';').next().expect("a cookie has a value").to_owned();
    let (_, secret) = cookie.split_once('=').expect("a cookie has a name");
    let csrf = muster_trust::key::sha256(format!("csrf:{secret}").as_bytes()).to_string();
    (cookie, csrf)
}

impl Furnished {
    /// The id that fills a placeholder, or a word that does.
    pub fn of(&self, place: &str) -> Result<String, String> {
        let word = NO_IDS
            .iter()
            .find(|(named, _)| *named == place)
            .map(|(_, word)| (*word).to_owned());
        let id = || self.places.get(&Furnished::canonical(place))?.first().cloned();
        word.or_else(id).ok_or_else(|| {
            format!(
                "nothing is furnished for {place}: {}",
                HOW_TO_FURNISH.replace("PLACE", place)
            )
        })
    }

    /// Every kind with every spelling of its ids, each once.
    pub fn ids(&self) -> Vec<(&str, &str)> {
        let every = self
            .places
            .iter()
            .flat_map(|(place, ids)| ids.iter().map(move |id| (place.as_str(), id.as_str())));
        let mut known = BTreeSet::new();
        every.filter(|(_, id)| known.insert(*id)).collect()
    }

    /// The kind that is at a place with every spelling of its ids.
    pub fn ids_of(&self, place: &str) -> Vec<(&str, &str)> {
        let found = self.places.get_key_value(&Furnished::canonical(place));
        found
            .into_iter()
            .flat_map(|(place, ids)| ids.iter().map(move |id| (place.as_str(), id.as_str())))
            .collect()
    }

    /// Every kind with the first spelling of its ids, each once.
    pub fn kinds(&self) -> Vec<(&str, &str)> {
        let every = self
            .places
            .iter()
            .filter_map(|(place, ids)| Some((place.as_str(), ids.first()?.as_str())));
        let mut known = BTreeSet::new();
        every.filter(|(_, id)| known.insert(*id)).collect()
    }

    /// Pages are at the addresses of what they show.
    fn canonical(place: &str) -> String {
        const PAGES: &[(&str, &str)] = &[
            ("/scim/v2/Users/", "/api/v1/users/"),
            ("/scim/v2/Groups/", "/api/v1/user-groups/"),
            ("/users/groups/", "/api/v1/user-groups/"),
            ("/alerts/deliveries/", "/api/v1/alert-deliveries/"),
            ("/alerts/destinations/", "/api/v1/alert-destinations/"),
            ("/alerts/silences/", "/api/v1/alert-silences/"),
            ("/query/saved/", "/api/v1/queries/"),
            ("/query/refreshes/", "/api/v1/query-refreshes/"),
            ("/auth/oidc/", "/api/v1/access/connections/oidc/"),
            ("/auth/saml/", "/api/v1/access/connections/saml/"),
        ];
        let page = PAGES
            .iter()
            .find_map(|(page, api)| Some(format!("{api}{}", place.strip_prefix(page)?)));
        page.unwrap_or_else(|| {
            let own = ["/api/", "/agent/", "/acme/", "/signals/", "/.well-known/"];
            if own.iter().any(|start| place.starts_with(start)) {
                place.to_owned()
            } else {
                format!("/api/v1{place}")
            }
        })
    }

    fn place(&mut self, place: &str, ids: impl IntoIterator<Item = String>) {
        self.places.insert(place.to_owned(), ids.into_iter().collect());
    }
}

/// Makes one of everything in the tenant of this client; names begin with `name`, which tells whose a thing is.
pub async fn furnish(server: &Server, api: &Api, admin: &AdminFile, name: &str) -> Furnished {
    let device = Device::enroll(api, admin).await;
    let session = sign_in(api, &format!("{name}-person"), "owner").await;
    let mut made = Furnished {
        places: BTreeMap::new(),
        device,
        signals: Default::default(),
        session,
    };
    made.policy_and_rollout(api, name).await;
    made.devices_and_commands(api, name).await;
    made.access(api, name).await;
    made.connections(api, name).await;
    made.alerts(api, name).await;
    made.outward(api, name).await;
    made.directory(api, name).await;
    made.questions(server, api, admin, name).await;
    made.rest(server, api, admin, name).await;
    made
}

impl Furnished {
    async fn policy_and_rollout(&mut self, api: &Api, name: &str) {
        let policy = api.post("/policies", &json!({"name": name})).await.expect(201);
        // The name of the version says whose it is.
        let version = format!("{name}.1");
        let body = json!({"version": version, "settings": {"firewall.enabled": true}});
        let stored = api
            .post(&format!("/policies/{name}/versions"), &body)
            .await
            .expect(201);
        // Nobody but a device that is not there: the rollout ends by itself, and moves nothing afterwards.
        let body = json!({"version": version, "target": {"platforms": ["windows"]}});
        let rollout = api
            .post(&format!("/policies/{name}/activate"), &body)
            .await
            .expect(202);
        let path = format!("/rollouts/{}", text(&rollout["rollout_id"]));
        eventually("the rollout is completed", PATIENCE, async || {
            (api.get(&path).await.ok()["state"] == "completed").then_some(())
        })
        .await;
        let id = text(&policy["id"]);
        self.place("/api/v1/policies/{id}", [id.clone(), name.to_owned()]);
        self.place("/api/v1/compliance/rules/{policy}", [id, name.to_owned()]);
        self.place("/api/v1/policies/{id}/versions/{version}", [version]);
        self.place("/api/v1/rollouts/{id}", [text(&rollout["rollout_id"])]);
        self.place("/agent/v1/bundles/{sha256}", [text(&stored["sha256"])]);
    }

    async fn devices_and_commands(&mut self, api: &Api, name: &str) {
        let id = self.device.id();
        let lock = json!({"type": "lock"});
        let lock = api
            .post(&format!("/devices/{id}/commands"), &lock)
            .await
            .expect(202);
        let wipe = json!({"type": "wipe", "mode": "full", "devices": [id]});
        let operation = api.post("/commands", &wipe).await.expect(202);
        let group = json!({"name": format!("{name}-group"), "include": "true"});
        let group = api.post("/groups", &group).await.expect(201);
        eventually("the group is evaluated", PATIENCE, async || {
            let group = api.get(&format!("/groups/{name}-group")).await.ok();
            (group["state"] == "ready" && group["members"] == 1).then_some(())
        })
        .await;
        let shown = api.get(&format!("/devices/{id}")).await.ok();
        let certificates = api.get(&format!("/devices/{id}/certificates")).await.ok();
        let script =
            json!({"name": format!("{name}-script"), "interpreter": "sh", "text": format!("echo {name}")});
        let script = api.post("/scripts", &script).await.expect(201);
        let uuid = self.device.applicant.device_uuid.to_string();
        self.place(
            "/api/v1/devices/{id}",
            [id, uuid, text(&shown["name"]), text(&shown["serial"])],
        );
        self.place(
            "/api/v1/devices/{id}/certificates/{serial}",
            [text(&certificates["items"][0]["serial"])],
        );
        self.place("/api/v1/commands/{id}", [text(&lock["command_id"])]);
        self.place("/agent/v1/commands/{id}", [text(&lock["command_id"])]);
        self.place("/api/v1/operations/{id}", [text(&operation["operation_id"])]);
        self.place(
            "/api/v1/groups/{id}",
            [text(&group["id"]), format!("{name}-group")],
        );
        self.place("/api/v1/scripts/{sha256}", [text(&script["sha256"])]);
    }

    async fn access(&mut self, api: &Api, name: &str) {
        let helper = json!({"name": format!("{name}-helper"), "scopes": ["log:read"]});
        let client = text(&api.post("/clients", &helper).await.expect(201)["client_id"]);
        let spki = self.device.applicant.spki();
        let (x, y) = spki[spki.len() - 64..].split_at(32);
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)});
        let key = api
            .post(&format!("/clients/{client}/keys"), &json!({"jwk": jwk}))
            .await
            .expect(201);
        let trust = json!({"definition": {"workload": {
            "issuer": format!("https://{name}.example"), "audience": "muster", "client_id": client,
            "scopes": ["log:read"], "conditions": [{"claim": "sub", "equals": "build"}],
        }}});
        api.put(&format!("/trusts/{name}-trust"), &trust).await.ok();
        let role = json!({"description": "reads the log", "scopes": ["log:read"]});
        api.put(&format!("/access/roles/{name}-role"), &role).await.ok();
        let grant = json!({"role": format!("{name}-role"), "client": client});
        api.post("/access/grants", &grant).await.ok();
        let sessions = api
            .get(&format!("/access/sessions?person={name}-person"))
            .await
            .ok();
        let token = json!({"connector": format!("{name}-provider")});
        let token = api.post("/scim-tokens", &token).await.expect(201);
        self.place("/api/v1/clients/{id}", [client, format!("{name}-helper")]);
        self.place("/api/v1/clients/{id}/keys/{key}", [text(&key["thumbprint"])]);
        self.place("/api/v1/trusts/{name}", [format!("{name}-trust")]);
        self.place("/api/v1/access/roles/{name}", [format!("{name}-role")]);
        self.place(
            "/api/v1/access/sessions/{id}",
            [text(&sessions["items"][0]["id"]), format!("{name}-person")],
        );
        self.place(
            "/api/v1/scim-tokens/{id}",
            [text(&token["id"]), format!("{name}-provider")],
        );
    }

    async fn connections(&mut self, api: &Api, name: &str) {
        let path = |kind: &str| format!("/access/connections/{name}-{kind}");
        let oidc = json!({"issuer": format!("https://{name}.example"), "client_id": name});
        let oidc = json!({"definition": oidc, "client_secret": "not-a-secret"});
        let oidc = api.put(&path("oidc"), &oidc).await.ok();
        let pair = rcgen::generate_simple_self_signed([format!("{name}.example")]);
        let certificate = STANDARD.encode(pair.expect("a certificate can be made").cert.der());
        let saml = json!({"definition": {
            "kind": "saml", "entity_id": format!("https://{name}.example/saml"),
            "sso_url": format!("https://{name}.example/sso"), "slo_url": format!("https://{name}.example/slo"),
            "certificates": [certificate],
        }});
        let saml = api.put(&path("saml"), &saml).await.ok();
        let names = ["oidc", "saml"].map(|kind| format!("{name}-{kind}"));
        self.place("/api/v1/access/connections/{name}", names);
        self.place("/api/v1/access/connections/oidc/{id}", [text(&oidc["id"])]);
        self.place("/api/v1/access/connections/saml/{id}", [text(&saml["id"])]);
    }

    async fn alerts(&mut self, api: &Api, name: &str) {
        let silence = json!({
            "matcher": {"object": format!("{name}-*")}, "reason": "moving",
            "starts_at": "2098-12-31T00:00:00Z", "ends_at": "2099-01-01T00:00:00Z",
        });
        let silence = api.post("/alert-silences", &silence).await.expect(201);
        let hook = json!({
            "place": {"kind": "webhook", "url": "https://192.0.2.1/hook"},
            "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        });
        api.put(&format!("/alert-destinations/{name}-hook"), &hook)
            .await
            .ok();
        let tested = api
            .post(&format!("/alert-destinations/{name}-hook/test"), &json!({}))
            .await
            .expect(202);
        let rule = json!({"title": name, "severity": "warning", "when": {"expression": "policy_violation_increase_24h > 999999%"}});
        api.put(&format!("/alert-rules/{name}_rule"), &rule).await.ok();
        let expiry = json!({"expires_at": later(86_400).to_string()});
        api.put(&format!("/expiries/{name}-expiry"), &expiry).await.ok();
        let alert = eventually("the alert of what expires", PATIENCE, async || {
            let alerts = api.list("/alerts?state=all").await;
            alerts.into_iter().find(|alert| alert.to_string().contains(name))
        })
        .await;
        self.place("/api/v1/alerts/{id}", [text(&alert["id"])]);
        self.place("/api/v1/alert-silences/{id}", [text(&silence["id"])]);
        self.place("/api/v1/alert-destinations/{name}", [format!("{name}-hook")]);
        self.place("/api/v1/alert-deliveries/{id}", [text(&tested["items"][0]["id"])]);
        self.place("/api/v1/alert-rules/{name}", [format!("{name}_rule")]);
        self.place("/api/v1/expiries/{name}", [format!("{name}-expiry")]);
    }

    async fn outward(&mut self, api: &Api, name: &str) {
        let sink = json!({
            "place": {"kind": "elastic", "url": "https://192.0.2.1:9200"},
            "secret": "VnVhQ2ZHY0JDZGJrUW0=",
        });
        api.put(&format!("/sinks/{name}-siem"), &sink).await.ok();
        // It would count its tries for as long as the test runs.
        let why = json!({"reason": "nobody listens"});
        api.post(&format!("/sinks/{name}-siem/pause"), &why).await.ok();
        eventually("the alert of the sink", PATIENCE, async || {
            let alerts = api.list("/alerts?state=all").await;
            let is_of_sink = |alert: &Value| alert["rule"] == "sink_changed";
            alerts.iter().any(is_of_sink).then_some(())
        })
        .await;
        let source = json!({"from": {"kind": "webhook", "authentication": "bearer"}});
        let source = api
            .put(&format!("/signal-sources/{name}_edr"), &source)
            .await
            .ok();
        let secret = api
            .post(&format!("/signal-sources/{name}_edr/secret"), &json!({}))
            .await
            .ok();
        self.signals = (text(&source["address"]), text(&secret["secret"]));
        let said = json!({"device": self.device.id(), "verdict": "fail"});
        let message = api.http.post(&self.signals.0).bearer_auth(&self.signals.1);
        answer(message.json(&said)).await.expect(202);
        let (_, id) = self.signals.0.rsplit_once('/').expect("an address has a path");
        self.place("/signals/in/{source}", [id.to_owned()]);
        self.place("/api/v1/signal-sources/{name}", [format!("{name}_edr")]);
        self.place("/api/v1/sinks/{name}", [format!("{name}-siem")]);
    }

    async fn directory(&mut self, api: &Api, name: &str) {
        // The service account holds every scope, so it may be an identity provider too.
        let scim = async |path: &str, body: Value| {
            let request = api.http.post(format!("{}/scim/v2{path}", api.origin));
            answer(request.bearer_auth(&api.token).json(&body))
                .await
                .expect(201)
        };
        let urn = |kind: &str| format!("urn:ietf:params:scim:schemas:core:2.0:{kind}");
        let person = json!({"schemas": [urn("User")], "userName": format!("{name}@example.com")});
        let person = scim("/Users", person).await;
        let team = json!({
            "schemas": [urn("Group")], "displayName": format!("{name}-people"), "members": [{"value": person["id"]}],
        });
        let team = scim("/Groups", team).await;
        self.place(
            "/api/v1/users/{id}",
            [text(&person["id"]), format!("{name}@example.com")],
        );
        self.place(
            "/api/v1/user-groups/{id}",
            [text(&team["id"]), format!("{name}-people")],
        );
    }

    async fn questions(&mut self, server: &Server, api: &Api, admin: &AdminFile, name: &str) {
        let question = json!({"question": "SELECT device_id FROM devices"});
        let asked_daily = json!({"question": question["question"], "schedule": {"daily_at": "06:30"}});
        api.put(&format!("/queries/{name}-query"), &asked_daily)
            .await
            .ok();
        // Nobody answers, and nobody gives up while the test runs.
        let asked = json!({"question": question["question"], "deadline_seconds": 3600});
        let refresh = api.post("/query-refreshes", &asked).await.expect(202);
        // Nobody waits for half past six.
        let store = server.store().await;
        let tenant = store.id(&admin.tenant);
        let now = format!("UPDATE query_saved SET next_run_at = 1 WHERE tenant_id = {tenant}");
        assert_eq!(store.execute(&now).await, 1);
        let run = eventually("the question is asked by itself", PATIENCE, async || {
            let runs = api.get(&format!("/queries/{name}-query/runs")).await.ok();
            runs["items"][0]["id"].as_str().map(ToOwned::to_owned)
        })
        .await;
        self.place("/api/v1/queries/{name}", [format!("{name}-query")]);
        self.place("/api/v1/queries/{name}/runs/{run}", [run]);
        self.place("/api/v1/query-refreshes/{id}", [text(&refresh["id"])]);
    }

    /// What is in no path of the API, or only on pages, and is an id of the tenant all the same.
    async fn rest(&mut self, server: &Server, api: &Api, admin: &AdminFile, name: &str) {
        let secrets = api.get("/secrets").await.ok();
        let secrets = secrets["items"].as_array().expect("a list").iter();
        let secrets = secrets.filter_map(|secret| secret["name"].as_str());
        let client = self.of("/api/v1/clients/{id}").expect("it is made");
        let own: Vec<String> = secrets
            .filter(|secret| secret.contains(name) || secret.contains(&client))
            .map(ToOwned::to_owned)
            .collect();
        self.place("/api/v1/secrets/{name}", own);
        self.place(
            "/api/v1/compliance/rules/{policy}/{subject}",
            ["firewall.enabled".to_owned()],
        );
        let entries = api.list("/log/entries?limit=500").await;
        let entry = entries.last().expect("the log has entries");
        self.place("/api/v1/log/{entry}", [text(&entry["id"])]);
        let token = json!({"device_uuid": uuid::Uuid::new_v4()});
        let token = api.post("/enrollment-tokens", &token).await.expect(201);
        self.place("an enrollment token", [text(&token["id"])]);
        self.place("/api/v1/tenants/{id}", [admin.tenant.clone()]);
        let connection = self.of("/auth/oidc/{id}").expect("it is made");
        // Nobody is routed here: these are what a tenant has that could be, by its own id of it.
        self.place("/api/v1/access/self-enrollment/{id}", [connection.clone()]);
        self.place("/api/v1/access/routed-connections/{id}", [connection]);
        let held = self.of("/api/v1/operations/{id}").expect("it is made");
        self.place("/api/v1/access/held-sign-ins/{reference}", [held]);
        self.place("/signals/{tenant}", [admin.tenant.clone()]);
        self.place("/acme/{tenant}", [admin.tenant.clone()]);
        self.place(
            "/.well-known/ssf-configuration/signals/{tenant}",
            [admin.tenant.clone()],
        );
        // A passkey is made by a browser; here one that a person made is put where it would be.
        let store = server.store().await;
        let key = muster_trust::key::sha256(name.as_bytes());
        let sql = format!(
            "INSERT INTO access_passkey (tenant_id, key_id, credential_id, public_key, actor, name, relying_party, origin, \
             created_at) VALUES ({}, {}, {}, {}, '{name}-person', '{name} key', 'localhost', 'https://localhost', 1)",
            store.id(&admin.tenant),
            store.blob(&key.0),
            store.blob(name.as_bytes()),
            store.blob(&self.device.applicant.spki()),
        );
        assert_eq!(store.execute(&sql).await, 1);
        self.place("/api/v1/passkeys/{key}", [key.to_string()]);
        // Nobody visits here: a request of a person of the tenant to itself, which no call would take.
        let visit = format!("vis_{}", uuid::Uuid::new_v4().simple());
        let (id, tenant) = (store.id(&visit), store.id(&admin.tenant));
        let sql = format!(
            "INSERT INTO access_visit (tenant_id, visit_id, home, person, display_name, account, actor, role, minutes, reason, \
             state, asked_at, answer_by, changes) VALUES ({tenant}, {id}, {tenant}, '{name}-person', '', 'user:{name}-person', \
             '{name}-person (visit {visit})', 'read_only', 5, '{name}', 'requested', 1, {}, 0)",
            later(86_400).as_micros(),
        );
        assert_eq!(store.execute(&sql).await, 1);
        self.place("/api/v1/visits/{id}", [visit.clone()]);
        self.place("/api/v1/operator-visits/{id}", [visit]);
    }
}
