use std::collections::BTreeSet;

use muster_trust::dsse::{DsseError, Envelope, sign};
use muster_trust::key::{SigningKey, sha256};
use muster_trust::root::{Approver, PAYLOAD_TYPE, Role, RoleKeys, RootDocument, RootError};
use proptest::prelude::*;

use crate::support::{Tenant, bit_flips, key, tenant};

fn role_of(keys: &[&SigningKey], threshold: u32) -> RoleKeys {
    RoleKeys {
        keys: keys.iter().map(|key| key.key_id()).collect(),
        threshold,
    }
}

/// Replaces a role's keys and keeps the key list in step.
fn set_role(document: &mut RootDocument, role: Role, keys: &[&SigningKey], threshold: u32) {
    if let Some(old) = document.roles.insert(role, role_of(keys, threshold)) {
        document.keys.retain(|id, _| !old.keys.contains(id));
    }
    document
        .keys
        .extend(keys.iter().map(|key| (key.key_id(), key.public().clone())));
}

/// Signs without checking, as an attacker would.
fn sign_anyway(document: &RootDocument, keys: &[&SigningKey]) -> Envelope {
    sign(PAYLOAD_TYPE, &document.to_bytes(), keys).unwrap()
}

#[test]
fn the_first_document_vouches_for_itself() {
    let tenant = Tenant::new(1);
    let envelope = tenant.root_envelope();
    let document = RootDocument::verify_first(&envelope, None).unwrap();
    assert_eq!(document, tenant.root_document());
    RootDocument::verify_first(&envelope, Some(&sha256(&envelope.payload))).unwrap();
    let other = RootDocument::verify_first(&envelope, Some(&sha256(b"other")));
    assert_eq!(other, Err(RootError::NotPinned));
    let stranger = sign_anyway(&tenant.root_document(), &[&key(99)]);
    assert!(matches!(
        RootDocument::verify_first(&stranger, None),
        Err(RootError::Dsse(_))
    ));
}

#[test]
fn a_device_starts_at_version_1() {
    let tenant = Tenant::new(1);
    let document = RootDocument {
        version: 2,
        ..tenant.root_document()
    };
    let result = RootDocument::verify_first(&sign_anyway(&document, &[&tenant.root_key]), None);
    assert_eq!(
        result,
        Err(RootError::Version {
            expected: 1,
            found: 2
        })
    );
}

#[test]
fn the_next_document_needs_the_old_and_the_new_keys() {
    let tenant = Tenant::new(1);
    let current = tenant.root_document();
    let (old, new) = (&tenant.root_key, key(100));
    let mut next = RootDocument {
        version: 2,
        ..current.clone()
    };
    set_role(&mut next, Role::Root, &[&new], 1);
    let verify = |keys: &[&SigningKey]| RootDocument::verify_next(&current, &sign_anyway(&next, keys));
    assert!(matches!(
        verify(&[old]),
        Err(RootError::Dsse(DsseError::Threshold { .. }))
    ));
    assert!(matches!(
        verify(&[&new]),
        Err(RootError::Dsse(DsseError::Threshold { .. }))
    ));
    assert_eq!(verify(&[old, &new]).unwrap(), next);
}

#[test]
fn the_threshold_of_the_predecessor_counts() {
    let tenant = Tenant::new(1);
    let (a, b, c) = (key(100), key(101), key(102));
    let mut current = tenant.root_document();
    set_role(&mut current, Role::Root, &[&a, &b, &c], 2);
    let mut next = RootDocument {
        version: 2,
        ..current.clone()
    };
    set_role(&mut next, Role::Root, &[&a], 1);
    let one = RootDocument::verify_next(&current, &sign_anyway(&next, &[&a]));
    assert!(matches!(
        one,
        Err(RootError::Dsse(DsseError::Threshold {
            valid: 1,
            threshold: 2
        }))
    ));
    RootDocument::verify_next(&current, &sign_anyway(&next, &[&a, &c])).unwrap();
}

#[test]
fn p3_versions_go_up_by_one() {
    let tenant = Tenant::new(1);
    let current = RootDocument {
        version: 5,
        ..tenant.root_document()
    };
    for version in [0, 1, 4, 5, 7, u64::MAX] {
        let next = RootDocument {
            version,
            ..current.clone()
        };
        assert!(
            RootDocument::verify_next(&current, &sign_anyway(&next, &[&tenant.root_key])).is_err(),
            "{version}"
        );
    }
    let next = RootDocument {
        version: 6,
        ..current.clone()
    };
    RootDocument::verify_next(&current, &sign_anyway(&next, &[&tenant.root_key])).unwrap();
    let last = RootDocument {
        version: u64::MAX,
        ..current
    };
    assert!(RootDocument::verify_next(&last, &sign_anyway(&last, &[&tenant.root_key])).is_err());
}

#[test]
fn p2_another_tenant_cannot_take_over() {
    let tenant_1 = Tenant::new(1);
    let current = tenant_1.root_document();
    let mut next = RootDocument {
        version: 2,
        tenant: tenant(2),
        ..current.clone()
    };
    next.log_origin = muster_trust::checkpoint::origin(tenant(2));
    let result = RootDocument::verify_next(&current, &sign_anyway(&next, &[&tenant_1.root_key]));
    assert!(matches!(result, Err(RootError::Tenant { .. })));
}

