//! `muster query …`: questions about the fleet.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::context::read_input;
use crate::output::{Printer, Sheet, or_dash, plain};
use crate::progress::{self, Pace};

/// How much longer than the server's deadline a refresh is waited for.
const REFRESH_SLACK: Duration = Duration::from_secs(30);
/// Time that a refresh may take, whatever the server says.
const REFRESH_TIME_MAX: Duration = Duration::from_secs(2 * 3600);

/// Examples of the verb itself.
pub const HELP: &str = "Examples:
  muster query \"SELECT device, owner FROM disks WHERE NOT encrypted AND NOT removable\"
  muster query \"SELECT os_name, count(*) FROM devices GROUP BY os_name ORDER BY 2 DESC\"
  muster query \"SELECT device, version FROM packages WHERE name = 'openssl' AND version < '3.0.15'\" --refresh
  muster query --saved unencrypted-disks --csv > disks.csv
  muster query @question.sql --json

A question is answered at once from what devices reported last; --refresh asks them anew first. `muster query schema` lists
tables and columns.";

/// Ask the fleet a question.
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct QueryArgs {
    #[command(subcommand)]
    command: Option<QueryCommand>,
    #[command(flatten)]
    ask: AskArgs,
}

/// A question and the form of its answer.
#[derive(Clone, Debug, clap::Args)]
struct AskArgs {
    /// The question: SELECT … FROM … WHERE …; `@FILE` reads a file, `@-` standard input
    question: Option<String>,
    /// A saved question instead
    #[arg(long, value_name = "NAME", conflicts_with = "question")]
    saved: Option<String>,
    /// Answer as CSV, safe to open in a spreadsheet
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Answer as JSON
    #[arg(long)]
    json: bool,
    /// Ask the devices that it can be about for fresh facts first
    #[arg(long)]
    refresh: bool,
    /// How long devices have to answer with --refresh, 10 to 3600 seconds
    #[arg(long, value_name = "SECONDS", requires = "refresh")]
    deadline: Option<u64>,
    /// Rows of the answer
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
}

/// Verbs of questions. NAME is a saved question's name.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum QueryCommand {
    /// Save a question under a name, or change the one of this name
    #[command(
        after_help = "Examples:\n  muster query save old-openssl \"SELECT device, version FROM packages WHERE name = 'openssl' AND \
        version < '3.0.15'\"\n  muster query save disks @disks.sql --description 'For the audit' --daily-at 06:30"
    )]
    Save {
        name: String,
        /// The question; `@FILE` reads a file, `@-` standard input
        question: String,
        /// A sentence for people
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        #[command(flatten)]
        schedule: ScheduleArgs,
    },
    /// List saved questions
    #[command(after_help = "Examples:\n  muster query list")]
    List,
    /// Show a saved question
    #[command(after_help = "Examples:\n  muster query show old-openssl")]
    Show { name: String },
    /// Delete a saved question with its answers
    #[command(after_help = "Examples:\n  muster query delete old-openssl --yes")]
    Delete {
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Have a saved question asked by itself, or no longer
    #[command(
        after_help = "Examples:\n  muster query schedule old-openssl --every 60\n  muster query schedule old-openssl --daily-at \
        06:30\n  muster query schedule old-openssl --off"
    )]
    Schedule {
        name: String,
        #[command(flatten)]
        schedule: ScheduleArgs,
        /// Ask it no longer by itself
        #[arg(long, conflicts_with_all = ["every", "daily_at"])]
        off: bool,
    },
    /// List the last answers of a scheduled question, or show one with what changed
    #[command(
        after_help = "Examples:\n  muster query runs old-openssl\n  muster query runs old-openssl newest\n  muster query runs \
        old-openssl newest --csv"
    )]
    Runs {
        name: String,
        /// A run's id, or `newest`
        run: Option<String>,
        /// The answer as CSV
        #[arg(long, requires = "run")]
        csv: bool,
    },
    /// List what can be asked: tables, columns and what they hold
    #[command(after_help = "Examples:\n  muster query schema\n  muster query schema packages")]
    Schema {
        /// One table
        table: Option<String>,
    },
}

/// When a question is asked by itself.
#[derive(Clone, Debug, clap::Args)]
pub struct ScheduleArgs {
    /// Every so many minutes, 5 at least
    #[arg(long, value_name = "MINUTES", conflicts_with = "daily_at")]
    every: Option<u32>,
    /// Every day at this time, UTC
    #[arg(long, value_name = "HH:MM")]
    daily_at: Option<String>,
}

