//! Search filters as text (RFC 4515) and as bytes (RFC 4511, section 4.5.1.7).

use crate::ber::{OCTET_STRING, put};

/// Bytes of a filter's text.
pub const FILTER_BYTES_MAX: usize = 8 * 1024;
const DEPTH_MAX: usize = 16;

/// A filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Not(Box<Filter>),
    Equal(String, Vec<u8>),
    AtLeast(String, Vec<u8>),
    AtMost(String, Vec<u8>),
    Approximate(String, Vec<u8>),
    Present(String),
    /// What it begins with, what comes in between, what it ends with.
    Substrings(String, Option<Vec<u8>>, Vec<Vec<u8>>, Option<Vec<u8>>),
    /// By a matching rule: the rule, the attribute, the value, whether names of the entry count.
    Extensible(Option<String>, Option<String>, Vec<u8>, bool),
}

/// What is wrong with a filter's text, and at which byte.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}, at byte {at} of the filter")]
pub struct FilterError {
    pub at: usize,
    pub what: &'static str,
}

/// A value as it stands in a filter's text: nothing of it can be read as a part of the filter (RFC 4515, section 3).
pub fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '*' | '(' | ')' | '\\' | '\0' => escaped.push_str(&format!("\\{:02x}", u32::from(c))),
            other => escaped.push(other),
        }
    }
    escaped
}

impl Filter {
    /// Reads a filter. Brackets around the whole may be left out.
    ///
    /// # Errors
    /// It is not written as RFC 4515 says, or is too long or too deep.
    pub fn parse(text: &str) -> Result<Filter, FilterError> {
        if text.len() > FILTER_BYTES_MAX {
            return Err(FilterError {
                at: FILTER_BYTES_MAX,
                what: "the filter is longer than 8 KiB",
            });
        }
        let mut parser = Parser {
            bytes: text.as_bytes(),
            at: 0,
        };
        parser.skip_spaces();
        let filter = match parser.peek() {
            Some(b'(') => parser.filter(0)?,
            _ => parser.item()?,
        };
        parser.skip_spaces();
        match parser.at == text.len() {
            true => Ok(filter),
            false => Err(parser.wrong("something follows the end")),
        }
    }

    /// Appends the filter's bytes.
    pub fn encode(&self, into: &mut Vec<u8>) {
        let mut content = Vec::new();
        let tag = match self {
            Filter::And(all) => {
                all.iter().for_each(|one| one.encode(&mut content));
                0xa0
            }
            Filter::Or(any) => {
                any.iter().for_each(|one| one.encode(&mut content));
                0xa1
            }
            Filter::Not(inner) => {
                inner.encode(&mut content);
                0xa2
            }
            Filter::Equal(name, value) => pair(&mut content, name, value, 0xa3),
            Filter::AtLeast(name, value) => pair(&mut content, name, value, 0xa5),
            Filter::AtMost(name, value) => pair(&mut content, name, value, 0xa6),
            Filter::Approximate(name, value) => pair(&mut content, name, value, 0xa8),
            Filter::Present(name) => {
                put(into, 0x87, name.as_bytes());
                return;
            }
            Filter::Substrings(name, first, between, last) => {
                put(&mut content, OCTET_STRING, name.as_bytes());
                let mut parts = Vec::new();
                let first = first.iter().map(|part| (0x80, part));
                let between = between.iter().map(|part| (0x81, part));
                let last = last.iter().map(|part| (0x82, part));
                first
                    .chain(between)
                    .chain(last)
                    .for_each(|(tag, part)| put(&mut parts, tag, part));
                put(&mut content, 0x30, &parts);
                0xa4
            }
            Filter::Extensible(rule, name, value, has_dn) => {
                if let Some(rule) = rule {
                    put(&mut content, 0x81, rule.as_bytes());
                }
                if let Some(name) = name {
                    put(&mut content, 0x82, name.as_bytes());
                }
                put(&mut content, 0x83, value);
                if *has_dn {
                    put(&mut content, 0x84, &[0xff]);
                }
                0xa9
            }
        };
        put(into, tag, &content);
    }
}

