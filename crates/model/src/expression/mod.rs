//! Conditions over a device: a typed, bounded part of the Common Expression Language (cel-spec).
//!
//! An expression is read once against a closed list of variables; after that it cannot fail, only answer true, false or
//! unknown. What a device has not said makes an answer unknown unless it does not matter: `false && unknown` is false, in
//! either order. Nothing is allocated to find an answer, and the work is bounded when the expression is read.

mod check;
mod differ;
pub(crate) mod duration;
pub(crate) mod error;
mod evaluate;
mod explain;
mod hints;
mod lexer;
mod names;
mod node;
mod parser;
mod print;
mod variable;

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use differ::differs;
pub use error::ExpressionError;
pub use variable::{FactPath, ValueKind, Variable};

use crate::{rules::Answer, subject::Subject, time::Timestamp};

/// The longest expression, as it is written and in its one text form.
pub const TEXT_BYTES_MAX: usize = 2048;
/// The deepest nesting. A chain of `&&` or `||` is one level, however long.
pub const DEPTH_MAX: usize = 32;
/// The most parts: values, names and operators.
pub const NODES_MAX: usize = 512;
/// The most items of a list in brackets.
pub const LIST_ITEMS_MAX: usize = 128;
/// The most steps that answering may take, whatever the device sent: a comparison is one step, looking through a list as
/// many as the list can be long.
pub const COST_MAX: u64 = 2_000_000;

/// How much of a name or value a message shows.
const SHOWN_CHARS_MAX: usize = 64;

/// A condition that was read: every name is known and every operator fits. Its text form is canonical.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    root: node::Node,
    reads: BTreeSet<FactPath>,
    cost: u64,
}

impl Expression {
    /// Reads an expression; an error says where, what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Expression, ExpressionError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(too_long());
        }
        let checked = lexer::tokens(text)
            .and_then(parser::parse)
            .and_then(|ast| check::check(&ast))
            .map_err(|fault| fault.locate(text))?;
        let expression = Expression {
            root: checked.node,
            reads: checked.reads,
            cost: checked.cost,
        };
        // What is stored and sent is the canonical form, and that must be readable as well.
        if expression.to_string().len() > TEXT_BYTES_MAX {
            return Err(too_long());
        }
        Ok(expression)
    }

    /// Everything that the answer depends on.
    pub fn reads(&self) -> &BTreeSet<FactPath> {
        &self.reads
    }

    /// Whether the answer can change while nothing about the device does.
    pub fn reads_time(&self) -> bool {
        self.reads.contains(&FactPath::Variable(Variable::Now))
    }

    /// The most steps that answering takes, at most [`COST_MAX`].
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// The answer alone; `None` is unknown. Allocates nothing.
    pub fn holds(&self, subject: &Subject<'_>, now: Timestamp) -> Option<bool> {
        evaluate::World { subject, now }.truth(&self.root, None).ok()
    }

    /// The answer with its reason: what was found instead, or what is missing.
    pub fn evaluate(&self, subject: &Subject<'_>, now: Timestamp) -> Answer {
        let world = evaluate::World { subject, now };
        match world.truth(&self.root, None) {
            Ok(true) => Answer::True,
            Ok(false) => Answer::False(explain::why_false(&self.root, &world)),
            Err(missing) => Answer::Unknown(missing.to_string()),
        }
    }
}

fn too_long() -> ExpressionError {
    ExpressionError {
        line: 1,
        column: 1,
        detail: format!("it is longer than {TEXT_BYTES_MAX} bytes; make several rules of it"),
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print::write_node(f, &self.root)
    }
}

impl FromStr for Expression {
    type Err = ExpressionError;

    fn from_str(text: &str) -> Result<Self, ExpressionError> {
        Self::parse(text)
    }
}

impl Serialize for Expression {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Expression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
