//! The part of YAML 1.2 that configuration files may use: mappings, lists and scalars, each with its line.
//!
//! What makes YAML dangerous or surprising is refused where it stands: aliases and anchors (a small file that unfolds into a
//! large one), tags, several documents, a key twice, keys that are no text, `yes` and `no`, numbers in other bases. What is
//! left means the same to every reader.
//!
//! The events come from `saphyr-parser`, which unfolds nothing by itself and knows the place of everything. The crates above it
//! build values: they take the last of two keys, unfold aliases, or forget the lines.

mod write;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};
use serde_json::Value;

pub use write::write;

/// The largest file.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;
/// How deep mappings and lists may stand in each other.
const DEPTH_MAX: usize = 32;
/// Mappings, lists and scalars of one file.
const NODES_MAX: usize = 100_000;

/// A value with the line that it begins on, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub line: usize,
    pub kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text. Without quotes it may mean a number, a truth or nothing.
    Scalar {
        text: String,
        is_quoted: bool,
    },
    List(Vec<Node>),
    /// In the order of the file; no key stands twice.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub line: usize,
    pub text: String,
}

/// What is wrong, and on which line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub line: usize,
    pub detail: String,
}

impl Wrong {
    pub fn new(line: usize, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { line, detail }
    }
}

/// Reads a file's text.
pub fn read(text: &str) -> Result<Node, Wrong> {
    if text.len() > FILE_BYTES_MAX {
        return Err(Wrong::new(
            1,
            format!("the file has more than {FILE_BYTES_MAX} bytes; split it"),
        ));
    }
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        nodes: 0,
    };
    reader.document()
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    nodes: usize,
}

impl<'t> Reader<'t> {
    fn document(&mut self) -> Result<Node, Wrong> {
        let root = loop {
            let (event, span) = self.next()?;
            match event {
                Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => {}
                Event::StreamEnd | Event::DocumentEnd => {
                    return Err(Wrong::new(line_of(&span), "the file is empty"));
                }
                other => break self.node(other, &span, 0)?,
            }
        };
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::Nothing | Event::DocumentEnd => {}
                _ => {
                    let detail = "the file has a second document (`---`); write one file for each";
                    return Err(Wrong::new(line_of(&span), detail));
                }
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Wrong> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let detail = format!("this is not YAML: {}", error.info());
                Err(Wrong::new(error.marker().line().max(1), detail))
            }
            None => Err(Wrong::new(1, "the file ends too early")),
        }
    }

    fn node(&mut self, event: Event<'t>, span: &Span, depth: usize) -> Result<Node, Wrong> {
        let line = line_of(span);
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(Wrong::new(
                line,
                format!("the file has more than {NODES_MAX} values; split it"),
            ));
        }
        if depth > DEPTH_MAX {
            return Err(Wrong::new(
                line,
                format!("values stand in each other more than {DEPTH_MAX} deep"),
            ));
        }
        let kind = match event {
            Event::Scalar(text, style, anchor, tag) => {
                plain_only(line, anchor, tag.is_some())?;
                Kind::Scalar {
                    text: text.into_owned(),
                    is_quoted: style != ScalarStyle::Plain,
                }
            }
            Event::SequenceStart(anchor, tag) => {
                plain_only(line, anchor, tag.is_some())?;
                Kind::List(self.list(depth)?)
            }
            Event::MappingStart(anchor, tag) => {
                plain_only(line, anchor, tag.is_some())?;
                Kind::Map(self.map(depth)?)
            }
            Event::Alias(_) => {
                return Err(Wrong::new(
                    line,
                    "aliases (`*name`) are not read; write the value again",
                ));
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => return Err(Wrong::new(line, "a value is missing here")),
        };
        Ok(Node { line, kind })
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Wrong> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, &span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, Wrong> {
        let mut members: Vec<(Key, Node)> = Vec::new();
        let mut known = std::collections::BTreeMap::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(members);
            }
            let key = self.node(event, &span, depth + 1)?;
            let Kind::Scalar { text, .. } = key.kind else {
                return Err(Wrong::new(key.line, "a key is a text"));
            };
            if text == "<<" {
                return Err(Wrong::new(
                    key.line,
                    "merge keys (`<<`) are not read; write the members again",
                ));
            }
            if let Some(first) = known.insert(text.clone(), key.line) {
                let detail = format!("`{text}` stands twice, first on line {first}; keep one of them");
                return Err(Wrong::new(key.line, detail));
            }
            let (event, span) = self.next()?;
            let value = self.node(event, &span, depth + 1)?;
            let line = key.line;
            members.push((Key { line, text }, value));
        }
    }
}

fn line_of(span: &Span) -> usize {
    span.start.line().max(1)
}

fn plain_only(line: usize, anchor: usize, is_tagged: bool) -> Result<(), Wrong> {
    if anchor != 0 {
        return Err(Wrong::new(
            line,
            "anchors (`&name`) are not read; write the value where it is needed",
        ));
    }
    if is_tagged {
        return Err(Wrong::new(
            line,
            "tags (`!name`) are not read; quote the value if it is a text",
        ));
    }
    Ok(())
}

