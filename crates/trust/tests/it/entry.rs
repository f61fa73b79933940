use muster_model::id::EntryId;
use muster_trust::entry::{Actor, ActorKind, EntryError, LogEntry, MAX_ENTRY_BYTES, Object};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::support::{START, bit_flips, tenant};

fn entry(detail: Value) -> LogEntry {
    LogEntry {
        id: EntryId::generate(START, [1; 10]),
        at: START,
        tenant: tenant(1),
        actor: Actor {
            kind: ActorKind::User,
            id: "jo@example.com".to_owned(),
        },
        action: "device.enrolled".to_owned(),
        object: Object {
            kind: "device".to_owned(),
            id: "dev_1".to_owned(),
        },
        detail: detail.as_object().cloned().unwrap_or_else(Map::new),
    }
}

#[test]
fn canonical_bytes_are_pinned() {
    let bytes = entry(json!({"b": 1, "a": {"z": [true, null], "y": "ü"}}))
        .canonical_bytes()
        .unwrap();
    let expected = format!(
        r#"{{"id":"{}","at":"{START}","tenant":"{}","actor":{{"kind":"user","id":"jo@example.com"}},"action":"device.enrolled","object":{{"kind":"device","id":"dev_1"}},"detail":{{"a":{{"y":"ü","z":[true,null]}},"b":1}}}}"#,
        EntryId::generate(START, [1; 10]),
        tenant(1),
    );
    assert_eq!(String::from_utf8(bytes).unwrap(), expected);
}

#[test]
fn only_the_canonical_bytes_are_read() {
    let entry = entry(json!({"b": 1, "a": 2}));
    let bytes = entry.canonical_bytes().unwrap();
    let again = LogEntry::from_bytes(&bytes).unwrap();
    assert_eq!(again.canonical_bytes().unwrap(), bytes);
    let text = String::from_utf8(bytes).unwrap();
    for wrong in [
        text.replace(r#"{"a":2,"b":1}"#, r#"{"b":1,"a":2}"#),
        text.replace(r#"{"a":2,"b":1}"#, r#"{"a":2,"a":2,"b":1}"#),
        text.replace(r#""detail":"#, r#""detail": "#),
        text.replace(r#""detail":"#, r#""extra":1,"detail":"#),
        format!("{text} "),
    ] {
        assert!(LogEntry::from_bytes(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn entries_are_bounded() {
    let too_long = entry(json!({"x": "y".repeat(MAX_ENTRY_BYTES)}));
    assert!(matches!(too_long.canonical_bytes(), Err(EntryError::TooLarge(_))));
    assert_eq!(
        entry(json!({"x": 0.5})).canonical_bytes(),
        Err(EntryError::Detail)
    );
    let mut deep = json!(1);
    for _ in 0..10 {
        deep = json!([deep]);
    }
    assert_eq!(
        entry(json!({"x": deep})).canonical_bytes(),
        Err(EntryError::Detail)
    );
    let check = |change: fn(&mut LogEntry)| {
        let mut entry = entry(json!({}));
        change(&mut entry);
        assert!(
            matches!(entry.canonical_bytes(), Err(EntryError::Field(_))),
            "{entry:?}"
        );
    };
    check(|entry| entry.action = String::new());
    check(|entry| entry.action = "Device Enrolled".to_owned());
    check(|entry| entry.action = "x".repeat(65));
    check(|entry| entry.object.kind = "a\nb".to_owned());
    check(|entry| entry.object.id = String::new());
    check(|entry| entry.actor.id = "x\u{0}".to_owned());
    check(|entry| entry.actor.id = "x".repeat(257));
}

#[test]
fn l3_every_bit_flip_changes_the_leaf() {
    let entry = entry(json!({"a": 1}));
    let (bytes, leaf) = (entry.canonical_bytes().unwrap(), entry.leaf_hash().unwrap());
    for (at, changed) in bit_flips(&bytes) {
        if let Ok(other) = LogEntry::from_bytes(&changed) {
            assert_ne!(other.leaf_hash().unwrap(), leaf, "byte {at}");
        }
    }
}

proptest! {
    #[test]
    fn the_decoder_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = LogEntry::from_bytes(&bytes);
    }

    /// L7: any text survives, whatever a log reader might make of it.
    #[test]
    fn any_text_survives(text in "\\PC{0,40}|[\\x00-\\x20\"\\\\]{0,20}", number in any::<i64>()) {
        let entry = entry(json!({"text": text, "number": number}));
        let again = LogEntry::from_bytes(&entry.canonical_bytes().unwrap()).unwrap();
        prop_assert_eq!(again.detail_text("text"), Some(text.as_str()));
        prop_assert_eq!(again.detail_number("number"), u64::try_from(number).ok());
    }
}
