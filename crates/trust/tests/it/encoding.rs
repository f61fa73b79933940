use std::collections::BTreeMap;

use muster_trust::encoding::{JsonError, MAX_JSON_DEPTH, from_base64, from_strict_json};
use proptest::prelude::*;
use serde_json::Value;

fn strict(text: &str) -> Result<Value, JsonError> {
    from_strict_json(text.as_bytes(), 1 << 20)
}

#[test]
fn d5_duplicate_keys_are_refused_at_any_depth() {
    for text in [
        r#"{"a":1,"a":2}"#,
        r#"{"x":[{"a":1,"b":2,"a":1}]}"#,
        r#"{"a":1,"\u0061":2}"#,
    ] {
        assert!(strict(text).is_err(), "{text}");
    }
    assert!(strict(r#"{"a":{"a":1},"b":{"a":1}}"#).is_ok());
}

#[test]
fn d5_depth_and_size_are_bounded() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(strict(&nested(MAX_JSON_DEPTH)).is_ok());
    assert!(strict(&nested(MAX_JSON_DEPTH + 1)).is_err());
    assert!(strict(&nested(400_000)).is_err());
    assert!(strict(&format!("[{}0]", "0,".repeat(300_000))).is_err());
    let large = from_strict_json::<Value>(b"[1,2,3]", 6);
    assert_eq!(large, Err(JsonError::TooLarge { bytes: 7, limit: 6 }));
}

#[test]
fn one_document_and_nothing_after_it() {
    assert!(strict("{} {}").is_err());
    assert!(strict("{}x").is_err());
    assert!(strict("").is_err());
}

#[test]
fn base64_has_one_text_per_meaning() {
    assert_eq!(from_base64("cHA="), Some(b"pp".to_vec()));
    for wrong in ["cHA", "cHB=", "cHA=\n", " cHA=", "cH-_", "cHA=="] {
        assert_eq!(from_base64(wrong), None, "{wrong}");
    }
}

proptest! {
    #[test]
    fn the_strict_reader_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = from_strict_json::<Value>(&bytes, 150);
    }

    #[test]
    fn what_honest_writers_write_is_read(map in proptest::collection::btree_map(".{0,8}", any::<i64>(), 0..20)) {
        let text = serde_json::to_vec(&map).unwrap();
        prop_assert_eq!(from_strict_json::<BTreeMap<String, i64>>(&text, 1 << 16).unwrap(), map);
    }
}
