//! Where the keys of the certificate authorities are kept: a file, a PKCS#11 token, or Vault's transit engine.
//!
//! A key answers two questions, its public point and a signature; nothing else of it is ever seen. Keys are ECDSA P-256
//! and sign with SHA-256. A key outside this process may be slow, sealed or gone: every signature has a time limit, and its
//! failure is [`Unavailable`], after which nothing is lost and the same may be asked again.

mod pkcs11;
mod vault;
mod wrap;

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use parking_lot::Mutex;
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::{
    SecretsError, files,
    vault_client::{VaultSettings, secret_in},
};
use pkcs11::Pkcs11Key;
use vault::VaultKey;

/// How long a signature may take, with the wait for its turn.
pub const SIGNATURE_TIMEOUT: Duration = Duration::from_secs(8);
/// Signatures that one key outside this process makes at a time.
const SIGNATURES_AT_A_TIME_MAX: usize = 16;
/// A key that has just signed is taken to be there.
const TRUSTED_AFTER_SUCCESS: Duration = Duration::from_secs(5);
/// A key that has just failed is not asked again at once.
const SPARED_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// When those who were turned away may come again, unless the key's keeper says.
const RETRY_AFTER_SECONDS: u64 = 5;
/// The longest wait that a keeper may ask of our callers.
const RETRY_AFTER_SECONDS_MAX: u64 = 300;
const NAME_BYTES_MAX: usize = 128;

/// Where a key is. Its text is what settings and the register of authorities hold: `file`, `pkcs11:LABEL`,
/// `vault:NAME` or `vault:NAME@VERSION`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum KeyPlace {
    /// A file in the key folder.
    #[default]
    File,
    /// A key of a PKCS#11 token, by its label.
    Pkcs11 { label: String },
    /// A key of Vault's transit engine; without a version it is the newest one when the key is taken up.
    Vault { name: String, version: Option<u32> },
}

impl fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyPlace::File => f.write_str("file"),
            KeyPlace::Pkcs11 { label } => write!(f, "pkcs11:{label}"),
            KeyPlace::Vault { name, version: None } => write!(f, "vault:{name}"),
            KeyPlace::Vault {
                name,
                version: Some(version),
            } => write!(f, "vault:{name}@{version}"),
        }
    }
}

/// A text that names no place of a key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a key is kept at `file`, `pkcs11:LABEL` or `vault:NAME`; {0:?} is none of them")]
pub struct UnknownPlace(String);

impl FromStr for KeyPlace {
    type Err = UnknownPlace;

    fn from_str(text: &str) -> Result<KeyPlace, UnknownPlace> {
        let unknown = || UnknownPlace(text.to_owned());
        let named = |name: &str| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ');
            (!name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(is_plain))
                .then(|| name.to_owned())
                .ok_or_else(unknown)
        };
        match text.split_once(':') {
            None if text == "file" => Ok(KeyPlace::File),
            Some(("pkcs11", label)) => Ok(KeyPlace::Pkcs11 { label: named(label)? }),
            Some(("vault", name)) => {
                let (name, version) = match name.split_once('@') {
                    None => (name, None),
                    Some((name, version)) => (name, Some(version.parse().map_err(|_| unknown())?)),
                };
                let name = named(name)?;
                // A space would be a path of another meaning after it is written into a URL.
                if name.contains(' ') || name.starts_with('.') || version == Some(0) {
                    return Err(unknown());
                }
                Ok(KeyPlace::Vault { name, version })
            }
            _ => Err(unknown()),
        }
    }
}

/// A PKCS#11 token.
#[derive(Debug, Clone)]
pub struct Pkcs11Settings {
    /// The vendor's library.
    pub module: PathBuf,
    /// The label of the token.
    pub token: String,
    /// The file that holds the user's PIN.
    pub pin_file: PathBuf,
}

/// Where new keys of the device CA are made, and how the places outside this process are reached.
#[derive(Debug, Clone, Default)]
pub struct Custody {
    pub device_ca_key: KeyPlace,
    pub pkcs11: Option<Pkcs11Settings>,
    pub vault: Option<VaultSettings>,
    /// What wraps the key that seals what is stored; a file is not wrapped.
    pub sealing_key: KeyPlace,
    /// The key that seals what is stored, where it is not in the key folder: 64 hexadecimal digits.
    pub sealing_key_file: Option<PathBuf>,
}

/// A key that cannot sign now. `why` is for the log.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the key {place} cannot sign: {why}")]
pub struct Unavailable {
    pub place: String,
    pub why: String,
    pub retry_after_seconds: u64,
}

