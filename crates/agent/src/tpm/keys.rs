//! The device key in the TPM: made there, used there, and kept beside the state as bytes that only this TPM can load.

use std::sync::Arc;

use muster_channel_agent::Base64Bytes;
use muster_trust::key::{PublicKey, sha256};
use serde::{Deserialize, Serialize};

use super::client::{OpenTpm, Tpm};
use super::codec::{PublicArea, ecdsa_signature};
use super::commands::{CreatedKey, LoadedKey};
use super::error::{TpmError, rc};
use super::ids::{CommandCode, Handle, object};
use super::tcti::Tcti;
use super::templates;

pub use super::commands::TpmDescription;

/// Layout of the key file; another one is refused.
const KEY_FILE_VERSION: u32 = 1;

/// The key file. Nothing in it is secret: without the TPM that made it, the private part is noise.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    version: u32,
    /// Which TPM holds the key.
    tcti: String,
    tpm: TpmDescription,
    /// Name of the storage key above it.
    parent_name: Base64Bytes,
    /// `TPMT_PUBLIC`.
    public: Base64Bytes,
    /// `TPM2B_PRIVATE` without its length.
    private: Base64Bytes,
}

/// A P-256 signing key that its TPM does not give away.
#[derive(Debug)]
pub struct TpmKey {
    tpm: Arc<Tpm>,
    description: TpmDescription,
    parent_name: Vec<u8>,
    created: CreatedKey,
    public: PublicKey,
}

impl TpmKey {
    /// Makes a fresh key under the TPM's storage root key. Nothing stays in the TPM.
    pub fn create(tpm: Arc<Tpm>) -> Result<Self, TpmError> {
        let (description, parent_name, created) = tpm.with(|open| {
            let description = open.describe()?;
            let parent = storage_root(open)?;
            let template = templates::device_key();
            match open.create(parent.handle, &template) {
                // A storage root key with a password is somebody else's.
                Err(error) if is_authorization(&error) && parent.handle == Handle::STORAGE_ROOT => {
                    let parent = open.create_primary(Handle::OWNER, &templates::storage_root())?;
                    let created = open.create(parent.handle, &template)?;
                    Ok((description, parent.name, created))
                }
                created => Ok((description, parent.name, created?)),
            }
        })?;
        let public = device_public(&created)?;
        Ok(Self {
            tpm,
            description,
            parent_name,
            created,
            public,
        })
    }

    /// Reads a key file. The TPM is not asked yet.
    pub fn from_file(text: &str) -> Result<Self, TpmError> {
        let file: KeyFile =
            serde_json::from_str(text).map_err(|error| TpmError::KeyFile(error.to_string()))?;
        if file.version != KEY_FILE_VERSION {
            let text = format!(
                "its layout is {}, this agent knows {KEY_FILE_VERSION}",
                file.version
            );
            return Err(TpmError::KeyFile(text));
        }
        let tcti = Tcti::parse(&file.tcti).map_err(|error| TpmError::KeyFile(error.to_string()))?;
        let created = CreatedKey {
            public: file.public.0,
            private: file.private.0,
        };
        Ok(Self {
            tpm: Arc::new(Tpm::new(tcti)),
            description: file.tpm,
            parent_name: file.parent_name.0,
            public: device_public(&created)?,
            created,
        })
    }

    /// Writes the key file's text.
    pub fn to_file(&self) -> Result<String, TpmError> {
        let file = KeyFile {
            version: KEY_FILE_VERSION,
            tcti: self.tpm.tcti().to_string(),
            tpm: self.description.clone(),
            parent_name: Base64Bytes(self.parent_name.clone()),
            public: Base64Bytes(self.created.public.clone()),
            private: Base64Bytes(self.created.private.clone()),
        };
        serde_json::to_string_pretty(&file).map_err(|error| TpmError::KeyFile(error.to_string()))
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The public half as the TPM describes it: `TPMT_PUBLIC`.
    pub fn public_area(&self) -> &[u8] {
        &self.created.public
    }

    /// The TPM that holds the key.
    pub fn tpm(&self) -> &Tpm {
        &self.tpm
    }

    /// Who made that TPM.
    pub fn description(&self) -> &TpmDescription {
        &self.description
    }

    /// Signs the message: ECDSA with SHA-256, ASN.1 DER. The signature was checked.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, TpmError> {
        let digest = sha256(message);
        let signature = self.tpm.with(|open| {
            let key = self.load(open)?;
            open.sign(key.handle, digest.as_bytes())
        })?;
        let signature = ecdsa_signature(&signature).map_err(|source| TpmError::Malformed {
            command: CommandCode::Sign,
            source,
        })?;
        self.public
            .verify(message, &signature)
            .map_err(|_| TpmError::WrongSignature)?;
        Ok(signature)
    }

