//! A tenant with keys, a root document and a log, as small as a server can be.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;

use muster_model::command::CommandKind;
use muster_model::id::{CommandId, DeviceId, EntryId, PolicyId, TenantId};
use muster_model::text::VersionLabel;
use muster_model::time::Timestamp;
use muster_trust::bundle::{self, Bundle, BundleSource};
use muster_trust::checkpoint::{self, CheckpointBody};
use muster_trust::dsse::Envelope;
use muster_trust::entry::{Actor, ActorKind, LogEntry, Object, action, detail};
use muster_trust::key::{Digest, SigningKey, sha256};
use muster_trust::merkle::{Frontier, Hash, leaf_hash};
use muster_trust::obey::Trust;
use muster_trust::proof::LoggedProof;
use muster_trust::root::{ApprovalRules, DEFAULT_BUDGETS, Role, RoleKeys, RootDocument};
use muster_trust::statement::{self, CommandStatement, DesiredBundle, DesiredStateStatement};
use muster_trust::tile::{self, Tile};
use serde_json::{Map, Value, json};

pub const START: Timestamp = Timestamp::from_unix_seconds(1_790_000_000);
pub const EPOCH: u32 = 3;

/// A time some seconds after the start of the story.
pub fn at(seconds: u64) -> Timestamp {
    START.plus(Duration::from_secs(seconds))
}

/// Entropy for an id that is the same in every run.
fn entropy(n: u8) -> [u8; 10] {
    [n; 10]
}

fn entry_entropy(n: u16) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    bytes
}

pub fn tenant(n: u8) -> TenantId {
    TenantId::generate(START, entropy(n))
}

pub fn device(n: u8) -> DeviceId {
    DeviceId::generate(START, entropy(n))
}

pub fn policy(n: u8) -> PolicyId {
    PolicyId::generate(START, entropy(n))
}

pub fn command_id(n: u8) -> CommandId {
    CommandId::generate(START, entropy(n))
}

pub fn version(text: &str) -> VersionLabel {
    VersionLabel::parse(text).expect("a valid version label")
}

/// The Ed25519 key with this number.
pub fn key(n: u8) -> SigningKey {
    SigningKey::ed25519_from_seed(&[n; 32]).expect("any seed is a key")
}

/// The log of a tenant: rows, tiles and frontier as a server stores them.
#[derive(Default)]
pub struct TestLog {
    pub rows: Vec<Vec<u8>>,
    pub tiles: BTreeMap<(u8, u64), Vec<Hash>>,
    pub frontier: Frontier,
}

impl TestLog {
    pub fn append(&mut self, bytes: Vec<u8>) -> u64 {
        let index = self.frontier.size();
        for hash in tile::append(&mut self.frontier, leaf_hash(&bytes)).expect("the log is not full") {
            let hashes = self.tiles.entry((hash.level, hash.index / 256)).or_default();
            assert_eq!(
                hashes.len() as u64,
                hash.index % 256,
                "hashes of a tile come in order"
            );
            hashes.push(hash.hash);
        }
        self.rows.push(bytes);
        index
    }

    pub fn read(&self, tile: Tile) -> Result<Vec<Hash>, Infallible> {
        Ok(self
            .tiles
            .get(&(tile.level, tile.index))
            .cloned()
            .unwrap_or_default())
    }

    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    pub fn proof(&self, index: u64, size: u64) -> LoggedProof {
        let hashes =
            tile::inclusion_proof(index, size, |tile| self.read(tile)).expect("the tiles are complete");
        LoggedProof {
            entry: self.rows[index as usize].clone(),
            index,
            tree_size: size,
            hashes,
        }
    }

    pub fn consistency(&self, from: u64, to: u64) -> Vec<Hash> {
        tile::consistency_proof(from, to, |tile| self.read(tile)).expect("the tiles are complete")
    }

    pub fn body(&self, tenant: TenantId, size: u64, time: Timestamp) -> CheckpointBody {
        let root = tile::root(size, |tile| self.read(tile)).expect("the tiles are complete");
        CheckpointBody {
            origin: checkpoint::origin(tenant),
            size,
            root,
            time,
        }
    }
}

/// A tenant's side of the story.
pub struct Tenant {
    pub id: TenantId,
    pub root_key: SigningKey,
    pub policy_key: SigningKey,
    pub action_key: SigningKey,
    pub log_key: SigningKey,
    pub witness_key: SigningKey,
    pub log: TestLog,
    entries: u16,
}

impl Tenant {
    /// Every tenant number has its own keys.
    pub fn new(n: u8) -> Self {
        let key_of = |role: u8| key(n * 16 + role);
        Self {
            id: tenant(n),
            root_key: key_of(1),
            policy_key: key_of(2),
            action_key: key_of(3),
            log_key: key_of(4),
            witness_key: key_of(5),
            log: TestLog::default(),
            entries: 0,
        }
    }

