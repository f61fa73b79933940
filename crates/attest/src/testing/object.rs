//! Attestation objects as an ACME client sends them.

use ciborium::Value;

use crate::object::TpmStatement;

/// Format `apple`.
pub fn apple_object(x5c: &[Vec<u8>]) -> Vec<u8> {
    object("apple", vec![("x5c", certificates(x5c))])
}

/// Format `android-key`, without a signature.
pub fn android_object(x5c: &[Vec<u8>]) -> Vec<u8> {
    object("android-key", vec![("x5c", certificates(x5c))])
}

/// Format `tpm`.
pub fn tpm_object(statement: &TpmStatement) -> Vec<u8> {
    let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
    object(
        "tpm",
        vec![
            ("ver", Value::Text(statement.ver.clone())),
            ("alg", Value::Integer(statement.alg.into())),
            ("x5c", certificates(&statement.x5c)),
            ("sig", bytes(&statement.sig)),
            ("certInfo", bytes(&statement.cert_info)),
            ("pubArea", bytes(&statement.pub_area)),
        ],
    )
}

fn certificates(x5c: &[Vec<u8>]) -> Value {
    Value::Array(x5c.iter().cloned().map(Value::Bytes).collect())
}

fn object(format: &str, statement: Vec<(&str, Value)>) -> Vec<u8> {
    let map = |fields: Vec<(&str, Value)>| {
        Value::Map(
            fields
                .into_iter()
                .map(|(key, value)| (Value::Text(key.to_owned()), value))
                .collect(),
        )
    };
    let object = map(vec![
        ("fmt", Value::Text(format.to_owned())),
        ("attStmt", map(statement)),
    ]);
    let mut out = Vec::new();
    ciborium::into_writer(&object, &mut out).expect("a vector takes all that is written");
    out
}