    /// Loads the key; its storage key is not kept loaded.
    pub(super) fn load(&self, open: &mut OpenTpm<'_>) -> Result<LoadedKey, TpmError> {
        let parent = self.parent(open)?;
        let key = open
            .load(parent.handle, &self.created)
            .map_err(|error| match error {
                // Made under a storage key of the same name, and yet not by this TPM: the file was changed.
                error if error.is_refusal(rc::INTEGRITY) => TpmError::OtherTpm,
                error => error,
            })?;
        release(open, &parent)?;
        Ok(key)
    }

    /// The storage key that the device key was made under, wherever it is now.
    fn parent(&self, open: &mut OpenTpm<'_>) -> Result<LoadedKey, TpmError> {
        if let Some(key) = persistent_storage_root(open)?
            && key.name == self.parent_name
        {
            return Ok(key);
        }
        let key = open.create_primary(Handle::OWNER, &templates::storage_root())?;
        if key.name == self.parent_name {
            return Ok(key);
        }
        Err(TpmError::OtherTpm)
    }
}

/// The storage root key for a new key: the one that the machine keeps, since it costs no time to load; else the one that
/// the owner hierarchy's seed gives.
fn storage_root(open: &mut OpenTpm<'_>) -> Result<LoadedKey, TpmError> {
    match persistent_storage_root(open)? {
        Some(key) => Ok(key),
        None => open.create_primary(Handle::OWNER, &templates::storage_root()),
    }
}

fn persistent_storage_root(open: &mut OpenTpm<'_>) -> Result<Option<LoadedKey>, TpmError> {
    match open.read_public(Handle::STORAGE_ROOT) {
        Ok(key) => Ok(key.filter(|key| key.area.is_storage_parent())),
        // Something of another kind.
        Err(TpmError::Malformed { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Forgets a key, unless it stays in the TPM.
pub(super) fn release(open: &mut OpenTpm<'_>, key: &LoadedKey) -> Result<(), TpmError> {
    if key.handle.is_transient() {
        open.flush(key.handle)
    } else {
        Ok(())
    }
}

fn is_authorization(error: &TpmError) -> bool {
    error.is_refusal(rc::AUTH_FAIL) || error.is_refusal(rc::BAD_AUTH)
}

/// The public key of what the TPM made, if it is what was asked for.
fn device_public(created: &CreatedKey) -> Result<PublicKey, TpmError> {
    let area =
        PublicArea::parse(&created.public).map_err(|_| TpmError::UnexpectedKey("another kind of key"))?;
    let wanted = object::FIXED_TPM | object::FIXED_PARENT | object::SENSITIVE_DATA_ORIGIN | object::SIGN;
    if !area.has(wanted) {
        return Err(TpmError::UnexpectedKey("it could leave the TPM, or cannot sign"));
    }
    area.p256()
        .map_err(|_| TpmError::UnexpectedKey("it is not on the curve P-256"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_of_something_else_is_refused() {
        for text in ["", "{}", "-----BEGIN PRIVATE KEY-----", r#"{"version":2}"#] {
            let error = TpmKey::from_file(text).expect_err(text);
            assert_eq!(error.code(), "tpm_key_file_invalid");
        }
    }

    #[test]
    fn a_key_that_could_leave_the_tpm_is_refused() {
        let restricted_storage = CreatedKey {
            public: templates::storage_root(),
            private: Vec::new(),
        };
        assert!(matches!(
            device_public(&restricted_storage),
            Err(TpmError::UnexpectedKey(_))
        ));
    }
}
