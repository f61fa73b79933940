//! The other side of the wire for tests: a tenant with real keys and a real log, and a device that keeps what it must.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use muster_model::attestation::Ownership;
use muster_model::command::{CommandKind, ReceiptOutcome};
use muster_model::id::{CommandId, DeviceId, EntryId, PolicyId, TenantId};
use muster_model::platform::Platform;
use muster_model::report::{SettingReport, SettingState};
use muster_model::settings::SettingValue;
use muster_model::text::VersionLabel;
use muster_model::time::Timestamp;
use muster_trust::approval::{ApprovalProof, ApprovedBatch, BatchStatement, TargetList};
use muster_trust::bundle::{self, BundleSource};
use muster_trust::checkpoint::{self, CheckpointBody};
use muster_trust::dsse::{self, Envelope};
use muster_trust::entry::{Actor, ActorKind, LogEntry, Object};
use muster_trust::key::{Digest, SigningKey, sha256};
use muster_trust::merkle::{self, BuildError, Frontier, Hash, Node};
use muster_trust::obey::Trust;
use muster_trust::proof::LoggedProof;
use muster_trust::root::{ApprovalRules, Approver, DEFAULT_BUDGETS, Role, RoleKeys, RootDocument};
use muster_trust::statement::{
    self, CommandStatement, DesiredBundle, DesiredStateStatement, Interpreter, PolicyReportStatement,
    ReceiptStatement, ScriptStatement, state_digest,
};
use serde_json::json;

use super::super::{Action, Begin, Departed, DeviceCore, DeviceIdentity, Execution};
use crate::Base64Bytes;
use crate::checkin::{CheckinRequest, CheckinResponse, CheckpointUpdate};
use crate::clock::ClockReading;
use crate::command::DueCommand;
use crate::enroll::CERTIFICATE_BACKDATED;
use crate::policy::{BundleProof, Desired};

pub const START_SECONDS: i64 = 1_800_000_000;
const BOOT: u128 = 7;

/// A policy as it is in force.
#[derive(Clone)]
pub struct Activated {
    pub desired: DesiredBundle,
    pub bytes: Vec<u8>,
    index: u64,
}

/// A command as it is due.
#[derive(Clone)]
pub struct Due {
    pub statement: CommandStatement,
    pub envelope: Envelope,
    pub approval: Option<ApprovalProof>,
    pub script: Option<Envelope>,
    index: u64,
}

pub struct Office {
    pub tenant: TenantId,
    pub device_id: DeviceId,
    root: SigningKey,
    policy: SigningKey,
    pub action: SigningKey,
    log: SigningKey,
    frontier: Frontier,
    nodes: BTreeMap<(u32, u64), Hash>,
    entries: Vec<Vec<u8>>,
    pub seconds: i64,
    pub generation: u64,
    pub sequence: u64,
    pub queue: Vec<Due>,
    pub desired: Vec<Activated>,
    pub ownership: Ownership,
    /// Commands that need approvals besides those that always do.
    pub also: BTreeSet<String>,
    /// Every receipt that came.
    pub receipts: Vec<ReceiptStatement>,
    pub approver: SigningKey,
    ids: u16,
}

fn key(seed: u8) -> SigningKey {
    SigningKey::ed25519_from_seed(&[seed; 32]).expect("a seed makes a key")
}

impl Office {
    pub fn new() -> Self {
        let now = Timestamp::from_unix_seconds(START_SECONDS);
        let mut office = Self {
            tenant: TenantId::generate(now, [1; 10]),
            device_id: DeviceId::generate(now, [2; 10]),
            root: key(1),
            policy: key(2),
            action: key(3),
            log: key(4),
            frontier: Frontier::new(),
            nodes: BTreeMap::new(),
            entries: Vec::new(),
            seconds: START_SECONDS,
            generation: 0,
            sequence: 0,
            queue: Vec::new(),
            desired: Vec::new(),
            ownership: Ownership::Company,
            also: BTreeSet::new(),
            receipts: Vec::new(),
            approver: key(5),
            ids: 10,
        };
        office.append("device.enrolled", json!({}));
        office
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_unix_seconds(self.seconds)
    }

    fn fresh(&mut self) -> [u8; 10] {
        self.ids += 1;
        let mut entropy = [1; 10];
        entropy[8..].copy_from_slice(&self.ids.to_be_bytes());
        entropy
    }