fn pair(content: &mut Vec<u8>, name: &str, value: &[u8], tag: u8) -> u8 {
    put(content, OCTET_STRING, name.as_bytes());
    put(content, OCTET_STRING, value);
    tag
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn wrong(&self, what: &'static str) -> FilterError {
        FilterError { at: self.at, what }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_spaces(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8, what: &'static str) -> Result<(), FilterError> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(self.wrong(what))
    }

    /// A filter in its brackets.
    fn filter(&mut self, depth: usize) -> Result<Filter, FilterError> {
        if depth == DEPTH_MAX {
            return Err(self.wrong("it is nested too deep"));
        }
        self.take(b'(', "a bracket is missing")?;
        self.skip_spaces();
        let filter = match self.peek() {
            Some(b'&') => Filter::And(self.list(depth)?),
            Some(b'|') => Filter::Or(self.list(depth)?),
            Some(b'!') => {
                self.at += 1;
                self.skip_spaces();
                let inner = self.filter(depth + 1)?;
                self.skip_spaces();
                Filter::Not(Box::new(inner))
            }
            _ => self.item()?,
        };
        self.take(b')', "a closing bracket is missing")?;
        Ok(filter)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Filter>, FilterError> {
        self.at += 1;
        let mut filters = Vec::new();
        loop {
            self.skip_spaces();
            if self.peek() != Some(b'(') {
                return Ok(filters);
            }
            filters.push(self.filter(depth + 1)?);
        }
    }

    /// A comparison, up to a closing bracket or the end.
    fn item(&mut self) -> Result<Filter, FilterError> {
        let start = self.at;
        while self
            .peek()
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b';' | b'_'))
        {
            self.at += 1;
        }
        let name = self.bytes.get(start..self.at).unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        let operator = self.peek();
        if name.is_empty() && operator != Some(b':') {
            return Err(self.wrong("an attribute's name is missing"));
        }
        match operator {
            Some(b'=') => {
                self.at += 1;
                self.equal(name)
            }
            Some(b'>' | b'<' | b'~') => {
                self.at += 1;
                self.take(b'=', "`=` is missing")?;
                let value = self.whole_value()?;
                Ok(match operator {
                    Some(b'>') => Filter::AtLeast(name, value),
                    Some(b'<') => Filter::AtMost(name, value),
                    _ => Filter::Approximate(name, value),
                })
            }
            Some(b':') => self.extensible(name),
            _ => Err(self.wrong("an operator is missing: =, >=, <=, ~= or :=")),
        }
    }

    fn extensible(&mut self, name: String) -> Result<Filter, FilterError> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte != b'=' && byte != b')') {
            self.at += 1;
        }
        let middle = self.bytes.get(start..self.at).unwrap_or_default();
        let middle = String::from_utf8_lossy(middle).into_owned();
        self.take(b'=', "`:=` is missing")?;
        let inner = middle
            .strip_suffix(':')
            .ok_or_else(|| self.wrong("`:=` is missing"))?;
        let (mut has_dn, mut rule) = (false, None);
        for part in inner.split(':').filter(|part| !part.is_empty()) {
            let is_word = part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
            if part.eq_ignore_ascii_case("dn") && !has_dn && rule.is_none() {
                has_dn = true;
            } else if rule.is_none() && is_word {
                rule = Some(part.to_owned());
            } else {
                return Err(self.wrong("it names more than one matching rule"));
            }
        }
        let name = (!name.is_empty()).then_some(name);
        if name.is_none() && rule.is_none() {
            return Err(self.wrong("neither an attribute nor a matching rule is named"));
        }
        Ok(Filter::Extensible(rule, name, self.whole_value()?, has_dn))
    }

    fn whole_value(&mut self) -> Result<Vec<u8>, FilterError> {
        let value = self.value()?;
        match self.peek() {
            Some(b'*') => Err(self.wrong("`*` stands only after `=`; as a character it is `\\2a`")),
            _ => Ok(value),
        }
    }

    fn equal(&mut self, name: String) -> Result<Filter, FilterError> {
        let first = self.value()?;
        if self.peek() != Some(b'*') {
            return Ok(Filter::Equal(name, first));
        }
        let mut parts = Vec::new();
        while self.peek() == Some(b'*') {
            self.at += 1;
            parts.push(self.value()?);
        }
        let last = parts.pop().filter(|part| !part.is_empty());
        let first = (!first.is_empty()).then_some(first);
        if first.is_none() && last.is_none() && parts.is_empty() {
            return Ok(Filter::Present(name));
        }
        if parts.iter().any(Vec::is_empty) {
            return Err(self.wrong("`**` matches nothing that `*` does not"));
        }
        Ok(Filter::Substrings(name, first, parts, last))
    }

    /// A value up to `*`, `)` or the end, with its escapes undone.
    fn value(&mut self) -> Result<Vec<u8>, FilterError> {
        let mut value = Vec::new();
        while let Some(byte) = self.peek() {
            match byte {
                b'*' | b')' => break,
                b'(' | 0 => return Err(self.wrong("this character is written as an escape: `\\28`, `\\00`")),
                b'\\' => {
                    let digits = self.bytes.get(self.at + 1..self.at + 3);
                    let code = digits
                        .and_then(|digits| std::str::from_utf8(digits).ok())
                        .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
                        .and_then(|digits| u8::from_str_radix(digits, 16).ok());
                    value.push(code.ok_or_else(|| self.wrong("two hexadecimal digits follow `\\`"))?);
                    self.at += 3;
                }
                other => {
                    value.push(other);
                    self.at += 1;
                }
            }
        }
        Ok(value)
    }
}
