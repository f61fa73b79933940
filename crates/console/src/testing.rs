//! A scene for tests: the whole admin listener over an application on a throwaway database, and a signed-in person.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Method, Request, Response, StatusCode, header},
};
use muster_channel_agent::telemetry::{Accounting, DeviceEvent, Series, TelemetryBatch};
use muster_control::{
    App, Clock, Control, MIGRATIONS, Settings,
    access::{self, Author, SESSION_COOKIE, VISIT_COOKIE, problem::Problem},
    audit,
    devices::{self, Admitted, Applicant},
    reconcile,
    secrets::Keyring,
    telemetry,
};
use muster_model::{
    ClientId, DeviceId, Platform, TenantId, Timestamp,
    telemetry::{Aggregate, EventKind, LabelValue, Metric, StreamId, Window},
};
use muster_storage::testing::TestDatabase;
use muster_trust::{
    entry::{Actor, ActorKind},
    key::{PublicKey, SigningKey},
    root::{ApprovalRules, Approver, RelyingParty, Role, RoleKeys, RootDocument},
};
use tempfile::TempDir;
use tokio::sync::watch;
use tower::ServiceExt;
use uuid::Uuid;

/// When a scene begins.
const START_SECONDS: i64 = 1_800_000_000;
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Text that must come out as text, whatever it looks like.
pub const HOSTILE: &str = "<script>alert(1)</script>\"'>{{7*7}}${7*7}%x%n#{7*7}";

pub struct Scene {
    pub app: App,
    pub tenant: TenantId,
    pub client: ClientId,
    pub router: Router,
    pub cookie: String,
    clock: Arc<AtomicI64>,
    database: TestDatabase,
    folder: TempDir,
    root_key: PathBuf,
}

/// A response that was read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: header::HeaderMap,
    pub body: String,
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is not ours looks at the machine's clock"
)]
fn now_seconds() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("it is later than 1970");
    i64::try_from(since.as_secs()).expect("it is a number of this time")
}