    /// The root document with this version; every version names the same keys.
    pub fn root_envelope(&self, version: u64) -> Envelope {
        let pairs = [
            (Role::Root, &self.root),
            (Role::Policy, &self.policy),
            (Role::Action, &self.action),
            (Role::Log, &self.log),
            (Role::Approver, &self.approver),
        ];
        let role = |key: &SigningKey| RoleKeys {
            keys: [key.key_id()].into(),
            threshold: 1,
        };
        let approver = Approver {
            person: "Ada".parse().expect("a name"),
            accounts: Default::default(),
            added_at: Timestamp::from_unix_seconds(START_SECONDS - 7 * 86_400),
            passkey: None,
        };
        let document = RootDocument {
            tenant: self.tenant,
            version,
            issued_at: Timestamp::from_unix_seconds(START_SECONDS - 60),
            expires_at: Timestamp::from_unix_seconds(START_SECONDS + 365 * 86_400),
            keys: pairs
                .iter()
                .map(|(_, key)| (key.key_id(), key.public().clone()))
                .collect(),
            roles: pairs.iter().map(|(name, key)| (*name, role(key))).collect(),
            log_origin: checkpoint::origin(self.tenant),
            budgets: DEFAULT_BUDGETS,
            device_ca_sha256: Vec::new(),
            approvers: BTreeMap::from([(self.approver.key_id(), approver)]),
            approval: ApprovalRules {
                delay_seconds: 0,
                also: self.also.clone(),
                ..ApprovalRules::default()
            },
            restore_epoch: 0,
            settled_heads: BTreeSet::new(),
        };
        document.sign(&[&self.root]).expect("the document is valid")
    }

    fn append(&mut self, action: &str, detail: serde_json::Value) -> (EntryId, u64) {
        let entry = LogEntry {
            id: EntryId::generate(self.now(), self.fresh()),
            at: self.now(),
            tenant: self.tenant,
            actor: Actor {
                kind: ActorKind::System,
                id: "test".to_owned(),
            },
            action: action.to_owned(),
            object: Object {
                kind: "device".to_owned(),
                id: self.device_id.to_string(),
            },
            detail: detail.as_object().cloned().unwrap_or_default(),
        };
        let bytes = entry.canonical_bytes().expect("the entry is valid");
        let index = self.frontier.size();
        for (node, hash) in self
            .frontier
            .append(merkle::leaf_hash(&bytes))
            .expect("there is room")
        {
            self.nodes.insert((u32::from(node.height), node.index), hash);
        }
        self.entries.push(bytes);
        (entry.id, index)
    }

    fn read(&self) -> impl FnMut(Node) -> Result<Hash, BuildError<()>> {
        move |node| Ok(self.nodes[&(u32::from(node.height), node.index)])
    }

    pub fn checkpoint(&self) -> String {
        self.checkpoint_at(self.now())
    }

    pub fn checkpoint_at(&self, time: Timestamp) -> String {
        let body = CheckpointBody {
            origin: checkpoint::origin(self.tenant),
            size: self.frontier.size(),
            root: self.frontier.root(),
            time,
        };
        body.sign(&[&self.log]).expect("the log signs").to_string()
    }

    fn proof(&self, index: u64) -> LoggedProof {
        let tree_size = self.frontier.size();
        let hashes = merkle::inclusion_proof(index, tree_size, self.read()).expect("the leaf is there");
        LoggedProof {
            entry: self.entries[index as usize].clone(),
            index,
            tree_size,
            hashes,
        }
    }

    /// Queues a command that lives for ten minutes.
    pub fn command(&mut self, kind: CommandKind) -> CommandId {
        self.sequence += 1;
        let sequence = self.sequence;
        self.command_with(kind, |statement| statement.sequence = sequence)
    }

    /// Queues a command after `change` was done to it; signed and logged like any other.
    pub fn command_with(
        &mut self,
        kind: CommandKind,
        change: impl FnOnce(&mut CommandStatement),
    ) -> CommandId {
        let mut statement = CommandStatement {
            tenant: self.tenant,
            command_id: CommandId::generate(self.now(), self.fresh()),
            device_id: self.device_id,
            epoch: 1,
            sequence: self.sequence,
            kind,
            issued_at: self.now(),
            expires_at: self.now().plus(Duration::from_secs(600)),
            batch: None,
        };
        change(&mut statement);
        let envelope = statement::sign(&statement, &[&self.action]).expect("it signs");
        let digest = sha256(&envelope.payload).to_hex();
        let (_, index) = self.append("command.created", json!({"statement_sha256": digest}));
        let id = statement.command_id;
        self.queue.push(Due {
            statement,
            envelope,
            approval: None,
            script: None,
            index,
        });
        id
    }

