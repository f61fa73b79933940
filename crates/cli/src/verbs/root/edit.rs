//! Changes of a root document. Pure: a document in, a document out.

use std::collections::BTreeSet;

use muster_model::Timestamp;
use muster_model::text::Name;
use muster_trust::key::{Digest, KeyId, PublicKey};
use muster_trust::root::{Approver, RelyingParty, Role, RootDocument};

/// One change.
#[derive(Clone, Debug)]
pub enum Edit {
    AddApprover {
        person: Name,
        key: PublicKey,
        accounts: BTreeSet<String>,
        passkey: Option<RelyingParty>,
        threshold: Option<u32>,
    },
    RemoveApprover {
        who: Who,
        threshold: Option<u32>,
    },
    AddKey {
        role: Role,
        key: PublicKey,
        threshold: Option<u32>,
    },
    RemoveKey {
        key: String,
        threshold: Option<u32>,
    },
    /// One key takes the place of another, in its role and for its person.
    Rotate {
        old: String,
        new: PublicKey,
    },
    /// All root keys are replaced.
    ReplaceRoot {
        keys: Vec<PublicKey>,
        threshold: u32,
    },
    SetThreshold {
        role: Role,
        threshold: u32,
    },
    SetBudget {
        per_hour: Option<u32>,
        fraction: Option<f64>,
    },
    SetApproval {
        cool_down_seconds: Option<u32>,
        delay_seconds: Option<u32>,
        also: Vec<String>,
        not_also: Vec<String>,
    },
    BeginRestore,
    /// Heads of other histories of the log hold nothing up any more.
    SettleHeads(BTreeSet<Digest>),
    /// A longer life and nothing else.
    Renew,
}

/// Which approver.
#[derive(Clone, Debug)]
pub enum Who {
    Key(String),
    /// All keys of a person.
    Person(Name),
}

/// How many people approve where a tenant names its first ones and says nothing else (DESIGN section 2: `m = 2`).
const PEOPLE: u32 = 2;
/// Shortest beginning of a key id that names a key.
const PREFIX_CHARS_MIN: usize = 8;

/// The successor of a document, with nothing changed but version and times.
pub fn successor(current: &RootDocument, now: Timestamp, expires_at: Timestamp) -> RootDocument {
    RootDocument {
        version: current.version + 1,
        issued_at: now,
        expires_at,
        ..current.clone()
    }
}

impl Edit {
    /// Makes the change. `document` is used up where it fails.
    pub fn apply(self, document: &mut RootDocument, now: Timestamp) -> Result<(), String> {
        match self {
            Edit::AddApprover {
                person,
                key,
                accounts,
                passkey,
                threshold,
            } => {
                let approver = Approver {
                    person,
                    accounts,
                    added_at: now,
                    passkey,
                };
                let id = add_key(document, Role::Approver, key)?;
                document.approvers.insert(id, approver);
                settle_people(document, threshold);
            }
            Edit::RemoveApprover { who, threshold } => {
                for id in approvers(document, &who)? {
                    remove_key(document, id);
                }
                if let Some(threshold) = threshold {
                    set_threshold(document, Role::Approver, threshold);
                }
            }
            Edit::AddKey { role, key, threshold } => {
                if role == Role::Approver {
                    return Err("an approver is a person: use `muster root add-approver`".to_owned());
                }
                add_key(document, role, key)?;
                if let Some(threshold) = threshold {
                    set_threshold(document, role, threshold);
                } else if role != Role::Witness && document.role(role).1 == 0 {
                    set_threshold(document, role, 1);
                }
            }
            Edit::RemoveKey { key, threshold } => {
                let id = named(document, &key)?;
                let role = role_of(document, id)?;
                remove_key(document, id);
                if let Some(threshold) = threshold {
                    set_threshold(document, role, threshold);
                }
            }
            Edit::Rotate { old, new } => rotate(document, &old, new, now)?,
            Edit::ReplaceRoot { keys, threshold } => {
                let old: Vec<KeyId> = document
                    .roles
                    .get(&Role::Root)
                    .map(|role| role.keys.iter().copied().collect())
                    .unwrap_or_default();
                for id in old {
                    remove_key(document, id);
                }
                for key in keys {
                    add_key(document, Role::Root, key)?;
                }
                set_threshold(document, Role::Root, threshold);
            }
            Edit::SetThreshold { role, threshold } => set_threshold(document, role, threshold),
            Edit::SetBudget { per_hour, fraction } => {
                let budgets = &mut document.budgets;
                budgets.destructive_per_hour_min = per_hour.unwrap_or(budgets.destructive_per_hour_min);
                budgets.destructive_fraction = fraction.unwrap_or(budgets.destructive_fraction);
            }
            Edit::SetApproval {
                cool_down_seconds,
                delay_seconds,
                also,
                not_also,
            } => {
                let rules = &mut document.approval;
                rules.cool_down_seconds = cool_down_seconds.unwrap_or(rules.cool_down_seconds);
                rules.delay_seconds = delay_seconds.unwrap_or(rules.delay_seconds);
                rules.also.extend(also);
                rules.also.retain(|kind| !not_also.contains(kind));
            }
            Edit::BeginRestore => document.restore_epoch += 1,
            Edit::SettleHeads(heads) => document.settled_heads.extend(heads),
            Edit::Renew => {}
        }
        document.check().map_err(explained)
    }
}

