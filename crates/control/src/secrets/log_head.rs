//! The newest head of a tenant's log that this node knows, in a file beside its root documents: a database that went back does
//! not take this node back.

use std::{fs, io::Read, path::PathBuf};

use muster_model::TenantId;
use serde::{Deserialize, Serialize};

use super::{Keyring, SecretsError, files};

/// Longest file: a checkpoint with very many signatures.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// A head of a log, as its file holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptHead {
    /// The restore epoch of the root document under which it was signed or seen.
    pub restore_epoch: u32,
    /// The checkpoint as a C2SP signed note.
    pub note: String,
}

impl Keyring {
    /// The head that was kept last; none where this node never kept one.
    pub fn kept_head(&self, tenant: TenantId) -> Result<Option<KeptHead>, SecretsError> {
        let path = self.log_head_path(tenant);
        let io = |source| SecretsError::Io {
            path: path.clone(),
            source,
        };
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(io)?;
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| SecretsError::Unreadable {
                path: path.clone(),
                why: error.to_string(),
            })
    }

    /// Keeps a head, whole and on the disk when this returns.
    pub fn keep_head(&self, tenant: TenantId, head: &KeptHead) -> Result<(), SecretsError> {
        let text = serde_json::to_vec(head).expect("numbers and text are serializable");
        files::write_private(&self.log_head_path(tenant), &text)
    }

    fn log_head_path(&self, tenant: TenantId) -> PathBuf {
        self.tenant_folder(tenant).join("log-head.json")
    }
}
