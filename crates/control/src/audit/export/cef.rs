//! ArcSight Common Event Format, version 0 ("Implementing ArcSight Common Event Format", revision 25): a header of seven
//! fields between bars, then `key=value` pairs. A bar and a backslash are escaped in the header; an equals sign, a backslash
//! and the ends of lines in values.

use muster_trust::entry::LogEntry;

use super::{Family, actor_kind, plain_json, product_version, severity, title};
use crate::access::problem::Problem;

/// Longest custom string of the dictionary, in characters.
const CUSTOM_STRING_CHARS_MAX: usize = 4000;
/// Longest other text field that we write.
const TEXT_CHARS_MAX: usize = 1023;

pub fn event(place: u64, entry: &LogEntry) -> Result<String, Problem> {
    let kind = actor_kind(entry.actor.kind);
    let outcome = match entry.action.ends_with("refused") {
        true => "failure",
        false => "success",
    };
    let detail = plain_json(&entry.detail)?;
    let pairs = [
        ("rt", (entry.at.as_micros() / 1000).to_string()),
        ("externalId", entry.id.to_string()),
        ("cat", category(&entry.action).to_owned()),
        ("act", entry.action.clone()),
        ("outcome", outcome.to_owned()),
        ("suid", entry.actor.id.clone()),
        ("sourceServiceName", kind.to_owned()),
        ("duid", entry.object.id.clone()),
        ("cs1Label", "tenant".to_owned()),
        ("cs1", entry.tenant.to_string()),
        ("cs2Label", "objectKind".to_owned()),
        ("cs2", entry.object.kind.clone()),
        ("cs3Label", "detail".to_owned()),
        ("cs3", detail),
        ("cn1Label", "logPlace".to_owned()),
        ("cn1", place.to_string()),
    ];
    Ok(write(&entry.action, severity(&entry.action), &pairs))
}

/// One event: its header, with a severity from 1 to 5, and its pairs in their order. Long values are cut.
pub fn write(name: &str, severity: u8, pairs: &[(&str, String)]) -> String {
    // Of the five steps to the eleven of CEF, where 9 and 10 are very high.
    let severity = severity * 2;
    let mut line = format!("CEF:0|Muster|Muster|{}", product_version());
    for field in [name.to_owned(), title(name), severity.to_string()] {
        line.push('|');
        line.push_str(&header(&field));
    }
    line.push('|');
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(key, value)| format!("{key}={}", extension(&cut(value, CUSTOM_STRING_CHARS_MAX))))
        .collect();
    line.push_str(&pairs.join(" "));
    line
}

fn category(action: &str) -> &'static str {
    match Family::of(action) {
        Family::Account => "account",
        Family::SignIn => "sign-in",
        Family::Entity => "entity",
        Family::DeviceState => "device-state",
        Family::Alarm => "alarm",
        Family::Call => "call",
    }
}

/// A header field: no end of a line is allowed there at all.
fn header(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in cut(text, TEXT_CHARS_MAX).chars() {
        match character {
            '\\' | '|' => escaped.extend(['\\', character]),
            other if ends_a_line(other) => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A value of the extension.
fn extension(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' | '=' => escaped.extend(['\\', character]),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            other if ends_a_line(other) => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

/// What one reader or another takes for the end of a line, or for the beginning of a text.
fn ends_a_line(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

fn cut(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    let kept: String = text.chars().take(chars_max - 1).collect();
    kept + "…"
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn l8_header_and_values_are_escaped_as_the_specification_says() {
        assert_eq!(header(r"detected a | in \message"), r"detected a \| in \\message");
        assert_eq!(header("a\nb=c"), "a b=c");
        assert_eq!(extension(r"a|b=c\d"), r"a|b\=c\\d");
        assert_eq!(extension("one\ntwo\rthree\u{2028}four"), r"one\ntwo\rthree four");
        assert_eq!(cut("äöü", 2), "ä…");
    }
}
