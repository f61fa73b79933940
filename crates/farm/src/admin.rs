//! The part of the admin API that a farm needs: tokens for its devices, and commands for the load.

use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_model::{CommandState, Ownership};
use reqwest::{Certificate, Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::FarmError;
use crate::load::{OperationLife, RolloutCounts};

const CALL_TIME_MAX: Duration = Duration::from_secs(60);
/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// How often a call that may be repeated is tried.
const TRIES_MAX: u32 = 5;

/// `admin.json` of the server's data folder.
#[derive(Clone, Serialize, Deserialize)]
pub struct AdminFile {
    /// Origin of the admin listener.
    pub admin_url: String,
    /// Origin of the device listener.
    pub device_url: String,
    /// PEM file of the install's authority.
    pub ca_file: PathBuf,
    /// PEM file of the authorities of the admin listener, where they are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_ca_file: Option<PathBuf>,
    /// The tenant.
    pub tenant: String,
    /// The client's id.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: String,
}

impl std::fmt::Debug for AdminFile {
    /// The secret prints as `***`.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = formatter.debug_struct("AdminFile");
        shown
            .field("admin_url", &self.admin_url)
            .field("device_url", &self.device_url);
        shown.field("client_secret", &"***").finish_non_exhaustive()
    }
}

impl AdminFile {
    /// Reads the file. A relative `ca_file` is looked for beside it.
    pub fn read(path: &Path) -> Result<Self, FarmError> {
        let bytes = read_file(path)?;
        let mut file: Self = serde_json::from_slice(&bytes).map_err(|error| FarmError::Content {
            path: path.to_owned(),
            detail: error.to_string(),
        })?;
        if file.ca_file.is_relative()
            && let Some(folder) = path.parent()
            && folder.join(&file.ca_file).exists()
        {
            file.ca_file = folder.join(&file.ca_file);
        }
        Ok(file)
    }

    /// The authority's certificate, PEM.
    pub fn ca_pem(&self) -> Result<Vec<u8>, FarmError> {
        read_file(&self.ca_file)
    }

    /// The authorities that the admin listener's certificate must come from, PEM.
    pub fn admin_ca_pem(&self) -> Result<Vec<u8>, FarmError> {
        read_file(self.admin_ca_file.as_ref().unwrap_or(&self.ca_file))
    }
}

/// Reads a small file.
pub fn read_file(path: &Path) -> Result<Vec<u8>, FarmError> {
    use std::io::Read as _;
    let read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?
            .take(FILE_BYTES_MAX)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source| FarmError::File {
        path: path.to_owned(),
        source,
    })
}

/// A client of the admin API.
#[derive(Debug)]
pub struct Admin {
    http: reqwest::Client,
    file: AdminFile,
    token: Mutex<Option<String>>,
}

/// What telemetry takes up in the embedded store.
#[derive(Debug, Deserialize)]
pub struct StoreUsage {
    /// Batches that are not merged yet.
    pub waiting_batches: u64,
    /// By resolution, the finest first.
    pub levels: Vec<LevelUsage>,
}

/// Chunks of one resolution.
#[derive(Debug, Deserialize)]
pub struct LevelUsage {
    /// Their bytes.
    pub bytes: u64,
}

/// A bulk call that was accepted.
#[derive(Debug, Deserialize)]
pub struct Asked {
    /// Names the operation.
    pub operation_id: String,
    /// Devices of its list.
    pub commands: u64,
}

/// A command's life so far, as far as the load looks at it.
#[derive(Debug, Deserialize)]
pub struct CommandLife {
    /// Names the command.
    pub command_id: String,
    /// Where it is.
    pub state: String,
}

impl CommandLife {
    /// True once nothing more will happen to it.
    pub fn is_over(&self) -> bool {
        CommandState::parse(&self.state).is_some_and(CommandState::is_final)
    }
}

