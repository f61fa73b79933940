//! What people approve, and what a device makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use muster_model::command::{CommandKind, WipeMode};
use muster_model::id::DeviceId;
use muster_model::time::Timestamp;
use muster_trust::approval::{
    Approval, ApprovalError, ApprovalProof, ApprovedBatch, Assertion, BatchStatement, TargetList, account_of,
    is_account,
};
use muster_trust::encoding::from_strict_json;
use muster_trust::key::{SigningKey, sha256};
use muster_trust::merkle;
use muster_trust::obey::Trust;
use muster_trust::root::{ApprovalRules, Approver, RelyingParty, Role, RoleKeys, RootDocument};
use muster_trust::statement::CommandStatement;
use uuid::Uuid;

use crate::support::{EPOCH, Tenant, at, device, key};

const DAY: u64 = 86_400;
/// The two-day-old scene: the approvers' cool-down is over.
const NOW: u64 = 2 * DAY;
const DELAY: u64 = 300;

const WIPE: CommandKind = CommandKind::Wipe { mode: WipeMode::Full };

/// A tenant with three approver keys of two people, and a passkey of a third person.
struct Office {
    tenant: Tenant,
    ada: SigningKey,
    ada_second: SigningKey,
    grace: SigningKey,
    passkey: SigningKey,
}

impl Office {
    fn new() -> Self {
        Self {
            tenant: Tenant::new(1),
            ada: key(101),
            ada_second: key(102),
            grace: key(103),
            passkey: SigningKey::generate_p256().unwrap(),
        }
    }

    fn root(&self) -> RootDocument {
        let mut document = self.tenant.root_document();
        let approver = |person: &str, account: &str| Approver {
            person: person.parse().unwrap(),
            accounts: BTreeSet::from([account.to_owned()]),
            added_at: at(0),
            passkey: None,
        };
        let mut passkey = approver("Radia", "usr_radia");
        passkey.passkey = Some(RelyingParty {
            id: "muster.example".to_owned(),
            origin: "https://muster.example:8440".to_owned(),
        });
        document.approvers = BTreeMap::from([
            (self.ada.key_id(), approver("Ada", "usr_ada")),
            (self.ada_second.key_id(), approver("Ada", "usr_ada")),
            (self.grace.key_id(), approver("Grace", "usr_grace")),
            (self.passkey.key_id(), passkey),
        ]);
        for key in [&self.ada, &self.ada_second, &self.grace, &self.passkey] {
            document.keys.insert(key.key_id(), key.public().clone());
        }
        let role = RoleKeys {
            keys: document.approvers.keys().copied().collect(),
            threshold: 2,
        };
        document.roles.insert(Role::Approver, role);
        document
    }

    /// A device that walked to the document with the approvers.
    fn trust(&self, change: impl FnOnce(&mut RootDocument)) -> Trust {
        let mut document = self.root();
        document.version = 2;
        change(&mut document);
        let mut trust = Trust::pin(&self.tenant.root_envelope(), self.tenant.id).unwrap();
        trust
            .advance_root(&document.sign(&[&self.tenant.root_key]).unwrap())
            .unwrap();
        trust
            .advance_checkpoint(&self.tenant.checkpoint_note(at(NOW)), &[])
            .unwrap();
        trust
    }

    fn batch(&self, targets: &TargetList) -> BatchStatement {
        BatchStatement {
            tenant: self.tenant.id,
            operation: Uuid::from_u128(7),
            kind: WIPE,
            count: targets.count(),
            targets_root: targets.root(),
            per_hour: 5,
            fleet: 1000,
            requested_by: "usr_boss".to_owned(),
            requested_at: at(NOW),
            not_before: at(NOW + DELAY),
            expires_at: at(NOW + 7 * DAY),
            restore_epoch: 0,
            reason: None,
        }
    }
}