    /// Queues what somebody approved for this device alone, to begin in so many seconds.
    pub fn approved(&mut self, kind: CommandKind, delay_seconds: u64) -> CommandId {
        let targets = TargetList::new([(self.device_id, 1)]);
        let operation = CommandId::generate(self.now(), self.fresh()).uuid();
        let statement = BatchStatement {
            tenant: self.tenant,
            operation,
            kind: kind.clone(),
            count: 1,
            targets_root: targets.root(),
            per_hour: 5,
            fleet: 10,
            requested_by: "usr_boss".to_owned(),
            requested_at: self.now(),
            not_before: self.now().plus(Duration::from_secs(delay_seconds)),
            expires_at: self.now().plus(Duration::from_secs(86_400)),
            restore_epoch: 0,
            reason: None,
        };
        let mut batch = ApprovedBatch::new(&statement).expect("the batch is valid");
        batch.add(batch.approve(&self.approver).expect("the key signs"));
        let path = targets.path(0).expect("it is on the list");
        let proof = ApprovalProof {
            batch,
            position: 0,
            path,
        };
        self.command_of(kind, proof)
    }

    /// Queues a command that shows this approval.
    pub fn command_of(&mut self, kind: CommandKind, approval: ApprovalProof) -> CommandId {
        self.sequence += 1;
        let (sequence, digest) = (self.sequence, approval.batch.sha256());
        let id = self.command_with(kind, |command| {
            command.sequence = sequence;
            command.batch = Some(digest);
            command.expires_at = command.issued_at.plus(Duration::from_secs(86_400));
        });
        self.queue.last_mut().expect("just queued").approval = Some(approval);
        id
    }

    /// Queues the last command again, under another id and with the same approval.
    pub fn again(&mut self) -> CommandId {
        let last = self.queue.last().expect("a command is queued").clone();
        self.command_of(last.statement.kind, last.approval.expect("it has one"))
    }

    /// Queues a script that `signer` signed; the policy key's owner where there is none.
    pub fn script(&mut self, text: &str, signer: Option<&SigningKey>) -> CommandId {
        let statement = ScriptStatement {
            tenant: self.tenant,
            name: "test".parse().expect("a name"),
            interpreter: Interpreter::Sh,
            text: text.to_owned(),
            timeout_seconds: 10,
            output_bytes_max: 1000,
        };
        let script = statement::sign(&statement, &[signer.unwrap_or(&self.policy)]).expect("it signs");
        let sha256 = sha256(&script.payload).to_hex();
        let kind = CommandKind::RunScript {
            sha256: sha256.parse().expect("a digest"),
            arguments: Vec::new(),
            timeout_seconds: None,
        };
        let id = self.command(kind);
        self.queue.last_mut().expect("just queued").script = Some(script);
        id
    }

    /// Builds, signs and logs a policy, without asking the device to be at it.
    pub fn build(&mut self, policy: u8, settings: serde_json::Value) -> Activated {
        self.generation += 1;
        let policy_id = PolicyId::generate(Timestamp::from_unix_seconds(START_SECONDS), [policy; 10]);
        let version: VersionLabel = VersionLabel::parse(&format!("v{}", self.generation)).expect("a label");
        let settings = settings.to_string();
        let source = BundleSource {
            tenant: self.tenant,
            policy_id,
            policy_name: "laptops",
            version: &version,
            sequence: self.generation,
            created_at: self.now(),
            settings_json: settings.as_bytes(),
            rules_json: b"[]",
        };
        let bundle = bundle::build(&source, &[&self.policy]).expect("it builds");
        let detail = json!({
            "bundle_sha256": bundle.sha256.to_hex(),
            "policy_id": policy_id.to_string(),
            "generation": self.generation,
        });
        let (activation_entry, index) = self.append("rollout.activated", detail);
        let generation = self.generation;
        let desired = DesiredBundle {
            policy_id,
            version,
            sha256: bundle.sha256,
            generation,
            activation_entry,
        };
        Activated {
            desired,
            bytes: bundle.bytes,
            index,
        }
    }