impl Admin {
    /// Prepares a client; nothing is sent yet.
    pub fn new(file: AdminFile) -> Result<Self, FarmError> {
        let admin = |error: reqwest::Error| FarmError::Admin(error.to_string());
        let anchors = Certificate::from_pem_bundle(&file.admin_ca_pem()?).map_err(admin)?;
        let http = reqwest::Client::builder()
            .tls_certs_only(anchors)
            .https_only(true)
            .no_proxy()
            .timeout(CALL_TIME_MAX)
            .build()
            .map_err(admin)?;
        Ok(Self {
            http,
            file,
            token: Mutex::new(None),
        })
    }

    /// Gets a first access token: wrong credentials and a wrong address show here.
    pub async fn sign_in(&self) -> Result<(), FarmError> {
        self.token().await.map(drop)
    }

    /// A one-time enrollment token for a device.
    pub async fn enrollment_token(
        &self,
        device_uuid: &str,
        serial: &str,
        owner: &str,
        ownership: Ownership,
    ) -> Result<String, FarmError> {
        #[derive(Deserialize)]
        struct Made {
            token: String,
        }
        let body = json!({"device_uuid": device_uuid, "serial": serial, "owner": owner, "ttl_seconds": 600,
            "ownership": ownership});
        let made: Made = self.call(Method::POST, "/enrollment-tokens", Some(&body)).await?;
        Ok(made.token)
    }

    /// Lets the tenant accept TPMs that this root (PEM) vouches for, besides everything else that it accepts by default.
    pub async fn trust_tpm_root(&self, root_pem: &str) -> Result<(), FarmError> {
        let body = json!({"policy": {"tpm": {"roots_pem": root_pem}}});
        self.call::<Value>(Method::PUT, "/enrollment-policy", Some(&body))
            .await
            .map(drop)
    }

    /// The ids of at most `count` active devices.
    pub async fn active_devices(&self, count: usize) -> Result<Vec<String>, FarmError> {
        #[derive(Deserialize)]
        struct Page {
            items: Vec<Device>,
            next_cursor: Option<String>,
        }
        #[derive(Deserialize)]
        struct Device {
            id: String,
        }
        let (mut ids, mut cursor) = (Vec::new(), String::new());
        while ids.len() < count {
            let page: Page = self
                .call(
                    Method::GET,
                    &format!("/devices?filter=state%3Aactive&limit=500{cursor}"),
                    None,
                )
                .await?;
            ids.extend(page.items.into_iter().map(|device| device.id));
            let Some(next) = page.next_cursor else { break };
            cursor = format!("&cursor={next}");
        }
        ids.truncate(count);
        Ok(ids)
    }

    /// Asks many devices for something.
    pub async fn bulk(&self, body: &Value) -> Result<Asked, FarmError> {
        self.call(Method::POST, "/commands", Some(body)).await
    }

    /// How far an operation is.
    pub async fn operation(&self, id: &str) -> Result<OperationLife, FarmError> {
        self.call(Method::GET, &format!("/operations/{id}"), None).await
    }

    /// Sends a command that changes nothing on a device that is not locked.
    pub async fn unlock(&self, device: &str) -> Result<CommandLife, FarmError> {
        self.call(
            Method::POST,
            &format!("/devices/{device}/commands"),
            Some(&json!({"type": "unlock"})),
        )
        .await
    }

    /// How far a command is.
    pub async fn command(&self, id: &str) -> Result<CommandLife, FarmError> {
        self.call(Method::GET, &format!("/commands/{id}"), None).await
    }

    /// Makes a policy and one version of it.
    pub async fn make_version(&self, policy: &str, version: &str, settings: &Value) -> Result<(), FarmError> {
        self.call::<Value>(Method::POST, "/policies", Some(&json!({"name": policy})))
            .await?;
        let body = json!({"version": version, "settings": settings});
        let path = format!("/policies/{policy}/versions");
        self.call::<Value>(Method::POST, &path, Some(&body))
            .await
            .map(drop)
    }