/// A batch of devices 1 to `count` with approvals by these keys, as the device at `position` is shown it.
fn proof(
    office: &Office,
    count: u8,
    position: u64,
    change: impl FnOnce(&mut BatchStatement),
    keys: &[&SigningKey],
) -> ApprovalProof {
    let targets = list(count);
    let mut statement = office.batch(&targets);
    change(&mut statement);
    let mut batch = ApprovedBatch::new(&statement).unwrap();
    for key in keys {
        batch.add(batch.approve(key).unwrap());
    }
    ApprovalProof {
        batch,
        position,
        path: targets.path(position).unwrap(),
    }
}

fn list(count: u8) -> TargetList {
    TargetList::new((1..=count).map(|n| (device(n), EPOCH)))
}

/// What a device says to a wipe with this proof.
fn obey_as(
    office: &mut Office,
    proof: &ApprovalProof,
    (device, epoch): (DeviceId, u32),
    change: impl FnOnce(&mut RootDocument),
    now: Timestamp,
) -> Result<CommandStatement, &'static str> {
    let mut command = office.tenant.command(1, WIPE);
    command.batch = Some(proof.batch.sha256());
    (command.device_id, command.epoch) = (device, epoch);
    (command.issued_at, command.expires_at) = (at(NOW), at(NOW + 30 * DAY));
    let (envelope, index) = office.tenant.issue(&command);
    let trust = office.trust(change);
    let logged = office.tenant.proof(index);
    trust
        .check_command(&envelope, &logged, Some(proof), (device, epoch), 0, now)
        .map_err(|refusal| refusal.code())
}

fn obey(office: &mut Office, proof: &ApprovalProof) -> Result<CommandStatement, &'static str> {
    obey_as(office, proof, (device(1), EPOCH), |_| {}, at(NOW + DELAY))
}

#[test]
fn a_wipe_that_two_people_approved_is_obeyed() {
    let mut office = Office::new();
    let proof = {
        let office = &office;
        proof(office, 3, 0, |_| {}, &[&office.ada, &office.grace])
    };
    assert_eq!(obey(&mut office, &proof).map(|command| command.kind), Ok(WIPE));
}

#[test]
fn m2_people_are_counted_not_keys() {
    let mut office = Office::new();
    let twice = proof(&office, 1, 0, |_| {}, &[&office.ada, &office.ada_second]);
    assert_eq!(obey(&mut office, &twice), Err("approvals_invalid"));
    let same_key = {
        let mut one = proof(&office, 1, 0, |_| {}, &[&office.ada]);
        one.batch.approvals.push(one.batch.approvals[0].clone());
        one
    };
    assert_eq!(obey(&mut office, &same_key), Err("approvals_invalid"));
}

#[test]
fn m2_whoever_asked_does_not_count() {
    let mut office = Office::new();
    let asked_by_ada = |batch: &mut BatchStatement| batch.requested_by = "usr_ada".to_owned();
    let own = proof(&office, 1, 0, asked_by_ada, &[&office.ada, &office.grace]);
    assert_eq!(obey(&mut office, &own), Err("approvals_invalid"));
}

#[test]
fn m2_whoever_asked_does_not_count_with_another_key_either() {
    let mut office = Office::new();
    let second = office.ada_second.key_id();
    // A passkey, say, that was named without an account.
    let no_account = |document: &mut RootDocument| {
        document.approvers.get_mut(&second).unwrap().accounts.clear();
    };
    let now = at(NOW + DELAY);
    for account in ["usr_ada", "USR_Ada"] {
        let asked = |batch: &mut BatchStatement| batch.requested_by = account.to_owned();
        let own = proof(&office, 1, 0, asked, &[&office.ada_second, &office.grace]);
        let said = obey_as(&mut office, &own, (device(1), EPOCH), no_account, now);
        assert_eq!(said, Err("approvals_invalid"), "{account}");
    }
    let by_others = proof(&office, 1, 0, |_| {}, &[&office.ada_second, &office.grace]);
    assert!(obey_as(&mut office, &by_others, (device(1), EPOCH), no_account, now).is_ok());
}