impl Answer {
    /// The value of a cookie that the answer sets.
    pub fn cookie(&self, name: &str) -> Option<String> {
        let lines = self.headers.get_all(header::SET_COOKIE).iter();
        let mut pairs = lines.filter_map(|line| line.to_str().ok()?.split(';').next()?.split_once('='));
        pairs
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value.to_owned())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    pub fn location(&self) -> &str {
        self.headers
            .get(header::LOCATION)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

impl Scene {
    /// A device measures something for a day, and says that something happened to it.
    pub async fn telemetry(&self, device: DeviceId) {
        let (stop, stopping) = watch::channel(false);
        let writing = tokio::spawn(telemetry::write_queued(Arc::clone(&self.app), stopping));
        let now = self.app.clock.now();
        let window = |(place, value): (i64, f64)| Window {
            start_seconds: now.as_unix_seconds() - 86_400 + place * 900,
            width_seconds: 900,
            aggregate: Aggregate::of(value),
        };
        let values = (0..96).map(|place| 0.5 + f64::from(place % 7) / 20.0);
        let series = |metric: Metric, label: Option<&str>| Series {
            metric: metric.into(),
            label: label.and_then(LabelValue::lenient),
            // An hour in which nothing was measured.
            windows: (0..)
                .zip(values.clone())
                .filter(|(place, _)| !(40..44).contains(place))
                .map(window)
                .collect(),
        };
        let batch = TelemetryBatch {
            epoch: 1,
            stream: StreamId::from_bytes([1; 16]).expect("a stream has a name"),
            sequence: 1,
            device_time: now,
            boot_id: None,
            series: vec![
                series(Metric::DiskUsed, Some("/")),
                series(Metric::DiskUsed, Some("/home")),
                series(Metric::BatteryLevel, None),
                series(Metric::Crashes, None),
            ],
            events: vec![DeviceEvent {
                number: 1,
                kind: EventKind::Tamper.into(),
                at: now,
                attributes: [("setting".to_owned(), HOSTILE.to_owned())].into(),
            }],
            spans: Vec::new(),
            accounting: Accounting::default(),
        };
        let room = telemetry::admit(&self.app, self.tenant, device, (1000, 100_000)).expect("there is room");
        let sender = telemetry::Sender {
            tenant: self.tenant,
            device,
            epoch: 1,
            clock_offset: Some(7_200_000_000),
        };
        let batch = telemetry::prepare(&sender, batch, now, self.app.settings.telemetry_retention_days);
        telemetry::write(&self.app, self.tenant, batch, room)
            .await
            .expect("it is taken");
        stop.send_replace(true);
        writing.await.expect("the writer ends");
    }

    /// A new install with a person who is signed in.
    pub async fn new() -> Scene {
        Scene::at("https://127.0.0.1:8440").await
    }

    /// A new install whose console is reached at this origin.
    pub async fn at(admin_url: &str) -> Scene {
        Scene::begun(admin_url, START_SECONDS).await
    }

    /// As `at`, at the time of the machine: for whatever talks to a program that looks at the clock.
    pub async fn at_now(admin_url: &str) -> Scene {
        Scene::begun(admin_url, now_seconds()).await
    }

    /// Moves the scene's clock to the machine's.
    pub fn catch_up(&self) {
        self.clock.store(now_seconds() * 1_000_000, Ordering::SeqCst);
    }

    async fn begun(admin_url: &str, start_seconds: i64) -> Scene {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let database = TestDatabase::sqlite(MIGRATIONS).await;
        let clock = Arc::new(AtomicI64::new(start_seconds * 1_000_000));
        let keys = Keyring::open(folder.path(), Timestamp::from_unix_seconds(start_seconds))
            .expect("keys can be made");
        let settings = Settings {
            admin_url: admin_url.to_owned(),
            device_url: "https://127.0.0.1:8443".to_owned(),
            ..Settings::default()
        };
        let app = Control::new(
            database.db().clone(),
            Clock::Fixed(Arc::clone(&clock)),
            keys,
            settings,
            "test".to_owned(),
        );
        let (tenant, client, root_key) = access::create_tenant(&app, "test", &folder.path().join("away"))
            .await
            .expect("a tenant can be made");
        let mut scene = Scene {
            router: crate::router(Arc::clone(&app)),
            tenant,
            client: client.id,
            app,
            cookie: String::new(),
            clock,
            database,
            folder,
            root_key,
        };
        scene.settle().await;
        scene.cookie = scene.sign_in("mara").await;
        scene.settle().await;
        scene
    }

    /// Makes and publishes the next root document, as whoever holds the root key does. The program starts anew.
    pub async fn change_root(&mut self, change: impl FnOnce(&mut RootDocument)) {
        let (tenant, now) = (self.tenant, self.app.clock.now());
        let keys = self.app.keys.tenant(tenant).expect("the tenant has keys");
        let (mut root, mut envelopes) = (keys.root.clone(), keys.root_documents.clone());
        root.version += 1;
        root.issued_at = now;
        change(&mut root);
        let text = std::fs::read_to_string(&self.root_key).expect("the root key is there");
        let key = SigningKey::from_pkcs8_pem(&text).expect("it is a key");
        envelopes.push(root.sign(&[&key]).expect("the document is valid"));
        let text = serde_json::to_string(&envelopes).expect("envelopes are JSON");
        let file = self
            .folder
            .path()
            .join(format!("keys/tenants/{tenant}/root.json"));
        std::fs::write(file, text).expect("it can be written");
        let keys = Keyring::open(self.folder.path(), now).expect("the keys are there");
        self.app = Control::new(
            self.database.db().clone(),
            Clock::Fixed(Arc::clone(&self.clock)),
            keys,
            self.app.settings.clone(),
            "test".to_owned(),
        );
        self.router = crate::router(Arc::clone(&self.app));
        self.settle().await;
    }

    /// Names a person with a key, who approves alone and at once.
    pub async fn name_approver(&mut self, person: &str, key: &PublicKey, passkey: Option<RelyingParty>) {
        let approver = Approver {
            person: person.parse().expect("it is a name"),
            accounts: std::collections::BTreeSet::default(),
            added_at: self.app.clock.now(),
            passkey,
        };
        self.change_root(|root| {
            root.approval = ApprovalRules {
                cool_down_seconds: 0,
                delay_seconds: 0,
                ..ApprovalRules::default()
            };
            root.keys.insert(key.key_id(), key.clone());
            root.approvers.insert(key.key_id(), approver);
            let keys = root.approvers.keys().copied().collect();
            root.roles.insert(Role::Approver, RoleKeys { keys, threshold: 1 });
        })
        .await;
    }

    /// A wipe of a device, asked by a program; answers the operation that waits for people.
    pub async fn ask_wipe(&self, device: DeviceId) -> String {
        let path = format!("/api/v1/devices/{device}/commands");
        let wipe = serde_json::json!({"type": "wipe", "mode": "full", "reason": HOSTILE});
        let asked = self.call(Method::POST, &path, &wipe.to_string()).await;
        assert_eq!(asked["state"], "awaiting_approval", "{asked}");
        let digits = asked["command_id"]
            .as_str()
            .and_then(|id| id.strip_prefix("cmd_"));
        let id = Uuid::parse_str(digits.expect("it is a command's")).expect("it is a UUID");
        self.settle().await;
        id.to_string()
    }

    /// A one-time link's secret.
    pub async fn link(&self, person: &str) -> String {
        self.link_by(&Author::system(self.tenant), person).await
    }

    async fn link_by(&self, author: &Author, person: &str) -> String {
        access::create_signin_link(&self.app, (author, &access::scope::every()), person, &[])
            .await
            .expect("a link can be made")
            .0
    }

    /// Signs in over the wire; answers the cookie.
    pub async fn sign_in(&self, person: &str) -> String {
        self.sign_in_with(self.link(person).await).await
    }

    /// Signs a person in by a link that somebody else made than made all the others; answers the cookie.
    pub async fn sign_in_through_another(&self, person: &str) -> String {
        let author = Author {
            actor: Actor {
                kind: ActorKind::Client,
                id: self.client.to_string(),
            },
            ..Author::system(self.tenant)
        };
        self.sign_in_with(self.link_by(&author, person).await).await
    }

    async fn sign_in_with(&self, secret: String) -> String {
        let answer = self
            .send(Method::POST, "/signin", &[], &format!("secret={secret}&next=%2F"))
            .await;
        assert_eq!(
            (answer.status, answer.location()),
            (StatusCode::SEE_OTHER, "/"),
            "{answer:?}"
        );
        let cookie = answer
            .headers
            .get(header::SET_COOKIE)
            .expect("a cookie is set")
            .to_str()
            .expect("it is text");
        cookie.split(';').next().expect("a cookie has a value").to_owned()
    }

    /// Gives every entry its place, as the sequencer does each second.
    pub async fn settle(&self) {
        reconcile::sequence_now(&self.app)
            .await
            .expect("entries can be sequenced");
    }

    pub fn pass_seconds(&self, seconds: i64) {
        self.clock.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }

    /// Loads a page as the signed-in person.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[("cookie", &self.cookie)], "")
            .await
    }

    /// Loads a page that must come.
    pub async fn page(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
        answer.body
    }

    /// Sends a form as the signed-in person, with the token of their session.
    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let csrf = self.csrf();
        let mut pairs = fields.to_vec();
        pairs.push(("csrf", &csrf));
        let body: Vec<String> = pairs
            .iter()
            .map(|(name, value)| format!("{name}={}", crate::session::encode(value)))
            .collect();
        self.send(
            Method::POST,
            path,
            &[("cookie", &self.cookie), ("sec-fetch-site", "same-origin")],
            &body.join("&"),
        )
        .await
    }

