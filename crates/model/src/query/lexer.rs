//! A question's words, texts, numbers and signs.

use crate::expression::error::Fault;

/// One part of a question.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A name or a word of the language, as it was written.
    Word(String),
    Text(String),
    Int(i64),
    Real(f64),
    /// `( ) , * = != < <= > >= ;`
    Sign(&'static str),
    End,
}

/// A token and the byte where it begins.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub at: usize,
    pub token: Token,
}

const SIGNS: &[(&str, &str)] = &[
    ("<=", "<="),
    (">=", ">="),
    ("<>", "!="),
    ("!=", "!="),
    ("==", "="),
    ("=", "="),
    ("<", "<"),
    (">", ">"),
    ("(", "("),
    (")", ")"),
    (",", ","),
    ("*", "*"),
    (";", ";"),
];

/// Reads all tokens; the last one is [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Placed>, Fault> {
    let (mut tokens, mut at) = (Vec::new(), 0);
    loop {
        let rest = &text[at..];
        let skipped = rest.len() - rest.trim_start().len();
        at += skipped;
        let rest = &text[at..];
        let Some(first) = rest.chars().next() else {
            tokens.push(Placed {
                at,
                token: Token::End,
            });
            return Ok(tokens);
        };
        let (token, length) = if first.is_ascii_alphabetic() || first == '_' {
            word(rest)
        } else if first.is_ascii_digit() || (first == '-' && starts_number(&rest[1..])) {
            number(at, rest)?
        } else if first == '\'' {
            quoted(at, rest)?
        } else {
            sign(at, rest, first)?
        };
        tokens.push(Placed { at, token });
        at += length;
    }
}

fn starts_number(rest: &str) -> bool {
    rest.starts_with(|character: char| character.is_ascii_digit())
}

fn word(rest: &str) -> (Token, usize) {
    let part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let length = rest.find(|character| !part(character)).unwrap_or(rest.len());
    (Token::Word(rest[..length].to_owned()), length)
}

fn number(at: usize, rest: &str) -> Result<(Token, usize), Fault> {
    let part = |character: char| character.is_ascii_digit() || character == '.';
    let length = rest[1..]
        .find(|character| !part(character))
        .map_or(rest.len(), |length| length + 1);
    let written = &rest[..length];
    if rest[length..].starts_with(|character: char| character.is_ascii_alphabetic() || character == '_') {
        return Err(Fault::new(
            at,
            "a number is followed by a letter; texts, versions and spans stand in quotes: '7d'",
        ));
    }
    let token = if written.contains('.') {
        written
            .parse()
            .ok()
            .filter(|real: &f64| real.is_finite())
            .map(Token::Real)
    } else {
        written.parse().ok().map(Token::Int)
    };
    let token = token.ok_or_else(|| {
        Fault::new(
            at,
            "this is no number that fits; versions stand in quotes: '12.4.1'",
        )
    })?;
    Ok((token, length))
}

fn quoted(at: usize, rest: &str) -> Result<(Token, usize), Fault> {
    let (mut text, mut characters) = (String::new(), rest.char_indices().skip(1).peekable());
    while let Some((index, character)) = characters.next() {
        if character != '\'' {
            text.push(character);
        } else if characters.next_if(|(_, next)| *next == '\'').is_some() {
            text.push('\'');
        } else {
            return Ok((Token::Text(text), index + 1));
        }
    }
    Err(Fault::new(at, "this text has no end; close it with '"))
}

fn sign(at: usize, rest: &str, first: char) -> Result<(Token, usize), Fault> {
    if rest.starts_with("--") || rest.starts_with("/*") {
        return Err(Fault::new(at, "there are no comments in questions"));
    }
    let known = SIGNS.iter().find(|(written, _)| rest.starts_with(written));
    if let Some((written, sign)) = known {
        return Ok((Token::Sign(sign), written.len()));
    }
    Err(match first {
        '"' | '`' | '[' => Fault::new(
            at,
            "names stand without quotes, and texts in single ones: 'linux'",
        ),
        '+' | '-' | '/' | '%' => Fault::new(at, "there is no arithmetic; for times write ago('7d')"),
        '.' => Fault::new(at, "columns stand without the name of their table"),
        '|' | '&' => Fault::new(at, "write OR and AND"),
        _ => Fault::new(at, format_args!("the character {first:?} has no meaning here")),
    })
}
