//! What a checked question is: parts, conditions and how they are answered.

use std::{cmp::Ordering, collections::BTreeSet};

use super::{
    parser::{Direction, Distinct, Function},
    schema::Table,
    value::{Cell, Kind, Value, is_like},
};
use crate::text::LabelKey;

/// A question that can be answered. It is made by [`Plan::check`].
#[derive(Debug)]
pub struct Plan {
    pub(super) table: &'static Table,
    pub(super) reads: BTreeSet<usize>,
    pub(super) labels: Vec<LabelKey>,
    pub(super) columns: Vec<OutputColumn>,
    pub(super) filter: Option<Node>,
    pub(super) is_grouped: bool,
    pub(super) group_by: Vec<Part>,
    pub(super) aggregates: Vec<Aggregate>,
    pub(super) having: Option<Node>,
    pub(super) order: Vec<OrderPart>,
    pub(super) distinct: Distinct,
    pub(super) limit: Option<u64>,
    pub(super) offset: u64,
}

/// A column of an answer.
#[derive(Debug, Clone)]
pub struct OutputColumn {
    pub name: String,
    pub kind: Kind,
    pub(super) part: Part,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    Column(usize),
    Label(usize),
    /// A column of GROUP BY.
    Key(usize),
    Aggregate(usize),
    Literal(Cell),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Aggregate {
    pub function: Function,
    pub distinct: Distinct,
    /// Nothing for `count(*)`.
    pub of: Option<Part>,
    pub kind: Kind,
}

#[derive(Debug)]
pub(super) struct OrderPart {
    pub part: Part,
    pub kind: Kind,
    pub direction: Direction,
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Truth(Part),
    Compare(Part, Test, Part, Kind),
    In(Part, Vec<Cell>, Kind),
    Like(Part, String),
    IsNull(Part),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    Equal,
    Different,
    Less,
    AtMost,
    More,
    AtLeast,
}

impl Test {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Test::Equal => order.is_eq(),
            Test::Different => order.is_ne(),
            Test::Less => order.is_lt(),
            Test::AtMost => order.is_le(),
            Test::More => order.is_gt(),
            Test::AtLeast => order.is_ge(),
        }
    }
}

impl Plan {
    pub fn table(&self) -> &'static Table {
        self.table
    }

    /// Whether the answer needs this column; see [`super::Schema::place`].
    pub fn reads(&self, place: usize) -> bool {
        self.reads.contains(&place)
    }

    /// The labels that the answer needs.
    pub fn labels(&self) -> &[LabelKey] {
        &self.labels
    }

    pub fn columns(&self) -> &[OutputColumn] {
        &self.columns
    }

    /// Whether a row may be part of the answer, as far as the columns say for which `is_known` holds. A `false` is final; it
    /// saves reading the rest.
    pub fn may_match<'r>(
        &self,
        is_known: impl Fn(usize) -> bool,
        column: impl Fn(usize) -> Value<'r>,
    ) -> bool {
        let Some(filter) = &self.filter else {
            return true;
        };
        let parts = match filter {
            Node::And(parts) => parts.as_slice(),
            whole => std::slice::from_ref(whole),
        };
        parts
            .iter()
            .filter(|part| part.reads_only(&is_known))
            .all(|part| {
                let get = |part: &Part| match part {
                    Part::Column(place) => column(*place),
                    Part::Label(_) | Part::Key(_) | Part::Aggregate(_) | Part::Literal(_) => Value::Null,
                };
                part.truth(&get) == Some(true)
            })
    }
}

impl Node {
    /// Whether the condition holds; nothing where that is unknown.
    pub(super) fn truth<'v>(&'v self, get: &impl Fn(&Part) -> Value<'v>) -> Option<bool> {
        let read = |part: &'v Part| match part {
            Part::Literal(cell) => cell.value(),
            other => get(other),
        };
        match self {
            Node::And(parts) => all(parts.iter().map(|part| part.truth(get))),
            Node::Or(parts) => all(parts.iter().map(|part| part.truth(get).map(|is| !is))).map(|is| !is),
            Node::Not(inner) => inner.truth(get).map(|is| !is),
            Node::Truth(part) => match read(part) {
                Value::Bool(is) => Some(is),
                _ => None,
            },
            Node::Compare(left, test, right, kind) => {
                let order = read(left).compare(read(right), *kind)?;
                Some(test.holds(order))
            }
            Node::In(part, list, kind) => {
                let value = read(part);
                if value.is_null() {
                    return None;
                }
                let is_it = |cell: &Cell| value.compare(cell.value(), *kind).is_some_and(Ordering::is_eq);
                Some(list.iter().any(is_it))
            }
            Node::Like(part, pattern) => match read(part) {
                Value::Text(text) => Some(is_like(text, pattern)),
                _ => None,
            },
            Node::IsNull(part) => Some(read(part).is_null()),
        }
    }

    fn reads_only(&self, is_known: &impl Fn(usize) -> bool) -> bool {
        let known = |part: &Part| match part {
            Part::Column(place) => is_known(*place),
            Part::Literal(_) => true,
            Part::Label(_) | Part::Key(_) | Part::Aggregate(_) => false,
        };
        match self {
            Node::And(parts) | Node::Or(parts) => parts.iter().all(|part| part.reads_only(is_known)),
            Node::Not(inner) => inner.reads_only(is_known),
            Node::Compare(left, _, right, _) => known(left) && known(right),
            Node::Truth(part) | Node::In(part, _, _) | Node::Like(part, _) | Node::IsNull(part) => {
                known(part)
            }
        }
    }
}

/// AND of three values: a `false` decides, whatever is unknown beside it.
fn all(parts: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut is_known = true;
    for part in parts {
        match part {
            Some(true) => {}
            Some(false) => return Some(false),
            None => is_known = false,
        }
    }
    is_known.then_some(true)
}