impl Edit {
    /// What whoever makes the change should look at twice, before it is made to `document`.
    pub fn doubts(&self, document: &RootDocument) -> Vec<String> {
        let Edit::AddApprover { person, accounts, .. } = self else {
            return Vec::new();
        };
        let mut doubts: Vec<String> = accounts
            .iter()
            .filter(|account| account.starts_with("usr_"))
            .map(|account| {
                format!(
                    "warning: `{account}` is no account that a server gives: a person's is the name that the sign-in link was \
                     made for (`ada`), a service account's is its id (`cli_…`)."
                )
            })
            .collect();
        let known = document
            .approvers
            .values()
            .filter(|known| known.person == *person);
        if accounts.is_empty() && known.flat_map(|known| &known.accounts).next().is_none() {
            doubts.push(format!(
                "warning: no key of {person} names an account: what {person} asks for, {person} can approve. Give --account."
            ));
        }
        doubts
    }
}

/// Puts a key into a role, unless it has one.
fn add_key(document: &mut RootDocument, role: Role, key: PublicKey) -> Result<KeyId, String> {
    let id = key.key_id();
    if document.keys.contains_key(&id) {
        return Err(format!(
            "key {id} has the role {} already",
            role_of(document, id)?
        ));
    }
    document.keys.insert(id, key);
    document.roles.entry(role).or_default().keys.insert(id);
    Ok(id)
}

fn remove_key(document: &mut RootDocument, id: KeyId) {
    document.keys.remove(&id);
    document.approvers.remove(&id);
    for role in document.roles.values_mut() {
        role.keys.remove(&id);
    }
}

fn set_threshold(document: &mut RootDocument, role: Role, threshold: u32) {
    document.roles.entry(role).or_default().threshold = threshold;
}

/// One person alone approves only where that was said; of the first two, both must.
fn settle_people(document: &mut RootDocument, threshold: Option<u32>) {
    let people: BTreeSet<Name> = document
        .approvers
        .values()
        .map(|approver| approver.person.clone())
        .collect();
    let role = document.roles.entry(Role::Approver).or_default();
    if let Some(threshold) = threshold {
        role.threshold = threshold;
    } else if role.threshold == 0 && people.len() >= PEOPLE as usize {
        role.threshold = PEOPLE;
    }
}

fn rotate(document: &mut RootDocument, old: &str, new: PublicKey, now: Timestamp) -> Result<(), String> {
    let old = named(document, old)?;
    let role = role_of(document, old)?;
    let person = document.approvers.get(&old).cloned();
    remove_key(document, old);
    let id = add_key(document, role, new)?;
    if let Some(person) = person {
        let renewed = Approver {
            added_at: now,
            passkey: None,
            ..person
        };
        document.approvers.insert(id, renewed);
    }
    Ok(())
}

fn approvers(document: &RootDocument, who: &Who) -> Result<Vec<KeyId>, String> {
    let ids: Vec<KeyId> = match who {
        Who::Key(text) => {
            let id = named(document, text)?;
            document
                .approvers
                .contains_key(&id)
                .then_some(id)
                .into_iter()
                .collect()
        }
        Who::Person(person) => document
            .approvers
            .iter()
            .filter(|(_, approver)| approver.person == *person)
            .map(|(id, _)| *id)
            .collect(),
    };
    if ids.is_empty() {
        return Err("the root document names no such approver".to_owned());
    }
    Ok(ids)
}

