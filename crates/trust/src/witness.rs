//! What a witness decides (<https://c2sp.org/tlog-witness>): it cosigns a checkpoint only if that extends what it cosigned
//! before, so that whoever holds the log key cannot show two histories to those who ask for its cosignature.

use std::fmt;
use std::str::FromStr;

use crate::encoding::from_base64;
use crate::key::{Digest, SigningKey};
use crate::merkle::{Hash, MAX_TREE_SIZE, ProofError, proves_another_history, verify_consistency};
use crate::note::{MAX_NOTE_BYTES, NoteError, NoteSignature, SignedNote, VerifierKey};

/// Most lines of a consistency proof, by the specification.
pub const MAX_PROOF_LINES: usize = 63;
/// Longest body of `add-checkpoint`.
pub const MAX_REQUEST_BYTES: usize = MAX_NOTE_BYTES + (MAX_PROOF_LINES + 1) * 64;
/// Longest answer to `add-checkpoint`: a few signature lines.
pub const MAX_ANSWER_BYTES: usize = 16 * 1024;
/// Media type of the answer that only says which size the witness knows.
pub const SIZE_MEDIA_TYPE: &str = "text/x.tlog.size";

/// The body of `POST …/add-checkpoint`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size that the sender believes the witness cosigned last; 0 if none.
    pub old_size: u64,
    /// Consistency proof from `old_size` to the checkpoint.
    pub proof: Vec<Hash>,
    /// The checkpoint. Not to be believed before a signature was verified.
    pub note: SignedNote,
}

/// The three lines that every checkpoint begins with, whatever else its log adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeHead {
    /// Which log.
    pub origin: String,
    /// Number of entries.
    pub size: u64,
    /// Root of the Merkle tree over them.
    pub root: Hash,
}

/// Why a checkpoint was not cosigned, with the status of the specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WitnessRefusal {
    /// Not the form of a request (400).
    #[error("not an add-checkpoint request: {0}")]
    Malformed(&'static str),
    /// No key of this log is known (404).
    #[error("the log {0:?} is not known here")]
    UnknownLog(String),
    /// No known key of the log signed it (403).
    #[error("no known key of the log signed the checkpoint")]
    NotSigned,
    /// The sender is at another size than the witness (409).
    #[error("the newest cosigned checkpoint has {known} entries")]
    OtherSize {
        /// What the witness cosigned last.
        known: u64,
    },
    /// The log signed another root for a size that was cosigned: two histories (409).
    #[error("another root was cosigned for {known} entries")]
    Fork {
        /// What the witness cosigned last.
        known: u64,
    },
    /// The proof leads to this checkpoint, and from another head than the cosigned one: two histories (422).
    #[error("the checkpoint extends another history than the {known} entries that were cosigned")]
    OtherHistory {
        /// What the witness cosigned last.
        known: u64,
    },
    /// The proof does not lead from the cosigned head to this one (422).
    #[error("the consistency proof does not verify: {0}")]
    Inconsistent(ProofError),
}

impl WitnessRefusal {
    /// The HTTP status that the specification gives it.
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::UnknownLog(_) => 404,
            Self::NotSigned => 403,
            Self::OtherSize { .. } | Self::Fork { .. } => 409,
            Self::OtherHistory { .. } | Self::Inconsistent(_) => 422,
        }
    }

    /// Whether the log's own signature is under two histories: worth keeping. A proof that does not verify is not evidence:
    /// everybody can send a proper checkpoint with a wrong proof.
    pub fn is_evidence(&self) -> bool {
        match self {
            Self::Fork { .. } | Self::OtherHistory { .. } => true,
            Self::Malformed(_)
            | Self::UnknownLog(_)
            | Self::NotSigned
            | Self::OtherSize { .. }
            | Self::Inconsistent(_) => false,
        }
    }
}

impl TreeHead {
    /// Reads the first three lines of a note's text.
    pub fn of(note: &SignedNote) -> Option<Self> {
        let mut lines = note.text().split('\n');
        let origin = lines.next().filter(|origin| !origin.is_empty())?;
        let size = canonical_number(lines.next()?)?;
        let root = Digest::from_base64(lines.next()?)?;
        Some(Self {
            origin: origin.to_owned(),
            size,
            root,
        })
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old_size)?;
        for hash in &self.proof {
            writeln!(f, "{}", hash.to_base64())?;
        }
        write!(f, "\n{}", self.note)
    }
}