#[test]
fn m2_one_person_has_one_name() {
    let office = Office::new();
    let second = office.ada_second.key_id();
    let check = |name: &str| {
        let mut document = office.root();
        document.approvers.get_mut(&second).unwrap().person = name.parse().unwrap();
        document.check()
    };
    for one in ["Ada", " Ada\u{a0}", "Ada B", "Adá", "Ada 2", "\u{30a2}"] {
        assert_eq!(check(one), Ok(()), "{one}");
    }
    for alike in [
        "ada",
        "ADA",
        "A d a",
        "Ada.",
        "A-da",
        "A\u{ad}da",
        "grace",
        "GrAcE",
    ] {
        assert!(
            check(alike).is_err_and(|why| why.to_string().contains("differ only by case")),
            "{alike}"
        );
    }
}

#[test]
fn m5_an_approval_from_before_the_enrollment_is_refused() {
    let mut office = Office::new();
    let approved = proof(&office, 1, 0, |_| {}, &[&office.ada, &office.grace]);
    let mut command = office.tenant.command(1, WIPE);
    (command.batch, command.expires_at) = (Some(approved.batch.sha256()), at(NOW + DAY));
    let (envelope, index) = office.tenant.issue(&command);
    let logged = office.tenant.proof(index);
    let mut trust = office.trust(|_| {});
    let mut obey = |enrolled_at| {
        trust.enrolled_at = enrolled_at;
        let said = trust.check_command(
            &envelope,
            &logged,
            Some(&approved),
            (device(1), EPOCH),
            0,
            at(NOW + DELAY),
        );
        said.map(drop).map_err(|refusal| refusal.code())
    };
    assert_eq!(obey(None), Ok(()), "a device that enrolled before it was kept");
    assert_eq!(obey(Some(at(NOW - 1))), Ok(()));
    for enrolled in [NOW, NOW + 1, NOW + DELAY] {
        assert_eq!(obey(Some(at(enrolled))), Err("asked_before_enrollment"));
    }
}

#[test]
fn m2_m3_a_new_approver_does_not_count_before_the_cool_down() {
    let mut office = Office::new();
    let by_two = proof(&office, 1, 0, |_| {}, &[&office.ada, &office.grace]);
    let grace = office.grace.key_id();
    let named_just_now = |document: &mut RootDocument| {
        document.approvers.get_mut(&grace).unwrap().added_at = at(NOW);
    };
    let target = (device(1), EPOCH);
    let early = obey_as(&mut office, &by_two, target, named_just_now, at(NOW + DELAY));
    assert_eq!(early, Err("approvals_invalid"));
    let later = obey_as(&mut office, &by_two, target, named_just_now, at(NOW + DAY));
    assert!(later.is_ok());
}

#[test]
fn m2_strangers_and_other_roles_do_not_count() {
    let mut office = Office::new();
    let stranger = proof(&office, 1, 0, |_| {}, &[&office.ada, &key(200)]);
    assert_eq!(obey(&mut office, &stranger), Err("approvals_invalid"));
    let server_keys = proof(
        &office,
        1,
        0,
        |_| {},
        &[&office.tenant.action_key, &office.tenant.policy_key],
    );
    assert_eq!(obey(&mut office, &server_keys), Err("approvals_invalid"));
}

#[test]
fn m5_an_approval_is_for_this_list_this_command_and_this_epoch() {
    let mut office = Office::new();
    let keys = [&key(101), &key(103)];
    let here = proof(&office, 3, 0, |_| {}, &keys);
    let now = at(NOW + DELAY);
    let not_listed = obey_as(&mut office, &here, (device(9), EPOCH), |_| {}, now);
    assert_eq!(not_listed, Err("approvals_invalid"));
    let other_epoch = obey_as(&mut office, &here, (device(1), EPOCH + 1), |_| {}, now);
    assert_eq!(other_epoch, Err("approvals_invalid"));
    let other_place = ApprovalProof {
        position: 1,
        ..here.clone()
    };
    assert_eq!(obey(&mut office, &other_place), Err("approvals_invalid"));
    let enterprise = |batch: &mut BatchStatement| {
        batch.kind = CommandKind::Wipe {
            mode: WipeMode::Enterprise,
        };
    };
    let other_command = proof(&office, 3, 0, enterprise, &keys);
    assert_eq!(obey(&mut office, &other_command), Err("approvals_invalid"));
    let one_more = ApprovalProof {
        path: list(4).path(0).unwrap(),
        ..here
    };
    assert_eq!(obey(&mut office, &one_more), Err("approvals_invalid"));
}

