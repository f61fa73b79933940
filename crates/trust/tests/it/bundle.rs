use std::collections::BTreeMap;

use muster_trust::archive;
use muster_trust::bundle::{
    self, BundleError, BundleSource, Draft, MANIFEST, PAYLOAD_TYPE, RULES, SETTINGS, SIGNATURE, build, open,
};
use muster_trust::dsse::{self, DsseError, Envelope};
use muster_trust::key::{SigningKey, sha256};
use proptest::prelude::*;

use crate::support::{START, Tenant, bit_flips, key, policy, version};

const SETTINGS_JSON: &[u8] = br#"{"passcode.min_length":12}"#;

fn tenant() -> Tenant {
    Tenant::new(1)
}

fn files(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    archive::read(bytes).unwrap()
}

/// Changes files of a good bundle and writes a well-formed archive of them.
fn rebuilt(change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> Vec<u8> {
    let mut files = files(&tenant().bundle(policy(1), "1", SETTINGS_JSON).bytes);
    change(&mut files);
    archive::write(&files).unwrap()
}

/// Opens and verifies, as device and server do.
fn check(bytes: &[u8]) -> Result<(), BundleError> {
    open(bytes)?.verify(&tenant().root_document())
}

#[test]
fn a_bundle_is_deterministic_and_opens() {
    let tenant = tenant();
    let built = tenant.bundle(policy(1), "2026.05", SETTINGS_JSON);
    assert_eq!(tenant.bundle(policy(1), "2026.05", SETTINGS_JSON), built);
    assert_eq!(built.sha256, sha256(&built.bytes));
    let opened = open(&built.bytes).unwrap();
    opened.verify(&tenant.root_document()).unwrap();
    assert_eq!(opened.sha256, built.sha256);
    assert_eq!(opened.settings_json(), SETTINGS_JSON);
    assert_eq!(opened.rules_json(), b"[]");
    assert_eq!(opened.manifest.policy_id, policy(1));
    assert_eq!(opened.manifest.version, version("2026.05"));
    assert_eq!(opened.manifest.created_at, START);
}

/// The format is a contract with devices in the field: the same source must give these bytes for ever.
#[test]
fn the_bytes_of_a_bundle_are_pinned() {
    let built = tenant().bundle(policy(1), "2026.05", SETTINGS_JSON);
    assert_eq!(
        built.sha256.to_hex(),
        "ea80dddcc9aa49534480b0e8a444a361cb4d4f54a9179f4dd19b93fac647abc9"
    );
}

#[test]
fn a_signer_elsewhere_seals_a_draft() {
    let tenant = tenant();
    let source = BundleSource {
        tenant: tenant.id,
        policy_id: policy(1),
        policy_name: "baseline",
        version: &version("1"),
        sequence: 1,
        created_at: START,
        settings_json: SETTINGS_JSON,
        rules_json: b"[]",
    };
    let draft = Draft::new(&source).unwrap();
    let other = dsse::sign(PAYLOAD_TYPE, b"{}", &[&tenant.policy_key]).unwrap();
    assert_eq!(draft.clone().seal(&other), Err(BundleError::NotThisManifest));
    let wrong_kind = dsse::sign("application/json", draft.manifest_bytes(), &[&tenant.policy_key]).unwrap();
    assert_eq!(draft.clone().seal(&wrong_kind), Err(BundleError::NotThisManifest));
    let envelope = dsse::sign(PAYLOAD_TYPE, draft.manifest_bytes(), &[&tenant.policy_key]).unwrap();
    assert_eq!(
        draft.seal(&envelope).unwrap(),
        build(&source, &[&tenant.policy_key]).unwrap()
    );
}

#[test]
fn a_draft_travels_as_an_archive_that_is_no_bundle() {
    let tenant = tenant();
    let built = tenant.bundle(policy(1), "1", SETTINGS_JSON);
    let (draft, envelope) = open(&built.bytes).unwrap().into_draft();
    let carried = draft.to_archive().unwrap();
    assert_eq!(open(&carried), Err(BundleError::MissingFile(SIGNATURE)));
    let arrived = bundle::open_draft(&carried).unwrap();
    assert_eq!(arrived.manifest().unwrap().policy_id, policy(1));
    assert_eq!(arrived.file(SETTINGS), Some(SETTINGS_JSON));
    assert_eq!(arrived.seal(&envelope).unwrap(), built);
    // A signed one is no draft: its signature is a file that the manifest does not name.
    assert_eq!(
        bundle::open_draft(&built.bytes).map(|_| ()),
        Err(BundleError::File(SIGNATURE.to_owned()))
    );
    for (_, bent) in bit_flips(&carried) {
        assert!(bundle::open_draft(&bent).is_err());
    }
}

#[test]
fn p1_every_bit_flip_of_a_bundle_is_refused() {
    let bytes = tenant().bundle(policy(1), "1", SETTINGS_JSON).bytes;
    for (at, changed) in bit_flips(&bytes) {
        assert!(check(&changed).is_err(), "byte {at}");
    }
}

/// The same flips in archives whose checksums are right again: the signature must catch what the container does not.
#[test]
fn p1_every_byte_flip_of_manifest_settings_and_signature_is_refused() {
    let good = files(&tenant().bundle(policy(1), "1", SETTINGS_JSON).bytes);
    for name in [MANIFEST, SIGNATURE, SETTINGS, RULES] {
        for (at, changed) in bit_flips(&good[name]) {
            let bytes = rebuilt(|files| drop(files.insert(name.to_owned(), changed)));
            assert!(check(&bytes).is_err(), "{name} byte {at}");
        }
    }
}

/// The flips once more, with manifest, file digests and envelope payload all made to agree: only the signature is left.
#[test]
fn p1_every_byte_flip_of_a_manifest_that_agrees_with_itself_is_refused() {
    let good = files(&tenant().bundle(policy(1), "1", SETTINGS_JSON).bytes);
    let envelope = Envelope::from_json(&good[SIGNATURE]).unwrap();
    let mut reached_the_signature = 0;
    for (at, payload) in bit_flips(&good[MANIFEST]) {
        let bytes = rebuilt(|files| {
            files.insert(MANIFEST.to_owned(), payload.clone());
            files.insert(
                SIGNATURE.to_owned(),
                Envelope {
                    payload,
                    ..envelope.clone()
                }
                .to_json(),
            );
        });
        match check(&bytes) {
            Err(BundleError::Dsse(DsseError::BadSignature(_))) => reached_the_signature += 1,
            Err(_) => {}
            Ok(()) => panic!("byte {at}"),
        }
    }
    assert!(
        reached_the_signature > 100,
        "only {reached_the_signature} flips reached the signature"
    );
}

#[test]
fn p2_bundles_by_other_keys_are_refused() {
    let tenant = tenant();
    let other = Tenant::new(2);
    let by = |signer: &SigningKey| check(&tenant.bundle_by(policy(1), "1", SETTINGS_JSON, signer).bytes);
    by(&tenant.policy_key).unwrap();
    let refused = |signer: &SigningKey| {
        let expected = DsseError::Threshold {
            valid: 0,
            threshold: 1,
        };
        assert_eq!(by(signer), Err(BundleError::Dsse(expected)));
    };
    refused(&key(200));
    refused(&other.policy_key);
    refused(&tenant.action_key);
    refused(&tenant.root_key);
    refused(&tenant.log_key);
    refused(&SigningKey::generate_p256().unwrap());
}

#[test]
fn p2_a_bundle_of_another_tenant_is_refused_even_with_the_right_key() {
    let (tenant, other) = (tenant(), Tenant::new(2));
    let bytes = other
        .bundle_by(policy(1), "1", SETTINGS_JSON, &tenant.policy_key)
        .bytes;
    assert_eq!(check(&bytes), Err(BundleError::Manifest("of another tenant")));
}

#[test]
fn p2_a_revoked_key_signs_nothing_any_more() {
    let tenant = tenant();
    let bytes = tenant.bundle(policy(1), "1", SETTINGS_JSON).bytes;
    let mut root = tenant.root_document();
    root.keys.remove(&tenant.policy_key.key_id());
    root.keys.insert(key(90).key_id(), key(90).public().clone());
    root.roles
        .get_mut(&muster_trust::root::Role::Policy)
        .unwrap()
        .keys = [key(90).key_id()].into();
    root.check().unwrap();
    assert!(matches!(
        open(&bytes).unwrap().verify(&root),
        Err(BundleError::Dsse(_))
    ));
}

#[test]
fn p3_files_of_two_bundles_do_not_mix() {
    let tenant = tenant();
    let other = files(
        &tenant
            .bundle(policy(1), "2", br#"{"passcode.min_length":4}"#)
            .bytes,
    );
    let take = |names: &[&str]| {
        rebuilt(|files| {
            for name in names {
                files.insert((*name).to_owned(), other[*name].clone());
            }
        })
    };
    assert_eq!(
        check(&take(&[SETTINGS])),
        Err(BundleError::File(SETTINGS.to_owned()))
    );
    assert_eq!(check(&take(&[MANIFEST])), Err(BundleError::NotThisManifest));
    assert_eq!(check(&take(&[SIGNATURE])), Err(BundleError::NotThisManifest));
    assert_eq!(
        check(&take(&[SETTINGS, MANIFEST])),
        Err(BundleError::NotThisManifest)
    );
    check(&take(&[SETTINGS, MANIFEST, SIGNATURE])).unwrap();
}

#[test]
fn files_must_be_those_of_the_manifest() {
    let added = rebuilt(|files| drop(files.insert("extra.json".to_owned(), b"{}".to_vec())));
    assert_eq!(check(&added), Err(BundleError::File("extra.json".to_owned())));
    for (name, expected) in [
        (SETTINGS, BundleError::File(SETTINGS.to_owned())),
        (MANIFEST, BundleError::MissingFile(MANIFEST)),
        (SIGNATURE, BundleError::MissingFile(SIGNATURE)),
    ] {
        assert_eq!(check(&rebuilt(|files| drop(files.remove(name)))), Err(expected));
    }
}

#[test]
fn a_manifest_in_another_form_is_refused_even_when_signed() {
    let tenant = tenant();
    let good =
        String::from_utf8(files(&tenant.bundle(policy(1), "1", SETTINGS_JSON).bytes)[MANIFEST].clone())
            .unwrap();
    for wrong in [
        good.replacen("{", "{ ", 1),
        good.replacen("\"format\":1", "\"format\":2", 1),
        good.replacen("\"format\":1,", "\"format\":1,\"format\":1,", 1),
        good.replacen("\"format\":1,", "\"format\":1,\"extra\":0,", 1),
        good.replacen("\"sequence\":1", "\"sequence\":0", 1),
        good.replacen("baseline", "", 1),
    ] {
        assert_ne!(wrong, good);
        let envelope = dsse::sign(PAYLOAD_TYPE, wrong.as_bytes(), &[&tenant.policy_key]).unwrap();
        let bytes = rebuilt(|files| {
            files.insert(MANIFEST.to_owned(), wrong.clone().into_bytes());
            files.insert(SIGNATURE.to_owned(), envelope.to_json());
        });
        assert!(
            matches!(
                check(&bytes),
                Err(BundleError::Manifest(_) | BundleError::Json(_))
            ),
            "{wrong}"
        );
    }
}

#[test]
fn an_envelope_in_another_form_is_refused() {
    let good = files(&tenant().bundle(policy(1), "1", SETTINGS_JSON).bytes);
    let spaced = String::from_utf8(good[SIGNATURE].clone())
        .unwrap()
        .replace("\":", "\": ");
    let bytes = rebuilt(|files| drop(files.insert(SIGNATURE.to_owned(), spaced.into_bytes())));
    assert_eq!(check(&bytes), Err(BundleError::NotThisManifest));
    let mut wrong_kind = Envelope::from_json(&good[SIGNATURE]).unwrap();
    wrong_kind.payload_type = muster_trust::root::PAYLOAD_TYPE.to_owned();
    let bytes = rebuilt(|files| drop(files.insert(SIGNATURE.to_owned(), wrong_kind.to_json())));
    assert!(matches!(
        check(&bytes),
        Err(BundleError::Dsse(DsseError::PayloadType { .. }))
    ));
}

proptest! {
    #[test]
    fn the_reader_never_panics(at in 0usize..4096, value in any::<u8>(), name in 0usize..4) {
        let mut good = files(&tenant().bundle(policy(1), "1", SETTINGS_JSON).bytes);
        let name = [MANIFEST, SIGNATURE, SETTINGS, RULES][name];
        let content = good.get_mut(name).unwrap();
        let at = at % content.len();
        let same = content[at] == value;
        content[at] = value;
        prop_assert_eq!(archive::write(&good).ok().is_some_and(|bytes| check(&bytes).is_ok()), same);
        let _ = bundle::open(&[value; 64]);
    }
}
