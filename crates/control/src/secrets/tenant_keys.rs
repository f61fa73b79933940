//! The keys with which the server signs for a tenant: made with it, sealed in a table, and taken up from there by every node.
//!
//! A node believes a row only if it opens under this installation's sealing key for this very tenant, if the first root document is the
//! one with which the keys were sealed, and if that names them. A document verifies itself, and public keys are public: without the digest
//! that is sealed, whoever writes the database could put a document with root keys of his own beside the sealed keys.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use muster_model::{TenantId, Timestamp};
use muster_storage::{Scope, Tx};
use muster_trust::{
    checkpoint,
    dsse::Envelope,
    key::{Digest, PublicKey, SigningKey, sha256},
    root::{ApprovalRules, DEFAULT_BUDGETS, Role, RoleKeys, RootDocument},
};
use zeroize::Zeroizing;

use super::{Keyring, SecretText, SecretsError, TenantKeys, UnsealError, files, publish, store};
use crate::{
    App,
    access::problem::{Problem, UNAVAILABLE},
    audit,
};

/// The use for which the keys are sealed.
const CONTEXT: &str = "secrets/tenant-keys";
/// How long the first root document of a tenant is good.
const ROOT_DOCUMENT_DAYS: u64 = 365;
/// Rows that one look reads: more tenants than an installation may have.
const ROWS_MAX: i64 = 4096;
/// When a caller may ask again whose tenant is not known here yet.
const RETRY_AFTER_SECONDS: u64 = 2;

/// The keys of a tenant that is made now.
#[derive(Debug)]
pub struct FreshKeys {
    pub(super) policy: SigningKey,
    pub(super) action: SigningKey,
    pub(super) log: SigningKey,
}

/// The keys together with the digest of the first root document with which they were sealed.
#[derive(Debug)]
pub struct OpenedKeys {
    keys: FreshKeys,
    document: Digest,
}

/// The keys as they are sealed: one line for each, its name and its PKCS #8 in hexadecimal. Behind them the SHA-256 of the first root
/// document, in the same form.
const NAMES: [&str; 3] = ["policy", "action", "log"];
const DOCUMENT: &str = "document";
/// The folder beside the keys with an empty file for each tenant that ended, named by its id.
const DELETED: &str = "deleted";
/// Why keys do not open that another node sealed.
const OTHER_MASTER: &str = "they are sealed under another key than the one of this node's key folder: copy keys/sealing.key, or the file \
    of --sealing-key-file, from the node that made the tenant";

impl FreshKeys {
    pub fn generate() -> Result<FreshKeys, Problem> {
        let key = || SigningKey::generate_ed25519().map_err(Problem::internal);
        Ok(FreshKeys {
            policy: key()?,
            action: key()?,
            log: key()?,
        })
    }

    /// The first root document, as the root keys are to sign it. No approver is named yet, so no destructive command can be
    /// approved.
    pub fn first_document(
        &self,
        tenant: TenantId,
        roots: &[PublicKey],
        threshold: u32,
        device_cas: Vec<Digest>,
        now: Timestamp,
    ) -> RootDocument {
        let own = [
            (Role::Policy, &self.policy),
            (Role::Action, &self.action),
            (Role::Log, &self.log),
        ];
        let mut keys: BTreeMap<_, _> = roots.iter().map(|key| (key.key_id(), key.clone())).collect();
        let root = RoleKeys {
            keys: keys.keys().copied().collect(),
            threshold,
        };
        let mut roles = BTreeMap::from([(Role::Root, root)]);
        for (role, key) in own {
            keys.insert(key.key_id(), key.public().clone());
            let only = RoleKeys {
                keys: [key.key_id()].into(),
                threshold: 1,
            };
            roles.insert(role, only);
        }
        RootDocument {
            tenant,
            version: 1,
            issued_at: now,
            expires_at: now.plus(Duration::from_secs(ROOT_DOCUMENT_DAYS * 86_400)),
            keys,
            roles,
            log_origin: checkpoint::origin(tenant),
            budgets: DEFAULT_BUDGETS,
            device_ca_sha256: device_cas,
            approvers: BTreeMap::new(),
            approval: ApprovalRules::default(),
            restore_epoch: 0,
            settled_heads: BTreeSet::new(),
        }
    }

