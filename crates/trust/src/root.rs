//! The root document of a tenant: which keys may sign what, how many of them must, and what no signature may exceed.
//!
//! Documents are versioned; each is signed by the threshold of its predecessor's root keys and of its own, as in The Update
//! Framework (<https://theupdateframework.github.io/specification/latest/>, section 5.3). A device pins version 1 and walks
//! forward only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use muster_model::command::CommandKind;
use muster_model::id::TenantId;
use muster_model::text::Name;
use muster_model::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::approval::is_account;
use crate::checkpoint::{self, CheckpointKeys};
use crate::dsse::{self, DsseError, Envelope};
use crate::encoding::{JsonError, from_strict_json};
use crate::key::{Algorithm, Digest, KeyId, PublicKey, SigningKey, sha256};

/// Payload type of a root document's envelope.
pub const PAYLOAD_TYPE: &str = "application/vnd.muster.root+json";
/// Longest root document.
pub const MAX_ROOT_BYTES: usize = 256 * 1024;
/// Most keys in a root document.
pub const MAX_ROOT_KEYS: usize = 256;
/// Most device CA certificates that a root document names.
pub const MAX_DEVICE_CAS: usize = 32;
/// Most foreign heads of the log that a root document settles.
pub const MAX_SETTLED_HEADS: usize = 128;
/// Most root documents that one walk forward may take.
pub const MAX_ROOT_STEPS: usize = 1024;

/// What a key may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Root documents.
    Root,
    /// Policy bundles.
    Policy,
    /// Commands and desired states.
    Action,
    /// Approvals of destructive commands.
    Approver,
    /// Checkpoints of the log.
    Log,
    /// Cosignatures on checkpoints.
    Witness,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 6] = [
        Self::Root,
        Self::Policy,
        Self::Action,
        Self::Approver,
        Self::Log,
        Self::Witness,
    ];

    /// Whether a tenant can do without: then its threshold is 0.
    fn is_optional(self) -> bool {
        match self {
            Self::Approver | Self::Witness => true,
            Self::Root | Self::Policy | Self::Action | Self::Log => false,
        }
    }

    /// Notes are signed with Ed25519 only.
    fn signs_notes(self) -> bool {
        match self {
            Self::Log | Self::Witness => true,
            Self::Root | Self::Policy | Self::Action | Self::Approver => false,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root",
            Self::Policy => "policy",
            Self::Action => "action",
            Self::Approver => "approver",
            Self::Log => "log",
            Self::Witness => "witness",
        })
    }
}

/// The keys of a role and how many distinct ones must sign.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleKeys {
    /// Names of keys in [`RootDocument::keys`].
    pub keys: BTreeSet<KeyId>,
    /// How many must sign; 0 only for an approver or witness role without keys or not required.
    pub threshold: u32,
}

/// What destructive commands may not exceed, whoever signs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budgets {
    /// Devices per hour that are always allowed.
    pub destructive_per_hour_min: u32,
    /// Fraction of the fleet per hour, 0 to 1; the larger of the two counts.
    pub destructive_fraction: f64,
}

/// The budgets of a fresh install: 5 devices or half a percent of the fleet in an hour.
pub const DEFAULT_BUDGETS: Budgets = Budgets {
    destructive_per_hour_min: 5,
    destructive_fraction: 0.005,
};

impl Budgets {
    /// How many devices may begin something destructive in one hour, of a fleet of this many active devices.
    pub fn destructive_per_hour(&self, fleet: u64) -> u64 {
        // Far below the 2⁵³ where an f64 loses whole numbers; the result is not negative and not above the fleet.
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the fraction is 0 to 1 and a fleet is far below 2^53"
        )]
        let share = (self.destructive_fraction * fleet as f64).floor() as u64;
        share.max(self.destructive_per_hour_min.into())
    }
}

/// Accounts of one approver.
pub const MAX_ACCOUNTS: usize = 16;
/// Longest id of a relying party, and longest origin, in characters.
const MAX_ORIGIN_CHARS: usize = 253;

/// Whose an approver key is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approver {
    /// The person. Two keys of one person count once.
    pub person: Name,
    /// The person's accounts at the server, as [`account_of`](crate::approval::account_of) writes them: the name that a
    /// sign-in link was made for (`ada`), the id of a service account (`cli_…`). What these ask for, this person cannot
    /// approve, with this key or with another.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub accounts: BTreeSet<String>,
    /// When the key was named first. It counts after the cool-down.
    pub added_at: Timestamp,
    /// Where the key is a passkey: the site that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passkey: Option<RelyingParty>,
}

