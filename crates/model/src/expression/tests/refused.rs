//! What is no expression: where it is wrong, and what to write instead.

use super::*;

fn refusal(text: &str) -> String {
    match Expression::parse(text) {
        Ok(expression) => panic!("{text} was read as {expression}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn errors_say_where_and_what_to_write() {
    for (text, expected) in [
        (
            "",
            "line 1, column 1: the expression is empty; write a condition, or true",
        ),
        (
            "os.versoin > 1",
            "line 1, column 1: there is no os.versoin; did you mean os.version?",
        ),
        (
            "true &&\n  os.vers == 'x'",
            "line 2, column 3: there is no os.vers; did you mean os.version?",
        ),
        (
            "os == 1",
            "column 1: os is no value; there is os.id, os.name, os.version, os.kernel, os.architecture",
        ),
        ("os.id.x == 1", "column 1: os.id has no field x"),
        (
            r#"signal.edr.verdict == "bad""#,
            "signal.edr.verdict is never \"bad\"; it is one of pass, fail",
        ),
        (
            r#"signal.edr.risc == "low""#,
            "signal.edr has no risc; did you mean risk?",
        ),
        (
            "signal.edr",
            "write what a source says as in signal.defender.verdict",
        ),
        (r#""edr" in signal"#, "after in comes users"),
        (
            "linux == device.platform",
            "there is no linux; texts stand in quotes",
        ),
        (
            r#"os.version > "12""#,
            "column 14: this is a text and stands against a version; write version(\"12\")",
        ),
        (
            "os.version > 12",
            "column 14: this is a whole number and stands against a version; write version(\"12\")",
        ),
        (
            r#""12" < os.version"#,
            "column 1: this is a text and stands against a version; write version(\"12\")",
        ),
        (
            "os.version == os.id",
            "column 15: this is a text and stands against a version; write version(…)",
        ),
        (r#"now > "2027-01-01""#, "write timestamp(\"2027-01-01\")"),
        ("now - now > 60", "write duration(\"60s\")"),
        (r#"hardware.cpu_cores > "4""#, "write 4 without quotes"),
        (
            r#"os.name > "a""#,
            "column 9: > does not fit: texts have no order here; for versions write version(…)",
        ),
        ("true > false", "column 6: > does not fit: only numbers"),
        (
            r#"os.name + "a" == "b""#,
            "column 9: + takes whole numbers, or times and durations",
        ),
        (
            r#"device.platform == "Linux""#,
            "column 20: device.platform is never \"Linux\"; did you mean linux?",
        ),
        (
            r#""desktop" != device.platform"#,
            "device.platform is never \"desktop\"; it is one of linux, macos",
        ),
        (
            r#"device.platform in ["linux", "windos"]"#,
            "device.platform is never \"windos\"; did you mean windows?",
        ),
        (r#"device.ownership == "byod""#, "it is one of company, personal"),
        (
            "labels.Department == 'x'",
            "\"Department\" is no key of a label: write labels[\"department\"]",
        ),
        (
            "labels[' a'] == 'x'",
            "\" a\" is no key of a label: write labels[\"a\"]",
        ),
        (
            "labels['4'] == 'x'",
            "\"4\" is no key of a label: it has 1 to 63 of a-z",
        ),
        ("labels.a.b == 'x'", "write labels[\"a.b\"] for a key with a dot"),
        ("labels == 'x'", "labels has many values; write \"x\" in"),
        ("users == 'x'", "users has many values"),
        ("users[0] == 'x'", "only labels and packages have an index"),
        (
            "packages.openssl.version > version('1')",
            "packages[\"openssl\"] is the version itself",
        ),
        (
            "os.version.startsWith('12')",
            "a version has no startsWith(…); write string(…).startsWith(…)",
        ),
        ("os.name.matches('a.*')", "there are no regular expressions"),
        (
            "users.filter(u, u == 'a')",
            "filter would make a list; write exists or all",
        ),
        (
            "os.name.startWith('a')",
            "there is no startWith(…); did you mean startsWith?",
        ),
        (
            "users.exist(u, u == 'a')",
            "there is no exist(…); did you mean exists?",
        ),
        (
            "versoin('1') == version('1')",
            "there is no versoin(…); did you mean version?",
        ),
        ("startsWith('a')", "startsWith is called on a value"),
        (
            "users.exists(u == 'a')",
            "exists takes a name and a condition: write users.exists(user,",
        ),
        (
            "users.exists('u', true)",
            "exists begins with a name for the item",
        ),
        (
            "users.exists(device, true)",
            "device is the name of something else already",
        ),
        (
            "users.exists(u, users.exists(u, true))",
            "u is the name of something else already",
        ),
        (
            "users.exists(u, u)",
            "the condition of exists answers true or false, and this is a text",
        ),
        (
            "os.id.exists(u, true)",
            "exists looks through users, owner.groups, packages, labels",
        ),
        ("'a' in os.name", "column 8: after in comes users, owner.groups"),
        (
            "1 in ['a']",
            "column 1: this is a whole number and stands against a text; write \"1\"",
        ),
        ("1 in [1, 'a']", "column 10: the items of a list are of one kind"),
        ("1 in []", "the list is empty"),
        (
            "has(labels)",
            "has(…) takes a field, as in has(labels.department)",
        ),
        ("has(labels['a-b'])", "write \"a-b\" in labels for other keys"),
        ("has(device)", "has(…) takes a field"),
        ("has(users.x)", "users has no field x"),
        (
            "size(1) == 1",
            "size(…) takes a list or a text, and this is a whole number",
        ),
        (
            "1",
            "an expression of a rule or group answers true or false, and this is a whole number",
        ),
        (
            "true && 1",
            "column 9: && joins true or false, and this is a whole number",
        ),
        ("!1", "column 2: ! takes true or false"),
        ("1 ? true : false", "before ? stands true or false"),
        ("true ? 1 : true", "both values of a choice are of one kind"),
        ("true ? 1", "column 9: a : is missing here"),
        ("a = 1", "column 3: write == to compare"),
        ("true & false", "column 6: write && for \"and\""),
        ("true and false", "column 6: write && for \"and\""),
        ("true OR false", "column 6: write || for \"or\""),
        ("true && not false", "column 9: write ! for \"not\""),
        (
            "device.owner == null",
            "column 17: there is no null; write has(device.owner)",
        ),
        ("1.5 > 1", "column 1: there are only whole numbers"),
        ("1u == 1", "write the number without u"),
        (
            "9223372036854775808 > 1",
            "a whole number is at most 9223372036854775807",
        ),
        (
            "99999999999999999999 > 1",
            "a whole number is at most 9223372036854775807",
        ),
        ("24h > 1", "this is no number; texts stand in quotes"),
        (
            "'a",
            "column 1: the text that begins here has no closing quote on its line",
        ),
        (
            "'a\n' == 'b'",
            "column 1: the text that begins here has no closing quote",
        ),
        (r#"'\q' == 'a'"#, "column 2: there is no such escape"),
        (r#"'\ud800' == 'a'"#, "column 2: the escape names no character"),
        ("b'a' == 'a'", "bytes have no place here"),
        (
            "'a\u{202e}b' == 'a'",
            "column 3: the text has a character that cannot be seen; write it as \\u202e",
        ),
        ("true \u{a0}", "column 6: the character"),
        ("{'a': 1} == 1", "maps and messages have no place here"),
        (
            "timestamp('tomorrow') > now",
            "column 11: \"tomorrow\" is not a time of the form",
        ),
        (
            "duration('1d') > duration('1h')",
            "column 10: \"1d\" is no duration; write \"24h\"",
        ),
        ("(true", "column 6: a ) is missing here: a group ends with )"),
        ("true)", "column 5: ) cannot stand here"),
        (
            "true 'a'",
            "column 6: a text cannot stand here; an operator is missing",
        ),
        (
            "1 +",
            "column 4: the expression ends too early; a value is missing",
        ),
        ("labels.", "after a dot comes a name"),
        ("size(1, 2) == 1", "size(…) takes one argument"),
        (
            "-'a' == 'a'",
            "- stands before a whole number, and this is a text",
        ),
    ] {
        let error = refusal(text);
        assert!(
            error.contains(expected),
            "{text}\n  says  {error}\n  wants {expected}"
        );
    }
}
