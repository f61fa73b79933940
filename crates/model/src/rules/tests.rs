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

fn rule(json: &str) -> Result<Rule, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

#[test]
fn old_and_new_rules_are_written_as_they_are_read() {
    for json in [
        r#"{"name":"os","check":{"fact":"os.version","op":"ge","value":"12.5"}}"#,
        r#"{"name":"os","check":{"fact":"os.version","op":"exists"}}"#,
        r#"{"name":"disks","expression":"disks.all_encrypted"}"#,
        concat!(
            r#"{"name":"os","expression":"os.version >= version(\"12.5\")","description":"Older ones get no fixes.","#,
            r#""severity":"high","remediation":{"grace_seconds":86400,"steps":["#,
            r#"{"after_seconds":0,"action":"notify"},{"after_seconds":0,"action":"message","text":"Update soon"},"#,
            r#"{"after_seconds":3600,"action":"reapply"},"#,
            r#"{"after_seconds":7200,"action":"command","command":{"type":"restart","delay_seconds":60}}]}}"#
        ),
    ] {
        let read = rule(json).expect("the rule is valid");
        assert_eq!(check_rules(std::slice::from_ref(&read)), Ok(()));
        assert_eq!(serde_json::to_string(&read).expect("it has a text form"), json);
        let tree: serde_json::Value = serde_json::from_str(json).expect("it is JSON");
        assert_eq!(
            serde_json::from_value::<Rule>(tree).expect("it reads from a tree as well"),
            read
        );
    }
}

