//! A client of HashiCorp Vault's HTTP API (<https://developer.hashicorp.com/vault/api-docs>): it proves who this process is, keeps its
//! token alive, and says in words of ours what Vault refused. Its texts hold no address, no token and no body.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Method, StatusCode, header::HeaderValue};
use serde_json::{Value, json};
use tokio::{
    sync::{Mutex, OnceCell},
    time::Instant,
};
use zeroize::Zeroizing;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For one request, from connecting to the last byte of the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const TOKEN_HEADER: &str = "x-vault-token";
const NAMESPACE_HEADER: &str = "x-vault-namespace";
/// A token is renewed when this part of its time is left.
const RENEWED_AT_PART: u32 = 3;
const SECRET_FILE_BYTES_MAX: u64 = 16 * 1024;

/// A Vault server.
#[derive(Debug, Clone)]
pub struct VaultSettings {
    /// Its origin, without a final slash.
    pub url: String,
    /// Where its transit engine is mounted.
    pub mount: String,
    /// Vault's namespace, where it has any.
    pub namespace: Option<String>,
    pub login: VaultLogin,
    /// The authority of its certificate (PEM), where the system does not know it.
    pub ca_file: Option<PathBuf>,
}

/// How this process proves to Vault who it is. All read their file again whenever Vault refuses.
#[derive(Debug, Clone)]
pub enum VaultLogin {
    /// A token that somebody else renews, such as Vault Agent.
    TokenFile(PathBuf),
    AppRole {
        role_id: String,
        secret_id_file: PathBuf,
    },
    /// The token of a Kubernetes service account.
    Kubernetes { role: String, token_file: PathBuf },
}

/// A refusal of Vault, in words for the log.
#[derive(Debug)]
pub struct Refused {
    pub why: String,
    pub retry_after_seconds: Option<u64>,
    /// What Vault answered, where it answered.
    pub status: Option<u16>,
}

impl Refused {
    /// Something that no answer of Vault said.
    pub fn new(why: impl Into<String>) -> Refused {
        Refused {
            why: why.into(),
            retry_after_seconds: None,
            status: None,
        }
    }

    /// Whether a fresh token might help.
    pub fn is_denied(&self) -> bool {
        self.status == Some(StatusCode::FORBIDDEN.as_u16())
    }

    pub fn is_unknown(&self) -> bool {
        self.status == Some(StatusCode::NOT_FOUND.as_u16())
    }
}

/// A token and when to renew it.
struct Held {
    token: Zeroizing<String>,
    renew_at: Option<Instant>,
}

/// The client.
pub struct VaultClient {
    settings: VaultSettings,
    http: OnceCell<reqwest::Client>,
    held: Mutex<Option<Held>>,
}

impl std::fmt::Debug for VaultClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VaultClient")
            .field("url", &self.settings.url)
            .finish_non_exhaustive()
    }
}

impl VaultClient {
    /// A client that has asked nothing yet.
    pub fn new(settings: VaultSettings) -> VaultClient {
        VaultClient {
            settings,
            http: OnceCell::new(),
            held: Mutex::new(None),
        }
    }

    pub fn settings(&self) -> &VaultSettings {
        &self.settings
    }

