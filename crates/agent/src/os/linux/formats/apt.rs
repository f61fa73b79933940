//! apt.conf(5): the configuration language of apt, as far as scalar values go.
//!
//! `Scope::Name "value";` and `Scope { Name "value"; };` are the same; a later value replaces an earlier one; `//`,
//! `#` and `/* */` are comments. Names compare without case.

/// Deepest nesting that is followed.
const DEPTH_MAX: usize = 32;

/// Scalar assignments in order, each with its full lower-case name.
pub(crate) fn parse(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut scopes: Vec<String> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let tokens = Tokens { rest: text };
    for token in tokens {
        match token {
            Token::Word(word) => words.push(word),
            Token::Open => {
                if scopes.len() >= DEPTH_MAX {
                    break;
                }
                scopes.push(words.drain(..).next().unwrap_or_default());
            }
            Token::Close => {
                scopes.pop();
                words.clear();
            }
            Token::End => {
                if let [name, value] = words.as_slice() {
                    let full: Vec<&str> = scopes.iter().map(String::as_str).chain([name.as_str()]).collect();
                    found.push((full.join("::").to_lowercase(), value.clone()));
                }
                words.clear();
            }
        }
    }
    found
}

enum Token {
    Word(String),
    Open,
    Close,
    End,
}

struct Tokens<'t> {
    rest: &'t str,
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        loop {
            self.rest = self.rest.trim_start();
            if self.rest.starts_with("//") || self.rest.starts_with('#') {
                self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                self.rest = comment.split_once("*/").map_or("", |(_, rest)| rest);
            } else {
                break;
            }
        }
        let first = self.rest.chars().next()?;
        let after = &self.rest[first.len_utf8()..];
        let (token, rest) = match first {
            '{' => (Token::Open, after),
            '}' => (Token::Close, after),
            ';' => (Token::End, after),
            '"' => {
                let (word, rest) = after.split_once('"').unwrap_or((after, ""));
                (Token::Word(word.to_owned()), rest)
            }
            _ => {
                let is_end = |c: char| c.is_whitespace() || "{};\"".contains(c);
                let end = self.rest.find(is_end).unwrap_or(self.rest.len());
                (Token::Word(self.rest[..end].to_owned()), &self.rest[end..])
            }
        };
        self.rest = rest;
        Some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nested_and_flat_names_are_the_same() {
        let text = "// c\nAPT::Get::AllowUnauthenticated \"false\";\nAPT { Get { /* x */ AllowUnauthenticated true; }; };\n\
                    #clear APT;\nDir::Etc \"a b\";";
        let expected = [
            ("apt::get::allowunauthenticated", "false"),
            ("apt::get::allowunauthenticated", "true"),
            ("dir::etc", "a b"),
        ];
        let found = parse(text);
        let found: Vec<(&str, &str)> = found.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(found, expected);
    }

    proptest! {
        #[test]
        fn any_text_parses_without_panic(text in "(?s)[\\PC\n\"{};/*#]{0,200}") {
            parse(&text);
        }
    }
}
