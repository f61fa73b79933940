//! A key of HashiCorp Vault's transit secrets engine, over its HTTP API
//! (<https://developer.hashicorp.com/vault/api-docs/secret/transit>).
//!
//! The version of the key is fixed when it is taken up, because rotating the key in Vault must not change what our
//! certificates were signed with.

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::secrets::{
    der,
    vault_client::{Refused, VaultClient, VaultSettings},
};

pub struct VaultKey {
    client: Option<VaultClient>,
    name: String,
    version: Option<u32>,
}

impl VaultKey {
    pub fn new(settings: Option<VaultSettings>, name: String, version: Option<u32>) -> VaultKey {
        VaultKey {
            client: settings.map(VaultClient::new),
            name,
            version,
        }
    }

    /// Finds the key, or makes it, and answers its version and public point.
    pub async fn take_up(&self) -> Result<(u32, Vec<u8>), Refused> {
        let path = format!("keys/{}", self.name);
        let found = match self.ask(Method::GET, &path, None).await {
            Err(refused) if refused.is_unknown() => {
                let kind =
                    json!({"type": "ecdsa-p256", "exportable": false, "allow_plaintext_backup": false});
                self.ask(Method::POST, &path, Some(kind)).await?;
                self.ask(Method::GET, &path, None).await?
            }
            other => other?,
        };
        let data = &found["data"];
        if data["type"] != "ecdsa-p256" {
            return Err(Refused::new("the key is not of the type ecdsa-p256"));
        }
        if data["exportable"] == true || data["allow_plaintext_backup"] == true {
            return Err(Refused::new(
                "the key can be taken out of Vault: make one that is not exportable",
            ));
        }
        let newest = data["latest_version"]
            .as_u64()
            .and_then(|version| u32::try_from(version).ok());
        let version = self
            .version
            .or(newest)
            .ok_or_else(|| Refused::new("the key has no version"))?;
        let pem = data["keys"][version.to_string()]["public_key"].as_str();
        let point = pem
            .and_then(point_of)
            .ok_or_else(|| Refused::new("the public key is not P-256"))?;
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
            .ok_or_else(|| Refused::new("the answer holds no signature"))
    }

    /// Encrypts with the newest version of a key of the type aes256-gcm96, which is made where there is none.
    pub async fn wrap(&self, plain: &[u8]) -> Result<String, Refused> {
        let path = format!("keys/{}", self.name);
        let found = match self.ask(Method::GET, &path, None).await {
            Err(refused) if refused.is_unknown() => {
                let kind =
                    json!({"type": "aes256-gcm96", "exportable": false, "allow_plaintext_backup": false});
                self.ask(Method::POST, &path, Some(kind)).await?;
                self.ask(Method::GET, &path, None).await?
            }
            other => other?,
        };
        let data = &found["data"];
        if data["type"] != "aes256-gcm96" {
            return Err(Refused::new("the key is not of the type aes256-gcm96"));
        }
        if data["exportable"] == true || data["allow_plaintext_backup"] == true {
            return Err(Refused::new(
                "the key can be taken out of Vault: make one that is not exportable",
            ));
        }
        let body = json!({"plaintext": STANDARD.encode(plain)});
        let answered = self
            .ask(Method::POST, &format!("encrypt/{}", self.name), Some(body))
            .await?;
        let wrapped = answered["data"]["ciphertext"].as_str();
        wrapped
            .map(str::to_owned)
            .ok_or_else(|| Refused::new("the answer holds no ciphertext"))
    }

    /// Opens what [`Self::wrap`] made.
    pub async fn unwrap(&self, wrapped: &str) -> Result<Zeroizing<Vec<u8>>, Refused> {
        let body = json!({"ciphertext": wrapped});
        let answered = self
            .ask(Method::POST, &format!("decrypt/{}", self.name), Some(body))
            .await?;
        let plain = answered["data"]["plaintext"].as_str();
        plain
            .and_then(|text| STANDARD.decode(text).ok())
            .map(Zeroizing::new)
            .ok_or_else(|| Refused::new("the answer holds no plaintext"))
    }

    /// Asks the transit engine.
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, Refused> {
        let client = self
            .client
            .as_ref()
            .ok_or_else(|| Refused::new("the settings name no Vault server"))?;
        let path = format!("{}/{path}", client.settings().mount);
        client.ask(method, &path, body.as_ref()).await
    }
}

fn point_of(pem: &str) -> Option<Vec<u8>> {
    let lines = pem.lines().filter(|line| !line.starts_with("-----"));
    let spki = STANDARD.decode(lines.map(str::trim).collect::<String>()).ok()?;
    der::p256_point(&spki).map(<[u8]>::to_vec)
}
