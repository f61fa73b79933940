//! Azure Key Vault's secrets (<https://learn.microsoft.com/rest/api/keyvault/secrets>), with a client secret or a federated token
//! (workload identity) at Microsoft Entra.
//!
//! Key Vault has no check-and-set: the newest version is compared before a write, and the lease of the rotation is what keeps two
//! nodes apart.

use std::{path::Path, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use muster_control::secrets::{SecretStore, SecretText, StoreError, secret_in};
use reqwest::{Client, Method, StatusCode, header::HeaderValue};
use serde_json::{Value, json};
use tokio::{sync::Mutex, time::Instant};
use url::Url;

use super::{
    SecretStoreError,
    exchange::{self, Answer},
    is_path, variable,
};

const API_VERSION: &str = "7.4";
const AUTHORITY: &str = "https://login.microsoftonline.com";
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// What names of our secrets begin with, unless the URL has a path.
const PREFIX: &str = "muster";
/// A token is fetched anew this long before it ends.
const TOKEN_SLACK: Duration = Duration::from_secs(300);

enum Login {
    Secret(SecretText),
    /// The file of a token that Kubernetes or another issuer renews.
    Federated(std::path::PathBuf),
}

pub struct Azure {
    http: Client,
    vault: Url,
    prefix: String,
    place: String,
    token_url: String,
    client_id: String,
    scope: String,
    login: Login,
    token: Mutex<Option<(SecretText, Instant)>>,
}

impl std::fmt::Debug for Azure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Azure")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Azure {
    /// The vault at `https://NAME.vault.azure.net`; a path is what names of secrets begin with. Credentials are the variables
    /// that Azure's own libraries read.
    pub fn new(
        url: &str,
        environment: &[(String, String)],
        ca_file: Option<&Path>,
    ) -> Result<Azure, SecretStoreError> {
        let place = format!("azure:{url}");
        let unknown = || SecretStoreError::Unknown(place.clone());
        let vault = Url::parse(url).map_err(|_| unknown())?;
        let host = vault.host_str().ok_or_else(unknown)?.to_owned();
        let prefix = match vault.path().trim_matches('/') {
            "" => PREFIX.to_owned(),
            path if is_path(path) && !path.contains(['/', '_']) => path.to_owned(),
            _ => return Err(unknown()),
        };
        let is_plain = vault.scheme() == "https"
            && vault.username().is_empty()
            && vault.password().is_none()
            && vault.query().is_none()
            && vault.fragment().is_none();
        if !is_plain {
            return Err(unknown());
        }
        let need = |name: &str| {
            variable(environment, name).map(str::to_owned).ok_or_else(|| {
                SecretStoreError::Settings(format!("Azure Key Vault needs the variable {name}"))
            })
        };
        let login = match (
            variable(environment, "AZURE_FEDERATED_TOKEN_FILE"),
            variable(environment, "AZURE_CLIENT_SECRET"),
        ) {
            (Some(file), _) => Login::Federated(file.into()),
            (None, Some(secret)) => Login::Secret(SecretText::new(secret.to_owned())),
            (None, None) => {
                let why = "Azure Key Vault needs AZURE_CLIENT_SECRET or AZURE_FEDERATED_TOKEN_FILE";
                return Err(SecretStoreError::Settings(why.to_owned()));
            }
        };
        let authority = variable(environment, "AZURE_AUTHORITY_HOST").unwrap_or(AUTHORITY);
        if !authority.starts_with("https://") {
            let why = "AZURE_AUTHORITY_HOST begins with https://";
            return Err(SecretStoreError::Settings(why.to_owned()));
        }
        // The vaults of a cloud have names below one domain, which is the resource that tokens are for.
        let resource = host.split_once('.').map(|(_, domain)| domain);
        let resource = resource
            .filter(|domain| domain.starts_with("vault."))
            .unwrap_or("vault.azure.net");
        Ok(Azure {
            http: exchange::client(ca_file)?,
            token_url: format!(
                "{}/{}/oauth2/v2.0/token",
                authority.trim_end_matches('/'),
                need("AZURE_TENANT_ID")?
            ),
            client_id: need("AZURE_CLIENT_ID")?,
            scope: format!("https://{resource}/.default"),
            vault,
            prefix,
            place,
            login,
            token: Mutex::new(None),
        })
    }

    fn url(&self, name: &str, version: Option<&str>) -> Result<Url, StoreError> {
        let path = match version {
            None => format!("/secrets/{}-{name}", self.prefix),
            Some(version) => format!("/secrets/{}-{name}/{version}", self.prefix),
        };
        let mut url = self.vault.clone();
        url.set_path(&path);
        url.set_query(Some(&format!("api-version={API_VERSION}")));
        Ok(url)
    }

    /// The token, and whether it was only just fetched.
    async fn token(&self) -> Result<(SecretText, bool), StoreError> {
        let mut held = self.token.lock().await;
        if let Some((token, until)) = held.as_ref()
            && Instant::now() < *until
        {
            return Ok((token.clone(), false));
        }
        let mut form = vec![
            ("grant_type", "client_credentials".to_owned()),
            ("client_id", self.client_id.clone()),
            ("scope", self.scope.clone()),
        ];
        match &self.login {
            Login::Secret(secret) => form.push(("client_secret", secret.reveal().to_owned())),
            Login::Federated(file) => {
                let assertion = secret_in(file).map_err(StoreError::away)?;
                form.push(("client_assertion_type", ASSERTION.to_owned()));
                form.push(("client_assertion", (*assertion).clone()));
            }
        }
        let answer = exchange::send(self.http.post(&self.token_url).form(&form)).await?;
        if answer.status != StatusCode::OK {
            return Err(match exchange::refusal("Microsoft Entra", &answer) {
                StoreError::Invalid(why) => StoreError::Denied(why),
                other => other,
            });
        }
        let token = answer.body["access_token"].as_str();
        let token = token.ok_or_else(|| StoreError::Invalid("Microsoft Entra gave no token".to_owned()))?;
        let token = SecretText::new(token.to_owned());
        let life = Duration::from_secs(answer.body["expires_in"].as_u64().unwrap_or(0).min(86_400));
        let until = Instant::now() + life.saturating_sub(TOKEN_SLACK);
        *held = Some((token.clone(), until));
        Ok((token, true))
    }

    /// Asks the vault, once more with a fresh token when the one at hand is refused.
    async fn ask(&self, method: Method, url: Url, body: Option<&Value>) -> Result<Answer, StoreError> {
        let (token, is_fresh) = self.token().await?;
        let answer = self.request(method.clone(), url.clone(), body, &token).await?;
        if answer.status != StatusCode::UNAUTHORIZED || is_fresh {
            return Ok(answer);
        }
        *self.token.lock().await = None;
        let (token, _) = self.token().await?;
        self.request(method, url, body, &token).await
    }

    async fn request(
        &self,
        method: Method,
        url: Url,
        body: Option<&Value>,
        token: &SecretText,
    ) -> Result<Answer, StoreError> {
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.reveal()))
            .map_err(|_| StoreError::Invalid("Microsoft Entra gave no token".to_owned()))?;
        bearer.set_sensitive(true);
        let mut request = self.http.request(method, url).header("authorization", bearer);
        if let Some(body) = body {
            request = request.json(body);
        }
        exchange::send(request).await
    }

    /// The version at the end of a secret's identifier.
    fn version_of(body: &Value) -> Result<String, StoreError> {
        let id = body["id"].as_str().and_then(|id| id.rsplit('/').next());
        id.filter(|version| is_version(version))
            .map(str::to_owned)
            .ok_or_else(|| StoreError::Invalid("Key Vault says no version".to_owned()))
    }
}

