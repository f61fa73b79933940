//! Text to tokens (cel-spec, "Syntax").

use super::error::Fault;

/// A token and the byte offset where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) at: usize,
    pub(super) kind: TokenKind,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum TokenKind {
    Name(String),
    /// The digits of a whole number without its sign.
    Int(u64),
    Text(String),
    Symbol(&'static str),
    End,
}

/// Symbols, a longer one before its beginning.
const SYMBOLS: &[&str] = &[
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "+", "-", "*", "/", "%", "?", ":", ".", ",", "(", ")",
    "[", "]",
];

/// What is often written for something else.
const MISTAKES: &[(&str, &str)] = &[
    ("=", "write == to compare"),
    ("&", "write && for \"and\""),
    ("|", "write || for \"or\""),
    (
        "{",
        "maps and messages have no place here; lists are written [\"a\", \"b\"]",
    ),
    (
        "}",
        "maps and messages have no place here; lists are written [\"a\", \"b\"]",
    ),
    (";", "an expression is one condition; join several with &&"),
    ("#", "comments begin with //"),
    ("`", "write labels[\"a-b\"] for a name that is no plain word"),
];

/// Splits a text into tokens; the last one is [`TokenKind::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Fault> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blank();
        let at = lexer.at;
        let kind = lexer.token()?;
        let is_end = kind == TokenKind::End;
        tokens.push(Token { at, kind });
        if is_end {
            return Ok(tokens);
        }
    }
}

/// Characters that look like nothing, or turn what follows around: a reader would see another expression.
pub(crate) fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn fault<T>(&self, detail: impl std::fmt::Display) -> Result<T, Fault> {
        Err(Fault::new(self.at, detail))
    }

    /// Spaces and `//` comments.
    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']);
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    fn token(&mut self) -> Result<TokenKind, Fault> {
        let Some(first) = self.peek() else {
            return Ok(TokenKind::End);
        };
        if first.is_ascii_digit() {
            return self.int();
        }
        if let Some(quote) = self.quote(0) {
            self.at += 1;
            return self.text(quote, Escapes::Read);
        }
        if let ('r' | 'R', Some(quote)) = (first, self.quote(1)) {
            self.at += 2;
            return self.text(quote, Escapes::Keep);
        }
        if let ('b' | 'B', Some(_)) = (first, self.quote(1)) {
            return self.fault("bytes have no place here; write the text without b");
        }
        if first.is_ascii_alphabetic() || first == '_' {
            return Ok(self.name());
        }
        if let Some(symbol) = SYMBOLS.iter().find(|symbol| self.rest().starts_with(**symbol)) {
            self.at += symbol.len();
            return Ok(TokenKind::Symbol(symbol));
        }
        if let Some((_, advice)) = MISTAKES.iter().find(|(wrong, _)| self.rest().starts_with(wrong)) {
            return self.fault(advice);
        }
        self.fault(format_args!(
            "the character {} has no place here; texts stand in quotes",
            first.escape_debug()
        ))
    }

    fn quote(&self, skip: usize) -> Option<u8> {
        let byte = *self.rest().as_bytes().get(skip)?;
        (byte == b'"' || byte == b'\'').then_some(byte)
    }

    fn name(&mut self) -> TokenKind {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        self.at += end;
        match &rest[..end] {
            "in" => TokenKind::Symbol("in"),
            name => TokenKind::Name(name.to_owned()),
        }
    }

    fn int(&mut self) -> Result<TokenKind, Fault> {
        let rest = self.rest();
        let (digits, radix) = match rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
            Some(digits) => (digits, 16),
            None => (rest, 10),
        };
        let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
        let (digits, after) = digits.split_at(end);
        let mut follows = after.chars();
        match (follows.next(), follows.next()) {
            (Some('.'), Some(next)) if next.is_ascii_digit() => {
                return self.fault("there are only whole numbers; for a version write version(\"12.5\")");
            }
            (Some('u' | 'U'), _) => return self.fault("write the number without u"),
            (Some(next), _) if next.is_ascii_alphabetic() || next == '_' => {
                return self.fault("this is no number; texts stand in quotes, as in \"24h\"");
            }
            _ => {}
        }
        let Ok(number) = u64::from_str_radix(digits, radix) else {
            return self.fault(format_args!("a whole number is at most {}", i64::MAX));
        };
        self.at = self.text.len() - after.len();
        Ok(TokenKind::Int(number))
    }

    /// The rest of a text after its opening quote.
    fn text(&mut self, quote: u8, escapes: Escapes) -> Result<TokenKind, Fault> {
        let opened = self.at;
        let mut read = String::new();
        loop {
            match self.peek() {
                None | Some('\n' | '\r') => {
                    let detail = "the text that begins here has no closing quote on its line";
                    return Err(Fault::new(opened - 1, detail));
                }
                Some(c) if c == char::from(quote) => {
                    self.at += 1;
                    return Ok(TokenKind::Text(read));
                }
                Some('\\') if escapes == Escapes::Read => {
                    read.push(self.escape()?);
                }
                Some(c) if is_deceptive(c) => {
                    return self.fault(format_args!(
                        "the text has a character that cannot be seen; write it as \\u{:04x}",
                        u32::from(c)
                    ));
                }
                Some(c) => {
                    read.push(c);
                    self.at += c.len_utf8();
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, Fault> {
        let rest = self.rest();
        let known = rest[1..].chars().next();
        let plain = match known {
            Some(c @ ('\\' | '"' | '\'' | '`' | '?')) => Some(c),
            Some('n') => Some('\n'),
            Some('r') => Some('\r'),
            Some('t') => Some('\t'),
            Some('a') => Some('\u{7}'),
            Some('b') => Some('\u{8}'),
            Some('f') => Some('\u{c}'),
            Some('v') => Some('\u{b}'),
            _ => None,
        };
        if let Some(plain) = plain {
            self.at += 2;
            return Ok(plain);
        }
        let (skip, count, radix) = match known {
            Some('x' | 'X') => (2, 2, 16),
            Some('u') => (2, 4, 16),
            Some('U') => (2, 8, 16),
            Some('0'..='3') => (1, 3, 8),
            _ => return self.fault("there is no such escape; write \\\\ for a backslash"),
        };
        let digits = rest.get(skip..skip + count);
        let plain = |digits: &&str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = digits
            .filter(plain)
            .and_then(|digits| u32::from_str_radix(digits, radix).ok())
            .and_then(char::from_u32);
        match number {
            Some(c) => {
                self.at += skip + count;
                Ok(c)
            }
            None => self.fault("the escape names no character; write it as in \\u00e9"),
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Escapes {
    Read,
    /// A raw text: a backslash is a backslash.
    Keep,
}
