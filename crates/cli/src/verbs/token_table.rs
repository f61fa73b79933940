//! `muster token create-bulk`

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::context::{read_input, write_private};
use crate::error::{FieldError, Problem};
use crate::output::{Printer, Sheet};
use crate::progress;

/// A table of devices, and where their tokens go.
#[derive(Clone, Debug, clap::Args)]
pub struct BulkArgs {
    /// The table, CSV in UTF-8; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Make the good rows where others are bad
    #[arg(long)]
    partial: bool,
    /// Write the tokens to this new file, for its owner alone, and print none; without, they go to standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Made {
    tokens: Vec<MadeRow>,
    errors: Vec<FieldError>,
}

/// A row of the table of tokens, in the order of its columns.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct MadeRow {
    row: u64,
    device_uuid: String,
    serial: Option<String>,
    owner: Option<String>,
    token: String,
    expires_at: String,
}

/// Makes the tokens. Whatever was wrong stands in a table on standard error.
pub async fn run(arguments: BulkArgs, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let table = read_input(&arguments.file)?;
    let out = arguments.out.as_deref();
    if let Some(out) = out {
        reserve(out)?;
    }
    let bar = progress::spinner(format!("making tokens from {}", arguments.file.display()));
    let call = Call::post(&["enrollment-tokens", "bulk"])
        .query("partial", arguments.partial.then_some("true"))
        .bytes("text/csv", table);
    let sent: Result<Answer<Made>, CliError> = api.send(call).await;
    bar.finish_and_clear();
    let answer = match sent {
        Ok(answer) => answer,
        Err(error) => {
            if let Some(out) = out {
                // It is the empty file that was made above.
                let _ = std::fs::remove_file(out);
            }
            return Err(explained(error, printer));
        }
    };
    let Made { tokens, errors } = answer.known;
    let csv = csv_of(&tokens)?;
    match out {
        Some(out) => {
            write_private(out, csv.as_bytes())?;
            if printer.is_json() {
                printer.json(&json!({"made": tokens.len(), "errors": errors, "out": out}))?;
            } else {
                printer.note(&format!("{}: {}.", counted(tokens.len(), "token"), out.display()));
            }
        }
        None if printer.is_json() => printer.json(&answer.value)?,
        None => {
            printer.line(&csv)?;
            printer.note(&format!("{}, shown this once.", counted(tokens.len(), "token")));
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    if !printer.is_json() {
        printer.aside(&wrong(&errors));
    }
    Err(CliError::Failed(format!(
        "{} made no token",
        counted(bad_rows(&errors), "row")
    )))
}

/// Makes the file before any token is made: what could not be written would be lost.
fn reserve(out: &Path) -> Result<(), CliError> {
    if out.exists() {
        return Err(CliError::Usage(format!(
            "{} exists already. Name a new file.",
            out.display()
        )));
    }
    write_private(out, b"")
}

/// A refused table as a table; its errors are not said a second time.
pub fn explained(error: CliError, printer: &Printer) -> CliError {
    match error {
        CliError::Refused(problem) if !printer.is_json() && !problem.errors.is_empty() => {
            printer.aside(&wrong(&problem.errors));
            CliError::Refused(Box::new(Problem {
                errors: Vec::new(),
                ..*problem
            }))
        }
        other => other,
    }
}

/// Wrong cells as a table.
pub fn wrong(errors: &[FieldError]) -> Sheet {
    let rows = errors.iter().map(|error| {
        let (row, column) = place(&error.field);
        vec![row.to_owned(), column.to_owned(), error.detail.clone()]
    });
    Sheet::new().rows("errors", &["row", "column", "what is wrong"], rows.collect())
}

/// `row 3: serial` is row 3 and the column serial.
fn place(field: &str) -> (&str, &str) {
    let (row, column) = field.split_once(':').unwrap_or((field, ""));
    (row.trim().trim_start_matches("row "), column.trim())
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn bad_rows(errors: &[FieldError]) -> usize {
    let mut rows: Vec<&str> = errors.iter().map(|error| place(&error.field).0).collect();
    rows.sort_unstable();
    rows.dedup();
    rows.len()
}

fn csv_of(tokens: &[MadeRow]) -> Result<String, CliError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for token in tokens {
        writer
            .serialize(token)
            .map_err(|error| CliError::Answer(error.to_string()))?;
    }
    let bytes = writer
        .into_inner()
        .map_err(|error| CliError::Answer(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| CliError::Answer(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(field: &str) -> FieldError {
        FieldError {
            field: field.to_owned(),
            ..FieldError::default()
        }
    }

    #[test]
    fn errors_are_told_by_row_and_column() {
        assert_eq!(place("row 12: serial"), ("12", "serial"));
        assert_eq!(place("row 12"), ("12", ""));
        assert_eq!(place(""), ("", ""));
        let errors = [error("row 2: serial"), error("row 2: owner"), error("row 10")];
        assert_eq!(bad_rows(&errors), 2);
    }

    #[test]
    fn tokens_are_a_table_with_a_header() {
        let token = MadeRow {
            row: 2,
            device_uuid: "u".to_owned(),
            owner: Some("Person, A.".to_owned()),
            token: "-secret".to_owned(),
            expires_at: "2026-11-28T00:00:00Z".to_owned(),
            ..MadeRow::default()
        };
        assert_eq!(
            csv_of(&[token]).expect("it can be written"),
            "row,device_uuid,serial,owner,token,expires_at\n2,u,,\"Person, A.\",-secret,2026-11-28T00:00:00Z\n"
        );
    }

    #[test]
    fn a_file_that_is_there_is_not_overwritten() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let out = folder.path().join("tokens.csv");
        reserve(&out).expect("it is new");
        let refused = reserve(&out).expect_err("it is there");
        assert_eq!(refused.exit_code(), 2);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(&out).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}
