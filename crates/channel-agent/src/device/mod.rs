//! The device as a state machine without I/O, shared by the real agent and the simulated fleet.
//!
//! The caller owns the wire, the disk and the machine. It feeds answers in, gets [`Action`]s out, and persists the whole
//! [`DeviceCore`] (it is plain data) **before** it performs them:
//!
//! 1. [`DeviceCore::checkin_request`] → the wire → [`DeviceCore::on_checkin`] → save → perform the actions.
//! 2. [`Action::Execute`]: [`DeviceCore::begin`] → save → run → [`DeviceCore::on_executed`] → save.
//! 3. [`Action::FetchBundle`]: the wire → [`DeviceCore::on_bundle`] → save → perform the actions.
//! 4. [`Action::Apply`]: change the machine, read it back → [`DeviceCore::on_applied`] → save.
//! 5. After a start: [`DeviceCore::recover`] → save → perform the actions.
//! 6. While [`DeviceCore::has_news`] is true, check in again without waiting.
//!
//! 7. [`Action::Depart`]: forget the identity, and end.
//!
//! A command is executed at most once: it is recorded as started before it runs, and its identifier and outcome are kept,
//! so that a second delivery repeats the receipt and nothing else. What needs approvals is executed once for each approved
//! list, soon after the approvals were checked, and by a clock that a checkpoint of this boot carries.

mod approved;
mod commands;
mod departure;
mod policy;
mod policy_set;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

use muster_model::attestation::Ownership;
use muster_model::command::CommandKind;
use muster_model::id::{CommandId, DeviceId, TenantId};
use muster_model::platform::Platform;
use muster_model::settings::SettingValue;
use muster_model::time::Timestamp;
use muster_trust::checkpoint::Checkpoint;
use muster_trust::dsse::{DsseError, Envelope};
use muster_trust::key::Digest;
use muster_trust::obey::{Refusal, Trust};
use muster_trust::root::RootError;
use muster_trust::statement::{self, Statement, StatementError};
use serde::{Deserialize, Serialize};

use crate::checkin::{CheckinRequest, CheckinResponse, CheckpointUpdate, SeenCheckpoint, WantCheckpoint};
use crate::clock::{ClockReading, TrustedClock};
use crate::enroll::CERTIFICATE_BACKDATED;
use crate::limits::{CONSISTENCY_HASHES_MAX, RECEIPTS_MAX, ROOT_DOCUMENTS_MAX};

pub use approved::{APPROVAL_STALE_CODE, APPROVAL_USED_CODE, TIME_UNPROVEN_CODE};
pub use commands::{Begin, Execution, PERSONAL_DEVICE_CODE, SCRIPT_MISSING_CODE, SCRIPT_REFUSED_CODE};
pub use departure::{DEPARTED_CODE, DEPARTURE_TIME_MAX, Departed};
pub use policy::{PROBATION_FAILURES, PROBATION_TIME, RETRIES_MAX, REVERTED_CODE, SETTINGS_INVALID_CODE};

use commands::Ledger;
use departure::Departure;
use policy::PolicyState;

/// Signs a payload of the given DSSE type with the device key.
pub type Signer<'a> = dyn FnMut(&str, &[u8]) -> Result<Envelope, DsseError> + 'a;

/// Signs one statement as the device.
fn sign_as_device<S: Statement>(statement: &S, sign: &mut Signer<'_>) -> Result<Envelope, StatementError> {
    Ok(sign(S::PAYLOAD_TYPE, &statement::payload(statement)?)?)
}

/// Who the device is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceIdentity {
    /// The tenant that it obeys.
    pub tenant: TenantId,
    /// The identity that enrollment gave it.
    pub device_id: DeviceId,
    /// Which enrollment of the device it is.
    pub epoch: u32,
    /// What the evaluator decides for.
    pub platform: Platform,
    /// Whose it is, as its enrollment said. A full wipe does not exist for a personal device.
    #[serde(default = "crate::enroll::company")]
    pub ownership: Ownership,
}

