//! L7 and L8: golden lines, and values that would break lines. The OCSF lines are also judged by the schema, in `tests/it` of
//! the program.

use muster_model::{EntryId, TenantId, Timestamp};
use muster_trust::entry::{Actor, ActorKind, LogEntry, Object};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn entry(number: u8, action: &str, kind: &str, object: &str, detail: Value) -> LogEntry {
    let at = Timestamp::from_micros(1_790_000_000_123_456 + i64::from(number) * 1_000_000);
    LogEntry {
        id: EntryId::generate(at, [number; 10]),
        at,
        tenant: TenantId::generate(Timestamp::from_unix_seconds(1_790_000_000), [7; 10]),
        actor: Actor {
            kind: match number % 4 {
                0 => ActorKind::Client,
                1 => ActorKind::User,
                2 => ActorKind::Device,
                _ => ActorKind::System,
            },
            id: format!("actor-{number}"),
        },
        action: action.to_owned(),
        object: Object {
            kind: kind.to_owned(),
            id: object.to_owned(),
        },
        detail: detail.as_object().cloned().unwrap_or_default(),
    }
}

/// An entry of each class, some of them with values that would break a careless writer.
fn samples() -> Vec<LogEntry> {
    let device = "dev_0199";
    vec![
        entry(
            0,
            "client.created",
            "client",
            "cli_1",
            json!({"name": "ci", "scopes": "device:read"}),
        ),
        entry(1, "session.started", "user", "first-operator", json!({})),
        entry(
            2,
            "device.enrolled",
            "device",
            device,
            json!({"serial": "S|1=\\", "platform": "linux"}),
        ),
        entry(
            3,
            "compliance.changed",
            "device",
            device,
            json!({"from": "compliant", "to": "noncompliant"}),
        ),
        entry(
            4,
            "command.created",
            "device",
            device,
            json!({"command_id": "cmd_1", "type": "lock"}),
        ),
        entry(
            5,
            "security.split_view",
            "device",
            device,
            json!({"size": 12, "standing": "longer"}),
        ),
        entry(
            6,
            "policy.described",
            "policy",
            "pol_1",
            json!({"name": "a\nb", "description": "=|\\\"]\u{feff}\u{2028}ü"}),
        ),
        entry(
            7,
            "receipt.refused",
            "device",
            device,
            json!({"reason": "it is not a receipt"}),
        ),
        entry(
            8,
            "rollout.activated",
            "rollout",
            "rol_1",
            json!({"generation": 3, "stage": "full"}),
        ),
    ]
}

fn written(format: LineFormat) -> String {
    let lines = samples()
        .iter()
        .enumerate()
        .map(|(place, entry)| line(format, place as u64, entry).expect("it is written"))
        .collect::<String>();
    lines.replace(product_version(), "VERSION")
}

#[test]
fn l8_events_in_ocsf_are_the_golden_ones() {
    assert_eq!(
        written(LineFormat::Ocsf),
        include_str!("golden/entries.ocsf.jsonl")
    );
}

#[test]
fn l8_events_in_cef_are_the_golden_ones() {
    assert_eq!(written(LineFormat::Cef), include_str!("golden/entries.cef"));
}

/// Reads a line of CEF as its specification says: header fields, and pairs.
fn read_cef(line: &str) -> (Vec<String>, Vec<(String, String)>) {
    let (mut fields, mut field, mut characters) = (Vec::new(), String::new(), line.chars());
    while fields.len() < 7 {
        match characters.next() {
            Some('\\') => field.extend(characters.next()),
            Some('|') => fields.push(std::mem::take(&mut field)),
            Some(other) => field.push(other),
            None => panic!("the header ends early: {line}"),
        }
    }
    let rest = characters.as_str();
    // A key is the word before an equals sign that is not escaped.
    let bytes = rest.as_bytes();
    let signs: Vec<usize> = (0..bytes.len())
        .filter(|at| {
            bytes[*at] == b'='
                && rest[..*at]
                    .bytes()
                    .rev()
                    .take_while(|byte| *byte == b'\\')
                    .count()
                    % 2
                    == 0
        })
        .collect();
    let mut pairs = Vec::new();
    for (number, at) in signs.iter().enumerate() {
        let key = rest[..*at].rsplit(' ').next().expect("a split has a last part");
        let end = match signs.get(number + 1) {
            Some(next) => rest[..*next].rfind(' ').expect("pairs are apart"),
            None => rest.len(),
        };
        let (mut value, mut raw) = (String::new(), rest[at + 1..end].chars());
        while let Some(character) = raw.next() {
            match character {
                '\\' => match raw.next() {
                    Some('n') => value.push('\n'),
                    Some('r') => value.push('\r'),
                    Some(other) => value.push(other),
                    None => panic!("a backslash ends the value"),
                },
                other => value.push(other),
            }
        }
        pairs.push((key.to_owned(), value));
    }
    (fields, pairs)
}

fn one_line(text: &str) -> &str {
    let line = text.strip_suffix('\n').expect("a line ends");
    let breaks = [
        '\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}', '\u{feff}',
    ];
    assert!(!line.contains(breaks), "{line:?}");
    line
}

proptest! {
    #[test]
    fn l7_every_value_comes_out_of_one_line_as_it_went_in(name in any::<String>(), object in "\\PC{1,64}") {
        let detail = json!({"name": name});
        let entry = entry(1, "policy.described", "policy", &object, detail.clone());
        let written = line(LineFormat::Cef, 9, &entry).expect("it is written");
        let (fields, pairs) = read_cef(one_line(&written));
        prop_assert_eq!(&fields[4], "policy.described");
        let value = |key: &str| pairs.iter().find(|(found, _)| found == key).map(|(_, value)| value.clone());
        prop_assert_eq!(value("externalId"), Some(entry.id.to_string()));
        let read = value("cs3").expect("the detail is there");
        if read.chars().count() < 4000 {
            let read: Value = serde_json::from_str(&read).expect("it is JSON");
            prop_assert_eq!(read, detail.clone());
        }
        for format in [LineFormat::Ocsf, LineFormat::JsonLines] {
            let written = line(format, 9, &entry).expect("it is written");
            let read: Value = serde_json::from_str(one_line(&written)).expect("it is JSON");
            let found = if format == LineFormat::Ocsf { &read["unmapped"]["detail"] } else { &read["detail"] };
            prop_assert_eq!(found, &detail);
        }
    }
}

#[test]
fn ids_and_order_are_the_same_every_time() {
    assert_eq!(written(LineFormat::Ocsf), written(LineFormat::Ocsf));
    let ids: Vec<String> = samples().iter().map(|entry| entry.id.to_string()).collect();
    for (line, id) in written(LineFormat::Ocsf).lines().zip(ids) {
        let event: Value = serde_json::from_str(line).expect("it is JSON");
        assert_eq!(event["metadata"]["uid"], id);
    }
}
