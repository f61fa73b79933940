//! What an approver checks before signing: that the list of devices is the one that the statement commits to, and that the
//! statement says what is shown. Pure; everything shown comes from the statement, and names alone are the server's word.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_model::command::CommandKind;
use muster_model::id::DeviceId;
use muster_model::time::Timestamp;
use muster_trust::approval::{Approval, ApprovedBatch, BatchStatement, Counted, TargetList};
use muster_trust::encoding::from_base64;
use muster_trust::key::SigningKey;
use muster_trust::root::{Role, RootDocument};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// An operation as the server shows it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Operation {
    pub operation_id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub arguments: Map<String, Value>,
    pub state: String,
    pub count: u64,
    pub created_by: String,
    pub created_at: Option<String>,
    pub expires_at: Option<String>,
    pub reason: Option<String>,
    /// Why it is held or waits, or ended early.
    pub because: Option<String>,
    pub approval: Option<ApprovalView>,
    pub progress: BTreeMap<String, u64>,
}

/// What is to be signed, and who signed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ApprovalView {
    /// The statement's bytes, base64.
    pub payload: String,
    pub sha256: String,
    pub threshold: u32,
    pub people: Vec<Signer>,
    pub per_hour: Option<u32>,
    pub fleet: Option<u64>,
    pub not_before: Option<String>,
    pub expires_at: Option<String>,
}

/// Somebody who approved.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Signer {
    pub person: String,
    pub keyid: String,
    pub at: Option<String>,
}

/// A device of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub position: u64,
    pub device_id: String,
    pub epoch: u32,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub owner: Option<String>,
}

/// A statement that was held against everything that is shown of it.
#[derive(Clone, Debug)]
pub struct Review {
    pub statement: BatchStatement,
    pub batch: ApprovedBatch,
    /// Owners with how many of the devices are theirs, the most first.
    pub owners: Vec<(String, u64)>,
    /// Devices an hour that the root document allows.
    pub budget: u64,
    /// How many people must approve, by the root document.
    pub threshold: u32,
    /// Who approved, by the server's word.
    pub people: Vec<String>,
}

/// Holds an operation and its devices against the statement that is to be signed. The error says what does not match.
pub fn review(
    operation: &Operation,
    targets: &[Target],
    root: &RootDocument,
    now: Timestamp,
) -> Result<Review, String> {
    let approval = operation
        .approval
        .as_ref()
        .ok_or("this operation needs no approvals")?;
    let payload = from_base64(&approval.payload).ok_or("the statement is not base64")?;
    let batch = ApprovedBatch {
        payload,
        approvals: Vec::new(),
    };
    let statement = batch.read().map_err(|error| format!("the statement: {error}"))?;
    if batch.sha256().to_string() != approval.sha256 {
        return Err("the statement is not the one whose SHA-256 the server names".to_owned());
    }
    check_standing(&statement, root, now)?;
    check_shown(&statement, operation, approval)?;
    check_targets(&statement, targets)?;
    let budget = root.budgets.destructive_per_hour(statement.fleet);
    if u64::from(statement.per_hour) > budget {
        return Err(format!(
            "{} devices an hour are more than the budget of {budget}: devices would refuse",
            statement.per_hour
        ));
    }
    let (_, threshold) = root.role(Role::Approver);
    Ok(Review {
        owners: owners(targets),
        budget,
        threshold,
        people: approval
            .people
            .iter()
            .map(|signer| signer.person.clone())
            .collect(),
        statement,
        batch,
    })
}

/// Whether it is this tenant's, of this restore epoch, and not over.
fn check_standing(statement: &BatchStatement, root: &RootDocument, now: Timestamp) -> Result<(), String> {
    if statement.tenant != root.tenant {
        return Err(format!(
            "the statement is of {}, and the root document of {}",
            statement.tenant, root.tenant
        ));
    }
    if statement.restore_epoch != root.restore_epoch {
        return Err("it was asked before the database was restored: devices would refuse".to_owned());
    }
    if statement.expires_at <= now {
        return Err(format!("it expired at {}", statement.expires_at));
    }
    let delay = Duration::from_secs(root.approval.delay_seconds.into());
    if statement.not_before < statement.requested_at.plus(delay) {
        return Err(format!(
            "it begins at {}, sooner than the delay of the root document allows",
            statement.not_before
        ));
    }
    Ok(())
}

