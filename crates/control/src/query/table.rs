//! Answers as tables (CSV, RFC 4180) that no spreadsheet takes for formulas.

use serde_json::Value;

use super::view::AnswerView;
use crate::access::problem::Problem;

/// An answer as CSV, with a first row that names the columns.
pub fn csv(answer: &AnswerView) -> Result<String, Problem> {
    let broken = |error: &dyn std::fmt::Display| Problem::internal(error.to_string());
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    let names = answer.columns.iter().map(|column| inert(&column.name));
    writer.write_record(names).map_err(|error| broken(&error))?;
    for row in &answer.rows {
        writer
            .write_record(row.iter().map(cell))
            .map_err(|error| broken(&error))?;
    }
    let bytes = writer.into_inner().map_err(|error| broken(&error))?;
    String::from_utf8(bytes).map_err(|error| broken(&error))
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => inert(text),
        other => other.to_string(),
    }
}

/// A text that no spreadsheet takes for a formula.
fn inert(text: &str) -> String {
    let trimmed = text.trim_start();
    match trimmed.starts_with(['=', '+', '-', '@']) || text.starts_with(['\t', '\r', '\n']) {
        true => format!("'{text}"),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula_and_numbers_stay_numbers() {
        for text in ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", " =1", "\n=1"] {
            assert!(inert(text).starts_with('\''), "{text:?}");
        }
        assert_eq!(inert("a=b"), "a=b");
        assert_eq!(cell(&serde_json::json!(-1.5)), "-1.5");
        assert_eq!(cell(&Value::Null), "");
    }
}
