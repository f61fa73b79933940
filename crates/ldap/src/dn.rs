//! Distinguished names (RFC 4514), as far as two spellings of one are to be found equal.

/// Bytes of a name that is compared by its parts.
pub const NAME_BYTES_MAX: usize = 4 * 1024;

/// A text that is the same for every spelling of a name: case, spaces around separators, several spaces, escapes, and the
/// order inside of a part of several values make no difference. What is no name is compared as it stands, in lower case, and so
/// is one with a value that is no text: two such values are never taken for one.
///
/// Attribute types are compared by their words: `cn` and `2.5.4.3` are two.
pub fn dn_key(name: &str) -> String {
    if name.len() > NAME_BYTES_MAX {
        return name.to_lowercase();
    }
    parts(name).unwrap_or_else(|| name.trim().to_lowercase())
}

fn parts(name: &str) -> Option<String> {
    let mut names: Vec<Vec<String>> = vec![Vec::new()];
    let mut rest = name;
    if name.trim().is_empty() {
        return Some(String::new());
    }
    loop {
        let (kind, after) = rest.split_once('=')?;
        let kind = kind.trim();
        let is_word = |kind: &str| {
            !kind.is_empty()
                && kind
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b';'))
        };
        if !is_word(kind) {
            return None;
        }
        let (value, separator, after) = value(after)?;
        let pair = format!("{}={}", kind.to_ascii_lowercase(), folded(&value));
        names.last_mut()?.push(pair);
        match separator {
            None => break,
            Some('+') => {}
            Some(_) => names.push(Vec::new()),
        }
        rest = after;
    }
    let names: Vec<String> = names
        .into_iter()
        .map(|mut pairs| {
            pairs.sort_unstable();
            pairs.join("\u{1}")
        })
        .collect();
    Some(names.join("\u{2}"))
}

/// A value with its escapes undone, what ended it, and what follows.
fn value(text: &str) -> Option<(String, Option<char>, &str)> {
    let text = text.trim_start_matches(' ');
    let mut bytes: Vec<u8> = Vec::new();
    // Spaces at the end count only where they are escaped.
    let mut kept = 0;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            ',' | ';' | '+' => {
                bytes.truncate(kept);
                let after = text.get(at + c.len_utf8()..)?;
                return Some((String::from_utf8(bytes).ok()?, Some(c), after));
            }
            '\\' => {
                let (_, next) = chars.next()?;
                match next.to_digit(16) {
                    Some(high) => {
                        let low = chars.next()?.1.to_digit(16)?;
                        bytes.push(u8::try_from(high * 16 + low).ok()?);
                    }
                    None => put(&mut bytes, next),
                }
                kept = bytes.len();
            }
            other => {
                put(&mut bytes, other);
                if other != ' ' {
                    kept = bytes.len();
                }
            }
        }
    }
    bytes.truncate(kept);
    Some((String::from_utf8(bytes).ok()?, None, ""))
}

fn put(bytes: &mut Vec<u8>, c: char) {
    let mut buffer = [0; 4];
    bytes.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
}

/// In lower case, with single spaces; separators of the key cannot come from a value.
fn folded(value: &str) -> String {
    let words: Vec<&str> = value.split(' ').filter(|word| !word.is_empty()).collect();
    words
        .join(" ")
        .to_lowercase()
        .replace(['\u{1}', '\u{2}'], "\u{fffd}")
}