fn is_version(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

impl SecretStore for Azure {
    fn place(&self) -> &str {
        &self.place
    }

    fn read<'a>(&'a self, name: &'a str, version: &'a str) -> BoxFuture<'a, Result<SecretText, StoreError>> {
        async move {
            if !is_version(version) {
                return Err(StoreError::Missing);
            }
            let answer = self
                .ask(Method::GET, self.url(name, Some(version))?, None)
                .await?;
            if answer.status != StatusCode::OK {
                return Err(exchange::refusal("Key Vault", &answer));
            }
            let value = answer.body["value"].as_str();
            let value = value.ok_or_else(|| StoreError::Invalid("Key Vault gave no value".to_owned()))?;
            Ok(SecretText::new(value.to_owned()))
        }
        .boxed()
    }

    fn newest<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        async move {
            let answer = self.ask(Method::GET, self.url(name, None)?, None).await?;
            match answer.status {
                StatusCode::OK => Azure::version_of(&answer.body).map(Some),
                StatusCode::NOT_FOUND => Ok(None),
                _ => Err(exchange::refusal("Key Vault", &answer)),
            }
        }
        .boxed()
    }

    fn write<'a>(
        &'a self,
        name: &'a str,
        value: &'a SecretText,
        after: Option<&'a str>,
    ) -> BoxFuture<'a, Result<String, StoreError>> {
        async move {
            if self.newest(name).await?.as_deref() != after {
                return Err(StoreError::Conflict);
            }
            let body = json!({"value": value.reveal(), "contentType": "text/plain"});
            let answer = self.ask(Method::PUT, self.url(name, None)?, Some(&body)).await?;
            if answer.status != StatusCode::OK {
                return Err(exchange::refusal("Key Vault", &answer));
            }
            Azure::version_of(&answer.body)
        }
        .boxed()
    }

    fn health(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async move { self.token().await.map(drop) }.boxed()
    }
}
