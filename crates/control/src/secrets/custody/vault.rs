//! A key of HashiCorp Vault's transit secrets engine, over its HTTP API
//! (<https://developer.hashicorp.com/vault/api-docs/secret/transit>).
//!
//! The version of the key is fixed when it is taken up, because rotating the key in Vault must not change what our
//! certificates were signed with.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};
use zeroize::Zeroizing;

use super::{VaultLogin, VaultSettings, secret_in};
use crate::secrets::der;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For one request, from connecting to the last byte of the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const TOKEN_HEADER: &str = "x-vault-token";

/// A refusal of Vault, in words for the log.
#[derive(Debug)]
pub struct Refused {
    pub why: String,
    pub retry_after_seconds: Option<u64>,
    /// Whether a fresh token might help.
    is_denied: bool,
    is_unknown: bool,
}

pub struct VaultKey {
    settings: Option<VaultSettings>,
    name: String,
    version: Option<u32>,
    client: OnceCell<reqwest::Client>,
    token: Mutex<Option<Zeroizing<String>>>,
}

impl VaultKey {
    pub fn new(settings: Option<VaultSettings>, name: String, version: Option<u32>) -> VaultKey {
        VaultKey {
            settings,
            name,
            version,
            client: OnceCell::new(),
            token: Mutex::new(None),
        }
    }

    /// Finds the key, or makes it, and answers its version and public point.
    pub async fn take_up(&self) -> Result<(u32, Vec<u8>), Refused> {
        let path = format!("keys/{}", self.name);
        let found = match self.ask(Method::GET, &path, None).await {
            Err(refused) if refused.is_unknown => {
                let kind =
                    json!({"type": "ecdsa-p256", "exportable": false, "allow_plaintext_backup": false});
                self.ask(Method::POST, &path, Some(kind)).await?;
                self.ask(Method::GET, &path, None).await?
            }
            other => other?,
        };
        let data = &found["data"];
        if data["type"] != "ecdsa-p256" {
            return Err(refused("the key is not of the type ecdsa-p256"));
        }
        if data["exportable"] == true || data["allow_plaintext_backup"] == true {
            return Err(refused(
                "the key can be taken out of Vault: make one that is not exportable",
            ));
        }
        let newest = data["latest_version"]
            .as_u64()
            .and_then(|version| u32::try_from(version).ok());
        let version = self
            .version
            .or(newest)
            .ok_or_else(|| refused("the key has no version"))?;
        let pem = data["keys"][version.to_string()]["public_key"].as_str();
        let point = pem
            .and_then(point_of)
            .ok_or_else(|| refused("the public key is not P-256"))?;
        Ok((version, point))
    }

    /// `ECDSA-Sig-Value` over a SHA-256 digest.
    pub async fn sign(&self, digest: &[u8]) -> Result<Vec<u8>, Refused> {
        let body = json!({
            "input": STANDARD.encode(digest),
            "prehashed": true,
            "marshaling_algorithm": "asn1",
            "key_version": self.version.unwrap_or(0),
        });
        let path = format!("sign/{}/sha2-256", self.name);
        let answered = self.ask(Method::POST, &path, Some(body)).await?;
        answered["data"]["signature"]
            .as_str()
            .and_then(|text| text.strip_prefix("vault:v")?.split_once(':'))
            .and_then(|(_, signature)| STANDARD.decode(signature).ok())
            .ok_or_else(|| refused("the answer holds no signature"))
    }

    /// Asks the transit engine, once more with a fresh token when the one at hand is refused.
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, Refused> {
        let settings = self
            .settings
            .as_ref()
            .ok_or_else(|| refused("the settings name no Vault server"))?;
        let path = format!("{}/{path}", settings.mount);
        let (token, is_fresh) = self.token(settings).await?;
        let first = self
            .request(settings, method.clone(), &path, body.as_ref(), Some(&token))
            .await;
        match first {
            Err(refusal) if refusal.is_denied && !is_fresh => {
                *self.token.lock().await = None;
                let (token, _) = self.token(settings).await?;
                self.request(settings, method, &path, body.as_ref(), Some(&token))
                    .await
            }
            Err(refusal) if refusal.is_denied => {
                *self.token.lock().await = None;
                Err(refusal)
            }
            other => other,
        }
    }

