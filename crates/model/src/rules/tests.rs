//! Rules against the facts of one machine.

use super::{
    check::{kind_of, look_up},
    *,
};
use crate::{
    facts::{Disk, Facts, Hardware, OsFacts, Package, UserAccount},
    platform::Platform,
};

const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

fn package(name: &str, version: &str) -> Package {
    Package {
        name: name.to_owned(),
        version: version.to_owned(),
    }
}

fn facts() -> Facts {
    let user = |name: &str, administrator| UserAccount {
        name: name.to_owned(),
        uid: None,
        administrator,
        locked: None,
    };
    Facts {
        hardware: Hardware {
            model: Some("T-14".to_owned()),
            memory_bytes: Some(8 << 30),
            ..Hardware::default()
        },
        os: OsFacts {
            id: Some("debian".to_owned()),
            version: Some("12.9".to_owned()),
            ..OsFacts::default()
        },
        disks: vec![Disk {
            name: "sda".to_owned(),
            size_bytes: 1,
            encrypted: Some(true),
            removable: false,
        }],
        interfaces: Vec::new(),
        users: vec![user("root", true), user("ada", false)],
        packages: vec![
            package("openssl", "3.0.15-1"),
            package("linux-image", "6.1.0-9"),
            package("linux-image", "6.1.0-18"),
        ],
        agent_version: None,
        collected_at: Timestamp::default(),
    }
}

fn check(json: &str) -> Check {
    serde_json::from_str(json).expect("the check is readable")
}

/// `+`, `-` or `?`.
fn answer(fact: &str, op: &str, value: &str, facts: Option<&Facts>) -> char {
    let value = if value.is_empty() {
        String::new()
    } else {
        format!(r#","value":{value}"#)
    };
    let check = check(&format!(r#"{{"fact":"{fact}","op":"{op}"{value}}}"#));
    assert_eq!(check.valid(), Ok(()), "{check:?}");
    match check.answer(facts) {
        Answer::True => '+',
        Answer::False(_) => '-',
        Answer::Unknown(_) => '?',
    }
}

#[test]
fn facts_are_compared_by_their_kind() {
    for (fact, op, value, expected) in [
        ("os.version", "ge", r#""12.10""#, '-'),
        ("os.version", "eq", r#""12.9.0""#, '+'),
        ("os.id", "eq", r#""debian""#, '+'),
        ("hardware.model", "eq", r#""T14""#, '-'),
        ("hardware.model", "contains", r#""14""#, '+'),
        ("hardware.memory_bytes", "ge", "8589934592", '+'),
        ("disks.all_encrypted", "eq", "true", '+'),
        ("users.administrators", "le", "1", '+'),
        ("users", "contains", r#""mallory""#, '-'),
        ("packages", "contains", r#""openssl""#, '+'),
        ("packages.openssl.version", "ge", r#""3.0.14""#, '+'),
        ("packages.openssl.version", "exists", "", '+'),
        ("packages.telnet.version", "exists", "", '-'),
        ("packages.telnet.version", "ge", r#""1""#, '?'),
        ("agent.version", "ge", r#""1""#, '?'),
        ("agent.version", "exists", "", '-'),
    ] {
        assert_eq!(
            answer(fact, op, value, Some(&facts())),
            expected,
            "{fact} {op} {value}"
        );
        assert_eq!(
            answer(fact, op, value, None),
            '?',
            "{fact} {op} {value} without facts"
        );
    }
}

#[test]
fn every_installed_version_of_a_package_must_pass() {
    let check = check(r#"{"fact":"packages.linux-image.version","op":"ge","value":"6.1.0-18"}"#);
    let mut facts = facts();
    for _ in 0..2 {
        let found = Answer::False("packages.linux-image.version is 6.1.0-9".to_owned());
        assert_eq!(check.answer(Some(&facts)), found);
        facts.packages.reverse();
    }
}

#[test]
fn a_list_that_was_not_collected_is_unknown() {
    let facts = Facts {
        users: Vec::new(),
        packages: Vec::new(),
        ..facts()
    };
    assert_eq!(answer("users.administrators", "le", "1", Some(&facts)), '?');
    assert_eq!(answer("packages.telnet.version", "exists", "", Some(&facts)), '?');
}

#[test]
fn a_disk_that_does_not_say_leaves_encryption_unknown() {
    let mut facts = facts();
    facts.disks[0].encrypted = None;
    assert_eq!(answer("disks.all_encrypted", "eq", "true", Some(&facts)), '?');
    facts.disks[0].removable = true;
    assert_eq!(answer("disks.all_encrypted", "eq", "true", Some(&facts)), '?');
}

#[test]
fn rules_that_can_never_be_answered_are_refused() {
    for wrong in [
        r#"{"fact":"os.password","op":"exists"}"#,
        r#"{"fact":"packages..version","op":"exists"}"#,
        r#"{"fact":"os.version","op":"ge"}"#,
        r#"{"fact":"os.version","op":"ge","value":12}"#,
        r#"{"fact":"os.version","op":"exists","value":"12"}"#,
        r#"{"fact":"os.id","op":"lt","value":"debian"}"#,
        r#"{"fact":"disks.all_encrypted","op":"gt","value":true}"#,
        r#"{"fact":"packages","op":"eq","value":"openssl"}"#,
        r#"{"fact":"users.administrators","op":"contains","value":1}"#,
        r#"{"fact":"os.id","op":"eq","value":["debian"]}"#,
    ] {
        assert!(check(wrong).valid().is_err(), "{wrong}");
    }
}

#[test]
fn every_fact_path_has_a_kind_and_is_found() {
    for path in FACT_PATHS {
        assert!(kind_of(path).is_some(), "{path}");
        assert!(look_up(path, &facts()).is_some(), "{path}");
    }
}

#[test]
fn names_of_rules_stand_once() {
    let rule = Rule::new(
        "os".parse().expect("it is a name"),
        Condition::Check(check(r#"{"fact":"os.id","op":"exists"}"#)),
    );
    assert_eq!(
        check_rules(&[rule.clone(), rule.clone()]),
        Err(InvalidRule::Name("os".to_owned()))
    );
    assert_eq!(check_rules(&vec![rule; RULES_MAX + 1]), Err(InvalidRule::TooMany));
}

proptest::proptest! {
    #[test]
    fn reading_and_answering_rules_never_panics(json in r#"\[\{"name":"[a-z]{0,3}","check":\{"fact":"(os\.version|packages\.[a-z]{0,2}\.version|users|[a-z.]{0,9})","op":"(ge|eq|contains|exists)"(,"value":("[0-9a-z.~]{0,5}"|[0-9]{1,3}|true))?\}\}\]"#) {
        if let Ok(rules) = serde_json::from_str::<Vec<Rule>>(&json) {
            let _ = check_rules(&rules);
            for rule in rules {
                let _ = rule.answer(&Subject::of_facts(Platform::Linux, Some(&facts())), NOW);
            }
        }
    }
}