    /// Asks a path below `/v1/`, once more with a fresh token when the one at hand is refused.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Refused> {
        let (token, is_fresh) = self.token().await?;
        let first = self.request(method.clone(), path, body, Some(&token)).await;
        match first {
            Err(refusal) if refusal.is_denied() && !is_fresh => {
                *self.held.lock().await = None;
                let (token, _) = self.token().await?;
                self.request(method, path, body, Some(&token)).await
            }
            Err(refusal) if refusal.is_denied() => {
                *self.held.lock().await = None;
                Err(refusal)
            }
            other => other,
        }
    }

    /// Asks whether Vault is unsealed and active. It needs no token.
    pub async fn health(&self) -> Result<(), Refused> {
        self.request(
            Method::GET,
            "sys/health?standbyok=true&perfstandbyok=true",
            None,
            None,
        )
        .await
        .map(drop)
    }

    /// The token, and whether it was only just fetched. One whose time is nearly over is renewed first; where Vault does not
    /// renew it, this process logs in again.
    async fn token(&self) -> Result<(Zeroizing<String>, bool), Refused> {
        let mut held = self.held.lock().await;
        if let Some(found) = held.as_mut() {
            match found.renew_at {
                Some(at) if at <= Instant::now() => {
                    let token = found.token.clone();
                    let body = json!({});
                    let renewed = self
                        .request(Method::POST, "auth/token/renew-self", Some(&body), Some(&token))
                        .await;
                    if let Ok(answered) = renewed {
                        found.renew_at = renewal(&answered);
                        return Ok((token, false));
                    }
                    *held = None;
                }
                _ => return Ok((found.token.clone(), false)),
            }
        }
        let fresh = self.log_in().await?;
        let token = fresh.token.clone();
        *held = Some(fresh);
        Ok((token, true))
    }

    async fn log_in(&self) -> Result<Held, Refused> {
        let (path, body) = match &self.settings.login {
            VaultLogin::TokenFile(path) => {
                return Ok(Held {
                    token: secret_in(path).map_err(Refused::new)?,
                    renew_at: None,
                });
            }
            VaultLogin::AppRole {
                role_id,
                secret_id_file,
            } => {
                let secret_id = secret_in(secret_id_file).map_err(Refused::new)?;
                let body = json!({"role_id": role_id, "secret_id": secret_id.as_str()});
                ("auth/approle/login", body)
            }
            VaultLogin::Kubernetes { role, token_file } => {
                let jwt = secret_in(token_file).map_err(Refused::new)?;
                (
                    "auth/kubernetes/login",
                    json!({"role": role, "jwt": jwt.as_str()}),
                )
            }
        };
        let answered = self.request(Method::POST, path, Some(&body), None).await?;
        let token = answered["auth"]["client_token"]
            .as_str()
            .ok_or_else(|| Refused::new("the login was answered without a token"))?;
        Ok(Held {
            token: Zeroizing::new(token.to_owned()),
            renew_at: renewal(&answered),
        })
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        token: Option<&str>,
    ) -> Result<Value, Refused> {
        let http = self
            .http
            .get_or_try_init(async || client(self.settings.ca_file.as_deref()))
            .await?;
        let mut request = http.request(method, format!("{}/v1/{path}", self.settings.url));
        if let Some(namespace) = &self.settings.namespace {
            request = request.header(NAMESPACE_HEADER, namespace);
        }
        if let Some(token) = token {
            let mut value =
                HeaderValue::from_str(token).map_err(|_| Refused::new("the token is no token"))?;
            value.set_sensitive(true);
            request = request.header(TOKEN_HEADER, value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        // The address names the key, and an error's text must not name more: no URL, no body.
        let mut response = request.send().await.map_err(|error| broken(&error))?;
        let status = response.status();
        let mut bytes = Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|error| broken(&error))? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Refused::new("the answer is too large"));
            }
            bytes.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return match bytes.is_empty() {
                true => Ok(Value::Null),
                false => serde_json::from_slice(&bytes).map_err(|_| Refused::new("the answer is no JSON")),
            };
        }
        Err(Refused {
            why: format!("Vault answers {status}{}", hint(status)),
            retry_after_seconds: retry_after(&response),
            status: Some(status.as_u16()),
        })
    }
}

/// When a token is to be renewed; never where Vault does not let it end, or does not renew it.
fn renewal(answered: &Value) -> Option<Instant> {
    let auth = &answered["auth"];
    let seconds = auth["lease_duration"].as_u64().filter(|seconds| *seconds > 0)?;
    let life = Duration::from_secs(seconds.min(365 * 86_400));
    // One that is not renewable is fetched anew before it ends: the renewal is refused, and a login follows.
    Instant::now().checked_add(life - life / RENEWED_AT_PART)
}

fn client(ca_file: Option<&Path>) -> Result<reqwest::Client, Refused> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        // A token must not follow somebody's redirect to somewhere else.
        .redirect(reqwest::redirect::Policy::none());
    if let Some(path) = ca_file {
        let pem =
            std::fs::read(path).map_err(|error| Refused::new(format!("{}: {error}", path.display())))?;
        let authority = reqwest::Certificate::from_pem(&pem).map_err(|error| broken(&error))?;
        builder = builder.tls_certs_only([authority]);
    }
    builder.build().map_err(|error| broken(&error))
}

fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::SERVICE_UNAVAILABLE => ": it is sealed or a standby",
        StatusCode::FORBIDDEN => ": the token is over, or its policy does not allow this",
        StatusCode::NOT_FOUND => ": there is no such key, secret or mount",
        StatusCode::TOO_MANY_REQUESTS => ": its quota is used up",
        _ => "",
    }
}

fn retry_after(response: &reqwest::Response) -> Option<u64> {
    let value = response.headers().get(reqwest::header::RETRY_AFTER)?;
    value.to_str().ok()?.parse().ok()
}

fn broken(error: &reqwest::Error) -> Refused {
    Refused::new(if error.is_timeout() {
        "it did not answer in time"
    } else if error.is_connect() {
        "it cannot be reached"
    } else {
        "the exchange broke off"
    })
}

/// A short secret from a file, without the line end that editors add.
pub fn secret_in(path: &Path) -> Result<Zeroizing<String>, String> {
    use std::io::Read;
    let read = || -> std::io::Result<String> {
        let mut text = String::new();
        std::fs::File::open(path)?
            .take(SECRET_FILE_BYTES_MAX)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    let text = Zeroizing::new(read().map_err(|error| format!("{}: {error}", path.display()))?);
    let trimmed = text.trim_end_matches(['\r', '\n']);
    if trimmed.is_empty() {
        return Err(format!("{} is empty", path.display()));
    }
    Ok(Zeroizing::new(trimmed.to_owned()))
}
