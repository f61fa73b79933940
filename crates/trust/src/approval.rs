//! Approvals: what people sign before devices carry out something destructive.
//!
//! People sign one [`BatchStatement`]: the command with its arguments, the exact list of devices as a Merkle root, how many
//! of them may begin in an hour, from when and until when. A device is shown the statement, the signatures and the path of
//! its own leaf; it counts people, not keys or accounts.

use std::collections::BTreeSet;
use std::time::Duration;

use muster_model::command::CommandKind;
use muster_model::id::{DeviceId, TenantId};
use muster_model::text::Description;
use muster_model::time::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::dsse::{MAX_SIGNATURE_BYTES, pae};
use crate::encoding::{base64_bytes, base64_hashes, from_strict_json};
use crate::key::{Digest, KeyId, PublicKey, SigningKey, sha256, sha256_of};
use crate::merkle::{self, BuildError, Hash, MAX_PROOF_HASHES, Node, ProofError, leaf_hash};
use crate::passkey;
use crate::root::{Approver, RelyingParty, Role, RootDocument};
use crate::statement::{Statement, StatementError, payload};

/// Devices of one batch.
pub const MAX_BATCH_TARGETS: u64 = 1_000_000;
/// Approvals that one batch carries.
pub const MAX_APPROVALS: usize = 32;
/// Longest id of an account in a statement or a root document, in characters.
pub const MAX_ACCOUNT_CHARS: usize = 128;

const TARGET_CONTEXT: &[u8] = b"muster-batch-target-v1\0";
const HOUR: u64 = 3600;

/// What approvers sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchStatement {
    /// Whose devices.
    pub tenant: TenantId,
    /// The operation at the server that this is about.
    pub operation: Uuid,
    /// The command with its arguments; each device's command must be this one.
    pub kind: CommandKind,
    /// How many devices; 1 to [`MAX_BATCH_TARGETS`].
    pub count: u64,
    /// Root of the Merkle tree (RFC 6962 section 2.1) over [`target_leaf`] of each device, in their order.
    pub targets_root: Digest,
    /// How many devices may begin in one hour, in the order of the list; within the root document's budget.
    pub per_hour: u32,
    /// Active devices of the tenant when it was asked: the fraction of the budget is of this number.
    pub fleet: u64,
    /// The account that asked. Its person does not count among those who approve, whichever key they sign with.
    pub requested_by: String,
    /// When it was asked, by the server's clock.
    pub requested_at: Timestamp,
    /// When the first device may begin.
    pub not_before: Timestamp,
    /// Until when devices may begin.
    pub expires_at: Timestamp,
    /// The restore epoch of the root document it was asked under. After a restore nothing asked before is carried out.
    pub restore_epoch: u32,
    /// Why, for those who decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Description>,
}

impl Statement for BatchStatement {
    const PAYLOAD_TYPE: &'static str = "application/vnd.muster.batch+json";
    const MAX_BYTES: usize = 64 * 1024;

    fn check(&self) -> Result<(), StatementError> {
        let ensure = |holds: bool, what| {
            if holds {
                Ok(())
            } else {
                Err(StatementError::Invalid(what))
            }
        };
        self.kind
            .check()
            .map_err(|_| StatementError::Invalid("the command's arguments are out of bounds"))?;
        ensure(
            (1..=MAX_BATCH_TARGETS).contains(&self.count),
            "the number of devices is not 1 to MAX_BATCH_TARGETS",
        )?;
        ensure(self.per_hour > 0, "no device may begin")?;
        ensure(is_account(&self.requested_by), "the account is no account's id")?;
        ensure(
            self.requested_at <= self.not_before && self.not_before < self.expires_at,
            "it expires before it begins",
        )
    }
}

impl BatchStatement {
    /// When the device at this position of the list, from 0, may begin.
    pub fn slot(&self, position: u64) -> Timestamp {
        let hours = position / u64::from(self.per_hour.max(1));
        self.not_before
            .plus(Duration::from_secs(hours.saturating_mul(HOUR)))
    }
}

/// True for what may stand as the id of an account: 1 to [`MAX_ACCOUNT_CHARS`] printable ASCII characters.
pub fn is_account(text: &str) -> bool {
    (1..=MAX_ACCOUNT_CHARS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The id of an account as statements and root documents write it: what is not a letter, digit or one of `._~@+-:` of ASCII
/// is percent-encoded (RFC 3986 section 2.1), so that a person's name is one as well. What is longer is its SHA-256.
pub fn account_of(actor: &str) -> String {
    let mut account = String::with_capacity(actor.len());
    for byte in actor.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'~' | b'@' | b'+' | b'-' | b':' => {
                account.push(char::from(byte));
            }
            _ => account.push_str(&format!("%{byte:02X}")),
        }
    }
    if account.len() > MAX_ACCOUNT_CHARS {
        return format!("sha256:{}", sha256(actor.as_bytes()).to_hex());
    }
    account
}

