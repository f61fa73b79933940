//! The chain of a tenant's root documents as this process knows it: from the file beside the keys, and from the database, of
//! which only what verifies is taken.

use std::sync::Arc;

use muster_model::TenantId;
use muster_storage::Tx;
use muster_trust::{
    dsse::Envelope,
    key::{Digest, PublicKey, sha256},
    root::{MAX_ROOT_STEPS, Role, RootDocument},
};

use super::{Keyring, SecretsError, TenantKeys, files, store};
use crate::access::problem::Problem;

pub use store::RootRow;

/// Rows that one step reads of one tenant.
const STEP_ROWS: i64 = 64;

/// A row of the database that is no successor of the newest document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRow {
    pub version: u64,
    /// Of the row's bytes.
    pub sha256: Digest,
    pub why: String,
}

/// What one step learned.
#[derive(Debug)]
pub struct Learned {
    /// How many documents verified.
    pub steps: usize,
    /// The row at which it stopped, where it was not the end.
    pub refused: Option<RefusedRow>,
}

impl TenantKeys {
    /// Who may have sealed an entry or signed the stored head: this server's key, and those that the root document names.
    pub fn log_keys(&self) -> Vec<&PublicKey> {
        let (mut named, _) = self.root.role(Role::Log);
        if !named.contains(&self.log.public()) {
            named.push(self.log.public());
        }
        named
    }

    /// The digest of the newest root document.
    pub fn root_sha256(&self) -> Digest {
        sha256(
            &self
                .root_documents
                .last()
                .expect("there is a first document")
                .payload,
        )
    }
}

impl Keyring {
    /// The tenants whose keys were asked for.
    pub fn known(&self) -> Vec<Arc<TenantKeys>> {
        self.tenants.read().values().map(Arc::clone).collect()
    }

    /// The row of the database that was ignored last, if it is still in the way.
    pub fn refused_root(&self, tenant: TenantId) -> Option<RefusedRow> {
        self.refused_roots.read().get(&tenant).cloned()
    }

    /// Takes the documents among `rows` that follow on the newest one that is known, in order, and stops at the first that
    /// does not verify.
    pub fn learn_roots(&self, tenant: TenantId, rows: &[RootRow]) -> Result<Learned, SecretsError> {
        let known = self.tenant(tenant)?;
        let (mut root, mut fresh, mut refused) = (known.root.clone(), Vec::new(), None);
        for row in rows.iter().filter(|row| row.version > version_of(&known.root)) {
            match successor(&root, row) {
                Ok((next, envelope)) => {
                    root = next;
                    fresh.push(envelope);
                }
                Err(why) => {
                    refused = Some(RefusedRow {
                        version: row.version.cast_unsigned(),
                        sha256: sha256(&row.envelope),
                        why,
                    });
                    break;
                }
            }
        }
        let steps = fresh.len();
        if steps > 0 {
            self.take_roots(&known, root, fresh);
        }
        self.note_refused(tenant, refused.as_ref());
        Ok(Learned { steps, refused })
    }

    fn take_roots(&self, known: &TenantKeys, root: RootDocument, fresh: Vec<Envelope>) {
        let folder = self.tenant_folder(known.tenant);
        // The operator may have put another key into its place, for this document.
        let read = |name: &str, held: &Arc<_>| {
            let path = folder.join(name);
            if !path.exists() {
                return Arc::clone(held);
            }
            match files::existing_key(&path) {
                Ok(key) => Arc::new(key),
                Err(error) => {
                    tracing::warn!(%error, "the key that was read at the start goes on");
                    Arc::clone(held)
                }
            }
        };
        let keys = TenantKeys {
            tenant: known.tenant,
            policy: read("policy.pem", &known.policy),
            action: read("action.pem", &known.action),
            log: read("log.pem", &known.log),
            root,
            root_documents: known.root_documents.iter().cloned().chain(fresh).collect(),
        };
        let mut tenants = self.tenants.write();
        // Two steps may have learned at once: the longer chain stays. Both verified.
        let is_newer = tenants
            .get(&known.tenant)
            .is_none_or(|held| held.root.version < keys.root.version);
        if is_newer {
            tenants.insert(known.tenant, Arc::new(keys));
        }
    }

