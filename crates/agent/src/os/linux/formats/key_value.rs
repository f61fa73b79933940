//! `key = value` and `KEY value` files: pwquality.conf(5), faillock.conf(5), pwhistory.conf(5), login.defs(5),
//! /etc/environment and shell-like defaults files. In all of them the last active line of a key wins.

/// How a file writes its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// `key = value`, `#` starts a comment anywhere; a bare `key` is a switch.
    Spaced,
    /// `KEY value`, `#` starts a comment at the start of a line only.
    Columns,
    /// `KEY=value` or `KEY="value"`, optionally after `export `; no spaces around `=`.
    Assignment,
}

/// Value of a key; a switch without a value is the empty text.
pub(crate) fn get(text: &str, style: Style, key: &str) -> Option<String> {
    text.lines()
        .rev()
        .filter_map(|line| parse(line, style))
        .find(|(name, _)| *name == key)
        .map(|(_, v)| v)
}

/// The text with a key set: the line that counts is changed in place, or one is added at the end.
pub(crate) fn set(text: &str, style: Style, key: &str, value: &str) -> String {
    let line = match style {
        Style::Spaced => format!("{key} = {value}"),
        Style::Columns => format!("{key}\t{value}"),
        Style::Assignment => format!("{key}={}", quoted(value)),
    };
    replace_last(text, style, key, &line)
}

fn replace_last(text: &str, style: Style, key: &str, line: &str) -> String {
    let wanted = parse(line, style).map(|(_, value)| value);
    if get(text, style, key) == wanted {
        return text.to_owned();
    }
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let last = lines
        .iter()
        .rposition(|old| parse(old, style).is_some_and(|(name, _)| name == key));
    let mut out = String::with_capacity(text.len() + line.len() + 2);
    for (index, old) in lines.iter().enumerate() {
        if Some(index) == last {
            out.push_str(line);
            out.push_str(if old.ends_with('\n') { "\n" } else { "" });
        } else {
            out.push_str(old);
        }
    }
    if last.is_none() {
        if !out.is_empty() && !out.ends_with('\n') {
            out.push('\n');
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

fn parse(line: &str, style: Style) -> Option<(&str, String)> {
    let line = line.trim();
    match style {
        Style::Spaced => {
            let line = line.split('#').next().unwrap_or_default().trim();
            let end = line
                .find(|c: char| c == '=' || c.is_whitespace())
                .unwrap_or(line.len());
            let value = line[end..]
                .trim_start()
                .strip_prefix('=')
                .unwrap_or(line[end..].trim_start());
            (end > 0).then(|| (&line[..end], value.trim().to_owned()))
        }
        Style::Columns => {
            let (name, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let active = !name.is_empty() && !name.starts_with('#');
            active.then(|| (name, value.trim().trim_matches('"').to_owned()))
        }
        Style::Assignment => {
            let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
            let (name, value) = line.split_once('=')?;
            let active = !name.is_empty() && !name.starts_with('#') && !name.contains(char::is_whitespace);
            active.then(|| (name, unquoted(value)))
        }
    }
}

fn unquoted(value: &str) -> String {
    let value = value.trim();
    for quote in ['"', '\''] {
        if let Some(inner) = value.strip_prefix(quote) {
            return inner.split(quote).next().unwrap_or_default().to_owned();
        }
    }
    value.split(" #").next().unwrap_or_default().trim().to_owned()
}

/// Quotes only what needs it; callers have refused quotes and control characters.
fn quoted(value: &str) -> String {
    let plain = value
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "_./:@%+,-[]".contains(c));
    if plain && !value.is_empty() {
        value.to_owned()
    } else {
        format!("\"{value}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check_set(before: &str, style: Style, key: &str, value: &str, after: &str) {
        let once = set(before, style, key, value);
        assert_eq!(once, after);
        assert_eq!(
            set(&once, style, key, value),
            after,
            "a second time changes nothing"
        );
        assert_eq!(get(&once, style, key).as_deref(), Some(value));
    }

    #[test]
    fn the_line_that_counts_is_changed_and_the_rest_kept() {
        check_set(
            "# minlen = 8\nminlen=6 # old\n",
            Style::Spaced,
            "minlen",
            "12",
            "# minlen = 8\nminlen = 12\n",
        );
        check_set(
            "minlen 5\nminlen = 6\nx",
            Style::Spaced,
            "minlen",
            "12",
            "minlen 5\nminlen = 12\nx",
        );
        check_set("# c", Style::Spaced, "minlen", "12", "# c\nminlen = 12\n");
        check_set(
            "PASS_MAX_DAYS   99999\nUMASK 022\n",
            Style::Columns,
            "PASS_MAX_DAYS",
            "90",
            "PASS_MAX_DAYS\t90\nUMASK 022\n",
        );
        check_set(
            "PATH=\"/bin\"\n",
            Style::Assignment,
            "http_proxy",
            "http://p:3128",
            "PATH=\"/bin\"\nhttp_proxy=http://p:3128\n",
        );
        check_set(
            "PARTICIPATE=\"yes\"\n",
            Style::Assignment,
            "PARTICIPATE",
            "no",
            "PARTICIPATE=no\n",
        );
    }

    #[test]
    fn an_equal_value_is_left_as_it_is_written() {
        assert_eq!(
            set("minlen   =   12 # why\n", Style::Spaced, "minlen", "12"),
            "minlen   =   12 # why\n"
        );
    }

    #[test]
    fn switches_and_comments_are_told_apart() {
        assert_eq!(
            get("enforce_for_root\n", Style::Spaced, "enforce_for_root").as_deref(),
            Some("")
        );
        assert_eq!(
            get("#enforce_for_root\n", Style::Spaced, "enforce_for_root"),
            None
        );
        assert_eq!(
            get("export A='b c'\n", Style::Assignment, "A").as_deref(),
            Some("b c")
        );
    }

    proptest! {
        #[test]
        fn what_was_set_is_read_and_other_keys_stay(text in "(?s)([a-c#= \"\n]{0,60})", value in "[0-9]{1,4}") {
            for style in [Style::Spaced, Style::Columns, Style::Assignment] {
                let after = set(&text, style, "k", &value);
                prop_assert_eq!(get(&after, style, "k"), Some(value.clone()));
                prop_assert_eq!(get(&after, style, "a"), get(&text, style, "a"));
            }
        }
    }
}
