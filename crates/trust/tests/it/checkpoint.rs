use muster_trust::checkpoint::{Checkpoint, CheckpointBody, CheckpointError, CheckpointKeys, origin};
use muster_trust::merkle::leaf_hash;
use muster_trust::note::SignedNote;
use proptest::prelude::*;

use crate::support::{at, bit_flips, key, tenant};

fn body() -> CheckpointBody {
    CheckpointBody {
        origin: origin(tenant(1)),
        size: 42,
        root: leaf_hash(b"root"),
        time: at(7),
    }
}

fn keys<'k>(
    log: &'k [muster_trust::key::SigningKey],
    witnesses: &'k [muster_trust::key::SigningKey],
) -> CheckpointKeys<'k> {
    CheckpointKeys {
        log: log.iter().map(|key| key.public()).collect(),
        log_threshold: 1,
        witnesses: witnesses.iter().map(|key| key.public()).collect(),
        witness_threshold: 0,
    }
}

#[test]
fn the_text_is_origin_size_root_and_time() {
    let text = body().text();
    let expected = format!(
        "muster/{}\n42\n{}\ntime 1790000007000000\n",
        tenant(1),
        leaf_hash(b"root").to_base64()
    );
    assert_eq!(text, expected);
    assert_eq!(CheckpointBody::parse(&text).unwrap(), body());
}

#[test]
fn other_texts_are_refused() {
    let text = body().text();
    let wrong = [
        text.replace("\n42\n", "\n042\n"),
        text.replace("\n42\n", "\n+42\n"),
        text.replace("\n42\n", "\n-42\n"),
        text.replace("\n42\n", "\n18446744073709551615\n"),
        text.replace("\n42\n", "\n99999999999999999999\n"),
        text.replace("time 1", "time 01"),
        text.replace("time", "Time"),
        text.replace("time 1790000007000000\n", ""),
        format!("{text}more\n"),
        format!("{text}\n"),
        text.trim_end().to_owned(),
        text.replace('=', ""),
        format!("\n{text}"),
        String::new(),
    ];
    for text in wrong {
        assert!(CheckpointBody::parse(&text).is_err(), "{text:?}");
    }
}

#[test]
fn a_checkpoint_opens_with_the_keys_of_its_log_only() {
    let log = [key(1)];
    let note = body().sign(&[&key(1)]).unwrap().to_string();
    let opened = Checkpoint::open(&note, &origin(tenant(1)), &keys(&log, &[])).unwrap();
    assert_eq!(opened.body, body());
    let other_tenant = Checkpoint::open(&note, &origin(tenant(2)), &keys(&log, &[]));
    assert!(matches!(other_tenant, Err(CheckpointError::Origin { .. })));
    let other_key = Checkpoint::open(&note, &origin(tenant(1)), &keys(&[key(2)], &[]));
    assert_eq!(
        other_key,
        Err(CheckpointError::LogSignatures {
            valid: 0,
            threshold: 1
        })
    );
    let mut nobody = keys(&[], &[]);
    nobody.log_threshold = 0;
    assert!(Checkpoint::open(&note, &origin(tenant(1)), &nobody).is_err());
}

#[test]
fn a_log_key_that_is_listed_twice_counts_once() {
    let log = [key(1), key(1)];
    let mut required = keys(&log, &[]);
    required.log_threshold = 2;
    let note = body().sign(&[&key(1)]).unwrap().to_string();
    let opened = Checkpoint::open(&note, &origin(tenant(1)), &required);
    assert_eq!(
        opened,
        Err(CheckpointError::LogSignatures {
            valid: 1,
            threshold: 2
        })
    );
}

#[test]
fn witnesses_are_counted_once_each() {
    let (log, witnesses) = ([key(1)], [key(2), key(3)]);
    let mut required = keys(&log, &witnesses);
    required.witness_threshold = 2;
    let open = |note: &SignedNote| Checkpoint::open(&note.to_string(), &origin(tenant(1)), &required);
    let mut note = body().sign(&[&key(1)]).unwrap();
    assert_eq!(
        open(&note),
        Err(CheckpointError::Witnesses {
            valid: 0,
            threshold: 2
        })
    );
    note.cosign("w2", &key(2), 1).unwrap();
    note.cosign("w2", &key(2), 2).unwrap();
    note.cosign("another-name", &key(2), 3).unwrap();
    assert_eq!(
        open(&note),
        Err(CheckpointError::Witnesses {
            valid: 1,
            threshold: 2
        })
    );
    // A plain signature by a witness is no cosignature, and the log's signature does not count as one.
    note.sign("w3", &key(3)).unwrap();
    assert_eq!(
        open(&note),
        Err(CheckpointError::Witnesses {
            valid: 1,
            threshold: 2
        })
    );
    note.cosign("w3", &key(3), 4).unwrap();
    let opened = open(&note).unwrap();
    assert_eq!(opened.note, note.to_string());
}

#[test]
fn a_verified_checkpoint_is_persisted_as_its_note() {
    let log = [key(1)];
    let note = body().sign(&[&key(1)]).unwrap().to_string();
    let opened = Checkpoint::open(&note, &origin(tenant(1)), &keys(&log, &[])).unwrap();
    let json = serde_json::to_string(&opened).unwrap();
    assert_eq!(serde_json::from_str::<Checkpoint>(&json).unwrap(), opened);
    assert!(serde_json::from_str::<Checkpoint>("\"x\"").is_err());
}

#[test]
fn p1_no_bit_flip_of_a_checkpoint_opens_as_something_else() {
    let log = [key(1)];
    let note = body().sign(&[&key(1)]).unwrap().to_string();
    for (at, changed) in bit_flips(note.as_bytes()) {
        let Ok(text) = String::from_utf8(changed) else {
            continue;
        };
        assert!(
            Checkpoint::open(&text, &origin(tenant(1)), &keys(&log, &[])).is_err(),
            "byte {at}"
        );
    }
}

proptest! {
    #[test]
    fn the_parser_never_panics(text in "[a-z/]{0,10}\n[0-9]{0,21}\n[A-Za-z0-9+/=]{0,50}\n(time )?[0-9-]{0,21}\n?") {
        if let Ok(body) = CheckpointBody::parse(&text) {
            prop_assert_eq!(body.text(), text);
        }
    }
}
