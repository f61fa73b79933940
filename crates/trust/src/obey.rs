//! What a device checks before it obeys.
//!
//! [`Trust`] is what a device remembers: the root document it walked to, the last log head it saw, the time that head
//! proves, and how far it got. Whoever controls the server, the network or the database can withhold things from a device;
//! with these checks, and without the tenant's keys, that is all they can do.

use std::collections::BTreeMap;

use muster_model::id::{CommandId, DeviceId, PolicyId, TenantId};
use muster_model::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::approval::{ApprovalError, ApprovalProof};
use crate::bundle::{self, BundleError, OpenBundle};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::dsse::Envelope;
use crate::entry::{LogEntry, action, detail};
use crate::key::{Digest, sha256};
use crate::merkle::{self, Hash, MAX_PROOF_HASHES, ProofError};
use crate::proof::{LoggedProof, LoggedProofError};
use crate::root::{Role, RootDocument, RootError};
use crate::statement::{
    self, CommandStatement, DesiredBundle, DesiredStateStatement, MAX_DESIRED_BUNDLES, ScriptStatement,
    Statement, StatementError,
};

/// Policies whose generation a device remembers after they no longer apply to it.
pub const MAX_REMEMBERED_POLICIES: usize = 16 * MAX_DESIRED_BUNDLES;

/// What a device remembers of its tenant. Persist it after every change, before acting on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trust {
    /// The newest root document that the device walked to.
    pub root: RootDocument,
    /// The last log head that the device saw.
    pub checkpoint: Option<Checkpoint>,
    /// The latest time that a signed log head proves; never goes back.
    pub trusted_time: Timestamp,
    /// The generation of the last desired state that the device took up.
    pub generation: u64,
    /// Per policy, the generation and digest of the last bundle that the device took up.
    pub applied: BTreeMap<PolicyId, AppliedBundle>,
    /// When this enrollment began: what people approved before is not for it, whatever epoch they wrote. Not known to
    /// devices that enrolled before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enrolled_at: Option<Timestamp>,
}

/// How far a device got with one policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedBundle {
    /// The activation counter.
    pub generation: u64,
    /// The bundle.
    pub sha256: Digest,
}