    /// Activates a version for every device in these stages; answers the rollout's id.
    pub async fn activate(&self, policy: &str, version: &str, stages: &Value) -> Result<String, FarmError> {
        #[derive(Deserialize)]
        struct Activated {
            rollout_id: String,
        }
        let body = json!({"version": version, "stages": stages});
        let path = format!("/policies/{policy}/activate");
        let activated: Activated = self.call(Method::POST, &path, Some(&body)).await?;
        Ok(activated.rollout_id)
    }

    /// How far a rollout is.
    pub async fn rollout(&self, id: &str) -> Result<RolloutCounts, FarmError> {
        self.call(Method::GET, &format!("/rollouts/{id}"), None).await
    }

    /// What telemetry takes up.
    pub async fn telemetry_usage(&self) -> Result<StoreUsage, FarmError> {
        self.call(Method::GET, "/telemetry/usage", None).await
    }

    /// Asks something and looks no further than at the status.
    pub async fn ask(&self, path: &str) -> Result<(), FarmError> {
        self.call::<Value>(Method::GET, path, None).await.map(drop)
    }

    /// One call of the API, with its answer as it is.
    pub async fn api(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, FarmError> {
        self.call(method, path, body).await
    }

    /// One SCIM request, which is not repeated; an answer without a body is null.
    pub async fn scim(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, FarmError> {
        let url = format!("{}/scim/v2{path}", self.file.admin_url);
        let mut request = self.http.request(method, &url).bearer_auth(self.token().await?);
        if let Some(body) = body {
            request = request.json(body);
        }
        let failed = |error: reqwest::Error| FarmError::Admin(root_cause(&error));
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        let text = response.bytes().await.map_err(failed)?;
        if !status.is_success() {
            let text = String::from_utf8_lossy(&text);
            return Err(FarmError::Admin(format!("{path} answered {status}: {text}")));
        }
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&text).map_err(|error| FarmError::Admin(error.to_string()))
    }

    /// One call; repeated with the same key where no answer came, and once with a fresh access token.
    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, FarmError> {
        let key = uuid::Uuid::new_v4().simple().to_string();
        let url = format!("{}/api/v1{path}", self.file.admin_url);
        let mut last = FarmError::Admin("it was not tried".to_owned());
        for attempt in 0..TRIES_MAX {
            let token = self.token().await?;
            let mut request = self.http.request(method.clone(), &url).bearer_auth(&token);
            if let Some(body) = body {
                request = request.json(body).header("Idempotency-Key", &key);
            }
            let response = match request.send().await {
                Ok(response) => response,
                Err(error) => {
                    last = FarmError::Admin(root_cause(&error));
                    tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
                    continue;
                }
            };
            let status = response.status();
            if status.is_success() {
                return response
                    .json()
                    .await
                    .map_err(|error| FarmError::Admin(root_cause(&error)));
            }
            let text = response.text().await.unwrap_or_default();
            last = FarmError::Admin(format!("{path} answered {status}: {text}"));
            match status {
                StatusCode::UNAUTHORIZED => *self.token.lock().await = None,
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                    tokio::time::sleep(Duration::from_millis(500 << attempt)).await;
                }
                _ => return Err(last),
            }
        }
        Err(last)
    }

    async fn token(&self) -> Result<String, FarmError> {
        #[derive(Deserialize)]
        struct Granted {
            access_token: String,
        }
        let mut held = self.token.lock().await;
        if let Some(token) = held.as_ref() {
            return Ok(token.clone());
        }
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &self.file.client_id),
            ("client_secret", &self.file.client_secret),
        ];
        let url = format!("{}/oauth2/token", self.file.admin_url);
        let answer = self.http.post(url).form(&form).send().await;
        let answer = answer.map_err(|error| FarmError::Admin(root_cause(&error)))?;
        let status = answer.status();
        if !status.is_success() {
            let text = answer.text().await.unwrap_or_default();
            return Err(FarmError::Admin(format!("signing in answered {status}: {text}")));
        }
        let granted: Granted = answer
            .json()
            .await
            .map_err(|error| FarmError::Admin(root_cause(&error)))?;
        *held = Some(granted.access_token.clone());
        Ok(granted.access_token)
    }
}

fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
