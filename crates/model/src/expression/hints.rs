//! What to write instead: the messages of the checker.

use super::{
    SHOWN_CHARS_MAX,
    check::Part,
    error::{Fault, did_you_mean},
    node::Node,
    variable::{ValueKind, Variable},
};
use crate::signal::SignalField;

/// What is called by its name.
pub(super) const FUNCTIONS: &[&str] = &["has", "size", "version", "timestamp", "duration", "string"];
/// What is called on a value.
const METHODS: &[&str] = &["startsWith", "endsWith", "contains", "exists", "all", "size"];

/// Functions of CEL that are left out, with what to do instead.
const LEFT_OUT: &[(&str, &str)] = &[
    (
        "matches",
        "there are no regular expressions, whose cost has no bound; write startsWith, endsWith or contains",
    ),
    ("filter", "filter would make a list; write exists or all"),
    ("map", "map would make a list; write exists or all"),
    ("exists_one", "exists_one is left out; write exists"),
    ("int", "there is no int(…); numbers are whole already"),
    ("double", "there are only whole numbers"),
    ("uint", "write the number without u"),
    (
        "type",
        "every kind is known when the expression is read; type(…) is not needed",
    ),
    ("now", "write now without parentheses"),
];

pub(super) fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", shown(text).escape_debug())
}

/// Whether a name is the first word of a variable, or means something by itself.
pub(super) fn is_root(name: &str) -> bool {
    let first = |variable: &Variable| variable.path().split('.').next() == Some(name);
    Variable::ALL.iter().any(first) || FUNCTIONS.contains(&name)
}

pub(super) fn unknown_variable(at: usize, path: &str) -> Fault {
    let inside: Vec<&str> = Variable::ALL
        .iter()
        .map(|variable| variable.path())
        .filter(|known| known.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
        .collect();
    if !inside.is_empty() {
        return Fault::new(
            at,
            format_args!("{path} is no value; there is {}", inside.join(", ")),
        );
    }
    let value_with_fields = path
        .rsplit_once('.')
        .filter(|(before, _)| Variable::from_path(before).is_some());
    if let Some((before, field)) = value_with_fields {
        return Fault::new(at, format_args!("{before} has no field {}", shown(field)));
    }
    let names = Variable::ALL.iter().map(|variable| variable.path());
    let advice = did_you_mean(
        path,
        names,
        "texts stand in quotes, labels are written labels.department",
    );
    Fault::new(at, format_args!("there is no {}; {advice}", shown(path)))
}

/// A source says nothing under that name.
pub(super) fn unknown_field(at: usize, source: &str, field: &str) -> Fault {
    let names = SignalField::ALL.iter().map(|field| field.as_str());
    let all = format!("there is {}", names.clone().collect::<Vec<_>>().join(", "));
    let advice = did_you_mean(field, names, &all);
    Fault::new(
        at,
        format_args!("signal.{source} has no {}; {advice}", shown(field)),
    )
}

pub(super) fn unknown_function(at: usize, name: &str) -> Fault {
    if METHODS.contains(&name) {
        return Fault::new(
            at,
            format_args!("{name} is called on a value, as in device.name.{name}(…)"),
        );
    }
    unknown(at, name, FUNCTIONS)
}

pub(super) fn unknown_method(at: usize, name: &str) -> Fault {
    if FUNCTIONS.contains(&name) {
        return Fault::new(at, format_args!("write {name}(value)"));
    }
    unknown(at, name, METHODS)
}

fn unknown(at: usize, name: &str, known: &[&'static str]) -> Fault {
    if let Some((_, advice)) = LEFT_OUT.iter().find(|(left_out, _)| *left_out == name) {
        return Fault::new(at, advice);
    }
    let all = format!("there is {}", known.join(", "));
    let advice = did_you_mean(name, known.iter().copied(), &all);
    Fault::new(at, format_args!("there is no {}(…); {advice}", shown(name)))
}

/// A list stands where a value must.
pub(super) fn list_as_value(at: usize, what: &str) -> Fault {
    let detail = format!(
        "{what} has many values; write \"x\" in …, ….exists(item, …), ….all(item, …) or size(…), or labels[\"key\"]"
    );
    Fault::new(at, detail)
}

/// Two kinds where one is needed; `part` is what can be written otherwise.
pub(super) fn kinds_differ(at: usize, part: &Part, wanted: ValueKind) -> Fault {
    let (is, wants) = (part.kind.describe(), wanted.describe());
    let rewrite = match (&part.node, wanted) {
        (Node::Text(text), ValueKind::Version) => Some(format!("write version({})", quoted(text))),
        (Node::Int(number), ValueKind::Version) => Some(format!("write version(\"{number}\")")),
        (Node::Text(text), ValueKind::Time) => Some(format!("write timestamp({})", quoted(text))),
        (Node::Text(text), ValueKind::Duration) => Some(format!("write duration({})", quoted(text))),
        (Node::Int(number), ValueKind::Duration) => Some(format!("write duration(\"{number}s\")")),
        (Node::Int(number), ValueKind::Text) => Some(format!("write \"{number}\"")),
        (Node::Text(text), ValueKind::Int | ValueKind::Bool) => {
            Some(format!("write {} without quotes", shown(text)))
        }
        (_, ValueKind::Version) if part.kind == ValueKind::Text => {
            Some("write version(…) around it".to_owned())
        }
        (_, ValueKind::Text) if part.kind == ValueKind::Version => {
            Some("write string(…) around it".to_owned())
        }
        _ => None,
    };
    let advice = rewrite.unwrap_or_else(|| "both must be of one kind".to_owned());
    Fault::new(
        at,
        format_args!("this is {is} and stands against {wants}; {advice}"),
    )
}

pub(super) fn no_order(at: usize, symbol: &str, kind: ValueKind) -> Fault {
    let advice = match kind {
        ValueKind::Text => "texts have no order here; for versions write version(…) on both sides",
        _ => "only numbers, versions, times and durations have an order",
    };
    Fault::new(at, format_args!("{symbol} does not fit: {advice}"))
}

pub(super) fn no_arithmetic(at: usize, symbol: &str, left: ValueKind, right: ValueKind) -> Fault {
    let (left, right) = (left.describe(), right.describe());
    let detail = format!(
        "{symbol} takes whole numbers, or times and durations, not {left} and {right}; texts cannot be joined"
    );
    Fault::new(at, detail)
}

pub(super) fn method_of(at: usize, name: &str, kind: ValueKind) -> Fault {
    let advice = match kind {
        ValueKind::Version => format!("write string(…).{name}(…)"),
        _ => "it is a method of texts".to_owned(),
    };
    Fault::new(at, format_args!("{} has no {name}(…); {advice}", kind.describe()))
}

/// Refuses a word that the other side can never be, such as the platform `Linux`.
pub(super) fn known_word(at: usize, read: &Node, literal: &Node) -> Result<(), Fault> {
    let Node::Text(word) = literal else {
        return Ok(());
    };
    let (path, words) = match read {
        Node::Read(variable) => (variable.to_string(), variable.words()),
        Node::Signal(source, field) => (
            format!("signal.{source}.{}", field.as_str()),
            field.words().map(<[&str]>::to_vec),
        ),
        _ => return Ok(()),
    };
    let Some(words) = words.filter(|words| !words.contains(&&**word)) else {
        return Ok(());
    };
    let all = format!("it is one of {}", words.join(", "));
    let advice = did_you_mean(word, words.iter().copied(), &all);
    Err(Fault::new(
        at,
        format_args!("{path} is never {}; {advice}", quoted(word)),
    ))
}