    /// Makes a policy the only one that the device should be at.
    pub fn activate(&mut self, settings: serde_json::Value) -> Activated {
        let activated = self.build(1, settings);
        self.desired = vec![activated.clone()];
        activated
    }

    pub fn desired_statement(&self) -> DesiredStateStatement {
        DesiredStateStatement {
            tenant: self.tenant,
            device_id: self.device_id,
            epoch: 1,
            generation: self.generation,
            bundles: self
                .desired
                .iter()
                .map(|activated| activated.desired.clone())
                .collect(),
            issued_at: self.now(),
            expires_at: self.now().plus(Duration::from_secs(600)),
        }
    }

    /// What an honest server answers.
    pub fn answer(&mut self, request: &CheckinRequest) -> CheckinResponse {
        let receipts: Vec<CommandId> = request
            .receipts
            .iter()
            .map(|receipt| read_receipt(receipt).command_id)
            .collect();
        for receipt in &request.receipts {
            let receipt = read_receipt(receipt);
            // What was not now comes again.
            self.queue.retain(|due| {
                due.statement.command_id != receipt.command_id || receipt.outcome == ReceiptOutcome::NotNow
            });
            self.receipts.push(receipt);
        }
        let mut response = self.offer(request.tree_size, request.state_digest);
        response.receipts_accepted = receipts;
        response
    }

    /// Everything that is due, whatever the device said.
    pub fn offer(&self, tree_size: u64, at: Digest) -> CheckinResponse {
        let statement = self.desired_statement();
        let desired = (state_digest(&statement.bundles) != at).then(|| Desired {
            statement: statement::sign(&statement, &[&self.action]).expect("it signs"),
            bundles: self
                .desired
                .iter()
                .map(|activated| BundleProof {
                    sha256: activated.desired.sha256,
                    proof: self.proof(activated.index),
                })
                .collect(),
        });
        let due = |due: &Due| DueCommand {
            envelope: due.envelope.clone(),
            proof: self.proof(due.index),
            approval: due.approval.clone(),
            script: due.script.clone(),
            traceparent: None,
        };
        let hashes = merkle::consistency_proof(tree_size, self.frontier.size(), self.read())
            .expect("both sizes exist");
        let consistency = hashes
            .iter()
            .map(|hash| Base64Bytes::from(hash.0.as_slice()))
            .collect();
        CheckinResponse {
            desired,
            commands: self.queue.iter().map(due).collect(),
            checkpoint: Some(CheckpointUpdate {
                note: self.checkpoint(),
                consistency,
            }),
            ..CheckinResponse::up_to_date(self.now(), 60)
        }
    }

    /// A device that enrolled a minute ago.
    pub fn device(&self) -> Device {
        let enrolled_at = self.now().minus(Duration::from_secs(60));
        let mut trust = Trust::pin(&self.root_envelope(1), self.tenant).expect("the document verifies");
        trust
            .advance_checkpoint(&self.checkpoint_at(enrolled_at), &[])
            .expect("the checkpoint verifies");
        let identity = DeviceIdentity {
            tenant: self.tenant,
            device_id: self.device_id,
            epoch: 1,
            platform: Platform::Linux,
            ownership: self.ownership,
        };
        let mut device = Device {
            core: None,
            key: key(9),
            seconds: self.seconds,
            boot: BOOT,
            wall_error_seconds: 0,
            executed: Vec::new(),
            applied: Vec::new(),
            refused: Vec::new(),
            inventories: 0,
            renewals: 0,
            outcomes: VecDeque::new(),
            departed: None,
        };
        let certified_from = enrolled_at.minus(CERTIFICATE_BACKDATED);
        let mut reading = device.reading();
        (reading.wall, reading.since_boot) = (enrolled_at, reading.since_boot - Duration::from_secs(60));
        device.core = Some(DeviceCore::new(
            identity,
            "0.1.0",
            trust,
            certified_from,
            &reading,
        ));
        device
    }
}

pub fn read_receipt(envelope: &Envelope) -> ReceiptStatement {
    let public = key(9);
    statement::verify(envelope, &[public.public()], 1)
        .expect("the device signed it")
        .statement
}

pub fn read_report(envelope: &Envelope) -> PolicyReportStatement {
    let public = key(9);
    statement::verify(envelope, &[public.public()], 1)
        .expect("the device signed it")
        .statement
}

