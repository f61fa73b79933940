//! Texts that want to exhaust something.

use proptest::prelude::*;

use super::*;

fn refusal(text: &str) -> String {
    match Expression::parse(text) {
        Ok(_) => panic!("a text of {} bytes was read", text.len()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_bound_is_told_by_its_number() {
    let million = 1_000_000;
    assert!(refusal(&"a".repeat(million)).contains("longer than 2048 bytes"));
    assert!(refusal(&"\u{1f600}".repeat(million)).contains("longer than 2048 bytes"));
    for bomb in [
        "(",
        "[",
        "!",
        "-",
        "{",
        "\"",
        "a.",
        "a[",
        "size(",
        "true?",
        "true?true:",
    ] {
        let text = bomb.repeat(TEXT_BYTES_MAX / bomb.len());
        refusal(&text);
    }
    for (open, close) in [("(", ")"), ("!(", ")"), ("size([", "]) == 1"), ("-(", ")")] {
        let text = format!("{}true{}", open.repeat(100), close.repeat(100));
        assert!(refusal(&text).contains("nested deeper than 32 levels"), "{text}");
    }
    let chain = |operator: &str, count: usize| vec!["true"; count].join(operator);
    assert!(
        Expression::parse(&chain("&&", 200)).is_ok(),
        "a chain is one level"
    );
    let sum = format!("{} == 1", vec!["1"; 300].join("+"));
    assert!(refusal(&sum).contains("nested deeper than 32 levels"));
    let many = format!("1 in [{}]", vec!["1"; LIST_ITEMS_MAX + 1].join(","));
    assert!(refusal(&many).contains("a list has at most 128 items"));
    let parts = vec!["1==1"; 340].join("||");
    assert!(refusal(&parts).contains("at most 512 parts"));
}

#[test]
fn work_is_bounded_before_it_is_done() {
    let once = r#"packages.exists(a, a.startsWith("x"))"#;
    assert!(parse(once).cost() < COST_MAX);
    let squared = r#"packages.exists(a, packages.exists(b, a == b))"#;
    assert!(refusal(squared).contains("and may take 2000000; look through long lists once"));
    let lookups = vec!["has(packages.a)"; 119].join("||");
    assert!(refusal(&lookups).contains("and may take 2000000"));
    assert!(parse("users.exists(a, a in owner.groups)").cost() < COST_MAX);
    let users = "users.exists(a, users.exists(b, a == b))";
    assert!(refusal(users).contains("and may take 2000000"));
    assert!(parse("labels.exists(a, owner.groups.exists(b, a == b))").cost() < COST_MAX);
}

#[test]
fn the_canonical_form_is_bounded_as_well() {
    // Each bell is two bytes here and six in the canonical form.
    let text = format!("'{}' == 'a'", r"\a".repeat(600));
    assert!(text.len() < TEXT_BYTES_MAX && refusal(&text).contains("longer than 2048 bytes"));
}

/// Pieces of the language in any order.
const PIECES: &[&str] = &[
    "true",
    "false",
    "1",
    "0",
    "-",
    "!",
    "(",
    ")",
    "[",
    "]",
    ",",
    ".",
    "?",
    ":",
    "&&",
    "||",
    "==",
    "!=",
    "<",
    ">=",
    " in ",
    "+",
    "*",
    "/",
    "%",
    "\"a\"",
    "'b'",
    "users",
    "labels",
    "packages",
    "owner.groups",
    "device.platform",
    "os.version",
    "now",
    "has(labels.a)",
    "labels.a",
    "labels[\"a-b\"]",
    "version(",
    "\"1\"",
    "timestamp(",
    "duration(",
    "size(",
    ".exists(x,",
    ".all(y,",
    "x",
    "y",
    ".startsWith(",
    "null",
    "\\",
    "\"",
    "é",
    "\n",
    "//",
    "r'",
    "0x1",
    "99999999999999999999",
];

proptest! {
    #[test]
    fn reading_any_text_never_panics(text in "\\PC{0,60}|[ -~\\n]{0,120}") {
        let _ = Expression::parse(&text);
    }

    #[test]
    fn what_is_read_from_pieces_reads_back_and_answers(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..40),
    ) {
        if let Ok(expression) = Expression::parse(&pieces.concat()) {
            let canonical = expression.to_string();
            prop_assert_eq!(Expression::parse(&canonical), Ok(expression.clone()), "{}", canonical);
            let known = known();
            for subject in [known.subject(), Subject::of_facts(Platform::Linux, None)] {
                let _ = expression.evaluate(&subject, NOW);
            }
        }
    }

    #[test]
    fn flipped_bytes_never_panic(at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        let text = r#"has(labels.a) && packages["openssl"] >= version("3.0") && users.all(u, u in ["root", "\u00e9"])"#;
        let mut bytes = text.as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = Expression::parse(&String::from_utf8_lossy(&bytes));
    }
}