impl ScheduleArgs {
    fn value(&self) -> Option<Value> {
        match (&self.every, &self.daily_at) {
            (Some(minutes), _) => Some(json!({"every_minutes": minutes})),
            (None, Some(time)) => Some(json!({"daily_at": time})),
            (None, None) => None,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Answered {
    columns: Vec<Column>,
    rows: Vec<Vec<Value>>,
    truncated: bool,
    took_ms: u64,
    devices: u64,
    withheld_devices: u64,
    facts_oldest_at: Option<String>,
    facts_newest_at: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    description: String,
    example: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Items<T> {
    items: Vec<T>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Saved {
    name: String,
    description: String,
    question: String,
    schedule: Option<Value>,
    owner: String,
    updated_by: String,
    updated_at: Option<String>,
    version: i64,
    next_run_at: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Run {
    id: String,
    at: Option<String>,
    rows: i64,
    added: Option<i64>,
    removed: Option<i64>,
    error: Option<String>,
    answer: Option<Answered>,
    added_rows: Vec<Vec<Value>>,
    removed_rows: Vec<Vec<Value>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Refresh {
    id: String,
    state: String,
    devices: u64,
    asked: u64,
    answered: u64,
    offline: u64,
    unanswered: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Schema {
    tables: Vec<Table>,
    shared: Vec<Column>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Table {
    name: String,
    description: String,
    example: String,
    columns: Vec<Column>,
}

/// Runs one verb.
pub async fn run(arguments: QueryArgs, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match arguments.command {
        None => ask(arguments.ask, api, printer).await,
        Some(QueryCommand::Save {
            name,
            question,
            description,
            schedule,
        }) => {
            let body = json!({
                "question": text(&question)?,
                "description": description.unwrap_or_default(),
                "schedule": schedule.value(),
            });
            show(api.send(Call::put(&["queries", &name], body)).await?, printer)
        }
        Some(QueryCommand::List) => {
            let answer: Answer<Items<Saved>> = api.send(Call::get(&["queries"])).await?;
            printer.answer(&answer.value, |printer| list(printer, &answer.known.items))
        }
        Some(QueryCommand::Show { name }) => show(api.send(Call::get(&["queries", &name])).await?, printer),
        Some(QueryCommand::Delete { name, yes }) => {
            printer.confirm(yes, "The question and its answers end.", &name)?;
            api.send_quiet(Call::delete(&["queries", &name])).await?;
            printer.note(&format!("{name} is deleted."));
            Ok(())
        }
        Some(QueryCommand::Schedule { name, schedule, off }) => {
            let wanted = schedule.value();
            if wanted.is_none() && !off {
                return Err(CliError::Usage(
                    "Say when: --every, --daily-at or --off.".to_owned(),
                ));
            }
            let before: Answer<Saved> = api.send(Call::get(&["queries", &name])).await?;
            let body = json!({
                "question": before.known.question,
                "description": before.known.description,
                "schedule": wanted,
            });
            let call = Call::put(&["queries", &name], body).if_match(&before.known.version.to_string());
            show(api.send(call).await?, printer)
        }
        Some(QueryCommand::Runs { name, run, csv }) => runs(&name, run, csv, api, printer).await,
        Some(QueryCommand::Schema { table }) => {
            let answer: Answer<Schema> = api.send(Call::get(&["query-schema"])).await?;
            let sheet = schema(&answer.known, table.as_deref())?;
            printer.answer(&answer.value, |_| sheet)
        }
    }
}

/// A text as it is written, or the file that `@FILE` names.
fn text(text: &str) -> Result<String, CliError> {
    let Some(path) = text.strip_prefix('@') else {
        return Ok(text.to_owned());
    };
    String::from_utf8(read_input(std::path::Path::new(path))?)
        .map_err(|_| CliError::Usage(format!("{path} is not UTF-8 text")))
}

async fn ask(arguments: AskArgs, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let question = match (&arguments.question, &arguments.saved) {
        (Some(question), _) => json!({"question": text(question)?}),
        (None, Some(saved)) => json!({"saved": saved}),
        (None, None) => {
            return Err(CliError::Usage(
                "Ask something: muster query \"SELECT * FROM devices\". `muster query schema` lists what there is.".to_owned(),
            ));
        }
    };
    if arguments.refresh {
        refresh(&question, arguments.deadline, api, printer).await?;
    }
    let mut body = question;
    body["limit"] = json!(arguments.limit);
    let call = Call::post(&["queries", "run"]).body(body);
    if arguments.csv {
        let answer = api.send_raw(call.accept("text/csv")).await?;
        return printer.line(&String::from_utf8_lossy(&answer.bytes));
    }
    let answer: Answer<Answered> = api.send(call).await?;
    if arguments.json {
        return printer.json(&answer.value);
    }
    printer.answer(&answer.value, |printer| {
        table(printer, &answer.known, &answer.known.rows)
    })?;
    if !printer.is_json() {
        remark(&answer.known, printer);
    }
    Ok(())
}

/// What a reader has to know to trust an answer, beside it.
fn remark(answer: &Answered, printer: &Printer) {
    let mut said = format!(
        "{} row{} from {} devices in {} ms",
        answer.rows.len(),
        if answer.rows.len() == 1 { "" } else { "s" },
        answer.devices,
        answer.took_ms
    );
    if let (Some(oldest), Some(newest)) = (&answer.facts_oldest_at, &answer.facts_newest_at) {
        let (oldest, newest) = (printer.ago(Some(oldest)), printer.ago(Some(newest)));
        match oldest == newest {
            true => said.push_str(&format!("; facts of {oldest}")),
            false => said.push_str(&format!("; facts of {oldest} to {newest}")),
        }
    }
    printer.note(&format!("{said}."));
    if answer.truncated {
        printer.note("There are more rows: --limit takes up to 10000, --csv up to 100000.");
    }
    if answer.withheld_devices > 0 {
        printer.note(&format!(
            "{} personally owned devices have no rows in this table.",
            answer.withheld_devices
        ));
    }
}

/// Asks devices for fresh facts, and shows how far that is.
async fn refresh(
    question: &Value,
    deadline: Option<u64>,
    api: &Api,
    printer: &Printer,
) -> Result<(), CliError> {
    let mut body = question.clone();
    body["deadline_seconds"] = json!(deadline);
    let started: Answer<Refresh> = api.send(Call::post(&["query-refreshes"]).body(body)).await?;
    let id = started.known.id;
    let bar = progress::bar(started.known.devices, "devices answered");
    let mut pace = Pace::new(Some(REFRESH_TIME_MAX + REFRESH_SLACK));
    loop {
        let now: Answer<Refresh> = api.send(Call::get(&["query-refreshes", &id])).await?;
        let now = now.known;
        bar.set_length(now.devices);
        bar.set_position(now.answered);
        bar.set_prefix(format!("({} asked, {} away)", now.asked, now.offline));
        if now.state != "running" || !pace.next().await {
            bar.finish_and_clear();
            printer.note(&outcome(&now));
            return Ok(());
        }
    }
}

fn outcome(refresh: &Refresh) -> String {
    let Refresh {
        devices,
        answered,
        unanswered,
        offline,
        ..
    } = refresh;
    match (devices, unanswered) {
        (0, _) => "No device had to be asked.".to_owned(),
        (_, 0) => format!("{answered} of {devices} devices answered."),
        _ => format!(
            "{answered} of {devices} devices answered; {unanswered} did not in time ({offline} were away when they were asked). What \
             they said before stands: facts_at tells when."
        ),
    }
}

fn table(printer: &Printer, answer: &Answered, rows: &[Vec<Value>]) -> Sheet {
    let names = answer.columns.iter().map(|column| column.name.clone()).collect();
    let cell = |(column, value): (&Column, &Value)| match (column.kind.as_str(), value) {
        ("time", Value::String(at)) => printer.ago(Some(at)),
        (_, value) => plain(value),
    };
    let row = |row: &Vec<Value>| answer.columns.iter().zip(row).map(cell).collect();
    Sheet::new().named_rows("rows", names, rows.iter().map(row).collect())
}

fn list(printer: &Printer, saved: &[Saved]) -> Sheet {
    if saved.is_empty() {
        return Sheet::new().text("No saved questions. Save one: muster query save NAME \"SELECT …\"");
    }
    let row = |saved: &Saved| {
        vec![
            saved.name.clone(),
            schedule_text(saved.schedule.as_ref()),
            saved
                .next_run_at
                .as_deref()
                .map_or_else(|| "-".to_owned(), |at| printer.ago(Some(at))),
            or_dash(Some(&saved.description)),
            saved.question.clone(),
        ]
    };
    let header = ["name", "schedule", "next", "description", "question"];
    Sheet::new().rows("saved questions", &header, saved.iter().map(row).collect())
}

fn schedule_text(schedule: Option<&Value>) -> String {
    let Some(schedule) = schedule.filter(|schedule| !schedule.is_null()) else {
        return "-".to_owned();
    };
    match (&schedule["every_minutes"], &schedule["daily_at"]) {
        (Value::Number(minutes), _) => format!("every {minutes} min"),
        (_, Value::String(time)) => format!("daily at {time} UTC"),
        _ => plain(schedule),
    }
}

fn show(answer: Answer<Saved>, printer: &Printer) -> Result<(), CliError> {
    printer.answer(&answer.value, |printer| {
        let saved = answer.known.clone();
        Sheet::new().fields(vec![
            ("name", Some(saved.name)),
            (
                "description",
                Some(saved.description).filter(|text| !text.is_empty()),
            ),
            ("question", Some(saved.question)),
            ("schedule", Some(schedule_text(saved.schedule.as_ref()))),
            (
                "next run",
                saved.next_run_at.as_deref().map(|at| printer.when(Some(at))),
            ),
            ("owner", Some(saved.owner)),
            ("changed by", Some(saved.updated_by)),
            (
                "changed",
                saved.updated_at.as_deref().map(|at| printer.when(Some(at))),
            ),
            ("version", Some(saved.version.to_string())),
        ])
    })
}

async fn runs(
    name: &str,
    run: Option<String>,
    csv: bool,
    api: &Api,
    printer: &Printer,
) -> Result<(), CliError> {
    let Some(run) = run else {
        let answer: Answer<Items<Run>> = api.send(Call::get(&["queries", name, "runs"])).await?;
        return printer.answer(&answer.value, |printer| {
            let number =
                |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
            let row = |run: &Run| {
                vec![
                    printer.ago(run.at.as_deref()),
                    run.rows.to_string(),
                    number(run.added),
                    number(run.removed),
                    or_dash(run.error.as_deref()),
                    run.id.clone(),
                ]
            };
            let header = ["ran", "rows", "added", "removed", "error", "id"];
            Sheet::new().rows("runs", &header, answer.known.items.iter().map(row).collect())
        });
    };
    let call = Call::get(&["queries", name, "runs", &run]);
    if csv {
        let answer = api.send_raw(call.accept("text/csv")).await?;
        return printer.line(&String::from_utf8_lossy(&answer.bytes));
    }
    let answer: Answer<Run> = api.send(call).await?;
    printer.answer(&answer.value, |printer| {
        let run = &answer.known;
        let Some(kept) = &run.answer else {
            return Sheet::new().text(or_dash(run.error.as_deref()));
        };
        let mut sheet = table(printer, kept, &kept.rows);
        for (title, rows) in [
            ("Added since the run before:", &run.added_rows),
            ("Gone:", &run.removed_rows),
        ] {
            if !rows.is_empty() {
                sheet = sheet.text(title).and(table(printer, kept, rows));
            }
        }
        sheet
    })
}

fn schema(schema: &Schema, table: Option<&str>) -> Result<Sheet, CliError> {
    let row = |column: &Column| {
        vec![
            column.name.clone(),
            column.kind.clone(),
            column.description.clone(),
            column.example.clone(),
        ]
    };
    let header = ["column", "type", "holds", "example"];
    let Some(wanted) = table else {
        let tables = schema.tables.iter().map(|table| {
            let columns: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
            vec![table.name.clone(), table.description.clone(), columns.join(", ")]
        });
        let shared = schema.shared.iter().map(row).collect();
        return Ok(Sheet::new()
            .rows(
                "tables",
                &["table", "rows", "columns of its own"],
                tables.collect(),
            )
            .text("Every table has the columns of its device, and label('key'):")
            .rows("columns", &header, shared));
    };
    let found = schema
        .tables
        .iter()
        .find(|table| table.name == wanted)
        .ok_or_else(|| {
            let names: Vec<&str> = schema.tables.iter().map(|table| table.name.as_str()).collect();
            CliError::Usage(format!(
                "There is no table {wanted}; there is {}.",
                names.join(", ")
            ))
        })?;
    let columns = found.columns.iter().chain(&schema.shared).map(row).collect();
    Ok(Sheet::new()
        .text(format!(
            "{}: {}.\n\n  {}",
            found.name, found.description, found.example
        ))
        .rows("columns", &header, columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_answer_is_said() {
        let refresh = |answered, unanswered| Refresh {
            devices: 3,
            answered,
            unanswered,
            ..Refresh::default()
        };
        assert_eq!(outcome(&refresh(3, 0)), "3 of 3 devices answered.");
        assert!(outcome(&refresh(1, 2)).contains("2 did not in time"));
        assert_eq!(outcome(&Refresh::default()), "No device had to be asked.");
    }

    #[test]
    fn schedules_read_as_people_say_them() {
        assert_eq!(schedule_text(Some(&json!({"every_minutes": 60}))), "every 60 min");
        assert_eq!(
            schedule_text(Some(&json!({"daily_at": "06:30"}))),
            "daily at 06:30 UTC"
        );
        assert_eq!(schedule_text(None), "-");
    }
}
