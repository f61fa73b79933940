//! How answers and errors are printed.

use std::borrow::Cow;
use std::io::{IsTerminal as _, Write as _};

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use muster_model::Timestamp;
use serde_json::Value;

use crate::{CliError, Globals, clock};

/// Longest value in a table before it is cut where no terminal gives a width.
const CELL_CHARS_MAX: usize = 400;

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// The server's JSON.
    Json,
}

/// Prints answers to standard output and everything else to standard error.
#[derive(Clone, Debug)]
pub struct Printer {
    format: Format,
    has_color: bool,
    is_terminal: bool,
    can_ask: bool,
    now: Timestamp,
}

impl Printer {
    /// As the flags and the terminal say.
    pub fn new(globals: &Globals) -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let has_color = is_terminal && globals.no_color.as_deref().is_none_or(str::is_empty);
        let can_ask = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        Self {
            format: globals.output,
            has_color,
            is_terminal,
            can_ask,
            now: clock::now(),
        }
    }

    /// True where the answer is JSON.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints an answer: its JSON as it came, or the table made of it.
    pub fn answer(&self, value: &Value, table: impl FnOnce(&Self) -> Sheet) -> Result<(), CliError> {
        match self.format {
            Format::Json => self.json(value),
            Format::Table => self.line(&self.render(&table(self))),
        }
    }

    /// Prints JSON.
    pub fn json(&self, value: &Value) -> Result<(), CliError> {
        let text =
            serde_json::to_string_pretty(value).map_err(|error| CliError::Answer(error.to_string()))?;
        self.line(&text)
    }

    /// Prints text, with a line end if it has none.
    pub fn line(&self, text: &str) -> Result<(), CliError> {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| {
                if text.ends_with('\n') || text.is_empty() {
                    Ok(())
                } else {
                    out.write_all(b"\n")
                }
            })
            .and_then(|()| out.flush())
            .map_err(CliError::Output)
    }

    /// Says something beside the answer. What standard error does not take is lost.
    pub fn note(&self, text: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// Shows tables beside the answer, on standard error.
    pub fn aside(&self, sheet: &Sheet) {
        self.note(&self.render(sheet));
    }

    /// Whether text may have colors.
    pub fn has_color(&self) -> bool {
        self.has_color
    }

    /// Says where the next page begins.
    pub fn next_page(&self, cursor: Option<&str>) {
        if let Some(cursor) = cursor
            && !self.is_json()
        {
            self.note(&format!("There is more: --cursor {cursor}"));
        }
    }

    /// Says what went wrong: a JSON problem where answers are JSON, sentences otherwise.
    pub fn error(&self, error: &CliError) {
        if self.is_json() {
            let value = match error {
                CliError::Refused(problem) => serde_json::to_value(problem).unwrap_or_default(),
                CliError::Files(wrong) => serde_json::json!({"title": error.to_string(), "errors": wrong}),
                other => serde_json::json!({"title": other.to_string(), "detail": other.advice()}),
            };
            return self.note(&value.to_string());
        }
        self.note(&error_text(error));
    }

    /// Asks a person to type a word before something that cannot be taken back. Without a terminal only `--yes` answers.
    pub fn confirm(&self, is_confirmed: bool, what: &str, word: &str) -> Result<(), CliError> {
        if is_confirmed {
            return Ok(());
        }
        if !self.can_ask {
            return Err(CliError::Usage(format!("{what} Repeat it with --yes.")));
        }
        let mut err = std::io::stderr().lock();
        let _ = write!(err, "{what}\nType {word} to go on: ");
        let _ = err.flush();
        let mut typed = String::new();
        let read = std::io::stdin().read_line(&mut typed);
        if read.is_ok() && typed.trim() == word {
            return Ok(());
        }
        Err(CliError::Failed("nothing was done".to_owned()))
    }

    /// "3 min ago", or the text itself where it is no time.
    pub fn ago(&self, time: Option<&str>) -> String {
        let Some(text) = time else {
            return "never".to_owned();
        };
        text.parse()
            .map_or_else(|_| text.to_owned(), |at| relative(at, self.now))
    }

    /// The time itself and how long ago that is.
    pub fn when(&self, time: Option<&str>) -> String {
        match time {
            None => "-".to_owned(),
            Some(text) => format!("{text} ({})", self.ago(time)),
        }
    }

    fn render(&self, sheet: &Sheet) -> String {
        let mut text = String::new();
        for part in &sheet.parts {
            if !text.is_empty() {
                text.push_str("\n\n");
            }
            match part {
                Part::Rows { header, rows } if rows.is_empty() => {
                    text.push_str(&format!(
                        "No {}.",
                        header.first().map_or("rows", |(_, none)| none)
                    ));
                }
                Part::Rows { header, rows } => text.push_str(&self.table(header, rows)),
                Part::Text(line) => text.push_str(line),
            }
        }
        text
    }

    fn table(&self, header: &[(Cow<'static, str>, &'static str)], rows: &[Vec<String>]) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if self.is_terminal {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        } else {
            table.force_no_tty();
        }
        if self.has_color {
            table.enforce_styling();
        }
        if header.iter().any(|(title, _)| !title.is_empty()) {
            table.set_header(header.iter().map(|(title, _)| {
                let cell = Cell::new(title.to_uppercase());
                if self.has_color {
                    cell.add_attribute(Attribute::Bold)
                } else {
                    cell
                }
            }));
        }
        for row in rows {
            table.add_row(row.iter().map(|value| self.cell(value)));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn cell(&self, value: &str) -> Cell {
        let cell = Cell::new(clean(value));
        match color_of(value) {
            Some(color) if self.has_color => cell.fg(color),
            _ => cell,
        }
    }
}

/// What a verb shows: tables and lines, one below the other.
#[derive(Clone, Debug, Default)]
pub struct Sheet {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Rows {
        header: Vec<(Cow<'static, str>, &'static str)>,
        rows: Vec<Vec<String>>,
    },
    Text(String),
}

impl Sheet {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A table. `none` is what there is none of when it has no row.
    pub fn rows(mut self, none: &'static str, header: &[&'static str], rows: Vec<Vec<String>>) -> Self {
        let header = header.iter().map(|title| (Cow::Borrowed(*title), none)).collect();
        self.parts.push(Part::Rows { header, rows });
        self
    }

    /// Names and values, one pair a line; pairs without a value are left out.
    pub fn fields(mut self, fields: Vec<(&'static str, Option<String>)>) -> Self {
        let rows: Vec<_> = fields
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| vec![name.to_owned(), value]))
            .collect();
        self.parts.push(Part::Rows {
            header: vec![(Cow::Borrowed(""), "details"), (Cow::Borrowed(""), "")],
            rows,
        });
        self
    }

    /// A table whose columns somebody else names.
    pub fn named_rows(mut self, none: &'static str, header: Vec<String>, rows: Vec<Vec<String>>) -> Self {
        let header = header.into_iter().map(|title| (Cow::Owned(clean(&title)), none));
        self.parts.push(Part::Rows {
            header: header.collect(),
            rows,
        });
        self
    }

    /// What another sheet holds, below.
    pub fn and(mut self, other: Sheet) -> Self {
        self.parts.extend(other.parts);
        self
    }

    /// A line or several.
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.parts.push(Part::Text(text.into()));
        self
    }
}