#[test]
fn m5_a_command_names_the_batch_it_is_part_of() {
    let mut office = Office::new();
    let keys = [&key(101), &key(103)];
    let approved = proof(&office, 1, 0, |_| {}, &keys);
    let mut command = office.tenant.command(1, WIPE);
    command.batch = Some(sha256(b"another batch"));
    let (envelope, index) = office.tenant.issue(&command);
    let logged = office.tenant.proof(index);
    let trust = office.trust(|_| {});
    let check = |approval| {
        trust
            .check_command(
                &envelope,
                &logged,
                approval,
                (device(1), EPOCH),
                0,
                at(NOW + DELAY),
            )
            .map_err(|refusal| refusal.code())
    };
    // Expired by then, and before that refused for the batch.
    assert_eq!(check(Some(&approved)), Err("expired"));
    command.expires_at = at(NOW + DAY);
    let (envelope, index) = office.tenant.issue(&command);
    let logged = office.tenant.proof(index);
    let trust = office.trust(|_| {});
    let said = trust.check_command(
        &envelope,
        &logged,
        Some(&approved),
        (device(1), EPOCH),
        0,
        at(NOW + DELAY),
    );
    assert_eq!(said.map_err(|refusal| refusal.code()), Err("approvals_invalid"));
}

#[test]
fn m6_a_list_longer_than_the_budget_takes_hours() {
    let mut office = Office::new();
    let keys = [&key(101), &key(103)];
    let sixth = proof(&office, 12, 5, |_| {}, &keys);
    let target = (device(6), EPOCH);
    let early = obey_as(&mut office, &sixth, target, |_| {}, at(NOW + DELAY + 3599));
    assert_eq!(early, Err("too_early"));
    let in_time = obey_as(&mut office, &sixth, target, |_| {}, at(NOW + DELAY + 3600));
    assert!(in_time.is_ok());
    let faster = proof(&office, 12, 5, |batch| batch.per_hour = 6, &keys);
    let over = obey_as(&mut office, &faster, target, |_| {}, at(NOW + DAY));
    assert_eq!(over, Err("over_budget"));
    // Half a percent of 10,000 devices.
    let larger = |batch: &mut BatchStatement| (batch.per_hour, batch.fleet) = (50, 10_000);
    let within = proof(&office, 12, 5, larger, &keys);
    assert!(obey_as(&mut office, &within, target, |_| {}, at(NOW + DELAY)).is_ok());
}

#[test]
fn nothing_begins_before_the_delay_or_after_the_end() {
    let mut office = Office::new();
    let approved = proof(&office, 1, 0, |_| {}, &[&key(101), &key(103)]);
    let target = (device(1), EPOCH);
    let early = obey_as(&mut office, &approved, target, |_| {}, at(NOW + DELAY - 1));
    assert_eq!(early, Err("too_early"));
    let late = obey_as(&mut office, &approved, target, |_| {}, at(NOW + 7 * DAY));
    assert_eq!(late, Err("approvals_invalid"));
}

#[test]
fn a_batch_that_begins_before_the_delay_is_over_is_refused() {
    let mut office = Office::new();
    let hurried = |batch: &mut BatchStatement| batch.not_before = at(NOW + DELAY - 1);
    let sooner = proof(&office, 1, 0, hurried, &[&key(101), &key(103)]);
    assert_eq!(obey(&mut office, &sooner), Err("approvals_invalid"));
}

#[test]
fn r10_after_a_restore_nothing_asked_before_is_obeyed() {
    let mut office = Office::new();
    let approved = proof(&office, 1, 0, |_| {}, &[&key(101), &key(103)]);
    let restored = |document: &mut RootDocument| document.restore_epoch = 1;
    let said = obey_as(
        &mut office,
        &approved,
        (device(1), EPOCH),
        restored,
        at(NOW + DELAY),
    );
    assert_eq!(said, Err("wrong_restore_epoch"));
}

