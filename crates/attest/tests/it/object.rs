//! Attestation objects.

use muster_attest::Reject;
use muster_attest::object::{OBJECT_BYTES_MAX, Statement, TpmStatement, parse};
use muster_attest::testing::{android_object, apple_object, tpm_object};

fn x5c() -> Vec<Vec<u8>> {
    vec![vec![1, 2, 3], vec![4]]
}

fn cbor(text: &str) -> Vec<u8> {
    hex::decode(text.replace(' ', "")).expect("hex")
}

#[test]
fn every_format_is_read() {
    assert_eq!(parse(&apple_object(&x5c())), Ok(Statement::Apple { x5c: x5c() }));
    let android = Statement::AndroidKey {
        x5c: x5c(),
        alg: None,
        sig: None,
    };
    assert_eq!(parse(&android_object(&x5c())), Ok(android));
    let tpm = TpmStatement {
        ver: "2.0".to_owned(),
        x5c: x5c(),
        alg: -257,
        sig: vec![5],
        cert_info: vec![6],
        pub_area: vec![7],
    };
    assert_eq!(parse(&tpm_object(&tpm)), Ok(Statement::Tpm(tpm)));
}

#[test]
fn authenticator_data_is_skipped() {
    // {"fmt": "apple", "authData": h'00', "attStmt": {"x5c": [h'01']}}
    let object =
        cbor("a3 63666d74 656170706c65 686175746844617461 4100 6761747453746d74 a1 63783563 81 4101");
    assert_eq!(parse(&object), Ok(Statement::Apple { x5c: vec![vec![1]] }));
}

#[test]
fn what_is_no_statement_is_refused() {
    for (text, reject) in [
        ("", Reject::ObjectMalformed),
        ("f6", Reject::ObjectStatement),
        ("a0", Reject::ObjectStatement),
        // {1: 2}
        ("a1 01 02", Reject::ObjectStatement),
        // {"fmt": 1, "attStmt": {}}
        ("a2 63666d74 01 6761747453746d74 a0", Reject::ObjectFormat),
        // {"fmt": "none", "attStmt": {}}
        ("a2 63666d74 646e6f6e65 6761747453746d74 a0", Reject::ObjectFormat),
        // {"fmt": "apple", "attStmt": {}}
        (
            "a2 63666d74 656170706c65 6761747453746d74 a0",
            Reject::ObjectStatement,
        ),
        // {"fmt": "apple", "attStmt": {"x5c": []}}
        (
            "a2 63666d74 656170706c65 6761747453746d74 a1 63783563 80",
            Reject::ChainEmpty,
        ),
        // {"fmt": "apple", "attStmt": {"x5c": ["a"]}}
        (
            "a2 63666d74 656170706c65 6761747453746d74 a1 63783563 81 6161",
            Reject::ObjectStatement,
        ),
        // {"fmt": "apple", "fmt": "apple", "attStmt": …}
        (
            "a3 63666d74 656170706c65 63666d74 656170706c65 6761747453746d74 a1 63783563 81 4101",
            Reject::ObjectMalformed,
        ),
        // The x5c twice.
        (
            "a2 63666d74 656170706c65 6761747453746d74 a2 63783563 81 4101 63783563 81 4102",
            Reject::ObjectMalformed,
        ),
        // Something after it.
        (
            "a2 63666d74 656170706c65 6761747453746d74 a1 63783563 81 4101 00",
            Reject::ObjectMalformed,
        ),
    ] {
        assert_eq!(parse(&cbor(text)).err(), Some(reject), "{text}");
    }
    assert_eq!(
        parse(&vec![0; OBJECT_BYTES_MAX + 1]).err(),
        Some(Reject::ObjectTooLarge)
    );
    assert_eq!(
        parse(&vec![0x81; OBJECT_BYTES_MAX]).err(),
        Some(Reject::ObjectTooComplex)
    );
    let many: Vec<Vec<u8>> = vec![vec![0]; 17];
    assert_eq!(parse(&apple_object(&many)).err(), Some(Reject::ChainTooLong));
}
