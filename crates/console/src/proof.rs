//! What a device's hardware proved, for people.

use muster_control::devices::Device;
use serde_json::Value;

use crate::ui::{self, Badge};

/// Facts that a page shows, and the length of each.
const FACTS_MAX: usize = 64;
const FACT_CHARS_MAX: usize = 300;
/// Facts within facts that are followed.
const DEPTH_MAX: usize = 3;
/// Hexadecimal text from this length on is a digest.
const DIGEST_CHARS_MIN: usize = 40;

/// Words of facts that are not written as they are spelled.
const WORDS: &[(&str, &str)] = &[
    ("tpm", "TPM"),
    ("pcr", "PCR"),
    ("pcrs", "PCR"),
    ("ek", "endorsement key"),
    ("ak", "attestation key"),
    ("spki", "public key"),
    ("sha256", "(SHA-256)"),
    ("os", "OS"),
    ("boot", "Boot"),
    ("udid", "UDID"),
    ("imei", "IMEI"),
    ("meid", "MEID"),
    ("sip", "System Integrity Protection"),
    ("kexts", "kernel extensions"),
    ("llb", "boot loader"),
    ("sepos", "Secure Enclave OS"),
];

/// How a device proved itself.
#[derive(Debug)]
pub struct Proof {
    pub badge: Badge,
    pub sentence: &'static str,
    pub facts: Vec<Fact>,
}

/// One thing that was proven.
#[derive(Debug, PartialEq, Eq)]
pub struct Fact {
    pub name: String,
    pub value: String,
    /// Digits to compare, not to read: shown last.
    pub is_digest: bool,
}

impl Proof {
    pub fn of(device: &Device) -> Proof {
        let (badge, sentence) = ui::attestation(device.attestation_level);
        let mut facts = Vec::new();
        if let Ok(document) = serde_json::from_str::<Value>(&device.attestation) {
            gather(&document, "", DEPTH_MAX, &mut facts);
        }
        facts.sort_by_key(|fact| fact.is_digest);
        Proof {
            badge,
            sentence,
            facts,
        }
    }
}

fn gather(value: &Value, name: &str, depth: usize, facts: &mut Vec<Fact>) {
    if facts.len() >= FACTS_MAX {
        return;
    }
    match value {
        Value::Null => {}
        Value::Object(members) if depth > 0 => {
            for (key, member) in members {
                let name = if name.is_empty() {
                    key.clone()
                } else {
                    format!("{name}_{key}")
                };
                gather(member, &name, depth - 1, facts);
            }
        }
        other => {
            let value = said(name, other);
            facts.push(Fact {
                name: label(name),
                is_digest: value.len() >= DIGEST_CHARS_MIN
                    && value.bytes().all(|byte| byte.is_ascii_hexdigit()),
                value,
            });
        }
    }
}

/// `secure_boot` becomes `Secure Boot`, `tpm_firmware` becomes `TPM firmware`.
fn label(name: &str) -> String {
    let words: Vec<&str> = name
        .split('_')
        .filter(|word| !word.is_empty())
        .map(|word| {
            WORDS
                .iter()
                .find(|(spelled, _)| *spelled == word)
                .map_or(word, |(_, written)| written)
        })
        .collect();
    let text = words.join(" ");
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_uppercase().chain(characters).collect(),
        None => "Fact".to_owned(),
    }
}

fn said(name: &str, value: &Value) -> String {
    let text = match (name, value) {
        // Apple attests numbers whose zero is the strict value.
        ("sip", Value::Number(number)) if number.as_u64() == Some(0) => "on".to_owned(),
        ("sip", Value::Number(number)) => format!("not fully on ({number})"),
        ("kexts", Value::Number(number)) if number.as_u64() == Some(0) => "not allowed".to_owned(),
        ("kexts", Value::Number(number)) => format!("allowed ({number})"),
        (_, Value::Bool(true)) => "yes".to_owned(),
        (_, Value::Bool(false)) => "no".to_owned(),
        (_, Value::String(text)) => text.clone(),
        (_, Value::Array(items)) if items.iter().all(|item| !item.is_array() && !item.is_object()) => {
            let items: Vec<String> = items.iter().map(|item| said("", item)).collect();
            items.join(", ")
        }
        (_, other) => other.to_string(),
    };
    let mut short: String = text.chars().take(FACT_CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(document: Value, expected: &[(&str, &str)]) {
        let mut facts = Vec::new();
        gather(&document, "", DEPTH_MAX, &mut facts);
        let facts: Vec<(&str, &str)> = facts
            .iter()
            .map(|fact| (fact.name.as_str(), fact.value.as_str()))
            .collect();
        assert_eq!(facts, expected, "{document}");
    }

    #[test]
    fn facts_are_written_for_people() {
        check(json!({}), &[]);
        check(json!(null), &[]);
        check(
            json!({"tpm": {"manufacturer": "INTC", "firmware": "1.2"}, "secure_boot": true, "udid": null}),
            &[
                ("Secure Boot", "yes"),
                ("TPM firmware", "1.2"),
                ("TPM manufacturer", "INTC"),
            ],
        );
        check(
            json!({"sip": 0, "kexts": 2, "imei": ["1", "2"], "os_version": "26.1"}),
            &[
                ("IMEI", "1, 2"),
                ("Kernel extensions", "allowed (2)"),
                ("OS version", "26.1"),
                ("System Integrity Protection", "on"),
            ],
        );
    }

    #[test]
    fn neither_many_nor_long_nor_deep_facts_fill_a_page() {
        let many: serde_json::Map<String, Value> = (0..500)
            .map(|number| (format!("f{number}"), json!(number)))
            .collect();
        let mut facts = Vec::new();
        gather(&Value::Object(many), "", DEPTH_MAX, &mut facts);
        assert_eq!(facts.len(), FACTS_MAX);
        assert_eq!(
            said("", &json!("é".repeat(1000))).chars().count(),
            FACT_CHARS_MAX + 1
        );
        let mut deep = json!(1);
        for _ in 0..50 {
            deep = json!({"d": deep});
        }
        let mut facts = Vec::new();
        gather(&deep, "", DEPTH_MAX, &mut facts);
        assert_eq!(facts.len(), 1);
    }
}
