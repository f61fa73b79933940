//! HashiCorp Vault's KV secrets engine, version 2 (<https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2>).
//!
//! Vault itself refuses a version that came between (check-and-set), so that two nodes cannot both add one.

use std::time::Duration;

use futures_util::{FutureExt, future::BoxFuture};
use muster_control::secrets::{
    SecretStore, SecretText, StoreError, VaultClient, VaultRefused, VaultSettings,
};
use reqwest::Method;
use serde_json::json;

use super::{SecretStoreError, is_path};

/// Versions of a secret that the engine keeps unless somebody says otherwise.
const VERSIONS_KEPT: u32 = 10;

#[derive(Debug)]
pub struct VaultKv {
    client: VaultClient,
    mount: String,
    prefix: String,
    place: String,
}

impl VaultKv {
    /// The store below `MOUNT/PATH`.
    pub fn new(settings: VaultSettings, path: &str) -> Result<VaultKv, SecretStoreError> {
        let unknown = || SecretStoreError::Unknown(format!("vault:{path}"));
        if !is_path(path) {
            return Err(unknown());
        }
        let (mount, prefix) = path.split_once('/').ok_or_else(unknown)?;
        Ok(VaultKv {
            client: VaultClient::new(settings),
            mount: mount.to_owned(),
            prefix: prefix.to_owned(),
            place: format!("vault:{path}"),
        })
    }

    fn path(&self, of: &str, name: &str) -> String {
        format!("{}/{of}/{}/{name}", self.mount, self.prefix)
    }
}

pub(super) fn failed(refused: VaultRefused) -> StoreError {
    match refused.status {
        Some(404) => StoreError::Missing,
        Some(400) => StoreError::Conflict,
        Some(401 | 403) => StoreError::Denied(refused.why),
        _ => StoreError::Away {
            why: refused.why,
            retry_after: refused.retry_after_seconds.map(Duration::from_secs),
        },
    }
}

impl SecretStore for VaultKv {
    fn place(&self) -> &str {
        &self.place
    }

    fn read<'a>(&'a self, name: &'a str, version: &'a str) -> BoxFuture<'a, Result<SecretText, StoreError>> {
        async move {
            let version: u64 = version.parse().map_err(|_| StoreError::Missing)?;
            let path = format!("{}?version={version}", self.path("data", name));
            let answered = self.client.ask(Method::GET, &path, None).await.map_err(failed)?;
            let value = answered["data"]["data"]["value"].as_str();
            let value = value.ok_or_else(|| StoreError::Invalid("it holds no value of ours".to_owned()))?;
            Ok(SecretText::new(value.to_owned()))
        }
        .boxed()
    }

    fn newest<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        async move {
            let path = self.path("metadata", name);
            match self.client.ask(Method::GET, &path, None).await {
                Ok(answered) => {
                    let version = answered["data"]["current_version"].as_u64();
                    let version =
                        version.ok_or_else(|| StoreError::Invalid("it says no version".to_owned()))?;
                    // A secret that was made by its metadata alone has none yet.
                    Ok((version > 0).then(|| version.to_string()))
                }
                Err(refused) if refused.is_unknown() => Ok(None),
                Err(refused) => Err(failed(refused)),
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
            let after: u64 = after
                .map_or(Ok(0), str::parse)
                .map_err(|_| StoreError::Conflict)?;
            let body = json!({"options": {"cas": after}, "data": {"value": value.reveal()}});
            let path = self.path("data", name);
            let answered = self
                .client
                .ask(Method::POST, &path, Some(&body))
                .await
                .map_err(failed)?;
            let version = answered["data"]["version"].as_u64();
            version
                .map(|version| version.to_string())
                .ok_or_else(|| StoreError::Invalid("it says no version".to_owned()))
        }
        .boxed()
    }

    fn versions_kept<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<u32>, StoreError>> {
        async move {
            let of = |answered: &serde_json::Value| {
                let kept = answered["data"]["max_versions"].as_u64();
                kept.filter(|kept| *kept > 0)
                    .map(|kept| u32::try_from(kept).unwrap_or(u32::MAX))
            };
            let path = self.path("metadata", name);
            match self.client.ask(Method::GET, &path, None).await {
                Ok(answered) => {
                    if let Some(kept) = of(&answered) {
                        return Ok(Some(kept));
                    }
                }
                Err(refused) if refused.is_unknown() => {}
                Err(refused) => return Err(failed(refused)),
            }
            // The mount's own number counts where the secret has none; this identity may not be allowed to read it.
            let path = format!("{}/config", self.mount);
            match self.client.ask(Method::GET, &path, None).await {
                Ok(answered) => Ok(of(&answered).or(Some(VERSIONS_KEPT))),
                Err(refused) if refused.is_denied() || refused.is_unknown() => Ok(Some(VERSIONS_KEPT)),
                Err(refused) => Err(failed(refused)),
            }
        }
        .boxed()
    }

    fn health(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async move { self.client.health().await.map_err(failed) }.boxed()
    }
}
