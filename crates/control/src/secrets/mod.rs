//! The keys of an installation, one file per role, readable by the service's user alone.
//!
//! `keys/` holds what the server signs with. `take-away/` holds each tenant's root key and the root CA's key: the operator
//! is told to carry them away, and the server never reads them again after the first run.

mod api;
mod authority;
pub mod ceremony;
mod concerns;
mod custody;
mod der;
mod envelope;
mod files;
mod first_run;
mod floor;
mod keeper;
mod key_records;
mod log_head;
mod node_own;
mod places;
mod profile;
mod publish;
mod records;
mod records_api;
mod records_view;
mod register;
mod ring;
mod roots;
mod rotation;
mod scep_ra;
mod sealed;
mod store;
mod tenant_keys;
mod vault_client;
mod vouched;

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use muster_model::{TenantId, Timestamp};
use muster_storage::Statement;
use muster_trust::{dsse::Envelope, key::SigningKey, root::RootDocument};
use parking_lot::RwLock;
use uuid::Uuid;

use crate::access::problem::Problem;

pub use api::router;
pub use authority::{Authority, AuthoritySet, PreparedCertificate};
pub use concerns::{Concern, Urgency, concerns, days_left};
pub use custody::{CaKey, Custody, KeyPlace, Pkcs11Settings, SIGNATURE_TIMEOUT, Unavailable, UnknownPlace};
pub use keeper::{
    CACHE, StoreStatus, Stores, follow, forget_retired, keep_up, look_again, operator, readiness, take_up,
};
pub use node_own::{
    ListenerCertificate, certificate_failed, certificate_renewed, client_record_name, is_certificate_due,
    say_certificate, say_present,
};
use places::FILE;
pub use places::{EMBEDDED, SecretStore, StoreError, VALUE_BYTES_MAX, is_store_name};
pub use records::{
    Kind, PERIOD_DAYS, PERIODS_DAYS, Record, RotatedBy, SECRETS_MAX, forget, note, note_old, record, records,
};
pub use records_api::router as records_router;
pub use records_view::{
    SecretView, all as secret_views, ask as ask_rotation, set_period, store_status,
    visible as visible_records,
};
use ring::Link;
pub use ring::{NoKey, Ring, RingName, SETTLE, SealingRing, TokenRing, Version};
pub use rotation::{RETIRED, ROTATED, ROTATION_LEASE, retire_sealing, rotate_due};
/// A certificate (DER) as PEM.
pub fn certificate_pem(der: &[u8]) -> String {
    profile::pem("CERTIFICATE", der)
}

#[cfg(test)]
pub(crate) fn der_value(tag: u8, content: &[u8]) -> Vec<u8> {
    der::value(tag, &[content])
}

pub use files::{signing_key, write_private};
pub use key_records::{PasswordPlace, note_tenant_keys, say_database_password};
pub use log_head::KeptHead;
pub use profile::{CaRole, DeviceSubject, SERVER_CERTIFICATE_DAYS};
pub(crate) use profile::{offset, responder};
pub use publish::{
    PUBLISHED, Published, follow_roots, of as root_concerns, publish, published_at, settle_roots, watch_roots,
};
pub use register::{AuthorityState, Member, Record as AuthorityRecord};
pub use roots::{Learned, RefusedRow, RootRow, broken_roots, read_roots};
pub use scep_ra::{KeyTransport, ScepRa};
pub use sealed::{SealingKey, SecretText, UnsealError};
pub use tenant_keys::{
    FreshKeys, KeysRow, find_keys, keys_of, read_tenants, share_tenants, store_keys, take_up_tenants,
};
pub use vault_client::{Refused as VaultRefused, VaultClient, VaultLogin, VaultSettings, secret_in};

/// Every statement of this slice, for the test that prepares them all on both engines.
pub const STATEMENTS: &[Statement] = store::ALL;