/// The error with everything that helps: wrong fields, code, request id, advice.
fn error_text(error: &CliError) -> String {
    let mut lines = vec![format!("error: {}", clean(&error.to_string()))];
    if let CliError::Files(wrong) = error {
        lines.extend(wrong.iter().map(|wrong| format!("  {}", clean(wrong))));
    }
    if let CliError::Refused(problem) = error {
        for wrong in &problem.errors {
            lines.push(format!(
                "  {}: {} ({})",
                clean(&wrong.field),
                clean(&wrong.detail),
                clean(&wrong.code)
            ));
        }
        let request = problem
            .request_id
            .as_deref()
            .map(|id| format!(", request {}", clean(id)));
        let code = if problem.code.is_empty() {
            "no code"
        } else {
            &problem.code
        };
        lines.push(format!(
            "  code {}, status {}{}",
            clean(code),
            problem.status,
            request.unwrap_or_default()
        ));
    }
    lines.extend(error.advice());
    lines.join("\n")
}

/// Text of a device or a server without what could move the cursor or change the terminal; cut if very long.
pub fn clean(text: &str) -> String {
    let mut clean: String = text
        .chars()
        .take(CELL_CHARS_MAX)
        .map(|c| {
            if c.is_control() && c != '\n' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect();
    if text.chars().nth(CELL_CHARS_MAX).is_some() {
        clean.push('…');
    }
    clean
}

/// The color that goes with a state's word; the word alone says it all.
fn color_of(word: &str) -> Option<Color> {
    match word {
        "compliant" | "verified" | "active" | "completed" | "done" | "exact" | "EXACT" | "redeemed" => {
            Some(Color::Green)
        }
        "noncompliant" | "failed" | "aborted" | "rolled_back" | "expired" | "retired" => Some(Color::Red),
        "pending" | "queued" | "delivered" | "running" | "paused" | "quarantined" | "weaker" | "unknown"
        | "differs" | "awaiting_approval" | "not_expressible" | "silent" | "WEAKER" | "NOT_EXPRESSIBLE"
        | "NEEDS_AGENT" => Some(Color::Yellow),
        _ => None,
    }
}

fn relative(at: Timestamp, now: Timestamp) -> String {
    let (span, is_past) = if at > now {
        (at.since(now), false)
    } else {
        (now.since(at), true)
    };
    let seconds = span.as_secs();
    let text = match seconds {
        0..5 => return "now".to_owned(),
        5..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    };
    if is_past {
        format!("{text} ago")
    } else {
        format!("in {text}")
    }
}

/// A value of a document in one line: texts bare, everything else as JSON.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The value or a dash.
pub fn or_dash(value: Option<&str>) -> String {
    value.filter(|value| !value.is_empty()).unwrap_or("-").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{FieldError, Problem};

    fn printer() -> Printer {
        let now = Timestamp::from_unix_seconds(1_000_000);
        Printer {
            format: Format::Table,
            has_color: false,
            is_terminal: false,
            can_ask: false,
            now,
        }
    }

    #[test]
    fn a_table_without_a_terminal_is_plain_columns() {
        let sheet = Sheet::new().rows(
            "devices",
            &["name", "state"],
            vec![
                vec!["a".to_owned(), "active".to_owned()],
                vec!["bcd".to_owned(), "retired".to_owned()],
            ],
        );
        assert_eq!(
            printer().render(&sheet),
            "NAME  STATE\na     active\nbcd   retired"
        );
        assert_eq!(
            printer().render(&Sheet::new().rows("devices", &["name"], Vec::new())),
            "No devices."
        );
    }

    #[test]
    fn fields_without_a_value_are_left_out() {
        let sheet = Sheet::new()
            .fields(vec![("id", Some("x".to_owned())), ("owner", None)])
            .text("end");
        assert_eq!(printer().render(&sheet), "id  x\n\nend");
    }

    #[test]
    fn text_of_devices_cannot_drive_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\r"), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(clean(&"x".repeat(500)).chars().count(), CELL_CHARS_MAX + 1);
    }

    #[test]
    fn times_are_relative_to_now() {
        let at = |seconds: i64| Timestamp::from_unix_seconds(1_000_000 - seconds).to_string();
        let ago = |seconds| printer().ago(Some(&at(seconds)));
        assert_eq!(ago(0), "now");
        assert_eq!(ago(30), "30 s ago");
        assert_eq!(ago(600), "10 min ago");
        assert_eq!(ago(10_000), "2 h ago");
        assert_eq!(ago(864_000), "10 days ago");
        assert_eq!(ago(-600), "in 10 min");
        assert_eq!(printer().ago(Some("soon")), "soon");
        assert_eq!(printer().ago(None), "never");
    }

    #[test]
    fn a_refusal_shows_fields_code_request_and_advice() {
        let problem = Problem {
            title: "The settings are not valid".to_owned(),
            status: 422,
            detail: "One of 2.".to_owned(),
            code: "settings_invalid".to_owned(),
            request_id: Some("r-1".to_owned()),
            errors: vec![FieldError {
                field: "passcode.min_lenth".to_owned(),
                code: "unknown_setting".to_owned(),
                detail: "Did you mean passcode.min_length?".to_owned(),
            }],
            retry_after_seconds: None,
        };
        let expected = "error: The settings are not valid: One of 2.\n  passcode.min_lenth: Did you mean \
            passcode.min_length? (unknown_setting)\n  code settings_invalid, status 422, request r-1\n`muster \
            settings` lists every setting with its values.";
        assert_eq!(error_text(&CliError::Refused(Box::new(problem))), expected);
    }

    #[test]
    fn without_a_terminal_nothing_is_asked() {
        assert!(printer().confirm(true, "This wipes.", "a").is_ok());
        let refused = printer().confirm(false, "This wipes.", "a");
        assert!(matches!(refused, Err(CliError::Usage(text)) if text.contains("--yes")));
    }
}
