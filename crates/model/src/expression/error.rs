//! What is wrong with an expression, where, and what to write instead.

use std::fmt;

/// A text that is no expression. Lines and columns count from 1; columns count characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {detail}")]
pub struct ExpressionError {
    pub line: usize,
    pub column: usize,
    /// What is wrong and what to write.
    pub detail: String,
}

/// An error at a byte offset, before the text is at hand to count lines.
#[derive(Debug)]
pub(crate) struct Fault {
    at: usize,
    detail: String,
}

impl Fault {
    pub(crate) fn new(at: usize, detail: impl fmt::Display) -> Fault {
        Fault {
            at,
            detail: detail.to_string(),
        }
    }

    /// The place as people count it.
    pub(crate) fn locate(self, text: &str) -> ExpressionError {
        let before = text.get(..self.at).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        ExpressionError {
            line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            detail: self.detail,
        }
    }
}

/// The name that a wrong one is closest to, if it is close at all.
pub(crate) fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const DISTANCE_MAX: usize = 3;
    let lower = wrong.to_ascii_lowercase();
    let (distance, name) = names
        .into_iter()
        .map(|name| (crate::settings::distance(&lower, name), name))
        .min()?;
    // Of a short name, everything is close to everything.
    (distance <= DISTANCE_MAX && distance * 2 <= wrong.len()).then_some(name)
}

/// `; did you mean …?`, or what else to do.
pub(crate) fn did_you_mean<'a>(
    wrong: &str,
    names: impl IntoIterator<Item = &'a str>,
    otherwise: &str,
) -> String {
    match nearest(wrong, names) {
        Some(name) => format!("did you mean {name}?"),
        None => otherwise.to_owned(),
    }
}