/// The leaf of a device: context, the 16 bytes of its id, and its enrollment epoch as 4 bytes, big end first.
pub fn target_leaf(device: DeviceId, epoch: u32) -> Hash {
    let id = device.uuid();
    let target = [TARGET_CONTEXT, id.as_bytes(), &epoch.to_be_bytes()];
    leaf_hash(&target.concat())
}

/// The list of a batch, with its tree.
#[derive(Debug, Clone)]
pub struct TargetList {
    /// The levels of the tree: the leaves first. Level `n` holds the roots of complete subtrees of 2ⁿ leaves.
    levels: Vec<Vec<Hash>>,
}

impl TargetList {
    /// The tree over devices in their order.
    pub fn new(targets: impl IntoIterator<Item = (DeviceId, u32)>) -> Self {
        let mut levels = vec![
            targets
                .into_iter()
                .map(|(device, epoch)| target_leaf(device, epoch))
                .collect::<Vec<_>>(),
        ];
        while let Some(below) = levels.last().filter(|level| level.len() > 1) {
            let above = below
                .chunks_exact(2)
                .map(|pair| merkle::node_hash(&pair[0], &pair[1]))
                .collect();
            levels.push(above);
        }
        Self { levels }
    }

    /// How many devices.
    pub fn count(&self) -> u64 {
        self.levels[0].len() as u64
    }

    /// What the statement has as `targets_root`.
    pub fn root(&self) -> Hash {
        merkle::root(self.count(), |node| self.hash(node)).unwrap_or_else(|_| merkle::empty_root())
    }

    /// The path of the device at a position, from 0; nothing where the list is shorter.
    pub fn path(&self, position: u64) -> Option<Vec<Hash>> {
        merkle::inclusion_proof(position, self.count(), |node| self.hash(node)).ok()
    }

    fn hash(&self, node: Node) -> Result<Hash, BuildError<std::convert::Infallible>> {
        let level = self.levels.get(usize::from(node.height));
        let index = usize::try_from(node.index).unwrap_or(usize::MAX);
        level
            .and_then(|level| level.get(index))
            .copied()
            .ok_or(BuildError::Missing(node))
    }
}

/// A passkey's assertion (W3C Web Authentication Level 3, section 7.2): what was signed besides the challenge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assertion {
    #[serde(with = "base64_bytes")]
    pub authenticator_data: Vec<u8>,
    #[serde(with = "base64_bytes")]
    pub client_data_json: Vec<u8>,
}

/// One person's approval: a signature over the DSSE pre-authentication encoding of the statement, or a passkey's assertion
/// whose challenge is the SHA-256 of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Which key of the root document's approvers.
    pub keyid: KeyId,
    #[serde(with = "base64_bytes")]
    pub sig: Vec<u8>,
    /// Of a passkey.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<Assertion>,
}

/// A batch with what was signed for it so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovedBatch {
    /// The bytes of the [`BatchStatement`].
    #[serde(with = "base64_bytes")]
    pub payload: Vec<u8>,
    pub approvals: Vec<Approval>,
}

/// What a device is shown with a command that needs approvals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalProof {
    pub batch: ApprovedBatch,
    /// The device's place in the list, from 0.
    pub position: u64,
    /// The path of its leaf to the root of the list, lowest sibling first.
    #[serde(with = "base64_hashes")]
    pub path: Vec<Hash>,
}