    /// The value that forms of the session carry.
    pub fn csrf(&self) -> String {
        // Of several, the last goes before the others.
        let newest = self.cookie.rsplit("; ").next().unwrap_or_default();
        let (name, secret) = newest.split_once('=').expect("a cookie has a name");
        assert!(
            [SESSION_COOKIE, VISIT_COOKIE].contains(&name),
            "it is a session's cookie"
        );
        muster_trust::key::sha256(format!("csrf:{secret}").as_bytes()).to_string()
    }

    /// The headers and bytes of a download.
    pub async fn raw(&self, path: &str) -> (header::HeaderMap, Vec<u8>) {
        let request = Request::builder()
            .uri(path)
            .header("cookie", &self.cookie)
            .body(Body::empty());
        let request = request.expect("the request is well-formed");
        let response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("the router always answers");
        let (parts, body) = response.into_parts();
        assert_eq!(parts.status, StatusCode::OK, "{path}");
        (
            parts.headers,
            to_bytes(body, BODY_BYTES_MAX)
                .await
                .expect("the body can be read")
                .to_vec(),
        )
    }

    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Body::from(body.to_owned()))
            .expect("the request is well-formed");
        let response: Response<Body> = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("the router always answers");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, BODY_BYTES_MAX)
            .await
            .expect("the body can be read");
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        }
    }

    /// A call of the API by a program that holds every scope.
    pub async fn call(&self, method: Method, path: &str, body: &str) -> serde_json::Value {
        let answer = self.try_call(method, path, body).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.body);
        serde_json::from_str(&answer.body).unwrap_or_default()
    }

    /// What a token of a service account is to be.
    pub fn issue<'a>(&self, client: ClientId, scope: &'a str) -> access::tokens::Issue<'a> {
        access::tokens::Issue {
            tenant: self.tenant,
            client,
            scope,
            via: None,
            cnf: None,
            seconds: access::tokens::ACCESS_TOKEN_SECONDS,
        }
    }

    /// As `call`, whatever the answer.
    pub async fn try_call(&self, method: Method, path: &str, body: &str) -> Answer {
        let now = self.app.clock.now();
        let every = access::scope::every();
        let (token, _) = access::tokens::issue_access(&self.app.keys, &self.issue(self.client, &every), now)
            .expect("a token can be issued");
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        self.send(method, path, &headers, body).await
    }

    /// A call of the API by a program that holds these scopes and no others.
    pub async fn ask(&self, scopes: &str, method: Method, path: &str, body: &str) -> Answer {
        self.ask_as(self.client, scopes, method, path, body).await
    }

    /// A call of the API with a token that something else gave.
    pub async fn with_token(&self, token: &str, method: Method, path: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        self.send(method, path, &[("authorization", &bearer)], "").await
    }

    /// As `with_token`, with a body of JSON.
    pub async fn with_body(&self, token: &str, method: Method, path: &str, body: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        self.send(method, path, &headers, body).await
    }

    /// A form that a program sends to the authorization server.
    pub async fn ask_oauth(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let encoded = |text: &str| crate::session::encode(text);
        let pairs = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", encoded(value)));
        let body = pairs.collect::<Vec<_>>().join("&");
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        self.send(Method::POST, path, &headers, &body).await
    }

    /// As `ask`, by another service account.
    pub async fn ask_as(
        &self,
        client: ClientId,
        scopes: &str,
        method: Method,
        path: &str,
        body: &str,
    ) -> Answer {
        let now = self.app.clock.now();
        let (token, _) = access::tokens::issue_access(&self.app.keys, &self.issue(client, scopes), now)
            .expect("a token can be issued");
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        self.send(method, path, &headers, body).await
    }

    /// Another tenant of the install, with its service account and somebody who is signed in to it.
    pub async fn second_tenant(&self) -> ((TenantId, ClientId), String) {
        self.another_tenant("second").await
    }

    /// As `second_tenant`, of this name.
    pub async fn another_tenant(&self, name: &str) -> ((TenantId, ClientId), String) {
        // The scene's tenant is the first by its time.
        self.pass_seconds(1);
        let away = self.folder.path().join(format!("away-{name}"));
        let (tenant, client, _) = access::create_tenant(&self.app, name, &away)
            .await
            .expect("a tenant can be made");
        let cookie = self
            .sign_in_with(self.link_by(&Author::system(tenant), "eve").await)
            .await;
        ((tenant, client.id), cookie)
    }

    /// Connects an identity provider in that tenant; answers the connection's id.
    pub async fn connect_in(&self, of: (TenantId, ClientId), name: &str, issuer: &str) -> String {
        let body = serde_json::json!({"definition": {"issuer": issuer, "client_id": "muster"}, "client_secret": "x"});
        let path = format!("/api/v1/access/connections/{name}");
        let made = self.call_in(of, Method::PUT, &path, &body.to_string()).await;
        made["id"].as_str().expect("it has an id").to_owned()
    }

    /// Calls the API as a service account of that tenant.
    pub async fn call_in(
        &self,
        of: (TenantId, ClientId),
        method: Method,
        path: &str,
        body: &str,
    ) -> serde_json::Value {
        self.in_tenant(of, method, path, body).await.json()
    }

    /// As `call_in`, whatever the answer.
    pub async fn in_tenant(
        &self,
        (tenant, client): (TenantId, ClientId),
        method: Method,
        path: &str,
        body: &str,
    ) -> Answer {
        let now = self.app.clock.now();
        let every = access::scope::every();
        let issue = access::tokens::Issue {
            tenant,
            ..self.issue(client, &every)
        };
        let (token, _) =
            access::tokens::issue_access(&self.app.keys, &issue, now).expect("a token can be issued");
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        self.send(method, path, &headers, body).await
    }

    /// A policy with a version and a running rollout; answers their ids.
    pub async fn rollout(&self, policy: &str, settings: &str) -> (String, String) {
        let named = serde_json::json!({"name": policy, "description": HOSTILE});
        let made = self
            .call(Method::POST, "/api/v1/policies", &named.to_string())
            .await;
        let id = made["id"].as_str().expect("it has an id").to_owned();
        let version = format!(r#"{{"version":"2026.05","settings":{settings}}}"#);
        self.call(Method::POST, &format!("/api/v1/policies/{id}/versions"), &version)
            .await;
        let begun = self
            .call(
                Method::POST,
                &format!("/api/v1/policies/{id}/activate"),
                r#"{"version":"2026.05","stages":[{"name":"full"}]}"#,
            )
            .await;
        self.settle().await;
        (id, begun["rollout_id"].as_str().expect("it has an id").to_owned())
    }

    /// A device with hostile names. The same serial twice is a collision.
    pub async fn device(&self, serial: &str) -> Admitted {
        let key = SigningKey::generate_p256().expect("a key can be made");
        let applicant = Applicant {
            serial: Some(serial.to_owned()),
            owner: Some(HOSTILE.to_owned()),
            model: Some(HOSTILE.to_owned()),
            vendor: Some(HOSTILE.to_owned()),
            agent_version: Some(HOSTILE.to_owned()),
            ..Applicant::unattested(Uuid::new_v4(), Platform::Linux, key.public().spki_der())
        };
        let tenant = self.tenant;
        let admitted = audit::commit(&self.app, &Author::system(tenant), move |tx| {
            let admission = devices::consider(tx, tenant, &applicant)?;
            devices::admit(tx, &applicant, admission)
        })
        .await
        .expect("the device is admitted");
        self.settle().await;
        admitted
    }

    /// The name of a device.
    pub async fn name(&self, device: DeviceId) -> String {
        let tenant = self.tenant;
        let scope = muster_storage::Scope::Tenant(tenant.uuid());
        let read = self.app.db.read(scope, move |tx| {
            Ok::<_, Problem>(devices::get(tx, tenant, device)?.name)
        });
        read.await.expect("the device is there")
    }
}