    /// Seals them for this tenant and this first root document alone. `document` is the bytes that the root keys sign. The key is the one
    /// of the key folder and none of the ring: versions of the ring may lie in a store outside, and what devices obey does not.
    pub fn seal(&self, keyring: &Keyring, tenant: TenantId, document: &[u8]) -> Result<Vec<u8>, Problem> {
        let mut text = Zeroizing::new(String::new());
        for (name, key) in NAMES.into_iter().zip([&self.policy, &self.action, &self.log]) {
            let der = key.to_pkcs8_der().map_err(Problem::internal)?;
            text.push_str(&Zeroizing::new(format!(
                "{name} {}\n",
                *Zeroizing::new(hex::encode(&*der))
            )));
        }
        text.push_str(&format!("{DOCUMENT} {}\n", sha256(document).to_hex()));
        let text = SecretText::new(text.as_str().to_owned());
        Ok(keyring.master.seal(tenant, CONTEXT, &text))
    }

    /// Opens what `seal` made.
    pub fn open(keyring: &Keyring, tenant: TenantId, sealed: &[u8]) -> Result<OpenedKeys, String> {
        let text = keyring
            .master
            .unseal(tenant, CONTEXT, sealed)
            .map_err(|error| match error {
                UnsealError::OtherKey => OTHER_MASTER.to_owned(),
                UnsealError::Damaged | UnsealError::Away => {
                    "they are damaged, or were sealed for something else".to_owned()
                }
            })?;
        let mut lines = text.reveal().lines();
        let mut value = |name: &str| {
            let line = lines.next().and_then(|line| line.strip_prefix(name));
            line.and_then(|line| line.strip_prefix(' '))
        };
        let mut key = |name: &str| {
            let der = value(name).and_then(|line| hex::decode(line).ok());
            let der = der
                .map(Zeroizing::new)
                .ok_or_else(|| format!("it does not hold a {name} key"))?;
            SigningKey::from_pkcs8_der(&der).map_err(|error| error.to_string())
        };
        let [policy, action, log] = NAMES;
        let keys = FreshKeys {
            policy: key(policy)?,
            action: key(action)?,
            log: key(log)?,
        };
        let document = value(DOCUMENT).and_then(|digest| digest.parse::<Digest>().ok());
        let document = document.ok_or("it does not say which root document the keys belong to")?;
        Ok(OpenedKeys { keys, document })
    }

    /// The keys together with the first document, if it verifies, is this tenant's, and names them.
    fn assemble(self, tenant: TenantId, first: &Envelope) -> Result<TenantKeys, String> {
        let root = RootDocument::verify_first(first, None).map_err(|error| error.to_string())?;
        if root.tenant != tenant {
            return Err(format!("the root document belongs to {}", root.tenant));
        }
        let own = [
            (Role::Policy, &self.policy),
            (Role::Action, &self.action),
            (Role::Log, &self.log),
        ];
        for (role, key) in own {
            if !root.role(role).0.contains(&key.public()) {
                return Err(format!("the root document does not name its {role} key"));
            }
        }
        Ok(TenantKeys {
            tenant,
            policy: Arc::new(self.policy),
            action: Arc::new(self.action),
            log: Arc::new(self.log),
            root,
            root_documents: vec![first.clone()],
        })
    }
}

impl OpenedKeys {
    /// The keys together with the first document, if it is the one with which they were sealed, verifies, is this tenant's, and names
    /// them.
    pub fn assemble(self, tenant: TenantId, first: &Envelope) -> Result<TenantKeys, String> {
        let found = sha256(&first.payload);
        if found != self.document {
            return Err(format!(
                "the root document {found} is not the one with which the keys were sealed, {}",
                self.document
            ));
        }
        self.keys.assemble(tenant, first)
    }
}

/// A row of the table of keys. Nothing in it is to be believed.
#[derive(Debug, Clone)]
pub struct KeysRow {
    pub sealed: Vec<u8>,
    pub envelope: Vec<u8>,
}

/// Stores the keys of a tenant; answers whether there were none. Part of the transaction that makes the tenant.
pub fn store_keys(tx: &mut Tx, tenant: TenantId, row: &KeysRow, now: Timestamp) -> Result<bool, Problem> {
    Ok(store::insert_tenant_keys(tx, tenant, row, now)? == 1)
}

impl Keyring {
    /// Whether the keys of a tenant are at hand, without a look at files.
    pub fn knows(&self, tenant: TenantId) -> bool {
        self.tenants.read().contains_key(&tenant)
    }

    /// Whether a tenant was deleted, by the word of its root keys.
    pub fn is_gone(&self, tenant: TenantId) -> bool {
        self.gone.read().contains(&tenant)
    }

