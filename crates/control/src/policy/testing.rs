//! A scene for tests: an application on a throwaway database, its routes on a real socket, a tenant, devices with keys.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use muster_model::{ClientId, DeviceId, TenantId, Timestamp, platform::Platform};
use muster_storage::{Database, FromValue, Scope, Statement, StorageError};
use muster_trust::key::SigningKey;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use uuid::Uuid;

use crate::{
    App, Clock, Control, Settings,
    access::{self, Author, problem::Problem, scope, tokens},
    alerts, audit, compliance, configuration,
    devices::{self, Applicant},
    policy, query, rollout,
    rollout::Reporter,
    secrets::Keyring,
    signals, sinks,
};

/// When a scene begins.
const START_SECONDS: i64 = 1_800_000_000;

pub struct Scene {
    pub app: App,
    pub tenant: TenantId,
    client: ClientId,
    address: std::net::SocketAddr,
    clock: Arc<AtomicI64>,
    _folder: TempDir,
}

/// A response as it came over the wire.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    pub fn code(&self) -> String {
        self.json()["code"]
            .as_str()
            .expect("a problem has a code")
            .to_owned()
    }
}

/// A device with its key.
pub struct TestDevice {
    pub id: DeviceId,
    pub key: SigningKey,
    pub reporter: Reporter,
}

impl Scene {
    pub async fn new(db: Database) -> Scene {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let clock = Arc::new(AtomicI64::new(START_SECONDS * 1_000_000));
        let now = Timestamp::from_unix_seconds(START_SECONDS);
        let keys = Keyring::open(folder.path(), now).expect("keys can be made");
        let settings = Settings::default();
        let app = Control::new(
            db,
            Clock::Fixed(Arc::clone(&clock)),
            keys,
            settings,
            "test".to_owned(),
        );
        let (tenant, client, _) = access::create_tenant(&app, "test", &folder.path().join("away"))
            .await
            .expect("a tenant can be made");
        let (routes, _) = policy::router()
            .merge(rollout::router())
            .merge(configuration::router())
            .merge(compliance::router())
            .merge(alerts::router())
            .merge(sinks::router())
            .merge(query::router())
            .merge(signals::router())
            .split_for_parts();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("the listener has an address");
        let service = routes.with_state(Arc::clone(&app));
        tokio::spawn(async move { axum::serve(listener, service).await });
        Scene {
            app,
            tenant,
            client: client.id,
            address,
            clock,
            _folder: folder,
        }
    }

    /// The same application as another tenant's client sees it.
    pub async fn beside(&self) -> Scene {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (tenant, client, _) = access::create_tenant(&self.app, "other", folder.path())
            .await
            .expect("a tenant can be made");
        Scene {
            app: Arc::clone(&self.app),
            tenant,
            client: client.id,
            address: self.address,
            clock: Arc::clone(&self.clock),
            _folder: folder,
        }
    }

    pub fn pass_seconds(&self, seconds: i64) {
        self.clock.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }

    pub fn storage(&self) -> Scope {
        Scope::Tenant(self.tenant.uuid())
    }

    /// Calls a route as a client that holds every scope.
    pub async fn call(&self, method: &str, path: &str, body: Option<&str>) -> Answer {
        self.call_with(method, path, &[], body).await
    }

    pub async fn call_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> Answer {
        let (token, _) = tokens::issue_access(
            &self.app.keys,
            &tokens::Issue {
                tenant: self.tenant,
                client: self.client,
                scope: &scope::every(),
                via: None,
                cnf: None,
                seconds: tokens::ACCESS_TOKEN_SECONDS,
            },
            self.app.clock.now(),
        )
        .expect("a token can be issued");
        let body = body.unwrap_or_default();
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        request.push_str(body);
        let mut stream = TcpStream::connect(self.address)
            .await
            .expect("the listener answers");
        stream
            .write_all(request.as_bytes())
            .await
            .expect("the request can be sent");
        let mut bytes = Vec::new();
        stream
            .read_to_end(&mut bytes)
            .await
            .expect("the response can be read");
        let end = bytes
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .expect("a response has a head");
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let status = head[9..12].parse().expect("a status line has a status");
        Answer {
            status,
            headers: head,
            body: bytes[end + 4..].to_vec(),
        }
    }