    /// The token, and whether it was only just fetched.
    async fn token(&self, settings: &VaultSettings) -> Result<(Zeroizing<String>, bool), Refused> {
        let mut held = self.token.lock().await;
        if let Some(token) = held.as_ref() {
            return Ok((token.clone(), false));
        }
        let token = match &settings.login {
            VaultLogin::TokenFile(path) => secret_in(path).map_err(refused)?,
            VaultLogin::AppRole {
                role_id,
                secret_id_file,
            } => {
                let secret_id = secret_in(secret_id_file).map_err(refused)?;
                let body = json!({"role_id": role_id, "secret_id": secret_id.as_str()});
                let answered = self
                    .request(settings, Method::POST, "auth/approle/login", Some(&body), None)
                    .await?;
                let token = answered["auth"]["client_token"].as_str();
                Zeroizing::new(
                    token
                        .ok_or_else(|| refused("the login was answered without a token"))?
                        .to_owned(),
                )
            }
        };
        *held = Some(token.clone());
        Ok((token, true))
    }

    async fn request(
        &self,
        settings: &VaultSettings,
        method: Method,
        path: &str,
        body: Option<&Value>,
        token: Option<&str>,
    ) -> Result<Value, Refused> {
        let client = self.client.get_or_try_init(async || client(settings)).await?;
        let mut request = client.request(method, format!("{}/v1/{path}", settings.url));
        if let Some(token) = token {
            let mut value = reqwest::header::HeaderValue::from_str(token)
                .map_err(|_| refused("the token is no token"))?;
            value.set_sensitive(true);
            request = request.header(TOKEN_HEADER, value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        // The address names the key, and an error's text must not name more: no URL, no body.
        let mut response = request.send().await.map_err(|error| broken(&error))?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| broken(&error))? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(refused("the answer is too large"));
            }
            bytes.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return match bytes.is_empty() {
                true => Ok(Value::Null),
                false => serde_json::from_slice(&bytes).map_err(|_| refused("the answer is no JSON")),
            };
        }
        Err(Refused {
            why: format!("Vault answers {status}{}", hint(status)),
            retry_after_seconds: retry_after(&response),
            is_denied: status == StatusCode::FORBIDDEN,
            is_unknown: status == StatusCode::NOT_FOUND,
        })
    }
}

fn client(settings: &VaultSettings) -> Result<reqwest::Client, Refused> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        // A token must not follow somebody's redirect to somewhere else.
        .redirect(reqwest::redirect::Policy::none());
    if let Some(path) = &settings.ca_file {
        let pem = std::fs::read(path).map_err(|error| refused(format!("{}: {error}", path.display())))?;
        let authority = reqwest::Certificate::from_pem(&pem).map_err(|error| broken(&error))?;
        builder = builder.tls_certs_only([authority]);
    }
    builder.build().map_err(|error| broken(&error))
}

fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::SERVICE_UNAVAILABLE => ": it is sealed or a standby",
        StatusCode::FORBIDDEN => ": the token is over, or its policy does not allow this",
        StatusCode::NOT_FOUND => ": no such key or mount",
        StatusCode::TOO_MANY_REQUESTS => ": its quota is used up",
        _ => "",
    }
}

fn retry_after(response: &reqwest::Response) -> Option<u64> {
    let value = response.headers().get(reqwest::header::RETRY_AFTER)?;
    value.to_str().ok()?.parse().ok()
}

fn point_of(pem: &str) -> Option<Vec<u8>> {
    let lines = pem.lines().filter(|line| !line.starts_with("-----"));
    let spki = STANDARD.decode(lines.map(str::trim).collect::<String>()).ok()?;
    der::p256_point(&spki).map(<[u8]>::to_vec)
}

fn broken(error: &reqwest::Error) -> Refused {
    refused(if error.is_timeout() {
        "it did not answer in time"
    } else if error.is_connect() {
        "it cannot be reached"
    } else {
        "the exchange broke off"
    })
}

fn refused(why: impl Into<String>) -> Refused {
    Refused {
        why: why.into(),
        retry_after_seconds: None,
        is_denied: false,
        is_unknown: false,
    }
}