    /// What the table of keys would hold of a tenant whose keys are here. Nothing where other keys were put in their place since.
    pub fn row_of(&self, keys: &TenantKeys) -> Result<Option<KeysRow>, Problem> {
        let Some(first) = keys.root_documents.first() else {
            return Ok(None);
        };
        let copy = |key: &SigningKey| {
            let der = key.to_pkcs8_der().map_err(Problem::internal)?;
            SigningKey::from_pkcs8_der(&der).map_err(Problem::internal)
        };
        let all = || -> Result<FreshKeys, Problem> {
            Ok(FreshKeys {
                policy: copy(&keys.policy)?,
                action: copy(&keys.action)?,
                log: copy(&keys.log)?,
            })
        };
        let row = KeysRow {
            sealed: all()?.seal(self, keys.tenant, &first.payload)?,
            envelope: first.to_json(),
        };
        Ok(all()?.assemble(keys.tenant, first).is_ok().then_some(row))
    }

    /// Takes up the keys of a tenant that was made in this process just now.
    pub fn adopt(&self, keys: &Arc<TenantKeys>) -> Result<(), SecretsError> {
        files::private_folder(&self.tenant_folder(keys.tenant))?;
        let mut tenants = self.tenants.write();
        tenants.entry(keys.tenant).or_insert_with(|| Arc::clone(keys));
        Ok(())
    }

    /// Takes a tenant's keys up from a row of the table. What this node kept of the tenant's root documents must begin with the
    /// row's; keys that the operator put beside them are used instead of the row's.
    pub fn take(&self, tenant: TenantId, row: &KeysRow) -> Result<Arc<TenantKeys>, SecretsError> {
        let wrong = |why: String| SecretsError::TenantKeys { tenant, why };
        if self.is_gone(tenant) {
            return Err(wrong("the tenant was deleted".to_owned()));
        }
        let first = Envelope::from_json(&row.envelope).map_err(|error| wrong(error.to_string()))?;
        let fresh = FreshKeys::open(self, tenant, &row.sealed).map_err(wrong)?;
        let mut keys = fresh.assemble(tenant, &first).map_err(wrong)?;
        let folder = self.tenant_folder(tenant);
        files::private_folder(&folder)?;
        if folder.join("root.json").exists() {
            let (root, documents) = self.kept_chain(tenant)?;
            if documents.first().is_none_or(|kept| kept.payload != first.payload) {
                return Err(wrong(
                    "its root document is not the one that this node has kept of the tenant".to_owned(),
                ));
            }
            (keys.root, keys.root_documents) = (root, documents);
        }
        keys.policy = placed(&folder, "policy.pem", &keys.policy)?;
        keys.action = placed(&folder, "action.pem", &keys.action)?;
        keys.log = placed(&folder, "log.pem", &keys.log)?;
        let keys = Arc::new(keys);
        let mut tenants = self.tenants.write();
        let held = tenants.entry(tenant).or_insert_with(|| Arc::clone(&keys));
        Ok(Arc::clone(held))
    }

    /// The root document that this node believes of a tenant: in memory, or kept beside the keys.
    pub fn believed_root(&self, tenant: TenantId) -> Option<(RootDocument, Envelope)> {
        if let Some(keys) = self.tenants.read().get(&tenant) {
            let last = keys.root_documents.last()?.clone();
            return Some((keys.root.clone(), last));
        }
        let (root, documents) = self.kept_chain(tenant).ok()?;
        Some((root, documents.into_iter().next_back()?))
    }

    /// Forgets a tenant that its root keys ended: its keys leave memory and disk, and are never taken up again. The root documents stay
    /// until everything else is deleted, so that a node that begins anew still knows whose word that is.
    pub fn forget_tenant(&self, tenant: TenantId) -> Result<(), SecretsError> {
        // On disk first: whatever happens behind it, no later start takes the tenant up from a row.
        let deleted = self.folder.join(DELETED);
        files::private_folder(&deleted)?;
        files::write_private(&deleted.join(tenant.to_string()), b"")?;
        self.gone.write().insert(tenant);
        self.tenants.write().remove(&tenant);
        self.refused_roots.write().remove(&tenant);
        let folder = self.tenant_folder(tenant);
        for name in ["policy.pem", "action.pem", "log.pem", "log-head.json"] {
            let path = folder.join(name);
            removed(std::fs::remove_file(&path), path)?;
        }
        Ok(())
    }