    fn note_refused(&self, tenant: TenantId, refused: Option<&RefusedRow>) {
        let mut held = self.refused_roots.write();
        match refused {
            None => {
                held.remove(&tenant);
            }
            Some(row) if held.get(&tenant) == Some(row) => {}
            Some(row) => {
                tracing::error!(
                    %tenant, version = row.version, sha256 = %row.sha256, why = row.why,
                    "a root document in the database does not verify and is ignored: somebody wrote it past the server"
                );
                held.insert(tenant, row.clone());
            }
        }
    }

    /// Writes the chain beside the keys, so that a database that went back does not take this node back.
    pub fn keep_roots(&self, tenant: TenantId) -> Result<(), SecretsError> {
        let keys = self.tenant(tenant)?;
        let text = serde_json::to_vec(&keys.root_documents).expect("envelopes are serializable");
        files::write_private(&self.tenant_folder(tenant).join("root.json"), &text)
    }
}

/// Learns every document that a database holds for a tenant.
pub fn read_roots(tx: &mut Tx, keyring: &Keyring, tenant: TenantId) -> Result<usize, Problem> {
    let mut steps = 0;
    loop {
        let version = version_of(&keyring.tenant(tenant).map_err(Problem::internal)?.root);
        let rows = store::roots_after(tx, tenant, version, STEP_ROWS)?;
        let learned = keyring.learn_roots(tenant, &rows).map_err(Problem::internal)?;
        steps += learned.steps;
        if learned.steps == 0 {
            return Ok(steps);
        }
    }
}

/// What is wrong with the stored documents: rows that are not those of the chain, and rows that are missing. The chain is
/// what is known after [`read_roots`].
pub fn broken_roots(tx: &mut Tx, keyring: &Keyring, tenant: TenantId) -> Result<Vec<String>, Problem> {
    let keys = keyring.tenant(tenant).map_err(Problem::internal)?;
    let rows = store::roots_after(
        tx,
        tenant,
        i64::MIN,
        i64::try_from(MAX_ROOT_STEPS + 1).unwrap_or(i64::MAX),
    )?;
    let mut broken: Vec<String> = rows
        .iter()
        .filter(|row| !is_known(&keys, row))
        .map(|row| {
            format!(
                "version {}: the stored row is not signed by the version before it",
                row.version
            )
        })
        .collect();
    let missing = (2..=keys.root.version)
        .filter(|version| !rows.iter().any(|row| row.version.cast_unsigned() == *version))
        .map(|version| format!("version {version}: this node knows it, and the database has no row of it"));
    broken.extend(missing);
    Ok(broken)
}

/// Whether a row holds the document that the chain has at its version.
fn is_known(keys: &TenantKeys, row: &RootRow) -> bool {
    let index = usize::try_from(row.version - 1).ok();
    let document = index
        .filter(|index| *index > 0)
        .and_then(|index| keys.root_documents.get(index));
    document.is_some_and(|document| {
        Envelope::from_json(&row.envelope).is_ok_and(|stored| stored.payload == document.payload)
    })
}

/// The version as the database counts.
pub(super) fn version_of(root: &RootDocument) -> i64 {
    i64::try_from(root.version).unwrap_or(i64::MAX)
}

fn successor(root: &RootDocument, row: &RootRow) -> Result<(RootDocument, Envelope), String> {
    if root.version >= MAX_ROOT_STEPS as u64 {
        return Err("there are as many root documents as a device walks".to_owned());
    }
    let envelope = Envelope::from_json(&row.envelope).map_err(|error| error.to_string())?;
    let next = RootDocument::verify_next(root, &envelope).map_err(|error| error.to_string())?;
    if version_of(&next) != row.version {
        return Err(format!("the row says that it is version {}", row.version));
    }
    Ok((next, envelope))
}