/// A key of a certificate authority.
pub struct CaKey {
    place: KeyPlace,
    /// The uncompressed point.
    point: Vec<u8>,
    keeper: Keeper,
    turns: Arc<Semaphore>,
    /// When the last signature was asked for and whether it came.
    last: Mutex<Option<(Instant, bool)>>,
}

enum Keeper {
    File(Box<KeyPair>),
    Pkcs11(Arc<Pkcs11Key>),
    Vault(Box<VaultKey>),
}

impl Custody {
    /// Makes a key at a place outside this process, or takes up the one that an operator made there.
    pub async fn take_up(&self, place: &KeyPlace) -> Result<CaKey, SecretsError> {
        match place {
            KeyPlace::File => Ok(CaKey::in_file(KeyPair::generate_for(
                &rcgen::PKCS_ECDSA_P256_SHA256,
            )?)),
            KeyPlace::Pkcs11 { label } => {
                let key = Arc::new(Pkcs11Key::new(self.pkcs11.clone(), label.clone()));
                let taken = Arc::clone(&key);
                let point = tokio::task::spawn_blocking(move || taken.take_up());
                let point = point.await.map_err(|error| gone(place, error.to_string()))?;
                let point = point.map_err(|why| gone(place, why))?;
                Ok(CaKey::new(place.clone(), point, Keeper::Pkcs11(key)))
            }
            KeyPlace::Vault { name, version } => {
                let key = VaultKey::new(self.vault.clone(), name.clone(), *version);
                let (version, point) = key.take_up().await.map_err(|refused| gone(place, refused.why))?;
                let place = KeyPlace::Vault {
                    name: name.clone(),
                    version: Some(version),
                };
                let key = VaultKey::new(self.vault.clone(), name.clone(), Some(version));
                Ok(CaKey::new(place, point, Keeper::Vault(Box::new(key))))
            }
        }
    }

    /// A key whose public point is known from its certificate. Nothing is asked of a place outside this process yet.
    pub(super) fn known(
        &self,
        place: &KeyPlace,
        point: &[u8],
        file: &std::path::Path,
    ) -> Result<CaKey, SecretsError> {
        match place {
            KeyPlace::File => {
                let text = String::from_utf8_lossy(&files::read(file)?).into_owned();
                let pair = KeyPair::from_pem(&text)?;
                if pair.der_bytes() != point {
                    return Err(SecretsError::Unreadable {
                        path: file.to_owned(),
                        why: "it is not the key of the certificate beside it".to_owned(),
                    });
                }
                Ok(CaKey::in_file(pair))
            }
            KeyPlace::Pkcs11 { label } => {
                let key = Pkcs11Key::new(self.pkcs11.clone(), label.clone());
                Ok(CaKey::new(
                    place.clone(),
                    point.to_vec(),
                    Keeper::Pkcs11(Arc::new(key)),
                ))
            }
            KeyPlace::Vault { name, version } => {
                let key = VaultKey::new(self.vault.clone(), name.clone(), *version);
                Ok(CaKey::new(
                    place.clone(),
                    point.to_vec(),
                    Keeper::Vault(Box::new(key)),
                ))
            }
        }
    }
}

impl CaKey {
    pub(super) fn in_file(pair: KeyPair) -> CaKey {
        let point = pair.der_bytes().to_vec();
        CaKey::new(KeyPlace::File, point, Keeper::File(Box::new(pair)))
    }

    fn new(place: KeyPlace, point: Vec<u8>, keeper: Keeper) -> CaKey {
        CaKey {
            place,
            point,
            keeper,
            turns: Arc::new(Semaphore::new(SIGNATURES_AT_A_TIME_MAX)),
            last: Mutex::new(None),
        }
    }

    pub fn place(&self) -> &KeyPlace {
        &self.place
    }

    /// The uncompressed point of the public key.
    pub fn point(&self) -> &[u8] {
        &self.point
    }

    /// The text of a key that is kept in a file, for writing that file.
    pub(super) fn file_text(&self) -> Option<zeroize::Zeroizing<String>> {
        match &self.keeper {
            Keeper::File(pair) => Some(zeroize::Zeroizing::new(pair.serialize_pem())),
            Keeper::Pkcs11(_) | Keeper::Vault(_) => None,
        }
    }

    /// The signature of a key that is in this process; `None` for one that must be waited for.
    pub fn sign_at_once(&self, message: &[u8]) -> Option<Result<Vec<u8>, Unavailable>> {
        match &self.keeper {
            Keeper::File(pair) => Some(pair.sign(message).map_err(|error| self.failed(error.to_string()))),
            Keeper::Pkcs11(_) | Keeper::Vault(_) => None,
        }
    }

