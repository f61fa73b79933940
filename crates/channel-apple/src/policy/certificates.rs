//! Certificates: authorities to trust, and identities that the device gets for itself by SCEP or ACME.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use muster_model::settings::SettingValue;

use super::{Draft, items, text, text_member};
use crate::{
    identity::hex_sha256,
    plist::{Value, dict},
};

const ROOT: &str = "com.apple.security.root";
const SCEP: &str = "com.apple.security.scep";
const ACME: &str = "com.apple.security.acme";
const RSA_BITS: i64 = 2048;
/// A curve that the Secure Enclave has.
const CURVE_BITS: i64 = 384;
/// Signing and encryption.
const KEY_USAGE: i64 = 1 | 4;
/// Names of attributes that the payloads know; others are dotted numbers.
const ATTRIBUTES: [&str; 6] = ["C", "L", "ST", "O", "OU", "CN"];

pub(super) fn trusted_roots(draft: &mut Draft<'_>, value: &SettingValue) {
    for der in items(value).iter().flat_map(|item| ders(text(item))) {
        draft.put_in(ROOT, &fingerprint(&der), "PayloadContent", Value::Data(der));
    }
}

pub(super) fn identities(draft: &mut Draft<'_>, value: &SettingValue) {
    for identity in items(value) {
        let name = text_member(identity, "name").unwrap_or_default();
        let url = text_member(identity, "url").unwrap_or_default();
        let subject = text_member(identity, "subject");
        match text_member(identity, "method") {
            Some("scep") => scep(draft, name, url, subject),
            Some("acme") => acme(draft, name, url, subject.unwrap_or(name)),
            _ => {}
        }
    }
}

fn scep(draft: &mut Draft<'_>, name: &str, url: &str, subject: Option<&str>) {
    let mut content = dict([
        ("URL", url.into()),
        ("Name", name.into()),
        ("Key Type", "RSA".into()),
        ("Keysize", RSA_BITS.into()),
        ("Key Usage", KEY_USAGE.into()),
    ]);
    if let Some(subject) = subject {
        content.insert("Subject".to_owned(), distinguished_name(subject));
    }
    draft.put_in(SCEP, name, "PayloadContent", Value::Dict(content));
}

fn acme(draft: &mut Draft<'_>, name: &str, url: &str, subject: &str) {
    let client = draft.derived("acme-client", name).to_string();
    for (key, value) in [
        ("DirectoryURL", url.into()),
        ("ClientIdentifier", client.into()),
        ("KeyType", "ECSECPrimeRandom".into()),
        ("KeySize", CURVE_BITS.into()),
        ("HardwareBound", true.into()),
        ("Attest", true.into()),
        ("Subject", distinguished_name(subject)),
    ] {
        draft.put_in(ACME, name, key, value);
    }
}

/// `C=US,O=Example,CN=name` as a list of lists of pairs. A text that is no such list is a common name.
fn distinguished_name(text: &str) -> Value {
    let pair = |(name, value): (&str, &str)| {
        let pair = Value::Array(vec![name.into(), value.into()]);
        Value::Array(vec![pair])
    };
    let parts: Option<Vec<(&str, &str)>> = text
        .split(',')
        .map(|part| {
            let (name, value) = part.trim().split_once('=')?;
            (is_attribute(name) && !value.is_empty()).then_some((name, value))
        })
        .collect();
    let parts = parts.unwrap_or_else(|| vec![("CN", text)]);
    Value::Array(parts.into_iter().map(pair).collect())
}

fn is_attribute(name: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    ATTRIBUTES.contains(&name) || (name.contains('.') && name.split('.').all(is_number))
}

/// The certificates of a PEM text (RFC 7468). Texts that are not PEM were refused before.
pub(super) fn ders(pem: &str) -> Vec<Vec<u8>> {
    let decode = |block: &str| {
        let (body, _) = block.split_once("-----END CERTIFICATE-----")?;
        STANDARD
            .decode(body.split_ascii_whitespace().collect::<String>())
            .ok()
    };
    pem.split("-----BEGIN CERTIFICATE-----")
        .skip(1)
        .filter_map(decode)
        .collect()
}

/// What tells certificates apart.
pub(super) fn fingerprint(der: &[u8]) -> String {
    hex_sha256(der)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_a_list_of_attributes_or_a_common_name() {
        let names = |text: &str| match distinguished_name(text) {
            Value::Array(sets) => sets.len(),
            _ => 0,
        };
        assert_eq!(names("C=US, O=Example,CN=a=b,1.2.840.113549.1.9.1=x"), 4);
        for name in ["plain", "Ada, Countess", "CN=", "X=1", ".=1", ""] {
            assert_eq!(
                distinguished_name(name),
                Value::Array(vec![Value::Array(vec![Value::Array(vec![
                    "CN".into(),
                    name.into()
                ])])])
            );
        }
    }

    #[test]
    fn every_block_of_a_text_is_a_certificate() {
        let block = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        assert_eq!(
            ders(&(block("MA\nA=") + &block("AAEC"))),
            [vec![0x30, 0], vec![0, 1, 2]]
        );
    }
}