/// Why a device does not obey. The text of each is a sentence; [`Refusal::code`] is stable.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The root document does not verify, is not the next version or contradicts itself.
    #[error("the root document is refused: {0}")]
    Root(RootError),
    /// The root document is of another tenant.
    #[error("the root document belongs to another tenant")]
    RootTenant,
    /// The newest root document has expired, and with it every key.
    #[error("the root document expired at {0}; nothing is obeyed until a newer one arrives")]
    RootExpired(Timestamp),
    /// The log head does not verify.
    #[error("the checkpoint is refused: {0}")]
    Checkpoint(CheckpointError),
    /// Too few witnesses cosigned the log head.
    #[error("the checkpoint is refused: {0}")]
    Unwitnessed(CheckpointError),
    /// The log head is older than the last one.
    #[error("the checkpoint has {found} entries, this device has already seen {seen}")]
    CheckpointOlder {
        /// Size of the last head that the device saw.
        seen: u64,
        /// Size of the refused head.
        found: u64,
    },
    /// The log head does not extend the last one: history was rewritten or this device is shown another log.
    #[error("the checkpoint does not extend the log that this device has seen: {0}")]
    CheckpointForked(ProofError),
    /// The device has no log head yet, so nothing can be proved to it.
    #[error("this device has not seen a checkpoint yet")]
    NoCheckpoint,
    /// The envelope, its type or its signatures are wrong, or the signed text is malformed.
    #[error("the statement is refused: {0}")]
    Statement(StatementError),
    /// Signed for another tenant.
    #[error("the statement is for another tenant")]
    WrongTenant,
    /// Signed for another device.
    #[error("the statement is for {0}")]
    WrongDevice(DeviceId),
    /// Signed for another enrollment of this device.
    #[error("the statement is for enrollment epoch {found}, this device is in epoch {expected}")]
    WrongEpoch {
        /// The device's epoch.
        expected: u32,
        /// The statement's epoch.
        found: u32,
    },
    /// Authentic, and its number was already used. Answer with the recorded outcome; do not execute again.
    #[error("{command} has sequence {sequence}, this device is already at {last}")]
    Replayed {
        /// The command.
        command: CommandId,
        /// Its sequence number.
        sequence: u64,
        /// The last sequence number that the device accepted.
        last: u64,
    },
    /// Too late.
    #[error("the statement expired at {0}")]
    Expired(Timestamp),
    /// The command needs approvals by people, and brings none.
    #[error("the command needs approvals, and carries none")]
    ApprovalsRequired,
    /// The script is not the one that the command names.
    #[error("the script is not the one that the command names")]
    ScriptMismatch,
    /// Its approvals do not suffice.
    #[error("the approvals are refused: {0}")]
    Approvals(ApprovalError),
    /// The proof does not tie an entry of this tenant to the last log head.
    #[error("the proof of logging is refused: {0}")]
    NotLogged(LoggedProofError),
    /// The entry is logged, and says something else than what it is shown for.
    #[error("the log entry does not record this: its {0} differs")]
    EntryMismatch(&'static str),
    /// Older than what the device already took up.
    #[error("generation {found} is older than generation {seen}, which this device already took up")]
    GenerationRollback {
        /// What the device took up.
        seen: u64,
        /// What it is asked to take up.
        found: u64,
    },
    /// The bundle is not canonical, differs from its manifest or is not signed by the policy role.
    #[error("the bundle is refused: {0}")]
    Bundle(BundleError),
    /// A proper bundle, and not the desired one.
    #[error("the bundle is not the desired one: its {0} differs")]
    BundleMismatch(&'static str),
}

impl Refusal {
    /// The stable code for programs: receipts, logs, problem documents.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Root(_) => "root_invalid",
            Self::RootTenant => "root_wrong_tenant",
            Self::RootExpired(_) => "root_expired",
            Self::Checkpoint(_) => "checkpoint_invalid",
            Self::Unwitnessed(_) => "checkpoint_unwitnessed",
            Self::CheckpointOlder { .. } => "checkpoint_older",
            Self::CheckpointForked(_) => "checkpoint_forked",
            Self::NoCheckpoint => "checkpoint_missing",
            Self::Statement(StatementError::Dsse(_)) => "signature_invalid",
            Self::Statement(_) => "statement_malformed",
            Self::WrongTenant => "wrong_tenant",
            Self::WrongDevice(_) => "wrong_device",
            Self::WrongEpoch { .. } => "wrong_epoch",
            Self::Replayed { .. } => "replayed",
            Self::Expired(_) => "expired",
            Self::ApprovalsRequired => "approvals_required",
            Self::ScriptMismatch => "script_mismatch",
            Self::Approvals(ApprovalError::TooEarly(_)) => "too_early",
            Self::Approvals(ApprovalError::Budget { .. }) => "over_budget",
            Self::Approvals(ApprovalError::RestoreEpoch { .. }) => "wrong_restore_epoch",
            Self::Approvals(ApprovalError::BeforeEnrollment { .. }) => "asked_before_enrollment",
            Self::Approvals(_) => "approvals_invalid",
            Self::NotLogged(_) => "not_logged",
            Self::EntryMismatch(_) => "log_entry_mismatch",
            Self::GenerationRollback { .. } => "generation_rollback",
            Self::Bundle(_) => "bundle_invalid",
            Self::BundleMismatch(_) => "bundle_mismatch",
        }
    }
}

impl Trust {
    /// Starts to trust a tenant at enrollment by its first root document.
    pub fn pin(root_envelope: &Envelope, tenant: TenantId) -> Result<Self, Refusal> {
        let root = RootDocument::verify_first(root_envelope, None).map_err(Refusal::Root)?;
        if root.tenant != tenant {
            return Err(Refusal::RootTenant);
        }
        let trusted_time = root.issued_at;
        Ok(Self {
            root,
            checkpoint: None,
            trusted_time,
            generation: 0,
            applied: BTreeMap::new(),
            enrolled_at: None,
        })
    }

    /// Walks to the next root document. What was accepted under the old one stays, unless the document begins a new restore
    /// epoch: then the log was restored from a backup, and its head and the generations in it are taken up anew. The time
    /// that was proven stays.
    pub fn advance_root(&mut self, envelope: &Envelope) -> Result<(), Refusal> {
        let next = RootDocument::verify_next(&self.root, envelope).map_err(|error| match error {
            RootError::Tenant { .. } => Refusal::RootTenant,
            other => Refusal::Root(other),
        })?;
        if next.restore_epoch != self.root.restore_epoch {
            self.checkpoint = None;
            self.generation = 0;
            self.applied.clear();
        }
        self.root = next;
        Ok(())
    }