    /// Signs `message` (ECDSA with SHA-256, DER), wherever the key is, within [`SIGNATURE_TIMEOUT`].
    pub async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Unavailable> {
        if let Some(signature) = self.sign_at_once(message) {
            return signature;
        }
        if self.failed_just_now() {
            return Err(self.failed("it failed a moment ago".to_owned()));
        }
        let signed = match timeout(SIGNATURE_TIMEOUT, self.sign_far(message)).await {
            Ok(signed) => signed,
            Err(_) => Err(self.failed("it did not answer in time".to_owned())),
        };
        let signed = signed.and_then(|signature| {
            // A key that was replaced behind our back would make certificates that nobody accepts.
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.point)
                .verify(message, &signature)
                .map(|()| signature)
                .map_err(|_| self.failed("its signature is not of the key that was certified".to_owned()))
        });
        *self.last.lock() = Some((Instant::now(), signed.is_ok()));
        signed
    }

    /// Asks whether the key could sign now, before something is used up that needs its signature.
    pub async fn ready(&self) -> Result<(), Unavailable> {
        // No certificate begins like this, so a signature of it is worth nothing to anyone.
        const PROBE: &[u8] = b"muster asks whether this key can sign";
        match &self.keeper {
            Keeper::File(_) => return Ok(()),
            Keeper::Pkcs11(_) | Keeper::Vault(_) => {}
        }
        let last = *self.last.lock();
        match last {
            Some((at, true)) if at.elapsed() < TRUSTED_AFTER_SUCCESS => Ok(()),
            _ => self.sign(PROBE).await.map(drop),
        }
    }

    /// Many who ask at once must not each wait for a key that is away.
    fn failed_just_now(&self) -> bool {
        let last = *self.last.lock();
        last.is_some_and(|(at, came)| !came && at.elapsed() < SPARED_AFTER_FAILURE)
    }

    async fn sign_far(&self, message: &[u8]) -> Result<Vec<u8>, Unavailable> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|error| self.failed(error.to_string()))?;
        let digest = muster_trust::key::sha256(message);
        match &self.keeper {
            Keeper::File(pair) => pair.sign(message).map_err(|error| self.failed(error.to_string())),
            Keeper::Pkcs11(key) => {
                let key = Arc::clone(key);
                // A call into the module cannot be called off: it keeps its turn until it returns, however late.
                let signing = tokio::task::spawn_blocking(move || {
                    let _turn = turn;
                    key.sign(digest.as_bytes())
                });
                let signed = signing.await.map_err(|error| self.failed(error.to_string()))?;
                signed.map_err(|why| self.failed(why))
            }
            Keeper::Vault(key) => key.sign(digest.as_bytes()).await.map_err(|refused| Unavailable {
                place: self.place.to_string(),
                why: refused.why,
                retry_after_seconds: refused
                    .retry_after_seconds
                    .unwrap_or(RETRY_AFTER_SECONDS)
                    .clamp(1, RETRY_AFTER_SECONDS_MAX),
            }),
        }
    }

    fn failed(&self, why: String) -> Unavailable {
        Unavailable {
            place: self.place.to_string(),
            why,
            retry_after_seconds: RETRY_AFTER_SECONDS,
        }
    }
}

fn gone(place: &KeyPlace, why: String) -> SecretsError {
    SecretsError::CaUnavailable(Unavailable {
        place: place.to_string(),
        why,
        retry_after_seconds: RETRY_AFTER_SECONDS,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_are_written() {
        for text in [
            "file",
            "pkcs11:device ca 1",
            "vault:muster-device-ca",
            "vault:muster@3",
        ] {
            assert_eq!(text.parse::<KeyPlace>().expect("it is a place").to_string(), text);
        }
        for text in [
            "",
            "File",
            "pkcs11",
            "pkcs11:",
            "vault:",
            "vault:a/b",
            "vault:..",
            "vault:a@0",
            "vault:a@x",
            "vault:a b",
            "tpm:x",
        ] {
            assert!(text.parse::<KeyPlace>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_place_that_no_setting_describes_is_unavailable_and_not_fatal() {
        let custody = Custody::default();
        for text in ["pkcs11:x", "vault:x@1"] {
            let place = text.parse().expect("it is a place");
            let key = custody
                .known(&place, &[4; 65], std::path::Path::new("/nowhere"))
                .expect("nothing is asked yet");
            assert!(key.sign_at_once(b"x").is_none(), "{text}");
            let refused = key.sign(b"x").await.expect_err("there is no keeper");
            assert_eq!(refused.place, text);
            assert!(key.ready().await.is_err());
        }
    }
}