impl FromStr for AddCheckpoint {
    type Err = WitnessRefusal;

    fn from_str(body: &str) -> Result<Self, WitnessRefusal> {
        let bad = WitnessRefusal::Malformed;
        if body.len() > MAX_REQUEST_BYTES {
            return Err(bad("longer than MAX_REQUEST_BYTES"));
        }
        let (head, note) = body
            .split_once("\n\n")
            .ok_or(bad("no empty line before the checkpoint"))?;
        let mut lines = head.split('\n');
        let old_size = lines
            .next()
            .and_then(|line| canonical_number(line.strip_prefix("old ")?))
            .ok_or(bad("the first line is not `old <size>`"))?;
        let mut proof = Vec::new();
        for line in lines {
            if proof.len() >= MAX_PROOF_LINES {
                return Err(bad("more proof lines than 63"));
            }
            let hash = from_base64(line).and_then(|bytes| Digest::from_slice(&bytes));
            proof.push(hash.ok_or(bad("a proof line is not a hash"))?);
        }
        Ok(Self {
            old_size,
            proof,
            note: note
                .parse()
                .map_err(|_| bad("the checkpoint is not a signed note"))?,
        })
    }
}

/// Decides whether a checkpoint may be cosigned. `known` is what was cosigned last for its origin, of which the caller holds
/// the lock until the answer is stored; `keys` are the keys of logs that this witness knows.
pub fn decide(
    request: &AddCheckpoint,
    keys: &[VerifierKey],
    known: impl FnOnce(&str) -> Option<TreeHead>,
) -> Result<TreeHead, WitnessRefusal> {
    let head = TreeHead::of(&request.note).ok_or(WitnessRefusal::Malformed("not a checkpoint"))?;
    let mut of_log = keys.iter().filter(|key| key.name == head.origin).peekable();
    if of_log.peek().is_none() {
        return Err(WitnessRefusal::UnknownLog(head.origin));
    }
    // A line of a known key that does not verify is as good as none.
    if !of_log.any(|key| key.signed(&request.note).is_ok_and(|signed| signed)) {
        return Err(WitnessRefusal::NotSigned);
    }
    if request.old_size > head.size {
        return Err(WitnessRefusal::Malformed(
            "the old size is larger than the checkpoint's",
        ));
    }
    let known = known(&head.origin);
    let known_size = known.as_ref().map_or(0, |known| known.size);
    if let Some(known) = &known
        && known.size == head.size
        && known.root != head.root
    {
        return Err(WitnessRefusal::Fork { known: known.size });
    }
    if request.old_size != known_size {
        return Err(WitnessRefusal::OtherSize { known: known_size });
    }
    let proof = &request.proof;
    let proved = match &known {
        Some(known) if proves_another_history(known.size, &known.root, head.size, &head.root, proof) => {
            return Err(WitnessRefusal::OtherHistory { known: known.size });
        }
        Some(known) => verify_consistency(known.size, &known.root, head.size, &head.root, proof),
        None if proof.is_empty() => Ok(()),
        None => Err(ProofError::Length),
    };
    proved.map_err(WitnessRefusal::Inconsistent)?;
    Ok(head)
}

/// The witness's cosignature line over a checkpoint, for the answer.
pub fn cosignature(
    note: &SignedNote,
    name: &str,
    key: &SigningKey,
    at_seconds: u64,
) -> Result<NoteSignature, NoteError> {
    let mut cosigned = SignedNote::new(note.text())?;
    cosigned.cosign(name, key, at_seconds)?;
    let line = cosigned.signatures().first().cloned();
    line.ok_or(NoteError::Malformed("a cosigned note has a line"))
}

/// Reads the lines of a witness's answer; what is not a signature line is an error.
pub fn read_answer(answer: &str) -> Result<Vec<NoteSignature>, NoteError> {
    if answer.len() > MAX_ANSWER_BYTES {
        return Err(NoteError::TooLarge("MAX_ANSWER_BYTES"));
    }
    answer.lines().map(str::parse).collect()
}

/// A decimal number without leading zeros, at most [`MAX_TREE_SIZE`].
pub fn canonical_number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number <= MAX_TREE_SIZE && number.to_string() == text).then_some(number)
}