#[test]
fn without_approvers_nothing_destructive_is_obeyed() {
    let mut office = Office::new();
    let approved = proof(&office, 1, 0, |_| {}, &[&key(101), &key(103)]);
    let nobody = |document: &mut RootDocument| {
        document.roles.get_mut(&Role::Approver).unwrap().threshold = 0;
    };
    let said = obey_as(
        &mut office,
        &approved,
        (device(1), EPOCH),
        nobody,
        at(NOW + DELAY),
    );
    assert_eq!(said, Err("approvals_invalid"));
}

#[test]
fn a_tenant_may_ask_for_approvals_of_more() {
    let mut office = Office::new();
    let lock = office.tenant.command(1, CommandKind::Lock { message: None });
    let (envelope, index) = office.tenant.issue(&lock);
    let logged = office.tenant.proof(index);
    let check = |trust: &Trust| {
        trust
            .check_command(&envelope, &logged, None, (device(1), EPOCH), 0, at(60))
            .map(drop)
            .map_err(|refusal| refusal.code())
    };
    let strict = |document: &mut RootDocument| {
        document.approval.also = BTreeSet::from(["lock".to_owned()]);
    };
    // Both trusts have seen a checkpoint of a later day, by which the command has expired.
    assert_eq!(check(&office.trust(|_| {})), Err("expired"));
    let mut lock = office.tenant.command(2, CommandKind::Lock { message: None });
    lock.expires_at = at(NOW + DAY);
    let (envelope, index) = office.tenant.issue(&lock);
    let logged = office.tenant.proof(index);
    let check = |trust: &Trust| {
        trust
            .check_command(&envelope, &logged, None, (device(1), EPOCH), 0, at(NOW))
            .map(drop)
            .map_err(|refusal| refusal.code())
    };
    assert_eq!(check(&office.trust(|_| {})), Ok(()));
    assert_eq!(check(&office.trust(strict)), Err("approvals_required"));
}

#[test]
fn every_flipped_byte_of_a_batch_is_refused() {
    let office = Office::new();
    let approved = proof(&office, 2, 0, |_| {}, &[&office.ada, &office.grace]).batch;
    let root = office.root();
    assert!(approved.verify(&root, at(NOW)).is_ok());
    for at_byte in 0..approved.payload.len() {
        let mut flipped = approved.clone();
        flipped.payload[at_byte] ^= 1;
        assert!(flipped.verify(&root, at(NOW)).is_err(), "byte {at_byte}");
    }
    for (number, approval) in approved.approvals.iter().enumerate() {
        for at_byte in 0..approval.sig.len() {
            let mut flipped = approved.clone();
            flipped.approvals[number].sig[at_byte] ^= 1;
            assert!(
                flipped.verify(&root, at(NOW)).is_err(),
                "signature byte {at_byte}"
            );
        }
    }
}

/// What a browser and an authenticator make of a batch.
struct Ceremony {
    kind: &'static str,
    challenge: Vec<u8>,
    origin: &'static str,
    relying_party: &'static str,
    flags: u8,
    extra: &'static str,
}

impl Ceremony {
    fn of(batch: &ApprovedBatch) -> Self {
        Self {
            kind: "webauthn.get",
            challenge: sha256(&batch.to_sign()).as_bytes().to_vec(),
            origin: "https://muster.example:8440",
            relying_party: "muster.example",
            flags: 0b101,
            extra: "",
        }
    }

    fn approval(&self, passkey: &SigningKey) -> Approval {
        let challenge = URL_SAFE_NO_PAD.encode(&self.challenge);
        let client_data_json = format!(
            r#"{{"type":"{}","challenge":"{challenge}","origin":"{}"{}}}"#,
            self.kind, self.origin, self.extra
        )
        .into_bytes();
        let counter = [0, 0, 0, 9];
        let authenticator_data = [
            sha256(self.relying_party.as_bytes()).as_bytes().as_slice(),
            &[self.flags],
            &counter,
        ]
        .concat();
        let message = [
            authenticator_data.as_slice(),
            sha256(&client_data_json).as_bytes(),
        ]
        .concat();
        Approval {
            keyid: passkey.key_id(),
            sig: passkey.sign(&message).unwrap(),
            assertion: Some(Assertion {
                authenticator_data,
                client_data_json,
            }),
        }
    }
}

