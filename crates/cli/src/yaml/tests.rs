use proptest::prelude::*;
use serde_json::json;

use super::*;

fn json_of(text: &str) -> Value {
    let node = read(text).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"));
    node.to_json().unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"))
}

/// The line and the words of a refusal.
fn refusal(text: &str) -> (usize, String) {
    let wrong = read(text)
        .and_then(|node| node.to_json())
        .expect_err("it is refused");
    (wrong.line, wrong.detail)
}

#[test]
fn values_mean_what_every_reader_takes_them_for() {
    let text = "a: 1\nb: -2.5\nc: true\nd: ~\ne: text with spaces\nf: \"1\"\ng: 2026-05-01\nh: 10.0.0.1\ni: [1, x]\n\
                j: {k: []}\nl: |\n  two\n  lines\n";
    let expected = json!({
        "a": 1, "b": -2.5, "c": true, "d": null, "e": "text with spaces", "f": "1", "g": "2026-05-01", "h": "10.0.0.1",
        "i": [1, "x"], "j": {"k": []}, "l": "two\nlines\n",
    });
    assert_eq!(json_of(text), expected);
    assert_eq!(
        json_of("{\n\t\"a\": [1,\n\t\t\"b\"]\n}\n"),
        json!({"a": [1, "b"]})
    );
}

#[test]
fn what_readers_disagree_about_is_refused_with_its_line() {
    for (text, line, word) in [
        ("a: 1\nb: yes\n", 2, "true or false"),
        ("a: Off\n", 1, "true or false"),
        ("a:\n  - 010\n", 2, "decimal"),
        ("a: 0x1f\n", 1, "decimal"),
        ("a: 1_000\n", 1, "decimal"),
        ("a: .5\n", 1, "decimal"),
        ("a: .inf\n", 1, "decimal"),
        ("a: +1\n", 1, "decimal"),
    ] {
        let (at, detail) = refusal(text);
        assert!(at == line && detail.contains(word), "{text}: {at}: {detail}");
    }
}

#[test]
fn d5_bombs_and_doubles_are_refused() {
    for (text, line, word) in [
        ("a: &a [x]\nb: *a\n", 1, "anchors"),
        ("a: 1\nb: *a\n", 2, ""),
        ("a: !!str 1\n", 1, "tags"),
        ("a: 1\nb: 2\na: 3\n", 3, "first on line 1"),
        ("a: 1\n<<: {b: 1}\n", 2, "merge"),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("? [a]\n: b\n", 1, "a key is a text"),
        ("", 1, "empty"),
        ("# nothing\n", 1, "empty"),
        ("a: [1\n", 1, ""),
        ("a:\n\t- 1\n", 1, ""),
    ] {
        let (at, detail) = refusal(text);
        assert!(at >= line && detail.contains(word), "{text}: {at}: {detail}");
    }
    for depth in [40, 200] {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(refusal(&deep).1.contains("deep"));
        let deep: String = (0..depth)
            .map(|depth| format!("{}a:\n", " ".repeat(depth)))
            .collect();
        assert!(refusal(&deep).1.contains("deep"));
    }
    for hostile in ["[", "{a: ", "- ", "? ", "[{", "!a ", "&a "] {
        refusal(&hostile.repeat(200_000));
    }
    let long = format!("[{}]", "1,".repeat(NODES_MAX + 1));
    assert!(refusal(&long).1.contains("more than"));
    assert!(refusal(&"x".repeat(FILE_BYTES_MAX + 1)).1.contains("bytes"));
}

#[test]
fn a_version_is_its_text() {
    let node = read("version: 2026.10\nnothing:\nquoted: ''\n").expect("it is YAML");
    let text = |name: &str| node.get(name).and_then(Node::as_text).map(str::to_owned);
    assert_eq!(text("version"), Some("2026.10".to_owned()));
    assert_eq!(text("nothing"), None);
    assert_eq!(text("quoted"), Some(String::new()));
}

#[test]
fn what_is_written_is_for_people_and_pinned() {
    let value = json!({
        "settings": {"passcode.min_length": 12, "banner": "no\nentry: \"x\"", "empty": [], "none": {}, "e": ""},
        "rules": [{"check": {"fact": "os.version", "op": "ge", "value": "12"}, "name": "os"}],
        "words": ["yes", "1", "plain text", "tail ", "\u{202e}", "a: b", [1, [2]]],
        "version": "2026.05",
    });
    let expected = "version: \"2026.05\"\nrules:\n  - name: os\n    check:\n      fact: os.version\n      op: ge\n      \
        value: \"12\"\nsettings:\n  banner: \"no\\nentry: \\\"x\\\"\"\n  e: \"\"\n  empty: []\n  none: {}\n  \
        passcode.min_length: 12\nwords:\n  - \"yes\"\n  - \"1\"\n  - plain text\n  - \"tail \"\n  - \"\\u202e\"\n  - \
        \"a: b\"\n  -\n    - 1\n    -\n      - 2\n";
    let written = write(&Node::of_json(&value));
    assert_eq!(written, expected);
    assert_eq!(json_of(&written), value);
}

fn values() -> impl Strategy<Value = Value> {
    let text = prop_oneof![any::<String>(), "[a-z0-9.:#&*!|>' -]{0,12}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1.0e9..1.0e9f64).prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map("[^<]{0,6}", inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn everything_that_is_written_reads_back(value in values()) {
        let written = write(&Node::of_json(&value));
        prop_assert_eq!(json_of(&written), value, "{}", written);
    }

    #[test]
    fn the_reader_never_panics(text in "[-\\[\\]{}:,#&*!|>'\"%@` \t\n?a0~.]{0,200}") {
        if let Ok(node) = read(&text) {
            let _ = node.to_json();
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in any::<String>()) {
        let _ = read(&text);
    }
}