/// The site that a passkey belongs to (W3C Web Authentication Level 3, section 4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelyingParty {
    /// A domain, such as `muster.example`.
    pub id: String,
    /// What browsers state, such as `https://muster.example:8440`.
    pub origin: String,
}

/// What approvals are held to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApprovalRules {
    /// How long a new approver's key does not count.
    pub cool_down_seconds: u32,
    /// How long the first device waits after the request, so that somebody can stop it.
    pub delay_seconds: u32,
    /// Types of commands that need approvals besides those that always do.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub also: BTreeSet<String>,
}

impl Default for ApprovalRules {
    /// A day for a new approver, five minutes before the first device.
    fn default() -> Self {
        Self {
            cool_down_seconds: 86_400,
            delay_seconds: 300,
            also: BTreeSet::new(),
        }
    }
}

impl RelyingParty {
    /// The party of a site that people reach at this origin, such as `https://muster.example:8440`: its id is the whole
    /// name of the host. Browsers give no passkeys to addresses.
    pub fn of_origin(origin: &str) -> Result<Self, &'static str> {
        let host = origin.split_once("://").map_or("", |(_, rest)| rest);
        let host = host.split(':').next().unwrap_or_default();
        if host.is_empty() || host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok() {
            return Err("an origin has an address where a passkey needs a name");
        }
        let party = Self {
            id: host.to_owned(),
            origin: origin.to_owned(),
        };
        party.check()?;
        Ok(party)
    }

    fn check(&self) -> Result<(), &'static str> {
        let is_bounded = |text: &str| (1..=MAX_ORIGIN_CHARS).contains(&text.len());
        if !is_bounded(&self.id) || !is_bounded(&self.origin) {
            return Err("a relying party's id or origin is empty or too long");
        }
        // Browsers give passkeys to secure contexts alone; localhost is one without TLS.
        let host_and_port = self
            .origin
            .strip_prefix("https://")
            .or_else(|| {
                self.origin
                    .strip_prefix("http://")
                    .filter(|host| host.starts_with("localhost"))
            })
            .ok_or("an origin is not one of https")?;
        let host = host_and_port.split(':').next().unwrap_or_default();
        if host == self.id || host.ends_with(&format!(".{}", self.id)) {
            Ok(())
        } else {
            Err("an origin is not within its relying party's id")
        }
    }
}