    /// Makes a policy and a version of it with these settings.
    pub async fn version(&self, policy: &str, version: &str, settings: &str) {
        let made = self
            .call("POST", "/policies", Some(&format!(r#"{{"name":"{policy}"}}"#)))
            .await;
        assert!(matches!(made.status, 201 | 409), "{made:?}");
        let body = format!(r#"{{"version":"{version}","settings":{settings}}}"#);
        let made = self
            .call("POST", &format!("/policies/{policy}/versions"), Some(&body))
            .await;
        assert_eq!(made.status, 201, "{made:?}");
    }

    /// Activates a version in one stage and answers the rollout's id.
    pub async fn activate(&self, policy: &str, version: &str) -> String {
        self.activate_in(policy, version, r#""stages":[{"name":"full"}]"#)
            .await
    }

    /// Activates a version with these further members of the request and answers the rollout's id.
    pub async fn activate_in(&self, policy: &str, version: &str, members: &str) -> String {
        let body = format!(r#"{{"version":"{version}",{members}}}"#);
        let answer = self
            .call("POST", &format!("/policies/{policy}/activate"), Some(&body))
            .await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.json()["rollout_id"]
            .as_str()
            .expect("it has an id")
            .to_owned()
    }

    pub async fn device(&self, platform: Platform) -> TestDevice {
        let key = SigningKey::generate_p256().expect("a key can be made");
        let applicant = Applicant::unattested(Uuid::new_v4(), platform, key.public().spki_der());
        let tenant = self.tenant;
        let admitted = audit::commit(&self.app, &Author::system(tenant), move |tx| {
            let admission = devices::consider(tx, tenant, &applicant)?;
            devices::admit(tx, &applicant, admission)
        })
        .await
        .expect("the device is admitted");
        let reporter = Reporter {
            tenant,
            device: admitted.id,
            epoch: admitted.epoch,
            stratum: Arc::new(devices::stratum(platform, None, None)),
            key: key.public().clone(),
        };
        TestDevice {
            id: admitted.id,
            key,
            reporter,
        }
    }

    /// How many log entries have this action.
    pub async fn entries(&self, action: &'static str) -> i64 {
        const ENTRIES: Statement = Statement {
            name: "TEST_ENTRIES",
            sql: "SELECT COUNT(*) FROM audit_entry WHERE tenant_id = $1 AND action = $2",
        };
        let tenant = self.tenant.uuid();
        self.app
            .db
            .read(self.storage(), move |tx| {
                tx.query_one(&ENTRIES, &[&tenant, &action], |row| row.get(0))
            })
            .await
            .expect("entries can be counted")
    }

    /// Does what an attacker with the database's password can do.
    pub async fn sql(&self, sql: &'static str) -> u64 {
        let statement = Statement {
            name: "TEST_SQL",
            sql,
        };
        let tenant = self.tenant.uuid();
        let changed: Result<u64, StorageError> = self
            .app
            .db
            .write(self.storage(), move |tx| tx.execute(&statement, &[&tenant]))
            .await;
        changed.expect("the statement runs")
    }

    /// The only value of a query over this tenant.
    pub async fn value<T: FromValue + Send + 'static>(&self, sql: &'static str) -> T {
        let statement = Statement {
            name: "TEST_VALUE",
            sql,
        };
        let tenant = self.tenant.uuid();
        let value: Result<T, Problem> = self
            .app
            .db
            .read(self.storage(), move |tx| {
                Ok(tx.query_one(&statement, &[&tenant], |row| row.get(0))?)
            })
            .await;
        value.expect("the query answers")
    }
}
