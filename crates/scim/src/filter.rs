//! Filters (RFC 7644, section 3.4.2.2): read into a tree that is bounded in size and depth.

use serde_json::Value;

use crate::{
    error::{ScimError, ScimType},
    path::{Target, target},
    schema::{Attribute, Kind, ResourceType},
};

/// Bytes of a filter.
pub const FILTER_BYTES_MAX: usize = 8192;
/// Conditions of one filter.
pub const CONDITIONS_MAX: usize = 256;
/// Brackets and `not` inside each other.
pub const DEPTH_MAX: usize = 24;

/// How values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Equal,
    NotEqual,
    Contains,
    StartsWith,
    EndsWith,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Operator {
    fn read(word: &str) -> Option<Operator> {
        let known = [
            ("eq", Operator::Equal),
            ("ne", Operator::NotEqual),
            ("co", Operator::Contains),
            ("sw", Operator::StartsWith),
            ("ew", Operator::EndsWith),
            ("gt", Operator::Greater),
            ("ge", Operator::GreaterOrEqual),
            ("lt", Operator::Less),
            ("le", Operator::LessOrEqual),
        ];
        known
            .into_iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(word))
            .map(|(_, operator)| operator)
    }
}

/// What a value is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Literal {
    Text(String),
    Bool(bool),
    /// No value at all.
    Null,
}

/// One comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    pub target: Target,
    pub operator: Operator,
    pub literal: Literal,
}

/// A filter as a tree.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    Compare(Condition),
    /// The attribute has a value.
    Present(Target),
    /// One value of the attribute is as the filter says.
    Any {
        target: Target,
        filter: Box<Filter>,
    },
    Not(Box<Filter>),
    And(Vec<Filter>),
    Or(Vec<Filter>),
}

impl Filter {
    /// Reads a filter about resources of one type.
    pub fn parse(kind: &'static ResourceType, text: &str) -> Result<Filter, ScimError> {
        read(Names::Of(kind), text)
    }

    /// The literal of `attribute eq "…"`, where the filter is nothing else or requires it among others.
    pub fn equals(&self, name: &str) -> Option<&str> {
        match self {
            Filter::Compare(Condition {
                target,
                operator: Operator::Equal,
                literal: Literal::Text(text),
            }) if target.extension.is_none() && target.sub.is_none() && target.attribute.name == name => {
                Some(text)
            }
            Filter::And(all) => all.iter().find_map(|one| one.equals(name)),
            _ => None,
        }
    }
}

/// What a filter asks of an attribute that lists references, such as `members` or `groups`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mentions {
    /// The ids that it compares with.
    pub ids: Vec<String>,
    /// Whether it asks anything else, which only the whole list could answer.
    pub asks_more: bool,
}

impl Filter {
    /// What the filter asks of an attribute.
    pub fn mentions(&self, name: &str) -> Mentions {
        let mut found = Mentions::default();
        self.look_for(name, false, &mut found);
        found
    }

    /// An id that the attribute must list for the filter to be true.
    pub fn requires(&self, name: &str) -> Option<&str> {
        match self {
            Filter::Compare(Condition {
                target,
                operator: Operator::Equal,
                literal: Literal::Text(text),
            }) if target.attribute.name == name && target.sub.is_some_and(|sub| sub.name == "value") => {
                Some(text)
            }
            Filter::Any { target, filter } if target.attribute.name == name => filter.equals("value"),
            Filter::And(all) => all.iter().find_map(|one| one.requires(name)),
            _ => None,
        }
    }

    fn look_for(&self, name: &str, is_inside: bool, found: &mut Mentions) {
        match self {
            Filter::Compare(condition) => {
                let target = condition.target;
                let is_meant = is_inside || target.attribute.name == name;
                let leaf = if is_inside {
                    target.attribute
                } else {
                    target.leaf()
                };
                match &condition.literal {
                    _ if !is_meant => {}
                    Literal::Text(id) if leaf.name == "value" && condition.operator == Operator::Equal => {
                        found.ids.push(id.clone());
                    }
                    _ => found.asks_more = true,
                }
            }
            Filter::Present(target) => found.asks_more |= is_inside || target.attribute.name == name,
            Filter::Any { target, filter } => {
                if target.attribute.name == name {
                    filter.look_for(name, true, found);
                }
            }
            Filter::Not(inner) => inner.look_for(name, is_inside, found),
            Filter::And(all) | Filter::Or(all) => {
                all.iter().for_each(|one| one.look_for(name, is_inside, found))
            }
        }
    }
}