/// What tells two names apart: letters and digits, whatever their case. A name without any is itself.
fn letters(name: &Name) -> String {
    let letters: String = name
        .as_str()
        .chars()
        .filter(|char| char.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect();
    if letters.is_empty() {
        name.to_string()
    } else {
        letters
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A tenant's root document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootDocument {
    /// Whose keys these are.
    pub tenant: TenantId,
    /// From 1, up by 1.
    pub version: u64,
    /// When it was written.
    pub issued_at: Timestamp,
    /// After this time nothing is obeyed until a newer document arrives.
    pub expires_at: Timestamp,
    /// The public keys by their names.
    pub keys: BTreeMap<KeyId, PublicKey>,
    /// Which keys serve which role; a key serves one role.
    pub roles: BTreeMap<Role, RoleKeys>,
    /// The origin line of the tenant's log.
    pub log_origin: String,
    /// Limits on destructive commands.
    pub budgets: Budgets,
    /// SHA-256 of the DER of each certificate that issues device certificates.
    pub device_ca_sha256: Vec<Digest>,
    /// Whose the approver keys are: one line for each of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub approvers: BTreeMap<KeyId, Approver>,
    /// What approvals are held to.
    #[serde(default, skip_serializing_if = "is_default")]
    pub approval: ApprovalRules,
    /// Up by one after a restore from a backup: nothing destructive that was asked before is carried out, and devices take
    /// up the restored log anew.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restore_epoch: u32,
    /// Roots of signed heads that devices hold and that the tenant's log does not have: whoever holds the root keys has looked
    /// into each, and it holds nothing up any more.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub settled_heads: BTreeSet<Digest>,
}

/// Why a root document was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RootError {
    /// The envelope or a threshold of signatures is wrong.
    #[error("the root document's signatures: {0}")]
    Dsse(#[from] DsseError),
    /// Not the JSON of a root document.
    #[error("not a root document: {0}")]
    Json(#[from] JsonError),
    /// It contradicts itself.
    #[error("the root document is invalid: {0}")]
    Invalid(String),
    /// The document of another tenant.
    #[error("the root document belongs to {found}, expected {expected}")]
    Tenant {
        /// Whose document the reader wants.
        expected: TenantId,
        /// Whose it is.
        found: TenantId,
    },
    /// Not the next version.
    #[error("the root document has version {found}, expected {expected}")]
    Version {
        /// The version that may come next.
        expected: u64,
        /// The version found.
        found: u64,
    },
    /// Not the document that was pinned.
    #[error("the root document is not the pinned one")]
    NotPinned,
}

impl RootDocument {
    /// Signs this document with the keys given.
    pub fn sign(&self, keys: &[&SigningKey]) -> Result<Envelope, RootError> {
        self.check()?;
        Ok(dsse::sign(PAYLOAD_TYPE, &self.to_bytes(), keys)?)
    }

    /// The JSON bytes that are signed.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a root document has only string keys and finite numbers")
    }

    /// Verifies version 1, which vouches for itself, and its digest if one was pinned out of band.
    pub fn verify_first(envelope: &Envelope, pinned: Option<&Digest>) -> Result<Self, RootError> {
        let document = Self::read(&envelope.payload)?;
        if pinned.is_some_and(|pinned| *pinned != sha256(&envelope.payload)) {
            return Err(RootError::NotPinned);
        }
        if document.version != 1 {
            return Err(RootError::Version {
                expected: 1,
                found: document.version,
            });
        }
        document.verify(Role::Root, PAYLOAD_TYPE, envelope)?;
        Ok(document)
    }

    /// Verifies the successor of `current`: signed by the threshold of both, next version, same tenant.
    pub fn verify_next(current: &Self, envelope: &Envelope) -> Result<Self, RootError> {
        let document = Self::read(&current.verify(Role::Root, PAYLOAD_TYPE, envelope)?)?;
        document.verify(Role::Root, PAYLOAD_TYPE, envelope)?;
        if document.tenant != current.tenant {
            return Err(RootError::Tenant {
                expected: current.tenant,
                found: document.tenant,
            });
        }
        // At the last number there is no successor, not even itself.
        let (expected, found) = (current.version.saturating_add(1), document.version);
        if found != expected || found == current.version {
            return Err(RootError::Version { expected, found });
        }
        if document.restore_epoch < current.restore_epoch {
            return Err(RootError::Invalid("the restore epoch goes back".to_owned()));
        }
        Ok(document)
    }

    /// The keys of a role and their threshold; no keys and 0 if the document does not name the role.
    pub fn role(&self, role: Role) -> (Vec<&PublicKey>, u32) {
        let Some(members) = self.roles.get(&role) else {
            return (Vec::new(), 0);
        };
        (
            members.keys.iter().filter_map(|id| self.keys.get(id)).collect(),
            members.threshold,
        )
    }

    /// Returns the envelope's payload if it has this type and the threshold of the role's keys signed it.
    pub fn verify(&self, role: Role, payload_type: &str, envelope: &Envelope) -> Result<Vec<u8>, DsseError> {
        let (keys, threshold) = self.role(role);
        envelope.verify(payload_type, &keys, threshold)
    }

    /// Who must have signed a checkpoint of this tenant's log.
    pub fn checkpoint_keys(&self) -> CheckpointKeys<'_> {
        let (log, log_threshold) = self.role(Role::Log);
        let (witnesses, witness_threshold) = self.role(Role::Witness);
        CheckpointKeys {
            log,
            log_threshold,
            witnesses,
            witness_threshold,
        }
    }

    /// Checks that the document does not contradict itself.
    pub fn check(&self) -> Result<(), RootError> {
        let ensure = |holds: bool, what: &str| {
            if holds {
                Ok(())
            } else {
                Err(RootError::Invalid(what.to_owned()))
            }
        };
        ensure(self.version >= 1, "versions start at 1")?;
        ensure(self.issued_at < self.expires_at, "it expires before it is issued")?;
        ensure(
            self.log_origin == checkpoint::origin(self.tenant),
            "the log origin is not that of the tenant",
        )?;
        ensure(self.keys.len() <= MAX_ROOT_KEYS, "more keys than MAX_ROOT_KEYS")?;
        ensure(
            self.device_ca_sha256.len() <= MAX_DEVICE_CAS,
            "more device CAs than MAX_DEVICE_CAS",
        )?;
        ensure(
            self.settled_heads.len() <= MAX_SETTLED_HEADS,
            "more settled heads than MAX_SETTLED_HEADS",
        )?;
        ensure(
            self.keys.iter().all(|(id, key)| key.key_id() == *id),
            "a key has another name than its hash",
        )?;
        ensure(
            (0.0..=1.0).contains(&self.budgets.destructive_fraction),
            "the destructive fraction is not 0 to 1",
        )?;
        let mut used = BTreeSet::new();
        for role in Role::ALL {
            let absent = RoleKeys::default();
            self.check_role(role, self.roles.get(&role).unwrap_or(&absent), &mut used)?;
        }
        ensure(used.len() == self.keys.len(), "a key has no role")?;
        self.check_approvers()
    }

    /// Whether a device carries a command out only with approvals.
    pub fn needs_approval(&self, kind: &CommandKind) -> bool {
        kind.is_destructive() || self.approval.also.contains(kind.type_name())
    }

    /// Whether an account is one that a person asks from, by any of the person's keys. Accounts that differ only by the
    /// case of ASCII letters are taken for one.
    pub fn is_account_of(&self, person: &Name, account: &str) -> bool {
        self.approvers
            .values()
            .filter(|approver| approver.person == *person)
            .flat_map(|approver| &approver.accounts)
            .any(|known| known.eq_ignore_ascii_case(account))
    }

    /// Whether an account is one that some person asks from.
    pub fn names_account(&self, account: &str) -> bool {
        self.approvers
            .values()
            .any(|approver| self.is_account_of(&approver.person, account))
    }

    /// Whether one person asks from both of these accounts.
    pub fn are_of_one_person(&self, one: &str, other: &str) -> bool {
        let mut people = self.approvers.values().map(|approver| &approver.person);
        people.any(|person| self.is_account_of(person, one) && self.is_account_of(person, other))
    }

    fn check_approvers(&self) -> Result<(), RootError> {
        let invalid = |what: &str| Err(RootError::Invalid(format!("approvers: {what}")));
        let absent = RoleKeys::default();
        let members = self.roles.get(&Role::Approver).unwrap_or(&absent);
        if !members.keys.iter().eq(self.approvers.keys()) {
            return invalid("not exactly the keys of the role have a person");
        }
        let people: BTreeSet<&Name> = self.approvers.values().map(|approver| &approver.person).collect();
        if members.threshold as usize > people.len() {
            return invalid("the threshold is larger than the number of people");
        }
        let told_apart: BTreeSet<String> = people.iter().map(|person| letters(person)).collect();
        if told_apart.len() < people.len() {
            return invalid(
                "two names differ only by case, spaces or signs: a person has one name, two people have two",
            );
        }
        if self
            .approval
            .also
            .iter()
            .any(|kind| !CommandKind::TYPES.contains(&kind.as_str()))
        {
            return invalid("a type of command is not known");
        }
        for (id, approver) in &self.approvers {
            let accounts = &approver.accounts;
            if accounts.len() > MAX_ACCOUNTS || !accounts.iter().all(|account| is_account(account)) {
                return invalid("an account is no account's id, or there are more than MAX_ACCOUNTS");
            }
            if let Some(party) = &approver.passkey {
                party.check().or_else(invalid)?;
                if self.keys.get(id).map(PublicKey::algorithm) != Some(Algorithm::EcdsaP256) {
                    return invalid("a passkey is an ECDSA P-256 key");
                }
            }
        }
        Ok(())
    }

    fn check_role(
        &self,
        role: Role,
        members: &RoleKeys,
        used: &mut BTreeSet<KeyId>,
    ) -> Result<(), RootError> {
        let invalid = |what: &str| Err(RootError::Invalid(format!("role {role}: {what}")));
        if members.threshold == 0 && !role.is_optional() {
            return invalid("the threshold is 0");
        }
        if members.threshold as usize > members.keys.len() {
            return invalid("the threshold is larger than the number of keys");
        }
        for id in &members.keys {
            let Some(key) = self.keys.get(id) else {
                return invalid("a key is missing");
            };
            if role.signs_notes() && key.algorithm() != Algorithm::Ed25519 {
                return invalid("notes are signed with Ed25519 keys");
            }
            if !used.insert(*id) {
                return invalid("a key serves two roles");
            }
        }
        Ok(())
    }

    /// Reads a document whose signatures were verified before.
    pub fn from_payload(payload: &[u8]) -> Result<Self, RootError> {
        Self::read(payload)
    }

    fn read(payload: &[u8]) -> Result<Self, RootError> {
        let document: Self = from_strict_json(payload, MAX_ROOT_BYTES)?;
        document.check()?;
        Ok(document)
    }
}
