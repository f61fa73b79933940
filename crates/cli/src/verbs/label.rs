//! `muster label import` and `muster device label`

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

use super::token_table::{explained, wrong};
use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::context::read_input_of;
use crate::error::FieldError;
use crate::output::{Printer, Sheet};
use crate::progress;

/// The largest table, as the server has it.
const TABLE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Rows that one request carries: an answer comes within seconds, and the bar moves.
const ROWS_PER_CALL: usize = 2_000;

/// Verbs of labels.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum LabelCommand {
    /// Set and remove the labels of many devices from a table
    #[command(
        after_help = "Examples:\n  muster label import labels.csv --dry-run\n  muster label import labels.csv\n\nThe table is \
        CSV in UTF-8. Its first row has one of id, serial, device_uuid and name, and a column for each label key. An empty \
        cell leaves a label as it is, - removes it."
    )]
    Import(ImportArgs),
}

/// A table of labels.
#[derive(Clone, Debug, clap::Args)]
pub struct ImportArgs {
    /// The table; `-` reads standard input
    file: PathBuf,
    /// Only say what would change, and what is wrong
    #[arg(long)]
    dry_run: bool,
    /// Carry out the good rows where others are bad
    #[arg(long)]
    partial: bool,
}

/// What `muster device label` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct DeviceLabelArgs {
    id: String,
    /// `key=value` sets a label, `key-` removes one
    #[arg(required = true, value_name = "KEY=VALUE|KEY-")]
    changes: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Outcome {
    rows: usize,
    devices_changed: usize,
    devices_unchanged: usize,
    labels_set: usize,
    labels_removed: usize,
    errors_total: usize,
    errors: Vec<FieldError>,
}

