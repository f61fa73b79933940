//! The one text form of an expression: it parses to the same tree.

use std::fmt::{self, Formatter, Write as _};

use super::{
    duration::Written,
    lexer::is_deceptive,
    node::{List, Node, Operator},
    variable::{write_label, write_package, write_signal},
};

/// How tightly an operator binds; an operand that binds less stands in parentheses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Binding {
    Choice,
    Any,
    All,
    Relation,
    Sum,
    Product,
    Sign,
    Tight,
}

/// Writes the tree without more spaces and parentheses than needed.
pub(super) fn write_node(f: &mut Formatter<'_>, node: &Node) -> fmt::Result {
    match node {
        Node::Bool(value) => write!(f, "{value}"),
        Node::Int(value) => write!(f, "{value}"),
        Node::Text(text) => write_text(f, text),
        Node::Version(text) => write_literal(f, "version", text),
        Node::Time(at) => write!(f, "timestamp(\"{at}\")"),
        Node::Duration(micros) => write!(f, "duration(\"{}\")", Written(*micros)),
        Node::Read(variable) => write!(f, "{variable}"),
        Node::Label(key) => write_label(f, key.as_str()),
        Node::Package(name) => write_package(f, name),
        Node::Signal(source, field) => write_signal(f, source, *field),
        Node::LabelOf(key) => write_index(f, "labels", key),
        Node::PackageOf(name) => write_index(f, "packages", name),
        Node::Bound(_, name) => f.write_str(name),
        Node::Has(variable) => write!(f, "has({variable})"),
        Node::HasLabel(key) => write!(f, "has(labels.{key})"),
        Node::HasPackage(name) => write!(f, "has(packages.{name})"),
        Node::HasSignal(source, field) => write!(f, "has(signal.{source}.{})", field.as_str()),
        Node::Not(inner) => write_signed(f, "!", inner),
        Node::Negate(inner) => write_signed(f, "-", inner),
        Node::All(operands) => write_chain(f, " && ", Binding::Relation, operands),
        Node::Any(operands) => write_chain(f, " || ", Binding::All, operands),
        Node::Choose(parts) => {
            let [condition, yes, no] = &**parts;
            write_at_least(f, Binding::Any, condition)?;
            f.write_str(" ? ")?;
            write_at_least(f, Binding::Any, yes)?;
            f.write_str(" : ")?;
            write_node(f, no)
        }
        Node::Compare(relation, sides) => {
            write_binary(f, Binding::Sum, relation.as_str(), sides, Binding::Sum)
        }
        Node::Calculate(operator, sides) => {
            let (own, tighter) = match operator {
                Operator::Add | Operator::Subtract => (Binding::Sum, Binding::Product),
                Operator::Multiply | Operator::Divide | Operator::Remainder => {
                    (Binding::Product, Binding::Sign)
                }
            };
            write_binary(f, own, operator.as_str(), sides, tighter)
        }
        Node::In(item, list) => {
            write_at_least(f, Binding::Sum, item)?;
            f.write_str(" in ")?;
            write_list(f, list)
        }
        Node::Size(list) => {
            f.write_str("size(")?;
            write_list(f, list)?;
            f.write_str(")")
        }
        Node::Length(text) => write_call(f, "size", text),
        Node::Test(test, sides) => {
            let [text, part] = &**sides;
            write_at_least(f, Binding::Tight, text)?;
            write!(f, ".{}(", test.as_str())?;
            write_node(f, part)?;
            f.write_str(")")
        }
        Node::Quantify(quantify) => {
            write_list(f, &quantify.list)?;
            write!(f, ".{}({}, ", quantify.quantifier.as_str(), quantify.name)?;
            write_node(f, &quantify.body)?;
            f.write_str(")")
        }
        Node::VersionOf(text) => write_call(f, "version", text),
        Node::TextOf(version) => write_call(f, "string", version),
        Node::TimeOf(text) => write_call(f, "timestamp", text),
        Node::DurationOf(text) => write_call(f, "duration", text),
    }
}

const fn binding(node: &Node) -> Binding {
    match node {
        Node::Choose(_) => Binding::Choice,
        Node::Any(_) => Binding::Any,
        Node::All(_) => Binding::All,
        Node::Compare(..) | Node::In(..) => Binding::Relation,
        Node::Calculate(Operator::Add | Operator::Subtract, _) => Binding::Sum,
        Node::Calculate(Operator::Multiply | Operator::Divide | Operator::Remainder, _) => Binding::Product,
        Node::Not(_) | Node::Negate(_) => Binding::Sign,
        _ => Binding::Tight,
    }
}

fn write_at_least(f: &mut Formatter<'_>, least: Binding, node: &Node) -> fmt::Result {
    if binding(node) >= least {
        return write_node(f, node);
    }
    f.write_str("(")?;
    write_node(f, node)?;
    f.write_str(")")
}

fn write_signed(f: &mut Formatter<'_>, sign: &str, inner: &Node) -> fmt::Result {
    f.write_str(sign)?;
    match inner {
        // Two signs side by side would cancel out.
        Node::Int(_) | Node::Negate(_) => {
            f.write_str("(")?;
            write_node(f, inner)?;
            f.write_str(")")
        }
        inner => write_at_least(f, Binding::Sign, inner),
    }
}

fn write_chain(f: &mut Formatter<'_>, join: &str, least: Binding, operands: &[Node]) -> fmt::Result {
    for (index, operand) in operands.iter().enumerate() {
        if index > 0 {
            f.write_str(join)?;
        }
        write_at_least(f, least, operand)?;
    }
    Ok(())
}

fn write_binary(
    f: &mut Formatter<'_>,
    left: Binding,
    symbol: &str,
    sides: &[Node; 2],
    right: Binding,
) -> fmt::Result {
    write_at_least(f, left, &sides[0])?;
    write!(f, " {symbol} ")?;
    write_at_least(f, right, &sides[1])
}

fn write_call(f: &mut Formatter<'_>, name: &str, argument: &Node) -> fmt::Result {
    write!(f, "{name}(")?;
    write_node(f, argument)?;
    f.write_str(")")
}

fn write_index(f: &mut Formatter<'_>, name: &str, key: &Node) -> fmt::Result {
    write!(f, "{name}[")?;
    write_node(f, key)?;
    f.write_str("]")
}

fn write_literal(f: &mut Formatter<'_>, name: &str, text: &str) -> fmt::Result {
    write!(f, "{name}(")?;
    write_text(f, text)?;
    f.write_str(")")
}

fn write_list(f: &mut Formatter<'_>, list: &List) -> fmt::Result {
    match list {
        List::Users | List::OwnerGroups | List::Packages | List::Labels => {
            f.write_str(list.variable().map_or("", |variable| variable.path()))
        }
        List::Items(items) => {
            f.write_str("[")?;
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    f.write_str(", ")?;
                }
                write_node(f, item)?;
            }
            f.write_str("]")
        }
    }
}

/// A text literal in double quotes; what cannot be seen is escaped.
pub(super) fn write_text(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if is_deceptive(c) => write!(f, "\\u{:04x}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}