    pub fn root_document(&self) -> RootDocument {
        let signers = [
            (Role::Root, &self.root_key),
            (Role::Policy, &self.policy_key),
            (Role::Action, &self.action_key),
            (Role::Log, &self.log_key),
        ];
        let one = |key: &SigningKey| RoleKeys {
            keys: BTreeSet::from([key.key_id()]),
            threshold: 1,
        };
        RootDocument {
            tenant: self.id,
            version: 1,
            issued_at: START,
            expires_at: at(365 * 86_400),
            keys: signers
                .iter()
                .map(|(_, key)| (key.key_id(), key.public().clone()))
                .collect(),
            roles: signers.iter().map(|(role, key)| (*role, one(key))).collect(),
            log_origin: checkpoint::origin(self.id),
            budgets: DEFAULT_BUDGETS,
            device_ca_sha256: vec![sha256(b"a certificate")],
            approvers: BTreeMap::new(),
            approval: ApprovalRules::default(),
            restore_epoch: 0,
            settled_heads: BTreeSet::new(),
        }
    }

    pub fn root_envelope(&self) -> Envelope {
        self.root_document()
            .sign(&[&self.root_key])
            .expect("a valid root document")
    }

    /// Appends an entry and returns its id and index.
    pub fn log_entry(&mut self, action: &str, object: Object, detail: Value) -> (EntryId, u64) {
        self.entries += 1;
        let entry = LogEntry {
            id: EntryId::generate(START, entry_entropy(self.entries)),
            at: START,
            tenant: self.id,
            actor: Actor {
                kind: ActorKind::System,
                id: "test".to_owned(),
            },
            action: action.to_owned(),
            object,
            detail: detail.as_object().cloned().unwrap_or_else(Map::new),
        };
        let index = self.log.append(entry.canonical_bytes().expect("a valid entry"));
        (entry.id, index)
    }

    /// The signed head of the whole log.
    pub fn checkpoint_note(&self, time: Timestamp) -> String {
        self.log
            .body(self.id, self.log.size(), time)
            .sign(&[&self.log_key])
            .expect("a valid note")
            .to_string()
    }

    pub fn command(&self, sequence: u64, kind: CommandKind) -> CommandStatement {
        CommandStatement {
            tenant: self.id,
            command_id: command_id(sequence as u8),
            device_id: device(1),
            epoch: EPOCH,
            sequence,
            kind,
            issued_at: at(0),
            expires_at: at(3600),
            batch: None,
        }
    }

    /// Signs the command and logs it, as an honest server does.
    pub fn issue(&mut self, command: &CommandStatement) -> (Envelope, u64) {
        let envelope = statement::sign(command, &[&self.action_key]).expect("a valid command");
        let index = self.log_command(&envelope, command.command_id);
        (envelope, index)
    }

    pub fn log_command(&mut self, envelope: &Envelope, id: CommandId) -> u64 {
        let said = json!({ detail::STATEMENT_SHA256: sha256(&envelope.payload).to_hex() });
        let object = Object {
            kind: "command".to_owned(),
            id: id.to_string(),
        };
        self.log_entry(action::COMMAND_CREATED, object, said).1
    }

    pub fn bundle(&self, policy_id: PolicyId, label: &str, settings_json: &[u8]) -> Bundle {
        self.bundle_by(policy_id, label, settings_json, &self.policy_key)
    }

    pub fn bundle_by(
        &self,
        policy_id: PolicyId,
        label: &str,
        settings_json: &[u8],
        signer: &SigningKey,
    ) -> Bundle {
        let source = BundleSource {
            tenant: self.id,
            policy_id,
            policy_name: "baseline",
            version: &version(label),
            sequence: 1,
            created_at: START,
            settings_json,
            rules_json: b"[]",
        };
        bundle::build(&source, &[signer]).expect("a valid bundle")
    }

    /// Logs the activation of a bundle and says what a device should be at.
    pub fn activate(
        &mut self,
        policy_id: PolicyId,
        label: &str,
        sha256: Digest,
        generation: u64,
    ) -> (DesiredBundle, u64) {
        let said = json!({
            detail::POLICY_ID: policy_id.to_string(),
            detail::BUNDLE_SHA256: sha256.to_hex(),
            detail::GENERATION: generation,
        });
        let object = Object {
            kind: "policy".to_owned(),
            id: policy_id.to_string(),
        };
        let (activation_entry, index) = self.log_entry(action::ROLLOUT_ACTIVATED, object, said);
        (
            DesiredBundle {
                policy_id,
                version: version(label),
                sha256,
                generation,
                activation_entry,
            },
            index,
        )
    }

    pub fn desired(&self, generation: u64, bundles: Vec<DesiredBundle>) -> DesiredStateStatement {
        DesiredStateStatement {
            tenant: self.id,
            device_id: device(1),
            epoch: EPOCH,
            generation,
            bundles,
            issued_at: at(0),
            expires_at: at(3600),
        }
    }

    /// A device that enrolled and has seen the log as it is now.
    pub fn enrolled(&self) -> Trust {
        let mut trust = Trust::pin(&self.root_envelope(), self.id).expect("a valid root document");
        trust
            .advance_checkpoint(&self.checkpoint_note(at(1)), &[])
            .expect("a valid checkpoint");
        trust
    }

    pub fn proof(&self, index: u64) -> LoggedProof {
        self.log.proof(index, self.log.size())
    }
}

/// Every single-bit change of the bytes.
pub fn bit_flips(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> + '_ {
    (0..bytes.len() * 8).map(|bit| {
        let mut changed = bytes.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        (bit / 8, changed)
    })
}
