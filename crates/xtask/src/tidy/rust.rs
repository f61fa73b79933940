//! A small scanner for Rust source: which bytes are code, which are comment, which are text in quotes.
//!
//! Rules: The Rust Reference, "Comments" and "Tokens" (string, byte string, C string, raw and character literals).

/// What a piece of source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Code,
    Comment,
    /// The inside of a string literal, without its quotes.
    Text,
}

/// A run of bytes of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    pub kind: Kind,
    pub text: &'a str,
    /// The line that the piece starts on, from 1.
    pub line: usize,
}

/// Splits source into pieces. Source that does not parse still ends in some split; the compiler judges it.
pub fn scan(source: &str) -> Vec<Piece<'_>> {
    let mut scanner = Scanner {
        source,
        bytes: source.as_bytes(),
        at: 0,
        pieces: Vec::new(),
        line: 1,
    };
    scanner.run();
    scanner.pieces
}

/// The source with comments and texts blanked out, same length and lines.
pub fn code_only(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut at = 0;
    let blank = |part: &str| {
        part.bytes()
            .map(|byte| if byte == b'\n' { '\n' } else { ' ' })
            .collect::<String>()
    };
    for piece in scan(source) {
        let start = piece.text.as_ptr() as usize - source.as_ptr() as usize;
        code.push_str(&blank(&source[at..start]));
        match piece.kind {
            Kind::Code => code.push_str(piece.text),
            Kind::Comment | Kind::Text => code.push_str(&blank(piece.text)),
        }
        at = start + piece.text.len();
    }
    code.push_str(&blank(&source[at..]));
    code
}

struct Scanner<'a> {
    source: &'a str,
    bytes: &'a [u8],
    at: usize,
    pieces: Vec<Piece<'a>>,
    line: usize,
}

impl<'a> Scanner<'a> {
    fn run(&mut self) {
        let mut code_from = 0;
        while self.at < self.bytes.len() {
            let rest = &self.bytes[self.at..];
            if rest.starts_with(b"//") {
                self.push(Kind::Code, code_from, self.at);
                let end = rest
                    .iter()
                    .position(|byte| *byte == b'\n')
                    .map_or(self.bytes.len(), |n| self.at + n);
                self.push(Kind::Comment, self.at, end);
                (self.at, code_from) = (end, end);
            } else if rest.starts_with(b"/*") {
                self.push(Kind::Code, code_from, self.at);
                let end = self.block_comment_end();
                self.push(Kind::Comment, self.at, end);
                (self.at, code_from) = (end, end);
            } else if let Some((open, hashes)) = self.raw_text_start() {
                self.push(Kind::Code, code_from, self.at + open);
                self.at += open;
                code_from = self.take_raw_text(hashes);
            } else if rest[0] == b'"' {
                self.push(Kind::Code, code_from, self.at + 1);
                self.at += 1;
                code_from = self.take_text();
            } else if rest[0] == b'\'' {
                self.at += character_length(rest);
            } else {
                self.at += 1;
            }
        }
        self.push(Kind::Code, code_from, self.bytes.len());
    }

    fn push(&mut self, kind: Kind, from: usize, to: usize) {
        let (Some(text), true) = (self.source.get(from..to), from < to || kind == Kind::Text) else {
            return;
        };
        self.pieces.push(Piece {
            kind,
            text,
            line: self.line,
        });
        self.line += text.bytes().filter(|byte| *byte == b'\n').count();
    }

    fn block_comment_end(&self) -> usize {
        let mut depth = 0_usize;
        let mut at = self.at;
        while at < self.bytes.len() {
            if self.bytes[at..].starts_with(b"/*") {
                depth += 1;
                at += 2;
            } else if self.bytes[at..].starts_with(b"*/") {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            } else {
                at += 1;
            }
        }
        self.bytes.len()
    }