#[test]
fn a_bad_rule_is_told_by_its_name_and_what_to_write() {
    let with = |members: &str| format!(r#"{{"name":"os",{members}}}"#);
    let step = |members: &str| {
        with(&format!(
            r#""expression":"true","remediation":{{"steps":[{{{members}}}]}}"#
        ))
    };
    for (json, expected) in [
        (
            "[]".to_owned(),
            "a rule is an object with name and check or expression",
        ),
        ("{}".to_owned(), "a rule has no name; write \"name\""),
        (r#"{"name":""}"#.to_owned(), "the name of a rule: Name is empty"),
        (
            r#"{"check":1,"name":"os"}"#.to_owned(),
            "rule os: check: invalid type",
        ),
        (
            r#"{"name":"os"}"#.to_owned(),
            "rule os: write what it asks: an expression such as",
        ),
        (
            with(r#""check":{"fact":"os.id","op":"exists"},"expression":"true""#),
            "rule os: write either check or expression",
        ),
        (
            with(r#""expression":"os.vers == 'x'""#),
            "rule os: expression: line 1, column 1: there is no os.vers; did you mean os.version?",
        ),
        (with(r#""expression":1"#), "rule os: expression: invalid type"),
        (
            with(r#""expression":"true","expression":"true""#),
            "the member expression of a rule stands twice",
        ),
        (
            with(r#""check":{"fact":"a","fact":"b","op":"exists"}"#),
            "the member fact of a rule stands twice",
        ),
        (
            with(r#""expression":"true","severty":"low""#),
            "rule os: there is no member severty; a rule has name, check, expression",
        ),
        (
            with(r#""expression":"true","severity":"severe""#),
            "rule os: severity: unknown variant `severe`, expected one of `low`",
        ),
        (
            with(r#""expression":"true","description":"""#),
            "rule os: description: Description is empty",
        ),
        (
            with(r#""check":{"fact":"os.id","op":"is"}"#),
            "rule os: check: unknown variant `is`, expected one of `eq`",
        ),
        (
            step(r#""action":"explode""#),
            "rule os: remediation: there is no action explode; write notify, message, reapply or command",
        ),
        (step(r#""action":"message""#), "message needs \"text\""),
        (
            step(r#""action":"command""#),
            "command needs \"command\", such as",
        ),
        (
            step(r#""action":"notify","text":"a""#),
            "\"text\" belongs to the action message alone",
        ),
        (
            step(r#""action":"reapply","command":{"type":"restart"}"#),
            "\"command\" belongs to the action command alone",
        ),
        (
            step(r#""action":"command","command":{"type":"wipe","mode":"full"}"#),
            "wipe is destructive: no rule can order it; write restart",
        ),
        (
            step(r#""action":"command","command":{"type":"restart","delay_seconds":9999}"#),
            "command: delay_seconds is more than 3600",
        ),
        (
            step(r#""action":"notify","after_seconds":-1"#),
            "rule os: remediation: invalid value: integer `-1`",
        ),
    ] {
        let error = rule(&json).expect_err("the rule is wrong");
        assert!(
            error.contains(expected),
            "{json}\n  says  {error}\n  wants {expected}"
        );
    }
}

#[test]
fn what_only_the_whole_rule_shows_is_refused_by_its_name() {
    let remediation =
        |steps: &str| format!(r#"{{"name":"os","expression":"true","remediation":{{{steps}}}}}"#);
    let many = vec![r#"{"action":"notify"}"#; STEPS_MAX + 1].join(",");
    for (json, expected) in [
        (
            remediation(""),
            "rule os: remediation is empty; write grace_seconds or steps",
        ),
        (
            remediation(&format!(r#""steps":[{many}]"#)),
            "rule os: remediation has at most 8 steps",
        ),
        (
            remediation(r#""grace_seconds":7776001"#),
            "rule os: remediation: grace_seconds is at most 7776000 (90 days)",
        ),
        (
            remediation(r#""steps":[{"action":"notify","after_seconds":7776001}]"#),
            "rule os: remediation: after_seconds is at most 7776000 (90 days)",
        ),
        (
            remediation(
                r#""steps":[{"action":"notify","after_seconds":5},{"action":"reapply","after_seconds":4}]"#,
            ),
            "rule os: remediation: step 2 comes before the one above it; order the steps by after_seconds",
        ),
        (
            r#"{"name":"os","check":{"fact":"os.versoin","op":"exists"}}"#.to_owned(),
            "rule os: there is no fact os.versoin; did you mean os.version?",
        ),
        (
            r#"{"name":"os","check":{"fact":"os.id","op":"lt","value":"a"}}"#.to_owned(),
            "rule os: os.id cannot be compared with lt; write eq, ne, contains or exists",
        ),
    ] {
        let rule = rule(&json).expect("its parts are valid");
        let error = check_rules(&[rule]).expect_err("the rule is wrong").to_string();
        assert!(
            error.contains(expected),
            "{json}\n  says  {error}\n  wants {expected}"
        );
    }
}

#[test]
fn steps_are_due_after_the_grace_and_in_order() {
    let json = r#"{"grace_seconds":100,"steps":[{"after_seconds":0,"action":"notify"},{"after_seconds":50,"action":"reapply"}]}"#;
    let remediation: Remediation = serde_json::from_str(json).expect("it is a remediation");
    let due = |seconds| remediation.due(std::time::Duration::from_secs(seconds)).len();
    assert_eq!(
        [due(0), due(99), due(100), due(149), due(150), due(u64::MAX)],
        [0, 0, 1, 1, 2, 2]
    );
}

#[test]
fn no_rule_can_carry_a_wipe() {
    for mode in [
        crate::command::WipeMode::Full,
        crate::command::WipeMode::Enterprise,
    ] {
        let wipe = crate::command::CommandKind::Wipe { mode };
        assert_eq!(
            RemedyCommand::new(wipe),
            Err(InvalidRemediation::Destructive("wipe"))
        );
    }
}

#[test]
fn checks_and_expressions_answer_alike() {
    let subject_facts = facts();
    let (sent, nothing) = (
        Subject::of_facts(Platform::Linux, Some(&subject_facts)),
        Subject::of_facts(Platform::Linux, None),
    );
    for (check, expression) in [
        (
            r#"{"fact":"os.version","op":"ge","value":"12.10"}"#,
            r#"os.version >= version("12.10")"#,
        ),
        (
            r#"{"fact":"os.id","op":"eq","value":"debian"}"#,
            r#"os.id == "debian""#,
        ),
        (
            r#"{"fact":"hardware.model","op":"contains","value":"14"}"#,
            r#"hardware.model.contains("14")"#,
        ),
        (
            r#"{"fact":"hardware.vendor","op":"eq","value":"a"}"#,
            r#"hardware.vendor == "a""#,
        ),
        (
            r#"{"fact":"disks.all_encrypted","op":"eq","value":true}"#,
            "disks.all_encrypted",
        ),
        (
            r#"{"fact":"users.administrators","op":"le","value":1}"#,
            "users.administrators <= 1",
        ),
        (
            r#"{"fact":"users","op":"contains","value":"mallory"}"#,
            r#""mallory" in users"#,
        ),
        (
            r#"{"fact":"packages","op":"contains","value":"openssl"}"#,
            r#""openssl" in packages"#,
        ),
        (
            r#"{"fact":"packages.linux-image.version","op":"ge","value":"6.1.0-18"}"#,
            r#"packages["linux-image"] >= version("6.1.0-18")"#,
        ),
        (
            r#"{"fact":"packages.telnet.version","op":"exists"}"#,
            "has(packages.telnet)",
        ),
        (
            r#"{"fact":"packages.telnet.version","op":"ge","value":"1"}"#,
            r#"packages["telnet"] >= version("1")"#,
        ),
    ] {
        let name = || "rule".parse().expect("it is a name");
        let check = Rule::new(
            name(),
            Condition::Check(serde_json::from_str(check).expect("it is a check")),
        );
        let expression = Rule::new(
            name(),
            Condition::Expression(expression.parse().expect("it is an expression")),
        );
        for subject in [&sent, &nothing] {
            assert_eq!(
                check.holds(subject, NOW),
                expression.holds(subject, NOW),
                "{}",
                expression.condition
            );
            let (one, other) = (check.answer(subject, NOW), expression.answer(subject, NOW));
            assert_eq!(
                std::mem::discriminant(&one),
                std::mem::discriminant(&other),
                "{one:?} {other:?}"
            );
        }
    }
}

proptest::proptest! {
    #[test]
    fn reading_a_rule_from_pieces_never_panics(
        pieces in proptest::collection::vec(proptest::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"name\"", "\"a\"", "\"check\"", "\"expression\"", "\"true\"", "\"remediation\"",
            "\"steps\"", "\"action\"", "\"notify\"", "\"command\"", "{\"type\":\"restart\"}", "\"fact\"", "\"op\"", "1", "null", "-1.5",
        ]), 0..30),
    ) {
        if let Ok(read) = rule(&pieces.concat()) {
            let text = serde_json::to_string(&read).expect("it has a text form");
            proptest::prop_assert_eq!(rule(&text), Ok(read));
        }
    }

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