impl Outcome {
    fn add(&mut self, part: Outcome) {
        self.rows += part.rows;
        self.devices_changed += part.devices_changed;
        self.devices_unchanged += part.devices_unchanged;
        self.labels_set += part.labels_set;
        self.labels_removed += part.labels_removed;
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Labels {
    labels: BTreeMap<String, String>,
}

/// Runs one verb.
pub async fn run(command: LabelCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command {
        LabelCommand::Import(arguments) => import(&arguments, api, printer).await,
    }
}

/// Changes the labels of one device.
pub async fn of_device(arguments: DeviceLabelArgs, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let body = json!({"labels": changes(&arguments.changes)?});
    let answer: Answer<Labels> = api
        .send(Call::patch(&["devices", &arguments.id, "labels"], body))
        .await?;
    printer.answer(&answer.value, |_| {
        let rows = answer.known.labels.iter();
        let rows = rows.map(|(key, value)| vec![key.clone(), value.clone()]);
        Sheet::new().rows("labels", &["label", "value"], rows.collect())
    })
}

/// `key=value` and `key-` as the members of a patch.
fn changes(words: &[String]) -> Result<Value, CliError> {
    let mut changes = serde_json::Map::new();
    for word in words {
        let (key, value) = match (word.split_once('='), word.strip_suffix('-')) {
            (Some((key, value)), _) => (key, Value::from(value)),
            (None, Some(key)) => (key, Value::Null),
            (None, None) => {
                return Err(CliError::Usage(format!("`{word}` is neither key=value nor key-")));
            }
        };
        if changes.insert(key.to_owned(), value).is_some() {
            return Err(CliError::Usage(format!("`{key}` stands twice")));
        }
    }
    Ok(Value::Object(changes))
}

/// Has the whole table checked, then sends it in parts.
async fn import(arguments: &ImportArgs, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let table = read_input_of(&arguments.file, TABLE_BYTES_MAX)?;
    let spinner = progress::spinner(format!("checking {}", arguments.file.display()));
    let tried: Result<Answer<Outcome>, CliError> = api.send(call(table.clone(), "dry_run")).await;
    spinner.finish_and_clear();
    let tried = tried.map_err(|error| explained(error, printer))?.known;
    let bad = tried.errors_total;
    if bad > 0 && !printer.is_json() {
        printer.aside(&wrong(&tried.errors));
    }
    if arguments.dry_run || (bad > 0 && !arguments.partial) {
        show(printer, &tried, true)?;
        return ended(bad, "nothing was changed");
    }
    let parts = parts(&table)?;
    let bar = progress::bar(tried.rows as u64, "rows");
    let mut done = Outcome::default();
    for (rows, part) in parts {
        let sent: Result<Answer<Outcome>, CliError> = api.send(call(part, "partial")).await;
        match sent {
            Ok(answer) => done.add(answer.known),
            // Every row of the part was wrong, which was said already.
            Err(CliError::Refused(problem)) if bad > 0 && problem.code == "csv_invalid" => done.rows += rows,
            Err(error) => {
                bar.abandon();
                printer.note(&format!(
                    "{} devices were changed before. Send the table again: what is so already is no change.",
                    done.devices_changed
                ));
                return Err(error);
            }
        }
        bar.inc(rows as u64);
    }
    bar.finish_and_clear();
    done.errors_total = bad;
    done.errors = tried.errors;
    show(printer, &done, false)?;
    ended(bad, "the good rows were carried out")
}

fn call(table: Vec<u8>, mode: &'static str) -> Call<'static> {
    Call::post(&["labels", "import"])
        .query(mode, Some("true"))
        .bytes("text/csv", table)
}

fn ended(bad: usize, what: &str) -> Result<(), CliError> {
    if bad == 0 {
        return Ok(());
    }
    let cells = if bad == 1 { "cell is" } else { "cells are" };
    Err(CliError::Failed(format!("{bad} {cells} not valid; {what}")))
}

fn show(printer: &Printer, outcome: &Outcome, dry_run: bool) -> Result<(), CliError> {
    let value = json!({
        "dry_run": dry_run,
        "rows": outcome.rows,
        "devices_changed": outcome.devices_changed,
        "devices_unchanged": outcome.devices_unchanged,
        "labels_set": outcome.labels_set,
        "labels_removed": outcome.labels_removed,
        "errors_total": outcome.errors_total,
        "errors": outcome.errors,
    });
    printer.answer(&value, |_| {
        let label = if dry_run { "would change" } else { "changed" };
        Sheet::new().fields(vec![
            ("rows", Some(outcome.rows.to_string())),
            (label, Some(format!("{} devices", outcome.devices_changed))),
            (
                "unchanged",
                Some(format!("{} devices", outcome.devices_unchanged)),
            ),
            ("labels set", Some(outcome.labels_set.to_string())),
            ("labels removed", Some(outcome.labels_removed.to_string())),
        ])
    })
}

/// The table in parts, each with the header, and how many rows a part has.
fn parts(table: &[u8]) -> Result<Vec<(usize, Vec<u8>)>, CliError> {
    let unreadable = |error: csv::Error| CliError::Usage(format!("the table cannot be read: {error}"));
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .from_reader(table.strip_prefix(b"\xef\xbb\xbf").unwrap_or(table));
    let header = reader.byte_headers().map_err(unreadable)?.clone();
    let (mut parts, mut rows, mut writer) = (Vec::new(), 0, None);
    for record in reader.byte_records() {
        let record = record.map_err(unreadable)?;
        let part = match &mut writer {
            Some(part) => part,
            None => {
                let mut part = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
                part.write_byte_record(&header).map_err(unreadable)?;
                writer.insert(part)
            }
        };
        part.write_byte_record(&record).map_err(unreadable)?;
        rows += 1;
        if rows == ROWS_PER_CALL {
            parts.extend(finished(writer.take(), rows)?);
            rows = 0;
        }
    }
    parts.extend(finished(writer, rows)?);
    Ok(parts)
}

fn finished(writer: Option<csv::Writer<Vec<u8>>>, rows: usize) -> Result<Option<(usize, Vec<u8>)>, CliError> {
    let bytes = writer.map(csv::Writer::into_inner).transpose();
    let bytes = bytes.map_err(|error| CliError::Usage(error.to_string()))?;
    Ok(bytes.map(|bytes| (rows, bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_set_and_remove_labels() {
        let words =
            |words: &[&str]| changes(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(
            words(&["department=sales", "note=a=b-", "site-"]).expect("they are changes"),
            json!({"department": "sales", "note": "a=b-", "site": null})
        );
        for wrong in [&["site"][..], &["a=1", "a-"]] {
            assert_eq!(words(wrong).expect_err("no change").exit_code(), 2);
        }
    }

    #[test]
    fn a_long_table_is_sent_in_parts_with_its_header() {
        let rows: String = (0..ROWS_PER_CALL + 1)
            .map(|row| format!("S{row},\"a, b\"\r\n"))
            .collect();
        let table = format!("\u{feff}serial,site\r\n{rows}");
        let parts = parts(table.as_bytes()).expect("it is a table");
        let counts: Vec<usize> = parts.iter().map(|(rows, _)| *rows).collect();
        assert_eq!(counts, [ROWS_PER_CALL, 1]);
        let last = String::from_utf8_lossy(&parts[1].1).into_owned();
        assert_eq!(last, format!("serial,site\nS{ROWS_PER_CALL},\"a, b\"\n"));
    }
}