/// What can go wrong with the key folder.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a key that Muster wrote: {why}")]
    Unreadable { path: PathBuf, why: String },
    #[error(
        "the keys of tenant {tenant} are not in {folder}: copy the folder `keys` of the node that made the tenant"
    )]
    TenantMissing { tenant: TenantId, folder: PathBuf },
    #[error("the stored keys of tenant {tenant} are refused: {why}")]
    TenantKeys { tenant: TenantId, why: String },
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("the root document of tenant {tenant} does not verify: {why}")]
    RootDocument { tenant: TenantId, why: String },
    #[error("certificate authorities: {0}")]
    Authorities(String),
    #[error("{0}")]
    Ceremony(String),
    #[error(transparent)]
    CaUnavailable(#[from] Unavailable),
    #[error(
        "the sealing key cannot be unwrapped by {place}: {why}. Nothing that is stored opens without it; start again when it answers."
    )]
    SealingAway { place: String, why: String },
    #[error(
        "the key that seals what is stored is not at {path}, and this is no first run: give the --sealing-key or --sealing-key-file that the installation had, or copy the file from another node or a backup. An installation that never had one gets it with: openssl rand -hex 32"
    )]
    SealingMissing { path: PathBuf },
}

/// The keys that sign for one tenant, and its root documents from version 1 on, each verified by the one before. A newer
/// document makes a new value: ask the keyring again.
pub struct TenantKeys {
    pub tenant: TenantId,
    pub policy: Arc<SigningKey>,
    pub action: Arc<SigningKey>,
    pub log: Arc<SigningKey>,
    /// The newest document.
    pub root: RootDocument,
    pub root_documents: Vec<Envelope>,
}

/// Every key of the installation, opened once at start.
pub struct Keyring {
    folder: PathBuf,
    pub install: Uuid,
    pub authority: Authority,
    pub scep_ra: ScepRa,
    pub access_tokens: TokenRing,
    pub enrollment_tokens: TokenRing,
    /// The key of enrollment tokens that the first run made. Other secrets are derived from it: see `acme`.
    pub(crate) first_enrollment_key: SigningKey,
    /// Seals the secrets of other services that the operator hands over.
    pub sealing: SealingRing,
    /// Seals the values of the embedded store and the keys of tenants. It is in no store.
    master: Arc<SealingKey>,
    /// Its text, where no file holds it.
    master_text: Option<SecretText>,
    /// The rows of each ring as they were read last, with what the log says of them.
    judged: parking_lot::Mutex<HashMap<RingName, keeper::Known>>,
    /// When the rings were last read again for an unknown key, by the clock that nobody sets.
    looked_at: parking_lot::Mutex<std::time::Duration>,
    tenants: RwLock<HashMap<TenantId, Arc<TenantKeys>>>,
    refused_roots: RwLock<HashMap<TenantId, RefusedRow>>,
    /// Tenants that were deleted while this process ran, or before: each has an empty file in `keys/deleted`.
    gone: RwLock<HashSet<TenantId>>,
}

/// The first version of a ring, before the database was asked.
fn first<K>(key: Arc<K>, now: Timestamp) -> Link<K> {
    let version = Version {
        number: 1,
        place: FILE.to_owned(),
        store_version: String::new(),
        public_key: None,
        key_id: None,
        created_at: now,
        activates_at: Timestamp::from_micros(0),
        retires_at: None,
    };
    Link {
        version,
        key: Some(key),
    }
}

/// Where the keys of an install are.
pub fn keys_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("keys")
}

impl Keyring {
    /// Opens the key folder below `data_dir`, making what is not there yet, with every key in a file.
    pub fn open(data_dir: &Path, now: Timestamp) -> Result<Keyring, SecretsError> {
        // Whoever only reads needs no key that seals, and makes none beside one that is wrapped or elsewhere.
        let folder = keys_folder(data_dir);
        let is_here = !envelope::path(&folder).exists() && sealed::is_there_or_first(&folder);
        let stand_in = (!is_here).then(SealingKey::generate_hex);
        Keyring::open_prepared(data_dir, Custody::default(), (None, stand_in), now)
    }

