//! Stores of secrets that the operator runs: HashiCorp Vault's KV engine (version 2), Azure Key Vault, AWS Secrets Manager;
//! and Vault's PKI engine, which makes certificates.
//!
//! The operator names the store on the command line, so it may be on a private network; no tenant can name one. Every exchange is
//! bounded in time and size, follows no redirect, and says in words of ours what went wrong: no address, no credential, no body.

mod aws;
mod azure;
mod exchange;
mod vault;
mod vault_pki;

use std::path::Path;

use muster_control::secrets::{SecretStore, VaultSettings};

use aws::Aws;
use azure::Azure;
use vault::VaultKv;
pub use vault_pki::{Certified, VaultPki};

/// Why a store cannot be used as it is described.
#[derive(Debug, thiserror::Error)]
pub enum SecretStoreError {
    #[error(
        "{0:?} is no store; write embedded, vault:MOUNT/PATH, azure:https://NAME.vault.azure.net or aws:REGION/PREFIX"
    )]
    Unknown(String),
    #[error("{0}")]
    Settings(String),
}

/// Opens the store that `place` names; nothing for the embedded one. Nothing is asked of it yet: it may be away. `environment` holds
/// the variables that the providers' own tools read, `ca_file` an authority (PEM) besides those that the system knows.
pub fn open_secret_store(
    place: &str,
    vault: Option<&VaultSettings>,
    environment: &[(String, String)],
    ca_file: Option<&Path>,
) -> Result<Option<Box<dyn SecretStore>>, SecretStoreError> {
    match place.split_once(':') {
        None if place == "embedded" => Ok(None),
        Some(("vault", path)) => {
            let settings = vault.ok_or_else(|| {
                SecretStoreError::Settings(
                    "a store in Vault needs --vault-url and a way to log in".to_owned(),
                )
            })?;
            Ok(Some(Box::new(VaultKv::new(settings.clone(), path)?)))
        }
        Some(("azure", url)) => Ok(Some(Box::new(Azure::new(url, environment, ca_file)?))),
        Some(("aws", path)) => Ok(Some(Box::new(Aws::new(path, environment, ca_file)?))),
        _ => Err(SecretStoreError::Unknown(place.chars().take(128).collect())),
    }
}

/// A variable of the environment.
fn variable<'a>(environment: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = environment.iter().find(|(known, _)| known == name);
    found
        .map(|(_, value)| value.as_str())
        .filter(|value| !value.is_empty())
}

/// Whether a text is a path of plain segments.
fn is_path(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_segment = |segment: &str| !segment.is_empty() && segment.bytes().all(is_plain);
    text.len() <= 200 && text.split('/').all(is_segment)
}

#[cfg(test)]
mod tests {
    use muster_control::secrets::VaultLogin;

    use super::*;

    fn open(place: &str) -> Result<Option<Box<dyn SecretStore>>, SecretStoreError> {
        let vault = VaultSettings {
            url: "https://vault.example".to_owned(),
            mount: "transit".to_owned(),
            namespace: None,
            login: VaultLogin::TokenFile("/t".into()),
            ca_file: None,
        };
        let environment = [
            ("AZURE_TENANT_ID", "t"),
            ("AZURE_CLIENT_ID", "c"),
            ("AZURE_CLIENT_SECRET", "the-secret"),
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "the-secret"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        open_secret_store(place, Some(&vault), &environment, None)
    }

    #[test]
    fn stores_are_named_strictly_and_keep_their_name() {
        assert!(open("embedded").expect("it is there").is_none());
        for place in [
            "vault:secret/muster",
            "azure:https://name.vault.azure.net",
            "aws:eu-central-1/muster",
        ] {
            let store = open(place).expect(place).expect(place);
            assert_eq!(store.place(), place);
            assert!(!format!("{store:?}").contains("the-secret"), "l2: {place}");
        }
        for place in [
            "",
            "vault",
            "vault:",
            "vault:secret",
            "vault:secret/../x",
            "azure:http://name.vault.azure.net",
            "azure:name",
            "azure:https://user:pw@name.vault.azure.net",
            "aws:",
            "aws:eu central/x",
            "gcp:x",
        ] {
            assert!(open(place).is_err(), "{place}");
        }
    }
}
