//! A table of expressions and their answers, the truth tables of three values, and the reasons.

use super::*;

#[test]
fn every_part_of_the_language_answers() {
    let known = known();
    for (text, expected) in [
        // Literals and logic.
        ("true", '+'),
        ("!true", '-'),
        ("true && false", '-'),
        ("false || true", '+'),
        ("true ? false : true", '-'),
        ("1 + 2 * 3 == 7", '+'),
        ("(1 + 2) * 3 == 9", '+'),
        ("7 / 2 == 3 && -7 / 2 == -3", '+'),
        ("7 % 3 == 1 && -7 % 3 == -1", '+'),
        ("10 - 4 - 3 == 3", '+'),
        ("-(2) == 0 - 2", '+'),
        ("0x10 == 16", '+'),
        ("-9223372036854775808 < 9223372036854775807", '+'),
        ("--5 == 5 && ---5 == -5 && --hardware.cpu_cores == 8", '+'),
        ("-(-(-9223372036854775808)) < 0", '?'),
        ("9223372036854775807 + 1 > 0", '?'),
        ("1 / 0 == 1", '?'),
        ("1 % 0 == 1", '?'),
        // Texts.
        (r#"'a' == "a""#, '+'),
        (r#""\u00e9\x41\101\n" == 'é' || true"#, '+'),
        (r#"r"\n" == "\\n""#, '+'),
        (r#"size("é€") == 2"#, '+'),
        (
            r#""abc".startsWith("ab") && "abc".endsWith("bc") && "abc".contains("b")"#,
            '+',
        ),
        (r#""abc".startsWith("")"#, '+'),
        (r#""abc".contains("d")"#, '-'),
        // Lists.
        ("2 in [1, 2]", '+'),
        (r#""c" in ["a", "b"]"#, '-'),
        ("[1, 2, 3].all(n, n < 4)", '+'),
        ("[1, 2, 3].exists(n, n % 2 == 0)", '+'),
        (r#"["a", "b"].all(x, ["a", "b", "c"].exists(y, x == y))"#, '+'),
        ("size([1, 2]) == 2 && [1].size() == 1", '+'),
        // Versions, times and durations.
        (r#"version("12.10") > version("12.9")"#, '+'),
        (r#"version("12") == version("12.0")"#, '+'),
        (r#"string(version("12.0")) == "12""#, '-'),
        (r#"timestamp("2027-01-15T08:00:00Z") == now"#, '+'),
        (
            r#"now - timestamp("2027-01-14T08:00:00Z") == duration("24h")"#,
            '+',
        ),
        (r#"now + duration("1h") > now && now - duration("1h") < now"#, '+'),
        (r#"duration("1h") + duration("30m") == duration("1h30m")"#, '+'),
        (r#"duration("1h") - duration("90m") == duration("-30m")"#, '+'),
        // The device.
        (r#"device.platform == "linux""#, '+'),
        (r#"device.platform in ["macos", "ios"]"#, '-'),
        (
            r#"device.model == "T14" && device.name.startsWith("laptop-")"#,
            '+',
        ),
        (r#"device.vendor == "LENOVO""#, '?'),
        ("has(device.vendor)", '-'),
        ("has(device.owner)", '+'),
        (r#"device.owner.endsWith("@example.org")"#, '+'),
        (r#"device.ownership == "personal""#, '-'),
        (r#"device.attestation != "unattested""#, '+'),
        (r#"now - device.enrolled_at < duration("720h")"#, '+'),
        // Labels and groups.
        (r#"labels.department == "sales""#, '+'),
        (r#"labels["cost-center"] == "4711""#, '+'),
        (r#"labels.region == "west""#, '?'),
        ("has(labels.region)", '-'),
        ("has(labels.flag)", '+'),
        (r#""cost-center" in labels && !("region" in labels)"#, '+'),
        (r#"labels.exists(key, key.startsWith("cost"))"#, '+'),
        (r#"labels.exists(key, labels[key] == "sales")"#, '+'),
        ("size(labels) == 5", '+'),
        ("os.version >= version(labels.minimum)", '+'),
        ("now < timestamp(labels.ends)", '+'),
        ("now < timestamp(labels.department)", '?'),
        (r#"duration(labels.department) > duration("1h")"#, '?'),
        (r#""vpn" in owner.groups"#, '+'),
        ("owner.active", '-'),
        ("owner.active == false", '+'),
        (r#"owner.department == "sales""#, '+'),
        (r#"owner.groups.all(group, group != "admins")"#, '+'),
        // Facts.
        (r#"os.version >= version("12.10")"#, '-'),
        (r#"string(os.version) == "12.9""#, '+'),
        (r#"os.kernel >= version("6.1.0-9")"#, '+'),
        (r#"agent.version >= version("1")"#, '?'),
        ("has(agent.version)", '-'),
        ("hardware.memory_bytes / 1024 / 1024 / 1024 >= 16", '+'),
        ("hardware.cpu_cores in [4, 8]", '+'),
        ("disks.all_encrypted", '-'),
        ("users.administrators <= 1", '-'),
        (r#""mallory" in users"#, '-'),
        (r#"users.all(user, user in ["root", "ada", "bob"])"#, '+'),
        (r#"packages["openssl"] >= version("3.0.14")"#, '+'),
        (r#"packages.openssl >= version("3.0.16")"#, '-'),
        (r#"packages["linux-image"] >= version("6.1.0-18")"#, '-'),
        (r#"packages["telnet"] >= version("1")"#, '?'),
        ("has(packages.telnet)", '-'),
        (r#""telnet" in packages"#, '-'),
        (
            r#"!("telnet" in packages) || packages["telnet"] > version("9")"#,
            '+',
        ),
        (r#"packages.exists(name, name.startsWith("linux-"))"#, '+'),
        (r#"packages[labels["package-to-check"]] > version("1")"#, '?'),
        (r#"labels.all(key, !(key in packages))"#, '+'),
        (r#"now - facts.collected_at < duration("24h") // fresh"#, '+'),
        // Signals: what is too old is unknown, what was never said is absent.
        (r#"signal.edr.verdict == "fail""#, '+'),
        (r#"signal.edr.verdict != "fail""#, '-'),
        (r#"signal.edr.risk == "high""#, '?'),
        ("has(signal.edr.risk)", '?'),
        ("has(signal.edr.verdict)", '+'),
        ("has(signal.edr.assurance)", '-'),
        ("has(signal.dlp.verdict)", '-'),
        (r#"signal.dlp.verdict == "pass""#, '?'),
        (r#"!has(signal.dlp.verdict) || signal.dlp.verdict == "pass""#, '+'),
        (r#"now - signal.edr.observed_at < duration("24h")"#, '+'),
        ("has(signal.edr.session_revoked_at)", '-'),
    ] {
        assert_eq!(answer(text, &known.subject()), expected, "{text}");
    }
}

/// Three expressions for each truth value; unknown ones are unknown for different reasons.
const TRUE: &[&str] = &["true", "1 < 2", "device.platform == \"linux\""];
const FALSE: &[&str] = &["false", "1 > 2", "has(device.vendor)"];
const UNKNOWN: &[&str] = &[
    "labels.region == \"west\"",
    "1 / 0 == 1",
    "device.vendor == \"x\"",
];

fn texts(value: char) -> &'static [&'static str] {
    match value {
        '+' => TRUE,
        '-' => FALSE,
        _ => UNKNOWN,
    }
}

#[test]
fn an_operand_that_decides_decides_in_either_order() {
    let known = known();
    let table = [
        ('+', '+', '+', '+'),
        ('+', '-', '-', '+'),
        ('+', '?', '?', '+'),
        ('-', '+', '-', '+'),
        ('-', '-', '-', '-'),
        ('-', '?', '-', '?'),
        ('?', '+', '?', '+'),
        ('?', '-', '-', '?'),
        ('?', '?', '?', '?'),
    ];
    for (left, right, both, either) in table {
        for left in texts(left) {
            for right in texts(right) {
                let (and, or) = (format!("{left} && {right}"), format!("{left} || {right}"));
                assert_eq!(answer(&and, &known.subject()), both, "{and}");
                assert_eq!(answer(&or, &known.subject()), either, "{or}");
            }
        }
    }
    for unknown in UNKNOWN {
        for text in [
            format!("!({unknown})"),
            format!("({unknown}) ? true : true"),
            format!("({unknown}) == true"),
            format!("[1, 2].all(n, {unknown})"),
        ] {
            assert_eq!(answer(&text, &known.subject()), '?', "{text}");
        }
        let chosen = format!("true ? true : {unknown}");
        assert_eq!(answer(&chosen, &known.subject()), '+', "{chosen}");
    }
}

#[test]
fn one_deciding_item_outweighs_what_is_missing_of_the_others() {
    let known = known();
    for (text, expected) in [
        ("[0, 1].exists(n, 1 / n == 1)", '+'),
        ("[1, 0].exists(n, 1 / n == 1)", '+'),
        ("[0, 2].exists(n, 1 / n == 1)", '?'),
        ("[0, 2].all(n, 1 / n == 1)", '-'),
        ("[0, 1].all(n, 1 / n == 1)", '?'),
        (r#""sales" in ["it", labels.department]"#, '+'),
        (r#""sales" in [labels.department, labels.region]"#, '?'),
        (r#""west" in [labels.region, labels.department]"#, '?'),
    ] {
        assert_eq!(answer(text, &known.subject()), expected, "{text}");
    }
}

#[test]
fn where_nothing_is_known_every_question_about_it_is_unknown() {
    let nothing = Subject::of_facts(Platform::Linux, None);
    assert_eq!(answer(r#"device.platform == "linux""#, &nothing), '+');
    for text in [
        r#"labels.department == "sales""#,
        "has(labels.department)",
        r#""a" in labels"#,
        "size(labels) == 0",
        r#""vpn" in owner.groups"#,
        "has(device.owner)",
        r#"device.name == "a""#,
        r#"device.ownership == "company""#,
        r#"os.version >= version("12")"#,
        "has(os.version)",
        "disks.all_encrypted",
        "has(disks.all_encrypted)",
        "users.administrators == 0",
        r#"users.all(user, user == "root")"#,
        r#""telnet" in packages"#,
        "has(packages.telnet)",
        r#"facts.collected_at < now"#,
    ] {
        assert_eq!(answer(text, &nothing), '?', "{text}");
    }
    // Lists that were not collected are empty in the facts.
    let mut known = known();
    known.facts.users.clear();
    known.facts.packages.clear();
    for text in [
        "users.administrators == 0",
        "size(users) == 0",
        r#""telnet" in packages"#,
        "has(packages.telnet)",
    ] {
        assert_eq!(answer(text, &known.subject()), '?', "{text}");
    }
}

#[test]
fn reasons_name_what_was_found_or_what_is_missing() {
    let known = known();
    for (text, expected) in [
        (r#"os.version >= version("12.10")"#, "-os.version is 12.9"),
        (
            r#"device.platform == "linux" && labels.department == "it""#,
            "-labels.department is sales",
        ),
        (
            r#"os.version >= version("13") || labels["cost-center"] == "1""#,
            "-os.version is 12.9, labels[\"cost-center\"] is 4711",
        ),
        (r#"!("openssl" in packages)"#, "-packages has openssl"),
        (r#""telnet" in packages"#, "-packages has no telnet"),
        (r#"!users.exists(user, user.startsWith("a"))"#, "-users has ada"),
        (r#"users.all(user, user != "bob")"#, "-users has bob"),
        (
            r#"users.exists(user, user == "x")"#,
            "-users has nothing that was asked for",
        ),
        ("has(device.vendor)", "-device.vendor is absent"),
        ("!has(device.owner)", "-device.owner is there"),
        ("size(users) < 3", "-users has 3 items"),
        ("disks.all_encrypted", "-disks.all_encrypted is false"),
        ("labels.flag == \"x\"", "-labels.flag is empty"),
        (
            "device.enrolled_at > now",
            "-device.enrolled_at is 2027-01-03T18:13:20Z, now is 2027-01-15T08:00:00Z",
        ),
        ("1 > 2", "-the expression is false for every device"),
        ("agent.version > version(\"1\")", "?agent.version is absent"),
        ("labels.region == \"west\"", "?the device has no label region"),
        (
            "packages.telnet > version(\"1\")",
            "?the package telnet is not installed",
        ),
        (r#"signal.edr.verdict == "pass""#, "-signal.edr.verdict is fail"),
        (
            r#"signal.edr.risk == "low""#,
            "?what edr said about risk is too old",
        ),
        (r#"signal.dlp.risk == "low""#, "?dlp has said nothing about risk"),
        ("1 / 0 == 1", "?a number is divided by zero"),
        (
            "now < timestamp(labels.department)",
            "?\"sales\" is no time of the form 2026-11-23T21:00:00Z",
        ),
    ] {
        let found = match parse(text).evaluate(&known.subject(), NOW) {
            Answer::True => "+".to_owned(),
            Answer::False(reason) => format!("-{reason}"),
            Answer::Unknown(reason) => format!("?{reason}"),
        };
        assert_eq!(found, expected, "{text}");
    }
    let nothing = Subject::of_facts(Platform::Linux, None);
    for (text, expected) in [
        (
            r#"os.version >= version("12")"#,
            "the device has not sent os.version",
        ),
        (r#"labels.department == "sales""#, "labels is not known here"),
        (
            "users.administrators < 2",
            "the device has not sent users.administrators",
        ),
        (r#"signal.edr.verdict == "pass""#, "signal is not known here"),
    ] {
        assert_eq!(
            parse(text).evaluate(&nothing, NOW),
            Answer::Unknown(expected.to_owned()),
            "{text}"
        );
    }
}

#[test]
fn an_expression_says_what_it_reads() {
    let reads = |text: &str| {
        let expression = parse(text);
        expression
            .reads()
            .iter()
            .map(FactPath::to_string)
            .collect::<Vec<_>>()
    };
    let text = r#"has(labels.department) && packages["a-b"] > version("1") && os.version < version("2") && now > now"#;
    assert_eq!(
        reads(text),
        ["os.version", "now", "labels.department", "packages[\"a-b\"]"]
    );
    assert!(parse(text).reads_time() && !parse("true").reads_time());
    // A key that is computed may be any.
    assert_eq!(reads("labels[labels.a] == \"x\""), ["labels", "labels.a"]);
    assert_eq!(
        reads("users.exists(user, user in owner.groups)"),
        ["owner.groups", "users"]
    );
    assert_eq!(reads("1 < 2"), [""; 0]);
}

#[test]
fn the_text_form_is_canonical() {
    for (text, canonical) in [
        ("  true&&( false||true ) ", "true && (false || true)"),
        ("((a_in([1])))", ""),
        ("(1+2)*3==9", "(1 + 2) * 3 == 9"),
        ("1-(2-3)==2 // why", "1 - (2 - 3) == 2"),
        ("(1-2)-3==-4", "1 - 2 - 3 == -4"),
        ("true&&(true&&false)", "true && (true && false)"),
        ("(true && true) && false", "(true && true) && false"),
        ("!(1==2)", "!(1 == 2)"),
        (
            "-(-size(users)) == --size(users)",
            "-(-size(users)) == size(users)",
        ),
        ("-(-9223372036854775808) == 1", "-(-9223372036854775808) == 1"),
        ("(1==2)==false", "(1 == 2) == false"),
        (
            "(true?true:false)?false:true",
            "(true ? true : false) ? false : true",
        ),
        ("labels['department']=='a\"b'", r#"labels.department == "a\"b""#),
        (
            r#"packages.openssl > version('3')"#,
            r#"packages["openssl"] > version("3")"#,
        ),
        (
            r#"duration("90m") < duration("5400s")"#,
            r#"duration("1h30m") < duration("1h30m")"#,
        ),
        (r#"device.name.size() > 2"#, "size(device.name) > 2"),
        (r#"'\u202e' == 'a'"#, r#""\u202e" == "a""#),
        (r#"labels["in"] == "x""#, r#"labels["in"] == "x""#),
    ] {
        if canonical.is_empty() {
            assert!(Expression::parse(text).is_err(), "{text}");
            continue;
        }
        assert_eq!(parse(text).to_string(), canonical);
        assert_eq!(parse(canonical), parse(text));
        let json = serde_json::to_string(&parse(text)).expect("it has a text form");
        assert_eq!(
            serde_json::from_str::<Expression>(&json).expect("it reads back"),
            parse(text)
        );
    }
}

#[test]
fn the_reference_lists_every_variable_and_its_examples_are_expressions() {
    let reference = include_str!("../../../../../docs/reference/expressions.md");
    for variable in Variable::ALL {
        assert!(reference.contains(&format!("`{variable}`")), "{variable}");
        assert!(
            !variable.meaning().is_empty() && !variable.kind().describe().is_empty(),
            "{variable}"
        );
    }
    let examples = reference
        .split("```cel\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let examples: Vec<&str> = examples.unwrap_or_default().lines().collect();
    assert!(examples.len() > 5, "the reference has examples");
    for example in examples {
        assert_eq!(parse(example).to_string(), example);
    }
    let bounds = [TEXT_BYTES_MAX, DEPTH_MAX, NODES_MAX, LIST_ITEMS_MAX];
    let limits = reference.split("## Limits").nth(1).unwrap_or_default();
    for bound in bounds {
        assert!(limits.contains(&bound.to_string()), "{bound}");
    }
}