    /// Whether this node keeps something of a tenant.
    pub fn has_folder(&self, tenant: TenantId) -> bool {
        self.tenant_folder(tenant).exists()
    }

    /// Removes what is left on this node of a tenant that is deleted.
    pub fn remove_folder(&self, tenant: TenantId) -> Result<(), SecretsError> {
        let folder = self.tenant_folder(tenant);
        removed(std::fs::remove_dir_all(&folder), folder)
    }
}

/// The tenants that ended by what is kept in the key folder.
pub(super) fn read_gone(keys: &Path) -> Result<HashSet<TenantId>, SecretsError> {
    let path = keys.join(DELETED);
    let io = |source| SecretsError::Io {
        path: path.clone(),
        source,
    };
    let entries = match std::fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(HashSet::new()),
        Err(error) => return Err(io(error)),
    };
    let mut gone = HashSet::new();
    for entry in entries {
        let name = entry.map_err(io)?.file_name();
        // What is no id is nothing of ours, such as half of a file.
        gone.extend(name.to_str().and_then(|name| name.parse::<TenantId>().ok()));
    }
    Ok(gone)
}

fn removed(outcome: std::io::Result<()>, path: std::path::PathBuf) -> Result<(), SecretsError> {
    match outcome {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(SecretsError::Io { path, source })
        }
        _ => Ok(()),
    }
}

/// The key of a file, where the operator put one there, or the one that is held.
fn placed(folder: &Path, name: &str, held: &Arc<SigningKey>) -> Result<Arc<SigningKey>, SecretsError> {
    let path = folder.join(name);
    if path.exists() {
        Ok(Arc::new(files::existing_key(&path)?))
    } else {
        Ok(Arc::clone(held))
    }
}

/// The keys of a tenant; where this node does not have them, it looks into the database once. None where there is no such tenant.
pub async fn find_keys(app: &App, tenant: TenantId) -> Result<Option<Arc<TenantKeys>>, Problem> {
    match app.keys.tenant(tenant) {
        Ok(keys) => return Ok(Some(keys)),
        Err(SecretsError::TenantMissing { .. }) => {}
        Err(error) => return Err(Problem::internal(error)),
    }
    if app.keys.is_gone(tenant) {
        return Ok(None);
    }
    let row = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            Ok::<_, Problem>(store::tenant_keys(tx, tenant)?)
        })
        .await?;
    let Some(row) = row else { return Ok(None) };
    match app.keys.take(tenant, &row) {
        Ok(_) => {
            tracing::info!(%tenant, "the keys of a tenant are taken up");
            if let Err(error) = app.keys.keep_roots(tenant) {
                tracing::warn!(%error, %tenant, "the root documents are kept in the database alone");
            }
            publish::follow_roots(app, tenant).await?;
            app.keys.tenant(tenant).map(Some).map_err(Problem::internal)
        }
        Err(error) => {
            alarm(app, tenant, &error).await;
            Err(UNAVAILABLE
                .detail("The keys of this tenant cannot be used by this node.")
                .retry_after(60)
                .caused_by(error))
        }
    }
}

/// As [`find_keys`]; that there are none is an error which says when to come again.
pub async fn keys_of(app: &App, tenant: TenantId) -> Result<Arc<TenantKeys>, Problem> {
    find_keys(app, tenant).await?.ok_or_else(|| {
        UNAVAILABLE
            .detail("This node does not have the keys of the tenant.")
            .retry_after(RETRY_AFTER_SECONDS)
            .caused_by(format!(
                "there are no keys of {tenant}, in the folder or in the database"
            ))
    })
}

/// Says that the keys of a tenant are not those that its root document names, or do not open: an alarm in the operator's log.
async fn alarm(app: &App, tenant: TenantId, error: &SecretsError) {
    let operator = match super::keeper::operator(app).await {
        Ok(Some(operator)) if operator != tenant => operator,
        _ => return tracing::error!(%error, %tenant, "THE STORED KEYS OF A TENANT ARE REFUSED"),
    };
    let why = error.to_string();
    // The entry needs the keys of another tenant, which are looked for in the same way.
    let said = Box::pin(audit::row_edited(
        app,
        operator,
        ("tenant_keys", tenant.to_string()),
        &why,
    ));
    if let Err(problem) = said.await {
        tracing::error!(%problem, %tenant, "an alarm about the keys of a tenant is not in the log");
    }
}