/// What the caller has to do next, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Something was refused: log it. Nothing else happens on account of it.
    Refused(Refused),
    /// A command is due: call [`DeviceCore::begin`].
    Execute {
        /// Which one.
        command_id: CommandId,
    },
    /// A bundle is needed: download it and call [`DeviceCore::on_bundle`].
    FetchBundle {
        /// SHA-256 of its bytes.
        sha256: Digest,
    },
    /// These settings, and no other managed ones, should be in force: apply, read back, call [`DeviceCore::on_applied`].
    Apply {
        /// The effective settings of all policies together.
        settings: BTreeMap<String, SettingValue>,
    },
    /// A report could not be signed: read back and call [`DeviceCore::on_applied`].
    ReadBack {
        /// The effective settings of all policies together.
        settings: BTreeMap<String, SettingValue>,
    },
    /// Collect the facts, upload them and call [`DeviceCore::on_inventory_sent`].
    SendInventory,
    /// Ask for a fresh certificate.
    Renew,
    /// The device has left the management, and the server knows it or had its time: forget the identity and its key, and
    /// end.
    Depart {
        /// How it left.
        how: Departed,
    },
}

/// What was refused and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What it was: a root document, a checkpoint, a command, a bundle, a desired state.
    pub subject: String,
    /// The stable code.
    pub code: String,
    /// One sentence.
    pub detail: String,
}

/// Words a refusal.
fn refused(subject: impl Into<String>, code: impl Into<String>, detail: impl Into<String>) -> Action {
    Action::Refused(Refused {
        subject: subject.into(),
        code: code.into(),
        detail: detail.into(),
    })
}

/// How a check-in failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckinFailure {
    /// No answer came: name, route, TLS or time.
    Unreachable,
    /// The server answered, but not with a check-in answer. The network works.
    Answered,
}

/// The state of one device. Plain data: cloning it is a snapshot, serializing it is persistence.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceCore {
    identity: DeviceIdentity,
    agent_version: String,
    trust: Trust,
    clock: TrustedClock,
    policy: PolicyState,
    commands: Ledger,
    facts_digest: Option<Digest>,
    /// What the server wants to hear of the checkpoint; nothing of a server that does not know of it.
    #[serde(default)]
    checkpoint_wanted: Option<WantCheckpoint>,
    /// Since when the device is not managed any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    departure: Option<Departure>,
}

impl DeviceCore {
    /// A device fresh from enrollment, with the trust that the enrollment answer established. `certified_from` is where the
    /// validity of its certificate begins.
    ///
    /// What people approved before this moment is for another enrollment, and whoever writes the server's database must not
    /// be able to put the moment back. So it is the wall clock, held between the beginning of a certificate that is over a
    /// fresh key and [`CERTIFICATE_BACKDATED`] after it, or the checkpoint's time where that is later: a checkpoint alone
    /// could be an old one.
    pub fn new(
        identity: DeviceIdentity,
        agent_version: &str,
        mut trust: Trust,
        certified_from: Timestamp,
        reading: &ClockReading,
    ) -> Self {
        let mut clock = TrustedClock::new();
        let mut enrolled_at = reading
            .wall
            .clamp(certified_from, certified_from.plus(CERTIFICATE_BACKDATED));
        if let Some(checkpoint) = &trust.checkpoint {
            clock.observe(checkpoint.time(), reading);
            enrolled_at = enrolled_at.max(checkpoint.time());
        }
        trust.enrolled_at = Some(enrolled_at);
        Self {
            identity,
            agent_version: agent_version.to_owned(),
            trust,
            clock,
            policy: PolicyState::default(),
            commands: Ledger::default(),
            facts_digest: None,
            checkpoint_wanted: None,
            departure: None,
        }
    }

    /// Who the device is.
    pub fn identity(&self) -> &DeviceIdentity {
        &self.identity
    }

