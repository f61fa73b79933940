//! A short secret that only a PKCS#11 token or Vault's transit engine opens: it is wrapped there and unwrapped there, and the key that
//! does so never leaves them (<https://developer.hashicorp.com/vault/api-docs/secret/transit>; OASIS PKCS#11 v2.40, `CKM_AES_GCM`).

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{Custody, KeyPlace, Pkcs11Key, SIGNATURE_TIMEOUT, VaultKey};
use crate::secrets::{SecretText, SecretsError};

impl Custody {
    /// Wraps a secret with the key at `place`, which is made where there is none.
    pub(in crate::secrets) async fn wrap(
        &self,
        place: &KeyPlace,
        secret: &SecretText,
    ) -> Result<String, SecretsError> {
        let wrapped = timeout(SIGNATURE_TIMEOUT, async {
            match place {
                KeyPlace::File => Err("a file wraps nothing".to_owned()),
                KeyPlace::Vault { name, .. } => {
                    let key = VaultKey::new(self.vault.clone(), name.clone(), None);
                    key.wrap(secret.reveal().as_bytes())
                        .await
                        .map_err(|refused| refused.why)
                }
                KeyPlace::Pkcs11 { label } => {
                    let key = Arc::new(Pkcs11Key::new(self.pkcs11.clone(), label.clone()));
                    let plain = Zeroizing::new(secret.reveal().as_bytes().to_vec());
                    let wrapping = tokio::task::spawn_blocking(move || key.wrap(&plain));
                    let wrapped = wrapping.await.map_err(|error| error.to_string())??;
                    Ok(STANDARD.encode(wrapped))
                }
            }
        });
        said(place, wrapped.await)
    }

    /// Opens what [`Self::wrap`] made.
    pub(in crate::secrets) async fn unwrap(
        &self,
        place: &KeyPlace,
        wrapped: &str,
    ) -> Result<SecretText, SecretsError> {
        let opened = timeout(SIGNATURE_TIMEOUT, async {
            match place {
                KeyPlace::File => Err("a file wraps nothing".to_owned()),
                KeyPlace::Vault { name, .. } => {
                    let key = VaultKey::new(self.vault.clone(), name.clone(), None);
                    key.unwrap(wrapped).await.map_err(|refused| refused.why)
                }
                KeyPlace::Pkcs11 { label } => {
                    let key = Arc::new(Pkcs11Key::new(self.pkcs11.clone(), label.clone()));
                    let wrapped = STANDARD
                        .decode(wrapped)
                        .map_err(|_| "it is no base64".to_owned())?;
                    let opening = tokio::task::spawn_blocking(move || key.unwrap(&wrapped));
                    opening.await.map_err(|error| error.to_string())?
                }
            }
        });
        let plain = said(place, opened.await)?;
        let text = std::str::from_utf8(&plain).map_err(|_| away(place, "what it opens is no text"))?;
        Ok(SecretText::new(text.to_owned()))
    }
}

fn said<T>(
    place: &KeyPlace,
    outcome: Result<Result<T, String>, tokio::time::error::Elapsed>,
) -> Result<T, SecretsError> {
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(why)) => Err(away(place, &why)),
        Err(_) => Err(away(place, "it did not answer in time")),
    }
}

fn away(place: &KeyPlace, why: &str) -> SecretsError {
    SecretsError::SealingAway {
        place: place.to_string(),
        why: why.trim_end_matches('.').to_owned(),
    }
}