/// Takes up the keys of every tenant that this node does not have. Runs at the start and on a timer.
pub async fn take_up_tenants(app: &App) -> Result<(), Problem> {
    let tenants = app
        .db
        .read(Scope::System, |tx| {
            Ok::<_, Problem>(store::tenants_with_keys(tx, ROWS_MAX)?)
        })
        .await?;
    for tenant in tenants {
        if app.keys.knows(tenant) || app.keys.is_gone(tenant) {
            continue;
        }
        // One whose keys cannot be used holds up no other.
        if let Err(problem) = find_keys(app, tenant).await {
            tracing::warn!(%problem, %tenant, "the keys of a tenant were not taken up");
        }
    }
    Ok(())
}

/// As [`take_up_tenants`], for a program beside the nodes that only reads.
pub fn read_tenants(tx: &mut Tx, keyring: &Keyring) -> Result<(), Problem> {
    for tenant in store::tenants_with_keys(tx, ROWS_MAX)? {
        let is_here = keyring.tenant(tenant).is_ok();
        if let Some(row) = store::tenant_keys(tx, tenant)?.filter(|_| !is_here)
            && let Err(error) = keyring.take(tenant, &row)
        {
            tracing::error!(%error, %tenant, "the keys of a tenant cannot be used");
        }
    }
    Ok(())
}