    /// Moves to a newer log head, or to a fresher signature on the same one. `consistency` proves that the head extends
    /// the last one; it is empty for the first head and for the same size.
    pub fn advance_checkpoint(&mut self, note_text: &str, consistency: &[Hash]) -> Result<(), Refusal> {
        let opened = Checkpoint::open(note_text, &self.root.log_origin, &self.root.checkpoint_keys());
        let next = opened.map_err(|error| match error {
            CheckpointError::Witnesses { .. } => Refusal::Unwitnessed(error),
            other => Refusal::Checkpoint(other),
        })?;
        if consistency.len() > MAX_PROOF_HASHES {
            return Err(Refusal::CheckpointForked(ProofError::Length));
        }
        if let Some(last) = &self.checkpoint {
            if next.size() < last.size() {
                return Err(Refusal::CheckpointOlder {
                    seen: last.size(),
                    found: next.size(),
                });
            }
            merkle::verify_consistency(last.size(), last.root(), next.size(), next.root(), consistency)
                .map_err(Refusal::CheckpointForked)?;
        }
        self.trusted_time = self.trusted_time.max(next.time());
        self.checkpoint = Some(next);
        Ok(())
    }

    /// Returns the command if this device must execute it now.
    ///
    /// What needs approvals by people brings them in `approval`: see [`ApprovalProof::verify`]. They were asked for after
    /// this enrollment: the epoch that they name is a number that a server counts.
    ///
    /// The order matters: [`Refusal::Replayed`] is returned only for an authentic, logged command of this device, so that
    /// the caller may answer it with the outcome on record; it comes before [`Refusal::Expired`], so that a late duplicate
    /// of a command that was executed still gets that answer.
    pub fn check_command(
        &self,
        envelope: &Envelope,
        proof: &LoggedProof,
        approval: Option<&ApprovalProof>,
        (device, epoch): (DeviceId, u32),
        last_sequence: u64,
        now: Timestamp,
    ) -> Result<CommandStatement, Refusal> {
        let (command, payload_sha256) = self.action_statement::<CommandStatement>(envelope, now)?;
        self.check_addressee(command.tenant, command.device_id, command.epoch, device, epoch)?;
        let entry = self.logged(proof)?;
        expect_entry(entry.action == action::COMMAND_CREATED, "action")?;
        expect_entry(
            entry.detail_digest(detail::STATEMENT_SHA256) == Some(payload_sha256),
            "statement_sha256",
        )?;
        if command.sequence <= last_sequence {
            let (command, sequence) = (command.command_id, command.sequence);
            return Err(Refusal::Replayed {
                command,
                sequence,
                last: last_sequence,
            });
        }
        self.check_expiry(command.expires_at, now)?;
        if self.root.needs_approval(&command.kind) {
            let (approval, batch) = approval.zip(command.batch).ok_or(Refusal::ApprovalsRequired)?;
            let now = now.max(self.trusted_time);
            let approved = approval.verify(&self.root, &command.kind, batch, (device, epoch), now);
            let asked = approved.map_err(Refusal::Approvals)?.statement.requested_at;
            if let Some(enrolled) = self.enrolled_at.filter(|enrolled| asked <= *enrolled) {
                let early = ApprovalError::BeforeEnrollment { asked, enrolled };
                return Err(Refusal::Approvals(early));
            }
        }
        Ok(command)
    }

    /// Returns the desired state if this device should take it up. Its bundles are checked one by one with
    /// [`Trust::check_bundle`]; when all are in force, tell [`Trust::took_up`].
    pub fn check_desired_state(
        &self,
        envelope: &Envelope,
        device: DeviceId,
        epoch: u32,
        now: Timestamp,
    ) -> Result<DesiredStateStatement, Refusal> {
        let (desired, _) = self.action_statement::<DesiredStateStatement>(envelope, now)?;
        self.check_addressee(desired.tenant, desired.device_id, desired.epoch, device, epoch)?;
        if desired.generation < self.generation {
            return Err(Refusal::GenerationRollback {
                seen: self.generation,
                found: desired.generation,
            });
        }
        for bundle in &desired.bundles {
            self.check_generation(bundle)?;
        }
        self.check_expiry(desired.expires_at, now)?;
        Ok(desired)
    }

    /// Returns the opened bundle if it is the desired one, signed by the policy role, activated in the log, and not older
    /// than what this device already took up of the policy.
    pub fn check_bundle(
        &self,
        bytes: &[u8],
        desired: &DesiredBundle,
        proof: &LoggedProof,
    ) -> Result<OpenBundle, Refusal> {
        self.check_generation(desired)?;
        if sha256(bytes) != desired.sha256 {
            return Err(Refusal::BundleMismatch("sha256"));
        }
        let opened = bundle::open(bytes).map_err(Refusal::Bundle)?;
        opened.verify(&self.root).map_err(Refusal::Bundle)?;
        let expect = |holds: bool, what| {
            if holds {
                Ok(())
            } else {
                Err(Refusal::BundleMismatch(what))
            }
        };
        expect(opened.manifest.policy_id == desired.policy_id, "policy_id")?;
        expect(opened.manifest.version == desired.version, "version")?;
        let entry = self.logged(proof)?;
        expect_entry(entry.action == action::ROLLOUT_ACTIVATED, "action")?;
        expect_entry(entry.id == desired.activation_entry, "id")?;
        expect_entry(
            entry.detail_digest(detail::BUNDLE_SHA256) == Some(desired.sha256),
            "bundle_sha256",
        )?;
        let policy_id = entry
            .detail_text(detail::POLICY_ID)
            .and_then(|text| text.parse::<PolicyId>().ok());
        expect_entry(policy_id == Some(desired.policy_id), "policy_id")?;
        expect_entry(
            entry.detail_number(detail::GENERATION) == Some(desired.generation),
            "generation",
        )?;
        Ok(opened)
    }

