use std::collections::BTreeSet;
use std::time::Duration;

use muster_model::text::Name;
use muster_trust::root::{Approver, Role, RoleKeys, RootDocument};
use muster_trust::root_change::{changes, short};

use crate::support::{Tenant, at, key};

/// What a change of the document is called, with `!` before what weakens.
fn said(change: impl FnOnce(&mut RootDocument)) -> Vec<String> {
    let old = with_people(Tenant::new(1).root_document());
    let mut new = RootDocument {
        version: 2,
        issued_at: at(60),
        ..old.clone()
    };
    change(&mut new);
    new.check().expect("the change is a proper document");
    changes(&old, &new)
        .into_iter()
        .map(|change| {
            let mark = if change.weakens { "!" } else { "" };
            format!("{mark}{}", change.text)
        })
        .collect()
}

fn with_people(mut document: RootDocument) -> RootDocument {
    for (number, person) in [(200, "Ada"), (201, "Bob")] {
        let key = key(number);
        document.keys.insert(key.key_id(), key.public().clone());
        let role = document.roles.entry(Role::Approver).or_default();
        role.keys.insert(key.key_id());
        role.threshold = 2;
        document.approvers.insert(key.key_id(), approver(person));
    }
    document
}

fn approver(person: &str) -> Approver {
    Approver {
        person: Name::parse(person).expect("a name"),
        accounts: BTreeSet::from([format!("usr_{person}")]),
        added_at: at(60),
        passkey: None,
    }
}

fn add_approver(document: &mut RootDocument, approver: Approver) {
    let key = key(202);
    document.keys.insert(key.key_id(), key.public().clone());
    let role = document.roles.entry(Role::Approver).or_default();
    role.keys.insert(key.key_id());
    document.approvers.insert(key.key_id(), approver);
}

#[test]
fn nothing_changes_where_only_version_and_time_do() {
    assert_eq!(said(|_| {}), Vec::<String>::new());
}

#[test]
fn one_approver_alone_is_said_loudly() {
    let said = said(|document| {
        document.roles.entry(Role::Approver).or_default().threshold = 1;
    });
    assert_eq!(
        said,
        ["!one person alone approves destructive commands (m = 1; it was 2): a choice for tiny installs"]
    );
}

#[test]
fn more_power_is_marked_and_less_is_not() {
    let weaker = said(|document| {
        document.budgets.destructive_per_hour_min = 500;
        document.budgets.destructive_fraction = 0.25;
        document.approval.delay_seconds = 0;
        document.approval.cool_down_seconds = 60;
    });
    assert!(weaker.iter().all(|text| text.starts_with('!')), "{weaker:?}");
    assert!(
        weaker.contains(&"!budget: 25 % of the fleet an hour (it was 0.5 %)".to_owned()),
        "{weaker:?}"
    );
    let stricter = said(|document| {
        document.budgets.destructive_per_hour_min = 1;
        document.budgets.destructive_fraction = 0.0;
        document.approval.delay_seconds = 3600;
        document.approval.also.insert("run-script".to_owned());
    });
    assert_eq!(stricter.len(), 4);
    assert!(stricter.iter().all(|text| !text.starts_with('!')), "{stricter:?}");
}

#[test]
fn a_backdated_approver_is_found() {
    let honest = said(|document| add_approver(document, approver("Cyd")));
    assert_eq!(honest.len(), 1, "{honest:?}");
    let backdated = said(|document| {
        let mut approver = approver("Cyd");
        approver.added_at = at(60).minus(Duration::from_secs(7 * 86_400));
        add_approver(document, approver);
    });
    assert_eq!(backdated.len(), 2, "{backdated:?}");
    assert!(backdated[1].contains("backdated"), "{backdated:?}");
}

#[test]
fn m2_a_key_without_an_account_has_those_of_its_person() {
    let without = |person: &str| Approver {
        accounts: BTreeSet::new(),
        ..approver(person)
    };
    let of_ada = said(|document| add_approver(document, without("Ada")));
    assert!(
        of_ada[0].contains("accounts of the person's other keys"),
        "{of_ada:?}"
    );
    let of_cyd = said(|document| add_approver(document, without("Cyd")));
    assert!(of_cyd[0].contains("no account: nothing"), "{of_cyd:?}");
}

#[test]
fn an_account_that_is_taken_from_an_approver_weakens() {
    let id = key(200).key_id();
    let said = said(|document| {
        if let Some(approver) = document.approvers.get_mut(&id) {
            approver.accounts.clear();
        }
    });
    assert_eq!(said, ["!approver Ada: accounts none (they were usr_Ada)"]);
}

#[test]
fn keys_that_come_and_go_are_named() {
    let (old, new) = (Tenant::new(1).policy_key.key_id(), key(210));
    let said = said(|document| {
        document.keys.remove(&old);
        document.keys.insert(new.key_id(), new.public().clone());
        let keys = BTreeSet::from([new.key_id()]);
        document
            .roles
            .insert(Role::Policy, RoleKeys { keys, threshold: 1 });
    });
    assert_eq!(
        said,
        [
            format!("!policy: key {} (ed25519) is added", short(&new.key_id())),
            format!("policy: key {} is removed", short(&old)),
        ]
    );
}

#[test]
fn a_restore_and_a_shorter_life_are_said() {
    let said = said(|document| {
        document.restore_epoch = 1;
        document.expires_at = at(3600);
    });
    assert_eq!(said.len(), 2);
    assert!(said.iter().all(|text| text.starts_with('!')), "{said:?}");
}

#[test]
fn a_settled_head_is_said() {
    let head = muster_trust::key::Digest([7; 32]);
    let said = said(|document| {
        document.settled_heads.insert(head);
    });
    assert_eq!(said.len(), 1);
    assert!(
        said[0].starts_with('!') && said[0].contains(&head.to_string()),
        "{said:?}"
    );
}