    /// Records the version of the program that now carries this state.
    pub fn set_agent_version(&mut self, agent_version: &str) {
        agent_version.clone_into(&mut self.agent_version);
    }

    /// What the device trusts.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The time that expiry is judged by.
    pub fn now(&self, reading: &ClockReading) -> Timestamp {
        self.clock.now(reading)
    }

    /// True when a signed checkpoint of this boot carries the time, so that the wall clock does not matter.
    pub fn has_trusted_time(&self, reading: &ClockReading) -> bool {
        self.clock.is_anchored(reading)
    }

    /// Digest of the bundles in force.
    pub fn state_digest(&self) -> Digest {
        self.policy.state_digest()
    }

    /// Whose the device is, as its enrollment said.
    pub fn ownership(&self) -> Ownership {
        self.identity.ownership
    }

    /// The effective settings in force; none once the device has left.
    pub fn effective_settings(&self) -> BTreeMap<String, SettingValue> {
        if self.departure.is_some() {
            return BTreeMap::new();
        }
        self.policy.effective_settings()
    }

    /// True when the next check-in carries something the server has not seen: do not wait for the interval.
    pub fn has_news(&self) -> bool {
        self.commands.has_receipts() || (self.policy.has_report() && self.departure.is_none())
    }

    /// The next check-in.
    pub fn checkin_request(&mut self, reading: &ClockReading) -> CheckinRequest {
        CheckinRequest {
            epoch: self.identity.epoch,
            state_digest: self.policy.state_digest(),
            tree_size: self.trust.checkpoint.as_ref().map_or(0, Checkpoint::size),
            root_version: self.trust.root.version,
            last_sequence: self.commands.last_sequence(),
            receipts: self.commands.receipts(RECEIPTS_MAX),
            report: match self.departure {
                None => self.policy.take_report_for_sending(),
                Some(_) => None,
            },
            facts_digest: self.facts_digest,
            agent_version: Some(self.agent_version.clone()),
            checkpoint: self.seen_checkpoint(),
            clock: reading.wall,
        }
    }

    fn seen_checkpoint(&self) -> Option<SeenCheckpoint> {
        let (wanted, seen) = (self.checkpoint_wanted?, self.trust.checkpoint.as_ref()?);
        Some(SeenCheckpoint {
            root: *seen.root(),
            note: match wanted {
                WantCheckpoint::Root => None,
                WantCheckpoint::Note => Some(seen.note.clone()),
            },
        })
    }

    /// Takes the answer to [`Self::checkin_request`]. A duplicate or an older answer is harmless.
    pub fn on_checkin(
        &mut self,
        response: &CheckinResponse,
        reading: &ClockReading,
        sign: &mut Signer<'_>,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        self.policy.on_server_reached();
        self.policy.on_report_delivered();
        // The note was for this one check-in; the root goes with every one.
        self.checkpoint_wanted = response
            .want_checkpoint
            .or(self.checkpoint_wanted.map(|_| WantCheckpoint::Root));
        self.commands.on_receipts_accepted(&response.receipts_accepted);
        self.advance_root(&response.root_documents, &mut actions);
        let is_current = match &response.checkpoint {
            None => true,
            Some(update) => self.advance_checkpoint(update, reading, &mut actions),
        };
        if is_current {
            self.take_commands(&response.commands, reading, sign, &mut actions);
        }
        if self.departure.is_some() {
            self.on_told(&response.receipts_accepted, sign);
            actions.extend(self.departs(self.now(reading)));
            return actions;
        }
        if is_current && let Some(desired) = &response.desired {
            self.take_desired(desired, reading, sign, &mut actions);
        }
        // What the answer brings anew is applied and reported by itself.
        if response.want_report && response.desired.is_none() {
            actions.push(Action::Apply {
                settings: self.effective_settings(),
            });
        }
        if response.want_inventory {
            actions.push(Action::SendInventory);
        }
        if response.renew {
            actions.push(Action::Renew);
        }
        actions
    }