impl Node {
    /// A text of a file that is about to be written.
    pub fn text(text: impl Into<String>) -> Self {
        Self::made(Kind::Scalar {
            text: text.into(),
            is_quoted: true,
        })
    }

    /// A mapping of a file that is about to be written.
    pub fn map(members: Vec<(&str, Node)>) -> Self {
        let key = |text: &str| Key {
            line: 0,
            text: text.to_owned(),
        };
        Self::made(Kind::Map(
            members
                .into_iter()
                .map(|(name, value)| (key(name), value))
                .collect(),
        ))
    }

    fn made(kind: Kind) -> Self {
        Self { line: 0, kind }
    }

    /// What JSON says, for a file that is about to be written. `name` and `version` come first in each object.
    pub fn of_json(value: &Value) -> Self {
        let word = |text: String| Kind::Scalar {
            text,
            is_quoted: false,
        };
        Self::made(match value {
            Value::Null => word("null".to_owned()),
            Value::Bool(value) => word(value.to_string()),
            Value::Number(value) => word(value.to_string()),
            Value::String(text) => return Self::text(text.clone()),
            Value::Array(items) => Kind::List(items.iter().map(Self::of_json).collect()),
            Value::Object(members) => {
                let is_first = |name: &str| name == "name" || name == "version";
                let first = members.iter().filter(|(name, _)| is_first(name));
                let rest = members.iter().filter(|(name, _)| !is_first(name));
                return Self::map(
                    first
                        .chain(rest)
                        .map(|(name, value)| (name.as_str(), Self::of_json(value)))
                        .collect(),
                );
            }
        })
    }

    /// The same as JSON.
    pub fn to_json(&self) -> Result<Value, Wrong> {
        Ok(match &self.kind {
            Kind::Scalar {
                text,
                is_quoted: true,
            } => Value::String(text.clone()),
            Kind::Scalar {
                text,
                is_quoted: false,
            } => meaning(text).map_err(|detail| Wrong::new(self.line, detail))?,
            Kind::List(items) => Value::Array(items.iter().map(Self::to_json).collect::<Result<_, _>>()?),
            Kind::Map(members) => Value::Object(
                members
                    .iter()
                    .map(|(key, value)| Ok((key.text.clone(), value.to_json()?)))
                    .collect::<Result<_, Wrong>>()?,
            ),
        })
    }

    /// A text as it stands, where nothing but a text can be meant: `version: 2026.10` is no number.
    pub fn as_text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, is_quoted } if *is_quoted || !is_null(text) => Some(text),
            _ => None,
        }
    }

    /// The members of a mapping.
    pub fn members(&self) -> Option<&[(Key, Node)]> {
        match &self.kind {
            Kind::Map(members) => Some(members),
            _ => None,
        }
    }

    /// The items of a list.
    pub fn items(&self) -> Option<&[Node]> {
        match &self.kind {
            Kind::List(items) => Some(items),
            _ => None,
        }
    }

    /// A member of a mapping.
    pub fn get(&self, name: &str) -> Option<&Node> {
        let members = self.members()?.iter();
        members
            .filter(|(key, _)| key.text == name)
            .map(|(_, value)| value)
            .next()
    }
}

fn is_null(text: &str) -> bool {
    ["", "~", "null", "Null", "NULL"].contains(&text)
}

/// What a scalar without quotes means (YAML 1.2.2 section 10.3.2), where every reader agrees about it.
fn meaning(text: &str) -> Result<Value, String> {
    const YAML_1_1: &[&str] = &["y", "n", "yes", "no", "on", "off"];
    if is_null(text) {
        return Ok(Value::Null);
    }
    match text {
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        _ => {}
    }
    if YAML_1_1.contains(&text.to_ascii_lowercase().as_str()) {
        return Err(format!(
            "`{text}` is a truth to some readers and a text to others; write true or false, or quote it"
        ));
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return Ok(Value::String(text.to_owned()));
    }
    if let Ok(number) = serde_json::from_str::<serde_json::Number>(text) {
        // The nearest fraction: the parser of JSON is a little off.
        let exact = text.parse().ok().and_then(serde_json::Number::from_f64);
        let is_fraction = number.is_f64();
        return Ok(Value::Number(exact.filter(|_| is_fraction).unwrap_or(number)));
    }
    let is_number_to_some =
        unsigned.trim_start_matches('.').chars().all(|one| {
            one.is_ascii_hexdigit() || matches!(one, '.' | '_' | '+' | '-' | 'x' | 'o' | 'X' | 'O')
        }) || [".inf", ".nan"].contains(&unsigned.to_ascii_lowercase().as_str());
    // A date, an address or a version has more than one of these; nobody takes it for a number.
    let is_text = unsigned.matches('.').count() > 1 || unsigned.matches('-').count() > 1;
    if is_number_to_some && !is_text {
        return Err(format!(
            "`{text}` is a number to some readers; write a decimal number such as 10 or 0.5, or quote it"
        ));
    }
    Ok(Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests;
