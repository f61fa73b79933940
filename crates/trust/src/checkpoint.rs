//! Checkpoints: the signed heads of a tenant's log (<https://c2sp.org/tlog-checkpoint>).
//!
//! The note text is origin, size, root and one extension line `time <unix microseconds>`, which the signature covers: it
//! is where a device that cannot trust its own clock learns the time.

use muster_model::id::TenantId;
use muster_model::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::key::{Digest, PublicKey, SigningKey};
use crate::merkle::{Hash, MAX_TREE_SIZE};
use crate::note::{NoteError, SignedNote};

/// The origin line of a tenant's log.
pub fn origin(tenant: TenantId) -> String {
    format!("muster/{tenant}")
}

/// The head of a log as its note text states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointBody {
    /// Which log: see [`origin`].
    pub origin: String,
    /// Number of entries.
    pub size: u64,
    /// Root of the Merkle tree over them.
    pub root: Hash,
    /// When the log signed, by the server's clock; never goes back within one log.
    pub time: Timestamp,
}

/// A checkpoint whose signatures were verified. Persisted as its note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// What was signed.
    pub body: CheckpointBody,
    /// The whole note with every signature line.
    pub note: String,
}

/// Who must have signed a checkpoint.
#[derive(Debug, Clone)]
pub struct CheckpointKeys<'k> {
    /// Keys of the log role.
    pub log: Vec<&'k PublicKey>,
    /// How many distinct log keys must have signed; at least 1.
    pub log_threshold: u32,
    /// Keys of the witness role.
    pub witnesses: Vec<&'k PublicKey>,
    /// How many distinct witnesses must have cosigned; 0 if none are configured.
    pub witness_threshold: u32,
}

/// Why a checkpoint was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not a well-formed signed note, or a known key's signature is wrong.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text is not that of a checkpoint.
    #[error("not a checkpoint: {0}")]
    Malformed(&'static str),
    /// The checkpoint of another log.
    #[error("the checkpoint is of the log {found:?}, expected {expected:?}")]
    Origin {
        /// Which log the reader follows.
        expected: String,
        /// Which log signed.
        found: String,
    },
    /// Too few log keys signed.
    #[error("{valid} of {threshold} required log signatures")]
    LogSignatures {
        /// Distinct log keys with a valid signature.
        valid: u32,
        /// How many are needed.
        threshold: u32,
    },
    /// Too few witnesses cosigned.
    #[error("{valid} of {threshold} required witness cosignatures")]
    Witnesses {
        /// Distinct witnesses with a valid cosignature.
        valid: u32,
        /// How many are needed.
        threshold: u32,
    },
}

impl CheckpointBody {
    /// The note text.
    pub fn text(&self) -> String {
        let (root, micros) = (self.root.to_base64(), self.time.as_micros());
        format!("{}\n{}\n{root}\ntime {micros}\n", self.origin, self.size)
    }

    /// Reads the note text; only the exact text that [`CheckpointBody::text`] writes.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.split('\n');
        let mut next = |what| lines.next().ok_or(CheckpointError::Malformed(what));
        let origin = next("the origin is missing")?.to_owned();
        let size = next("the size is missing")?
            .parse()
            .map_err(|_| CheckpointError::Malformed("the size"))?;
        let root = Digest::from_base64(next("the root is missing")?)
            .ok_or(CheckpointError::Malformed("the root"))?;
        let micros = next("the time is missing")?
            .strip_prefix("time ")
            .and_then(|micros| micros.parse().ok());
        let time = Timestamp::from_micros(micros.ok_or(CheckpointError::Malformed("the time"))?);
        let body = Self {
            origin,
            size,
            root,
            time,
        };
        if size > MAX_TREE_SIZE || body.origin.is_empty() {
            return Err(CheckpointError::Malformed("the size or the origin"));
        }
        if body.text() != text {
            return Err(CheckpointError::Malformed("not the canonical text"));
        }
        Ok(body)
    }

    /// Signs with the log's keys; each signature's name is the origin.
    pub fn sign(&self, keys: &[&SigningKey]) -> Result<SignedNote, NoteError> {
        let mut note = SignedNote::new(self.text())?;
        for key in keys {
            note.sign(&self.origin, key)?;
        }
        Ok(note)
    }
}

impl Checkpoint {
    /// Verifies a note as a checkpoint of the log `origin`. A witness counts once and may use any name.
    pub fn open(note: &str, origin: &str, keys: &CheckpointKeys<'_>) -> Result<Self, CheckpointError> {
        let signed: SignedNote = note.parse()?;
        let body = CheckpointBody::parse(signed.text())?;
        if body.origin != origin {
            return Err(CheckpointError::Origin {
                expected: origin.to_owned(),
                found: body.origin,
            });
        }
        let valid = count_distinct(&keys.log, |key| signed.signed_by(origin, key))?;
        let threshold = keys.log_threshold.max(1);
        if valid < threshold {
            return Err(CheckpointError::LogSignatures { valid, threshold });
        }
        let valid = count_distinct(&keys.witnesses, |key| Ok(signed.cosigned_by(key)?.is_some()))?;
        let threshold = keys.witness_threshold;
        if valid < threshold {
            return Err(CheckpointError::Witnesses { valid, threshold });
        }
        Ok(Self {
            body,
            note: note.to_owned(),
        })
    }

    /// Number of entries.
    pub fn size(&self) -> u64 {
        self.body.size
    }

    /// Root of the Merkle tree.
    pub fn root(&self) -> &Hash {
        &self.body.root
    }

    /// When the log signed.
    pub fn time(&self) -> Timestamp {
        self.body.time
    }
}

impl Serialize for Checkpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.note)
    }
}

impl<'de> Deserialize<'de> for Checkpoint {
    /// Reads back a checkpoint that was verified before it was persisted; for a foreign one use [`Checkpoint::open`].
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let note = String::deserialize(deserializer)?;
        let signed: SignedNote = note.parse().map_err(D::Error::custom)?;
        let body = CheckpointBody::parse(signed.text()).map_err(D::Error::custom)?;
        Ok(Self { body, note })
    }
}

fn count_distinct(
    keys: &[&PublicKey],
    signed: impl Fn(&PublicKey) -> Result<bool, NoteError>,
) -> Result<u32, NoteError> {
    let mut counted: Vec<&PublicKey> = Vec::new();
    for key in keys {
        if !counted.contains(key) && signed(key)? {
            counted.push(key);
        }
    }
    Ok(u32::try_from(counted.len()).unwrap_or(u32::MAX))
}
