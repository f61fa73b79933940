use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    name: String,
    count: u64,
    bytes: Base64Bytes,
    #[serde(default)]
    nested: Vec<Sample>,
}

fn sample() -> Sample {
    let leaf = Sample {
        name: "leaf".into(),
        count: 2,
        bytes: Base64Bytes(vec![0, 255]),
        nested: vec![],
    };
    Sample {
        name: "root \" [{".into(),
        count: u64::MAX,
        bytes: Base64Bytes(vec![1]),
        nested: vec![leaf],
    }
}

#[test]
fn both_encodings_carry_the_same_message() {
    for content_type in [ContentType::Json, ContentType::Cbor] {
        let bytes = encode(content_type, &sample()).expect("a sample encodes");
        let back: Sample = decode(content_type, &bytes, 1024).expect("its encoding decodes");
        assert_eq!(back, sample());
    }
}

#[test]
fn content_types_are_read_from_headers() {
    assert_eq!(
        ContentType::from_header("application/json; charset=utf-8"),
        Some(ContentType::Json)
    );
    assert_eq!(
        ContentType::from_header("Application/CBOR"),
        Some(ContentType::Cbor)
    );
    assert_eq!(ContentType::from_header("text/plain"), None);
    let accept = |value| ContentType::from_accept(value, ContentType::Json);
    assert_eq!(accept(None), ContentType::Json);
    assert_eq!(
        accept(Some("text/html, application/cbor;q=0.9")),
        ContentType::Cbor
    );
    assert_eq!(accept(Some("*/*")), ContentType::Json);
}

#[test]
fn a_body_past_its_limit_is_refused_before_parsing() {
    let result: Result<Sample, _> = decode(ContentType::Json, b"{{{{{{{{{{", 4);
    assert!(matches!(
        result,
        Err(DecodeError::TooLarge {
            bytes: 10,
            bytes_max: 4
        })
    ));
}

#[test]
fn deep_nesting_is_refused_in_both_encodings() {
    let json = [b"[".repeat(DEPTH_MAX + 1), b"]".repeat(DEPTH_MAX + 1)].concat();
    assert!(matches!(
        decode::<serde_json::Value>(ContentType::Json, &json, 1 << 20),
        Err(DecodeError::TooDeep)
    ));
    let cbor = [vec![0x81; 100_000], vec![0x00]].concat();
    assert!(matches!(
        decode::<serde_json::Value>(ContentType::Cbor, &cbor, 1 << 20),
        Err(DecodeError::TooDeep)
    ));
}

#[test]
fn bytes_after_the_message_are_refused() {
    for content_type in [ContentType::Json, ContentType::Cbor] {
        let mut bytes = encode(content_type, &sample()).expect("a sample encodes");
        bytes.push(b'1');
        assert!(
            decode::<Sample>(content_type, &bytes, 1024).is_err(),
            "{content_type:?}"
        );
    }
}

#[test]
fn unknown_and_duplicate_members_are_refused() {
    let unknown = br#"{"name":"a","count":1,"bytes":"","is_admin":true}"#;
    assert!(decode::<Sample>(ContentType::Json, unknown, 1024).is_err());
    let duplicate = br#"{"name":"a","count":1,"count":2,"bytes":""}"#;
    assert!(decode::<Sample>(ContentType::Json, duplicate, 1024).is_err());
}

#[test]
fn a_length_that_promises_gigabytes_allocates_nothing() {
    // An array header that announces 2^40 members, then nothing.
    let array = [0x9b, 0, 0, 1, 0, 0, 0, 0, 0];
    assert!(decode::<Vec<u64>>(ContentType::Cbor, &array, 1024).is_err());
    // A text header that announces 2^40 bytes, then nothing.
    let text = [0x7b, 0, 0, 1, 0, 0, 0, 0, 0];
    assert!(decode::<String>(ContentType::Cbor, &text, 1024).is_err());
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        for content_type in [ContentType::Json, ContentType::Cbor] {
            let _ = decode::<Sample>(content_type, &bytes, 4096);
        }
    }

    #[test]
    fn flipped_bits_never_panic(position in 0_usize..200, bit in 0_u8..8) {
        for content_type in [ContentType::Json, ContentType::Cbor] {
            let mut bytes = encode(content_type, &sample()).expect("a sample encodes");
            let position = position % bytes.len();
            bytes[position] ^= 1 << bit;
            let _ = decode::<Sample>(content_type, &bytes, 4096);
        }
    }
}
