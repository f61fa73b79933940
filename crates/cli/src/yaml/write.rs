//! The one way in which files are written: block style, two spaces, quotes where any reader could take a text for
//! something else. The same value is the same bytes.

use std::fmt::Write as _;

use super::{Kind, Node};

/// Writes a mapping or a list as a file.
pub fn write(node: &Node) -> String {
    let mut out = String::new();
    match &node.kind {
        Kind::Scalar { .. } => {
            scalar(&mut out, node);
            out.push('\n');
        }
        Kind::List(items) if items.is_empty() => out.push_str("[]\n"),
        Kind::Map(members) if members.is_empty() => out.push_str("{}\n"),
        Kind::List(_) | Kind::Map(_) => block(&mut out, node, 0, false),
    }
    out
}

/// Writes a mapping or list whose first line may already be indented, behind a `- `.
fn block(out: &mut String, node: &Node, depth: usize, is_started: bool) {
    let mut is_started = is_started;
    let mut indent = |out: &mut String| {
        if !std::mem::take(&mut is_started) {
            out.push_str(&"  ".repeat(depth));
        }
    };
    match &node.kind {
        Kind::Map(members) => {
            for (key, value) in members {
                indent(out);
                text(out, &key.text);
                out.push(':');
                behind(out, value, depth);
            }
        }
        Kind::List(items) => {
            for item in items {
                indent(out);
                out.push('-');
                match &item.kind {
                    Kind::Map(members) if !members.is_empty() => {
                        out.push(' ');
                        block(out, item, depth + 1, true);
                    }
                    Kind::Scalar { .. } | Kind::List(_) | Kind::Map(_) => behind(out, item, depth),
                }
            }
        }
        Kind::Scalar { .. } => {
            indent(out);
            scalar(out, node);
            out.push('\n');
        }
    }
}

/// Writes a value behind `key:` or `-`, on the same line where it has one.
fn behind(out: &mut String, value: &Node, depth: usize) {
    match &value.kind {
        Kind::Scalar { .. } => {
            out.push(' ');
            scalar(out, value);
            out.push('\n');
        }
        Kind::List(items) if items.is_empty() => out.push_str(" []\n"),
        Kind::Map(members) if members.is_empty() => out.push_str(" {}\n"),
        Kind::List(_) | Kind::Map(_) => {
            out.push('\n');
            block(out, value, depth + 1, false);
        }
    }
}

fn scalar(out: &mut String, node: &Node) {
    match &node.kind {
        Kind::Scalar {
            text: word,
            is_quoted: false,
        } => out.push_str(word),
        Kind::Scalar {
            text: words,
            is_quoted: true,
        } => text(out, words),
        Kind::List(_) | Kind::Map(_) => {}
    }
}

/// Writes a text: bare where it can be nothing else to anybody.
fn text(out: &mut String, text: &str) {
    /// Words that mean something to a reader of YAML 1.1 or 1.2.
    const RESERVED: &[&str] = &["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let is_bare = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text
            .chars()
            .all(|one| one.is_ascii_alphanumeric() || matches!(one, '.' | '_' | '/' | '-' | ' '))
        && !text.ends_with(' ')
        && !RESERVED.contains(&text.to_ascii_lowercase().as_str());
    if is_bare {
        out.push_str(text);
        return;
    }
    out.push('"');
    for one in text.chars() {
        match one {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            // Not printable (YAML 1.2.2 section 5.1), line breaks to some, or invisible.
            '\0'..='\u{1f}'
            | '\u{7f}'..='\u{a0}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fffe}'
            | '\u{ffff}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(one));
            }
            one => out.push(one),
        }
    }
    out.push('"');
}