    /// Counts a failed check-in. A policy after which the device cannot reach its server any more is reverted to the last
    /// one under which it could.
    pub fn on_checkin_failed(&mut self, failure: CheckinFailure, reading: &ClockReading) -> Vec<Action> {
        match failure {
            CheckinFailure::Answered => {
                // An older server refuses a message with a member that it does not know.
                self.checkpoint_wanted = None;
                self.policy.on_server_reached();
                self.departs(self.now(reading)).into_iter().collect()
            }
            CheckinFailure::Unreachable if self.departure.is_some() => {
                self.departs(self.now(reading)).into_iter().collect()
            }
            CheckinFailure::Unreachable if self.policy.on_server_unreachable(self.now(reading)) => {
                vec![
                    refused(
                        "policy",
                        policy::REVERTED_CODE,
                        "the server could not be reached under the newest policy: the last one that worked is back",
                    ),
                    Action::Apply {
                        settings: self.effective_settings(),
                    },
                ]
            }
            CheckinFailure::Unreachable => Vec::new(),
        }
    }

    /// What has to be done after a start: unfinished commands, and the policy in force. `is_already_true` answers whether
    /// a command's effect is on the machine.
    pub fn recover(
        &mut self,
        reading: &ClockReading,
        is_already_true: &mut dyn FnMut(&CommandKind) -> bool,
        sign: &mut Signer<'_>,
    ) -> Vec<Action> {
        let now = self.now(reading);
        let known = (&self.identity, &self.trust.root);
        let mut actions = self
            .commands
            .recover(known, now, reading.boot, is_already_true, sign);
        self.policy.forget_unfinished();
        if self.departure.is_some() {
            self.on_told(&[], sign);
            actions.extend(self.departs(now));
        } else if !self.policy.is_empty() {
            actions.push(Action::Apply {
                settings: self.effective_settings(),
            });
        }
        actions
    }

    /// Records the digest of facts that the server has accepted.
    pub fn on_inventory_sent(&mut self, facts_digest: Digest) {
        self.facts_digest = Some(facts_digest);
    }

    fn advance_root(&mut self, documents: &[Envelope], actions: &mut Vec<Action>) {
        for envelope in documents.iter().take(ROOT_DOCUMENTS_MAX) {
            match self.trust.advance_root(envelope) {
                Ok(()) => {}
                // An answer that comes twice brings what is known already.
                Err(Refusal::Root(RootError::Version { expected, found })) if found < expected => {}
                Err(refusal) => {
                    return actions.push(refused("root document", refusal.code(), refusal.to_string()));
                }
            }
        }
    }

    /// True if the device now stands at the answer's checkpoint, so that the proofs in the answer can be checked.
    fn advance_checkpoint(
        &mut self,
        update: &CheckpointUpdate,
        reading: &ClockReading,
        actions: &mut Vec<Action>,
    ) -> bool {
        let hashes: Option<Vec<_>> = if update.consistency.len() > CONSISTENCY_HASHES_MAX {
            None
        } else {
            update
                .consistency
                .iter()
                .map(|hash| hash.to_array().map(Digest))
                .collect()
        };
        let Some(hashes) = hashes else {
            let detail = "the consistency proof is not a list of hashes of 32 bytes";
            actions.push(refused("checkpoint", "malformed", detail));
            return false;
        };
        // An answer that comes twice proves the way from where the device was before the first of them: the second stands at
        // the same head, which needs no proof.
        let again =
            |refusal, trust: &mut Trust| trust.advance_checkpoint(&update.note, &[]).map_err(|_| refusal);
        let advanced = self.trust.advance_checkpoint(&update.note, &hashes);
        if let Err(refusal) = advanced.or_else(|refusal| again(refusal, &mut self.trust)) {
            actions.push(refused("checkpoint", refusal.code(), refusal.to_string()));
            return false;
        }
        if let Some(checkpoint) = &self.trust.checkpoint {
            self.clock.observe(checkpoint.time(), reading);
        }
        true
    }
}