/// Whether the operation that is shown is the one of the statement.
fn check_shown(
    statement: &BatchStatement,
    operation: &Operation,
    approval: &ApprovalView,
) -> Result<(), String> {
    let differs = |what: &str| {
        Err(format!(
            "what the server shows is not what would be signed: {what}"
        ))
    };
    if !names(&operation.operation_id, statement) {
        return differs("the operation is another one");
    }
    let mut shown = operation.arguments.clone();
    shown.insert("type".to_owned(), json!(operation.kind));
    let shown = CommandKind::parse(Value::Object(shown).to_string().as_bytes());
    if shown.as_ref() != Ok(&statement.kind) {
        return differs("the command or its arguments");
    }
    if operation.count != statement.count {
        return differs("the number of devices");
    }
    let times = [
        ("when it begins", &approval.not_before, statement.not_before),
        ("when it expires", &approval.expires_at, statement.expires_at),
        ("when it expires", &operation.expires_at, statement.expires_at),
    ];
    for (what, shown, signed) in times {
        let agrees = shown
            .as_ref()
            .is_none_or(|shown| shown.parse::<Timestamp>() == Ok(signed));
        if !agrees {
            return differs(what);
        }
    }
    if approval.per_hour.is_some_and(|shown| shown != statement.per_hour) {
        return differs("the number of devices an hour");
    }
    if approval.fleet.is_some_and(|shown| shown != statement.fleet) {
        return differs("the size of the fleet");
    }
    let reason = statement.reason.as_ref().map(ToString::to_string);
    if operation.reason.is_some() && operation.reason != reason {
        return differs("the reason");
    }
    Ok(())
}

/// Whether an id of the API is the operation of the statement.
fn names(operation_id: &str, statement: &BatchStatement) -> bool {
    uuid::Uuid::parse_str(operation_id).is_ok_and(|id| id == statement.operation)
}

/// Computes the root of the list anew from every device of it.
fn check_targets(statement: &BatchStatement, targets: &[Target]) -> Result<(), String> {
    let listed = targets.len() as u64;
    if listed != statement.count {
        return Err(format!(
            "the list has {listed} devices, and the statement is about {}",
            statement.count
        ));
    }
    let (mut devices, mut seen) = (Vec::with_capacity(targets.len()), BTreeSet::new());
    for (position, target) in (0..).zip(targets) {
        if target.position != position {
            return Err(format!("the list has a gap at place {position}"));
        }
        let device: DeviceId = target
            .device_id
            .parse()
            .map_err(|_| format!("`{}` is no device", target.device_id))?;
        if !seen.insert(device) {
            return Err(format!("{device} is on the list twice"));
        }
        devices.push((device, target.epoch));
    }
    if TargetList::new(devices).root() != statement.targets_root {
        return Err("the list of devices is not the one that would be approved: its root differs".to_owned());
    }
    Ok(())
}

fn owners(targets: &[Target]) -> Vec<(String, u64)> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for target in targets {
        let owner = target.owner.as_deref().filter(|owner| !owner.is_empty());
        *counts.entry(owner.unwrap_or("nobody")).or_default() += 1;
    }
    let mut owners: Vec<_> = counts
        .into_iter()
        .map(|(owner, count)| (owner.to_owned(), count))
        .collect();
    owners.sort_by(|left, right| right.1.cmp(&left.1).then_with(|| left.0.cmp(&right.0)));
    owners
}

impl Review {
    /// Signs, if the signature would count.
    pub fn approve(&self, key: &SigningKey, root: &RootDocument, now: Timestamp) -> Result<Approval, String> {
        let approval = self.batch.approve(key).map_err(|error| error.to_string())?;
        let counted = self
            .batch
            .person(&approval, root, now)
            .map_err(|error| error.to_string())?;
        match counted {
            Counted::Yes(_) => Ok(approval),
            Counted::Unknown => Err(format!(
                "the root document names no approver with key {}: the signature would not count",
                key.key_id()
            )),
            Counted::Requester(approver) => Err(format!(
                "{} asked for this with the account {}, and cannot approve it",
                approver.person, self.statement.requested_by
            )),
            Counted::TooNew(approver, from) => Err(format!(
                "the key of {} counts from {from}, after the cool-down",
                approver.person
            )),
        }
    }

    /// When the last device may begin.
    pub fn last_slot(&self) -> Timestamp {
        self.statement.slot(self.statement.count.saturating_sub(1))
    }

    /// How long somebody can still stop it before the first device begins.
    pub fn delay(&self, now: Timestamp) -> Duration {
        self.statement.not_before.since(now)
    }

    /// The part of the fleet, in percent.
    pub fn percent(&self) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a fleet is far below 2^53, and this is shown to people"
        )]
        let percent = 100.0 * self.statement.count as f64 / self.statement.fleet.max(1) as f64;
        percent
    }
}