#[test]
fn documents_that_contradict_themselves_are_refused() {
    let tenant_1 = Tenant::new(1);
    let refused = |what: &str, change: &dyn Fn(&mut RootDocument)| {
        let mut document = tenant_1.root_document();
        change(&mut document);
        assert!(
            matches!(document.sign(&[&tenant_1.root_key]), Err(RootError::Invalid(_))),
            "{what}"
        );
        let envelope = sign_anyway(&document, &[&tenant_1.root_key]);
        assert!(
            matches!(
                RootDocument::verify_first(&envelope, None),
                Err(RootError::Invalid(_))
            ),
            "{what}"
        );
    };
    refused("no version", &|document| document.version = 0);
    refused("expired at birth", &|document| {
        document.expires_at = document.issued_at
    });
    refused("another log", &|document| {
        document.log_origin = muster_trust::checkpoint::origin(tenant(2))
    });
    refused("no policy role", &|document| {
        drop(document.roles.remove(&Role::Policy))
    });
    refused("threshold 0", &|document| {
        document.roles.get_mut(&Role::Action).unwrap().threshold = 0
    });
    refused("threshold too high", &|document| {
        document.roles.get_mut(&Role::Action).unwrap().threshold = 2
    });
    refused("unknown key", &|document| {
        document.keys.remove(&tenant_1.policy_key.key_id());
    });
    refused("key without role", &|document| {
        document.keys.insert(key(50).key_id(), key(50).public().clone());
    });
    refused("lying key id", &|document| {
        document
            .keys
            .insert(tenant_1.policy_key.key_id(), key(50).public().clone());
    });
    refused("one key, two roles", &|document| {
        document.keys.remove(&tenant_1.policy_key.key_id());
        document
            .roles
            .insert(Role::Policy, role_of(&[&tenant_1.action_key], 1));
    });
    refused("fraction above 1", &|document| {
        document.budgets.destructive_fraction = 1.5
    });
    refused("P-256 log key", &|document| {
        set_role(document, Role::Log, &[&SigningKey::generate_p256().unwrap()], 1);
    });
    refused("too many device CAs", &|document| {
        document.device_ca_sha256 = vec![sha256(b""); 33]
    });
}

#[test]
fn unknown_roles_and_fields_are_refused() {
    let tenant = Tenant::new(1);
    let text = String::from_utf8(tenant.root_document().to_bytes()).unwrap();
    for wrong in [
        text.replace("\"policy\":{", "\"superuser\":{"),
        text.replacen('{', "{\"note\":1,", 1),
        text.replacen("\"version\":1", "\"version\":1,\"version\":1", 1),
        text.replacen("\"version\":1", "\"version\":1.0", 1),
        text.replacen("\"version\":1", "\"version\":-1", 1),
    ] {
        assert_ne!(wrong, text);
        let envelope = sign(PAYLOAD_TYPE, wrong.as_bytes(), &[&tenant.root_key]).unwrap();
        assert!(
            matches!(
                RootDocument::verify_first(&envelope, None),
                Err(RootError::Json(_))
            ),
            "{wrong}"
        );
    }
}

#[test]
fn approvers_and_witnesses_are_optional_and_p256_may_approve() {
    let tenant = Tenant::new(1);
    let mut document = tenant.root_document();
    set_role(
        &mut document,
        Role::Approver,
        &[&SigningKey::generate_p256().unwrap(), &key(80)],
        2,
    );
    set_role(&mut document, Role::Witness, &[&key(81)], 0);
    for (number, id) in document.roles[&Role::Approver].keys.iter().enumerate() {
        let approver = Approver {
            person: format!("Person {number}").parse().unwrap(),
            accounts: BTreeSet::new(),
            added_at: document.issued_at,
            passkey: None,
        };
        document.approvers.insert(*id, approver);
    }
    document.check().unwrap();
    assert_eq!(document.role(Role::Approver).1, 2);
    assert_eq!(document.checkpoint_keys().witness_threshold, 0);
    let absent: BTreeSet<Role> = Role::ALL
        .into_iter()
        .filter(|role| document.role(*role).0.is_empty())
        .collect();
    assert!(absent.is_empty());
}

#[test]
fn p1_no_bit_flip_of_a_root_document_is_accepted() {
    let tenant = Tenant::new(1);
    let envelope = tenant.root_envelope();
    for (at, payload) in bit_flips(&envelope.payload) {
        let changed = Envelope {
            payload,
            ..envelope.clone()
        };
        assert!(RootDocument::verify_first(&changed, None).is_err(), "byte {at}");
    }
}

proptest! {
    #[test]
    fn the_decoder_never_panics(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        let envelope = sign(PAYLOAD_TYPE, &payload, &[&key(1)]).unwrap();
        prop_assert!(RootDocument::verify_first(&envelope, None).is_err());
    }
}
