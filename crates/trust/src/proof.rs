//! Proof that an entry is in the log that a checkpoint commits to.

use muster_model::id::TenantId;
use serde::{Deserialize, Serialize};

use crate::checkpoint::CheckpointBody;
use crate::encoding::{base64_bytes, base64_hashes};
use crate::entry::{EntryError, LogEntry, MAX_ENTRY_BYTES};
use crate::merkle::{Hash, ProofError, leaf_hash, verify_inclusion};

/// Ties the bytes of an entry to a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedProof {
    /// The entry's canonical bytes, base64 on the wire.
    #[serde(with = "base64_bytes")]
    pub entry: Vec<u8>,
    /// Number of the leaf, from 0.
    pub index: u64,
    /// Size of the tree that the proof is for: that of the checkpoint.
    pub tree_size: u64,
    /// The audit path, lowest sibling first, base64 on the wire.
    #[serde(with = "base64_hashes")]
    pub hashes: Vec<Hash>,
}

/// Why a proof was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoggedProofError {
    /// The proof is for a tree of another size than the checkpoint's.
    #[error("the proof is for a log of {found} entries, the checkpoint is for {expected}")]
    TreeSize {
        /// The checkpoint's size.
        expected: u64,
        /// The proof's size.
        found: u64,
    },
    /// The hashes do not lead to the checkpoint's root.
    #[error("the entry is not in the log: {0}")]
    NotInLog(#[from] ProofError),
    /// The bytes are in the log, and are no entry.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The entry is of another tenant.
    #[error("the entry belongs to {0}")]
    Tenant(TenantId),
}

impl LoggedProof {
    /// Returns the entry if it is in the log at this checkpoint and belongs to the tenant.
    pub fn verify(
        &self,
        checkpoint: &CheckpointBody,
        tenant: TenantId,
    ) -> Result<LogEntry, LoggedProofError> {
        if self.entry.len() > MAX_ENTRY_BYTES {
            return Err(EntryError::TooLarge(self.entry.len()).into());
        }
        if self.tree_size != checkpoint.size {
            return Err(LoggedProofError::TreeSize {
                expected: checkpoint.size,
                found: self.tree_size,
            });
        }
        let leaf = leaf_hash(&self.entry);
        verify_inclusion(&leaf, self.index, self.tree_size, &self.hashes, &checkpoint.root)?;
        let entry = LogEntry::from_bytes(&self.entry)?;
        if entry.tenant == tenant {
            Ok(entry)
        } else {
            Err(LoggedProofError::Tenant(entry.tenant))
        }
    }
}