/// Reads what stands in the brackets behind an attribute: names are those of its sub-attributes.
pub(crate) fn parse_values(of: &'static Attribute, text: &str) -> Result<Filter, ScimError> {
    read(Names::Inside(of), text)
}

fn read(names: Names, text: &str) -> Result<Filter, ScimError> {
    if text.len() > FILTER_BYTES_MAX {
        return Err(wrong("it has more than 8,192 bytes"));
    }
    let mut parser = Parser {
        rest: text,
        conditions: 0,
    };
    let filter = parser.either(names, 0)?;
    parser.skip();
    match parser.rest.is_empty() {
        true => Ok(filter),
        false => Err(wrong("something stands behind its end")),
    }
}

/// What names mean.
#[derive(Clone, Copy)]
enum Names {
    Of(&'static ResourceType),
    Inside(&'static Attribute),
}

impl Names {
    fn find(self, name: &str) -> Option<Target> {
        match self {
            Names::Of(kind) => target(kind, name),
            Names::Inside(of) => of.sub(name).map(|attribute| Target {
                extension: None,
                attribute,
                sub: None,
            }),
        }
    }
}

struct Parser<'t> {
    rest: &'t str,
    conditions: usize,
}

impl<'t> Parser<'t> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, mark: char) -> bool {
        self.skip();
        let taken = self.rest.strip_prefix(mark);
        self.rest = taken.unwrap_or(self.rest);
        taken.is_some()
    }

    /// The next word, if it is this one.
    fn take_word(&mut self, word: &str) -> bool {
        self.skip();
        let Some(head) = self.rest.get(..word.len()) else {
            return false;
        };
        let ends = self.rest[word.len()..].starts_with(|c: char| c.is_whitespace() || c == '(');
        let is_it = head.eq_ignore_ascii_case(word) && ends;
        if is_it {
            self.rest = &self.rest[word.len()..];
        }
        is_it
    }

    fn either(&mut self, names: Names, depth: usize) -> Result<Filter, ScimError> {
        let mut any = vec![self.both(names, depth)?];
        while self.take_word("or") {
            any.push(self.both(names, depth)?);
        }
        Ok(if any.len() == 1 {
            any.remove(0)
        } else {
            Filter::Or(any)
        })
    }

    fn both(&mut self, names: Names, depth: usize) -> Result<Filter, ScimError> {
        let mut all = vec![self.one(names, depth)?];
        while self.take_word("and") {
            all.push(self.one(names, depth)?);
        }
        Ok(if all.len() == 1 {
            all.remove(0)
        } else {
            Filter::And(all)
        })
    }

    fn one(&mut self, names: Names, depth: usize) -> Result<Filter, ScimError> {
        if depth == DEPTH_MAX {
            return Err(wrong("it is nested too deeply"));
        }
        let is_negated = self.take_word("not");
        if self.take('(') {
            let inner = self.either(names, depth + 1)?;
            if !self.take(')') {
                return Err(wrong("a ( is never closed"));
            }
            return Ok(if is_negated {
                Filter::Not(Box::new(inner))
            } else {
                inner
            });
        }
        if is_negated {
            return Err(wrong("after not comes a bracket"));
        }
        self.condition(names, depth)
    }

    fn condition(&mut self, names: Names, depth: usize) -> Result<Filter, ScimError> {
        self.conditions += 1;
        if self.conditions > CONDITIONS_MAX {
            return Err(wrong("it has more than 256 conditions"));
        }
        let name = self.word(|c| !c.is_whitespace() && !"[]()\"".contains(c));
        let Some(target) = names.find(name) else {
            return Err(wrong(if name.is_empty() {
                "an attribute is missing"
            } else {
                "it names an attribute that does not exist"
            }));
        };
        if self.rest.starts_with('[') {
            return self.inside(names, target, depth);
        }
        self.skip();
        let word = self.word(char::is_alphabetic);
        if word.eq_ignore_ascii_case("pr") {
            return Ok(Filter::Present(target));
        }
        let operator = Operator::read(word)
            .ok_or_else(|| wrong("an operator is eq, ne, co, sw, ew, gt, ge, lt, le or pr"))?;
        let target = with_value(target);
        let literal = self.literal(target.leaf(), operator)?;
        Ok(Filter::Compare(Condition {
            target,
            operator,
            literal,
        }))
    }

    fn inside(&mut self, names: Names, target: Target, depth: usize) -> Result<Filter, ScimError> {
        if matches!(names, Names::Inside(_)) || target.sub.is_some() || target.attribute.subs.is_empty() {
            return Err(wrong("a [ stands where none may"));
        }
        self.take('[');
        let inner = self.either(Names::Inside(target.attribute), depth + 1)?;
        if !self.take(']') {
            return Err(wrong("a [ is never closed"));
        }
        let inner = match self.rest.strip_prefix('.') {
            None => inner,
            // `emails[type eq "work"].value eq "…"` is beyond the grammar, and what Entra ID looks people up by.
            Some(rest) => {
                self.rest = rest;
                Filter::And(vec![
                    inner,
                    self.condition(Names::Inside(target.attribute), depth + 1)?,
                ])
            }
        };
        Ok(Filter::Any {
            target,
            filter: Box::new(inner),
        })
    }

    fn word(&mut self, belongs: impl Fn(char) -> bool) -> &'t str {
        self.skip();
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn literal(&mut self, of: &Attribute, operator: Operator) -> Result<Literal, ScimError> {
        self.skip();
        if self.rest.starts_with('"') {
            let end = closing(self.rest).ok_or_else(|| wrong("a text is never closed"))?;
            let (quoted, rest) = self.rest.split_at(end);
            self.rest = rest;
            let text: String =
                serde_json::from_str(quoted).map_err(|_| wrong("a text is not written as in JSON"))?;
            return literal_of(of, operator, text);
        }
        match self.word(|c| c.is_alphanumeric() || "+-.".contains(c)) {
            "null" if matches!(operator, Operator::Equal | Operator::NotEqual) => Ok(Literal::Null),
            "" | "null" => Err(wrong("a value is missing")),
            word => match serde_json::from_str::<Value>(word) {
                Ok(Value::Bool(truth)) => literal_of(of, operator, truth.to_string()),
                Ok(Value::Number(number)) => literal_of(of, operator, number.to_string()),
                _ => Err(wrong("a text stands in quotes")),
            },
        }
    }
}

/// A text as what its attribute holds. Truth values come as texts too: Entra ID writes `"True"`.
fn literal_of(of: &Attribute, operator: Operator, text: String) -> Result<Literal, ScimError> {
    if of.kind == Kind::Complex {
        return Err(wrong("it compares an attribute that has parts; name one of them"));
    }
    if of.kind != Kind::Boolean {
        return Ok(Literal::Text(text));
    }
    if !matches!(operator, Operator::Equal | Operator::NotEqual) {
        return Err(wrong("a truth value is compared with eq and ne only"));
    }
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(Literal::Bool(true)),
        "false" => Ok(Literal::Bool(false)),
        _ => Err(wrong("the attribute is true or false")),
    }
}

/// An attribute with parts stands for its part `value`.
fn with_value(mut target: Target) -> Target {
    if target.sub.is_none() {
        target.sub = target.attribute.sub("value");
    }
    target
}

/// Where a quoted text ends, behind its quote.
fn closing(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn wrong(why: &str) -> ScimError {
    ScimError::of(
        ScimType::InvalidFilter,
        format!("The filter cannot be read: {why}."),
    )
}