    /// `r"`, `r#"`, `br"`, `cr#"` …: the length up to and with the quote, and the number of hashes.
    fn raw_text_start(&self) -> Option<(usize, usize)> {
        let before = self.at.checked_sub(1).map(|at| self.bytes[at]);
        if before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return None;
        }
        let rest = &self.bytes[self.at..];
        let prefix = if rest.starts_with(b"r") {
            1
        } else if rest.starts_with(b"br") || rest.starts_with(b"cr") {
            2
        } else {
            return None;
        };
        let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
        (rest.get(prefix + hashes) == Some(&b'"')).then_some((prefix + hashes + 1, hashes))
    }

    /// Pushes the text that starts here and returns where code goes on: at the closing quote.
    fn take_raw_text(&mut self, hashes: usize) -> usize {
        let closing = format!("\"{}", "#".repeat(hashes));
        let end = self.source[self.at..]
            .find(&closing)
            .map_or(self.bytes.len(), |length| self.at + length);
        self.push(Kind::Text, self.at, end);
        self.at = (end + closing.len()).min(self.bytes.len());
        end
    }

    fn take_text(&mut self) -> usize {
        let mut end = self.at;
        while end < self.bytes.len() && self.bytes[end] != b'"' {
            end += if self.bytes[end] == b'\\' { 2 } else { 1 };
        }
        let end = end.min(self.bytes.len());
        self.push(Kind::Text, self.at, end);
        self.at = (end + 1).min(self.bytes.len());
        end
    }
}

/// The length of a character literal that starts here, or 1 for the quote of a lifetime.
fn character_length(rest: &[u8]) -> usize {
    match rest.get(1) {
        Some(b'\\') => rest
            .iter()
            .skip(3)
            .position(|byte| *byte == b'\'')
            .map_or(1, |n| n + 4),
        Some(_) => {
            let character = rest[1..]
                .iter()
                .skip(1)
                .take_while(|byte| **byte & 0xC0 == 0x80)
                .count()
                + 1;
            if rest.get(1 + character) == Some(&b'\'') {
                character + 2
            } else {
                1
            }
        }
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<&str> {
        scan(source)
            .into_iter()
            .filter(|piece| piece.kind == Kind::Text)
            .map(|piece| piece.text)
            .collect()
    }

    #[test]
    fn texts_of_every_kind_are_found() {
        assert_eq!(
            texts(r##"f("a\"b", r"c\", br#"d"e"#, b"f", c"g", "")"##),
            [r#"a\"b"#, r"c\", r#"d"e"#, "f", "g", ""]
        );
    }

    #[test]
    fn characters_and_lifetimes_open_no_text() {
        assert_eq!(
            texts(r#"fn f<'a>(x: &'a str) { g('"', '\'', '\u{22}', 'é', "t") }"#),
            ["t"]
        );
    }

    #[test]
    fn comments_hide_quotes_and_texts_hide_comments() {
        assert_eq!(
            texts("// \"a\"\n/* \"b\" /* \"c\" */ */ \"d // e\" // f"),
            ["d // e"]
        );
    }

    #[test]
    fn code_keeps_its_lines_and_length() {
        let source = "use a; // crate::b\nlet t = \"crate::c\n\"; use crate::d;";
        let code = code_only(source);
        assert_eq!(code.len(), source.len());
        assert_eq!(code.lines().count(), 3);
        assert!(!code.contains("crate::b") && !code.contains("crate::c") && code.contains("crate::d"));
    }

    #[test]
    fn pieces_know_their_lines() {
        let pieces = scan("a\nb \"c\nd\" e\n// f");
        let lines: Vec<(Kind, usize)> = pieces.iter().map(|piece| (piece.kind, piece.line)).collect();
        assert_eq!(
            lines,
            [
                (Kind::Code, 1),
                (Kind::Text, 2),
                (Kind::Code, 3),
                (Kind::Comment, 4)
            ]
        );
    }

    #[test]
    fn unfinished_source_ends() {
        for source in ["\"", "\"\\", "r#\"", "/*", "'", "'\\", "b'", "/"] {
            scan(source);
            assert_eq!(code_only(source).len(), source.len());
        }
    }
}
