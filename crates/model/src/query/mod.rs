//! Questions over devices: a read-only subset of SQL, checked to a plan of our own and answered by our own code.
//!
//! A question names one table of a [`Schema`]; every table carries the columns of its device, so that there is nothing to join.
//! [`Plan::check`] reads a text and refuses what the grammar does not allow, with the place and what to write instead. A [`Run`]
//! takes rows one after the other and gives the [`Answer`]. Missing values follow SQL: a comparison with one is unknown, and what
//! is unknown is no answer. Both are pure, bounded, and never panic.

mod check;
mod lexer;
mod parser;
mod plan;
mod run;
mod schema;
#[cfg(test)]
mod tests;
mod value;

pub use crate::expression::ExpressionError as QuestionError;
pub use plan::{OutputColumn, Plan};
pub use run::{Answer, Exceeded, Flow, Limits, Row, Run};
pub use schema::{Column, Schema, Table};
pub use value::{Cell, Kind, Value};

/// The longest question.
pub const QUESTION_BYTES_MAX: usize = 8 * 1024;
/// Brackets and NOTs within each other.
pub const DEPTH_MAX: usize = 64;
/// Values of one `IN (…)`.
pub const LIST_MAX: usize = 1000;
/// What one question selects.
pub const SELECTED_MAX: usize = 64;
/// Columns of GROUP BY, and of ORDER BY.
pub const KEYS_MAX: usize = 8;
/// Different aggregates in one question.
pub const AGGREGATES_MAX: usize = 16;
/// Different labels in one question.
pub const LABELS_MAX: usize = 16;
/// Comparisons of one question.
pub const COMPARISONS_MAX: usize = 200;