    /// Remembers that the device took up this desired state, so that it never goes back behind it.
    pub fn took_up(&mut self, desired: &DesiredStateStatement) {
        self.generation = self.generation.max(desired.generation);
        for bundle in &desired.bundles {
            let applied = AppliedBundle {
                generation: bundle.generation,
                sha256: bundle.sha256,
            };
            self.applied.insert(bundle.policy_id, applied);
        }
        while self.applied.len() > MAX_REMEMBERED_POLICIES {
            let current =
                |policy: &PolicyId| desired.bundles.iter().any(|bundle| bundle.policy_id == *policy);
            let others = self.applied.iter().filter(|(policy, _)| !current(policy));
            let Some(oldest) = others
                .min_by_key(|(_, applied)| applied.generation)
                .map(|(policy, _)| *policy)
            else {
                break;
            };
            self.applied.remove(&oldest);
        }
    }

    /// Returns the script that a command names, if the policy role signed it for this tenant.
    pub fn check_script(&self, envelope: &Envelope, named: Digest) -> Result<ScriptStatement, Refusal> {
        let (keys, threshold) = self.root.role(Role::Policy);
        let verified =
            statement::verify::<ScriptStatement>(envelope, &keys, threshold).map_err(Refusal::Statement)?;
        if verified.payload_sha256 != named {
            return Err(Refusal::ScriptMismatch);
        }
        if verified.statement.tenant != self.root.tenant {
            return Err(Refusal::WrongTenant);
        }
        Ok(verified.statement)
    }

    fn action_statement<S: Statement>(
        &self,
        envelope: &Envelope,
        now: Timestamp,
    ) -> Result<(S, Digest), Refusal> {
        if self.root.expires_at <= now.max(self.trusted_time) {
            return Err(Refusal::RootExpired(self.root.expires_at));
        }
        let (keys, threshold) = self.root.role(Role::Action);
        let verified = statement::verify::<S>(envelope, &keys, threshold).map_err(Refusal::Statement)?;
        Ok((verified.statement, verified.payload_sha256))
    }

    fn check_addressee(
        &self,
        tenant: TenantId,
        named: DeviceId,
        named_epoch: u32,
        device: DeviceId,
        epoch: u32,
    ) -> Result<(), Refusal> {
        if tenant != self.root.tenant {
            return Err(Refusal::WrongTenant);
        }
        if named != device {
            return Err(Refusal::WrongDevice(named));
        }
        if named_epoch != epoch {
            return Err(Refusal::WrongEpoch {
                expected: epoch,
                found: named_epoch,
            });
        }
        Ok(())
    }

    fn check_expiry(&self, expires_at: Timestamp, now: Timestamp) -> Result<(), Refusal> {
        if expires_at <= now.max(self.trusted_time) {
            Err(Refusal::Expired(expires_at))
        } else {
            Ok(())
        }
    }

    fn check_generation(&self, bundle: &DesiredBundle) -> Result<(), Refusal> {
        let Some(applied) = self.applied.get(&bundle.policy_id) else {
            return Ok(());
        };
        if bundle.generation < applied.generation {
            return Err(Refusal::GenerationRollback {
                seen: applied.generation,
                found: bundle.generation,
            });
        }
        if bundle.generation == applied.generation && bundle.sha256 != applied.sha256 {
            return Err(Refusal::BundleMismatch("generation"));
        }
        Ok(())
    }

    fn logged(&self, proof: &LoggedProof) -> Result<LogEntry, Refusal> {
        let checkpoint = self.checkpoint.as_ref().ok_or(Refusal::NoCheckpoint)?;
        proof
            .verify(&checkpoint.body, self.root.tenant)
            .map_err(Refusal::NotLogged)
    }
}

fn expect_entry(holds: bool, field: &'static str) -> Result<(), Refusal> {
    if holds {
        Ok(())
    } else {
        Err(Refusal::EntryMismatch(field))
    }
}