#[cfg(test)]
mod tests {
    use muster_model::TenantId;
    use muster_model::command::WipeMode;
    use muster_trust::checkpoint;
    use muster_trust::encoding::to_base64;
    use muster_trust::root::{ApprovalRules, Approver, DEFAULT_BUDGETS, RoleKeys};

    use super::*;

    const START: i64 = 1_800_000_000;
    const OPERATION: u128 = 0x1234;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_unix_seconds(START).plus(Duration::from_secs(seconds))
    }

    fn key(n: u8) -> SigningKey {
        SigningKey::ed25519_from_seed(&[n; 32]).expect("any seed is a key")
    }

    fn device(n: u128) -> DeviceId {
        DeviceId::from_uuid(uuid::Uuid::from_u128(n))
    }

    fn root() -> RootDocument {
        let tenant = TenantId::from_uuid(uuid::Uuid::from_u128(1));
        let (ada, bob) = (key(10), key(11));
        let role = |keys: &[&SigningKey], threshold| RoleKeys {
            keys: keys.iter().map(|key| key.key_id()).collect(),
            threshold,
        };
        let approver = |person: &str, account: &str, added_at| Approver {
            person: person.parse().expect("a name"),
            accounts: BTreeSet::from([account.to_owned()]),
            added_at,
            passkey: None,
        };
        let root = RootDocument {
            tenant,
            version: 1,
            issued_at: at(0),
            expires_at: at(1_000_000),
            keys: [key(1), key(2), key(3), key(4), key(10), key(11)]
                .iter()
                .map(|key| (key.key_id(), key.public().clone()))
                .collect(),
            roles: BTreeMap::from([
                (Role::Root, role(&[&key(1)], 1)),
                (Role::Policy, role(&[&key(2)], 1)),
                (Role::Action, role(&[&key(3)], 1)),
                (Role::Log, role(&[&key(4)], 1)),
                (Role::Approver, role(&[&ada, &bob], 2)),
            ]),
            log_origin: checkpoint::origin(tenant),
            budgets: DEFAULT_BUDGETS,
            device_ca_sha256: Vec::new(),
            approvers: BTreeMap::from([
                (ada.key_id(), approver("Ada", "ada", at(0))),
                (bob.key_id(), approver("Bob", "bob", at(150_000))),
            ]),
            approval: ApprovalRules::default(),
            restore_epoch: 0,
            settled_heads: BTreeSet::new(),
        };
        root.check().expect("a proper document");
        root
    }

    fn targets() -> Vec<Target> {
        (0..3)
            .map(|position| Target {
                position,
                device_id: device(u128::from(position) + 7).to_string(),
                epoch: 1,
                name: Some(format!("laptop-{position}")),
                owner: Some(if position == 0 { "cto" } else { "sales" }.to_owned()),
            })
            .collect()
    }

    fn statement() -> BatchStatement {
        let list = targets()
            .iter()
            .map(|target| (target.device_id.parse().expect("an id"), target.epoch))
            .collect::<Vec<_>>();
        BatchStatement {
            tenant: root().tenant,
            operation: uuid::Uuid::from_u128(OPERATION),
            kind: CommandKind::Wipe { mode: WipeMode::Full },
            count: 3,
            targets_root: TargetList::new(list).root(),
            per_hour: 5,
            fleet: 1204,
            requested_by: "carol".to_owned(),
            requested_at: at(190_000),
            not_before: at(200_300),
            expires_at: at(300_000),
            restore_epoch: 0,
            reason: None,
        }
    }

    fn operation(statement: &BatchStatement) -> Operation {
        let batch = ApprovedBatch::new(statement).expect("a statement");
        Operation {
            operation_id: statement.operation.to_string(),
            kind: "wipe".to_owned(),
            arguments: Map::from_iter([("mode".to_owned(), json!("full"))]),
            state: "awaiting_approval".to_owned(),
            count: statement.count,
            expires_at: Some(statement.expires_at.to_string()),
            approval: Some(ApprovalView {
                payload: to_base64(&batch.payload),
                sha256: batch.sha256().to_string(),
                threshold: 2,
                people: Vec::new(),
                per_hour: Some(statement.per_hour),
                fleet: Some(statement.fleet),
                not_before: Some(statement.not_before.to_string()),
                expires_at: Some(statement.expires_at.to_string()),
            }),
            ..Operation::default()
        }
    }

    const NOW: u64 = 200_000;

    fn refused(operation: &Operation, targets: &[Target]) -> String {
        review(operation, targets, &root(), at(NOW)).expect_err("it does not match")
    }

    #[test]
    fn what_matches_is_shown_and_signed() {
        let review = review(&operation(&statement()), &targets(), &root(), at(NOW)).expect("it matches");
        assert_eq!(review.owners, [("sales".to_owned(), 2), ("cto".to_owned(), 1)]);
        assert_eq!((review.budget, review.threshold), (6, 2));
        assert_eq!(review.delay(at(NOW)), Duration::from_secs(300));
        let approval = review.approve(&key(10), &root(), at(NOW)).expect("Ada may");
        let root = root();
        let counted = review
            .batch
            .person(&approval, &root, at(NOW))
            .expect("it verifies");
        assert!(matches!(counted, Counted::Yes(approver) if approver.person.as_str() == "Ada"));
    }

    #[test]
    fn another_list_than_the_approved_one_is_refused() {
        let operation = operation(&statement());
        let mut swapped = targets();
        swapped[1].device_id = device(99).to_string();
        assert!(refused(&operation, &swapped).contains("root differs"));
        let mut older = targets();
        older[2].epoch = 2;
        assert!(refused(&operation, &older).contains("root differs"));
        let mut twice = targets();
        twice[1].device_id = twice[0].device_id.clone();
        assert!(refused(&operation, &twice).contains("twice"));
        assert!(refused(&operation, &targets()[..2]).contains("2 devices"));
        let mut order = targets();
        order.swap(0, 1);
        assert!(refused(&operation, &order).contains("gap"));
    }

    /// A change of what the server shows.
    type Lie = fn(&mut Operation);

    #[test]
    fn a_payload_that_is_not_what_is_shown_is_refused() {
        fn of(shown: &mut Operation) -> &mut ApprovalView {
            shown.approval.as_mut().expect("it needs approvals")
        }
        let lies: [(&str, Lie); 10] = [
            ("command", |shown| shown.kind = "restart".to_owned()),
            ("arguments", |shown| {
                shown.arguments = Map::from_iter([("mode".to_owned(), json!("enterprise"))]);
            }),
            ("number of devices", |shown| shown.count = 2),
            ("expires", |shown| shown.expires_at = Some(at(9).to_string())),
            ("expires", |shown| of(shown).expires_at = Some(at(9).to_string())),
            ("begins", |shown| of(shown).not_before = Some("soon".to_owned())),
            ("an hour", |shown| of(shown).per_hour = Some(1)),
            ("fleet", |shown| of(shown).fleet = Some(1)),
            ("reason", |shown| shown.reason = Some("stolen".to_owned())),
            ("operation", |shown| {
                shown.operation_id = uuid::Uuid::from_u128(5).to_string();
            }),
        ];
        for (what, lie) in lies {
            let mut operation = operation(&statement());
            lie(&mut operation);
            let why = refused(&operation, &targets());
            assert!(why.contains(what), "{what}: {why}");
        }
    }

    #[test]
    fn another_statement_than_the_hash_says_is_refused() {
        let mut shown = operation(&statement());
        if let Some(approval) = &mut shown.approval {
            approval.sha256 = "0".repeat(64);
        }
        assert!(refused(&shown, &targets()).contains("SHA-256"));
        shown.approval = None;
        assert!(refused(&shown, &targets()).contains("no approvals"));
    }

    #[test]
    fn what_devices_would_refuse_is_not_signed() {
        let of = |change: fn(&mut BatchStatement)| {
            let mut statement = statement();
            change(&mut statement);
            refused(&operation(&statement), &targets())
        };
        assert!(of(|statement| statement.per_hour = 7).contains("budget"));
        assert!(of(|statement| statement.not_before = statement.requested_at).contains("sooner"));
        assert!(of(|statement| statement.restore_epoch = 1).contains("restored"));
        assert!(
            of(|statement| statement.tenant = TenantId::from_uuid(uuid::Uuid::from_u128(2)))
                .contains("statement is of")
        );
        let late = review(&operation(&statement()), &targets(), &root(), at(300_000));
        assert!(late.is_err_and(|why| why.contains("expired")));
    }

    #[test]
    fn a_signature_that_would_not_count_is_not_made() {
        let review = review(&operation(&statement()), &targets(), &root(), at(NOW)).expect("it matches");
        let why = |n| {
            review
                .approve(&key(n), &root(), at(NOW))
                .expect_err("it does not count")
        };
        assert!(why(12).contains("names no approver"));
        assert!(why(11).contains("cool-down"));
        let mut own = statement();
        own.requested_by = "ada".to_owned();
        let review = super::review(&operation(&own), &targets(), &root(), at(NOW)).expect("it matches");
        let why = review.approve(&key(10), &root(), at(NOW)).expect_err("she asked");
        assert!(why.contains("cannot approve"), "{why}");
    }
}