/// Puts the keys of tenants that were made before there was a table into it, so that nobody has to copy them: where the operator asked for
/// that, since they leave the key folder by it, sealed.
pub async fn share_tenants(app: &App) -> Result<(), Problem> {
    if !app.settings.share_tenant_keys {
        return Ok(());
    }
    let now = app.clock.now();
    for keys in app.keys.known() {
        let tenant = keys.tenant;
        let scope = Scope::Tenant(tenant.uuid());
        let is_there = app
            .db
            .read(scope, move |tx| {
                Ok::<_, Problem>(store::tenant_keys(tx, tenant)?.is_some())
            })
            .await?;
        if is_there {
            continue;
        }
        if let Some(row) = app.keys.row_of(&keys)? {
            audit::housekeeping(app, scope, move |tx| store_keys(tx, tenant, &row, now)).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{SealingKey, ring::Link};
    use super::*;

    fn tenant(number: u128) -> TenantId {
        TenantId::from_uuid(uuid::Uuid::from_u128(number))
    }

    fn now() -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000)
    }

    /// A row of a tenant that was made in this installation.
    fn made(keyring: &Keyring, of: TenantId) -> (KeysRow, SigningKey) {
        let root = SigningKey::generate_ed25519().expect("a key");
        let fresh = FreshKeys::generate().expect("keys");
        let cas = vec![keyring.authority.device_ca_sha256()];
        let document = fresh.first_document(of, &[root.public().clone()], 1, cas, now());
        let row = KeysRow {
            sealed: fresh
                .seal(keyring, of, &document.to_bytes())
                .expect("it is sealed"),
            envelope: document.sign(&[&root]).expect("it is signed").to_json(),
        };
        (row, root)
    }

    #[test]
    fn a_node_takes_up_the_keys_of_a_tenant_and_no_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let keyring = Keyring::open(folder.path(), now()).expect("it opens");
        let (row, _) = made(&keyring, tenant(1));
        assert!(keyring.tenant(tenant(1)).is_err());
        let keys = keyring.take(tenant(1), &row).expect("it is taken up");
        assert_eq!(keys.root.tenant, tenant(1));
        assert!(keyring.tenant(tenant(1)).is_ok());
        // A row that was copied to another tenant, keys of another tenant, and a document that names other keys.
        let (other, _) = made(&keyring, tenant(2));
        assert!(keyring.take(tenant(3), &row).is_err());
        let mixed = [
            (row.sealed.clone(), other.envelope.clone()),
            (other.sealed.clone(), row.envelope.clone()),
        ];
        for (sealed, envelope) in mixed {
            assert!(keyring.take(tenant(2), &KeysRow { sealed, envelope }).is_err());
        }
        let (again, _) = made(&keyring, tenant(2));
        let envelope = again.envelope;
        assert!(
            keyring
                .take(
                    tenant(2),
                    &KeysRow {
                        sealed: other.sealed,
                        envelope
                    }
                )
                .is_err()
        );
    }

    #[test]
    fn a_document_of_other_root_keys_is_refused_although_it_names_the_sealed_keys() {
        let folder = tempfile::tempdir().expect("a folder");
        let keyring = Keyring::open(folder.path(), now()).expect("it opens");
        let (row, _) = made(&keyring, tenant(1));
        // Whoever writes the database knows the public keys, and is root in a document of their own.
        let first = Envelope::from_json(&row.envelope).expect("an envelope");
        let mut document: RootDocument = serde_json::from_slice(&first.payload).expect("a root document");
        let eve = SigningKey::generate_ed25519().expect("a key");
        let before = document.roles[&Role::Root].keys.clone();
        document.keys.retain(|id, _| !before.contains(id));
        document.keys.insert(eve.key_id(), eve.public().clone());
        document.roles.insert(
            Role::Root,
            RoleKeys {
                keys: [eve.key_id()].into(),
                threshold: 1,
            },
        );
        let forged = document.sign(&[&eve]).expect("it is signed");
        assert!(
            RootDocument::verify_first(&forged, None).is_ok(),
            "it verifies itself"
        );
        let changed = KeysRow {
            sealed: row.sealed.clone(),
            envelope: forged.to_json(),
        };
        assert!(keyring.take(tenant(1), &changed).is_err());
        assert!(keyring.take(tenant(1), &row).is_ok());
    }

    #[test]
    fn no_version_of_the_sealing_ring_opens_the_keys_and_another_folder_says_which_key_is_missing() {
        let (folder, elsewhere) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        let keyring = Keyring::open(folder.path(), now()).expect("it opens");
        // A rotation to a store outside: the newest version of the ring is another key.
        let outside = SealingKey::from_hex(SealingKey::generate_hex().reveal().as_bytes()).expect("a key");
        let mut version = keyring.sealing.links()[0].version.clone();
        version.number = 2;
        let link = Link {
            version,
            key: Some(Arc::new(outside)),
        };
        keyring.sealing.set(vec![link]);
        let (row, _) = made(&keyring, tenant(1));
        assert!(keyring.sealing.unseal(tenant(1), CONTEXT, &row.sealed).is_err());
        assert!(keyring.take(tenant(1), &row).is_ok());
        let other = Keyring::open(elsewhere.path(), now()).expect("it opens");
        let refused = other.take(tenant(1), &row).map(drop);
        let why = refused.expect_err("it does not open").to_string();
        assert!(why.contains("keys/sealing.key"), "{why}");
    }

    #[test]
    fn a_node_holds_to_the_root_document_that_it_has_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let (first, forged) = {
            let keyring = Keyring::open(folder.path(), now()).expect("it opens");
            let (first, _) = made(&keyring, tenant(1));
            keyring.take(tenant(1), &first).expect("it is taken up");
            keyring.keep_roots(tenant(1)).expect("it is kept");
            (first, made(&keyring, tenant(1)).0)
        };
        let keyring = Keyring::open(folder.path(), now()).expect("it opens again");
        assert!(keyring.take(tenant(1), &forged).is_err());
        assert!(keyring.take(tenant(1), &first).is_ok());
    }

    #[test]
    fn a_tenant_that_ended_is_never_taken_up_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let keyring = Keyring::open(folder.path(), now()).expect("it opens");
        let (row, _) = made(&keyring, tenant(1));
        keyring.take(tenant(1), &row).expect("it is taken up");
        keyring.keep_roots(tenant(1)).expect("it is kept");
        keyring.forget_tenant(tenant(1)).expect("it is forgotten");
        assert!(keyring.tenant(tenant(1)).is_err());
        assert!(keyring.take(tenant(1), &row).is_err());
        assert!(keyring.believed_root(tenant(1)).is_some(), "until it is deleted");
        keyring.remove_folder(tenant(1)).expect("it is removed");
        assert!(!keyring.has_folder(tenant(1)));
        assert!(keyring.believed_root(tenant(1)).is_none());
        drop(keyring);
        let again = Keyring::open(folder.path(), now()).expect("it opens again");
        assert!(again.is_gone(tenant(1)), "also after a restart");
        assert!(again.take(tenant(1), &row).is_err());
    }

    proptest::proptest! {
        #[test]
        fn random_rows_are_refused_and_never_panic(
            sealed in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80),
            envelope in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80),
        ) {
            let folder = tempfile::tempdir().expect("a folder");
            let master = SealingKey::open(folder.path()).expect("a key");
            proptest::prop_assert!(master.unseal(tenant(1), CONTEXT, &sealed).is_err());
            proptest::prop_assert!(Envelope::from_json(&envelope).is_err());
        }
    }
}