    /// As `open`, with the device CA's key where `custody` says.
    pub async fn open_with(
        data_dir: &Path,
        custody: Custody,
        now: Timestamp,
    ) -> Result<Keyring, SecretsError> {
        let is_far = match custody.device_ca_key {
            KeyPlace::File => false,
            KeyPlace::Pkcs11 { .. } | KeyPlace::Vault { .. } => true,
        };
        let device_key = if is_far && first_run::is_due(&keys_folder(data_dir)) {
            Some(custody.take_up(&custody.device_ca_key).await?)
        } else {
            None
        };
        let folder = keys_folder(data_dir);
        files::private_folder(&folder)?;
        let master = match custody.sealing_key {
            KeyPlace::File => {
                envelope::refuse_file(&folder)?;
                None
            }
            KeyPlace::Pkcs11 { .. } | KeyPlace::Vault { .. } => {
                Some(envelope::open(&folder, &custody).await?)
            }
        };
        Keyring::open_prepared(data_dir, custody, (device_key, master), now)
    }

    fn open_prepared(
        data_dir: &Path,
        custody: Custody,
        (device_key, master_text): (Option<CaKey>, Option<SecretText>),
        now: Timestamp,
    ) -> Result<Keyring, SecretsError> {
        let folder = keys_folder(data_dir);
        files::private_folder(&folder)?;
        let take_away = data_dir.join("take-away");
        let authority = Authority::open(&folder, &take_away, custody, device_key, now)?;
        let key_in = |name: &str| files::signing_key(&folder.join(name), SigningKey::generate_p256);
        let master = Arc::new(match (&master_text, &authority.custody().sealing_key_file) {
            (Some(text), _) => {
                SealingKey::from_hex(text.reveal().as_bytes()).map_err(|why| SecretsError::Unreadable {
                    path: envelope::path(&folder),
                    why: why.to_owned(),
                })?
            }
            (None, Some(path)) => SealingKey::open_at(path)?,
            (None, None) => SealingKey::open(&folder)?,
        });
        // After the key that seals: where there is an id, no such key is made any more.
        let install = files::install_id(&folder.join(files::INSTALL_ID), now)?;
        let (access, enrollment) = (key_in("access-tokens.pem")?, key_in("enrollment-tokens.pem")?);
        Ok(Keyring {
            install,
            scep_ra: ScepRa::open(&folder, &authority, now)?,
            authority,
            access_tokens: Ring::new(RingName::AccessTokens, vec![first(Arc::new(access), now)]),
            enrollment_tokens: Ring::new(RingName::EnrollmentTokens, vec![first(Arc::new(enrollment), now)]),
            first_enrollment_key: key_in("enrollment-tokens.pem")?,
            sealing: Ring::new(RingName::Sealing, vec![first(Arc::clone(&master), now)]),
            master,
            master_text,
            judged: parking_lot::Mutex::default(),
            looked_at: parking_lot::Mutex::default(),
            gone: RwLock::new(tenant_keys::read_gone(&folder)?),
            folder,
            tenants: RwLock::default(),
            refused_roots: RwLock::default(),
        })
    }

    /// The issuer that every token of this installation names.
    pub fn issuer(&self) -> String {
        format!("urn:muster:install:{}", self.install.as_hyphenated())
    }

    /// The keys of a tenant, read from their files the first time.
    pub fn tenant(&self, tenant: TenantId) -> Result<Arc<TenantKeys>, SecretsError> {
        if let Some(keys) = self.tenants.read().get(&tenant) {
            return Ok(Arc::clone(keys));
        }
        let keys = Arc::new(self.read_tenant(tenant)?);
        self.tenants.write().insert(tenant, Arc::clone(&keys));
        Ok(keys)
    }