/// Why approvals do not suffice.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ApprovalError {
    #[error("the approvals break the limit {0}")]
    TooLarge(&'static str),
    #[error("the batch is refused: {0}")]
    Statement(#[from] StatementError),
    #[error("the batch is of another tenant")]
    Tenant,
    #[error("the batch was asked in restore epoch {found}, the root document is in {expected}")]
    RestoreEpoch { expected: u32, found: u32 },
    #[error("the approval by key {0} does not verify")]
    BadSignature(KeyId),
    #[error("the passkey's assertion by key {key} is refused: {why}")]
    Assertion { key: KeyId, why: &'static str },
    #[error("the root document names nobody who approves")]
    NobodyApproves,
    #[error("{valid} of {threshold} people approved")]
    Threshold { valid: u32, threshold: u32 },
    #[error("{found} devices an hour are more than the budget of {budget}")]
    Budget { budget: u64, found: u64 },
    #[error("the first device begins sooner than {0} s after the request")]
    Hurried(u64),
    #[error("this device is not on the list that was approved: {0}")]
    NotListed(ProofError),
    #[error("the approved command is another one: its {0} differs")]
    Mismatch(&'static str),
    #[error("this device may not begin before {0}")]
    TooEarly(Timestamp),
    #[error("the approval expired at {0}")]
    Expired(Timestamp),
    #[error("it was asked at {asked}, before this device enrolled at {enrolled}")]
    BeforeEnrollment { asked: Timestamp, enrolled: Timestamp },
}

/// A batch that enough people approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approved {
    pub statement: BatchStatement,
    /// SHA-256 of the statement's bytes: what a command statement has as `batch`.
    pub sha256: Digest,
    /// Who approved, by the names of the root document.
    pub people: BTreeSet<String>,
}

impl ApprovedBatch {
    /// A batch that nobody has approved yet.
    pub fn new(statement: &BatchStatement) -> Result<Self, StatementError> {
        Ok(Self {
            payload: payload(statement)?,
            approvals: Vec::new(),
        })
    }

    /// What a command statement has as `batch`.
    pub fn sha256(&self) -> Digest {
        sha256(&self.payload)
    }

    /// What approvers sign; a passkey's challenge is its SHA-256.
    pub fn to_sign(&self) -> Vec<u8> {
        pae(BatchStatement::PAYLOAD_TYPE, &self.payload)
    }

    /// Reads what the statement says, without any signature.
    pub fn read(&self) -> Result<BatchStatement, StatementError> {
        let statement: BatchStatement = from_strict_json(&self.payload, BatchStatement::MAX_BYTES)?;
        statement.check()?;
        Ok(statement)
    }

    /// Approves with a key on this machine.
    pub fn approve(&self, key: &SigningKey) -> Result<Approval, crate::key::KeyError> {
        Ok(Approval {
            keyid: key.key_id(),
            sig: key.sign(&self.to_sign())?,
            assertion: None,
        })
    }

    /// Adds an approval; one by the same key is replaced.
    pub fn add(&mut self, approval: Approval) {
        self.approvals.retain(|known| known.keyid != approval.keyid);
        self.approvals.push(approval);
    }

    /// The person whose valid approval this is, whatever else is missing: the key is an approver's, old enough, and not of
    /// whoever asked.
    pub fn person<'r>(
        &self,
        approval: &Approval,
        root: &'r RootDocument,
        now: Timestamp,
    ) -> Result<Counted<'r>, ApprovalError> {
        let statement = self.checked(root)?;
        self.counted(&statement, approval, root, now)
    }

    /// The statement, if enough people approved it by this root document. Keys that the document does not name are ignored;
    /// a wrong signature by one that it names refuses the whole.
    pub fn verify(&self, root: &RootDocument, now: Timestamp) -> Result<Approved, ApprovalError> {
        let statement = self.checked(root)?;
        let (_, threshold) = root.role(Role::Approver);
        if threshold == 0 {
            return Err(ApprovalError::NobodyApproves);
        }
        let mut people = BTreeSet::new();
        for approval in &self.approvals {
            if let Counted::Yes(approver) = self.counted(&statement, approval, root, now)? {
                people.insert(approver.person.to_string());
            }
        }
        let valid = u32::try_from(people.len()).unwrap_or(u32::MAX);
        if valid < threshold {
            return Err(ApprovalError::Threshold { valid, threshold });
        }
        let budget = root.budgets.destructive_per_hour(statement.fleet);
        if u64::from(statement.per_hour) > budget {
            let found = statement.per_hour.into();
            return Err(ApprovalError::Budget { budget, found });
        }
        let delay = Duration::from_secs(root.approval.delay_seconds.into());
        if statement.not_before < statement.requested_at.plus(delay) {
            return Err(ApprovalError::Hurried(delay.as_secs()));
        }
        Ok(Approved {
            statement,
            sha256: self.sha256(),
            people,
        })
    }

    fn checked(&self, root: &RootDocument) -> Result<BatchStatement, ApprovalError> {
        if self.approvals.len() > MAX_APPROVALS {
            return Err(ApprovalError::TooLarge("MAX_APPROVALS"));
        }
        let statement = self.read()?;
        if statement.tenant != root.tenant {
            return Err(ApprovalError::Tenant);
        }
        if statement.restore_epoch != root.restore_epoch {
            return Err(ApprovalError::RestoreEpoch {
                expected: root.restore_epoch,
                found: statement.restore_epoch,
            });
        }
        Ok(statement)
    }

    fn counted<'r>(
        &self,
        statement: &BatchStatement,
        approval: &Approval,
        root: &'r RootDocument,
        now: Timestamp,
    ) -> Result<Counted<'r>, ApprovalError> {
        let approver = root.approvers.get(&approval.keyid);
        let key = root.keys.get(&approval.keyid);
        let (Some(approver), Some(key)) = (approver, key) else {
            return Ok(Counted::Unknown);
        };
        self.check_signature(approval, approver, key)?;
        if root.is_account_of(&approver.person, &statement.requested_by) {
            return Ok(Counted::Requester(approver));
        }
        let cool_down = Duration::from_secs(root.approval.cool_down_seconds.into());
        let counts_from = approver.added_at.plus(cool_down);
        if now < counts_from {
            return Ok(Counted::TooNew(approver, counts_from));
        }
        Ok(Counted::Yes(approver))
    }

    fn check_signature(
        &self,
        approval: &Approval,
        approver: &Approver,
        key: &PublicKey,
    ) -> Result<(), ApprovalError> {
        if approval.sig.len() > MAX_SIGNATURE_BYTES {
            return Err(ApprovalError::TooLarge("MAX_SIGNATURE_BYTES"));
        }
        let keyid = approval.keyid;
        let refused = |why| ApprovalError::Assertion { key: keyid, why };
        let message = match (&approver.passkey, &approval.assertion) {
            (None, None) => self.to_sign(),
            (Some(party), Some(assertion)) => assertion
                .signed_message(party, &sha256(&self.to_sign()))
                .map_err(refused)?,
            (None, Some(_)) => return Err(refused("the key is not a passkey")),
            (Some(_), None) => return Err(refused("the key is a passkey, and the assertion is missing")),
        };
        key.verify(&message, &approval.sig)
            .map_err(|_| ApprovalError::BadSignature(keyid))
    }
}