/// The key that an id, or the beginning of one, names.
fn named(document: &RootDocument, text: &str) -> Result<KeyId, String> {
    if text.len() < PREFIX_CHARS_MIN {
        return Err(format!(
            "`{text}` is too short for a key id: give {PREFIX_CHARS_MIN} characters or more"
        ));
    }
    let mut matching = document.keys.keys().filter(|id| id.to_string().starts_with(text));
    match (matching.next(), matching.next()) {
        (Some(id), None) => Ok(*id),
        (Some(_), Some(_)) => Err(format!("`{text}` begins more than one key id")),
        (None, _) => Err(format!("the root document has no key `{text}`")),
    }
}

fn role_of(document: &RootDocument, id: KeyId) -> Result<Role, String> {
    let role = document.roles.iter().find(|(_, role)| role.keys.contains(&id));
    role.map(|(role, _)| *role)
        .ok_or_else(|| format!("key {id} has no role"))
}

/// What to do about a document that contradicts itself.
fn explained(error: muster_trust::root::RootError) -> String {
    let text = error.to_string();
    if text.contains("threshold is larger") {
        format!("{text}: give --threshold, or add a key first")
    } else if text.contains("threshold is 0") {
        format!("{text}: this role cannot be without a key")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use muster_model::TenantId;
    use muster_trust::checkpoint;
    use muster_trust::key::SigningKey;
    use muster_trust::root::{ApprovalRules, DEFAULT_BUDGETS, RoleKeys};

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn now() -> Timestamp {
        Timestamp::from_unix_seconds(NOW)
    }

    fn key(n: u8) -> PublicKey {
        SigningKey::ed25519_from_seed(&[n; 32])
            .expect("any seed is a key")
            .public()
            .clone()
    }

    fn document() -> RootDocument {
        let tenant = TenantId::from_uuid(uuid::Uuid::from_u128(1));
        let roles = [
            (Role::Root, 1),
            (Role::Policy, 2),
            (Role::Action, 3),
            (Role::Log, 4),
        ];
        RootDocument {
            tenant,
            version: 1,
            issued_at: now(),
            expires_at: now().plus(Duration::from_secs(86_400)),
            keys: roles.iter().map(|(_, n)| (key(*n).key_id(), key(*n))).collect(),
            roles: roles
                .iter()
                .map(|(role, n)| {
                    let keys = BTreeSet::from([key(*n).key_id()]);
                    (*role, RoleKeys { keys, threshold: 1 })
                })
                .collect(),
            log_origin: checkpoint::origin(tenant),
            budgets: DEFAULT_BUDGETS,
            device_ca_sha256: Vec::new(),
            approvers: BTreeMap::new(),
            approval: ApprovalRules::default(),
            restore_epoch: 0,
            settled_heads: BTreeSet::new(),
        }
    }

    fn edited(edits: impl IntoIterator<Item = Edit>) -> Result<RootDocument, String> {
        let mut document = document();
        for edit in edits {
            edit.apply(&mut document, now())?;
        }
        Ok(document)
    }

    fn approver(n: u8, person: &str, threshold: Option<u32>) -> Edit {
        Edit::AddApprover {
            person: Name::parse(person).expect("a name"),
            key: key(n),
            accounts: BTreeSet::from([format!("person-{n}")]),
            passkey: None,
            threshold,
        }
    }

    #[test]
    fn m2_an_approver_without_a_real_account_is_doubted() {
        let doubts = |accounts: &[&str], before: Vec<Edit>| {
            let edit = Edit::AddApprover {
                person: Name::parse("Ada").expect("a name"),
                key: key(20),
                accounts: accounts.iter().map(|account| (*account).to_owned()).collect(),
                passkey: None,
                threshold: None,
            };
            edit.doubts(&edited(before).expect("a proper document"))
        };
        assert!(doubts(&["ada", "cli_1"], Vec::new()).is_empty());
        assert!(doubts(&["usr_1", "ada"], Vec::new())[0].contains("`usr_1` is no account"));
        assert!(doubts(&[], vec![approver(10, "Bob", None)])[0].contains("--account"));
        assert!(
            doubts(&[], vec![approver(10, "Ada", None)]).is_empty(),
            "another key names them"
        );
    }

    fn people_needed(edits: impl IntoIterator<Item = Edit>) -> u32 {
        edited(edits).expect("a proper document").role(Role::Approver).1
    }

    #[test]
    fn one_person_alone_approves_only_where_that_was_said() {
        assert_eq!(people_needed([approver(10, "Ada", None)]), 0);
        assert_eq!(people_needed([approver(10, "Ada", Some(1))]), 1);
        assert_eq!(
            people_needed([approver(10, "Ada", None), approver(11, "Bob", None)]),
            2
        );
        assert_eq!(
            people_needed([approver(10, "Ada", None), approver(11, "Ada", None)]),
            0
        );
        let three = [10, 11, 12].map(|n| approver(n, &format!("P{n}"), None));
        assert_eq!(people_needed(three), 2);
    }

    #[test]
    fn a_role_is_never_left_without_its_keys() {
        let policy = key(2).key_id().to_string();
        let refused = edited([Edit::RemoveKey {
            key: policy.clone(),
            threshold: None,
        }]);
        assert!(refused.is_err_and(|why| why.contains("threshold is larger")));
        let refused = edited([Edit::RemoveKey {
            key: policy,
            threshold: Some(0),
        }]);
        assert!(refused.is_err_and(|why| why.contains("cannot be without a key")));
    }

    #[test]
    fn a_rotated_approver_waits_again_and_stays_the_same_person() {
        let mut document = document();
        approver(10, "Ada", Some(1))
            .apply(&mut document, now())
            .expect("added");
        let later = now().plus(Duration::from_secs(9));
        let rotate = Edit::Rotate {
            old: key(10).key_id().to_string()[..8].to_owned(),
            new: key(11),
        };
        rotate.apply(&mut document, later).expect("rotated");
        let (id, ada) = document.approvers.iter().next().expect("one approver");
        assert_eq!(
            (*id, ada.person.as_str(), ada.added_at),
            (key(11).key_id(), "Ada", later)
        );
        assert!(ada.accounts.contains("person-10"));
        assert!(!document.keys.contains_key(&key(10).key_id()));
    }

    #[test]
    fn a_key_serves_one_role_and_is_named_by_enough_of_its_id() {
        let again = edited([Edit::AddKey {
            role: Role::Witness,
            key: key(2),
            threshold: None,
        }]);
        assert!(again.is_err_and(|why| why.contains("policy already")));
        for text in ["", "abc", "ffffffffffff"] {
            let edit = Edit::RemoveKey {
                key: text.to_owned(),
                threshold: None,
            };
            assert!(edited([edit]).is_err(), "{text}");
        }
        let person = edited([Edit::AddKey {
            role: Role::Approver,
            key: key(20),
            threshold: None,
        }]);
        assert!(person.is_err_and(|why| why.contains("add-approver")));
    }

    #[test]
    fn root_keys_are_replaced_as_a_whole() {
        let keys = vec![key(30), key(31), key(32)];
        let document = edited([Edit::ReplaceRoot { keys, threshold: 2 }]).expect("replaced");
        let (keys, threshold) = document.role(Role::Root);
        assert_eq!((keys.len(), threshold), (3, 2));
        assert!(!document.keys.contains_key(&key(1).key_id()));
    }

    #[test]
    fn several_edits_add_up() {
        let document = edited([
            approver(10, "Ada", None),
            approver(11, "Bob", None),
            Edit::SetBudget {
                per_hour: Some(3),
                fraction: None,
            },
            Edit::SetApproval {
                cool_down_seconds: None,
                delay_seconds: Some(600),
                also: vec!["run-script".to_owned()],
                not_also: Vec::new(),
            },
            Edit::BeginRestore,
            Edit::SettleHeads([Digest([7; 32])].into()),
        ])
        .expect("a proper document");
        assert_eq!(document.restore_epoch, 1);
        assert_eq!(document.settled_heads, [Digest([7; 32])].into());
        assert_eq!(document.budgets.destructive_per_hour_min, 3);
        assert_eq!(document.approval.delay_seconds, 600);
        let unknown = edited([Edit::SetApproval {
            cool_down_seconds: None,
            delay_seconds: None,
            also: vec!["dance".to_owned()],
            not_also: Vec::new(),
        }]);
        assert!(unknown.is_err());
    }
}