    /// Makes the keys and the first root document of a new tenant in this node's folder. The root key goes to `take_away`, nowhere
    /// else. Answers where it is, and what the table of keys is to hold.
    pub fn create_tenant(
        &self,
        tenant: TenantId,
        take_away: &Path,
        now: Timestamp,
    ) -> Result<(PathBuf, KeysRow), Problem> {
        let internal = |error: SecretsError| Problem::internal(error);
        files::private_folder(take_away).map_err(internal)?;
        let root_path = take_away.join(format!("root-key-{tenant}.pem"));
        let root = files::signing_key(&root_path, SigningKey::generate_ed25519).map_err(internal)?;
        // The files stay beside the table's row: the operator signs bundles with them, and replaces them in a root ceremony.
        let folder = self.tenant_folder(tenant);
        files::private_folder(&folder).map_err(internal)?;
        let key = |name: &str| {
            files::signing_key(&folder.join(name), SigningKey::generate_ed25519).map_err(internal)
        };
        let fresh = FreshKeys {
            policy: key("policy.pem")?,
            action: key("action.pem")?,
            log: key("log.pem")?,
        };
        let device_cas = vec![self.authority.device_ca_sha256()];
        let roots = [root.public().clone()];
        let document = fresh.first_document(tenant, &roots, 1, device_cas, now);
        let signed = document.sign(&[&root]).map_err(Problem::internal)?;
        let row = KeysRow {
            sealed: fresh.seal(self, tenant, &signed.payload)?,
            envelope: signed.to_json(),
        };
        self.take(tenant, &row).map_err(internal)?;
        self.keep_roots(tenant).map_err(internal)?;
        Ok((root_path, row))
    }

    fn tenant_folder(&self, tenant: TenantId) -> PathBuf {
        self.folder.join("tenants").join(tenant.to_string())
    }

    fn read_tenant(&self, tenant: TenantId) -> Result<TenantKeys, SecretsError> {
        let folder = self.tenant_folder(tenant);
        let files = ["root.json", "policy.pem", "action.pem", "log.pem"].map(|name| folder.join(name));
        // Where some of them are missing, the keys are in the table, and these are what the operator put beside them.
        if self.is_gone(tenant) || !files.iter().all(|path| path.exists()) {
            return Err(SecretsError::TenantMissing {
                tenant,
                folder: self.folder.clone(),
            });
        }
        let (root, root_documents) = self.kept_chain(tenant)?;
        let [_, policy, action, log] = files;
        Ok(TenantKeys {
            tenant,
            policy: Arc::new(files::existing_key(&policy)?),
            action: Arc::new(files::existing_key(&action)?),
            log: Arc::new(files::existing_key(&log)?),
            root,
            root_documents,
        })
    }

    /// The root documents that this node has kept of a tenant, each verified by the one before.
    fn kept_chain(&self, tenant: TenantId) -> Result<(RootDocument, Vec<Envelope>), SecretsError> {
        let root_path = self.tenant_folder(tenant).join("root.json");
        let text = files::read(&root_path)?;
        let root_documents: Vec<Envelope> =
            serde_json::from_slice(&text).map_err(|error| SecretsError::Unreadable {
                path: root_path,
                why: error.to_string(),
            })?;
        let wrong = |why: String| SecretsError::RootDocument { tenant, why };
        let (first, later) = root_documents
            .split_first()
            .ok_or_else(|| wrong("there is none".into()))?;
        let mut root = RootDocument::verify_first(first, None).map_err(|error| wrong(error.to_string()))?;
        for envelope in later {
            root = RootDocument::verify_next(&root, envelope).map_err(|error| wrong(error.to_string()))?;
        }
        if root.tenant != tenant {
            return Err(wrong(format!("it belongs to {}", root.tenant)));
        }
        Ok((root, root_documents))
    }
}