/// Whether an approval counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted<'r> {
    Yes(&'r Approver),
    /// The root document does not name the key.
    Unknown,
    /// The person is the one who asked.
    Requester(&'r Approver),
    /// The key was named too short a time ago; it counts from then on.
    TooNew(&'r Approver, Timestamp),
}

impl Assertion {
    /// Checks that a passkey of this site answered this challenge (W3C Web Authentication Level 3, section 7.2). `why` it is refused
    /// otherwise is for people.
    pub fn verify(
        &self,
        party: &RelyingParty,
        challenge: &Digest,
        key: &PublicKey,
        signature: &[u8],
    ) -> Result<(), &'static str> {
        if signature.len() > MAX_SIGNATURE_BYTES {
            return Err("the signature is too long");
        }
        let message = self.signed_message(party, challenge)?;
        key.verify(&message, signature)
            .map_err(|_| "the signature is not by this key")
    }

    /// Checks everything but the signature (W3C Web Authentication Level 3, section 7.2, steps 11 to 22), and answers what
    /// was signed.
    fn signed_message(&self, party: &RelyingParty, challenge: &Digest) -> Result<Vec<u8>, &'static str> {
        let (data, client) = (&self.authenticator_data, &self.client_data_json);
        passkey::check_client_data(client, "webauthn.get", &party.origin, challenge)?;
        passkey::check_authenticator_data(data, &party.id)?;
        Ok([data.as_slice(), sha256_of(&[client]).as_bytes()].concat())
    }
}

impl ApprovalProof {
    /// What a device checks: enough people approved exactly this command for exactly this device, within the budget, and
    /// its hour has come.
    pub fn verify(
        &self,
        root: &RootDocument,
        kind: &CommandKind,
        batch: Digest,
        (device, epoch): (DeviceId, u32),
        now: Timestamp,
    ) -> Result<Approved, ApprovalError> {
        if self.path.len() > MAX_PROOF_HASHES {
            return Err(ApprovalError::TooLarge("MAX_PROOF_HASHES"));
        }
        if self.batch.sha256() != batch {
            return Err(ApprovalError::Mismatch("batch"));
        }
        let approved = self.batch.verify(root, now)?;
        let statement = &approved.statement;
        if statement.kind != *kind {
            return Err(ApprovalError::Mismatch("kind"));
        }
        merkle::verify_inclusion(
            &target_leaf(device, epoch),
            self.position,
            statement.count,
            &self.path,
            &statement.targets_root,
        )
        .map_err(ApprovalError::NotListed)?;
        if statement.expires_at <= now {
            return Err(ApprovalError::Expired(statement.expires_at));
        }
        let slot = statement.slot(self.position);
        if now < slot {
            return Err(ApprovalError::TooEarly(slot));
        }
        Ok(approved)
    }
}