/// A device with a machine that obeys at once, and counts.
pub struct Device {
    core: Option<DeviceCore>,
    key: SigningKey,
    pub seconds: i64,
    pub boot: u128,
    pub wall_error_seconds: i64,
    pub executed: Vec<CommandId>,
    pub applied: Vec<BTreeMap<String, SettingValue>>,
    pub refused: Vec<String>,
    pub inventories: u32,
    pub renewals: u32,
    /// What the next commands end with, the first first; done, where nothing is left.
    pub outcomes: VecDeque<Execution>,
    pub departed: Option<Departed>,
}

impl Device {
    pub fn core(&mut self) -> &mut DeviceCore {
        self.core.as_mut().expect("the core is there between calls")
    }

    pub fn reading(&self) -> ClockReading {
        let since_boot = Duration::from_secs((self.seconds - START_SECONDS + 1000).unsigned_abs());
        let wall = Timestamp::from_unix_seconds(self.seconds + self.wall_error_seconds);
        ClockReading {
            wall,
            since_boot,
            boot: self.boot,
        }
    }

    /// Calls the core with a reading and a signer.
    pub fn with<T>(
        &mut self,
        call: impl FnOnce(&mut DeviceCore, &ClockReading, &mut super::super::Signer<'_>) -> T,
    ) -> T {
        let reading = self.reading();
        let mut core = self.core.take().expect("the core is there between calls");
        let key = &self.key;
        let result = call(&mut core, &reading, &mut |kind, payload| {
            dsse::sign(kind, payload, &[key])
        });
        self.core = Some(core);
        result
    }

    /// A power cut: what was not saved is gone, and the program starts again from what was.
    pub fn restart_from(&mut self, saved: &str) {
        self.core = Some(serde_json::from_str(saved).expect("a saved core reads back"));
    }

    pub fn saved(&mut self) -> String {
        serde_json::to_string(self.core()).expect("a core is plain data")
    }

    pub fn request(&mut self) -> CheckinRequest {
        self.with(|core, reading, _| core.checkin_request(reading))
    }

    pub fn take(&mut self, response: &CheckinResponse) -> Vec<Action> {
        self.with(|core, reading, sign| core.on_checkin(response, reading, sign))
    }

    /// Checks in until there is nothing left to say.
    pub fn meet(&mut self, office: &mut Office) {
        for _ in 0..8 {
            let request = self.request();
            let response = office.answer(&request);
            let actions = self.take(&response);
            self.perform(actions, office);
            if !self.core().has_news() {
                return;
            }
        }
        panic!("the device never falls silent");
    }

    pub fn perform(&mut self, actions: Vec<Action>, office: &Office) {
        for action in actions {
            match action {
                Action::Refused(refused) => self.refused.push(refused.code),
                Action::Execute { command_id } => self.execute(command_id),
                Action::FetchBundle { sha256 } => {
                    let found = office
                        .desired
                        .iter()
                        .find(|activated| activated.desired.sha256 == sha256);
                    let bytes = found.expect("the office asked for it").bytes.clone();
                    let next = self.with(|core, reading, sign| core.on_bundle(sha256, &bytes, reading, sign));
                    self.perform(next, office);
                }
                Action::Apply { .. } if self.core().departed().is_some() => {}
                Action::Apply { settings } => {
                    self.report(&settings);
                    self.applied.push(settings);
                }
                Action::ReadBack { settings } => self.report(&settings),
                Action::SendInventory => self.inventories += 1,
                Action::Renew => self.renewals += 1,
                Action::Depart { how } => self.departed = Some(how),
            }
        }
    }

    fn execute(&mut self, command_id: CommandId) {
        if let Begin::Run(statement) = self.with(|core, reading, sign| core.begin(command_id, reading, sign))
        {
            self.executed.push(statement.command_id);
            let execution = self.outcomes.pop_front().unwrap_or_else(Execution::done);
            self.with(|core, reading, sign| core.on_executed(command_id, execution, reading, sign));
        }
    }

    fn report(&mut self, settings: &BTreeMap<String, SettingValue>) {
        let verified = |value: &SettingValue| SettingReport {
            state: SettingState::Verified,
            observed: Some(value.clone()),
            detail: None,
        };
        let reports = settings
            .iter()
            .map(|(key, value)| (key.clone(), verified(value)))
            .collect();
        self.with(|core, reading, sign| core.on_applied(&reports, reading, sign));
    }
}