#[test]
fn a_passkey_approves_exactly_the_batch_that_its_challenge_names() {
    let office = Office::new();
    let root = office.root();
    let verify = |change: &dyn Fn(&mut Ceremony)| {
        let mut batch = proof(&office, 2, 0, |_| {}, &[&office.ada]).batch;
        let mut ceremony = Ceremony::of(&batch);
        change(&mut ceremony);
        batch.add(ceremony.approval(&office.passkey));
        batch.verify(&root, at(NOW)).map(|approved| approved.people)
    };
    let people = verify(&|_| {}).unwrap();
    assert_eq!(people, BTreeSet::from(["Ada".to_owned(), "Radia".to_owned()]));
    // Browsers add members.
    assert!(verify(&|ceremony| ceremony.extra = r#","crossOrigin":false,"other":1"#).is_ok());
    let wrong: [&dyn Fn(&mut Ceremony); 7] = [
        &|ceremony| ceremony.kind = "webauthn.create",
        &|ceremony| ceremony.challenge[0] ^= 1,
        &|ceremony| ceremony.origin = "https://muster.example.evil:8440",
        &|ceremony| ceremony.relying_party = "example",
        &|ceremony| ceremony.flags = 0b001,
        &|ceremony| ceremony.flags = 0b100,
        &|ceremony| ceremony.extra = r#","crossOrigin":true"#,
    ];
    for change in wrong {
        assert!(matches!(verify(change), Err(ApprovalError::Assertion { .. })));
    }
    let mut plain = proof(&office, 2, 0, |_| {}, &[&office.ada]).batch;
    plain.add(plain.approve(&office.passkey).unwrap());
    assert!(matches!(
        plain.verify(&root, at(NOW)),
        Err(ApprovalError::Assertion { .. })
    ));
}

#[test]
fn a_persons_name_is_an_account_too() {
    for (actor, account) in [
        ("cli_0190", "cli_0190"),
        ("mara", "mara"),
        ("Ada Lovelace", "Ada%20Lovelace"),
        ("x'; %20é", "x%27%3B%20%2520%C3%A9"),
    ] {
        assert_eq!(account_of(actor), account);
        assert!(is_account(account));
    }
    assert!(is_account(&account_of(&"é".repeat(128))));
}

#[test]
fn the_path_of_every_device_leads_to_the_root_of_the_list() {
    for count in 1..=40_u8 {
        let targets = list(count);
        let by_log = merkle::Frontier::new();
        let mut frontier = by_log;
        for n in 1..=count {
            frontier
                .append(muster_trust::approval::target_leaf(device(n), EPOCH))
                .unwrap();
        }
        assert_eq!(targets.root(), frontier.root());
        for position in 0..u64::from(count) {
            let leaf = muster_trust::approval::target_leaf(device(position as u8 + 1), EPOCH);
            let path = targets.path(position).unwrap();
            merkle::verify_inclusion(&leaf, position, count.into(), &path, &targets.root()).unwrap();
        }
        assert_eq!(targets.path(count.into()), None);
    }
}

#[test]
fn a_root_document_names_a_person_for_every_approver_key() {
    let office = Office::new();
    let check = |change: &dyn Fn(&mut RootDocument)| {
        let mut document = office.root();
        change(&mut document);
        document.check().is_ok()
    };
    assert!(check(&|_| {}));
    let ada = office.ada.key_id();
    assert!(!check(&|document| drop(document.approvers.remove(&ada))));
    // Three people hold the four keys.
    let threshold = |document: &mut RootDocument, threshold| {
        document.roles.get_mut(&Role::Approver).unwrap().threshold = threshold;
    };
    assert!(check(&|document| threshold(document, 3)));
    assert!(!check(&|document| threshold(document, 4)));
    assert!(!check(&|document| {
        document.approval.also.insert("explode".to_owned());
    }));
    let passkey = office.passkey.key_id();
    assert!(!check(&|document| {
        let party = document
            .approvers
            .get_mut(&passkey)
            .unwrap()
            .passkey
            .as_mut()
            .unwrap();
        party.origin = "https://evil.example".to_owned();
    }));
}

#[test]
fn a_document_without_approvers_has_the_bytes_that_it_always_had() {
    let document = Tenant::new(1).root_document();
    assert_eq!(document.approval, ApprovalRules::default());
    let text = String::from_utf8(document.to_bytes()).unwrap();
    for member in ["approvers", "\"approval\"", "restore_epoch", "settled_heads"] {
        assert!(!text.contains(member), "{member}");
    }
}

#[test]
fn a_restore_epoch_never_goes_back_and_takes_up_the_log_anew() {
    let office = Office::new();
    let mut second = office.root();
    (second.version, second.restore_epoch) = (2, 1);
    let mut trust = office.trust(|document| document.restore_epoch = 1);
    assert!(trust.checkpoint.is_some());
    let mut third = RootDocument {
        version: 3,
        restore_epoch: 0,
        ..second.clone()
    };
    let sign = |document: &RootDocument| document.sign(&[&office.tenant.root_key]).unwrap();
    assert_eq!(
        trust
            .advance_root(&sign(&third))
            .map_err(|refusal| refusal.code()),
        Err("root_invalid")
    );
    third.restore_epoch = 2;
    let proven = trust.trusted_time;
    trust.advance_root(&sign(&third)).unwrap();
    assert_eq!((trust.checkpoint.is_none(), trust.trusted_time), (true, proven));
}

proptest::proptest! {
    #[test]
    fn random_bytes_are_no_proof_and_never_panic(
        payload in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        client in proptest::collection::vec(proptest::num::u8::ANY, 0..100),
        data in proptest::collection::vec(proptest::num::u8::ANY, 0..60),
    ) {
        let office = Office::new();
        let root = office.root();
        let _ = from_strict_json::<ApprovalProof>(&payload, 1024);
        let mut batch = ApprovedBatch { payload, approvals: Vec::new() };
        proptest::prop_assert!(batch.verify(&root, at(NOW)).is_err());
        let mut real = proof(&office, 1, 0, |_| {}, &[&office.ada]).batch;
        let approval = Approval {
            keyid: office.passkey.key_id(),
            sig: data.clone(),
            assertion: Some(Assertion { authenticator_data: data, client_data_json: client }),
        };
        batch.approvals.push(approval.clone());
        real.add(approval);
        proptest::prop_assert!(real.verify(&root, at(NOW)).is_err());
    }
}

proptest::proptest! {
    #[test]
    fn m2_a_name_in_another_guise_is_no_second_person(name in "[a-zA-Z0-9àéüøñ]{1,20}", sign in "[ ._'-]", place in 0_usize..20) {
        let office = Office::new();
        let mut guise: Vec<char> = name.to_uppercase().chars().collect();
        guise.insert(place.min(guise.len()), sign.chars().next().unwrap());
        let guise: String = guise.into_iter().collect();
        let named = |document: &mut RootDocument, key: &SigningKey, name: &str| {
            document.approvers.get_mut(&key.key_id()).unwrap().person = name.parse().unwrap();
        };
        let mut document = office.root();
        named(&mut document, &office.ada, &name);
        named(&mut document, &office.ada_second, &name);
        proptest::prop_assert!(document.check().is_ok());
        named(&mut document, &office.ada_second, &guise);
        proptest::prop_assert_eq!(document.check().is_ok(), guise.trim() == name);
    }
}

#[test]
fn a_slot_never_overflows() {
    let office = Office::new();
    let mut batch = office.batch(&list(1));
    batch.per_hour = 1;
    let last = batch.slot(u64::MAX);
    assert!(last >= batch.not_before.plus(Duration::from_secs(3600)));
}
